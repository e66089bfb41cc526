"""The torch reference as a runtime: the random numbers of its own, and what tensor cores may multiply."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import assert_same, case, exact_weights, sprout

from netspec.errors import UserError
from sims.brian.runtime import DENSE, open_simulator
from sims.simulation.reference import ReferenceSimulator, draws, survives_tf32
from sims.simulation.stimulus import spike_probability_draws


@given(st.integers(0, 2**64 - 1), st.integers(0, 65_534), st.integers(1, 40))
def test_random_numbers_are_those_of_the_other_simulators(key, step, n):
    keys = torch.from_numpy(np.array([key], dtype=np.uint64).view(np.int64))
    found = draws(keys, torch.arange(1, n + 1) + step * n)
    np.testing.assert_array_equal(found.numpy(), spike_probability_draws(key, step, n), strict=True)


@pytest.mark.parametrize(
    ("weight", "survives"), [(0.0, True), (-1 - 2**-10, True), (1 + 2**-11, False), (1 / 3, False), (1e-30, False)]
)
def test_tensor_cores_multiply_weights_of_eleven_bits(weight, survives):
    assert survives_tf32(torch.tensor([0.5, weight])) == survives
    assert survives_tf32(torch.from_numpy(np.float16([weight]).astype(np.float32)))


def test_runtime_torch_is_the_reference():
    spec, weights, run_input = case("sprout")
    found = open_simulator(spec, weights, DENSE, reset="subtract").run(run_input)
    assert_same(found, ReferenceSimulator(spec, weights, "subtract").run(run_input))


def test_runtime_torch_has_no_synapses_to_spell_out():
    with pytest.raises(UserError, match="explicit"):
        open_simulator(sprout(), exact_weights(sprout()), DENSE, "explicit")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["sprout", "garden"])
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_gpu_gives_the_same_spikes(name, reset):
    spec, weights, run_input = case(name)
    found = ReferenceSimulator(spec, weights, reset, "cuda").run(run_input)
    assert_same(found, ReferenceSimulator(spec, weights, reset).run(run_input))
