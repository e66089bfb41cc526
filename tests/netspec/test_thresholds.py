"""Thresholds: their file, and the activation that a spike stands for."""

from dataclasses import replace

import numpy as np
import pytest
from commands import files, tiny_checkpoint, tiny_spec

from netspec.errors import UserError
from netspec.thresholds import Thresholds, load_thresholds

NAMES = [population.name for population in tiny_spec().spiking]


def test_thresholds_come_back_as_they_were_saved(tmp_path):
    checkpoint = tiny_checkpoint()
    found = dict(zip(NAMES, (1.5, 0.1, float(np.float32(2.3)), 7.0), strict=True))
    thresholds = Thresholds(found, "spike-norm", checkpoint.digest, 99.9, 7, "somewhere", 5, 30, "subtract")
    thresholds.save(tmp_path / "t.json")
    assert load_thresholds(tmp_path / "t.json", checkpoint) == thresholds
    assert sorted(files(tmp_path)) == ["t.json"]


def test_thresholds_belong_to_weights_and_input_coding(tmp_path):
    checkpoint = tiny_checkpoint()
    path = tmp_path / "t.json"
    Thresholds(dict.fromkeys(NAMES, 1.0), "spike-norm", checkpoint.digest, 100, 1, "", 0).save(path)
    weights = {name: weight.copy() for name, weight in checkpoint.weights.items()}
    weights["input_to_conv1_1"][0, 0, 0, 0] += 1
    others = [replace(checkpoint, weights=weights), replace(checkpoint, gain=2.5),
              replace(checkpoint, mean=checkpoint.mean + 0.1), tiny_checkpoint(tiny_spec("vgg16-other"))]  # fmt: skip
    assert load_thresholds(path, replace(checkpoint, info={"epochs": 9})).values["output"] == 1.0
    for other in others:
        with pytest.raises(UserError, match="holds the thresholds of another checkpoint"):
            load_thresholds(path, other)


def test_thresholds_in_another_order_do_not_fit(tmp_path):
    checkpoint = tiny_checkpoint()
    Thresholds(dict.fromkeys(NAMES[::-1], 1.0), "spike-norm", checkpoint.digest, 100, 1, "", 0).save(tmp_path / "t")
    with pytest.raises(UserError, match="thresholds of output, conv5_3, conv3_3, conv1_1 do not fit the populations"):
        load_thresholds(tmp_path / "t", checkpoint)


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", '{"format": 1}', "\x00", '"text"', "[1, 2]"])
def test_other_files_are_no_thresholds(content, tmp_path):
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(UserError, match=r"t.json is no thresholds file of this project, or truncated"):
        load_thresholds(tmp_path / "t.json", tiny_checkpoint())
