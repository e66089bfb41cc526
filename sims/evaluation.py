"""Classification of many images under many settings, in shards that survive whatever happens to the others.

A *case* is one choice of thresholds, reset and seed. Its images are cut into shards; a shard is a Dask task that
gives a table with a row for each image, kept as one Parquet file. What is there need not be computed again.
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

from netspec.checkpoint import Checkpoint, write_atomically
from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.runtime import RunInput, open_simulator
from sims.thresholds import Thresholds

__all__ = [
    "REPORTED_STEPS",
    "Case",
    "Shard",
    "read_shards",
    "run_shard",
    "shards",
    "summary_table",
    "with_earlier",
    "write_shard",
]

SETTING = ["network", "checkpoint", "data", "images", "thresholds", "reset"]
REPORTED_STEPS = (10, 20, 50, 100, 200, 500, 1000, 1500, 2000, 2500)


@dataclass(frozen=True)
class Case:
    """One choice of settings.

    Parameters
    ----------
    checkpoint, thresholds : str
        Digest of the network, and method and percentile of the thresholds with a digest of their values.
    data : str
        Source of the images, and a digest of their pixels.
    reset : {'zero', 'subtract'}
    seed : int
        Of the input spikes.
    steps : int
        Time steps for each image.
    """

    checkpoint: str
    thresholds: str
    data: str
    reset: str
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


def name_thresholds(thresholds: Thresholds) -> str:
    """Method (as in ``VARIANTS``) and percentile, and a digest of the values."""
    values = hashlib.sha256(json.dumps(dict(thresholds.values), sort_keys=True).encode()).hexdigest()[:8]
    return f"{thresholds.variant} {thresholds.percentile:g} {values}"


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
    simulator = open_simulator(spec, checkpoint.weights, runtime, "shared", case.reset, quiet=True)
    ids = np.arange(shard.start, shard.stop)
    recording = simulator.run(RunInput(checkpoint.encode(images), thresholds, case.steps, case.seed, ids))
    columns: dict[str, Any] = {"image": ids}
    for step in case.reported:
        columns[f"snn_{step}"] = recording.predictions(step).astype(np.int16)
    for population in (spec.input, *spec.spiking):
        columns[f"spikes_{population.name}"] = recording.spike_counts(population.name).sum(
            axis=(1, 2, 3), dtype=np.int64
        )
    for name, by_input in (("ac", False), ("ac_input", True)):
        chosen = [p for p in spec.projections if (p.pre == spec.input.name) == by_input]
        columns[name] = sum(recording.synaptic_operations(p) for p in chosen)
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


def setting(case: Case, table: pd.DataFrame, spec: NetSpec) -> dict[str, Any]:
    """Where the numbers of a row come from: network, images, thresholds and reset."""
    row = {"network": spec.name, "checkpoint": case.checkpoint[:8], "data": case.data, "images": len(table)}
    return row | {"thresholds": case.thresholds, "reset": case.reset}


def name_seeds(seeds: pd.Series) -> str:
    """``'0 1 2'``."""
    return " ".join(map(str, sorted(seeds)))


def summary_table(
    cases: Sequence[tuple[Case, pd.DataFrame]], checkpoint: Checkpoint, labels: np.ndarray, ann: np.ndarray
) -> pd.DataFrame:
    """Errors against steps, mean and standard deviation over seeds.

    Parameters
    ----------
    cases : sequence of (Case, pandas.DataFrame)
        Each with its images' rows.
    labels, ann : numpy.ndarray
        True class and the ANN's class of each image.

    Returns
    -------
    pandas.DataFrame
        A row for each thresholds, reset and step: errors and increments in percent, images, seed (``'0 1 2'``).
    """
    rows = []
    for case, table in cases:
        chosen = table["image"].to_numpy()
        ann_error = 100 * float((ann != labels)[chosen].mean())
        base = setting(case, table, checkpoint.spec)
        for step in case.reported:
            snn = table[f"snn_{step}"].to_numpy()
            error = 100 * float((snn != labels[chosen]).mean())
            agreement = 100 * float((snn == ann[chosen]).mean())
            errors = {"ann_error": ann_error, "snn_error": error, "agreement": agreement}
            rows.append(base | {"steps": step, "seed": case.seed} | errors)
    table = pd.DataFrame(rows)
    result = table.groupby([*SETTING, "steps"], sort=False).agg(
        seed=("seed", name_seeds),
        ann_error=("ann_error", "first"),
        snn_error=("snn_error", "mean"),
        snn_error_sd=("snn_error", "std"),
        agreement=("agreement", "mean"),
    )
    result.insert(4, "increment", result["snn_error"] - result["ann_error"])
    return result.reset_index().round(4)


def operations_table(cases: Sequence[tuple[Case, pd.DataFrame]], checkpoint: Checkpoint) -> pd.DataFrame:
    """Spikes per neuron of each layer, and AC and MAC operations for an image; mean over images and seeds."""
    spec = checkpoint.spec
    rows = []
    for case, table in cases:
        driven = sum(spec.macs(p) for p in spec.projections if spec[p.pre].kind == "if")
        row = setting(case, table, spec) | {"steps": case.steps, "seed": case.seed}
        row |= {"ac_per_image": table["ac"].mean(), "ac_input_per_image": table["ac_input"].mean()}
        row |= {"mac_per_image": driven, "ac_mac_ratio": table["ac"].mean() / driven}
        for population in (spec.input, *spec.spiking):
            row[f"spikes_per_neuron_{population.name}"] = table[f"spikes_{population.name}"].mean() / population.size
        rows.append(row)
    groups = pd.DataFrame(rows).groupby([*SETTING, "steps"], sort=False)
    result = groups.mean()
    result["seed"] = groups["seed"].agg(name_seeds)
    return result.reset_index().round(6)


def with_earlier(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table behind the rows that a file of the same network has of other settings or seeds.

    Rows of the same setting go if their seeds are all among those of the table.

    Raises
    ------
    UserError
        If the file is no such table.
    """
    try:
        earlier = pd.read_csv(path, dtype={"checkpoint": str, "seed": str})
        kept = earlier[earlier["checkpoint"].isin(table["checkpoint"])]
        new = {name: set(seeds.split()) for name, seeds in table.set_index(SETTING)["seed"].items()}
        old = kept.set_index(SETTING)["seed"].astype(str).items()
        kept = kept[[not set(seeds.split()) <= new.get(name, set()) for name, seeds in old]]
    except FileNotFoundError:
        return table
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is no table of this command ({error}); move it away") from error
    return pd.concat([kept, table]) if len(kept) else table
