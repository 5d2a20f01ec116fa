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
from tinytransformer.tasks import LanguageModelling
from tinytransformer.text import ByteTokenizer, CharacterTokenizer
from tinytransformer.training import (
    Log,
    NonFiniteError,
    Score,
    Trainer,
    TrainingSettings,
    evaluate,
    first_non_finite,
    load_checkpoint,
    ngram_scores,
    steps_within,
)
from tinytransformer.training.log import COLUMNS

# --- settings ---


@pytest.mark.parametrize("name", ["steps", "accumulate", "threads", "evaluate_every", "checkpoint_every"])
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None])
def test_counts_must_be_positive_integers(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a positive integer, not {value!r}"):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "warmup": [-1, 0.5, None],
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
    batches = [[parts.task.batch(3 * step + part) for part in range(3)] for step in range(2)]
    whole.task.batch = lambda step: tuple(
        np.concatenate(arrays) for arrays in zip(*batches[step], strict=True)
    )
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


def test_accumulated_batches_weigh_as_many_targets_as_they_have():
    trainer = small_trainer(None, "float64", model={**SIZES, "dropout": 0.0}, accumulate=3, clip=1e9)
    batch = trainer.task.batch
    sizes = {0: 1, 1: 2, 2: 5}
    trainer.task.batch = lambda step: tuple(array[: sizes[step]] for array in batch(step))
    whole = [np.concatenate(arrays) for arrays in zip(*map(trainer.task.batch, range(3)), strict=True)]
    expected = trainer.model.loss(*whole)
    expected.backward()
    wanted = gradients(trainer)
    assert trainer.train_step()["loss"] == pytest.approx(expected.item(), rel=1e-12)
    for found, gradient in zip(gradients(trainer), wanted, strict=True):
        np.testing.assert_allclose(found, gradient, rtol=1e-9, atol=1e-15)


def test_each_part_of_a_step_is_another_batch(monkeypatch):
    trainer = small_trainer(accumulate=3)
    asked = []
    batch = trainer.task.batch
    monkeypatch.setattr(trainer.task, "batch", lambda step: (asked.append(step), batch(step))[1])
    trainer.train_step()
    trainer.train_step()
    assert asked == [0, 1, 2, 3, 4, 5]


def test_a_step_is_that_of_adamw_with_clipping_and_decay_of_matrices():
    """By hand, from the gradient of the batch: the first step of AdamW moves by the sign of the gradient."""
    trainer = small_trainer(None, "float64", model={**SIZES, "dropout": 0.0}, clip=0.05, weight_decay=0.3)
    before = {name: p.numpy().copy() for name, p in trainer.model.named_parameters()}
    trainer.model.loss(*trainer.task.batch(0)).backward()
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


def test_validation_tokens_are_never_trained_on(monkeypatch):
    """Each of 700 tokens is another, so that it can be seen where they go."""
    trained, evaluated = set(), set()
    model = GPT(GPTConfig(700, 7, 6, 1, 3))
    forward = model.forward
    model.forward = lambda ids: ((trained if model.training else evaluated).update(ids.flat), forward(ids))[1]
    tokens = np.arange(700)
    settings = TrainingSettings(steps=90, warmup=0, evaluate_every=250)
    task = LanguageModelling(tokens[:600], tokens[600:], batch_size=31, context=7)
    trainer = Trainer(model, task, settings, ByteTokenizer())
    loss = model.loss
    monkeypatch.setattr(model, "loss", lambda x, y: (trained.update(y.flat), loss(x, y))[1])
    trainer.run(progress=False)
    assert trained == set(range(600))
    assert evaluated == set(range(600, 699))  # the last one has no next token


def test_training_lowers_the_loss():
    model = {**SIZES, "d_model": 48, "d_ff": 96, "num_layers": 1, "dropout": 0.0}
    trainer = small_trainer(
        steps=100, warmup=10, batch_size=16, learning_rate=0.01, weight_decay=0.0, model=model
    )
    assert trainer.validation_loss() > 3.5  # ln 39 = 3.7
    trainer.run(progress=False)
    assert trainer.validation_loss() < 0.8


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
    monkeypatch.setattr("tqdm.std.time", lambda: next(clock))
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
    middle = [
        re.search(r"\d+/40 steps, loss (\d\.\d{3}).* ([\d,]+) tokens/s, (\d\d:\d\d) left", s)
        for s in shown[9:]
    ]
    assert all(middle)
    assert "validation" in shown[-1]
    capsys.readouterr()
    small_trainer().run(progress=False)
    assert capsys.readouterr().err == ""


# --- loss, gradient or parameters that are not finite ---


def stops(trainer, match, folder):
    """The run stops with this message; the parameters stay, and a checkpoint of the step before is there."""
    before = [p.numpy().copy() for p in trainer.model.parameters()]
    forwards = [vars(module).get("forward") for module in trainer.model.modules()]
    with pytest.raises(NonFiniteError, match=match) as caught:
        trainer.run(progress=False)
    assert "\n" not in str(caught.value)
    for p, array in zip(trainer.model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), array)
    assert [vars(module).get("forward") for module in trainer.model.modules()] == forwards
    assert load_checkpoint(folder).state["step"] == trainer.step
    return str(caught.value)


