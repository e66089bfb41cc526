"""The neurons of a network as Brian2 groups: models from text, relays, Poisson input."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
from brian2 import DimensionMismatchError, Equations, Hz, NeuronGroup, PoissonGroup
from brian2.core.base import BrianObjectException
from brian2.core.functions import DEFAULT_FUNCTIONS
from brian2.equations.equations import FLOAT, SUBEXPRESSION, EquationError
from brian2.parsing.expressions import is_boolean_expression
from brian2.units.fundamentalunits import DIMENSIONLESS
from brian2.utils.stringtools import get_identifiers

from netspec.errors import UserError
from netspec.spec import NetSpec, Population
from sims.brian.codeobjects import NumpyTemplates, TemplateRunner, is_standalone
from sims.simulation.neuron_models import IF, NeuronModel

__all__ = ["NeuronStep", "PoissonThresholder", "input_neurons", "max_pooling", "relays", "spiking_neurons"]

EQUATIONS = """
v_th : 1 (constant)            # firing threshold
I : 1 (constant)               # constant input of each step
spike_value : 1 (constant)     # by which its spikes multiply weights; the same in a channel
spike_count : integer          # in this presentation
driven : integer (shared)      # whether any neuron has constant input
measured : integer (shared)    # whether the synaptic input is measured instead of integrated
peak : 1                       # largest synaptic input of one step while measured
lowest : 1 (shared, constant)  # of all thresholds
alike : integer (shared)       # whether they are all the same
"""
RELAY_EQUATIONS = """
v : 1                          # the synaptic input of this step
"""
POOLING_EQUATIONS = """
v : 1                          # 1 where the largest spike count of the window has risen in this step
spike_value : 1 (constant)     # as of the neurons before
spike_count : integer          # in this presentation: the largest of the window
"""
REAL = DIMENSIONLESS, FLOAT
TYPES: dict[str, type] = dict.fromkeys(("v", "v_th", "I", "spike_value", "peak", "lowest"), np.float32)
TYPES |= dict.fromkeys(("spike_count", "measured", "driven", "alike"), np.int32)


@contextmanager
def errors_in_text(models: Mapping[str, NeuronModel]) -> Iterator[None]:
    """Raise UserError where Brian2 does not understand the text of a population's model that is not the IF neuron."""
    try:
        yield
    except (BrianObjectException, EquationError, DimensionMismatchError, SyntaxError) as error:
        own = {name: model.name for name, model in models.items() if model != IF}
        if isinstance(error, BrianObjectException):  # it tells the object, whose name begins with the population's
            own = {name: model for name, model in own.items() if f"'{name}" in str(error)}
        if not own:
            raise
        cause = " ".join(str(error.__cause__ or error).split()).strip("\"'")
        raise UserError(f"neuron model {', '.join(sorted(set(own.values())))}: {cause}") from error


def spiking_neurons(population: Population, model: NeuronModel, reset: str, marks: bool, batch: int = 1) -> NeuronGroup:
    """A population of neurons of a model; ``marks`` tells whether its projections mark the pixels that they reach.

    Of all populations here, ``batch`` is for how many images side by side.
    """
    name = population.name
    potential = Equations(model.equations).get("v")
    if potential is None or potential.type == SUBEXPRESSION or (potential.dim, potential.var_type) != REAL:
        raise UserError(f"neuron model {model.name}: its equations must define v, a number without unit that changes")
    if {"shared", "constant"} & set(potential.flags):
        raise UserError(f"neuron model {model.name}: v must be neither shared nor constant")
    constants = "".join(f"{parameter} : 1 (shared, constant)\n" for parameter in model.parameters)
    try:
        group = NeuronGroup(
            batch * population.size,
            f"{model.equations}\n{constants}{EQUATIONS}",
            threshold=model.threshold,
            reset=f"{model.reset_text(reset)}\nspike_count += 1",
            name=name,
            dtype=TYPES,
            namespace=dict(model.namespace),
        )
    except ValueError as error:  # of flags that equations cannot have
        raise UserError(f"neuron model {model.name}: {error}") from error
    check_names(group, model)
    functions = DEFAULT_FUNCTIONS | {name: value for name, value in model.namespace.items() if callable(value)}
    told = {name: SimpleNamespace(is_boolean=False, _returns_bool=gives_bool(f)) for name, f in functions.items()}
    if not is_boolean_expression(model.threshold.strip(), told | dict(group.variables)):
        raise UserError(f"neuron model {model.name}: its threshold must be a condition, got {model.threshold}")
    pixels = population.size // population.shape[-1] if marks else 0
    NeuronStep(group, model, reset, pixels, when=f"fire_{name}", batch=batch)
    if not is_standalone():  # else they are arguments of the binary
        group.v_th, group.spike_value = np.inf, 1
        for parameter, value in model.parameters.items():
            setattr(group, parameter, value)
    return group


def check_names(group: NeuronGroup, model: NeuronModel) -> None:
    """Raise UserError where a name of its text is none of its own; Brian2 would take it from where a run is called."""
    named = get_identifiers(model.statements) | Equations(model.equations).identifiers
    within = re.findall(r"(?:^|[;\n])\s*(\w+)\s*=(?!=)", model.statements)  # values within a step
    for name in sorted(named - {*within}):
        if not re.fullmatch(r"xi(_\w+)?", name):
            try:
                group.resolve_all([name], {}, user_identifiers=set())
            except KeyError as error:
                raise UserError(f"neuron model {model.name}: {error.args[0]}") from error


