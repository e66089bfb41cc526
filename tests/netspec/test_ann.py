"""The torch module of a NetSpec."""

from math import prod, sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import NETWORKS, net, pair, weights_of
from networks import images as shown
from torch import nn

from netspec.ann import ANN, RMSScale, ann_activations, in_steps
from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.errors import UserError
from netspec.spec import NetSpec, Projection
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput


def chain(dropout: float = 0.0) -> NetSpec:
    """VGG in small; height and width differ."""
    shapes = {"input": (8, 4, 3), "conv1": (8, 4, 4), "conv2": (8, 4, 6), "conv3": (4, 2, 5), "dense": (1, 1, 7)}
    return net(
        "chain",
        shapes | {"output": (1, 1, 3)},
        Projection("input", "conv1", kernel=3, padding=1),
        Projection("conv1", "conv2", kernel=3, padding=1),
        Projection("conv2", "conv3", kernel=3, padding=1, pool=2),
        Projection("conv3", "dense", kind="dense", pool=2),
        Projection("dense", "output", kind="dense"),
        dropout=("conv1", "dense"),
        rate=dropout,
    )


def residual() -> NetSpec:
    """A junction of a residual branch and a strided type-A shortcut, with a relay for a junction."""
    return net(
        "residual",
        {"input": (4, 4, 2), "branch": (4, 4, 3), "junction": (2, 2, 5), "output": (1, 1, 2)},
        Projection("input", "branch", kernel=3, padding=1, residual=True),
        Projection("branch", "junction", kernel=3, padding=1, stride=2, residual=True),
        Projection("input", "junction", kind="identity", stride=2),
        Projection("junction", "output", kind="dense", pool=2),
        relays=("junction",),
    )


def images(spec: NetSpec, n: int = 4) -> torch.Tensor:
    height, width, channels = spec.input.shape
    return torch.rand(n, channels, height, width) * 2 - 1


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


# Forward


def test_forward_equals_plain_torch_layers():
    spec = chain(dropout=0.5)
    plain = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(10, 7, bias=False), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(7, 3, bias=False),
    ).eval()
    weights = [parameter.detach().numpy() for parameter in plain.parameters()]
    weights[3] = weights[3].reshape(7, 5, 2, 1).transpose(0, 2, 3, 1).reshape(7, 10)  # Flatten runs over c, y, x
    ann = ANN.from_weights(spec, dict(zip((p.name for p in spec.projections), weights, strict=True)))
    x = images(spec)
    torch.testing.assert_close(ann(x), plain(x))


def test_dense_weights_run_over_y_x_channel_on_both_sides():
    pre, post = (2, 3, 4), (3, 2, 5)
    spec = pair(pre, post, kind="dense")
    weight = np.zeros((prod(post), prod(pre)), np.float32)
    weight[np.ravel_multi_index((2, 0, 3), post), np.ravel_multi_index((1, 2, 0), pre)] = 1
    x = images(spec)
    output = ANN.from_weights(spec, {"input_to_output": weight}).activations(x)["output"]
    expected = torch.zeros(4, 5, 3, 2)
    expected[:, 3, 2, 0] = x[:, 0, 1, 2]
    torch.testing.assert_close(output, expected)


def test_identity_is_a_type_a_shortcut():
    spec = pair((5, 4, 2), (3, 2, 5), kind="identity", stride=2)
    x = images(spec)
    output = ANN(spec).activations(x)["output"]
    assert output.shape == (4, 5, 3, 2)
    torch.testing.assert_close(output[:, :2], x[:, :, [0, 2, 4]][:, :, :, [0, 2]])
    assert not output[:, 2:].any()


def test_pooled_identity_averages_first():
    spec = pair((4, 4, 1), (1, 1, 1), kind="identity", pool=2, stride=2)
    x = images(spec)
    torch.testing.assert_close(ANN(spec)(x), x[:, :, :2, :2].mean(dim=(2, 3)))


