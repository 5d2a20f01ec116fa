"""``tinytransformer fill-mask``: what a BERT puts where a word is hidden."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import BackendOption, ConfigOption, UsageError, app, given
from .runs import output_folder, run_of, tokens_of

EXAMPLE = "Return the [MASK] of the file."
HEADS = ("BERTForPretraining", "BERTForMaskedLM")


@app.command(
    "fill-mask",
    epilog="""\b
    Examples:
      tinytransformer fill-mask
      tinytransformer fill-mask 'Return the [MASK] of the file.'
      tinytransformer fill-mask --model runs/2 --evaluate
    """,
)
def fill_mask(
    invocation: typer.Context,
    text: Annotated[str, typer.Argument(help="A text with one [MASK] or several.")] = EXAMPLE,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="A run's folder, by default the newest with a BERT, and if there is none one is made; or as "
            "in embed.",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Guesses to show for each [MASK].")] = 5,
    evaluate: Annotated[
        bool, typer.Option("--evaluate", help="Measure how many hidden tokens of the run's text are guessed.")
    ] = False,
    backend: BackendOption = None,
    config: ConfigOption = None,
) -> None:
    """Guess hidden words from what stands before and after them.

    With no options: an example, and how many hidden tokens of the run's text are guessed. Where runs/ has no
    BERT yet, one is pretrained first and kept there: three minutes at most.
    """
    if evaluate and (asked := given(invocation, "text", "top")):
        raise UsageError(f"--evaluate measures on the text of the run: leave out {asked}")
    if "[MASK]" not in text:
        raise UsageError("the text has no [MASK] to fill: write one in the place of a word")
    if model is not None:
        checkpoint, loaded, tokenizer = _load(model)
    elif (found := _newest_run()) is not None:
        checkpoint, loaded, tokenizer = found
    else:
        checkpoint, loaded, tokenizer = _first_run(invocation)
    is_example = not given(invocation, "text")
    if not evaluate:
        if is_example:
            typer.echo(text)
        _fill(loaded, tokenizer, text, top)
    if evaluate or (is_example and checkpoint is not None):
        _evaluate(checkpoint)


def _newest_run() -> tuple[Any, Any, Any] | None:
    """Return what `_load` does, of the run below ``runs/`` that has a BERT and was written to last."""
    from ..training import CheckpointError

    for folder in sorted(Path("runs").glob("*/checkpoints"), key=lambda f: f.stat().st_mtime, reverse=True):
        with contextlib.suppress(CheckpointError):  # of another model, or one that has not come far
            return _load(str(folder.parent))
    return None


def _first_run(invocation: typer.Context) -> tuple[Any, Any, Any]:
    """Pretrain a BERT with the defaults, and return what `_load` does of it."""
    from .pretrain import pretrain

    typer.echo(
        "there is no BERT in runs/ yet: one is pretrained now and kept, in 3 minutes at most "
        "(tinytransformer pretrain --model bert)"
    )
    folder = output_folder(None, False)
    pretrain(invocation, model="bert", out=folder)
    typer.echo("")
    return _load(str(folder))


def _load(name: str) -> tuple[Any, Any, Any]:
    """Return the checkpoint, if it is a run's, the model and the tokenizer."""
    from ..pretrained import load_pretrained, load_pretrained_tokenizer
    from ..training import load_checkpoint

    if Path(name).is_dir() and not Path(name, "config.json").exists():
        checkpoint = load_checkpoint(name, *HEADS)
        return checkpoint, checkpoint.model.eval(), checkpoint.tokenizer
    tokenizer, model = load_pretrained_tokenizer(name), load_pretrained(name)
    if type(model).__name__ not in HEADS:
        raise UsageError(
            f"{name!r} is a {type(model).__name__}, which has not learned to guess hidden tokens"
        )
    return None, model, tokenizer


def _fill(model: Any, tokenizer: Any, text: str, top: int) -> None:
    """Print the likeliest tokens at each [MASK]."""
    import numpy

    from ..autograd import no_grad
    from ..generation import next_token_probabilities

    ids = tokenizer.encode_pair(text, allow_special=True)[0][None]  # (1, T)
    places = numpy.flatnonzero(ids[0] == tokenizer.mask_id)
    if ids.shape[1] > model.config.max_positions:
        raise UsageError(
            f"the text has {ids.shape[1]} tokens, and the model sees {model.config.max_positions}"
        )
    with no_grad():
        output = model(ids)
    logits = getattr(output, "logits", output).numpy()[0, places]  # (masks, V)
    for number, p in enumerate(next_token_probabilities(logits), 1):
        if len(places) > 1:
            typer.echo(f"[MASK] {number}")
        for token in numpy.argsort(-p, kind="stable")[:top]:
            typer.echo(f"{p[token]:7.1%}  {tokenizer.tokens[token]}")


def _evaluate(checkpoint: Any) -> None:
    """Print how often hidden tokens of the validation text are guessed, and how often without looking."""
    if checkpoint is None:
        raise UsageError("--evaluate needs the text of a run: give --model the folder of one")
    from .pretrain import HiddenTokens

    folder, facts = run_of(checkpoint)
    tokenizer = checkpoint.tokenizer
    task = HiddenTokens.task(tokens_of(folder, tokenizer, facts), tokenizer, facts)
    scores, baseline = task.scores(checkpoint.model), task.baseline()
    typer.echo(f"hidden tokens of the validation part of {facts['text']}")
    typer.echo(f"  guessed right          {scores['masked_accuracy']:>7.1%}")
    typer.echo(f"  the commonest token    {baseline['masked_accuracy']:>7.1%}")
