"""The same network with weights of another scale, by which its residual units spike as much as is asked.

A ReLU passes positive factors on: what arrives at a layer can be multiplied by a number, and what it sends be divided
by it, without a change in what the network computes (cross-layer equalisation, Nagel et al. 2019, arXiv:1906.04721).
Free thresholds follow such factors. Thresholds of residual units are all 1 (section 6.2 of the paper), so that there
the scale that training happened to leave tells how much layers spike: rarely, and they answer late; often, and they
lose much in resets to zero. Here it is chosen. Layers before the units get activations of at most 1.
"""

import argparse
from dataclasses import replace

import numpy as np

from netspec.ann import ann_peaks
from netspec.checkpoint import Checkpoint, load_checkpoint, not_over_network, save_checkpoint
from netspec.errors import UserError, run_command
from netspec.files import writable_file
from netspec.options import add_options, make_parser, number
from netspec.spec import NetSpec
from netspec.training_images import random_training_images

__all__ = ["equalise", "joined", "scaled"]

PASSING = ("identity", "window")  # kinds of projections that leave what they carry as it is


def joined(spec: NetSpec) -> dict[str, str]:
    """Of each population the first one that must have the same factor, being joined with it by identities."""
    first = {population.name: population.name for population in spec.populations}
    for projection in spec.projections:
        if projection.kind in PASSING:
            pair = first[projection.pre], first[projection.post]
            kept = next(name for name in first if name in pair)
            first = {name: kept if other in pair else other for name, other in first.items()}
    return first


def scaled(checkpoint: Checkpoint, factors: dict[str, float]) -> Checkpoint:
    """A network without biases, the activations of each population multiplied by its factor, 1 for those not named."""
    spec, factor = checkpoint.spec, {p.name: 1.0 for p in checkpoint.spec.populations} | factors
    weights = {
        p.name: (checkpoint.weights[p.name] * (factor[p.post] / factor[p.pre])).astype(np.float32)
        for p in spec.projections
        if p.weighted
    }
    populations = tuple(replace(p, clip=p.clip * factor[p.name]) for p in spec.populations)
    return replace(checkpoint, spec=replace(spec, populations=populations), weights=weights)


def equalise(checkpoint: Checkpoint, x: np.ndarray, peak: float = 1.0, inside: float = 0.5) -> Checkpoint:
    """Scale each layer by a power of two, the largest for which its activations are at most as large as is asked.

    Parameters
    ----------
    checkpoint : Checkpoint
        A residual network.
    x : numpy.ndarray
        Encoded training images, (images, height, width, channels).
    peak : float
        Of the layer before the residual units and their junctions, which identities join.
    inside : float
        Of the layers inside the units, in parts of ``peak``.

    Returns
    -------
    Checkpoint
        Of the same scores: input and output keep their scales.

    Raises
    ------
    UserError
        If there are no residual units without biases, or a layer is never active on these images.
    """
    spec, first = checkpoint.spec, joined(checkpoint.spec)
    stream = {first[projection.post] for projection in spec.projections if projection.kind == "identity"}
    inner = {first[population.name] for population in spec.residual} - stream
    if not stream or not inner or checkpoint.biases:
        raise UserError(
            f"{spec.name} has no residual units whose thresholds must be 1 (it has biases, no identities, or no layers "
            "that are marked as residual): its thresholds are free, and there is nothing to equalise"
        )
    largest = dict.fromkeys(first, 0.0)
    for name, peaks in ann_peaks(checkpoint, x).items():
        largest[first[name]] = max(largest[first[name]], float(peaks.max()))
    factors = {}
    for name, group in first.items():
        if group not in (first[spec.input.name], first[spec.output.name]):
            if not largest[group]:
                raise UserError(f"{group} is never active on these images; use more of them")
            wanted = peak if group in stream else peak * inside if group in inner else 1.0
            factors[name] = float(2.0 ** np.floor(np.log2(wanted / largest[group])))
    return scaled(checkpoint, factors)


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__, "python -m netspec.equalise")
    add_options(parser, checkpoint="resnet20-cifar10", data="cifar10", images=256, seed=0)
    parser.add_argument(
        "--peak",
        type=number("--peak", float, above=0, most=1000),
        default=1.0,
        help="most that activations of junctions may be, where those of the layers before are at most 1",
    )
    parser.add_argument(
        "--inside",
        type=number("--inside", float, least=1e-3, most=1),
        default=0.5,
        help="the same inside units, in parts of it",
    )
    parser.add_argument("--half", action="store_true", help="store weights as float16, which rounds small ones")
    add_options(parser, out="output/equalised.safetensors")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    checkpoint = load_checkpoint(options.checkpoint)
    if checkpoint.spiking:
        raise UserError(f"{checkpoint.spec.name} was brought in as a spiking network: its thresholds are part of it")
    source = random_training_images(checkpoint, options.data, options.images, options.seed)
    out = not_over_network(writable_file(options.out, ".safetensors"), options.checkpoint, "the equalised one")
    x = checkpoint.encode(source.images)
    found = equalise(checkpoint, x, options.peak, options.inside)
    told = {name: getattr(options, name) for name in ("peak", "inside", "images", "seed")}
    info = {**checkpoint.info, "equalised": {"from": checkpoint.digest, "source": source.source, **told}}
    save_checkpoint(replace(found, info=info), out, np.float16 if options.half else np.float32)
    print(f"written: {out}")


if __name__ == "__main__":
    run_command(main)
