"""The figures of the paper, and some beside them, from the repository's tables.

Each function gives a new figure, or raises MissingTableError where what it needs was not made yet.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from analysis.coding import accumulated_spikes, expected_error, input_coding, plot_sampling_error, sampling_error
from analysis.results import (
    PAPER,
    PAPER_STEPS,
    RESULTS,
    MissingTableError,
    choose,
    describe,
    evaluations,
    layers,
    main_networks,
    thresholds_of,
    with_width,
)
from netspec.architectures.resnet import CONSTRAINTS
from netspec.checkpoint import Checkpoint, load_checkpoint
from netspec.conversion import Conversion
from netspec.errors import UserError
from netspec.thresholds import open_thresholds
from sims.report.plots import (
    PAPER_MARK,
    convergence,
    percent_axis,
    rates_against_activations,
    spike_counts_by_layer,
    thresholds_by_layer,
)
from sims.report.style import COLOURS, MARKERS, MUTED, style
from sims.simulation.recording import Recording

TABLES = Mapping[str, pd.DataFrame]
CODING_STEPS = 1000
ERROR_STEPS = (1, 3, 10, 30, 100, 300, 1000, 3000)
DATA_SETS = ("cifar10", "imagenette")
JUNCTIONS = CONSTRAINTS["1"].checkpoint


def available(draw: Callable[..., Figure], *arguments: object) -> Figure | None:
    """The figure, or a printed line that says which table it needs and how that is made."""
    try:
        return draw(*arguments)
    except MissingTableError as missing:
        print(missing)
        return None


def input_spikes(image: np.ndarray, checkpoint: Checkpoint, seed: int = 0) -> Figure:
    """Figure 1: an image, the ANN's input, one step of spikes, 1000 steps; and how the sampling error falls.

    Parameters
    ----------
    image : numpy.ndarray
        uint8, of the size of the network's input.
    checkpoint : Checkpoint
        Whose mean is subtracted, and whose gain makes probabilities of pixels.
    seed : int
    """
    x = checkpoint.encode(image[None])[0]
    one, many = accumulated_spikes(x, [1, CODING_STEPS], seed)
    with style():
        figure = Figure(figsize=(6.9, 1.75))
        pictures, curve = figure.subfigures(1, 2, squeeze=False, width_ratios=(4.6, 2.1))[0]
        input_coding(pictures, image, x, one, many, CODING_STEPS)
        plot_sampling_error(
            curve.subplots(), ERROR_STEPS, sampling_error(x, ERROR_STEPS, seed), expected_error(x, ERROR_STEPS)
        )
    return figure


def shipped_thresholds(name: str, variant: str) -> dict[str, float]:
    """The thresholds beside a shipped network."""
    try:
        return dict(open_thresholds(variant, name, load_checkpoint(name)).values)
    except UserError as error:
        raise MissingTableError(str(error)) from error


def thresholds(name: str) -> Figure:
    """Thresholds by SPIKE-NORM beside ANN-model normalisation, and their ratio by layer and from layer to layer.

    Both are in units of the synaptic input: the ANN's is the largest mean input, if the neurons before spike in
    every step at most; SPIKE-NORM's is the largest input of a single step.
    """
    snn, ann = shipped_thresholds(name, "spike-norm"), shipped_thresholds(name, "ann-norm")
    ratio = {layer: snn[layer] / ann[layer] for layer in snn}
    product = dict(zip(ratio, np.cumprod(list(ratio.values())), strict=True))
    with style():
        figure = Figure(figsize=(6.9, 2.5))
        left, right = figure.subplots(1, 2)
        thresholds_by_layer(left, snn, "SPIKE-NORM: largest input in the SNN", log=True)
        thresholds_by_layer(left, ann, "ANN-model: ratio of the ANN's largest activations", log=True)
        thresholds_by_layer(right, ratio, "of the layer")
        thresholds_by_layer(right, product, "of all layers up to here")
        right.axhline(1, color=MUTED, linewidth=0.5, zorder=0)
        right.set_ylabel("SPIKE-NORM / ANN-model")
        figure.suptitle(describe(name), fontsize=8)
    return figure


def balancing_factors(name: str = JUNCTIONS) -> Figure:
    """Figure 2c: the threshold of each layer of a residual network with junction ReLUs, none of them fixed."""
    values = shipped_thresholds(name, "spike-norm")
    junctions = {projection.post for projection in load_checkpoint(name).spec.projections if not projection.weighted}
    with style():
        figure = Figure(figsize=(4.6, 2.6))
        ax = thresholds_by_layer(figure.subplots(), values)
        joined = {layer: value for layer, value in values.items() if layer in junctions}
        ax.plot(list(joined), list(joined.values()), "s", color=COLOURS["vermillion"], label="junctions")
        ax.axhline(1, color=MUTED, linewidth=0.5, zorder=0, label="threshold under constraint 2")
        ax.set_ylabel("threshold: largest input of a step")
        ax.set_title(f"{describe(name)}, SPIKE-NORM")
        ax.legend()
    return figure


def threshold_convergence(name: str, folder: Path = RESULTS) -> Figure:
    """Thresholds against steps, number of images and percentile, each layer's relative to its own at the end."""
    path = folder / f"{name}-threshold-convergence.csv"
    if not path.is_file():
        raise MissingTableError(
            f"there is no table {path.name}; make it with analysis/threshold_convergence.py --checkpoint {name}"
        )
    table = pd.read_csv(path)
    longest, most, largest = (table[key] == table[key].max() for key in ("steps", "images", "percentile"))
    final = table[longest & most & largest].set_index("layer")["threshold"]
    names = list(final.index)
    table = table.assign(relative=table["threshold"] / table["layer"].map(final))
    with style():
        figure = Figure(figsize=(6.9, 2.7))
        by_steps, by_images, by_percentile = figure.subplots(1, 3, sharey=True)
        _by_layer(by_steps, table[most & largest], "steps", names)
        _by_layer(by_images, table[longest & largest], "images", names)
        _by_layer(by_percentile, table[longest & most], "percentile", names)
        by_steps.set_ylabel("threshold, relative to the largest")
        by_steps.set_ylim(0, 1.05)
        percent_axis(by_steps)
        images, steps = table["images"].max(), table["steps"].max()
        network = with_width(name, table["network"].iloc[0])
        figure.suptitle(
            f"{network}: up to {images:,} images and {steps:,} steps; 0 % where no spike has come", fontsize=8
        )
    return figure


