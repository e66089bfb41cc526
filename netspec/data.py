"""Images: CIFAR-10 in its official binary files, folders in the manner of ImageNet, and bundled samples."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from netspec.errors import UserError
from netspec.image_files import (
    CIFAR10_URL,
    IMAGENETTE_CLASSES,
    ImageFiles,
    Images,
    find_images,
    imagenet_files,
    read_image,
    refuse_pickled,
    split_folder,
)

__all__ = [
    "CIFAR10_CLASSES",
    "IMAGENETTE_CLASSES",
    "AnyImages",
    "ImageSet",
    "cifar10",
    "image_folder",
    "imagenet_folder",
    "load_images",
    "no_images",
    "samples",
]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_MD5 = "md5:c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
CIFAR10_RECORD = 1 + 3 * 32 * 32  # one label byte, then the red, green and blue planes


@dataclass(frozen=True)
class ImageSet(Images):
    """Labelled images in memory.

    Parameters
    ----------
    images : numpy.ndarray
        uint8, (n, height, width, 3).
    labels : numpy.ndarray
        int64, (n,): indices into ``classes``.
    classes : tuple of str
    source : str
        Where the images come from, for the record.
    files : tuple of str
        Of each image, if they come from a folder: its path there.
    others : tuple of str
        Classes of the images that are none of ``classes``, which are a network's then.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    source: str
    files: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def digest(self) -> str:
        """sha256 over the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()

    def subset(self, indices: np.ndarray | slice) -> ImageSet:
        files = tuple(np.array(self.files, dtype=object)[indices]) if self.files else ()
        return replace(self, images=self.images[indices], labels=self.labels[indices], files=files)

    def labelled(self, classes: tuple[str, ...]) -> ImageSet:
        """The images for a network of these classes; the label is -1 where their class is none of them."""
        place = {name: index for index, name in enumerate(classes)}
        labels = np.array([*(place.get(name, -1) for name in self.classes), -1])[self.labels]
        others = tuple(name for index, name in enumerate(self.classes) if name not in place and index in self.labels)
        return replace(self, labels=labels, classes=classes, others=others)

    @property
    def about_others(self) -> str:
        """What is to be said where there are ``others``."""
        return (
            f"classes of {self.source} ({shortened(self.others)}) are none of the network's ({shortened(self.classes)})"
        )

    def of_known_classes(self) -> ImageSet:
        """Itself; raises UserError if the class of an image is not known, or none of the network's."""
        if (self.labels < 0).any():
            if self.others:
                raise UserError(f"{self.about_others}, which --classes told when it was brought in")
            raise UserError(f"the classes of images of {self.source} are not known; put them into one folder a class")
        return self


def shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + ", ..." * (len(names) > 3)


AnyImages = ImageSet | ImageFiles


