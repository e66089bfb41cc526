"""One ingredient at a time: errors of the reference, a table that goes on where it stopped, curves."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import run
from matplotlib.figure import Figure

from analysis import ingredients
from netspec.checkpoint import load_checkpoint
from netspec.conversion import find_conversion
from netspec.data import samples
from sims.conversion.activations import from_activations
from sims.simulation.metrics import error
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput


@pytest.fixture
def network(tiny, tmp_path):
    path = shutil.copy(tiny, tmp_path / "net.safetensors")
    checkpoint = load_checkpoint(path)
    from_activations(checkpoint, checkpoint.encode(samples().images), 99).save(find_conversion(path, "fast"))
    return path


def test_errors_are_those_of_all_images(network):
    checkpoint, shown = load_checkpoint(network), samples()
    conversion, x = from_activations(checkpoint, checkpoint.encode(shown.images), 99), checkpoint.encode(shown.images)
    found = ingredients.measured(checkpoint, conversion, shown.images, shown.labels, 10)
    recording = ReferenceSimulator(checkpoint.spec, checkpoint.weights, "subtract").run(RunInput.of(x, conversion, 10))
    assert found["steps"].tolist() == [1, 2, 3, 4, 6, 8, 10]
    np.testing.assert_allclose(found["snn_error"], 100 * error(recording, shown.labels, found["steps"]), atol=5.1)


def test_each_ingredient_changes_one_thing(network):
    checkpoint = load_checkpoint(network)
    x = checkpoint.encode(samples().images)
    base = from_activations(checkpoint, x, 99)
    changed = {name: change(base, checkpoint, x) for name, change in ingredients.INGREDIENTS.items()}
    assert changed["as shipped"] == base
    assert changed["Poisson input"] == replace(base, coding="poisson")
    assert changed["potentials from 0"].initial == {} and changed["reset to zero"].reset == "zero"
    assert changed["largest activations"].thresholds["conv1_1"] > base.thresholds["conv1_1"]
    assert np.ndim(changed["thresholds of channels"].thresholds["conv1_1"]) == 1
    assert changed["output that fires"].fires("output") and not base.fires("output")
    assert changed["other read-out"].delay == 0.5
    assert len({conversion.digest for conversion in changed.values()}) == len(changed) - 1  # a reset is no number


def test_the_command_goes_on_where_it_stopped_and_draws(network, tmp_path, monkeypatch):
    few = {name: ingredients.INGREDIENTS[name] for name in ("as shipped", "other read-out")}
    out, arguments = tmp_path / "table.csv", ("--data", "cifar10-samples", "--images", 4, "--steps", 6)

    def command():
        return run("ingredients.py", ingredients.main, "--checkpoint", network, *arguments, "--out", out)

    monkeypatch.setattr(ingredients, "INGREDIENTS", {"as shipped": few["as shipped"]})
    assert command().status == 0
    first = pd.read_csv(out)
    monkeypatch.setattr(ingredients, "INGREDIENTS", few)
    ended = command()
    assert ended.status == 0 and "as shipped:" not in ended.out and "other read-out:" in ended.out
    table = pd.read_csv(out)
    pd.testing.assert_frame_equal(table[: len(first)], first)
    assert table["ingredient"].unique().tolist() == list(few)
    ax = ingredients.plot_ingredients(Figure().subplots(), table)
    assert [line.get_label() for line in ax.lines] == [*few, "ANN"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), first["snn_error"])


def test_a_table_of_another_evaluation_is_kept(network, tmp_path, monkeypatch):
    monkeypatch.setattr(ingredients, "INGREDIENTS", {"as shipped": ingredients.INGREDIENTS["as shipped"]})
    monkeypatch.chdir(tmp_path)
    arguments = ("--checkpoint", network, "--data", "cifar10-samples", "--images", 4, "--steps", 3)
    command = partial(run, "ingredients.py", ingredients.main, *arguments)
    assert command().status == 0
    table = Path("output", "net-ingredients.csv")
    before = table.read_text()
    for other in (("--seed", 1), ("--steps", 2), ("--images", 5)):
        command(*other).assert_refused("ingredients.py", "is of another network, conversion, data, images, steps or")
    assert table.read_text() == before
    Path("other.csv").write_text("a,b\n1,2\n")
    command("--out", "other.csv").assert_refused("ingredients.py", "other.csv is no table of this command")
    Path("file").write_text("")
    command("--out", "file/table.csv").assert_refused("ingredients.py", "file")
