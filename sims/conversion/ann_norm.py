"""ANN-model normalisation: thresholds from the activations of the ANN (Diehl et al. 2015)."""

from collections.abc import Mapping

import numpy as np

from netspec.ann import ann_peaks
from netspec.checkpoint import Checkpoint
from netspec.errors import UserError
from netspec.thresholds import arriving_value

__all__ = ["ann_norm"]


def ann_norm(
    network: Checkpoint,
    x: np.ndarray,
    percentile: float = 100,
    known: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Thresholds from the largest activations of the ANN: ratios of them, or themselves if it has biases.

    A spike of layer l - 1 stands for the activation lambda(l - 1), so that with unscaled weights
    v_th(l) = lambda(l) / lambda(l - 1); for the input lambda is 1. A spike of a population whose threshold is
    known stands for that threshold times what a spike of its input stands for.

    Parameters
    ----------
    x : numpy.ndarray
        Encoded training images, (images, height, width, channels).
    percentile : float
        Below 100: this percentile over the neurons, each with its own maximum over images.
    known : mapping of str to float, optional
        Thresholds that are not to be balanced.

    Raises
    ------
    UserError
        If the spikes that meet at a junction stand for different activations (ratios alone), or a layer is silent.
    """
    spec, highest = network.spec, ann_peaks(network, x)
    known = known or {}
    spike = {spec.input.name: 1.0}  # the activation that a spike stands for
    thresholds = {}
    for population in spec.populations[1:]:
        name = population.name
        arriving = 1.0 if network.biases else arriving_value(spec, spike, name)
        if np.isnan(arriving):
            raise UserError(
                f"the spikes that meet in {name} stand for different activations; use unit thresholds or spike-norm"
            )
        if population.kind != "if":
            spike[name] = arriving
            continue
        largest = float(np.percentile(highest[name].numpy(), percentile))
        if name not in known and not largest > 0:
            raise UserError(f"no ReLU of {name} is active on any of {len(x)} images; use more of them")
        thresholds[name] = float(np.float32(known.get(name, largest / arriving)))
        spike[name] = thresholds[name] * arriving
    return thresholds
