"""Show images to a trained network and let it answer in spikes, beside its ANN.

Sengupta et al. 2019, Going Deeper in Spiking Neural Networks: VGG and Residual Architectures. A trained network
becomes one of integrate-and-fire neurons in Brian2; the class is the output neuron with the most spikes or, where the
output does not fire, with the largest potential.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from netspec.ann import ann_predictions
from netspec.architectures.resnet import DesignConstraints
from netspec.checkpoint import Checkpoint, load_checkpoint
from netspec.conversion import open_conversion
from netspec.data import AnyImages, ImageSet, load_images, no_images
from netspec.errors import UserError, run_command
from netspec.files import writable_folder
from netspec.options import WITHOUT, Unasked, add_options, command_line, make_parser, number
from sims.brian.runtime import add_runtime_option, choose_runtime, open_simulator
from sims.report.diagnosis import MOST_IMAGES, Diagnosis
from sims.report.page import save_page
from sims.report.pictures import rasters_of, save_pictures
from sims.report.summary import Result, earlier_run
from sims.simulation.neuron_models import conversion_models, name_of, with_models
from sims.simulation.run_input import RunInput, load_events
from sims.simulation.wiring import INPUT_GROUPS, SYNAPSES

STEPS = 2500
FAST, FAST_STEPS = "fast", 16  # name of a conversion for few steps, of networks that have one beside them


def main(
    description: str | None = __doc__,
    checkpoint: str = "vgg16-cifar10",
    conversion: str = "spike-norm",
    constraints: Mapping[str, DesignConstraints] | None = None,
) -> None:
    """The command, with the defaults of a network and the choices of ``--constraints``."""
    options = parse_arguments(description, checkpoint, conversion, constraints)

    network = load_checkpoint(options.checkpoint)
    converted = open_conversion(options.conversion, options.checkpoint, network).told(options.reset, options.coding)
    if options.steps is None:
        options.steps = converted.steps or (FAST_STEPS if options.fast else STEPS)
    models = conversion_models(options.model, converted, network.spec)
    if options.model:
        converted = with_models(converted, options.model, models)
    events = load_events(options.events) if options.events else None
    source, images = shown(options, network, events)
    rasters = rasters_of(network.spec, converted) if options.raster is None else options.raster
    for name in set(rasters) - set(INPUT_GROUPS):
        network.spec[name]  # complains of an unknown name
    out = writable_folder(options.out)
    now = f"{network.spec.name}, {len(images)} images, {options.steps} steps, seed {options.seed}"

    x = network.encode(images.images)
    told = {} if events is None else {"coding": "events", "events": events}
    noted = {"rasters": rasters, "raster_presentations": options.raster_images}
    given = RunInput.of(x, converted, options.steps, options.seed, **noted, **told)
    given.checked(network.spec)  # complains at once
    model = name_of(options.model or [converted.model], models)
    same = {"images": images.source, "coding": given.coding, "reset": converted.reset, "model": model}
    if said := earlier_run(out, now, converted, **same):
        print(said, file=sys.stderr)
    runtime, seconds, start = choose_runtime(options.runtime), {}, time.perf_counter()
    if not options.quiet:
        print(f"{now}: {converted.variant}, by {runtime}", flush=True)
    ann = None if network.spiking or source is None else ann_predictions(network, images.images)
    seconds["ann"] = time.perf_counter() - start

    start = time.perf_counter()
    simulator = open_simulator(
        *(network.spec, network.weights, runtime, options.synapses, converted.reset, options.quiet, models),
        threads=options.threads,
    )
    seconds |= getattr(simulator, "seconds", {"build": time.perf_counter() - start, "compile": 0.0})

    start = time.perf_counter()
    total = len(x) * options.steps
    with tqdm(total=total, desc="simulating", unit="step", unit_scale=True, disable=options.quiet) as bar:
        recording = simulator.run(given, bar.update)
    seconds["simulate"] = time.perf_counter() - start

    how = {"runtime": runtime, "threads": options.threads, "synapses": options.synapses, "reset": converted.reset}
    how |= {"model": model, "events": options.events}
    how |= {"rasters": list(rasters), "raster_images": options.raster_images}
    again: dict[str, Any] = {"reset": converted.reset, "runtime": runtime}
    again["coding"] = None if options.events else converted.coding
    again |= {"data": source, "images": len(images), "raster": list(rasters)}
    again |= dict.fromkeys(("fast", "constraints", "out", "quiet", "pdf"))
    how["command"] = command_line(sys.argv[0], vars(options) | again)
    diagnosis = None
    if ann is not None and len(images) <= MOST_IMAGES:
        diagnosis = Diagnosis.of(network, converted, recording, images.images, ann)
    result = Result(network, converted, images, recording, ann, how, seconds, diagnosis)
    print(result.text())
    files, photos = result.save(out), not (options.no_photos or source is None)
    pictures = save_pictures(result, rasters, out, photos, options.pdf)
    files = [save_page(result, pictures, out, photos), *files, *pictures]
    print("\nwritten: " + " ".join(os.path.relpath(file) for file in files))


def shown(options: argparse.Namespace, network: Checkpoint, events: np.ndarray | None) -> tuple[str | None, ImageSet]:
    """Where images come from, and the images: black ones, from nowhere, where events are shown in their place."""
    shape, name = network.spec.input.shape, network.spec.name
    bundled = {(32, 32, 3): "cifar10-samples", (224, 224, 3): "imagenet-samples"}
    wanted = options.images
    if events is not None and wanted is None:
        wanted = int(events[:, 0].max(initial=0)) + 1
        if wanted * options.steps >= 2**31:
            raise UserError(
                f"{options.events}: {wanted} presentations of {options.steps} steps are too many for one run"
            )
    if events is not None and not options.data:
        return None, no_images(wanted, shape, network.classes, options.events)
    if network.spiking and not options.data:
        raise UserError(f"{name} was brought in as a spiking network: give --events, or images by --data")
    if not options.data and shape not in bundled:
        raise UserError(f"{name} sees images of shape {shape}, and none such are bundled; give --data")

    def choose(every: AnyImages) -> AnyImages:
        return every.first(wanted if wanted == options.images else min(wanted, len(every)))

    source = options.data or bundled[shape]
    return source, load_images(source, shape, network.classes, choose=choose)


def parse_arguments(
    description: str | None, checkpoint: str, conversion: str, constraints: Mapping[str, DesignConstraints] | None
) -> argparse.Namespace:
    parser = make_parser(description)
    add_options(
        parser, checkpoint=Unasked(checkpoint), conversion=Unasked(conversion), reset=None, coding=None, model=None
    )
    parser.add_argument(
        "--fast",
        action="store_true",
        help=f"same as --conversion {FAST}, with its steps or {FAST_STEPS}: for networks that have it",
    )
    parser.add_argument(
        "--events", metavar="FILE", help="spikes of the input, as an .npz with presentation, step, y, x, channel, sign"
    )
    if constraints:
        parser.add_argument("--constraints", choices=constraints, help="sets checkpoint and thresholds")
    parser.add_argument(
        "--standalone", dest="runtime", action="store_const", const="standalone", help="same as --runtime standalone"
    )
    add_runtime_option(parser)
    parser.add_argument("--synapses", choices=SYNAPSES, default=SYNAPSES[0], help="shared weights or stock Synapses")
    parser.add_argument(
        "--threads", type=number("--threads", least=1), default=1,
        help="threads of the binary, each with its own pixels: faster where layers are large",
    )  # fmt: skip
    without = WITHOUT | {name: f"{WITHOUT[name]}, or what --events has" for name in ("data", "images")}
    add_options(parser, without, data=None, images=None, steps=None, seed=0)
    parser.add_argument(
        "--raster", nargs="*", metavar="POPULATION",
        help="populations whose spikes are kept and drawn; by default four between the first layer and the output",
    )  # fmt: skip
    parser.add_argument("--raster-images", type=int, default=3, help="for how many images, from the first")
    parser.add_argument("--no-photos", action="store_true", help="no photographs in the raster and the report")
    parser.add_argument("--pdf", action="store_true", help="pictures as PDF, too")
    add_options(parser, out="output", quiet=False)
    options = parser.parse_args()
    if options.fast and not isinstance(options.conversion, Unasked):
        raise UserError("--fast is a conversion; give either it or --conversion")
    if options.events and options.coding:
        raise UserError("--events are the input, and --coding is of images; give either")
    if constraints and options.constraints:
        if options.fast or not all(isinstance(own, Unasked) for own in (options.checkpoint, options.conversion)):
            raise UserError("--constraints sets checkpoint and conversion; give either it or them")
        chosen = constraints[options.constraints]
        options.checkpoint, options.conversion = chosen.checkpoint, chosen.thresholds
    if options.fast:
        options.conversion = FAST
    if options.raster_images < 1:
        raise UserError(f"--raster-images must be at least 1, got {options.raster_images}")
    return options


if __name__ == "__main__":
    run_command(main)
