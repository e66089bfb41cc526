"""The geometry of projections against enumeration, and the order of packed kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, exact_weights, specs, weights_of

from netspec.spec import NetSpec, Population, Projection
from sims.synapses.geometry import Geometry, as_convolution, connections, pack_kernel, unpack_kernel
from sims.synapses.packing import ALIGNMENT, fit_half, kernel_offsets, packed_weights


def matrix(spec: NetSpec, projection: Projection, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """What a spike of each neuron of pre adds to each neuron of post, and the number of their connections; dense.

    Written down position by position: pooling spreads a pixel over its window, a convolution is a sum.
    """
    pre, post, p = spec[projection.pre], spec[projection.post], projection
    added = np.zeros((*pre.shape, *post.shape), dtype=np.float32)
    number = np.zeros(added.shape, dtype=int)
    for y, x, c in np.ndindex(pre.shape):
        py, px = y // p.pool, x // p.pool
        if p.kind == "dense":
            width, channels = pre.shape[1] // p.pool, pre.shape[2]
            added[y, x, c] = weights[:, (py * width + px) * channels + c].reshape(post.shape) / p.pool**2
            number[y, x, c] = 1
            continue
        for row, column in np.ndindex(post.shape[:2]):
            ky, kx = py + p.padding - row * p.stride, px + p.padding - column * p.stride
            if not (0 <= ky < p.kernel and 0 <= kx < p.kernel):
                continue
            if p.kind == "conv":
                added[y, x, c, row, column] = weights[:, c, ky, kx] / p.pool**2
                number[y, x, c, row, column] = 1
            else:
                added[y, x, c, row, column, c] = 1 / p.pool**2
                number[y, x, c, row, column, c] = 1
    return added.reshape(pre.size, post.size), number.reshape(pre.size, post.size)


@settings(max_examples=60, deadline=None)
@given(specs(), st.integers(0, 2**16))
def test_connections_are_those_of_pooling_and_convolving_position_by_position(spec, seed):
    weights = exact_weights(spec, seed)
    for projection in spec.projections:
        geometry = Geometry.of(spec, projection)
        given = weights.get(projection.name)
        pre, post, w = connections(geometry, as_convolution(spec, projection, given))
        assert (pre.dtype, post.dtype, w.dtype) == (np.int32, np.int32, np.float32)
        added, number = matrix(spec, projection, given)
        found, times = np.zeros_like(added), np.zeros_like(number)
        np.add.at(found, (pre, post), w)
        np.add.at(times, (pre, post), 1)
        np.testing.assert_array_equal(times, number)
        np.testing.assert_array_equal(found, added)
        fan_out = spec.fan_out(projection)
        np.testing.assert_array_equal(np.bincount(pre, minlength=fan_out.size), fan_out.ravel())
        assert spec.synapses(projection) == len(pre)


geometries = st.builds(
    Geometry,
    *[st.integers(1, 4)] * 6,
    kernel_height=st.integers(1, 6),
    kernel_width=st.integers(1, 6),
    stride=st.integers(1, 4),
    padding=st.integers(0, 2),
    pool=st.integers(1, 4),
    identity=st.just(False),
)


@given(geometries)
def test_packing_a_kernel_loses_nothing(geometry):
    g = geometry
    weights = np.arange(g.kernel_size, dtype=np.float32)
    weights = weights.reshape(g.post_channels, g.channels, g.kernel_height, g.kernel_width)
    packed = pack_kernel(geometry, weights)
    assert packed.shape == (g.kernel_size,) and packed.flags.c_contiguous
    np.testing.assert_array_equal(unpack_kernel(geometry, packed), weights)


@given(geometries)
def test_crossings_are_never_more_than_room_is_made_for(geometry):
    """The compiled projection writes as many numbers, without looking whether they fit."""
    g = geometry
    weights = np.ones((g.post_channels, g.channels, g.kernel_height, g.kernel_width), dtype=np.float32)
    pre, post, _ = connections(g, weights)
    assert len(set(zip(pre.tolist(), (post // g.post_channels).tolist(), strict=True))) <= g.crossings


@pytest.mark.parametrize("pool", [1, 2, 4, 8])
def test_pooling_by_a_power_of_two_scales_spikes_exactly(pool):
    spec = NetSpec(
        "pooled",
        (Population("input", (8, 8, 2), kind="input"), Population("output", (8 // pool, 8 // pool, 3))),
        (Projection("input", "output", pool=pool),),
    )
    geometry = Geometry.of(spec, spec.projections[0])
    assert geometry.scale == pool**-2
    weights = np.ones((3, 2, 1, 1), dtype=np.float32)
    _, post, w = connections(geometry, weights)
    np.testing.assert_array_equal(w, np.full(8 * 8 * 2 * 3, pool**-2, dtype=np.float32))
    np.testing.assert_array_equal(np.bincount(post), 2 * pool**2)  # pooled, ones stay ones


def test_a_dense_projection_is_a_convolution_that_covers_everything():
    spec = NetSpec(
        "dense",
        (Population("input", (4, 8, 2), kind="input"), Population("output", (1, 1, 5))),
        (Projection("input", "output", kind="dense", pool=4),),
    )
    (dense,) = spec.projections
    weights = exact_weights(spec)[dense.name]
    kernel = as_convolution(spec, dense, weights)
    assert kernel.shape == (5, 2, 1, 2)  # c_post, c_pre, ky, kx
    for x, c in np.ndindex(2, 2):  # a row of a dense weight runs over y, x, channel
        np.testing.assert_array_equal(kernel[:, c, 0, x], weights[:, x * 2 + c])


def test_identity_is_one_from_channel_to_like_channel():
    spec = NetSpec(
        "identity",
        (Population("input", (4, 4, 2), kind="input"), Population("output", (4, 4, 3))),
        (Projection("input", "output", kind="identity"),),
    )
    kernel = as_convolution(spec, spec.projections[0], None)
    np.testing.assert_array_equal(kernel[:, :, 0, 0], [[1, 0], [0, 1], [0, 0]])


@pytest.mark.parametrize(("network", "dtype"), [("garden", np.float16), ("vgg", np.float32)])
def test_packed_weights_hold_every_kernel_at_its_offset(network, dtype):
    spec = NETWORKS[network]()
    weights, offsets = weights_of(network), kernel_offsets(spec)
    packed = packed_weights(spec, weights)
    assert (packed.size, packed.dtype) == (offsets.pop(""), dtype)
    assert list(offsets) == list(weights)
    used = np.zeros(packed.size, dtype=int)
    for projection in spec.projections:
        if projection.weighted:
            geometry, start = Geometry.of(spec, projection), offsets[projection.name]
            assert start % ALIGNMENT == 0
            kernel = packed[start : start + geometry.kernel_size]
            used[start : start + geometry.kernel_size] += 1
            expected = as_convolution(spec, projection, weights[projection.name])
            np.testing.assert_array_equal(unpack_kernel(geometry, kernel), expected)
    assert used.max() == 1
    assert not packed[used == 0].any()


@pytest.mark.parametrize(
    ("value", "fits"),
    [(0, True), (-0.75, True), (65_504, True), (2**-24, True), (1 + 2**-11, False), (1e-9, False), (1e6, False)],
)
def test_half_precision_is_chosen_only_where_it_loses_nothing(value, fits):
    weights = {"a": np.ones(3, dtype=np.float32), "b": np.array([0.5, value], dtype=np.float32)}
    assert fit_half(weights) is fits
