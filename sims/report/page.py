"""The page that a user opens first: one HTML file with everything in it, without scripts, which asks for no other."""

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from netspec.files import write_atomically
from sims.report.diagnosis import MOST_IMAGES, SHARE
from sims.report.pictures import counted
from sims.report.style import as_rgb
from sims.report.summary import Result, percent
from sims.simulation.metrics import constant_operations

__all__ = ["save_page"]

MOST_ROWS = 60  # images in the table
THUMBNAIL = 80  # pixels: larger images are made smaller
KINDS = {"relay": "relay", "max": "max pooling"}  # what is to be said of a population
PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def save_page(result: Result, pictures: Sequence[Path], out: Path, photos: bool = True) -> Path:
    """Write ``report.html`` from what is in ``summary.json`` and ``images.csv``, the PNG pictures, and thumbnails.

    Parameters
    ----------
    result : Result
    pictures : sequence of Path
        As from :func:`sims.report.pictures.save_pictures`; those named raster.png and accuracy.png are shown.
    out : Path
        Folder.
    photos : bool
        Whether the images themselves are shown.

    Returns
    -------
    Path
        The file.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    summary = result.summary
    shown = {file.stem: data_uri(file.read_bytes()) for file in pictures if file.suffix == ".png"}
    page = environment.get_template("page.html").render(
        summary=summary,
        settings=summary["settings"],
        answer=answer(result),
        figures=list(headline(summary)),
        rows=list(image_rows(result, photos)),
        pixelated=max(result.images.images.shape[1:3]) <= THUMBNAIL,
        fires=result.conversion.fires(result.recording.spec.output.name),
        labelled=bool((result.images.labels >= 0).any()),
        curve="Accuracy" if (result.images.labels >= 0).all() else "Agreement",
        images=counted(summary["images"], "image"),
        steps=counted(summary["settings"]["steps"], "step"),
        layers=list(layer_rows(result)),
        operations_note=operations_note(result),
        diagnosed=result.diagnosis is not None,
        compared=result.ann is not None,
        has_ann=not result.checkpoint.spiking,
        most_images=MOST_IMAGES,
        how=list(flat(summary["settings"])),
        versions=summary["versions"],
        raster=shown.get("raster"),
        accuracy=shown.get("accuracy"),
    )
    write_atomically(out / "report.html", page)
    return out / "report.html"


def answer(result: Result) -> str:
    """The result in a sentence or two."""
    summary, known = result.summary, result.images.labels >= 0
    after = f"After {counted(summary['settings']['steps'], 'step')} the spiking network"
    if result.silent:
        after = f"No spike reached the output in {counted(result.silent, 'image')}: their class is a guess. {after}"
    if result.ann is None:
        hits = round((summary["snn_accuracy"] or 0) * known.sum())
        why = result.without_ann
        done = f"is right on {hits} of {counted(int(known.sum()), 'image')}" if known.any() else "has answered"
        return f"{after} {done}. {why[0].upper()}{why[1:]}."
    agree = f"gives {summary['agreeing_images']} of {counted(summary['images'], 'image')} the class its ANN gives them"
    if not known.any():
        return f"{after} {agree}. The true classes of these images are not told, or none that it can name."
    right = {who: round(summary[f"{who}_accuracy"] * known.sum()) for who in ("snn", "ann")}
    of = f"of {counted(int(known.sum()), 'image')}" + ("" if known.all() else " of known class")
    return f"{after} is right on {right['snn']} {of}, its ANN on {right['ann']}. It {agree}."


def headline(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Number, what it is, and a remark, of each of the large figures on top; what is unknown is left out."""
    known = summary["images_of_known_class"]
    few = f"one image is {100 / known:.3g} points" if 0 < known < 1000 else ""
    for who in ("snn", "ann"):
        if summary[f"{who}_accuracy"] is not None:
            yield percent(summary[f"{who}_accuracy"]), f"accuracy of the {who.upper()}", few if who == "snn" else ""
    if summary["agreement"] is not None:
        yield percent(summary["agreement"]), "of the classes are the ANN's", ""
    if "diagnosis" in summary:
        settled, same = summary["diagnosis"]["steps"], f"{SHARE:.0%} of the classes are the ANN's"
        yield ("never", same, "") if settled is None else (f"step {settled:,}", f"and from it on {same}", "")
    if summary["ac_mac_ratio"] is not None:
        yield (
            f"{summary['ac_mac_ratio']:.2f}",
            "additions for each of the ANN's multiplications",
            f"{summary['ac_mac_by_layers']:.2f} as the paper counts",
        )
    if summary["energy_ratio"] is not None:
        yield f"{summary['energy_ratio']:.2f}", "of the ANN's energy", "arithmetic alone, 45 nm, input included"


