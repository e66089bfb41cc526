"""Conversions as data: written, read, refused; what a spike stands for."""

from dataclasses import replace

import numpy as np
import pytest
from commands import tiny_checkpoint
from networks import net, residual, sprout

from netspec.conversion import Conversion, find_conversion, load_conversion, open_conversion
from netspec.errors import UserError
from netspec.spec import NetSpec, Projection
from netspec.thresholds import find_thresholds, load_thresholds
from sims.simulation.neuron_models import conversion_models

NAMES = ("conv1_1", "conv3_3", "conv5_3", "output")


def conversion() -> Conversion:
    """Of the tiny network, with every kind of number: one, of channels, of neurons."""
    network = tiny_checkpoint()
    shapes = {name: network.spec[name].shape for name in NAMES}
    values = {"conv1_1": 0.5, "conv3_3": np.linspace(1, 2, shapes["conv3_3"][2], dtype=np.float32), "conv5_3": 2.0}
    initial = {"conv1_1": np.ones(shapes["conv1_1"], np.float32), "conv5_3": -0.25}
    return Conversion(
        *(network.digest, "mine", values | {"output": np.inf}, values),
        constant={"conv3_3": -values["conv3_3"]}, initial=initial, coding="current", reset="subtract", percentile=99.5,
        steps=16, made={"images": 3},
    )  # fmt: skip


def assert_equal(found: Conversion, expected: Conversion) -> None:
    kinds = ("thresholds", "spike_values", "constant", "initial")
    for kind in kinds:
        assert list(getattr(found, kind)) == list(getattr(expected, kind))
        for name, value in getattr(expected, kind).items():
            np.testing.assert_array_equal(getattr(found, kind)[name], value)
    blank = {kind: {} for kind in kinds}
    assert replace(found, **blank) == replace(expected, **blank)
    assert found.digest == expected.digest


def test_a_conversion_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "a.safetensors"
    conversion().save(path)
    assert_equal(load_conversion(path, tiny_checkpoint()), conversion())
    content = path.read_bytes()
    conversion().save(path)
    assert path.read_bytes() == content


def test_the_name_of_a_file_says_nothing_of_what_is_inside(tmp_path):
    conversion().save(tmp_path / "a.json")
    assert_equal(load_conversion(tmp_path / "a.json", tiny_checkpoint()), conversion())


def test_neuron_models_of_populations_are_kept_and_checked(tmp_path):
    path, network = tmp_path / "a.safetensors", tiny_checkpoint()
    models = {"conv3_3": {"name": "lif", "parameters": {"decay": 0.25, "v_reset": 0.5}}}
    leaky = replace(conversion(), models=models)
    leaky.save(path)
    found = load_conversion(path, network)
    assert_equal(found, leaky)
    assert found.digest != conversion().digest
    told = conversion_models(None, found, network.spec)
    assert [told[name].name for name in NAMES] == ["if", "lif", "if", "if"]
    assert told["conv3_3"].parameters == {"decay": 0.25, "v_reset": 0.5}
    assert conversion_models(["leaky"], found, network.spec)["conv3_3"].name == "leaky"
    for wrong in ({"conv9": models["conv3_3"]}, {"conv3_3": {"name": "lif"}}, {"conv3_3": "lif"}):
        replace(leaky, models=wrong).save(path)
        with pytest.raises(UserError, match=r"the neuron model of conv.* does not fit vgg16-tiny"):
            load_conversion(path, network)
    for name, parameters in (("gone", {}), ("lif", {"gone": 1.0})):
        unknown = replace(leaky, models={"conv3_3": {"name": name, "parameters": parameters}})
        with pytest.raises(UserError, match=f"the neuron model {name} of conv3_3, or one of its parameters"):
            conversion_models(None, unknown, network.spec)


def test_thresholds_are_conversions(tiny):
    network = tiny_checkpoint()
    thresholds = load_thresholds(find_thresholds(tiny, "spike-norm"), network)
    found = open_conversion("spike-norm", tiny, network)
    assert (found.thresholds, found.method, found.coding, found.reset) == (
        thresholds.values,
        "spike-norm",
        "poisson",
        "zero",
    )
    assert load_conversion(find_thresholds(tiny, "spike-norm"), network) == found
    assert Conversion.of(replace(thresholds, reset="subtract")).reset == "subtract"  # that of the calibration


def test_every_number_changes_the_digest():
    first = conversion()
    others = [
        replace(first, thresholds=first.thresholds | {"conv1_1": 0.6}),
        replace(first, initial={}),
        replace(first, spike_values=first.spike_values | {"conv1_1": 1.0}),
        replace(first, constant={"conv3_3": 0.5}),
        replace(first, delay=0.5),
    ]
    assert len({first.digest, *(other.digest for other in others)}) == 6
    alone = Conversion("", "spike-norm", {"conv1_1": 1.0})
    assert alone.digest != replace(alone, delay=0.5).digest


