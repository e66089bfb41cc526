"""Thresholds from percentiles of the ANN's positive activations, for a constant current and few time steps.

In activations (Rueckauer et al. 2017; Bu et al. 2022): a spike of a layer stands for its threshold, by which its
weights are multiplied wherever it goes, so that any graph can be converted; potentials begin at half a threshold, which
makes the expected error of a rate zero; the output gathers potential and does not fire.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from netspec.ann import ANN
from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.errors import UserError
from sims.simulation.run_input import MOST_STEPS

__all__ = ["activations_of", "from_activations", "positive_percentile"]


def activations_in_parts(network: Checkpoint, x: np.ndarray) -> Iterator[dict[str, Tensor]]:
    """Activations of the ANN for some encoded images after others, (images, channels, height, width) each."""
    ann = ANN.of(network)
    for part in np.array_split(x, max(1, len(x) // 64)):
        yield ann.activations(torch.from_numpy(part.transpose(0, 3, 1, 2).copy()))


def activations_of(network: Checkpoint, x: np.ndarray) -> dict[str, Tensor]:
    """Activations of the ANN for encoded images, (images, channels, height, width) for each population."""
    parts = list(activations_in_parts(network, x))
    return {name: torch.cat([part.pop(name) for part in parts]) for name in list(parts[0])}


def positive_activations(network: Checkpoint, x: np.ndarray) -> dict[str, Tensor]:
    """Those that are not 0 of each spiking population before the output, flat: a part of all, to spare memory."""
    found: dict[str, list[Tensor]] = {population.name: [] for population in network.spec.spiking[:-1]}
    for part in activations_in_parts(network, x):
        for name, values in found.items():
            values.append(part[name][part[name] > 0])
    return {name: torch.cat(found.pop(name)) for name in list(found)}


def positive_percentile(values: Tensor, percentile: float, name: str) -> Tensor:
    """The percentile of those activations that are not 0; UserError if there are none."""
    positive = values[values > 0].flatten()
    if not len(positive):
        raise UserError(f"no ReLU of {name} is active on any of the images; use more of them")
    return positive.float().kthvalue(max(1, round(percentile / 100 * len(positive)))).values


def from_activations(
    network: Checkpoint,
    x: np.ndarray,
    percentile: float = 99.9,
    initial: float = 0.5,
    made: Mapping[str, object] | None = None,
    steps: int = 0,
    delay: float = 0.0,
) -> Conversion:
    """Thresholds at a percentile of the positive activations of each layer, at most its clip.

    Parameters
    ----------
    network : Checkpoint
    x : numpy.ndarray
        Encoded training images, (images, height, width, channels).
    percentile : float
    initial : float
        Where potentials begin, as a part of the threshold.
    made : mapping, optional
        What to note about the images.
    steps : int
        For which it is meant; they change nothing else.
    delay : float
        Part of the steps after which the output is read.
    """
    if not 0 <= steps <= MOST_STEPS:
        raise UserError(f"the number of steps must be from 0 to {MOST_STEPS}, got {steps}")
    spec, found = network.spec, positive_activations(network, x)
    values = {
        population.name: min(
            float(positive_percentile(found[population.name], percentile, population.name)), population.clip or np.inf
        )
        for population in spec.spiking[:-1]
    }
    potentials = {name: float(np.float32(initial * value)) for name, value in values.items() if initial}
    note = dict(made or {}) | {"images": len(x), "initial": initial}
    return Conversion.in_activations(
        *(network, "activations", values),
        initial=potentials, percentile=percentile, made=note, steps=steps, delay=delay,
    )  # fmt: skip
