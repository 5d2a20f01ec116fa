"""Token files, split, batches, windows: each token in its place, and nothing held in memory."""

import json
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytransformer.text import (
    Batches,
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    TextError,
    TokenFile,
    fingerprint,
    split,
    windows,
)

quick = settings(deadline=None, max_examples=60)
TEXT = "attention is all you need, 注意力就是一切 😀\n  " * 7
BPE = BPETokenizer.train(TEXT, 281)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("batches") / "corpus.tokens"


@pytest.fixture
def written(tmp_path):
    """A token file of seven bytes as tokens."""
    path = tmp_path / "corpus.tokens"
    TokenFile.write(path, ByteTokenizer(), "seven t", progress=False)
    return path


def description_of(path):
    return json.loads(path.with_name(path.name + ".json").read_bytes())


# --- token files ---


@pytest.mark.parametrize("tokenizer", [CharacterTokenizer.train("attention "), ByteTokenizer(), BPE])
@given(
    text=st.text(st.characters(exclude_categories=()), min_size=1)
    | st.text(st.sampled_from("at  n一\n"), min_size=31),
    cuts=st.lists(st.integers(0, 40), max_size=5),
)
@quick
def test_streamed_tokens_are_those_of_the_whole_text(path, tokenizer, text, cuts):
    borders = [0, *sorted(cuts), None]
    chunks = [text[borders[place] : borders[place + 1]] for place in range(len(borders) - 1)]
    file = TokenFile.write(path, tokenizer, iter(chunks), progress=False)
    expected = tokenizer.encode(text)
    assert file.tokens.tolist() == expected.tolist()
    assert np.fromfile(path, "<u2").tolist() == expected.tolist()
    assert description_of(path) == {
        "vocab_size": tokenizer.vocab_size,
        "dtype": "uint16",
        "length": len(expected),
        "characters": len(text),
        "fingerprint": fingerprint(text),
    }
    again = TokenFile.open(str(path))
    assert again.tokens.tolist() == expected.tolist()
    assert len(again) == len(expected)
    assert (again.vocab_size, again.characters) == (tokenizer.vocab_size, len(text))
    assert again.fingerprint == file.fingerprint == fingerprint(text)
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, path.name + ".json"}


@pytest.mark.parametrize(("characters", "dtype"), [(65536 - 17, "<u2"), (65537 - 17, "<u4")])
def test_the_last_id_fits(path, characters, dtype):
    tokenizer = CharacterTokenizer([chr(point) for point in range(characters)])
    file = TokenFile.write(path, tokenizer, "\U0010ffffa", progress=False)  # U+10FFFF has the digit f
    assert file.tokens.dtype == np.dtype(dtype)
    assert file.tokens.max() == tokenizer.vocab_size - 1
    assert tokenizer.decode(file.tokens) == "\U0010ffffa"
    assert np.fromfile(path, dtype).tolist() == file.tokens.tolist()


