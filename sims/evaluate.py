"""Error of a spiking network on many images: any number of seeds, thresholds and resets, on all cores or a cluster.

Every finished shard of images is a file; the same command again goes on where it stopped. For other machines, start
`dask scheduler`, and `dask worker ADDRESS --nthreads 1 --nworkers CORES` on each of them where this project is
installed, and give --scheduler ADDRESS.
"""

import argparse
import sys
from collections.abc import Mapping

from netspec.ann import ann_predictions
from netspec.checkpoint import Checkpoint, find_checkpoint, load_checkpoint
from netspec.conversion import Conversion, open_conversion
from netspec.data import ImageSet, load_images
from netspec.errors import UserError, run_command
from netspec.files import writable_folder, write_atomically
from netspec.options import CORES, WITHOUT, add_options, make_parser
from netspec.training_images import held_out_images
from sims.brian.runtime import DENSE, add_runtime_option, choose_runtime, open_simulator
from sims.evaluation.cluster import RETRIES, compute
from sims.evaluation.error_tables import operations_table, summary_table, with_earlier
from sims.evaluation.shards import Case, Setting, read_shard, read_shards, shards
from sims.report.diagnosis import MOST_IMAGES, Diagnosis
from sims.simulation.neuron_models import NeuronModel, conversion_models, name_of, with_models
from sims.simulation.run_input import RunInput


def parse_arguments() -> argparse.Namespace:
    parser = make_parser(__doc__)
    add_options(parser, checkpoint="vgg16-cifar10", conversions=["spike-norm"], resets=[], coding=None, model=None)
    add_options(parser, data="cifar10", images=None, steps=2500, seed=0, seeds=1)
    parser.add_argument(
        "--held-out",
        action="store_true",
        help="in place of test images, the training images that training held out, the first --images of them: to "
        "choose a conversion by",
    )
    add_runtime_option(parser)
    parser.add_argument("--shard", type=int, default=50, help="number of images in a task")
    parser.add_argument(
        "--diagnose", action="store_true", help=f"correlate rates with activations, on the first {MOST_IMAGES} images"
    )
    add_options(parser, WITHOUT | {"workers": f"{CORES}, one per core"}, workers=None)
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="a running Dask scheduler, in place of processes of this machine"
    )
    add_options(parser, out="output/evaluation")
    options = parser.parse_args()
    if options.scheduler and options.workers:
        raise UserError("--workers are processes of this machine, and --scheduler has workers of its own; give either")
    return options


def main() -> None:
    options = parse_arguments()
    if options.shard < 1:
        raise UserError(f"--shard must be at least 1, got {options.shard}")
    checkpoint = load_checkpoint(options.checkpoint)
    if checkpoint.spiking:
        raise UserError(f"{checkpoint.spec.name} has no ANN to compare with; sims/run.py runs it")
    if options.held_out:
        everything = held_out_images(checkpoint, options.data)
    else:
        everything = load_images(options.data, checkpoint.spec.input.shape, checkpoint.classes)
    images = everything.first(options.images).of_known_classes()
    conversions = [
        open_conversion(choice, options.checkpoint, checkpoint).told(reset, options.coding)
        for choice in options.conversions
        for reset in options.resets or [None]
    ]
    x = checkpoint.encode(images.images[: options.shard])
    for conversion in conversions:
        RunInput.of(x, conversion, options.steps).checked(checkpoint.spec)
    by_setting, model_of = {}, {}
    for conversion in conversions:
        choices = options.model or [conversion.model]
        models = conversion_models(options.model, conversion, checkpoint.spec)
        drawn = conversion.coding == "poisson" or any(model.draws for model in models.values())
        if timed := sorted({model.name for model in models.values() if model.tells_time}):
            raise UserError(
                f"neuron model {', '.join(timed)} uses t, which goes on from image to image, so that its numbers would "
                "depend on --shard; count steps in a variable of its own (n : 1, and in its update n += 1)"
            )
        if options.seeds > 1 and not drawn:
            raise UserError(f"with a constant current all seeds give the same; {conversion.variant} has no --seeds")
        by = DENSE if options.runtime == DENSE else "brian2"
        setting = Setting.of(checkpoint, everything.provenance, conversion, name_of(choices, models), by)
        told = with_models(conversion, options.model, models) if options.model else conversion
        by_setting[setting], model_of[setting] = told, models
    out = writable_folder(options.out)
    cases = [
        Case(setting, seed, options.steps)
        for setting in by_setting
        for seed in range(options.seed, options.seed + options.seeds)
    ]
    wanted = {case: list(shards(case, len(images), options.shard)) for case in cases}
    if options.diagnose:
        diagnose(checkpoint, images.first(min(MOST_IMAGES, len(images))), cases, by_setting, model_of, options.runtime)
    missing = [shard for case in cases for shard in wanted[case] if read_shard(shard, out) is None]
    failed = {}
    if missing:
        runtime = choose_runtime(options.runtime)
        failed = compute(
            *(missing, checkpoint, by_setting, model_of, images, out),
            *(runtime, options.workers or CORES, options.scheduler),
        )

    whole = [case for case in cases if not any(shard.case == case for shard in failed)]
    if whole:
        tables = [(case, read_shards(wanted[case], out)) for case in whole]
        summary = summary_table(tables, images.labels, ann_predictions(checkpoint, images.images))
        operations = operations_table(tables, checkpoint.spec)
        name = find_checkpoint(options.checkpoint).stem
        kind = "-held-out" if options.held_out else ""  # which no table of test errors is to take in
        paths = {out / f"{name}-errors{kind}.csv": summary, out / f"{name}-operations{kind}.csv": operations}
        for path, table in {path: with_earlier(table, path) for path, table in paths.items()}.items():
            write_atomically(path, table.to_csv(index=False))
        print(summary.drop(columns=["checkpoint", "data"]).to_string(index=False))
        print(f"written: {' '.join(map(str, paths))}")
    for shard, error in failed.items():
        print(f"failed {1 + RETRIES} times: images {shard.start} to {shard.stop - 1}: {error}", file=sys.stderr)
    if failed:
        raise UserError(f"{len(failed)} of {len(missing)} shards failed; run the same command again to retry them")


def diagnose(
    checkpoint: Checkpoint,
    images: ImageSet,
    cases: list[Case],
    conversions: Mapping[Setting, Conversion],
    models: Mapping[Setting, Mapping[str, NeuronModel]],
    runtime: str | None,
) -> None:
    """Print where each conversion loses what the ANN knows, on a few images."""
    ann, x = ann_predictions(checkpoint, images.images), checkpoint.encode(images.images)
    for setting, conversion in conversions.items():
        case = next(case for case in cases if case.setting == setting)
        simulator = open_simulator(
            *(checkpoint.spec, checkpoint.weights, choose_runtime(runtime), "shared", conversion.reset),
            model=models[setting],
        )
        recording = simulator.run(RunInput.of(x, conversion, case.steps, case.seed))
        print(f"{conversion.variant}, {len(images)} images, {case.steps} steps")
        print(Diagnosis.of(checkpoint, conversion, recording, images.images, ann).text())


if __name__ == "__main__":
    run_command(main)
