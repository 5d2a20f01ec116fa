"""WordPiece: equal to the `tokenizers` library on its fixture, and trained as a slow textbook trains it."""

import json
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytransformer.text import (
    TokenizerError,
    WordPieceTokenizer,
    load_tokenizer,
    tokenizer_from_dict,
    wordpiece,
)

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "wordpiece.json").read_text("ascii"))
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXTS = FIXTURE["texts"]
every_mode = pytest.mark.parametrize("mode", FIXTURE["modes"])
quick = settings(deadline=None, max_examples=60)


def of(mode):
    options = FIXTURE["modes"][mode]
    tokenizer = WordPieceTokenizer(FIXTURE["vocabulary"], options["lowercase"], options["strip_accents"])
    return tokenizer, options


def small(*pieces, **options):
    return WordPieceTokenizer([*SPECIAL, *pieces], **options)


# --- the library ---


@every_mode
def test_ids_are_those_of_the_library(mode):
    tokenizer, expected = of(mode)
    for text, ids, with_special in zip(
        TEXTS, expected["ids"], expected["ids with special tokens"], strict=True
    ):
        assert tokenizer.encode(text).tolist() == ids, text
        assert tokenizer.encode(text, allow_special=True).tolist() == with_special, text


@every_mode
def test_spans_are_those_of_the_library(mode):
    tokenizer, expected = of(mode)
    for text, ids, spans in zip(TEXTS, expected["ids"], expected["spans"], strict=True):
        own_ids, own_spans = tokenizer.encode_with_spans(text)
        assert own_ids.tolist() == ids, text
        assert own_spans.tolist() == spans, text
        assert own_spans.shape == (len(ids), 2)


def test_pairs_are_those_of_the_library():
    tokenizer, _ = of("lower")
    for pair in FIXTURE["pairs"]:
        ids, token_type_ids = tokenizer.encode_pair(TEXTS[pair["a"]], TEXTS[pair["b"]])
        assert ids.tolist() == pair["ids"]
        assert token_type_ids.tolist() == pair["token_type_ids"]


def test_the_fixture_holds_what_it_should():
    """English and Chinese, known and unknown, and words of several pieces in both."""
    used = {mode: Counter(i for ids in of(mode)[1]["ids"] for i in ids) for mode in FIXTURE["modes"]}
    pieces = FIXTURE["vocabulary"]
    for counts in used.values():
        assert counts[1] > 50
        assert sum(n for i, n in counts.items() if pieces[i].startswith("##")) > 100
        assert sum(n for i, n in counts.items() if "\u4e00" <= pieces[i] <= "\u9fff") > 50
    assert used["cased"] != used["lower"] != used["lower with accents"] != used["cased"]


# --- words ---


def test_words():
    lower, cased = small(), small(lowercase=False)
    assert lower.words("Ça va, naïve RÉSUMÉ?") == ["ca", "va", ",", "naive", "resume", "?"]
    assert cased.words("Ça va, naïve?") == ["Ça", "va", ",", "naïve", "?"]
    assert small(lowercase=True, strip_accents=False).words("RÉSUMÉ") == ["résumé"]
    assert small(lowercase=False, strip_accents=True).words("RÉSUMÉ") == ["RESUME"]
    assert lower.words("注意力is用GPT-4！") == ["注", "意", "力", "is", "用", "gpt", "-", "4", "！"]
    assert lower.words("ΟΔΟΣ a\u200bb\x00c\x1cd\ufffde\ud800f $5^2") == ["οδοσ", "abcdef", "$", "5", "^", "2"]
    assert lower.words("\u3000 \u00a0\t\n") == []


# --- pieces ---


def test_the_longest_piece_is_taken_from_the_left():
    tokenizer = small("a", "ab", "abc", "##c", "##cd", "##d", "##b")
    pieces = lambda text: [tokenizer.vocabulary[i] for i in tokenizer.encode(text)]  # noqa: E731
    assert pieces("abcd") == ["abc", "##d"]  # and not ab ##cd
    assert pieces("abb") == ["ab", "##b"]
    assert pieces("acd") == ["a", "##cd"]
    assert pieces("bad abx") == ["[UNK]", "[UNK]"]  # "b" stands inside words alone; "##x" is missing
    assert pieces("a" + "b" * 99) == ["ab", *["##b"] * 98]
    assert pieces("a" + "b" * 100) == ["[UNK]"]  # 101 characters
    assert pieces("") == []


any_text = st.lists(
    st.text(st.characters(exclude_categories=()), max_size=3)
    | st.sampled_from(["the ", "play", "注意", " ", "\n", "é", "e\u0301", "\x1c", "\u2028", "[MASK]", "##"]),
    max_size=25,
).map("".join)


