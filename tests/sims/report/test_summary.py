"""The result of one run: its table, its summary, what is printed and saved."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from commands import strict_json, tiny_checkpoint
from networks import exact_thresholds, pair

from netspec.ann import ann_predictions
from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.data import CIFAR10_CLASSES, samples
from netspec.thresholds import Thresholds
from sims.report.summary import Result
from sims.simulation.metrics import layerwise_ac_mac_ratio
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput


def run(checkpoint: Checkpoint, **settings) -> Result:
    """The sample images for 60 steps."""
    images = samples()
    x = checkpoint.encode(images.images)
    values = exact_thresholds(checkpoint.spec, dict(checkpoint.weights), x)
    thresholds = Thresholds(values, "spike-norm", checkpoint.digest, 99.5, 20, images.source, 0, 10)
    recording = ReferenceSimulator(checkpoint.spec, checkpoint.weights).run(RunInput(x, values, 60, seed=3))
    ann = ann_predictions(checkpoint, images.images)
    return Result(
        checkpoint, Conversion.of(thresholds), images, recording, ann, settings, {"ann": 0.5, "simulate": 1.25}
    )


@pytest.fixture(scope="module")
def result():
    return run(tiny_checkpoint(), runtime="reference", raster_images=3)


def test_summary_holds_what_the_recording_says(result, tmp_path):
    result.save(tmp_path)
    summary, recording, checkpoint = strict_json(tmp_path / "summary.json"), result.recording, result.checkpoint
    snn, labels = recording.predictions(), samples().labels
    assert len(set(snn)) > 3  # else the next lines could not tell much
    assert summary["ann_accuracy"] == np.mean(result.ann == labels)
    assert summary["snn_accuracy"] == np.mean(snn == labels)
    assert summary["agreement"] == np.mean(result.ann == snn)
    assert summary["agreeing_images"] == np.sum(result.ann == snn)
    assert summary["images"] == 20
    assert summary["spikes_per_neuron"] == recording.spikes_per_neuron()
    operations = {p.name: int(recording.synaptic_operations(p).sum()) for p in checkpoint.spec.projections}
    assert summary["synaptic_operations"] == operations
    driven = [p for p in checkpoint.spec.projections if p.pre != "input"]
    ratio = sum(operations[p.name] for p in driven) / 20 / sum(checkpoint.spec.macs(p) for p in driven)
    assert summary["ac_mac_ratio"] == pytest.approx(ratio)
    assert summary["ac_mac_by_layers"] == layerwise_ac_mac_ratio(recording)
    assert f"{ratio:.3f} by all events after IF neurons, {summary['ac_mac_by_layers']:.3f} by layers" in result.text()
    assert summary["seconds"] == {"ann": 0.5, "simulate": 1.25}
    assert 50e6 < summary["peak_memory_bytes"] < 64e9
    settings = {"network": "vgg16-tiny", "checkpoint": checkpoint.digest, "checkpoint_test_error": 0.875}
    settings |= {"trained_on": "CIFAR-10 train", "images": "CIFAR-10 test images 0 to 19", "steps": 60, "seed": 3}
    settings |= {
        "conversion": {"method": "spike-norm", "percentile": 99.5, "digest": result.conversion.digest},
        "coding": "poisson",
        "runtime": "reference",
        "raster_images": 3,
    }
    assert summary["settings"] == settings


def test_table_has_a_row_for_each_image(result, tmp_path):
    result.save(tmp_path)
    table, recording = pd.read_csv(tmp_path / "images.csv"), result.recording
    pd.testing.assert_frame_equal(table, result.table, check_dtype=False)
    assert list(table) == ["image", "true", "ann", "snn", "output_spikes", "runner_up"]
    assert list(table["image"]) == list(range(20))
    answers = {"true": samples().labels, "ann": result.ann, "snn": recording.predictions()}
    for column, classes in answers.items():
        assert list(table[column]) == [CIFAR10_CLASSES[number] for number in classes]
    counts = np.sort(recording.spike_counts("output").reshape(20, 10), axis=1)
    np.testing.assert_array_equal(table[["runner_up", "output_spikes"]], counts[:, -2:])
    rows = [line.split() for line in result.text().splitlines()[1:21]]
    assert rows == table.astype(str).to_numpy().tolist()


def test_accuracies_are_told(result):
    summary, text = result.summary, result.text()
    assert f"ANN accuracy   {100 * summary['ann_accuracy']:.2f} % of 20 images\n" in text
    assert f"SNN accuracy   {100 * summary['snn_accuracy']:.2f} % after 60 steps\n" in text
    assert f"agreement      {summary['agreeing_images']} of 20 images\n" in text
    assert "trained on CIFAR-10 train, error of its ANN on the whole test set 87.50 %\n" in text


def test_what_does_not_exist_is_null_and_told_as_unknown(tmp_path):
    """A ratio without layers that IF neurons drive, the error of a network that nobody tested."""
    flat = replace(tiny_checkpoint(pair((32, 32, 3), (1, 1, 10), kind="dense", pool=8)), info={})
    result = run(flat)
    assert "AC/MAC ratio   unknown" in result.text()
    assert "error of its ANN on the whole test set unknown" in result.text()
    result.save(tmp_path)
    summary = strict_json(tmp_path / "summary.json")
    assert summary["ac_mac_ratio"] is summary["ac_mac_by_layers"] is None
    assert summary["settings"]["checkpoint_test_error"] is None


def test_a_network_of_one_class_has_no_runner_up():
    checkpoint = tiny_checkpoint(pair((32, 32, 3)))
    table = run(checkpoint).table
    assert set(table["snn"]) == set(table["ann"]) == {"airplane"}
    assert table["output_spikes"].max() > 0 == table["runner_up"].max()
