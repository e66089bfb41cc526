"""What all tests share: one torch thread, folders for compiled code, simulators that are built once."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from brian2 import prefs
from commands import save_tiny
from networks import NETWORKS, weights_of
from recordings import small_recording

from sims.brian.runtime import open_simulator
from sims.simulation.recording import Recording
from sims.simulation.run_input import Simulator

torch.set_num_threads(1)  # the networks of the tests are too small to gain from more


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that compile for minutes, too")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: compiles for minutes; runs with --slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="compiles for minutes; run with --slow"))


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiled code goes neither into the user's caches nor comes from them.

    Binaries are new in every session; Brian2 finds Cython modules by their full source text, so that they may
    stay in pytest's own cache.
    """
    prefs.codegen.runtime.cython.cache_dir = str(request.config.cache.mkdir("cython"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOING_DEEPER_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module", autouse=True)
def frozen_objects() -> None:
    """Brian2 collects all garbage after every run: what is there before a file of tests is not gone through again."""
    gc.freeze()


@pytest.fixture(scope="session")
def simulator() -> Callable[..., Simulator]:
    """Simulators of the networks in ``networks.py``; each is built once."""
    built: dict[tuple[str, ...], Simulator] = {}

    def get(network: str, runtime: str, synapses: str = "shared", reset: str = "zero") -> Simulator:
        key = (network, runtime, synapses, reset, *prefs.codegen.cpp.extra_compile_args_gcc)
        if key not in built:
            weights = weights_of(network)
            built[key] = open_simulator(NETWORKS[network](), weights, runtime, synapses, reset, quiet=True)
        return built[key]

    return get


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, caches: None) -> Path:
    """File of a small trained network, with thresholds of both methods beside it; its binary is in the cache."""
    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def recording() -> Recording:
    """Four presentations to a small network, for the tests of figures and of exports."""
    return small_recording()


@pytest.fixture
def own_cache(monkeypatch, tmp_path) -> Path:
    """A cache of this test's own."""
    monkeypatch.setenv("GOING_DEEPER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
