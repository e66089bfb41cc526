"""Residual networks: their layers, their constraints, and their spikes."""

import numpy as np
import pytest
from networks import assert_same, exact_weights, images

from netspec.architectures.resnet import CONSTRAINTS, resnet20, resnet34
from netspec.checkpoint import load_checkpoint
from netspec.thresholds import find_thresholds
from sims.brian.inprocess import InProcessSimulator
from sims.simulation.reference import ReferenceSimulator
from sims.simulation.run_input import RunInput

LEVELS = {
    "basic": {"junction_relu": False, "preprocessing": False},
    "constraint1": {"preprocessing": False},
    "constraint3": {},
}
PLAIN = 9 * (3 * 16 + 6 * 16 * 16 + (16 * 32 + 5 * 32 * 32) + (32 * 64 + 5 * 64 * 64)) + 64 * 10


@pytest.mark.parametrize("level", LEVELS)
def test_resnet20_has_the_weights_of_twenty_layers_and_two_in_front(level):
    front = 2 * 9 * 16 * 16 if level == "constraint3" else 0
    spec = resnet20(**LEVELS[level])
    assert spec.parameters() == PLAIN + front
    assert sum(projection.weighted for projection in spec.projections) == (22 if front else 20)


def test_design_constraints_name_their_shipped_networks_and_thresholds():
    """Figure 3: each together with those before it."""
    assert {key: (kept.checkpoint, kept.thresholds) for key, kept in CONSTRAINTS.items()} == {
        "none": ("resnet20-cifar10-basic", "spike-norm"),
        "1": ("resnet20-cifar10-constraint1", "spike-norm"),
        "2": ("resnet20-cifar10-constraint1", "spike-norm-unit"),
        "3": ("resnet20-cifar10", "spike-norm-unit"),
    }
    for kept in CONSTRAINTS.values():
        spec = resnet20(1, kept.junction_relu, kept.preprocessing, branch_dropout=0.0)  # as they were trained
        assert load_checkpoint(kept.checkpoint).spec == spec
        assert find_thresholds(kept.checkpoint, kept.thresholds).is_file()


def test_resnet34_has_three_small_convolutions_in_front_and_an_output_of_a_thousand_classes():
    spec = resnet34()
    assert sum(projection.weighted for projection in spec.projections) == 36
    assert [spec[name].shape for name in ("pre1", "conv1", "conv5_3")] == [(112, 112, 64), (56, 56, 64), (7, 7, 512)]
    assert spec.output.size == 1000


def test_junctions_are_relays_without_their_relus_and_dropout_is_inside_the_branches_alone():
    for level, options in LEVELS.items():
        spec = resnet20(branch_dropout=0.2, **options)
        junctions = [p for p in spec.populations if len(spec.incoming(p.name)) == 2]
        assert len(junctions) == 9
        assert {p.kind for p in junctions} == {"relay" if level == "basic" else "if"}
        assert {p.name for p in spec.populations if p.dropout} == {f"{p.name}_branch" for p in junctions}


def test_unit_thresholds_are_for_the_ends_of_branches_and_shortcuts():
    spec = resnet20()
    others = {population.name for population in spec.spiking} - {population.name for population in spec.residual}
    assert others == {"pre1", "pre2", "output"}


@pytest.mark.parametrize("level", LEVELS)
def test_a_whole_small_resnet_fires_the_spikes_of_the_reference(level):
    """Weights of whole numbers: a relay multiplies them layer by layer, and float32 must hold the products."""
    spec = resnet20(width=1 / 8, **LEVELS[level])
    rng = np.random.default_rng(0)
    weights = exact_weights(spec, 0)
    if level == "basic":
        weights = {
            name: rng.integers(-1, 2, w.shape).astype(np.float32) * (rng.random(w.shape) < 0.1)
            for name, w in weights.items()
        }
    thresholds = {population.name: 1.0 for population in spec.spiking}
    run_input = RunInput(images(spec, 1), thresholds, 4)
    expected = ReferenceSimulator(spec, weights).run(run_input)
    assert_same(InProcessSimulator(spec, weights, target="numpy").run(run_input), expected)
    assert 0 < expected.spikes_per_neuron()["conv2_1_branch"] < run_input.steps
