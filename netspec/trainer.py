"""Training the ANN of a NetSpec by a recipe."""

from __future__ import annotations

import csv
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from tqdm import tqdm

from netspec.ann import ANN, as_spikes, in_steps
from netspec.checkpoint import Checkpoint, check_weights, content_digest, encode, save_checkpoint
from netspec.data import AnyImages, ImageSet
from netspec.errors import UserError
from netspec.files import write_atomically
from netspec.image_files import ImageFiles, read_image
from netspec.loading import Batch, InFiles, InMemory
from netspec.recipe import Recipe
from netspec.spec import NetSpec
from netspec.training_images import others_than, split

__all__ = ["Trainer", "error_rate", "train"]

SAVE_EVERY = 300  # seconds
SAMPLE = 1000  # photographs that tell the mean and the gain of the input
COVERED = 99.9  # percentile of |input| that the gain maps to 1


class Trainer:
    """A training run that can be stopped after any step and goes on with the same result.

    It begins with the weights of the checkpoint ``start``, whose digest the recipe notes, or with fresh ones.
    Photographs in files are read by so many ``workers``.
    """

    def __init__(
        self,
        spec: NetSpec,
        images: AnyImages,
        test: AnyImages,
        recipe: Recipe,
        device: str,
        start: Checkpoint | None = None,
        workers: int = 0,
    ) -> None:
        if isinstance(images, ImageSet) and images.images.shape[1:] != spec.input.shape:
            raise UserError(f"{spec.name} sees {spec.input.shape} images, {images.source} has {images.images.shape}")
        if recipe.sizes and (isinstance(images, ImageSet) or max(recipe.sizes) > spec.input.shape[0]):
            raise UserError(f"sizes are of photographs in files, and at most the network's {spec.input.shape[0]}")
        if recipe.crop != Recipe.crop and isinstance(images, ImageSet):
            raise UserError("crops are of photographs in files")
        if recipe.validation >= len(images):
            raise UserError(f"{recipe.validation} images for validation leave none of {len(images)} for training")
        if start:  # its clips are part of it
            if start.biases:
                raise UserError(
                    f"{start.spec.name} has biases, which are not trained here; train it where it comes from, and "
                    "bring it in again (python -m netspec.importing)"
                )
            check_weights(spec, start.weights, f"the {start.spec.name} to start with")
            if recipe.validation and others_than(start.info, images.source, images.digest):
                raise UserError(
                    f"{images.source} has other images than when {start.spec.name} was trained on it, which may have "
                    "learned some that are held out now; train without (--validation 0)"
                )
            populations = tuple(replace(p, clip=start.spec[p.name].clip) for p in spec.populations)
            spec = replace(spec, populations=populations)
        if recipe.time_steps:
            spec = replace(spec, populations=tuple(replace(p, dropout=0.0) for p in spec.populations))
        torch.manual_seed(recipe.seed)
        self.spec, self.recipe, self.device = spec, recipe, torch.device(device)
        few = recipe.levels, recipe.time_steps, recipe.delay, recipe.surrogate
        self.ann = ANN(spec, recipe.rms_scale, recipe.init, recipe.centred, *few)
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
        self.classes, self.source = images.classes, images.source
        self.provenance, self.digest = images.provenance, images.digest
        self.started_from = dict(start.info) if start else None
        self.mean, self.gain = (start.mean, start.gain) if start else input_coding(images)
        learned, held_out = split(len(images), recipe.validation, recipe.seed)

        def batches(images: AnyImages, padded: bool = False) -> InMemory | InFiles:
            if isinstance(images, ImageSet):
                return InMemory(images, self.mean, self.gain, self.device, padded)
            return InFiles(images, self.mean, self.gain, self.device, workers)

        self.train = batches(images.subset(learned), padded=True)
        self.held_out = batches(images.subset(held_out)) if recipe.validation else None
        self.test = batches(test)
        self.run: Callable[[torch.Tensor], torch.Tensor] = self.ann
        if recipe.compiled and recipe.time_steps:  # with all its steps, the whole would take minutes to compile
            self.ann.in_steps = torch.compile(in_steps, dynamic=True)
        elif recipe.compiled:
            self.run = torch.compile(self.ann, dynamic=self.train.dynamic)
        self.epoch, self.step, self.best = 0, 0, math.inf
        self.loss, self.seconds = torch.zeros((), device=self.device), 0.0  # sums over the steps of this epoch
        if self.ann.bounds:
            self.ann.set_bounds(next(self.batches())[0])
        self.log: list[dict[str, Any]] = []

    def batches(self) -> Iterator[Batch]:
        """What is left of the shuffled batches of this epoch, as images or as spikes."""
        for x, labels in self.train.shuffled(self.recipe, self.epoch, self.step):
            if self.recipe.input_steps:
                x = as_spikes(x, self.recipe.input_steps)
            yield x.contiguous(memory_format=torch.channels_last), labels

    @property
    def full_size(self) -> bool:
        """Whether this epoch's images are of the network's size."""
        own = self.spec.input.shape[0]
        return self.recipe.size_at(self.epoch, own) == own

    def run_epoch(self) -> float:
        """What is left of an epoch; returns the mean loss."""
        for _ in self.steps():
            pass
        return self.end_epoch()

    def steps(self) -> Iterator[None]:
        """The steps that are left of an epoch, one by one; between two of them it can be left and gone on with."""
        if self.step == 0:
            torch.manual_seed(1_000_003 * (self.recipe.seed + 1) + self.epoch)
        self.ann.train()
        steps = self.train.steps(self.recipe)
        about = f"epoch {self.epoch + 1}/{self.recipe.epochs}"
        start, spent = time.time(), self.seconds
        bar = tqdm(self.batches(), initial=self.step, total=steps, desc=about, leave=False)
        for x, labels in bar:
            for group in self.optimizer.param_groups:
                group["lr"] = self.recipe.lr_at(self.epoch + self.step / steps)
            with self.autocast():
                scores = self.run(x).float()
            loss = F.cross_entropy(scores, labels, label_smoothing=self.recipe.smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            self.loss += loss.detach()
            if self.step % 20 == 0:
                bar.set_postfix(loss=f"{loss.item():.3f}")
            self.step, self.seconds = self.step + 1, spent + time.time() - start
            yield

    def end_epoch(self) -> float:
        """Count an epoch whose steps are done; returns its mean loss."""
        mean = self.loss.item() / self.step
        if not math.isfinite(mean):
            now = f"the learning rate (now {self.recipe.lr})"
            raise UserError(f"the loss is no longer finite in epoch {self.epoch + 1}; lower {now}")
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.loss.zero_()
        return mean

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bf16)

    def checkpoint(self, test_error: float | None) -> Checkpoint:
        """The network as it stands, all scales folded in."""
        info = {"recipe": asdict(self.recipe), "epochs_trained": self.epoch, "test_error": test_error}
        info |= {"trained_on": self.source, "training_images": self.digest}
        info |= {"test_images": len(self.test)}
        info |= {"torch": torch.__version__, "device": self.device.type}
        info |= {} if self.started_from is None else {"started_from": self.started_from}
        return Checkpoint(self.ann.described(), self.ann.folded(), self.mean, self.gain, self.classes, info)

    def state(self) -> bytes:
        """All that a later start needs in order to go on, as safetensors."""
        tensors = {f"ann.{name}": tensor for name, tensor in self.ann.state_dict().items()}
        for name, parameter in self.ann.named_parameters():
            if "momentum_buffer" in self.optimizer.state[parameter]:
                tensors[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        if self.step:  # inside an epoch
            tensors |= {"loss": self.loss, "random": torch.get_rng_state()}
            if self.device.type == "cuda":
                tensors["random.cuda"] = torch.cuda.get_rng_state(self.device)
        tensors = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
        progress = {"epoch": self.epoch, "step": self.step, "seconds": self.seconds, "best": self.best, "log": self.log}
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
            kept: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in recipe.items()}
            began = Recipe(**kept)
            step = progress.get("step", 0)
            done = progress["epoch"] + (step > 0)
            same = NetSpec.from_dict(spec) == self.spec and self.recipe.begins_like(began, done)
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
        if step:
            self.step, self.seconds = step, progress["seconds"]
            self.loss.copy_(tensors["loss"])
            torch.set_rng_state(tensors["random"])
            if "random.cuda" in tensors:
                torch.cuda.set_rng_state(tensors["random.cuda"], self.device)


