"""Operations of a layer: convolutions, linear layers, ReLUs, pooling, batch norm."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from netspec.errors import UserError
from netspec.importing.graph import Graph, Node, constant, either_map, map_of, not_waiting, number_of, table
from netspec.importing.tensors import added, multiplied
from netspec.importing.values import NOWHERE, Value

__all__ = ["LAYERS"]

LAYERS, operation = table()


def padding_of(
    node: Node, size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], apart=(1, 1)
) -> Any:
    """Padding at the top, left, bottom and right."""
    auto = node.get("auto_pad", b"NOTSET").decode()
    if auto in ("NOTSET", ""):
        return tuple(int(side) for side in node.get("pads", NOWHERE))
    if auto == "VALID":
        return NOWHERE
    begin, end = [], []
    for along, side, step, d in zip(size, kernel, stride, apart, strict=True):
        whole = max((-(-along // step) - 1) * step + (side - 1) * d + 1 - along, 0)
        less, more = whole // 2, whole - whole // 2
        begin.append(more if auto == "SAME_LOWER" else less)
        end.append(less if auto == "SAME_LOWER" else more)
    return (*begin, *end)


def two(node: Node, name: str, default: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    found = tuple(int(number) for number in node.get(name, default))
    if len(found) != 2:
        raise UserError(f"only images of two dimensions are converted, {name} has {len(found)}")
    return found


@operation("Conv")
def convolution(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Any kernel, stride, padding (one-sided, same, valid), dilation, groups, bias."""
    value, weights = map_of(inputs[0]), constant(inputs[1], "weights")
    if weights.ndim != 4:
        raise UserError(f"only images of two dimensions are converted, the kernel has {weights.ndim - 2}")
    stride, apart = two(node, "strides"), two(node, "dilations")
    padding = padding_of(node, value.shape[1:], weights.shape[2:], stride, apart)
    options = {"stride": stride, "padding": padding, "dilation": apart, "groups": node.get("group", 1)}
    out = graph.builder.convolution(value, weights, options, node.name)
    if len(inputs) > 2 and inputs[2] is not None:
        out = out.shifted(constant(inputs[2], "biases").astype(np.float64)[:, None, None])
    graph.told(node, f"{'x'.join(map(str, weights.shape))}" + (" with bias" if out.bias.any() else ""))
    return out


