"""The paper's figures and numbers from tables of results; the commands that write them."""

import sys
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from commands import files, run, tiny_checkpoint
from matplotlib.backend_bases import MouseButton, MouseEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from recordings import STEPS, small_recording

from analysis import coding, coding_error, explore, figures, make_figures, results, threshold_convergence
from netspec import checkpoint as checkpoints
from netspec.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from netspec.data import CIFAR10_CLASSES
from netspec.errors import UserError
from netspec.resnet import resnet20
from sims.evaluation import REPORTED_STEPS, name_thresholds
from sims.reference import ReferenceSimulator
from sims.runtime import RunInput
from sims.thresholds import VARIANTS, Thresholds, find_thresholds, load_thresholds

SETTINGS = {
    "vgg16-cifar10": [("spike-norm 100", "zero"), ("ann-norm 100", "zero"), ("ann-norm 99.9", "subtract")],
    "resnet20-cifar10": [("spike-norm-unit 100", "zero")],
    "resnet20-cifar10-constraint1": [("spike-norm 100", "zero"), ("spike-norm-unit 100", "zero")],
    "resnet20-cifar10-basic": [("spike-norm 100", "zero")],
    "vgg16-imagenette": [("spike-norm 100", "zero")],
    "resnet34-imagenette": [("spike-norm-unit 100", "zero")],
}
LAYERS = {"vgg": ("conv1_1", "conv1_2", "output"), "res": ("conv1", "conv2_1_branch", "conv2_1", "output")}


def write_tables(folder: Path, names=tuple(SETTINGS), seeds: str = "0") -> Path:
    """Tables as sims/evaluate.py writes them: errors fall from 90 % to 10 %, the increment is 1 point."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        rows, operations = [], []
        for k, (thresholds, reset) in enumerate(SETTINGS[name]):
            base = {
                "network": f"{name}-x0.5",
                "data": "test 0a",
                "images": 1000,
                "thresholds": thresholds,
                "reset": reset,
                "seed": seeds,
            }
            for steps in REPORTED_STEPS:
                error = 10 + 80 / (1 + (steps / (100 * (1 + k + place))) ** 3)
                rows.append(
                    base
                    | {"steps": steps, "ann_error": 9.0, "snn_error": error}
                    | {"snn_error_sd": 0.5 if " " in seeds else np.nan, "increment": error - 9, "agreement": 95.0}
                )
            counts = {f"spikes_per_neuron_{layer}": 10.0 / (1 + i + k) for i, layer in enumerate(LAYERS[name[:3]])}
            totals = {"ac_per_image": 3e6, "ac_input_per_image": 2e6, "mac_per_image": 1e6, "ac_mac_ratio": 3.0}
            operations.append(
                base | {"steps": 2500, "seeds": seeds} | totals | {"spikes_per_neuron_input": 900.0} | counts
            )
        pd.DataFrame(rows).to_csv(folder / f"{name}-errors.csv", index=False)
        pd.DataFrame(operations).to_csv(folder / f"{name}-operations.csv", index=False)
    return folder


@pytest.fixture
def tables(tmp_path) -> Path:
    return write_tables(tmp_path / "tables")


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A ResNet-20 with junction ReLUs, and thresholds of it, in the place of the shipped networks."""
    folder = tmp_path / "pretrained"
    folder.mkdir()
    monkeypatch.setattr(checkpoints, "PRETRAINED", folder)
    spec = resnet20(width=0.125, preprocessing=False)
    weights = {p.name: np.ones(spec.weight_shape(p), np.float32) for p in spec.projections if p.weighted}
    network = Checkpoint(spec, weights, np.zeros((1, 1, 3), np.float32), 1.0, CIFAR10_CLASSES)
    path = folder / "resnet20-cifar10-constraint1.safetensors"
    save_checkpoint(network, path)
    values = {population.name: 14 / (1 + k) + 1 for k, population in enumerate(spec.spiking)}
    Thresholds(values, "spike-norm", network.digest, 100.0, 256, "CIFAR-10 train", 0, 2500).save(
        find_thresholds(path, "spike-norm")
    )
    return folder


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def curve(ax, name: str) -> np.ndarray:
    return next(line.get_ydata() for line in ax.lines if line.get_label() == name)


