"""``tinytransformer predict``: a fine-tuned model on new text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import BackendOption, UsageError, app
from .finetune import facts_of


@app.command(
    epilog="""\b
    Examples:
      tinytransformer predict runs/1 --text 'Return a new event loop.'
      tinytransformer predict runs/2 --question 'Who sat?' --context 'The cat sat on the mat.'
    """
)
def predict(
    checkpoint: Annotated[Path, typer.Argument(help="A fine-tuned run's folder, or one checkpoint in it.")],
    text: Annotated[str | None, typer.Option(help="For classify, summarize and translate.")] = None,
    question: Annotated[str | None, typer.Option(help="For qa.")] = None,
    context: Annotated[str | None, typer.Option(help="For qa: the text that holds the answer.")] = None,
    beams: Annotated[
        int | None, typer.Option(min=1, help="For summarize and translate; by default as it was tuned.")
    ] = None,
    backend: BackendOption = None,
) -> None:
    """Ask a fine-tuned model: a class, an answer, a summary or a translation."""
    from ..tasks import TASKS
    from ..training import load_checkpoint

    loaded = load_checkpoint(checkpoint)
    facts = facts_of(loaded)
    kind = TASKS[facts["task"]]
    options = {"text": text, "question": question, "context": context}
    for name, value in options.items():
        if (value is not None) != (name in kind.inputs):
            wanted = " and ".join(f"--{column}" for column in kind.inputs)
            raise UsageError(
                f"{str(checkpoint)!r} is for the task {facts['task']}: give {wanted} and no other"
            )
    if beams is not None:
        if "num_beams" not in facts:
            raise UsageError(f"--beams is not for the task {facts['task']}")
        facts["num_beams"] = beams
    inputs = [options[name] or "" for name in kind.inputs]
    for line in kind.predict(loaded.model, loaded.tokenizer, facts, *inputs):
        typer.echo(line)
