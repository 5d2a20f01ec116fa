"""What the commands that train have in common: the folder of a run, how one begins, and how one goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import typer

from .app import UsageError, summary

LONG_TEXT = 10_000_000  # bytes from which on reading it shows its progress
RUN_FILES = ("checkpoints", "loss.png", "log.jsonl", "log.csv", "tokens.bin", "tokens.bin.json")


class Recipe(ABC):
    """A kind of run: which model learns what from a text, and what is told of it in the end.

    Parameters
    ----------
    text : Path or None
        The text to train on; ``default_text`` by default.
    """

    architecture: ClassVar[str]  # the class of the model
    command: ClassVar[str]  # the command that goes on with such a run
    default_text: ClassVar[str] = "Python's own documentation (standard library)"

    def __init__(self, text: Path | None):
        self.text = text

    @abstractmethod
    def tokenizer(self) -> Any:
        """Make the tokenizer."""

    @abstractmethod
    def chunks(self) -> Iterable[str]:
        """Return the text, in chunks."""

    def encoder(self, tokenizer: Any) -> Any:
        """Return what encodes the chunks."""
        return tokenizer

    @abstractmethod
    def model(self, vocab_size: int, rng: Any) -> Any:
        """Make the model."""

    @staticmethod
    @abstractmethod
    def task(tokens: Any, tokenizer: Any, facts: Mapping[str, Any]) -> Any:
        """Make the task, of the tokens that the encoder made."""

    @staticmethod
    def optimizer(model: Any, settings: Any) -> Any:
        """Make the optimizer; None stands for that of `Trainer`."""
        return None

    @staticmethod
    @abstractmethod
    def split(task: Any) -> str:
        """Describe the part to train on and the part to validate on."""

    @staticmethod
    @abstractmethod
    def report(trainer: Any) -> None:
        """Compare the trained model with a trivial baseline, plot the loss, show a sample."""


def begin(
    recipe: Recipe,
    settings: Any,
    facts: dict[str, Any],
    *,
    out: Path | None,
    force: bool,
    seconds: float,
    steps: int | None,
    warmup: int | None,
    log: str = "jsonl",
) -> None:
    """Begin a run and take it to its end.

    ``facts`` are what the task is made of, besides the tokens: they are kept in each checkpoint.
    """
    import numpy

    from ..training import Trainer, communicator
    from ..training.distributed import cores_for_each

    each = communicator()
    if each.size > 1:
        settings = dataclasses.replace(settings, threads=min(settings.threads, cores_for_each()))
    model = prepared = None
    if each.rank == 0:
        model, *prepared = _prepare(recipe, settings, facts, out, force, seconds, steps, warmup)
    folder, tokenizer, settings, facts = each.broadcast(prepared)
    if model is None:  # the same as that of process 0
        model = recipe.model(tokenizer.vocab_size, numpy.random.default_rng(facts["seed"]))
    task = recipe.task(tokens_of(folder, tokenizer, facts), tokenizer, facts)
    optimizer = recipe.optimizer(model, settings)
    trainer = Trainer(model, task, settings, tokenizer, folder, facts, f"log.{log}", optimizer, each)
    _finish(trainer, recipe, seconds if steps is None else None)


def _prepare(
    recipe: Recipe,
    settings: Any,
    facts: dict[str, Any],
    out: Path | None,
    force: bool,
    seconds: float,
    steps: int | None,
    warmup: int | None,
) -> tuple[Any, Path, Any, Any, dict[str, Any]]:
    """Make the folder of a run and what is in it before the first step."""
    import numpy

    from ..text import TokenFile

    settings.learning_rates()  # that they can be made is seen before any work
    folder = output_folder(out, force)
    tokenizer = recipe.tokenizer()
    with new_folder_beside(folder) as beside:  # an older run stays until all is known to be good
        is_long = recipe.text is not None and recipe.text.stat().st_size > LONG_TEXT
        file = TokenFile.write(
            beside / "tokens.bin", recipe.encoder(tokenizer), recipe.chunks(), progress=is_long
        )
        facts = {"text": str(recipe.text or recipe.default_text), "fingerprint": file.fingerprint, **facts}
        task = recipe.task(file.tokens, tokenizer, facts)
        typer.echo(f"text     {facts['text']}: {file.fingerprint}")
        typer.echo(f"split    {recipe.split(task)}; {tokenizer.vocab_size} different ones ({tokenizer.type})")
        model = recipe.model(tokenizer.vocab_size, numpy.random.default_rng(facts["seed"]))
        typer.echo(f"model    {summary(model)}")
        if steps is None:
            settings = planned(seconds, model, task, settings)
        if warmup is None:
            warmup = min(100, settings.steps // 4)
        settings = dataclasses.replace(settings, warmup=warmup)
        settings.learning_rates()
        del file, task  # Windows moves no file that is in use
        replace_run(folder, beside)
    return model, folder, tokenizer, settings, facts


def resume(folder: Path, steps: int | None, recipes: Iterable[type[Recipe]]) -> None:
    """Go on with the run in a folder, if it is of one of these kinds."""
    from ..training import Trainer, communicator, load_checkpoint
    from ..training.checkpoint import checkpoints_in

    each = communicator()
    if (folder / "tokens.bin").exists() and not checkpoints_in(folder / "checkpoints"):
        raise UsageError(
            f"{str(folder)!r} holds no checkpoint yet: start it again with --out {folder} --force"
        )
    checkpoint = load_checkpoint(folder, *(recipe.architecture for recipe in recipes))
    recipe = next(recipe for recipe in recipes if recipe.architecture == checkpoint.state["model"])
    run_folder, facts = run_of(checkpoint)
    state, model = checkpoint.state, checkpoint.model
    settings = settings_of(checkpoint, folder, steps)
    tokenizer = checkpoint.tokenizer
    task = recipe.task(tokens_of(run_folder, tokenizer, facts), tokenizer, facts)
    optimizer = recipe.optimizer(model, settings)
    trainer = Trainer(model, task, settings, tokenizer, run_folder, facts, state["log"], optimizer, each)
    trainer.restore(checkpoint)
    if each.rank == 0:
        typer.echo(f"going on from step {trainer.step:,} of {settings.steps:,} in {run_folder}")
    _finish(trainer, recipe)


def planned(seconds: float, model: Any, task: Any, settings: Any) -> Any:
    """Return the settings with as many steps as fit into a time budget, and tell of it."""
    from ..training import steps_within

    steps = steps_within(seconds, model, task, settings)
    typer.echo(
        f"plan     {seconds:g} s, about {steps:,} steps here; "
        "a given number (--steps) repeats a run bit for bit"
    )
    return dataclasses.replace(settings, steps=steps)


def settings_of(checkpoint: Any, folder: Path, steps: int | None) -> Any:
    """Return the settings with which the run in a folder goes on, to so many steps if they are given."""
    from ..training import CheckpointError, TrainingSettings

    state = checkpoint.state
    try:
        settings = TrainingSettings(**state["settings"])
        if state["log"] not in RUN_FILES:
            raise ValueError(f"there is no log {state['log']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot go on from {str(checkpoint.path)!r}: its settings: {error}") from None
    if steps is not None:
        settings = dataclasses.replace(settings, steps=steps)
    done = state["step"]
    if done >= settings.steps:
        raise UsageError(
            f"the run in {str(folder)!r} has taken its {done:,} steps: go on with --steps {2 * done} or more"
        )
    return settings


def folder_of(checkpoint: Any) -> Path:
    """Tell the folder of the run that a checkpoint belongs to."""
    folder = checkpoint.path.resolve().parents[1]
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())  # shorter to read
    return folder


def run_of(checkpoint: Any) -> tuple[Path, dict[str, Any]]:
    """Tell the folder of the run that a checkpoint belongs to, and the facts about its text."""
    from ..training import CheckpointError

    folder = folder_of(checkpoint)
    facts = checkpoint.state.get("data")
    kinds = {"text": str, "fingerprint": str, "validation_fraction": float}
    kinds |= dict.fromkeys(("batch_size", "context", "seed"), int)
    if not isinstance(facts, dict) or any(type(facts.get(name)) is not kind for name, kind in kinds.items()):
        raise CheckpointError(f"{str(checkpoint.path)!r} does not say which text it was trained on")
    return folder, facts


def tokens_of(folder: Path, tokenizer: Any, facts: Mapping[str, Any]) -> Any:
    """Open the tokens of a run, if they are those the facts tell of."""
    from ..text import TokenFile

    file = TokenFile.open(folder / "tokens.bin")
    has = f"{file.fingerprint}, {file.vocab_size} ids"
    needed = f"{facts['fingerprint']}, {tokenizer.vocab_size} ids"
    if has != needed:
        raise UsageError(f"{str(file.path)!r} is not what the checkpoint was trained on: {has}, not {needed}")
    return file.tokens


def _finish(trainer: Any, recipe: Recipe | type[Recipe], seconds: float | None = None) -> None:
    """Train, in this time if it is given, and report."""
    from ..training.distributed import COMMAND

    each = trainer.communicator
    if each.rank:
        with contextlib.suppress(KeyboardInterrupt):  # process 0 tells of it
            trainer.run(progress=False, seconds=seconds)
        return
    program = "tinytransformer" if each.size == 1 else COMMAND.format(size=each.size)
    again, name = f"{program} {recipe.command} --resume", shlex.quote(str(trainer.folder))
    try:
        trainer.run(progress=True, seconds=seconds)
    except KeyboardInterrupt:
        typer.echo(f"stopped after step {trainer.step:,}; go on with:  {again} {name}")
        raise typer.Exit(130) from None
    typer.echo(f"trained  {trainer.step:,} steps in {trainer.seconds:.0f} s")
    recipe.report(trainer)
    typer.echo(f"go on    {again} {name} --steps {2 * trainer.step}")


def output_folder(out: Path | None, force: bool) -> Path:
    """Choose the output folder; one that holds something is refused, with --force unless it is a run."""
    if out is None:
        number = 1
        while Path("runs", str(number)).exists():
            number += 1
        return Path("runs", str(number))
    if out.exists() and not out.is_dir():
        raise UsageError(f"{str(out)!r} is a file, and --out names a folder")
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise UsageError(
                f"the folder {str(out)!r} is not empty: --resume {out} goes on with the run in it, "
                "--force replaces it, another --out leaves it"
            )
        if not any((out / name).exists() for name in ("tokens.bin", "checkpoints")):
            raise UsageError(f"--force replaces runs only, and {str(out)!r} holds something else")
    return out


@contextlib.contextmanager
def new_folder_beside(folder: Path) -> Any:
    """Make a folder in which a run is prepared, on the same disk as where it will be; it goes in the end."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(prefix=".new-run-", dir=folder.parent)
    except OSError as error:
        raise UsageError(f"cannot write to {str(folder)!r}: {error.strerror}") from None
    with beside as name:
        yield Path(name)


def replace_run(folder: Path, beside: Path) -> None:
    """Move what was prepared into its folder, in the place of the run that is there."""
    folder.mkdir(exist_ok=True)
    for name in RUN_FILES:
        old, new = folder / name, beside / name
        if old.is_dir():
            shutil.rmtree(old)
        elif new.exists():
            os.replace(new, old)
        else:
            old.unlink(missing_ok=True)
