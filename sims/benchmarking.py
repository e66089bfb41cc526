"""What the benchmark measures with, and the arithmetic of its tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.dense import DenseSimulator, dense_input
from sims.runtime import RunInput, Simulator
from sims.standalone import StandaloneSimulator

__all__ = [
    "activity_table",
    "crossing",
    "growth_fit",
    "layer_seconds",
    "measure",
    "measure_dense",
    "random_image",
    "random_weights",
    "ratios",
    "targets",
    "thresholds_for",
]

CALIBRATED = "calibrated"
TRIALS = 15  # runs in search of thresholds
TOLERANCE = 0.08  # of an activity
SETTLED = 0.2  # error of the layer before that lets a layer's own error tell
BASE = ["network", "activity"]


def random_weights(spec: NetSpec, seed: int) -> dict[str, np.ndarray]:
    """Normal weights of variance 2 / fan-in."""
    draw = np.random.default_rng(seed % 2**64)
    weights = {}
    for projection in spec.projections:
        if projection.weighted:
            shape = spec.weight_shape(projection)
            scale = np.float32(np.sqrt(2 / np.prod(shape[1:])))
            weights[projection.name] = draw.standard_normal(shape, dtype=np.float32) * scale
    return weights


def random_image(spec: NetSpec, activity: float, seed: int) -> np.ndarray:
    """One image, uniform noise, (1, height, width, channels), whose pixels spike as often as told on average."""
    draw = np.random.default_rng(seed % 2**64)
    return draw.uniform(-2 * activity, 2 * activity, (1, *spec.input.shape)).astype(np.float32)


def activity_table(path: str | Path) -> dict[str, float]:
    """Spikes per neuron and step of each population in a table of operations that ``evaluate.py`` wrote.

    The row is that of SPIKE-NORM by the maximum and reset to zero: the paper's choice.
    """
    try:
        table = pd.read_csv(path)
        row = table[table["thresholds"].str.startswith("spike-norm 100") & (table["reset"] == "zero")].iloc[0]
        prefix = "spikes_per_neuron_"
        columns = [name for name in map(str, table.columns) if name.startswith(prefix)]
        return {name.removeprefix(prefix): float(row[name]) / float(row["steps"]) for name in columns}
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise UserError(f"{path} is no table of operations with a row 'spike-norm 100', 'zero' ({error})") from error


def targets(spec: NetSpec, activity: str | float, table: Mapping[str, float]) -> dict[str, float]:
    """Wanted spikes per neuron and step of each population that spikes: one number, or those of the table."""
    names = [spec.input.name, *(population.name for population in spec.spiking)]
    if activity != CALIBRATED:
        return dict.fromkeys(names, float(activity))
    missing = [name for name in names if not table.get(name, 0) > 0]
    if missing:
        raise UserError(f"the table of calibrated activities lacks {missing[0]} of {spec.name}; give numbers instead")
    return {name: table[name] for name in names}


def thresholds_for(
    simulator: Simulator,
    x: np.ndarray,
    wanted: Mapping[str, float],
    steps: int,
    seed: int = 0,
    start: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Thresholds at which each population fires as often as wanted, found by trial.

    All thresholds are changed after each run: a layer that fires too often by a factor gets a threshold higher by a
    power of that factor, less what its input will fall by, since weights, inputs and thresholds may be scaled
    together. The power grows while the error keeps its sign and shrinks when it changes, once the layer before is
    settled.

    Parameters
    ----------
    wanted : mapping of str to float
        Spikes per neuron and step, from :func:`targets`.
    start : mapping of str to float, optional
        Thresholds to begin with.

    Returns
    -------
    dict of str to float
        Those of the best run; the tolerance is 8 % and two spikes in each population, the number of runs is bounded.
    """
    spec = simulator.spec
    sources = {p.name: [q.pre for q in spec.incoming(p.name)] for p in spec.spiking}
    thresholds = dict(
        start or {name: first_guess(wanted[pre[0]], wanted[name], steps) for name, pre in sources.items()}
    )
    # a few neurons in a few steps cannot be told to fire more exactly than by a spike or two
    tolerance = {p.name: TOLERANCE + 2 / (wanted[p.name] * steps * p.size) for p in spec.spiking}
    best, least = thresholds, np.inf
    # weights have no mean, so that about half of the neurons never fire: near 0.5 a threshold does less and less
    power = {name: min(3.0, 1 / max(1 - 2 * wanted[name], 0.01)) for name in sources}
    before = dict.fromkeys(sources, 0.0)
    for _ in range(TRIALS):
        counts = simulator.run(RunInput(x, thresholds, steps, seed)).spikes_per_neuron()
        error = {name: float(np.log(np.clip(counts[name] / steps / wanted[name], 0.2, 5))) for name in sources}
        worst = max(abs(error[name]) / tolerance[name] for name in sources)
        if worst < least:
            best, least = thresholds, worst
        if worst < 1:
            break
        inherited = {name: float(np.mean([error.get(pre, 0.0) for pre in pres])) for name, pres in sources.items()}
        for name in sources:
            if abs(inherited[name]) < SETTLED and before[name]:
                power[name] *= 0.6 if error[name] * before[name] < 0 else 1.4
                power[name] = min(3.0, max(0.3, power[name]))
        thresholds = {
            name: float(thresholds[name] * np.exp(power[name] * error[name] - inherited[name])) for name in sources
        }
        before = error
    return best


