"""Export to Neo: segments, spike trains, what they are annotated with, what is refused."""

import sys

import numpy as np
import pytest
from recordings import IMAGES, STEPS

from netspec.errors import UserError
from sims.exporting.neo import to_block
from sims.simulation.wiring import counted_groups


def test_every_spike_is_in_the_train_of_its_neuron(recording):
    pytest.importorskip("neo")
    block = to_block(recording, step_ms=0.5)
    sizes = counted_groups(recording.spec)
    assert block.name == "small"
    assert len(block.segments) == 3  # so many have rasters
    for presentation, segment in enumerate(block.segments):
        trains = {(t.annotations["population"], t.annotations["neuron"]): t for t in segment.spiketrains}
        assert set(trains) == {(name, index) for name in sizes for index in range(sizes[name])}
        for (name, index), train in trains.items():
            place = tuple(train.annotations[axis] for axis in ("y", "x", "channel"))
            assert len(train) == recording.spike_counts(name)[presentation][place]
            step, neuron = recording.rasters[name].T
            mine = (step // STEPS == presentation) & (neuron == index)
            np.testing.assert_allclose(train.rescale("ms").magnitude, 0.5 * np.sort(step[mine] % STEPS))
            assert float(train.t_stop.rescale("ms")) == 0.5 * STEPS


def test_the_output_alone_has_all_presentations(recording):
    pytest.importorskip("neo")
    assert len(to_block(recording, ["output"]).segments) == IMAGES


def test_a_group_without_raster_is_refused(recording):
    pytest.importorskip("neo")
    with pytest.raises(UserError, match="no raster of dense was recorded"):
        to_block(recording, ["conv", "dense"])


def test_missing_neo_is_named(recording, monkeypatch):
    monkeypatch.setitem(sys.modules, "neo", None)
    with pytest.raises(UserError, match="pip install neo"):
        to_block(recording)
