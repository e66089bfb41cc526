"""Operations on tensors as they are: sums, constants, concatenations, all that brings numbers into another order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import TensorProto

from netspec.errors import UserError
from netspec.importing.graph import Graph, Node, constant, either_map, evaluated, not_gained, number_of, table
from netspec.importing.values import NOWHERE, Choice, Value, constant_of_channels, simplified

__all__ = ["TENSORS", "added", "multiplied"]

TENSORS, operation = table()
FLOATING = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16)


@operation("Identity", "Dropout", "Cast")
def passed(graph: Graph, node: Node, inputs: list[Any]) -> Any:
    """Nothing changes."""
    if node.proto.op_type == "Dropout" and len(inputs) > 2 and inputs[2] is not None and np.any(inputs[2]):
        raise UserError("it is in training mode; call eval() before exporting")
    if node.proto.op_type == "Cast" and node.get("to") not in FLOATING:
        raise UserError("it makes whole numbers of the tensor's")
    return inputs[0]


@operation("Shape")
def shape(graph: Graph, node: Node, inputs: list[Any]) -> np.ndarray:
    """The shape of a tensor, a constant."""
    whole = np.array(inputs[0].layout.shape, dtype=np.int64)
    return whole[node.get("start", 0) : node.get("end", len(whole))]


def multiplied(value: Value, factor: np.ndarray) -> Value:
    value, back = unrepeated(value)
    of_channels = constant_of_channels(value, spread(factor, value).astype(np.float64))
    if of_channels.shape[1:] == (1, 1):
        return back(value.scaled(of_channels[:, 0, 0]))
    return back(value.gained(of_channels))


def added(value: Value, bias: np.ndarray) -> Value:
    value, back = unrepeated(value)
    return back(value.shifted(constant_of_channels(value, spread(bias, value).astype(np.float64))))


def unrepeated(value: Value) -> tuple[Value, Callable[[Value], Value]]:
    """With a channel of its own for each channel of the tensor, where some stood there several times."""
    if len(np.unique(value.layout)) == value.layout.size:
        return value, lambda out: out
    if value.layout.ndim == 2:
        return vector(value).view(np.arange(value.layout.size).reshape(1, -1)), lambda out: out
    turned = value.layout.ndim == 4 and value.as_map() is None
    found, back = either_map(value)
    return (back(found), lambda out: out) if turned else (found, lambda out: out)


@operation("Mul")
def mul(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """By a constant of each channel; of each number, if a linear layer follows."""
    values = [value for value in inputs if isinstance(value, Value)]
    if len(values) == 2:
        raise UserError("two tensors that depend on the image are multiplied; spikes cannot be gated")
    (factor,) = (value for value in inputs if not isinstance(value, Value))
    return multiplied(values[0], factor)


@operation("Div")
def div(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """By a constant of each channel; of each number, if a linear layer follows."""
    if not isinstance(inputs[0], Value) or isinstance(inputs[1], Value):
        raise UserError("it divides by a tensor that depends on the image")
    return multiplied(inputs[0], 1 / inputs[1].astype(np.float64))


@operation("Neg")
def neg(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Of all weights."""
    return inputs[0].scaled(np.full(inputs[0].channels, -1.0))


def spread(given: np.ndarray, value: Value) -> np.ndarray:
    """A constant of the tensor's dimensions; UserError if it would make the tensor larger."""
    try:
        return np.broadcast_to(given, value.layout.shape)
    except ValueError as error:
        raise UserError(f"a constant of shape {given.shape} and a tensor of {value.layout.shape}") from error


