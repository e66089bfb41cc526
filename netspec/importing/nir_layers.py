"""Nodes of NIR without neurons: what each makes of a linear function of populations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from netspec.errors import UserError
from netspec.importing.builder import Builder, plane
from netspec.importing.nir_graph import NirNode, text
from netspec.importing.values import Value, constant_of_channels, simplified

__all__ = ["LAYERS", "added", "flattened_dimensions", "multiplied", "shape_text"]

Layer = Callable[[Builder, NirNode, Value], Value]


def convolution2d(builder: Builder, node: NirNode, value: Value) -> Value:
    """A convolution with its bias as constant input: any kernel, stride, padding, dilation, groups."""
    shape = node.fields.get("input_shape")
    if shape is not None and value.layout.ndim == 4 and node.shape("input_shape") != value.layout.shape[2:]:
        raise UserError(f"its input_shape is {node.shape('input_shape')}, what reaches it is {shape_text(value)}")
    return convolved(builder, node, value, 2)


def convolution1d(builder: Builder, node: NirNode, value: Value) -> Value:
    """Likewise along one axis: images of height 1."""
    if value.layout.ndim != 3:
        raise UserError(f"it needs channels and one axis, what reaches it is {shape_text(value)}")
    out = convolved(builder, node, value.view(value.layout[:, :, None]), 1)
    return out.view(out.layout[:, :, 0])


def convolved(builder: Builder, node: NirNode, value: Value, axes: int) -> Value:
    value, weights = map_of(value), node.numbers("weight")
    if weights.ndim != 2 + axes or not weights.size:
        raise UserError(f"its weight has shape {weights.shape}, not that of a convolution")
    weights = weights[:, :, None] if axes == 1 else weights
    (groups,) = node.whole("groups", 1, least=1, default=1)
    stride, dilation = (along(node, key, axes, least=1, default=1) for key in ("stride", "dilation"))
    if weights.shape[1] * groups != value.channels or len(weights) % groups:
        raise UserError(
            f"its weight has shape {weights.shape} in {groups} groups, what reaches it is {shape_text(value)}"
        )
    reach = [(side - 1) * apart for side, apart in zip(weights.shape[2:], dilation, strict=True)]
    said = text(node.fields.get("padding"))
    if isinstance(said, str):
        if said not in ("same", "valid") or (said == "same" and stride != (1, 1)):
            raise UserError(f"its padding is {said!r} with stride {stride}; 'same' needs 1")
        less = [(more if said == "same" else 0) // 2 for more in reach]
        padding = (*less, *((more if said == "same" else 0) - before for more, before in zip(reach, less, strict=True)))
    else:
        padding = along(node, "padding", axes, 0) * 2
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    size = plane(value, weights.shape[2:], stride, padding, dilation)
    if min(size) < 1:
        raise UserError(f"its kernel is larger than what reaches it, {shape_text(value)}")
    out = builder.convolution(value, weights, options, node.name)
    return biased(out, node.numbers("bias", 0.0), len(weights))


def along(node: NirNode, key: str, axes: int, least: int, default: int | None = None) -> tuple[int, int]:
    """A number for each axis; of one axis the other is left as it is."""
    numbers = node.whole(key, axes, least, default)
    return (numbers[0], numbers[1]) if axes == 2 else (least, numbers[0])


def biased(value: Value, bias: np.ndarray, n: int) -> Value:
    if bias.size not in (1, n):
        raise UserError(f"its bias has shape {bias.shape}, and {n} are needed")
    return value.shifted(np.broadcast_to(bias.ravel(), n)[:, None, None])


def dense(builder: Builder, node: NirNode, value: Value) -> Value:
    """A dense layer of a vector, with its bias as constant input."""
    weights = node.numbers("weight")
    if weights.ndim != 2 or not weights.size:
        raise UserError(f"its weight has shape {weights.shape}; only those of two dimensions are brought in")
    if value.layout.shape != (1, weights.shape[1]):
        raise UserError(f"its weight has shape {weights.shape}, what reaches it is {shape_text(value)}")
    out = builder.dense(value, weights, node.name)
    return biased(out, node.numbers("bias", 0.0), len(weights))


def scale(builder: Builder, node: NirNode, value: Value) -> Value:
    """Weights are multiplied, by one number or one of each channel."""
    factor = node.numbers("scale")
    if factor.size != 1 and factor.shape != value.layout.shape[1:]:
        raise UserError(f"its scale has shape {factor.shape}, what reaches it is {shape_text(value)}")
    return multiplied(value, factor if factor.size > 1 else factor.reshape(()), "scale")


def multiplied(value: Value, factor: np.ndarray, what: str) -> Value:
    """A signal times numbers of its shape, or one; they may differ between channels."""
    of_channels = constant_of_channels(value, factor)
    if of_channels.shape[1:] != (1, 1):
        raise UserError(f"its {what} differs within a channel")
    return value.scaled(of_channels[:, 0, 0])


def sum_pooling(builder: Builder, node: NirNode, value: Value) -> Value:
    """Part of the weights after it, or a depthwise relay."""
    return pooled(builder, node, value, total=True)


def average_pooling(builder: Builder, node: NirNode, value: Value) -> Value:
    """Likewise; zeros around the image count."""
    return pooled(builder, node, value, total=False)


def pooled(builder: Builder, node: NirNode, value: Value, total: bool) -> Value:
    value = map_of(value)
    kernel, stride = node.whole("kernel_size", 2, least=1), node.whole("stride", 2, least=1)
    padding = node.whole("padding", 2, default=0) * 2
    if min(plane(value, kernel, stride, padding)) < 1:
        raise UserError(f"its window is larger than what reaches it, {shape_text(value)}")
    sides = (kernel[0], kernel[1]), (stride[0], stride[1])
    size = kernel[0] * kernel[1]
    if not total:
        return builder.averaged(value, *sides, padding, node.name)
    if size & (size - 1) == 0:  # times a power of two: exact
        return summed(builder.averaged(value, *sides, padding, node.name), size)
    ones = np.ones((value.channels, 1, *kernel))
    options = {"stride": stride, "padding": padding, "dilation": (1, 1), "groups": value.channels}
    return builder.convolution(value, ones, options, node.name)


def summed(value: Value, size: int) -> Value:
    return value.scaled(np.full(value.channels, float(size)))


def flatten(builder: Builder, node: NirNode, value: Value) -> Value:
    """Nothing but the order of numbers."""
    shape = value.layout.shape[1:]
    first, last = flattened_dimensions(node)
    given = node.fields.get("input_type")
    if given is not None and tuple(np.ravel(given).tolist()) != shape:
        raise UserError(f"its input_type is {tuple(np.ravel(given).tolist())}, what reaches it is {shape_text(value)}")
    ends = [end + len(shape) if end < 0 else end for end in (first, last)]
    if ends == [1, len(shape)]:  # counted with the batch, as in torch
        ends = [0, len(shape) - 1]
    if not 0 <= ends[0] <= ends[1] < len(shape):
        raise UserError(f"its dimensions {first} to {last} are not there in {shape_text(value)}")
    return value.view(value.layout.reshape(1, *shape[: ends[0]], -1, *shape[ends[1] + 1 :]))


def flattened_dimensions(node: NirNode) -> tuple[int, int]:
    """The first and last dimension that a Flatten node brings together, as it has them."""
    (first,), (last,) = node.whole("start_dim", 1, least=-4, default=0), node.whole("end_dim", 1, least=-4, default=-1)
    return first, last


LAYERS: dict[str, Layer] = {
    "Conv2d": convolution2d,
    "Conv1d": convolution1d,
    "Affine": dense,
    "Linear": dense,
    "Scale": scale,
    "SumPool2d": sum_pooling,
    "AvgPool2d": average_pooling,
    "Flatten": flatten,
}


def map_of(value: Value) -> Value:
    found = value.as_map()
    if found is None:
        raise UserError(f"it needs an image, channels first; what reaches it is {shape_text(value)}")
    return found


def shape_text(value: Value) -> str:
    return "x".join(map(str, value.layout.shape[1:]))


def added(builder: Builder, values: list[Value], name: str) -> Value:
    """The sum of signals of one shape."""
    first = values[0]
    if any(value.layout.shape != first.layout.shape for value in values):
        raise UserError(
            f"signals of different shapes meet there: {' and '.join(shape_text(value) for value in values)}"
        )
    if any(not np.array_equal(value.layout, first.layout) or value.shape != first.shape for value in values):
        values = [in_plain_order(builder, value, name) for value in values]
        first = values[0]
    bias = sum((value.bias for value in values[1:]), first.bias)
    return replace(first, terms=tuple(term for value in values for term in value.terms), bias=simplified(bias))


def in_plain_order(builder: Builder, value: Value, name: str) -> Value:
    """An image as such, or a vector whose numbers stand one after another."""
    if value.layout.ndim != 2:
        return map_of(value)
    n = value.layout.size
    if value.shape == (n, 1, 1) and np.array_equal(value.layout.ravel(), np.arange(n)):
        return value
    return builder.dense(value, np.eye(n), f"{name}_vector")
