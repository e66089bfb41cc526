"""One look for all figures, and writing them to disk."""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure

from netspec.files import write_atomically

__all__ = ["COLOURS", "INK", "MARKERS", "MUTED", "PREDICTED", "RIGHT", "WRONG", "as_rgb", "save", "style", "use_style"]

# Okabe and Ito's palette: told apart with any colour vision, and in grey
COLOURS = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "orange": "#E69F00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "black": "#000000",
    "yellow": "#F0E442",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # where curves are to be told apart in grey as well
INK, MUTED = "#222222", "#767676"
RIGHT, WRONG, PREDICTED = COLOURS["green"], COLOURS["vermillion"], COLOURS["blue"]
DPI = 200
FORMATS: dict[str, dict[str, Any]] = {
    "png": {},
    "pdf": {"metadata": {"CreationDate": None}},
}  # the same figure gives the same file

STYLE: dict[Any, Any] = {
    "text.usetex": False,  # whatever the user has chosen, LaTeX may be missing
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: figures look the same everywhere
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.titlesize": 8,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=[colour for name, colour in COLOURS.items() if name != "yellow"]),
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.5,
    "image.cmap": "cividis",
    "figure.figsize": (3.5, 2.6),
    "figure.facecolor": "white",
    "figure.dpi": 150,  # in notebooks; files have their own
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "auto",
    "pdf.fonttype": 42,  # text stays text
}


@contextmanager
def style() -> Iterator[None]:
    """The look of this project's figures, inside ``with style():`` and nowhere else.

    Figures must be made, not only filled, inside of it.
    """
    with matplotlib.rc_context(STYLE):
        yield


def use_style() -> None:
    """The look of this project's figures from here on, for a notebook."""
    matplotlib.rcParams.update(STYLE)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """An image of one or three channels as one of three."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def save(figure: Figure, path: str | os.PathLike, formats: Sequence[str] = tuple(FORMATS)) -> list[Path]:
    """Write a figure as PNG (200 dpi) and PDF, or one of them; each file is there whole or not at all.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    path : path
        Without suffix; its folder is made if it is missing.
    formats : sequence of {'png', 'pdf'}

    Returns
    -------
    list of Path
        In the order of ``formats``.
    """
    rendered = {}
    with style():
        for suffix in formats:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix, dpi=DPI, **FORMATS[suffix])
            rendered[suffix] = buffer.getvalue()
    stem = Path(path)
    stem.parent.mkdir(parents=True, exist_ok=True)
    files = {suffix: stem.with_name(f"{stem.name}.{suffix}") for suffix in formats}  # the name may have dots
    for suffix, file in files.items():
        write_atomically(file, rendered[suffix])
    return list(files.values())