@given(text=any_text)
@quick
def test_pieces_spell_the_words(text):
    for mode in FIXTURE["modes"]:
        tokenizer, _ = of(mode)
        ids, spans = tokenizer.encode_with_spans(text)
        np.testing.assert_array_equal(tokenizer.encode(text), ids)
        assert ids.dtype == spans.dtype == np.int32
        words = tokenizer.words(text)
        spelt = tokenizer.decode(ids).split(" ") if len(ids) else []
        assert len(spelt) == len(words)
        assert all(s in ("[UNK]", word) for s, word in zip(spelt, words, strict=True))
        assert all(0 <= start < end <= len(text) for start, end in spans)


@given(text=any_text, cuts=st.lists(st.integers(0, 70), max_size=6))
@example(text="playing the play", cuts=[3, 9, 14])
@example(text="a\x1cb\u0085c d", cuts=[2, 4])  # dropped signs, at which no word ends
@quick
def test_encoding_in_chunks_equals_encoding_whole(text, cuts):
    tokenizer, _ = of("lower")
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(borders)]
    streamed = [i for ids in tokenizer.encode_chunks(chunks) for i in ids.tolist()]
    assert streamed == tokenizer.encode(text).tolist()


def test_chinese_without_a_space_is_not_held_back():
    tokenizer, _ = of("lower")
    parts = list(tokenizer.encode_chunks(["语言模型"] * 5))
    assert len(parts) == 5
    assert len(parts[0]) == 4


def test_special_tokens_of_a_text_count_only_when_asked():
    tokenizer = small("a", "[", "mask", "]")
    assert tokenizer.encode("a[MASK]a").tolist() == [5, 6, 7, 8, 5]
    assert tokenizer.encode("a[MASK]a", allow_special=True).tolist() == [5, 4, 5]
    assert tokenizer.encode("[mask]", allow_special=True).tolist() == [6, 7, 8]


def test_pairs_are_cut_at_the_end_of_the_longer_text():
    tokenizer = small("a", "b", "c", "d", "e", "x", "y", "z")
    abcde, xyz = "a b c d e", "x y z"

    def pair(*arguments, **options):
        ids, types = tokenizer.encode_pair(*arguments, **options)
        assert ids.dtype == types.dtype == np.int32
        return " ".join(tokenizer.vocabulary[i][:4] for i in ids), "".join(map(str, types))

    assert pair(abcde) == ("[CLS a b c d e [SEP", "0000000")
    assert pair(abcde, max_length=4) == ("[CLS a b [SEP", "0000")
    assert pair(abcde, xyz) == ("[CLS a b c d e [SEP x y z [SEP", "00000001111")
    assert pair(abcde, xyz, max_length=9) == ("[CLS a b c [SEP x y z [SEP", "000001111")
    assert pair(abcde, xyz, max_length=8) == ("[CLS a b c [SEP x y [SEP", "00000111")
    assert pair(abcde, xyz, max_length=6) == ("[CLS a b [SEP x [SEP", "000011")
    assert pair("", "", max_length=3) == ("[CLS [SEP [SEP", "001")
    assert pair("[MASK]", "a", allow_special=True) == ("[CLS [MAS [SEP a [SEP", "00011")
    with pytest.raises(ValueError, match=r"max_length=2 has no room for \[CLS\] and 2 \[SEP\]"):
        tokenizer.encode_pair("a", "b", max_length=2)


def test_decoding_joins_pieces_and_brings_back_no_more():
    tokenizer = small("atten", "##tion", "!", "[", "]")
    assert tokenizer.decode([2, 5, 6, 7, 3]) == "[CLS] attention ! [SEP]"
    assert tokenizer.decode([6, 5]) == "##tion atten"
    assert tokenizer.decode(tokenizer.encode("Attention!")) == "attention !"
    assert tokenizer.decode([]) == ""
    with pytest.raises(ValueError, match="token id 10 at position 1"):
        tokenizer.decode([5, 10])


def test_what_is_printed_and_counted_of_each_piece():
    tokenizer = small("at\u00a0", "##tion")
    assert tokenizer.tokens == [*SPECIAL, "at\\xa0", "##tion"]
    assert tokenizer.character_counts.tolist() == [0, 1, 0, 0, 0, 3, 4]
    assert tokenizer.character_counts.dtype == np.int64


def test_the_cache_may_overflow(monkeypatch):
    monkeypatch.setattr(wordpiece, "CACHED_WORDS", 3)
    tokenizer, expected = of("lower")
    for _ in range(2):
        assert [tokenizer.encode(text).tolist() for text in TEXTS] == expected["ids"]
    assert len(tokenizer._cache) <= 3


