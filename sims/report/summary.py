"""What one run gave: a row for each image, accuracies, spikes, operations, settings; printed and saved."""

import json
import platform
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from netspec import __version__
from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from netspec.data import ImageSet
from netspec.files import write_atomically
from sims.report.diagnosis import Diagnosis
from sims.simulation.metrics import ac_mac_ratio, layerwise_ac_mac_ratio, whole_energy
from sims.simulation.recording import Recording

__all__ = ["Result", "earlier_run", "percent"]


@dataclass(frozen=True)
class Result:
    """A spiking network's answers beside its ANN's.

    Parameters
    ----------
    checkpoint : Checkpoint
    conversion : Conversion
    images : ImageSet
    recording : Recording
    ann : numpy.ndarray, optional
        The ANN's class of each image; None of networks without ANN.
    settings : mapping
        How the network was run, as plain data.
    seconds : mapping of str to float
        Time that each stage took.
    diagnosis : Diagnosis, optional
        Of runs of a few images.
    """

    checkpoint: Checkpoint
    conversion: Conversion
    images: ImageSet
    recording: Recording
    ann: np.ndarray | None
    settings: Mapping[str, Any]
    seconds: Mapping[str, float]
    diagnosis: Diagnosis | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row for each image: image, file, true, ann, snn, output_spikes (of the winner), runner_up (of the next).

        Of an output that does not fire they are the membrane potentials; files are those of a folder.
        """
        counts, v = self.recording.output_at(self.recording.steps)
        fires, one_more = self.conversion.fires(self.recording.spec.output.name), ((0, 0), (1, 0))
        v = v.astype(np.float64).round(3)
        told = np.pad(counts, one_more) if fires else np.pad(v, one_more, constant_values=-np.inf)
        told = np.sort(told, axis=1)
        name = np.array([*self.images.classes, "?"])
        columns = {"true": self.images.labels, "ann": self.ann, "snn": self.recording.predictions()}
        columns = {column: classes for column, classes in columns.items() if classes is not None}
        table = pd.DataFrame({column: name[classes] for column, classes in columns.items()})
        table.insert(0, "image", np.arange(len(table)))
        if self.images.files:
            table.insert(1, "file", self.images.files)
        return table.assign(**{"output_spikes" if fires else "potential": told[:, -1], "runner_up": told[:, -2]})

    @cached_property
    def silent(self) -> int:
        """Images of which no spike reached an output that tells its class by spikes: their class is a guess."""
        output = self.recording.spec.output.name
        if not self.conversion.fires(output):
            return 0
        return int((self.recording.spike_counts(output).sum(axis=(1, 2, 3)) == 0).sum())

    @property
    def without_ann(self) -> str:
        """Why there are no classes of an ANN, if there are none."""
        if self.recording.settings["coding"] == "events" and not self.checkpoint.spiking:
            return "events are no images for the ANN"
        return "there is no ANN to compare with"

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Accuracies, agreement, spikes per neuron, operations, seconds, memory, versions, settings, as plain data."""
        recording, checkpoint, conversion = self.recording, self.checkpoint, self.conversion
        labels, snn = self.images.labels, recording.predictions()
        known, ann = labels >= 0, self.ann
        ratios = {"ac_mac_ratio": ac_mac_ratio(recording), "ac_mac_by_layers": layerwise_ac_mac_ratio(recording)}
        joules = whole_energy(recording)
        return {
            "images": len(labels),
            "images_of_known_class": int(known.sum()),
            "ann_accuracy": float((ann == labels)[known].mean()) if known.any() and ann is not None else None,
            "snn_accuracy": float((snn == labels)[known].mean()) if known.any() else None,
            "agreement": None if ann is None else float((ann == snn).mean()),
            "agreeing_images": None if ann is None else int((ann == snn).sum()),
            "silent_images": self.silent,
            "spikes_per_neuron": recording.spikes_per_neuron(),
            **({} if self.diagnosis is None else {"diagnosis": asdict(self.diagnosis)}),
            **{k: ratio if np.isfinite(ratio) and not checkpoint.spiking else None for k, ratio in ratios.items()},
            "energy_ratio": joules.snn / joules.ann if joules.ann and not checkpoint.spiking else None,
            "synaptic_operations": {
                p.name: int(recording.synaptic_operations(p).sum()) for p in checkpoint.spec.projections
            },
            "seconds": dict(self.seconds),
            "peak_memory_bytes": peak_memory(),
            "versions": versions(),
            "settings": {
                "network": checkpoint.spec.name,
                "checkpoint": checkpoint.digest,
                "checkpoint_test_error": checkpoint.info.get("test_error"),
                "trained_on": checkpoint.info.get("trained_on"),
                "images": self.images.source,
                "steps": recording.steps,
                "seed": recording.settings["seed"],
                "conversion": conversion_told(conversion),
                "coding": recording.settings["coding"],
                **self.settings,
            },
        }

    def text(self) -> str:
        """Table and summary for people."""
        summary, settings = self.summary, self.summary["settings"]
        with pd.option_context("display.max_rows", 60, "display.width", 120):
            table = self.table.to_string(index=False) if len(self.table) <= 100 else str(self.table)
        data, ratio, energy = settings["trained_on"], summary["ac_mac_ratio"], summary["energy_ratio"]
        error = percent(settings["checkpoint_test_error"])
        without = {"agreement": "", "ANN accuracy": self.without_ann}
        if self.checkpoint.spiking:
            without |= {"AC/MAC ratio": "", "energy": "", "network": settings["network"]}
        trained = (f"trained on {data}, " if data else "") + f"error of its ANN on the whole test set {error}"
        known, of_known = summary["images_of_known_class"], f"{summary['images']} images"
        if 0 < known < summary["images"]:
            of_known = f"{known} images of known class"
        additions = "unknown"
        if ratio is not None:
            layers = summary["ac_mac_by_layers"]
            additions = f"{ratio:.3f} by all events after IF neurons, {layers:.3f} by layers, as the paper has it"
        lines = {
            "network": f"{settings['network']}, {trained}",
            "ANN accuracy": f"{percent(summary['ann_accuracy'])} of {of_known}",
            "SNN accuracy": f"{percent(summary['snn_accuracy'])} after {settings['steps']} steps",
            "agreement": f"{summary['agreeing_images']} of {summary['images']} images",
            "spikes/neuron": " ".join(f"{name} {rate:.1f}" for name, rate in summary["spikes_per_neuron"].items()),
            "AC/MAC ratio": additions,
            "energy": f"{'unknown' if energy is None else f'{energy:.2f}'} of the ANN's (arithmetic alone, 45 nm)",
            "seconds": " ".join(f"{phase} {spent:.2f}" for phase, spent in summary["seconds"].items()),
            "peak memory": f"{summary['peak_memory_bytes'] / 1e6:.0f} MB",
        }
        if self.silent:
            guessed = (
                f"no spike reached the output in {self.silent} of {summary['images']} images: their class is a guess"
            )
            lines = {"silent": guessed, **lines}
        if self.ann is None:
            lines = {title: line for title, line in (lines | without).items() if line}
        told = [f"{title:<15}{line}" for title, line in lines.items()]
        if self.diagnosis is not None:
            told.insert(4, self.diagnosis.text())
        return f"{table}\n\n" + "\n".join(told)

    def save(self, out: Path) -> list[Path]:
        """Write recording, conversion, table and summary; returns the files."""
        files = [out / name for name in ("recording.npz", "conversion.safetensors", "images.csv", "summary.json")]
        self.recording.save(files[0])
        self.conversion.save(files[1])
        write_atomically(files[2], self.table.to_csv(index=False))
        write_atomically(files[3], json.dumps(self.summary, indent=1) + "\n")
        return files


