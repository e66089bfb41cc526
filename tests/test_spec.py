"""The description of a network: what it refuses, and what it counts."""

import json
import re
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netspec.errors import UserError
from netspec.spec import NetSpec, Population, Projection, SpecError

INPUT = Population("input", (4, 6, 2), kind="input")
HIDDEN = Population("hidden", (4, 6, 3))
OUTPUT = Population("output", (1, 1, 5))
CONV = Projection("input", "hidden", kernel=3, padding=1)
DENSE = Projection("hidden", "output", kind="dense", pool=2)


def net(populations=(INPUT, HIDDEN, OUTPUT), projections=(CONV, DENSE)) -> NetSpec:
    return NetSpec("net", populations, projections)


def joined(pre: Population, post_size: tuple[int, int, int], **options) -> tuple[NetSpec, Projection]:
    """A network of one projection."""
    projection = Projection(pre.name, "output", **options)
    return NetSpec("pair", (pre, Population("output", post_size)), (projection,)), projection


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "conv 1"}, "population name 'conv 1' is not an identifier"),
        ({"name": ""}, "population name '' is not an identifier"),
        ({"shape": (4, 6)}, "hidden: shape (4, 6) is not (height, width, channels), each at least 1"),
        ({"shape": (4, 0, 3)}, "hidden: shape (4, 0, 3) is not (height, width, channels), each at least 1"),
        ({"kind": "lif"}, "hidden: kind 'lif' is none of ('input', 'if', 'relay')"),
        ({"dropout": -0.1}, "hidden: dropout -0.1 is not in [0, 1)"),
        ({"dropout": 1.0}, "hidden: dropout 1.0 is not in [0, 1)"),
        ({"dropout": float("nan")}, "hidden: dropout nan is not in [0, 1)"),
    ],
)
def test_population_says_what_does_not_fit(change, message):
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        replace(HIDDEN, **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sparse"}, "a_to_b: kind 'sparse' is none of ('conv', 'dense', 'identity')"),
        ({"kernel": 0}, "a_to_b: kernel, stride and pool must be at least 1, padding at least 0"),
        ({"stride": 0}, "a_to_b: kernel, stride and pool must be at least 1, padding at least 0"),
        ({"pool": 0}, "a_to_b: kernel, stride and pool must be at least 1, padding at least 0"),
        ({"padding": -1}, "a_to_b: kernel, stride and pool must be at least 1, padding at least 0"),
        ({"kind": "dense", "kernel": 3}, "a_to_b: only a convolution has a kernel and padding"),
        ({"kind": "identity", "padding": 1}, "a_to_b: only a convolution has a kernel and padding"),
        ({"kind": "dense", "stride": 2}, "a_to_b: a dense projection has no stride"),
    ],
)
def test_projection_says_what_does_not_fit(options, message):
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        Projection("a", "b", **options)


