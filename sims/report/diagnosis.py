"""Where a conversion loses what its ANN knows: rates against activations, layer by layer, and when answers settle."""

from dataclasses import dataclass

import numpy as np

from netspec.ann import ann_activations
from netspec.checkpoint import Checkpoint
from netspec.conversion import Conversion
from sims.simulation.metrics import agreement, rate_correlation
from sims.simulation.recording import Recording

__all__ = ["MOST_IMAGES", "SHARE", "Diagnosis", "settled"]

MOST_IMAGES = 20  # whose activations are looked at
SHARE = 0.99  # of the images whose class has to be the ANN's


@dataclass(frozen=True)
class Diagnosis:
    """Of one run.

    Parameters
    ----------
    correlation : dict of str to float
        Of rates and the ANN's activations, for each population of IF neurons (the output's if it fires).
    steps : int or None
        After which the SNN's class is the ANN's for ``SHARE`` of the images, and stays so to the end; None if never.
    """

    correlation: dict[str, float]
    steps: int | None

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, conversion: Conversion, recording: Recording, images: np.ndarray, ann: np.ndarray
    ) -> "Diagnosis":
        """Images are uint8 (n, height, width, channels); ``ann`` are the classes that the ANN gives them."""
        found = rate_correlation(recording, ann_activations(checkpoint, images), conversion.spike_values)
        return cls({name: value for name, value in found.items() if not np.isnan(value)}, settled(recording, ann))

    def text(self) -> str:
        """Two lines for people."""
        layers = " ".join(f"{name} {value:.3f}" for name, value in self.correlation.items())
        said = f"{SHARE:.0%} of the classes are the ANN's"
        settled = f"no, less than {said}" if self.steps is None else f"from step {self.steps} on {said}"
        return f"{'correlation':<15}{layers}\n{'settled':<15}{settled}"


def settled(recording: Recording, ann: np.ndarray, share: float = SHARE) -> int | None:
    """The step from which on, to the end, at least ``share`` of the classes are the ANN's."""
    enough = agreement(recording, ann) >= share
    if not enough[-1]:
        return None
    return int(np.flatnonzero(~enough)[-1]) + 2 if not enough.all() else 1
