"""A conversation with a language model: what was said stays in the cache, and only what is new is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy
from numpy.typing import NDArray

from .decoding import DecodingState, LanguageModel
from .sampling import check_count, check_sampling, next_tokens

__all__ = ["ChatML", "Conversation", "PlainText", "decoded"]

Ids = NDArray[numpy.int64]


class Template(Protocol):
    """How a conversation is written down as tokens."""

    opening: Ids  # what comes before the first message
    stops: tuple[int, ...]  # tokens that end an answer

    def message(self, text: str) -> Ids:
        """Return the tokens of what the user says, up to where the answer begins."""

    def closing(self, ended: bool) -> Ids:
        """Return what follows an answer, be it one that ended by itself or one that was cut short."""


class ChatML:
    r"""Messages between markers: ``<|im_start|>role\ntext<|im_end|>\n``.

    What the user says cannot contain a marker: it is text like any other.

    Parameters
    ----------
    tokenizer : GPT2Tokenizer
        Has the two markers among its special tokens.
    system : str
        What the model is told before the conversation; nothing if empty.

    Raises
    ------
    ValueError
        If the tokenizer lacks a marker.

    Examples
    --------
    >>> from tinytransformer.text import GPT2Tokenizer
    >>> letters = [*"aehinrstu", "Ċ"]
    >>> tokenizer = GPT2Tokenizer([*letters, *ChatML.markers], [], ChatML.markers)
    >>> tokenizer.decode(ChatML(tokenizer).message("hi"))
    '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n'
    """

    markers = ("<|im_start|>", "<|im_end|>")

    def __init__(self, tokenizer: Any, system: str = ""):
        known = getattr(tokenizer, "special_ids", {})
        if missing := [marker for marker in self.markers if marker not in known]:
            raise ValueError(f"ChatML: the tokenizer has no {' and no '.join(missing)}")
        self.tokenizer = tokenizer
        self.start, self.end = (known[marker] for marker in self.markers)
        self.stops = (self.end,)
        self.opening = self._said("system", system) if system else numpy.zeros(0, dtype=numpy.int64)

    def _ids(self, *parts: str | int) -> Ids:
        ids: list[int] = []
        for part in parts:
            ids += [part] if isinstance(part, int) else self.tokenizer.encode(part).tolist()
        return numpy.array(ids, dtype=numpy.int64)

    def _said(self, role: str, text: str) -> Ids:
        return self._ids(self.start, f"{role}\n{text}", self.end, "\n")

    def message(self, text: str) -> Ids:
        """Return the message of the user and the head of the answer."""
        return numpy.concatenate([self._said("user", text), self._ids(self.start, "assistant\n")])

    def closing(self, ended: bool) -> Ids:
        """Return the end of an answer, without the marker if the model wrote it."""
        return self._ids("\n") if ended else self._ids(self.end, "\n")


class PlainText:
    """No markers: the model goes on with the text, for models that were not trained to converse.

    Parameters
    ----------
    tokenizer : Tokenizer
        Its special tokens end an answer.

    Examples
    --------
    >>> from tinytransformer.text import ByteTokenizer
    >>> PlainText(ByteTokenizer()).message("hi")
    array([104, 105])
    """

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        special = getattr(tokenizer, "special_ids", ())  # by their names, or alone
        self.stops = tuple(special.values() if isinstance(special, dict) else special)
        self.opening = self.closing(True)

    def message(self, text: str) -> Ids:
        """Return the tokens of the text."""
        return self.tokenizer.encode(text).astype(numpy.int64)

    def closing(self, ended: bool) -> Ids:
        """Return nothing."""
        return numpy.zeros(0, dtype=numpy.int64)


class Conversation:
    """Messages and answers in turn, of which the model reads each token once.

    When the context is full, the oldest turns are forgotten; the opening stays. One may stop reading an
    answer at any token: the conversation goes on from there.

    Parameters
    ----------
    model : LanguageModel
        In evaluation mode, for example a `GPT`.
    tokenizer : Tokenizer
        That of the model.
    template : ChatML or PlainText

    Attributes
    ----------
    forgotten : int
        Turns that the context had no room for.
    cut : bool
        Whether the last answer was ended by its length, not by the model.
    written : int
        Tokens of the last answer, with the one that ends it.

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> from tinytransformer.text import ByteTokenizer
    >>> model, tokenizer = GPT(GPTConfig(256, 64, d_model=12, num_heads=3)).eval(), ByteTokenizer()
    >>> talk = Conversation(model, tokenizer, PlainText(tokenizer))
    >>> for _ in range(2):
    ...     answer = "".join(talk.answer("Hello", max_new_tokens=5))
    >>> talk.written, talk.cut, talk.forgotten
    (5, True, 0)
    """

    def __init__(self, model: LanguageModel, tokenizer: Any, template: Template):
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.state: DecodingState | None = None
        self.turns: list[int] = []  # where each begins among the tokens
        self.forgotten = self.written = 0
        self.cut = False

    def answer(
        self,
        text: str,
        max_new_tokens: int = 512,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        rng: numpy.random.Generator | None = None,
    ) -> Iterator[str]:
        """Yield the answer to a message, piece by piece, each of whole characters.

        Parameters
        ----------
        text : str
            What the user says.
        max_new_tokens : int
            The most tokens of the answer, as far as the context has room.
        temperature, top_k, top_p, rng
            As in `generate`.

        Raises
        ------
        ValueError
            If the message does not fit the context, or an argument is outside its range: when called.
        """
        check_count("max_new_tokens", max_new_tokens, least=1)
        check_sampling(temperature, top_k, top_p)
        self._add(self.template.message(text), max_new_tokens)
        generator = numpy.random.default_rng(rng)
        return decoded(self.tokenizer, self._tokens(max_new_tokens, temperature, top_k, top_p, generator))

    def _add(self, message: Ids, max_new_tokens: int) -> None:
        """Append a message; forget as many of the oldest turns as there is no room for."""
        opening, limit = self.template.opening, self.model.config.context_length
        said = self.state.tokens[0] if self.state is not None else opening
        turns = self.turns
        if turns:
            ended = len(said) > 0 and int(said[-1]) in self.template.stops
            said = numpy.concatenate([said, self.template.closing(ended)])
        room = min(max_new_tokens, max(1, limit // 4))
        while turns and len(said) + len(message) + room > limit:
            following = turns[1] if len(turns) > 1 else len(said)
            dropped = following - turns[0]
            said = numpy.concatenate([said[: turns[0]], said[following:]])
            turns = [start - dropped for start in turns[1:]]
        if not len(said) + len(message):
            raise ValueError("chat: the message is empty")
        if len(said) + len(message) >= limit:
            raise ValueError(
                f"chat: the message has {len(message)} tokens, {len(said)} come before it, and the "
                f"context is {limit}: say it in fewer words"
            )
        forgotten = len(self.turns) - len(turns)
        if self.state is None or forgotten:  # what remains stands elsewhere: the model reads it again
            self.state = DecodingState(self.model, [numpy.concatenate([said, message])], use_cache=True)
        else:
            self.state.append(numpy.concatenate([said[self.state.tokens.shape[1] :], message]))
        self.turns = [*turns, len(said)]
        self.forgotten += forgotten

    def _tokens(
        self,
        max_new_tokens: int,
        temperature: float,
        top_k: int | None,
        top_p: float | None,
        rng: numpy.random.Generator,
    ) -> Iterator[int]:
        """Yield the tokens of an answer but the one that ends it; all of them are part of what was said."""
        state: Any = self.state  # there is one: a message was added
        room = self.model.config.context_length - state.tokens.shape[1]
        self.written, self.cut = 0, True
        while self.written < min(max_new_tokens, room):
            token = next_tokens(state.logits(), rng.random(1), temperature, top_k, top_p)  # (1,)
            state.append(token)
            self.written += 1
            if int(token[0]) in self.template.stops:
                self.cut = False
                return
            yield int(token[0])


def decoded(tokenizer: Any, tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of tokens as they come; a character that takes several waits for the last of them.

    Examples
    --------
    >>> from tinytransformer.text import ByteTokenizer
    >>> list(decoded(ByteTokenizer(), [104, 105, 0xE6, 0xB3, 0xA8]))
    ['h', 'i', '注']
    """
    held: list[int] = []
    for token in tokens:
        held.append(token)
        text = tokenizer.decode(held)
        if not text.endswith("\ufffd"):
            yield text
            held = []
    if held:
        yield tokenizer.decode(held)