def conversion_told(conversion: Conversion) -> dict[str, Any]:
    return {"method": conversion.variant, "percentile": conversion.percentile, "digest": conversion.digest}


def earlier_run(out: Path, now: str, conversion: Conversion, **settings: Any) -> str:
    """What to say if a folder holds the results of another run than this one, which is told as below; or nothing.

    ``settings`` are some that the summary has, which are to be the same, as the conversion is.
    """
    try:
        summary = json.loads((out / "summary.json").read_bytes())
        before = summary["settings"]
        found = f"{before['network']}, {summary['images']} images, {before['steps']} steps, seed {before['seed']}"
        other = [f"{name} {before[name]}" for name, value in settings.items() if before[name] != value]
        told, now_told = before["conversion"], conversion_told(conversion)
        if now_told != now_told | told and (told["method"] != conversion.variant or not other):  # digests came later
            other.insert(0, f"{told['method']} {told.get('digest', '')}".strip())
        found = ", ".join([found, *other])
    except FileNotFoundError:
        found = now
    except (ValueError, KeyError, TypeError, RecursionError):
        found = "broken"
    return "" if found == now else f"{out} holds an earlier run ({found}), which this one replaces; --out keeps both"


def percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.2f} %"


def versions() -> dict[str, str]:
    """Of this project, and of what a run is made with."""
    packages = {name: version(name) for name in ("brian2", "numpy", "torch")}
    return {"going-deeper-in-brian2": __version__, **packages, "python": platform.python_version()}


def peak_memory() -> int:
    """Largest memory that this process or one of its children has held, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
