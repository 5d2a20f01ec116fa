"""Threads inside kernels: the same bits, nothing lost, and BLAS as it was."""

import contextlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
from mutation import mutants_of
from test_kernels import FULL_SIZE, full_size, on_threads
from threadpoolctl import threadpool_info, threadpool_limits

import tinytransformer as tt
from tinytransformer.kernels import threads
from tinytransformer.kernels.linear import product

linear = sys.modules["tinytransformer.kernels.linear"]


@pytest.mark.parametrize("name", FULL_SIZE)
def test_any_number_of_threads_gives_the_same_bits(name, monkeypatch):
    rng = np.random.default_rng(5)
    function, shapes = full_size(rng, name)
    arrays = [rng.normal(size=s).astype(np.float32) for s in shapes]
    outcomes, v = [], None
    for number in (1, 2, 5):
        on_threads(monkeypatch, number)
        tensors = [tt.Tensor(a.copy(), requires_grad=True) for a in arrays]
        y = function(*tensors)
        v = rng.normal(size=y.shape).astype(np.float32) if v is None else v
        outcomes.append([y, *tt.grad(y, tensors, v)])
    for one, other in itertools.pairwise(outcomes):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())


@pytest.mark.parametrize("number", [1, 2, 3, 7, 11])
def test_each_piece_is_worked_on_once_and_its_result_comes_in_its_place(number, monkeypatch):
    blas = on_threads(monkeypatch, number)
    done = []

    def work(piece):
        done.append(piece)
        assert blas.number == 1 or number == 1
        return 3 * piece

    assert threads.each(work, range(2, 9)) == [6, 9, 12, 15, 18, 21, 24]
    assert sorted(done) == list(range(2, 9))
    assert blas.number == number


def test_pieces_run_side_by_side(monkeypatch):
    """Each of three waits for the others: one after the other they would wait forever."""
    import threading

    on_threads(monkeypatch, 3)
    all_here = threading.Barrier(3, timeout=30)
    threads.each(lambda _: all_here.wait(), range(3))


def test_within_a_piece_nothing_is_divided_once_more(monkeypatch):
    import threading

    on_threads(monkeypatch, 2)
    seen = threads.each(lambda _: set(threads.each(lambda _: threading.get_ident(), range(6))), range(4))
    assert all(len(identities) == 1 for identities in seen)
    assert len(set.union(*seen)) == 2


@pytest.mark.parametrize("number", [1, 2, 3, 11])
def test_shares_follow_each_other_and_are_as_large(number, monkeypatch):
    on_threads(monkeypatch, number)
    shares = [range(13)[share] for share in threads.shared(lambda share: share, 13)]
    assert list(itertools.chain(*shares)) == list(range(13))
    assert len(shares) == number
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_what_is_too_small_to_share_stays_here_with_blas_at_one_thread(monkeypatch):
    """BLAS's threads would wait for the next product in a loop, in place of ours."""
    import threading

    blas = on_threads(monkeypatch, 2)
    seen = threads.shared(lambda share: (share, threading.get_ident(), blas.number), 5, least=6)
    assert seen == [(slice(0, 5), threading.get_ident(), 1)]
    assert blas.number == 2
    assert len(threads.shared(lambda share: share, 5, least=5)) == 2


def test_few_pieces_stay_here(monkeypatch):
    import threading

    on_threads(monkeypatch, 2)
    monkeypatch.setattr(threads, "LEAST", 4)
    assert set(threads.each(lambda _: threading.get_ident(), range(3))) == {threading.get_ident()}


@pytest.mark.parametrize("wrong", [0, 6])
def test_a_mistake_in_one_piece_is_told_and_blas_is_as_before(wrong, monkeypatch):
    blas = on_threads(monkeypatch, 3)
    with pytest.raises(ZeroDivisionError):
        threads.each(lambda piece: 1 / (piece - wrong), range(7))
    assert blas.number == 3


