"""ONNX graphs, node by node: what each operation does to a linear function of populations, or that it cannot be."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from netspec.errors import UserError, one_line
from netspec.importing.builder import Builder, Step
from netspec.importing.values import Value

__all__ = [
    "Graph", "Node", "constant", "either_map", "evaluated", "inputs", "map_of", "not_gained", "not_waiting",
    "number_of", "table",
]  # fmt: skip

HINTS = {
    "LeakyRelu": "train the network with ReLU in its place",
    "PRelu": "train the network with ReLU in its place",
    "HardSigmoid": "spikes cannot be multiplied by a gate; leave it out, or train without it",
    "HardSwish": "train the network with ReLU or ReLU6 in its place",
    "Elu": "train the network with ReLU in its place",
    "Selu": "train the network with ReLU in its place",
    "Gelu": "train the network with ReLU in its place",
    "Erf": "it is part of a GELU; train the network with ReLU in its place",
    "Tanh": "train the network with ReLU in its place",
    "Softplus": "train the network with ReLU in its place",
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


@dataclass
class Node:
    """An operation with its attributes, and where it is in the source."""

    proto: onnx.NodeProto
    attributes: Mapping[str, Any]
    where: str
    name: str

    def get(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)


KEEPING = (  # what a tensor may go through whose numbers were multiplied by one each, until a linear layer takes it in
    "Add", "BatchNormalization", "Cast", "Div", "Dropout", "Flatten", "Gemm", "Identity", "MatMul", "Mul", "Neg",
    "Reshape", "Shape", "Squeeze", "Sub", "Sum", "Transpose", "Unsqueeze",
)  # fmt: skip

Function = Callable[["Graph", Node, list[Any]], Any]


def table() -> tuple[dict[str, Function], Callable[..., Callable[[Function], Function]]]:
    """An empty table of operations, and a decorator that enters a function under their names."""
    functions: dict[str, Function] = {}

    def operation(*names: str) -> Callable[[Function], Function]:
        def enter(function: Function) -> Function:
            functions.update(dict.fromkeys(names, function))
            return function

        return enter

    return functions, operation


class Graph:
    """Reads a graph into a Builder.

    Parameters
    ----------
    model : onnx.ModelProto
    builder : Builder
    operations : mapping of str to callable
        What is supported: each is given the graph, the node and its inputs, a Value, a constant array or None each.
    channels_last : bool
        Whether the graph's input is (1, height, width, channels).
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        builder: Builder,
        operations: Mapping[str, Function],
        channels_last: bool = False,
    ) -> None:
        self.builder, self.graph, self.operations = builder, model.graph, operations
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.values: dict[str, Any] = {"": None}
        for initializer in self.graph.initializer:
            try:
                self.values[initializer.name] = numpy_helper.to_array(initializer)
            except Exception as error:  # its data may lie in another file
                raise UserError(f"the graph's {initializer.name} cannot be read; load it with its data") from error
        (given,) = inputs(model)
        value = builder.input()
        self.values[given.name] = value.view(value.layout.transpose(0, 2, 3, 1)) if channels_last else value
        self.uses: dict[str, int] = {}
        for node in self.graph.node:
            for name in node.input if node.op_type != "Shape" else ():
                self.uses[name] = self.uses.get(name, 0) + 1
        self.rectified: dict[str, str] = {}  # outputs of ReLUs, and their populations
        self.dropped: list[str] = []
        self.scores = self.graph.output[0].name if len(self.graph.output) == 1 else ""  # before what is dropped

    def read(self) -> Value:
        """The value of the graph's output."""
        if len(self.graph.output) != 1:
            names = ", ".join(output.name for output in self.graph.output)
            raise UserError(f"a network with one output is needed, this one has {len(self.graph.output)}: {names}")
        for proto in self.graph.node:
            self._run(proto)
        value = self.values.get(self.graph.output[0].name)
        if not isinstance(value, Value):
            raise UserError("the network's output does not depend on its input")
        return value

    def _run(self, proto: onnx.NodeProto) -> None:
        where, name = place_of(proto)
        if missing := [each for each in proto.input if each not in self.values]:
            raise UserError(f"{where}: no operation before it gives its input {missing[0]}; the graph is damaged")
        inputs = [self.values[each] for each in proto.input]
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in proto.attribute}
        if any(isinstance(attribute, onnx.GraphProto) for attribute in attributes.values()):
            raise UserError(f"{where}: {proto.op_type} is not supported; export the network without branches and loops")
        if proto.op_type.startswith("Random") or proto.op_type in ("Bernoulli", "Multinomial"):
            raise UserError(f"{where}: {proto.op_type} is not supported; a network gives the same output each time")
        if not any(isinstance(value, Value) for value in inputs):
            given = {each: value for each, value in zip(proto.input, inputs, strict=True) if each}
            self.values.update(zip(proto.output, evaluated(proto, self.opsets, given, where), strict=False))
            return
        node = Node(proto, attributes, where, name)
        function = self.operations.get(proto.op_type)
        if function is None or proto.domain not in ("", "ai.onnx"):
            hint = HINTS.get(proto.op_type, "no neuron of this project does that")
            raise UserError(f"{where}: {proto.op_type} is not supported; {hint}")
        try:
            if proto.op_type not in KEEPING:
                for value in inputs:
                    not_gained(value)
            found = function(self, node, inputs)
        except UserError as error:
            raise UserError(f"{where}: {proto.op_type} is not supported here: {error}") from error
        except (ValueError, LookupError, ArithmeticError) as error:
            told = f"{proto.op_type} does not fit what comes to it ({one_line(error)})"
            raise UserError(f"{where}: {told}; is --input what the network was made for?") from error
        for name, value in zip(proto.output, found if isinstance(found, list) else [found], strict=False):
            weighted = isinstance(value, Value) and not value.chosen
            if weighted and self.uses.get(name, 0) > 1:  # else it would be computed anew for each use
                value = self.builder.relayed(value, node.name)
                self.told(node, "relay")
            self.values[name] = value

    def told(self, node: Node, became: str) -> None:
        self.builder.steps.append(Step(node.where, node.proto.op_type, became))


