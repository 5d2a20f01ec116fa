"""Translation, and what it shares with summarization: batches, loss, generation."""

import builtins
import dataclasses
import re

import numpy
import pytest

from tinytransformer.models import GPT, T5, GPTConfig, T5Config, Transformer, TransformerConfig
from tinytransformer.optim import AdamW
from tinytransformer.tasks import TASKS, TaskData, read_rows, split_rows
from tinytransformer.tasks.sequence_to_sequence import end_token, write
from tinytransformer.tasks.translation import Translation, chrf, dates_and_names, exact_match
from tinytransformer.text import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    TextError,
    WordPieceTokenizer,
)

ROWS = [("abc", "cba"), ("de", "edxy"), ("fghij", "j"), ("k", "kk"), ("lm", "mmmmm")]
DATA = TaskData(ROWS, [("ab", "ba"), ("abcdef", "fe"), ("de", "e")], "a few lines")


@pytest.fixture(scope="module")
def en_zh():
    return dates_and_names(seed=0)


def small(batch_size=3, seed=0, data=DATA, kind=Translation):
    model, tokenizer = kind.new_model(data, numpy.random.default_rng(seed))
    return kind(data, model, tokenizer, batch_size, seed), model


# data


def test_no_date_is_on_both_sides_in_any_form(en_zh):
    """The Chinese text of a date says which day it is; the forms must not carry it over."""

    def days(rows):
        found = [re.search(r"(\d{4})[年/](\d+)[月/](\d+)", row[1]) for row in rows if row[2] == "dates"]
        return {match.groups() for match in found}

    train, validation = days(en_zh.train), days(en_zh.validation)
    assert len(validation) == 600
    assert len(train) == 12_000
    assert not train & validation


@pytest.mark.parametrize("direction", ["en-zh", "zh-en"])
def test_a_source_has_one_target_and_is_on_one_side(direction):
    data = dates_and_names(seed=3, direction=direction)
    sources = [row[0] for row in data.train + data.validation]
    assert len(sources) == len(set(sources))


def test_known_pairs_and_directions(en_zh):
    pairs = {row[:2] for row in en_zh.train + en_zh.validation}
    assert {("in 3 days", "3天后"), ("1 minute ago", "1分钟前"), ("France", "法国")} <= pairs
    back = dates_and_names(seed=0, direction="zh-en")
    kinds = {row[2]: row for row in back.train}
    assert set(kinds) == {"dates", "spans", "names"}
    assert ("3天后", "in 3 days") in {row[:2] for row in back.train + back.validation}
    full = next(row for row in en_zh.train if row[0].startswith("Monday"))
    assert re.fullmatch(r"Monday, [A-Z][a-z]+ \d+, \d{4}", full[0])
    assert re.fullmatch(r"\d{4}年\d+月\d+日星期一", full[1])


def test_the_seed_chooses_the_data(en_zh):
    assert dates_and_names(seed=0) == en_zh
    assert dates_and_names(seed=1).validation != en_zh.validation
    with pytest.raises(ValueError, match="direction must be en-zh or zh-en, not 'en-fr'"):
        dates_and_names(direction="en-fr")


def test_without_babel_one_line_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "babel":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(TextError, match=r"pip install 'tinytransformer\[data\]'") as error:
        Translation.default_data(0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.tsv", "source\ttarget\none\tuno\ntwo\t\n", "line 3: target must be a text that is not empty"),
        ("a.csv", "source,target\none,uno,extra\n", "line 2: it has 3 values, and the header 2"),
        ("a.csv", "from,to\none,uno\n", "line 1: there is no column 'source'"),
        (
            "a.jsonl",
            '{"source": "one", "target": "uno"}\n{"source": "two"}\n',
            "line 2: target must be a text",
        ),
        ("a.jsonl", '{"source": "one", "target": "uno"}\n{"source"\n', "line 2: it is not valid JSON"),
    ],
)
def test_a_bad_line_of_a_file_is_named(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TextError, match=re.escape(message)):
        read_rows(path, Translation)


