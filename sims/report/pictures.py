"""The pictures of one run: spikes of chosen populations, and the answer's accuracy against time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from netspec.conversion import Conversion
from netspec.spec import NetSpec
from sims.report import plots
from sims.report.raster import raster
from sims.report.style import save, style
from sims.report.summary import Result
from sims.simulation.metrics import agreement, error

__all__ = ["rasters_of", "save_pictures"]


def rasters_of(spec: NetSpec, conversion: Conversion) -> list[str]:
    """Up to four populations that fire, between the first layer and the output."""
    names = [population.name for population in spec.spiking if conversion.fires(population.name)]
    if not names:
        return []
    return list(dict.fromkeys(names[k] for k in (0, 2 * len(names) // 5, 4 * len(names) // 5, -1)))


def save_pictures(
    result: Result, rasters: Sequence[str], out: Path, photos: bool = True, pdf: bool = False
) -> list[Path]:
    """Draw one raster of the populations, and accuracy against time; returns the PNG files, then PDFs if asked for.

    Rasters and PDFs of an earlier run in the same folder are removed.
    """
    formats = ("png", "pdf") if pdf else ("png",)
    with style():
        files = save(draw(result, rasters, photos), out / "raster", formats) if rasters else []
        if result.ann is not None or (result.images.labels >= 0).all():
            files += save(accuracy(result), out / "accuracy", formats)
    for old in {out / f"{name}.{kind}" for name in ("raster", "accuracy") for kind in ("png", "pdf")} - set(files):
        old.unlink(missing_ok=True)
    return sorted(files, key=lambda file: file.suffix != ".png")


def draw(result: Result, names: Sequence[str], photos: bool) -> Figure:
    """A raster of the first images."""
    images = result.images
    drawn = raster(
        result.recording,
        names,
        presentations=range(min(result.recording.settings["raster_presentations"], len(images))),
        images=images.images if photos else None,
        labels=images.labels if (images.labels >= 0).all() else None,
        classes=[name.replace("$", r"\$") for name in images.classes],  # no mathematics
    )
    assert isinstance(drawn, Figure)
    return drawn


def accuracy(result: Result) -> Figure:
    """Accuracy against steps, or agreement with the ANN where the classes are not known."""
    recording, labels, figure = result.recording, result.images.labels, Figure()
    first = 10 if recording.steps > 200 else 1
    steps = np.unique(np.geomspace(first, recording.steps, 60).astype(int))
    ax = figure.add_subplot()
    if (labels >= 0).all():
        curve, level, quantity = 1 - error(recording, labels, steps), result.summary["ann_accuracy"], "accuracy"
    else:
        assert result.ann is not None
        curve, level, quantity = agreement(recording, result.ann, steps), None, "agreement with the ANN"
    plots.convergence(ax, steps, {"SNN": curve}, level, quantity=quantity)
    ax.set_title(f"{result.checkpoint.spec.name}, {counted(len(labels), 'image')}".replace("$", r"\$"))
    return figure


def counted(number: int, what: str) -> str:
    """``'1 image'``, ``'2 images'``."""
    return f"{number:,} {what}" + "s" * (number != 1)
