"""Trained networks on disk: safetensors with the description of the network as metadata, never pickle."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from netspec.errors import UserError
from netspec.files import write_atomically
from netspec.spec import NetSpec, SpecError

__all__ = ["PRETRAINED", "Checkpoint", "encode", "load_checkpoint", "save_checkpoint", "shipped_networks"]

PRETRAINED = Path(__file__).parent / "pretrained"
FORMAT = "going-deeper-in-brian2 checkpoint 1"
MEAN = "input_mean"
BIAS = "bias/"  # and the population's name: tensors of a file


@dataclass(frozen=True)
class Checkpoint:
    """A trained network: its description, its weights and the coding of its input.

    Parameters
    ----------
    spec : NetSpec
    weights : mapping of str to numpy.ndarray
        float32 weights of each weighted projection, of ``spec.weight_shape(projection)``.
    mean : numpy.ndarray
        What is subtracted from ``pixel / 255``; broadcasts to (height, width, 3).
    gain : float or tuple of float
        What the difference is multiplied by, so that nearly all inputs lie in [-1, 1]; one number, or one a channel:
        1 over the standard deviation of torchvision's Normalize, over the most that is to count.
    classes : tuple of str
    info : mapping
        How the network was trained and what it reached, as plain data.
    biases : mapping of str to numpy.ndarray
        Of populations that have one, of each channel or of each neuron (height, width, channels); 0 for the others.
    """

    spec: NetSpec
    weights: Mapping[str, np.ndarray]
    mean: np.ndarray
    gain: float | tuple[float, ...]
    classes: tuple[str, ...]
    info: Mapping[str, Any] = field(default_factory=dict)
    biases: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take what people have: torch tensors, NumPy scalars, any sequence of classes."""
        for name, value in (
            ("weights", {key: as_array(weight) for key, weight in self.weights.items()}),
            ("biases", {key: as_array(bias) for key, bias in self.biases.items()}),
            ("mean", as_array(self.mean)),
            ("gain", as_gain(self.gain)),
            ("classes", tuple(map(str, self.classes))),
        ):
            object.__setattr__(self, name, value)

    @property
    def spiking(self) -> bool:
        """Whether it was brought in as a spiking network, without an ANN to compare it with."""
        return self.info.get("spiking") is True

    def encode(self, images: np.ndarray) -> np.ndarray:
        """The network's input for uint8 images (n, height, width, 3), float32, clipped to [-1, 1].

        The size is the probability of a spike per step, the sign is that of the spike (section 4.1). The
        ANN sees the same clipped values.
        """
        if images.shape[1:] != self.spec.input.shape:
            raise UserError(f"{self.spec.name} sees images of shape {self.spec.input.shape}, got {images.shape[1:]}")
        return encode(images, self.mean, self.gain)

    @cached_property
    def digest(self) -> str:
        """sha256 over description, weights and input coding: two networks are the same if theirs are."""
        sha = hashlib.sha256(json.dumps([self.spec.to_dict(), self.gain], sort_keys=True).encode())
        sha.update(np.ascontiguousarray(self.mean, dtype=np.float32).tobytes())
        for name in sorted(self.weights):
            sha.update(np.ascontiguousarray(self.weights[name], dtype=np.float32).tobytes())
        for name in sorted(self.biases):
            sha.update(f"{BIAS}{name}".encode() + np.ascontiguousarray(self.biases[name]).tobytes())
        return sha.hexdigest()


