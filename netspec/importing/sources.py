"""Torch modules and ONNX graphs as checkpoints, each compared with its source's own outputs."""

from __future__ import annotations

import copy
import logging
import os
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from netspec.ann import ANN
from netspec.checkpoint import Checkpoint, check
from netspec.errors import UserError
from netspec.importing.builder import Step

__all__ = ["MOST_DIFFERENCE", "Coding", "Imported", "from_onnx", "from_torch", "import_onnx", "import_torch"]

MOST_DIFFERENCE = 1e-4  # of the source's outputs, relative to the largest: what rounding in float32 accounts for
NOISE_IMAGES = 4
OLDEST = 13  # version of ONNX's operations
FLOATING = (1, 10, 11)  # ONNX's numbers of single, half and double precision
MISSING = "networks of others are read with onnx and onnxscript: pip install onnx onnxscript"

Source = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Coding:
    """What the source makes of pixels up to 255: ``(scale * pixel / 255 - mean) / std``, as torchvision's Normalize.

    Parameters
    ----------
    mean, std : sequence of float
        Of each channel, or one of all.
    scale : float
        1 for pixels in [0, 1], 255 for networks that see 0 to 255.
    bgr : bool
        Whether the source's first channel is blue.
    """

    mean: Sequence[float] = (0.0,)
    std: Sequence[float] = (1.0,)
    scale: float = 1.0
    bgr: bool = False

    def checked(self, channels: int) -> Coding:
        """With one mean and standard deviation a channel."""
        made: dict[str, tuple[float, ...]] = {}
        for name in ("mean", "std"):
            given = np.atleast_1d(np.asarray(getattr(self, name), dtype=np.float64))
            if given.shape not in ((1,), (channels,)):
                raise UserError(f"{name} has {given.size} numbers, the network sees {channels} channels")
            made[name] = tuple(np.broadcast_to(given, channels).tolist())
        if not (np.isfinite(made["mean"]).all() and np.isfinite(made["std"]).all() and min(made["std"]) > 0):
            raise UserError("mean and std must be finite numbers, std positive")
        if not 0 < self.scale < np.inf or (self.bgr and channels != 3):
            raise UserError("the scale must be a positive number, and only three channels can be blue, green and red")
        return Coding(made["mean"], made["std"], float(self.scale), self.bgr)

    @property
    def largest(self) -> float:
        """What an input is at most, in size."""
        ends = [abs(end - mean) / std for mean, std in zip(self.mean, self.std, strict=True) for end in (0, self.scale)]
        return float(np.float32(max(ends)))

    def in_our_order(self, numbers: np.ndarray) -> np.ndarray:
        """Of each channel, red first."""
        return numbers[::-1] if self.bgr else numbers

    def of_checkpoint(self) -> tuple[np.ndarray, tuple[float, ...]]:
        """Mean and gain of a Checkpoint, whose inputs lie in [-1, 1]."""
        mean, std = (self.in_our_order(np.array(numbers)) for numbers in (self.mean, self.std))
        return mean / self.scale, tuple((self.scale / std / self.largest).tolist())

    def applied(self, images: np.ndarray) -> torch.Tensor:
        """The source's inputs, (n, channels, height, width), for uint8 images (n, height, width, channels)."""
        pixels = images[..., ::-1] if self.bgr else images
        x = (self.scale * (pixels.astype(np.float64) / 255) - np.array(self.mean)) / np.array(self.std)
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2), dtype=np.float32))


@dataclass(frozen=True)
class Imported:
    """A network that was brought in.

    Parameters
    ----------
    checkpoint : Checkpoint
    steps : tuple of Step
        What each layer of the source became.
    difference : float
        The largest difference to the source's outputs, relative to the largest of them.
    compared : str
        On what images.
    """

    checkpoint: Checkpoint
    steps: tuple[Step, ...]
    difference: float
    compared: str


def from_torch(module: nn.Module, shape: Sequence[int], coding: Coding | None = None, **more: Any) -> Checkpoint:
    """The checkpoint of a torch module; arguments as for :func:`import_torch`."""
    return import_torch(module, shape, coding, **more).checkpoint


def from_onnx(model: Any, coding: Coding | None = None, **more: Any) -> Checkpoint:
    """The checkpoint of an ONNX file or model; arguments as for :func:`import_onnx`."""
    return import_onnx(model, coding, **more).checkpoint


