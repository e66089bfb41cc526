"""How often neurons spike: activities by name, and the weights, images and thresholds that give them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.simulation.run_input import RunInput, Simulator

CALIBRATED = "calibrated"
PAPERS = {"method": "spike-norm", "unit": False, "percentile": 100, "reset": "zero"}  # choice of a row
TRIALS = 15  # runs in search of thresholds
TOLERANCE = 0.08  # of an activity
SETTLED = 0.2  # error of the layer before that lets a layer's own error tell


def random_weights(spec: NetSpec, seed: int) -> dict[str, np.ndarray]:
    """Normal weights of variance 2 / fan-in."""
    draw = np.random.default_rng(seed % 2**64)
    shapes = {projection.name: spec.weight_shape(projection) for projection in spec.projections if projection.weighted}
    scales = {name: np.float32(np.sqrt(2 / np.prod(shape[1:]))) for name, shape in shapes.items()}
    return {name: draw.standard_normal(shape, dtype=np.float32) * scales[name] for name, shape in shapes.items()}


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
        row = table[(table[list(PAPERS)] == pd.Series(PAPERS)).all(axis=1)].iloc[0]
        prefix = "spikes_per_neuron_"
        columns = [name for name in map(str, table.columns) if name.startswith(prefix)]
        return {name.removeprefix(prefix): float(row[name]) / float(row["steps"]) for name in columns}
    except (OSError, KeyError, IndexError, ValueError) as error:
        choice = ", ".join(f"{column} {value}" for column, value in PAPERS.items())
        raise UserError(f"{path} is no table of operations with a row of {choice} ({error})") from error


def targets(spec: NetSpec, activity: str | float, table: Mapping[str, float]) -> dict[str, float]:
    """Spikes per neuron and step of each population that spikes: one number, or those of the table."""
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
    rates: Mapping[str, float],
    steps: int,
    seed: int = 0,
    start: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Thresholds at which each population fires as often as told, found by trial.

    All thresholds are changed after each run: a layer that fires too often by a factor gets a threshold higher by a
    power of that factor, less what its input will fall by, since weights, inputs and thresholds may be scaled
    together. The power grows while the error keeps its sign and shrinks when it changes, once the layer before is
    settled.

    Parameters
    ----------
    rates : mapping of str to float
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
    thresholds = dict(start or {name: first_guess(rates[pre[0]], rates[name], steps) for name, pre in sources.items()})
    # a few neurons in a few steps cannot be told to fire more exactly than by a spike or two
    tolerance = {p.name: TOLERANCE + 2 / (rates[p.name] * steps * p.size) for p in spec.spiking}
    best, least = thresholds, np.inf
    # weights have no mean, so that about half of the neurons never fire: near 0.5 a threshold does less and less
    power = {name: min(3.0, 1 / max(1 - 2 * rates[name], 0.01)) for name in sources}
    before = dict.fromkeys(sources, 0.0)
    for _ in range(TRIALS):
        counts = simulator.run(RunInput(x, thresholds, steps, seed)).spikes_per_neuron()
        error = {name: float(np.log(np.clip(counts[name] / steps / rates[name], 0.2, 5))) for name in sources}
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
        factor = {name: float(np.exp(power[name] * error[name] - inherited[name])) for name in sources}
        thresholds = {name: thresholds[name] * factor[name] for name in sources}
        before = error
    return best


def first_guess(before: float, rate: float, steps: int) -> float:
    """A threshold for weights of :func:`random_weights`, from the activities of the layer before and of this one.

    The synaptic input of a step is about as large as the layer before is active; a neuron that is to fire less than
    once in the whole run must do so on what it gathers in it.
    """
    return 0.6 * min(before / rate, float(np.sqrt(2 * before * steps * (1 + before * steps))))