def test_smaller_images_are_averaged_to_the_positions_of_the_dense_layer():
    """Of residual(): over all pixels of the junction, however few; of chain(): to 2x1, by windows that overlap."""
    ann, small = ANN(residual()), torch.rand(3, 2, 2, 2)
    expected = ann.activations(small)["junction"].mean((2, 3)) @ ann.weights["junction_to_output"].T
    torch.testing.assert_close(ann(small), expected)
    spec = chain()
    ann, small = ANN(spec), torch.rand(3, 3, 6, 2)
    third = ann.activations(small)["conv3"]
    assert third.shape[2:] == (3, 1)
    rows = torch.stack([third[:, :, :2].mean((2, 3)), third[:, :, 1:].mean((2, 3))], dim=1).flatten(1)
    expected = torch.relu(rows @ ann.weights["conv3_to_dense"].T) @ ann.weights["dense_to_output"].T
    torch.testing.assert_close(ann(small), expected)


def test_junction_adds_its_projections_and_a_relay_has_no_relu():
    spec = residual()
    ann = ANN(spec).eval()
    x = images(spec)
    values = ann.activations(x)
    weight = ann.weights["branch_to_junction"].detach()
    expected = torch.conv2d(values["branch"], weight, stride=2, padding=1)
    expected[:, :2] += x[:, :, ::2, ::2]
    torch.testing.assert_close(values["junction"], expected)
    assert values["junction"].min() < 0


