"""run_vgg.py: what it writes, that it can be repeated, and what it says to wrong input."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import ROOT, files, run, started, tiny_checkpoint, tiny_spec
from PIL import Image

from netspec.ann import ANN
from netspec.checkpoint import PRETRAINED, load_checkpoint, save_checkpoint
from netspec.data import CIFAR10_CLASSES, ImageSet, samples
from netspec.spec import NetSpec, Population, Projection
from sims import classify, standalone
from sims.recording import Recording
from sims.reference import ReferenceSimulator
from sims.run_resnet import CONSTRAINTS
from sims.run_resnet import main as run_resnet_main
from sims.run_vgg import main as run_vgg_main
from sims.runtime import RunInput
from sims.thresholds import METHODS, Thresholds, find_thresholds, load_thresholds

STEPS = 60


def run_vgg(checkpoint, out, *arguments):
    return run("run_vgg.py", run_vgg_main, "--checkpoint", checkpoint, "--out", out, *arguments)


def strict_json(path: Path):
    """JSON as the standard has it: no NaN, no infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def happy(tiny, tmp_path_factory):
    """What the command says about the sample images, and the folder of what it writes."""
    out = tmp_path_factory.mktemp("run") / "new" / "folder"
    return run_vgg(tiny, out, "--standalone", "--steps", STEPS, "--seed", 3), out


@pytest.fixture
def reference(monkeypatch):
    """The torch reference in the place of every simulator; gives the arguments with which one was asked for."""
    asked = []

    def open_simulator(spec, weights, runtime, synapses, reset, quiet):
        asked.append((runtime, synapses, reset))
        return ReferenceSimulator(spec, weights, reset)

    monkeypatch.setattr(classify, "open_simulator", open_simulator)
    return asked


# What is written


def test_all_results_are_written_and_named(happy):
    ended, out = happy
    pictures = [f"{stem}.{suffix}" for stem in ("accuracy", "raster") for suffix in ("pdf", "png")]
    for name in ("conv1_1", "conv3_3", "output"):  # the default: some between the first layer and the output
        pictures += [f"raster_{name}.pdf", f"raster_{name}.png"]
    expected = sorted([*pictures, "recording.npz", "thresholds.json", "images.csv", "summary.json"])
    assert sorted(files(out)) == expected
    assert ended.status == 0
    written = ended.out.strip().splitlines()[-1].removeprefix("written: ").split()
    assert sorted(Path(file).resolve() for file in written) == sorted(out / name for name in expected)


def test_pictures_can_be_opened(happy):
    for file in sorted(happy[1].glob("*.png")):
        with Image.open(file) as picture:
            picture.load()
            assert min(picture.size) > 200
            assert len(set(picture.convert("L").tobytes())) > 20  # not an empty page
    for file in happy[1].glob("*.pdf"):
        content = file.read_bytes()
        assert content.startswith(b"%PDF") and content.rstrip().endswith(b"%%EOF")


def test_recording_is_that_of_the_samples_under_the_seed(happy, tiny):
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


def test_thresholds_of_the_run_are_kept(happy, tiny):
    assert (happy[1] / "thresholds.json").read_text() == find_thresholds(tiny, "spike-norm").read_text()