def _by_layer(ax: Axes, rows: pd.DataFrame, quantity: str, names: list[str]) -> None:
    """A curve over the layers for each value of a quantity, the darker the less."""
    groups = list(rows.groupby(quantity))
    colours = matplotlib.colormaps["cividis"](np.linspace(0, 0.9, len(groups)))
    for number, (value, group) in enumerate(groups):
        relative = group.set_index("layer")["relative"].reindex(names)
        look = {"color": colours[number], "marker": MARKERS[number % len(MARKERS)], "linewidth": 0.8}
        ax.plot(names, relative, **look, label=f"{value:,g}", clip_on=False)
    ax.tick_params(axis="x", rotation=90)
    ax.legend(title=quantity, title_fontsize=6.5, alignment="left", loc="lower left")


def constraints(errors: TABLES) -> Figure:
    """Figure 3: error of ResNet-20 against steps under each constraint, on the most images that all were shown."""

    def shown(images: int | None) -> tuple[list[tuple[list[str], pd.DataFrame]], list[MissingTableError]]:
        curves, missing = [], []
        for level in CONSTRAINTS.values():
            try:
                curves.append(([level.label], choose(errors, level.checkpoint, level.thresholds, images=images)))
            except MissingTableError as error:
                missing.append(error)
        return curves, missing

    tables = [errors[level.checkpoint] for level in CONSTRAINTS.values() if level.checkpoint in errors]
    numbers = sorted({number for table in tables for number in table["images"]}, reverse=True)
    curves, missing = min((shown(images) for images in (*numbers, None)), key=lambda found: len(found[1]))
    if len(curves) < 2:
        raise missing[0]
    with style():
        figure = Figure(figsize=(4.6, 3.2))
        _errors(figure.subplots(), curves, "ResNet-20, CIFAR-10", below=True)
    return figure


