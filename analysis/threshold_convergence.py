"""How fast thresholds converge with time steps and images, and what a percentile in place of the maximum would give.

Each layer's largest synaptic inputs are measured in the spiking network, image by image, for several numbers of steps;
the layers before have the network's own thresholds. The table gives the threshold of the layer from the first 1, 2, 4,
... images. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd
from tqdm import tqdm

from analysis.results import RESULTS
from netspec.checkpoint import Checkpoint, load_checkpoint, write_atomically
from netspec.data import load_images
from netspec.errors import UserError, run_command, writable_file
from sims.classify import add_network_options
from sims.runtime import RunInput, Simulator, open_simulator
from sims.thresholds import VARIANTS, open_thresholds

__all__ = ["PERCENTILES", "STEPS", "image_counts", "main", "measure", "rows"]

STEPS = (100, 250, 500, 1000, 2500)
PERCENTILES = (99.0, 99.9, 100.0)


def measure(
    simulator: Simulator, x: np.ndarray, thresholds: dict[str, float], layer: str, steps: int, seed: int, number: int
) -> np.ndarray:
    """Largest synaptic input of one step of each neuron of a layer while one image is shown.

    Parameters
    ----------
    simulator : Simulator
    x : numpy.ndarray
        Encoded images, (images, height, width, channels).
    thresholds : dict of str to float
        Of the layers before at least.
    layer : str
    steps, seed : int
    number : int
        Of the image in ``x``.

    Returns
    -------
    numpy.ndarray
        (neurons,).
    """
    names = [population.name for population in simulator.spec.spiking]
    before = {name: thresholds[name] for name in names[: names.index(layer)]}
    given = RunInput(x[[number]], before, steps, seed, ids=np.array([number]), measured=(layer,))
    return simulator.run(given).peaks[layer].ravel()


def image_counts(images: int) -> list[int]:
    """1, 2, 4, ... and ``images``."""
    return sorted({*(2**k for k in range(images.bit_length())), images})


def rows(peaks: np.ndarray, percentiles: Sequence[float] = PERCENTILES) -> list[dict[str, float]]:
    """Thresholds from the first 1, 2, 4, ... images.

    Parameters
    ----------
    peaks : numpy.ndarray
        Largest inputs, (images, neurons).
    percentiles : sequence of float
        Over the neurons, each with its own maximum over the images.

    Returns
    -------
    list of dict
        With images, percentile and threshold.
    """
    largest = np.maximum.accumulate(peaks)
    return [
        {"images": count, "percentile": percentile, "threshold": float(np.percentile(largest[count - 1], percentile))}
        for count in image_counts(len(peaks))
        for percentile in percentiles
    ]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_network_options(parser, "vgg16-cifar10")
    parser.add_argument(
        "--thresholds", default="spike-norm", metavar="FILE|METHOD",
        help=f"of the layers before: a file, or one of {', '.join(VARIANTS)}",
    )  # fmt: skip
    parser.add_argument(
        "--data", default="cifar10", metavar="NAME|DIR",
        help="cifar10 (downloaded once), a folder of its binary files, or a folder of images",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=64, help="random training images")
    parser.add_argument("--steps", type=int, nargs="+", default=list(STEPS), help="numbers of time steps")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="binaries side by side")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="None: analysis/results/NETWORK-threshold-convergence.csv"
    )
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if options.workers < 1:
        raise UserError(f"--workers must be at least 1, got {options.workers}")
    checkpoint = load_checkpoint(options.checkpoint)
    thresholds = dict(open_thresholds(options.thresholds, options.checkpoint, checkpoint).values)
    out = writable_file(options.out or RESULTS / f"{Path(options.checkpoint).stem}-threshold-convergence.csv")
    images = load_images(options.data, checkpoint.spec.input.shape[0], checkpoint.classes, "train")
    x = checkpoint.encode(images.random(options.images, options.seed).images)
    layer = checkpoint.spec.output.name
    for steps in options.steps:
        RunInput(x[:1], thresholds, steps, measured=(layer,)).checked(checkpoint.spec)
    table = measure_layers(options, checkpoint, x, thresholds, out.with_name(f".{out.name}.unfinished"))
    write_atomically(out, table.to_csv(index=False))
    out.with_name(f".{out.name}.unfinished").unlink(missing_ok=True)
    print(f"written: {os.path.relpath(out)}")


def measure_layers(
    options: argparse.Namespace, checkpoint: Checkpoint, x: np.ndarray, thresholds: dict[str, float], unfinished: Path
) -> pd.DataFrame:
    """The whole table, layer by layer with a progress bar; finished layers are kept in the file ``unfinished``."""
    spec = checkpoint.spec
    settings = f"# {checkpoint.digest} {options.data} {options.images} {options.steps} {options.seed} {thresholds}\n"
    table = pd.DataFrame()
    if unfinished.is_file():
        head, _, content = unfinished.read_text().partition("\n")
        if f"{head}\n" == settings:
            table = pd.read_csv(io.StringIO(content))
    known = set(table["layer"]) if len(table) else set()
    if known:
        print(f"going on behind {table['layer'].iloc[-1]}")
    simulator = open_simulator(spec, checkpoint.weights)
    names = [population.name for population in spec.spiking if population.name not in known]
    total = len(names) * len(x) * sum(options.steps)
    with tqdm(total=total, unit="step", unit_scale=True) as bar, ThreadPoolExecutor(options.workers) as pool:
        for name in names:
            bar.set_description(name)
            found = []
            for steps in options.steps:

                def one(number: int, name: str = name, steps: int = steps) -> np.ndarray:
                    peaks = measure(simulator, x, thresholds, name, steps, options.seed, number)
                    bar.update(steps)
                    return peaks

                peaks = np.stack(list(pool.map(one, range(len(x)))))
                fixed = {"network": spec.name, "seed": options.seed, "layer": name, "steps": steps}
                found += [fixed | row for row in rows(peaks)]
            table = pd.concat([table, pd.DataFrame(found)]) if len(table) else pd.DataFrame(found)
            write_atomically(unfinished, settings + table.to_csv(index=False))
    return table.round({"threshold": 6})


if __name__ == "__main__":
    run_command(main)
