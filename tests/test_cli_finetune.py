"""``finetune``, ``predict``, ``export``: each option does what its help says, each mistake is one line."""

import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from test_cli import refused, said
from test_resume import run
from test_tasks_classification import sentences

from tinytransformer import backend
from tinytransformer.models import BERT, GPT, BERTConfig, BERTForSequenceClassification, GPTConfig
from tinytransformer.pretrained import load_pretrained, load_pretrained_tokenizer
from tinytransformer.text import ByteTokenizer, CharacterTokenizer, WordPieceTokenizer
from tinytransformer.training import Log, Trainer, load_checkpoint, save_checkpoint

ROWS = "text,label\n" + "".join(f"{text},{label}\n" for text, label in sentences(120, 6))
QUESTIONS = "question\tcontext\tanswer\n" + "".join(
    f"What does {a} do?\t{a} eats. {b} sleeps {i}.\teats\n"
    for i, (a, b) in enumerate([("cat", "dog"), ("cow", "hen")] * 9)
)
CLASSIFY = shlex.split("finetune --task classify --data rows.csv --batch-size 16")
ANSWER = shlex.split("finetune --task qa --data questions.tsv --batch-size 5 --steps 7")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with rows, a fine-tuned run of 41 steps, and one of 11 from it."""
    folder = tmp_path_factory.mktemp("finetune")
    (folder / "rows.csv").write_text(ROWS, encoding="utf-8")
    (folder / "questions.tsv").write_text(QUESTIONS, encoding="utf-8")
    here = os.getcwd()
    os.chdir(folder)
    try:
        assert run(*CLASSIFY, "--steps", "41", "--out", "run") == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def inside(place, monkeypatch, tmp_path):
    """A folder of its own with the rows and the run."""
    for name in ("rows.csv", "questions.tsv", "run"):
        (tmp_path / name).symlink_to(place / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def same_backend():
    with backend.use_backend("numpy"):
        yield


def weights(path):
    return load_checkpoint(path).model.state_dict()


def moved(before, after):
    return {name for name in before if not np.array_equal(before[name], after[name])}


def test_it_ends_with_metric_baseline_examples_and_commands_that_work(inside, capsys):
    output = said(capsys, *CLASSIFY, "--steps", "60", "--learning-rate", "2e-3", "--out", "b")
    baseline = re.search(r"  always '\w+' +(0\.\d+) +(0\.\d+)\n", output)
    found = re.search(r"  BERTForSequenceClassification +(\d\.\d+) +(\d\.\d+)\n", output)
    assert float(found[1]) > float(baseline[1]) + 0.2
    assert len(re.findall(r"  says \w+, and it is \w+\n", output)) == 4
    command = re.search(r"use      tinytransformer (.*) --text '…'", output)[1]
    answer = said(capsys, *shlex.split(command), "--text", "tide reef gull salt")
    assert re.fullmatch(r"sea  0\.\d{3}\n\w+  0\.\d{3}\n\w+  0\.\d{3}\n", answer)
    assert sum(map(float, re.findall(r"\d\.\d+", answer))) == pytest.approx(1, abs=0.002)
    assert Log(Path("b/log.jsonl")).rows()[-1]["step"] == 60
    assert max(row["learning_rate"] for row in Log(Path("b/log.jsonl")).rows()) == pytest.approx(2e-3)
    again = re.search(r"go on    tinytransformer (.*)", output)[1]
    assert again == "finetune --resume b --steps 120"


def test_questions_are_answered_with_their_place(inside, capsys):
    output = said(capsys, *ANSWER, "--out", "b")
    assert re.search(r"validation +exact match +F1\n  .* +[01]\.\d+ +[01]\.\d+\n  BERTForQ\w+ +[01]", output)
    assert len(re.findall(r"  says '.*', and it is 'eats'\n", output)) >= 1
    text = "The cow eats. The hen sleeps."
    answer = said(capsys, "predict", "b", "--question", "What does hen do?", "--context", text)
    found = re.fullmatch(r"(.*)  \(characters (\d+) to (\d+)\)\n", answer)
    assert text[int(found[2]) : int(found[3])] == found[1]


def test_a_run_that_goes_on_is_one_that_never_stopped(inside, capsys, monkeypatch):
    arguments = [*CLASSIFY, "--steps", "20", "--seed", "3"]
    assert run(*arguments, "--out", "whole") == 0
    step = Trainer.train_step

    def stops(trainer):
        row = step(trainer)
        if trainer.step == 7:
            os.kill(os.getpid(), 2)
        return row

    monkeypatch.setattr(Trainer, "train_step", stops)
    output = said(capsys, *arguments, "--out", "cut", code=130)
    monkeypatch.undo()
    os.chdir(inside)
    command = re.search(r"go on with:  tinytransformer (.*)", output)[1]
    output = said(capsys, *shlex.split(command))
    assert "going on from step 7 of 20" in output
    assert not moved(weights("whole"), weights("cut"))
    assert moved(weights("whole"), weights("run"))


def test_a_frozen_encoder_does_not_move(inside, capsys):
    output = said(capsys, *CLASSIFY, "--steps", "5", "--model", "run", "--freeze-encoder", "--out", "b")
    before, after = weights("run"), weights("b")
    names = {name for name in before if "pooler" in name or "classifier" in name}
    assert moved(before, after) == names
    assert re.search(r"([\d,]+) learn", output)[1] == f"{sum(before[n].size for n in names):,}"
    assert run("finetune", "--resume", "b", "--steps", "8") == 0
    assert moved(after, weights("b")) == names


def test_layers_further_down_learn_more_slowly(inside):
    common = [*CLASSIFY, "--steps", "1", "--model", "run", "--learning-rate", "1e-3"]
    assert run(*common, "--out", "all") == 0
    assert run(*common, "--layer-decay", "0.25", "--out", "less") == 0
    before, every, less = weights("run"), weights("all"), weights("less")
    # the first step of Adam is the learning rate times the sign of the gradient
    for part, scale in {"layers.0": 1 / 16, "layers.1": 1 / 4, "pooler": 1}.items():
        name = next(
            n for n in before if part in n and n.endswith("bias") and "norm" not in n and "W_K" not in n
        )
        steps = [np.abs(after[name] - before[name]).max() for after in (every, less)]
        assert steps[1] / steps[0] == pytest.approx(scale, rel=0.02)
    assert run("finetune", "--resume", "less", "--steps", "2") == 0


def test_lora_moves_two_matrices_of_each_layer_and_the_head(inside, capsys):
    output = said(capsys, *CLASSIFY, "--steps", "5", "--model", "run", "--lora", "3", "--out", "b")
    before, after = weights("run"), weights("b")
    changed = moved(before, after)
    assert {name for name in changed if "pooler" not in name and "classifier" not in name} == {
        f"encoder.layers.{i}.self_attention.{which}.weight" for i in (0, 1) for which in ("W_Q", "W_V")
    }
    assert any("classifier" in name for name in changed)
    name = "encoder.layers.0.self_attention.W_Q.weight"
    assert np.linalg.matrix_rank(after[name] - before[name], tol=1e-6) == 3
    assert "go on" not in output
    assert said(capsys, "predict", "b", "--text", "tide").count("\n") == 3
    refused(capsys, "are merged into the model: begin a new run from it", "finetune", "--resume", "b")


def test_a_pretrained_folder_is_where_to_start(inside, capsys):
    words = sorted({word for line in ROWS.splitlines() for word in re.findall(r"\w+", line)})
    tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    config = BERTConfig(tokenizer.vocab_size, 23, 12, 2, 3, 24)
    BERT(config, np.random.default_rng(0)).save_pretrained("hub")
    tokenizer.save_vocabulary("hub/vocab.txt")
    output = said(capsys, *CLASSIFY, "--steps", "3", "--model", "hub", "--out", "b")
    assert "from hub" in output
    loaded = load_checkpoint("b")
    assert isinstance(loaded.model, BERTForSequenceClassification)
    assert loaded.model.config.d_model == 12
    assert loaded.tokenizer.vocabulary == tokenizer.vocabulary
    # dropout of its own: all tokens are seen; weights differ with the seed
    assert run(*CLASSIFY, "--steps", "3", "--model", "hub", "--out", "c") == 0
    assert run(*CLASSIFY, "--steps", "3", "--model", "hub", "--out", "d", "--seed", "5") == 0
    assert not moved(weights("b"), weights("c"))
    assert "classifier.weight" in moved(weights("b"), weights("d"))


def test_time_sets_the_steps(inside, capsys):
    output = said(capsys, *CLASSIFY, "--seconds", "1", "--out", "b")
    seconds = float(re.search(r"trained  [\d,]+ steps in (\d+) s", output)[1])
    assert seconds <= 2


def test_force_replaces_a_run_and_nothing_else(inside, capsys):
    arguments = [*CLASSIFY, "--steps", "2", "--out", "b"]
    assert run(*arguments) == 0
    refused(capsys, "is not empty", *arguments)
    assert run(*CLASSIFY, "--steps", "3", "--out", "b", "--force") == 0
    assert load_checkpoint("b").state["step"] == 3
    Path("other").mkdir()
    Path("other/letter.txt").write_text("dear")
    refused(capsys, "holds something else", *CLASSIFY, "--steps", "2", "--out", "other", "--force")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "sing"], "--task must be classify, qa, summarize or translate, not 'sing'"),
        (["--data", "none.csv"], "there is no text file 'none.csv'"),
        (["--data", "rows.txt"], "must end in .csv, .tsv or .jsonl"),
        (["--data", "questions.tsv"], "line 1: there is no column 'text'"),
        (["--freeze-encoder"], "--freeze-encoder is for a trained model: name one with --model"),
        (["--layer-decay", "0.5", "--lora", "2"], "--layer-decay, --lora is for a trained model"),
        (["--model", "run", "--lora", "2", "--freeze-encoder"], "leave out --freeze-encoder"),
        (["--model", "no/such/model"], "is no folder, no .gguf file, and no name"),
        (["--direction", "zh-en"], "--direction is not for --task classify"),
        (["--beams", "2"], "--beams is not for --task classify"),
        (["--seconds", "inf"], "--seconds must be a finite number"),
        (["--resume", "run", "--seed", "3"], "leave out --data, --out, --seed"),
    ],
)
def test_what_cannot_be_is_one_line(inside, capsys, arguments, message):
    Path("rows.txt").write_text("a,b\n")
    data = [] if "--data" in arguments else ["--data", "rows.csv"]
    refused(capsys, re.escape(message), "finetune", *data, *arguments, "--out", "new")


def test_a_run_whose_rows_changed_does_not_go_on(inside, capsys):
    Path("own.csv").write_text(ROWS)
    assert run("finetune", "--data", "own.csv", "--steps", "2", "--out", "b") == 0
    refused(capsys, "has taken its 2 steps", "finetune", "--resume", "b")
    Path("own.csv").write_text(ROWS + "wave,sky\n")
    refused(capsys, "the rows are not those of the run any more", "finetune", "--resume", "b", "--steps", "9")


def test_predict_says_what_it_needs(inside, capsys):
    refused(capsys, "is for the task classify: give --text and no other", "predict", "run")
    refused(capsys, "give --text and no other", "predict", "run", "--text", "a", "--question", "b")
    refused(capsys, "--beams is not for the task classify", "predict", "run", "--text", "a", "--beams", "2")
    refused(capsys, "there is no such folder", "predict", "nowhere", "--text", "a")


def test_a_run_is_exported_for_other_tools(inside, capsys):
    output = said(capsys, "export", "run", "for others")
    assert output.startswith("BERTForSequenceClassification and its tokenizer in for others: config.json, ")
    run_of = load_checkpoint("run")
    model, tokenizer = load_pretrained("for others"), load_pretrained_tokenizer("for others")
    ids = run_of.tokenizer.encode_pair("tide reef clay")[0]
    np.testing.assert_array_equal(tokenizer.encode_pair("tide reef clay")[0], ids)
    np.testing.assert_array_equal(model(ids[None]).numpy(), run_of.model.eval()(ids[None]).numpy())
    config = json.loads(Path("for others/config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "sea", "1": "sky", "2": "soil"}
    assert config["label2id"] == {"sea": 0, "sky": 1, "soil": 2}
    said(capsys, *CLASSIFY, "--steps", "1", "--model", "for others", "--out", "b")
    refused(capsys, "'for others' exists: name a new folder", "export", "run", "for others")


def test_other_models_are_exported_if_there_is_a_place_for_them(inside, capsys):
    model = GPT(GPTConfig(256, 5, 8, 1, 2))
    save_checkpoint(Path("gpt/checkpoints"), 1, model, ByteTokenizer(), {}, {})
    said(capsys, "export", "gpt", "others", "--max-shard-size", "1KB")
    assert Path("others/model.safetensors.index.json").exists()
    np.testing.assert_array_equal(load_pretrained("others")([[3]]).numpy(), model.eval()([[3]]).numpy())
    letters = CharacterTokenizer.train("abc")
    model = GPT(GPTConfig(letters.vocab_size, 5, 8, 1, 2))
    save_checkpoint(Path("char/checkpoints"), 1, model, letters, {}, {})
    refused(capsys, "no file of Hugging Face has a place for a Char", "export", "char", "none")