@operation("Gemm")
def gemm(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """A linear layer of a vector, with bias."""
    if node.get("transA", 0) or not isinstance(inputs[0], Value):
        raise UserError("its first factor is transposed, or no image")
    weights = constant(inputs[1], "weights")
    weights = node.get("alpha", 1.0) * (weights if node.get("transB", 0) else weights.T)
    out = dense(graph, node, inputs[0], weights)
    if len(inputs) > 2 and inputs[2] is not None:
        bias = np.broadcast_to(constant(inputs[2], "biases"), (1, len(weights)))[0]
        out = out.shifted(node.get("beta", 1.0) * bias.astype(np.float64)[:, None, None])
    return out


@operation("MatMul")
def matmul(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """A linear layer of a vector, or of the channels of each pixel where they stand last."""
    if not isinstance(inputs[0], Value):
        raise UserError("its first factor is no image")
    weights = constant(inputs[1], "weights")
    if weights.ndim != 2:
        raise UserError(f"its weights have {weights.ndim} dimensions")
    if inputs[0].layout.ndim == 4:  # of each pixel's channels, which stand last
        value = map_of(inputs[0].view(inputs[0].layout.transpose(0, 3, 1, 2)))
        options = {"stride": (1, 1), "padding": NOWHERE, "dilation": (1, 1), "groups": 1}
        out = graph.builder.convolution(value, weights.T[:, :, None, None], options, node.name)
        graph.told(node, f"{'x'.join(map(str, weights.T.shape))}x1x1")
        return out.view(out.layout.transpose(0, 2, 3, 1))
    return dense(graph, node, inputs[0], weights.T)


def dense(graph: Graph, node: Node, value: Value, weights: np.ndarray) -> Value:
    not_waiting(value)
    if value.layout.ndim != 2 or value.layout.shape[0] != 1:
        raise UserError(f"its input is no vector but of shape {value.layout.shape[1:]}")
    graph.told(node, f"dense {'x'.join(map(str, weights.shape))}")
    return graph.builder.dense(value, weights, node.name)


@operation("Relu")
def relu(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """IF neurons; nothing where the input cannot be negative."""
    return rectified(graph, node, inputs[0], 0.0)


@operation("Clip")
def clip(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """At 0 and a bound above it (ReLU6, Hardtanh): IF neurons with that bound."""
    low, high = (*inputs[1:], None, None)[:2]
    low = number_of(node.get("min") if low is None else low, -np.inf)
    high = number_of(node.get("max") if high is None else high, np.inf)
    if low <= np.finfo(np.float32).min and graph.builder.is_positive(inputs[0]):
        low = 0.0
    if low != 0 or not high > 0:
        raise UserError(f"it clips at {low:g} and {high:g}; only ReLUs, 0 and a bound above it, are converted")
    return bounded(graph, node, inputs[0], 0.0 if high >= np.finfo(np.float32).max else high)


@operation("Max")
def maximum(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Of a tensor and 0: a ReLU."""
    values = [value for value in inputs if isinstance(value, Value)]
    others = [value for value in inputs if not isinstance(value, Value)]
    if len(values) != 1 or any(np.any(other) for other in others) or not others:
        raise UserError("the larger of two tensors; only ReLUs, of a tensor and 0, are converted")
    return rectified(graph, node, values[0], 0.0)


def rectified(graph: Graph, node: Node, value: Value, clip: float) -> Value:
    known = set(graph.builder.populations)
    out = graph.builder.rectified(value, node.name, clip)
    new = [population for name, population in graph.builder.populations.items() if name not in known]
    if new and not value.pooled:
        graph.rectified[node.proto.output[0]] = new[-1].name
    became = ", ".join(f"{p.name} {p.shape[0]}x{p.shape[1]}x{p.shape[2]}" for p in new)
    graph.told(node, became or "nothing: its input is not negative")
    return out


def bounded(graph: Graph, node: Node, value: Value, clip: float) -> Value:
    """A ReLU with a bound; that of the ReLU just before it, if nothing else uses what this one gives."""
    for name in node.proto.input:
        own = graph.rectified.get(name)
        if clip and own and graph.uses[name] == 1 and not graph.builder.populations[own].clip:
            graph.builder.populations[own] = replace(graph.builder.populations[own], clip=clip)
            graph.told(node, f"the bound of {own}")
            return value
    return rectified(graph, node, value, clip)


@operation("MaxPool")
def max_pool(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Any window, stride, padding, ceil_mode, after a ReLU or before it: exact, of spikes; of one pixel: a stride."""
    value = inputs[0].as_map()
    if value is None:
        raise UserError("its input is no image")
    if any(number != 1 for number in node.get("dilations", (1, 1))) or len(node.proto.output) > 1:
        raise UserError("dilation, or places of the largest")
    kernel, stride = two(node, "kernel_shape"), two(node, "strides")
    padding = padding_of(node, value.shape[1:], kernel, stride)
    padding = ceiled(node, value, kernel, stride, padding)
    if (kernel, padding) == ((1, 1), NOWHERE) and not value.pooled:
        graph.told(node, f"one pixel of {stride[0]}x{stride[1]}")
        return graph.builder.every(value, stride, node.name)
    window = {"kernel": kernel, "stride": stride, "padding": padding}
    out = graph.builder.pooled_maximum(value, window, node.name)
    pooled = ", ".join(term.pre for term in out.terms)
    graph.told(node, f"max pooling {pooled}" if pooled else "max pooling, after the ReLU that follows")
    return out


def ceiled(node: Node, value: Value, kernel: Any, stride: Any, padding: Any) -> tuple[int, ...]:
    """The padding with which a last, incomplete window is there too, if it is asked for."""
    if not node.get("ceil_mode", 0):
        return padding
    begin, end = padding[:2], list(padding[2:])
    for axis, (size, side, step) in enumerate(zip(value.shape[1:], kernel, stride, strict=True)):
        whole = size + begin[axis] + end[axis]
        out = -(-(whole - side) // step) + 1
        if (out - 1) * step >= size + begin[axis]:  # a window that would begin in the padding
            out -= 1
        end[axis] += max((out - 1) * step + side - whole, 0)
    return (*begin, *end)


@operation("AveragePool")
def average_pool(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Any window and stride; zeros around it count."""
    value = map_of(inputs[0])
    kernel, stride = two(node, "kernel_shape"), two(node, "strides")
    if two(node, "dilations") != (1, 1):
        raise UserError("its window leaves pixels out (dilations)")
    padding = padding_of(node, value.shape[1:], kernel, stride)
    if padding != ceiled(node, value, kernel, stride, padding):
        raise UserError("its last windows are incomplete (ceil_mode)")
    if padding != NOWHERE and not node.get("count_include_pad", 0):
        raise UserError("the padding does not count at the borders (count_include_pad=False)")
    graph.told(node, f"average of {kernel[0]}x{kernel[1]}")
    return graph.builder.averaged(value, kernel, stride, padding, node.name)


@operation("GlobalAveragePool")
def global_average_pool(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Of all pixels."""
    value = map_of(inputs[0])
    graph.told(node, f"average of {value.shape[1]}x{value.shape[2]}")
    return graph.builder.averaged(value, value.shape[1:], value.shape[1:], NOWHERE, node.name)


@operation("GlobalMaxPool", "ReduceMax")
def global_max_pool(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Of all pixels."""
    axes = node.get("axes") if len(inputs) < 2 or inputs[1] is None else constant(inputs[1], "axes").tolist()
    value, back = either_map(inputs[0]) if not inputs[0].pooled else (inputs[0], lambda out: out)
    spatial = [2, 3] if back(value) is value else [1, 2]
    reduced = sorted(axis % 4 for axis in axes or ()) if node.proto.op_type == "ReduceMax" else spatial
    if value.as_map() is None or reduced != spatial:
        raise UserError("only the largest over height and width is converted")
    window = {"kernel": value.shape[1:], "stride": (1, 1), "padding": NOWHERE}
    out = graph.builder.pooled_maximum(value, window, node.name)
    graph.told(node, f"max pooling of {value.shape[1]}x{value.shape[2]}")
    return back(out) if node.get("keepdims", 1) else out.view(out.layout.reshape(1, -1))


@operation("Min")
def minimum(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Of what is not negative and a number above 0: a bound, as of Clip."""
    values = [value for value in inputs if isinstance(value, Value)]
    others = [value for value in inputs if not isinstance(value, Value)]
    if len(values) != 1 or len(others) != 1 or np.size(others[0]) != 1 or not graph.builder.is_positive(values[0]):
        raise UserError("the smaller of two tensors; only of a ReLU's and a number it is converted")
    return bounded(graph, node, values[0], number_of(others[0], np.inf))


@operation("ReduceMean", "ReduceSum")
def reduce_mean(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Over height and width, or one of them."""
    axes = node.get("axes") if len(inputs) < 2 or inputs[1] is None else constant(inputs[1], "axes").tolist()
    given = inputs[0]
    row = axes is not None and given.layout.ndim == 3 and len(axes) == 1 and axes[0] % 3
    if row:  # pixels in a row, or one channel after the other of each
        turned = given.layout if row == 2 else given.layout.transpose(0, 2, 1)
        planes = turned.shape[1] * given.shape[1] * given.shape[2] == turned.size
        shape = (1, turned.shape[1], *given.shape[1:])
        given, axes = given.view(turned.reshape(shape) if planes else turned), [2, 3]
    if axes is None or given.layout.ndim != 4:
        raise UserError("only means over height and width are converted")
    value, back = either_map(given)
    spatial = [2, 3] if back(value) is value else [1, 2]
    reduced = {axis % 4 for axis in axes}
    if not reduced or not reduced <= set(spatial):
        raise UserError(f"over the axes {axes}; only means over height and width are converted")
    height, width = (value.shape[1 + n] if axis in reduced else 1 for n, axis in enumerate(spatial))
    out = graph.builder.averaged(value, (height, width), (height, width), NOWHERE, node.name)
    if node.proto.op_type == "ReduceSum":
        out = out.scaled(np.full(out.channels, float(height * width)))
    graph.told(node, f"average of {height}x{width}")
    if node.get("keepdims", 1):
        return out.view(out.layout.reshape((1, -1, 1) if row == 2 else (1, 1, -1))) if row else back(out)
    return out.view(back(out).layout.squeeze(tuple(reduced)))


@operation("BatchNormalization")
def batch_normalization(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Folded into weights and biases, before a ReLU or after it, of a vector as well; exact at borders."""
    if node.get("training_mode", 0):
        raise UserError("it is in training mode; call eval() before exporting")
    gain, shift, mean, variance = (constant(each, "statistics").astype(np.float64) for each in inputs[1:5])
    factor = gain / np.sqrt(variance + node.get("epsilon", 1e-5))
    along = (1, -1, *[1] * (inputs[0].layout.ndim - 2))
    out = multiplied(inputs[0], factor.reshape(along))
    graph.told(node, "folded into weights and biases")
    return added(out, (shift - mean * factor).reshape(along))