def _errors(
    ax: Axes,
    curves: Sequence[tuple[Sequence[str], pd.DataFrame]],
    title: str,
    marks: Mapping[str, float] | None = None,
    below: bool = False,
) -> Axes:
    """Curves of errors tables, each with the parts of its name, and a legend.

    The name is without what all have in common, which the legend's title tells; so are numbers of images and seeds.
    """
    parts = [[*name, f"{rows['images'].iloc[0]:,} images", *_seeds(rows)] for name, rows in curves]
    common = [part for part in parts[0] if len(parts) > 1 and all(part in others for others in parts)]
    names = [[part for part in name if part not in common] for name in parts]
    for column in ("checkpoint", "thresholds", "data"):  # where curves would have the same name
        values = [str(rows[column].iloc[0]) for _, rows in curves]
        if len({tuple(name) for name in names}) < len(names) and len(set(values)) > 1:
            names = [[*name, f"{column} {value}"] for name, value in zip(names, values, strict=True)]
    tables = {", ".join(name): rows for name, (_, rows) in zip(names, curves, strict=True)}
    convergence(
        ax,
        {label: rows["steps"] for label, rows in tables.items()},
        {label: rows["snn_error"] / 100 for label, rows in tables.items()},
        {label: rows["ann_error"].iloc[0] / 100 for label, rows in tables.items()},
        marks={label: value for label in tables for start, value in (marks or {}).items() if label.startswith(start)},
        marker=MARKERS,
    )
    for number, rows in enumerate(tables.values()):
        _band(ax, rows, number)
    _legend(ax, ", ".join([title, *common]), below)
    return ax


def _seeds(rows: pd.DataFrame) -> list[str]:
    seeds = rows["seed"].iloc[0].split()
    return [f"mean of {len(seeds)} seeds"] if len(seeds) > 1 else []


def _band(ax: Axes, rows: pd.DataFrame, number: int) -> None:
    """One standard deviation over the seeds, where there are several."""
    if rows["snn_error_sd"].notna().all():
        mean, sd = rows["snn_error"] / 100, rows["snn_error_sd"] / 100
        ax.fill_between(rows["steps"], mean - sd, mean + sd, color=f"C{number}", alpha=0.2, linewidth=0)


def _legend(ax: Axes, title: str, below: bool) -> None:
    """Each name once, what is common to the curves at the end; below the axes where curves leave no room."""
    handles = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    common = [name for name in ("ANN", PAPER_MARK) if name in handles]
    order = [name for name in handles if name not in common] + common
    place: dict[str, Any] = {"title": title, "title_fontsize": 6.5, "alignment": "left"}
    if below:
        place |= {"loc": "upper left", "bbox_to_anchor": (0.0, -0.2), "borderaxespad": 0.0}
    ax.legend([handles[name] for name in order], order, **place)


