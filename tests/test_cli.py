"""The command line: each command and option does what its help says, and each mistake is one clear line."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_checkpoint import TEXT
from test_resume import everything, no_picture, run  # noqa: F401

from tinytransformer import backend, cli, generation
from tinytransformer.models import GPT
from tinytransformer.text import BPETokenizer, ByteTokenizer, CharacterTokenizer
from tinytransformer.training import Log, load_checkpoint

PLANNED = shlex.split("--text text.txt --layers 1 --heads 3 --d-model 6 --context 7 --batch-size 5")
SMALL = [*PLANNED, "--steps", "11"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text and two finished runs, by characters and by bytes, and what the first one said."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    here = os.getcwd()
    os.chdir(folder)
    try:
        assert run("train", *SMALL, "--out", "run", "--evaluate-every", "4") == 0
        assert run("train", *SMALL, "--out", "bytes", "--tokenizer", "byte") == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def inside(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


@pytest.fixture
def empty(place, tmp_path, monkeypatch):
    """A folder with the text alone."""
    (tmp_path / "text.txt").write_bytes((place / "text.txt").read_bytes())
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def same_backend():
    """--backend chooses for the whole program: put it back."""
    with backend.use_backend("numpy"):
        yield


def said(capsys, *arguments, code=0):
    """Run a command and return what it wrote to standard output."""
    capsys.readouterr()
    assert run(*arguments) == code
    return capsys.readouterr().out


def refused(capsys, match, *arguments, code=2):
    """The command ends with one line that matches, and changes no file."""
    capsys.readouterr()
    before = everything(Path())
    assert run(*arguments) == code
    assert everything(Path()) == before
    output = capsys.readouterr().err
    assert re.fullmatch(f"error: .*{match}.*\n", output), output


# --- help ---

COMMANDS = dict(typer.main.get_command(cli.app).commands)
GROUPS = {name: command for name, command in COMMANDS.items() if hasattr(command, "commands")}
ALONE = {name: command for name, command in COMMANDS.items() if name not in GROUPS}
ALONE |= {f"{name} {inner}": c for name, group in GROUPS.items() for inner, c in group.commands.items()}


def test_no_arguments_and_help_list_the_commands(capsys):
    for arguments in ((), ("--help",)):
        text = said(capsys, *arguments)
        assert all(f"\n  {name} " in text for name in COMMANDS)
    assert list(COMMANDS)[:5] == ["train", "generate", "evaluate", "info", "pretrain"]
    for name, group in GROUPS.items():
        text = said(capsys, name, "--help")
        assert all(f"\n  {inner} " in text for inner in group.commands)


def test_version(capsys):
    from tinytransformer import __version__

    assert said(capsys, "--version") == f"tinytransformer {__version__}\n"


@pytest.mark.parametrize("name", ALONE)
def test_help_is_complete_and_its_examples_are_real(name, capsys):
    command = ALONE[name]
    text = said(capsys, *name.split(), "--help")
    assert all(p.help for p in command.params)
    named = [p for p in command.params if p.param_type_name == "option"]
    options = {option for p in named for option in (*p.opts, *p.secondary_opts)}
    for option in options:
        assert option in text
    examples = re.findall(r"^ +tinytransformer (.*)", text[text.index("Examples:") :], re.MULTILINE)
    own = [example.removeprefix(name) for example in examples if example.startswith(name)]
    assert len(own) >= 2
    for arguments in own:
        assert {word for word in shlex.split(arguments) if word.startswith("--")} <= options


# --- train ---


def test_train_says_what_it_does_and_leaves_what_it_says(place, empty, capsys):
    text = said(capsys, "train", *SMALL, "--out", "my run")
    assert "text     text.txt: 693 characters, sha256" in text
    assert "split    624 tokens to train on, the 69 after them to validate on; 39 different" in text
    assert re.search(r"model    GPT, 1 layers, 3 heads, 6 features, context 7: 798 parameters, 0.0 MB", text)
    rows = re.findall(r"^  (\w+) +(\d+\.\d{4}) +(\d+\.\d\d) +(\d+\.\d{3})$", text, re.MULTILINE)
    assert [row[0] for row in rows] == ["unigram", "bigram", "trigram", "GPT"]
    for _, nats, perplexity, bits in rows:
        assert float(perplexity) == pytest.approx(np.exp(float(nats)), abs=0.01)
        assert float(bits) == pytest.approx(float(nats) / np.log(2), abs=1e-3)  # one character each
    gap = float(rows[3][3]) - float(rows[2][3])
    (found,) = re.findall(r"the GPT needs (\d\.\d{3}) bits per character more than the trigram", text)
    assert float(found) == pytest.approx(gap, abs=2e-3)
    assert "\nsample   " in text
    assert "write    tinytransformer generate 'my run' --prompt" in text
    assert "go on    tinytransformer train --resume 'my run' --steps 22" in text
    files = {"checkpoints", "log.jsonl", "loss.png", "tokens.bin", "tokens.bin.json"}
    assert {p.name for p in Path("my run").iterdir()} == files
    assert (place / "run/loss.png").read_bytes().startswith(b"\x89PNG")
    assert load_checkpoint("my run").state["step"] == 11


def test_every_option_of_train(empty):
    options = {
        "layers": 2, "heads": 2, "d-model": 10, "context": 9, "positions": "sinusoidal", "dropout": 0.25,
        "batch-size": 3, "accumulate": 2, "threads": 3, "steps": 13, "learning-rate": 0.002, "warmup": 5,
        "schedule": "linear", "weight-decay": 0.05, "clip": 0.5, "evaluate-every": 6, "checkpoint-every": 3,
        "seed": 17, "log": "csv", "tokenizer": "bpe", "vocab-size": 270, "validation-fraction": 0.2,
        "text": "text.txt", "out": "run", "backend": "numpy",
    }  # fmt: skip
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    switches = ("--untied-head", "--gradient-checkpointing", "--force")
    assert run("train", *given, *switches, "--seconds", "1000") == 0
    checkpoint = load_checkpoint("run")
    config, state = checkpoint.model.config, checkpoint.state
    assert (config.num_layers, config.num_heads, config.d_model, config.context_length) == (2, 2, 10, 9)
    assert (config.positions, config.dropout, config.tied_head) == ("sinusoidal", 0.25, False)
    assert isinstance(checkpoint.tokenizer, BPETokenizer)
    assert checkpoint.tokenizer.vocab_size == 270
    assert state["data"]["validation_fraction"] == 0.2
    found = state["settings"]
    assert found["gradient_checkpointing"] is True
    found |= {name: state["data"][name] for name in ("batch_size", "context", "seed")}
    for name in options.keys() & {name.replace("_", "-") for name in found}:
        assert found[name.replace("-", "_")] == options[name], name
    assert len(options.keys() & {name.replace("_", "-") for name in found}) == 13
    rows = Log("run/log.csv").rows()
    assert [row["step"] for row in rows] == list(range(1, 14))
    assert [row["step"] for row in rows if "validation_loss" in row] == [6, 12, 13]
    assert {p.name for p in Path("run/checkpoints").iterdir()} == {"step-00000012", "step-00000013"}
    tested = {f"--{name}" for name in options} | {
        "--tied-head",
        "--llama",
        "--precision",
        "--gradient-checkpointing",
        "--force",
        "--seconds",
        "--resume",
        "--config",
    }
    assert {p.opts[0] for p in COMMANDS["train"].params} == tested


def test_the_seed_decides_the_weights(empty):
    for seed in ("3", "4", "3"):
        assert run("train", *SMALL, "--out", f"run{len(list(Path().iterdir()))}", "--seed", seed) == 0
    weights = [load_checkpoint(f"run{i}").model.state_dict()["norm.weight"].tolist() for i in (2, 3, 4)]
    assert weights[0] == weights[2] != weights[1]


@pytest.mark.parametrize(("kind", "made"), [("char", CharacterTokenizer), ("byte", ByteTokenizer)])
def test_tokenizers(inside, kind, made):
    assert isinstance(load_checkpoint({"char": "run", "byte": "bytes"}[kind]).tokenizer, made)


def test_runs_are_numbered(empty):
    small = [*SMALL, "--steps", "1"]
    assert run("train", *small) == 0
    assert run("train", *small) == 0
    Path("runs/2").rename("runs/4")
    assert run("train", *small) == 0
    assert {p.name for p in Path("runs").iterdir()} == {"1", "2", "4"}


def test_the_default_text_and_the_planned_steps(empty, capsys, monkeypatch):
    asked = []

    def steps_within(seconds, model, task, settings):
        inputs, _ = task.batch(0)
        asked.append((seconds, type(model), len(task.train_tokens) > 300_000, len(inputs), task.batch.seed))
        return 9

    monkeypatch.setattr("tinytransformer.training.steps_within", steps_within)
    model = shlex.split("--layers 1 --heads 1 --d-model 2 --context 64")
    text = said(capsys, "train", *model, "--seconds", "7.5", "--batch-size", "3", "--seed", "5")
    assert asked == [(7.5, GPT, True, 3, 5)]
    assert re.search(
        r"text     Python's own documentation \(standard library\): \d+ characters, sha256 ", text
    )
    assert "plan     7.5 s, about 9 steps here; a given number (--steps) repeats a run" in text
    assert re.search(r"trained  [\d,]+ steps in \d+ s", text)
    found = load_checkpoint("runs/1").state["settings"]
    assert (found["steps"], found["warmup"], found["learning_rate"]) == (9, 2, 4e-3)
    assert "the validation part of Python's own documentation" in said(
        capsys, "evaluate", "runs/1", "--stride", "64"
    )


def test_steps_win_over_seconds(empty, monkeypatch):
    monkeypatch.setattr("tinytransformer.training.steps_within", None)
    assert run("train", *SMALL, "--out", "run", "--seconds", "0.1") == 0
    assert load_checkpoint("run").state["step"] == 11


def test_a_context_of_one(empty):
    assert run("train", *SMALL, "--out", "run", "--context", "1") == 0
    assert run("evaluate", "run") == 0
    assert run("generate", "run", "--tokens", "3") == 0


# --- mistakes ---


def write(name, content):
    Path(name).write_bytes(content)
    return name


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "there is no text file 'bad.txt'"),
        (b"", "'bad.txt' is empty"),
        (b"\xef\xbb\xbf", "'bad.txt' is empty"),
        (b"\x89PNG\r\n\x1a\n\0\0", "'bad.txt' is not UTF-8 text"),
        (b"good text " * 9000 + b"\xff", "'bad.txt' is not UTF-8 text: .* at byte 90000"),
        (b"good text " * 9000 + b"\0", "'bad.txt' is not UTF-8 text: a zero byte at byte 90000"),
    ],
)
def test_texts_that_are_none(empty, capsys, kind, content, match):
    if content is not None:
        write("bad.txt", content)
    arguments = ["--text", "bad.txt", "--tokenizer", kind]
    if kind == "bpe" and content and content.startswith(b"good"):
        arguments += ["--vocab-size", "256"]
    capsys.readouterr()
    before = everything(Path())
    assert run("train", *SMALL, *arguments) == 2
    assert re.fullmatch(f"error: .*{match}.*", capsys.readouterr().err.splitlines()[-1])
    assert everything(Path()) == before


def test_a_directory_and_a_short_text(empty, capsys):
    Path("folder").mkdir()
    refused(capsys, "'folder' is a directory", "train", *SMALL, "--text", "folder")
    write("short.txt", b"twelve bytes")
    refused(capsys, "part has .* of 12 tokens, but context 7 needs", "train", *SMALL, "--text", "short.txt")
    write("short.txt", TEXT[:79].encode())
    match = "the validation part has 8 of 79 tokens, but context 8"
    refused(capsys, match, "train", *SMALL, "--text", "short.txt", "--context", "8")


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ("--heads 4", "num_heads=4 does not divide d_model=6"),
        ("--heads 0", "--heads"),
        ("--layers -1", "--layers"),
        ("--layers two", "--layers"),
        ("--layers 1.5", "--layers"),
        ("--positions random", "positions must be .*, not 'random'"),
        ("--positions sinusoidal --d-model 9", "sinusoidal positions need an even number of features"),
        ("--dropout 1", "--dropout"),
        ("--dropout nan", "dropout"),
        ("--learning-rate 0", "learning_rate must be a positive number, not 0.0"),
        ("--learning-rate nan", "learning.rate"),
        ("--learning-rate inf", "learning_rate must be a positive number, not inf"),
        ("--learning-rate -1", "--learning-rate"),
        ("--weight-decay nan", "weight.decay"),
        ("--clip 0", "clip must be a positive number"),
        ("--warmup 12", "warmup=12 steps must lie between 0 and total=11"),
        ("--steps 0", "--steps"),
        ("--seconds nan", "--seconds"),
        ("--seconds inf", "--seconds must be a finite number, not inf"),
        ("--seconds 0", "--seconds"),
        ("--batch-size 0", "--batch-size"),
        ("--context 0", "--context"),
        ("--context 99999999999999999999", "context 99999999999999999999"),
        ("--validation-fraction 0", "--validation-fraction"),
        ("--validation-fraction nan", "validation.fraction"),
        ("--schedule step", "schedule must be cosine, linear or constant, not 'step'"),
        ("--tokenizer words", "--tokenizer must be char, byte or bpe, not 'words'"),
        ("--tokenizer bpe --vocab-size 3", "vocab_size 3 is too small: 256 bytes"),
        ("--vocab-size 500", "--vocab-size is for --tokenizer bpe"),
        ("--log txt", "--log must be jsonl or csv, not 'txt'"),
        ("--seed -1", "--seed"),
        ("--backend nonsense", "backend 'nonsense' is unknown: choose one of"),
        ("--colour 3", "--colour"),
        ("--layers", "layers"),
        ("book.txt", "book.txt"),
    ],
)
def test_values_that_cannot_be(empty, capsys, arguments, match):
    refused(capsys, match, "train", *SMALL, *arguments.split())


@pytest.mark.parametrize("command", ["train", "generate run", "evaluate run", "info"])
def test_a_device_that_is_not_there(inside, capsys, command, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(backend._modules, "cupy", raising=False)
    refused(capsys, "backend 'cupy' is not installed: pip install", *command.split(), "--backend", "cupy")


def test_unknown_commands(inside, capsys):
    refused(capsys, "trian", "trian")
    refused(capsys, "(?i:checkpoint)", "generate")


@pytest.mark.parametrize("width", ["20", "200"])
def test_errors_are_one_line_whatever_the_terminal(inside, capsys, monkeypatch, width):
    for name, value in {"COLUMNS": width, "NO_COLOR": "1", "FORCE_COLOR": "1", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    refused(capsys, "--colour", "train", "--colour", "red")


@pytest.mark.parametrize(
    ("error", "match", "code"),
    [
        (MemoryError(), "there is not enough memory: use a smaller model", 1),
        (OverflowError("too large\nfor C"), "too large for C", 2),
        (ChildProcessError("process 7 was ended"), "process 7 was ended", 1),
    ],
)
def test_what_the_machine_cannot_do_is_said_in_one_line(empty, capsys, monkeypatch, error, match, code):
    def impossible(*_):
        raise error

    monkeypatch.setattr(GPT, "__init__", impossible)
    refused(capsys, match, "train", *SMALL, code=code)


# --- the output folder ---


def test_nothing_is_overwritten_without_force(inside, capsys):
    refused(
        capsys,
        "'run' is not empty: --resume run goes on.*--force replaces it",
        "train",
        *SMALL,
        "--out",
        "run",
    )
    refused(capsys, "'text.txt' is a file", "train", *SMALL, "--out", "text.txt")
    refused(capsys, "'text.txt' is a file", "train", *SMALL, "--out", "text.txt", "--force")


def test_force_refuses_a_folder_that_is_no_run(inside, capsys):
    Path("photos").mkdir(exist_ok=True)
    write("photos/cat.png", b"cat")
    refused(capsys, "--force replaces runs only, and 'photos' holds something else", "train", *SMALL, "--out",
            "photos", "--force")  # fmt: skip


def test_force_replaces_the_run_and_nothing_else(empty):
    first, second = (
        [*SMALL, "--out", "run", "--log", "csv"],
        [*SMALL, "--out", "run", "--force", "--steps", "3"],
    )
    assert run("train", *first) == 0
    write("run/notes.txt", b"mine")
    assert run("train", *second) == 0
    assert {p.name for p in Path("run/checkpoints").iterdir()} == {"step-00000000", "step-00000003"}
    files = {"checkpoints", "log.jsonl", "loss.png", "tokens.bin", "tokens.bin.json", "notes.txt"}
    assert {p.name for p in Path("run").iterdir()} == files
    assert (
        run("train", *SMALL, "--out", "new", "--force", "--steps", "3") == 0
    )  # where there is nothing to replace
    Path("none").mkdir()
    assert run("train", *SMALL, "--out", "none", "--steps", "3") == 0  # an empty folder is as good as none


@pytest.mark.parametrize(
    "arguments",
    [
        "--text missing.txt",
        "--text missing.txt --tokenizer byte",
        "--text short.txt",
        "--text late.txt --tokenizer byte",
        "--heads 4",
        "--warmup 12",
        "--validation-fraction nan",
        "--backend nonsense",
    ],
)
def test_force_keeps_the_old_run_until_the_new_one_is_known_to_be_good(inside, capsys, arguments):
    write("short.txt", b"short")
    write("late.txt", TEXT.encode() * 200 + b"\xff")
    refused(capsys, "", "train", *SMALL, "--out", "run", "--force", *arguments.split())


@pytest.mark.parametrize("out", ["run", "new"])
def test_a_start_that_is_interrupted_leaves_no_trace(inside, capsys, monkeypatch, out):
    def ctrl_c(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tinytransformer.training.steps_within", ctrl_c)
    before = everything(Path())
    assert run("train", *PLANNED, "--out", out, "--force") == 130
    assert everything(Path()) == before
    assert "Traceback" not in capsys.readouterr().err


def test_a_warm_up_longer_than_the_planned_run_leaves_no_trace(inside, capsys, monkeypatch):
    monkeypatch.setattr("tinytransformer.training.steps_within", lambda *_: 9)
    capsys.readouterr()
    before = everything(Path())
    assert run("train", *PLANNED, "--warmup", "10", "--out", "run", "--force") == 2
    assert "warmup=10 steps must lie between 0 and total=9" in capsys.readouterr().err
    assert everything(Path()) == before


def test_a_folder_that_cannot_be_written(inside, capsys, monkeypatch):
    refused(capsys, "cannot write to 'text.txt/run': ", "train", *SMALL, "--out", "text.txt/run")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", denied)
    refused(capsys, "cannot write to 'new': Permission denied", "train", *SMALL, "--out", "new")


def test_a_full_disk(inside, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "tokens.bin")

    monkeypatch.setattr("tinytransformer.text.TokenFile.write", full)
    refused(capsys, "tokens.bin: No space left on device", "train", *SMALL, "--out", "run", "--force")


# --- checkpoints that are none ---


@pytest.mark.parametrize("command", ["generate", "evaluate", "info", "train --resume"])
def test_what_is_no_checkpoint(inside, capsys, tmp_path, command):
    arguments = command.split()
    refused(capsys, "'nowhere': there is no such folder", *arguments, "nowhere")
    refused(capsys, "'text.txt': it holds no checkpoint", *arguments, "text.txt")
    folder = tmp_path / "step-00000011"
    folder.mkdir()
    for file in load_checkpoint("run").path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:100])
    refused(capsys, "model.safetensors' is damaged or truncated", *arguments, str(folder))
    (folder / "model.safetensors").write_bytes(content)
    description = json.loads((folder / "checkpoint.json").read_text())
    for change, match in [
        ({"model": "LSTM"}, "architecture 'LSTM' is none of"),
        ({"format": "other"}, "does not describe a checkpoint of tinytransformer"),
        ({"version": 7}, "has version 7"),
        ({"tokenizer": {"type": "byte"}}, "the tokenizer has 256 ids, the model 39"),
        ({"step": None}, "lacks a valid step"),
    ]:
        (folder / "checkpoint.json").write_text(json.dumps({**description, **change}))
        refused(capsys, match, *arguments, str(folder))


# --- configuration files ---


def test_a_configuration_sets_options_and_the_line_wins(empty):
    write(
        "c.toml", b'd-model = 12\nheads = 2\ntied-head = false\nlearning-rate = 1\nout = "run"\nlog = "csv"\n'
    )
    rest = shlex.split("--text text.txt --layers 1 --context 7 --batch-size 5 --steps 3")
    assert run("train", *rest, "--config", "c.toml", "--heads", "4") == 0
    checkpoint = load_checkpoint("run")
    config = checkpoint.model.config
    assert (config.d_model, config.num_heads, config.tied_head) == (12, 4, False)
    assert checkpoint.state["settings"]["learning_rate"] == 1.0
    assert Path("run/log.csv").exists()
    assert run("train", *rest, "--out", "other", "--tied-head", "--config", "c.toml") == 0
    assert load_checkpoint("other").model.config.tied_head


def test_a_configuration_for_generate_and_evaluate(inside, capsys):
    write("g.toml", "prompt = '注意'\ntokens = 3\nseed = 1\ntemperature = 0\n".encode())
    assert said(capsys, "generate", "run", "--config", "g.toml").startswith("注意")
    write("e.toml", b"stride = 2\ntext = 'text.txt'")
    assert "text.txt: 692 tokens" in said(capsys, "evaluate", "run", "--config", "e.toml")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"colour = 3", "has no meaning for 'colour'; known are accumulate, backend, batch-size, "),
        (b"[train]\nsteps = 3", "has no meaning for 'train'"),
        (b"d_model = 6", "has no meaning for 'd_model'"),
        (b"untied-head = true", "has no meaning for 'untied-head'"),
        (b"config = 'c.toml'", "has no meaning for 'config'"),
        (b"help = true", "has no meaning for 'help'"),
        (b"[steps]\nx = 3", "steps must be an integer, not {'x': 3}"),
        (b"steps = [3]", "steps must be an integer"),
        (b"steps = '3'", "steps must be an integer, not '3'"),
        (b"steps = 3.0", "steps must be an integer"),
        (b"steps = true", "steps must be an integer"),
        (b"dropout = '0.1'", "dropout must be a number"),
        (b"dropout = false", "dropout must be a number"),
        (b"dropout = nan", "dropout"),
        (b"force = 1", "force must be true or false"),
        (b"text = 3", "text must be a string"),
        (b"schedule = 2020-01-01", "schedule must be a string"),
        (b"steps = 0", "steps"),
        (b"dropout = 7", "dropout"),
        (b"schedule = 'step'", "schedule must be cosine"),
        (b"steps = ", "is not valid TOML"),
        (b"steps = 3\nsteps = 4", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
        (b"a = " + b"[" * 5000, "is not valid TOML"),
        (b"steps = " + b"9" * 5000, "is not valid TOML"),
        (b"seed = " + b"9" * 4000, ""),
    ],
)
def test_configurations_that_are_wrong(empty, capsys, content, match):
    write("c.toml", content)
    if content.startswith(b"seed"):
        assert run("train", *SMALL, "--config", "c.toml") in (0, 2)
        return
    refused(capsys, match, "train", *PLANNED, "--config", "c.toml")


def test_a_configuration_that_is_not_there(empty, capsys):
    refused(capsys, "cannot read the configuration 'none.toml'", "train", "--config", "none.toml")
    refused(capsys, "cannot read the configuration '.'", "train", "--config", ".")


NAMES = st.sampled_from([p.opts[0][2:] for p in COMMANDS["evaluate"].params if p.opts[0].startswith("--")])
STRINGS = ["''", "'text.txt'", "'run'", "'numpy'"]
OTHERS = ["1", "-1", "0", "1e3", "nan", "-inf", "true", "[]", "[1]", "{}", "{x=1}", "1979-05-27", "07:32:00"]
VALUES = st.sampled_from(STRINGS + OTHERS) | st.text(max_size=5).map(json.dumps)


@settings(max_examples=60)
@given(
    content=st.binary(max_size=30)
    | st.text(max_size=30).map(lambda s: s.encode("utf-8", "surrogatepass"))
    | st.lists(st.tuples(NAMES | st.text(max_size=4).map(json.dumps), VALUES), max_size=3).map(
        lambda pairs: "\n".join(f"{name} = {value}" for name, value in pairs).encode("utf-8", "surrogatepass")
    )
)
def test_any_configuration(place, content):
    """Whatever it holds: the command runs, or ends with one line."""
    config = place / "any.toml"
    config.write_bytes(content)
    process = Captured()
    with process:
        code = run(
            "evaluate", str(place / "bytes"), "--config", str(config), "--text", str(place / "text.txt")
        )
    assert code in (0, 2)
    if code:
        assert re.fullmatch("error: [^\n]+\n", process.err)


class Captured:
    """Standard error of a block, where pytest's fixture would be shared by all examples."""

    def __enter__(self):
        import io

        self.kept, sys.stderr = sys.stderr, io.StringIO()
        return self

    def __exit__(self, *_):
        self.err = sys.stderr.getvalue()
        sys.stderr = self.kept


