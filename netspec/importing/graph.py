"""ONNX graphs, node by node: what each operation does to a linear function of populations, or that it cannot be."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from netspec.errors import UserError
from netspec.importing.builder import Builder, Step
from netspec.importing.values import NOWHERE, Choice, Value, canonical, constant_of_channels, simplified

__all__ = ["OPERATIONS", "Graph"]

HINTS = {
    "LeakyRelu": "train the network with ReLU in its place",
    "PRelu": "train the network with ReLU in its place",
    "Sigmoid": "spikes cannot be multiplied by a gate; leave it out, or train without it",
    "HardSigmoid": "spikes cannot be multiplied by a gate; leave it out, or train without it",
    "HardSwish": "train the network with ReLU or ReLU6 in its place",
    "Elu": "train the network with ReLU in its place",
    "Selu": "train the network with ReLU in its place",
    "Gelu": "train the network with ReLU in its place",
    "Erf": "it is part of a GELU; train the network with ReLU in its place",
    "Tanh": "train the network with ReLU in its place",
    "Softplus": "train the network with ReLU in its place",
    "Softmax": "only at the end of a network; attention cannot be converted",
    "LayerNormalization": "its scale depends on each image; train the network with batch norm",
    "GroupNormalization": "its scale depends on each image; train the network with batch norm",
    "InstanceNormalization": "its scale depends on each image; train the network with batch norm",
    "LRN": "its scale depends on each image; train the network without it",
    "ConvTranspose": "only networks that classify whole images are converted",
    "Resize": "only networks that classify whole images are converted",
    "LSTM": "only feed-forward networks are converted",
    "GRU": "only feed-forward networks are converted",
    "RNN": "only feed-forward networks are converted",
}

Input = Value | np.ndarray | None


@dataclass
class Node:
    """An operation with its attributes, and where it is in the source."""

    proto: onnx.NodeProto
    attributes: Mapping[str, Any]
    where: str
    name: str

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


OPERATIONS: dict[str, Callable[[Graph, Node, list[Any]], Any]] = {}


def operation(*names: str) -> Callable[[Callable], Callable]:
    """Enter a function into the table of operations."""

    def enter(function: Callable) -> Callable:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return enter


class Graph:
    """Reads a graph into a Builder.

    Parameters
    ----------
    model : onnx.ModelProto
    builder : Builder
    channels_last : bool
        Whether the graph's input is (1, height, width, channels).
    """

    def __init__(self, model: onnx.ModelProto, builder: Builder, channels_last: bool = False) -> None:
        self.builder, self.graph = builder, model.graph
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.values: dict[str, Any] = {"": None}
        for initializer in self.graph.initializer:
            self.values[initializer.name] = numpy_helper.to_array(initializer)
        (given,) = inputs(model)
        value = builder.input()
        self.values[given.name] = value.view(value.layout.transpose(0, 2, 3, 1)) if channels_last else value
        self.uses: dict[str, int] = {}
        for node in self.graph.node:
            for name in node.input if node.op_type != "Shape" else ():
                self.uses[name] = self.uses.get(name, 0) + 1
        self.dropped: list[str] = []
        self.scores = self.graph.output[0].name if len(self.graph.output) == 1 else ""  # before what is dropped

    def read(self) -> Value:
        """The value of the graph's output."""
        if len(self.graph.output) != 1:
            names = ", ".join(output.name for output in self.graph.output)
            raise UserError(f"a network with one output is needed, this one has {len(self.graph.output)}: {names}")
        for proto in self.graph.node:
            self._run(proto)
        value = self.values[self.graph.output[0].name]
        if not isinstance(value, Value):
            raise UserError("the network's output does not depend on its input")
        return value

    def _run(self, proto: onnx.NodeProto) -> None:
        inputs = [self.values[name] for name in proto.input]
        if not any(isinstance(value, Value) for value in inputs):
            found = ReferenceEvaluator(proto, opsets=self.opsets).run(
                None, {name: value for name, value in zip(proto.input, inputs, strict=True) if name}
            )
            self.values.update(zip(proto.output, found, strict=False))
            return
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in proto.attribute}
        where, name = place_of(proto)
        node = Node(proto, attributes, where, name)
        function = OPERATIONS.get(proto.op_type)
        if function is None or proto.domain not in ("", "ai.onnx"):
            hint = HINTS.get(proto.op_type, "no neuron of this project does that")
            raise UserError(f"{where}: {proto.op_type} is not supported; {hint}")
        try:
            found = function(self, node, inputs)
        except UserError as error:
            raise UserError(f"{where}: {proto.op_type} is not supported here: {error}") from error
        for name, value in zip(proto.output, found if isinstance(found, list) else [found], strict=False):
            weighted = isinstance(value, Value) and not value.chosen
            if weighted and self.uses.get(name, 0) > 1:  # else it would be computed anew for each use
                value = self.builder.relayed(value, node.name)
                self.told(node, "relay")
            self.values[name] = value

    def told(self, node: Node, became: str) -> None:
        self.builder.steps.append(Step(node.where, node.proto.op_type, became))

    def map_of(self, value: Value) -> Value:
        """As a map with its channels first; UserError if it is none."""
        found = value.as_map()
        if found is None:
            shape = "x".join(map(str, value.layout.shape[1:]))
            raise UserError(f"its input of {shape} is no image whose pixels and channels stand in order")
        return not_waiting(found)

    def either_map(self, value: Value) -> tuple[Value, Callable[[Value], Value]]:
        """As a map with its channels first, and what gives such a map the order that it had."""
        if value.layout.ndim == 4 and value.as_map() is None:
            turned = value.view(value.layout.transpose(0, 3, 1, 2)).as_map()
            if turned is not None:
                return not_waiting(turned), lambda out: out.view(out.layout.transpose(0, 2, 3, 1))
        return self.map_of(value), lambda out: out