def test_a_spike_stands_for_its_value_where_that_is_said_and_else_for_the_threshold_ratio():
    spec = residual("relay")
    values = {"stem": 2.0, "branch1": 0.5, "branch2": 3.0}
    found = Conversion("", "m", values | {"output": 1.5}, values).activation_values(spec)
    assert found == {"input": 1.0, "junction1": 1.0, "junction2": 1.0, "output": 1.5, **values}
    ratios = Conversion("", "m", {"stem": 2.0, "branch1": 1.0, "branch2": 3.0, "output": 1.0}).activation_values(spec)
    assert ratios["junction1"] == 2 and ratios["branch2"] == 6 and np.isnan(ratios["junction2"])


def test_a_conversion_is_found_beside_its_checkpoint(tiny, tmp_path):
    network = tiny_checkpoint()
    (tmp_path / "net.safetensors").write_bytes(tiny.read_bytes())
    path = find_conversion(tmp_path / "net.safetensors", "fast")
    assert path == tmp_path / "net.fast.conversion.safetensors"
    conversion().save(path)
    assert_equal(open_conversion("fast", tmp_path / "net.safetensors", network), conversion())
    with pytest.raises(UserError, match="no conversion 'slow' of net; there are fast, or give a file"):
        open_conversion("slow", tmp_path / "net.safetensors", network)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"checkpoint": "other"}, "of another checkpoint"),
        ({"thresholds": {"conv1_1": 1.0}}, "do not fit"),
        ({"initial": {"nowhere": 1.0}}, "initial of nowhere does not fit"),
        ({"initial": {"conv1_1": np.ones(999)}}, "initial of conv1_1 does not fit"),
        ({"initial": {"conv1_1": np.inf}}, "initial of conv1_1: some numbers are not finite"),
        ({"spike_values": {"conv1_1": 0.0}}, "value of conv1_1: some numbers are not finite, or not positive"),
        ({"constant": {"conv1_1": np.nan}}, "constant of conv1_1"),
    ],
)
def test_a_conversion_that_does_not_fit_is_refused(change, message, tmp_path):
    replace(conversion(), **change).save(tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=message):
        load_conversion(tmp_path / "a.safetensors", tiny_checkpoint())


@pytest.mark.parametrize("delay", [-0.1, 1.0])
def test_a_delay_is_a_part_of_the_steps(delay):
    with pytest.raises(UserError, match="delay is at least 0 and less than 1"):
        replace(conversion(), delay=delay)


def test_unknown_words_are_refused():
    for change in ({"coding": "morse"}, {"reset": "half"}):
        with pytest.raises(UserError, match="coding is one of"):
            replace(conversion(), **change)


def test_another_file_is_refused(tiny):
    with pytest.raises(UserError, match="no conversion of this project"):
        load_conversion(tiny, tiny_checkpoint())


# What a spike stands for


def values_by(spec: NetSpec, thresholds: dict[str, float]) -> dict[str, float]:
    return Conversion("", "by hand", thresholds).activation_values(spec)


def junction(kind: str) -> NetSpec:
    """A shortcut from the input meets a branch."""
    return net(
        "unequal",
        dict.fromkeys(("input", "conv", "junction", "output"), (2, 2, 1)),
        Projection("input", "conv"),
        Projection("input", "junction", kind="identity"),
        Projection("conv", "junction"),
        Projection("junction", "output"),
        relays=("junction",) if kind == "relay" else (),
    )


@pytest.mark.parametrize(("kind", "expected"), [("if", [1, 1, 3, 6]), ("relay", [1, 1, 1, 2])])
def test_a_spike_stands_for_the_product_of_thresholds(kind, expected):
    values = values_by(junction(kind), {"conv": 1, "junction": 3, "output": 2})
    assert values == dict(zip(("input", "conv", "junction", "output"), expected, strict=True))


@pytest.mark.parametrize("kind", ["if", "relay"])
def test_where_spikes_of_different_value_meet_there_is_none_nor_after(kind):
    values = values_by(junction(kind), {"conv": 2, "junction": 3, "output": 1})
    assert (values["input"], values["conv"]) == (1, 2)
    assert np.isnan([values["junction"], values["output"]]).all()


def test_a_threshold_multiplies_the_value_of_what_arrives():
    assert values_by(sprout(), {"a": 4, "output": 0.5}) == {"input": 1, "a": 4, "r": 4, "output": 2}


def test_thresholds_of_channels_give_values_of_channels_and_none_after():
    channels = np.array([1.0, 2.0, 4.0])
    found = values_by(sprout(), {"a": channels, "output": 0.5})
    assert list(found["a"]) == list(channels) and np.isnan(found["output"])
    even = Conversion("", "m", {"a": channels, "output": 0.5}, {"a": channels}).activation_values(sprout())
    assert list(even["a"]) == list(channels) and (even["r"], even["output"]) == (1, 0.5)
