"""Images: the official files of CIFAR-10, read as published or refused, and the bundled samples."""

from importlib import util
from types import SimpleNamespace

import numpy as np
import pytest
import requests

from netspec import data
from netspec.data import CIFAR10_CLASSES, ImageSet, cifar10, samples
from netspec.errors import UserError

BATCH = 10_000


def records(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels, and the published layout: label, then the red, green and blue plane of each."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 10, BATCH)
    images = draw.integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)
    planes = [images[..., colour].reshape(BATCH, 1024) for colour in range(3)]
    return images, labels, np.concatenate([labels[:, None].astype(np.uint8), *planes], axis=1)


@pytest.fixture
def folder(tmp_path):
    """Folder of the binary version, as the archive unpacks."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    return folder


def test_test_split_is_read_pixel_for_pixel(folder):
    images, labels, content = records(0)
    content.tofile(folder / "test_batch.bin")
    read = cifar10("test", folder)
    assert len(read) == BATCH
    assert (read.images.dtype, read.labels.dtype) == (np.uint8, np.int64)
    np.testing.assert_array_equal(read.images, images)
    np.testing.assert_array_equal(read.labels, labels)
    assert (read.classes, read.source) == (CIFAR10_CLASSES, "CIFAR-10 test")


def test_folder_around_the_files_will_do_and_is_where_the_download_lies(folder, monkeypatch):
    records(0)[2].tofile(folder / "test_batch.bin")
    direct = cifar10("test", folder)
    monkeypatch.setattr(data, "download_cifar10", lambda: folder.parent)
    for read in (cifar10("test", folder.parent), cifar10("test")):
        np.testing.assert_array_equal(read.images, direct.images)


def test_training_batches_are_joined_in_their_order(folder):
    content = np.zeros((BATCH, 3073), np.uint8)
    for batch in range(1, 6):
        content[:, 0], content[0, 1:] = batch, 10 * batch
        content.tofile(folder / f"data_batch_{batch}.bin")
    read = cifar10("train", folder)
    assert len(read) == 5 * BATCH
    np.testing.assert_array_equal(read.labels, np.repeat(range(1, 6), BATCH))
    np.testing.assert_array_equal(read.images[::BATCH, 31, 31, 2], [10, 20, 30, 40, 50])


@pytest.mark.parametrize("size", [0, 1, 3073, BATCH * 3073 - 1, BATCH * 3073 + 3073])
def test_file_of_another_size_is_refused(folder, size):
    with open(folder / "test_batch.bin", "wb") as file:
        file.truncate(size)
    with pytest.raises(UserError, match=r"test_batch.bin is truncated or no CIFAR-10 batch: 10,000 records of 3073"):
        cifar10("test", folder)


def test_file_with_labels_above_nine_is_refused(folder):
    content = np.zeros((BATCH, 3073), np.uint8)
    content[-1, 0] = 10
    content.tofile(folder / "test_batch.bin")
    with pytest.raises(UserError, match="is truncated or no CIFAR-10 batch"):
        cifar10("test", folder)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"absent/test_batch.bin: No such file or directory; the binary version"):
        cifar10("test", tmp_path / "absent")


def test_missing_file_is_named(folder):
    np.zeros((BATCH, 3073), np.uint8).tofile(folder / "data_batch_1.bin")
    with pytest.raises(UserError, match=r"data_batch_2.bin: No such file or directory"):
        cifar10("train", folder)


@pytest.mark.parametrize("error", [requests.ConnectionError("no route to host"), ValueError("hash does not match")])
def test_failed_download_names_the_way_out(error, monkeypatch):
    def retrieve(*_, **__):
        raise error

    monkeypatch.setattr("pooch.retrieve", retrieve)
    with pytest.raises(UserError, match=r"could not be downloaded from https://\S+ \(\w+Error\); give the folder"):
        cifar10("train")


# Samples


def test_samples_are_the_first_twenty_test_images():
    sample = samples()
    assert sample.images.shape == (20, 32, 32, 3)
    assert sample.images.dtype == np.uint8
    np.testing.assert_array_equal(sample.labels[:10], [3, 8, 8, 0, 6, 6, 1, 6, 3, 1])
    np.testing.assert_array_equal(sample.images[0, 0, 0], [158, 112, 49])  # of the official test batch
    assert [sample.classes[label] for label in sample.labels[:4]] == ["cat", "ship", "ship", "airplane"]


def test_samples_without_their_package_say_what_to_install(monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="sample images are in the package foolbox: pip install"):
        samples()


def test_incomplete_package_of_samples_is_told(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cifar10_00_3.png").touch()
    monkeypatch.setattr(util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    with pytest.raises(UserError, match="should hold 20 cifar10 images, found 1; reinstall it"):
        samples()


# Choosing images


@pytest.fixture
def three() -> ImageSet:
    images = np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1) * np.ones((1, 2, 2, 3), np.uint8)
    return ImageSet(images, np.array([4, 5, 6]), CIFAR10_CLASSES, "three images")


def test_first_images_keep_their_labels(three):
    chosen = three.first(2)
    assert len(chosen) == 2
    np.testing.assert_array_equal(chosen.images, three.images[:2])
    np.testing.assert_array_equal(chosen.labels, [4, 5])
    assert (chosen.classes, chosen.source) == (three.classes, three.source)
    assert len(three.first(3)) == 3
    assert three.first(None) is three


def test_subset_follows_the_order_of_its_indices(three):
    chosen = three.subset(np.array([2, 0]))
    np.testing.assert_array_equal(chosen.labels, [6, 4])
    np.testing.assert_array_equal(chosen.images[:, 0, 0, 0], [2, 0])


@pytest.mark.parametrize("n", [0, -1])
def test_at_least_one_image_is_needed(three, n):
    with pytest.raises(UserError, match=f"must be at least 1, got {n}"):
        three.first(n)


def test_more_images_than_there_are_is_told(three):
    with pytest.raises(UserError, match="4 images were asked for, but three images has 3"):
        three.first(4)
