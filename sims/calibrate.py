"""Balance the thresholds of a spiking network: SPIKE-NORM (Algorithm 1 of the paper) or ANN-model normalisation.

SPIKE-NORM runs the spiking network itself in Brian2, layer by layer, and sets each threshold to the largest
synaptic input of one step. An interrupted run goes on where it stopped.
"""

import argparse
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from netspec.checkpoint import Checkpoint, load_checkpoint
from netspec.data import load_images
from netspec.errors import UserError, run_command
from netspec.files import read_json, writable_file, write_json
from netspec.options import CORES, add_options, make_parser
from netspec.thresholds import METHODS, Thresholds, find_thresholds, load_thresholds
from sims.brian.runtime import add_runtime_option, choose_runtime, open_simulator
from sims.conversion.ann_norm import ann_norm
from sims.conversion.spike_norm import spike_norm
from sims.simulation.run_input import RunInput, Simulator


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_options(parser, checkpoint="vgg16-cifar10")
    parser.add_argument(
        "--method", choices=METHODS, default="spike-norm",
        help="spike-norm: the largest input in the SNN; ann-norm: ratios of the ANN's largest activations",
    )  # fmt: skip
    parser.add_argument("--unit", action="store_true", help="threshold 1 in residual units (constraint 2)")
    add_options(parser, percentile=100.0, reset="zero", data="cifar10", images=256, steps=2500, seed=0)
    add_runtime_option(parser)
    add_options(parser, workers=CORES, out=None)
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    checkpoint = load_checkpoint(options.checkpoint)
    unit = {population.name: 1.0 for population in checkpoint.spec.residual} if options.unit else {}
    if options.unit and not unit:
        raise UserError(f"--unit is for residual networks; {checkpoint.spec.name} has no residual units")
    source = load_images(options.data, checkpoint.spec.input.shape, checkpoint.classes, "train")
    x = checkpoint.encode(source.random(options.images, options.seed).images)
    wanted = Thresholds(
        unit,
        options.method,
        checkpoint.digest,
        options.percentile,
        options.images,
        source.source,
        options.seed,
        unit=options.unit,
    )
    out = writable_file(options.out or find_thresholds(options.checkpoint, wanted.variant))
    unfinished = out.with_name(f".{out.name}.unfinished")
    if options.method == "spike-norm":
        wanted = replace(wanted, steps=options.steps, reset=options.reset)
    if not options.out:
        refuse_others(out, wanted, checkpoint)
    if options.method == "ann-norm":
        values = ann_norm(checkpoint.spec, checkpoint.weights, x, options.percentile, unit)
    else:
        RunInput(x[:1], {}, options.steps, measured=[checkpoint.spec.output.name]).checked(checkpoint.spec)
        runtime = choose_runtime(options.runtime)
        simulator = open_simulator(checkpoint.spec, checkpoint.weights, runtime, "shared", options.reset)
        workers = options.workers if runtime == "standalone" else 1
        values = resumable_spike_norm(simulator, x, wanted, workers, unfinished)
    replace(wanted, values=values).save(out)
    unfinished.unlink(missing_ok=True)
    print("\n".join(f"{name:>8} {value:.4f}" for name, value in values.items()))
    print(f"written: {out}")


def refuse_others(path: Path, wanted: Thresholds, checkpoint: Checkpoint) -> None:
    """Raise UserError if thresholds of the same network, but found in another way, would be lost."""
    try:
        found = load_thresholds(path, checkpoint)
    except UserError:  # none, or of no use
        return
    if replace(found, values=wanted.values) != wanted:
        how = f"{found.images} images, {found.steps} steps, percentile {found.percentile:g}, seed {found.seed}"
        raise UserError(f"{path} holds thresholds from {how}; give --out FILE, or remove it")


def resumable_spike_norm(
    simulator: Simulator, x: np.ndarray, wanted: Thresholds, workers: int, unfinished: Path
) -> dict[str, float]:
    """SPIKE-NORM of all populations that ``wanted`` lacks, with a progress bar; finished ones are kept in a file."""
    settings, known = asdict(wanted), dict(wanted.values)
    if unfinished.is_file():
        earlier = {}
        with suppress(ValueError):  # a broken file is as good as none
            earlier = read_json(unfinished)
        if earlier.get("settings") == settings:
            known = earlier["values"]
            print(f"going on after {list(known)[-1]}")
    total = (len(simulator.spec.spiking) - len(known)) * len(x) * wanted.steps
    with tqdm(total=total, unit="step", unit_scale=True) as bar:

        def finished(name: str, value: float) -> None:
            known[name] = value
            bar.set_description(f"{name} {value:.3f}")
            write_json(unfinished, {"settings": settings, "values": known})

        return spike_norm(
            simulator, x, wanted.steps, wanted.seed, wanted.percentile, dict(known), workers, finished, bar.update
        )


if __name__ == "__main__":
    run_command(main)
