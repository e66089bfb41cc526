"""Errors of the ANNs that come with the repository, on all test images, beside what their checkpoints say.

Checkpoints have the error that training measured, in bfloat16; here it is measured in float32.
"""

import argparse
import os
from collections.abc import Mapping
from functools import cache

import numpy as np
import pandas as pd
from tqdm import tqdm

from netspec.ann import ann_predictions
from netspec.checkpoint import load_checkpoint, shipped_networks
from netspec.data import ImageSet, load_images
from netspec.errors import run_command
from netspec.files import writable_file, write_atomically
from netspec.options import add_options, make_parser


def networks(sources: Mapping[str, str], images: int | None = None) -> pd.DataFrame:
    """Each shipped network on the test images of its data set: all, or the first so many.

    Parameters
    ----------
    sources : mapping of str to str
        Where images of data sets are, ``'cifar10'`` and ``'imagenette'``, which networks have in their names.
    images : int, optional

    Returns
    -------
    pandas.DataFrame
        ``ann_error`` and ``checkpoint_error`` in percent, the number of ``weights``, and what was measured on what.
    """

    @cache
    def test_images(source: str, shape: tuple[int, int, int], classes: tuple[str, ...]) -> tuple[str, ImageSet]:
        everything = load_images(source, shape, classes)
        return everything.provenance, everything.first(images).of_known_classes()

    names = [file.stem for file in shipped_networks() if file.stem.split("-")[1] in sources]
    chosen = {name: load_checkpoint(name) for name in names}
    seen = {
        name: test_images(sources[name.split("-")[1]], network.spec.input.shape, network.classes)
        for name, network in chosen.items()
    }
    rows = []
    for name, network in tqdm(chosen.items(), unit="network", leave=False):
        provenance, shown = seen[name]
        error = np.mean(ann_predictions(network, shown.images, batch=50) != shown.labels)
        rows.append(
            {
                "network": name,
                "checkpoint": network.digest[:8],
                "data": provenance,
                "images": len(shown),
                "weights": sum(weight.size for weight in network.weights.values()),
                "ann_error": round(100 * float(error), 4),
                "checkpoint_error": round(100 * float(network.info["test_error"]), 4),
            }
        )
    return pd.DataFrame(rows)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_options(parser, data="cifar10", images=None)
    parser.add_argument("--imagenette", metavar="DIR", help="folder with train/CLASS/* and val/CLASS/*; without it "
                        "the networks of Imagenette are left out")  # fmt: skip
    add_options(parser, out="output/networks.csv")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    out = writable_file(options.out)
    sources = {"cifar10": options.data, "imagenette": options.imagenette}
    table = networks({name: place for name, place in sources.items() if place}, options.images)
    write_atomically(out, table.to_csv(index=False))
    print(table.drop(columns=["checkpoint", "data"]).to_string(index=False))
    print(f"written: {os.path.relpath(out)}")


if __name__ == "__main__":
    run_command(main)
