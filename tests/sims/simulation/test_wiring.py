"""A network spelt out: its groups, its wires, the order of a step."""

from networks import sprout

from sims.simulation.geometry import Geometry
from sims.simulation.wiring import Wiring, counted_groups, group_shape


def test_the_input_is_two_groups_whose_wires_differ_in_their_sign_alone():
    wiring = Wiring(sprout())
    signs = {"input_on_to_a": 1, "input_off_to_a": -1, "a_to_r": 1, "a_to_output": 1, "r_to_output": 1}
    assert {wire.name: wire.sign for wire in wiring.wires} == signs
    assert [wire.offset for wire in wiring.wires] == [0, 0, 32, 64, 144]  # from 16 to 16: 27, 24, 72 weights
    assert all(wire.geometry == Geometry.of(wiring.spec, wire.projection) for wire in wiring.wires)
    assert [wire.pre for wire in wiring.incoming("output")] == ["a", "r"]


def test_a_spike_crosses_all_layers_within_a_step():
    layers = [f"{slot}_{name}" for name in ("a", "r", "output") for slot in ("arrive", "fire", "reset")]
    ends = ["start", "groups", "thresholds", "fire_input"], ["synapses", "resets", "end"]
    assert Wiring(sprout()).time_step == [*ends[0], *layers, *ends[1]]


def test_relays_are_not_counted():
    assert counted_groups(sprout()) == {"input_on": 24, "input_off": 24, "a": 72, "output": 4}
    assert (group_shape(sprout(), "input_off"), group_shape(sprout(), "r")) == ((4, 6, 1), (2, 3, 2))
