"""Train the ANN of a NetSpec.

The defaults are the paper's recipe (section 7.1). ``--rms-scale``, ``--centred`` and ``--schedule one-cycle``
are this project's own: with them a network without bias and batch norm learns in a fraction of the epochs.
So is ``--input-steps``: trained on images as a finite number of input spikes shows them, a network loses less
when it is converted.
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import torch

from netspec.architectures.resnet import CONSTRAINTS, resnet20, resnet34
from netspec.architectures.vgg import vgg16
from netspec.checkpoint import find_checkpoint, load_checkpoint
from netspec.data import ImageSet, cifar10
from netspec.errors import UserError, run_command
from netspec.files import writable_folder
from netspec.image_files import ImageFiles, imagenet_files
from netspec.options import CORES, add_options, make_parser, number
from netspec.recipe import Recipe
from netspec.spec import NetSpec
from netspec.trainer import Trainer, train

NETWORKS: dict[str, Callable[..., NetSpec]] = {
    "vgg16": vgg16,
    "vgg16-imagenet": partial(vgg16, "imagenet"),
    "resnet34": resnet34,
    **{
        f"resnet20{kept.suffix}": partial(resnet20, junction_relu=kept.junction_relu, preprocessing=kept.preprocessing)
        for kept in CONSTRAINTS.values()
    },
}


DROPOUT = {  # usual rate, and where
    "conv": (0.1, "after convolutions (VGG)"),
    "dense": (0.3, "after dense layers (VGG)"),
    "branch": (0.1, "inside residual branches (ResNet)"),
}


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, "python -m netspec.train")
    parser.add_argument("network", choices=NETWORKS, help="architecture")
    parser.add_argument(
        "--data", metavar="NAME|DIR", default="cifar10",
        help="cifar10 (downloaded once), or a folder of its binary files; for resnet34, vgg16-imagenet a folder with "
        "train/CLASS/* and val/CLASS/*",
    )  # fmt: skip
    add_options(parser, out="training", seed=Recipe.seed)
    parser.add_argument(
        "--width", type=number("--width", float, above=0), default=1.0, help="factor on the number of channels"
    )
    parser.add_argument(
        "--hidden",
        type=number("--hidden", least=1),
        help="neurons of each hidden dense layer (VGG), at any width",
    )
    add_recipe(parser)
    parser.add_argument("--float32", dest="bf16", action="store_false", help="no bfloat16 arithmetic")
    for name, (usual, where) in DROPOUT.items():
        parser.add_argument(f"--{name}-dropout", type=float, help=f"{where}; without this option: {usual}")
    parser.add_argument(
        "--start", dest="checkpoint", metavar="FILE|NAME", help="a network to train further, in place of fresh weights"
    )
    parser.add_argument("--half", action="store_true", help="store the checkpoint's weights as float16")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="as torch names it: cpu, cuda, cuda:1"
    )
    parser.add_argument("--threads", type=number("--threads", least=1), help="of torch; without this option: all")
    parser.add_argument(
        "--workers",
        type=number("--workers", least=0),
        default=CORES,
        help="processes that read photographs side by side; 0: none but this one",
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop in time for this limit; run again to go on"
    )
    return parser.parse_args()


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """An option for each field of the recipe that has a help text."""
    for entry in fields(Recipe):
        if about := entry.metadata.get("help"):
            settings: dict[str, Any] = {"type": type(entry.default), "choices": entry.metadata["choices"]}
            if isinstance(entry.default, bool):
                settings = {"action": "store_true"}
            elif isinstance(entry.default, tuple):
                settings = {"type": int, "nargs": "*"}
            parser.add_argument(f"--{entry.name.replace('_', '-')}", default=entry.default, help=about, **settings)


def training_images(
    network: str, data: str, shape: tuple[int, int, int]
) -> tuple[ImageSet, ImageSet] | tuple[ImageFiles, ImageFiles]:
    """Images to train on and images to test on, of the network's size: CIFAR-10 in memory, photographs in files."""
    if shape[0] == 32:
        folder = None if data == "cifar10" else data
        return cifar10("train", folder), cifar10("test", folder)
    if data == "cifar10":
        raise UserError(f"{network} needs --data: a folder with train/CLASS/* and val/CLASS/*")
    images = imagenet_files(data, "train", shape)
    return images, imagenet_files(data, "test", shape, images.classes)


def main() -> None:
    started = time.time()
    options = parse_arguments()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    start = load_checkpoint(options.checkpoint) if options.checkpoint else None
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(options).items()}
    chosen: dict[str, Any] = {entry.name: values[entry.name] for entry in fields(Recipe) if entry.name in values}
    recipe = Recipe(**chosen).heeded()
    if start:
        recipe = recipe.further(start)
        if find_checkpoint(options.checkpoint).resolve() == Path(options.out, "best.safetensors").resolve():
            raise UserError(f"{options.out} would overwrite the network of --start; give another --out")
    try:
        torch.empty(1, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"there is no device {options.device!r} here ({str(error).splitlines()[0]})") from error
    design: dict[str, Any] = {"width": options.width}
    if options.network.startswith("vgg"):
        design["hidden"] = options.hidden
    elif options.hidden:
        raise UserError(f"{options.network} has no hidden dense layers; leave out --hidden")
    for name, (usual, where) in DROPOUT.items():
        rate = getattr(options, f"{name}_dropout")
        if ("(VGG)" in where) == options.network.startswith("vgg"):
            design[f"{name}_dropout"] = usual if rate is None else rate
        elif rate is not None:
            raise UserError(f"--{name}-dropout is {where}, and {options.network} has none")
    describe = partial(NETWORKS[options.network], **design)
    out = writable_folder(options.out)
    images, test = training_images(options.network, options.data, describe().input.shape)
    spec = describe(classes=len(images.classes))
    trainer = Trainer(spec, images, test, recipe, options.device, start, options.workers)
    print(f"{spec.name}: {spec.parameters():,} weights, gain {trainer.gain:.3f}, on {options.device}")
    train(trainer, out, options.half, started + 60 * options.minutes)
    if trainer.epoch == recipe.epochs:
        best = out / "best.safetensors"
        print(f"finished: {best}; next: python sims/calibrate.py --checkpoint {best}")


if __name__ == "__main__":
    run_command(main)
