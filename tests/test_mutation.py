"""Every mistake planted in a gradient rule must be found by the cases of its primitive."""

from collections.abc import Callable, Iterator

import pytest
from cases import CASES, CONVENTIONS, Pick
from mutation import mutants_of
from test_primitives import assert_same, moved

import tinytransformer as tt
from tinytransformer.autograd import PRIMITIVES

COMPOSITES = ["concatenate", "matmul", "sort", "split", "stack", "topk"]  # functions made of primitives
SEEDS = range(40)

# Mutants that compute the same numbers: by name, what was changed, and why no test can tell.
EQUIVALENT: dict[tuple[str, str], str] = {
}


def found(name: str) -> bool:
    """Return True if a case or convention of this name fails."""
    try:
        for convention in CONVENTIONS:
            if convention.name == name:
                convention.check()
        for case in CASES:
            for seed in SEEDS if case.name == name else ():
                arguments = case.inputs(Pick.seeded(seed))
                tensors = [moved(a, "numpy", tt.Tensor) for a in arguments]
                assert_same(case.function(*tensors), case.oracle(*arguments), 1e-10)
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
        for place in ("function", "joint_rule"):
            if getattr(primitive, place) is not None:
                yield place, getattr(primitive, place), lambda p, mutant, at=place: p.setattr(primitive, at, mutant)
        rules = primitive.rules
        for i, rule in enumerate(rules):
            if rule is not None:
                yield (
                    f"rule {i}",
                    rule,
                    lambda p, mutant, i=i: p.setattr(primitive, "rules", [*rules[:i], mutant, *rules[i + 1 :]]),
                )


@pytest.mark.parametrize("name", sorted({*PRIMITIVES, *COMPOSITES}))
def test_every_planted_mistake_is_found(name):
    assert not found(name)  # nothing planted yet
    survivors = set()
    for part, function, install in parts_of(name):
        for description, mutant in mutants_of(function):
            with pytest.MonkeyPatch.context() as patch:
                install(patch, mutant)
                if not found(name):
                    survivors.add(f"{part}, {description}")
    assert survivors == {change for of, change in EQUIVALENT if of == name}
