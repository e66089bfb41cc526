"""Thresholds of integrate-and-fire and Poisson neurons that touch no more than they must."""

from __future__ import annotations

import numpy as np
from brian2 import NeuronGroup, PoissonGroup

from sims.synapses.codeobjects import NumpyTemplates, TemplateRunner, is_standalone

__all__ = ["IFThresholder", "PoissonThresholder"]


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
    """Poisson spikes from counted random numbers (:mod:`sims.synapses.draws`).

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
