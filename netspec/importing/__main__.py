"""Bring in a network that was trained elsewhere: a torch module, an ONNX file, or a spiking network as a NIR graph.

With convolutions of any kind, biases, batch norm, max and average pooling, residual additions, concatenations; what
cannot be converted is named. The outputs are compared with the source's own.

    python -m netspec.importing model.py:net --weights net.pt --input 3 32 32 --out net.safetensors
    python -m netspec.importing model.onnx --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 --out net.safetensors
    python -m netspec.importing graph.nir --out net.safetensors

Of a NIR graph a conversion is written beside the checkpoint, named nir.
"""

import argparse
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from netspec.checkpoint import Checkpoint, save_checkpoint
from netspec.conversion import find_conversion
from netspec.data import CIFAR10_CLASSES, load_images
from netspec.errors import UserError, one_line, run_command
from netspec.files import writable_file
from netspec.importing.builder import Step
from netspec.importing.nir import SPIKES, from_nir, nodes_table
from netspec.importing.proof import Coding
from netspec.importing.sources import Imported, import_onnx, import_torch
from netspec.importing.support import support_table
from netspec.options import make_parser, number
from netspec.thresholds import RESETS

CLASSES = {"cifar10": CIFAR10_CLASSES}
SOME_IMAGES = 16  # of --data, on which outputs are compared
PRIVATE = "_network_that_is_brought_in"  # name of the user's file as a module
PREFIXES = ("_orig_mod.", "module.", "model.", "net.")  # of torch.compile, DataParallel, Lightning
NESTED = ("state_dict", "model_state_dict", "model", "net")  # where people's files keep the weights


