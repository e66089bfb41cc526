"""cache.py: the cache's place and size, how it is emptied, and runs that end while another begins."""

import shutil

from commands import run

from sims.brian import cache
from sims.brian.cache import cache_entry, scratch_folder
from sims.cache import main


def test_cache_is_told_and_emptied(own_cache):
    cache_entry("weights", "abc", lambda folder: (folder / "data").write_bytes(bytes(2_000_000)))
    lines = [f"{own_cache}", "binaries     0       0.0 MB", "weights      1       2.0 MB"]
    assert run("cache.py", main).out.splitlines() == lines
    lines[2] = "weights      0       0.0 MB"
    assert run("cache.py", main, "--empty").out.splitlines() == lines


def test_a_run_may_end_while_another_looks_for_what_was_left(own_cache, monkeypatch):
    left, ending = (own_cache / "runs" / name for name in ("left", "ending"))
    for folder in (left, ending):
        folder.mkdir(parents=True)
        (folder / "lock").touch()
    locked = cache.locked

    def late(file, wait=True):
        if file.parent == ending:
            shutil.rmtree(ending)
        return locked(file, wait)

    monkeypatch.setattr(cache, "locked", late)
    with scratch_folder() as own:
        assert own.is_dir() and not left.exists() and not ending.exists()