# --- generate ---


def expected(folder, prompt, number, seed, **options):
    """What the library generates, without streaming."""
    checkpoint = load_checkpoint(folder)
    ids = checkpoint.tokenizer.encode(prompt)
    rng = np.random.default_rng(seed)
    tokens = generation.generate(checkpoint.model, ids, number, rng=rng, **options)
    return prompt + checkpoint.tokenizer.decode(tokens) + "\n"


@pytest.mark.parametrize("folder", ["run", "bytes"])
@pytest.mark.parametrize(
    "prompt", ["to be", "注意 力?", "Ω≠\U0001f600 is outside the vocabulary", "longer than the context" * 3]
)
def test_generate_streams_what_the_library_generates(inside, capsys, folder, prompt):
    arguments = ["generate", folder, "--prompt", prompt, "--tokens", "70", "--seed", "3"]
    assert said(capsys, *arguments) == expected(folder, prompt, 70, 3, temperature=0.8)
    assert said(capsys, *arguments, "--temperature", "5") == expected(folder, prompt, 70, 3, temperature=5)


def test_what_is_streamed_is_never_taken_back(inside, monkeypatch, capsys):
    """A character of three bytes appears once it is whole, and each piece of text only once."""
    pieces = []
    echo = typer.echo
    monkeypatch.setattr(typer, "echo", lambda text="", **kw: (pieces.append(text), echo(text, **kw)))
    ids = ByteTokenizer().encode("注a意\u00e9")
    monkeypatch.setattr(generation, "stream", lambda *_, **__: iter([*ids, 0xE6, 0xB3]))
    assert said(capsys, "generate", "bytes", "--prompt", ">") == ">注a意é\ufffd\n"
    assert [piece for piece in pieces if piece] == [">", "注", "a", "意", "é", "\ufffd"]


