"""A NetSpec as a Brian2 network: NeuronGroups, PoissonGroups, synapses and the order of a time step."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
from brian2 import Group, Network, NeuronGroup, PoissonGroup, Synapses, defaultclock, ms

from netspec.errors import UserError
from netspec.spec import NetSpec, Population, Projection
from sims.recording import counted_groups
from sims.synapses.codeobjects import TemplateRunner, is_standalone
from sims.synapses.geometry import Geometry, as_convolution, connections, pack_kernel
from sims.synapses.neurons import IFThresholder, PoissonThresholder
from sims.synapses.packing import kernel_offsets
from sims.synapses.shared import SharedProjection

__all__ = ["DT", "RESETS", "SYNAPSES", "SpikingNetwork"]

DT = 1 * ms  # the dynamics do not depend on it (section 4.2); one step is shown as 1 ms
SYNAPSES = ("shared", "explicit")
RESETS = {"zero": "v = 0", "subtract": "v -= v_th"}

EXPLICIT_BYTES = 64  # of a connection while stock synapses are made: indices, weight, and copies of them

IF_EQUATIONS = """
v : 1                          # membrane potential, without leak (equation 2 of the paper)
v_th : 1 (shared, constant)    # firing threshold
spike_count : integer          # in this presentation
"""
SHARED_EQUATIONS = """
measured : integer (shared)    # whether the synaptic input is measured instead of integrated
peak : 1                       # largest synaptic input of one step while measured
"""
RELAY_EQUATIONS = """
v : 1                          # the synaptic input of this step
"""
FLOATS = dict.fromkeys(("v", "v_th", "peak", "w"), np.float32)
COUNTS = dict.fromkeys(("spike_count", "measured"), np.int32)


class SpikingNetwork:
    """The spiking network of a NetSpec for the active Brian2 device.

    Parameters
    ----------
    spec : NetSpec
    weights : mapping of str to numpy.ndarray, optional
        Weights of each weighted projection. Shared synapses in C++ standalone take them at run time.
    synapses : {'shared', 'explicit'}
        This project's shared-weight synapses, or one stock ``Synapses`` a projection with a ``w`` for each
        connection. Both give the same spikes.
    reset : {'zero', 'subtract'}
        What a spike leaves of the membrane potential: nothing (the paper), or what exceeds the threshold.
    half : bool
        Shared synapses in C++ standalone are given their weights in half precision.

    Attributes
    ----------
    network : brian2.Network
        Ordinary and open: add monitors and groups before running.
    groups : dict of str to Group
        ``input_on`` and ``input_off``, then the populations by name; also ``snn["conv1_1"]``.
    projections : dict of str to SharedProjection or Synapses
    """

    def __init__(
        self,
        spec: NetSpec,
        weights: Mapping[str, np.ndarray] | None = None,
        synapses: str = "shared",
        reset: str = "zero",
        half: bool = False,
    ) -> None:
        if synapses not in SYNAPSES or reset not in RESETS:
            raise ValueError(f"synapses must be one of {SYNAPSES}, reset one of {tuple(RESETS)}")
        if weights is None and not (synapses == "shared" and is_standalone()):
            raise ValueError("weights are needed, except for shared synapses in C++ standalone")
        if synapses == "explicit":
            check_memory(spec)
        self.spec, self.synapses, self.reset, self.half = spec, synapses, reset, half
        defaultclock.dt = DT
        self.network = Network()
        self.network.schedule = time_step(spec)
        self.groups = {f"input_{sign}": self._input(f"input_{sign}") for sign in ("on", "off")}
        for population in spec.populations[1:]:
            self.groups[population.name] = self._population(population)
        self.projections: dict[str, SharedProjection | Synapses] = {}
        offsets = kernel_offsets(spec)
        for projection in spec.projections:
            given = None if weights is None else as_convolution(spec, projection, weights.get(projection.name))
            self._project(projection, given, offsets.get(projection.name, 0))
        self.network.add(*self.groups.values(), *self.projections.values())
        if is_standalone():
            self.network.add(Presentation(self, "start"), Presentation(self, "end"))

    def __getitem__(self, name: str) -> NeuronGroup | PoissonGroup:
        return self.groups[name]

    @property
    def counted(self) -> dict[str, int]:
        """Names and sizes of the groups whose spikes are counted, in order."""
        return counted_groups(self.spec)

    def _input(self, name: str) -> PoissonGroup:
        size = self.spec.input.size
        group = PoissonGroup(size, rates=np.zeros(size) / DT, name=name)
        PoissonThresholder(group, when="fire_input")
        return group

    def _population(self, population: Population) -> NeuronGroup:
        options = {"name": population.name, "dtype": FLOATS | COUNTS}
        if population.kind == "relay":
            group = NeuronGroup(population.size, RELAY_EQUATIONS, threshold="v != 0", reset="v = 0", **options)
        else:
            equations = IF_EQUATIONS + (SHARED_EQUATIONS if self.synapses == "shared" else "")
            reset = RESETS[self.reset] + "\nspike_count += 1"
            group = NeuronGroup(population.size, equations, threshold="v >= v_th", reset=reset, **options)
        if population.kind == "if" and self.synapses == "shared":
            IFThresholder(group, population.size // population.shape[-1], self.reset, when=f"fire_{population.name}")
            return group
        group.set_event_schedule("spike", when=f"fire_{population.name}")
        # a relay is cleared only when its value has crossed all its projections
        group.resetter["spike"].when = "resets" if population.kind == "relay" else f"reset_{population.name}"
        return group

    def _project(self, projection: Projection, weights: np.ndarray | None, offset: int) -> None:
        graded = self.spec[projection.pre].kind == "relay"
        signs = {"input_on": 1, "input_off": -1} if projection.pre == self.spec.input.name else {projection.pre: 1}
        for pre, sign in signs.items():
            name, when = f"{pre}_to_{projection.post}", f"arrive_{projection.post}"
            ends = (self.groups[pre], self.groups[projection.post])
            geometry = Geometry.of(self.spec, projection)
            if self.synapses == "shared":
                kernel = None if weights is None or geometry.identity else pack_kernel(geometry, weights)
                made = SharedProjection(*ends, geometry, kernel, offset, self.half, sign, graded, when, name)
            else:
                assert weights is not None
                made = explicit_synapses(*ends, geometry, sign * weights, graded, when, name)
            self.projections[name] = made


def check_memory(spec: NetSpec) -> None:
    """Raise UserError if explicit synapses cannot fit into this machine's memory."""
    needed = EXPLICIT_BYTES * sum(spec.synapses(projection) for projection in spec.projections)
    available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > available:
        raise UserError(
            f"explicit synapses of {spec.name} need about {needed / 1e9:.1f} GB while they are made, this machine has "
            f"{available / 1e9:.1f} GB; use shared synapses or a narrower network"
        )


