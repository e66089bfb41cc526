"""Recordings of small networks, for the tests of figures and of exports."""

from itertools import pairwise

import numpy as np
from networks import net, pair

from netspec.spec import NetSpec, Projection
from sims.simulation.recording import Recording
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput
from sims.simulation.wiring import counted_groups

STEPS, IMAGES = 30, 4
SPEC = net(
    "small",
    {"input": (4, 6, 3), "conv": (4, 6, 8), "hidden": (1, 1, 5), "output": (1, 1, 4)},
    Projection("input", "conv", kernel=3, padding=1),
    Projection("conv", "hidden", kind="dense", pool=2),
    Projection("hidden", "output", kind="dense"),
)
GROUPS = ("input_on", "input_off", "conv", "hidden")


def small_recording() -> Recording:
    """Four presentations, rasters of the first three."""
    rng = np.random.default_rng(0)
    weights = {p.name: rng.normal(0.1, 0.4, SPEC.weight_shape(p)).astype(np.float32) for p in SPEC.projections}
    x = rng.uniform(-0.6, 0.6, (IMAGES, 4, 6, 3)).astype(np.float32)
    thresholds = dict.fromkeys(("conv", "hidden", "output"), 0.8)
    run_input = RunInput(x, thresholds, STEPS, rasters=GROUPS, raster_presentations=3)
    return ReferenceSimulator(SPEC, weights).run(run_input)


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def of_spikes(output_spikes, output_v, spec: NetSpec | None = None, **counts) -> Recording:
    """A recording from output spikes and potentials (presentations, steps, classes), and counts of other groups."""
    spikes, v = np.asarray(output_spikes), np.asarray(output_v, dtype=np.float32)
    presentations, steps, classes = spikes.shape
    spec = spec or pair(post=(1, 1, classes))
    counts[spec.output.name] = spikes.sum(axis=1)
    dense = [np.broadcast_to(counts.get(name, 0), (presentations, n)) for name, n in counted_groups(spec).items()]
    raster = np.argwhere(spikes.reshape(-1, classes)).astype(np.int32)
    return Recording(spec, steps, np.hstack(dense).astype(np.uint16), v, {spec.output.name: raster})


def synthetic(steps: int, spikes: int, **shapes: tuple[int, int, int]) -> Recording:
    """One presentation of random spikes of an input and these populations, about as many in each group."""
    shapes = {"input": (1, 1, 1)} | shapes
    spec = net("synthetic", shapes, *(Projection(pre, post, kind="dense") for pre, post in pairwise(shapes)))
    rng = np.random.default_rng(0)
    rasters, counts = {}, []
    for name, n in counted_groups(spec).items():
        flat = np.unique(rng.integers(0, steps * n, spikes))
        rasters[name] = np.stack([flat // n, flat % n], axis=1).astype(np.int32)
        counts.append(np.bincount(flat % n, minlength=n))
    v = np.zeros((1, steps, spec.output.size), np.float32)
    return Recording(spec, steps, np.concatenate(counts)[None].astype(np.uint16), v, rasters)