def test_rows_of_a_file_can_be_trained_on(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("source\ttarget\none\tuno\ntwo\tdos\nthree\ttres\n", encoding="utf-8")
    rows = read_rows(path, Translation)
    data = TaskData(*split_rows(rows, Translation.document, seed=0), "three words")
    task, model = small(data=data)
    assert task.score(model).keys() == {"exact match", "chrF"}  # rows of no kind


# metrics


def test_chrf_counts_grams_of_characters():
    # unigrams: 2 of 2 written, 2 of 3 wanted; bigrams: 1 of 1, 1 of 2; longer ones only in the target
    P, R = 1.0, (2 / 3 + 1 / 2) / 2
    assert chrf(["ab"], ["abc"]) == pytest.approx(5 * P * R / (4 * P + R))
    assert chrf(["abc"], ["ab"]) == pytest.approx(5 * R * P / (4 * R + P))
    # a repeated gram counts as often as it is in both
    P, R = (1 / 3 + 0) / 2, 1.0 / 2
    assert chrf(["aaa"], ["ab"]) == pytest.approx(5 * P * (0.5 / 2) / (4 * P + 0.5 / 2))
    assert chrf(["a b c"], ["abc"]) == 1.0
    assert chrf([""], ["abc"]) == chrf(["xyz"], ["abc"]) == 0.0


@pytest.mark.parametrize(
    ("written", "targets", "expected"),
    [
        (["the cat sat", "a"], ["a cat sat", "b"], 0.6563610124333927),
        (["abcabc", "the cat"], ["ab", "the cat"], 0.9729064039408868),  # the first target has no 3-grams
    ],
)
def test_chrf_is_counted_over_all_texts(written, targets, expected):
    """As sacreBLEU 2.6.0 has it: corpus_chrf(written, [targets])."""
    assert chrf(written, targets) == pytest.approx(expected, abs=1e-12)


def test_exact_match_by_kind():
    rows = [("1", "x", "dates"), ("2", "y", "dates"), ("3", "z", "names")]
    task, _ = small(data=TaskData(rows, rows, "three"))
    scores = task.scores_of(["x", "?", "z"])
    assert scores["exact match"] == pytest.approx(2 / 3)
    assert scores["dates"] == 0.5
    assert scores["names"] == 1.0
    assert exact_match(["X"], ["x"]) == 0.0


def test_the_baseline_is_the_better_trivial_method():
    train = [("a", "common"), ("b", "common"), ("c", "rare")]
    name, scores = small(data=TaskData(train, [("p", "common"), ("q", "q")], ""))[0].baseline()
    assert scores["exact match"] == 0.5
    same = [("same", "same"), ("too", "too"), ("x", "common")]
    name, scores = small(data=TaskData(train, same, ""))[0].baseline()
    assert name == "copy of the source"
    assert scores["exact match"] == pytest.approx(2 / 3)


# batches


def test_the_decoder_never_reads_what_it_is_to_write():
    task, model = small(batch_size=5)
    input_ids, attention_mask, read, labels = task.batch(0)
    end = end_token(task.tokenizer)
    assert read.shape == labels.shape
    for row, label, source, mask in zip(read, labels, input_ids, attention_mask, strict=True):
        n = (label != -100).sum()
        assert row[0] == 0
        assert row[1:n].tolist() == label[: n - 1].tolist()
        assert label[n - 1] == end
        pair = (source[mask][:-1], label[: n - 1])
        assert tuple(map(task.tokenizer.decode, pair)) in ROWS
        assert source[mask][-1] == end
    # the loss of a place depends on no label that comes at it or later
    model.eval()
    logits = model(input_ids, attention_mask=attention_mask, decoder_input_ids=read).numpy()
    changed = read.copy()
    changed[:, 3:] = 1
    after = model(input_ids, attention_mask=attention_mask, decoder_input_ids=changed).numpy()
    numpy.testing.assert_allclose(after[:, :3], logits[:, :3], atol=1e-6)


def test_padding_does_not_count():
    """The loss of a batch is the mean over its tokens of the rows' own losses."""
    task, model = small(batch_size=5)
    batch = task.batch(0)
    alone = [task.collate([example]) for example in task.train]
    counts = [task.count(*one) for one in alone]
    assert task.count(*batch) == sum(counts) == sum(len(target) + 1 for _, target in ROWS)
    losses = [task.loss(model, *one).item() for one in alone]
    expected = sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)
    assert task.loss(model, *batch).item() == pytest.approx(expected, rel=1e-5)


def test_a_batch_depends_on_seed_and_step_alone():
    first, again, other = small(seed=5)[0], small(seed=5)[0], small(seed=6)[0]
    late = [array.tolist() for array in first.batch(7)]
    for step in (3, 0, 7):
        batch = again.batch(step)
    assert [array.tolist() for array in batch] == late
    assert any(
        [a.tolist() for a in first.batch(step)] != [a.tolist() for a in other.batch(step)]
        for step in range(4)
    )


# models