def import_torch(
    module: nn.Module,
    shape: Sequence[int],
    coding: Coding | None = None,
    name: str = "",
    classes: Sequence[str] | None = None,
    images: np.ndarray | None = None,
) -> Imported:
    """Bring in a torch module, by way of torch's own ONNX exporter.

    Parameters
    ----------
    module : torch.nn.Module
        Is put into evaluation mode.
    shape : sequence of int
        Of its input: channels, height and width.
    coding : Coding, optional
        What it makes of pixels; by default pixel / 255.
    name : str
        By default that of its class.
    classes : sequence of str, optional
        By default ``'0'``, ``'1'``, ...
    images : numpy.ndarray, optional
        uint8 (n, height, width, channels), on which it is compared besides noise.

    Raises
    ------
    UserError
        If an operation is not supported (the message names it and its place), or outputs differ.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise UserError(f"{MISSING} ({error.name} is missing)") from error
        module = copy.deepcopy(module).eval().float()
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(f"the shape of an input is three numbers, channels, height and width, got {tuple(shape)}")
        x = torch.zeros(1, *shape)
        logging.getLogger("torch.onnx").setLevel(logging.CRITICAL)
        said = StringIO()
        try:
            with torch.no_grad():
                module(x)
        except Exception as error:
            raise UserError(
                f"{type(module).__name__} does not run on an input of {tuple(shape)}: {one_line(error)}"
            ) from error
        try:
            with redirect_stdout(said), redirect_stderr(said), torch.no_grad():
                program = torch.onnx.export(module, (x,), dynamo=True, verbose=False)
        except Exception as error:
            raise UserError(f"torch cannot export {type(module).__name__}: {one_line(deepest(error))}") from error
    assert program is not None

    def source(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([the_tensor(module(image[None])) for image in x])

    return read(program.model_proto, source, coding, name or type(module).__name__, classes, images, tuple(shape))


def import_onnx(
    model: Any,
    coding: Coding | None = None,
    name: str = "",
    classes: Sequence[str] | None = None,
    images: np.ndarray | None = None,
    shape: Sequence[int] | None = None,
) -> Imported:
    """Bring in an ONNX file or ``onnx.ModelProto``; arguments as for :func:`import_torch`.

    ``shape`` is needed where the graph leaves it open. An input of (height, width, channels) is understood by its
    channels, 1 or 3, standing last.
    """
    try:
        import onnx
    except ImportError as error:
        raise UserError(f"{MISSING} ({error.name} is missing)") from error
    if isinstance(model, (str, os.PathLike)):
        path = Path(model)
        try:
            loaded = onnx.load(str(path))
        except FileNotFoundError as error:
            raise UserError(f"there is no file {path}") from error
        except Exception as error:
            raise UserError(f"{path} is no ONNX graph, or damaged ({one_line(error)})") from error
        if not loaded.graph.node:
            raise UserError(f"{path} is no ONNX graph: it holds no operations")
        model, name = loaded, name or path.stem
    return read(
        model, None, coding, name or model.graph.name or "onnx", classes, images, tuple(shape) if shape else None
    )


def read(
    model: Any,
    source: Source | None,
    coding: Coding | None,
    name: str,
    classes: Sequence[str] | None,
    images: np.ndarray | None,
    shape: tuple[int, ...] | None,
) -> Imported:
    """A graph as a network, compared with its source, or with the graph itself."""
    from onnx.inliner import inline_local_functions

    from netspec.importing.builder import Builder
    from netspec.importing.graph import Graph, inputs
    from netspec.importing.layers import LAYERS
    from netspec.importing.tensors import TENSORS

    model = modern(inline_local_functions(model))
    given = inputs(model)
    if len(given) != 1:
        names = ", ".join(entry.name for entry in given) or "none"
        raise UserError(f"a network with one input, images, is needed; the inputs of this one: {names}")
    if given[0].type.tensor_type.elem_type not in FLOATING:
        raise UserError(f"the graph's input {given[0].name} holds no real numbers; export it with pixels as float")
    dims = [entry.dim_value if entry.HasField("dim_value") else 0 for entry in given[0].type.tensor_type.shape.dim]
    shape, last = input_shape(dims, shape)
    channels, height, width = shape
    whole = (1, height, width, channels) if last else (1, *shape)
    for entry, size in zip(given[0].type.tensor_type.shape.dim, whole, strict=True):
        entry.dim_value = size
    coding = (coding or Coding()).checked(channels)
    builder = Builder(shape, coding.largest, bgr=coding.bgr)
    graph = Graph(model, builder, LAYERS | TENSORS, last)
    value = graph.read()
    called = tuple(classes) if classes else tuple(str(n) for n in range(value.layout.size))
    if len(called) != value.layout.size:
        raise UserError(f"{len(called)} classes, but the network has {value.layout.size} outputs")
    mean, gain = coding.of_checkpoint()
    network = builder.checkpoint(value, name, mean, gain, called, {})
    check(network, name)

    def run_graph(x: torch.Tensor) -> torch.Tensor:
        session, shown = runner(model, graph.scores), x.permute(0, 2, 3, 1) if last else x
        return torch.cat([torch.from_numpy(session(image[None].contiguous().numpy())) for image in shown])

    sources: list[tuple[Source, list[str]]] = [(source, graph.dropped)] if source else []
    if graph.dropped or not source:  # before a softmax, after which all may look the same
        sources.append((run_graph, []))
    shown = np.random.default_rng(0).integers(0, 256, (NOISE_IMAGES, height, width, channels), dtype=np.uint8)
    compared = f"{NOISE_IMAGES} images of noise"
    if images is not None:
        shown, compared = np.concatenate([shown, images]), f"{compared} and {len(images)} of yours"
    with torch.no_grad():
        found = ANN.of(network)(torch.from_numpy(network.encode(shown).transpose(0, 3, 1, 2).copy()))
    difference = 0.0
    for each, ends in sources:
        expected, own = each(coding.applied(shown)).flatten(1), found
        for kind in ends:
            own = torch.softmax(own, 1) if kind == "Softmax" else torch.log_softmax(own, 1)
        if own.shape != expected.shape or not torch.isfinite(expected).all():
            raise UserError(f"the source's own outputs, {tuple(expected.shape)}, are not finite, or no scores")
        difference = max(difference, apart(own, expected))
    if not difference <= MOST_DIFFERENCE:
        raise UserError(
            f"{name}: outputs differ from the source's by {difference:.1e} of the largest; rounding accounts for "
            f"{MOST_DIFFERENCE:g} at most; please report this network"
        )
    info = {"imported": name, "difference": difference, "compared": compared}
    network = Checkpoint(
        *(network.spec, network.weights, network.mean, network.gain, network.classes, info, network.biases)
    )
    return Imported(network, tuple(builder.steps), difference, compared)


def the_tensor(output: Any) -> torch.Tensor:
    """The only tensor that a module gives, perhaps inside a dictionary or tuple."""
    if isinstance(output, torch.Tensor):
        return output
    parts = (
        list(output.values()) if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else []
    )
    tensors = [part for part in parts if part is not None]
    if len(tensors) != 1:
        raise UserError(
            f"a network with one output is needed, this one gives {len(tensors)} in a {type(output).__name__}"
        )
    return the_tensor(tensors[0])


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of outputs (images, classes), relative to the largest output of that class.

    Classes whose outputs are far smaller than most are measured by those: so no class hides what others get.
    """
    largest = expected.abs().amax(0)
    scale = torch.maximum(largest, 0.1 * largest.median()).clamp(min=1e-30)
    return float(((found - expected).abs().amax(0) / scale).max())


