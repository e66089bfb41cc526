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
  answers   The trained VGG-16 in 2500 steps with SPIKE-NORM and in 16 with its conversion for few steps: what an image
            takes, here one by one and side by side, and in dense torch likewise, also compiled and in bfloat16;
            with --before, in another checkout of this project, too.
  evaluation
            The trained VGG-16 with its conversion for few steps, evaluated as evaluate.py does: time and memory
            against images, steps and worker processes.
  calibration
            SPIKE-NORM of the trained VGG-16, with all layers before the measured one simulated each time, and with
            their spikes shown again.

Every network is compiled anew, into a cache that is removed at the end. Best on a machine that does nothing else.
"""

import argparse
import json
import os
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from netspec.errors import run_command
from netspec.files import writable_folder, write_atomically
from netspec.options import add_options, make_parser
from sims.speed.activity import CALIBRATED
from sims.speed.measure import fresh_cache, machine
from sims.speed.parts import QUICK, Bench, Plan, tables

TABLE = Path(__file__).resolve().parents[1] / "analysis/results/vgg16-cifar10-operations.csv"
SHOWN = [
    "network", "conversion", "varied", "images", "steps", "workers", "simulator", "batch",
    "seconds", "seconds_per_image", "seconds_per_image_min", "memory_mb_first_half", "memory_mb_second_half",
    "activity", "spikes_per_neuron_step", "seconds_per_step", "steps_per_second",
    "gsops_per_second", "peak_memory_mb", "bytes_per_synapse", "build_seconds", "compile_seconds", "time_ratio",
]  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="small networks, few steps: to see whether it works")
    add_plan(parser)
    parser.add_argument(
        "--table", default=os.path.relpath(TABLE), metavar="FILE",
        help=f"NETWORK-operations.csv of evaluate.py, for '{CALIBRATED}'",
    )  # fmt: skip
    parser.add_argument(
        "--before", metavar="CHECKOUT", help="another checkout, whose run_vgg.py gives answers in turn with this one's"
    )
    add_options(parser, seed=Plan.seed, out="output/benchmark")
    if parser.parse_args().quick:
        parser.set_defaults(**asdict(QUICK))
    return parser.parse_args()


def add_plan(parser: argparse.ArgumentParser) -> None:
    """An option for each field of the plan that has a help text."""
    for entry in fields(Plan):
        if about := dict(entry.metadata):
            first = entry.default
            if isinstance(first, tuple):
                about["nargs"] = len(about["metavar"]) if "metavar" in about else "+"
                first = first[0]
            parser.add_argument(f"--{entry.name.replace('_', '-')}", default=entry.default, type=type(first), **about)


def chosen_plan(options: argparse.Namespace) -> Plan:
    """The plan that the options make; raises UserError if it is impossible."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(options).items()}
    chosen: dict[str, Any] = {entry.name: values[entry.name] for entry in fields(Plan)}
    return Plan(**chosen)


def main() -> None:
    options = parse_arguments()
    bench = Bench(chosen_plan(options), options.table)
    out = writable_folder(options.out)
    facts = machine() | {"load_average_before": os.getloadavg()}
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    facts["options"] = {name: value for name, value in vars(options).items() if name not in ("out", "before")}
    facts["before"] = options.before and Path(options.before).name
    with fresh_cache():
        for name, table in tables(bench):
            write_atomically(out / f"{name}.csv", table.to_csv(index=False))
            shown = [column for column in SHOWN if column in table]
            shorter = table[shown] if "simulator" in table and "steps" in table else table
            print(f"\n{name}\n{shorter.to_string(index=False, float_format='{:.4g}'.format, na_rep='')}")
    facts["load_average_after"] = os.getloadavg()
    write_atomically(out / "machine.json", json.dumps(facts, indent=1) + "\n")
    print(f"\nwritten: {os.path.relpath(out)}")


if __name__ == "__main__":
    run_command(main)
