"""Real checkpoints: what is read computes what the reference computed, and what does not fit is refused."""

import dataclasses
import json
import pickle
import re
import shutil
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import DIRECTIONS, cotangent, direction
from safetensors.numpy import load_file, save_file

import tinytransformer as tt
from tinytransformer.generation import beam_search, generate
from tinytransformer.models import (
    BERT,
    GPT,
    T5,
    BERTConfig,
    BERTForMaskedLM,
    BERTForNextSentence,
    BERTForPretraining,
    BERTForQuestionAnswering,
    BERTForSequenceClassification,
    BERTForTokenClassification,
    GPTConfig,
    T5Config,
    Transformer,
    TransformerConfig,
)
from tinytransformer.pretrained import PretrainedError, load_pretrained, save_pretrained
from tinytransformer.pretrained.folder import read_tensors
from tinytransformer.pretrained.keys import ARCHITECTURES
from tinytransformer.pretrained.loading import as_in_a_file

FIXTURES = Path(__file__).parent / "fixtures"
CLASSES = {
    "gpt2-tied": GPT,
    "gpt2-untied": GPT,
    "bert-pretraining": BERTForPretraining,
    "bert-classifier": BERTForSequenceClassification,
    "llama-tied": GPT,
    "llama-untied": GPT,
    "t5-v1.0": T5,
    "t5-v1.1": T5,
    "albert-pretraining": BERTForPretraining,
    "albert-classifier": BERTForSequenceClassification,
    "marian": Transformer,
}
WRITERS = [name for name in CLASSES if "bert" not in name]
STOP = 7

every_fixture = pytest.mark.parametrize("name", CLASSES)


def expected(name):
    return load_file(FIXTURES / name / "expected.safetensors")


def architecture(name):
    return ARCHITECTURES[name.split("-")[0]]


def outputs(model, reference):
    """Call the model with the inputs of the reference; return its outputs, and where they mean something."""
    names = ("input_ids", "attention_mask", "token_type_ids", "decoder_input_ids", "position_ids")
    given = {name: reference[name] for name in names if name in reference}
    if "position_ids" in given:
        given["positions"] = given.pop("position_ids")
    found = model(**given)
    found = list(found) if isinstance(found, tuple) else [found]
    real = reference["attention_mask"].astype(bool)
    return found, [
        real if logits.shape[:2] == real.shape else np.ones(logits.shape[:2], bool) for logits in found
    ]


# --- what is read computes what the reference computed ---


@every_fixture
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
def test_logits_are_those_of_the_reference(name, dtype, tolerance):
    model, reference = load_pretrained(FIXTURES / name, dtype=dtype), expected(name)
    assert type(model) is CLASSES[name]
    found, meant = outputs(model, reference)
    assert len(found) == sum(key.startswith("logits") for key in reference)
    for number, (logits, real) in enumerate(zip(found, meant, strict=True)):
        assert logits.dtype == dtype
        wanted = reference[f"logits.{number}"]
        np.testing.assert_allclose(logits.numpy()[real], wanted[real], rtol=0, atol=tolerance)


@every_fixture
def test_gradients_are_those_of_the_reference(name):
    """Each gradient along fixed directions, in the layout of the file: any other entry moves them."""
    model, reference = load_pretrained(FIXTURES / name, dtype="float64"), expected(name)
    found, meant = outputs(model, reference)
    loss = 0.0
    for logits, real in zip(found, meant, strict=True):
        weight = cotangent(logits.shape) * (real[:, :, None] if logits.ndim == 3 else 1)
        loss = loss + (logits * weight).sum()
    loss.backward()
    gradients = {key: p.grad.numpy() for key, p in model.named_parameters()}
    gradients = as_in_a_file(architecture(name), gradients)
    wanted = {key.removeprefix("gradient."): v for key, v in reference.items() if key.startswith("gradient.")}
    assert gradients.keys() == wanted.keys()
    for key, (norm, *along) in wanted.items():
        g = gradients[key].ravel()
        close = 1e-8 * norm + 1e-12  # that of a key's bias is 0, but for rounding
        assert np.linalg.norm(g) == pytest.approx(norm, abs=close)
        for k in range(DIRECTIONS):
            # a direction has about as much of a gradient's error as any of its entries
            assert g @ direction(g.size, k) == pytest.approx(along[k], abs=close), (key, k)


@pytest.mark.parametrize("name", ["llama-tied", "marian"])
def test_a_model_is_read_onto_the_default_backend(name, backend):
    model, reference = load_pretrained(FIXTURES / name), expected(name)
    assert {tt.backend.backend_name(p.data) for p in model.parameters()} == {backend}
    found, (meant,) = outputs(model, reference)
    np.testing.assert_allclose(found[0].numpy()[meant], reference["logits.0"][meant], atol=1e-4)


def test_other_dtypes_are_refused():
    with pytest.raises(ValueError, match="dtype must be float32 or float64, not 'float16'"):
        load_pretrained(FIXTURES / "gpt2-tied", dtype="float16")


