"""calibrate.py: conversions for few steps, and options that would be ignored."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import files, run

from netspec.checkpoint import load_checkpoint
from netspec.conversion import Conversion, load_conversion
from netspec.data import samples
from sims import calibrate
from sims.conversion.activations import from_activations
from sims.conversion.search import search

FEW = ("--data", "cifar10-samples", "--images", 5)
MADE = {"source": "CIFAR-10 test images 0 to 19", "seed": 0}


@pytest.fixture
def network(tiny, tmp_path):
    return Path(shutil.copy(tiny, tmp_path / "net.safetensors"))


def run_calibrate(checkpoint, *arguments):
    return run("calibrate.py", calibrate.main, "--checkpoint", checkpoint, *FEW, *arguments)


def chosen(network) -> np.ndarray:
    numbers = np.sort(np.random.default_rng(0).choice(20, 5, replace=False))
    return load_checkpoint(network).encode(samples().images[numbers])


def assert_same(found: Conversion, expected: Conversion) -> None:
    assert (found.digest, found.made, found.steps, found.percentile) == (
        expected.digest,
        expected.made,
        expected.steps,
        expected.percentile,
    )


def test_thresholds_of_activations_lie_beside_the_checkpoint(network):
    ended = run_calibrate(network, "--method", "activations", "--percentile", 90, "--initial", 0.25)
    path, checkpoint = network.with_suffix(".activations.conversion.safetensors"), load_checkpoint(network)
    expected = from_activations(checkpoint, chosen(network), 90, 0.25, MADE)
    assert ended.status == 0
    assert_same(load_conversion(path, checkpoint), expected)
    lines = [f"{name:>8} {value:.4f}" for name, value in expected.thresholds.items()]
    assert ended.out == "\n".join([*lines, f"written: {path}", ""])


def test_a_delayed_read_out_and_steps_are_noted(network):
    ended = run_calibrate(network, "--method", "activations", "--delay", 0.5, "--steps", 64)
    found = load_conversion(network.with_suffix(".activations.conversion.safetensors"), load_checkpoint(network))
    assert ended.status == 0 and (found.delay, found.steps) == (0.5, 64)


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, ()),
        ({"channels": True, "correction": "bias"}, ("--channels", "--correction", "bias")),
        ({"percentile": 95, "initial": 0.5, "correction": "neuron"},
         ("--percentile", 95, "--initial", 0.5, "--correction", "neuron")),
    ],
)  # fmt: skip
def test_searched_conversions_lie_there_too(options, arguments, network):
    ended = run_calibrate(network, "--method", "search", "--steps", 6, *arguments)
    assert ended.status == 0, ended
    checkpoint = load_checkpoint(network)
    found = load_conversion(network.with_suffix(".search.conversion.safetensors"), checkpoint)
    assert_same(found, search(checkpoint, chosen(network), 6, **options, made=MADE))
    assert ("mean of its channels" in ended.out) == ("channels" in options)


def test_a_conversion_found_in_another_way_is_not_overwritten(network, tmp_path):
    assert run_calibrate(network, "--method", "activations").status == 0
    before = files(tmp_path)
    refused = run_calibrate(network, "--method", "activations", "--percentile", 99)
    refused.assert_refused(
        "calibrate.py", "images 5, initial 0.5, percentile 99.9, seed 0; give --out FILE, or remove it"
    )
    assert files(tmp_path) == before
    assert run_calibrate(network, "--method", "activations").status == 0


@pytest.mark.parametrize("method", ["activations", "search"])
def test_what_would_be_lost_is_told_before_it_is_computed(method, network, monkeypatch):
    assert run_calibrate(network, "--method", method).status == 0
    asked = []
    monkeypatch.setattr(calibrate, {"activations": "from_activations", "search": "search"}[method], asked.append)
    run_calibrate(network, "--method", method, "--seed", 1).assert_refused("calibrate.py", "give --out FILE, or remove")
    assert not asked


def test_a_search_that_no_memory_holds_is_refused(network, monkeypatch):
    monkeypatch.setattr("sims.conversion.search.machine_memory", lambda: 10**6)
    before = files(network.parent)
    ended = run_calibrate(network, "--method", "search", "--steps", 64)
    ended.assert_refused(
        "calibrate.py", "64 steps needs about 0 GB, this machine has 0 GB; give fewer --images or --steps"
    )
    assert files(network.parent) == before


@pytest.mark.parametrize("method", ["activations", "ann-norm"])
def test_of_two_calibrations_side_by_side_none_is_lost(method, network, tmp_path, monkeypatch):
    suffix = "activations.conversion.safetensors" if method == "activations" else "ann-norm.json"
    expected, name = network.with_suffix(f".{suffix}"), method.replace("-", "_").replace("activ", "from_activ")
    compute = getattr(calibrate, name)

    def slow(*arguments):
        monkeypatch.setattr(calibrate, name, compute)
        assert run_calibrate(network, "--method", method, "--seed", 1).status == 0  # meanwhile
        return compute(*arguments)

    monkeypatch.setattr(calibrate, name, slow)
    ended = run_calibrate(network, "--method", method)
    assert ended.status == 0 and f"meanwhile, {expected} holds a conversion made with" in ended.err
    first, second = (
        load_conversion(file, load_checkpoint(network)) for file in (expected, Path(ended.out.split()[-1]))
    )
    assert (first.made["seed"], second.made["seed"]) == (1, 0)
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("--method ann-norm --steps 9", "--steps says nothing to the method ann-norm"),
        ("--method ann-norm --initial 0.5", "--initial says nothing to the method ann-norm"),
        ("--method activations --unit", "--unit says nothing to the method activations"),
        ("--method spike-norm --channels", "--channels says nothing to the method spike-norm"),
        ("--method search --channels --percentile 9", "--channels tries parts of each channel's largest activation"),
        ("--method search --steps 0", "the number of steps must be from 1 to 65535, got 0"),
        ("--method activations --steps -5", "the number of steps must be from 0 to 65535, got -5"),
        ("--method ann-norm --initial 0", "--initial says nothing to the method ann-norm"),
        ("--method activations --percentile 0", "--percentile must be above 0"),
    ],
)
def test_what_would_be_ignored_is_refused(arguments, reason, network, tmp_path):
    run_calibrate(network, *arguments.split()).assert_refused("calibrate.py", reason)
    assert sorted(files(tmp_path)) == ["net.safetensors"]
