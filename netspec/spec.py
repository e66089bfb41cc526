"""What a network is: populations of integrate-and-fire neurons joined by projections.

The ANN that is trained, the spiking network in Brian2, the thresholds and the operation counts are all
derived from a :class:`NetSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import inf, prod
from operator import index
from typing import Any

import numpy as np

from netspec.errors import UserError

__all__ = ["ENDINGS", "NetSpec", "Population", "Projection", "SpecError"]

POPULATION_KINDS = ("input", "if", "relay", "max")
EMITTING = ("if", "max")  # kinds of populations that send spikes
PROJECTION_KINDS = ("conv", "dense", "identity", "window")
LONGEST_NAME = 100  # joined names become names of files
RESERVED = ("input_on", "input_off", "presentation_start", "presentation_end")
ENDINGS = ("_step", "_stateupdater")  # of names of a population's objects in Brian2


class SpecError(UserError, ValueError):
    """A network description that contradicts itself."""


@dataclass(frozen=True)
class Population:
    """A sheet of neurons with one firing threshold.

    Parameters
    ----------
    name : str
        A Python identifier, unique in the network.
    shape : tuple of int
        (height, width, channels). Neuron ``(y, x, c)`` has the index ``(y * width + x) * channels + c``.
    kind : {'if', 'input', 'relay', 'max'}
        ``'if'``: integrate-and-fire neurons, ReLUs in the ANN. ``'input'``: signed Poisson spikes.
        ``'relay'``: passes the synaptic input of a step on within that step, without a threshold; a
        junction without ReLU (section 6.1 of the paper). ``'max'``: max pooling; fires when the largest spike count in
        its window rises, so that its count is their maximum.
    dropout : float
        Dropout rate after the ReLU while the ANN is trained.
    clip : float
        What the ReLU's activation is at most (as of ReLU6, or learned with quantised ReLUs); 0 for no such bound.
    """

    name: str
    shape: tuple[int, int, int]
    kind: str = "if"
    dropout: float = 0.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(map(index, self.shape)))
        if not self.name.isidentifier():
            raise SpecError(f"population name {self.name!r} is not an identifier")
        if not self.name.isascii() or len(self.name) > LONGEST_NAME:
            raise SpecError(f"population name {self.name!r} has other letters than a to z, or more than {LONGEST_NAME}")
        if self.name.startswith(RESERVED):
            raise SpecError(f"population name {self.name!r}: those in {', '.join(RESERVED)} are the simulation's own")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise SpecError(f"{self.name}: shape {self.shape} is not (height, width, channels), each at least 1")
        if self.kind not in POPULATION_KINDS:
            raise SpecError(f"{self.name}: kind {self.kind!r} is none of {POPULATION_KINDS}")
        if not 0 <= self.dropout < 1:
            raise SpecError(f"{self.name}: dropout {self.dropout} is not in [0, 1)")
        if not 0 <= self.clip < inf:
            raise SpecError(f"{self.name}: {self.clip} is no bound of a ReLU")
        if (self.clip or self.dropout) and self.kind != "if":
            raise SpecError(f"{self.name}: clip and dropout are of ReLUs, and its kind is {self.kind!r}")

    @property
    def size(self) -> int:
        """Number of neurons."""
        return prod(self.shape)


@dataclass(frozen=True)
class Projection:
    """Connections from one population to another; the kind is the connectivity.

    Parameters
    ----------
    pre, post : str
        Names of the populations.
    kind : {'conv', 'dense', 'identity', 'window'}
        ``'conv'``: weights (channels of post, channels of pre, kernel, kernel), as in torch.
        ``'dense'``: weights (neurons of post, pooled neurons of pre), in the order of the neuron index.
        ``'identity'``: weight 1 from channel to like channel, a type-A shortcut; missing channels stay empty.
        ``'window'``: of max pooling, from all neurons of a window to their channel; no weights.
    kernel, stride, dilation : int or (int, int)
        Of a convolution or window, along both axes or each; an identity projection has a stride only.
    padding : int, (int, int) or (int, int, int, int)
        Rows and columns of zeros around the image: along both axes, each, or at the top, left, bottom and right.
    groups : int
        Of a convolution: channels of pre and of post are in as many groups, the first joined with the first.
    pool : int
        Side of the average-pooling window before the projection. Pooling is linear: each spike
        counts 1 / pool**2, and there are no pooling neurons.
    residual : bool
        Whether this is a convolution of a residual branch (it has an initialisation of its own).
    channels : tuple of int
        Those of pre that the projection begins at, in its own order; () for all of them.
    label : str
        Its name, where several join the same two populations.
    """

    pre: str
    post: str
    kind: str = "conv"
    kernel: int | tuple[int, int] = 1
    stride: int | tuple[int, int] = 1
    padding: int | tuple[int, ...] = 0
    pool: int = 1
    residual: bool = False
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    channels: tuple[int, ...] = ()
    label: str = ""

    def __post_init__(self) -> None:
        for name in ("kernel", "stride", "dilation"):  # one number where both are the same
            along = both(getattr(self, name))
            object.__setattr__(self, name, along[0] if along[0] == along[1] else along)
        for name in ("pool", "groups"):
            object.__setattr__(self, name, index(getattr(self, name)))
        top, left, _, _ = around = sides(self.padding)
        padding = around if around[:2] != around[2:] else top if top == left else (top, left)
        object.__setattr__(self, "padding", padding)
        object.__setattr__(self, "channels", tuple(map(int, self.channels)))
        if self.kind not in PROJECTION_KINDS:
            raise SpecError(f"{self.name}: kind {self.kind!r} is none of {PROJECTION_KINDS}")
        least = min(*both(self.kernel), *both(self.stride), *both(self.dilation), self.pool, self.groups)
        if least < 1 or min(sides(self.padding)) < 0:
            raise SpecError(f"{self.name}: kernel, stride and pool must be at least 1, padding at least 0")
        if self.kind in ("dense", "identity") and (self.kernel, self.padding) != (1, 0):
            raise SpecError(f"{self.name}: only a convolution has a kernel and padding")
        if self.kind == "dense" and self.stride != 1:
            raise SpecError(f"{self.name}: a dense projection has no stride")
        if self.kind != "conv" and (self.dilation, self.groups) != (1, 1):
            raise SpecError(f"{self.name}: only a convolution has dilation and groups")
        if self.channels and not self.weighted:
            raise SpecError(f"{self.name}: only a convolution or a dense projection has a choice of channels")
        if len(set(self.channels)) < len(self.channels) or min(self.channels, default=0) < 0:
            raise SpecError(f"{self.name}: channels {self.channels} are not all different and at least 0")
        if self.label and not (self.label.isidentifier() and self.label.isascii() and len(self.label) <= LONGEST_NAME):
            raise SpecError(f"{self.label!r} is no name of a projection: an identifier of letters a to z")

    @property
    def name(self) -> str:
        return self.label or f"{self.pre}_to_{self.post}"

    @property
    def reach(self) -> tuple[int, int]:
        """Height and width of a convolution's kernel, with the places that dilation leaves out."""
        (height, width), (y, x) = both(self.kernel), both(self.dilation)
        return (height - 1) * y + 1, (width - 1) * x + 1

    @property
    def weighted(self) -> bool:
        """Whether the projection has trained weights."""
        return self.kind in ("conv", "dense")


