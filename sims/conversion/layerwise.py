"""A spiking network simulated layer by layer, all steps of one before the next, so that a layer can be set on the way.

A spike crosses all layers within a step and there is no way back, so that this gives the spikes of the other
simulators, whatever is decided about a layer once all that it receives is known.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from netspec.ann import fire, largest
from netspec.checkpoint import Checkpoint
from netspec.spec import Population
from sims.simulation.arriving import arriving, kernel

__all__ = ["Layer", "layer_by_layer"]

PART = 64  # images of one convolution


@dataclass
class Layer:
    """What a population receives, and what is decided about it; tensors that broadcast to (channels, height, width).

    Parameters
    ----------
    population : Population
    arriving : torch.Tensor
        Synaptic input of each step, the bias included: (steps, images, channels, height, width).
    activation : torch.Tensor
        What the ANN has in its place, (images, channels, height, width), at least 0.
    threshold, initial, constant : torch.Tensor
    """

    population: Population
    arriving: Tensor
    activation: Tensor
    threshold: Tensor
    initial: Tensor
    constant: Tensor


@torch.no_grad()
def layer_by_layer(
    network: Checkpoint,
    x: np.ndarray,
    steps: int,
    activations: Mapping[str, Tensor],
    decide: Callable[[Layer], None],
) -> tuple[dict[str, Layer], Tensor]:
    """Run a network of IF neurons on a constant current, in activations, and let each layer be decided in its turn.

    Parameters
    ----------
    network : Checkpoint
    x : numpy.ndarray
        Encoded images, (images, height, width, channels).
    steps : int
    activations : mapping of str to torch.Tensor
        Of the ANN for these images, (images, channels, height, width).
    decide : callable
        Is given each spiking population but the output, and may change its threshold, initial potential and constant
        input; a threshold of 1, initial potential and constant input of 0 are there to begin with. The threshold is
        the spike value, too.

    Returns
    -------
    layers : dict of str to Layer
        As they were decided, without what arrives.
    potential : torch.Tensor
        Of the output, which does not fire, after each step: (steps, images, classes).
    """
    spec, weights = network.spec, network.weights
    image = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    sent: dict[str, Tensor] = {spec.input.name: image[None]}  # (steps or 1, images, ...), in activations
    values: dict[str, Tensor] = {}  # by which spikes are multiplied
    layers: dict[str, Layer] = {}
    total = torch.zeros(())
    for number, population in enumerate(spec.populations[1:], 1):
        total = torch.zeros(())
        for projection in spec.incoming(population.name) if population.kind != "max" else ():
            weight, source = kernel(spec, projection, weights), sent[projection.pre]
            flat = source.flatten(0, 1)
            parts = []
            for part in flat.split(PART):
                given = part * values[projection.pre] if projection.pre in values else part
                parts.append(arriving(spec, projection, weight, given.float()))
            total = total + torch.cat(parts).unflatten(0, source.shape[:2])
        if population.name in network.biases:
            bias = torch.from_numpy(np.broadcast_to(network.biases[population.name], population.shape).copy())
            total = total + bias.permute(2, 0, 1)
        total = total.expand(steps, *total.shape[1:])
        if population.kind == "max":
            (projection,) = spec.incoming(population.name)
            trains = sent[projection.pre]
            peaks = torch.stack([largest(projection, counts.float()) for counts in trains.cumsum(0)])
            sent[population.name] = torch.diff(peaks, dim=0, prepend=torch.zeros_like(peaks[:1])).bool()
            values[population.name] = values[projection.pre]
        elif population.kind == "if" and population is not spec.output:
            none = torch.zeros(())
            layer = Layer(population, total, activations[population.name].clamp(min=0), torch.ones(()), none, none)
            decide(layer)
            sent[population.name] = torch.stack(fire(total + layer.constant, layer.threshold, layer.initial))
            values[population.name] = layer.threshold
            layers[population.name] = layer
            layer.arriving = none
        else:
            sent[population.name] = total
        later = {projection.pre for p in spec.populations[number + 1 :] for projection in spec.incoming(p.name)}
        sent = {name: train for name, train in sent.items() if name in later}
    return layers, total.cumsum(0).flatten(2)
