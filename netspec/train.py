"""Train the ANN of a NetSpec: ``python -m netspec.train --help``.

The defaults are the paper's recipe (section 7.1). ``--rms-scale``, ``--centred`` and ``--schedule one-cycle``
are this project's own: with them a network without bias and batch norm learns in a fraction of the epochs.
So is ``--input-steps``: trained on images as a finite number of input spikes shows them, a network loses less
when it is converted.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from tqdm import tqdm

from netspec.ann import ANN, as_spikes
from netspec.checkpoint import (
    Checkpoint,
    check_weights,
    find_checkpoint,
    load_checkpoint,
    save_checkpoint,
    write_atomically,
)
from netspec.data import ImageSet, cifar10, imagenet_folder
from netspec.errors import UserError, run_command, writable_folder
from netspec.resnet import resnet20, resnet34
from netspec.spec import NetSpec, SpecError
from netspec.vgg import vgg16

__all__ = ["Recipe", "error_rate", "train"]

PADDING = 1 / 8  # of the image's side, on each side, for the random crop: 4 pixels of 32
COVERED = 99.9  # percentile of |input| that the gain maps to 1
NETWORKS: dict[str, Callable[..., NetSpec]] = {
    "vgg16": vgg16,
    "resnet20": resnet20,
    "resnet20-constraint1": partial(resnet20, preprocessing=False),
    "resnet20-basic": partial(resnet20, junction_relu=False, preprocessing=False),
    "vgg16-imagenet": partial(vgg16, "imagenet"),
    "resnet34": resnet34,
}
IMAGENET = ("vgg16-imagenet", "resnet34")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the paper's (section 7.1)."""

    epochs: int = 200
    batch: int = 256
    lr: float = 0.05
    schedule: str = "steps"
    milestones: tuple[int, ...] = (81, 122)
    warmup: float = 0.2
    restarts: tuple[int, ...] = ()
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    init: str = "paper"
    rms_scale: bool = False
    centred: bool = False
    input_steps: int = 0
    start: str = ""
    validation: int = 1000
    bf16: bool = True
    compiled: bool = False
    seed: int = 0

    def lr_at(self, epoch: float) -> float:
        """Learning rate at a moment of training, in epochs since the start."""
        if self.schedule == "steps":
            return self.lr * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)
        start = max((restart for restart in self.restarts if restart <= epoch), default=0)
        end = min((restart for restart in self.restarts if restart > epoch), default=self.epochs)
        rise, passed = self.warmup * (end - start), epoch - start
        if passed < rise:
            return self.lr * (0.04 + 0.96 * passed / rise)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (passed - rise) / (end - start - rise)))

    def begins_like(self, other: Recipe, epochs: int) -> bool:
        """Whether the first epochs are the same by both recipes, so that a run by the other can go on by this one."""
        schedule = {name: getattr(self, name) for name in ("epochs", "schedule", "milestones", "warmup", "restarts")}
        moments = np.linspace(0, epochs, 100 * epochs, endpoint=False)
        return replace(other, **schedule) == self and all(
            math.isclose(self.lr_at(moment), other.lr_at(moment)) for moment in moments
        )


