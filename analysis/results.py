"""The tables of results in the repository, and the paper's numbers to put beside them.

``analysis/results/NETWORK-errors.csv`` and ``NETWORK-operations.csv`` are what ``sims/evaluate.py`` writes; an
*evaluation* is the rows of one setting (thresholds, reset, neuron model, ...), number of images and seeds.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from netspec.checkpoint import load_checkpoint
from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.evaluation.shards import LATER, Setting
from sims.simulation.metrics import JOULES_PER_AC, JOULES_PER_MAC, constant_operations, layerwise_ratio_of_means

RESULTS = Path(__file__).parent / "results"
TEST_IMAGES = 10_000
KINDS = ("errors", "operations")
LAYER = "spikes_per_neuron_"
ARCHITECTURES = {"vgg": "VGG-", "resnet": "ResNet-"}
DATA = {"cifar10": "CIFAR-10", "imagenette": "Imagenette", "imagenet": "ImageNet"}
VARIANTS = {
    "basic": "no junction ReLUs",
    "constraint1": "no pre-processing layers",
    "steps16": "trained in 16 steps",
}
FOR_SPIKES = {"steps16"}  # variants whose ANN was not what training was for
METHODS = {"spike-norm": "SPIKE-NORM", "ann-norm": "ANN-model"}
SETTING = [field.name for field in fields(Setting) if field.name != "runtime"]  # columns that tell settings apart


class MissingTableError(UserError):
    """A table, or a row of it, that was not made yet; the message says by which command it is."""


@dataclass(frozen=True)
class Published:
    """Errors in percent that the paper reports, and the network here that is to be compared with it.

    Parameters
    ----------
    place : str
        Where in the paper.
    network, thresholds : str
        Ours.
    data : str
        The paper's; other errors than those on the same data are no comparison.
    ann, snn : float
        Errors after 2500 steps, reset to zero.
    """

    place: str
    network: str
    thresholds: str
    data: str
    ann: float
    snn: float


PAPER_STEPS = 2500
PAPER = (
    Published("Table 1", "vgg16-cifar10", "ann-norm", "CIFAR-10", 8.30, 8.54),
    Published("Table 1", "vgg16-cifar10", "spike-norm", "CIFAR-10", 8.30, 8.45),
    Published("Table 2", "vgg16-imagenette", "ann-norm", "ImageNet", 29.48, 30.61),
    Published("Table 2", "vgg16-imagenette", "spike-norm", "ImageNet", 29.48, 30.04),
    Published("Table 3", "resnet20-cifar10", "spike-norm-unit", "CIFAR-10", 10.9, 12.54),
    Published("Section 7.3", "resnet20-cifar10", "ann-norm-unit", "CIFAR-10", 10.9, 12.87),
    Published("Table 3", "resnet34-imagenette", "spike-norm-unit", "ImageNet", 29.31, 34.53),
)
# Section 7.4: AC/MAC on ImageNet, with the steps of figure 5
PAPER_RATIOS = {"vgg16": "1.975 (ImageNet, 500 steps)", "resnet34": "2.4 (ImageNet, 2000 steps)"}


def load(kind: str, folder: Path = RESULTS) -> dict[str, pd.DataFrame]:
    """All tables of a kind.

    Parameters
    ----------
    kind : {'errors', 'operations'}
    folder : Path

    Returns
    -------
    dict of str to pandas.DataFrame
        By checkpoint, in the order of their names.

    Raises
    ------
    MissingTableError
        If there is none.
    UserError
        If one lacks columns of settings and seeds: it is from an earlier version.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {KINDS}")
    names = {path.name.removesuffix(f"-{kind}.csv"): path for path in sorted(folder.glob(f"*-{kind}.csv"))}
    if not names:
        raise MissingTableError(f"there is no table {folder / f'*-{kind}.csv'}; make one with sims/evaluate.py")
    tables = {name: pd.read_csv(path, dtype={"seed": str, "thresholds": str}) for name, path in names.items()}
    for name, table in tables.items():
        if missing := {*SETTING, "seed"} - {*table, *LATER}:
            raise UserError(f"{names[name]} has no column {min(missing)}; make it again with sims/evaluate.py")
    return {name: table.assign(**{k: v for k, v in LATER.items() if k not in table}) for name, table in tables.items()}


def choose(
    tables: Mapping[str, pd.DataFrame],
    name: str,
    thresholds: str,
    reset: str = "zero",
    percentile: float = 100,
    images: int | None = None,
) -> pd.DataFrame:
    """The rows of one network under one setting; of the :func:`largest` evaluation, if there are several.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        From :func:`load`.
    name : str
        The checkpoint.
    thresholds : str
        One of ``netspec.thresholds.VARIANTS``.
    reset : {'zero', 'subtract'}
    percentile : float
    images : int, optional
        Only of the evaluation on so many.

    Raises
    ------
    MissingTableError
        If there are none.
    UserError
        If there are several thresholds of that name, or as many images of several data.
    """
    wanted = f"{thresholds} {percentile:g}"
    options = f"--checkpoint {name} --thresholds {thresholds} --resets {reset}"
    if name in tables:
        rows = tables[name].query("reset == @reset and percentile == @percentile")
        rows = rows[variants(rows) == thresholds]
        for column in ("coding", "model"):
            rows = rows[rows[column] == LATER[column]]
        rows = rows[rows["images"] == (rows["images"].max() if images is None else images)]
        if rows["thresholds"].nunique() > 1:
            raise UserError(f"the table of {name} has several thresholds {wanted!r}; keep the rows of one of them")
        if rows["data"].nunique() > 1:
            raise UserError(f"the table of {name} has {wanted!r} on several data; keep the rows of one of them")
        if len(rows):
            return largest(rows)
    raise MissingTableError(f"no results of {name} with {wanted}; make them with sims/evaluate.py {options}")


