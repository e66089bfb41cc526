"""Running a network in this process, with Brian2's numpy or Cython target."""

import os
import shlex
import shutil
from collections.abc import Mapping

import numpy as np
from brian2 import prefs

from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.brian.network import DT, SpikingNetwork
from sims.brian.neurons import errors_in_text
from sims.simulation.arriving import constant_input
from sims.simulation.geometry import checked_weights
from sims.simulation.neuron_models import IF, NeuronModel
from sims.simulation.recording import Recording
from sims.simulation.run_input import Progress, RunInput

__all__ = ["InProcessSimulator"]


class InProcessSimulator:
    """A SpikingNetwork that lives in this process and can be looked into between runs.

    Parameters
    ----------
    spec, weights, synapses, reset, model
        As for :class:`~sims.brian.network.SpikingNetwork`.
    target : {'cython', 'numpy'}
    """

    alone = True  # one run at a time

    def __init__(
        self,
        spec: NetSpec,
        weights: Mapping[str, np.ndarray],
        synapses: str = "shared",
        reset: str = "zero",
        target: str = "cython",
        model: NeuronModel | Mapping[str, NeuronModel] = IF,
    ) -> None:
        compilers = shlex.split(os.environ.get("CC", ""))[:1] or ["gcc", "cc", "cl"]
        if target == "cython" and not any(map(shutil.which, compilers)):
            missing = f"no C++ compiler found, which Cython needs ({compilers[0]} is missing)"
            raise UserError(f"{missing}; install g++, or choose the runtime numpy")
        prefs.codegen.target = target
        self.snn = SpikingNetwork(spec, weights, synapses, reset, model)
        self.spec, self.weights = spec, checked_weights(spec, weights)

    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images one after another and give back what was recorded.

        Names in the text of the user's own objects are looked up where this is called, as Brian2's ``run`` does.
        """
        given = run_input.checked_for(self.spec, self.snn.reset, self.snn.models)
        for name, threshold in given.thresholds.items():
            group = self.snn[name]
            group.v_th = threshold if np.ndim(threshold) == 0 else threshold.ravel()
            group.measured = int(name in given.measured)
            group.peak = 0
        for population in self.spec.emitting:
            self.snn[population.name].spike_value = given.spike_values.get(population.name, 1)
        self.snn.frame.open(given, constant_input(self.spec, self.weights, given), progress)
        try:
            with errors_in_text(self.snn.models):
                self.snn.network.run(len(given.x) * given.steps * DT, level=1)
        except BaseException:
            self.snn.frame.leave()
            raise
        return self.snn.frame.close()
