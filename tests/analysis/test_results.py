"""Tables of results: which rows are chosen, what stands beside the paper's numbers."""

import numpy as np
import pandas as pd
import pytest
from results_tables import write_tables

from analysis import results, summaries
from netspec.checkpoint import PRETRAINED, load_checkpoint
from netspec.conversion import Conversion, load_conversion
from netspec.errors import UserError
from netspec.thresholds import VARIANTS, find_thresholds, load_thresholds
from sims.evaluation.error_tables import with_earlier
from sims.evaluation.shards import REPORTED_STEPS, Setting

THRESHOLDS = ["method", "unit", "percentile", "thresholds"]


def test_names_for_people():
    assert results.describe("vgg16-cifar10") == "VGG-16, CIFAR-10"
    assert results.describe("resnet20-cifar10-basic") == "ResNet-20, CIFAR-10, basic architecture"
    assert results.describe("resnet34-imagenette") == "ResNet-34, Imagenette"
    widths = [results.with_width("vgg16-imagenette", f"vgg16-imagenet-x{w}") for w in ("1", "0.25", "0.25-hidden512")]
    assert widths == ["VGG-16, Imagenette", *["VGG-16, Imagenette (x0.25 channels)"] * 2]
    row = pd.Series({"method": "spike-norm", "unit": False, "percentile": 100.0, "model": "if"})
    assert results.thresholds_of(row) == "SPIKE-NORM"
    other = {"method": "ann-norm", "unit": True, "percentile": 99.9}
    assert results.thresholds_of(pd.Series(row.to_dict() | other)) == "ANN-model, unit, percentile 99.9"


def test_rows_are_chosen_by_their_thresholds(tables):
    errors = results.load("errors", tables)
    chosen = results.choose(errors, "vgg16-cifar10", "ann-norm")
    assert set(zip(*(chosen[key] for key in THRESHOLDS), strict=True)) == {("ann-norm", False, 100, "00e00001")}
    assert len(results.choose(errors, "vgg16-cifar10", "ann-norm", "subtract", 99.9)) == len(REPORTED_STEPS)
    for variant, unit in {"spike-norm": False, "spike-norm-unit": True}.items():
        chosen = results.choose(errors, "resnet20-cifar10-constraint1", variant)
        assert (set(chosen["method"]), set(chosen["unit"])) == ({"spike-norm"}, {unit})
    with pytest.raises(results.MissingTableError, match="--checkpoint vgg16-cifar10 --thresholds spike-norm-unit"):
        results.choose(errors, "vgg16-cifar10", "spike-norm-unit")
    with pytest.raises(results.MissingTableError, match="no results of vgg19 with spike-norm 100"):
        results.choose(errors, "vgg19", "spike-norm")


def test_networks_trained_for_spikes_are_not_compared_with_their_anns(tables):
    both = [results.load(kind, tables) for kind in results.KINDS]
    for loaded in both:
        whole = loaded["resnet20-cifar10"].assign(
            images=summaries.TEST_IMAGES, data="CIFAR-10 test 0a", coding="poisson"
        )
        loaded |= {"resnet20-cifar10": whole, "resnet20-cifar10-steps16": whole}
    assert set(summaries.headline(*both)["network"]) == {"ResNet-20"}


def test_a_conversion_stands_there_once_for_each_number_of_steps_that_was_shown(tables):
    whole = {"images": summaries.TEST_IMAGES, "data": "CIFAR-10 test 0a", "coding": "poisson"}
    errors, operations = (results.load(kind, tables)["resnet20-cifar10"].assign(**whole) for kind in results.KINDS)
    shown = [{"resnet20-cifar10": table} for table in (errors, pd.concat([operations, operations.assign(steps=500)]))]
    assert list(summaries.headline(*shown)["steps"]) == [2500, 500]
    assert list(summaries.operations_summary(shown[1])["steps"]) == [500, 2500]


