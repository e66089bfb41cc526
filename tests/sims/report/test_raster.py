"""Rasters: what is on them. How they look is judged by eye."""

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox
from matplotlib.patches import Rectangle
from recordings import IMAGES, STEPS, synthetic, texts

from sims.report.raster import raster
from sims.report.style import COLOURS

CLASSES = ("cat", "dog", "frog", "ship")
COLOUR_IMAGES = np.random.default_rng(1).integers(0, 256, (IMAGES, 4, 6, 3), dtype=np.uint8)


def panels(figure) -> dict:
    figure.draw_without_rendering()
    return {axes.get_label(): axes for axes in figure.axes}


def strokes(axes) -> np.ndarray:
    """Middle of each stroke, (spikes, 2): time and row; in order of time, then row."""
    segments = [segment for c in axes.collections if isinstance(c, LineCollection) for segment in c.get_segments()]
    middles = np.array(segments).reshape(-1, 2, 2).mean(axis=1)
    return middles[np.lexsort(middles.T[::-1])]


def test_raster_has_a_panel_for_each_population(recording):
    figure = raster(recording)
    assert isinstance(figure, Figure)
    assert list(panels(figure)) == ["header", "input", "conv", "hidden", "output"]


def test_raster_draws_every_spike_where_it_was(recording):
    hidden = panels(raster(recording, ["hidden"]))["hidden"]
    step, neuron = recording.rasters["hidden"].T
    assert len(step) > 10
    np.testing.assert_allclose(strokes(hidden), np.stack([step + 0.5, neuron], axis=1))
    assert hidden.get_xlim() == (0, 3 * STEPS)
    assert hidden.get_ylim() == (4.5, -0.5)


def test_raster_puts_chosen_presentations_side_by_side(recording):
    hidden = panels(raster(recording, ["hidden"], presentations=[2, 0]))["hidden"]
    step, neuron = recording.rasters["hidden"].T
    third, first = step // STEPS == 2, step // STEPS == 0
    moved = np.concatenate([step[third] - 2 * STEPS, step[first] + STEPS]) + 0.5
    np.testing.assert_allclose(strokes(hidden), np.stack([moved, [*neuron[third], *neuron[first]]], axis=1))
    boundaries = [line.get_xdata()[0] for line in hidden.lines]
    assert boundaries == [0, STEPS, 2 * STEPS]


def test_time_counts_from_the_beginning_of_each_presentation(recording):
    figure = raster(recording, ["hidden", "output"], presentations=[0, 1])
    by_name = panels(figure)
    places = [tick.get_position()[0] for tick in by_name["output"].get_xticklabels()]
    labels = [int(tick.get_text()) for tick in by_name["output"].get_xticklabels()]
    assert [place % STEPS for place in places[:-1]] == labels[:-1]
    assert (places[-1], labels[-1]) == (2 * STEPS, STEPS)
    assert by_name["output"].get_xlabel() == "step of the presentation"
    assert not by_name["hidden"].get_xlabel()
    alone = raster(recording, ["output"], presentations=[3])
    assert panels(alone)["output"].get_xlabel() == "step"


def test_numbers_of_one_presentation_keep_away_from_those_of_the_next(recording):
    run = synthetic(16, 100, output=(1, 1, 3))
    assert [tick.get_text() for tick in panels(raster(run, ["output"]))["output"].get_xticklabels()][-1] == "16"
    axes = panels(raster(recording, ["output"], presentations=[0, 1, 2, 3]))["output"]
    first = [tick.get_position()[0] for tick in axes.get_xticklabels() if tick.get_position()[0] < STEPS]
    assert first == [0, 10, 20]


def test_raster_shows_on_and_off_in_two_colours(recording):
    axes = panels(raster(recording, ["input"]))["input"]
    colours = [matplotlib.colors.to_hex(c.get_color()[0]).upper() for c in axes.collections]
    assert colours == [COLOURS["blue"], COLOURS["vermillion"]]
    assert texts(axes) == ["input", "72 inputs", "OFF", "ON"]
    assert len(strokes(axes)) == len(recording.rasters["input_on"]) + len(recording.rasters["input_off"])


