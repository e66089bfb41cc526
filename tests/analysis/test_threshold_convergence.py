"""The command that measures how thresholds converge; its figure."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from commands import run
from results_tables import curve, legend

from analysis import figures, threshold_convergence
from netspec.checkpoint import load_checkpoint
from sims.simulation.reference import ReferenceSimulator

CONVERGENCE = partial(run, "threshold_convergence.py", threshold_convergence.main)


def test_image_counts_double():
    assert threshold_convergence.image_counts(1) == [1]
    assert threshold_convergence.image_counts(8) == [1, 2, 4, 8]
    assert threshold_convergence.image_counts(11) == [1, 2, 4, 8, 11]


def test_thresholds_accumulate_over_images():
    peaks = np.array([[1.0, 5.0, 0.0], [2.0, 4.0, 0.0], [9.0, 0.0, 0.0]])
    rows = threshold_convergence.rows(peaks, (50, 100))
    found = {(row["images"], row["percentile"]): row["threshold"] for row in rows}
    assert found == {(1, 50): 1, (1, 100): 5, (2, 50): 2, (2, 100): 5, (3, 50): 5, (3, 100): 9}


@pytest.fixture
def converge(tiny_file, tmp_path, monkeypatch):
    """The command on the small network with the sample images, in the torch reference."""
    monkeypatch.setattr(threshold_convergence, "open_simulator", ReferenceSimulator)
    out = tmp_path / "new" / "tiny-threshold-convergence.csv"

    def call(*arguments):
        options = ("--data", "cifar10-samples", "--images", 3, "--steps", 10, 30, "--workers", 2)
        return CONVERGENCE("--checkpoint", tiny_file, *options, "--out", out, *arguments), out

    return call


def test_the_whole_batch_gives_the_maximum_over_images_and_steps(converge, tiny_file):
    ended, out = converge()
    assert ended.status == 0, ended
    table = pd.read_csv(out)
    network = load_checkpoint(tiny_file)
    assert list(table["layer"].unique()) == [population.name for population in network.spec.spiking]
    assert len(table) == 4 * 2 * 3 * 3  # layers, steps, numbers of images, percentiles
    largest = table[table["percentile"] == 100]
    largest = largest.pivot_table(index=["layer", "steps"], columns="images", values="threshold")
    assert (np.diff(largest.to_numpy(), axis=1) >= 0).all()
    figure = figures.threshold_convergence("tiny", out.parent)
    assert [ax.get_legend().get_title().get_text() for ax in figure.axes] == ["steps", "images", "percentile"]
    assert [legend(ax) for ax in figure.axes] == [["10", "30"], ["1", "2", "3"], ["99", "99.9", "100"]]
    assert "up to 3 images and 30 steps" in figure.get_suptitle()
    of_all = largest[3].unstack("steps").loc[list(table["layer"].unique())]
    np.testing.assert_allclose(curve(figure.axes[0], "10"), of_all[10] / of_all[30])
    assert list(out.parent.iterdir()) == [out]


def test_an_interrupted_convergence_goes_on(converge, monkeypatch):
    _, out = converge()
    expected = out.read_bytes()
    out.unlink()
    measure, asked, fatal = threshold_convergence.measure, [], {"conv5_3"}

    def watched(simulator, x, thresholds, layer, *rest):
        if layer in fatal:
            raise KeyboardInterrupt
        asked.append(layer)
        return measure(simulator, x, thresholds, layer, *rest)

    monkeypatch.setattr(threshold_convergence, "measure", watched)
    assert converge()[0].status == 130
    asked.clear(), fatal.clear()
    again, _ = converge()
    assert "going on after conv3_3" in again.out
    assert set(asked) == {"conv5_3", "output"}
    assert out.read_bytes() == expected


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--images", 21), "21 images were asked for"),
        (("--images", 0), "at least 1"),
        (("--steps", 0), "the number of steps must be from 1"),
        (("--workers", 0), "--workers must be at least 1"),
        (("--thresholds", "spike-norm-unit"), "there are no thresholds"),
    ],
)
def test_impossible_convergence_is_refused(converge, arguments, reason):
    converge(*arguments)[0].assert_refused("threshold_convergence.py", reason)


def test_the_published_table_is_not_overwritten_unasked(tiny_file, tmp_path, monkeypatch):
    monkeypatch.setattr(threshold_convergence, "open_simulator", ReferenceSimulator)
    monkeypatch.chdir(tmp_path)
    options = ("--data", "cifar10-samples", "--images", 1, "--steps", 10)
    assert CONVERGENCE("--checkpoint", tiny_file, *options).status == 0
    assert [file.name for file in (tmp_path / "output").iterdir()] == ["tiny-threshold-convergence.csv"]
