"""A ``spiece.model`` gives the ids of SentencePiece itself, and what is none is refused in one line."""

import contextlib
import io
import json
import random
import re
import struct
import sys
import unicodedata
from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_wordpiece_fixture import CHINESE, ENGLISH, TEXTS

from tinytransformer.pretrained import PretrainedError, load_pretrained_tokenizer, save_pretrained_tokenizer
from tinytransformer.pretrained.spiece import read_spiece
from tinytransformer.text import TokenizerError, UnigramTokenizer, load_tokenizer, tokenizer_from_dict

LINES = [line for text in topics.values() for line in text.splitlines() if line][:2000]
CORPUS = [
    *LINES,
    *3 * ENGLISH.splitlines(),
    *3 * CHINESE.splitlines(),
    "low lower lowest (play)",
    "1,000 or 3,",
]
T5 = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
ALBERT = {
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": -1,
    "eos_id": -1,
    "control_symbols": ["[CLS]", "[SEP]", "[MASK]"],
}
ALBERT |= {"user_defined_symbols": list('()"-.–£€')}


def trained(corpus=CORPUS, **settings):
    """Train a model; return its file, and SentencePiece with it."""
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    library = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    file = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=file,
        minloglevel=2,
        num_threads=1,
        **{"vocab_size": 900, "hard_vocab_limit": False, **settings},
    )
    return file.getvalue(), library.SentencePieceProcessor(model_proto=file.getvalue())


SIGNS = [
    "▁",
    "👍",
    "½",
    "\r\n",
    "ß",
    "[CLS]",
    "<unk>",
    "\x00",
    "가",
    "ｶ",
    "が",
    "☃",
    "...",
    "\u3000",
    "\n",
    "\t",
]
PARTS = [" ", "  ", "a", "low", "lo", "wer", "ﬁ", "Å", "１", "注", "意力", "(", ")", "1,", *SIGNS]


def texts():
    """English and Chinese, the awkward ones of other tokenizers, and spaces and signs in any order."""
    draw = random.Random(7)
    natural = [line for line in LINES if not re.search(r"(\W)\1\1", line)]  # "-----" is cut in many ways
    return TEXTS + natural + ["".join(draw.choices(PARTS, k=draw.randrange(1, 11))) for _ in range(500)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"normalization_rule_name": "nmt_nfkc_cf"},
        {"normalization_rule_name": "identity"},
        {"add_dummy_prefix": False},
        {"split_by_whitespace": False},
        {"user_defined_symbols": ["owe", "注意力机", "ransform"]},
        T5,
        ALBERT,
    ],
    ids=lambda settings: " ".join(map(str, settings)) or "defaults",
)
def test_ids_are_those_of_sentencepiece(settings):
    data, reference = trained(**settings)
    tokenizer = UnigramTokenizer(read_spiece(data))
    assert tokenizer.vocab_size == reference.get_piece_size()
    assert tokenizer.tokens == [
        reference.id_to_piece(i).replace("▁", " ") for i in range(tokenizer.vocab_size)
    ]
    given = texts()
    cut_otherwise = 0
    for text in given:
        ids = reference.encode(text)
        found = tokenizer.encode(text).tolist()
        if found != ids:  # as likely, but for rounding
            scores = [sum(map(reference.get_score, row)) for row in (found, ids)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-3), text
            cut_otherwise += 1
        if reference.unk_id() not in ids and "▁" not in text:
            assert tokenizer.decode(ids) == reference.decode(ids), text
    assert cut_otherwise < len(given) / 500


def folder(path, data, kind, **settings):
    (path / "spiece.model").write_bytes(data)
    (path / "config.json").write_text(json.dumps({"model_type": kind}))
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def test_the_signs_of_t5_come_after_the_pieces_last_first(tmp_path):
    data, reference = trained(**T5)
    tokenizer = load_pretrained_tokenizer(folder(tmp_path, data, "t5", extra_ids=3))
    last = reference.get_piece_size() + 2
    assert tokenizer.vocab_size == last + 1
    assert [tokenizer.special_ids[f"<extra_id_{i}>"] for i in range(3)] == [last, last - 1, last - 2]
    found = tokenizer.encode("low <extra_id_0> lower<extra_id_2>", allow_special=True)
    assert found.tolist() == [*reference.encode("low"), last, *reference.encode("lower"), last - 2]
    assert max(tokenizer.encode("<extra_id_0>")) < reference.get_piece_size()
    (tmp_path / "tokenizer_config.json").unlink()
    assert load_pretrained_tokenizer(tmp_path).vocab_size == last - 2 + 100


def test_it_is_written_as_a_tokenizer_json_that_ends_a_text(tmp_path):
    data, reference = trained(**T5)
    tokenizer = load_pretrained_tokenizer(folder(tmp_path, data, "t5"))
    save_pretrained_tokenizer(tokenizer, tmp_path / "new")
    assert load_pretrained_tokenizer(tmp_path / "new") == tokenizer
    library = sys.modules["tokenizers"].Tokenizer.from_file(str(tmp_path / "new" / "tokenizer.json"))
    low, lower = reference.encode("low"), reference.encode("lower")
    assert library.encode("low").ids == [*low, 1]
    pair = library.encode("low", "lower")
    assert (pair.ids, set(pair.type_ids)) == ([*low, 1, *lower, 1], {0})


