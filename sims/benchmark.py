"""How fast, and in how much memory: shared-weight synapses beside stock Brian2 synapses and dense torch.

All is measured in one run on the same networks, weights, input spikes and machine. Weights are random, the image is
noise; thresholds are set so that each layer fires as often as told, or, at 'calibrated', as often as in the balanced
VGG-16 of --table. Parts:

networks  VGG-16 at CIFAR-10 size, whole: shared synapses against dense torch, and, where it is narrow enough for
          them, against one stock Synapses a projection; both kinds of synapses as C++ standalone.
layers    Each layer of the same network, by Brian2's profile of the running network; the activity of its input at
          which dense torch becomes as fast.
growth    Time and memory against the size of the image and the width of the network.
imagenet  VGG-16 with all 138 million weights and ResNet-34 at 224x224, one image.

Every network is compiled anew, into a cache that is removed at the end. Best on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import pandas as pd
from tqdm import tqdm

from netspec.checkpoint import write_atomically
from netspec.errors import UserError, run_command, writable_folder
from netspec.resnet import resnet34
from netspec.spec import NetSpec
from netspec.vgg import vgg16
from sims.benchmarking import (
    CALIBRATED,
    activity_table,
    crossing,
    growth_fit,
    layer_seconds,
    measure,
    measure_dense,
    random_image,
    random_weights,
    ratios,
    targets,
    thresholds_for,
)
from sims.dense import DenseSimulator
from sims.runtime import MOST_STEPS, RunInput
from sims.standalone import StandaloneSimulator, cache_folder, processor

TABLE = Path(__file__).resolve().parents[1] / "analysis/results/vgg16-cifar10-operations.csv"
PARTS = ("networks", "layers", "growth", "imagenet")
QUICK = {
    "activity": [CALIBRATED, "0.1"],
    "width": 0.25,
    "explicit_width": 0.125,
    "steps": 300,  # fewer would leave layers silent at the calibrated activity
    "explicit_steps": 300,
    "growth_sizes": [32, 64],
    "growth_widths": [0.125, 0.25],
    "growth_steps": 50,
    "imagenet_width": 0.125,
    "imagenet_steps": [200, 20],
    "repetitions": 1,
}
FEWEST_STEPS = 50  # of large images in the part on growth
DENSE_STEPS = 5  # of dense torch at 224x224
RESNET_ACTIVITY = 0.02  # spikes per neuron and step
SHOWN = [
    "network", "simulator", "activity", "spikes_per_neuron_step", "seconds_per_step", "steps_per_second",
    "gsops_per_second", "peak_memory_mb", "bytes_per_synapse", "build_seconds", "compile_seconds",
]  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    class Formatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
        pass

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Formatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--quick", action="store_true", help="small networks, few steps: to see whether it works")
    parser.add_argument(
        "--activity", nargs="+", default=[CALIBRATED, "0.01", "0.05", "0.1", "0.3"],
        help=f"of networks and layers: spikes per neuron and step, or '{CALIBRATED}'",
    )  # fmt: skip
    parser.add_argument("--width", type=float, default=1.0, help="factor on the channels, of networks and layers")
    parser.add_argument("--explicit-width", type=float, default=0.5, help="of the network with stock synapses")
    parser.add_argument("--steps", type=int, default=300, help="of networks and layers")
    parser.add_argument("--explicit-steps", type=int, default=100, help="of the network with stock synapses")
    parser.add_argument("--growth-sizes", type=int, nargs="+", default=[32, 64, 128, 224], help="at full width")
    parser.add_argument("--growth-widths", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="at size 32")
    parser.add_argument(
        "--growth-steps", type=int, default=1000,
        help=f"at size 32; fewer, as the image has more pixels, but at least {FEWEST_STEPS}",
    )  # fmt: skip
    parser.add_argument("--growth-activity", nargs="+", default=["0.01", "0.03"], help="as --activity")
    parser.add_argument("--imagenet-width", type=float, default=1.0)
    parser.add_argument(
        "--imagenet-steps", type=int, nargs=2, default=[500, 2000], metavar=("VGG", "RESNET"), help="of each network"
    )
    parser.add_argument(
        "--table", default=os.path.relpath(TABLE), metavar="FILE",
        help=f"NETWORK-operations.csv of evaluate.py, for '{CALIBRATED}'",
    )  # fmt: skip
    parser.add_argument("--repetitions", type=int, default=3, help="of all but imagenet, which runs once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="output/benchmark", metavar="DIR", help="where the tables go")
    if parser.parse_args().quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Raise UserError where an option is impossible."""
    for activity in (*options.activity, *options.growth_activity):
        if activity != CALIBRATED and not is_activity(activity):
            raise UserError(f"an activity is '{CALIBRATED}' or a number between 0 and 0.5, got {activity}")
    widths = (options.width, options.explicit_width, options.imagenet_width, *options.growth_widths)
    if not all(0 < width < np.inf for width in widths):
        raise UserError(f"widths must be positive, got {', '.join(f'{width:g}' for width in widths)}")
    every = (options.steps, options.explicit_steps, options.growth_steps, *options.imagenet_steps)
    if not all(1 <= steps <= MOST_STEPS for steps in every):
        raise UserError(f"steps must be from 1 to {MOST_STEPS}, got {', '.join(map(str, every))}")
    if any(size < 32 or size % 32 for size in options.growth_sizes):
        raise UserError("--growth-sizes must be multiples of 32")
    if options.repetitions < 1:
        raise UserError(f"--repetitions must be at least 1, got {options.repetitions}")
    if "layers" in options.parts and len(set(options.activity)) < 2:
        raise UserError("the part on layers needs two or more activities")
    if "growth" in options.parts and len(options.growth_activity) * len(growth_networks(options)) < 4:
        raise UserError("the part on growth needs four or more cases; give more sizes, widths or activities")
    if "networks" in options.parts:
        from sims.network import check_memory

        check_memory(vgg16(width=options.explicit_width))


