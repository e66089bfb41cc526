"""Paths add up in their own order: on shipped conversions few neurons fire another number of spikes."""

import numpy as np
import pytest

from netspec.checkpoint import load_checkpoint
from netspec.conversion import open_conversion
from netspec.data import samples
from sims.brian.runtime import open_simulator
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput


@pytest.mark.slow
@pytest.mark.parametrize(("conversion", "steps"), [("fast", 16), ("steps8", 8), ("steps4", 4)])
def test_hardly_a_neuron_fires_otherwise_on_another_path(conversion, steps, record_property):
    network = load_checkpoint("vgg16-cifar10")
    given = RunInput.of(network.encode(samples().images), open_conversion(conversion, "vgg16-cifar10", network), steps)
    expected = ReferenceSimulator(network.spec, network.weights, "subtract").run(given)
    found = open_simulator(network.spec, network.weights, reset="subtract", quiet=True).run(given)
    differing = int(np.sum(found.counts != expected.counts))
    record_property("neurons whose counts differ", f"{differing} of {expected.counts.size}")
    print(f"{conversion}: {differing} of {expected.counts.size} counts differ")
    assert differing < 1e-3 * expected.counts.size
    assert (found.predictions() == expected.predictions()).all()
