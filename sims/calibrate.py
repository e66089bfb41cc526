"""Balance the thresholds of a spiking network: SPIKE-NORM (Algorithm 1 of the paper) or ANN-model normalisation.

SPIKE-NORM runs the spiking network itself in Brian2, layer by layer, and sets each threshold to the largest
synaptic input of one step. An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from tqdm import tqdm

from netspec.checkpoint import Checkpoint, load_checkpoint, write_atomically
from netspec.data import load_images
from netspec.errors import UserError, run_command, writable_file
from sims.classify import add_network_options
from sims.runtime import RUNTIMES, RunInput, open_simulator
from sims.spike_norm import ann_norm, spike_norm
from sims.thresholds import METHODS, Thresholds, find_thresholds, load_thresholds


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_network_options(parser, "vgg16-cifar10")
    parser.add_argument("--reset", choices=("zero", "subtract"), default="zero", help="of the membrane at a spike")
    parser.add_argument(
        "--method", choices=METHODS, default="spike-norm",
        help="spike-norm: the largest input in the SNN; ann-norm: ratios of the ANN's largest activations",
    )  # fmt: skip
    parser.add_argument(
        "--data", default="cifar10", metavar="NAME|DIR",
        help="cifar10 (downloaded once), a folder of its binary files, one with train/CLASS/* "
        "and val/CLASS/*, or a folder of images",
    )  # fmt: skip
    parser.add_argument("--images", type=int, default=256, help="random training images")
    parser.add_argument("--steps", type=int, default=2500, help="time steps for each image and layer")
    parser.add_argument(
        "--percentile", type=float, default=100.0, help="over the neurons of a layer; 100 is the maximum"
    )
    parser.add_argument("--unit", action="store_true", help="threshold 1 in residual units (constraint 2)")
    parser.add_argument("--runtime", choices=RUNTIMES, default="standalone")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="binaries side by side")
    parser.add_argument("--out", metavar="FILE", help="thresholds file; None puts it beside the checkpoint")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if not 0 < options.percentile <= 100 or options.workers < 1:
        raise UserError("--percentile must be in (0, 100], --workers at least 1")
    checkpoint = load_checkpoint(options.checkpoint)
    variant = f"{options.method}-unit" if options.unit else options.method
    unit = {population.name: 1.0 for population in checkpoint.spec.residual} if options.unit else {}
    if options.unit and not unit:
        raise UserError(f"--unit is for residual networks; {checkpoint.spec.name} has no residual units")
    out = writable_file(options.out or find_thresholds(options.checkpoint, variant))
    unfinished = out.with_name(f".{out.name}.unfinished")
    images = load_images(options.data, checkpoint.spec.input.shape[0], checkpoint.classes, "train")
    x = checkpoint.encode(images.random(options.images, options.seed).images)
    thresholds = Thresholds(
        unit,
        options.method,
        checkpoint.digest,
        options.percentile,
        options.images,
        images.source,
        options.seed,
        unit=options.unit,
    )
    if options.method == "spike-norm":
        thresholds = replace(thresholds, steps=options.steps, reset=options.reset)
    if not options.out:
        refuse_others(out, thresholds, checkpoint)
    if options.method == "ann-norm":
        values = ann_norm(checkpoint.spec, checkpoint.weights, x, options.percentile, unit)
        thresholds = replace(thresholds, values=values)
    else:
        RunInput(x[:1], {}, options.steps, measured=[checkpoint.spec.output.name]).checked(checkpoint.spec)
        thresholds = run_spike_norm(options, checkpoint, x, thresholds, unfinished)
    thresholds.save(out)
    unfinished.unlink(missing_ok=True)
    print("\n".join(f"{name:>8} {value:.4f}" for name, value in thresholds.values.items()))
    print(f"written: {out}")


def refuse_others(path: Path, wanted: Thresholds, checkpoint: Checkpoint) -> None:
    """Raise UserError if thresholds of the same network, but found in another way, would be lost."""
    try:
        found = load_thresholds(path, checkpoint)
    except UserError:  # none, or of no use
        return
    if replace(found, values=wanted.values) != wanted:
        how = f"{found.images} images, {found.steps} steps, percentile {found.percentile:g}, seed {found.seed}"
        raise UserError(f"{path} holds thresholds from {how}; give --out FILE, or remove it")


def run_spike_norm(
    options: argparse.Namespace, checkpoint: Checkpoint, x: np.ndarray, thresholds: Thresholds, unfinished: Path
) -> Thresholds:
    """SPIKE-NORM with a progress bar, of all populations that ``thresholds`` lacks.

    Finished layers are kept in the file ``unfinished``.
    """
    settings = asdict(thresholds)
    known = dict(thresholds.values)
    if unfinished.is_file():
        try:
            earlier = json.loads(unfinished.read_text())
        except ValueError:  # a broken file is as good as none
            earlier = {"settings": None}
        if earlier["settings"] == settings:
            known = earlier["values"]
            print(f"going on behind {list(known)[-1]}")
    layers = len(checkpoint.spec.spiking) - len(known)
    simulator = open_simulator(checkpoint.spec, checkpoint.weights, options.runtime, "shared", options.reset)
    workers = options.workers if options.runtime == "standalone" else 1
    with tqdm(total=layers * len(x) * options.steps, unit="step", unit_scale=True) as bar:

        def finished(name: str, value: float) -> None:
            known[name] = value
            bar.set_description(f"{name} {value:.3f}")
            write_atomically(unfinished, json.dumps({"settings": settings, "values": known}))

        values = spike_norm(
            simulator, x, options.steps, options.seed, options.percentile, dict(known), workers, finished, bar.update
        )
    return replace(thresholds, values=values)


if __name__ == "__main__":
    run_command(main)
