"""What an image takes to be answered as well as by the ANN, in many steps and in few; in dense torch likewise."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from netspec.checkpoint import Checkpoint, load_checkpoint
from netspec.conversion import Conversion, open_conversion
from netspec.data import samples
from sims.brian.standalone import StandaloneSimulator
from sims.simulation.run_input import RunInput
from sims.speed.dense import WARM_UP, CompiledDense, DenseSimulator

NETWORK = "vgg16-cifar10"
CONVERSIONS = {"spike-norm": 2500, "fast": 16}  # and the steps after which they answer as the ANN does
IMAGES = 16  # two times as many as there are side by side
DENSE_STEPS = 10  # that are measured: all steps of dense torch take the same time
INPUT_ACTIVITY = 0.3


def answers_table(batches: Sequence[int], repetitions: int, threads: Sequence[int], seed: int) -> pd.DataFrame:
    """Seconds an image: median over repetitions, of all that a run does, with one core or so many threads of torch."""
    network = load_checkpoint(NETWORK)
    dense = dense_seconds(network, batches, repetitions, threads, seed)
    rows = []
    for name, steps in CONVERSIONS.items():
        conversion = open_conversion(name, NETWORK, network)
        given = RunInput.of(network.encode(samples().first(IMAGES).images), conversion, steps, seed)
        common = {"network": network.spec.name, "conversion": name, "steps": steps}
        rows += [common | row for row in shared_rows(network, conversion, given, repetitions)]
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
