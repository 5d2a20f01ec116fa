"""The command line: ``tinytransformer train | generate | evaluate | info``."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import math
import os
import shlex
import shutil
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from . import __version__
from .backend import BackendError, available_backends, use_backend

__all__ = ["main"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train and use language models that can be read from top to bottom.",
)

STDLIB = "Python's own documentation (standard library)"
LONG_TEXT = 10_000_000  # bytes from which on reading it shows its progress
BPE_TRAINING_CHARACTERS = 20_000_000  # a tokenizer learns nothing new from more
NGRAM_TRAINING_TOKENS = 20_000_000  # counts of more would need more memory than the model
VALIDATION_TOKENS = 1_000_000  # the score of more differs in no digit that is shown, and takes minutes
TOML_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string", Path: "a string"}
RUN_FILES = ("checkpoints", "loss.png", "log.jsonl", "log.csv", "tokens.bin", "tokens.bin.json")


class UsageError(ValueError):
    """Something the user can put right; shown as one line, exit code 2."""


def _configured(invocation: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of the options; options given on the line win."""
    if path is None or invocation.resilient_parsing:
        return path
    file = f"the configuration {str(path)!r}"
    try:
        found = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, nested too deep
        raise UsageError(f"{file} is not valid TOML: {error}") from None
    options = {
        p.opts[0].lstrip("-"): p.name
        for p in invocation.command.params
        if p.param_type_name == "option" and p.name not in ("config", "help")
    }
    if unknown := sorted(found.keys() - options.keys()):
        raise UsageError(f"{file} has no meaning for {unknown[0]!r}; known are {', '.join(sorted(options))}")
    command: Any = invocation.command.callback
    hints = get_type_hints(inspect.unwrap(command))
    for name, value in found.items():
        hint = hints[options[name]]
        kind = next(k for k in TOML_KINDS if k is hint or k in get_args(hint))
        if type(value) not in {float: (int, float), Path: (str,)}.get(kind, (kind,)):
            raise UsageError(f"{file}: {name} must be {TOML_KINDS[kind]}, not {value!r}")
    values = {options[name]: value for name, value in found.items()}
    invocation.default_map = {**(invocation.default_map or {}), **values}
    return path


def _given(invocation: typer.Context, *names: str, but: tuple[str, ...] = ()) -> str:
    """Name those options that were given: of these, or of all but some."""
    options = {p.name: p.opts[0] for p in invocation.command.params if p.name not in but}
    asked = names or options
    sources = {name: invocation.get_parameter_source(name) for name in options if name in asked}
    return ", ".join(options[name] for name, source in sources.items() if source and source.name != "DEFAULT")


def _backend(name: str | None) -> str | None:
    if name is not None:
        use_backend(name)
    return name


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=_configured,
        help="TOML file with values for these options, such as  batch-size = 16.",
    ),
]
BackendOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", callback=_backend, help="numpy, or cupy for a GPU."),
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tinytransformer {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


# --- train ----------------------------------------------------------------------------------------------


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

    from .models import GPT, GPTConfig
    from .text import TokenFile, split
    from .training import Trainer, TrainingSettings, steps_within

    if resume is not None:
        if ignored := _given(invocation, but=("resume", "steps", "backend")):
            raise UsageError(f"--resume goes on with the run as it was begun: leave out {ignored}")
        _resume(resume, steps)
        return
    _one_of("--tokenizer", tokenizer, "char", "byte", "bpe")
    _one_of("--log", log, "jsonl", "csv")
    if tokenizer != "bpe" and _given(invocation, "vocab_size"):
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
        typer.echo(f"model    {_summary(model)}")
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
        model, *_split(folder, encoder, facts, context), settings, encoder, folder, facts, f"log.{log}"
    )
    _run(trainer, seconds if steps is None else None)


def _resume(folder: Path, steps: int | None) -> None:
    from .training import CheckpointError, Trainer, TrainingSettings, load_checkpoint
    from .training.checkpoint import checkpoints_in

    if (folder / "tokens.bin").exists() and not checkpoints_in(folder / "checkpoints"):
        raise UsageError(
            f"{str(folder)!r} holds no checkpoint yet: start it again with --out {folder} --force"
        )
    checkpoint = load_checkpoint(folder, "GPT")
    run_folder, facts = _run_of(checkpoint)
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
    tokens = _split(run_folder, checkpoint.tokenizer, facts, model.config.context_length)
    trainer = Trainer(model, *tokens, settings, checkpoint.tokenizer, run_folder, facts, state["log"])
    trainer.restore(checkpoint)
    typer.echo(f"going on from step {done:,} of {settings.steps:,} in {run_folder}")
    _run(trainer)


