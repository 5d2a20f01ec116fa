"""``tinytransformer pretrain``: each model learns its objective, can be stopped, and is there to use."""

import re
import shlex
import signal
from pathlib import Path

import pytest
from test_cli import refused, said
from test_resume import all_of, everything, no_picture, run  # noqa: F401

from tinytransformer import cli
from tinytransformer.models import GPT, T5, BERTForPretraining
from tinytransformer.tasks import MaskedLanguageModelling, SpanCorruption
from tinytransformer.text import BPETokenizer, CharacterTokenizer, WordPieceTokenizer
from tinytransformer.training import TrainingSettings, load_checkpoint

MODELS = {
    "bert": (BERTForPretraining, WordPieceTokenizer, 150),
    "gpt": (GPT, BPETokenizer, 290),
    "t5": (T5, BPETokenizer, 340),
}
SMALL = shlex.split("--text text.txt --layers 1 --heads 3 --d-model 6 --context 17 --batch-size 5 --seed 3")


def options(model):
    return ["--model", model, *SMALL, "--vocab-size", str(MODELS[model][2])]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text of many paragraphs, and a finished run of each model with what it said."""
    folder = tmp_path_factory.mktemp("pretrain")
    names = ["Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo"]
    things = ["tea", "milk", "rice", "bread", "soup", "fish"]
    paragraphs = [
        f"{a} likes {b}. {a} bought {b} today! Will {c} eat {b}?"
        for a in names
        for c in names
        for b in things
    ]
    (folder / "text.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    return folder


@pytest.fixture
def inside(place, tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_bytes((place / "text.txt").read_bytes())
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("model", MODELS)
def test_a_run_says_what_it_does_and_leaves_a_model_to_go_on_from(inside, capsys, model):
    made, tokenizer, size = MODELS[model]
    text = said(capsys, "pretrain", *options(model), "--steps", "11", "--out", "my run")
    assert "text     text.txt: " in text
    assert re.search(
        rf"model    {made.__name__}, 1( \+ 1)? layers, 3 heads, 6 features.*: [\d,]+ parameters", text
    )
    assert "trained  11 steps in " in text
    rows = {
        "bert": [
            r"hidden tokens, nats each +\d\.\d{4} +\d\.\d{4}",
            r"hidden tokens, guessed right +\d+\.\d% +\d+\.\d%",
            r"next sentence, nats each +\d\.\d{4} +0\.\d{4}",
            r"next sentence, guessed right +\d+\.\d% +\d+\.\d%",
        ],
        "gpt": [r"(unigram|trigram|GPT) +\d+\.\d{4} +\d+\.\d\d +\d\.\d{3}"],
        "t5": [r"all targets +\d\.\d{4} +\d\.\d{4}", r"tokens of the text +\d\.\d{4} +\d\.\d{4}"],
    }
    for row in rows[model]:
        assert re.search(f"\n  {row}\n", text), row
    assert "\nsample   " in text
    command = "train" if model == "gpt" else "pretrain"
    assert f"go on    tinytransformer {command} --resume 'my run' --steps 22\n" in text
    files = {"checkpoints", "log.jsonl", "loss.png", "tokens.bin", "tokens.bin.json"}
    assert {p.name for p in Path("my run").iterdir()} == files
    checkpoint = load_checkpoint("my run")
    assert isinstance(checkpoint.model, made)
    assert isinstance(checkpoint.tokenizer, tokenizer)
    assert checkpoint.tokenizer.vocab_size == checkpoint.model.config.vocab_size <= size
    assert checkpoint.state["step"] == 11
    assert f"model     {made.__name__}, 1" in said(capsys, "info", "my run")


@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_was_stopped_ends_as_one_that_never_was(inside, monkeypatch, capsys, model):
    arguments = ["pretrain", *options(model), "--steps", "13", "--evaluate-every", "4", "--threads", "2"]
    assert run(*arguments, "--out", "whole") == 0
    learning_rates = TrainingSettings.learning_rates

    def pressing(settings):  # Ctrl-C while the seventh step is taken
        rate = learning_rates(settings)
        return lambda step: (signal.raise_signal(signal.SIGINT) if step == 6 else None, rate(step))[1]

    with monkeypatch.context() as patch:
        patch.setattr(TrainingSettings, "learning_rates", pressing)
        assert run(*arguments, "--out", "stopped") == 130
    output = capsys.readouterr().out
    (command,) = re.findall(r"stopped after step 7; go on with:  tinytransformer (.*)\n", output)
    assert load_checkpoint("stopped").state["step"] == 7
    assert run(*shlex.split(command)) == 0
    assert all_of("stopped") == all_of("whole")
    if model == "gpt":  # either command goes on with it
        assert run("pretrain", "--resume", "stopped", "--steps", "15") == 0
        assert load_checkpoint("stopped").state["step"] == 15


def test_the_default_text_and_budget(inside, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("tinytransformer.text.stdlib_docstrings", lambda: ["One. Two. Three."] * 200)

    def steps_within(seconds, model, task, settings):
        asked.append((seconds, type(model).__name__, type(task).__name__))
        return 2

    monkeypatch.setattr("tinytransformer.training.steps_within", steps_within)
    tiny = ["--layers", "1", "--heads", "1", "--d-model", "4"]
    for model in MODELS:
        text = said(capsys, "pretrain", "--model", model, *tiny)
        assert "Python's own documentation" in text
    assert asked == [
        (cli.pretrain.DEFAULTS["bert"]["seconds"], "BERTForPretraining", "MaskedLanguageModelling"),
        (cli.pretrain.DEFAULTS["gpt"]["seconds"], "GPT", "LanguageModelling"),
        (cli.pretrain.DEFAULTS["t5"]["seconds"], "T5", "SpanCorruption"),
    ]
    assert isinstance(load_checkpoint("runs/2").tokenizer, CharacterTokenizer)
    assert max(seconds for seconds, *_ in asked) <= 120


def test_the_switches_of_llama(inside):
    for number, more in enumerate((["train", "--tokenizer", "byte"], ["pretrain", "--model", "gpt"])):
        assert run(*more, *SMALL, "--steps", "2", "--llama", "--heads", "1", "--out", f"{number}") == 0
        config = load_checkpoint(f"{number}").model.config
        found = config.normalization, config.positions, config.feed_forward, config.bias
        assert found == ("rms", "rotary", "swiglu", False)
    positions = ["--llama", "--positions", "learned", "--out", "learned"]
    assert run("train", *SMALL, "--steps", "2", *positions) == 0
    config = load_checkpoint("learned").model.config
    assert (config.normalization, config.positions) == ("rms", "learned")


@pytest.mark.parametrize("model", MODELS)
def test_how_it_trains_is_as_asked(inside, model):
    asked = {"accumulate": 3, "precision": "float16", "threads": 1}
    options = [part for name, value in asked.items() for part in (f"--{name}", str(value))]
    more = ["--model", model, "--steps", "2", *options, "--gradient-checkpointing", "--out", "run"]
    assert run("pretrain", *SMALL, *more) == 0
    settings = load_checkpoint("run").state["settings"]
    assert settings | asked | {"gradient_checkpointing": True} == settings


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ("--model elmo", "--model must be bert, gpt or t5, not 'elmo'"),
        ("--model bert --llama", "--llama is for --model gpt"),
        ("--model t5 --heads 4", "--heads 4 does not divide --d-model 6"),
        ("--model bert --heads 4", "num_heads=4 does not divide d_model=6"),
        ("--model bert --vocab-size 5", "vocab_size 5 is too small"),
        ("--model t5 --vocab-size 300", "vocab_size 300 is too small"),
        ("--model bert --text short.txt", "use a longer text"),
        ("--model t5 --text short.txt", "use a longer text"),
        ("--model t5 --context 5000", "a context of 5000 needs more"),
        ("--model bert --text none.txt", "no text file"),
        ("--model bert --seconds inf", "--seconds must be a finite number"),
        ("--model bert --text alone.txt", "no document has two sentences"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(inside, capsys, arguments, match):
    Path("short.txt").write_text("One. Two.")
    Path("alone.txt").write_text("\n\n".join(f"word{i}" for i in range(300)))
    Path("runs").mkdir()
    capsys.readouterr()
    before = everything(Path())
    assert run("pretrain", *SMALL, "--steps", "3", *arguments.split()) == 2
    assert everything(Path()) == before
    output = capsys.readouterr().err.splitlines()  # a tokenizer may have shown its progress
    assert re.fullmatch(f"error: .*{re.escape(match)}.*", output[-1]), output
    assert not any("error" in line or "Traceback" in line for line in output[:-1])


def test_each_command_says_which_models_it_takes(inside, capsys):
    assert run("pretrain", *options("bert"), "--steps", "2", "--out", "bert") == 0
    needed = "it holds a BERTForPretraining, and a GPT is needed"
    for command in (["train", "--resume", "bert"], ["generate", "bert"], ["evaluate", "bert"]):
        refused(capsys, needed, *command)
    match = "--resume goes on with the run as it was begun: leave out --model, --seed"
    refused(capsys, match, "pretrain", "--resume", "bert", "--model", "bert", "--seed", "1")
    refused(capsys, "has taken its 2 steps: go on with --steps 4", "pretrain", "--resume", "bert")
    refused(capsys, "--force replaces it", "pretrain", *options("t5"), "--steps", "2", "--out", "bert")
    assert run("pretrain", *options("t5"), "--steps", "2", "--out", "bert", "--force") == 0
    assert isinstance(load_checkpoint("bert").model, T5)


def test_documents_of_a_file_are_its_paragraphs(inside):
    recipes = cli.pretrain.RECIPES
    bert, t5 = recipes["bert"](Path("text.txt"), 150), recipes["t5"](Path("text.txt"), 340)
    assert len(bert.chunks()) == 600
    for recipe, kind in ((bert, MaskedLanguageModelling), (t5, SpanCorruption)):
        tokenizer = recipe.tokenizer()
        ids = list(recipe.encoder(tokenizer).encode_chunks(recipe.chunks()))
        import numpy

        facts = {"validation_fraction": 0.1, "batch_size": 3, "context": 17, "seed": 0}
        task = recipe.task(numpy.concatenate(ids), tokenizer, facts)
        assert isinstance(task, kind)
        assert len(task.train_documents) + len(task.validation_documents) == 600
