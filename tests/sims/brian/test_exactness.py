"""Brian2 fires the spikes of the torch reference, every one, on every path.

Both are told the same weights and thresholds, whose sums float32 holds exactly, and draw the same input spikes.
"""

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from networks import NETWORKS, assert_same, case, exact_weights, groups, images, net, specs, weights_of

from netspec.spec import Projection
from netspec.thresholds import RESETS
from sims.brian.packing import fit_half
from sims.brian.runtime import RUNTIMES, open_simulator
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput
from sims.simulation.stimulus import presentation_keys, spike_probability_draws
from sims.simulation.wiring import SYNAPSES


def compare(simulator, network: str, runtime: str, synapses: str, reset: str = "zero") -> None:
    spec, weights, run_input = case(network, reset)
    expected = ReferenceSimulator(spec, weights, reset).run(run_input)
    for name, rate in expected.spikes_per_neuron().items():  # the comparison is worth something
        assert 0 < rate < 0.9 * run_input.steps, name
    assert_same(simulator(network, runtime, synapses, reset).run(run_input), expected)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("synapses", SYNAPSES)
@pytest.mark.parametrize("network", NETWORKS)
def test_numpy_fires_the_spikes_of_the_reference(simulator, network, synapses, reset):
    compare(simulator, network, "numpy", synapses, reset)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize(
    ("runtime", "network"),
    [("cython", "garden"), ("cython", "berry"), ("standalone", "garden"), ("standalone", "orchard")],
)
def test_compiled_shared_synapses_fire_the_spikes_of_the_reference(simulator, runtime, network, reset):
    compare(simulator, network, runtime, "shared", reset)


@pytest.mark.usefixtures("fast_compiler")  # five modules a projection, but of Brian2's own code
@pytest.mark.parametrize(("network", "reset"), [("sprout", "zero"), ("sprout", "subtract"), ("berry", "zero")])
@pytest.mark.parametrize("runtime", ["cython", "standalone"])
def test_compiled_explicit_synapses_fire_the_spikes_of_the_reference(simulator, runtime, network, reset):
    compare(simulator, network, runtime, "explicit", reset)


def test_kernels_that_are_fetched_ahead_fire_the_spikes_of_the_reference(simulator):
    compare(simulator, "wide", "standalone", "shared")


@pytest.mark.usefixtures("fast_compiler")
def test_a_compiled_network_without_weights_fires_the_spikes_of_the_reference(simulator):
    compare(simulator, "identities", "standalone", "shared")


def test_weights_beyond_half_precision_fire_the_spikes_of_the_reference(simulator):
    """All sixteen layers of VGG."""
    assert not fit_half(weights_of("vgg"))
    compare(simulator, "vgg", "standalone", "shared")


@pytest.mark.slow
@pytest.mark.usefixtures("fast_compiler")
@pytest.mark.parametrize(
    ("runtime", "synapses"), [("standalone", "explicit"), ("cython", "shared"), ("cython", "explicit")]
)
def test_all_sixteen_layers_of_vgg_fire_the_spikes_of_the_reference(simulator, runtime, synapses):
    compare(simulator, "vgg", runtime, synapses)


def compare_random(spec, seed: int, runtime: str, synapses: str, reset: str) -> None:
    rng = np.random.default_rng(seed)
    weights, x = exact_weights(spec, seed), images(spec, 2, seed)
    thresholds = {population.name: rng.integers(1, 128) / 64 for population in spec.spiking}
    run_input = RunInput(x, thresholds, 8, seed, rasters=groups(spec), raster_presentations=2)
    expected = ReferenceSimulator(spec, weights, reset).run(run_input)
    assert_same(open_simulator(spec, weights, runtime, synapses, reset, quiet=True).run(run_input), expected)


@settings(max_examples=50, deadline=None)
@given(specs(), st.integers(0, 2**16), st.sampled_from(SYNAPSES), st.sampled_from(sorted(RESETS)))
def test_random_networks_fire_the_spikes_of_the_reference(spec, seed, synapses, reset):
    compare_random(spec, seed, "numpy", synapses, reset)


