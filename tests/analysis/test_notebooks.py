"""The notebooks: committed without outputs, run from top to bottom, silent on stderr, writing nothing."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from commands import ROOT, files
from nbclient import NotebookClient

PACKAGES = ("analysis", "netspec", "sims")
NOTEBOOKS = sorted(path.name for path in (ROOT / "analysis").glob("*.ipynb"))
WHICH = nbformat.v4.new_code_cell(f"import {', '.join(PACKAGES)}; print({'.__file__, '.join(PACKAGES)}.__file__)")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of what notebooks need."""
    folder = tmp_path_factory.mktemp("repository")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return folder


@pytest.fixture
def environment(copy, monkeypatch):
    """That of the kernel: the copy's packages, one thread, no compiled Python files in the copy, no way out."""
    for name, value in {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}.items():
        monkeypatch.setenv(name, value)
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # where nobody listens
    assert os.environ["GOING_DEEPER_CACHE"]  # from conftest.py


def test_there_are_notebooks():
    assert [name[0] for name in NOTEBOOKS] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_committed_without_outputs(name):
    notebook = nbformat.read(ROOT / "analysis" / name, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert not any(line.startswith(("def ", "class ")) for cell in code for line in cell.source.splitlines())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name, copy, environment):
    before = files(copy)
    notebook = nbformat.read(copy / "analysis" / name, as_version=4)
    notebook.cells.append(WHICH.copy())
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": copy / "analysis"}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert outputs.pop().text.split() == [str(copy / package / "__init__.py") for package in PACKAGES]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert any("image/png" in output.get("data", ()) for output in outputs)
    assert files(copy) == before