def test_every_relu_but_the_outputs_is_applied():
    spec = chain()
    values = ANN(spec).eval().activations(images(spec, 20))
    assert list(values) == [population.name for population in spec.populations]
    assert all(values[name].min() == 0 for name in ("conv1", "conv2", "conv3", "dense"))
    assert values["output"].min() < 0


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_unit_weights_reach_as_many_neurons_as_the_fan_out_says(data):
    """The gradient of the summed output at weights of one is fan-out / pool**2: torch and NetSpec agree."""
    kind, pool = data.draw(st.sampled_from(("conv", "identity"))), data.draw(st.integers(1, 3))
    stride, padding = data.draw(st.integers(1, 3)), data.draw(st.integers(0, 2)) if kind == "conv" else 0
    kernel = data.draw(st.integers(1, 2 + padding)) if kind == "conv" else 1
    rows, columns = data.draw(st.integers(2, 6)), data.draw(st.integers(2, 6))
    out = [(n + 2 * padding - kernel) // stride + 1 for n in (rows, columns)]
    options = {"kind": kind, "pool": pool, "stride": stride, "padding": padding, "kernel": kernel}
    spec = pair((rows * pool, columns * pool, 2), (out[0], out[1], 3), **options)
    ones = {p.name: np.ones(spec.weight_shape(p), np.float32) for p in spec.projections if p.weighted}
    x = images(spec, 1).requires_grad_()
    ANN.from_weights(spec, ones)(x).sum().backward()
    reached = (x.grad[0].permute(1, 2, 0) * pool**2).round().numpy()
    np.testing.assert_array_equal(reached, spec.fan_out(spec.projections[0]))


# Dropout and initialisation


def test_dropout_masks_its_population_in_training_only():
    spec = chain(dropout=0.5)
    ann, x = ANN(spec), images(spec, 50)
    whole = ann.eval().activations(x)["conv1"]
    masked = ann.train().activations(x)["conv1"]
    kept = masked != 0
    torch.testing.assert_close(masked[kept], 2 * whole[kept])
    assert kept.sum() / (whole != 0).sum() == pytest.approx(0.5, abs=0.03)


def spread(spec: NetSpec, init: str) -> float:
    return ANN(spec, init=init).weights["input_to_output"].std().item()


def test_paper_initialisation_has_the_papers_standard_deviations():
    """Section 7.1, n output channels: sqrt(2 / (k**2 n)), and sqrt(2) / (k**2 n) in residual branches."""
    conv, branch = (pair((4, 4, 64), (4, 4, 32), kernel=3, padding=1, residual=residual) for residual in (False, True))
    assert spread(conv, "paper") == pytest.approx(sqrt(2 / (9 * 32)), rel=0.02)
    assert spread(branch, "paper") == pytest.approx(sqrt(2) / (9 * 32), rel=0.02)
    assert spread(pair((2, 2, 50), (1, 1, 300), kind="dense"), "paper") == pytest.approx(sqrt(2 / 300), rel=0.02)


def test_he_initialisation_counts_inputs():
    conv = pair((4, 4, 64), (4, 4, 32), kernel=3, padding=1)
    assert spread(conv, "he") == pytest.approx(sqrt(2 / (9 * 64)), rel=0.02)
    assert spread(pair((2, 2, 50), (1, 1, 300), kind="dense"), "he") == pytest.approx(sqrt(2 / 200), rel=0.02)


def test_unknown_initialisation_is_refused():
    with pytest.raises(ValueError, match="'xavier' is neither 'he' nor 'paper'"):
        ANN(chain(), init="xavier")


def test_network_has_neither_bias_nor_batch_norm():
    ann = ANN(chain())
    shapes = {f"weights.{p.name}": chain().weight_shape(p) for p in chain().projections}
    assert {name: tuple(p.shape) for name, p in ann.named_parameters()} == shapes
    assert not dict(ann.named_buffers())


# Scale-only normalisation


def test_scale_brings_each_channel_to_unit_mean_square_in_training():
    scale = RMSScale(3)
    x = torch.randn(50, 3, 4, 5) * torch.tensor([0.1, 1.0, 10.0]).view(1, 3, 1, 1) + 1
    y = scale(x)
    torch.testing.assert_close(y.square().mean(dim=(0, 2, 3)), torch.ones(3), rtol=1e-2, atol=0)
    torch.testing.assert_close(y / y[:1, :, :1, :1], x / x[:1, :, :1, :1])  # nothing is added
    expected = 0.9 + 0.1 * x.square().mean(dim=(0, 2, 3))
    torch.testing.assert_close(scale.mean_square, expected)
    before = scale.mean_square.clone()
    scale.eval()(x)
    torch.testing.assert_close(scale.mean_square, before, rtol=0, atol=0)


def trained_a_little(spec: NetSpec) -> ANN:
    """A network of centred weights whose scales have gains and mean squares of their own."""
    ann = ANN(spec, rms_scale=True, centred=True)
    for scale in ann.scales.values():
        nn.init.uniform_(scale.gain, 0.5, 2.0)
        nn.init.uniform_(scale.mean_square, 0.1, 3.0)
    return ann.eval()


@pytest.mark.parametrize("spec", [chain(), residual()], ids=lambda spec: spec.name)
def test_folded_weights_give_the_outputs_of_the_scaled_network(spec):
    ann = trained_a_little(spec)
    x = images(spec)
    folded = ANN.from_weights(spec, ann.folded())
    assert not folded.scales and not folded.training
    expected = ann.activations(x)
    for name, value in folded.activations(x).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(ANN.from_weights(spec, plain_weights(ann))(x), ann(x), rtol=1e-2)


def test_folding_reaches_a_dense_layer_of_more_than_one_pixel():
    joined = Projection("input", "map", kind="dense"), Projection("map", "out", kind="dense")
    spec = net("map", {"input": (2, 2, 3), "map": (2, 3, 4), "out": (1, 1, 2)}, *joined)
    ann = trained_a_little(spec)
    x = images(spec)
    torch.testing.assert_close(ANN.from_weights(spec, ann.folded())(x), ann(x), rtol=1e-4, atol=1e-5)


def test_every_weighted_projection_but_the_last_is_scaled():
    assert set(ANN(chain(), rms_scale=True).scales) == {p.name for p in chain().projections[:-1]}
    assert set(ANN(residual(), rms_scale=True).scales) == {"input_to_branch", "branch_to_junction"}


def test_centred_weights_are_blind_to_what_all_inputs_share():
    """Those from the input, which is signed, and into the output are left alone."""
    ann = ANN(chain(), centred=True)
    first, *middle, last = (projection.name for projection in chain().projections)
    folded, plain = ann.folded(), plain_weights(ann)
    for name in (first, last):
        np.testing.assert_array_equal(folded[name], plain[name])
    for name in middle:
        over = tuple(range(1, folded[name].ndim))
        np.testing.assert_allclose(folded[name].sum(over), 0, atol=1e-5)
        np.testing.assert_allclose(folded[name], plain[name] - plain[name].mean(over, keepdims=True), atol=1e-6)


def plain_weights(ann: ANN) -> dict[str, np.ndarray]:
    return {name: weight.detach().numpy() for name, weight in ann.weights.items()}


def test_folding_without_scales_returns_copies_of_the_weights():
    ann = ANN(chain())
    folded = ann.folded()
    for name, weight in plain_weights(ann).items():
        np.testing.assert_array_equal(folded[name], weight)
        assert folded[name].dtype == np.float32
        assert not np.shares_memory(folded[name], weight)


def test_activations_of_images_are_those_of_what_the_network_sees_of_them():
    spec, rng = chain(), np.random.default_rng(0)
    weights = {p.name: rng.normal(size=spec.weight_shape(p)).astype(np.float32) for p in spec.projections}
    checkpoint = Checkpoint(spec, weights, np.zeros(1, np.float32), 1.0, ("a", "b", "c"))
    pictures = rng.integers(0, 256, (2, *spec.input.shape), dtype=np.uint8)
    x = torch.from_numpy(checkpoint.encode(pictures).transpose(0, 3, 1, 2).copy())
    expected, found = ANN.from_weights(spec, weights).activations(x), ann_activations(checkpoint, pictures)
    assert list(found) == list(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name].numpy())


