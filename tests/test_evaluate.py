"""evaluate.py: the tables against hand computation, and what survives shards, failures, kills and other machines."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from commands import ROOT, files, run, started, tiny_checkpoint
from dask.distributed import Client, LocalCluster
from networks import residual
from PIL import Image

from netspec.checkpoint import load_checkpoint
from netspec.data import samples
from sims import evaluate
from sims.classify import ann_predictions
from sims.evaluate import until_interrupted
from sims.evaluation import SETTING, Case, Shard, operations_table, run_shard, summary_table, with_earlier
from sims.reference import ReferenceSimulator
from sims.runtime import RunInput
from sims.thresholds import Thresholds, find_thresholds, load_thresholds

STEPS = 60
REPORTED = [10, 20, 50, 60]
IN_PROCESS = {"processes": False, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
ERRORS, OPERATIONS = TABLES = ("tiny-errors.csv", "tiny-operations.csv")


@pytest.fixture(scope="module")
def scheduler(caches):
    """Address of a cluster of threads in this process: nothing has to be started for every run."""
    with LocalCluster(n_workers=1, threads_per_worker=2, **IN_PROCESS) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def run_evaluate(tiny, scheduler):
    """Runs the command on the sample images."""

    def run_it(out, *arguments):
        fixed = ("--checkpoint", tiny, "--data", "cifar10-samples", "--steps", STEPS, "--scheduler", scheduler)
        return run("evaluate.py", evaluate.main, *fixed, "--out", out, *arguments)

    return run_it


@pytest.fixture(scope="module")
def whole(tiny, scheduler, tmp_path_factory):
    """The folder of an evaluation of all images, one shard a seed; and what was said."""
    out = tmp_path_factory.mktemp("whole") / "new" / "folder"
    arguments = ("--checkpoint", tiny, "--data", "cifar10-samples", "--steps", STEPS, "--scheduler", scheduler)
    return out, run("evaluate.py", evaluate.main, *arguments, "--out", out, "--seeds", 2, "--shard", 20)


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """The shards that are computed from now on, as (first image, seed), sorted."""
    notes = tmp_path / "computed.txt"
    notes.touch()
    original = evaluate.run_shard

    def noted(network, thresholds, shard, images):
        with open(notes, "a") as file:
            file.write(f"{shard.start} {shard.case.seed}\n")
        return original(network, thresholds, shard, images)

    monkeypatch.setattr(evaluate, "run_shard", noted)
    return lambda: sorted(tuple(map(int, line.split())) for line in notes.read_text().splitlines())


def shard_files(out: Path) -> list[Path]:
    return sorted(out.glob("*/images-*.parquet"))


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


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
        assert re.fullmatch("spike-norm 100 [0-9a-f]{8}", row.thresholds)
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
    assert [row[name] for name in SETTING] == [errors[name] for name in SETTING]


def by_hand() -> tuple[list[tuple[Case, pd.DataFrame]], np.ndarray, np.ndarray]:
    """Four images, three seeds of one case and one of another; predictions after 10 and 15 steps."""
    labels, ann = np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0])
    predictions = {
        ("zero", 5): ([9, 9, 9, 9], [0, 1, 2, 3]),  # errors 100, 0 %
        ("zero", 6): ([0, 9, 9, 9], [0, 1, 9, 0]),  # 75, 50 %
        ("zero", 7): ([0, 1, 9, 9], [0, 1, 2, 0]),  # 50, 25 %
        ("subtract", 5): ([0, 1, 2, 3], [0, 1, 2, 0]),  # 0, 25 %
    }
    cases = []
    for (reset, seed), (early, late) in predictions.items():
        case = Case("digest", "spike-norm 99.9 12345678", "data", reset, seed, 15)
        columns = {"image": range(4), "snn_10": early, "snn_15": late, "ac": [seed * k for k in range(4)]}
        columns |= {"ac_input": [1, 2, 3, 4]}
        columns |= {f"spikes_{p.name}": [p.size] * 4 for p in tiny_checkpoint().spec.populations}
        cases.append((case, pd.DataFrame(columns)))
    return cases, labels, ann


def test_mean_deviation_and_increment_by_hand():
    cases, labels, ann = by_hand()
    table = summary_table(cases, tiny_checkpoint(), labels, ann).set_index(["reset", "steps"])
    expected = {  # images, ANN error, SNN error, its standard deviation, increment, agreement
        ("zero", 10): (4, 25.0, 75.0, 25.0, 50.0, 25.0),
        ("zero", 15): (4, 25.0, 25.0, 25.0, 0.0, 83.3333),
        ("subtract", 10): (4, 25.0, 0.0, np.nan, -25.0, 75.0),
        ("subtract", 15): (4, 25.0, 25.0, np.nan, 0.0, 100.0),
    }
    columns = ["images", "ann_error", "snn_error", "snn_error_sd", "increment", "agreement"]
    assert list(table.index) == list(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(table.loc[key, columns].to_numpy(float), values)
    assert set(table["thresholds"]) == {"spike-norm 99.9 12345678"}
    assert list(table["seed"]) == ["5 6 7", "5 6 7", "5", "5"]


def test_operations_by_hand():
    cases, _, _ = by_hand()
    table = operations_table(cases, tiny_checkpoint()).set_index("reset")
    spec = tiny_checkpoint().spec
    assert list(table["seed"]) == ["5 6 7", "5"]
    assert list(table["ac_per_image"]) == [1.5 * 6, 1.5 * 5]
    assert list(table["ac_input_per_image"]) == [2.5, 2.5]
    assert list(table["mac_per_image"]) == 2 * [sum(spec.macs(p) for p in spec.projections[1:])]
    assert all(table[f"spikes_per_neuron_{p.name}"].eq(1).all() for p in spec.populations)


def test_relays_count_in_neither_kind_of_operations():
    """Their graded values are no events; the ANN's operations behind them are none that spikes take the place of."""
    checkpoint = tiny_checkpoint(residual("relay"))
    case = Case(checkpoint.digest, "spike-norm 100 12345678", "here", "zero", 0, 10)
    x, shard = samples().images[:2, :8, :8], Shard(case, 0, 2)
    thresholds = {population.name: 1.0 for population in checkpoint.spec.spiking}
    (row,) = operations_table([(case, run_shard(checkpoint, thresholds, shard, x, "numpy"))], checkpoint).to_dict(
        "records"
    )
    spec = checkpoint.spec
    by_spikes = [p for p in spec.projections if p.pre in ("stem", "branch1", "branch2")]
    assert row["mac_per_image"] == sum(spec.macs(p) for p in by_spikes) > 0
    assert row["ac_per_image"] > 0


