"""Training: it learns, it can be stopped and goes on with the same result, and it says what it cannot do."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from networks import net
from safetensors.numpy import save_file

from netspec import trainer as module
from netspec.ann import ANN, ann_predictions, as_spikes
from netspec.checkpoint import load_checkpoint
from netspec.data import ImageSet
from netspec.errors import UserError
from netspec.files import writable_folder
from netspec.recipe import Recipe
from netspec.spec import NetSpec, Projection
from netspec.trainer import Trainer, error_rate, train

SPEC = net(
    "toy",
    {"input": (8, 8, 3), "conv": (8, 8, 6), "dense": (1, 1, 12), "output": (1, 1, 3)},
    Projection("input", "conv", kernel=3, padding=1),
    Projection("conv", "dense", kind="dense", pool=4),
    Projection("dense", "output", kind="dense"),
    dropout=("conv", "dense"),
)
RECIPE = Recipe(epochs=2, batch=32, lr=0.1, milestones=(1,), init="he", validation=40, bf16=False)
STATE = "state.safetensors"


def coloured(n: int, seed: int, side: int = 8) -> ImageSet:
    """Noise in which the brightest colour is the class: red, green or blue."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, n)
    images = draw.integers(0, 160, (n, side, side, 3))
    images[np.arange(n), :, :, labels] += 80
    return ImageSet(images.astype(np.uint8), labels, ("red", "green", "blue"), f"{n} coloured images")


def trainer(recipe: Recipe = RECIPE, spec: NetSpec = SPEC) -> Trainer:
    return Trainer(spec, coloured(300, 0), coloured(100, 1), recipe, "cpu")


