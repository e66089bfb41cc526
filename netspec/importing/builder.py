"""Populations and projections from linear functions: what a ReLU, a max pooling or a linear layer becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from netspec.checkpoint import Checkpoint
from netspec.errors import UserError
from netspec.importing.values import NOWHERE, Choice, Sides, Term, Value, Weighted, convolved, simplified, ungrouped
from netspec.spec import EMITTING, ENDINGS, LONGEST_NAME, RESERVED, NetSpec, Population, Projection

__all__ = ["OUTPUT", "Builder", "Step"]

OUTPUT = "output"


@dataclass
class Step:
    """A line of the table: a layer of the source, and what it became."""

    source: str
    operation: str
    became: str


@dataclass
class Builder:
    """A NetSpec in the making.

    Parameters
    ----------
    shape : tuple of int
        Of the input: channels, height and width.
    largest : float
        What the source's inputs are at most, in size: a spike of the input stands for it, so that none is cut off.
    bgr : bool
        Whether the source's first channel is blue, and ours red.
    """

    shape: tuple[int, int, int]
    largest: float = 1.0
    bgr: bool = False
    populations: dict[str, Population] = field(default_factory=dict)
    projections: list[Projection] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    biases: dict[str, np.ndarray] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    pools: dict[tuple, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        channels, height, width = self.shape
        self.populations["input"] = Population("input", (height, width, channels), kind="input")

    def input(self) -> Value:
        """The images."""
        channels = self.shape[0]
        order = np.arange(channels)[::-1] if self.bgr else np.arange(channels)
        choice = Choice("input", order, np.full(channels, self.largest))
        return Value(self.shape, (choice,), np.zeros((channels, 1, 1)))

    def rectified(self, value: Value, name: str, clip: float = 0.0, anew: bool = False) -> Value:
        """A ReLU; it may be clipped. Max pooling that came before it comes after it, which is the same.

        What cannot be negative needs none, unless it is asked for ``anew``.
        """
        if value.pooled:
            inner, window = value.pooled
            return self.pooled_maximum(self.rectified(inner, name, clip), window, f"{name}_pool").view(value.layout)
        if not value.terms:  # a constant
            return replace(value, bias=np.clip(value.bias, 0, clip or None))
        if not clip and not anew and self.is_positive(value):
            return value
        own = self._population(name, value, "if", clip)
        self._biased(own, value)
        return self._all_of(own).view(value.layout)

    def neurons(self, value: Value, name: str, last: bool = False) -> tuple[str, Value]:
        """A population of its own, whatever its neurons do; its name, as it became, and its spikes.

        The ``last`` one is the output; a node elsewhere that is called so gets another name.
        """
        if not value.terms:
            raise UserError("nothing of the network's input reaches it")
        own = self._population(OUTPUT if last else self._name(name), value, "if", named=True)
        self._biased(own, value)
        return own, self._all_of(own).view(value.layout)

    def _biased(self, own: str, value: Value) -> None:
        bias = value.full_bias if value.bias.shape[1:] != (1, 1) else value.bias[:, 0, 0]
        if bias.any():
            self.biases[own] = single(bias.transpose(1, 2, 0) if bias.ndim == 3 else bias)

    def is_positive(self, value: Value) -> bool:
        """Whether it cannot be negative, as far as its terms tell."""
        if value.pooled:
            return False
        factors = [term.scale if isinstance(term, Choice) else term.weights for term in value.terms]
        spikes = all(self.populations[term.pre].kind in EMITTING for term in value.terms)
        return spikes and not any((factor < 0).any() for factor in factors) and not (value.bias < 0).any()

    def relayed(self, value: Value, name: str) -> Value:
        """A population that passes the terms on, for what needs one; the bias stays beside it."""
        if not value.terms:
            return value
        own = self._population(name, replace(value, bias=np.zeros((value.channels, 1, 1))), "relay")
        return replace(self._all_of(own), bias=value.bias, layout=value.layout, gain=value.gain)

    def _chosen(self, value: Value, name: str, strided: bool = False) -> Value:
        """With terms whose weights a convolution or dense layer can be multiplied by; else through a relay."""
        terms = [term for term in value.terms if isinstance(term, Choice)]
        fitting = len(terms) == len(value.terms) and all(term.stride == (1, 1) or strided for term in terms)
        return value if fitting else self.relayed(value, f"{name}_input")

    def convolution(self, value: Value, weights: np.ndarray, options: Mapping[str, Any], name: str) -> Value:
        """A convolution; ``options`` are stride, padding (at four sides), dilation and groups."""
        value = self._chosen(value, name, strided=weights.shape[2:] == (1, 1) and options["padding"] == NOWHERE)
        kernel, groups = weights.shape[2:], options["groups"]
        if weights.shape[1] * groups != value.channels or len(weights) % groups:
            told = f"{len(weights)} x {weights.shape[1]} channels in {groups} groups"
            raise UserError(f"its weights are of {told}, and {value.channels} channels come")
        size = plane(value, kernel, options["stride"], options["padding"], options["dilation"])
        if min(size) < 1:
            raise UserError(f"its window of {kernel[0]}x{kernel[1]} is larger than what comes")
        terms: list[Term] = []
        for term in value.terms:
            assert isinstance(term, Choice)
            used = term.used
            own, own_groups = np.asarray(weights, dtype=np.float64), groups
            if groups > 1 and not (len(used) == value.channels and len(set(term.index)) == len(used)):
                own, own_groups = ungrouped(own, groups), 1
            if own_groups > 1:
                factor = term.scale.reshape(groups, -1)[np.arange(len(own)) * groups // len(own)]
                own, channels = own * factor[:, :, None, None], term.index
            else:
                channels, place = np.unique(term.index[used], return_inverse=True)
                summed = np.zeros((len(own), len(channels), *kernel))
                np.add.at(summed.swapaxes(0, 1), place, (own[:, used] * term.scale[used, None, None]).swapaxes(0, 1))
                own = summed
            padding = tuple(a + b for a, b in zip(options["padding"], term.padding, strict=True))
            stride = tuple(np.multiply(term.stride, options["stride"]).tolist())
            made = {"kernel": kernel, "stride": stride, "padding": padding, "pool": term.pool}
            made |= {"dilation": options["dilation"], "groups": own_groups, "channels": self._some(term.pre, channels)}
            terms.append(Weighted(term.pre, own, made, name))
        bias = np.zeros((len(weights), 1, 1))
        if value.bias.any():
            bias = convolved(value.full_bias, weights, options)
        return Value((len(weights), *size), tuple(terms), bias)

    def dense(self, value: Value, weights: np.ndarray, name: str) -> Value:
        """A linear layer of a vector: ``weights`` are (neurons, numbers of the vector)."""
        value = self._chosen(value, name)
        if any(isinstance(term, Choice) and term.padding != NOWHERE for term in value.terms):
            value = self.relayed(value, f"{name}_input")
        size = int(np.prod(value.shape))
        flat = np.zeros((size, len(weights)))
        np.add.at(flat, value.layout.ravel(), np.asarray(weights, dtype=np.float64).T)
        bias = value.full_bias.ravel() @ flat
        placed = flat.T.reshape(len(weights), *value.shape) * (1 if value.gain is None else value.gain)
        terms: list[Term] = []
        for term in value.terms:
            assert isinstance(term, Choice)
            used = term.used
            channels, place = np.unique(term.index[used], return_inverse=True)
            summed = np.zeros((len(weights), len(channels), *value.shape[1:]))
            np.add.at(summed.swapaxes(0, 1), place, (placed[:, used] * term.scale[used, None, None]).swapaxes(0, 1))
            rows = summed.transpose(0, 2, 3, 1).reshape(len(weights), -1)
            made = {"kind": "dense", "pool": term.pool, "channels": self._some(term.pre, channels)}
            terms.append(Weighted(term.pre, rows, made, name))
        out = Value((len(weights), 1, 1), tuple(terms), bias[:, None, None])
        return out.view(np.arange(len(weights)).reshape(1, -1))

    def averaged(
        self, value: Value, kernel: tuple[int, int], stride: tuple[int, int], padding: Any, name: str
    ) -> Value:
        """Average pooling; zeros around count."""
        if tuple(kernel) == (1, 1) and padding == NOWHERE:
            return self.every(value, stride, name)
        (height, width), side = value.shape[1:], kernel[0]
        even = (
            tuple(kernel) == tuple(stride) == (side, side)
            and padding == NOWHERE
            and not (height % side or width % side)
        )
        if even:
            if not all(isinstance(t, Choice) and t.stride == (1, 1) and t.padding == NOWHERE for t in value.terms):
                value = self.relayed(value, f"{name}_input")
            terms = tuple(replace(term, pool=term.pool * side) for term in value.terms if isinstance(term, Choice))
            bias = value.bias
            if bias.shape[1:] != (1, 1):
                bias = simplified(F.avg_pool2d(torch.from_numpy(np.array(value.full_bias))[None], side)[0].numpy())
            return Value((value.channels, height // side, width // side), terms, bias)
        weights = np.full((value.channels, 1, *kernel), 1 / (kernel[0] * kernel[1]))
        options = {"stride": stride, "padding": padding, "dilation": (1, 1), "groups": value.channels}
        return self.convolution(value, weights, options, name)

    def every(self, value: Value, step: tuple[int, int], name: str) -> Value:
        """Every so many pixels each way, from the first one on, of a map."""
        if tuple(step) == (1, 1):
            return value
        if any(isinstance(term, Choice) and term.padding != NOWHERE for term in value.terms):
            value = self.relayed(value, name)
        down, right = step
        bias = value.bias if value.bias.shape[1:] == (1, 1) else simplified(value.bias[:, ::down, ::right])
        shape = (value.channels, -(-value.shape[1] // down), -(-value.shape[2] // right))
        return Value(shape, tuple(term.every(step) for term in value.terms), bias)

    def pooled_maximum(self, value: Value, window: Mapping[str, Any], name: str) -> Value:
        """Max pooling by windows (kernel, stride, padding), exact, of spikes; before a ReLU it waits for that.

        Zeros around what cannot be negative change no maximum: they are left to the windows.
        """
        value, around = self._without_zeros(value)
        window = dict(window) | {"padding": tuple(np.add(window["padding"], around).tolist())}
        height, width = plane(value, **window)
        if min(height, width) < 1:
            raise UserError("its window is larger than what comes")
        shape = (value.channels, height, width)
        if value.pooled:  # until the ReLU comes
            return Value(shape, (), np.zeros((value.channels, 1, 1)), pooled=(value, window))
        if not self._can_be_pooled(value) and self.is_positive(value):
            value = self.rectified(value, f"{name}_input", anew=True)
        if not self._can_be_pooled(value):
            return Value(shape, (), np.zeros((value.channels, 1, 1)), pooled=(value, window))
        terms = []
        for term in value.terms:
            assert isinstance(term, Choice)
            pre = self.populations[term.pre]
            key = (term.pre, *window["kernel"], *window["stride"], *window["padding"])
            if key not in self.pools:
                own = self._name(name)
                self.populations[own] = Population(own, (height, width, pre.shape[2]), kind="max")
                self.projections.append(Projection(term.pre, own, kind="window", **window))
                self.pools[key] = own
            terms.append(replace(term, pre=self.pools[key]))
        return Value(shape, tuple(terms), value.bias)

    def _without_zeros(self, value: Value) -> tuple[Value, Sides]:
        """What max pooling can take without the zeros around it, and how many there are at each side."""
        around = {term.padding if isinstance(term, Choice) else NOWHERE for term in value.terms}
        if value.pooled or value.bias.any() or len(around) != 1 or around == {NOWHERE}:
            return value, NOWHERE
        ((top, left, bottom, right),) = around
        terms = tuple(replace(term, padding=NOWHERE) for term in value.terms if isinstance(term, Choice))
        shape = (value.channels, value.shape[1] - top - bottom, value.shape[2] - left - right)
        inner = Value(shape, terms, value.bias[:, :1, :1])
        return (inner, (top, left, bottom, right)) if self._can_be_pooled(inner) else (value, NOWHERE)

    def _can_be_pooled(self, value: Value) -> bool:
        if not value.chosen or value.bias.shape[1:] != (1, 1):
            return False
        times = np.zeros(value.channels, dtype=int)
        for term in value.terms:
            assert isinstance(term, Choice)
            used = (term.index >= 0) & (term.scale != 0)
            times += used
            if not term.plain or (term.scale[used] < 0).any() or self.populations[term.pre].kind not in EMITTING:
                return False
        return bool((times <= 1).all())

    def _some(self, pre: str, channels: np.ndarray) -> tuple[int, ...]:
        """As a Projection says it: () for all, in their order."""
        everything = np.array_equal(channels, np.arange(self.populations[pre].shape[2]))
        return () if everything else tuple(int(channel) for channel in channels)

    def _all_of(self, name: str) -> Value:
        height, width, channels = self.populations[name].shape
        choice = Choice(name, np.arange(channels), np.ones(channels))
        return Value((channels, height, width), (choice,), np.zeros((channels, 1, 1)))

    def _population(self, name: str, value: Value, kind: str, clip: float = 0.0, named: bool = False) -> str:
        """A new population, with the projections of all terms; of ReLUs it is ``named`` after its layer."""
        layers = [term.name for term in value.terms if isinstance(term, Weighted)]
        named = named or name == OUTPUT
        own = name if named else self._name(layers[0] if kind == "if" and layers else name)
        channels, height, width = value.shape
        self.populations[own] = Population(own, (height, width, channels), kind=kind, clip=clip)
        for term in merged(value.terms):
            pre = self.populations[term.pre]
            if isinstance(term, Choice):
                term = self._projected(term, pre, channels)
            joined = [p.name for p in self.projections if p.pre == term.pre and p.post == own]
            label = f"{term.pre}_to_{own}"[: LONGEST_NAME - 4] + f"_{len(joined) + 1}" if joined else ""
            if len(f"{term.pre}_to_{own}") > LONGEST_NAME:
                label = f"to_{own}"[: LONGEST_NAME - 4] + f"_{len(self.incoming(own)) + 1}"
            projection = Projection(term.pre, own, label=label, **term.options)
            self.projections.append(projection)
            if projection.weighted:
                self.weights[projection.name] = single(term.weights)
        return own

    def incoming(self, name: str) -> list[Projection]:
        return [projection for projection in self.projections if projection.post == name]

    def _projected(self, term: Choice, pre: Population, channels: int) -> Weighted:
        """A choice of channels as a projection: an identity, or a convolution of 1x1."""
        used = term.used
        n = pre.shape[2]
        first = np.array_equal(used, np.arange(n)) and np.array_equal(term.index[used], used)
        if first and (term.scale[used] == 1).all() and term.padding == NOWHERE:
            return Weighted(term.pre, np.zeros(0), {"kind": "identity", "stride": term.stride, "pool": term.pool})
        options: dict[str, Any] = {"stride": term.stride, "pool": term.pool, "padding": term.padding}
        if first and channels == n:
            return Weighted(term.pre, term.scale[:, None, None, None], options | {"groups": n})
        sources, place = np.unique(term.index[used], return_inverse=True)
        weights = np.zeros((channels, len(sources), 1, 1))
        weights[used, place] = term.scale[used, None, None]
        return Weighted(term.pre, weights, options | {"channels": self._some(term.pre, sources)})

    def _name(self, wanted: str) -> str:
        """An identifier of its own."""
        name = re.sub(r"\W+", "_", wanted, flags=re.ASCII).strip("_")[: LONGEST_NAME // 2] or "layer"
        name = name.replace("_to_", "_")  # as projections are called
        if not name.isidentifier() or name.startswith(RESERVED):
            name = f"layer_{name}"
        taken, number = {*self.populations, OUTPUT}, 2
        taken |= {f"{other}{ending}" for other in taken for ending in ENDINGS}
        own = name
        while taken & {own, *(f"{own}{ending}" for ending in ENDINGS)}:
            own, number = f"{name}_{number}", number + 1
        return own

    def checkpoint(
        self, value: Value, name: str, mean: np.ndarray, gain: Any, classes: tuple[str, ...], info: Mapping[str, Any]
    ) -> Checkpoint:
        """The network whose output the value is."""
        order = value.layout.ravel()
        if value.pooled or value.shape[1:] != (1, 1) or not np.array_equal(np.sort(order), range(value.channels)):
            raise UserError(f"the network gives {value.layout.shape[1:]}, and no number for each class")
        if not value.terms:
            raise UserError("the network's output does not depend on its input")
        value = value.taken(order)
        self._population(OUTPUT, value, "if")
        if value.bias.any():
            self.biases[OUTPUT] = single(value.bias[:, 0, 0])
        return self.finished(name, mean, gain, classes, info)

    def finished(
        self, name: str, mean: np.ndarray, gain: Any, classes: tuple[str, ...], info: Mapping[str, Any]
    ) -> Checkpoint:
        """The network of the populations that lead to the output."""
        self.populations[OUTPUT] = self.populations.pop(OUTPUT)  # the last one
        used, todo = {"input"}, [OUTPUT]
        while todo:  # what leads nowhere is left out
            used.add(todo[-1])
            todo += [projection.pre for projection in self.incoming(todo.pop()) if projection.pre not in used]
        populations = tuple(population for key, population in self.populations.items() if key in used)
        projections = tuple(projection for projection in self.projections if projection.post in used)
        spec = NetSpec(name, populations, projections)
        weights = {p.name: self.weights[p.name] for p in projections if p.weighted}
        biases = {key: bias for key, bias in self.biases.items() if key in used}
        return Checkpoint(spec, weights, mean, gain, classes, info, biases)


def single(numbers: np.ndarray) -> np.ndarray:
    """In single precision."""
    return np.ascontiguousarray(numbers, dtype=np.float32)


def plane(value: Value, kernel: Any, stride: Any, padding: Any, dilation: Any = (1, 1)) -> Any:
    """Height and width of what windows make of a map."""
    top, left, bottom, right = padding
    along = zip(value.shape[1:], (top + bottom, left + right), kernel, dilation, stride, strict=True)
    return tuple((size + more - (side - 1) * apart - 1) // step + 1 for size, more, side, apart, step in along)


def merged(terms: tuple[Term, ...]) -> list[Term]:
    """Terms of the same population by the same kind of projection, added up."""
    found: dict[tuple, Term] = {}
    for term in terms:
        if isinstance(term, Choice):
            key: tuple = (term.pre, term.pool, term.stride, term.padding, term.index.tobytes())
        else:
            key = (term.pre, term.weights.shape, str(sorted(term.options.items())))
        before = found.get(key)
        if isinstance(before, Choice) and isinstance(term, Choice):
            term = replace(before, scale=before.scale + term.scale)
        elif isinstance(before, Weighted) and isinstance(term, Weighted):
            term = replace(before, weights=before.weights + term.weights)
        found[key] = term
    return list(found.values())