# Tables


def test_names_for_people():
    assert results.describe("vgg16-cifar10") == "VGG-16, CIFAR-10"
    assert results.describe("resnet20-cifar10-basic") == "ResNet-20, CIFAR-10, no junction ReLUs"
    assert results.describe("resnet34-imagenette") == "ResNet-34, Imagenette"
    assert results.thresholds_of("spike-norm 100") == "SPIKE-NORM"
    assert results.thresholds_of("ann-norm-unit 99.9 abcd1234") == "ANN-model, unit, percentile 99.9"


def test_rows_are_chosen_by_their_thresholds(tables):
    errors = results.load("errors", tables)
    assert set(results.choose(errors, "vgg16-cifar10", "ann-norm")["thresholds"]) == {"ann-norm 100"}
    assert len(results.choose(errors, "vgg16-cifar10", "ann-norm", "subtract", 99.9)) == len(REPORTED_STEPS)
    assert set(results.choose(errors, "resnet20-cifar10-constraint1", "spike-norm")["thresholds"]) == {"spike-norm 100"}
    with pytest.raises(results.MissingTableError, match="--checkpoint vgg16-cifar10 --thresholds spike-norm-unit"):
        results.choose(errors, "vgg16-cifar10", "spike-norm-unit")
    with pytest.raises(results.MissingTableError, match="no results of vgg19 with spike-norm 100"):
        results.choose(errors, "vgg19", "spike-norm")


def test_thresholds_that_differ_by_a_digest_alone_are_refused(tables):
    errors = results.load("errors", tables)
    table = errors["vgg16-cifar10"]
    table["thresholds"] = table["thresholds"].replace({"ann-norm 100": "spike-norm 100 0123abcd"})
    with pytest.raises(UserError, match="several thresholds 'spike-norm 100'"):
        results.choose(errors, "vgg16-cifar10", "spike-norm")


def test_evaluations_on_other_data_are_not_mixed(tables):
    errors = results.load("errors", tables)
    one = errors["vgg16-cifar10"]
    errors["vgg16-cifar10"] = both = pd.concat([one, one.assign(data="mine 1b")])
    with pytest.raises(UserError, match="has 'spike-norm 100' on several data"):
        results.choose(errors, "vgg16-cifar10", "spike-norm")
    for only_largest in (False, True):
        assert len(results.evaluations(both, only_largest)) == 2 * len(results.evaluations(one))
        assert all(rows["data"].nunique() == 1 for rows in results.evaluations(both, only_largest))


def test_most_seeds_are_taken_of_those_on_most_images(tables):
    errors = results.load("errors", tables)
    one = errors["vgg16-cifar10"]
    others = [one.assign(seed="0 1"), one.assign(images=10, seed="0 1 2")]
    errors["vgg16-cifar10"] = both = pd.concat([one, *others])
    chosen = results.choose(errors, "vgg16-cifar10", "spike-norm")
    assert (set(chosen["images"]), set(chosen["seed"]), len(chosen)) == ({1000}, {"0 1"}, len(REPORTED_STEPS))
    assert [set(rows["seed"]) for rows in results.evaluations(both, only_largest=True)] == 3 * [{"0 1"}]
    assert list(results.comparison({"vgg16-cifar10": both})["seeds"]) == 3 * ["0, 1", "0", "0, 1, 2"]


def test_tables_of_an_earlier_version_are_refused(tables):
    path = tables / "vgg16-cifar10-errors.csv"
    path.write_text(path.read_text().replace(",seed,", ",seeds,"))
    with pytest.raises(UserError, match=r"vgg16-cifar10-errors\.csv does not tell its seeds"):
        results.load("errors", tables)


