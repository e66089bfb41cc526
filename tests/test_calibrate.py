"""calibrate.py, SPIKE-NORM and ANN-model normalisation: the values, going on after an interruption, wrong input."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import files, run, tiny_checkpoint, tiny_spec
from networks import exact_weights, residual
from PIL import Image

from netspec.checkpoint import load_checkpoint, save_checkpoint
from netspec.data import samples
from netspec.errors import UserError
from netspec.spec import NetSpec, Population, Projection
from sims import calibrate
from sims.reference import ReferenceSimulator
from sims.runtime import RunInput
from sims.spike_norm import ann_norm, spike_norm
from sims.standalone import StandaloneSimulator
from sims.thresholds import Thresholds, find_thresholds, load_thresholds

NAMES = ["conv1_1", "conv3_3", "conv5_3", "output"]
QUICK = ("--data", "cifar10-samples", "--images", 5, "--steps", 20, "--workers", 1)


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
    thresholds = load_thresholds(calibrated[1], checkpoint)
    source = "CIFAR-10 test images 0 to 19"
    assert thresholds == Thresholds(
        values(calibrated[1]), "spike-norm", checkpoint.digest, 100.0, 5, source, 0, 20, "zero"
    )


@pytest.mark.parametrize("arguments", [(), ("--workers", 2), ("--workers", 9), ("--runtime", "numpy")])
def test_same_seed_gives_the_same_file_whoever_computes_it(arguments, calibrated, tiny, tmp_path):
    out = tmp_path / "thresholds.json"
    assert run_calibrate(tiny, *QUICK, *arguments, "--out", out).status == 0
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
    assert run_calibrate(checkpoint, *QUICK, "--method", method).status == 0
    assert sorted(files(tmp_path)) == sorted(["net.safetensors", f"net.{method}.json"])
    assert load_thresholds(find_thresholds(checkpoint, method), load_checkpoint(checkpoint)).method == method


def test_thresholds_found_in_another_way_are_not_overwritten(tiny, tmp_path):
    checkpoint = Path(shutil.copy(tiny, tmp_path / "net.safetensors"))
    arguments = (*QUICK, "--method", "ann-norm")
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
        asked.append(arguments)
        return samples()

    monkeypatch.setattr(calibrate, "load_images", load_images)
    arguments = ("--method", "ann-norm", "--images", 3, "--out", tmp_path / "thresholds.json")
    assert run_calibrate(tiny, *arguments).status == 0
    assert asked == [("cifar10", 32, load_checkpoint(tiny).classes, "train")]


def test_residual_units_keep_a_threshold_of_one(tmp_path):
    spec = residual("if")
    checkpoint = replace(tiny_checkpoint(spec), weights=exact_weights(spec))
    save_checkpoint(checkpoint, tmp_path / "net.safetensors")
    (tmp_path / "images").mkdir()
    for k, image in enumerate(samples().images[:3]):
        Image.fromarray(image[12:20, 12:20]).save(tmp_path / "images" / f"{k}.png")
    arguments = ("--data", tmp_path / "images", "--images", 3, "--steps", 20, "--runtime", "numpy", "--unit")
    assert run_calibrate(tmp_path / "net.safetensors", *arguments).status == 0
    thresholds = load_thresholds(tmp_path / "net.spike-norm-unit.json", checkpoint)
    x = checkpoint.encode(samples().images[:3, 12:20, 12:20])
    units = dict.fromkeys(("stem", "branch1", "junction1", "branch2", "junction2"), 1.0)
    network = ReferenceSimulator(spec, checkpoint.weights)
    output = network.run(RunInput(x, units, 20, measured=("output",))).peaks["output"].max()
    assert thresholds.values == units | {"output": float(output)}
    assert thresholds.unit


# Going on


def interrupt(monkeypatch, after: int) -> None:
    """Ctrl-C when so many layers are finished."""

    def interrupted(simulator, x, steps, seed, percentile, known, workers, finished, progress):
        layers = []

        def stop(name: str, value: float) -> None:
            finished(name, value)
            layers.append(name)
            if len(layers) == after:
                raise KeyboardInterrupt

        return spike_norm(simulator, x, steps, seed, percentile, known, workers, stop, progress)

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
    assert ended.out.startswith(f"going on behind {NAMES[layers - 1]}\n")
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


def silent() -> tuple:
    """A network whose second layer never receives anything positive."""
    checkpoint = tiny_checkpoint()
    weights = dict(checkpoint.weights)
    weights["conv1_1_to_conv3_3"] = -np.abs(weights["conv1_1_to_conv3_3"])
    return replace(checkpoint, weights=weights)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--percentile", 0], "--percentile must be in (0, 100]"),
        (["--percentile", 100.1], "--percentile must be in (0, 100]"),
        (["--percentile", "nan"], "--percentile must be in (0, 100]"),
        (["--workers", 0], "--workers at least 1"),
        (["--images", 0], "the number of images must be at least 1, got 0"),
        (["--images", 21], "21 images were asked for, but CIFAR-10 test images 0 to 19 has 20"),
        (["--data", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["--checkpoint", "vgg99"], "there is no checkpoint file vgg99, nor a shipped network of that name"),
        (["--unit"], "--unit is for residual networks; vgg16-tiny has no residual units"),
        (["--steps", 0], "the number of steps must be from 1 to 65535, got 0"),
        (["--steps", -5], "the number of steps must be from 1 to 65535, got -5"),
        (["--steps", 65_536], "the number of steps must be from 1 to 65535, got 65536"),
    ],
)
def test_impossible_options_are_told_in_one_line(arguments, reason, tiny, tmp_path):
    ended = run_calibrate(tiny, *QUICK, "--out", tmp_path / "out" / "thresholds.json", *arguments)
    ended.assert_refused("calibrate.py", reason)
    assert files(tmp_path) == {}


def test_file_that_cannot_be_written_is_told_at_once(tiny, tmp_path, measured):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    for out, reason in (("file/thresholds.json", "cannot write into the folder"), ("folder", "is a folder; give")):
        ended = run_calibrate(tiny, *QUICK, "--out", tmp_path / out)
        ended.assert_refused("calibrate.py", reason)
    assert files(tmp_path) == {"file": b"kept"}
    assert measured == []


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("spike-norm", "conv3_3 receives no positive input in 20 steps of 5 images; use more of them"),
        ("ann-norm", "no ReLU of conv3_3 is active on any of 5 images; use more of them"),
    ],
)
def test_layer_that_stays_silent_is_told(method, reason, tmp_path):
    save_checkpoint(silent(), tmp_path / "net.safetensors")
    ended = run_calibrate(tmp_path / "net.safetensors", *QUICK, "--method", method)
    assert ended.status == 2
    assert ended.err.splitlines()[-1] == f"calibrate.py: error: {reason}"
    assert "Traceback" not in ended.err
    assert not find_thresholds(tmp_path / "net.safetensors", method).exists()


# spike_norm()


@pytest.fixture
def network():
    checkpoint = tiny_checkpoint()
    return ReferenceSimulator(checkpoint.spec, checkpoint.weights)


def test_given_thresholds_stay_and_are_used(network):
    x = chosen(n=3)
    free = spike_norm(network, x, 20)
    given = spike_norm(network, x, 20, known={"conv1_1": 1.0, "conv5_3": 0.5})
    assert (given["conv1_1"], given["conv5_3"]) == (1.0, 0.5)
    assert list(given) == NAMES
    assert given["conv3_3"] > free["conv3_3"]  # more spikes come from a lower threshold
    assert spike_norm(network, x, 20, known=free | {"output": 7.0}) == free | {"output": 7.0}


def test_nothing_fires_at_a_threshold_that_nothing_reaches(network):
    with pytest.raises(UserError, match="conv3_3 receives no positive input in 20 steps of 3 images"):
        spike_norm(network, chosen(n=3), 20, known={"conv1_1": 1e9})


def test_percentile_is_over_neurons_each_with_its_own_maximum(network):
    x = chosen(n=3)
    peaks = network.run(RunInput(x, {}, 20, measured=("conv1_1",))).peaks["conv1_1"]
    assert len(peaks) == 8 * 8 * 4
    for percentile in (50, 99.9, 100):
        found = spike_norm(network, x, 20, percentile=percentile, known=dict.fromkeys(NAMES[1:], 1.0))
        assert found["conv1_1"] == pytest.approx(np.percentile(np.sort(peaks), percentile), rel=1e-6)


def test_layers_and_steps_are_reported(network):
    layers, steps = [], []
    found = spike_norm(
        network, chosen(n=3), 20, workers=2, known={"conv1_1": 3.0},
        finished=lambda *layer: layers.append(layer), progress=steps.append,
    )  # fmt: skip
    assert layers == list(found.items())[1:]
    assert sum(steps) == 3 * 3 * 20
    assert min(steps) > 0


def test_parts_of_the_images_give_what_all_of_them_give(network):
    x = chosen(n=5)
    assert spike_norm(network, x, 20, workers=2) == spike_norm(network, x, 20, workers=7) == spike_norm(network, x, 20)


def test_more_images_or_steps_never_lower_the_first_threshold(network):
    x, rest = chosen(n=5), dict.fromkeys(NAMES[1:], 1.0)
    base = spike_norm(network, x[:2], 10, known=rest)["conv1_1"]
    assert spike_norm(network, x, 10, known=rest)["conv1_1"] >= base
    assert spike_norm(network, x[:2], 30, known=rest)["conv1_1"] > base


# ann_norm()


def dyadic(n: int) -> np.ndarray:
    """Inputs whose sums are exact, in any order and any batch."""
    return (np.random.default_rng(0).integers(-8, 9, (n, 32, 32, 3)) / 8).astype(np.float32)


def activations(x: np.ndarray) -> dict[str, np.ndarray]:
    """The ANN by hand: rectified activations of each layer, (images, neurons)."""
    w = {name: torch.from_numpy(weight) for name, weight in tiny_checkpoint().weights.items()}
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    conv1_1 = F.conv2d(F.avg_pool2d(image, 2), w["input_to_conv1_1"], stride=2, padding=1).clamp(min=0)
    conv3_3 = F.conv2d(F.avg_pool2d(conv1_1, 2), w["conv1_1_to_conv3_3"], padding=1).clamp(min=0)
    conv5_3 = F.conv2d(conv3_3, w["conv3_3_to_conv5_3"], stride=2, padding=1).clamp(min=0)
    output = conv5_3.permute(0, 2, 3, 1).flatten(1) @ w["conv5_3_to_output"].T
    return {"conv1_1": conv1_1.flatten(1).numpy(), "conv3_3": conv3_3.flatten(1).numpy(),
            "conv5_3": conv5_3.flatten(1).numpy(), "output": output.numpy()}  # fmt: skip


@pytest.mark.parametrize("percentile", [100, 99, 60])
def test_ann_norm_gives_ratios_of_successive_activations(percentile):
    checkpoint, x = tiny_checkpoint(), dyadic(150)
    scale = [1.0]
    for values in activations(x).values():
        scale.append(float(np.percentile(values.max(axis=0), percentile)))
    expected = [now / before for before, now in pairwise(scale)]
    found = ann_norm(checkpoint.spec, checkpoint.weights, x, percentile)
    assert list(found) == NAMES
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-6)


def test_command_normalises_by_the_ann(tiny, tmp_path):
    out, arguments = tmp_path / "thresholds.json", ("--method", "ann-norm", "--percentile", 80)
    assert run_calibrate(tiny, *QUICK, *arguments, "--out", out).status == 0
    scale = {name: np.percentile(a.max(axis=0), 80) for name, a in activations(chosen()).items()}
    ratios = {name: scale[name] / scale.get(before, 1.0) for before, name in pairwise(["input", *NAMES])}
    assert values(out) == pytest.approx(ratios, rel=1e-5)
    thresholds = load_thresholds(out, load_checkpoint(tiny))
    assert (thresholds.method, thresholds.percentile, thresholds.steps) == ("ann-norm", 80, 0)


@pytest.mark.parametrize("junction", ["if", "relay"])
def test_spikes_that_meet_must_stand_for_the_same(junction):
    spec = residual(junction)
    x = np.full((2, *spec.input.shape), 0.5, dtype=np.float32)
    with pytest.raises(UserError, match="the spikes that meet in junction1 stand for different activations"):
        ann_norm(spec, exact_weights(spec), x)


def test_relay_passes_the_scale_of_its_input_on():
    """A relay has no threshold: its value counts spikes of the layer before it, whatever their weights."""
    spec = NetSpec(
        "relayed",
        (
            Population("input", (2, 2, 1), kind="input"),
            Population("a", (2, 2, 2)),
            Population("r", (2, 2, 3), kind="relay"),
            Population("output", (1, 1, 2)),
        ),
        (Projection("input", "a"), Projection("a", "r"), Projection("r", "output", kind="dense")),
    )
    weights = {"input_to_a": np.full((2, 1, 1, 1), 3.0, np.float32), "a_to_r": np.full((3, 2, 1, 1), 5.0, np.float32)}
    weights["r_to_output"] = np.full((2, 12), 0.25, np.float32)
    x = np.array([0.5, 0.25, 0.25, 0.0], np.float32).reshape(1, 2, 2, 1)
    a = 3 * 0.5
    output = 0.25 * 3 * 5 * 2 * 3 * (0.5 + 0.25 + 0.25)
    assert ann_norm(spec, weights, x) == {"a": a, "output": output / a}


# Thresholds


def test_thresholds_come_back_as_they_were_saved(tmp_path):
    checkpoint = tiny_checkpoint()
    found = dict(zip(NAMES, (1.5, 0.1, float(np.float32(2.3)), 7.0), strict=True))
    thresholds = Thresholds(found, "spike-norm", checkpoint.digest, 99.9, 7, "somewhere", 5, 30, "subtract")
    thresholds.save(tmp_path / "t.json")
    assert load_thresholds(tmp_path / "t.json", checkpoint) == thresholds
    assert sorted(files(tmp_path)) == ["t.json"]


def test_thresholds_belong_to_weights_and_input_coding(tmp_path):
    checkpoint = tiny_checkpoint()
    path = tmp_path / "t.json"
    Thresholds(dict.fromkeys(NAMES, 1.0), "spike-norm", checkpoint.digest, 100, 1, "", 0).save(path)
    weights = {name: weight.copy() for name, weight in checkpoint.weights.items()}
    weights["input_to_conv1_1"][0, 0, 0, 0] += 1
    others = [replace(checkpoint, weights=weights), replace(checkpoint, gain=2.5),
              replace(checkpoint, mean=checkpoint.mean + 0.1), tiny_checkpoint(tiny_spec("vgg16-other"))]  # fmt: skip
    assert load_thresholds(path, replace(checkpoint, info={"epochs": 9})).values["output"] == 1.0
    for other in others:
        with pytest.raises(UserError, match="holds the thresholds of another checkpoint"):
            load_thresholds(path, other)


def test_thresholds_in_another_order_do_not_fit(tmp_path):
    checkpoint = tiny_checkpoint()
    Thresholds(dict.fromkeys(NAMES[::-1], 1.0), "spike-norm", checkpoint.digest, 100, 1, "", 0).save(tmp_path / "t")
    with pytest.raises(UserError, match="thresholds of output, conv5_3, conv3_3, conv1_1 do not fit the populations"):
        load_thresholds(tmp_path / "t", checkpoint)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"format": 1}', "\x00", '"text"', "[1, 2]"])
def test_other_files_are_no_thresholds(content, tmp_path):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError, match=r"t.json is no thresholds file of this project, or truncated"):
        load_thresholds(tmp_path / "t.json", tiny_checkpoint())
