"""Recipes: what they default to, when the learning rate and the size of images change, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from commands import tiny_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from netspec.errors import UserError
from netspec.recipe import Recipe


def test_defaults_are_the_papers_recipe():
    """Section 7.1: 200 epochs in batches of 256, momentum 0.9, weight decay 0.0001, its own initialisation."""
    recipe = Recipe()
    assert (recipe.epochs, recipe.batch, recipe.lr, recipe.schedule, recipe.init) == (200, 256, 0.05, "steps", "paper")
    assert (recipe.momentum, recipe.weight_decay) == (0.9, 1e-4)
    assert not (recipe.nesterov or recipe.rms_scale or recipe.centred)


@pytest.mark.parametrize(("field", "choices"), [("schedule", "steps, one-cycle"), ("init", "paper, he")])
def test_recipe_of_an_unknown_choice_is_refused(field, choices):
    with pytest.raises(UserError, match=f"must be one of {choices}, got linear"):
        Recipe(**{field: "linear"})


def test_steps_are_the_papers():
    """Section 7.1: 0.05, divided by 10 at 81 and 122 epochs of 200."""
    rates = [Recipe().lr_at(epoch) for epoch in (0, 80.99, 81, 121.99, 122, 199.99)]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.005, 0.0005, 0.0005])


def test_one_cycle_rises_to_its_peak_and_falls_to_nothing():
    recipe = Recipe(schedule="one-cycle", epochs=10, lr=0.2, warmup=0.3)
    assert recipe.lr_at(0) == pytest.approx(0.04 * 0.2)
    assert recipe.lr_at(1.5) == pytest.approx(0.52 * 0.2)
    assert recipe.lr_at(3) == pytest.approx(0.2)
    assert recipe.lr_at(6.5) == pytest.approx(0.1)
    assert recipe.lr_at(10) == pytest.approx(0, abs=1e-12)


def test_restarts_begin_the_cycle_anew():
    recipe = Recipe(schedule="one-cycle", epochs=10, lr=0.2, warmup=0.3, restarts=(3, 6))
    for start, length in ((0, 3), (3, 3), (6, 4)):
        alone = replace(recipe, epochs=length, restarts=())
        for moment in np.linspace(0, length, 8, endpoint=False):
            assert recipe.lr_at(start + moment) == pytest.approx(alone.lr_at(moment))


@settings(deadline=None)
@given(st.floats(0, 1), st.integers(1, 200), st.floats(0, 0.999), st.floats(0, 0.999))
def test_one_cycle_has_one_peak(warmup, epochs, earlier, later):
    recipe = Recipe(schedule="one-cycle", epochs=epochs, warmup=warmup)
    earlier, later = sorted((earlier * epochs, later * epochs))
    first, second, peak = recipe.lr_at(earlier), recipe.lr_at(later), warmup * epochs
    assert min(first, second) >= 0
    assert max(first, second) <= recipe.lr * (1 + 1e-9)
    if later <= peak:
        assert first <= second * (1 + 1e-9)
    if earlier >= peak:
        assert first >= second * (1 - 1e-9)


def test_photographs_grow_at_their_epochs():
    recipe = Recipe(epochs=9, sizes=(128, 160), growth=(4, 7))
    assert [recipe.size_at(epoch, 224) for epoch in (0, 3.99, 4, 6, 7, 8)] == [128, 128, 160, 160, 224, 224]
    assert Recipe().size_at(0, 224) == 224


@pytest.mark.parametrize(
    ("sizes", "growth"), [((128,), ()), ((), (3,)), ((31,), (3,)), ((64, 128), (6, 3)), ((64,), (0,)), ((64,), (10,))]
)
def test_growth_that_makes_no_sense_is_refused(sizes, growth):
    with pytest.raises(UserError, match="sizes of photographs must be at least 32, each until an epoch of growth"):
        Recipe(epochs=9, sizes=sizes, growth=growth)


@pytest.mark.parametrize(("field", "value"), [("crop", 0.0), ("crop", 1.1), ("smoothing", -0.1), ("smoothing", 1.1)])
def test_shares_are_between_nothing_and_all(field, value):
    with pytest.raises(UserError, match=f"must be .*got {value}"):
        Recipe(**{field: value})


@pytest.mark.parametrize(
    ("schedule", "field", "value", "message"),
    [
        ("steps", "warmup", 0.1, "warm-up and restarts are of the schedule one-cycle"),
        ("steps", "restarts", (3,), "warm-up and restarts are of the schedule one-cycle"),
        ("one-cycle", "milestones", (3,), "milestones are of the schedule steps"),
    ],
)
def test_what_the_other_schedule_listens_to_is_refused(schedule, field, value, message):
    with pytest.raises(UserError, match=message):
        Recipe(schedule=schedule, **{field: value}).heeded()


def test_time_steps_show_images_as_a_current():
    with pytest.raises(UserError, match="in time steps the image is a constant current: train without input steps"):
        Recipe(time_steps=16, input_steps=100)


def test_surrogate_gradients_without_time_steps_are_refused():
    with pytest.raises(UserError, match="surrogate gradients go through time steps"):
        Recipe(surrogate=True)


@pytest.mark.parametrize(("steps", "delay"), [(0, 0.5), (4, 0.2)])
def test_delay_of_no_time_steps_is_refused(steps, delay):
    assert Recipe(time_steps=16, delay=delay).delay == delay
    with pytest.raises(UserError, match=f"a delay is a part of the time steps; {delay} of {steps} are none"):
        Recipe(time_steps=steps, delay=delay)


def test_a_checkpoint_has_weights_already():
    with pytest.raises(UserError, match="train it without an initialisation"):
        Recipe(init="he").further(tiny_checkpoint())


@pytest.mark.parametrize("noted", ["adam, 100 epochs", {"validation": None}, {"seed": "one"}, None])
def test_networks_of_others_are_trained_further_whatever_they_note(noted):
    start = replace(tiny_checkpoint(), info={"recipe": noted})
    assert Recipe(rms_scale=False).further(start).start == start.digest


def test_run_goes_on_by_a_recipe_that_differs_in_epochs_to_come_alone():
    recipe = Recipe(epochs=9, sizes=(128,), growth=(4,))
    later = replace(recipe, sizes=(128, 160), growth=(4, 7))
    assert later.begins_like(recipe, 4) and later.begins_like(recipe, 0)
    assert not later.begins_like(recipe, 5)
    assert not replace(recipe, crop=0.5).begins_like(recipe, 0)
