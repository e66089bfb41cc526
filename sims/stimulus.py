"""Images as Poisson spike trains: signs, probabilities, keys (section 4.1 of the paper).

A pixel of value x spikes in each step with probability min(abs(x), 1); spikes of positive pixels come from the
ON population, those of negative pixels from the OFF population.
"""

from __future__ import annotations

import numpy as np

from sims.synapses.draws import GOLDEN, spike_probability_draws, splitmix64

__all__ = ["input_spikes", "presentation_keys"]


def presentation_keys(seed: int, ids: np.ndarray) -> np.ndarray:
    """Keys of the spike trains of images, uint64: a function of the seed and the image's number alone."""
    with np.errstate(over="ignore"):
        stream = splitmix64(np.asarray(seed % 2**64, dtype=np.uint64) + GOLDEN)
        return splitmix64(stream + (np.asarray(ids).astype(np.uint64) + np.uint64(1)) * GOLDEN)


def input_spikes(x: np.ndarray, key: int, step: int) -> np.ndarray:
    """Signed spikes of one step, -1, 0 or 1, of the shape of the image ``x``."""
    draws = spike_probability_draws(int(key), step, x.size).reshape(x.shape)
    return np.where(draws < np.abs(x), np.sign(x), 0).astype(np.int8)
