"""The geometry of projections against enumeration, and the order of packed kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, exact_weights, specs

from netspec.spec import NetSpec, Population, Projection
from sims.network import ALIGNMENT, kernel_offsets, packed_weights
from sims.synapses.geometry import Geometry, connections, effective_weights, pack_kernel, unpack_kernel


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
        pre, post, w = connections(geometry, effective_weights(spec, projection, given))
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
def test_weights_of_one_spike_in_a_row_of_post_are_neighbours(geometry):
    """The promise on which the inner loop stands: ``kx`` falls by the stride from one column of post to the next."""
    g = geometry
    np.testing.assert_array_equal(g.column_order[g.column_place], np.arange(g.kernel_width))
    for kx in range(g.stride, g.kernel_width):
        assert g.column_place[kx - g.stride] == g.column_place[kx] + 1


def test_pooling_is_folded_into_the_weights():
    spec = NetSpec(
        "pooled",
        (Population("input", (4, 8, 2), kind="input"), Population("a", (2, 4, 3)), Population("output", (1, 1, 5))),
        (Projection("input", "a", pool=2), Projection("input", "output", kind="dense", pool=4)),
    )
    conv, dense = spec.projections
    weights = exact_weights(spec)
    np.testing.assert_array_equal(effective_weights(spec, conv, weights[conv.name]), weights[conv.name] / 4)
    effective = effective_weights(spec, dense, weights[dense.name])
    assert effective.shape == (5, 2, 1, 2)  # c_post, c_pre, ky, kx
    for x, c in np.ndindex(2, 2):  # a row of a dense weight runs over y, x, channel
        np.testing.assert_array_equal(effective[:, c, 0, x], weights[dense.name][:, x * 2 + c] / 16)


def test_identity_is_one_from_channel_to_like_channel():
    spec = NetSpec(
        "identity",
        (Population("input", (4, 4, 2), kind="input"), Population("output", (2, 2, 3))),
        (Projection("input", "output", kind="identity", pool=2),),
    )
    effective = effective_weights(spec, spec.projections[0], None)
    np.testing.assert_array_equal(effective[:, :, 0, 0], [[0.25, 0], [0, 0.25], [0, 0]])


@pytest.mark.parametrize("network", NETWORKS)
def test_packed_weights_hold_every_kernel_at_its_offset(network):
    spec = NETWORKS[network]()
    weights, offsets = exact_weights(spec), kernel_offsets(spec)
    packed = packed_weights(spec, weights)
    assert packed.size == offsets.pop("")
    assert list(offsets) == list(weights)
    used = np.zeros(packed.size, dtype=int)
    for projection in spec.projections:
        if projection.weighted:
            geometry, start = Geometry.of(spec, projection), offsets[projection.name]
            assert start % ALIGNMENT == 0
            kernel = packed[start : start + geometry.kernel_size]
            used[start : start + geometry.kernel_size] += 1
            expected = effective_weights(spec, projection, weights[projection.name])
            np.testing.assert_array_equal(unpack_kernel(geometry, kernel), expected)
    assert used.max() == 1
    assert not packed[used == 0].any()
