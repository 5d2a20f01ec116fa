"""Translation: dates, spans of time and names, English and Chinese."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import numpy

from ..text import CharacterTokenizer, TextError, Tokenizer
from .finetuning import Row, TaskData
from .sequence_to_sequence import END, START, SequenceToSequence

__all__ = ["Translation", "chrf", "dates_and_names"]

FIRST_DAY, DAYS = datetime.date(1900, 1, 1), 73049  # to the end of 2099
TRAINING_DATES, VALIDATION_DATES = 12_000, 600
# forms of CLDR that say the same in both languages: in each, the one text tells all that is in the other
FORMS = ("full", "long", "yMMMEd", "yMEd", "yMd", "GyMMMd")
SECONDS = {
    "second": 1,
    "minute": 60,
    "hour": 3600,
    "day": 86400,
    "week": 604800,
    "month": 2592000,
    "year": 31536000,
}
# of each unit; a few more would be written in the next one
MOST = {"second": 50, "minute": 50, "hour": 20, "day": 5, "week": 3, "month": 10, "year": 100}
NAMES = ("territories", "languages", "currencies")
CHRF_ORDER, CHRF_BETA = 6, 2


def chrf(written: Sequence[str], targets: Sequence[str]) -> float:
    r"""Character n-gram F-score of texts, chrF2: recall weighs twice as much as precision.

    .. math:: \mathrm{chrF}_\beta = (1 + \beta^2) \frac{P R}{\beta^2 P + R}

    P is the part of the written n-grams of characters that the target has too, R the part of the target's
    that were written, each counted over all texts and averaged over n = 1, …, 6. Whitespace does not count.

    Parameters
    ----------
    written, targets : sequence of str
        As many of the one as of the other.

    Returns
    -------
    float
        From 0 to 1.

    Notes
    -----
    Source: Popović, chrF: character n-gram F-score for automatic MT evaluation, 2015.

    Examples
    --------
    >>> chrf(["2026年11月"], ["2026年11月"]), chrf(["May"], ["五月"])
    (1.0, 0.0)
    """
    pairs = [("".join(a.split()), "".join(b.split())) for a, b in zip(written, targets, strict=True)]
    precisions, recalls = [], []
    for n in range(1, CHRF_ORDER + 1):
        matches = ours = theirs = 0
        for text, target in pairs:
            a, b = (Counter(s[i : i + n] for i in range(len(s) - n + 1)) for s in (text, target))
            matches += (a & b).total()
            ours += a.total() if b else 0  # a target too short for n-grams has none to miss
            theirs += b.total()
        if ours and theirs:
            precisions.append(matches / ours)
            recalls.append(matches / theirs)
    if not any(precisions):
        return 0.0
    P, R = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return (1 + CHRF_BETA**2) * P * R / (CHRF_BETA**2 * P + R)


def dates_and_names(seed: int = 0, direction: str = "en-zh") -> TaskData:
    """English and Chinese texts of the Unicode CLDR, by ``babel``: dates, spans of time and names.

    Dates of 1900 to 2099 in six forms, such as ``Monday, November 23, 2026`` and ``2026年11月23日星期一``;
    spans such as ``in 3 days`` and ``3天后``; names of territories, languages and currencies. No date is on
    both sides of the split, in whatever form; of spans and names a tenth is held out. No source comes twice.

    Parameters
    ----------
    seed : int
        Chooses the dates, and what is held out.
    direction : {"en-zh", "zh-en"}

    Returns
    -------
    TaskData
        Rows (source, target, kind), the kind being ``dates``, ``spans`` or ``names``.

    Raises
    ------
    TextError
        If babel is missing.
    ValueError
        If the direction is unknown.

    Examples
    --------
    >>> data = dates_and_names()
    >>> len([row for row in data.validation if row[2] == "dates"])
    600
    """
    try:
        from babel import Locale, dates
    except ImportError:
        raise TextError("dates and names need babel: pip install 'tinytransformer[data]'") from None
    if direction not in ("en-zh", "zh-en"):
        raise ValueError(f"direction must be en-zh or zh-en, not {direction!r}")
    languages = direction.split("-")
    rng = numpy.random.default_rng(seed)

    def date(day: int, form: str) -> Row:
        when = FIRST_DAY + datetime.timedelta(days=day)
        if form in ("full", "long"):
            return (*(dates.format_date(when, form, locale=language) for language in languages), "dates")
        return (*(dates.format_skeleton(form, when, locale=language) for language in languages), "dates")

    def span(seconds: int) -> Row:
        written = partial(dates.format_timedelta, datetime.timedelta(seconds=seconds), add_direction=True)
        return (*(written(locale=language) for language in languages), "spans")

    days = rng.choice(DAYS, TRAINING_DATES + VALIDATION_DATES, replace=False).tolist()
    forms = rng.integers(len(FORMS), size=len(days))
    dated = [date(day, FORMS[form]) for day, form in zip(days, forms, strict=True)]
    spans = [
        span(sign * n * SECONDS[unit])
        for unit, most in MOST.items()
        for n in range(1, most + 1)
        for sign in (1, -1)
    ]
    locales = [Locale(language) for language in languages]
    names: dict[str, Row] = {}  # by source: a language may be called as a territory is
    for kind in NAMES:
        ours, theirs = (getattr(locale, kind) for locale in locales)
        for key in sorted(ours.keys() & theirs.keys()):
            names.setdefault(ours[key], (ours[key], theirs[key], "names"))
    train, validation = dated[VALIDATION_DATES:], dated[:VALIDATION_DATES]
    for rows in (spans, list(names.values())):
        held_out = set(rng.choice(len(rows), len(rows) // 10, replace=False).tolist())
        train += [row for i, row in enumerate(rows) if i not in held_out]
        validation += [row for i, row in enumerate(rows) if i in held_out]
    return TaskData(train, validation, f"dates, spans of time and names of the Unicode CLDR, {direction}")


class Translation(SequenceToSequence):
    """Translate character by character.

    The metrics are exact match, the part of the rows that come out letter for letter, and `chrf`; with the
    default data exact match is told for dates, spans and names too. The baseline copies the source, or always
    writes the most frequent target.

    Examples
    --------
    >>> Translation.metrics(["3天后", "法国"], ["3天后", "德国"])["exact match"]
    0.5
    """

    optional_columns = ("kind",)
    options = ("direction", "beams")
    settings: ClassVar[dict[str, Any]] = {"learning_rate": 3e-3, "batch_size": 64}
    sizes: ClassVar[dict[str, Any]] = {
        "d_model": 96,
        "num_heads": 3,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "d_ff": 256,
        "dropout": 0.0,
        "norm_first": True,
        "max_length": 256,
    }
    longest_source = longest_target = 256

    @classmethod
    def default_data(cls, seed: int, direction: str = "en-zh") -> TaskData:
        """Dates and names: see `dates_and_names`."""
        return dates_and_names(seed, direction)

    @classmethod
    def new_tokenizer(cls, texts: list[str]) -> Tokenizer:
        """Take all characters."""
        return CharacterTokenizer.train([START, END, *texts])

    @classmethod
    def metrics(cls, written: Sequence[str], targets: Sequence[str]) -> dict[str, float]:
        """Exact match and chrF."""
        return {"exact match": exact_match(written, targets), "chrF": chrf(written, targets)}

    @classmethod
    def trivial(cls, data: TaskData) -> dict[str, list[str]]:
        """Copy the source, or always write the most frequent target."""
        frequent = Counter(row[1] for row in data.train).most_common(1)[0][0]
        sources = [row[0] for row in data.validation]
        return {"copy of the source": sources, f"always {frequent!r}": [frequent] * len(sources)}

    def scores_of(self, written: Sequence[str]) -> dict[str, float]:
        """Add the exact match of each kind of rows, where they have one, under its name."""
        scores = super().scores_of(written)
        rows = self.data.validation
        kinds = dict.fromkeys(row[2] for row in rows if row[2:] and row[2])
        for kind in kinds:
            of_kind = [(text, row[1]) for text, row in zip(written, rows, strict=True) if row[2] == kind]
            scores[kind] = exact_match(*zip(*of_kind, strict=True))
        return scores


def exact_match(written: Sequence[str], targets: Sequence[str]) -> float:
    """Return the part of the texts that are the target, letter for letter."""
    return sum(map(str.__eq__, written, targets)) / len(targets)
