"""Images side by side in a compiled network: each fires the spikes that it fires by itself."""

import numpy as np
import pytest
from networks import NETWORKS, assert_same, exact_weights, images, pair, varied, weights_of

from netspec.architectures.vgg import vgg16
from sims.brian.standalone import StandaloneSimulator, side_by_side
from sims.simulation.neuron_models import LEAKY
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput


@pytest.mark.usefixtures("fast_compiler")
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    ("network", "codings"), [("garden", ["poisson", "events", "current"]), ("orchard", ["events"])]
)
def test_images_side_by_side_fire_the_spikes_of_the_reference(network, codings, batch):
    """Fewer images than there is room for, as many, and more, the last of them not enough to fill it."""
    spec, weights = NETWORKS[network](), weights_of(network)
    together, reference = StandaloneSimulator(spec, weights, quiet=True, batch=batch), ReferenceSimulator(spec, weights)
    assert together.batch == batch
    for coding in codings:
        for seed, (n, noted) in enumerate([(2, 1), (3, 3), (7, 5)]):
            run_input = varied(spec, seed, coding, n=n, noted=noted)
            assert_same(together.run(run_input), reference.run(run_input))
    for name in [population.name for population in spec.spiking][:2]:
        measured = RunInput(images(spec, 7), run_input.thresholds, 6, measured=(name,))
        assert_same(together.run(measured), reference.run(measured))


@pytest.mark.usefixtures("fast_compiler")
@pytest.mark.parametrize("network", ["garden", "residual-relay"])
def test_threads_fire_the_spikes_of_the_reference(network):
    """More of them than some layers have rows, and one image with more than one, or several."""
    spec, weights = NETWORKS[network](), weights_of(network)
    reference = ReferenceSimulator(spec, weights)
    for batch in (1, 2):
        simulator = StandaloneSimulator(spec, weights, quiet=True, batch=batch, threads=3)
        for coding in ("poisson", "current"):
            run_input = varied(spec, 1, coding, n=3)
            expected = reference.run(run_input)
            for _ in range(3):
                assert_same(simulator.run(run_input), expected)
        measured = RunInput(images(spec, 7), run_input.thresholds, 6, measured=(spec.spiking[0].name,))
        assert_same(simulator.run(measured), reference.run(measured))


@pytest.mark.parametrize("network", ["wide", "orchard"])
def test_threads_add_weights_in_the_same_order_as_one(network):
    """Weights whose sums are rounded, with vector instructions."""
    spec, random = NETWORKS[network](), np.random.default_rng(0)
    weights = {name: random.normal(size=w.shape).astype(np.float32) for name, w in weights_of(network).items()}
    one, three = (StandaloneSimulator(spec, weights, quiet=True, threads=threads) for threads in (1, 3))
    programs = [(simulator.folder / "main").read_bytes() for simulator in (one, three)]
    assert [b"GOMP_parallel" in program for program in programs] == [False, True]
    assert not any(b"set_fast_math" in program for program in programs)  # small potentials are not taken for 0
    for seed, coding in enumerate(("poisson", "current") if network == "wide" else ("events",)):
        run_input = varied(spec, seed, coding, n=3)
        assert_same(three.run(run_input), one.run(run_input))


@pytest.mark.usefixtures("fast_compiler")
def test_as_many_images_as_fit_are_side_by_side():
    spec, weights = pair(), exact_weights(pair())
    options = [{}, {"synapses": "explicit"}, {"model": LEAKY}, {"prepare": lambda snn: None}]
    assert [StandaloneSimulator(spec, weights, quiet=True, **one).batch for one in options] == [8, 1, 1, 1]
    assert [side_by_side(vgg16(*size)) for size in ((), ("imagenet",))] == [8, 1]
