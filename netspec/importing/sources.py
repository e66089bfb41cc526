"""Torch modules and ONNX graphs as checkpoints, each compared with its source's own outputs."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from netspec.checkpoint import Checkpoint, check
from netspec.errors import UserError, one_line
from netspec.importing.builder import Step
from netspec.importing.proof import Coding, Source, compare, runner

__all__ = ["Imported", "from_onnx", "from_torch", "import_onnx", "import_torch"]

OLDEST = 15  # version of ONNX's operations: its own evaluator takes batch norms before to be in training
FLOATING = (1, 10, 11)  # ONNX's numbers of single, half and double precision
MISSING = "networks of others are read with onnx and onnxscript: pip install onnx onnxscript"


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
        if not isinstance(module, nn.Module):
            raise UserError(f"a torch module is needed, not an object of type {type(module).__name__}")
        try:
            module = copy.deepcopy(module).eval().float().cpu()
        except Exception as error:  # as with the old torch.nn.utils.weight_norm
            told = f"{type(module).__name__} cannot be copied: {one_line(error)}"
            raise UserError(f"{told} (use torch.nn.utils.parametrizations, or remove_weight_norm)") from error
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
    shape, last = input_shape(dims, shape, channels_first=source is not None)
    channels, height, width = shape
    whole = (1, height, width, channels) if last else (1, *shape)
    for entry, size in zip(given[0].type.tensor_type.shape.dim, whole, strict=True):
        entry.dim_value = size
    coding = (coding or Coding()).checked(channels)
    builder = Builder(shape, coding.largest, bgr=coding.bgr)
    graph = Graph(model, builder, LAYERS | TENSORS, last)
    value = graph.read()
    if value.layout.size < 2:
        raise UserError("the network gives one number, and a class is the largest of several: give it two outputs")
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
    difference, compared = compare(network, coding, sources, images)
    info = {"imported": name, "difference": difference, "compared": compared}
    return Imported(replace(network, info=info), tuple(builder.steps), difference, compared)


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


def input_shape(
    dims: Sequence[int], asked: tuple[int, ...] | None, channels_first: bool = False
) -> tuple[tuple[int, int, int], bool]:
    """Channels, height and width of a graph's input, and whether channels are last; 0 or less stands for what is open.

    Torch has channels first; of other graphs, channels are where there are 1 or 3.
    """
    dims = [max(0, size) for size in dims]
    if len(dims) != 4:
        raise UserError(f"the network's input has {len(dims)} dimensions, images have 4: (1, channels, height, width)")
    if dims[0] not in (0, 1):
        raise UserError(f"the graph takes {dims[0]} images at a time; export it for one, or for any number")
    last = not channels_first and dims[3] in (1, 3) and dims[1] not in (1, 3)
    there = (dims[3], dims[1], dims[2]) if last else (dims[1], dims[2], dims[3])
    if asked is not None and (len(asked) != 3 or min(asked) < 1):
        raise UserError(f"the shape of an input is three numbers, channels, height and width, got {asked}")
    if asked is None and 0 in there:
        raise UserError("the graph leaves the size of its input open; give channels, height and width (--input)")
    shape = there if asked is None else asked
    if any(known and known != wanted for known, wanted in zip(there, shape, strict=True)):
        raise UserError(f"the graph's input is {there} (channels, height, width), not {tuple(shape)}")
    return (shape[0], shape[1], shape[2]), last


def deepest(error: BaseException) -> BaseException:
    """What an exporter's error came from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error
