"""Gradient checkpointing: a block's activations are computed a second time instead of being kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy

from ..autograd import Node, Operation, _switch, _walk, raw
from ..tensor import Tensor
from .module import Module, ModuleList

__all__ = ["checkpoint", "gradient_checkpointing"]


class Checkpoint(Operation):
    """A block as one node of the graph, computed again when a gradient walks through it."""

    name = "checkpoint"

    def __init__(self, again: Callable[[], Tensor]):
        self.again = again  # calls the block, with the switches and random numbers of the first time

    def gradients(self, node: Node, g: Any, y: Any, as_tensors: bool) -> list[Any]:
        """Compute the block again, now with its graph, and walk back to its inputs."""
        out = self.again()
        # where the arrays are on the host, look whether they are the same; rounding may differ
        if out.backend == "numpy" and not numpy.allclose(out.data, raw(y), 1e-3, 1e-3, equal_nan=True):
            raise RuntimeError(
                "checkpoint: the block returned other values the second time: hand it the Module or the "
                "generator that draws its random numbers, and let it change nothing that it depends on"
            )
        return _walk([out], [g], node.parents, as_tensors, as_tensors, stop=True)


def checkpoint(block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    r"""Call a block without keeping its activations; the backward pass computes them again.

    .. math:: y = f(x), \qquad \text{kept: } x \text{ alone}

    The values and gradients are the same, bit for bit; only what is used both in the block and outside adds
    up its gradient in another order. A stack of L blocks keeps L inputs and the activations of one block,
    instead of those of all, and takes one more forward pass.

    Parameters
    ----------
    block : Module or callable
        It returns one Tensor. Its Parameters, wherever they are in it, get their gradients. It may draw
        random numbers, as dropout does, from generators that Modules in it hold, or that it is given: they
        go back to where they were. It should change nothing else, for it runs twice.
    *args, **kwargs
        What the block is called with.

    Returns
    -------
    Tensor
        What the block returns. With ``create_graph=True`` its gradient can be differentiated again; the
        activations are then kept after all.

    Raises
    ------
    TypeError
        If the block returns several Tensors.
    RuntimeError
        In the backward pass, if the block returned other values the second time (looked at on the CPU only).

    Notes
    -----
    Source: Chen, Xu, Zhang and Guestrin, Training Deep Nets with Sublinear Memory Cost, 2016.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> layer = tt.nn.TransformerEncoderLayer(8, 2, 32, rng=0)
    >>> x = tt.ones((3, 5, 8), requires_grad=True)
    >>> tt.checkpoint(layer, x).sum().backward()
    >>> x.grad.shape, layer.norm1.weight.grad.shape
    ((3, 5, 8), (8,))
    """
    if not _switch.recording:
        return block(*args, **kwargs)
    generators = list({id(g): g for g in _generators(block, [*args, *kwargs.values()])}.values())
    states = [g.bit_generator.state for g in generators]
    kernels = _switch.kernels
    start = next(Tensor.clock)
    y = block(*args, **kwargs)
    if isinstance(y, (tuple, list, dict)):
        name = getattr(block, "__name__", type(block).__name__)
        raise TypeError(
            f"checkpoint: {name} returned a {type(y).__name__}, and one Tensor is needed: "
            "checkpoint the parts of it that return one"
        )
    if not isinstance(y, Tensor) or y.node is None or y.node.time < start:
        return y  # it has no graph, or none that was made here

    def again() -> Tensor:
        with _as_before(generators, states, kernels):
            return block(*args, **kwargs)

    inputs = _inputs(y, start)
    out = Tensor._of(y.data)
    out.requires_grad = True
    out.node = Node(Checkpoint(again), inputs, [t.data for t in inputs], {}, list(enumerate(inputs)), None)
    return out


def _inputs(y: Tensor, start: int) -> list[Tensor]:
    """Return the Tensors that the graph of y begins with, if it begins at this time of the clock.

    These are arguments of the block, its Parameters, and whatever else through which a gradient flows.
    """
    inputs: dict[int, Tensor] = {}
    seen, left = {id(y)}, [y]
    while left:
        for parent in left.pop().node.parents:
            if parent.node is None or parent.node.time < start:
                inputs[id(parent)] = parent
            elif id(parent) not in seen:
                seen.add(id(parent))
                left.append(parent)
    return list(inputs.values())


def _generators(block: Any, values: list[Any]) -> Iterator[numpy.random.Generator]:
    """Yield the random generators of a block, of what a function has around it, and of these values."""
    around = [cell.cell_contents for cell in getattr(block, "__closure__", None) or ()]
    for value in [block, getattr(block, "__self__", None), *around, *values]:
        held = (
            [v for m in value.modules() for v in vars(m).values()] if isinstance(value, Module) else [value]
        )
        yield from (v for v in held if isinstance(v, numpy.random.Generator))


@contextmanager
def _as_before(
    generators: Sequence[numpy.random.Generator], states: Sequence[Any], kernels: bool
) -> Iterator[None]:
    """Set random generators and switches to what they were; in the end, back to what they are."""
    now = [g.bit_generator.state for g in generators]
    switches = _switch.recording, _switch.kernels
    try:
        _switch.recording, _switch.kernels = True, kernels
        for g, state in zip(generators, states, strict=True):
            g.bit_generator.state = state
        yield
    finally:
        _switch.recording, _switch.kernels = switches
        for g, state in zip(generators, now, strict=True):
            g.bit_generator.state = state


def gradient_checkpointing(model: Module, on: bool = True) -> None:
    """Switch a model to `checkpoint` for each layer of its stacks, or back.

    Parameters
    ----------
    model : Module
        Every item of every `ModuleList` in it, outside other items, is checkpointed.
    on : bool
        False: the activations are kept again.

    Raises
    ------
    ValueError
        If the model has no stack of layers.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> config = tt.models.GPTConfig(vocab_size=11, context_length=5, d_model=8, num_heads=2)
    >>> model = tt.models.GPT(config)
    >>> tt.nn.gradient_checkpointing(model)
    >>> model.loss([[3, 1, 4]], [[1, 4, 1]]).backward()
    """
    layers = [layer for module in model.modules() if type(module) is ModuleList for layer in module]
    inside = {id(m) for layer in layers for m in layer.modules() if m is not layer}
    if not layers:
        raise ValueError(
            f"gradient_checkpointing: {type(model).__name__} has no layers in a ModuleList: "
            "call tt.checkpoint where its blocks are called"
        )
    for layer in layers:
        layer.checkpointed = on and id(layer) not in inside
