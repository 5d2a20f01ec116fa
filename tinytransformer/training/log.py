"""The log of a run: one row for each step or evaluation, as JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

from ..text.tokenizers import atomic_file

__all__ = ["Log"]

COLUMNS = (
    "step",
    "loss",
    "validation_loss",
    "learning_rate",
    "gradient_norm",
    "tokens",
    "seconds",
)


class Log:
    """Rows of numbers appended to a file as they come: ``.jsonl`` or ``.csv``, by its ending.

    Parameters
    ----------
    path : path
        The file; rows that are there stay.

    Raises
    ------
    ValueError
        If the ending is another.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     log = Log(pathlib.Path(folder, "log.jsonl"))
    ...     log.append({"step": 1, "loss": 4.5})
    ...     log.append({"step": 2, "loss": 4.25})
    ...     log.cut(after=1)
    ...     log.rows()
    [{'step': 1, 'loss': 4.5}]
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if self.path.suffix not in (".jsonl", ".csv"):
            raise ValueError(f"a log ends in .jsonl or .csv, not {self.path.name!r}")

    def append(self, row: dict[str, Any]) -> None:
        """Write one row; it is in the file when this returns.

        Raises
        ------
        ValueError
            If the row has a name that the log has no column for.
        """
        line = self._line(row)
        with self.path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(end - 1, 0))
            if file.read(1) not in (b"", b"\n"):  # a crash cut the last line short: it goes
                file.seek(0)
                end = file.truncate(file.read().rfind(b"\n") + 1)
            file.write(((self._header() if end == 0 else "") + line).encode())

    def rows(self) -> list[dict[str, Any]]:
        """Read the rows back; a last line that a crash cut short is left out.

        Raises
        ------
        ValueError
            If the file is no log.
        """
        if not self.path.exists():
            return []
        whole, _, _ = self.path.read_bytes().rpartition(b"\n")
        try:
            lines = whole.decode().split("\n") if whole else []
            if self.path.suffix == ".jsonl":
                rows = [json.loads(line) for line in lines]
            else:
                rows = [{k: json.loads(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]
            if not all(type(row["step"]) is int for row in rows):
                raise ValueError
        except (ValueError, TypeError, KeyError, RecursionError, csv.Error):
            raise ValueError(f"{str(self.path)!r} is damaged: not every line is a row of a log") from None
        return rows

    def cut(self, after: int) -> None:
        """Drop the rows of later steps: they will come again when a run goes on from this one."""
        kept = [row for row in self.rows() if row["step"] <= after]
        with atomic_file(self.path) as file:
            file.write((self._header() + "".join(map(self._line, kept))).encode())

    def _header(self) -> str:
        return ",".join(COLUMNS) + "\n" if self.path.suffix == ".csv" else ""

    def _line(self, row: dict[str, Any]) -> str:
        if unknown := row.keys() - set(COLUMNS):
            raise ValueError(f"a log has no column {min(unknown)!r}, only {', '.join(COLUMNS)}")
        if self.path.suffix == ".csv":
            return ",".join(json.dumps(row[name]) if name in row else "" for name in COLUMNS) + "\n"
        return json.dumps(row) + "\n"