def test_seeds(inside, capsys):
    texts = [
        said(capsys, "generate", "run", "--seed", seed, "--temperature", "3") for seed in ("3", "4", "3")
    ]
    assert texts[0] == texts[2] != texts[1]
    fresh = {said(capsys, "generate", "run", "--temperature", "3") for _ in range(2)}
    assert len(fresh) == 2


@pytest.mark.parametrize(
    ("options", "meaning"),
    [
        ("--temperature 0", {"temperature": 0}),
        ("--top-k 3", {"top_k": 3, "temperature": 0.8}),
        ("--top-p 0.3 --temperature 2", {"top_p": 0.3, "temperature": 2}),
        ("--top-k 5 --top-p 0.9", {"top_k": 5, "top_p": 0.9, "temperature": 0.8}),
    ],
)
def test_options_of_drawing(inside, capsys, options, meaning):
    text = said(
        capsys, "generate", "run", "--prompt", "to", "--tokens", "40", "--seed", "1", *options.split()
    )
    assert text == expected("run", "to", 40, 1, **meaning)
    assert text != expected("run", "to", 40, 1, temperature=0.8)


def test_no_tokens(inside, capsys):
    assert said(capsys, "generate", "run", "--prompt", "to be", "--tokens", "0") == "to be\n"


def test_stop(inside, capsys):
    options = ["--prompt", "to be", "--seed", "3", "--tokens", "200", "--temperature", "2"]
    whole = said(capsys, "generate", "run", *options)
    text = said(capsys, "generate", "run", *options, "--stop", "t")
    assert text == whole[: whole.index("t", len("to be")) + 1] + "\n"


