"""``tinytransformer embed``: sentences as vectors, and a search by meaning."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import ConfigOption, UsageError, app, given

PAIRS = 300  # of the demonstration: a first line and what follows it, for each
MODULES = "modules of the standard library"


@app.command(
    epilog="""\b
    Examples:
      tinytransformer embed
      tinytransformer embed 'A sentence.' 'Another one.' --out vectors.npy
      tinytransformer embed --search 'read a table from a file'
      tinytransformer embed --search 'cats' --file lines.txt --top 3
    """
)
def embed(
    invocation: typer.Context,
    sentences: Annotated[list[str] | None, typer.Argument(help="What to embed.")] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="UTF-8 text, a sentence a line; - is standard input.")
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(metavar="QUERY", help=f"Show what is nearest to this, by default of the {MODULES}."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How much a search shows.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where to write: .npy, or .jsonl with the sentences."),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="minilm, a folder, or a name on the Hugging Face Hub.")
    ] = "minilm",
    batch_size: Annotated[int, typer.Option(min=1, help="Sentences at once.")] = 32,
    config: ConfigOption = None,
) -> None:
    """Turn sentences into vectors of length 1, whose products say how near their meanings are.

    With no options: find what follows the first line of a docstring, by meaning and, to compare, by words.
    """
    import numpy

    from ..models import BERT
    from ..pretrained import load_pretrained, load_pretrained_tokenizer, sentence_embeddings
    from ..text import WordPieceTokenizer

    if search is None and given(invocation, "top"):
        raise UsageError("--top is for --search")
    if search is not None and out is not None:
        raise UsageError("--search shows what is nearest and writes nothing: leave out --out")
    if out is not None and out.suffix not in (".npy", ".jsonl"):
        raise UsageError(f"--out must end in .npy or .jsonl, not {out.suffix!r}")
    texts = _texts(sentences or [], file)
    if out is not None and not texts:
        raise UsageError("--out needs sentences: give some, or a --file of them")
    if out is not None and not out.absolute().parent.is_dir():
        raise UsageError(f"there is no folder {str(out.parent)!r} to write {out.name} to")
    tokenizer = load_pretrained_tokenizer(model)
    encoder = load_pretrained(model, BERT)
    if not isinstance(encoder, BERT) or not isinstance(tokenizer, WordPieceTokenizer):
        raise UsageError(
            f"{model!r} is a {type(encoder).__name__} with a {type(tokenizer).__name__}: embed needs a BERT "
            "without a head, and WordPiece"
        )

    def vectors_of(those: list[str]) -> Any:
        return sentence_embeddings(encoder, tokenizer, those, batch_size, progress=len(those) > batch_size)

    if search is not None:
        _search(search, texts or _module_summaries(), top, vectors_of)
    elif not texts:
        _demonstrate(vectors_of)
    elif out is None or out.suffix == ".jsonl":
        lines = [
            json.dumps({"text": text, "vector": [round(float(x), 7) for x in vector]}, ensure_ascii=False)
            for text, vector in zip(texts, vectors_of(texts), strict=True)
        ]
        if out is None:
            typer.echo("\n".join(lines))
        else:
            out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        numpy.save(out, vectors_of(texts))
    if out is not None:
        typer.echo(f"{len(texts):,} vectors of {encoder.config.d_model} numbers in {out}")


def _texts(sentences: list[str], file: Path | None) -> list[str]:
    from ..text import read_text

    if file is None:
        return sentences
    if sentences:
        raise UsageError("give sentences or a --file of them, not both")
    lines = (sys.stdin.read() if str(file) == "-" else read_text(file)).splitlines()
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise UsageError(f"{str(file)!r} holds no sentence")
    return texts


def _module_summaries() -> list[str]:
    """Return the name of each module of the standard library and the first line of its docstring."""
    import ast

    from ..text import stdlib_modules

    summaries = []
    for path, module in stdlib_modules():
        name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        docstring = ast.get_docstring(module)
        if docstring and not any(part.startswith("_") for part in name.split(".")):
            summaries.append(f"{name}: {docstring.split(chr(10) * 2)[0].replace(chr(10), ' ')}")
    return summaries


def _search(query: str, texts: list[str], top: int, vectors_of: Any) -> None:
    from ..pretrained import nearest

    vectors = vectors_of([*texts, query])
    for i, cosine in nearest(vectors[:-1], vectors[-1], top):
        typer.echo(f"{cosine:6.3f}  {texts[i]}")


def _demonstrate(vectors_of: Any) -> None:
    from ..pretrained import retrieval_scores, summaries_and_bodies, word_overlap
    from ..text import stdlib_docstrings

    summaries, bodies = summaries_and_bodies(stdlib_docstrings(), PAIRS)
    number = len(summaries)
    vectors = vectors_of([*summaries, *bodies])
    found = {
        "by meaning": retrieval_scores(vectors[:number] @ vectors[number:].T),
        "by common words": retrieval_scores(word_overlap(summaries, bodies)),
    }
    typer.echo(
        f"the text that belongs to the first line of a docstring, among {number} of the standard library"
    )
    typer.echo(f"{'':<18} {'first':>8} {'mean 1/rank':>12}")
    for name, scores in found.items():
        typer.echo(f"  {name:<16} {scores.first:>8.1%} {scores.mean_reciprocal_rank:>12.3f}")
    typer.echo(
        f"  {'by chance':<16} {1 / number:>8.1%} {sum(1 / n for n in range(1, number + 1)) / number:>12.3f}"
    )
    typer.echo("search yourself:  tinytransformer embed --search 'read a table from a file'")
