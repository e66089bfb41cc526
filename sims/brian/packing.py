"""The order in which shared-weight synapses keep their weights, and the file that a compiled network maps into memory.

The kernel of a projection is kept as ``[c_pre][ky][kx][c_post / groups]``: the channels of one pixel of post are
neighbours in memory, and so are the weights of all its connections with one neuron of pre. A spike adds a row of
weights to each pixel of post that it reaches.
"""

from collections.abc import Mapping

import numpy as np

from sims.simulation.geometry import Geometry, as_convolution
from sims.simulation.wiring import Wiring

__all__ = ["fit_half", "pack_kernel", "packed_weights"]


def pack_kernel(weights: np.ndarray, groups: int = 1) -> np.ndarray:
    """Bring weights ``[c_post][c_pre / groups][ky][kx]`` into the order ``[c_pre][ky][kx][c_post / groups]``; flat."""
    grouped = weights.reshape(groups, -1, *weights.shape[1:])
    return np.ascontiguousarray(grouped.transpose(0, 2, 3, 4, 1)).ravel()


def packed_weights(wiring: Wiring, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """All kernels one after another, as the compiled network reads them.

    float16 where that loses nothing (see :func:`fit_half`), else float32.
    """
    spec, packed = wiring.spec, np.zeros(wiring.offsets[""], dtype=np.float32)
    for projection in spec.projections:
        if projection.weighted:
            kernel = pack_kernel(
                as_convolution(spec, projection, weights[projection.name]), Geometry.of(spec, projection).groups
            )
            packed[wiring.offsets[projection.name] :][: kernel.size] = kernel
    return packed.astype(np.float16) if fit_half(weights) else packed


def fit_half(weights: Mapping[str, np.ndarray]) -> bool:
    """Whether all weights are numbers of half precision, as those of a checkpoint stored so."""
    with np.errstate(over="ignore"):
        return all(np.array_equal(w, w.astype(np.float16).astype(np.float32)) for w in weights.values())