def convergence_by_network(errors: TABLES) -> Figure:
    """Figure 4: error against steps of all networks, a panel for each data set, with the paper's ends."""
    panels: dict[str, list[tuple[list[str], pd.DataFrame]]] = {}
    marks: dict[str, dict[str, float]] = {data: {} for data in DATA_SETS}
    for data in DATA_SETS:
        for name, variant in main_networks(errors, data).items():
            try:
                rows = choose(errors, name, variant)
            except MissingTableError:
                continue
            label = describe(name).split(", ")[0]
            panels.setdefault(data, []).append(([label], rows))
            for paper in PAPER:
                own = (paper.network, paper.thresholds) == (name, variant) and paper.data in describe(name).split(", ")
                if own and rows["steps"].max() == PAPER_STEPS:
                    marks[data][label] = paper.snn / 100
    if not panels:
        raise MissingTableError("no errors of a network with the paper's thresholds; make them with sims/evaluate.py")
    with style():
        figure = Figure(figsize=(3.6 * len(panels), 3.3))
        for ax, (data, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            _errors(ax, curves, describe(f"vgg16-{data}").split(", ")[1], marks[data], below=True)
    return figure


def points_lost(errors: TABLES) -> Figure:
    """What the paper's conversion and one for few steps lose against their ANNs, against steps."""
    with style():
        figure = Figure(figsize=(4.6, 2.5))
        ax = figure.subplots()
        for number, (name, variant) in enumerate(main_networks(errors, "cifar10").items()):
            table, label = errors[name], describe(name).split(", ")[0]
            with suppress(MissingTableError):
                rows = choose(errors, name, variant)
                ax.plot(rows["steps"], rows["increment"], ".-", color=f"C{number}", label=f"{label}, SPIKE-NORM")
            few = table[(table["coding"] == "current") & (table["reset"] == "subtract") & (table["model"] == "if")]
            if len(few):
                rows = longest(few)
                ax.plot(rows["steps"], rows["increment"], ".--", color=f"C{number}", label=f"{label}, for few steps")
        if not ax.lines:
            raise MissingTableError("no errors of the networks in README's picture; make them with sims/evaluate.py")
        ax.axhline(0, color=MUTED, linewidth=0.6)
        ax.set(
            xscale="log", xlim=(2, 4000), ylim=(-0.5, 12), xlabel="time steps", ylabel="points of error above the ANN"
        )
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return figure


def longest(rows: pd.DataFrame) -> pd.DataFrame:
    """Of evaluations of most images the one that has most steps."""
    found = evaluations(rows[rows["images"] == rows["images"].max()])
    return max(found, key=lambda one: one["steps"].max())


def convergence_by_setting(errors: TABLES, name: str) -> Figure:
    """Error of one network against steps, for all thresholds and resets that were evaluated."""
    curves = []
    for rows in evaluations(errors[name], only_largest=True):
        first = rows.iloc[0]
        current = ["input as a current"] if first.get("coding") == "current" else []
        curves.append(([thresholds_of(first), f"reset {first['reset']}", *current], rows))
    with style():
        figure = Figure(figsize=(4.6, 2.7 + 0.14 * len(curves)))
        _errors(figure.subplots(), curves, describe(name), below=True)
    return figure


def spike_counts(operations: TABLES) -> Figure:
    """Figure 5: mean spikes per neuron of each layer, a panel for each network, with reset to zero."""
    panels = {
        name: pd.concat(evaluations(operations[name][operations[name]["reset"] == "zero"], only_largest=True))
        for name in main_networks(operations)
        if (operations[name]["reset"] == "zero").any()
    }
    if not panels:
        raise MissingTableError("no operations with reset to zero; make them with sims/evaluate.py")
    with style():
        figure = Figure(figsize=(3.5 * min(2, len(panels)), 2.6 * -(-len(panels) // 2)))
        grid = figure.subplots(-(-len(panels) // 2), min(2, len(panels)), squeeze=False)
        for ax in grid.flat[len(panels) :]:
            ax.axis("off")
        for ax, (name, table) in zip(grid.flat, panels.items(), strict=False):
            for _, row in table.iterrows():
                spike_counts_by_layer(ax, layers(row), f"{thresholds_of(row)}, {row['steps']:,} steps")
            ax.set_title(describe(name))
            ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    return figure


def rates_by_layer(recording: Recording, activations: Mapping[str, np.ndarray], conversion: Conversion) -> Figure:
    """Spike rates against the ANN's activations, a panel for each layer, over all presentations.

    Parameters
    ----------
    recording : Recording
    activations : mapping of str to numpy.ndarray
        As from :func:`netspec.ann.ann_activations` for the same images.
    conversion : Conversion
        By which the network ran: a line shows the rates of a lossless conversion.
    """
    every = conversion.activation_values(recording.spec)  # of one number a layer; no line for thresholds of channels
    values = {p.name: every[p.name] if np.ndim(every[p.name]) == 0 else np.nan for p in recording.spec.spiking}
    columns, rows = 4, -(-len(values) // 4)
    with style():
        figure = Figure(figsize=(6.9, 1.45 * rows))
        grid = figure.subplots(rows, columns, squeeze=False)
        for ax in grid.flat[len(values) :]:
            ax.axis("off")
        for ax, (name, value) in zip(grid.flat, values.items(), strict=False):
            rates = recording.spike_counts(name).transpose(0, 3, 1, 2) / recording.steps
            rates_against_activations(ax, rates, activations[name], value if np.isfinite(value) else None)
            ax.set(title=name, xlabel="", ylabel="")
        figure.supxlabel("activation of the ANN", fontsize=7.5)
        figure.supylabel("spikes per step", fontsize=7.5)
    return figure
