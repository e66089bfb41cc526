"""Shards as tasks of a Dask cluster: processes of this machine by default, a scheduler's workers for more."""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.data import ImageSet
from netspec.errors import UserError, one_line
from sims.brian.runtime import DENSE, open_simulator
from sims.evaluation.shards import Setting, Shard, run_shard, write_shard
from sims.simulation.neuron_models import NeuronModel

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from dask.distributed import Client, Future, WorkerPlugin

__all__ = ["RETRIES", "compute", "until_interrupted"]

Item = TypeVar("Item")
RETRIES = 2
AHEAD = 3  # shards that a core has or waits for
PATIENCE = 30  # seconds to wait for a scheduler, and for its first worker


def compute(
    missing: Sequence[Shard],
    checkpoint: Checkpoint,
    conversions: Mapping[Setting, Conversion],
    models: Mapping[Setting, Mapping[str, NeuronModel]],
    images: ImageSet,
    out: Path,
    runtime: str = "standalone",
    workers: int = 1,
    scheduler: str | None = None,
) -> dict[Shard, BaseException]:
    """Simulate shards on a cluster, keep each in ``out`` as it finishes; returns those that failed 1 + RETRIES times.

    Raises UserError for what the user has to change, which fails in all.

    ``images`` are all that the shards are parts of. The cluster has ``workers`` processes of this machine, or is that
    of the Dask scheduler at the address ``scheduler``.
    """
    from dask.distributed import as_completed

    failed: dict[Shard, BaseException] = {}
    done = wrong = 0
    total = sum(shard.stop - shard.start for shard in missing)
    with cluster(workers, scheduler) as address, connect(address) as client:
        if runtime in ("standalone", DENSE):  # compiled once, before the workers look for it; refused here if at all
            for setting in {shard.case.setting for shard in missing}:
                told = checkpoint.spec, checkpoint.weights, runtime, "shared", setting.reset
                open_simulator(*told, model=models[setting])
        if scheduler or runtime not in ("standalone", DENSE):  # what is compiled already needs no Brian2
            client.register_plugin(with_brian2(), name="with Brian2")
        network = client.scatter(checkpoint, broadcast=True)
        waiting = deque(missing)
        running: dict[Future, Shard] = {}
        finished = as_completed()

        def submit() -> None:
            """Keep the workers busy, without handing over the pixels of shards whose turn is far away."""
            try:
                most = AHEAD * max(1, sum(client.ncores().values()))  # workers may join or leave
            except OSError as error:
                raise UserError(f"the Dask scheduler is gone ({error}); the same command again goes on") from error
            while waiting and len(running) < most:
                shard = waiting.popleft()
                pixels = images.images[shard.start : shard.stop]
                setting = shard.case.setting
                told = (network, conversions[setting], shard, pixels, runtime, models[setting])
                future = client.submit(attempted, *told, retries=RETRIES, pure=False)
                running[future] = shard
                finished.add(future)

        submit()
        with tqdm(total=total, unit="image") as bar:
            for future in until_interrupted(finished):
                shard = running.pop(future)
                if future.status == "finished":
                    table = future.result()
                    if isinstance(table, UserError):  # it would be the same again, and in other shards
                        raise table
                    write_shard(table, shard, out)
                    predicted = table[f"snn_{shard.case.steps}"].to_numpy()
                    done += len(table)
                    wrong += int((predicted != images.labels[table["image"]]).sum())
                    bar.update(len(table))
                    bar.set_postfix(error=f"{100 * wrong / done:.2f} %")
                else:
                    lost = "its worker was lost, perhaps for want of memory: try fewer or larger workers"
                    failed[shard] = RuntimeError(lost) if is_lost(future) else future.exception()
                submit()
    return failed


def attempted(
    network: Checkpoint, conversion: Conversion, shard: Shard, pixels: np.ndarray, runtime: str, *told: Any
) -> pd.DataFrame | UserError:
    """A shard; or what the user can help, where nothing was opened beforehand that would have told it.

    Other errors come in a line, without the network that Brian2's bring along.
    """
    try:
        return run_shard(network, conversion, shard, pixels, runtime, *told)
    except Exception as error:
        if isinstance(error, UserError) and runtime not in ("standalone", DENSE):
            return UserError(str(error))
        kind = "" if isinstance(error, (UserError, RuntimeError)) else f"{type(error).__name__}: "
        raise RuntimeError(f"{kind}{one_line(error)}") from None


def with_brian2() -> WorkerPlugin:
    """Lets workers import Brian2, which sets a signal handler: in the thread of a task it could not."""
    from dask.distributed import WorkerPlugin

    class WithBrian2(WorkerPlugin):
        def setup(self, worker: object) -> None:
            if threading.current_thread() is threading.main_thread():
                handler = signal.getsignal(signal.SIGINT)
                import_module("sims.brian.network")
                signal.signal(signal.SIGINT, handler or signal.SIG_DFL)

    return WithBrian2()


def until_interrupted(items: Iterator[Item]) -> Iterator[Item]:
    """All items; Ctrl-C ends the wait for one, and the work on one only if it comes twice.

    Raised in the midst of the work, KeyboardInterrupt could fall into the destructor of a Dask future and be lost.
    """
    came = waiting = False

    def interrupt(*_: object) -> None:
        nonlocal came
        if waiting or came:
            raise KeyboardInterrupt
        came = True

    handler = signal.signal(signal.SIGINT, interrupt)
    try:
        while True:
            waiting = True
            if came:
                raise KeyboardInterrupt
            try:
                item = next(items)
            except StopIteration:
                return
            waiting = False
            yield item
    finally:
        signal.signal(signal.SIGINT, handler)


def is_lost(future: Future) -> bool:
    """Whether a task failed because its worker did."""
    from dask.distributed import KilledWorker

    return future.status != "error" or isinstance(future.exception(), KilledWorker)


@contextmanager
def cluster(workers: int, scheduler: str | None = None) -> Iterator[str]:
    """The address of the scheduler to talk to: that of a local cluster, if none is given."""
    import dask
    from dask.distributed import LocalCluster

    if scheduler:
        yield scheduler
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # workers leave Ctrl-C to this process, which ends them
    settings = {
        "distributed.worker.profile.enabled": False,  # which samples stacks a hundred times a second
        "distributed.scheduler.worker-ttl": None,  # a machine that slept has lost no workers
    }
    try:
        with dask.config.set(settings):
            made = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",  # None would mean port 8787, and a warning if that is taken
                silence_logs=logging.CRITICAL,
            )
    except (TimeoutError, RuntimeError) as error:
        raise UserError(f"{workers} worker processes did not start ({error}); try fewer") from error
    finally:
        signal.signal(signal.SIGINT, handler)
    with made:
        yield made.scheduler_address


@contextmanager
def connect(address: str) -> Iterator[Client]:
    """A client of the scheduler; raises UserError if none answers, or if it has no workers."""
    from dask.distributed import Client

    try:
        client = Client(address, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise UserError(f"no Dask scheduler answers at {address} ({error})") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise UserError(f"the Dask scheduler at {address} has no workers; start them, see --help") from error
        yield client
