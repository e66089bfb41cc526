"""Classification of many images under many settings, in shards that survive whatever happens to the others.

A *case* is a setting and a seed. Its images are cut into shards; a shard is a Dask task that gives a table with a row
for each image, kept as one Parquet file. What is there need not be computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.errors import UserError
from netspec.files import write_atomically
from sims.brian.runtime import DENSE, open_simulator
from sims.simulation.metrics import ac_operations, driven_by_spikes
from sims.simulation.neuron_models import IF, NeuronModel
from sims.simulation.recording import Recording
from sims.simulation.run_input import RunInput, Simulator

__all__ = [
    "LATER",
    "REPORTED_STEPS",
    "Case",
    "Setting",
    "Shard",
    "read_shard",
    "read_shards",
    "run_shard",
    "shards",
    "write_shard",
]

OUTPUT_BYTES = 16  # of an output neuron in one step, at the most: potential, spikes so far, and copies
NEURON_BYTES = 8  # of a neuron: its spike count and input, and copies
DENSE_BYTES = 24  # of a neuron of the dense reference: its potential and what arrives, too
LATER = {"coding": "poisson", "model": "if", "runtime": "brian2"}  # fields that came later: without them it is this
LAST = threading.local()  # simulator, and its key
FEW_STEPS = (*range(1, 9), 10, 12, 14, 16, 20, 24, 32, 48, 64, 96, 128, 256)  # with a constant current
REPORTED_STEPS = (
    *(10, 20, 30, 50, 70, 100, 120, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 850),
    *(1000, 1200, 1500, 2000, 2500),
)  # close where errors fall


@dataclass(frozen=True)
class Setting:
    """What an evaluation is made under; each field is a column of its tables.

    Parameters
    ----------
    network, checkpoint : str
        Name of the NetSpec, digest of the checkpoint.
    data : str
        Source of the images, and a digest of their pixels.
    method : str
        How the thresholds were found.
    unit : bool
        Whether residual units have threshold 1.
    percentile : float
    thresholds : str
        Digest of the thresholds, or of all numbers of another conversion.
    reset : {'zero', 'subtract'}
    coding : {'poisson', 'current'}
    model : str
        Of the neurons, as the command was told; and a digest if it is not a shipped one.
    runtime : {'brian2', 'torch'}
        What simulated it: the two add in other orders.
    """

    network: str
    checkpoint: str
    data: str
    method: str
    unit: bool
    percentile: float
    thresholds: str
    reset: str
    coding: str = "poisson"
    model: str = "if"
    runtime: str = "brian2"

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, data: str, conversion: Conversion, model: str = "if", runtime: str = "brian2"
    ) -> Setting:
        return cls(
            checkpoint.spec.name,
            checkpoint.digest,
            data,
            conversion.method,
            conversion.unit,
            conversion.percentile,
            conversion.digest,
            conversion.reset,
            conversion.coding,
            model,
            runtime,
        )

    def columns(self) -> dict[str, Any]:
        """The fields as a table has them, the checkpoint's digest shortened."""
        return asdict(self) | {"checkpoint": self.checkpoint[:8]}

    def described(self) -> dict[str, Any]:
        """The fields, without those of the later kind that are at their default: what a shard is known by."""
        return {key: value for key, value in asdict(self).items() if value != LATER.get(key)}


@dataclass(frozen=True)
class Case:
    """A setting, the seed of the input spikes, and the time steps for each image."""

    setting: Setting
    seed: int
    steps: int

    def described(self) -> dict[str, Any]:
        return asdict(self) | {"setting": self.setting.described()}

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.described(), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def reported(self) -> tuple[int, ...]:
        """The steps at which predictions are kept."""
        usual = FEW_STEPS if self.setting.coding == "current" else REPORTED_STEPS
        return (*(step for step in usual if step < self.steps), self.steps)


@dataclass(frozen=True)
class Shard:
    """Images ``start`` to ``stop`` (excluded) of a case."""

    case: Case
    start: int
    stop: int

    def path(self, folder: Path) -> Path:
        return folder / self.case.digest / f"images-{self.start:06d}-{self.stop:06d}.parquet"


def shards(case: Case, images: int, size: int) -> Iterator[Shard]:
    """Cut the first ``images`` images of a case into shards of up to ``size``."""
    for start in range(0, images, size):
        yield Shard(case, start, min(start + size, images))


