"""Numbers from recordings: error and agreement over time, spikes, operations, energy, rates against activations."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from netspec.spec import NetSpec, Projection
from sims.simulation.recording import Recording

__all__ = [
    "JOULES_PER_AC",
    "JOULES_PER_MAC",
    "Energy",
    "ac_mac_ratio",
    "ac_operations",
    "agreement",
    "ann_macs",
    "check_labels",
    "constant_operations",
    "driven_by_spikes",
    "energy",
    "error",
    "layerwise_ac_mac_ratio",
    "layerwise_ratio_of_means",
    "pearson",
    "raster_of",
    "rate_correlation",
    "spike_intervals",
    "whole_energy",
]

# One 32-bit floating-point operation in 45 nm CMOS (Horowitz 2014, as in Han et al. 2015)
JOULES_PER_MAC = 4.6e-12  # a multiplication, 3.7 pJ, and an addition
JOULES_PER_AC = 0.9e-12  # an addition


class Energy(NamedTuple):
    """Energy of the arithmetic of one image, in joules."""

    ann: float
    snn: float


def error(recording: Recording, labels: ArrayLike, steps: ArrayLike | None = None, top: int = 1) -> np.ndarray:
    """Classification error against time (figures 3 and 4 of the paper).

    Parameters
    ----------
    recording : Recording
    labels : array_like of int
        Class of each presentation, (presentations,).
    steps : array_like of int, optional
        After how many steps the class is read, each from 1 to ``recording.steps``; by default after every one.
    top : int
        A presentation counts as right if its class is among the ``top`` first.

    Returns
    -------
    numpy.ndarray
        float64, (number of ``steps``,): fraction of the presentations that is wrong.

    Raises
    ------
    ValueError
        If there is not one label for each presentation, or a label or a step is out of range.
    """
    label, chosen = np.asarray(labels), _steps(recording, steps)
    if label.shape != (recording.presentations,):
        raise ValueError(f"{recording.presentations} presentations need as many labels, got an array of {label.shape}")
    check_labels(recording, label)
    return np.array([np.mean(_rank(recording, label, step) >= top) for step in chosen])


def check_labels(recording: Recording, labels: np.ndarray) -> None:
    """Raise ValueError unless all are classes of the network; -1, of images of unknown class, is none."""
    if not 0 <= labels.min(initial=0) <= labels.max(initial=0) < recording.spec.output.size:
        raise ValueError(f"labels are from 0 to {recording.spec.output.size - 1}, got {labels.min()} to {labels.max()}")


def agreement(recording: Recording, ann_predictions: ArrayLike, steps: ArrayLike | None = None) -> np.ndarray:
    """Fraction of the presentations that get the class the ANN gives them, against time; see :func:`error`."""
    return 1 - error(recording, ann_predictions, steps)


def _steps(recording: Recording, steps: ArrayLike | None) -> np.ndarray:
    chosen = np.arange(1, recording.steps + 1) if steps is None else np.atleast_1d(steps)
    if chosen.size and not 1 <= chosen.min() <= chosen.max() <= recording.steps:
        raise ValueError(
            f"the recording has steps 1 to {recording.steps}, asked for were {chosen.min()} to {chosen.max()}"
        )
    return chosen


def _rank(recording: Recording, label: np.ndarray, step: int) -> np.ndarray:
    """How many classes come before the given one, in the order of :meth:`Recording.predictions`; (presentations,)."""
    counts, v = recording.output_at(step)
    own_count, own_v = (np.take_along_axis(values, label[:, None], axis=1) for values in (counts, v))
    first = (v > own_v) | ((v == own_v) & (np.arange(v.shape[1]) < label[:, None]))
    return np.sum((counts > own_count) | ((counts == own_count) & first), axis=1)


def driven_by_spikes(spec: NetSpec) -> tuple[Projection, ...]:
    """The projections that IF neurons drive: "only ReLU/IF spiking neuron activations" (section 7.4).

    Those of the input are left out, and those of relays, which pass graded values on; max pooling's are there.
    """
    return tuple(projection for projection in spec.projections if spec[projection.pre] in spec.emitting)


def ac_operations(recording: Recording, projections: Sequence[Projection] | None = None) -> np.ndarray:
    """Accumulate operations: each spike, once for every neuron it reaches; int64, (presentations,).

    Along the given projections, by default along all, the input's too.
    """
    chosen = recording.spec.projections if projections is None else projections
    none = np.zeros(recording.presentations, dtype=np.int64)
    return sum((recording.synaptic_operations(projection) for projection in chosen), none)


def ann_macs(spec: NetSpec, projections: Sequence[Projection] | None = None) -> int:
    """Multiply-accumulate operations of the ANN for one image, over the given projections (by default all)."""
    return sum(spec.macs(projection) for projection in (spec.projections if projections is None else projections))


def constant_operations(spec: NetSpec, steps: int) -> tuple[int, int]:
    """What a constant current costs an image: the first layer's MACs, once, and an addition a neuron and step."""
    projections = spec.carrying_current
    driven = {projection.post for projection in projections if spec[projection.post].kind == "if"}
    return ann_macs(spec, projections), steps * sum(spec[name].size for name in driven)


