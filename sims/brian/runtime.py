"""Running a network: by Brian2 in this process or as a compiled, cached C++ binary, or by torch."""

import argparse
import sys
from collections.abc import Mapping

import numpy as np

from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.brian.binary import compiler_missing
from sims.simulation.neuron_models import IF, NeuronModel
from sims.simulation.run_input import Simulator

__all__ = ["DENSE", "RUNTIMES", "add_runtime_option", "choose_runtime", "open_simulator"]

RUNTIMES = ("standalone", "cython", "numpy")  # of Brian2
DENSE = "torch"  # without it


def add_runtime_option(parser: argparse.ArgumentParser) -> None:
    """``--runtime``, the same for all commands that run networks."""
    parser.add_argument(
        "--runtime", choices=(*RUNTIMES, DENSE),
        help="by Brian2, as a C++ binary, compiled once, or in this process; or densely by torch, on a GPU if there is "
        "one; without it standalone, or numpy if there is no compiler",
    )  # fmt: skip


def choose_runtime(asked: str | None) -> str:
    """The runtime that was asked for, or else the fastest that this machine has."""
    missing = compiler_missing()
    if asked or not missing:
        return asked or "standalone"
    print(f"no C++ compiler ({missing} is missing): running with numpy, many times slower", file=sys.stderr)
    return "numpy"


def open_simulator(
    spec: NetSpec,
    weights: Mapping[str, np.ndarray],
    runtime: str = "standalone",
    synapses: str = "shared",
    reset: str = "zero",
    quiet: bool = False,
    model: NeuronModel | Mapping[str, NeuronModel] = IF,
    threads: int = 1,
) -> Simulator:
    """A simulator of the network, compiled or fetched from the cache if it is a standalone one.

    Parameters
    ----------
    spec : NetSpec
    weights : mapping of str to numpy.ndarray
    runtime : {'standalone', 'cython', 'numpy', 'torch'}
    synapses : {'shared', 'explicit'}
    reset : {'zero', 'subtract'}
    quiet : bool
        Show no progress bar while compiling.
    model : NeuronModel or mapping of str to NeuronModel
        Of all spiking populations, or of some; the others are IF neurons.
    threads : int
        Of a standalone one, as for :class:`~sims.brian.standalone.StandaloneSimulator`.
    """
    if threads != 1 and runtime != "standalone":
        raise UserError(f"more than one thread needs the runtime standalone, not {runtime}")
    if runtime == "standalone":
        from sims.brian.standalone import StandaloneSimulator

        return StandaloneSimulator(spec, weights, synapses, reset, quiet, model=model, threads=threads)
    if runtime == DENSE:
        import torch  # here, since it takes seconds

        from sims.simulation.reference import ReferenceSimulator

        if synapses != "shared":
            raise UserError(f"the runtime {DENSE} has no {synapses} synapses")
        return ReferenceSimulator(spec, weights, reset, "cuda" if torch.cuda.is_available() else "cpu", model)
    if runtime in RUNTIMES:
        from sims.brian.inprocess import InProcessSimulator  # here, since it imports Brian2, which takes seconds

        return InProcessSimulator(spec, weights, synapses, reset, runtime, model)
    raise ValueError(f"runtime {runtime!r} is none of {(*RUNTIMES, DENSE)}")
