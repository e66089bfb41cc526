"""Neuron models as text; what differs between neurons; a current and events as input: on all paths."""

import re
from dataclasses import replace

import numpy as np
import pytest
from brian2 import Function, SpikeMonitor, StateMonitor, Synapses, TimedArray, ms, mV, prefs
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import assert_same, case, exact_weights, pair, specs, varied, weights_of

from netspec.errors import UserError
from netspec.spec import NetSpec
from netspec.thresholds import RESETS
from sims.brian.cache import cache_folder
from sims.brian.inprocess import InProcessSimulator
from sims.brian.runtime import RUNTIMES, open_simulator
from sims.brian.standalone import StandaloneSimulator
from sims.simulation.neuron_models import CUBA_LIF, IF, LEAKY, LIF, MODELS, REFRACTORY, NeuronModel, load_model, name_of
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import CODINGS, RunInput
from sims.simulation.wiring import SYNAPSES

HALF_LEFT = replace(LEAKY, parameters={"leak": 0.5})  # a bit a step: exact for some steps
SHORT_REST = replace(REFRACTORY, parameters={"period": 2})
HALF_LOST = replace(LIF, parameters={"decay": 0.5, "v_reset": 0.25})
CURRENT = replace(CUBA_LIF, parameters={"decay": 0.5, "current_decay": 0.5, "v_reset": 0.25})
EXACT = (IF, HALF_LEFT, SHORT_REST, HALF_LOST, CURRENT)
ADAPTIVE = NeuronModel(
    "adaptive", "v : 1\na : 1", update="a *= 0.5", threshold="v >= v_th + a", on_spike="a += 0.5", initial={"a": 0.25}
)


def feasible(spec: NetSpec, coding: str) -> bool:
    return coding != "current" or all(spec[p.post].kind == "if" for p in spec.outgoing("input"))


@settings(max_examples=60, deadline=None)
@given(
    specs(), st.integers(0, 2**16), st.sampled_from(SYNAPSES), st.sampled_from(RESETS), st.sampled_from(EXACT),
    st.sampled_from(CODINGS),
)  # fmt: skip
def test_random_networks_of_any_model_and_stimulus_are_the_reference(spec, seed, synapses, reset, model, coding):
    weights = exact_weights(spec, seed)
    run_input = varied(spec, seed, coding if feasible(spec, coding) else "events")
    expected = ReferenceSimulator(spec, weights, reset, model=model).run(run_input)
    found = open_simulator(spec, weights, "numpy", synapses, reset, quiet=True, model=model).run(run_input)
    assert_same(found, expected)