def test_tokens_are_mapped_read_only(written):
    file = TokenFile.open(written)
    assert isinstance(file.tokens, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        file.tokens[0] = 1
    assert repr(file) == f"TokenFile({str(written)!r}, 7 tokens, vocab_size=256)"


def test_progress_is_shown_when_wanted(path, capsys):
    TokenFile.write(path, ByteTokenizer(), ["abc"] * 3, progress=False)
    assert capsys.readouterr() == ("", "")
    TokenFile.write(path, ByteTokenizer(), ["abc"] * 3)
    shown = capsys.readouterr().err
    assert "writing corpus.tokens: 9.00char" in shown


def random_chunks(number):
    rng = np.random.default_rng(5)
    letters = np.array(list("etaoin shrdlu 注意\n"))
    for _ in range(number):
        yield "".join(rng.choice(letters, 20_000).tolist())


@pytest.mark.parametrize(
    "tokenizer", [CharacterTokenizer.train("etaoin shrdlu 注"), BPE], ids=["character", "bpe"]
)
def test_a_long_stream_is_not_held_in_memory(path, tokenizer, monkeypatch):
    monkeypatch.setattr("tinytransformer.text.tokenizers._CACHED_PRE_TOKENS", 100)
    peaks = []
    for number in (3, 30):
        tracemalloc.start()
        try:
            file = TokenFile.write(path, tokenizer, random_chunks(number), progress=False)
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        assert file.characters == 20_000 * number
    # ten times the text, whose tokens would be a megabyte more
    assert peaks[1] < peaks[0] + 2e5


def test_an_empty_text_is_refused(written):
    with pytest.raises(TextError, match="no text to write"):
        TokenFile.write(written, ByteTokenizer(), ["", ""], progress=False)
    assert bytes(TokenFile.open(written).tokens.tolist()) == b"seven t"


def test_a_failed_write_leaves_the_old_file(written):
    def chunks():
        yield "new text"
        raise TextError("the disk went away")

    with pytest.raises(TextError, match="went away"):
        TokenFile.write(written, ByteTokenizer(), chunks(), progress=False)
    assert bytes(TokenFile.open(written).tokens.tolist()) == b"seven t"
    assert len(list(written.parent.iterdir())) == 2


@pytest.mark.parametrize("renamed", [0, 1])
def test_an_end_between_the_two_files_is_noticed(written, monkeypatch, renamed):
    rename, calls = os.replace, []

    def killed(old, new):
        calls.append(new)
        if len(calls) > renamed:
            raise KeyboardInterrupt
        rename(old, new)

    monkeypatch.setattr(os, "replace", killed)
    # as many tokens as before: the size would not tell
    with pytest.raises(KeyboardInterrupt):
        TokenFile.write(written, ByteTokenizer(), "another", progress=False)
    with pytest.raises(TextError, match=r"not a token file.*write it again"):
        TokenFile.open(written)


def test_missing_files_are_refused(written, tmp_path):
    with pytest.raises(TextError, match=r"not a token file: cannot read .*missing\.json"):
        TokenFile.open(tmp_path / "missing")
    written.unlink()
    with pytest.raises(TextError, match="cannot read the token file"):
        TokenFile.open(written)


@pytest.mark.parametrize("content", [b"", b"seven", b"s\0e\0v\0e\0n\0 \0t", b"s\0e\0v\0e\0n\0 \0t\0\0"])
def test_a_file_of_another_size_is_refused(written, content):
    written.write_bytes(content)
    with pytest.raises(TextError, match=f"has {len(content)} bytes .* 7 x 2; write it again"):
        TokenFile.open(written)


@pytest.mark.parametrize(
    "change",
    [
        {"vocab_size": 70_000},  # would be uint32
        {"dtype": "uint32"},
        {"dtype": "object"},
        {"dtype": None},
        {"length": 0},
        {"length": -7},
        {"length": 7.0},
        {"length": True},
        {"length": 1 << 64},
        {"vocab_size": 1 << 33, "dtype": "uint32"},
        {"characters": "7"},
        {"fingerprint": 7},
        {"more": 7},
    ],
)
def test_a_wrong_description_is_refused(written, change):
    written.with_name("corpus.tokens.json").write_text(json.dumps(description_of(written) | change))
    with pytest.raises(TextError, match="does not describe a token file; write the token file again"):
        TokenFile.open(written)


@given(
    content=st.binary()
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
)
@example(content=b"[" * 200_000)
@example(content=b"{}")
@quick
def test_any_other_description_is_refused(path, content):
    path.write_bytes(b"seven t")
    path.with_name(path.name + ".json").write_bytes(content)
    with pytest.raises(TextError, match="write the token file again"):
        TokenFile.open(path)


# --- split ---


@given(length=st.integers(4, 200), fraction=st.floats(0.01, 0.99), context=st.integers(1, 7))
@quick
def test_split_is_contiguous_without_overlap(length, fraction, context):
    tokens = np.arange(length)
    expected = round(length * fraction)
    if min(expected, length - expected) < context + 1:
        with pytest.raises(ValueError, match=f"context {context} needs at least {context + 1}"):
            split(tokens, fraction, context)
        return
    train, validation = split(tokens, fraction, context)
    assert len(validation) == expected
    assert np.concatenate([train, validation]).tolist() == tokens.tolist()
    assert np.shares_memory(train, tokens)
    assert np.shares_memory(validation, tokens)
    assert not np.shares_memory(train, validation)


def test_split_names_the_part_that_is_too_short(written):
    assert [len(part) for part in split(np.arange(100))] == [90, 10]
    assert [len(part) for part in split(TokenFile.open(written).tokens, 0.3)] == [5, 2]
    with pytest.raises(
        ValueError, match="validation part has 10 of 100 tokens, but context 10 needs at least 11"
    ):
        split(np.arange(100), context=10)
    with pytest.raises(ValueError, match="training part has 3 of 100 tokens"):
        split(np.arange(100), validation_fraction=0.97, context=5)
    for fraction in (0, 1, -0.5, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            split(np.arange(100), fraction)


# --- batches ---


@given(
    length=st.integers(8, 300),
    batch_size=st.integers(1, 5),
    context=st.integers(1, 7),
    seed=st.integers(0, 1 << 70),
    step=st.integers(0, 1 << 40),
)
@quick
def test_targets_are_the_next_tokens(length, batch_size, context, seed, step):
    tokens = (np.arange(length) + 1000).astype("<u2")
    tokens.flags.writeable = False
    inputs, targets = Batches(tokens, batch_size, context, seed)(step)
    assert inputs.shape == targets.shape == (batch_size, context)
    assert inputs.dtype == targets.dtype == np.int64
    assert (np.diff(inputs, axis=1) == 1).all()
    assert (targets == inputs + 1).all()
    assert inputs.min() >= 1000
    assert targets.max() < 1000 + length
    # the one place where the order of random numbers is fixed: a resumed run draws the same
    drawn = np.random.default_rng([seed, step]).integers(length - context, size=batch_size)
    assert (inputs[:, 0] == 1000 + drawn).all()


def test_every_token_can_be_drawn():
    inputs, targets = Batches(np.arange(11), batch_size=997, context=3, seed=2)(0)
    assert set(inputs[:, 0]) == set(range(8))  # the last sequence is 7 8 9 → 8 9 10
    assert set(targets[:, -1]) == set(range(3, 11))
    inputs, targets = Batches(np.arange(4), batch_size=2, context=3, seed=2)(5)  # just enough tokens
    assert inputs.tolist() == [[0, 1, 2]] * 2
    assert targets.tolist() == [[1, 2, 3]] * 2


def test_a_batch_depends_on_seed_and_step_alone():
    tokens = np.arange(10_007)
    batches = Batches(tokens, batch_size=5, context=3, seed=7)
    steps = [0, 1, 2, 3, 11]
    forward = [batches(step)[0].tolist() for step in steps]
    np.random.default_rng(3).random(13)
    backward = [batches(step)[0].tolist() for step in reversed(steps)]
    resumed = [Batches(tokens, batch_size=5, context=3, seed=7)(step)[0].tolist() for step in steps]
    assert forward == backward[::-1] == resumed
    others = [
        Batches(tokens, 5, 3, seed)(step)[0].tolist() for seed, step in [(8, 0), (3, 7), (0, 7), (7, 4)]
    ]
    assert len({str(batch) for batch in forward + others}) == len(forward + others)


def test_inputs_and_targets_may_be_changed():
    tokens = np.arange(11)
    for inputs, targets in [
        Batches(tokens, 2, 3, 0)(0),
        next(windows(tokens, 2, 3)),
        next(windows(tokens[:3], 2, 3)),
    ]:
        kept = targets.copy()
        inputs[:] = -1
        assert (targets == kept).all()
        targets[:] = -1
    assert tokens.tolist() == list(range(11))


def test_mapped_tokens_give_the_same_batches(path):
    file = TokenFile.write(path, BPE, TEXT, progress=False)
    mapped, held = (Batches(tokens, 3, 5, seed=1)(2) for tokens in (file.tokens, BPE.encode(TEXT)))
    assert mapped[0].tolist() == held[0].tolist()
    assert mapped[1].tolist() == held[1].tolist()
    for batch in (mapped, *windows(file.tokens[:33], 3, 5)):  # 6 windows of 5, then one of 2
        assert [type(part) for part in batch] == [np.ndarray] * 2


def test_batches_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="3 tokens are too few for context 3, which needs at least 4"):
        Batches(np.arange(3), 2, 3, 0)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Batches(np.arange(11), 0, 3, 0)
    with pytest.raises(ValueError, match="context must be at least 1, got 0"):
        Batches(np.arange(11), 2, 0, 0)
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        Batches(np.arange(11), 2, 3, -1)
    with pytest.raises(ValueError, match="step must not be negative, got -1"):
        Batches(np.arange(11), 2, 3, 0)(-1)


@pytest.mark.parametrize("wrong", [np.zeros((2, 11), int), np.zeros(11), [1, 2, 3, 4, 5], "text"])
def test_only_one_row_of_ids_is_taken(wrong):
    for take in (split, lambda tokens: Batches(tokens, 2, 3, 0), lambda tokens: next(windows(tokens, 2, 3))):
        with pytest.raises(ValueError, match="1-D array of token ids, got"):
            take(wrong)


# --- windows ---


@given(length=st.integers(2, 120), batch_size=st.integers(1, 5), context=st.integers(1, 11))
@example(length=8, batch_size=2, context=7)  # one whole window, nothing left
@example(length=7, batch_size=2, context=7)  # less than one window
@quick
def test_every_token_but_the_first_is_a_target_once(length, batch_size, context):
    tokens = np.random.default_rng(length).integers(0, 60_000, length).astype("<u2")
    tokens.flags.writeable = False
    batches = list(windows(tokens, batch_size, context))
    assert np.concatenate([inputs.ravel() for inputs, _ in batches]).tolist() == tokens[:-1].tolist()
    assert np.concatenate([targets.ravel() for _, targets in batches]).tolist() == tokens[1:].tolist()
    for inputs, targets in batches:
        assert inputs.shape == targets.shape
        assert inputs.dtype == targets.dtype == np.int64
    whole, rest = divmod(length - 1, context)
    shapes = [(batch_size, context)] * (whole // batch_size)
    shapes += [(whole % batch_size, context)] if whole % batch_size else []
    shapes += [(1, rest)] if rest else []
    assert [inputs.shape for inputs, _ in batches] == shapes


def test_windows_refuse_what_cannot_be():
    with pytest.raises(ValueError, match="at least 2 tokens, got 1"):
        next(windows(np.arange(1), 2, 3))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        next(windows(np.arange(11), 0, 3))
    with pytest.raises(ValueError, match="context must be at least 1, got -1"):
        next(windows(np.arange(11), 2, -1))