def map_of(value: Value) -> Value:
    """As a map with its channels first; UserError if it is none."""
    found = value.as_map()
    if found is None:
        shape = "x".join(map(str, value.layout.shape[1:]))
        raise UserError(f"its input of {shape} is no whole image, with pixels and channels in order")
    return not_gained(not_waiting(found))


def either_map(value: Value) -> tuple[Value, Callable[[Value], Value]]:
    """As a map with its channels first, and what gives such a map the order that it had."""
    if value.layout.ndim == 4 and value.as_map() is None:
        turned = value.view(value.layout.transpose(0, 3, 1, 2)).as_map()
        if turned is not None:
            return not_waiting(turned), lambda out: out.view(out.layout.transpose(0, 2, 3, 1))
    return map_of(value), lambda out: out


def evaluated(proto: onnx.NodeProto, opsets: Mapping[str, int], given: Mapping[str, Any], where: str) -> list[Any]:
    """What an operation makes of arrays."""
    try:
        return list(ReferenceEvaluator(proto, opsets=dict(opsets)).run(None, dict(given)))
    except Exception as error:  # of any kind: the operation may be anybody's
        raise UserError(f"{where}: {proto.op_type} is not supported; onnx cannot run it") from error


def not_waiting(value: Value) -> Value:
    if value.pooled:
        raise UserError("it comes after a max pooling of what may be negative, and no ReLU is between them")
    return value


def not_gained(value: Any) -> Any:
    if isinstance(value, Value) and value.gain is not None:
        raise UserError("before it each pixel is multiplied by another number, which only a linear layer takes in")
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
