"""The command that measures the error of the input's coding."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from commands import run

from analysis import input_noise
from netspec.checkpoint import load_checkpoint

CODING = partial(run, "input_noise.py", input_noise.main)


def test_error_by_input_spikes_vanishes_with_their_number(tiny_file, tmp_path):
    out = tmp_path / "new" / "coding.csv"
    options = ("--checkpoint", tiny_file, "--data", "cifar10-samples", "--images", 16, "--out", out)  # 6.25 % each
    ended = CODING(*options, "--steps", 1, 10_000_000, "--seeds", 2)
    assert ended.status == 0, ended
    few, many = pd.read_csv(out).to_dict("records")
    assert (few["steps"], few["seeds"], many["coded_error_sd"]) == (1, 2, 0)
    assert (many["agreement"], many["increment"]) == (100, 0)
    assert few["agreement"] < 100
    assert few["increment"] == pytest.approx(few["coded_error"] - few["ann_error"])
    (checkpoint,) = {few["checkpoint"], many["checkpoint"]}
    assert load_checkpoint(tiny_file).digest.startswith(checkpoint)
    written = out.read_bytes()
    CODING(*options, "--steps", 1, 10_000_000, "--seeds", 2)
    assert out.read_bytes() == written
    errors = []
    for seed in range(2):
        CODING(*options, "--steps", 1, "--seed", seed)
        errors += list(pd.read_csv(out)["coded_error"])
    assert few["coded_error"] == pytest.approx(np.mean(errors), abs=1e-3)
    assert few["coded_error_sd"] == pytest.approx(np.std(errors, ddof=1), abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--steps", 0), "--steps must be at least 1, and --seed not negative"),
        (("--seeds", 0), "--seeds must be at least 1, got 0"),
        (("--seed", -1), "--steps must be at least 1, and --seed not negative"),
        (("--out", "."), "error: . is a folder; give the name of a file"),
    ],
)
def test_input_noise_refuses_what_makes_no_sense(tiny_file, arguments, message):
    ended = CODING("--checkpoint", tiny_file, "--data", "cifar10-samples", *arguments)
    ended.assert_refused("input_noise.py", message)
