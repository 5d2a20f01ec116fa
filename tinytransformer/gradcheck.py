"""Compare gradients with differences: is each rule the derivative of its function?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .autograd import grad, raw
from .backend import backend_name, is_array, move, to_numpy
from .tensor import Tensor

__all__ = ["GradientError", "gradcheck"]

STEPS = (1e-5, 1e-6, 1e-4)  # tried in turn: the shorter for sharp curves, the longer where values are noisy
ENTRIES = 100  # inputs up to this size are checked entry by entry, larger ones along a random direction


class GradientError(AssertionError):
    """A gradient that is not the derivative, or a function whose derivative cannot be measured."""


def gradcheck(
    function: Callable,
    inputs: Any,
    order: int = 1,
    *,
    tolerance: float = 1e-6,
    rng: numpy.random.Generator | None = None,
) -> bool:
    r"""Check the gradient of a function of Tensors against differences of its values.

    For a random cotangent v, the gradient of :math:`s(x) = \langle v, f(x) \rangle` along d must be

    .. math:: \langle \nabla s(x), d \rangle = \frac{s(x + hd) - s(x - hd)}{2h} + O(h^2)

    Inputs of up to 100 entries are checked along each entry, larger ones along a random direction. Order 2
    also checks the gradient of :math:`\nabla s`, a function of x and v, along random directions.

    Parameters
    ----------
    function : callable
        Takes the inputs as Tensors and returns a Tensor or several. It must give the same values each time.
    inputs : sequence of arrays, Tensors and numbers, or one array, Tensor or number
        Floating ones are converted to float64 and checked; all others are passed on as they are.
    order : 1 or 2
        2 also checks second-order gradients.
    tolerance : float
        Largest relative error. Differences are good to about 1e-9, so a rule wrong by 1e-5 is found.
    rng : numpy.random.Generator, optional
        Draws cotangents and directions; ``default_rng(0)`` by default.

    Returns
    -------
    bool
        Always True: a wrong gradient raises.

    Raises
    ------
    GradientError
        Names the input, the entry, the gradient (analytic), the difference (numeric), and the likely cause.
    TypeError
        If no input is floating.

    Examples
    --------
    >>> import numpy as np, tinytransformer as tt
    >>> x = np.array([[0.5, -1.0, 2.0], [1.5, 0.1, -0.3]])
    >>> tt.gradcheck(lambda x, W: tt.tanh(x @ W), [x, np.eye(3)], order=2)
    True
    >>> @tt.primitive
    ... def cube(x):
    ...     return x * x * x
    >>> cube.vjp(lambda g, y, x: g * x * x)
    >>> tt.gradcheck(cube, np.array([1.0, 2.0]))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tinytransformer.gradcheck.GradientError: gradcheck: input 0, ... every entry is 3 times too small
    """
    if order not in (1, 2):
        raise ValueError(f"gradcheck: order is 1 or 2, not {order}")
    if isinstance(inputs, (Tensor, int, float)) or is_array(inputs):
        inputs = [inputs]
    arguments = [_double(x) for x in inputs]
    checked = [i for i, x in enumerate(arguments) if is_array(x) and x.dtype == numpy.float64]
    if not checked:
        raise TypeError("gradcheck: no input is floating, so there is no gradient to check")
    rng = rng if rng is not None else numpy.random.default_rng(0)

    def forward(tensors: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
        given = dict(zip(checked, tensors, strict=True))
        return _floating(function(*[given.get(i, x) for i, x in enumerate(arguments)]))

    points = [arguments[i] for i in checked]
    names = [f"input {i}" for i in checked]
    with numpy.errstate(all="ignore"):  # what is not finite is reported, with its place
        first = _Check(forward, points, names, tolerance, rng, create_graph=False)
        first.run()
        if order == 1:
            return True

        def gradient(tensors: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
            x, v = tensors[: len(points)], tensors[len(points) :]
            return _gradients(forward(x, create_graph), x, v, create_graph)

        names = names + [f"cotangent of output {k}" for k in range(len(first.cotangents))]
        names = [f"second order, {name}" for name in names]
        _Check(gradient, points + first.cotangents, names, tolerance, rng, create_graph=True).run()
    return True


def _double(x: Any) -> Any:
    """Return a floating input as a float64 array where it lives (a view stays a view), others as they are."""
    array = numpy.asarray(x) if isinstance(x, (float, numpy.floating)) else raw(x)
    return array.astype(numpy.float64, copy=False) if is_array(array) and array.dtype.kind == "f" else x


def _floating(result: Any) -> list[Tensor]:
    """Return the outputs that can have a gradient."""
    outputs = list(result) if isinstance(result, (tuple, list)) else [result]
    for k, y in enumerate(outputs):
        if not isinstance(y, Tensor) and not (is_array(y) and y.dtype.kind in "biu"):
            raise GradientError(
                f"gradcheck: output {k} is of type {type(y).__name__}, not a Tensor: the function left the "
                "graph (.numpy(), .item(), .data?); compute it with operations on Tensors"
            )
        if y.dtype.kind == "f" and y.dtype != numpy.float64:
            raise GradientError(
                f"gradcheck: output {k} is {y.dtype} though the inputs are float64, and differences need double "
                "precision; let the function keep the dtype of its inputs"
            )
    return [y for y in outputs if y.dtype.kind == "f"]


def _gradients(
    ys: Sequence[Tensor], xs: Sequence[Tensor], vs: Sequence[Any], create_graph: bool
) -> list[Tensor]:
    """Gradients of <vs, ys>; zeros where no output depends on an input."""
    pairs = [(y, v) for y, v in zip(ys, vs, strict=True) if y.requires_grad]
    if not pairs:
        return [x * 0.0 for x in xs]
    outputs, cotangents = zip(*pairs, strict=True)
    try:
        return list(grad(list(outputs), list(xs), list(cotangents), create_graph=create_graph))
    except ValueError as error:
        shapes = re.search(
            r"gradient rule of .* returned shape \((.*)\) for an input of shape \((.*)\)", str(error)
        )
        if shapes is None:
            raise
        got, wanted = (sorted(int(n) for n in re.findall(r"\d+", shape)) for shape in shapes.groups())
        if got == wanted:
            cause = "transposed: the axes are in another order"
        elif math.prod(got) > math.prod(wanted):
            cause = "not summed over an axis along which the input was broadcast or repeated"
        else:
            cause = "summed over an axis that the input has"
        raise GradientError(f"gradcheck: {error}. Likely cause: {cause}") from None


def _not_finite(array: numpy.ndarray) -> str:
    place = tuple(int(i) for i in numpy.argwhere(~numpy.isfinite(array))[0])
    return f"{array[place]} at entry {place}"


def _cause(analytic: numpy.ndarray, numeric: numpy.ndarray, lengths: set[int], second: bool) -> str:
    """Say what kind of mistake turns the numeric gradient into the analytic one, if it can be told."""
    if not analytic.any():
        if second:
            return "a rule computes with arrays what it should compute with Tensors (raw(), NumPy)"
        return (
            "no gradient arrives: the input was detached on the way (.detach(), .data, argmax, a comparison)"
        )
    if analytic.ndim > 1 and analytic.shape[-1] == analytic.shape[-2] > 1:
        if numpy.allclose(analytic, numeric.mT, rtol=1e-5):
            return "transposed"
    seen = abs(numeric) > 1e-6 * abs(numeric).max()
    if not seen.any():
        return "the output does not depend on this input"
    ratios = analytic[seen] / numeric[seen]
    factor = float(numpy.median(ratios))
    size = max(abs(factor), 1 / abs(factor)) if factor else math.inf
    whole = abs(size - round(size)) < 1e-4
    if not numpy.allclose(ratios, factor, rtol=1e-4) or not (whole or ratios.size > 1):
        return "not one factor for all entries: a term is missing, or entries are in another order"
    if abs(factor + 1) < 1e-4:
        return "the sign is wrong"
    cause = f"every entry is {size:.6g} times too {'large' if abs(factor) > 1 else 'small'}"
    if factor < 0:
        cause += " and has the wrong sign"
    if whole and round(size) in lengths:
        cause += ": " + ("a sum where a mean belongs" if abs(factor) > 1 else "a mean where a sum belongs")
    elif abs(factor - 0.5) < 1e-4:
        cause += ": if the input is used twice, one of the two uses is missing"
    return cause


class _Check:
    """The gradients of one function at one point, and how its values change around that point."""

    def __init__(self, function, points, names, tolerance, rng, create_graph):
        self.function, self.points, self.names = function, points, names
        self.tolerance, self.rng, self.second = tolerance, rng, create_graph
        xs = [Tensor(p, requires_grad=True) for p in points]
        ys = function(xs, create_graph)
        self.values = [to_numpy(y.data) for y in ys]
        for k, (value, again) in enumerate(zip(self.values, self.at(0, 0.0), strict=True)):
            if not numpy.isfinite(value).all():
                raise GradientError(f"gradcheck: output {k} is {_not_finite(value)}: choose other inputs")
            if not numpy.allclose(value, again, rtol=1e-11, atol=1e-13):
                raise GradientError(
                    f"gradcheck: two calls with the same inputs differ by {abs(value - again).max():.3g}: the "
                    "function is not deterministic; give it a fixed mask or seed"
                )
        self.weights = [
            rng.uniform(0.5, 1.5, v.shape) * rng.choice([-1.0, 1.0], v.shape) for v in self.values
        ]
        self.size = sum(float(abs(w * v).sum()) for w, v in zip(self.weights, self.values, strict=True))
        self.cotangents = [move(w, y.backend) for w, y in zip(self.weights, ys, strict=True)]
        self.gradients = [to_numpy(g.data) for g in _gradients(ys, xs, self.cotangents, create_graph)]

    def at(self, i, shift):
        """Outputs, on the host, with point i moved by ``shift``."""
        points = list(self.points)
        points[i] = move(to_numpy(points[i]) + shift, backend_name(points[i]))
        return [
            to_numpy(y.data) for y in self.function([Tensor(p, requires_grad=True) for p in points], False)
        ]

    def growth(self, ahead, behind):
        """Return how much <cotangents, outputs> grew between two points, and the sizes of what changed."""
        parts = list(zip(self.weights, ahead, behind, strict=True))
        changed = sum(float(abs(w * a)[a != b].sum()) for w, a, b in parts)
        return sum(float((w * (a - b)).sum()) for w, a, b in parts), changed

    def differs(self, i, direction):
        """Return the analytic and the numeric derivative along a direction if they differ, else None."""
        terms = self.gradients[i] * direction
        analytic, size = float(terms.sum()), float(abs(terms).sum())
        numeric = previous = math.nan
        for h in STEPS:
            growth, changed = self.growth(self.at(i, h * direction), self.at(i, -h * direction))
            numeric, previous = growth / (2 * h), numeric
            rounding = 1e-15 * changed / h + 1e-12 * self.size
            doubt = 0.0 if math.isnan(previous) else 0.1 * abs(numeric - previous)  # it has not converged
            if abs(analytic - numeric) <= self.tolerance * max(size, abs(numeric)) + rounding + doubt:
                return None
        return analytic, numeric

    def has_kink(self, i, direction):
        """Return True if the slopes to both sides differ, however small the step."""
        gaps = []
        for h in (1e-5, 1e-6):
            right, _ = self.growth(self.at(i, h * direction), self.values)
            left, _ = self.growth(self.values, self.at(i, -h * direction))
            gaps.append(abs(right - left) / h)
        return gaps[1] > 0.5 * gaps[0] and gaps[1] * h > 1e-3 * (abs(right) + abs(left))

    def run(self):
        """Raise a GradientError about the first gradient that is not the derivative."""
        for i, (g, name) in enumerate(zip(self.gradients, self.names, strict=True)):
            title = f"gradcheck: {name}, shape {g.shape}"
            if not numpy.isfinite(g).all():
                raise GradientError(f"{title}: the output is finite, but the gradient is {_not_finite(g)}")
            scale = numpy.sqrt(numpy.maximum(1.0, abs(to_numpy(self.points[i]))))
            found = None
            if self.second or g.size > ENTRIES:
                # along the signs of the gradient no two terms cancel, so that a small relative error shows
                signs = numpy.where(g == 0, self.rng.choice([-1.0, 1.0], g.shape), numpy.sign(g))
                found = self.differs(i, signs * self.rng.uniform(0.5, 1.5, g.shape) * scale)
                if found is None:
                    continue
            sample = self.rng.permutation(g.size)[:ENTRIES] if g.size > ENTRIES else range(g.size)
            measured, wrong = g.copy(), {}
            for j in sample:
                along = numpy.zeros(g.shape)
                along.flat[j] = scale.flat[j]
                pair = self.differs(i, along)
                if pair is not None:
                    measured.flat[j] = pair[1] / scale.flat[j]
                    wrong[j] = along
            if wrong:
                smooth = next((j for j in wrong if not self.has_kink(i, wrong[j])), None)
                place = tuple(
                    map(int, numpy.unravel_index(next(iter(wrong)) if smooth is None else smooth, g.shape))
                )
                found = g[place], measured[place]
                if smooth is None:
                    cause = "none in the rule, the input is at a kink: move it away, and equal entries apart"
                else:
                    lengths = {n for a in [g, *self.values] for n in (*a.shape, a.size)}
                    cause = _cause(g, measured, lengths, self.second)
                where = f"entry {place}"
                cause = f"; {len(wrong)} of {len(sample)} entries differ. Likely cause: {cause}"
            elif found is not None:
                where, cause = "along a random direction", ""
            if found is not None:
                raise GradientError(
                    f"{title}, {where}: analytic {found[0]:.7g}, numeric {found[1]:.7g}{cause}"
                )
