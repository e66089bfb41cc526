"""Figures: what they return, what is on them, what is written. How they look is judged by eye."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.patches import Rectangle

from analysis import plots
from analysis.style import COLOURS, save, style
from netspec.spec import NetSpec, Population, Projection
from sims.recording import Recording, counted_groups
from sims.reference import ReferenceSimulator
from sims.runtime import RunInput

STEPS, IMAGES = 30, 4
CLASSES = ("cat", "dog", "frog", "ship")
SPEC = NetSpec(
    "small",
    (
        Population("input", (4, 6, 3), kind="input"),
        Population("conv", (4, 6, 8)),
        Population("hidden", (1, 1, 5)),
        Population("output", (1, 1, 4)),
    ),
    (
        Projection("input", "conv", kernel=3, padding=1),
        Projection("conv", "hidden", kind="dense", pool=2),
        Projection("hidden", "output", kind="dense"),
    ),
)
GROUPS = ("input_on", "input_off", "conv", "hidden")
COLOUR_IMAGES = np.random.default_rng(1).integers(0, 256, (IMAGES, 4, 6, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def recording() -> Recording:
    rng = np.random.default_rng(0)
    weights = {p.name: rng.normal(0.1, 0.4, SPEC.weight_shape(p)).astype(np.float32) for p in SPEC.projections}
    x = rng.uniform(-0.6, 0.6, (IMAGES, 4, 6, 3)).astype(np.float32)
    thresholds = dict.fromkeys(("conv", "hidden", "output"), 0.8)
    run_input = RunInput(x, thresholds, STEPS, rasters=GROUPS, raster_presentations=3)
    return ReferenceSimulator(SPEC, weights).run(run_input)


@pytest.fixture(autouse=True)
def styled():
    with style():
        yield


@pytest.fixture
def ax():
    return Figure().subplots()


def panels(figure) -> dict:
    figure.draw_without_rendering()
    return {axes.get_label(): axes for axes in figure.axes}


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def strokes(axes) -> np.ndarray:
    """Middle of each stroke, (spikes, 2): time and row; in order of time, then row."""
    segments = [segment for c in axes.collections if isinstance(c, LineCollection) for segment in c.get_segments()]
    middles = np.array(segments).reshape(-1, 2, 2).mean(axis=1)
    return middles[np.lexsort(middles.T[::-1])]


# Style and files


def test_importing_plots_leaves_pyplot_alone():
    code = "import sys, analysis.plots, analysis.metrics; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_style_ends_with_its_context():
    with matplotlib.rc_context():
        before = matplotlib.rcParams["axes.linewidth"] = 3.21
        with style():
            assert matplotlib.rcParams["axes.linewidth"] == 0.5
        assert matplotlib.rcParams["axes.linewidth"] == before


def test_save_writes_png_and_pdf_whole(ax, tmp_path):
    paths = save(ax.figure, tmp_path / "made" / "vgg16-x0.5")
    assert [path.name for path in paths] == ["vgg16-x0.5.png", "vgg16-x0.5.pdf"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["vgg16-x0.5.pdf", "vgg16-x0.5.png"]
    png, pdf = (path.read_bytes() for path in paths)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) == round(200 * ax.figure.get_size_inches()[0])
    assert pdf.startswith(b"%PDF")
    assert pdf.rstrip().endswith(b"%%EOF")


def test_save_gives_the_same_bytes_again(ax, tmp_path):
    first, second = save(ax.figure, tmp_path / "a"), save(ax.figure, str(tmp_path / "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_figure_that_cannot_be_drawn_leaves_the_old_files(ax, tmp_path):
    old = [path.read_bytes() for path in save(ax.figure, tmp_path / "a")]
    ax.set_title(r"$\unknown$")
    with pytest.raises(ValueError, match="unknown"):
        save(ax.figure, tmp_path / "a")
    assert [(tmp_path / f"a.{suffix}").read_bytes() for suffix in ("png", "pdf")] == old
    assert len(list(tmp_path.iterdir())) == 2


# Raster


def test_raster_has_a_panel_for_each_population(recording):
    figure = plots.raster(recording)
    assert isinstance(figure, Figure)
    assert list(panels(figure)) == ["header", "input", "conv", "hidden", "output"]


def test_raster_draws_every_spike_where_it_was(recording):
    hidden = panels(plots.raster(recording, ["hidden"]))["hidden"]
    step, neuron = recording.rasters["hidden"].T
    assert len(step) > 10
    np.testing.assert_allclose(strokes(hidden), np.stack([step + 0.5, neuron], axis=1))
    assert hidden.get_xlim() == (0, 3 * STEPS)
    assert hidden.get_ylim() == (4.5, -0.5)


def test_raster_puts_chosen_presentations_side_by_side(recording):
    hidden = panels(plots.raster(recording, ["hidden"], presentations=[2, 0]))["hidden"]
    step, neuron = recording.rasters["hidden"].T
    third, first = step // STEPS == 2, step // STEPS == 0
    moved = np.concatenate([step[third] - 2 * STEPS, step[first] + STEPS]) + 0.5
    np.testing.assert_allclose(strokes(hidden), np.stack([moved, [*neuron[third], *neuron[first]]], axis=1))
    boundaries = [line.get_xdata()[0] for line in hidden.lines]
    assert boundaries == [0, STEPS, 2 * STEPS]


def test_time_counts_from_the_beginning_of_each_presentation(recording):
    figure = plots.raster(recording, ["hidden", "output"], presentations=[0, 1])
    by_name = panels(figure)
    places = [tick.get_position()[0] for tick in by_name["output"].get_xticklabels()]
    labels = [int(tick.get_text()) for tick in by_name["output"].get_xticklabels()]
    assert [place % STEPS for place in places[:-1]] == labels[:-1]
    assert (places[-1], labels[-1]) == (2 * STEPS, STEPS)
    assert by_name["output"].get_xlabel() == "step of the presentation"
    assert not by_name["hidden"].get_xlabel()
    alone = plots.raster(recording, ["output"], presentations=[3])
    assert panels(alone)["output"].get_xlabel() == "step"


def test_raster_shows_on_and_off_in_two_colours(recording):
    axes = panels(plots.raster(recording, ["input"]))["input"]
    colours = [matplotlib.colors.to_hex(c.get_color()[0]).upper() for c in axes.collections]
    assert colours == [COLOURS["blue"], COLOURS["vermillion"]]
    assert texts(axes) == ["input", "72 inputs", "OFF", "ON"]
    assert len(strokes(axes)) == len(recording.rasters["input_on"]) + len(recording.rasters["input_off"])


def test_big_populations_are_subsampled_and_say_so(recording):
    def shown(**options):
        return panels(plots.raster(recording, ["conv", "output"], **options))["conv"]

    axes = shown(most_neurons=20)
    assert "20 of 192" in texts(axes)
    assert axes.get_ylim() == (19.5, -0.5)
    assert len(strokes(axes)) < len(recording.rasters["conv"])
    np.testing.assert_array_equal(strokes(axes), strokes(shown(most_neurons=20)))
    others = strokes(shown(most_neurons=20, seed=1))
    assert others.shape != strokes(axes).shape or (others != strokes(axes)).any()


def test_raster_names_images_and_classes(recording):
    labels = recording.predictions().copy()
    labels[1] = (labels[1] + 1) % 4
    figure = plots.raster(recording, images=COLOUR_IMAGES, labels=labels, classes=CLASSES)
    by_name = panels(figure)
    header, output = by_name["header"], by_name["output"]
    assert len([a for a in header.artists if isinstance(a, AnnotationBbox)]) == 3
    predicted, true = ([CLASSES[i] for i in values[:3]] for values in (recording.predictions(), labels))
    assert texts(header) == ["predicted", *predicted, "true class", *true]
    colours = [text.get_color() for text in header.texts[1:4]]
    assert colours == [COLOURS["green"], COLOURS["vermillion"], COLOURS["green"]]
    assert [tick.get_text() for tick in output.get_yticklabels()] == list(CLASSES)
    bands = [p.get_xy() for p in output.patches if isinstance(p, Rectangle)]
    assert bands == [(slot * STEPS, labels[slot] - 0.5) for slot in range(3)]
    assert len(strokes(output)) == (recording.rasters["output"][:, 0] < 3 * STEPS).sum()


def test_raster_without_labels_names_the_prediction_only(recording):
    header = panels(plots.raster(recording, ["output"]))["header"]
    assert texts(header) == ["predicted", *[str(i) for i in recording.predictions()]]


def test_raster_draws_on_given_figures(recording):
    whole = Figure(figsize=(7, 1.2))
    left, right = whole.subfigures(1, 2)
    assert plots.raster(recording, ["conv", "output"], left, classes=CLASSES) is left
    assert plots.raster(recording, ["hidden"], right) is right
    assert [axes.get_label() for axes in right.axes] == ["header", "hidden"]
    named = [tick.get_text() for tick in panels(whole)["output"].get_yticklabels()]
    assert set(named) == {CLASSES[i] for i in recording.predictions()[:3]}  # no room for more


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ["conv", "dense"]}, "no raster of dense was recorded"),
        ({"presentations": [3]}, "there are rasters of the first 3 presentations, asked for were"),
        ({"presentations": [-1]}, "there are rasters of the first 3"),
        ({"presentations": [0, 0]}, "each once"),
        ({"presentations": []}, "there are rasters of the first 3"),
        ({"labels": [0, 1, 2]}, "one label for each of 4 presentations is needed, got 3"),
        ({"images": COLOUR_IMAGES[:2]}, "one image for each of 4 presentations is needed, got 2"),
    ],
)
def test_raster_says_what_is_missing(recording, options, message):
    with pytest.raises(ValueError, match=message):
        plots.raster(recording, **options)


def synthetic(populations, steps: int, spikes: int) -> Recording:
    """One presentation of random spikes, about as many in each group."""
    projections = [Projection(a.name, b.name, kind="dense") for a, b in pairwise(populations)]
    spec = NetSpec("synthetic", tuple(populations), tuple(projections))
    rng = np.random.default_rng(0)
    rasters, counts = {}, []
    for name, n in counted_groups(spec).items():
        flat = np.unique(rng.integers(0, steps * n, spikes))
        rasters[name] = np.stack([flat // n, flat % n], axis=1).astype(np.int32)
        counts.append(np.bincount(flat % n, minlength=n))
    v = np.zeros((1, steps, spec.output.size), np.float32)
    return Recording(spec, steps, np.concatenate(counts)[None].astype(np.uint16), v, rasters)


def test_raster_of_a_million_spikes_is_a_picture():
    hidden = Population("hidden", (32, 32, 64))
    populations = (Population("input", (1, 1, 1), kind="input"), hidden, Population("output", (1, 1, 1000)))
    many = synthetic(populations, steps=1000, spikes=1_000_000)
    # 100 of 65,536 neurons have 1,500 spikes, which are strokes; of the outputs nearly each fires in each step
    by_name = panels(plots.raster(many, ["hidden", "output"], labels=[7]))
    assert "100 of 65,536" in texts(by_name["hidden"])
    assert not by_name["hidden"].images
    assert "12 most active of 1,000" in texts(by_name["output"])
    rows = [tick.get_text() for tick in by_name["output"].get_yticklabels()]
    assert len(rows) == 12
    assert {"7", str(many.predictions()[0])} <= set(rows)
    assert by_name["output"].images
    dense = panels(
        plots.raster(synthetic((populations[0], replace(hidden, shape=(1, 1, 50)), populations[2]), 1000, 40_000))
    )
    (picture,) = dense["hidden"].images
    assert picture.get_array().shape == (50, 1000, 4)
    assert not dense["hidden"].collections


@pytest.mark.parametrize(("steps", "spikes"), [(1, 0), (1, 3), (60_000, 10)])
def test_raster_of_next_to_nothing(steps, spikes):
    populations = (Population("input", (1, 1, 1), kind="input"), Population("output", (1, 1, 1)))
    run = synthetic(populations, steps, spikes)
    by_name = panels(plots.raster(run))
    assert list(by_name) == ["header", "input", "output"]
    assert len(strokes(by_name["output"])) == len(run.rasters["output"])


# The other figures


def test_convergence_draws_curves_and_levels(ax):
    steps, errors = [1, 10, 100], np.array([0.9, 0.4, 0.01])
    runs = np.stack([errors, errors + 0.02])
    assert plots.convergence(ax, steps, {"VGG": errors, "ResNet": runs}, {"VGG": 0.08, "ResNet": 0.1}) is ax
    vgg, resnet = (line for line in ax.lines if line.get_label() in ("VGG", "ResNet"))
    np.testing.assert_array_equal(vgg.get_ydata(), errors)
    np.testing.assert_allclose(resnet.get_ydata(), errors + 0.01)
    levels = [line for line in ax.lines if line.get_linestyle() == "--" and len(line.get_ydata())]
    assert [(line.get_ydata()[0], line.get_color()) for line in levels] == [
        (0.08, vgg.get_color()),
        (0.1, resnet.get_color()),
    ]
    assert len(ax.collections) == 1  # the band of the runs
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["VGG", "ResNet", "ANN"]
    assert ax.get_xscale() == "log"
    assert ax.get_xlim() == pytest.approx((1, 100))
    assert ax.get_ylim()[0] == 0
    ax.figure.draw_without_rendering()
    assert "40 %" in [tick.get_text() for tick in ax.get_yticklabels()]


def test_convergence_on_a_linear_axis_with_one_level(ax):
    plots.convergence(ax, [1, 2], {"SNN": [0.5, 0.9]}, 0.95, quantity="agreement", log=False)
    assert (ax.get_xscale(), ax.get_ylabel()) == ("linear", "agreement")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["SNN", "ANN"]


def test_output_race_counts_up_to_the_final_spikes(ax, recording):
    predicted = int(recording.predictions()[1])
    label = (predicted + 1) % 4
    assert plots.output_race(ax, recording, 1, CLASSES, label) is ax
    lines = {line.get_label(): line for line in ax.lines}
    for i in range(4):
        y = lines[f"class {i}"].get_ydata()
        assert (len(y), y[0], y[-1]) == (STEPS + 1, 0, recording.spike_counts("output")[1].flat[i])
    assert lines[f"class {predicted}"].get_color() == COLOURS["vermillion"]
    assert sorted(texts(ax)) == sorted(CLASSES)
    heights = sorted(text.xy[1] for text in ax.texts)
    assert min(np.diff(heights)) > 0


def test_output_race_names_the_first_five_and_the_true_class(ax):
    populations = (Population("input", (1, 1, 1), kind="input"), Population("output", (1, 1, 50)))
    run = synthetic(populations, 100, 900)
    last = int(run.spike_counts("output").argmin())
    plots.output_race(ax, run, 0, label=last)
    assert len(ax.lines) == 50
    assert len(ax.texts) == 6
    assert {str(run.predictions()[0]), str(last)} <= set(texts(ax))


def test_rate_map_is_the_spikes_per_step(ax, recording):
    counts = recording.spike_counts("conv")[2]
    assert plots.rate_map(ax, recording, "conv", 2) is ax
    np.testing.assert_allclose(ax.images[0].get_array(), counts.mean(axis=2) / STEPS)
    assert ax.get_title() == "conv, mean of 8 channels"
    assert [axes.get_ylabel() for axes in ax.figure.axes if axes is not ax] == ["spikes per step"]
    other = plots.rate_map(Figure().subplots(), recording, "conv", 2, channel=3)
    np.testing.assert_allclose(other.images[0].get_array(), counts[:, :, 3] / STEPS)
    assert other.get_title() == "conv, channel 3"


@pytest.mark.parametrize(
    ("plot", "quantity"),
    [(plots.spike_counts_by_layer, "spikes per neuron"), (plots.thresholds_by_layer, "threshold")],
)
def test_values_by_layer(ax, plot, quantity):
    assert plot(ax, {"conv1": 3.0, "conv2": 1.5}) is ax
    assert ax.get_legend() is None
    plot(ax, {"conv1": 2.0, "conv2": 1.0}, "other")
    assert [list(line.get_ydata()) for line in ax.lines] == [[3, 1.5], [2, 1]]
    ax.figure.draw_without_rendering()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["conv1", "conv2"]
    assert ax.get_ylabel() == quantity
    assert ax.get_ylim()[0] == 0
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["other"]


@pytest.mark.parametrize("channels", [1, 3])
def test_input_coding_shows_zero_as_grey(channels):
    shape = (2, 3, channels)
    one_step = np.zeros(shape, np.int8)
    one_step[0, 0], one_step[1, 2] = 1, -1
    figure = Figure()
    returned = plots.input_coding(figure, np.zeros(shape, np.uint8), np.zeros(shape), one_step, 10 * one_step, 20)
    assert returned is figure
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["image", "ANN input", "SNN input, one step", "SNN input, 20 steps"]
    _, x, step, total = (axes.images[0].get_array() for axes in figure.axes)
    assert (x == 0.5).all()
    assert (step[0, 0] == 1).all() and (step[1, 2] == 0).all() and (step[0, 1] == 0.5).all()
    assert (total[0, 0] == 0.75).all() and (total[1, 2] == 0.25).all()
    figure.draw_without_rendering()