@pytest.mark.parametrize("method", ["encode", "encode_with_spans"])
def test_only_strings_are_encoded(method):
    with pytest.raises(TypeError, match="takes a str, got bytes"):
        getattr(small(), method)(b"a")


# --- training ---


def textbook(words, vocab_size, min_count=2):
    """Train by the definition: count everything anew at each step, score with fractions."""
    spelt = {w: [w[0], *("##" + c for c in w[1:])] for w in words if len(w) <= 100}
    characters = Counter()
    for w, pieces in spelt.items():
        for piece in pieces:
            characters[piece] += words[w]
    kept = sorted(characters, key=lambda piece: (-characters[piece], piece))[: vocab_size - 5]
    vocabulary = sorted(kept)
    spelt = {w: pieces for w, pieces in spelt.items() if set(pieces) <= set(kept)}
    threshold = None
    while len(vocabulary) < vocab_size - 5:
        single, together = Counter(), Counter()
        for w, pieces in spelt.items():
            for piece in pieces:
                single[piece] += words[w]
            for pair in pairwise(pieces):
                together[pair] += words[w]
        if threshold is None:
            threshold = max(Fraction(max(together.values(), default=0), 2), min_count)
        often = [pair for pair in together if together[pair] >= threshold]
        if not often and threshold <= min_count:
            break
        if not often:
            threshold = max(threshold / 2, Fraction(min_count))
            continue
        a, b = min(often, key=lambda p: (-Fraction(together[p], single[p[0]] * single[p[1]]), p))
        joined = a + b[2:]
        assert joined not in vocabulary
        vocabulary.append(joined)
        for pieces in spelt.values():
            i = 0
            while i < len(pieces) - 1:
                if pieces[i : i + 2] == [a, b]:
                    pieces[i : i + 2] = [joined]
                i += 1
    return [*SPECIAL, *vocabulary]


few_words = st.lists(st.text("abc一", min_size=1, max_size=6), min_size=2, max_size=6).flatmap(
    lambda words: st.lists(st.sampled_from(words), min_size=12, max_size=40).map(" ".join)
)


@given(text=few_words, pieces=st.integers(1, 25), min_count=st.sampled_from([1, 2, 2, 5]))
@example(text="aaaa aaa aaaaa aa a aaaa", pieces=25, min_count=1)
@example(text="abc ab bc abcabc abcbc " * 3, pieces=20, min_count=1)
@settings(deadline=None, max_examples=100)
def test_training_is_that_of_the_textbook(text, pieces, min_count):
    trained = WordPieceTokenizer.train(text, 5 + pieces, min_count=min_count)
    assert trained.vocabulary == textbook(Counter(trained.words(text)), 5 + pieces, min_count)


def test_training_on_real_text_is_that_of_the_textbook():
    text = "\n".join(TEXTS[:8]) * 2
    trained = WordPieceTokenizer.train(text, 290)
    assert trained.vocab_size == 290
    assert trained.vocabulary == textbook(Counter(trained.words(text)), 290)
    assert any(len(piece.removeprefix("##")) > 3 for piece in trained.vocabulary[5:])
    assert trained.encode(text).tolist().count(1) == 0


def test_the_score_and_not_the_count_decides():
    """At the same threshold "qu", never apart, beats "th", which is more frequent and often apart."""
    text = "qu " * 7 + "th " * 10 + "ta " * 9 + "ha " * 5 + "xh " * 4
    trained = WordPieceTokenizer.train(text, 5 + 7 + 1)
    assert trained.vocabulary[5:] == ["##a", "##h", "##u", "h", "q", "t", "x", "qu"]


def test_many_pieces_share_the_text_they_were_trained_on():
    text = "".join(TEXTS[:5]) * 3
    sizes = [len(WordPieceTokenizer.train(text, size).encode(text)) for size in (100, 150, 250)]
    assert sizes[0] > 1.2 * sizes[1] > 1.4 * sizes[2]


def test_training_goes_on_until_no_pair_occurs_often_enough():
    trained = WordPieceTokenizer.train("low low lower", 999, min_count=2)
    assert trained.vocabulary[5:] == ["##e", "##o", "##r", "##w", "l", "##ow", "low"]
    assert WordPieceTokenizer.train("low low lower", 999, min_count=4).vocab_size == 10
    assert WordPieceTokenizer.train("", 999).vocabulary == SPECIAL


def test_of_too_many_characters_the_most_frequent_stay():
    text = "aaa ab ab 语 语 语 言 z"
    trained = WordPieceTokenizer.train(text, 5 + 4)
    assert trained.vocabulary == [*SPECIAL, "##a", "##b", "a", "语"]
    assert trained.encode("z 语").tolist() == [1, 8]