def until_stop(tokens):
    """What was generated, up to the token that ends it."""
    tokens = tokens.tolist()
    return tokens[: tokens.index(STOP) + 1] if STOP in tokens else tokens


def prompts(name, model, reference):
    """The model as generation asks for it, its prompts, and how many tokens the reference has of them."""
    ids, mask = reference["input_ids"], reference["attention_mask"].astype(bool)
    if name.startswith(("t5", "marian")):
        return model.given(ids, mask), [[0], [0]], 1
    return model, [row[real] for row, real in zip(ids, mask, strict=True)], ids.shape[1]


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_generated_is_token_for_token_that_of_the_reference(name):
    model, reference = load_pretrained(FIXTURES / name), expected(name)
    writer, starts, length = prompts(name, model, reference)
    greedy = generate(writer, starts, 8, temperature=0, stop_tokens=STOP)
    for tokens, wanted in zip(greedy, reference["greedy"], strict=True):
        assert tokens.tolist() == until_stop(wanted[length:])
    for penalty in (1.0, 0.3):
        best = beam_search(writer, starts, 8, num_beams=3, length_penalty=penalty, stop_tokens=STOP)
        for hypothesis, wanted in zip(best, reference[f"beam.{penalty}"], strict=True):
            assert hypothesis.tokens.tolist() == until_stop(wanted[length:])


# --- what is written is read back, and in the names and layouts of the reference ---

TINY = BERTConfig(vocab_size=11, max_positions=7, d_model=6, num_layers=2, num_heads=3, d_ff=5, num_labels=3)
ALBERT = dataclasses.replace(TINY, embedding_size=7, shared_layers=True, activation="gelu_tanh")
MODELS = {
    "GPT": lambda rng: GPT(GPTConfig(11, 7, 6, 2, 3, dropout=0.1), rng),
    "GPT untied": lambda rng: GPT(GPTConfig(11, 7, 6, 2, 3, tied_head=False, layer_norm_eps=1e-3), rng),
    "Llama": lambda rng: GPT(
        GPTConfig.llama(11, context_length=7, d_model=12, num_heads=6, num_kv_heads=2, rope_theta=5e3), rng
    ),
    "BERT": lambda rng: BERT(TINY, rng),
    "BERT without a pooler": lambda rng: BERT(TINY, rng, pooler=False),
    "masked LM": lambda rng: BERTForMaskedLM(TINY, rng),
    "masked LM with a pooler": lambda rng: BERTForMaskedLM(TINY, encoder=BERT(TINY, rng)),
    "question answering": lambda rng: BERTForQuestionAnswering(TINY, rng),
    "token classification": lambda rng: BERTForTokenClassification(TINY, rng),
    "ALBERT": lambda rng: BERT(ALBERT, rng),
    "ALBERT for masked LM": lambda rng: BERTForMaskedLM(ALBERT, rng),
    "ALBERT for pretraining": lambda rng: BERTForPretraining(ALBERT, rng),
    "ALBERT for question answering": lambda rng: BERTForQuestionAnswering(ALBERT, rng),
    "ALBERT for token classification": lambda rng: BERTForTokenClassification(ALBERT, rng),
    "Marian": lambda rng: Transformer(
        TransformerConfig(11, 11, 6, 3, 1, 2, 5, max_length=7, marian=True, pad_token_id=3), rng
    ),
    "T5": lambda rng: T5(T5Config(11, 6, 5, 7, num_layers=1, num_decoder_layers=2, num_heads=3), rng),
    "T5 1.1": lambda rng: T5(
        T5Config(11, 6, 5, 7, num_layers=1, num_heads=3, feed_forward="gated-gelu", tied_head=False), rng
    ),
}


@every_fixture
def test_what_was_read_is_written_as_the_reference_wrote_it(name, tmp_path):
    save_pretrained(load_pretrained(FIXTURES / name), tmp_path)
    theirs, ours = read_tensors(FIXTURES / name), load_file(tmp_path / "model.safetensors")
    theirs = {
        re.sub("gamma$", "weight", re.sub("beta$", "bias", key)): value for key, value in theirs.items()
    }
    assert ours.keys() == theirs.keys()
    for key, array in ours.items():
        np.testing.assert_array_equal(array, theirs[key])
    config = json.loads((FIXTURES / name / "config.json").read_text())
    written = json.loads((tmp_path / "config.json").read_text())
    same_under_another_name = {"activation_function", "n_inner", "hidden_act", "num_labels"}
    moved = {"rope_theta", "scale_decoder_outputs", "position_embedding_type"}
    for key in written.keys() - same_under_another_name - moved:
        assert written[key] == config[key], key
    assert written.get("decoder_start_token_id") == config.get("decoder_start_token_id")


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read_back(name, tmp_path):
    model = MODELS[name](np.random.default_rng(3))
    model.save_pretrained(tmp_path / "new" / "folder")
    again = type(model).from_pretrained(tmp_path / "new" / "folder")
    assert type(again) is type(model)
    # start and end, and of ALBERT the orders, are labels, and there are no others
    pairs = {"question answering", "ALBERT for question answering", "ALBERT for pretraining"}
    labels = {"num_labels": 2} if name in pairs else {}
    assert again.config == dataclasses.replace(model.config, **labels)
    assert not any(module.training for module in again.modules())
    first, second = model.state_dict(), again.state_dict()
    assert list(first) == list(second)
    for key, array in first.items():
        np.testing.assert_array_equal(array, second[key])


