"""Settings, cases, and the shards into which they are cut."""

import threading
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from dask.distributed import Client, LocalCluster
from evaluations import IN_PROCESS

from netspec.checkpoint import load_checkpoint
from netspec.conversion import Conversion
from netspec.data import samples
from netspec.thresholds import find_thresholds, load_thresholds
from sims.brian.runtime import open_simulator
from sims.evaluation import shards as module
from sims.evaluation.shards import Case, Setting, Shard, memory, run_shard, shards, table_of
from sims.simulation.neuron_models import LEAKY

SETTING = Setting("net", "digest", "data", "spike-norm", False, 100.0, "12345678", "zero")


def test_setting_says_how_thresholds_were_found_and_tells_their_values_apart(tiny):
    checkpoint = load_checkpoint(tiny)
    conversion = Conversion.of(load_thresholds(find_thresholds(tiny, "ann-norm"), checkpoint)).told("subtract")
    setting = Setting.of(checkpoint, "data", replace(conversion, unit=True))
    assert setting == replace(setting, network="vgg16-tiny", checkpoint=checkpoint.digest, data="data",
                              method="ann-norm", unit=True, percentile=100.0, reset="subtract")  # fmt: skip
    for change in ({"thresholds": conversion.thresholds | {"output": 7.0}}, {"initial": {"output": 1.0}}):
        assert Setting.of(checkpoint, "data", replace(conversion, **change)).thresholds != setting.thresholds
    assert len({Case(s, 0, 10).digest for s in (SETTING, setting, replace(SETTING, unit=True))}) == 3


def test_images_are_cut_into_shards():
    case = Case(SETTING, 0, 10)
    assert list(shards(case, 5, 2)) == [Shard(case, 0, 2), Shard(case, 2, 4), Shard(case, 4, 5)]


def test_steps_of_the_paper_are_reported():
    case = Case(SETTING, 0, 2500)
    assert {10, 20, 50, 100, 200, 500, 1000, 1500, 2000, 2500} <= set(case.reported)
    apart = np.divide(case.reported[3:], case.reported[2:-1])
    assert (apart > 1).all() and apart.max() < 1.7  # close to one another where errors fall
    assert replace(case, steps=50).reported == (10, 20, 30, 50)
    assert replace(case, steps=60).reported == (10, 20, 30, 50, 60)
    assert replace(case, steps=3).reported == (3,)


def test_shard_is_the_same_wherever_it_is_cut(tiny):
    checkpoint, images = load_checkpoint(tiny), samples().images
    conversion = Conversion.of(load_thresholds(find_thresholds(tiny, "spike-norm"), checkpoint))
    case = Case(SETTING, 3, 25)
    cut = [
        run_shard(checkpoint, conversion, Shard(case, start, stop), images[start:stop])
        for start, stop in ((0, 1), (1, 4), (4, 5))
    ]
    table = run_shard(checkpoint, conversion, Shard(case, 0, 5), images[:5])
    pd.testing.assert_frame_equal(pd.concat(cut, ignore_index=True), table)
    assert list(table)[:4] == ["image", "snn_10", "snn_20", "snn_25"]


def test_shard_that_does_not_fit_is_simulated_in_parts(tiny, monkeypatch):
    """A worker's memory is what counts; the rows are the same."""
    checkpoint, images = load_checkpoint(tiny), samples().images[:5]
    conversion = Conversion.of(load_thresholds(find_thresholds(tiny, "spike-norm"), checkpoint))
    shard, runs = Shard(Case(SETTING, 3, 25), 7, 12), []
    whole = run_shard(checkpoint, conversion, shard, images)
    monkeypatch.setattr(module, "table_of", lambda *given: runs.append(given[2].tolist()) or table_of(*given))
    for limit, parts in (
        (1, [[7], [8], [9], [10], [11]]),
        (15_000, [[7, 8], [9, 10], [11]]),
        (1e9, [[7, 8, 9, 10, 11]]),
    ):
        monkeypatch.setattr(module, "memory", lambda limit=limit: limit)
        pd.testing.assert_frame_equal(run_shard(checkpoint, conversion, shard, images), whole)
        assert runs == parts
        runs.clear()


@pytest.mark.usefixtures("fast_compiler")
def test_simulator_serves_the_next_shard_if_all_about_it_is_the_same(tiny, monkeypatch):
    checkpoint, images, opened = load_checkpoint(tiny), samples().images[:2], []
    conversion = Conversion.of(load_thresholds(find_thresholds(tiny, "spike-norm"), checkpoint))
    shard = Shard(Case(SETTING, 3, 25), 0, 2)
    monkeypatch.setattr(module, "open_simulator", lambda *told: opened.append(told) or open_simulator(*told))
    monkeypatch.setattr(module, "LAST", threading.local())

    def spikes(leak=None, network=checkpoint, **told):
        models = {"conv1_1": replace(LEAKY, parameters={"leak": leak})} if leak else None
        table = run_shard(network, replace(conversion, **told), shard, images, models=models)
        return tuple(table["spikes_conv1_1"])

    larger = replace(checkpoint, weights={name: 2 * w for name, w in checkpoint.weights.items()})
    ways = [{"coding": "current"}, {}, {"reset": "subtract"}, {"leak": 0.9}, {"leak": 0.5}, {"network": larger}]
    found = {spikes(**way): way for way in ways for _ in range(2)}
    assert list(found.values()) == ways and len(opened) == len(ways) - 1  # the first two are numbers of a run
    assert list(found).index(spikes()) == 1


def test_memory_is_a_quarter_of_the_machines_or_workers():
    from distributed.system import MEMORY_LIMIT

    assert memory() == MEMORY_LIMIT / 4
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="1GB", **IN_PROCESS) as cluster,
        Client(cluster) as client,
    ):
        assert client.submit(memory, pure=False).result() == 0.25e9