class Printed(argparse.Action):
    """``--operations`` and ``--nodes``."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print({"operations": operations_table, "nodes": nodes_table}[self.dest]())
        parser.exit()


def operations_table() -> str:
    """What is supported, from the functions that do it, as Markdown."""
    from netspec.importing.layers import LAYERS
    from netspec.importing.tensors import TENSORS

    said = {name: (function.__doc__ or "").strip().splitlines()[0] for name, function in (LAYERS | TENSORS).items()}
    return support_table("operation of ONNX", "what is understood", said)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, "python -m netspec.importing")
    parser.add_argument(
        "source", metavar="SOURCE",
        help="FILE.py:NAME, a module or what gives one without arguments, FILE.onnx, or FILE.nir",
    )  # fmt: skip
    parser.add_argument("--operations", action=Printed, nargs=0, help="print what is supported of ONNX, and exit")
    parser.add_argument("--nodes", action=Printed, nargs=0, help="print what is supported of NIR, and exit")
    parser.add_argument("--weights", metavar="FILE", help="state dict of the module: .safetensors, .pt or .pth")
    parser.add_argument(
        "--input", nargs=3, type=int, metavar=("C", "H", "W"), help="channels, height and width of an image"
    )
    parser.add_argument("--mean", nargs="+", type=float, default=[0.0], help="as of torchvision's Normalize")
    parser.add_argument("--std", nargs="+", type=float, default=[1.0], help="likewise")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of a white pixel: 1, or 255 where inputs are 0 to 255"
    )
    parser.add_argument("--bgr", action="store_true", help="the first channel is blue")
    parser.add_argument(
        "--classes", metavar="FILE|NAME", help="their names, one a line, or cifar10; without this option: 0, 1, ..."
    )
    parser.add_argument("--name", help="of the network; without this option that of the source")
    parser.add_argument("--data", metavar="NAME|DIR", help="images on which it is compared, besides noise")
    parser.add_argument(
        "--reset", choices=RESETS,
        help="of a NIR graph's neurons; without this option to v_reset, as NIR has it (sinabs and snnTorch subtract), "
        "or as a file of this project says",
    )  # fmt: skip
    parser.add_argument(
        "--dt", type=number("--dt", float, above=0),
        help="what a step of a NIR graph lasts, in the unit of its time constants; without this option such that r dt "
        "is 1, or as a file of this project says; graphs with time constants need it",
    )  # fmt: skip
    parser.add_argument(
        "--spike", choices=SPIKES, help="signal of a spike in its step, in NIR graphs: 1 if not told, or of integral 1"
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="the checkpoint, .safetensors")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    out = writable_file(options.out, ".safetensors")
    if options.source.endswith(".nir"):
        bring_nir(options, out)
        return
    if options.reset or options.dt or options.spike:
        raise UserError("--reset, --dt and --spike are of NIR graphs")
    coding = Coding(options.mean, options.std, options.scale, options.bgr)
    more: dict[str, Any] = {"classes": read_classes(options.classes), "name": options.name or ""}
    if options.data:
        if not options.input:
            raise UserError("--data needs --input, the size of an image")
        channels, height, width = options.input
        shape, some = (height, width, channels), slice(SOME_IMAGES)
        found = load_images(options.data, shape, more["classes"] or (), choose=lambda every: every.subset(some))
        more["images"] = found.images
    if options.source.endswith(".onnx"):
        if options.weights:
            raise UserError("--weights are for torch modules; an ONNX file has its own")
        imported = import_onnx(options.source, coding, shape=options.input, **more)
    else:
        if not options.input:
            raise UserError("a torch module needs --input C H W, the size of an image")
        module = load_module(options.source)
        if options.weights:
            if Path(options.weights).resolve() == out.resolve():
                raise UserError(f"{out} would overwrite the weights; give another --out")
            load_weights(module, options.weights, options.input)
        imported = import_torch(module, options.input, coding, **more)
    print(table(imported))
    save_checkpoint(imported.checkpoint, out)
    print(f"written: {out}")
    print(f"next: python sims/calibrate.py --method activations --checkpoint {out}")
    print(f"then: python sims/run.py --standalone --conversion activations --steps 64 --checkpoint {out}")


def bring_nir(options: argparse.Namespace, out: Path) -> None:
    """A NIR graph as a checkpoint, and beside it the conversion that it is."""
    plain = (options.weights, options.input, options.mean, options.std, options.scale, options.bgr, options.data)
    if plain != (None, None, [0.0], [1.0], 1.0, False, None):
        raise UserError(
            "a NIR graph has its own weights and sees no images; --weights, --input, --data and what is said of pixels "
            "do not go with it"
        )
    more: dict[str, Any] = {"classes": read_classes(options.classes), "name": options.name or ""}
    imported = from_nir(options.source, options.reset, options.dt, options.spike or SPIKES[0], **more)
    print("\n".join([*aligned(imported.steps), network_line(imported.checkpoint)]))
    for note in imported.notes:
        print(note)
    save_checkpoint(imported.checkpoint, out)
    beside = find_conversion(out, "nir")
    imported.conversion.save(beside)
    print(f"written: {out} {beside}")
    print(f"next: python sims/run.py --standalone --conversion nir --events FILE.npz --checkpoint {out}")


def read_classes(choice: str | None) -> tuple[str, ...] | None:
    if choice is None or choice in CLASSES:
        return CLASSES[choice] if choice else None
    try:
        names = tuple(line.strip() for line in Path(choice).read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the classes {choice}: {one_line(error)}") from error
    if not names or len(set(names)) < len(names):
        raise UserError(f"{choice}: some classes have the same name" if names else f"{choice} names no classes")
    return names


def load_module(source: str) -> nn.Module:
    """The module of ``FILE.py:NAME``: itself, or what a class or function gives."""
    file, separated, name = source.rpartition(":")
    if not separated or not file.endswith(".py"):
        raise UserError(f"{source} is neither FILE.py:NAME nor FILE.onnx nor FILE.nir")
    path = Path(file)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(PRIVATE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(path.parent.resolve()))  # what it imports stands beside it
    sys.modules[PRIVATE] = module  # by no name of others
    try:
        with mock.patch.object(sys, "argv", [str(path)]):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"{path} cannot be run: {type(error).__name__}: {one_line(error)}") from error
    if not hasattr(module, name):
        raise UserError(f"{path} has no {name}")
    found = getattr(module, name)
    if inspect.isclass(found) or (callable(found) and not isinstance(found, nn.Module)):
        try:
            found = found()
        except (Exception, SystemExit) as error:
            raise UserError(f"{source} cannot be called without arguments: {one_line(error)}") from error
    if not isinstance(found, nn.Module):
        raise UserError(f"{source} is no torch module but of type {type(found).__name__}")
    return found


def load_weights(module: nn.Module, file: str, shape: Sequence[int]) -> None:
    """Give a module its weights; raises UserError unless they are those of the module."""
    path = Path(file)
    if not path.is_file():
        raise UserError(f"there is no file {path}")
    try:
        state: Any = (
            load_file(str(path))
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path} holds no weights: {one_line(error)}") from error
    except Exception as error:  # what an unpickler says
        raise UserError(
            f"{path} holds more than weights, which is not read: save module.state_dict() alone ({one_line(error)})"
        ) from error
    for name in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    named = isinstance(state, Mapping) and all(isinstance(name, str) for name in state)
    if not (named and state and all(isinstance(each, torch.Tensor) for each in state.values())):
        raise UserError(f"{path} is no state dict, names and tensors")
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in module.parameters()):
        try:
            with torch.no_grad():
                module.eval()(torch.zeros(1, *shape))
        except Exception as error:
            told = f"does not run on an input of {tuple(shape)}: {one_line(error)}"
            raise UserError(f"{type(module).__name__} {told}") from error
    own = module.state_dict()
    counters = {name: tensor for name, tensor in own.items() if name.endswith("num_batches_tracked")}
    for prefix in 2 * PREFIXES:  # one around the other
        if set(state) | set(counters) != set(own) and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    state = counters | state  # of no use here, and old files have none
    missing, others = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or others:
        told = f"lacks {', '.join(missing[:3])}" if missing else f"has {', '.join(others[:3])}, which it has not"
        raise UserError(f"{path} holds the weights of another network than {type(module).__name__}: it {told}")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            shapes = f"{name} has shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
            raise UserError(f"{path} holds the weights of another network than {type(module).__name__}: {shapes}")
        if not torch.isfinite(tensor.float()).all():
            raise UserError(f"{path}: {name} holds values that are not finite (NaN or infinity)")
    module.load_state_dict(state)


def table(imported: Imported) -> str:
    """What each layer of the source became, the network, and how near its outputs are to the source's."""
    lines = [
        *aligned(imported.steps),
        network_line(imported.checkpoint),
        f"compared with the source on {imported.compared}: outputs differ by {imported.difference:.1e} of the largest",
    ]
    return "\n".join(lines)


def aligned(steps: Sequence[Step]) -> list[str]:
    """A line for each layer of the source."""
    rows = [(step.source, step.operation, step.became) for step in steps]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return [f"{source:{widths[0]}}  {operation:{widths[1]}}  {became}" for source, operation, became in rows]


def network_line(network: Checkpoint) -> str:
    """Neurons, weights, populations of each kind."""
    spec = network.spec
    kinds = {kind: sum(p.kind == kind for p in spec.populations) for kind in ("if", "max", "relay")}
    spiking = "of neurons" if network.spiking else "of IF neurons"
    named = {"if": spiking, "max": "of max pooling", "relay": "of relays (linear layers)"}
    parts = ", ".join(f"{n} {named[kind]}" for kind, n in kinds.items() if n)
    size = f"{spec.name}: {spec.neurons():,} neurons, {spec.parameters():,} weights"
    return f"{size}; populations: {parts}" + (f", biases of {len(network.biases)}" if network.biases else "")


if __name__ == "__main__":
    run_command(main)
