"""Module: parameters and the function they belong to, in a tree that can be walked, saved and printed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any

import numpy

from ..autograd import raw
from ..backend import module_of, move, to_numpy
from ..tensor import Tensor

__all__ = ["Module", "ModuleList", "Parameter", "Sequential"]


class Parameter(Tensor):
    """A Tensor that training changes: a `Module` lists it, an optimizer updates it in place.

    Parameters
    ----------
    data : array_like or Tensor
        The initial values, of a floating dtype. An array is not copied; Python floats become float32.
    dtype : dtype, optional
        Convert to this dtype.

    Raises
    ------
    TypeError
        If the values are not floating-point numbers.

    Examples
    --------
    >>> from tinytransformer.nn import Parameter
    >>> Parameter([1.0, 2.0]).requires_grad
    True
    """

    __slots__ = ()

    def __init__(self, data: Any, dtype: Any = None):
        super().__init__(data, dtype, requires_grad=True)


def _members(value: Any, name: str = "") -> Iterator[tuple[str, Parameter | Module]]:
    """Yield the Parameters and Modules a value holds, without looking inside these Modules."""
    if isinstance(value, (Parameter, Module)):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _members(item, _path(name, key))


def _path(prefix: str, name: Any) -> str:
    return f"{prefix}.{name}" if prefix else str(name)


class Module:
    """A function with parameters: subclasses assign them as attributes and define ``forward``.

    Parameters and Modules are found in attributes, and in lists, tuples and dicts that are attributes, in
    the order in which they were assigned. One that is reached twice is tied: it is listed once, under its
    first name, and there is one array to train, to move and to save.

    Attributes
    ----------
    training : bool
        True after `train` and at first, False after `eval`; `Dropout` looks at it.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> class Scale(tt.nn.Module):
    ...     def __init__(self, d):
    ...         self.gain = tt.nn.Parameter([2.0] * d)
    ...
    ...     def forward(self, x):
    ...         return x * self.gain
    >>> scale = Scale(3)
    >>> scale(tt.ones((3,))).tolist()
    [2.0, 2.0, 2.0]
    >>> list(scale.state_dict())
    ['gain']
    """

    training = True
    checkpointed = False  # see `gradient_checkpointing`
    forward: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``forward``."""
        if self.checkpointed:
            from .checkpointing import checkpoint

            return checkpoint(self.forward, *args, **kwargs)
        return self.forward(*args, **kwargs)

    # --- the tree ---

    def _members(self) -> Iterator[tuple[str, Parameter | Module]]:
        for name, value in vars(self).items():
            yield from _members(value, name)

    def _walk(self, prefix: str, seen: set[int]) -> Iterator[tuple[str, Parameter | Module]]:
        """Yield this Module and everything below it, each once, parents first."""
        seen.add(id(self))
        yield prefix, self
        for name, member in self._members():
            if id(member) in seen:
                continue
            if isinstance(member, Module):
                yield from member._walk(_path(prefix, name), seen)
            else:
                seen.add(id(member))
                yield _path(prefix, name), member

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Yield the name and the Parameter, each Parameter once, in the order of definition.

        Examples
        --------
        >>> import tinytransformer as tt
        >>> [(name, p.shape) for name, p in tt.nn.Linear(2, 3).named_parameters()]
        [('weight', (2, 3)), ('bias', (3,))]
        """
        return ((name, p) for name, p in self._walk("", set()) if isinstance(p, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Yield each Parameter once, in the order of definition."""
        return (p for _, p in self.named_parameters())

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """Yield the name and the Module, this one first with the name ``""``, each once."""
        return ((name, m) for name, m in self._walk("", set()) if isinstance(m, Module))

    def modules(self) -> Iterator[Module]:
        """Yield this Module and each one below it, once."""
        return (m for _, m in self.named_modules())

    def num_parameters(self) -> int:
        """Count the entries of all Parameters; tied ones count once.

        Examples
        --------
        >>> import tinytransformer as tt
        >>> tt.nn.Linear(2, 3).num_parameters()
        9
        """
        return sum(p.size for p in self.parameters())

    # --- what happens to the whole tree ---

    def train(self, mode: bool = True) -> Module:
        """Switch to training (dropout on) or, with False, to evaluation; return the Module."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Module:
        """Switch to evaluation: dropout off. Return the Module."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        """Let every Parameter be trained or, with False, freeze it; return the Module.

        A frozen Parameter gets no gradient, and what depends on frozen ones alone records no graph.

        Examples
        --------
        >>> import tinytransformer as tt
        >>> tt.nn.Linear(2, 3).requires_grad_(False)(tt.ones((5, 2))).requires_grad
        False
        """
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients: ``grad`` of each Parameter becomes None."""
        for p in self.parameters():
            p.grad = None

    def to(self, backend: str | None = None, dtype: Any = None) -> Module:
        """Move every Parameter, and its gradient, to a backend or a floating dtype; return the Module.

        The Parameters stay the same objects, so tied ones stay tied and an optimizer keeps up.

        Parameters
        ----------
        backend : str, optional
            ``"numpy"`` or ``"cupy"``.
        dtype : dtype, optional
            ``"float32"`` or ``"float64"``.

        Raises
        ------
        BackendError
            If the backend is unknown, not installed, or has no device.
        TypeError
            If the dtype is not floating.

        Examples
        --------
        >>> import tinytransformer as tt
        >>> tt.nn.Linear(2, 3).to(dtype="float64").weight.dtype
        dtype('float64')
        """
        if dtype is not None and numpy.dtype(dtype).kind != "f":
            raise TypeError(f"{type(self).__name__}.to: dtype must be floating, not {numpy.dtype(dtype)}")
        for p in self.parameters():
            for t in (p, p.grad):
                if t is None:
                    continue
                array = t.data if backend is None else move(t.data, backend)
                array = array if dtype is None else array.astype(dtype, copy=False)
                if array is not t.data:
                    t.data = array
                    t.mark_changed()
        return self

    # --- save and load ---

    def state_dict(self) -> dict[str, numpy.ndarray]:
        """Copy every Parameter to the host, under its name.

        Raises
        ------
        ValueError
            If two Parameters have one name, because the keys of a dict read alike.
        """
        state: dict[str, numpy.ndarray] = {}
        for name, p in self.named_parameters():
            if name in state:
                raise ValueError(
                    f"{type(self).__name__}: two parameters have the name {name!r}: rename a key"
                )
            state[name] = to_numpy(p.data).copy()
        return state

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy values into the Parameters, which keep their dtype and backend.

        Parameters
        ----------
        state : mapping of str to array
            As `state_dict` returns it.
        strict : bool
            Refuse missing and unexpected names; with False, load what is there. Shapes must always agree.

        Raises
        ------
        ValueError
            With every missing, unexpected and misshapen name at once; then nothing has been changed.

        Examples
        --------
        >>> import numpy as np, tinytransformer as tt
        >>> tt.nn.Linear(2, 3).load_state_dict({"weight": np.ones((3, 2)), "gain": np.ones(3)})
        Traceback (most recent call last):
        ValueError: Linear: missing bias; unexpected gain; weight has shape (3, 2) instead of (2, 3)
        """
        parameters = dict(self.named_parameters())
        shapes = {name: p.shape for name, p in parameters.items()}
        for name, array in fitting(type(self).__name__, shapes, state, strict).items():
            p = parameters[name]
            p.data[...] = module_of(p.data).asarray(array.astype(p.dtype, copy=False))
            p.mark_changed()

    # --- print ---

    def extra_repr(self) -> str:
        """Return what stands in the parentheses of this Module's line in ``repr``."""
        return ""

    def __repr__(self) -> str:
        return self._tree("", {id(p): name for name, p in self.named_parameters()}, set())

    def _tree(self, path: str, names: dict[int, str], seen: set[int]) -> str:
        """Return a line for this Module and, indented, its members; equal neighbours share one."""
        seen.add(id(self))
        members = [(name, member) for name, member in self._members() if id(member) not in seen]
        facts = self.extra_repr()
        line = type(self).__name__ + (f"({facts})" if facts else "")
        if count := self.num_parameters():
            line += f", {count:,} parameters"

        def tie(name: str, p: Any) -> str:
            return "" if names[id(p)] == _path(path, name) else f"tied to {names[id(p)]}"

        if not any(isinstance(member, Module) for _, member in members):  # a leaf: all on one line
            return line + "".join(f", {name} {tie(name, p)}" for name, p in members if tie(name, p))
        parts = []
        for name, member in members:
            if isinstance(member, Module):
                text = member._tree(_path(path, name), names, seen)
            else:
                text = ", ".join(filter(None, [f"Parameter{member.shape}", tie(name, member)]))
            parts.append((name, text))
        for text, equal in groupby(parts, key=lambda part: part[1]):
            run = [name for name, _ in equal]
            label = run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}: {len(run)} ×"
            line += f"\n  {label}{':' if len(run) == 1 else ''} " + text.replace("\n", "\n  ")
        return line


