"""benchmark.py on a small network: its tables, their arithmetic and that the contestants agree; never the speed."""

import json
import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from commands import files, run, tiny_checkpoint, tiny_spec
from networks import case, net

from netspec.architectures.vgg import vgg16
from netspec.errors import UserError
from netspec.spec import NetSpec, Projection
from sims import benchmark
from sims.brian.cache import cache_folder
from sims.brian.standalone import StandaloneSimulator
from sims.conversion import input_peaks
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput
from sims.speed import answers, calibrating, evaluating, parts
from sims.speed.activity import activity_table, random_image, random_weights, targets, thresholds_for
from sims.speed.comparison import crossing, growth_fit, ratios
from sims.speed.dense import DenseSimulator, dense_input
from sims.speed.measure import layer_seconds, speed
from sims.speed.parts import FEWEST_STEPS, Plan

STEPS = 120
THREADS = [1, 2]
LAYERS = ["conv1_1", "conv3_3", "conv5_3", "output"]


def x(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)


def mini_spec() -> NetSpec:
    """Two layers of the names in the table of activities: it is compiled three times, and that takes seconds."""
    return net(
        "vgg16-mini",
        {"input": (8, 8, 3), "conv1_1": (4, 4, 8), "output": (1, 1, 10)},
        Projection("input", "conv1_1", kernel=3, stride=2, padding=1),
        Projection("conv1_1", "output", kind="dense", pool=2),
    )


def replace_networks(patch: pytest.MonkeyPatch) -> None:
    """The small network, with weights whose sums are exact, in the place of all others."""
    for name in ("vgg16", "resnet34"):
        patch.setattr(parts, name, lambda *arguments, **options: mini_spec())
    patch.setattr(parts, "random_weights", lambda spec, seed: tiny_checkpoint(spec).weights)

    def simulator(spec, weights, synapses, profile, **how):  # one binary of shared synapses and a thread serves all
        return StandaloneSimulator(spec, weights, synapses, profile=synapses == "shared", **how)

    patch.setattr(parts, "StandaloneSimulator", simulator)
    patch.setattr(parts, "thread_counts", lambda: THREADS)


@pytest.fixture(scope="module")
def ended(caches, tmp_path_factory):
    """The whole command, once, and its tables."""
    out = tmp_path_factory.mktemp("benchmark") / "new"
    with pytest.MonkeyPatch.context() as patch:
        replace_networks(patch)
        steps = (
            "--parts",
            *parts.PARTS[:4],
            "--steps",
            STEPS,
            "--explicit-steps",
            STEPS,
            "--growth-steps",
            STEPS,
            "--imagenet-steps",
            STEPS,
            30,
        )
        sizes = ("--growth-sizes", 32, 64, "--growth-widths", 1)
        arguments = ("--activity", "calibrated", 0.05, 0.3, "--repetitions", 2, "--out", out)
        done = run("benchmark.py", benchmark.main, *steps, *sizes, *arguments)
    assert done.status == 0, done
    assert sorted(files(out)) == sorted([*(f"{name}.csv" for name in NAMES), "machine.json"])
    return done, out


NAMES = ["networks", "networks-ratios", "layers", "layers-crossings", "growth", "growth-fit", "imagenet"]


@pytest.fixture
def table(ended):
    return lambda name: pd.read_csv(ended[1] / f"{name}.csv")


# The command


