"""Small networks for the tests, with weights and thresholds whose float32 sums are exact, whatever their order.

Weights are multiples of 1/64, or 1/4096 where half precision is not to hold them. Those into and out of a relay
multiply each other, so that they are multiples of 1/4, with zero mean and a pooling of 2 at most: even the sums after
a relay need fewer than 24 bits.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st

from netspec.architectures.vgg import vgg16
from netspec.spec import EMITTING, NetSpec, Population, Projection, both, sides
from sims.simulation.geometry import Geometry
from sims.simulation.recording import Recording
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput
from sims.simulation.wiring import counted_groups


def net(
    name: str,
    shapes: dict[str, tuple[int, int, int]],
    *projections: Projection,
    relays=(),
    pools=(),
    dropout=(),
    rate=0.1,
) -> NetSpec:
    """A network of populations of these shapes; the first is the input, others spike, are relays or max pooling.

    ``dropout`` names the populations that have some, at that ``rate``.
    """
    kinds = {next(iter(shapes)): "input"} | dict.fromkeys(relays, "relay") | dict.fromkeys(pools, "max")
    rates = dict.fromkeys(dropout, rate)
    populations = [Population(p, shape, kinds.get(p, "if"), rates.get(p, 0.0)) for p, shape in shapes.items()]
    return NetSpec(name, tuple(populations), projections)


def garden() -> NetSpec:
    """Every kind of projection: overlapping strides, even kernels, identities, relays, junctions, pooled dense."""
    shapes = {"input": (8, 12, 2), "a": (8, 12, 3), "b": (4, 6, 4), "c": (3, 4, 2), "r": (4, 6, 4), "d": (3, 4, 3)}
    return net(
        "garden",
        shapes | {"s": (4, 6, 5), "output": (1, 2, 3)},
        Projection("input", "a", kernel=3, padding=1),
        Projection("a", "b", kernel=5, stride=2, padding=2),
        Projection("input", "b", kind="identity", stride=2),  # 2 of 4 channels
        Projection("a", "c", kernel=4, stride=3, padding=1),  # the last column and row are out of reach
        Projection("b", "r", kernel=3, padding=1),
        Projection("a", "r", kind="identity", stride=2),
        Projection("r", "d", kernel=2, stride=2, padding=1),
        Projection("r", "s", kind="identity"),
        Projection("b", "s"),
        Projection("a", "output", kind="dense", pool=4),
        Projection("c", "output", kernel=3),  # and dense ones onto the same two pixels
        Projection("d", "output", kind="dense"),
        Projection("s", "output", kind="dense", pool=2),
        relays="rs",
    )


def sprout() -> NetSpec:
    """A relay, a junction and pooling in as few projections as possible: each is seconds of compilation."""
    return net(
        "sprout",
        {"input": (4, 6, 1), "a": (4, 6, 3), "r": (2, 3, 2), "output": (1, 1, 4)},
        Projection("input", "a", kernel=3, padding=1),
        Projection("a", "r", kernel=2, stride=2),
        Projection("a", "output", kind="dense", pool=2),
        Projection("r", "output", kind="dense"),
        relays="r",
    )


def berry() -> NetSpec:
    """Max pooling, dilation and a choice of channels, in as few projections as possible."""
    return net(
        "berry",
        {"input": (4, 6, 1), "a": (4, 6, 3), "m": (2, 3, 3), "output": (1, 2, 4)},
        Projection("input", "a", kernel=3, padding=1),
        Projection("a", "m", kind="window", kernel=3, stride=2, padding=(1, 1, 0, 0)),
        Projection("m", "output", kernel=2, dilation=(1, 2), channels=(2, 0), padding=(0, 0, 0, 1)),
        pools="m",
    )


def residual(junction: str) -> NetSpec:
    """Two residual blocks with type-A shortcuts; junctions are relays (the paper's Basic) or have ReLUs ('if')."""
    shapes = dict.fromkeys(("stem", "branch1", "junction1"), (8, 8, 4))
    shapes |= dict.fromkeys(("branch2", "junction2"), (4, 4, 6))
    return net(
        f"residual-{junction}",
        {"input": (8, 8, 3), **shapes, "output": (1, 1, 5)},
        Projection("input", "stem", kernel=3, padding=1),
        Projection("stem", "branch1", kernel=3, padding=1),
        Projection("branch1", "junction1", kernel=3, padding=1, residual=True),
        Projection("stem", "junction1", kind="identity"),
        Projection("junction1", "branch2", kernel=3, stride=2, padding=1),
        Projection("branch2", "junction2", kernel=3, padding=1, residual=True),
        Projection("junction1", "junction2", kind="identity", stride=2),
        Projection("junction2", "output", kind="dense", pool=2),
        relays=("junction1", "junction2") if junction == "relay" else (),
    )


def orchard() -> NetSpec:
    """What networks of others have: max pooling, groups, dilation, one-sided padding, choices of channels."""
    shapes = {"input": (7, 9, 2), "a": (7, 9, 4), "m": (4, 4, 4), "b": (4, 4, 6), "n": (3, 3, 6), "c": (3, 3, 4)}
    return net(
        "orchard",
        shapes | {"r": (4, 4, 6), "output": (1, 1, 3)},
        Projection("input", "a", kernel=(3, 5), padding=(1, 2)),
        Projection("a", "m", kind="window", kernel=3, stride=2, padding=(1, 0, 1, 0)),  # overlapping
        Projection("m", "b", kernel=3, padding=2, dilation=2, groups=2),
        Projection("a", "b", kernel=2, stride=2, padding=(0, 0, 1, 0), channels=(3, 1), label="side"),
        Projection("m", "b", channels=(2,), label="again"),
        Projection("b", "n", kind="window", kernel=2),
        Projection("n", "c", kernel=3, padding=1, groups=2, channels=(5, 0, 4, 1)),
        Projection("m", "r", kernel=3, padding=(2, 1, 0, 1)),
        Projection("b", "r", kernel=3, padding=1, groups=6, label="depthwise"),
        Projection("r", "output", kind="dense", channels=(4, 0)),
        Projection("n", "output", kind="dense"),
        Projection("c", "output", kernel=3),
        relays="r",
        pools="mn",
    )


def wide() -> NetSpec:
    """Kernels of more than 200,000 weights, which the compiled network fetches ahead."""
    return net(
        "wide",
        {"input": (3, 4, 8), "a": (3, 4, 150), "b": (3, 4, 151), "output": (1, 1, 120)},
        Projection("input", "a"),
        Projection("a", "b", kernel=3, padding=1),
        Projection("b", "output", kind="dense"),
    )


def identities() -> NetSpec:
    """No weights at all."""
    return net(
        "identities",
        {"input": (4, 6, 2), "a": (4, 6, 3), "output": (1, 2, 4)},
        Projection("input", "a", kind="identity"),
        Projection("a", "output", kind="identity", pool=2, stride=2),
    )


def pair(shape: tuple[int, int, int] = (1, 2, 1), post: tuple[int, int, int] = (1, 1, 1), **options) -> NetSpec:
    """An input and an output, joined densely or as the options of the projection say."""
    return net("pair", {"input": shape, "output": post}, Projection("input", "output", **options or {"kind": "dense"}))


NETWORKS: dict[str, Callable[[], NetSpec]] = {
    "garden": garden,
    "orchard": orchard,
    "berry": berry,
    "sprout": sprout,
    "residual-relay": lambda: residual("relay"),
    "residual-if": lambda: residual("if"),
    "vgg": lambda: vgg16(width=1 / 64),  # all 16 layers, with 1 to 8 channels
    "wide": wide,
    "identities": identities,
}
FINE = ("vgg",)


def weights_of(network: str) -> dict[str, np.ndarray]:
    """The weights of one of the networks."""
    return exact_weights(NETWORKS[network](), fine=network in FINE)


def exact_weights(spec: NetSpec, seed: int = 0, fine: bool = False) -> dict[str, np.ndarray]:
    """Random weights of every weighted projection, float32; fine ones do not fit half precision."""
    rng = np.random.default_rng(seed)
    weights = {}
    for projection in spec.projections:
        if projection.weighted:
            graded = "relay" in (spec[projection.pre].kind, spec[projection.post].kind)
            shape = spec.weight_shape(projection)
            grid = 4 if graded else 4096 if fine else 64
            low, high = (-2, 3) if graded else (-3 * grid // 8, 5 * grid // 8)
            weights[projection.name] = (rng.integers(low, high, shape) / grid).astype(np.float32)
    return weights


def images(spec: NetSpec, n: int = 3, seed: int = 0, gain: float = 1.0) -> np.ndarray:
    """Inputs in [-1, 1], among them pixels that are exactly 0, 1 and -1."""
    rng = np.random.default_rng(seed)
    x = np.clip(np.round(rng.normal(0, 0.5, (n, *spec.input.shape)), 1), -1, 1) * gain
    return x.astype(np.float32)


def exact_thresholds(
    spec: NetSpec, weights: dict[str, np.ndarray], x: np.ndarray, reset: str = "zero", share: float = 0.7
) -> dict[str, float]:
    """Multiples of 1/64 at which every population fires now and then: a share of the largest synaptic input."""
    reference = ReferenceSimulator(spec, weights, reset)
    thresholds: dict[str, float] = {}
    for population in spec.spiking:
        measured = RunInput(x, thresholds, steps=10, measured=(population.name,))
        peak = float(reference.run(measured).peaks[population.name].max())
        thresholds[population.name] = max(1, round(64 * share * peak)) / 64
    return thresholds


def groups(spec: NetSpec) -> list[str]:
    """Names of all groups whose spikes can be noted."""
    return list(counted_groups(spec))


def case(name: str, reset: str = "zero", steps: int = 20) -> tuple[NetSpec, dict[str, np.ndarray], RunInput]:
    """One of the networks, its weights, and a run with everything noted."""
    spec = NETWORKS[name]()
    weights, x = weights_of(name), images(spec)
    thresholds = exact_thresholds(spec, weights, x, reset)
    run_input = RunInput(x, thresholds, steps, seed=5, rasters=groups(spec), raster_presentations=len(x))
    return spec, weights, run_input


def varied(spec: NetSpec, seed: int, coding: str, steps: int = 6, n: int = 2, noted: int = 2) -> RunInput:
    """A run in which everything that can be told of neurons differs between them; all numbers are exact."""
    rng = np.random.default_rng(seed)
    x, thresholds, constant, initial = images(spec, n, seed), {}, {}, {}
    for population in spec.spiking:
        name, channels = population.name, population.shape[2]
        shape = [(), channels, population.shape][rng.integers(3)]  # one number, or one of each channel or neuron
        thresholds[name] = rng.integers(1, 128, shape) / 64
        if rng.random() < 0.5:
            constant[name] = rng.integers(-32, 33, channels) / 64
        if rng.random() < 0.5:
            initial[name] = rng.integers(-64, 65, population.shape) / 64
    place = [rng.integers(0, size, 20 * n) for size in (n, steps, *spec.input.shape)]
    events = np.unique(np.stack([*place, rng.choice([-1, 1], 20 * n)], axis=1), axis=0)
    if coding == "current":
        x = 2 * np.round(4 * x) / 4  # beyond 1
    shown = RunInput(x, thresholds, steps, seed, rasters=groups(spec), raster_presentations=noted, coding=coding)
    values = {p.name: 2.0 ** rng.integers(-2, 2, p.shape[2]) for p in spec.spiking if rng.random() < 0.5}
    events = events if coding == "events" else None
    return replace(shown, events=events, constant=constant, initial=initial, spike_values=values)


def assert_same(recording: Recording, expected: Recording) -> None:
    """Two recordings agree in every spike and every number."""
    assert (recording.spec, recording.steps) == (expected.spec, expected.steps)
    assert recording.settings == expected.settings
    for field in ("counts", "output_v"):
        np.testing.assert_array_equal(getattr(recording, field), getattr(expected, field), err_msg=field, strict=True)
    for field in ("rasters", "peaks"):
        arrays, others = getattr(recording, field), getattr(expected, field)
        assert list(arrays) == list(others)
        for name in arrays:
            np.testing.assert_array_equal(arrays[name], others[name], err_msg=f"{field} {name}", strict=True)


def crossings(spec: NetSpec, p: Projection) -> Iterator[tuple[int, ...]]:
    """Pixels that a projection joins, found position by position: y and x in pre, in post, in the kernel."""
    pre, post = spec[p.pre].shape, spec[p.post].shape
    top, left, *_ = sides(p.padding)
    (down, right), (height, width), apart = both(p.stride), both(p.kernel), both(p.dilation)
    for y, x, row, column in np.ndindex(*pre[:2], *post[:2]):
        ky, kx = y // p.pool + top - row * down, x // p.pool + left - column * right
        if p.kind == "dense":
            yield y, x, row, column, y // p.pool, x // p.pool
        elif ky % apart[0] == kx % apart[1] == 0 and 0 <= ky // apart[0] < height and 0 <= kx // apart[1] < width:
            yield y, x, row, column, ky, kx


def connected(spec: NetSpec, p: Projection) -> np.ndarray:
    """Table of who reaches whom: int, of the shapes of pre and post."""
    pre, post = spec[p.pre].shape, spec[p.post].shape
    table = np.zeros((*pre, *post), dtype=int)
    for y, x, row, column, *_ in crossings(spec, p):
        table[y, x, :, row, column] = channels_joined(p, pre[2], post[2])
    return table


def channels_joined(p: Projection, pre: int, post: int) -> np.ndarray:
    """Which channels of pre lead to which of post: (pre, post), 0 or 1."""
    if not p.weighted:
        return np.eye(pre, post)
    chosen = list(p.channels) or list(range(pre))
    table = np.zeros((pre, post))
    for k, channel in enumerate(chosen):
        group = k * p.groups // len(chosen)
        table[channel, group * post // p.groups : (group + 1) * post // p.groups] = 1
    return table


geometries = st.builds(
    Geometry,
    *[st.integers(1, 4)] * 6,
    kernel_height=st.integers(1, 6),
    kernel_width=st.integers(1, 6),
    stride_y=st.integers(1, 4),
    stride_x=st.integers(1, 4),
    top=st.integers(0, 2),
    left=st.integers(0, 2),
    pool=st.integers(1, 4),
    identity=st.just(False),
)


@st.composite
def specs(draw: st.DrawFn) -> NetSpec:
    """Random networks: chains with side branches, junctions and relays, over all kinds of projection."""
    side, channels = st.integers(1, 9), st.integers(1, 3)
    populations = [Population("input", (draw(side), draw(side), draw(channels)), kind="input")]
    projections: list[Projection] = []
    last = draw(st.integers(1, 4))
    for n in range(1, last + 1):
        name = "output" if n == last else f"p{n}"
        kind = "if" if n == last else draw(st.sampled_from(("if", "if", "relay", "max")))
        pre = draw(st.sampled_from(populations[-2:]))
        if kind == "max":
            pools = [p for p in populations[-2:] if p.kind in EMITTING]
            if pools:
                populations.append(_pooled(draw, draw(st.sampled_from(pools)), name, projections))
                continue
            kind = "if"
        graded = "relay" in (pre.kind, kind)
        projection_kind = draw(st.sampled_from(("conv", "conv", "identity", "dense")))
        if pre.kind == kind == "relay":
            projection_kind = "identity"
        options, plane = draw(st.sampled_from(list(_options(pre, projection_kind, graded))))
        groups = 1
        if projection_kind == "conv" and draw(st.booleans()):
            options, plane = _askew(draw, pre, options, plane)
            groups = options["groups"]
        if projection_kind == "identity":
            shape = (*plane, pre.shape[2] + draw(st.integers(0, 2)))
        else:
            shape = (*(plane or (draw(st.integers(1, 2)), draw(st.integers(1, 3)))), groups * draw(channels))
        post = Population(name, shape, kind=kind)
        projections.append(Projection(pre.name, name, **options))
        others = [p for p in populations if p is not pre]
        if others and draw(st.booleans()):
            other = draw(st.sampled_from(others))
            fitting = _second(other, post)
            if fitting:
                projections.append(Projection(other.name, name, **draw(st.sampled_from(fitting))))
        populations.append(post)
    return NetSpec("random", tuple(populations), tuple(projections))


def _pooled(draw: st.DrawFn, pre: Population, name: str, projections: list[Projection]) -> Population:
    """Max pooling of ``pre``, by windows of any kind."""
    options = {"kernel": 1, "stride": 1, "padding": 0, "pool": 1}
    options, plane = _askew(draw, pre, options, pre.shape[:2], window=True)
    projections.append(Projection(pre.name, name, kind="window", **options))
    return Population(name, (*plane, pre.shape[2]), kind="max")


def _askew(draw: st.DrawFn, pre: Population, options: dict, plane, window: bool = False) -> tuple[dict, tuple]:
    """The options with other numbers along each axis or side, dilation, groups, and a choice of channels."""
    small = st.integers(1, 3)
    around = tuple(draw(st.tuples(*[st.integers(0, 2)] * 4)))
    changed = options | {"kernel": (draw(small), draw(small)), "stride": (draw(small), draw(small)), "padding": around}
    if not window:
        groups = draw(st.sampled_from([n for n in (1, 2, 3) if n <= pre.shape[2]]))
        chosen = draw(st.permutations(range(pre.shape[2])))[: groups * (pre.shape[2] // groups)]
        changed |= {"dilation": (draw(small), draw(small)), "groups": groups, "channels": tuple(chosen)}
    reach = Projection("a", "b", **{**changed, "channels": (), "groups": 1}).reach
    ends, strides = (around[0] + around[2], around[1] + around[3]), changed["stride"]
    along = zip(pre.shape[:2], ends, reach, strides, strict=True)
    out = tuple((size // changed["pool"] + more - covered) // stride + 1 for size, more, covered, stride in along)
    if min(out) >= 1:
        return changed, out
    return options if window else options | {"groups": 1}, plane


def _options(pre: Population, kind: str, graded: bool):
    """All geometries of a projection that begins at ``pre``: its options, the height and width of post."""
    height, width, _ = pre.shape
    pools, strides = (1, 2) if graded else (1, 2, 4), (1,) if kind == "dense" else (1, 2, 3)
    kernels, paddings = (range(1, 6), range(3)) if kind == "conv" else ((1,), (0,))
    for pool, stride, kernel, padding in itertools.product(pools, strides, kernels, paddings):
        reach = kernel - 2 * padding
        if not (height % pool or width % pool or min(height, width) // pool < reach):
            options = {"kind": kind, "pool": pool, "stride": stride, "kernel": kernel, "padding": padding}
            plane = tuple((size // pool - reach) // stride + 1 for size in (height, width))
            yield options, None if kind == "dense" else plane


def _second(pre: Population, post: Population) -> list[dict]:
    """The projections from ``pre`` that fit the shape of ``post``."""
    graded = "relay" in (pre.kind, post.kind)
    fitting = []
    for kind in ("conv", "identity", "dense"):
        if pre.kind == post.kind == "relay" and kind != "identity":
            continue
        if (kind == "identity" and pre.shape[2] > post.shape[2]) or (kind == "dense" and pre.size * post.size > 20_000):
            continue
        fitting += [o for o, plane in _options(pre, kind, graded) if plane in (None, post.shape[:2])]
    return fitting
