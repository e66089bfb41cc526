"""Thresholds are the same when the spikes of a population take the place of all that comes before it."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest
from commands import tiny_checkpoint
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from networks import exact_thresholds, exact_weights, images, net, specs

from netspec.architectures.resnet import resnet20
from netspec.architectures.vgg import vgg16
from netspec.data import samples
from netspec.errors import UserError
from netspec.spec import NetSpec, Projection, SpecError
from sims.brian.inprocess import InProcessSimulator
from sims.conversion import input_peaks
from sims.conversion.input_peaks import InputPeaks, Shortcut, narrow_places
from sims.conversion.spike_norm import spike_norm
from sims.simulation.reference import ReferenceSimulator

STEPS = 256 * 2500


def test_a_network_in_this_process_has_one_worker():
    spec = net("pair", {"input": (1, 2, 1), "output": (1, 1, 1)}, Projection("input", "output", "dense"))
    simulator = InProcessSimulator(spec, exact_weights(spec), target="numpy")
    with pytest.raises(UserError, match="one part of the images at a time; give 1 worker"):
        spike_norm(simulator, images(spec, 4), 5, workers=2)


def spiking(spec: NetSpec) -> list[str]:
    return [population.name for population in spec.spiking]


def every_place(spec: NetSpec, *_) -> Iterator[str]:
    """All populations that a network can be cut at."""
    for population in spec.populations[1:-1]:
        try:
            spec.after(population.name)
        except SpecError:
            continue
        if population.kind == "if":
            yield population.name


class Parts:
    """A shortcut that notes the networks that it opens."""

    def __init__(self, weights, folder):
        self.opened: list[NetSpec] = []
        self.weights, self.shortcut = weights, Shortcut(self.open, folder)

    def open(self, spec: NetSpec) -> ReferenceSimulator:
        self.opened.append(spec)
        return ReferenceSimulator(spec, self.weights)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(specs(), st.integers(0, 2**16))
def test_cut_anywhere_a_random_network_receives_the_same(tmp_path_factory, spec, seed):
    places = list(every_place(spec))
    assume(places)
    weights, x = exact_weights(spec, seed), images(spec, 3, seed)
    thresholds = exact_thresholds(spec, weights, x)
    parts = Parts(weights, tmp_path_factory.mktemp("kept"))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(input_peaks, "narrow_places", every_place)
        patched.setattr(input_peaks, "TOGETHER", 2)
        whole, cut = (
            InputPeaks(ReferenceSimulator(spec, weights), x, 8, seed, (), shortcut=shortcut)
            for shortcut in (None, parts.shortcut)
        )
    for name in spiking(spec):
        np.testing.assert_array_equal(cut.of(name, thresholds), whole.of(name, thresholds), err_msg=name)
    after = spec.populations[[p.name for p in spec.populations].index(places[-1]) + 1 :]
    used = places if sum(population.kind == "if" for population in after) > 1 else places[:-1]
    assert [part.input.name for part in parts.opened] == used


@pytest.fixture
def cut(tmp_path, monkeypatch):
    monkeypatch.setattr(input_peaks, "WORTH", 1)
    checkpoint = tiny_checkpoint()
    return ReferenceSimulator(checkpoint.spec, checkpoint.weights), Parts(checkpoint.weights, tmp_path)


@pytest.mark.parametrize(
    ("known", "begun"), [({}, ["conv3_3"]), ({"conv1_1": 3.0}, ["conv3_3"]), ({"output": 1.0}, [])]
)
def test_a_layer_is_cut_at_if_two_after_it_are_to_be_measured(cut, known, begun):
    network, parts = cut
    x = tiny_checkpoint().encode(samples().images[:5])
    for workers in (1, 3):
        found = spike_norm(network, x, 20, known=known, workers=workers, shortcut=parts.shortcut)
        assert found == spike_norm(network, x, 20, known=known)
        assert [part.input.name for part in parts.opened] == begun
        parts.opened.clear()


def test_nothing_is_opened_after_a_layer_that_nothing_reaches(cut):
    network, parts = cut
    x = tiny_checkpoint().encode(samples().images[:3])
    with pytest.raises(UserError, match="conv5_3 receives no positive input in 20 steps of 3 images"):
        spike_norm(network, x, 20, known={"conv3_3": 1e9}, shortcut=parts.shortcut)
    assert not parts.opened


@pytest.mark.parametrize("seed", range(4))
def test_sums_that_are_not_exact_are_rounded_alike(seed, tmp_path, monkeypatch):
    """The names are a ResNet's: a shortcut comes before the branch, whatever the first population is called."""
    monkeypatch.setattr(input_peaks, "narrow_places", lambda *_: ["conv1"])
    spec = net(
        "names",
        {"input": (6, 6, 3), "conv1": (6, 6, 8), "conv2_branch": (6, 6, 8), "conv2": (6, 6, 8), "output": (1, 1, 3)},
        Projection("input", "conv1", kernel=3, padding=1),
        Projection("conv1", "conv2_branch", kernel=3, padding=1),
        Projection("conv2_branch", "conv2", kernel=3, padding=1, residual=True),
        Projection("conv1", "conv2", kind="conv"),
        Projection("conv2", "output", kind="dense"),
    )
    rng = np.random.default_rng(seed)
    weights = {p.name: rng.normal(0.1, 0.3, spec.weight_shape(p)).astype(np.float32) for p in spec.projections}
    whole = InProcessSimulator(spec, weights, target="numpy")
    shortcut = Shortcut(partial(InProcessSimulator, weights=weights, target="numpy"), tmp_path)
    x = images(spec, 3, seed)
    assert spike_norm(whole, x, 30, seed, shortcut=shortcut) == spike_norm(whole, x, 30, seed)


