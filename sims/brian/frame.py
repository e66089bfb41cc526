"""What surrounds the steps of a run: image after image is shown, spikes are noted and counted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from brian2 import Group, NetworkOperation

from sims.brian.codeobjects import TemplateRunner, is_standalone
from sims.simulation.recording import Recording
from sims.simulation.run_input import Progress, RunInput
from sims.simulation.stimulus import presentation_keys
from sims.simulation.wiring import INPUT_GROUPS, Wiring, counted_groups

__all__ = ["Frame"]


class Frame:
    """Shows the images of a run and notes its spikes, in the compiled network and in this process alike.

    In the first slot of a step: the next image, if it is time for it, and membranes cleared. In the last slot: rasters,
    the output's membrane potentials, and at the end of a presentation the spike counts. In C++ standalone this is done
    by the templates ``presentation_*.cpp``, from and to files; in this process by :meth:`_start` and :meth:`_end`,
    between :meth:`open` and :meth:`close`. Otherwise the network runs as it is.

    Parameters
    ----------
    wiring : Wiring
    groups : mapping of str to Group
        All groups of the network, by name.

    Attributes
    ----------
    objects : list of BrianObject
        To be added to the network.
    """

    def __init__(self, wiring: Wiring, groups: Mapping[str, Group]) -> None:
        self.spec, self.groups = wiring.spec, groups
        self.counted = counted_groups(self.spec)
        self._given: RunInput | None = None
        if is_standalone():
            self.objects = [self._compiled("start", -1), self._compiled("end", 1)]
        else:
            self.objects = [
                NetworkOperation(self._start, when="start", order=-1, name="presentation_start"),
                NetworkOperation(self._end, when="end", order=1, name="presentation_end"),
            ]

    def _compiled(self, when: str, order: int) -> TemplateRunner:
        potentials = {population.name: population.size for population in self.spec.populations[1:]}
        used = {"rates": INPUT_GROUPS, "v": potentials, "_spikespace": self.counted, "spike_count": self.counted}
        return TemplateRunner(
            self.groups[next(iter(INPUT_GROUPS))],  # whose clock it follows
            f"presentation_{when}",
            when,
            f"presentation_{when}",
            variables=("dt", "t_in_timesteps"),
            references={f"{kind}_{name}": (self.groups[name], kind) for kind, names in used.items() for name in names},
            settings={
                "signs": INPUT_GROUPS,
                "n_input": self.spec.input.size,
                "n_output": self.spec.output.size,
                "output": self.spec.output.name,
                "potentials": list(potentials.items()),
                "counted": list(self.counted.items()),
            },
            order=order,
        )

    def open(self, given: RunInput, progress: Progress | None = None) -> None:
        """Begin with the first image of a checked RunInput at the next step (not in C++ standalone)."""
        self._given, self._progress, self._step = given, progress, 0
        self._keys = presentation_keys(given.seed, given.numbers)
        presentations, output = len(given.x), self.spec.output
        self._counts = np.zeros((presentations, sum(self.counted.values())), dtype=np.uint16)
        self._output_v = np.zeros((presentations, given.steps, output.size), dtype=np.float32)
        self._fired: dict[str, list[np.ndarray]] = {name: [] for name in (output.name, *given.rasters)}

    def close(self) -> Recording:
        """End the run; what was recorded."""
        given, none = self._given, np.zeros((0, 2), dtype=np.int32)
        assert given is not None
        self._given = None
        return Recording(
            self.spec,
            given.steps,
            self._counts,
            self._output_v,
            {name: np.concatenate([none, *fired]) for name, fired in self._fired.items()},
            {name: self._variable(name, "peak").copy() for name in given.measured},
            given.describe(),
        )

    def _variable(self, group: str, variable: str) -> Any:
        return self.groups[group].variables[variable].get_value()

    def _start(self) -> None:
        if self._given is None:
            return
        presentation, step = divmod(self._step, self._given.steps)
        for name, sign in INPUT_GROUPS.items():
            self._variable(name, "step")[:] = step
            if step == 0:
                self._variable(name, "key")[:] = self._keys[presentation].view(np.int64)
                probability = np.maximum(sign * self._given.x[presentation].ravel(), 0)
                self._variable(name, "rates")[:] = probability / np.float64(self.groups[name].clock.dt)  # in 64 bits
        if step == 0:
            for population in self.spec.populations[1:]:
                self._variable(population.name, "v")[:] = 0
            for name in self.counted:  # a run may have been interrupted
                self._variable(name, "spike_count")[:] = 0

    def _end(self) -> None:
        if self._given is None:
            return
        presentation, step = divmod(self._step, self._given.steps)
        output = self.spec.output.name
        self._output_v[presentation, step] = self._variable(output, "v")
        for name, fired in self._fired.items():
            if name == output or presentation < self._given.raster_presentations:
                spikes = self.groups[name].spikes
                fired.append(np.stack([np.full_like(spikes, self._step), spikes], axis=1))
        self._step += 1
        if step + 1 == self._given.steps:
            self._counts[presentation] = np.concatenate([self._variable(name, "spike_count") for name in self.counted])
        if self._progress:
            self._progress(1)
