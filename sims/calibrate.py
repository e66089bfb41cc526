"""Make a conversion: thresholds by SPIKE-NORM (Algorithm 1 of the paper), and others.

spike-norm   runs the spiking network itself, layer by layer, and sets each threshold to the largest
             synaptic input of one step; interrupted, it goes on where it stopped
ann-norm     ratios of the ANN's largest activations
activations  percentiles of the ANN's positive activations; images as a current, potentials that begin at a part of
             the threshold, reset by subtraction: for few steps, any number of them
search       thresholds and potentials by which each layer errs least after --steps steps
"""

import argparse
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from netspec.checkpoint import Checkpoint, load_checkpoint, not_over_network
from netspec.conversion import Conversion, find_conversion, load_conversion
from netspec.errors import UserError, run_command
from netspec.files import read_json, writable_file, write_json
from netspec.options import CORES, WITHOUT, add_options, make_parser, number
from netspec.thresholds import METHODS, Thresholds, find_thresholds
from netspec.training_images import random_training_images
from sims.brian.cache import scratch_folder
from sims.brian.runtime import add_runtime_option, choose_runtime, open_simulator
from sims.conversion.activations import from_activations
from sims.conversion.ann_norm import ann_norm
from sims.conversion.input_peaks import Shortcut
from sims.conversion.search import CORRECTIONS, search
from sims.conversion.spike_norm import spike_norm
from sims.simulation.run_input import RunInput, Simulator

DEFAULTS: dict[str, dict[str, Any]] = {  # what each method listens to, besides images and seed
    "spike-norm": {
        "percentile": 100.0,
        "reset": "zero",
        "steps": 2500,
        "workers": CORES,
        "unit": False,
        "runtime": None,
    },
    "ann-norm": {"percentile": 100.0, "unit": False},
    "activations": {"percentile": 99.9, "initial": 0.5, "steps": 0, "delay": 0.0},
    "search": {"delay": 0.0, "steps": 16, "correction": "none", "channels": False, "percentile": None, "initial": None},
}


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_options(parser, checkpoint="vgg16-cifar10")
    parser.add_argument("--method", choices=DEFAULTS, default="spike-norm", help="see above")
    parser.add_argument("--unit", action="store_true", help="threshold 1 in residual units (constraint 2)")
    without = WITHOUT | {name: by_method(name) for name in ("percentile", "reset", "steps", "workers")}
    without["out"] = "beside the network, named after it"
    add_options(parser, without, percentile=None, reset=None, data="cifar10", images=256, steps=None, seed=0)
    parser.add_argument(
        "--initial", type=number("--initial", float, least=0, most=1),
        help="activations: where potentials begin, as a part of the threshold (0.5); search: the only part to be tried",
    )  # fmt: skip
    parser.add_argument(
        "--channels", action="store_true", help="search: thresholds of each channel, but of clipped ReLUs"
    )
    parser.add_argument("--correction", choices=CORRECTIONS, help="search: of the mean error that is left (none)")
    parser.add_argument(
        "--delay", type=number("--delay", float, least=0, most=0.99),
        help="activations, search: part of the steps after which the output is read (0)",
    )  # fmt: skip
    add_runtime_option(parser)
    add_options(parser, without, workers=None, out=None)
    options = parser.parse_args()
    if options.channels and options.percentile is not None:
        raise UserError("--channels tries parts of each channel's largest activation, and no --percentile")
    if (options.workers or 1) > 1 and options.runtime not in (None, "standalone"):
        raise UserError(f"--workers are of compiled networks; {options.runtime} has none")
    for name in {name for own in DEFAULTS.values() for name in own}:
        value = getattr(options, name)
        if name in DEFAULTS[options.method]:
            setattr(options, name, DEFAULTS[options.method][name] if value is None else value)
        elif value is not None and value is not False:
            raise UserError(f"--{name} says nothing to the method {options.method}")
    return options


def by_method(name: str) -> str:
    """The default of an option in each method that listens to it, for the help."""
    defaults = {method: own[name] for method, own in DEFAULTS.items() if own.get(name) is not None}
    return ", ".join(f"{value or 'for any number'} ({method})" for method, value in defaults.items())