def not_waiting(value: Value) -> Value:
    if value.pooled:
        raise UserError("it comes after a max pooling without a ReLU")
    return value


def inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What a graph is given when it runs."""
    stored = {initializer.name for initializer in model.graph.initializer}
    return [entry for entry in model.graph.input if entry.name not in stored]


def place_of(proto: onnx.NodeProto) -> tuple[str, str]:
    """The module's path and the operation's name, and a short name for what it becomes."""
    notes = {entry.key: entry.value for entry in proto.metadata_props}
    try:
        scopes = [scope for scope in ast.literal_eval(notes["pkg.torch.onnx.name_scopes"]) if scope]
    except (KeyError, ValueError, SyntaxError):
        name = proto.name or (proto.output[0] if proto.output else proto.op_type)
        return name, name
    module = scopes[-2] if len(scopes) > 1 else ""
    operation = scopes[-1] if scopes else proto.op_type.lower()
    short = module if module and not module[0].isdigit() else f"{operation}_{module}".rstrip("_")
    return (f"{module} ({operation})" if module else operation), short


def number_of(value: Any, default: float) -> float:
    """A constant number, or what stands for one that is left out."""
    if value is None:
        return default
    if isinstance(value, Value) or np.size(value) != 1:
        raise UserError("one of its numbers is no constant")
    return float(np.ravel(value)[0])


def constant(value: Any, what: str) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise UserError(f"its {what} depend on the image")
    return value


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


@operation("Identity", "Dropout", "Cast")
def passed(graph: Graph, node: Node, inputs: list[Any]) -> Any:
    return inputs[0]


@operation("Shape")
def shape(graph: Graph, node: Node, inputs: list[Any]) -> np.ndarray:
    whole = np.array(inputs[0].layout.shape, dtype=np.int64)
    return whole[node.get("start", 0) : node.get("end", len(whole))]


@operation("Conv")
def convolution(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    value, weights = graph.map_of(inputs[0]), constant(inputs[1], "weights")
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
    if not isinstance(inputs[0], Value):
        raise UserError("its first factor is no image")
    weights = constant(inputs[1], "weights")
    if weights.ndim != 2:
        raise UserError(f"its weights have {weights.ndim} dimensions")
    if inputs[0].layout.ndim == 4:  # of each pixel's channels, which stand last
        value = graph.map_of(inputs[0].view(inputs[0].layout.transpose(0, 3, 1, 2)))
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
    return rectified(graph, node, inputs[0], 0.0)


@operation("Clip")
def clip(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    low, high = (*inputs[1:], None, None)[:2]
    low = number_of(node.get("min") if low is None else low, -np.inf)
    high = number_of(node.get("max") if high is None else high, np.inf)
    if low != 0 or not high > 0:
        raise UserError(f"it clips at {low:g} and {high:g}; only ReLUs, 0 and a bound above it, are converted")
    return rectified(graph, node, inputs[0], 0.0 if high >= np.finfo(np.float32).max else high)


@operation("Max")
def maximum(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    values = [value for value in inputs if isinstance(value, Value)]
    others = [value for value in inputs if not isinstance(value, Value)]
    if len(values) != 1 or any(np.any(other) for other in others) or not others:
        raise UserError("the larger of two tensors; only ReLUs, of a tensor and 0, are converted")
    return rectified(graph, node, values[0], 0.0)


def rectified(graph: Graph, node: Node, value: Value, clip: float) -> Value:
    known = set(graph.builder.populations)
    out = graph.builder.rectified(value, node.name, clip)
    new = [population for name, population in graph.builder.populations.items() if name not in known]
    became = ", ".join(f"{p.name} {p.shape[0]}x{p.shape[1]}x{p.shape[2]}" for p in new)
    graph.told(node, became or "nothing: its input is not negative")
    return out


@operation("MaxPool")
def max_pool(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    value = inputs[0].as_map()
    if value is None or value.pooled or value.layout.ndim != 4:
        raise UserError("its input is no image, or another max pooling without a ReLU between them")
    if any(number != 1 for number in node.get("dilations", (1, 1))) or len(node.proto.output) > 1:
        raise UserError("dilation, or places of the largest")
    kernel, stride = two(node, "kernel_shape"), two(node, "strides")
    padding = padding_of(node, value.shape[1:], kernel, stride)
    padding = ceiled(node, value, kernel, stride, padding)
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
    value = graph.map_of(inputs[0])
    kernel, stride = two(node, "kernel_shape"), two(node, "strides")
    padding = padding_of(node, value.shape[1:], kernel, stride)
    if padding != ceiled(node, value, kernel, stride, padding):
        raise UserError("its last windows are incomplete (ceil_mode)")
    if padding != NOWHERE and not node.get("count_include_pad", 0):
        raise UserError("the padding does not count at the borders (count_include_pad=False)")
    graph.told(node, f"average of {kernel[0]}x{kernel[1]}")
    return graph.builder.averaged(value, kernel, stride, padding, node.name)


@operation("GlobalAveragePool")
def global_average_pool(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    value = graph.map_of(inputs[0])
    graph.told(node, f"average of {value.shape[1]}x{value.shape[2]}")
    return graph.builder.averaged(value, value.shape[1:], value.shape[1:], NOWHERE, node.name)


@operation("ReduceMean", "ReduceSum")
def reduce_mean(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    axes = node.get("axes") if len(inputs) < 2 or inputs[1] is None else constant(inputs[1], "axes").tolist()
    given = inputs[0]
    if axes is None or given.layout.ndim != 4:
        raise UserError("only means over height and width are converted")
    value, back = graph.either_map(given)
    spatial = [2, 3] if back(value) is value else [1, 2]
    if sorted(axis % 4 for axis in axes) != spatial:
        raise UserError(f"over the axes {axes}; only means over height and width are converted")
    out = graph.builder.averaged(value, value.shape[1:], value.shape[1:], NOWHERE, node.name)
    if node.proto.op_type == "ReduceSum":
        out = out.scaled(np.full(out.channels, float(value.shape[1] * value.shape[2])))
    graph.told(node, f"average of {value.shape[1]}x{value.shape[2]}")
    return back(out) if node.get("keepdims", 1) else out.view(out.layout.reshape(1, -1))


@operation("BatchNormalization")
def batch_normalization(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    if node.get("training_mode", 0):
        raise UserError("it is in training mode; call eval() before exporting")
    gain, shift, mean, variance = (constant(each, "statistics").astype(np.float64) for each in inputs[1:5])
    factor = gain / np.sqrt(variance + node.get("epsilon", 1e-5))
    along = (1, -1, *[1] * (inputs[0].layout.ndim - 2))
    out = multiplied(inputs[0], factor.reshape(along))
    graph.told(node, "folded into weights and biases")
    return added(out, (shift - mean * factor).reshape(along))


def multiplied(value: Value, factor: np.ndarray) -> Value:
    of_channels = constant_of_channels(value, factor.astype(np.float64))
    if of_channels.shape[1:] != (1, 1):
        raise UserError("it multiplies each pixel by another number")
    return value.scaled(of_channels[:, 0, 0])


def added(value: Value, bias: np.ndarray) -> Value:
    return value.shifted(constant_of_channels(value, bias.astype(np.float64)))


@operation("Mul")
def mul(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    values = [value for value in inputs if isinstance(value, Value)]
    if len(values) == 2:
        raise UserError("two tensors that depend on the image are multiplied; spikes cannot be gated")
    (factor,) = (value for value in inputs if not isinstance(value, Value))
    return multiplied(values[0], spread(factor, values[0]))


@operation("Div")
def div(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    if not isinstance(inputs[0], Value) or isinstance(inputs[1], Value):
        raise UserError("it divides by a tensor that depends on the image")
    return multiplied(inputs[0], 1 / spread(inputs[1].astype(np.float64), inputs[0]))


@operation("Neg")
def neg(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    return inputs[0].scaled(np.full(inputs[0].channels, -1.0))


def spread(given: np.ndarray, value: Value) -> np.ndarray:
    """A constant of the tensor's dimensions; UserError if it would make the tensor larger."""
    try:
        return np.broadcast_to(given, value.layout.shape)
    except ValueError as error:
        raise UserError(f"a constant of shape {given.shape} and a tensor of {value.layout.shape}") from error