def _run_of(checkpoint: Any) -> tuple[Path, dict[str, Any]]:
    """Tell the folder of the run that a checkpoint belongs to, and the facts about its text."""
    from .training import CheckpointError

    folder = checkpoint.path.resolve().parents[1]
    with contextlib.suppress(ValueError):
        folder = folder.relative_to(Path.cwd())  # shorter to read
    facts = checkpoint.state.get("data")
    kinds = {"text": str, "fingerprint": str, "validation_fraction": float}
    if not isinstance(facts, dict) or any(type(facts.get(name)) is not kind for name, kind in kinds.items()):
        raise CheckpointError(f"{str(checkpoint.path)!r} does not say which text it was trained on")
    return folder, facts


def _split(folder: Path, tokenizer: Any, facts: dict[str, Any], context: int) -> tuple[Any, Any]:
    """Open the tokens of a run, if they are those the facts tell of: the part to train on, and the rest."""
    from .text import TokenFile, split

    file = TokenFile.open(folder / "tokens.bin")
    has = f"{file.fingerprint}, {file.vocab_size} ids"
    needed = f"{facts['fingerprint']}, {tokenizer.vocab_size} ids"
    if has != needed:
        raise UsageError(f"{str(file.path)!r} is not what the checkpoint was trained on: {has}, not {needed}")
    return split(file.tokens, facts["validation_fraction"], context)


def _run(trainer: Any, seconds: float | None = None) -> None:
    """Train, in this time if it is given; then compare, plot and sample."""
    import numpy

    from . import plotting
    from .generation import generate
    from .training import evaluate, ngram_scores

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
    from .text import iterate_text, stdlib_documentation

    return [stdlib_documentation()] if path is None else iterate_text(path)


def _tokenizer(path: Path | None, kind: str, vocab_size: int) -> Any:
    from .text import BPETokenizer, ByteTokenizer, CharacterTokenizer

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


def _one_of(option: str, value: str, *allowed: str) -> None:
    if value not in allowed:
        raise UsageError(f"{option} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {value!r}")


# --- generate, evaluate, info ---------------------------------------------------------------------------


@app.command(
    epilog="""\b
    Examples:
      tinytransformer generate runs/1 --prompt 'The function'
      tinytransformer generate runs/1 --temperature 0 --tokens 500
      tinytransformer generate runs/1 --prompt 'The function' --beams 4
    """
)
def generate(
    invocation: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder, or one checkpoint in it.")],
    prompt: Annotated[str, typer.Option(help="Text to go on from.")] = "\n",
    tokens: Annotated[int, typer.Option(min=0, help="Most tokens to write.")] = 300,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the likeliest token; 1 draws as the model says.")
    ] = 0.8,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens of this total probability.")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, help="With more than 1: beam search of this width.")] = 1,
    length_penalty: Annotated[float, typer.Option(help="Beam search: favours long texts.")] = 1.0,
    stop: Annotated[str | None, typer.Option(help="Stop at this token.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a sample.")] = None,
    backend: BackendOption = None,
    config: ConfigOption = None,
) -> None:
    """Write text with a trained model, as it comes."""
    import numpy

    from .generation import beam_search, stream
    from .training import load_checkpoint

    drawing = _given(invocation, "temperature", "top_k", "top_p", "seed")
    if beams > 1 and drawing:
        raise UsageError(f"--beams searches and draws nothing: leave out {drawing}")
    if beams == 1 and _given(invocation, "length_penalty"):
        raise UsageError("--length-penalty is for --beams of 2 or more")
    loaded = load_checkpoint(checkpoint)
    model, tokenizer = loaded.model, loaded.tokenizer
    ids = tokenizer.encode(prompt)
    if not len(ids):
        raise UsageError("the prompt is empty: give at least one character")
    stops = () if stop is None else tuple(int(i) for i in tokenizer.encode(stop))
    if stop is not None and len(stops) != 1:
        raise UsageError(f"--stop must be one token, and {stop!r} is {len(stops)}")
    if beams > 1:
        found = beam_search(
            model,
            ids,
            tokens,
            num_beams=beams,
            length_penalty=length_penalty,
            stop_tokens=stops,
            progress=True,
        )
        typer.echo(prompt + tokenizer.decode(found.tokens))
        return
    rng = numpy.random.default_rng(seed)
    typer.echo(prompt, nl=False)
    written: list[int] = []
    shown = ""
    for token in stream(
        model,
        ids,
        tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=stops,
        rng=rng,
    ):
        written.append(int(token))
        whole = tokenizer.decode(written)
        if not whole.endswith("\ufffd"):  # a character may need more tokens
            typer.echo(whole[len(shown) :], nl=False)
            shown = whole
    typer.echo(tokenizer.decode(written)[len(shown) :])