def input_coding(images: AnyImages) -> tuple[np.ndarray, float]:
    """Mean and gain of the input: of each pixel for CIFAR-10 (section 7.1), of each colour for larger images."""
    if isinstance(images, ImageFiles):
        return colour_coding(images.subset(spread(len(images), SAMPLE)))
    axes = 0 if images.images.shape[1] <= 32 else (0, 1, 2)
    mean = images.images.mean(axis=axes, dtype=np.float64).astype(np.float32) / np.float32(255)
    return mean, input_gain(images.images, mean)


def colour_coding(images: ImageFiles) -> tuple[np.ndarray, float]:
    """Mean of each colour, and the gain as of :func:`input_gain`, by counting values: one image at a time."""
    counts = np.zeros((256, images.shape[2]))
    for index in range(len(images)):
        pixels = read_image(images.path(index), images.shape).reshape(-1, images.shape[2])
        counts += np.stack([np.bincount(colour, minlength=256) for colour in pixels.T], axis=1)
    values = np.arange(256)[:, None] / 255
    mean = (values * counts).sum(axis=0) / counts.sum(axis=0)
    sizes = np.abs(values - mean).ravel()
    order = sizes.argsort()
    covered = np.searchsorted(counts.ravel()[order].cumsum(), COVERED / 100 * counts.sum())
    return mean.astype(np.float32), float(np.float32(1 / sizes[order][covered]))