@pytest.mark.parametrize(
    ("runtime", "model", "reset"),
    [
        ("standalone", IF, "subtract"),
        ("standalone", HALF_LEFT, "zero"),
        ("standalone", SHORT_REST, "subtract"),
        ("cython", HALF_LEFT, "subtract"),
        ("cython", SHORT_REST, "zero"),
        ("standalone", CURRENT, "zero"),
        ("cython", HALF_LOST, "subtract"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_one_binary_takes_all_stimuli_and_numbers_at_run_time(runtime, model, reset):
    spec, weights, _ = case("sprout")
    network = open_simulator(spec, weights, runtime, "shared", reset, quiet=True, model=model)
    spikes = set()
    for seed, coding in enumerate((*CODINGS, *CODINGS)):
        run_input = varied(spec, seed, coding)
        expected = ReferenceSimulator(spec, weights, reset, model=model).run(run_input)
        assert_same(network.run(run_input), expected)
        spikes.add(int(expected.counts.sum()))
    assert len(spikes) > 4  # they differ


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["cython", "standalone"])
@pytest.mark.parametrize("synapses", SYNAPSES)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("model", EXACT, ids=lambda model: model.name)
def test_the_whole_product_is_the_reference(runtime, synapses, reset, model):
    spec, weights, _ = case("sprout")
    network = open_simulator(spec, weights, runtime, synapses, reset, quiet=True, model=model)
    for seed, coding in enumerate(CODINGS):
        run_input = varied(spec, seed, coding)
        expected = ReferenceSimulator(spec, weights, reset, model=model).run(run_input)
        assert_same(network.run(run_input), expected)


def test_a_build_without_vector_instructions_is_the_reference():
    spec, weights, _ = case("sprout")
    told = prefs["codegen.cpp.extra_compile_args_gcc"]
    prefs["codegen.cpp.extra_compile_args_gcc"] = [flag for flag in told if not flag.startswith("-march")]
    try:
        network = open_simulator(spec, weights, "standalone", "shared", "subtract", quiet=True)
        assert "-march" not in (network.folder / "makefile").read_text()
        run_input = varied(spec, 3, "poisson")
        assert_same(network.run(run_input), ReferenceSimulator(spec, weights, "subtract").run(run_input))
    finally:
        prefs["codegen.cpp.extra_compile_args_gcc"] = told


def test_peaks_include_the_constant_input(simulator):
    spec, weights, usual = case("sprout")
    run_input = RunInput(usual.x, {}, 8, measured=("a",), constant={"a": [0.25, -0.5, 2]})
    expected = ReferenceSimulator(spec, weights).run(run_input)
    assert expected.peaks["a"].reshape(-1, 3)[:, 2].min() >= 1.5
    for runtime in RUNTIMES:
        assert_same(simulator("sprout", runtime).run(run_input), expected)


def adapting(steps: int, drive: float, threshold: float) -> list[int]:
    """The steps in which one adaptive neuron fires, by hand."""
    v, a, fired = 0.0, ADAPTIVE.initial["a"], []
    for step in range(steps):
        v += drive
        a *= 0.5
        if v >= threshold + a:
            v, a = 0.0, a + 0.5
            fired.append(step)
    return fired


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_model_of_one_s_own_is_its_text(runtime):
    spec, weights, usual = case("sprout")
    network = open_simulator(spec, weights, runtime, quiet=True, model={"a": ADAPTIVE})
    dark = RunInput(0 * usual.x, {"a": 1, "output": 9}, 30, rasters=("a",), raster_presentations=3)
    recording = network.run(replace(dark, constant={"a": [0.375, 0.0, 1.0]}))
    for channel, drive in enumerate((0.375, 0.0, 1.0)):
        spikes = recording.spikes("a").query(f"channel == {channel} and y == 1 and x == 2")
        for presentation in range(3):  # each begins anew
            assert spikes[spikes.presentation == presentation].step.tolist() == adapting(30, drive, 1)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_noise_fires_neurons_in_the_dark_and_a_lesioned_channel_never_fires(runtime):
    """Noise of the differential equation (xi) and of the update; both leave the input alone."""
    spec, weights, usual = case("sprout")
    noisy = NeuronModel("noisy", "dv/dt = -v/(5*ms) + 0.3*xi*ms**-0.5 : 1", update="v += 0.2*randn()")
    network = open_simulator(spec, weights, runtime, quiet=True, model={"a": noisy})
    thresholds = {"a": [1.0, np.inf, 1.0], "output": 1e6}
    dark, state = RunInput(0 * usual.x, thresholds, 60), np.random.get_state()
    recording = network.run(dark)
    counts = recording.spike_counts("a").sum(axis=(0, 1, 2))
    assert counts[1] == 0 and min(counts[0], counts[2]) > 20
    assert_same(network.run(dark), recording)  # a function of the seed and the image, as Poisson spikes are
    assert (network.run(replace(dark, seed=1)).counts != recording.counts).any()
    second = network.run(replace(dark, x=dark.x[1:2], ids=[1]))
    np.testing.assert_array_equal(second.counts, recording.counts[1:2])
    assert all(map(np.array_equal, np.random.get_state(), state))  # the caller's
    still = open_simulator(spec, weights, "numpy", quiet=True).run(RunInput(0 * usual.x, thresholds, 60))
    assert not still.counts.any()


def test_the_reference_refuses_what_it_does_not_know():
    spec, weights, _ = case("sprout")
    for model in (ADAPTIVE, replace(IF, reset="v = -100")):
        with pytest.raises(UserError, match=f"torch knows .*, not this {model.name}"):
            ReferenceSimulator(spec, weights, model=model)


# What a user changes acts, or is refused


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("synapses", SYNAPSES)
def test_changed_text_changes_the_spikes(synapses, runtime):
    """A reset far below, a threshold never reached, a drift without any input: each was ignored on some path once."""
    if (synapses, runtime) == ("explicit", "cython"):
        pytest.skip("compiles long, and has nothing that the others lack")
    spec, weights, usual = case("sprout")
    counts = {}
    for model in (
        IF,
        replace(IF, reset="v = -100"),
        replace(IF, threshold="v >= 1000 * v_th"),
        NeuronModel("drift", "dv / dt = drift / ms : 1", namespace={"drift": 0.125}),
    ):
        network = open_simulator(spec, weights, runtime, synapses, quiet=True, model={"a": model})
        text = (model.name, model.reset, model.threshold)
        counts[text] = [network.run(replace(usual, x=x)).spike_counts("a").sum() for x in (usual.x, 0 * usual.x)]
    plain, low, high, drift = counts.values()
    assert plain[0] > low[0] > high[0] == 0
    assert plain[1] == low[1] == high[1] == 0 < drift[1]


def test_thresholds_of_single_neurons_act_and_lesions_are_such(simulator):
    spec, weights, usual = case("sprout")
    lesion = np.full(spec["a"].shape, usual.thresholds["a"])
    lesion[:, 3:] = np.inf
    run_input = replace(usual, thresholds=usual.thresholds | {"a": lesion})
    expected = ReferenceSimulator(spec, weights).run(run_input)
    assert expected.spike_counts("a")[:, :, :3].any() and not expected.spike_counts("a")[:, :, 3:].any()
    for runtime in ("numpy", "standalone"):
        assert_same(simulator("sprout", runtime).run(run_input), expected)


def test_objects_and_monitors_of_one_s_own_are_compiled_in():
    spec, weights, usual = case("sprout")
    strength = 0.25  # found in the text below
    monitors = {}

    def prepare(snn):
        snn["a"].run_regularly("v += strength * (i % 2)", when="groups")
        feedback = Synapses(snn["output"], snn["a"], on_pre="v_post += 0.5", name="feedback")
        feedback.connect()
        monitors["v"] = StateMonitor(snn["a"], "v", record=[0, 5], when="end")
        monitors["spikes"] = SpikeMonitor(snn["a"])
        snn.network.add(feedback, *monitors.values())

    compiled = StandaloneSimulator(spec, weights, quiet=True, prepare=prepare)
    recording, seen = compiled.run(usual), dict(monitors)
    simulator = InProcessSimulator(spec, weights, target="numpy")
    prepare(simulator.snn)
    assert_same(recording, simulator.run(usual))
    assert strength and seen["spikes"].num_spikes == recording.spike_counts("a").sum() > 0
    np.testing.assert_array_equal(seen["v"].v, monitors["v"].v)
    assert_same(compiled.run(usual), recording)


def test_models_are_told_apart_by_their_text_not_their_parameters():
    spec, weights = case("sprout")[0], weights_of("sprout")
    compiled = [StandaloneSimulator(spec, weights, quiet=True, model=m) for m in (LEAKY, HALF_LEFT)]
    assert compiled[0].folder == compiled[1].folder
    assert compiled[0].folder != StandaloneSimulator(spec, weights, quiet=True).folder


def test_models_come_from_text_files(tmp_path):
    (tmp_path / "mine.toml").write_text('equations = "v : 1"\nupdate = "v *= leak"\n[parameters]\nleak = 0.95\n')
    assert load_model(str(tmp_path / "mine.toml")) == replace(LEAKY, name="mine")
    assert [load_model(name) for name in MODELS] == list(MODELS.values())
    for text, message in {
        "update = 7": "update is no text",
        'namespace = "os"': "unknown: namespace",
        'equations = "v : 1 (unless refractory)"': "write refractoriness into its update",
        'equations = "v_th : 1"': "v_th is a variable that every neuron has already",
        'equations = "v : 1\\na : 1"\ninitial = { a = "w" }': "could not convert string to float",
        "update": "no description of a neuron model",
    }.items():
        (tmp_path / "wrong.toml").write_text(text)
        with pytest.raises(UserError, match=message):
            load_model(str(tmp_path / "wrong.toml"))
    with pytest.raises(UserError, match="neither a file nor one of the neuron models if, leaky, refractory"):
        load_model("izhikevich")


def test_what_does_not_fit_is_refused():
    spec, weights, usual = case("garden")
    with pytest.raises(UserError, match="a reset of its own; a reset to subtract would be ignored"):
        open_simulator(spec, weights, "numpy", reset="subtract", model=replace(IF, reset="v = -1"))
    with pytest.raises(UserError, match="not input, r"):
        open_simulator(spec, weights, "numpy", model={"input": IF, "r": IF})
    with pytest.raises(UserError, match="b is no variable of it that changes"):
        open_simulator(spec, weights, "numpy", model=replace(IF, initial={"b": 1}))
    row = [0, 0, 0, 0, 0, 1]
    for change, message in (
        ({"coding": "rate"}, "must be one of poisson, current, events, got 'rate'"),
        ({"constant": {"r": 1}}, "r has no constant input"),
        ({"initial": {"a": [1, 2]}}, r"initial potential of a: \(2,\) does not fit"),
        ({"initial": {"a": np.nan}}, "not a number"),
        ({"coding": "events"}, "events are rows of six integers"),
        ({"coding": "events", "events": np.array([row, row])}, "a neuron fires twice in one step"),
        ({"coding": "events", "events": np.array([row, [*row[:5], -1], row])}, "a neuron fires twice in one step"),
        ({"coding": "events", "events": np.array([[9, *row[1:]]])}, "presentation must lie between 0 and 2"),
        ({"coding": "events", "events": np.array([[*row[:5], 0]])}, "the sign must be 1 or -1"),
    ):
        with pytest.raises(UserError, match=message):
            replace(usual, **change).checked(spec)


@pytest.mark.parametrize("runtime", ["numpy", "standalone"])
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"update": "v *= leek"}, 'The identifier "leek" could not be resolved.'),
        ({"update": "v *= "}, "v *="),
        ({"equations": "v : 1\ndb/dt = 1 : 1"}, "Inconsistent units"),
        ({"equations": "v = : 1"}, "Expected end of text"),
        ({"equations": "u : 1"}, "its equations must define v, a number without unit that changes"),
        ({"equations": ""}, "its equations must define v"),
        ({"equations": "v = 1 : 1"}, "its equations must define v"),
        ({"equations": "v : integer"}, "its equations must define v"),
        ({"equations": "v : volt"}, "its equations must define v"),
        ({"equations": "v : 1 (shared)"}, "v must be neither shared nor constant"),
        ({"update": "v += 1*mV"}, "uses inconsistent units"),
        ({"threshold": "v >= v_th*mV"}, "different units"),
        ({"on_spike": "v -= 1*mV"}, "uses inconsistent units"),
        ({"threshold": "v - v_th"}, "its threshold must be a condition, got v - v_th"),
        ({"threshold": "v"}, "its threshold must be a condition, got v"),
        ({"threshold": "v >= v_th and v"}, "ought to be boolean but is not"),
        ({"equations": "v : 1 (foo)"}, "cannot have a flag"),
        ({"equations": "v : 1\na : 1 (constant over dt)"}, "cannot have a flag"),
    ],
)
def test_text_that_brian2_does_not_understand_is_told_in_one_line(changed, reason, runtime, own_cache):
    spec, weights, run_input = case("sprout")
    with pytest.raises(UserError, match=f"^neuron model wrong: .*{re.escape(reason)}[^\\n]*$"):
        open_simulator(spec, weights, runtime, quiet=True, model={"a": NeuronModel("wrong", **changed)}).run(run_input)


