"""evaluate.py: the tables against other computation, and what survives shards, failures and kills."""

import json
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import WRONG_RUNS, files, save_images, started, tiny_checkpoint
from evaluations import ERRORS, OPERATIONS, STEPS, TABLES, note_attempts, shard_files, tables, wait_for

from netspec.ann import ann_predictions
from netspec.checkpoint import load_checkpoint, save_checkpoint
from netspec.conversion import Conversion
from netspec.data import samples
from netspec.thresholds import Thresholds, find_thresholds, load_thresholds
from netspec.training_images import split
from sims.brian.runtime import open_simulator
from sims.evaluation import cluster
from sims.evaluation.error_tables import KEYS
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

REPORTED = [10, 20, 30, 50, 60]


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """The shards that are computed from now on, as (first image, seed), sorted."""
    return note_attempts(monkeypatch, tmp_path / "computed.txt")


def recordings(tiny: Path, seeds: range, reset: str = "zero"):
    """The same runs by the torch reference."""
    checkpoint = load_checkpoint(tiny)
    thresholds = load_thresholds(find_thresholds(tiny, "spike-norm"), checkpoint)
    x = checkpoint.encode(samples().images)
    network = ReferenceSimulator(checkpoint.spec, checkpoint.weights, reset)
    return [network.run(RunInput(x, thresholds.values, STEPS, seed)) for seed in seeds]


# Numbers


def test_errors_are_those_of_the_recordings(whole, tiny):
    out, ended = whole
    assert ended.status == 0
    table, images, checkpoint = pd.read_csv(out / ERRORS), samples(), load_checkpoint(tiny)
    ann = ann_predictions(checkpoint, images.images)
    assert list(table["steps"]) == REPORTED
    for row in table.itertuples():
        predictions = [recording.predictions(row.steps) for recording in recordings(tiny, range(2))]
        errors = [100 * np.mean(predicted != images.labels) for predicted in predictions]
        assert row.snn_error == pytest.approx(sum(errors) / 2)
        assert row.snn_error_sd == pytest.approx(abs(errors[0] - errors[1]) / 2**0.5, abs=1e-4)
        assert row.ann_error == pytest.approx(100 * np.mean(ann != images.labels))
        assert row.increment == pytest.approx(row.snn_error - row.ann_error)
        assert row.agreement == pytest.approx(100 * np.mean([predicted == ann for predicted in predictions]))
        assert (row.network, row.reset, row.images, row.seed) == ("vgg16-tiny", "zero", 20, "0 1")
        assert (row.method, row.unit, row.percentile) == ("spike-norm", False, 100)
        assert re.fullmatch("[0-9a-f]{8}", row.thresholds)
        assert row.checkpoint == checkpoint.digest[:8]
        assert row.data == f"CIFAR-10 test images 0 to 19 {images.digest[:8]}"
    assert table["snn_error_sd"].max() > 0  # the seeds differ
    assert table["snn_error"].nunique() > 2  # and the steps
    assert table.astype(str).to_numpy()[-1][-1] in ended.out
    assert f"written: {out / ERRORS} {out / OPERATIONS}\n" in ended.out


def test_operations_are_those_of_the_recordings(whole, tiny):
    (row,) = pd.read_csv(whole[0] / OPERATIONS).to_dict("records")
    spec = load_checkpoint(tiny).spec
    runs = recordings(tiny, range(2))
    by_input, *driven = spec.projections
    ac = np.mean([sum(recording.synaptic_operations(p) for p in driven) for recording in runs])
    macs = sum(spec.macs(p) for p in driven)
    assert row["ac_per_image"] == pytest.approx(ac)
    assert row["ac_input_per_image"] == pytest.approx(np.mean([r.synaptic_operations(by_input) for r in runs]))
    assert (row["mac_per_image"], row["ac_mac_ratio"]) == (macs, pytest.approx(ac / macs, abs=1e-6))
    for name in ("input", "conv1_1", "conv3_3", "conv5_3", "output"):
        spikes = np.mean([recording.spike_counts(name).mean() for recording in runs])
        assert row[f"spikes_per_neuron_{name}"] == pytest.approx(spikes, abs=1e-6)
    assert (row["network"], row["images"], row["reset"], row["steps"]) == ("vgg16-tiny", 20, "zero", STEPS)
    errors = pd.read_csv(whole[0] / ERRORS).iloc[0]
    assert [row[name] for name in KEYS] == [errors[name] for name in KEYS]


