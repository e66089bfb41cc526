"""A network with biases, batch norm and max pooling goes through every command and method."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Ended, run
from torch import nn

from netspec.ann import ANN
from netspec.checkpoint import load_checkpoint, save_checkpoint
from netspec.conversion import load_conversion
from netspec.data import CIFAR10_CLASSES, samples
from netspec.errors import UserError
from netspec.importing import from_torch
from netspec.recipe import Recipe
from netspec.trainer import Trainer
from sims import calibrate, evaluate
from sims import run as run_module
from sims.conversion.ann_norm import ann_norm
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

METHODS = {
    "spike-norm": ["--steps", 40, "--workers", 1],
    "ann-norm": [],
    "activations": [],
    "search": ["--steps", 8, "--correction", "bias"],
}


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """A small network whose input is pooled, so that it compiles and runs fast."""
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.AvgPool2d(4), nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(6, 8, 3, bias=True), nn.ReLU(), nn.Flatten(), nn.Linear(32, 10),
    )  # fmt: skip
    for parameter in module.parameters():
        nn.init.normal_(parameter, 0.05, 0.3)
    network = from_torch(module, (3, 32, 32), classes=CIFAR10_CLASSES, name="imported")
    path = tmp_path_factory.mktemp("imported") / "net.safetensors"
    save_checkpoint(network, path)
    return path


def command(name: str, main, network: Path, *options: object) -> Ended:
    return run(name, main, "--checkpoint", network, *options)


@pytest.fixture(scope="module")
def conversions(imported) -> dict[str, Path]:
    made = {}
    for method, options in METHODS.items():
        data = ("--data", "cifar10-samples", "--images", 6)
        ended = command("calibrate.py", calibrate.main, imported, "--method", method, *data, *options)
        assert ended.status == 0, ended
        made[method] = imported.with_suffix(f".{method}.conversion.safetensors")
    return made


def test_every_method_keeps_the_biases_and_the_values_of_what_max_pooling_passes_on(imported, conversions):
    network = load_checkpoint(imported)
    pools = [population.name for population in network.spec.populations if population.kind == "max"]
    assert len(pools) == 1 and set(network.biases) == {population.name for population in network.spec.spiking}
    (before,) = network.spec.incoming(pools[0])
    for method, path in conversions.items():
        found = load_conversion(path, network)
        assert found.spike_values[pools[0]] == found.spike_values[before.pre] == found.thresholds[before.pre]
        for name, bias in network.biases.items():
            if method != "search":
                np.testing.assert_array_equal(found.constant[name], bias)
        assert found.coding == ("poisson" if method.endswith("norm") else "current")
    corrected = load_conversion(conversions["search"], network).constant
    assert any((corrected[name] != bias).any() for name, bias in network.biases.items())


def test_spike_norm_measures_synaptic_input_with_the_bias(imported, conversions):
    network = load_checkpoint(imported)
    found = load_conversion(conversions["spike-norm"], network)
    chosen = samples().random(6, 0).images
    x, reference = network.encode(chosen), ReferenceSimulator(network.spec, network.weights)
    for population in network.spec.spiking:
        told = RunInput.of(x, found, 40, measured=[population.name], ids=np.arange(6))
        peak = float(reference.run(told).peaks[population.name].max())
        assert peak == pytest.approx(found.thresholds[population.name])


def test_ann_norm_takes_the_largest_activations(imported):
    network = load_checkpoint(imported)
    x = network.encode(samples().images)
    with torch.no_grad():
        largest = ANN.of(network).activations(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    for name, threshold in ann_norm(network, x).items():
        assert threshold == pytest.approx(float(largest[name].max()))


def test_run_and_evaluate_give_the_classes_of_the_ann_and_say_where_they_settle(imported, conversions, tmp_path):
    quick = ("--conversion", "activations", "--steps", 64, "--out", tmp_path)
    ended = command("run.py", run_module.main, imported, *quick, "--quiet", "--raster")
    assert ended.status == 0, ended
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["agreement"] >= 0.9
    assert all(0.8 < value <= 1 for value in summary["diagnosis"]["correlation"].values())
    assert "correlation" in ended.out and "settled" in ended.out
    shown = ("--data", "cifar10-samples", "--workers", 1, "--diagnose")
    ended = command("evaluate.py", evaluate.main, imported, *quick, *shown)
    assert ended.status == 0 and "activations, 20 images, 64 steps\ncorrelation" in ended.out, ended
    table = (tmp_path / "net-errors.csv").read_text()
    assert "activations" in table


def test_images_may_be_arrays(imported, conversions, tmp_path):
    shown = samples()
    quick = ("--conversion", "activations", "--steps", 2, "--quiet", "--raster", "--out", tmp_path / "out")
    np.savez(tmp_path / "mine.npz", images=shown.images[:3], labels=shown.labels[:3])
    ended = command("run.py", run_module.main, imported, *quick, "--data", tmp_path / "mine.npz")
    assert ended.status == 0 and "of 3 images" in ended.out, ended
    np.savez(tmp_path / "unknown.npz", images=shown.images[:3])
    assert command("run.py", run_module.main, imported, *quick, "--data", tmp_path / "unknown.npz").status == 0
    for name, arrays, reason in (
        ("floats", {"images": shown.images[:3] / 255}, "images are float64 (3, 32, 32, 3), not uint8 (n, 32, 32, 3)"),
        ("small", {"images": shown.images[:3, :8]}, "images are uint8 (3, 8, 32, 3), not uint8 (n, 32, 32, 3)"),
        ("beyond", {"images": shown.images[:3], "labels": [0, 1, 10]}, "labels must be whole numbers from 0 to 9"),
        ("nothing", {"pictures": shown.images[:3]}, "holds no arrays images and labels"),
    ):
        np.savez(tmp_path / f"{name}.npz", **arrays)
        ended = command("run.py", run_module.main, imported, *quick, "--data", tmp_path / f"{name}.npz")
        ended.assert_refused("run.py", reason)


def test_thresholds_alone_do_not_fit_a_network_with_biases(imported, conversions):
    ended = command("run.py", run_module.main, imported, "--conversion", "spike-norm-unit")
    ended.assert_refused("run.py", "there is no conversion 'spike-norm-unit' of net; there are activations, ann-norm")
    ended = command("calibrate.py", calibrate.main, imported, "--unit", "--data", "cifar10-samples", "--images", 2)
    ended.assert_refused("calibrate.py", "--unit is for networks without biases, and imported has some")


def test_training_on_is_refused(imported, tmp_path):
    network = load_checkpoint(imported)
    with pytest.raises(UserError, match="imported has biases, which are not trained here"):
        Trainer(network.spec, samples(), samples(), Recipe(validation=4), "cpu", start=network)
