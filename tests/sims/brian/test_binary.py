"""Binaries: compiled once for a network and its options; what happens when they cannot be compiled."""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from brian2 import prefs
from commands import ROOT, script
from networks import NETWORKS, assert_same, case, exact_weights, images, pair, sprout, weights_of

from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.brian import binary, units
from sims.brian.cache import cache_folder
from sims.brian.standalone import StandaloneSimulator
from sims.simulation.neuron_models import models_of
from sims.simulation.reference import ReferenceSimulator


@pytest.fixture
def no_compiler(monkeypatch) -> None:
    """Whoever compiles, fails the test."""

    def compile_units(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr(binary, "compile_units", compile_units)


# What shares a binary


@pytest.mark.parametrize("synapses", ["shared", "explicit"])
def test_a_network_is_compiled_once(simulator, request, synapses):
    network = {"shared": "garden", "explicit": "sprout"}[synapses]
    first = simulator(network, "standalone", synapses)
    request.getfixturevalue("no_compiler")
    spec, weights, run_input = case(network)
    second = StandaloneSimulator(spec, weights, synapses)
    assert second.folder == first.folder
    assert second.seconds == {"build": 0, "compile": 0}
    assert_same(second.run(run_input), ReferenceSimulator(spec, weights).run(run_input))


def test_all_but_the_network_is_told_at_run_time(simulator, request):
    """Other weights, thresholds, images, steps, seeds, rasters: the same binary."""
    first = simulator("garden", "standalone")
    request.getfixturevalue("no_compiler")
    spec, _, usual = case("garden")
    weights = exact_weights(spec, seed=9)
    second = StandaloneSimulator(spec, weights)
    assert (second.folder, second.seconds["compile"]) == (first.folder, 0)
    assert second.weights != first.weights
    reference = ReferenceSimulator(spec, weights)
    thresholds = {name: threshold + 1 / 64 for name, threshold in usual.thresholds.items()}
    for run_input in (
        usual,
        replace(usual, x=images(spec, 5, seed=3), steps=7),
        replace(usual, seed=2**40, ids=np.array([3, 2**40, 0])),
        replace(usual, thresholds=thresholds, steps=1),
        replace(usual, rasters=(), raster_presentations=2),
        replace(usual, rasters=("b", "input_off"), raster_presentations=2),
        replace(usual, rasters=("b",), raster_presentations=0),
    ):
        assert_same(second.run(run_input), reference.run(run_input))
    assert_same(first.run(usual), ReferenceSimulator(spec, weights_of("garden")).run(usual))


def test_weights_of_explicit_synapses_and_options_are_compiled_in(simulator, request):
    known = simulator("sprout", "standalone", "explicit")
    request.getfixturevalue("no_compiler")
    spec = sprout()
    weights = exact_weights(spec)
    assert StandaloneSimulator(spec, weights, "explicit").folder == known.folder
    with pytest.raises(AssertionError, match="compiled again"):
        StandaloneSimulator(spec, exact_weights(spec, 1), "explicit")
    keys = [
        binary.Blueprint(spec, weights, synapses, "zero", False, False, models_of(spec)).key
        for synapses in ("explicit", "shared")
    ]
    assert known.folder.name == keys[0] != keys[1]
    renamed = NetSpec("sprout2", spec.populations, spec.projections)
    with pytest.raises(AssertionError, match="compiled again"):
        StandaloneSimulator(renamed, weights, "explicit")


def test_the_cache_holds_a_binary_without_intermediate_files(simulator):
    folder = simulator("garden", "standalone").folder
    assert folder.parent == cache_folder() / "binaries"
    assert folder.parent.parent == Path(os.environ["GOING_DEEPER_CACHE"])
    assert (folder / "main").is_file()
    assert not [file for file in folder.rglob("*") if file.suffix in (".o", ".gch")]
    assert not [file for file in folder.parent.iterdir() if file.name.startswith(".")]


def test_weights_beyond_half_precision_have_a_binary_of_their_own(simulator, request):
    """One that reads them as halves would read garbage."""
    simulator("garden", "standalone")
    request.getfixturevalue("no_compiler")
    spec = NETWORKS["garden"]()
    StandaloneSimulator(spec, exact_weights(spec, seed=1))
    with pytest.raises(AssertionError, match="compiled again"):
        StandaloneSimulator(spec, exact_weights(spec, seed=1, fine=True))


@pytest.mark.usefixtures("no_compiler")
def test_a_name_with_slashes_stays_inside_the_cache(own_cache):
    spec = pair()
    named = NetSpec("../../some/where else", spec.populations, spec.projections)
    with pytest.raises(AssertionError, match="compiled again"):
        StandaloneSimulator(named, exact_weights(spec))
    assert [folder.name for folder in own_cache.parent.iterdir()] == ["cache"]


def test_compiler_flags_and_launchers_are_told_apart(monkeypatch, tmp_path):
    """Those that a script has set, and those of the variable CXX."""

    def key() -> str:
        return binary.Blueprint(pair(), None, "shared", "zero", False, False, models_of(pair())).key

    keys, usual = [key()], prefs.codegen.cpp.extra_compile_args_gcc
    try:
        for flags in (["-O0"], ["-O1"]):
            prefs.codegen.cpp.extra_compile_args_gcc = flags
            keys.append(key())
    finally:
        prefs.codegen.cpp.extra_compile_args_gcc = usual
    assert key() == keys[0]
    script(tmp_path / "ccache", 'exec "$@"')
    monkeypatch.setenv("CXX", f"{tmp_path / 'ccache'} g++")
    keys.append(key())
    assert len(set(keys)) == 4
    monkeypatch.setenv("CXX", "")
    assert key() == keys[0]


@pytest.mark.usefixtures("own_cache")
def test_a_launcher_before_the_compiler_is_used(monkeypatch, tmp_path):
    script(tmp_path / "ccache", f'echo "$1" >> {tmp_path / "calls"}; exec "$@"')
    monkeypatch.setenv("CXX", f"{tmp_path / 'ccache'} g++")
    assert StandaloneSimulator(pair(), exact_weights(pair()), quiet=True).seconds["compile"] > 0
    assert set((tmp_path / "calls").read_text().split()) == {"g++"}


GUEST = """
import brian2 as b2, numpy as np
from networks import assert_same, case
from sims.brian.standalone import StandaloneSimulator
from sims.simulation.reference import ReferenceSimulator

b2.prefs.core.default_float_dtype = np.float32
b2.set_device("cpp_standalone", directory=DIRECTORY)
b2.defaultclock.dt = 0.25 * b2.ms
group = b2.NeuronGroup(3, "dv/dt = (1 - v) / (10*ms) : 1", threshold="v > 0.9", reset="v = 0", method="exact")
spikes = b2.SpikeMonitor(group)
b2.Network(group, spikes).run(100 * b2.ms)
before = spikes.num_spikes
spec, weights, run_input = case("sprout")
recording = StandaloneSimulator(spec, weights, quiet=True).run(run_input)
assert_same(recording, ReferenceSimulator(spec, weights).run(run_input))
assert spikes.num_spikes == before > 0
assert b2.defaultclock.dt == 0.25 * b2.ms and b2.prefs.core.default_float_dtype == np.float32
assert b2.get_device() is b2.all_devices["cpp_standalone"]
"""


def test_a_script_with_a_simulation_of_its_own_is_left_as_it_was(own_cache, tmp_path):
    code = GUEST.replace("DIRECTORY", repr(str(tmp_path / "own")))
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]