@pytest.mark.parametrize("name", ["parameters", "initial"])
@pytest.mark.parametrize("value", [np.nan, np.inf, "w"])
def test_numbers_of_a_model_are_finite(name, value):
    with pytest.raises(UserError, match=f"neuron model wrong: a must be a finite number, got {value}"):
        NeuronModel("wrong", "v : 1\na : 1", **{name: {"a": value}})


def test_a_variable_of_every_neuron_is_no_model_s_own():
    for equations in ("v : 1\ndriven : integer", "v : 1\ndpeak / dt = 1*Hz : 1", "v : 1\nI = 2 : 1"):
        with pytest.raises(UserError, match="is a variable that every neuron has already"):
            NeuronModel("wrong", equations)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ({"update": "v *= 0.5; v_th *= 1.01"}, "v_th"),
        ({"update": "I += 0.01"}, "I"),
        ({"on_spike": "  spike_count -= 1"}, "spike_count"),
        ({"reset": "v = 0\nspike_value = 2"}, "spike_value"),
    ],
)
def test_what_the_run_sets_is_not_changed_by_text(text, name):
    with pytest.raises(UserError, match=f"neuron model wrong: its text cannot change {name}, which the run sets"):
        NeuronModel("wrong", **text)
    NeuronModel("right", update="v *= int(v_th == 1) + int(I >= 0)  # v_th = 2")


