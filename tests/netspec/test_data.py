"""Images: the official files of CIFAR-10, read as published or refused, and the bundled samples."""

from dataclasses import replace
from importlib import util
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from commands import save_image

from netspec import data
from netspec.data import CIFAR10_CLASSES, ImageSet, cifar10, image_folder, imagenet_folder, load_images, samples
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


def test_photographs_of_imagenet_have_labels_for_networks_that_know_all_classes():
    known, unknown = samples("imagenet", tuple(map(str, range(1000)))), samples("imagenet", ("cat", "dog"))
    assert known.images.shape == (20, 224, 224, 3)
    np.testing.assert_array_equal(known.labels[:4], [243, 559, 438, 990])
    np.testing.assert_array_equal(unknown.labels, [-1] * 20)
    assert unknown.classes == ("cat", "dog")
    assert known.digest == unknown.digest != samples().digest
    assert load_images("imagenet-samples", (224, 224, 3), ("cat", "dog")).digest == known.digest


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


# Folders of images


def plain(colour: tuple[int, int, int], height: int = 4, width: int = 4) -> np.ndarray:
    return np.full((height, width, 3), colour, np.uint8)


def test_folders_of_images_are_classes(tmp_path):
    save_image(tmp_path / "dog" / "a.png", plain((1, 2, 3)))
    save_image(tmp_path / "cat" / "b.PNG", plain((4, 5, 6)))
    save_image(tmp_path / "cat" / "a.bmp", plain((7, 8, 9)))
    (tmp_path / "cat" / "notes.txt").touch()
    read = image_folder(tmp_path, (4, 4, 3), ("cat", "dog", "fox"))
    np.testing.assert_array_equal(read.labels, [0, 0, 1])
    np.testing.assert_array_equal(read.images[:, 3, 3], [(7, 8, 9), (4, 5, 6), (1, 2, 3)])
    assert (read.classes, read.source) == (("cat", "dog", "fox"), str(tmp_path))


def test_images_outside_class_folders_have_no_label(tmp_path):
    save_image(tmp_path / "a.png", plain((1, 2, 3)))
    save_image(tmp_path / "b.png", plain((4, 5, 6)))
    read = image_folder(tmp_path, (4, 4, 3), ("cat", "dog"))
    np.testing.assert_array_equal(read.labels, [-1, -1])
    np.testing.assert_array_equal(read.images[:, 0, 0, 0], [1, 4])


def test_shorter_side_is_scaled_and_the_centre_cut_out(tmp_path):
    bands = np.repeat(np.array([10, 200, 90], np.uint8), 8)  # three squares in a row
    save_image(tmp_path / "wide.png", np.tile(bands[None, :, None], (8, 1, 3)))
    save_image(tmp_path / "high.png", np.tile(bands[:, None, None], (1, 8, 3)))
    read = image_folder(tmp_path, (4, 4, 3), ())
    assert read.images.shape == (2, 4, 4, 3)
    assert np.abs(read.images.astype(int) - 200).max() < 20  # scaling smooths the edges a little


def test_grey_images_become_colour(tmp_path):
    save_image(tmp_path / "grey.png", np.full((4, 4), 77, np.uint8))
    np.testing.assert_array_equal(image_folder(tmp_path, (4, 4, 3), ()).images, np.full((1, 4, 4, 3), 77))


def test_photographs_are_scaled_to_256_and_their_centre_seen(tmp_path):
    """ImageNet's convention; a file that is 224 already is left alone."""
    y, x = np.mgrid[:512, :600]
    save_image(tmp_path / "a.png", np.stack([x * 255 / 600, y * 255 / 512, 0 * x], axis=2).astype(np.uint8))
    exact = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    save_image(tmp_path / "b.png", exact)
    scaled, same = image_folder(tmp_path, (224, 224, 3), ()).images
    np.testing.assert_array_equal(same, exact)
    kept = (np.arange(224) + 0.5 + (256 - 224) / 2) * 2  # pixels of the original, downwards
    assert np.abs(scaled[:, 100, 1] - kept * 255 / 512).max() < 2
    assert np.abs(scaled[100, :, 0] - (kept + (600 - 512) / 2) * 255 / 600).max() < 2


