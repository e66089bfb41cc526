"""The coding of images in spikes: the spikes of a run, their error, pictures of both."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from recordings import SPEC, STEPS

from analysis import coding
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput


def test_the_photograph_is_small_and_always_the_same():
    photograph = coding.sample_photograph()
    assert (photograph.shape, photograph.dtype) == ((32, 32, 3), np.uint8)
    assert photograph.std() > 30
    assert coding.sample_photograph(64).shape == (64, 64, 3)


def test_accumulated_spikes_are_those_of_a_run():
    x = np.random.default_rng(0).uniform(-1, 1, (1, 4, 6, 3)).astype(np.float32)
    weights = {p.name: np.zeros(SPEC.weight_shape(p), np.float32) for p in SPEC.projections}
    thresholds = dict.fromkeys(("conv", "hidden", "output"), 1.0)
    run = ReferenceSimulator(SPEC, weights).run(RunInput(x, thresholds, STEPS, seed=7, ids=np.array([5])))
    signed = run.spike_counts("input_on").astype(int) - run.spike_counts("input_off")
    first, last = coding.accumulated_spikes(x[0], [1, STEPS], seed=7, image=5)
    np.testing.assert_array_equal(last, signed[0])
    assert np.abs(first).max() == 1


def test_the_sampling_error_is_as_expected():
    x = np.random.default_rng(0).uniform(-1, 1, (16, 16, 3))
    steps = [10, 100]
    np.testing.assert_allclose(coding.sampling_error(x, steps), coding.expected_error(x, steps), rtol=0.1)


@pytest.mark.parametrize("channels", [1, 3])
def test_input_coding_shows_zero_as_grey(channels):
    shape = (2, 3, channels)
    one_step = np.zeros(shape, np.int8)
    one_step[0, 0], one_step[1, 2] = 1, -1
    figure = Figure()
    returned = coding.input_coding(figure, np.zeros(shape, np.uint8), np.zeros(shape), one_step, 10 * one_step, 20)
    assert returned is figure
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["image", "ANN input", "spikes, 1 step", "spikes, 20 steps"]
    _, x, step, total = (axes.images[0].get_array() for axes in figure.axes)
    assert (x == 0.5).all()
    assert (step[0, 0] == 1).all() and (step[1, 2] == 0).all() and (step[0, 1] == 0.5).all()
    assert (total[0, 0] == 0.75).all() and (total[1, 2] == 0.25).all()
    figure.draw_without_rendering()


def test_sampling_error_beside_its_expectation():
    ax = coding.plot_sampling_error(Figure().subplots(), [1, 100], [0.5, 0.04], [0.4, 0.04])
    expected, measured = ax.lines
    assert list(expected.get_ydata()) == [0.4, 0.04]
    assert list(measured.get_ydata()) == [0.5, 0.04]
