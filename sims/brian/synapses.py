"""A projection in Brian2: synapses that share their weights, or stock ones with a weight for each connection."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from brian2 import Group, Synapses, ms

from netspec.errors import UserError
from netspec.options import machine_memory
from netspec.spec import NetSpec
from sims.brian.codeobjects import TemplateRunner, is_standalone
from sims.simulation.geometry import Geometry, connections

__all__ = ["MaxPooling", "SharedProjection", "check_memory", "explicit_synapses"]

INNER_LOOPS = str(Path(__file__).parent / "include" / "inner_loops.h")
EXPLICIT_BYTES = 64  # of a connection while stock synapses are made: indices, weight, and copies of them


class SharedProjection(TemplateRunner):
    """Every spike of ``pre`` adds its rows of the kernel to a variable of ``post``: the membrane potential.

    One step costs as many additions as the spikes have connections, and in C++ standalone a look at every pixel of
    ``post``; memory is that of the kernel, and of a list of the spikes that reach each pixel, shared by all
    projections.

    Parameters
    ----------
    pre, post : Group
        ``pre`` has spikes; ``post`` has the variable, and ``reached`` if its neurons may be left alone
        (``NeuronStep``).
    geometry : Geometry
    kernel : numpy.ndarray, optional
        Weights, packed by ``pack_kernel``; they become the variable ``kernel``, of the variable's type. Left out, they
        lie in a file that the binary maps (C++ standalone, see ``run_input.h``), and spikes are taken to be in
        ascending order of their neurons.
    offset : int
        Where the kernel begins in that file, in numbers.
    half : bool
        Whether the weights in that file have half precision.
    sign : {1, -1}
        Factor on all weights: -1 for spikes of negative inputs.
    graded : bool
        Multiply by the presynaptic ``v``: the projection of a relay.
    when, order, name
        As for every Brian2 object.
    variable : str
        Of ``post``, one number a neuron, of single or double precision.
    ours : bool
        Whether both are groups of a SpikingNetwork, whose ``spike_value`` and ``reached`` are heeded.
    batch : int
        Images whose neurons both groups hold, one image after another.
    scale : float, optional
        What a spike counts, if it is not the share of its pool.
    """

    def __init__(
        self,
        pre: Group,
        post: Group,
        geometry: Geometry,
        kernel: np.ndarray | None = None,
        offset: int = 0,
        half: bool = False,
        sign: int = 1,
        graded: bool = False,
        when: str = "synapses",
        name: str = "sharedprojection*",
        order: int = 0,
        variable: str = "v",
        ours: bool = True,
        batch: int = 1,
        scale: float | None = None,
    ) -> None:
        references = {"_pre_spikes": (pre, "_spikespace"), "_post_v": (post, variable)}
        marks = 0  # of each pixel of post; a dense projection takes all of post for one
        if ours and "reached" in post.variables:
            references |= {"_post_lowest": (post, "lowest"), "_post_reached": (post, "reached")}
            marks, rest = divmod(post.variables["reached"].size, batch * geometry.post_height * geometry.post_width)
            assert marks and not rest
        assert geometry.kernel_size < 2**31  # places in it are int32
        if ours and "spike_value" in pre.variables:
            references["_pre_value"] = (pre, "spike_value")
        if graded:
            references["_pre_v"] = (pre, "v")
        dtype = np.dtype(post.variables[variable].dtype)
        double = dtype == np.float64
        settings = asdict(geometry) | {
            "batch": batch,
            "pre_size": len(pre) // batch,
            "post_size": len(post) // batch,
            "row": geometry.row,
            "real": "double" if double else "float",
            "sign": sign,
            "scale": geometry.scale if scale is None else scale,
            "weight_type": "double" if double else "vectors::half" if half else "float",
            "header": INNER_LOOPS,
            "graded": graded,
            "marks": marks,
            "offset": offset,
            "kernel_size": geometry.kernel_size,
            "crossings": geometry.crossings,
        }
        TemplateRunner.__init__(self, post, "shared_projection", when, name, (), references, {"g": settings}, order)
        self.geometry = geometry
        if kernel is None:
            assert geometry.identity or is_standalone()
        else:
            assert kernel.size == geometry.kernel_size
            self.variables.add_array("kernel", size=kernel.size, values=kernel, dtype=dtype, constant=True)
            self.needed_variables.append("kernel")


class MaxPooling(TemplateRunner):
    """Each spike whose neuron's count exceeds that of a window it is in sets ``v`` of the window's neuron to 1.

    So neurons of ``post`` fire when the largest count of their window rises: by one at most in a step, as the counts
    do, so that their own count is that maximum (Li and Zeng 2022, arXiv:2204.13271).

    Parameters
    ----------
    pre, post : Group
        With ``spike_count``.
    geometry : Geometry
    when, name
        As for every Brian2 object.
    batch : int
        Images whose neurons both groups hold, one image after another.
    """

    def __init__(self, pre: Group, post: Group, geometry: Geometry, when: str, name: str, batch: int = 1) -> None:
        references = {"_pre_spikes": (pre, "_spikespace"), "_pre_count": (pre, "spike_count")}
        references |= {"_post_count": (post, "spike_count"), "_post_v": (post, "v")}
        TemplateRunner.__init__(
            self, post, "max_pooling", when, name, (), references, {"g": asdict(geometry) | {"batch": batch}}
        )


def explicit_synapses(
    pre: Group,
    post: Group,
    geometry: Geometry,
    weights: np.ndarray | None,
    where: np.ndarray | None,
    graded: bool,
    when: str,
    name: str,
    order: int = 0,
) -> Synapses:
    """A stock ``Synapses`` with a weight ``w`` for each connection of the projection; without weights max pooling.

    ``weights`` and ``where`` are as for ``connections``.
    """
    factor = " * v_pre" if graded else " * spike_value_pre" if "spike_value" in pre.variables else ""
    model, effect = "w : 1 (constant)", f"v_post += w{factor}"
    if weights is None:
        model, effect = "", "v_post += int(spike_count_pre > spike_count_post)"
    synapses = Synapses(pre, post, model, on_pre=effect, delay=0 * ms, dtype={"w": np.float32}, name=name)
    if weights is None:
        weights = np.ones((geometry.channels, 1, *geometry.kernel), np.float32)
    i, j, w = connections(geometry, weights, where)
    if len(i):
        synapses.connect(i=i, j=j)
        if model:
            synapses.w = w
    else:  # padding and stride can leave nothing
        synapses.connect(False)
    synapses.pre.when, synapses.pre.order = when, order
    return synapses


def check_memory(spec: NetSpec) -> None:
    """Raise UserError if explicit synapses cannot fit into this machine's memory."""
    needed = EXPLICIT_BYTES * sum(spec.synapses(projection) for projection in spec.projections)
    available = machine_memory()
    if needed > available:
        raise UserError(
            f"explicit synapses of {spec.name} need about {needed / 1e9:.1f} GB while they are made, this machine has "
            f"{available / 1e9:.1f} GB; use shared synapses or a narrower network"
        )
