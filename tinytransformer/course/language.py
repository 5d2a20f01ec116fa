"""The language the course speaks."""

from __future__ import annotations

import os

__all__ = ["language"]

_chosen = "zh" if os.environ.get("LANG", "").startswith("zh") else "en"


def language(choose: str | None = None) -> str:
    """Return the language of the course's messages, "en" or "zh"; with an argument, choose it first.

    At the start it is Chinese where the system's ``LANG`` is, and English elsewhere.

    Parameters
    ----------
    choose : {"en", "zh"}, optional

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If it speaks no such language.

    Examples
    --------
    >>> before = language()
    >>> language("zh")
    'zh'
    >>> language(before) == before
    True
    """
    global _chosen
    if choose is not None:
        if choose not in ("en", "zh"):
            raise ValueError(f"the course speaks en and zh, not {choose!r}")
        _chosen = choose
    return _chosen
