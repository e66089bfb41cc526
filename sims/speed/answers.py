"""What an image takes to be answered as well as by the ANN, in many steps and in few; in dense torch likewise."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from netspec.checkpoint import Checkpoint, load_checkpoint
from netspec.conversion import Conversion, open_conversion
from netspec.data import samples
from netspec.errors import UserError
from sims.brian.standalone import StandaloneSimulator
from sims.simulation.run_input import RunInput
from sims.speed.dense import WARM_UP, CompiledDense, DenseSimulator

HERE = Path(__file__).resolve().parents[2]
NETWORK = "vgg16-cifar10"
CONVERSIONS = {"spike-norm": 2500, "fast": 16}  # and the steps after which they answer as the ANN does
IMAGES = 16  # two times as many as there are side by side
DENSE_STEPS = 10  # that are measured: all steps of dense torch take the same time
INPUT_ACTIVITY = 0.3


def answers_table(
    batches: Sequence[int], repetitions: int, threads: Sequence[int], seed: int, before: str | None = None
) -> pd.DataFrame:
    """Seconds an image: median over repetitions, of all that a run does, with one core or so many threads of torch.

    With another checkout ``before``, rows 'run' and 'run before' are what run_vgg.py of each says of its simulation.
    """
    network = load_checkpoint(NETWORK)
    dense = dense_seconds(network, batches, repetitions, threads, seed)
    rows = []
    for name, steps in CONVERSIONS.items():
        conversion = open_conversion(name, NETWORK, network)
        given = RunInput.of(network.encode(samples().first(IMAGES).images), conversion, steps, seed)
        common = {"network": network.spec.name, "conversion": name, "steps": steps}
        rows += [common | row for row in shared_rows(network, conversion, given, repetitions)]
        rows += [common | row for row in checkout_rows(before, name, steps, repetitions, seed)] if before else []
        rows += [common | row | {"seconds_per_image": steps * row["step"]} for row in dense]
    table = pd.DataFrame(rows)
    fastest = table[table["simulator"] == "shared"].groupby("conversion")["seconds_per_image"].min()
    return table.assign(time_ratio=table["seconds_per_image"] / table["conversion"].map(fastest))


def shared_rows(network: Checkpoint, conversion: Conversion, given: RunInput, repetitions: int) -> list[dict]:
    """Rows of this project, image by image and side by side, run in turn; with times to compile and to open again."""
    rows: list[tuple[StandaloneSimulator, dict[str, float], list[float]]] = []
    for batch in (1, None):
        options: dict = {"reset": conversion.reset, "quiet": True, "batch": batch}
        made = StandaloneSimulator(network.spec, network.weights, **options)
        start = time.perf_counter()
        simulator = StandaloneSimulator(network.spec, network.weights, **options)
        opening = {"open_seconds": time.perf_counter() - start}
        rows.append((simulator, opening | {f"{what}_seconds": spent for what, spent in made.seconds.items()}, []))
    for _ in range(repetitions):
        for simulator, _, spent in rows:
            start = time.perf_counter()
            simulator.run(given)
            spent.append((time.perf_counter() - start) / len(given.x))
    return [
        {"simulator": "shared", "batch": simulator.batch, "seconds_per_image": float(np.median(spent))}
        | {"peak_memory_mb": simulator.peak_memory / 1e6}
        | told
        for simulator, told, spent in rows
    ]


def checkout_rows(before: str, conversion: str, steps: int, repetitions: int, seed: int) -> list[dict]:
    """Rows of the simulation of all sample photographs by run_vgg.py, of this checkout and of another one in turn."""
    spent: dict[str, list[float]] = {"run": [], "run before": []}
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--checkpoint", NETWORK, "--standalone", "--conversion", conversion,
            "--steps", steps, "--seed", seed, "--out", folder,
        ]  # fmt: skip
        for repetition in range(repetitions + 1):
            for name, checkout in zip(spent, (str(HERE), before), strict=True):
                command = [sys.executable, "sims/run_vgg.py", *map(str, options)]
                environment = os.environ | {"PYTHONPATH": str(Path(checkout).resolve())}
                ended = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
                if ended.returncode:
                    why = ended.stderr.strip().splitlines() or [f"run_vgg.py ended with {ended.returncode}"]
                    raise UserError(f"{checkout}: {why[-1]}")
                if repetition:  # the first one compiles
                    told = json.loads((Path(folder) / "summary.json").read_text())
                    spent[name].append(told["seconds"]["simulate"] / told["images"])
    return [
        {"simulator": name, "seconds_per_image": float(np.median(times)), "seconds_per_image_min": min(times)}
        for name, times in spent.items()
    ]


def dense_seconds(
    network: Checkpoint, batches: Sequence[int], repetitions: int, threads: Sequence[int], seed: int
) -> list[dict]:
    """Rows of dense torch: simulator, batch, and seconds of a step and image, which no rate of spikes changes."""
    rows, random = [], torch.Generator().manual_seed(seed)
    thresholds = {population.name: 1.0 for population in network.spec.spiking}
    height, width, channels = network.spec.input.shape
    with tqdm(total=len(threads) * len(batches), desc="answers") as bar:
        for many in threads:
            plain = DenseSimulator(network.spec, network.weights, many)
            compiled = CompiledDense(network.spec, network.weights, many)
            for batch in batches:
                shape = (batch, height, width, channels)
                inputs: list[Tensor] = [
                    (torch.rand(shape, generator=random) < INPUT_ACTIVITY).float().permute(0, 3, 1, 2)
                    for _ in range(WARM_UP + DENSE_STEPS)
                ]
                spent: dict[str, list[float]] = {f"torch-{many}": [], f"torch-{many} compiled, bfloat16": []}
                for _ in range(repetitions):
                    plain.run(inputs[WARM_UP:], thresholds)
                    measured = sum(plain.seconds.values()), compiled.seconds(inputs, thresholds)
                    for times, seconds in zip(spent.values(), measured, strict=True):
                        times.append(seconds / DENSE_STEPS / batch)
                rows += [
                    {"simulator": name, "batch": batch, "step": float(np.median(times))}
                    for name, times in spent.items()
                ]
                bar.update()
    return rows
