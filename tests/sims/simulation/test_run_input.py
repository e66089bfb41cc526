"""What a run is told: what is refused, what is filled in."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from networks import exact_weights, sprout

from netspec.conversion import Conversion
from netspec.errors import UserError
from sims.brian.inprocess import InProcessSimulator
from sims.brian.standalone import StandaloneSimulator
from sims.simulation.neuron_models import LIF, conversion_models
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

SPEC = sprout()
X = np.zeros((2, 4, 6, 1), dtype=np.float32)
GOOD = RunInput(X, {"a": 1.0, "output": 0.5}, steps=10)


def filled(value: float) -> np.ndarray:
    x = X.copy()
    x[1, 2, 3, 0] = value
    return x


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X[:0]}, "sprout takes one or more images of shape (4, 6, 1), got (0, 4, 6, 1)"),
        ({"x": X[0]}, "sprout takes one or more images of shape (4, 6, 1), got (4, 6, 1)"),
        ({"x": X.transpose(0, 3, 1, 2)}, "sprout takes one or more images of shape (4, 6, 1), got (2, 1, 4, 6)"),
        ({"x": np.float32(0)}, "sprout takes one or more images of shape (4, 6, 1), got (1,)"),
        ({"x": filled(np.nan)}, "inputs are spike probabilities with a sign: they must lie in [-1, 1]"),
        ({"x": filled(-np.inf)}, "inputs are spike probabilities with a sign: they must lie in [-1, 1]"),
        ({"x": filled(1.0001)}, "inputs are spike probabilities with a sign: they must lie in [-1, 1]"),
        ({"x": filled(-1.0001)}, "inputs are spike probabilities with a sign: they must lie in [-1, 1]"),
        ({"steps": 0}, "the number of steps must be from 1 to 65535, got 0"),
        ({"steps": -5}, "the number of steps must be from 1 to 65535, got -5"),
        ({"steps": 65_536}, "the number of steps must be from 1 to 65535, got 65536"),
        ({"ids": np.arange(3)}, "2 images need as many numbers, got ids of shape (3,)"),
        ({"ids": np.zeros((2, 1), dtype=int)}, "2 images need as many numbers, got ids of shape (2, 1)"),
        ({"rasters": ("b",)}, "sprout has no population 'b'; it has input, a, r, output"),
        ({"rasters": ("r",)}, "r does not spike; a raster shows input_on, input_off or a spiking population"),
        ({"rasters": ("input",)}, "input does not spike; a raster shows input_on, input_off or a spiking population"),
        ({"raster_presentations": -1}, "the number of presentations with rasters is at least 0, got -1"),
        ({"measured": ("b",)}, "sprout has no population 'b'; it has input, a, r, output"),
        ({"measured": ("r",)}, "r has no threshold to balance; only the input of spiking populations is measured"),
        (
            {"events": np.zeros((0, 6), int)},
            "events are given, but the coding is poisson; they are coding 'events'",
        ),
        ({"thresholds": {"a": 1.0}}, "the threshold of output must be a positive number, got nan"),
        ({"thresholds": {"a": 0, "output": 1}}, "the threshold of a must be a positive number, got 0.0"),
        ({"thresholds": {"a": 1, "output": -2}}, "the threshold of output must be a positive number, got -2.0"),
        ({"thresholds": {"a": np.nan, "output": 1}}, "the threshold of a must be a positive number, got nan"),
        ({"thresholds": {"a": 1e-60, "output": 1}}, "the threshold of a must be a positive number, got 1e-60"),
        ({"thresholds": {"a": 0}, "measured": ("a",)}, "the threshold of a must be a positive number, got 0.0"),
        (
            {"thresholds": {"typo": 1.0}, "measured": ("output",)},
            "the threshold of a must be a positive number, got nan",
        ),
        ({"x": filled(np.inf), "coding": "current"}, "inputs must be finite numbers"),
        ({"constant": {"a": np.inf}}, "constant input of a is infinite or not a number (NaN)"),
        ({"initial": {"a": -np.inf}}, "initial potential of a is infinite or not a number (NaN)"),
    ],
)
def test_refused_with_what_was_found_and_what_was_expected(change, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        replace(GOOD, **change).checked(SPEC)


def test_more_steps_than_32_bits_can_count_are_refused():
    x = np.broadcast_to(np.float32(0), (40_000, *SPEC.input.shape))
    with pytest.raises(UserError, match="40000 presentations of 65535 steps are too many for one run; split"):
        RunInput(x, GOOD.thresholds, 65_535).checked(SPEC)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint8])
def test_events_may_be_of_small_integers(kind):
    events = np.array([[1, 99, 3, 5, 0, 1]], dtype=kind)
    given = replace(GOOD, coding="events", events=events, steps=100).checked(SPEC)
    assert given.events.tolist() == [[199, 23, 1]]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"a_to_r": None}, "is not a checkpoint of sprout: projections differ (a_to_r)"),
        ({"a_to_r": np.zeros((2, 3))}, "a_to_r has shape (2, 3), sprout needs"),
        ({"a_to_r": np.nan}, "weights of a_to_r are not all finite"),
    ],
)
def test_every_simulator_refuses_weights_of_another_network(change, reason):
    weights = exact_weights(SPEC)
    for name, value in change.items():
        if value is None:
            weights["typo"] = weights.pop(name)
        else:
            weights[name] = weights[name] * value if np.ndim(value) == 0 else value
    for made in (ReferenceSimulator, partial(InProcessSimulator, target="numpy"), StandaloneSimulator):
        with pytest.raises(UserError, match=re.escape(reason)):
            made(SPEC, weights)


def test_every_simulator_refuses_a_reset_that_is_none():
    for made in (ReferenceSimulator, partial(InProcessSimulator, target="numpy"), StandaloneSimulator):
        with pytest.raises(ValueError, match="reset"):
            made(SPEC, exact_weights(SPEC), reset="Zero")


def test_every_simulator_refuses_what_does_not_fit():
    weights = exact_weights(SPEC)
    for simulator in (ReferenceSimulator(SPEC, weights), InProcessSimulator(SPEC, weights, target="numpy")):
        with pytest.raises(UserError, match="must be from 1 to 65535"):
            simulator.run(replace(GOOD, steps=0))


def test_neurons_other_than_a_conversion_asks_for_are_refused():
    """What a simulator has unless told otherwise gives way to nothing in silence; what it was told does."""
    weights, plain = exact_weights(SPEC), Conversion("", "mine", GOOD.thresholds)
    models = {"a": {"name": "lif", "parameters": {"decay": 0.25}}}
    wanted = replace(plain, reset="subtract"), replace(plain, models=models)
    lif = conversion_models(None, wanted[1], SPEC)

    def reference(**told) -> ReferenceSimulator:
        return ReferenceSimulator(SPEC, weights, **told)

    for simulator in (reference(), InProcessSimulator(SPEC, weights, target="numpy")):
        with pytest.raises(UserError, match="a reset by subtract, the simulator's is to zero: make it with reset=conv"):
            simulator.run(RunInput.of(X, wanted[0], 10))
        with pytest.raises(UserError, match="for neurons of the model lif in a, the simulator has if, or other param"):
            simulator.run(RunInput.of(X, wanted[1], 10))
        with pytest.raises(UserError, match="a reset by subtract"):  # what was checked before knows it still
            simulator.run(RunInput.of(X, wanted[0], 10).checked(SPEC))
    with pytest.raises(UserError, match="the simulator has lif, or other parameters"):
        reference(model={"a": LIF}).run(RunInput.of(X, wanted[1], 10))
    for conversion, simulator in (
        (wanted[0], reference(reset="subtract")),
        (wanted[0].told(reset="zero"), reference()),
        (wanted[1], reference(model=lif)),
        (plain, reference(reset="subtract", model=lif)),
        (replace(plain, model="of my own 01234567"), reference()),
    ):
        assert simulator.run(RunInput.of(X, conversion, 10)).steps == 10


def test_defaults_are_filled_in():
    given = RunInput(X.astype(np.float64).tolist(), {"a": 0.1, "output": 1}).checked(SPEC)
    assert given.x.dtype == np.float32 and given.x.flags.c_contiguous
    assert given.numbers.tolist() == [0, 1]
    assert given.thresholds == {"a": float(np.float32(0.1)), "output": 1.0}  # as the simulators hold them
    assert (given.steps, given.seed, given.rasters, given.measured) == (2500, 0, (), ())


def test_names_that_are_given_twice_or_anyway_count_once():
    given = replace(GOOD, rasters=("a", "output", "a"), measured=["a", "a"]).checked(SPEC)
    assert given.rasters == ("a",)
    assert given.measured == ("a",)
    assert replace(GOOD, rasters=("a",), raster_presentations=0).checked(SPEC).rasters == ()


def test_thresholds_of_other_populations_do_not_matter():
    assert replace(GOOD, thresholds=GOOD.thresholds | {"conv9": -1}).checked(SPEC).thresholds == GOOD.thresholds


def test_checking_twice_changes_nothing():
    given = replace(GOOD, rasters=("input_on", "a"), ids=np.array([7, 3])).checked(SPEC)
    again = given.checked(SPEC)
    assert given.describe() == again.describe()
    np.testing.assert_array_equal(given.numbers, again.numbers)
    assert given.describe()["first_image"] == 7
