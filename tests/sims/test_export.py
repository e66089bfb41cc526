"""The command: a converted network out, and back in, with the same spikes; one line for what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Ended, files, run, tiny_checkpoint
from nir_graphs import nir, spikes

from netspec.checkpoint import load_checkpoint
from netspec.conversion import open_conversion
from netspec.importing.__main__ import main as bring_in
from sims import calibrate, evaluate, export
from sims import run as run_module
from sims.simulation.recording import Recording

STEPS = 40


def leave(*arguments: object) -> Ended:
    return run("export.py", export.main, *arguments)


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory) -> Path:
    """Events, the network as a graph, and as it came back."""
    made = tmp_path_factory.mktemp("nir")
    rng = np.random.default_rng(0)
    columns = np.nonzero(rng.random((2, STEPS, 32, 32, 3)) < 0.5)
    names = ("presentation", "step", "y", "x", "channel")
    events = dict(zip(names, columns, strict=True))
    np.savez(made / "events.npz", **events, sign=np.where(columns[2] < 16, 1, -1))
    ended = leave(tiny, "--conversion", "ann-norm", "--reset", "subtract", "--out", made / "tiny.nir")
    assert ended.status == 0 and "reset by subtraction" in ended.out, ended
    ended = run("importing", bring_in, made / "tiny.nir", "--out", made / "back.safetensors")
    assert ended.status == 0 and ended.err == "" and "output, 10, model if" in ended.out, ended
    return made


def shown(checkpoint: Path, conversion: str, folder: Path, out: str, *more: object) -> Ended:
    options = ("--checkpoint", checkpoint, "--conversion", conversion, "--events", folder / "events.npz", "--quiet")
    return run("run.py", run_module.main, *options, "--steps", STEPS, "--out", folder / out, *more)


def test_a_network_comes_back_with_its_spikes(tiny, folder):
    layers = ("--runtime", "numpy", "--raster", "conv1_1", "conv3_3", "conv5_3", "--no-photos", "--raster-images", 2)
    first = shown(tiny, "ann-norm", folder, "first", "--reset", "subtract", "--images", 2, *layers)
    second = shown(folder / "back.safetensors", "nir", folder, "second", *layers)
    assert (first.status, second.status) == (0, 0), (first, second)
    assert "no ANN to compare with" in second.out and "agreement" not in second.out
    before, after = (Recording.load(folder / name / "recording.npz") for name in ("first", "second"))
    for name in ("conv1_1", "conv3_3", "conv5_3", "output"):
        np.testing.assert_array_equal(spikes(after, name), spikes(before, name))
    assert spikes(after).any() and spikes(after, "conv5_3").sum() > 10
    summary = json.loads((folder / "second" / "summary.json").read_text())
    assert summary["ann_accuracy"] is None and summary["images"] == 2


def test_a_binary_runs_it(folder):
    for runtime in ("standalone", "numpy"):
        ended = shown(folder / "back.safetensors", "nir", folder, f"by-{runtime}", "--runtime", runtime)
        assert ended.status == 0, ended
    found, expected = (Recording.load(folder / name / "recording.npz") for name in ("by-standalone", "by-numpy"))
    np.testing.assert_array_equal(found.counts, expected.counts)


def test_the_weights_are_those_of_the_network(tiny, folder):
    network = tiny_checkpoint()
    graph = nir.read(folder / "tiny.nir")  # with its own check of all shapes
    np.testing.assert_array_equal(graph.nodes["input_to_conv1_1"].weight * 4, network.weights["input_to_conv1_1"])
    back = load_checkpoint(folder / "back.safetensors")
    assert back.spiking and not back.biases
    conversion = open_conversion("nir", folder / "back.safetensors", back)
    assert dict(conversion.thresholds) == open_conversion("ann-norm", tiny, network).thresholds
    assert conversion.reset == "subtract"


def test_images_are_shown_to_it_too(folder):
    network = folder / "back.safetensors"
    told = ("--checkpoint", network, "--conversion", "nir", "--data", "cifar10-samples", "--images", 2, "--steps", 5)
    ended = run("run.py", run_module.main, *told, "--runtime", "numpy", "--out", folder / "images", "--quiet")
    assert ended.status == 0 and "no ANN to compare with" in ended.out, ended


def test_what_needs_an_ann_says_that_there_is_none(folder):
    network = ("--checkpoint", folder / "back.safetensors")
    run("run.py", run_module.main, *network, "--conversion", "nir").assert_refused("run.py", "give --events, or images")
    evaluated = run("evaluate.py", evaluate.main, *network, "--conversion", "nir")
    evaluated.assert_refused("evaluate.py", "has no ANN to compare with")
    run("calibrate.py", calibrate.main, *network).assert_refused("calibrate.py", "was brought in as a spiking network")


REFUSED = {
    "gone": "there is no checkpoint file gone",
    "TINY --conversion gone": "there is no conversion 'gone'",
    "TINY --dt 0": "--dt must be",
    "TINY --out tiny.h5": "the name of the file must end in .nir, got tiny.h5",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_mistakes_are_told_in_one_line_and_nothing_is_written(arguments, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    leave(*arguments.replace("TINY", str(tiny)).split()).assert_refused("export.py", REFUSED[arguments])
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--mean", 0.5), "a NIR graph has its own weights and sees no images"),
        (("--dt", -1), "--dt must be"),
        (("--classes", "cifar10"), "no NIRGraph"),
    ],
)
def test_mistakes_on_the_way_in(options, reason, folder, tmp_path):
    graph = tmp_path / "graph.nir"
    nir.write(graph, nir.Linear(np.ones((2, 2)))) if "NIRGraph" in reason else graph.touch()
    ended = run("importing", bring_in, graph, *options, "--out", tmp_path / "x.safetensors")
    ended.assert_refused("importing", reason)
    assert list(tmp_path.iterdir()) == [graph]


def test_options_of_nir_are_for_nir(folder, tmp_path):
    ended = run("importing", bring_in, "net.onnx", "--reset", "zero", "--out", tmp_path / "x.safetensors")
    ended.assert_refused("importing", "--reset, --dt and --spike are of NIR graphs")
