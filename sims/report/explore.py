"""Looking at the spikes of single neurons in a notebook or a window: zoom, click, read."""

from importlib.util import find_spec

import numpy as np
from matplotlib.backend_bases import Event, MouseEvent
from matplotlib.figure import Figure

from sims.report.plots import interval_histogram
from sims.report.style import COLOURS, INK, MUTED
from sims.simulation.metrics import raster_of, spike_intervals
from sims.simulation.recording import Recording
from sims.simulation.wiring import group_shape

__all__ = ["Explorer", "interactive_figures"]


def interactive_figures() -> None:
    """Figures of the running notebook can be zoomed and clicked, if ipympl is installed; otherwise they stand still."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell is None:
        raise RuntimeError("interactive_figures() is for notebooks; elsewhere choose a backend of matplotlib")
    shell.run_line_magic("matplotlib", "widget" if find_spec("ipympl") else "inline")
    if not find_spec("ipympl"):
        print("pictures stand still; with ipympl (pip install ipympl) they can be zoomed and clicked")


class Explorer:
    """All spikes of a population during one presentation; a click chooses a neuron.

    On the right: where the neuron is among the rates of its channel, and the intervals between its spikes.
    On a backend without events it shows the neuron that was chosen with :meth:`choose`, at first the most active.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Of pyplot, so that it has a canvas that can be clicked.
    recording : Recording
    population : str
        One with a raster.
    presentation : int

    Attributes
    ----------
    neuron : int
        The chosen one.
    """

    def __init__(self, figure: Figure, recording: Recording, population: str, presentation: int = 0) -> None:
        self.figure, self.recording, self.population, self.presentation = figure, recording, population, presentation
        self.shape = group_shape(recording.spec, population)
        self.step, self.index = raster_of(recording, population, presentation)
        self.rates = recording.spike_counts(population)[presentation] / recording.steps
        axes = figure.subplot_mosaic([["raster", "map"], ["raster", "intervals"]], width_ratios=(2.4, 1))
        self.raster, self.map, self.intervals = axes["raster"], axes["map"], axes["intervals"]
        self.raster.plot(self.step, self.index, ".", color=INK, markersize=1, rasterized=True)
        (self.train,) = self.raster.plot([], [], "|", color=COLOURS["vermillion"], markersize=8)
        self.raster.set(xlabel="step", ylabel="neuron", xlim=(0, recording.steps), ylim=(-1, self.rates.size))
        figure.canvas.mpl_connect("button_press_event", self._clicked)
        self.choose(int(self.rates.argmax()))

    def choose(self, neuron: int) -> "Explorer":
        """Show this neuron; returns itself."""
        self.neuron = neuron
        y, x, channel = (int(place) for place in np.unravel_index(neuron, self.shape))
        spikes = self.step[self.index == neuron]
        self.train.set_data(spikes, np.full(len(spikes), neuron))
        self.raster.set_title(
            f"{self.population} neuron {neuron}: channel {channel}, y {y}, x {x}; {len(spikes)} spikes", color=INK
        )
        self.map.clear()
        self.map.imshow(self.rates[:, :, channel], vmin=0, vmax=max(float(self.rates.max()), 1e-9))
        self.map.plot(x, y, "s", color=COLOURS["vermillion"], fillstyle="none", markersize=6)
        self.map.set_title(f"rates of channel {channel}", color=MUTED)
        self.map.set(xticks=[], yticks=[])
        self.intervals.clear()
        interval_histogram(self.intervals, spike_intervals(self.recording, self.population, self.presentation, neuron))
        self.figure.canvas.draw_idle()
        return self

    def _clicked(self, event: Event) -> None:
        """The neuron of the spike nearest to a click on the raster, unless the click zooms or pans."""
        mode = getattr(getattr(self.figure.canvas, "toolbar", None), "mode", None)
        if mode or not len(self.step) or not isinstance(event, MouseEvent) or event.inaxes is not self.raster:
            return
        places = self.raster.transData.transform(np.stack([self.step, self.index], axis=1))
        self.choose(int(self.index[np.square(places - (event.x, event.y)).sum(axis=1).argmin()]))