def pixels(image: torch.Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()


def log(out: Path) -> list[dict[str, str]]:
    """The rows of the log without their times."""
    with open(out / "log.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def out(tmp_path) -> Path:
    """Folder of a finished run of one epoch."""
    train(trainer(replace(RECIPE, epochs=1)), tmp_path)
    return tmp_path


# Learning


@pytest.mark.parametrize("rms_scale", [False, True])
def test_colours_are_learned(tmp_path, rms_scale):
    run = trainer(replace(RECIPE, epochs=5, milestones=(), rms_scale=rms_scale))
    untrained = error_rate(run, run.test)
    train(run, tmp_path)
    losses = [float(row["loss"]) for row in log(tmp_path)]
    assert len(losses) == 5
    assert losses[-1] < 0.3 * losses[0]
    assert error_rate(run, run.test) < 0.05 < untrained


def test_best_network_on_disk_reaches_the_error_in_its_log(tmp_path):
    run = trainer(replace(RECIPE, epochs=3, rms_scale=True))
    train(run, tmp_path)
    best = load_checkpoint(tmp_path / "best.safetensors")
    rows = log(tmp_path)
    lowest = min(float(row["validation_error"]) for row in rows)
    chosen = [row for row in rows if float(row["validation_error"]) == lowest][-1]
    assert int(chosen["epoch"]) == best.info["epochs_trained"]
    assert float(chosen["test_error"]) == best.info["test_error"]

    test = coloured(100, 1)
    x = torch.from_numpy(best.encode(test.images).transpose(0, 3, 1, 2))
    scores = ANN.from_weights(best.spec, best.weights)(x)
    assert (scores.argmax(1).numpy() != test.labels).mean() == best.info["test_error"]
    assert (best.spec, best.classes) == (SPEC, ("red", "green", "blue"))
    assert best.info["recipe"]["rms_scale"]


def test_test_set_is_looked_at_only_when_validation_is_no_worse(tmp_path, monkeypatch):
    errors = iter([0.5, 0.1, 0.6, 0.5, 0.2, 0.7])  # validation, and test where it is asked for
    monkeypatch.setattr(module, "error_rate", lambda *_: next(errors))
    train(trainer(replace(RECIPE, epochs=4)), tmp_path)
    assert [row["validation_error"] for row in log(tmp_path)] == ["0.5", "0.6", "0.5", "0.7"]
    assert [row["test_error"] for row in log(tmp_path)] == ["0.1", "", "0.2", ""]


def test_without_validation_the_last_network_is_kept(tmp_path):
    train(trainer(replace(RECIPE, validation=0)), tmp_path)
    assert load_checkpoint(tmp_path / "best.safetensors").info["epochs_trained"] == 2
    assert all(row["test_error"] for row in log(tmp_path))
    assert all(row["validation_error"] == "" for row in log(tmp_path))


def test_half_stores_the_weights_as_float16(tmp_path):
    run = trainer(replace(RECIPE, epochs=1))
    train(run, tmp_path, half=True)
    stored = load_checkpoint(tmp_path / "best.safetensors").weights
    for name, weight in run.ann.folded().items():
        np.testing.assert_array_equal(stored[name], weight.astype(np.float16))


# Batches


def test_epoch_shows_every_training_image_once_cropped_and_flipped():
    run = trainer(replace(RECIPE, batch=50))
    padded, labels, span = run.train.x, run.train.labels, 2 * run.train.padding + 1
    assert span == 3
    assert len(padded) == 300 - RECIPE.validation
    moves = list(product(range(len(padded)), range(span), range(span), (False, True)))
    crops = {}
    for index, down, right, flip in moves:
        crop = padded[index, :, down : down + 8, right : right + 8].float()
        crops[pixels(crop.flip(2) if flip else crop)] = index, down, right, flip
    shown = []
    for batch, batch_labels in run.batches():
        found = [crops[pixels(image)] for image in batch]
        assert torch.equal(batch_labels, labels[[index for index, *_ in found]])
        shown += found
    indices, downs, rights, flips = zip(*shown, strict=True)
    assert sorted(indices) == list(range(len(padded))) != list(indices)
    assert set(downs) == set(rights) == set(range(span))
    assert 0.4 < np.mean(flips) < 0.6


def test_batches_repeat_for_an_epoch_and_differ_between_epochs():
    run = trainer()
    first, again = (next(iter(run.batches()))[0] for _ in range(2))
    assert torch.equal(first, again)
    run.epoch = 1
    assert not torch.equal(first, next(iter(run.batches()))[0])


def test_input_spikes_have_the_image_as_their_mean_and_the_noise_of_their_number():
    torch.manual_seed(0)
    x = torch.tensor([-1.0, -0.3, 0.0, 0.3, 1.0]).repeat(20_000, 1)
    shown = as_spikes(x, 40)
    assert torch.equal(shown, (shown * 40).round() / 40)
    np.testing.assert_allclose(shown.mean(0), x[0], atol=0.003)
    np.testing.assert_allclose(shown.var(0), x[0].abs() * (1 - x[0].abs()) / 40, atol=3e-4)


def test_with_input_steps_the_batches_are_spikes_of_the_same_crops():
    plain, coded = (trainer(replace(RECIPE, input_steps=steps)) for steps in (0, 1_000_000))
    (x, labels), (shown, same) = next(plain.batches()), next(coded.batches())
    assert torch.equal(labels, same)
    assert not torch.equal(shown, x)
    torch.testing.assert_close(shown, x, atol=0.01, rtol=0)


def test_held_out_images_are_not_trained_on():
    run = trainer()
    inner = slice(run.train.padding, -run.train.padding)
    seen = {pixels(image[:, inner, inner]) for image in run.train.x}
    assert len(run.held_out.x) == RECIPE.validation
    assert not any(pixels(image) in seen for image in run.held_out.x)


def test_input_is_centred_and_nearly_all_of_it_within_the_unit_interval():
    run, images = trainer(), coloured(300, 0)
    np.testing.assert_allclose(run.mean, images.images.mean(axis=0) / 255, rtol=1e-5)
    assert np.percentile(np.abs(images.images / 255 - run.mean) * run.gain, 99.9) == pytest.approx(1, rel=1e-4)
    assert max(run.train.x.abs().max(), run.test.x.abs().max()) == 1


# Going on


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"rms_scale": True, "schedule": "one-cycle", "nesterov": True, "bf16": True, "input_steps": 50},
        {"momentum": 0.0, "validation": 0},
    ],
    ids=["paper", "scaled", "plain"],
)
def test_interrupted_training_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path, monkeypatch, capsys, change):
    recipe = replace(RECIPE, **change)
    whole, parts = (writable_folder(tmp_path / name) for name in ("whole", "parts"))
    train(trainer(recipe), whole)

    batches = Trainer.batches

    def interrupted(self):
        yield from islice(batches(self), 3 if self.epoch else None)
        if self.epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "batches", interrupted)
        train(trainer(recipe), parts)
    assert len(log(parts)) == 1
    capsys.readouterr()
    torch.manual_seed(12345)  # another process has another random state
    train(trainer(recipe), parts)

    assert capsys.readouterr().out.startswith("going on after epoch 1 of 2\n")
    assert log(parts) == log(whole)
    expected, best = (load_checkpoint(folder / "best.safetensors") for folder in (whole, parts))
    assert best.info == expected.info
    assert best.digest == expected.digest
    end, expected_end = trainer(recipe), trainer(recipe)
    end.resume(parts / STATE)
    expected_end.resume(whole / STATE)
    for name, value in expected_end.ann.state_dict().items():
        assert torch.equal(end.ann.state_dict()[name], value)


