"""Neuron models as Brian2 text: what a neuron does in a step, once its synaptic input has been added to ``v``.

In each step, in this order: the constant input (``v += I``, where there is any), ``update``, ``threshold``, and for the
neurons that fire ``reset`` and ``on_spike``. All of them may use ``v_th`` (threshold), ``I`` (constant input), ``i``
(index), and units, functions and ``t`` as in all Brian2 text.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from netspec.conversion import Conversion
from netspec.errors import UserError
from netspec.spec import NetSpec
from netspec.thresholds import RESETS

__all__ = [
    "CUBA_LIF", "IF", "LEAKY", "LIF", "MODELS", "OWN_VARIABLES", "REFRACTORY", "NeuronModel", "choose_models",
    "conversion_models", "load_model", "models_of", "name_of", "with_models",
]  # fmt: skip

OWN_VARIABLES = ("v_th", "I", "spike_value", "spike_count", "measured", "peak", "driven", "lowest", "alike", "reached")
WRITTEN = r"(?:^|[;\n])\s*(\w+)\s*(?:\*\*|//|[-+*/%])?=(?!=)"  # names to which text assigns
RESET_TEXT = dict(zip(RESETS, ("v = 0", "v -= v_th"), strict=True))


def as_data(value: Any) -> Any:
    """A number, quantity or Brian2 TimedArray of a namespace as plain data; None for everything else."""
    if hasattr(value, "values") and hasattr(value, "dt"):
        return [as_data(value.values), float(value.dt), str(value.dim)]
    if isinstance(value, (bool, int, float, np.ndarray, np.generic)):  # a quantity is an array
        return [np.asarray(value).tolist(), str(getattr(value, "dim", ""))]
    return None


def with_unit(value: Any) -> bool:
    """Whether it is a Brian2 quantity, which a parameter is not: its number would be one of volts, or of seconds."""
    return str(getattr(value, "dim", 1)) != "1"


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python; everything else as it is."""
    return value.item() if isinstance(value, (np.generic, np.ndarray)) else value


def without_comments(text: str) -> str:
    return re.sub(r"#.*", "", text)


