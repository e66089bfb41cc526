"""The geometry of a projection: which neurons it joins, by which weight of its kernel.

Neurons are numbered channel-last, ``(y * width + x) * channels + c``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from netspec.checkpoint import check_weights
from netspec.errors import UserError
from netspec.spec import NetSpec, Projection, both, sides

__all__ = ["Geometry", "as_convolution", "checked_weights", "connections", "dilated", "joined"]


@dataclass(frozen=True)
class Geometry:
    """A projection as a convolution; a dense one is a convolution whose kernel covers all of pre.

    Parameters
    ----------
    height, width, channels : int
        Of pre, before pooling.
    post_height, post_width, post_channels : int
    kernel_height, kernel_width, stride_y, stride_x, top, left, pool : int
        Padding is what lies above and left of pre; what is needed below and right follows from the size of post.
    identity : bool
        Weight 1 / pool**2 from each channel to its like, no kernel.
    groups : int
        Channels of pre and of post are in as many groups, the first joined with the first, and so on.
    """

    height: int
    width: int
    channels: int
    post_height: int
    post_width: int
    post_channels: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    top: int
    left: int
    pool: int
    identity: bool
    groups: int = 1

    @classmethod
    def of(cls, spec: NetSpec, projection: Projection) -> Geometry:
        height, width, channels = spec[projection.pre].shape
        post = spec[projection.post]
        kernel = projection.reach
        post_shape = post.shape
        if projection.kind == "dense":
            kernel = (height // projection.pool, width // projection.pool)
            post_shape = (1, 1, post.size)
        return cls(
            *(height, width, channels),
            *post_shape,
            *kernel,
            *both(projection.stride),
            *sides(projection.padding)[:2],
            pool=projection.pool,
            identity=not projection.weighted,
            groups=1 if projection.channels else projection.groups,
        )

    @property
    def scale(self) -> float:
        """What average pooling leaves of a spike, exactly as a float32."""
        return float(np.float32(1 / self.pool**2))

    @property
    def kernel(self) -> tuple[int, int]:
        """Height and width."""
        return self.kernel_height, self.kernel_width

    @property
    def kernel_size(self) -> int:
        """Number of weights that are kept."""
        return 0 if self.identity else self.channels * self.kernel_height * self.kernel_width * self.row

    @property
    def row(self) -> int:
        """Number of weights by which a neuron of pre reaches one pixel of post: its channels, or those of one group."""
        return self.post_channels // self.groups

    @property
    def crossings(self) -> int:
        """At least as many as there are pairs of a neuron of pre and a pixel of post that it reaches."""
        covering = self.kernel_height * self.kernel_width, self.post_height * self.post_width
        return self.height * self.width * self.channels * min(covering)


def checked_weights(spec: NetSpec, weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of the network's own weighted projections; raises UserError where one is missing or does not fit."""
    own = {p.name: np.asarray(weights[p.name]) for p in spec.projections if p.weighted and p.name in weights}
    check_weights(spec, own, "the mapping of weights")
    for name, values in own.items():
        if not np.isfinite(values).all():
            raise UserError(f"weights of {name} are not all finite (NaN or infinity)")
    return own


def as_convolution(spec: NetSpec, projection: Projection, weights: np.ndarray | None) -> np.ndarray:
    """A projection's weights ``[c_post][c_pre / groups][ky][kx]``, float32; without weights those of an identity.

    With 0 in the places that dilation leaves out, and for channels of pre at which the projection does not begin.
    """
    geometry = Geometry.of(spec, projection)
    channels = len(projection.channels) or geometry.channels
    if weights is None:
        weights = np.eye(geometry.post_channels, channels)[:, :, None, None]
    elif projection.kind == "dense":
        shape = (geometry.post_channels, geometry.kernel_height, geometry.kernel_width, channels)
        weights = weights.reshape(shape).transpose(0, 3, 1, 2)
    else:
        weights = dilated(weights, both(projection.dilation))
    if projection.channels:
        chosen, within = weights, weights.shape[1]  # channels of a group
        weights = np.zeros((geometry.post_channels, geometry.channels, *weights.shape[2:]))
        for rows in np.split(np.arange(geometry.post_channels), projection.groups):
            group = rows[0] * projection.groups // geometry.post_channels
            of_pre = list(projection.channels[group * within : (group + 1) * within])
            weights[rows[:, None], of_pre] = chosen[rows]
    return weights.astype(np.float32)


def dilated(weights: np.ndarray, dilation: tuple[int, int]) -> np.ndarray:
    """A kernel with the places that dilation leaves out, 0."""
    if dilation == (1, 1):
        return weights
    (height, width), (y, x) = weights.shape[2:], dilation
    whole = np.zeros((*weights.shape[:2], (height - 1) * y + 1, (width - 1) * x + 1), dtype=weights.dtype)
    whole[:, :, ::y, ::x] = weights
    return whole


def joined(spec: NetSpec, projection: Projection) -> np.ndarray | None:
    """Where as_convolution() has weights of connections, bool, of its shape; None if that is everywhere."""
    if projection.dilation == 1 and not projection.channels:
        return None
    return as_convolution(spec, projection, np.ones(spec.weight_shape(projection))) != 0


def connections(
    geometry: Geometry, weights: np.ndarray, where: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every connection of a projection, for stock ``Synapses``.

    Parameters
    ----------
    geometry : Geometry
    weights : numpy.ndarray
        ``[c_post][c_pre / groups][ky][kx]``, as of :func:`as_convolution`.
    where : numpy.ndarray, optional
        Which of them are of connections, as of :func:`joined`.

    Returns
    -------
    pre, post : numpy.ndarray
        int32 neuron indices.
    weight : numpy.ndarray
        What a spike along the connection adds, of the weights' type.
    """
    g = geometry
    y_pairs = _pairs(g.height, g.post_height, g.kernel_height, g.stride_y, g.top, g.pool)
    x_pairs = _pairs(g.width, g.post_width, g.kernel_width, g.stride_x, g.left, g.pool)
    if g.identity:
        c_pre = c_post = np.arange(g.channels)
    else:
        c_pre, within = (index.ravel() for index in np.indices((g.channels, g.row)))
        c_post = c_pre // (g.channels // g.groups) * g.row + within
    iy, ix, ic = (i.ravel() for i in np.indices((len(y_pairs), len(x_pairs), len(c_pre)), dtype=np.int32))
    y, row, ky = y_pairs[iy].T
    x, column, kx = x_pairs[ix].T
    pre = (y * g.width + x) * g.channels + c_pre[ic]
    post = (row * g.post_width + column) * g.post_channels + c_post[ic]
    place = (c_post[ic], c_pre[ic] % weights.shape[1], ky, kx)
    weight = weights[place] * weights.dtype.type(g.scale)
    chosen = slice(None) if where is None else where[place]
    return pre.astype(np.int32)[chosen], post.astype(np.int32)[chosen], weight[chosen]


def _pairs(size: int, post_size: int, kernel: int, stride: int, padding: int, pool: int) -> np.ndarray:
    """Along one axis: all (position in pre, position in post, position in the kernel), shape (n, 3)."""
    position, out = (index.ravel() for index in np.indices((size, post_size)))
    k = position // pool + padding - out * stride
    inside = (k >= 0) & (k < kernel)
    return np.stack([position, out, k], axis=1)[inside]
