"""cache.py: the cache's place and size, and how it is emptied."""

from commands import run

from sims.brian.cache import cache_entry
from sims.cache import main


def test_cache_is_told_and_emptied(own_cache):
    cache_entry("weights", "abc", lambda folder: (folder / "data").write_bytes(bytes(2_000_000)))
    lines = [f"{own_cache}", "binaries     0       0.0 MB", "weights      1       2.0 MB"]
    assert run("cache.py", main).out.splitlines() == lines
    lines[2] = "weights      0       0.0 MB"
    assert run("cache.py", main, "--empty").out.splitlines() == lines