@pytest.mark.parametrize(
    ("name", "key", "shape"),
    [
        ("question answering", "qa_outputs.weight", (2, 6)),
        ("ALBERT for question answering", "qa_outputs.weight", (2, 6)),
        ("ALBERT for token classification", "classifier.weight", (3, 6)),
        ("ALBERT for masked LM", "predictions.dense.weight", (7, 6)),
        ("token classification", "classifier.weight", (3, 6)),
    ],
)
def test_heads_are_written_as_out_by_in(name, key, shape, tmp_path):
    MODELS[name](np.random.default_rng(3)).save_pretrained(tmp_path)
    assert load_file(tmp_path / "model.safetensors")[key].shape == shape


def test_dropout_of_what_was_read_comes_from_the_generator_given(tmp_path):
    model = MODELS["GPT"](np.random.default_rng(3))
    model.save_pretrained(tmp_path)
    runs = []
    for seed in (5, 5, 6):
        again = GPT.from_pretrained(tmp_path, rng=np.random.default_rng(seed)).train()
        runs.append(again([[3, 1, 4]]).numpy())
        assert 0 < again.rng.normal() ** 2 < 100  # it draws numbers again, not zeros
    np.testing.assert_array_equal(runs[0], runs[1])
    assert abs(runs[0] - runs[2]).max() > 0


def test_a_model_without_a_place_in_a_file_is_not_written(tmp_path):
    for model in (
        GPT(GPTConfig(11, positions="sinusoidal")),
        GPT(GPTConfig(11, bias=False)),
        BERT(dataclasses.replace(TINY, embedding_size=5)),
        BERT(dataclasses.replace(TINY, shared_layers=True)),
        BERTForNextSentence(ALBERT),
        Transformer(TransformerConfig(11, 11, 6, 3)),
        Transformer(TransformerConfig(11, 13, 6, 3, marian=True)),
        tt.nn.Linear(2, 3),
    ):
        with pytest.raises(PretrainedError, match="no file of Hugging Face has a place for"):
            save_pretrained(model, tmp_path / "x")
    assert not (tmp_path / "x").exists()


# --- the files that there are in the world ---


@pytest.fixture
def folder(tmp_path):
    """A copy of a fixture, and functions that change its tensors and its config."""

    def copy(name):
        made = types.SimpleNamespace(path=tmp_path / name)
        shutil.copytree(FIXTURES / name, made.path)

        def tensors(change):
            new = change({key: np.array(value) for key, value in read_tensors(made.path).items()})
            for old in [*made.path.glob("*model*")]:
                old.unlink()
            save_file(
                {key: np.ascontiguousarray(value) for key, value in new.items()},
                made.path / "model.safetensors",
            )

        def config(**changes):
            values = json.loads((made.path / "config.json").read_text()) | changes
            values = {key: value for key, value in values.items() if value != "gone"}
            (made.path / "config.json").write_text(json.dumps(values))

        made.tensors, made.config = tensors, config
        return made

    return copy


def same_logits(path, name):
    model, reference = load_pretrained(path), expected(name)
    found, meant = outputs(model, reference)
    np.testing.assert_allclose(found[0].numpy()[meant[0]], reference["logits.0"][meant[0]], atol=1e-4)
    return model


@pytest.mark.parametrize("name", ["gpt2-tied", "llama-tied", "bert-pretraining", "albert-pretraining"])
def test_keys_without_the_prefix_of_the_model_are_read(name, folder):
    prefix = architecture(name).prefix
    made = folder(name)
    made.tensors(lambda tensors: {key.removeprefix(prefix): value for key, value in tensors.items()})
    same_logits(made.path, name)


@pytest.mark.parametrize(
    ("name", "buffers"),
    [
        ("gpt2-untied", ("transformer.h.0.attn.bias", "h.1.attn.masked_bias")),
        ("llama-tied", ("model.layers.1.self_attn.rotary_emb.inv_freq",)),
        ("bert-pretraining", ("bert.embeddings.position_ids",)),
        ("albert-classifier", ("albert.embeddings.position_ids",)),
        ("marian", ("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight")),
        ("t5-v1.0", ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)),
    ],
)
def test_buffers_are_known_by_name_and_not_read(name, buffers, folder):
    made = folder(name)
    made.tensors(lambda tensors: tensors | {key: np.ones((1, 3)) for key in buffers})
    same_logits(made.path, name)


