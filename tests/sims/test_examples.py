"""The examples run, and find what they are there to show."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "sims" / "examples"


def said_by(example, folder):
    environment = os.environ | {"PYTHONPATH": str(EXAMPLES.parents[1]), "MPLBACKEND": "agg"}
    command = [sys.executable, str(EXAMPLES / f"{example}.py")]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert (folder / f"output/examples/{example}.png").stat().st_size > 10_000
    return [int(number) for number in re.findall(r"\d+", run.stdout)]


def test_the_edge_of_a_disc_excites_more_than_its_inside(tmp_path):
    edge, inside = said_by("conductances", tmp_path)
    assert edge > 2 * inside > 0


def test_orientation_filters_answer_to_a_photograph(tmp_path):
    pytest.importorskip("foolbox")
    spikes, cells, *_ = said_by("orientation_filters", tmp_path)
    assert spikes > cells
