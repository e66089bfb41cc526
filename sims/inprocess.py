"""Running a network in this process, with Brian2's numpy or Cython target."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import numpy as np
from brian2 import NetworkOperation, prefs

from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.network import DT, SpikingNetwork
from sims.recording import Recording
from sims.runtime import Progress, RunInput
from sims.stimulus import presentation_keys

__all__ = ["InProcessSimulator"]


class InProcessSimulator:
    """A SpikingNetwork that lives in this process and can be looked into between runs.

    Parameters
    ----------
    spec, weights, synapses, reset
        As for :class:`~sims.network.SpikingNetwork`.
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
        if target == "cython" and not (shutil.which("gcc") or shutil.which("cc") or shutil.which("cl")):
            raise UserError("no C++ compiler found, which Cython needs; install g++, or choose --runtime numpy")
        prefs.codegen.target = target
        self.spec = spec
        self.snn = SpikingNetwork(spec, weights, synapses, reset)
        self._frame: Frame | None = None
        network = self.snn.network
        network.add(NetworkOperation(self._start, when="start", order=-1, name="presentation_start"))
        network.add(NetworkOperation(self._end, when="end", order=1, name="presentation_end"))

    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images one after another and give back what was recorded."""
        given = run_input.checked(self.spec)
        if given.measured and self.snn.synapses != "shared":
            raise UserError("synaptic input is measured with shared synapses only")
        for name, threshold in given.thresholds.items():
            group = self.snn[name]
            group.v_th = threshold
            if self.snn.synapses == "shared":
                group.measured = int(name in given.measured)
                group.peak = 0
        self._frame = frame = Frame(self.snn, given, progress)
        self.snn.network.run(len(given.x) * given.steps * DT, namespace={})
        return frame.recording()

    def _start(self) -> None:
        assert self._frame is not None
        self._frame.start()

    def _end(self) -> None:
        assert self._frame is not None
        self._frame.end()


class Frame:
    """One run's presentations: shows the images, notes the spikes; the counterpart of presentation_*.cpp."""

    def __init__(self, snn: SpikingNetwork, given: RunInput, progress: Progress | None) -> None:
        self.snn, self.given, self.progress = snn, given, progress
        self.keys = presentation_keys(given.seed, given.numbers)
        self.step = 0
        presentations, steps = len(given.x), given.steps
        self.counts = np.zeros((presentations, sum(snn.counted.values())), dtype=np.uint16)
        self.output_v = np.zeros((presentations, steps, snn.spec.output.size), dtype=np.float32)
        self.fired: dict[str, list] = {name: [] for name in (snn.spec.output.name, *given.rasters)}

    def _variable(self, group: str, variable: str) -> np.ndarray:
        return self.snn[group].variables[variable].get_value()

    def start(self) -> None:
        """In the first slot of each step: the next image, membranes cleared."""
        presentation, step = divmod(self.step, self.given.steps)
        for sign, side in (("input_on", 1), ("input_off", -1)):
            self._variable(sign, "step")[:] = step
            if step == 0:
                self._variable(sign, "key")[:] = self.keys[presentation].view(np.int64)
                rates = np.maximum(side * self.given.x[presentation].ravel(), 0) / np.float64(DT)
                self._variable(sign, "rates")[:] = rates
        if step == 0:
            for population in self.snn.spec.populations[1:]:
                self._variable(population.name, "v")[:] = 0
            for name in self.snn.counted:  # a run may have been interrupted
                self._variable(name, "spike_count")[:] = 0

    def end(self) -> None:
        """In the last slot of each step: rasters, and at the end of a presentation the spike counts."""
        presentation, step = divmod(self.step, self.given.steps)
        output = self.snn.spec.output.name
        self.output_v[presentation, step] = self._variable(output, "v")
        for name, fired in self.fired.items():
            if name == output or presentation < self.given.raster_presentations:
                spikes = self.snn[name].spikes
                fired.append(np.stack([np.full_like(spikes, self.step), spikes], axis=1))
        self.step += 1
        if step + 1 == self.given.steps:
            self.counts[presentation] = np.concatenate(
                [self._variable(name, "spike_count") for name in self.snn.counted]
            )
        if self.progress:
            self.progress(self.step)

    def recording(self) -> Recording:
        none = np.zeros((0, 2), dtype=np.int32)
        return Recording(
            self.snn.spec,
            self.given.steps,
            self.counts,
            self.output_v,
            {name: np.concatenate([none, *fired]) for name, fired in self.fired.items()},
            {name: self._variable(name, "peak").copy() for name in self.given.measured},
            self.given.describe(),
        )
