"""How fast, and in how much memory: VGG-16 at CIFAR-10 size with shared-weight synapses at several activities.

Random weights, one random image; the thresholds are set so that in every layer the given share of the neurons
fires in a step. Prints and saves a table: medians over the repetitions, all from this one run.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import pandas as pd
from tqdm import tqdm

from netspec.checkpoint import write_atomically
from netspec.errors import UserError, run_command, writable_folder
from netspec.spec import NetSpec
from netspec.vgg import vgg16
from sims.runtime import MOST_STEPS, RunInput, Simulator
from sims.standalone import StandaloneSimulator


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--width", type=float, default=1.0, help="factor on the number of channels")
    parser.add_argument(
        "--activity", type=float, nargs="+", default=[0.01, 0.05, 0.1, 0.3], help="spikes per neuron and step"
    )
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="output/benchmark.csv", metavar="FILE")
    return parser.parse_args()


def random_weights(spec: NetSpec, seed: int) -> dict[str, np.ndarray]:
    """Normal weights of variance 2 / fan-in."""
    draw = np.random.default_rng(seed % 2**64)
    weights = {}
    for projection in spec.projections:
        if projection.weighted:
            shape = spec.weight_shape(projection)
            scale = np.sqrt(2 / np.prod(shape[1:]))
            weights[projection.name] = (draw.standard_normal(shape, dtype=np.float32) * scale).astype(np.float32)
    return weights


def thresholds_for(simulator: Simulator, x: np.ndarray, activity: float, steps: int) -> dict[str, float]:
    """Thresholds, layer by layer, at which the given share of the neurons fires in a step."""
    found: dict[str, float] = {}
    silent = {population.name: 1e30 for population in simulator.spec.spiking}
    for population in simulator.spec.spiking:
        low, high = 0.0, np.inf
        threshold = 1.0
        for _ in range(12):
            recording = simulator.run(RunInput(x, silent | found | {population.name: threshold}, steps))
            rate = recording.spikes_per_neuron()[population.name] / steps
            if abs(rate / activity - 1) < 0.03:
                break
            low, high = (threshold, high) if rate > activity else (low, threshold)
            threshold = (
                threshold * max(0.2, min(5.0, rate / activity)) if high == np.inf or not low else (low + high) / 2
            )
        found[population.name] = threshold
    return found


def measure(simulator: StandaloneSimulator, given: RunInput, repetitions: int) -> Mapping[str, float]:
    """One row of the table."""
    spec, seconds = simulator.spec, []
    for _ in range(repetitions):
        start = time.perf_counter()
        recording = simulator.run(given)
        seconds.append(time.perf_counter() - start)
    operations = sum(int(recording.synaptic_operations(p).sum()) for p in spec.projections)
    rates = [rate / given.steps for name, rate in recording.spikes_per_neuron().items() if name != spec.input.name]
    median = float(np.median(seconds))
    return {
        "activity": float(np.mean(rates)),
        "sops_per_step": operations / given.steps,
        "steps_per_second": given.steps / median,
        "gsops_per_second": operations / median / 1e9,
        "seconds": median,
        "seconds_min": min(seconds),
        "seconds_max": max(seconds),
        "peak_memory_mb": simulator.peak_memory / 1e6,
    }


def main() -> None:
    options = parse_arguments()
    if options.repetitions < 1 or not all(0 < activity < 1 for activity in options.activity):
        raise UserError("--repetitions must be at least 1, each --activity between 0 and 1")
    if not 0 < options.width < np.inf or not 1 <= options.steps <= MOST_STEPS:
        raise UserError(f"--width must be positive, --steps from 1 to {MOST_STEPS}")
    out = Path(options.out)
    if out.is_dir():
        raise UserError(f"--out {out} is a folder; give the name of a file")
    writable_folder(out.parent)
    spec = vgg16("cifar10", width=options.width)
    weights = random_weights(spec, options.seed)
    x = np.random.default_rng(options.seed % 2**64).uniform(-1, 1, (1, *spec.input.shape)).astype(np.float32)
    simulator = StandaloneSimulator(spec, weights)
    synapses = sum(spec.synapses(projection) for projection in spec.projections)
    print(f"{spec.name}: {spec.neurons():,} neurons, {synapses:,} synapses held as {spec.parameters():,} weights")
    print("seconds        " + " ".join(f"{phase} {spent:.2f}" for phase, spent in simulator.seconds.items()))
    rows = []
    for activity in tqdm(options.activity, desc="activities"):
        thresholds = thresholds_for(simulator, x, activity, max(30, options.steps // 3))
        rows.append(measure(simulator, RunInput(x, thresholds, options.steps), options.repetitions))
    table = pd.DataFrame(rows)
    table.insert(0, "network", spec.name)
    print(table.round(4).to_string(index=False))
    write_atomically(out, table.to_csv(index=False))
    print(f"written: {os.path.relpath(out)}")


if __name__ == "__main__":
    run_command(main)
