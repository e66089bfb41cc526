"""The same network, simulated densely by torch, step by step: what Brian2 is compared with, spike for spike."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from netspec.spec import NetSpec, Projection
from sims.simulation.geometry import Geometry, as_convolution
from sims.simulation.recording import Recording
from sims.simulation.run_input import Progress, RunInput
from sims.simulation.stimulus import input_spikes, presentation_keys
from sims.simulation.wiring import INPUT_GROUPS, counted_groups, group_shape

__all__ = ["ReferenceSimulator"]


class ReferenceSimulator:
    """Clock-driven and dense; all presentations side by side. The arguments are those of a SpikingNetwork."""

    def __init__(
        self, spec: NetSpec, weights: Mapping[str, np.ndarray], reset: str = "zero", device: str = "cpu"
    ) -> None:
        self.spec, self.reset, self.device = spec, reset, torch.device(device)
        self.weights = {
            p.name: torch.from_numpy(as_convolution(spec, p, weights.get(p.name)).copy()).to(self.device)
            * Geometry.of(spec, p).scale
            for p in spec.projections
        }

    @torch.no_grad()
    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images and give back what was recorded; every number as from the Brian2 simulators."""
        spec, given = self.spec, run_input.checked(self.spec)
        keys = presentation_keys(given.seed, given.numbers)
        v = {p.name: self._zeros(len(given.x), p.shape) for p in spec.populations[1:]}
        counts = {name: self._zeros(len(given.x), group_shape(spec, name)) for name in counted_groups(spec)}
        peaks = {name: self._zeros(1, spec[name].shape)[0] for name in given.measured}
        output_v: list[np.ndarray] = []
        fired: dict[str, list[np.ndarray]] = {name: [] for name in (spec.output.name, *given.rasters)}
        for step in range(given.steps):
            shown = np.stack([input_spikes(x, key, step) for x, key in zip(given.x, keys, strict=True)])
            signed = torch.from_numpy(shown.transpose(0, 3, 1, 2).astype(np.float32)).to(self.device)
            spikes = {spec.input.name: signed}
            groups = {name: (sign * signed > 0).float() for name, sign in INPUT_GROUPS.items()}
            for population in spec.populations[1:]:
                name = population.name
                arriving = torch.stack([self._arriving(p, spikes[p.pre]) for p in spec.incoming(name)]).sum(0)
                if population.kind == "relay":
                    spikes[name] = arriving
                    continue
                if name in peaks:
                    peaks[name] = torch.maximum(peaks[name], arriving.amax(0))
                    spikes[name] = groups[name] = torch.zeros_like(arriving)
                    continue
                v[name] += arriving
                threshold = torch.tensor(given.thresholds[name], dtype=torch.float32)
                spikes[name] = (v[name] >= threshold).float()
                if self.reset == "zero":
                    v[name][spikes[name] > 0] = 0
                else:
                    v[name] = torch.where(spikes[name] > 0, v[name] - threshold, v[name])
                groups[name] = spikes[name]
            for name, values in groups.items():
                counts[name] += values
            output_v.append(_neurons(v[spec.output.name]).copy())  # the tensor changes in place
            for name, events in fired.items():
                shown_to = slice(None) if name == spec.output.name else slice(given.raster_presentations)
                presentation, neuron = np.nonzero(_neurons(groups[name])[shown_to])
                events.append(np.stack([presentation * given.steps + step, neuron], axis=1))
            if progress:
                progress(len(given.x))
        return Recording(
            spec,
            given.steps,
            np.concatenate([_neurons(counts[name]) for name in counts], axis=1).astype(np.uint16),
            np.stack(output_v, axis=1),
            {name: _in_order(np.concatenate(events)) for name, events in fired.items()},
            {name: _neurons(peak[None])[0] for name, peak in peaks.items()},
            given.describe(),
        )

    def _arriving(self, projection: Projection, spikes: Tensor) -> Tensor:
        """Synaptic input of one step, (presentations, channels, height, width)."""
        weight = self.weights[projection.name]
        if projection.pool > 1:
            spikes = F.avg_pool2d(spikes, projection.pool, divisor_override=1)
        if projection.kind == "dense":  # a convolution whose kernel covers everything
            height, width, channels = self.spec[projection.post].shape
            flat = F.conv2d(spikes, weight).flatten(1)
            return flat.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return F.conv2d(spikes, weight, stride=projection.stride, padding=projection.padding)

    def _zeros(self, n: int, shape: tuple[int, int, int]) -> Tensor:
        height, width, channels = shape
        return torch.zeros(n, channels, height, width, device=self.device)


def _neurons(values: Tensor) -> np.ndarray:
    """(n, channels, height, width) to (n, neurons), in the order of the neuron index."""
    return values.permute(0, 2, 3, 1).flatten(1).cpu().numpy()


def _in_order(events: np.ndarray) -> np.ndarray:
    """Spikes sorted by step, then neuron, as the simulators record them."""
    return events[np.lexsort((events[:, 1], events[:, 0]))].astype(np.int32)
