"""Summarization: what a docstring says, in its first line."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

import numpy

from ..text import BPETokenizer, Tokenizer, stdlib_modules
from .finetuning import Row, TaskData, split_rows
from .sequence_to_sequence import SequenceToSequence

__all__ = ["Summarization", "docstring_summaries", "lead_sentence", "rouge_1", "rouge_l"]

CJK = "\u3400-\u9fff"  # written without spaces: each character counts as a word
_WORD = re.compile(rf"[{CJK}]|[^\W_{CJK}]+")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s|(?<=[。！？])|\n\s*\n")
KEPT_WORDS = 0.6  # of a sentence that is to be restored
SENTENCE_WORDS = range(4, 21)
_IDENTIFIER_BORDER = re.compile(r"_+|(?<=[a-z0-9])(?=[A-Z])")


def rouge_1(written: str, target: str) -> float:
    """F1 of the words of a summary and those of its target: a word counts as often as it is in both.

    Words are runs of letters and digits, in lower case, without stemming; a Chinese character is one.

    Returns
    -------
    float
        From 0 to 1; 0 where a text has no word.

    Notes
    -----
    Source: Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004.

    Examples
    --------
    >>> rouge_1("the cat the cat", "the cat sat")  # 2 words of 4 and of 3
    0.5714285714285714
    """
    a, b = _words(written), _words(target)
    return _f1((Counter(a) & Counter(b)).total(), a, b)


def rouge_l(written: str, target: str) -> float:
    """F1 of the longest common subsequence of words: as `rouge_1`, and their order counts.

    Notes
    -----
    Source: Lin 2004, section 3, with both parts weighing alike.

    Examples
    --------
    >>> rouge_l("sat the cat", "the cat sat")  # "the cat"
    0.6666666666666666
    """
    a, b = _words(written), _words(target)
    longest = [0] * (len(b) + 1)  # of the words of a so far, and the first j of b
    for word in a:
        before = longest
        longest = [0]
        for j, other in enumerate(b):
            longest.append(before[j] + 1 if word == other else max(before[j + 1], longest[j]))
    return _f1(longest[-1], a, b)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _f1(common: int, a: list[str], b: list[str]) -> float:
    return 2 * common / (len(a) + len(b)) if common else 0.0


def lead_sentence(text: str) -> str:
    """Return the first sentence of a text, or its first paragraph where that ends earlier.

    Examples
    --------
    >>> lead_sentence("It moves. Galileo was told not to say so.")
    'It moves.'
    """
    return _SENTENCE_END.split(text.strip(), maxsplit=1)[0]


def in_words(text: str) -> str:
    """Write names as words, and all in lower case: then a model can take them over from source to target.

    Examples
    --------
    >>> in_words("is_alive of SyncManager")
    'is alive of sync manager'
    """
    return _IDENTIFIER_BORDER.sub(" ", text).lower()


def docstring_summaries(seed: int = 0) -> TaskData:
    """Docstrings of the standard library's functions and classes: what follows the first line, and that line.

    The first line must be a paragraph of its own. Beside the text there is what it is about, the name and
    the arguments of the function or class. Whole source files are held out, about a tenth; what is held out
    repeats no first line and no text of the rest. In the rest are also docstrings of a single line: there the
    name has to do.

    Parameters
    ----------
    seed : int
        Chooses the files.

    Returns
    -------
    TaskData
        Rows (source, target, title). They change with the Python version.

    Raises
    ------
    TextError
        If this Python comes without the sources of its standard library.

    Examples
    --------
    >>> data = docstring_summaries()
    >>> targets = {row[1] for row in data.train}
    >>> any(row[1] in targets for row in data.validation)
    False
    """
    rows = [(path, *row) for path, module in stdlib_modules() for row in _documented(module, "")]
    train, validation = split_rows(rows, lambda row: row[0], seed)
    seen = [{row[column] for row in train} for column in (1, 2)]
    held_out = dict.fromkeys(
        row[1:] for row in validation if row[1] and row[1] not in seen[0] and row[2] not in seen[1]
    )
    return TaskData(
        [row[1:] for row in train],
        list(held_out),
        "docstrings of Python's standard library, each with its first line",
    )


def _documented(node: ast.AST, owner: str) -> Iterator[Row]:
    """Yield (source, target, title) of what is defined below a node, which is in a class or in none."""
    for child in ast.iter_child_nodes(node):
        within = owner
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first, newline, rest = (ast.get_docstring(child) or "").partition("\n")
            arguments = "" if isinstance(child, ast.ClassDef) else f"({ast.unparse(child.args)})"
            title = f"{child.name}{arguments}" + (f" of {owner}" if owner else "")
            if first.strip() and (not newline or rest.startswith("\n")):
                yield rest.strip(), first.strip(), title
            within = child.name if isinstance(child, ast.ClassDef) else owner
        yield from _documented(child, within)


def noisy_sentences(texts: Iterable[str], rng: numpy.random.Generator) -> list[Row]:
    """Make rows of the sentences of texts: some of the words of each, shuffled, and the sentence.

    Parameters
    ----------
    texts : iterable of str
        A sentence is taken once, if it has 4 to 20 words.
    rng : numpy.random.Generator
        Drops and shuffles words.

    Examples
    --------
    >>> noisy_sentences(["To be or not to be. Why?"], numpy.random.default_rng(1))
    [('to To be be. not', 'To be or not to be.')]
    """
    sentences = dict.fromkeys(
        " ".join(sentence.split()) for text in texts for sentence in _SENTENCE_END.split(text)
    )
    rows = []
    for sentence in sentences:
        words = sentence.split()
        if len(words) in SENTENCE_WORDS:
            order = rng.permutation(len(words))
            kept = order[rng.random(len(words)) < KEPT_WORDS]
            rows.append((" ".join(words[i] for i in kept), sentence))
    return rows


class Summarization(SequenceToSequence):
    """Write a line that says what a text says.

    The metrics are `rouge_1` and `rouge_l`, means over the rows. The baseline is the better one of two: the
    first sentence of the source, and the name in the title, where rows have one.

    A few thousand rows teach a new model to write what sounds like a summary, but not to take over words from
    the source. So half of what it learns from is to restore sentences of the same texts from some of their
    words, in any order (denoising).

    Notes
    -----
    Source of the denoising: Lewis et al., BART, 2020.

    Examples
    --------
    >>> Summarization.metrics(["the cat sat", ""], ["the cat sat", "a dog"])
    {'ROUGE-1': 0.5, 'ROUGE-L': 0.5}
    """

    optional_columns = ("title",)
    settings: ClassVar[dict[str, Any]] = {"learning_rate": 3e-3, "batch_size": 32}
    sizes: ClassVar[dict[str, Any]] = {
        "d_model": 128,
        "num_heads": 4,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "d_ff": 512,
        "dropout": 0.0,
        "norm_first": True,
        "max_length": 256,
    }
    longest_source, longest_target = 48, 32

    @classmethod
    def default_data(cls, seed: int) -> TaskData:
        """Docstrings and their first lines: see `docstring_summaries`."""
        return docstring_summaries(seed)

    @classmethod
    def new_tokenizer(cls, texts: list[str]) -> Tokenizer:
        """Learn pieces of words, few enough that each is met often."""
        return BPETokenizer.train((f"{text}\n" for text in texts), 1500)

    def prepare(self, model: Any) -> None:
        """Tokenize the rows, and as many sentences to restore, or as there are."""
        super().prepare(model)
        rng = numpy.random.default_rng(self.seed)
        rows = noisy_sentences((text for row in self.data.train for text in (row[1], row[0])), rng)
        chosen = rng.permutation(len(rows))[: len(self.train)]
        self.train += [self._example(rows[i]) for i in chosen]

    @classmethod
    def source_of(cls, row: Row) -> str:
        """Return title and source, names in words."""
        title = row[2] if row[2:] else None
        return " " + in_words(f"{title}\n{row[0]}" if title else row[0])  # the first word as any other

    @classmethod
    def target_of(cls, row: Row) -> str:
        """Return the target in lower case."""
        return f" {row[1].lower()}"

    @classmethod
    def text_of(cls, tokenizer: Tokenizer, target: Any) -> str:
        """Return what was written, with a capital at its start."""
        text = super().text_of(tokenizer, target)
        return text[:1].upper() + text[1:]

    @classmethod
    def metrics(cls, written: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
        """ROUGE-1 and ROUGE-L."""
        return {
            name: float(numpy.mean([rouge(a, b) for a, b in zip(written, targets, strict=True)]))
            for name, rouge in (("ROUGE-1", rouge_1), ("ROUGE-L", rouge_l))
        }

    @classmethod
    def trivial(cls, data: TaskData) -> dict[str, list[str]]:
        """Take the first sentence, or the title."""
        rows = data.validation
        found = {"the first sentence": [lead_sentence(row[0]) for row in rows]}
        if all(row[2:] and row[2] for row in rows):
            found["the name in words"] = [in_words(re.split(r"\(| of ", row[2])[0]) for row in rows]
        return found
