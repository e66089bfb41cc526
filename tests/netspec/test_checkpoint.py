"""Trained networks on disk: whole, checked, and refused in one line where they are not."""

import errno
import json
import os
import pickle
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import net
from safetensors import safe_open
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch_file

from netspec import checkpoint as module
from netspec.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from netspec.conversion import load_conversion
from netspec.errors import UserError
from netspec.files import write_atomically
from netspec.spec import Projection

SPEC = net(
    "small",
    {"input": (4, 4, 3), "conv": (4, 4, 2), "output": (1, 1, 2)},
    Projection("input", "conv", kernel=3, padding=1),
    Projection("conv", "output", kind="dense", pool=2),
    dropout=("conv",),
)


@pytest.fixture
def trained() -> Checkpoint:
    draw = np.random.default_rng(0)
    weights = {p.name: draw.normal(size=SPEC.weight_shape(p)).astype(np.float32) for p in SPEC.projections}
    mean = draw.random((4, 4, 3)).astype(np.float32)
    return Checkpoint(SPEC, weights, mean, 1.75, ("cat", "dog"), {"recipe": {"lr": 0.05}, "test_error": 0.25})


@pytest.fixture
def path(tmp_path, trained) -> Path:
    """A good checkpoint file."""
    save_checkpoint(trained, tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def rewrite(path: Path, header: dict[str, str | None] | None = None, **tensors: np.ndarray | None) -> None:
    """Change entries of a checkpoint file; None removes them."""
    with safe_open(path, framework="np") as file:
        metadata = file.metadata() | (header or {})
        content = {name: file.get_tensor(name) for name in file.keys()} | tensors  # noqa: SIM118
    content = {name: tensor for name, tensor in content.items() if tensor is not None}
    save_file(content, path, {name: text for name, text in metadata.items() if text is not None})


def refused(path: Path | str) -> str:
    """The one line in which loading ends."""
    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


# Round trip


def test_float32_checkpoint_comes_back_exactly(path, trained):
    loaded = load_checkpoint(path)
    assert loaded.spec == trained.spec
    assert (loaded.gain, loaded.classes, loaded.info) == (trained.gain, trained.classes, trained.info)
    np.testing.assert_array_equal(loaded.mean, trained.mean)
    assert set(loaded.weights) == set(trained.weights)
    for name, weight in trained.weights.items():
        np.testing.assert_array_equal(loaded.weights[name], weight)
    assert loaded.digest == trained.digest


def test_float16_checkpoint_is_stored_so_and_comes_back_as_float32(path, trained):
    save_checkpoint(trained, path, np.float16)
    with safe_open(path, framework="np") as file:
        assert all(file.get_tensor(name).dtype == np.float16 for name in trained.weights)
    loaded = load_checkpoint(path)
    for name, weight in trained.weights.items():
        assert loaded.weights[name].dtype == np.float32
        np.testing.assert_array_equal(loaded.weights[name], weight.astype(np.float16))
    np.testing.assert_array_equal(loaded.mean, trained.mean)  # the coding of the input stays float32


def test_weights_of_any_memory_order_are_stored_alike(tmp_path, trained):
    turned = replace(trained, weights={name: np.asfortranarray(weight) for name, weight in trained.weights.items()})
    save_checkpoint(turned, tmp_path / "turned.safetensors")
    assert load_checkpoint(tmp_path / "turned.safetensors").digest == turned.digest == trained.digest


def test_shipped_network_is_found_by_name(path, trained, monkeypatch):
    monkeypatch.setattr(module, "PRETRAINED", path.parent)
    assert load_checkpoint("net").digest == trained.digest
    assert refused("nte").endswith("there is no checkpoint file nte, nor a shipped network of that name (shipped: net)")


SHIPPED = {
    "resnet20-cifar10": "83138f5801b3dd934829251de571f8abb76492aaf7ccfaa510a44779abf83d5f",
    "resnet20-cifar10-basic": "05eae52dbd306cb481365437a7bd5a1dbcc9ca119606b91e670553d2c916f789",
    "resnet20-cifar10-constraint1": "b1eaeb851dc2e8722b1d2684948b173fad7b53350ca9b95d15e7b1ea1c35f918",
    "resnet20-cifar10-steps16": "77bc6fb4681d313776ddc9904bffee24a749b4923230ba31bf46f7bc9bc0c2c1",
    "resnet34-imagenette": "e78b1dd30ea745a7647c9d83d3704ca3d9e2cbcb12f857ae1611782c8c72734d",
    "vgg16-cifar10": "4c952770eb55078152f7bcf99198905fc8f0874d329c6a6548229c7f0798d903",
    "vgg16-imagenette": "096ac4e626789a7899be489cae406d900e75304bcb83f71172ce43fa694b33e0",
}


def test_shipped_networks_are_those_that_thresholds_and_results_name():
    files = module.shipped_networks()
    assert {file.stem: load_checkpoint(file).digest for file in files} == SHIPPED


def test_every_shipped_conversion_belongs_to_its_network():
    files = sorted(module.PRETRAINED.glob("*.conversion.safetensors"))
    assert files
    for file in files:
        name = file.name.split(".")[0]
        conversion = load_conversion(file, load_checkpoint(name))
        assert conversion.coding == "current" and not conversion.fires("output")


# Input coding and identity


def test_images_are_centred_scaled_and_clipped(trained):
    coded = replace(trained, mean=np.full((1, 1, 3), 0.5, np.float32), gain=4.0)
    images = np.full((2, 4, 4, 3), 127, np.uint8)
    images[1, 0, :, 0] = 0, 102, 153, 255
    x = coded.encode(images)
    assert (x.dtype, x.shape) == (np.float32, images.shape)
    np.testing.assert_allclose(x[1, 0, :, 0], [-1, -0.4, 0.4, 1], atol=1e-6)
    np.testing.assert_allclose(x[0], 4 * (127 / 255 - 0.5), atol=1e-6)


def test_images_of_another_shape_are_refused(trained):
    with pytest.raises(UserError, match=r"small sees images of shape \(4, 4, 3\), got \(4, 5, 3\)"):
        trained.encode(np.zeros((2, 4, 5, 3), np.uint8))


def test_digest_changes_with_every_weight_and_the_input_coding(trained):
    changed = [replace(trained, gain=1.76), replace(trained, spec=replace(SPEC, name="other"))]
    for name, weight in trained.weights.items():
        for index in range(weight.size):
            other = weight.copy()
            other.flat[index] = np.nextafter(other.flat[index], np.float32(9))
            changed.append(replace(trained, weights={**trained.weights, name: other}))
    for index in range(trained.mean.size):
        mean = trained.mean.copy()
        mean.flat[index] += 1e-3
        changed.append(replace(trained, mean=mean))
    digests = {other.digest for other in changed} | {trained.digest}
    assert len(digests) == len(changed) + 1


def test_digest_is_that_of_the_network_not_of_its_history(trained):
    assert replace(trained, info={"epochs_trained": 3}).digest == trained.digest


# Files that are refused


@pytest.mark.parametrize("name", ["none.safetensors", "."])
def test_missing_file_and_folder_are_named(tmp_path, name):
    assert refused(tmp_path / name).startswith("there is no checkpoint file")


def test_text_and_file_cut_anywhere_are_refused(path):
    whole = path.read_bytes()
    cut = (whole[:length] for length in (*range(0, len(whole), 97), len(whole) - 1))
    for content in (b"weights of a very good network\n" * 20, *cut):
        path.write_bytes(content)
        assert "is truncated or no safetensors file" in refused(path)


def test_pickle_is_refused_and_never_executed(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    for name, write in (("torch", torch.save), ("pickle", lambda x, path: path.write_bytes(pickle.dumps(x)))):
        write(Payload(), tmp_path / name)
        assert "is truncated or no safetensors file" in refused(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    pickle.loads((tmp_path / "pickle").read_bytes())
    assert (tmp_path / "executed").exists()  # the payload would have shown


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn])
def test_foreign_safetensors_are_refused(path, dtype, metadata):
    save_torch_file({"layer.weight": torch.zeros(3).to(dtype)}, path, metadata)
    assert "is no checkpoint of this project" in refused(path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float64, torch.int8])
