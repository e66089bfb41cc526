"""Equalised networks compute the same, and their layers reach as high as was asked."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import run
from networks import NETWORKS, exact_weights, images, net, weights_of

from netspec.ann import ANN
from netspec.architectures.resnet import resnet20
from netspec.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from netspec.data import CIFAR10_CLASSES, samples
from netspec.equalise import equalise, joined, main, scaled
from netspec.errors import UserError
from netspec.spec import Projection


def network(name: str = "", **more) -> Checkpoint:
    spec = NETWORKS[name]() if name else resnet20(width=1 / 4)
    weights = weights_of(name) if name else exact_weights(spec)
    classes = CIFAR10_CLASSES if not name else tuple("abcdefghijkl"[: spec.output.size])
    return Checkpoint(spec, weights, np.full(3, 0.5, np.float32), 2.0, classes, **more)


def activations(checkpoint: Checkpoint, x: np.ndarray) -> dict[str, np.ndarray]:
    ann = ANN.of(checkpoint).double()
    found = ann.activations(torch.from_numpy(x.transpose(0, 3, 1, 2)).double())
    return {name: values.numpy() for name, values in found.items()}


def test_layers_that_identities_join_have_one_factor():
    spec = NETWORKS["residual-relay"]()
    first = joined(spec)
    assert {first[name] for name in ("stem", "junction1", "junction2")} == {"stem"}
    assert [first[name] for name in ("input", "branch1", "branch2", "output")] == [
        "input", "branch1", "branch2", "output"
    ]  # fmt: skip
    orchard = NETWORKS["orchard"]()
    assert all(joined(orchard)[p.post] == joined(orchard)[p.pre] for p in orchard.projections if p.kind == "window")


@pytest.mark.parametrize("peak", [1.0, 3.0])
@pytest.mark.parametrize("name", ["", "residual-if", "residual-relay"])
def test_scores_stay_and_largest_activations_are_as_asked(name, peak):
    before = network(name)
    x = images(before.spec, 6)
    after = equalise(before, x, peak, inside=0.25)
    was, now = activations(before, x), activations(after, x)
    np.testing.assert_allclose(now["output"], was["output"], rtol=1e-10)
    groups: dict[str, float] = {}
    for place, first in joined(before.spec).items():
        groups[first] = max(groups.get(first, 0), now[place].max())
        factor = np.abs(now[place]).max() / np.abs(was[place]).max()
        assert factor == pytest.approx(2.0 ** round(np.log2(factor)), rel=1e-6)
    for first, largest in groups.items():
        if first not in ("input", "output"):
            most = 1 if first.startswith("pre") else peak * 0.25 if "branch" in first else peak
            assert most / 2 < largest <= most * (1 + 1e-6), first


def test_biases_are_refused():
    with pytest.raises(UserError, match="it has biases"):
        equalise(network("residual-if", biases={"stem": np.ones(4, np.float32)}), images(NETWORKS["residual-if"](), 2))


def test_clips_go_along():
    spec = NETWORKS["residual-if"]()
    clipped = tuple(replace(p, clip=0.75) if p.name == "branch1" else p for p in spec.populations)
    before = replace(network("residual-if"), spec=replace(spec, populations=clipped))
    x = images(spec, 4)
    after = scaled(before, {"stem": 4, "junction1": 4, "junction2": 4, "branch1": 0.5, "branch2": 8})
    was, now = activations(before, x), activations(after, x)
    assert was["branch1"].max() == 0.75 and now["branch1"].max() == 0.375
    for name, factor in (("stem", 4), ("branch1", 0.5), ("junction1", 4), ("branch2", 8), ("output", 1)):
        np.testing.assert_allclose(now[name], factor * was[name], rtol=1e-10)


def test_max_pooling_inside_a_unit_goes_along():
    spec = net(
        "pooled",
        {"input": (4, 4, 3), "stem": (4, 4, 2), "a": (4, 4, 3), "m": (4, 4, 3), "j": (4, 4, 2), "output": (1, 1, 3)},
        Projection("input", "stem", kernel=3, padding=1),
        Projection("stem", "a", kernel=3, padding=1, residual=True),
        Projection("a", "m", kind="window", kernel=3, padding=1),
        Projection("m", "j", kernel=3, padding=1, residual=True),
        Projection("stem", "j", kind="identity"),
        Projection("j", "output", kind="dense", pool=4),
        pools=("m",),
    )
    before = Checkpoint(spec, exact_weights(spec), np.zeros(3, np.float32), 1.0, ("a", "b", "c"))
    x = images(spec, 4)
    was, now = (activations(c, x) for c in (before, equalise(before, x, 1.0, 0.25)))
    np.testing.assert_allclose(now["output"], was["output"], rtol=1e-10)
    assert 0.125 < now["a"].max() <= 0.25 and now["j"].max() <= 1


def test_silent_layers_are_refused():
    silent = network("residual-if")
    weights = {name: -np.abs(weight) if "branch2" in name else weight for name, weight in silent.weights.items()}
    with pytest.raises(UserError, match="branch2 is never active"):
        equalise(replace(silent, weights=weights), images(silent.spec, 2))


@pytest.fixture
def trained(tmp_path) -> Path:
    save_checkpoint(network(info={"test_error": 0.5}), tmp_path / "net.safetensors")
    return tmp_path / "net.safetensors"


def test_command_writes_an_equalised_network(trained, tmp_path):
    out = tmp_path / "new" / "equalised.safetensors"
    told = ["--checkpoint", trained, "--data", "cifar10-samples", "--images", 20, "--peak", 2, "--out", out]
    ended = run("equalise.py", main, *told)
    assert (ended.status, ended.out) == (0, f"written: {out}\n")
    before, after = load_checkpoint(trained), load_checkpoint(out)
    x = before.encode(samples().random(20, 0).images)
    assert after.digest == equalise(before, x, 2.0).digest != before.digest
    noted = {"from": before.digest, "source": samples().source, "peak": 2.0, "inside": 0.5, "images": 20, "seed": 0}
    assert after.info == {"test_error": 0.5, "equalised": noted}


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--checkpoint", "vgg16-cifar10"], "has no residual units whose thresholds must be 1"),
        (["--peak", 0], "--peak must be above 0 and at most 1000, got 0.0"),
        (["--inside", "nan"], "--inside must be at least 0.001 and at most 1, got nan"),
        (["--images", 21], "21 images were asked for"),
        (["--out", "none.json"], "the name of the file must end in .safetensors, got none.json"),
    ],
)
def test_mistake_at_the_keyboard_is_told_in_one_line(arguments, reason, trained, tmp_path):
    told = [
        "--checkpoint",
        trained,
        "--data",
        "cifar10-samples",
        "--images",
        20,
        "--out",
        tmp_path / "none.safetensors",
    ]
    run("equalise.py", main, *told, *arguments).assert_refused("equalise.py", reason)
    assert not (tmp_path / "none.safetensors").exists()


def test_the_network_itself_is_not_overwritten(trained):
    before = trained.read_bytes()
    told = ["--checkpoint", trained, "--data", "cifar10-samples", "--images", 20, "--out", trained]
    run("equalise.py", main, *told).assert_refused("equalise.py", f"{trained} is the network itself")
    assert trained.read_bytes() == before
