"""The file of all weights that a compiled network maps into memory."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from netspec.spec import NetSpec
from sims.synapses.geometry import Geometry, as_convolution, pack_kernel

__all__ = ["fit_half", "kernel_offsets", "packed_weights"]

ALIGNMENT = 16  # kernels begin at multiples of so many weights


def kernel_offsets(spec: NetSpec) -> dict[str, int]:
    """Where each projection's kernel begins among the packed weights, and under ``''`` where they end."""
    offsets, end = {}, 0
    for projection in spec.projections:
        if projection.weighted:
            offsets[projection.name] = end
            end += -(-Geometry.of(spec, projection).kernel_size // ALIGNMENT) * ALIGNMENT
    return offsets | {"": end}


def packed_weights(spec: NetSpec, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """All kernels one after another, as the compiled network reads them.

    float16 where that loses nothing (see :func:`fit_half`), else float32.
    """
    offsets = kernel_offsets(spec)
    packed = np.zeros(offsets[""], dtype=np.float32)
    for projection in spec.projections:
        if projection.weighted:
            kernel = pack_kernel(
                Geometry.of(spec, projection), as_convolution(spec, projection, weights[projection.name])
            )
            packed[offsets[projection.name] :][: kernel.size] = kernel
    return packed.astype(np.float16) if fit_half(weights) else packed


def fit_half(weights: Mapping[str, np.ndarray]) -> bool:
    """Whether all weights are numbers of half precision, as those of a checkpoint stored so."""
    with np.errstate(over="ignore"):
        return all(np.array_equal(w, w.astype(np.float16).astype(np.float32)) for w in weights.values())
