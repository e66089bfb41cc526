"""The coding of images in spikes (section 4.1 and figure 1 of the paper): accumulation and its sampling error."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import ArrayLike

from sims.report.style import COLOURS, MUTED, as_rgb
from sims.simulation.stimulus import input_spikes, presentation_keys


def sample_photograph(size: int = 32) -> np.ndarray:
    """A photograph in the public domain that comes with matplotlib: Grace Hopper, by the United States Navy.

    Parameters
    ----------
    size : int
        Side in pixels.

    Returns
    -------
    numpy.ndarray
        uint8, (size, size, 3).
    """
    from matplotlib import get_data_path
    from PIL import Image

    with Image.open(Path(get_data_path(), "sample_data", "grace_hopper.jpg")) as photograph:
        head = photograph.crop((56, 0, 456, 400))
        return np.asarray(head.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))


def accumulated_spikes(x: np.ndarray, steps: ArrayLike, seed: int = 0, image: int = 0) -> Iterator[np.ndarray]:
    """Signed input spikes of an image, summed up to each of the given steps.

    Parameters
    ----------
    x : numpy.ndarray
        The network's input in [-1, 1], (height, width, channels).
    steps : array_like of int
        Ascending.
    seed, image : int
        As in a run: together they determine the spikes.

    Yields
    ------
    numpy.ndarray
        int64, of the shape of ``x``.
    """
    (key,) = presentation_keys(seed, np.array([image]))
    total, done = np.zeros(x.shape, dtype=np.int64), 0
    for wanted in np.atleast_1d(steps):
        for step in range(done, int(wanted)):
            total += input_spikes(x, int(key), step)
        done = int(wanted)
        yield total.copy()


def sampling_error(x: np.ndarray, steps: ArrayLike, seed: int = 0) -> np.ndarray:
    """Root mean square, over the pixels, of accumulated spikes / steps - x; (number of ``steps``,)."""
    chosen = np.atleast_1d(steps)
    totals = accumulated_spikes(x, chosen, seed)
    return np.array([np.sqrt(np.mean((total / n - x) ** 2)) for total, n in zip(totals, chosen, strict=True)])


def expected_error(x: np.ndarray, steps: ArrayLike) -> np.ndarray:
    """What :func:`sampling_error` is on average: the root of the mean of p (1 - p) / T with p = abs(x)."""
    p = np.abs(x).astype(np.float64)
    return np.sqrt(np.mean(p * (1 - p)) / np.atleast_1d(steps))


def input_coding(
    figure: Figure | SubFigure,
    image: np.ndarray,
    x: np.ndarray,
    one_step: np.ndarray,
    accumulated: np.ndarray,
    steps: int,
) -> Figure | SubFigure:
    """An image, what the ANN sees of it, one step of its spikes, and their sum (figure 1 of the paper).

    Parameters
    ----------
    image : numpy.ndarray
        uint8, or float in [0, 1], (height, width, 3 or 1).
    x : numpy.ndarray
        The network's input in [-1, 1], of the same shape. Zero is drawn grey.
    one_step : numpy.ndarray
        Signed spikes of one step, -1, 0 or 1.
    accumulated : numpy.ndarray
        Their sum over ``steps`` steps.
    steps : int
    """
    pictures = {
        "image": as_rgb(image),
        "ANN input": _signed(x),
        "spikes, 1 step": _signed(one_step),
        f"spikes, {steps:,} steps": _signed(accumulated / steps),
    }
    for ax, (title, picture) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
        ax.imshow(picture, interpolation="nearest")
        ax.set_title(title)
        ax.axis("off")
    return figure


def plot_sampling_error(ax: Axes, steps: ArrayLike, measured: ArrayLike, expected: ArrayLike) -> Axes:
    """Distance of the accumulated input spikes from the input, against the number of steps.

    Parameters
    ----------
    steps : array_like of int
        (n,).
    measured, expected : array_like
        Root mean square over the pixels, (n,), as from :func:`sampling_error` and
        :func:`expected_error`.
    """
    ax.loglog(steps, expected, color=MUTED, linewidth=0.8, label="$\\sqrt{p(1-p)/T}$")
    ax.loglog(steps, measured, color=COLOURS["blue"], linestyle="", marker="o", label="measured")
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    ax.set_xlabel("steps $T$")
    ax.set_ylabel("RMS error")
    ax.legend()
    return ax


def _signed(values: np.ndarray) -> np.ndarray:
    """Values in [-1, 1] as colours, zero in the middle."""
    return as_rgb(np.clip((values.astype(np.float64) + 1) / 2, 0, 1))
