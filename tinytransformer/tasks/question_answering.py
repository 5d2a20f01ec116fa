"""Extractive question answering: finding the part of a text that answers a question about it."""

from __future__ import annotations

import ast
import json
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy

from ..models import BERTForQuestionAnswering
from ..text import pad, stdlib_modules
from ..training import evaluating
from .encoders import EncoderTask, encoder_of, small_encoder
from .finetuning import Batch, Row, TaskData, shorten, split_rows

__all__ = ["QuestionAnswering", "answer_scores", "questions_about_functions"]

LONGEST = 128  # tokens of question and text for a new model; a longer text is read in windows
LONGEST_PRETRAINED = 384  # the same for a trained one, if it has as many positions
MARKED = 3  # segments of a new model: the third is the text's tokens that occur in the question
COMMON = 0.25  # of the questions: a token that occurs in more tells nothing, and is not marked
HIDDEN = 0.1  # of the tokens that a new model reads, at each step
LONGEST_ANSWER = 40  # tokens
ENTRY = "{}()\n    {}\n"  # of such a list: a function, and what it does
LONGEST_LIST = 260  # characters of the texts that are made of the standard library
LONGEST_SUMMARY = 110  # characters of what a function is said to do
HELD_OUT = 0.1  # of the questions


class Window(NamedTuple):
    """A question with a part of its text, as the model reads them.

    Attributes
    ----------
    ids, segments : arrays of int, (T,)
    spans : array of int, (T, 2)
        Token t stands for ``context[spans[t, 0] : spans[t, 1]]``; -1 outside of the context.
    first, last : int
        Tokens at which the answer starts and ends.
    row : int
        The place of the row that it belongs to.
    """

    ids: Any
    segments: Any
    spans: Any
    first: int
    last: int
    row: int


def questions_about_functions(seed: int = 0, packages: tuple[str, ...] = ()) -> TaskData:
    """Questions about lists of functions of the standard library: "What does NAME do?".

    A list has some functions of a class or module that stand one after the other in the source, as
    ``help()`` lists them: a line with the name, and on the next the first paragraph of the docstring. The
    answer is that paragraph. One who knows how such a list is laid out needs no model; the model has only
    examples.

    The questions of a tenth of the source files are held out. A question with the same answer comes once.

    Parameters
    ----------
    seed : int
        Chooses the files.
    packages : tuple of str
        Only these; by default all of the standard library, whose sources take some seconds to read.

    Returns
    -------
    TaskData
        Rows (question, context, answer, start): the answer is ``context[start : start + len(answer)]``.
        They change with the Python version.

    Raises
    ------
    TextError
        If this Python comes without the sources of its standard library.

    Examples
    --------
    >>> question, context, answer, start = questions_about_functions(packages=("email",)).train[0]
    >>> question.endswith(" do?"), context[start : start + len(answer)] == answer
    (True, True)
    """
    seen: set[tuple[str, str]] = set()
    rows: list[tuple[str, Row]] = []  # each with the path of its source file
    for path, module in stdlib_modules(*packages):
        for scope in ast.walk(module):
            if isinstance(scope, (ast.Module, ast.ClassDef)):
                for row in _questions(_functions(scope)):
                    if (row[0], row[2]) not in seen:
                        seen.add((row[0], row[2]))
                        rows.append((path, row))
    train, validation = split_rows(rows, lambda pair: pair[0], seed, HELD_OUT)
    source = "questions about functions of Python's standard library"
    return TaskData([row for _, row in train], [row for _, row in validation], source)


def _functions(scope: ast.Module | ast.ClassDef) -> dict[str, str]:
    """Return what the functions of a module or class do, by their names."""
    found: dict[str, str] = {}
    for node in scope.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            paragraph = (ast.get_docstring(node) or "").split("\n\n")[0]
            summary = " ".join(paragraph.split())
            if len(summary.split()) >= 3 and len(summary) <= LONGEST_SUMMARY:
                found.setdefault(node.name, summary)
    return found


def _questions(functions: dict[str, str]) -> Iterator[Row]:
    """Lay functions out in lists of two and more that are not too long, and ask about each."""
    lists: list[list[tuple[str, str]]] = [[]]
    size = 0
    for name, summary in functions.items():
        added = len(ENTRY.format(name, summary))
        if size + added > LONGEST_LIST:
            lists.append([])
            size = 0
        lists[-1].append((name, summary))
        size += added
    for members in lists:
        context = ""
        starts = []
        for name, summary in members:
            starts.append(len(context) + len(ENTRY.format(name, "")) - 1)
            context += ENTRY.format(name, summary)
        if len(members) > 1:
            for (name, summary), start in zip(members, starts, strict=True):
                yield f"What does {name} do?", context, summary, start