def test_folder_in_the_manner_of_imagenet_has_two_splits(tmp_path):
    shades = {"n03888257": 0, "n01440764": 1, "n00000001": 2}
    for split, wnid in product(("train", "val"), shades):
        for k in range(10):
            save_image(tmp_path / split / wnid / f"{k}.png", plain((shades[wnid], split == "val", k)))
    found = imagenet_folder(tmp_path, "train", (4, 4, 3))
    assert found.classes == ("n00000001", "tench", "parachute")
    classes = ("parachute", "tench", "n00000001")
    for split in ("train", "test"):
        read = load_images(str(tmp_path), (4, 4, 3), classes, split)
        np.testing.assert_array_equal(read.images[:, 0, 0, 0], read.labels)
        np.testing.assert_array_equal(read.images[:, 0, 0, 1], split == "test")
        assert sorted(read.labels) == sorted(found.labels) == sorted([0, 1, 2] * 10)
        assert set(read.first(10).labels) == {0, 1, 2}  # in an order of their own, the same every time
        assert read.digest == load_images(str(tmp_path), (4, 4, 3), classes, split).digest
        assert read.source == f"{tmp_path.name} {'val' if split == 'test' else 'train'}"
    wnids = ("n03888257", "n00000001", "n01440764")  # a network may have the names of the folders themselves
    read = load_images(str(tmp_path), (4, 4, 3), wnids, "test")
    assert read.classes == wnids
    np.testing.assert_array_equal(sorted(read.labels), sorted([0, 1, 2] * 10))
    np.testing.assert_array_equal(read.images[:, 0, 0, 0], np.array([0, 2, 1])[read.labels])
    with pytest.raises(UserError, match=r"'n00000001' is none of the network's classes \(cat\)"):
        load_images(str(tmp_path), (4, 4, 3), ("cat",), "test")


def test_folder_of_an_unknown_class_is_refused(tmp_path):
    save_image(tmp_path / "wolf" / "a.png", plain((1, 2, 3)))
    with pytest.raises(UserError, match=r"a.png: 'wolf' is none of the network's classes \(cat, dog\)"):
        image_folder(tmp_path, (4, 4, 3), ("cat", "dog"))


def test_folder_without_images_is_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds no images \(.bmp, .jpeg, .jpg, .png, .ppm, .webp\)"):
        image_folder(tmp_path, (4, 4, 3), ())
    with pytest.raises(UserError, match="there is no folder"):
        image_folder(tmp_path / "absent", (4, 4, 3), ())


def test_broken_image_is_named(tmp_path):
    save_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    whole = (tmp_path / "a.png").read_bytes()
    for content in (b"", b"a text", whole[:20], whole[: len(whole) // 2]):
        (tmp_path / "a.png").write_bytes(content)
        with pytest.raises(UserError, match=r"a.png is no image, or broken"):
            image_folder(tmp_path, (4, 4, 3), ())


def test_source_is_a_name_or_a_folder(folder, monkeypatch):
    records(0)[2].tofile(folder / "test_batch.bin")
    save_image(folder.parent / "images" / "a.png", plain((1, 2, 3)))
    for place in (folder, folder.parent):
        assert load_images(str(place), (32, 32, 3), CIFAR10_CLASSES).source == "CIFAR-10 test"
    assert load_images(str(folder.parent / "images"), (4, 4, 3), ("cat",)).images.shape == (1, 4, 4, 3)
    assert load_images("cifar10-samples", (32, 32, 3), CIFAR10_CLASSES).source == samples().source
    monkeypatch.setattr(data, "cifar10", lambda split: replace(samples(), source=f"CIFAR-10 {split} of the cache"))
    assert load_images("cifar10", (32, 32, 3), CIFAR10_CLASSES, "train").source == "CIFAR-10 train of the cache"


def test_labels_are_those_of_the_networks_classes():
    known = samples()
    assert load_images("cifar10-samples", (32, 32, 3), CIFAR10_CLASSES).labels.tolist() == known.labels.tolist()
    turned = load_images("cifar10-samples", (32, 32, 3), CIFAR10_CLASSES[::-1])
    assert [turned.classes[label] for label in turned.labels] == [known.classes[label] for label in known.labels]
    few = load_images("cifar10-samples", (32, 32, 3), ("ship", "zebra"))
    assert few.labels[:4].tolist() == [-1, 0, 0, -1]  # cat, ship, ship, airplane
    assert few.classes == ("ship", "zebra")
    assert few.labelled(("zebra", "ship")).labels[:4].tolist() == [-1, 1, 1, -1]  # unknown ones stay unknown


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