@app.command(
    epilog="""\b
    Examples:
      tinytransformer evaluate runs/1
      tinytransformer evaluate runs/1 --text other.txt
    """
)
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder, or one checkpoint in it.")],
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="UTF-8 text; by default the run's own validation text."),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Tokens between windows; half the context by default.")
    ] = None,
    backend: BackendOption = None,
    config: ConfigOption = None,
) -> None:
    """Measure a trained model on a text: nats per token, perplexity, bits per character."""
    from .text import read_text
    from .training import evaluate as score_of
    from .training import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    model, context = loaded.model, loaded.model.config.context_length
    if text is not None:
        tokens = loaded.tokenizer.encode(read_text(text))
        name = str(text)
    else:
        folder, facts = _run_of(loaded)
        tokens = _split(folder, loaded.tokenizer, facts, context)[1][:VALIDATION_TOKENS]
        name = f"the validation part of {facts['text']}"
    if len(tokens) < 2:
        raise UsageError(f"{name} has {len(tokens)} tokens, and at least 2 are needed")
    if stride is None:
        stride = -(-context // 2)
    if stride > context:
        raise UsageError(f"--stride {stride} would leave out tokens: it is at most the context of {context}")
    score = score_of(model, tokens, loaded.tokenizer.character_counts, stride=stride, progress=True)
    typer.echo(f"{name}: {score.tokens:,} tokens, {score.characters:,} characters")
    typer.echo(
        f"{score.nats_per_token:.4f} nats per token, perplexity {score.perplexity:.2f}, "
        f"{score.bits_per_character:.3f} bits per character"
    )


@app.command(
    epilog="""\b
    Examples:
      tinytransformer info
      tinytransformer info runs/1
    """
)
def info(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A run's folder, or one checkpoint in it.")
    ] = None,
    backend: BackendOption = None,
) -> None:
    """Show the machine, and of a checkpoint the model: parameters, memory, layers."""
    import numpy
    from threadpoolctl import threadpool_info

    from .backend import xp
    from .training import load_checkpoint

    typer.echo(f"tinytransformer {__version__}, Python {sys.version.split()[0]}, NumPy {numpy.__version__}")
    typer.echo(f"backends  {', '.join(available_backends())}; new arrays on {xp.module.__name__}")
    typer.echo(f"cores     {os.cpu_count()}")
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            typer.echo(
                f"BLAS      {pool['internal_api']} {pool['version']}, {pool.get('architecture', 'unknown')}, "
                f"{pool['num_threads']} threads"
            )
    if checkpoint is None:
        return
    loaded = load_checkpoint(checkpoint)
    state = loaded.state
    typer.echo(f"checkpoint {loaded.path}: step {state['step']:,}, {loaded.tokenizer!r}")
    typer.echo(f"model     {_summary(loaded.model)}")
    typer.echo(repr(loaded.model))


def _summary(model: Any) -> str:
    c = model.config
    number = model.num_parameters()
    size = next(iter(model.parameters())).dtype.itemsize
    return (
        f"{type(model).__name__}, {c.num_layers} layers, {c.num_heads} heads, {c.d_model} features, context "
        f"{c.context_length}: {number:,} parameters, {number * size / 1e6:.1f} MB, and "
        f"{4 * number * size / 1e6:.1f} MB with gradients and moments"
    )


# --- entry ----------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a problem the user can put right is one line and exit code 2."""
    from .training import NonFiniteError

    click_exception: Any = typer.BadParameter.__mro__[2]  # ClickException, wherever this typer keeps it
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a sample may hold what the terminal cannot show
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(args=arguments or ["--help"], standalone_mode=False)
    except click_exception as error:
        _fail(error.format_message(), error.exit_code)
    except (BackendError, ValueError, IndexError, OverflowError) as error:
        if os.environ.get("TINYTRANSFORMER_TRACEBACK"):
            raise
        _fail(str(error), 2)
    except NonFiniteError as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("there is not enough memory: use a smaller model, batch or context", 1)
    except OSError as error:
        _fail(f"{error.filename or 'a file'}: {error.strerror or error}", 2)
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", 130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    typer.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)
