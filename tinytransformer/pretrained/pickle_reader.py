"""Tensors out of PyTorch's pickle files, by a reader that can make tensors and can do nothing else.

A pickle is a program for a stack machine, and the machine of Python's ``pickle`` module calls whatever the
program names. The one here knows the few instructions that a saved state dict consists of. It looks up the
names a file may use in a table, imports nothing, and refuses all else by its name.
"""

from __future__ import annotations

import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from .floats import widened

# storage of PyTorch: dtype on disk, and whether it is bfloat16, the upper half of a float32
STORAGES = {
    "torch.DoubleStorage": ("<f8", False),
    "torch.FloatStorage": ("<f4", False),
    "torch.HalfStorage": ("<f2", False),
    "torch.BFloat16Storage": ("<u2", True),
    "torch.LongStorage": ("<i8", False),
    "torch.IntStorage": ("<i4", False),
    "torch.ShortStorage": ("<i2", False),
    "torch.CharStorage": ("|i1", False),
    "torch.ByteStorage": ("|u1", False),
    "torch.BoolStorage": ("|b1", False),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MARK = object()


class _Storage(NamedTuple):
    """All numbers of a file in the archive: what a tensor may be a view of. A view itself is no storage."""

    numbers: numpy.ndarray  # (n,)


def read_pickle(path: Path) -> dict[str, numpy.ndarray]:
    """Read the tensors of a ``pytorch_model.bin``, as ``torch.save`` writes it since PyTorch 1.6.

    Nothing in the file is executed, whatever it asks for.

    Parameters
    ----------
    path : path

    Returns
    -------
    dict of str to ndarray
        float32 for float16 and bfloat16, others as they are.

    Raises
    ------
    ValueError
        If the file is damaged, of an older format, or asks for anything but tensors.
    OSError
        If it cannot be read.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive, path.stat().st_size)
    except zipfile.BadZipFile:
        raise ValueError("it is no zip archive: truncated, or saved by a PyTorch before 1.6") from None
    except (
        EOFError,
        NotImplementedError,
        RuntimeError,
        struct.error,
    ) as error:  # cut short, or not stored plainly
        raise ValueError(f"it is damaged: {error}") from None


def _read_archive(archive: zipfile.ZipFile, size: int) -> dict[str, numpy.ndarray]:
    entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("it is compressed, which PyTorch never does")
    if sum(entry.file_size for entry in entries) > size:
        raise ValueError("it is damaged: its parts overlap")
    programs = [entry.filename for entry in entries if entry.filename.endswith("data.pkl")]
    if len(programs) != 1:
        raise ValueError(f"it holds {len(programs)} data.pkl, not one")
    root = programs[0].removesuffix("data.pkl")
    names = {entry.filename for entry in entries}
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("its numbers are not little-endian")
    storages: dict[str, numpy.ndarray] = {}

    def storage(pid: Any) -> _Storage:
        """Return the numbers of a ("storage", type, key, device, number of entries)."""
        match pid:
            case ("storage", str(kind), str(key), str(), int(count)) if kind in STORAGES:
                pass
            case _:
                raise ValueError("it refers to something outside that is no storage of numbers")
        file = f"{root}data/{key}"
        if file not in names:
            raise ValueError(f"it is damaged: it lacks {file}")
        if file not in storages:
            dtype, is_bfloat16 = STORAGES[kind]
            data = archive.read(file)
            if len(data) != count * numpy.dtype(dtype).itemsize:
                raise ValueError(f"it is damaged: {file} does not hold {count} numbers of {kind}")
            storages[file] = widened(numpy.frombuffer(data, dtype), is_bfloat16)
        return _Storage(storages[file])

    state = _run(archive.read(programs[0]), storage)
    if not isinstance(state, dict):
        raise ValueError("it holds no state dict")
    if wrong := [key for key, value in state.items() if not isinstance(value, numpy.ndarray)]:
        raise ValueError(f"its state dict holds more than tensors: {', '.join(wrong)}")
    return state


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> numpy.ndarray:
    """Make a tensor a view of its storage; refuse one that would reach outside."""
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("it describes a tensor without a storage")
    if not all(type(n) is int and n >= 0 for n in numbers):
        raise ValueError("it describes a tensor whose offset, shape or strides are no numbers from 0 on")
    array = storage.numbers
    if math.prod(shape) == 0:
        return numpy.zeros(shape, array.dtype)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if last >= len(array) or math.prod(shape) > len(array):
        raise ValueError(f"it describes a tensor of shape {shape} that is not in its storage of {len(array)}")
    step = array.itemsize
    return numpy.lib.stride_tricks.as_strided(
        array[offset:], shape, [stride * step for stride in strides], writeable=False
    )


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


BUILDERS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": dict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}


def _run(program: bytes, storage: Callable[[Any], _Storage]) -> Any:
    """Run the instructions of a pickle that build a dict of tensors; refuse every other one."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        items: list[Any] = []
        while (item := stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    try:
        argument: Any
        for instruction, argument, _ in pickletools.genops(program):
            name = instruction.name
            if name in ("PROTO", "FRAME"):
                continue
            if name == "STOP":
                break
            if name in CONSTANTS:
                stack.append(CONSTANTS[name])
            elif name in LITERALS:
                stack.append(argument)
            elif name == "EMPTY_DICT":
                stack.append({})
            elif name == "MARK":
                stack.append(MARK)
            elif name == "TUPLE":
                stack.append(tuple(since_mark()))
            elif name in TUPLES:
                count = TUPLES[name]
                stack[-count:] = [tuple(stack[-count:])]
            elif name in ("SETITEM", "SETITEMS"):
                items = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                if not all(isinstance(key, str) for key in items[::2]):
                    raise ValueError("it has a dict whose keys are not names")
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name in ("GLOBAL", "STACK_GLOBAL"):
                words = argument.split(" ") if name == "GLOBAL" else [stack.pop(-2), stack.pop()]
                stack.append(_permitted(".".join(words)))
            elif name == "BINPERSID":
                stack.append(storage(stack.pop()))
            elif name == "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if not isinstance(function, str) or function not in BUILDERS:
                    raise ValueError("it calls what builds no tensor")
                if function == "collections.OrderedDict" and arguments != ():
                    raise ValueError("it has an OrderedDict with arguments, which no state dict is")
                stack.append(BUILDERS[function](*arguments))
            elif name == "BUILD" and isinstance(stack[-2], dict):
                stack.pop()  # attributes of a state dict: versions of modules, which are not needed
            else:
                raise ValueError(f"its instruction {name} is not needed for tensors, and is not carried out")
        return stack.pop()
    except (IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"its pickle is damaged: {error}") from None


def _permitted(name: str) -> str:
    if name not in BUILDERS and name not in STORAGES:
        raise ValueError(f"it asks for {name}, which is no part of a tensor; it is not executed")
    return name