def test_the_end_token():
    assert end_token(CharacterTokenizer.train("\0\3abc")) == 1
    assert end_token(BPETokenizer([], ["<pad>", "</s>"])) == 257
    assert end_token(BPETokenizer([(60, 47), (256, 115), (257, 62)], ["</s>"])) == 259  # not the merge
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert end_token(WordPieceTokenizer(pieces)) == 3
    assert end_token(ByteTokenizer()) == 3
    with pytest.raises(ValueError, match="no token to end a target"):
        end_token(CharacterTokenizer.train("abc"))


@pytest.mark.parametrize("num_beams", [1, 2])
def test_writing_ends_at_the_end_token(num_beams):
    """A model whose head favours one token: it writes it up to the limit, or nothing if it is the end."""
    config = TransformerConfig(11, 11, d_model=8, num_heads=2, d_ff=16, dropout=0.0, shared_embeddings=False)
    model = Transformer(config, numpy.random.default_rng(0))
    model.decoder_layers[-1].norm3.weight.data[...] = 0  # what comes last is its bias alone
    model.decoder_layers[-1].norm3.bias.data[...] = 20 * numpy.linalg.pinv(model.head.weight.numpy())[7]
    sources = [[3, 4, 1], [5, 1], [6, 2, 4, 1]]
    for target in write(model, sources, end=2, max_new_tokens=5, num_beams=num_beams):
        assert target.tolist() == [7] * 5
    calls = []
    decode = model.decode
    model.decode = lambda *arguments: calls.append(arguments) or decode(*arguments)
    for target in write(model, sources, end=7, max_new_tokens=5, num_beams=num_beams):
        assert target.tolist() == []
    assert len(calls) == 1


def test_a_trained_t5_is_taken_with_its_own_start():
    config = T5Config(3000, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=9)
    model = T5(config, numpy.random.default_rng(0))  # as published ones, it has more ids than its tokenizer
    assert Translation.with_head(model, DATA, numpy.random.default_rng(0)) is model
    task = Translation(DATA, model, ByteTokenizer(), batch_size=3, seed=0)
    assert (task.batch(0)[2][:, 0] == 9).all()
    assert numpy.isfinite(task.validation_loss(model))
    assert set(task.score(model)) == {"exact match", "chrF"}
    gpt = GPT(GPTConfig(vocab_size=11, context_length=5, d_model=8, num_heads=2))
    with pytest.raises(ValueError, match="for a T5 or Transformer, not for a GPT"):
        Translation.with_head(gpt, DATA, numpy.random.default_rng(0))


def test_reversing_a_text_is_learned():
    rng = numpy.random.default_rng(0)
    words = ["".join(rng.permutation(list("abcdefgh"))[: rng.integers(1, 5)]) for _ in range(3000)]
    words = list(dict.fromkeys(words))
    rows = [(word, word[::-1]) for word in words]
    data = TaskData(rows[:-60], rows[-60:], "words")
    task, model = small(batch_size=32, data=data)
    assert task.score(model)["exact match"] < 0.1
    optimizer = AdamW(model.parameters(), lr=3e-3)
    for step in range(300):
        optimizer.zero_grad()
        optimizer.lr = 3e-3 * min(step / 30, 1) * (1 - step / 300)
        task.loss(model, *task.batch(step)).backward()
        optimizer.step()
    assert task.score(model)["exact match"] == 1.0
    written = task.written(model, task.validation)
    assert written == [target for _, target in data.validation]
    source = data.validation[-1][0]
    facts = task.facts()
    assert Translation.predict(model, task.tokenizer, facts, source) == [source[::-1]]
    assert Translation.predict(model, task.tokenizer, {**facts, "num_beams": 3}, source) == [source[::-1]]
    assert len(task.samples(model, 4)) == 4


def test_the_commands_know_the_task():
    assert TASKS["translate"] is Translation


def test_a_model_writes_no_longer_than_it_has_seen():
    task, model = small()
    assert task.facts() == {"num_beams": 1, "max_new_tokens": 6}  # "mmmmm" and its end
    config = dataclasses.replace(model.config, shared_embeddings=False)
    silent = Transformer(config, numpy.random.default_rng(0))  # never ends
    silent.head.weight.data[:, end_token(task.tokenizer)] = -100
    silent.decoder_norm.bias.data[...] = 10
    assert all(len(text) <= 6 for text in task.written(silent, task.validation))
    assert max(len(target) for target in write(silent, [[3, 1]], 1, 6)) == 6
    (text,) = Translation.predict(silent, task.tokenizer, task.facts(), "abc")
    assert len(text) <= 6
