"""Thresholds, initial potentials and biases that make the error of each layer smallest after so many time steps.

Layer after layer, with what it really receives: of some percentiles and initial potentials those are taken by which
rates come nearest to the ANN's activations, in the layer or in each of its channels (minimal error, Li et al. 2021).
What is left on average may then be corrected by initial potentials of each channel or neuron, or by a
constant input of each channel.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from netspec.ann import fire
from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.errors import UserError
from netspec.options import machine_memory
from sims.conversion.activations import activations_of, positive_percentile
from sims.conversion.layerwise import Layer, layer_by_layer
from sims.simulation.run_input import MOST_STEPS

__all__ = ["CORRECTIONS", "channels_differ", "search"]

BYTES = 24  # of each neuron, image and step of the largest layer: about six float32
PERCENTILES = (98, 99, 99.5, 99.7, 99.9, 99.95, 99.99, 100)
INITIAL = (0.4, 0.5, 0.55, 0.6)  # parts of the threshold
PARTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of a channel's largest activation
CORRECTIONS = ("none", "channel", "neuron", "bias")


def channels_differ(network: Checkpoint) -> bool:
    """Whether thresholds of each channel can be searched for: not in layers with clipped ReLUs."""
    return not all(population.clip for population in network.spec.spiking if population != network.spec.output)


def search(
    network: Checkpoint,
    x: np.ndarray,
    steps: int,
    channels: bool = False,
    correction: str = "none",
    percentile: float | None = None,
    initial: float | None = None,
    progress: Callable[[str], None] | None = None,
    made: Mapping[str, object] | None = None,
    delay: float = 0.0,
) -> Conversion:
    """A conversion for a number of steps.

    Parameters
    ----------
    network : Checkpoint
    x : numpy.ndarray
        Encoded training images, (images, height, width, channels).
    steps : int
    channels : bool
        Thresholds of each channel, in place of one a layer.
    correction : {'none', 'channel', 'neuron', 'bias'}
        What makes up for the mean error that is left: potentials of each channel or neuron, or a constant input.
    percentile, initial : float, optional
        The only ones to be tried, in place of some.
    progress : callable, optional
        Called with the name of each layer that is done.
    made : mapping, optional
        What to note about the images.
    delay : float
        Part of the steps after which the output is read.
    """
    if not 1 <= steps <= MOST_STEPS:
        raise UserError(f"the number of steps must be from 1 to {MOST_STEPS}, got {steps}")
    if correction not in CORRECTIONS:
        raise UserError(f"the correction must be one of {', '.join(CORRECTIONS)}, got {correction!r}")
    if channels and not channels_differ(network):
        raise UserError(
            f"all ReLUs of {network.spec.name} are clipped, and their thresholds are of whole layers: search without "
            "channels"
        )

    starts = INITIAL if initial is None else (initial,)

    def decide(layer: Layer) -> None:
        name, clip = layer.population.name, layer.population.clip
        if channels and not clip:
            candidates = [(part, start) for part in channel_parts(layer.activation, name) for start in starts]
        else:
            tried = PERCENTILES if percentile is None else (percentile,)
            wanted = [positive_percentile(layer.activation, p, name).clamp(max=clip or np.inf) for p in tried]
            candidates = [(threshold.float(), start) for threshold in wanted for start in starts]
        layer.threshold, layer.initial = best(layer, candidates, channels and not clip)
        left = layer.activation - rate(layer)
        if correction == "neuron":
            layer.initial = layer.initial + steps * left.mean(0)
        elif correction != "none":
            mean = left.mean((0, 2, 3))[:, None, None]
            if correction == "bias":
                layer.constant = mean
            else:
                layer.initial = layer.initial + steps * mean
        if progress:
            progress(name)

    needed = BYTES * len(x) * steps * max(population.size for population in network.spec.populations)
    available = machine_memory()
    if needed > available:
        raise UserError(
            f"a search with {len(x)} images and {steps} steps needs about {needed / 1e9:.0f} GB, this machine has "
            f"{available / 1e9:.0f} GB; give fewer --images or --steps"
        )
    layers, _ = layer_by_layer(network, x, steps, activations_of(network, x), decide)
    thresholds = {name: numbers(layer.threshold, layer) for name, layer in layers.items()}
    note = dict(made or {}) | {"images": len(x), "channels": channels, "correction": correction, "initial": initial}
    constant = dict(network.biases)
    for name, layer in layers.items():
        if layer.constant.any():
            constant[name] = np.asarray(constant.get(name, 0) + numbers(layer.constant, layer), dtype=np.float32)
    return Conversion.in_activations(
        network,
        "search",
        thresholds,
        constant=constant,
        initial={name: numbers(layer.initial, layer) for name, layer in layers.items()},
        percentile=100.0 if percentile is None else percentile,
        steps=steps,
        delay=delay,
        made=note,
    )


def channel_parts(activation: Tensor, name: str) -> list[Tensor]:
    """Parts of the largest activation of each channel; one that is silent takes the layer's."""
    if not activation.max() > 0:
        raise UserError(f"no ReLU of {name} is active on any of the images; use more of them")
    largest = activation.amax((0, 2, 3))[:, None, None]
    largest = torch.where(largest > 0, largest, activation.max())
    return [part * largest for part in PARTS]


def rate(layer: Layer) -> Tensor:
    """The activation that a layer's spikes stand for, (images, channels, height, width)."""
    spikes = torch.stack(fire(layer.arriving + layer.constant, layer.threshold, layer.initial))
    return spikes.sum(0) * (layer.threshold / len(spikes))


def best(layer: Layer, candidates: list[tuple[Tensor, float]], channels: bool) -> tuple[Tensor, Tensor]:
    """Threshold and initial potential of the smallest squared error, of all neurons or of each channel's."""
    least, threshold, initial = torch.tensor(np.inf), torch.ones(()), torch.zeros(())
    for candidate, part in candidates:
        layer.threshold, layer.initial = candidate, part * candidate
        error = (rate(layer) - layer.activation).square()
        error = error.mean((0, 2, 3))[:, None, None] if channels else error.mean()
        better = error < least
        least = torch.where(better, error, least)
        threshold = torch.where(better, layer.threshold, threshold)
        initial = torch.where(better, layer.initial, initial)
    return threshold, initial


def numbers(values: Tensor, layer: Layer) -> float | np.ndarray:
    """One number, (channels,) or (height, width, channels), as a conversion has them."""
    if values.ndim == 0:
        return float(values)
    if values.shape[-2:] == (1, 1) != layer.population.shape[:2]:
        return values.flatten().numpy()
    return np.ascontiguousarray(values.permute(1, 2, 0).numpy())
