"""Photographs in files, in folders of their classes: found at once, read when they are needed."""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from math import exp, log, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np

from netspec.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["IMAGENETTE_CLASSES", "ImageFiles", "Images", "find_images", "imagenet_files", "read_crop", "read_image"]

IMAGENETTE_CLASSES = {  # the folders of Imagenette, ten classes of ImageNet
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"}
CENTRE = {224: 256}  # ImageNet's convention: the shorter side becomes 256, the centre of 224 is seen
SPLIT_FOLDERS = {"train": ("train",), "test": ("val", "validation", "test")}  # the first that is there
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
PICKLED = ("cifar-10-batches-py", "data_batch_1", "test_batch")  # what torchvision and the Python version have
ASPECT = 4 / 3  # of a random crop, at most, or its inverse
ORIENTATION = 0x0112  # EXIF's tag
UPRIGHT = {  # what makes an image of an orientation upright
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE", 6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
SIDEWAYS = [UPRIGHT[orientation] for orientation in (5, 6, 7, 8)]


class Images(ABC):
    """Labelled images of one source, in an order, of which some can be taken."""

    source: str

    @property
    @abstractmethod
    def digest(self) -> str: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def subset(self, indices: np.ndarray | slice) -> Self: ...

    @property
    def provenance(self) -> str:
        """Source, and the digest's begin: a folder's images may change."""
        return f"{self.source} {self.digest[:8]}"

    def first(self, n: int | None) -> Self:
        """The first ``n`` images, or all; raises UserError if there are not as many."""
        if n is None:
            return self
        if n < 1:
            raise UserError(f"the number of images must be at least 1, got {n}")
        if n > len(self):
            raise UserError(f"{n} images were asked for, but {self.source} has {len(self)}")
        return self.subset(slice(n))

    def random(self, n: int, seed: int) -> Self:
        """``n`` images drawn without replacement, in their order; UserError if there are not as many."""
        self.first(n)
        chosen = np.random.default_rng(seed % 2**64).choice(len(self), n, replace=False)
        return self.subset(np.sort(chosen))


@dataclass(frozen=True)
class ImageFiles(Images):
    """Labelled images in files.

    Parameters
    ----------
    folder : Path
    files : numpy.ndarray
        bytes, (n,): their paths in the folder, encoded by ``os.fsencode``. An array takes little room for the 1.3
        million photographs of ImageNet, and processes can share it.
    labels : numpy.ndarray
        int64, (n,): indices into ``classes``, -1 where the class is not known.
    classes : tuple of str
    shape : (int, int, int)
        Height, width and channels that they are read in.
    source : str
        Where the images come from, for the record.
    """

    folder: Path
    files: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    source: str

    def __len__(self) -> int:
        return len(self.files)

    def path(self, index: int) -> Path:
        return self.folder / os.fsdecode(self.files[index])

    def subset(self, indices: np.ndarray | slice) -> ImageFiles:
        return replace(self, files=self.files[indices], labels=self.labels[indices])

    def read(self) -> np.ndarray:
        """All images, uint8 (n, height, width, channels): the centre of each (see :func:`read_image`)."""
        from tqdm import tqdm

        images = np.empty((len(self), *self.shape), dtype=np.uint8)
        for index in tqdm(range(len(self)), desc=f"reading {self.folder}", leave=False, delay=5):
            images[index] = read_image(self.path(index), self.shape)
        return images

    @cached_property
    def digest(self) -> str:
        """sha256 over the files' names, labels and sizes."""
        sha = hashlib.sha256(self.files.tobytes() + self.labels.tobytes())
        sizes = [self.path(index).stat().st_size for index in range(len(self))]
        sha.update(np.array(sizes, dtype=np.int64).tobytes())
        return sha.hexdigest()


def find_images(
    folder: str | os.PathLike, shape: tuple[int, int, int], classes: tuple[str, ...] | None = None
) -> ImageFiles:
    """Images ``folder/CLASS/*`` with known classes, or ``folder/*`` with unknown ones (label -1).

    Hidden files are passed over; what else is left out is counted on stderr: files that are no images, images deeper
    down, or beside the folders of classes.

    Parameters
    ----------
    folder : path
    shape : (int, int, int)
        Height, width and channels of the images: 3, or 1 for grey ones.
    classes : tuple of str, optional
        Those that the images may have; by default the names of the folders. The folders of Imagenette count as
        their classes' names, unless they are among these themselves.

    Raises
    ------
    UserError
        If there are no images, or a folder is none of the classes.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    files = sorted(files_inside(root))
    pictures = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    known = set(classes or ())
    named = {
        path: name if name in known else IMAGENETTE_CLASSES.get(name, name)
        for path in pictures
        if path.parent.parent == root and (name := path.parent.name)
    }
    if classes is None:
        classes = tuple(dict.fromkeys(named.values()))
    place = {name: index for index, name in enumerate(classes)}
    for path, name in named.items():
        if name not in place:
            raise UserError(f"{path}: {name!r} is none of the network's classes ({', '.join(classes)})")
    taken = list(named) or [path for path in pictures if path.parent == root]
    if not taken:
        refuse_pickled(root)
        raise UserError(f"{root} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), nor folders of images")
    if left := Counter(why_left_out(path, root) for path in set(files) - set(taken)):
        print(f"{root}: left out {', '.join(f'{n} {why}' for why, n in left.items())}", file=sys.stderr)
    labels = np.array([place[named[path]] if path in named else -1 for path in taken])
    inside = np.array([os.fsencode(path.relative_to(root)) for path in taken])
    return ImageFiles(root, inside, labels, classes, shape, str(root))


def files_inside(folder: Path, around: tuple[Path, ...] = ()) -> Iterator[Path]:
    """All files that are not hidden, in folders that are links, too, but for links to one of the folders ``around``."""
    here = folder.resolve()
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        told = f"{folder}: {os.strerror(error.errno or 0)}"
        if not around:
            raise UserError(told) from error
        print(f"left out the folder {told}", file=sys.stderr)
        return
    for entry in entries:
        inner = Path(entry.path)
        if entry.name.startswith("."):
            continue
        if not entry.is_dir():
            yield from [inner] if entry.is_file() else []
        elif (real := inner.resolve()) not in around and not here.is_relative_to(real):
            yield from files_inside(inner, (*around, here))


def why_left_out(path: Path, root: Path) -> str:
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return f"of type {path.suffix or 'without a suffix'}"
    return "beside the folders of classes" if path.parent == root else "deeper than folders of classes"


def split_folder(folder: str | os.PathLike, split: str) -> Path | None:
    """Where images of ``split`` are, in the manner of ImageNet; None if nowhere."""
    return next((Path(folder, name) for name in SPLIT_FOLDERS[split] if Path(folder, name).is_dir()), None)


def imagenet_files(
    folder: str | os.PathLike,
    split: str,
    shape: tuple[int, int, int] = (224, 224, 3),
    classes: tuple[str, ...] | None = None,
) -> ImageFiles:
    """Images in the manner of ImageNet: ``folder/train/WNID/*`` and ``folder/val/WNID/*``, or ``validation``, ``test``.

    Their order is random, but always the same: the first ones are of all classes.

    Parameters as for :func:`find_images`; ``split`` is ``'train'`` or ``'test'`` (the validation images).
    """
    root = split_folder(folder, split)
    if root is None:
        raise UserError(f"there is no folder {Path(folder) / SPLIT_FOLDERS[split][0]}")
    images = find_images(root, shape, classes)
    if (images.labels < 0).any():
        raise UserError(f"{root} holds no folders of classes (WNID/*)")
    shuffled = images.subset(np.random.default_rng(0).permutation(len(images)))
    return replace(shuffled, source=f"{Path(folder).resolve().name} {root.name}")


def refuse_pickled(folder: Path) -> None:
    """Raise UserError if a folder holds CIFAR-10 in its Python version alone."""
    if not any(folder.glob("*.bin")) and any((folder / name).exists() for name in PICKLED):
        raise UserError(
            f"{folder} holds CIFAR-10 as Python pickles, which can run any code and are never read; get its binary "
            f"version, {CIFAR10_URL}, or give --data cifar10, which downloads it"
        )


@contextmanager
def opened(path: Path) -> Iterator[Image]:
    """An image file; UserError if it is none, or turns out to be broken while it is read."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            yield file
    except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is no image, or broken ({error})") from error


def coloured(file: Image) -> Image:
    """The image of a file as viewers show it, RGB."""
    from PIL import Image

    if file.mode.startswith("I"):  # 16 bits of grey: convert() would cut off all above 255
        return Image.fromarray((np.asarray(file) >> 8).astype(np.uint8)).convert("RGB")
    turn = turn_of(file)
    return (file.transpose(Image.Transpose[turn]) if turn else file).convert("RGB")


def turn_of(file: Image) -> str:
    """What makes an image stand upright, a name of PIL's; ``''`` if it does."""
    return UPRIGHT.get(file.getexif().get(ORIENTATION, 1), "")


def pixels(image: Image, channels: int) -> np.ndarray:
    """uint8 (height, width, channels)."""
    return np.asarray(image) if channels == 3 else np.asarray(image.convert("L"))[..., None]


def read_image(path: Path, shape: tuple[int, int, int] | None = None) -> np.ndarray:
    """An image file as uint8 (height, width, 3), scaled and cut to ``shape`` if given; grey if that has one channel."""
    from PIL import ImageOps

    with opened(path) as file:
        image = coloured(file)
    if shape is None:
        return np.asarray(image)
    height, width, channels = shape
    if channels not in (1, 3):
        raise UserError(f"image files have three channels, or one if grey; the network sees {channels}")
    if image.size != (width, height):
        side = CENTRE.get(width, width) if height == width else width
        fitted = ImageOps.fit(image, (side, side if height == width else height))
        cut = (side - width) // 2
        image = fitted.crop((cut, cut, cut + width, cut + height)) if cut else fitted
    return pixels(image, channels)


def read_crop(path: Path, shape: tuple[int, int, int], draw: np.random.Generator, least: float) -> np.ndarray:
    """A random part of an image file, perhaps mirrored, scaled to ``shape``: uint8 (height, width, channels).

    It has at least the share ``least`` of the image's area (Szegedy et al. 2015, arXiv:1409.4842). A JPEG file is
    decoded no finer than the part needs.
    """
    from PIL.Image import Resampling, Transpose

    height, width, channels = shape
    with opened(path) as file:
        size = file.size[::-1] if turn_of(file) in SIDEWAYS else file.size
        left, top, right, bottom = random_box(size, draw, least)
        finer = min((right - left) / width, (bottom - top) / height)
        file.draft("RGB", (int(file.width / finer), int(file.height / finer)))  # type: ignore[no-untyped-call]
        image = coloured(file)
    across, down = image.width / size[0], image.height / size[1]
    box = (left * across, top * down, right * across, bottom * down)
    image = image.resize((width, height), Resampling.BILINEAR, box)
    if draw.random() < 0.5:
        image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
    return pixels(image, channels)


def random_box(size: tuple[int, int], draw: np.random.Generator, least: float) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random part of an image of that (width, height)."""
    for _ in range(10):
        area = draw.uniform(least, 1) * size[0] * size[1]
        aspect = exp(draw.uniform(-log(ASPECT), log(ASPECT)))
        width, height = max(1, round(sqrt(area * aspect))), max(1, round(sqrt(area / aspect)))
        if width <= size[0] and height <= size[1]:
            left, top = draw.integers(0, size[0] - width + 1), draw.integers(0, size[1] - height + 1)
            return int(left), int(top), int(left) + width, int(top) + height
    return 0, 0, *size