def test_summary_holds_what_the_recording_says(happy, tiny):
    summary = strict_json(happy[1] / "summary.json")
    recording, checkpoint, images = Recording.load(happy[1] / "recording.npz"), load_checkpoint(tiny), samples()
    x = checkpoint.encode(images.images).transpose(0, 3, 1, 2)
    ann = ANN.from_weights(checkpoint.spec, checkpoint.weights).forward(_tensor(x)).detach().numpy().argmax(axis=1)
    snn = recording.predictions()
    assert len(set(snn)) > 3  # else the next lines could not tell much
    assert summary["ann_accuracy"] == np.mean(ann == images.labels)
    assert summary["snn_accuracy"] == np.mean(snn == images.labels)
    assert summary["agreement"] == np.mean(ann == snn)
    assert summary["agreeing_images"] == np.sum(ann == snn)
    assert summary["images"] == 20
    assert summary["spikes_per_neuron"] == recording.spikes_per_neuron()
    operations = {p.name: int(recording.synaptic_operations(p).sum()) for p in checkpoint.spec.projections}
    assert summary["synaptic_operations"] == operations
    driven = [p for p in checkpoint.spec.projections if p.pre != "input"]
    ratio = sum(operations[p.name] for p in driven) / 20 / sum(checkpoint.spec.macs(p) for p in driven)
    assert summary["ac_mac_ratio"] == pytest.approx(ratio)
    assert set(summary["seconds"]) == {"ann", "build", "compile", "simulate"}
    assert summary["seconds"]["simulate"] > 0
    assert 50e6 < summary["peak_memory_bytes"] < 64e9
    assert summary["settings"] == {
        "network": "vgg16-tiny",
        "checkpoint": checkpoint.digest,
        "checkpoint_test_error": 0.875,
        "trained_on": "CIFAR-10 train",
        "images": "CIFAR-10 test images 0 to 19",
        "steps": STEPS,
        "seed": 3,
        "runtime": "standalone",
        "synapses": "shared",
        "reset": "zero",
        "thresholds": {"method": "spike-norm", "percentile": 100.0},
        "rasters": ["conv1_1", "conv3_3", "output"],
        "raster_images": 3,
    }


def _tensor(x):
    import torch

    return torch.from_numpy(np.ascontiguousarray(x))


def test_table_has_a_row_for_each_image(happy):
    ended, out = happy
    table, recording, images = pd.read_csv(out / "images.csv"), Recording.load(out / "recording.npz"), samples()
    assert list(table) == ["image", "true", "ann", "snn", "output_spikes", "runner_up"]
    assert list(table["image"]) == list(range(20))
    assert list(table["true"]) == [CIFAR10_CLASSES[label] for label in images.labels]
    assert list(table["snn"]) == [CIFAR10_CLASSES[label] for label in recording.predictions()]
    counts = np.sort(recording.spike_counts("output").reshape(20, 10), axis=1)
    np.testing.assert_array_equal(table[["runner_up", "output_spikes"]], counts[:, -2:])
    rows = [line.split() for line in ended.out.splitlines()[1:21]]
    assert rows == table.astype(str).to_numpy().tolist()


def test_accuracies_are_told(happy):
    ended, out = happy
    summary = strict_json(out / "summary.json")
    assert f"ANN accuracy   {100 * summary['ann_accuracy']:.2f} % of 20 images\n" in ended.out
    assert f"SNN accuracy   {100 * summary['snn_accuracy']:.2f} % after {STEPS} steps\n" in ended.out
    assert f"agreement      {summary['agreeing_images']} of 20 images\n" in ended.out
    assert "trained on CIFAR-10 train, error of its ANN on the whole test set 87.50 %\n" in ended.out


# Repeating


def test_same_seed_gives_the_same_recording_without_a_compiler(happy, tiny, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something is generated or compiled")

    monkeypatch.setattr(standalone, "generate", refuse)
    monkeypatch.setattr(standalone, "compile_project", refuse)
    ended = run_vgg(tiny, tmp_path, "--standalone", "--steps", STEPS, "--seed", 3, "--quiet")
    assert (ended.status, ended.err) == (0, "")
    for name in ("recording.npz", "images.csv", "thresholds.json", "raster_output.pdf", "accuracy.pdf"):
        assert (tmp_path / name).read_bytes() == (happy[1] / name).read_bytes(), name
    seconds = strict_json(tmp_path / "summary.json")["seconds"]
    assert seconds["build"] == seconds["compile"] == 0


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
    for steps in (30, 20):
        assert run_vgg(tiny, tmp_path, "--standalone", "--steps", steps, "--images", 2, "--raster").status == 0
        assert Recording.load(tmp_path / "recording.npz").steps == steps
        assert strict_json(tmp_path / "summary.json")["settings"]["steps"] == steps


# Options


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        ([], ("cython", "shared", "zero")),
        (["--standalone"], ("standalone", "shared", "zero")),
        (["--runtime", "numpy"], ("numpy", "shared", "zero")),
        (["--runtime", "standalone", "--synapses", "explicit", "--reset", "subtract"],
         ("standalone", "explicit", "subtract")),
    ],
)  # fmt: skip
def test_options_choose_the_simulator(arguments, asked, tiny, tmp_path, reference):
    ended = run_vgg(tiny, tmp_path, "--images", 2, "--steps", 12, "--raster", "--quiet", *arguments)
    assert (ended.status, ended.err) == (0, "")
    assert reference == [asked]
    settings = strict_json(tmp_path / "summary.json")["settings"]
    assert (settings["runtime"], settings["synapses"], settings["reset"]) == asked


