"""Compare gradients with differences of values: each rule must be the derivative of its function."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from .autograd import grad, raw
from .backend import backend_name, is_array, move, to_numpy, xp
from .tensor import Tensor

__all__ = ["GradientError", "gradcheck"]

STEPS = (1e-4, 1e-5, 1e-6)  # each is tried if the one before disagrees: the curve may be too sharp for it
ROUNDING = 1e-10  # in a difference divided by the first step, as a part of the sum of the outputs
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
    single = isinstance(inputs, (Tensor, int, float)) or is_array(inputs)
    arguments = [_double(x) for x in ([inputs] if single else inputs)]
    checked = [i for i, x in enumerate(arguments) if is_array(x) and x.dtype == numpy.float64]
    if not checked:
        raise TypeError("gradcheck: no input is floating, so there is no gradient to check")
    rng = rng if rng is not None else numpy.random.default_rng(0)

    def forward(tensors: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
        given = dict(zip(checked, tensors, strict=True))
        return _floating(function(*[given.get(i, x) for i, x in enumerate(arguments)]))

    def gradient(tensors: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
        x, v = tensors[: len(checked)], tensors[len(checked) :]
        return _gradients(forward(x, create_graph), x, v, create_graph)

    points, names = [arguments[i] for i in checked], [f"input {i}" for i in checked]
    with numpy.errstate(all="ignore"):  # what is not finite is reported, with its place
        first = _Check(forward, points, names, tolerance, rng)
        first.run()
        if order == 2:
            names += [f"cotangent of output {k}" for k in range(len(first.cotangents))]
            names = [f"second order, {name}" for name in names]
            _Check(gradient, points + first.cotangents, names, tolerance, rng, first).run()
    return True


def _double(x: Any) -> Any:
    """Return a floating input as a float64 array where it lives (a view stays a view), others as they are."""
    array = xp.asarray(x) if isinstance(x, (float, numpy.floating)) else raw(x)
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
                f"gradcheck: output {k} is {y.dtype} though the inputs are float64, and differences need the "
                "double precision; let the function keep the dtype of its inputs"
            )
    return [y for y in outputs if y.dtype.kind == "f"]


def _gradients(ys: Sequence[Tensor], xs: Sequence[Tensor], vs: Sequence[Any], create_graph: bool) -> list:
    """Gradients of <vs, ys>; zeros where no output depends on an input."""
    pairs = [(y, v) for y, v in zip(ys, vs, strict=True) if y.requires_grad]
    if not pairs:
        return [x * 0.0 for x in xs]
    outputs, cotangents = zip(*pairs, strict=True)
    try:
        return list(grad(outputs, xs, cotangents, create_graph=create_graph))
    except ValueError as error:
        if "returned shape" not in str(error):
            raise
        got, wanted = (re.findall(r"\d+", shape) for shape in re.findall(r"\((.*?)\)", str(error)))
        cause = "not summed over an axis along which the input was broadcast or repeated"
        if sorted(got) == sorted(wanted):
            cause = "transposed, the axes are in another order"
        elif math.prod(map(int, got)) < math.prod(map(int, wanted)):
            cause = "summed over an axis that the input has"
        raise GradientError(f"gradcheck: {error}. Likely cause: {cause}") from None


class _Check:
    """The gradients of one function at one point, and how its values change around that point."""

    def __init__(self, function, points, names, tolerance, rng, first=None):
        self.function, self.points, self.names = function, points, names
        self.tolerance, self.rng, self.second = tolerance, rng, first is not None
        before = [to_numpy(p).copy() for p in points]
        xs = [Tensor(p, requires_grad=True) for p in points]
        ys = function(xs, self.second)
        for name, p, b in zip(names, points, before, strict=True):
            if not numpy.array_equal(to_numpy(p), b, equal_nan=True):
                raise GradientError(f"gradcheck: {name} was changed in place by the function: work on a copy")
        self.values = [to_numpy(y.data) for y in ys]
        for k, (value, again) in enumerate(zip(self.values, self.at(0, 0.0), strict=True)):
            if not numpy.isfinite(value).all():
                raise GradientError(f"gradcheck: output {k} is {_not_finite(value)}: choose other inputs")
            gap = float(abs(value - again).max(initial=0.0))
            if first is None and gap > 1e-8 * abs(value).max(initial=0.0) + 1e-12:
                raise GradientError(
                    f"gradcheck: two calls with the same inputs differ by {gap:.3g}: the function is not "
                    "deterministic; give it a fixed mask or seed"
                )
        signs = [rng.choice([-1.0, 1.0], v.shape) for v in self.values]
        self.weights = [rng.uniform(0.5, 1.5, s.shape) * s for s in signs]
        self.size = sum(float(abs(w * v).sum()) for w, v in zip(self.weights, self.values, strict=True))
        self.size += first.size if first else 0.0  # a gradient of 0 is the sum of terms that are not
        self.cotangents = [move(w, y.backend) for w, y in zip(self.weights, ys, strict=True)]
        self.gradients = [to_numpy(g.data) for g in _gradients(ys, xs, self.cotangents, self.second)]

    def at(self, i, shift):
        """Return the outputs, on the host, with point i moved by ``shift``."""
        points = list(self.points)
        points[i] = move(to_numpy(points[i]) + shift, backend_name(points[i]))
        ys = self.function([Tensor(p, requires_grad=True) for p in points], False)
        return [to_numpy(y.data) for y in ys]

    def slope(self, i, direction, ahead, behind):
        """Return the slope of <cotangents, outputs> between two steps along a direction."""
        outputs = self.at(i, ahead * direction), self.at(i, behind * direction)
        rise = sum(float((w * (y - z)).sum()) for w, y, z in zip(self.weights, *outputs, strict=True))
        return rise / (ahead - behind)

    def differs(self, i, direction):
        """Return the analytic and the numeric derivative along a direction if they differ, else None."""
        terms = self.gradients[i] * direction
        analytic, size = float(terms.sum()), float(abs(terms).sum())
        numeric = math.nan
        for h in STEPS:
            previous, numeric = numeric, self.slope(i, direction, h, -h)
            doubt = 0.1 * abs(numeric - previous) if math.isfinite(previous) else 0.0  # has it converged?
            error = self.tolerance * max(size, abs(numeric)) + ROUNDING * self.size + doubt
            if abs(analytic - numeric) <= error:
                return None
        return analytic, numeric

    def has_kink(self, i, direction):
        """Return True if, however small the step, the slopes to both sides differ or grow as at a jump."""
        far, near = ([self.slope(i, direction, *s) for s in ((h, 0), (0, -h))] for h in (1e-5, 1e-6))
        gap, steepness = abs(near[0] - near[1]), abs(near[0]) + abs(near[1])
        kink = gap > 0.5 * abs(far[0] - far[1]) and gap > 1e-3 * steepness
        return kink or steepness > 5 * (abs(far[0]) + abs(far[1]))

    def run(self):
        """Raise a GradientError about the first gradient that is not the derivative."""
        for i, (g, name) in enumerate(zip(self.gradients, self.names, strict=True)):
            title = f"gradcheck: {name}, shape {g.shape}"
            if not numpy.isfinite(g).all():
                raise GradientError(f"{title}: the output is finite, but the gradient is {_not_finite(g)}")
            scale = numpy.sqrt(numpy.maximum(1.0, abs(to_numpy(self.points[i]))))
            if self.second or g.size > ENTRIES:
                # along the signs of the gradient no two terms cancel, so that a small relative error shows
                signs = numpy.where(g == 0, self.rng.choice([-1.0, 1.0], g.shape), numpy.sign(g))
                found = self.differs(i, signs * self.rng.uniform(0.5, 1.5, g.shape) * scale)
                if found is not None:
                    along = "along a random direction: analytic {:.7g}, numeric {:.7g}".format(*found)
                    raise GradientError(f"{title}, {self.wrong_entry(i, scale) or along}")
            elif wrong := self.wrong_entry(i, scale):
                raise GradientError(f"{title}, {wrong}")

    def wrong_entry(self, i, scale):
        """Compare entry by entry; say which one is wrong, and why if it can be told."""
        g = self.gradients[i]
        sample = self.rng.permutation(g.size)[:ENTRIES]
        numeric, wrong = numpy.full(g.shape, numpy.nan), {}
        for j in sorted(sample):
            along = numpy.zeros(g.shape)
            along.flat[j] = scale.flat[j]
            found = self.differs(i, along)
            numeric.flat[j] = g.flat[j] if found is None else found[1] / scale.flat[j]
            if found is not None:
                wrong[j] = along
        if not wrong:
            return None
        smooth = [j for j, along in wrong.items() if not self.has_kink(i, along)]
        j = min(smooth or wrong)
        if not numpy.isfinite(numeric.flat[j]):
            cause = "none in the rule, the function is not finite around the input"
        elif not smooth:
            cause = "none in the rule, the input is at a kink or jump: move it away, and equal entries apart"
        else:
            cause = self.cause(g, numeric)
        place = tuple(int(k) for k in numpy.unravel_index(j, g.shape))
        return (
            f"entry {place}: analytic {g.flat[j]:.7g}, numeric {numeric.flat[j]:.7g}; {len(wrong)} of "
            f"{len(sample)} entries differ. Likely cause: {cause}"
        )

    def cause(self, analytic, numeric):
        """Say what kind of mistake turns the numeric gradient into the analytic one, if it can be told."""
        if not analytic.any():
            if self.second:
                return "a rule computes with arrays (raw(), NumPy) what it should compute with Tensors"
            return "no gradient arrives, the input was detached on the way (.detach(), .data, a comparison)"
        square = analytic.ndim > 1 and analytic.shape[-1] == analytic.shape[-2]
        if square and numpy.allclose(analytic, numeric.mT, rtol=1e-5):
            return "transposed"
        seen = abs(numeric) > 1e-6 * numpy.nanmax(abs(numeric))
        if not seen.any():
            return "the output does not depend on this input"
        ratios = analytic[seen] / numeric[seen]
        factor = float(numpy.median(ratios))
        if not factor:
            return "most entries are 0: a mask or an index drops them"
        times = max(abs(factor), 1 / abs(factor))
        whole = round(times) if abs(times - round(times)) < 1e-4 and abs(factor - 1) > 1e-3 else 0
        if not numpy.allclose(ratios, factor, rtol=1e-4) or not (whole or ratios.size > 1):
            return "not one factor for all entries: a term is missing, or entries are in another order"
        if whole == 1:
            return "the sign is wrong"
        cause = f"every entry is {times:.6g} times too {'large' if abs(factor) > 1 else 'small'}"
        cause += " and has the wrong sign" if factor < 0 else ""
        if whole in {n for a in [analytic, *self.values] for n in (*a.shape, a.size)}:
            given, right = ("sum", "mean") if abs(factor) > 1 else ("mean", "sum")
            return f"{cause}, a {given} where a {right} belongs"
        if whole == 2 and 0 < factor < 1:
            return cause + "; of two equal uses of the input, one may be missing"
        return cause


def _not_finite(array: numpy.ndarray) -> str:
    place = tuple(int(i) for i in numpy.argwhere(~numpy.isfinite(array))[0])
    return f"{array[place]} at entry {place}"
