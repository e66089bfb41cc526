"""Images: CIFAR-10 in its official binary files, folders in the manner of ImageNet, and bundled samples."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from netspec.errors import UserError

__all__ = ["CIFAR10_CLASSES", "ImageSet", "cifar10", "image_folder", "load_images", "samples"]

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "md5:c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_FOLDER = "cifar-10-batches-bin"
CIFAR10_FILES = {"train": [f"data_batch_{i}.bin" for i in range(1, 6)], "test": ["test_batch.bin"]}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm"}
CIFAR10_RECORD = 1 + 3 * 32 * 32  # one label byte, then the red, green and blue planes


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Parameters
    ----------
    images : numpy.ndarray
        uint8, (n, height, width, 3).
    labels : numpy.ndarray
        int64, (n,): indices into ``classes``.
    classes : tuple of str
    source : str
        Where the images come from, for the record.
    """

    images: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    source: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """sha256 over the pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()

    def subset(self, indices: np.ndarray | slice) -> ImageSet:
        return ImageSet(self.images[indices], self.labels[indices], self.classes, self.source)

    def first(self, n: int | None) -> ImageSet:
        """The first ``n`` images, or all; raises UserError if there are not as many."""
        if n is None:
            return self
        if n < 1:
            raise UserError(f"the number of images must be at least 1, got {n}")
        if n > len(self):
            raise UserError(f"{n} images were asked for, but {self.source} has {len(self)}")
        return self.subset(slice(n))


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
            "give the folder of its binary version with --data"
        ) from error
    return Path(cache) / CIFAR10_FOLDER


def samples(dataset: str = "cifar10") -> ImageSet:
    """The 20 images of CIFAR-10 (test images 0 to 19) inside the package foolbox."""
    from importlib.util import find_spec

    package = find_spec("foolbox")
    if package is None or not package.submodule_search_locations:
        raise UserError("the sample images are in the package foolbox: pip install -r requirements.txt")
    files = sorted(Path(package.submodule_search_locations[0], "data").glob(f"{dataset}_*"))
    if len(files) != 20:
        raise UserError(f"the package foolbox should hold 20 {dataset} images, found {len(files)}; reinstall it")
    images = np.stack([read_image(file) for file in files])
    labels = np.array([int(file.stem.split("_")[-1]) for file in files])
    return ImageSet(images, labels, CIFAR10_CLASSES, "CIFAR-10 test images 0 to 19")


def image_folder(folder: str | os.PathLike, size: int, classes: tuple[str, ...]) -> ImageSet:
    """Images from files: ``folder/CLASS/*`` with known classes, or ``folder/*`` with unknown ones (label -1).

    Every image is scaled so that its shorter side is ``size``, and its centre is cut out.

    Raises
    ------
    UserError
        If there are no images, a folder is none of the classes, or a file is no image.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UserError(f"there is no folder {root}")
    named = {path: path.parent.name for path in sorted(root.glob("*/*")) if path.suffix.lower() in IMAGE_SUFFIXES}
    plain = [path for path in sorted(root.glob("*")) if path.suffix.lower() in IMAGE_SUFFIXES]
    for path, name in named.items():
        if name not in classes:
            raise UserError(f"{path}: {name!r} is none of the network's classes ({', '.join(classes)})")
    files = list(named) or plain
    if not files:
        raise UserError(f"{root} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}), nor folders of images")
    labels = [classes.index(named[path]) if path in named else -1 for path in files]
    return ImageSet(np.stack([read_image(path, size) for path in files]), np.array(labels), classes, str(root))


def read_image(path: Path, size: int | None = None) -> np.ndarray:
    """An image file as uint8 (height, width, 3), scaled and cut to a square of ``size`` if given."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            if file.mode.startswith("I"):  # 16 bits of grey: convert() would cut off all above 255
                image = Image.fromarray((np.asarray(file) >> 8).astype(np.uint8)).convert("RGB")
            else:
                image = file.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} is no image, or broken ({error})") from error
    return np.asarray(image if size is None else ImageOps.fit(image, (size, size)))


def load_images(source: str, size: int, classes: tuple[str, ...], split: str = "test") -> ImageSet:
    """Images for a network by the name of a data set or a folder.

    Parameters
    ----------
    source : str
        ``'cifar10-samples'`` (bundled), ``'cifar10'`` (downloaded once), a folder of CIFAR-10's binary
        version, or a folder of images.
    size : int
        Side of the network's input.
    classes : tuple of str
        The network's classes.
    split : {'test', 'train'}
        Of CIFAR-10.
    """
    if source == "cifar10-samples":
        return samples("cifar10")
    if source == "cifar10":
        return cifar10(split)
    if any((Path(source) / place / "test_batch.bin").is_file() for place in (".", CIFAR10_FOLDER)):
        return cifar10(split, source)
    return image_folder(source, size, classes)
