"""Images as Poisson spike trains: signs, probabilities, keys (section 4.1 of the paper).

A pixel of value x spikes in each step with probability min(abs(x), 1); spikes of positive pixels come from the
ON population, those of negative pixels from the OFF population. Random numbers are counted: every input neuron has one
in every step, whoever asks for it.
"""

import numpy as np

__all__ = ["input_spikes", "presentation_keys", "spike_probability_draws", "splitmix64"]

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
MIXERS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))  # of SplitMix64: bits of a shift, and a factor


def splitmix64(z: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014) on uint64 numbers."""
    with np.errstate(over="ignore"):
        for bits, factor in MIXERS:
            z = (z ^ (z >> np.uint64(bits))) * np.uint64(factor)
    return z ^ (z >> np.uint64(31))


def spike_probability_draws(key: int, step: int, n: int) -> np.ndarray:
    """The random numbers of ``n`` input neurons in one step.

    Parameters
    ----------
    key : int
        Of the presentation, from :func:`sims.simulation.stimulus.presentation_keys`; 64 bits.
    step : int
        Since the start of the presentation.
    n : int
        Number of input neurons.

    Returns
    -------
    numpy.ndarray
        float32 in [0, 1), multiples of 2**-24: a neuron fires if its number is below its probability.
    """
    counter = np.uint64(step * n) + np.arange(1, n + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = splitmix64(np.uint64(key & 0xFFFFFFFFFFFFFFFF) + counter * GOLDEN)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def presentation_keys(seed: int, ids: np.ndarray) -> np.ndarray:
    """Keys of the spike trains of images, uint64: a function of the seed and the image's number alone."""
    with np.errstate(over="ignore"):
        stream = splitmix64(np.asarray(seed % 2**64, dtype=np.uint64) + GOLDEN)
        return splitmix64(stream + (np.asarray(ids).astype(np.uint64) + np.uint64(1)) * GOLDEN)


def input_spikes(x: np.ndarray, key: int, step: int) -> np.ndarray:
    """Signed spikes of one step, -1, 0 or 1, of the shape of the image ``x``."""
    draws = spike_probability_draws(int(key), step, x.size).reshape(x.shape)
    return np.where(draws < np.abs(x), np.sign(x), 0).astype(np.int8)
