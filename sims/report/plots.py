"""Small figures: one quantity, one pair of axes. Every function draws on the axes or figure it is given and returns it.

Make figures inside ``with style():``. Spikes in time are in :mod:`sims.report.raster`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike

from sims.report.style import COLOURS, INK, MARKERS, MUTED, PREDICTED, RIGHT, WRONG
from sims.simulation.metrics import pearson
from sims.simulation.recording import Recording

__all__ = [
    "PAPER_MARK",
    "convergence",
    "interval_histogram",
    "output_race",
    "percent_axis",
    "rate_map",
    "rate_maps",
    "rates_against_activations",
    "spike_counts_by_layer",
    "thresholds_by_layer",
]

MOST_LINES = 5  # named lines of a race
MOST_CHANNELS = 16  # maps side by side
MOST_NAMES = 24  # of layers in letters of the usual size
MOST_POINTS = 5_000  # of a scatter plot
TICK_WIDTH = 20  # points between numbers on a time axis, at least
DASHES: dict[str, Any] = {"linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 1}
PAPER_MARK = "the paper's final error"
MARK: dict[str, Any] = {
    "linestyle": "",
    "marker": "o",
    "fillstyle": "none",
    "markersize": 7,
    "zorder": 5,
    "clip_on": False,
}


def convergence(
    ax: Axes,
    steps: ArrayLike | Mapping[str, ArrayLike],
    curves: Mapping[str, ArrayLike],
    ann: float | Mapping[str, float] | None = None,
    *,
    marks: Mapping[str, float] | None = None,
    quantity: str = "error",
    log: bool = True,
    marker: str | Sequence[str] | None = None,
) -> Axes:
    """Error, or agreement with the ANN, against the number of steps (figures 3 and 4 of the paper).

    Parameters
    ----------
    steps : array_like of int, or mapping of str to array_like
        (n,); a mapping gives each curve of that name its own.
    curves : mapping of str to array_like
        Fractions, (n,), or (runs, n): then the mean, with a band of one standard deviation over the runs.
    ann : float or mapping of str to float, optional
        The ANN's level, as a dashed line; a mapping gives each curve of that name its own, in its colour.
    marks : mapping of str to float, optional
        Where the paper's curve of that name ends: an open circle above the last step, in the curve's colour.
    quantity : str
        Label of the y axis.
    log : bool
        Logarithmic time axis.
    marker : str or sequence of str, optional
        At each of the steps, for curves of few points; a sequence has one for each curve, in turn.
    """
    markers = [marker] if marker is None or isinstance(marker, str) else list(marker)
    colours: dict[str, Any] = {}
    for number, (name, values) in enumerate(curves.items()):
        own = steps[name] if isinstance(steps, Mapping) else steps
        runs = np.atleast_2d(values)
        mean, sd = runs.mean(axis=0), runs.std(axis=0)
        shape = markers[number % len(markers)] or ("o" if mean.size == 1 else None)  # of one point there is no line
        (line,) = ax.plot(own, mean, label=name, marker=shape, clip_on=marker is None)
        colours[name] = line.get_color()
        if len(runs) > 1:
            ax.fill_between(own, mean - sd, mean + sd, color=line.get_color(), alpha=0.2, linewidth=0)
        if marks and name in marks:
            ax.plot(np.max(own), marks[name], color=line.get_color(), **MARK)
    if isinstance(ann, Mapping):
        _levels(ax, {name: level for name, level in ann.items() if name in curves}, colours)
    elif ann is not None:
        ax.axhline(ann, color=MUTED, label="ANN", **DASHES)
    if marks:
        ax.plot([], [], color=MUTED, label=PAPER_MARK, **MARK)
    if log:
        ax.set_xscale("log")
        _decades(ax)
    ax.margins(x=0)
    ax.set_ylim(bottom=max(0.0, ax.get_ylim()[0]), auto=True)  # room for further curves
    percent_axis(ax)
    ax.set_xlabel("steps")
    ax.set_ylabel(quantity)
    ax.legend()
    return ax


def _levels(ax: Axes, levels: Mapping[str, float], colours: Mapping[str, Any]) -> None:
    """A dashed line for each level; where curves share one, their colours take turns along it, and all make it grey."""
    shared: dict[float, list[Any]] = {}
    for name, level in levels.items():
        shared.setdefault(level, []).append(colours[name])
    if len(shared) == 1 and len(levels) > 1:
        shared = {level: [MUTED] for level in shared}
    dash, period = 4, 7
    for level, names in shared.items():
        for place, colour in enumerate(names):
            turns = (-period * place % (period * len(names)), (dash, period * len(names) - dash))
            ax.axhline(level, color=colour, **DASHES | {"linestyle": turns})
    ax.plot([], [], color=MUTED, label="ANN", **DASHES)


def _decades(ax: Axes) -> None:
    """Numbers at 1, 2, 5, 10, ... on a logarithmic time axis, or at decades where there is no room."""
    points = 72 * ax.get_position().width * ax.figure.bbox.width / ax.figure.dpi
    first, last = ax.get_xlim()
    roomy = points > TICK_WIDTH * np.log10(last / first) / np.log10(2)
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if roomy else (1,), numticks=99))
    ax.xaxis.set_minor_locator(LogLocator(subs=range(2, 10), numticks=99))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}" if x >= 1 else f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def percent_axis(ax: Axes) -> None:
    """Fractions on the y axis in percent, with no more digits than they need."""
    ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{round(100 * share, 6):g} %"))


def output_race(
    ax: Axes,
    recording: Recording,
    presentation: int,
    classes: Sequence[str] | None = None,
    label: int | None = None,
) -> Axes:
    """Output spikes of each class, counted up over a presentation; the class with most is the prediction.

    Parameters
    ----------
    recording : Recording
    presentation : int
    classes : sequence of str, optional
        Names of the classes; by default their numbers. The first five at the end are named, if they spiked.
    label : int, optional
        The true class: named wherever it ends, and the prediction is green or red.
    """
    counts = np.pad(recording.output_counts[presentation].astype(np.int64), ((1, 0), (0, 0)))  # from step 0 on
    predicted = int(recording.predictions()[presentation])
    label = None if label is not None and label < 0 else label  # not known
    order = sorted(range(counts.shape[1]), key=lambda i: (i != predicted, -counts[-1, i]))
    leading = [i for i in order[:MOST_LINES] if counts[-1, i] > 0]
    named = leading + [i for i in order if i not in leading and i in (predicted, label)]
    winner = PREDICTED if label is None else RIGHT if predicted == label else WRONG
    colours = dict.fromkeys(order, "#C8C8C8") | dict.fromkeys(named, MUTED) | {label: INK} | {predicted: winner}
    widths = dict.fromkeys(order, 0.7) | {label: 1.2} | {predicted: 1.6}
    for i in sorted(order, key=lambda i: (i == predicted, i == label, i in named)):  # the important ones on top
        ax.plot(counts[:, i], color=colours[i], linewidth=widths[i], drawstyle="steps-post", label=f"class {i}")
    ax.set_xlim(0, recording.steps)
    ax.set_ylim(0, max(1.0, 1.05 * counts.max()))
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_xlabel("step")
    ax.set_ylabel("output spikes")
    _name_lines(ax, {i: float(counts[-1, i]) for i in named}, colours, classes)
    return ax


def _name_lines(ax: Axes, ends: Mapping[int, float], colours: Mapping, classes: Sequence[str] | None) -> None:
    """Names at the right ends of lines, moved apart where they would overlap."""
    height = 72 * ax.get_position().height * ax.figure.bbox.height / ax.figure.dpi
    gap = 8.0 / height * ax.get_ylim()[1]
    order = sorted(ends, key=ends.__getitem__)
    places = np.array([ends[i] for i in order])
    for _ in range(200):
        push = np.maximum(gap - np.diff(places), 0) / 2
        places[:-1] -= push
        places[1:] += push
    places += max(0, -places.min())
    for i, place in zip(order, places, strict=True):
        name = str(i) if classes is None else classes[i]
        ax.annotate(name, (1, place), (3, 0), ("axes fraction", "data"), "offset points", va="center", color=colours[i])


def rate_map(ax: Axes, recording: Recording, population: str, presentation: int, channel: int | None = None) -> Axes:
    """Spike rates of a population during a presentation, on the image plane.

    Parameters
    ----------
    recording : Recording
    population : str
        Any whose spikes were counted; the input's name stands for ON and OFF together.
    presentation : int
    channel : int, optional
        By default the mean over all channels.

    Returns
    -------
    Axes
        With a colour bar beside it, in spikes per step.
    """
    rates = recording.spike_counts(population)[presentation] / recording.steps
    plane = rates.mean(axis=2) if channel is None else rates[:, :, channel]
    image = ax.imshow(plane, vmin=0)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    ax.set_title(
        f"{population}\n" + (f"mean of {rates.shape[2]:,} channels" if channel is None else f"channel {channel}")
    )
    ax.figure.colorbar(image, ax=ax, label="spikes per step", shrink=0.8).outline.set_visible(False)
    return ax


def rate_maps(
    figure: Figure | SubFigure, recording: Recording, population: str, presentation: int
) -> Figure | SubFigure:
    """Spike rates on the image plane, one map for each of the most active channels, on one scale.

    Parameters
    ----------
    recording : Recording
    population : str
        Any whose spikes were counted.
    presentation : int

    Returns
    -------
    Figure or SubFigure
        Up to 16 maps, the most active first, with one colour bar in spikes per step.
    """
    rates = recording.spike_counts(population)[presentation] / recording.steps
    channels = np.argsort(-rates.mean(axis=(0, 1)), kind="stable")[:MOST_CHANNELS]
    rows = 2 if len(channels) > MOST_CHANNELS // 2 else 1
    grid = figure.subplots(rows, -(-len(channels) // rows), squeeze=False)
    for ax in grid.flat:
        ax.axis("off")
    for ax, channel in zip(grid.flat, channels, strict=False):
        picture = ax.imshow(rates[:, :, channel], vmin=0, vmax=max(rates.max(), 1e-9))
        ax.set_title(f"{channel}", fontsize=6.5, pad=2)
    bar = figure.colorbar(picture, ax=grid, label="spikes per step", shrink=0.9, aspect=15)
    bar.outline.set_visible(False)
    figure.suptitle(f"{population}, {len(channels)} most active of {rates.shape[2]:,} channels", fontsize=8)
    return figure


def interval_histogram(ax: Axes, intervals: ArrayLike) -> Axes:
    """How often there are so many steps from one spike of a neuron to its next.

    Parameters
    ----------
    intervals : array_like of int
        As from :func:`sims.simulation.metrics.spike_intervals`.

    Returns
    -------
    Axes
        With the coefficient of variation of the intervals; it is 1 for a Poisson process.
    """
    values = np.asarray(intervals, dtype=np.float64)
    ax.set_xlabel("interval (steps)")
    ax.set_ylabel("intervals")
    if not len(values):
        return _note(ax, "no neuron spikes twice")
    longest = int(np.quantile(values, 0.99)) + 1
    width = max(1, longest // 50)
    ax.hist(values, bins=list(np.arange(0.5, longest + width + 0.5, width)), color=MUTED)
    ax.set_ylim(top=1.35 * ax.get_ylim()[1])  # room for the remark
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    return _note(ax, f"{len(values):,} intervals\nmean {values.mean():.1f}, CV {values.std() / values.mean():.2f}")


def rates_against_activations(
    ax: Axes, rates: ArrayLike, activations: ArrayLike, spike_value: float | None = None, seed: int = 0
) -> Axes:
    """Each neuron's spike rate against the activation of its ReLU.

    Parameters
    ----------
    rates : array_like
        Spikes per step.
    activations : array_like
        Of the same neurons, of as many elements. Negative ones count as 0.
    spike_value : float, optional
        The activation that one spike in each step stands for: a line shows the rates of a lossless conversion.
    seed : int
        Of the choice of neurons that are drawn; the correlation is over all of them.
    """
    rate, activation = np.ravel(rates), np.maximum(np.ravel(activations), 0)
    chosen = np.random.default_rng(seed).permutation(len(rate))[:MOST_POINTS]
    ax.plot(activation[chosen], rate[chosen], ".", color=COLOURS["blue"], markersize=1.2, alpha=0.5, rasterized=True)
    top = max(float(rate.max()), 1e-9)
    if spike_value is not None:
        end = min(float(activation.max()), 1.1 * top * spike_value)
        ax.plot([0, end], [0, end / spike_value], color=MUTED, linewidth=0.7)
    ax.set_ylim(0, 1.1 * top)
    ax.set_xlim(left=0)
    ax.set_xlabel("activation of the ANN")
    ax.set_ylabel("spikes per step")
    return _note(ax, f"r = {pearson(rate, activation):.3f}", low=True)


def _note(ax: Axes, text: str, low: bool = False) -> Axes:
    """A remark in a corner on the right."""
    y, side = (0.04, "bottom") if low else (0.97, "top")
    ax.text(0.97, y, text, transform=ax.transAxes, ha="right", va=side, color=MUTED, fontsize=6.5)
    return ax


def spike_counts_by_layer(ax: Axes, spikes_per_neuron: Mapping[str, float], label: str | None = None) -> Axes:
    """Mean spikes of a neuron against depth (figure 5 of the paper).

    Parameters
    ----------
    spikes_per_neuron : mapping of str to float
        By layer, in order, as from :meth:`Recording.spikes_per_neuron`.
    label : str, optional
        For the legend; call again to compare.
    """
    return _by_layer(ax, spikes_per_neuron, label, "spikes per neuron")


def thresholds_by_layer(ax: Axes, thresholds: Mapping[str, float], label: str | None = None, log: bool = False) -> Axes:
    """Firing thresholds against depth (figure 2c of the paper).

    Parameters
    ----------
    thresholds : mapping of str to float
        By layer, in order.
    label : str, optional
        For the legend; call again to compare.
    log : bool
        Logarithmic axis.
    """
    return _by_layer(ax, thresholds, label, "threshold", log)


def _by_layer(ax: Axes, values: Mapping[str, float], label: str | None, quantity: str, log: bool = False) -> Axes:
    marker = MARKERS[len(ax.lines) % len(MARKERS)]
    ax.plot(list(values), list(values.values()), marker=marker, label=label, clip_on=False)
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    else:
        ax.set_ylim(bottom=0, auto=True)  # room for further curves
    ax.tick_params(axis="x", rotation=90, labelsize=6.5 if len(values) <= MOST_NAMES else 4.5)
    ax.set_ylabel(quantity)
    if label is not None:
        ax.legend()
    return ax
