"""SPIKE-NORM: thresholds from the synaptic input in the spiking network itself (Algorithm 1 of the paper)."""

from collections.abc import Callable, Mapping

import numpy as np

from netspec.conversion import pooled_values
from netspec.errors import UserError
from sims.conversion.input_peaks import InputPeaks, Shortcut
from sims.simulation.run_input import Progress, Simulator

__all__ = ["spike_norm"]


def spike_norm(
    simulator: Simulator,
    x: np.ndarray,
    steps: int = 2500,
    seed: int = 0,
    percentile: float = 100,
    known: Mapping[str, float] | None = None,
    workers: int = 1,
    finished: Callable[[str, float], None] | None = None,
    progress: Progress | None = None,
    biases: Mapping[str, np.ndarray] | None = None,
    shortcut: Shortcut | None = None,
) -> dict[str, float]:
    """Set each population's threshold to the largest synaptic input that it receives in the spiking network.

    Population after population, the network runs with the thresholds found so far, the population's synaptic
    input of each step is measured (without its membrane potential), and the maximum over images, neurons and
    steps becomes its threshold.

    Parameters
    ----------
    simulator : Simulator
        With shared synapses.
    x : numpy.ndarray
        Encoded training images, (images, height, width, channels).
    steps : int
        Time steps for each image and population.
    seed : int
        Of the input spikes.
    percentile : float
        Below 100: this percentile over the neurons, each with its own maximum over images and steps.
    known : mapping of str to float, optional
        Thresholds that are not to be balanced: fixed ones, or those of an interrupted calibration.
    workers : int
        Runs side by side (C++ standalone), each with a part of the images.
    finished : callable, optional
        Called with each population's name and threshold.
    progress : callable, optional
        Called with the number of steps simulated since the last call.
    biases : mapping of str to numpy.ndarray, optional
        Of a network that has some. They are constant input, which counts as synaptic input here, and thresholds are
        activations, by which spikes multiply weights; else thresholds are ratios.
    shortcut : Shortcut, optional
        Without it, or with biases, all layers before a population are simulated anew to measure it.

    Returns
    -------
    dict of str to float

    Raises
    ------
    UserError
        If a population receives no positive input, so that it can have no threshold.
    """
    thresholds: dict[str, float] = {}
    known = known or {}
    wanted = [population.name for population in simulator.spec.spiking if population.name not in known]
    measured = InputPeaks(simulator, x, steps, seed, wanted, workers, progress, None if biases else shortcut)
    for population in simulator.spec.spiking:
        name = population.name
        if name in known:
            thresholds[name] = known[name]
            continue
        values = pooled_values(simulator.spec, thresholds) if biases else {}
        peaks = measured.of(name, thresholds, constant=biases or {}, spike_values=values)
        threshold = float(np.percentile(peaks, percentile))
        if not threshold > 0:
            raise UserError(f"{name} receives no positive input in {steps} steps of {len(x)} images; use more of them")
        thresholds[name] = float(np.float32(threshold))
        if finished:
            finished(name, thresholds[name])
    return thresholds
