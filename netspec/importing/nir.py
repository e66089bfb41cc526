"""Graphs of NIR, the exchange format of spiking networks (Pedersen et al. 2024), as a checkpoint and a conversion.

A signal between two populations is a linear function of spikes, as between two ReLUs of an ANN: convolutions, dense
layers, scales and pooling become projections, and each node of neurons ends a population.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from netspec.checkpoint import Checkpoint, check
from netspec.conversion import CODINGS, Conversion
from netspec.conversion import check as check_conversion
from netspec.errors import UserError
from netspec.importing.builder import OUTPUT, Builder, Step
from netspec.importing.nir_graph import ENDS, NirNode, PlainGraph, read_graph
from netspec.importing.nir_layers import LAYERS, added, flattened_dimensions, multiplied, shape_text
from netspec.importing.nir_neurons import NEURONS, Neurons, per_neuron
from netspec.importing.support import support_table
from netspec.importing.values import Value
from netspec.thresholds import RESETS

__all__ = ["SPIKES", "ImportedNir", "from_nir", "nodes_table"]

OURS = "going-deeper-in-brian2"
SPIKES = ("1", "1/dt")  # what the signal of a spike is in its step
TIMED = ("LI", "LIF", "CubaLI", "CubaLIF")  # with time constants
PASSING = ("Input", "Output", "Flatten")
GRAPHS = {
    "Input": "The network's input: signed events, an image, or a vector.",
    "Output": "The neurons before it are the network's output.",
    "NIRGraph": "Graphs in graphs are unfolded.",
}
HINTS = {
    "Delay": "a spike crosses all layers within a step",
    "Threshold": "give it a neuron",
}


@dataclass(frozen=True)
class ImportedNir:
    """A spiking network that was brought in: without an ANN, but with the conversion that it is.

    Parameters
    ----------
    checkpoint : Checkpoint
    conversion : Conversion
    steps : tuple of Step
        What each node became.
    notes : tuple of str
        What was taken for granted, a line each.
    """

    checkpoint: Checkpoint
    conversion: Conversion
    steps: tuple[Step, ...]
    notes: tuple[str, ...]


def from_nir(
    source: Any,
    reset: str | None = None,
    dt: float | None = None,
    spike: str = SPIKES[0],
    name: str = "",
    classes: Sequence[str] | None = None,
) -> ImportedNir:
    """Bring in a graph of NIR.

    Parameters
    ----------
    source : path or nir.NIRGraph
    reset : {'zero', 'subtract'}, optional
        By default to ``v_reset``, as NIR says; of files of this project what their metadata tell.
    dt : float, optional
        What a step lasts, in the unit of the time constants. By default what the metadata tell, or such that ``r dt``
        is 1; graphs with time constants need it.
    spike : {'1', '1/dt'}
        What the signal of a spike is in its step: 1, as the simulators have it, or such that its integral is 1.
    name : str
        By default that of the file.
    classes : sequence of str, optional
        By default ``'0'``, ``'1'``, ...

    Raises
    ------
    UserError
        If the file is damaged, its shapes contradict each other, or a node is not supported; the message names it.
    """
    if spike not in SPIKES:
        raise UserError(f"the signal of a spike is one of {', '.join(SPIKES)}, got {spike}")
    graph = read_graph(source)
    name = name or (Path(source).stem if isinstance(source, (str, Path)) else str(graph.metadata.get("network", "nir")))
    return _Reader(graph, name, reset, dt, spike).imported(classes)


def nodes_table() -> str:
    """What is supported, from the functions that do it, as Markdown."""
    said = {kind: (function.__doc__ or "").strip() for kind, function in (LAYERS | NEURONS).items()}
    return support_table("node of NIR", "what becomes of it", GRAPHS | said)


@dataclass
class _Reader:
    """A network in the making, node by node."""

    graph: PlainGraph
    name: str
    asked: str | None
    asked_dt: float | None
    spike: str
    values: dict[str, Value] = field(default_factory=dict)
    neurons: dict[str, Neurons] = field(default_factory=dict)  # by the names of populations
    initial: dict[str, np.ndarray] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        inputs, outputs = ([n for n in self.graph.nodes.values() if self._is_end(n, kind)] for kind in ENDS)
        for found, what in ((inputs, "Input"), (outputs, "Output")):
            if len(found) != 1:
                told = ", ".join(node.name for node in found) or "none"
                raise UserError(f"a graph with one {what} is needed; those of this one: {told}")
        self.input, self.output = inputs[0], outputs[0]
        self.ours = str(self.graph.metadata.get("software", "")).startswith(OURS)
        self.dt = self._step()
        self.size = 1.0 if self.spike == SPIKES[0] else 1 / self.dt
        self.reset = self._reset()
        self.last = self._last()

    def _is_end(self, node: NirNode, kind: str) -> bool:
        beside = self.graph.before[node.name] if kind == "Input" else self.graph.after(node.name)
        return node.kind == kind and not beside

    def _step(self) -> float:
        """What a step lasts."""
        nodes = self.graph.nodes.values()
        said = self.asked_dt if self.asked_dt is not None else self.graph.metadata.get("dt") if self.ours else None
        if isinstance(said, (int, float, np.number)) and not isinstance(said, bool):
            if not 0 < said < np.inf:
                raise UserError(f"a step must last longer than 0, got {said}")
            return float(said)
        timed = [node.name for node in nodes if node.kind in TIMED]
        if timed:
            raise UserError(
                f"{timed[0]} has time constants, and NIR has no time step; give dt: 1e-4 as snnTorch and "
                "SpikingJelly have it, 1e-3 as norse, 1 where they are told in steps, as by sinabs"
            )
        r = np.unique([number for node in nodes if node.kind in NEURONS for number in node.numbers("r").ravel()] or 1.0)
        if len(r) != 1 or r[0] <= 0:
            raise UserError(f"r is from {r[0]:g} to {r[-1]:g}, and NIR has no time step; give dt")
        self.notes.append(f"a step lasts {1 / r[0]:g}, so that r dt is 1 (dt is for others)")
        return float(1 / r[0])

    def _reset(self) -> str:
        if self.asked:
            return self.asked
        if self.ours and self.graph.metadata.get("reset") in RESETS:
            return str(self.graph.metadata["reset"])
        silent = [n.name for n in self.graph.nodes.values() if n.kind.endswith("IF") and "v_reset" not in n.fields]
        why = "an older file, which does not say" if silent else "as the file says"
        self.notes.append(
            f"reset: to v_reset, {why}; NIR cannot say 'by subtraction', as sinabs has it, snnTorch if not told "
            "otherwise, and SpikingJelly with v_reset=None: then reset subtract"
        )
        return "zero"

    def _last(self) -> str:
        """The neurons whose spikes are the graph's output, and nothing else's input; '' if there are none."""
        name = self.output.name
        while self.graph.nodes[name].kind in PASSING and len(self.graph.before[name]) == 1:
            (name,) = self.graph.before[name]
            if len(self.graph.after(name)) != 1:
                return ""
        return name if self.graph.nodes[name].kind in NEURONS else ""

    def imported(self, classes: Sequence[str] | None) -> ImportedNir:
        shape = self.input.shape("shape")
        plane = (shape[0], 1, 1) if len(shape) == 1 else (shape[0], 1, shape[1]) if len(shape) == 2 else shape
        self.builder = Builder((plane[0], plane[1], plane[2]), self.size)
        start = self.builder.input()
        self.values[self.input.name] = start.view(start.layout.reshape(1, *shape))
        for node in self.graph.nodes.values():
            if node is not self.input:
                try:
                    self.values[node.name] = self._read(node)
                except UserError as error:
                    told = str(error).removeprefix(f"{node.where}: ")
                    raise UserError(f"{node.where}: {told}") from error
        end = self.values[self.output.name]
        if OUTPUT not in self.builder.populations:
            self.builder.neurons(end, OUTPUT, last=True)
            self.neurons[OUTPUT] = Neurons(np.ones(end.shape), np.full(end.shape, np.inf), np.zeros(end.shape))
            self.notes.append("no neurons give the graph's output: that of the network adds it up, and does not fire")
        return self._finished(end, classes)

    def _finished(self, end: Value, classes: Sequence[str] | None) -> ImportedNir:
        n = end.layout.size
        called = tuple(classes) if classes else tuple(map(str, range(n)))
        if len(called) != n:
            raise UserError(f"{len(called)} classes, but the network has {n} outputs")
        place = np.argsort(end.layout.ravel()).reshape(end.shape).transpose(1, 2, 0).ravel()
        info = {"imported": self.name, "spiking": True}
        ordered = tuple(called[k] for k in place)
        mean, gain = self._input_coding()
        network = self.builder.finished(self.name, mean, gain, ordered, info)
        check(network, self.name)
        thresholds = {p.name: fewest(self.neurons[p.name].threshold) for p in network.spec.spiking}
        models = {}
        for population in network.spec.spiking:
            neurons = self.neurons[population.name]
            if neurons.model != "if":
                models[population.name] = {"name": neurons.model, "parameters": neurons.parameters}
        kept = {key: array for key, array in self.initial.items() if key in thresholds}
        said = self.graph.metadata if self.ours else {}
        coding, delay = said.get("coding"), said.get("delay")
        conversion = Conversion(
            network.digest, "nir", thresholds, constant=dict(network.biases), initial=kept,
            coding=coding if coding in CODINGS else CODINGS[0], reset=self.reset, models=models, 
            delay=delay if isinstance(delay, float) and 0 <= delay < 1 else 0.0,
            made={"source": self.name, "dt": self.dt, "spike": self.spike},
        )  # fmt: skip
        check_conversion(conversion, network.spec, self.name)
        return ImportedNir(network, conversion, tuple(self.steps), tuple(self.notes))

    def _input_coding(self) -> tuple[np.ndarray, Any]:
        """By which images become inputs: as in a file of this project, else pixels divided by 255."""
        said = self.graph.metadata if self.ours else {}
        if not {"mean", "gain"} <= set(said):
            return np.zeros((1, 1, 1)), 1.0
        try:
            mean, gain = (np.asarray(said[name], dtype=np.float64) for name in ("mean", "gain"))
        except (TypeError, ValueError) as error:
            raise UserError(f"{self.name}: mean and gain in the metadata are no numbers") from error
        return mean.astype(np.float32), tuple(gain.tolist()) if gain.ndim else float(gain)

    def _read(self, node: NirNode) -> Value:
        before = self.graph.before[node.name]
        if not before:
            raise UserError("no edge leads to it")
        value = added(self.builder, [self.values[name] for name in before], node.name)
        if node.kind in NEURONS:
            return self._fire(node, value)
        if node.kind in ENDS:
            if "shape" in node.fields and node.shape("shape") != value.layout.shape[1:]:
                raise UserError(f"its shape is {node.shape('shape')}, what reaches it is {value.layout.shape[1:]}")
            return value
        if node.kind not in LAYERS:
            raise UserError(f"nodes of type {node.kind} are not supported; {HINTS.get(node.kind, 'NIR has none such')}")
        if node.kind == "Flatten":
            node = self._without_batch(node, value)
        out = LAYERS[node.kind](self.builder, node, value)
        self._told(node, became(node, out))
        if not out.chosen and len(self.graph.after(node.name)) > 1:  # else it would be computed anew for each
            out = self.builder.relayed(out, f"{node.name}_sum")
        return out

    def _without_batch(self, node: NirNode, value: Value) -> NirNode:
        """A Flatten node as NIR has it; some count the batch as its first dimension, which the layers after it tell."""
        shapes = [np.shape(self.graph.nodes[name].fields.get("weight", 0)) for name in self.graph.after(node.name)]
        fits = bool(shapes) and all(len(shape) == 2 and shape[1] == value.layout.size for shape in shapes)
        if not (fits and flattened_dimensions(node) == (1, -1) and value.layout.ndim > 2):
            return node
        self.notes.append(f"{node.name}: its dimensions count the batch, else what comes after it would not fit")
        return replace(node, fields={**node.fields, "start_dim": 0})

    def _fire(self, node: NirNode, value: Value) -> Value:
        found = NEURONS[node.kind](node, value, self.dt)
        if (found.gain != 1).any():
            flat = found.gain.ravel()[value.layout.ravel()].reshape(value.layout.shape)
            value = multiplied(value, flat, "r dt")
        last = node.name == self.last
        if np.isinf(found.threshold).all() and not last:
            raise UserError("its potential is no output of the graph; only read-outs may be neurons that do not fire")
        own, spikes = self.builder.neurons(value, node.name, last)
        if found.reset.any():
            if self.reset == "zero":
                found = with_reset(found)
            else:
                self.notes.append(
                    f"{node.name}: v_reset, which is not where v rests, is left out: spikes subtract v_threshold"
                )
        self.neurons[own] = found
        metadata = node.fields.get("metadata")
        if self.ours and isinstance(metadata, dict) and "initial" in metadata:
            start = per_neuron(NirNode(node.name, node.kind, metadata), value, "initial")
            self.initial[own] = start.transpose(1, 2, 0).astype(np.float32)
        said = f" with {', '.join(f'{key} {number:g}' for key, number in found.parameters.items())}"
        self._told(node, f"{own}, {shape_text(value)}, model {found.model}{said if found.parameters else ''}")
        return replace(spikes, terms=spikes.scaled(np.full(spikes.channels, self.size)).terms)

    def _told(self, node: NirNode, became: str) -> None:
        self.steps.append(Step(node.name, node.kind, became))


def with_reset(neurons: Neurons) -> Neurons:
    """Neurons that a spike sets to another potential than rest."""
    reset = np.unique(neurons.reset)
    if len(reset) != 1:
        raise UserError("its v_reset differs between neurons; a population has one")
    model = "lif" if neurons.model == "if" else neurons.model
    parameters = ({"decay": 0.0} if neurons.model == "if" else neurons.parameters) | {"v_reset": float(reset[0])}
    return replace(neurons, model=model, parameters=parameters)


def fewest(values: np.ndarray) -> Any:
    """Numbers (channels, height, width) as one, one of each channel, or of each neuron (height, width, channels)."""
    if (values == values.flat[0]).all():
        return float(values.flat[0])
    by_channel = values[:, 0, 0]
    whole = (values != by_channel[:, None, None]).any()
    return (values.transpose(1, 2, 0) if whole else by_channel).astype(np.float32)


def became(node: NirNode, value: Value) -> str:
    if "weight" not in node.fields:
        return shape_text(value)
    return f"{'x'.join(map(str, np.shape(node.fields['weight'])))} gives {shape_text(value)}"
