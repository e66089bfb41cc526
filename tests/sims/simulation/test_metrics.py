"""Error, agreement, operations, energy and correlations, against numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import net
from recordings import of_spikes

from netspec.ann import ANN
from netspec.spec import Projection
from sims.simulation import metrics
from sims.simulation.recording import Recording
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

# Fan-out: conv 3x3 on 2x2 reaches all 4 positions x 2 channels = 8; pooled dense 3; shortcut 1; relay not counted
SPEC = net(
    "hand",
    {"input": (2, 2, 1), "conv": (2, 2, 2), "relay": (2, 2, 2), "output": (1, 1, 3)},
    Projection("input", "conv", kernel=3, padding=1),
    Projection("conv", "relay", kind="identity"),
    Projection("conv", "output", kind="dense", pool=2),
    Projection("relay", "output", kind="dense"),
    relays=("relay",),
)


@pytest.fixture
def two() -> Recording:
    """Two presentations, three steps: the first goes to class 1 by a tie, then to 2; the second to 0."""
    spikes = [[[0, 0, 0], [0, 0, 1], [0, 0, 1]], [[1, 0, 0], [0, 1, 0], [0, 0, 0]]]
    v = [[[0.1, 0.5, 0.4], [0, 0, 0], [0, 0, 0]], [[0, 0.9, 0.2], [0.3, 0, 0.5], [0.3, 0.2, 0.5]]]
    return of_spikes(spikes, v)


# Error and agreement


def test_error_at_every_step(two):
    np.testing.assert_array_equal(metrics.error(two, [2, 0]), [0.5, 0, 0])
    np.testing.assert_array_equal(metrics.error(two, [1, 1]), [0.5, 1, 1])


def test_error_at_chosen_steps(two):
    np.testing.assert_array_equal(metrics.error(two, [2, 0], steps=[3, 1]), [0, 0.5])
    np.testing.assert_array_equal(metrics.error(two, [2, 0], steps=1), [0.5])


def test_error_of_the_first_two_classes(two):
    np.testing.assert_array_equal(metrics.error(two, [2, 1], top=2), [0, 0, 0])
    np.testing.assert_array_equal(metrics.error(two, [0, 2], top=2), [1, 0.5, 0.5])
    np.testing.assert_array_equal(metrics.error(two, [0, 2], top=3), [0, 0, 0])


def test_agreement_is_the_share_of_equal_predictions(two):
    np.testing.assert_array_equal(metrics.agreement(two, [2, 0]), [0.5, 1, 1])
    np.testing.assert_array_equal(metrics.agreement(two, two.predictions(1), steps=[1]), [1])


def test_error_follows_predictions_even_where_everything_is_tied():
    rng = np.random.default_rng(0)
    many = of_spikes(rng.random((200, 4, 3)) < 0.3, rng.integers(0, 2, (200, 4, 3)))
    labels = rng.integers(0, 3, 200)
    expected = [np.mean(many.predictions(step) != labels) for step in (1, 2, 3, 4)]
    np.testing.assert_allclose(metrics.error(many, labels), expected)


@pytest.mark.parametrize("labels", [[1], [1, 2, 0], [[1, 2]], 1])
def test_error_wants_a_label_for_each_presentation(two, labels):
    with pytest.raises(ValueError, match="2 presentations need as many labels"):
        metrics.error(two, labels)


@pytest.mark.parametrize("labels", [[0, -1], [3, 0]])
def test_error_wants_labels_that_are_classes(two, labels):
    with pytest.raises(ValueError, match=f"labels are from 0 to 2, got {min(labels)} to {max(labels)}"):
        metrics.error(two, labels)


@pytest.mark.parametrize("steps", [0, [1, 4], [-1]])
def test_error_wants_steps_of_the_recording(two, steps):
    with pytest.raises(ValueError, match="the recording has steps 1 to 3, asked for were"):
        metrics.error(two, [0, 0], steps)


# Spikes, operations, energy

INPUT_ON = [[1, 0, 0, 2], [0, 0, 0, 0]]
CONV = [[1, 0, 0, 0, 0, 0, 0, 3], [2, 0, 0, 0, 0, 0, 0, 0]]


@pytest.fixture
def counted() -> Recording:
    return of_spikes(np.zeros((2, 3, 3), bool), np.zeros((2, 3, 3)), SPEC, input_on=INPUT_ON, conv=CONV)


def test_spikes_per_neuron_by_hand(counted):
    assert counted.spikes_per_neuron() == {"input": 3 / 8, "conv": 6 / 16, "output": 0}


def test_only_integrate_and_fire_neurons_drive():
    names = [projection.name for projection in metrics.driven_by_spikes(SPEC)]
    assert names == ["conv_to_relay", "conv_to_output"]


def test_ac_operations_by_hand(counted):
    # input: 3 and 0 spikes to 8 neurons each; conv: 4 and 2 spikes, each to 1 (shortcut) and 3 (dense) neurons
    np.testing.assert_array_equal(metrics.ac_operations(counted), [3 * 8 + 4 * 4, 2 * 4])
    np.testing.assert_array_equal(metrics.ac_operations(counted, metrics.driven_by_spikes(SPEC)), [16, 8])
    np.testing.assert_array_equal(metrics.ac_operations(counted, ()), [0, 0])


def test_ann_macs_by_hand():
    # conv: 4 positions x 4 taps x 2 channels; dense after pooling: 2 x 3; dense of the relay: 8 x 3
    assert metrics.ann_macs(SPEC) == 32 + 6 + 24
    assert metrics.ann_macs(SPEC, metrics.driven_by_spikes(SPEC)) == 6


def test_ac_mac_ratio_counts_every_event_but_not_the_input(counted):
    assert metrics.ac_mac_ratio(counted) == pytest.approx(12 / 6)


def test_layerwise_ratio_is_the_dot_product_of_the_paper(counted):
    assert metrics.layerwise_ac_mac_ratio(counted) == pytest.approx(6 / 16 * 6 / 6)


def test_the_ratios_agree_without_pooling_borders_and_shortcuts():
    joined = Projection("input", "hidden", kind="dense"), Projection("hidden", "output", kind="dense")
    spec = net("dense", {"input": (1, 1, 3), "hidden": (1, 1, 5), "output": (1, 1, 2)}, *joined)
    run = of_spikes(np.ones((4, 6, 2), bool), np.zeros((4, 6, 2)), spec, hidden=[1, 2, 0, 6, 0])
    assert metrics.ac_mac_ratio(run) == metrics.layerwise_ac_mac_ratio(run) == 9 / 5


def test_ratio_without_driven_projections_is_nan():
    run = of_spikes(np.ones((1, 2, 2), bool), np.zeros((1, 2, 2)))  # of the input alone
    assert np.isnan(metrics.ac_mac_ratio(run))
    assert np.isnan(metrics.layerwise_ac_mac_ratio(run))


def test_energy_in_joules(counted):
    assert metrics.energy(counted) == pytest.approx((6 * 4.6e-12, 12 * 0.9e-12))
    everything = metrics.energy(counted, SPEC.projections)
    assert everything.ann == pytest.approx(62 * 4.6e-12)
    assert everything.snn == pytest.approx((40 + 8) / 2 * 0.9e-12)


def test_energy_of_a_whole_run_has_the_input_in_it(counted):
    with_input = [projection for projection in SPEC.projections if projection.pre != "relay"]
    assert metrics.whole_energy(counted) == pytest.approx(metrics.energy(counted, with_input))
    current = replace(counted, settings={"coding": "current"})
    macs, additions = metrics.constant_operations(SPEC, counted.steps)
    (first,) = SPEC.outgoing("input")
    assert (macs, additions) == (SPEC.macs(first), counted.steps * SPEC[first.post].size)
    ann, snn = metrics.whole_energy(current)
    assert ann == pytest.approx((62 - 24) * 4.6e-12)  # 8 x 3 after the relay are in neither
    assert snn == pytest.approx(metrics.energy(counted).snn + macs * 4.6e-12 + additions * 0.9e-12)


# Rates against activations


def test_rate_correlation_by_hand(counted):
    rates = counted.spike_counts("conv").transpose(0, 3, 1, 2).astype(float)
    assert metrics.rate_correlation(counted, {"conv": 5 * rates + 2}) == {"conv": pytest.approx(1)}
    negative = metrics.rate_correlation(counted, {"conv": np.where(rates > 0, rates, -7)})
    assert negative == {"conv": pytest.approx(1)}
    opposite = metrics.rate_correlation(counted, {"conv": torch.from_numpy(9 - rates)})
    assert opposite == {"conv": pytest.approx(-1)}


def test_rate_correlation_counts_spikes_for_what_they_stand_for(counted):
    rates = counted.spike_counts("conv").transpose(0, 3, 1, 2).astype(float)
    of_channels = np.arange(1, 1 + rates.shape[1])
    activations = {"conv": rates * of_channels[:, None, None]}
    assert metrics.rate_correlation(counted, activations)["conv"] < 0.99
    assert metrics.rate_correlation(counted, activations, {"conv": of_channels}) == {"conv": pytest.approx(1)}
    assert metrics.rate_correlation(counted, activations, {"other": of_channels})["conv"] < 0.99


def test_rate_correlation_of_silent_populations_is_nan(counted):
    correlations = metrics.rate_correlation(counted, {"output": np.arange(6).reshape(2, 3, 1, 1)})
    assert list(correlations) == ["output"]
    assert np.isnan(correlations["output"])


def test_rate_correlation_wants_the_shape_of_the_population(counted):
    with pytest.raises(ValueError, match="activations of conv are"):
        metrics.rate_correlation(counted, {"conv": np.zeros((2, 2, 2, 3))})


def test_a_simulated_network_follows_its_ann():
    """Unit weights, subtracting reset: the rates are the activations, up to one spike."""
    joined = Projection("input", "hidden"), Projection("hidden", "output", kind="dense")
    spec = net("copy", {"input": (3, 4, 1), "hidden": (3, 4, 1), "output": (1, 1, 2)}, *joined)
    rng = np.random.default_rng(3)
    weights = {
        "input_to_hidden": np.ones((1, 1, 1, 1), np.float32),
        "hidden_to_output": np.repeat(np.float32([[0.2], [0.1]]), 12, axis=1),
    }
    x = rng.uniform(-1, 1, (6, 3, 4, 1)).astype(np.float32)
    run = ReferenceSimulator(spec, weights, reset="subtract").run(RunInput(x, {"hidden": 1, "output": 1}, steps=300))
    images = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    ann = ANN.from_weights(spec, weights)
    correlations = metrics.rate_correlation(run, ann.activations(images))
    assert correlations["hidden"] > 0.99
    agreement = metrics.agreement(run, ann(images).argmax(1), steps=[300])
    np.testing.assert_array_equal(agreement, [1])
    fired = run.spike_counts("hidden").sum(axis=(1, 2, 3))
    np.testing.assert_array_equal(metrics.ac_operations(run, metrics.driven_by_spikes(spec)), 2 * fired.astype(int))


# Single neurons


def test_intervals_are_within_neurons_and_presentations(two):
    # output spikes: presentation 0: neuron 2 at 1, 2; presentation 1: neuron 0 at 0, neuron 1 at 1
    np.testing.assert_array_equal(metrics.spike_intervals(two, "output", 0), [1])
    np.testing.assert_array_equal(metrics.spike_intervals(two, "output", 1), [])
    np.testing.assert_array_equal(metrics.spike_intervals(two, "output", 0, neuron=1), [])
    for presentation in (2, -1):
        with pytest.raises(ValueError, match=f"are of presentations 0 to 1, asked for was {presentation}"):
            metrics.spike_intervals(two, "output", presentation)
    many = of_spikes([[[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0], [0, 1, 0]]], np.zeros((1, 5, 3)))
    np.testing.assert_array_equal(metrics.spike_intervals(many, "output", 0), [1, 2, 3])
    np.testing.assert_array_equal(metrics.spike_intervals(many, "output", 0, neuron=1), [3])