def main() -> None:
    options = parse_arguments()
    checkpoint = load_checkpoint(options.checkpoint)
    if checkpoint.spiking:
        raise UserError(f"{checkpoint.spec.name} was brought in as a spiking network, with the conversion that it is")
    if options.method not in METHODS:
        convert(options, checkpoint)
        return
    if options.method == "spike-norm" and any(population.clip for population in checkpoint.spec.populations):
        raise UserError(
            f"spike-norm knows no clipped ReLUs, as {checkpoint.spec.name} has; take the method activations"
        )
    if options.unit and checkpoint.biases:
        raise UserError(f"--unit is for networks without biases, and {checkpoint.spec.name} has some")
    unit = {population.name: 1.0 for population in checkpoint.spec.residual} if options.unit else {}
    if options.unit and not unit:
        raise UserError(f"--unit is for residual networks; {checkpoint.spec.name} has no residual units")
    source = random_training_images(checkpoint, options.data, options.images, options.seed)
    x = checkpoint.encode(source.images)
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
    find = find_conversion if checkpoint.biases else find_thresholds
    out = place_for(options, find(options.checkpoint, wanted.variant))
    unfinished = out.with_name(f".{out.name}.unfinished")
    if options.method == "spike-norm":
        wanted = replace(wanted, steps=options.steps, reset=options.reset)
    if not options.out:
        refuse_others(out, Conversion.of(wanted), checkpoint)
    if options.method == "ann-norm":
        values = ann_norm(checkpoint, x, options.percentile, unit)
    else:
        RunInput(x[:1], {}, options.steps, measured=[checkpoint.spec.spiking[0].name]).checked(checkpoint.spec)
        runtime = choose_runtime(options.runtime)
        opened = partial(
            open_simulator, weights=checkpoint.weights, runtime=runtime, synapses="shared", reset=options.reset
        )
        simulator = opened(checkpoint.spec)
        workers = options.workers if runtime == "standalone" else 1
        with scratch_folder() if runtime == "standalone" else nullcontext() as folder:
            shortcut = Shortcut(partial(opened, quiet=True), folder) if folder else None
            values = resumable_spike_norm(simulator, x, wanted, workers, unfinished, checkpoint.biases, shortcut)
    found = replace(wanted, values=values)
    told = Conversion.of(found)
    if not options.out:
        out = not_over_others(out, told, checkpoint)
    if checkpoint.biases:
        how = {"coding": told.coding, "reset": wanted.reset, "percentile": told.percentile, "made": told.made}
        Conversion.in_activations(checkpoint, options.method, values, **how).save(out)
    else:
        found.save(out)
    unfinished.unlink(missing_ok=True)
    print("\n".join(f"{name:>8} {value:.4f}" for name, value in values.items()))
    print(f"written: {out}")


def convert(options: argparse.Namespace, checkpoint: Checkpoint) -> None:
    """A conversion for few steps, into its file."""
    source = random_training_images(checkpoint, options.data, options.images, options.seed)
    x = checkpoint.encode(source.images)
    noted = ("initial",) if options.method == "activations" else ("channels", "correction", "initial")
    made = {"source": source.source, "seed": options.seed, "images": options.images}
    made |= {name: getattr(options, name) for name in noted}
    told = {"percentile": options.percentile or 100.0, "steps": options.steps, "delay": options.delay, "made": made}
    wanted = Conversion(checkpoint.digest, options.method, {}, **told)
    out = place_for(options, find_conversion(options.checkpoint, options.method))
    if not options.out:
        refuse_others(out, wanted, checkpoint)
    if options.method == "activations":
        how = (options.percentile, options.initial, made, options.steps, options.delay)
        conversion = from_activations(checkpoint, x, *how)
    else:
        with tqdm(total=len(checkpoint.spec.spiking) - 1, unit="layer", delay=0.1) as bar:

            def finished(name: str) -> None:
                bar.set_description(name)
                bar.update()

            tried = (options.channels, options.correction, options.percentile, options.initial)
            conversion = search(checkpoint, x, options.steps, *tried, finished, made, options.delay)
    if not options.out:
        out = not_over_others(out, conversion, checkpoint)
    conversion.save(out)
    for name, threshold in conversion.thresholds.items():
        print(f"{name:>8} {np.mean(threshold):.4f}" + (" (mean of its channels)" if np.ndim(threshold) else ""))
    print(f"written: {out}")


def place_for(options: argparse.Namespace, usual: Path) -> Path:
    """Where the result goes; raises UserError if it cannot be written, or the network is there."""
    return not_over_network(writable_file(options.out or usual), options.checkpoint, "the conversion")


def refuse_others(path: Path, wanted: Conversion, checkpoint: Checkpoint) -> None:
    """Raise UserError if a conversion of the same network, but found in another way, would be lost."""
    try:
        found = load_conversion(path, checkpoint)
    except UserError:  # none, or of no use
        return
    if any(getattr(found, name) != getattr(wanted, name) for name in ("percentile", "steps", "delay", "made")):
        how = {key: value for key, value in found.made.items() if key != "seed"}
        how |= {"steps": found.steps} if found.steps else {}
        how |= {"percentile": f"{found.percentile:g}", "seed": found.made.get("seed")}
        told = ", ".join(f"{key} {value}" for key, value in how.items())
        raise UserError(f"{path} holds a conversion made with {told}; give --out FILE, or remove it")


def not_over_others(path: Path, found: Conversion, checkpoint: Checkpoint) -> Path:
    """The path; or another one beside it, if there is a conversion made in another way by now."""
    try:
        refuse_others(path, found, checkpoint)
    except UserError as meanwhile:
        print(f"meanwhile, {meanwhile}", file=sys.stderr)
        return path.with_name(f"{found.digest}-{path.name}")
    return path


def resumable_spike_norm(
    simulator: Simulator,
    x: np.ndarray,
    wanted: Thresholds,
    workers: int,
    unfinished: Path,
    biases: Mapping[str, np.ndarray],
    shortcut: Shortcut | None,
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

        how = (wanted.steps, wanted.seed, wanted.percentile, dict(known), workers, finished, bar.update)
        return spike_norm(simulator, x, *how, biases, shortcut)


if __name__ == "__main__":
    run_command(main)
