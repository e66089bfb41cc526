"""What surrounds the steps of a run: image after image is shown, spikes are noted and counted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from brian2 import Group, NetworkOperation, get_device, seed
from brian2.core.variables import ArrayVariable

from netspec.errors import UserError
from sims.brian.codeobjects import TemplateRunner, is_standalone
from sims.simulation.neuron_models import OWN_VARIABLES, NeuronModel
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
    models : mapping of str to NeuronModel
        Of the spiking populations.
    batch : int
        Images that are shown side by side.

    Attributes
    ----------
    objects : list of BrianObject
        To be added to the network.
    """

    def __init__(
        self, wiring: Wiring, groups: Mapping[str, Group], models: Mapping[str, NeuronModel], batch: int = 1
    ) -> None:
        self.spec, self.groups, self.batch = wiring.spec, groups, batch
        self.states = {name: states(groups[name], model) for name, model in models.items()}
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
        used: dict[str, Any] = {
            "rates": INPUT_GROUPS,
            "v": potentials,
            "_spikespace": self.counted,
            "spike_count": self.counted,
        }
        used |= {variable: self.states for variable in ("I", "driven", "measured", "peak")}
        references = {f"{kind}_{name}": (self.groups[name], kind) for kind, names in used.items() for name in names}
        marked = [name for name in self.states if "reached" in self.groups[name].variables]
        references |= {f"reached_{name}": (self.groups[name], "reached") for name in marked}
        states = [(name, variable, value) for name, own in self.states.items() for variable, value in own.items()]
        references |= {f"{variable}_{name}": (self.groups[name], variable) for name, variable, _ in states}
        return TemplateRunner(
            self.groups[next(iter(INPUT_GROUPS))],  # whose clock it follows
            f"presentation_{when}",
            when,
            f"presentation_{when}",
            variables=("dt", "t_in_timesteps"),
            references=references,
            settings={
                "batch": self.batch,
                "signs": INPUT_GROUPS,
                "n_input": self.spec.input.size,
                "n_output": self.spec.output.size,
                "output": self.spec.output.name,
                "potentials": list(potentials.items()),
                "spiking": [(name, potentials[name]) for name in self.states],
                "states": [(f"{variable}_{name}", potentials[name], value, name) for name, variable, value in states],
                "marked": [(name, self.groups[name].variables["reached"].size) for name in marked],
                "counted": list(self.counted.items()),
            },
            order=order,
        )

    def open(self, given: RunInput, constant: Mapping[str, np.ndarray], progress: Progress | None = None) -> None:
        """Begin with the first image of a checked RunInput at the next step (not in C++ standalone).

        ``constant`` is the input that neurons get in every step, as of :func:`constant_input`.
        """
        self._given, self._constant, self._progress, self._step = given, constant, progress, 0
        self._keys = presentation_keys(given.seed, given.numbers)
        self._random = get_device().get_random_state()  # the caller's
        presentations, output = len(given.x), self.spec.output
        self._counts = np.zeros((presentations, sum(self.counted.values())), dtype=np.uint16)
        self._output_v = np.zeros((presentations, given.steps, output.size), dtype=np.float32)
        self._fired: dict[str, list[np.ndarray]] = {name: [] for name in (output.name, *given.rasters)}

    def leave(self) -> None:
        """Give up a run, or end it; the network may run by itself again."""
        self._given = None
        get_device().set_random_state(self._random)

    def close(self) -> Recording:
        """End the run; what was recorded."""
        given, none = self._given, np.zeros((0, 2), dtype=np.int32)
        assert given is not None
        self.leave()
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
        given = self._given
        if given is None:  # the network runs by itself: other random numbers in each step
            for name in INPUT_GROUPS:
                self._variable(name, "step")[:] += 1
            return
        presentation, step = divmod(self._step, given.steps)
        for name in INPUT_GROUPS:
            self._variable(name, "step")[:] = step
            if step == 0 or given.coding == "events":
                self._variable(name, "key")[:] = self._keys[presentation].view(np.int64)
                probability = given.probability(name, presentation, step)
                self._variable(name, "rates")[:] = probability / np.float64(self.groups[name].clock.dt)  # in 64 bits
        if step == 0:
            seed(int(self._keys[presentation] % 2**32))  # of what models and objects of one's own draw
            for population in self.spec.populations[1:]:
                self._variable(population.name, "v")[:] = given.initial.get(population.name, 0)
            for name, own in self.states.items():
                for variable, value in own.items():
                    self._variable(name, variable)[:] = self._variable(name, "v") if value == "v" else value
                current = self._constant.get(name)
                self._variable(name, "driven")[:] = current is not None
                self._variable(name, "I")[:] = 0 if current is None else current[presentation % len(current)]
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


def states(group: Group, model: NeuronModel) -> dict[str, float | str]:
    """The variables of a model's own that change, and where each begins a presentation, as of its ``initial``."""
    found: dict[str, float | str] = {}
    for name, variable in group.variables.items():
        changes = isinstance(variable, ArrayVariable) and variable.owner.name == group.name and not variable.constant
        if changes and variable.size == len(group) and not name.startswith("_") and name not in (*OWN_VARIABLES, "v"):
            begins = model.initial.get(name, 0)
            found[name] = begins if begins == "v" else float(begins)
    if unknown := set(model.initial) - set(found):
        raise UserError(f"neuron model {model.name}: {', '.join(sorted(unknown))} is no variable of it that changes")
    return found