def test_training_takes_chunks_and_modes_and_shows_progress(capsys):
    chunks = ["Pla", "ying the pl", "AYER, ré", "sumé plays"] * 3
    trained = WordPieceTokenizer.train(chunks, 40, progress=True)
    bar = capsys.readouterr().err
    assert "reading" in bar
    assert "joining" in bar
    assert trained == WordPieceTokenizer.train("".join(chunks), 40)
    assert "P" not in "".join(trained.vocabulary[5:])
    cased = WordPieceTokenizer.train(chunks, 40, lowercase=False)
    assert {"P", "##é"} <= set(cased.vocabulary)
    assert (cased.lowercase, cased.strip_accents) == (False, False)
    assert capsys.readouterr().err == ""


def test_training_refuses_what_cannot_be():
    with pytest.raises(TokenizerError, match="vocab_size 5 is too small"):
        WordPieceTokenizer.train("abc", 5)
    with pytest.raises(TokenizerError, match="min_count must be at least 1"):
        WordPieceTokenizer.train("abc", 50, min_count=0)
    with pytest.raises(TypeError, match="got bytes"):
        WordPieceTokenizer.train([b"abc"], 50)


# --- files ---


@pytest.mark.parametrize("options", [{}, {"lowercase": False}, {"strip_accents": False}], ids=str)
def test_save_and_load(tmp_path, options):
    tokenizer = small("é", "注", "##tion", **options)
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = load_tokenizer(tmp_path / "tokenizer.json")
    assert loaded == tokenizer
    assert isinstance(loaded, WordPieceTokenizer)
    assert loaded.words("RÉSUMÉ") == tokenizer.words("RÉSUMÉ")


def test_vocabulary_files(tmp_path):
    path = tmp_path / "vocab.txt"
    tokenizer, _ = of("cased")
    tokenizer.save_vocabulary(path)
    assert path.read_bytes().decode().split("\n")[:2] == ["[PAD]", "[UNK]"]
    assert WordPieceTokenizer.from_vocab_file(path, lowercase=False) == tokenizer
    assert WordPieceTokenizer.from_vocab_file(path) == of("lower")[0]
    windows = tmp_path / "windows.txt"
    windows.write_bytes(path.read_bytes().removesuffix(b"\n").replace(b"\n", b"\r\n"))
    assert WordPieceTokenizer.from_vocab_file(windows, lowercase=False) == tokenizer
    odd = small("a\u2028b", "\u0085", "c d")  # a line ends at \n alone
    odd.save_vocabulary(path)
    assert WordPieceTokenizer.from_vocab_file(path) == odd


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the vocabulary"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n", r"needs the special tokens \[MASK\]"),
        (b"", "needs the special tokens"),
        ("\n".join([*SPECIAL, "a", "", "b"]).encode(), "must be a string on one line, not empty"),
        ("\n".join([*SPECIAL, "a", "b", "a"]).encode(), "holds 'a' twice"),
    ],
)
def test_vocabulary_files_that_are_none_are_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TokenizerError, match=message) as error:
        WordPieceTokenizer.from_vocab_file(path)
    assert "vocab.txt" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lowercase": 1}, "'lowercase' of a tokenizer must be true or false"),
        ({"strip_accents": None}, "'strip_accents' of a tokenizer must be true or false"),
        ({"vocabulary": "abc"}, "'vocabulary' of a tokenizer must be a list"),
        ({"vocabulary": [*SPECIAL, 7]}, "must be a string"),
        ({"vocabulary": [*SPECIAL, "a\nb"]}, "must be a string on one line"),
        ({"vocabulary": [*SPECIAL, "\ud800"]}, "must be a string on one line"),
        ({"merges": []}, "missing or unknown fields"),
    ],
)
def test_fields_that_are_none_of_a_tokenizer_are_refused(changes, message):
    with pytest.raises(TokenizerError, match=message):
        tokenizer_from_dict({**small("a").to_dict(), **changes})


def test_ids_of_the_special_tokens():
    tokenizer = WordPieceTokenizer(["a", "[MASK]", "[SEP]", "[CLS]", "[UNK]", "##b", "[PAD]"])
    assert (tokenizer.pad_id, tokenizer.unknown_id, tokenizer.cls_id) == (6, 4, 3)
    assert (tokenizer.sep_id, tokenizer.mask_id, tokenizer.vocab_size) == (2, 1, 7)
    assert tokenizer.special_ids == [6, 4, 3, 2, 1]
    assert tokenizer.encode("ab q").tolist() == [0, 5, 4]
    assert tokenizer.character_counts.tolist() == [1, 0, 0, 0, 1, 1, 0]