@dataclass(frozen=True)
class NeuronModel:
    """A model of a neuron.

    Parameters
    ----------
    name : str
    equations : str
        Brian2 equations of ``v`` (dimensionless) and of variables of the model's own. What is not constant begins each
        presentation at 0, or at its number in ``initial``, or if that is ``"v"`` where ``v`` does: as the run says.
    update : str
        What happens to every neuron in every step.
    threshold : str
    reset : str
        Of ``v``, at a spike; left out, it is what a run is told: to zero, or by subtraction.
    on_spike : str
        What else a spike does to its neuron.
    parameters : mapping of str to float
        Constants of the model, the same for all neurons, that may be changed without compiling anew.
    initial : mapping of str to float or 'v'
    namespace : mapping of str to object
        Other names in the text, as of a NeuronGroup.
    """

    name: str
    equations: str = "v : 1"
    update: str = ""
    threshold: str = "v >= v_th"
    reset: str = ""
    on_spike: str = ""
    parameters: Mapping[str, float] = field(default_factory=dict)
    initial: Mapping[str, float | str] = field(default_factory=dict)
    namespace: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        written = re.findall(WRITTEN, without_comments("\n".join((self.update, self.reset, self.on_spike))))
        defined = re.findall(r"^\s*(?:d(\w+)\s*/\s*dt\s*=|(\w+)\s*[:=])", self.equations, re.M)
        for name in (*map("".join, defined), *self.parameters):
            if name in OWN_VARIABLES:
                raise UserError(f"neuron model {self.name}: {name} is a variable that every neuron has already")
        for name, value in (*self.parameters.items(), *self.initial.items()):
            number = not isinstance(value, str) and math.isfinite(value) and not with_unit(value)
            if not number and (value != "v" or name in self.parameters):
                raise UserError(f"neuron model {self.name}: {name} must be a finite number, got {value}")
        for name in written:
            if name in OWN_VARIABLES:
                raise UserError(
                    f"neuron model {self.name}: its text cannot change {name}, which the run sets; use a variable of "
                    "its own, such as a : 1, and v >= v_th + a"
                )
        for name in ("parameters", "initial"):
            given = {key: plain(value) for key, value in getattr(self, name).items()}
            object.__setattr__(self, name, given)
        if "refractory" in self.equations:
            raise UserError(f"neuron model {self.name}: write refractoriness into its update (as the model refractory)")

    def reset_text(self, reset: str) -> str:
        """What a spike does to its neuron, by what a run is told of ``v``."""
        if self.reset and reset != RESETS[0]:
            raise UserError(f"neuron model {self.name} has a reset of its own; a reset to {reset} would be ignored")
        return "\n".join(text for text in (self.reset or RESET_TEXT[reset], self.on_spike) if text)

    @property
    def moves_by_input_alone(self) -> bool:
        """Whether nothing happens to a neuron that gets no input, as long as it is below threshold."""
        moving = self.update or re.search(r"/\s*dt\b", without_comments(self.equations))
        return not moving and self.threshold == "v >= v_th"

    @property
    def shipped(self) -> bool:
        """Whether it is one of ``MODELS``, perhaps with other parameters."""
        known = MODELS.get(self.name)
        if known is None or set(self.parameters) != set(known.parameters):
            return False
        return replace(self, parameters=known.parameters) == known

    @property
    def told_whole(self) -> bool:
        """Whether :meth:`describe` tells it from all other models, in every process: a function's code it does not."""
        return all(as_data(value) is not None for value in self.namespace.values())

    @property
    def statements(self) -> str:
        """All of its text but the equations, without comments."""
        return without_comments("\n".join((self.update, self.threshold, self.reset, self.on_spike)))

    @property
    def text(self) -> str:
        return f"{without_comments(self.equations)}\n{self.statements}"

    @property
    def draws(self) -> bool:
        """Whether its text draws random numbers, or may do so by a function of the namespace."""
        drawn = re.search(r"\b(randn?|poisson)\s*\(|\bxi(_\w+)?\b", self.text)
        return bool(drawn) or any(map(callable, self.namespace.values()))

    @property
    def tells_time(self) -> bool:
        """Whether its text uses Brian2's time, which goes on from image to image."""
        return bool(re.search(r"\bt(_in_timesteps)?\b", self.text))

    def describe(self) -> dict[str, Any]:
        """The model as plain data, without its parameters, whose values are no part of a compiled network."""
        text = asdict(self) | {"parameters": sorted(self.parameters), "initial": dict(self.initial)}
        return text | {"namespace": {name: as_data(value) for name, value in sorted(self.namespace.items())}}


IF = NeuronModel("if")  # without leak (equation 2 of the paper)
LEAKY = NeuronModel("leaky", update="v *= leak", parameters={"leak": 0.95})  # what is left of v after a step
REFRACTORY = NeuronModel(
    "refractory",
    equations="v : 1\nheld : 1  # what the last spike left\nrest : integer  # steps in which the neuron takes no input",
    update="rest -= int(rest > 0)\nv = v*int(rest <= 0) + held*int(rest > 0)",
    threshold="v >= v_th and rest <= 0",
    on_spike="held = v\nrest = int(period) + 1",
    parameters={"period": 3},  # in steps
)
LIF = NeuronModel(  # by forward Euler: v += decay*(rest - v) + input, v from rest
    "lif",
    equations="v : 1\nlast : 1  # the potential after the last step",
    update="v -= decay*last\nlast = v",
    on_spike="v += v_reset\nlast = v",
    parameters={"decay": 0.05, "v_reset": 0},
    initial={"last": "v"},
)
CUBA_LIF = NeuronModel(  # likewise, and what arrives adds to a current that decays
    "cuba-lif",
    equations="v : 1\nlast : 1  # the potential after the last step\ncurrent : 1",
    update="current += (v - last) - current_decay*current\nv = last - decay*last + current\nlast = v",
    on_spike="v += v_reset\nlast = v",
    parameters={"decay": 0.05, "current_decay": 0.2, "v_reset": 0},
    initial={"last": "v"},
)
MODELS = {model.name: model for model in (IF, LEAKY, REFRACTORY, LIF, CUBA_LIF)}


