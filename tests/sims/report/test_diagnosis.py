"""When a run's answers settle, and how that is told."""

import numpy as np
import pytest
from recordings import of_spikes

from sims.report.diagnosis import Diagnosis, settled


def answering(*classes: int, images: int = 1):
    """A recording whose output's largest potential is that of these classes, step by step."""
    potentials = np.repeat(np.eye(3)[list(classes)][None], images, axis=0)
    return of_spikes(np.zeros_like(potentials, dtype=int), potentials)


@pytest.mark.parametrize(
    ("classes", "step"), [((2, 2, 2), 1), ((0, 2, 2), 2), ((2, 0, 2), 3), ((2, 2, 0), None), ((1, 1, 1), None)]
)
def test_answers_settle_where_they_no_longer_differ_from_the_ann(classes, step):
    assert settled(answering(*classes), np.array([2])) == step


def test_a_share_of_the_images_is_enough():
    recording = answering(0, 2, images=4)
    assert settled(recording, np.array([2, 2, 2, 1])) is None
    assert settled(recording, np.array([2, 2, 2, 1]), share=0.75) == 2


def test_it_is_told_in_two_lines():
    assert Diagnosis({"conv": 0.5}, 7).text() == (
        "correlation    conv 0.500\nsettled        from step 7 on 99% of the classes are the ANN's"
    )
    assert Diagnosis({}, None).text().endswith("settled        no, less than 99% of the classes are the ANN's")
