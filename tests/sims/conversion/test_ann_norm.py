"""ANN-model normalisation: ratios of the largest activations of the ANN become the thresholds."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import tiny_checkpoint
from networks import exact_weights, net, residual

from netspec.checkpoint import Checkpoint
from netspec.errors import UserError
from netspec.spec import Projection
from sims.conversion.ann_norm import ann_norm


def dyadic(n: int) -> np.ndarray:
    """Inputs whose sums are exact, in any order and any batch."""
    return (np.random.default_rng(0).integers(-8, 9, (n, 32, 32, 3)) / 8).astype(np.float32)


def activations(x: np.ndarray) -> dict[str, np.ndarray]:
    """The ANN by hand: rectified activations of each layer, (images, neurons)."""
    w = {name: torch.from_numpy(weight) for name, weight in tiny_checkpoint().weights.items()}
    image = torch.from_numpy(x).permute(0, 3, 1, 2)
    conv1_1 = F.conv2d(F.avg_pool2d(image, 2), w["input_to_conv1_1"], stride=2, padding=1).clamp(min=0)
    conv3_3 = F.conv2d(F.avg_pool2d(conv1_1, 2), w["conv1_1_to_conv3_3"], padding=1).clamp(min=0)
    conv5_3 = F.conv2d(conv3_3, w["conv3_3_to_conv5_3"], stride=2, padding=1).clamp(min=0)
    output = conv5_3.permute(0, 2, 3, 1).flatten(1) @ w["conv5_3_to_output"].T
    return {"conv1_1": conv1_1.flatten(1).numpy(), "conv3_3": conv3_3.flatten(1).numpy(),
            "conv5_3": conv5_3.flatten(1).numpy(), "output": output.numpy()}  # fmt: skip


@pytest.mark.parametrize("percentile", [100, 99, 80, 60])
def test_ann_norm_gives_ratios_of_successive_activations(percentile):
    checkpoint, x = tiny_checkpoint(), dyadic(150)
    scale = [1.0]
    for values in activations(x).values():
        scale.append(float(np.percentile(values.max(axis=0), percentile)))
    expected = [now / before for before, now in pairwise(scale)]
    found = ann_norm(checkpoint, x, percentile)
    assert list(found) == [population.name for population in checkpoint.spec.spiking]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-6)


@pytest.mark.parametrize("junction", ["if", "relay"])
def test_spikes_that_meet_must_stand_for_the_same(junction):
    spec = residual(junction)
    x = np.full((2, *spec.input.shape), 0.5, dtype=np.float32)
    with pytest.raises(UserError, match="the spikes that meet in junction1 stand for different activations"):
        ann_norm(Checkpoint(spec, exact_weights(spec), 0, 1, range(5)), x)


def test_relay_passes_the_scale_of_its_input_on():
    """A relay has no threshold: its value counts spikes of the layer before it, whatever their weights."""
    shapes = {"input": (2, 2, 1), "a": (2, 2, 2), "r": (2, 2, 3), "output": (1, 1, 2)}
    joined = (Projection("input", "a"), Projection("a", "r"), Projection("r", "output", kind="dense"))
    spec = net("relayed", shapes, *joined, relays="r")
    weights = {"input_to_a": np.full((2, 1, 1, 1), 3.0, np.float32), "a_to_r": np.full((3, 2, 1, 1), 5.0, np.float32)}
    weights["r_to_output"] = np.full((2, 12), 0.25, np.float32)
    x = np.array([0.5, 0.25, 0.25, 0.0], np.float32).reshape(1, 2, 2, 1)
    a = 3 * 0.5
    output = 0.25 * 3 * 5 * 2 * 3 * (0.5 + 0.25 + 0.25)
    assert ann_norm(Checkpoint(spec, weights, 0, 1, "ab"), x) == {"a": a, "output": output / a}