def explicit_synapses(
    pre: NeuronGroup, post: NeuronGroup, geometry: Geometry, weights: np.ndarray, graded: bool, when: str, name: str
) -> Synapses:
    """A stock ``Synapses`` with a weight ``w`` for each connection of the projection."""
    effect = "v_post += w * v_pre" if graded else "v_post += w"
    synapses = Synapses(pre, post, "w : 1 (constant)", on_pre=effect, delay=0 * ms, dtype=FLOATS, name=name)
    i, j, w = connections(geometry, weights)
    if len(i):
        synapses.connect(i=i, j=j)
        synapses.w = w
    else:  # padding and stride can leave nothing
        synapses.connect(False)
    synapses.pre.when = when
    return synapses


class Presentation(TemplateRunner):
    """The compiled network's frame: shows image after image, notes spikes and counts (C++ standalone).

    Parameters
    ----------
    snn : SpikingNetwork
    when : {'start', 'end'}
        First slot of a step: the next image, membranes cleared. Last slot: rasters, spike counts, the output's
        membrane potentials.
    """

    def __init__(self, snn: SpikingNetwork, when: str) -> None:
        output = snn.spec.output.name
        potentials = [(p.name, p.size) for p in snn.spec.populations[1:]]
        references: dict[str, tuple[Group, str]] = {}
        if when == "start":
            references |= {f"rates_{sign}": (snn[f"input_{sign}"], "rates") for sign in ("on", "off")}
            references |= {f"v_{name}": (snn[name], "v") for name, _ in potentials}
        else:
            references |= {f"spikes_{name}": (snn[name], "_spikespace") for name in snn.counted}
            references |= {f"count_{name}": (snn[name], "spike_count") for name in snn.counted}
            references["output_v"] = (snn[output], "v")
        TemplateRunner.__init__(
            self,
            snn["input_on"],
            f"presentation_{when}",
            when,
            f"presentation_{when}",
            variables=("dt", "t_in_timesteps"),
            references=references,
            settings={
                "n_input": snn.spec.input.size,
                "n_output": snn.spec.output.size,
                "output": output,
                "potentials": potentials,
                "counted": list(snn.counted.items()),
            },
            order=-1 if when == "start" else 1,
        )


def time_step(spec: NetSpec) -> list[str]:
    """The slots of a time step: a spike crosses all layers within it ("pseudo-simultaneous", section 4.1)."""
    names = [population.name for population in spec.populations[1:]]
    layers = [f"{slot}_{name}" for name in names for slot in ("arrive", "fire", "reset")]
    return ["start", "groups", "thresholds", "fire_input", *layers, "synapses", "resets", "end"]