class Trainer:
    """A training run that can be stopped after any epoch and goes on with the same result.

    It begins with the weights of the checkpoint ``start``, whose digest the recipe notes, or with fresh ones.
    """

    def __init__(
        self,
        spec: NetSpec,
        images: ImageSet,
        test: ImageSet,
        recipe: Recipe,
        device: str,
        start: Checkpoint | None = None,
    ) -> None:
        if images.images.shape[1:] != (*spec.input.shape[:2], 3):
            raise UserError(f"{spec.name} sees {spec.input.shape} images, {images.source} has {images.images.shape}")
        if recipe.validation >= len(images):
            raise UserError(f"{recipe.validation} images for validation leave none of {len(images)} for training")
        torch.manual_seed(recipe.seed)
        self.spec, self.recipe, self.device = spec, recipe, torch.device(device)
        self.ann = ANN(spec, recipe.rms_scale, recipe.init, recipe.centred)
        if start:
            self.ann.load_weights(start.weights)
        self.ann.to(self.device)
        self.ann.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            self.ann.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
        )
        self.run = torch.compile(self.ann) if recipe.compiled else self.ann
        self.classes, self.source, self.provenance = images.classes, images.source, images.provenance
        self.started_from = dict(start.info) if start else {}
        # of each pixel for CIFAR-10 (section 7.1), of each colour for larger images
        axes = 0 if spec.input.shape[0] <= 32 else (0, 1, 2)
        if start:
            self.mean, self.gain = start.mean, start.gain
        else:
            self.mean = images.images.mean(axis=axes, dtype=np.float64).astype(np.float32) / np.float32(255)
            self.gain = input_gain(images.images, self.mean)
        held_out = recipe.validation
        order = np.random.default_rng(recipe.seed).permutation(len(images))
        self.padding = int(PADDING * spec.input.shape[0])
        self.train = self._tensors(images.subset(np.sort(order[held_out:])), self.padding)
        self.held_out = self._tensors(images.subset(np.sort(order[:held_out])), 0) if held_out else None
        self.test = self._tensors(test, 0)
        self.epoch, self.best = 0, math.inf
        self.log: list[dict[str, Any]] = []

    def _tensors(self, images: ImageSet, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoded images (n, 3, height, width), float16, padded by zeros, and their labels."""
        n, height, width, channels = images.images.shape
        x = torch.zeros(n, channels, height + 2 * padding, width + 2 * padding, dtype=torch.float16)
        inner = x[:, :, padding : padding + height, padding : padding + width]
        for part in range(0, n, 1000):
            encoded = (images.images[part : part + 1000].astype(np.float32) / 255 - self.mean) * self.gain
            inner[part : part + 1000] = torch.from_numpy(np.clip(encoded, -1, 1).transpose(0, 3, 1, 2))
        return x.to(self.device), torch.from_numpy(images.labels).to(self.device)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Shuffled batches of one epoch, randomly cropped and flipped; the same for the same seed and epoch."""
        x, labels = self.train
        size = self.spec.input.shape[0]
        crops = x.unfold(2, size, 1).unfold(3, self.spec.input.shape[1], 1)
        draw = np.random.default_rng([self.recipe.seed, self.epoch])
        for part in np.array_split(draw.permutation(len(x)), math.ceil(len(x) / self.recipe.batch)):
            index = torch.from_numpy(part).to(self.device)
            down, right = torch.from_numpy(draw.integers(0, 2 * self.padding + 1, (2, len(part)))).to(self.device)
            flip = torch.from_numpy(draw.random(len(part)) < 0.5).to(self.device)
            batch = crops[index, :, down, right].float()
            batch = torch.where(flip[:, None, None, None], batch.flip(3), batch)
            if self.recipe.input_steps:
                batch = as_spikes(batch, self.recipe.input_steps)
            yield batch.contiguous(memory_format=torch.channels_last), labels[index]

    def run_epoch(self) -> float:
        """One pass over the training images; returns the mean loss."""
        torch.manual_seed(1_000_003 * (self.recipe.seed + 1) + self.epoch)
        self.ann.train()
        total = torch.zeros((), device=self.device)
        steps = math.ceil(len(self.train[0]) / self.recipe.batch)
        bar = tqdm(self.batches(), total=steps, desc=f"epoch {self.epoch + 1}/{self.recipe.epochs}", leave=False)
        for step, (x, labels) in enumerate(bar):
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr_at(self.epoch + step / steps)
            with self.autocast():
                loss = F.cross_entropy(self.run(x).float(), labels)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
            if step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
        mean = total.item() / steps
        if not math.isfinite(mean):
            raise UserError(
                f"the loss is no longer finite in epoch {self.epoch + 1}; lower --lr (now {self.recipe.lr})"
            )
        self.epoch += 1
        return mean

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16)

    def checkpoint(self, test_error: float) -> Checkpoint:
        """The network as it stands, all scales folded in."""
        info = {"recipe": asdict(self.recipe), "epochs_trained": self.epoch, "test_error": test_error}
        info |= {"trained_on": self.source, "test_images": len(self.test[0])}
        info |= {"torch": torch.__version__, "device": self.device.type}
        info |= {"started_from": self.started_from} if self.started_from else {}
        return Checkpoint(self.spec, self.ann.folded(), self.mean, self.gain, self.classes, info)

    def state(self) -> bytes:
        """All that a later start needs in order to go on, as safetensors."""
        tensors = {f"ann.{name}": tensor for name, tensor in self.ann.state_dict().items()}
        for name, parameter in self.ann.named_parameters():
            if "momentum_buffer" in self.optimizer.state[parameter]:
                tensors[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        progress = {"epoch": self.epoch, "best": self.best, "log": self.log}
        settings = [asdict(self.recipe), self.spec.to_dict(), self.provenance]
        return to_bytes(tensors, {"progress": json.dumps(progress), "settings": json.dumps(settings)})

    def resume(self, path: Path) -> None:
        """Go on from a saved state; raises UserError if it is broken or of a run that began otherwise."""
        content = path.read_bytes()
        try:
            tensors = from_bytes(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            recipe, spec, provenance = json.loads(header["settings"])
            progress = json.loads(header["progress"])
            began = Recipe(**recipe | {name: tuple(recipe[name]) for name in ("milestones", "restarts")})
            same = NetSpec.from_dict(spec) == self.spec and self.recipe.begins_like(began, progress["epoch"])
        except (SafetensorError, SpecError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is truncated or no training state; remove it to start anew") from error
        if not same:
            raise UserError(f"{path} belongs to a run with other settings; give another --out or remove it")
        if provenance != self.provenance:
            raise UserError(f"{path} belongs to a run on {provenance}, not {self.provenance}; give another --out")
        self.ann.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("ann.")})
        for name, parameter in self.ann.named_parameters():
            if f"momentum.{name}" in tensors:  # none is kept at momentum 0
                buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.epoch, self.best, self.log = progress["epoch"], progress["best"], progress["log"]


def input_gain(images: np.ndarray, mean: np.ndarray) -> float:
    """Gain that brings nearly all of ``pixel / 255 - mean`` into [-1, 1], from up to 5000 images."""
    chosen = images[:: -(-len(images) // 5000)].astype(np.float32) / 255 - mean
    return float(np.float32(1 / np.percentile(np.abs(chosen), COVERED)))


@torch.no_grad()
def error_rate(trainer: Trainer, data: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Share of images whose largest class score is not the label's."""
    trainer.ann.eval()
    wrong = 0
    for x, labels in zip(data[0].split(100), data[1].split(100), strict=True):
        with trainer.autocast():
            scores = trainer.ann(x.float().contiguous(memory_format=torch.channels_last))
        wrong += int((scores.argmax(1) != labels).sum())
    return wrong / len(data[0])


def train(trainer: Trainer, out: Path, half: bool = False, until: float = math.inf) -> None:
    """Train to the last epoch, or until a moment of ``time.time``; what was finished is in ``out``.

    Writes ``state.safetensors`` (to go on from), ``log.csv`` (a row an epoch) and ``best.safetensors``, the
    network with the lowest error on the held-out training images so far (on none held out, the last).
    """
    state = out / "state.safetensors"
    if state.is_file():
        trainer.resume(state)
        print(f"going on after epoch {trainer.epoch} of {trainer.recipe.epochs}")
    longest = max((row["seconds"] for row in trainer.log), default=0.0)
    while trainer.epoch < trainer.recipe.epochs and time.time() + longest < until:
        start = time.time()
        loss = trainer.run_epoch()
        error = error_rate(trainer, trainer.held_out) if trainer.held_out else 0.0
        row: dict[str, Any] = {
            "epoch": trainer.epoch,
            "loss": round(loss, 5),
            "validation_error": error,
            "test_error": "",
        }
        if error <= trainer.best:
            trainer.best = error
            row["test_error"] = error_rate(trainer, trainer.test)
            dtype = np.float16 if half else np.float32
            save_checkpoint(trainer.checkpoint(row["test_error"]), out / "best.safetensors", dtype)
        seconds = time.time() - start
        longest = max(longest, seconds)
        trainer.log.append(row | {"seconds": round(seconds, 1)})
        write_atomically(out / "log.csv", as_csv(trainer.log))
        write_atomically(state, trainer.state())
        print(" ".join(f"{key}={value}" for key, value in trainer.log[-1].items()), flush=True)
        if trainer.epoch == 2 and loss > 0.98 * math.log(len(trainer.classes)):
            print("warning: the loss has hardly moved in two epochs; try --rms-scale, --init he or another --seed")


def as_csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


DATA_HELP = (
    "folder of CIFAR-10's binary version, None downloads it; for 224x224 a folder with train/CLASS/* and val/CLASS/*"
)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m netspec.train", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    default = Recipe()
    parser.add_argument("network", choices=NETWORKS, help="architecture")
    parser.add_argument("--data", metavar="DIR", help=DATA_HELP)
    parser.add_argument("--out", default="training", metavar="DIR", help="where state, log and checkpoint go")
    parser.add_argument("--width", type=float, default=1.0, help="factor on the number of channels")
    parser.add_argument("--epochs", type=int, default=default.epochs)
    parser.add_argument("--batch", type=int, default=default.batch, help="images per step")
    parser.add_argument("--lr", type=float, default=default.lr, help="(peak) learning rate")
    parser.add_argument("--schedule", choices=("steps", "one-cycle"), default=default.schedule)
    parser.add_argument("--milestones", type=int, nargs="*", default=default.milestones, help="lr / 10 at these epochs")
    parser.add_argument("--warmup", type=float, default=default.warmup, help="share of one-cycle in which lr rises")
    parser.add_argument(
        "--restarts", type=int, nargs="*", default=default.restarts, help="one-cycle begins anew at these epochs"
    )
    parser.add_argument("--momentum", type=float, default=default.momentum)
    parser.add_argument("--nesterov", action="store_true")
    parser.add_argument("--weight-decay", type=float, default=default.weight_decay)
    parser.add_argument("--conv-dropout", type=float, default=0.1, help="behind convolutions (VGG)")
    parser.add_argument("--dense-dropout", type=float, default=0.3, help="behind dense layers (VGG)")
    parser.add_argument("--branch-dropout", type=float, default=0.1, help="inside residual branches (ResNet)")
    parser.add_argument("--init", choices=("paper", "he"), default=default.init)
    parser.add_argument(
        "--rms-scale",
        action="store_true",
        help="divide each channel by its RMS over the batch (batch norm without mean and shift); folded into weights",
    )
    parser.add_argument(
        "--centred",
        action="store_true",
        help="subtract the mean of each neuron's weights (not in the first and last layer)",
    )
    parser.add_argument(
        "--input-steps", type=int, default=default.input_steps, metavar="STEPS",
        help="train on the mean of so many steps of input spikes; 0: on the images themselves",
    )  # fmt: skip
    parser.add_argument(
        "--start", metavar="CHECKPOINT", help="name or file of a network to train further; None: fresh weights"
    )
    parser.add_argument("--validation", type=int, default=default.validation, help="training images held out")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 arithmetic")
    parser.add_argument("--compiled", action="store_true", help="torch.compile: faster, needs a C++ compiler")
    parser.add_argument("--half", action="store_true", help="store the checkpoint's weights as float16")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="torch threads; None takes all")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop in time for this limit; run again to go on"
    )
    return parser.parse_args()


def main() -> None:
    started = time.time()
    options = parse_arguments()
    if options.threads is not None:
        if options.threads < 1:
            raise UserError("--threads must be at least 1")
        torch.set_num_threads(options.threads)
    start = load_checkpoint(options.start) if options.start else None
    recipe_names = {name for name in Recipe.__dataclass_fields__ if name not in ("bf16", "start")}
    chosen = {name: value for name, value in vars(options).items() if name in recipe_names}
    epochs = {"milestones": tuple(options.milestones), "restarts": tuple(options.restarts)}
    recipe = Recipe(**chosen | epochs | {"bf16": not options.float32, "start": start.digest if start else ""})
    if recipe.epochs < 1 or recipe.batch < 1 or min(recipe.validation, recipe.input_steps) < 0:
        raise UserError("--epochs and --batch must be at least 1, --validation and --input-steps at least 0")
    if start and recipe.rms_scale:
        raise UserError("the weights of a checkpoint have their scales folded in; leave out --rms-scale or --start")
    earlier = start.info.get("recipe", {}) if start else {}
    if earlier.get("seed", recipe.seed) != recipe.seed or earlier.get("validation", math.inf) < recipe.validation:
        raise UserError("with another --seed or more --validation than --start had, it has learned images held out now")
    if start and find_checkpoint(options.start).resolve() == Path(options.out, "best.safetensors").resolve():
        raise UserError(f"{options.out} would overwrite the network of --start; give another --out")
    if not 0 <= recipe.warmup <= 1:
        raise UserError(f"--warmup is a share of the cycle, from 0 to 1, got {recipe.warmup}")
    if not all(0 < restart < recipe.epochs for restart in recipe.restarts):
        raise UserError("--restarts must lie between 0 and --epochs")
    if recipe.seed < 0 or options.width <= 0:
        raise UserError("--seed must not be negative, --width must be positive")
    if min(recipe.lr, recipe.weight_decay, recipe.momentum) < 0 or (recipe.nesterov and not recipe.momentum):
        raise UserError("--lr, --weight-decay and --momentum must not be negative, and --nesterov needs --momentum")
    try:
        torch.empty(1, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"there is no device {options.device!r} here ({str(error).splitlines()[0]})") from error
    dropout = {"conv_dropout": options.conv_dropout, "dense_dropout": options.dense_dropout}
    if not options.network.startswith("vgg"):
        dropout = {"branch_dropout": options.branch_dropout}
    out = writable_folder(options.out)
    if options.network in IMAGENET:
        if not options.data:
            raise UserError(f"{options.network} needs --data: a folder with train/CLASS/* and val/CLASS/*")
        images = imagenet_folder(options.data, "train")
        test = imagenet_folder(options.data, "test", classes=images.classes)
    else:
        images, test = cifar10("train", options.data), cifar10("test", options.data)
    spec = NETWORKS[options.network](width=options.width, classes=len(images.classes), **dropout)
    if start:
        check_weights(spec, start.weights, options.start)
    trainer = Trainer(spec, images, test, recipe, options.device, start)
    print(f"{spec.name}: {spec.parameters():,} weights, gain {trainer.gain:.3f}, on {options.device}")
    train(trainer, out, options.half, started + 60 * options.minutes)
    if trainer.epoch == recipe.epochs:
        best = out / "best.safetensors"
        print(f"finished: {best}; next: python sims/calibrate.py --checkpoint {best}")


if __name__ == "__main__":
    run_command(main)