def test_weights_of_any_type_are_read(tmp_path, path, dtype):
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name).to(dtype) for name in file.keys()}  # noqa: SIM118
    save_torch_file(tensors, path, metadata)
    checkpoint = load_checkpoint(path)
    for name, tensor in tensors.items():
        found = checkpoint.mean if name == "input_mean" else checkpoint.weights[name]
        np.testing.assert_array_equal(found, tensor.float().numpy(), strict=True)


def test_what_people_have_is_taken(path, trained, tmp_path):
    """Torch parameters, NumPy scalars, any sequence of classes."""
    weights = {name: torch.nn.Parameter(torch.from_numpy(weight)) for name, weight in trained.weights.items()}
    theirs = Checkpoint(SPEC, weights, torch.from_numpy(trained.mean), np.float32(1.75), ["cat", "dog"], trained.info)
    save_checkpoint(theirs, tmp_path / "theirs.safetensors")
    assert load_checkpoint(tmp_path / "theirs.safetensors").digest == load_checkpoint(path).digest == trained.digest
    assert replace(trained, classes=range(2)).classes == ("0", "1")


@pytest.mark.parametrize(
    ("change", "dtype", "reason"),
    [
        ({"weights": {"conv1.weight": np.zeros(3)}}, np.float32, "projections differ (conv1.weight"),
        ({"gain": -1}, np.float32, "a positive gain, or one of each of 3 channels, has -1.0"),
        ({"classes": ("cat",)}, np.float32, "needs 2 classes, has 1"),
        ({"mean": np.zeros((5, 4, 3))}, np.float32, "input_mean has shape (5, 4, 3)"),
        ({"info": {"test_error": "low"}}, np.float32, "its test_error is no number but 'low'"),
        ("large", np.float16, "input_to_conv holds values that are not finite"),
    ],
)
def test_what_could_not_be_loaded_is_not_saved(trained, tmp_path, change, dtype, reason):
    if change == "large":
        change = {"weights": {name: weight + 1e6 for name, weight in trained.weights.items()}}
    with pytest.raises(UserError, match=re.escape(reason)):
        save_checkpoint(replace(trained, **change), tmp_path / "net.safetensors", dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["input_to_conv", "conv_to_output", "input_mean"])
