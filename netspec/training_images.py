"""Images that a network was trained on, to calibrate it by; and those that training held out, to choose by."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from netspec.checkpoint import Checkpoint
from netspec.data import AnyImages, ImageSet, load_images
from netspec.errors import UserError

__all__ = ["held_out_images", "random_training_images", "split"]


def split(images: int, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to learn from, and of those that are held out, each in their order."""
    order = np.random.default_rng(seed).permutation(images)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


def training_images(checkpoint: Checkpoint, source: str, choose: Callable[[AnyImages], AnyImages]) -> ImageSet:
    return load_images(source, checkpoint.spec.input.shape, checkpoint.classes, "train", choose)


def random_training_images(checkpoint: Checkpoint, source: str, n: int, seed: int) -> ImageSet:
    """``n`` random training images for a network; ``source`` as in :func:`netspec.data.load_images`.

    That they are of other classes than the network's is told on stderr.
    """
    found = training_images(checkpoint, source, lambda every: every.random(n, seed))
    if found.others and found.images.shape[1:] == checkpoint.spec.input.shape:
        print(f"note: {found.about_others}", file=sys.stderr)
    return found


def held_out_images(checkpoint: Checkpoint, source: str) -> ImageSet:
    """The images that a network's training held out.

    Parameters
    ----------
    checkpoint : Checkpoint
    source : str
        Where its training images are, see :func:`netspec.data.load_images`.

    Raises
    ------
    UserError
        If the checkpoint does not tell which they were, if there were none, or if it was trained on other images: by
        their digest; of a checkpoint that has none, by the name of the source alone.
    """
    name, info = checkpoint.spec.name, checkpoint.info
    trained_on, held_out, seed = told = learned_from(info)
    if None in told or not consistent(info):
        raise UserError(f"{name} does not tell which images its training held out")
    if not held_out:
        raise UserError(f"the training of {name} held out no images")

    def choose(images: AnyImages) -> AnyImages:
        digest = info.get("training_images")
        same = images.digest == digest if digest else images.source == trained_on
        if not same or held_out >= len(images):
            raise UserError(f"{name} was trained on {trained_on}, and these images of {source} are not the same")
        return images.subset(split(len(images), held_out, seed)[1])

    chosen = training_images(checkpoint, source, choose)
    return replace(chosen, source=f"held out of {chosen.source}")


def learned_from(info: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Source, number of images held out, and seed of a training; None for what is not told."""
    recipe = info.get("recipe")
    numbers = [recipe.get(key) if isinstance(recipe, dict) else None for key in ("validation", "seed")]
    held_out, seed = (value if isinstance(value, int) and value >= 0 else None for value in numbers)
    return info.get("trained_on"), held_out, seed


def others_than(info: Mapping[str, Any], source: object, digest: object) -> bool:
    """Whether a network was trained on images of the same source, but not on the same ones, as far as is told."""
    known = info.get("training_images")
    return info.get("trained_on") == source and None not in (known, digest) and known != digest


def consistent(info: Mapping[str, Any]) -> bool:
    """Whether the trainings before, if there were some, learned none of the images that the last one held out."""
    trained_on, held_out, seed = learned_from(info)
    digest = info.get("training_images")
    while "started_from" in info:
        info = info["started_from"]
        if not isinstance(info, Mapping):
            return False
        source, before, same = learned_from(info)
        if source != trained_on or same != seed or before is None or before < held_out:
            return False
        if others_than(info, trained_on, digest):
            return False
    recipe = info.get("recipe")
    return not (isinstance(recipe, dict) and recipe.get("start"))  # else its own start is not told