@pytest.fixture
def broken(tmp_path):
    """A Trainer with two steps behind it and a checkpoint of them, to be broken."""
    trainer = small_trainer(tmp_path, checkpoint_every=1)
    for _ in range(2):
        trainer.train_step()
    trainer.save()
    return trainer


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_parameter_that_is_not_finite_is_named(broken, tmp_path, value):
    weight = broken.model.blocks[1].feed_forward.linear1.weight
    weight.data[3, 5] = value
    stops(
        broken,
        r"the loss became NaN or infinite at step 3, first in parameter "
        r"blocks\.1\.feed_forward\.linear1\.weight: train again with a lower",
        tmp_path,
    )


@pytest.mark.parametrize(
    ("layer", "parameter"),
    [
        ("blocks.0.self_attention.W_V", "blocks.0.self_attention.W_V.weight"),
        ("blocks.0.feed_forward", "blocks.0.feed_forward.linear2.weight"),
        ("blocks.1.feed_forward", "blocks.1.feed_forward.linear2.weight"),
        ("blocks.1.norm2", "blocks.1.norm2.weight"),
        ("norm", "norm.weight"),
    ],
)
def test_the_first_layer_that_overflows_is_named(broken, tmp_path, layer, parameter):
    parameters = dict(broken.model.named_parameters())
    parameters[parameter].data[...] = 3e38
    for name in ("blocks.0.feed_forward.linear1.bias", "blocks.1.feed_forward.linear1.bias", "norm.bias"):
        parameters[name].data[...] += 3
    stops(
        broken, rf"the loss became NaN or infinite at step 3, first in layer {re.escape(layer)}: ", tmp_path
    )


def test_a_layer_that_breaks_only_where_dropout_leaves_much(tmp_path):
    """The place is looked for with the same numbers drawn: with others it would often not be found."""
    found = []
    for seed in range(15):
        trainer = small_trainer(model={**SIZES, "dropout": 0.9}, batch_size=1)
        trainer.model.rng.bit_generator.state = np.random.default_rng(seed).bit_generator.state
        trainer.model.blocks[1].feed_forward.linear2.bias.data[2] = 1e38  # ten times as much where it is kept
        try:
            trainer.train_step()
        except NonFiniteError as error:
            found.append(re.search("first in (.*): train", str(error))[1])
    assert 3 < len(found) < 12
    assert set(found) == {"layer blocks.1.dropout"}


def test_a_gradient_that_is_not_finite_is_named_nearest_to_the_loss(broken, tmp_path):
    """sqrt(relu(x)) is 0 for negative x, and its gradient there is infinity times 0."""
    feed_forward = broken.model.blocks[1].feed_forward
    feed_forward.activation = lambda x: tt.sqrt(tt.relu(x))
    stops(
        broken,
        r"the gradient became NaN or infinite at step 3, first in the gradient of blocks\.1\.feed_forward"
        r"\.linear1\.bias: ",
        tmp_path,
    )


