"""Show images to a trained ResNet and let it answer in spikes.

Section 6 of Sengupta et al. 2019: what a residual network needs so that its conversion loses little. With
--constraints none the junctions have no ReLU; 1 gives them ReLUs (integrate-and-fire neurons); 2 gives all residual
units the threshold 1; 3, the default, puts two plain convolutions with balanced thresholds in front.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])

from netspec.errors import run_command
from sims.classify import classify_command

CONSTRAINTS = {
    "none": ("resnet20-cifar10-basic", "spike-norm"),
    "1": ("resnet20-cifar10-constraint1", "spike-norm"),
    "2": ("resnet20-cifar10-constraint1", "spike-norm-unit"),
    "3": ("resnet20-cifar10", "spike-norm-unit"),
}


def main() -> None:
    classify_command(__doc__, "resnet20-cifar10", "resnet", "spike-norm-unit", CONSTRAINTS)


if __name__ == "__main__":
    run_command(main)
