"""Commands run in this process or as their own, and the small trained network that they are given."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from networks import net
from PIL import Image

from netspec.checkpoint import Checkpoint, save_checkpoint
from netspec.data import CIFAR10_CLASSES, samples
from netspec.errors import run_command
from netspec.spec import NetSpec, Projection
from netspec.thresholds import Thresholds, find_thresholds
from sims.brian.runtime import open_simulator
from sims.conversion.ann_norm import ann_norm
from sims.conversion.spike_norm import spike_norm

ROOT = Path(__file__).resolve().parents[1]
WRONG_RUNS = {  # options that no command takes with the sample images, and what is said
    "--images 0": "the number of images must be at least 1, got 0",
    "--images -3": "the number of images must be at least 1, got -3",
    "--images 21": "21 images were asked for, but CIFAR-10 test images 0 to 19 has 20",
    "--steps 0": "the number of steps must be from 1 to 65535, got 0",
    "--steps -5": "the number of steps must be from 1 to 65535, got -5",
    "--steps 65536": "the number of steps must be from 1 to 65535, got 65536",
    "--data /nowhere/at/all": "there is no folder /nowhere/at/all",
    "--checkpoint vgg99": "there is no checkpoint file vgg99, nor a shipped network of that name",
}


@dataclass(frozen=True)
class Ended:
    """What is left of a command."""

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


def strict_json(path: Path) -> Any:
    """JSON as the standard has it: no NaN, no infinity."""

    def refuse(constant):
        raise AssertionError(f"{constant} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


def script(path: Path, text: str) -> Path:
    """A program of one line of shell."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def save_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_images(folder: Path, *names: str, images: np.ndarray | None = None) -> Path:
    """Images, by default the first samples, as files of those names."""
    for pixels, name in zip(samples().images if images is None else images, names, strict=False):
        save_image(folder / name, pixels)
    return folder


def tiny_spec(name: str = "vgg16-tiny", classes: int = 10) -> NetSpec:
    """Four layers, with pooling and strides; quick to compile."""
    shapes = {"input": (32, 32, 3), "conv1_1": (8, 8, 4), "conv3_3": (4, 4, 6), "conv5_3": (2, 2, 8)}
    return net(
        name,
        shapes | {"output": (1, 1, classes)},
        Projection("input", "conv1_1", kernel=3, stride=2, padding=1, pool=2),
        Projection("conv1_1", "conv3_3", kernel=3, padding=1, pool=2),
        Projection("conv3_3", "conv5_3", kernel=3, stride=2, padding=1),
        Projection("conv5_3", "output", kind="dense"),
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
    info = {"test_error": 0.875, "trained_on": "CIFAR-10 train"}
    return Checkpoint(spec, weights, mean, 2.0, CIFAR10_CLASSES[: spec.output.size], info)


def save_tiny(folder: Path) -> Path:
    """The checkpoint in a file, its thresholds of both methods beside it."""
    checkpoint, images = tiny_checkpoint(), samples()
    path, x = folder / "tiny.safetensors", checkpoint.encode(images.images)
    save_checkpoint(checkpoint, path)
    simulator = open_simulator(checkpoint.spec, checkpoint.weights, quiet=True)
    values = {
        "spike-norm": spike_norm(simulator, x, steps=30),
        "ann-norm": ann_norm(checkpoint, x),
    }
    for method, found in values.items():
        steps = 30 if method == "spike-norm" else 0
        thresholds = Thresholds(found, method, checkpoint.digest, 100.0, len(x), images.source, 0, steps)
        thresholds.save(find_thresholds(path, method))
    return path
