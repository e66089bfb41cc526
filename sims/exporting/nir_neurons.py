"""Neurons of this project as nodes of NIR."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from netspec.errors import UserError
from netspec.spec import Population
from sims.simulation.neuron_models import NeuronModel

__all__ = ["Layer", "neuron_node", "reduced"]


def reduced(values: Any, population: Population) -> np.ndarray:
    """Numbers of neurons in as few as tell them, float32: (), (channels,) or (height, width, channels)."""
    whole = np.broadcast_to(np.asarray(values, dtype=np.float32), population.shape)
    if not (whole == whole[:1, :1]).all():
        return whole
    return whole[0, 0] if (whole != whole[0, 0, 0]).any() else np.array(whole[0, 0, 0])


@dataclass(frozen=True)
class Layer:
    """A population as it is written.

    Parameters
    ----------
    population : Population
    model : NeuronModel
    shape : tuple of int
        Of the node: (channels, height, width), or (neurons,).
    threshold : numpy.ndarray
        In the unit of the weights that are written; (), or (height, width, channels).
    fold : numpy.ndarray
        By what potentials of each channel were divided.
    initial : array_like
        Potentials at the start.
    resets : bool
        Whether a spike sets the potential, and does not subtract the threshold.
    """

    population: Population
    model: NeuronModel
    shape: tuple[int, ...]
    threshold: np.ndarray
    fold: np.ndarray
    initial: Any
    resets: bool


def neuron_node(nir: Any, layer: Layer, dt: float) -> Any:
    """The node of a population; a step lasts ``dt``. Raises UserError if NIR has none."""
    model, shape, silent = layer.model, layer.shape, np.isinf(layer.threshold).all()
    told = model.parameters
    metadata = {}
    if np.any(layer.initial):
        whole = np.broadcast_to(layer.initial, layer.population.shape) / layer.fold
        metadata["initial"] = in_order(whole, layer.population, shape)
    fires: dict[str, Any] = {}
    if not silent:
        if told.get("v_reset") and not layer.resets:
            raise UserError(f"{layer.population.name}: NIR cannot say that a spike subtracts and adds v_reset")
        level = in_order(layer.threshold, layer.population, shape)
        reset = np.broadcast_to(told.get("v_reset", 0.0) if layer.resets else 0.0, layer.population.shape)
        fires["v_threshold"] = np.nextafter(level, np.float32(0))  # NIR fires above it
        fires["v_reset"] = in_order(reset / layer.fold, layer.population, shape)

    def same(number: float) -> np.ndarray:
        return np.full(shape, number)

    if model.name == "if" or (model.name == "lif" and told["decay"] == 0):
        kind = nir.I if silent else nir.IF
        return kind(r=same(1 / dt).astype(np.float32), **fires, metadata=metadata)
    rest = {"v_leak": np.zeros(shape, dtype=np.float32)} | fires
    if model.name in ("lif", "leaky"):
        decay = told["decay"] if model.name == "lif" else 1 - told["leak"]
        share = 1.0 if model.name == "lif" else told["leak"]  # what a leaky neuron keeps of the input of a step
        if 0 < decay <= 1:
            kind = nir.LI if silent else nir.LIF
            return kind(tau=same(dt / decay), r=same(share / decay), **rest, metadata=metadata)
    if model.name == "cuba-lif" and 0 < told["decay"] <= 1 and 0 < told["current_decay"] <= 1:
        kind = nir.CubaLI if silent else nir.CubaLIF
        membrane, synapse = told["decay"], told["current_decay"]
        times = {"tau_mem": same(dt / membrane), "tau_syn": same(dt / synapse)}
        return kind(**times, r=same(1 / membrane), w_in=same(1 / synapse), **rest, metadata=metadata)
    said = ", ".join(f"{key} {number:g}" for key, number in told.items())
    raise UserError(f"{layer.population.name}: NIR has no node of the neuron model {model.name} ({said})")


def in_order(values: Any, population: Population, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of neurons, float32, in the order and shape of a node."""
    whole = np.broadcast_to(np.asarray(values, dtype=np.float32), population.shape)
    return np.ascontiguousarray(whole.transpose(2, 0, 1).reshape(shape))
