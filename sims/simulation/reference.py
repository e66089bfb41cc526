"""The same network, simulated densely by torch, step by step: what Brian2 is compared with, spike for spike."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from netspec.ann import largest
from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.simulation.arriving import arriving, constant_input, kernel, neurons
from sims.simulation.neuron_models import IF, MODELS, NeuronModel, models_of
from sims.simulation.recording import Recording
from sims.simulation.run_input import Progress, RunInput
from sims.simulation.stimulus import presentation_keys, spike_probability_draws
from sims.simulation.wiring import INPUT_GROUPS, counted_groups, group_shape

__all__ = ["ReferenceSimulator"]

State = dict[str, Tensor]


def leaky(state: State, parameters: Mapping[str, float]) -> None:
    state["v"] *= parameters["leak"]


def refractory(state: State, parameters: Mapping[str, float]) -> None:
    rest = state.setdefault("rest", torch.zeros_like(state["v"]))
    state["v"][rest > 0] = 0
    rest -= (rest > 0).float()


def rest(state: State, parameters: Mapping[str, float], spikes: Tensor) -> None:
    state["rest"][spikes] = int(parameters["period"])


def lif(state: State, parameters: Mapping[str, float]) -> None:
    last = state.setdefault("last", torch.zeros_like(state["v"]).double())  # as Brian2 has a model's own variables
    state["v"] = (state["v"] - parameters["decay"] * last).float()
    state["last"] = state["v"].double()


def cuba_lif(state: State, parameters: Mapping[str, float]) -> None:
    last, current = (state.setdefault(name, torch.zeros_like(state["v"]).double()) for name in ("last", "current"))
    current += (state["v"] - last) - parameters["current_decay"] * current
    state["v"] = (last - parameters["decay"] * last + current).float()
    state["last"] = state["v"].double()


def restarted(state: State, parameters: Mapping[str, float], spikes: Tensor) -> None:
    state["v"] = torch.where(spikes, state["v"] + parameters["v_reset"], state["v"])
    state["last"] = state["v"].double()


UPDATES: dict[str, Callable[..., None]] = {  # by the model's name
    "leaky": leaky, "refractory": refractory, "lif": lif, "cuba-lif": cuba_lif
}  # fmt: skip
ON_SPIKE: dict[str, Callable[..., None]] = {"refractory": rest, "lif": restarted, "cuba-lif": restarted}


class ReferenceSimulator:
    """Clock-driven and dense; all presentations side by side. The arguments are those of a SpikingNetwork."""

    def __init__(
        self,
        spec: NetSpec,
        weights: Mapping[str, np.ndarray],
        reset: str = "zero",
        device: str = "cpu",
        model: NeuronModel | Mapping[str, NeuronModel] = IF,
    ) -> None:
        self.spec, self.given_weights, self.reset, self.device = spec, weights, reset, torch.device(device)
        self.models = models_of(spec, model)
        for chosen in self.models.values():
            known = MODELS.get(chosen.name)
            if known is None or replace(chosen, parameters=known.parameters) != known:
                raise UserError(f"the reference knows the neuron models {', '.join(MODELS)}, not {chosen.name}")
        self.weights = {
            p.name: kernel(spec, p, weights).to(self.device) for p in spec.projections if p.kind != "window"
        }

    @torch.no_grad()
    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images and give back what was recorded; every number as from the Brian2 simulators."""
        spec, given = self.spec, run_input.checked(self.spec)
        keys = presentation_keys(given.seed, given.numbers)
        constant = {
            name: torch.from_numpy(values).view(-1, *spec[name].shape).permute(0, 3, 1, 2).to(self.device)
            for name, values in constant_input(spec, self.given_weights, given).items()
        }
        states: dict[str, State] = {}
        for population in spec.spiking:
            v = self._zeros(len(given.x), population.shape)
            if population.name in given.initial:
                v += self._numbers(given.initial[population.name], population.shape)
            states[population.name] = {"v": v}
        thresholds = {name: self._numbers(value, spec[name].shape) for name, value in given.thresholds.items()}
        worth = {name: self._numbers(value, spec[name].shape) for name, value in given.spike_values.items()}
        counts = {name: self._zeros(len(given.x), group_shape(spec, name)) for name in counted_groups(spec)}
        peaks = {name: self._zeros(1, spec[name].shape)[0] for name in given.measured}
        output_v: list[np.ndarray] = []
        fired: dict[str, list[np.ndarray]] = {name: [] for name in (spec.output.name, *given.rasters)}
        for step in range(given.steps):
            groups = {name: _shown(given, name, keys, step).to(self.device) for name in INPUT_GROUPS}
            signed = torch.stack([sign * groups[name] for name, sign in INPUT_GROUPS.items()])
            spikes = {spec.input.name: signed.sum(0)}
            for population in spec.populations[1:]:
                name = population.name
                if population.kind == "max":
                    groups[name] = self._rises(name, counts, groups)
                    spikes[name] = groups[name] * worth[name] if name in worth else groups[name]
                    continue
                parts = [arriving(spec, p, self.weights[p.name], spikes[p.pre]) for p in spec.incoming(name)]
                if name in constant:
                    parts.append(constant[name].expand_as(parts[0]))
                total = torch.stack(parts).sum(0)
                if population.kind == "relay":
                    spikes[name] = total
                    continue
                if name in peaks:
                    peaks[name] = torch.maximum(peaks[name], total.amax(0))
                    spikes[name] = groups[name] = torch.zeros_like(total)
                    continue
                groups[name] = self._step(name, states[name], total, thresholds[name])
                spikes[name] = groups[name] * worth[name] if name in worth else groups[name]
            for name, values in groups.items():
                counts[name] += values
            output_v.append(neurons(states[spec.output.name]["v"]).copy())  # the tensor changes in place
            for name, events in fired.items():
                shown_to = slice(None) if name == spec.output.name else slice(given.raster_presentations)
                presentation, neuron = np.nonzero(neurons(groups[name])[shown_to])
                events.append(np.stack([presentation * given.steps + step, neuron], axis=1))
            if progress:
                progress(len(given.x))
        return Recording(
            spec,
            given.steps,
            np.concatenate([neurons(counts[name]) for name in counts], axis=1).astype(np.uint16),
            np.stack(output_v, axis=1),
            {name: _in_order(np.concatenate(events)) for name, events in fired.items()},
            {name: neurons(peak[None])[0] for name, peak in peaks.items()},
            given.describe(),
        )

    def _rises(self, name: str, counts: State, groups: State) -> Tensor:
        """Spikes of max pooling: where the largest count of the window, this step's spikes included, is a new one."""
        (projection,) = self.spec.incoming(name)
        return largest(projection, counts[projection.pre] + groups[projection.pre]) - counts[name]

    def _step(self, name: str, state: State, arriving: Tensor, threshold: Tensor) -> Tensor:
        """A neuron's step, as in :mod:`sims.simulation.neuron_models`; returns its spikes."""
        model = self.models[name]
        state["v"] += arriving
        if model.name in UPDATES:
            UPDATES[model.name](state, model.parameters)
        spikes = state["v"] >= threshold
        left = torch.zeros_like(state["v"]) if self.reset == "zero" else state["v"] - threshold
        state["v"] = torch.where(spikes, left, state["v"])
        if model.name in ON_SPIKE:
            ON_SPIKE[model.name](state, model.parameters, spikes)
        return spikes.float()

    def _numbers(self, values: float | np.ndarray, shape: tuple[int, int, int]) -> Tensor:
        """One number, or one of each neuron in the order of the index, as (1, channels, height, width)."""
        whole = np.broadcast_to(np.asarray(values, dtype=np.float32).reshape(-1), (int(np.prod(shape)),)).reshape(shape)
        return torch.from_numpy(whole.transpose(2, 0, 1).copy())[None].to(self.device)

    def _zeros(self, n: int, shape: tuple[int, int, int]) -> Tensor:
        height, width, channels = shape
        return torch.zeros(n, channels, height, width, device=self.device)


def _shown(given: RunInput, group: str, keys: np.ndarray, step: int) -> Tensor:
    """Spikes of a group of the input in one step, 0 or 1, (presentations, channels, height, width)."""
    fired = []
    for presentation, key in enumerate(keys):
        probability = given.probability(group, presentation, step).reshape(given.x.shape[1:])
        fired.append(spike_probability_draws(int(key), step, probability.size).reshape(probability.shape) < probability)
    return torch.from_numpy(np.stack(fired).transpose(0, 3, 1, 2).astype(np.float32))


def _in_order(events: np.ndarray) -> np.ndarray:
    """Spikes sorted by step, then neuron, as the simulators record them."""
    return events[np.lexsort((events[:, 1], events[:, 0]))].astype(np.int32)