def is_activity(text: str) -> bool:
    try:
        return 0 < float(text) < 0.5
    except ValueError:
        return False


class Bench:
    """Networks with random weights, each compiled once, and their thresholds, each found once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.seed, self.repetitions = options.seed, options.repetitions
        self.table = activity_table(options.table)
        self._simulators: dict[tuple, StandaloneSimulator] = {}
        self._given: dict[tuple, RunInput] = {}

    def simulator(self, spec: NetSpec, synapses: str = "shared", profile: bool = False) -> StandaloneSimulator:
        key = (spec.name, synapses, profile)
        if key not in self._simulators:
            weights = random_weights(spec, self.seed)
            self._simulators[key] = StandaloneSimulator(spec, weights, synapses, quiet=True, profile=profile)
        return self._simulators[key]

    def dense(self, spec: NetSpec, threads: int) -> DenseSimulator:
        return DenseSimulator(spec, random_weights(spec, self.seed), threads)

    def given(self, spec: NetSpec, activity: str | float, steps: int, start: RunInput | None = None) -> RunInput:
        """Image and thresholds for an activity; ``start`` has thresholds to begin the search with."""
        key = (spec.name, activity, steps)
        if key not in self._given:
            wanted = targets(spec, activity, self.table)
            x = random_image(spec, wanted[spec.input.name], self.seed)
            few = min(steps, max(30, int(8 / min(wanted.values()))))  # several spikes of each neuron tell its rate
            begin = start.thresholds if start else None
            found = thresholds_for(self.simulator(spec), x, wanted, few, self.seed, begin)
            self._given[key] = RunInput(x, found, steps, self.seed)
        return self._given[key]


def size_of(spec: NetSpec) -> dict[str, int]:
    """Neurons behind the input, connections, weights."""
    synapses = sum(spec.synapses(projection) for projection in spec.projections)
    return {"neurons": spec.neurons(), "synapses": synapses, "weights": spec.parameters()}


def shared_row(bench: Bench, spec: NetSpec, activity: str | float, given: RunInput, repetitions: int) -> dict:
    """A row of shared synapses; bytes per synapse are those of the file of packed weights."""
    simulator, size = bench.simulator(spec), size_of(spec)
    return {
        **{"network": spec.name, "simulator": "shared", "activity": str(activity)},
        **size,
        **measure(simulator, given, repetitions),
        "bytes_per_synapse": simulator.weights.stat().st_size / size["synapses"],
    }


def thread_counts() -> list[int]:
    """One thread, and one a core."""
    return sorted({1, os.cpu_count() or 1})


def networks(options: argparse.Namespace, bench: Bench) -> dict[str, pd.DataFrame]:
    """Whole networks in each simulator."""
    rows = []
    narrow, wide = vgg16(width=options.explicit_width), vgg16(width=options.width)
    cases = [(narrow, options.explicit_steps, True)]
    if wide != narrow:
        cases.append((wide, options.steps, False))
    with tqdm(total=len(cases) * len(options.activity), desc="networks") as bar:
        for spec, steps, explicit in cases:
            dense = [bench.dense(spec, threads) for threads in thread_counts()]
            for activity in options.activity:
                given = bench.given(spec, activity, steps)
                shared = shared_row(bench, spec, activity, given, bench.repetitions)
                rows.append(shared)
                common = {key: shared[key] for key in ("network", "activity", "neurons", "synapses", "weights")}
                if explicit:
                    row = measure(bench.simulator(spec, "explicit"), given, bench.repetitions)
                    # the same neurons in both: what peak memory differs by is synapses
                    extra = (row["peak_memory_mb"] - shared["peak_memory_mb"]) * 1e6 / shared["synapses"]
                    row["bytes_per_synapse"] = extra + shared["bytes_per_synapse"]
                    rows.append(common | {"simulator": "explicit"} | row)
                for simulator in dense:
                    row, _ = measure_dense(simulator, given, bench.repetitions)
                    rows.append(common | {"simulator": f"torch-{simulator.threads}"} | row)
                bar.update()
    table = pd.DataFrame(rows)
    return {"networks": table, "networks-ratios": ratios(table)}


def layers(options: argparse.Namespace, bench: Bench) -> dict[str, pd.DataFrame]:
    """Each layer of the running network: its projections, threshold, reset and count, at each activity."""
    spec, rows = vgg16(width=options.width), []
    simulator = bench.simulator(spec, profile=True)
    dense: dict[int, dict[str, float]] = {}
    for activity in tqdm(options.activity, desc="layers"):
        given = bench.given(spec, activity, options.steps)
        profiles = []
        for _ in range(bench.repetitions):
            recording = simulator.run(given)
            profiles.append(layer_seconds(spec, simulator.profiled, given.steps))
        if not dense:  # its time does not depend on activity
            for threads in thread_counts():
                _, dense[threads] = measure_dense(bench.dense(spec, threads), given, bench.repetitions)
        for population in spec.spiking:
            (projection,) = spec.incoming(population.name)
            seconds = [profile[population.name] for profile in profiles]
            rows.append(
                {
                    "network": spec.name,
                    "layer": population.name,
                    "activity": activity,
                    "neurons": population.size,
                    "synapses": spec.synapses(projection),
                    "input_spikes_per_neuron_step": recording.spike_counts(projection.pre).mean() / given.steps,
                    "sops_per_step": recording.synaptic_operations(projection).sum() / given.steps,
                    "shared_seconds_per_step": float(np.median(seconds)),
                    "shared_seconds_per_step_min": min(seconds),
                    "shared_seconds_per_step_max": max(seconds),
                }
                | {f"torch_{threads}_seconds_per_step": times[population.name] for threads, times in dense.items()}
            )
    table = pd.DataFrame(rows)
    crossings = []
    for layer, part in table.groupby("layer", sort=False):
        times = (part["input_spikes_per_neuron_step"], part["shared_seconds_per_step"])
        row: dict[str, object] = {"network": spec.name, "layer": layer}
        for threads in dense:
            constant = float(part[f"torch_{threads}_seconds_per_step"].iloc[0])
            row[f"torch_{threads}_seconds_per_step"] = constant
            row[f"crossing_torch_{threads}"] = crossing(*times, constant)
        crossings.append(row)
    return {"layers": table, "layers-crossings": pd.DataFrame(crossings)}


def growth_networks(options: argparse.Namespace) -> list[tuple[NetSpec, int]]:
    """The networks of different size and width, each with its side."""
    full = max(options.growth_widths)
    shapes = [(32, width) for width in options.growth_widths] + [(size, full) for size in options.growth_sizes]
    return [(vgg16(width=width, size=size), size) for size, width in dict.fromkeys(shapes)]


def growth(options: argparse.Namespace, bench: Bench) -> dict[str, pd.DataFrame]:
    """Time and memory against the size of the image and the width of the network."""
    rows = []
    start: dict[str, RunInput] = {}  # a larger network's thresholds are near those of the one before
    for spec, size in tqdm(growth_networks(options), desc="growth"):
        steps = min(options.growth_steps, max(FEWEST_STEPS, options.growth_steps * 32**2 // size**2))
        for activity in options.growth_activity:
            given = start[activity] = bench.given(spec, activity, steps, start.get(activity))
            rows.append({"size": size} | shared_row(bench, spec, activity, given, bench.repetitions))
    table = pd.DataFrame(rows)
    return {"growth": table, "growth-fit": pd.DataFrame([growth_fit(table)])}


def imagenet(options: argparse.Namespace, bench: Bench) -> dict[str, pd.DataFrame]:
    """The paper's large networks, one image, once; dense torch for a few steps."""
    rows = []
    cases: list[tuple[NetSpec, str | float]] = [
        (vgg16("imagenet", width=options.imagenet_width), CALIBRATED),
        (resnet34(width=options.imagenet_width), RESNET_ACTIVITY),
    ]
    for (spec, activity), steps in zip(tqdm(cases, desc="imagenet"), options.imagenet_steps, strict=True):
        given = bench.given(spec, activity, steps)
        shared = shared_row(bench, spec, activity, given, 1)
        rows.append(shared | {"time_ratio": 1.0})
        short = RunInput(given.x, given.thresholds, min(steps, DENSE_STEPS), given.seed)
        for threads in thread_counts():
            row, _ = measure_dense(bench.dense(spec, threads), short, 1)
            row["time_ratio"] = row["seconds_per_step"] / shared["seconds_per_step"]
            rows.append({"network": spec.name, "simulator": f"torch-{threads}", "activity": str(activity)} | row)
    return {"imagenet": pd.DataFrame(rows)}


def machine() -> dict[str, object]:
    """What the times depend on."""
    return {
        "processor": processor().split(":")[-1].strip(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("brian2", "numpy", "torch")},
    }


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


def main() -> None:
    options = parse_arguments()
    check(options)
    out = writable_folder(options.out)
    bench = Bench(options)
    facts = machine() | {"load_average_before": os.getloadavg()}
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    facts["options"] = {name: value for name, value in vars(options).items() if name != "out"}
    run = {"networks": networks, "layers": layers, "growth": growth, "imagenet": imagenet}
    with fresh_cache():
        for part in PARTS:
            if part not in options.parts:
                continue
            for name, table in run[part](options, bench).items():
                write_atomically(out / f"{name}.csv", table.to_csv(index=False))
                shown = [column for column in (*SHOWN, "time_ratio") if column in table]
                shorter = table[shown] if "simulator" in table and "steps" in table else table
                print(f"\n{name}\n{shorter.to_string(index=False, float_format='{:.4g}'.format, na_rep='')}")
    facts["load_average_after"] = os.getloadavg()
    write_atomically(out / "machine.json", json.dumps(facts, indent=1) + "\n")
    print(f"\nwritten: {os.path.relpath(out)}")


if __name__ == "__main__":
    run_command(main)
