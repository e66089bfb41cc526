"""SPIKE-NORM: the largest input of one step in the spiking network becomes the threshold."""

import numpy as np
import pytest
from commands import tiny_checkpoint

from netspec.data import samples
from netspec.errors import UserError
from sims.conversion.spike_norm import spike_norm
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

NAMES = [population.name for population in tiny_checkpoint().spec.spiking]


def shown(n: int) -> np.ndarray:
    """The first samples, encoded."""
    return tiny_checkpoint().encode(samples().images[:n])


@pytest.fixture
def network():
    checkpoint = tiny_checkpoint()
    return ReferenceSimulator(checkpoint.spec, checkpoint.weights)


def test_given_thresholds_stay_and_are_used(network):
    x = shown(3)
    free = spike_norm(network, x, 20)
    given = spike_norm(network, x, 20, known={"conv1_1": 1.0, "conv5_3": 0.5})
    assert (given["conv1_1"], given["conv5_3"]) == (1.0, 0.5)
    assert list(given) == NAMES
    assert given["conv3_3"] > free["conv3_3"]  # more spikes come from a lower threshold
    assert spike_norm(network, x, 20, known=free | {"output": 7.0}) == free | {"output": 7.0}


def test_nothing_fires_at_a_threshold_that_nothing_reaches(network):
    with pytest.raises(UserError, match="conv3_3 receives no positive input in 20 steps of 3 images"):
        spike_norm(network, shown(3), 20, known={"conv1_1": 1e9})


def test_percentile_is_over_neurons_each_with_its_own_maximum(network):
    x = shown(3)
    peaks = network.run(RunInput(x, {}, 20, measured=("conv1_1",))).peaks["conv1_1"]
    assert len(peaks) == 8 * 8 * 4
    for percentile in (50, 99.9, 100):
        found = spike_norm(network, x, 20, percentile=percentile, known=dict.fromkeys(NAMES[1:], 1.0))
        assert found["conv1_1"] == pytest.approx(np.percentile(np.sort(peaks), percentile), rel=1e-6)


def test_layers_and_steps_are_reported(network):
    layers, steps = [], []
    found = spike_norm(
        network, shown(3), 20, workers=2, known={"conv1_1": 3.0},
        finished=lambda *layer: layers.append(layer), progress=steps.append,
    )  # fmt: skip
    assert layers == list(found.items())[1:]
    assert sum(steps) == 3 * 3 * 20
    assert min(steps) > 0


def test_parts_of_the_images_give_what_all_of_them_give(network):
    x = shown(5)
    assert spike_norm(network, x, 20, workers=2) == spike_norm(network, x, 20, workers=7) == spike_norm(network, x, 20)


def test_more_images_or_steps_never_lower_the_first_threshold(network):
    x, rest = shown(5), dict.fromkeys(NAMES[1:], 1.0)
    base = spike_norm(network, x[:2], 10, known=rest)["conv1_1"]
    assert spike_norm(network, x, 10, known=rest)["conv1_1"] >= base
    assert spike_norm(network, x[:2], 30, known=rest)["conv1_1"] > base