def spread(n: int, most: int) -> slice:
    """At most so many of ``n``, evenly spread."""
    return slice(None, None, -(-n // most))


def input_gain(images: np.ndarray, mean: np.ndarray) -> float:
    """Gain that brings nearly all of ``pixel / 255 - mean`` into [-1, 1], from up to 5000 images."""
    centred = encode(images[spread(len(images), 5000)], mean, 1)
    return float(np.float32(1 / np.percentile(np.abs(centred), COVERED)))


@torch.no_grad()
def error_rate(trainer: Trainer, images: InMemory | InFiles) -> float:
    """Share of images whose largest class score is not the label's."""
    trainer.ann.eval()
    wrong = 0
    for x, labels in images.in_order():
        with trainer.autocast():
            scores = trainer.ann(x.contiguous(memory_format=torch.channels_last))
        wrong += int((scores.argmax(1) != labels).sum())
    return wrong / len(images)


def train(trainer: Trainer, out: Path, half: bool = False, until: float = math.inf) -> None:
    """Train to the last epoch, or until a moment of ``time.time``; what was finished is in ``out``.

    Writes ``state.safetensors`` (to go on from; after each epoch, and every few minutes inside one), ``log.csv`` (a row
    an epoch) and ``best.safetensors``, the network with the lowest error on the held-out training images so far (on
    none held out, the last). The test images are looked at only when that is written, and in epochs of images of the
    network's size. Trained with levels or in time steps, held-out images are seen so, too; test images by the network
    that is saved, whose ReLUs are clipped and no more.
    """
    state = out / "state.safetensors"
    if state.is_file():
        trainer.resume(state)
        inside = f" and {trainer.step} steps" if trainer.step else ""
        print(f"going on after epoch {trainer.epoch} of {trainer.recipe.epochs}{inside}", flush=True)
    saved, step_seconds, end_seconds = time.time(), 0.0, 0.0  # the longest step, and end of an epoch
    while trainer.epoch < trainer.recipe.epochs:
        before = time.time()
        if before + step_seconds > until:
            return
        for _ in trainer.steps():
            now = time.time()
            step_seconds = max(step_seconds, now - before)
            if now + step_seconds > until or now - saved > SAVE_EVERY:
                write_atomically(state, trainer.state())
                saved = time.time()
                if now + step_seconds > until:
                    return
            before = time.time()
        if time.time() + end_seconds > until:
            write_atomically(state, trainer.state())
            return
        seconds, full_size, start = trainer.seconds, trainer.full_size, time.time()
        loss = trainer.end_epoch()
        error = error_rate(trainer, trainer.held_out) if trainer.held_out else 0.0
        test_error = None
        if error <= trainer.best:
            trainer.best = error
            with trainer.ann.as_saved():
                test_error = error_rate(trainer, trainer.test) if full_size else None
            dtype = np.float16 if half else np.float32
            save_checkpoint(trainer.checkpoint(test_error), out / "best.safetensors", dtype)
        row: dict[str, Any] = {"epoch": trainer.epoch, "loss": round(loss, 5)}
        row["validation_error"] = error if trainer.held_out else ""
        row["test_error"] = "" if test_error is None else test_error
        trainer.log.append(row | {"seconds": round(seconds + time.time() - start, 1)})
        write_atomically(out / "log.csv", as_csv(trainer.log))
        write_atomically(state, trainer.state())
        saved = time.time()
        print(" ".join(f"{key}={value}" for key, value in trainer.log[-1].items()), flush=True)
        end_seconds = max(end_seconds, time.time() - start)
        if trainer.epoch == 2 and loss > 0.98 * math.log(len(trainer.classes)):
            print("warning: the loss has hardly moved in two epochs; try RMS scales, init he or another seed")


def as_csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
