"""``tinytransformer pretrain``: a BERT, a GPT or a T5 on a text, from nothing."""

from __future__ import annotations

import math
import re
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
from .train import NextToken, beginning

# what a budget of two minutes on two cores is best spent on, found by trying
SIZES = {"layers": 2, "d_model": 96, "context": 64, "batch_size": 16, "weight_decay": 0.1}
DEFAULTS: dict[str, dict[str, Any]] = {
    "bert": {
        **SIZES, "context": 32, "batch_size": 32, "seconds": 110.0, "vocab_size": 1000,
        "learning_rate": 1.5e-3, "weight_decay": 0.01,
    },
    "gpt": {**SIZES, "seconds": 45.0, "batch_size": 8, "vocab_size": None, "learning_rate": 4e-3},
    "t5": {**SIZES, "seconds": 100.0, "vocab_size": 1000, "learning_rate": 3e-3},
}  # fmt: skip
SENTINELS = 64
T5_TOKENS = ("<pad>", "</s>", *(f"<extra_id_{i}>" for i in range(SENTINELS)))


class _Documents(Recipe):
    """A model that learns from whole documents, which are kept apart for validation.

    Parameters
    ----------
    text : Path or None
    vocab_size : int
        Tokens of the tokenizer.
    sizes
        Of the configuration of the model.
    """

    command = "pretrain"
    default_text = "Python's own documentation and docstrings (standard library)"

    def __init__(self, text: Path | None, vocab_size: int, **sizes: Any):
        super().__init__(text)
        self.vocab_size, self.sizes = vocab_size, sizes
        self._documents: list[str] = []
        self.config(vocab_size)  # that there can be such a model is seen before any work

    def config(self, vocab_size: int) -> Any:
        """Make the configuration of the model."""
        raise AttributeError(f"{type(self).__name__} defines no config()")

    def chunks(self) -> Iterable[str]:
        """Return the documents: topics and docstrings of the standard library, or paragraphs of a file."""
        from ..text import read_text, stdlib_docstrings, stdlib_topics

        if not self._documents:
            if self.text is None:
                self._documents = [*stdlib_topics(), *stdlib_docstrings()]
            else:
                self._documents = re.split(r"\n\s*\n", read_text(self.text))
        return self._documents

    @staticmethod
    def split(task: Any) -> str:
        """Count the documents."""
        return (
            f"{len(task.train_documents):,} documents to train on, {len(task.validation_documents):,} from "
            "all over the text to validate on"
        )


