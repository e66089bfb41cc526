"""Brian2 fires the spikes of the torch reference, every one, on every path.

Both are told the same weights and thresholds, whose sums float32 holds exactly, and draw the same input spikes.
"""

from collections.abc import Iterator

import numpy as np
import pytest
from brian2 import prefs
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, assert_same, case, exact_weights, groups, images, specs

from sims.inprocess import InProcessSimulator
from sims.network import RESETS, SYNAPSES
from sims.reference import ReferenceSimulator
from sims.runtime import RunInput

slow = pytest.mark.slow
# Shared synapses with the compiler's usual optimisation. Stock synapses are Brian2's own code, 5 modules a projection
PATHS = [
    *[(network, "numpy", synapses) for network in NETWORKS for synapses in SYNAPSES],
    ("garden", "cython", "shared"),
    ("garden", "standalone", "shared"),
    ("sprout", "cython", "explicit"),
    ("sprout", "standalone", "explicit"),
]


@pytest.fixture
def fast_compiler() -> Iterator[None]:
    """Halve the time of compilation."""
    usual = prefs.codegen.cpp.extra_compile_args_gcc
    prefs.codegen.cpp.extra_compile_args_gcc = ["-w", "-O0", "-std=c++11"]
    yield
    prefs.codegen.cpp.extra_compile_args_gcc = usual


def compare(simulator, network: str, runtime: str, synapses: str, reset: str) -> None:
    spec, weights, run_input = case(network, reset)
    expected = ReferenceSimulator(spec, weights, reset).run(run_input)
    for name, rate in expected.spikes_per_neuron().items():  # the comparison is worth something
        assert 0 < rate < 0.9 * run_input.steps, name
    assert_same(simulator(network, runtime, synapses, reset).run(run_input), expected)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize(("network", "runtime", "synapses"), PATHS)
def test_all_spikes_are_those_of_the_reference(simulator, network, runtime, synapses, reset):
    compare(simulator, network, runtime, synapses, reset)


@pytest.mark.usefixtures("fast_compiler")
@pytest.mark.parametrize(
    ("runtime", "synapses"),
    [
        ("standalone", "shared"),
        ("cython", "shared"),
        ("standalone", "explicit"),
        pytest.param("cython", "explicit", marks=slow),
    ],
)
def test_all_sixteen_layers_of_vgg_fire_the_spikes_of_the_reference(simulator, runtime, synapses):
    compare(simulator, "vgg", runtime, synapses, "zero")


@settings(max_examples=100, deadline=None)
@given(specs(), st.integers(0, 2**16), st.sampled_from(SYNAPSES), st.sampled_from(sorted(RESETS)))
def test_random_networks_fire_the_spikes_of_the_reference(spec, seed, synapses, reset):
    rng = np.random.default_rng(seed)
    weights, x = exact_weights(spec, seed), images(spec, 2, seed)
    thresholds = {population.name: rng.integers(1, 128) / 64 for population in spec.spiking}
    run_input = RunInput(x, thresholds, 8, seed, rasters=groups(spec), raster_presentations=2)
    expected = ReferenceSimulator(spec, weights, reset).run(run_input)
    assert_same(InProcessSimulator(spec, weights, synapses, reset, "numpy").run(run_input), expected)


@pytest.mark.parametrize("runtime", ["numpy", "cython", "standalone"])
def test_an_image_fires_the_same_spikes_in_whatever_company(simulator, runtime):
    spec, _, all_at_once = case("garden")
    x, thresholds = images(spec, 5, seed=1), all_at_once.thresholds
    network = simulator("garden", runtime)

    def recording(ids):
        shown = RunInput(x[ids], thresholds, 15, ids=np.array(ids), rasters=groups(spec), raster_presentations=9)
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


def test_the_same_image_under_another_number_or_seed_fires_other_spikes(simulator):
    spec, _, usual = case("garden")
    x = np.repeat(images(spec, 1), 2, axis=0)
    recording = simulator("garden", "numpy").run(RunInput(x, usual.thresholds, 15))
    assert (recording.counts[0] != recording.counts[1]).any()
    other = simulator("garden", "numpy").run(RunInput(x, usual.thresholds, 15, seed=1))
    assert (recording.counts != other.counts).any(axis=1).all()