def test_torch_evaluates_as_well_and_tables_tell_it(run_evaluate, tiny, tmp_path):
    arguments = ["--images", 6, "--shard", 3]
    for runtime in ("torch", "numpy"):
        assert run_evaluate(tmp_path / "out", *arguments, "--runtime", runtime).status == 0
    table = pd.read_csv(tmp_path / "out" / ERRORS)
    last = table[table["steps"] == STEPS]
    assert list(last["runtime"]) == ["torch", "brian2"]
    expected = recordings(tiny, range(1))[0].predictions()[:6]
    assert last["snn_error"].iloc[0] == pytest.approx(100 * np.mean(expected != samples().labels[:6]))
    assert len(shard_files(tmp_path / "out")) == 4


def test_held_out_images_take_the_place_of_test_images(run_evaluate, tiny, tmp_path):
    info = {"recipe": {"validation": 5, "seed": 1}, "trained_on": samples().source}
    save_checkpoint(replace(load_checkpoint(tiny), info=info), tmp_path / "tiny.safetensors")
    held_out = samples().subset(split(20, 5, 1)[1])
    np.savez(tmp_path / "held-out.npz", images=held_out.images, labels=held_out.labels)
    arguments = ["--checkpoint", tmp_path / "tiny.safetensors", "--thresholds", find_thresholds(tiny, "spike-norm")]
    for choice in (["--held-out"], ["--data", tmp_path / "held-out.npz"]):
        assert run_evaluate(tmp_path / "out", *arguments, *choice).status == 0
    asked, same = (pd.read_csv(tmp_path / "out" / name) for name in ("tiny-errors-held-out.csv", ERRORS))
    pd.testing.assert_frame_equal(asked.drop(columns="data"), same.drop(columns="data"))
    assert set(asked["images"]) == {5}
    assert set(asked["data"]) == {f"held out of {samples().source} {held_out.digest[:8]}"}
    assert (tmp_path / "out" / "tiny-operations-held-out.csv").is_file()


def test_all_choices_have_their_rows(run_evaluate, tiny, tmp_path):
    balanced = json.loads(find_thresholds(tiny, "spike-norm").read_text())
    balanced["values"]["conv3_3"] /= 2
    del balanced["digest"]  # changed on purpose
    (tmp_path / "other.json").write_text(json.dumps(balanced))
    out = tmp_path / "out"
    arguments = ["--images", 6, "--resets", "zero", "subtract", "zero", "--shard", 4]
    ended = run_evaluate(out, *arguments, "--thresholds", "spike-norm", "ann-norm", tmp_path / "other.json")
    assert ended.status == 0
    table = pd.read_csv(out / ERRORS)
    last = table[table["steps"] == STEPS]
    assert list(last["method"]) == 2 * ["spike-norm"] + 2 * ["ann-norm"] + 2 * ["spike-norm"]
    assert set(last["percentile"]) == {100}
    assert last["thresholds"].nunique() == 3
    assert list(last["reset"]) == 3 * ["zero", "subtract"]
    assert set(table["images"]) == {6} and set(table["seed"]) == {0}
    operations = pd.read_csv(out / OPERATIONS)
    assert operations["ac_per_image"].nunique() == 6
    expected = recordings(tiny, range(1), "subtract")[0].predictions()[:6]
    subtract = last[last["reset"] == "subtract"].iloc[0]
    assert subtract["snn_error"] == pytest.approx(100 * np.mean(expected != samples().labels[:6]), abs=1e-4)