@pytest.mark.parametrize(
    "path",
    [path for kind in ("errors", "operations", "coding") for path in sorted(results.RESULTS.glob(f"*-{kind}.csv"))],
)
def test_published_tables_are_of_the_shipped_networks_and_thresholds(path):
    table = pd.read_csv(path, dtype={"checkpoint": str})
    name = path.stem.rpartition("-")[0]
    shipped = load_checkpoint(name)
    assert set(table["checkpoint"]) == {shipped.digest[:8]}
    if "thresholds" in table:
        beside = [find_thresholds(name, variant) for variant in VARIANTS]
        names = {name_thresholds(load_thresholds(file, shipped)) for file in beside if file.is_file()}
        assert set(table["thresholds"][table["thresholds"].str.contains(" 100 ")]) <= names


def test_no_tables_are_told_from_an_empty_folder(tmp_path):
    with pytest.raises(results.MissingTableError, match="make one with sims/evaluate"):
        results.load("errors", tmp_path)


def test_comparison_has_the_papers_numbers_where_they_are_comparable(tables):
    table = results.comparison(results.load("errors", tables)).set_index(["network", "thresholds", "reset"])
    row = table.loc[("VGG-16, CIFAR-10 (x0.5 channels)", "SPIKE-NORM", "zero")]
    assert (row["images"], row["seeds"], row["ANN"], row["SNN"]) == ("1,000", "0", "9.00 %", "10.01 %")
    assert (row["increment"], row["the paper"]) == ("+1.01", "8.30 %, 8.45 % (+0.15), Table 1")
    elsewhere = table.loc[("VGG-16, Imagenette (x0.5 channels)", "SPIKE-NORM", "zero"), "the paper"]
    assert elsewhere == "on ImageNet: 29.48 %, 30.04 % (+0.56), Table 2"
    assert not table.loc[("VGG-16, CIFAR-10 (x0.5 channels)", "ANN-model, percentile 99.9", "subtract"), "the paper"]
    assert not table.loc[("ResNet-20, CIFAR-10, no junction ReLUs (x0.5 channels)", "SPIKE-NORM", "zero"), "the paper"]


def test_paper_is_no_comparison_at_other_steps(tables):
    errors = results.load("errors", tables)["vgg16-cifar10"]
    shown = results.comparison({"vgg16-cifar10": errors[errors["steps"] <= 500]})
    assert set(shown["steps"]) == {500} and not shown["the paper"].any()


def test_comparison_of_several_seeds_has_deviations(tmp_path):
    errors = results.load("errors", write_tables(tmp_path, ("vgg16-cifar10",), seeds="0 1 2"))
    table = results.comparison(errors)
    assert (table["SNN"][0], table["seeds"][0]) == ("10.01 ± 0.50 %", "0, 1, 2")


def test_operations_and_energy(tables):
    table = results.operations_summary(results.load("operations", tables))
    row = table.iloc[[name.startswith("ResNet-34") for name in table["network"]]].iloc[0]
    assert (row["AC/MAC, all events"], row["AC/MAC, by layers"]) == ("3.00", "")  # no such network is shipped
    assert (row["ANN energy"], row["SNN energy"], row["SNN/ANN"], row["input's AC"]) == ("5 µJ", "3 µJ", "0.6", "2 M")
    assert row["the paper, by layers"] == "2.4 (ImageNet, 2000 steps)"
    others = table[(table["reset"] != "zero") | ~table["thresholds"].str.startswith("SPIKE-NORM")]
    assert len(others) and not others["the paper, by layers"].any()  # settings that the paper has not


def test_layers_leave_out_the_input_and_what_is_not_there():
    row = pd.Series(
        {"steps": 3, "spikes_per_neuron_input": 9.0, "spikes_per_neuron_a": 2.0, "spikes_per_neuron_b": np.nan}
    )
    assert results.layers(row) == {"a": 2.0}


def test_markdown():
    assert results.markdown(pd.DataFrame({"a": [1], "b": ["x"]})) == "| a | b |\n| --- | --- |\n| 1 | x |\n"


# Figures


def test_constraints_in_the_papers_order(tables):
    (ax,) = figures.constraints(results.load("errors", tables)).axes
    assert legend(ax) == [*results.CONSTRAINTS, "ANN"]
    errors = results.load("errors", tables)["resnet20-cifar10-constraint1"]
    unit = errors[errors["thresholds"] == "spike-norm-unit 100"]["snn_error"]
    np.testing.assert_allclose(curve(ax, "2: unit thresholds"), unit / 100)


