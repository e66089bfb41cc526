"""The torch reference as a runtime: the random numbers of its own, and what tensor cores may multiply."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import NETWORKS, assert_same, case, exact_weights, net, sprout, varied

from netspec.errors import UserError
from netspec.spec import Projection
from sims.brian.runtime import DENSE, open_simulator
from sims.simulation import reference
from sims.simulation.neuron_models import IF, LEAKY, REFRACTORY
from sims.simulation.reference import ReferenceSimulator, draws, survives_tf32
from sims.simulation.run_input import RunInput
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


@pytest.fixture
def rounded(monkeypatch):
    """Of each projection that the reference runs through: whether tensor cores may have it."""
    allowed: dict[str, set[bool]] = {}
    plain = reference.arriving

    def noted(spec, projection, weight, values):
        allowed.setdefault(projection.name, set()).add(torch.backends.cudnn.allow_tf32)
        return plain(spec, projection, weight, values)

    monkeypatch.setattr(reference, "arriving", noted)
    return allowed


def test_tensor_cores_have_no_graded_values(rounded):
    before = torch.backends.cudnn.allow_tf32
    spec, weights, run_input = case("residual-relay")
    rounded.clear()
    ReferenceSimulator(spec, weights).run(run_input)
    graded = {p.name for p in spec.projections if spec[p.pre].kind == "relay"}
    assert len(graded) == 3
    assert rounded == {p.name: {p.name not in graded} for p in spec.projections}
    assert torch.backends.cudnn.allow_tf32 == before
    spec, weights, run_input = case("vgg")
    rounded.clear()
    ReferenceSimulator(spec, {name: np.float16(weight) for name, weight in weights.items()}).run(
        replace(run_input, spike_values={"conv1_1": 1 / 3})
    )
    assert rounded == {p.name: {p.pre != "conv1_1"} for p in spec.projections}


def test_tensor_cores_have_neither_long_weights_nor_sums_of_many_spikes(rounded):
    spec = net(
        "pools",
        {"input": (64, 64, 1), "a": (64, 64, 1), "b": (1, 1, 2), "output": (1, 1, 2)},
        Projection("input", "a", kernel=3, padding=1),
        Projection("a", "b", kind="dense", pool=64),
        Projection("b", "output", kind="dense"),
    )
    weights = exact_weights(spec)
    *_, last = weights
    weights[last] = weights[last] + np.float32(2**-13)
    x = np.zeros((1, 64, 64, 1), np.float32)
    ReferenceSimulator(spec, weights).run(RunInput(x, dict.fromkeys(("a", "b", "output"), 1.0), 2))
    assert list(rounded.values()) == [{True}, {False}, {False}]


@pytest.mark.parametrize("model", [IF, REFRACTORY])
def test_runtime_torch_has_the_spikes_of_brian2(model):
    spec, weights, run_input = case("garden")
    how = ("shared", "subtract", True, model)
    found, expected = (open_simulator(spec, weights, runtime, *how).run(run_input) for runtime in (DENSE, "numpy"))
    assert_same(found, expected)


def test_runtime_torch_knows_shipped_models_only():
    other = replace(LEAKY, name="mine")
    with pytest.raises(UserError, match=r"torch knows the neuron models if, .*, not this mine"):
        open_simulator(sprout(), exact_weights(sprout()), DENSE, model=other)


def test_runtime_torch_has_no_synapses_to_spell_out():
    with pytest.raises(UserError, match="explicit"):
        open_simulator(sprout(), exact_weights(sprout()), DENSE, "explicit")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("reset", ["zero", "subtract"])
def test_gpu_gives_the_same_spikes(name, reset):
    spec, weights, run_input = case(name)
    for given_input in (run_input, varied(spec, 0, "poisson")):
        found = ReferenceSimulator(spec, weights, reset, "cuda").run(given_input)
        assert_same(found, ReferenceSimulator(spec, weights, reset).run(given_input))
