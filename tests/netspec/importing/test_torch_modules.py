"""Networks as people write them in torch give the outputs of the module itself, and its classes in spikes."""

import warnings
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn, relu
from torch_networks import NETWORKS, network

from netspec.ann import ANN
from netspec.checkpoint import load_checkpoint, save_checkpoint
from netspec.errors import UserError
from netspec.importing import Coding, from_onnx, from_torch, import_torch
from netspec.importing.proof import MOST_DIFFERENCE, apart, compare
from sims.conversion.activations import from_activations
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

IMAGENET = Coding((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def images(n: int = 6, side: int = 16, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, side, side, channels), dtype=np.uint8)


def normalised(shown: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(shown.transpose(0, 3, 1, 2).copy()).float() / 255
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (IMAGENET.mean, IMAGENET.std))
    return (x - mean) / std


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_gives_its_own_outputs_and_its_class_in_spikes(name, tmp_path):
    module, shown = network(name), images()
    imported = import_torch(module, (3, 16, 16), IMAGENET)
    save_checkpoint(imported.checkpoint, tmp_path / "net.safetensors")
    net = load_checkpoint(tmp_path / "net.safetensors")
    assert net.digest == imported.checkpoint.digest and imported.difference < 1e-5
    with torch.no_grad():
        expected = module(normalised(shown))
    x = net.encode(shown)
    assert np.abs(x).max() <= 1 and net.classes == tuple("01234")
    with torch.no_grad():
        found = ANN.of(net)(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    ends = {"plain": lambda y: torch.softmax(y, 1), "functional": lambda y: torch.log_softmax(y, 1)}
    found = ends.get(name, lambda y: y)(found)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))

    conversion, steps = from_activations(net, x, 100), 256
    run = ReferenceSimulator(net.spec, net.weights, "subtract").run(RunInput.of(x, conversion, steps))
    assert (run.output_v[:, -1].argmax(1) == expected.argmax(1).numpy()).all()
    scores = ends.get(name, lambda y: y)(torch.from_numpy(run.output_v[:, -1] / steps))
    torch.testing.assert_close(scores, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


def test_channels_and_sizes_of_all_kinds():
    torch.manual_seed(0)
    grey = nn.Conv2d(1, 4, (5, 3), stride=(2, 1), padding=(0, 2))
    module = nn.Sequential(grey, nn.ReLU(), nn.MaxPool2d((2, 3), (1, 2)), nn.Flatten(), nn.Linear(4 * 4 * 7, 3))
    net = from_torch(module, (1, 13, 13), Coding(mean=(0.1307,), std=(0.3081,)), name="grey", classes="abc")
    assert (net.spec.name, net.spec.input.shape, net.classes) == ("grey", (13, 13, 1), ("a", "b", "c"))
    for shape in ((5, 9, 7), (2, 6, 30)):
        layers = (nn.Conv2d(shape[0], 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        assert from_torch(nn.Sequential(*layers), shape).spec.input.shape == (*shape[1:], shape[0])


def test_inputs_beyond_one_stay_whole_and_blue_may_come_first():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 14, 3)).eval()
    coding = Coding((104.0, 117.0, 123.0), (1.0,), scale=255, bgr=True)
    net, shown = from_torch(module, (3, 16, 16), coding), images()
    x = torch.from_numpy(shown[..., ::-1].transpose(0, 3, 1, 2).copy()).float()
    with torch.no_grad():
        expected = module(x - torch.tensor([104.0, 117, 123])[:, None, None])
        found = ANN.of(net)(torch.from_numpy(net.encode(shown).transpose(0, 3, 1, 2).copy()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    assert (np.abs(net.encode(shown)) <= 1).all()
    extreme = np.array([[[[0, 0, 0], [255, 255, 255]]]], dtype=np.uint8)
    whole = (extreme[..., ::-1] - np.array([104.0, 117, 123]))[..., ::-1] / 151
    padded = np.repeat(np.repeat(extreme, 16, 1), 8, 2)
    np.testing.assert_allclose(net.encode(padded)[0, 0, [0, 8]], whole[0, 0], atol=1e-6)  # nothing was clipped


class Spelt(nn.Module):
    """A convolution, and what a function makes of it."""

    def __init__(self, function, features: int = 8) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc, self.function = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(features, 10), function

    def forward(self, x):
        return self.function(self, x)


GAIN = torch.linspace(0.1, 3, 16).view(16, 1, 1)
TWO = (2, 2, 2, 2)
MASK = torch.tensor([0.0] * 9 + [-1e5])  # of a class that is not used
GREY = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1)
EACH = torch.linspace(-1, 2, 2048)  # a number for each of 8x16x16
SPELLINGS = {
    "repeated channels": (lambda n, x: n.fc((relu(n.conv(x)).repeat_interleave(2, 1) * GAIN).mean((2, 3))) + MASK, 16),
    "repeated image": (lambda n, x: n.fc(relu(n.conv((x[:, :1].expand(-1, 3, -1, -1) - GREY) / 0.3)).mean((2, 3))), 8),
    "tiles": (lambda n, x: n.fc(relu(n.conv(x)).repeat(1, 2, 1, 1).mean((2, 3))), 16),
    "dictionary": (lambda n, x: {"logits": n.fc(relu(n.conv(x)).mean((2, 3)))}, 8),
    "tuple": (lambda n, x: (n.fc(relu(n.conv(x)).mean((2, 3))), None), 8),
    "global maximum": (lambda n, x: n.fc(relu(n.conv(x)).amax((2, 3))), 8),
    "two maxima before a ReLU": (lambda n, x: n.fc(relu(F.max_pool2d(F.max_pool2d(n.conv(x), 2), 2)).mean((2, 3))), 8),
    "bound from above": (lambda n, x: n.fc(relu(n.conv(x)).clamp(max=1).mean((2, 3))), 8),
    "smaller of two": (lambda n, x: n.fc(torch.minimum(relu(n.conv(x)), torch.tensor(0.5)).mean((2, 3))), 8),
    "mean of a row": (lambda n, x: n.fc(relu(n.conv(x)).flatten(2).mean(-1)), 8),
    "means one after the other": (lambda n, x: n.fc(relu(n.conv(x)).mean(3).mean(2)), 8),
    "sums one after the other": (lambda n, x: n.fc(relu(n.conv(x)).sum(2, keepdim=True).sum((2, 3))), 8),
    "mean of columns": (lambda n, x: n.fc(relu(n.conv(x).permute(0, 2, 3, 1).mean(2)).mean(1)), 8),
    "mean of what stands first": (lambda n, x: n.fc(relu(n.conv(x)).flatten(2).mT.mean(1, True)[:, 0]), 8),
    "maximum of channels last": (lambda n, x: n.fc(relu(n.conv(x)).permute(0, 2, 3, 1).amax((1, 2))), 8),
    "pixels left out, zeros around": (lambda n, x: n.fc(relu(n.conv(F.pad(x[:, :, ::2, ::3], TWO))).mean((2, 3))), 8),
    "pixels left out before the ReLU": (lambda n, x: n.fc(relu(n.conv(x)[:, :, ::2, ::2]).mean((2, 3))), 8),
    "softmax of an image of one pixel": (lambda n, x: torch.softmax(n.conv(x).mean((2, 3), keepdim=True), 1), 8),
    "batch norm of a vector": (lambda n, x: n.fc(relu(n.conv(x)).flatten(1) * EACH - EACH.flip(0)), 2048),
    "twice, and of what has no ReLU": (
        lambda n, x: n.fc(((n.conv(x).flatten(1) + 1) * EACH - 0.5) / (1 + EACH**2)),
        2048,
    ),
    "of a vector that two layers take": (lambda n, x: sum_of_two(n, relu(n.conv(x)).flatten(1) * EACH), 2048),
    "of channels that stand last": (
        lambda n, x: n.fc(
            relu(F.max_pool2d(n.conv(F.pad(x, TWO)), 2)).permute(0, 2, 3, 1).flatten(1) * EACH[::2][:800]
        ),
        800,
    ),
    "of each pixel": (lambda n, x: n.fc((relu(n.conv(x)) * EACH.view(8, 16, 16)).mT.flatten(1)), 2048),
    "windows of zeros alone": (lambda n, x: n.fc(F.max_pool2d(F.pad(relu(n.conv(x)), TWO), 2).mean((2, 3))), 8),
}


def sum_of_two(n, y):
    return n.fc(y) + F.linear(0.5 * y, n.fc.weight.flip(1))


@pytest.mark.parametrize("name", SPELLINGS)
def test_other_spellings(name):
    module = Spelt(*SPELLINGS[name]).eval()
    net, shown = from_torch(module, (3, 16, 16)), images()
    with torch.no_grad():
        expected = module(torch.from_numpy(shown.transpose(0, 3, 1, 2).copy()).float() / 255)
        found = ANN.of(net)(torch.from_numpy(net.encode(shown).transpose(0, 3, 1, 2).copy()))
    expected = (
        expected["logits"] if isinstance(expected, dict) else expected[0] if isinstance(expected, tuple) else expected
    )
    found, expected = (torch.softmax(found, 1), expected.flatten(1)) if "softmax" in name else (found, expected)
    scale = expected.abs().amax(0)
    assert float(((found - expected).abs() / scale).max()) < 1e-3  # of each class, however large another one is


AFTER = torch.linspace(-1, 1, 64).view(8, 8, 1, 1)
POPULATIONS = {  # between the input and a last convolution, each with its bound
    "a window of one pixel": (lambda n, x: F.max_pool2d(relu(n.conv(x)), 1, 2), ["if"]),
    "a window of one pixel of a sum": (lambda n, x: relu(F.max_pool2d(n.conv(x), 1, 2)), ["if"]),
    "pixels left out of two convolutions": (lambda n, x: relu((n.conv(x) + n.conv(x.flip(1)))[:, :, ::2, ::3]), ["if"]),
    "the average of one pixel": (lambda n, x: F.avg_pool2d(relu(n.conv(x)), 1, 2), ["if"]),
    "zeros around a max pooling": (
        lambda n, x: F.max_pool2d(F.pad(relu(n.conv(x)), (1, 2, 1, 0)), 3, 2),
        ["if", "max"],
    ),
    "the average of what has no ReLU": (lambda n, x: F.avg_pool2d(n.conv(x), 2), ["relay"]),
    "a bound after the ReLU": (lambda n, x: relu(n.conv(x)).clamp(max=0.25), ["if 0.25"]),
    "the smaller of two": (lambda n, x: torch.minimum(relu(n.conv(x)), torch.tensor(0.25)), ["if 0.25"]),
    "a bound of one branch": (lambda n, x: bounded_too(relu(n.conv(x))), ["if", "if 0.25"]),
}


def bounded_too(y):
    return y + y.clamp(max=0.25)


@pytest.mark.parametrize("name", POPULATIONS)
def test_what_needs_no_neurons_of_its_own_gets_none(name):
    function, expected = POPULATIONS[name]
    module = Spelt(lambda n, x: n.fc(relu(F.conv2d(function(n, x), AFTER)).amax((2, 3))))
    imported = import_torch(module.eval(), (3, 16, 16))
    populations = imported.checkpoint.spec.populations[1:-3]
    assert [f"{p.kind} {p.clip:g}" if p.clip else p.kind for p in populations] == expected
    assert imported.difference < 1e-5


def test_a_sigmoid_at_the_end_is_dropped():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3), nn.Sigmoid())
    imported = import_torch(module.eval(), (3, 8, 8))
    assert imported.steps[-1].became == "dropped: it does not change the class"
    shown = images(side=8)
    with torch.no_grad():
        expected = module[:-1](torch.from_numpy(shown.transpose(0, 3, 1, 2).copy()).float() / 255)
        net = imported.checkpoint
        found = ANN.of(net)(torch.from_numpy(net.encode(shown).transpose(0, 3, 1, 2).copy()))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(6, 64, 1), (16, 8, 1), (2, 16, 3)])
