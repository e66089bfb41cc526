"""What a run gives back: spike counts, output spikes in time, chosen rasters; saved and loaded losslessly."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from netspec.errors import UserError
from netspec.files import write_atomically
from netspec.spec import NetSpec, Projection
from sims.simulation.wiring import INPUT_GROUPS, counted_groups, group_shape

__all__ = ["Recording"]

FORMAT = "going-deeper-in-brian2 recording 1"


@dataclass(frozen=True)
class Recording:
    """Spikes of a network over presentations of ``steps`` steps each.

    Parameters
    ----------
    spec : NetSpec
    steps : int
        Time steps of a presentation.
    counts : numpy.ndarray
        uint16, (presentations, all counted neurons): spikes of each neuron, groups in the order of
        :func:`~sims.simulation.wiring.counted_groups`.
    output_v : numpy.ndarray
        float32, (presentations, steps, classes): membrane potentials of the output at the end of each step.
    rasters : mapping of str to numpy.ndarray
        int32, (spikes, 2): step since the start of the run and neuron index. The output's is always there,
        those of other groups for the first presentations as far as they were asked for.
    peaks : mapping of str to numpy.ndarray
        Largest synaptic input of one step of each neuron, for populations that were measured.
    settings : mapping
        What the run was told, as plain data.
    """

    spec: NetSpec
    steps: int
    counts: np.ndarray
    output_v: np.ndarray
    rasters: Mapping[str, np.ndarray]
    peaks: Mapping[str, np.ndarray] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def presentations(self) -> int:
        return len(self.counts)

    def spike_counts(self, name: str) -> np.ndarray:
        """Spikes of each neuron of a group, (presentations, height, width, channels).

        ``'input'`` gives ON and OFF together.
        """
        if name == self.spec.input.name:
            return np.add(*(self.spike_counts(group) for group in INPUT_GROUPS))
        start = 0
        for group, size in counted_groups(self.spec).items():
            if group == name:
                return self.counts[:, start : start + size].reshape(-1, *group_shape(self.spec, name))
            start += size
        raise KeyError(f"the spikes of {name!r} were not counted; counted were {list(counted_groups(self.spec))}")

    @cached_property
    def output_counts(self) -> np.ndarray:
        """Output spikes up to and including each step, uint16, (presentations, steps, classes)."""
        fired = np.zeros((self.presentations * self.steps, self.spec.output.size), dtype=np.uint16)
        step, neuron = self.rasters[self.spec.output.name].T
        fired[step, neuron] = 1
        return fired.reshape(self.presentations, self.steps, -1).cumsum(axis=1, dtype=np.uint16)

    def output_at(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """What tells the class after so many steps: output spikes, then potentials; (presentations, classes) both.

        With a delayed read-out they are those that came after the first part of the steps.
        """
        counts, v = self.output_counts[:, step - 1], self.output_v[:, step - 1]
        before = int(self.settings.get("delay", 0) * step)
        if before:
            counts = counts - self.output_counts[:, before - 1]
            if not self.output_fires:
                v = v - self.output_v[:, before - 1]
        return counts, v

    @property
    def output_fires(self) -> bool:
        """Whether the output can fire; one with an infinite threshold gathers potential, which tells the class."""
        thresholds = self.settings.get("thresholds", {}).get(self.spec.output.name)
        return bool(self.output_counts.any()) if thresholds is None else bool(np.isfinite(thresholds).any())

    def predictions(self, steps: int | None = None) -> np.ndarray:
        """Class of each presentation after ``steps`` steps: most output spikes, ties by membrane potential."""
        step = self.steps if steps is None else steps
        if not 1 <= step <= self.steps:
            raise ValueError(f"predictions exist after 1 to {self.steps} steps, not after {step}")
        counts, v = self.output_at(step)
        return np.where(counts == counts.max(axis=1, keepdims=True), v, -np.inf).argmax(axis=1)

    def spikes_per_neuron(self) -> dict[str, float]:
        """Mean number of spikes of a neuron in a presentation, for each population that spikes."""
        names = [self.spec.input.name, *(population.name for population in self.spec.emitting)]
        return {name: float(self.spike_counts(name).mean()) for name in names}

    def synaptic_operations(self, projection: Projection) -> np.ndarray:
        """Spikes reaching a neuron along a projection, exact at image borders; int64, (presentations,).

        The projections of a relay carry graded values in every step and are not counted here.
        """
        if self.spec[projection.pre].kind == "relay":
            return np.zeros(self.presentations, dtype=np.int64)
        fan_out = self.spec.fan_out(projection)
        return np.tensordot(self.spike_counts(projection.pre).astype(np.int64), fan_out, axes=3)

    def recorded_presentations(self, names: Iterable[str]) -> int:
        """How many presentations, from the first, have rasters of all these groups; the output's are always there."""
        if set(names) == {self.spec.output.name}:
            return self.presentations
        return min(self.presentations, self.settings.get("raster_presentations", self.presentations))

    def spikes(self, name: str) -> pd.DataFrame:
        """The raster of a group as a table: population, neuron, channel, y, x, presentation, step."""
        if name not in self.rasters:
            raise KeyError(f"no raster of {name!r} was recorded; recorded were {sorted(self.rasters)}")
        step, neuron = self.rasters[name].T
        y, x, channel = np.unravel_index(neuron, group_shape(self.spec, name))
        return pd.DataFrame(
            {
                "population": pd.Categorical([name] * len(neuron), categories=[name]),
                "neuron": neuron,
                "channel": channel.astype(np.int32),
                "y": y.astype(np.int32),
                "x": x.astype(np.int32),
                "presentation": step // self.steps,
                "step": step % self.steps,
            }
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the recording into one compressed .npz file, atomically."""
        header = {"format": FORMAT, "spec": self.spec.to_dict(), "steps": self.steps, "settings": dict(self.settings)}
        arrays = {"counts": self.counts, "output_v": self.output_v}
        arrays |= {f"raster {name}": raster for name, raster in self.rasters.items()}
        arrays |= {f"peak {name}": peak for name, peak in self.peaks.items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)
        write_atomically(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> Recording:
        """Read a recording; raises UserError if the file is missing, truncated or something else."""
        try:
            with np.load(Path(path), allow_pickle=False) as file:
                header = json.loads(str(file["header"]))
                arrays = {name: file[name] for name in file.files if name != "header"}
            if header["format"] != FORMAT:
                raise ValueError(f"format {header['format']}")
            named = {
                kind: {k.split(" ", 1)[1]: v for k, v in arrays.items() if k.startswith(kind)}
                for kind in ("raster", "peak")
            }
            spec, steps, settings = NetSpec.from_dict(header["spec"]), int(header["steps"]), dict(header["settings"])
            recording = cls(spec, steps, arrays["counts"], arrays["output_v"], named["raster"], named["peak"], settings)
            shape = (len(recording.counts), steps, spec.output.size)
            if (
                recording.counts.shape != (shape[0], sum(counted_groups(spec).values()))
                or shape != arrays["output_v"].shape
            ):
                raise ValueError("its arrays do not fit its network")
            return recording
        except Exception as error:  # what NumPy makes of a damaged file is beyond enumeration
            raise UserError(f"{path} is no recording of this project, or truncated ({error})") from error
