"""Shared-weight synapses between groups of one's own do what stock Synapses do, on all paths."""

import numpy as np
import pytest
from brian2 import (
    DimensionMismatchError,
    Hz,
    Network,
    NeuronGroup,
    PoissonGroup,
    SpikeGeneratorGroup,
    StateMonitor,
    Synapses,
    defaultclock,
    device,
    ms,
    mV,
    nS,
    prefs,
    set_device,
    siemens,
)
from brian2.devices import reset_device
from hypothesis import given, settings
from hypothesis import strategies as st

from netspec.errors import UserError
from sims.brian.shared_synapses import SharedSynapses
from sims.simulation.geometry import connections

STEPS = 12
WHOLE = st.integers(1, 3)


def layer(rng, height, width, within, row, groups, kernel, stride, padding, pool):
    """A convolution's arguments, with numbers that are exact in binary, also as parts of a pool."""
    weights = rng.integers(-8, 9, (row * groups, within, *kernel)) * pool**2 / 16
    shape = (height * pool, width * pool, within * groups)
    return weights, {"pre_shape": shape, "stride": stride, "padding": padding, "groups": groups, "pool": pool}


def random_spikes(rng, n):
    """Neuron and time of spikes, of which some come in no order."""
    fired = rng.random((STEPS, n)) < 0.3
    step, neuron = np.nonzero(fired)
    order = np.argsort(step + rng.random(len(step)) * 0.5)
    return neuron[order], step[order]


def built(rng, weights, arguments, dtype):
    """Objects of a network in which the same spikes reach ``ge`` and, by stock synapses, ``stock``."""
    defaultclock.dt = 1 * ms
    n_pre = int(np.prod(arguments["pre_shape"])) if arguments else weights.shape[1]
    neuron, step = random_spikes(rng, n_pre)
    pre = SpikeGeneratorGroup(n_pre, neuron, step * ms)
    post_shape = shape_after(weights, arguments)
    model = "ge : siemens\nstock : siemens"
    post = NeuronGroup(int(np.prod(post_shape)), model, dtype={"ge": dtype, "stock": dtype})
    post.run_regularly("ge *= 0.5\nstock *= 0.5", when="start")
    c = 0.5 * siemens  # noqa: F841 (named in on_pre)
    synapses = SharedSynapses(pre, post, weights, on_pre="ge_post -= c*w", **arguments)
    assert synapses.post_shape == post_shape
    i, j, w = connections(synapses.geometry, weights if weights.ndim == 4 else weights[:, :, None, None])
    stock = Synapses(pre, post, "w : 1", on_pre="stock_post -= c*w", namespace={"c": 0.5 * siemens})
    stock.connect(i=i, j=j) if len(i) else stock.connect(False)
    if len(i):
        stock.w = np.round(16 * w / synapses.geometry.scale / synapses.geometry.pool**2) / 16
    seen = StateMonitor(post, ["ge", "stock"], record=True, when="end")
    return [pre, post, synapses, stock, seen], seen