def albert_cleaned(text):
    """What ALBERT does to a text before SentencePiece sees it."""
    text = unicodedata.normalize("NFKD", text.replace("``", '"').replace("''", '"'))
    return "".join(c for c in text if not unicodedata.category(c).startswith("M")).lower()


def test_albert_cleans_a_text(tmp_path):
    data, reference = trained([albert_cleaned(text) for text in CORPUS], **ALBERT)
    tokenizer = load_pretrained_tokenizer(folder(tmp_path, data, "albert"))
    for text in [*(text for text in CORPUS if not re.search(r"\d,", text)), "Naïve ÉCLAIR ``quoted'' LLM"]:
        assert tokenizer.encode(text).tolist() == reference.encode(albert_cleaned(text)), text
    cased = load_pretrained_tokenizer(
        folder(tmp_path, data, "albert", do_lower_case=False, keep_accents=True)
    )
    assert cased.encode("LOW").tolist() == reference.encode("LOW") != reference.encode("low")
    assert cased.encode("ï").tolist() == reference.encode("ï") != reference.encode("i")
    library = tokenizer._library.encode("low", "lower")
    low, lower = reference.encode("low"), reference.encode("lower")
    assert library.ids == [2, *low, 3, *lower, 3]
    assert library.type_ids == [0] * (2 + len(low)) + [1] * (1 + len(lower))


def test_a_published_tokenizer_json_goes_first(tmp_path):
    data, _ = trained(**T5)
    save_pretrained_tokenizer(UnigramTokenizer(read_spiece(data)), folder(tmp_path, data, "t5"))
    assert "<extra_id_0>" not in load_pretrained_tokenizer(tmp_path).special_ids


# --- Marian: one of these for each language, and one vocabulary ---


@pytest.fixture
def marian(tmp_path):
    """A folder as Marian's, what SentencePiece makes of both languages, and the vocabulary."""
    files, models = zip(
        *(trained(lines) for lines in (ENGLISH.splitlines(), CHINESE.splitlines())), strict=True
    )
    for name, data in zip(("source.spm", "target.spm"), files, strict=True):
        (tmp_path / name).write_bytes(data)
    pieces = {model.id_to_piece(i) for model in models for i in range(3, model.get_piece_size())}
    pieces = sorted(pieces - {"the", "在"})  # some lack an id
    vocabulary = ["</s>", "<unk>", *pieces, ">>êê<<", "<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocabulary)}))
    return tmp_path, models, vocabulary


def test_each_language_is_cut_by_its_own_model(marian):
    path, models, vocabulary = marian
    tokenizer = load_pretrained_tokenizer(path)
    assert tokenizer.vocab_size == len(vocabulary)
    assert tokenizer.special_ids == {
        piece: vocabulary.index(piece) for piece in ("</s>", "<unk>", ">>êê<<", "<pad>")
    }
    ids = {piece: i for i, piece in enumerate(vocabulary)}
    for text in [*ENGLISH.splitlines(), *CHINESE.splitlines(), "", "☃☃ the 在线"]:
        for encode, model in zip((tokenizer.encode, tokenizer.encode_target), models, strict=True):
            expected = [ids.get(piece, 1) for piece in model.encode(text, out_type=str)]
            found = encode(text)
            assert found.dtype == np.int32
            assert found.tolist() == expected
            if 1 not in expected:
                assert tokenizer.decode(found) == model.decode(model.encode(text))


def test_what_stands_for_something_is_told_from_text(marian):
    path, _, vocabulary = marian
    tokenizer = load_pretrained_tokenizer(path)
    text = ">>êê<<the player</s>"
    allowed = tokenizer.encode(text, allow_special=True)
    assert allowed[0] == vocabulary.index(">>êê<<")
    assert allowed[1:].tolist() == tokenizer.encode("the player</s>").tolist()
    special = {vocabulary.index(piece) for piece in ("</s>", ">>êê<<", "<pad>")}
    assert not special & set(tokenizer.encode(text).tolist())
    assert not special & set(tokenizer.encode("<pad>").tolist())
    assert tokenizer.encode(">>xx<<a", allow_special=True).tolist() == tokenizer.encode(">>xx<<a").tolist()
    assert tokenizer.character_counts[tokenizer.encode("the player")].sum() == len(" the player")
    assert tokenizer.character_counts[list(special)].sum() == 0
    assert tokenizer.tokens[2:-2] == [piece.replace("▁", " ") for piece in vocabulary[2:-2]]


def test_the_tokenizer_of_marian_is_saved_as_ours_alone(marian, tmp_path):
    tokenizer = load_pretrained_tokenizer(marian[0])
    tokenizer.save(tmp_path / "ours.json")
    assert load_tokenizer(tmp_path / "ours.json") == tokenizer
    with pytest.raises(PretrainedError, match="no file of Hugging Face has a place for a MarianTokenizer"):
        save_pretrained_tokenizer(tokenizer, tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("target.spm", None, r"target\.spm: .*No such file"),
        ("source.spm", b"\x0b", r"source\.spm: its SentencePiece model is damaged$"),
        ("vocab.json", b'{"a": 0, "b": 2}', "are not 0 to 1$"),
        ("vocab.json", b'{"a": 0, "<unk>": 1, "<pad>": 2}', r"each piece once, and </s>, <unk>, <pad>$"),
        ("vocab.json", b"[]", "it is not a JSON object"),
    ],
)
def test_a_folder_of_marian_that_is_damaged_is_refused_in_one_line(name, content, message, marian):
    path = marian[0]
    (path / name).unlink()
    if content is not None:
        (path / name).write_bytes(content)
    with pytest.raises(PretrainedError, match=message) as caught:
        load_pretrained_tokenizer(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"source": 7},
        {"vocabulary": ["</s>", "<unk>", "<pad>", 7]},
        {"vocabulary": ["</s>", "<unk>", "<pad>", "a", "a"]},
        {"target": {}},
    ],
)
def test_fields_that_are_no_tokenizer_of_marian_are_refused(change, marian):
    fields = load_pretrained_tokenizer(marian[0]).to_dict()
    with pytest.raises(TokenizerError):
        tokenizer_from_dict({**fields, **change})