class HiddenTokens(_Documents):
    """A BERT, which guesses hidden tokens and whether one sentence follows another."""

    architecture = "BERTForPretraining"

    def config(self, vocab_size: int) -> Any:
        """Make the configuration of the model."""
        from ..models import BERTConfig

        return BERTConfig(vocab_size, dropout=0.0, **self.sizes)

    def tokenizer(self) -> Any:
        """Train WordPiece."""
        from ..text import WordPieceTokenizer

        return WordPieceTokenizer.train(beginning(self.chunks()), self.vocab_size, progress=True)

    def encoder(self, tokenizer: Any) -> Any:
        """End each sentence with [SEP], and a document with one more."""
        from ..tasks.pretraining import DocumentTokens

        return DocumentTokens(tokenizer, tokenizer.sep_id, sentences=True)

    def model(self, vocab_size: int, rng: Any) -> Any:
        """Make a BERT with both heads, whose matrices start as much larger as it is smaller than BERT-base.

        A deviation of 0.02 is meant for 768 features: with an eighth of them attention hardly starts.
        """
        from ..models import BERTForPretraining

        model = BERTForPretraining(self.config(vocab_size), rng)
        for p in model.parameters():
            if p.ndim == 2:
                p.data *= math.sqrt(768 / model.config.d_model)
        return model

    @staticmethod
    def optimizer(model: Any, settings: Any) -> Any:
        """Let embeddings learn five times as fast: each of them is in few batches."""
        encoder = model.encoder
        tables = (encoder.token_embedding, encoder.position_embedding, encoder.segment_embedding)
        return _adamw(model, settings, tables, 5.0)

    @staticmethod
    def task(tokens: Any, tokenizer: Any, facts: Mapping[str, Any]) -> Any:
        """Keep documents from all over the text for validation."""
        from ..tasks import MaskedLanguageModelling
        from ..tasks.pretraining import documents_in, split_documents

        documents = documents_in(tokens, tokenizer.sep_id)
        parts = split_documents(documents, facts["validation_fraction"])
        return MaskedLanguageModelling(
            *parts, tokenizer, facts["batch_size"], facts["context"], facts["seed"]
        )

    @staticmethod
    def report(trainer: Any) -> None:
        """Compare with what knows no context, plot the loss, and show what is guessed in a sentence."""
        task, tokenizer, model = trainer.task, trainer.tokenizer, trainer.model
        scores, baseline = task.scores(model), task.baseline()
        typer.echo("\nvalidation                                  BERT   without context")
        for what in ("masked", "next_sentence"):
            name = "hidden tokens" if what == "masked" else "next sentence"
            for unit, measure in (("nats each", "loss"), ("guessed right", "accuracy")):
                found, trivial = (s[f"{what}_{measure}"] for s in (scores, baseline))
                shown = "{:.4f}" if measure == "loss" else "{:.1%}"
                typer.echo(f"  {name}, {unit:<14} {shown.format(found):>18} {shown.format(trivial):>17}")
        _plot(trainer, baseline["masked_loss"] + baseline["next_sentence_loss"])
        ids, attention_mask, segments, labels, _ = (array[:1] for array in task.validation[-1])
        hidden = labels[0] >= 0
        guesses = model.eval()(ids, attention_mask, segments).logits.numpy().argmax(-1)[0, hidden]
        pieces = tokenizer.tokens
        typer.echo(f"\nsample   {tokenizer.decode(ids[0][attention_mask[0]])!r}")
        told = (
            f"{pieces[guess]} (was {pieces[label]})" if guess != label else pieces[guess]
            for guess, label in zip(guesses, labels[0, hidden], strict=True)
        )
        typer.echo(f"guessed  {', '.join(told)}\n")
        _saved(trainer)


