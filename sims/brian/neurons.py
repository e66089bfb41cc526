"""The neurons of a network as Brian2 groups: integrate-and-fire, relays, Poisson input; thresholds of their own."""

import numpy as np
from brian2 import Hz, NeuronGroup, PoissonGroup

from netspec.spec import NetSpec, Population
from sims.brian.codeobjects import NumpyTemplates, TemplateRunner, is_standalone

__all__ = ["RESET_CODE", "IFThresholder", "PoissonThresholder", "input_neurons", "neurons"]

RESET_CODE = {"zero": "v = 0", "subtract": "v -= v_th"}

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


def neurons(population: Population, shared: bool, reset: str) -> NeuronGroup:
    """A population; with shared synapses integrate-and-fire neurons have a thresholder of their own."""
    name, options = population.name, {"name": population.name, "dtype": FLOATS | COUNTS}
    if population.kind == "relay":
        group = NeuronGroup(population.size, RELAY_EQUATIONS, threshold="v != 0", reset="v = 0", **options)
    else:
        equations = IF_EQUATIONS + (SHARED_EQUATIONS if shared else "")
        options["reset"] = RESET_CODE[reset] + "\nspike_count += 1"
        group = NeuronGroup(population.size, equations, threshold="v >= v_th", **options)
    if population.kind == "if" and shared:
        IFThresholder(group, population.size // population.shape[-1], reset, when=f"fire_{name}")
        return group
    group.set_event_schedule("spike", when=f"fire_{name}")
    # a relay is cleared only when its value has crossed all its projections
    group.resetter["spike"].when = "resets" if population.kind == "relay" else f"reset_{name}"
    return group


def input_neurons(spec: NetSpec, name: str) -> PoissonGroup:
    """The input's neurons of one sign."""
    group = PoissonGroup(spec.input.size, rates=np.zeros(spec.input.size) * Hz, name=name)
    PoissonThresholder(group, when="fire_input")
    return group


class IFThresholder(TemplateRunner):
    """Threshold, reset and spike count of integrate-and-fire neurons in one pass.

    Takes the place of the group's stock thresholder and resetter and gives the same spikes. In C++ standalone only
    pixels are visited that a projection has found to reach threshold, and marked in the variable ``reached``. A
    group whose ``measured`` is set does not fire: its ``v`` holds the synaptic input of one step, the largest of
    which is kept for each neuron in ``peak`` (Algorithm 1 of the paper, line 9).

    Parameters
    ----------
    group : NeuronGroup
    pixels : int
        Places of the population, each with as many neurons as there are channels.
    reset : {'zero', 'subtract'}
    when : str
        Scheduling slot.
    """

    def __init__(self, group: NeuronGroup, pixels: int, reset: str, when: str) -> None:
        variables = ["_spikespace", "v", "v_th", "spike_count", "peak", "measured"]
        if is_standalone():
            group.variables.add_array("reached", size=pixels, dtype=np.int8)
            variables.append("reached")
        TemplateRunner.__init__(
            self,
            group,
            "if_threshold",
            when,
            f"{group.name}_if_thresholder",
            variables=variables,
            settings={"n": len(group), "pixels": pixels, "subtract": reset == "subtract"},
        )
        for stock in (group.thresholder["spike"], group.resetter.pop("spike")):
            group.contained_objects.remove(stock)
        group.thresholder["spike"] = self  # where a SpikeMonitor looks for its slot
        group.contained_objects.append(self)


class PoissonThresholder(TemplateRunner):
    """Poisson spikes from counted random numbers (:mod:`sims.simulation.stimulus`).

    Takes the place of the stock thresholder of a PoissonGroup, ``rand() < rates * dt``. The spikes of an image
    depend on its key alone: not on the device, nor on the images before it, nor on how many there are.
    """

    def __init__(self, group: PoissonGroup, when: str) -> None:
        group.variables.add_array("spike_count", size=len(group), dtype=np.int32)
        variables = ["_spikespace", "rates", "dt", "spike_count"]
        if is_standalone():
            variables.append("t_in_timesteps")
        else:  # numpy serves Cython too: the input is a small part of the work
            group.variables.add_array("step", size=1, dtype=np.int32, scalar=True)
            group.variables.add_array("key", size=1, dtype=np.int64, scalar=True)
            variables += ["step", "key"]
        TemplateRunner.__init__(
            self,
            group,
            "poisson_threshold",
            when,
            f"{group.name}_poisson_thresholder",
            variables=variables,
            settings={"n": len(group)},
            codeobj_class=None if is_standalone() else NumpyTemplates,
        )
        group.contained_objects.remove(group.thresholder["spike"])
        group.thresholder["spike"] = self
        group.contained_objects.append(self)
