"""The log of a run: one row for each step or evaluation, as JSON lines or CSV."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

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
        """Write one row; it is in the file when this returns."""
        new = not self.path.exists()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write((self._header() if new else "") + self._line(row))

    def rows(self) -> list[dict[str, Any]]:
        """Read the rows back; a last line that a crash cut short is left out."""
        if not self.path.exists():
            return []
        text = self.path.read_text(encoding="utf-8")
        lines = text[: text.rfind("\n") + 1].splitlines()
        if self.path.suffix == ".csv":
            return [{k: _number(v) for k, v in row.items() if v} for row in csv.DictReader(lines)]
        return [json.loads(line) for line in lines]

    def cut(self, after: int) -> None:
        """Drop the rows of later steps: they will come again when a run goes on from this one."""
        kept = [row for row in self.rows() if row["step"] <= after]
        beside = self.path.with_name(self.path.name + ".tmp")
        beside.write_text(self._header() + "".join(map(self._line, kept)), encoding="utf-8", newline="")
        os.replace(beside, self.path)

    def _header(self) -> str:
        return ",".join(COLUMNS) + "\n" if self.path.suffix == ".csv" else ""

    def _line(self, row: dict[str, Any]) -> str:
        if self.path.suffix == ".csv":
            return ",".join(repr(row[name]) if name in row else "" for name in COLUMNS) + "\n"
        return json.dumps(row) + "\n"


def _number(text: str) -> int | float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
