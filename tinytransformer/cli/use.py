"""``tinytransformer generate | evaluate | info``: a trained model at work."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__
from ..backend import available_backends
from .app import BackendOption, ConfigOption, UsageError, app, given, summary
from .runs import run_of, tokens_of
from .train import VALIDATION_TOKENS, NextToken


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

    from ..generation import beam_search, decoded, stream
    from ..training import load_checkpoint

    drawing = given(invocation, "temperature", "top_k", "top_p", "seed")
    if beams > 1 and drawing:
        raise UsageError(f"--beams searches and draws nothing: leave out {drawing}")
    if beams == 1 and given(invocation, "length_penalty"):
        raise UsageError("--length-penalty is for --beams of 2 or more")
    loaded = load_checkpoint(checkpoint, "GPT")
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
    new_tokens = stream(
        model,
        ids,
        tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_tokens=stops,
        rng=rng,
    )
    for piece in decoded(tokenizer, new_tokens):
        typer.echo(piece, nl=False)
    typer.echo()


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
    from ..text import read_text
    from ..training import evaluate as score_of
    from ..training import load_checkpoint

    loaded = load_checkpoint(checkpoint, "GPT")
    model, context = loaded.model, loaded.model.config.context_length
    if text is not None:
        tokens = loaded.tokenizer.encode(read_text(text))
        name = str(text)
    else:
        folder, facts = run_of(loaded)
        task = NextToken.task(tokens_of(folder, loaded.tokenizer, facts), loaded.tokenizer, facts)
        tokens = task.validation_tokens[:VALIDATION_TOKENS]
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

    from ..backend import xp
    from ..training import load_checkpoint

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
    typer.echo(f"model     {summary(loaded.model)}")
    typer.echo(repr(loaded.model))
