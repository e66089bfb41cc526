"""How much error the input spikes bring about by themselves: the ANN is shown their mean in place of the image.

Poisson input shows each pixel with a sampling error (section 4.1). A network of IF neurons can hardly be better than an
ANN that sees as many spikes, so this is the part of the conversion's loss that no choice of thresholds can repair.
"""

import argparse
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from netspec.ann import ann_predictions
from netspec.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from netspec.data import ImageSet, load_images
from netspec.errors import UserError, run_command
from netspec.files import writable_file, write_atomically
from netspec.options import add_options, make_parser

STEPS = (100, 200, 500, 1000, 2500)


def input_noise(checkpoint: Checkpoint, images: ImageSet, steps: Sequence[int], seeds: Sequence[int]) -> pd.DataFrame:
    """Error of the ANN on the mean of the input spikes of so many steps, drawn from the binomial distribution.

    Returns
    -------
    pandas.DataFrame
        A row for each of ``steps``, means over ``seeds`` of the spikes: ``ann_error`` on the images themselves,
        ``coded_error`` on their spikes and its standard deviation ``coded_error_sd``, in percent, ``increment`` in
        points, and ``agreement``, the percentage of images with the same class.
    """
    ann = ann_predictions(checkpoint, images.images)
    ann_error = 100 * np.mean(ann != images.labels)
    rows = []
    for count, seed in tqdm(list(product(steps, seeds)), unit="pass", leave=False):
        torch.manual_seed(seed)
        seen = ann_predictions(checkpoint, images.images, input_steps=count)
        rows.append((count, 100 * np.mean(seen != images.labels), 100 * np.mean(seen == ann)))
    by_steps = pd.DataFrame(rows, columns=["steps", "coded_error", "agreement"]).groupby("steps", sort=False)
    table = by_steps.mean()
    table.insert(0, "ann_error", ann_error)
    table.insert(2, "coded_error_sd", by_steps["coded_error"].std())
    table.insert(3, "increment", table["coded_error"] - ann_error)
    return table.round(4).reset_index()


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_options(
        parser, checkpoint="vgg16-cifar10", data="cifar10", images=None, steps=list(STEPS), seed=0, seeds=1, out=None
    )
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if min(options.steps) < 1 or options.seed < 0:
        raise UserError("--steps must be at least 1, and --seed not negative")
    checkpoint = load_checkpoint(options.checkpoint)
    out = writable_file(options.out or Path("output") / f"{find_checkpoint(options.checkpoint).stem}-coding.csv")
    everything = load_images(options.data, checkpoint.spec.input.shape, checkpoint.classes)
    images = everything.first(options.images).of_known_classes()
    table = input_noise(checkpoint, images, options.steps, range(options.seed, options.seed + options.seeds))
    table.insert(0, "network", checkpoint.spec.name)
    table.insert(1, "checkpoint", checkpoint.digest[:8])
    table.insert(2, "data", everything.provenance)
    table.insert(3, "images", len(images))
    table.insert(4, "seeds", options.seeds)
    write_atomically(out, table.to_csv(index=False))
    print(table.drop(columns=["checkpoint", "data"]).to_string(index=False))
    print(f"written: {os.path.relpath(out)}")


if __name__ == "__main__":
    run_command(main)