def first_guess(before: float, wanted: float, steps: int) -> float:
    """A threshold for weights of :func:`random_weights`, from the activities of the layer before and of this one.

    The synaptic input of a step is about as large as the layer before is active; a neuron that is to fire less than
    once in the whole run must do so on what it gathers in it.
    """
    return 0.6 * min(before / wanted, float(np.sqrt(2 * before * steps * (1 + before * steps))))


def measure(simulator: StandaloneSimulator, given: RunInput, repetitions: int) -> dict[str, float]:
    """One row of a table: the compiled network, run again and again."""
    stepping, whole = [], []
    for _ in range(repetitions):
        start = time.perf_counter()
        recording = simulator.run(given)
        whole.append(time.perf_counter() - start)
        stepping.append(simulator.run_seconds)
    spec = simulator.spec
    counts = {p.name: recording.spike_counts(p.name)[0] for p in (spec.input, *spec.spiking)}
    return speed(spec, counts, given.steps, stepping) | {
        "startup_seconds": float(np.median(np.subtract(whole, stepping))),
        "build_seconds": simulator.seconds["build"],
        "compile_seconds": simulator.seconds["compile"],
        "peak_memory_mb": simulator.peak_memory / 1e6,
    }


def measure_dense(
    simulator: DenseSimulator, given: RunInput, repetitions: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The same row for dense torch, and the median seconds per step of each of its layers."""
    spec, shown = simulator.spec, dense_input(given.x[0], given.seed, given.steps)
    layers = []
    for _ in range(repetitions):
        counts = simulator.run(shown, given.thresholds)
        layers.append(simulator.seconds)
    counts[spec.input.name] = sum(np.abs(signed[0].permute(1, 2, 0).numpy()) for signed in shown)
    row = speed(spec, counts, given.steps, [sum(run.values()) for run in layers])
    return row, {name: float(np.median([run[name] for run in layers])) / given.steps for name in layers[0]}


def speed(spec: NetSpec, counts: Mapping[str, np.ndarray], steps: int, seconds: Sequence[float]) -> dict[str, float]:
    """Time per step (median and spread) and synaptic operations (SOP) of runs with the given spike counts."""
    operations = sum(float((spec.fan_out(p) * counts[p.pre]).sum()) for p in spec.projections)
    spikes = sum(float(counts[p.name].sum()) for p in spec.spiking)
    each = np.asarray(seconds) / steps
    median = float(np.median(each))
    return {
        "steps": steps,
        "spikes": spikes,
        "spikes_per_neuron_step": spikes / steps / sum(p.size for p in spec.spiking),
        "sops_per_step": operations / steps,
        "seconds_per_step": median,
        "seconds_per_step_min": float(each.min()),
        "seconds_per_step_max": float(each.max()),
        "steps_per_second": 1 / median,
        "gsops_per_second": operations / steps / median / 1e9,
    }


def layer_seconds(spec: NetSpec, profiled: Mapping[str, float], steps: int) -> dict[str, float]:
    """Seconds per step of each layer: its incoming projections, then threshold, reset and count."""
    signs = ("on", "off")
    found = {}
    for population in spec.spiking:
        objects = [f"{population.name}_if_thresholder"]
        for projection in spec.incoming(population.name):
            pre = [f"input_{sign}" for sign in signs] if projection.pre == spec.input.name else [projection.pre]
            objects += [f"{name}_to_{population.name}" for name in pre]
        found[population.name] = sum(profiled[name] for name in objects) / steps
    return found


def ratios(table: pd.DataFrame, base: str = "shared") -> pd.DataFrame:
    """Every simulator relative to ``base`` on the same network at the same activity; above 1: base is better.

    Returns
    -------
    pandas.DataFrame
        ``time_ratio``: of the times per synaptic operation, which are those per step, since the spikes are the same.
        ``peak_memory_ratio`` and ``bytes_per_synapse_ratio``: where they are known. ``spike_difference``: relative
        difference of the numbers of spikes of the whole run.
    """
    reference = table[table["simulator"] == base].set_index(BASE)
    rows = []
    for _, row in table[table["simulator"] != base].iterrows():
        other = reference.loc[tuple(row[BASE])]
        rows.append(
            {
                **row[[*BASE, "simulator"]],
                "time_ratio": other["gsops_per_second"] / row["gsops_per_second"],
                "peak_memory_ratio": row["peak_memory_mb"] / other["peak_memory_mb"],
                "bytes_per_synapse_ratio": row["bytes_per_synapse"] / other["bytes_per_synapse"],
                "spike_difference": row["spikes"] / other["spikes"] - 1 if other["spikes"] else np.nan,
            }
        )
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
    found = x[k - 1] + (constant - y[k - 1]) / slope
    return float("inf") if found > 1 else max(0.0, float(found))


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
    spread = ((seconds - seconds.mean()) ** 2).sum()
    return {
        **dict(zip("abc", map(float, solution), strict=True)),
        "r2": float(1 - (residual**2).sum() / spread),
        "largest_relative_residual": float(np.abs(residual / seconds).max()),
    }
