"""Classification of many images under many settings, in shards that survive whatever happens to the others.

A *case* is a setting and a seed. Its images are cut into shards; a shard is a Dask task that gives a table with a row
for each image, kept as one Parquet file. What is there need not be computed again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from netspec.checkpoint import Checkpoint
from netspec.errors import UserError
from netspec.files import write_atomically
from netspec.thresholds import Thresholds
from sims.brian.runtime import open_simulator
from sims.simulation.metrics import ac_operations, driven_by_spikes
from sims.simulation.run_input import RunInput

__all__ = [
    "REPORTED_STEPS",
    "Case",
    "Setting",
    "Shard",
    "is_finished",
    "read_shards",
    "run_shard",
    "shards",
    "write_shard",
]

REPORTED_STEPS = (10, 20, 50, 100, 200, 500, 1000, 1500, 2000, 2500)


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
        Digest of the thresholds' values.
    reset : {'zero', 'subtract'}
    """

    network: str
    checkpoint: str
    data: str
    method: str
    unit: bool
    percentile: float
    thresholds: str
    reset: str

    @classmethod
    def of(cls, checkpoint: Checkpoint, data: str, thresholds: Thresholds, reset: str) -> Setting:
        return cls(
            checkpoint.spec.name,
            checkpoint.digest,
            data,
            thresholds.method,
            thresholds.unit,
            thresholds.percentile,
            hashlib.sha256(json.dumps(dict(thresholds.values), sort_keys=True).encode()).hexdigest()[:8],
            reset,
        )

    def columns(self) -> dict[str, Any]:
        """The fields as a table has them, the checkpoint's digest shortened."""
        return asdict(self) | {"checkpoint": self.checkpoint[:8]}


@dataclass(frozen=True)
class Case:
    """A setting, the seed of the input spikes, and the time steps for each image."""

    setting: Setting
    seed: int
    steps: int

    @property
    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def reported(self) -> tuple[int, ...]:
        """The steps at which predictions are kept."""
        return (*(step for step in REPORTED_STEPS if step < self.steps), self.steps)


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
    checkpoint: Checkpoint, thresholds: dict[str, float], shard: Shard, images: np.ndarray, runtime: str = "standalone"
) -> pd.DataFrame:
    """Simulate a shard.

    Returns
    -------
    pandas.DataFrame
        A row for each image: image, snn_STEP (class after so many steps), spikes_POPULATION (of all its
        neurons), ac (spikes arriving along projections driven by IF neurons), ac_input (by the input).
    """
    spec, case = checkpoint.spec, shard.case
    simulator = open_simulator(spec, checkpoint.weights, runtime, "shared", case.setting.reset, quiet=True)
    ids = np.arange(shard.start, shard.stop)
    recording = simulator.run(RunInput(checkpoint.encode(images), thresholds, case.steps, case.seed, ids))
    columns: dict[str, Any] = {"image": ids}
    for step in case.reported:
        columns[f"snn_{step}"] = recording.predictions(step).astype(np.int16)
    for population in (spec.input, *spec.spiking):
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
    arrow = pa.Table.from_pandas(table, preserve_index=False).replace_schema_metadata(
        {"case": json.dumps(asdict(shard.case))}
    )
    pq.write_table(arrow, content)
    write_atomically(path, content.getvalue())


def is_finished(shard: Shard, folder: Path) -> bool:
    """Whether the shard's file is there and whole; a broken one is as good as none."""
    try:
        return pq.read_metadata(shard.path(folder)).num_rows == shard.stop - shard.start
    except (OSError, pa.ArrowInvalid):
        return False


def read_shards(case: Case, wanted: Sequence[Shard], folder: Path) -> pd.DataFrame:
    """The rows of all shards of a case, in their order.

    Raises
    ------
    UserError
        If a file is of another case.
    """
    tables = []
    for shard in wanted:
        arrow = pq.read_table(shard.path(folder))
        found = json.loads((arrow.schema.metadata or {}).get(b"case", b"{}"))
        if found != asdict(case):
            raise UserError(f"{shard.path(folder)} was made under other settings ({found}); move it away")
        tables.append(arrow.to_pandas())
    return pd.concat(tables, ignore_index=True)
