"""Neurons of this project as nodes of NIR."""

from typing import Any

import numpy as np

from netspec.conversion import Conversion
from netspec.errors import UserError
from netspec.spec import Population

__all__ = ["neuron_node", "reduced"]


def reduced(values: Any, population: Population) -> np.ndarray:
    """Numbers of neurons in as few as tell them, float32: (), (channels,) or (height, width, channels)."""
    whole = np.broadcast_to(np.asarray(values, dtype=np.float32), population.shape)
    if not (whole == whole[:1, :1]).all():
        return whole
    return whole[0, 0] if (whole != whole[0, 0, 0]).any() else np.array(whole[0, 0, 0])


def neuron_node(
    nir: Any, conversion: Conversion, population: Population, threshold: np.ndarray, fold: np.ndarray,
    shape: tuple[int, ...], dt: float,
) -> Any:  # fmt: skip
    """The node of a population.

    Parameters
    ----------
    nir : module
    conversion : Conversion
    population : Population
    threshold : numpy.ndarray
        In the unit of the weights that are written; (), or (height, width, channels).
    fold : numpy.ndarray
        By what potentials of each channel were divided.
    shape : tuple of int
        Of the node: (channels, height, width), or (neurons,).
    dt : float
        What a step lasts.
    """
    name = population.name
    if conversion.model != "if":
        raise UserError(f"{name}: NIR has no node of the neuron model {conversion.model}")
    r = np.full(shape, 1 / dt, dtype=np.float32)
    metadata = {}
    if np.any(initial := conversion.initial.get(name, 0.0)):
        metadata["initial"] = in_order(np.broadcast_to(initial, population.shape) / fold, population, shape)
    if np.isinf(threshold).all():
        return nir.I(r, metadata=metadata)
    level = np.nextafter(in_order(threshold, population, shape), np.float32(0))
    return nir.IF(r, level, np.zeros(shape, dtype=np.float32), metadata=metadata)


def in_order(values: Any, population: Population, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of neurons, float32, in the order and shape of a node."""
    whole = np.broadcast_to(np.asarray(values, dtype=np.float32), population.shape)
    return np.ascontiguousarray(whole.transpose(2, 0, 1).reshape(shape))
