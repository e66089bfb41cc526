"""A spiking network as fast as dense torch can: what the benchmark compares the Brian2 network with.

Each layer of each step is a convolution or matrix product on the spikes as a dense tensor, then ``v += input``,
``spike = v >= threshold``, reset to zero and a count: no more. Tensors are channels-last and convolution kernels are
packed for oneDNN beforehand, which is what torch's own compiler does, where this build of torch can.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from netspec.errors import UserError
from netspec.spec import NetSpec, Projection
from sims.simulation.stimulus import input_spikes, presentation_keys

WARM_UP = 3  # steps


class DenseSimulator:
    """All neurons of presentations side by side, step by step, with reset to zero.

    Parameters
    ----------
    spec : NetSpec
        Without relays.
    weights : mapping of str to numpy.ndarray
    threads : int
        Of torch.

    Attributes
    ----------
    seconds : dict of str to float
        Time that each population after the input took in the last run, with its incoming projections.
    """

    def __init__(self, spec: NetSpec, weights: Mapping[str, np.ndarray], threads: int = 1) -> None:
        if any(population.kind == "relay" for population in spec.populations):
            raise UserError(f"{spec.name} has relays, which the dense simulation does not know")
        self.spec, self.threads = spec, threads
        self.seconds: dict[str, float] = {}
        with torch_threads(threads), torch.no_grad():
            self._arriving = {p.name: self._operation(p, weights.get(p.name)) for p in spec.projections}

    @torch.no_grad()
    def run(self, inputs: list[Tensor], thresholds: Mapping[str, float]) -> dict[str, np.ndarray]:
        """Simulate one step for each input tensor.

        Parameters
        ----------
        inputs : list of torch.Tensor
            Spikes of the input in each step, (images, channels, height, width), as from :func:`dense_input`.
        thresholds : mapping of str to float
            Of each spiking population.

        Returns
        -------
        dict of str to numpy.ndarray
            Spikes of each neuron of the populations after the input, (images, height, width, channels).
        """
        with torch_threads(self.threads):
            self._simulate(inputs[:WARM_UP], thresholds)
            counts = self._simulate(inputs, thresholds)
        return {name: count.permute(0, 2, 3, 1).numpy().astype(np.int64) for name, count in counts.items()}

    def _simulate(self, inputs: list[Tensor], thresholds: Mapping[str, float]) -> dict[str, Tensor]:
        populations = self.spec.populations[1:]
        v, counts, spikes = (  # channels-last
            {p.name: torch.zeros(len(inputs[0]), *p.shape).permute(0, 3, 1, 2) for p in populations} for _ in range(3)
        )
        spent = dict.fromkeys(v, 0.0)
        operations = [
            (p.name, [(q.pre, self._arriving[q.name]) for q in self.spec.incoming(p.name)], thresholds[p.name])
            for p in populations
        ]
        for signed in inputs:
            spikes[self.spec.input.name] = signed
            for name, incoming, threshold in operations:
                start = time.perf_counter()
                potential, fired = v[name], spikes[name]
                for pre, add_arriving in incoming:
                    add_arriving(potential, spikes[pre])
                torch.ge(potential, threshold, out=fired)
                potential.addcmul_(potential, fired, value=-1)
                counts[name].add_(fired)
                spent[name] += time.perf_counter() - start
        self.seconds = spent
        return counts

    def _operation(self, projection: Projection, weights: np.ndarray | None) -> Callable[[Tensor, Tensor], object]:
        """A function that adds the synaptic input of one step to membrane potentials."""
        pool, stride, padding = projection.pool, projection.stride, projection.padding
        height, width, channels = self.spec[projection.pre].shape

        def pooled(spikes: Tensor) -> Tensor:
            return F.avg_pool2d(spikes, pool) if pool > 1 else spikes

        if weights is None:
            return lambda v, spikes: v[:, :channels].add_(pooled(spikes)[:, :, ::stride, ::stride])
        weight = torch.from_numpy(np.ascontiguousarray(weights))
        if projection.kind == "dense":
            return lambda v, spikes: flat(v).add_(F.linear(flat(pooled(spikes)), weight))
        if not torch.backends.mkldnn.is_available():
            kernel = weight.contiguous(memory_format=torch.channels_last)
            return lambda v, spikes: v.add_(F.conv2d(pooled(spikes), kernel, stride=stride, padding=padding))
        settings = ([padding, padding], [stride, stride], [1, 1], 1)
        packed = torch.ops.mkldnn._reorder_convolution_weight(
            weight, *settings, [1, channels, height // pool, width // pool]
        )
        convolve = torch.ops.mkldnn._convolution_pointwise
        return lambda v, spikes: v.add_(convolve(pooled(spikes), packed, None, *settings, "none", [], ""))


class CompiledDense:
    """The same, each step compiled as a whole by torch's compiler, with weights and spikes in bfloat16 where it has it.

    Weights lose bits, so that spikes differ a little: this is for time alone. Arguments as of :class:`DenseSimulator`.
    """

    def __init__(self, spec: NetSpec, weights: Mapping[str, np.ndarray], threads: int = 1) -> None:
        self.spec, self.threads = spec, threads
        self.dtype = torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
        self._weights = {name: torch.from_numpy(w).to(self.dtype) for name, w in weights.items()}
        for name, kernel in self._weights.items():
            if kernel.ndim == 4:
                self._weights[name] = kernel.contiguous(memory_format=torch.channels_last)
        self._compiled = torch.compile(self._step)

    @torch.no_grad()
    def seconds(self, inputs: list[Tensor], thresholds: Mapping[str, float]) -> float:
        """Time of all steps but the first ones."""
        with torch_threads(self.threads):
            v = {p.name: torch.zeros(len(inputs[0]), *p.shape).permute(0, 3, 1, 2) for p in self.spec.populations[1:]}
            for number, signed in enumerate(inputs):
                if number == WARM_UP:
                    start = time.perf_counter()
                v = self._compiled(signed.to(self.dtype), v, dict(thresholds))
            return time.perf_counter() - start

    def _step(self, signed: Tensor, v: dict[str, Tensor], thresholds: dict[str, float]) -> dict[str, Tensor]:
        spikes, left = {self.spec.input.name: signed}, {}
        for population in self.spec.populations[1:]:
            potential = v[population.name]
            for p in self.spec.incoming(population.name):
                arriving = F.avg_pool2d(spikes[p.pre], p.pool) if p.pool > 1 else spikes[p.pre]
                if p.kind == "dense":
                    arriving = F.linear(flat(arriving), self._weights[p.name])[:, :, None, None]
                else:
                    arriving = F.conv2d(arriving, self._weights[p.name], stride=p.stride, padding=p.padding)
                potential = potential + arriving
            fired = potential >= thresholds[population.name]
            spikes[population.name] = fired.to(self.dtype)
            left[population.name] = potential.masked_fill(fired, 0)
        return left


def dense_input(x: np.ndarray, seed: int, steps: int) -> list[Tensor]:
    """The input spikes of image 0 in each step, the same as in every simulator: -1, 0 or 1, channels-last.

    Parameters
    ----------
    x : numpy.ndarray
        (height, width, channels) in [-1, 1].
    seed, steps : int
        As in a RunInput.
    """
    key = presentation_keys(seed, np.arange(1))[0]
    spikes = (torch.from_numpy(input_spikes(x, key, step).astype(np.float32)) for step in range(steps))
    return [signed.permute(2, 0, 1)[None] for signed in spikes]


def flat(tensor: Tensor) -> Tensor:
    """A view in the order of neurons: (y, x, channel), as in channels-last memory."""
    return tensor.permute(0, 2, 3, 1).reshape(len(tensor), -1)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """So many threads for torch's operations, for a while; UserError where its memory does not suffice."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise UserError("out of memory in dense torch; choose a narrower network or smaller images") from error
    finally:
        torch.set_num_threads(before)
