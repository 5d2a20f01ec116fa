"""``tinytransformer train``: a GPT on a text, from nothing."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .app import (
    TWO_CORES,
    AccumulateOption,
    BackendOption,
    CheckpointingOption,
    ConfigOption,
    PrecisionOption,
    ThreadsOption,
    UsageError,
    app,
    given,
    one_of,
)
from .runs import Recipe, begin, resume

BPE_TRAINING_CHARACTERS = 20_000_000  # a tokenizer learns nothing new from more
NGRAM_TRAINING_TOKENS = 20_000_000  # counts of more would need more memory than the model
VALIDATION_TOKENS = 1_000_000  # the score of more differs in no digit that is shown, and takes minutes


class NextToken(Recipe):
    """A GPT, which predicts the next token; it is compared with n-gram models.

    Parameters
    ----------
    text : Path or None
    kind : str
        char, byte or bpe.
    vocab_size : int
        Tokens of a bpe tokenizer.
    llama : bool
        Whether the switches that ``sizes`` leave open are those of Llama.
    sizes
        Of the `GPTConfig`.
    """

    architecture = "GPT"
    command = "train"

    def __init__(self, text: Path | None, kind: str, vocab_size: int, llama: bool, **sizes: Any):
        from ..models import GPTConfig

        super().__init__(text)
        self.kind, self.vocab_size, self.sizes = kind, vocab_size, sizes
        self.config = GPTConfig.llama if llama else GPTConfig
        self.config(1, **sizes)  # that there can be such a model is seen before any work

    def tokenizer(self) -> Any:
        """Train the tokenizer, if it is one that learns."""
        from ..text import BPETokenizer, ByteTokenizer, CharacterTokenizer

        if self.kind == "char":
            return CharacterTokenizer.train(self.chunks())
        if self.kind == "byte":
            next(iter(self.chunks()))  # what is no text is told of before anything is written
            return ByteTokenizer()
        return BPETokenizer.train(beginning(self.chunks()), self.vocab_size, progress=True)

    def chunks(self) -> Iterable[str]:
        """Read the text; the default is short enough to be one chunk."""
        from ..text import iterate_text, stdlib_documentation

        return [stdlib_documentation()] if self.text is None else iterate_text(self.text)

    def model(self, vocab_size: int, rng: Any) -> Any:
        """Make a GPT."""
        from ..models import GPT

        return GPT(self.config(vocab_size, **self.sizes), rng)

    @staticmethod
    def task(tokens: Any, tokenizer: Any, facts: Mapping[str, Any]) -> Any:
        """Keep the end of the text for validation."""
        from ..tasks import LanguageModelling
        from ..text import split

        parts = split(tokens, facts["validation_fraction"], facts["context"])
        return LanguageModelling(*parts, facts["batch_size"], facts["context"], facts["seed"])

    @staticmethod
    def split(task: Any) -> str:
        """Count the tokens."""
        return (
            f"{len(task.train_tokens):,} tokens to train on, the {len(task.validation_tokens):,} after them "
            "to validate on"
        )

    @staticmethod
    def report(trainer: Any) -> None:
        """Compare the GPT with n-gram models of the same text, plot the loss, and go on with the text."""
        import numpy

        from .. import plotting
        from ..generation import generate
        from ..training import evaluate, ngram_scores

        folder, tokenizer, model = trainer.folder, trainer.tokenizer, trainer.model
        counts = tokenizer.character_counts
        context = model.config.context_length
        validation = trainer.task.validation_tokens[:VALIDATION_TOKENS]
        scores = ngram_scores(
            numpy.asarray(trainer.task.train_tokens[-NGRAM_TRAINING_TOKENS:]),
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
        less = "less" if gap >= 0 else "more"
        typer.echo(f"  the GPT needs {abs(gap):.3f} bits per character {less} than the trigram")
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
            rng=numpy.random.default_rng(trainer.data["seed"]),
        )
        typer.echo(f"\nsample   {tokenizer.decode(sample)!r}\n")
        typer.echo(f"saved    {folder}: checkpoints, loss.png, {trainer.log.path.name}, tokens.bin")
        typer.echo(f"write    tinytransformer generate {shlex.quote(str(folder))} --prompt 'The function'")


def beginning(chunks: Iterable[str]) -> Iterable[str]:
    """Yield as much of a text as a tokenizer learns from."""
    left = BPE_TRAINING_CHARACTERS
    for chunk in chunks:
        yield chunk[:left]
        left -= len(chunk)
        if left <= 0:
            return


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
    resume_from: Annotated[
        Path | None, typer.Option("--resume", metavar="FOLDER", help="Go on with the run in this folder.")
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
    llama: Annotated[
        bool, typer.Option("--llama", help="RMS norm, rotary positions, SwiGLU and no biases, as Llama has.")
    ] = False,
    dropout: Annotated[float, typer.Option(min=0.0, max=0.99, help="Probability of dropping.")] = 0.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences in a batch.")] = 8,
    accumulate: AccumulateOption = 1,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Highest learning rate.")] = 4e-3,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Steps to reach it; 100, or a quarter of a short run.")
    ] = None,
    schedule: Annotated[str, typer.Option(help="cosine, linear or constant.")] = "cosine",
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Decay of the matrices.")] = 0.1,
    clip: Annotated[float, typer.Option(min=0.0, help="Largest norm of the gradient.")] = 1.0,
    threads: ThreadsOption = TWO_CORES,
    gradient_checkpointing: CheckpointingOption = False,
    precision: PrecisionOption = "float32",
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
    from ..training import TrainingSettings

    if resume_from is not None:
        if ignored := given(invocation, but=("resume_from", "steps", "backend")):
            raise UsageError(f"--resume goes on with the run as it was begun: leave out {ignored}")
        resume(resume_from, steps, [NextToken])
        return
    one_of("--tokenizer", tokenizer, "char", "byte", "bpe")
    one_of("--log", log, "jsonl", "csv")
    if tokenizer != "bpe" and given(invocation, "vocab_size"):
        raise UsageError("--vocab-size is for --tokenizer bpe; the others have a size of their own")
    if not math.isfinite(seconds):
        raise UsageError(f"--seconds must be a finite number, not {seconds}")
    settings = TrainingSettings(
        steps=steps or 1,  # without --steps they are planned on the way
        learning_rate=learning_rate,
        warmup=warmup if steps and warmup else 0,
        schedule=schedule,
        weight_decay=weight_decay,
        clip=clip,
        accumulate=accumulate,
        threads=threads,
        gradient_checkpointing=gradient_checkpointing,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
        precision=precision,
    )
    sizes: dict[str, Any] = {
        "context_length": context,
        "d_model": d_model,
        "num_layers": layers,
        "num_heads": heads,
    }
    sizes |= {"dropout": dropout, "tied_head": tied_head}
    if not llama or given(invocation, "positions"):
        sizes["positions"] = positions
    begin(
        NextToken(text, tokenizer, vocab_size, llama, **sizes),
        settings,
        {
            "validation_fraction": validation_fraction,
            "batch_size": batch_size,
            "context": context,
            "seed": seed,
        },
        out=out,
        force=force,
        seconds=seconds,
        steps=steps,
        warmup=warmup,
        log=log,
    )
