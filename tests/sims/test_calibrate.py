"""calibrate.py: what it writes, going on after an interruption, wrong input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import WRONG_RUNS, files, run, save_images, tiny_checkpoint
from networks import exact_weights, residual

from netspec import training_images
from netspec.checkpoint import load_checkpoint, save_checkpoint
from netspec.data import samples
from netspec.thresholds import Thresholds, find_thresholds, load_thresholds
from sims import calibrate
from sims.brian.cache import cache_folder
from sims.brian.runtime import open_simulator
from sims.brian.standalone import StandaloneSimulator
from sims.conversion import input_peaks
from sims.conversion.ann_norm import ann_norm
from sims.conversion.spike_norm import spike_norm
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

NAMES = ["conv1_1", "conv3_3", "conv5_3", "output"]
FEW = ("--data", "cifar10-samples", "--images", 5)
QUICK = (*FEW, "--steps", 20, "--workers", 1)
OF_METHOD = {"spike-norm": QUICK, "ann-norm": FEW}


def run_calibrate(checkpoint, *arguments):
    return run("calibrate.py", calibrate.main, "--checkpoint", checkpoint, *arguments)


def chosen(seed: int = 0, n: int = 5) -> np.ndarray:
    """The encoded samples that the command draws."""
    numbers = np.sort(np.random.default_rng(seed).choice(20, n, replace=False))
    return tiny_checkpoint().encode(samples().images[numbers])


def algorithm_1(x: np.ndarray, steps: int, seed: int = 0, reset: str = "zero", percentile: float = 100) -> dict:
    """Algorithm 1 of the paper, word for word, with the torch reference."""
    checkpoint = tiny_checkpoint()
    network = ReferenceSimulator(checkpoint.spec, checkpoint.weights, reset)
    found: dict[str, float] = {}
    for name in NAMES:
        peaks = network.run(RunInput(x, dict(found), steps, seed, measured=(name,))).peaks[name]
        found[name] = float(np.float32(np.percentile(peaks, percentile)))
    return found


def values(path: Path) -> dict[str, float]:
    return json.loads(path.read_text())["values"]


@pytest.fixture(scope="module")
def calibrated(tiny, tmp_path_factory):
    """What the command says, and the file that it writes."""
    out = tmp_path_factory.mktemp("calibrated") / "new" / "thresholds.json"
    return run_calibrate(tiny, *QUICK, "--out", out), out


# The command


def test_torch_finds_the_same_thresholds(calibrated, tiny, tmp_path):
    ended = run_calibrate(tiny, *QUICK, "--runtime", "torch", "--out", tmp_path / "torch.json")
    assert ended.status == 0
    assert values(tmp_path / "torch.json") == values(calibrated[1])


def test_command_writes_the_thresholds_of_algorithm_1(calibrated):
    ended, out = calibrated
    expected = algorithm_1(chosen(), steps=20)
    assert ended.status == 0
    assert values(out) == expected
    assert list(values(out)) == NAMES
    assert all(value > 0 and value == round(64 * value) / 64 for value in expected.values())  # so, nothing rounded
    assert sorted(files(out.parent)) == ["thresholds.json"]
    lines = [f"{name:>8} {value:.4f}" for name, value in expected.items()]
    assert ended.out == "\n".join([*lines, f"written: {out}", ""])


def test_file_says_where_the_thresholds_come_from(calibrated, tiny):
    checkpoint = load_checkpoint(tiny)
    how = ("spike-norm", checkpoint.digest, 100.0, 5, "CIFAR-10 test images 0 to 19", 0, 20, "zero")
    assert load_thresholds(calibrated[1], checkpoint) == Thresholds(values(calibrated[1]), *how)


@pytest.mark.parametrize("arguments", [(), ("--workers", 2), ("--workers", 9), ("--runtime", "numpy")])
def test_same_seed_gives_the_same_file_whoever_computes_it(arguments, calibrated, tiny, tmp_path):
    out = tmp_path / "thresholds.json"
    assert run_calibrate(tiny, *QUICK, *arguments, "--out", out).status == 0
    assert out.read_bytes() == calibrated[1].read_bytes()


@pytest.mark.parametrize("arguments", [(), ("--workers", 2)])
def test_layers_that_are_spared_change_nothing(arguments, calibrated, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(input_peaks, "WORTH", 1)
    opened = []

    def noted(spec, **how):
        opened.append(spec.name)
        return open_simulator(spec, **how)

    monkeypatch.setattr(calibrate, "open_simulator", noted)
    out = tmp_path / "thresholds.json"
    assert run_calibrate(tiny, *QUICK, *arguments, "--out", out).status == 0
    assert opened == ["vgg16-tiny", "vgg16-tiny-after-conv3_3"]
    assert out.read_bytes() == calibrated[1].read_bytes()
    assert not [folder for folder in (cache_folder() / "runs").iterdir() if list(folder.glob("*.i32"))]


@pytest.mark.parametrize("runtime", ["torch", "numpy"])
def test_what_compiles_nothing_needs_no_cache(runtime, calibrated, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("GOING_DEEPER_CACHE", "/dev/null/cache")
    out = tmp_path / "thresholds.json"
    assert run_calibrate(tiny, *QUICK, "--runtime", runtime, "--out", out).status == 0
    assert out.read_bytes() == calibrated[1].read_bytes()


@pytest.mark.parametrize("seed", [1, -1])
def test_seed_draws_images_and_spikes(seed, calibrated, tiny, tmp_path):
    out = tmp_path / "thresholds.json"
    assert run_calibrate(tiny, *QUICK, "--seed", seed, "--out", out).status == 0
    assert values(out) == algorithm_1(chosen(seed % 2**64), 20, seed) != values(calibrated[1])


def test_reset_and_percentile_are_obeyed(calibrated, tiny, tmp_path):
    out, arguments = tmp_path / "thresholds.json", ("--reset", "subtract", "--percentile", 90)
    assert run_calibrate(tiny, *QUICK, *arguments, "--out", out).status == 0
    assert values(out) == algorithm_1(chosen(), 20, reset="subtract", percentile=90)
    thresholds = load_thresholds(out, load_checkpoint(tiny))
    assert (thresholds.reset, thresholds.percentile) == ("subtract", 90)
    zero = algorithm_1(chosen(), 20, percentile=90)
    assert values(out)["output"] != zero["output"]  # else the reset would have been no test
    assert values(out)["conv1_1"] == zero["conv1_1"] < values(calibrated[1])["conv1_1"]


@pytest.mark.parametrize("method", ["spike-norm", "ann-norm"])
def test_file_lies_beside_the_checkpoint_by_default(method, tiny, tmp_path):
    checkpoint = Path(shutil.copy(tiny, tmp_path / "net.safetensors"))
    assert run_calibrate(checkpoint, *OF_METHOD[method], "--method", method).status == 0
    assert sorted(files(tmp_path)) == sorted(["net.safetensors", f"net.{method}.json"])
    assert load_thresholds(find_thresholds(checkpoint, method), load_checkpoint(checkpoint)).method == method


def test_thresholds_found_in_another_way_are_not_overwritten(tiny, tmp_path):
    checkpoint = Path(shutil.copy(tiny, tmp_path / "net.safetensors"))
    arguments = (*FEW, "--method", "ann-norm")
    assert run_calibrate(checkpoint, *arguments).status == 0
    before = files(tmp_path)
    assert run_calibrate(checkpoint, *arguments).status == 0
    ended = run_calibrate(checkpoint, *arguments, "--percentile", 99)
    ended.assert_refused("calibrate.py", "percentile 100, seed 0; give --out FILE, or remove it")
    assert files(tmp_path) == before
    assert run_calibrate(checkpoint, *arguments, "--percentile", 99, "--out", tmp_path / "other.json").status == 0
    (tmp_path / "net.ann-norm.json").write_text("of no use")
    assert run_calibrate(checkpoint, *arguments, "--percentile", 99).status == 0


def test_images_are_those_of_training(tiny, tmp_path, monkeypatch):
    asked = []

    def load_images(*arguments):
        *told, choose = arguments
        asked.append((*told, len(choose(samples()))))
        return choose(samples())

    monkeypatch.setattr(training_images, "load_images", load_images)
    arguments = ("--method", "ann-norm", "--images", 3, "--out", tmp_path / "thresholds.json")
    assert run_calibrate(tiny, *arguments).status == 0
    assert asked == [("cifar10", (32, 32, 3), load_checkpoint(tiny).classes, "train", 3)]


def test_residual_units_keep_a_threshold_of_one(tmp_path):
    spec = residual("if")
    checkpoint = replace(tiny_checkpoint(spec), weights=exact_weights(spec))
    save_checkpoint(checkpoint, tmp_path / "net.safetensors")
    images = samples().images[:3, 12:20, 12:20]
    folder = save_images(tmp_path / "images", "0.png", "1.png", "2.png", images=images)
    arguments = ("--data", folder, "--images", 3, "--steps", 20, "--runtime", "numpy", "--unit")
    assert run_calibrate(tmp_path / "net.safetensors", *arguments).status == 0
    thresholds = load_thresholds(tmp_path / "net.spike-norm-unit.json", checkpoint)
    x = checkpoint.encode(images)
    units = dict.fromkeys(("stem", "branch1", "junction1", "branch2", "junction2"), 1.0)
    network = ReferenceSimulator(spec, checkpoint.weights)
    output = network.run(RunInput(x, units, 20, measured=("output",))).peaks["output"].max()
    assert thresholds.values == units | {"output": float(output)}
    assert thresholds.unit


def test_command_normalises_by_the_ann(tiny, tmp_path):
    out, arguments = tmp_path / "thresholds.json", ("--method", "ann-norm", "--percentile", 80)
    assert run_calibrate(tiny, *FEW, *arguments, "--out", out).status == 0
    checkpoint = load_checkpoint(tiny)
    assert values(out) == ann_norm(checkpoint, chosen(), 80)
    thresholds = load_thresholds(out, checkpoint)
    assert (thresholds.method, thresholds.percentile, thresholds.steps) == ("ann-norm", 80, 0)


# Going on


def interrupt(monkeypatch, after: int) -> None:
    """Ctrl-C when so many layers are finished."""

    def interrupted(simulator, x, steps, seed, percentile, known, workers, finished, progress, *how):
        layers = []

        def stop(name: str, value: float) -> None:
            finished(name, value)
            layers.append(name)
            if len(layers) == after:
                raise KeyboardInterrupt

        return spike_norm(simulator, x, steps, seed, percentile, known, workers, stop, progress, *how)

    monkeypatch.setattr(calibrate, "spike_norm", interrupted)


@pytest.fixture
def measured(monkeypatch):
    """The layers that are measured from now on."""
    layers = []
    simulate = StandaloneSimulator.run

    def noted(self, run_input, progress=None):
        layers.append(run_input.measured[0])
        return simulate(self, run_input, progress)

    monkeypatch.setattr(StandaloneSimulator, "run", noted)
    return layers


@pytest.mark.parametrize("layers", [2, 4])
def test_interrupted_calibration_goes_on_where_it_stopped(layers, calibrated, tiny, tmp_path, monkeypatch, measured):
    out = tmp_path / "thresholds.json"
    with monkeypatch.context() as patched:
        interrupt(patched, layers)
        ended = run_calibrate(tiny, *QUICK, "--out", out)
    assert ended.status == 130
    assert ended.err.splitlines()[-1] == "calibrate.py: error: interrupted; what was finished is kept"
    assert sorted(files(tmp_path)) == [".thresholds.json.unfinished"]
    ended = run_calibrate(tiny, *QUICK, "--out", out)
    assert ended.status == 0
    assert ended.out.startswith(f"going on after {NAMES[layers - 1]}\n")
    assert measured == NAMES  # each once
    assert out.read_bytes() == calibrated[1].read_bytes()
    assert sorted(files(tmp_path)) == ["thresholds.json"]


@pytest.mark.parametrize("change", ["steps", "seed", "broken"])
def test_unfinished_calibration_of_other_settings_is_not_gone_on_with(change, tiny, tmp_path, monkeypatch, measured):
    out = tmp_path / "thresholds.json"
    with monkeypatch.context() as patched:
        interrupt(patched, 2)
        assert run_calibrate(tiny, *QUICK, "--out", out).status == 130
    if change == "broken":
        unfinished = tmp_path / ".thresholds.json.unfinished"
        unfinished.write_text(unfinished.read_text()[:-20])
    more = {"steps": ("--steps", 15), "seed": ("--seed", 1)}.get(change, ())
    ended = run_calibrate(tiny, *QUICK, *more, "--out", out)
    assert ended.status == 0
    assert "going on" not in ended.out
    assert measured == [*NAMES[:2], *NAMES]
    alone = tmp_path / "alone.json"
    run_calibrate(tiny, *QUICK, *more, "--out", alone)
    assert out.read_bytes() == alone.read_bytes()


def test_finished_layers_are_kept_until_the_file_is_written(tiny, tmp_path, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Thresholds, "save", full)
    out = tmp_path / "thresholds.json"
    ended = run_calibrate(tiny, *QUICK, "--out", out)
    assert (ended.status, ended.err.splitlines()[-1]) == (2, f"calibrate.py: error: no space left on device ({out})")
    kept = json.loads((tmp_path / ".thresholds.json.unfinished").read_text())
    assert list(kept["values"]) == NAMES


# Wrong input


WRONG = WRONG_RUNS | {
    "--percentile 0": "--percentile must be above 0 and at most 100, got 0.0",
    "--percentile 100.1": "--percentile must be above 0 and at most 100, got 100.1",
    "--percentile nan": "--percentile must be above 0 and at most 100, got nan",
    "--workers 0": "--workers must be at least 1, got 0",
    "--workers 2 --runtime numpy": "--workers are of compiled networks; numpy has none",
    "--unit": "--unit is for residual networks; vgg16-tiny has no residual units",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_impossible_options_are_told_in_one_line(arguments, tiny, tmp_path):
    ended = run_calibrate(tiny, *QUICK, "--out", tmp_path / "out" / "thresholds.json", *arguments.split())
    ended.assert_refused("calibrate.py", WRONG[arguments])
    assert files(tmp_path) == {}


def test_file_that_cannot_be_written_is_told_at_once(tiny, tmp_path, measured):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for out, reason in (("file/thresholds.json", "cannot write into the folder"), ("folder", "is a folder; give")):
        ended = run_calibrate(tiny, *QUICK, "--out", tmp_path / out)
        ended.assert_refused("calibrate.py", reason)
    assert files(tmp_path) == {"file": b"kept"}
    for method in ("spike-norm", "ann-norm", "activations"):
        before = files(tiny.parent)
        ended = run_calibrate(tiny, "--data", "cifar10-samples", "--method", method, "--images", 5, "--out", tiny)
        ended.assert_refused("calibrate.py", f"{tiny} is the network itself; give the conversion another name")
        assert files(tiny.parent) == before
    assert measured == []


@pytest.mark.parametrize("method", ["spike-norm", "ann-norm"])
def test_layer_that_stays_silent_is_told(method, tmp_path):
    """The second layer never receives anything positive."""
    checkpoint, path = tiny_checkpoint(), tmp_path / "net.safetensors"
    negative = {"conv1_1_to_conv3_3": -np.abs(checkpoint.weights["conv1_1_to_conv3_3"])}
    save_checkpoint(replace(checkpoint, weights=checkpoint.weights | negative), path)
    ended = run_calibrate(path, *OF_METHOD[method], "--method", method)
    spikes, relu = "conv3_3 receives no positive input in 20 steps of", "no ReLU of conv3_3 is active on any of"
    reason = f"{spikes if method == 'spike-norm' else relu} 5 images; use more of them"
    assert (ended.status, ended.err.splitlines()[-1]) == (2, f"calibrate.py: error: {reason}")
    assert "Traceback" not in ended.err
    assert not find_thresholds(path, method).exists()
