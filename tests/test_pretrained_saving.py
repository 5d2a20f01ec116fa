"""What is saved for others: models in several files, and tokenizers in the files of `tokenizers`."""

import json
import os
from itertools import pairwise

import numpy as np
import pytest
from make_wordpiece_fixture import CHINESE, ENGLISH
from safetensors.numpy import load_file

from tinytransformer.models import GPT, GPTConfig
from tinytransformer.pretrained import (
    PretrainedError,
    load_pretrained_tokenizer,
    save_pretrained_tokenizer,
)
from tinytransformer.text import (
    BPETokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    GPT2Tokenizer,
    WordPieceTokenizer,
)

CORPUS = ENGLISH + CHINESE
VOCABULARY = ["l", "o", "w", "Ġ", "lo", "low", "Ġlow", "<|end|>"]
TOKENIZERS = {
    "byte": ByteTokenizer(),
    "bpe": BPETokenizer.train(CORPUS, vocab_size=311, special_tokens=["<|end|>", "<|x|>"]),
    "gpt2": GPT2Tokenizer(VOCABULARY, ["l o", "lo w", "Ġ low"], ["<|end|>"]),
    "single digits": GPT2Tokenizer(VOCABULARY, ["l o", "lo w", "Ġ low"], ["<|end|>"], single_digits=True),
    "wordpiece": WordPieceTokenizer.train(CORPUS, 200),
    "cased": WordPieceTokenizer.train(CORPUS, 200, lowercase=False, strip_accents=True),
}
SIZES = {"d_model": 12, "num_heads": 3}


def gpt(vocab_size=311, **others):
    return GPT(GPTConfig(vocab_size, 7, **SIZES, **others), np.random.default_rng(3))


def names(folder):
    return sorted(os.listdir(folder))


# --- several files ---


@pytest.mark.parametrize("size", [16_000, "16kB", "16 KB"])
def test_a_model_larger_than_a_file_may_be_is_divided(size, tmp_path):
    model = gpt()
    model.save_pretrained(tmp_path, max_shard_size=size)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    shards = sorted(set(index["weight_map"].values()))
    count = len(shards)
    assert shards == [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    assert names(tmp_path) == sorted(["config.json", "model.safetensors.index.json", *shards])
    held = {name: load_file(tmp_path / name) for name in shards}
    assert {key: name for name in shards for key in held[name]} == index["weight_map"]
    sizes = [sum(array.nbytes for array in held[name].values()) for name in shards]
    assert sum(sizes) == index["metadata"]["total_size"] == 4 * model.config.num_parameters
    assert max(sizes) <= 16_000
    assert all(a + b > 4_000 for a, b in pairwise(sizes))  # not a file for each tensor
    again = GPT.from_pretrained(tmp_path).state_dict()
    for key, array in model.state_dict().items():
        np.testing.assert_array_equal(again[key], array)


def test_a_tensor_is_never_divided(tmp_path):
    gpt().save_pretrained(tmp_path, max_shard_size=1)
    assert len(list(tmp_path.glob("model-*"))) == len(
        json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    )
    assert GPT.from_pretrained(tmp_path).config.vocab_size == 311


def test_what_is_as_large_as_a_file_may_be_is_one(tmp_path):
    size = 4 * gpt().config.num_parameters
    gpt().save_pretrained(tmp_path / "one", max_shard_size=size)
    assert names(tmp_path / "one") == ["config.json", "model.safetensors"]
    gpt().save_pretrained(tmp_path / "two", max_shard_size=size - 1)
    assert len(list((tmp_path / "two").glob("model-*"))) == 2


def test_a_folder_never_holds_two_models(tmp_path):
    (tmp_path / "model-notes.txt").write_text("of the user")
    for size, vocab_size in ((16_000, 311), ("1GB", 17), (9_000, 311), (16_000, 23)):
        gpt(vocab_size).save_pretrained(tmp_path, max_shard_size=size)
        assert GPT.from_pretrained(tmp_path).config.vocab_size == vocab_size
        assert (tmp_path / "model.safetensors").exists() != (
            tmp_path / "model.safetensors.index.json"
        ).exists()
        counts = {name[-17:-12] for name in names(tmp_path) if name.startswith("model-0")}
        assert len(counts) <= 1
    assert (tmp_path / "model-notes.txt").exists()


@pytest.mark.parametrize("size", [0, "0GB", -3, "much", "5TB", "GB", 1.5])
def test_a_size_that_is_none_is_refused(size, tmp_path):
    with pytest.raises(ValueError, match="max_shard_size must be a number of bytes, or one such as '500MB'"):
        gpt().save_pretrained(tmp_path / "x", max_shard_size=size)
    assert not (tmp_path / "x").exists()


# --- tokenizers ---

each_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)
TEXTS = [
    *CORPUS.splitlines(),
    "they'll  two  spaces,\t\tlow low\n\nx 1234567 ½²Ⅷ٣一 _a_b, \x1c\x85\u3000\u00a0x\r\n \u200b",
    "x" * 131 + " " * 67 + "!" * 66 + "注" * 65,
    "a<|end|>b<|x|>low [MASK] [mask] Naïve É",
    "",
]


