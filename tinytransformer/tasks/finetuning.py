"""What the tasks have in common that a trained model is tuned for: rows of data, batches, an optimizer."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy

from ..autograd import no_grad
from ..nn import Module
from ..optim import AdamW, decay_groups, layerwise_groups
from ..text import TextError, read_text
from ..text.tokenizers import progress_bar

__all__ = ["FineTuning", "TaskData", "fine_tuning_optimizer", "read_rows", "split_rows"]

Row = tuple[Any, ...]
Batch = tuple[Any, ...]
POOL = 32  # batches whose rows are sorted by length together, so that little of a batch is padding


@dataclasses.dataclass(frozen=True)
class TaskData:
    """The rows of a task, split so that no document is on both sides.

    Attributes
    ----------
    train, validation : list of tuple
        A row has the columns that the task names.
    source : str
        Where they come from, in words.

    Examples
    --------
    >>> data = TaskData([("to be", "play")], [("ten days", "history")], "two lines")
    >>> data.fingerprint
    '1 + 1 rows, sha256 6d7b025c9c91'
    """

    train: list[Row]
    validation: list[Row]
    source: str

    @property
    def fingerprint(self) -> str:
        """Numbers of rows, and the start of the SHA-256 of all: the standard library changes with Python."""
        text = json.dumps([self.train, self.validation])
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return f"{len(self.train)} + {len(self.validation)} rows, sha256 {digest}"


class FineTuning(ABC):
    """A task with its data, as `training.Trainer` takes it, with a metric and a baseline.

    Parameters
    ----------
    data : TaskData
    model : Module
        That of `new_model` or `with_head`: it says how long the texts may be.
    tokenizer : Tokenizer
        That of the model.
    batch_size : int
        Rows in a batch.
    seed : int
        Of the order of the rows.

    Attributes
    ----------
    columns, optional_columns : tuple of str
        What a row of the task's data is made of; the optional ones come last, and may be None.
    inputs : tuple of str
        The columns that the model is given, when it is used.
    options : tuple of str
        Options of the command line that this task understands and others do not.
    settings : dict
        Values for `training.TrainingSettings` with which a new model learns well.
    pretrained_settings : dict
        The same for a trained one.
    """

    columns: ClassVar[tuple[str, ...]]
    optional_columns: ClassVar[tuple[str, ...]] = ()
    inputs: ClassVar[tuple[str, ...]]
    options: ClassVar[tuple[str, ...]] = ()
    settings: ClassVar[dict[str, Any]]
    pretrained_settings: ClassVar[dict[str, Any]]

    def __init__(self, data: TaskData, model: Any, tokenizer: Any, batch_size: int, seed: int):
        self.data = data
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.seed = seed
        self._order: tuple[int, list[Any]] = (-1, [])  # the batches of an epoch, by its number
        self.prepare(model)
        self.lengths = [self.length(row) for row in self.train]
        mean = sum(self.lengths) / len(self.lengths)
        self.tokens_per_batch = round(mean * min(batch_size, len(self.lengths)))

    num_beams = 1  # that a task follows, if it writes texts
    train: list[Any]  # examples as `prepare` made them of the rows
    validation: list[Any]

    # what a task says about itself

    @classmethod
    @abstractmethod
    def default_data(cls, seed: int) -> TaskData:
        """Return real data that needs no download."""

    @classmethod
    def checked(cls, row: Row) -> Row:
        """Return a row of the user's data as the task wants it; a ValueError says what is wrong with it."""
        return row

    @classmethod
    def document(cls, row: Row) -> Any:
        """Return what rows have in common that must stay on one side of the split."""
        return row[0]

    @classmethod
    @abstractmethod
    def new_model(cls, data: TaskData, rng: numpy.random.Generator) -> tuple[Any, Any]:
        """Make a small model from nothing, and a tokenizer from the texts to train on."""

    @classmethod
    @abstractmethod
    def with_head(cls, model: Any, data: TaskData, rng: numpy.random.Generator) -> Any:
        """Make a model for the task from a trained one; a ValueError says why that cannot be."""

    @abstractmethod
    def prepare(self, model: Any) -> None:
        """Tokenize the rows into ``self.train`` and ``self.validation``."""

    @abstractmethod
    def length(self, example: Any) -> int:
        """Return how many tokens an example costs."""

    @abstractmethod
    def collate(self, examples: Sequence[Any]) -> Batch:
        """Make a batch: arrays whose first axis is the examples."""

    @abstractmethod
    def loss(self, model: Any, *batch: Any) -> Any:
        """Return the mean loss of a batch over its targets, in nats."""

    @abstractmethod
    def count(self, *batch: Any) -> int:
        """Count the targets of a batch."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what `predict` has to know beside the model, as JSON can hold it."""

    @abstractmethod
    def score(self, model: Any, progress: bool = False) -> dict[str, float]:
        """Return the metrics of a model on the validation rows, by name; the first is the one that counts."""

    @abstractmethod
    def baseline(self) -> tuple[str, dict[str, float]]:
        """Return the best trivial method's description, and its metrics on the validation rows."""

    @abstractmethod
    def samples(self, model: Any, number: int) -> list[str]:
        """Return lines that show some validation rows, with what the model says and what is true."""

    @classmethod
    @abstractmethod
    def predict(cls, model: Any, tokenizer: Any, facts: dict[str, Any], *inputs: str) -> list[str]:
        """Return lines with what the model says about inputs, given what `facts` returned."""

    # what all tasks have in common: a training.Task

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: each row comes once in an epoch, beside rows of about its length."""
        size = min(self.batch_size, len(self.train))
        batches_per_epoch = len(self.train) // size
        epoch, place = divmod(step, batches_per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self._epoch(epoch, size))
        return self.collate([self.train[i] for i in self._order[1][place]])

    def drawing(self, step: int) -> numpy.random.Generator:
        """Return the generator for what is drawn at a step: the same at any later time."""
        return numpy.random.default_rng([self.seed, step, 1])

    def _epoch(self, epoch: int, size: int) -> list[Any]:
        rng = numpy.random.default_rng([self.seed, epoch])
        rows = rng.permutation(len(self.train))[: len(self.train) // size * size]
        lengths = numpy.array(self.lengths)
        batches: list[Any] = []
        for start in range(0, len(rows), POOL * size):
            pool = rows[start : start + POOL * size]
            pool = pool[numpy.argsort(lengths[pool], kind="stable")]
            batches += list(pool.reshape(-1, size))
        return [batches[i] for i in rng.permutation(len(batches))]

    def validation_loss(self, model: Any) -> float:
        """Mean loss over the targets of the validation rows, in nats, without dropout."""
        total, targets = 0.0, 0

        def add(examples: Sequence[Any]) -> None:
            nonlocal total, targets
            batch = self.collate(examples)
            number = self.count(*batch)
            if number:  # of nothing there is no mean
                total += self.loss(model, *batch).item() * number
                targets += number

        self.in_batches(model, self.validation, add)
        return total / targets

    def in_batches(
        self, model: Any, examples: Sequence[Any], work: Callable[[list[Any]], Any], progress: bool = False
    ) -> list[Any]:
        """Do some work on all examples, batch by batch of about equal lengths, in evaluation mode.

        Returns
        -------
        list
            For each example what ``work(examples of a batch)`` gave for it; None where it gave None.
        """
        size = max(self.batch_size, 1)
        order = sorted(range(len(examples)), key=lambda i: self.length(examples[i]))
        results: list[Any] = [None] * len(examples)
        was_training = model.training
        model.eval()
        try:
            with no_grad(), progress_bar(progress, len(examples), "evaluating", "row") as advance:
                for start in range(0, len(order), size):
                    chosen = order[start : start + size]
                    found = work([examples[i] for i in chosen])
                    for i, result in zip(chosen, found or [None] * len(chosen), strict=True):
                        results[i] = result
                    advance(len(chosen))
        finally:
            model.train(was_training)
        return results


def read_rows(path: str | os.PathLike[str], kind: type[FineTuning]) -> list[Row]:
    r"""Read a user's rows: ``.csv`` or ``.tsv`` with a header, or ``.jsonl`` with an object on each line.

    Parameters
    ----------
    path : path
        UTF-8. Columns that the task does not know are left alone.
    kind : subclass of FineTuning
        Names the columns, and checks each row.

    Raises
    ------
    TextError
        If the file cannot be read, or with the number of the first line that is wrong.

    Examples
    --------
    >>> import tempfile
    >>> from tinytransformer.tasks import Classification
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "rows.csv")
    ...     _ = path.write_text('text,label\n"one, two",a\nthree,b\n', encoding="utf-8")
    ...     read_rows(path, Classification)
    [('one, two', 'a'), ('three', 'b')]
    """
    path = Path(path)
    name = repr(str(path))
    readers = {".csv": _table, ".tsv": _table, ".jsonl": _objects}
    if path.suffix not in readers:
        raise TextError(f"{name} must end in .csv, .tsv or .jsonl, which tells how it is written")
    rows = []
    for line, fields in readers[path.suffix](path, read_text(path), kind.columns):
        values = []
        for column in kind.columns:
            value = fields.get(column)
            if not isinstance(value, str) or not value.strip():
                raise TextError(f"{name}, line {line}: {column} must be a text that is not empty")
            values.append(value)
        try:
            rows.append(kind.checked((*values, *(fields.get(column) for column in kind.optional_columns))))
        except ValueError as error:
            raise TextError(f"{name}, line {line}: {error}") from None
    if len(rows) < 2:
        raise TextError(f"{name} has {len(rows)} rows, and at least 2 are needed: one to validate on")
    return rows


def _table(path: Path, text: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(
        text.splitlines(keepends=True), delimiter="\t" if path.suffix == ".tsv" else ",", strict=True
    )
    line = 1
    try:
        header = next(reader)
        if missing := [column for column in columns if column not in header]:
            raise TextError(
                f"{str(path)!r}, line 1: there is no column {missing[0]!r}; the first line must name the "
                f"columns, {', '.join(columns)} among them"
            )
        while True:
            line = reader.line_num + 1  # a row may go on over several lines
            values = next(reader)
            if values and len(values) != len(header):
                raise TextError(
                    f"{str(path)!r}, line {line}: it has {len(values)} values, and the header {len(header)}"
                )
            if values:
                yield line, dict(zip(header, values, strict=True))
    except StopIteration:
        return
    except csv.Error as error:
        raise TextError(f"{str(path)!r}, line {line}: {error}") from None


def _objects(path: Path, text: str, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        try:
            fields = json.loads(written)
        except (ValueError, RecursionError):
            raise TextError(f"{str(path)!r}, line {line}: it is not valid JSON") from None
        if not isinstance(fields, dict):
            raise TextError(f"{str(path)!r}, line {line}: it is not a JSON object with {', '.join(columns)}")
        yield line, fields


def shorten(text: str, length: int) -> str:
    """Return the beginning of a text, on one line, with … where it was cut.

    Examples
    --------
    >>> shorten("attention is", 8)
    'attentio…'
    """
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[:length]}…"


def split_rows(
    rows: Sequence[Row], document: Callable[[Row], Any], seed: int, fraction: float = 0.1
) -> tuple[list[Row], list[Row]]:
    """Draw documents for validation until they hold this fraction of the rows; the rest is to train on.

    A row that comes twice is kept once.

    Parameters
    ----------
    rows : sequence of tuple
    document : callable
        Returns what rows of one document have in common.
    seed : int
    fraction : float

    Returns
    -------
    train, validation : list of tuple
        In the order of the rows. Neither is empty.

    Raises
    ------
    ValueError
        If all rows are of one document.

    Examples
    --------
    >>> split_rows([("a", 1), ("b", 1), ("a", 2), ("c", 1)], lambda row: row[0], seed=0, fraction=0.5)
    ([('a', 1), ('a', 2)], [('b', 1), ('c', 1)])
    """
    rows = list(dict.fromkeys(rows))
    sizes: dict[Any, int] = {}
    for row in rows:
        key = document(row)
        sizes[key] = sizes.get(key, 0) + 1
    if len(sizes) < 2:
        raise ValueError(f"all {len(rows)} rows are of one document: nothing else is there to validate on")
    documents = list(sizes)
    wanted = fraction * len(rows)
    chosen: set[Any] = set()
    taken = 0
    for i in numpy.random.default_rng(seed).permutation(len(documents)):
        size = sizes[documents[i]]
        if not chosen or taken + size <= 1.1 * wanted:
            chosen.add(documents[i])
            taken += size
    return (
        [row for row in rows if document(row) not in chosen],
        [row for row in rows if document(row) in chosen],
    )


def fine_tuning_optimizer(model: Module, settings: Any, layer_decay: float = 1.0) -> AdamW:
    r"""Make AdamW over the parameters that are not frozen, with learning rates that fall with the depth.

    Parameters
    ----------
    model : Module
        A part of it may be frozen, as ``model.encoder.requires_grad_(False)`` does.
    settings : training.TrainingSettings
    layer_decay : float
        :math:`\xi` of `optim.layerwise_groups`; with 1 all layers learn alike.

    Raises
    ------
    ValueError
        If nothing is left to train, or the decay is out of range.

    Examples
    --------
    >>> from tinytransformer.models import BERTConfig, BERTForSequenceClassification
    >>> from tinytransformer.training import TrainingSettings
    >>> config = BERTConfig(vocab_size=11, d_model=12, num_layers=2, num_heads=3, d_ff=24)
    >>> model = BERTForSequenceClassification(config)
    >>> frozen = model.encoder.requires_grad_(False)
    >>> optimizer = fine_tuning_optimizer(model, TrainingSettings())
    >>> [p.shape for group in optimizer.groups for p in group["params"]]
    [(12, 2), (2,)]
    """
    rate = settings.weight_decay
    groups = decay_groups(model, rate) if layer_decay == 1 else layerwise_groups(model, layer_decay, rate)
    for group in groups:
        group["params"] = [p for p in group["params"] if p.requires_grad]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("fine_tuning_optimizer: all parameters are frozen: nothing is left to train")
    return AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2))
