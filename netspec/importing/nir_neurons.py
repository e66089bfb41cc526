"""Neurons of NIR as models of this project: thresholds, gains of what reaches them, leaks, by forward Euler.

In a step of length dt the equations of NIR become, with a signal S that is constant in it,

    IF       v += r dt S
    LIF      v += dt/tau ((v_leak - v) + r S)
    CubaLIF  I += dt/tau_syn (w_in S - I);  v += dt/tau_mem ((v_leak - v) + r I)

What multiplies S is folded into weights and biases; potentials are told from ``v_leak``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from netspec.errors import UserError
from netspec.importing.nir_graph import NirNode
from netspec.importing.nir_layers import shape_text
from netspec.importing.values import Value

__all__ = ["NEURONS", "Neurons", "per_neuron"]


@dataclass(frozen=True)
class Neurons:
    """What a node of neurons is here.

    Parameters
    ----------
    gain : numpy.ndarray
        By which a signal is multiplied in a step.
    threshold : numpy.ndarray
        In float32, of ``v >= threshold``; infinite for neurons that do not fire.
    reset : numpy.ndarray
        To which a spike sets the potential, told from rest.
    model : str
        Name of a shipped neuron model.
    parameters : mapping of str to float
    """

    gain: np.ndarray
    threshold: np.ndarray
    reset: np.ndarray
    model: str = "if"
    parameters: dict[str, float] = field(default_factory=dict)


def integrate_and_fire(node: NirNode, value: Value, dt: float) -> Neurons:
    """IF neurons."""
    return fired(node, value, per_neuron(node, value, "r") * dt, np.zeros(value.shape), "if", {})


def leaky(node: NirNode, value: Value, dt: float) -> Neurons:
    """Neurons of the model `lif`."""
    decay = decays(node, value, "tau", dt)
    return fired(node, value, per_neuron(node, value, "r") * decay, rest(node, value), "lif", {"decay": the_one(decay)})


def current_based(node: NirNode, value: Value, dt: float) -> Neurons:
    """Neurons of the model `cuba-lif`."""
    synapse, membrane = decays(node, value, "tau_syn", dt), decays(node, value, "tau_mem", dt)
    whole = per_neuron(node, value, "r") * per_neuron(node, value, "w_in", 1.0) * synapse * membrane
    parameters = {"decay": the_one(membrane), "current_decay": the_one(synapse)}
    return fired(node, value, whole, rest(node, value), "cuba-lif", parameters)


def integrator(node: NirNode, value: Value, dt: float) -> Neurons:
    """IF neurons that do not fire, for read-outs."""
    return integrate_and_fire(node, value, dt)


def leaky_integrator(node: NirNode, value: Value, dt: float) -> Neurons:
    """Neurons of the model `lif` that do not fire, for read-outs."""
    return leaky(node, value, dt)


def current_based_integrator(node: NirNode, value: Value, dt: float) -> Neurons:
    """Neurons of the model `cuba-lif` that do not fire, for read-outs."""
    return current_based(node, value, dt)


NEURONS: dict[str, Callable[[NirNode, Value, float], Neurons]] = {
    "IF": integrate_and_fire,
    "LIF": leaky,
    "CubaLIF": current_based,
    "I": integrator,
    "LI": leaky_integrator,
    "CubaLI": current_based_integrator,
}
SILENT = ("I", "LI", "CubaLI")


def fired(
    node: NirNode, value: Value, gains: np.ndarray, leak: np.ndarray, model: str, parameters: dict[str, float]
) -> Neurons:
    gains = np.where(np.isclose(gains, 1, rtol=1e-6, atol=0), 1, gains)
    if node.kind in SILENT:
        return Neurons(gains, np.full(value.shape, np.inf), np.zeros(value.shape), model, parameters)
    level = (per_neuron(node, value, "v_threshold") - leak).astype(np.float32)
    threshold = np.nextafter(level, np.float32(np.inf))  # NIR fires above it
    if not (threshold > 0).all():
        raise UserError(f"its v_threshold, {float(level.min())} above rest, is negative: it would fire without input")
    return Neurons(gains, threshold, per_neuron(node, value, "v_reset", 0.0) - leak, model, parameters)


def per_neuron(node: NirNode, value: Value, key: str, default: float | None = None) -> np.ndarray:
    """Numbers of a node in the order of a signal's map, (channels, height, width)."""
    given = node.numbers(key, default)
    if given.size != 1 and given.shape != value.layout.shape[1:]:
        raise UserError(f"its {key} has shape {given.shape}, what reaches it is {shape_text(value)}")
    if len(np.unique(value.layout)) != int(np.prod(value.shape)):
        raise UserError("some numbers of what reaches it were cut off")
    flat = np.empty(int(np.prod(value.shape)))
    flat[value.layout.ravel()] = np.broadcast_to(given.reshape(()) if given.size == 1 else given.ravel(), flat.shape)
    return flat.reshape(value.shape)


def decays(node: NirNode, value: Value, key: str, dt: float) -> np.ndarray:
    """What a variable loses in a step, as a share."""
    tau = per_neuron(node, value, key)
    if not (tau >= dt * (1 - 1e-6)).all():
        raise UserError(f"its {key} is {float(tau.min()):g}, less than a step of {dt:g}")
    share = np.minimum(dt / tau, 1)
    if (share != share.flat[0]).any():
        raise UserError(f"its {key} differs between neurons; a population has one")
    return share


def rest(node: NirNode, value: Value) -> np.ndarray:
    leak = per_neuron(node, value, "v_leak", 0.0)
    if node.kind in SILENT and (leak != leak.flat[0]).any():
        raise UserError("its v_leak differs between neurons, of which none fires")
    return leak


def the_one(values: np.ndarray) -> float:
    return float(values.flat[0])
