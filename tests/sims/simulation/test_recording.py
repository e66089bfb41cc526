"""What a run gives back: read-outs against brute force, and a file that keeps everything."""

import dataclasses
import json
import re

import numpy as np
import pandas as pd
import pytest
from networks import NETWORKS, assert_same, case, groups, pair
from recordings import of_spikes

from netspec.errors import UserError
from netspec.spec import NetSpec
from sims.simulation.geometry import Geometry, connections
from sims.simulation.metrics import error
from sims.simulation.recording import Recording
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.wiring import counted_groups


def recorded(network: str, **changes) -> Recording:
    spec, weights, run_input = case(network)
    return ReferenceSimulator(spec, weights).run(dataclasses.replace(run_input, **changes))


@pytest.fixture(scope="module")
def recording() -> Recording:
    return recorded("garden")


# Read-outs


def test_counted_are_input_and_spiking_populations_but_no_relays():
    spec = NETWORKS["garden"]()
    assert list(counted_groups(spec)) == ["input_on", "input_off", "a", "b", "c", "d", "output"]
    assert list(counted_groups(spec).values()) == [192, 192, 288, 96, 24, 36, 6]


def test_spike_counts_are_those_of_the_rasters(recording):
    spec = recording.spec
    for name in groups(spec):
        expected = np.zeros((recording.presentations, counted_groups(spec)[name]), dtype=int)
        step, neuron = recording.rasters[name].T
        np.add.at(expected, (step // recording.steps, neuron), 1)
        counts = recording.spike_counts(name)
        assert counts.shape[1:] == spec["input" if name.startswith("input") else name].shape
        np.testing.assert_array_equal(counts.reshape(expected.shape), expected)
        assert expected.any()


def test_input_counts_are_on_and_off_together(recording):
    on, off = recording.spike_counts("input_on"), recording.spike_counts("input_off")
    assert on.any() and off.any() and not (on.astype(bool) & off.astype(bool)).any()
    np.testing.assert_array_equal(recording.spike_counts("input"), on + off)


@pytest.mark.parametrize("name", ["r", "conv1"])
def test_asking_for_counts_that_do_not_exist_is_answered_with_those_that_do(recording, name):
    with pytest.raises(KeyError, match=f"spikes of '{name}' were not counted; counted were .*'input_on'.*'output'"):
        recording.spike_counts(name)


def test_output_counts_grow_spike_by_spike(recording):
    counts = recording.output_counts
    assert counts.shape == (3, 20, 6) and counts.dtype == np.uint16
    np.testing.assert_array_equal(counts[:, -1], recording.spike_counts("output").reshape(3, -1))
    rises = np.diff(counts.astype(int), axis=1, prepend=0)
    assert set(np.unique(rises)) == {0, 1}
    presentation, step, neuron = np.nonzero(rises)
    np.testing.assert_array_equal(np.stack([presentation * 20 + step, neuron], axis=1), recording.rasters["output"])


def test_prediction_is_the_class_of_most_spikes_up_to_each_step():
    fired = [
        [[0, 1, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 1]],
        [[0, 0, 0], [0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0]],
    ]
    recording = of_spikes(fired, np.zeros((2, 5, 3)))
    assert recording.predictions(1).tolist() == [1, 0]
    assert recording.predictions(3).tolist() == [0, 2]
    assert recording.predictions().tolist() == recording.predictions(5).tolist() == [2, 1]


def test_ties_are_broken_by_the_membrane_potential_of_that_step():
    fired = [[[1, 0, 1], [0, 0, 0], [1, 1, 1]]]
    potentials = [[[-0.5, 0.9, -0.2], [0.3, 0.9, -0.2], [-2, 0.9, -1]]]
    recording = of_spikes(fired, potentials)
    assert [recording.predictions(step).item() for step in (1, 2, 3)] == [2, 0, 2]


def test_no_spike_at_all_is_a_tie_of_all_classes():
    recording = of_spikes(np.zeros((2, 1, 3)), [[[-1, -3, -2]], [[0.1, 0.2, 0.3]]])
    assert recording.predictions().tolist() == [0, 2]


def test_a_delayed_read_out_looks_at_what_comes_after_a_part_of_the_steps():
    spikes = np.array([[[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 0]]])
    potentials = np.array([[[5, 0], [6, 0], [6, 1], [6, 3], [6.5, 6], [7, 6.5]]], dtype=np.float32)
    silent = np.zeros_like(spikes)
    for fired, expected in ((spikes, [0, 0, 0, 0, 1, 1]), (silent, [0, 0, 0, 1, 1, 1])):
        recording = dataclasses.replace(of_spikes(fired, potentials), settings={"delay": 0.5})
        assert [recording.predictions(step).item() for step in range(1, 7)] == expected
        assert of_spikes(fired, potentials).predictions().item() == 0
        np.testing.assert_array_equal(error(recording, [1]), 1.0 - np.array(expected))
    for threshold, expected in ((1.0, [0, 0, 0, 0, 0, 0]), (np.inf, [0, 0, 0, 1, 1, 1])):  # not whether others fired
        told = {"delay": 0.5, "thresholds": {"output": threshold}}
        recording = dataclasses.replace(of_spikes(silent, potentials), settings=told)
        assert [recording.predictions(step).item() for step in range(1, 7)] == expected


@pytest.mark.parametrize("steps", [0, -1, 21])
def test_there_is_no_prediction_outside_of_the_run(recording, steps):
    with pytest.raises(ValueError, match=f"after 1 to 20 steps, not after {steps}"):
        recording.predictions(steps)


@pytest.mark.parametrize("network", ["garden", "sprout", "residual-if"])
def test_synaptic_operations_are_the_connections_that_spikes_run_along(network):
    recording = recorded(network)
    spec = recording.spec
    for projection in spec.projections:
        operations = recording.synaptic_operations(projection)
        assert operations.dtype == np.int64
        geometry = Geometry.of(spec, projection)
        shape = (geometry.post_channels, geometry.channels, geometry.kernel_height, geometry.kernel_width)
        pre, _, _ = connections(geometry, np.ones(shape, dtype=np.float32))
        expected = np.zeros(recording.presentations, dtype=int)
        sources = {"input": ("input_on", "input_off"), "r": (), "s": ()}.get(projection.pre, (projection.pre,))
        for step, neuron in np.concatenate([np.zeros((0, 2), int), *(recording.rasters[s] for s in sources)]):
            expected[step // recording.steps] += np.count_nonzero(pre == neuron)
        np.testing.assert_array_equal(operations, expected)
        assert expected.all() == bool(sources)


def test_operations_beyond_16_and_32_bits_do_not_overflow():
    spec = pair((20, 20, 16), (1, 1, 16))
    counts = np.full((2, 2 * spec.input.size + 16), 40_000, dtype=np.uint16)
    counts[:, spec.input.size :] = 0
    recording = Recording(spec, 65_535, counts, np.zeros((2, 1, 16)), {})
    expected = 20 * 20 * 16 * 16 * 40_000
    assert expected > 2**31
    assert recording.synaptic_operations(spec.projections[0]).tolist() == [expected] * 2


def test_spikes_per_neuron_is_the_mean_over_images_and_neurons(recording):
    spikes = recording.spikes_per_neuron()
    assert list(spikes) == ["input", "a", "b", "c", "d", "output"]
    assert spikes["c"] == len(recording.rasters["c"]) / (3 * 24)
    assert spikes["input"] == (len(recording.rasters["input_on"]) + len(recording.rasters["input_off"])) / (3 * 192)


@pytest.mark.parametrize("name", ["input_off", "b", "output"])
def test_raster_as_a_table_names_each_neuron_s_place(recording, name):
    table = recording.spikes(name)
    assert list(table.columns) == ["population", "neuron", "channel", "y", "x", "presentation", "step"]
    assert isinstance(table.population.dtype, pd.CategoricalDtype)
    assert (table.population == name).all()
    assert len(table) == len(recording.rasters[name]) > 0
    height, width, channels = recording.spec["input" if name == "input_off" else name].shape
    np.testing.assert_array_equal((table.y * width + table.x) * channels + table.channel, table.neuron)
    assert table.y.max() < height and table.x.max() < width and table.channel.max() < channels
    np.testing.assert_array_equal(table.presentation * recording.steps + table.step, recording.rasters[name][:, 0])
    assert table.step.between(0, recording.steps - 1).all()
    assert set(table.presentation) <= {0, 1, 2}


def test_tables_of_several_groups_can_be_put_together(recording):
    table = pd.concat([recording.spikes("a"), recording.spikes("b")])
    sizes = {name: len(recording.rasters[name]) for name in ("a", "b")}
    assert table.groupby("population").size().to_dict() == sizes


def test_table_of_a_group_without_spikes_is_empty():
    table = of_spikes(np.zeros((1, 4, 3)), np.zeros((1, 4, 3))).spikes("output")
    assert len(table) == 0 and table.neuron.dtype == np.int32


def test_asking_for_a_raster_that_was_not_noted_is_answered_with_those_that_were():
    recording = recorded("garden", rasters=("b",))
    with pytest.raises(KeyError, match=re.escape("no raster of 'a' was recorded; recorded were ['b', 'output']")):
        recording.spikes("a")


def test_rasters_are_noted_for_the_first_presentations_the_output_for_all():
    recording = recorded("garden", rasters=("a",), raster_presentations=2)
    assert set(recording.spikes("a").presentation) == {0, 1}
    assert set(recording.spikes("output").presentation) == {0, 1, 2}


# The file


@pytest.mark.parametrize("changes", [{}, {"rasters": ()}, {"thresholds": {}, "measured": ("a", "c")}])
def test_saving_and_loading_loses_nothing(tmp_path, changes):
    recording = recorded("garden", **changes)
    recording.save(tmp_path / "run.npz")
    loaded = Recording.load(tmp_path / "run.npz")
    assert_same(loaded, recording)
    assert isinstance(loaded.spec, NetSpec) and loaded.spec == NETWORKS["garden"]()
    assert loaded.settings["thresholds"] == recording.settings["thresholds"]
    np.testing.assert_array_equal(loaded.predictions(), recording.predictions())
    assert [file.name for file in tmp_path.iterdir()] == ["run.npz"]


def test_settings_tell_what_the_run_was_told(recording):
    spec, _, run_input = case("garden")
    settings = recording.settings
    assert (settings["steps"], settings["seed"], settings["images"], settings["first_image"]) == (20, 5, 3, 0)
    assert settings["thresholds"] == run_input.thresholds
    assert settings["rasters"] == [name for name in groups(spec) if name != "output"]
    assert json.loads(json.dumps(settings)) == settings


def test_numpy_numbers_among_the_settings_can_be_saved(tmp_path):
    spec, weights, run_input = case("sprout")
    numbers = {"steps": np.int64(3), "seed": np.int64(2), "raster_presentations": np.int64(1)}
    recording = ReferenceSimulator(spec, weights).run(dataclasses.replace(run_input, **numbers))
    recording.save(tmp_path / "run.npz")
    assert_same(Recording.load(tmp_path / "run.npz"), recording)


@pytest.fixture(scope="module")
def content(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("recording") / "run.npz"
    recorded("sprout", steps=5).save(path)
    return path.read_bytes()


def rewritten(content: bytes, path, change) -> None:
    """The recording's file with its arrays changed."""
    path.write_bytes(content)
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


def test_a_missing_file_is_the_user_s_error(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.npz is no recording of this project, or truncated \(.*No such file"):
        Recording.load(tmp_path / "nowhere.npz")


def test_a_file_cut_off_anywhere_is_the_user_s_error(tmp_path, content):
    path = tmp_path / "cut.npz"
    for length in range(0, len(content), 97):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="is no recording of this project, or truncated"):
            Recording.load(path)


def test_a_file_with_a_wrong_byte_is_the_user_s_error_or_means_the_same(tmp_path, content):
    path, intact = tmp_path / "wrong.npz", recorded("sprout", steps=5)
    refused, rng = 0, np.random.default_rng(0)
    for position in rng.choice(len(content), 300, replace=False):
        wrong = bytearray(content)
        wrong[position] ^= int(rng.integers(1, 256))
        path.write_bytes(wrong)
        try:
            loaded = Recording.load(path)
        except UserError as error:
            assert "is no recording of this project, or truncated" in str(error)
            refused += 1
        else:  # some bytes of a zip file mean nothing
            assert_same(loaded, intact)
    assert refused > 200


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06" + bytes(18)])
def test_another_file_is_the_user_s_error(tmp_path, content):
    (tmp_path / "other.npz").write_bytes(content)
    with pytest.raises(UserError, match="is no recording of this project"):
        Recording.load(tmp_path / "other.npz")


def test_a_bare_array_is_the_user_s_error(tmp_path):
    np.save(tmp_path / "array.npy", np.arange(3))
    with pytest.raises(UserError, match="is no recording of this project"):
        Recording.load(tmp_path / "array.npy")


@pytest.mark.parametrize("missing", ["header", "counts", "output_v"])
def test_a_file_without_one_of_its_parts_is_the_user_s_error(tmp_path, content, missing):
    rewritten(content, tmp_path / "part.npz", lambda arrays: arrays.pop(missing))
    with pytest.raises(UserError, match="is no recording of this project"):
        Recording.load(tmp_path / "part.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "going-deeper-in-brian2 recording 2"},
        {"spec": {"name": "x", "populations": [], "projections": []}},
        *({part: None} for part in ("format", "spec", "steps", "settings")),
    ],
)
def test_a_header_that_does_not_fit_is_the_user_s_error(tmp_path, content, change):
    def edit(arrays):
        header = json.loads(str(arrays["header"])) | change
        arrays["header"] = np.array(json.dumps({key: value for key, value in header.items() if value is not None}))

    rewritten(content, tmp_path / "header.npz", edit)
    with pytest.raises(UserError, match="is no recording of this project"):
        Recording.load(tmp_path / "header.npz")
