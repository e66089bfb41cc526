"""Running a compiled network: what it says, what it leaves, what happens when it cannot run."""

import re
from dataclasses import replace

import numpy as np
import pytest
from commands import script
from networks import assert_same, case, weights_of

from netspec.errors import UserError
from sims.brian.cache import cache_folder
from sims.brian.standalone import StandaloneSimulator
from sims.simulation.run_input import RunInput
from sims.simulation.wiring import SYNAPSES


@pytest.fixture
def replaced(simulator, tmp_path):
    """The garden's simulator with another program in place of its binary."""
    known = simulator("garden", "standalone")

    def replace_by(text: str) -> StandaloneSimulator:
        spec, weights, _ = case("garden")
        other = StandaloneSimulator(spec, weights)
        assert other.folder == known.folder
        script(tmp_path / "main", text)
        other.folder, other._open = tmp_path, lambda: None
        return other

    return replace_by


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("echo 'cannot write the results: disk full' >&2; exit 4", "status 4: cannot write the results: disk"),
        ("kill -9 $$", "SIGKILL (Killed, perhaps for want of memory)"),
        ("kill -ILL $$", "SIGILL (Illegal instruction: this processor lacks one of the binary's)"),
        ("kill -XFSZ $$", "SIGXFSZ (File size limit exceeded)"),
        ("kill -42 $$", "signal 42"),
        ("echo 20; exit 1", "status 1"),
    ],
)
def test_a_binary_that_fails_is_the_user_s_error(replaced, text, message):
    with pytest.raises(UserError, match=re.escape(f"the simulation ended with {message}")):
        replaced(text).run(case("garden")[2])


def test_a_binary_that_was_interrupted_is_not_taken_for_finished(replaced):
    """Brian2's handler ends it with status 0."""
    outputs = " ".join(f"$2/{name}" for name in ("spike_counts.bin", "output_v.bin", "raster_output.bin"))
    with pytest.raises(UserError, match="the simulation ended before its last step: it was interrupted"):
        replaced(f"touch {outputs}; exit 0").run(replace(case("garden")[2], rasters=()))


def test_a_binary_that_cannot_be_started_says_why(replaced):
    other = replaced("exit 0")
    (other.folder / "main").chmod(0o600)
    with pytest.raises(UserError, match=r"cannot start .*/main: Permission denied; if it is gone"):
        other.run(case("garden")[2])


def test_a_binary_that_cannot_read_its_weights_says_which(simulator, tmp_path):
    known = simulator("garden", "standalone")
    other = StandaloneSimulator(known.spec, weights_of("garden"))
    other.weights, other._open = tmp_path / "gone.bin", lambda: None
    with pytest.raises(UserError, match=r"status 3: cannot read .*gone\.bin"):
        other.run(case("garden")[2])


def test_a_run_leaves_no_files(simulator, replaced):
    simulator("garden", "standalone").run(case("garden")[2])
    with pytest.raises(UserError):
        replaced("exit 1").run(case("garden")[2])
    assert list((cache_folder() / "runs").iterdir()) == []


def test_progress_is_told_in_twentieths_of_presentations(simulator):
    """Three images are side by side."""
    _, _, usual = case("garden")
    steps = []
    simulator("garden", "standalone").run(replace(usual, steps=40), steps.append)
    assert steps == [3 * 2] * 20


def test_peak_memory_is_the_binarys_own(simulator):
    """And not that of the process that started it, which rusage would count."""
    network = simulator("garden", "standalone")
    held = np.ones(2**26)  # half a gigabyte
    network.run(case("garden")[2])
    assert 2**20 < network.peak_memory < 2**27 < held.nbytes


def test_explicit_synapses_measure_what_shared_ones_do(simulator):
    given = RunInput(case("sprout")[2].x, {}, 5, measured=("a",))
    assert_same(*(simulator("sprout", "standalone", synapses).run(given) for synapses in SYNAPSES))