@pytest.mark.parametrize(
    ("name", "copy", "of"),
    [
        ("gpt2-tied", "lm_head.weight", "transformer.wte.weight"),
        ("llama-tied", "lm_head.weight", "model.embed_tokens.weight"),
        ("bert-pretraining", "cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        ("bert-pretraining", "cls.predictions.decoder.bias", "cls.predictions.bias"),
        ("albert-pretraining", "predictions.decoder.bias", "predictions.bias"),
        ("albert-pretraining", "predictions.decoder.weight", "albert.embeddings.word_embeddings.weight"),
        ("marian", "model.encoder.embed_tokens.weight", "model.shared.weight"),
        ("t5-v1.0", "decoder.embed_tokens.weight", "shared.weight"),
    ],
)
def test_a_copy_of_tied_weights_may_be_there_if_it_is_one(name, copy, of, folder):
    made = folder(name)
    made.tensors(lambda tensors: tensors | {copy: tensors[of]})
    same_logits(made.path, name)
    made.tensors(lambda tensors: {key: value for key, value in tensors.items() if key != of})
    same_logits(made.path, name)
    made.tensors(lambda tensors: tensors | {of: tensors[copy] + 1})
    with pytest.raises(
        PretrainedError, match=rf"{re.escape(copy)} differs from {re.escape(of)}, and the model has one"
    ):
        load_pretrained(made.path)


def test_tied_weights_stay_tied(tmp_path):
    model = load_pretrained(FIXTURES / "gpt2-tied")
    assert "head" not in dict(model.named_modules())
    model = load_pretrained(FIXTURES / "gpt2-untied")
    assert abs(model.head.weight.data.T - model.token_embedding.weight.data).max() > 0.1


@pytest.mark.parametrize("kind", ["bert", "albert"])
def test_a_file_with_both_heads_of_pretraining_is_read_with_both(kind, folder):
    made = folder(f"{kind}-pretraining")
    made.config(architectures=[f"{kind.title()}ForMaskedLM"])  # as the config of bert-base-uncased says
    assert type(same_logits(made.path, f"{kind}-pretraining")) is BERTForPretraining


def test_an_albert_has_one_layer_however_often_it_is_used():
    model = load_pretrained(FIXTURES / "albert-pretraining")
    assert model.config.num_layers == 3
    assert len(model.encoder.layers) == 1
    assert model.encoder.token_embedding.weight.shape == (53, 13)


def test_an_encoder_alone_is_a_bert(folder):
    made = folder("bert-pretraining")
    made.tensors(lambda tensors: {key: value for key, value in tensors.items() if not key.startswith("cls.")})
    made.config(architectures="gone")
    model = BERT.from_pretrained(made.path)
    assert type(model) is BERT
    assert model.pooler is not None
    hidden = load_pretrained(FIXTURES / "bert-pretraining").encoder([[3, 1, 4]]).hidden.numpy()
    np.testing.assert_array_equal(model([[3, 1, 4]]).hidden.numpy(), hidden)


def test_heads_follow_the_file_and_other_classes_refuse_it():
    assert type(BERT.from_pretrained(FIXTURES / "bert-classifier")) is BERTForSequenceClassification
    assert type(T5.from_pretrained(FIXTURES / "t5-v1.0")) is T5
    for wanted in (GPT, BERTForMaskedLM, T5):
        with pytest.raises(
            PretrainedError, match=r"read it with BERTForSequenceClassification\.from_pretrained"
        ):
            wanted.from_pretrained(FIXTURES / "bert-classifier")


@pytest.mark.parametrize("name", ["gpt2-tied", "llama-untied", "t5-v1.1", "albert-pretraining"])
def test_lines_that_old_configs_lack_have_their_published_defaults(name, folder):
    made = folder(name)
    defaults = {
        "gpt2-tied": {"tie_word_embeddings": True, "layer_norm_epsilon": 1e-5, "scale_attn_weights": True},
        "llama-untied": {
            "tie_word_embeddings": False,
            "rms_norm_eps": 1e-6,
            "head_dim": None,
            "mlp_bias": False,
        },
        "albert-pretraining": {"hidden_act": "gelu_new", "inner_group_num": 1, "hidden_dropout_prob": 0.0},
        "t5-v1.1": {"layer_norm_epsilon": 1e-6, "decoder_start_token_id": 0, "is_decoder": False},
    }[name]
    made.config(**dict.fromkeys(defaults, "gone"))
    same_logits(made.path, name)


def test_the_base_of_rotary_positions_is_read_where_older_files_have_it(folder):
    made = folder("llama-untied")
    made.config(rope_parameters="gone", rope_theta=500.0, rope_scaling=None)
    same_logits(made.path, "llama-untied")


def test_a_version_1_1_is_told_by_the_line_of_newer_files_too(folder):
    made = folder("t5-v1.1")
    made.config(tie_word_embeddings=True, scale_decoder_outputs=False)
    same_logits(made.path, "t5-v1.1")


def test_numbers_of_16_and_64_bits(folder):
    exact = folder("gpt2-tied")
    tensors = {key: np.array(value) for key, value in read_tensors(exact.path).items()}
    exact.tensors(lambda tensors: {key: value.astype(np.float64) for key, value in tensors.items()})
    assert load_pretrained(exact.path).norm.weight.dtype == np.float64
    exact.tensors(lambda tensors: {key: value.astype(np.float16) for key, value in tensors.items()})
    model = load_pretrained(exact.path)
    assert model.norm.weight.dtype == np.float32
    halves = tensors["transformer.ln_f.weight"].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(model.norm.weight.data, halves)


def write_bfloat16(path, arrays):
    """Write a safetensors file as its description says, with the upper halves of float32."""
    header, data = {}, b""
    for name, array in arrays.items():
        upper = (array.view(np.uint32) >> 16).astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(upper)],
        }
        data += upper
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_bfloat16_is_read_exactly(tmp_path):
    values = np.array([[1.0, -2.5, 3e38], [1e-38, 0.0, -0.00390625]], np.float32)
    values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)  # those that bfloat16 has
    write_bfloat16(tmp_path / "model.safetensors", {"x": values, "nothing": np.zeros((0, 3), np.float32)})
    found = read_tensors(tmp_path)
    np.testing.assert_array_equal(found["x"], values)
    assert found["x"].dtype == np.float32
    assert found["nothing"].shape == (0, 3)


