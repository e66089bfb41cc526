"""Layer by layer gives the reference's spikes; methods against a few lines of their own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from commands import tiny_checkpoint
from networks import case

from netspec.ann import fire
from netspec.checkpoint import Checkpoint
from netspec.conversion import pooled_values
from netspec.data import samples
from netspec.errors import UserError
from sims.conversion.activations import activations_of, from_activations
from sims.conversion.layerwise import layer_by_layer
from sims.conversion.search import INITIAL, PERCENTILES, search
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

STEPS = 6


def network() -> tuple[Checkpoint, np.ndarray]:
    checkpoint = tiny_checkpoint()
    return checkpoint, checkpoint.encode(samples().images[:6])


@pytest.mark.parametrize("name", ["sprout", "orchard", "residual-if", "residual-relay"])
def test_layer_by_layer_is_step_by_step(name):
    spec, weights, usual = case(name)
    x = np.round(16 * usual.x) / 16  # exact in binary
    rng = np.random.default_rng(1)
    spiking = [population for population in spec.spiking if population is not spec.output]
    thresholds = {p.name: 2.0 ** rng.integers(-1, 2, p.shape[2]) for p in spiking}
    initial = {p.name: rng.integers(-32, 33, p.shape) / 64 for p in spiking}
    constant = {p.name: rng.integers(-8, 9, p.shape[2]) / 64 for p in spiking}

    def decide(layer):
        channels = layer.population.name
        layer.threshold = torch.tensor(thresholds[channels], dtype=torch.float32)[:, None, None]
        layer.constant = torch.tensor(constant[channels], dtype=torch.float32)[:, None, None]
        layer.initial = torch.tensor(initial[channels].transpose(2, 0, 1), dtype=torch.float32)

    biases = {p.name: rng.integers(-8, 9, p.shape[2]) / 64 for p in spec.spiking[1:]}
    network = Checkpoint(spec, weights, 0, 1, range(spec.output.size), biases=biases)
    nothing = {population.name: torch.zeros(1) for population in spec.populations}
    _, potential = layer_by_layer(network, x, STEPS, nothing, decide)
    shown = RunInput(
        *(x, thresholds | {spec.output.name: np.inf}, STEPS),
        coding="current", initial=initial, spike_values=pooled_values(spec, thresholds),
        constant={p.name: constant.get(p.name, 0) + biases.get(p.name, 0) for p in spec.spiking},
    )  # fmt: skip
    expected = ReferenceSimulator(spec, weights, "subtract").run(shown)
    np.testing.assert_array_equal(potential.numpy().transpose(1, 0, 2), expected.output_v)


def test_activations_give_percentiles_of_what_is_positive():
    checkpoint, x = network()
    found = from_activations(checkpoint, x, 80, 0.25, {"source": "samples"})
    for name, values in activations_of(checkpoint, x).items():
        if name in ("input", "output"):
            continue
        positive = np.sort(values.numpy()[values.numpy() > 0])
        assert found.thresholds[name] == found.spike_values[name] == positive[round(0.8 * len(positive)) - 1]
        assert found.initial[name] == np.float32(0.25 * found.thresholds[name])
    assert found.thresholds["output"] == np.inf and "output" not in found.initial
    assert (found.coding, found.reset, found.steps) == ("current", "subtract", 0)
    assert found.made == {"source": "samples", "images": 6, "initial": 0.25}


def rate_errors(arriving, activation, threshold, initial):
    v, count = np.full(arriving.shape[1:], initial * threshold, np.float32), 0
    for now in arriving:
        v = v + now
        fired = v >= threshold
        v, count = v - threshold * fired, count + fired
    return (count * threshold / len(arriving) - activation) ** 2


def test_search_takes_what_errs_least_in_the_first_layer():
    checkpoint, x = network()
    found = search(checkpoint, x, STEPS)
    run = ReferenceSimulator(checkpoint.spec, checkpoint.weights).run(
        RunInput(x, {"conv1_1": 1e9, "conv3_3": 1, "conv5_3": 1, "output": 1}, 1, coding="current", measured=["output"])
    )
    assert not run.spike_counts("conv1_1").any()
    activation = activations_of(checkpoint, x)["conv1_1"].numpy()
    received = []
    layer_by_layer(
        *(checkpoint, x, STEPS, activations_of(checkpoint, x)),
        lambda layer: received.append(layer.arriving.numpy().copy()),
    )
    positive = np.sort(activation[activation > 0])
    errors = {}
    for percentile in PERCENTILES:
        threshold = positive[max(1, round(percentile / 100 * len(positive))) - 1]
        for initial in INITIAL:
            errors[threshold, initial] = rate_errors(received[0], np.maximum(activation, 0), threshold, initial).mean()
    threshold, initial = min(errors, key=errors.get)
    assert found.thresholds["conv1_1"] == threshold
    assert found.initial["conv1_1"] == pytest.approx(initial * threshold)
    assert found.steps == STEPS


@pytest.mark.parametrize("channels", [False, True])
def test_corrections_leave_no_mean_error_but_by_rounding(channels):
    """They are exact for neurons that neither saturate nor fall silent; so, most of the error of each channel goes."""
    checkpoint, x = network()
    activation = activations_of(checkpoint, x)
    left = {}
    for correction in ("none", "channel", "neuron", "bias"):
        found = search(checkpoint, x, 32, channels, correction)
        shown = RunInput.of(x, found, 32)
        recording = ReferenceSimulator(checkpoint.spec, checkpoint.weights, "subtract").run(shown)
        rate = recording.spike_counts("conv1_1") * np.asarray(found.spike_values["conv1_1"]) / 32
        wanted = activation["conv1_1"].clamp(min=0).permute(0, 2, 3, 1).numpy()
        axes = 0 if correction == "neuron" else (0, 1, 2)
        left[correction] = np.abs((rate - wanted).mean(axis=axes)).mean()
        assert np.ndim(found.thresholds["conv1_1"]) == int(channels)
    assert left["channel"] < left["none"] and left["bias"] < left["none"]
    with pytest.raises(UserError, match="the correction must be one of none, channel"):
        search(checkpoint, x, 4, correction="all")


def test_clipped_layers_have_no_thresholds_of_channels():
    checkpoint, x = network()
    spec = checkpoint.spec
    hidden = {population.name for population in spec.spiking} - {spec.output.name}
    clipped = replace(spec, populations=tuple(replace(p, clip=2.0 * (p.name in hidden)) for p in spec.populations))
    with pytest.raises(UserError, match="are clipped, and their thresholds are of whole layers"):
        search(replace(checkpoint, spec=clipped), x, 4, channels=True)


def test_neurons_fire_and_are_reset_by_subtraction():
    arriving = torch.tensor([[0.5], [0.75], [-1.0], [2.5], [0.0]])
    assert torch.stack(fire(arriving, torch.tensor(1.0), torch.tensor(0.25))).flatten().tolist() == [
        False,
        True,
        False,
        True,
        True,
    ]
