"""What one run is told, and what simulators have in common."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from netspec.conversion import CODINGS as IMAGE_CODINGS
from netspec.conversion import Conversion
from netspec.errors import UserError
from netspec.spec import NetSpec, Population
from netspec.thresholds import RESETS
from sims.simulation.neuron_models import IF, MODELS, NeuronModel, conversion_models
from sims.simulation.recording import Recording
from sims.simulation.wiring import INPUT_GROUPS

__all__ = [
    "CODINGS",
    "EVENT_COLUMNS",
    "MOST_STEPS",
    "Progress",
    "RunInput",
    "Simulator",
    "load_events",
]

CODINGS = (*IMAGE_CODINGS, "events")
EVENT_COLUMNS = ("presentation", "step", "y", "x", "channel", "sign")
MOST_STEPS = 65_535  # spike counts are kept in 16 bits

Progress = Callable[[int], None]


@dataclass(frozen=True)
class RunInput:
    """What one run is told.

    Parameters
    ----------
    x : numpy.ndarray
        float32, (presentations, height, width, channels). As Poisson spikes: signed probabilities per step, in
        [-1, 1]; as a current: any numbers; with given events: of no account but for its shape.
    thresholds : mapping of str to float or numpy.ndarray
        Of every spiking population, positive; one number, or one of each channel, or of each neuron (height, width,
        channels). May miss those after a measured one, which then never fire.
    steps : int
        Time steps of a presentation.
    seed : int
    ids : numpy.ndarray
        Number of each image; with the seed it determines the image's input spikes.
    rasters : sequence of str
        Groups whose spikes are noted, besides the output.
    raster_presentations : int
        For how many presentations, from the first.
    measured : sequence of str
        Populations that do not fire and whose largest synaptic input is noted instead.
    coding : {'poisson', 'current', 'events'}
        How ``x`` is shown: as random spikes (section 4.1), as what it gives the first layer in every step, or not at
        all, but the ``events``.
    events : numpy.ndarray, optional
        int, (events, 6): presentation, step, y, x, channel and sign of each spike of the input.
    constant : mapping of str to numpy.ndarray
        Input of each step to the neurons of a population (a bias), broadcast to its shape.
    initial : mapping of str to numpy.ndarray
        Membrane potentials at the start of each presentation, likewise; 0 for the others.
    spike_values : mapping of str to float or numpy.ndarray
        By what a population's spikes multiply the weights that they cross: one number, or one of each channel; 1 for
        the others.
    delay : float
        Part of the steps after which the output is read: a class is told by what comes later, when rates have settled.
    conversion : Conversion, optional
        From which all this is. A simulator with neurons of another reset or model than it asks for refuses the run.
    """

    x: np.ndarray
    thresholds: Mapping[str, Any]
    steps: int = 2500
    seed: int = 0
    ids: np.ndarray | None = None
    rasters: Sequence[str] = ()
    raster_presentations: int = 1
    measured: Sequence[str] = ()
    coding: str = "poisson"
    events: np.ndarray | None = None
    constant: Mapping[str, Any] = field(default_factory=dict)
    initial: Mapping[str, Any] = field(default_factory=dict)
    spike_values: Mapping[str, Any] = field(default_factory=dict)
    delay: float = 0.0
    conversion: Conversion | None = None

    @classmethod
    def of(cls, x: np.ndarray, conversion: Conversion, steps: int, seed: int = 0, **more: Any) -> RunInput:
        """Images shown as a conversion says; ``more`` are other fields, and may change what it says."""
        told: dict[str, Any] = {"x": x, "steps": steps, "seed": seed, "conversion": conversion}
        told |= {
            name: getattr(conversion, name)
            for name in ("thresholds", "constant", "initial", "spike_values", "coding", "delay")
        }
        return cls(**told | more)

    def checked(self, spec: NetSpec) -> RunInput:
        """Itself with all defaults filled in; raises UserError if it does not fit the network."""
        x = np.ascontiguousarray(self.x, dtype=np.float32)
        if x.shape[1:] != spec.input.shape or not len(x):
            raise UserError(f"{spec.name} takes one or more images of shape {spec.input.shape}, got {x.shape}")
        if self.coding not in CODINGS:
            raise UserError(f"the input's coding must be one of {', '.join(CODINGS)}, got {self.coding!r}")
        if self.events is not None and self.coding != "events":
            raise UserError(f"events are given, but the coding is {self.coding}; they are coding 'events'")
        if self.coding == "poisson" and not (np.abs(x) <= 1).all():
            raise UserError("inputs are spike probabilities with a sign: they must lie in [-1, 1]")
        if not np.isfinite(x).all():
            raise UserError("inputs must be finite numbers")
        if not 1 <= self.steps <= MOST_STEPS:
            raise UserError(f"the number of steps must be from 1 to {MOST_STEPS}, got {self.steps}")
        if self.numbers.shape != (len(x),):
            raise UserError(f"{len(x)} images need as many numbers, got ids of shape {self.numbers.shape}")
        if len(x) * self.steps >= 2**31:
            raise UserError(f"{len(x)} presentations of {self.steps} steps are too many for one run; split the images")
        for name in self.rasters:
            if name not in INPUT_GROUPS and spec[name] not in spec.emitting:
                raise UserError(
                    f"{name} does not spike; a raster shows {', '.join(INPUT_GROUPS)} or a spiking population"
                )
        if not 0 <= self.delay < 1:
            raise UserError(f"the delay is a part of the steps, at least 0 and less than 1, got {self.delay}")
        if self.raster_presentations < 0:
            raise UserError(f"the number of presentations with rasters is at least 0, got {self.raster_presentations}")
        for name in self.measured:
            if spec[name].kind != "if":
                raise UserError(
                    f"{name} has no threshold to balance; only the input of spiking populations is measured"
                )
        thresholds, behind = {}, False
        for population in spec.spiking:
            behind |= population.name in self.measured
            given = self.thresholds.get(population.name, np.inf if behind else np.nan)
            numbers = per_neuron(given, population, "threshold")
            if not (numbers > 0).all():
                raise UserError(
                    f"the threshold of {population.name} must be a positive number, got {float(np.min(given))}"
                )
            thresholds[population.name] = float(numbers.flat[0]) if np.ndim(given) == 0 else numbers
        wanted = self.rasters if self.raster_presentations else ()
        return RunInput(
            x,
            thresholds,
            int(self.steps),
            int(self.seed),
            self.numbers,
            tuple(dict.fromkeys(name for name in wanted if name != spec.output.name)),
            int(self.raster_presentations),
            tuple(dict.fromkeys(self.measured)),
            self.coding,
            checked_events(self.events, spec, len(x), int(self.steps)) if self.coding == "events" else None,
            all_per_neuron(self.constant, spec, "constant input"),
            all_per_neuron(self.initial, spec, "initial potential"),
            checked_values(self.spike_values, spec),
            float(self.delay),
            self.conversion,
        )

    def checked_for(self, spec: NetSpec, reset: str, models: Mapping[str, NeuronModel]) -> RunInput:
        """As :meth:`checked`, for a simulator's neurons: raises UserError if its conversion asks for others.

        A reset to zero and IF neurons, which a simulator has unless told otherwise, may be replaced in all conversions.
        """
        if (wanted := self.conversion) is None:
            return self.checked(spec)
        if wanted.reset not in (RESETS[0], reset):
            raise UserError(
                f"the conversion is for a reset by {wanted.reset}, the simulator's is to {reset}: make it with "
                "reset=conversion.reset, or another conversion by conversion.told(reset)"
            )
        if wanted.model in MODELS:  # of a user's own it knows the name alone
            for name, model in conversion_models(None, wanted, spec).items():
                if model not in (IF, models[name]):
                    raise UserError(
                        f"the conversion is for neurons of the model {model.name} in {name}, the simulator has "
                        f"{models[name].name}, or other parameters: make it with model=conversion_models(None, "
                        "conversion, spec)"
                    )
        return self.checked(spec)

    def probability(self, group: str, presentation: int, step: int) -> np.ndarray:
        """With which each neuron of a group of the input fires in a step, float32; of a checked input."""
        sign, x = INPUT_GROUPS[group], self.x[presentation].ravel()
        if self.coding == "poisson":
            return np.maximum(sign * x, 0)
        probability = np.zeros_like(x)
        if self.events is not None:
            now = self.events.dtype.type(presentation * self.steps + step)  # of the same type: nothing is copied
            first, end = (np.searchsorted(self.events[:, 0], now, side=side) for side in ("left", "right"))
            _, neuron, signs = self.events[first:end].T
            probability[neuron[signs == sign]] = 1
        return probability

    @property
    def numbers(self) -> np.ndarray:
        """The number of each image: ``ids``, or from 0 on."""
        return np.arange(len(self.x)) if self.ids is None else np.asarray(self.ids)

    def describe(self) -> dict:
        """The settings as plain data."""
        return {
            "steps": self.steps,
            "seed": self.seed,
            "images": len(self.x),
            "first_image": int(self.numbers[0]),
            "thresholds": {name: np.asarray(value).tolist() for name, value in self.thresholds.items()},
            "coding": self.coding,
            **({"delay": self.delay} if self.delay else {}),
            "rasters": list(self.rasters),
            "raster_presentations": self.raster_presentations,
        }


def per_neuron(given: Any, population: Population, what: str) -> np.ndarray:
    """A number, or one of each channel or neuron, as float32 of the shape of a population."""
    try:
        numbers = np.broadcast_to(np.asarray(given, dtype=np.float32), population.shape)
    except (ValueError, TypeError) as error:
        shape = np.shape(given)
        raise UserError(f"{what} of {population.name}: {shape} does not fit its shape {population.shape}") from error
    if not np.isfinite(numbers).all() and what != "threshold":
        raise UserError(f"{what} of {population.name} is infinite or not a number (NaN)")
    return np.ascontiguousarray(numbers)


def all_per_neuron(given: Mapping[str, Any], spec: NetSpec, what: str) -> dict[str, np.ndarray]:
    """Flat numbers of the neurons of spiking populations; spike values are of max pooling, too."""
    for name in given:
        if spec[name] not in (spec.emitting if what == "spike value" else spec.spiking):
            raise UserError(f"{name} has no {what}; only spiking populations have")
    return {name: per_neuron(value, spec[name], what).ravel() for name, value in given.items()}


def checked_values(given: Mapping[str, Any], spec: NetSpec) -> dict[str, np.ndarray]:
    """Flat spike values of the neurons of spiking populations, alike in a channel; raises UserError."""
    values = all_per_neuron(given, spec, "spike value")
    for name, value in values.items():
        channels = value.reshape(-1, spec[name].shape[2])
        if (channels != channels[0]).any():
            raise UserError(f"spike values of {name} must be one number or one of each channel")
    return values


def checked_events(events: Any, spec: NetSpec, presentations: int, steps: int) -> np.ndarray:
    """Step since the start of the run, input neuron and sign of each event, in order, int32; raises UserError."""
    given = np.asarray(() if events is None else events)
    if given.ndim != 2 or given.shape[1] != 6 or not np.issubdtype(given.dtype, np.integer):
        raise UserError("events are rows of six integers: presentation, step, y, x, channel, sign")
    for name, column, least, most in zip(
        EVENT_COLUMNS,
        given.T,
        (0, 0, 0, 0, 0, -1),
        (presentations - 1, steps - 1, *(size - 1 for size in spec.input.shape), 1),
        strict=True,
    ):
        if len(column) and not least <= column.min() <= column.max() <= most:
            raise UserError(f"events: {name} must lie between {least} and {most}")
    presentation, step, *place, sign = given.T
    if not sign.all():
        raise UserError("events: the sign must be 1 or -1")
    table = np.empty((len(given), 3), dtype=np.int32)
    table[:, 0] = presentation.astype(np.int64) * steps + step
    table[:, 1] = np.ravel_multi_index(place, spec.input.shape)
    table[:, 2] = sign
    rank = (table[:, 0].astype(np.int64) * spec.input.size + table[:, 1]) * 2 + (sign > 0)
    order = np.argsort(rank, kind="stable")  # fast where they are in order, as kept spikes are
    if (np.diff(rank[order]) == 0).any():
        raise UserError("events: a neuron fires twice in one step")
    return table[order]


def load_events(path: str | os.PathLike) -> np.ndarray:
    """Events of a file with the arrays presentation, step, y, x, channel and sign; rows as of a RunInput."""
    try:
        with np.load(path, allow_pickle=False) as file:
            columns = [np.asarray(file[name]) for name in EVENT_COLUMNS]
        return np.stack([column.astype(np.int64, casting="same_kind") for column in columns], axis=1)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} holds no events: integer arrays {', '.join(EVENT_COLUMNS)} ({error})") from error


class Simulator(Protocol):
    """Something that runs a network."""

    spec: NetSpec

    def run(self, run_input: RunInput, progress: Progress | None = None) -> Recording:
        """Present the images; ``progress`` is called with the number of steps since its last call."""
        ...
