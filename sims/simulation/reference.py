"""The same network, simulated densely by torch, step by step: what Brian2 is compared with, spike for spike.

On a GPU it is fast enough for whole test sets.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from netspec.ann import largest
from netspec.errors import UserError
from netspec.spec import NetSpec, Projection
from netspec.thresholds import RESETS
from sims.simulation.arriving import arriving, constant_input, flat, kernel, neurons
from sims.simulation.geometry import checked_weights
from sims.simulation.neuron_models import IF, MODELS, NeuronModel, models_of
from sims.simulation.recording import Recording
from sims.simulation.run_input import Progress, RunInput
from sims.simulation.stimulus import GOLDEN, MIXERS, presentation_keys
from sims.simulation.wiring import INPUT_GROUPS, counted_groups, group_shape

__all__ = ["ReferenceSimulator"]

State = dict[str, Tensor]
STRIDE, *_FACTORS = (
    factor - 2**64 if factor >= 2**63 else factor for factor in (int(GOLDEN), *(factor for _, factor in MIXERS))
)  # the int64 of the same bits
FACTORS = [(bits, factor) for (bits, _), factor in zip(MIXERS, _FACTORS, strict=True)]


def leaky(state: State, parameters: Mapping[str, float]) -> None:
    state["v"] *= parameters["leak"]


def refractory(state: State, parameters: Mapping[str, float]) -> None:
    rest = state.setdefault("rest", torch.zeros_like(state["v"]))
    rest -= (rest > 0).float()
    state["v"] = torch.where(rest > 0, state.setdefault("held", torch.zeros_like(state["v"])), state["v"])


def rest(state: State, parameters: Mapping[str, float], spikes: Tensor) -> None:
    state["rest"][spikes] = int(parameters["period"]) + 1
    state["held"] = torch.where(spikes, state["v"], state["held"])


def lif(state: State, parameters: Mapping[str, float]) -> None:
    state["v"] = (state["v"] - parameters["decay"] * state["last"]).float()
    state["last"] = state["v"].double()


def cuba_lif(state: State, parameters: Mapping[str, float]) -> None:
    last, current = state["last"], state.setdefault("current", torch.zeros_like(state["last"]))
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


def integrate(
    v: Tensor, parts: Sequence[Tensor], threshold: Tensor, count: Tensor, reset: str
) -> tuple[Tensor, Tensor, Tensor]:
    """A step of IF neurons: their potential after it, their spikes, and how many there were so far."""
    v = v + reduce(torch.add, parts)
    fired = v >= threshold
    left = torch.zeros_like(v) if reset == "zero" else v - threshold
    spikes = fired.float()
    return torch.where(fired, left, v), spikes, count + spikes


def draws(keys: Tensor, counter: Tensor) -> Tensor:
    """Random numbers of input neurons, as by spike_probability_draws: int64 stand for the bits of its uint64."""

    def shifted(z: Tensor, bits: int) -> Tensor:
        return (z >> bits) & ((1 << (64 - bits)) - 1)

    z = keys + counter * STRIDE
    for bits, factor in FACTORS:
        z = (z ^ shifted(z, bits)) * factor
    return shifted(z ^ shifted(z, 31), 40).float() * 2.0**-24


def survives_tf32(weight: Tensor) -> bool:
    """Whether weights have at most the 11 significant bits that tensor cores multiply."""
    return not (weight.view(torch.int32) & 0x1FFF).any()


class ReferenceSimulator:
    """Clock-driven and dense, on CPU or GPU; all presentations side by side. For the arguments see SpikingNetwork."""

    def __init__(
        self,
        spec: NetSpec,
        weights: Mapping[str, np.ndarray],
        reset: str = "zero",
        device: str = "cpu",
        model: NeuronModel | Mapping[str, NeuronModel] = IF,
    ) -> None:
        if reset not in RESETS:
            raise ValueError(f"reset must be one of {RESETS}")
        self.spec, self.reset, self.device = spec, reset, torch.device(device)
        self.given_weights = weights = checked_weights(spec, weights)
        self.models = models_of(spec, model)
        for chosen in self.models.values():
            if not chosen.shipped:
                raise UserError(
                    f"torch knows the neuron models {', '.join(MODELS)} as they are shipped, not this {chosen.name}"
                )
        kernels = {p.name: kernel(spec, p, weights) for p in spec.projections if p.kind != "window"}
        self.short = {name for name, weight in kernels.items() if survives_tf32(weight)}
        on_gpu = self.device.type == "cuda"
        if on_gpu:
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled here runs as it is, slower
        self.order = torch.channels_last if on_gpu else torch.contiguous_format
        self.weights = {name: weight.to(self.device, memory_format=self.order) for name, weight in kernels.items()}
        compiled: Callable[[Any], Any] = partial(torch.compile, dynamic=True) if on_gpu else lambda function: function
        self.integrate, self.draws = compiled(integrate), compiled(draws)

    @torch.no_grad()
    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images and give back what was recorded, as the Brian2 simulators do.

        Spikes are theirs, all of them, where float32 holds all sums exactly; else but for rounding.
        """
        given = run_input.checked_for(self.spec, self.reset, self.models)
        with torch.backends.cudnn.flags(enabled=True, deterministic=True):
            return self._run(given, progress)

    def _run(self, given: RunInput, progress: Progress | None) -> Recording:
        spec = self.spec
        show = self._input(given)
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
            for name, begins in self.models[population.name].initial.items():
                if begins == "v":
                    states[population.name][name] = v.double()  # as Brian2 has a model's own variables
        thresholds = {name: self._numbers(value, spec[name].shape) for name, value in given.thresholds.items()}
        worth = {name: self._numbers(value, spec[name].shape) for name, value in given.spike_values.items()}
        graded = {p.name for p in spec.projections if p.pre in worth or spec[p.pre].kind == "relay"}
        counts = {name: self._zeros(len(given.x), group_shape(spec, name)) for name in counted_groups(spec)}
        peaks = {name: self._zeros(1, spec[name].shape)[0] for name in given.measured}
        output, output_v = [], []
        fired: dict[str, list[np.ndarray]] = {name: [] for name in given.rasters if name != spec.output.name}
        for step in range(given.steps):
            groups = show(step)
            for name, values in groups.items():
                counts[name] += values
            spikes = {spec.input.name: reduce(torch.add, (sign * groups[name] for name, sign in INPUT_GROUPS.items()))}
            for population in spec.populations[1:]:
                name = population.name
                if population.kind == "max":
                    (projection,) = spec.incoming(name)  # counts have this step's spikes
                    groups[name] = largest(projection, counts[projection.pre]) - counts[name]
                    counts[name] += groups[name]
                    spikes[name] = groups[name] * worth[name] if name in worth else groups[name]
                    continue
                parts = [self._arriving(p, spikes[p.pre], p.name not in graded) for p in spec.incoming(name)]
                if name in constant:
                    parts.append(constant[name])
                if population.kind == "relay":
                    spikes[name] = reduce(torch.add, parts)
                elif name in peaks:
                    peaks[name] = torch.maximum(peaks[name], reduce(torch.add, parts).amax(0))
                    spikes[name] = groups[name] = torch.zeros_like(parts[0])
                else:
                    groups[name], counts[name] = self._step(name, states[name], parts, thresholds[name], counts[name])
                    spikes[name] = groups[name] * worth[name] if name in worth else groups[name]
            output.append(flat(groups[spec.output.name]).bool())
            output_v.append(flat(states[spec.output.name]["v"]).clone())  # some models change it in place
            for name, events in fired.items():
                presentation, neuron = np.nonzero(neurons(groups[name])[: given.raster_presentations])
                events.append(np.stack([presentation * given.steps + step, neuron], axis=1))
            if progress:
                progress(len(given.x))
        presentation, step_, neuron = np.nonzero(torch.stack(output, dim=1).cpu().numpy())
        rasters = {spec.output.name: np.stack([presentation * given.steps + step_, neuron], axis=1)}
        rasters |= {name: np.concatenate(events) for name, events in fired.items()}
        return Recording(
            spec,
            given.steps,
            np.concatenate([neurons(counts[name]) for name in counts], axis=1).astype(np.uint16),
            torch.stack(output_v, dim=1).cpu().numpy(),
            {name: _in_order(events) for name, events in rasters.items()},
            {name: neurons(peak[None])[0] for name, peak in peaks.items()},
            given.describe(),
        )

    def _input(self, given: RunInput) -> Callable[[int], State]:
        """What tells the spikes of the groups of the input in a step, 0 or 1, as (presentations, channels, ...)."""
        height, width, channels = given.x.shape[1:]

        def images(values: np.ndarray) -> Tensor:
            shaped = torch.from_numpy(values).view(-1, height, width, channels)
            return shaped.permute(0, 3, 1, 2).to(self.device)

        def probability(group: str, step: int) -> Tensor:
            return images(np.stack([given.probability(group, number, step) for number in range(len(given.x))]))

        if given.coding != "poisson":  # certain
            return lambda step: {name: probability(name, step) for name in INPUT_GROUPS}
        probabilities = {name: probability(name, 0) for name in INPUT_GROUPS}
        keys = torch.from_numpy(presentation_keys(given.seed, given.numbers).view(np.int64)).view(-1, 1, 1, 1)
        keys, each = keys.to(self.device), images(np.arange(1, 1 + given.x[0].size))

        def shown(step: int) -> State:
            numbers = self.draws(keys, each + step * given.x[0].size)
            return {name: (numbers < probability).float() for name, probability in probabilities.items()}

        return shown

    def _arriving(self, projection: Projection, values: Tensor, whole: bool) -> Tensor:
        """As of :func:`arriving`; tensor cores multiply what they do not round: whole numbers by short weights."""
        few = projection.pool <= 32  # sums of at most 1024 spikes
        torch.backends.cudnn.allow_tf32 = whole and few and projection.name in self.short
        return arriving(self.spec, projection, self.weights[projection.name], values)

    def _step(
        self, name: str, state: State, parts: Sequence[Tensor], threshold: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor]:
        """A step of neurons, as in :mod:`sims.simulation.neuron_models`; their spikes, and how many there were."""
        model = self.models[name]
        if model.name in UPDATES:
            state["v"] += reduce(torch.add, parts)
            UPDATES[model.name](state, model.parameters)
            parts = [torch.zeros_like(parts[0])]
        if "rest" in state:
            threshold = torch.where(state["rest"] > 0, torch.inf, threshold)
        state["v"], spikes, count = self.integrate(state["v"], parts, threshold, count, self.reset)
        if model.name in ON_SPIKE:
            ON_SPIKE[model.name](state, model.parameters, spikes > 0)
        return spikes, count

    def _numbers(self, values: float | np.ndarray, shape: tuple[int, int, int]) -> Tensor:
        """One number, or one of each neuron in the order of the index, as (1, channels, height, width)."""
        if np.ndim(values) == 0:
            return torch.full((1, 1, 1, 1), float(values), device=self.device)
        whole = np.broadcast_to(np.asarray(values, dtype=np.float32).reshape(-1), (int(np.prod(shape)),)).reshape(shape)
        return torch.from_numpy(whole.transpose(2, 0, 1).copy())[None].to(self.device)

    def _zeros(self, n: int, shape: tuple[int, int, int]) -> Tensor:
        height, width, channels = shape
        return torch.zeros(n, channels, height, width, device=self.device).to(memory_format=self.order)


def _in_order(events: np.ndarray) -> np.ndarray:
    """Spikes sorted by step, then neuron, as the simulators record them."""
    return events[np.lexsort((events[:, 1], events[:, 0]))].astype(np.int32)
