"""A run that was stopped, at any moment and in any way, ends as one that never was: bit for bit."""

import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_checkpoint import TEXT, small_trainer, state_of

from tinytransformer import cli
from tinytransformer.models import GPT
from tinytransformer.training import CheckpointError, Log, Trainer, latest_checkpoint, load_checkpoint

STEPS = 60
OPTIONS = (
    "--text text.txt --layers 1 --heads 3 --d-model 6 --context 7 --batch-size 5 --dropout 0.2 "
    f"--accumulate 2 --steps {STEPS} --evaluate-every 11"
).split()


def run(*arguments):
    """Run the command line here, and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return caught.value.code


def all_of(folder):
    """What a finished run leaves, apart from the time it took."""
    checkpoint = load_checkpoint(folder)
    arrays = {**checkpoint.model.state_dict(), **checkpoint.optimizer_state()}
    (log,) = Path(folder).glob("log.*")
    return {
        **{name: (str(a.dtype), a.shape, a.tobytes()) for name, a in arrays.items()},
        **{name: value for name, value in checkpoint.state.items() if name not in ("seconds", "settings")},
        "log": [{k: v for k, v in row.items() if k != "seconds"} for row in Log(log).rows()],
    }


@pytest.fixture(autouse=True)
def no_picture(monkeypatch):
    """Leave out the plot at the end of a run, which takes longer than the run."""
    monkeypatch.setattr("tinytransformer.plotting.loss_curve", lambda rows, path, **_: path.write_bytes(b""))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a text and a run that was never stopped."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    here = os.getcwd()
    os.chdir(folder)
    try:
        assert run("train", *OPTIONS, "--out", "whole") == 0
    finally:
        os.chdir(here)
    return folder


@pytest.fixture
def inside(place, monkeypatch):
    monkeypatch.chdir(place)
    return place


def test_the_same_options_give_the_same_run(inside):
    assert run("train", *OPTIONS, "--out", "again") == 0
    assert all_of("again") == all_of("whole")
    assert len(all_of("whole")["log"]) == STEPS


def test_dropout_moves_the_generator(inside):
    """Or the runs below could be alike though its state is lost."""
    first = load_checkpoint("whole").state["rng"]
    assert run("train", *OPTIONS, "--out", "shorter", "--checkpoint-every", "50") == 0
    assert load_checkpoint("shorter/checkpoints/step-00000050").state["rng"] != first


def started(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "tinytransformer", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def log_size():
    log = Path("killed", "log.csv")
    return log.stat().st_size if log.exists() else 0


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_killed_again_and_again(inside):
    """With a checkpoint at each step most kills fall into the writing of one."""
    chance = random.Random(time.time_ns())
    stops = [signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGKILL, signal.SIGKILL]
    arguments = ["train", *OPTIONS, "--out", "killed", "--checkpoint-every", "1", "--log", "csv"]
    done = 0
    while stops and done < STEPS:
        before = log_size()
        process = started(*arguments)
        while process.poll() is None and log_size() <= before:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))
        process.send_signal(stop := stops.pop(0))
        output = process.communicate()[0]
        assert process.returncode in (-stop, 130, 0), output
        assert "Traceback" not in output
        checkpoint = load_checkpoint("killed")
        assert checkpoint.optimizer_state()  # whole
        assert checkpoint.state["step"] > done or stop == signal.SIGKILL
        done = checkpoint.state["step"]
        with open("killed/log.csv", "a") as log:
            log.write("61,0.")  # a line cut short, as a crash of the machine may leave it
        arguments = ["train", "--resume", "killed"]
    assert len(stops) < 4
    if done < STEPS:
        assert run(*arguments) == 0
    assert all_of("killed") == all_of("whole")
    assert sorted(p.name for p in Path("killed/checkpoints").iterdir()) == ["step-00000059", "step-00000060"]


# --- Ctrl-C ---


def interrupted(monkeypatch, step, times=1):
    """Press Ctrl-C in the middle of a step."""
    loss = GPT.loss

    def pressing(model, inputs, targets):
        if len(called) == 2 * step - 1:  # two batches for each step
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        called.append(step)
        return loss(model, inputs, targets)

    called = []
    monkeypatch.setattr(GPT, "loss", pressing)
    return called


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(inside, monkeypatch, capsys):
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        called = interrupted(patch, step=17)
        assert run("train", *OPTIONS, "--out", "a stop") == 130
    assert len(called) == 2 * 17
    assert signal.getsignal(signal.SIGINT) is handler
    output = capsys.readouterr()
    (command,) = re.findall(r"stopped after step 17; go on with:  tinytransformer (.*)\n", output.out)
    assert command == "train --resume 'a stop'"
    assert "Traceback" not in output.err + output.out
    assert "error" not in output.err
    assert load_checkpoint("a stop").state["step"] == 17
    assert Log("a stop/log.jsonl").rows()[-1]["step"] == 17
    assert run(*shlex.split(command)) == 0
    assert all_of("a stop") == all_of("whole")


def test_the_second_ctrl_c_stops_at_once(inside, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        called = interrupted(patch, step=17, times=2)
        assert run("train", *OPTIONS, "--out", "stop", "--checkpoint-every", "5") == 130
    assert len(called) == 2 * 17 - 1
    assert "stopped after step 16; go on with" in capsys.readouterr().out
    assert load_checkpoint("stop").state["step"] == 15
    assert run("train", "--resume", "stop") == 0
    assert all_of("stop") == all_of("whole")


def test_ctrl_c_in_the_last_step_ends_the_run_as_usual(inside, monkeypatch):
    with monkeypatch.context() as patch:
        interrupted(patch, step=STEPS)
        assert run("train", *OPTIONS, "--out", "last") == 0
    assert all_of("last") == all_of("whole")


def test_training_outside_the_main_thread(tmp_path):
    """Where Python lets nobody listen to signals."""
    trainer = small_trainer(tmp_path)
    thread = threading.Thread(target=trainer.run, kwargs={"progress": False})
    thread.start()
    thread.join()
    assert load_checkpoint(tmp_path).state["step"] == 13


# --- what can be wrong with a run that is to go on ---


@pytest.fixture
def stopped(inside, tmp_path, monkeypatch):
    """A run that was stopped after step 20; it holds checkpoints of steps 15 and 20."""
    if not Path("stopped").exists():
        with monkeypatch.context() as patch:
            interrupted(patch, step=20)
            assert run("train", *OPTIONS, "--out", "stopped", "--checkpoint-every", "5") == 130
    shutil.copytree("stopped", tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return Path("run")


FACTS = {
    "text": "t", "fingerprint": "3", "validation_fraction": 0.1, "batch_size": 5, "context": 7, "seed": 0
}  # fmt: skip


def refused(capsys, match, *arguments):
    capsys.readouterr()
    before = everything(Path())
    assert run("train", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"error: .*{match}.*", line)
    assert everything(Path()) == before


def everything(folder):
    return {path: path.is_file() and path.read_bytes() for path in folder.rglob("*")}


def test_a_damaged_checkpoint_is_named_and_the_one_before_can_be_used(stopped, capsys, place):
    newest = latest_checkpoint(stopped)
    assert newest.name == "step-00000020"
    for name in ("model.safetensors", "optimizer.safetensors"):
        content = (newest / name).read_bytes()
        (newest / name).write_bytes(content[:-40])
        refused(capsys, f"step-00000020/{name}.*remove its folder to use the one before", "--resume", "run")
        (newest / name).write_bytes(content)
    shutil.rmtree(newest)
    assert run("train", "--resume", "run") == 0
    assert all_of("run") == all_of(place / "whole")


def test_a_kill_before_the_first_checkpoint(stopped, capsys):
    shutil.rmtree(stopped / "checkpoints")
    refused(capsys, "no checkpoint.*start it again with --out run --force", "--resume", "run")
    (stopped / "checkpoints" / ".partial").mkdir(parents=True)
    (stopped / "checkpoints" / ".partial" / "checkpoint.json").write_text("{")
    refused(capsys, "no checkpoint.*start it again with --out run --force", "--resume", "run")


def test_there_is_a_checkpoint_before_the_first_step(tmp_path, monkeypatch):
    def first_step(trainer):
        assert load_checkpoint(tmp_path).state["step"] == 0
        raise InterruptedError

    monkeypatch.setattr(Trainer, "train_step", first_step)
    with pytest.raises(InterruptedError):
        small_trainer(tmp_path).run(progress=False)


def test_going_on_from_an_older_checkpoint_would_overwrite_the_later_ones(stopped, capsys):
    older = "run/checkpoints/step-00000015"
    match = "cannot go on from step 15 in 'run': it holds a checkpoint of step 20"
    refused(capsys, match, "--resume", older)
    shutil.rmtree("run/checkpoints/step-00000020")
    assert run("train", "--resume", older, "--steps", "21") == 0


def test_a_new_run_does_not_mix_with_the_one_in_its_folder(tmp_path):
    small_trainer(tmp_path).run(progress=False)
    before = everything(tmp_path)
    with pytest.raises(CheckpointError, match="it holds a checkpoint of step 13"):
        small_trainer(tmp_path).run(progress=False)
    assert everything(tmp_path) == before


def test_a_finished_run(inside, capsys):
    assert run("train", "--resume", "whole") == 2
    assert "has taken its 60 steps: go on with --steps 120 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("settings", {"steps": "many"}, "its settings: steps must be a positive integer"),
        ("settings", {"colour": 1}, "its settings.*colour"),
        ("settings", None, "its settings"),
        ("log", "../../log.csv", "its settings: there is no log"),
        ("log", [], "its settings: there is no log"),
        ("data", None, "does not say which text it was trained on"),
        (
            "data",
            {**FACTS, "fingerprint": 3},
            "does not say which text",
        ),
        (
            "data",
            FACTS,
            "not what the checkpoint was trained",
        ),
        ("rng", {"bit_generator": "MT19937"}, "cannot go on from"),
        ("rng", [], "cannot go on from"),
        ("seconds", float("nan"), "cannot go on from.*seconds"),
        ("seconds", "x", "cannot go on from"),
    ],
)
def test_a_state_that_is_wrong(stopped, capsys, name, change, match):
    file = latest_checkpoint(stopped) / "checkpoint.json"
    state = json.loads(file.read_text())
    state[name] = {**state[name], **change} if name == "settings" and change else change
    file.write_text(json.dumps(state))
    refused(capsys, match, "--resume", "run")


def test_another_text_or_vocabulary(stopped, capsys):
    tokens = stopped / "tokens.bin.json"
    whole = tokens.read_text()
    tokens.write_text(whole.replace("sha256", "sha512"))
    refused(capsys, "tokens.bin' is not what the checkpoint was trained on", "--resume", "run")
    tokens.write_text(re.sub(r'"vocab_size": \d+', '"vocab_size": 3', whole))
    refused(capsys, "tokens.bin' is not what the checkpoint was trained on.* 3 ids, not", "--resume", "run")
    tokens.unlink()
    refused(capsys, "tokens.bin", "--resume", "run")


def test_a_log_that_is_none(stopped, capsys):
    for content in ("hello\n", "[1]\n", "{}\n", '{"step": "x"}\n', "[" * 100_000 + "\n"):
        (stopped / "log.jsonl").write_text(content)
        refused(capsys, "log.jsonl' is damaged: not every line is a row of a log", "--resume", "run")


def test_a_log_that_is_gone_is_begun_again(stopped):
    (stopped / "log.jsonl").unlink()
    assert run("train", "--resume", "run") == 0
    assert [row["step"] for row in Log("run/log.jsonl").rows()] == list(range(21, 61))


def test_more_steps_than_planned(stopped, capsys):
    assert run("train", "--resume", "run", "--steps", "67") == 0
    assert "going on from step 20 of 67 in run" in capsys.readouterr().out
    assert load_checkpoint("run").state["settings"]["steps"] == 67
    assert [row["step"] for row in Log("run/log.jsonl").rows()] == list(range(1, 68))


def test_seconds_add_up_over_the_sittings(tmp_path):
    first = small_trainer(tmp_path)
    first.seconds = 1000.0
    first.run(progress=False)
    assert 1000 < load_checkpoint(tmp_path).state["seconds"] < 1100
    assert all(1000 < row["seconds"] < 1100 for row in Log(tmp_path / "log.jsonl").rows())


@pytest.mark.parametrize(
    "options", ["--layers 2", "--text text.txt", "--out o", "--force", "--seconds 3", "--seed 1"]
)
def test_options_that_a_resumed_run_would_ignore(stopped, capsys, options):
    option = options.split()[0]
    refused(
        capsys,
        f"--resume goes on with the run as it was begun: leave out {option}",
        "--resume",
        "run",
        *options.split(),
    )


def test_a_configuration_file_that_a_resumed_run_would_ignore(stopped, capsys):
    Path("c.toml").write_text("layers = 2")
    refused(capsys, "leave out --layers, --config", "--resume", "run", "--config", "c.toml")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_trainers_resume_alike_in_one_process(tmp_path, accumulate):
    whole = small_trainer(accumulate=accumulate)
    whole.run(progress=False)
    first = small_trainer(tmp_path, accumulate=accumulate)
    for _ in range(7):
        first.train_step()
    first.save()
    second = small_trainer(tmp_path, accumulate=accumulate)
    second.restore(load_checkpoint(tmp_path))
    second.run(progress=False)
    assert state_of(second) == state_of(whole)
