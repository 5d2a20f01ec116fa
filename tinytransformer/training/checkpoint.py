"""Checkpoints: all that a run needs to go on, in files that are never half written."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy

from ..models import (
    BERT,
    GPT,
    T5,
    BERTConfig,
    BERTForMaskedLM,
    BERTForNextSentence,
    BERTForPretraining,
    BERTForQuestionAnswering,
    BERTForSequenceClassification,
    BERTForTokenClassification,
    GPTConfig,
    T5Config,
    Transformer,
    TransformerConfig,
    blank,
)
from ..text import Tokenizer, tokenizer_from_dict

__all__ = ["Checkpoint", "CheckpointError", "latest_checkpoint", "load_checkpoint", "save_checkpoint"]

FORMAT = "tinytransformer checkpoint"
VERSION = 1
MODELS: dict[type, tuple[type, ...]] = {  # of each kind of configuration
    GPTConfig: (GPT,),
    BERTConfig: (
        BERT,
        BERTForMaskedLM,
        BERTForNextSentence,
        BERTForPretraining,
        BERTForQuestionAnswering,
        BERTForSequenceClassification,
        BERTForTokenClassification,
    ),
    T5Config: (T5,),
    TransformerConfig: (Transformer,),
}
ARCHITECTURES: dict[str, tuple[Any, Any]] = {
    model.__name__: (model, config) for config, models in MODELS.items() for model in models
}


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, not ours, or of another architecture."""


@dataclasses.dataclass
class Checkpoint:
    """What a checkpoint folder holds.

    Attributes
    ----------
    path : pathlib.Path
        The folder.
    model : Module
        A model of `tinytransformer.models`, with its weights.
    tokenizer : Tokenizer
        Made the token ids the model knows.
    state : dict
        Step, settings, data, random generator: as `Trainer` saved them.
    """

    path: Path
    model: Any
    tokenizer: Tokenizer
    state: dict[str, Any]

    def optimizer_state(self) -> dict[str, numpy.ndarray]:
        """Read the moments and the step counts of the optimizer.

        Raises
        ------
        CheckpointError
            If the file is missing or damaged.
        """
        return _read_arrays(self.path / "optimizer.safetensors")


def save_checkpoint(
    folder: str | os.PathLike[str],
    step: int,
    model: Any,
    tokenizer: Tokenizer,
    optimizer_state: dict[str, Any],
    state: dict[str, Any],
    keep: int = 2,
) -> Path:
    """Write ``folder/step-NNNNNNNN``, which appears under that name only once it is whole.

    It holds ``model.safetensors``, ``optimizer.safetensors`` and ``checkpoint.json``. The newest ``keep``
    checkpoints stay; older ones, and what a kill left half written or half removed, go.

    Parameters
    ----------
    folder : path
        Where the checkpoints of a run lie; made if missing.
    step : int
        Steps taken so far.
    model, tokenizer
        What is saved; the model is one of `tinytransformer.models`, and its vocabularies are the tokenizer's.
    optimizer_state : dict
        Arrays and numbers by name.
    state : dict
        Anything else that JSON can hold.
    keep : int
        Checkpoints to keep, at least 1.

    Returns
    -------
    pathlib.Path
        The new checkpoint.

    Raises
    ------
    ValueError
        If ``keep`` is less than 1.
    OSError
        If it cannot be written, or there is a checkpoint of that step; those that are there stay.

    Examples
    --------
    >>> import tempfile
    >>> from tinytransformer.text import ByteTokenizer
    >>> model = GPT(GPTConfig(vocab_size=256, context_length=5, d_model=8, num_heads=2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = save_checkpoint(folder, 7, model, ByteTokenizer(), optimizer_state={}, state={})
    ...     path.name, sorted(file.name for file in path.iterdir())
    ('step-00000007', ['checkpoint.json', 'model.safetensors', 'optimizer.safetensors'])
    """
    from safetensors.numpy import save_file

    if keep < 1:
        raise ValueError(f"save_checkpoint: keep must be at least 1, not {keep}")
    folder = Path(folder)
    final = folder / f"step-{step:08d}"
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name, values in {"model": model.state_dict(), "optimizer": optimizer_state}.items():
        # safetensors writes the memory as it lies, whatever the order of the axes
        arrays = {key: numpy.asarray(value, order="C") for key, value in values.items()}
        save_file(arrays, partial / f"{name}.safetensors")
    description = {
        "format": FORMAT,
        "version": VERSION,
        **state,
        "step": step,
        "model": type(model).__name__,
        "config": dataclasses.asdict(model.config),
        "tokenizer": tokenizer.to_dict(),
    }
    (partial / "checkpoint.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    for path in partial.glob("*.safetensors"):
        shutil.copymode(partial / "checkpoint.json", path)  # safetensors lets the owner alone read them
    for path in [*partial.iterdir(), partial]:
        _to_disk(path)
    os.rename(partial, final)
    _to_disk(folder)
    kept = list(checkpoints_in(folder).values())[-keep:]
    for old in folder.glob("step-*"):
        if old.name[5:].isdecimal() and old not in kept:
            shutil.rmtree(old, ignore_errors=True)
    return final


def _to_disk(path: Path) -> None:
    """Ask the system to write a file or folder out, so that a power cut cannot leave a hole in it."""
    if os.name == "nt" and path.is_dir():
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)  # Windows flushes writers only
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """Return the checkpoints in a folder by their steps, the newest last."""
    whole = (p for p in folder.glob("step-*") if p.name[5:].isdecimal() and (p / "checkpoint.json").is_file())
    return dict(sorted((int(p.name[5:]), p) for p in whole))