class LostSpans(_Documents):
    """A T5, which writes the spans that are missing from a text."""

    architecture = "T5"

    def config(self, vocab_size: int) -> Any:
        """Make the configuration of the model, for a tokenizer that ends in the special tokens."""
        from ..models import T5Config

        pad_id = max(vocab_size - len(T5_TOKENS), 0)
        return T5Config(
            vocab_size, dropout=0.0, pad_token_id=pad_id, decoder_start_token_id=pad_id, **self.sizes
        )

    def tokenizer(self) -> Any:
        """Train byte-pair encoding, with special tokens for the end and for spans."""
        from ..text import BPETokenizer

        text = beginning(f"{document}\n" for document in self.chunks())
        return BPETokenizer.train(text, self.vocab_size, progress=True, special_tokens=T5_TOKENS)

    def encoder(self, tokenizer: Any) -> Any:
        """End each document with </s>."""
        from ..tasks.pretraining import DocumentTokens

        return DocumentTokens(tokenizer, _end(tokenizer))

    def model(self, vocab_size: int, rng: Any) -> Any:
        """Make a T5."""
        from ..models import T5

        return T5(self.config(vocab_size), rng)

    @staticmethod
    def task(tokens: Any, tokenizer: Any, facts: Mapping[str, Any]) -> Any:
        """Keep documents from all over the text for validation."""
        import numpy

        from ..tasks import SpanCorruption
        from ..tasks.pretraining import split_documents

        tokens, end = numpy.array(tokens, int), _end(tokenizer)
        documents = numpy.split(tokens, numpy.flatnonzero(tokens == end) + 1)[
            :-1
        ]  # nothing is after the last
        parts = split_documents(documents, facts["validation_fraction"])
        sentinels = range(end + 1, tokenizer.vocab_size)
        return SpanCorruption(*parts, end, sentinels, facts["batch_size"], facts["context"], facts["seed"])

    @staticmethod
    def optimizer(model: Any, settings: Any) -> Any:
        """Let embeddings and biases of distances, which start ten times as large, learn ten times as fast.

        Adafactor, with which T5 was published, takes steps in proportion to what it changes.
        """
        tables = (model.embedding, model.encoder.relative_bias, model.decoder.relative_bias)
        return _adamw(model, settings, tables, 10.0)

    @staticmethod
    def report(trainer: Any) -> None:
        """Compare with what knows no context, plot the loss, and write what is missing in a text."""
        from ..generation import generate

        task, tokenizer, model = trainer.task, trainer.tokenizer, trainer.model
        scores, baseline = task.scores(model), task.baseline()
        typer.echo("\nvalidation, nats per token                    T5   without context")
        for name, what in (("all targets", "loss"), ("tokens of the text", "span_loss")):
            typer.echo(f"  {name:<28} {scores[what]:>17.4f} {baseline[what]:>17.4f}")
        _plot(trainer, baseline["loss"])
        inputs, labels = (array[:1] for array in task.validation[0])
        written = generate(
            model.given(inputs),
            [model.config.decoder_start_token_id],
            2 * labels.shape[1],
            temperature=0.0,
            stop_tokens=_end(tokenizer),
        )
        typer.echo(f"\nsample   {tokenizer.decode(inputs[0])!r}")
        typer.echo(f"written  {tokenizer.decode(written)!r}")
        typer.echo(f"was      {tokenizer.decode(labels[0])!r}\n")
        _saved(trainer)


def _end(tokenizer: Any) -> int:
    """Return the id of </s>, behind which only those of the sentinels come."""
    return tokenizer.vocab_size - len(T5_TOKENS) + 1


def _adamw(model: Any, settings: Any, embeddings: Iterable[Any], lr_scale: float) -> Any:
    """Make an AdamW with a learning rate of their own for embeddings, which do not decay."""
    from ..optim import AdamW, decay_groups

    tables = [embedding.weight for embedding in embeddings]
    groups = decay_groups(model, settings.weight_decay)
    for group in groups:
        group["params"] = [p for p in group["params"] if not any(p is table for table in tables)]
    groups.append({"params": tables, "lr_scale": lr_scale, "weight_decay": 0.0})
    return AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2))


def _plot(trainer: Any, baseline: float) -> None:
    from .. import plotting

    plotting.loss_curve(
        trainer.log.rows(), trainer.folder / "loss.png", baselines={"without context": baseline}, unit="nats"
    )


def _saved(trainer: Any) -> None:
    folder = trainer.folder
    typer.echo(f"saved    {folder}: checkpoints, loss.png, {trainer.log.path.name}, tokens.bin")
    typer.echo(f"look     tinytransformer info {shlex.quote(str(folder))}")


RECIPES: dict[str, type[Recipe]] = {"bert": HiddenTokens, "gpt": NextToken, "t5": LostSpans}