def fitting(
    owner: str, shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Any], strict: bool = True
) -> dict[str, numpy.ndarray]:
    """Return the arrays of a state as host arrays, in the order of ``shapes``, if all of them fit.

    Raises
    ------
    ValueError
        With every missing, unexpected and misshapen name.
    """
    arrays = {name: numpy.asarray(to_numpy(raw(state[name]))) for name in shapes if name in state}
    problems = []
    if strict:
        missing = [name for name in shapes if name not in state]
        unexpected = [str(name) for name in state if name not in shapes]
        problems += [f"missing {', '.join(missing)}"] if missing else []
        problems += [f"unexpected {', '.join(unexpected)}"] if unexpected else []
    for name, array in arrays.items():
        if array.shape != tuple(shapes[name]):
            problems.append(f"{name} has shape {array.shape} instead of {tuple(shapes[name])}")
        elif array.dtype.kind not in "biuf":
            problems.append(f"{name} holds {array.dtype} instead of numbers")
    if problems:
        raise ValueError(f"{owner}: {'; '.join(problems)}")
    return arrays


class ModuleList(Module):
    """A list of Modules; their names are their places in it.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> layers = tt.nn.ModuleList([tt.nn.LayerNorm(5), tt.nn.LayerNorm(7)])
    >>> [name for name, _ in layers.named_parameters()]
    ['0.weight', '0.bias', '1.weight', '1.bias']
    """

    def __init__(self, modules: Iterable[Any] = ()):
        self._items = list(modules)

    def _members(self) -> Iterator[tuple[str, Parameter | Module]]:
        return _members(self._items)

    def append(self, module: Any) -> None:
        """Add a Module at the end."""
        self._items.append(module)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._items)

    def __getitem__(self, index: Any) -> Any:
        return self._items[index]


class Sequential(ModuleList):
    """Modules and functions, each applied to what the one before it returned.

    Examples
    --------
    >>> import tinytransformer as tt
    >>> net = tt.nn.Sequential(tt.nn.Linear(2, 3), tt.relu, tt.nn.Linear(3, 1))
    >>> net(tt.ones((5, 2))).shape
    (5, 1)
    """

    def __init__(self, *modules: Any):
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        """Apply them in order."""
        for module in self:
            x = module(x)
        return x