@pytest.mark.parametrize(
    ("populations", "projections", "message"),
    [
        ((INPUT,), (), "net: two or more populations with different names are needed, got ['input']"),
        (
            (INPUT, HIDDEN, HIDDEN),
            (CONV,),
            "net: two or more populations with different names are needed, got ['input', 'hidden', 'hidden']",
        ),
        (
            (replace(INPUT, kind="if"), HIDDEN, OUTPUT),
            (CONV, DENSE),
            "net: the first population, and no other, is the input; the last one is 'if'",
        ),
        (
            (INPUT, replace(HIDDEN, kind="input"), OUTPUT),
            (CONV, DENSE),
            "net: the first population, and no other, is the input; the last one is 'if'",
        ),
        (
            (INPUT, HIDDEN, replace(OUTPUT, kind="relay")),
            (CONV, DENSE),
            "net: the first population, and no other, is the input; the last one is 'if'",
        ),
        (
            (INPUT, HIDDEN, OUTPUT),
            (CONV, replace(CONV, kernel=1, padding=0), DENSE),
            "net: two projections join the same populations",
        ),
        (
            (INPUT, HIDDEN, OUTPUT),
            (CONV, replace(DENSE, pre="hiden")),
            "hiden_to_output: there is no population 'hiden'",
        ),
        ((INPUT, HIDDEN, OUTPUT), (replace(CONV, post="x"), DENSE), "input_to_x: there is no population 'x'"),
        (
            (INPUT, HIDDEN, OUTPUT),
            (CONV, DENSE, Projection("output", "hidden", kind="dense")),
            "output_to_hidden: hidden must stand behind output",
        ),
        (
            (INPUT, HIDDEN, OUTPUT),
            (CONV, DENSE, Projection("hidden", "hidden")),
            "hidden_to_hidden: hidden must stand behind hidden",
        ),
        (
            (INPUT, HIDDEN, OUTPUT),
            (CONV, replace(DENSE, pool=3)),
            "hidden_to_output: pooling by 3 does not divide 4x6",
        ),
        (
            (INPUT, HIDDEN, OUTPUT),
            (replace(CONV, padding=0), DENSE),
            "input_to_hidden: gives 2x4, but hidden is 4x6",
        ),
        (
            (INPUT, replace(HIDDEN, shape=(4, 6, 1)), OUTPUT),
            (Projection("input", "hidden", kind="identity"), DENSE),
            "input_to_hidden: an identity cannot go from 2 to 1 channels",
        ),
        (
            (INPUT, HIDDEN, OUTPUT),
            (Projection("input", "output", kind="dense"),),
            "net: population hidden has no incoming projection",
        ),
    ],
)
def test_network_says_what_does_not_fit(populations, projections, message):
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        net(populations, projections)


def test_unknown_population_is_answered_with_the_known_ones():
    with pytest.raises(SpecError, match=r"^net has no population 'conv1'; it has input, hidden, output$"):
        net()["conv1"]


def test_spec_error_is_told_to_the_user_in_one_line():
    assert issubclass(SpecError, UserError)


@pytest.mark.parametrize("part", [INPUT, CONV, net()])
def test_description_cannot_be_changed(part):
    with pytest.raises(FrozenInstanceError):
        part.kind = "if"


# What it holds


def test_network_finds_its_parts():
    spec = net()
    assert (spec.input, spec.output) == (INPUT, OUTPUT)
    assert spec["hidden"] is HIDDEN
    assert spec.spiking == (HIDDEN, OUTPUT)
    assert spec.incoming("hidden") == (CONV,) == spec.outgoing("input")
    assert spec.outgoing("output") == ()
    assert CONV.name == "input_to_hidden"
    assert not CONV.residual


def test_relay_is_not_among_the_spiking_populations():
    spec = net((INPUT, replace(HIDDEN, kind="relay"), OUTPUT))
    assert [population.name for population in spec.spiking] == ["output"]


def test_neurons_and_weights_are_counted():
    spec = net()
    assert spec.neurons() == 4 * 6 * 3 + 5  # the input has none
    assert spec.weight_shape(CONV) == (3, 2, 3, 3)
    assert spec.weight_shape(DENSE) == (5, 2 * 3 * 3)  # pooled 4x6 is 2x3
    assert spec.parameters() == 3 * 2 * 9 + 5 * 18
    spec, dense = joined(Population("input", (6, 9, 2), kind="input"), (1, 1, 5), kind="dense", pool=3)
    assert spec.weight_shape(dense) == (5, 2 * 3 * 2)


def test_identity_has_synapses_but_no_weights_and_no_macs():
    spec, identity = joined(INPUT, (4, 6, 3), kind="identity")
    assert not identity.weighted
    assert spec.weight_shape(identity) == ()
    assert spec.parameters() == 0
    assert spec.synapses(identity) == INPUT.size
    assert spec.macs(identity) == 0


# Counts against enumerated connections


def connections(height: int, width: int, channels: int, post: tuple[int, int, int], p: Projection) -> np.ndarray:
    """Table of who reaches whom: bool, (height, width, channels, *post)."""
    table = np.zeros((height, width, channels, *post), dtype=bool)
    if p.kind == "dense":
        return ~table
    for oy, ox in np.ndindex(post[:2]):
        for ky, kx in np.ndindex(p.kernel, p.kernel):
            y, x = oy * p.stride + ky - p.padding, ox * p.stride + kx - p.padding
            if not (0 <= y < height and 0 <= x < width):
                continue
            if p.kind == "conv":
                table[y, x, :, oy, ox, :] = True
            else:
                for c in range(channels):
                    table[y, x, c, oy, ox, c] = True
    return table