def test_constraints_need_two_curves(tmp_path):
    errors = results.load("errors", write_tables(tmp_path, ("resnet20-cifar10", "vgg16-cifar10")))
    with pytest.raises(results.MissingTableError, match="resnet20-cifar10-basic"):
        figures.constraints(errors)


def test_convergence_has_a_panel_for_each_data_set(tables):
    cifar, imagenette = figures.convergence_by_network(results.load("errors", tables)).axes
    assert legend(cifar) == ["VGG-16", "ResNet-20", "ANN", "the paper's end"]
    assert legend(imagenette) == ["VGG-16", "ResNet-34", "ANN"]  # other data than the paper's
    ends = [line.get_ydata()[0] for line in cifar.lines if line.get_fillstyle() == "none" and len(line.get_ydata())]
    assert ends == pytest.approx([0.0845, 0.1254])
    assert cifar.get_legend().get_title().get_text() == "CIFAR-10"


def test_several_seeds_have_a_band(tmp_path):
    (ax,) = figures.convergence_by_network(
        results.load("errors", write_tables(tmp_path, ("vgg16-cifar10",), seeds="0 1 2"))
    ).axes
    assert len(ax.collections) == 1


def test_all_settings_of_a_network(tables):
    (ax,) = figures.convergence_by_setting(results.load("errors", tables), "vgg16-cifar10").axes
    assert legend(ax) == [
        "SPIKE-NORM, reset zero, 1,000 images",
        "ANN-model, reset zero, 1,000 images",
        "ANN-model, percentile 99.9, reset subtract, 1,000 images",
        "ANN",
    ]


def test_curves_on_other_images_have_their_own_ann(tables):
    errors = results.load("errors", tables)
    table = errors["vgg16-cifar10"]
    table.loc[table["thresholds"] == "ann-norm 100", ["images", "ann_error"]] = 500, 12.0
    (ax,) = figures.convergence_by_setting(errors, "vgg16-cifar10").axes
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
    page = results.comparison({"vgg16-cifar10": errors["vgg16-cifar10"]})
    assert list(page["images"]) == 3 * ["1,000", "10"]
    assert len(results.operations_summary({"vgg16-cifar10": operations["vgg16-cifar10"]})) == 3


def test_spike_counts_have_a_panel_for_each_network(tables):
    figure = figures.spike_counts(results.load("operations", tables))
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["VGG-16, CIFAR-10", "VGG-16, Imagenette", "ResNet-20, CIFAR-10", "ResNet-34, Imagenette"]
    assert legend(figure.axes[0]) == ["SPIKE-NORM, 2,500 steps", "ANN-model, 2,500 steps"]
    np.testing.assert_allclose(curve(figure.axes[0], "ANN-model, 2,500 steps"), [5, 10 / 3, 2.5])


def test_balancing_factors_mark_the_junctions(shipped):
    (ax,) = figures.balancing_factors().axes
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
    figure = figures.rates_by_layer(recording, activations, dict.fromkeys(activations, 0.8))
    assert [ax.get_title() for ax in figure.axes if ax.axison] == ["conv", "hidden", "output"]


# Coding


def test_the_photograph_is_small_and_always_the_same():
    photograph = coding.sample_photograph()
    assert (photograph.shape, photograph.dtype) == ((32, 32, 3), np.uint8)
    assert photograph.std() > 30
    assert coding.sample_photograph(64).shape == (64, 64, 3)


def test_accumulated_spikes_are_those_of_a_run():
    x = np.random.default_rng(0).uniform(-1, 1, (1, 4, 6, 3)).astype(np.float32)
    spec = small_recording().spec
    weights = {p.name: np.zeros(spec.weight_shape(p), np.float32) for p in spec.projections}
    thresholds = dict.fromkeys(("conv", "hidden", "output"), 1.0)
    run_ = ReferenceSimulator(spec, weights).run(RunInput(x, thresholds, STEPS, seed=7, ids=np.array([5])))
    signed = run_.spike_counts("input_on").astype(int) - run_.spike_counts("input_off")
    first, last = coding.accumulated_spikes(x[0], [1, STEPS], seed=7, image=5)
    np.testing.assert_array_equal(last, signed[0])
    assert np.abs(first).max() == 1


