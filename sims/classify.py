"""Let a spiking network classify images, next to its ANN: the job that run_vgg.py does."""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from netspec.ann import ANN, as_spikes
from netspec.checkpoint import Checkpoint, load_checkpoint, write_atomically
from netspec.data import ImageSet, load_images
from netspec.errors import UserError, writable_folder
from sims.recording import Recording
from sims.runtime import RUNTIMES, RunInput, open_simulator
from sims.thresholds import VARIANTS, Thresholds, open_thresholds

__all__ = ["Result", "add_network_options", "add_test_options", "ann_predictions", "classify", "classify_command"]


@dataclass(frozen=True)
class Result:
    """What a classification gave.

    Parameters
    ----------
    recording : Recording
    ann : numpy.ndarray
        The ANN's class of each image.
    table : pandas.DataFrame
        A row for each image: image, true, ann, snn, output_spikes (of the class that won), runner_up (spikes of
        the class behind it).
    summary : dict
        Accuracies, agreement, spikes per neuron, operations, seconds, peak memory and settings, as plain data.
    """

    recording: Recording
    ann: np.ndarray
    table: pd.DataFrame
    summary: dict[str, Any]


def ann_predictions(checkpoint: Checkpoint, images: np.ndarray, batch: int = 250, input_steps: int = 0) -> np.ndarray:
    """Classes of images, uint8 (n, height, width, channels), according to the ANN.

    With ``input_steps`` it sees the mean of so many time steps of input spikes in place of the images.
    """
    ann = ANN.from_weights(checkpoint.spec, checkpoint.weights)
    parts = []
    for start in range(0, len(images), batch):
        x = torch.from_numpy(checkpoint.encode(images[start : start + batch]).transpose(0, 3, 1, 2).copy())
        with torch.no_grad():
            parts.append(ann(as_spikes(x, input_steps) if input_steps else x).argmax(1))
    return torch.cat(parts).numpy()


def classify(
    checkpoint: Checkpoint,
    images: ImageSet,
    thresholds: Thresholds,
    steps: int = 2500,
    runtime: str = "standalone",
    synapses: str = "shared",
    reset: str = "zero",
    seed: int = 0,
    rasters: Sequence[str] = (),
    raster_images: int = 1,
    quiet: bool = False,
) -> Result:
    """Present images to the spiking network and to the ANN.

    Parameters
    ----------
    checkpoint : Checkpoint
    images : ImageSet
    thresholds : Thresholds
    steps : int
        Time steps for each image.
    runtime, synapses, reset
        As for :func:`~sims.runtime.open_simulator`.
    seed : int
        Of the input spikes.
    rasters : sequence of str
        Populations whose spikes are kept, for the first ``raster_images`` images.
    quiet : bool
        Show no progress bars.
    """
    from analysis.metrics import ac_mac_ratio

    seconds = {}
    start = time.perf_counter()
    x = checkpoint.encode(images.images)
    given = RunInput(x, thresholds.values, steps, seed, None, rasters, raster_images).checked(checkpoint.spec)
    ann = ann_predictions(checkpoint, images.images)
    seconds["ann"] = time.perf_counter() - start

    start = time.perf_counter()
    simulator = open_simulator(checkpoint.spec, checkpoint.weights, runtime, synapses, reset, quiet)
    opened = time.perf_counter() - start
    seconds |= getattr(simulator, "seconds", {"build": opened, "compile": 0.0})

    start = time.perf_counter()
    with tqdm(total=len(x) * steps, desc="simulating", unit="step", unit_scale=True, disable=quiet) as bar:
        recording = simulator.run(given, lambda done: bar.update(done - bar.n))
    seconds["simulate"] = time.perf_counter() - start

    snn = recording.predictions()
    spikes = np.sort(recording.output_counts[:, -1], axis=1)
    labels = images.labels
    name = np.array([*images.classes, "?"])
    table = pd.DataFrame(
        {
            "image": np.arange(len(x)),
            "true": name[labels],
            "ann": name[ann],
            "snn": name[snn],
            "output_spikes": spikes[:, -1],
            "runner_up": spikes[:, -2],
        }
    )
    known = labels >= 0
    ratio = ac_mac_ratio(recording)
    operations = {p.name: int(recording.synaptic_operations(p).sum()) for p in checkpoint.spec.projections}
    summary = {
        "images": len(x),
        "ann_accuracy": float((ann == labels)[known].mean()) if known.any() else None,
        "snn_accuracy": float((snn == labels)[known].mean()) if known.any() else None,
        "agreement": float((ann == snn).mean()),
        "agreeing_images": int((ann == snn).sum()),
        "spikes_per_neuron": recording.spikes_per_neuron(),
        "ac_mac_ratio": ratio if np.isfinite(ratio) else None,
        "synaptic_operations": operations,
        "seconds": seconds,
        "peak_memory_bytes": peak_memory(),
        "settings": {
            "network": checkpoint.spec.name,
            "checkpoint": checkpoint.digest,
            "checkpoint_test_error": checkpoint.info.get("test_error"),
            "trained_on": checkpoint.info.get("trained_on"),
            "images": images.source,
            "steps": steps,
            "seed": seed,
            "runtime": runtime,
            "synapses": synapses,
            "reset": reset,
            "thresholds": {"method": thresholds.variant, "percentile": thresholds.percentile},
            "rasters": list(rasters),
            "raster_images": raster_images,
        },
    }
    return Result(recording, ann, table, summary)