def latest_checkpoint(path: str | os.PathLike[str]) -> Path:
    """Find the newest checkpoint: of a run's folder, of its ``checkpoints`` folder, or the path itself.

    Raises
    ------
    CheckpointError
        If there is none.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for step in ("step-00000009", "step-00000010"):
    ...         Path(folder, step).mkdir()
    ...         Path(folder, step, "checkpoint.json").touch()
    ...     latest_checkpoint(folder).name
    'step-00000010'
    """
    path = Path(path)
    try:
        if (path / "checkpoint.json").is_file():
            return path
        for folder in (path / "checkpoints", path):
            if found := checkpoints_in(folder):
                return found[max(found)]
        what = "it holds no checkpoint of tinytransformer" if path.exists() else "there is no such folder"
    except (OSError, ValueError) as error:  # such as a name that is too long
        what = _line(error)
    raise CheckpointError(f"cannot load a checkpoint from {str(path)!r}: {what}")


def load_checkpoint(path: str | os.PathLike[str], *architectures: str) -> Checkpoint:
    """Read a checkpoint and build its model; nothing in it is executed.

    Parameters
    ----------
    path : path
        A checkpoint, or the folder of a run, of which the newest is taken.
    *architectures : str
        Names of the models that will do; without any, all.

    Returns
    -------
    Checkpoint

    Raises
    ------
    CheckpointError
        If it is missing, damaged, not ours, of a newer version, or of another architecture.

    Examples
    --------
    >>> import tempfile
    >>> from tinytransformer.text import ByteTokenizer
    >>> model = GPT(GPTConfig(vocab_size=256, context_length=5, d_model=8, num_heads=2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = save_checkpoint(folder, 7, model, ByteTokenizer(), optimizer_state={}, state={})
    ...     checkpoint = load_checkpoint(folder)
    >>> checkpoint.tokenizer, checkpoint.state["step"], checkpoint.model.num_parameters()
    (ByteTokenizer(vocab_size=256), 7, 3848)
    """
    folder = latest_checkpoint(path)
    where = f"cannot load {str(folder)!r}"
    state = _read_description(folder / "checkpoint.json")
    name = state["model"]
    if name not in ARCHITECTURES:
        raise CheckpointError(f"{where}: architecture {name!r} is none of {sorted(ARCHITECTURES)}")
    if architectures and name not in architectures:
        raise CheckpointError(f"{where}: it holds a {name}, and a {' or '.join(architectures)} is needed")
    model_class, config_class = ARCHITECTURES[name]
    weights = _read_arrays(folder / "model.safetensors")
    try:
        config = config_class(**state["config"])
        tokenizer = tokenizer_from_dict(state["tokenizer"])
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{where}: {_line(error)}") from None
    for field in ("vocab_size", "source_vocab_size", "target_vocab_size"):
        if (size := getattr(config, field, tokenizer.vocab_size)) != tokenizer.vocab_size:
            raise CheckpointError(f"{where}: the tokenizer has {tokenizer.vocab_size} ids, the model {size}")
    dtypes = sorted({str(array.dtype) for array in weights.values()})
    if dtypes not in (["float32"], ["float64"]):
        raise CheckpointError(f"{where}: the weights are {' and '.join(dtypes)}, not float32 or float64")
    numbers = sum(array.size for array in weights.values())
    try:
        model = blank(
            lambda rng: _model(model_class, config, rng, dtypes[0], weights),
            numbers,
            numpy.random.default_rng(0),
        )
        if model.num_parameters() != numbers:
            raise ValueError(
                f"it has {numbers:,} weights, and its configuration means {model.num_parameters():,}"
            )
        model.load_state_dict(weights)
    except (ValueError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{where}: {_line(error)}") from None
    return Checkpoint(folder, model, tokenizer, state)


def _model(model_class: Any, config: Any, rng: Any, dtype: str, weights: dict[str, Any]) -> Any:
    """Make a model; the encoder of a BERT with the pooler, if it was saved with one."""
    if not isinstance(config, BERTConfig):
        return model_class(config, rng, dtype)
    encoder = BERT(config, rng, dtype, pooler=any(name.endswith("pooler.weight") for name in weights))
    return encoder if model_class is BERT else model_class(config, encoder=encoder)


def _read_description(path: Path) -> dict[str, Any]:
    try:
        state = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"cannot read {str(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{str(path)!r} is damaged: it is not valid JSON") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CheckpointError(f"{str(path)!r} does not describe a checkpoint of tinytransformer")
    if state.get("version") != VERSION:
        raise CheckpointError(
            f"{str(path)!r} has version {state.get('version')!r} and this tinytransformer reads {VERSION}: "
            "update it"
        )
    expected = {"model": str, "config": dict, "tokenizer": dict, "step": int}
    wrong = [name for name, kind in expected.items() if type(state.get(name)) is not kind]
    if wrong or state["step"] < 0:
        raise CheckpointError(f"{str(path)!r} is damaged: it lacks a valid {' and '.join(wrong or ['step'])}")
    return state


def _read_arrays(path: Path) -> dict[str, numpy.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except OSError as error:
        reason = error.strerror or "no such file"
        raise CheckpointError(f"cannot read {str(path)!r}: {reason}") from None
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{str(path)!r} is damaged or truncated ({_line(error)}): remove its folder to use the one before"
        ) from None


def _line(error: Exception) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__
