"""What a source makes of images, and whether the network that was brought in makes the same of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from netspec.ann import ANN
from netspec.checkpoint import Checkpoint
from netspec.errors import UserError, one_line

__all__ = ["MOST_DIFFERENCE", "Coding", "Source", "apart", "compare", "runner"]

MOST_DIFFERENCE = 1e-4  # of the source's outputs, relative to the largest of a class: what rounding accounts for
NOISE_IMAGES = 4

Source = Callable[[torch.Tensor], torch.Tensor]
ENDS: dict[str, Source] = {  # what may be dropped at the end
    "Softmax": lambda scores: torch.softmax(scores, 1),
    "LogSoftmax": lambda scores: torch.log_softmax(scores, 1),
    "Sigmoid": torch.sigmoid,
}


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
        if max(made["mean"]) > self.scale:
            raise UserError(
                f"a mean of {max(made['mean']):g} is no pixel's, which are up to {self.scale:g}: give the scale"
            )
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


def compare(
    network: Checkpoint, coding: Coding, sources: Sequence[tuple[Source, Sequence[str]]], images: np.ndarray | None
) -> tuple[float, str]:
    """How far a network's outputs are from its sources', and on what images; UserError if rounding is not why.

    Parameters
    ----------
    network : Checkpoint
    coding : Coding
    sources : sequence of (callable, sequence of str)
        What gives outputs, and the operations at its end that the network does without.
    images : numpy.ndarray, optional
        uint8 (n, height, width, channels), besides noise.
    """
    shape = network.spec.input.shape
    shown = np.random.default_rng(0).integers(0, 256, (NOISE_IMAGES, *shape), dtype=np.uint8)
    compared = f"{NOISE_IMAGES} images of noise"
    if images is not None:
        if images.shape[1:] != shape:
            raise UserError(f"the images are of shape {images.shape[1:]}, and the network's input of {shape}")
        shown, compared = np.concatenate([shown, images]), f"{compared} and {len(images)} of yours"
    with torch.no_grad():
        found = ANN.of(network)(torch.from_numpy(network.encode(shown).transpose(0, 3, 1, 2).copy()))
    difference = 0.0
    for source, ends in sources:
        try:
            expected, own = source(coding.applied(shown)).flatten(1), found
        except UserError:
            raise
        except Exception as error:  # of any kind: it is anybody's
            raise UserError(f"the source does not run on images of shape {shape}: {one_line(error)}") from error
        for kind in ends:
            own = ENDS[kind](own)
        if own.shape != expected.shape or not torch.isfinite(expected).all():
            raise UserError(f"the source's own outputs, {tuple(expected.shape)}, are not finite, or no scores")
        if not torch.isfinite(own).all():
            raise UserError(f"{network.spec.name}: outputs are not finite, where the source's are")
        difference = max(difference, apart(own, expected))
    if not difference <= MOST_DIFFERENCE:
        raise UserError(
            f"{network.spec.name}: outputs differ from the source's by {difference:.1e} of the largest, and rounding "
            f"accounts for {MOST_DIFFERENCE:g} at most; please report this network"
        )
    return difference, compared


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of outputs (images, classes), relative to the largest output of that class.

    Classes whose outputs are far smaller than most are measured by those: so no class hides what others get.
    """
    largest = expected.abs().amax(0)
    scale = torch.maximum(largest, 0.1 * largest.median()).clamp(min=1e-30)
    return float(((found - expected).abs().amax(0) / scale).max())


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

        for node in model.graph.node:
            attributes = {entry.name: entry for entry in node.attribute}
            strides = attributes["strides"].ints if "strides" in attributes else [1]
            if "ceil_mode" in attributes and set(strides) == {1}:  # says nothing there, but confuses the reference
                node.attribute.remove(attributes["ceil_mode"])
        evaluator = ReferenceEvaluator(model)
        return lambda x: np.asarray(next(iter(evaluator.run(None, {name: x}))))
