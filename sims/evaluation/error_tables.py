"""Tables of many cases: errors against steps, spikes and operations, mean over images and seeds."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd

from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.evaluation.shards import LATER, Case, Setting
from sims.simulation.metrics import ann_macs, constant_operations, driven_by_spikes

__all__ = ["KEYS", "operations_table", "summary_table", "with_earlier"]

KEYS = [*(field.name for field in fields(Setting)), "images"]  # columns that tell evaluations apart


def name_seeds(seeds: pd.Series) -> str:
    """``'0 1 2'``."""
    return " ".join(map(str, sorted(seeds)))


def summary_table(cases: Sequence[tuple[Case, pd.DataFrame]], labels: np.ndarray, ann: np.ndarray) -> pd.DataFrame:
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
        A row for each setting and step: errors and increments in percent, images, seed (``'0 1 2'``). Steps that
        shards of an earlier version do not have are left out.
    """
    rows = []
    for case, table in cases:
        chosen = table["image"].to_numpy()
        ann_error = 100 * float((ann != labels)[chosen].mean())
        base = case.setting.columns() | {"images": len(table)}
        for step in case.reported:
            if table.get(f"snn_{step}", pd.Series([np.nan])).isna().any():
                continue
            snn = table[f"snn_{step}"].to_numpy()
            error = 100 * float((snn != labels[chosen]).mean())
            agreement = 100 * float((snn == ann[chosen]).mean())
            errors = {"ann_error": ann_error, "snn_error": error, "agreement": agreement}
            rows.append(base | {"steps": step, "seed": case.seed} | errors)
    table = pd.DataFrame(rows)
    result = table.groupby([*KEYS, "steps"], sort=False).agg(
        seed=("seed", name_seeds),
        ann_error=("ann_error", "first"),
        snn_error=("snn_error", "mean"),
        snn_error_sd=("snn_error", "std"),
        agreement=("agreement", "mean"),
    )
    result.insert(4, "increment", result["snn_error"] - result["ann_error"])
    table = result.reset_index().round(4)
    return table.assign(increment=table["increment"] + 0.0)  # not -0.0


def operations_table(cases: Sequence[tuple[Case, pd.DataFrame]], spec: NetSpec) -> pd.DataFrame:
    """Spikes per neuron of each layer, and AC and MAC operations for an image; mean over images and seeds."""
    macs, rows = ann_macs(spec, driven_by_spikes(spec)), []
    for case, table in cases:
        row = case.setting.columns() | {"images": len(table), "steps": case.steps, "seed": case.seed}
        row |= {"ac_per_image": table["ac"].mean(), "ac_input_per_image": table["ac_input"].mean()}
        row |= {"mac_per_image": macs, "ac_mac_ratio": table["ac"].mean() / macs if macs else np.nan}
        if case.setting.coding == "current":
            row["mac_current_per_image"], row["ac_current_per_image"] = constant_operations(spec, case.steps)
        for population in (spec.input, *spec.emitting):
            row[f"spikes_per_neuron_{population.name}"] = table[f"spikes_{population.name}"].mean() / population.size
        rows.append(row)
    groups = pd.DataFrame(rows).groupby([*KEYS, "steps"], sort=False)
    result = groups.mean()
    result["seed"] = groups["seed"].agg(name_seeds)
    return result.reset_index().round(6)


def with_earlier(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """A table after the rows that a file has of other settings, steps or seeds, or of another network of the same name.

    Rows of the same setting go if their seeds are those of the table, and so are their steps; or if their seeds are
    some of those of the table, and they end no later; of operations, if they are of the same steps.

    Raises
    ------
    UserError
        If the file is no such table.
    """
    try:
        earlier = pd.read_csv(path, dtype={"checkpoint": str, "seed": str, "thresholds": str})
        for after, (name, value) in enumerate(LATER.items(), 1):
            for rows in (table, earlier):
                if name not in rows:
                    rows.insert(list(rows).index("reset") + after, name, value)
        damaged = [name for name in (*KEYS, "seed") if earlier[name].isna().any()]
        damaged += [
            str(name)
            for name in table.select_dtypes("number")
            if name in earlier and not pd.api.types.is_numeric_dtype(earlier[name])
        ]
        if damaged:
            raise ValueError(f"damaged: {' '.join(damaged)}")
        new = {name: (set(rows["seed"].iloc[0].split()), set(rows["steps"])) for name, rows in table.groupby(KEYS)}
        curves = "ac_per_image" not in table  # operations are those of the last step alone
        ends = earlier.groupby([*KEYS, "seed"])["steps"].transform("max")

        def replaced(row: pd.Series) -> bool:
            seeds, shown = new.get(tuple(row[KEYS]), (set(), set()))
            earlier_seeds = set(row["seed"].split())
            if earlier_seeds == seeds:
                return row["steps"] in shown
            if curves and earlier_seeds < seeds:
                return row["end"] <= max(shown)
            return earlier_seeds < seeds and row["steps"] in shown

        kept = earlier[[not replaced(row) for _, row in earlier.assign(end=ends).iterrows()]]
    except FileNotFoundError:
        return table
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is no table of this command ({error}); move it away") from error
    if kept.empty:
        return table
    both = pd.concat([kept, table], ignore_index=True)
    place = both.groupby([*KEYS, "seed"], sort=False).ngroup()
    return both.assign(place=place).sort_values(["place", "steps"]).drop(columns="place")
