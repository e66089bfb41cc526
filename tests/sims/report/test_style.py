"""The style of figures, and what is written."""

import subprocess
import sys

import matplotlib
import pytest
from commands import ROOT

from sims.report.style import save, style


def test_importing_plots_leaves_pyplot_alone():
    modules = "analysis.figures, sims.report.raster, sims.report.explore, sims.report.pictures"
    code = f"import sys, {modules}; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_style_ends_with_its_context():
    with matplotlib.rc_context():
        before = matplotlib.rcParams["axes.linewidth"] = 3.21
        with style():
            assert matplotlib.rcParams["axes.linewidth"] == 0.5
        assert matplotlib.rcParams["axes.linewidth"] == before


def test_save_writes_png_and_pdf_whole(ax, tmp_path):
    paths = save(ax.figure, tmp_path / "made" / "vgg16-x0.5")
    assert [path.name for path in paths] == ["vgg16-x0.5.png", "vgg16-x0.5.pdf"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["vgg16-x0.5.pdf", "vgg16-x0.5.png"]
    png, pdf = (path.read_bytes() for path in paths)
    assert png.startswith(b"\x89PNG")
    assert int.from_bytes(png[16:20]) == round(200 * ax.figure.get_size_inches()[0])
    assert pdf.startswith(b"%PDF")
    assert pdf.rstrip().endswith(b"%%EOF")


def test_save_writes_one_of_them_if_told(ax, tmp_path):
    assert save(ax.figure, tmp_path / "a", ["png"]) == [tmp_path / "a.png"]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.png"]


def test_save_gives_the_same_bytes_again(ax, tmp_path):
    first, second = save(ax.figure, tmp_path / "a"), save(ax.figure, str(tmp_path / "b"))
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_a_figure_that_cannot_be_drawn_leaves_the_old_files(ax, tmp_path):
    old = [path.read_bytes() for path in save(ax.figure, tmp_path / "a")]
    ax.set_title(r"$\unknown$")
    with pytest.raises(ValueError, match="unknown"):
        save(ax.figure, tmp_path / "a")
    assert [(tmp_path / f"a.{suffix}").read_bytes() for suffix in ("png", "pdf")] == old
    assert len(list(tmp_path.iterdir())) == 2