def test_only_the_asked_rasters_are_kept_and_drawn(tiny, tmp_path, reference):
    arguments = ("--images", 4, "--steps", 30, "--raster", "input_off", "--raster-images", 2)
    assert run_vgg(tiny, tmp_path, *arguments).status == 0
    recording = Recording.load(tmp_path / "recording.npz")
    assert set(recording.rasters) == {"input_off", "output"}
    assert 30 < recording.rasters["input_off"][:, 0].max() < 60
    assert sorted(file.name for file in tmp_path.glob("raster*")) == ["raster_input_off.pdf", "raster_input_off.png"]


def test_photographs_can_be_left_out(tiny, tmp_path, reference):
    heights = []
    for more in ((), ("--no-photos",)):
        assert run_vgg(tiny, tmp_path, "--images", 1, "--steps", 20, "--raster", "output", *more).status == 0
        with Image.open(tmp_path / "raster_output.png") as picture:
            heights.append(picture.height)
    assert heights[1] < heights[0]


@pytest.mark.parametrize("method", METHODS)
def test_thresholds_of_a_method_are_found_beside_the_checkpoint(method, tiny, tmp_path, reference):
    arguments = ("--images", 1, "--steps", 12, "--raster")
    for choice, out in ((method, "a"), (find_thresholds(tiny, method), "b")):
        assert run_vgg(tiny, tmp_path / out, *arguments, "--thresholds", choice).status == 0
        kept = json.loads((tmp_path / out / "thresholds.json").read_text())
        assert kept == json.loads(tiny.with_suffix(f".{method}.json").read_text())
        used = Recording.load(tmp_path / out / "recording.npz").settings["thresholds"]
        assert used == kept["values"]


def test_few_steps_are_enough_for_all_pictures(tiny, tmp_path, reference):
    assert run_vgg(tiny, tmp_path, "--images", 1, "--steps", 1, "--raster", "output").status == 0
    assert {"accuracy.png", "raster_output.png", "summary.json"} <= set(files(tmp_path))


def test_ratio_that_does_not_exist_is_null(tmp_path, reference):
    spec = NetSpec(
        "vgg16-flat",
        (Population("input", (32, 32, 3), kind="input"), Population("output", (1, 1, 10))),
        (Projection("input", "output", kind="dense", pool=8),),
    )
    checkpoint = replace(tiny_checkpoint(spec), info={})
    path = tmp_path / "flat.safetensors"
    save_checkpoint(checkpoint, path)
    Thresholds({"output": 2.0}, "spike-norm", checkpoint.digest, 100.0, 1, "here", 0).save(
        find_thresholds(path, "spike-norm")
    )
    ended = run_vgg(path, tmp_path / "out", "--steps", 12, "--images", 2, "--raster")
    assert ended.status == 0
    assert "AC/MAC ratio   unknown" in ended.out
    assert "error of its ANN on the whole test set unknown" in ended.out
    summary = strict_json(tmp_path / "out" / "summary.json")
    assert summary["ac_mac_ratio"] is None
    assert summary["settings"]["checkpoint_test_error"] is None


# Images of one's own