def peak_memory() -> int:
    """Largest memory that this process or one of its children has held, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def add_network_options(parser: argparse.ArgumentParser, checkpoint: str) -> None:
    """Options that all commands on a spiking network share."""
    parser.add_argument(
        "--checkpoint", default=checkpoint, metavar="FILE", help="a file, or the name of a shipped network"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the input spikes and of every random choice")


def add_test_options(parser: argparse.ArgumentParser) -> None:
    """Which test images, and how often, of the commands that measure errors."""
    parser.add_argument(
        "--data", default="cifar10", metavar="NAME|DIR",
        help="cifar10 (downloaded once), cifar10-samples, a folder of its binary files, one with train/CLASS/* "
        "and val/CLASS/*, or a folder of images",
    )  # fmt: skip
    parser.add_argument("--images", type=int, help="how many, from the first; None takes all")
    parser.add_argument("--seeds", type=int, default=1, help="how many: --seed, --seed + 1, ...")


def classify_command(
    description: str | None,
    checkpoint: str,
    architecture: str,
    thresholds: str = "spike-norm",
    constraints: Mapping[str, tuple[str, str]] | None = None,
) -> None:
    """The command line around :func:`classify`.

    Parameters
    ----------
    description : str
        For ``--help``.
    checkpoint : str
        The network by default.
    architecture : str
        How the names of acceptable networks begin.
    thresholds : str
        The thresholds by default.
    constraints : mapping of str to (str, str), optional
        Choices of ``--constraints``: the checkpoint and the thresholds that each stands for.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add_network_options(parser, checkpoint)
    parser.add_argument("--reset", choices=("zero", "subtract"), default="zero", help="of the membrane at a spike")
    if constraints:
        parser.add_argument("--constraints", choices=constraints, help="sets checkpoint and thresholds")
    parser.add_argument(
        "--standalone", dest="runtime", action="store_const", const="standalone", default=argparse.SUPPRESS,
        help="same as --runtime standalone",
    )  # fmt: skip
    parser.add_argument("--runtime", choices=RUNTIMES, default="cython", help="C++ binary, or in this process")
    parser.add_argument(
        "--synapses", choices=("shared", "explicit"), default="shared", help="shared weights or stock Synapses"
    )
    parser.add_argument(
        "--data", metavar="NAME|DIR",
        help="cifar10-samples or imagenet-samples (None takes those of the network's size), cifar10 (downloaded once), "
        "a folder of its binary files, one with train/CLASS/* and val/CLASS/*, or a folder of images",
    )  # fmt: skip
    parser.add_argument("--images", type=int, help="how many, from the first; None takes all")
    parser.add_argument("--steps", type=int, default=2500, help="time steps for each image")
    parser.add_argument(
        "--thresholds", default=thresholds, metavar="FILE|METHOD",
        help=f"a file, or one of {', '.join(VARIANTS)}: the file of that name beside the checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--raster", nargs="*", metavar="POPULATION",
        help="populations whose spikes are kept and drawn; None takes four between the first layer and the output",
    )  # fmt: skip
    parser.add_argument("--raster-images", type=int, default=3, help="for how many images, from the first")
    parser.add_argument("--no-photos", action="store_true", help="leave the photographs out of the rasters")
    parser.add_argument("--out", default="output", metavar="DIR", help="where results go")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    options = parser.parse_args()
    if constraints and options.constraints:
        if (options.checkpoint, options.thresholds) != (checkpoint, thresholds):
            raise UserError("--constraints sets checkpoint and thresholds; give either it or them")
        options.checkpoint, options.thresholds = constraints[options.constraints]

    if options.raster_images < 1:
        raise UserError(f"--raster-images must be at least 1, got {options.raster_images}")
    network = load_checkpoint(options.checkpoint)
    if not network.spec.name.startswith(architecture):
        raise UserError(f"{options.checkpoint} is a {network.spec.name}; this command runs a {architecture}")
    if options.raster is None:
        names = [population.name for population in network.spec.spiking]
        options.raster = list(dict.fromkeys(names[k] for k in (0, 2 * len(names) // 5, 4 * len(names) // 5, -1)))
    for name in options.raster:
        if name not in ("input_on", "input_off"):
            network.spec[name]  # complains of an unknown name
    balanced = open_thresholds(options.thresholds, options.checkpoint, network)
    size = network.spec.input.shape[0]
    source = options.data or ("cifar10-samples" if size == 32 else "imagenet-samples")
    images = load_images(source, size, network.classes).first(options.images)
    out = writable_folder(options.out)

    result = classify(
        network,
        images,
        balanced,
        steps=options.steps,
        runtime=options.runtime,
        synapses=options.synapses,
        reset=options.reset,
        seed=options.seed,
        rasters=options.raster,
        raster_images=options.raster_images,
        quiet=options.quiet,
    )
    print_result(result)
    files = save_result(result, images, balanced, options.raster, out, photos=not options.no_photos)
    print("\nwritten: " + " ".join(os.path.relpath(file) for file in files))


def print_result(result: Result) -> None:
    """The table and the figures below it, as text."""
    summary, seconds = result.summary, result.summary["seconds"]
    with pd.option_context("display.max_rows", 60, "display.width", 120):
        print(result.table.to_string(index=False) if len(result.table) <= 100 else result.table)
    percent = {
        key: "unknown" if summary[key] is None else f"{100 * summary[key]:.2f} %"
        for key in ("ann_accuracy", "snn_accuracy")
    }
    rates = summary["spikes_per_neuron"]
    print(f"\nnetwork        {summary['settings']['network']}, {training(summary['settings'])}")
    print(f"ANN accuracy   {percent['ann_accuracy']} of {summary['images']} images")
    print(f"SNN accuracy   {percent['snn_accuracy']} after {summary['settings']['steps']} steps")
    print(f"agreement      {summary['agreeing_images']} of {summary['images']} images")
    print("spikes/neuron  " + " ".join(f"{name} {rate:.1f}" for name, rate in rates.items()))
    ratio = summary["ac_mac_ratio"]
    print(f"AC/MAC ratio   {'unknown' if ratio is None else f'{ratio:.3f}'} (layers driven by IF neurons)")
    print("seconds        " + " ".join(f"{phase} {spent:.2f}" for phase, spent in seconds.items()))
    print(f"peak memory    {summary['peak_memory_bytes'] / 1e6:.0f} MB")


def training(settings: dict[str, Any]) -> str:
    """What the network was trained on, and how well, as far as its checkpoint says."""
    data, error = settings["trained_on"], settings["checkpoint_test_error"]
    reached = "unknown" if error is None else f"{100 * error:.2f} %"
    return (f"trained on {data}, " if data else "") + f"error of its ANN on the whole test set {reached}"


def save_result(
    result: Result,
    images: ImageSet,
    thresholds: Thresholds,
    rasters: Sequence[str],
    out: Path,
    photos: bool = True,
) -> list[Path]:
    """Write recording, thresholds, table, summary and pictures; returns the files."""
    from matplotlib.figure import Figure

    from analysis.metrics import agreement, error
    from analysis.plots import convergence
    from analysis.raster import raster
    from analysis.style import save, style

    recording = result.recording
    files = [out / name for name in ("recording.npz", "thresholds.json", "images.csv", "summary.json")]
    recording.save(files[0])
    thresholds.save(files[1])
    write_atomically(files[2], result.table.to_csv(index=False))
    write_atomically(files[3], json.dumps(result.summary, indent=1) + "\n")

    known = (images.labels >= 0).all()
    shown = range(min(result.summary["settings"]["raster_images"], len(images)))

    def draw(names: Sequence[str]) -> Figure:
        drawn = raster(
            recording,
            names,
            presentations=shown,
            images=images.images if photos else None,
            labels=images.labels if known else None,
            classes=images.classes,
        )
        assert isinstance(drawn, Figure)
        return drawn

    steps = np.unique(np.geomspace(10, recording.steps, 60).astype(int)) if recording.steps > 10 else [recording.steps]
    with style():
        for name in rasters:
            files += save(draw([name]), out / f"raster_{name}")
        if len(rasters) > 1:
            files += save(draw(rasters), out / "raster")
        figure = Figure()
        ax = figure.add_subplot()
        if known:
            accuracy = {"accuracy": 1 - error(recording, images.labels, steps)}
            convergence(ax, steps, accuracy, result.summary["ann_accuracy"], quantity="accuracy")
        else:
            curve = {"agreement": agreement(recording, result.ann, steps)}
            convergence(ax, steps, curve, quantity="agreement with the ANN")
        files += save(figure, out / "accuracy")
    return files
