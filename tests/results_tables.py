"""Tables of results as ``sims/evaluate.py`` writes them, and what is read off the figures of them."""

from pathlib import Path

import numpy as np
import pandas as pd

from sims.evaluation.shards import REPORTED_STEPS

SPIKE, UNIT = ("spike-norm", False, 100, "zero"), ("spike-norm", True, 100, "zero")
SETTINGS = {  # method, unit, percentile, reset
    "vgg16-cifar10": [SPIKE, ("ann-norm", False, 100, "zero"), ("ann-norm", False, 99.9, "subtract")],
    "resnet20-cifar10": [UNIT],
    "resnet20-cifar10-constraint1": [SPIKE, UNIT],
    "resnet20-cifar10-basic": [SPIKE],
    "vgg16-imagenette": [SPIKE],
    "resnet34-imagenette": [UNIT],
}
LAYERS = {"vgg": ("conv1_1", "conv1_2", "output"), "res": ("conv1", "conv2_1_branch", "conv2_1", "output")}


def write_tables(folder: Path, names=tuple(SETTINGS), seeds: str = "0") -> Path:
    """Errors fall from 90 % to 10 %, the increment is 1 point; digests of thresholds look like numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    for place, name in enumerate(names):
        rows, operations = [], []
        for k, setting in enumerate(SETTINGS[name]):
            base = {
                "network": f"{name}-x0.5",
                "checkpoint": "0d15ea5e",
                "data": "test 0a",
                "images": 1000,
                "thresholds": f"0{place}e{k:05}",
            }
            base |= dict(zip(("method", "unit", "percentile", "reset"), setting, strict=True)) | {"seed": seeds}
            for steps in REPORTED_STEPS:
                error = 10 + 80 / (1 + (steps / (100 * (1 + k + place))) ** 3)
                both = {"ann_error": 9.0, "snn_error": error, "increment": error - 9, "agreement": 95.0}
                rows.append(base | {"steps": steps, "snn_error_sd": 0.5 if " " in seeds else np.nan} | both)
            counts = {f"spikes_per_neuron_{layer}": 10.0 / (1 + i + k) for i, layer in enumerate(LAYERS[name[:3]])}
            totals = {"ac_per_image": 3e6, "ac_input_per_image": 2e6, "mac_per_image": 1e6, "ac_mac_ratio": 3.0}
            operations.append(base | {"steps": 2500} | totals | {"spikes_per_neuron_input": 900.0} | counts)
        pd.DataFrame(rows).to_csv(folder / f"{name}-errors.csv", index=False)
        pd.DataFrame(operations).to_csv(folder / f"{name}-operations.csv", index=False)
    return folder


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def curve(ax, name: str) -> np.ndarray:
    return next(line.get_ydata() for line in ax.lines if line.get_label() == name)
