"""Show images to a trained ResNet and let it answer in spikes.

Section 6 of Sengupta et al. 2019: what a residual network needs so that its conversion loses little. With
--constraints none the junctions have no ReLU; 1 gives them ReLUs (integrate-and-fire neurons); 2 gives all residual
units the threshold 1; 3, the default, puts two plain convolutions with balanced thresholds in front.
"""

from functools import partial

from netspec.architectures.resnet import CONSTRAINTS
from netspec.errors import run_command
from sims import run

main = partial(run.main, __doc__, CONSTRAINTS["3"].checkpoint, CONSTRAINTS["3"].thresholds, CONSTRAINTS)

if __name__ == "__main__":
    run_command(main)
