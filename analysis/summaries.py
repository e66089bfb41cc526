"""Tables for people, from those of results: errors beside the paper's, README's, operations and energy."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from analysis.results import (
    PAPER,
    PAPER_STEPS,
    SETTING,
    describe,
    evaluations,
    largest,
    layers,
    thresholds_of,
    with_width,
)
from netspec.checkpoint import load_checkpoint
from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.evaluation.shards import LATER
from sims.simulation.metrics import JOULES_PER_AC, JOULES_PER_MAC, constant_operations, layerwise_ratio_of_means

TEST_IMAGES = 10_000
FOR_SPIKES = {"steps16"}  # variants whose ANN was not what training was for
# Section 7.4: AC/MAC on ImageNet, with the steps of figure 5
PAPER_RATIOS = {"vgg16": "1.975 (ImageNet, 500 steps)", "resnet34": "2.4 (ImageNet, 2000 steps)"}


def comparison(errors: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Tables 1 to 3: errors at the end of the presentations, and after the paper's 2500 steps, beside the paper's.

    Returns
    -------
    pandas.DataFrame
        With the number of images and seeds; the paper's errors only where network, thresholds and reset are its own.
    """
    rows = []
    for name, table in errors.items():
        for evaluation in evaluations(table):
            for _, row in evaluation[evaluation["steps"].isin([PAPER_STEPS, evaluation["steps"].max()])].iterrows():
                rows.append(
                    {
                        "network": with_width(name, row["network"]),
                        "thresholds": thresholds_of(row),
                        "reset": row["reset"],
                        "input": "spikes" if row["coding"] == "poisson" else row["coding"],
                        "images": f"{row['images']:,}",
                        "seeds": row["seed"].replace(" ", ", "),
                        "steps": row["steps"],
                        "ANN": f"{row['ann_error']:.2f} %",
                        "SNN": _with_sd(row["snn_error"], row["snn_error_sd"]),
                        "increment": f"{row['increment']:+.2f}",
                        "agreement": f"{row['agreement']:.1f} %",
                        "the paper": _published(name, row),
                    }
                )
    return pd.DataFrame(rows)


def headline(errors: Mapping[str, pd.DataFrame], operations: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The paper's networks and their answers in few steps, on all test images of CIFAR-10: README's table.

    A row for each conversion of a network and each number of steps that it was shown for, VGG and more steps first. Not
    of networks trained for spikes, whose ANNs are nothing to compare with.
    """
    rows = []
    for name, table in errors.items():
        if name.rpartition("-")[2] in FOR_SPIKES:
            continue
        whole = table[(table["images"] == TEST_IMAGES) & table["data"].str.startswith("CIFAR-10 test")]
        for setting, every in whole[whole["model"] == LATER["model"]].groupby(SETTING, sort=False):
            work = operations.get(name, every.iloc[:0])
            work = work[(work[SETTING] == list(setting)).all(axis=1) & (work["images"] == TEST_IMAGES)]
            for steps in every["steps"].unique():
                last, counted = largest(every[every["steps"] == steps]).iloc[0], work[work["steps"] == steps]
                if counted.empty and steps < every["steps"].max():
                    continue
                rows.append(
                    {
                        "network": describe(name).replace(", CIFAR-10", ""),
                        "conversion": thresholds_of(last),
                        "reset": last["reset"],
                        "steps": steps,
                        "seeds": len(last["seed"].split()) if last["coding"] == "poisson" else "",
                        "ANN": f"{last['ann_error']:.2f} %",
                        "SNN": f"{last['snn_error']:.2f} %",
                        "increment": f"{last['increment']:+.2f}",
                        "AC/MAC": _layerwise(name, largest(counted).iloc[0]) if len(counted) else "",
                        "the paper's ANN, SNN": _published(name, last).rsplit(",", 1)[0],
                    }
                )
    rows.sort(key=lambda row: (not row["network"].startswith("VGG"), -row["steps"]))
    return pd.DataFrame(rows)


def _with_sd(mean: float, sd: float) -> str:
    return f"{mean:.2f} %" if np.isnan(sd) else f"{mean:.2f} ± {sd:.2f} %"


def _published(name: str, last: pd.Series) -> str:
    if tuple(last[["reset", "steps", "coding", "model"]]) != ("zero", PAPER_STEPS, "poisson", "if"):
        return ""
    for paper in PAPER:
        method, unit = paper.thresholds.removesuffix("-unit"), paper.thresholds.endswith("-unit")
        if (name, *last[["method", "unit", "percentile"]]) == (paper.network, method, unit, 100):
            text = f"{paper.ann:.2f} %, {paper.snn:.2f} % ({paper.snn - paper.ann:+.2f}), {paper.place}"
            return text if paper.data in describe(name).split(", ") else f"on {paper.data}: {text}"
    return ""


def operations_summary(operations: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Section 7.4: accumulate operations for each MAC of the ANN, and the energy of both for an image.

    Only of layers that IF neurons drive, but for the last column: there the input's additions, or what a constant
    current costs, and the first layer's MACs are counted, too. The ratio is that of all events; and, where the network
    is shipped, as the paper words it (see :func:`sims.simulation.metrics.layerwise_ac_mac_ratio`).
    """
    rows = []
    for name, table in operations.items():
        for evaluation in evaluations(table, only_largest=True):
            for _, row in evaluation.sort_values("steps").iterrows():
                published = (*row[["method", "percentile", "reset"]],) == ("spike-norm", 100, "zero")
                ann, snn = JOULES_PER_MAC * row["mac_per_image"], JOULES_PER_AC * row["ac_per_image"]
                rows.append(
                    {
                        "network": with_width(name, row["network"]),
                        "thresholds": thresholds_of(row),
                        "reset": row["reset"],
                        "steps": row["steps"],
                        "AC/MAC, all events": f"{row['ac_mac_ratio']:.2f}",
                        "AC/MAC, by layers": _layerwise(name, row),
                        "the paper, by layers": PAPER_RATIOS.get(name.split("-")[0], "") if published else "",
                        "ANN energy": f"{1e6 * ann:.0f} µJ",
                        "SNN energy": f"{1e6 * snn:.0f} µJ",
                        "SNN/ANN": f"{snn / ann:.1f}" if ann else "",
                        "input's AC": f"{row['ac_input_per_image'] / 1e6:.0f} M",
                        "SNN/ANN, input too": _with_input(name, row),
                    }
                )
    return pd.DataFrame(rows)


def _layerwise(name: str, row: pd.Series) -> str:
    spec = _shipped(name, row)
    return f"{layerwise_ratio_of_means(spec, layers(row)):.2f}" if spec else ""


def _with_input(name: str, row: pd.Series) -> str:
    spec = _shipped(name, row)
    if not spec:
        return ""
    first, additions = constant_operations(spec, row["steps"])
    ann, snn = JOULES_PER_MAC * (row["mac_per_image"] + first), JOULES_PER_AC * row["ac_per_image"]
    if row.get("coding") == "current":
        snn += JOULES_PER_MAC * first + JOULES_PER_AC * additions
    else:
        snn += JOULES_PER_AC * row["ac_input_per_image"]
    return f"{snn / ann:.2f}" if ann else ""


def _shipped(name: str, row: pd.Series) -> NetSpec | None:
    """The network of a row, if it comes with the repository and is not another one of that name."""
    try:
        spec = load_checkpoint(name).spec
    except UserError:
        return None
    same = spec.name == row["network"] and set(layers(row)) == {population.name for population in spec.spiking}
    return spec if same else None


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown."""
    lines = [list(table.columns), ["---"] * len(table.columns), *table.astype(str).to_numpy().tolist()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
