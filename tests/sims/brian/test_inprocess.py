"""A network in this process is an ordinary Brian2 network, open between runs."""

import re
from unittest.mock import Mock

import numpy as np
import pytest
from brian2 import Hz, Network, NeuronGroup, PoissonGroup, SpikeMonitor, StateMonitor, Synapses
from networks import assert_same, case, exact_weights, residual, sprout

from netspec.architectures.vgg import vgg16
from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.brian.inprocess import InProcessSimulator
from sims.brian.network import DT, SpikingNetwork
from sims.brian.synapses import SharedProjection
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput
from sims.simulation.wiring import SYNAPSES


def built(network: str, synapses: str = "shared") -> tuple[InProcessSimulator, RunInput]:
    spec, weights, run_input = case(network)
    return InProcessSimulator(spec, weights, synapses, target="numpy"), run_input


def potentials(spec: NetSpec, name: str, run_input: RunInput) -> np.ndarray:
    """Membrane potentials of a population at the end of each step: those of the network that ends there."""
    populations = spec.populations[: [p.name for p in spec.populations].index(name) + 1]
    names = [population.name for population in populations]
    cut = NetSpec("cut", populations, tuple(p for p in spec.projections if p.post in names))
    shown = RunInput(run_input.x, run_input.thresholds, run_input.steps, run_input.seed)
    return ReferenceSimulator(cut, exact_weights(spec)).run(shown).output_v.reshape(-1, spec[name].size)


@pytest.mark.parametrize("synapses", SYNAPSES)
def test_groups_and_projections_are_brian2_objects_under_their_names(synapses):
    simulator, _ = built("sprout", synapses)
    spec, snn = simulator.spec, simulator.snn
    assert isinstance(snn.network, Network)
    assert isinstance(snn["input_on"], PoissonGroup) and isinstance(snn["input_off"], PoissonGroup)
    for population in spec.populations[1:]:
        assert isinstance(snn[population.name], NeuronGroup)
        assert len(snn[population.name]) == population.size
        assert snn.network[population.name] is snn[population.name]
    expected = ["input_on_to_a", "input_off_to_a", "a_to_r", "a_to_output", "r_to_output"]
    assert list(snn.projections) == expected
    for projection in snn.projections.values():
        assert isinstance(projection, Synapses if synapses == "explicit" else SharedProjection)
    with pytest.raises(KeyError):
        snn["conv9"]


def test_explicit_synapses_show_every_connection():
    simulator, _ = built("sprout", "explicit")
    spec, projections, weights = simulator.spec, simulator.snn.projections, exact_weights(simulator.spec)
    (first, *_, dense) = spec.projections
    assert len(projections["input_on_to_a"]) == spec.synapses(first)
    np.testing.assert_array_equal(projections["input_off_to_a"].w[:], -projections["input_on_to_a"].w[:])
    table = np.zeros((12, 4), dtype=np.float32)
    table[projections["r_to_output"].i[:], projections["r_to_output"].j[:]] = projections["r_to_output"].w[:]
    np.testing.assert_array_equal(table, weights[dense.name].T)


@pytest.mark.parametrize("synapses", SYNAPSES)
@pytest.mark.parametrize("name", ["stem", "junction1", "output"])
def test_a_state_monitor_sees_the_membrane_potentials_of_the_reference(synapses, name):
    simulator, run_input = built("residual-if", synapses)
    monitor = StateMonitor(simulator.snn[name], "v", record=True, when="end")
    simulator.snn.network.add(monitor)
    recording = simulator.run(run_input)
    np.testing.assert_array_equal(monitor.v.T, potentials(simulator.spec, name, run_input))
    assert_same(recording, ReferenceSimulator(simulator.spec, exact_weights(simulator.spec)).run(run_input))


@pytest.mark.parametrize("synapses", SYNAPSES)
def test_a_spike_monitor_sees_the_raster(synapses):
    simulator, run_input = built("sprout", synapses)
    names = ("input_on", "a", "output")
    monitors = {name: SpikeMonitor(simulator.snn[name], name=f"monitor_{name}") for name in names}
    simulator.run(run_input)  # a network can be looked into at any time
    simulator.snn.network.add(*monitors.values())
    start = simulator.snn.network.t / simulator.snn[names[0]].dt
    recording = simulator.run(run_input)
    for name, monitor in monitors.items():
        step = np.round(monitor.t / monitor.clock.dt - start).astype(int)
        assert len(step) > 0
        np.testing.assert_array_equal(np.stack([step, monitor.i[:]], axis=1), recording.rasters[name])