def as_array(values: Any) -> np.ndarray:
    """An array or torch tensor of any type, as float32."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().to(torch.float32).numpy()
    with np.errstate(over="ignore"):  # what becomes infinite is refused
        return np.asarray(values, dtype=np.float32)


def as_gain(gain: Any) -> float | tuple[float, ...]:
    return float(gain) if np.ndim(gain) == 0 else tuple(map(float, gain))


def encode(images: np.ndarray, mean: np.ndarray, gain: float | tuple[float, ...]) -> np.ndarray:
    """``(pixel / 255 - mean) * gain`` of uint8 images (n, height, width, 3), float32, clipped to [-1, 1]."""
    return np.clip((images.astype(np.float32) / 255 - mean) * np.asarray(gain, dtype=np.float32), -1, 1)


def save_checkpoint(checkpoint: Checkpoint, path: str | os.PathLike, dtype: type = np.float32) -> None:
    """Write a checkpoint atomically; ``dtype`` float16 halves the file. UserError if it could not be loaded."""
    header = {
        "format": FORMAT,
        "spec": json.dumps(checkpoint.spec.to_dict()),
        "gain": json.dumps(checkpoint.gain),
        "classes": json.dumps(checkpoint.classes),
        "info": json.dumps(dict(checkpoint.info)),
    }
    with np.errstate(over="ignore"):
        weights = checkpoint.weights.items()
        tensors: dict[str, np.ndarray] = {name: weight.astype(dtype, order="C") for name, weight in weights}
    check(replace(checkpoint, weights=tensors), f"the checkpoint for {path}")
    tensors |= {f"{BIAS}{name}": np.ascontiguousarray(bias) for name, bias in checkpoint.biases.items()}
    tensors[MEAN] = np.ascontiguousarray(checkpoint.mean)
    header["digest"] = content_digest({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, header)
    write_atomically(path, to_bytes(tensors, metadata=header))


def content_digest(tensors: Mapping[str, torch.Tensor], header: Mapping[str, str]) -> str:
    """Types and sha256 of what a safetensors file holds, but for the entry 'digest' of its metadata."""
    sha = hashlib.sha256(json.dumps(sorted((key, text) for key, text in header.items() if key != "digest")).encode())
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return f"{' '.join(sorted({str(tensor.dtype) for tensor in tensors.values()}))} {sha.hexdigest()}"


def load_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read and check a checkpoint.

    Parameters
    ----------
    path : path
        A file, or the name of a shipped network.

    Raises
    ------
    UserError
        If the file is missing, truncated, no checkpoint, or its weights do not fit its description or
        are not finite.
    """
    path = find_checkpoint(path)
    try:
        with safe_open(path, framework="pt") as file:  # NumPy has no bfloat16
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise UserError(f"{path} is no checkpoint of this project: its metadata lack 'format: {FORMAT}'")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        noted, found = (text.rpartition(" ") for text in (header.get("digest", ""), content_digest(tensors, header)))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is truncated or no safetensors file ({error})") from error
    try:
        spec = NetSpec.from_dict(json.loads(header["spec"]))
        gain, classes, info = (json.loads(header[name]) for name in ("gain", "classes", "info"))
        biases = {name.removeprefix(BIAS): tensors.pop(name) for name in list(tensors) if name.startswith(BIAS)}
        checkpoint = Checkpoint(spec, tensors, tensors.pop(MEAN), gain, classes, dict(info), biases)
    except (SpecError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: its metadata do not describe a network ({error})") from error
    check(checkpoint, path)
    if noted[0] == found[0] and noted != found:  # in other types another program has stored it
        raise UserError(f"{path} is not as it was written: damaged, or changed (then remove its metadata's 'digest')")
    return checkpoint


def check(checkpoint: Checkpoint, source: object) -> None:
    """Raise UserError unless the parts of a checkpoint fit each other."""
    spec, mean, gain, classes = checkpoint.spec, checkpoint.mean, checkpoint.gain, checkpoint.classes
    check_weights(spec, checkpoint.weights, source)
    biases = {f"{BIAS}{name}": bias for name, bias in checkpoint.biases.items()}
    for name, values in {**checkpoint.weights, **biases, MEAN: mean}.items():
        if not np.isfinite(values).all():
            raise UserError(f"{source}: {name} holds values that are not finite (NaN or infinity)")
    for name, bias in checkpoint.biases.items():
        if name not in {population.name for population in spec.spiking}:
            raise UserError(f"{source}: a bias of {name}, which is no spiking population of {spec.name}")
        if bias.shape not in (spec[name].shape, spec[name].shape[2:]):
            raise UserError(f"{source}: the bias of {name} has shape {bias.shape}, its neurons {spec[name].shape}")
    try:
        np.broadcast_to(mean, spec.input.shape)
    except ValueError as mismatch:
        raise UserError(f"{source}: {MEAN} has shape {mean.shape}, {spec.name} sees {spec.input.shape}") from mismatch
    numbers = np.atleast_1d(gain)
    if not (np.isfinite(numbers) & (numbers > 0)).all() or np.shape(gain) not in ((), spec.input.shape[2:]):
        raise UserError(
            f"{source}: needs a positive gain, or one of each of {spec.input.shape[2]} channels, has {gain}"
        )
    if len(classes) != spec.output.size:
        raise UserError(f"{source}: needs {spec.output.size} classes, has {len(classes)}")
    error = checkpoint.info.get("test_error")
    if not (error is None or isinstance(error, (int, float))):
        raise UserError(f"{source}: its test_error is no number but {error!r}")


def shipped_networks() -> list[Path]:
    """The files of the networks that come with the package; conversions beside them have a dot in their names."""
    return sorted(file for file in PRETRAINED.glob("*.safetensors") if "." not in file.stem)


def find_checkpoint(path: str | os.PathLike) -> Path:
    """The file of that path, or of the shipped network of that name; raises UserError."""
    if Path(path).is_file():
        return Path(path)
    shipped = PRETRAINED / f"{path}.safetensors"
    if shipped.is_file():
        return shipped
    names = ", ".join(file.stem for file in shipped_networks()) or "none"
    raise UserError(f"there is no checkpoint file {path}, nor a shipped network of that name (shipped: {names})")


def not_over_network(out: Path, checkpoint: str | os.PathLike, what: str) -> Path:
    """The file to write ``what`` into; raises UserError if it is that of the network which is read."""
    if out.exists() and out.samefile(find_checkpoint(checkpoint)):
        raise UserError(f"{out} is the network itself; give {what} another name")
    return out


def check_weights(spec: NetSpec, weights: Mapping[str, np.ndarray], source: object) -> None:
    """Raise UserError unless the weights are those of the network."""
    expected = {p.name: spec.weight_shape(p) for p in spec.projections if p.weighted}
    if set(weights) != set(expected):
        differing = ", ".join(sorted(set(weights) ^ set(expected)))
        raise UserError(f"{source} is not a checkpoint of {spec.name}: projections differ ({differing})")
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise UserError(f"{source}: {name} has shape {weights[name].shape}, {spec.name} needs {shape}")
