"""What a network is: populations of integrate-and-fire neurons joined by projections.

The ANN that is trained, the spiking network in Brian2, the thresholds and the operation counts are all
derived from a :class:`NetSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, prod
from typing import Any

import numpy as np

from netspec.errors import UserError

__all__ = ["NetSpec", "Population", "Projection", "SpecError"]

POPULATION_KINDS = ("input", "if", "relay")
PROJECTION_KINDS = ("conv", "dense", "identity")


LONGEST_NAME = 100  # joined names become names of files
RESERVED = ("input_on", "input_off", "presentation_start", "presentation_end")


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
    kind : {'if', 'input', 'relay'}
        ``'if'``: integrate-and-fire neurons, ReLUs in the ANN. ``'input'``: signed Poisson spikes.
        ``'relay'``: passes the synaptic input of a step on within that step, without a threshold; a
        junction without ReLU (section 6.1 of the paper).
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
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
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
        if not 0 <= self.clip < inf or (self.clip and self.kind != "if"):
            raise SpecError(f"{self.name}: {self.clip} is no bound of a ReLU")

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
    kind : {'conv', 'dense', 'identity'}
        ``'conv'``: weights (channels of post, channels of pre, kernel, kernel), as in torch.
        ``'dense'``: weights (neurons of post, pooled neurons of pre), in the order of the neuron index.
        ``'identity'``: weight 1 from channel to like channel, a type-A shortcut; missing channels stay empty.
    kernel, stride, padding : int
        Of a convolution; an identity projection has a stride only.
    pool : int
        Side of the average-pooling window before the projection. Pooling is linear: each spike
        counts 1 / pool**2, and there are no pooling neurons.
    residual : bool
        Whether this is a convolution of a residual branch (it has an initialisation of its own).
    """

    pre: str
    post: str
    kind: str = "conv"
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    pool: int = 1
    residual: bool = False

    def __post_init__(self) -> None:
        if self.kind not in PROJECTION_KINDS:
            raise SpecError(f"{self.name}: kind {self.kind!r} is none of {PROJECTION_KINDS}")
        if min(self.kernel, self.stride, self.pool) < 1 or self.padding < 0:
            raise SpecError(f"{self.name}: kernel, stride and pool must be at least 1, padding at least 0")
        if self.kind != "conv" and (self.kernel, self.padding) != (1, 0):
            raise SpecError(f"{self.name}: only a convolution has a kernel and padding")
        if self.kind == "dense" and self.stride != 1:
            raise SpecError(f"{self.name}: a dense projection has no stride")

    @property
    def name(self) -> str:
        return f"{self.pre}_to_{self.post}"

    @property
    def weighted(self) -> bool:
        """Whether the projection has trained weights."""
        return self.kind != "identity"


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
        if joined & set(names):
            raise SpecError(f"{self.name}: {min(joined & set(names))} is the name of a population and of a projection")
        if len(joined) < len(self.projections):
            raise SpecError(f"{self.name}: two projections join the same populations")
        for projection in self.projections:
            self._check(projection, names)
        for name in names[1:]:
            if not self.incoming(name):
                raise SpecError(f"{self.name}: population {name} has no incoming projection")

    def _check(self, projection: Projection, names: list[str]) -> None:
        for end in (projection.pre, projection.post):
            if end not in names:
                raise SpecError(f"{projection.name}: there is no population {end!r}")
        if names.index(projection.pre) >= names.index(projection.post):
            raise SpecError(f"{projection.name}: {projection.post} must come after {projection.pre}")
        height, width, channels = self[projection.pre].shape
        if height % projection.pool or width % projection.pool:
            raise SpecError(f"{projection.name}: pooling by {projection.pool} does not divide {height}x{width}")
        if projection.kind == "dense":
            return
        reach = projection.kernel - 2 * projection.padding
        out = tuple((size // projection.pool - reach) // projection.stride + 1 for size in (height, width))
        post = self[projection.post].shape
        if post[:2] != out:
            raise SpecError(f"{projection.name}: gives {out[0]}x{out[1]}, but {projection.post} is {post[0]}x{post[1]}")
        if projection.kind == "identity" and post[2] < channels:
            raise SpecError(f"{projection.name}: an identity cannot go from {channels} to {post[2]} channels")

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
    def residual(self) -> tuple[Population, ...]:
        """The spiking populations at either end of residual branches and shortcuts: those of constraint 2."""
        ends = {end for p in self.projections if p.residual or not p.weighted for end in (p.pre, p.post)}
        return tuple(population for population in self.spiking if population.name in ends)

    def incoming(self, name: str) -> tuple[Projection, ...]:
        return tuple(projection for projection in self.projections if projection.post == name)

    def outgoing(self, name: str) -> tuple[Projection, ...]:
        return tuple(projection for projection in self.projections if projection.pre == name)

    def weight_shape(self, projection: Projection) -> tuple[int, ...]:
        """Shape of the weights, as stored in checkpoints; () for an identity."""
        height, width, channels = self[projection.pre].shape
        post = self[projection.post]
        if projection.kind == "conv":
            return (post.shape[2], channels, projection.kernel, projection.kernel)
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
        if projection.kind == "dense":
            return np.full((height, width, channels), post.size)
        along = [
            np.repeat(_reached(size // projection.pool, out, projection), projection.pool)
            for size, out in zip((height, width), post.shape[:2], strict=True)
        ]
        targets = 1 if projection.kind == "identity" else post.shape[2]
        plane = np.multiply.outer(along[0], along[1]) * targets
        return np.repeat(plane[:, :, None], channels, axis=2)

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
        """The description as plain data, for JSON; without clips that are at their default."""
        data = asdict(self)
        for population in data["populations"]:
            if not population["clip"]:
                del population["clip"]
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
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SpecError(f"not a network description: {error}") from error


def _reached(size: int, out: int, projection: Projection) -> np.ndarray:
    """For each of ``size`` positions along an axis: the number of output positions whose kernel covers it."""
    first = np.arange(out) * projection.stride - projection.padding
    position = np.arange(size)[:, None]
    return ((position >= first) & (position < first + projection.kernel)).sum(axis=1)
