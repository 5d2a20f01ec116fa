"""``tinytransformer export``: a trained model for other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .app import UsageError, app


@app.command(
    epilog="""\b
    Examples:
      tinytransformer export runs/1 my-model
      tinytransformer export runs/1/checkpoints/step-00000500 my-model --max-shard-size 100MB
    """
)
def export(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder, or one checkpoint in it.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; a new folder.")],
    max_shard_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Most bytes of a file; a larger model is divided.")
    ] = "5GB",
) -> None:
    """Write a model and its tokenizer as Hugging Face lays them out, for transformers and others to read.

    A GPT, BERT or T5 can be written. --model of finetune, fill-mask and chat --plain takes such a folder too.
    """
    from ..pretrained import save_pretrained
    from ..text.tokenizers import atomic_file
    from ..training import load_checkpoint

    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UsageError(f"{str(folder)!r} exists: name a new folder")
    loaded = load_checkpoint(checkpoint)
    save_pretrained(loaded.model, folder, loaded.tokenizer, max_shard_size)
    facts = loaded.state.get("data")
    labels = facts.get("labels") if isinstance(facts, dict) else None
    if labels is not None:  # of a classifier: others say them too
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
        config["id2label"] = {str(i): label for i, label in enumerate(labels)}
        config["label2id"] = {label: i for i, label in enumerate(labels)}
        with atomic_file(Path(folder, "config.json")) as file:
            file.write(json.dumps(config, ensure_ascii=False, indent=2).encode())
    files = ", ".join(sorted(path.name for path in folder.iterdir()))
    typer.echo(f"{type(loaded.model).__name__} and its tokenizer in {folder}: {files}")