def test_channels_of_torch_are_first(shape):
    flat = 4 * (shape[1] - 2) * shape[2]
    module = nn.Sequential(nn.Conv2d(shape[0], 4, (3, 1)), nn.ReLU(), nn.Flatten(), nn.Linear(flat, 5))
    assert from_torch(module.eval(), shape).spec.input.shape == (*shape[1:], shape[0])


@pytest.mark.parametrize("opset", [9, 13])
def test_batch_norms_of_old_files_are_those_of_evaluation(opset, tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 5))
    module[2].running_mean.uniform_(-1, 1)
    module[2].running_var.uniform_(0.5, 2)
    told = {"dynamo": False, "opset_version": opset, "do_constant_folding": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.zeros(1, 3, 8, 8),), tmp_path / "old.onnx", **told)
    assert from_onnx(tmp_path / "old.onnx").spec.input.shape == (8, 8, 3)


def test_a_mean_of_other_pixels_is_refused():
    with pytest.raises(UserError, match=r"a mean of 123\.675 is no pixel's, which are up to 1: give the scale"):
        Coding((123.675, 116.28, 103.53), (58.4, 57.1, 57.4)).checked(3)


def test_layers_may_be_called_as_objects_of_others_are_in_brian2():
    layers = {"conv": nn.Conv2d(3, 4, 3), "r1": nn.ReLU(), "conv_step": nn.Conv2d(4, 4, 3), "r2": nn.ReLU()}
    layers |= {"flat": nn.Flatten(), "fc": nn.Linear(4 * 12 * 12, 5)}
    net = from_torch(nn.Sequential(OrderedDict(layers)).eval(), (3, 16, 16))
    names = [population.name for population in net.spec.spiking]
    assert names[0] == "conv" and len(set(names)) == 3 and "conv_step" not in names