def test_numbers_that_no_model_has_are_refused_by_name(tmp_path):
    save_file({"x": np.ones(3, np.uint32)}, tmp_path / "model.safetensors")
    with pytest.raises(PretrainedError, match="x holds U32, which no model here uses"):
        read_tensors(tmp_path)


# --- what does not fit is refused, all of it at once ---


def refusal(function, path):
    """What the function says to refuse a path, or nothing; it may raise no other error."""
    try:
        function(path)
    except PretrainedError as error:
        return str(error)
    return ""


def test_every_missing_unexpected_and_misshapen_key_is_in_one_error(folder):
    made = folder("gpt2-tied")

    def break_it(tensors):
        del tensors["transformer.h.1.ln_2.bias"], tensors["transformer.wpe.weight"]
        tensors["transformer.h.0.attn.c_attn.weight"] = tensors["transformer.h.0.attn.c_attn.weight"].T
        tensors["transformer.ln_f.weight"] = tensors["transformer.ln_f.weight"].astype(np.int32)
        return tensors | {"transformer.h.2.ln_1.weight": np.ones(21), "extra": np.ones(2)}

    made.tensors(break_it)
    with pytest.raises(PretrainedError) as caught:
        load_pretrained(made.path)
    problems = set(str(caught.value).split("does not fit a GPT: ")[1].split("; "))
    assert problems == {
        "missing transformer.wpe.weight, transformer.h.1.ln_2.bias",
        "unexpected extra, transformer.h.2.ln_1.weight",
        "transformer.h.0.attn.c_attn.weight has shape (63, 21) instead of (21, 63)",
        "transformer.ln_f.weight holds int32 instead of floating-point numbers",
    }


