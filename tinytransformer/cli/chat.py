"""``tinytransformer chat``: a conversation with a published model, in the terminal."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from .app import ConfigOption, UsageError, app, given


@app.command(
    epilog="""\b
    Examples:
      tinytransformer chat
      tinytransformer chat --prompt 'Why is the sky blue?' --stats
      tinytransformer chat --model ./gpt2 --plain --prompt 'Once upon a time'
    """
)
def chat(
    invocation: typer.Context,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="smollm2, a folder or .gguf file, or a name on the Hugging Face Hub."
        ),
    ] = "smollm2",
    prompt: Annotated[str | None, typer.Option(help="Answer this, and leave.")] = None,
    system: Annotated[
        str | None, typer.Option(help="What the model is told first; by default what its publishers chose.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Go on with the text, for models not made to converse.")
    ] = False,
    tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 512,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the likeliest token; 1 draws as the model says.")
    ] = 0.0,
    top_k: Annotated[int | None, typer.Option(min=1, help="Draw from the k likeliest tokens.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens of this total probability.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Repeats a conversation.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show the speed after each answer.")] = False,
    config: ConfigOption = None,
) -> None:
    """Talk with a published model: its answers appear as they are written.

    Ctrl-C stops an answer, Ctrl-D leaves.
    """
    import numpy

    from ..generation import Conversation, PlainText
    from ..pretrained import load_chat_template, load_pretrained, load_pretrained_tokenizer

    if plain and given(invocation, "system"):
        raise UsageError("--plain goes on with the text alone: leave out --system")
    started = time.perf_counter()
    tokenizer = load_pretrained_tokenizer(model)
    loaded = load_pretrained(model)
    if not hasattr(loaded, "new_cache") or not hasattr(loaded.config, "context_length"):
        raise UsageError(f"{model!r} is a {type(loaded).__name__}, which does not write text: a GPT does")
    try:
        template: Any = PlainText(tokenizer) if plain else load_chat_template(model, tokenizer, system)
    except ValueError as error:
        raise UsageError(f"{error}; --plain goes on with the text instead") from None
    seconds = time.perf_counter() - started
    typer.echo(f"{model}: {loaded.num_parameters():,} parameters, read in {seconds:.1f} s", err=True)
    talk = Conversation(loaded, tokenizer, template)
    choice: dict[str, Any] = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    choice["rng"] = numpy.random.default_rng(seed)
    if prompt is not None:
        _answer(talk, prompt, tokens, choice, stats)
        return
    if sys.stdin.isatty():
        typer.echo("Ctrl-C stops an answer, Ctrl-D leaves", err=True)
    for message in _messages():
        try:
            _answer(talk, message, tokens, choice, stats)
        except ValueError as error:  # too long for the context, for one
            typer.echo(f"error: {error}", err=True)


def _messages() -> Iterator[str]:
    """Yield what the user types, line by line, until the end of the input."""
    is_terminal = sys.stdin.isatty()
    if is_terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  earlier lines come back with the arrow keys
    while True:
        try:
            message = input("> " if is_terminal else "")
        except EOFError:
            if is_terminal:
                typer.echo()
            return
        except KeyboardInterrupt:
            typer.echo("\n(Ctrl-D leaves)", err=True)
            continue
        if message.strip():
            yield message


def _answer(talk: Any, message: str, tokens: int, choice: dict[str, Any], stats: bool) -> None:
    """Write the answer to a message as it comes."""
    from threadpoolctl import ThreadpoolController

    forgotten = talk.forgotten
    started = first = time.perf_counter()
    blas = contextlib.ExitStack()
    try:
        with blas:
            for piece in talk.answer(message, tokens, **choice):
                if talk.written == 1:
                    first = time.perf_counter()
                    # A product with one row is bound by memory. A second thread gains little, and loses
                    # much when its core is busy: the first one waits for it in each of 200 products.
                    blas.enter_context(ThreadpoolController().limit(limits=1, user_api="blas"))
                typer.echo(piece, nl=False)
                sys.stdout.flush()
        typer.echo()
    except KeyboardInterrupt:
        typer.echo("\n(stopped)")
    ended = time.perf_counter()
    if talk.forgotten > forgotten:
        typer.echo("(the context is full: what was said first is forgotten)", err=True)
    if talk.cut and talk.written >= tokens:
        typer.echo(f"(cut off after {tokens} tokens; --tokens allows more)", err=True)
    if stats and talk.written > 1:
        speed = (talk.written - 1) / max(ended - first, 1e-9)
        typer.echo(
            f"{talk.written} tokens: the first after {first - started:.2f} s, then {speed:.1f} tokens/s",
            err=True,
        )