def test_beams(inside, capsys):
    text = said(capsys, "generate", "run", "--prompt", "to be", "--tokens", "9", "--beams", "3")
    checkpoint = load_checkpoint("run")
    tokens = checkpoint.tokenizer.encode("to be")
    best = generation.beam_search(checkpoint.model, tokens, 9, num_beams=3, length_penalty=1.0)
    assert text == "to be" + checkpoint.tokenizer.decode(best.tokens) + "\n"
    stop = checkpoint.tokenizer.decode(best.tokens[:1])
    arguments = [
        "--prompt",
        "to be",
        "--tokens",
        "9",
        "--beams",
        "3",
        "--length-penalty",
        "0",
        "--stop",
        stop,
    ]
    best = generation.beam_search(
        checkpoint.model, tokens, 9, num_beams=3, length_penalty=0.0, stop_tokens=best.tokens[:1].tolist()
    )
    assert (
        said(capsys, "generate", "run", *arguments)
        == "to be" + checkpoint.tokenizer.decode(best.tokens) + "\n"
    )


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--top-p", "0"], "top_p must be above 0 and at most 1, not 0.0"),
        (["--top-p", "nan"], "top.p"),
        (["--top-k", "0"], "top-k"),
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "nan"], "temperature"),
        (["--tokens", "-1"], "tokens"),
        (["--prompt", ""], "the prompt is empty"),
        (["--stop", "to"], "--stop must be one token, and 'to' is 2"),
        (["--stop", ""], "--stop must be one token, and '' is 0"),
        (["--beams", "0"], "beams"),
        (
            ["--beams", "2", "--top-k", "3", "--seed", "1"],
            "--beams searches and draws nothing: leave out --top-k, --seed",
        ),
        (["--length-penalty", "2"], "--length-penalty is for --beams of 2 or more"),
        (["--beams", "2", "--length-penalty", "nan"], "length_penalty"),
    ],
)
def test_generate_refuses(inside, capsys, arguments, match):
    refused(capsys, match, "generate", "run", *arguments)


