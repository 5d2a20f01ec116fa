"""The training loop: its gradients, its schedule, its log, its scores, and how it stops."""

import csv
import itertools
import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_checkpoint import SIZES, TEXT, small_trainer, state_of

import tinytransformer as tt
from tinytransformer.models import GPT, GPTConfig
from tinytransformer.text import ByteTokenizer, CharacterTokenizer
from tinytransformer.training import (
    CheckpointError,
    Log,
    NonFiniteError,
    Score,
    TrainingSettings,
    evaluate,
    first_non_finite,
    load_checkpoint,
    ngram_scores,
    steps_within,
)
from tinytransformer.training.log import COLUMNS

# --- settings ---


@pytest.mark.parametrize("name", ["steps", "batch_size", "accumulate", "evaluate_every", "checkpoint_every"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_counts_must_be_positive_integers(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, not {value!r}"):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "evaluate_tokens": [0, 1, 3.0],
        "warmup": [-1, 0.5, None],
        "seed": [-1, 0.5],
        "learning_rate": [0, -1e-3, math.nan, math.inf, "x", True],
        "clip": [0.0, math.nan, math.inf],
        "final_learning_rate": [-1e-9, math.nan],
        "weight_decay": [-0.1, math.inf],
        "beta1": [-0.1, 1, math.nan],
        "beta2": [-0.1, 1.0, None],
        "schedule": ["step", None],
    }.items(),
)
def test_settings_out_of_range_are_refused(name, values):
    for value in values:
        with pytest.raises(ValueError, match=f"{name} must"):
            TrainingSettings(**{name: value})


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup=11 steps must lie between 0 and total=7"):
        small_trainer(steps=7, warmup=11)


# --- steps ---


def gradients(trainer):
    return [p.grad.numpy() for p in trainer.model.parameters()]


def test_accumulated_gradients_are_those_of_one_large_batch():
    """5 x 3 sequences in three batches, and the same in one, with a clip that both reach."""
    parts = small_trainer(None, "float64", model={**SIZES, "dropout": 0.0}, accumulate=3, clip=1e-3)
    whole = small_trainer(None, "float64", model={**SIZES, "dropout": 0.0}, batch_size=15, clip=1e-3)
    batches = [[parts.batches(3 * step + part) for part in range(3)] for step in range(2)]
    whole.batches = lambda step: tuple(np.concatenate(arrays) for arrays in zip(*batches[step], strict=True))
    for step in range(2):
        rows = parts.train_step(), whole.train_step()
        assert rows[0].keys() == rows[1].keys()
        for name in rows[0]:
            assert rows[0][name] == pytest.approx(rows[1][name], rel=1e-12), name
        assert rows[0]["tokens"] == (step + 1) * 15 * 7
        for a, b in zip(gradients(parts), gradients(whole), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15)
    for a, b in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-7, atol=1e-12)


def test_each_part_of_a_step_is_another_batch(monkeypatch):
    trainer = small_trainer(accumulate=3)
    asked = []
    batches = trainer.batches
    monkeypatch.setattr(trainer, "batches", lambda step: (asked.append(step), batches(step))[1])
    trainer.train_step()
    trainer.train_step()
    assert asked == [0, 1, 2, 3, 4, 5]