def test_a_single_gradient_is_found_wherever_it_is(broken):
    broken.model.loss(*broken.task.batch(0)).backward()
    forward = lambda: broken.model(broken.task.batch(0)[0])  # noqa: E731
    for name, p in broken.model.named_parameters():
        kept = p.grad.data.flat[-1]
        p.grad.data.flat[-1] = -np.inf
        assert first_non_finite(broken.model, forward) == f"the gradient of {name}"
        p.grad.data.flat[-1] = kept
    assert first_non_finite(broken.model, forward) == "the loss"


def test_a_loss_that_is_not_finite_in_the_second_of_three_batches(tmp_path):
    trainer = small_trainer(tmp_path, accumulate=3, model={**SIZES, "positions": "sinusoidal"})
    inputs = [set(trainer.task.batch(part)[0].flat) for part in range(3)]
    token = min(inputs[1] - inputs[0])  # a token that the first batch does not have
    forward = trainer.model.blocks[0].norm1.forward
    ids = []
    loss = trainer.model.loss
    trainer.model.loss = lambda x, y: (ids.append(x), loss(x, y))[1]

    def poisoned(x):
        y = forward(x)
        return y * math.inf if (ids[-1] == token).any() else y

    trainer.model.blocks[0].norm1.forward = poisoned
    with pytest.raises(NonFiniteError, match=r"at step 1, first in layer blocks\.0\.norm1"):
        trainer.train_step()
    assert len(ids) == 4
    assert ids[3] is ids[1]  # looked at once more, for the layer
    assert trainer.model.blocks[0].norm1.forward is poisoned


def test_a_validation_loss_that_is_not_finite_stops_the_run(tmp_path):
    trainer = small_trainer(tmp_path)
    norm = trainer.model.norm
    forward = type(norm).forward
    norm.forward = lambda x: forward(norm, x) * (1 if trainer.model.training else math.nan)
    with pytest.raises(
        NonFiniteError, match="the validation loss became NaN or infinite at step 6, first in"
    ):
        trainer.run(progress=False)
    assert trainer.step == 6
    assert load_checkpoint(tmp_path).state["step"] == 4


def test_parameters_that_the_last_step_broke_are_not_saved(tmp_path):
    trainer = small_trainer(tmp_path, evaluate_every=99)
    step = trainer.optimizer.step

    def too_far():
        step()
        if trainer.step == 7:
            trainer.model.norm.bias.data[2] = math.inf

    trainer.optimizer.step = too_far
    with pytest.raises(
        NonFiniteError, match=r"parameter norm\.bias became NaN or infinite by step 8: train again"
    ):
        trainer.run(progress=False)
    assert load_checkpoint(tmp_path).state["step"] == 4


# --- log ---


@pytest.fixture(params=["log.jsonl", "log.csv"])
def log(request, tmp_path):
    return Log(tmp_path / request.param)


NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False)
ROWS = st.lists(
    st.fixed_dictionaries({"step": st.integers(0, 99)}, optional=dict.fromkeys(COLUMNS[1:], NUMBERS)),
    max_size=7,
)


@given(
    rows=ROWS,
    after=st.integers(0, 99),
    cut=st.integers(0, 200),
    name=st.sampled_from(["log.csv", "log.jsonl"]),
)
def test_a_log_comes_back_whatever_was_cut_off_its_end(tmp_path_factory, rows, after, cut, name):
    log = Log(tmp_path_factory.mktemp("log") / name)
    assert log.rows() == []
    for row in rows:
        log.append(row)
    assert log.rows() == rows
    if rows:
        content = log.path.read_bytes()
        log.path.write_bytes(content[: max(len(content) - cut, 0)])
    kept = log.rows()
    assert kept == rows[: len(kept)]
    log.append({"step": 100, "loss": 0.1})
    assert log.rows() == [*kept, {"step": 100, "loss": 0.1}]
    log.cut(after)
    assert log.rows() == [row for row in kept if row["step"] <= after]
    log.append({"step": 100})
    assert log.rows()[-1] == {"step": 100}


def test_the_step_that_a_log_is_cut_after_stays(log):
    for step in (1, 2, 3):
        log.append({"step": step})
    log.cut(after=2)
    assert log.rows() == [{"step": 1}, {"step": 2}]


