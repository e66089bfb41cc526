"""The command that trains: what its options do, and what it refuses."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from commands import ROOT, save_image

from netspec import train as module
from netspec.checkpoint import load_checkpoint
from netspec.data import ImageSet
from netspec.errors import UserError
from netspec.recipe import Recipe
from netspec.train import main


def few_images(split: str, folder: str | None) -> ImageSet:
    """40 images of noise, of ten classes, in place of CIFAR-10."""
    draw = np.random.default_rng(split == "test")
    images = draw.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    return ImageSet(images, draw.integers(0, 10, 40), tuple("abcdefghij"), f"40 images of {split}")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """``python -m netspec.train vgg16`` on few images, by its arguments."""
    monkeypatch.setattr(module, "cifar10", few_images)
    base = ["train", "vgg16", "--out", str(tmp_path / "run"), "--width", "0.03", "--validation", "10", "--threads", "1"]

    def run(*arguments: str) -> Path:
        monkeypatch.setattr(sys, "argv", [*base, *arguments])
        main()
        return tmp_path / "run"

    return run


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        (["--milestones", "3", "4"], {"milestones": (3, 4)}),
        (["--schedule", "one-cycle", "--restarts", "1"], {"schedule": "one-cycle", "restarts": (1,)}),
    ],
)
def test_command_trains_by_its_options(schedule, told, command, capsys):
    options = ["--epochs", "2", "--batch", "15", "--lr", "0.01", *schedule, "--float32", "--rms-scale", "--centred"]
    best = load_checkpoint(command(*options, "--conv-dropout", "0", "--seed", "5") / "best.safetensors")
    chosen = replace(Recipe(), epochs=2, batch=15, lr=0.01, bf16=False, validation=10, seed=5)
    chosen = replace(chosen, **told, rms_scale=True, centred=True)
    assert best.info["recipe"] == json.loads(json.dumps(vars(chosen)))
    assert best.spec.name == "vgg16-cifar10-x0.03"
    assert [population.dropout for population in best.spec.populations if population.dropout] == [0.3, 0.3]
    assert capsys.readouterr().out.startswith(f"vgg16-cifar10-x0.03: {best.spec.parameters():,} weights, gain ")


def test_command_trains_a_checkpoint_further(command, tmp_path):
    start = tmp_path / "start.safetensors"
    (command("--epochs", "1") / "best.safetensors").rename(start)
    (tmp_path / "run/state.safetensors").unlink()
    out = command("--epochs", "1", "--start", str(start), "--input-steps", "9")
    further = load_checkpoint(out / "best.safetensors")
    recipe = Recipe(**further.info["recipe"])
    assert (recipe.input_steps, recipe.start) == (9, load_checkpoint(start).digest)
    assert further.info["started_from"] == load_checkpoint(start).info
    for differing in (("--seed", "1"), ("--validation", "11")):
        with pytest.raises(UserError, match="it has learned images held out now"):
            command("--start", str(start), *differing)
    with pytest.raises(UserError, match="would overwrite the network of --start"):
        command("--start", str(out / "best.safetensors"))
    with pytest.raises(UserError, match="train it without RMS scales"):
        command("--start", str(start), "--rms-scale")
    with pytest.raises(UserError, match=r"input_to_conv1_1 has shape \(2, 3, 3, 3\), vgg16-cifar10-x0.06 needs"):
        command("--start", str(start), "--width", "0.06")
    with pytest.raises(UserError, match="belongs to a run with other settings"):
        command("--epochs", "1")


def test_command_takes_the_defaults_of_the_recipe(command, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "train", lambda trainer, *rest: seen.append((trainer, rest)))
    out = command("--validation", "0")  # by default more than there are images
    run, (folder, half, until) = seen[0]
    assert run.recipe == Recipe(validation=0)
    assert [population.dropout for population in run.spec.populations if population.dropout] == [0.1] * 8 + [0.3] * 2
    assert (folder, half, until) == (out, False, math.inf)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "the number of epochs must be at least 1, got 0"),
        (["--batch", "0"], "the number of images per step must be at least 1, got 0"),
        (["--lr", "-0.1"], "the learning rate must be at least 0, got -0.1"),
        (["--weight-decay", "nan"], "the weight decay must be at least 0, got nan"),
        (["--momentum", "0", "--nesterov"], "Nesterov's momentum must not be 0"),
        (["--validation", "-1"], "the number of images for validation must be at least 0, got -1"),
        (["--input-steps", "-1"], "the input steps must be at least 0, got -1"),
        (["--start", "nothing"], "there is no checkpoint file nothing"),
        (["--seed", "-1"], "the seed must be at least 0 and at most 4294967295, got -1"),
        (["--width", "0"], "--width must be above 0, got 0.0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--schedule", "one-cycle", "--warmup", "1.5"], "the warm-up must be at least 0 and at most 1, got 1.5"),
        (["--epochs", "5", "--restarts", "5"], "restarts must lie between 0 and the number of epochs, 5"),
        (["--device", "nowhere"], "there is no device 'nowhere' here"),
        (["--validation", "40"], "leave none of 40 for training"),
        (["--workers", "-1"], "--workers must be at least 0, got -1"),
        (["--hidden", "0"], "--hidden must be at least 1, got 0"),
        (["--crop", "0"], "the crop must be above 0 and at most 1, got 0.0"),
        (["--smoothing", "2"], "the label smoothing must be at least 0 and at most 1, got 2.0"),
        (["--sizes", "64"], "sizes of photographs must be at least 32, each until an epoch of growth"),
        (["--sizes", "32", "--growth", "3"], "sizes are of photographs in files"),
        (["--conv-dropout", "1"], r"conv1_1: dropout 1.0 is not in \[0, 1\)"),
        (["--out", "/dev/null/run"], "cannot write into the folder /dev/null/run"),
    ],
)
def test_command_refuses_what_makes_no_sense(command, arguments, message):
    with pytest.raises(UserError, match=message):
        command(*arguments)


@pytest.mark.parametrize("network", ["vgg16-imagenet", "resnet34"])
def test_command_trains_on_photographs_in_folders(network, tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    for split, wnid, name in product(("train", "val"), ("n01440764", "n03028079", "n09999999"), ("0.png", "1.png")):
        save_image(tmp_path / split / wnid / name, draw.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    options = ["--epochs", "1", "--batch", "3", "--validation", "0", "--width", "0.03", "--threads", "1"]
    options += ["--data", str(tmp_path), "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["train", network, *options])
    main()
    best = load_checkpoint(tmp_path / "run" / "best.safetensors")
    assert best.classes == ("tench", "church", "n09999999")
    assert best.spec.input.shape == (224, 224, 3)
    assert best.mean.shape == (3,)
    assert (best.info["test_images"], best.info["trained_on"]) == (6, f"{tmp_path.name} train")


def test_hidden_layers_are_as_narrow_as_asked_for(command, monkeypatch):
    best = load_checkpoint(command("--epochs", "1", "--hidden", "7") / "best.safetensors")
    assert [best.spec[f"dense{layer}"].size for layer in (6, 7)] == [7, 7]
    assert best.spec.name == "vgg16-cifar10-x0.03-hidden7"
    monkeypatch.setattr(sys, "argv", ["train", "resnet20", "--hidden", "7"])
    with pytest.raises(UserError, match="resnet20 has no hidden dense layers; leave out --hidden"):
        main()
    monkeypatch.setattr(sys, "argv", ["train", "resnet20", "--conv-dropout", "0"])
    with pytest.raises(UserError, match=r"--conv-dropout is after convolutions \(VGG\), and resnet20 has none"):
        main()


def test_photographs_need_their_folder(tmp_path, monkeypatch):
    for more, message in (
        ([], "resnet34 needs --data: a folder with train/CLASS"),
        (["--data", str(tmp_path)], "there is no folder .*train"),
    ):
        monkeypatch.setattr(sys, "argv", ["train", "resnet34", "--out", str(tmp_path / "run"), *more])
        with pytest.raises(UserError, match=message):
            main()
    save_image(tmp_path / "train" / "a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="train holds no folders of classes"):
        main()


def test_mistake_at_the_keyboard_is_told_in_one_line(tmp_path):
    arguments = ["vgg16", "--data", str(tmp_path / "absent"), "--out", str(tmp_path / "run"), "--width", "0.03"]
    command = [sys.executable, "-m", "netspec.train", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"train.py: error: {tmp_path / 'absent'}")
    assert ended.stderr.count("\n") == 1
