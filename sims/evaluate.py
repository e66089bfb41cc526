"""Error of a spiking network on many images: any number of seeds, thresholds and resets, on all cores or a cluster.

Every finished shard of images is a file; the same command again goes on where it stopped. For other machines,
start `dask scheduler`, and `PYTHONPATH=. dask worker ADDRESS --nthreads 1 --nworkers CORES` in a clone of this
repository on each of them, and give --scheduler ADDRESS.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from netspec.checkpoint import Checkpoint, find_checkpoint, load_checkpoint, write_atomically
from netspec.data import ImageSet, load_images
from netspec.errors import UserError, run_command, writable_folder
from sims.classify import add_network_options, add_test_options, ann_predictions
from sims.evaluation import (
    Case,
    Shard,
    is_finished,
    name_thresholds,
    operations_table,
    read_shards,
    run_shard,
    shards,
    summary_table,
    with_earlier,
    write_shard,
)
from sims.runtime import RunInput, open_simulator
from sims.thresholds import VARIANTS, Thresholds, open_thresholds

if TYPE_CHECKING:
    from dask.distributed import Client, Future

Item = TypeVar("Item")
RETRIES = 2
AHEAD = 3  # shards that a core has or waits for
PATIENCE = 30  # seconds to wait for a scheduler, and for its first worker


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_network_options(parser, "vgg16-cifar10")
    add_test_options(parser)
    parser.add_argument("--steps", type=int, default=2500, help="time steps for each image")
    parser.add_argument(
        "--thresholds", nargs="+", default=["spike-norm"], metavar="FILE|METHOD",
        help=f"files, or any of {', '.join(VARIANTS)}: the files of those names beside the checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--resets", "--reset", nargs="+", choices=("zero", "subtract"), default=["zero"],
        help="of the membrane at a spike",
    )  # fmt: skip
    parser.add_argument("--shard", type=int, default=50, help="images of one task")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes of the local cluster")
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="a running Dask scheduler, in place of the local cluster"
    )
    parser.add_argument("--out", default="output/evaluation", metavar="DIR", help="where shards and tables go")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    if min(options.seeds, options.shard, options.workers) < 1:
        raise UserError("--seeds, --shard and --workers must be at least 1")
    checkpoint = load_checkpoint(options.checkpoint)
    everything = load_images(options.data, checkpoint.spec.input.shape[0], checkpoint.classes)
    images = everything.first(options.images).of_known_classes()
    x = checkpoint.encode(images.images[: options.shard])
    balanced = {}
    for choice in options.thresholds:
        thresholds = open_thresholds(choice, options.checkpoint, checkpoint)
        RunInput(x, thresholds.values, options.steps).checked(checkpoint.spec)
        balanced[name_thresholds(thresholds)] = thresholds
    out = writable_folder(options.out)
    cases = [
        Case(checkpoint.digest, name, everything.provenance, reset, options.seed + k, options.steps)
        for name in balanced
        for reset in dict.fromkeys(options.resets)
        for k in range(options.seeds)
    ]
    wanted = {case: list(shards(case, len(images), options.shard)) for case in cases}
    missing = [shard for case in cases for shard in wanted[case] if not is_finished(shard, out)]
    ann = ann_predictions(checkpoint, images.images)
    failed = compute(missing, options, checkpoint, balanced, images, out) if missing else {}

    whole = [case for case in cases if not any(shard.case == case for shard in failed)]
    if whole:
        tables = [(case, read_shards(case, wanted[case], out)) for case in whole]
        summary = summary_table(tables, checkpoint, images.labels, ann)
        name = find_checkpoint(options.checkpoint).stem
        made = {
            out / f"{name}-errors.csv": summary,
            out / f"{name}-operations.csv": operations_table(tables, checkpoint),
        }
        written = {path: with_earlier(table, path) for path, table in made.items()}
        for path, table in written.items():
            write_atomically(path, table.to_csv(index=False))
        print(summary.drop(columns=["checkpoint", "data"]).to_string(index=False))
        print(f"written: {' '.join(map(str, written))}")
    for shard, error in failed.items():
        print(f"failed {1 + RETRIES} times: images {shard.start} to {shard.stop - 1}: {error}", file=sys.stderr)
    if failed:
        raise UserError(f"{len(failed)} of {len(missing)} shards failed; run the same command again to retry them")


def compute(
    missing: list[Shard],
    options: argparse.Namespace,
    checkpoint: Checkpoint,
    balanced: dict[str, Thresholds],
    images: ImageSet,
    out: Path,
) -> dict[Shard, BaseException]:
    """Run the missing shards on the cluster, keep each as it finishes; returns those that failed."""
    from dask.distributed import as_completed

    failed: dict[Shard, BaseException] = {}
    done = wrong = 0
    total = sum(shard.stop - shard.start for shard in missing)
    with cluster(options) as address, connect(address) as client:
        for reset in {shard.case.reset for shard in missing}:  # compiled once, before the workers look for it
            open_simulator(checkpoint.spec, checkpoint.weights, "standalone", "shared", reset)
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
                thresholds = dict(balanced[shard.case.thresholds].values)
                future = client.submit(run_shard, network, thresholds, shard, pixels, retries=RETRIES, pure=False)
                running[future] = shard
                finished.add(future)

        submit()
        with tqdm(total=total, unit="image") as bar:
            for future in until_interrupted(finished):
                shard = running.pop(future)
                if future.status == "finished":
                    table = future.result()
                    write_shard(table, shard, out)
                    predicted = table[f"snn_{shard.case.steps}"].to_numpy()
                    done += len(table)
                    wrong += int((predicted != images.labels[table["image"]]).sum())
                    bar.update(len(table))
                    bar.set_postfix(error=f"{100 * wrong / done:.2f} %")
                else:
                    failed[shard] = future.exception() or RuntimeError(f"the task was {future.status}")
                submit()
    return failed


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


@contextmanager
def cluster(options: argparse.Namespace) -> Iterator[str]:
    """The address of the scheduler to talk to: that of a local cluster, if none is given."""
    from dask.distributed import LocalCluster

    if options.scheduler:
        yield options.scheduler
        return
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # workers leave Ctrl-C to this process, which ends them
    try:
        made = LocalCluster(
            n_workers=options.workers,
            threads_per_worker=1,
            dashboard_address="127.0.0.1:0",  # None would mean port 8787, and a warning if that is taken
            silence_logs=logging.CRITICAL,
        )
    except (TimeoutError, RuntimeError) as error:
        raise UserError(f"{options.workers} worker processes did not start ({error}); try fewer --workers") from error
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


if __name__ == "__main__":
    run_command(main)