def test_steps_of_the_paper_are_reported():
    case = Case("digest", "thresholds", "data", "zero", 0, 2500)
    assert case.reported == (10, 20, 50, 100, 200, 500, 1000, 1500, 2000, 2500)
    assert replace(case, steps=100).reported == (10, 20, 50, 100)
    assert replace(case, steps=120).reported == (10, 20, 50, 100, 120)
    assert replace(case, steps=3).reported == (3,)


def test_thresholds_of_one_name_but_other_values_are_kept_apart():
    cases, labels, ann = by_hand()
    other = replace(cases[1][0], thresholds="spike-norm 99.9 87654321")
    mixed = [cases[0], (other, cases[1][1])]
    table = summary_table(mixed, tiny_checkpoint(), labels, ann)
    names = ["spike-norm 99.9 12345678", "spike-norm 99.9 87654321"]
    assert list(table["thresholds"]) == [names[0], names[0], names[1], names[1]]
    assert list(table["snn_error"]) == [100, 0, 75, 50]
    assert list(operations_table(mixed, tiny_checkpoint())["thresholds"]) == names


def test_all_choices_have_their_rows(run_evaluate, tiny, tmp_path):
    balanced = json.loads(find_thresholds(tiny, "spike-norm").read_text())
    balanced["values"]["conv3_3"] /= 2
    (tmp_path / "other.json").write_text(json.dumps(balanced))
    out = tmp_path / "out"
    arguments = ["--images", 6, "--resets", "zero", "subtract", "zero", "--shard", 4]
    ended = run_evaluate(out, *arguments, "--thresholds", "spike-norm", "ann-norm", tmp_path / "other.json")
    assert ended.status == 0
    table = pd.read_csv(out / ERRORS)
    last = table[table["steps"] == STEPS]
    kinds = list(last["thresholds"].str.split().str[:2].str.join(" "))
    assert kinds == 2 * ["spike-norm 100"] + 2 * ["ann-norm 100"] + 2 * ["spike-norm 100"]
    assert last["thresholds"].nunique() == 3
    assert list(last["reset"]) == 3 * ["zero", "subtract"]
    assert set(table["images"]) == {6} and set(table["seed"]) == {0}
    operations = pd.read_csv(out / OPERATIONS)
    assert operations["ac_per_image"].nunique() == 6
    expected = recordings(tiny, range(1), "subtract")[0].predictions()[:6]
    subtract = last[last["reset"] == "subtract"].iloc[0]
    assert subtract["snn_error"] == pytest.approx(100 * np.mean(expected != samples().labels[:6]), abs=1e-4)


