"""What the tests of the study share: tables of results, a small network."""

from pathlib import Path

import pytest
from commands import tiny_checkpoint
from results_tables import write_tables

from netspec.checkpoint import save_checkpoint
from netspec.thresholds import Thresholds, find_thresholds


@pytest.fixture
def tables(tmp_path) -> Path:
    return write_tables(tmp_path / "tables")


@pytest.fixture
def tiny_file(tmp_path) -> Path:
    """A small network with thresholds that nobody balanced: nothing needs to be compiled."""
    network = tiny_checkpoint()
    path = tmp_path / "tiny.safetensors"
    save_checkpoint(network, path)
    values = {population.name: 0.5 for population in network.spec.spiking}
    thresholds = Thresholds(values, "spike-norm", network.digest, 100.0, 20, "samples", 0, 30)
    thresholds.save(find_thresholds(path, "spike-norm"))
    return path