@pytest.mark.usefixtures("fast_compiler")
@pytest.mark.parametrize(("runtime", "kinds"), [("cython", ["shared"]), ("standalone", SYNAPSES)])
@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.generate],  # shrinking would compile for hours
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(specs(), st.integers(0, 2**16), st.data())
def test_random_compiled_networks_fire_the_spikes_of_the_reference(runtime, kinds, spec, seed, data):
    synapses, reset = data.draw(st.sampled_from(kinds)), data.draw(st.sampled_from(sorted(RESETS)))
    compare_random(spec, seed, runtime, synapses, reset)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_image_fires_the_same_spikes_in_whatever_company(simulator, runtime):
    spec, _, all_at_once = case("garden")
    x, thresholds = images(spec, 5, seed=1), all_at_once.thresholds
    network = simulator("garden", runtime)

    def recording(ids):
        shown = RunInput(x[ids], thresholds, 8, ids=np.array(ids), rasters=groups(spec), raster_presentations=9)
        return network.run(shown)

    together = recording([0, 1, 2, 3, 4])
    assert len(np.unique(together.counts, axis=0)) == 5
    for ids in ([3], [4, 0], [2, 2, 1]):
        apart = recording(ids)
        np.testing.assert_array_equal(apart.counts, together.counts[ids])
        np.testing.assert_array_equal(apart.output_v, together.output_v[ids])
        for name in groups(spec):
            for place, image in enumerate(ids):
                spikes, same = apart.spikes(name), together.spikes(name)
                spikes, same = spikes[spikes.presentation == place], same[same.presentation == image]
                np.testing.assert_array_equal(spikes[["step", "neuron"]], same[["step", "neuron"]])


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_pixel_fires_if_its_size_exceeds_its_random_number_by_the_least_bit(simulator, runtime):
    spec, _, usual = case("garden")
    (key,) = presentation_keys(0, np.array([0]))
    draws = spike_probability_draws(int(key), 0, spec.input.size).reshape(1, *spec.input.shape)
    for x, fires in ((draws, 0), (-draws, 0), (draws + np.float32(2**-24), 1), (-draws - np.float32(2**-24), 1)):
        recording = simulator("garden", runtime).run(RunInput(x, usual.thresholds, 1))
        assert (recording.spike_counts("input") == fires).all()


def test_the_same_image_under_another_number_or_seed_fires_other_spikes(simulator):
    spec, _, usual = case("garden")
    x = np.repeat(images(spec, 1), 2, axis=0)
    recording = simulator("garden", "numpy").run(RunInput(x, usual.thresholds, 15))
    assert (recording.counts[0] != recording.counts[1]).any()
    other = simulator("garden", "numpy").run(RunInput(x, usual.thresholds, 15, seed=1))
    assert (recording.counts != other.counts).any(axis=1).all()


@pytest.mark.parametrize("seed", range(4))
def test_sums_that_are_not_exact_are_rounded_alike_by_explicit_synapses(seed):
    spec = net(
        "bypassed",
        {"data": (5, 6, 3), "conv1": (5, 6, 4), "conv2": (5, 6, 5), "output": (1, 1, 3)},
        Projection("data", "conv1", kernel=3, padding=1),
        Projection("conv1", "conv2", kernel=3, padding=1),
        Projection("data", "conv2", kernel=3, padding=1, label="bypass"),
        Projection("conv2", "output", kind="dense"),
    )
    rng = np.random.default_rng(seed)
    weights = {p.name: rng.normal(0.1, 0.3, spec.weight_shape(p)).astype(np.float32) for p in spec.projections}
    run_input = RunInput(images(spec, 2, seed), {"conv1": 0.9}, 30, seed, measured=("conv2",))
    shared, explicit = (open_simulator(spec, weights, "numpy", kind).run(run_input) for kind in SYNAPSES)
    np.testing.assert_array_equal(shared.peaks["conv2"], explicit.peaks["conv2"])
