"""Real checkpoints: what is read computes what the reference computed, and what does not fit is refused."""

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
    BERTForPretraining,
    BERTForQuestionAnswering,
    BERTForSequenceClassification,
    BERTForTokenClassification,
    GPTConfig,
    T5Config,
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
    return found, [real if logits.shape[:2] == real.shape else np.ones(logits.shape[:2], bool) for logits in found]


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
        assert np.linalg.norm(g) == pytest.approx(norm, rel=1e-8)
        for k in range(DIRECTIONS):
            # a direction has about as much of a gradient's error as any of its entries
            assert g @ direction(g.size, k) == pytest.approx(along[k], abs=1e-8 * norm), (key, k)


def until_stop(tokens):
    """What was generated, up to the token that ends it."""
    tokens = tokens.tolist()
    return tokens[: tokens.index(STOP) + 1] if STOP in tokens else tokens


def prompts(name, model, reference):
    """The model as generation asks for it, its prompts, and how many tokens the reference has of them."""
    ids, mask = reference["input_ids"], reference["attention_mask"].astype(bool)
    if name.startswith("t5"):
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