def test_values_that_are_not_finite_are_refused(path, trained, name, value):
    spoilt = (trained.mean if name == "input_mean" else trained.weights[name]).copy()
    spoilt.flat[-1] = value
    rewrite(path, **{name: spoilt})
    assert f"{name} holds values that are not finite" in refused(path)


@pytest.mark.parametrize(
    ("tensor", "value", "reason"),
    [
        ("conv_to_output", None, "is not a checkpoint of small: projections differ (conv_to_output)"),
        ("conv_to_hidden", np.zeros(3, "f4"), "is not a checkpoint of small: projections differ (conv_to_hidden)"),
        ("conv_to_output", np.zeros((8, 2), "f4"), "conv_to_output has shape (8, 2), small needs (2, 8)"),
        ("input_mean", None, "its metadata do not describe a network ('input_mean')"),
    ],
)
def test_tensor_that_is_missing_surplus_or_of_another_shape_is_named(path, tensor, value, reason):
    rewrite(path, **{tensor: value})
    assert reason in refused(path)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        *product(("spec", "gain", "classes", "info"), (None, "", "{broken")),
        *(("spec", "7"), ("gain", "null"), ("gain", '"x"'), ("classes", "10")),
    ],
)
def test_broken_metadata_are_refused(path, entry, text):
    rewrite(path, {entry: text})
    assert "its metadata do not describe a network" in refused(path)


def test_contradictory_description_is_refused(path):
    contradictory = SPEC.to_dict()
    contradictory["projections"][0]["padding"] = 0
    rewrite(path, {"spec": json.dumps(contradictory)})
    assert "input_to_conv: gives 2x2, but conv is 4x4" in refused(path)


# Writing


def disk_full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("failing", ["os.replace", "pathlib.Path.write_bytes"])
def test_failed_write_leaves_the_old_file_and_nothing_else(path, trained, monkeypatch, failing):
    before = path.read_bytes()
    monkeypatch.setattr(failing, disk_full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(replace(trained, gain=2.0), path)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == before


def test_interrupted_write_leaves_no_partial_file(tmp_path, monkeypatch):
    whole = Path.write_bytes

    def interrupted(path: Path, content: bytes):
        whole(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "log.csv", "epoch,loss\n1,2.3\n")
    assert os.listdir(tmp_path) == []


def test_text_is_written_as_utf_8(tmp_path):
    write_atomically(tmp_path / "log.csv", "η,θ\n")
    assert (tmp_path / "log.csv").read_bytes() == "η,θ\n".encode()


def test_every_channel_may_have_a_gain_of_its_own(trained, tmp_path):
    """As torchvision's Normalize has a standard deviation for each."""
    std = np.array([0.25, 0.5, 1.0], np.float32)
    save_checkpoint(replace(trained, gain=1 / std), tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.gain == (4.0, 2.0, 1.0) and loaded.digest != trained.digest
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    expected = np.clip((images / np.float32(255) - trained.mean) / std, -1, 1)
    np.testing.assert_allclose(loaded.encode(images), expected, atol=1e-6)
    for gain in ((1.0, 2.0), (1.0, 0.0, 1.0)):
        with pytest.raises(UserError, match="a positive gain, or one of each of 3 channels, has"):
            save_checkpoint(replace(trained, gain=gain), tmp_path / "b.safetensors")
