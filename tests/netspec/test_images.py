"""Image files of all kinds, as people have them: sizes, modes, formats, damage."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from commands import save_image
from PIL import Image

from netspec.data import ImageSet, cifar10, image_folder, load_images, samples
from netspec.errors import UserError
from netspec.image_files import IMAGE_SUFFIXES, files_inside, read_crop, read_image

CLASSES = ("cat", "dog")


def noise(height: int = 40, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def gradient(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards."""
    y, x = np.mgrid[:height, :width]
    return np.stack([255 * x / max(1, width - 1), 255 * y / max(1, height - 1), 0 * x], axis=2).astype(np.uint8)


# Files


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_format_is_found_and_read(suffix, tmp_path):
    picture = gradient(32, 32)
    lossless = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(picture).save(tmp_path / f"a{suffix}", **lossless)
    (read,) = image_folder(tmp_path, (32, 32, 3), ()).images
    tolerance = 12 if suffix in (".jpg", ".jpeg") else 0
    assert np.abs(read.astype(int) - picture).max() <= tolerance


def test_image_is_read_pixel_for_pixel_unless_a_size_is_asked_for(tmp_path):
    Image.fromarray(noise(30, 50)).save(tmp_path / "a.png")
    read = read_image(tmp_path / "a.png")
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, noise(30, 50))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (30, 30, 3)).shape, (30, 30, 3))


def test_image_of_the_right_size_is_not_touched(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (40, 40, 3)), noise())


@pytest.mark.parametrize(("height", "width"), [(60, 200), (200, 60), (31, 33), (500, 20), (7, 9)])
def test_centre_is_cut_out_and_its_proportions_kept(height, width, tmp_path):
    Image.fromarray(gradient(height, width)).save(tmp_path / "a.png")
    size, side = 16, min(height, width)
    read = read_image(tmp_path / "a.png", (size, size, 3))[..., :2].astype(float) / 255
    inside = (np.arange(size) + 0.5) / size * side - 0.5  # where the pixels lie in the square that is cut out
    for axis, (length, colour) in enumerate([(height, 1), (width, 0)]):
        expected = ((length - side) / 2 + inside) / (length - 1)
        seen = read[..., colour].mean(axis=1 - axis)
        assert np.abs(seen - expected)[1:-1].max() < 0.02  # interpolation bends the ends


def test_single_pixel_fills_the_image(tmp_path):
    Image.fromarray(np.full((1, 1, 3), (9, 90, 200), np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", (8, 8, 3)), np.full((8, 8, 3), (9, 90, 200)))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA"])
def test_every_mode_becomes_colour(mode, tmp_path):
    picture = np.where(gradient(32, 32)[..., :1] > 127, 255, 0).astype(np.uint8) * np.ones((1, 1, 3), np.uint8)
    Image.fromarray(picture).convert(mode).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


def test_jpeg_for_printing_becomes_colour(tmp_path):
    Image.fromarray(gradient(32, 32)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - gradient(32, 32)).max() < 20


