"""Graphs of NIR for the tests, their equations step by step in double precision, and the simulators of others."""

from collections.abc import Callable, Mapping
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.spec import NetSpec
from sims.brian.runtime import open_simulator
from sims.simulation.neuron_models import conversion_models
from sims.simulation.recording import Recording
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

nir = pytest.importorskip("nir")

DT = 2.0**-10


def exact(rng: np.random.Generator, *shape: int, grid: int = 16) -> np.ndarray:
    """Weights whose sums are exact."""
    return (rng.integers(-grid // 4, grid // 2 + 1, shape) / grid).astype(np.float32)


def full(value: float, *shape: int) -> np.ndarray:
    return np.full(shape, value, dtype=np.float32)


def neurons(kind: str, *shape: int, threshold: float = 1.0, **more: float) -> Any:
    """A node of neurons, with numbers of its own where they are told."""
    told = {"IF": {"r": 1.0}, "I": {"r": 1.0}, "LIF": {"tau": 2 * DT, "r": 1.0, "v_leak": 0.0}}
    told["LI"] = told["LIF"]
    told["CubaLIF"] = {"tau_syn": 2 * DT, "tau_mem": 4 * DT, "r": 4.0, "v_leak": 0.0, "w_in": 2.0}
    fields = told[kind] | more | ({} if kind in ("I", "LI") else {"v_threshold": threshold})
    return getattr(nir, kind)(**{key: full(value, *shape) for key, value in fields.items()})


def chain(shape: tuple[int, ...], *nodes: Any, out: tuple[int, ...]) -> Any:
    """Nodes one after the other."""
    named = {"input": nir.Input({"input": np.array(shape)})}
    named |= {f"n{k}": node for k, node in enumerate(nodes)} | {"output": nir.Output({"output": np.array(out)})}
    names = list(named)
    return nir.NIRGraph(named, list(pairwise(names)), type_check=False)


def conv(weight: np.ndarray, bias: np.ndarray | None = None, plane: Any = None, **more: Any) -> Any:
    options = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | more
    bias = np.zeros(len(weight), dtype=np.float32) if bias is None else bias
    return nir.Conv2d(plane, weight, *options.values(), bias)


def flat(*shape: int) -> Any:
    return nir.Flatten({"input": np.array(shape)}, 0, -1)


def simulated(graph: Any, x: np.ndarray, dt: float = 1.0, subtract: bool = False) -> np.ndarray:
    """The output of each step (steps, ...) by NIR's equations and forward Euler, nested graphs too, in float64."""
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for pre, post in graph.edges:
        before[post].append(pre)
    states: dict[str, Any] = {}
    out = []
    for step in x:
        signals = pass_on(graph, before, torch.from_numpy(step.astype(np.float64)), states, dt, subtract)
        out.append(signals.numpy())
    return np.stack(out)


def pass_on(graph: Any, before: Mapping[str, list[str]], x: torch.Tensor, states: dict, dt: float, subtract: bool):
    signals: dict[str, torch.Tensor] = {}
    for name in TopologicalSorter(before).static_order():
        node, arriving = graph.nodes[name], x
        if before[name]:
            arriving = torch.stack([signals[pre] for pre in before[name]]).sum(0)
        if isinstance(node, nir.NIRGraph):
            inside: dict[str, list[str]] = {key: [] for key in node.nodes}
            for pre, post in node.edges:
                inside[post].append(pre)
            signals[name] = pass_on(node, inside, arriving, states.setdefault(name, {}), dt, subtract)
        elif name in states or type(node).__name__ in ("IF", "LIF", "CubaLIF", "I", "LI"):
            signals[name] = step_of(node, arriving, states.setdefault(name, {}), dt, subtract)
        else:
            signals[name] = linear(node, arriving)
    (last,) = (name for name, node in graph.nodes.items() if isinstance(node, nir.Output))
    return signals[last]


def linear(node: Any, x: torch.Tensor) -> torch.Tensor:
    kind = type(node).__name__
    told = {
        key: torch.from_numpy(np.asarray(value, dtype=np.float64))
        for key, value in vars(node).items()
        if key in ("weight", "bias", "scale")
    }
    if kind in ("Conv1d", "Conv2d"):
        options = {key: plain(getattr(node, key)) for key in ("stride", "padding", "dilation", "groups")}
        run = F.conv1d if kind == "Conv1d" else F.conv2d
        return run(x[None], told["weight"], told["bias"], **options)[0]
    if kind in ("Affine", "Linear"):
        return F.linear(x, told["weight"], told.get("bias"))
    if kind == "Scale":
        return x * told["scale"]
    if kind in ("SumPool2d", "AvgPool2d"):
        sides = [plain(getattr(node, key)) for key in ("kernel_size", "stride", "padding")]
        return F.avg_pool2d(x[None], *sides, divisor_override=1 if kind == "SumPool2d" else None)[0]
    if kind == "Flatten":
        return x.flatten(int(node.start_dim), int(node.end_dim))
    return x


def plain(value: Any) -> Any:
    return value if isinstance(value, (int, str)) else tuple(int(n) for n in np.ravel(value))


def step_of(node: Any, x: torch.Tensor, state: dict, dt: float, subtract: bool) -> torch.Tensor:
    told = {key: torch.from_numpy(np.asarray(v, dtype=np.float64)) for key, v in vars(node).items() if np.ndim(v)}
    rest = told.get("v_leak", torch.zeros(()))
    v = state.get("v", rest * torch.ones_like(x))
    if "tau_syn" in told:
        current = state.get("i", torch.zeros_like(x))
        state["i"] = current + dt / told["tau_syn"] * (told["w_in"] * x - current)
        v = v + dt / told["tau_mem"] * (rest - v + told["r"] * state["i"])
    elif "tau" in told:
        v = v + dt / told["tau"] * (rest - v + told["r"] * x)
    else:
        v = v + dt * told["r"] * x
    if "v_threshold" not in told:
        state["v"] = v
        return v
    fired = v > told["v_threshold"]
    state["v"] = torch.where(fired, v - told["v_threshold"] if subtract else told["v_reset"], v)
    return fired.double()


def shown(spec: NetSpec, steps: int, seed: int = 0, rate: float = 0.3, signed: bool = False) -> tuple[Any, np.ndarray]:
    """Random events as of a RunInput, and as a signal (steps, channels, height, width)."""
    rng = np.random.default_rng(seed)
    signal = (rng.random((steps, *spec.input.shape)) < rate) * rng.choice([-1, 1] if signed else [1], spec.input.shape)
    step, y, x, channel = np.nonzero(signal)
    events = np.stack([0 * step, step, y, x, channel, signal[step, y, x, channel]], axis=1)
    return events, signal.transpose(0, 3, 1, 2).astype(np.float32)


def run_events(
    network: Checkpoint, conversion: Conversion, events: np.ndarray, steps: int, runtime: str = "", **how: Any
) -> Recording:
    """Of the reference, or in Brian2."""
    spec, models = network.spec, conversion_models(None, conversion, network.spec)
    simulator: Any = ReferenceSimulator(spec, network.weights, conversion.reset, model=models)
    if runtime:
        told: dict[str, Any] = {"reset": conversion.reset, "quiet": True, "model": models} | how
        simulator = open_simulator(spec, network.weights, runtime, **told)
    names = [p.name for p in spec.spiking if conversion.fires(p.name)]
    told = {"coding": "events", "events": events, "rasters": names}
    return simulator.run(RunInput.of(np.zeros((1, *spec.input.shape)), conversion, steps, **told))


def spikes(recording: Recording, name: str = "output") -> np.ndarray:
    """Of each step and neuron, 0 or 1, in NIR's order: (presentations * steps, neurons)."""
    shape = recording.spec[name].shape
    steps = recording.settings["images"] * recording.steps
    whole = np.zeros((steps, *shape))
    step, neuron = recording.rasters[name].T
    whole.reshape(steps, -1)[step, neuron] = 1
    return whole.transpose(0, 3, 1, 2).reshape(steps, -1)


def norse_spikes(graph: Any, signal: np.ndarray, dt: float = 0.001) -> np.ndarray:
    """The output of norse; nirtorch 2.6 joins its modules, since norse's own from_nir is wrong where edges branch."""
    pytest.importorskip("norse")
    from norse.torch.utils.import_nir import _import_norse_module

    def module(node: Any) -> Any:
        return _import_norse_module(node, dt=dt, ignore_warnings=True)

    net, state, out = joined(graph, module), None, []
    with torch.no_grad():
        for x in torch.from_numpy(signal):
            y, state = net(x, state)
            out.append(y.flatten().numpy().copy())
    return np.stack(out)


def sinabs_spikes(graph: Any, signal: np.ndarray) -> np.ndarray:
    """The output of sinabs, with one spike a step and no lower bound of potentials, which it has by default."""
    pytest.importorskip("sinabs")
    from sinabs.activation import SingleSpike
    from sinabs.layers import IAFSqueeze
    from sinabs.nir import _import_sinabs_module

    def module(node: Any) -> Any:
        made = _import_sinabs_module(node, batch_size=1, num_timesteps=len(signal))
        if isinstance(made, IAFSqueeze):
            made.spike_fn, made.min_v_mem = SingleSpike, None
        return made

    with torch.no_grad():
        found = joined(graph, module)(torch.from_numpy(signal))
    return np.asarray(found[0] if isinstance(found, tuple) else found).reshape(len(signal), -1)


def joined(graph: Any, module: Callable[[Any], Any]) -> Any:
    nirtorch = pytest.importorskip("nirtorch")
    kinds = (nir.Affine, nir.Linear, nir.Conv2d, nir.Flatten, nir.IF, nir.LIF, nir.CubaLIF, nir.SumPool2d)
    return nirtorch.nir_to_torch(graph, dict.fromkeys(kinds, module))
