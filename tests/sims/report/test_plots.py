"""Figures: what they return, what is on them. How they look is judged by eye."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from recordings import STEPS, synthetic, texts

from sims.report import plots
from sims.report.style import COLOURS, MUTED

CLASSES = ("cat", "dog", "frog", "ship")


def test_convergence_draws_curves_and_levels(ax):
    steps, errors = [1, 10, 100], np.array([0.9, 0.4, 0.01])
    runs = np.stack([errors, errors + 0.02])
    assert plots.convergence(ax, steps, {"VGG": errors, "ResNet": runs}, {"VGG": 0.08, "ResNet": 0.1}) is ax
    vgg, resnet = (line for line in ax.lines if line.get_label() in ("VGG", "ResNet"))
    np.testing.assert_array_equal(vgg.get_ydata(), errors)
    np.testing.assert_allclose(resnet.get_ydata(), errors + 0.01)
    levels = [line for line in ax.lines if line.get_linestyle() == "--" and len(line.get_ydata())]
    expected = [(0.08, vgg.get_color()), (0.1, resnet.get_color())]
    assert [(line.get_ydata()[0], line.get_color()) for line in levels] == expected
    assert len(ax.collections) == 1  # the band of the runs
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["VGG", "ResNet", "ANN"]
    assert ax.get_xscale() == "log"
    assert ax.get_xlim() == pytest.approx((1, 100))
    assert ax.get_ylim()[0] == 0
    ax.figure.draw_without_rendering()
    assert "40 %" in [tick.get_text() for tick in ax.get_yticklabels()]


def levels_of(ax) -> list[tuple[float, str]]:
    dashed = [line for line in ax.lines if line.get_linestyle() == "--" and len(line.get_ydata())]
    return [(line.get_ydata()[0], line.get_color()) for line in dashed]


def test_levels_that_are_the_same_for_all_are_grey_and_of_some_take_turns(ax):
    curves = {name: [0.9, 0.4] for name in "abc"}
    plots.convergence(ax, [1, 10], curves, dict.fromkeys("abc", 0.1))
    assert levels_of(ax) == [(0.1, MUTED)]
    other = plots.convergence(Figure().subplots(), [1, 10], curves, {"a": 0.1, "b": 0.1, "c": 0.2})
    colours = [line.get_color() for line in other.lines[:3]]
    assert levels_of(other) == list(zip((0.1, 0.1, 0.2), colours, strict=True))
    patterns = [line._unscaled_dash_pattern for line in other.lines[3:5]]  # offset, then on and off
    assert len({offset for offset, _ in patterns}) == 2 and patterns[0][1] == patterns[1][1]


def test_convergence_of_curves_with_steps_and_markers_of_their_own(ax):
    plots.convergence(ax, {"a": [1, 2], "b": [10, 30]}, {"a": [0.9, 0.4], "b": [0.8, 0.3]}, marker=("o", "s"))
    assert [(*line.get_xdata(), line.get_marker()) for line in ax.lines] == [(1, 2, "o"), (10, 30, "s")]


@pytest.mark.parametrize(
    ("last", "numbers"), [(16, ["1", "2", "5", "10"]), (50_000, ["1", "10", "100", "1,000", "10,000"])]
)
def test_numbers_on_the_time_axis_do_not_collide(ax, last, numbers):
    plots.convergence(ax, [1, last], {"SNN": [0.615, 0.608]})
    ax.figure.draw_without_rendering()
    low, high = ax.get_xlim()
    ticks = [(place, label.get_text()) for place, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)]
    assert [text for place, text in ticks if low <= place <= high] == numbers
    assert not any(label.get_text() for label in ax.get_xticklabels(minor=True))
    assert "60.8 %" in [tick.get_text() for tick in ax.get_yticklabels()]


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
    fired = recording.spike_counts("output")[1].ravel() > 0
    assert sorted(texts(ax)) == sorted(CLASSES[i] for i in range(4) if fired[i] or i == label)
    heights = sorted(text.xy[1] for text in ax.texts)
    assert min(np.diff(heights)) > 0


def test_one_step_is_no_less(ax):
    plots.convergence(ax, [1], {"SNN": [0.5]})
    assert ax.lines[0].get_marker() == "o"
    ax.figure.draw_without_rendering()
    low, high = ax.get_xlim()
    ticks = [(place, label.get_text()) for place, label in zip(ax.get_xticks(), ax.get_xticklabels(), strict=True)]
    assert all(float(text) == pytest.approx(place) for place, text in ticks if low <= place <= high)


def test_output_race_names_the_first_five_and_the_true_class(ax):
    run = synthetic(100, 900, output=(1, 1, 50))
    last = int(run.spike_counts("output").argmin())
    plots.output_race(ax, run, 0, label=last)
    assert len(ax.lines) == 50
    assert len(ax.texts) == 6
    assert {str(run.predictions()[0]), str(last)} <= set(texts(ax))


def test_rate_map_is_the_spikes_per_step(ax, recording):
    counts = recording.spike_counts("conv")[2]
    assert plots.rate_map(ax, recording, "conv", 2) is ax
    np.testing.assert_allclose(ax.images[0].get_array(), counts.mean(axis=2) / STEPS)
    assert ax.get_title() == "conv\nmean of 8 channels"
    assert [axes.get_ylabel() for axes in ax.figure.axes if axes is not ax] == ["spikes per step"]
    other = plots.rate_map(Figure().subplots(), recording, "conv", 2, channel=3)
    np.testing.assert_allclose(other.images[0].get_array(), counts[:, :, 3] / STEPS)
    assert other.get_title() == "conv\nchannel 3"


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


def test_values_of_a_second_call_have_room(ax):
    plots.spike_counts_by_layer(ax, {"conv1": 1.0})
    plots.spike_counts_by_layer(ax, {"conv1": 50.0})
    assert ax.get_ylim()[1] > 50
    other = plots.thresholds_by_layer(Figure().subplots(), {"conv1": 16.0, "conv2": 0.5}, log=True)
    assert other.get_yscale() == "log"


def test_convergence_marks_the_end_of_the_papers_curve(ax):
    plots.convergence(ax, [10, 100], {"VGG": [0.9, 0.1], "ResNet": [0.8, 0.2]}, marks={"ResNet": 0.15}, marker=".")
    resnet, mark = next(line for line in ax.lines if line.get_label() == "ResNet"), ax.lines[-2]
    assert (mark.get_xdata()[0], mark.get_ydata()[0], mark.get_color()) == (100, 0.15, resnet.get_color())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["VGG", "ResNet", "the paper's final error"]


def test_rate_maps_are_of_the_most_active_channels(recording):
    figure = Figure()
    assert plots.rate_maps(figure, recording, "conv", 1) is figure
    rates = recording.spike_counts("conv")[1] / STEPS
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 8
    means = []
    for axes in pictures:
        channel = int(axes.get_title())
        np.testing.assert_array_equal(axes.images[0].get_array(), rates[:, :, channel])
        assert axes.images[0].get_clim() == (0, rates.max())
        means.append(rates[:, :, channel].mean())
    assert means == sorted(means, reverse=True)


def test_interval_histogram_counts_each_interval(ax):
    plots.interval_histogram(ax, [1, 2, 2, 3])
    heights = {round(bar.get_x() + bar.get_width() / 2): bar.get_height() for bar in ax.patches}
    assert [heights[interval] for interval in (1, 2, 3)] == [1, 2, 1]
    assert texts(ax) == ["4 intervals\nmean 2.0, CV 0.35"]
    assert texts(plots.interval_histogram(Figure().subplots(), [])) == ["no neuron spikes twice"]


def test_rates_against_activations_have_a_line_and_a_correlation(ax):
    activations = np.array([-1.0, 0.0, 1.0, 2.0])
    plots.rates_against_activations(ax, [0, 0, 0.25, 0.5], activations, spike_value=4)
    points, line = ax.lines
    assert sorted(zip(points.get_xdata(), points.get_ydata(), strict=True)) == [(0, 0), (0, 0), (1, 0.25), (2, 0.5)]
    assert line.get_xdata()[1] / line.get_ydata()[1] == pytest.approx(4)
    assert texts(ax) == ["r = 1.000"]
