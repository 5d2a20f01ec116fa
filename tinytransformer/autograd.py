"""The engine: primitives with their rules, formulas with their kernels, and the walk back through a graph.

There are three kinds of function. A **primitive** is one array operation with a rule for the gradient of
each input. A **formula** is an equation written with primitives; its gradient follows from theirs. A
**kernel** is a fused path for one formula with a backward of its own; it runs in the formula's place
unless ``with formulas():`` says otherwise.

A rule is written once, in operations that work on arrays and on Tensors alike. On arrays it computes a
gradient; on Tensors (``create_graph=True``) it records itself, so that gradients of any order follow.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import ContextDecorator
from operator import attrgetter
from typing import Any

from .backend import backend_name, is_array, module_of, running, xp
from .tensor import Tensor

__all__ = ["Formula", "Kernel", "Primitive", "formula", "formulas", "grad", "no_grad", "primitive"]

PRIMITIVES: dict[str, Primitive] = {}
FORMULAS: dict[str, Formula] = {}


# --- switches, one set per thread -----------------------------------------------------------------------


class _Switches(threading.local):
    recording = True
    kernels = True


_switch = _Switches()


class _SwitchOff(ContextDecorator):
    name: str

    def _recreate_cm(self) -> _SwitchOff:
        return type(self)()  # a decorated function may call itself, or run in several threads

    def __enter__(self) -> None:
        self.previous = getattr(_switch, self.name)
        setattr(_switch, self.name, False)

    def __exit__(self, *_: object) -> None:
        setattr(_switch, self.name, self.previous)


class no_grad(_SwitchOff):  # noqa: N801
    """Record no graph inside a ``with`` block (or a decorated function): for evaluation and generation.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> x = tt.tensor([1.0, 2.0], requires_grad=True)
    >>> with tt.no_grad():
    ...     (x * x).requires_grad
    False
    """

    name = "recording"


class formulas(_SwitchOff):  # noqa: N801
    """Run every formula as it is written, instead of its kernel: same values, one node per primitive.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> x = tt.tensor([1.0, 2.0], requires_grad=True)
    >>> tt.softmax(x).node.operation.name
    'softmax'
    >>> with tt.formulas():
    ...     tt.softmax(x).node.operation.name
    'divide'
    """

    name = "kernels"


# --- the graph ------------------------------------------------------------------------------------------


class Node:
    """How a Tensor was made: the operation, its arguments, and what a kernel saved for its backward."""

    __slots__ = ("args", "arrays", "inputs", "kwargs", "operation", "saved", "time")

    def __init__(
        self,
        operation: Any,
        args: Sequence[Any],
        arrays: Sequence[Any],
        kwargs: dict[str, Any],
        inputs: Sequence[tuple[int, Tensor]],
        saved: Any,
    ):
        self.operation = operation
        self.args = args  # as they were given, Tensors among them
        self.arrays = arrays  # the same with arrays in the place of Tensors
        self.kwargs = kwargs
        self.inputs = inputs  # position and Tensor of each argument through which a gradient flows
        self.saved = saved
        self.time = next(Tensor.clock)  # later than that of every input: an order for the walk back

    @property
    def parents(self) -> list[Tensor]:
        """The Tensors among the arguments through which a gradient flows."""
        return [tensor for _, tensor in self.inputs]


FREED = Node("freed", (), (), {}, (), None)


def raw(value: Any) -> Any:
    """Return the array inside a Tensor; anything else as it is."""
    return value.data if isinstance(value, Tensor) else value


class Operation:
    """What primitives and kernels share: run on arrays, and record a node when a Tensor asks for it."""

    name: str

    forward: Callable[..., Any]  # on arrays: the output, or a kernel's output and what its backward needs

    def gradients(self, node: Node, g: Any, y: Any, as_tensors: bool) -> list[Any]:
        """Return the gradient for each of ``node.inputs``."""
        raise AttributeError(f"{type(self).__name__} defines no gradients()")

    def apply(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Run on the arrays inside ``args``; the result is a Tensor if one of them was."""
        arrays, inputs, tensor = [], [], None  # type: ignore[var-annotated]
        for a in args:
            if isinstance(a, Tensor):
                tensor = a
                if a.requires_grad:
                    inputs.append((len(arrays), a))
                a = a.data
            arrays.append(a)
        if tensor is not None:
            module = module_of(tensor.data)  # ids may come from the host
        else:
            module = next((module_of(a) for a in arrays if is_array(a)), xp.module)
        try:
            if module is xp.module:
                y = self.forward(*arrays, **kwargs)
            else:
                with running(module):
                    y = self.forward(*arrays, **kwargs)
        except (ValueError, TypeError, IndexError) as error:
            raise _explained(error, self.name, arrays) from None
        if y is NotImplemented:
            return y
        saved = None
        if type(y) is tuple:
            y, saved = y
        if tensor is None:
            return y
        if not is_array(y):
            y = module.asarray(y)
        out = Tensor._of(y)
        if inputs and _switch.recording and y.dtype.kind == "f":
            out.requires_grad = True
            out.node = Node(self, args, arrays, kwargs, inputs, saved)
        return out


