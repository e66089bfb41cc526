"""Single neurons: what a click chooses."""

from unittest import mock

import numpy as np
from matplotlib.backend_bases import MouseButton, MouseEvent
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from recordings import STEPS

from sims.report.explore import Explorer


def explorer(recording) -> Explorer:
    figure = Figure(figsize=(7, 3), layout="constrained")
    FigureCanvasAgg(figure)
    made = Explorer(figure, recording, "hidden", 1)
    figure.draw_without_rendering()
    return made


def test_a_click_chooses_the_neuron_of_the_nearest_spike(recording):
    shown = explorer(recording)
    counts = recording.spike_counts("hidden")[1].ravel()
    assert shown.neuron == counts.argmax()
    other = next(i for i in np.argsort(counts) if counts[i] and i != shown.neuron)
    step = next(step for step, i in recording.rasters["hidden"] if i == other and step // STEPS == 1) % STEPS
    at = shown.raster.transData.transform((step, other))
    event = MouseEvent("button_press_event", shown.figure.canvas, *at, MouseButton.LEFT)
    shown.figure.canvas.callbacks.process("button_press_event", event)
    assert shown.neuron == other
    assert len(shown.train.get_xdata()) == counts[other]
    assert f"neuron {other}" in shown.raster.get_title()


def test_clicks_beside_the_raster_or_while_zooming_choose_nothing(recording):
    shown = explorer(recording)
    before = shown.neuron
    at = shown.raster.transData.transform((5, 0))
    shown.figure.canvas.toolbar = mock.Mock(mode="zoom rect")
    for place in (at, (1, 1)):
        event = MouseEvent("button_press_event", shown.figure.canvas, *place, MouseButton.LEFT)
        shown.figure.canvas.callbacks.process("button_press_event", event)
        shown.figure.canvas.toolbar = None
    assert shown.neuron == before