@st.composite
def projections(draw):
    """A network of one projection and its pooled input's height and width."""
    kind = draw(st.sampled_from(("conv", "conv", "dense", "identity")))
    height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    channels, out, pool = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    options = {"kind": kind, "pool": pool}
    if kind == "dense":
        post = (draw(st.integers(1, 2)), draw(st.integers(1, 3)), out)
    else:
        options["stride"] = draw(st.integers(1, 3))
        if kind == "conv":
            padding = options["padding"] = draw(st.integers(0, 3))
            options["kernel"] = draw(st.integers(1, min(4, min(height, width) + 2 * padding)))
        reach, padding = options.get("kernel", 1), options.get("padding", 0)
        rows, columns = (len(range(0, n + 2 * padding - reach + 1, options["stride"])) for n in (height, width))
        post = (rows, columns, out if kind == "conv" else channels + out - 1)
    spec, projection = joined(
        Population("input", (height * pool, width * pool, channels), kind="input"), post, **options
    )
    return spec, projection, (height, width)


@settings(max_examples=200, deadline=None)
@given(projections())
def test_counts_equal_the_enumerated_connections(drawn):
    spec, projection, (height, width) = drawn
    pool, channels = projection.pool, spec.input.shape[2]
    pooled = connections(height, width, channels, spec.output.shape, projection)
    unrolled = pooled[np.arange(height * pool) // pool][:, np.arange(width * pool) // pool]

    fan_out = spec.fan_out(projection)
    assert fan_out.dtype == np.int64
    np.testing.assert_array_equal(fan_out, unrolled.sum(axis=(3, 4, 5)))
    assert spec.synapses(projection) == np.count_nonzero(unrolled)
    assert spec.macs(projection) == (np.count_nonzero(pooled) if projection.weighted else 0)


def test_borders_have_less_fan_out():
    spec, conv = joined(Population("input", (3, 3, 1), kind="input"), (3, 3, 2), kernel=3, padding=1)
    np.testing.assert_array_equal(spec.fan_out(conv)[:, :, 0], [[8, 12, 8], [12, 18, 12], [8, 12, 8]])


# Plain data


@given(projections())
@settings(max_examples=30, deadline=None)
def test_description_survives_json(drawn):
    spec = drawn[0]
    assert NetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_description_with_every_field_set_survives_json():
    relay = Population("relay", (4, 6, 3), kind="relay")
    hidden = replace(HIDDEN, dropout=0.25)
    residual = Projection("hidden", "relay", kernel=3, padding=1, residual=True)
    shortcut = Projection("input", "relay", kind="identity")
    spec = net((INPUT, hidden, relay, OUTPUT), (CONV, residual, shortcut, replace(DENSE, pre="relay")))
    assert NetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        {},
        {"name": "net", "populations": [], "projections": None},
        {"name": "net", "populations": ["input"], "projections": []},
        {"name": "net", "populations": [{"name": "input"}], "projections": []},
        {"name": "net", "populations": [{"name": 1, "shape": [1, 1, 1]}], "projections": []},
        {"name": "net", "populations": [{"name": "input", "shape": ["a", 1, 1]}], "projections": []},
        {"name": "net", "populations": [{"name": "input", "shape": [1, 1, 1], "size": 1}], "projections": []},
        {"name": "net", "populations": [], "projections": [{"pre": "a", "post": "b", "kernel": "3"}]},
    ],
)
def test_other_data_is_no_description(broken):
    with pytest.raises(SpecError, match=r"^not a network description: "):
        NetSpec.from_dict(broken)


def test_contradictory_description_keeps_its_message():
    data = net().to_dict()
    data["projections"][0]["padding"] = 0
    with pytest.raises(SpecError, match=r"^input_to_hidden: gives 2x4, but hidden is 4x6$"):
        NetSpec.from_dict(data)
