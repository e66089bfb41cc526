"""What tests of evaluations share: a cluster, the command on the samples, its results."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from brian2 import prefs
from commands import Ended
from dask.distributed import LocalCluster
from evaluations import IN_PROCESS, evaluate_samples


@pytest.fixture(scope="session")
def scheduler(caches: None) -> Iterator[str]:
    """Address of a cluster of threads in this process: nothing has to be started for every run."""
    with LocalCluster(n_workers=1, threads_per_worker=2, **IN_PROCESS) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def run_evaluate(tiny: Path, scheduler: str) -> Callable[..., Ended]:
    """Runs the command on the sample images."""
    return lambda out, *arguments: evaluate_samples(tiny, out, "--scheduler", scheduler, *arguments)


@pytest.fixture(scope="session")
def whole(run_evaluate: Callable[..., Ended], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """The folder of an evaluation of all images, one shard a seed; and what was said."""
    out = tmp_path_factory.mktemp("whole") / "new" / "folder"
    return out, run_evaluate(out, "--seeds", 2, "--shard", 20)


@pytest.fixture
def fast_compiler(monkeypatch) -> None:
    """Compile in less time."""
    monkeypatch.setitem(prefs, "codegen.cpp.extra_compile_args_gcc", ["-w", "-O0", "-std=c++11"])