@dataclass(frozen=True)
class NetSpec:
    """A feed-forward network: populations in the order in which a spike crosses them, and projections.

    The first population is the input, the last one the output. Everything is checked when the object is
    made; :class:`SpecError` says what does not fit.
    """

    name: str
    populations: tuple[Population, ...]
    projections: tuple[Projection, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "populations", tuple(self.populations))
        object.__setattr__(self, "projections", tuple(self.projections))
        names = [population.name for population in self.populations]
        if len(names) < 2 or len(set(names)) < len(names):
            raise SpecError(f"{self.name}: two or more populations with different names are needed, got {names}")
        kinds = [population.kind for population in self.populations]
        if kinds[0] != "input" or "input" in kinds[1:] or kinds[-1] != "if":
            raise SpecError(f"{self.name}: the first population, and no other, is the input; the last one is 'if'")
        joined = {projection.name for projection in self.projections}
        if taken := {p.name + ending for p in self.spiking for ending in ENDINGS} & (joined | set(names)):
            raise SpecError(f"{self.name}: {min(taken)} is the name of an object of another population")
        if joined & set(names):
            raise SpecError(f"{self.name}: {min(joined & set(names))} is the name of a population and of a projection")
        if len(joined) < len(self.projections):
            raise SpecError(f"{self.name}: two projections join the same populations, or have the same name")
        if self.output.dropout or self.output.clip:
            raise SpecError(f"{self.name}: the output {names[-1]} has no ReLU, and so neither dropout nor a clip")
        for projection in self.projections:
            self._check(projection, names)
        for name in names[1:]:
            if not self.incoming(name):
                raise SpecError(f"{self.name}: population {name} has no incoming projection")
            if self[name].kind == "max":
                self._check_pooling(name)

    def _check(self, projection: Projection, names: list[str]) -> None:
        for end in (projection.pre, projection.post):
            if end not in names:
                raise SpecError(f"{projection.name}: there is no population {end!r}")
        if names.index(projection.pre) >= names.index(projection.post):
            raise SpecError(f"{projection.name}: {projection.post} must come after {projection.pre}")
        height, width, channels = self[projection.pre].shape
        if height % projection.pool or width % projection.pool:
            raise SpecError(f"{projection.name}: pooling by {projection.pool} does not divide {height}x{width}")
        if max(projection.channels, default=0) >= channels:
            raise SpecError(f"{projection.name}: {projection.pre} has not {max(projection.channels) + 1} channels")
        if (projection.kind == "window") != (self[projection.post].kind == "max"):
            raise SpecError(f"{projection.name}: windows lead to max pooling, and nothing else does")
        if projection.kind == "dense":
            return
        top, left, bottom, right = sides(projection.padding)
        ends, strides = (top + bottom, left + right), both(projection.stride)
        along = zip((height, width), projection.reach, ends, strides, strict=True)
        out = tuple((size // projection.pool + more - reach) // stride + 1 for size, reach, more, stride in along)
        post, from_channels = self[projection.post].shape, len(projection.channels) or channels
        if post[:2] != out:
            raise SpecError(f"{projection.name}: gives {out[0]}x{out[1]}, but {projection.post} is {post[0]}x{post[1]}")
        if projection.kind == "identity" and post[2] < from_channels:
            raise SpecError(f"{projection.name}: an identity cannot go from {from_channels} to {post[2]} channels")
        if from_channels % projection.groups or post[2] % projection.groups:
            raise SpecError(f"{projection.name}: {from_channels} or {post[2]} channels in {projection.groups} groups")

    def _check_pooling(self, name: str) -> None:
        incoming, shape = self.incoming(name), self[name].shape
        if len(incoming) != 1 or incoming[0].pool != 1:
            raise SpecError(f"{self.name}: max pooling {name} has one incoming projection, without average pooling")
        if self[incoming[0].pre].kind not in EMITTING:
            raise SpecError(f"{self.name}: max pooling {name} needs spikes of IF neurons, or of max pooling, before it")
        if shape[2] != self[incoming[0].pre].shape[2]:
            raise SpecError(f"{self.name}: max pooling {name} has as many channels as it pools")

    def __getitem__(self, name: str) -> Population:
        for population in self.populations:
            if population.name == name:
                return population
        known = ", ".join(population.name for population in self.populations)
        raise SpecError(f"{self.name} has no population {name!r}; it has {known}")

    @property
    def input(self) -> Population:
        return self.populations[0]

    @property
    def output(self) -> Population:
        return self.populations[-1]

    @property
    def spiking(self) -> tuple[Population, ...]:
        """The integrate-and-fire populations, each of which has a threshold."""
        return tuple(population for population in self.populations if population.kind == "if")

    @property
    def emitting(self) -> tuple[Population, ...]:
        """The populations after the input that send spikes."""
        return tuple(population for population in self.populations if population.kind in EMITTING)

    @property
    def residual(self) -> tuple[Population, ...]:
        """The spiking populations at either end of residual branches and shortcuts: those of constraint 2."""
        ends = {end for p in self.projections if p.residual or p.kind == "identity" for end in (p.pre, p.post)}
        return tuple(population for population in self.spiking if population.name in ends)

    @property
    def carrying_current(self) -> tuple[Projection, ...]:
        """Along which a constant current goes: those of the input, and of relays that it reaches."""
        reached = {self.input.name}
        for population in self.populations:
            if population.kind == "relay" and any(p.pre in reached for p in self.incoming(population.name)):
                reached.add(population.name)
        return tuple(projection for projection in self.projections if projection.pre in reached)

    def incoming(self, name: str) -> tuple[Projection, ...]:
        return tuple(projection for projection in self.projections if projection.post == name)

    def outgoing(self, name: str) -> tuple[Projection, ...]:
        return tuple(projection for projection in self.projections if projection.pre == name)

    def after(self, name: str) -> NetSpec:
        """What comes after a population, as a network whose input it is; its spikes are all that the rest receives.

        Raises SpecError if a projection passes it by, or max pooling follows, which begins no network.
        """
        at = [population.name for population in self.populations].index(self[name].name)
        later = {population.name for population in self.populations[at + 1 :]}
        left = tuple(projection for projection in self.projections if projection.post in later)
        if not all(projection.pre in later | {name} for projection in left):
            raise SpecError(f"{self.name}: there are projections past {name}")
        first = Population(name, self[name].shape, "input")
        return NetSpec(f"{self.name}-after-{name}", (first, *self.populations[at + 1 :]), left)

    def weight_shape(self, projection: Projection) -> tuple[int, ...]:
        """Shape of the weights, as stored in checkpoints; () for an identity."""
        height, width, channels = self[projection.pre].shape
        post = self[projection.post]
        channels = len(projection.channels) or channels
        if projection.kind == "conv":
            return (post.shape[2], channels // projection.groups, *both(projection.kernel))
        if projection.kind == "dense":
            return (post.size, height * width * channels // projection.pool**2)
        return ()

    def parameters(self) -> int:
        """Number of weights."""
        return sum(prod(self.weight_shape(p)) for p in self.projections if p.weighted)

    def fan_out(self, projection: Projection) -> np.ndarray:
        """How many neurons of post each neuron of pre reaches, exact at the borders.

        Returns
        -------
        numpy.ndarray
            int64, of the shape of the pre population.
        """
        height, width, channels = self[projection.pre].shape
        post = self[projection.post]
        used = np.zeros(channels, dtype=np.int64)
        used[list(projection.channels) or slice(None)] = 1
        if projection.kind == "dense":
            return np.multiply.outer(np.full((height, width), post.size), used)
        along = [
            np.repeat(_reached(size // projection.pool, out, projection, axis), projection.pool)
            for axis, (size, out) in enumerate(zip((height, width), post.shape[:2], strict=True))
        ]
        targets = 1 if projection.kind in ("identity", "window") else post.shape[2] // projection.groups
        return np.multiply.outer(np.multiply.outer(along[0], along[1]) * targets, used)

    def synapses(self, projection: Projection) -> int:
        """Number of connections, the unrolled size of the projection."""
        return int(self.fan_out(projection).sum())

    def macs(self, projection: Projection) -> int:
        """Multiply-accumulate operations of the ANN for one image (pooled first; an identity has none)."""
        return self.synapses(projection) // projection.pool**2 if projection.weighted else 0

    def neurons(self) -> int:
        """Number of neurons after the input."""
        return sum(population.size for population in self.populations[1:])

    def to_dict(self) -> dict[str, Any]:
        """The description as plain data, for JSON; without what came later and is at its default."""
        data = asdict(self)
        usual = {entry.name: entry.default for entry in (*fields(Population), *fields(Projection))}
        for entry in (*data["populations"], *data["projections"]):
            for name in ("clip", "dilation", "groups", "channels", "label"):
                if name in entry and entry[name] == usual[name]:
                    del entry[name]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> NetSpec:
        """Rebuild a description from :meth:`to_dict`; raises SpecError where it does not fit."""
        try:
            return cls(
                name=data["name"],
                populations=tuple(Population(**population) for population in data["populations"]),
                projections=tuple(Projection(**projection) for projection in data["projections"]),
            )
        except SpecError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise SpecError(f"not a network description: {error}") from error


def both(number: int | Sequence[int]) -> tuple[int, int]:
    """Of the vertical and the horizontal axis."""
    along = (int(number),) * 2 if isinstance(number, (int, np.integer)) else tuple(map(index, number))
    if len(along) != 2:
        raise SpecError(f"{number} is neither one number nor one of each axis")
    return along


def sides(number: int | Sequence[int]) -> tuple[int, int, int, int]:
    """At the top, left, bottom and right."""
    around = (int(number),) * 4 if isinstance(number, (int, np.integer)) else tuple(map(index, number))
    around = around * 2 if len(around) == 2 else around
    if len(around) != 4:
        raise SpecError(f"{number} is neither one number, nor one of each axis, nor one of each side")
    return around


def _reached(size: int, out: int, projection: Projection, axis: int) -> np.ndarray:
    """For each of ``size`` positions along an axis: the number of output positions whose kernel covers it."""
    first = np.arange(out) * both(projection.stride)[axis] - sides(projection.padding)[axis]
    place = np.arange(size)[:, None] - first
    dilation, reach = both(projection.dilation)[axis], projection.reach[axis]
    return ((place >= 0) & (place < reach) & (place % dilation == 0)).sum(axis=1)
