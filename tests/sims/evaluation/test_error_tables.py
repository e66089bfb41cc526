"""Tables of many cases, by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from commands import tiny_checkpoint
from networks import residual

from netspec.conversion import Conversion
from netspec.data import samples
from netspec.errors import UserError
from sims.evaluation.error_tables import KEYS, operations_table, summary_table, with_earlier
from sims.evaluation.shards import Case, Setting, Shard, run_shard


def by_hand() -> tuple[list[tuple[Case, pd.DataFrame]], np.ndarray, np.ndarray]:
    """Four images, three seeds of one case and one of another; predictions after 10 and 15 steps."""
    labels, ann = np.array([0, 1, 2, 3]), np.array([0, 1, 2, 0])
    predictions = {
        ("zero", 5): ([9, 9, 9, 9], [0, 1, 2, 3]),  # errors 100, 0 %
        ("zero", 6): ([0, 9, 9, 9], [0, 1, 9, 0]),  # 75, 50 %
        ("zero", 7): ([0, 1, 9, 9], [0, 1, 2, 0]),  # 50, 25 %
        ("subtract", 5): ([0, 1, 2, 3], [0, 1, 2, 0]),  # 0, 25 %
    }
    cases = []
    for (reset, seed), (early, late) in predictions.items():
        setting = Setting("net", "digest of weights", "data", "spike-norm", True, 99.9, "12345678", reset)
        case = Case(setting, seed, 15)
        columns = {"image": range(4), "snn_10": early, "snn_15": late, "ac": [seed * k for k in range(4)]}
        columns |= {"ac_input": [1, 2, 3, 4]}
        columns |= {f"spikes_{p.name}": [p.size] * 4 for p in tiny_checkpoint().spec.populations}
        cases.append((case, pd.DataFrame(columns)))
    return cases, labels, ann


def test_mean_deviation_and_increment_by_hand():
    cases, labels, ann = by_hand()
    table = summary_table(cases, labels, ann).set_index(["reset", "steps"])
    expected = {  # images, ANN error, SNN error, its standard deviation, increment, agreement
        ("zero", 10): (4, 25.0, 75.0, 25.0, 50.0, 25.0),
        ("zero", 15): (4, 25.0, 25.0, 25.0, 0.0, 83.3333),
        ("subtract", 10): (4, 25.0, 0.0, np.nan, -25.0, 75.0),
        ("subtract", 15): (4, 25.0, 25.0, np.nan, 0.0, 100.0),
    }
    columns = ["images", "ann_error", "snn_error", "snn_error_sd", "increment", "agreement"]
    assert list(table.index) == list(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(table.loc[key, columns].to_numpy(float), values)
    columns = ["network", "checkpoint", "data", "method", "unit", "percentile", "thresholds"]
    setting = ["net", "digest o", "data", "spike-norm", True, 99.9, "12345678"]
    assert table[columns].drop_duplicates().to_numpy().tolist() == [setting]
    assert list(table["seed"]) == ["5 6 7", "5 6 7", "5", "5"]


def test_steps_that_earlier_shards_do_not_have_are_left_out():
    cases, labels, ann = by_hand()
    (case, table), (other, whole) = cases[:2]
    without = table.drop(columns="snn_10")
    assert list(summary_table([(case, without), (other, whole)], labels, ann)["steps"]) == [15, 10]
    mixed = pd.concat([table[:2], without[2:]])  # some of the shards are of an earlier version
    found = summary_table([(case, mixed)], labels, ann)
    assert (list(found["steps"]), list(found["snn_error"])) == ([15], [0.0])


def test_operations_by_hand():
    cases, _, _ = by_hand()
    spec = tiny_checkpoint().spec
    table = operations_table(cases, spec).set_index("reset")
    assert list(table["seed"]) == ["5 6 7", "5"]
    assert list(table["ac_per_image"]) == [1.5 * 6, 1.5 * 5]
    assert list(table["ac_input_per_image"]) == [2.5, 2.5]
    assert list(table["mac_per_image"]) == 2 * [sum(spec.macs(p) for p in spec.projections[1:])]
    assert all(table[f"spikes_per_neuron_{p.name}"].eq(1).all() for p in spec.populations)


def test_relays_count_in_neither_kind_of_operations():
    """Their graded values are no events; the ANN's operations after them are none that spikes take the place of."""
    checkpoint = tiny_checkpoint(residual("relay"))
    setting = Setting("net", checkpoint.digest, "here", "spike-norm", False, 100.0, "12345678", "zero")
    case = Case(setting, 0, 10)
    x, shard = samples().images[:2, :8, :8], Shard(case, 0, 2)
    conversion = Conversion(checkpoint.digest, "ones", {population.name: 1.0 for population in checkpoint.spec.spiking})
    spec, table = checkpoint.spec, run_shard(checkpoint, conversion, shard, x, "numpy")
    (row,) = operations_table([(case, table)], spec).to_dict("records")
    by_spikes = [p for p in spec.projections if p.pre in ("stem", "branch1", "branch2")]
    assert row["mac_per_image"] == sum(spec.macs(p) for p in by_spikes) > 0
    assert row["ac_per_image"] > 0