def save_images(folder: Path, names: tuple[str, ...]) -> ImageSet:
    """The first samples as files of those names."""
    images = samples().first(len(names))
    for pixels, name in zip(images.images, names, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    return images


def test_images_without_classes_have_unknown_labels(tiny, tmp_path, monkeypatch):
    images = save_images(tmp_path / "images", tuple(f"{k}.png" for k in range(5)))
    curves = []
    monkeypatch.setattr(
        "analysis.plots.convergence", lambda ax, steps, curve, *_, quantity: curves.append((steps, curve, quantity))
    )
    out = tmp_path / "out"
    ended = run_vgg(tiny, out, "--standalone", "--data", tmp_path / "images", "--steps", 40, "--raster", "conv3_3")
    assert ended.status == 0
    table = pd.read_csv(out / "images.csv")
    assert set(table["true"]) == {"?"}
    assert all(line.split()[1] == "?" for line in ended.out.splitlines()[1:6])
    assert "ANN accuracy   unknown of 5 images\n" in ended.out
    summary = strict_json(out / "summary.json")
    assert summary["ann_accuracy"] is None and summary["snn_accuracy"] is None
    recording, checkpoint = Recording.load(out / "recording.npz"), load_checkpoint(tiny)
    ann = classify.ann_predictions(checkpoint, images.images)
    assert summary["agreement"] == np.mean(recording.predictions() == ann)
    ((steps, curve, quantity),) = curves
    assert quantity == "agreement with the ANN"
    np.testing.assert_allclose(curve["agreement"], [np.mean(recording.predictions(step) == ann) for step in steps])
    assert {"accuracy.png", "accuracy.pdf", "raster_conv3_3.png"} <= set(files(out))


def test_images_in_folders_of_classes_have_labels(tiny, tmp_path, reference):
    save_images(tmp_path / "images", ("ship/a.png", "cat/b.png", "cat/c.png"))
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


def changed_thresholds(tiny: Path, folder: Path, change) -> Path:
    """The thresholds with something changed in them, as a file."""
    content = json.loads(find_thresholds(tiny, "spike-norm").read_text())
    change(content)
    path = folder / "changed.json"
    path.write_text(json.dumps(content))
    return path


def saved(checkpoint, folder: Path, name: str = "other.safetensors") -> Path:
    save_checkpoint(checkpoint, folder / name)
    return folder / name


def truncated(path: Path, folder: Path, share: float = 0.5) -> Path:
    content = path.read_bytes()
    (folder / path.name).write_bytes(content[: int(share * len(content))])
    return folder / path.name


def poisoned(value: float):
    checkpoint = tiny_checkpoint()
    weights = {name: weight.copy() for name, weight in checkpoint.weights.items()}
    weights["conv3_3_to_conv5_3"][1, 2, 0, 1] = value
    return replace(checkpoint, weights=weights)


def text_as_image(folder: Path) -> Path:
    save_images(folder / "images", ("a.png", "b.png"))
    (folder / "images" / "b.png").write_text("no image")
    return folder / "images"


def empty(folder: Path) -> Path:
    (folder / "images").mkdir()
    (folder / "images" / "notes.txt").touch()
    return folder / "images"


def wolves(folder: Path) -> Path:
    save_images(folder / "images", ("cat/a.png", "wolf/b.png"))
    return folder / "images"


def lone(tiny: Path, folder: Path) -> Path:
    """The checkpoint without thresholds beside it."""
    return Path(shutil.copy(tiny, folder / "lone.safetensors"))


WRONG = {
    "raster of no population": (lambda tiny, folder: ["--raster", "conv9_9"], "has no population 'conv9_9'; it has"),
    "raster of the input": (lambda tiny, folder: ["--raster", "input"], "input does not spike; a raster shows"),
    "no checkpoint": (lambda tiny, folder: ["--checkpoint", folder / "none"], "there is no checkpoint file"),
    "folder as checkpoint": (lambda tiny, folder: ["--checkpoint", folder], "there is no checkpoint file"),
    "truncated checkpoint": (
        lambda tiny, folder: ["--checkpoint", truncated(tiny, folder)], "is truncated or no safetensors file"),
    "empty checkpoint": (
        lambda tiny, folder: ["--checkpoint", truncated(tiny, folder, 0)], "is truncated or no safetensors file"),
    "another network": (
        lambda tiny, folder: ["--checkpoint", saved(tiny_checkpoint(tiny_spec("resnet20-tiny")), folder)],
        "is a resnet20-tiny; this command runs a vgg16"),
    "NaN in the weights": (
        lambda tiny, folder: ["--checkpoint", saved(poisoned(np.nan), folder)], "conv3_3_to_conv5_3 holds values"),
    "infinity in the weights": (
        lambda tiny, folder: ["--checkpoint", saved(poisoned(-np.inf), folder)], "conv3_3_to_conv5_3 holds values"),
    "one class too few": (
        lambda tiny, folder: ["--checkpoint", saved(replace(tiny_checkpoint(), classes=CIFAR10_CLASSES[1:]), folder)],
        "10 classes"),
    "no thresholds": (
        lambda tiny, folder: ["--checkpoint", lone(tiny, folder)],
        "lone.spike-norm.json; make them with sims/calibrate.py "
        "--checkpoint {folder}/lone.safetensors --method spike-norm"),
    "no thresholds of the method": (
        lambda tiny, folder: ["--checkpoint", lone(tiny, folder), "--thresholds", "ann-norm"],
        "lone.ann-norm.json; make them with sims/calibrate.py "
        "--checkpoint {folder}/lone.safetensors --method ann-norm"),
    "no thresholds file": (
        lambda tiny, folder: ["--thresholds", folder / "none.json"], "cannot read the thresholds"),
    "truncated thresholds": (
        lambda tiny, folder: ["--thresholds", truncated(find_thresholds(tiny, "spike-norm"), folder, 0.6)],
        "is no thresholds file of this project, or truncated"),
    "thresholds of another checkpoint": (
        lambda tiny, folder: ["--checkpoint", saved(poisoned(3.0), folder),
                              "--thresholds", find_thresholds(tiny, "spike-norm")],
        "holds the thresholds of another checkpoint; run sims/calibrate.py for this one"),
    "a threshold too few": (
        lambda tiny, folder: ["--thresholds", changed_thresholds(tiny, folder, lambda t: t["values"].pop("output"))],
        "do not fit the populations of vgg16-tiny"),
    "threshold of zero": (
        lambda tiny, folder: ["--thresholds",
                              changed_thresholds(tiny, folder, lambda t: t["values"].update(output=0.0))],
        "must be positive and finite"),
    "threshold NaN": (
        lambda tiny, folder: ["--thresholds",
                              changed_thresholds(tiny, folder, lambda t: t["values"].update(output=float("nan")))],
        "must be positive and finite"),
    "threshold no number": (
        lambda tiny, folder: ["--thresholds",
                              changed_thresholds(tiny, folder, lambda t: t["values"].update(output="high"))],
        "is no thresholds file of this project, or truncated"),
    "thresholds of another format": (
        lambda tiny, folder: ["--thresholds", changed_thresholds(tiny, folder, lambda t: t.update(format="?"))],
        "is no thresholds file of this project, or truncated"),
    "no images in the folder": (lambda tiny, folder: ["--data", empty(folder)], "holds no images (.bmp"),
    "broken image": (lambda tiny, folder: ["--data", text_as_image(folder)], "b.png is no image, or broken"),
    "no folder": (lambda tiny, folder: ["--data", folder / "none"], "there is no folder"),
    "unknown class": (lambda tiny, folder: ["--data", wolves(folder)], "'wolf' is none of the network's classes"),
    "no image": (lambda tiny, folder: ["--images", 0], "the number of images must be at least 1, got 0"),
    "images below zero": (lambda tiny, folder: ["--images", -3], "the number of images must be at least 1, got -3"),
    "too many images": (lambda tiny, folder: ["--images", 21], "21 images were asked for, but CIFAR-10 test images"),
    "steps below zero": (lambda tiny, folder: ["--steps", -5], "steps must be from 1 to 65535, got -5"),
    "no step": (lambda tiny, folder: ["--steps", 0], "steps must be from 1 to 65535, got 0"),
    "too many steps": (lambda tiny, folder: ["--steps", 65_536], "steps must be from 1 to 65535, got 65536"),
    "no image in rasters": (lambda tiny, folder: ["--raster-images", 0], "--raster-images must be at least 1, got 0"),
    "rasters below zero": (lambda tiny, folder: ["--raster-images", -1], "--raster-images must be at least 1, got -1"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG)
def test_wrong_input_is_told_in_one_line(mistake, tiny, tmp_path):
    arguments, reason = WRONG[mistake]
    folder = tmp_path / "input"
    folder.mkdir()
    out = tmp_path / "out"
    ended = run_vgg(tiny, out, "--standalone", "--steps", 10, *arguments(tiny, folder))
    ended.assert_refused("run_vgg.py", reason.replace("{folder}", str(folder)))
    assert files(out) == {}


def test_folder_that_cannot_be_written_is_told(tiny, tmp_path):
    (tmp_path / "file").write_text("kept")
    ended = run_vgg(tiny, tmp_path / "file" / "out", "--standalone", "--steps", 10)
    ended.assert_refused("run_vgg.py", f"cannot write into the folder {tmp_path / 'file' / 'out'}: Not a directory")
    assert files(tmp_path) == {"file": b"kept"}


@pytest.mark.parametrize(
    ("runtime", "there", "reason"),
    [
        ("standalone", [], "no C++ compiler found (g++ is missing): install g++ and make, or choose --runtime numpy"),
        ("standalone", ["g++"], "no C++ compiler found (make is missing)"),
        ("cython", [], "no C++ compiler found, which Cython needs; install g++, or choose --runtime numpy"),
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
    ann = classify.ann_predictions(checkpoint, images.images)
    assert np.mean(ann == images.labels) >= 0.7
    thresholds = load_thresholds(find_thresholds(PRETRAINED / "vgg16-cifar10.safetensors", "spike-norm"), checkpoint)
    assert thresholds.source == "CIFAR-10 train"
    assert list(thresholds.values) == [population.name for population in checkpoint.spec.spiking]


@pytest.mark.parametrize("constraints", [None, *CONSTRAINTS])
def test_residual_network_of_each_constraint_is_shipped(constraints, tmp_path, reference):
    chosen = ["--constraints", constraints] if constraints else []
    ended = run("run_resnet.py", run_resnet_main, *chosen, "--images", 3, "--steps", 2, "--raster", "--out", tmp_path)
    assert ended.status == 0, ended
    name, thresholds = CONSTRAINTS[constraints or "3"]
    checkpoint, settings = load_checkpoint(name), strict_json(tmp_path / "summary.json")["settings"]
    assert (settings["checkpoint"], settings["trained_on"]) == (checkpoint.digest, "CIFAR-10 train")
    assert settings["thresholds"] == {"method": thresholds, "percentile": 100.0}
    images = samples()
    ann = classify.ann_predictions(checkpoint, images.images)
    assert np.mean(ann == images.labels) >= 0.7


@pytest.mark.parametrize("arguments", [("--checkpoint", "resnet20-cifar10-basic"), ("--thresholds", "ann-norm-unit")])
def test_constraints_leave_no_choice_of_network_and_thresholds(arguments, tmp_path):
    ended = run("run_resnet.py", run_resnet_main, "--constraints", "2", *arguments, "--out", tmp_path / "out")
    ended.assert_refused("run_resnet.py", "--constraints sets checkpoint and thresholds; give either it or them")


@pytest.mark.parametrize(
    ("command", "main", "name"),
    [("run_vgg.py", run_vgg_main, "vgg16-imagenette"), ("run_resnet.py", run_resnet_main, "resnet34-imagenette")],
)
def test_networks_of_224_pixels_see_photographs_of_their_size(command, main, name, tmp_path, reference):
    ended = run(command, main, "--checkpoint", name, "--images", 2, "--steps", 2, "--raster", "--out", tmp_path)
    assert ended.status == 0, ended
    assert "trained on imagenette train, error of its ANN" in ended.out
    summary = strict_json(tmp_path / "summary.json")
    assert summary["settings"]["images"] == "20 photographs of ImageNet"
    assert summary["snn_accuracy"] is None  # none of them shows one of the ten classes
    assert list(pd.read_csv(tmp_path / "images.csv")["true"]) == ["?", "?"]
