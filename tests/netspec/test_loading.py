"""Photographs read from files while a network is trained: the same ones at every start, in little memory."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import ROOT, save_image
from networks import net

from netspec import trainer as module
from netspec.checkpoint import load_checkpoint
from netspec.data import imagenet_folder
from netspec.errors import UserError
from netspec.files import writable_folder
from netspec.image_files import ImageFiles, imagenet_files, read_crop
from netspec.loading import InFiles, told_if_a_worker_dies
from netspec.recipe import Recipe
from netspec.spec import Projection
from netspec.trainer import Trainer, error_rate, train

SPEC = net(
    "toy",
    {"input": (48, 48, 3), "conv": (48, 48, 6), "output": (1, 1, 3)},
    Projection("input", "conv", kernel=3, padding=1),
    Projection("conv", "output", kind="dense", pool=48),
    dropout=("conv",),
)
RECIPE = Recipe(
    epochs=2, batch=6, lr=0.3, schedule="one-cycle", init="he", validation=6, bf16=False, rms_scale=True, crop=0.5
)
CLASSES = ("a red one", "green", "the blue")  # in the order of their names
PHOTO = (224, 224, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """12 photographs of each of three classes, 6 of each to test on; the brightest colour is the class."""
    root, draw = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for split, n in (("train", 12), ("val", 6)):
        for label, name in enumerate(CLASSES):
            for number in range(n):
                pixels = draw.integers(0, 160, (60, 70, 3))
                pixels[..., label] += 80
                save_image(root / split / name / f"{number}.png", pixels.astype(np.uint8))
    return root


def photographs(folder: Path, split: str = "train") -> ImageFiles:
    return imagenet_files(folder, split, SPEC.input.shape)


def trainer(folder: Path, recipe: Recipe = RECIPE, workers: int = 0) -> Trainer:
    return Trainer(SPEC, photographs(folder), photographs(folder, "test"), recipe, "cpu", workers=workers)


def batches(folder: Path, workers: int) -> InFiles:
    return InFiles(photographs(folder), np.full(3, 0.4, np.float32), 1.5, torch.device("cpu"), workers)


def same(first: Iterator, second: Iterator) -> bool:
    pairs = list(zip(first, second, strict=True))
    return bool(pairs) and all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


# What an epoch shows


def test_epoch_is_the_same_for_any_number_of_workers_and_from_any_step_on(folder):
    here, elsewhere = batches(folder, 0), batches(folder, 2)
    assert here.steps(RECIPE) == len(list(here.shuffled(RECIPE, 0))) == 6
    assert same(here.shuffled(RECIPE, 0), elsewhere.shuffled(RECIPE, 0))
    assert same(islice(here.shuffled(RECIPE, 0), 4, None), elsewhere.shuffled(RECIPE, 0, first=4))
    assert not same(here.shuffled(RECIPE, 0), here.shuffled(RECIPE, 1))
    assert not same(here.shuffled(RECIPE, 0), here.shuffled(replace(RECIPE, seed=1), 0))


def test_epoch_shows_each_photograph_once_in_batches_of_one_size(folder):
    images = batches(folder, 0)
    shown = torch.cat([labels for _, labels in images.shuffled(RECIPE, 0)])
    assert shown.bincount().tolist() == [12, 12, 12]
    assert [len(labels) for _, labels in images.shuffled(replace(RECIPE, batch=7), 0)] == [7] * 5
    assert [len(labels) for _, labels in images.shuffled(replace(RECIPE, batch=99), 0)] == [36]
    for x, labels in images.shuffled(RECIPE, 0):
        assert torch.equal(x.mean((2, 3)).argmax(1), labels)  # the colour of their class


def test_centres_are_those_of_images_in_memory(folder):
    images, memory = batches(folder, 2), imagenet_folder(folder, "train", SPEC.input.shape)
    x, labels = (torch.cat(parts) for parts in zip(*images.in_order(), strict=True))
    expected = np.clip((memory.images.astype(np.float32) / 255 - np.float32(0.4)) * np.float32(1.5), -1, 1)
    np.testing.assert_allclose(x.permute(0, 2, 3, 1), expected, atol=1e-6)
    np.testing.assert_array_equal(labels, memory.labels)


def test_random_numbers_of_training_are_left_alone(folder):
    torch.manual_seed(0)
    list(chain(batches(folder, 1).in_order(), batches(folder, 0).shuffled(RECIPE, 0)))
    drawn = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(3))


# Crops


def test_crops_have_their_share_of_the_area_anywhere_and_either_way_round(tmp_path):
    """Of an image whose colours are the coordinates."""
    y, x = np.mgrid[:100, :120]
    save_image(tmp_path / "a.png", np.stack([2 * x, 2 * y, 0 * x], axis=-1).astype(np.uint8))
    areas, aspects, corners, mirrored = [], [], [], 0
    for seed in range(300):
        crop = read_crop(tmp_path / "a.png", (50, 50, 3), np.random.default_rng(seed), 0.2).astype(float)
        across, down = crop[..., 0].mean(axis=0) / 2, crop[..., 1].mean(axis=1) / 2
        mirrored += across[0] > across[-1]
        width, height = (np.ptp(line) * 50 / 49 for line in (across, down))
        areas.append(width * height / 12_000)
        aspects.append(width / height)
        corners.append((across.min(), down.min()))
    assert 0.17 < min(areas) < 0.23 and 0.9 < max(areas) <= 1
    assert 0.65 < min(aspects) < 0.8 and 1.25 < max(aspects) < 1.5
    assert (np.min(corners, axis=0) < 3).all() and (np.max(corners, axis=0) > 40).all()
    assert 110 < mirrored < 190


def test_all_of_an_image_is_seen_where_no_part_fits(tmp_path):
    save_image(tmp_path / "strip.png", np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (2, 1, 3)))
    crop = read_crop(tmp_path / "strip.png", (10, 10, 3), np.random.default_rng(0), 1.0)
    assert crop.min() < 15 and crop.max() > 185


@pytest.mark.parametrize("seed", range(4))
def test_jpeg_decoded_coarsely_shows_the_same_crop(seed, tmp_path):
    y, x = np.mgrid[:800, :1200]
    pixels = np.stack([x / 5, y / 4, 128 + 100 * np.sin(x / 90)], axis=-1).astype(np.uint8)
    save_image(tmp_path / "a.png", pixels)
    save_image(tmp_path / "a.jpg", pixels)
    fine, coarse = (
        read_crop(tmp_path / name, (64, 64, 3), np.random.default_rng(seed), 0.3) for name in ("a.png", "a.jpg")
    )
    assert np.abs(fine.astype(int) - coarse).mean() < 2


def test_crop_of_a_photograph_on_its_side_is_of_what_viewers_show(tmp_path):
    from PIL import Image

    y, x = np.mgrid[:400, :600]
    shown = Image.fromarray(np.stack([x / 3, y / 2, 0 * x], axis=-1).astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    shown.save(tmp_path / "upright.jpg", quality=95)
    shown.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "side.jpg", quality=95, exif=exif)
    for seed in range(5):
        upright, side = (
            read_crop(tmp_path / name, (40, 40, 3), np.random.default_rng(seed), 0.3).astype(int)
            for name in ("upright.jpg", "side.jpg")
        )
        assert np.abs(upright - side).mean() < 2


# Training


def test_classes_are_learned_from_files(folder, tmp_path):
    run = trainer(folder, replace(RECIPE, epochs=8), workers=2)
    untrained = error_rate(run, run.test)
    train(run, tmp_path)
    best = load_checkpoint(tmp_path / "best.safetensors")
    assert best.info["test_error"] < 0.1 < untrained
    assert best.info["test_images"] == 18
    assert best.mean.shape == (3,)


@pytest.mark.parametrize("sizes", [False, True])
def test_run_interrupted_inside_an_epoch_ends_like_an_uninterrupted_one(sizes, folder, tmp_path, monkeypatch):
    recipe = replace(RECIPE, input_steps=40, sizes=(32,), growth=(1,)) if sizes else RECIPE
    whole, parts = (writable_folder(tmp_path / name) for name in ("whole", "parts"))
    train(trainer(folder, recipe), whole)
    monkeypatch.setattr(module, "SAVE_EVERY", 0)
    steps = Trainer.steps

    def interrupted(run: Trainer) -> Iterator[None]:
        yield from islice(steps(run), 3)
        raise KeyboardInterrupt

    for epoch in range(2):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "steps", interrupted)
            train(trainer(folder, recipe, workers=epoch), parts)
        torch.manual_seed(12345)  # another process has another random state
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Trainer, "end_epoch", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
            train(trainer(folder, recipe), parts)
        run = trainer(folder, recipe)
        run.resume(parts / "state.safetensors")
        assert (run.epoch, run.step) == (epoch, 5)
        run.run_epoch()
        (parts / "state.safetensors").write_bytes(run.state())
    ended = trainer(folder, recipe)
    ended.resume(whole / "state.safetensors")
    for name, value in ended.ann.state_dict().items():
        assert torch.equal(run.ann.state_dict()[name], value)


def test_smaller_photographs_come_first_and_the_test_ones_are_left_alone_meanwhile(folder, tmp_path):
    run = trainer(folder, replace(RECIPE, epochs=3, sizes=(32, 40), growth=(1, 2)))
    sides = []
    for run.epoch in range(3):
        sides.append(next(run.batches())[0].shape[2:])
    assert sides == [(32, 32), (40, 40), (48, 48)]
    run.epoch = 0
    train(run, tmp_path)
    tested = [row["test_error"] for row in run.log]
    assert tested[:2] == ["", ""]
    assert (tested[2] == "") == (run.best < run.log[-1]["validation_error"])


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_photograph_is_named_in_one_line(workers, folder, tmp_path):
    for path in folder.rglob("*.png"):
        place = tmp_path / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)
    run = trainer(tmp_path, workers=workers)
    damaged = run.train.images.path(7)
    content = damaged.read_bytes()
    damaged.unlink()
    damaged.write_bytes(content[:2000])
    with pytest.raises(UserError, match=r"\.png is no image, or broken \(") as caught:
        run.run_epoch()
    assert str(damaged) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_reader_that_dies_is_told():
    def batches():
        yield 1
        raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")

    read = told_if_a_worker_dies(batches())
    assert next(read) == 1
    with pytest.raises(UserError, match="a process that reads photographs has died"):
        next(read)


def test_state_of_a_run_on_other_photographs_is_refused(folder, tmp_path):
    (tmp_path / "state").write_bytes(trainer(folder).state())
    other = trainer(folder)
    other.provenance = replace(photographs(folder), labels=photographs(folder).labels[::-1].copy()).provenance
    with pytest.raises(UserError, match=r"a run on photographs\w* train \w{8}, not photographs\w* train \w{8};"):
        other.resume(tmp_path / "state")


@pytest.mark.parametrize("sizes", [(64,), (32, 64)])
def test_sizes_above_the_networks_are_refused(sizes, folder):
    with pytest.raises(UserError, match="at most the network's 48"):
        trainer(folder, replace(RECIPE, epochs=3, sizes=sizes, growth=tuple(range(1, len(sizes) + 1))))


def test_mean_and_gain_are_those_of_images_in_memory(folder):
    mean, gain = module.input_coding(photographs(folder))
    memory = imagenet_folder(folder, "train", SPEC.input.shape)
    np.testing.assert_allclose(mean, memory.images.mean(axis=(0, 1, 2)) / 255, rtol=1e-5)
    assert gain == pytest.approx(module.input_gain(memory.images, mean), rel=1e-3)


# A thousand classes


COMMAND = """
import resource, sys
from netspec import trainer
from netspec.errors import run_command
from netspec.train import main
trainer.SAVE_EVERY = 0
run_command(main)
print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def thousand_classes(root: Path, each: int) -> Path:
    """1000 folders in the manner of ImageNet, made of five photographs: ``each`` to train on, one to test on."""
    draw = np.random.default_rng(0)
    for number in range(5):
        save_image(root / f"{number}.jpg", draw.integers(0, 256, PHOTO, dtype=np.uint8))
    for wnid in range(1000):
        for split, n in (("train", each), ("val", 1)):
            place = root / split / f"n{wnid:08}"
            place.mkdir(parents=True)
            for number in range(n):
                os.link(root / f"{(wnid + number) % 5}.jpg", place / f"{number}.jpg")
    return root


