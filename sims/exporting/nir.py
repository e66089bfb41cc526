"""Converted networks as graphs of NIR, the exchange format of simulators and neuromorphic chips (Pedersen et al. 2024).

A spike has size 1 in NIR, so spike values are multiplied into the weights that spikes cross; thresholds that differ
between the channels of a population divide the weights that lead to it. NIR fires at ``v > v_threshold``, this project
at ``v >= threshold``: what is written is the next smaller number. Pixels are (channels, height, width).
"""

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from netspec import __version__
from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.errors import UserError
from netspec.files import write_atomically
from netspec.importing.values import ungrouped
from netspec.spec import Population, Projection, both, sides
from sims.exporting.nir_neurons import Layer, neuron_node, reduced
from sims.simulation.geometry import dilated
from sims.simulation.neuron_models import conversion_models

__all__ = ["POOLS", "Exported", "to_nir", "write_nir"]

POOLS = ("sum", "avg")  # nodes of pooling: sinabs and norse read the first, SpikingJelly and snnTorch the second
MISSING = "NIR is written with the package nir: pip install nir"


@dataclass(frozen=True)
class Exported:
    """A graph, and what NIR cannot say of the network, a line each."""

    graph: Any
    notes: tuple[str, ...]


def to_nir(network: Checkpoint, conversion: Conversion, pool: str = "sum", dt: float = 1.0) -> Exported:
    """The spiking network that a conversion makes of a checkpoint, as a ``nir.NIRGraph`` with notes.

    Parameters
    ----------
    network : Checkpoint
    conversion : Conversion
    pool : {'sum', 'avg'}
        Node of average pooling; of sums the weights after them are divided by the window's size.
    dt : float
        What a step is to last: ``r`` of IF nodes is ``1 / dt``, and time constants are in its unit.

    Raises
    ------
    UserError
        If NIR has no node for a part of the network, or the package nir is not installed.
    """
    if pool not in POOLS:
        raise UserError(f"pool must be one of {', '.join(POOLS)}, got {pool!r}")
    return _Writer(load_nir(), network, conversion, pool, dt).exported()


def write_nir(exported: Exported, path: str | os.PathLike) -> None:
    """Write a graph, whole or not at all."""
    buffer = io.BytesIO()
    load_nir().write(buffer, exported.graph)
    write_atomically(path, buffer.getvalue())


def load_nir() -> Any:
    try:
        return import_module("nir")
    except ImportError as error:
        raise UserError(f"{MISSING} ({error.name} is missing)") from error