def test_after_the_papers_steps_and_at_the_end(tables):
    errors = results.load("errors", tables)["resnet20-cifar10"]
    longer = pd.concat([errors, errors[errors["steps"] == 2500].assign(steps=10_000)])
    table = summaries.comparison({"resnet20-cifar10": longer})
    assert list(table["steps"]) == [2500, 10_000]
    assert [text != "" for text in table["the paper"]] == [True, False]


def test_only_evaluations_on_so_many_images(tables):
    errors = results.load("errors", tables)
    errors["resnet20-cifar10"] = pd.concat([one := errors["resnet20-cifar10"], one.assign(images=10)])
    for images, found in ((None, 1000), (1000, 1000), (10, 10)):
        chosen = results.choose(errors, "resnet20-cifar10", "spike-norm-unit", images=images)
        assert set(chosen["images"]) == {found}
    with pytest.raises(results.MissingTableError):
        results.choose(errors, "resnet20-cifar10", "spike-norm-unit", images=11)


def test_thresholds_that_differ_by_a_digest_alone_are_refused(tables):
    errors = results.load("errors", tables)
    table = errors["vgg16-cifar10"]
    table["method"] = "spike-norm"
    with pytest.raises(UserError, match="several thresholds 'spike-norm 100'"):
        results.choose(errors, "vgg16-cifar10", "spike-norm")


def test_evaluations_on_other_data_are_not_mixed(tables):
    errors = results.load("errors", tables)
    one = errors["vgg16-cifar10"]
    errors["vgg16-cifar10"] = both = pd.concat([one, one.assign(data="mine 1b")])
    with pytest.raises(UserError, match="has 'spike-norm 100' on several data"):
        results.choose(errors, "vgg16-cifar10", "spike-norm")
    for only_largest in (False, True):
        assert len(results.evaluations(both, only_largest)) == 2 * len(results.evaluations(one))
        assert all(rows["data"].nunique() == 1 for rows in results.evaluations(both, only_largest))


def test_most_seeds_are_taken_of_those_on_most_images(tables):
    errors = results.load("errors", tables)
    one = errors["vgg16-cifar10"]
    others = [one.assign(seed="0 1"), one.assign(images=10, seed="0 1 2")]
    errors["vgg16-cifar10"] = both = pd.concat([one, *others])
    chosen = results.choose(errors, "vgg16-cifar10", "spike-norm")
    assert (set(chosen["images"]), set(chosen["seed"]), len(chosen)) == ({1000}, {"0 1"}, len(REPORTED_STEPS))
    assert [set(rows["seed"]) for rows in results.evaluations(both, only_largest=True)] == 3 * [{"0 1"}]
    assert list(summaries.comparison({"vgg16-cifar10": both})["seeds"]) == 3 * ["0, 1", "0", "0, 1, 2"]


def test_other_neurons_and_runtimes_are_not_mixed(tables):
    errors = results.load("errors", tables)
    one = errors["vgg16-cifar10"]
    others = [one.assign(model="leaky", snn_error=50.0), one.assign(runtime="torch", snn_error=60.0)]
    errors["vgg16-cifar10"] = both = pd.concat([one, *others], ignore_index=True)
    assert all(len(rows) == len(REPORTED_STEPS) for rows in results.evaluations(both))
    assert [rows["model"].iloc[0] for rows in results.evaluations(both, only_largest=True)] == 3 * ["if", "leaky"]
    chosen = results.choose(errors, "vgg16-cifar10", "ann-norm")
    pd.testing.assert_frame_equal(chosen, one[one["thresholds"] == "00e00001"])
    table = summaries.comparison({"vgg16-cifar10": both})
    assert list(table["thresholds"])[:3] == ["SPIKE-NORM", "SPIKE-NORM", "SPIKE-NORM, leaky"]
    assert list(table["the paper"] != "")[:3] == [True, True, False]


def test_digests_that_look_like_numbers_are_told_apart(tables):
    path = tables / "resnet20-cifar10-errors.csv"
    content = path.read_text()
    other = content.replace("0d15ea5e", "2e999999").partition("\n")[2]
    path.write_text(content.replace("0d15ea5e", "1e456789") + other)
    errors = results.load("errors", tables)["resnet20-cifar10"]
    assert {rows["checkpoint"].iloc[0] for rows in results.evaluations(errors)} == {"1e456789", "2e999999"}