def training(data: Path, out: Path) -> subprocess.Popen[str]:
    """``python -m netspec.train`` of a tiny ResNet-34 for an epoch of small photographs, saving after each step."""
    options = f"resnet34 --data {data} --width 0.02 --epochs 1 --batch 64 --validation 20 --init he --rms-scale"
    options += f" --float32 --sizes 32 --growth 1 --threads 1 --workers 1 --out {out}"
    arguments = [sys.executable, "-c", COMMAND, *options.split()]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_thousand_classes_take_little_memory_and_go_on_after_a_kill(tmp_path):
    data = {each: thousand_classes(tmp_path / str(each), each) for each in (1, 4)}
    killed = training(data[1], tmp_path / "killed")
    state = tmp_path / "killed" / "state.safetensors"
    until = time.time() + 120
    while not state.is_file():
        assert killed.poll() is None and time.time() < until, killed.communicate()
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL

    peaks = {}
    for name, each in (("killed", 1), ("whole", 1), ("more", 4)):
        process = training(data[each], tmp_path / name)
        out, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert ("going on after epoch 0 of 1 and " in out) == (name == "killed")
        peaks[name] = int(out.splitlines()[-1]) * (1 if sys.platform == "darwin" else 1024)
    ended, whole = (load_checkpoint(tmp_path / name / "best.safetensors") for name in ("killed", "whole"))
    assert len(whole.classes) == 1000
    assert ended.digest == whole.digest
    pixels = 3000 * np.prod(PHOTO)  # of the photographs that were added
    assert peaks["more"] - peaks["whole"] < pixels / 10