def test_ctrl_c_while_generating(inside, capsys, monkeypatch):
    def stream(*_, **__):
        yield 5
        signal.raise_signal(signal.SIGINT)
        yield 5

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        monkeypatch.setattr(generation, "stream", stream)
        assert run("generate", "run") == 130
    finally:
        signal.signal(signal.SIGINT, handler)
    output = capsys.readouterr()
    assert "Traceback" not in output.err


# --- evaluate and info ---


def test_evaluate_gives_the_figure_that_train_gave(empty, capsys):
    text = said(capsys, "train", *SMALL, "--out", "run")
    nats, perplexity, bits = re.search(r"GPT +(\S+) +(\S+) +(\S+)\n", text).groups()
    line = f"{nats} nats per token, perplexity {perplexity}, {bits} bits per character\n"
    for path in ("run", "run/checkpoints", "run/checkpoints/step-00000011"):
        text = said(capsys, "evaluate", path)
        assert text == f"the validation part of text.txt: 68 tokens, 68 characters\n{line}"
    write("validation.txt", TEXT[-69:].encode())
    assert said(capsys, "evaluate", "run", "--text", "validation.txt").endswith(line)
    assert said(capsys, "evaluate", "run", "--stride", "4").endswith(line)  # half of 7, rounded up
    assert not said(capsys, "evaluate", "run", "--stride", "7").endswith(line)
    os.chdir("run/checkpoints/step-00000011")
    assert said(capsys, "evaluate", ".").endswith(line)


