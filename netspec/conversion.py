"""What turns a network's ANN into a spiking network, as data: thresholds, spike values, biases, potentials, coding.

On networks without biases SPIKE-NORM and ANN-model normalisation say all by their thresholds, ratios of activations:
they are kept as JSON (:mod:`netspec.thresholds`). Everything else works in activations: a spike of a population stands
for its *spike value*, by which it multiplies the weights that it crosses, and a threshold is in the same unit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as to_bytes

from netspec.checkpoint import Checkpoint, content_digest, find_checkpoint
from netspec.errors import UserError
from netspec.files import write_atomically
from netspec.spec import NetSpec
from netspec.thresholds import RESETS, VARIANTS, Thresholds, arriving_value, load_thresholds, open_thresholds

__all__ = ["CODINGS", "Conversion", "find_conversion", "load_conversion", "open_conversion", "pooled_values"]

FORMAT = "going-deeper-in-brian2 conversion 1"
SUFFIX = ".conversion.safetensors"
CODINGS = ("poisson", "current")  # of images; events are no images
NUMBERS = {"threshold": "thresholds", "value": "spike_values", "constant": "constant", "initial": "initial"}


@dataclass(frozen=True)
class Conversion:
    """A conversion of one network.

    Parameters
    ----------
    checkpoint : str
        ``Checkpoint.digest`` of the network.
    method : str
        How it was made.
    thresholds : mapping of str to float or numpy.ndarray
        Of every spiking population; one number, or one of each channel, or of each neuron. Infinite for an output that
        does not fire, whose potential then tells the class.
    spike_values, constant, initial : mapping of str to float or numpy.ndarray
        As of a ``RunInput``: by what spikes multiply weights (1 for populations without), the input of each step
        (0), the membrane potential at the start (0).
    coding : {'poisson', 'current'}
        How images are shown.
    reset : {'zero', 'subtract'}
    model : str
        Name of a shipped neuron model.
    models : mapping of str to mapping
        Of populations with another: ``{"name": ..., "parameters": {...}}``, of a shipped one.
    unit : bool
        Residual units have threshold 1 (constraint 2, section 6.2).
    percentile : float
        Of activations or synaptic inputs, from which the thresholds are.
    steps : int
        The time steps for which it was made; 0 if it is meant for any.
    delay : float
        Part of the steps after which the output is read.
    made : mapping
        From what: images, source, seed, ...; plain data.
    """

    checkpoint: str
    method: str
    thresholds: Mapping[str, Any]
    spike_values: Mapping[str, Any] = field(default_factory=dict)
    constant: Mapping[str, Any] = field(default_factory=dict)
    initial: Mapping[str, Any] = field(default_factory=dict)
    coding: str = "poisson"
    reset: str = "zero"
    model: str = "if"
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    unit: bool = False
    percentile: float = 100.0
    steps: int = 0
    delay: float = 0.0
    made: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.coding not in CODINGS or self.reset not in RESETS:
            raise UserError(f"a conversion's coding is one of {CODINGS}, its reset one of {RESETS}")
        if not 0 <= self.delay < 1:
            raise UserError(f"a conversion's delay is at least 0 and less than 1, got {self.delay}")

    @classmethod
    def of(cls, thresholds: Thresholds) -> Conversion:
        """The paper's, of a network without biases: Poisson input, the calibration's reset, thresholds alone."""
        made = {key: getattr(thresholds, key) for key in ("images", "source", "seed", "steps", "reset")}
        return cls(
            *(thresholds.checkpoint, thresholds.method, dict(thresholds.values)),
            reset=thresholds.reset, unit=thresholds.unit, percentile=thresholds.percentile, made=made,
        )  # fmt: skip

    @classmethod
    def in_activations(cls, network: Checkpoint, method: str, values: Mapping[str, Any], **more: Any) -> Conversion:
        """Each spike stands for its threshold, and the constant input is the bias.

        Unless told otherwise, for few steps: images are a current, the output gathers potential and does not fire.
        """
        thresholds = {**dict.fromkeys([network.spec.output.name], np.inf), **values}
        thresholds = {population.name: thresholds[population.name] for population in network.spec.spiking}
        told = {"spike_values": pooled_values(network.spec, values), "constant": dict(network.biases)}
        return cls(network.digest, method, thresholds, **told | {"coding": "current", "reset": "subtract"} | more)

    def told(self, reset: str | None = None, coding: str | None = None) -> Conversion:
        """With another reset or coding than its own, where one is given."""
        return replace(self, reset=reset or self.reset, coding=coding or self.coding)

    def fires(self, name: str) -> bool:
        """Whether a population can fire at all; an output that cannot tells its class by its potential."""
        return not np.all(np.isinf(self.thresholds[name]))

    @property
    def variant(self) -> str:
        """Method and kind, as files are named."""
        return f"{self.method}-unit" if self.unit else self.method

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits that tell conversions apart; of thresholds alone if there is nothing else."""
        more = self.spike_values, self.constant, self.initial, self.models, self.delay, self.coding != "poisson"
        if not any(more):
            content = {name: np.asarray(value).tolist() for name, value in self.thresholds.items()}
            return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
        sha = hashlib.sha256(self.coding.encode() + (f" {self.delay!r}".encode() if self.delay else b""))
        if self.models:
            sha.update(json.dumps(self.models, sort_keys=True).encode())
        for name, numbers in sorted(self._tensors().items()):
            sha.update(f"{name} {numbers.shape}".encode() + numbers.tobytes())
        return sha.hexdigest()[:8]

    def activation_values(self, spec: NetSpec) -> dict[str, Any]:
        """The activation of the ANN that a spike in every step stands for, for each population.

        A spike of the input stands for 1. A membrane potential of 1 stands for what a spike of pre stands for, over its
        spike value; a spike of a neuron for its threshold times that, so that a lossless conversion has the rates
        ``activation / value``; a relay passes values on.

        Returns
        -------
        dict of str to float or numpy.ndarray
            NaN where spikes of different value meet, and after.
        """
        values: dict[str, Any] = {spec.input.name: 1.0}
        units = {spec.input.name: 1.0}  # what a potential of 1 stands for, where its spikes go
        for population in spec.populations[1:]:
            name, unit = population.name, arriving_value(spec, units, population.name)
            if population.kind == "max":
                (projection,) = spec.incoming(name)
                values[name], units[name] = values[projection.pre], units[projection.pre]
                continue
            values[name] = unit * (1.0 if population.kind == "relay" else self.thresholds[name])
            of_each = np.ravel(values[name] / self.spike_values.get(name, 1.0))
            units[name] = float(of_each[0]) if np.allclose(of_each, of_each[0]) else np.nan
        return values

    def _tensors(self) -> dict[str, np.ndarray]:
        return {
            f"{kind}/{name}": np.asarray(values, dtype=np.float32, order="C")
            for kind, attribute in NUMBERS.items()
            for name, values in getattr(self, attribute).items()
        }

    def save(self, path: str | os.PathLike) -> None:
        settings = {name: value for name, value in asdict(self).items() if name not in NUMBERS.values()}
        if not self.models:
            del settings["models"]
        header = {"settings": json.dumps(settings), "populations": json.dumps(list(self.thresholds))}
        tensors = self._tensors()
        header["digest"] = content_digest({name: torch.from_numpy(array) for name, array in tensors.items()}, header)
        write_atomically(path, to_bytes(tensors, metadata={FORMAT: json.dumps(header)}))  # of one entry: in one order