def test_thresholds_of_one_name_but_other_values_are_kept_apart():
    cases, labels, ann = by_hand()
    other = replace(cases[1][0], setting=replace(cases[1][0].setting, thresholds="87654321"))
    mixed = [cases[0], (other, cases[1][1])]
    table = summary_table(mixed, labels, ann)
    assert list(table["thresholds"]) == ["12345678", "12345678", "87654321", "87654321"]
    assert list(table["snn_error"]) == [100, 0, 75, 50]
    assert list(operations_table(mixed, tiny_checkpoint().spec)["thresholds"]) == ["12345678", "87654321"]


def test_operations_make_way_for_those_of_the_same_steps_alone(tmp_path):
    base = dict.fromkeys(KEYS, "x") | {"ac_per_image": 1.5}
    for row in ({"seed": "0", "steps": 500}, {"seed": "0", "steps": 2500}, {"seed": "0 1", "steps": 2500}):
        table = with_earlier(pd.DataFrame([base | row]), tmp_path / "table.csv")
        table.to_csv(tmp_path / "table.csv", index=False)
    assert list(zip(table["seed"], table["steps"], strict=True)) == [("0", 500), ("0 1", 2500)]


def test_numbers_that_are_none_are_told(tmp_path):
    rows = pd.DataFrame([dict.fromkeys(KEYS, "x") | {"seed": "0", "steps": 10, "snn_error": 8.5}])
    for column in ("snn_error", "steps"):
        rows.astype({column: object}).assign(**{column: "8x3.7"}).to_csv(tmp_path / "table.csv", index=False)
        with pytest.raises(UserError, match=rf"is no table of this command \(damaged: {column}\)"):
            with_earlier(rows.copy(), tmp_path / "table.csv")


@pytest.mark.parametrize("digest", ["x", "00123456", "12e45678"])  # a table must not take them for numbers
def test_rows_make_way_only_for_those_of_the_same_seeds_and_steps(digest, tmp_path):
    def rows(*given: tuple[str, str, int]) -> pd.DataFrame:
        base = dict.fromkeys(KEYS, "x") | {"checkpoint": digest, "thresholds": digest}
        return pd.DataFrame([base | dict(zip(("reset", "seed", "steps"), row, strict=True)) for row in given])

    def after(*given: tuple[str, str, int]) -> list[tuple[str, str, int]]:
        table = with_earlier(rows(*given), tmp_path / "table.csv")
        return list(zip(table["reset"], table["seed"], table["steps"], strict=True))

    earlier = ("zero", "3", 10), ("zero", "3", 20), ("subtract", "3", 10), ("zero", "4 5", 10)
    rows(*earlier).to_csv(tmp_path / "table.csv", index=False)
    assert after(("zero", "2 3 4", 20)) == [*earlier[2:], ("zero", "2 3 4", 20)]
    assert after(("zero", "2 3 4", 10)) == [*earlier, ("zero", "2 3 4", 10)]  # the earlier one was longer
    assert after(("zero", "3", 10)) == [("zero", "3", 10), ("zero", "3", 20), *earlier[2:]]
    assert after(("zero", "3", 5), ("zero", "3", 10), ("zero", "3", 40)) == [
        ("zero", "3", 5), ("zero", "3", 10), ("zero", "3", 20), ("zero", "3", 40), *earlier[2:]
    ]  # fmt: skip