def test_seeds_that_were_evaluated_apart_are_one_evaluation(tables):
    path = tables / "resnet20-cifar10-errors.csv"
    one = results.load("errors", tables)["resnet20-cifar10"]
    long = one["steps"] == one["steps"].max()
    apart = {"0": (10.0, np.nan), "1 2": (13.0, 1.0), "4": (14.0, np.nan)}
    rows = [one.assign(seed=seed, snn_error=mean, snn_error_sd=sd) for seed, (mean, sd) in apart.items()]
    rows += [one[long].assign(seed="5", snn_error=20.0), one.assign(seed="0 1", images=10), one[~long].assign(seed="6")]
    pd.concat(rows).to_csv(path, index=False)
    found = results.load("errors", tables)["resnet20-cifar10"]
    seeds = {(seed, images): part for (seed, images), part in found.groupby(["seed", "images"])}
    assert set(seeds) == {("0 1 2 4 5", 1000), ("0 1", 10), ("6", 1000)}
    whole = seeds["0 1 2 4 5", 1000].set_index("steps")
    assert list(whole.index) == list(one["steps"])
    each = np.array([10, 13 - 1 / np.sqrt(2), 13 + 1 / np.sqrt(2), 14])
    first, last = whole.iloc[0], whole.iloc[-1]
    np.testing.assert_allclose([first["snn_error"], first["snn_error_sd"]], [each.mean(), each.std(ddof=1)])
    np.testing.assert_allclose(last["snn_error"], (each.sum() + 20) / 5)


def test_no_seed_counts_twice(tables):
    errors, operations = results.load("errors", tables), results.load("operations", tables)
    whole = {"images": summaries.TEST_IMAGES, "data": "CIFAR-10 test 0a"}
    one = errors["resnet20-cifar10"].assign(**whole)
    more = {"0": 11.0, "1 2": 14.0, "2 3": 90.0}
    rows = [one.assign(seed=seeds, snn_error=error, increment=error - 9) for seeds, error in more.items()]
    rows += [one.assign(runtime="torch", snn_error=80.0), one.assign(model="leaky", snn_error=70.0)]
    counted = operations["resnet20-cifar10"].assign(**whole)
    every = {"resnet20-cifar10": results.together(pd.concat(rows, ignore_index=True))}
    (row,) = summaries.headline(every, {"resnet20-cifar10": counted}).to_dict("records")
    assert (row["seeds"], row["SNN"], row["increment"]) == (3, "13.00 %", "+4.00")


@pytest.mark.parametrize("column", ["seed", "method"])
def test_tables_of_an_earlier_version_are_refused(tables, column):
    path = tables / "vgg16-cifar10-errors.csv"
    path.write_text(path.read_text().replace(f",{column},", ",other,"))
    with pytest.raises(UserError, match=rf"vgg16-cifar10-errors\.csv has no column {column}; make it again"):
        results.load("errors", tables)


