"""Text to train on: Python's own documentation, or any UTF-8 file, whole or in chunks."""

import ast
import codecs
import hashlib
import os
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

CHUNK_CHARACTERS = 1 << 18  # as much text as is worked on at once where a stream is read
BLOCK_BYTES = 1 << 16  # as much of a file as is read at once


class TextError(ValueError):
    """A text, or a file that should hold one, cannot be used; the message is one line."""


def chunks_of(text: str | Iterable[str]) -> Iterator[str]:
    """Give a text as a stream of chunks: slices of a string, or the strings of an iterable.

    Parameters
    ----------
    text : str or iterable of str
        The text, whole or already in chunks.

    Yields
    ------
    str
        The chunks; joined they are the text.

    Raises
    ------
    TypeError
        If something in the stream is not a string.

    Examples
    --------
    >>> list(chunks_of("attention")), list(chunks_of(["atten", "tion"]))
    (['attention'], ['atten', 'tion'])
    """
    if isinstance(text, str):
        for start in range(0, len(text), CHUNK_CHARACTERS):
            yield text[start : start + CHUNK_CHARACTERS]
        return
    for chunk in text:
        if not isinstance(chunk, str):
            raise TypeError(f"text comes as str or as an iterable of str, got {type(chunk).__name__}")
        yield chunk


class Fingerprint:
    """A running fingerprint of a text that arrives in chunks; ``str()`` gives it.

    Attributes
    ----------
    characters : int
        How many characters (code points) came so far.

    Examples
    --------
    >>> running = Fingerprint()
    >>> running.update("atten")
    >>> running.update("tion")
    >>> str(running) == fingerprint("attention")
    True
    """

    def __init__(self) -> None:
        self.characters = 0
        self._hash = hashlib.sha256()

    def update(self, chunk: str) -> None:
        """Take in the next chunk of the text."""
        self.characters += len(chunk)
        self._hash.update(chunk.encode("utf-8", "surrogatepass"))

    def __str__(self) -> str:
        return f"{self.characters} characters, sha256 {self._hash.hexdigest()[:12]}"


def fingerprint(text: str | Iterable[str]) -> str:
    """Tell which text this is: its length and the start of its SHA-256 (of the UTF-8 bytes).

    The standard library's texts change with the Python version, so print this beside a result.

    Parameters
    ----------
    text : str or iterable of str
        The text, whole or in chunks; the chunk boundaries do not matter.

    Returns
    -------
    str
        Character count and 12 hexadecimal digits.

    Examples
    --------
    >>> fingerprint("attention")
    '9 characters, sha256 e0787d272a43'
    """
    running = Fingerprint()
    for chunk in chunks_of(text):
        running.update(chunk)
    return str(running)


def stdlib_documentation() -> str:
    """Python's language documentation, as the standard library carries it for ``help()``.

    Returns
    -------
    str
        The topics of ``pydoc_data.topics`` in sorted order, a blank line between them: nearly half a
        million characters of English. The text changes with the Python version.

    Raises
    ------
    TextError
        If this Python comes without the topics.

    Examples
    --------
    >>> "assert" in stdlib_documentation()
    True
    """
    return "\n\n".join(stdlib_topics())


