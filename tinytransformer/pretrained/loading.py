"""A model from a folder of Hugging Face's, and back: nothing is guessed, dropped or left as it was."""

from __future__ import annotations

import fnmatch
import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy

from ..models import blank
from ..nn import Module
from ..text import Tokenizer
from .folder import PretrainedError, find, line, read_config, read_tensors, write_folder
from .keys import ARCHITECTURES, REQUIRED, Architecture
from .tokenizer_files import save_pretrained_tokenizer, tokenizer_files

__all__ = ["load_pretrained", "save_pretrained"]


def load_pretrained(
    path_or_name: str | os.PathLike[str],
    wanted: type | None = None,
    dtype: Any = None,
    rng: numpy.random.Generator | None = None,
) -> Any:
    """Read a model, in evaluation mode; its class is what the file says.

    Parameters
    ----------
    path_or_name : path or str
        A folder with ``config.json`` and ``model.safetensors`` (or several, and their index, or
        ``pytorch_model.bin``), a ``.gguf`` file, or the name of a repository on the Hugging Face Hub.
    wanted : type, optional
        Refuse other classes; `BERT` and the other names of a whole family allow each of its heads.
    dtype : dtype, optional
        Of the parameters: that of the file by default, and float32 for 16-bit floats.
    rng : numpy.random.Generator, optional
        Draws the dropout, should the model be trained on.

    Returns
    -------
    Module

    Raises
    ------
    PretrainedError
        If it cannot be found or read, is of an architecture or has a setting that no model here has, or its
        tensors are not exactly those of the model: then with every missing, unexpected and misshapen key.
    ValueError
        If the dtype is neither float32 nor float64.

    Examples
    --------
    >>> import tempfile
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> model = GPT(GPTConfig(vocab_size=11, context_length=7, d_model=12, num_heads=3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_pretrained(model, folder)
    ...     again = load_pretrained(folder)
    >>> (again([[3, 1, 4]]).numpy() == model([[3, 1, 4]]).numpy()).all()
    np.True_
    """
    if dtype is not None and numpy.dtype(dtype) not in (numpy.float32, numpy.float64):
        raise ValueError(f"load_pretrained: dtype must be float32 or float64, not {dtype!r}")
    path = find(path_or_name)
    packed: dict[str, numpy.ndarray] | None = None
    if path.suffix == ".gguf":
        values, packed = _read_gguf(path)
    else:
        values = read_config(path)
    architecture = _architecture(values, f"{str(path)!r}")
    try:
        config = _read_fields(architecture, values)
    except (TypeError, ValueError) as error:
        raise PretrainedError(f"the config.json of {str(path)!r} fits no model here: {line(error)}") from None
    tensors = read_tensors(path) if packed is None else packed
    names = values.get("architectures")
    said = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    name = architecture.choose(said or next(iter(architecture.classes)), tensors)
    if name not in architecture.classes:
        raise PretrainedError(
            f"{str(path)!r} is a {name!r}; of this kind there are {', '.join(architecture.classes)} here"
        )
    cls = architecture.classes[name]
    if wanted not in (None, cls, architecture.family):
        raise PretrainedError(
            f"{str(path)!r} holds a {cls.__name__}: read it with {cls.__name__}.from_pretrained"
        )
    if dtype is None:
        is_double = all(array.dtype == numpy.float64 for array in tensors.values())
        dtype = numpy.float64 if is_double else numpy.float32
    rng = numpy.random.default_rng() if rng is None else rng
    entries = (
        2 * sum(array.size for array in tensors.values()) + 500_000
    )  # some may be missing: they are named
    try:
        model = blank(
            lambda zeros: architecture.build(cls, config, zeros, dtype, list(tensors)), entries, rng
        )
    except ValueError as error:
        raise PretrainedError(f"the config.json of {str(path)!r} does not fit its tensors: {error}") from None
    model.load_state_dict(_state(architecture, model, tensors, f"{str(path)!r}"))
    return model.eval()


def _read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, numpy.ndarray]]:
    from .gguf import read_gguf

    try:
        return read_gguf(path)
    except ImportError:
        raise PretrainedError(
            f'to read {str(path)!r}, install the gguf library: pip install "tinytransformer[pretrained]"'
        ) from None
    except (OSError, ValueError) as error:
        raise PretrainedError(f"{str(path)!r} cannot be read: {line(error)}") from None