def _explained(error: Exception, name: str, arrays: list[Any]) -> Exception:
    """Return the error again with the operation, the shapes and, for mixed backends, the fix."""
    operands = [a for a in arrays if is_array(a)]
    backends = sorted({backend_name(a) for a in operands})
    if len(backends) > 1 and isinstance(error, TypeError):
        return TypeError(f"{name}: operands live on {' and '.join(backends)}: move one with .to(...)")
    kind = next((k for k in (IndexError, TypeError) if isinstance(error, k)), ValueError)
    shapes = " and ".join(str(tuple(a.shape)) for a in operands[:4]) or "no arrays"
    said = (str(error) or repr(error)).strip().splitlines()[0]
    return kind(said if said.startswith(f"{name}:") else f"{name} on {shapes}: {said}")


def _by_position(signature_of: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Move Tensors given by keyword to their positions, where the rules expect them."""
    import inspect

    bound = inspect.signature(signature_of).bind(*args, **kwargs)
    last = max(i for i, v in enumerate(bound.arguments.values()) if isinstance(v, Tensor))
    bound.apply_defaults()
    given = list(bound.arguments.items())
    return tuple(value for _, value in given[: last + 1]), dict(given[last + 1 :])


class Primitive(Operation):
    """One array operation and its vector-Jacobian products, one rule per array argument.

    Called with arrays it returns an array; called with at least one Tensor it returns a Tensor.
    """

    def __init__(self, function: Callable):
        self.forward = function
        self.name = function.__name__.strip("_")
        self.rules: list[Callable | None] = []
        self.joint_rule: Callable | None = None
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run on arrays or Tensors; Tensors may be given by keyword too."""
        if kwargs and any(isinstance(v, Tensor) for v in kwargs.values()):
            args, kwargs = _by_position(self.forward, args, kwargs)
        return self.apply(args, kwargs)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"

    def __reduce__(self) -> str:
        return self.__name__  # a copy is this same function, and a pickle holds its name

    def vjp(self, *rules: Callable | None) -> None:
        """Declare the rules: each maps ``(upstream, output, *inputs)`` to the gradient of one input."""
        self.rules = list(rules)

    def vjp_all(self, rule: Callable) -> None:
        """Declare one rule that returns the gradients of all inputs: for any number of inputs."""
        self.joint_rule = rule

    def gradients(self, node: Node, g: Any, y: Any, as_tensors: bool) -> list[Any]:
        """Run the rules of the inputs that need a gradient."""
        args = node.args if as_tensors else node.arrays
        if self.joint_rule is not None:
            found = self.joint_rule(g, y, *args, **node.kwargs)
            if len(found) != len(args):
                raise ValueError(
                    f"the gradient rule of {self.name} returned {len(found)} gradients "
                    f"for {len(args)} arguments"
                )
            return [found[i] for i, _ in node.inputs]
        rules, kwargs, found = self.rules, node.kwargs, []
        for i, _ in node.inputs:
            rule = rules[i] if i < len(rules) else None
            if rule is None:
                raise TypeError(f"{self.name} has no gradient for argument {i}: declare one with .vjp(...)")
            found.append(rule(g, y, *args, **kwargs))
        return found


class Kernel(Operation):
    """A fused fast path for one formula: one node in the graph, with a backward derived by hand.

    ``forward(*arrays, **options)`` returns ``(output, saved)``, or NotImplemented for a case that it
    leaves to the formula. ``backward(g, y, saved, needs)`` returns one gradient per array argument;
    ``needs[i]`` tells whether argument i wants one. Second-order gradients go through the formula.
    """

    def __init__(self, of: Formula, forward: Callable, backward: Callable):
        self.formula = of
        self.name = of.name
        self.forward = forward
        self.backward = backward

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"

    def gradients(self, node: Node, g: Any, y: Any, as_tensors: bool) -> list[Any]:
        """Run the fused backward; on Tensors, differentiate the formula instead."""
        if not as_tensors:
            needs = [False] * len(node.args)
            for i, _ in node.inputs:
                needs[i] = True
            found = self.backward(g, y, node.saved, needs)
            return [found[i] for i, _ in node.inputs]
        args = list(node.args)
        for i, a in node.inputs:
            args[i] = _alias(a)
        with formulas():
            out = self.formula.function(*args, **node.kwargs)
        inputs = [args[i] for i, _ in node.inputs]
        return _walk([out], [g], inputs, create_graph=True, retain_graph=True, stop=True)


class Formula:
    """An equation of the document or of the field, written with primitives, and its kernel if it has one."""

    def __init__(self, function: Callable, source: str, equation: str):
        self.function = function
        self.name = function.__name__
        self.source = source
        self.equation = equation
        self.fused: Kernel | None = None
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__module__ = function.__module__
        self.__wrapped__ = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the kernel, or the formula where there is none or it declines."""
        if self.fused is None or not _switch.kernels:
            return self.function(*args, **kwargs)
        if kwargs and any(isinstance(v, Tensor) for v in kwargs.values()):
            args, kwargs = _by_position(self.function, args, kwargs)
        y = self.fused.apply(args, kwargs)
        if y is NotImplemented:
            return self.function(*args, **kwargs)
        return y

    def __repr__(self) -> str:
        return f"<formula {self.name}, {self.source}{', with a kernel' if self.fused else ''}>"

    def __reduce__(self) -> str:
        return self.__name__  # a copy is this same function, and a pickle holds its name

    def kernel(self, pair: type) -> Kernel:
        """Declare the fused path: a class with the static methods ``forward`` and ``backward``."""
        self.fused = Kernel(self, pair.forward, pair.backward)  # type: ignore[attr-defined]
        return self.fused


def primitive(function: Callable) -> Primitive:
    """Make an array function a primitive; declare its rules with ``.vjp`` right under it.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> @tt.primitive
    ... def cube(x):
    ...     return x * x * x
    >>> cube.vjp(lambda g, y, x: g * 3 * x * x)
    >>> tt.gradcheck(cube, [np.array([1.0, -2.0])], order=2)
    True
    """
    made = Primitive(function)
    if function.__module__.startswith("tinytransformer.ops"):
        PRIMITIVES[made.name] = made
    return made


def formula(source: str, equation: str) -> Callable[[Callable], Formula]:
    r"""Name the equation a function implements: where it comes from, and its LaTeX.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> @tt.formula("ReLU squared, So et al. 2021", r"\max(x, 0)^2")
    ... def squared_relu(x):
    ...     return tt.relu(x) ** 2
    >>> float(squared_relu(tt.tensor(3.0)))
    9.0
    """

    def named(function: Callable) -> Formula:
        made = Formula(function, source, equation)
        if function.__module__.startswith("tinytransformer.formulas"):
            FORMULAS[made.name] = made
        return made

    return named


@primitive
def _alias(x):
    return x


_alias.vjp(lambda g, y, x: g)


# --- the walk back --------------------------------------------------------------------------------------


def ordered(outputs: Iterable[Tensor], stop: Set[Tensor] = frozenset()) -> list[Tensor]:
    """Return the Tensors behind ``outputs`` that require a gradient, each after all it was made from.

    A graph of any depth fits: nothing recurses. Tensors in ``stop`` are listed but not looked behind.
    """
    found = {t for t in outputs if t.requires_grad}
    left = list(found)
    leaves, made = list[Tensor](), list[Tensor]()
    while left:
        tensor = left.pop()
        node = tensor.node
        if node is FREED:
            raise RuntimeError(
                "this graph was freed by an earlier backward(): compute the outputs again, "
                "or pass retain_graph=True the first time"
            )
        (leaves if node is None else made).append(tensor)
        if node is None or tensor in stop:
            continue
        for _, parent in node.inputs:
            if parent not in found:
                found.add(parent)
                left.append(parent)
    made.sort(key=attrgetter("node.time"))
    return leaves + made


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """Sum a gradient over the axes along which an input of this shape was broadcast."""
    extra = g.ndim - len(shape)
    axes = (*range(extra), *(extra + i for i, n in enumerate(shape) if n == 1 != g.shape[extra + i]))
    return g.sum(axis=axes).reshape(shape)


def _walk(
    outputs: Sequence[Tensor],
    seeds: Sequence[Any],
    inputs: Sequence[Tensor] | None,
    create_graph: bool,
    retain_graph: bool,
    stop: bool = False,
) -> list[Any]:
    """Push gradients from outputs to ``inputs``, or with None to every leaf's ``.grad``.

    Each Tensor is reached once all that was made from it has been: its gradient is then complete.
    """
    targets = set(inputs or ())
    order = ordered(outputs, targets if stop else frozenset())
    needed: set[Tensor] | None = None  # with inputs: the Tensors on a path to one
    passed: set[Tensor] = set()  # and those of them that have one behind them
    if inputs is not None:
        needed = set(targets)
        for t in order:
            if t.node is not None and any(p in needed for _, p in t.node.inputs):
                needed.add(t)
                passed.add(t)
    # gradients that are still being added up: a sum that was made here may be added to in place
    pending: dict[Tensor, Any] = {}
    ours: set[int] = set()  # an id keeps no Tensor in memory
    for t, seed in zip(outputs, seeds, strict=True):
        g = seed if create_graph else raw(seed)
        pending[t] = pending[t] + g if t in pending else g
    found: dict[Tensor, Any] = {}
    while order:
        t = order.pop()
        g = pending.pop(t, None)
        if inputs is not None:
            if t in targets:
                found[t] = g
                if stop:
                    continue
            if t not in passed:
                continue  # no input lies behind: this part of the graph is left as it is
        node = t.node
        if node is not None and not retain_graph:
            t.node = FREED  # as soon as the last use is over, its memory can go
        if g is None:
            continue
        if node is None:
            accumulate(t, g)
            continue
        if Tensor.last_change > node.time:
            _refuse_changed(node, t)
        module = module_of(t.data)
        y = t if create_graph else t.data
        if module is xp.module:
            contributions = node.operation.gradients(node, g, y, create_graph)
        else:
            with running(module):
                contributions = node.operation.gradients(node, g, y, create_graph)
        for (_, parent), g in zip(node.inputs, contributions):  # noqa: B905  strict takes time
            if g is None or (needed is not None and parent not in needed):
                continue
            like = parent.data
            if g.shape != like.shape:
                g = _fit(g, like.shape, node.operation.name)
            if g.dtype is not like.dtype:
                g = g.astype(like.dtype)
            if parent not in pending:
                pending[parent] = g
            elif id(parent) in ours:
                pending[parent] += g
            else:
                pending[parent] = pending[parent] + g
                if not create_graph:
                    ours.add(id(parent))
    return [found.get(t) for t in inputs or ()]


def _refuse_changed(node: Node, output: Tensor) -> None:
    for a in (*node.args, output):
        if isinstance(a, Tensor) and a.changed > node.time:
            what = "the output" if a is output else "an input"
            raise RuntimeError(
                f"{what} of {node.operation.name}, shape {a.shape}, was changed in place after it was used: "
                "call backward() before the change, or compute the outputs again"
            )


def _fit(g: Any, shape: tuple[int, ...], name: str) -> Any:
    aligned = (1,) * (g.ndim - len(shape)) + tuple(shape)
    if len(aligned) != g.ndim or any(n not in (1, m) for n, m in zip(aligned, g.shape, strict=True)):
        raise ValueError(
            f"the gradient rule of {name} returned shape {g.shape} for an input of shape {shape}"
        )
    return unbroadcast(g, shape)


def accumulate(leaf: Tensor, g: Any) -> None:
    """Add a gradient to ``leaf.grad``."""
    if leaf.grad is None:
        # a copy, for a rule may hand one array to two inputs
        leaf.grad = Tensor._of(module_of(leaf.data).array(raw(g)))
    else:
        leaf.grad.data += raw(g)


def _seed(output: Tensor, gradient: Any, where: str) -> Any:
    if not isinstance(output, Tensor) or not output.requires_grad:
        raise RuntimeError(f"{where}: the output does not depend on a Tensor with requires_grad=True")
    if gradient is None:
        if output.size != 1:
            raise RuntimeError(
                f"{where}: an output of shape {output.shape} needs a gradient of that shape; "
                "only a single number has the gradient 1 by default"
            )
        gradient = module_of(output.data).ones_like(output.data)
    array = raw(gradient)
    if not is_array(array):
        array = module_of(output.data).asarray(array)
    if backend_name(array) != output.backend:
        place = backend_name(array)
        raise TypeError(f"{where}: the gradient lives on {place}, the output on {output.backend}")
    if array.shape != output.shape:
        raise ValueError(f"{where}: gradient of shape {array.shape} for an output of shape {output.shape}")
    if isinstance(gradient, Tensor) and gradient.data.dtype == output.data.dtype:
        return gradient
    return Tensor._of(array.astype(output.data.dtype, copy=False))


def backward(output: Tensor, gradient: Any = None, retain_graph: bool = False) -> None:
    """Add to ``.grad`` of every leaf behind ``output``. See `Tensor.backward`."""
    _walk([output], [_seed(output, gradient, "backward()")], None, False, retain_graph)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> Any:
    """Gradient of ``outputs`` with respect to ``inputs``, returned rather than stored.

    Computes ``sum_k <grad_outputs[k], d outputs[k] / d inputs[i]>`` for each i.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensors
        Inputs may be leaves or Tensors inside the graph.
    grad_outputs : array, Tensor, or sequence of them, optional
        The cotangents, of the shapes of the outputs; 1 for a single number by default.
    create_graph : bool
        Record the gradient itself, so that it can be differentiated again.
    retain_graph : bool, optional
        Keep the graph for another walk; the same as ``create_graph`` by default.

    Returns
    -------
    Tensor or tuple of Tensors
        One for each input, in the form ``inputs`` came in; zeros for an input that has no influence.

    Raises
    ------
    RuntimeError
        If an output needs no gradient or the graph was freed.
    ValueError
        If a cotangent has another shape than its output.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> x = tt.tensor(2.0, requires_grad=True)
    >>> dy = tt.grad(x**3, x, create_graph=True)
    >>> float(dy), float(tt.grad(dy, x))
    (12.0, 12.0)
    """
    single = isinstance(inputs, Tensor)
    many_inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    many_outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    for i, t in enumerate(many_inputs):
        if not isinstance(t, Tensor) or not t.requires_grad:
            raise RuntimeError(f"grad(): input {i} is not a Tensor with requires_grad=True")
    if grad_outputs is None:
        grad_outputs = [None] * len(many_outputs)
    elif isinstance(outputs, Tensor):
        grad_outputs = [grad_outputs]
    seeds = [_seed(y, g, "grad()") for y, g in zip(many_outputs, grad_outputs, strict=True)]
    retain = create_graph if retain_graph is None else retain_graph
    found = _walk(many_outputs, seeds, many_inputs, create_graph and _switch.recording, retain)
    results = []
    for t, g in zip(many_inputs, found, strict=True):
        if g is None:
            g = module_of(t.data).zeros_like(t.data)
        # a copy: rules may hand one array to two inputs, and may hand on a read-only view
        results.append(g if isinstance(g, Tensor) else Tensor._of(module_of(t.data).array(g)))
    return results[0] if single else tuple(results)
