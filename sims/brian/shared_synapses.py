"""Synapses that share their weights, between Brian2 groups of one's own: a convolution, or a dense layer."""

import re
from collections.abc import Mapping, Sequence
from operator import index
from typing import Any

import numpy as np
from brian2 import Group, Quantity, Subgroup
from brian2.core.namespace import get_local_namespace
from brian2.core.variables import ArrayVariable
from brian2.units.fundamentalunits import fail_for_dimension_mismatch, get_dimensions

from netspec.errors import UserError
from sims.brian.packing import pack_kernel
from sims.brian.synapses import SharedProjection
from sims.simulation.geometry import Geometry

__all__ = ["SharedSynapses"]

EFFECT = re.compile(r"(\w+?)(?:_post)?\s*([+-])=\s*(?:([\w.]+)\s*\*\s*w|w\s*\*\s*([\w.]+)|w)")


class SharedSynapses(SharedProjection):
    """What ``Synapses(pre, post, 'w : 1', on_pre='ge_post += w')`` does if ``w`` is a kernel that all places share.

    Neither a list of connections nor a weight for each of them is kept. Works with numpy, Cython and C++ standalone.

    Neurons are numbered channel-last, ``(y * width + x) * channels + c``, as ``numpy.ravel`` does.

    Parameters
    ----------
    pre : Group
        With spikes: NeuronGroup, PoissonGroup, SpikeGeneratorGroup, ...
    post : Group
    weights : numpy.ndarray or Quantity
        Of a convolution (channels of post, channels of pre / groups, height, width), as torch has them; a
        cross-correlation, as in all deep learning. Of a dense layer (neurons of post, neurons of pre).
    on_pre : str
        What a spike does: ``ge_post += w``, ``ge_post -= w`` or, with a number or a constant as a factor,
        ``ge_post += c*w``.
    pre_shape : (int, int, int)
        Height, width and channels of ``pre``, for a convolution. Those of ``post`` follow.
    stride, padding : int or (int, int)
        As torch's Conv2d has them.
    groups : int
        Likewise.
    pool : int
        The convolution sees ``pre`` through windows of pool x pool neurons, whose spikes count 1 / pool**2
        (average pooling).
    when, order, name
        As of ``Synapses``, but that the order is 0 unless told (that of ``on_pre`` is -1).
    namespace : mapping, optional
        Where the factor is looked up; by default where this is called.
    delay : Quantity
        None but 0: there are no delays.

    Raises
    ------
    UserError
        If stock Synapses would do something else than these can.
    DimensionMismatchError

    Attributes
    ----------
    post_shape : (int, int, int)
        Height, width, channels.
    kernel : VariableView
        The weights times the factor, over ``pool**2``, in SI units, in the order ``[c_pre][ky][kx][c_post / groups]``.

    Examples
    --------
    ``SharedSynapses(image, cells, filters, on_pre="v_post += w", pre_shape=(64, 64, 1), padding=4)``
    """

    def __init__(
        self,
        pre: Group,
        post: Group,
        weights: np.ndarray | Quantity,
        on_pre: str,
        pre_shape: Sequence[int] | None = None,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        groups: int = 1,
        pool: int = 1,
        when: str = "synapses",
        order: int = 0,
        name: str = "sharedsynapses*",
        namespace: Mapping[str, Any] | None = None,
        delay: Quantity | float = 0,
    ) -> None:
        if np.any(np.asarray(delay) != 0):
            raise UserError("shared-weight synapses have no delays; stock Synapses do")
        effect = EFFECT.fullmatch(on_pre.strip())
        if not effect:
            raise UserError(f"on_pre must be 'VARIABLE_post += FACTOR*w' (or -=; the factor may miss), got {on_pre!r}")
        target, sign = effect[1], {"+": 1, "-": -1}[effect[2]]
        check_ends(pre, post, target)
        named = effect[3] or effect[4] or "1"
        if named in {*pre.variables, *post.variables}:
            raise UserError(f"the factor {named} in on_pre is a variable of the groups; only a constant can be one")
        factor = value(named, get_local_namespace(1) if namespace is None else namespace)
        wrong = f"{on_pre} adds something else to {target} than it holds"
        fail_for_dimension_mismatch(factor * Quantity(weights), Quantity(1, dim=post.variables[target].dim), wrong)
        dtype = np.dtype(post.variables[target].dtype)
        (groups,), (pool,) = whole_numbers("groups", groups), whole_numbers("pool", pool)
        kernel = np.asarray(np.asarray(factor) * np.asarray(weights) / pool**2, dtype=dtype) * dtype.type(sign)
        if not np.isfinite(kernel).all():
            raise UserError(f"weights of {name.rstrip('*')}: some are no finite numbers in {dtype}")
        geometry, kernel = as_geometry(kernel, len(pre), pre_shape, stride, padding, groups, pool)
        self.post_shape = geometry.post_height, geometry.post_width, geometry.post_channels
        if len(post) != np.prod(self.post_shape):
            raise UserError(f"post has {len(post)} neurons, but what arrives is of shape {self.post_shape}")
        packed = pack_kernel(kernel, groups)
        SharedProjection.__init__(
            self, pre, post, geometry, packed, when=when, order=order, name=name, variable=target, ours=False, scale=1
        )


