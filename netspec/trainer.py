"""Training the ANN of a NetSpec; the defaults of a :class:`Recipe` are the paper's (section 7.1)."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
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
from netspec.checkpoint import Checkpoint, check_weights, content_digest, encode, save_checkpoint
from netspec.data import ImageSet
from netspec.errors import UserError, check_range
from netspec.files import write_atomically
from netspec.spec import NetSpec

__all__ = ["Recipe", "Trainer", "error_rate", "train"]

PADDING = 1 / 8  # of the image's side, on each side, for the random crop: 4 pixels of 32
COVERED = 99.9  # percentile of |input| that the gain maps to 1


def setting(default: Any, help: str, words: str = "", choices: tuple[str, ...] | None = None, **limits: float) -> Any:
    """A field of a recipe, what it is called in errors (by default its name), and what it may be."""
    return field(default=default, metadata={"help": help, "words": words, "choices": choices, "limits": limits})


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. Fields with a help text are options of the command; UserError if one is impossible."""

    epochs: int = setting(200, "how often all images are shown", "number of epochs", least=1)
    batch: int = setting(256, "images per step", "number of images per step", least=1)
    lr: float = setting(0.05, "(peak) learning rate", "learning rate", least=0)
    schedule: str = setting("steps", "of the learning rate", choices=("steps", "one-cycle"))
    milestones: tuple[int, ...] = setting((81, 122), "lr / 10 at these epochs")
    warmup: float = setting(0.2, "share of one-cycle in which lr rises", "warm-up", least=0, most=1)
    restarts: tuple[int, ...] = setting((), "one-cycle begins anew at these epochs")
    momentum: float = setting(0.9, "of the gradient", least=0)
    nesterov: bool = setting(False, "Nesterov's momentum")
    weight_decay: float = setting(1e-4, "L2 penalty on all weights", least=0)
    init: str = setting("paper", "of the weights", "initialisation", choices=("paper", "he"))
    rms_scale: bool = setting(
        False, "divide each channel by its RMS over the batch (batch norm without mean and shift); folded into weights"
    )
    centred: bool = setting(False, "subtract the mean of each neuron's weights (not in the first and last layer)")
    input_steps: int = setting(
        0, "train on the mean of so many steps of input spikes; 0: on the images themselves", "input steps", least=0
    )
    levels: int = setting(
        0, "train with ReLUs clipped at a learned bound and quantised to so many steps (QCFS); 0: plain ReLUs", least=0
    )
    start: str = ""  # digest of the network that is trained further
    validation: int = setting(1000, "training images held out", "number of images for validation", least=0)
    bf16: bool = True
    compiled: bool = setting(False, "torch.compile: faster, needs a C++ compiler")
    seed: int = setting(0, "", least=0)

    def __post_init__(self) -> None:
        for entry in fields(self):
            value, about = getattr(self, entry.name), entry.metadata
            words = f"the {about.get('words') or entry.name.replace('_', ' ')}"
            if about.get("choices") and value not in about["choices"]:
                raise UserError(f"{words} must be one of {', '.join(about['choices'])}, got {value}")
            if about.get("limits"):
                check_range(words, value, **about["limits"])
        if not all(0 < restart < self.epochs for restart in self.restarts):
            raise UserError(f"restarts must lie between 0 and the number of epochs, {self.epochs}")
        if self.nesterov and not self.momentum:
            raise UserError("Nesterov's momentum must not be 0")

    def further(self, start: Checkpoint) -> Recipe:
        """The recipe for training a checkpoint further; raises UserError where that would give false results."""
        if self.rms_scale:
            raise UserError("the weights of a checkpoint have their scales folded in: train it without RMS scales")
        earlier = start.info.get("recipe", {})
        if earlier.get("seed", self.seed) != self.seed or earlier.get("validation", math.inf) < self.validation:
            raise UserError("with another seed or more validation images, it has learned images held out now")
        return replace(self, start=start.digest)

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
        if images.images.shape[1:] != spec.input.shape:
            raise UserError(f"{spec.name} sees {spec.input.shape} images, {images.source} has {images.images.shape}")
        if recipe.validation >= len(images):
            raise UserError(f"{recipe.validation} images for validation leave none of {len(images)} for training")
        if start:  # its clips are part of it
            if start.biases:
                raise UserError(
                    f"{start.spec.name} has biases, which are not trained here; train it where it comes from, and "
                    "bring it in again (python -m netspec.importing)"
                )
            check_weights(spec, start.weights, f"the {start.spec.name} to start with")
            populations = tuple(replace(p, clip=start.spec[p.name].clip) for p in spec.populations)
            spec = replace(spec, populations=populations)
        torch.manual_seed(recipe.seed)
        self.spec, self.recipe, self.device = spec, recipe, torch.device(device)
        self.ann = ANN(spec, recipe.rms_scale, recipe.init, recipe.centred, recipe.levels)
        if start:
            self.ann.load_weights(start.weights)
        self.ann.to(self.device)
        self.ann.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        bounds = list(self.ann.bounds.values())
        weights = [parameter for name, parameter in self.ann.named_parameters() if not name.startswith("bounds.")]
        parts: list[dict[str, Any]] = [{"params": weights}, {"params": bounds, "weight_decay": 0.0}]
        self.optimizer = torch.optim.SGD(
            parts if bounds else parts[:1],
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
        if recipe.levels:
            self.ann.set_bounds(next(self.batches())[0])
        self.log: list[dict[str, Any]] = []

    def _tensors(self, images: ImageSet, padding: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoded images (n, 3, height, width), float16, padded by zeros, and their labels."""
        n, height, width, channels = images.images.shape
        x = torch.zeros(n, channels, height + 2 * padding, width + 2 * padding, dtype=torch.float16)
        inner = x[:, :, padding : padding + height, padding : padding + width]
        for part in range(0, n, 1000):
            encoded = encode(images.images[part : part + 1000], self.mean, self.gain)
            inner[part : part + 1000] = torch.from_numpy(encoded.transpose(0, 3, 1, 2))
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
            now = f"the learning rate (now {self.recipe.lr})"
            raise UserError(f"the loss is no longer finite in epoch {self.epoch + 1}; lower {now}")
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
        return Checkpoint(self.ann.described(), self.ann.folded(), self.mean, self.gain, self.classes, info)

    def state(self) -> bytes:
        """All that a later start needs in order to go on, as safetensors."""
        tensors = {f"ann.{name}": tensor for name, tensor in self.ann.state_dict().items()}
        for name, parameter in self.ann.named_parameters():
            if "momentum_buffer" in self.optimizer.state[parameter]:
                tensors[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        progress = {"epoch": self.epoch, "best": self.best, "log": self.log}
        settings = [asdict(self.recipe), self.spec.to_dict(), self.provenance]
        header = {"progress": json.dumps(progress), "settings": json.dumps(settings)}
        return to_bytes(tensors, header | {"digest": content_digest(tensors, header)})

    def resume(self, path: Path) -> None:
        """Go on from a saved state; raises UserError if it is broken or of a run that began otherwise."""
        content = path.read_bytes()
        try:
            tensors = from_bytes(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
            recipe, spec, provenance = json.loads(header["settings"])
            if header.get("digest") not in (None, content_digest(tensors, header)):
                raise ValueError("its content is not what was written")
            progress = json.loads(header["progress"])
            began = Recipe(**recipe | {name: tuple(recipe[name]) for name in ("milestones", "restarts")})
            same = NetSpec.from_dict(spec) == self.spec and self.recipe.begins_like(began, progress["epoch"])
        except (SafetensorError, UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{path} is truncated or no training state; remove it to start anew") from error
        if not same:
            raise UserError(f"{path} belongs to a run with other settings; give another folder or remove it")
        if provenance != self.provenance:
            raise UserError(f"{path} belongs to a run on {provenance}, not {self.provenance}; give another folder")
        self.ann.load_state_dict({k[4:]: v for k, v in tensors.items() if k.startswith("ann.")})
        for name, parameter in self.ann.named_parameters():
            if f"momentum.{name}" in tensors:  # none is kept at momentum 0
                buffer = torch.empty_like(parameter).copy_(tensors[f"momentum.{name}"])
                self.optimizer.state[parameter]["momentum_buffer"] = buffer
        self.epoch, self.best, self.log = progress["epoch"], progress["best"], progress["log"]


def input_gain(images: np.ndarray, mean: np.ndarray) -> float:
    """Gain that brings nearly all of ``pixel / 255 - mean`` into [-1, 1], from up to 5000 images."""
    centred = encode(images[:: -(-len(images) // 5000)], mean, 1)
    return float(np.float32(1 / np.percentile(np.abs(centred), COVERED)))


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
        row: dict[str, Any] = {"epoch": trainer.epoch, "loss": round(loss, 5)}
        row |= {"validation_error": error, "test_error": ""}
        if error <= trainer.best:
            trainer.best = error
            levels, trainer.ann.levels = trainer.ann.levels, 0  # of what is saved: clipped, not quantised
            row["test_error"] = error_rate(trainer, trainer.test)
            trainer.ann.levels = levels
            dtype = np.float16 if half else np.float32
            save_checkpoint(trainer.checkpoint(row["test_error"]), out / "best.safetensors", dtype)
        seconds = time.time() - start
        longest = max(longest, seconds)
        trainer.log.append(row | {"seconds": round(seconds, 1)})
        write_atomically(out / "log.csv", as_csv(trainer.log))
        write_atomically(state, trainer.state())
        print(" ".join(f"{key}={value}" for key, value in trainer.log[-1].items()), flush=True)
        if trainer.epoch == 2 and loss > 0.98 * math.log(len(trainer.classes)):
            print("warning: the loss has hardly moved in two epochs; try RMS scales, init he or another seed")


def as_csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