def stdlib_topics() -> list[str]:
    """Return the topics of `stdlib_documentation`, one by one.

    Raises
    ------
    TextError
        If this Python comes without the topics.

    Examples
    --------
    >>> len(stdlib_topics()) > 50
    True
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise TextError(
            "this Python has no pydoc_data.topics, so its documentation cannot be the text; "
            "give a UTF-8 text file instead"
        ) from None
    return [topics[name] for name in sorted(topics)]


def stdlib_docstrings() -> list[str]:
    """Docstrings of the standard library's modules, classes and functions, each once.

    The sources are parsed, never imported. Takes a few seconds.

    Returns
    -------
    list of str
        The docstrings, indentation removed, in the order of the module names: about 8,000 strings and
        1.7 million characters. They change with the Python version.

    Raises
    ------
    TextError
        If this Python comes without the sources of its standard library.

    Examples
    --------
    >>> any(docstring.startswith("Return ") for docstring in stdlib_docstrings())
    True
    """
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: dict[str, None] = {}  # a dict keeps the order and each key once
    for _, module in stdlib_modules():
        for node in ast.walk(module):
            if isinstance(node, documented) and (docstring := ast.get_docstring(node)):
                docstrings[docstring] = None
    return list(docstrings)


def stdlib_modules(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """Source files of the standard library, parsed, without its tests.

    Parameters
    ----------
    *packages : str
        Only these packages and modules; by default all, which takes some seconds.

    Yields
    ------
    path : str
        Below the library's folder, with ``/`` between its parts: the first names the package.
    module : ast.Module
        What the file says; it is never executed.

    Raises
    ------
    TextError
        If this Python comes without the sources of its standard library.

    Examples
    --------
    >>> [path for path, module in stdlib_modules("heapq", "json")][:2]
    ['heapq.py', 'json/__init__.py']
    """
    root = Path(sysconfig.get_path("stdlib"))
    found = False
    for source in _stdlib_sources(root, packages or sorted(sys.stdlib_module_names)):
        found = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the library's own sources may warn, about escapes for one
            module = ast.parse(source.read_bytes(), filename=str(source))
        yield source.relative_to(root).as_posix(), module
    if not found:
        raise TextError(f"no sources of the standard library under {root}; give a UTF-8 text file instead")


def _stdlib_sources(root: Path, names: Iterable[str]) -> Iterator[Path]:
    """Source files of these modules below `root`, without the tests."""
    for name in names:
        if (root / f"{name}.py").is_file():
            yield root / f"{name}.py"
        for source in sorted((root / name).rglob("*.py")):
            # some test data is broken on purpose
            if not {"test", "tests", "idle_test"} & set(source.relative_to(root).parts):
                yield source


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 text file whole.

    Parameters
    ----------
    path : path
        The file. A byte order mark at its start is dropped; newlines stay as they are.

    Returns
    -------
    str
        The text.

    Raises
    ------
    TextError
        If the file is missing, a directory, unreadable, empty, not UTF-8, or holds a zero byte (which
        marks a binary file, or UTF-16).

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "poem.txt")
    ...     _ = path.write_text("注意力", encoding="utf-8")
    ...     read_text(path)
    '注意力'
    """
    return "".join(iterate_text(path))


def iterate_text(path: str | os.PathLike[str], chunk_characters: int = CHUNK_CHARACTERS) -> Iterator[str]:
    """Read a UTF-8 text file in chunks, for files that do not fit in memory.

    Parameters
    ----------
    path : path
        The file, as in `read_text`.
    chunk_characters : int
        Characters in each chunk; the last one may be shorter.

    Yields
    ------
    str
        The chunks; joined they are what `read_text` gives.

    Raises
    ------
    TextError
        As `read_text`, when the faulty place is reached.
    ValueError
        If `chunk_characters` is not positive.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder, "poem.txt")
    ...     _ = path.write_text("注意力机制", encoding="utf-8")
    ...     list(iterate_text(path, 2))
    ['注意', '力机', '制']
    """
    if chunk_characters < 1:
        raise ValueError(f"chunk_characters must be at least 1, got {chunk_characters}")
    pending = ""
    empty = True
    for text in _decoded(path):
        empty = False
        pending += text
        whole = len(pending) - len(pending) % chunk_characters
        for start in range(0, whole, chunk_characters):
            yield pending[start : start + chunk_characters]
        pending = pending[whole:]
    if empty:
        raise TextError(f"the text file {os.fspath(path)!r} is empty")
    if pending:
        yield pending


def _decoded(path: str | os.PathLike[str]) -> Iterator[str]:
    """Read and decode a file block by block; the strings are not empty."""
    name = repr(os.fspath(path))
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(path, "rb") as file:
            done = file.tell() if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0
            file.seek(done)  # done: bytes of the file before the block
            while block := file.read(BLOCK_BYTES):
                if (zero := block.find(b"\0")) >= 0:
                    raise TextError(
                        f"{name} is not UTF-8 text: a zero byte at byte {done + zero}, as in binary or "
                        f"UTF-16 files. {_TO_UTF8}"
                    )
                if text := _decode(decoder, block, done, name):
                    yield text
                done += len(block)
            _decode(decoder, b"", done, name)
    except FileNotFoundError:
        raise TextError(f"there is no text file {name}; check the path") from None
    except IsADirectoryError:
        raise TextError(f"{name} is a directory; give a text file inside it") from None
    except OSError as error:
        raise TextError(f"cannot read {name}: {error.strerror}") from None


_TO_UTF8 = "Save it as UTF-8 first, for example with: iconv -f ENCODING -t UTF-8"


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, done: int, name: str) -> str:
    """Decode one block, empty at the end of the file; a fault is told with its offset in the file."""
    held = len(decoder.getstate()[0])  # bytes of a character that the end of the block before cut
    try:
        return decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        raise TextError(
            f"{name} is not UTF-8 text: {error.reason} at byte {done - held + error.start}. {_TO_UTF8}"
        ) from None
