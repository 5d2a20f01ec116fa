"""Tokenizers: exact round trips, BPE against a slow textbook version, files that cannot do harm."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytransformer.text import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    TokenizerError,
    load_tokenizer,
    tokenizer_from_dict,
    tokenizers,
)

SAMPLE = "the theory of the thing: 注意力机制，注意力。 naïve café 12345 \n\n    return x_1 😀😀\n" * 3
TOKENIZERS = [
    CharacterTokenizer.train("the theory\n 注意"),
    CharacterTokenizer([]),
    ByteTokenizer(),
    BPETokenizer.train(SAMPLE, 317),
    BPETokenizer.train(SAMPLE, 290, special_tokens=["<|endoftext|>", "<|end|>"]),
]
every_tokenizer = pytest.mark.parametrize(
    "tokenizer", TOKENIZERS, ids=["character", "escapes only", "byte", "bpe", "bpe with special"]
)
any_sign = st.characters(exclude_categories=())  # lone surrogates included

AWKWARD = "\ud83d\ude00 \udfff\ud800\x00\r\n\u2028😀注意力\ufffd\ufeff\U0010ffff<|end|>"
any_text = st.lists(st.text(any_sign, max_size=3) | st.sampled_from(AWKWARD), max_size=20).map("".join)
# few signs: many runs, repeats and ties; few words, often: many merges
few_signs = st.text(st.sampled_from("ab  一二1_\n\t"), min_size=20, max_size=90)
few_words = st.lists(
    st.text(st.sampled_from("abc一"), min_size=1, max_size=7), min_size=3, max_size=5
).flatmap(lambda words: st.lists(st.sampled_from(words), min_size=20, max_size=40).map(" ".join))
quick = settings(deadline=None, max_examples=60)


def one_line(error):
    return "\n" not in str(error.value) and len(str(error.value)) > 20


# --- every tokenizer ---


@every_tokenizer
@given(text=any_text | few_signs)
@example(text=AWKWARD)
@example(text="")
@quick
def test_any_text_round_trips(tokenizer, text):
    ids = tokenizer.encode(text)
    assert ids.dtype == np.int32
    assert ids.ndim == 1
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids.tolist()) == text


@every_tokenizer
@given(text=few_signs | any_text, cuts=st.lists(st.integers(0, 80), max_size=8), repeats=st.integers(1, 90))
@example(text="a ", cuts=[1], repeats=1)  # "a" would be whole at the first cut
@example(text=" ", cuts=[63, 64, 65], repeats=70)
@example(text="一", cuts=[64], repeats=70)
@example(text=AWKWARD, cuts=[1, 3], repeats=2)
@quick
def test_encoding_in_chunks_equals_encoding_whole(tokenizer, text, cuts, repeats):
    text = (text * repeats)[:600]  # runs longer than the longest pre-token
    borders = [0, *sorted(cuts), len(text)]
    chunks = [text[start:end] for start, end in pairwise(borders)]
    streamed = list(tokenizer.encode_chunks(chunks))
    assert all(part.dtype == np.int32 for part in streamed)
    assert np.concatenate([*streamed, tokenizer.encode("")]).tolist() == tokenizer.encode(text).tolist()


@every_tokenizer
def test_a_string_is_a_stream_too(tokenizer, monkeypatch):
    monkeypatch.setattr("tinytransformer.text.corpora.CHUNK_CHARACTERS", 7)
    assert np.concatenate(list(tokenizer.encode_chunks(SAMPLE))).tolist() == tokenizer.encode(SAMPLE).tolist()


@every_tokenizer
@given(data=st.data())
@quick
def test_any_ids_decode(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1)))
    assert isinstance(tokenizer.decode(ids), str)


@every_tokenizer
def test_decode_takes_any_integers_and_names_the_first_bad_id(tokenizer):
    size = tokenizer.vocab_size
    ids = tokenizer.encode(SAMPLE)
    for same in (ids.astype(np.uint16), ids.astype(np.int64), tuple(ids.tolist()), ids.astype(">i4")):
        assert tokenizer.decode(same) == SAMPLE
    assert tokenizer.decode([]) == tokenizer.decode(np.array([])) == ""
    assert tokenizer.decode(range(3)) == tokenizer.decode([0, 1, 2])
    with pytest.raises(ValueError, match=rf"token id {size} at position 2 .*0 to {size - 1}"):
        tokenizer.decode([0, size - 1, size, -3])
    with pytest.raises(ValueError, match="token id -3 at position 1"):
        tokenizer.decode(np.array([0, -3, size]))
    with pytest.raises(ValueError, match="integer ids, got dtype float64"):
        tokenizer.decode([1.0, 2.0])
    with pytest.raises(ValueError, match="integer ids"):
        tokenizer.decode([1 << 70])
    with pytest.raises(ValueError, match=r"shape \(1, 2\); decode each row"):
        tokenizer.decode([[1, 2]])


@every_tokenizer
def test_tokens_are_printable_one_per_id(tokenizer):
    assert len(tokenizer.tokens) == tokenizer.vocab_size
    assert all(token and token.isprintable() and " " not in token for token in tokenizer.tokens)


@every_tokenizer
def test_only_strings_are_encoded(tokenizer):
    with pytest.raises(TypeError, match="str, got bytes"):
        tokenizer.encode(b"abc")
    with pytest.raises(TypeError, match="str, got int"):
        list(tokenizer.encode_chunks(b"abc"))


@every_tokenizer
def test_save_and_load(tokenizer, tmp_path):
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    loaded = load_tokenizer(path)
    assert loaded == tokenizer
    assert type(loaded) is type(tokenizer)
    assert loaded.tokens == tokenizer.tokens
    assert loaded.encode(SAMPLE + AWKWARD).tolist() == tokenizer.encode(SAMPLE + AWKWARD).tolist()
    assert tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict()))) == tokenizer
    assert json.loads(path.read_bytes()) == tokenizer.to_dict()
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]
    assert f"vocab_size={tokenizer.vocab_size}" in repr(tokenizer)


def test_tokenizers_are_equal_when_their_fields_are():
    for place, left in enumerate(TOKENIZERS):
        for other, right in enumerate(TOKENIZERS):
            assert (left == right) == (place == other)
    assert CharacterTokenizer("ab") != CharacterTokenizer("ac")
    assert BPETokenizer([(1, 2)]) != BPETokenizer([(2, 1)])
    assert ByteTokenizer() != {"type": "byte"}
    with pytest.raises(TypeError):
        hash(ByteTokenizer())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    ByteTokenizer().save(path)

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        TOKENIZERS[0].save(path)
    assert load_tokenizer(path) == ByteTokenizer()
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokenizer.json"]


def test_import_needs_numpy_alone():
    script = "import sys, tinytransformer.text; print({'tqdm', 'matplotlib', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# --- characters ---


def test_character_ids_and_escape():
    tokenizer = CharacterTokenizer.train(["bac", "", "ab"])
    assert tokenizer.characters == ["a", "b", "c"]
    assert tokenizer.vocab_size == 3 + 17
    # escape 3, digits 0…f are 4…19; 😀 is U+01F600
    assert tokenizer.encode("b😀c").tolist() == [1, 3, 4, 5, 19, 10, 4, 4, 2]
    assert tokenizer.tokens == ["a", "b", "c", "<escape>", *(f"<{digit}>" for digit in "0123456789abcdef")]
    assert CharacterTokenizer.train("\n \\").tokens[:3] == [r"\n", "␣", "\\"]


def decode_characters_slowly(tokenizer, ids):
    """Token by token: an escape takes the digits that follow, six at most."""
    text, place, size = "", 0, len(tokenizer.characters)
    while place < len(ids):
        token = ids[place]
        place += 1
        if token < size:
            text += tokenizer.characters[token]
        elif token > size:
            text += "\ufffd"
        else:
            digits = ""
            while len(digits) < 6 and place < len(ids) and ids[place] > size:
                digits += f"{ids[place] - size - 1:x}"
                place += 1
            whole = len(digits) == 6 and int(digits, 16) <= 0x10FFFF
            text += chr(int(digits, 16)) if whole else "\ufffd"
    return text


@given(
    ids=st.lists(
        st.one_of(
            st.lists(st.integers(0, 19), max_size=3),
            st.tuples(st.just(3), st.just(4), st.integers(4, 5), *[st.integers(4, 19)] * 4),  # well formed
            st.lists(st.integers(4, 19), min_size=4, max_size=8).map(lambda digits: [3, *digits]),
        )
    ).map(lambda parts: [token for part in parts for token in part])
)
@example(ids=[3])
@example(ids=[3, 3, 4, 4, 4, 4, 4, 5, 5])
@example(ids=[3, 5, 5, 4, 4, 4, 4])  # U+110000: no such code point
@settings(deadline=None, max_examples=200)
def test_malformed_escapes_decode_as_the_slow_decoder_does(ids):
    tokenizer = CharacterTokenizer.train("abc")
    assert tokenizer.decode(ids) == decode_characters_slowly(tokenizer, ids)


@given(text=any_text)
@quick
def test_characters_of_the_training_text_take_one_id_each(text):
    tokenizer = CharacterTokenizer.train(text)
    assert len(tokenizer.encode(text)) == len(text)
    assert len(tokenizer.encode("x" + text + "x")) - len(text) in (2, 14)


@pytest.mark.parametrize("characters", [["b", "a"], ["a", "a"], ["ab"], [""], [1], "ba", [None]])
def test_wrong_characters_are_refused(characters):
    with pytest.raises(TokenizerError, match="must be"):
        CharacterTokenizer(characters)


# --- bytes ---


@given(
    pieces=st.lists(st.binary(max_size=6) | any_text.map(lambda text: text.encode("utf-8", "surrogatepass")))
)
@settings(deadline=None, max_examples=200)
def test_invalid_bytes_become_replacements(pieces):
    encoded = b"".join(pieces)
    # lone surrogates apart, decoding is Python's own with U+FFFD for what is invalid
    parts = re.split(b"(\xed[\xa0-\xbf][\x80-\xbf])", encoded)
    expected = "".join(
        part.decode("utf-8", "surrogatepass" if place % 2 else "replace") for place, part in enumerate(parts)
    )
    assert ByteTokenizer().decode(list(encoded)) == expected
    assert TOKENIZERS[3].decode(list(encoded)) == expected


def test_byte_ids():
    assert ByteTokenizer().encode("é注").tolist() == [0xC3, 0xA9, 0xE6, 0xB3, 0xA8]
    tokens = ByteTokenizer().tokens
    assert (tokens[ord("a")], tokens[ord(" ")], tokens[0xE6], tokens[0]) == ("a", "␣", r"\xe6", r"\x00")


# --- BPE, against a textbook version: slow, counted afresh for each merge, pre-tokens without regex ---


def is_han(sign):
    ranges = [(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)]
    return any(first <= ord(sign) <= last for first, last in ranges)


def is_letter(sign):
    return sign.isalnum() and not sign.isdecimal() and not is_han(sign)


def is_sign(sign):
    return not sign.isspace() and not sign.isalnum()


def pre_tokens_slowly(text):
    pieces, start = [], 0
    while start < len(text):
        first = start
        if text[start] == " " and start + 1 < len(text) and not text[start + 1].isspace():
            first += 1
        kinds = ((is_letter, 64), (is_han, 64), (str.isdecimal, 3), (is_sign, 64), (str.isspace, 64))
        belongs, longest = next(kind for kind in kinds if kind[0](text[first]))
        end = first
        while end < len(text) and end - first < longest and belongs(text[end]):
            end += 1
        if belongs is str.isspace and end - first > 1 and end < len(text) and not text[end].isspace():
            end -= 1  # the last space goes with the next word
        pieces.append(text[start:end])
        start = end
    return pieces


def replaced(word, pair, new):
    out, place = [], 0
    while place < len(word):
        if tuple(word[place : place + 2]) == pair:
            out.append(new)
            place += 2
        else:
            out.append(word[place])
            place += 1
    return out


def train_slowly(text, vocab_size):
    words = [list(piece.encode("utf-8", "surrogatepass")) for piece in pre_tokens_slowly(text)]
    merges = []
    while 256 + len(merges) < vocab_size:
        counts = Counter(pair for word in words for pair in pairwise(word))
        most = max(counts.values(), default=0)
        if most < 2:
            break
        best = min(pair for pair in counts if counts[pair] == most)
        words = [replaced(word, best, 256 + len(merges)) for word in words]
        merges.append(best)
    return merges


def encode_slowly(text, merges):
    ids = []
    for piece in pre_tokens_slowly(text):
        word = list(piece.encode("utf-8", "surrogatepass"))
        for place, pair in enumerate(merges):
            word = replaced(word, pair, 256 + place)
        ids += word
    return ids


@given(
    text=few_words | few_signs | any_text, other=few_words | few_signs | any_text, merges=st.integers(0, 40)
)
@example(text="a" * 67 + " " * 130 + "1234567" + "一" * 66 + "_" * 65, other="aaaaaaa  一一", merges=40)
@example(text="aaa aaa aaaa b", other="aaaaa", merges=5)
@example(text="abab abab cdcd cdcd", other="ababab", merges=2)
@settings(deadline=None, max_examples=300)
def test_bpe_trains_and_encodes_as_the_textbook_does(text, other, merges):
    tokenizer = BPETokenizer.train(text, 256 + merges)
    assert tokenizer.merges == train_slowly(text, 256 + merges)
    assert tokenizer.vocab_size == 256 + len(tokenizer.merges)
    for any_of in (text, other, text + other):
        assert tokenizer.encode(any_of).tolist() == encode_slowly(any_of, tokenizer.merges)


def test_bpe_on_real_text_is_the_textbook():
    text = SAMPLE + tokenizers.__doc__ + BPETokenizer.__doc__ + BPETokenizer.train.__doc__
    tokenizer = BPETokenizer.train(text, 256 + 150)
    assert tokenizer.merges == train_slowly(text, 256 + 150)
    assert len(tokenizer.merges) == 150
    assert tokenizer.encode(text).tolist() == encode_slowly(text, tokenizer.merges)
    assert len(tokenizer.encode(text)) < 0.6 * len(text.encode())


def test_ties_go_to_the_smallest_pair_whatever_the_order_of_the_text():
    words = [" xy", " ab", " zz", " mn", " abq"]
    forward = BPETokenizer.train("".join(words * 2), 262)
    backward = BPETokenizer.train("".join(reversed(words * 2)), 262)
    assert forward.merges == backward.merges
    # " a" and "ab" occur four times, all other pairs twice; the space comes before the letters
    assert forward.merges[:2] == [(32, 97), (256, 98)]
    assert forward.merges[2:5] == [(32, 109), (32, 120), (32, 122)]


def test_runs_of_one_letter():
    # "aaa" holds "aa" twice, and merges from the left
    tokenizer = BPETokenizer.train("aaa", 259)
    assert tokenizer.merges == [(97, 97)]
    assert tokenizer.encode("aaa").tolist() == [256, 97]
    assert tokenizer.encode("aaaaa").tolist() == [256, 256, 97]
    tokenizer = BPETokenizer.train("aaaaaaaa", 260)  # 7 × aa, then 3 × (256, 256), then one pair left
    assert tokenizer.merges == [(97, 97), (256, 256)]
    assert tokenizer.encode("a" * 7).tolist() == [257, 256, 97]


def test_merging_follows_training_order_and_not_the_longest_match():
    tokenizer = BPETokenizer([(ord("b"), ord("c")), (ord("a"), ord("b")), (257, ord("c"))])
    assert tokenizer.encode("abc").tolist() == [ord("a"), 256]


def test_the_cache_may_overflow(monkeypatch):
    text = SAMPLE * 2
    expected = BPETokenizer.train(text, 300).encode(text).tolist()
    monkeypatch.setattr(tokenizers, "_CACHED_PRE_TOKENS", 2)
    tokenizer = BPETokenizer.train(text, 300)
    assert tokenizer.encode(text).tolist() == expected
    assert len(tokenizer._cache) <= 2


def test_training_takes_chunks_and_shows_progress(capsys):
    chunks = [SAMPLE[start : start + 5] for start in range(0, len(SAMPLE), 5)]
    quiet = BPETokenizer.train(chunks, 290)
    assert capsys.readouterr() == ("", "")
    assert BPETokenizer.train(SAMPLE, 290, progress=True) == quiet
    shown = capsys.readouterr().err
    assert "reading" in shown
    assert "merging" in shown


def test_training_refuses_what_cannot_be():
    with pytest.raises(TokenizerError, match=r"vocab_size 255 is too small.*at least 256"):
        BPETokenizer.train("abc", 255)
    with pytest.raises(TokenizerError, match="2 special tokens need at least 258"):
        BPETokenizer.train("abc", 257, special_tokens=["<a>", "<b>"])
    assert BPETokenizer.train("aaaa", 258, special_tokens=["<a>", "<b>"]).merges == []
    with pytest.raises(TypeError, match="got int"):
        BPETokenizer.train(b"abc", 300)
    with pytest.raises(TypeError, match="got bytes"):
        CharacterTokenizer.train([b"abc"])


# --- special tokens ---


def test_special_tokens_come_last_and_only_when_asked():
    plain = BPETokenizer.train(SAMPLE, 290)
    special = BPETokenizer(plain.merges, ["<|end|>", "<|endoftext|>"])
    assert special.vocab_size == 292
    text = "the<|endoftext|> the<|end|>"
    assert special.encode(text).tolist() == plain.encode(text).tolist()
    the, then = plain.encode("the").tolist(), plain.encode(" the").tolist()
    assert special.encode(text, allow_special=True).tolist() == [*the, 291, *then, 290]
    assert plain.encode(text, allow_special=True).tolist() == plain.encode(text).tolist()
    assert special.tokens[290:] == ["<|end|>", "<|endoftext|>"]
    assert special.decode([0xE6, 290]) == "\ufffd<|end|>"  # half a character before it


def test_the_longest_special_token_wins_and_its_signs_mean_nothing():
    tokenizer = BPETokenizer([], ["a.", "a.b", "(x)+"])
    assert tokenizer.encode("a.b", allow_special=True).tolist() == [257]
    assert tokenizer.encode("a.a", allow_special=True).tolist() == [256, ord("a")]
    assert tokenizer.encode("axb(x)+", allow_special=True).tolist() == [*b"axb", 258]


@given(parts=st.lists(st.sampled_from(["<|end|>", "<|end", "|>", "oftext", "the ", "力", "\ud800"])))
@quick
def test_text_with_special_tokens_round_trips(parts):
    tokenizer, text = TOKENIZERS[4], "".join(parts)
    ids = tokenizer.encode(text, allow_special=True)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == text
    last = tokenizer.vocab_size - 1  # "<|end|>"
    assert ids.tolist().count(last) == text.count("<|end|>")


@pytest.mark.parametrize("special_tokens", [[""], ["<a>", "<a>"], [5], ["\ud800"], "<a>"])
def test_wrong_special_tokens_are_refused(special_tokens):
    with pytest.raises(TokenizerError, match="special"):
        BPETokenizer([], special_tokens)
    with pytest.raises(TokenizerError, match="special"):
        BPETokenizer.train("abc", 300, special_tokens=special_tokens)


# --- files ---


def write(folder, content):
    path = folder / "tokenizer.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


BPE = {"type": "bpe", "merges": [[1, 2]], "special_tokens": []}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 200_000, "not valid JSON"),
        (b'{"type": "bpe", "merges": [[' + b"9" * 5000 + b", 1]]}", "not valid JSON"),
        (b"null", '"type"'),
        ([], '"type"'),
        ({}, '"type"'),
        ({"type": "word"}, "'character', 'byte', 'bpe'"),
        ({"type": ["byte"]}, '"type"'),
        ({"type": "byte", "size": 3}, "missing or unknown fields .*'byte': 'size'"),
        ({"type": "character"}, "'characters'"),
        ({"type": "character", "characters": "abc"}, "must be a list"),
        ({"type": "character", "characters": ["b", "a"]}, "order"),
        ({"type": "character", "characters": [["a"]]}, "length 1"),
        (BPE | {"merges": None}, "'merges' .* must be a list"),
        (BPE | {"merges": [[1, 2], [3]]}, "merge 1 .* pair"),
        (BPE | {"merges": ["ab"]}, "merge 0 .* pair"),
        (BPE | {"merges": [[1, 256]]}, "merge 0 .* from 0 to 255"),
        (BPE | {"merges": [[1, 2], [256, 257]]}, "merge 1 .* from 0 to 256"),
        (BPE | {"merges": [[-1, 2]]}, "from 0 to 255"),
        (BPE | {"merges": [[True, 2]]}, "from 0 to 255"),
        (BPE | {"merges": [[1.0, 2]]}, "from 0 to 255"),
        (BPE | {"merges": [[1, 2], [1, 2]]}, "merge 1 .* repeats"),
        # each merge doubles the bytes: a short file could ask for more than there is memory
        (BPE | {"merges": [[0, 0]] + [[256 + k, 256 + k] for k in range(17)]}, "longer than 257 bytes"),
        (BPE | {"special_tokens": [3]}, "special token"),
    ],
)
def test_malformed_files_are_refused_in_one_line(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(TokenizerError, match=message) as error:
        load_tokenizer(path)
    assert one_line(error)
    assert str(path) in str(error.value)


def test_unreadable_files_are_refused_in_one_line(tmp_path):
    for path in (tmp_path / "missing.json", tmp_path):
        with pytest.raises(TokenizerError, match="cannot read the tokenizer file") as error:
            load_tokenizer(path)
        assert one_line(error)


def test_the_fields_of_another_kind_are_refused():
    with pytest.raises(TokenizerError, match="'byte'"):
        ByteTokenizer.from_dict(BPE)
    with pytest.raises(TokenizerError, match="'bpe'"):
        BPETokenizer.from_dict(None)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats() | st.text(any_sign, max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
fields = st.fixed_dictionaries(
    {"type": st.sampled_from(["character", "byte", "bpe"])},
    optional={
        "characters": st.lists(any_sign).map(sorted) | values,
        "merges": st.lists(st.lists(st.integers(-1, 260), min_size=2, max_size=2)) | values,
        "special_tokens": st.lists(st.text(any_sign, max_size=3)) | values,
    },
)


@given(content=fields | values)
@settings(deadline=None, max_examples=300)
def test_any_json_gives_a_tokenizer_or_the_one_error(content):
    try:
        tokenizer = tokenizer_from_dict(content)
    except TokenizerError:
        return
    assert tokenizer_from_dict(tokenizer.to_dict()) == tokenizer
    assert tokenizer.decode(tokenizer.encode(AWKWARD)) == AWKWARD


@given(
    tokenizer=st.sampled_from(TOKENIZERS),
    edits=st.lists(
        st.tuples(st.integers(0), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=3
    ),
)
@settings(deadline=None, max_examples=200)
def test_damaged_files_give_a_tokenizer_or_the_one_error(tokenizer, edits, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    content = json.dumps(tokenizer.to_dict()).encode()
    for at, length, new in edits:
        at %= len(content) + 1
        content = content[:at] + new + content[at + length :]
    path.write_bytes(content)
    try:
        loaded = load_tokenizer(path)
    except TokenizerError:
        return
    assert loaded.decode(loaded.encode(SAMPLE)) == SAMPLE