def ac_mac_ratio(recording: Recording) -> float:
    """Accumulate operations of the spiking network for each multiply-accumulate of the ANN (section 7.4).

    Over the projections that IF neurons drive, mean over the presentations. Every event is counted where it
    arrives: with pooling folded into a projection a spike reaches ``pool**2`` times the neurons a pooled value
    does, and identity shortcuts add operations without a counterpart in the ANN.

    Returns
    -------
    float
        NaN if no IF neuron drives a weighted projection.
    """
    counted = driven_by_spikes(recording.spec)
    return _ratio(float(ac_operations(recording, counted).mean()), ann_macs(recording.spec, counted))


def layerwise_ac_mac_ratio(recording: Recording) -> float:
    """The ratio as the paper words it: mean spike counts of the layers, weighted by their synaptic operations.

    "The dot-product of the average cumulative neural spike count for a particular layer and the corresponding
    number of synaptic operations" (section 7.4), the latter being the ANN's: spikes are as if averaged by the
    pooling first, and identity shortcuts are free. :func:`ac_mac_ratio` counts every event instead.

    Returns
    -------
    float
        NaN if no IF neuron drives a weighted projection.
    """
    return layerwise_ratio_of_means(recording.spec, recording.spikes_per_neuron())


def layerwise_ratio_of_means(spec: NetSpec, means: Mapping[str, float]) -> float:
    """:func:`layerwise_ac_mac_ratio` from the mean spikes per neuron of each population of IF neurons."""
    counted = driven_by_spikes(spec)
    return _ratio(sum(means[projection.pre] * spec.macs(projection) for projection in counted), ann_macs(spec, counted))


def _ratio(acs: float, macs: int) -> float:
    return acs / macs if macs else float("nan")


def energy(recording: Recording, projections: Sequence[Projection] | None = None) -> Energy:
    """Energy of the arithmetic for one image: 4.6 pJ for each MAC of the ANN, 0.9 pJ for each AC of the SNN.

    Over the given projections, by default those that IF neurons drive; of the SNN the mean over the presentations.
    Memory access, neuron updates and the graded values of relays are not in it.
    """
    counted = driven_by_spikes(recording.spec) if projections is None else projections
    acs = float(ac_operations(recording, counted).mean())
    return Energy(JOULES_PER_MAC * ann_macs(recording.spec, counted), JOULES_PER_AC * acs)


def whole_energy(recording: Recording) -> Energy:
    """:func:`energy` with the input's: of its spikes, or what a constant current costs; relays are in neither."""
    spec = recording.spec
    driven = driven_by_spikes(spec)
    if recording.settings.get("coding") != "current":
        return energy(recording, (*spec.outgoing(spec.input.name), *driven))
    macs, acs = constant_operations(spec, recording.steps)
    ann, snn = energy(recording, driven)
    first = JOULES_PER_MAC * macs
    return Energy(ann + first, snn + first + JOULES_PER_AC * acs)


def rate_correlation(
    recording: Recording, activations: Mapping[str, ArrayLike], spike_values: Mapping[str, ArrayLike] | None = None
) -> dict[str, float]:
    """Correlation of spike rates with the activations of the ANN, for each population of IF neurons.

    Parameters
    ----------
    recording : Recording
    activations : mapping of str to array_like
        (presentations, channels, height, width) for each population, as from ``ANN.activations`` for the same
        images. Negative values (the output's, before its ReLU) count as 0: no rate is below.
    spike_values : mapping of str to array_like, optional
        By which spikes were multiplied: one number, or one of each channel or neuron.

    Returns
    -------
    dict of str to float
        Pearson's coefficient over all neurons and presentations; NaN where either side is constant. Populations
        without activations are left out.

    Raises
    ------
    ValueError
        If activations do not have the shape of the recorded population.
    """
    correlations = {}
    for population in recording.spec.spiking:
        if population.name not in activations:
            continue
        counts, value = recording.spike_counts(population.name), (spike_values or {}).get(population.name, 1)
        rates = (counts * np.asarray(value, dtype=np.float64)).transpose(0, 3, 1, 2)
        activation = np.asarray(activations[population.name])
        if activation.shape != rates.shape:
            raise ValueError(f"activations of {population.name} are {activation.shape}, the spikes {rates.shape}")
        correlations[population.name] = pearson(rates, np.maximum(activation, 0))
    return correlations


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's coefficient over all elements; NaN where either side is constant."""
    a, b = (values.astype(np.float64).ravel() for values in (a, b))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def raster_of(recording: Recording, name: str, presentation: int) -> tuple[np.ndarray, np.ndarray]:
    """Step and neuron of each spike in one presentation; raises ValueError if it was not recorded."""
    recorded = recording.recorded_presentations([name])
    if not 0 <= presentation < recorded:
        raise ValueError(f"rasters of {name} are of presentations 0 to {recorded - 1}, asked for was {presentation}")
    step, neuron = recording.rasters[name].T
    chosen = step // recording.steps == presentation
    return step[chosen] % recording.steps, neuron[chosen]


def spike_intervals(recording: Recording, name: str, presentation: int, neuron: int | None = None) -> np.ndarray:
    """Steps from each spike of a neuron to its next, within one presentation.

    Parameters
    ----------
    recording : Recording
    name : str
        A group with a raster.
    presentation : int
    neuron : int, optional
        By default all neurons of the group.

    Returns
    -------
    numpy.ndarray
        int64, by neuron, then in order of time.

    Raises
    ------
    ValueError
        If no raster of that presentation was recorded.
    """
    step, index = raster_of(recording, name, presentation)
    if neuron is not None:
        step, index = step[index == neuron], index[index == neuron]
    order = np.lexsort((step, index))
    step, index = step[order].astype(np.int64), index[order]
    return np.diff(step)[np.diff(index) == 0]
