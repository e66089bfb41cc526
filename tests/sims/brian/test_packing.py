"""The order of packed kernels, and the precision in which they are kept."""

import numpy as np
import pytest
from hypothesis import given
from networks import NETWORKS, geometries, weights_of

from sims.brian.packing import fit_half, pack_kernel, packed_weights
from sims.simulation.geometry import Geometry, as_convolution
from sims.simulation.wiring import ALIGNMENT, Wiring


def unpack_kernel(geometry: Geometry, kernel: np.ndarray) -> np.ndarray:
    """The inverse of :func:`pack_kernel`, of a kernel without groups."""
    shape = (geometry.channels, geometry.kernel_height, geometry.kernel_width, geometry.post_channels)
    return kernel.reshape(shape).transpose(3, 0, 1, 2)


@given(geometries)
def test_packing_a_kernel_loses_nothing(geometry):
    g = geometry
    weights = np.arange(g.kernel_size, dtype=np.float32)
    weights = weights.reshape(g.post_channels, g.channels, g.kernel_height, g.kernel_width)
    packed = pack_kernel(weights)
    assert packed.shape == (g.kernel_size,) and packed.flags.c_contiguous
    np.testing.assert_array_equal(unpack_kernel(geometry, packed), weights)


@pytest.mark.parametrize(("network", "dtype"), [("garden", np.float16), ("vgg", np.float32)])
def test_packed_weights_hold_every_kernel_at_its_offset(network, dtype):
    wiring = Wiring(NETWORKS[network]())
    spec, weights, offsets = wiring.spec, weights_of(network), dict(wiring.offsets)
    packed = packed_weights(wiring, weights)
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