def _architecture(values: Mapping[str, Any], where: str) -> Architecture:
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        raise PretrainedError(
            f"{where}: config.json has the model_type {kind!r}, which is none of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[kind]


def _read_fields(architecture: Architecture, values: dict[str, Any]) -> Any:
    """Make our config of theirs; raise a ValueError or TypeError if there is none."""
    values = architecture.prepare(values)
    for key, allowed in architecture.fixed.items():
        if values.get(key, allowed[0]) not in allowed:
            raise ValueError(f"it sets {key} to {values[key]!r}, and the model here has {allowed[0]!r}")
    fields: dict[str, Any] = dict(architecture.switches)
    for field in architecture.fields:
        if field.ours in fields:
            continue
        value = values.get(field.theirs)
        value = field.default if value is None else value
        if value is REQUIRED:
            raise ValueError(f"it lacks {field.theirs}")
        fields[field.ours] = next((ours for theirs, ours in field.values.items() if theirs == value), value)
    return architecture.config_class(**fields)


def _state(
    architecture: Architecture, model: Module, tensors: Mapping[str, numpy.ndarray], where: str
) -> dict[str, numpy.ndarray]:
    """Give the tensors our names and layouts; each must be used once."""
    shapes = _shapes(architecture, model)
    copies = {copy: of for copy, of in architecture.copies.items() if of in shapes and copy not in shapes}
    found: dict[str, numpy.ndarray] = {}
    unexpected, problems = [], []
    for raw, array in tensors.items():
        meanings = list(_meanings(architecture, raw))
        key = next((key for key in meanings if key in shapes or key in copies), None)
        if key is not None and key not in found:
            found[key] = array
        elif not any(_is_buffer(architecture, key) for key in meanings):
            unexpected.append(raw)
    for copy, original in copies.items():
        if copy in found:
            array = found.pop(copy)
            if not numpy.array_equal(found.setdefault(original, array), array):
                problems.append(f"{copy} differs from {original}, and the model has one for both")
    missing = [key for key in shapes if key not in found]
    problems += [f"missing {', '.join(missing)}"] if missing else []
    problems += [f"unexpected {', '.join(unexpected)}"] if unexpected else []
    for key, array in found.items():
        if array.shape != shapes[key]:
            problems.append(f"{key} has shape {array.shape} instead of {shapes[key]}")
        elif array.dtype.kind != "f":
            problems.append(f"{key} holds {array.dtype} instead of floating-point numbers")
    if problems:
        raise PretrainedError(f"{where} does not fit a {type(model).__name__}: {'; '.join(problems)}")
    state = {}
    for name, _ in model.named_parameters():
        key, row = architecture.place(name)
        array = numpy.split(found[key], row.parts, axis=-1)[row.part]
        state[name] = array.T if row.transposed else array  # (in, out); a bias is its own transpose
    return state


def _shapes(architecture: Architecture, model: Module) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a file that holds this model."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, p in model.named_parameters():
        key, row = architecture.place(name)
        shape = p.shape[::-1] if row.transposed else p.shape
        shapes[key] = (*shape[:-1], shape[-1] * row.parts)
    return shapes


def _meanings(architecture: Architecture, raw: str) -> list[str]:
    """Return what a key of a file may be today: itself, with a new ending, with the prefix of the model."""
    keys = [raw]
    for old, new in architecture.renamed.items():
        if raw.endswith(old):
            keys.append(raw.removesuffix(old) + new)
    return [*keys, *(architecture.prefix + key for key in keys)]


def _is_buffer(architecture: Architecture, key: str) -> bool:
    return any(fnmatch.fnmatchcase(key, pattern) for pattern in architecture.buffers)


def save_pretrained(
    model: Any,
    folder: str | os.PathLike[str],
    tokenizer: Tokenizer | None = None,
    max_shard_size: int | str = "5GB",
) -> None:
    """Write a folder that ``transformers`` reads: ``config.json`` and ``model.safetensors``.

    Parameters
    ----------
    model : Module
        A model of `tinytransformer.models` that a file can be of.
    folder : path
        Made if missing.
    tokenizer : Tokenizer, optional
        Written too, by `save_pretrained_tokenizer`.
    max_shard_size : int or str
        The most bytes of a file, as a number or as ``"5GB"``: a larger model is divided into several.

    Raises
    ------
    PretrainedError
        If no file has a place for such a model or tokenizer; then nothing is written.
    ValueError
        If ``max_shard_size`` is no size.
    OSError
        If a file cannot be written.

    Examples
    --------
    >>> import os, tempfile
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_pretrained(GPT(GPTConfig(vocab_size=11, d_model=12, num_heads=3)), folder)
    ...     sorted(os.listdir(folder))
    ['config.json', 'model.safetensors']
    """
    architecture, config = _to_write(model)
    tensors = as_in_a_file(architecture, model.state_dict())
    if type(model) is architecture.family and architecture.inner:  # the model without a head
        tensors = {key.removeprefix(architecture.prefix): array for key, array in tensors.items()}
    if tokenizer is not None:
        tokenizer_files(tokenizer)  # may refuse it
    write_folder(folder, config, tensors, max_shard_size)
    if tokenizer is not None:
        save_pretrained_tokenizer(tokenizer, folder)


def as_in_a_file(architecture: Architecture, state: Mapping[str, numpy.ndarray]) -> dict[str, numpy.ndarray]:
    """Give a state of ours the keys and layouts of a file."""
    parts: dict[str, list[numpy.ndarray]] = defaultdict(list)  # in the order that the rows number
    for name, array in state.items():
        key, row = architecture.place(name)
        parts[key].append(array.T if row.transposed else array)
    return {key: numpy.concatenate(arrays, axis=-1) for key, arrays in parts.items()}


def _to_write(model: Any) -> tuple[Architecture, dict[str, Any]]:
    """Return what files a model is written as, and its config.json."""
    name = type(model).__name__
    for architecture in ARCHITECTURES.values():
        if type(model) not in architecture.classes.values():
            continue
        theirs = next(t for t, ours in architecture.classes.items() if ours is type(model))
        values = {"architectures": [theirs], "model_type": architecture.model_type}
        values |= {key: allowed[0] for key, allowed in architecture.fixed.items()}
        for field in architecture.fields:
            value = getattr(model.config, field.ours)
            values[field.theirs] = next((t for t, ours in field.values.items() if ours == value), value)
        if _read_fields(architecture, values) == model.config:  # nothing of it is lost
            return architecture, values | architecture.lines.get(theirs, {})
    raise PretrainedError(
        f"no file of Hugging Face has a place for {name} with {getattr(model, 'config', None)}"
    )
