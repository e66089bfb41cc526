"""Firing thresholds of a network and where they come from, in a small JSON file."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from netspec.checkpoint import Checkpoint, find_checkpoint
from netspec.errors import UserError
from netspec.files import read_json, write_json
from netspec.spec import NetSpec

__all__ = [
    "METHODS",
    "RESETS",
    "VARIANTS",
    "Thresholds",
    "arriving_value",
    "find_thresholds",
    "load_thresholds",
    "open_thresholds",
]

METHODS = ("spike-norm", "ann-norm")
VARIANTS = (*METHODS, *(f"{method}-unit" for method in METHODS))  # files beside a checkpoint
RESETS = ("zero", "subtract")  # what a spike leaves of the membrane potential: nothing, or what exceeds the threshold
FORMAT = "going-deeper-in-brian2 thresholds 1"


@dataclass(frozen=True)
class Thresholds:
    """The balanced threshold of each spiking population.

    Parameters
    ----------
    values : mapping of str to float
        In the order of the populations.
    method : {'spike-norm', 'ann-norm'}
    checkpoint : str
        ``Checkpoint.digest`` of the network that they belong to.
    percentile : float
        Of the neurons' largest synaptic inputs (activations); 100 is the maximum, the paper's choice.
    images : int
        Number of training images, drawn at random with ``seed``.
    source : str
        Where the images come from.
    seed : int
    steps : int
        Time steps for each image (SPIKE-NORM).
    reset : str
        What a spike left of the membrane potential meanwhile (SPIKE-NORM).
    unit : bool
        Residual units have threshold 1 (constraint 2, section 6.2).
    """

    values: Mapping[str, float]
    method: str
    checkpoint: str
    percentile: float
    images: int
    source: str
    seed: int
    steps: int = 0
    reset: str = "zero"
    unit: bool = False

    def __post_init__(self) -> None:
        """Numbers become what they should be; ValueError for an unknown method or reset."""
        for name in ("percentile", "images", "seed", "steps", "unit"):
            kind = {"percentile": float, "unit": bool}.get(name, int)
            object.__setattr__(self, name, kind(getattr(self, name)))
        if self.method not in METHODS or self.reset not in RESETS:
            raise ValueError(f"method {self.method!r} or reset {self.reset!r} is not known")

    @property
    def variant(self) -> str:
        """Method and kind, one of ``VARIANTS``."""
        return f"{self.method}-unit" if self.unit else self.method

    def save(self, path: str | os.PathLike) -> None:
        write_json(path, {"format": FORMAT} | asdict(self))


def load_thresholds(path: str | os.PathLike, checkpoint: Checkpoint) -> Thresholds:
    """Read thresholds; raises UserError unless they are whole and belong to the checkpoint."""
    try:
        content = read_json(path)
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        thresholds = Thresholds(**content)
        values = {name: float(value) for name, value in thresholds.values.items()}
    except OSError as error:
        raise UserError(f"cannot read the thresholds {path}: {os.strerror(error.errno or 0)}") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is no thresholds file of this project, or truncated ({error})") from error
    if thresholds.checkpoint != checkpoint.digest:
        raise UserError(f"{path} holds the thresholds of another checkpoint; run sims/calibrate.py for this one")
    if list(values) != [population.name for population in checkpoint.spec.spiking]:
        raise UserError(
            f"{path}: thresholds of {', '.join(values)} do not fit the populations of {checkpoint.spec.name}"
        )
    if not all(math.isfinite(value) and value > 0 for value in values.values()):
        raise UserError(f"{path}: thresholds must be positive and finite; run sims/calibrate.py again")
    return thresholds


def open_thresholds(choice: str, checkpoint: str | os.PathLike, network: Checkpoint) -> Thresholds:
    """The thresholds that a command is asked for: a file, or one of ``VARIANTS`` beside the checkpoint."""
    if choice not in VARIANTS:
        return load_thresholds(choice, network)
    path = find_thresholds(checkpoint, choice)
    if not path.is_file():
        unit = " --unit" if choice.endswith("-unit") else ""
        command = f"sims/calibrate.py --checkpoint {checkpoint} --method {choice.removesuffix('-unit')}{unit}"
        there = [variant for variant in VARIANTS if find_thresholds(checkpoint, variant).is_file()]
        others = f" (there are {', '.join(there)})" if there else ""
        raise UserError(f"there are no thresholds {path}{others}; make them with {command}")
    return load_thresholds(path, network)


def find_thresholds(checkpoint: str | os.PathLike, variant: str) -> Path:
    """The thresholds file that stands beside a checkpoint (a file, or the name of a shipped network)."""
    return find_checkpoint(checkpoint).with_suffix(f".{variant}.json")


def arriving_value(spec: NetSpec, values: Mapping[str, float], name: str) -> float:
    """The value of the spikes that reach a population, from those of the populations before; NaN if they differ."""
    arriving = [values[projection.pre] for projection in spec.incoming(name)]
    return arriving[0] if np.allclose(arriving, arriving[0]) else math.nan
