"""The largest synaptic input of populations, in their order, without simulating all that comes before each time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from netspec.errors import UserError
from netspec.spec import NetSpec, SpecError
from sims.simulation.run_input import Progress, RunInput, Simulator

__all__ = ["InputPeaks", "Shortcut"]

TOGETHER, MOST = 8, 1e10  # images of a run whose spikes are kept, and their neurons times steps, which bound memory
WORTH = 1e13  # multiplications of the ANN, times steps, that take about as long as compiling a part of the network


@dataclass(frozen=True)
class Shortcut:
    """What it takes to show the spikes of a population to what comes after it, in place of all that comes before it.

    Parameters
    ----------
    open : callable
        Gives a simulator of a part of the network, with the weights, the reset and the runtime of the whole.
    folder : pathlib.Path
        Where spikes are kept meanwhile, four bytes each.
    """

    open: Callable[[NetSpec], Simulator]
    folder: Path


class InputPeaks:
    """Measures the synaptic input of populations of a network that images are shown to, the first ones first.

    Parameters
    ----------
    simulator, x, steps, seed, workers, progress
        As for :func:`~sims.conversion.spike_norm.spike_norm`.
    names : sequence of str
        Of the populations to be measured, in their order.
    shortcut : Shortcut, optional
        Spikes are kept where the network has become narrow, if that saves more time than compiling the rest of it
        takes, and shown to the rest from then on. Not for networks with biases. Without it, all populations are
        measured in the whole network.
    """

    def __init__(
        self,
        simulator: Simulator,
        x: np.ndarray,
        steps: int,
        seed: int,
        names: Sequence[str],
        workers: int = 1,
        progress: Progress | None = None,
        shortcut: Shortcut | None = None,
    ) -> None:
        if workers > 1 and getattr(simulator, "alone", False):
            raise UserError("a Brian2 network in this process shows one part of the images at a time; give 1 worker")
        self.simulator, self.x, self.steps, self.seed = simulator, x, steps, seed
        self.workers, self.progress, self.shortcut = workers, progress, shortcut
        self.spec = simulator.spec
        self.begin = self.spec.input.name  # whose spikes are shown
        self.order = [population.name for population in self.spec.populations]
        self.places = list(narrow_places(self.spec, names, len(x) * steps)) if shortcut else []
        parts = workers
        if self.places:
            together = max(1, min(TOGETHER, int(MOST / self.spec.neurons() / steps)))
            parts = workers * -(-len(x) // (together * workers))  # so many rounds of all workers
        self.parts = np.array_split(np.arange(len(x)), min(parts, len(x)))

    def of(self, name: str, thresholds: Mapping[str, float], **told: Any) -> np.ndarray:
        """The largest input of one step of each neuron; ``told`` are other fields of each :class:`RunInput`."""
        if self.shortcut and self.begin != self.simulator.spec.input.name:
            self.simulator = self.shortcut.open(self.spec.after(self.begin))
        before = [place for place in self.places if self.order.index(place) < self.order.index(name)]
        kept = before[-1] if before and before[-1] != self.begin else ""
        measure = partial(self._measure, name, kept, {"thresholds": dict(thresholds), "measured": (name,)} | told)
        if min(self.workers, len(self.parts)) == 1:
            peaks = list(map(measure, range(len(self.parts))))
        else:
            with ThreadPoolExecutor(self.workers) as pool:
                peaks = list(pool.map(measure, range(len(self.parts))))
        if kept:
            self.begin = kept
        return np.maximum.reduce(peaks)

    def _measure(self, name: str, kept: str, told: dict[str, Any], number: int) -> np.ndarray:
        """Peaks of one part of the images; the spikes of ``kept``, if there is one, take the place of those shown."""
        part, first = self.parts[number], self.simulator.spec.input
        x = self.x[part]
        if first != self.spec.input:
            x = np.zeros((len(part), *first.shape), np.float32)
            told = told | {"coding": "events", "events": self._events(number)}
        given = RunInput(
            x, steps=self.steps, seed=self.seed, ids=part,
            rasters=(kept,) if kept else (), raster_presentations=len(part), **told,
        )  # fmt: skip
        recording = self.simulator.run(given, self.progress)
        if kept:
            step, neuron = recording.rasters[kept].T
            each = np.bincount(step, minlength=len(part) * self.steps).astype(np.int32)
            self._file(kept, number).write_bytes(each.tobytes() + neuron.tobytes())
            self._file(first.name, number).unlink(missing_ok=True)
        return recording.peaks[name]

    def _file(self, name: str, number: int) -> Path:
        assert self.shortcut
        return self.shortcut.folder / f"{name} {number}.i32"

    def _events(self, number: int) -> np.ndarray:
        """Kept spikes as the events of a run: presentation, step, y, x, channel, sign."""
        first, steps = self.simulator.spec.input, len(self.parts[number]) * self.steps
        each, neuron = np.split(np.fromfile(self._file(first.name, number), dtype=np.int32), [steps])
        events = np.ones((len(neuron), 6), np.int32)
        events[:, 0], events[:, 1] = np.divmod(np.repeat(np.arange(steps, dtype=np.int32), each), self.steps)
        rest, events[:, 4] = np.divmod(neuron, first.shape[2])
        events[:, 2], events[:, 3] = np.divmod(rest, first.shape[1])
        return events


def narrow_places(spec: NetSpec, names: Sequence[str], steps: int) -> Iterator[str]:
    """Populations that all goes through, at most half as large as the largest since the last such place.

    The first population to be measured after a place is measured while the spikes of the place are noted; what comes
    before is spared for all later ones. That is worth it only if there is enough to spare, in ``steps`` of all images.
    """
    largest = before = 0
    for number, population in enumerate(spec.populations[1:-1], 1):
        largest = max(largest, population.size)
        before += sum(map(spec.macs, spec.incoming(population.name)))
        spared = sum(after.name in names for after in spec.populations[number + 1 :]) - 1
        if population.kind != "if" or 2 * population.size > largest or before * spared * steps < WORTH:
            continue
        try:
            spec.after(population.name)
        except SpecError:  # something passes it by, or is max pooling, which cannot begin a network
            continue
        yield population.name
        largest, before = population.size, 0