def test_shard_is_the_same_wherever_it_is_cut(tiny):
    checkpoint, images = load_checkpoint(tiny), samples().images
    thresholds = dict(load_thresholds(find_thresholds(tiny, "spike-norm"), checkpoint).values)
    case = Case(checkpoint.digest, "t", "d", "zero", 3, 25)
    cut = [
        run_shard(checkpoint, thresholds, evaluate.Shard(case, start, stop), images[start:stop])
        for start, stop in ((0, 1), (1, 4), (4, 5))
    ]
    table = run_shard(checkpoint, thresholds, evaluate.Shard(case, 0, 5), images[:5])
    pd.testing.assert_frame_equal(pd.concat(cut, ignore_index=True), table)
    assert list(table)[:4] == ["image", "snn_10", "snn_20", "snn_25"]


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


def test_few_shards_are_handed_over_ahead_of_their_turn(whole, run_evaluate, tmp_path, monkeypatch):
    shards, kept, ahead = 20, [], []
    submit, write = Client.submit, evaluate.write_shard

    def submitted(self, *arguments, **options):
        ahead.append(len(ahead) + 1 - len(kept))
        return submit(self, *arguments, **options)

    def written(*arguments):
        kept.append(arguments)
        write(*arguments)

    monkeypatch.setattr(Client, "submit", submitted)
    monkeypatch.setattr(evaluate, "write_shard", written)
    monkeypatch.setattr(evaluate, "AHEAD", 2)
    assert run_evaluate(tmp_path, "--shard", 1).status == 0
    assert (len(ahead), len(kept)) == (shards, shards)
    assert max(ahead) <= 2 * 2  # for two threads


def test_lost_scheduler_is_told_and_finished_shards_are_kept(whole, run_evaluate, tmp_path, monkeypatch, computed):
    cores, asked = Client.ncores, []

    def lost(self):
        asked.append(self)
        if len(asked) > 3:
            raise OSError("timed out")
        return cores(self)

    with monkeypatch.context() as patch:
        patch.setattr(Client, "ncores", lost)
        ended = run_evaluate(tmp_path, "--seeds", 2, "--shard", 5)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].startswith("evaluate.py: error: the Dask scheduler is gone (timed out)")
    assert len(shard_files(tmp_path)) == 3  # asked first before any was finished, then behind each
    assert run_evaluate(tmp_path, "--seeds", 2, "--shard", 5).status == 0
    for table in TABLES:
        assert (tmp_path / table).read_bytes() == (whole[0] / table).read_bytes()


