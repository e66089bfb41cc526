"""The choice of a runtime."""

import re

import pytest
from networks import exact_weights, sprout

from netspec.errors import UserError
from sims.brian import runtime
from sims.brian.runtime import RUNTIMES, choose_runtime, open_simulator


@pytest.mark.parametrize("missing", ["", "g++"])
def test_without_a_choice_networks_are_compiled_if_there_is_a_compiler(missing, monkeypatch, capsys):
    monkeypatch.setattr(runtime, "compiler_missing", lambda: missing)
    assert [choose_runtime(asked) for asked in RUNTIMES] == list(RUNTIMES)
    assert capsys.readouterr().err == ""
    assert choose_runtime(None) == ("numpy" if missing else "standalone")
    told = "no C++ compiler (g++ is missing): running with numpy, many times slower\n"
    assert capsys.readouterr() == ("", told if missing else "")


def test_an_unknown_runtime_is_refused():
    with pytest.raises(
        ValueError, match=re.escape("runtime 'gpu' is none of ('standalone', 'cython', 'numpy', 'torch')")
    ):
        open_simulator(sprout(), exact_weights(sprout()), "gpu")


@pytest.mark.parametrize("way", [("numpy",), ("cython",), ("torch",), ("standalone", "explicit")])
def test_threads_where_there_are_none_are_refused(way):
    with pytest.raises(UserError, match="thread"):
        open_simulator(sprout(), exact_weights(sprout()), *way, threads=2)