def test_a_line_cut_short_costs_that_line_alone(log):
    for step in (1, 2, 3):
        log.append({"step": step, "loss": 0.5})
    with log.path.open("rb+") as file:
        file.truncate(log.path.stat().st_size - 1)  # the newline alone
    assert [row["step"] for row in log.rows()] == [1, 2]
    log.append({"step": 3, "loss": 0.25})
    assert log.rows()[1:] == [{"step": 2, "loss": 0.5}, {"step": 3, "loss": 0.25}]


def test_numbers_that_are_not_finite_come_back(log):
    log.append({"step": 1, "loss": math.nan, "gradient_norm": math.inf, "learning_rate": -math.inf})
    (row,) = log.rows()
    assert math.isnan(row["loss"])
    assert (row["gradient_norm"], row["learning_rate"]) == (math.inf, -math.inf)


def test_the_log_is_one_that_others_read(log):
    log.append({"step": 1, "loss": np.float64(2.5), "validation_loss": 3.5})
    log.append({"step": 2, "loss": 1e-30})
    lines = log.path.read_text().splitlines()
    if log.path.suffix == ".jsonl":
        assert [json.loads(line) for line in lines] == [
            {"step": 1, "loss": 2.5, "validation_loss": 3.5},
            {"step": 2, "loss": 1e-30},
        ]
    else:
        assert lines[0] == "step,loss,validation_loss,learning_rate,gradient_norm,tokens,seconds"
        assert [row["loss"] for row in csv.DictReader(lines)] == ["2.5", "1e-30"]


def test_a_log_of_other_columns_or_another_kind_is_refused(log, tmp_path):
    with pytest.raises(ValueError, match="a log has no column 'colour', only step, loss, "):
        log.append({"step": 1, "colour": 3})
    assert log.rows() == []
    with pytest.raises(ValueError, match=r"a log ends in \.jsonl or \.csv, not 'log\.txt'"):
        Log(tmp_path / "log.txt")


@given(
    content=st.binary(max_size=40) | st.text(max_size=40).map(str.encode),
    name=st.sampled_from([".csv", ".jsonl"]),
)
def test_a_file_that_is_no_log_is_refused(tmp_path_factory, content, name):
    log = Log(tmp_path_factory.mktemp("log") / f"log{name}")
    log.path.write_bytes(content + b"\n")
    try:
        rows = log.rows()
    except ValueError as error:
        rows, said = [], str(error)
    else:
        said = "is damaged: not every line is a row of a log"
    assert said.endswith("is damaged: not every line is a row of a log")
    assert all(type(row["step"]) is int for row in rows)


# --- scores ---


class Table:
    """A model made by hand: the logits of the next token are a row of a table, for each token before it."""

    training = True

    def __init__(self, logits, context_length):
        self.logits = np.asarray(logits)
        self.config = GPTConfig(len(logits), context_length, 6, 1, 3)

    def __call__(self, ids):
        return self.logits[ids]

    def train(self, mode=True):
        self.training = mode

    def eval(self):
        self.train(False)


def test_units():
    score = Score(nats=30 * math.log(2), tokens=10, characters=15)
    assert score.nats_per_token == pytest.approx(3 * math.log(2))
    assert score.perplexity == pytest.approx(8)
    assert score.bits_per_character == pytest.approx(2)
    assert Score(nats=1e6, tokens=10, characters=0).bits_per_character == math.inf
    assert 1e300 < Score(nats=1e6, tokens=10, characters=5).perplexity < math.inf


@pytest.mark.parametrize("stride", [None, 1, 2, 3])
def test_uniform_predictions_cost_ln_v_each(stride):
    score = evaluate(Table(np.zeros((7, 7)), 3), np.arange(23) % 7, np.full(7, 2), stride=stride)
    assert score.tokens == 22
    assert score.characters == 44
    assert score.nats_per_token == pytest.approx(math.log(7))
    assert score.perplexity == pytest.approx(7)
    assert score.bits_per_character == pytest.approx(math.log2(7) / 2)


