"""Integrate-and-fire neurons beyond the plain case: measured input, pixels that may be left alone, thresholds."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from networks import NETWORKS, assert_same, case, exact_weights, groups, images, net, pair

from netspec.ann import ANN
from netspec.spec import Projection
from sims.brian.inprocess import InProcessSimulator
from sims.brian.runtime import RUNTIMES
from sims.simulation.recording import Recording
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput
from sims.simulation.wiring import SYNAPSES


def neuron(weights: list[float], x: list[float], synapses: str = "shared", reset: str = "zero", **run) -> Recording:
    """What an output neuron of threshold 1 gives with these weights from inputs of these values; the reference, too."""
    spec, given = pair((1, len(x), 1)), {"input_to_output": np.array([weights], dtype=np.float32)}
    run_input = RunInput(np.array(x, dtype=np.float32).reshape(1, 1, -1, 1), {"output": 1}, **run)
    recording = InProcessSimulator(spec, given, synapses, reset, "numpy").run(run_input)
    assert_same(recording, ReferenceSimulator(spec, given, reset).run(run_input))
    return recording


# Measuring the synaptic input (Algorithm 1 of the paper)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_measured_peaks_are_those_of_the_reference(simulator, runtime):
    """Population after population, as SPIKE-NORM goes; a measured one follows on one that fired before."""
    spec, weights, usual = case("garden")
    reference = ReferenceSimulator(spec, weights)
    thresholds = {}
    for population in spec.spiking:
        run_input = RunInput(usual.x, thresholds, 8, measured=(population.name,), rasters=groups(spec))
        expected = reference.run(run_input)
        assert expected.peaks[population.name].max() > 0
        assert_same(simulator("garden", runtime).run(run_input), expected)
        thresholds[population.name] = usual.thresholds[population.name]
    assert_same(simulator("garden", runtime).run(usual), reference.run(usual))  # nothing is left of it


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_populations_without_threshold_never_fire_while_one_is_measured(simulator, runtime):
    spec, _, usual = case("garden")
    recording = simulator("garden", runtime).run(RunInput(usual.x, {}, 15, measured=("a",)))
    assert recording.spike_counts("input").any()
    assert not any(recording.spike_counts(population.name).any() for population in spec.spiking)
    assert recording.peaks["a"].shape == (spec["a"].size,)


def test_several_populations_can_be_measured_in_one_run(simulator):
    spec, weights, usual = case("garden")
    measured = ("a", "b", "output")
    run_input = RunInput(usual.x, usual.thresholds, 10, measured=measured)
    recording = simulator("garden", "numpy").run(run_input)
    assert list(recording.peaks) == list(measured)
    assert_same(recording, ReferenceSimulator(spec, weights).run(run_input))


def test_spiking_inputs_coincide_where_analog_ones_average():
    """The paper's example (section 4.2): inputs 0.5 and 1 with unit weights; 1.5 in the ANN, 2 in the SNN."""
    ann = ANN.from_weights(pair(), {"input_to_output": np.ones((1, 2), dtype=np.float32)})
    assert ann.activations(torch.tensor([[[[0.5, 1]]]]))["output"].item() == 1.5
    assert neuron([1, 1], [0.5, 1], steps=20, measured=("output",)).peaks["output"].tolist() == [2]


def test_peak_is_the_input_of_one_step_without_the_membrane_potential():
    recording = neuron([0.25, 0.5], [1, 1], steps=9, measured=("output",))
    assert recording.peaks["output"].tolist() == [0.75]
    assert not recording.output_v.any()


def test_peak_is_not_below_zero():
    assert neuron([-0.25, -0.5], [1, 1], steps=3, measured=("output",)).peaks["output"].tolist() == [0]