def gives_bool(function: object) -> bool:
    """Whether a function of Brian2 gives a condition; ``check_units(result=bool)`` tells so by the unit alone."""
    return getattr(function, "_returns_bool", False) or getattr(function, "_return_unit", None) is bool


def relays(population: Population, batch: int = 1) -> NeuronGroup:
    """A population that passes its synaptic input on within the step."""
    name = population.name
    group = NeuronGroup(
        batch * population.size, RELAY_EQUATIONS, threshold="v != 0", reset="v = 0", name=name, dtype=TYPES
    )
    group.set_event_schedule("spike", when=f"fire_{name}")
    group.resetter["spike"].when = "resets"  # only when its value has crossed all its projections
    return group


def max_pooling(population: Population, batch: int = 1) -> NeuronGroup:
    """A population that fires when the largest spike count of its window rises (:class:`MaxPooling` finds out)."""
    name = population.name
    group = NeuronGroup(
        batch * population.size,
        POOLING_EQUATIONS,
        threshold="v > 0",
        reset="v = 0\nspike_count += 1",
        name=name,
        dtype=TYPES,
    )
    group.set_event_schedule("spike", when=f"fire_{name}")
    group.resetter["spike"].when = f"reset_{name}"
    if not is_standalone():
        group.spike_value = 1
    return group


def input_neurons(spec: NetSpec, name: str, batch: int = 1) -> PoissonGroup:
    """The input's neurons of one sign."""
    size = batch * spec.input.size
    group = PoissonGroup(size, rates=np.zeros(size) * Hz, name=name)
    PoissonThresholder(group, when="fire_input", batch=batch)
    return group


class NeuronStep(TemplateRunner):
    """A neuron's step in one pass: constant input, update, threshold, reset and spike count.

    Takes the place of the group's stock thresholder and resetter and gives the same spikes. Where neurons are moved by
    their input alone, C++ standalone visits only pixels that a projection has found to reach the lowest threshold, and
    marked in the variable ``reached``. A group whose ``measured`` is set does not fire: its ``v`` holds the synaptic
    input of one step, the largest of which is kept for each neuron in ``peak`` (Algorithm 1 of the paper, line 9).

    Parameters
    ----------
    group : NeuronGroup
    model : NeuronModel
    reset : {'zero', 'subtract'}
    pixels : int
        Places of the population that projections mark, each with as many neurons as there are channels; or 0.
    when : str
        Scheduling slot.
    batch : int
        Images side by side.
    """

    def __init__(
        self, group: NeuronGroup, model: NeuronModel, reset: str, pixels: int, when: str, batch: int = 1
    ) -> None:
        variables = ["_spikespace", "v", "peak", "measured", "driven", "alike"]
        sparse = bool(pixels) and is_standalone() and model.moves_by_input_alone
        if sparse:
            group.variables.add_array("reached", size=batch * pixels, dtype=np.int8)
            variables.append("reached")
        reset_text = model.reset_text(reset)
        code = {"constant": "v += I", "update": model.update, "condition": f"_cond = {model.threshold}"}
        code["reset"] = f"{reset_text}\nspike_count += 1"
        for name in ("condition", "reset"):  # for thresholds that are all the same: less memory to read
            code[f"{name}_alike"] = re.sub(r"\bv_th\b", "lowest", code[name])
        settings = {"n": len(group) // batch, "batch": batch, "pixels": pixels if sparse else 1, "sparse": sparse}
        settings["update"] = bool(model.update)
        settings["again"] = sparse and reset_text != "v = 0"
        settings["alone"] = "(" in reset_text  # in one thread: of its functions one may draw random numbers
        TemplateRunner.__init__(
            self, group, "neuron_step", when, f"{group.name}_step", code=code, variables=variables, settings=settings
        )
        for stock in (group.thresholder["spike"], group.resetter.pop("spike")):
            group.contained_objects.remove(stock)
        group.thresholder["spike"] = self  # where a SpikeMonitor looks for its slot
        group.contained_objects.append(self)


class PoissonThresholder(TemplateRunner):
    """Poisson spikes from counted random numbers (:mod:`sims.simulation.stimulus`).

    Takes the place of the stock thresholder of a PoissonGroup, ``rand() < rates * dt``. The spikes of an image
    depend on its key alone: not on the device, nor on the images before it, nor on how many there are.
    """

    def __init__(self, group: PoissonGroup, when: str, batch: int = 1) -> None:
        group.variables.add_array("spike_count", size=len(group), dtype=np.int32)
        variables = ["_spikespace", "rates", "dt", "spike_count"]
        if is_standalone():
            variables.append("t_in_timesteps")
        else:  # numpy serves Cython too: the input is a small part of the work
            group.variables.add_array("step", size=1, dtype=np.int32, scalar=True)
            group.variables.add_array("key", size=1, dtype=np.int64, scalar=True)
            variables += ["step", "key"]
        TemplateRunner.__init__(
            self,
            group,
            "poisson_threshold",
            when,
            f"{group.name}_poisson_thresholder",
            variables=variables,
            settings={"group": group.name, "n": len(group) // batch, "batch": batch},
            codeobj_class=None if is_standalone() else NumpyTemplates,
        )
        group.contained_objects.remove(group.thresholder["spike"])
        group.thresholder["spike"] = self
        group.contained_objects.append(self)