def test_the_sampling_error_is_as_expected():
    x = np.random.default_rng(0).uniform(-1, 1, (16, 16, 3))
    steps = [10, 100]
    np.testing.assert_allclose(coding.sampling_error(x, steps), coding.expected_error(x, steps), rtol=0.1)


# Single neurons


def explorer(recording) -> explore.Explorer:
    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    made = explore.Explorer(figure, recording, "hidden", 1)
    figure.draw_without_rendering()
    return made


def test_a_click_chooses_the_neuron_of_the_nearest_spike():
    recording = small_recording()
    shown = explorer(recording)
    counts = recording.spike_counts("hidden")[1].ravel()
    assert shown.neuron == counts.argmax()
    other = next(i for i in np.argsort(counts) if counts[i] and i != shown.neuron)
    step = next(step for step, i in recording.rasters["hidden"] if i == other and step // STEPS == 1) % STEPS
    at = shown.raster.transData.transform((step, other))
    shown.figure.canvas.callbacks.process(
        "button_press_event", MouseEvent("button_press_event", shown.figure.canvas, *at, MouseButton.LEFT)
    )
    assert shown.neuron == other
    assert len(shown.train.get_xdata()) == counts[other]
    assert f"neuron {other}" in shown.raster.get_title()


def test_clicks_beside_the_raster_or_while_zooming_choose_nothing():
    shown = explorer(small_recording())
    before = shown.neuron
    at = shown.raster.transData.transform((5, 0))
    shown.figure.canvas.toolbar = mock.Mock(mode="zoom rect")
    for place in (at, (1, 1)):
        event = MouseEvent("button_press_event", shown.figure.canvas, *place, MouseButton.LEFT)
        shown.figure.canvas.callbacks.process("button_press_event", event)
        shown.figure.canvas.toolbar = None
    assert shown.neuron == before


# Commands

FIGURES = partial(run, "make_figures.py", make_figures.main)
CODING = partial(run, "coding_error.py", coding_error.main)
CONVERGENCE = partial(run, "threshold_convergence.py", threshold_convergence.main)


def test_figures_are_written_and_what_is_missing_is_told(tmp_path):
    tables = write_tables(tmp_path / "tables", ("vgg16-cifar10",))
    ended = FIGURES("--tables", tables, "--out", tmp_path / "new" / "figures")
    assert ended.status == 0, ended
    assert ended.err == ""
    written = files(tmp_path / "new" / "figures")
    drawn = {Path(name).stem for name in written} - {"results"}
    told = ended.out.splitlines()
    assert {"figure1_input_coding", "figure4_convergence", "figure5_spike_counts", "settings_vgg16-cifar10"} <= drawn
    for name in ("figure3_constraints", "threshold_convergence_vgg16-cifar10"):
        assert name not in drawn
        assert any(line.startswith(f"left out {name}: ") for line in told)
    assert all({f"{name}.png", f"{name}.pdf"} <= set(written) for name in drawn)
    assert "10.01 %" in written["results.md"].decode()


def test_the_results_page_says_what_imagenette_is(tables):
    assert "Imagenette is ten classes of ImageNet" in make_figures.results_page(tables)


def test_an_empty_folder_gives_no_results_page(tmp_path):
    (tmp_path / "tables").mkdir()
    ended = FIGURES("--tables", tmp_path / "tables", "--out", tmp_path / "out")
    assert ended.status == 0
    assert "left out results.md" in ended.out
    assert not (tmp_path / "out" / "results.md").exists()
    FIGURES("--tables", tmp_path / "nowhere").assert_refused("make_figures.py", "there is no folder")


def test_error_by_input_spikes_vanishes_with_their_number(tiny_file, tmp_path):
    out = tmp_path / "new" / "coding.csv"
    options = ("--checkpoint", tiny_file, "--data", "cifar10-samples", "--images", 16, "--out", out)  # 6.25 % each
    ended = CODING(*options, "--steps", 1, 10_000_000, "--seeds", 2)
    assert ended.status == 0, ended
    few, many = pd.read_csv(out).to_dict("records")
    assert (few["steps"], few["seeds"], many["coded_error_sd"]) == (1, 2, 0)
    assert (many["agreement"], many["increment"]) == (100, 0)
    assert few["agreement"] < 100
    assert few["increment"] == pytest.approx(few["coded_error"] - few["ann_error"])
    (checkpoint,) = {few["checkpoint"], many["checkpoint"]}
    assert load_checkpoint(tiny_file).digest.startswith(checkpoint)
    written = out.read_bytes()
    CODING(*options, "--steps", 1, 10_000_000, "--seeds", 2)
    assert out.read_bytes() == written
    errors = []
    for seed in range(2):
        CODING(*options, "--steps", 1, "--seed", seed)
        errors += list(pd.read_csv(out)["coded_error"])
    assert few["coded_error"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert few["coded_error_sd"] == pytest.approx(np.std(errors, ddof=1), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 0), "--steps and --seeds must be at least 1"),
        (("--out", "."), "--out . is a folder; give the name of a file"),
    ],
)
def test_coding_error_refuses_what_makes_no_sense(tiny_file, arguments, message):
    ended = CODING("--checkpoint", tiny_file, "--data", "cifar10-samples", *arguments)
    ended.assert_refused("coding_error.py", message)