def test_networks_have_a_row_for_each_simulator_and_activity(table):
    rows = table("networks")
    simulators = ["shared", "explicit", *(f"torch-{threads}" for threads in THREADS)]
    assert list(rows["simulator"]) == simulators * 3
    assert list(rows["activity"].unique()) == ["calibrated", "0.05", "0.3"]
    assert (rows["network"] == "vgg16-mini").all() and (rows["steps"] == STEPS).all()
    assert (rows["seconds_per_step_min"] <= rows["seconds_per_step"]).all()
    assert (rows["seconds_per_step"] <= rows["seconds_per_step_max"]).all()
    np.testing.assert_allclose(rows["steps_per_second"], 1 / rows["seconds_per_step"])
    np.testing.assert_allclose(rows["gsops_per_second"], rows["sops_per_step"] / rows["seconds_per_step"] / 1e9)
    compiled = rows[rows["simulator"].isin(["shared", "explicit"])]
    assert compiled["peak_memory_mb"].between(1, 1000).all()
    assert (compiled["startup_seconds"] > 0).all()
    assert (compiled[["build_seconds", "compile_seconds"]] > 0).all(axis=None)
    shared = rows[rows["simulator"] == "shared"]
    half = 2 * sum(-(-weights // 16) * 16 for weights in (3 * 9 * 8, 32 * 10))  # in half precision, aligned
    assert (shared["bytes_per_synapse"] * shared["synapses"]).tolist() == pytest.approx([half] * 3)


def test_all_simulators_give_the_same_spikes(table):
    rows = table("networks")
    for _, part in rows.groupby("activity"):
        assert part["spikes"].nunique() == part["sops_per_step"].nunique() == 1
        assert part["spikes"].iloc[0] > 0
    assert (table("networks-ratios")["spike_difference"] == 0).all()


def test_each_layer_has_its_time_and_its_crossing(table):
    rows, crossings = table("layers"), table("layers-crossings")
    assert list(rows["layer"]) == ["conv1_1", "output"] * 3
    assert list(crossings["layer"]) == ["conv1_1", "output"]
    of_input = rows[(rows["layer"] == "conv1_1") & (rows["activity"] != "calibrated")]
    assert list(of_input["input_spikes_per_neuron_step"]) == pytest.approx([0.05, 0.3], rel=0.05)
    spec = mini_spec()
    assert rows["synapses"].sum() == 3 * sum(spec.synapses(projection) for projection in spec.projections)
    for threads in THREADS:
        times = rows[rows["layer"] == "output"]
        constant = crossings.set_index("layer").loc["output", f"torch_{threads}_seconds_per_step"]
        expected = crossing(times["input_spikes_per_neuron_step"], times["shared_seconds_per_step"], constant)
        assert crossings.set_index("layer").loc["output", f"crossing_torch_{threads}"] == pytest.approx(expected)


def test_operations_of_layers_are_those_of_the_network(table):
    layers = table("layers").groupby("activity")["sops_per_step"].sum()
    whole = table("networks").query("simulator == 'shared'").set_index("activity")["sops_per_step"]
    for activity, operations in whole.items():
        assert layers[activity] == pytest.approx(operations)


def test_growth_and_imagenet_tables(table):
    rows = table("growth")
    assert list(rows["size"]) == [32, 32, 64, 64]
    assert list(rows["steps"]) == [STEPS, STEPS, FEWEST_STEPS, FEWEST_STEPS]
    assert list(table("growth-fit")) == ["a", "b", "c", "r2", "largest_relative_residual"]
    large = table("imagenet")
    ours = ["shared", *(f"shared-{n}" for n in THREADS[1:])]
    assert list(large["simulator"]) == [*ours, *(f"torch-{n}" for n in THREADS)] * 2
    assert list(large[large["simulator"] == "shared"]["steps"]) == [STEPS, 30]
    assert all(large[large["simulator"].isin(ours)].groupby("steps")["spikes"].nunique() == 1)
    assert (large[large["simulator"] == "shared"]["time_ratio"] == 1).all()


def test_machine_and_tables_are_told(ended):
    done, out = ended
    facts = json.loads((out / "machine.json").read_text())
    assert {"processor", "cores", "memory_gb", "torch", "brian2", "load_average_before", "options"} <= set(facts)
    assert facts["options"]["repetitions"] == 2
    assert all(f"\n{name}\n" in done.out for name in NAMES)
    assert done.out.splitlines()[-1].startswith("written: ")
    assert list(cache_folder().glob("benchmark-*")) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--repetitions", 0], "the number of repetitions must be at least 1, got 0"),
        (["--activity", 0.1, 0], "a number between 0 and 0.5, got 0"),
        (["--activity", "much"], "an activity is 'calibrated' or a number between 0 and 0.5, got much"),
        (["--growth-activity", "nan"], "a number between 0 and 0.5, got nan"),
        (["--width", 0], "widths must be positive"),
        (["--explicit-width", "nan"], "widths must be positive"),
        (["--explicit-width", 30], "use shared synapses or a narrower network"),
        (["--steps", 0], "steps must be from 1 to 65535"),
        (["--imagenet-steps", 10, 65_536], "steps must be from 1 to 65535"),
        (["--growth-sizes", 48], "sizes must be multiples of 32, got 48"),
        (["--parts", "layers", "--activity", 0.1, 0.1], "needs two or more activities"),
        (["--growth-sizes", 32, "--growth-widths", 1], "needs four or more cases"),
        (["--before", "nowhere"], "nowhere is no checkout of this project"),
        (["--evaluation-images", 1, 20], "evaluations have two images a core or more, got 1"),
        (["--before", benchmark.TABLE.parents[2], "--parts", "growth"], "is compared in the part answers"),
        (["--table", "missing.csv"], "missing.csv is no table of operations"),
        (["--out", "/dev/null/tables"], "cannot write into the folder /dev/null/tables"),
    ],
)
def test_impossible_options_are_told_in_one_line(arguments, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, "fresh_cache", None)  # nothing is run
    run("benchmark.py", benchmark.main, *arguments).assert_refused("benchmark.py", reason)


