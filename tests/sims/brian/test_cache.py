"""The folders of the cache."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pytest
from networks import assert_same, case, exact_weights, pair

from netspec.errors import UserError
from sims.brian import cache
from sims.brian.binary import compiler_flags
from sims.brian.cache import cache_entry, cache_folder, cache_sizes, empty_cache
from sims.brian.standalone import StandaloneSimulator


def test_without_a_variable_the_cache_is_the_user_s(monkeypatch):
    monkeypatch.delenv("GOING_DEEPER_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/nowhere")
    assert cache_folder().name == "going-deeper-in-brian2"
    assert cache_folder().is_absolute()


def test_a_cache_that_cannot_be_written_is_the_user_s_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GOING_DEEPER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot write into the folder .*file/cache"):
        StandaloneSimulator(pair(), exact_weights(pair()))


@pytest.mark.parametrize("place", ["cache", "~/cache"])
def test_a_place_may_be_relative(monkeypatch, tmp_path, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GOING_DEEPER_CACHE", place)
    assert cache_folder() == tmp_path / "cache"


def test_a_user_without_a_home_needs_only_the_variable(own_cache, monkeypatch):
    """As in a container that runs under a number without an account."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", Mock(side_effect=KeyError))
    assert cache_folder() == own_cache
    assert compiler_flags()


@contextmanager
def held(lock: Path) -> Iterator[None]:
    """The lock of a file, held by a process of its own."""
    code = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code, lock], stdin=-1, stdout=-1) as process:
        assert process.stdin and process.stdout
        process.stdout.readline()
        yield
        process.stdin.close()


def test_files_of_killed_runs_are_removed_those_of_others_are_not(simulator):
    runs = cache_folder() / "runs"
    for name in ("killed", "running"):
        (runs / name).mkdir(parents=True)
        (runs / name / "images.f32").touch()
        (runs / name / "lock").touch()
    with held(runs / "running" / "lock"):
        simulator("garden", "standalone").run(case("garden")[2])
        assert [folder.name for folder in runs.iterdir()] == ["running"]
    simulator("garden", "standalone").run(case("garden")[2])
    assert list(runs.iterdir()) == []


def make(text: str, calls: list[str]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        calls.append(text)
        (folder / "data").write_text(text)
        (folder / "more").mkdir()
        (folder / "more" / "data").write_text(text)

    return write


DAMAGE = {
    "shorter": lambda entry: os.truncate(entry / "data", 1),
    "emptied": lambda entry: os.truncate(entry / "more" / "data", 0),
    "other content": lambda entry: (entry / "data").write_text("tent"),
    "a file gone": lambda entry: (entry / "more" / "data").unlink(),
    "no manifest": lambda entry: (entry / "manifest.json").unlink(),
    "broken manifest": lambda entry: (entry / "manifest.json").write_text('{"data": 3}'),
    "empty manifest": lambda entry: (entry / "manifest.json").write_text("{}"),
    "all gone": shutil.rmtree,
    "a file in its place": lambda entry: (shutil.rmtree(entry), entry.touch()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_made_again(own_cache, damage, monkeypatch):
    calls: list[str] = []
    for _ in range(2):
        entry = cache_entry("weights", "abc", make("text", calls))
    assert calls == ["text"]
    DAMAGE[damage](entry)
    monkeypatch.setattr(cache, "verified", set())  # as in another process
    assert cache_entry("weights", "abc", make("text", calls)) == entry
    assert calls == 2 * ["text"]
    assert (entry / "data").read_text() == (entry / "more" / "data").read_text() == "text"
    assert sorted(file.name for file in entry.parent.iterdir()) == ["abc", "abc.lock"]


def test_sizes_are_looked_at_whenever_an_entry_is_opened(own_cache):
    calls: list[str] = []
    os.truncate(cache_entry("weights", "abc", make("text", calls)) / "data", 1)
    cache_entry("weights", "abc", make("text", calls))
    assert calls == 2 * ["text"]


def test_a_failure_leaves_the_cache_as_it_was(own_cache):
    def fail(folder: Path) -> None:
        (folder / "data").touch()
        raise UserError("no")

    with pytest.raises(UserError):
        cache_entry("weights", "abc", fail)
    assert [file.name for file in (own_cache / "weights").iterdir()] == ["abc.lock"]


def test_leftovers_of_killed_makers_are_removed_those_of_others_are_not(own_cache):
    folder = own_cache / "binaries"
    for name in (".abc-x1", ".def-x2", ".ghi-x3"):
        (folder / name / "project").mkdir(parents=True)
    with held(folder / "ghi.lock"):
        cache_entry("binaries", "abc", make("text", []))
        assert sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) == [".ghi-x3", "abc"]


def test_a_network_whose_files_suffer_between_runs_answers_the_same(simulator, own_cache):
    spec, weights, run_input = case("sprout")
    mine = StandaloneSimulator(spec, weights, quiet=True)
    expected = mine.run(run_input)
    os.truncate(mine.weights, 2)
    assert_same(mine.run(run_input), expected)
    (mine.folder / "main").unlink()
    assert_same(mine.run(run_input), expected)


def test_the_cache_can_be_emptied(own_cache):
    entries = [cache_entry(kind, "abc", make("text", [])) for kind in ("binaries", "weights")]
    assert cache_sizes()["weights"][0] == 1 and cache_sizes()["weights"][1] > 8
    with held(own_cache / "binaries" / "abc.lock"):
        empty_cache()
    assert [entry.exists() for entry in entries] == [True, False]
    assert cache_sizes()["weights"] == (0, 0)


def test_user_without_account_and_home_has_a_cache_among_temporary_files(monkeypatch, tmp_path):
    def no_home(name):
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("GOING_DEEPER_CACHE")
    monkeypatch.setattr("sims.brian.cache.user_cache_dir", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / f"going-deeper-in-brian2-{os.getuid()}"
