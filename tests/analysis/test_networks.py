"""The command that measures the errors of the shipped networks' ANNs."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from commands import run

from analysis import networks
from analysis.results import RESULTS
from netspec.ann import ann_predictions
from netspec.checkpoint import load_checkpoint, shipped_networks
from netspec.data import load_images

NETWORKS = partial(run, "networks.py", networks.main)


def test_errors_are_those_of_the_anns(tmp_path):
    out = tmp_path / "new" / "networks.csv"
    ended = NETWORKS("--data", "cifar10-samples", "--images", 8, "--out", out)
    assert ended.status == 0, ended
    table = pd.read_csv(out).set_index("network")
    assert list(table.index) == [file.stem for file in shipped_networks() if "cifar10" in file.stem]
    for name, row in table.iterrows():
        network = load_checkpoint(name)
        shown = load_images("cifar10-samples", network.spec.input.shape, network.classes).first(8)
        assert row["ann_error"] == 100 * np.mean(ann_predictions(network, shown.images) != shown.labels)
        assert (row["checkpoint"], row["images"]) == (network.digest[:8], 8)


def test_photographs_of_unknown_class_are_refused(tmp_path):
    ended = NETWORKS(
        "--data", "cifar10-samples", "--images", 1, "--imagenette", "imagenet-samples", "--out", tmp_path / "n.csv"
    )
    ended.assert_refused("networks.py", "the classes of images of")
    assert not (tmp_path / "n.csv").exists()


@pytest.mark.parametrize("network", shipped_networks(), ids=lambda file: file.stem)
def test_the_published_table_agrees_with_every_checkpoint(network):
    """Training measures in bfloat16, which moves a few images of 10,000."""
    row = pd.read_csv(RESULTS / "networks.csv").set_index("network").loc[network.stem]
    checkpoint = load_checkpoint(network)
    assert row["checkpoint"] == checkpoint.digest[:8]
    assert row["checkpoint_error"] == pytest.approx(100 * checkpoint.info["test_error"], abs=1e-3)
    assert row["ann_error"] == pytest.approx(row["checkpoint_error"], abs=0.06)
    assert row["images"] == (10_000 if "cifar10" in network.stem else 3_925)