def test_a_condition_may_be_a_function_of_one_s_own():
    fires = Function(lambda v, v_th: v >= v_th, arg_units=[1, 1], return_unit=bool)
    fires.implementations.add_implementation("numpy", fires.pyfunc)
    spec, weights, run_input = case("sprout")
    model = NeuronModel("own", threshold="fires(v, v_th)", namespace={"fires": fires})
    found = open_simulator(spec, weights, "numpy", model=model).run(run_input)
    assert_same(found, ReferenceSimulator(spec, weights).run(run_input))


@pytest.mark.parametrize("name", ["parameters", "initial"])
def test_numbers_of_a_model_have_no_unit(name):
    with pytest.raises(UserError, match=r"neuron model wrong: a must be a finite number, got 2\.? mV"):
        NeuronModel("wrong", "v : 1\na : 1", **{name: {"a": 2 * mV}})


@pytest.mark.parametrize("runtime", ["numpy", "standalone"])
def test_numbers_of_a_model_may_be_numpy_s(runtime):
    spec, weights, run_input = case("sprout")
    expected = ReferenceSimulator(spec, weights, model=HALF_LEFT).run(run_input)
    model = replace(LEAKY, parameters={"leak": np.float64(0.5)})
    assert_same(open_simulator(spec, weights, runtime, quiet=True, model=model).run(run_input), expected)
    assert repr(replace(ADAPTIVE, initial={"a": np.float32(0.25)})) == repr(ADAPTIVE)


