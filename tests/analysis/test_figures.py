"""The paper's figures from tables of results."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import tiny_checkpoint
from recordings import small_recording
from results_tables import curve, legend, write_tables

from analysis import figures, results, summaries
from netspec import checkpoint as checkpoints
from netspec.architectures.resnet import CONSTRAINTS, resnet20
from netspec.checkpoint import save_checkpoint
from netspec.conversion import Conversion
from netspec.thresholds import Thresholds, find_thresholds


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A ResNet-20 with junction ReLUs, and thresholds of it, in the place of the shipped networks."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    monkeypatch.setattr(checkpoints, "PRETRAINED", folder)
    spec = resnet20(width=0.125, preprocessing=False)
    network = tiny_checkpoint(spec)
    path = folder / "resnet20-cifar10-constraint1.safetensors"
    save_checkpoint(network, path)
    values = {population.name: 14 / (1 + k) + 1 for k, population in enumerate(spec.spiking)}
    thresholds = Thresholds(values, "spike-norm", network.digest, 100.0, 256, "CIFAR-10 train", 0, 2500)
    thresholds.save(find_thresholds(path, "spike-norm"))
    return folder


def title(ax) -> str:
    return ax.get_legend().get_title().get_text()


def test_constraints_in_the_papers_order(tables):
    (ax,) = figures.constraints(results.load("errors", tables)).axes
    assert legend(ax) == [*(constraints.label for constraints in CONSTRAINTS.values()), "ANN"]
    assert title(ax) == "ResNet-20, CIFAR-10, 1,000 images"
    errors = results.load("errors", tables)["resnet20-cifar10-constraint1"]
    unit = errors[errors["unit"]]["snn_error"]
    np.testing.assert_allclose(curve(ax, "2: unit thresholds"), unit / 100)


def test_constraints_are_compared_on_the_same_images(tables):
    errors = results.load("errors", tables)
    one = errors["resnet20-cifar10"]
    errors["resnet20-cifar10"] = pd.concat([one, one.assign(images=10_000, snn_error=50.0)])
    (ax,) = figures.constraints(errors).axes
    assert title(ax) == "ResNet-20, CIFAR-10, 1,000 images"
    np.testing.assert_allclose(curve(ax, "3: pre-processing layers"), one["snn_error"] / 100)
    del errors["resnet20-cifar10-basic"]
    (ax,) = figures.constraints(errors).axes
    assert title(ax) == "ResNet-20, CIFAR-10, 1,000 images"
    errors["resnet20-cifar10"] = one.assign(images=10_000)  # no images that all were shown
    (ax,) = figures.constraints(errors).axes
    assert "3: pre-processing layers, 10,000 images" in legend(ax)


def test_constraints_need_two_curves(tmp_path):
    errors = results.load("errors", write_tables(tmp_path, ("resnet20-cifar10", "vgg16-cifar10")))
    with pytest.raises(results.MissingTableError, match="resnet20-cifar10-basic"):
        figures.constraints(errors)


def test_convergence_has_a_panel_for_each_data_set(tables):
    cifar, imagenette = figures.convergence_by_network(results.load("errors", tables)).axes
    assert legend(cifar) == ["VGG-16", "ResNet-20", "ANN", "the paper's final error"]
    assert legend(imagenette) == ["VGG-16", "ResNet-34", "ANN"]  # other data than the paper's
    ends = [line.get_ydata()[0] for line in cifar.lines if line.get_fillstyle() == "none" and len(line.get_ydata())]
    assert ends == pytest.approx([0.0845, 0.1254])
    assert title(cifar) == "CIFAR-10, 1,000 images"


def test_the_papers_end_is_after_its_steps(tables):
    errors = {name: table[table["steps"] <= 500] for name, table in results.load("errors", tables).items()}
    assert "the paper's final error" not in legend(figures.convergence_by_network(errors).axes[0])


def test_several_seeds_have_a_band(tmp_path):
    errors = results.load("errors", write_tables(tmp_path, ("vgg16-cifar10",), seeds="0 1 2"))
    (ax,) = figures.convergence_by_network(errors).axes
    assert len(ax.collections) == 1
    assert legend(ax)[0] == "VGG-16, 1,000 images, mean of 3 seeds"


def test_a_current_as_input_is_told(tables):
    errors = results.load("errors", tables)
    table = errors["vgg16-cifar10"]
    errors["vgg16-cifar10"] = table.assign(coding=np.where(table["method"] == "ann-norm", "current", "poisson"))
    (ax,) = figures.convergence_by_setting(errors, "vgg16-cifar10").axes
    assert legend(ax)[:2] == ["SPIKE-NORM, reset zero", "ANN-model, reset zero, input as a current"]


def test_all_settings_of_a_network(tables):
    (ax,) = figures.convergence_by_setting(results.load("errors", tables), "vgg16-cifar10").axes
    assert legend(ax) == [
        "SPIKE-NORM, reset zero",
        "ANN-model, reset zero",
        "ANN-model, percentile 99.9, reset subtract",
        "ANN",
    ]
    assert title(ax) == "VGG-16, CIFAR-10, 1,000 images"


def test_no_curve_hides_another_of_the_same_name(tables):
    errors = results.load("errors", tables)
    one = errors["resnet20-cifar10"]
    others = [one.assign(thresholds="00e11111", snn_error=30.0), one.assign(model="leaky", snn_error=40.0)]
    errors["resnet20-cifar10"] = pd.concat([one, *others], ignore_index=True)
    (ax,) = figures.convergence_by_setting(errors, "resnet20-cifar10").axes
    names = ["thresholds 01e00000", "thresholds 00e11111", "leaky, thresholds 01e00000"]
    assert set(legend(ax)) == {*(f"SPIKE-NORM, unit, {name}" for name in names), "ANN"}
    assert set(curve(ax, "SPIKE-NORM, unit, thresholds 00e11111")) == {0.3}


def test_points_lost_need_the_papers_thresholds_or_a_current(tables):
    errors = results.load("errors", tables)
    one = errors["vgg16-cifar10"]
    few = one[one["reset"] == "subtract"]
    for kept, expected in {
        "ann-norm": ["ResNet-20, SPIKE-NORM"],
        "spike-norm": ["VGG-16, SPIKE-NORM", "ResNet-20, SPIKE-NORM"],
        "few": ["VGG-16, for few steps", "ResNet-20, SPIKE-NORM"],
        "few to zero": ["ResNet-20, SPIKE-NORM"],
    }.items():
        shown = few.assign(coding="current") if kept == "few" else few.assign(coding="current", reset="zero")
        errors["vgg16-cifar10"] = shown if kept.startswith("few") else one[one["method"] == kept]
        (ax,) = figures.points_lost(errors).axes
        assert legend(ax) == expected


def test_curves_on_other_images_have_their_own_ann(tables):
    errors = results.load("errors", tables)
    table = errors["vgg16-cifar10"]
    table.loc[table["thresholds"] == "00e00001", ["images", "ann_error"]] = 500, 12.0  # ann-norm, the maximum
    (ax,) = figures.convergence_by_setting(errors, "vgg16-cifar10").axes
    assert title(ax) == "VGG-16, CIFAR-10"
    dashed = {line.get_color(): line.get_ydata()[0] for line in ax.lines if list(line.get_xdata()) == [0, 1]}
    colours = {line.get_label(): line.get_color() for line in ax.lines}
    assert dashed[colours["SPIKE-NORM, reset zero, 1,000 images"]] == pytest.approx(0.09)
    assert dashed[colours["ANN-model, reset zero, 500 images"]] == pytest.approx(0.12)


def test_figures_take_the_evaluation_of_most_images_and_the_page_all(tables):
    errors, operations = results.load("errors", tables), results.load("operations", tables)
    before = figures.convergence_by_setting(errors, "vgg16-cifar10"), figures.spike_counts(operations)
    for kind in (errors, operations):
        fewer = kind["vgg16-cifar10"].assign(images=10)
        kind["vgg16-cifar10"] = pd.concat([fewer, kind["vgg16-cifar10"]])
    after = figures.convergence_by_setting(errors, "vgg16-cifar10"), figures.spike_counts(operations)
    assert [[legend(ax) for ax in f.axes] for f in after] == [[legend(ax) for ax in f.axes] for f in before]
    assert set(results.choose(errors, "vgg16-cifar10", "spike-norm")["images"]) == {1000}
    page = summaries.comparison({"vgg16-cifar10": errors["vgg16-cifar10"]})
    assert list(page["images"]) == 3 * ["1,000", "10"]
    assert len(summaries.operations_summary({"vgg16-cifar10": operations["vgg16-cifar10"]})) == 3


def test_spike_counts_have_a_panel_for_each_network(tables):
    figure = figures.spike_counts(results.load("operations", tables))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["VGG-16, CIFAR-10", "VGG-16, Imagenette", "ResNet-20, CIFAR-10", "ResNet-34, Imagenette"]
    assert legend(figure.axes[0]) == ["SPIKE-NORM, 2,500 steps", "ANN-model, 2,500 steps"]
    np.testing.assert_allclose(curve(figure.axes[0], "ANN-model, 2,500 steps"), [5, 10 / 3, 2.5])


def test_balancing_factors_mark_the_junctions(shipped):
    (ax,) = figures.balancing_factors().axes
    assert ax.get_title() == "ResNet-20, CIFAR-10, no pre-processing layers, SPIKE-NORM"
    assert legend(ax) == ["junctions", "threshold under constraint 2"]
    everything, junctions, _ = ax.lines
    assert len(everything.get_xdata()) == 20
    assert list(junctions.get_xdata()) == [f"conv{stage}_{unit}" for stage in (2, 3, 4) for unit in (1, 2, 3)]


def test_what_is_not_shipped_is_told(shipped, capsys):
    assert figures.available(figures.thresholds, "vgg16-cifar10") is None
    assert "there is no checkpoint file vgg16-cifar10" in capsys.readouterr().out
    with pytest.raises(results.MissingTableError, match="--method ann-norm --unit"):
        figures.shipped_thresholds("resnet20-cifar10-constraint1", "ann-norm-unit")


def test_thresholds_of_both_methods():
    left, right = figures.thresholds("vgg16-cifar10").axes
    ratio, product, _ = right.lines
    np.testing.assert_allclose(left.lines[0].get_ydata() / left.lines[1].get_ydata(), ratio.get_ydata())
    np.testing.assert_allclose(np.cumprod(ratio.get_ydata()), product.get_ydata())


def test_rates_by_layer():
    recording = small_recording()
    shapes = {p.name: (4, p.shape[2], *p.shape[:2]) for p in recording.spec.spiking}
    activations = {name: np.random.default_rng(0).random(shape) for name, shape in shapes.items()}
    figure = figures.rates_by_layer(recording, activations, Conversion("", "all", dict.fromkeys(activations, 0.8)))
    assert [ax.get_title() for ax in figure.axes if ax.axison] == ["conv", "hidden", "output"]
