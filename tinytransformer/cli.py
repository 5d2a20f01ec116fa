"""The command line: ``tinytransformer train | generate | evaluate | info``."""

from __future__ import annotations

import dataclasses
import os
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from . import __version__
from .backend import BackendError, available_backends, use_backend

__all__ = ["main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Train and use language models that can be read from top to bottom.",
)

STDLIB = "Python's own documentation (standard library)"
BPE_TRAINING_CHARACTERS = 20_000_000  # a tokenizer learns nothing new from more
NGRAM_TRAINING_TOKENS = 20_000_000  # counts of more would need more memory than the model


class UsageProblem(ValueError):
    """Something the user can put right; shown as one line, exit code 2."""


def _configured(context: typer.Context, path: Path | None) -> Path | None:
    """Make the values of a TOML file the defaults of the options; options given on the line win."""
    if path is None or context.resilient_parsing:
        return path
    try:
        found = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageProblem(f"cannot read the configuration {str(path)!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageProblem(f"the configuration {str(path)!r} is not valid TOML: {error}") from None
    names = {
        option.lstrip("-").replace("-", "_"): p.name
        for p in context.command.params
        for option in [*p.opts, *p.secondary_opts]
        if p.param_type_name == "option" and p.name not in ("config", "help")
    }
    unknown = sorted(k for k in found if k.replace("-", "_") not in names)
    if unknown:
        known = ", ".join(sorted(n.replace("_", "-") for n in names))
        raise UsageProblem(
            f"the configuration {str(path)!r} has no meaning for {', '.join(unknown)}; known are {known}"
        )
    bad = sorted(k for k, v in found.items() if isinstance(v, (dict, list)))
    if bad:
        raise UsageProblem(
            f"the configuration {str(path)!r} needs a plain value for {', '.join(bad)}, not a table or list"
        )
    values = {names[k.replace("-", "_")]: v for k, v in found.items()}
    context.default_map = {**(context.default_map or {}), **values}
    return path


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
    epilog="Examples:  tinytransformer train  |  tinytransformer train --text book.txt --tokenizer bpe "
    "--seconds 600  |  tinytransformer train --resume runs/1 --steps 5000"
)
def train(
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
    ] = 40.0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps, whatever time they take.")
    ] = None,
    tokenizer: Annotated[str, typer.Option(help="char, byte or bpe.")] = "char",
    vocab_size: Annotated[int, typer.Option(min=1, help="Tokens of the bpe tokenizer.")] = 1024,
    layers: Annotated[int, typer.Option(min=1, help="Transformer blocks.")] = 2,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads of each block.")] = 4,
    d_model: Annotated[int, typer.Option(min=1, help="Features of each position.")] = 128,
    context: Annotated[int, typer.Option(min=1, help="Tokens the model sees at once.")] = 64,
    positions: Annotated[str, typer.Option(help="learned or sinusoidal.")] = "learned",
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
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 250,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 250,
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
    from .training import Trainer, TrainingSettings, load_checkpoint, steps_within

    if resume is not None:
        _resume(resume, steps)
        return
    _one_of("--tokenizer", tokenizer, "char", "byte", "bpe")
    _one_of("--log", log, "jsonl", "csv")
    settings = TrainingSettings(
        steps=steps or 1,  # without --steps they are planned below
        batch_size=batch_size,
        learning_rate=learning_rate,
        warmup=0,
        schedule=schedule,
        weight_decay=weight_decay,
        clip=clip,
        accumulate=accumulate,
        seed=seed,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
    )
    folder = _new_folder(out, force)
    encoder = _tokenizer(text, tokenizer, vocab_size)
    model_config = GPTConfig(
        encoder.vocab_size,
        context,
        d_model,
        layers,
        heads,
        dropout=dropout,
        positions=positions,
        tied_head=tied_head,
    )
    file = TokenFile.write(folder / "tokens.bin", encoder, _text(text), progress=text is not None)
    train_tokens, validation_tokens = split(file.tokens, validation_fraction, context)
    typer.echo(f"text     {text or STDLIB}: {file.fingerprint}")
    typer.echo(
        f"split    {len(train_tokens):,} tokens to train on, the {len(validation_tokens):,} after them to "
        f"validate on; {encoder.vocab_size} different ones ({tokenizer})"
    )
    model = GPT(model_config, numpy.random.default_rng(seed))
    if backend is not None:
        model.to(backend)
    typer.echo(f"model    {_summary(model)}")
    if steps is None:
        planned = steps_within(seconds, model, train_tokens, settings)
        settings = dataclasses.replace(settings, steps=planned)
        typer.echo(f"plan     {planned:,} steps, which fit into {seconds:g} s here (--steps {planned} repeats it)")
    if warmup is None:
        warmup = min(100, settings.steps // 4)
    settings = dataclasses.replace(settings, warmup=warmup)
    facts = {
        "text": str(text or STDLIB),
        "fingerprint": file.fingerprint,
        "validation_fraction": validation_fraction,
    }
    trainer = Trainer(
        model,
        train_tokens,
        validation_tokens,
        settings,
        encoder,
        folder,
        facts,
        f"log.{log}",
    )
    _run(trainer)


def _resume(folder: Path, steps: int | None) -> None:
    from .text import TokenFile, split
    from .training import CheckpointError, Trainer, TrainingSettings, load_checkpoint

    checkpoint = load_checkpoint(folder, "GPT")
    run_folder = checkpoint.path.parent.parent
    state, model = checkpoint.state, checkpoint.model
    try:
        settings = TrainingSettings(**state["settings"])
        facts, log_name = dict(state["data"]), str(state["log"])
        fingerprint, fraction = facts["fingerprint"], float(facts["validation_fraction"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"cannot go on from {str(checkpoint.path)!r}: its settings: {error}") from None
    file = TokenFile.open(run_folder / "tokens.bin")
    if file.fingerprint != fingerprint or file.vocab_size != checkpoint.tokenizer.vocab_size:
        raise CheckpointError(
            f"cannot go on from {str(checkpoint.path)!r}: {str(file.path)!r} holds another text "
            f"({file.fingerprint}, not {fingerprint})"
        )
    if steps is not None:
        settings = dataclasses.replace(settings, steps=steps)
    done = int(state["step"])
    if done >= settings.steps:
        raise UsageProblem(
            f"the run in {str(folder)!r} has taken its {done:,} steps: go on with --steps {2 * done} or more"
        )
    train_tokens, validation_tokens = split(file.tokens, fraction, model.config.context_length)  # type: ignore[attr-defined]
    trainer = Trainer(
        model,  # type: ignore[arg-type]
        train_tokens,
        validation_tokens,
        settings,
        checkpoint.tokenizer,
        run_folder,
        facts,
        log_name,
    )
    trainer.restore(checkpoint)
    typer.echo(f"going on from step {done:,} of {settings.steps:,} in {run_folder}")
    _run(trainer)


def _run(trainer: Any) -> None:
    """Train, then compare, plot and sample."""
    import numpy

    from . import plotting
    from .generation import generate
    from .training import evaluate, ngram_scores

    folder = trainer.folder
    try:
        trainer.run(progress=True)
    except KeyboardInterrupt:
        typer.echo(f"stopped after step {trainer.step:,}; go on with:  tinytransformer train --resume {folder}")
        raise typer.Exit(130) from None
    tokenizer, model = trainer.tokenizer, trainer.model
    counts = tokenizer.character_counts
    validation = trainer.validation_tokens
    scores = ngram_scores(
        numpy.asarray(trainer.batches.tokens[-NGRAM_TRAINING_TOKENS:]), validation, tokenizer.vocab_size, counts
    )
    scores["GPT"] = evaluate(model, validation, counts, stride=-(-model.config.context_length // 2))
    typer.echo("\nvalidation           nats per token   perplexity   bits per character")
    for name, score in scores.items():
        typer.echo(
            f"  {name:<18} {score.nats_per_token:>14.4f} {score.perplexity:>12.2f} "
            f"{score.bits_per_character:>20.3f}"
        )
    gap = scores["trigram"].bits_per_character - scores["GPT"].bits_per_character
    typer.echo(f"  the GPT needs {abs(gap):.3f} bits per character {'less' if gap >= 0 else 'more'} than the trigram")
    plotting.loss_curve(
        trainer.log.rows(),
        folder / "loss.png",
        baselines={name: s.nats_per_token for name, s in scores.items() if name != "GPT"},
    )
    sample = generate(
        model,
        validation[: model.config.context_length // 2].astype(int),
        200,
        temperature=0.8,
        rng=numpy.random.default_rng(trainer.settings.seed),
    )
    typer.echo(f"\nsample   {tokenizer.decode(sample)!r}\n")
    typer.echo(f"saved    {folder}: checkpoints, loss.png, {trainer.log.path.name}, tokens.bin")
    typer.echo(f"write    tinytransformer generate {folder} --prompt 'The function'")
    typer.echo(f"go on    tinytransformer train --resume {folder} --steps {2 * trainer.step}")


def _new_folder(out: Path | None, force: bool) -> Path:
    """Choose and make the output folder; one that holds something is replaced only with --force."""
    import shutil

    if out is None:
        number = 1
        while Path("runs", str(number)).exists():
            number += 1
        out = Path("runs", str(number))
    try:
        if out.is_dir() and any(out.iterdir()):
            if not force:
                raise UsageProblem(
                    f"the folder {str(out)!r} is not empty: --resume {out} goes on with the run in it, "
                    "--force replaces it, another --out leaves it"
                )
            if not (out / "tokens.bin").exists():
                raise UsageProblem(f"--force replaces runs only, and {str(out)!r} holds something else")
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageProblem(f"cannot write to {str(out)!r}: {error.strerror}") from None
    return out


def _text(path: Path | None) -> Any:
    from .text import iterate_text, stdlib_documentation

    return [stdlib_documentation()] if path is None else iterate_text(path)


def _tokenizer(path: Path | None, kind: str, vocab_size: int) -> Any:
    from .text import BPETokenizer, ByteTokenizer, CharacterTokenizer

    if kind == "char":
        return CharacterTokenizer.train(_text(path))
    if kind == "byte":
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
        raise UsageProblem(f"{option} must be {', '.join(allowed[:-1])} or {allowed[-1]}, not {value!r}")


# --- generate, evaluate, info ---------------------------------------------------------------------------


@app.command(
    epilog="Examples:  tinytransformer generate runs/1 --prompt 'The function'  |  "
    "tinytransformer generate runs/1 --temperature 0 --tokens 500"
)
def generate(
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

    loaded = load_checkpoint(checkpoint)
    model, tokenizer = loaded.model, loaded.tokenizer
    if backend is not None:
        model.to(backend)
    ids = tokenizer.encode(prompt)
    if not len(ids):
        raise UsageProblem("the prompt is empty: give at least one character")
    stops = () if stop is None else tuple(int(i) for i in tokenizer.encode(stop))
    if stop is not None and len(stops) != 1:
        raise UsageProblem(f"--stop must be one token, and {stop!r} is {len(stops)}")
    if beams > 1:
        found = beam_search(
            model, ids, tokens, num_beams=beams, length_penalty=length_penalty, stop_tokens=stops
        )
        typer.echo(prompt + tokenizer.decode(found[0]))
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


@app.command(epilog="Example:  tinytransformer evaluate runs/1 --text other.txt")
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
    from .text import TokenFile, read_text, split
    from .training import evaluate as score_of
    from .training import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    model: Any = loaded.model
    if backend is not None:
        model.to(backend)
    context = model.config.context_length
    if text is not None:
        tokens = loaded.tokenizer.encode(read_text(text))
        name = str(text)
    else:
        file = TokenFile.open(loaded.path.parent.parent / "tokens.bin")
        if file.vocab_size != loaded.tokenizer.vocab_size:
            raise UsageProblem(f"{str(file.path)!r} was written with another vocabulary than the model's")
        tokens = split(file.tokens, float(loaded.state["data"]["validation_fraction"]), context)[1]
        name = f"the validation part of {loaded.state['data']['text']}"
    if len(tokens) < 2:
        raise UsageProblem(f"{name} has {len(tokens)} tokens, and at least 2 are needed")
    stride = -(-context // 2) if stride is None else stride
    score = score_of(model, tokens, loaded.tokenizer.character_counts, stride=min(stride, context))
    typer.echo(f"{name}: {score.tokens:,} tokens, {score.characters:,} characters")
    typer.echo(
        f"{score.nats_per_token:.4f} nats per token, perplexity {score.perplexity:.2f}, "
        f"{score.bits_per_character:.3f} bits per character"
    )


@app.command(epilog="Examples:  tinytransformer info  |  tinytransformer info runs/1")
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

    click_exception = typer.BadParameter.__mro__[2]  # ClickException, wherever this typer keeps it
    try:
        code = app(args=arguments, standalone_mode=False)
    except click_exception as error:
        _fail(error.format_message(), error.exit_code)  # type: ignore[attr-defined]
    except (BackendError, ValueError, IndexError) as error:
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
