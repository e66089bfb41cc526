"""Shards as tasks: which are tried again, what is told, what Ctrl-C ends, schedulers elsewhere."""

import json
import os
import signal
import subprocess
import sys
import time

import dask
import pytest
from commands import files
from dask.distributed import Client, LocalCluster
from evaluations import ERRORS, IN_PROCESS, evaluate_samples, note_attempts, shard_files, tables, wait_for

from netspec.errors import UserError
from sims.evaluation import cluster
from sims.evaluation.cluster import until_interrupted


def test_few_shards_are_handed_over_ahead_of_their_turn(whole, run_evaluate, tmp_path, monkeypatch):
    shards, kept, ahead = 20, [], []
    submit, write = Client.submit, cluster.write_shard

    def submitted(self, *arguments, **options):
        ahead.append(len(ahead) + 1 - len(kept))
        return submit(self, *arguments, **options)

    def written(*arguments):
        kept.append(arguments)
        write(*arguments)

    monkeypatch.setattr(Client, "submit", submitted)
    monkeypatch.setattr(cluster, "write_shard", written)
    monkeypatch.setattr(cluster, "AHEAD", 2)
    assert run_evaluate(tmp_path, "--shard", 1).status == 0
    assert (len(ahead), len(kept)) == (shards, shards)
    assert max(ahead) <= 2 * 2  # for two threads


def test_lost_scheduler_is_told_and_finished_shards_are_kept(whole, run_evaluate, tmp_path, monkeypatch):
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
    assert len(shard_files(tmp_path)) == 3  # asked first before any was finished, then after each
    assert run_evaluate(tmp_path, "--seeds", 2, "--shard", 5).status == 0
    assert tables(tmp_path) == tables(whole[0])


def test_a_simulation_that_was_killed_is_retried(monkeypatch):
    """A text that Brian2 does not understand is not: it would be the same again."""

    def killed(*_):
        raise UserError("the simulation ended with SIGKILL")

    monkeypatch.setattr(cluster, "run_shard", killed)
    for runtime in ("standalone", "torch"):
        with pytest.raises(RuntimeError, match=r"^the simulation ended with SIGKILL$"):
            cluster.attempted(None, None, None, None, runtime)
    assert isinstance(cluster.attempted(None, None, None, None, "numpy"), UserError)


def test_failing_shard_is_retried_then_told_and_the_others_finish(whole, run_evaluate, tmp_path, monkeypatch):
    out, arguments = tmp_path / "out", ("--seeds", 2, "--shard", 5)
    with monkeypatch.context() as patched:
        attempts = note_attempts(patched, tmp_path / "attempts.txt", lambda shard, attempt: shard.start == 10)
        ended = run_evaluate(out, *arguments)
    assert ended.status == 2
    assert attempts().count((10, 0)) == attempts().count((10, 1)) == 3
    lines = [line for line in ended.err.splitlines() if "%|" not in line]
    assert lines.count("failed 3 times: images 10 to 14: a cosmic ray") == 2
    assert lines[-1] == "evaluate.py: error: 2 of 8 shards failed; run the same command again to retry them"
    assert "Traceback" not in ended.err
    assert len(shard_files(out)) == 6
    assert not (out / ERRORS).exists()  # no case is whole
    assert run_evaluate(out, *arguments).status == 0
    assert tables(out) == tables(whole[0])


def test_shard_that_fails_twice_is_no_failure(whole, run_evaluate, tmp_path, monkeypatch):
    notes = tmp_path / "attempts.txt"
    attempts = note_attempts(monkeypatch, notes, lambda shard, attempt: shard.start == 0 and attempt <= 2)
    assert run_evaluate(tmp_path / "out", "--seeds", 1, "--shard", 10).status == 0
    assert attempts() == [(0, 0)] * 3 + [(10, 0)]
    assert len(shard_files(tmp_path / "out")) == 2


def test_scheduler_without_workers_is_told(run_evaluate, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)
    with LocalCluster(n_workers=0, **IN_PROCESS) as empty:
        ended = run_evaluate(tmp_path / "out", "--scheduler", empty.scheduler_address)
    ended.assert_refused("evaluate.py", "has no workers; start them, see --help")
    assert files(tmp_path) == {}


def test_a_worker_that_slept_is_not_lost(tmp_path):
    def noted_and_slow(path):
        with open(path, "a") as notes:
            notes.write("x")
        time.sleep(3)

    notes = tmp_path / "notes"
    with (
        dask.config.set({"distributed.scheduler.worker-ttl": "1s"}),
        cluster.cluster(1) as address,
        cluster.connect(address) as client,
    ):
        (worker,) = client.run(os.getpid).values()
        task = client.submit(noted_and_slow, notes)
        until = time.monotonic() + 20
        while not notes.exists() and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(worker, signal.SIGSTOP)
        time.sleep(9)  # Dask waits for ten heartbeats at least
        os.kill(worker, signal.SIGCONT)
        task.result(timeout=20)
        assert list(client.run(os.getpid).values()) == [worker]
    assert notes.read_text() == "x"


def test_workers_that_do_not_start_are_told(tiny, tmp_path, monkeypatch):
    def late(**settings):
        raise TimeoutError("timed out after 60 s")

    monkeypatch.setattr("dask.distributed.LocalCluster", late)
    ended = evaluate_samples(tiny, tmp_path / "out", "--workers", 3)
    ended.assert_refused("evaluate.py", "3 worker processes did not start (timed out after 60 s); try fewer")
    assert files(tmp_path) == {}


def test_scheduler_and_worker_of_their_own_give_the_same_tables(whole, run_evaluate, tmp_path):
    where = tmp_path / "scheduler.json"
    elsewhere = os.environ | {"GOING_DEEPER_CACHE": str(tmp_path / "cache")}  # where nothing is compiled yet
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": tmp_path, "env": elsewhere}
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
