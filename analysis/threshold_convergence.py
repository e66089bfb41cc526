"""How fast thresholds converge with time steps and images, and what a percentile in place of the maximum would give.

Each layer's largest synaptic inputs are measured in the spiking network, image by image, for several numbers of steps;
the layers before have the network's own thresholds. The table gives the threshold of the layer from the first 1, 2, 4,
... images. An interrupted run goes on where it stopped.
"""

import argparse
import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from netspec.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from netspec.errors import run_command
from netspec.files import read_json, writable_file, write_atomically, write_json
from netspec.options import CORES, add_options, make_parser
from netspec.thresholds import open_thresholds
from netspec.training_images import random_training_images
from sims.brian.runtime import open_simulator
from sims.simulation.run_input import RunInput, Simulator

STEPS = (100, 250, 500, 1000, 2500)
PERCENTILES = (99.0, 99.9, 100.0)


def measure(
    simulator: Simulator, x: np.ndarray, thresholds: dict[str, float], layer: str, steps: int, seed: int, number: int
) -> np.ndarray:
    """Largest synaptic input of one step of each neuron of a layer, while image ``number`` of ``x`` is shown.

    ``thresholds`` are those of the layers before at least.
    """
    names = [population.name for population in simulator.spec.spiking]
    before = {name: thresholds[name] for name in names[: names.index(layer)]}
    given = RunInput(x[[number]], before, steps, seed, ids=np.array([number]), measured=(layer,))
    return simulator.run(given).peaks[layer].ravel()


def image_counts(images: int) -> list[int]:
    """1, 2, 4, ... and ``images``."""
    return sorted({*(2**k for k in range(images.bit_length())), images})


def rows(peaks: np.ndarray, percentiles: Sequence[float] = PERCENTILES) -> list[dict[str, float]]:
    """Thresholds from the first 1, 2, 4, ... images, by peaks (images, neurons): images, percentile and threshold."""
    largest = np.maximum.accumulate(peaks)
    return [
        {"images": count, "percentile": percentile, "threshold": float(np.percentile(largest[count - 1], percentile))}
        for count in image_counts(len(peaks))
        for percentile in percentiles
    ]


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_options(
        parser, checkpoint="vgg16-cifar10", thresholds="spike-norm", data="cifar10", images=64, steps=list(STEPS)
    )
    add_options(parser, seed=0, workers=CORES, out=None)
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    checkpoint = load_checkpoint(options.checkpoint)
    calibrated = open_thresholds(options.thresholds, options.checkpoint, checkpoint)
    thresholds, reset = dict(calibrated.values), calibrated.reset
    name = f"{find_checkpoint(options.checkpoint).stem}-threshold-convergence.csv"
    out = writable_file(options.out or Path("output") / name)
    x = checkpoint.encode(random_training_images(checkpoint, options.data, options.images, options.seed).images)
    layer = checkpoint.spec.output.name
    for steps in options.steps:
        RunInput(x[:1], thresholds, steps, measured=(layer,)).checked(checkpoint.spec)
    unfinished = out.with_name(f".{out.name}.unfinished")
    settings = (
        f"{checkpoint.digest} {options.data} {options.images} {options.steps} {options.seed} {reset} {thresholds}"
    )
    table = measure_layers(
        checkpoint, x, thresholds, reset, options.steps, options.seed, options.workers, settings, unfinished
    )
    write_atomically(out, table.to_csv(index=False))
    unfinished.unlink(missing_ok=True)
    print(f"written: {os.path.relpath(out)}")


def measure_layers(
    checkpoint: Checkpoint,
    x: np.ndarray,
    thresholds: dict[str, float],
    reset: str,
    step_counts: Sequence[int],
    seed: int,
    workers: int,
    settings: str,
    unfinished: Path,
) -> pd.DataFrame:
    """The whole table, layer by layer with a progress bar; finished layers are kept in the file ``unfinished``.

    They are taken from there if it begins with the same ``settings``.
    """
    spec, table = checkpoint.spec, pd.DataFrame()
    if unfinished.is_file():
        earlier = {}
        with suppress(ValueError):  # a broken file is as good as none
            earlier = read_json(unfinished)
        if earlier.get("settings") == settings:
            table = pd.read_csv(io.StringIO(earlier["table"]))
    known = set(table["layer"]) if len(table) else set()
    if known:
        print(f"going on after {table['layer'].iloc[-1]}")
    simulator = open_simulator(spec, checkpoint.weights, reset=reset)
    names = [population.name for population in spec.spiking if population.name not in known]
    total = len(names) * len(x) * sum(step_counts)
    with tqdm(total=total, unit="step", unit_scale=True) as bar, ThreadPoolExecutor(workers) as pool:
        for name in names:
            bar.set_description(name)
            found = []
            for steps in step_counts:

                def one(number: int, name: str = name, steps: int = steps) -> np.ndarray:
                    peaks = measure(simulator, x, thresholds, name, steps, seed, number)
                    bar.update(steps)
                    return peaks

                peaks = np.stack(list(pool.map(one, range(len(x)))))
                fixed = {"network": spec.name, "seed": seed, "layer": name, "steps": steps}
                found += [fixed | row for row in rows(peaks)]
            table = pd.concat([table, pd.DataFrame(found)]) if len(table) else pd.DataFrame(found)
            write_json(unfinished, {"settings": settings, "table": table.to_csv(index=False)})
    return table.round({"threshold": 6})


if __name__ == "__main__":
    run_command(main)
