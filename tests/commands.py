"""Commands run in this process or as their own, and the small trained network that they are given."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np

from netspec.checkpoint import Checkpoint, save_checkpoint
from netspec.data import CIFAR10_CLASSES, samples
from netspec.errors import run_command
from netspec.spec import NetSpec, Population, Projection
from sims.runtime import open_simulator
from sims.spike_norm import ann_norm, spike_norm
from sims.thresholds import Thresholds, find_thresholds

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    status: int
    out: str
    err: str

    def assert_refused(self, command: str, reason: str) -> None:
        """It ended on a mistake of the user's: status 2, one line on stderr with the reason."""
        assert self.err.startswith(f"{command}: error: "), self
        assert self.err.count("\n") == 1 and self.err.endswith("\n"), self
        assert reason in self.err, self
        assert self.status == 2, self


def run(command: str, main: Callable[[], None], *arguments: object) -> Ended:
    """Run the ``main`` of ``sims/COMMAND`` in this process, as the command line does."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    argv = [f"sims/{command}", *map(str, arguments)]
    with mock.patch.object(sys, "argv", argv), redirect_stdout(out), redirect_stderr(err):
        try:
            run_command(main)
        except SystemExit as end:
            status = int(end.code or 0)
    return Ended(status, out.getvalue(), err.getvalue())


@contextmanager
def started(command: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """``sims/COMMAND`` as a process group of its own; whatever is left of it at the end is killed."""
    process = subprocess.Popen(
        [sys.executable, ROOT / "sims" / command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
        process.communicate()


def files(folder: Path) -> dict[str, bytes]:
    """Everything below a folder, hidden files too; nothing if there is no folder."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def tiny_spec(name: str = "vgg16-tiny", classes: int = 10) -> NetSpec:
    """Four layers, with pooling and strides; quick to compile."""
    return NetSpec(
        name,
        (
            Population("input", (32, 32, 3), kind="input"),
            Population("conv1_1", (8, 8, 4)),
            Population("conv3_3", (4, 4, 6)),
            Population("conv5_3", (2, 2, 8)),
            Population("output", (1, 1, classes)),
        ),
        (
            Projection("input", "conv1_1", kernel=3, stride=2, padding=1, pool=2),
            Projection("conv1_1", "conv3_3", kernel=3, padding=1, pool=2),
            Projection("conv3_3", "conv5_3", kernel=3, stride=2, padding=1),
            Projection("conv5_3", "output", kind="dense"),
        ),
    )


def tiny_checkpoint(spec: NetSpec | None = None) -> Checkpoint:
    """Weights are multiples of 1/16, so that float32 sums are exact, whatever their order."""
    spec = tiny_spec() if spec is None else spec
    draw = np.random.default_rng(53)  # seven of the ten classes among the answers
    weights = {
        p.name: (draw.integers(-8, 9, spec.weight_shape(p)) / 16).astype(np.float32)
        for p in spec.projections
        if p.weighted
    }
    mean = np.full((1, 1, 3), 0.5, dtype=np.float32)
    return Checkpoint(
        spec,
        weights,
        mean,
        2.0,
        CIFAR10_CLASSES[: spec.output.size],
        {"test_error": 0.875, "trained_on": "CIFAR-10 train"},
    )


def save_tiny(folder: Path) -> Path:
    """The checkpoint in a file, its thresholds of both methods beside it."""
    checkpoint = tiny_checkpoint()
    path = folder / "tiny.safetensors"
    save_checkpoint(checkpoint, path)
    images = samples()
    x = checkpoint.encode(images.images)
    simulator = open_simulator(checkpoint.spec, checkpoint.weights, quiet=True)
    values = {
        "spike-norm": spike_norm(simulator, x, steps=30),
        "ann-norm": ann_norm(checkpoint.spec, checkpoint.weights, x),
    }
    for method, found in values.items():
        steps = 30 if method == "spike-norm" else 0
        thresholds = Thresholds(found, method, checkpoint.digest, 100.0, len(x), images.source, 0, steps)
        thresholds.save(find_thresholds(path, method))
    return path
