"""The choice of OpenBLAS's kernels: made where it helps, and results stay right."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinytransformer.kernels import blas

ROOT = Path(__file__).parents[1]
CODE = """
import numpy, tinytransformer
from tinytransformer.kernels.blas import openblas
print((openblas().gotoblas_corename() if openblas() else b"none").decode())
"""


def core_name(**environment):
    clean = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"}
    environment = {**clean, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


class FakeOpenBLAS:
    """Takes the name that the environment has when it is initialised, and notes the order of calls."""

    def __init__(self, name):
        self.name, self.calls = name, []

    def gotoblas_corename(self):
        return self.name

    def gotoblas_dynamic_quit(self):
        self.calls.append("quit")

    def gotoblas_dynamic_init(self):
        self.calls.append("init")
        self.name = os.environ["OPENBLAS_CORETYPE"].encode()


@pytest.mark.parametrize(
    ("flags", "name", "variable", "expected"),
    [
        (blas.SKYLAKEX, b"Haswell", None, b"SkylakeX"),
        (blas.SKYLAKEX, b"Zen", None, b"SkylakeX"),
        (blas.SKYLAKEX, b"Cooperlake", None, b"Cooperlake"),  # as wide already
        (blas.SKYLAKEX - {"avx512vl"}, b"Haswell", None, b"Haswell"),  # would be an illegal instruction
        (blas.SKYLAKEX, b"Haswell", "Haswell", b"Haswell"),  # the user's own choice
    ],
)
def test_wider_kernels_are_chosen_where_they_run(monkeypatch, flags, name, variable, expected):
    library = FakeOpenBLAS(name)
    monkeypatch.setattr(blas, "openblas", lambda: library)
    monkeypatch.setattr(blas, "processor_flags", lambda: set(flags) | {"avx2"})
    monkeypatch.delenv("OPENBLAS_CORETYPE", raising=False)
    if variable:
        monkeypatch.setenv("OPENBLAS_CORETYPE", variable)
    assert blas.choose_blas_kernels() == (name != expected)
    assert library.name == expected
    assert library.calls == ([] if name == expected else ["quit", "init"])
    assert os.environ.get("OPENBLAS_CORETYPE") == variable


def test_the_process_takes_what_the_user_asks_for():
    chosen = core_name()
    assert core_name(OPENBLAS_CORETYPE="Haswell") == ("none" if chosen == "none" else "Haswell")
    if blas.processor_flags() >= blas.SKYLAKEX:
        assert chosen not in ("Haswell", "Zen")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_are_right(dtype):
    rng = np.random.default_rng(0)
    for m, k, n in [(1, 7, 5), (3, 1, 11), (67, 31, 17), (131, 257, 61), (1, 769, 53), (8, 127, 509)]:
        a, b = rng.normal(size=(m, k)).astype(dtype), rng.normal(size=(k, n)).astype(dtype)
        expected = np.einsum("ik,kj->ij", a.astype("float64"), b.astype("float64"))
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(a @ b, expected, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(a @ np.asfortranarray(b), expected, rtol=tolerance, atol=tolerance)