def test_growth_varies_one_thing_at_a_time(monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark.py"])
    plan = benchmark.chosen_plan(benchmark.parse_arguments())
    assert plan == Plan()
    named = [(vgg16(width=width, size=size).name, size) for size, width in plan.growth_shapes]
    widths = [(f"vgg16-cifar10-x{width}", 32) for width in ("0.25", "0.5", "1")]
    assert named == widths + [(f"vgg16-cifar10-x1-{size}", size) for size in (64, 128, 224)]


def test_quick_options_can_be_overridden(monkeypatch):
    monkeypatch.setattr("sys.argv", ["benchmark.py", "--quick", "--width", "0.5"])
    options = benchmark.parse_arguments()
    assert (options.width, options.repetitions) == (0.5, 1)


def test_answers_take_so_many_steps_in_every_simulator(tiny, monkeypatch):
    monkeypatch.setattr("torch.compile", lambda function: function)  # which takes a minute
    monkeypatch.setattr(answers, "NETWORK", str(tiny))
    monkeypatch.setattr(answers, "CONVERSIONS", {"spike-norm": 30, "ann-norm": 10})
    table = answers.answers_table([1, 2], 1, THREADS, 0)
    names = ["shared", *(f"torch-{threads}{form}" for threads in THREADS for form in ("", " compiled, bfloat16"))]
    assert set(table["simulator"]) == set(names)
    torch = table[table["simulator"] != "shared"]
    assert sorted(set(torch["batch"])) == [1, 2]
    np.testing.assert_allclose(torch["seconds_per_image"], torch["steps"] * torch["step"])
    for _, rows in table.groupby("conversion"):
        ours = rows[rows["simulator"] == "shared"]
        assert list(ours["batch"]) == [1, 8]
        assert (ours[["open_seconds", "build_seconds", "compile_seconds"]] >= 0).all(axis=None)
        np.testing.assert_allclose(rows["time_ratio"], rows["seconds_per_image"] / ours["seconds_per_image"].min())


def test_answers_of_another_checkout_stand_beside(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "NETWORK", str(tiny))
    (tmp_path / "sims").mkdir()
    (tmp_path / "sims" / "run_vgg.py").write_text(
        "import json, sys\nfrom pathlib import Path\n"
        "told = {'seconds': {'simulate': 30}, 'images': 4}\n"
        "Path(sys.argv[-1], 'summary.json').write_text(json.dumps(told))\n"
        "sys.exit('no' if 'ann-norm' in sys.argv else 0)\n"
    )
    rows = answers.checkout_rows(str(tmp_path), "spike-norm", 20, 2, 0)
    assert [row["simulator"] for row in rows] == ["run", "run before"]
    assert 0 < rows[0]["seconds_per_image_min"] <= rows[0]["seconds_per_image"] < 7.5
    assert rows[1]["seconds_per_image_min"] == rows[1]["seconds_per_image"] == 7.5
    monkeypatch.setattr(answers, "HERE", tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}: no"):
        answers.checkout_rows(str(tmp_path), "ann-norm", 20, 1, 0)


def test_evaluations_grow_with_images_steps_and_workers(tiny, monkeypatch):
    monkeypatch.setattr(evaluating, "NETWORK", str(tiny))
    monkeypatch.setattr(evaluating, "CONVERSION", "spike-norm")
    monkeypatch.setattr(evaluating, "SAMPLED", 0.01)
    table = evaluating.evaluation_table([40, 80], [10, 20], [1, 2], 1, 0)
    assert list(zip(*(table[name] for name in ("varied", "images", "steps", "workers")), strict=True)) == [
        *(("images", 40, 10, 1), ("images", 80, 10, 1), ("steps", 40, 20, 1)),
        *(("workers", 80, 10, 1), ("workers", 80, 10, 2), ("binaries", 40, 10, 1), ("binaries", 40, 10, 2)),
    ]
    assert (table[["seconds", "seconds_per_image"]] > 0).all(axis=None)


def test_calibration_is_timed_in_both_ways(tiny, monkeypatch):
    monkeypatch.setattr(calibrating, "NETWORK", str(tiny))
    monkeypatch.setattr(input_peaks, "WORTH", 1)
    table = calibrating.calibration_table(30, 10, 1, 0)
    assert list(table["simulator"]) == ["whole", "spared"]
    whole, spared = table["compile_seconds"]
    assert whole == 0 < spared
    assert min(table["time_ratio"]) == 1 and (table["seconds"] > 0).all()


def test_memory_of_all_has_that_of_processes_below():
    memory = evaluating.Memory()
    memory.look()
    program = "x = bytearray(300_000_000); print(len(x), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        memory.look()
        child.communicate(b"\n")
    (_, before), (_, after) = memory.seen
    assert 300e6 < after - before < 400e6
    assert memory.most(0, math.inf) == max(before, after) / 1e6
    assert math.isnan(memory.most(0, 1))


# The simulators and the activities


@pytest.mark.parametrize(("network", "threads"), [("residual-if", 1), ("wide", 1), ("wide", 2), ("identities", 1)])
def test_dense_simulation_gives_the_spikes_of_the_reference(network, threads):
    spec, weights, given = case(network)
    recording = ReferenceSimulator(spec, weights).run(given)
    shown = dense_input(given.x[0], given.seed, given.steps)
    counts = DenseSimulator(spec, weights, threads).run(shown, given.thresholds)
    for population in spec.spiking:
        np.testing.assert_array_equal(counts[population.name][0], recording.spike_counts(population.name)[0])
    assert any(count.any() for count in counts.values())


def test_dense_simulation_refuses_relays():
    spec, weights, _ = case("residual-relay")
    with pytest.raises(UserError, match="has relays"):
        DenseSimulator(spec, weights)


def test_thresholds_bring_every_layer_to_its_activity():
    spec = tiny_spec()
    network = ReferenceSimulator(spec, random_weights(spec, 0))
    uneven = dict.fromkeys(LAYERS, 0.03) | {"input": 0.4}
    for wanted in (targets(spec, 0.1, {}), targets(spec, "0.3", {}), uneven):
        image = random_image(spec, wanted["input"], 0)
        found = thresholds_for(network, image, wanted, 100)
        rates = network.run(RunInput(image, found, 100)).spikes_per_neuron()
        for name, rate in wanted.items():
            assert rates[name] / 100 == pytest.approx(rate, rel=0.1, abs=3 / 100 / spec[name].size), name


def test_calibrated_activities_are_those_of_the_table():
    table = activity_table(benchmark.TABLE)
    wanted = targets(vgg16(), "calibrated", table)
    assert list(wanted) == [population.name for population in vgg16().populations]
    assert 0 < wanted["conv5_3"] < wanted["input"] < 1
    with pytest.raises(UserError, match="lacks conv5_3 of vgg16-tiny"):
        targets(tiny_spec(), "calibrated", dict(table) | {"conv5_3": 0.0})


def test_calibrated_activities_are_those_under_the_papers_thresholds(tmp_path):
    columns = ["method", "unit", "percentile", "thresholds", "reset"]
    settings = [
        ("ann-norm", False, 100.0, "0a", "zero"),
        ("spike-norm", False, 99.9, "1b", "zero"),
        ("spike-norm", True, 100.0, "2c", "zero"),
        ("spike-norm", False, 100.0, "3d", "subtract"),
        ("spike-norm", False, 100.0, "3d", "zero"),
    ]
    table = pd.DataFrame(settings, columns=columns).assign(steps=500)
    table["spikes_per_neuron_conv1"] = [10.0, 20.0, 30.0, 40.0, 50.0]
    table.to_csv(tmp_path / "operations.csv", index=False)
    assert activity_table(tmp_path / "operations.csv") == {"conv1": 0.1}
    table[:4].to_csv(tmp_path / "operations.csv", index=False)
    reason = "is no table of operations with a row of method spike-norm, unit False, percentile 100, reset zero"
    with pytest.raises(UserError, match=reason):
        activity_table(tmp_path / "operations.csv")


def test_weights_are_normal_with_the_variance_of_their_fan_in():
    spec = vgg16(width=0.25)
    weights = random_weights(spec, 3)
    assert list(weights) == [projection.name for projection in spec.projections]
    for projection in spec.projections:
        weight = weights[projection.name]
        assert (weight.dtype, weight.shape) == (np.float32, spec.weight_shape(projection))
        deviation = math.sqrt(2 / (weight.size / len(weight)))
        assert weight.std() == pytest.approx(deviation, rel=0.1)
        assert abs(weight.mean()) < 6 * deviation / math.sqrt(weight.size)
    again, other = random_weights(spec, 3), random_weights(spec, -3)
    assert all(np.array_equal(weights[name], again[name]) for name in weights)
    assert not any(np.array_equal(weights[name], other[name]) for name in weights)


# Arithmetic


def test_speed_counts_the_operations_of_the_recording():
    checkpoint = tiny_checkpoint()
    spec = checkpoint.spec
    recording = ReferenceSimulator(spec, checkpoint.weights).run(RunInput(x(), dict.fromkeys(LAYERS, 2.0), STEPS))
    counts = {p.name: recording.spike_counts(p.name)[0] for p in spec.populations}
    row = speed(spec, counts, STEPS, [6.0, 1.2, 2.4])
    operations = sum(int(recording.synaptic_operations(p).sum()) for p in spec.projections)
    assert row["sops_per_step"] == operations / STEPS
    assert row["spikes"] == sum(recording.spike_counts(name).sum() for name in LAYERS)
    assert row["spikes_per_neuron_step"] == pytest.approx(row["spikes"] / STEPS / spec.neurons())
    times = [row[f"seconds_per_step{end}"] for end in ("", "_min", "_max")]
    assert times == pytest.approx([0.02, 0.01, 0.05])
    assert row["gsops_per_second"] == pytest.approx(operations / 2.4 / 1e9)


def test_layer_time_is_that_of_projections_and_threshold():
    spec = tiny_spec()
    profiled = {"input_on_to_conv1_1": 1.0, "input_off_to_conv1_1": 2.0, "conv1_1_step": 4.0}
    for pre, post in pairwise(LAYERS):
        profiled |= {f"{pre}_to_{post}": 8.0, f"{post}_step": 1.0}
    profiled["presentation_end"] = 100.0
    assert layer_seconds(spec, profiled, 10) == pytest.approx(dict.fromkeys(LAYERS, 0.9) | {"conv1_1": 0.7})


def test_ratios_are_relative_to_shared_at_the_same_activity():
    columns = [
        "network", "activity", "simulator", "gsops_per_second", "peak_memory_mb", "bytes_per_synapse", "spikes",
    ]  # fmt: skip
    rows = [
        ("a", "0.1", "shared", 8.0, 10.0, 0.5, 1000),
        ("a", "0.1", "explicit", 0.5, 40.0, 32.0, 1010),
        ("a", "0.3", "shared", 10.0, 10.0, 0.5, 0),
        ("a", "0.3", "torch-1", 20.0, np.nan, np.nan, 0),
    ]
    found = ratios(pd.DataFrame(rows, columns=columns))
    assert list(found["simulator"]) == ["explicit", "torch-1"]
    assert list(found["time_ratio"]) == [16, 0.5]
    assert list(found.iloc[0])[4:] == pytest.approx([4, 64, 0.01])
    assert found.iloc[1, 4:].isna().all()


@pytest.mark.parametrize(
    ("seconds", "constant", "expected"),
    [
        ([1, 2, 6], 1.5, 0.05),  # 0.02, 0.08, 0.28
        ([1, 2, 6], 4, 0.18),
        ([1, 2, 6], 8, 0.38),  # beyond the last point
        ([1, 2, 6], 1000, math.inf),
        ([1, 2, 6], 0.5, 0),  # would be negative
        ([2, 1, 6], 4, 0.18),  # times never fall: noise
        ([3, 3, 3], 4, math.inf),
        ([3, 3, 3], 2, 0),
    ],
)
def test_crossing(seconds, constant, expected):
    assert crossing([0.02, 0.08, 0.28], seconds, constant) == pytest.approx(expected)
    assert crossing([0.28, 0.02, 0.08], [seconds[2], seconds[0], seconds[1]], constant) == pytest.approx(expected)


def test_crossing_needs_two_activities():
    with pytest.raises(ValueError, match="two different activities"):
        crossing([0.1, 0.1], [1, 2], 1)


def test_growth_fit_finds_the_coefficients():
    sops, neurons = np.array([1e6, 3e7, 1e8, 2e9, 5e6]), np.array([3e5, 2e5, 3e6, 1e7, 1e6])
    exact = 1e-10 * sops + 5e-10 * neurons + 2e-5
    fit = growth_fit(pd.DataFrame({"sops_per_step": sops, "neurons": neurons, "seconds_per_step": exact}))
    assert [fit[name] for name in "abc"] == pytest.approx([1e-10, 5e-10, 2e-5])
    assert fit["r2"] == pytest.approx(1)
    assert fit["largest_relative_residual"] < 1e-9
    noisy = exact * [1.1, 0.9, 1.1, 0.9, 1]
    fit = growth_fit(pd.DataFrame({"sops_per_step": sops, "neurons": neurons, "seconds_per_step": noisy}))
    terms = fit["a"] * sops + fit["b"] * neurons + fit["c"]
    assert fit["largest_relative_residual"] == pytest.approx(np.abs(1 - terms / noisy).max())
    assert fit["r2"] == pytest.approx(1 - ((noisy - terms) ** 2).sum() / ((noisy - noisy.mean()) ** 2).sum())
    with pytest.raises(ValueError, match="three or more rows"):
        growth_fit(pd.DataFrame({"sops_per_step": sops[:2], "neurons": neurons[:2], "seconds_per_step": exact[:2]}))
