"""The page of a run: all that it tells, nothing from outside, small enough. How it looks is judged by eye."""

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest
from commands import tiny_checkpoint
from networks import exact_thresholds, residual
from PIL import Image

from netspec.ann import ann_predictions
from netspec.conversion import Conversion
from netspec.data import ImageSet, samples
from sims.report.diagnosis import Diagnosis
from sims.report.page import MOST_ROWS, operations_note, prefixed, save_page, thumbnail
from sims.report.pictures import save_pictures
from sims.report.summary import Result
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

VOID = {"meta", "img", "br", "link", "input", "hr"}
ASKING = {"src", "href", "srcset", "data", "action", "poster", "background", "formaction", "xlink:href"}


class Page(HTMLParser):
    """Its tags with attributes, its text, the cells of its tables; tags must close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] = " ".join(f"{self.rows[-1][-1]} {data}".split())
        self.text += data if self.open and self.open[-1] != "style" else ""

    def pictures(self) -> Iterator[Image.Image]:
        for tag, attributes in self.tags:
            if tag == "img":
                kind, _, content = (attributes["src"] or "").partition(",")
                assert kind == "data:image/png;base64" and attributes["alt"]
                yield Image.open(io.BytesIO(base64.b64decode(content, validate=True)))


def run(images: ImageSet, steps: int = 40, diagnosed: bool = True, coding: str = "poisson", **settings) -> Result:
    """Some images shown to the tiny network."""
    checkpoint = tiny_checkpoint()
    x = checkpoint.encode(images.images)
    values = exact_thresholds(checkpoint.spec, dict(checkpoint.weights), x)
    conversion = Conversion(checkpoint.digest, "spike-norm", values, coding=coding)
    given = RunInput.of(x, conversion, steps, seed=3, rasters=["conv1_1"], raster_presentations=2)
    recording = ReferenceSimulator(checkpoint.spec, checkpoint.weights).run(given)
    ann = ann_predictions(checkpoint, images.images)
    diagnosis = Diagnosis.of(checkpoint, conversion, recording, images.images, ann) if diagnosed else None
    settings = {"command": "python sims/run.py --steps 40"} | settings
    return Result(checkpoint, conversion, images, recording, ann, settings, {"simulate": 1.25}, diagnosis)


def page_of(result: Result, out, rasters=("conv1_1",), photos: bool = True) -> Page:
    file = save_page(result, save_pictures(result, list(rasters), out, photos), out, photos)
    assert file == out / "report.html"
    return Page(file.read_text())


@pytest.fixture(scope="module")
def result():
    return run(samples(), coding="current", note="<script>alert('&')</script>")


@pytest.fixture(scope="module")
def page(result, tmp_path_factory):
    return page_of(result, tmp_path_factory.mktemp("page"))


def test_nothing_comes_from_outside_the_file_and_nothing_is_run(page, result, tmp_path):
    asked = [value for _, attributes in page.tags for name, value in attributes.items() if name in ASKING]
    assert len(asked) == 22 and all(value.startswith(("data:", "#")) for value in asked)
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    page_of(result, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert not re.search(r"url\(|@import|https?:", html.replace("data:image/png;base64", ""))
    assert "default-src 'none'; img-src data:;" in html
    assert ["note", "<script>alert('&')</script>"] in page.rows  # as text


def test_the_answer_comes_first(page, result):
    labels, snn = samples().labels, result.recording.predictions()
    right = [int(np.sum(classes == labels)) for classes in (snn, result.ann)]
    said = f"After 40 steps the spiking network is right on {right[0]} of 20 images, its ANN on {right[1]}."
    said += f" It gives {np.sum(snn == result.ann)} of 20 images the class its ANN gives them."
    assert said in page.text
    assert page.text.index(said) < page.text.index("Images")
    assert f"{100 * result.summary['snn_accuracy']:.2f} %" in page.text


def test_each_image_has_a_row_with_a_thumbnail_and_a_verdict(page, result):
    rows = page.rows[1:21]
    signs = {True: "✓", False: "✗"}
    for row, told, label, snn in zip(
        rows, result.table.to_dict("records"), samples().labels, result.recording.predictions(), strict=True
    ):
        sign = signs[bool(snn == label)]
        expected = [str(told["image"]), "", told["true"], told["ann"], f"{told['snn']} {sign}"]
        assert row == [*expected, str(told["output_spikes"]), str(told["runner_up"])]
    accuracy, *thumbnails, raster = page.pictures()
    for picture, image in zip(thumbnails, samples().images, strict=True):
        np.testing.assert_array_equal(np.asarray(picture), image)
    assert min(*accuracy.size, *raster.size) > 200


def test_layers_have_the_numbers_of_the_summary(page, result):
    start = next(k for k, row in enumerate(page.rows) if row[0] == "layer") + 1
    names = [population.name for population in result.recording.spec.populations]
    rows = {row[0]: row[1:] for row in page.rows[start : start + len(names)]}
    assert list(rows) == names
    summary, spec = result.summary, result.recording.spec
    for name in names[1:]:
        (projection,) = spec.incoming(name)
        operations = summary["synaptic_operations"][projection.name] / 20
        correlation = f"{summary['diagnosis']['correlation'][name]:.3f}"
        numbers = [f"{summary['spikes_per_neuron'][name]:.3g}", prefixed(operations), prefixed(spec.macs(projection))]
        assert rows[name][2:] == [*numbers, correlation]
    assert rows["input"][1:] == ["32x32x3", "0", "", "", ""]
    assert "The input is a constant current and has no spikes" in page.text


def test_settings_versions_and_the_command_are_told(page, result):
    settings = result.summary["settings"]
    for row in (["checkpoint", settings["checkpoint"]], ["seed", "3"], ["coding", "current"]):
        assert row in page.rows
    assert [["brian2", result.summary["versions"]["brian2"]], ["seconds: simulate", "1.25"]] == [
        next(row for row in page.rows if row[0] == name) for name in ("brian2", "seconds: simulate")
    ]
    assert "python sims/run.py --steps 40" in page.text


def test_photographs_are_left_out_when_they_should_be(tmp_path):
    page = page_of(run(samples().first(3)), tmp_path, photos=False)
    assert len(list(page.pictures())) == 2
    assert page.rows[0][:2] == ["#", "true class"]


def test_what_is_not_known_is_left_out(tmp_path):
    images = samples().first(4)
    page = page_of(run(replace(images, labels=np.full(4, -1)), diagnosed=False), tmp_path, rasters=())
    assert len(list(page.pictures())) == 5  # no raster
    assert page.rows[0] == ["#", "", "ANN", "SNN", "output spikes", "next class's"]
    assert "true classes of these images are not told, or none that it can name" in page.text
    assert "accuracy of" not in page.text
    assert "correlation with the ANN" not in page.text and "in runs of up to 20 images" in page.text
    assert "Agreement against steps" in page.text and "Accuracy against steps" not in page.text


def test_answers_without_any_spike_are_called_guesses(tmp_path):
    result = run(samples().first(3), steps=1)
    assert result.silent == 3
    assert "no spike reached the output in 3 of 3 images: their class is a guess" in result.text()
    assert "No spike reached the output in 3 images: their class is a guess." in page_of(result, tmp_path, ()).text


def test_networks_without_an_ann_have_a_page(tmp_path):
    told = page_of(replace(run(samples().first(2), diagnosed=False), ann=None), tmp_path)
    assert "There is no ANN to compare with." in told.text
    images = next(row for row in told.rows if "SNN" in row)
    assert "ANN" not in images
    assert "accuracy of the SNN" in told.text
    assert "of the classes are the ANN's" not in told.text


def test_a_network_that_came_in_as_spiking_has_nothing_of_an_ann(tmp_path):
    result = run(samples().first(2), diagnosed=False)
    spiking = replace(result, ann=None, checkpoint=replace(result.checkpoint, info={"spiking": True}))
    assert spiking.checkpoint.spiking
    told = page_of(spiking, tmp_path)
    for words in ("of the ANN's energy", "ANN's multiplications"):
        assert words not in told.text
    assert all(spiking.summary[name] is None for name in ("energy_ratio", "ac_mac_ratio", "ac_mac_by_layers"))


def test_relays_have_operations_that_nobody_counts(tmp_path):
    assert "are graded values" not in page_of(run(samples().first(1)), tmp_path).text
    network = tiny_checkpoint(residual("relay"))
    assert "are graded values" in operations_note(
        SimpleNamespace(recording=SimpleNamespace(spec=network.spec, settings={}))
    )


def test_a_dollar_is_no_mathematics(tmp_path):
    images = samples().first(2)
    odd = replace(run(images), images=replace(images, classes=tuple(rf"$\{name}$" for name in images.classes)))
    assert len(list(page_of(odd, tmp_path).pictures())) > 2


def test_of_images_of_which_some_classes_are_known(tmp_path):
    images = samples().first(4)
    result = run(replace(images, labels=np.array([*images.labels[:3], -1])))
    page = page_of(result, tmp_path)
    right = round(3 * result.summary["snn_accuracy"])
    assert f"is right on {right} of 3 images of known class" in page.text
    assert "one image is 33.3 points" in page.text
    assert "% of 3 images of known class\n" in result.text()
    assert page.rows[4][2] == "?"
    assert "Agreement against steps" in page.text


@pytest.fixture(scope="module")
def hundred():
    return run(samples().subset(np.arange(100) % 20), diagnosed=False)


@pytest.mark.parametrize("side", [32, 224])
def test_a_page_of_many_images_is_small(side, hundred, tmp_path):
    """Noise, which nothing compresses."""
    rng = np.random.default_rng(0)
    noise = replace(hundred.images, images=rng.integers(0, 256, (100, side, side, 3), dtype=np.uint8))
    page = page_of(replace(hundred, images=noise), tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 3e6
    assert len(list(page.pictures())) == MOST_ROWS + 2
    assert "The first 60 of 100 images; all are in images.csv." in page.text


def test_thumbnails_keep_the_shape_and_are_grey_where_the_image_is():
    for shape, size in (((224, 112, 3), (40, 80)), ((8, 16, 1), (16, 8))):
        uri = thumbnail(np.full(shape, 7, dtype=np.uint8))
        picture = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert (picture.size, picture.getpixel((0, 0))) == (size, (7, 7, 7))
