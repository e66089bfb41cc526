"""What a tensor of somebody's network is: a linear function of populations, which ReLUs and max pooling make anew.

Between two ReLUs everything is linear: convolutions, batch norm, average pooling, additions, concatenations, reshapes.
A :class:`Value` holds such a function as a sum over populations, and a map of which of its numbers stands where in the
tensor, so that reshapes, transposes and slices are those of NumPy on that map.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from netspec.errors import UserError

__all__ = [
    "NOWHERE", "Choice", "Sides", "Term", "Value", "Weighted", "canonical", "constant_of_channels", "convolved",
    "simplified", "ungrouped",
]  # fmt: skip

Sides = tuple[int, int, int, int]
NOWHERE: Sides = (0, 0, 0, 0)


@dataclass(frozen=True)
class Choice:
    """Channels of a population, each times a number.

    Parameters
    ----------
    pre : str
    index : numpy.ndarray
        For each channel, which one of pre it is; -1 for none.
    scale : numpy.ndarray
        For each channel.
    pool : int
        Averaged over windows of so many pixels each way; then only every ``stride``-th pixel; then with zeros around.
    stride : (int, int)
    padding : tuple of int
        At the top, left, bottom and right.
    """

    pre: str
    index: np.ndarray
    scale: np.ndarray
    pool: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: Sides = NOWHERE

    @property
    def used(self) -> np.ndarray:
        """The channels that are not empty."""
        return np.flatnonzero((self.index >= 0) & (self.scale != 0))

    @property
    def plain(self) -> bool:
        """Whether pixels are those of pre."""
        return (self.pool, self.stride, self.padding) == (1, (1, 1), NOWHERE)

    def taken(self, channels: np.ndarray) -> Choice:
        """Some of the channels, or all in another order; -1 for an empty one."""
        index = np.where(channels < 0, -1, self.index[channels])
        return replace(self, index=index, scale=np.where(channels < 0, 0, self.scale[channels]))

    def scaled(self, factor: np.ndarray) -> Choice:
        return replace(self, scale=self.scale * factor)

    def every(self, step: tuple[int, int]) -> Choice:
        """Every so many pixels each way; there must be no zeros around."""
        return replace(self, stride=multiplied(self.stride, step))


@dataclass(frozen=True)
class Weighted:
    """A convolution or dense layer of a population: weights as in torch, and the other options of a Projection.

    ``name`` is that of the layer.
    """

    pre: str
    weights: np.ndarray
    options: Mapping[str, Any]
    name: str = ""

    def taken(self, channels: np.ndarray) -> Weighted:
        groups, weights = self.options.get("groups", 1), self.weights
        if groups > 1:
            weights = ungrouped(weights, groups)
        weights = np.where((channels < 0).reshape(-1, *[1] * (weights.ndim - 1)), 0, weights[channels])
        return replace(self, weights=weights, options=dict(self.options) | ({"groups": 1} if groups > 1 else {}))

    def scaled(self, factor: np.ndarray) -> Weighted:
        return replace(self, weights=self.weights * factor.reshape(-1, *[1] * (self.weights.ndim - 1)))

    def every(self, step: tuple[int, int]) -> Weighted:
        """Every so many pixels each way; a dense layer has one."""
        if "stride" not in self.options:
            return self
        return replace(self, options=dict(self.options) | {"stride": multiplied(self.options["stride"], step)})


Term = Choice | Weighted


@dataclass(frozen=True)
class Value:
    """A tensor: the sum of terms and a bias, (channels, height, width), and where each of its numbers stands.

    Parameters
    ----------
    shape : tuple of int
        Channels, height and width.
    terms : tuple of Term
    bias : numpy.ndarray
        Of ``shape``, or (channels, 1, 1).
    layout : numpy.ndarray
        Of the tensor's shape, with 1 for the batch: places in the flat ``shape``.
    pooled : tuple, optional
        A Value without ReLU, and the window of the max pooling of it that this is; there are no terms then.
    gain : numpy.ndarray, optional
        Of ``shape``: what each number of the terms' sum is multiplied by, if it is not the same in a whole channel. It
        waits for the linear layer that takes it into its weights.
    """

    shape: tuple[int, int, int]
    terms: tuple[Term, ...]
    bias: np.ndarray
    layout: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pooled: tuple[Value, Mapping[str, Any]] | None = None
    gain: np.ndarray | None = None

    def __post_init__(self) -> None:
        if not self.layout.size:
            object.__setattr__(self, "layout", canonical(self.shape))
        there = tuple(term for term in self.terms if isinstance(term, Weighted) or len(term.used))
        object.__setattr__(self, "terms", there)

    @property
    def channels(self) -> int:
        return self.shape[0]

    @property
    def chosen(self) -> bool:
        """Whether it has no weights."""
        return all(isinstance(term, Choice) for term in self.terms)

    @property
    def full_bias(self) -> np.ndarray:
        return np.broadcast_to(self.bias, self.shape)

    def view(self, layout: np.ndarray) -> Value:
        """The same numbers in another order."""
        return replace(self, layout=np.ascontiguousarray(layout))

    def taken(self, channels: np.ndarray) -> Value:
        """A map of some of the channels, in this order; -1 for empty ones."""
        bias = np.where((channels < 0)[:, None, None], 0, self.bias[channels])
        terms = tuple(term.taken(channels) for term in self.terms)
        return Value((len(channels), *self.shape[1:]), terms, bias)

    def scaled(self, factor: np.ndarray) -> Value:
        """Each channel times a number."""
        if self.pooled:
            if not (factor > 0).all():
                raise UserError("max pooling of what has no ReLU is multiplied by numbers that are not positive")
            return replace(self, pooled=(self.pooled[0].scaled(factor), self.pooled[1]))
        terms = tuple(term.scaled(factor) for term in self.terms)
        return replace(self, terms=terms, bias=self.bias * factor[:, None, None])

    def gained(self, factor: np.ndarray) -> Value:
        """Each number times one of its own."""
        if self.pooled:
            raise UserError("max pooling of what has no ReLU is multiplied by another number at each pixel")
        gain = factor if self.gain is None else self.gain * factor
        return replace(self, gain=np.broadcast_to(gain, self.shape), bias=simplified(self.bias * factor))

    def shifted(self, bias: np.ndarray) -> Value:
        """With (channels, 1, 1) or (channels, height, width) added."""
        if self.pooled:
            if bias.shape[1:] != (1, 1):
                raise UserError("max pooling of what has no ReLU gets another bias at each pixel")
            return replace(self, pooled=(self.pooled[0].shifted(bias), self.pooled[1]))
        return replace(self, bias=simplified(self.bias + bias))

    def as_map(self) -> Value | None:
        """As images, channels first or last, without any order of its own; None if it is not."""
        if self.layout.ndim != 4 or self.pooled:
            return self if self.pooled and np.array_equal(self.layout, canonical(self.shape)) else None
        channels, height, width = self.shape
        first, plane = self.layout[0, :, 0, 0], np.arange(height * width).reshape(height, width)
        if not np.array_equal(self.layout[0], first[:, None, None] + plane) or (first % plane.size).any():
            return None
        order = first // plane.size
        return (
            replace(self, layout=canonical(self.shape)) if np.array_equal(order, range(channels)) else self.taken(order)
        )


def multiplied(stride: tuple[int, int], step: tuple[int, int]) -> tuple[int, int]:
    return stride[0] * step[0], stride[1] * step[1]


def canonical(shape: tuple[int, int, int]) -> np.ndarray:
    """The layout of a map with its channels first."""
    return np.arange(int(np.prod(shape)), dtype=np.int64).reshape(1, *shape)


def simplified(bias: np.ndarray) -> np.ndarray:
    """One number a channel, if it is the same at all pixels."""
    return bias[:, :1, :1] if (bias == bias[:, :1, :1]).all() else bias


def constant_of_channels(value: Value, constant: np.ndarray) -> np.ndarray:
    """A constant that is added to a tensor or multiplies it, for its channels: (channels, 1, 1), or at each pixel."""
    flat: np.ndarray
    spread = np.broadcast_to(constant, value.layout.shape)
    flat = np.zeros(int(np.prod(value.shape)))
    flat[value.layout.ravel()] = spread.ravel()
    if len(np.unique(value.layout)) < len(flat):  # what has been cut off takes any number
        shaped, there = flat.reshape(value.shape), np.zeros(len(flat), dtype=bool)
        there[value.layout.ravel()] = True
        there = there.reshape(value.shape)
        for channel, known in zip(shaped, there, strict=True):
            channel[~known] = channel[known][0] if known.any() else 0
        flat = shaped
    return simplified(flat.reshape(value.shape))


def ungrouped(weights: np.ndarray, groups: int) -> np.ndarray:
    """The weights of a convolution in groups as of one without."""
    whole = np.zeros((len(weights), weights.shape[1] * groups, *weights.shape[2:]))
    rows, within = len(weights) // groups, weights.shape[1]
    for group in range(groups):
        own = slice(group * rows, (group + 1) * rows)
        whole[own, group * within : (group + 1) * within] = weights[own]
    return whole


def convolved(bias: np.ndarray, weights: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """The convolution of a bias (channels, height, width), with zeros around it."""
    top, left, bottom, right = options["padding"]
    x = F.pad(torch.from_numpy(np.array(bias, dtype=np.float64))[None], (left, right, top, bottom))
    weight, stride = torch.from_numpy(np.array(weights, dtype=np.float64)), options["stride"]
    out = F.conv2d(x, weight, None, stride, 0, options["dilation"], options["groups"])
    return simplified(out[0].numpy())