def test_networks_with_biases_are_not_cut(cut):
    network, parts = cut
    x, biases = tiny_checkpoint().encode(samples().images[:3]), {"conv3_3": np.full(6, 0.25, np.float32)}
    found = spike_norm(network, x, 20, biases=biases, shortcut=parts.shortcut)
    assert found == spike_norm(network, x, 20, biases=biases)
    assert not parts.opened


def test_vgg16_is_cut_where_it_has_become_half_as_large():
    spec = vgg16()
    assert list(narrow_places(spec, spiking(spec), STEPS)) == ["conv2_1", "conv3_1", "conv4_1", "conv5_1"]
    assert not list(narrow_places(spec, spiking(spec), 100))
    assert not list(narrow_places(spec, ["conv1_1", "output"], STEPS))


def test_residual_networks_are_cut_between_units_alone():
    spec = resnet20()
    places = list(narrow_places(spec, spiking(spec), STEPS))
    assert places
    assert set(places) <= {population.name for population in spec.residual}
    assert not list(narrow_places(resnet20(junction_relu=False), spiking(spec), STEPS))


def test_what_is_kept_goes_when_it_is_of_no_more_use(cut, tmp_path):
    network, parts = cut
    x = tiny_checkpoint().encode(samples().images[:20])
    names = spiking(network.spec)
    peaks, thresholds = InputPeaks(network, x, 5, 0, names, shortcut=parts.shortcut), {}
    peaks.places = ["conv1_1", "conv3_3"]
    kept = []
    for name in names:
        thresholds[name] = float(peaks.of(name, thresholds).max())
        kept.append(sorted(file.name.split(".")[0] for file in tmp_path.iterdir()))
    assert kept == [[], *([f"conv{n} {part}" for part in range(3)] for n in ("1_1", "3_3", "3_3"))]


def test_a_part_that_fails_ends_the_others(tmp_path):
    checkpoint = tiny_checkpoint()
    begun = []

    class Failing(ReferenceSimulator):
        def run(self, run_input, progress=None):
            begun.append(run_input.ids[0])
            raise UserError("no more")

    network = Failing(checkpoint.spec, checkpoint.weights)
    x = np.zeros((400, 32, 32, 3), np.float32)
    shortcut = Shortcut(partial(ReferenceSimulator, weights=checkpoint.weights), tmp_path)
    with pytest.MonkeyPatch.context() as patched, pytest.raises(UserError, match="no more"):
        patched.setattr(input_peaks, "WORTH", 1)
        spike_norm(network, x, 5, workers=2, shortcut=shortcut)
    assert len(begun) < 50
