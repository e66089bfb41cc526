"""The description of a network: what it refuses, and what it counts."""

import json
import re
from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import connected, pair, residual

from netspec.architectures.vgg import vgg16
from netspec.errors import UserError
from netspec.spec import RESERVED, NetSpec, Population, Projection, SpecError
from sims.simulation.wiring import INPUT_GROUPS

INPUT = Population("input", (4, 6, 2), kind="input")
HIDDEN = Population("hidden", (4, 6, 3))
OUTPUT = Population("output", (1, 1, 5))
CONV = Projection("input", "hidden", kernel=3, padding=1)
DENSE = Projection("hidden", "output", kind="dense", pool=2)


def net(populations=(INPUT, HIDDEN, OUTPUT), projections=(CONV, DENSE)) -> NetSpec:
    return NetSpec("net", populations, projections)


def test_numbers_of_numpy_are_numbers():
    three = Projection("a", "b", kernel=np.int64(3), stride=np.int32(2), padding=np.int64(1), pool=np.int64(2))
    assert three == Projection("a", "b", kernel=3, stride=2, padding=1, pool=2)
    assert json.loads(json.dumps(asdict(three)))["pool"] == 2


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "conv 1"}, "population name 'conv 1' is not an identifier"),
        ({"name": ""}, "population name '' is not an identifier"),
        ({"name": "größe"}, "population name 'größe' has other letters than a to z, or more than 100"),
        ({"name": 101 * "n"}, f"population name '{101 * 'n'}' has other letters than a to z, or more than 100"),
        *(
            ({"name": name}, f"population name '{name}': those in {', '.join(RESERVED)} are the simulation's own")
            for name in (*INPUT_GROUPS, "presentation_start", "input_on_to_hidden")
        ),
        ({"shape": (4, 6)}, "hidden: shape (4, 6) is not (height, width, channels), each at least 1"),
        ({"shape": (4, 0, 3)}, "hidden: shape (4, 0, 3) is not (height, width, channels), each at least 1"),
        ({"kind": "lif"}, "hidden: kind 'lif' is none of ('input', 'if', 'relay', 'max')"),
        ({"dropout": -0.1}, "hidden: dropout -0.1 is not in [0, 1)"),
        ({"dropout": 1.0}, "hidden: dropout 1.0 is not in [0, 1)"),
        ({"dropout": float("nan")}, "hidden: dropout nan is not in [0, 1)"),
        ({"dropout": 0.5, "kind": "relay"}, "hidden: clip and dropout are of ReLUs, and its kind is 'relay'"),
        ({"clip": -1.0}, "hidden: -1.0 is no bound of a ReLU"),
    ],
)
def test_population_says_what_does_not_fit(change, message):
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        replace(HIDDEN, **change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "sparse"}, "a_to_b: kind 'sparse' is none of ('conv', 'dense', 'identity', 'window')"),
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


UNNAMED = "net: two or more populations with different names are needed, got"
ENDS = "net: the first population, and no other, is the input; the last one is 'if'"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"populations": (INPUT,), "projections": ()}, f"{UNNAMED} ['input']"),
        ({"populations": (INPUT, HIDDEN, HIDDEN), "projections": (CONV,)}, f"{UNNAMED} ['input', 'hidden', 'hidden']"),
        ({"populations": (replace(INPUT, kind="if"), HIDDEN, OUTPUT)}, ENDS),
        ({"populations": (INPUT, replace(HIDDEN, kind="input"), OUTPUT)}, ENDS),
        ({"populations": (INPUT, HIDDEN, replace(OUTPUT, kind="relay"))}, ENDS),
        (
            {"projections": (CONV, replace(CONV, kernel=1, padding=0), DENSE)},
            "net: two projections join the same populations, or have the same name",
        ),
        (
            {
                "populations": (INPUT, replace(HIDDEN, name="a"), replace(HIDDEN, name="input_to_a"), OUTPUT),
                "projections": (
                    replace(CONV, post="a"),
                    Projection("a", "input_to_a"),
                    replace(DENSE, pre="input_to_a"),
                ),
            },
            "net: input_to_a is the name of a population and of a projection",
        ),
        (
            {"populations": (INPUT, HIDDEN, replace(OUTPUT, clip=6.0))},
            "net: the output output has no ReLU, and so neither dropout nor a clip",
        ),
        (
            {"populations": (INPUT, HIDDEN, replace(HIDDEN, name="hidden_step"), OUTPUT)},
            "net: hidden_step is the name of an object of another population",
        ),
        (
            {"projections": (replace(CONV, label="output_step"), DENSE)},
            "net: output_step is the name of an object of another population",
        ),
        (
            {
                "populations": (INPUT, HIDDEN, Population("top", (1, 1, 3), kind="max"), OUTPUT),
                "projections": (CONV, replace(DENSE, post="top"), Projection("top", "output", kind="dense")),
            },
            "hidden_to_top: windows lead to max pooling, and nothing else does",
        ),
        ({"projections": (CONV, replace(DENSE, pre="hiden"))}, "hiden_to_output: there is no population 'hiden'"),
        ({"projections": (replace(CONV, post="x"), DENSE)}, "input_to_x: there is no population 'x'"),
        (
            {"projections": (CONV, DENSE, Projection("output", "hidden", kind="dense"))},
            "output_to_hidden: hidden must come after output",
        ),
        (
            {"projections": (CONV, DENSE, Projection("hidden", "hidden"))},
            "hidden_to_hidden: hidden must come after hidden",
        ),
        ({"projections": (CONV, replace(DENSE, pool=3))}, "hidden_to_output: pooling by 3 does not divide 4x6"),
        ({"projections": (replace(CONV, padding=0), DENSE)}, "input_to_hidden: gives 2x4, but hidden is 4x6"),
        (
            {
                "populations": (INPUT, replace(HIDDEN, shape=(4, 6, 1)), OUTPUT),
                "projections": (Projection("input", "hidden", kind="identity"), DENSE),
            },
            "input_to_hidden: an identity cannot go from 2 to 1 channels",
        ),
        (
            {"projections": (Projection("input", "output", kind="dense"),)},
            "net: population hidden has no incoming projection",
        ),
    ],
)
def test_network_says_what_does_not_fit(change, message):
    with pytest.raises(SpecError, match=f"^{re.escape(message)}$"):
        net(**change)


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
    spec = pair((6, 9, 2), (1, 1, 5), kind="dense", pool=3)
    assert spec.weight_shape(spec.projections[0]) == (5, 2 * 3 * 2)


