"""run_vgg.py and run_resnet.py: what they write, that it can be repeated, what they say to wrong input."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from commands import ROOT, WRONG_RUNS, files, run, save_images, started, strict_json, tiny_checkpoint
from PIL import Image

from netspec.ann import ANN, ann_predictions
from netspec.architectures.resnet import CONSTRAINTS
from netspec.checkpoint import PRETRAINED, Checkpoint, load_checkpoint, save_checkpoint
from netspec.conversion import Conversion, load_conversion, open_conversion
from netspec.data import CIFAR10_CLASSES, samples
from netspec.thresholds import METHODS, find_thresholds, load_thresholds
from sims import run_resnet
from sims import run_vgg as vgg
from sims.brian import binary
from sims.simulation.recording import Recording
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

STEPS = 60


def run_vgg(checkpoint, out, *arguments):
    return run("run_vgg.py", vgg.main, "--checkpoint", checkpoint, "--out", out, *arguments)


def by(name: str, checkpoint) -> dict[str, object]:
    """What a summary says of a conversion that lies beside a checkpoint."""
    digest = open_conversion(name, checkpoint, load_checkpoint(checkpoint)).digest
    return {"method": name, "percentile": 100.0, "digest": digest}


@pytest.fixture(scope="module")
def happy(tiny, tmp_path_factory):
    """What the command says about the sample images, and the folder of what it writes."""
    out = tmp_path_factory.mktemp("run") / "new" / "folder"
    return run_vgg(tiny, out, "--standalone", "--steps", STEPS, "--seed", 3), out


@pytest.fixture
def reference(monkeypatch):
    """The torch reference in the place of every simulator; gives the arguments with which one was asked for."""
    asked = []

    def open_simulator(spec, weights, runtime, synapses, reset, quiet, models, threads):
        asked.append((runtime, synapses, reset, threads))
        return ReferenceSimulator(spec, weights, reset)

    monkeypatch.setattr("sims.run.open_simulator", open_simulator)
    return asked


# What is written


def test_all_results_are_written_and_named(happy):
    ended, out = happy
    expected = ["report.html", "recording.npz", "conversion.safetensors", "images.csv", "summary.json"]
    expected += ["raster.png", "accuracy.png"]
    assert set(files(out)) == set(expected)
    assert ended.status == 0
    written = ended.out.strip().splitlines()[-1].removeprefix("written: ").split()
    assert [Path(file).resolve() for file in written] == [out / name for name in expected]


def test_pictures_can_be_opened(happy):
    assert len(list(happy[1].glob("*.png"))) == 2
    for file in sorted(happy[1].glob("*.png")):
        with Image.open(file) as picture:
            picture.load()
            assert min(picture.size) > 200
            assert len(set(picture.convert("L").tobytes())) > 20  # not an empty page


def test_pdfs_are_written_when_asked_for_and_removed_by_a_run_without(tiny, tmp_path, reference):
    arguments = ("--images", 2, "--steps", 12, "--raster", "conv3_3")
    assert run_vgg(tiny, tmp_path, *arguments, "--pdf").status == 0
    assert {file.name for file in tmp_path.glob("*.pdf")} == {"raster.pdf", "accuracy.pdf"}
    for file in tmp_path.glob("*.pdf"):
        content = file.read_bytes()
        assert content.startswith(b"%PDF") and content.rstrip().endswith(b"%%EOF")
    (tmp_path / "raster_of_mine.pdf").write_text("mine")
    (tmp_path / "accuracys.png").write_text("mine")
    assert run_vgg(tiny, tmp_path, *arguments).status == 0
    assert [file.name for file in tmp_path.glob("*.pdf")] == ["raster_of_mine.pdf"]
    assert (tmp_path / "accuracys.png").read_text() == "mine"


def test_recording_is_that_of_the_samples_under_seed_and_thresholds(happy, tiny):
    recording = Recording.load(happy[1] / "recording.npz")
    checkpoint = load_checkpoint(tiny)
    thresholds = load_thresholds(find_thresholds(tiny, "spike-norm"), checkpoint)
    rasters = ("conv1_1", "conv3_3")
    given = RunInput(checkpoint.encode(samples().images), thresholds.values, STEPS, 3, None, rasters, 3)
    expected = ReferenceSimulator(checkpoint.spec, checkpoint.weights).run(given)
    np.testing.assert_array_equal(recording.counts, expected.counts)
    np.testing.assert_array_equal(recording.output_v, expected.output_v)
    assert set(recording.rasters) == {*rasters, "output"}
    for name, raster in expected.rasters.items():
        np.testing.assert_array_equal(recording.rasters[name], raster)
    assert 2 * STEPS < recording.rasters["conv1_1"][:, 0].max() < 3 * STEPS  # three images, --raster-images
    assert load_conversion(happy[1] / "conversion.safetensors", checkpoint) == Conversion.of(thresholds)


def test_summary_and_table_tell_how_and_what_was_answered(happy, tiny):
    ended, out = happy
    summary, table = strict_json(out / "summary.json"), pd.read_csv(out / "images.csv")
    checkpoint, images = load_checkpoint(tiny), samples()
    x = torch.from_numpy(checkpoint.encode(images.images).transpose(0, 3, 1, 2).copy())
    ann = ANN.from_weights(checkpoint.spec, checkpoint.weights).forward(x).detach().numpy().argmax(axis=1)
    snn = Recording.load(out / "recording.npz").predictions()
    assert list(table["ann"]) == [CIFAR10_CLASSES[answer] for answer in ann]
    assert list(table["snn"]) == [CIFAR10_CLASSES[answer] for answer in snn]
    assert (summary["ann_accuracy"], summary["agreement"]) == (np.mean(ann == images.labels), np.mean(ann == snn))
    first, _, *lines = ended.out.splitlines()
    assert first.startswith(f"{checkpoint.spec.name}, 20 images, ") and first.endswith(", by standalone")
    assert [line.split() for line in lines[:20]] == table.astype(str).to_numpy().tolist()
    assert set(summary["seconds"]) == {"ann", "build", "compile", "simulate"}
    assert summary["seconds"]["simulate"] > 0
    how = {"runtime": "standalone", "synapses": "shared", "reset": "zero", "steps": STEPS, "seed": 3}
    how |= {"rasters": ["conv1_1", "conv3_3", "output"], "raster_images": 3, "checkpoint": checkpoint.digest}
    how |= {"images": images.source, "conversion": by("spike-norm", tiny)}
    assert {name: summary["settings"][name] for name in how} == how


# Repeating


def test_same_seed_gives_the_same_recording_without_a_compiler(happy, tiny, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something is generated or compiled")

    monkeypatch.setattr(binary, "generate", refuse)
    monkeypatch.setattr(binary, "compile_units", refuse)
    ended = run_vgg(tiny, tmp_path, "--standalone", "--steps", STEPS, "--seed", 3, "--quiet")
    assert (ended.status, ended.err) == (0, "")
    for name in ("recording.npz", "images.csv", "conversion.safetensors", "raster.png", "accuracy.png"):
        assert (tmp_path / name).read_bytes() == (happy[1] / name).read_bytes(), name
    seconds = strict_json(tmp_path / "summary.json")["seconds"]
    assert seconds["build"] == seconds["compile"] == 0


def test_the_command_in_the_report_gives_the_same_recording(happy, tmp_path):
    command = strict_json(happy[1] / "summary.json")["settings"]["command"]
    assert f"<pre>{command}</pre>" in (happy[1] / "report.html").read_text()
    assert command.startswith("python sims/run_vgg.py --checkpoint ")
    assert run("run_vgg.py", vgg.main, *shlex.split(command)[2:], "--out", tmp_path, "--quiet").status == 0
    for name in ("recording.npz", "images.csv", "conversion.safetensors", "raster.png"):
        assert (tmp_path / name).read_bytes() == (happy[1] / name).read_bytes(), name
    assert strict_json(tmp_path / "summary.json")["settings"]["command"] == command


def test_other_seed_gives_another_recording(happy, tiny, tmp_path):
    first = Recording.load(happy[1] / "recording.npz")
    for seed in (4, -1):
        out = tmp_path / str(seed)
        assert run_vgg(tiny, out, "--standalone", "--steps", STEPS, "--seed", seed, "--raster").status == 0
        recording = Recording.load(out / "recording.npz")
        difference = recording.spike_counts("input") != first.spike_counts("input")
        assert difference.mean() > 0.3
        assert strict_json(out / "summary.json")["settings"]["seed"] == seed


def test_results_of_an_earlier_run_are_replaced(tiny, tmp_path):
    said = f"{tmp_path} holds an earlier run (vgg16-tiny, 2 images, 30 steps, seed 0), which this one replaces"
    for k, (steps, rasters) in enumerate(((30, ("conv1_1", "conv3_3")), (30, ()), (20, ()))):
        ended = run_vgg(tiny, tmp_path, "--standalone", "--steps", steps, "--images", 2, "--raster", *rasters)
        assert (ended.status, said in ended.err) == (0, k == 2)
        assert bool(list(tmp_path.glob("raster*"))) == bool(rasters)  # none of the earlier run
        assert Recording.load(tmp_path / "recording.npz").steps == steps
        assert strict_json(tmp_path / "summary.json")["settings"]["steps"] == steps
    changed = ("--standalone", "--steps", 20, "--images", 2, "--raster", "--coding", "current")
    assert "seed 0, coding poisson), which this one replaces" in run_vgg(tiny, tmp_path, *changed).err
    said = run_vgg(tiny, tmp_path, *changed, "--thresholds", "ann-norm", "--model", "leaky").err
    assert re.search(r"seed 0, spike-norm [0-9a-f]{8}, model if\), which", said), said
    own = load_conversion(tmp_path / "conversion.safetensors", load_checkpoint(tiny))
    replace(own, thresholds={name: 2 * value for name, value in own.thresholds.items()}).save(
        tmp_path / "o.safetensors"
    )
    said = run_vgg(tiny, tmp_path, *changed, "--conversion", tmp_path / "o.safetensors", "--model", "leaky").err
    assert f"seed 0, ann-norm {own.digest}), which" in said, said


# Options


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], ("standalone", "shared", "zero", 1)),
        (["--standalone", "--threads", 2], ("standalone", "shared", "zero", 2)),
        (["--runtime", "numpy"], ("numpy", "shared", "zero", 1)),
        (["--runtime", "standalone", "--synapses", "explicit", "--reset", "subtract"],
         ("standalone", "explicit", "subtract", 1)),
    ],
)  # fmt: skip
def test_options_choose_the_simulator(arguments, asked, tiny, tmp_path, reference):
    ended = run_vgg(tiny, tmp_path, "--images", 2, "--steps", 12, "--raster", "--quiet", *arguments)
    assert (ended.status, ended.err) == (0, "")
    assert reference == [asked]
    settings = strict_json(tmp_path / "summary.json")["settings"]
    assert (settings["runtime"], settings["synapses"], settings["reset"]) == asked[:3]


def test_a_residual_network_runs_too_and_with_numpy_if_there_is_no_compiler(tmp_path, reference, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    network = ("resnet20-cifar10", tmp_path, "--thresholds", "spike-norm-unit")
    ended = run_vgg(*network, "--images", 2, "--steps", 2, "--raster", "--quiet")
    assert ended.err == "no C++ compiler (g++ is missing): running with numpy, many times slower\n"
    assert (ended.status, reference) == (0, [("numpy", "shared", "zero", 1)])
    settings = strict_json(tmp_path / "summary.json")["settings"]
    assert settings["network"].startswith("resnet20-cifar10") and settings["runtime"] == "numpy"
    assert settings["conversion"] == by("spike-norm-unit", "resnet20-cifar10")


def test_only_the_asked_rasters_are_kept_and_drawn(tiny, tmp_path, reference):
    arguments = ("--images", 4, "--steps", 30, "--raster", "input_off", "--raster-images", 2)
    assert run_vgg(tiny, tmp_path, *arguments).status == 0
    recording = Recording.load(tmp_path / "recording.npz")
    assert set(recording.rasters) == {"input_off", "output"}
    assert 30 < recording.rasters["input_off"][:, 0].max() < 60
    assert [file.name for file in tmp_path.glob("raster*")] == ["raster.png"]


def test_photographs_can_be_left_out(tiny, tmp_path, reference):
    heights = []
    for more in ((), ("--no-photos",)):
        assert run_vgg(tiny, tmp_path, "--images", 1, "--steps", 20, "--raster", "output", *more).status == 0
        with Image.open(tmp_path / "raster.png") as picture:
            heights.append(picture.height)
        assert ('alt="image 0"' in (tmp_path / "report.html").read_text()) == (not more)
    assert heights[1] < heights[0]


@pytest.mark.parametrize("method", METHODS)
def test_thresholds_of_a_method_are_found_beside_the_checkpoint(method, tiny, tmp_path, reference):
    arguments = ("--images", 1, "--steps", 12, "--raster")
    for choice, out in ((method, "a"), (find_thresholds(tiny, method), "b")):
        assert run_vgg(tiny, tmp_path / out, *arguments, "--thresholds", choice).status == 0
        checkpoint = load_checkpoint(tiny)
        kept = load_conversion(tmp_path / out / "conversion.safetensors", checkpoint)
        assert kept == Conversion.of(load_thresholds(tiny.with_suffix(f".{method}.json"), checkpoint))
        used = Recording.load(tmp_path / out / "recording.npz").settings["thresholds"]
        assert used == kept.thresholds


def test_few_steps_are_enough_for_all_pictures(tiny, tmp_path, reference):
    assert run_vgg(tiny, tmp_path, "--images", 1, "--steps", 1, "--raster", "output").status == 0
    assert {"accuracy.png", "raster.png", "summary.json", "report.html"} <= set(files(tmp_path))


# Images of one's own


def test_images_without_classes_have_unknown_labels(tiny, tmp_path, monkeypatch):
    folder = save_images(tmp_path / "images", *(f"{k}.png" for k in range(5)))
    curves = []
    monkeypatch.setattr(
        "sims.report.plots.convergence",
        lambda ax, steps, curve, *_, quantity: curves.append((steps, curve["SNN"], quantity)),
    )
    out = tmp_path / "out"
    ended = run_vgg(tiny, out, "--standalone", "--data", folder, "--steps", 40, "--raster", "conv3_3")
    assert ended.status == 0
    table = pd.read_csv(out / "images.csv")
    assert set(table["true"]) == {"?"}
    assert list(table["file"]) == [f"{k}.png" for k in range(5)]
    assert '<span class="muted">4.png</span>' in (out / "report.html").read_text()
    assert all(line.split()[2] == "?" for line in ended.out.splitlines()[2:7])
    assert "ANN accuracy   unknown of 5 images\n" in ended.out
    summary = strict_json(out / "summary.json")
    assert summary["ann_accuracy"] is None and summary["snn_accuracy"] is None
    recording, checkpoint = Recording.load(out / "recording.npz"), load_checkpoint(tiny)
    ann = ann_predictions(checkpoint, samples().images[:5])
    assert summary["agreement"] == np.mean(recording.predictions() == ann)
    ((steps, curve, quantity),) = curves
    assert quantity == "agreement with the ANN"
    np.testing.assert_allclose(curve, [np.mean(recording.predictions(step) == ann) for step in steps])
    assert {"accuracy.png", "raster.png", "report.html"} <= set(files(out))


def test_images_in_folders_of_classes_have_labels(tiny, tmp_path, reference):
    save_images(tmp_path / "images", "ship/a.png", "cat/b.png", "cat/c.png")
    out = tmp_path / "out"
    ended = run_vgg(tiny, out, "--data", tmp_path / "images", "--steps", 40, "--raster", "output")
    assert ended.status == 0
    table = pd.read_csv(out / "images.csv")
    assert list(table["true"]) == ["cat", "cat", "ship"]
    summary = strict_json(out / "summary.json")
    assert summary["snn_accuracy"] == np.mean(table["snn"] == table["true"])
    assert summary["ann_accuracy"] == np.mean(table["ann"] == table["true"])
    assert summary["settings"]["images"] == str(tmp_path / "images")


# Wrong input: one line, status 2, nothing written


def save_unchecked(checkpoint: Checkpoint, path: Path) -> None:
    """As other programs may."""
    with mock.patch("netspec.checkpoint.check"):
        save_checkpoint(checkpoint, path)


@pytest.fixture(scope="module")
def wrong(tiny, tmp_path_factory):
    """A folder of checkpoints, thresholds and images with something wrong about each of them."""
    folder, good = tmp_path_factory.mktemp("wrong"), tiny_checkpoint()
    shutil.copy(tiny, folder / "lone.safetensors")  # no thresholds beside it
    for name, share in {"half": 0.5, "empty": 0}.items():
        (folder / f"{name}.safetensors").write_bytes(tiny.read_bytes()[: int(share * tiny.stat().st_size)])
    for name, value in {"nan": np.nan, "infinite": -np.inf, "other": 3.0}.items():
        weights = {projection: weight.copy() for projection, weight in good.weights.items()}
        weights["conv3_3_to_conv5_3"][1, 2, 0, 1] = value
        save_unchecked(replace(good, weights=weights), folder / f"{name}.safetensors")
    save_unchecked(replace(good, classes=CIFAR10_CLASSES[1:]), folder / "classes.safetensors")
    text = find_thresholds(tiny, "spike-norm").read_text()
    content = json.loads(text)
    del content["digest"]  # changed on purpose
    few = {name: value for name, value in content["values"].items() if name != "output"}
    changes = {"good": {}, "few": {"values": few}, "format": {"format": "?"}}
    for name, value in {"zero": 0.0, "nan": np.nan, "word": "high"}.items():
        changes[name] = {"values": few | {"output": value}}
    for name, change in changes.items():
        (folder / f"{name}.json").write_text(json.dumps(content | change))
    (folder / "half.json").write_text(text[: int(0.6 * len(text))])
    (save_images(folder / "broken", "a.png") / "b.png").write_text("no image")
    save_images(folder / "wolves", "cat/a.png", "wolf/b.png")
    (folder / "notes").mkdir()
    (folder / "notes" / "notes.txt").touch()
    return folder


WRONG = WRONG_RUNS | {
    "--raster conv9_9": "has no population 'conv9_9'; it has",
    "--raster input": "input does not spike; a raster shows",
    "--checkpoint {0}/none": "there is no checkpoint file",
    "--checkpoint {0}": "there is no checkpoint file",
    "--checkpoint {0}/half.safetensors": "is truncated or no safetensors file",
    "--checkpoint {0}/empty.safetensors": "is truncated or no safetensors file",
    "--checkpoint {0}/nan.safetensors": "conv3_3_to_conv5_3 holds values",
    "--checkpoint {0}/infinite.safetensors": "conv3_3_to_conv5_3 holds values",
    "--checkpoint {0}/classes.safetensors": "10 classes",
    "--checkpoint {0}/lone.safetensors": "lone.spike-norm.json; make them with sims/calibrate.py "
    "--checkpoint {0}/lone.safetensors --method spike-norm",
    "--checkpoint {0}/lone.safetensors --thresholds ann-norm": "lone.ann-norm.json; make them with sims/calibrate.py "
    "--checkpoint {0}/lone.safetensors --method ann-norm",
    "--thresholds {0}/none.json": "cannot read the thresholds",
    "--thresholds {0}/half.json": "is no thresholds file of this project, or truncated",
    "--thresholds {0}/good.json --checkpoint {0}/other.safetensors": "holds the thresholds of another checkpoint; "
    "run sims/calibrate.py for this one",
    "--thresholds {0}/few.json": "do not fit the populations of vgg16-tiny",
    "--thresholds {0}/zero.json": "must be positive and finite",
    "--thresholds {0}/nan.json": "must be positive and finite",
    "--thresholds {0}/word.json": "is no thresholds file of this project, or truncated",
    "--thresholds {0}/format.json": "is no thresholds file of this project, or truncated",
    "--data {0}/notes": "holds no images (.bmp",
    "--data {0}/broken": "b.png is no image, or broken",
    "--data {0}/none": "there is no folder",
    "--data {0}/wolves": "'wolf' is none of the network's classes",
    "--raster-images 0": "--raster-images must be at least 1, got 0",
    "--raster-images -1": "--raster-images must be at least 1, got -1",
    "--threads 2 --runtime numpy": "more than one thread needs the runtime standalone, not numpy",
    "--threads 2 --synapses explicit": "more than one thread needs shared synapses, not stock ones",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_input_is_told_in_one_line(arguments, wrong, tiny, tmp_path):
    ended = run_vgg(tiny, tmp_path, "--standalone", "--steps", 10, *arguments.format(wrong).split())
    ended.assert_refused("run_vgg.py", WRONG[arguments].format(wrong))
    assert files(tmp_path) == {}


def test_folder_that_cannot_be_written_is_told(tiny, tmp_path):
    (tmp_path / "file").write_text("kept")
    ended = run_vgg(tiny, tmp_path / "file" / "out", "--standalone", "--steps", 10)
    ended.assert_refused("run_vgg.py", f"cannot write into the folder {tmp_path / 'file' / 'out'}: Not a directory")
    assert files(tmp_path) == {"file": b"kept"}


@pytest.mark.parametrize(
    ("runtime", "there", "reason"),
    [
        ("standalone", [], "no C++ compiler found (g++ is missing): install g++, or choose the runtime numpy"),
        (
            "cython",
            [],
            "no C++ compiler found, which Cython needs (gcc is missing); install g++, or choose the runtime numpy",
        ),
    ],
)
def test_missing_compiler_is_told(runtime, there, reason, tiny, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    for program in there:
        (tmp_path / "bin" / program).symlink_to(shutil.which(program))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CXX", raising=False)
    ended = run_vgg(tiny, tmp_path / "out", "--runtime", runtime, "--steps", 10)
    ended.assert_refused("run_vgg.py", reason)
    assert files(tmp_path / "out") == {}


# As a process of its own


def test_script_ends_with_one_line_and_status_2(tiny, tmp_path):
    command = [sys.executable, ROOT / "sims" / "run_vgg.py", "--checkpoint", tiny, "--images", "0", "--out", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.stderr == "run_vgg.py: error: the number of images must be at least 1, got 0\n"
    assert (ended.returncode, ended.stdout) == (2, "")


def test_interrupted_run_ends_at_once_and_leaves_nothing(tiny, tmp_path):
    arguments = ("--checkpoint", tiny, "--standalone", "--steps", 65_535, "--out", tmp_path / "out")
    with started("run_vgg.py", *arguments) as process:
        assert process.stderr is not None
        shown = ""
        while "simulating" not in shown:
            character = process.stderr.read(1)
            assert character, shown
            shown += character
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)
        _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (shown + rest).splitlines()[-1] == "run_vgg.py: error: interrupted; what was finished is kept"
    assert "Traceback" not in rest
    assert files(tmp_path / "out") == {}
    with pytest.raises(ProcessLookupError):  # the binary has gone, too
        os.killpg(process.pid, 0)


# What is shipped


def test_shipped_network_is_whole_and_has_learned():
    checkpoint = load_checkpoint("vgg16-cifar10")
    assert checkpoint.spec.name.startswith("vgg16-cifar10")
    assert checkpoint.classes == CIFAR10_CLASSES
    images = samples()
    ann = ann_predictions(checkpoint, images.images)
    assert np.mean(ann == images.labels) >= 0.7
    thresholds = load_thresholds(find_thresholds(PRETRAINED / "vgg16-cifar10.safetensors", "spike-norm"), checkpoint)
    assert thresholds.source == "CIFAR-10 train"
    assert list(thresholds.values) == [population.name for population in checkpoint.spec.spiking]


@pytest.mark.parametrize("constraints", [None, *CONSTRAINTS])
def test_residual_network_of_each_constraint_is_shipped(constraints, tmp_path, reference):
    option = ["--constraints", constraints] if constraints else []
    ended = run("run_resnet.py", run_resnet.main, *option, "--images", 3, "--steps", 2, "--raster", "--out", tmp_path)
    assert ended.status == 0, ended
    chosen = CONSTRAINTS[constraints or "3"]
    checkpoint, settings = load_checkpoint(chosen.checkpoint), strict_json(tmp_path / "summary.json")["settings"]
    assert (settings["checkpoint"], settings["trained_on"]) == (checkpoint.digest, "CIFAR-10 train")
    assert settings["conversion"] == by(chosen.thresholds, chosen.checkpoint)
    images = samples()
    ann = ann_predictions(checkpoint, images.images)
    assert np.mean(ann == images.labels) >= 0.7


@pytest.mark.parametrize(
    "arguments", [("--checkpoint", "resnet20-cifar10-basic"), ("--thresholds", "ann-norm-unit"), ("--fast",)]
)
def test_constraints_leave_no_choice_of_network_and_thresholds(arguments, tmp_path):
    ended = run("run_resnet.py", run_resnet.main, "--constraints", "2", *arguments, "--out", tmp_path / "out")
    ended.assert_refused("run_resnet.py", "--constraints sets checkpoint and conversion; give either it or them")


@pytest.mark.parametrize(
    ("command", "main", "name"),
    [("run_vgg.py", vgg.main, "vgg16-imagenette"), ("run_resnet.py", run_resnet.main, "resnet34-imagenette")],
)
def test_networks_of_224_pixels_see_photographs_of_their_size(command, main, name, tmp_path, reference):
    ended = run(command, main, "--checkpoint", name, "--images", 2, "--steps", 2, "--raster", "--out", tmp_path)
    assert ended.status == 0, ended
    assert "trained on imagenette train, error of its ANN" in ended.out
    summary = strict_json(tmp_path / "summary.json")
    assert summary["settings"]["images"] == "20 photographs of ImageNet"
    assert summary["snn_accuracy"] is None  # none of them shows one of the ten classes
    assert list(pd.read_csv(tmp_path / "images.csv")["true"]) == ["?", "?"]