def test_a_key_that_is_there_twice_is_unexpected(folder):
    made = folder("bert-classifier")
    old, new = "bert.embeddings.LayerNorm.gamma", "embeddings.LayerNorm.weight"
    made.tensors(lambda tensors: tensors | {new: tensors[old] + 1})
    with pytest.raises(
        PretrainedError, match=r"does not fit a BERTForSequenceClassification: unexpected [\w.]+$"
    ):
        load_pretrained(made.path)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "gpt2-tied",
            {"model_type": "gpt_neox"},
            "model_type 'gpt_neox', which is none of gpt2, llama, bert, albert, t5, marian",
        ),
        ("gpt2-tied", {"model_type": "gone"}, "model_type None"),
        (
            "gpt2-tied",
            {"architectures": ["GPT2ForTokenClassification"]},
            "is a 'GPT2ForTokenClassification'; of this",
        ),
        (
            "gpt2-tied",
            {"activation_function": "relu"},
            "it sets activation_function to 'relu', and the model here",
        ),
        ("gpt2-tied", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx to True"),
        ("gpt2-tied", {"n_embd": "gone"}, "it lacks n_embd"),
        ("gpt2-tied", {"n_head": 4}, "num_heads=4 does not divide d_model=21"),
        ("gpt2-tied", {"n_layer": "two"}, "num_layers must be a positive integer"),
        ("gpt2-tied", {"n_layer": 10**9}, "means a larger model than its file"),
        ("gpt2-tied", {"vocab_size": 10**12}, "means a larger model than its file"),
        ("bert-classifier", {"hidden_act": "tanh"}, "activation must be"),
        ("bert-classifier", {"hidden_act": ["gelu"]}, "activation must be"),
        (
            "bert-classifier",
            {"position_embedding_type": "relative_key"},
            "position_embedding_type to 'relative_key'",
        ),
        ("bert-classifier", {"intermediate_size": 10**12}, "means a larger model than its file"),
        ("albert-classifier", {"num_hidden_groups": 2}, "num_hidden_groups to 2, and the model here has 1$"),
        ("albert-classifier", {"inner_group_num": 2}, "inner_group_num to 2, and the model here has 1$"),
        ("albert-classifier", {"embedding_size": 10**12}, "means a larger model than its file"),
        ("llama-tied", {"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "it scales rotary positions"),
        ("llama-tied", {"rope_parameters": [4]}, "it scales rotary positions"),
        ("llama-tied", {"head_dim": 8}, "head_dim=8 times num_attention_heads=6 is not hidden_size=24"),
        ("llama-tied", {"attention_bias": True}, "it sets attention_bias to True"),
        ("t5-v1.0", {"feed_forward_proj": "gated-silu"}, "feed_forward must be"),
        (
            "marian",
            {"scale_embedding": "gone"},
            "it sets scale_embedding to False, and the model here has True$",
        ),
        ("marian", {"activation_function": "relu"}, "it sets activation_function to 'relu'"),
        ("marian", {"share_encoder_decoder_embeddings": False}, "share_encoder_decoder_embeddings to False"),
        (
            "marian",
            {"decoder_attention_heads": 2},
            "decoder_attention_heads=2 is not encoder_attention_heads=3",
        ),
        ("marian", {"decoder_vocab_size": 59}, "decoder_vocab_size=59 is not vocab_size=53"),
        ("marian", {"decoder_start_token_id": 5}, "decoder_start_token_id=5 is not pad_token_id=0"),
        ("marian", {"d_model": 21}, "sines need an even d_model"),
        ("t5-v1.0", {"num_layers": 10**9}, "means a larger model than its file"),
    ],
)
def test_a_config_that_no_model_here_has_is_refused_in_one_line(name, changes, message, folder):
    made = folder(name)
    made.config(**changes)
    with pytest.raises(PretrainedError, match=message) as caught:
        load_pretrained(made.path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["gpt2-tied", "bert-classifier", "llama-tied", "t5-v1.1", "albert-classifier", "marian"]
)
def test_no_line_of_a_config_gives_anything_but_a_model_or_one_line(name, folder):
    made = folder(name)
    values = json.loads((made.path / "config.json").read_text())
    for key in values:
        for value in (None, -1, 0, 1.5, "x", [[1]], {"a": [1]}, 10**30, float("nan")):
            (made.path / "config.json").write_text(json.dumps({**values, key: value}))
            assert "\n" not in refusal(load_pretrained, made.path)


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "\x00", '{"a": ' * 2000, '{"model_type": "gpt2"'])
def test_a_config_that_is_no_json_object_is_refused(text, folder):
    made = folder("gpt2-tied")
    (made.path / "config.json").write_text(text)
    with pytest.raises(PretrainedError, match=r"config\.json' is damaged: it is not"):
        load_pretrained(made.path)


def test_files_that_are_not_there_are_named(folder):
    made = folder("gpt2-tied")
    (made.path / "model.safetensors").unlink()
    with pytest.raises(PretrainedError, match=r"holds no model\.safetensors and no pytorch_model\.bin"):
        load_pretrained(made.path)
    (made.path / "config.json").unlink()
    with pytest.raises(PretrainedError, match=r"cannot read '.*config\.json': No such file"):
        load_pretrained(made.path)


@given(st.data())
def test_damaged_tensors_never_give_anything_but_one_line(tmp_path_factory, data):
    """Cut, or with some bytes changed: it loads, or there is a PretrainedError."""
    name = data.draw(st.sampled_from(["gpt2-tied", "bert-classifier", "gpt2-untied"]))
    path = tmp_path_factory.mktemp("damaged") / name
    shutil.copytree(FIXTURES / name, path)
    file = data.draw(st.sampled_from([p for p in sorted(path.iterdir()) if p.name != "expected.safetensors"]))
    content = bytearray(file.read_bytes())
    places = st.integers(0, min(len(content), data.draw(st.sampled_from([16, 4000, 10**6]))) - 1)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(places) :]
    file.write_bytes(content)
    assert "\n" not in refusal(load_pretrained, path)


# --- several files and their index ---


def test_several_files_are_read_as_one_model():
    assert len(list((FIXTURES / "gpt2-untied").glob("model-*.safetensors"))) == 3


@pytest.mark.parametrize(
    "name",
    ["../elsewhere.safetensors", "/etc/passwd", "sub/model.safetensors", "..", "", "a\\..\\b", ".hidden"],
)
def test_an_index_points_nowhere_else(name, folder):
    made = folder("gpt2-untied")
    save_file({"lm_head.weight": np.ones(3)}, made.path.parent / "elsewhere.safetensors")
    index = made.path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["lm_head.weight"] = name
    index.write_text(json.dumps(values))
    with pytest.raises(PretrainedError, match="is not the name of a file beside it"):
        load_pretrained(made.path)


