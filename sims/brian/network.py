"""A NetSpec as a Brian2 network: NeuronGroups, PoissonGroups, synapses and the order of a time step."""

from collections.abc import Mapping

import numpy as np
from brian2 import Network, NeuronGroup, PoissonGroup, Synapses, defaultclock, get_device, ms

from netspec.errors import UserError
from netspec.spec import NetSpec
from netspec.thresholds import RESETS
from sims.brian.codeobjects import TemplateRunner, is_standalone
from sims.brian.frame import Frame
from sims.brian.neurons import errors_in_text, input_neurons, max_pooling, relays, spiking_neurons
from sims.brian.packing import pack_kernel
from sims.brian.synapses import MaxPooling, SharedProjection, check_memory, explicit_synapses
from sims.simulation.geometry import as_convolution, checked_weights, joined
from sims.simulation.neuron_models import IF, NeuronModel, models_of
from sims.simulation.wiring import INPUT_GROUPS, SYNAPSES, Wire, Wiring

__all__ = ["DT", "SpikingNetwork"]

UNTHRESHOLDED = {"relay": relays, "max": max_pooling}  # kinds of populations without IF neurons
DT = 1 * ms  # the dynamics do not depend on it (section 4.2); one step is shown as 1 ms


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
    model : NeuronModel or mapping of str to NeuronModel
        Of all spiking populations, or of some; the others are IF neurons.
    half : bool
        Shared synapses in C++ standalone are given their weights in half precision.
    open : bool
        In C++ standalone: every neuron is visited in every step, since objects of the user's own may move it.
    batch : int
        Images side by side, with shared synapses in C++ standalone: every group holds the neurons of the first image,
        then those of the second, ... A step takes a layer for all of them, while its weights are in the caches.

    Attributes
    ----------
    network : brian2.Network
        Ordinary and open: add monitors and groups before running.
    groups : dict of str to Group
        ``input_on`` and ``input_off``, then the populations by name; also ``snn["conv1_1"]``.
    projections : dict of str to SharedProjection, MaxPooling or Synapses
    frame : Frame
        Shows the images of a run and notes its spikes.
    """

    def __init__(
        self,
        spec: NetSpec,
        weights: Mapping[str, np.ndarray] | None = None,
        synapses: str = "shared",
        reset: str = "zero",
        model: NeuronModel | Mapping[str, NeuronModel] = IF,
        half: bool = False,
        open: bool = False,
        batch: int = 1,
    ) -> None:
        if synapses not in SYNAPSES or reset not in RESETS:
            raise ValueError(f"synapses must be one of {SYNAPSES}, reset one of {RESETS}")
        if weights is None and not (synapses == "shared" and is_standalone()):
            raise ValueError("weights are needed, except for shared synapses in C++ standalone")
        if synapses == "explicit":
            check_memory(spec)
        weights = None if weights is None else checked_weights(spec, weights)
        if is_standalone() and not getattr(get_device(), "takes_run_input", False):
            raise UserError("in C++ standalone a SpikingNetwork is made by StandaloneSimulator(..., prepare=FUNCTION)")
        self.spec, self.synapses, self.reset, self.half, self.batch = spec, synapses, reset, half, batch
        self.models = models = models_of(spec, model)
        defaultclock.dt = DT
        self.network = Network()
        self.wiring = Wiring(spec)
        self.network.schedule = self.wiring.time_step
        self.groups: dict[str, NeuronGroup | PoissonGroup] = {
            name: input_neurons(spec, name, batch) for name in INPUT_GROUPS
        }
        for population in spec.populations[1:]:
            if population.kind in UNTHRESHOLDED:
                self.groups[population.name] = UNTHRESHOLDED[population.kind](population, batch)
            else:
                own, marks = models[population.name], synapses == "shared" and not open
                with errors_in_text({population.name: own}):
                    self.groups[population.name] = spiking_neurons(population, own, reset, marks, batch)
        self.projections = {wire.name: self._project(wire, weights) for wire in self.wiring.wires}
        self.frame = Frame(self.wiring, self.groups, models, batch)
        self.network.add(*self.groups.values(), *self.projections.values(), *self.frame.objects)

    def __getitem__(self, name: str) -> NeuronGroup | PoissonGroup:
        return self.groups[name]

    def _project(self, wire: Wire, weights: Mapping[str, np.ndarray] | None) -> TemplateRunner | Synapses:
        given, pooling = None, wire.projection.kind == "window"
        if weights is not None and not pooling:
            given = as_convolution(self.spec, wire.projection, weights.get(wire.projection.name))
        graded = self.spec[wire.projection.pre].kind == "relay"
        pre, post, when = self.groups[wire.pre], self.groups[wire.post], f"arrive_{wire.post}"
        # sums of several projections are rounded alike in a network and in a part of it, which has another input
        names = sorted(projection.name for projection in self.spec.incoming(wire.post))
        order = names.index(wire.projection.name)
        if self.synapses == "shared" and pooling:
            return MaxPooling(pre, post, wire.geometry, when, wire.name, self.batch)
        if self.synapses == "shared":
            kernel = None if given is None or wire.geometry.identity else pack_kernel(given, wire.geometry.groups)
            return SharedProjection(
                *(pre, post, wire.geometry, kernel, wire.offset, self.half, wire.sign, graded, when, wire.name, order),
                batch=self.batch,
            )
        signed = None if given is None else wire.sign * given
        where = joined(self.spec, wire.projection)
        return explicit_synapses(pre, post, wire.geometry, signed, where, graded, when, wire.name, order)
