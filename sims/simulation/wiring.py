"""A NetSpec spelt out for a simulation, once: groups, signs, geometry, places of the kernels, order of a step.

The input becomes two groups: one for the spikes of positive pixels, one for those of negative pixels, whose synapses
have the same weights with the other sign (section 4.1 of the paper).
"""

from dataclasses import dataclass
from functools import cached_property

from netspec.spec import NetSpec, Projection
from sims.simulation.geometry import Geometry

__all__ = ["INPUT_GROUPS", "SYNAPSES", "Wire", "Wiring", "counted_groups", "group_shape"]

INPUT_GROUPS = {"input_on": 1, "input_off": -1}  # groups of the input, and the sign of what their spikes add
SYNAPSES = ("shared", "explicit")  # ways to realise wires in Brian2: shared weights, or one for each connection
ALIGNMENT = 16  # kernels begin at multiples of so many weights


@dataclass(frozen=True)
class Wire:
    """A projection from one group to another.

    Parameters
    ----------
    pre, post : str
        Names of groups: the input's are ``INPUT_GROUPS``, all others bear the names of their populations.
    projection : Projection
    geometry : Geometry
    offset : int
        Where its kernel begins among the packed weights, in numbers.
    """

    pre: str
    post: str
    projection: Projection
    geometry: Geometry
    offset: int

    @property
    def name(self) -> str:
        if self.pre not in INPUT_GROUPS:
            return self.projection.name
        return f"{self.pre}_{self.projection.label}" if self.projection.label else f"{self.pre}_to_{self.post}"

    @property
    def sign(self) -> int:
        """Factor on all weights."""
        return INPUT_GROUPS.get(self.pre, 1)


@dataclass(frozen=True)
class Wiring:
    """All groups and wires of a network, in the order in which a spike crosses them."""

    spec: NetSpec

    @cached_property
    def wires(self) -> tuple[Wire, ...]:
        made = []
        for projection in self.spec.projections:
            geometry, offset = Geometry.of(self.spec, projection), self.offsets.get(projection.name, 0)
            pres = INPUT_GROUPS if projection.pre == self.spec.input.name else [projection.pre]
            made += [Wire(pre, projection.post, projection, geometry, offset) for pre in pres]
        return tuple(made)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where each weighted projection's kernel begins among the packed weights, and under ``''`` where they end."""
        offsets, end = {}, 0
        for projection in self.spec.projections:
            if projection.weighted:
                offsets[projection.name] = end
                end += -(-Geometry.of(self.spec, projection).kernel_size // ALIGNMENT) * ALIGNMENT
        return offsets | {"": end}

    def incoming(self, population: str) -> tuple[Wire, ...]:
        return tuple(wire for wire in self.wires if wire.post == population)

    @property
    def time_step(self) -> list[str]:
        """The slots of a time step: a spike crosses all layers within it ("pseudo-simultaneous", section 4.1)."""
        names = [population.name for population in self.spec.populations[1:]]
        layers = [f"{slot}_{name}" for name in names for slot in ("arrive", "fire", "reset")]
        return ["start", "groups", "thresholds", "fire_input", *layers, "synapses", "resets", "end"]


def counted_groups(spec: NetSpec) -> dict[str, int]:
    """Names and sizes of the groups whose spikes are counted, in order: ON, OFF, the populations that send spikes."""
    sizes = dict.fromkeys(INPUT_GROUPS, spec.input.size)
    return sizes | {population.name: population.size for population in spec.emitting}


def group_shape(spec: NetSpec, name: str) -> tuple[int, int, int]:
    """Shape of a group; ON and OFF have that of the input."""
    return spec[spec.input.name if name in INPUT_GROUPS else name].shape