def test_thresholds_of_the_last_run_can_be_read():
    simulator, run_input = built("sprout")
    simulator.run(run_input)
    for name, threshold in run_input.thresholds.items():
        assert (simulator.snn[name].v_th == threshold).all()


def test_objects_of_the_user_s_own_drive_shared_and_explicit_networks_alike():
    """A current and a synapse, in steps in which no input arrives; an image dark enough leaves many of them."""
    recordings = []
    for synapses in SYNAPSES:
        simulator, run_input = built("sprout", synapses)
        snn = simulator.snn
        snn["a"].run_regularly("v += 0.25 * (i % 2)", when="groups")
        feedback = Synapses(snn["output"], snn["a"], on_pre="v_post += 0.5", name="feedback")
        feedback.connect()
        snn.network.add(feedback)
        dark = RunInput(run_input.x / 64, {"a": 1, "output": 0.5}, 40, rasters=("input_on", "input_off", "a"))
        recordings.append(simulator.run(dark))
    arriving = np.union1d(*(recordings[0].rasters[name][:, 0] for name in ("input_on", "input_off")))
    assert len(np.setdiff1d(recordings[0].rasters["a"][:, 0], arriving)) > 10
    assert_same(*recordings)


def test_explicit_synapses_that_no_machine_can_hold_are_refused_at_once():
    spec = vgg16("imagenet")
    with pytest.raises(UserError, match=r"explicit synapses of vgg16-imagenet-x1 need about \d+\.\d GB .*use shared"):
        SpikingNetwork(spec, {}, "explicit")


def test_a_changed_weight_of_explicit_synapses_takes_effect():
    simulator, run_input = built("sprout", "explicit")
    simulator.snn.projections["a_to_output"].w = 0
    weights = exact_weights(simulator.spec)
    weights["a_to_output"][:] = 0
    expected = ReferenceSimulator(simulator.spec, weights).run(run_input)
    assert_same(simulator.run(run_input), expected)


@pytest.mark.parametrize("synapses", SYNAPSES)
def test_an_interrupted_run_leaves_no_trace(synapses):
    simulator, run_input = built("sprout", synapses)
    expected = simulator.run(run_input)
    assert expected.counts[0].any()

    with pytest.raises(KeyboardInterrupt):
        simulator.run(run_input, Mock(side_effect=[None] * 16 + [KeyboardInterrupt]))  # in step 17
    assert_same(simulator.run(run_input), expected)


@pytest.mark.parametrize("synapses", SYNAPSES)
def test_between_runs_the_network_runs_by_itself(synapses):
    simulator, run_input = built("sprout", synapses)
    snn, expected = simulator.snn, simulator.run(run_input)
    snn["input_on"].rates = snn["input_off"].rates = 0 * Hz
    snn["a"].v = snn["a"].v_th
    monitor = SpikeMonitor(snn["a"])
    snn.network.add(monitor)
    snn.network.run(3 * DT)
    assert (monitor.count == 1).all()
    assert_same(simulator.run(run_input), expected)


def test_progress_is_told_step_by_step():
    simulator, run_input = built("sprout")
    steps = []
    simulator.run(run_input, steps.append)
    assert steps == [1] * 3 * 20


def test_explicit_synapses_measure_what_shared_ones_do():
    measured = [built("sprout", synapses)[0] for synapses in SYNAPSES]
    given = RunInput(built("sprout")[1].x, {}, 5, measured=("a",))
    assert_same(*(simulator.run(given) for simulator in measured))


def test_two_networks_in_one_process_do_not_disturb_each_other():
    first, run_input = built("sprout")
    expected = first.run(run_input)
    second, other_input = built("residual-relay")
    second.run(other_input)
    assert_same(first.run(run_input), expected)


def test_options_that_do_not_exist_are_refused():
    spec = sprout()
    message = "synapses must be one of ('shared', 'explicit'), reset one of ('zero', 'subtract')"
    for options in ({"synapses": "sparse"}, {"reset": "half"}):
        with pytest.raises(ValueError, match=re.escape(message)):
            SpikingNetwork(spec, exact_weights(spec), **options)
    with pytest.raises(ValueError, match="weights are needed"):
        SpikingNetwork(residual("if"))


def test_cython_without_a_compiler_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    spec = sprout()
    with pytest.raises(UserError, match=r"no C\+\+ compiler found, .*install g\+\+, or choose the runtime numpy"):
        InProcessSimulator(spec, exact_weights(spec), target="cython")
