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
from sims.simulation.recording import Recording
from sims.simulation.run_input import Progress, RunInput

__all__ = ["InProcessSimulator"]


class InProcessSimulator:
    """A SpikingNetwork that lives in this process and can be looked into between runs.

    Parameters
    ----------
    spec, weights, synapses, reset
        As for :class:`~sims.brian.network.SpikingNetwork`.
    target : {'cython', 'numpy'}
    """

    def __init__(
        self,
        spec: NetSpec,
        weights: Mapping[str, np.ndarray],
        synapses: str = "shared",
        reset: str = "zero",
        target: str = "cython",
    ) -> None:
        compilers = shlex.split(os.environ.get("CC", ""))[:1] or ["gcc", "cc", "cl"]
        if target == "cython" and not any(map(shutil.which, compilers)):
            missing = f"no C++ compiler found, which Cython needs ({compilers[0]} is missing)"
            raise UserError(f"{missing}; install g++, or choose the runtime numpy")
        prefs.codegen.target = target
        self.spec = spec
        self.snn = SpikingNetwork(spec, weights, synapses, reset)

    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images one after another and give back what was recorded."""
        given = run_input.checked(self.spec, measurable=self.snn.synapses == "shared")
        for name, threshold in given.thresholds.items():
            group = self.snn[name]
            group.v_th = threshold
            if self.snn.synapses == "shared":
                group.measured = int(name in given.measured)
                group.peak = 0
        self.snn.frame.open(given, progress)
        self.snn.network.run(len(given.x) * given.steps * DT, namespace={})
        return self.snn.frame.close()
