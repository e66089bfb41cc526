"""Training images that training keeps apart: to choose an epoch or a conversion by, before any test image is seen."""

from dataclasses import replace

import numpy as np

from netspec.checkpoint import Checkpoint
from netspec.data import ImageSet, load_images
from netspec.errors import UserError
from netspec.image_files import ImageFiles

__all__ = ["held_out_images", "split"]


def split(images: int, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images to learn from, and of those that are held out, each in their order."""
    order = np.random.default_rng(seed).permutation(images)
    return np.sort(order[held_out:]), np.sort(order[:held_out])


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
        If the checkpoint does not tell which they were, if there were none, or if it was trained on other images.
    """
    name, recipe = checkpoint.spec.name, checkpoint.info.get("recipe")
    told = recipe if isinstance(recipe, dict) else {}
    held_out, seed = told.get("validation"), told.get("seed")
    if not isinstance(held_out, int) or not isinstance(seed, int) or min(held_out, seed) < 0:
        raise UserError(f"{name} does not tell which images its training held out")
    if not held_out:
        raise UserError(f"the training of {name} held out no images")
    trained_on = checkpoint.info.get("trained_on")

    def choose(images: ImageSet | ImageFiles) -> ImageSet | ImageFiles:
        if images.source != trained_on or held_out >= len(images):
            raise UserError(f"{name} was trained on {trained_on}, which {source} is not")
        return images.subset(split(len(images), held_out, seed)[1])

    chosen = load_images(source, checkpoint.spec.input.shape, checkpoint.classes, "train", choose)
    return replace(chosen, source=f"held out of {chosen.source}")
