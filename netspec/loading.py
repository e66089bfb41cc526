"""Batches to train and to test on: of images in memory, or of photographs that worker processes read from files.

What an epoch shows, and in which order, is a function of seed and epoch alone, so that training can go on inside one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from netspec.checkpoint import encode
from netspec.data import ImageSet
from netspec.errors import UserError
from netspec.image_files import ImageFiles, read_crop, read_image
from netspec.recipe import Recipe

__all__ = ["Batch", "InFiles", "InMemory"]

Batch = tuple[Tensor, Tensor]  # encoded images (n, channels, height, width), and their labels (n,)

PADDING = 1 / 8  # of the image's side, on each side, for the random crop: 4 pixels of 32
TESTED = 100  # images at a time


class InMemory:
    """Images in memory, as they are encoded; trained on in random crops of the padded image, half of them mirrored.

    Parameters
    ----------
    images : ImageSet
    mean, gain
        Of the encoding, see :func:`netspec.checkpoint.encode`.
    device : torch.device
    padded : bool
        Whether there are zeros around them, for random crops.
    """

    dynamic: bool | None = None  # whether torch.compile is for batches of any size

    def __init__(
        self, images: ImageSet, mean: np.ndarray, gain: float | tuple[float, ...], device: torch.device, padded: bool
    ) -> None:
        n, *self.size, channels = images.images.shape
        height, width = self.size
        self.padding = padding = int(PADDING * height) if padded else 0
        x = torch.zeros(n, channels, height + 2 * padding, width + 2 * padding, dtype=torch.float16)
        inner = x[:, :, padding : padding + height, padding : padding + width]
        for part in range(0, n, 1000):
            encoded = encode(images.images[part : part + 1000], mean, gain)
            inner[part : part + 1000] = torch.from_numpy(encoded.transpose(0, 3, 1, 2))
        self.x, self.labels = x.to(device), torch.from_numpy(images.labels).to(device)

    def __len__(self) -> int:
        return len(self.x)

    def steps(self, recipe: Recipe) -> int:
        """Number of batches of an epoch."""
        return math.ceil(len(self) / recipe.batch)

    def shuffled(self, recipe: Recipe, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from the ``first`` on."""
        height, width = self.size
        crops = self.x.unfold(2, height, 1).unfold(3, width, 1)
        draw = np.random.default_rng([recipe.seed, epoch])
        for step, part in enumerate(np.array_split(draw.permutation(len(self)), self.steps(recipe))):
            moves, flips = draw.integers(0, 2 * self.padding + 1, (2, len(part))), draw.random(len(part)) < 0.5
            if step < first:
                continue
            index = torch.from_numpy(part).to(self.x.device)
            down, right = torch.from_numpy(moves).to(self.x.device)
            flip = torch.from_numpy(flips).to(self.x.device)
            batch = crops[index, :, down, right].float()
            yield torch.where(flip[:, None, None, None], batch.flip(3), batch), self.labels[index]

    def in_order(self) -> Iterator[Batch]:
        """All images, as they are."""
        for x, labels in zip(self.x.split(TESTED), self.labels.split(TESTED), strict=True):
            yield x.float(), labels


class InFiles:
    """Photographs in files, read anew in every epoch; trained on in random resized crops, half of them mirrored.

    Parameters
    ----------
    images : ImageFiles
    mean, gain
        Of the encoding, see :func:`netspec.checkpoint.encode`.
    device : torch.device
    workers : int
        Processes that read; 0 for this one. What is read does not depend on it.
    """

    dynamic = False

    def __init__(
        self, images: ImageFiles, mean: np.ndarray, gain: float | tuple[float, ...], device: torch.device, workers: int
    ) -> None:
        self.images, self.device, self.workers = images, device, workers
        self.mean = torch.from_numpy(np.asarray(mean, dtype=np.float32)).to(device)
        self.gain = torch.tensor(gain, dtype=torch.float32, device=device)

    def __len__(self) -> int:
        return len(self.images)

    def steps(self, recipe: Recipe) -> int:
        """Number of batches of an epoch: all full ones, so that networks are compiled for one size; at least one."""
        return max(1, len(self) // recipe.batch)

    def shuffled(self, recipe: Recipe, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from the ``first`` on; the few photographs that are left are in other epochs."""
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(self))
        parts = [order[step * recipe.batch :][: recipe.batch] for step in range(first, self.steps(recipe))]
        side = recipe.size_at(epoch, self.images.shape[0])
        yield from self._read(parts, Crops(self.images, side, recipe.crop, recipe.seed, epoch))

    def in_order(self) -> Iterator[Batch]:
        """All photographs: the centre of each."""
        parts = [np.arange(first, min(first + TESTED, len(self))) for first in range(0, len(self), TESTED)]
        yield from self._read(parts, Centres(self.images))

    def _read(self, parts: Sequence[np.ndarray], dataset: Centres) -> Iterator[Batch]:
        loader: DataLoader = DataLoader(
            dataset,
            batch_sampler=parts,  # type: ignore[arg-type]  # any iterable of batches of indices
            num_workers=self.workers,
            collate_fn=as_it_is,
            generator=torch.Generator(),  # random numbers of training are left alone
        )
        for part, images in zip(parts, told_if_a_worker_dies(loader), strict=True):
            if isinstance(images, UserError):
                raise images
            x = images.to(self.device).float() / 255
            x = ((x - self.mean) * self.gain).clamp(-1, 1).permute(0, 3, 1, 2)
            yield x, torch.from_numpy(self.images.labels[part]).to(self.device)


def told_if_a_worker_dies(batches: Iterable[Any]) -> Iterator[Any]:
    """The batches; raises UserError if a process that reads them ends."""
    try:
        yield from batches
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise UserError(
            "a process that reads photographs has died, perhaps for want of memory; the same command goes on, with "
            "fewer --workers if it happens again"
        ) from error


def as_it_is(images: Any) -> Any:
    return images


@dataclass(frozen=True)
class Centres(Dataset):
    """What a worker reads: the centre of each photograph of a batch."""

    images: ImageFiles

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: np.ndarray) -> Tensor | UserError:
        """uint8 (n, height, width, channels), in memory that processes share: a pipe would hold up a worker's end.

        A UserError is handed on; raised in a worker it would become many lines.
        """
        try:
            return torch.from_numpy(np.stack([self.read(int(index)) for index in indices]))
        except UserError as error:
            return error

    def read(self, index: int) -> np.ndarray:
        return read_image(self.images.path(index), self.images.shape)


@dataclass(frozen=True)
class Crops(Centres):
    """What a worker reads: a random crop of each photograph, drawn from seed, epoch and index."""

    side: int
    least: float
    seed: int
    epoch: int

    def read(self, index: int) -> np.ndarray:
        draw = np.random.default_rng((self.seed, self.epoch, index))
        shape = (self.side, self.side, self.images.shape[2])
        return read_crop(self.images.path(index), shape, draw, self.least)