def test_models_with_other_things_in_their_namespace_have_other_binaries():
    """A binary is known by numbers and TimedArrays; one with a function of the user's own is not kept."""
    stimuli = [TimedArray([0, level], dt=1 * ms) for level in (1, 2, 2)]
    models = [NeuronModel("m", update="v += s(t)", namespace={"s": stimulus}) for stimulus in stimuli]
    assert models[0].describe() != models[1].describe() == models[2].describe()
    assert all(model.told_whole for model in (IF, *models, NeuronModel("m", namespace={"k": 2 * mV, "n": 3})))
    half = Function(lambda v: v / 2, arg_units=[1], return_unit=1)
    half.implementations.add_implementation("cpp", "double half(double v) { return v / 2; }")
    own = NeuronModel("own", update="v = half(v)", namespace={"half": half})
    assert not own.told_whole
    spec, weights, run_input = case("sprout")
    simulator = StandaloneSimulator(spec, weights, quiet=True, model=own)
    assert_same(simulator.run(run_input), ReferenceSimulator(spec, weights, model=HALF_LEFT).run(run_input))
    assert cache_folder() not in simulator.folder.parents


def test_who_moves_without_input_is_known_by_the_text():
    alone = [IF, NeuronModel("other", "v : 1\nw : 1  # w/dt is not meant")]
    moving = [LEAKY, *(NeuronModel("m", f"{left} = -v/ms : 1") for left in ("dv/dt", "dv / dt", "dv/ dt"))]
    assert [model.moves_by_input_alone for model in (*alone, *moving)] == [True] * 2 + 4 * [False]
    assert not any(model.draws for model in alone + moving)
    assert not NeuronModel("m", update="v *= 0.5  # no rand() here").draws
    assert NeuronModel("m", update="v += noise()", namespace={"noise": np.random.rand}).draws
    assert NeuronModel("m", update="v += 0.1*randn()").draws and NeuronModel("m", "dv/dt = xi*ms**-0.5 : 1").draws


