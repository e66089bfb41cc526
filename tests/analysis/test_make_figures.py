"""The command that draws all figures and writes the page of results."""

import re
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from commands import files, run
from results_tables import write_tables

from analysis import make_figures
from netspec.errors import UserError

FIGURES = partial(run, "make_figures.py", make_figures.main)


def test_figures_are_written_and_what_is_missing_is_told(tmp_path):
    tables = write_tables(tmp_path / "tables", ("vgg16-cifar10",))
    ended = FIGURES("--tables", tables, "--out", tmp_path / "new" / "figures")
    assert ended.status == 0, ended
    assert ended.err == ""
    written = files(tmp_path / "new" / "figures")
    drawn = {Path(name).stem for name in written} - {"results"}
    told = ended.out.splitlines()
    assert {"figure1_input_coding", "figure4_convergence", "figure5_spike_counts", "settings_vgg16-cifar10"} <= drawn
    for name in ("figure3_constraints", "threshold_convergence_vgg16-cifar10"):
        assert name not in drawn
        assert any(line.startswith(f"left out {name}: ") for line in told)
    assert all({f"{name}.png", f"{name}.pdf"} <= set(written) for name in drawn)
    assert "10.01 %" in written["results.md"].decode()


def test_what_stands_there_several_times_leaves_figures_out_alone(tables, tmp_path):
    path = tables / "vgg16-cifar10-errors.csv"
    table = pd.read_csv(path, dtype={"thresholds": str})
    pd.concat([table, table.assign(thresholds="0badbeef")]).to_csv(path, index=False)
    ended = FIGURES("--tables", tables, "--out", tmp_path / "out")
    assert ended.status == 0, ended
    assert "left out points_lost: the table of vgg16-cifar10 has several thresholds 'spike-norm 100'" in ended.out
    assert (tmp_path / "out" / "results.md").is_file()
    assert (tmp_path / "out" / "settings_vgg16-cifar10.png").is_file()


def test_the_results_page_says_what_imagenette_is(tables):
    assert "Imagenette is ten classes of ImageNet" in make_figures.results_page(tables)


def test_readme_is_short_and_has_the_table_that_the_results_give():
    readme = (make_figures.ROOT / "README.md").read_text()
    assert make_figures.with_headline(readme) == readme
    assert 6000 <= len(readme.encode()) <= 8192


@pytest.mark.parametrize("marker", [make_figures.BEGIN, make_figures.END])
def test_readme_without_a_marker_is_left_whole(marker):
    readme = (make_figures.ROOT / "README.md").read_text().replace(marker, "")
    with pytest.raises(UserError, match=f"README.md lacks {re.escape(marker.strip())}"):
        make_figures.with_headline(readme)


def test_figures_of_ones_own_tables_leave_the_published_ones_alone(tmp_path):
    tables = write_tables(tmp_path / "tables", ("vgg16-cifar10",))
    published = files(make_figures.ROOT / "figures")
    assert FIGURES("--tables", tables).status == 0
    assert files(make_figures.ROOT / "figures") == published
    assert f"from `{tables}`" in (tables / "figures" / "results.md").read_text()


def test_an_empty_folder_gives_no_results_page(tmp_path):
    (tmp_path / "tables").mkdir()
    ended = FIGURES("--tables", tmp_path / "tables", "--out", tmp_path / "out")
    assert ended.status == 0
    assert "left out results.md" in ended.out
    assert not (tmp_path / "out" / "results.md").exists()
    FIGURES("--tables", tmp_path / "nowhere").assert_refused("make_figures.py", "there is no folder")
