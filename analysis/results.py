"""The tables of results in the repository: their evaluations, names for people, the paper's numbers.

``analysis/results/NETWORK-errors.csv`` and ``NETWORK-operations.csv`` are what ``sims/evaluate.py`` writes; an
*evaluation* is the rows of one setting (thresholds, reset, neuron model, ...), number of images and seeds.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from netspec.errors import UserError
from sims.evaluation.shards import LATER, Setting

RESULTS = Path(__file__).parent / "results"
KINDS = ("errors", "operations")
LAYER = "spikes_per_neuron_"
ARCHITECTURES = {"vgg": "VGG-", "resnet": "ResNet-"}
DATA = {"cifar10": "CIFAR-10", "imagenette": "Imagenette", "imagenet": "ImageNet"}
VARIANTS = {
    "basic": "basic architecture",
    "constraint1": "no pre-processing layers",
    "steps16": "trained in 16 steps",
}
METHODS = {"spike-norm": "SPIKE-NORM", "ann-norm": "ANN-model"}
SETTING = [field.name for field in fields(Setting) if field.name != "runtime"]  # columns that tell settings apart


class MissingTableError(UserError):
    """A table, or a row of it, that was not made yet; the message says by which command it is."""


class AmbiguousTableError(UserError):
    """Rows of a table of which it is not said which are meant."""


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


def load(kind: str, folder: Path = RESULTS) -> dict[str, pd.DataFrame]:
    """All tables of a kind; seeds that were evaluated apart are brought together (see :func:`together`).

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
    digests = dict.fromkeys(("checkpoint", "seed", "thresholds"), str)  # some look like numbers
    tables = {}
    for name, path in names.items():
        try:
            tables[name] = pd.read_csv(path, dtype=digests)
        except ValueError as error:
            raise UserError(f"{path} is no table of sims/evaluate.py ({error})") from error
    for name, table in tables.items():
        if missing := {*SETTING, "seed"} - {*table, *LATER}:
            raise UserError(f"{names[name]} has no column {min(missing)}; make it again with sims/evaluate.py")
    later = {name: {k: v for k, v in LATER.items() if k not in table} for name, table in tables.items()}
    return {name: together(table.assign(**later[name])) for name, table in tables.items()}


def together(table: pd.DataFrame) -> pd.DataFrame:
    """With seeds that were evaluated apart, on the same images and for as long, as one evaluation.

    Its rows are means over those seeds that have one for that number of steps. An evaluation that shares seeds with a
    larger one stays as it is.
    """
    if table.empty:
        return table
    same = [*SETTING, "runtime", "images"]
    longest = table.groupby([*same, "seed"], dropna=False)["steps"].transform("max")
    parts = []
    for _, rows in table.groupby([*same, longest], sort=False, dropna=False):
        apart: list[str] = []
        for seeds in sorted(rows["seed"].unique(), key=lambda seeds: -len(seeds.split())):
            if not set(seeds.split()) & {seed for other in apart for seed in other.split()}:
                apart.append(seeds)
        mine = rows["seed"].isin(apart)
        parts += [_mean(rows[mine]), rows[~mine]] if len(apart) > 1 else [rows]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)


def _mean(rows: pd.DataFrame) -> pd.DataFrame:
    """One evaluation of several, with the seeds of all and the standard deviation over them."""
    seeds = sorted({seed for each in rows["seed"] for seed in each.split()}, key=int)
    known = (*SETTING, "images", "steps", "snn_error_sd")
    measured = [str(name) for name in rows.select_dtypes("number") if name not in known]
    rows, means = rows.astype(dict.fromkeys(measured, float)), []
    for _, same in rows.groupby("steps"):
        mean, n = same.iloc[0].copy(), same["seed"].map(lambda seeds: len(seeds.split()))
        for column in measured:
            mean[column] = np.average(same[column], weights=n)
        if "snn_error_sd" in same and n.sum() > 1:
            within = ((n - 1) * same["snn_error_sd"].fillna(0) ** 2).sum()
            between = (n * (same["snn_error"] - mean["snn_error"]) ** 2).sum()
            mean["snn_error_sd"] = np.sqrt((within + between) / (n.sum() - 1))
        means.append(mean)
    return pd.DataFrame(means).astype(rows.dtypes).assign(seed=" ".join(seeds))


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
    AmbiguousTableError
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
            raise AmbiguousTableError(f"the table of {name} has several thresholds {wanted!r}; keep the rows of one")
        if rows["data"].nunique() > 1:
            raise AmbiguousTableError(f"the table of {name} has {wanted!r} on several data; keep the rows of one")
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


def evaluations(table: pd.DataFrame, only_largest: bool = False) -> list[pd.DataFrame]:
    """The rows of each evaluation in a table, the thresholds of the paper before others.

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
            (*METHODS, first["method"]).index(first["method"]),
            *first[["method", "unit"]],
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
    """A checkpoint's name for people: ``'resnet20-cifar10-basic'`` is a ResNet-20, CIFAR-10, basic architecture."""
    network, *rest = name.split("-")
    kind = network.rstrip("0123456789")
    label = ARCHITECTURES.get(kind, kind) + network.removeprefix(kind)
    return ", ".join([label, *(DATA.get(part) or VARIANTS.get(part, part) for part in rest)])


def thresholds_of(row: pd.Series) -> str:
    """Thresholds of a row for people, and the neurons if they are no IF ones: ``'SPIKE-NORM, unit, leaky'``."""
    label = METHODS.get(row["method"], row["method"]) + (", unit" if row["unit"] else "")
    label += "" if row["percentile"] == 100 else f", percentile {row['percentile']:g}"
    return label if row["model"] == LATER["model"] else f"{label}, {row['model']}"


def with_width(name: str, spec_name: str) -> str:
    """``x0.5`` is half of the paper's channels."""
    width = re.search(r"-x([\d.]+)(?:-|$)", spec_name)
    return describe(name) + (f" (x{width[1]} channels)" if width and float(width[1]) != 1 else "")


def layers(row: pd.Series) -> dict[str, float]:
    """Mean spikes per neuron of each layer of IF neurons, from a row of a table of operations."""
    means = {str(key).removeprefix(LAYER): float(v) for key, v in row.items() if str(key).startswith(LAYER)}
    return {layer: value for layer, value in means.items() if layer != "input" and not np.isnan(value)}