def load_model(choice: str) -> NeuronModel:
    """A shipped model by its name, or a user's from a TOML file with the fields of :class:`NeuronModel`."""
    if choice in MODELS:
        return MODELS[choice]
    path = Path(choice)
    try:
        content = tomllib.loads(path.read_text())
        known = {entry.name for entry in fields(NeuronModel)} - {"namespace"}
        if unknown := set(content) - known:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        chosen: dict[str, Any] = {"name": path.stem}
        for name, value in content.items():
            if name in ("parameters", "initial"):
                begins = ("v",) if name == "initial" else ()
                chosen[name] = {key: number if number in begins else float(number) for key, number in value.items()}
            elif isinstance(value, str):
                chosen[name] = value
            else:
                raise ValueError(f"{name} is no text")
        return NeuronModel(**chosen)
    except FileNotFoundError as error:
        raise UserError(f"{choice} is neither a file nor one of the neuron models {', '.join(MODELS)}") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{choice} is no description of a neuron model ({error})") from error


def choose_models(
    choices: Sequence[str], spec: NetSpec, others: NeuronModel | Mapping[str, NeuronModel] = IF
) -> dict[str, NeuronModel]:
    """The model of each spiking population, as a command is told: ``NAME``, ``FILE.toml``, ``POPULATION=NAME``, ...

    ``others`` are those of populations of which nothing is told.
    """
    if len([choice for choice in choices if "=" not in choice]) > 1:
        raise UserError(
            f"one neuron model for all populations, and others as POPULATION=MODEL; got {' '.join(choices)}"
        )
    named: dict[str, NeuronModel] = {}
    for choice in choices:
        population, separated, model = choice.partition("=")
        if population in named:
            raise UserError(f"{population} is given two neuron models")
        if separated:
            named[population] = load_model(model)
        else:
            others = load_model(choice)
    models_of(spec, named)  # complains of an unknown population
    return models_of(spec, others) | named


def conversion_models(choices: Sequence[str] | None, conversion: Conversion, spec: NetSpec) -> dict[str, NeuronModel]:
    """The model of each spiking population: as a command is told, or else the conversion's own."""
    if choices:
        others = conversion_models(None, conversion, spec) if all("=" in choice for choice in choices) else IF
        return choose_models(choices, spec, others)
    if conversion.model not in MODELS:
        raise UserError(
            f"the conversion has its neuron model {conversion.model} by name alone; a run is given it by --model"
        )
    models = choose_models([conversion.model], spec)
    for population, told in conversion.models.items():
        shipped = MODELS.get(told["name"])
        if shipped is None or set(told["parameters"]) - set(shipped.parameters):
            raise UserError(f"the neuron model {told['name']} of {population}, or one of its parameters, is not known")
        models[population] = replace(shipped, parameters={**shipped.parameters, **told["parameters"]})
    return models


def with_models(conversion: Conversion, choices: Sequence[str], models: Mapping[str, NeuronModel]) -> Conversion:
    """A conversion that brings the models with it which a command was told; of a user's own text the name alone."""
    name = name_of(choices, models)
    shipped = all(model.shipped for model in models.values())
    if name in MODELS or not shipped:
        return replace(conversion, model=name, models={})
    others = {name: model for name, model in models.items() if model != IF}
    own = {key: {"name": model.name, "parameters": dict(model.parameters)} for key, model in others.items()}
    return replace(conversion, model=IF.name, models=own)


def name_of(choices: Sequence[str], models: Mapping[str, NeuronModel]) -> str:
    """A model as tables name it: as it was chosen, and a digest of text and parameters unless that is a shipped one.

    A file goes by its name, wherever it lies.
    """
    ends = [choice.rpartition("=") for choice in choices]
    name = " ".join(population + sign + (end if end in MODELS else Path(end).stem) for population, sign, end in ends)
    if name in MODELS and all(model == MODELS[name] for model in models.values()):
        return name
    content = {key: model.describe() | {"parameters": dict(model.parameters)} for key, model in models.items()}
    return f"{name} {hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]}"


def models_of(spec: NetSpec, model: NeuronModel | Mapping[str, NeuronModel] = IF) -> dict[str, NeuronModel]:
    """The model of each spiking population; those that a mapping leaves out are IF neurons."""
    names = [population.name for population in spec.spiking]
    if isinstance(model, NeuronModel):
        return dict.fromkeys(names, model)
    if unknown := set(model) - set(names):
        raise UserError(f"neuron models are for spiking populations of {spec.name}, not {', '.join(sorted(unknown))}")
    return {name: model.get(name, IF) for name in names}
