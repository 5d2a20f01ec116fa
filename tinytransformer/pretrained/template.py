"""How the conversations are written that a model was trained on, as far as its files say it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from ..generation import ChatML
from .folder import PretrainedError, find, line, read_json
from .gguf import read_header

__all__ = ["load_chat_template"]

# The instructions of a template are those of the Jinja language, which is not executed here. Its text
# between the markers tells which format it is, and what the model is told if nobody says otherwise.
SYSTEM = re.compile(r"<\|im_start\|>system(?:\\n|\n)([^<{}'\"]*)<\|im_end\|>")


def load_chat_template(
    path_or_name: str | os.PathLike[str], tokenizer: Any, system: str | None = None
) -> ChatML:
    r"""Return how to write a conversation for a model: ChatML is known.

    Parameters
    ----------
    path_or_name : path or str
        As for `load_pretrained`. The template stands in a GGUF file, in ``tokenizer_config.json`` or in
        ``chat_template.jinja``.
    tokenizer : Tokenizer
        That of the model.
    system : str, optional
        What the model is told before the conversation: by default what the template says, if it does.

    Raises
    ------
    PretrainedError
        If there is no template, or it is another one.

    Examples
    --------
    >>> import tempfile
    >>> from tinytransformer.text import GPT2Tokenizer
    >>> tokenizer = GPT2Tokenizer([*"adeimnorstuy", "Ċ", *ChatML.markers], [], ChatML.markers)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "chat_template.jinja").write_text("<|im_start|>{{ role }}…<|im_end|>")
    ...     tokenizer.decode(load_chat_template(folder, tokenizer, "mind").opening)
    '<|im_start|>system\nmind<|im_end|>\n'
    """
    path = find(path_or_name)
    template = _text(path)
    if template is None:
        raise PretrainedError(f"{str(path)!r} says nothing of how to write a conversation")
    if not all(marker in template for marker in ChatML.markers):
        raise PretrainedError(f"{str(path)!r} writes conversations in a way that is not known; ChatML is")
    if system is None:
        found = SYSTEM.search(template)
        system = found[1] if found else ""
    try:
        return ChatML(tokenizer, system)
    except ValueError as error:
        raise PretrainedError(f"{str(path)!r}: {line(error)}") from None


def _text(path: Path) -> str | None:
    """Return the template of a folder or file, if there is one."""
    if path.suffix == ".gguf":
        try:
            found = read_header(path).settings.get("tokenizer.chat_template")
        except (OSError, ValueError) as error:
            raise PretrainedError(f"{str(path)!r} cannot be read: {line(error)}") from None
    elif (path / "chat_template.jinja").is_file():
        found = (path / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    elif (path / "tokenizer_config.json").is_file():
        found = read_json(path / "tokenizer_config.json").get("chat_template")
    else:
        found = None
    return found if isinstance(found, str) else None
