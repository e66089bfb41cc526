"""The geometry of projections against enumeration."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import connected, crossings, exact_weights, geometries, pair, specs

from netspec.spec import NetSpec, Projection, both
from sims.simulation.geometry import Geometry, as_convolution, connections, joined


def matrix(spec: NetSpec, projection: Projection, weights: np.ndarray | None) -> np.ndarray:
    """What a spike of each neuron of pre adds to each neuron of post; dense."""
    pre, post, p = spec[projection.pre].shape, spec[projection.post].shape, projection
    added = np.zeros((*pre, *post), dtype=np.float32)
    chosen = list(p.channels) or list(range(pre[2]))
    for y, x, row, column, ky, kx in crossings(spec, p):
        if p.kind == "dense":
            shape = (*post, pre[0] // p.pool, pre[1] // p.pool, len(chosen))
            kernel = weights.reshape(shape)[row, column, :, ky, kx].T
        elif p.kind == "conv":
            kernel, within = np.zeros((len(chosen), post[2])), len(chosen) // p.groups
            for k, out in np.ndindex(kernel.shape):
                if k // within == out * p.groups // post[2]:
                    kernel[k, out] = weights[out, k % within, ky // both(p.dilation)[0], kx // both(p.dilation)[1]]
        else:
            kernel = np.eye(pre[2], post[2])
        added[y, x, chosen, row, column] = kernel / p.pool**2
    return added.reshape(np.prod(pre), np.prod(post))


@settings(max_examples=60, deadline=None)
@given(specs(), st.integers(0, 2**16))
def test_connections_are_those_of_pooling_and_convolving_position_by_position(spec, seed):
    weights = exact_weights(spec, seed)
    for projection in spec.projections:
        geometry = Geometry.of(spec, projection)
        given = weights.get(projection.name)
        if projection.kind == "window":
            continue
        pre, post, w = connections(geometry, as_convolution(spec, projection, given), joined(spec, projection))
        assert (pre.dtype, post.dtype, w.dtype) == (np.int32, np.int32, np.float32)
        added, number = matrix(spec, projection, given), connected(spec, projection)
        found, times = np.zeros_like(added), np.zeros(added.shape, dtype=int)
        np.add.at(found, (pre, post), w)
        np.add.at(times, (pre, post), 1)
        np.testing.assert_array_equal(times, number.reshape(times.shape))
        np.testing.assert_array_equal(found, added)
        fan_out = spec.fan_out(projection)
        np.testing.assert_array_equal(np.bincount(pre, minlength=fan_out.size), fan_out.ravel())
        assert spec.synapses(projection) == len(pre)


@given(geometries)
def test_crossings_are_never_more_than_room_is_made_for(geometry):
    """The compiled projection writes as many numbers, without looking whether they fit."""
    g = geometry
    weights = np.ones((g.post_channels, g.channels, g.kernel_height, g.kernel_width), dtype=np.float32)
    pre, post, _ = connections(g, weights)
    assert len(set(zip(pre.tolist(), (post // g.post_channels).tolist(), strict=True))) <= g.crossings


@pytest.mark.parametrize("pool", [1, 2, 4, 8])
def test_pooling_by_a_power_of_two_scales_spikes_exactly(pool):
    spec = pair((8, 8, 2), (8 // pool, 8 // pool, 3), pool=pool)
    geometry = Geometry.of(spec, spec.projections[0])
    assert geometry.scale == pool**-2
    weights = np.ones((3, 2, 1, 1), dtype=np.float32)
    _, post, w = connections(geometry, weights)
    np.testing.assert_array_equal(w, np.full(8 * 8 * 2 * 3, pool**-2, dtype=np.float32))
    np.testing.assert_array_equal(np.bincount(post), 2 * pool**2)  # pooled, ones stay ones


def test_a_dense_projection_is_a_convolution_that_covers_everything():
    spec = pair((4, 8, 2), (1, 1, 5), kind="dense", pool=4)
    (dense,) = spec.projections
    weights = exact_weights(spec)[dense.name]
    kernel = as_convolution(spec, dense, weights)
    assert kernel.shape == (5, 2, 1, 2)  # c_post, c_pre, ky, kx
    for x, c in np.ndindex(2, 2):  # a row of a dense weight runs over y, x, channel
        np.testing.assert_array_equal(kernel[:, c, 0, x], weights[:, x * 2 + c])


def test_identity_is_one_from_channel_to_like_channel():
    spec = pair((4, 4, 2), (4, 4, 3), kind="identity")
    kernel = as_convolution(spec, spec.projections[0], None)
    np.testing.assert_array_equal(kernel[:, :, 0, 0], [[1, 0], [0, 1], [0, 0]])
