"""What each ingredient of a conversion for few steps brings: one is changed at a time, on the same images.

Rows of a table are kept as they are done; the same command again goes on where it stopped.
"""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import StrMethodFormatter
from tqdm import tqdm

from netspec.ann import ann_predictions
from netspec.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from netspec.conversion import Conversion, open_conversion
from netspec.data import load_images
from netspec.errors import UserError, run_command
from netspec.files import writable_file, write_atomically
from netspec.options import add_options, make_parser
from netspec.training_images import random_training_images
from sims.brian.runtime import open_simulator
from sims.conversion.activations import activations_of, from_activations
from sims.conversion.search import channels_differ, search
from sims.report.style import MARKERS, MUTED
from sims.simulation.metrics import ac_mac_ratio, error
from sims.simulation.run_input import RunInput

__all__ = ["INGREDIENTS", "Ingredient", "measured", "plot_ingredients"]

STEPS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
BATCH = 100  # images of one run
TRAINING_IMAGES = 128
KEYS = ["checkpoint", "conversion", "data", "images", "run_steps", "seed"]

Ingredient = Callable[[Conversion, Checkpoint, np.ndarray], Conversion]


def firing_output(base: Conversion, network: Checkpoint, x: np.ndarray) -> Conversion:
    """An output that spikes, with the largest activation as its threshold; the class is that of most spikes."""
    name = network.spec.output.name
    largest = float(activations_of(network, x)[name].max())
    return replace(base, thresholds={**base.thresholds, name: largest})


def other_delay(base: Conversion, network: Checkpoint, x: np.ndarray) -> Conversion:
    """Read from the beginning, or after half of the steps: the one that it does not do."""
    return replace(base, delay=0.0 if base.delay else 0.5)


def of_channels(base: Conversion, network: Checkpoint, x: np.ndarray) -> Conversion:
    """Thresholds of each channel, by which it errs least after 16 steps."""
    return replace(search(network, x, 16, channels=True), delay=base.delay)


def largest_activations(base: Conversion, network: Checkpoint, x: np.ndarray) -> Conversion:
    """Thresholds at the largest activations, in place of a percentile."""
    return from_activations(network, x, 100, delay=base.delay)


INGREDIENTS: dict[str, Ingredient] = {
    "as shipped": lambda base, network, x: base,
    "Poisson input": lambda base, network, x: replace(base, coding="poisson"),
    "potentials from 0": lambda base, network, x: replace(base, initial={}),
    "reset to zero": lambda base, network, x: replace(base, reset="zero"),
    "largest activations": largest_activations,
    "thresholds of channels": of_channels,
    "output that fires": firing_output,
    "other read-out": other_delay,
}


def measured(
    network: Checkpoint, conversion: Conversion, images: np.ndarray, labels: np.ndarray, steps: int, seed: int = 0
) -> pd.DataFrame:
    """Errors after some numbers of steps, and additions a MAC of the ANN and step; a row each.

    Parameters
    ----------
    network : Checkpoint
    conversion : Conversion
    images : numpy.ndarray
        uint8, (n, height, width, channels).
    labels : numpy.ndarray
        (n,).
    steps, seed : int

    Returns
    -------
    pandas.DataFrame
        steps, snn_error (in percent), ac_mac_per_step.
    """
    simulator = open_simulator(network.spec, network.weights, reset=conversion.reset, quiet=True)
    shown = [step for step in STEPS if step < steps] + [steps]
    wrong, ratio = np.zeros(len(shown)), 0.0
    for start in tqdm(range(0, len(images), BATCH), unit="run", leave=False, delay=1):
        part = slice(start, start + BATCH)
        ids = np.arange(len(images))[part]
        recording = simulator.run(RunInput.of(network.encode(images[part]), conversion, steps, seed, ids=ids))
        wrong += error(recording, labels[part], shown) * len(ids)
        ratio += ac_mac_ratio(recording) * len(ids)
    columns = {"steps": shown, "snn_error": 100 * wrong / len(images)}
    return pd.DataFrame(columns | {"ac_mac_per_step": ratio / len(images) / steps}).round(4)


def plot_ingredients(ax: Axes, table: pd.DataFrame, names: list[str] | None = None) -> Axes:
    """Errors against the number of steps, a curve for each ingredient that is changed."""
    curves = dict(list(table.groupby("ingredient", sort=False)))
    for place, (name, rows) in enumerate((name, rows) for name, rows in curves.items() if not names or name in names):
        line = f"{MARKERS[place % len(MARKERS)]}{'--' if place % 2 else '-'}"  # some curves lie on others
        ax.plot(rows["steps"], rows["snn_error"], line, label=name, fillstyle="none")
    ax.axhline(table["ann_error"].iloc[0], color=MUTED, linewidth=0.8, label="ANN")
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.set_xlabel("steps")
    ax.set_ylabel("error (%)")
    ax.legend(fontsize="small")
    return ax


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_options(parser, checkpoint="vgg16-cifar10", conversion="fast", data="cifar10", images=500, steps=64, seed=0)
    parser.add_argument("--out", metavar="FILE", help="without this option: output/NETWORK-ingredients.csv")
    return parser.parse_args()


def finished(path: Path, key: Mapping[str, object]) -> pd.DataFrame:
    """The rows that a file has of the same evaluation; raises UserError if it has others, which would be lost."""
    if not path.is_file():
        return pd.DataFrame()
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(("checkpoint", "conversion"), str))
        same = (table[KEYS] == pd.Series(key)).all(axis=1) & table["ingredient"].notna()
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is no table of this command ({error}); move it away") from error
    if not same.all():
        raise UserError(f"{path} is of another network, conversion, data, images, steps or seed; give another --out")
    return table


def main() -> None:
    options = parse_arguments()
    network = load_checkpoint(options.checkpoint)
    base = open_conversion(options.conversion, options.checkpoint, network)
    name = find_checkpoint(options.checkpoint).stem
    path = writable_file(options.out or Path("output") / f"{name}-ingredients.csv")
    shape = network.spec.input.shape
    first = load_images(options.data, shape, network.classes, choose=lambda every: every.first(options.images))
    images, seen = first.of_known_classes(), min(TRAINING_IMAGES, options.images)
    training = random_training_images(network, options.data, seen, options.seed)
    ann = float(100 * np.mean(ann_predictions(network, images.images) != images.labels))
    key = {
        "checkpoint": network.digest[:8],
        "conversion": base.digest,
        "data": images.provenance,
        "images": len(images),
        "run_steps": options.steps,
        "seed": options.seed,
    }
    done = finished(path, key)
    for ingredient, change in INGREDIENTS.items():
        if len(done) and (done["ingredient"] == ingredient).any():
            continue
        if change is of_channels and not channels_differ(network):
            print(f"{ingredient}: left out, since all ReLUs are clipped")
            continue
        conversion = change(base, network, network.encode(training.images))
        rows = measured(network, conversion, images.images, images.labels, options.steps, options.seed)
        rows = rows.assign(ingredient=ingredient, ann_error=round(ann, 4), **key)
        done = pd.concat([done, rows], ignore_index=True) if len(done) else rows
        write_atomically(path, done.to_csv(index=False))
        print(f"{ingredient}: {rows.set_index('steps')['snn_error'].round(2).to_dict()}", flush=True)
    print(f"written: {path}")


if __name__ == "__main__":
    run_command(main)
