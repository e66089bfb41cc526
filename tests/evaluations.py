"""evaluate.py on the sample images, and what it leaves."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Ended, run

from sims import evaluate
from sims.evaluation.shards import Shard, run_shard

STEPS = 60
IN_PROCESS = {"processes": False, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
ERRORS, OPERATIONS = TABLES = ("tiny-errors.csv", "tiny-operations.csv")


def evaluate_samples(checkpoint: Path, out: Path, *arguments: object) -> Ended:
    """Run the command in this process, with as many processes of its own as it is told to."""
    fixed = ("--checkpoint", checkpoint, "--data", "cifar10-samples", "--steps", STEPS, "--out", out)
    return run("evaluate.py", evaluate.main, *fixed, *arguments)


def shard_files(out: Path) -> list[Path]:
    return sorted(out.glob("*/images-*.parquet"))


def tables(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in TABLES}


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.05)


def note_attempts(
    patch: pytest.MonkeyPatch, notes: Path, fails: Callable[[Shard, int], bool] = lambda shard, attempt: False
) -> Callable[[], list[tuple[int, int]]]:
    """Note the shards that are computed from now on, and let some attempts fail, the first of a shard being 1.

    Returns a function that gives the attempts so far, each as (first image, seed), sorted.
    """
    notes.touch()

    def noted(checkpoint, conversion, shard, images, runtime, models):
        line = f"{shard.start} {shard.case.seed}"
        with open(notes, "a") as file:
            file.write(f"{line}\n")
        if fails(shard, notes.read_text().splitlines().count(line)):
            raise RuntimeError("a cosmic ray")
        return run_shard(checkpoint, conversion, shard, images, runtime, models)

    patch.setattr("sims.evaluation.cluster.run_shard", noted)
    return lambda: sorted(tuple(map(int, line.split())) for line in notes.read_text().splitlines())
