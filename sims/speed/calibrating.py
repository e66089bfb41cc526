"""SPIKE-NORM as calibrate.py does it: the whole network for each layer, or the spikes of earlier layers shown again."""

import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from netspec.checkpoint import Checkpoint, load_checkpoint
from netspec.data import samples
from netspec.spec import NetSpec
from sims.brian.standalone import StandaloneSimulator
from sims.conversion.input_peaks import Shortcut
from sims.conversion.spike_norm import spike_norm

NETWORK = "vgg16-cifar10"


def calibration_table(images: int, steps: int, repetitions: int, seed: int) -> pd.DataFrame:
    """Seconds of SPIKE-NORM of the trained VGG-16 on one core in either way, in turn; the thresholds are the same."""
    network = load_checkpoint(NETWORK)
    x = network.encode(samples().images)[np.arange(images) % len(samples())]
    rows, found = [], []
    for _ in range(repetitions):
        for simulator in ("whole", "spared"):
            row, thresholds = calibrate(network, x, steps, seed, simulator == "spared")
            rows.append({"network": NETWORK, "simulator": simulator, "images": images, "steps": steps} | row)
            found.append(thresholds)
    if any(thresholds != found[0] for thresholds in found):
        raise AssertionError("both ways give the same thresholds")
    each = pd.DataFrame(rows).groupby(["network", "simulator", "images", "steps"], sort=False)
    table = each.agg({"seconds": "median", "compile_seconds": "max"}).reset_index()
    return table.assign(time_ratio=table["seconds"] / table["seconds"].min())


def calibrate(
    network: Checkpoint, x: np.ndarray, steps: int, seed: int, spared: bool
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds, those of compiling apart, and the thresholds."""
    opening = 0.0

    def open_part(spec: NetSpec) -> StandaloneSimulator:
        nonlocal opening
        start = time.perf_counter()
        part = StandaloneSimulator(spec, network.weights, quiet=True)
        opening += time.perf_counter() - start
        return part

    simulator = open_part(network.spec)
    opening = 0.0
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        shortcut = Shortcut(open_part, Path(folder)) if spared else None
        thresholds = spike_norm(simulator, x, steps, seed, shortcut=shortcut)
        seconds = time.perf_counter() - start - opening
    return {"seconds": seconds, "compile_seconds": opening}, thresholds
