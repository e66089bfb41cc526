"""Graphs of NIR that leave: the same spikes when they come back, in norse and in sinabs; what NIR cannot say."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from networks import NETWORKS, exact_thresholds, exact_weights, images, net, pair, specs, weights_of
from nir_graphs import norse_spikes, run_events, shown, simulated, sinabs_spikes, spikes

from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.errors import UserError
from netspec.importing.nir import from_nir
from netspec.spec import NetSpec, Projection
from netspec.thresholds import RESETS
from sims.exporting.nir import POOLS, to_nir, write_nir

CANNOT = ("NIR cannot make an image of a vector", "NIR has no node of max pooling", "the same signal reaches it twice")
OTHERS = {"zero": norse_spikes, "subtract": sinabs_spikes}


def checkpoint(spec: NetSpec, weights=None) -> Checkpoint:
    classes = tuple(map(str, range(spec.output.size)))
    return Checkpoint(spec, exact_weights(spec) if weights is None else weights, np.zeros((1, 1, 1)), 1.0, classes)


def converted(network: Checkpoint, reset: str = "zero", **more) -> Conversion:
    thresholds = exact_thresholds(network.spec, dict(network.weights), images(network.spec, 1), reset)
    return Conversion(network.digest, "test", thresholds, reset=reset, **more)


def varied(network: Checkpoint, reset: str, seed: int) -> Conversion:
    """Thresholds, spike values, biases and potentials that differ between neurons; all numbers are exact."""
    rng, spec = np.random.default_rng(seed), network.spec
    plain = converted(network, reset)
    thresholds = dict(plain.thresholds)
    values, constant, initial = {}, {}, {}
    for population in spec.spiking:
        name, channels = population.name, population.shape[2]
        if rng.random() < 0.5:
            thresholds[name] = 2.0 ** np.round(np.log2(thresholds[name])) * 2.0 ** rng.integers(-1, 2, channels)
        if rng.random() < 0.5:
            values[name] = 2.0 ** rng.integers(-1, 2, channels)
        if rng.random() < 0.5:
            constant[name] = rng.integers(-4, 9, channels) / 64
        if rng.random() < 0.5:
            initial[name] = rng.integers(0, 9, population.shape) / 64
    return Conversion(network.digest, "test", thresholds, values, constant, initial, reset=reset)


def test_pooling_has_one_of_two_nodes():
    with pytest.raises(UserError, match="pool must be one of sum, avg, got 'max'"):
        to_nir(network := checkpoint(NETWORKS["orchard"]()), converted(network), "max")


@settings(max_examples=60, deadline=None)
@given(specs(), st.sampled_from(RESETS), st.sampled_from(POOLS), st.integers(0, 2**16))
def test_random_networks_come_back_with_the_same_spikes(spec, reset, pool, seed):
    network = checkpoint(spec, exact_weights(spec, seed))
    conversion = varied(network, reset, seed)
    try:
        exported = to_nir(network, conversion, pool)
    except UserError as error:
        assert any(reason in str(error) for reason in CANNOT), error
        assume(False)
    assert "all weights and biases are exact" in exported.notes
    back = from_nir(exported.graph)
    events, _ = shown(spec, 15, seed, signed=True)
    expected = run_events(network, conversion, events, 15)
    found = run_events(back.checkpoint, back.conversion, events, 15)
    names = [population.name for population in back.checkpoint.spec.spiking]
    assert "output" in names and set(names) <= {population.name for population in spec.spiking}
    for name in names:
        np.testing.assert_array_equal(spikes(found, name), spikes(expected, name), err_msg=name)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("name", ["garden", "sprout", "residual-if", "residual-relay", "vgg", "identities"])
def test_others_give_the_same_spikes(name, reset):
    spec = NETWORKS[name]()
    network = checkpoint(spec, weights_of(name))
    conversion = converted(network, reset)
    events, signal = shown(spec, 30, signed=True)
    expected = spikes(run_events(network, conversion, events, 30))
    graph = to_nir(network, conversion).graph
    np.testing.assert_array_equal(simulated(graph, signal, subtract=reset == "subtract").reshape(30, -1), expected)
    assert expected.sum() > 2 or name == "vgg"
    np.testing.assert_array_equal(OTHERS[reset](graph, signal), expected)


def test_through_a_file_and_brian2(tmp_path):
    spec = NETWORKS["sprout"]()
    network = checkpoint(spec, weights_of("sprout"))
    conversion = varied(network, "subtract", 3)
    write_nir(to_nir(network, conversion, dt=1e-4), tmp_path / "sprout.nir")
    back = from_nir(tmp_path / "sprout.nir")
    assert (back.checkpoint.spec.name, back.conversion.reset, back.checkpoint.spiking) == ("sprout", "subtract", True)
    events, _ = shown(spec, 20, signed=True)
    expected = run_events(network, conversion, events, 20)
    for runtime, synapses in (("numpy", "explicit"), ("standalone", "shared")):
        found = run_events(back.checkpoint, back.conversion, events, 20, runtime, synapses=synapses)
        for name in ("a", "output"):
            np.testing.assert_array_equal(spikes(found, name), spikes(expected, name), err_msg=runtime)


def test_populations_may_have_any_name():
    shapes = {"input": (4, 4, 1), "out": (4, 4, 1), "out_to_output_pool": (4, 4, 1), "output": (1, 1, 2)}
    spec = net(
        "names",
        shapes,
        Projection("input", "out", kernel=3, padding=1),
        Projection("out", "out_to_output_pool", kernel=(1, 3), padding=(0, 1)),
        Projection("out", "output", "dense", pool=2),
        Projection("out_to_output_pool", "output", "dense", pool=2, label="out_to_output_flatten"),
    )
    network = checkpoint(spec)
    conversion = converted(network)
    graph = to_nir(network, conversion).graph
    assert {*shapes, "out_2", "out_to_output_pool_2", "out_to_output_flatten"} <= set(graph.nodes)
    back = from_nir(graph)
    events, _ = shown(spec, 60, signed=True)
    expected = run_events(network, conversion, events, 60)
    found = run_events(back.checkpoint, back.conversion, events, 60)
    for name in ("out", "out_to_output_pool", "output"):
        assert spikes(expected, name).any()
        own = name.replace("_to_", "_")  # as populations are called that come in
        np.testing.assert_array_equal(spikes(found, own), spikes(expected, name), err_msg=name)


def test_spike_values_and_thresholds_of_channels_are_folded_into_weights():
    spec = net(
        "two", {"input": (4, 4, 1), "a": (4, 4, 2), "output": (1, 1, 3)},
        Projection("input", "a", kernel=3, padding=1), Projection("a", "output", kind="dense", pool=2),
    )  # fmt: skip
    network = checkpoint(spec)
    told = {"spike_values": {"a": [0.5, 4]}, "constant": {"a": [0.25, 0.5]}}
    conversion = Conversion(network.digest, "test", {"a": [2.0, 0.5], "output": 3.0}, **told)
    graph = to_nir(network, conversion).graph
    weights, dense = network.weights["input_to_a"], network.weights["a_to_output"]
    np.testing.assert_array_equal(graph.nodes["input_to_a"].weight, weights / [[[[2.0]]], [[[0.5]]]])
    np.testing.assert_array_equal(graph.nodes["input_to_a"].bias, [0.125, 1])
    whole = (dense.reshape(3, 2, 2, 2) * [0.5, 4]).transpose(0, 3, 1, 2).reshape(3, 8)
    np.testing.assert_array_equal(graph.nodes["a_to_output"].weight, whole / 4)
    below = np.nextafter(np.float32([1, 3]), np.float32(0))
    assert [np.unique(graph.nodes[name].v_threshold).tolist() for name in ("a", "output")] == [[below[0]], [below[1]]]
    average = to_nir(network, conversion, pool="avg").graph
    np.testing.assert_array_equal(average.nodes["a_to_output"].weight, whole)
    assert type(average.nodes["a_to_output_pool"]).__name__ == "AvgPool2d"


def test_what_nir_cannot_say_is_told_and_noted():
    spec = pair((1, 4, 1), (1, 1, 2))
    network = checkpoint(spec)
    told = {"spike_values": {}, "initial": {"output": 0.5}, "reset": "subtract", "delay": 0.5, "coding": "current"}
    exported = to_nir(network, Conversion(network.digest, "test", {"output": [1.0, 1 / 3]}, **told))
    notes = "\n".join(exported.notes)
    for said in ("reset by subtraction", "potentials at the start", "read after 50%", "float32 in input_to_output"):
        assert said in notes
    told = {key: value for key, value in exported.graph.metadata.items() if key not in ("mean", "gain")}
    assert {**told, "software": ""} == {
        "software": "", "network": "pair", "reset": "subtract", "coding": "current", "delay": 0.5, "dt": 1.0
    }  # fmt: skip
    np.testing.assert_array_equal(exported.graph.nodes["output"].metadata["initial"], np.float32([0.5, 1.5]))
    back = from_nir(exported.graph).conversion
    assert (back.reset, back.coding, back.delay) == ("subtract", "current", 0.5)
    np.testing.assert_array_equal(back.initial["output"], np.float32([[[0.5, 1.5]]]))


@pytest.mark.parametrize("gain", [2.5, (2.5, 0.5, 1.0)])
def test_images_are_shown_as_before(gain, tmp_path):
    spec = pair((4, 4, 3), (1, 1, 2), kind="dense")
    network = replace(checkpoint(spec), mean=np.float32([[[0.5, 0.25, 0.125]]]), gain=gain)
    exported = to_nir(network, Conversion(network.digest, "test", {"output": 1.0}))
    assert "the input is (pixel / 255 - mean) * gain, cut off at 1: both are in the metadata" in exported.notes
    write_nir(exported, tmp_path / "a.nir")
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype=np.uint8)
    for source in (exported.graph, tmp_path / "a.nir"):
        np.testing.assert_array_equal(from_nir(source).checkpoint.encode(images), network.encode(images))


def test_spike_values_of_pixels_are_refused():
    spec = net("two", {"input": (1, 2, 1), "a": (1, 2, 1), "output": (1, 1, 1)},
               Projection("input", "a"), Projection("a", "output", kind="dense"))  # fmt: skip
    network, values = checkpoint(spec), {"a": np.float32([[[1], [2]]])}
    conversion = Conversion(network.digest, "test", {"a": 1.0, "output": 1.0}, spike_values=values)
    with pytest.raises(UserError, match="a: NIR has no spikes whose value differs between pixels"):
        to_nir(network, conversion)


def test_an_output_that_does_not_fire_is_an_integrator():
    spec = pair((1, 4, 1), (1, 1, 2))
    network = checkpoint(spec)
    exported = to_nir(network, Conversion(network.digest, "test", {"output": np.inf}))
    assert type(exported.graph.nodes["output"]).__name__ == "I"
    back = from_nir(exported.graph)
    assert not back.conversion.fires("output")
    events, signal = shown(spec, 9)
    found = run_events(back.checkpoint, back.conversion, events, 9)
    np.testing.assert_array_equal(found.output_v[0], simulated(exported.graph, signal))


MODELS = {
    "lif": {"decay": 0.25, "v_reset": 0.125},
    "cuba-lif": {"decay": 0.25, "current_decay": 0.5},
}


@pytest.mark.parametrize("name", MODELS)
def test_leaky_neurons_leave_and_come_back(name):
    spec = NETWORKS["sprout"]()
    network = checkpoint(spec, weights_of("sprout"))
    told = {"a": {"name": name, "parameters": MODELS[name]}}
    conversion = converted(network, models=told)
    graph = to_nir(network, conversion, dt=2.0**-10).graph
    back = from_nir(graph).conversion
    assert back.models == told and back.thresholds == conversion.thresholds
    events, signal = shown(spec, 20)
    expected = spikes(run_events(network, conversion, events, 20))
    np.testing.assert_array_equal(simulated(graph, signal, dt=2.0**-10), expected)
    assert expected.any()


def test_the_leaky_model_is_a_lif_node():
    spec = pair((1, 4, 1), (1, 1, 2))
    network = checkpoint(spec)
    conversion = Conversion(network.digest, "test", {"output": 0.5}, model="leaky")
    graph = to_nir(network, conversion).graph
    events, signal = shown(spec, 30)
    assert type(graph.nodes["output"]).__name__ == "LIF"
    np.testing.assert_array_equal(simulated(graph, signal), spikes(run_events(network, conversion, events, 30)))


def test_one_sided_padding_groups_dilation_and_choices_of_channels():
    spec = net(
        "askew", {"input": (7, 9, 2), "a": (7, 9, 4), "b": (4, 4, 6), "output": (1, 1, 3)},
        Projection("input", "a", kernel=3, padding=1),
        Projection("a", "b", kernel=2, stride=2, padding=(0, 0, 1, 0), channels=(3, 1), label="side"),
        Projection("a", "b", kernel=3, stride=2, padding=(2, 1, 2, 1), dilation=2, groups=2, label="wide"),
        Projection("b", "output", kind="dense", channels=(4, 0)),
    )  # fmt: skip
    network = checkpoint(spec)
    exported = to_nir(network, converted(network))
    assert {node.groups for name, node in exported.graph.nodes.items() if "side" in name or name == "wide"} == {1}
    events, signal = shown(spec, 20)
    expected = spikes(run_events(network, converted(network), events, 20))
    np.testing.assert_array_equal(simulated(exported.graph, signal), expected)
    assert expected.any()


def test_what_has_no_node_is_refused():
    spec = NETWORKS["berry"]()
    network = checkpoint(spec, weights_of("berry"))
    with pytest.raises(UserError, match=r"^m: NIR has no node of max pooling"):
        to_nir(network, converted(network))
    spec = pair((1, 4, 1), (1, 1, 2))
    network = checkpoint(spec)
    with pytest.raises(UserError, match="NIR has no node of the neuron model refractory"):
        to_nir(network, Conversion(network.digest, "test", {"output": 1.0}, model="refractory"))
    spec = net("bent", {"input": (4, 4, 1), "output": (4, 4, 2)}, Projection("input", "output", kernel=3, padding=1))
    network = checkpoint(spec)
    bias = {"output": np.arange(32).reshape(4, 4, 2) / 64}
    with pytest.raises(UserError, match="output: its constant input differs between pixels"):
        to_nir(network, Conversion(network.digest, "test", {"output": 1.0}, constant=bias))
    shapes = {"input": (1, 4, 1), "a": (2, 2, 1), "b": (2, 2, 1), "output": (1, 1, 2)}
    joined = [Projection("input", "a", kind="dense"), Projection("a", "b", kind="identity")]
    network = checkpoint(net("vector", shapes, *joined, Projection("b", "output", kind="dense")))
    bias = {"b": np.arange(4).reshape(2, 2, 1) / 64}
    with pytest.raises(UserError, match="b: its constant input differs between pixels"):
        to_nir(network, converted(network, constant=bias))
    network = checkpoint(NETWORKS["sprout"](), weights_of("sprout"))
    told = {"a": {"name": "lif", "parameters": {"decay": 0.25, "v_reset": -0.5}}}
    with pytest.raises(UserError, match="a: NIR cannot say that a spike subtracts and adds v_reset"):
        to_nir(network, converted(network, "subtract", models=told))


def test_missing_nir_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)
    network = checkpoint(pair())
    with pytest.raises(UserError, match="pip install nir"):
        to_nir(network, Conversion(network.digest, "test", {"output": 1.0}))