def test_finished_evaluation_is_only_read(whole, run_evaluate, tmp_path, computed, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a cluster is not needed")

    monkeypatch.setattr(evaluate, "compute", refuse)
    before = tables(whole[0])
    ended = run_evaluate(whole[0], "--seeds", 2, "--shard", 20)
    assert (ended.status, ended.out, ended.err) == (0, whole[1].out, "")
    assert tables(whole[0]) == before


def test_other_evaluations_of_the_network_stay_in_the_tables(run_evaluate, tiny, tmp_path):
    out = tmp_path / "out"

    def evaluations() -> list[tuple]:
        errors, operations = pd.read_csv(out / ERRORS), pd.read_csv(out / OPERATIONS)
        assert not errors.duplicated([*SETTING, "steps"]).any()
        found = list(operations[["images", "reset", "steps"]].itertuples(index=False, name=None))
        last = errors.groupby(SETTING, sort=False)["steps"].max().reset_index()
        assert list(last[["images", "reset", "steps"]].itertuples(index=False, name=None)) == found
        return found

    run_evaluate(out, "--images", 4)
    first = tables(out)
    run_evaluate(out, "--images", 2)
    assert evaluations() == [(4, "zero", STEPS), (2, "zero", STEPS)]
    run_evaluate(out, "--images", 2, "--reset", "subtract")
    assert evaluations() == [(4, "zero", STEPS), (2, "zero", STEPS), (2, "subtract", STEPS)]
    run_evaluate(out, "--images", 4, "--steps", 30)  # the same setting again
    assert evaluations() == [(2, "zero", STEPS), (2, "subtract", STEPS), (4, "zero", 30)]
    for name in TABLES:  # another network of that name
        (out / name).write_text((out / name).read_text().replace(load_checkpoint(tiny).digest[:8], "00000000"))
    run_evaluate(out, "--images", 4)
    assert tables(out) == first


@pytest.mark.parametrize("content", ["", "no,table\n1,2\n", "checkpoint,data\n1,2\n", f"{','.join(SETTING)},seeds\n"])
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


def test_rows_make_way_only_for_those_of_the_same_seeds(tmp_path):
    def rows(*given: tuple[str, str]) -> pd.DataFrame:
        return pd.DataFrame([dict.fromkeys(SETTING, "x") | {"reset": reset, "seed": seeds} for reset, seeds in given])

    rows(("zero", "3"), ("subtract", "3"), ("zero", "4 5")).to_csv(tmp_path / "table.csv", index=False)
    table = with_earlier(rows(("zero", "2 3 4")), tmp_path / "table.csv")
    assert list(zip(table["reset"], table["seed"], strict=True)) == [
        ("subtract", "3"), ("zero", "4 5"), ("zero", "2 3 4"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change", [("--steps", 50), ("--seed", 9), ("--reset", "subtract"), ("--thresholds", "ann-norm")]
)
def test_other_settings_do_not_share_shards(change, run_evaluate, tmp_path, computed):
    for arguments in ((), change):
        assert run_evaluate(tmp_path / "out", "--images", 2, *arguments).status == 0
    assert len(computed()) == len(shard_files(tmp_path / "out")) == 2


def test_images_that_have_changed_are_computed_anew(run_evaluate, tmp_path, computed):
    folder = tmp_path / "images" / "cat"
    folder.mkdir(parents=True)
    rows = []
    for shift in (0, 10):
        for k, pixels in enumerate(samples().images[shift : shift + 3]):
            Image.fromarray(pixels).save(folder / f"{k}.png")
        assert run_evaluate(tmp_path / "out", "--data", folder.parent).status == 0
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


def failing(original, notes: Path, start: int, times: int):
    """run_shard that fails on the shard beginning at an image, so many times."""

    def run_shard(network, thresholds, shard, images):
        if shard.start == start:
            with open(notes, "a") as file:
                file.write(".")
            if len(notes.read_text()) <= times:
                raise RuntimeError("a cosmic ray")
        return original(network, thresholds, shard, images)

    return run_shard


def test_failing_shard_is_retried_then_told_and_the_others_finish(whole, run_evaluate, tmp_path, monkeypatch):
    notes, out, arguments = tmp_path / "tries.txt", tmp_path / "out", ("--seeds", 2, "--shard", 5)
    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "run_shard", failing(run_shard, notes, start=10, times=1000))
        ended = run_evaluate(out, *arguments)
    assert ended.status == 2
    assert len(notes.read_text()) == 2 * 3
    lines = [line for line in ended.err.splitlines() if "%|" not in line]
    assert lines.count("failed 3 times: images 10 to 14: a cosmic ray") == 2
    assert lines[-1] == "evaluate.py: error: 2 of 8 shards failed; run the same command again to retry them"
    assert "Traceback" not in ended.err
    assert len(shard_files(out)) == 6
    assert not (out / ERRORS).exists()  # no case is whole
    assert run_evaluate(out, *arguments).status == 0
    assert tables(out) == tables(whole[0])


def test_whole_cases_have_their_rows_although_others_failed(run_evaluate, tmp_path, monkeypatch):
    def fail_under_seed_1(network, thresholds, shard, images):
        if shard.case.seed == 1:
            raise RuntimeError("a cosmic ray")
        return run_shard(network, thresholds, shard, images)

    monkeypatch.setattr(evaluate, "run_shard", fail_under_seed_1)
    ended = run_evaluate(tmp_path, "--seeds", 3, "--images", 4)
    assert ended.status == 2
    assert ended.err.splitlines()[-1].endswith("1 of 3 shards failed; run the same command again to retry them")
    assert set(pd.read_csv(tmp_path / ERRORS)["seed"]) == {"0 2"}


def test_shard_that_fails_twice_is_no_failure(whole, run_evaluate, tmp_path, monkeypatch):
    notes = tmp_path / "tries.txt"
    monkeypatch.setattr(evaluate, "run_shard", failing(run_shard, notes, start=0, times=2))
    ended = run_evaluate(tmp_path / "out", "--seeds", 1, "--shard", 10)
    assert ended.status == 0
    assert len(notes.read_text()) == 3
    assert len(shard_files(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--images", 0], "the number of images must be at least 1, got 0"),
        (["--images", 21], "21 images were asked for, but CIFAR-10 test images 0 to 19 has 20"),
        (["--steps", 0], "the number of steps must be from 1 to 65535, got 0"),
        (["--steps", -5], "the number of steps must be from 1 to 65535, got -5"),
        (["--steps", 65_536], "the number of steps must be from 1 to 65535, got 65536"),
        (["--seeds", 0], "--seeds, --shard and --workers must be at least 1"),
        (["--shard", 0], "--seeds, --shard and --workers must be at least 1"),
        (["--workers", 0], "--seeds, --shard and --workers must be at least 1"),
        (["--checkpoint", "vgg99"], "there is no checkpoint file vgg99"),
        (["--thresholds", "spike-norm", "none.json"], "cannot read the thresholds none.json: No such file"),
        (["--data", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers at tcp://127.0.0.1:1"),
        (["--scheduler", "carrier pigeon"], "no Dask scheduler answers at carrier pigeon"),
    ],
)
def test_wrong_options_are_told_in_one_line(arguments, reason, run_evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "PATIENCE", 0.5)
    ended = run_evaluate(tmp_path / "out", *arguments)
    ended.assert_refused("evaluate.py", reason)
    assert files(tmp_path) == {}


def test_scheduler_without_workers_is_told(run_evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "PATIENCE", 0.5)
    with LocalCluster(n_workers=0, **IN_PROCESS) as cluster:
        ended = run_evaluate(tmp_path / "out", "--scheduler", cluster.scheduler_address)
    ended.assert_refused("evaluate.py", "has no workers; start them, see --help")
    assert files(tmp_path) == {}


def test_workers_that_do_not_start_are_told(tiny, tmp_path, monkeypatch):
    def late(**settings):
        raise TimeoutError("timed out after 60 s")

    monkeypatch.setattr("dask.distributed.LocalCluster", late)
    fixed = ("--checkpoint", tiny, "--data", "cifar10-samples", "--steps", STEPS, "--workers", 3)
    ended = run("evaluate.py", evaluate.main, *fixed, "--out", tmp_path / "out")
    ended.assert_refused("evaluate.py", "3 worker processes did not start (timed out after 60 s); try fewer --workers")
    assert files(tmp_path) == {}


def test_images_without_classes_are_refused(run_evaluate, tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(samples().images[0]).save(tmp_path / "images" / "a.png")
    ended = run_evaluate(tmp_path / "out", "--data", tmp_path / "images")
    ended.assert_refused("evaluate.py", "are not known; put them into one folder a class")
    assert files(tmp_path / "out") == {}


def test_folder_that_cannot_be_written_is_told_before_the_work(run_evaluate, tmp_path, computed):
    (tmp_path / "file").touch()
    ended = run_evaluate(tmp_path / "file" / "out")
    ended.assert_refused("evaluate.py", "cannot write into the folder")
    assert computed() == []


# Processes


def command(tiny: Path, out: Path, steps: int) -> list[object]:
    return ["--checkpoint", tiny, "--data", "cifar10-samples", "--steps", steps, "--shard", 1, "--workers", 2,
            "--out", out]  # fmt: skip


def wait_for(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


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


def test_killed_evaluation_goes_on_and_gives_the_same_tables(tiny, scheduler, tmp_path):
    """kill -9 of everything in the middle, then the same command again."""
    steps, out = 2500, tmp_path / "out"
    with started("evaluate.py", *command(tiny, out, steps)) as process:
        wait_for(lambda: len(shard_files(out)) >= 3, process)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    kept = {file: file.stat().st_mtime_ns for file in shard_files(out)}
    assert 3 <= len(kept) < 20
    assert not (out / ERRORS).exists()
    with started("evaluate.py", *command(tiny, out, steps)) as process:
        process.communicate(timeout=300)
    assert process.returncode == 0
    assert len(shard_files(out)) == 20
    assert all(file.stat().st_mtime_ns == stamp for file, stamp in kept.items())
    assert [file for file in files(out) if file.endswith(".part")] == []
    arguments = ("--checkpoint", tiny, "--data", "cifar10-samples", "--steps", steps, "--scheduler", scheduler)
    assert run("evaluate.py", evaluate.main, *arguments, "--shard", 20, "--out", tmp_path / "calm").status == 0
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


class Interrupting:
    """Its destructor, where exceptions are lost, is interrupted."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_waits_for_the_work_on_a_shard_and_is_not_lost_in_a_destructor():
    handler, worked = signal.getsignal(signal.SIGINT), []
    with pytest.raises(KeyboardInterrupt):
        for item in until_interrupted(iter(range(3))):
            Interrupting()
            worked.append(item)
    assert worked == [0]
    assert signal.getsignal(signal.SIGINT) is handler


def test_second_ctrl_c_ends_the_work_and_one_ends_the_wait():
    for item in (interrupted := until_interrupted(iter(range(3)))):
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert item == 0
        break
    interrupted.close()

    def waited():
        signal.raise_signal(signal.SIGINT)
        yield 1

    with pytest.raises(KeyboardInterrupt):
        next(until_interrupted(waited()))


def test_scheduler_and_worker_of_their_own_give_the_same_tables(whole, run_evaluate, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    where = tmp_path / "scheduler.json"
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path, "env": environment}
    programs = [
        ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show",
         "--scheduler-file", where],
        ["distributed.cli.dask_worker", "--scheduler-file", where, "--host", "127.0.0.1", "--nthreads", "1",
         "--no-dashboard", "--no-nanny"],
    ]  # fmt: skip
    processes = []
    try:
        for program in programs:
            processes.append(subprocess.Popen([sys.executable, "-m", *map(str, program)], **options))
            wait_for(lambda: where.exists() and where.read_text().endswith("}"), processes[0])  # whole
        address = json.loads(where.read_text())["address"]
        assert address.startswith("tcp://127.0.0.1:")
        ended = run_evaluate(tmp_path / "out", "--scheduler", address, "--seeds", 2, "--shard", 8)
    finally:
        for process in processes[::-1]:
            process.terminate()
        for process in processes:
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    assert ended.status == 0, ended
    assert tables(tmp_path / "out") == tables(whole[0])


def test_thresholds_can_come_from_anywhere(run_evaluate, tiny, tmp_path):
    """A file, with a percentile in its name in the table."""
    checkpoint = load_checkpoint(tiny)
    thresholds = load_thresholds(find_thresholds(tiny, "spike-norm"), checkpoint)
    path = tmp_path / "mine.json"
    Thresholds(thresholds.values, "spike-norm", checkpoint.digest, 99.5, 1, "", 0).save(path)
    assert run_evaluate(tmp_path / "out", "--thresholds", path, "--images", 1).status == 0
    assert set(pd.read_csv(tmp_path / "out" / ERRORS)["thresholds"].str.rsplit(n=1).str[0]) == {"spike-norm 99.5"}
