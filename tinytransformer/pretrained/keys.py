"""Which tensor of a file is which parameter of a model, and which line of a config.json is which size.

A model here is a table: `Row` for the tensors, `Field` for the config. Both are read in both directions.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from ..models import (
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

__all__ = ["ARCHITECTURES"]

REQUIRED = object()


class Row(NamedTuple):
    """Where a module of ours lies in a file, with its weight and bias; ``*`` is the number of a layer.

    Of a model's own parameter it is the name.
    """

    ours: str
    theirs: str
    transposed: bool = False  # the file has the weight as (out, in), like PyTorch's Linear
    part: int = 0  # several of ours stand side by side in one tensor of the file: which one this is
    parts: int = 1


class Field(NamedTuple):
    """A line of config.json and a field of our config; of several for one field, the first is read."""

    theirs: str
    ours: str
    default: Any = REQUIRED  # where config.json does not say, or says null
    values: Mapping[Any, Any] = MappingProxyType({})  # theirs to ours, where they are called differently


@dataclasses.dataclass(frozen=True)
class Architecture:
    """All that is to know about the files of a kind of model.

    Attributes
    ----------
    model_type : str
        Its name in config.json.
    family : type
        The model whose ``from_pretrained`` reads every file of this kind.
    config_class : type
        Of our config.
    classes : dict of str to type
        Our class for each of ``architectures`` in config.json.
    rows, fields : tuple
        The tables. What no row names does not exist in a file.
    prefix : str
        Begins the keys of all but the heads; files of a model without a head lack it.
    fixed : dict of str to tuple
        Lines of config.json with the values that our model has; any other is refused. The first is written.
    lines : dict of str to dict
        Further lines of config.json, for some of ``classes``; they are written and not read.
    switches : dict of str to value
        Fields of our config that are the same for all models of this kind.
    inner : str
        Begins the names of all but the heads in our models with a head.
    copies : dict of str to str
        Keys that a file may have beside those of the second, with equal values.
    buffers : tuple of str
        Keys of what is no parameter; they are not read.
    renamed : dict of str to str
        Endings of keys in old files, and what they are called now.
    build : callable
        Makes a model of a class: ``build(cls, config, rng, dtype, keys)``.
    choose : callable
        Decides what the file holds: ``choose(name in config.json, keys)``, a key of ``classes``.
    prepare : callable
        Brings a config.json of another version into the form that ``fields`` describes.
    """

    model_type: str
    family: type
    config_class: type
    classes: dict[str, type]
    rows: tuple[Row, ...]
    fields: tuple[Field, ...]
    prefix: str
    fixed: dict[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    lines: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    switches: dict[str, Any] = dataclasses.field(default_factory=dict)
    inner: str = ""
    copies: dict[str, str] = dataclasses.field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    build: Callable[..., Any] = lambda cls, config, rng, dtype, keys: cls(config, rng, dtype)
    choose: Callable[[str, Collection[str]], str] = lambda name, keys: name
    prepare: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def place(self, name: str) -> tuple[str, Row]:
        """Return the key in a file of a parameter of ours, and the row that says so."""
        module, _, kind = name.removeprefix(self.inner).rpartition(".")
        number = re.search(r"(?<=\.)\d+(?=\.)", module)
        ours = re.sub(r"(?<=\.)\d+(?=\.)", "*", module) or kind
        row = next(row for row in self.rows if row.ours == ours)
        key = row.theirs.replace("*", number[0] if number else "")
        return f"{key}.{kind}" if module else key, row


# --- GPT-2: its Conv1D holds weights as (in, out), as our Linear does; an untied head is the other way ---

GPT2 = Architecture(
    model_type="gpt2",
    family=GPT,
    config_class=GPTConfig,
    classes={"GPT2LMHeadModel": GPT, "GPT2Model": GPT},
    prefix="transformer.",
    rows=(
        Row("token_embedding", "transformer.wte"),
        Row("position_embedding", "transformer.wpe"),
        Row("blocks.*.norm1", "transformer.h.*.ln_1"),
        Row("blocks.*.self_attention.W_Q", "transformer.h.*.attn.c_attn", part=0, parts=3),
        Row("blocks.*.self_attention.W_K", "transformer.h.*.attn.c_attn", part=1, parts=3),
        Row("blocks.*.self_attention.W_V", "transformer.h.*.attn.c_attn", part=2, parts=3),
        Row("blocks.*.self_attention.W_O", "transformer.h.*.attn.c_proj"),
        Row("blocks.*.norm2", "transformer.h.*.ln_2"),
        Row("blocks.*.feed_forward.linear1", "transformer.h.*.mlp.c_fc"),
        Row("blocks.*.feed_forward.linear2", "transformer.h.*.mlp.c_proj"),
        Row("norm", "transformer.ln_f"),
        Row("head", "lm_head", transposed=True),
    ),
    copies={"lm_head.weight": "transformer.wte.weight"},
    buffers=("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias"),  # the causal mask, and -10000
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("n_positions", "context_length"),
        Field("n_embd", "d_model"),
        Field("n_layer", "num_layers"),
        Field("n_head", "num_heads"),
        Field("n_inner", "d_ff", 0),
        Field("resid_pdrop", "dropout", 0.1),
        Field("embd_pdrop", "dropout"),
        Field("attn_pdrop", "dropout"),
        Field("layer_norm_epsilon", "layer_norm_eps", 1e-5),
        Field("tie_word_embeddings", "tied_head", True),
    ),
    fixed={
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
)


# --- Llama ---


def _prepare_llama(values: dict[str, Any]) -> dict[str, Any]:
    """Find the base of the rotary positions, which newer files keep with how they are scaled."""
    rope = values.get("rope_parameters") or values.get("rope_scaling") or {}
    if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"it scales rotary positions: {rope!r}")
    d, heads, d_k = (values.get(key) for key in ("hidden_size", "num_attention_heads", "head_dim"))
    if d_k is not None and (type(d_k) is not int or type(heads) is not int or d_k * heads != d):
        raise ValueError(f"head_dim={d_k!r} times num_attention_heads={heads!r} is not hidden_size={d!r}")
    return {"rope_theta": rope.get("rope_theta"), **values}


LLAMA = Architecture(
    model_type="llama",
    family=GPT,
    config_class=GPTConfig,
    classes={"LlamaForCausalLM": GPT, "LlamaModel": GPT},
    prefix="model.",
    rows=(
        Row("token_embedding", "model.embed_tokens"),
        Row("blocks.*.norm1", "model.layers.*.input_layernorm"),
        Row("blocks.*.self_attention.W_Q", "model.layers.*.self_attn.q_proj", transposed=True),
        Row("blocks.*.self_attention.W_K", "model.layers.*.self_attn.k_proj", transposed=True),
        Row("blocks.*.self_attention.W_V", "model.layers.*.self_attn.v_proj", transposed=True),
        Row("blocks.*.self_attention.W_O", "model.layers.*.self_attn.o_proj", transposed=True),
        Row("blocks.*.norm2", "model.layers.*.post_attention_layernorm"),
        Row("blocks.*.feed_forward.gate", "model.layers.*.mlp.gate_proj", transposed=True),
        Row("blocks.*.feed_forward.up", "model.layers.*.mlp.up_proj", transposed=True),
        Row("blocks.*.feed_forward.down", "model.layers.*.mlp.down_proj", transposed=True),
        Row("norm", "model.norm"),
        Row("head", "lm_head", transposed=True),
    ),
    copies={"lm_head.weight": "model.embed_tokens.weight"},
    buffers=("model.layers.*.self_attn.rotary_emb.inv_freq",),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("max_position_embeddings", "context_length", 2048),
        Field("hidden_size", "d_model"),
        Field("num_hidden_layers", "num_layers"),
        Field("num_attention_heads", "num_heads"),
        Field("num_key_value_heads", "num_kv_heads", 0),
        Field("intermediate_size", "d_ff"),
        Field("attention_dropout", "dropout", 0.0),
        Field("rms_norm_eps", "layer_norm_eps", 1e-6),
        Field("rope_theta", "rope_theta", 10000.0),
        Field("tie_word_embeddings", "tied_head", False),
    ),
    fixed={
        "hidden_act": ("silu", "swish"),
        "attention_bias": (False,),
        "mlp_bias": (False,),
    },
    switches={"normalization": "rms", "positions": "rotary", "feed_forward": "swiglu", "bias": False},
    prepare=_prepare_llama,
)


# --- BERT ---


def _build_bert(cls: Any, config: BERTConfig, rng: Any, dtype: Any, keys: Collection[str]) -> Any:
    """Make the encoder with a pooler if the file has one, or the head needs one."""
    pools = any("pooler." in key for key in keys) or getattr(cls, "pools", False)
    encoder = BERT(config, rng, dtype, pooler=pools)
    return encoder if cls is BERT else cls(config, encoder=encoder)


def _prepare_bert(values: dict[str, Any]) -> dict[str, Any]:
    """Count the labels where they have names."""
    names = values.get("id2label")
    return {**values, "num_labels": len(names)} if isinstance(names, dict) else values


def _choose_bert(both: str, heads: set[str], name: str, keys: Collection[str]) -> str:
    """Believe the file that holds both heads of pretraining; the config of bert-base names only one."""
    return both if heads <= set(keys) else name


BERT_ACTIVATIONS = {"gelu": "gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "relu": "relu"}


BERT_FILES = Architecture(
    model_type="bert",
    family=BERT,
    config_class=BERTConfig,
    classes={
        "BertModel": BERT,
        "BertForPreTraining": BERTForPretraining,
        "BertForMaskedLM": BERTForMaskedLM,
        "BertForNextSentencePrediction": BERTForNextSentence,
        "BertForSequenceClassification": BERTForSequenceClassification,
        "BertForTokenClassification": BERTForTokenClassification,
        "BertForQuestionAnswering": BERTForQuestionAnswering,
    },
    prefix="bert.",
    inner="encoder.",
    rows=(
        Row("token_embedding", "bert.embeddings.word_embeddings"),
        Row("position_embedding", "bert.embeddings.position_embeddings"),
        Row("segment_embedding", "bert.embeddings.token_type_embeddings"),
        Row("norm", "bert.embeddings.LayerNorm"),
        Row("layers.*.self_attention.W_Q", "bert.encoder.layer.*.attention.self.query", transposed=True),
        Row("layers.*.self_attention.W_K", "bert.encoder.layer.*.attention.self.key", transposed=True),
        Row("layers.*.self_attention.W_V", "bert.encoder.layer.*.attention.self.value", transposed=True),
        Row("layers.*.self_attention.W_O", "bert.encoder.layer.*.attention.output.dense", transposed=True),
        Row("layers.*.norm1", "bert.encoder.layer.*.attention.output.LayerNorm"),
        Row("layers.*.feed_forward.linear1", "bert.encoder.layer.*.intermediate.dense", transposed=True),
        Row("layers.*.feed_forward.linear2", "bert.encoder.layer.*.output.dense", transposed=True),
        Row("layers.*.norm2", "bert.encoder.layer.*.output.LayerNorm"),
        Row("pooler", "bert.pooler.dense", transposed=True),
        Row("masked_lm", "cls.predictions"),
        Row("masked_lm.dense", "cls.predictions.transform.dense", transposed=True),
        Row("masked_lm.norm", "cls.predictions.transform.LayerNorm"),
        Row("next_sentence", "cls.seq_relationship", transposed=True),
        Row("classifier", "classifier", transposed=True),
        Row("span", "qa_outputs", transposed=True),
    ),
    copies={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
    buffers=("bert.embeddings.position_ids", "bert.embeddings.token_type_ids"),
    renamed={".gamma": ".weight", ".beta": ".bias"},
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("max_position_embeddings", "max_positions", 512),
        Field("hidden_size", "d_model"),
        Field("num_hidden_layers", "num_layers"),
        Field("num_attention_heads", "num_heads"),
        Field("intermediate_size", "d_ff"),
        Field("type_vocab_size", "type_vocab_size", 2),
        Field("hidden_dropout_prob", "dropout", 0.1),
        Field("attention_probs_dropout_prob", "dropout"),
        Field("layer_norm_eps", "layer_norm_eps", 1e-12),
        Field("pad_token_id", "pad_token_id", 0),
        Field("hidden_act", "activation", "gelu", BERT_ACTIVATIONS),
        Field("num_labels", "num_labels", 2),
    ),
    fixed={
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    },
    lines={"BertForQuestionAnswering": {"num_labels": 2}},  # the reference takes start and end for labels
    build=_build_bert,
    choose=partial(
        _choose_bert, "BertForPreTraining", {"cls.seq_relationship.weight", "cls.predictions.bias"}
    ),
    prepare=_prepare_bert,
)


# --- ALBERT: a BERT whose layers are one ---

ALBERT_LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.0"

ALBERT_FILES = Architecture(
    model_type="albert",
    family=BERT,
    config_class=BERTConfig,
    classes={
        "AlbertModel": BERT,
        "AlbertForPreTraining": BERTForPretraining,
        "AlbertForMaskedLM": BERTForMaskedLM,
        "AlbertForSequenceClassification": BERTForSequenceClassification,
        "AlbertForTokenClassification": BERTForTokenClassification,
        "AlbertForQuestionAnswering": BERTForQuestionAnswering,
    },
    prefix="albert.",
    inner="encoder.",
    rows=(
        Row("token_embedding", "albert.embeddings.word_embeddings"),
        Row("position_embedding", "albert.embeddings.position_embeddings"),
        Row("segment_embedding", "albert.embeddings.token_type_embeddings"),
        Row("norm", "albert.embeddings.LayerNorm"),
        Row("projection", "albert.encoder.embedding_hidden_mapping_in", transposed=True),
        Row("layers.*.self_attention.W_Q", f"{ALBERT_LAYER}.attention.query", transposed=True),
        Row("layers.*.self_attention.W_K", f"{ALBERT_LAYER}.attention.key", transposed=True),
        Row("layers.*.self_attention.W_V", f"{ALBERT_LAYER}.attention.value", transposed=True),
        Row("layers.*.self_attention.W_O", f"{ALBERT_LAYER}.attention.dense", transposed=True),
        Row("layers.*.norm1", f"{ALBERT_LAYER}.attention.LayerNorm"),
        Row("layers.*.feed_forward.linear1", f"{ALBERT_LAYER}.ffn", transposed=True),
        Row("layers.*.feed_forward.linear2", f"{ALBERT_LAYER}.ffn_output", transposed=True),
        Row("layers.*.norm2", f"{ALBERT_LAYER}.full_layer_layer_norm"),
        Row("pooler", "albert.pooler", transposed=True),
        Row("masked_lm", "predictions"),
        Row("masked_lm.dense", "predictions.dense", transposed=True),
        Row("masked_lm.norm", "predictions.LayerNorm"),
        Row("next_sentence", "sop_classifier.classifier", transposed=True),
        Row("classifier", "classifier", transposed=True),
        Row("span", "qa_outputs", transposed=True),
    ),
    copies={
        "predictions.decoder.weight": "albert.embeddings.word_embeddings.weight",
        "predictions.decoder.bias": "predictions.bias",
    },
    buffers=("albert.embeddings.position_ids", "albert.embeddings.token_type_ids"),
    fields=(
        Field("hidden_act", "activation", "gelu_new", BERT_ACTIVATIONS),
        Field("hidden_dropout_prob", "dropout", 0.0),
        *(field for field in BERT_FILES.fields if field.theirs not in ("hidden_act", "hidden_dropout_prob")),
        Field("embedding_size", "embedding_size", 128, {None: 0}),  # a file has no place for none
    ),
    fixed={
        "num_hidden_groups": (1,),
        "inner_group_num": (1,),
        "position_embedding_type": ("absolute",),
        "tie_word_embeddings": (True,),
    },
    lines={  # the reference takes start and end, or right and wrong order, for labels
        "AlbertForQuestionAnswering": {"num_labels": 2},
        "AlbertForPreTraining": {"num_labels": 2},
    },
    switches={"shared_layers": True},
    build=_build_bert,
    choose=partial(
        _choose_bert, "AlbertForPreTraining", {"sop_classifier.classifier.weight", "predictions.bias"}
    ),
    prepare=_prepare_bert,
)


# --- T5 ---


def _t5_attention(ours: str, theirs: str) -> list[Row]:
    return [Row(f"{ours}.W_{name.upper()}", f"{theirs}.{name}", transposed=True) for name in "qkvo"]


def _t5_feed_forward(ours: str, theirs: str) -> list[Row]:
    names = {"linear1": "wi", "linear2": "wo", "gate": "wi_0", "up": "wi_1", "down": "wo"}
    return [Row(f"{ours}.{name}", f"{theirs}.{key}", transposed=True) for name, key in names.items()]


def _prepare_t5(values: dict[str, Any]) -> dict[str, Any]:
    """Tell version 1.1, with a head of its own and unscaled, by any of the lines that have said so."""
    scaled = values.get("scale_decoder_outputs", values.get("tie_word_embeddings", True))
    start = values.get("decoder_start_token_id")
    return {
        **values,
        "tie_word_embeddings": scaled,
        "decoder_start_token_id": values.get("pad_token_id", 0) if start is None else start,
    }


T5_FILES = Architecture(
    model_type="t5",
    family=T5,
    config_class=T5Config,
    classes={"T5ForConditionalGeneration": T5, "T5WithLMHeadModel": T5},
    prefix="",
    rows=(
        Row("embedding", "shared"),
        Row("encoder.relative_bias", "encoder.block.0.layer.0.SelfAttention.relative_attention_bias"),
        Row("encoder.layers.*.self_norm", "encoder.block.*.layer.0.layer_norm"),
        *_t5_attention("encoder.layers.*.self_attention", "encoder.block.*.layer.0.SelfAttention"),
        Row("encoder.layers.*.feed_forward_norm", "encoder.block.*.layer.1.layer_norm"),
        *_t5_feed_forward("encoder.layers.*.feed_forward", "encoder.block.*.layer.1.DenseReluDense"),
        Row("encoder.norm", "encoder.final_layer_norm"),
        Row("decoder.relative_bias", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias"),
        Row("decoder.layers.*.self_norm", "decoder.block.*.layer.0.layer_norm"),
        *_t5_attention("decoder.layers.*.self_attention", "decoder.block.*.layer.0.SelfAttention"),
        Row("decoder.layers.*.cross_norm", "decoder.block.*.layer.1.layer_norm"),
        *_t5_attention("decoder.layers.*.cross_attention", "decoder.block.*.layer.1.EncDecAttention"),
        Row("decoder.layers.*.feed_forward_norm", "decoder.block.*.layer.2.layer_norm"),
        *_t5_feed_forward("decoder.layers.*.feed_forward", "decoder.block.*.layer.2.DenseReluDense"),
        Row("decoder.norm", "decoder.final_layer_norm"),
        Row("head", "lm_head", transposed=True),
    ),
    copies={
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
        "lm_head.weight": "shared.weight",
    },
    # a table that the first files have and that no version looks at
    buffers=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
    fields=(
        Field("vocab_size", "vocab_size"),
        Field("d_model", "d_model"),
        Field("d_kv", "d_kv"),
        Field("d_ff", "d_ff"),
        Field("num_layers", "num_layers"),
        Field("num_decoder_layers", "num_decoder_layers", 0),
        Field("num_heads", "num_heads"),
        Field("relative_attention_num_buckets", "relative_buckets", 32),
        Field("relative_attention_max_distance", "relative_max_distance", 128),
        Field("feed_forward_proj", "feed_forward", "relu"),
        Field("dropout_rate", "dropout", 0.1),
        Field("layer_norm_epsilon", "layer_norm_eps", 1e-6),
        Field("pad_token_id", "pad_token_id", 0),
        Field("decoder_start_token_id", "decoder_start_token_id"),
        Field("tie_word_embeddings", "tied_head", True),
        Field("scale_decoder_outputs", "tied_head"),
    ),
    fixed={"is_encoder_decoder": (True,), "is_decoder": (False,)},
    prepare=_prepare_t5,
)

# --- Marian: the original Transformer ---


def _prepare_marian(values: dict[str, Any]) -> dict[str, Any]:
    """Compare the lines that say of encoder and decoder what is the same here."""
    for key, other in (
        ("encoder_attention_heads", "decoder_attention_heads"),
        ("encoder_ffn_dim", "decoder_ffn_dim"),
        ("vocab_size", "decoder_vocab_size"),
        ("pad_token_id", "decoder_start_token_id"),
    ):
        if values.get(other) not in (None, values.get(key)):
            raise ValueError(f"{other}={values[other]!r} is not {key}={values.get(key)!r}")
    return {"scale_embedding": False, **values}


def _marian_rows(stack: str, norms: dict[str, str]) -> list[Row]:
    ours, theirs = f"{stack}_layers.*", f"model.{stack}.layers.*"
    rows = []
    for name, key in (("self_attention", "self_attn"), ("cross_attention", "encoder_attn")):
        for letter, matrix in (("Q", "q"), ("K", "k"), ("V", "v"), ("O", "out")):
            rows.append(Row(f"{ours}.{name}.W_{letter}", f"{theirs}.{key}.{matrix}_proj", transposed=True))
    for i in (1, 2):
        rows.append(Row(f"{ours}.feed_forward.linear{i}", f"{theirs}.fc{i}", transposed=True))
    return rows + [Row(f"{ours}.{norm}", f"{theirs}.{key}_layer_norm") for norm, key in norms.items()]


MARIAN = Architecture(
    model_type="marian",
    family=Transformer,
    config_class=TransformerConfig,
    classes={"MarianMTModel": Transformer},
    prefix="model.",
    rows=(
        Row("source_embedding", "model.shared"),
        *_marian_rows("encoder", {"norm1": "self_attn", "norm2": "final"}),
        *_marian_rows("decoder", {"norm1": "self_attn", "norm2": "encoder_attn", "norm3": "final"}),
        Row("output_bias", "final_logits_bias"),
    ),
    copies={
        "model.encoder.embed_tokens.weight": "model.shared.weight",
        "model.decoder.embed_tokens.weight": "model.shared.weight",
        "lm_head.weight": "model.shared.weight",
    },
    buffers=("model.*coder.embed_positions.weight",),  # the sines
    fields=(
        Field("vocab_size", "source_vocab_size"),
        Field("vocab_size", "target_vocab_size"),
        Field("d_model", "d_model"),
        Field("encoder_attention_heads", "num_heads"),
        Field("decoder_attention_heads", "num_heads"),
        Field("encoder_layers", "num_encoder_layers"),
        Field("decoder_layers", "num_decoder_layers"),
        Field("encoder_ffn_dim", "d_ff"),
        Field("decoder_ffn_dim", "d_ff"),
        Field("dropout", "dropout", 0.1),
        Field("max_position_embeddings", "max_length", 1024),
        Field("pad_token_id", "pad_token_id"),
        Field("decoder_start_token_id", "pad_token_id"),
    ),
    fixed={
        "scale_embedding": (True,),
        "activation_function": ("swish", "silu"),
        "share_encoder_decoder_embeddings": (True,),
        "tie_word_embeddings": (True,),
        "is_encoder_decoder": (True,),
    },
    switches={"marian": True},
    prepare=_prepare_marian,
)

ARCHITECTURES = {kind.model_type: kind for kind in (GPT2, LLAMA, BERT_FILES, ALBERT_FILES, T5_FILES, MARIAN)}
