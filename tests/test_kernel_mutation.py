"""Every mistake planted in a kernel must be found by comparing it with its formula."""

import numpy as np
import pytest
from cases import Pick
from formula_cases import CASES
from mutation import mutants_of
from test_kernels import KERNELS, assert_equal_outcomes, outcome, small_blocks, watch

import tinytransformer as tt

EXAMPLES = 120  # for each kernel, shared by its cases
SHARED = ("attention", "general_attention")  # formulas with one backward, which both must find wrong or right
PARTS = [
    (name, part)
    for name in KERNELS
    for part in ("forward", "backward")
    if name not in SHARED or (name, part) == ("attention", "backward")
]

# Mutants that compute the same numbers: by kernel and part, what was changed, and why no test can tell.
ROWS = "rows have two axes: the last one is axis 1"
FINITE = "any finite number may be taken from -inf"
LENGTH = "NumPy takes any negative length for: what is left"
GIVEN = "cases are floating with one axis; test_kernels says what is left to the formula"
FOUND = "the backward takes the maxima that the forward has found"
EQUIVALENT = {
    ("softmax", "forward", "forward: -1  =>  1"): ROWS,
    ("softmax", "forward", "forward: rows[block]  =>  rows"): "all rows are moderate: then this block is too",
    ("softmax", "forward", "sums: -1  =>  1"): ROWS,
    ("softmax", "backward", "sums: -1  =>  1"): ROWS,
    ("log_softmax", "forward", "largest: -1  =>  1"): ROWS,
    ("log_softmax", "forward", "largest: 0  =>  1"): FINITE,
    ("log_softmax", "forward", "sums: -1  =>  1"): ROWS,
    ("log_softmax", "backward", "sums: -1  =>  1"): ROWS,
    ("masked_softmax", "forward", "largest: 0  =>  1"): FINITE,
    ("masked_softmax", "forward", "forward: total += total == 0  =>  total -= total == 0"): "0 / -1 is 0 too",
    ("masked_softmax", "backward", "sums: -1  =>  1"): ROWS,
    (
        "masked_softmax",
        "backward",
        "as_rows: xp.swapaxes(x, axis, -1)  =>  x",
    ): "the axis is the last already",
    ("cross_entropy", "forward", "forward: 1  =>  2"): LENGTH,
    (
        "cross_entropy",
        "forward",
        "forward: 0  =>  1",
    ): "any class may stand in for a target that does not count",
    (
        "attention",
        "backward",
        "exponentials: M.astype(e.dtype)  =>  M",
    ): "a product with True is one with 1",
    ("attention", "backward", "exponentials: largest(e)  =>  e"): FOUND,
    (
        "attention",
        "backward",
        "exponentials: if first:\n    m[at] = largest(e)  =>  if not first:\n    m[at] = largest(e)",
    ): FOUND,
    **{
        ("attention", "backward", f"backward_into: {change}"): "on one thread"
        for change in (
            "dB is None  =>  dB is not None  (place 2)",
            "places if dB is None else [chain(*places)]  =>  places",
            "places if dB is None else [chain(*places)]  =>  [chain(*places)]",
        )
    },
    ("attention", "backward", "backward: 3  =>  4"): "a mask never needs a gradient",
    (
        "attention",
        "backward",
        "backward_into: exponentials(q, k, M, B, m, c, tile) if e_kept is None else e_kept"
        "  =>  exponentials(q, k, M, B, m, c, tile)",
    ): "computed again it is the same",
    (
        "self_attention",
        "forward",
        "forward: xp.module is not numpy or not fusible(x, *parameters) or x.ndim != 3 or (not x.size)"
        "  =>  xp.module is not numpy and (not fusible(x, *parameters)) and (x.ndim != 3) and (not x.size)",
    ): GIVEN,
    ("rms_norm", "forward", "forward: x.shape[-1]  =>  x.shape"): "no case is without features",
} | {
    (
        name,
        "forward",
        "takes: fusible(x) and type(axis) is int and (-x.ndim <= axis < x.ndim)"
        "  =>  fusible(x) or type(axis) is int or -x.ndim <= axis < x.ndim",
    ): GIVEN
    for name in ("softmax", "log_softmax")
}
# Helpers that only say how the work is cut: `test_tiles_cover_every_pair_once` and
# `test_every_mistake_in_a_product_of_few_rows_is_found` look after them.
CUTS = ("tiles_of_heads: ", "product: ", "uncopied: ")


class Examples:
    """Cases of one formula with their right outcomes, and which kernels run in each."""

    def __init__(self, name, ran):
        self.ran = ran
        self.cases = []
        names = SHARED if name in SHARED else (name,)
        cases = [case for case in CASES if case.name in names]
        for case in cases:
            for seed in range(EXAMPLES // len(cases)):
                arguments = case.inputs(Pick.seeded(seed))
                for a in arguments:
                    if isinstance(a, np.ndarray):
                        a.flags.writeable = False  # no mutant may spoil it for the next
                with tt.formulas():
                    self.cases.append((case, arguments, seed, outcome(case, arguments, "numpy", seed)))
        self.runs = self.compare()

    def compare(self):
        """Compare kernel and formula; return which kernels ran in each case."""
        ran = []
        for case, arguments, seed, plain in self.cases:
            self.ran.clear()
            assert_equal_outcomes(outcome(case, arguments, "numpy", seed), plain, 1e-10, *arguments)
            ran.append(tuple(self.ran))
        return ran

    def find(self):
        """Return True if something is wrong."""
        try:
            return self.compare() != self.runs
        except Exception:
            return True


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_every_planted_mistake_is_found(name, part, monkeypatch):
    small_blocks(monkeypatch)
    examples = Examples(name, watch(monkeypatch))
    kernels = [KERNELS[other] for other in (SHARED if name in SHARED else (name,))]
    right = getattr(kernels[0], part)
    survivors = set()
    for description, mutant in mutants_of(right):
        if not description.startswith(CUTS):
            for kernel in kernels:
                monkeypatch.setattr(kernel, part, mutant)
            if not examples.find():
                survivors.add(description)
    for kernel in kernels:
        monkeypatch.setattr(kernel, part, right)
    assert not examples.find()
    assert survivors == {change for *of, change in EQUIVALENT if of == [name, part]}