def test_identity_has_synapses_but_no_weights_and_no_macs():
    spec = pair(INPUT.shape, (4, 6, 3), kind="identity")
    (identity,) = spec.projections
    assert not identity.weighted
    assert spec.weight_shape(identity) == ()
    assert spec.parameters() == 0
    assert spec.synapses(identity) == INPUT.size
    assert spec.macs(identity) == 0


# Counts against enumerated connections


@st.composite
def projections(draw):
    """Networks of one projection."""
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
    return pair((height * pool, width * pool, channels), post, **options)


@settings(max_examples=200, deadline=None)
@given(projections())
def test_counts_equal_the_enumerated_connections(drawn):
    (projection,) = drawn.projections
    unrolled = connected(drawn, projection)
    pooled = unrolled[:: projection.pool, :: projection.pool]
    fan_out = drawn.fan_out(projection)
    assert fan_out.dtype == np.int64
    np.testing.assert_array_equal(fan_out, unrolled.sum(axis=(3, 4, 5)))
    assert drawn.synapses(projection) == np.count_nonzero(unrolled)
    assert drawn.macs(projection) == (np.count_nonzero(pooled) if projection.weighted else 0)


def test_borders_have_less_fan_out():
    spec = pair((3, 3, 1), (3, 3, 2), kernel=3, padding=1)
    np.testing.assert_array_equal(spec.fan_out(spec.projections[0])[:, :, 0], [[8, 12, 8], [12, 18, 12], [8, 12, 8]])


# Plain data


@given(projections())
@settings(max_examples=30, deadline=None)
def test_description_survives_json(drawn):
    assert NetSpec.from_dict(json.loads(json.dumps(drawn.to_dict()))) == drawn


def test_network_behind_a_population_begins_at_it():
    part = vgg16().after("conv2_1")
    assert part.populations[1:] == vgg16().populations[4:]
    assert part.input == Population("conv2_1", (16, 16, 128), "input")
    assert part.projections == vgg16().projections[3:]
    assert part.name == f"{vgg16().name}-after-conv2_1"
    with pytest.raises(SpecError, match="there are projections past branch1"):
        residual("if").after("branch1")
    with pytest.raises(SpecError, match="has no population 'conv9'"):
        vgg16().after("conv9")


def test_description_with_every_field_set_survives_json():
    relay = Population("relay", (4, 6, 3), kind="relay")
    hidden = replace(HIDDEN, dropout=0.25)
    residual = Projection("hidden", "relay", kernel=3, padding=1, residual=True)
    shortcut = Projection("input", "relay", kind="identity")
    spec = net((INPUT, hidden, relay, OUTPUT), (CONV, residual, shortcut, replace(DENSE, pre="relay")))
    assert NetSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("clip", [0.0, 0.999, 1.0, 6.0])
def test_a_bound_of_a_relu_survives_whatever_the_number(clip):
    bounded = net((INPUT, replace(HIDDEN, clip=clip), OUTPUT), (CONV, DENSE))
    found = NetSpec.from_dict(json.loads(json.dumps(bounded.to_dict())))
    assert found == bounded and found["hidden"].clip == clip
    assert ("clip" in bounded.to_dict()["populations"][1]) == (clip != 0)  # older checkpoints have none


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