@dataclass
class _Writer:
    """A graph in the making: for each population the nodes whose sum is its signal, and whether that is a vector."""

    nir: Any
    network: Checkpoint
    conversion: Conversion
    pool: str
    dt: float
    nodes: dict[str, Any] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    sources: dict[str, list[str]] = field(default_factory=dict)
    flat: dict[str, bool] = field(default_factory=dict)
    rounded: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Which signals are vectors, as an Affine node's are, and no images."""
        spec = self.network.spec
        self.models = conversion_models(None, self.conversion, spec)
        dense = all(p.kind == "dense" for p in spec.outgoing(spec.input.name))
        self.flat = {spec.input.name: dense and spec.input.shape[:2] == (1, 1)}
        for population in spec.populations[1:]:
            incoming = spec.incoming(population.name)
            self.flat[population.name] = any(p.kind == "dense" or self.flat[p.pre] for p in incoming)

    def exported(self) -> Exported:
        spec = self.network.spec
        self.nodes[spec.input.name] = self.nir.Input({"input": np.array(self._shape(spec.input))})
        self.sources[spec.input.name] = [spec.input.name]
        leading = self._leading()
        for population in spec.populations[1:]:
            if population.name in leading:
                self._population(population)
        if idle := [population.name for population in spec.populations if population.name not in leading]:
            self.notes.append(f"left out, since nothing of them reaches the output: {', '.join(idle)}")
        out = self._free("output" if spec.output.name != "output" else "out")
        (last,) = self.sources[spec.output.name]
        self.nodes[out] = self.nir.Output({"output": np.array(self._shape(spec.output))})
        self.edges.append((last, out))
        self._say()
        gain = self.network.gain
        metadata = {
            "software": f"going-deeper-in-brian2 {__version__}",
            "network": spec.name,
            "reset": self.conversion.reset,
            "coding": self.conversion.coding,
            "delay": self.conversion.delay,
            "dt": self.dt,
            "mean": np.asarray(self.network.mean, dtype=np.float32),
            "gain": np.asarray(gain, dtype=np.float64) if isinstance(gain, tuple) else float(gain),
        }
        graph = self.nir.NIRGraph(self.nodes, self.edges, metadata, type_check=False)
        kernels = [node.weight.shape[2:] for node in self.nodes.values() if isinstance(node, self.nir.Conv2d)]
        if all(height == width for height, width in kernels):
            graph.infer_types()
            graph.check_types()
        else:  # nir takes kernels to be square
            self.notes.append("kernels are not square: nir's own readers need type_check=False")
        return Exported(graph, tuple(self.notes))

    def _leading(self) -> set[str]:
        """The populations from which a way leads to the output."""
        spec = self.network.spec
        found, todo = {spec.input.name}, [spec.output.name]
        while todo:
            found.add(todo[-1])
            todo += [projection.pre for projection in spec.incoming(todo.pop()) if projection.pre not in found]
        return found

    def _say(self) -> None:
        """What is lost or rounded on the way."""
        if not self.network.spiking:
            self.notes.append("the input is (pixel / 255 - mean) * gain, cut off at 1: both are in the metadata")
        if self.conversion.reset == "subtract":
            self.notes.append(
                "reset by subtraction: NIR cannot say so; v_reset is 0, the metadata say 'reset: subtract' (sinabs "
                "subtracts whatever a file says, norse resets to v_reset)"
            )
        if any(np.any(values) for values in self.conversion.initial.values()):
            self.notes.append("potentials at the start: NIR cannot say so; they are in the metadata of the nodes")
        if self.conversion.delay:
            self.notes.append(f"the output is read after {self.conversion.delay:.0%} of the steps: NIR cannot say so")
        if self.rounded:
            n, all_of = len(self.rounded), len(self.network.spec.projections)
            which = ", ".join(self.rounded) if n < 5 else f"{n} of {all_of} projections"
            self.notes.append(f"weights, times spike values and over thresholds, are rounded to float32 in {which}")
        else:
            self.notes.append("all weights and biases are exact")

    def _shape(self, population: Population) -> tuple[int, ...]:
        return (population.size,) if self.flat[population.name] else _plane(population)

    def _population(self, population: Population) -> None:
        name, spec, conversion = population.name, self.network.spec, self.conversion
        if population.kind == "max":
            raise UserError(f"{name}: NIR has no node of max pooling; train the network with average pooling")
        flat = self.flat[name]
        threshold = reduced(1 if population.kind == "relay" else conversion.thresholds[name], population)
        fold = np.ones(population.shape[2])
        if threshold.ndim == 1:
            fold, threshold = np.array(threshold, dtype=np.float64), np.array(1, dtype=np.float32)
        bias = reduced(conversion.constant.get(name, 0.0), population)
        incoming = list(spec.incoming(name))
        if bias.ndim == 3 and not any(projection.kind == "dense" for projection in incoming):
            raise UserError(f"{name}: its constant input differs between pixels; NIR's convolutions have one a channel")
        carrier = self._carrier(incoming, bias)
        ends = [end for p in incoming for end in self._project(p, flat, fold, bias if p is carrier else None)]
        self.sources[name] = list(dict.fromkeys(ends))
        if len(self.sources[name]) < len(ends):
            raise UserError(f"{name}: the same signal reaches it twice; NIR has one edge between two nodes")
        if population.kind == "relay":
            return
        shape = self._shape(population)
        start, resets = conversion.initial.get(name, 0.0), conversion.reset == "zero"
        layer = Layer(population, self.models[name], shape, threshold, fold, start, resets)
        self.nodes[name] = neuron_node(self.nir, layer, self.dt)
        self.edges += [(source, name) for source in self.sources[name]]
        self.sources[name] = [name]

    def _carrier(self, incoming: Sequence[Projection], bias: np.ndarray) -> Projection | None:
        """The projection whose node takes the bias."""
        if not bias.any():
            return None
        kinds = ("dense",) if bias.ndim == 3 else ("dense", "conv", "identity")
        return next(projection for kind in kinds for projection in incoming if projection.kind == kind)

    def _project(self, projection: Projection, flat: bool, fold: np.ndarray, bias: np.ndarray | None) -> list[str]:
        """The nodes of a projection, joined to those of pre; the names of the last ones."""
        spec = self.network.spec
        pre, post = spec[projection.pre], spec[projection.post]
        worth = np.float64(1) if pre.kind in ("input", "relay") else self.conversion.spike_values.get(pre.name, 1.0)
        everywhere = np.broadcast_to(np.asarray(worth, dtype=np.float32), pre.shape)
        worth = everywhere[0, 0].astype(np.float64)
        if (everywhere != everywhere[0, 0]).any():
            raise UserError(f"{pre.name}: NIR has no spikes whose value differs between pixels")
        from_flat = self.flat[pre.name]
        plain = projection.kind == "identity" and (projection.stride, projection.pool) == (1, 1)
        alike = pre.shape == post.shape and from_flat == flat and (worth == 1).all() and (fold == 1).all()
        if plain and alike and bias is None and not self._joined_already(projection):
            return self.sources[pre.name]
        if from_flat and projection.kind != "dense" and not pre.shape[:2] == post.shape[:2] == (1, 1):
            raise UserError(f"{projection.name}: NIR cannot make an image of a vector, as a dense projection gives it")
        weights = self._weights(projection)
        dense = projection.kind == "dense" or from_flat
        if from_flat and projection.kind != "dense":  # the one place of the kernel at which there is a pixel
            top, left, *_ = sides(projection.padding)
            weights = weights[:, :, top : top + 1, left : left + 1]
            weights = weights if weights.size else np.zeros((*weights.shape[:2], 1, 1))
        scaled = weights * worth[:, None, None]
        share = 1.0
        if projection.pool > 1 and (self.pool == "sum" or from_flat):
            share = 1 / projection.pool**2
        numbers = scaled * share
        rows = np.tile(fold, len(numbers) // len(fold))[:, None, None, None]
        folded = (numbers / rows).astype(np.float32)
        exact = np.array_equal(folded * rows, numbers) and np.log2(projection.pool) % 1 == 0
        own = np.zeros(len(numbers), dtype=np.float32)
        if bias is not None:
            wide = np.broadcast_to(bias, post.shape if dense else post.shape[2:])
            own = (wide.astype(np.float64) / fold).astype(np.float32)
            exact = exact and np.array_equal(own * fold, wide)
        if not exact:
            self.rounded.append(projection.name)
        starts = self.sources[pre.name]
        if projection.pool > 1 and not from_flat:
            starts = [self._node(self._free(f"{projection.name}_pool"), self._pool_node(projection.pool), starts)]
        if dense:
            return [self._affine(projection, post, folded, own, starts, from_flat)]
        end = self._convolution(projection, pre, folded, own, starts)
        if flat:
            flattened = self.nir.Flatten({"input": np.array(_plane(post))}, 0, -1)
            end = self._node(self._free(f"{projection.name}_flatten"), flattened, [end])
        return [end]

    def _joined_already(self, projection: Projection) -> bool:
        """Whether another projection of the same post is a plain edge from a node of the same signal."""
        incoming = self.network.spec.incoming(projection.post)
        before = incoming[: incoming.index(projection)]
        mine = set(self.sources[projection.pre])
        return any(p.kind == "identity" and mine & set(self.sources[p.pre]) for p in before)

    def _weights(self, projection: Projection) -> np.ndarray:
        """As of a convolution without groups, whose kernel covers all of pre where the projection is dense."""
        spec = self.network.spec
        pre, post = spec[projection.pre], spec[projection.post]
        height, width, channels = pre.shape
        if projection.kind == "identity":
            return np.eye(post.shape[2], channels)[:, :, None, None]
        weights = self.network.weights[projection.name].astype(np.float64)
        if projection.kind == "dense":
            plane = (height // projection.pool, width // projection.pool)
            weights = weights.reshape(post.size, *plane, -1).transpose(0, 3, 1, 2)
            if self.flat[pre.name] and projection.pool > 1:
                weights = weights.repeat(projection.pool, axis=2).repeat(projection.pool, axis=3)
        else:
            if projection.groups > 1:
                weights = ungrouped(weights, projection.groups)
            if self.flat[pre.name]:
                weights = dilated(weights, both(projection.dilation))
        if projection.channels:
            some, weights = weights, np.zeros((len(weights), channels, *weights.shape[2:]))
            weights[:, list(projection.channels)] = some
        return weights

    def _affine(
        self, projection: Projection, post: Population, weights: np.ndarray, bias: np.ndarray,
        starts: Sequence[str], from_flat: bool,
    ) -> str:  # fmt: skip
        """An Affine node; vectors run over (channel, y, x)."""
        if not from_flat:
            pixels = np.array(weights.shape[1:])
            flattened = self.nir.Flatten({"input": pixels}, 0, -1)
            starts = [self._node(self._free(f"{projection.name}_flatten"), flattened, starts)]
        rows = weights.reshape(*post.shape, -1).transpose(2, 0, 1, 3).reshape(post.size, -1)
        own = bias.reshape(post.shape).transpose(2, 0, 1).ravel()
        return self._node(projection.name, self.nir.Affine(np.ascontiguousarray(rows), own.copy()), starts)

    def _convolution(
        self, projection: Projection, pre: Population, weights: np.ndarray, bias: np.ndarray, starts: Sequence[str]
    ) -> str:
        """A Conv2d node; padding that differs between two sides becomes zeros in the kernel."""
        top, left, bottom, right = sides(projection.padding)
        dilation, padding = both(projection.dilation), (max(top, bottom), max(left, right))
        if (top, left) != (bottom, right):
            weights, dilation = dilated(weights, dilation), (1, 1)
            y, x = padding
            weights = np.pad(weights, ((0, 0), (0, 0), (y - top, y - bottom), (x - left, x - right)))
        plane = tuple(size // projection.pool for size in pre.shape[:2])
        node = self.nir.Conv2d(plane, weights, both(projection.stride), padding, dilation, 1, bias)
        return self._node(projection.name, node, starts)

    def _pool_node(self, side: int) -> Any:
        kind = self.nir.SumPool2d if self.pool == "sum" else self.nir.AvgPool2d
        return kind(np.array([side, side]), np.array([side, side]), np.array([0, 0]))

    def _free(self, wanted: str) -> str:
        """A name for a node that stands for no population or projection, which keep their own."""
        spec = self.network.spec
        taken = {*self.nodes, *(p.name for p in spec.populations), *(p.name for p in spec.projections)}
        name, number = wanted, 2
        while name in taken:
            name, number = f"{wanted}_{number}", number + 1
        return name

    def _node(self, name: str, node: Any, starts: Sequence[str]) -> str:
        self.nodes[name] = node
        self.edges += [(start, name) for start in starts]
        return name


def _plane(population: Population) -> tuple[int, int, int]:
    """Channels, height and width."""
    height, width, channels = population.shape
    return channels, height, width