def test_image_counts_double():
    assert threshold_convergence.image_counts(1) == [1]
    assert threshold_convergence.image_counts(8) == [1, 2, 4, 8]
    assert threshold_convergence.image_counts(11) == [1, 2, 4, 8, 11]


def test_thresholds_accumulate_over_images():
    peaks = np.array([[1.0, 5.0, 0.0], [2.0, 4.0, 0.0], [9.0, 0.0, 0.0]])
    rows = {
        (row["images"], row["percentile"]): row["threshold"] for row in threshold_convergence.rows(peaks, (50, 100))
    }
    assert rows == {(1, 50): 1, (1, 100): 5, (2, 50): 2, (2, 100): 5, (3, 50): 5, (3, 100): 9}


@pytest.fixture
def tiny_file(tmp_path) -> Path:
    """A small network with thresholds that nobody balanced: nothing needs to be compiled."""
    network = tiny_checkpoint()
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(network, path)
    values = {population.name: 0.5 for population in network.spec.spiking}
    Thresholds(values, "spike-norm", network.digest, 100.0, 20, "samples", 0, 30).save(
        find_thresholds(path, "spike-norm")
    )
    return path


@pytest.fixture
def converge(tiny_file, tmp_path, monkeypatch):
    """The command on the small network with the sample images, in the torch reference."""
    monkeypatch.setattr(
        threshold_convergence, "open_simulator", lambda spec, weights: ReferenceSimulator(spec, weights)
    )
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
    largest = table[table["percentile"] == 100].pivot_table(
        index=["layer", "steps"], columns="images", values="threshold"
    )
    assert (np.diff(largest.to_numpy(), axis=1) >= 0).all()
    figure = figures.threshold_convergence("tiny", out.parent)
    assert [ax.get_xlabel() for ax in figure.axes] == ["steps", "images", "percentile over the neurons"]
    assert list(out.parent.iterdir()) == [out]


def test_an_interrupted_convergence_goes_on(converge, monkeypatch):
    _, out = converge()
    expected = out.read_bytes()
    out.unlink()
    measure = threshold_convergence.measure
    asked = []

    def fail(simulator, x, thresholds, layer, *rest):
        if layer == "conv5_3":
            raise KeyboardInterrupt
        return measure(simulator, x, thresholds, layer, *rest)

    def count(simulator, x, thresholds, layer, *rest):
        asked.append(layer)
        return measure(simulator, x, thresholds, layer, *rest)

    monkeypatch.setattr(threshold_convergence, "measure", fail)
    assert converge()[0].status == 130
    monkeypatch.setattr(threshold_convergence, "measure", count)
    again, _ = converge()
    assert "going on behind conv3_3" in again.out
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


def test_commands_leave_the_path_of_modules_usable():
    assert str(Path(make_figures.__file__).parents[1]) in sys.path
