"""run_vgg.py with conversions for few steps, other neuron models, and events."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import Ended, files, run

from netspec.checkpoint import load_checkpoint
from netspec.conversion import find_conversion, load_conversion, open_conversion
from netspec.data import samples
from netspec.files import read_json
from sims import run_vgg as vgg
from sims.conversion.activations import from_activations
from sims.simulation.recording import Recording
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput


def run_vgg(checkpoint, out, *arguments):
    return run("run_vgg.py", vgg.main, "--checkpoint", checkpoint, "--out", out, *arguments)


@pytest.fixture(scope="module")
def fast(tiny, tmp_path_factory):
    """The tiny network with a conversion 'fast' beside it."""
    copy = tmp_path_factory.mktemp("fast") / "net.safetensors"
    shutil.copy(tiny, copy)
    network = load_checkpoint(copy)
    conversion = from_activations(network, network.encode(samples().images), 99)
    conversion.save(find_conversion(copy, "fast"))
    return copy


def test_fast_shows_a_current_for_16_steps(fast, tmp_path):
    ended = run_vgg(fast, tmp_path, "--fast", "--images", 4)
    assert ended.status == 0
    network = load_checkpoint(fast)
    conversion, x = open_conversion("fast", fast, network), network.encode(samples().images[:4])
    expected = ReferenceSimulator(network.spec, network.weights, "subtract").run(RunInput.of(x, conversion, 16))
    recording, table = Recording.load(tmp_path / "recording.npz"), pd.read_csv(tmp_path / "images.csv")
    assert recording.steps == 16 and recording.settings["coding"] == "current"
    assert np.mean(recording.counts == expected.counts) > 0.999  # sums are in another order
    assert not recording.spike_counts("output").any() and "raster.png" in files(tmp_path)
    assert list(table)[-2:] == ["potential", "runner_up"]
    np.testing.assert_allclose(table["potential"], recording.output_v[:, -1].max(axis=1), atol=1e-3)
    how = read_json(tmp_path / "summary.json")["settings"]
    assert (how["coding"], how["reset"], how["conversion"]["method"]) == ("current", "subtract", "activations")


def test_fast_takes_the_steps_and_the_delay_of_its_conversion(fast, tmp_path):
    network, copy = load_checkpoint(fast), shutil.copy(fast, tmp_path / "net.safetensors")
    conversion = from_activations(network, network.encode(samples().images), 99, steps=24, delay=0.5)
    conversion.save(find_conversion(copy, "fast"))
    for asked in (["--fast"], ["--conversion", "fast"]):
        assert run_vgg(copy, tmp_path / "out", *asked, "--images", 4).status == 0
        recording = Recording.load(tmp_path / "out" / "recording.npz")
        assert (recording.steps, recording.settings["delay"]) == (24, 0.5)
    late = recording.output_v[:, -1] - recording.output_v[:, 11]
    np.testing.assert_array_equal(recording.predictions(), late.argmax(axis=1))


def test_conversions_leave_no_choice_that_would_be_ignored(fast, tmp_path):
    for name in ("ann-norm", "spike-norm"):
        run_vgg(fast, tmp_path, "--fast", "--thresholds", name).assert_refused("run_vgg.py", "--fast is a conversion")
    refused = run_vgg(fast, tmp_path, "--conversion", "slow")
    refused.assert_refused("run_vgg.py", "there is no conversion 'slow' of net; there are fast, or give a file")
    for path in ("output/mine", "./fast", "../fast", "/tmp", "folder/"):
        run_vgg(fast, tmp_path, "--conversion", path).assert_refused("run_vgg.py", "cannot read the conversion ")


def test_choices_that_contradict_each_other_are_refused(fast, tmp_path):
    events = run_vgg(fast, tmp_path, "--events", "a.npz", "--coding", "current")
    events.assert_refused("run_vgg.py", "--events are the input, and --coding is of images")
    models = run_vgg(fast, tmp_path, "--conversion", "fast", "--model", "if", "leaky")
    models.assert_refused("run_vgg.py", "one neuron model for all populations")
    twice = run_vgg(fast, tmp_path, "--conversion", "fast", "--model", "conv1_1=lif", "conv1_1=leaky")
    twice.assert_refused("run_vgg.py", "conv1_1 is given two neuron models")
    missing = run_vgg(fast, tmp_path, "--conversion", "none.conversion.safetensors")
    missing.assert_refused("run_vgg.py", "cannot read the conversion none.conversion.safetensors")


def test_a_conversion_s_coding_and_reset_can_be_changed_and_are_noted(fast, tmp_path):
    arguments = ("--conversion", "fast", "--steps", 8, "--images", 2, "--coding", "poisson", "--reset", "zero")
    assert run_vgg(fast, tmp_path, *arguments, "--runtime", "numpy").status == 0
    recording = Recording.load(tmp_path / "recording.npz")
    assert recording.spike_counts("input").any()
    assert load_conversion(tmp_path / "conversion.safetensors", load_checkpoint(fast)).reset == "zero"


@pytest.mark.parametrize("choice", [("leaky",), ("if", "conv3_3=leaky"), ("lif", "output=if")])
def test_a_saved_conversion_brings_its_shipped_models(choice, tiny, tmp_path):
    arguments = ("--images", 2, "--steps", 20, "--runtime", "numpy")
    assert run_vgg(tiny, tmp_path / "told", *arguments, "--model", *choice).status == 0
    saved = tmp_path / "told" / "conversion.safetensors"
    assert run_vgg(tiny, tmp_path / "again", *arguments, "--conversion", saved).status == 0
    assert run_vgg(tiny, tmp_path / "plain", *arguments).status == 0
    told, again, plain = (
        Recording.load(tmp_path / name / "recording.npz").counts for name in ("told", "again", "plain")
    )
    np.testing.assert_array_equal(told, again)
    assert (told != plain).any()


def test_a_model_of_one_population_leaves_those_of_the_conversion_to_others(tiny, tmp_path):
    arguments = ("--images", 2, "--steps", 20, "--runtime", "numpy")
    assert run_vgg(tiny, tmp_path / "lif", *arguments, "--model", "lif").status == 0
    saved = tmp_path / "lif" / "conversion.safetensors"
    counts = {}
    for name, told in {"both": ("lif", "output=leaky"), "one": ("output=leaky",), "if": ("if", "output=leaky")}.items():
        own = () if name == "both" else ("--conversion", saved)
        assert run_vgg(tiny, tmp_path / name, *arguments, *own, "--model", *told).status == 0
        counts[name] = Recording.load(tmp_path / name / "recording.npz").counts
    np.testing.assert_array_equal(counts["one"], counts["both"])
    assert (counts["one"] != counts["if"]).any()


def test_neuron_models_are_chosen_for_all_or_for_one(tiny, tmp_path):
    model = tmp_path / "heavy.toml"
    model.write_text('equations = "v : 1"\nupdate = "v *= 0.5"\n')
    arguments = ("--images", 1, "--steps", 12, "--runtime", "numpy", "--raster")
    spikes = {}
    for choice in ("if", "leaky", model, f"conv3_3={model}"):
        assert run_vgg(tiny, tmp_path / "out", *arguments, "--model", choice).status == 0
        recording = Recording.load(tmp_path / "out" / "recording.npz")
        spikes[str(choice)] = tuple(recording.spike_counts(name).sum() for name in ("conv1_1", "conv3_3"))
        named = read_json(tmp_path / "out" / "summary.json")["settings"]["model"]
        digest = named.removeprefix(str(choice).replace(str(model), "heavy"))  # of a text that is not a shipped one
        assert digest == "" if choice in ("if", "leaky") else re.fullmatch(" [0-9a-f]{8}", digest)
    first, leaky, heavy, one = spikes.values()
    assert first > leaky > heavy
    assert one[0] == first[0] and one[1] < first[1]
    saved = tmp_path / "out" / "conversion.safetensors"  # of the last run; it does not have the text of its model
    again = run_vgg(tiny, tmp_path / "again", *arguments, "--conversion", saved)
    again.assert_refused("run_vgg.py", "heavy ")
    run_vgg(tiny, tmp_path, *arguments, "--model", "soft").assert_refused("run_vgg.py", "soft is neither a file nor")
    nowhere = run_vgg(tiny, tmp_path, *arguments, "--model", "nowhere=if")
    nowhere.assert_refused("run_vgg.py", "not nowhere")


def answered(ended: Ended, out: Path) -> str:
    assert ended.status == 0
    assert len(pd.read_csv(out / "images.csv")) == 2
    return (out / "report.html").read_text()


def test_events_are_shown_in_place_of_images(tiny, tmp_path):
    rng = np.random.default_rng(0)
    place = [rng.integers(0, size, 300) for size in (2, 20, 32, 32, 3)]
    events = np.unique(np.stack([*place, rng.choice([-1, 1], 300)], axis=1), axis=0)
    names = ("presentation", "step", "y", "x", "channel", "sign")
    np.savez(tmp_path / "events.npz", **dict(zip(names, events.T, strict=True)))
    arguments = ("--images", 2, "--steps", 20, "--raster", "input_on", "--raster-images", 2, "--runtime", "numpy")
    ended = run_vgg(tiny, tmp_path / "out", *arguments, "--events", tmp_path / "events.npz")
    assert ended.status == 0
    recording = Recording.load(tmp_path / "out" / "recording.npz")
    on = events[events[:, 5] == 1]
    expected = np.stack([on[:, 0] * 20 + on[:, 1], np.ravel_multi_index(tuple(on[:, 2:5].T), (32, 32, 3))], axis=1)
    found = recording.rasters["input_on"]
    assert sorted(map(tuple, found)) == sorted(map(tuple, expected))
    assert "events are no images for the ANN" in ended.out and "agreement" not in ended.out
    assert recording.spec.name in ended.out and "error of its ANN" in ended.out  # it has one, all the same
    table = pd.read_csv(tmp_path / "out" / "images.csv")
    assert list(table.columns[:2]) == ["image", "true"] and "ann" not in table and (table["true"] == "?").all()
    assert "Events are no images for the ANN." in (tmp_path / "out" / "report.html").read_text()
    alone = ("--steps", 20, "--runtime", "numpy", "--raster", "--events", tmp_path / "events.npz")
    assert "the spiking network has answered" in answered(run_vgg(tiny, tmp_path / "all", *alone), tmp_path / "all")
    with_images = run_vgg(tiny, tmp_path / "both", *alone, "--data", "cifar10-samples")
    assert "of 2 images" in answered(with_images, tmp_path / "both")  # as many as the events are of
    (tmp_path / "bad.npz").write_bytes(b"PK")
    np.savez(tmp_path / "lacking.npz", step=events[:, 1])
    np.savez(tmp_path / "real.npz", **dict(zip(names, events.T / 2, strict=True)))
    for name in ("bad.npz", "lacking.npz", "real.npz", "none.npz"):
        refused = run_vgg(tiny, tmp_path / "out", *arguments, "--events", tmp_path / name)
        refused.assert_refused("run_vgg.py", "holds no events: integer arrays presentation, step, y, x, channel, sign")
