"""benchmark.py on a small network: the table and its arithmetic, not the speed."""

import math

import numpy as np
import pandas as pd
import pytest
from commands import files, run, tiny_checkpoint, tiny_spec

from netspec.vgg import vgg16
from sims import benchmark
from sims.reference import ReferenceSimulator
from sims.runtime import RunInput
from sims.standalone import StandaloneSimulator

STEPS = 40


def x(seed: int = 0) -> np.ndarray:
    """The random image that the command draws."""
    return np.random.default_rng(seed).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)


@pytest.fixture
def run_benchmark(tiny, monkeypatch):
    """Runs the command on the small network, whose binary is there, in the place of VGG-16."""
    monkeypatch.setattr(benchmark, "vgg16", lambda dataset, width: tiny_spec())
    monkeypatch.setattr(benchmark, "random_weights", lambda spec, seed: tiny_checkpoint().weights)
    return lambda *arguments: run("benchmark.py", benchmark.main, *arguments)


def test_table_has_a_row_for_each_activity(run_benchmark, tmp_path):
    out = tmp_path / "new" / "table.csv"
    ended = run_benchmark("--steps", STEPS, "--repetitions", 3, "--activity", 0.05, 0.3, "--out", out)
    assert ended.status == 0
    assert sorted(files(tmp_path)) == ["new/table.csv"]
    table = pd.read_csv(out)
    assert list(table) == [
        "network", "activity", "sops_per_step", "steps_per_second", "gsops_per_second", "seconds", "seconds_min",
        "seconds_max", "peak_memory_mb",
    ]  # fmt: skip
    assert list(table["network"]) == ["vgg16-tiny"] * 2
    assert list(table["activity"]) == pytest.approx([0.05, 0.3], rel=0.3)
    assert np.all(table["seconds_min"] <= table["seconds"]) and np.all(table["seconds"] <= table["seconds_max"])
    np.testing.assert_allclose(table["steps_per_second"], STEPS / table["seconds"])
    np.testing.assert_allclose(table["gsops_per_second"], table["sops_per_step"] * table["steps_per_second"] / 1e9)
    assert table["sops_per_step"].is_monotonic_increasing
    assert table["peak_memory_mb"].between(1, 1000).all()
    spec = tiny_spec()
    synapses = sum(spec.synapses(projection) for projection in spec.projections)
    words = f"{spec.neurons():,} neurons, {synapses:,} synapses held as {spec.parameters():,} weights"
    assert ended.out.startswith(f"vgg16-tiny: {words}\n")
    assert "seconds        build 0.00 compile 0.00\n" in ended.out


def test_row_is_that_of_the_recording(tiny):
    checkpoint = tiny_checkpoint()
    given = RunInput(x(), dict.fromkeys(("conv1_1", "conv3_3", "conv5_3", "output"), 2.0), STEPS)
    row = benchmark.measure(StandaloneSimulator(checkpoint.spec, checkpoint.weights), given, repetitions=2)
    recording = ReferenceSimulator(checkpoint.spec, checkpoint.weights).run(given)
    operations = sum(recording.synaptic_operations(p).sum() for p in checkpoint.spec.projections)
    rates = [recording.spike_counts(p.name).mean() / STEPS for p in checkpoint.spec.spiking]
    assert row["sops_per_step"] == pytest.approx(operations / STEPS)
    assert row["activity"] == pytest.approx(np.mean(rates))


def test_thresholds_bring_every_layer_to_its_activity():
    spec = tiny_spec()
    network = ReferenceSimulator(spec, benchmark.random_weights(spec, 0))
    for activity in (0.1, 0.3):
        thresholds = benchmark.thresholds_for(network, x(), activity, 100)
        rates = network.run(RunInput(x(), thresholds, 100)).spikes_per_neuron()
        for population in spec.spiking:
            assert rates[population.name] / 100 == pytest.approx(activity, rel=0.1), population.name


def test_weights_are_normal_with_the_variance_of_their_fan_in():
    spec = vgg16(width=0.25)
    weights = benchmark.random_weights(spec, 3)
    assert list(weights) == [projection.name for projection in spec.projections]
    for projection in spec.projections:
        weight = weights[projection.name]
        assert (weight.dtype, weight.shape) == (np.float32, spec.weight_shape(projection))
        deviation = math.sqrt(2 / (weight.size / len(weight)))
        assert weight.std() == pytest.approx(deviation, rel=0.1)
        assert abs(weight.mean()) < 6 * deviation / math.sqrt(weight.size)
    again, other = benchmark.random_weights(spec, 3), benchmark.random_weights(spec, -3)
    assert all(np.array_equal(weights[name], again[name]) for name in weights)
    assert not any(np.array_equal(weights[name], other[name]) for name in weights)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--repetitions", 0], "--repetitions must be at least 1"),
        (["--activity", 0.1, 0], "each --activity between 0 and 1"),
        (["--activity", 1.5], "each --activity between 0 and 1"),
        (["--width", 0], "--width must be positive"),
        (["--width", "nan"], "--width must be positive"),
        (["--steps", 0], "--steps from 1 to 65535"),
        (["--steps", 65_536], "--steps from 1 to 65535"),
        (["--out", "."], "--out . is a folder; give the name of a file"),
        (["--out", "/dev/null/table.csv"], "cannot write into the folder /dev/null"),
    ],
)
def test_impossible_options_are_told_in_one_line(arguments, reason, run_benchmark, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_benchmark(*arguments).assert_refused("benchmark.py", reason)
    assert files(tmp_path) == {}
