"""GGUF, the single file of llama.cpp: settings, tokenizer and tensors, most of them in four to eight bits.

The header is read here: the reader of the ``gguf`` library takes seconds for the 100,000 strings of a
tokenizer. How numbers are packed is left to that library.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from .floats import widened

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
BFLOAT16 = "<u2"
FLOATS = {0: "<f4", 1: "<f2", 28: "<f8", 30: BFLOAT16}  # the tensors that are not packed

# the keys of a layer in GGUF, and in the files of transformers
LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
SETTINGS = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.dimension_count": "head_dim",
    "rope.freq_base": "rope_theta",
}


class Packed(NamedTuple):
    """A tensor as it lies in the file."""

    kind: int  # of its numbers: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int  # from the start of the tensors


class Header(NamedTuple):
    """All of a file but the numbers of its tensors."""

    settings: dict[str, Any]
    tensors: dict[str, Packed]
    size: int  # of what precedes the tensors, in bytes


class _Reader:
    """Takes values one after the other from the start of a file."""

    def __init__(self, data: mmap.mmap):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ValueError("it is truncated")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        return self.take(self.number("Q")).decode("utf-8", "replace")

    def value(self) -> Any:
        kind = self.number("I")
        if kind != ARRAY:
            return self.item(kind)
        kind, count = self.number("I"), self.number("Q")
        if kind in NUMBERS:
            code = f"<{NUMBERS[kind]}"
            return [item for (item,) in struct.iter_unpack(code, self.take(count * struct.calcsize(code)))]
        return [self.item(kind) for _ in range(count)]

    def item(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind not in NUMBERS:
            raise ValueError(f"it has a setting of the unknown type {kind}")
        return self.number(NUMBERS[kind])


def read_header(path: Path) -> Header:
    """Read the settings of a GGUF file, and where its tensors lie.

    Raises
    ------
    ValueError
        If it is damaged, or of another version than 2 or 3.
    OSError
        If it cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"GGUF":
            raise ValueError("it is no GGUF file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = _Reader(data)
            reader.take(4)
            if (version := reader.number("I")) not in (2, 3):
                raise ValueError(f"it is GGUF of version {version}, and versions 2 and 3 are read")
            tensor_count, setting_count = reader.number("Q"), reader.number("Q")
            settings = {reader.string(): reader.value() for _ in range(setting_count)}
            tensors: dict[str, Packed] = {}
            for _ in range(tensor_count):
                name = reader.string()
                if name in tensors:
                    raise ValueError(f"it has {name} twice")
                lengths = [reader.number("Q") for _ in range(reader.number("I"))]
                tensors[name] = Packed(
                    kind=reader.number("I"), shape=tuple(reversed(lengths)), offset=reader.number("Q")
                )
    alignment = settings.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1:
        raise ValueError(f"it aligns its tensors to {alignment!r} bytes")
    return Header(settings, tensors, -(-reader.at // alignment) * alignment)


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, numpy.ndarray]]:
    """Read a Llama-type model as if it were a folder of ``transformers``.

    Returns
    -------
    config : dict
        The lines of a config.json.
    tensors : dict of str to ndarray
        float32, by the keys of ``transformers``; what has none keeps its own.

    Raises
    ------
    ValueError
        If it is damaged, or of another architecture.
    OSError
        If it cannot be read.
    ImportError
        If numbers are packed, and the ``gguf`` library is not installed.
    """
    settings, packed, start = read_header(path)
    kind = settings.get("general.architecture")
    if kind != "llama":
        raise ValueError(f"its architecture is {kind!r}, and llama is read")
    config = {theirs: settings.get(f"llama.{ours}") for ours, theirs in SETTINGS.items()}
    config |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    config["tie_word_embeddings"] = "output.weight" not in packed
    config["vocab_size"] = packed["token_embd.weight"].shape[0] if "token_embd.weight" in packed else None
    if (scaling := settings.get("llama.rope.scaling.type", "none")) != "none":
        config["rope_scaling"] = {"type": scaling}
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    heads["attn_k"] = heads["attn_k"] or heads["attn_q"]
    data = numpy.memmap(path, "u1", "r").view(numpy.ndarray)
    tensors = {}
    for name, tensor in packed.items():
        array = _unpacked(name, tensor, data[start + tensor.offset :])
        module = re.sub(r"^blk\.\d+\.(\w+)\.weight$", r"\1", name)
        if module in heads:
            array = _halves(array, heads[module])
        tensors[_key(name)] = array
    return config, tensors


def _key(name: str) -> str:
    """Return what ``transformers`` calls a tensor; the name itself if it has none."""
    if layer := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
        return f"model.layers.{layer[1]}.{LAYER[layer[2]]}.weight" if layer[2] in LAYER else name
    module = name.removesuffix(".weight")
    return f"{OUTSIDE[module]}.weight" if module in OUTSIDE else name


def _unpacked(name: str, tensor: Packed, data: numpy.ndarray) -> numpy.ndarray:
    """Return the numbers of a tensor, float32, given the file from its start on."""
    if tensor.kind in FLOATS:
        block, size = 1, numpy.dtype(FLOATS[tensor.kind]).itemsize  # entries, and their bytes
    else:
        from gguf import GGML_QUANT_SIZES

        sizes: Any = GGML_QUANT_SIZES  # its keys are of an enumeration that is equal to integers
        if tensor.kind not in sizes:
            raise ValueError(f"{name} is packed in the unknown way {tensor.kind}")
        block, size = sizes[tensor.kind]
    *rows, length = tensor.shape or (1,)
    count = math.prod(rows) * (length // block) * size
    if length % block or count > len(data):
        raise ValueError(f"{name}, of shape {tensor.shape}, is cut short")
    packed = data[:count].reshape(*rows, length // block * size)
    if tensor.kind in FLOATS:
        return widened(packed.view(FLOATS[tensor.kind]), FLOATS[tensor.kind] == BFLOAT16)
    from gguf import GGMLQuantizationType, quants

    try:
        return quants.dequantize(packed, GGMLQuantizationType(tensor.kind))
    except NotImplementedError:
        way = GGMLQuantizationType(tensor.kind).name
        raise ValueError(f"{name} is packed as {way}, which the gguf library does not unpack") from None


def _halves(array: numpy.ndarray, heads: Any) -> numpy.ndarray:
    """Reorder the rows of a W_Q or W_K: GGUF pairs neighbours for rotary positions, here it is halves."""
    if type(heads) is not int or heads < 1 or array.ndim != 2 or array.shape[0] % (2 * heads):
        raise ValueError(f"{heads!r} heads do not divide queries or keys of shape {array.shape}")
    rows, columns = array.shape
    return array.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