def test_evaluate_counts_characters_not_tokens(inside, capsys):
    write("chinese.txt", "注意力机制".encode())
    assert "chinese.txt: 14 tokens, 4 characters" in said(
        capsys, "evaluate", "bytes", "--text", "chinese.txt"
    )
    write("one.txt", "注".encode())
    assert "inf bits per character" in said(capsys, "evaluate", "bytes", "--text", "one.txt")


def test_evaluate_refuses(inside, capsys):
    write("one.txt", b"a")
    refused(capsys, "one.txt has 1 tokens, and at least 2 are needed", "evaluate", "run", "--text", "one.txt")
    refused(
        capsys,
        "--stride 8 would leave out tokens: it is at most the context of 7",
        "evaluate",
        "run",
        "--stride",
        "8",
    )
    refused(capsys, "there is no text file 'none.txt'", "evaluate", "run", "--text", "none.txt")
    tokens = Path("bytes/tokens.bin.json")
    whole = tokens.read_text()
    try:
        tokens.write_text(whole.replace("256", "300"))
        refused(
            capsys, "tokens.bin' is not what the checkpoint was trained on.*300 ids, not", "evaluate", "bytes"
        )
    finally:
        tokens.write_text(whole)


def test_info(inside, capsys):
    import numpy

    text = said(capsys, "info")
    assert f"NumPy {numpy.__version__}" in text
    assert re.search(r"backends  .*numpy.*; new arrays on numpy\ncores     \d+\n", text)
    assert "layers" not in text
    text = said(capsys, "info", "run")
    assert "step 11, CharacterTokenizer(vocab_size=39)" in text
    assert "GPT, 1 layers, 3 heads, 6 features, context 7: 798 parameters" in text
    assert "token_embedding: Embedding(39, 6), 234 parameters" in text