def load_conversion(path: str | os.PathLike, network: Checkpoint) -> Conversion:
    """Read a conversion, or thresholds as one; raises UserError unless it is whole and belongs to the checkpoint."""
    path = Path(path)
    try:
        with open(path, "rb") as start:
            first = start.read(9)
    except OSError as error:
        kind = "thresholds" if path.suffix == ".json" else "conversion"
        raise UserError(f"cannot read the {kind} {path}: {os.strerror(error.errno or 0)}") from error
    if first[:1] == b"{" or (path.suffix == ".json" and first[8:] != b"{"):  # safetensors begin with 8 bytes of length
        thresholds = load_thresholds(path, network)
        if network.biases:
            raise UserError(f"{path} holds thresholds alone, but {network.spec.name} has biases; make a conversion")
        return Conversion.of(thresholds)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get(FORMAT, "null"))
            if header is None:
                raise ValueError("another format")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header.get("digest") != content_digest(tensors, header):
            raise ValueError("it is not as it was written")
        numbers: dict[str, Any] = {attribute: {} for attribute in NUMBERS.values()}
        for name in tensors:
            kind, population = name.split("/")
            array = tensors[name].numpy()
            numbers[NUMBERS[kind]][population] = float(array) if array.ndim == 0 else array
        numbers["thresholds"] = {name: numbers["thresholds"][name] for name in json.loads(header["populations"])}
        conversion = Conversion(**numbers | json.loads(header["settings"]))
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is no conversion of this project, or damaged ({error})") from error
    if conversion.checkpoint != network.digest:
        raise UserError(f"{path} is a conversion of another checkpoint; run sims/calibrate.py for this one")
    check(conversion, network.spec, path)
    return conversion


