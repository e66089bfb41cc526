"""The compiled network: compiled once, told everything else at run time; what happens when it cannot run."""

import os
import platform
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import NETWORKS, assert_same, case, exact_weights, images, pair, sprout, weights_of

import sims.standalone
from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.reference import ReferenceSimulator
from sims.runtime import RunInput
from sims.standalone import StandaloneSimulator, cache_folder


@pytest.fixture
def no_compiler(monkeypatch) -> None:
    """Whoever compiles, fails the test."""

    def compile_project(*_):
        raise AssertionError("compiled again")

    monkeypatch.setattr(sims.standalone, "compile_project", compile_project)


@pytest.fixture
def own_cache(monkeypatch, tmp_path) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("GOING_DEEPER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


# The cache


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
    for changed in ({"weights": exact_weights(spec, 1), "synapses": "explicit"}, {"weights": weights}):
        with pytest.raises(AssertionError, match="compiled again"):
            StandaloneSimulator(spec, **changed)
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


def test_without_a_variable_the_cache_is_the_user_s(monkeypatch):
    monkeypatch.delenv("GOING_DEEPER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    assert cache_folder().name == "going-deeper-in-brian2"
    assert cache_folder().is_absolute()


@pytest.mark.usefixtures("no_compiler")
def test_a_name_with_slashes_stays_inside_the_cache(own_cache):
    spec = pair()
    named = NetSpec("../../some/where else", spec.populations, spec.projections)
    with pytest.raises(AssertionError, match="compiled again"):
        StandaloneSimulator(named, exact_weights(spec))
    assert [folder.name for folder in own_cache.parent.iterdir()] == ["cache"]


def test_a_cache_that_cannot_be_written_is_the_user_s_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GOING_DEEPER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot write into the folder .*file/cache"):
        StandaloneSimulator(pair(), exact_weights(pair()))


# Compiling


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("missing", ["g++", "make", "clang-nowhere"])
def test_a_missing_compiler_is_named_with_the_remedy(monkeypatch, tmp_path, missing):
    for program in {"g++", "make"} - {missing}:
        script(tmp_path / program, "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    if missing.startswith("clang"):
        monkeypatch.setenv("CXX", missing)
    else:
        monkeypatch.delenv("CXX", raising=False)
    message = f"no C++ compiler found ({missing} is missing): install g++ and make, or choose --runtime numpy"
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        StandaloneSimulator(pair(), exact_weights(pair()), quiet=True)


@pytest.mark.parametrize("fails", ["at once", "on a source file"])
def test_a_failing_compiler_leaves_nothing_in_the_cache(monkeypatch, tmp_path, own_cache, fails):
    """The precompiled header is the first thing to be compiled."""
    text = "echo 'no space left on device' >&2; exit 1"
    if fails == "on a source file":
        text = f'case "$*" in *c++-header*) exit 0;; esac; {text}'
    monkeypatch.setenv("CXX", str(script(tmp_path / "broken-g++", text)))
    monkeypatch.setattr(sims.standalone.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UserError, match=r"the C\+\+ compiler .*broken-g\+\+ failed; its messages are in ") as caught:
        StandaloneSimulator(pair(), exact_weights(pair()), quiet=True)
    log = Path(str(caught.value).rsplit(" in ", 1)[1])
    assert log.parent == tmp_path
    assert "no space left on device" in log.read_text()
    assert list((own_cache / "binaries").iterdir()) == []


@pytest.mark.usefixtures("own_cache")
def test_after_a_failure_brian2_runs_in_this_process_again(monkeypatch, tmp_path, simulator):
    spec, weights, run_input = case("sprout")
    monkeypatch.setenv("CXX", str(script(tmp_path / "broken-g++", "exit 1")))
    monkeypatch.setattr(sims.standalone.tempfile, "tempdir", str(tmp_path))
    with pytest.raises(UserError):
        StandaloneSimulator(spec, weights, quiet=True)
    recording = simulator("sprout", "numpy").run(run_input)
    assert_same(recording, ReferenceSimulator(spec, weights).run(run_input))


# Running


@pytest.fixture
def replaced(simulator, tmp_path):
    """The garden's simulator with another program in place of its binary."""
    known = simulator("garden", "standalone")

    def replace_by(text: str) -> StandaloneSimulator:
        spec, weights, _ = case("garden")
        other = StandaloneSimulator(spec, weights)
        assert other.folder == known.folder
        script(tmp_path / "main", text)
        other.folder = tmp_path
        return other

    return replace_by


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo 'cannot write the results: disk full' >&2; exit 4", "status 4: cannot write the results: disk"),
        ("kill -9 $$", "status -9: killed, perhaps for want of memory"),
        ("echo 20; exit 1", "status 1: "),
    ],
)
def test_a_binary_that_fails_is_the_user_s_error(replaced, text, message):
    with pytest.raises(UserError, match=re.escape(f"the simulation ended with {message}")):
        replaced(text).run(case("garden")[2])


def test_a_binary_that_cannot_read_its_weights_says_which(simulator, tmp_path):
    known = simulator("garden", "standalone")
    other = StandaloneSimulator(known.spec, weights_of("garden"))
    other.weights = tmp_path / "gone.bin"
    with pytest.raises(UserError, match=r"status 3: cannot read .*gone\.bin"):
        other.run(case("garden")[2])


def test_a_run_leaves_no_files_behind(simulator, replaced):
    simulator("garden", "standalone").run(case("garden")[2])
    with pytest.raises(UserError):
        replaced("exit 1").run(case("garden")[2])
    assert list((cache_folder() / "runs").iterdir()) == []


def test_files_of_killed_runs_are_removed_those_of_others_are_not(simulator):
    ended = subprocess.Popen(["true"])
    ended.wait()
    runs = cache_folder() / "runs"
    names = [f"{platform.node()}.{ended.pid}.x", f"{platform.node()}.{os.getppid()}.x", f"elsewhere.{ended.pid}.x"]
    for name in names:
        (runs / name).mkdir(parents=True)
        (runs / name / "images.f32").touch()
    simulator("garden", "standalone").run(case("garden")[2])
    left = {folder.name for folder in runs.iterdir()}
    shutil.rmtree(runs)
    assert left == set(names[1:])


def test_progress_is_told_in_twentieths_of_a_presentation(simulator):
    _, _, usual = case("garden")
    steps = []
    simulator("garden", "standalone").run(replace(usual, steps=40), steps.append)
    assert steps == list(range(2, 3 * 40 + 1, 2))


def test_peak_memory_is_the_binarys_own(simulator):
    """And not that of the process that started it, which rusage would count."""
    network = simulator("garden", "standalone")
    held = np.ones(2**26)  # half a gigabyte
    network.run(case("garden")[2])
    assert 2**20 < network.peak_memory < 2**27 < held.nbytes


def test_measuring_needs_shared_synapses(simulator):
    _, _, usual = case("sprout")
    with pytest.raises(UserError, match="synaptic input is measured with shared synapses only"):
        simulator("sprout", "standalone", "explicit").run(RunInput(usual.x, {}, 5, measured=("a",)))


def test_weights_beyond_half_precision_have_a_binary_of_their_own(simulator, request):
    """One that reads them as halves would read garbage."""
    simulator("garden", "standalone")
    request.getfixturevalue("no_compiler")
    spec = NETWORKS["garden"]()
    StandaloneSimulator(spec, exact_weights(spec, seed=1))
    with pytest.raises(AssertionError, match="compiled again"):
        StandaloneSimulator(spec, exact_weights(spec, seed=1, fine=True))
