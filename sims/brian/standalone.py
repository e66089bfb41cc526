"""Running a network as a C++ binary: compiled once for a network and its options, cached, run again and again.

Images, weights, thresholds, seeds, the number of steps and the rasters are run-time arguments.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from netspec.errors import UserError, check_range
from netspec.spec import NetSpec
from sims.brian.binary import Additions, Blueprint, build_binary, digest, sources
from sims.brian.cache import cache_entry, scratch_folder
from sims.brian.packing import fit_half, packed_weights
from sims.simulation.arriving import constant_input
from sims.simulation.geometry import checked_weights
from sims.simulation.neuron_models import IF, NeuronModel, models_of
from sims.simulation.recording import Recording
from sims.simulation.run_input import Progress, RunInput
from sims.simulation.stimulus import presentation_keys
from sims.simulation.wiring import INPUT_GROUPS, Wiring, counted_groups

if TYPE_CHECKING:
    from sims.brian.network import SpikingNetwork

__all__ = ["StandaloneSimulator"]

PACKED = "weights.bin"
MOST, NEURONS = 8, 1 << 22  # images side by side, and their neurons
MOST_THREADS = 1024
COMPILING = threading.Lock()  # Brian2's device is one for all threads


class StandaloneSimulator:
    """A compiled network.

    Parameters
    ----------
    spec, weights, synapses, reset, model
        As for :class:`~sims.brian.network.SpikingNetwork`.
    quiet : bool
        Show no progress bar while compiling.
    profile : bool
        Let Brian2 measure the time of each of its objects.

    prepare : callable, optional
        Adds objects of the user's own (monitors, synapses, run_regularly) to the SpikingNetwork that it is given,
        before it is compiled: into a folder of its own, not cached. Names in their text are looked up where the
        simulator is made, and monitors hold what the last run gave.
    batch : int, optional
        Images side by side in the network, whose spikes are those of images one by one; by default as many as its size
        allows. One with explicit synapses, with ``prepare``, and with other neurons than IF neurons.
    threads : int
        Of a convolution and of IF neurons, each with its own part of the pixels: one image in large layers, on more
        than one core. Same spikes; needs a compiler with OpenMP. Dense layers, the input, pooling and neurons that
        are visited in every step have one.

    Attributes
    ----------
    seconds : dict of str to float
        Time spent on 'build' (code generation) and 'compile'; 0 if the binary was there.
    run_seconds : float
        Time that the last run's steps took, without starting the binary and reading and writing files.
    profiled : dict of str to float
        Processor time that each Brian2 object took in the last run, in seconds; empty without ``profile``.
    peak_memory : int
        Most memory that the binary's last run held, in bytes.
    """

    def __init__(
        self,
        spec: NetSpec,
        weights: Mapping[str, np.ndarray],
        synapses: str = "shared",
        reset: str = "zero",
        quiet: bool = False,
        profile: bool = False,
        model: NeuronModel | Mapping[str, NeuronModel] = IF,
        prepare: Callable[[SpikingNetwork], object] | None = None,
        batch: int | None = None,
        threads: int = 1,
    ) -> None:
        check_range("the number of threads", threads, least=1, most=MOST_THREADS)
        if synapses == "explicit" and threads > 1:
            raise UserError("more than one thread needs shared synapses, not stock ones")
        weights = checked_weights(spec, weights)
        self.spec, self.synapses, self.reset, self.given_weights = spec, synapses, reset, weights
        self.models = models_of(spec, model)
        single = synapses == "explicit" or prepare or any(m != IF for m in self.models.values())
        self.batch = 1 if single else batch or side_by_side(spec)
        self.threads = threads
        half = synapses == "shared" and fit_half(weights)
        self.seconds = {"build": 0.0, "compile": 0.0}
        self.peak_memory, self.run_seconds = 0, 0.0
        self.profiled: dict[str, float] = {}
        given = weights if synapses == "explicit" else None
        blueprint = Blueprint(
            spec, given, synapses, reset, half=half, profile=profile, models=self.models, batch=self.batch,
            openmp=threads > 1,
        )  # fmt: skip
        code = sources("simulation/geometry.py", "simulation/wiring.py", "brian/packing.py")
        self._device: Any = None
        if prepare or not all(model.told_whole for model in self.models.values()):
            caller = sys._getframe(1)
            self._own_folder = tempfile.TemporaryDirectory(prefix="going-deeper-")
            folder, names = Path(self._own_folder.name), caller.f_globals | caller.f_locals
            self._build(blueprint, quiet, folder, Additions(prepare or (lambda snn: None), names))
            self._binary: Callable[[], Path] = lambda: folder
        else:
            self._binary = partial(cache_entry, "binaries", blueprint.key, partial(self._build, blueprint, quiet))
        self._packed = partial(
            cache_entry, "weights", digest(spec, weights, code)[:32], partial(write_packed, spec, weights)
        )
        self._open()

    def _open(self) -> None:
        """Look for binary and weights in the cache; make what is missing or damaged."""
        with COMPILING:
            self.folder = self._binary()
        if self.synapses == "shared":
            self.weights = self._packed() / PACKED

    def _build(self, blueprint: Blueprint, quiet: bool, folder: Path, additions: Additions | None = None) -> None:
        self.seconds, device = build_binary(folder, blueprint, quiet, additions)
        if additions:
            self._device = device  # its monitors read from it

    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images one after another and give back what was recorded."""
        given = run_input.checked_for(self.spec, self.reset, self.models)
        self._open()  # the cache may have suffered since
        with scratch_folder() if self._device is None else self._own_results() as results:
            self._execute(given, results, progress)
            self.profiled = profiled_times(results / "profiling_info.txt")
            return self._collect(given, results)

    @contextmanager
    def _own_results(self) -> Iterator[Path]:
        """A folder that stays until the next run, from which the user's monitors read."""
        results = self.folder / "results"
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir()
        yield results
        assert self._device is not None
        self._device.results_dir, self._device.has_been_run = f"{results}/", True
        self._device.array_cache.clear()

    def _execute(self, given: RunInput, results: Path, progress: Progress | None) -> None:
        lines = {
            "keys": written(results / "keys.u64", presentation_keys(given.seed, given.numbers)),
            "presentations": len(given.x),
            "steps": given.steps,
            "threads": self.threads,
            "raster_presentations": given.raster_presentations,
        }
        if self.synapses == "shared":
            lines["weights"] = self.weights
        if given.coding == "poisson":
            lines["images"] = written(results / "images.f32", given.x)
        for name, values in constant_input(self.spec, self.given_weights, given).items():
            lines[f"constant {name} {len(values)}"] = written(results / f"constant_{name}.f32", values)
        for name, values in given.initial.items():
            lines[f"initial {name} 1"] = written(results / f"initial_{name}.f32", values)
        if given.events is not None:
            for name, sign in INPUT_GROUPS.items():
                events = given.events[given.events[:, 2] == sign, :2]
                lines[f"events {name} {len(events)}"] = written(results / f"events_{name}.i32", events)
        text = "".join(f"{key} {value}\n" for key, value in lines.items())
        text += "".join(f"raster {name}\n" for name in (self.spec.output.name, *given.rasters))
        (results / "input.txt").write_text(text)
        largest, arguments = np.finfo(np.float32).max, []
        for name, value in given.thresholds.items():
            finite = np.minimum(np.asarray(value, dtype=np.float32), largest)
            arguments += [f"{name}.lowest={float(finite.min())!r}", f"{name}.alike={int(finite.min() == finite.max())}"]
            place = "" if finite.ndim else repr(float(finite))
            if finite.ndim:
                place = str(written(results / f"thresholds_{name}.f32", np.tile(finite.ravel(), self.batch)))
            arguments.append(f"{name}.v_th={place}")
        for population in self.spec.emitting:
            worth = given.spike_values.get(population.name)
            place = "1"
            if worth is not None:
                place = str(written(results / f"values_{population.name}.f32", np.tile(worth.ravel(), self.batch)))
            arguments.append(f"{population.name}.spike_value={place}")
        for name, model in self.models.items():
            arguments += [f"{name}.{parameter}={float(value)!r}" for parameter, value in model.parameters.items()]
        arguments += [f"{name}.measured=1" for name in given.measured]
        command = [str(self.folder / "main"), "--results_dir", f"{results}/", str(results / "input.txt"), *arguments]
        try:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        except OSError as error:
            why = os.strerror(error.errno or 0)
            raise UserError(
                f"cannot start {command[0]}: {why}; if it is gone, the same command makes it again"
            ) from error
        reported = 0
        try:
            assert process.stdout is not None and process.stderr is not None
            for line in process.stdout:
                if line.startswith("peak_memory "):
                    self.peak_memory = int(line.split()[1])
                elif line.startswith("run_seconds "):
                    self.run_seconds = float(line.split()[1])
                elif progress and line.strip().isdigit():
                    progress(int(line) - reported)
                    reported = int(line)
            message = process.stderr.read().strip()
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        if not status and re.search(r"^(Error reading|Could not read) '", message, re.M):  # by Brian2, which goes on
            raise UserError(f"the simulation was not given its numbers: {message}")
        if status:
            raise UserError(f"the simulation ended with {reason(status)}" + (f": {message}" if message else ""))

    def _collect(self, given: RunInput, results: Path) -> Recording:
        presentations = len(given.x)
        counts = np.fromfile(results / "spike_counts.bin", dtype=np.uint16)
        output_v = np.fromfile(results / "output_v.bin", dtype=np.float32)
        neurons, classes = sum(counted_groups(self.spec).values()), self.spec.output.size
        if (counts.size, output_v.size) != (presentations * neurons, presentations * given.steps * classes):
            raise UserError("the simulation ended before its last step: it was interrupted")
        rasters = {}
        for name in (self.spec.output.name, *given.rasters):
            spikes = np.fromfile(results / f"raster_{name}.bin", dtype=np.int32).reshape(-1, 2)
            rasters[name] = spikes[np.argsort(spikes[:, 0], kind="stable")]  # one image after another
        full = presentations // self.batch * self.batch  # of full batches, in which a step holds all images
        first, rest = np.split(output_v.reshape(-1, classes), [full * given.steps])
        first = first.reshape(-1, given.steps, self.batch, classes).swapaxes(1, 2)
        rest = rest.reshape(given.steps, presentations - full, classes).swapaxes(0, 1)
        peaks = {name: np.fromfile(results / f"peak_{name}.bin", dtype=np.float32) for name in given.measured}
        return Recording(
            self.spec,
            given.steps,
            counts.reshape(presentations, neurons),
            np.concatenate([first.reshape(full, given.steps, classes), rest]),
            rasters,
            {name: peak.reshape(self.batch, -1).max(axis=0) for name, peak in peaks.items()},
            given.describe(),
        )


