"""How a network is trained; the defaults of a :class:`Recipe` are the paper's (section 7.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np

from netspec.checkpoint import Checkpoint
from netspec.errors import UserError, check_range
from netspec.training_images import learned_from

__all__ = ["Recipe"]


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
    time_steps: int = setting(
        0, "train with activations as spiking neurons have them after so many steps, without dropout; 0: ReLUs", least=0
    )
    delay: float = setting(
        0.0, "of time steps: the part after which rates are read, as of calibrate.py", "delay", least=0, most=0.99
    )
    surrogate: bool = setting(False, "of time steps: gradients through them, in place of those of clipped ReLUs")
    smoothing: float = setting(0.0, "of labels: this share is given to all classes", "label smoothing", least=0, most=1)
    crop: float = setting(0.25, "of photographs: least share of the area in a random crop", above=0, most=1)
    sizes: tuple[int, ...] = setting((), "of photographs: train on smaller ones of these sides first")
    growth: tuple[int, ...] = setting((), "epochs after which the next of the sizes comes, at last the network's own")
    start: str = ""  # digest of the network that is trained further
    validation: int = setting(1000, "training images held out", "number of images for validation", least=0)
    bf16: bool = True
    compiled: bool = setting(False, "torch.compile: faster, needs a C++ compiler")
    seed: int = setting(0, "", least=0, most=2**32 - 1)

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
        moments = (0, *self.growth, self.epochs + 1)
        whole = len(self.sizes) == len(self.growth) and all(size >= 32 for size in self.sizes)
        if not whole or any(later <= earlier for earlier, later in pairwise(moments)):
            raise UserError(
                "sizes of photographs must be at least 32, each until an epoch of growth, one after the other; "
                f"got {self.sizes} until {self.growth} of {self.epochs}"
            )
        if self.time_steps and self.input_steps:
            raise UserError("in time steps the image is a constant current: train without input steps")
        if self.surrogate and not self.time_steps:
            raise UserError("surrogate gradients go through time steps; give their number")
        if self.delay and int(self.delay * self.time_steps) == 0:
            raise UserError(f"a delay is a part of the time steps; {self.delay} of {self.time_steps} are none")
        if self.nesterov and not self.momentum:
            raise UserError("Nesterov's momentum must not be 0")

    def heeded(self) -> Recipe:
        """Itself; raises UserError if something is told that the schedule does not listen to."""
        if self.schedule == "steps" and (self.restarts or self.warmup != Recipe.warmup):
            raise UserError("warm-up and restarts are of the schedule one-cycle")
        if self.schedule == "one-cycle" and self.milestones != Recipe.milestones:
            raise UserError("milestones are of the schedule steps")
        return self

    def further(self, start: Checkpoint) -> Recipe:
        """The recipe for training a checkpoint further; raises UserError where that would give false results."""
        if self.rms_scale:
            raise UserError("the weights of a checkpoint have their scales folded in: train it without RMS scales")
        if self.init != Recipe.init:
            raise UserError("a checkpoint has its weights: train it without an initialisation")
        _, held_out, seed = learned_from(start.info)
        if seed not in (None, self.seed) or (held_out is not None and held_out < self.validation):
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

    def size_at(self, epoch: float, own: int) -> int:
        """Side of the photographs in an epoch; that of the network is its ``own``."""
        return (*self.sizes, own)[sum(epoch >= growth for growth in self.growth)]

    def begins_like(self, other: Recipe, epochs: int) -> bool:
        """Whether the first epochs are the same by both recipes, so that a run by the other can go on by this one."""
        planned = ("epochs", "schedule", "milestones", "warmup", "restarts", "sizes", "growth")
        schedule = {name: getattr(self, name) for name in planned}
        moments = np.linspace(0, epochs, 100 * epochs, endpoint=False)
        return replace(other, **schedule) == self and all(
            math.isclose(self.lr_at(moment), other.lr_at(moment))
            and self.size_at(moment, 0) == other.size_at(moment, 0)
            for moment in moments
        )
