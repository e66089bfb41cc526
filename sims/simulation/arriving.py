"""What arrives at a population along a projection, computed densely by torch: the reference's way, and a current's."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from netspec.ann import padded
from netspec.spec import NetSpec, Projection, both
from sims.simulation.geometry import Geometry, as_convolution
from sims.simulation.run_input import RunInput

__all__ = ["arriving", "constant_input", "flat", "kernel", "neurons"]


def kernel(spec: NetSpec, projection: Projection, weights: Mapping[str, np.ndarray]) -> Tensor:
    """The weights of a projection as a convolution's, scaled by its pooling."""
    dense = as_convolution(spec, projection, weights.get(projection.name)).copy()
    return torch.from_numpy(dense) * Geometry.of(spec, projection).scale


def arriving(spec: NetSpec, projection: Projection, weight: Tensor, values: Tensor) -> Tensor:
    """Sum of weights times ``values`` (presentations, channels, height, width) for each neuron of post, likewise.

    ``weight`` is as of :func:`kernel`: dilation and choice of channels are in it.
    """
    if projection.kind == "identity" and spec[projection.pre].shape == spec[projection.post].shape:
        return values
    if projection.pool > 1:
        values = F.avg_pool2d(values, projection.pool, divisor_override=1)
    groups = 1 if projection.channels else projection.groups
    if projection.kind == "dense":  # a convolution whose kernel covers everything
        height, width, channels = spec[projection.post].shape
        flat = F.conv2d(values, weight).flatten(1)
        return flat.view(-1, height, width, channels).permute(0, 3, 1, 2)
    values, padding = padded(projection, values)
    return F.conv2d(values, weight, None, both(projection.stride), padding, groups=groups)


def flat(values: Tensor) -> Tensor:
    """(n, channels, height, width) to (n, neurons), in the order of the neuron index."""
    return values.permute(0, 2, 3, 1).flatten(1)


def neurons(values: Tensor) -> np.ndarray:
    """As of :func:`flat`, for NumPy."""
    return flat(values).cpu().numpy()


@torch.no_grad()
def constant_input(spec: NetSpec, weights: Mapping[str, np.ndarray], given: RunInput) -> dict[str, np.ndarray]:
    """What neurons get in every step of a checked run, for each population that gets something.

    Returns
    -------
    dict of str to numpy.ndarray
        float32, (1 or presentations, neurons): the run's constant input, and what a current gives the first layer,
        computed once an image. Relays pass it on, so that it is that of the neurons after them.
    """
    constant = {name: values[None] for name, values in given.constant.items()}
    if given.coding == "current":
        shown = {spec.input.name: torch.from_numpy(given.x.transpose(0, 3, 1, 2).copy())}
        for projection in sorted(spec.carrying_current, key=lambda p: spec.populations.index(spec[p.pre])):
            weight = kernel(spec, projection, weights)
            images = shown[projection.pre].split(1)  # one by one: the same numbers, whatever stands beside them
            current = torch.cat([arriving(spec, projection, weight, image) for image in images])
            if spec[projection.post].kind == "relay":
                shown[projection.post] = shown.get(projection.post, torch.zeros(())) + current
            else:
                constant[projection.post] = constant.get(projection.post, np.float32(0)) + neurons(current)
    return {name: np.ascontiguousarray(values) for name, values in constant.items() if values.any()}
