"""The torch module of a NetSpec: ReLUs for integrate-and-fire neurons, no batch norm; biases only if it has some."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from math import prod, sqrt
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from netspec.checkpoint import Checkpoint
from netspec.errors import UserError
from netspec.spec import NetSpec, Population, Projection, both, sides

__all__ = [
    "ANN",
    "RMSScale",
    "ann_activations",
    "ann_peaks",
    "ann_predictions",
    "as_spikes",
    "fire",
    "in_steps",
    "largest",
    "padded",
]

BOUND_QUANTILE = 0.999  # of the positive activations, below which learned bounds do not begin
LEAST_BOUND = 1e-3
BRANCH_GAIN = 0.25  # residual branches begin small, as with the paper's initialisation of them


class RMSScale(nn.Module):
    """Divide each channel by its root mean square over the batch and multiply it by a learned gain.

    No mean is subtracted and nothing is added, so that with the running mean square the scale folds into
    the weights: the network that is converted has neither bias nor batch norm. It is no part of the
    paper's training.
    """

    momentum = 0.1
    eps = 1e-5
    mean_square: Tensor

    def __init__(self, channels: int, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((channels,), gain))
        self.register_buffer("mean_square", torch.ones(channels))

    def scale(self) -> Tensor:
        """The factor on each channel that is folded into the weights, shape (channels,)."""
        return self.gain * torch.rsqrt(self.mean_square + self.eps)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            axes = [axis for axis in range(x.ndim) if axis != 1]
            mean_square = x.float().square().mean(dim=axes)
            with torch.no_grad():
                self.mean_square.lerp_(mean_square, self.momentum)
            scale = self.gain * torch.rsqrt(mean_square + self.eps)
        else:
            scale = self.scale()
        return x * scale.to(x.dtype).view(1, -1, *[1] * (x.ndim - 2))


class ANN(nn.Module):
    """The analog network of a NetSpec.

    Parameters
    ----------
    spec : NetSpec
    rms_scale : bool
        Train with an :class:`RMSScale` after every weighted projection but the last.
    init : {'he', 'paper'}
        ``'paper'``: normal weights of standard deviation sqrt(2 / (k**2 n)) with n output channels, and
        sqrt(2) / (k**2 n) in residual branches (section 7.1). ``'he'``: n input channels.
    centred : bool
        Train with the mean of each neuron's weights subtracted, but those from the (signed) input and into
        the output: what all its inputs have in common, which ReLUs make large, then does not reach it
        (Brock et al. 2021, arXiv:2101.08692). No part of the paper's training.
    levels : int
        Train with ReLUs that are clipped at a learned bound and quantised to so many steps, which is what neurons do
        in so many time steps (Bu et al. 2022, QCFS); 0: ReLUs as the spec has them. See :meth:`set_bounds`.
    time_steps : int
        Train with what neurons really do in so many time steps, which are simulated: activations are rates, gradients
        those of ReLUs clipped at a learned bound (tandem learning, Wu et al. 2021). The image is a constant current,
        potentials begin at half the threshold, which is the bound; each spike takes one away.
    delay : float
        Part of the time steps that passes before rates are read, as of a conversion with a delayed read-out.
    surrogate : bool
        Gradients go through the time steps themselves, with a triangle in place of the derivative of a spike (Neftci
        et al. 2019, arXiv:1901.09948), in place of tandem learning.
    """

    def __init__(
        self,
        spec: NetSpec,
        rms_scale: bool = False,
        init: str = "he",
        centred: bool = False,
        levels: int = 0,
        time_steps: int = 0,
        delay: float = 0.0,
        surrogate: bool = False,
    ) -> None:
        super().__init__()
        self.spec, self.levels, self.time_steps, self.surrogate = spec, levels, time_steps, surrogate
        self.unread = int(delay * time_steps)
        if time_steps and (levels or rms_scale or any(p.kind == "max" for p in spec.populations)):
            raise UserError("time steps are simulated with learned thresholds, without levels, RMS scales, max pooling")
        self.in_steps = in_steps  # or what torch compiles of it
        self.bounds = nn.ParameterDict()
        if levels or time_steps:
            for population in spec.spiking[:-1]:
                self.bounds[population.name] = nn.Parameter(torch.ones(()))
        self.weights, self.biases = nn.ParameterDict(), nn.ParameterDict()
        self.scales = nn.ModuleDict()
        self.centred: set[str] = set()
        for projection in spec.projections:
            if projection.weighted:
                self.weights[projection.name] = nn.Parameter(self._initial(projection, init))
                if centred and projection.pre != spec.input.name and projection.post != spec.output.name:
                    self.centred.add(projection.name)
                if rms_scale and projection.post != spec.output.name:
                    joins = len(spec.incoming(projection.post)) > 1
                    gain = BRANCH_GAIN if joins else 1.0
                    self.scales[projection.name] = RMSScale(spec[projection.post].shape[2], gain)

    def _initial(self, projection: Projection, init: str) -> Tensor:
        shape = self.spec.weight_shape(projection)
        if init == "paper":
            n = shape[0] * prod(shape[2:])
            sd = sqrt(2) / n if projection.residual else sqrt(2 / n)
        elif init == "he":
            sd = sqrt(2 / prod(shape[1:]))
        else:
            raise ValueError(f"init {init!r} is neither 'he' nor 'paper'")
        return torch.randn(shape) * sd

    def forward(self, x: Tensor) -> Tensor:
        """Class scores (images, classes) of images (images, channels, height, width)."""
        return self._run(x)[self.spec.output.name].flatten(1)

    @torch.no_grad()
    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """Activation of every population, (images, channels, height, width); the output before its ReLU."""
        return self._run(x)

    def _run(self, x: Tensor) -> dict[str, Tensor]:
        values = {self.spec.input.name: x}
        steps = {self.spec.input.name: x.repeat(self.time_steps, 1, 1, 1)} if self.time_steps else {}
        for population in self.spec.populations[1:]:
            total = self._arriving(population, values)
            fires = population.kind == "if" and population.name != self.spec.output.name
            if fires:
                total = F.dropout(self._rectified(population, total), population.dropout, self.training)
            if steps and population.name != self.spec.output.name:
                with torch.set_grad_enabled(self.surrogate and torch.is_grad_enabled()):
                    steps[population.name] = self._arriving(population, steps)
                    if fires:
                        told = steps[population.name], self._bound(population), self.time_steps, self.unread
                        steps[population.name], rate = self.in_steps(*told)
                if fires:  # in tandem the gradient passes as if it were the clipped ReLU
                    total = rate if self.surrogate else rate + (total - total.detach())
            values[population.name] = total
        return values

    def _arriving(self, population: Population, values: Mapping[str, Tensor]) -> Tensor:
        """What a population receives along all its projections, and its bias."""
        parts = [self._project(p, values[p.pre]) for p in self.spec.incoming(population.name)]
        total = parts[0] if len(parts) == 1 else torch.stack(parts).sum(0)
        return total + self.biases[population.name] if population.name in self.biases else total

    def _rectified(self, population: Population, x: Tensor) -> Tensor:
        """What a population makes of its input: a ReLU, clipped or quantised where that is asked for."""
        if population.name not in self.bounds:
            return x.clamp(0, population.clip) if population.clip else F.relu(x)
        bound = self._bound(population)
        part = (x / bound).clamp(0, 1)
        if self.levels:
            quantised = torch.floor(part * self.levels + 0.5) / self.levels
            part = part + (quantised - part).detach()  # the gradient passes as if nothing were rounded
        return part * bound

    def _bound(self, population: Population) -> Tensor:
        return self.bounds[population.name].clamp(min=LEAST_BOUND)

    @contextmanager
    def as_saved(self) -> Iterator[None]:
        """For a while the network that a checkpoint has: clipped at the bounds, neither quantised nor in time steps."""
        before = self.levels, self.time_steps
        self.levels = self.time_steps = 0
        try:
            yield
        finally:
            self.levels, self.time_steps = before

    @torch.no_grad()
    def set_bounds(self, x: Tensor) -> None:
        """Let the learned bounds begin where hardly any activation of ReLUs without them is larger."""
        bounds, training = self.bounds, self.training
        self.bounds = nn.ParameterDict()
        self.eval()  # without dropout
        with self.as_saved():
            activations = self.activations(x)
        self.bounds = bounds
        self.train(training)
        for name, bound in bounds.items():
            positive = activations[name][activations[name] > 0].float().sort().values
            if not len(positive):
                raise UserError(f"no ReLU of {name} is active on the first batch; train on plain ReLUs first")
            clip = self.spec[name].clip
            bound.fill_(clip or float(positive[int(BOUND_QUANTILE * (len(positive) - 1))]))

    def described(self) -> NetSpec:
        """The spec, with learned bounds as its clips."""
        clips = {name: max(float(bound.detach()), LEAST_BOUND) for name, bound in self.bounds.items()}
        populations = tuple(replace(p, clip=clips.get(p.name, p.clip)) for p in self.spec.populations)
        return replace(self.spec, populations=populations)

    def _project(self, projection: Projection, x: Tensor) -> Tensor:
        if projection.channels:
            x = x[:, list(projection.channels)]
        x = self._pooled(projection, x)
        stride = both(projection.stride)
        if projection.kind == "identity":
            missing = self.spec[projection.post].shape[2] - x.shape[1]
            return F.pad(x[:, :, :: stride[0], :: stride[1]], (0, 0, 0, 0, 0, missing))
        if projection.kind == "window":
            return largest(projection, x)
        weight = self._weight(projection.name)
        if projection.kind == "conv":
            x, padding = padded(projection, x)
            x = F.conv2d(x, weight, None, stride, padding, both(projection.dilation), projection.groups)
        else:  # a row of a dense weight runs over the neurons in the order of their index: y, x, channel
            x = F.linear(x.permute(0, 2, 3, 1).flatten(1), weight)
            height, width, channels = self.spec[projection.post].shape
            x = x.view(-1, height, width, channels).permute(0, 3, 1, 2)
        return self.scales[projection.name](x) if projection.name in self.scales else x

    def _pooled(self, projection: Projection, x: Tensor) -> Tensor:
        """Averages in front of a projection; of smaller images than the network's, as many as a dense layer has."""
        height, width, _ = self.spec[projection.pre].shape
        if projection.kind == "dense" and x.shape[2:] != (height, width):
            return F.adaptive_avg_pool2d(x, (height // projection.pool, width // projection.pool))
        return F.avg_pool2d(x, projection.pool) if projection.pool > 1 else x

    def _weight(self, name: str) -> Tensor:
        """The weights of a projection before its scale, (post, pre) or (post, pre, kernel, kernel)."""
        weight = self.weights[name]
        if name in self.centred:
            return weight - weight.mean(dim=tuple(range(1, weight.ndim)), keepdim=True)
        return weight

    @torch.no_grad()
    def folded(self) -> dict[str, np.ndarray]:
        """The weights with all scales folded in: those of the network that is converted, float32."""
        folded = {}
        for name in self.weights:
            weight = self._weight(name).detach().float()
            if name in self.scales:
                scale = cast(RMSScale, self.scales[name]).scale()
                scale = scale.repeat(len(weight) // len(scale))
                weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
            folded[name] = weight.cpu().contiguous().numpy().copy()
        return folded

    @classmethod
    def of(cls, network: Checkpoint) -> ANN:
        """A trained network, in evaluation mode."""
        return cls.from_weights(network.spec, network.weights, network.biases)

    @classmethod
    def from_weights(
        cls, spec: NetSpec, weights: Mapping[str, np.ndarray], biases: Mapping[str, np.ndarray] | None = None
    ) -> ANN:
        """The network with given weights (and biases of populations), in evaluation mode."""
        ann = cls(spec)
        ann.load_weights(weights)
        ann.load_biases(biases or {})
        return ann.eval()

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take over weights of all projections, in the shapes of :meth:`folded`."""
        for name, parameter in self.weights.items():
            parameter.copy_(torch.from_numpy(np.asarray(weights[name], dtype=np.float32)))

    def load_biases(self, biases: Mapping[str, np.ndarray]) -> None:
        """Take over biases of populations, one of each channel or of each neuron (height, width, channels)."""
        for name, bias in biases.items():
            of_neurons = np.asarray(bias, dtype=np.float32).reshape(*(1,) * (3 - np.ndim(bias)), *np.shape(bias))
            self.biases[name] = nn.Parameter(torch.from_numpy(of_neurons.transpose(2, 0, 1).copy()))


def fire(
    arriving: Iterable[Tensor],
    threshold: Tensor,
    initial: Tensor,
    spike: Callable[[Tensor, Tensor], Tensor] = torch.ge,
) -> list[Tensor]:
    """Spikes, bool or as ``spike`` makes them of potential and threshold, in each step of IF neurons reset by
    subtraction."""
    v, fired = initial, []
    for now in arriving:
        v = v + now
        fired.append(spike(v, threshold))
        v = v - threshold * fired[-1]
    return fired


def smooth_spike(v: Tensor, threshold: Tensor) -> Tensor:
    """Spikes, 0 or 1, whose derivative is a triangle about the threshold, as wide as it is high."""
    distance = (v / threshold - 1).clamp(-1, 1)
    smooth = distance - 0.5 * distance * distance.abs()
    return (v >= threshold).float() + (smooth - smooth.detach())


def in_steps(arriving: Tensor, threshold: Tensor, steps: int, unread: int = 0) -> tuple[Tensor, Tensor]:
    """Spikes, each worth the threshold, and their mean over the steps but the first ``unread``.

    Potentials begin at half the threshold. ``arriving`` has the steps one after the other in its first dimension, as
    the spikes have.
    """
    worth = threshold.to(arriving.dtype)  # as precise as spikes are, so that each takes away what it brings elsewhere
    exact = worth.float()
    spike = smooth_spike if torch.is_grad_enabled() else torch.ge
    fired = fire((now.float() for now in arriving.unflatten(0, (steps, -1))), exact, exact / 2, spike)
    count = sum(spikes.float() for spikes in fired[unread:])
    sent, rates = torch.cat([spikes * worth for spikes in fired]), count * (exact / (steps - unread))
    return sent.to(arriving.dtype), rates.to(arriving.dtype)


def padded(projection: Projection, x: Tensor, value: float = 0.0) -> tuple[Tensor, tuple[int, int]]:
    """Images with as much around them as a projection needs, unless it is the same on both sides: then how much."""
    top, left, bottom, right = sides(projection.padding)
    if (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


def largest(projection: Projection, x: Tensor) -> Tensor:
    """Max pooling of what is not negative."""
    top, left, bottom, right = sides(projection.padding)
    return F.max_pool2d(F.pad(x, (left, right, top, bottom)), both(projection.kernel), both(projection.stride))


def as_spikes(x: Tensor, steps: int) -> Tensor:
    """The mean over so many time steps of the input spikes that ``x`` in [-1, 1] brings about (section 4.1)."""
    count = torch.full_like(x, steps)
    return x.sign() * torch.binomial(count, x.abs()) / steps


def ann_predictions(checkpoint: Checkpoint, images: np.ndarray, batch: int = 250, input_steps: int = 0) -> np.ndarray:
    """Classes of images, uint8 (n, height, width, channels), according to the ANN.

    With ``input_steps`` it sees the mean of so many time steps of input spikes in place of the images.
    """
    ann = ANN.of(checkpoint)
    parts = []
    for start in range(0, len(images), batch):
        x = torch.from_numpy(checkpoint.encode(images[start : start + batch]).transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            parts.append(ann(as_spikes(x, input_steps) if input_steps else x).argmax(1))
    return torch.cat(parts).numpy()


def ann_activations(checkpoint: Checkpoint, images: np.ndarray) -> dict[str, np.ndarray]:
    """Activations of the ANN for uint8 images, (images, channels, height, width) for each population."""
    x = torch.from_numpy(checkpoint.encode(images).transpose(0, 3, 1, 2).copy())
    activations = ANN.of(checkpoint).activations(x)
    return {name: values.numpy() for name, values in activations.items()}


def ann_peaks(network: Checkpoint, x: np.ndarray) -> dict[str, Tensor]:
    """Largest activation of each neuron over encoded images, (channels, height, width) for each population."""
    ann, peaks = ANN.of(network), dict[str, Tensor]()
    for part in np.array_split(x, max(1, len(x) // 64)):
        for name, values in ann.activations(torch.from_numpy(part.transpose(0, 3, 1, 2).copy())).items():
            peaks[name] = torch.maximum(peaks[name], values.amax(0)) if name in peaks else values.amax(0)
    return peaks