def test_numpy_error_handling_is_that_of_the_caller(monkeypatch):
    on_threads(monkeypatch, 2)
    with np.errstate(all="raise"), pytest.raises(FloatingPointError):
        threads.each(lambda x: np.float32(1) / np.float32(x), [3, 2, 1, 0])
    with np.errstate(all="ignore"):
        assert threads.each(lambda x: np.float32(1) / np.float32(x), [2, 1, 0, 0])[2:] == [np.inf, np.inf]


def test_the_threads_are_those_of_blas():
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    assert (threads._blas() is None) == (not pools)
    for number in (1, 2) if pools else ():
        with threadpool_limits(number, user_api="blas"):
            assert threads._blas().get_num_threads() == number


FORK = """
import os, threading
from tinytransformer.kernels import threads

class Blas:
    get_num_threads = lambda self: 2
    set_num_threads = lambda self, number: None

threads._blas = Blas
alone = lambda: set(threads.each(lambda _: threading.get_ident(), range(8)))
alone()
if child := os.fork():
    raise SystemExit(os.waitpid(child, 0)[1] >> 8)
os._exit(7 if len(alone()) == 2 else 1)
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_process_makes_threads_of_its_own():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], timeout=60, cwd=__file__.rsplit("tests", 1)[0]
    )
    assert done.returncode == 7


def few_rows_in_pieces(layout, dtype, product, patch):
    """Check products of few rows, and that BLAS is asked for small ones alone, on two threads if it pays."""
    import threading

    on_threads(patch, 2)
    calls, matmul = [], np.matmul

    def watched(a, b, out):
        pieces = b.shape[0] if b.ndim == 3 else 0
        calls.append((threading.get_ident(), pieces, b.shape[-1]))
        return matmul(a, b, out=out)

    patch.setattr(linear, "small_products_are_fast", lambda: True)
    patch.setattr(linear, "LARGE", 7 * 31)
    patch.setattr(linear, "LEAST", 3 * 31 * 65)
    patch.setattr(np, "matmul", watched)
    rng = np.random.default_rng(1)
    for n, inner, columns in itertools.product((1, 2, 3, 8, 16, 17), (3, 31, 1031), (7, 63, 64, 65, 1201)):
        x = rng.normal(size=(n, inner)).astype(dtype)
        W = np.asarray(rng.normal(size=(inner, columns)), dtype, order=layout)
        calls.clear()
        y = product(x, W)
        np.testing.assert_allclose(y, x.astype(float) @ W, atol=1e-3 if dtype == np.float32 else 1e-11)
        assert y.dtype == dtype
        if n in (1, 17) or W.size < 7 * 31:
            assert not calls
            continue
        room = linear.SMALL // (n * inner)
        if layout == "F":
            room = min(room, linear.SMALL_TRANSPOSED // n)
        width = room // 64 * 64  # as many columns as fit, in whole lines of the cache
        whole = [(pieces, columns) for _, pieces, columns in calls if pieces]
        rests = [columns for _, pieces, columns in calls if not pieces]
        assert {columns for _, columns in whole} <= {width}
        assert sum(pieces for pieces, _ in whole) == (columns // width if width else 0)
        assert sum(rests) == (columns % width if width else columns)
        divided = n * W.size >= 3 * 31 * 65 and columns > (width or 64)
        assert len({thread for thread, *_ in calls}) == 1 + divided


@pytest.mark.parametrize("layout", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_product_of_few_rows_in_pieces(layout, dtype, monkeypatch):
    few_rows_in_pieces(layout, dtype, product, monkeypatch)


def test_every_mistake_in_a_product_of_few_rows_is_found(monkeypatch):
    survivors = set()
    for description, mutant in mutants_of(product):
        with monkeypatch.context() as patch, contextlib.suppress(Exception):
            few_rows_in_pieces("C", np.float64, mutant, patch)
            few_rows_in_pieces("F", np.float64, mutant, patch)
            survivors.add(description)
    assert survivors == set()
