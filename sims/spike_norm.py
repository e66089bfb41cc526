"""Threshold balancing: SPIKE-NORM (Algorithm 1 of the paper) and ANN-model normalisation (Diehl et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from netspec.ann import ANN
from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.runtime import RunInput, Simulator

__all__ = ["ann_norm", "spike_norm"]


def spike_norm(
    simulator: Simulator,
    x: np.ndarray,
    steps: int = 2500,
    seed: int = 0,
    percentile: float = 100,
    known: Mapping[str, float] | None = None,
    workers: int = 1,
    finished: Callable[[str, float], None] | None = None,
    progress: Callable[[int], None] | None = None,
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
    parts = np.array_split(np.arange(len(x)), min(workers, len(x)))
    for population in simulator.spec.spiking:
        name = population.name
        if name in known:
            thresholds[name] = known[name]
            continue

        def measure(part: np.ndarray, name: str = name) -> np.ndarray:
            given = RunInput(x[part], dict(thresholds), steps, seed, ids=part, measured=(name,))
            return simulator.run(given, _increments(progress)).peaks[name]

        if len(parts) == 1:
            peaks = [measure(parts[0])]
        else:
            with ThreadPoolExecutor(len(parts)) as pool:
                peaks = list(pool.map(measure, parts))
        threshold = float(np.percentile(np.maximum.reduce(peaks), percentile))
        if not threshold > 0:
            raise UserError(f"{name} receives no positive input in {steps} steps of {len(x)} images; use more of them")
        thresholds[name] = float(np.float32(threshold))
        if finished:
            finished(name, thresholds[name])
    return thresholds


def _increments(progress: Callable[[int], None] | None) -> Callable[[int], None] | None:
    """Turn a count since the start of a run, as simulators give it, into increments."""
    if progress is None:
        return None
    seen = 0

    def report(steps: int) -> None:
        nonlocal seen
        progress(steps - seen)
        seen = steps

    return report


def ann_norm(
    spec: NetSpec,
    weights: Mapping[str, np.ndarray],
    x: np.ndarray,
    percentile: float = 100,
    known: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Thresholds from the largest ReLU activations of the ANN.

    A spike of layer l - 1 stands for the activation lambda(l - 1), so that with unscaled weights
    v_th(l) = lambda(l) / lambda(l - 1); for the input lambda is 1. A spike of a population whose threshold is
    known stands for that threshold times what a spike of its input stands for.

    Parameters
    ----------
    spec : NetSpec
    weights : mapping of str to numpy.ndarray
    x : numpy.ndarray
        Encoded training images, (images, height, width, channels).
    percentile : float
        Below 100: this percentile over the neurons, each with its own maximum over images.
    known : mapping of str to float, optional
        Thresholds that are not to be balanced.

    Raises
    ------
    UserError
        If the spikes that meet at a junction stand for different activations, or a layer is silent.
    """
    ann = ANN.from_weights(spec, weights)
    highest: dict[str, torch.Tensor] = {}
    for part in np.array_split(x, max(1, len(x) // 64)):
        for name, values in ann.activations(torch.from_numpy(part.transpose(0, 3, 1, 2).copy())).items():
            highest[name] = torch.maximum(highest[name], values.amax(0)) if name in highest else values.amax(0)
    known = known or {}
    spike = {spec.input.name: 1.0}  # the activation that a spike stands for
    thresholds = {}
    for population in spec.populations[1:]:
        name = population.name
        arriving = [spike[projection.pre] for projection in spec.incoming(name)]
        if not np.allclose(arriving, arriving[0]):
            raise UserError(f"the spikes that meet in {name} stand for different activations; use --unit or spike-norm")
        if population.kind == "relay":
            spike[name] = arriving[0]
            continue
        largest = float(np.percentile(highest[name].numpy(), percentile))
        if name not in known and not largest > 0:
            raise UserError(f"no ReLU of {name} is active on any of {len(x)} images; use more of them")
        thresholds[name] = float(np.float32(known.get(name, largest / arriving[0])))
        spike[name] = thresholds[name] * arriving[0]
    return thresholds