def check_ends(pre: Group, post: Group, target: str) -> None:
    """Raise UserError where stock Synapses would do something else than add to a variable of each neuron."""
    for role, group in (("pre", pre), ("post", post)):
        if isinstance(group, Subgroup):
            raise UserError(
                f"{role} is the subgroup {group.name}; join the whole group, with weights of 0 where need be"
            )
    if "_spikespace" not in pre.variables:
        raise UserError(f"{pre.name} has no spikes")
    if pre.clock is not post.clock:
        raise UserError(f"{pre.name} and {post.name} have different clocks")
    variable = post.variables.get(target)
    if not isinstance(variable, ArrayVariable) or variable.scalar or variable.size != len(post):
        raise UserError(f"{target} is no variable that each neuron of {post.name} has of its own")
    if variable.read_only or variable.constant:
        raise UserError(f"{target} of {post.name} cannot be changed")
    if variable.conditional_write is not None:
        raise UserError(
            f"{target} of {post.name} is marked (unless refractory): spikes would reach it all the same; take the mark "
            "away, or let them reach another variable, as ge"
        )
    if variable.dtype not in (np.float32, np.float64):
        raise UserError(f"{target} of {post.name} has the type {variable.dtype}; float32 and float64 can be added to")


def value(text: str, names: Mapping[str, Any]) -> Any:
    """A factor: a number, or a constant by its name."""
    try:
        return float(text)
    except ValueError:
        pass
    found = names.get(text)
    if found is None or np.ndim(found) or not np.issubdtype(np.asarray(found).dtype, np.number):
        raise UserError(f"the factor {text} in on_pre is no constant where the synapses are made or in their namespace")
    get_dimensions(found)
    return found


def whole_numbers(name: str, given: Any, least: int = 1, n: int = 1) -> tuple[int, ...]:
    """``n`` whole numbers, or one that stands for all; UserError if they are none, or less than ``least``."""
    found = given if isinstance(given, Sequence) and not isinstance(given, str) else [given] * n
    try:
        numbers = tuple(map(index, found))
    except TypeError:
        numbers = ()
    if len(numbers) != n or min(numbers) < least:
        several = f"{n} whole numbers, each" if n > 1 else "a whole number,"
        raise UserError(f"{name} must be {several} at least {least}, got {given!r}")
    return numbers


def as_geometry(
    kernel: np.ndarray, n_pre: int, pre_shape: Any, stride: Any, padding: Any, groups: int, pool: int
) -> tuple[Geometry, np.ndarray]:
    """The geometry of a kernel, and the kernel as that of a convolution; raises UserError where they do not fit."""
    strides, paddings = whole_numbers("stride", stride, n=2), whole_numbers("padding", padding, least=0, n=2)
    if kernel.ndim == 2:
        if pre_shape is not None or (strides, paddings, groups, pool) != ((1, 1), (0, 0), 1, 1):
            raise UserError(
                "weights of two dimensions are a dense layer's, without shape, stride, padding, groups, pool"
            )
        shape: tuple[int, ...] = (1, 1, n_pre)
        kernel = kernel[:, :, None, None]
    elif kernel.ndim == 4 and pre_shape is not None:
        shape = whole_numbers("pre_shape", tuple(pre_shape) if np.iterable(pre_shape) else (pre_shape,), n=3)
    else:
        raise UserError(
            "weights must be a dense layer's (post, pre), or a convolution's (channels of post, channels of pre / "
            f"groups, height, width) with pre_shape=(height, width, channels); got {kernel.shape} and {pre_shape}"
        )
    post_channels, within, kernel_height, kernel_width = kernel.shape
    if np.prod(shape) != n_pre:
        raise UserError(f"pre has {n_pre} neurons, which is not {' x '.join(map(str, shape))}")
    if shape[2] != within * groups or post_channels % groups:
        raise UserError(
            f"{groups} groups of {within} channels of pre, and {post_channels} of post, do not fit {shape[2]} channels"
        )
    if shape[0] % pool or shape[1] % pool:
        raise UserError(f"{shape[0]} x {shape[1]} places are no multiple of pool {pool}")
    height, width = (
        (size // pool + 2 * around - extent) // step + 1
        for size, extent, around, step in zip(shape, (kernel_height, kernel_width), paddings, strides, strict=False)
    )
    if min(height, width, post_channels) < 1:
        raise UserError(f"nothing is left of {shape[0]} x {shape[1]} places by this kernel, stride, padding and pool")
    (down, right), (top, left) = strides, paddings
    sides = (kernel_height, kernel_width, down, right, top, left, pool)
    places = (shape[0], shape[1], shape[2], height, width, post_channels)
    return Geometry(*places, *sides, identity=False, groups=groups), kernel
