"""What one run is told, and what simulators have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.simulation.recording import Recording
from sims.simulation.wiring import INPUT_GROUPS

__all__ = ["Progress", "RunInput", "Simulator"]

MOST_STEPS = 65_535  # spike counts are kept in 16 bits

Progress = Callable[[int], None]


@dataclass(frozen=True)
class RunInput:
    """What one run is told.

    Parameters
    ----------
    x : numpy.ndarray
        float32, (presentations, height, width, channels) in [-1, 1]: signed spike probabilities per step.
    thresholds : mapping of str to float
        Of every spiking population, positive; may miss those after a measured one, which then never fire.
    steps : int
        Time steps of a presentation.
    seed : int
    ids : numpy.ndarray
        Number of each image; with the seed it determines the image's input spikes.
    rasters : sequence of str
        Groups whose spikes are noted, besides the output.
    raster_presentations : int
        For how many presentations, from the first.
    measured : sequence of str
        Populations that do not fire and whose largest synaptic input is noted instead.
    """

    x: np.ndarray
    thresholds: Mapping[str, float]
    steps: int = 2500
    seed: int = 0
    ids: np.ndarray | None = None
    rasters: Sequence[str] = ()
    raster_presentations: int = 1
    measured: Sequence[str] = ()

    def checked(self, spec: NetSpec, measurable: bool = True) -> RunInput:
        """Itself with all defaults filled in; raises UserError if it does not fit the network.

        ``measurable`` tells whether the simulator can measure synaptic input: those with explicit synapses cannot.
        """
        x = np.ascontiguousarray(self.x, dtype=np.float32)
        if x.shape[1:] != spec.input.shape or not len(x):
            raise UserError(f"{spec.name} takes one or more images of shape {spec.input.shape}, got {x.shape}")
        if not np.isfinite(x).all() or np.abs(x).max() > 1:
            raise UserError("inputs are spike probabilities with a sign: they must lie in [-1, 1]")
        if not 1 <= self.steps <= MOST_STEPS:
            raise UserError(f"the number of steps must be from 1 to {MOST_STEPS}, got {self.steps}")
        if self.numbers.shape != (len(x),):
            raise UserError(f"{len(x)} images need as many numbers, got ids of shape {self.numbers.shape}")
        if len(x) * self.steps >= 2**31:
            raise UserError(f"{len(x)} presentations of {self.steps} steps are too many for one run; split the images")
        for name in self.rasters:
            if name not in INPUT_GROUPS and spec[name].kind != "if":
                raise UserError(
                    f"{name} does not spike; a raster shows {', '.join(INPUT_GROUPS)} or a spiking population"
                )
        if self.raster_presentations < 0:
            raise UserError(f"the number of presentations with rasters is at least 0, got {self.raster_presentations}")
        if self.measured and not measurable:
            raise UserError("synaptic input is measured with shared synapses only")
        for name in self.measured:
            if spec[name].kind != "if":
                raise UserError(
                    f"{name} has no threshold to balance; only the input of spiking populations is measured"
                )
        thresholds = {}
        for population in spec.spiking:
            given = float(self.thresholds.get(population.name, np.inf if self.measured else np.nan))
            threshold = float(np.float32(given))
            if not threshold > 0:
                raise UserError(f"the threshold of {population.name} must be a positive number, got {given}")
            thresholds[population.name] = threshold
        wanted = self.rasters if self.raster_presentations else ()
        return RunInput(
            x,
            thresholds,
            int(self.steps),
            int(self.seed),
            self.numbers,
            tuple(dict.fromkeys(name for name in wanted if name != spec.output.name)),
            int(self.raster_presentations),
            tuple(dict.fromkeys(self.measured)),
        )

    @property
    def numbers(self) -> np.ndarray:
        """The number of each image: ``ids``, or from 0 on."""
        return np.arange(len(self.x)) if self.ids is None else np.asarray(self.ids)

    def describe(self) -> dict:
        """The settings as plain data."""
        return {
            "steps": self.steps,
            "seed": self.seed,
            "images": len(self.x),
            "first_image": int(self.numbers[0]),
            "thresholds": dict(self.thresholds),
            "rasters": list(self.rasters),
            "raster_presentations": self.raster_presentations,
        }


class Simulator(Protocol):
    """Something that runs a network."""

    spec: NetSpec

    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images; ``progress`` is called with the number of steps since its last call."""
        ...
