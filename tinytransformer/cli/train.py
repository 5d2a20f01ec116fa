"""``tinytransformer train``: a GPT on a text, from nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import BackendOption, ConfigOption, UsageError, app, given, one_of, summary

STDLIB = "Python's own documentation (standard library)"
LONG_TEXT = 10_000_000  # bytes from which on reading it shows its progress
BPE_TRAINING_CHARACTERS = 20_000_000  # a tokenizer learns nothing new from more
NGRAM_TRAINING_TOKENS = 20_000_000  # counts of more would need more memory than the model
VALIDATION_TOKENS = 1_000_000  # the score of more differs in no digit that is shown, and takes minutes
RUN_FILES = ("checkpoints", "loss.png", "log.jsonl", "log.csv", "tokens.bin", "tokens.bin.json")


@app.command(
    epilog="""\b
    Examples:
      tinytransformer train
      tinytransformer train --text book.txt --tokenizer bpe --seconds 600
      tinytransformer train --resume runs/1 --steps 5000
    """
)
def train(
    invocation: typer.Context,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="UTF-8 text to train on; by default Python's documentation."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write; by default runs/1, runs/2, …")
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Go on with the run in this folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in the output folder.")] = False,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Time for training; sets the number of steps.")
    ] = 45.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps, whatever time they take.")
    ] = None,
    tokenizer: Annotated[str, typer.Option(help="char, byte or bpe.")] = "char",
    vocab_size: Annotated[int, typer.Option(min=1, help="Tokens of the bpe tokenizer.")] = 1024,
    layers: Annotated[int, typer.Option(min=1, help="Transformer blocks.")] = 2,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads of each block.")] = 4,
    d_model: Annotated[int, typer.Option(min=1, help="Features of each position.")] = 96,
    context: Annotated[int, typer.Option(min=1, help="Tokens the model sees at once.")] = 64,
    positions: Annotated[str, typer.Option(help="learned, sinusoidal or rotary.")] = "learned",
    tied_head: Annotated[
        bool, typer.Option("--tied-head/--untied-head", help="Share embeddings and output matrix.")
    ] = True,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.99, help="Probability of dropping.")] = 0.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences in a batch.")] = 8,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches added up for one step.")] = 1,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Highest learning rate.")] = 4e-3,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Steps to reach it; 100, or a quarter of a short run.")
    ] = None,
    schedule: Annotated[str, typer.Option(help="cosine, linear or constant.")] = "cosine",
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Decay of the matrices.")] = 0.1,
    clip: Annotated[float, typer.Option(min=0.0, help="Largest norm of the gradient.")] = 1.0,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads that share a batch; with 1 BLAS uses its own.")
    ] = min(2, os.cpu_count() or 1),
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 500,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    validation_fraction: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Part of the text, at its end, kept for validation.")
    ] = 0.1,
    log: Annotated[str, typer.Option(help="Format of the log: jsonl or csv.")] = "jsonl",
    seed: Annotated[int, typer.Option(min=0, help="Of weights, data order and sample.")] = 0,
    backend: BackendOption = None,
    config: ConfigOption = None,
) -> None:
    """Train a GPT, compare it with n-gram models on the same text, and save it.

    With no options: one minute on Python's own documentation. It ends with a sample, a checkpoint, a plot
    of the loss and the command to go on.
    """
    import numpy

    from ..models import GPT, GPTConfig
    from ..text import TokenFile, split
    from ..training import Trainer, TrainingSettings, steps_within

    if resume is not None:
        if ignored := given(invocation, but=("resume", "steps", "backend")):
            raise UsageError(f"--resume goes on with the run as it was begun: leave out {ignored}")
        _resume(resume, steps)
        return
    one_of("--tokenizer", tokenizer, "char", "byte", "bpe")
    one_of("--log", log, "jsonl", "csv")
    if tokenizer != "bpe" and given(invocation, "vocab_size"):
        raise UsageError("--vocab-size is for --tokenizer bpe; the others have a size of their own")
    if not math.isfinite(seconds):
        raise UsageError(f"--seconds must be a finite number, not {seconds}")
    settings = TrainingSettings(
        steps=steps or 1,  # without --steps they are planned below
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=warmup if steps and warmup else 0,
        schedule=schedule,
        weight_decay=weight_decay,
        clip=clip,
        accumulate=accumulate,
        threads=threads,
        seed=seed,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
    )
    settings.learning_rates()  # that they can be made is seen before any work
    model_config = GPTConfig(
        1,  # until the tokenizer is there
        context,
        d_model,
        layers,
        heads,
        dropout=dropout,
        positions=positions,
        tied_head=tied_head,
    )
    folder = _output_folder(out, force)
    encoder = _tokenizer(text, tokenizer, vocab_size)
    model_config = dataclasses.replace(model_config, vocab_size=encoder.vocab_size)
    with _new_folder_beside(folder) as beside:  # an older run stays until all is known to be good
        is_long = text is not None and text.stat().st_size > LONG_TEXT
        file = TokenFile.write(beside / "tokens.bin", encoder, _text(text), progress=is_long)
        train_tokens, validation_tokens = split(file.tokens, validation_fraction, context)
        typer.echo(f"text     {text or STDLIB}: {file.fingerprint}")
        typer.echo(
            f"split    {len(train_tokens):,} tokens to train on, the {len(validation_tokens):,} after them "
            f"to validate on; {encoder.vocab_size} different ones ({tokenizer})"
        )
        model = GPT(model_config, numpy.random.default_rng(seed))
        typer.echo(f"model    {summary(model)}")
        if steps is None:
            planned = steps_within(seconds, model, train_tokens, settings)
            settings = dataclasses.replace(settings, steps=planned)
            typer.echo(
                f"plan     {seconds:g} s, about {planned:,} steps here; "
                "a given number (--steps) repeats a run bit for bit"
            )
        if warmup is None:
            warmup = min(100, settings.steps // 4)
        settings = dataclasses.replace(settings, warmup=warmup)
        settings.learning_rates()
        facts = {
            "text": str(text or STDLIB),
            "fingerprint": file.fingerprint,
            "validation_fraction": validation_fraction,
        }
        del file, train_tokens, validation_tokens  # Windows moves no file that is in use
        _replace_run(folder, beside)
    trainer = Trainer(
        model, *split_of(folder, encoder, facts, context), settings, encoder, folder, facts, f"log.{log}"
    )
    _run(trainer, seconds if steps is None else None)


def _resume(folder: Path, steps: int | None) -> None:
    from ..training import CheckpointError, Trainer, TrainingSettings, load_checkpoint
    from ..training.checkpoint import checkpoints_in

    if (folder / "tokens.bin").exists() and not checkpoints_in(folder / "checkpoints"):
        raise UsageError(
            f"{str(folder)!r} holds no checkpoint yet: start it again with --out {folder} --force"
        )
    checkpoint = load_checkpoint(folder, "GPT")
    run_folder, facts = run_of(checkpoint)
    state, model = checkpoint.state, checkpoint.model
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
    tokens = split_of(run_folder, checkpoint.tokenizer, facts, model.config.context_length)
    trainer = Trainer(model, *tokens, settings, checkpoint.tokenizer, run_folder, facts, state["log"])
    trainer.restore(checkpoint)
    typer.echo(f"going on from step {done:,} of {settings.steps:,} in {run_folder}")
    _run(trainer)


def run_of(checkpoint: Any) -> tuple[Path, dict[str, Any]]:
    """Tell the folder of the run that a checkpoint belongs to, and the facts about its text."""
    from ..training import CheckpointError

    folder = checkpoint.path.resolve().parents[1]
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())  # shorter to read
    facts = checkpoint.state.get("data")
    kinds = {"text": str, "fingerprint": str, "validation_fraction": float}
    if not isinstance(facts, dict) or any(type(facts.get(name)) is not kind for name, kind in kinds.items()):
        raise CheckpointError(f"{str(checkpoint.path)!r} does not say which text it was trained on")
    return folder, facts


def split_of(folder: Path, tokenizer: Any, facts: dict[str, Any], context: int) -> tuple[Any, Any]:
    """Open the tokens of a run, if they are those the facts tell of: the part to train on, and the rest."""
    from ..text import TokenFile, split

    file = TokenFile.open(folder / "tokens.bin")
    has = f"{file.fingerprint}, {file.vocab_size} ids"
    needed = f"{facts['fingerprint']}, {tokenizer.vocab_size} ids"
    if has != needed:
        raise UsageError(f"{str(file.path)!r} is not what the checkpoint was trained on: {has}, not {needed}")
    return split(file.tokens, facts["validation_fraction"], context)


def _run(trainer: Any, seconds: float | None = None) -> None:
    """Train, in this time if it is given; then compare, plot and sample."""
    import numpy

    from .. import plotting
    from ..generation import generate
    from ..training import evaluate, ngram_scores

    folder = trainer.folder
    name = shlex.quote(str(folder))
    try:
        trainer.run(progress=True, seconds=seconds)
    except KeyboardInterrupt:
        typer.echo(f"stopped after step {trainer.step:,}; go on with:  tinytransformer train --resume {name}")
        raise typer.Exit(130) from None
    typer.echo(f"trained  {trainer.step:,} steps in {trainer.seconds:.0f} s")
    tokenizer, model = trainer.tokenizer, trainer.model
    counts = tokenizer.character_counts
    context = model.config.context_length
    validation = trainer.validation_tokens[:VALIDATION_TOKENS]
    scores = ngram_scores(
        numpy.asarray(trainer.batches.tokens[-NGRAM_TRAINING_TOKENS:]),
        validation,
        tokenizer.vocab_size,
        counts,
    )
    scores["GPT"] = evaluate(model, validation, counts, stride=-(-context // 2), progress=True)
    typer.echo("\nvalidation           nats per token   perplexity   bits per character")
    for model_name, score in scores.items():
        typer.echo(
            f"  {model_name:<18} {score.nats_per_token:>14.4f} {score.perplexity:>12.2f} "
            f"{score.bits_per_character:>20.3f}"
        )
    gap = scores["trigram"].bits_per_character - scores["GPT"].bits_per_character
    typer.echo(
        f"  the GPT needs {abs(gap):.3f} bits per character {'less' if gap >= 0 else 'more'} than the trigram"
    )
    plotting.loss_curve(
        trainer.log.rows(),
        folder / "loss.png",
        baselines={name: s.nats_per_token for name, s in scores.items() if name != "GPT"},
    )
    sample = generate(
        model,
        validation[: max(context // 2, 1)].astype(int),
        200,
        temperature=0.8,
        rng=numpy.random.default_rng(trainer.settings.seed),
    )
    typer.echo(f"\nsample   {tokenizer.decode(sample)!r}\n")
    typer.echo(f"saved    {folder}: checkpoints, loss.png, {trainer.log.path.name}, tokens.bin")
    typer.echo(f"write    tinytransformer generate {name} --prompt 'The function'")
    typer.echo(f"go on    tinytransformer train --resume {name} --steps {2 * trainer.step}")


def _output_folder(out: Path | None, force: bool) -> Path:
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
        if not (out / "tokens.bin").exists():
            raise UsageError(f"--force replaces runs only, and {str(out)!r} holds something else")
    return out


@contextlib.contextmanager
def _new_folder_beside(folder: Path) -> Any:
    """Make a folder in which a run is prepared, on the same disk as where it will be; it goes in the end."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = tempfile.TemporaryDirectory(prefix=".new-run-", dir=folder.parent)
    except OSError as error:
        raise UsageError(f"cannot write to {str(folder)!r}: {error.strerror}") from None
    with beside as name:
        yield Path(name)


def _replace_run(folder: Path, beside: Path) -> None:
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


def _text(path: Path | None) -> Any:
    from ..text import iterate_text, stdlib_documentation

    return [stdlib_documentation()] if path is None else iterate_text(path)


def _tokenizer(path: Path | None, kind: str, vocab_size: int) -> Any:
    from ..text import BPETokenizer, ByteTokenizer, CharacterTokenizer

    if kind == "char":
        return CharacterTokenizer.train(_text(path))
    if kind == "byte":
        next(iter(_text(path)))  # what is no text is told of before anything is written
        return ByteTokenizer()

    def beginning() -> Any:
        left = BPE_TRAINING_CHARACTERS
        for chunk in _text(path):
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return

    return BPETokenizer.train(beginning(), vocab_size, progress=True)