def test_the_user_s_module_stays_as_it_was():
    module = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 3)).double().train()
    assert from_torch(module, (3, 2, 2)).spec.output.size == 3
    assert module.training and module[2].weight.dtype == torch.float64


def test_a_class_of_huge_outputs_hides_no_difference_in_others():
    expected = torch.tensor([[0.2, 0.1, -1e5], [0.1, 0.2, -1e5]])
    wrong = expected + torch.tensor([0.01, 0, 0])
    assert apart(expected, expected) == 0
    assert apart(expected * (1 + 1e-6), expected) < MOST_DIFFERENCE < apart(wrong, expected)


class Deep(nn.Module):
    """An operation deep in a nested module."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.outer = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), inner))
        self.fc = nn.LazyLinear(3)

    def forward(self, x):
        return self.fc(torch.flatten(self.outer(x), 1))


class Gate(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(x.mean((2, 3), keepdim=True))


class Attention(nn.Module):
    def forward(self, x):
        tokens = x.flatten(2)
        return torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens


class Each(nn.Module):
    """Multiplies each pixel by a number of its own; then something follows."""

    def __init__(self, then) -> None:
        super().__init__()
        self.then = then

    def forward(self, x):
        return self.then(x * torch.linspace(1, 2, 14 * 14).view(14, 14))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(14 * 14, 5, batch_first=True)

    def forward(self, x):
        return self.rnn(x.flatten(2))[0]


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (nn.LeakyReLU(0.1), r"outer.1.1 .*LeakyRelu is not supported; train the network with ReLU in its place"),
        (nn.SiLU(), r"outer.1.1 .*Sigmoid is not supported here: spikes cannot be multiplied by a gate"),
        (nn.GELU(), r"outer.1.1 .*(Gelu|Erf) is not supported; .*train the network with ReLU in its place"),
        (nn.Tanh(), r"outer.1.1 .*Tanh is not supported"),
        (Gate(), r"outer.1.1 .*Sigmoid is not supported here: spikes cannot be multiplied by a gate"),
        (Attention(), r"outer.1.1 .*MatMul is not supported here: its weights depend on the image"),
        (Recurrent(), r"outer.1.1.*(GRU|Transpose|Slice|Gather).* not supported"),
        (nn.ConvTranspose2d(4, 2, 3), r"outer.1.1 .*ConvTranspose is not supported; only networks that classify"),
        (nn.GroupNorm(2, 4), r"outer.1.1 .* not supported"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), r"outer.1.1 .*the padding does not count at the borders"),
        (nn.AvgPool2d(3, 2, ceil_mode=True), r"outer.1.1 .*its last windows are incomplete \(ceil_mode\)"),
        (
            nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 4, 1)),
            r"outer.1.1.1 .*it comes after a max pooling of what may be negative, and no ReLU is",
        ),
        (Each(nn.Conv2d(4, 4, 1)), r"outer.1.1.then .*Conv .*: before it each pixel is multiplied by another number"),
        (Each(nn.ReLU()), r"outer.1.1.then .*Relu .*: before it each pixel is multiplied by another number"),
        (Each(nn.MaxPool2d(2)), r"outer.1.1.then .*MaxPool .*: before it each pixel is multiplied by another number"),
        (Each(lambda y: y + y.flip(1)), r"outer.1.1 .*: before it each pixel is multiplied by another number"),
        (Each(lambda y: y.permute(0, 2, 3, 1) @ torch.ones(4, 2)), r"outer.1.1 .*MatMul .*: before it each pixel is"),
        (nn.Sigmoid(), r"outer.1.1 .*Sigmoid is not supported here: spikes"),
        (nn.Hardtanh(-1, 1), r"outer.1.1 .*it clips at -1 and 1; only ReLUs"),
        (nn.ReflectionPad2d(1), r"outer.1.1 .*only zeros are put around an image"),
    ],
)
def test_what_cannot_be_converted_is_named_with_its_place(inner, message):
    module = Deep(inner).eval()
    with torch.no_grad():
        module(torch.zeros(1, 3, 16, 16))
    with pytest.raises(UserError, match=message) as caught:
        from_torch(module, (3, 16, 16))
    assert "\n" not in str(caught.value)


def test_bounds_are_those_of_the_module_when_it_is_read_again(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Hardtanh(0, 1), nn.Flatten(), nn.Linear(144, 3)).eval()
    module[0].weight.data *= 8  # many are above 1
    save_checkpoint(from_torch(module, (3, 8, 8)), tmp_path / "net.safetensors")
    network = load_checkpoint(tmp_path / "net.safetensors")
    x = torch.rand(20, 3, 8, 8)
    images = (255 * x).round().to(torch.uint8)
    with torch.no_grad():
        coded = torch.from_numpy(network.encode(images.permute(0, 2, 3, 1).numpy()).transpose(0, 3, 1, 2).copy())
        torch.testing.assert_close(ANN.of(network)(coded), module(images / 255), rtol=1e-4, atol=1e-4)


def test_a_module_that_cannot_be_copied_is_told():
    module = nn.Sequential(nn.utils.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), nn.Linear(144, 3))
    with torch.no_grad():
        module(torch.zeros(1, 3, 8, 8))
    with torch.enable_grad(), pytest.raises(UserError, match=r"^Sequential cannot be copied: .*remove_weight_norm"):
        module(torch.zeros(1, 3, 8, 8)).sum().backward()
        from_torch(module, (3, 8, 8))


def test_outputs_that_are_not_finite_are_no_proof():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)).eval()
    network = from_torch(module, (3, 2, 2))
    huge = {name: np.full_like(weights, 3e38) for name, weights in network.weights.items()}
    broken = replace(network, weights=huge, mean=np.zeros(3), biases={})
    with pytest.raises(UserError, match=r"outputs are not finite, where the source's are"):
        compare(broken, Coding().checked(3), [(module, [])], None)
    with pytest.raises(UserError, match=r"images are of shape \(4, 4, 3\), and the network's input of \(2, 2, 3\)"):
        from_torch(module, (3, 2, 2), images=np.zeros((1, 4, 4, 3), dtype=np.uint8))


def test_what_cannot_run_or_has_no_classes_is_told():
    with pytest.raises(UserError, match=r"^Conv2d does not run on an input of \(4, 8, 8\): "):
        from_torch(nn.Conv2d(3, 4, 3), (4, 8, 8))
    with pytest.raises(UserError, match=r"the network gives \(4, 6, 6\), and no number for each class"):
        from_torch(nn.Conv2d(3, 4, 3), (3, 8, 8))
    for shape in ((3, -8, 8), (3, 8)):
        with pytest.raises(UserError, match="the shape of an input is three numbers"):
            from_torch(nn.Conv2d(3, 4, 3), shape)
    with pytest.raises(UserError, match=r"a torch module is needed, not an object of type type"):
        from_torch(nn.ReLU, (3, 8, 8))
    with pytest.raises(UserError, match=r"the network gives one number, and a class is the largest of several"):
        from_torch(nn.Sequential(nn.Flatten(), nn.Linear(12, 1), nn.Sigmoid()), (3, 2, 2))
    two = Spelt(lambda n, x: (n.fc(relu(n.conv(x)).mean((2, 3))), x))
    with pytest.raises(UserError, match="a network with one output is needed, this one has 2"):
        from_torch(two, (3, 8, 8))
    with pytest.raises(UserError, match=r"2 classes, but the network has 3 outputs"):
        from_torch(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), (3, 2, 2), classes="ab")
    broken = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    nn.init.constant_(broken[1].weight, torch.nan)
    with pytest.raises(UserError, match=r"input_to_output holds values that are not finite"):
        from_torch(broken, (3, 2, 2))
