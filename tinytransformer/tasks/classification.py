"""Text classification, such as telling to which family of modules a docstring belongs."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy

from ..formulas import softmax
from ..models import BERT, BERTForSequenceClassification
from ..text import pad, stdlib_modules
from ..training import evaluating
from .encoders import EncoderTask, encoder_of, small_encoder
from .finetuning import Batch, Row, TaskData, shorten

__all__ = ["Classification", "docstrings_by_family"]

LONGEST = 64  # tokens of a text; what comes later is cut off
FAMILIES = 8
LEAST_FILES, LEAST_DOCSTRINGS = 5, 50  # of a family: with fewer there is nothing to hold out
HIDDEN = 0.3  # of the tokens of a new model's text, at each step
LEAST_WORDS = 4  # of a docstring: shorter ones say nothing about their family


def docstrings_by_family(seed: int = 0, packages: tuple[str, ...] = ()) -> TaskData:
    """Docstrings of the standard library, each with the package that it comes from, such as ``asyncio``.

    The packages are the eight with the most docstrings. Whole source files are held out: about a fifth of
    the docstrings of each package, never from its largest file. A docstring that comes twice is kept once.
    The names of the packages are taken out of the texts: what is left has to tell.

    Parameters
    ----------
    seed : int
        Chooses the files.
    packages : tuple of str
        Only these; by default all of the standard library, whose sources take some seconds to read.

    Returns
    -------
    TaskData
        Rows (text, label). They change with the Python version.

    Raises
    ------
    TextError
        If this Python comes without the sources of its standard library.

    Examples
    --------
    >>> data = docstrings_by_family(packages=("asyncio", "email"))
    >>> sorted({label for text, label in data.train})
    ['asyncio', 'email']
    >>> any("asyncio" in text for text, label in data.train)
    False
    """
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    files: dict[str, dict[str, list[str]]] = {}  # family -> path -> docstrings
    seen: set[str] = set()
    for path, module in stdlib_modules(*packages):
        family, _, rest = path.partition("/")
        for node in ast.walk(module) if rest else ():
            text = ast.get_docstring(node) if isinstance(node, documented) else None
            words = " ".join((text or "").lower().split())
            if text and len(words.split()) >= LEAST_WORDS and words not in seen:
                seen.add(words)
                files.setdefault(family, {}).setdefault(path, []).append(text)
    numbers = {family: sum(map(len, of.values())) for family, of in files.items() if len(of) >= LEAST_FILES}
    families = [family for family, n in Counter(numbers).most_common(FAMILIES) if n >= LEAST_DOCSTRINGS]
    name = re.compile(rf"(?i)(?<![a-z])({'|'.join(map(re.escape, families))})(?![a-z])")
    rng = numpy.random.default_rng(seed)
    train: list[Row] = []
    validation: list[Row] = []
    for family in families:
        paths = sorted(files[family], key=lambda path: (len(files[family][path]), path))
        held_out = 0
        for path in [paths[i] for i in rng.permutation(len(paths) - 1)] + paths[-1:]:  # last the largest
            texts = files[family][path]
            held = held_out + len(texts) <= numbers[family] / 5
            held_out += len(texts) if held else 0
            (validation if held else train).extend((name.sub("…", text), family) for text in texts)
    return TaskData(train, validation, "docstrings of Python's standard library, by package")


class Classification(EncoderTask):
    """Choose a class for each text.

    The metric is accuracy, and beside it the mean over the classes of F1; the baseline always says the
    class that is most frequent in the data to train on.

    Attributes
    ----------
    labels : list of str
        The classes, sorted; the id of each is its place.

    Examples
    --------
    >>> rows = [("a stitch in time", "sewing"), ("time flies", "physics"), ("needle and thread", "sewing")]
    >>> data = TaskData(rows, rows[1:], "three lines")
    >>> model, tokenizer = Classification.new_model(data, numpy.random.default_rng(0))
    >>> task = Classification(data, model, tokenizer, batch_size=2, seed=0)
    >>> ids, mask, labels = task.batch(step=0)
    >>> ids.shape == mask.shape, labels.shape
    (True, (2,))
    >>> task.baseline()
    ("always 'sewing'", {'accuracy': 0.5, 'macro F1': 0.3333333333333333})
    """

    columns = ("text", "label")
    inputs = ("text",)
    settings: ClassVar[dict[str, Any]] = {"learning_rate": 1e-3, "batch_size": 32, "schedule": "linear"}
    hiding = HIDDEN

    @classmethod
    def default_data(cls, seed: int) -> TaskData:
        """Docstrings by family: see `docstrings_by_family`."""
        return docstrings_by_family(seed)

    @classmethod
    def new_model(cls, data: TaskData, rng: numpy.random.Generator) -> tuple[Any, Any]:
        """Make a small BERT, and a WordPiece tokenizer of the texts."""
        encoder, tokenizer = small_encoder([text for text, _ in data.train], LONGEST, True, rng)
        return cls._with_labels(encoder, data), tokenizer

    @classmethod
    def with_head(cls, model: Any, data: TaskData, rng: numpy.random.Generator) -> Any:
        """Put a new head on a trained BERT."""
        return cls._with_labels(encoder_of(model, pooler=True, rng=rng), data)

    @staticmethod
    def _with_labels(encoder: BERT, data: TaskData) -> BERTForSequenceClassification:
        labels = {label for _, label in data.train}
        config = dataclasses.replace(encoder.config, num_labels=len(labels))
        return BERTForSequenceClassification(config, encoder=encoder)

    def prepare(self, model: Any) -> None:
        """Make examples (ids, label) of the rows; a class that has no row to train on is left out."""
        self.labels = sorted({label for _, label in self.data.train})
        numbers = {label: i for i, label in enumerate(self.labels)}
        longest = min(LONGEST, model.config.max_positions)

        def examples(rows: Sequence[Row]) -> list[Any]:
            return [
                (self.tokenizer.encode_pair(text, max_length=longest)[0], numbers[label])
                for text, label in rows
                if label in numbers
            ]

        self.train, self.validation = examples(self.data.train), examples(self.data.validation)

    def length(self, example: Any) -> int:
        """Return the number of tokens."""
        return len(example[0])

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Return ids and attention mask, (batch, T), and labels, (batch,)."""
        ids, mask = pad([ids for ids, _ in examples], self.tokenizer.pad_id)
        return ids, mask, numpy.array([label for _, label in examples])

    def loss(self, model: Any, *batch: Any) -> Any:
        """Mean cross-entropy of the labels, in nats."""
        ids, mask, labels = batch
        return model.loss(ids, labels, mask)

    def count(self, *batch: Any) -> int:
        """Count the texts."""
        return len(batch[2])

    def facts(self) -> dict[str, Any]:
        """Return the labels, and where texts are cut."""
        return {"labels": self.labels, "longest": LONGEST}

    def score(self, model: Any, progress: bool = False) -> dict[str, float]:
        """Accuracy, and macro F1."""
        guesses = self.in_batches(
            model, self.validation, lambda examples: list(self._guess(model, examples)), progress
        )
        return classification_scores(guesses, [label for _, label in self.validation], len(self.labels))

    def _guess(self, model: Any, examples: Sequence[Any]) -> Any:
        ids, mask, _ = self.collate(examples)
        return model(ids, mask).numpy().argmax(axis=-1)

    def baseline(self) -> tuple[str, dict[str, float]]:
        """Say always the class that is most frequent in training."""
        counts = Counter(label for _, label in self.train)
        most = max(range(len(self.labels)), key=lambda label: counts[label])
        truth = [label for _, label in self.validation]
        scores = classification_scores([most] * len(truth), truth, len(self.labels))
        return f"always {self.labels[most]!r}", scores

    def samples(self, model: Any, number: int) -> list[str]:
        """Show texts with the guessed and the true class."""
        rng = numpy.random.default_rng(self.seed)
        texts = [(text, label) for text, label in self.data.validation if label in self.labels]
        chosen = rng.permutation(len(texts))[:number]
        guesses = self.in_batches(
            model, [self.validation[i] for i in chosen], lambda examples: list(self._guess(model, examples))
        )
        lines = []
        for i, guess in zip(chosen, guesses, strict=True):
            text, label = texts[i]
            lines += [
                f"{shorten(text, 90)!r}",
                f"  says {self.labels[guess]}, and it is {label}",
            ]
        return lines

    @classmethod
    def predict(cls, model: Any, tokenizer: Any, facts: dict[str, Any], *inputs: str) -> list[str]:
        """Return each class with its probability, the likeliest first."""
        longest = min(facts["longest"], model.config.max_positions)
        ids, _ = tokenizer.encode_pair(inputs[0], max_length=longest)
        with evaluating(model):
            probabilities = softmax(model(ids[None]), axis=-1).numpy()[0]
        order = numpy.argsort(-probabilities, kind="stable")
        return [f"{facts['labels'][i]}  {probabilities[i]:.3f}" for i in order]


def classification_scores(guesses: Sequence[int], truth: Sequence[int], classes: int) -> dict[str, float]:
    r"""Return accuracy and macro F1, the mean over the classes of their F1.

    .. math:: F_1 = \frac{2\,\mathrm{TP}}{2\,\mathrm{TP} + \mathrm{FP} + \mathrm{FN}}

    A class that is neither guessed nor true anywhere does not count.

    Examples
    --------
    >>> classification_scores([0, 0, 1, 0], [0, 0, 1, 1], classes=3)
    {'accuracy': 0.75, 'macro F1': 0.7333333333333334}
    """
    table = numpy.zeros((classes, classes), int)  # true class by guessed class
    numpy.add.at(table, (numpy.asarray(truth, int), numpy.asarray(guesses, int)), 1)
    right = table.diagonal()
    seen = table.sum(axis=0) + table.sum(axis=1)  # 2 TP + FP + FN
    F1 = 2 * right[seen > 0] / seen[seen > 0]
    return {"accuracy": float(right.sum() / table.sum()), "macro F1": float(F1.mean())}