@pytest.mark.parametrize("model", [LEAKY, LIF, CUBA_LIF], ids=lambda model: model.name)
def test_a_potential_at_the_start_is_no_input(model):
    """In the dark it leaks from where it begins (NIR's equations: v += decay*(rest - v), no current)."""
    spec, weights = pair((1, 1, 1)), {"input_to_output": np.zeros((1, 1), dtype=np.float32)}
    dark = RunInput(np.zeros((1, 1, 1, 1), dtype=np.float32), {"output": 2}, 20, initial={"output": 1})
    for runtime in ("torch", "numpy"):
        recording = open_simulator(spec, weights, runtime, model=model).run(dark)
        np.testing.assert_allclose(recording.output_v[0, :, 0], 0.95 ** np.arange(1, 21), rtol=1e-5)


@pytest.mark.parametrize(("reset", "left"), [("zero", 0), ("subtract", 0.75)])
def test_a_resting_neuron_keeps_what_its_spike_left(reset, left):
    spec, weights = pair((1, 1, 1)), {"input_to_output": np.zeros((1, 1), dtype=np.float32)}
    driven = RunInput(np.zeros((1, 1, 1, 1), dtype=np.float32), {"output": 1}, 12, constant={"output": 1.75})
    recording = InProcessSimulator(spec, weights, reset=reset, model=REFRACTORY, target="numpy").run(driven)
    expected = np.repeat([left, left * 2, left * 3], 4)  # from the second spike on above the threshold, all the time
    np.testing.assert_allclose(recording.output_v[0, :, 0], expected)
    assert recording.spikes("output").step.tolist() == [0, 4, 8]
    assert_same(ReferenceSimulator(spec, weights, reset, model=REFRACTORY).run(driven), recording)


def test_the_constant_input_of_an_earlier_run_is_gone():
    spec, weights = pair((1, 1, 1)), {"input_to_output": np.zeros((1, 1), dtype=np.float32)}
    simulator = InProcessSimulator(spec, weights, model=replace(IF, threshold="v + I >= v_th"), target="numpy")
    dark = RunInput(np.zeros((1, 1, 1, 1), dtype=np.float32), {"output": 1}, 3)
    assert simulator.run(replace(dark, constant={"output": 2})).counts[0, -1] == 3
    assert not simulator.run(dark).counts.any()


def test_tables_name_models_for_what_they_are():
    """A conversion may bring models of its own, whatever its name for the others."""
    assert name_of(["if"], {"a": IF, "b": IF}) == "if"
    assert name_of(["leaky"], {"a": LEAKY}) == "leaky"
    assert name_of(["if"], {"a": IF, "b": LEAKY}).startswith("if ")
    mine = {"a": replace(LEAKY, name="mine")}
    assert name_of(["x/mine.toml"], mine) == name_of(["a=x/mine.toml"], mine).removeprefix("a=")
    assert not replace(LEAKY, parameters={"leak": 0.9, "extra": 1}).shipped


def test_names_in_text_are_not_those_of_who_runs_it():
    spec, weights, run_input = case("sprout")
    total = np.float64(2)  # noqa: F841 (Brian2 would find it)
    for text, name in ({"update": "v -= v/total"}, "total"), ({"on_spike": "b += 1"}, "b"):
        with pytest.raises(UserError, match=f'neuron model mine: The identifier "{name}" could not be resolved'):
            open_simulator(spec, weights, "numpy", model=NeuronModel("mine", **text)).run(run_input)
    local = NeuronModel("mine", update="half = v/2; v -= half  # total")
    assert open_simulator(spec, weights, "numpy", model=local).run(run_input).counts.any()
