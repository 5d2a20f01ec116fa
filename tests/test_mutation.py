"""Every mistake planted in a gradient rule must be found by the cases of its primitive."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from cases import CASES, CONVENTIONS, Pick
from mutation import mutants_of
from test_primitives import assert_same, moved

import tinytransformer as tt
from tinytransformer.autograd import PRIMITIVES

COMPOSITES = ["concatenate", "matmul", "sort", "split", "stack", "topk"]  # functions made of primitives
SEEDS = range(30)

# Mutants that compute the same numbers: by name, what was changed, and why no test can tell.
FASTER = "the other branch gives the same numbers, but slower"
EQUIVALENT: dict[tuple[str, str], str] = {
    ("concatenate", "composite, concatenate: 1  =>  2"): "NumPy takes any negative length for: what is left",
    ("einsum", "forward, einsum: True  =>  False"): "optimize changes the order of the work alone",
    ("einsum", "joint_rule, _einsum_rule: c in target  =>  c not in target"): FASTER,
    ("einsum", "joint_rule, _einsum_rule: lengths.get(c)  =>  lengths"): FASTER,
    ("logsumexp", "forward, logsumexp: 0  =>  1"): "any finite number may be taken from -inf",
    ("logsumexp", "rule 0, _finite: 0  =>  1"): "any finite number may be taken from -inf",
    ("power", "rule 0, _lowered: 0  =>  1"): "it is multiplied by an exponent of 0",
    (
        "scatter_add",
        "forward, _is_basic: index if isinstance(index, tuple) else (index,)  =>  (index,)",
    ): FASTER,
    (
        "scatter_add",
        "forward, _is_basic: i is None or i is Ellipsis or isinstance(i, (int, slice))"
        "  =>  i is None and i is Ellipsis and isinstance(i, (int, slice))",
    ): FASTER,
}


# --- the planting itself --------------------------------------------------------------------------------


def _total(g, n):
    return g.sum(axis=0) * n


def _sample(g, y, x1, x2, keep=True):
    if len(g) < 3:
        raise ValueError("too short")
    out = np.zeros(5)
    np.add.at(out, [0, 1, 1], g[:3])
    np.multiply(out, 2, out=out)
    out += -x1 if keep else x2
    return _total(out, 3)


def outcome(function):
    try:
        return str(function(np.arange(3.0), None, 1.0, 2.0))
    except Exception as error:
        return str(error)


def test_the_kinds_of_mistake():
    found = dict(mutants_of(_sample))
    right = outcome(_sample)
    for text in [
        "_sample: np.add.at(out, [0, 1, 1], g[:3])  =>  out[[0, 1, 1]] = g[:3]",
        "_sample: np.add.at(out, [0, 1, 1], g[:3])  =>  out[[0, 1, 1]] += g[:3]",
        "_sample: np.multiply(out, 2, out=out)  =>  pass",
        "_sample: np.multiply  =>  np.divide",
        "_sample: out += -x1 if keep else x2  =>  out = -x1 if keep else x2",
        "_sample: out += -x1 if keep else x2  =>  out -= -x1 if keep else x2",
        "_sample: -x1 if keep else x2  =>  x2",
        "_sample: -x1  =>  x1",
        "_sample: 2  =>  3",
        "_sample: 3  =>  4  (place 2)",
        "_total: g.sum(axis=0) * n  =>  g.sum(axis=0)",
        "_total: g.sum(axis=0)  =>  g",
        "_total: g.sum(axis=0) * n  =>  n",
    ]:
        assert outcome(found[text]) != right
    assert not any("ValueError" in text or "keep  =>" in text for text in found)
    assert outcome(_sample) == right  # the live function is as it was


def test_rules_arguments_may_be_swapped():
    descriptions = [text for text, _ in mutants_of(PRIMITIVES["multiply"].rules[0])]
    assert descriptions == [
        "<lambda>: g * x2  =>  g / x2",
        "<lambda>: g * x2  =>  g",
        "<lambda>: g * x2  =>  x2",
        "<lambda>: x2  =>  x1",
    ]


# --- the gate -------------------------------------------------------------------------------------------


def found(name: str) -> bool:
    """Return True if a case or convention of this name fails."""
    try:
        for convention in CONVENTIONS:
            if convention.name == name:
                convention.check()
        for case in CASES:
            for seed in SEEDS if case.name == name else ():
                arguments = case.inputs(Pick.seeded(seed))
                with tt.use_backend("fake"):
                    tensors = [moved(a, "fake", tt.Tensor) for a in arguments]
                    assert_same(case.function(*tensors), case.oracle(*arguments), 1e-10)
                if case.order:
                    tt.gradcheck(case.function, arguments, case.order)
    except Exception:
        return True
    return False


def parts_of(name: str) -> Iterator[tuple[str, Callable, Callable]]:
    """Yield the functions behind a name, and for each how to patch a mutant into its place."""
    if name in COMPOSITES:
        yield "composite", getattr(tt, name), lambda patch, mutant: patch.setattr(tt, name, mutant)
    if name in PRIMITIVES:
        primitive = PRIMITIVES[name]
        for place in ("forward", "joint_rule"):
            if getattr(primitive, place) is not None:
                yield (
                    place,
                    getattr(primitive, place),
                    lambda p, mutant, at=place: p.setattr(primitive, at, mutant),
                )
        rules = primitive.rules
        for i, rule in enumerate(rules):
            if rule is not None:
                yield (
                    f"rule {i}",
                    rule,
                    lambda p, mutant, i=i: p.setattr(
                        primitive, "rules", [*rules[:i], mutant, *rules[i + 1 :]]
                    ),
                )


@pytest.mark.parametrize("name", sorted({*PRIMITIVES, *COMPOSITES}))
def test_every_planted_mistake_is_found(name, monkeypatch):
    monkeypatch.delattr(tt.Tensor, "__array__")  # no operation may need it
    assert not found(name)  # nothing planted yet
    survivors = set()
    for part, function, install in parts_of(name):
        for description, mutant in mutants_of(function):
            with pytest.MonkeyPatch.context() as patch:
                install(patch, mutant)
                if not found(name):
                    survivors.add(f"{part}, {description}")
    assert survivors == {change for of, change in EQUIVALENT if of == name}
