"""The command: files of modules, weights and graphs in, a checkpoint out, or one line."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from commands import ROOT, Ended, files, run, save_image
from safetensors.torch import save_file
from torch import nn

from netspec.checkpoint import load_checkpoint
from netspec.importing.__main__ import main, operations_table

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * 4 * 4, 2)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.norm(self.conv(x))), 2)
        return torch.softmax(self.fc(x.flatten(1)), 1)

def build():
    return Net()

net = Net()
number = 3
needy = lambda width: net
gated = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.SiLU()), nn.Flatten(), nn.Linear(4 * 36, 2))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("model.py").write_text(MODEL)
    space: dict = {}
    exec(MODEL, space)
    torch.manual_seed(0)
    net = space["Net"]()
    torch.save(net.state_dict(), "plain.pt")
    parallel = {f"module.{name}": value for name, value in net.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": parallel}, "ddp.pth")
    save_file(net.state_dict(), "plain.safetensors")
    old = {f"model.{name}": value for name, value in net.state_dict().items() if "num_batches" not in name}
    torch.save({"state_dict": old, "global_step": 3}, "lightning.ckpt")
    torch.save(nn.Linear(2, 2), "whole.pt")
    other = net.state_dict() | {"fc.weight": torch.zeros(2, 32)}
    torch.save(other, "other.pt")
    torch.save({name: value for name, value in net.state_dict().items() if name != "fc.bias"}, "short.pt")
    torch.save(net.state_dict() | {"fc.bias": torch.full((2,), torch.nan)}, "nan.pt")
    Path("noise.pt").write_bytes(b"no weights at all")
    Path("noise.onnx").write_bytes(b"\x07no graph")
    Path("empty.onnx").write_bytes(b"")
    Path("broken.py").write_text("import nothing_of_that_name\n")
    Path("classes.txt").write_text("cat\ndog\n")
    Path("same.txt").write_text("cat\ncat\n")
    Path("none.txt").write_text("\n")
    torch.save({1: torch.zeros(2)}, "numbers.pt")
    lazy = "nn.Sequential(nn.Conv2d(5, 2, 1), nn.LazyLinear(2))"
    Path("lazy.py").write_text(f"from torch import nn\nnet = {lazy}\n")
    torch.save({"1.weight": torch.zeros(2, 2)}, "lazy.pt")
    Path("leaves.py").write_text("raise SystemExit(3)\n")
    Path("types.py").write_text("net = 3\n")  # the name of one of Python's own
    return tmp_path


def bring(*arguments: object) -> Ended:
    return run("importing", main, *arguments)


@pytest.mark.parametrize("weights", ["plain.pt", "ddp.pth", "plain.safetensors", "lightning.ckpt"])
@pytest.mark.parametrize("name", ["Net", "build", "net"])
def test_modules_and_weights_of_all_kinds_give_the_same_network(folder, name, weights):
    options = ("--weights", weights, "--input", 3, 8, 8, "--classes", "classes.txt", "--out", "n.safetensors")
    ended = bring(f"model.py:{name}", *options)
    assert ended.status == 0 and ended.err == "", ended
    network = load_checkpoint("n.safetensors")
    assert network.classes == ("cat", "dog") and network.spec.name == "Net"
    kinds = {population.name: population.kind for population in network.spec.populations}
    assert kinds == {"input": "input", "norm": "if", "max_pool2d": "max", "output": "if"}
    state = torch.load("plain.pt", weights_only=True)
    scale = state["norm.weight"] / torch.sqrt(state["norm.running_var"] + 1e-5)
    np.testing.assert_allclose(network.biases["norm"], state["conv.bias"] * scale, rtol=1e-5)
    assert "dropped: it does not change the class" in ended.out
    assert re.search(r"differ by \d\.\de-0\d of the largest", ended.out)


REFUSED = {
    "leaves.py:net": "leaves.py cannot be run: SystemExit: 3",
    "types.py:net --input 3 9 9": "types.py:net is no torch module but of type int",
    "model.py": "model.py is neither FILE.py:NAME nor FILE.onnx nor FILE.nir",
    "gone.py:net": "there is no file gone.py",
    "model.py:Nat": "model.py has no Nat",
    "model.py:number": "model.py:number is no torch module but of type int",
    "model.py:needy": "model.py:needy cannot be called without arguments",
    "broken.py:net": "broken.py cannot be run: ModuleNotFoundError: No module named 'nothing_of_that_name'",
    "model.py:net --weights gone.pt": "there is no file gone.pt",
    "model.py:net --weights noise.pt": "noise.pt holds ",
    "model.py:net --weights whole.pt": "whole.pt holds more than weights, which is not read: save module.state_dict()",
    "model.py:net --weights other.pt": "weights of another network than Net: fc.weight has shape (2, 32), not (2, 64)",
    "model.py:net --weights short.pt": "weights of another network than Net: it lacks fc.bias",
    "model.py:net --weights nan.pt": "nan.pt: fc.bias holds values that are not finite",
    "model.py:net --classes same.txt": "same.txt: some classes have the same name",
    "model.py:net --classes none.txt": "none.txt names no classes",
    "model.py:net --weights numbers.pt": "numbers.pt is no state dict, names and tensors",
    "lazy.py:net --weights lazy.pt": "Sequential does not run on an input of (3, 8, 8): ",
    "model.py:net --data cifar10-samples": "the images are of shape (32, 32, 3), and the network's input of (8, 8, 3)",
    "model.py:net --classes gone.txt": "cannot read the classes gone.txt",
    "model.py:net --classes cifar10": "10 classes, but the network has 2 outputs",
    "model.py:net --mean 0.5 0.5": "mean has 2 numbers, the network sees 3 channels",
    "model.py:net --std 0": "mean and std must be finite numbers, std positive",
    "model.py:net --scale 0": "the scale must be a positive number",
    "model.py:gated": "1.0 (silu): Sigmoid is not supported here: spikes cannot be multiplied by a gate",
    "noise.onnx": "noise.onnx is no ONNX graph, or damaged",
    "empty.onnx": "empty.onnx is no ONNX graph: it holds no operations",
    "gone.onnx": "there is no file gone.onnx",
    "noise.onnx --weights plain.pt": "--weights are for torch modules; an ONNX file has its own",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_cannot_be_brought_in_is_told_in_a_line_and_nothing_is_written(folder, arguments):
    before = files(folder)
    ended = bring(*arguments.split(), "--input", 3, 8, 8, "--out", "n.safetensors")
    ended.assert_refused("importing", REFUSED[arguments])
    assert {name: content for name, content in files(folder).items() if "__pycache__" not in name} == before


def test_options_that_belong_together(folder):
    bring("model.py:net", "--out", "n.safetensors").assert_refused("importing", "a torch module needs --input C H W")
    ended = bring("model.py:net", "--input", 3, 8, 8, "--out", "n.pt")
    ended.assert_refused("importing", "the name of the file must end in .safetensors")


def test_weights_are_not_overwritten(folder):
    before = Path("plain.safetensors").read_bytes()
    options = ("--weights", "plain.safetensors", "--input", 3, 8, 8, "--out", folder / "plain.safetensors")
    bring("model.py:Net", *options).assert_refused("importing", "would overwrite the weights; give another --out")
    assert Path("plain.safetensors").read_bytes() == before


def test_outputs_are_compared_on_some_images_of_any_folder(folder):
    for k in range(20):
        save_image(folder / "photos" / f"class{k % 3}" / f"{k}.png", np.full((8, 8, 3), k, np.uint8))
    ended = bring("model.py:net", "--input", 3, 8, 8, "--data", "photos", "--out", "n.safetensors")
    assert ended.status == 0 and "images of noise and 16 of yours" in ended.out, ended


def test_onnx_files_come_in_as_torch_writes_them(folder):
    space: dict = {}
    exec(MODEL, space)
    torch.manual_seed(0)
    net = space["Net"]().eval()
    net.load_state_dict(torch.load("plain.pt", weights_only=True))
    torch.onnx.export(net, (torch.zeros(1, 3, 8, 8),), "net.onnx", dynamo=True, verbose=False, external_data=False)
    assert bring("net.onnx", "--out", "graph.safetensors").status == 0
    bring("model.py:net", "--weights", "plain.pt", "--input", 3, 8, 8, "--name", "net", "--out", "module.safetensors")
    assert load_checkpoint("graph.safetensors").digest == load_checkpoint("module.safetensors").digest
    graph = onnx.load("net.onnx")
    graph.graph.initializer[0].raw_data = np.full(graph.graph.initializer[0].dims, np.nan, np.float32).tobytes()
    onnx.save(graph, "nan.onnx")
    bring("nan.onnx", "--out", "n.safetensors").assert_refused("importing", "not finite")


def test_the_documented_table_is_that_of_the_code():
    text = (ROOT / "docs" / "networks.md").read_text()
    said = text.partition("--operations -->\n")[2].partition("\n<!-- end")[0]
    assert said == operations_table()