def image_rows(result: Result, photos: bool) -> Iterator[dict[str, Any]]:
    """The first rows of the table of images, with thumbnails, and what is to be said of the answer."""
    labels, snn = result.images.labels, result.recording.predictions()
    quantity = str(result.table.columns[-2])  # by which the class is told
    digits = 0 if quantity == "output_spikes" else 1
    for number, row in enumerate(result.table.head(MOST_ROWS).to_dict("records")):
        if labels[number] >= 0:
            verdict = "right" if snn[number] == labels[number] else "wrong"
        elif result.ann is None:
            verdict = ""
        else:
            verdict = "same" if snn[number] == result.ann[number] else "other"
        ends = [f"{row[key]:,.{digits}f}" for key in (quantity, "runner_up")]
        picture = thumbnail(result.images.images[number]) if photos else None
        told = {str(key): value for key, value in row.items()}
        yield told | {"verdict": verdict, "winner": ends[0], "next": ends[1], "picture": picture}


def layer_rows(result: Result) -> Iterator[dict[str, Any]]:
    """A row for each population: neurons, spikes and operations of an image, correlation, and shares of the largest."""
    summary, spec = result.summary, result.recording.spec
    operations = {
        population.name: sum(summary["synaptic_operations"][p.name] for p in spec.incoming(population.name))
        / summary["images"]
        for population in spec.populations[1:]
    }
    spikes = {name: value for name, value in summary["spikes_per_neuron"].items() if spec[name].kind != "input"}
    correlation = summary.get("diagnosis", {}).get("correlation", {})

    def silent(name: str) -> bool:
        return name in result.conversion.thresholds and not result.conversion.fires(name)

    for population in spec.populations:
        name = population.name
        height, width, channels = population.shape
        yield {
            "name": name,
            "kind": "gathers potential" if silent(name) else KINDS.get(population.kind, ""),
            "shape": f"{channels:,}" if height == width == 1 else f"{height}x{width}x{channels:,}",
            "spikes": f"{summary['spikes_per_neuron'][name]:.3g}" if name in summary["spikes_per_neuron"] else "",
            "spikes_share": share(spikes.get(name), spikes),
            "operations": prefixed(operations[name]) if name in operations else "",
            "operations_share": share(operations.get(name), operations),
            "macs": prefixed(sum(spec.macs(p) for p in spec.incoming(name))) if name in operations else "",
            "correlation": f"{correlation[name]:.3f}" if name in correlation else "",
            "correlation_share": 100 * max(0.0, correlation.get(name, 0.0)),
        }


def operations_note(result: Result) -> str:
    """What the counted operations leave out."""
    spec, note = result.recording.spec, ""
    if any(population.kind == "relay" for population in spec.populations):
        note = "What relays pass on are graded values, which are no spikes: their operations are not counted. "
    if result.recording.settings.get("coding") != "current":
        return note
    macs, additions = constant_operations(result.recording.spec, result.recording.steps)
    return note + (
        "The input is a constant current and has no spikes: what the first layer gets of it costs an image "
        f"{prefixed(macs)} multiplications once, and {prefixed(additions)} additions over all steps."
    )


def share(value: float | None, of: Mapping[str, float]) -> float:
    """Percent of the largest."""
    return 100 * (value or 0) / (max(of.values(), default=0) or 1)


def prefixed(number: float) -> str:
    """``'1.23 M'``."""
    factor, prefix = next(((f, p) for f, p in PREFIXES if number >= f), (1.0, ""))
    return f"{number / factor:.3g} {prefix}".strip()


def flat(settings: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Names and values for people, without the command."""
    for name, value in settings.items():
        title = f"{above}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from flat(value, f"{title}: ")
        elif name != "command" and value not in (None, [], ""):
            yield title, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def thumbnail(image: np.ndarray) -> str:
    """An image, at most ``THUMBNAIL`` pixels high and wide, as a data URI."""
    picture, buffer = Image.fromarray(np.ascontiguousarray(as_rgb(image))), io.BytesIO()
    picture.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    picture.save(buffer, format="PNG", optimize=True)
    return data_uri(buffer.getvalue())


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