@each_tokenizer
def test_what_is_written_is_read_back(name, tmp_path):
    tokenizer = TOKENIZERS[name]
    save_pretrained_tokenizer(tokenizer, tmp_path / "new" / "folder")
    again = load_pretrained_tokenizer(tmp_path / "new" / "folder")
    assert again == tokenizer
    assert type(again) is type(tokenizer)


@each_tokenizer
def test_the_library_gives_the_same_ids(name, tmp_path):
    library = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
    tokenizer = TOKENIZERS[name]
    save_pretrained_tokenizer(tokenizer, tmp_path)
    theirs = library.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.get_vocab_size() == tokenizer.vocab_size
    for text in TEXTS:
        ours = tokenizer.encode(text) if name == "byte" else tokenizer.encode(text, allow_special=True)
        found = theirs.encode(text, add_special_tokens=False).ids
        assert found == ours.tolist(), text
        if hasattr(tokenizer, "encode_pair"):
            ids, segments = tokenizer.encode_pair(text, "low", allow_special=True)
            pair = theirs.encode(text, "low")
            assert (pair.ids, pair.type_ids) == (ids.tolist(), segments.tolist())
        elif "gpt2" not in name and "digits" not in name:  # these drop bytes that they do not have
            assert theirs.decode(found, skip_special_tokens=False) == tokenizer.decode(ours)


def test_a_model_is_saved_with_its_tokenizer(tmp_path):
    gpt().save_pretrained(tmp_path, tokenizer=TOKENIZERS["bpe"])
    assert GPT.from_pretrained(tmp_path).config.vocab_size == TOKENIZERS["bpe"].vocab_size
    assert load_pretrained_tokenizer(tmp_path) == TOKENIZERS["bpe"]
    assert names(tmp_path) == ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def test_a_tokenizer_without_a_place_in_a_file_is_not_written(tmp_path):
    twice = BPETokenizer([(97, 98), (98, 99), (256, 99), (97, 257)])  # abc, in two ways
    for tokenizer in (CharacterTokenizer("abc"), twice):
        with pytest.raises(PretrainedError, match="no file of Hugging Face has a place for"):
            gpt().save_pretrained(tmp_path / "x", tokenizer=tokenizer)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.pop("added_tokens"),
        lambda fields: fields["model"].pop("merges"),
        lambda fields: fields["model"]["merges"].insert(0, ["zz", "y"]),
        lambda fields: fields["model"]["merges"].insert(0, 7),
        lambda fields: fields["model"].update(merges=7),
        lambda fields: fields.update(added_tokens=["x"]),
        lambda fields: fields.update(model=None),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(change, tmp_path):
    save_pretrained_tokenizer(TOKENIZERS["bpe"], tmp_path)
    fields = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    change(fields)
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    with pytest.raises(PretrainedError, match=r"cannot be used: its merges are damaged$"):
        load_pretrained_tokenizer(tmp_path)