def check(conversion: Conversion, spec: NetSpec, source: object) -> None:
    """Raise UserError unless a conversion's numbers fit the populations."""
    spiking = {population.name: population for population in spec.spiking}
    emitting = {population.name: population for population in spec.emitting}
    if set(conversion.thresholds) != set(spiking):
        raise UserError(f"{source}: thresholds of {', '.join(conversion.thresholds)} do not fit {spec.name}")
    for name, model in conversion.models.items():
        try:
            fits = isinstance(model["name"], str) and np.isfinite([*model["parameters"].values()]).all()
        except (TypeError, KeyError, AttributeError):
            fits = False
        if name not in spiking or not fits:
            raise UserError(f"{source}: the neuron model of {name} does not fit {spec.name}")
    for kind, attribute in NUMBERS.items():
        for name, values in getattr(conversion, attribute).items():
            try:
                np.broadcast_to(values, (emitting if kind == "value" else spiking)[name].shape)
            except (KeyError, ValueError) as error:
                raise UserError(f"{source}: {kind} of {name} does not fit {spec.name}") from error
            finite = np.isfinite(values) | (np.equal(values, np.inf) & (kind == "threshold"))
            positive = kind not in ("threshold", "value") or (np.asarray(values) > 0)
            if not np.all(finite & positive):
                raise UserError(f"{source}: {kind} of {name}: some numbers are not finite, or not positive")


def pooled_values(spec: NetSpec, values: Mapping[str, Any]) -> dict[str, Any]:
    """Spike values of IF populations, and of the max pooling after them: those of the spikes that it passes on."""
    known = dict(values)
    for population in spec.populations:
        if population.kind == "max":
            (projection,) = spec.incoming(population.name)
            if projection.pre in known:
                known[population.name] = known[projection.pre]
    return known


def find_conversion(checkpoint: str | os.PathLike, name: str) -> Path:
    """The file of a conversion beside a checkpoint (a file, or the name of a shipped network)."""
    return find_checkpoint(checkpoint).with_suffix(f".{name}{SUFFIX}")


def open_conversion(choice: str, checkpoint: str | os.PathLike, network: Checkpoint) -> Conversion:
    """The conversion that a command is asked for: a file, or the name of one beside the checkpoint."""
    if choice in VARIANTS and not network.biases:
        return Conversion.of(open_thresholds(choice, checkpoint, network))
    if Path(choice).is_file() or Path(choice).suffix in (".json", ".safetensors") or Path(choice).name != choice:
        return load_conversion(choice, network)
    path = find_conversion(checkpoint, choice)
    if path.is_file():
        return load_conversion(path, network)
    network_file = find_checkpoint(checkpoint)
    start, files = f"{network_file.stem}.", network_file.parent.glob(f"{network_file.stem}.*{SUFFIX}")
    there = [variant for variant in VARIANTS if network_file.with_suffix(f".{variant}.json").is_file()]
    there += sorted(file.name.removeprefix(start).removesuffix(SUFFIX) for file in files)
    raise UserError(
        f"there is no conversion {choice!r} of {network_file.stem}; there are {', '.join(there) or 'none'}, or give a "
        "file; sims/calibrate.py makes them"
    )
