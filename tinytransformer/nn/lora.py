r"""LoRA: train a small correction to some matrices of a model, and leave the model as it is.

.. math:: y = xW + b + \frac{\alpha}{r}\, xAB

A has r columns and B has r rows, few against those of W. B starts at 0, so at first nothing changes.
Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021, section 4.1.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy

from ..autograd import no_grad
from ..backend import module_of, move, to_numpy
from ..formulas import linear
from .layers import Linear, Random
from .module import Module, Parameter, fitting

__all__ = ["LoRALinear", "add", "load", "load_state_dict", "merge", "save", "state_dict"]

FORMAT = "tinytransformer lora"


class LoRALinear(Module):
    """A `Linear` with a correction of low rank; `add` puts it in the place of the Linear.

    Parameters
    ----------
    base : Linear
        W and b.
    rank : int
        r.
    alpha : float
        The correction is multiplied by alpha / r.
    rng : numpy.random.Generator or int, optional
        Draws A: normal with variance 1/in_features.

    Attributes
    ----------
    A : Parameter, shape (in_features, r)
    B : Parameter, shape (r, out_features)

    Examples
    --------
    >>> import tinytransformer as tt
    >>> layer = LoRALinear(tt.nn.Linear(5, 7), rank=2, alpha=4.0)
    >>> layer(tt.ones((3, 5))).shape, layer.weight.shape
    ((3, 7), (5, 7))
    """

    def __init__(self, base: Linear, rank: int, alpha: float, *, rng: Random = None):
        inputs, outputs = base.weight.shape
        dtype, backend = base.weight.dtype, base.weight.backend
        A = numpy.random.default_rng(rng).normal(0, inputs**-0.5, (inputs, rank))
        self.base = base
        self.A = Parameter(move(A.astype(dtype), backend))
        self.B = Parameter(move(numpy.zeros((rank, outputs), dtype), backend))
        self.alpha = alpha

    @property
    def scale(self) -> float:
        """Alpha over r."""
        return self.alpha / self.A.shape[1]

    @property
    def weight(self) -> Any:
        """W with its correction, shape (in_features, out_features): for formulas that take a matrix."""
        return self.base.weight + self.A @ self.B * self.scale

    @property
    def bias(self) -> Any:
        """The b of the Linear."""
        return self.base.bias

    def forward(self, x: Any) -> Any:
        """Map (..., in_features) to (..., out_features)."""
        return self.base(x) + linear(linear(x, self.A), self.B) * self.scale

    def extra_repr(self) -> str:
        """Return r and alpha."""
        return f"rank={self.A.shape[1]}, alpha={self.alpha}"


def add(
    model: Module,
    rank: int,
    alpha: float,
    targets: Sequence[str] = ("W_Q", "W_V"),
    *,
    rng: Random = None,
) -> list[str]:
    """Freeze a model, and give some of its Linears a correction that can be trained.

    Parameters
    ----------
    model : Module
        Changed in place. What it computes stays the same until the correction is trained.
    rank : int
        r: as many columns has A, and rows has B.
    alpha : float
        The correction is multiplied by alpha / r.
    targets : sequence of str
        Names of Linears, such as ``"W_Q"``, or of their whole path, such as ``"blocks.0.*.W_?"``; ``*`` and
        ``?`` stand for any characters and for one.
    rng : numpy.random.Generator or int, optional
        Draws each A.

    Returns
    -------
    list of str
        The paths of the Linears that were changed.

    Raises
    ------
    ValueError
        If the rank is not positive, a target names no Linear, or the model has such corrections already.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> from tinytransformer.nn import lora
    >>> layer = tt.nn.TransformerEncoderLayer(6, 3, 24)
    >>> lora.add(layer, rank=2, alpha=4, targets=["W_Q", "linear?"])
    ['self_attention.W_Q', 'feed_forward.linear1', 'feed_forward.linear2']
    >>> [name for name, p in layer.named_parameters() if p.requires_grad][:2]
    ['self_attention.W_Q.A', 'self_attention.W_Q.B']
    """
    if type(rank) is not int or rank < 1:
        raise ValueError(f"lora.add: rank must be a positive integer, not {rank!r}")
    if any(isinstance(module, LoRALinear) for module in model.modules()):
        raise ValueError("lora.add: the model has such corrections already: merge(model) first")
    linears = {name: m for name, m in model.named_modules() if isinstance(m, Linear) and name}
    chosen = []
    for target in [targets] if isinstance(targets, str) else targets:
        names = [n for n in linears if fnmatchcase(n, target) or fnmatchcase(n.rpartition(".")[2], target)]
        if not names:
            known = ", ".join(sorted({name.rpartition(".")[2] for name in linears}))
            raise ValueError(f"lora.add: no Linear is named {target!r}; there are {known or 'none'}")
        chosen += names
    chosen = [name for name in linears if name in chosen]
    generator = numpy.random.default_rng(rng)
    model.requires_grad_(False)
    new = {id(linears[name]): LoRALinear(linears[name], rank, alpha, rng=generator) for name in chosen}
    _exchange(model, new)
    return chosen


def merge(model: Module) -> None:
    """Add each correction to its matrix, and make the model what it was: Linears, and all of it trained.

    Parameters
    ----------
    model : Module
        Changed in place; what it computes stays the same, up to rounding.

    Raises
    ------
    ValueError
        If it has no corrections.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> from tinytransformer.nn import lora
    >>> layer = tt.nn.MultiHeadAttention(6, 3)
    >>> names = lora.add(layer, rank=2, alpha=4)
    >>> lora.merge(layer)
    >>> type(layer.W_Q).__name__
    'Linear'
    """
    layers = _corrected(model, "merge").values()
    with no_grad():
        for layer in layers:
            layer.base.weight.data[...] = layer.weight.data
            layer.base.weight.mark_changed()
    _exchange(model, {id(layer): layer.base for layer in layers})
    model.requires_grad_(True)


def state_dict(model: Module) -> dict[str, numpy.ndarray]:
    """Copy A and B of every correction to the host, under the path of the Linear: all that was trained.

    Raises
    ------
    ValueError
        If the model has no corrections.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> from tinytransformer.nn import lora
    >>> layer = tt.nn.MultiHeadAttention(6, 3)
    >>> names = lora.add(layer, rank=2, alpha=4, targets="W_Q")
    >>> [(name, a.shape) for name, a in lora.state_dict(layer).items()]
    [('W_Q.A', (6, 2)), ('W_Q.B', (2, 6))]
    """
    return {name: to_numpy(p.data).copy() for name, p in _parameters(model, "state_dict").items()}


def load_state_dict(model: Module, state: Mapping[str, Any]) -> None:
    """Copy what `state_dict` returned into a model to which the same corrections have been added.

    Raises
    ------
    ValueError
        If the model has no corrections, or with every missing, unexpected and misshapen name; then nothing
        has been changed.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> from tinytransformer.nn import lora
    >>> layer, again = tt.nn.FeedForward(5, 7), tt.nn.FeedForward(5, 7)
    >>> names = [lora.add(module, rank=2, alpha=4, targets="linear1") for module in (layer, again)]
    >>> lora.load_state_dict(again, lora.state_dict(layer))
    """
    parameters = _parameters(model, "load_state_dict")
    shapes = {name: p.shape for name, p in parameters.items()}
    for name, array in fitting("lora.load_state_dict", shapes, state).items():
        p = parameters[name]
        p.data[...] = module_of(p.data).asarray(array.astype(p.dtype, copy=False))
        p.mark_changed()


def save(model: Module, path: str | os.PathLike[str]) -> None:
    """Write the corrections of a model, and nothing else of it, to a safetensors file.

    Parameters
    ----------
    model : Module
    path : path
        The file; it appears there once it is whole.

    Raises
    ------
    ValueError
        If the model has no corrections.

    Examples
    --------
    >>> import tempfile, tinytransformer as tt
    >>> from tinytransformer.nn import lora
    >>> layer = tt.nn.MultiHeadAttention(6, 3)
    >>> names = lora.add(layer, rank=2, alpha=4)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lora.save(layer, f"{folder}/correction.safetensors")
    ...     lora.load(tt.nn.MultiHeadAttention(6, 3), f"{folder}/correction.safetensors")
    ['W_Q', 'W_V']
    """
    from safetensors.numpy import save_file

    layer = next(iter(_corrected(model, "save").values()))  # rank and alpha are the same in all
    about = {"format": FORMAT, "rank": str(layer.A.shape[1]), "alpha": json.dumps(layer.alpha)}
    partial = Path(f"{os.fspath(path)}.partial")
    save_file(state_dict(model), partial, about)
    partial.replace(path)


def load(model: Module, path: str | os.PathLike[str]) -> list[str]:
    """Add to a model the corrections that `save` wrote, and freeze the rest of it.

    Parameters
    ----------
    model : Module
        One like that from which they were saved, without corrections. Changed in place.
    path : path

    Returns
    -------
    list of str
        The paths of the Linears that were changed.

    Raises
    ------
    ValueError
        If the file is none of ours, or does not fit the model; then the model has not been changed.
    OSError
        If it cannot be read.

    Examples
    --------
    See `save`.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            about = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"lora.load: {os.fspath(path)!r} is damaged: {error}") from None
    if about.get("format") != FORMAT:
        raise ValueError(f"lora.load: {os.fspath(path)!r} was not written by lora.save")
    targets = {name.rpartition(".")[0] for name in state}
    paths = add(model, int(about["rank"]), json.loads(about["alpha"]), sorted(targets))
    try:
        load_state_dict(model, state)
    except ValueError:
        merge(model)  # B is 0: the matrices stay as they are
        raise
    return paths


def _corrected(model: Module, caller: str) -> dict[str, LoRALinear]:
    """Return the corrected Linears of a model by their paths."""
    found = {name: m for name, m in model.named_modules() if isinstance(m, LoRALinear)}
    if not found:
        raise ValueError(f"lora.{caller}: the model has no corrections: lora.add(model, ...) first")
    return found


def _parameters(model: Module, caller: str) -> dict[str, Parameter]:
    layers = _corrected(model, caller)
    return {f"{path}.{name}": getattr(layer, name) for path, layer in layers.items() for name in "AB"}


def _exchange(model: Module, new: Mapping[int, Module]) -> None:
    """Put other Modules in the place of some, by their id, wherever a model holds them."""

    def exchanged(value: Any) -> Any:
        if isinstance(value, Module):
            return new.get(id(value), value)
        if isinstance(value, list):
            value[:] = map(exchanged, value)
        if isinstance(value, tuple):
            return tuple.__new__(type(value), map(exchanged, value))  # a named tuple too
        if isinstance(value, dict):
            return {key: exchanged(item) for key, item in value.items()}
        return value

    for module in list(model.modules()):
        if id(module) not in new:
            for name, value in vars(module).items():
                vars(module)[name] = exchanged(value)