class QuestionAnswering(EncoderTask):
    """Find the answer to a question in a text.

    A new model is told which tokens of the text occur in the question too, by a segment of their own: a
    trained encoder sees by itself what is alike, and a small one would need hours to learn it (Chen et al.,
    Reading Wikipedia to Answer Open-Domain Questions, 2017, section 3.2, "exact match").

    The metrics are those of SQuAD: exact match, and F1 of the words that answer and truth have in common.
    The baseline is the best of: the sentence at the place where answers most often are, such as the second;
    the sentence that has the most words in common with the question; the most frequent answer in training
    that occurs in the text. A sentence ends at ``.``, ``!`` or ``?``, or with its line.

    Examples
    --------
    >>> rows = [("Who sat?", "The cat sat. It rained.", "The cat", None)] * 2
    >>> data = TaskData(rows, rows, "a line")
    >>> model, tokenizer = QuestionAnswering.new_model(data, numpy.random.default_rng(0))
    >>> task = QuestionAnswering(data, model, tokenizer, batch_size=2, seed=0)
    >>> ids, mask, segments, labels = task.batch(step=0)
    >>> tokenizer.decode(ids[0, labels[0, 0] : labels[0, 1] + 1])
    'the cat'
    """

    columns = ("question", "context", "answer")
    optional_columns = ("start",)
    inputs = ("question", "context")
    settings: ClassVar[dict[str, Any]] = {"learning_rate": 1e-3, "batch_size": 16, "schedule": "linear"}
    hiding = HIDDEN

    @classmethod
    def default_data(cls, seed: int) -> TaskData:
        """Questions about functions: see `questions_about_functions`."""
        return questions_about_functions(seed)

    @classmethod
    def checked(cls, row: Row) -> Row:
        """Make the start an int, if there is one, and see that the answer stands there."""
        question, context, answer, start = row
        if start is None or start == "":
            if answer not in context:
                raise ValueError(f"the answer {shorten(answer, 40)!r} does not occur in the context")
            return question, context, answer, None
        if not re.fullmatch(r"-?\d+", start if isinstance(start, str) else json.dumps(start)):
            raise ValueError(f"start must be an integer, not {start!r}")
        place = int(start)
        if place < 0 or context[place : place + len(answer)] != answer:
            raise ValueError(f"the answer {shorten(answer, 40)!r} does not stand at character {place}")
        return question, context, answer, place

    @classmethod
    def document(cls, row: Row) -> Any:
        """Questions about one text stay together."""
        return row[1]

    @classmethod
    def new_model(cls, data: TaskData, rng: numpy.random.Generator) -> tuple[Any, Any]:
        """Make a small BERT, and a WordPiece tokenizer of the questions and texts."""
        texts = dict.fromkeys(text for row in data.train for text in row[:2])
        encoder, tokenizer = small_encoder(list(texts), LONGEST, False, rng, type_vocab_size=MARKED)
        return BERTForQuestionAnswering(encoder.config, encoder=encoder), tokenizer

    @classmethod
    def with_head(cls, model: Any, data: TaskData, rng: numpy.random.Generator) -> Any:
        """Put a head on a trained BERT; one that finds answers already goes on as it is."""
        if isinstance(model, BERTForQuestionAnswering):
            return model
        encoder = encoder_of(model, pooler=False, rng=rng)
        return BERTForQuestionAnswering(encoder.config, encoder=encoder)

    def prepare(self, model: Any) -> None:
        """Make windows of the rows; to train on, those that hold an answer."""
        self.longest = min(LONGEST_PRETRAINED, model.config.max_positions)
        self.unmarked: list[int] | None = None
        if model.config.type_vocab_size == MARKED:
            asked = Counter(i for row in self.data.train for i in set(self.tokenizer.encode(row[0]).tolist()))
            self.unmarked = sorted(i for i, n in asked.items() if n > COMMON * len(self.data.train))

        def windows(rows: Sequence[Row]) -> list[Window]:
            made = []
            for i, (question, context, answer, start) in enumerate(rows):
                place = context.index(answer) if start is None else start
                span = (place, place + len(answer))
                made += read(self.tokenizer, question, context, self.longest, span, i, self.unmarked)
            return made

        self.train = [window for window in windows(self.data.train) if window.first >= 0]
        self.validation = windows(self.data.validation)

    def length(self, example: Any) -> int:
        """Return the number of tokens."""
        return len(example.ids)

    def collate(self, examples: Sequence[Any]) -> Batch:
        """Return ids, attention mask and segments, (batch, T), and first and last token, (batch, 2)."""
        ids, mask = pad([window.ids for window in examples], self.tokenizer.pad_id)
        segments, _ = pad([window.segments for window in examples], 0)
        return ids, mask, segments, numpy.array([(window.first, window.last) for window in examples])

    def loss(self, model: Any, *batch: Any) -> Any:
        """Mean cross-entropy of first and last token, in nats."""
        ids, mask, segments, places = batch
        return model.loss(ids, places, mask, segments)

    def count(self, *batch: Any) -> int:
        """Count the answers: a window may hold none."""
        return int((batch[3][:, 0] >= 0).sum())

    def facts(self) -> dict[str, Any]:
        """Return how many tokens are read at once, and which of the question's are not marked."""
        return {"longest": self.longest, "unmarked": self.unmarked}

    def score(self, model: Any, progress: bool = False) -> dict[str, float]:
        """Exact match and F1."""
        return self._scores(self._answers(model, self.validation, progress))

    def _scores(self, answers: dict[int, str]) -> dict[str, float]:
        truth = {row: self.data.validation[row][2] for row in answers}
        scores = [answer_scores(answer, truth[row]) for row, answer in answers.items()]
        exact, F1 = (float(numpy.mean(values)) for values in zip(*scores, strict=True))
        return {"exact match": exact, "F1": F1}

    def _answers(self, model: Any, windows: Sequence[Window], progress: bool = False) -> dict[int, str]:
        """Answer the rows that windows belong to."""
        found = self.in_batches(
            model,
            windows,
            lambda examples: best_spans(model, examples, *self.collate(examples)[:3]),
            progress,
        )
        best: dict[int, tuple[float, int, int]] = {}
        for window, span in zip(windows, found, strict=True):
            best[window.row] = max(best.get(window.row, (-numpy.inf, 0, 0)), span)
        return {row: self.data.validation[row][1][start:end] for row, (_, start, end) in best.items()}

    def baseline(self) -> tuple[str, dict[str, float]]:
        """Score the best of the three trivial methods that the class describes."""
        common = [answer for answer, _ in Counter(row[2] for row in self.data.train).most_common()]

        places: Counter[int] = Counter()
        for _, context, answer, _ in self.data.train:
            places.update(i for i, sentence in enumerate(_sentences(context)) if answer in sentence)
        place = places.most_common(1)[0][0] if places else 0

        def in_common(question: str, context: str) -> str:
            asked = set(normalized(question))
            return max(_sentences(context), key=lambda sentence: len(asked & set(normalized(sentence))))

        def frequent(question: str, context: str) -> str:
            return next((answer for answer in common if answer in context), "")

        methods: dict[str, Callable[[str, str], str]] = {
            f"always sentence {place + 1}": lambda question, context: _sentences(context)[: place + 1][-1],
            "the sentence with most words of the question": in_common,
            "the most frequent answer that occurs in the text": frequent,
        }
        scores = {
            name: self._scores({i: method(*row[:2]) for i, row in enumerate(self.data.validation)})
            for name, method in methods.items()
        }
        best = max(scores, key=lambda name: scores[name]["F1"])
        return best, scores[best]

    def samples(self, model: Any, number: int) -> list[str]:
        """Show questions with the answer found and the true one."""
        rows = numpy.random.default_rng(self.seed).permutation(len(self.data.validation))[:number].tolist()
        answers = self._answers(model, [window for window in self.validation if window.row in rows])
        lines = []
        for row in rows:
            question, _, truth, _ = self.data.validation[row]
            lines += [
                shorten(question, 90),
                f"  says {shorten(answers[row], 90)!r}, and it is {shorten(truth, 90)!r}",
            ]
        return lines

    @classmethod
    def predict(cls, model: Any, tokenizer: Any, facts: dict[str, Any], *inputs: str) -> list[str]:
        """Return the answer, and where in the text it stands."""
        question, context = inputs
        longest = min(facts["longest"], model.config.max_positions)
        windows = read(tokenizer, question, context, longest, unmarked=facts["unmarked"])
        with evaluating(model):
            spans = [best_spans(model, [w], w.ids[None], None, w.segments[None])[0] for w in windows]
        _, start, end = max(spans)
        return [f"{context[start:end]}  (characters {start} to {end})"]