# --- files made by hand ---


def field(number, value):
    """Write a field of a message: an int, a float, or bytes of fewer than 128."""
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    if isinstance(value, int):
        return bytes([*varint(number << 3), *varint(value)])
    return bytes([number << 3 | 2, len(value)]) + value


def varint(value):
    return [value] if value < 128 else [value & 127 | 128, *varint(value >> 7)]


def piece(text, score=0.0, kind=1):
    return field(1, field(1, text.encode()) + field(2, score) + field(3, kind))


PIECES = piece("<unk>", kind=2) + piece("▁", -1.5) + piece("7,", -2.0) + piece("7", -3.0) + piece(",", -4.0)


def test_a_comma_after_a_number_is_a_piece_of_its_own_for_albert():
    scores = [score for _, score in read_spiece(PIECES, "albert")["model"]["vocab"]]
    assert scores == [0.0, -1.5, -102.0, -3.0, -4.0]
    assert [score for _, score in read_spiece(PIECES)["model"]["vocab"]] == [0.0, -1.5, -2.0, -3.0, -4.0]


def test_unknown_fields_are_passed_over():
    more = field(15, 300) + field(14, b"abc") + bytes([13 << 3 | 1, *range(8)]) + field(12, 1.5)
    assert read_spiece(more + PIECES + field(2, field(4, 8000) + more)) == read_spiece(PIECES)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PIECES + field(2, field(3, 2)), r"its SentencePiece model is no Unigram model$"),
        (piece("a"), "has no unknown piece"),
        (PIECES + piece("<0x41>", kind=6), "or pieces that are bytes"),
        (PIECES + field(2, field(24, 1)), "ends its pieces with spaces"),
        (PIECES + field(3, field(4, 0)), "or keeps runs of them"),
        (PIECES + piece("x") * 2, "damaged"),
        (PIECES + piece("x", float("nan")), "damaged"),
        (PIECES[:-1], r"its SentencePiece model is damaged$"),
        (PIECES + b"\x0b", r"its SentencePiece model is damaged$"),
        (field(1, 7), r"its SentencePiece model is damaged$"),
        (field(1, field(1, b"\xff")), r"its SentencePiece model is damaged$"),
        (field(1, field(2, b"\xff")), r"its SentencePiece model is damaged$"),
        (PIECES + field(2, 7), r"its SentencePiece model is damaged$"),
        (PIECES + field(3, field(2, b"no map")), "damaged"),
        (b"", "has no unknown piece"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(data, message, tmp_path):
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    with pytest.raises(PretrainedError, match=message) as caught:
        load_pretrained_tokenizer(folder(tmp_path, data, ""))
    assert "\n" not in str(caught.value)


def test_a_number_of_signs_that_is_none_is_refused(tmp_path):
    for number in ("many", 10**12, -1, None, True):
        with pytest.raises(PretrainedError, match=f"extra_ids is {number!r}$"):
            load_pretrained_tokenizer(folder(tmp_path, PIECES, "t5", extra_ids=number))


def test_without_the_library_there_is_one_clear_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PretrainedError, match=r'install "tinytransformer\[pretrained\]"$'):
        load_pretrained_tokenizer(folder(tmp_path, PIECES, "t5"))


@given(st.binary(max_size=40))
def test_no_bytes_give_anything_but_a_description_or_a_value_error(more):
    for data in (more, PIECES + more, PIECES[: len(more)] + more):
        with contextlib.suppress(ValueError):
            assert read_spiece(data)["model"]["vocab"]