def variants(table: pd.DataFrame) -> pd.Series:
    """The kind of thresholds of each row, one of ``netspec.thresholds.VARIANTS``."""
    return table["method"] + table["unit"].map({True: "-unit", False: ""})


def largest(rows: pd.DataFrame) -> pd.DataFrame:
    """The evaluation of most images among those of one setting, and of most seeds among these."""
    ranked = rows.assign(n_seeds=rows["seed"].str.count(r"\S+"))
    best = ranked.sort_values(["images", "n_seeds"], ascending=False, kind="stable").iloc[0]
    same = ["images", "seed", "runtime"]
    return rows[(rows[same] == best[same]).all(axis=1)]


def of_other_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Of rows for the same steps those of most seeds, and others that share none with them: no seed counts twice."""
    every = [set(str(seeds).split()) for seeds in rows["seed"]]
    taken: list[int] = []
    for place in sorted(range(len(rows)), key=lambda place: -len(every[place])):
        if not any(every[place] & every[other] for other in taken):
            taken.append(place)
    return rows.iloc[sorted(taken)]


def evaluations(table: pd.DataFrame, only_largest: bool = False) -> list[pd.DataFrame]:
    """The rows of each evaluation in a table, the paper's thresholds before others.

    Parameters
    ----------
    table : pandas.DataFrame
        Errors or operations of one network.
    only_largest : bool
        Only the :func:`largest` of each setting.
    """

    def order(rows: pd.DataFrame) -> tuple:
        first = rows.iloc[0]
        return (
            first["method"] != "spike-norm",
            first["method"],
            first["unit"],
            -first["percentile"],
            first["thresholds"],
            first["reset"] != "zero",
            *(first[column] != usual for column, usual in LATER.items()),
            -first["images"],
            -len(first["seed"].split()),
        )

    if only_largest:
        found = [largest(rows) for _, rows in table.groupby(SETTING)]
    else:
        found = [rows for _, rows in table.groupby([*SETTING, "runtime", "images", "seed"])]
    return sorted(found, key=order)


def main_networks(tables: Iterable[str], data: str | None = None) -> dict[str, str]:
    """The networks without the variants of figure 3, and the paper's thresholds for each.

    Parameters
    ----------
    tables : iterable of str
        Names of checkpoints.
    data : str, optional
        Only those of this data set, such as ``'cifar10'``.
    """
    names = [name for name in tables if name.count("-") == 1 and data in (None, name.split("-")[1])]
    names.sort(key=lambda name: not name.startswith("vgg"))
    return {name: "spike-norm-unit" if name.startswith("resnet") else "spike-norm" for name in names}


def describe(name: str) -> str:
    """A checkpoint's name for people: ``'resnet20-cifar10-basic'`` is a ResNet-20, CIFAR-10, no junction ReLUs."""
    network, *rest = name.split("-")
    kind = network.rstrip("0123456789")
    label = ARCHITECTURES.get(kind, kind) + network.removeprefix(kind)
    return ", ".join([label, *(DATA.get(part) or VARIANTS.get(part, part) for part in rest)])


def thresholds_of(row: pd.Series) -> str:
    """Thresholds of a row for people, and the neurons if they are no IF ones: ``'SPIKE-NORM, unit, leaky'``."""
    label = METHODS.get(row["method"], row["method"]) + (", unit" if row["unit"] else "")
    label += "" if row["percentile"] == 100 else f", percentile {row['percentile']:g}"
    return label if row["model"] == LATER["model"] else f"{label}, {row['model']}"


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

    A row for each conversion of a network and each number of steps that it was shown for, VGG and more steps first;
    seeds evaluated apart are brought together. Not of networks trained for spikes, whose ANNs are nothing to compare
    with.
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
                last, counted = of_other_seeds(every[every["steps"] == steps]), work[work["steps"] == steps]
                if counted.empty and steps < every["steps"].max():
                    continue
                n = [len(seeds.split()) for seeds in last["seed"]]
                increment = float(np.average(last["increment"], weights=n))
                first = last.iloc[0]
                rows.append(
                    {
                        "network": describe(name).replace(", CIFAR-10", ""),
                        "conversion": thresholds_of(first),
                        "reset": first["reset"],
                        "steps": steps,
                        "seeds": sum(n) if first["coding"] == "poisson" else "",
                        "ANN": f"{first['ann_error']:.2f} %",
                        "SNN": f"{np.average(last['snn_error'], weights=n):.2f} %",
                        "increment": f"{increment:+.2f}",
                        "AC/MAC": _layerwise(name, counted.iloc[0]) if len(counted) else "",
                        "the paper's ANN, SNN": _published(name, first).rsplit(",", 1)[0],
                    }
                )
    rows.sort(key=lambda row: (not row["network"].startswith("VGG"), -row["steps"]))
    return pd.DataFrame(rows)


def with_width(name: str, spec_name: str) -> str:
    """``x0.5`` is half of the paper's channels."""
    width = re.search(r"-x([\d.]+)(?:-|$)", spec_name)
    return describe(name) + (f" (x{width[1]} channels)" if width and float(width[1]) != 1 else "")


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


def layers(row: pd.Series) -> dict[str, float]:
    """Mean spikes per neuron of each layer of IF neurons, from a row of a table of operations."""
    means = {str(key).removeprefix(LAYER): float(v) for key, v in row.items() if str(key).startswith(LAYER)}
    return {layer: value for layer, value in means.items() if layer != "input" and not np.isnan(value)}


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
                        "SNN/ANN": f"{snn / ann:.1f}",
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
    return f"{snn / ann:.2f}"


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