def shape_after(weights, arguments):
    if weights.ndim == 2:
        return (1, 1, weights.shape[0])
    height, width, _ = arguments["pre_shape"]
    pool, padding, stride = arguments["pool"], arguments["padding"], arguments["stride"]
    around, steps = np.broadcast_to(padding, 2), np.broadcast_to(stride, 2)
    sizes = [
        int((size // pool + 2 * around[n] - extent) // steps[n] + 1)
        for n, (size, extent) in enumerate(zip((height, width), weights.shape[2:], strict=True))
    ]
    return (*sizes, weights.shape[0])


@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(3, 5), st.integers(3, 5)),
    within=WHOLE,
    row=WHOLE,
    groups=st.sampled_from([1, 1, 2, 3]),
    kernel=st.tuples(WHOLE, WHOLE),
    stride=st.tuples(WHOLE, WHOLE),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    pool=st.sampled_from([1, 2, 3]),
    dtype=st.sampled_from([np.float32, np.float64]),
    dense=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_what_arrives_is_what_stock_synapses_bring(
    seed, sizes, within, row, groups, kernel, stride, padding, pool, dtype, dense
):
    rng = np.random.default_rng(seed)
    prefs.codegen.target = "numpy"
    weights, arguments = layer(rng, *sizes, within, row, groups, kernel, stride, padding, pool)
    if dense:
        weights, arguments = rng.integers(-8, 9, (row, within)) / 16, {}
    objects, seen = built(rng, weights, arguments, dtype)
    Network(objects).run(STEPS * ms)
    np.testing.assert_array_equal(seen.ge, seen.stock)


def two_layers():
    """With groups and without, in single and double precision."""
    layers = []
    for groups, dtype in ((2, np.float32), (1, np.float64)):
        rng = np.random.default_rng(groups)
        weights, arguments = layer(rng, 4, 5, 2, 9, groups, (3, 2), 2, 1, 2)
        layers.append(built(rng, weights, arguments, dtype))
    return Network([objects for objects, _ in layers]), [seen for _, seen in layers]


def assert_all_received(layers):
    for seen in layers:
        assert np.asarray(seen.stock).any()
        np.testing.assert_array_equal(seen.ge, seen.stock)


def test_cython_does_the_same():
    prefs.codegen.target = "cython"
    network, layers = two_layers()
    network.run(STEPS * ms)
    assert_all_received(layers)


def test_a_compiled_network_of_ones_own_does_the_same(tmp_path):
    set_device("cpp_standalone", directory=str(tmp_path), build_on_run=False)
    try:
        network, layers = two_layers()
        network.run(STEPS * ms)
        device.build(directory=str(tmp_path), with_output=False)
        assert_all_received(layers)
    finally:
        device.reinit()
        reset_device()


def groups_of_ones_own():
    equations = "ge : 1\nw2 : 1 (constant)\nn : integer\ns : 1 (shared)"
    return PoissonGroup(12, 100 * Hz, name="source"), NeuronGroup(8, equations, name="cells")


def test_variables_of_the_user_s_that_bear_our_names_are_left_alone():
    defaultclock.dt = 1 * ms
    prefs.codegen.target = "numpy"
    pre = NeuronGroup(2, "spike_value : 1", threshold="True")
    post = NeuronGroup(3, "v : 1\nreached : 1")
    synapses = SharedSynapses(pre, post, np.ones((3, 2)), on_pre="v += w")
    Network(pre, post, synapses).run(1 * ms)
    assert list(post.v) == [2, 2, 2] and not np.any(post.reached)


WEIGHTS = np.ones((2, 3, 1, 1))
FITS = {"on_pre": "ge += w", "pre_shape": (2, 2, 3)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"on_pre": "ge_post = w"}, "on_pre must be"),
        ({"on_pre": "ge_post += w*w_pre"}, "no constant"),
        ({"on_pre": "ge_post += w; v_post = 0"}, "on_pre must be"),
        ({"on_pre": "ge_post += c*w"}, "factor c in on_pre"),
        ({"on_pre": "ge_post += s*w"}, "the factor s in on_pre is a variable"),
        ({"on_pre": "w2_post += w"}, "cannot be changed"),
        ({"on_pre": "s_post += w"}, "no variable that each neuron"),
        ({"on_pre": "x_post += w"}, "no variable that each neuron"),
        ({"on_pre": "n_post += w"}, "float32 and float64"),
        ({"pre_shape": (2, 3, 2)}, "1 groups of 3 channels of pre"),
        ({"pre_shape": (2, 2, 4)}, "which is not 2 x 2 x 4"),
        ({"pre_shape": None}, "with pre_shape="),
        ({"pool": 2}, "but what arrives is of shape"),
        ({"pool": 3}, "no multiple of pool 3"),
        ({"stride": 0}, "stride must be 2 whole numbers, each at least 1, got 0"),
        ({"stride": (1, 1, 1)}, "stride must be 2 whole numbers"),
        ({"padding": "same"}, "padding must be 2 whole numbers, each at least 0, got 'same'"),
        ({"pool": 0.5}, "pool must be a whole number, at least 1, got 0.5"),
        ({"pool": (2,), "pre_shape": (2, 2, 3)}, "but what arrives is of shape"),
        ({"groups": None}, "groups must be a whole number"),
        ({"pre_shape": 8}, r"pre_shape must be 3 whole numbers, each at least 1, got \(8,\)"),
        ({"pre_shape": (2.5, 2, 3)}, "pre_shape must be 3 whole numbers"),
        ({"weights": np.ones((2, 3, 5, 5))}, "nothing is left"),
        ({"weights": np.full((2, 3, 1, 1), np.nan)}, "no finite numbers"),
        ({"weights": np.ones((8, 12))}, "dense layer's, without shape"),
        ({"weights": np.ones((2, 3))}, "dense layer's, without shape"),
    ],
)
def test_what_stock_synapses_would_not_do_is_refused(changes, message):
    pre, post = groups_of_ones_own()
    with pytest.raises(UserError, match=message):
        SharedSynapses(pre, post, **({"weights": WEIGHTS} | FITS | changes))


def test_ends_of_other_kinds_are_refused():
    pre, post = groups_of_ones_own()
    with pytest.raises(UserError, match="pre is the subgroup"):
        SharedSynapses(pre[:12], post, WEIGHTS, **FITS)
    with pytest.raises(UserError, match="post is the subgroup"):
        SharedSynapses(pre, post[:8], WEIGHTS, **FITS)
    with pytest.raises(UserError, match="silent has no spikes"):
        SharedSynapses(NeuronGroup(12, "v : 1", name="silent"), post, WEIGHTS, **FITS)
    with pytest.raises(UserError, match="different clocks"):
        SharedSynapses(pre, NeuronGroup(8, "ge : 1", dt=2 * ms), WEIGHTS, **FITS)
    resting = NeuronGroup(8, "dv/dt = -v/(5*ms) : volt (unless refractory)", threshold="v > 1*mV", refractory=5 * ms)
    with pytest.raises(UserError, match="unless refractory"):
        SharedSynapses(pre, resting, WEIGHTS * mV, on_pre="v += w", pre_shape=(2, 2, 3))
    with pytest.raises(DimensionMismatchError, match="adds something else to ge than it holds"):
        SharedSynapses(pre, post, WEIGHTS * nS, **FITS)
    with pytest.raises(UserError, match="no delays"):
        SharedSynapses(pre, post, WEIGHTS, delay=1 * ms, **FITS)