@operation("Add", "Sum", "Sub")
def add(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    values = [value for value in inputs if isinstance(value, Value)]
    if node.proto.op_type == "Sub":
        minus = inputs[1]
        minus = minus.scaled(np.full(minus.channels, -1.0)) if isinstance(minus, Value) else -minus
        inputs = [inputs[0], minus]
        values = [value for value in inputs if isinstance(value, Value)]
    total = values[0]
    for other in values[1:]:
        total = summed(graph, total, other)
    for other in inputs:
        if not isinstance(other, Value):
            total = added(total, spread(other, total))
    return total


def summed(graph: Graph, one: Value, other: Value) -> Value:
    if one.layout.shape != other.layout.shape:
        raise UserError(f"tensors of {one.layout.shape[1:]} and {other.layout.shape[1:]} are added")
    if one.pooled or other.pooled:
        raise UserError("max pooling of what has no ReLU is added to something")
    if one.shape != other.shape or not np.array_equal(one.layout, other.layout):
        (one, back), (other, _) = graph.either_map(one), graph.either_map(other)
        if one.shape != other.shape:
            raise UserError("tensors whose numbers stand in different orders are added")
        one, other = back(one), back(other)
    return replace(one, terms=one.terms + other.terms, bias=simplified(one.bias + other.bias))


@operation("Concat")
def concat(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    if not all(isinstance(value, Value) for value in inputs):
        raise UserError("a constant is put beside a tensor")
    dimensions = inputs[0].layout.ndim
    if dimensions == 2:
        maps, back, channels = [vector(value) for value in inputs], lambda out: out.view(out.layout.reshape(1, -1)), 1
    else:
        found = [graph.either_map(value) for value in inputs]
        maps, back = [each for each, _ in found], found[0][1]
        channels = 1 if back(maps[0]) is maps[0] else 3
    axis = node.get("axis", 0) % dimensions
    if axis != channels or any(value.shape[1:] != maps[0].shape[1:] for value in maps):
        raise UserError(f"along axis {axis}; only channels are put beside each other")
    total, begin = sum(value.channels for value in maps), 0
    terms: list[Any] = []
    bias = np.zeros((total, *np.broadcast_shapes(*(value.bias.shape[1:] for value in maps))))
    for value in maps:
        place = np.full(total, -1)
        place[begin : begin + value.channels] = np.arange(value.channels)
        terms += [term.taken(place) for term in value.terms]
        bias[begin : begin + value.channels] = value.bias
        begin += value.channels
    graph.told(node, f"{len(maps)} populations beside each other")
    return back(Value((total, *maps[0].shape[1:]), tuple(terms), simplified(bias)))


def vector(value: Value) -> Value:
    """A vector in order."""
    order = value.layout.ravel()
    if value.shape[1:] != (1, 1) or value.pooled:
        raise UserError("flattened images are put beside each other")
    return value if np.array_equal(order, range(value.channels)) else value.taken(order)


@operation("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Split", "Expand")
def rearranged(graph: Graph, node: Node, inputs: list[Any]) -> Any:
    """What NumPy does to the tensor's numbers, it does to their places."""
    value = inputs[0]
    if not isinstance(value, Value) or any(isinstance(other, Value) for other in inputs[1:]):
        raise UserError("its shape or indices depend on the image")
    if node.proto.op_type == "Slice" and (strided := every_other(graph, value, inputs)) is not None:
        return strided
    names = [name for name in node.proto.input if name]
    given = dict(zip(names, [value.layout, *(each for each in inputs[1:] if each is not None)], strict=True))
    found = ReferenceEvaluator(node.proto, opsets=graph.opsets).run(None, given)
    views = []
    for layout in map(np.asarray, found):
        if layout.ndim < 2 or layout.shape[0] != 1:
            raise UserError(f"it makes a tensor of {layout.shape}, without one row for each image")
        view = value.view(layout)
        if layout.size < value.layout.size:  # channels that have been cut off are not carried on
            with suppress(UserError):
                cut, back = graph.either_map(view)
                view = back(cut)
        views.append(view)
    return views if len(views) > 1 else views[0]


def every_other(graph: Graph, value: Value, inputs: list[Any]) -> Value | None:
    """Every second (third, ...) pixel each way, of a map with channels first; None if it is no such slice."""
    starts, ends, axes, steps = (*inputs[1:], None, None, None)[:4]
    if steps is None or value.layout.ndim != 4 or not value.chosen or value.pooled:
        return None
    steps = dict(zip(map(int, axes if axes is not None else range(4)), map(int, steps), strict=True))
    if max(steps.values()) == 1:
        return None
    begin = dict(zip(steps, map(int, starts), strict=True))
    whole = all(
        begin[axis] == 0 and int(end) >= value.layout.shape[axis] for axis, end in zip(steps, ends, strict=True)
    )
    taken = value.as_map()
    plain = taken is not None and all(isinstance(t, Choice) and t.padding == NOWHERE for t in taken.terms)
    if taken is None or not plain or not whole or set(steps) - {2, 3}:
        return None
    down, right = steps.get(2, 1), steps.get(3, 1)
    terms = tuple(
        replace(term, stride=(term.stride[0] * down, term.stride[1] * right))
        for term in taken.terms
        if isinstance(term, Choice)
    )
    bias = taken.bias if taken.bias.shape[1:] == (1, 1) else taken.bias[:, ::down, ::right]
    height, width = taken.shape[1:]
    shape = (taken.channels, -(-height // down), -(-width // right))
    return Value(shape, terms, bias, canonical(shape))


@operation("Pad")
def pad(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    if node.get("mode", b"constant") != b"constant" or number_of((*inputs, None, None)[2], 0.0) != 0:
        raise UserError("only zeros are put around an image")
    value = inputs[0]
    pads = [int(n) for n in (node.get("pads") if len(inputs) < 2 else constant(inputs[1], "sizes"))]
    axes = [int(axis) % value.layout.ndim for axis in inputs[3]] if len(inputs) > 3 and inputs[3] is not None else None
    ends = [[0, 0] for _ in range(value.layout.ndim)]
    for place, axis in enumerate(range(value.layout.ndim) if axes is None else axes):
        ends[axis] = [pads[place], pads[place + len(pads) // 2]]
    if not any(map(any, ends)):
        return value
    given, back = graph.either_map(value)
    if back(given) is not given:
        ends = [ends[0], ends[3], ends[1], ends[2]]
    if min(map(min, ends)) < 0 or any(ends[0]):
        raise UserError("it cuts off what it should put around an image")
    (before, after), (top, bottom), (left, right) = ends[1:]
    place = np.concatenate([np.full(before, -1), np.arange(given.channels), np.full(after, -1)])
    out = given
    if (top, left, bottom, right) != NOWHERE:
        if not given.chosen:
            out = graph.builder.relayed(given, node.name)
        terms = tuple(
            replace(term, padding=tuple(np.add(term.padding, (top, left, bottom, right)).tolist()))
            for term in out.terms
            if isinstance(term, Choice)
        )
        around = ((0, 0), (top, bottom), (left, right))
        bias = simplified(np.pad(out.full_bias, around)) if out.bias.any() else out.bias
        out = Value((out.channels, out.shape[1] + top + bottom, out.shape[2] + left + right), terms, bias)
    graph.told(node, f"zeros around: {top}, {left}, {bottom}, {right}")
    return back(out.taken(place) if before or after else out)


@operation("Softmax", "LogSoftmax")
def softmax(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """At the end alone: it does not change the class."""
    if node.proto.output[0] not in {output.name for output in graph.graph.output}:
        uses = graph.uses.get(node.proto.output[0], 0)
        follow = [n for n in graph.graph.node if node.proto.output[0] in n.input]
        if uses != 1 or follow[0].op_type not in ("Identity", "Reshape", "Squeeze", "Flatten"):
            raise UserError(HINTS["Softmax"])
    graph.dropped.append(node.proto.op_type)
    graph.scores = node.proto.input[0]
    graph.told(node, "dropped: it does not change the class")
    return inputs[0]
