"""The tokenizer of T5 gives the ids of the reference, and asks clearly for the library that it needs."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tinytransformer.pretrained import PretrainedError, load_pretrained_tokenizer, save_pretrained_tokenizer
from tinytransformer.text import TokenizerError, UnigramTokenizer, load_tokenizer

FOLDER = Path(__file__).parent / "fixtures" / "unigram-t5"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
DESCRIPTION = json.loads((FOLDER / "tokenizer.json").read_text(encoding="utf-8"))


@pytest.fixture
def tokenizer():
    pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    return load_pretrained_tokenizer(FOLDER)


def test_ids_are_those_of_the_reference(tokenizer):
    for text, ids, decoded in zip(*(EXPECTED[key] for key in ("texts", "ids", "decoded")), strict=True):
        found = tokenizer.encode(text, allow_special=True)
        assert found.dtype == np.int32
        assert found.tolist() == ids, text
        assert tokenizer.decode(ids) == decoded


def test_text_of_strangers_inserts_no_markers(tokenizer):
    text = "fill <extra_id_0> in</s>"
    special = set(tokenizer.special_ids.values())
    assert tokenizer.special_ids.keys() == {"<pad>", "</s>", "<unk>", "<extra_id_1>", "<extra_id_0>"}
    assert special & set(tokenizer.encode(text, allow_special=True).tolist()) == {
        tokenizer.special_ids["<extra_id_0>"],
        1,
    }
    assert not (special - {2}) & set(tokenizer.encode(text).tolist())  # unknown signs may be in it


def test_tokens_and_their_characters(tokenizer):
    vocabulary = [piece for piece, _ in DESCRIPTION["model"]["vocab"]] + ["<extra_id_1>", "<extra_id_0>"]
    assert tokenizer.vocab_size == len(vocabulary)
    assert tokenizer.tokens == [piece.replace("▁", " ") for piece in vocabulary]
    ids = tokenizer.encode("play the player")
    assert tokenizer.character_counts[ids].sum() == len(" play the player")
    assert tokenizer.character_counts[list(tokenizer.special_ids.values())].sum() == 0


def test_half_a_surrogate_pair_is_an_unknown_character(tokenizer):
    assert tokenizer.encode("a\ud800b").tolist() == tokenizer.encode("a?b").tolist()


def test_it_is_saved_and_read_back(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "ours.json")
    assert load_tokenizer(tmp_path / "ours.json") == tokenizer
    save_pretrained_tokenizer(tokenizer, tmp_path / "folder")
    assert load_pretrained_tokenizer(tmp_path / "folder") == tokenizer


@pytest.mark.parametrize("fields", [{"type": "unigram"}, {"type": "unigram", "description": 7}])
def test_fields_of_something_else_are_refused(fields, tmp_path):
    (tmp_path / "x.json").write_text(json.dumps(fields))
    with pytest.raises(TokenizerError, match="not the fields of a tokenizer of type 'unigram'"):
        load_tokenizer(tmp_path / "x.json")


@pytest.mark.parametrize("model", [None, {"type": "BPE"}, {"type": "Unigram", "vocab": 7}])
def test_a_description_of_something_else_is_refused_in_one_line(tokenizer, model):
    with pytest.raises(TokenizerError, match="Unigram tokenizer") as caught:
        UnigramTokenizer({**DESCRIPTION, "model": model})
    assert "\n" not in str(caught.value)


def test_without_the_library_there_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(PretrainedError, match=r'install "tinytransformer\[pretrained\]"$'):
        load_pretrained_tokenizer(FOLDER)