def cifar10(split: str, folder: str | os.PathLike | None = None) -> ImageSet:
    """CIFAR-10 (Krizhevsky 2009), in the official order.

    Parameters
    ----------
    split : {'train', 'test'}
    folder : path, optional
        Folder of the binary version's files (or the folder around it). By default they are downloaded
        from their publisher, once, into the user's cache.

    Raises
    ------
    UserError
        If files are missing, truncated, or cannot be downloaded.
    """
    root = Path(folder) if folder is not None else download_cifar10()
    if (root / CIFAR10_FOLDER).is_dir():
        root = root / CIFAR10_FOLDER
    refuse_pickled(root)
    records = [_cifar10_records(root / name) for name in CIFAR10_FILES[split]]
    data = np.concatenate(records)
    images = data[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    labels = data[:, 0].astype(np.int64)
    return ImageSet(np.ascontiguousarray(images), labels, CIFAR10_CLASSES, f"CIFAR-10 {split}")


def _cifar10_records(path: Path) -> np.ndarray:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise UserError(f"{path}: {os.strerror(error.errno or 0)}; the binary version of CIFAR-10 is needed") from error
    if data.size != 10_000 * CIFAR10_RECORD or data[::CIFAR10_RECORD].max() > 9:
        raise UserError(f"{path} is truncated or no CIFAR-10 batch: 10,000 records of {CIFAR10_RECORD} bytes expected")
    return data.reshape(-1, CIFAR10_RECORD)


def download_cifar10() -> Path:
    """Fetch the official binary version once, checked and with progress; returns its folder."""
    import pooch

    cache = pooch.os_cache("going-deeper-in-brian2")
    try:
        pooch.retrieve(
            CIFAR10_URL,
            known_hash=CIFAR10_MD5,
            path=cache,
            fname="cifar-10-binary.tar.gz",
            processor=pooch.Untar(extract_dir="."),
            progressbar=True,
        )
    except (OSError, ValueError) as error:
        raise UserError(
            f"CIFAR-10 could not be downloaded from {CIFAR10_URL} ({type(error).__name__}); "
            "give the folder of its binary version"
        ) from error
    return Path(cache) / CIFAR10_FOLDER


def samples(dataset: str = "cifar10", classes: tuple[str, ...] = ()) -> ImageSet:
    """The 20 images of a data set inside the package foolbox.

    Parameters
    ----------
    dataset : {'cifar10', 'imagenet'}
        Test images 0 to 19 of CIFAR-10, or photographs of 224x224 from ImageNet.
    classes : tuple of str
        Of the network that is to see photographs of ImageNet: they are labelled (and not -1) for one that knows
        all its 1000 classes.
    """
    from importlib.util import find_spec

    package = find_spec("foolbox")
    if package is None or not package.submodule_search_locations:
        raise UserError("the sample images are in the package foolbox: pip install -r requirements.txt")
    files = sorted(Path(package.submodule_search_locations[0], "data").glob(f"{dataset}_*"))
    if len(files) != 20:
        raise UserError(f"the package foolbox should hold 20 {dataset} images, found {len(files)}; reinstall it")
    labels = np.array([int(file.stem.split("_")[-1]) for file in files])
    if dataset == "cifar10":
        images = np.stack([read_image(file) for file in files])
        return ImageSet(images, labels, CIFAR10_CLASSES, "CIFAR-10 test images 0 to 19")
    images = np.stack([read_image(file, (224, 224, 3)) for file in files])
    labels = labels if len(classes) == 1000 else np.full_like(labels, -1)
    return ImageSet(images, labels, classes, "20 photographs of ImageNet")


def image_folder(
    folder: str | os.PathLike, shape: tuple[int, int, int], classes: tuple[str, ...] | None = None
) -> ImageSet:
    """Images from files: ``folder/CLASS/*`` with known classes, or ``folder/*`` with unknown ones (label -1).

    Every image is scaled until it covers the shape, and its centre is cut out; for 224x224 in the manner of ImageNet
    the shorter side becomes 256, unless the image is 224x224 already. Parameters as for
    :func:`netspec.image_files.find_images`; UserError also if a file is no image.
    """
    return _read(find_images(folder, shape, classes))


def imagenet_folder(
    folder: str | os.PathLike,
    split: str,
    shape: tuple[int, int, int] = (224, 224, 3),
    classes: tuple[str, ...] | None = None,
) -> ImageSet:
    """The images of :func:`netspec.image_files.imagenet_files`, read into memory."""
    return _read(imagenet_files(folder, split, shape, classes))


def _read(files: ImageFiles) -> ImageSet:
    names = tuple(name.decode(errors="replace") for name in files.files.tolist())
    return ImageSet(files.read(), files.labels, files.classes, files.source, names)


def arrays(path: str | os.PathLike, shape: tuple[int, int, int], classes: tuple[str, ...]) -> ImageSet:
    """Images of an ``.npz`` file: ``images``, uint8 (n, height, width, channels), and perhaps their ``labels``.

    Grey images may lack the last axis. UserError if they do not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            images = file["images"]
            labels = file["labels"] if "labels" in file else np.full(len(images), -1)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} holds no arrays images and labels ({error})") from error
    images = images[..., None] if images.ndim == 3 and shape[2] == 1 else images
    if images.dtype != np.uint8 or images.shape[1:] != shape or not len(images):
        wanted = ", ".join(map(str, shape))
        raise UserError(f"{path}: images are {images.dtype} {images.shape}, not uint8 (n, {wanted})")
    whole = labels.shape == (len(images),) and np.issubdtype(labels.dtype, np.integer)
    if not classes:  # of a network that does not know them yet
        labels = np.full(len(images), -1)
    elif not whole or labels.min() < -1 or labels.max() >= len(classes):
        raise UserError(f"{path}: labels must be whole numbers from 0 to {len(classes) - 1}, one for each image")
    return ImageSet(images, labels.astype(np.int64), classes, Path(path).name)


def no_images(n: int, shape: tuple[int, int, int], classes: tuple[str, ...], source: str) -> ImageSet:
    """Black images of no class, in whose place events are shown."""
    if n < 1:
        raise UserError(f"the number of images must be at least 1, got {n}")
    return ImageSet(np.zeros((n, *shape), dtype=np.uint8), np.full(n, -1), classes, source)


def load_images(
    source: str,
    shape: tuple[int, int, int],
    classes: tuple[str, ...],
    split: str = "test",
    choose: Callable[[AnyImages], AnyImages] | None = None,
) -> ImageSet:
    """Images for a network by the name of a data set or a folder.

    Parameters
    ----------
    source : str
        ``'cifar10-samples'`` or ``'imagenet-samples'`` (bundled), ``'cifar10'`` (downloaded once), a folder of
        CIFAR-10's binary version, one with ``train`` and ``val`` in the manner of ImageNet, a folder of images, or an
        ``.npz`` file of arrays.
    shape : (int, int, int)
        Of the network's input: height, width, channels.
    classes : tuple of str
        The network's classes.
    split : {'test', 'train'}
        Of CIFAR-10 and ImageNet.
    choose : callable, optional
        Gives those of all images that are wanted; no other files are read.
    """
    found = found_images(source, shape, classes, split)
    images = choose(found) if choose else found
    return images if isinstance(images, ImageSet) else _read(images)


def found_images(source: str, shape: tuple[int, int, int], classes: tuple[str, ...], split: str) -> AnyImages:
    """All images of a source, as of :func:`load_images`; photographs are still in their files."""
    if Path(source).suffix == ".npz":
        return arrays(source, shape, classes)
    if source in ("cifar10-samples", "imagenet-samples"):
        return samples(source.removesuffix("-samples"), classes).labelled(classes)
    if source == "cifar10":
        return cifar10(split).labelled(classes)
    if any((Path(source) / place / "test_batch.bin").is_file() for place in (".", CIFAR10_FOLDER)):
        return cifar10(split, source).labelled(classes)
    if (Path(source) / CIFAR10_FOLDER.replace("bin", "py")).is_dir():
        refuse_pickled(Path(source))
    if split_folder(source, split):
        return imagenet_files(source, split, shape, classes or None)
    return find_images(source, shape, classes or None)
