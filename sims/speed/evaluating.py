"""An evaluation as evaluate.py does it: time and memory against images, steps and worker processes."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from netspec.checkpoint import Checkpoint, load_checkpoint
from netspec.conversion import Conversion, open_conversion
from netspec.data import ImageSet, samples
from sims.brian.standalone import StandaloneSimulator
from sims.evaluation.cluster import compute
from sims.evaluation.shards import Case, Setting, shards
from sims.simulation.neuron_models import conversion_models
from sims.simulation.run_input import RunInput

NETWORK, CONVERSION = "vgg16-cifar10", "fast"
SHARD = 50  # images, as of evaluate.py
SAMPLED = 0.5  # seconds between two looks at the memory


def evaluation_table(
    images: Sequence[int], steps: Sequence[int], workers: Sequence[int], repetitions: int, seed: int
) -> pd.DataFrame:
    """Seconds of a whole evaluation, and an image once all workers have finished a shard; memory of all processes.

    Images and steps are varied one at a time, from the least of each, with one worker; workers in turn, on the second
    number of images. Rows of 'binaries' are so many compiled networks side by side with nothing around them, on the
    least of images. The binary is there before the first evaluation begins.
    """
    network = load_checkpoint(NETWORK)
    conversion = open_conversion(CONVERSION, NETWORK, network)
    StandaloneSimulator(network.spec, network.weights, reset=conversion.reset, quiet=True)
    shown = network, conversion, samples().labelled(network.classes), seed
    least = min(images), min(steps)
    cases = [(many, least[1], 1) for many in images] + [(least[0], many, 1) for many in steps if many != least[1]]
    rows = [{"varied": "images" if case[1] == least[1] else "steps"} | evaluate(*shown, *case) for case in cases]
    several = sorted(images)[min(1, len(images) - 1)]
    for _ in range(repetitions):
        rows += [{"varied": "workers"} | evaluate(*shown, several, least[1], many) for many in workers]
        rows += [{"varied": "binaries"} | binaries(*shown, *least, many) for many in workers]
    table = pd.DataFrame(rows)
    return table.groupby(["varied", "images", "steps", "workers"], sort=False).median().reset_index()


def evaluate(
    network: Checkpoint, conversion: Conversion, photographs: ImageSet, seed: int, many: int, steps: int, workers: int
) -> dict[str, float]:
    """One evaluation of some photographs, again and again, in an empty folder."""
    models = conversion_models(None, conversion, network.spec)
    images = photographs.subset(np.arange(many) % len(photographs))
    setting = Setting.of(network, images.provenance, conversion)
    with tempfile.TemporaryDirectory() as out, memory_of_all() as memory:
        wanted = list(shards(Case(setting, seed, steps), many, min(SHARD, max(1, many // 2 // workers))))
        start = time.time()
        told = ({setting: conversion}, {setting: models}, images, Path(out))
        failed = compute(wanted, network, *told, workers=workers)
        if failed:
            raise next(iter(failed.values()))
        finished = sorted(shard.path(Path(out)).stat().st_mtime for shard in wanted)
    first = wanted[0].stop * workers  # finished, or nearly so, when the clock of the rest begins
    middle = (finished[0] + finished[-1]) / 2
    return {
        **{"images": many, "steps": steps, "workers": workers, "seconds": finished[-1] - start},
        "seconds_per_image": (finished[-1] - finished[workers - 1]) / (many - first),
        "memory_mb_first_half": memory.most(finished[0], middle),
        "memory_mb_second_half": memory.most(middle, finished[-1]),
    }


def binaries(
    network: Checkpoint, conversion: Conversion, photographs: ImageSet, seed: int, many: int, steps: int, workers: int
) -> dict[str, float]:
    """So many compiled networks, each of them with all images."""
    x = network.encode(photographs.images)
    given = RunInput.of(x[np.arange(many) % len(x)], conversion, steps, seed)
    made = [
        StandaloneSimulator(network.spec, network.weights, reset=conversion.reset, quiet=True) for _ in range(workers)
    ]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda simulator: simulator.run(given), made))
    seconds = float(np.mean([simulator.run_seconds for simulator in made]))
    return {
        **{"images": many, "steps": steps, "workers": workers, "seconds": seconds},
        "seconds_per_image": seconds / many / workers,
    }


@dataclass
class Memory:
    """What was seen: times, and bytes of this process and those below it."""

    seen: list[tuple[float, int]] = field(default_factory=list)

    def look(self) -> None:
        this, total = psutil.Process(os.getpid()), 0
        for process in [this, *this.children(recursive=True)]:
            try:
                total += process.memory_info().rss
            except psutil.Error:  # it has ended
                continue
        self.seen.append((time.time(), total))

    def most(self, start: float, stop: float) -> float:
        """Megabytes, at the most, between two times; NaN if nobody looked."""
        return max((total / 1e6 for when, total in self.seen if start <= when <= stop), default=float("nan"))


@contextmanager
def memory_of_all() -> Iterator[Memory]:
    """Looks at the memory from time to time."""
    memory, ended = Memory(), threading.Event()

    def watch() -> None:
        while not ended.wait(SAMPLED):
            memory.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        ended.set()
        thread.join()