def test_a_step_is_that_of_adamw_with_clipping_and_decay_of_matrices():
    """By hand, from the gradient of the batch: the first step of AdamW moves by the sign of the gradient."""
    trainer = small_trainer(None, "float64", model={**SIZES, "dropout": 0.0}, clip=0.05, weight_decay=0.3)
    before = {name: p.numpy().copy() for name, p in trainer.model.named_parameters()}
    trainer.model.loss(*trainer.batches(0)).backward()
    found = {name: p.grad.numpy().copy() for name, p in trainer.model.named_parameters()}
    norm = math.sqrt(sum((g**2).sum() for g in found.values()))
    row = trainer.train_step()
    assert row["gradient_norm"] == pytest.approx(norm, rel=1e-12)
    assert norm > 0.05
    rate = 4e-3 / 3  # the first of three steps of warm-up
    assert row["learning_rate"] == pytest.approx(rate)
    for name, p in trainer.model.named_parameters():
        g = found[name] * 0.05 / norm
        decayed = before[name] * (1 - rate * (0.3 if p.ndim > 1 else 0.0))
        expected = decayed - rate * g / (abs(g) + 1e-8)
        np.testing.assert_allclose(p.numpy(), expected, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_each_step_has_its_learning_rate(tmp_path, schedule):
    trainer = small_trainer(tmp_path, schedule=schedule, learning_rate=0.03, final_learning_rate=0.001)
    trainer.run(progress=False)
    rates = [row["learning_rate"] for row in trainer.log.rows()]
    if schedule == "constant":
        assert rates == [0.03] * 13
        return
    assert rates[:4] == pytest.approx([0.01, 0.02, 0.03, 0.03])
    left = [(1 + math.cos(math.pi * s / 10)) / 2 if schedule == "cosine" else 1 - s / 10 for s in range(10)]
    assert rates[3:] == pytest.approx([0.001 + 0.029 * x for x in left])


def test_validation_tokens_are_never_trained_on():
    trainer = small_trainer(steps=200)
    trainer.batches.tokens = np.arange(600)
    validation = np.arange(600, 700)
    seen = set()
    for step in range(200):
        inputs, targets = trainer.batches(step)
        seen |= {*inputs.flat, *targets.flat}
    assert seen == set(range(600))
    assert not seen & set(validation)


def test_training_lowers_the_loss_to_that_of_the_text():
    trainer = small_trainer(steps=150, warmup=10, learning_rate=0.03, model={**SIZES, "dropout": 0.0, "d_ff": 24})
    trainer.run(progress=False)
    assert trainer.validation_loss() < 0.8  # the text repeats; it begins at ln 38 = 3.6


def test_the_mode_of_the_model_and_its_generator_are_left_alone_by_evaluation():
    trainer = small_trainer()
    for mode in (True, False):
        trainer.model.train(mode)
        before = state_of(trainer)
        first = trainer.validation_loss()
        assert trainer.validation_loss() == first
        assert state_of(trainer) == before
        assert {module.training for module in trainer.model.modules()} == {mode}


def test_a_run_without_a_folder_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = small_trainer()
    trainer.run(progress=False)
    assert trainer.save() is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_logged_and_when(tmp_path):
    trainer = small_trainer(tmp_path, accumulate=2)
    trainer.run(progress=False)
    rows = Log(tmp_path / "log.jsonl").rows()
    assert [row["step"] for row in rows] == list(range(1, 14))
    assert [row["step"] for row in rows if "validation_loss" in row] == [6, 12, 13]
    assert [row["tokens"] for row in rows] == [step * 2 * 5 * 7 for step in range(1, 14)]
    seconds = [row["seconds"] for row in rows]
    assert seconds == sorted(seconds)
    assert seconds[-1] == round(trainer.seconds, 3)
    assert rows[-1]["validation_loss"] == trainer.validation_loss()


def test_checkpoints_come_when_they_should(tmp_path, monkeypatch):
    saved = []
    trainer = small_trainer(tmp_path)
    save = trainer.save
    monkeypatch.setattr(trainer, "save", lambda: (saved.append(trainer.step), save())[1])
    trainer.run(progress=False)
    assert saved == [0, 4, 8, 12, 13]


def test_the_progress_bar_shows_loss_tokens_per_second_and_time_left(capsys, monkeypatch):
    import tqdm

    clock = itertools.count(step=0.25)  # each look at the clock is a quarter of a second later
    monkeypatch.setattr(tqdm.tqdm, "_time", lambda self: next(clock), raising=False)
    trainer = small_trainer(steps=40)
    shown = []
    bar_update = tqdm.tqdm.update

    def update(bar, n=1):
        result = bar_update(bar, n)
        shown.append(str(bar))
        return result

    monkeypatch.setattr(tqdm.tqdm, "update", update)
    trainer.run(progress=True)
    assert len(shown) == 40
    middle = [re.search(r"\d+/40 steps, loss (\d\.\d{3}).* ([\d,]+) tokens/s, (\d\d:\d\d) left", s) for s in shown[9:]]
    assert all(middle)
    assert "validation" in shown[-1]
    capsys.readouterr()
    small_trainer().run(progress=False)
    assert capsys.readouterr().err == ""
