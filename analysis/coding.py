"""The coding of images in spikes (section 4.1 and figure 1 of the paper): accumulation and its sampling error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from sims.stimulus import input_spikes, presentation_keys

__all__ = ["accumulated_spikes", "expected_error", "sample_photograph", "sampling_error"]


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
