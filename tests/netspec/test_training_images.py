"""Images to calibrate by, and those held out, by which training chose its epoch: no others are read."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import save_image, tiny_checkpoint
from networks import net

from netspec import image_files
from netspec.ann import ann_predictions
from netspec.checkpoint import Checkpoint, load_checkpoint
from netspec.data import load_images
from netspec.errors import UserError
from netspec.files import writable_folder
from netspec.image_files import imagenet_files
from netspec.recipe import Recipe
from netspec.spec import Projection
from netspec.trainer import Trainer, train
from netspec.training_images import held_out_images, random_training_images, split

SPEC = net(
    "toy",
    {"input": (48, 48, 3), "output": (1, 1, 3)},
    Projection("input", "output", kind="dense", pool=48),
)
RECIPE = Recipe(epochs=1, batch=6, lr=0.01, init="he", validation=13, bf16=False, seed=5)
HELD_OUT = [66, 72, 157, 49870, 49937, 49981]  # of 50,000, by seed 0: the first and last three of 1,000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Ten photographs of each of three classes, all different, and two of each to test on."""
    root, draw = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for part, n in (("train", 10), ("val", 2)):
        for name in "abc":
            for number in range(n):
                save_image(root / part / name / f"{number}.png", draw.integers(0, 256, (60, 70, 3), dtype=np.uint8))
    return root


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> Path:
    """Folder of a training that is over."""
    images, test = (imagenet_files(folder, part, SPEC.input.shape) for part in ("train", "test"))
    out = writable_folder(tmp_path_factory.mktemp("trained"))
    train(Trainer(SPEC, images, test, RECIPE, "cpu"), out)
    return out


@pytest.fixture(scope="module")
def network(trained) -> Checkpoint:
    return load_checkpoint(trained / "best.safetensors")


@pytest.fixture
def was_read(monkeypatch) -> list[Path]:
    """The files that are read from now on."""
    read, paths = image_files.read_image, []
    monkeypatch.setattr(image_files, "read_image", lambda path, shape: paths.append(path) or read(path, shape))
    return paths


def told(network: Checkpoint, **changed: object) -> Checkpoint:
    recipe = {**network.info["recipe"], **changed}
    return replace(network, info={**network.info, "recipe": recipe})


def test_they_are_those_by_which_training_chose(folder, trained, network, was_read):
    images = held_out_images(network, str(folder))
    assert len(images) == len(was_read) == 13 and len(set(images.files)) == 13
    assert images.source == f"held out of {folder.name} train"
    with open(trained / "log.csv", newline="") as file:
        (epoch,) = csv.DictReader(file)
    error = np.mean(ann_predictions(network, images.images) != images.labels)
    assert 0 < error < 1 and float(epoch["validation_error"]) == pytest.approx(error)
    everything = imagenet_files(folder, "train", SPEC.input.shape)
    learned = everything.subset(split(30, 13, RECIPE.seed)[0])
    assert set(learned.files) | {file.encode() for file in images.files} == set(everything.files)
    assert len(learned) == 17
    for image, file in zip(images.images, images.files, strict=True):
        np.testing.assert_array_equal(image, image_files.read_image(folder / "train" / file, SPEC.input.shape))


def test_only_the_wanted_photographs_are_read(folder, network, was_read):
    shape, classes = SPEC.input.shape, tuple("abc")
    everything = load_images(str(folder), shape, classes, "train")
    assert len(was_read) == 30
    was_read.clear()
    some = random_training_images(network, str(folder), 7, 3)
    assert len(was_read) == 7
    assert (some.files, some.digest) == ((expected := everything.random(7, 3)).files, expected.digest)
    was_read.clear()
    first = load_images(str(folder), shape, classes, choose=lambda every: every.first(2))
    assert len(first) == len(was_read) == 2
    with pytest.raises(UserError, match=r"31 images were asked for, but .* train has 30"):
        random_training_images(network, str(folder), 31, 0)


def test_images_of_other_classes_are_told(capsys):
    alike = replace(tiny_checkpoint(), classes=tuple("abcdefghij"))
    assert len(random_training_images(alike, "cifar10-samples", 3, 0)) == 3
    assert re.fullmatch(r"note: classes of .* are none of the network's \(a, b, c, ...\)\n", capsys.readouterr().err)
    random_training_images(tiny_checkpoint(), "cifar10-samples", 3, 0)
    assert capsys.readouterr().err == ""


def test_who_does_not_know_them_says_so(folder, network):
    recipe = network.info["recipe"]
    for changed in (
        {"recipe": None}, {"recipe": 3}, {"recipe": {**recipe, "validation": "13"}}, {"recipe": {"validation": 13}},
        {"trained_on": None}, {"started_from": {"imported": "a module"}}, {"started_from": "a file"},
        {"started_from": {}}, {"recipe": {**recipe, "start": "0a0b0c0d"}},
        {"started_from": {**network.info, "trained_on": "other images"}},
        {"started_from": {**network.info, "recipe": {**recipe, "seed": 6}}},
        {"started_from": {**network.info, "started_from": {**network.info, "recipe": {**recipe, "validation": 12}}}},
    ):  # fmt: skip
        with pytest.raises(UserError, match="toy does not tell which images its training held out"):
            held_out_images(replace(network, info={**network.info, **changed}), str(folder))
    with pytest.raises(UserError, match="the training of toy held out no images"):
        held_out_images(told(network, validation=0), str(folder))
    others = r"toy was trained on .* train, and these images of .* are not the same"
    with pytest.raises(UserError, match=others):
        held_out_images(told(network, validation=30), str(folder))
    with pytest.raises(UserError, match=others):
        held_out_images(network, str(folder / "val"))


def test_images_are_known_by_their_digest_or_by_their_folder(folder, network, tmp_path):
    expected = held_out_images(network, str(folder)).digest
    shutil.copytree(folder, moved := tmp_path / "elsewhere")
    assert held_out_images(network, str(moved)).digest == expected
    shutil.copytree(folder, same := tmp_path / folder.name)
    (same / "train" / "a" / "0.png").rename(same / "train" / "a" / "new.png")
    with pytest.raises(UserError, match="are not the same"):
        held_out_images(network, str(same))
    earlier = replace(network, info={key: value for key, value in network.info.items() if key != "training_images"})
    assert held_out_images(earlier, str(folder)).digest == expected
    with pytest.raises(UserError, match="are not the same"):
        held_out_images(earlier, str(moved))


def test_a_network_trained_further_holds_out_no_more_than_before(folder, network):
    further = told(network, validation=5)
    further = replace(further, info={**further.info, "started_from": network.info})
    few, all_of_them = (set(held_out_images(each, str(folder)).files) for each in (further, network))
    assert len(few) == 5 and few < all_of_them


def test_shipped_networks_have_learned_the_others():
    """The split is part of what they are: another one would show images that they have learned."""
    learned, held_out = split(50_000, 1000, 0)
    assert [*held_out[:3], *held_out[-3:]] == HELD_OUT and len(learned) == 49_000