def side_by_side(spec: NetSpec) -> int:
    """How many images a network takes side by side: their neurons, and what they need of memory, are bounded."""
    fitting = NEURONS // sum(population.size for population in spec.populations)
    return min(MOST, 2 ** max(0, fitting.bit_length() - 1))


def written(file: Path, numbers: np.ndarray) -> Path:
    """The file, with the numbers in it (``tofile`` does not tell a full disk)."""
    file.write_bytes(np.ascontiguousarray(numbers).tobytes())
    return file


def write_packed(spec: NetSpec, weights: Mapping[str, np.ndarray], folder: Path) -> None:
    (folder / PACKED).write_bytes(packed_weights(Wiring(spec), weights).tobytes())


def reason(status: int) -> str:
    """An exit status in words; the advice that goes with a signal."""
    if status > 0:
        return f"status {status}"
    advice = {"SIGKILL": ", perhaps for want of memory", "SIGILL": ": this processor lacks one of the binary's"}
    if -status not in set(signal.Signals):
        return f"signal {-status}"  # one of the numbered real-time signals
    name = signal.Signals(-status).name
    return f"{name} ({signal.strsignal(-status)}{advice.get(name, '')})"


def profiled_times(file: Path) -> dict[str, float]:
    """Seconds of each Brian2 object; nothing if there is no such file."""
    lines = file.read_text().splitlines() if file.is_file() else []
    return {re.sub(r"_codeobject(_\d+)?$", "", name): float(spent) for name, spent in (line.split() for line in lines)}
