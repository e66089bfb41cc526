"""Recordings as objects of Neo, for Elephant and whatever else reads them."""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from netspec.errors import UserError
from sims.simulation.recording import Recording
from sims.simulation.wiring import group_shape

__all__ = ["to_block"]


def to_block(recording: Recording, names: Sequence[str] | None = None, step_ms: float = 1.0) -> Any:
    """A block with a segment for each presentation, and in it a spike train for each neuron of the named groups.

    Parameters
    ----------
    recording : Recording
    names : sequence of str, optional
        Groups with a raster; by default all that have one. Only presentations with the rasters of all of them are
        exported; only the output's alone is there for every presentation.
    step_ms : float
        What a step is to last, in milliseconds.

    Returns
    -------
    neo.Block
        Spike trains are annotated with population, neuron, channel, y and x; silent neurons have empty ones.

    Raises
    ------
    UserError
        If Neo is not installed, or there is no raster of a group.
    """
    try:
        neo = import_module("neo")
    except ImportError as error:
        raise UserError("Neo is not installed: pip install neo") from error
    chosen = list(recording.rasters) if names is None else list(names)
    missing = [name for name in chosen if name not in recording.rasters]
    if missing or not chosen:
        raise UserError(f"no raster of {', '.join(missing) or 'anything'} was recorded; name it in the run's rasters")
    block = neo.Block(name=recording.spec.name, **{key: str(value) for key, value in recording.settings.items()})
    for presentation in range(recording.recorded_presentations(chosen)):
        segment = neo.Segment(name=f"presentation {presentation}", index=presentation)
        for name in chosen:
            segment.spiketrains.extend(_spike_trains(neo, recording, name, presentation, step_ms))
        block.segments.append(segment)
    return block


def _spike_trains(neo: ModuleType, recording: Recording, name: str, presentation: int, step_ms: float) -> list[Any]:
    """One for each neuron, in order."""
    step, neuron = recording.rasters[name].T
    here = step // recording.steps == presentation
    step, neuron = step[here] % recording.steps, neuron[here]
    order = np.lexsort((step, neuron))
    shape = group_shape(recording.spec, name)
    places = zip(*np.unravel_index(np.arange(np.prod(shape)), shape), strict=True)
    first = np.searchsorted(neuron[order], np.arange(np.prod(shape) + 1))
    times = step[order] * step_ms
    return [
        neo.SpikeTrain(
            times[first[index] : first[index + 1]],
            units="ms",
            t_stop=recording.steps * step_ms,
            name=f"{name} {index}",
            population=name,
            neuron=index,
            channel=int(channel),
            y=int(y),
            x=int(x),
        )
        for index, (y, x, channel) in enumerate(places)
    ]