@operation("Add", "Sum", "Sub")
def add(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Of tensors (residual branches, with a ReLU after it or without), and of constants."""
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
            total = added(total, other)
    return total


def summed(graph: Graph, one: Value, other: Value) -> Value:
    if one.layout.shape != other.layout.shape:
        raise UserError(f"tensors of {one.layout.shape[1:]} and {other.layout.shape[1:]} are added")
    if one.pooled or other.pooled:
        raise UserError("max pooling of what has no ReLU is added to something")
    one, other = not_gained(one), not_gained(other)
    if one.shape != other.shape or not np.array_equal(one.layout, other.layout):
        (one, back), (other, _) = either_map(one), either_map(other)
        if one.shape != other.shape:
            raise UserError("tensors whose numbers stand in different orders are added")
        one, other = back(one), back(other)
    return replace(one, terms=one.terms + other.terms, bias=simplified(one.bias + other.bias))


@operation("Concat")
def concat(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Of channels, which stand first or last."""
    if not all(isinstance(value, Value) for value in inputs):
        raise UserError("a constant is put beside a tensor")
    dimensions = inputs[0].layout.ndim
    if dimensions == 2:
        maps, back, channels = [vector(value) for value in inputs], lambda out: out.view(out.layout.reshape(1, -1)), 1
    else:
        found = [either_map(value) for value in inputs]
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


@operation("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather", "Split", "Expand", "Tile")
def rearranged(graph: Graph, node: Node, inputs: list[Any]) -> Any:
    """Any order of the numbers; channels may be cut off or shuffled, and pixels left out by a stride."""
    value = inputs[0]
    if not isinstance(value, Value) or any(isinstance(other, Value) for other in inputs[1:]):
        raise UserError("its shape or indices depend on the image")
    if node.proto.op_type == "Slice" and (strided := every_other(graph, node, inputs)) is not None:
        return strided
    names = [name for name in node.proto.input if name]
    given = dict(zip(names, [value.layout, *(each for each in inputs[1:] if each is not None)], strict=True))
    found = evaluated(node.proto, graph.opsets, given, node.where)
    views = []
    for layout in map(np.asarray, found):
        if layout.ndim < 2 or layout.shape[0] != 1:
            raise UserError(f"it makes a tensor of {layout.shape}, and no row for each image (give squeeze its axes)")
        view = value.view(layout)
        if layout.size < value.layout.size:  # channels that have been cut off are not carried on
            with suppress(UserError):
                cut, back = either_map(view)
                view = back(cut)
        views.append(view)
    return views if len(views) > 1 else views[0]


def every_other(graph: Graph, node: Node, inputs: list[Any]) -> Value | None:
    """Every second (third, ...) pixel each way, of a map with channels first; None if it is no such slice."""
    value, starts, ends, axes, steps = (*inputs, None, None, None)[:5]
    if steps is None or value.layout.ndim != 4 or value.pooled:
        return None
    steps = dict(zip(map(int, axes if axes is not None else range(4)), map(int, steps), strict=True))
    if max(steps.values()) == 1:
        return None
    begin = dict(zip(steps, map(int, starts), strict=True))
    whole = all(
        begin[axis] == 0 and int(end) >= value.layout.shape[axis] for axis, end in zip(steps, ends, strict=True)
    )
    taken = value.as_map()
    if taken is None or not whole or set(steps) - {2, 3}:
        return None
    return graph.builder.every(taken, (steps.get(2, 1), steps.get(3, 1)), node.name)


@operation("Pad")
def pad(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """Zeros around an image, and empty channels."""
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
    given, back = either_map(value)
    if back(given) is not given:
        ends = [ends[0], ends[3], ends[1], ends[2]]
    if min(map(min, ends)) < 0 or any(ends[0]):
        raise UserError("it cuts off what it should put around an image")
    (before, after), (top, bottom), (left, right) = ends[1:]
    place = np.concatenate([np.full(before, -1), np.arange(given.channels), np.full(after, -1)])
    out = given
    if (top, left, bottom, right) != NOWHERE:
        if not all(isinstance(term, Choice) and term.stride == (1, 1) for term in given.terms):
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


@operation("Softmax", "LogSoftmax", "Sigmoid")
def dropped(graph: Graph, node: Node, inputs: list[Any]) -> Value:
    """At the end alone, where it is dropped: it does not change the class."""
    gate = node.proto.op_type == "Sigmoid"
    if not at_the_end(graph, node):
        what = "spikes cannot be multiplied by a gate; leave it out, or train without it"
        raise UserError(what if gate else "only at the end of a network; attention cannot be converted")
    shape = inputs[0].layout.shape
    if not gate and (node.get("axis", -1) % len(shape) != 1 or shape[1] != inputs[0].layout.size):
        raise UserError("it is not over the classes")
    graph.dropped.append(node.proto.op_type)
    graph.scores = node.proto.input[0]
    graph.told(node, "dropped: it does not change the class")
    return inputs[0]


def at_the_end(graph: Graph, node: Node) -> bool:
    """Whether nothing but another order of the numbers comes after it."""
    name, outputs = node.proto.output[0], {output.name for output in graph.graph.output}
    while name not in outputs:
        follow = [n for n in graph.graph.node if name in n.input]
        if [n.op_type for n in follow] not in (["Identity"], ["Reshape"], ["Squeeze"], ["Flatten"]):
            return False
        name = follow[0].output[0]
    return True
