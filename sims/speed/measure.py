"""Time, memory and synaptic operations of runs, in Brian2 and in dense torch."""

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from netspec.files import writable_folder
from netspec.options import machine_memory
from netspec.spec import NetSpec
from sims.brian.cache import cache_folder
from sims.brian.standalone import StandaloneSimulator
from sims.simulation.run_input import RunInput
from sims.simulation.wiring import Wiring
from sims.speed.dense import DenseSimulator, dense_input


def measure(simulator: StandaloneSimulator, run_input: RunInput, repetitions: int) -> dict[str, float]:
    """One row of a table: the compiled network, run again and again."""
    stepping, whole = [], []
    for _ in range(repetitions):
        start = time.perf_counter()
        recording = simulator.run(run_input)
        whole.append(time.perf_counter() - start)
        stepping.append(simulator.run_seconds)
    spec = simulator.spec
    counts = {p.name: recording.spike_counts(p.name)[0] for p in (spec.input, *spec.spiking)}
    return speed(spec, counts, run_input.steps, stepping) | {
        "startup_seconds": float(np.median(np.subtract(whole, stepping))),
        "build_seconds": simulator.seconds["build"],
        "compile_seconds": simulator.seconds["compile"],
        "peak_memory_mb": simulator.peak_memory / 1e6,
    }


def measure_dense(
    simulator: DenseSimulator, run_input: RunInput, repetitions: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The same row for dense torch, and the median seconds per step of each of its layers."""
    spec, steps = simulator.spec, run_input.steps
    inputs = dense_input(run_input.x[0], run_input.seed, steps)
    layers = []
    for _ in range(repetitions):
        counts = {name: count[0] for name, count in simulator.run(inputs, run_input.thresholds).items()}
        layers.append(simulator.seconds)
    counts[spec.input.name] = sum(np.abs(signed[0].permute(1, 2, 0).numpy()) for signed in inputs)
    row = speed(spec, counts, steps, [sum(run.values()) for run in layers])
    return row, {name: float(np.median([run[name] for run in layers])) / steps for name in layers[0]}


def speed(spec: NetSpec, counts: Mapping[str, np.ndarray], steps: int, seconds: Sequence[float]) -> dict[str, float]:
    """Time per step (median and spread) and synaptic operations (SOP) of runs with the given spike counts."""
    operations = sum(float((spec.fan_out(p) * counts[p.pre]).sum()) for p in spec.projections)
    spikes = sum(float(counts[p.name].sum()) for p in spec.spiking)
    times = per_step(seconds, steps)
    median = times["seconds_per_step"]
    return {
        "steps": steps,
        "spikes": spikes,
        "spikes_per_neuron_step": spikes / steps / sum(p.size for p in spec.spiking),
        "sops_per_step": operations / steps,
        **times,
        "steps_per_second": 1 / median,
        "gsops_per_second": operations / steps / median / 1e9,
    }


def per_step(seconds: Sequence[float], steps: int = 1) -> dict[str, float]:
    """Median and spread of the times of runs of so many steps."""
    each = np.asarray(seconds) / steps
    ends = {"": np.median(each), "_min": each.min(), "_max": each.max()}
    return {f"seconds_per_step{end}": float(value) for end, value in ends.items()}


def layer_seconds(spec: NetSpec, profiled: Mapping[str, float], steps: int) -> dict[str, float]:
    """Seconds per step of each layer: its incoming projections, then threshold, reset and count."""
    wiring, seconds = Wiring(spec), {}
    for population in spec.spiking:
        objects = [f"{population.name}_step", *(wire.name for wire in wiring.incoming(population.name))]
        seconds[population.name] = sum(profiled[name] for name in objects) / steps
    return seconds


def machine() -> dict[str, object]:
    """What the times depend on."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(machine_memory() / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("brian2", "numpy", "torch")},
    }


def processor_name() -> str:
    """The model, as Linux has it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":")[-1].strip()
    return platform.processor()


@contextmanager
def fresh_cache() -> Iterator[None]:
    """A cache that begins empty, so that the time to compile is seen, and is removed."""
    with tempfile.TemporaryDirectory(dir=writable_folder(cache_folder()), prefix="benchmark-") as folder:
        before = os.environ.get("GOING_DEEPER_CACHE")
        os.environ["GOING_DEEPER_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["GOING_DEEPER_CACHE"]
            if before is not None:
                os.environ["GOING_DEEPER_CACHE"] = before