def test_an_index_that_is_not_that_of_its_files_is_refused(folder):
    made = folder("gpt2-untied")
    index = made.path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    places = values["weight_map"]
    first, second = sorted(set(places.values()))[:2]
    moved = next(key for key, place in places.items() if place == first)
    index.write_text(json.dumps({"weight_map": {**places, moved: second}}))
    with pytest.raises(PretrainedError) as caught:
        load_pretrained(made.path)
    assert f"{moved} of {first} is not in the index; {moved} is not in {second}" in str(caught.value)
    for damaged in ({}, {"weight_map": [1]}, {"weight_map": {"a": 1}}):
        index.write_text(json.dumps(damaged))
        with pytest.raises(PretrainedError, match="lacks a weight_map"):
            load_pretrained(made.path)
    index.write_text(json.dumps({"weight_map": {moved: "gone.safetensors"}}))
    with pytest.raises(PretrainedError, match=r"cannot read '.*gone\.safetensors'"):
        load_pretrained(made.path)


# --- pickles ---


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def torch_file(path, program, **files):
    """Write a zip archive as torch.save does, with a pickle in it."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for key, data in files.items():
            archive.writestr(f"archive/data/{key.removeprefix('at')}", data)


def pickled(value):
    return pickle.dumps(value, protocol=2)


@pytest.mark.parametrize(
    ("program", "name"),
    [
        (pickled(Call(__import__("os").system, "touch {proof}")), r"(posix|nt)\.system"),
        (pickled({"x": Call(eval, "open('{proof}', 'w')")}), r"__builtin__\.eval"),
        (pickled({"x": Call(getattr, [], "append")}), r"__builtin__\.getattr"),
        (b"\x80\x02ctorch\nload\n.", r"torch\.load"),
        (b"\x80\x02ccollections\nOrderedDict.clear\n.", r"collections\.OrderedDict\.clear"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", r"os\.system"),
    ],
)
def test_a_pickle_that_calls_something_else_is_refused_by_name_and_calls_nothing(
    program, name, tmp_path, folder
):
    proof = tmp_path / "proof"
    made = folder("bert-classifier")
    torch_file(made.path / "pytorch_model.bin", program.replace(b"{proof}", bytes(proof)))
    with pytest.raises(
        PretrainedError, match=f"it asks for {name}, which is no part of a tensor; it is not executed"
    ):
        load_pretrained(made.path)
    assert not proof.exists()


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"


def tensor(offset, shape, strides):
    """The instructions for a tensor of a storage of six floats."""
    numbers = [
        b"K" + bytes([offset]),
        *(b"(" + b"".join(b"K" + bytes([n]) for n in ns) + b"t" for ns in (shape, strides)),
    ]
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + STORAGE
        + b"".join(numbers)
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )


# a view of six entries, all of them the last number, taken for a storage: the next five lie outside the file
INSIDE_ANOTHER = tensor(0, (6,), (1,)).replace(STORAGE, tensor(5, (6,), (0,)))


def state_of(item):
    return b"\x80\x02}X\x01\x00\x00\x00x" + item + b"s."


def test_a_tensor_is_a_view_of_its_storage(tmp_path):
    torch_file(
        tmp_path / "pytorch_model.bin",
        state_of(tensor(1, (2, 2), (1, 3))),
        at0=np.arange(6, dtype="<f4").tobytes(),
    )
    found = read_tensors(tmp_path)["x"]
    np.testing.assert_array_equal(found, np.array([[1, 4], [2, 5]], np.float32))
    assert found.dtype == np.float32


@pytest.mark.parametrize(("kind", "dtype"), [("HalfStorage", "<f2"), ("BFloat16Storage", "<u2")])
def test_16_bits_in_a_pickle(kind, dtype, tmp_path):
    values = np.array([1.5, -2, 0.25, 3, -0.5, 96], np.float32)  # both kinds have them
    stored = values.astype(dtype) if dtype == "<f2" else (values.view("<u4") >> 16).astype(dtype)
    program = state_of(tensor(0, (6,), (1,)).replace(b"FloatStorage", kind.encode()))
    torch_file(tmp_path / "pytorch_model.bin", program, at0=stored.tobytes())
    np.testing.assert_array_equal(read_tensors(tmp_path)["x"], values)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (state_of(tensor(1, (2, 3), (3, 1))), r"a tensor of shape \(2, 3\) that is not in its storage of 6"),
        (state_of(tensor(0, (7,), (0,))), "is not in its storage"),
        (state_of(tensor(0, (2, 3), (3,))), "without a storage"),
        (state_of(tensor(0, (2,), (1,)).replace(b"K\x02", b"J\xfe\xff\xff\xff")), "are no numbers from 0 on"),
        (state_of(tensor(0, (2,), (1,)).replace(b"K\x06", b"K\x07")), "does not hold 7 numbers"),
        (
            state_of(tensor(0, (2,), (1,)).replace(b"\x01\x00\x00\x000", b"\x01\x00\x00\x001")),
            "it lacks archive/data/1",
        ),
        (
            state_of(tensor(0, (2,), (1,)).replace(b"FloatStorage", b"QInt8Storage")),
            r"asks for torch\.QInt8Storage",
        ),
        (state_of(INSIDE_ANOTHER), "without a storage"),
        (state_of(b"K\x01"), "holds more than tensors: x"),
        (state_of(b"K\x01Q"), "no storage of numbers"),
        (b"\x80\x02}K\x01K\x02s.", "keys are not names"),
        (b"\x80\x02K\x01.", "no state dict"),
        (b"\x80\x02}", "exhausted before seeing STOP"),
        (b"\x80\x02.", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02ccollections\nOrderedDict\n(K\x01tR.", "OrderedDict with arguments"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "calls what builds no tensor"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "its instruction NEWOBJ is not needed for tensors"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "its instruction BUILD is not needed for tensors"),
        (b"(I1\n.", "its instruction INT is not needed for tensors"),
        (b"\xff", "opcode"),
    ],
)
def test_a_pickle_that_is_no_state_dict_is_refused(program, message, tmp_path):
    torch_file(tmp_path / "pytorch_model.bin", program, at0=np.arange(6, dtype="<f4").tobytes())
    with pytest.raises(PretrainedError, match=message) as caught:
        read_tensors(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pickle_as_large_as_a_tower_of_pairs_is_refused_at_once(tmp_path):
    """Sixty tuples of the tuple before, twice: to print or to hash it would take for ever."""
    tower = b")" + b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
    for program in (
        b"\x80\x02" + tower + b"Q.",
        b"\x80\x02" + tower + b")R.",
        b"\x80\x02}" + tower + b"K\x01s.",
        state_of(tower),
    ):
        torch_file(tmp_path / "pytorch_model.bin", program)
        with pytest.raises(PretrainedError):
            read_tensors(tmp_path)


def test_an_archive_that_torch_does_not_write_is_refused(tmp_path):
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(pickled({"x": 1}))
    with pytest.raises(PretrainedError, match="truncated, or saved by a PyTorch before"):
        read_tensors(tmp_path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." * 1000)
    with pytest.raises(PretrainedError, match="it is compressed"):
        read_tensors(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}." + bytes(1000))
        archive.filelist += 3 * archive.filelist  # four entries of the same thousand bytes
    with pytest.raises(PretrainedError, match="its parts overlap"):
        read_tensors(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}.")
        archive.writestr("b/data.pkl", b"\x80\x02}.")
    with pytest.raises(PretrainedError, match=r"it holds 2 data\.pkl, not one"):
        read_tensors(tmp_path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/byteorder", b"big")
    with pytest.raises(PretrainedError, match="not little-endian"):
        read_tensors(tmp_path)


@given(st.binary(max_size=40))
def test_no_bytes_are_executed(tmp_path_factory, program):
    path = tmp_path_factory.mktemp("pickles")
    torch_file(path / "pytorch_model.bin", b"\x80\x02" + program)
    assert "\n" not in refusal(read_tensors, path)


# --- names ---


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A stand-in for huggingface_hub, whose one repository is a fixture; it counts what is asked for."""
    module = types.ModuleType("huggingface_hub")
    module.asked = []

    def snapshot_download(name, allow_patterns):
        module.asked.append((name, allow_patterns))
        if name != "someone/gpt2-tied":
            raise FileNotFoundError(f"Cannot find an appropriate cached\nsnapshot folder for {name}")
        return str(FIXTURES / "gpt2-tied")

    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.chdir(tmp_path)
    return module


def test_a_name_that_is_no_folder_is_looked_up_on_the_hub(hub):
    assert type(GPT.from_pretrained("someone/gpt2-tied")) is GPT
    (name, patterns), *others = hub.asked
    assert name == "someone/gpt2-tied"
    assert {"*.json", "model*.safetensors"} <= set(patterns)
    assert others == []


def test_offline_without_a_copy_there_is_one_clear_line(hub):
    with pytest.raises(PretrainedError) as caught:
        GPT.from_pretrained("someone/else")
    assert str(caught.value) == (
        "there is no folder 'someone/else', and it is neither in the cache of huggingface_hub nor can it be "
        "downloaded: Cannot find an appropriate cached snapshot folder for someone/else"
    )


def test_without_the_library_there_is_one_clear_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        PretrainedError, match=r'install huggingface_hub: pip install "tinytransformer\[pretrained\]"$'
    ):
        GPT.from_pretrained("someone/gpt2")


@pytest.mark.parametrize("name", ["/no/such/folder", "a/b/c", "../gpt2", "x y", "http://x/y"])
def test_a_path_that_is_not_there_is_not_looked_up(name, hub):
    with pytest.raises(PretrainedError, match="is no folder"):
        GPT.from_pretrained(name)
    assert hub.asked == []