@pytest.mark.parametrize("suffix", [".png", ".ppm"])
def test_grey_of_16_bits_keeps_its_shades(suffix, tmp_path):
    shades = np.arange(0, 65_536, 16, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(shades).save(tmp_path / f"a{suffix}")
    read = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read, np.repeat((shades // 256)[..., None], 3, axis=2))


# Damage


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_cut_file_is_refused_or_read_never_worse(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(noise()).save(path)
    whole, refused = path.read_bytes(), 0
    cuts = np.linspace(0, len(whole) - 3, 60).astype(int)
    for length in cuts:
        path.write_bytes(whole[:length])
        try:
            assert read_image(path, (8, 8, 3)).shape == (8, 8, 3)
        except UserError as error:
            assert str(error).startswith(f"{path} is no image, or broken (")
            refused += 1
    assert refused > 50  # a decoder may forgive the loss of the last bytes


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_spoilt_file_is_refused_or_read_never_worse(suffix, tmp_path):
    path, draw = tmp_path / f"a{suffix}", np.random.default_rng(0)
    Image.fromarray(noise(12, 12)).save(path)
    whole, refused = path.read_bytes(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata and sizes
        for _ in range(150):
            content = bytearray(whole)
            for place in draw.integers(0, min(len(content), 150), 4):
                content[place] = draw.integers(256)
            path.write_bytes(content)
            try:
                assert read_image(path, (8, 8, 3)).shape == (8, 8, 3)
            except UserError:
                refused += 1
    assert refused > 0


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_stand_as_viewers_show_them(suffix, tmp_path):
    """A camera that was held upright notes that the picture is stored on its side."""
    stored, exif = np.zeros((32, 32, 3), np.uint8), Image.Exif()
    stored[:8] = 255
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.fromarray(stored).save(tmp_path / f"a{suffix}", exif=exif)
    pixels = read_image(tmp_path / f"a{suffix}")
    assert pixels[:, -8:].mean() > 200 > 50 > pixels[:, :16].mean()


def test_a_photograph_on_its_side_may_have_odd_notes(tmp_path):
    width = struct.pack("<HHIf", 0x0100, 11, 1, 40.5)  # a width that is no whole number, which no one can write again
    orientation = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 2) + width + orientation + struct.pack("<I", 0)
    Image.fromarray(gradient(20, 40)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(gradient(20, 40), -1))
    assert read_crop(tmp_path / "a.png", (8, 8, 3), np.random.default_rng(0), 0.5).shape == (8, 8, 3)
    orientation = struct.pack("<HHI4s", 0x0112, 2, 4, b"six\0")  # a text
    exif = b"Exif\0\0" + struct.pack("<2sHIH", b"II", 42, 8, 1) + orientation + struct.pack("<I", 0)
    Image.fromarray(gradient(20, 40)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), gradient(20, 40))
    assert read_crop(tmp_path / "a.png", (8, 8, 3), np.random.default_rng(0), 0.5).shape == (8, 8, 3)


def test_image_of_absurd_size_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(UserError, match=r"bomb.png is no image, or broken"):
        read_image(tmp_path / "bomb.png", (32, 32, 3))


def test_file_of_another_kind_is_refused_whatever_it_is_called(tmp_path):
    for name, content in {"a.png": b"%PDF-1.7", "b.jpg": b"<html></html>", "c.webp": bytes(1000)}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=rf"{name} is no image, or broken"):
            read_image(tmp_path / name, (32, 32, 3))


def test_kind_is_told_by_the_content(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    np.testing.assert_array_equal(image_folder(tmp_path, (40, 40, 3), ()).images[0], noise())


def test_missing_file_and_folder_of_that_name_are_refused(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name in ("folder.png", "missing.png"):
        with pytest.raises(UserError, match=rf"{name} is no image, or broken"):
            read_image(tmp_path / name)


# Folders


def test_order_of_images_is_that_of_their_names(tmp_path):
    for name in ("dog/b", "dog/a", "cat/d", "cat/c"):
        save_image(tmp_path / f"{name}.png", np.full((4, 4, 3), ord(name[-1]), np.uint8))
    read = image_folder(tmp_path, (4, 4, 3), CLASSES)
    assert [chr(image[0, 0, 0]) for image in read.images] == ["c", "d", "a", "b"]
    assert list(read.labels) == [0, 0, 1, 1]
    assert (read.images.dtype, read.labels.dtype.kind) == (np.uint8, "i")


def test_class_of_a_folder_is_its_place_among_the_networks_classes(tmp_path):
    for name in ("dog", "cat"):
        save_image(tmp_path / name / "a.png", noise())
    assert list(image_folder(tmp_path, (8, 8, 3), ("dog", "fox", "cat")).labels) == [2, 0]


def test_empty_class_folders_and_other_files_do_not_matter(tmp_path):
    for name in ("cat", "unicorn"):
        (tmp_path / name).mkdir()
    (tmp_path / "unicorn" / "notes.txt").touch()
    (tmp_path / "README.md").touch()
    save_image(tmp_path / "dog" / "a.JPEG", noise())
    assert list(image_folder(tmp_path, (8, 8, 3), CLASSES).labels) == [1]


def test_linked_images_are_read(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(noise()).save(tmp_path / "a.png")
    os.symlink(tmp_path / "a.png", tmp_path / "images" / "b.png")
    np.testing.assert_array_equal(image_folder(tmp_path / "images", (40, 40, 3), ()).images[0], noise())


def test_linked_folders_are_classes_but_no_circle(tmp_path):
    for name in ("cat", "elsewhere/dog"):
        save_image(tmp_path / name / "a.png", noise())
    root = tmp_path / "photos"
    root.mkdir()
    (root / "cat").symlink_to(tmp_path / "cat")
    (root / "dog").symlink_to(tmp_path / "elsewhere" / "dog")
    (root / "circle").symlink_to(tmp_path)
    (tmp_path / "cat" / "again").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "dogs").symlink_to(tmp_path / "elsewhere" / "dog")
    (tmp_path / "elsewhere" / "dog" / "cats").symlink_to(tmp_path / "cat")
    assert image_folder(root, (40, 40, 3), CLASSES).labels.tolist() == [0, 1]
    assert len(list(files_inside(tmp_path / "cat"))) == 2  # its own, and the dog's once


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch, capsys):
    save_image(tmp_path / "cat" / "a.png", noise())
    (tmp_path / "lost+found").mkdir()
    scandir = os.scandir

    def refusing(folder):
        if str(folder).endswith(closed):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    closed = "lost+found"
    monkeypatch.setattr(os, "scandir", refusing)
    assert len(image_folder(tmp_path, (40, 40, 3), CLASSES)) == 1
    assert "left out the folder" in (said := capsys.readouterr().err) and "lost+found: Permission denied" in said
    closed = tmp_path.name
    with pytest.raises(UserError, match=f"{tmp_path.name}: Permission denied"):
        image_folder(tmp_path, (40, 40, 3), CLASSES)


def test_file_in_the_place_of_a_folder_is_refused(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"there is no folder .*a\.png"):
        load_images(str(tmp_path / "a.png"), (32, 32, 3), CLASSES)


def test_network_of_another_size_gets_images_of_its_size(tmp_path):
    Image.fromarray(noise(50, 70)).save(tmp_path / "a.png")
    for size in (1, 32, 224):
        assert load_images(str(tmp_path), (size, size, 3), ()).images.shape == (1, size, size, 3)


# Sets of images


def test_digest_is_that_of_the_pixels_in_their_order():
    images = samples()
    assert images.digest == samples().digest
    assert images.digest == ImageSet(images.images, -images.labels, (), "elsewhere").digest
    backwards = images.subset(slice(None, None, -1))
    changed = images.images.copy()
    changed[7, 5, 3, 1] ^= 1
    others = [backwards, images.first(19), ImageSet(changed, images.labels, images.classes, images.source)]
    assert len({images.digest, *(other.digest for other in others)}) == 4


def test_random_images_are_those_of_the_seed_each_once_in_their_order():
    images = samples()
    drawn, again, other = images.random(5, 3), images.random(5, 3), images.random(5, -4)
    assert drawn.digest == again.digest != other.digest
    places = [int(np.flatnonzero((images.images == image).all(axis=(1, 2, 3)))[0]) for image in drawn.images]
    assert places == sorted(set(places)) != list(range(5))
    np.testing.assert_array_equal(drawn.labels, images.labels[places])
    with pytest.raises(UserError, match=r"21 images were asked for, but .* has 20"):
        images.random(21, 0)


def test_what_is_left_out_is_counted_and_said(tmp_path, capsys):
    names = ("cat/a.png", "cat/.hidden.png", ".cache/b.png", "cat/more/c.png", "stray.png", "other.png")
    for name in names:
        save_image(tmp_path / name, noise())
    for name in ("cat/notes.txt", "LICENSE", ".DS_Store"):
        (tmp_path / name).touch()
    assert len(image_folder(tmp_path, (8, 8, 3), CLASSES)) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path}: left out ") and said.count("\n") == 1
    parts = (
        "1 of type .txt",
        "1 of type without a suffix",
        "2 beside the folders of",
        "1 deeper than folders of classes",
    )
    assert all(part in said for part in parts)
    (tmp_path / "plain").mkdir()
    save_image(tmp_path / "plain" / "a.png", noise())
    image_folder(tmp_path / "plain", (8, 8, 3), CLASSES)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["val", "validation", "test"])
def test_images_to_test_on_have_one_of_the_usual_names(name, tmp_path):
    for split in ("train", name):
        save_image(tmp_path / split / "cat" / "a.png", noise(seed=len(split)))
    read = load_images(str(tmp_path), (40, 40, 3), CLASSES, "test")
    np.testing.assert_array_equal(read.images[0], noise(seed=len(name)))
    assert read.source == f"{tmp_path.name} {name}"


def test_grey_and_oblong_networks_get_images_of_their_shape(tmp_path):
    picture = gradient(40, 80)
    save_image(tmp_path / "a.png", picture)
    (grey,) = image_folder(tmp_path, (40, 80, 1), ()).images
    np.testing.assert_array_equal(grey[..., 0], np.asarray(Image.fromarray(picture).convert("L")))
    (oblong,) = image_folder(tmp_path, (10, 20, 3), ()).images
    assert np.abs(oblong.astype(int) - gradient(10, 20)).max() < 16
    (centre,) = image_folder(tmp_path, (20, 20, 3), ()).images
    assert 56 < centre[10, 0, 0] < 72  # a quarter of the width
    with pytest.raises(UserError, match="image files have three channels, or one if grey; the network sees 2"):
        image_folder(tmp_path, (40, 80, 2), ())


@pytest.mark.parametrize("name", ["cifar-10-batches-py/data_batch_1", "data_batch_1", "test_batch"])
def test_cifar10_as_pickles_is_refused_with_the_way_out(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).touch()
    for read in (lambda: load_images(str(tmp_path), (32, 32, 3), CLASSES), lambda: cifar10("train", tmp_path)):
        with pytest.raises(
            UserError, match="as Python pickles, which can run any code and are never read; get its bin"
        ):
            read()