@app.command(
    epilog="""\b
    Examples:
      tinytransformer pretrain --model bert
      tinytransformer pretrain --model t5 --text book.txt --seconds 600
      tinytransformer pretrain --model gpt --llama
      tinytransformer pretrain --resume runs/1 --steps 5000
    """
)
def pretrain(
    invocation: typer.Context,
    model: Annotated[str, typer.Option(help="bert, gpt or t5.")] = "bert",
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="UTF-8 text to train on, a document in each paragraph; by default Python's documentation.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write; by default runs/1, runs/2, …")
    ] = None,
    resume_from: Annotated[
        Path | None, typer.Option("--resume", metavar="FOLDER", help="Go on with the run in this folder.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the run in the output folder.")] = False,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Time for training; 110, for t5 100, for gpt 45.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Number of steps, whatever time they take.")
    ] = None,
    vocab_size: Annotated[
        int | None, typer.Option(min=1, help="Tokens; 1000. For gpt characters unless given.")
    ] = None,
    llama: Annotated[
        bool, typer.Option("--llama", help="gpt with RMS norm, rotary positions, SwiGLU and no biases.")
    ] = False,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers; of t5, in each stack.")] = None,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads of each layer.")] = 4,
    d_model: Annotated[int | None, typer.Option(min=1, help="Features of each position.")] = None,
    context: Annotated[int | None, typer.Option(min=5, help="Tokens the model sees at once.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Sequences in a batch.")] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Highest learning rate.")] = None,
    accumulate: AccumulateOption = 1,
    threads: ThreadsOption = TWO_CORES,
    gradient_checkpointing: CheckpointingOption = False,
    precision: PrecisionOption = "float32",
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between evaluations.")] = 500,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    validation_fraction: Annotated[
        float, typer.Option(min=0.001, max=0.5, help="Part of the text kept for validation.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, data order and masks.")] = 0,
    backend: BackendOption = None,
    config: ConfigOption = None,
) -> None:
    """Pretrain a BERT, GPT or T5 on text alone, each with its own objective, and save it.

    BERT guesses hidden tokens and whether sentences follow each other, GPT the next token, T5 writes missing
    spans. With no options: two minutes on Python's own documentation and docstrings. In the end the model is
    compared with the best guesses that know no context.
    """
    from ..training import TrainingSettings

    if resume_from is not None:
        if ignored := given(invocation, but=("resume_from", "steps", "backend")):
            raise UsageError(f"--resume goes on with the run as it was begun: leave out {ignored}")
        resume(resume_from, steps, list(RECIPES.values()))
        return
    one_of("--model", model, *RECIPES)
    if llama and model != "gpt":
        raise UsageError("--llama is for --model gpt")
    if seconds is not None and not math.isfinite(seconds):
        raise UsageError(f"--seconds must be a finite number, not {seconds}")
    chosen = {"seconds": seconds, "layers": layers, "d_model": d_model, "context": context}
    chosen |= {"batch_size": batch_size, "vocab_size": vocab_size, "learning_rate": learning_rate}
    values = DEFAULTS[model] | {name: value for name, value in chosen.items() if value is not None}
    layers, d_model, context = values["layers"], values["d_model"], values["context"]
    vocab_size = values["vocab_size"]
    sizes: dict[str, Any] = {"num_layers": layers, "num_heads": heads, "d_model": d_model}
    recipe: Recipe
    if model == "bert":
        recipe = HiddenTokens(text, vocab_size, max_positions=context, d_ff=4 * d_model, **sizes)
    elif model == "gpt":
        kind = "char" if vocab_size is None else "bpe"
        recipe = NextToken(text, kind, vocab_size or 0, llama, context_length=context, **sizes)
    else:
        if d_model % heads:
            raise UsageError(f"--heads {heads} does not divide --d-model {d_model}")
        recipe = LostSpans(text, vocab_size, d_kv=d_model // heads, d_ff=4 * d_model, **sizes)
    settings = TrainingSettings(
        steps=steps or 1,  # without --steps they are planned on the way
        learning_rate=values["learning_rate"],
        warmup=0,
        weight_decay=values["weight_decay"],
        accumulate=accumulate,
        threads=threads,
        gradient_checkpointing=gradient_checkpointing,
        precision=precision,
        evaluate_every=evaluate_every,
        checkpoint_every=checkpoint_every,
    )
    begin(
        recipe,
        settings,
        {
            "validation_fraction": validation_fraction,
            "batch_size": values["batch_size"],
            "context": context,
            "seed": seed,
        },
        out=out,
        force=force,
        seconds=values["seconds"],
        steps=steps,
        warmup=None,
    )