def run_shard(
    checkpoint: Checkpoint,
    conversion: Conversion,
    shard: Shard,
    images: np.ndarray,
    runtime: str = "standalone",
    models: Mapping[str, NeuronModel] | None = None,
) -> pd.DataFrame:
    """Simulate a shard, in parts if this worker's memory is too small for all at once.

    Returns
    -------
    pandas.DataFrame
        A row for each image: image, snn_STEP (class after so many steps), spikes_POPULATION (of all its
        neurons), ac (spikes arriving along projections driven by IF neurons), ac_input (by the input).
    """
    spec, case = checkpoint.spec, shard.case
    simulator = opened(checkpoint, runtime, conversion.reset, models or {})
    of_neurons = (DENSE_BYTES if runtime == DENSE else NEURON_BYTES) * spec.neurons()
    room = torch.cuda.mem_get_info()[1] / 4 if runtime == DENSE and torch.cuda.is_available() else memory()
    most = max(1, int(room / (OUTPUT_BYTES * case.steps * spec.output.size + of_neurons)))
    parts = shards(case, len(images), most)
    rows = []
    for part in parts:
        ids = np.arange(shard.start + part.start, shard.start + part.stop)
        x = checkpoint.encode(images[part.start : part.stop])
        run_input = RunInput.of(x, conversion, case.steps, case.seed, ids=ids)
        rows.append(table_of(simulator.run(run_input), case, ids))
    return pd.concat(rows, ignore_index=True)


def opened(checkpoint: Checkpoint, runtime: str, reset: str, models: Mapping[str, NeuronModel]) -> Simulator:
    """A simulator; a compiled one that this thread's last shard ran on serves again: opening it takes time."""
    key = checkpoint.digest, runtime, reset, repr(sorted(models.items()))
    if runtime not in ("standalone", DENSE) or getattr(LAST, "key", None) != key:  # Brian2's time goes on in the others
        LAST.simulator = LAST.key = None
        told = checkpoint.spec, checkpoint.weights, runtime, "shared", reset, True
        LAST.simulator, LAST.key = open_simulator(*told, models or IF), key
    return LAST.simulator


def memory() -> float:
    """Bytes that a run may take: a quarter of this Dask worker's limit, or of the machine's memory."""
    from dask.distributed import get_worker
    from distributed.system import MEMORY_LIMIT

    with suppress(ValueError):  # not in a worker
        return (get_worker().memory_manager.memory_limit or MEMORY_LIMIT) / 4
    return MEMORY_LIMIT / 4


def table_of(recording: Recording, case: Case, ids: np.ndarray) -> pd.DataFrame:
    """A row for each image of a run, as of :func:`run_shard`."""
    spec = recording.spec
    columns: dict[str, Any] = {"image": ids}
    for step in case.reported:
        columns[f"snn_{step}"] = recording.predictions(step).astype(np.int16)
    for population in (spec.input, *spec.emitting):
        columns[f"spikes_{population.name}"] = recording.spike_counts(population.name).sum(
            axis=(1, 2, 3), dtype=np.int64
        )
    columns["ac"] = ac_operations(recording, driven_by_spikes(spec))
    columns["ac_input"] = ac_operations(recording, spec.outgoing(spec.input.name))
    return pd.DataFrame(columns)


def write_shard(table: pd.DataFrame, shard: Shard, folder: Path) -> None:
    """Keep a finished shard as one Parquet file with its case as metadata, atomically."""
    path = shard.path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    header = {"case": json.dumps(shard.case.described()), "digest": table_digest(table)}
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(header), content)
    write_atomically(path, content.getvalue())


def table_digest(table: pd.DataFrame) -> str:
    """sha256 over names, types and values."""
    sha = hashlib.sha256(repr(list(table.dtypes.items())).encode())
    sha.update(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    return sha.hexdigest()


def read_shard(shard: Shard, folder: Path) -> pd.DataFrame | None:
    """The rows of a shard; None if its file is missing or damaged, which is as good as none.

    Raises
    ------
    UserError
        If the file is of another case.
    """
    try:
        content = shard.path(folder).read_bytes()
        arrow = pq.read_table(io.BytesIO(content))
        header = arrow.schema.metadata or {}
        found, table = json.loads(header.get(b"case", b"{}")), arrow.to_pandas()
        whole = header.get(b"digest", b"") == table_digest(table).encode()
    except (FileNotFoundError, pa.ArrowException, OSError, ValueError, KeyError, TypeError, NotImplementedError):
        return None
    if found != shard.case.described():
        raise UserError(f"{shard.path(folder)} was made under other settings ({found}); move it away")
    return table if whole and np.array_equal(table.get("image"), np.arange(shard.start, shard.stop)) else None


def read_shards(wanted: Sequence[Shard], folder: Path) -> pd.DataFrame:
    """The rows of all shards of a case, in their order; UserError if one is missing."""
    tables = {shard: read_shard(shard, folder) for shard in wanted}
    lost = [str(shard.path(folder)) for shard, table in tables.items() if table is None]
    if lost:
        raise UserError(f"{' '.join(lost)} was removed meanwhile; the same command makes it again")
    return pd.concat(tables.values(), ignore_index=True)
