"""Texts: read whole or in chunks, refused in one clear line, told apart by their fingerprint."""

import hashlib
import sys
import sysconfig
import tracemalloc
import types

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinytransformer.text import (
    TextError,
    corpora,
    fingerprint,
    iterate_text,
    read_text,
    stdlib_docstrings,
    stdlib_documentation,
)

quick = settings(deadline=None, max_examples=100)
file_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
small_blocks = st.integers(1, 9)  # bytes, so that blocks cut characters


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("corpora") / "text.txt"


def refusal(path, chunk_characters=7):
    """The message with which a file is refused, by both ways to read it."""
    with pytest.raises(TextError) as whole:
        read_text(path)
    with pytest.raises(TextError) as chunked:
        list(iterate_text(path, chunk_characters))
    message = str(whole.value)
    assert message == str(chunked.value)
    assert "\n" not in message
    assert repr(str(path)) in message
    return message


# --- files ---


@given(text=file_text, chunk_characters=st.integers(1, 11), block=small_blocks)
@example(text="\r\n\n\r\ufeff注意力😀\x85", chunk_characters=2, block=1)
@quick
def test_files_are_read_as_they_are(path, text, chunk_characters, block):
    path.write_bytes(text.encode())
    text = text.removeprefix("\ufeff")  # a byte order mark
    if not text:
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "BLOCK_BYTES", block)
        chunks = list(iterate_text(path, chunk_characters))
        assert read_text(path) == text
        assert read_text(str(path)) == text
    assert "".join(chunks) == text
    assert all(len(chunk) == chunk_characters for chunk in chunks[:-1])
    assert 1 <= len(chunks[-1]) <= chunk_characters


def test_a_byte_order_mark_is_dropped_once(path):
    path.write_bytes(b"\xef\xbb\xbf\xef\xbb\xbf" + "力".encode())
    assert read_text(path) == "\ufeff力"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_empty_files_are_refused(path, content):
    path.write_bytes(content)
    assert "is empty" in refusal(path)


def test_missing_files_and_directories_are_refused(tmp_path):
    assert "there is no text file" in refusal(tmp_path / "missing.txt")
    assert "is a directory" in refusal(tmp_path)


def test_unreadable_files_are_refused(path, monkeypatch):
    def denied(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(corpora, "open", denied, raising=False)
    assert "Permission denied" in refusal(path)


@given(
    before=file_text | st.just("\ufeff注" * 5),
    fault=st.sampled_from(
        [b"\xff", b"\xe6\xb3", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\x80", b"\0", b"\x80"]
    ),
    after=st.sampled_from([b"", b"a", b"more text"]),
    block=small_blocks,
)
@quick
def test_binary_files_are_refused_at_the_right_byte(path, before, fault, after, block):
    path.write_bytes(before.encode() + fault + after)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "BLOCK_BYTES", block)
        message = refusal(path)
    assert f" at byte {len(before.encode())}" + (", as in" if fault == b"\0" else ". ") in message
    assert "not UTF-8 text" in message
    assert "iconv" in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_are_refused(path, encoding):
    path.write_bytes("attention 注意力".encode(encoding))
    assert "not UTF-8" in refusal(path)


def test_chunks_must_have_characters(path):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        next(iterate_text(path, 0))


def test_a_long_file_is_not_held_in_memory(path):
    path.write_bytes("注意力 is all\n".encode() * 400_000)  # 7 MB
    characters = 0
    tracemalloc.start()
    try:
        for chunk in iterate_text(path, 100_000):
            characters += len(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert characters == 400_000 * 11
    assert peak < 1.5e6


# --- fingerprints ---


@given(text=st.text(st.characters(exclude_categories=())), cuts=st.lists(st.integers(0, 30), max_size=3))
@example(text="\ud83d\ude00", cuts=[1])
@quick
def test_fingerprint_is_of_the_text_and_not_of_its_chunks(text, cuts):
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    expected = f"{len(text)} characters, sha256 {digest[:12]}"
    borders = [0, *sorted(cuts), None]
    chunks = [text[borders[place] : borders[place + 1]] for place in range(len(borders) - 1)]
    assert fingerprint(text) == fingerprint(chunks) == expected


# --- the standard library ---


def test_documentation_is_sorted_and_whole():
    from pydoc_data.topics import topics

    text = stdlib_documentation()
    assert len(text) == sum(map(len, topics.values())) + 2 * (len(topics) - 1)
    places = [text.index(topics[name]) for name in ("assert", "binary", "while", "yield")]
    assert places == sorted(places)
    assert len(text) > 300_000


def test_the_order_of_the_topics_does_not_matter(monkeypatch):
    module = types.ModuleType("pydoc_data.topics")
    module.topics = {"yield": "Y\n", "assert": "A\n", "while": "W\n"}
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", module)
    assert stdlib_documentation() == "A\n\n\nW\n\n\nY\n"


def test_a_python_without_documentation_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", types.ModuleType("pydoc_data.topics"))
    with pytest.raises(TextError, match=r"no pydoc_data.topics.*give a UTF-8 text file"):
        stdlib_documentation()


def test_docstrings_are_parsed_not_imported(tmp_path, monkeypatch):
    sources = {
        # the invalid escape would warn, and warnings are errors here
        "json/__init__.py": '"""Module.\n\n    Indented.\n"""\nraise SystemExit\nx = "\\d"\n',
        "json/tool.py": 'class C:\n    "Class."\n    async def f(self):\n        "Method."\n',
        "ast.py": '# -*- coding: latin-1 -*-\ndef f():\n    "Fun\xe7ão."\n    def g():\n        "Module."\n',
        "json/tests/broken.py": "def (",
        "site-packages/json.py": '"""Not the library."""',
        "zlib2.py": '"""Not the library either."""',
        "zipfile.py": '"""Method."""',
    }
    for name, source in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(source.replace("ã", "\xe3").encode("latin-1"))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: {"stdlib": str(tmp_path)}[name])
    assert stdlib_docstrings() == ["Funç\xe3o.", "Module.", "Module.\n\nIndented.", "Class.", "Method."]


def test_a_python_without_sources_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path / "python311.zip"))
    with pytest.raises(TextError, match=r"no sources .*python311\.zip"):
        stdlib_docstrings()