def test_finished_training_is_left_alone(out):
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert set(before) == {"best.safetensors", "log.csv", STATE}
    train(trainer(replace(RECIPE, epochs=1)), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


class Clock(SimpleNamespace):
    """A clock on which every step takes ten seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(now=1000.0)
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: self.now))
        steps = Trainer.steps

        def slow(run: Trainer) -> Iterator[None]:
            for _ in steps(run):
                self.now += 10
                yield

        monkeypatch.setattr(Trainer, "steps", slow)


def test_training_stops_inside_an_epoch_in_time_for_its_limit_and_goes_on(tmp_path, monkeypatch):
    whole, parts = (writable_folder(tmp_path / name) for name in ("whole", "parts"))
    recipe = replace(RECIPE, epochs=3, input_steps=50)  # nine steps each
    train(trainer(recipe), whole)
    clock = Clock(monkeypatch)
    run = trainer(recipe)
    train(run, parts, until=999.0)
    assert (run.epoch, run.step, list(parts.iterdir())) == (0, 0, [])
    train(run, parts, until=1125.0)
    assert (run.epoch, run.step, clock.now) == (1, 3, 1120)
    run = trainer(recipe)
    train(run, parts, until=clock.now + 15)
    assert (run.epoch, run.step) == (1, 4)
    train(trainer(recipe), parts)
    assert log(parts) == log(whole)
    expected, best = (load_checkpoint(folder / "best.safetensors") for folder in (whole, parts))
    assert best.digest == expected.digest


def test_position_in_the_epoch_is_saved_every_few_minutes(tmp_path, monkeypatch):
    clock, places = Clock(monkeypatch), []
    monkeypatch.setattr(module, "SAVE_EVERY", 25)
    state = Trainer.state
    monkeypatch.setattr(Trainer, "state", lambda run: (places.append((run.epoch, run.step)), state(run))[1])
    train(trainer(), tmp_path)
    assert places == [(0, 3), (0, 6), (0, 9), (1, 0), (1, 3), (1, 6), (1, 9), (2, 0)]
    assert clock.now == 1000 + 18 * 10


def test_gain_is_of_evenly_spread_images_and_no_more_than_5000():
    images = np.zeros((5001, 1, 1, 3), np.uint8)
    images[::2] = 51  # those that are taken
    images[1::2] = 255
    assert module.input_gain(images, np.float32(0)) == pytest.approx(5)


def test_training_starts_with_the_network_it_is_given(out, tmp_path):
    best = load_checkpoint(out / "best.safetensors")
    recipe, images = replace(RECIPE, lr=0.0, start=best.digest), replace(coloured(300, 7), source="other images")
    run = Trainer(SPEC, images, coloured(100, 1), recipe, "cpu", best)
    with pytest.raises(UserError, match="300 coloured images has other images than when toy was trained on it"):
        Trainer(SPEC, coloured(300, 7), coloured(100, 1), recipe, "cpu", best)
    assert Trainer(SPEC, coloured(300, 0), coloured(100, 1), recipe, "cpu", best)
    assert Trainer(SPEC, coloured(300, 7), coloured(100, 1), replace(recipe, validation=0), "cpu", best)
    train(run, writable_folder(tmp_path / "further"))
    further = load_checkpoint(tmp_path / "further/best.safetensors")
    assert further.digest == best.digest  # of weights, mean and gain; these images have another mean
    assert further.info["recipe"]["start"] == best.digest


@pytest.mark.parametrize("change", [{"epochs": 2}, {"epochs": 3, "schedule": "one-cycle", "restarts": (1,)}])
def test_finished_training_can_be_made_longer(change, tmp_path):
    one, two = (writable_folder(tmp_path / name) for name in ("one", "two"))
    long = replace(RECIPE, **change)
    train(trainer(replace(long, epochs=1, restarts=())), two)
    run, at_once = trainer(long), trainer(long)
    train(run, two)
    train(at_once, one)
    assert run.epoch == long.epochs
    assert [row["loss"] for row in run.log] == [row["loss"] for row in at_once.log]
    for name, weight in at_once.ann.state_dict().items():
        assert torch.equal(run.ann.state_dict()[name], weight)


@pytest.mark.parametrize(
    ("recipe", "spec"),
    [
        (replace(RECIPE, epochs=1, seed=1), SPEC),
        (replace(RECIPE, epochs=1, rms_scale=True), SPEC),
        (replace(RECIPE, epochs=1, lr=0.2), SPEC),
        (replace(RECIPE, epochs=2, schedule="one-cycle"), SPEC),
        (replace(RECIPE, epochs=1), replace(SPEC, name="other")),
    ],
)
def test_state_of_another_run_is_refused(out, recipe, spec):
    reason = r"state.safetensors belongs to a run with other settings; give another folder or remove it"
    with pytest.raises(UserError, match=reason):
        train(trainer(recipe, spec), out)


def test_state_of_a_run_on_other_images_is_refused(out):
    other = Trainer(SPEC, coloured(300, 2), coloured(100, 1), RECIPE, "cpu")
    with pytest.raises(UserError, match=r"a run on 300 coloured images \w{8}, not 300 coloured images \w{8};"):
        train(other, out)


def refused(state: Path) -> None:
    with pytest.raises(UserError, match=r"state.safetensors is truncated or no training state; remove it") as caught:
        trainer(replace(RECIPE, epochs=1)).resume(state)
    assert "\n" not in str(caught.value)


def test_text_and_state_cut_anywhere_are_refused(out):
    state = out / STATE
    whole = state.read_bytes()
    cut = (whole[:length] for length in (*range(0, len(whole), len(whole) // 12), len(whole) - 1))
    for content in (b"epoch 3, loss 1.2\n" * 50, *cut):
        state.write_bytes(content)
        refused(state)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"settings": "[]"}, {"settings": "[]", "progress": "{"}])
def test_foreign_safetensors_are_no_state(tmp_path, metadata):
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / STATE, metadata)
    refused(tmp_path / STATE)


# What cannot be trained


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match=r"toy sees \(8, 8, 3\) images, 50 coloured images has \(50, 4, 4, 3\)"):
        Trainer(SPEC, coloured(50, 0, side=4), coloured(50, 1, side=4), RECIPE, "cpu")


def test_validation_must_leave_images_for_training():
    with pytest.raises(UserError, match="300 images for validation leave none of 300 for training"):
        trainer(replace(RECIPE, validation=300))


def test_crops_are_of_photographs():
    with pytest.raises(UserError, match="crops are of photographs in files"):
        trainer(replace(RECIPE, crop=0.5))


def test_diverging_loss_ends_with_advice(tmp_path):
    advice = r"the loss is no longer finite in epoch 1; lower the learning rate \(now 1e\+30\)"
    with pytest.raises(UserError, match=advice):
        train(trainer(replace(RECIPE, lr=1e30)), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_loss_that_stays_at_chance_is_warned_of(tmp_path, capsys):
    train(trainer(replace(RECIPE, lr=1e-9, epochs=3)), tmp_path)
    assert capsys.readouterr().out.count("warning: the loss has hardly moved in two epochs") == 1


def test_rate_of_every_step_is_that_of_its_moment(monkeypatch):
    run = trainer(replace(RECIPE, schedule="one-cycle", batch=65))
    rates = []
    step = run.optimizer.step
    monkeypatch.setattr(run.optimizer, "step", lambda: (rates.append(run.optimizer.param_groups[0]["lr"]), step()))
    run.run_epoch()
    run.run_epoch()
    assert rates == [run.recipe.lr_at(part / 4) for part in range(8)]


# Quantised ReLUs


def test_quantised_relus_are_clipped_rounded_and_learn_their_bounds():
    ann = ANN(SPEC, levels=4)
    ann.bounds["conv"].data.fill_(2.0)
    x = torch.tensor([-1.0, 0.2, 0.3, 1.3, 1.9, 5.0], requires_grad=True)
    y = ann._rectified(SPEC["conv"], x)
    assert y.tolist() == [0, 0, 0.5, 1.5, 2, 2]
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 0]
    rounded = [0, 0 - 0.1, 0.25 - 0.15, 0.75 - 0.65, 1 - 0.95, 1]  # the part of the bound that rounding adds, or all
    assert ann.bounds["conv"].grad.item() == pytest.approx(sum(rounded))


@pytest.mark.parametrize("how", [{"levels": 4}, {"time_steps": 5}, {"time_steps": 5, "surrogate": True}])
def test_training_for_few_steps_gives_a_network_with_clips(how, tmp_path):
    start = trainer(replace(RECIPE, epochs=4))
    train(start, writable_folder(tmp_path / "plain"))
    network = load_checkpoint(tmp_path / "plain" / "best.safetensors")
    recipe = replace(RECIPE, lr=0.02, init="paper", **how).further(network)
    further = Trainer(SPEC, coloured(300, 0), coloured(100, 1), recipe, "cpu", network)
    begun = {name: float(bound.detach()) for name, bound in further.ann.bounds.items()}
    assert set(begun) == {"conv", "dense"} and min(begun.values()) > 0
    train(further, writable_folder(tmp_path / "few"))
    trained = load_checkpoint(tmp_path / "few" / "best.safetensors")
    clips = {p.name: p.clip for p in trained.spec.populations if p.clip}
    assert set(clips) == set(begun) and clips != begun
    activations = ANN.from_weights(trained.spec, trained.weights).activations(further.test.x.float())
    assert all(activations[name].max() <= clip for name, clip in clips.items())
    assert error_rate(further, further.test) < 0.3
    unseen = coloured(100, 1)
    assert trained.info["test_error"] == np.mean(ann_predictions(trained, unseen.images) != unseen.labels)
    with pytest.raises(UserError, match="a run with other settings"):
        Trainer(
            SPEC, coloured(300, 0), coloured(100, 1), replace(recipe, **dict.fromkeys(how, 8)), "cpu", network
        ).resume(tmp_path / "few" / STATE)
