"""Text to text with an encoder-decoder: what summarization and translation have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy
from numpy.typing import NDArray

from ..formulas import cross_entropy
from ..generation import beam_search, generate
from ..models import T5, Transformer, TransformerConfig
from ..tensor import Tensor
from ..text import Tokenizer, pad
from .finetuning import Batch, FineTuning, Row, TaskData, shorten

__all__ = ["SequenceToSequence", "end_token", "write"]

# NUL, token 0, starts what our own models write, and ETX (end of text) ends it: no text holds them
START, END = "\0", "\3"
IGNORED = -100


def end_token(tokenizer: Tokenizer) -> int:
    r"""Return the token that ends a target: ``</s>`` or ``[SEP]``, or else the character ETX.

    Raises
    ------
    ValueError
        If the tokenizer has none of them.

    Examples
    --------
    >>> from tinytransformer.text import BPETokenizer, ByteTokenizer
    >>> end_token(ByteTokenizer()), end_token(BPETokenizer([], ["<pad>", "</s>"]))
    (3, 257)
    """
    for name in ("</s>", "[SEP]"):
        if name in tokenizer.tokens:
            return len(tokenizer.tokens) - 1 - tokenizer.tokens[::-1].index(name)  # special tokens come last
    ids = tokenizer.encode(END)
    if len(ids) != 1:
        raise ValueError(f"{tokenizer!r} has no token to end a target with: </s>, [SEP] or the character ETX")
    return int(ids[0])


def start_token(model: Any) -> int:
    """Return the token that the decoder of a model reads first: a T5 says which, our own start with NUL.

    Examples
    --------
    >>> from tinytransformer.models import T5, T5Config
    >>> start_token(T5(T5Config(7, d_model=8, d_kv=4, d_ff=16, num_heads=2, decoder_start_token_id=5)))
    5
    """
    return getattr(model.config, "decoder_start_token_id", 0)


def write(
    model: Any, sources: Sequence[Any], end: int, max_new_tokens: int, num_beams: int = 1
) -> list[NDArray[numpy.int64]]:
    """Write a target for each source: the likeliest token at each place, or the best that beams find.

    Parameters
    ----------
    model : Transformer or T5
    sources : sequence of integer array, each (S_i,)
        Each with its end token.
    end : int
        The token that ends a target.
    max_new_tokens : int
        Of a target, the end token included.
    num_beams : int
        With more than 1: beam search of this width.

    Returns
    -------
    list of array of int64, each (T_i,)
        The targets, without the end token.

    Examples
    --------
    >>> from tinytransformer.models import Transformer, TransformerConfig
    >>> model = Transformer(TransformerConfig(7, 7, d_model=8, num_heads=2, d_ff=16, dropout=0.0))
    >>> [len(target) <= 5 for target in write(model, [[3, 4, 1], [5, 1]], end=1, max_new_tokens=5)]
    [True, True]
    """
    given = model.given(*pad(sources, 0))
    starts = [[start_token(model)]] * len(sources)
    if num_beams > 1:
        found = beam_search(given, starts, max_new_tokens, num_beams=num_beams, stop_tokens=end)
        targets = [hypothesis.tokens for hypothesis in found]
    else:
        targets = generate(given, starts, max_new_tokens, temperature=0, stop_tokens=end)
    return [target[target != end] for target in targets]


class SequenceToSequence(FineTuning):
    r"""Write a target, given a source: rows (source, target).

    .. math:: P(y_1, \dots, y_n \mid x) = \prod_{t=1}^{n} P(y_t \mid x, y_1, \dots, y_{t-1})

    A new model is a small `Transformer`; a trained one may be a `T5`. In training the decoder reads the true
    target, each token one place late (teacher forcing); afterwards it reads what it has written itself.
    Source and target both close with an end token.

    Attributes
    ----------
    longest_source, longest_target : int
        Tokens, the end token included; what comes later is cut off.
    num_beams : int
        How many targets are followed side by side when the model writes; 1 is greedy.

    Notes
    -----
    Source: document section 3.1; Sutskever et al., Sequence to Sequence Learning with Neural Networks, 2014.
    """

    columns = ("source", "target")
    inputs = ("text",)
    options: ClassVar[tuple[str, ...]] = ("beams",)
    pretrained_settings: ClassVar[dict[str, Any]] = {"learning_rate": 1e-3, "batch_size": 32}
    sizes: ClassVar[dict[str, Any]]  # of a new model, as `TransformerConfig` takes them
    longest_source: ClassVar[int]
    longest_target: ClassVar[int]
    num_beams = 1

    @classmethod
    @abstractmethod
    def new_tokenizer(cls, texts: list[str]) -> Tokenizer:
        """Make a tokenizer of the texts to train on, in which NUL is the token 0."""

    @classmethod
    def source_of(cls, row: Row) -> str:
        """Return what the model reads of a row, which may have a source alone."""
        return row[0]

    @classmethod
    def target_of(cls, row: Row) -> str:
        """Return what the model learns to write for a row."""
        return row[1]

    @classmethod
    def text_of(cls, tokenizer: Tokenizer, target: Any) -> str:
        """Return the text of the tokens that a model has written."""
        known = target[target < tokenizer.vocab_size]  # published models may have rows for more
        return tokenizer.decode(known).strip()

    @classmethod
    @abstractmethod
    def metrics(cls, written: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
        """Compare what was written with the targets, each metric from 0 to 1, 1 where they are equal."""

    @classmethod
    @abstractmethod
    def trivial(cls, data: TaskData) -> dict[str, list[str]]:
        """Return what trivial methods write for the validation rows, by their descriptions."""

    @classmethod
    def new_model(cls, data: TaskData, rng: numpy.random.Generator) -> tuple[Transformer, Tokenizer]:
        """Make a small Transformer and a tokenizer of the texts."""
        texts = [text for row in data.train for text in (cls.source_of(row), cls.target_of(row))]
        tokenizer = cls.new_tokenizer(texts)
        config = TransformerConfig(tokenizer.vocab_size, tokenizer.vocab_size, **cls.sizes)
        return Transformer(config, rng), tokenizer

    @classmethod
    def with_head(cls, model: Any, data: TaskData, rng: numpy.random.Generator) -> Any:
        """Take a T5, or another run's model, as it is: it writes already."""
        if not isinstance(model, (T5, Transformer)):
            raise ValueError(f"text from text is for a T5 or Transformer, not for a {type(model).__name__}")
        return model

    def prepare(self, model: Any) -> None:
        """Tokenize the rows."""
        self.start, self.end = start_token(model), end_token(self.tokenizer)
        self.train = [self._example(row) for row in self.data.train]
        self.validation = [self._example(row) for row in self.data.validation]
        self.max_new_tokens = max(len(target) for _, target in self.train)  # the model has seen none longer

    def _example(self, row: Row) -> tuple[Any, Any]:
        return (
            closed(self.tokenizer, self.source_of(row), self.end, self.longest_source),
            closed(self.tokenizer, self.target_of(row), self.end, self.longest_target),
        )

    def length(self, example: Any) -> int:
        """Tokens of source and target."""
        source, target = example
        return len(source) + len(target)

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Make a batch.

        Returns
        -------
        input_ids, attention_mask : arrays, (batch, S)
            The sources.
        decoder_input_ids, labels : arrays of int64, (batch, T)
            What the decoder reads, from its start token on, and what it is to write: the same, one place
            later, and -100 at padding.
        """
        sources, targets = zip(*examples, strict=True)
        input_ids, attention_mask = pad(sources, 0)
        read = [numpy.append(self.start, target[:-1]) for target in targets]
        return input_ids, attention_mask, pad(read, 0)[0], pad(targets, IGNORED)[0]

    def loss(self, model: Any, *batch: Any) -> Tensor:
        """Mean cross-entropy of the labels, in nats."""
        input_ids, attention_mask, decoder_input_ids, labels = batch
        logits = model(input_ids, attention_mask=attention_mask, decoder_input_ids=decoder_input_ids)
        return cross_entropy(logits, labels)

    def count(self, *batch: Any) -> int:
        """Labels that are no padding."""
        return int((batch[-1] != IGNORED).sum())

    def facts(self) -> dict[str, Any]:
        """Return how the model is to write."""
        return {"num_beams": self.num_beams, "max_new_tokens": self.max_new_tokens}

    def written(self, model: Any, examples: Sequence[Any], progress: bool = False) -> list[str]:
        """Return what a model writes for the sources of examples."""

        def work(chosen: list[Any]) -> list[Any]:
            sources = [source for source, _ in chosen]
            return write(model, sources, self.end, self.max_new_tokens, self.num_beams)

        targets = self.in_batches(model, examples, work, progress)
        return [self.text_of(self.tokenizer, target) for target in targets]

    def score(self, model: Any, progress: bool = False) -> dict[str, float]:
        """Return the metrics of what a model writes for the validation rows."""
        return self.scores_of(self.written(model, self.validation, progress))

    def scores_of(self, written: Sequence[str]) -> dict[str, float]:
        """Return the metrics of texts written for the validation rows."""
        return self.metrics(written, [row[1] for row in self.data.validation])

    def baseline(self) -> tuple[str, dict[str, float]]:
        """Return the trivial method that the first metric likes best."""
        scores = {name: self.scores_of(texts) for name, texts in self.trivial(self.data).items()}
        best = max(scores, key=lambda name: next(iter(scores[name].values())))
        return best, scores[best]

    def samples(self, model: Any, number: int) -> list[str]:
        """Return lines with source, what a model writes, and the target, of rows from all over."""
        chosen = numpy.linspace(0, len(self.validation) - 1, min(number, len(self.validation))).astype(int)
        rows = [self.data.validation[i] for i in chosen]
        written = self.written(model, [self.validation[i] for i in chosen])
        return [
            f"{shorten(self.source_of(row), 60)!r} -> {text!r}, and the target is {row[1]!r}"
            for row, text in zip(rows, written, strict=True)
        ]

    @classmethod
    def predict(cls, model: Any, tokenizer: Tokenizer, facts: dict[str, Any], *inputs: str) -> list[str]:
        """Return what a model writes for a source, one line."""
        end = end_token(tokenizer)
        source = closed(tokenizer, cls.source_of(inputs), end, cls.longest_source)
        (target,) = write(model, [source], end, facts["max_new_tokens"], facts["num_beams"])
        return [cls.text_of(tokenizer, target)]


def closed(tokenizer: Tokenizer, text: str, end: int, longest: int) -> Any:
    """Return the tokens of a text, cut off where they are too many, and the end token."""
    return numpy.append(tokenizer.encode(text)[: longest - 1], end)