# In time steps


@pytest.mark.parametrize("delay", [0.0, 0.5])
@pytest.mark.parametrize("network", ["vgg", "residual-if", "residual-relay", "wide"])
def test_activations_in_time_steps_are_the_rates_of_the_spiking_network(network, delay):
    spec, weights, steps = NETWORKS[network](), weights_of(network), 12
    unread, read = int(delay * steps), steps - int(delay * steps)
    ann = ANN(spec, time_steps=steps, delay=delay).eval()
    ann.load_weights(weights)
    for number, bound in enumerate(ann.bounds.values()):
        bound.data.fill_([0.5, 2.0, 1.0][number % 3])
    bounds = {name: bound.item() for name, bound in ann.bounds.items()}
    x = np.round(4 * shown(spec)) / 4
    half = {name: bound / 2 for name, bound in bounds.items()}
    classes = tuple("abcdefghijkl"[: spec.output.size])
    network = Checkpoint(spec, weights, np.zeros(spec.input.shape[2], np.float32), 1.0, classes)
    conversion = Conversion.in_activations(network, "bounds", bounds, initial=half)
    simulator = ReferenceSimulator(spec, weights, "subtract")
    recording, begin = (simulator.run(RunInput.of(x, conversion, end)) for end in (steps, max(unread, 1)))
    found = ann.activations(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    fired = 0
    for name, bound in bounds.items():
        late = recording.spike_counts(name) - (begin.spike_counts(name) if unread else 0)
        rates = late * bound / read
        np.testing.assert_allclose(found[name].permute(0, 2, 3, 1), rates, rtol=1e-6)
        fired += np.count_nonzero(rates)
    assert fired > 50
    late = recording.output_v[:, -1] - (begin.output_v[:, -1] if unread else 0)
    np.testing.assert_allclose(found["output"].flatten(1), late / read, rtol=1e-5, atol=1e-6)


def test_gradients_in_time_steps_are_those_of_clipped_relus_given_rates():
    spec = chain()
    clipped, stepped = ANN(spec, levels=1), ANN(spec, time_steps=5)
    clipped.levels = 0
    stepped.load_state_dict(clipped.state_dict())
    x = images(spec)
    with stepped.as_saved():
        torch.testing.assert_close(stepped(x), clipped(x))
    seen = stepped._run(x)
    assert not torch.equal(seen["conv2"], clipped._run(x)["conv2"])
    seen["conv2"].sum().backward()
    first, second = (spec.projections[number].name for number in (0, 1))
    inner = clipped._project(spec.projections[0], x)
    inner = clipped._rectified(spec["conv1"], inner)
    rates = (seen["conv1"].detach() + inner - inner.detach()).requires_grad_()
    clipped._rectified(spec["conv2"], clipped._project(spec.projections[1], rates)).sum().backward()
    for name in (first, second):
        torch.testing.assert_close(stepped.weights[name].grad, clipped.weights[name].grad)
    for name in ("conv1", "conv2"):
        torch.testing.assert_close(stepped.bounds[name].grad, clipped.bounds[name].grad)


@pytest.mark.parametrize(("threshold", "unread"), [(1.0, 0), (0.625, 3)])
def test_surrogate_gradients_follow_the_potential(threshold, unread):
    """Against derivatives carried along with potentials, step by step."""
    arrived, steps = np.random.default_rng(0).normal(0.1, 0.4, (8, 50)).astype(np.float32), 8
    scale = torch.ones(50, requires_grad=True)
    _, rates = in_steps((torch.from_numpy(arrived) * scale).flatten(), torch.tensor(threshold), steps, unread)
    rates.sum().backward()
    v, slope, expected = np.full(50, threshold / 2), np.zeros(50), np.zeros(50)
    for step in range(steps):
        v, slope = v + arrived[step], slope + arrived[step]
        of_spike = slope / threshold * np.maximum(0, 1 - np.abs(v / threshold - 1))
        v, slope = v - threshold * (v >= threshold), slope - threshold * of_spike
        expected += of_spike * threshold / (steps - unread) * (step >= unread)
    np.testing.assert_allclose(scale.grad, expected, rtol=1e-4, atol=1e-6)
    assert (expected != 0).sum() > 40


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("describe", [chain, NETWORKS["residual-if"]])
def test_rates_are_the_same_however_gradients_go(describe, bf16):
    spec = describe()
    x = torch.from_numpy(shown(spec).transpose(0, 3, 1, 2).copy())
    tandem, surrogate = ANN(spec, time_steps=5), ANN(spec, time_steps=5, surrogate=True)
    surrogate.load_state_dict(tandem.state_dict())
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        scores = [ann(x) for ann in (tandem, surrogate)]
        with torch.no_grad():
            scores += [ann(x) for ann in (tandem, surrogate)]
    for other in scores[1:]:
        torch.testing.assert_close(other, scores[0], rtol=0, atol=0)
    for score in scores[:2]:
        score.square().sum().backward()
    gradients = [(w.grad, surrogate.weights[name].grad) for name, w in tandem.weights.items()]
    assert all(first.any() and second.any() for first, second in gradients)
    assert not torch.equal(*gradients[0])


def test_time_steps_are_not_mixed_with_what_they_cannot_have():
    for spec, other in ((chain(), {"levels": 4}), (chain(), {"rms_scale": True}), (NETWORKS["orchard"](), {})):
        with pytest.raises(UserError, match="without levels, RMS scales, max pooling"):
            ANN(spec, time_steps=16, **other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_steps_are_the_same_compiled_and_as_precise_as_their_spikes(dtype):
    compiled = torch.compile(in_steps, dynamic=True, backend="aot_eager")
    for seed, shape in enumerate([(12, 3, 4, 4), (24, 2, 2, 6)]):
        arriving = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
        for bound in (1.0035, 0.3):
            spikes, rates = in_steps(arriving, torch.tensor(bound), 6)
            worth = torch.tensor(bound).to(dtype)
            assert set(spikes.unique().tolist()) == {0, worth.item()} and spikes.shape == shape
            count = (spikes > 0).unflatten(0, (6, -1)).sum(0)
            torch.testing.assert_close(rates, (count / 6 * worth.float()).to(dtype))
            for found, expected in zip(compiled(arriving, torch.tensor(bound), 6), (spikes, rates), strict=True):
                torch.testing.assert_close(found, expected)
            v = worth.float() / 2 + arriving[: len(arriving) // 6].float()
            assert torch.equal(spikes[: len(v)] > 0, v >= worth.float())