@pytest.mark.parametrize("content", [b"", b'network,"a\n', b"network\n\xff\xfe\n"])
def test_what_is_no_table_is_told_in_one_line(content, tables):
    (tables / "vgg16-cifar10-errors.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"vgg16-cifar10-errors\.csv (is no table|has no column)"):
        results.load("errors", tables)


@pytest.mark.parametrize(
    "path",
    [path for kind in ("errors", "operations", "coding") for path in sorted(results.RESULTS.glob(f"*-{kind}.csv"))],
)
def test_published_tables_are_of_the_shipped_networks_and_thresholds(path):
    table = pd.read_csv(path, dtype={"checkpoint": str, "thresholds": str, "seed": str})
    name = path.stem.rpartition("-")[0]
    shipped = load_checkpoint(name)
    assert set(table["checkpoint"]) == {shipped.digest[:8]}
    if "thresholds" in table:
        beside = [find_thresholds(name, variant) for variant in VARIANTS]
        balanced = [load_thresholds(file, shipped) for file in beside if file.is_file()]
        conversions = [Conversion.of(thresholds) for thresholds in balanced]
        conversions += [load_conversion(file, shipped) for file in PRETRAINED.glob(f"{name}.*.conversion.safetensors")]
        columns = [Setting.of(shipped, "", conversion).columns() for conversion in conversions]
        known = {tuple(row[key] for key in THRESHOLDS) for row in columns}
        largest = table[table["percentile"] == 100]
        assert set(largest[THRESHOLDS].itertuples(index=False, name=None)) <= known
        assert set(with_earlier(table, path)["thresholds"]) == set(table["thresholds"])  # some look like numbers


def test_no_tables_are_told_from_an_empty_folder(tmp_path):
    with pytest.raises(results.MissingTableError, match="make one with sims/evaluate"):
        results.load("errors", tmp_path)


def test_comparison_has_the_papers_numbers_where_they_are_comparable(tables):
    table = summaries.comparison(results.load("errors", tables)).set_index(["network", "thresholds", "reset"])
    row = table.loc[("VGG-16, CIFAR-10 (x0.5 channels)", "SPIKE-NORM", "zero")]
    assert (row["images"], row["seeds"], row["ANN"], row["SNN"]) == ("1,000", "0", "9.00 %", "10.01 %")
    assert (row["increment"], row["the paper"]) == ("+1.01", "8.30 %, 8.45 % (+0.15), Table 1")
    elsewhere = table.loc[("VGG-16, Imagenette (x0.5 channels)", "SPIKE-NORM", "zero"), "the paper"]
    assert elsewhere == "on ImageNet: 29.48 %, 30.04 % (+0.56), Table 2"
    assert not table.loc[("VGG-16, CIFAR-10 (x0.5 channels)", "ANN-model, percentile 99.9", "subtract"), "the paper"]
    assert not table.loc[("ResNet-20, CIFAR-10, basic architecture (x0.5 channels)", "SPIKE-NORM", "zero"), "the paper"]


def test_paper_is_no_comparison_at_other_steps(tables):
    errors = results.load("errors", tables)["vgg16-cifar10"]
    shown = summaries.comparison({"vgg16-cifar10": errors[errors["steps"] <= 500]})
    assert set(shown["steps"]) == {500} and not shown["the paper"].any()


def test_comparison_of_several_seeds_has_deviations(tmp_path):
    errors = results.load("errors", write_tables(tmp_path, ("vgg16-cifar10",), seeds="0 1 2"))
    table = summaries.comparison(errors)
    assert (table["SNN"][0], table["seeds"][0]) == ("10.01 ± 0.50 %", "0, 1, 2")


def test_operations_and_energy(tables):
    table = summaries.operations_summary(results.load("operations", tables))
    row = table.iloc[[name.startswith("ResNet-34") for name in table["network"]]].iloc[0]
    assert (row["AC/MAC, all events"], row["AC/MAC, by layers"]) == ("3.00", "")  # no such network is shipped
    assert (row["ANN energy"], row["SNN energy"], row["SNN/ANN"], row["input's AC"]) == ("5 µJ", "3 µJ", "0.6", "2 M")
    assert row["the paper, by layers"] == "2.4 (ImageNet, 2000 steps)"
    others = table[(table["reset"] != "zero") | ~table["thresholds"].str.startswith("SPIKE-NORM")]
    assert len(others) and not others["the paper, by layers"].any()  # settings that the paper has not


def test_layers_leave_out_the_input_and_what_is_not_there():
    row = pd.Series({"input": 9.0, "a": 2.0, "b": np.nan}).add_prefix("spikes_per_neuron_")
    assert results.layers(pd.Series({"steps": 3, **row})) == {"a": 2.0}


def test_markdown():
    assert summaries.markdown(pd.DataFrame({"a": [1], "b": ["x"]})) == "| a | b |\n| --- | --- |\n| 1 | x |\n"
