"""The folders of the cache."""

import os
import platform
import shutil
import subprocess

import pytest
from networks import case, exact_weights, pair

from netspec.errors import UserError
from sims.brian.cache import cache_folder
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