def test_a_table_of_known_probabilities_costs_their_logarithms(rng):
    p = rng.dirichlet(np.ones(5), size=5)
    tokens = rng.integers(5, size=41)
    score = evaluate(Table(np.log(p), 7), tokens, np.array([1, 0, 2, 1, 3]), batch_size=3)
    assert score.nats == pytest.approx(-sum(math.log(p[a, b]) for a, b in itertools.pairwise(tokens)))
    assert score.characters == sum([1, 0, 2, 1, 3][t] for t in tokens[1:])


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.mark.parametrize("stride", [None, 1, 2, 3, 5])
@pytest.mark.parametrize("length", [2, 5, 6, 7, 23])
def test_evaluation_is_that_of_each_token_alone(rng, stride, length):
    """By brute force: each token given the tokens of the first window in which it is a target."""
    model = GPT(GPTConfig(11, 5, 6, 2, 3, dropout=0.5), rng, "float64")
    for p in model.parameters():
        p.data[...] += rng.normal(0, 0.3, p.shape)
    tokens = rng.integers(11, size=length)
    step = stride or 5
    expected = 0.0
    for t in range(1, length):
        start = -(-max(t - 5, 0) // step) * step  # of the first window that reaches the target
        with tt.no_grad():
            z = model.eval()(tokens[None, start:t])[0, -1]
        expected -= float(tt.log_softmax(z)[tokens[t]])
    model.train()
    for batch_size in (1, 2, 64):
        score = evaluate(model, tokens, np.ones(11, int), batch_size, stride=stride)
        assert score.tokens == length - 1
        assert score.nats == pytest.approx(expected, rel=1e-12)
    assert model.training


class Reader(Table):
    """A model that knows the next token, which is the next number, once it has read three."""

    def __init__(self):
        super().__init__(np.full((7, 7), -50.0), 7)

    def __call__(self, ids):
        z = np.zeros((*ids.shape, 7))
        np.put_along_axis(z[:, 2:], (ids[:, 2:, None] + 1) % 7, 50.0, axis=-1)
        return z


@pytest.mark.parametrize(("stride", "unread"), [(7, 2 * 4), (6, 2 + 4), (5, 2), (4, 2), (1, 2)])
def test_overlapping_windows_give_each_token_more_to_read(stride, unread):
    """29 tokens are four windows of 7 without overlap; the first two targets of each cost ln 7."""
    score = evaluate(Reader(), np.arange(29) % 7, np.ones(7, int), stride=stride)
    assert score.tokens == 28
    assert score.nats == pytest.approx(unread * math.log(7))


def test_a_limit_counts_tokens_and_their_characters(rng):
    model = Table(np.log(rng.dirichlet(np.ones(5), size=5)), 7)
    tokens, counts = rng.integers(5, size=41), np.array([1, 0, 2, 1, 3])
    assert evaluate(model, tokens, counts, limit=17) == evaluate(model, tokens[:17], counts)


def test_the_mode_comes_back_even_after_an_error():
    model = Table(np.zeros((7, 7)), 3)
    with pytest.raises(IndexError):
        evaluate(model, np.array([1, 2, 9, 3]), np.ones(10))
    assert model.training


def test_evaluation_shows_progress_if_asked_to(capsys):
    for progress in (False, True):
        evaluate(Table(np.zeros((7, 7)), 3), np.arange(23) % 7, np.ones(7, int), progress=progress)
        assert ("22.0/22.0" in capsys.readouterr().err) == progress


def test_bits_per_character_do_not_depend_on_the_tokenizer():
    """A text of Chinese and English: as bytes it has more tokens, and as many characters."""
    text = TEXT[:500]
    scores = []
    for tokenizer in (ByteTokenizer(), CharacterTokenizer.train(text)):
        V, tokens = tokenizer.vocab_size, tokenizer.encode(text)
        found = ngram_scores(tokens[:300], tokens, V, tokenizer.character_counts)
        assert list(found) == ["unigram", "bigram", "trigram"]
        for score in found.values():
            assert score.tokens == len(tokens) - 1
            assert score.characters == len(text) - 1
            assert score.bits_per_character == pytest.approx(score.nats / math.log(2) / (len(text) - 1))
        uniform = evaluate(Table(np.zeros((V, V)), 7), tokens, tokenizer.character_counts)
        assert uniform.characters == len(text) - 1
        scores.append(uniform)
    assert scores[0].tokens > scores[1].tokens
    assert scores[0].nats_per_token == pytest.approx(math.log(256))


def test_ngram_scores_are_those_of_the_models_on_all_tokens_but_the_first(rng):
    train, validation = rng.integers(5, size=400), rng.integers(5, size=70)
    found = ngram_scores(train, validation, 5, np.array([1, 0, 2, 1, 3]), orders=(2, 4))
    assert list(found) == ["bigram", "4-gram"]
    for order, score in zip((2, 4), found.values(), strict=True):
        model = tt.models.NGram(order, 5).fit(train)
        expected = -sum(math.log(model.probabilities(validation[:t])[validation[t]]) for t in range(1, 70))
        assert score.nats == pytest.approx(expected)
        assert score.characters == sum([1, 0, 2, 1, 3][t] for t in validation[1:])


# --- planning ---


def test_planning_leaves_everything_as_it_was(monkeypatch):
    trainer = small_trainer(accumulate=2)
    model = trainer.model
    model.loss(*trainer.task.batch(0)).backward()
    before, kept = state_of(trainer), [p.grad.numpy().copy() for p in model.parameters()]
    steps_within(1.0, model, trainer.task, trainer.settings)
    assert state_of(trainer) == before
    for p, gradient in zip(model.parameters(), kept, strict=True):
        np.testing.assert_array_equal(p.grad.numpy(), gradient)


def test_planned_steps_are_the_budget_over_the_time_of_one(monkeypatch):
    trainer = small_trainer(accumulate=3)
    now = [0.0]
    monkeypatch.setattr("tinytransformer.training.trainer.time.perf_counter", lambda: now[0])
    loss = trainer.model.loss
    calls = []

    def timed(inputs, targets):
        calls.append(1)
        now[0] += 0.8 if len(calls) < 20 else 0.2  # the first calls of a program are slow
        return loss(inputs, targets)

    trainer.model.loss = timed
    plan = steps_within(500.0, trainer.model, trainer.task, trainer.settings)
    assert plan == int(500 / 0.6 / 1.06)
    assert len(calls) == 40 * 3
    calls.clear()
    assert steps_within(1.0, trainer.model, trainer.task, trainer.settings) == 1
    assert len(calls) == 3  # one is enough to see that there is time for one alone


@pytest.mark.parametrize("slow", [0.1, 2.0])
def test_a_time_budget_is_kept_when_the_pace_changes(monkeypatch, slow):
    """The plan says 50 steps of 1 s; from step 10 on a step takes less or more."""
    trainer = small_trainer(steps=50, warmup=5)
    now = [0.0]
    monkeypatch.setattr("tinytransformer.training.trainer.time.perf_counter", lambda: now[0])
    step = trainer.train_step

    def timed():
        now[0] += 1.0 if trainer.step < 10 else slow
        return step()

    trainer.train_step = timed
    rates = []
    monkeypatch.setattr(trainer.optimizer, "step", lambda: rates.append(trainer.optimizer.lr))
    trainer.run(progress=False, seconds=50.0)
    assert now[0] == pytest.approx(50, abs=2)
    assert trainer.step == trainer.settings.steps == pytest.approx(10 + 40 / slow, rel=0.1)
    assert rates[-1] < 0.02 * max(rates)  # the schedule ends where the run does


def test_without_a_time_budget_the_steps_stay():
    trainer = small_trainer(steps=7)
    trainer.run(progress=False)
    assert trainer.step == trainer.settings.steps == 7


def test_a_quick_evaluation_looks_all_over_the_validation_text():
    """The end of this text is as likely as can be, and its beginning is not: both must count."""
    trainer = small_trainer(evaluate_tokens=64)
    trainer.task.validation_tokens = np.arange(1000) % 5
    seen = []
    forward = trainer.model.forward

    def watched(ids, *more):
        seen.append(np.asarray(ids))
        return forward(ids, *more)

    trainer.model.forward = watched
    quick = trainer.validation_loss()
    assert 40 <= sum(ids.size for ids in seen) <= 64
    trainer.task.validation_tokens = np.concatenate([np.arange(900) % 5, np.full(100, 3)])
    assert trainer.validation_loss() != quick
    trainer.task.validation_tokens = trainer.task.validation_tokens[::-1].copy()
    assert trainer.validation_loss() != quick