def modern(model: Any) -> Any:
    """A graph of an old version of ONNX in a newer one, whose operations onnx can still run."""
    from onnx.version_converter import ConvertError, convert_version

    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions or versions[0] >= OLDEST:
        return model
    try:
        return convert_version(model, OLDEST)
    except (ConvertError, RuntimeError, ValueError):  # some operation has no such version: perhaps it is not in the way
        return model


def input_shape(dims: Sequence[int], asked: tuple[int, ...] | None) -> tuple[tuple[int, int, int], bool]:
    """Channels, height and width of a graph's input, and whether channels are last; 0 stands for what is open."""
    if len(dims) != 4:
        raise UserError(f"the network's input has {len(dims)} dimensions, images have 4: (1, channels, height, width)")
    if dims[0] not in (0, 1):
        raise UserError(f"the graph takes {dims[0]} images at a time; export it for one, or for any number")
    last = dims[3] in (1, 3) and dims[1] not in (1, 3)
    there = (dims[3], dims[1], dims[2]) if last else (dims[1], dims[2], dims[3])
    if asked is not None and (len(asked) != 3 or min(asked) < 1):
        raise UserError(f"the shape of an input is three numbers, channels, height and width, got {asked}")
    if asked is None and 0 in there:
        raise UserError("the graph leaves the size of its input open; give channels, height and width (--input)")
    shape = there if asked is None else asked
    if any(known and known != wanted for known, wanted in zip(there, shape, strict=True)):
        raise UserError(f"the graph's input is {there} (channels, height, width), not {tuple(shape)}")
    return (shape[0], shape[1], shape[2]), last


def runner(model: Any, output: str) -> Callable[[np.ndarray], np.ndarray]:
    """Something that gives a tensor of a graph: onnxruntime if it is installed, else the slower reference of onnx."""
    import onnx

    model = type(model).FromString(model.SerializeToString())
    model.graph.output.pop()
    model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    stored = {initializer.name for initializer in model.graph.initializer}
    name = next(entry.name for entry in model.graph.input if entry.name not in stored)
    try:
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        session: Any = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {name: x})[0]
    except Exception:  # not installed, or it knows less than the reference
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(model)
        return lambda x: np.asarray(next(iter(evaluator.run(None, {name: x}))))


def one_line(error: BaseException) -> str:
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]


def deepest(error: BaseException) -> BaseException:
    """What an exporter's error came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