def read(
    tokenizer: Any,
    question: str,
    context: str,
    longest: int,
    answer: tuple[int, int] | None = None,
    row: int = 0,
    unmarked: Any = None,
) -> list[Window]:
    """Make windows of ``[CLS] question [SEP] part of the context [SEP]``; each overlaps the next by half.

    Parameters
    ----------
    tokenizer : WordPieceTokenizer
    question, context : str
    longest : int
        Most tokens of a window; at most half of it is the question.
    answer : (int, int), optional
        Characters of the context at which the answer starts and ends. In windows that do not hold it whole,
        ``first`` and ``last`` are -100, which no loss counts.
    row : int
        Kept in each window.
    unmarked : sequence of int, optional
        Tokens of the context that occur in the question too are of segment 2 and not 1, but for these. By
        default all are of segment 1.

    Raises
    ------
    ValueError
        If no token is left of the context.

    Examples
    --------
    >>> from tinytransformer.text import WordPieceTokenizer
    >>> tokenizer = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "who", "cats", "dogs"])
    >>> [window.ids.tolist() for window in read(tokenizer, "Who", "cats dogs dogs", 6)]
    [[2, 5, 3, 6, 7, 3], [2, 5, 3, 7, 7, 3]]
    """
    asked = tokenizer.encode(question)[: longest // 2 - 2]
    ids, spans = tokenizer.encode_with_spans(context)
    if not len(ids):
        raise ValueError("the context holds nothing that the tokenizer knows")
    first = last = -100
    if answer is not None:
        first = int(numpy.searchsorted(spans[:, 1], answer[0], side="right"))  # the first that ends after it
        last = int(numpy.searchsorted(spans[:, 0], answer[1], side="left")) - 1
    room = longest - len(asked) - 3
    telling = asked[:0] if unmarked is None else numpy.setdiff1d(asked, numpy.asarray(unmarked, int))
    windows = []
    step = max(room // 2, 1)
    for start in range(0, max(len(ids) - room + step, 1), step):  # until one reaches the end
        part = slice(start, start + room)
        marked = 1 + numpy.isin(ids[part], telling)
        offset = len(asked) + 2 - start  # from a token's place in the context to that in the window
        inside = start <= first <= last < start + room
        outside = numpy.full((offset + start, 2), -1)
        windows.append(
            Window(
                numpy.array([tokenizer.cls_id, *asked, tokenizer.sep_id, *ids[part], tokenizer.sep_id]),
                numpy.concatenate([numpy.zeros(len(asked) + 2, int), marked, [1]]),
                numpy.concatenate([outside, spans[part], outside[:1]]),
                first + offset if inside else -100,
                last + offset if inside else -100,
                row,
            )
        )
    return windows


def best_spans(
    model: Any, windows: Sequence[Window], ids: Any, mask: Any, segments: Any
) -> list[tuple[float, int, int]]:
    """Find in each window the likeliest span of the context that is no longer than an answer may be.

    Returns
    -------
    list of (float, int, int)
        The sum of the logits of the first and the last token, and the characters of the context at which
        the span starts and ends.
    """
    start_logits, end_logits = (logits.numpy() for logits in model(ids, mask, segments))  # (batch, T)
    T = start_logits.shape[1]
    within = numpy.tri(T, dtype=bool).T & numpy.tri(T, k=LONGEST_ANSWER - 1, dtype=bool)  # (first, last)
    found = []
    for window, start, end in zip(windows, start_logits, end_logits, strict=True):
        context = numpy.zeros(T, bool)
        context[: len(window.spans)] = window.spans[:, 0] >= 0
        allowed = within & context[:, None] & context
        scores = numpy.where(allowed, start[:, None] + end, -numpy.inf)
        first, last = divmod(int(scores.argmax()), T)
        found.append((float(scores[first, last]), int(window.spans[first, 0]), int(window.spans[last, 1])))
    return found


def normalized(text: str) -> list[str]:
    """Return the words of an answer as SQuAD compares them: lower-case, no punctuation, no articles.

    Examples
    --------
    >>> normalized("The cat's  hat!")
    ['cats', 'hat']
    """
    without = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", without).split()


def answer_scores(answer: str, truth: str) -> tuple[float, float]:
    r"""Return exact match, and F1 of the words: with n words in common it is twice PR over P + R.

    .. math:: F_1 = \frac{2PR}{P + R}, \qquad P = n / |\mathrm{answer}|, \quad R = n / |\mathrm{truth}|

    Notes
    -----
    Source: Rajpurkar et al., SQuAD, 2016, section 6.1, and the script published with it.

    Examples
    --------
    >>> answer_scores("the black cat", "A cat.")
    (0.0, 0.6666666666666666)
    """
    given, true = normalized(answer), normalized(truth)
    common = sum((Counter(given) & Counter(true)).values())
    if not given or not true:
        return float(given == true), float(given == true)
    return float(given == true), 2 * common / (len(given) + len(true))


def _sentences(context: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n|(?<=[.!?])\s", context) if part.strip()] or [context]
