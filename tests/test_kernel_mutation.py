"""Every mistake planted in a kernel must be found by comparing it with its formula."""

import numpy as np
import pytest
from cases import Pick
from formula_cases import CASES
from mutation import mutants_of
from test_kernels import KERNELS, assert_equal_outcomes, outcome, small_blocks, watch

import tinytransformer as tt

SEEDS = range(30)


class Examples:
    """Cases of one formula with their right outcomes, and how often its kernel runs in them."""

    def __init__(self, name, ran):
        self.ran = ran
        self.cases = []
        for case in CASES:
            for seed in SEEDS if case.name == name else ():
                arguments = case.inputs(Pick.seeded(seed))
                for a in arguments:
                    if isinstance(a, np.ndarray):
                        a.flags.writeable = False  # no mutant may spoil it for the next
                with tt.formulas():
                    self.cases.append((case, arguments, seed, outcome(case, arguments, "numpy", seed)))
        self.runs = self.count()

    def count(self):
        """Compare kernel and formula; return how often the kernel ran."""
        self.ran.clear()
        for case, arguments, seed, plain in self.cases:
            assert_equal_outcomes(outcome(case, arguments, "numpy", seed), plain, 1e-10)
        return len(self.ran)

    def find(self):
        """Return True if something is wrong."""
        try:
            return self.count() != self.runs
        except Exception:
            return True


@pytest.mark.parametrize("part", ["forward", "backward"])
@pytest.mark.parametrize("name", KERNELS)
def test_every_planted_mistake_is_found(name, part, monkeypatch):
    small_blocks(monkeypatch)
    examples = Examples(name, watch(monkeypatch))
    kernel = KERNELS[name]
    right = getattr(kernel, part)
    survivors = set()
    for description, mutant in mutants_of(right):
        monkeypatch.setattr(kernel, part, mutant)
        if not examples.find():
            survivors.add(description)
    monkeypatch.setattr(kernel, part, right)
    assert not examples.find()
    print("\n".join(f"SURV {name} {part} {s}" for s in survivors)); assert survivors == set()