# --- another backend ---


def test_every_command_runs_on_another_backend(empty, capsys):
    """The strict stand-in for CuPy refuses what CuPy would; the numbers are those of NumPy."""
    assert run("train", *PLANNED, "--steps", "3", "--out", "numpy") == 0
    assert run("train", *PLANNED, "--steps", "3", "--out", "fake", "--backend", "fake") == 0
    here, there = load_checkpoint("numpy"), load_checkpoint("fake")
    assert here.model.norm.weight.backend == "fake"  # it is the default now
    for name, array in here.model.state_dict().items():
        if not name.endswith("W_K.bias"):  # its gradient is 0 but for rounding, which Adam blows up
            np.testing.assert_allclose(
                there.model.state_dict()[name], array, rtol=1e-3, atol=1e-5, err_msg=name
            )
    texts = []
    for name in ("numpy", "fake"):
        texts.append(said(capsys, "generate", "fake", "--seed", "3", "--tokens", "20", "--backend", name))
        texts.append(said(capsys, "evaluate", "fake", "--backend", name))
        texts.append(said(capsys, "generate", "fake", "--beams", "2", "--tokens", "5", "--backend", name))
        assert "backends" in said(capsys, "info", "fake", "--backend", name)
    assert texts[:3] == texts[3:]
    assert run("train", "--resume", "fake", "--steps", "4", "--backend", "fake") == 0


