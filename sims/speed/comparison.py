"""Arithmetic of the benchmark's tables: ratios, crossings, a law of growth."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

BASE = ["network", "activity"]


def ratios(table: pd.DataFrame, base: str = "shared") -> pd.DataFrame:
    """Every simulator relative to ``base`` on the same network at the same activity; above 1: base is better.

    Returns
    -------
    pandas.DataFrame
        ``time_ratio``: of the times per synaptic operation, which are those per step, since the spikes are the same.
        ``peak_memory_ratio`` and ``bytes_per_synapse_ratio``: where they are known. ``spike_difference``: relative
        difference of the numbers of spikes of the whole run.
    """
    reference = table[table["simulator"] == base]
    both = table[table["simulator"] != base].merge(reference, "left", BASE, suffixes=("", "_base"))
    return both[[*BASE, "simulator"]].assign(
        time_ratio=both["gsops_per_second_base"] / both["gsops_per_second"],
        peak_memory_ratio=both["peak_memory_mb"] / both["peak_memory_mb_base"],
        bytes_per_synapse_ratio=both["bytes_per_synapse"] / both["bytes_per_synapse_base"],
        spike_difference=both["spikes"] / both["spikes_base"].where(both["spikes_base"] > 0) - 1,
    )


def crossings(table: pd.DataFrame) -> pd.DataFrame:
    """For each layer in a table of layers, the activity of its input at which dense torch becomes as fast."""
    rows = []
    for (network, layer), part in table.groupby(["network", "layer"], sort=False):
        row: dict[str, object] = {"network": network, "layer": layer}
        for column in map(str, part.filter(regex="^torch_")):
            constant = float(part[column].iloc[0])
            name = f"crossing_{column.removesuffix('_seconds_per_step')}"
            times = (part["input_spikes_per_neuron_step"], part["shared_seconds_per_step"])
            row |= {column: constant, name: crossing(*times, constant)}
        rows.append(row)
    return pd.DataFrame(rows)


def crossing(activity: ArrayLike, seconds: ArrayLike, constant: float) -> float:
    """The activity at which a time that grows with activity reaches a constant one.

    Linear between the measured points and, along the nearest two of them, beyond. 0 if the time is above the constant
    at any activity, infinity if it is below even at one spike per neuron and step.
    """
    x = np.sort(np.asarray(activity, dtype=float))
    y = np.maximum.accumulate(np.asarray(seconds, dtype=float)[np.argsort(activity)])
    if len(x) < 2 or x[0] == x[-1]:
        raise ValueError(f"two different activities are needed, got {x.tolist()}")
    k = int(np.clip(np.searchsorted(y, constant), 1, len(x) - 1))
    slope = (y[k] - y[k - 1]) / (x[k] - x[k - 1])
    if slope <= 0:
        return float("inf") if constant > y[k] else 0.0
    reached = x[k - 1] + (constant - y[k - 1]) / slope
    return float("inf") if reached > 1 else max(0.0, float(reached))


def growth_fit(table: pd.DataFrame) -> dict[str, float]:
    """Least squares of seconds per step = a * SOP + b * neurons + c.

    The relative residuals are squared: times span orders of magnitude, and each row is to count alike.

    Returns
    -------
    dict of str to float
        ``a``, ``b``, ``c`` in seconds; ``r2`` of the times themselves; ``largest_relative_residual``.
    """
    seconds = table["seconds_per_step"].to_numpy(dtype=float)
    terms = np.stack([table["sops_per_step"], table["neurons"], np.ones(len(table))], axis=1).astype(float)
    if len(table) < 3:
        raise ValueError(f"three or more rows are needed for a fit, got {len(table)}")
    relative = terms / seconds[:, None]
    scale = np.abs(relative).max(axis=0)  # columns differ by ten orders of magnitude
    solution = np.linalg.lstsq(relative / scale, np.ones(len(table)), rcond=None)[0] / scale
    residual = seconds - terms @ solution
    return {
        **dict(zip("abc", map(float, solution), strict=True)),
        "r2": float(1 - (residual**2).sum() / ((seconds - seconds.mean()) ** 2).sum()),
        "largest_relative_residual": float(np.abs(residual / seconds).max()),
    }
