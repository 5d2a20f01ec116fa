"""One table of cases for all primitives: how to call each, with which inputs, and what NumPy says.

A ``Case`` serves the forward tests, the gradient checks and the mutation tests. Tables for formulas and
kernels have the same form and are added to the same tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

import tinytransformer as tt


class Pick:
    """Makes the choices of a case: of hypothesis, or of a seed."""

    def __init__(self, integer: Callable[[int, int], int]):
        self.integer = integer  # (low, high) -> an integer between them, both included
        self.rng = np.random.default_rng(integer(0, 2**31))

    @classmethod
    def seeded(cls, seed: int) -> Pick:
        """Choices that depend on a seed alone."""
        rng = np.random.default_rng(seed)
        draws = iter([rng.integers(2**31), seed])  # seeds in a row make all first choices in turn
        return cls(lambda low, high: low + int(next(draws, rng.integers(2**31))) % (high - low + 1))

    @classmethod
    def drawn(cls, data: Any) -> Pick:
        """Choices made by hypothesis, from ``data=st.data()``."""
        return cls(lambda low, high: data.draw(st.integers(low, high)))

    def of(self, *options: Any) -> Any:
        """Return one of the options."""
        return options[self.integer(0, len(options) - 1)]

    def shape(self, least: int = 1, most: int = 3, special: tuple[int, ...] = (0, 1)) -> tuple[int, ...]:
        """Return pairwise different primes; now and then one of the lengths is special: 0 or 1."""
        lengths = self.rng.permutation([2, 3, 5])[: self.integer(least, most)].tolist()
        if lengths and special and self.integer(0, 2) == 0:
            lengths[self.integer(0, len(lengths) - 1)] = self.of(*special)
        return tuple(lengths)

    def broadcast(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return a shape that broadcasts to the given one."""
        start = self.integer(0, len(shape))
        return tuple(1 if n and self.integer(0, 2) == 0 else n for n in shape[start:])

    def axis(self, ndim: int, tuples: bool = False) -> Any:
        """Return an axis, negative or not, None, or a tuple of axes."""
        axis = self.integer(-ndim, ndim - 1)
        if tuples and self.integer(0, 2) == 0:
            others = [a for a in range(ndim) if a != axis % ndim]
            return (axis, *others[: self.integer(0, len(others))])
        return None if self.integer(0, 3) == 0 else axis

    def layout(self, x: np.ndarray) -> np.ndarray:
        """Return the same numbers, in one of the ways NumPy may store them."""
        x = np.asarray(x)
        kind = self.integer(0, 3) if x.ndim else 0
        if kind == 1:
            return np.asfortranarray(x)
        if kind == 2:  # every second entry of a larger array
            return np.repeat(x, 2, axis=-1)[..., ::2]
        if kind == 3:
            return np.ascontiguousarray(x[::-1])[::-1]
        return x

    def numbers(self, shape: tuple[int, ...], low: float = 0.2, high: float = 2.0) -> np.ndarray:
        """Return numbers of both signs, away from 0."""
        return self.layout(self.rng.uniform(low, high, shape) * self.rng.choice([-1.0, 1.0], shape))

    def positive(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return positive numbers, away from 0."""
        return self.layout(self.rng.uniform(0.3, 2.0, shape))

    def apart(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return numbers no two of which are closer than 0.1, and none closer to 0, 1 or -1 than 0.05."""
        n = math.prod(shape)
        grid = 0.2 * (np.arange(n) - n // 2) + 0.1
        return self.layout(self.rng.permutation(grid + self.rng.uniform(-0.04, 0.04, n)).reshape(shape))


@dataclass(frozen=True)
class Case:
    """One way to call an operation.

    ``inputs(pick)`` returns the arguments for ``function`` and ``oracle``. Floating arrays and floats among
    them are checked for their gradient; all else (axes, shapes, index arrays) is constant.
    """

    name: str  # of the primitive, formula or composite
    function: Callable  # of arrays or Tensors
    inputs: Callable[[Pick], Sequence[Any]]
    oracle: Callable  # of NumPy arrays: the right values, and the right dtype
    about: str = ""  # what is special
    order: int = 2  # up to which gradients exist: 1 at kinks, 0 where values are not finite
    integers: bool = True  # whether integer arrays are allowed

    def __str__(self) -> str:
        return f"{self.name} {self.about}".strip()


@dataclass(frozen=True)
class Convention:
    """The gradient at a point where there is no derivative, for the cotangent 1, 2, 3, ..."""

    name: str
    function: Callable
    inputs: Sequence[Any]
    gradients: Sequence[Any]  # of the floating inputs

    def check(self) -> None:
        """Compare the gradient with what was agreed."""
        tensors = [
            tt.tensor(x, np.float64, requires_grad=True) if isinstance(x, list) else x for x in self.inputs
        ]
        y = self.function(*tensors)
        cotangent = np.arange(1.0, y.size + 1).reshape(y.shape)
        found = tt.grad(y, [t for t in tensors if isinstance(t, tt.Tensor)], cotangent)
        for gradient, right in zip(found, self.gradients, strict=True):
            np.testing.assert_array_equal(gradient.numpy(), right)


CASES: list[Case] = []


def case(
    name: str, inputs: Callable, oracle: Callable, about: str = "", function: Any = None, **more: Any
) -> None:
    function = function or (lambda *arguments: getattr(tt, name)(*arguments))
    CASES.append(Case(name, function, inputs, oracle, about, **more))


# --- elementwise ----------------------------------------------------------------------------------------


def _erf(x):
    return np.vectorize(math.erf, otypes=[np.result_type(x, np.float32)])(x)


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def one(pick):
    return [pick.numbers(pick.shape(0))]


def one_positive(pick):
    return [pick.positive(pick.shape(0))]


def two(pick, first="numbers", second="numbers"):
    whole = pick.shape(0)
    shapes = [whole, pick.broadcast(whole)]
    if pick.integer(0, 1):
        shapes.reverse()
    return [getattr(pick, first)(shapes[0]), getattr(pick, second)(shapes[1])]


def two_apart(pick):
    """Two arrays that broadcast and have no entry in common, nor two that are close."""
    both = pick.apart((2, *pick.shape(1)))
    small = tuple(slice(0, pick.of(1, n, n)) for n in both.shape[1:])
    x1, x2 = both[0], both[1][small]
    return [x1, x2] if pick.integer(0, 1) else [x2, x1]


def two_tied(pick):
    x1, x2 = pick.apart((2, 3, 5))
    return [x1, np.where(pick.rng.random((3, 5)) < 0.5, x1, x2)]


for _name in ("abs", "cos", "exp", "negative", "sign", "sin", "tanh"):
    case(_name, one, getattr(np, _name))
for _name in ("log", "log1p", "sqrt"):
    case(_name, one_positive, getattr(np, _name))
case("abs", lambda pick: [pick.numbers((2, 3)) * [[0], [1]]], np.abs, "at 0", order=1)
case("erf", one, _erf)
case("sigmoid", one, _sigmoid)
case("relu", one, lambda x: np.maximum(x, 0))
for _name in ("add", "subtract", "multiply", "divide"):
    case(_name, two, getattr(np, _name))
    case(_name, lambda pick: [*one(pick), 3], getattr(np, _name), "of a tensor and a number")
    case(_name, lambda pick: [3, *one(pick)], getattr(np, _name), "of a number and a tensor")
case("multiply", one, lambda x: x * x, "of a tensor with itself", lambda x: tt.multiply(x, x))
case("subtract", one, lambda x: x - np.exp(x), "of a tensor from itself", lambda x: tt.subtract(x, tt.exp(x)))
case("power", lambda pick: two(pick, "positive"), np.power, integers=False)
case(
    "power",
    lambda pick: [pick.numbers(pick.shape()) * pick.of(0, 1, 1), pick.integer(0, 3)],
    lambda x, n: x**n,
    "of any base, with a whole exponent",
)
case(
    "power",
    lambda pick: [pick.numbers((2, 3)), pick.rng.integers(-2, 4, pick.of((2, 3), (3,)))],
    np.power,
    "with whole exponents in an array",
    integers=False,
)
case(
    "power",
    lambda pick: [
        pick.numbers((4, 3)) * [[0], [1], [1], [0]],
        pick.rng.integers(0, 4, pick.of((4, 3), (3,))),
    ],
    np.power,
    "of a base that may be 0",
)
case("power", lambda pick: [0, pick.positive((2, 3))], np.power, "of 0")
case("power", one, lambda x: 0.5**x, "of a constant fraction", lambda x: 0.5**x, integers=False)
case(
    "power",
    lambda pick: [np.arange(3), pick.positive((2, 3))],
    np.power,
    "of a constant base, also 0",
    integers=False,
)
case(
    "power",
    lambda pick: [pick.positive((2, 3)), pick.numbers((2, 3)) * (pick.rng.random((2, 3)) < 0.5)],
    np.power,
    "with exponents that may be 0",
    integers=False,
)
case("power", lambda pick: [3, *one(pick)], lambda a, x: a**x, "of a number", integers=False)
for _name in ("maximum", "minimum"):
    case(_name, two_apart, getattr(np, _name))
    case(_name, two_tied, getattr(np, _name), "with ties", order=1)
    case(_name, lambda pick: [pick.apart(pick.shape()), 1], getattr(np, _name), "of a tensor and a number")


def bounded(pick):
    low, high = pick.of((-1, 1), (None, 1), (-1, None), (0, 1))
    return [pick.apart(pick.shape(1)), low, high]


case("clip", bounded, np.clip)


def chosen(pick):
    x, y = two(pick)
    shape = np.broadcast_shapes(x.shape, y.shape)
    return [np.asarray(pick.rng.random(pick.of(shape, shape[1:])) < 0.5), x, y]


case("where", chosen, np.where)
case("where", lambda pick: [pick.rng.random((2, 3)) < 0.5, pick.numbers((3,)), 2], np.where, "with a number")
for _dtype in (np.float64, np.int32):
    case(
        "astype",
        lambda pick, to=_dtype: [*one(pick), to],
        lambda x, to: x.astype(to),
        f"to {_dtype.__name__}",
    )


# --- reductions -----------------------------------------------------------------------------------------


def reduced(pick, values="numbers", shape=(), most=3):
    """An array, an axis, tuple of axes or None, and keepdims. An axis that stays may have length 0 or 1."""
    shape = list(shape or pick.shape(1, most, special=()))
    axis = pick.axis(len(shape), tuples=True)
    over = range(len(shape)) if axis is None else [a % len(shape) for a in np.atleast_1d(axis)]
    stays = [a for a in range(len(shape)) if a not in over]
    if stays and pick.integer(0, 3) == 0:
        shape[pick.of(*stays)] = pick.of(0, 1)
    return [getattr(pick, values)(tuple(shape)), axis, pick.of(False, True)]


def with_zeros(pick):
    x, axis, keepdims = reduced(pick)
    return [np.where(pick.rng.random(x.shape) < pick.of(0.1, 0.3, 1.0), 0.0, x), axis, keepdims]


def tied(pick):
    twice = np.repeat(pick.apart((3, 5)), 2, axis=0)
    return [np.ascontiguousarray(twice), 0, pick.of(False, True)]


def deviation(pick):
    x, axis, keepdims = reduced(pick)
    return [x, axis, pick.of(0, 1), keepdims]


def _reduction(name):
    return lambda x, axis, keepdims: getattr(np, name)(x, axis=axis, keepdims=keepdims)


def _deviation(name):
    return lambda x, axis, ddof, keepdims: getattr(np, name)(x, axis=axis, ddof=ddof, keepdims=keepdims)


def _logsumexp(x, axis, keepdims):
    return np.log(np.sum(np.exp(x), axis=axis, keepdims=keepdims))


def hiding(pick):
    """An array, and where -inf hides it: all of row 0, some of the others."""
    hidden = pick.rng.random((3, 5)) < [[2.0], [0.4], [0.0]]
    hidden[1:, 0] = False
    return [pick.numbers((3, 5)), hidden]


def _logsumexp_of_shown(x, hidden):
    return np.array([np.log(np.exp(row)[~h].sum()) for row, h in zip(x[1:], hidden[1:], strict=True)])


def _logsumexp_of_shown_on_tensors(x, hidden):
    return tt.logsumexp(tt.where(hidden, -math.inf, x), axis=1)[1:]


for _name in ("sum", "mean", "prod"):
    case(_name, reduced, _reduction(_name))
case(
    "sum",
    lambda pick: [pick.numbers((0, 3)), pick.of(0, None, (0, 1)), False],
    _reduction("sum"),
    "of nothing",
)
case("prod", with_zeros, _reduction("prod"), "with zeros")
for _name in ("max", "min"):
    case(_name, lambda pick: reduced(pick, "apart"), _reduction(_name))
    case(_name, tied, _reduction(_name), "with ties", order=1)
for _name in ("var", "std"):
    case(_name, deviation, _deviation(_name))
case("logsumexp", reduced, _logsumexp)
case(
    "logsumexp",
    lambda pick: [pick.rng.choice([-800.0, 0.0, 800.0, -math.inf], (5, 2)), pick.of(0, 1), False],
    lambda x, axis, keepdims: np.logaddexp.reduce(x, axis=axis, keepdims=keepdims),
    "of large and infinite numbers",
    order=0,
    integers=False,
)
case("logsumexp", hiding, _logsumexp_of_shown, "with -inf", _logsumexp_of_shown_on_tensors, integers=False)
case("cumsum", lambda pick: [(x := pick.numbers(pick.shape())), pick.axis(x.ndim)], np.cumsum)


# --- shapes ---------------------------------------------------------------------------------------------


def reshaped(pick):
    shape = pick.shape()
    n = math.prod(shape)
    return [
        pick.numbers(shape),
        pick.of(shape[::-1], (n,), (1, n, 1), (*shape[::-1], -1) if n else (0, 7), n),
    ]


def permuted(pick):
    x = pick.numbers(pick.shape())
    axes = pick.rng.permutation(x.ndim) - x.ndim * (pick.rng.random(x.ndim) < 0.3)
    return [x, pick.of(None, tuple(axes.tolist()))]


def swapped(pick):
    x = pick.numbers(pick.shape())
    return [x, pick.integer(-x.ndim, x.ndim - 1), pick.integer(-x.ndim, x.ndim - 1)]


def widened(pick):
    x = pick.numbers(pick.shape())
    return [x, pick.of(0, -1, x.ndim, (0, -1), (1, 2))]


def squeezed(pick):
    return [pick.numbers((1, *pick.shape(1, 2), 1)), pick.of(None, 0, -1, (0, -1))]


def broadcasted(pick):
    shape = pick.shape()
    return [pick.numbers(pick.broadcast(shape)), shape]


def joined(pick):
    """The axis, and arrays that differ in length along it."""
    shape = pick.shape()
    axis = pick.axis(len(shape))
    along = list(shape)
    along[axis or 0] = pick.integer(0, 2)
    return [axis, pick.numbers(shape), pick.numbers(tuple(along)), pick.numbers(shape)]


def stacked(pick):
    shape = pick.shape(0)
    return [
        pick.integer(-len(shape) - 1, len(shape)),
        *(pick.numbers(shape) for _ in range(pick.integer(1, 3))),
    ]


def cut(pick):
    shape = (*pick.shape(0, 2), 6)
    axis = pick.of(-1, len(shape) - 1)
    return [pick.numbers(shape), pick.of(1, 2, 3, [1, 4], [0, 2, 2], [2, -1]), axis]


def padded(pick):
    x = pick.numbers(pick.shape())
    each = [(pick.integer(0, 2), pick.integer(0, 2)) for _ in range(x.ndim)]
    return [x, pick.of(2, (1, 2), ((2, 1),), (1,), each), "constant", pick.of(0, 7)]


def flipped(pick):
    x = pick.numbers(pick.shape())
    return [x, pick.axis(x.ndim, tuples=True)]


def rolled(pick):
    x = pick.numbers(pick.shape(2))
    return [x, *pick.of((2, None), (-1, 0), (4, -1), ((1, -2), (0, -1)), (1, (0, 1)))]


def repeated(pick):
    x = pick.numbers(pick.shape())
    axis = pick.axis(x.ndim)
    n = x.size if axis is None else x.shape[axis]
    return [x, pick.of(2, 0, pick.rng.integers(0, 3, n).tolist()), axis]


def diagonal(pick):
    return [pick.numbers(pick.shape(2)), pick.integer(-2, 2)]


case("reshape", reshaped, np.reshape)
case("transpose", permuted, np.transpose)
case("swapaxes", swapped, np.swapaxes)
case("expand_dims", widened, np.expand_dims)
case("squeeze", squeezed, np.squeeze)
case("broadcast_to", broadcasted, np.broadcast_to)
case(
    "concatenate",
    joined,
    lambda axis, *arrays: np.concatenate(arrays, axis=axis),
    function=lambda axis, *arrays: tt.concatenate(arrays, axis=axis),
)
case(
    "concatenate",
    one,
    lambda x: np.concatenate([x, x], None),
    "twice",
    lambda x: tt.concatenate([x, x], None),
)
case(
    "stack",
    stacked,
    lambda axis, *arrays: np.stack(arrays, axis=axis),
    function=lambda axis, *arrays: tt.stack(arrays, axis=axis),
)
case("split", cut, np.split)
case("pad", padded, lambda x, width, mode, value: np.pad(x, width, mode, constant_values=value))
case("flip", flipped, np.flip)
case("roll", rolled, np.roll)
case("repeat", repeated, np.repeat)
case("tile", lambda pick: [*one(pick), pick.of(3, (2,), (2, 1, 3), (1, 2), (0, 2), ())], np.tile)
for _name in ("tril", "triu"):
    case(_name, diagonal, getattr(np, _name))


# --- indexing -------------------------------------------------------------------------------------------


def indexed(pick):
    """An array of shape (3, 4, 5), and an index of each kind that NumPy knows."""
    integers = pick.rng.integers
    index = pick.of(
        1,
        -2,
        slice(None, None, -2),
        (slice(1, None), 2),
        (..., None, slice(2, 0, -1)),
        (0, -1, 2),
        (None, 1, ..., None),
        [2, 0, 2],
        integers(-3, 3, (2, 2)),
        (integers(0, 3, 4), integers(0, 4, 4)),
        (integers(0, 3, (2, 1)), slice(None), integers(0, 5, 3)),
        (1, slice(None, 3), integers(-5, 5, 3)),
        (slice(0, 0), [0, 1]),
        pick.rng.random((3, 4, 5)) < 0.4,
        pick.rng.random(3) < 0.5,
        (slice(None), pick.rng.random((4, 5)) < 0.4),
        (integers(0, 3, 1), pick.rng.random((4, 5)) < 0.1),
        np.zeros(0, dtype=int),
        True,
    )
    return [pick.numbers((3, 4, 5)), index]


def scattered(pick):
    x, index = indexed(pick)
    part = x[index].shape
    return [x, index, pick.numbers(pick.of(part, part, part[1:], (1,) * len(part)))]


def taken(pick):
    x = pick.numbers(pick.shape(special=()))
    axis = pick.axis(x.ndim)
    n = x.size if axis is None else x.shape[axis]
    indices = pick.rng.integers(-n, n, pick.of((), (4,), (2, 3), (0,)))
    return [x, pick.of(indices, indices.tolist()), axis]


def taken_along(pick):
    shape = pick.shape(2, special=(1,))
    axis = pick.axis(len(shape))
    if axis is None:
        return [pick.numbers(shape), pick.rng.integers(0, math.prod(shape), 4), None]
    wanted = [1 if pick.integer(0, 2) == 0 else n for n in shape]
    wanted[axis] = pick.integer(0, 4)
    indices = pick.rng.integers(-shape[axis], shape[axis], wanted)
    held = [n if a == axis % len(shape) or pick.integer(0, 2) else 1 for a, n in enumerate(shape)]
    return [pick.numbers(tuple(held)), indices, axis]


def sorted_along(pick):
    x = pick.apart(pick.shape())
    return [x, pick.axis(x.ndim)]


def largest(pick):
    x = pick.apart(pick.shape(special=(1,)))
    axis = pick.integer(-x.ndim, x.ndim - 1)
    return [x, pick.integer(1, x.shape[axis]), axis]


def _scatter_add(x, index, updates):
    out = np.array(x, dtype=np.result_type(x, updates))
    np.add.at(out, index, updates)
    return out


def _topk(x, k, axis):
    order = np.flip(np.argsort(x, axis=axis), axis)
    order = np.take(order, np.arange(k), axis=axis)
    return np.take_along_axis(x, order, axis), order


case("getitem", indexed, lambda x, index: x[index])
case("scatter_add", scattered, _scatter_add, integers=False)  # CuPy adds no int64
case("take", taken, np.take)
case("take_along_axis", taken_along, np.take_along_axis)
case("sort", sorted_along, np.sort)
case("topk", largest, _topk)


# --- products of matrices -------------------------------------------------------------------------------


def factors(pick):
    """Two operands of 1 to 4 axes, with lengths 0 and 1 among them."""
    ranks = "k,k k,km nk,k nk,km k,abkm abnk,k bnk,km nk,bkm bnk,bkm bnk,abkm 1nk,bkm bnk,1km a1nk,1bkm"
    axes = pick.of(*ranks.split()).split(",")
    n, k, m = pick.rng.permutation([2, 3, 5]).tolist()
    n, k, m = pick.of((n, k, m), (n, k, m), (1, k, m), (n, 1, m), (n, k, 1), (0, k, m), (n, 0, m))
    lengths = {"1": 1, "a": 4, "b": 7, "n": n, "k": k, "m": m}
    return [pick.numbers(tuple(lengths[c] for c in letters)) for letters in axes]


def summed_products(pick):
    subscripts, *shapes = pick.of(
        ("ij,jk->ik", (2, 3), (3, 5)),
        ("ij, jk -> ik", (2, 3), (3, 5)),
        ("ij,jk", (2, 3), (3, 5)),  # without "->": the letters that stand once, in order
        ("ba", (2, 3)),
        ("bij,bkj->bik", (2, 3, 5), (2, 4, 5)),
        ("i,j->ij", (2,), (3,)),
        ("ij->", (2, 3)),
        ("ij->j", (2, 3)),
        ("ijk->kji", (2, 3, 5)),
        ("ij,k->i", (2, 3), (5,)),  # j and k stand in one operand alone
        ("ij,ij,j->i", (2, 3), (2, 3), (3,)),
        ("ii->i", (3, 3)),
        ("ii", (3, 3)),
        ("iji,j->i", (3, 2, 3), (2,)),
        ("iii->i", (2, 2, 2)),
        ("aab->b", (3, 3, 2)),
        ("...ij,...jk->...ik", (7, 2, 3), (3, 5)),
        ("...ij,...jk->...ik", (1, 2, 3), (7, 3, 5)),
        ("...ij,...jk->...ik", (7, 2, 3), (1, 3, 5)),
        ("...i,i...", (2, 3), (3, 2)),
        ("...i,i->...", (3,), (3,)),
        ("b...,b...->b...", (2, 3, 5), (2, 1, 5)),
        ("...ii->...i", (2, 3, 3)),
        ("ij,ij->ij", (1, 3), (2, 1)),
        ("ij,j->i", (2, 3), (1,)),
        ("ij,jk->ik", (0, 3), (3, 5)),
        ("ij,jk->ik", (2, 0), (0, 5)),
    )
    return [subscripts, *(pick.numbers(shape) for shape in shapes)]


case("matmul", factors, np.matmul)
case(
    "matmul",
    lambda pick: [pick.numbers((2, 3))],
    lambda x: x @ x.T,
    "of a tensor with itself",
    lambda x: x @ x.mT,
)
case("matmul", lambda pick: [[1, 2], pick.numbers((2, 3))], np.matmul, "of a list")
case("matmul", lambda pick: [pick.numbers((2, 3)), [1, 2, 3]], np.matmul, "with a list")
case("einsum", summed_products, np.einsum)
case(
    "einsum",
    lambda pick: [pick.numbers((2, 3))],
    lambda x: x @ x.T,
    "of a tensor with itself",
    lambda x: tt.einsum("ij,kj->ik", x, x),
)


# --- where there is no derivative ------------------------------------------------------------------------

INF = math.inf
CONVENTIONS = [
    Convention("abs", lambda x: tt.abs(x), [[-1.0, 0.0, 2.0]], [[-1, 0, 3]]),
    Convention("sign", lambda x: tt.sign(x), [[-1.0, 0.0, 2.0]], [[0, 0, 0]]),
    Convention("relu", lambda x: tt.relu(x), [[-1.0, 0.0, 2.0]], [[0, 0, 3]]),
    Convention("clip", lambda x: tt.clip(x, -1, 1), [[-2.0, -1.0, 0.0, 1.0, 2.0]], [[0, 2, 3, 4, 0]]),
    Convention("maximum", lambda a, b: tt.maximum(a, b), [[1.0, 2.0], [1.0, 5.0]], [[0.5, 0], [0.5, 2]]),
    Convention("minimum", lambda a, b: tt.minimum(a, b), [[1.0, 2.0], [1.0, 5.0]], [[0.5, 2], [0.5, 0]]),
    Convention(
        "max",
        lambda x: tt.max(x * 3, 1),
        [[[5.0, 5.0, 4.0, 5.0], [1, 2, 3, 4]]],
        [[[1, 1, 0, 1], [0, 0, 0, 6]]],
    ),
    Convention(
        "min",
        lambda x: tt.min(x * 3, 1),
        [[[5.0, 5.0, 6.0, 5.0], [4, 3, 2, 1]]],
        [[[1, 1, 0, 1], [0, 0, 0, 6]]],
    ),
    Convention("power", lambda x: (-2) ** x, [[2.0, 3.0]], [[0, 0]]),
    Convention("power", lambda a, x: a**x, [[-2.0, 0.0], [2.0, 1.0]], [[-4, 2], [0, 0]]),
    Convention(
        "logsumexp",
        lambda x: tt.logsumexp(x, axis=1),
        [[[-INF, -INF, -INF], [0.0, -INF, 0.0], [-INF, 7.0, -INF]]],
        [[[0, 0, 0], [1, 0, 1], [0, 3, 0]]],
    ),
]
