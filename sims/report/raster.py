"""Spikes of populations over time, presentations side by side."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sims.report.style import COLOURS, INK, MUTED, PREDICTED, RIGHT, WRONG, as_rgb
from sims.simulation.metrics import check_labels
from sims.simulation.recording import Recording
from sims.simulation.wiring import INPUT_GROUPS, counted_groups

__all__ = ["raster"]

INPUT_SIGNS = dict(zip(INPUT_GROUPS, (("ON", COLOURS["blue"]), ("OFF", COLOURS["vermillion"])), strict=True))
PAGE = (6.9, 9.2)  # inches: text width and height of a journal page
TIME_AXIS = 0.4  # inches
MOST_TICKS = 20_000  # spikes of a panel drawn one by one
VECTOR_TICKS = 3_000  # so many of them as vectors in a PDF
MOST_COVER = 0.5  # of the panel's area by strokes
MOST_COLUMNS = 1_000  # of the picture in their place
MOST_CLASSES = 12  # rows of the output
ROW_HEIGHT = 0.55  # points: more rows than fit are not shown
DIGIT = 4.2  # points: width of one on the time axis
LINE_HEIGHT = 5.5  # points: with lower rows only true and predicted classes are named


def raster(
    recording: Recording,
    names: Sequence[str] | None = None,
    figure: Figure | SubFigure | None = None,
    *,
    presentations: Sequence[int] | None = None,
    images: np.ndarray | None = None,
    labels: ArrayLike | None = None,
    classes: Sequence[str] | None = None,
    most_neurons: int = 100,
    seed: int = 0,
) -> Figure | SubFigure:
    """Spikes of several populations over time, one panel each, presentations side by side.

    A spike is a short stroke. Where strokes would run into one another, the panel becomes a picture, the darker
    the more spikes. Spikes of the predicted class are coloured: green if it is right, red if not; a band marks
    the true class.

    Parameters
    ----------
    recording : Recording
    names : sequence of str, optional
        Groups from top to bottom; the input's name stands for ON and OFF in one panel. By default all that have
        a raster, by depth.
    figure : Figure or SubFigure, optional
        Where to draw; by default a new figure, as high as the panels need.
    presentations : sequence of int, optional
        Which to show, from left to right; by default those that have a raster.
    images : numpy.ndarray, optional
        uint8, or float in [0, 1], (recording.presentations, height, width, 3 or 1): shown above the spikes.
    labels : array_like of int, optional
        True classes, (recording.presentations,).
    classes : sequence of str, optional
        Names of all classes; by default their numbers.
    most_neurons : int
        A population of more is shown by so many of its neurons, chosen at random with ``seed``, or by fewer
        where panels are low; an output of more than 12 classes by the most active ones.
    seed : int

    Returns
    -------
    Figure or SubFigure
        With axes labelled (``axes.get_label()``) ``'header'`` and as the groups.

    Raises
    ------
    ValueError
        If there is no raster of a group or of a presentation, or not one label and image for each presentation.
    """
    names = _recorded_names(recording) if names is None else list(names)
    shown = np.arange(recording.recorded_presentations(names)) if presentations is None else np.asarray(presentations)
    _check_recorded(recording, names, shown)
    if labels is not None:
        check_labels(recording, np.asarray(labels))
    stage = _Stage(
        recording,
        shown,
        recording.predictions()[shown],
        None if labels is None else _chosen(recording, np.asarray(labels), shown, "label"),
        [str(i) for i in range(recording.spec.output.size)] if classes is None else classes,
        () if images is None else tuple(_chosen(recording, images, shown, "image")),
    )
    heights = stage.panel_heights(names, most_neurons)
    if figure is None:
        figure = Figure(figsize=(PAGE[0], stage.header_height + sum(heights) + TIME_AXIS), layout="constrained")
    room = (figure.bbox.height / figure.dpi - stage.header_height - TIME_AXIS) / sum(heights)
    heights = [max(0.01, room * height) for height in heights]
    most_rows = [min(most_neurons, int(72 * height / ROW_HEIGHT)) for height in heights]
    rows = [stage.rows(name, max(1, most), seed) for name, most in zip(names, most_rows, strict=True)]
    ratios = [stage.header_height, *heights]
    header, *panels = figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    _draw_header(header, stage)
    for ax, name, neurons, height in zip(panels, names, rows, heights, strict=True):
        _draw_panel(ax, stage, name, neurons, height)
    _time_axis(panels, recording.steps, len(shown))
    return figure


@dataclass(frozen=True)
class _Stage:
    """What a raster shows besides its populations; arrays are (presentations shown,)."""

    recording: Recording
    shown: np.ndarray
    predicted: np.ndarray
    truth: np.ndarray | None
    classes: Sequence[str]
    images: Sequence[np.ndarray]

    @property
    def duration(self) -> int:
        return len(self.shown) * self.recording.steps

    @property
    def header_height(self) -> float:
        """Inches: a line of text for each verdict, below the images."""
        return 0.02 + 0.15 * (1 if self.truth is None else 2) + 0.52 * (len(self.images) > 0)

    def size(self, name: str) -> int:
        return counted_groups(self.recording.spec)[_groups(self.recording, name)[0]]

    def panel_heights(self, names: Sequence[str], most_neurons: int) -> list[float]:
        """Inches: a line of text for each class, else by the square root of the rows; in all at most a page."""
        output = self.recording.spec.output.name
        heights = {name: 0.3 + 0.05 * min(most_neurons, self.size(name)) ** 0.5 for name in names}
        if output in heights:
            heights[output] = 0.115 * min(MOST_CLASSES, max(3, self.size(output)))
        left = PAGE[1] - self.header_height - TIME_AXIS - heights.get(output, 0.0)
        factor = min(1.0, left / max(1e-9, sum(height for name, height in heights.items() if name != output)))
        return [heights[name] if name == output else max(0.3, factor * heights[name]) for name in names]

    def verdict(self, slot: int) -> str:
        """Colour of the predicted class."""
        if self.truth is None:
            return PREDICTED
        return RIGHT if self.predicted[slot] == self.truth[slot] else WRONG

    def rows(self, name: str, most_neurons: int, seed: int) -> np.ndarray:
        """The neurons that get a row: all of them, a random choice, or the most active classes."""
        recording = self.recording
        if name == recording.spec.output.name:
            counts = recording.output_counts[self.shown, -1].max(axis=0).astype(np.int64)
            counts[self.predicted] += recording.steps + 1  # these before all others
            if self.truth is not None:
                counts[self.truth] += recording.steps + 1
            return np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
        size = self.size(name)
        if size <= most_neurons:
            return np.arange(size)
        random = np.random.default_rng([seed, crc32(name.encode())])  # the same neurons whatever else is shown
        return np.sort(random.choice(size, most_neurons, replace=False))

    def spikes(self, group: str, neurons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Step on the time axis and row of each spike of the neurons."""
        steps = self.recording.steps
        slot = np.full(self.recording.presentations, -1)
        slot[self.shown] = np.arange(len(self.shown))
        row = np.full(counted_groups(self.recording.spec)[group], -1)
        row[neurons] = np.arange(len(neurons))
        step, neuron = self.recording.rasters[group].T
        column, line = slot[step // steps] * steps + step % steps, row[neuron]
        visible = (column >= 0) & (line >= 0)
        return column[visible], line[visible]


def _recorded_names(recording: Recording) -> list[str]:
    names = [name for name in counted_groups(recording.spec) if name in recording.rasters]
    return [recording.spec.input.name, *names[2:]] if set(INPUT_SIGNS) <= set(names) else names


def _groups(recording: Recording, name: str) -> tuple[str, ...]:
    return tuple(INPUT_SIGNS) if name == recording.spec.input.name else (name,)


def _check_recorded(recording: Recording, names: Sequence[str], shown: np.ndarray) -> None:
    missing = [group for name in names for group in _groups(recording, name) if group not in recording.rasters]
    if missing:
        raise ValueError(f"no raster of {', '.join(missing)} was recorded: name them in the run's rasters")
    n = recording.recorded_presentations(names)
    if not shown.size or shown.min() < 0 or shown.max() >= n or len(np.unique(shown)) < shown.size:
        raise ValueError(
            f"there are rasters of the first {n} presentations, asked for were {shown.tolist()}: "
            "name some of these, each once, or raise the run's raster_presentations"
        )


def _chosen(recording: Recording, values: np.ndarray, shown: np.ndarray, what: str) -> np.ndarray:
    if len(values) != recording.presentations:
        raise ValueError(f"one {what} for each of {recording.presentations} presentations is needed, got {len(values)}")
    return values[shown]


def _draw_header(ax: Axes, stage: _Stage) -> None:
    """Image, true and predicted class above each presentation; the unit of y is a point."""
    top, centres = 72 * stage.header_height, (np.arange(len(stage.shown)) + 0.5) * stage.recording.steps
    lines = [("predicted", 5.5, stage.predicted)]
    if stage.truth is not None:
        lines.append(("true class", 16.3, stage.truth))
    width = _axes_width(ax) / len(stage.shown)
    longest = max(len(stage.classes[value]) for _, _, values in lines for value in values)
    font = float(np.clip(width / (0.6 * longest), 4, 7.5))
    ax.set_label("header")
    ax.set_ylim(0, top)
    ax.axis("off")
    for title, y, values in lines:
        across = ("axes fraction", "data")
        ax.annotate(title, (0, y), (-6, 0), across, "offset points", ha="right", va="center", color=MUTED)
        for slot, value in enumerate(values):
            colour = stage.verdict(slot) if title == "predicted" else INK
            ax.text(centres[slot], y, stage.classes[value], color=colour, fontsize=font, ha="center", va="center")
    for image, centre in zip(stage.images, centres, strict=False):
        side = max(image.shape[:2])
        interpolation = "nearest" if side <= 64 else "hanning"
        picture = OffsetImage(as_rgb(image), zoom=min(34, 0.92 * width) / side, interpolation=interpolation)
        ax.add_artist(AnnotationBbox(picture, (centre, top - 18), frameon=False, pad=0))


def _axes_width(ax: Axes) -> float:
    """Points, roughly: the layout is not made yet."""
    return 72 * 0.82 * ax.figure.bbox.width / ax.figure.dpi


@dataclass(frozen=True)
class _Grid:
    """Rows of neurons and columns of steps; width and height are in points."""

    rows: int
    columns: int
    width: float
    height: float


def _draw_panel(ax: Axes, stage: _Stage, name: str, neurons: np.ndarray, height: float) -> None:
    size, shown = stage.size(name), len(neurons)
    grid = _Grid(shown, stage.duration, _axes_width(ax), 72 * height)
    ax.set_label(name)
    ax.set_ylim(shown - 0.5, -0.5)  # the first neuron on top
    ax.set_yticks([])
    ax.spines[:].set_visible(False)
    for boundary in range(0, stage.duration + 1, stage.recording.steps):
        ax.axvline(boundary, color=MUTED, linewidth=0.4, zorder=3, clip_on=False)
    if name == stage.recording.spec.output.name:
        _name_panel(ax, name, f"{shown} most active of {size:,}" if shown < size else f"{size:,} classes")
        _draw_output(ax, grid, stage, name, neurons)
    elif name == stage.recording.spec.input.name:
        note = f"{shown} random of {size:,}" if shown < size else f"{size:,} inputs"
        _name_panel(ax, name, note, INPUT_SIGNS.values())
        for group, (_, colour) in INPUT_SIGNS.items():
            _draw_spikes(ax, grid, *stage.spikes(group, neurons), colour)
    else:
        _name_panel(ax, name, f"{shown} random of {size:,}" if shown < size else f"{size:,} neurons")
        _draw_spikes(ax, grid, *stage.spikes(name, neurons), INPUT_SIGNS.get(name, ("", INK))[1])


def _name_panel(ax: Axes, name: str, note: str, signs: Collection[tuple[str, str]] = ()) -> None:
    def write(text: str, x: float, y: float, **options) -> None:
        ax.annotate(text, (0, 0.5), (x, y), "axes fraction", "offset points", ha="right", **options)

    lift = 3.5 if signs else 0.0
    write(name, -6, lift + 0.5, va="bottom")
    write(note, -6, lift - 1.0, va="top", color=MUTED, fontsize=6)
    for place, (sign, colour) in enumerate(reversed(tuple(signs))):
        write(sign, -6 - 16 * place, lift - 8.5, va="top", color=colour, fontsize=6)


def _draw_output(ax: Axes, grid: _Grid, stage: _Stage, name: str, neurons: np.ndarray) -> None:
    """Rows named on the right; the true class has a band, the predicted one coloured spikes."""
    steps = stage.recording.steps
    ax.yaxis.tick_right()
    chosen = set(stage.predicted) if stage.truth is None else {*stage.predicted, *stage.truth}
    named = [i for i in range(len(neurons)) if grid.height / grid.rows > LINE_HEIGHT or neurons[i] in chosen]
    ax.set_yticks(named, [stage.classes[neurons[i]] for i in named])
    ax.tick_params(axis="y", length=0, pad=2)
    step, row = stage.spikes(name, neurons)
    winner = neurons[row] == stage.predicted[step // steps]
    _draw_spikes(ax, grid, step[~winner], row[~winner], INK)
    for slot in range(len(stage.shown)):
        for true_row in np.flatnonzero(neurons == (-1 if stage.truth is None else stage.truth[slot])):
            ax.add_patch(Rectangle((slot * steps, true_row - 0.5), steps, 1, facecolor="#E6E6E6", zorder=0.5))
        mine = winner & (step // steps == slot)
        _draw_spikes(ax, grid, step[mine], row[mine], stage.verdict(slot))


def _draw_spikes(ax: Axes, grid: _Grid, step: np.ndarray, row: np.ndarray, colour: str) -> None:
    """Strokes one row high, in the middle of the step; a picture where there are too many."""
    line = grid.height / grid.rows
    high = max(0.84, 1.0 / line)  # rows; one point at least, to be seen
    wide = float(np.clip(0.8 * grid.width / grid.columns, 0.5, np.clip(line, 0.75, 1.25)))  # points
    if len(step) > MOST_TICKS or len(step) * wide > MOST_COVER * grid.rows * grid.width:
        _draw_density(ax, grid, step, row, colour)
        return
    ends = row[:, None] + np.array([-high / 2, high / 2])
    strokes = np.stack([np.broadcast_to(step[:, None] + 0.5, ends.shape), ends], axis=2)
    rasterized = len(step) > VECTOR_TICKS
    collection = LineCollection(list(strokes), colors=colour, linewidths=wide, capstyle="butt", rasterized=rasterized)
    ax.add_collection(collection, autolim=False)


def _draw_density(ax: Axes, grid: _Grid, step: np.ndarray, row: np.ndarray, colour: str) -> None:
    together = -(-grid.columns // MOST_COLUMNS)  # steps of a column: as many in each, or it would be striped
    columns = -(-grid.columns // together)
    spikes = np.zeros((grid.rows, columns))
    np.add.at(spikes, (row, step // together), 1)
    picture = np.empty((grid.rows, columns, 4))
    picture[..., :3] = to_rgb(colour)
    picture[..., 3] = np.sqrt(np.minimum(spikes / np.quantile(spikes[spikes > 0], 0.98), 1))  # single spikes show
    ax.imshow(picture, extent=(0, columns * together, grid.rows - 0.5, -0.5), aspect="auto")


def _time_axis(panels: Sequence[Axes], steps: int, presentations: int) -> None:
    """Steps counted from the beginning of each presentation."""
    locator = MaxNLocator(nbins=max(1, 12 // presentations), steps=[1, 2, 2.5, 5, 10], integer=True)
    ticks = np.asarray(locator.tick_values(0, steps))
    ticks = ticks[(ticks >= 0) & (ticks <= steps)].astype(int)
    room = DIGIT * (len(str(steps)) + 3) / 2 * steps * presentations / _axes_width(panels[-1])
    places, labels = [], []
    for slot in range(presentations):
        inner = ticks if slot == presentations - 1 else ticks[ticks < steps - room]  # there the next one begins
        places += [slot * steps + tick for tick in inner]
        labels += [str(tick) for tick in inner]
    panels[-1].set_xlim(0, presentations * steps)
    panels[-1].set_xticks(places, labels)
    for ax in panels:
        ax.tick_params(axis="x", bottom=ax is panels[-1], labelbottom=ax is panels[-1])
    panels[-1].spines["bottom"].set_visible(True)
    panels[-1].set_xlabel("step" if presentations == 1 else "step of the presentation")