# Compiling


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("missing", ["g++", "clang-nowhere"])
def test_a_missing_compiler_is_named_with_the_remedy(monkeypatch, tmp_path, missing):
    for program in {"g++"} - {missing}:
        script(tmp_path / program, "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    if missing.startswith("clang"):
        monkeypatch.setenv("CXX", missing)
    else:
        monkeypatch.delenv("CXX", raising=False)
    message = f"no C++ compiler found ({missing} is missing): install g++, or choose the runtime numpy"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        StandaloneSimulator(pair(), exact_weights(pair()), quiet=True)


def test_a_compiler_that_cannot_be_read_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "g++ '")
    with pytest.raises(UserError, match="the variable CXX names no compiler: No closing quotation"):
        StandaloneSimulator(pair(), exact_weights(pair()), quiet=True)


@pytest.mark.parametrize("fails", ["at once", "when it links"])
def test_a_failing_compiler_leaves_nothing_in_the_cache(monkeypatch, tmp_path, own_cache, fails):
    text = "echo 'no space left on device' >&2; exit 1"
    if fails == "when it links":
        text = f'case "$*" in *"-o main"*) {text};; esac; exec g++ "$@"'
    monkeypatch.setenv("CXX", str(script(tmp_path / "broken-g++", text)))
    monkeypatch.setattr(units.tempfile, "tempdir", str(tmp_path))
    reason = r"the C\+\+ compiler .*broken-g\+\+ failed \(.*\); its messages are in "
    with pytest.raises(UserError, match=reason) as caught:
        StandaloneSimulator(pair(), exact_weights(pair()), quiet=True)
    log = Path(str(caught.value).rsplit(" in ", 1)[1])
    assert log.parent == tmp_path
    assert "no space left on device" in log.read_text()
    assert [file.suffix for file in (own_cache / "binaries").iterdir()] == [".lock"]


@pytest.mark.usefixtures("own_cache")
def test_after_a_failure_brian2_runs_in_this_process_again(monkeypatch, tmp_path, simulator):
    spec, weights, run_input = case("sprout")
    monkeypatch.setenv("CXX", str(script(tmp_path / "broken-g++", "exit 1")))
    monkeypatch.setattr(units.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UserError):
        StandaloneSimulator(spec, weights, quiet=True)
    recording = simulator("sprout", "numpy").run(run_input)
    assert_same(recording, ReferenceSimulator(spec, weights).run(run_input))