def test_big_populations_are_subsampled_and_say_so(recording):
    def shown(**options):
        return panels(raster(recording, ["conv", "output"], **options))["conv"]

    axes = shown(most_neurons=20)
    assert "20 random of 192" in texts(axes)
    assert axes.get_ylim() == (19.5, -0.5)
    assert len(strokes(axes)) < len(recording.rasters["conv"])
    np.testing.assert_array_equal(strokes(axes), strokes(shown(most_neurons=20)))
    others = strokes(shown(most_neurons=20, seed=1))
    assert others.shape != strokes(axes).shape or (others != strokes(axes)).any()


def test_raster_names_images_and_classes(recording):
    labels = recording.predictions().copy()
    labels[1] = (labels[1] + 1) % 4
    figure = raster(recording, images=COLOUR_IMAGES, labels=labels, classes=CLASSES)
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
    header = panels(raster(recording, ["output"]))["header"]
    assert texts(header) == ["predicted", *[str(i) for i in recording.predictions()]]


def test_raster_draws_on_given_figures(recording):
    whole = Figure(figsize=(7, 1.2))
    left, right = whole.subfigures(1, 2)
    assert raster(recording, ["conv", "output"], left, classes=CLASSES) is left
    assert raster(recording, ["hidden"], right) is right
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
        ({"labels": [0, 1, 2, -1]}, "labels are from 0 to"),
        ({"labels": [0, 1, 2]}, "one label for each of 4 presentations is needed, got 3"),
        ({"images": COLOUR_IMAGES[:2]}, "one image for each of 4 presentations is needed, got 2"),
    ],
)
def test_raster_says_what_is_missing(recording, options, message):
    with pytest.raises(ValueError, match=message):
        raster(recording, **options)


def test_raster_of_a_million_spikes_is_a_picture():
    many = synthetic(steps=1000, spikes=1_000_000, hidden=(32, 32, 64), output=(1, 1, 1000))
    # 100 of 65,536 neurons have 1,500 spikes, which are strokes; of the outputs nearly each fires in each step
    by_name = panels(raster(many, ["hidden", "output"], labels=[7]))
    assert "100 random of 65,536" in texts(by_name["hidden"])
    assert not by_name["hidden"].images
    assert "12 most active of 1,000" in texts(by_name["output"])
    rows = [tick.get_text() for tick in by_name["output"].get_yticklabels()]
    assert len(rows) == 12
    assert {"7", str(many.predictions()[0])} <= set(rows)
    assert by_name["output"].images
    dense = panels(raster(synthetic(1000, 40_000, hidden=(1, 1, 50), output=(1, 1, 1000))))
    (picture,) = dense["hidden"].images
    assert picture.get_array().shape == (50, 1000, 4)
    assert not dense["hidden"].collections


def test_picture_of_even_spikes_has_no_stripes():
    always = synthetic(steps=2500, spikes=1_500_000, hidden=(1, 1, 20), output=(1, 1, 1))  # each neuron in each step
    assert len(always.rasters["hidden"]) == 2500 * 20
    (picture,) = panels(raster(always))["hidden"].images
    assert len(np.unique(picture.get_array()[:, :-1, 3])) == 1
    left, right, *_ = picture.get_extent()
    assert (left, right) == (0, 834 * 3)


@pytest.mark.parametrize(("steps", "spikes"), [(1, 0), (1, 3), (60_000, 10)])
def test_raster_of_next_to_nothing(steps, spikes):
    run = synthetic(steps, spikes, output=(1, 1, 1))
    by_name = panels(raster(run))
    assert list(by_name) == ["header", "input", "output"]
    assert len(strokes(by_name["output"])) == len(run.rasters["output"])