# Shards


@pytest.mark.parametrize(("shard", "seeds"), [(1, 10), (7, 3), (100, 1)])
def test_shards_of_any_size_give_the_same_tables(shard, seeds, whole, run_evaluate, tmp_path):
    assert run_evaluate(tmp_path, "--seeds", 2, "--shard", shard).status == 0
    assert tables(tmp_path) == tables(whole[0])
    assert len(shard_files(tmp_path)) == 2 * -(-20 // shard)


def test_finished_shards_are_not_computed_again(whole, run_evaluate, tmp_path, computed):
    arguments = ("--seeds", 2, "--shard", 5)
    run_evaluate(tmp_path / "out", *arguments)
    assert computed() == [(start, seed) for start in (0, 5, 10, 15) for seed in (0, 1)]
    before, known = {file: file.stat().st_mtime_ns for file in shard_files(tmp_path / "out")}, computed()
    lost = [file for file in before if file.name == "images-000005-000010.parquet"]
    broken = next(file for file in before if file.name == "images-000015-000020.parquet")
    emptied = next(file for file in before if file.name == "images-000010-000015.parquet")
    for file in lost:
        file.unlink()
    broken.write_bytes(broken.read_bytes()[:-100])
    emptied.write_bytes(b"")
    for table in TABLES:
        (tmp_path / "out" / table).unlink()
    assert run_evaluate(tmp_path / "out", *arguments).status == 0
    again = list(computed())
    for shard in known:
        again.remove(shard)
    assert [start for start, _ in again] == [5, 5, 10, 15]
    assert tables(tmp_path / "out") == tables(whole[0])
    untouched = set(before) - {*lost, broken, emptied}
    assert len(untouched) == 4
    assert all(file.stat().st_mtime_ns == before[file] for file in untouched)


def test_finished_evaluation_is_only_read(whole, run_evaluate, tmp_path, computed, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a cluster is not needed")

    monkeypatch.setattr("sims.evaluate.compute", refuse)
    before = tables(whole[0])
    ended = run_evaluate(whole[0], "--seeds", 2, "--shard", 20)
    assert (ended.status, ended.out, ended.err) == (0, whole[1].out, "")
    assert tables(whole[0]) == before


def test_other_evaluations_of_the_network_stay_in_the_tables(run_evaluate, tiny, tmp_path):
    out = tmp_path / "out"

    def evaluations() -> list[tuple]:
        errors, operations = pd.read_csv(out / ERRORS), pd.read_csv(out / OPERATIONS)
        assert not errors.duplicated([*KEYS, "steps"]).any()
        found = list(operations[["images", "reset", "steps"]].itertuples(index=False, name=None))
        last, longest = (table.groupby(KEYS)["steps"].max() for table in (errors, operations))
        pd.testing.assert_series_equal(last, longest)
        assert set(operations["steps"]) <= set(errors["steps"])
        return found

    run_evaluate(out, "--images", 4)
    first = tables(out)
    run_evaluate(out, "--images", 2)
    assert evaluations() == [(4, "zero", STEPS), (2, "zero", STEPS)]
    run_evaluate(out, "--images", 2, "--reset", "subtract")
    assert evaluations() == [(4, "zero", STEPS), (2, "zero", STEPS), (2, "subtract", STEPS)]
    run_evaluate(out, "--images", 4, "--steps", 30)  # the same setting for fewer steps
    both = [(4, "zero", 30), (4, "zero", STEPS)]
    assert evaluations() == [*both, (2, "zero", STEPS), (2, "subtract", STEPS)]
    run_evaluate(out, "--images", 4)  # and the same again
    assert evaluations() == [*both, (2, "zero", STEPS), (2, "subtract", STEPS)]
    for name in TABLES:  # another network of that name
        (out / name).write_text((out / name).read_text().replace(load_checkpoint(tiny).digest[:8], "00000000"))
    others = {name: pd.read_csv(out / name, dtype=str) for name in TABLES}
    run_evaluate(out, "--images", 4)
    for name, text in first.items():
        rows = pd.read_csv(out / name, dtype=str)
        mine = rows["checkpoint"] != "00000000"
        assert rows[mine].to_csv(index=False) == text.decode()
        pd.testing.assert_frame_equal(rows[~mine], others[name])


@pytest.mark.parametrize("content", ["", "no,table\n1,2\n", "checkpoint,data\n1,2\n", f"{','.join(KEYS)},seeds\n"])
def test_what_is_no_table_is_not_overwritten(content, run_evaluate, tmp_path):
    (tmp_path / ERRORS).write_text(content)
    ended = run_evaluate(tmp_path, "--images", 1)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith(f"evaluate.py: error: {tmp_path / ERRORS} is no table of this command")
    assert (tmp_path / ERRORS).read_text() == content


def test_more_seeds_add_to_what_is_there(run_evaluate, tmp_path, computed):
    run_evaluate(tmp_path / "out", "--images", 4, "--seed", 3)
    assert run_evaluate(tmp_path / "out", "--images", 4, "--seed", 2, "--seeds", 3).status == 0
    assert computed() == [(0, 2), (0, 3), (0, 4)]
    for table in TABLES:
        assert set(pd.read_csv(tmp_path / "out" / table)["seed"]) == {"2 3 4"}


@pytest.mark.parametrize(
    "change", [("--steps", 50), ("--seed", 9), ("--reset", "subtract"), ("--thresholds", "ann-norm")]
)
def test_other_settings_do_not_share_shards(change, run_evaluate, tmp_path, computed):
    for arguments in ((), change):
        assert run_evaluate(tmp_path / "out", "--images", 2, *arguments).status == 0
    assert len(computed()) == len(shard_files(tmp_path / "out")) == 2


def test_images_that_have_changed_are_computed_anew(run_evaluate, tmp_path, computed):
    rows = []
    for shift in (0, 10):
        names = ("cat/0.png", "cat/1.png", "cat/2.png")
        folder = save_images(tmp_path / "images", *names, images=samples().images[shift:])
        assert run_evaluate(tmp_path / "out", "--data", folder).status == 0
        rows.append(pd.read_csv(tmp_path / "out" / OPERATIONS).iloc[-1])
    assert computed() == [(0, 0), (0, 0)]
    assert rows[0]["ac_per_image"] != rows[1]["ac_per_image"]


@pytest.mark.parametrize("metadata", [{"case": '{"steps": 7}'}, {}])
def test_shard_of_other_settings_is_refused(metadata, run_evaluate, tmp_path):
    out, arguments = tmp_path / "out", ("--images", 4, "--shard", 2)
    run_evaluate(out, *arguments)
    first = tables(out)
    file = shard_files(out)[1]
    pq.write_table(pq.read_table(file).replace_schema_metadata(metadata), file)
    ended = run_evaluate(out, *arguments)
    ended.assert_refused("evaluate.py", f"{file} was made under other settings")
    assert tables(out) == first
    file.unlink()
    assert run_evaluate(out, *arguments).status == 0


# Failures


def test_whole_cases_have_their_rows_although_others_failed(run_evaluate, tmp_path, monkeypatch):
    note_attempts(monkeypatch, tmp_path / "tries.txt", lambda shard, _: shard.case.seed == 1)
    ended = run_evaluate(tmp_path, "--seeds", 3, "--images", 4)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].endswith("1 of 3 shards failed; run the same command again to retry them")
    assert set(pd.read_csv(tmp_path / ERRORS)["seed"]) == {"0 2"}


WRONG = WRONG_RUNS | {
    "--seeds 0": "--seeds must be at least 1, got 0",
    "--held-out": "does not tell which images its training held out",
    "--shard 0": "--shard must be at least 1, got 0",
    "--workers 0": "--workers must be at least 1, got 0",
    "--thresholds spike-norm none.json": "cannot read the thresholds none.json: No such file",
    "--scheduler tcp://127.0.0.1:1": "no Dask scheduler answers at tcp://127.0.0.1:1",
    "--scheduler carrier-pigeon": "no Dask scheduler answers at carrier-pigeon",
    "--scheduler carrier-pigeon --workers 2": "--workers are processes of this machine, and --scheduler has workers",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_options_are_told_in_one_line(arguments, run_evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    run_evaluate(tmp_path / "out", *arguments.split()).assert_refused("evaluate.py", WRONG[arguments])
    assert files(tmp_path) == {}


def test_images_without_classes_are_refused(run_evaluate, tiny, tmp_path):
    ended = run_evaluate(tmp_path / "out", "--data", save_images(tmp_path / "images", "a.png"))
    ended.assert_refused("evaluate.py", "are not known; put them into one folder a class")
    assert files(tmp_path / "out") == {}
    network = replace(tiny_checkpoint(), classes=tuple(map(str, range(10))))
    save_checkpoint(network, tmp_path / "unnamed.safetensors")
    thresholds = load_thresholds(find_thresholds(tiny, "spike-norm"), tiny_checkpoint())
    Conversion.of(replace(thresholds, checkpoint=network.digest)).save(tmp_path / "own.safetensors")
    own = ("--checkpoint", tmp_path / "unnamed.safetensors", "--conversion", tmp_path / "own.safetensors")
    ended = run_evaluate(tmp_path / "out", *own)
    reason = "classes of CIFAR-10 test images 0 to 19 (airplane, automobile, cat, ...) are none of the network's (0, "
    ended.assert_refused("evaluate.py", reason)


def test_models_are_those_of_the_command_and_not_of_a_conversion(run_evaluate, tiny, tmp_path):
    network = load_checkpoint(tiny)
    thresholds = load_thresholds(find_thresholds(tiny, "spike-norm"), network)
    lif = {"conv1_1": {"name": "lif", "parameters": {"decay": 0.5}}}
    replace(Conversion.of(thresholds), models=lif).save(tmp_path / "lif.safetensors")
    found = {}
    for conversion, model in ((tmp_path / "lif.safetensors", "if"), ("spike-norm", "if"), ("spike-norm", "leaky")):
        out = tmp_path / f"{len(found)}"
        assert run_evaluate(out, "--runtime", "torch", "--conversion", conversion, "--model", model).status == 0
        found[conversion, model] = pd.read_csv(out / ERRORS)["snn_error"].tolist()
    own, usual, leaky = found.values()
    assert own == usual != leaky


def test_what_torch_does_not_know_is_refused_once(run_evaluate, tmp_path, computed):
    (tmp_path / "heavy.toml").write_text('update = "v *= 0.5"')
    ended = run_evaluate(tmp_path / "out", "--runtime", "torch", "--model", tmp_path / "heavy.toml")
    ended.assert_refused("evaluate.py", "torch knows the neuron models if, leaky")
    assert computed() == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("v += foo", 'neuron model mine: The identifier "foo" could not be resolved.'),
        ("v -= 0.001*t/ms", "neuron model mine uses t, which goes on from image to image"),
    ],
)
def test_text_that_cannot_be_evaluated_is_told_once(text, reason, run_evaluate, tmp_path, computed):
    (tmp_path / "mine.toml").write_text(f'update = "{text}"')
    ended = run_evaluate(tmp_path / "out", "--runtime", "numpy", "--model", tmp_path / "mine.toml")
    assert ended.status == 2 and ended.err.splitlines()[-1].startswith(f"evaluate.py: error: {reason}"), ended
    assert len(ended.err) < 2000 and len(computed()) < 2  # not once more, nor the other shards


def test_folder_that_cannot_be_written_is_told_before_the_work(run_evaluate, tmp_path, computed):
    (tmp_path / "file").touch()
    ended = run_evaluate(tmp_path / "file" / "out")
    ended.assert_refused("evaluate.py", "cannot write into the folder")
    assert computed() == []


# Processes


def command(tiny: Path, out: Path, steps: int) -> list[object]:
    fixed = ["--data", "cifar10-samples", "--shard", 1, "--workers", 2]
    return [*fixed, "--checkpoint", tiny, "--steps", steps, "--out", out]


def assert_gone(group: int, seconds: float = 20) -> None:
    """No process of the group is left."""
    end = time.monotonic() + seconds
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        assert time.monotonic() < end, "processes are left"
        time.sleep(0.1)


MOMENTS = {  # of being killed, by what is there then
    "compiling": lambda out, cache: list(cache.glob("binaries/.*/entry/**/*.o")),
    "simulating": lambda out, cache: list(cache.glob("runs/*/input.txt")),
    "going on": lambda out, cache: len(shard_files(out)) >= 3,
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_evaluation_goes_on_and_gives_the_same_tables(moment, tiny, run_evaluate, tmp_path, own_cache):
    """kill -9 of everything in the middle, then the same command again."""
    steps, out = 2500, tmp_path / "out"
    if moment != "compiling":
        open_simulator(load_checkpoint(tiny).spec, load_checkpoint(tiny).weights, quiet=True)
    with started("evaluate.py", *command(tiny, out, steps)) as process:
        wait_for(lambda: MOMENTS[moment](out, own_cache), process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for file in shard_files(out)}
    assert (3 if moment == "going on" else 0) <= len(kept) < 20
    assert not (out / ERRORS).exists()
    with started("evaluate.py", *command(tiny, out, steps)) as process:
        process.communicate(timeout=300)
    assert process.returncode == 0
    assert len(shard_files(out)) == 20
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in kept.items())
    left = [*out.rglob("*.part"), *own_cache.glob("binaries/.*"), *own_cache.glob("runs/*")]
    assert left == []
    assert run_evaluate(tmp_path / "calm", "--steps", steps, "--shard", 20).status == 0
    assert tables(out) == tables(tmp_path / "calm")


def test_ctrl_c_ends_all_processes_with_one_line(tiny, tmp_path):
    out = tmp_path / "out"
    with started("evaluate.py", *command(tiny, out, 8000)) as process:
        wait_for(lambda: shard_files(out), process)
        os.killpg(process.pid, signal.SIGINT)  # as the terminal does
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    lines = [line for line in err.splitlines() if line and "%|" not in line]
    assert lines == ["evaluate.py: error: interrupted; what was finished is kept"]
    assert 1 <= len(shard_files(out)) < 20
    assert_gone(process.pid)


def test_thresholds_can_come_from_anywhere(run_evaluate, tiny, tmp_path):
    """From a file, too, whose percentile is in the table."""
    checkpoint = load_checkpoint(tiny)
    thresholds = load_thresholds(find_thresholds(tiny, "spike-norm"), checkpoint)
    path = tmp_path / "mine.json"
    Thresholds(thresholds.values, "spike-norm", checkpoint.digest, 99.5, 1, "", 0).save(path)
    assert run_evaluate(tmp_path / "out", "--thresholds", path, "--images", 1).status == 0
    table = pd.read_csv(tmp_path / "out" / ERRORS)
    assert (set(table["method"]), set(table["percentile"])) == ({"spike-norm"}, {99.5})


def test_another_runtime_gives_the_same_tables(run_evaluate, tmp_path, monkeypatch):
    run_evaluate(tmp_path / "compiled", "--images", 2)
    monkeypatch.delattr("sims.brian.standalone.StandaloneSimulator.run")
    assert run_evaluate(tmp_path / "numpy", "--images", 2, "--runtime", "numpy").status == 0
    assert tables(tmp_path / "compiled") == tables(tmp_path / "numpy")