# --- as a program ---


def program(*arguments, **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), **environment}
    command = [sys.executable, "-m", "tinytransformer", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_terminal_without_utf8(inside):
    arguments = ["generate", "run", "--prompt", "注意力", "--tokens", "9", "--temperature", "9"]
    out, err = program(*arguments, PYTHONIOENCODING="ascii", LC_ALL="C").communicate()
    assert b"Traceback" not in err
    assert err == b""
    assert out


@pytest.mark.skipif(os.name == "nt", reason="arguments are text on Windows")
def test_a_prompt_that_is_not_utf8(inside):
    out, err = program("generate", "run", "--prompt", b"a\xffb", "--tokens", "2").communicate()
    assert err == b""
    assert out.startswith(b"a?b")


def test_a_pipe_that_is_closed(inside):
    process = program("generate", "run", "--tokens", "3000")
    assert process.stdout.read(1)
    process.stdout.close()
    assert process.wait() in (0, 1)
    assert process.stderr.read() == b""
    process.stderr.close()


def test_the_exit_code_of_the_program(inside):
    process = program("info", "nowhere")
    out, err = process.communicate()
    assert process.returncode == 2
    assert out.startswith(b"tinytransformer")
    assert err == b"error: cannot load a checkpoint from 'nowhere': there is no such folder\n"