# Pixels that no input has brought to threshold are not visited


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_neurons_far_above_threshold_fire_on_without_input(simulator, runtime):
    """With reset by subtraction; stock Brian2 visits every group in every step, the reference too."""
    spec, weights, _ = case("garden")
    x = images(spec, 3, gain=0.01)
    thresholds = dict.fromkeys((population.name for population in spec.spiking), 1 / 16)
    run_input = RunInput(x, thresholds, 60, rasters=groups(spec), raster_presentations=3)
    expected = ReferenceSimulator(spec, weights, "subtract").run(run_input)
    arriving = np.union1d(expected.rasters["input_on"][:, 0], expected.rasters["input_off"][:, 0])
    alone = np.setdiff1d(expected.rasters["a"][:, 0], arriving)
    assert len(alone) > 10
    assert_same(simulator("garden", runtime, "shared", "subtract").run(run_input), expected)
    if runtime == "numpy":
        assert_same(simulator("garden", runtime, "explicit", "subtract").run(run_input), expected)


@pytest.mark.parametrize("synapses", SYNAPSES)
def test_excess_is_given_off_spike_by_spike(synapses):
    """One input spike of 3.5 thresholds: three output spikes, one a step, and a rest."""
    recording = neuron([3.5], [0.05], synapses, "subtract", steps=100, seed=2, rasters=("input_on",))
    first, second = recording.rasters["input_on"][:2, 0]
    assert second - first > 4
    fired = recording.rasters["output"][:, 0]
    assert fired[fired < second].tolist() == [first, first + 1, first + 2]
    assert recording.output_v[0, first : first + 4, 0].tolist() == [2.5, 1.5, 0.5, 0.5]


def test_reset_to_zero_forgets_the_excess():
    recording = neuron([3.5], [0.2], steps=100, rasters=("input_on",))
    assert recording.counts.sum() > 0
    np.testing.assert_array_equal(recording.rasters["output"], recording.rasters["input_on"])
    assert not recording.output_v.any()


# Firing


def test_a_neuron_fires_when_it_reaches_its_threshold():
    """At v >= v_th: two spikes of weight 1/2 for a threshold of 1, within the step of the second."""
    recording = neuron([0.5], [1], steps=6)
    assert recording.rasters["output"][:, 0].tolist() == [1, 3, 5]
    assert recording.output_v[0, :, 0].tolist() == [0.5, 0, 0.5, 0, 0.5, 0]


def test_a_negative_potential_has_no_bound():
    assert neuron([2], [-1], steps=50).output_v[0, :, 0].tolist() == [-2.0 * (step + 1) for step in range(50)]


@pytest.mark.parametrize("synapses", SYNAPSES)
def test_a_spike_crosses_all_layers_within_its_step(synapses):
    """Pseudo-simultaneous (section 4.1): no lag from layer to layer, relays included."""
    sheets = ("input", "a", "r", "b", "s", "output")
    joined = [Projection(pre, post, kind="dense") for pre, post in pairwise(sheets)]
    spec = net("chain", dict.fromkeys(sheets, (1, 1, 1)), *joined, relays="rs")
    weights = {projection.name: np.ones((1, 1), dtype=np.float32) for projection in joined}
    x = np.full((1, 1, 1, 1), 0.3, dtype=np.float32)
    run_input = RunInput(x, dict.fromkeys(("a", "b", "output"), 1), 30, rasters=groups(spec))
    recording = InProcessSimulator(spec, weights, synapses, target="numpy").run(run_input)
    spikes = recording.rasters["input_on"][:, 0].tolist()
    assert 0 < len(spikes) < 30
    for name in ("a", "b", "output"):
        assert recording.rasters[name][:, 0].tolist() == spikes


def test_a_relay_passes_negative_values_on():
    """A junction without ReLU: the rate of what it sends follows the sign of what it gets."""
    spec = NETWORKS["sprout"]()
    weights = exact_weights(spec)
    weights["input_to_a"] = np.ones_like(weights["input_to_a"])
    weights["a_to_r"] = np.full_like(weights["a_to_r"], -0.25)
    weights["a_to_output"] = np.zeros_like(weights["a_to_output"])
    weights["r_to_output"] = np.full_like(weights["r_to_output"], -0.25)
    x = np.ones((1, *spec.input.shape), dtype=np.float32)
    recording = InProcessSimulator(spec, weights, target="numpy").run(RunInput(x, {"a": 1, "output": 1e6}, 4))
    # each of 12 relay neurons gets 12 spikes, together -3, and adds 3/4 to every output
    assert recording.output_v[0].tolist() == [[9.0 * step] * 4 for step in range(1, 5)]
