"""A batch shared by threads or processes gives the gradient of the whole, with the same bits every time."""

import errno
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from tinytransformer.models import GPT, GPTConfig
from tinytransformer.tasks import LanguageModelling
from tinytransformer.training import Trainer, TrainingSettings, parallel
from tinytransformer.training.parallel import FORKS, ParallelBatch, fastest_kind

TASK = LanguageModelling(
    np.arange(13), np.arange(13), batch_size=2, context=7
)  # its own batches are not asked
CONFIG = GPTConfig(vocab_size=13, context_length=7, d_model=12, num_heads=3)
forks = pytest.mark.skipif(not FORKS, reason="processes are not copied here")
KINDS = ["threads", pytest.param("processes", marks=forks)]


def perturbed(dtype="float64", **changes):
    model = GPT(GPTConfig(**{**vars(CONFIG), **changes}), np.random.default_rng(3), dtype=dtype)
    rng = np.random.default_rng(5)
    for p in model.parameters():
        p.data[...] = rng.normal(0, 0.5, p.shape)
    return model


def batch(sequences):
    ids = np.random.default_rng(7).integers(0, 13, (sequences, 8))
    return ids[:, :-1], ids[:, 1:]


def gradients(model):
    return [p.grad.data.copy() for p in model.parameters()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [2, 3, 11])
def test_equals_the_whole_batch(workers, kind):
    model = perturbed()
    inputs, targets = batch(5)  # 5 sequences divide neither by 2 nor by 3, and are fewer than 11
    shared = ParallelBatch(model, TASK, workers, kind)
    rng = np.random.default_rng(11)
    with shared.working():
        for _ in range(2):  # the second time with other weights
            model.zero_grad()
            expected_loss = model.loss(inputs, targets)
            expected_loss.backward()
            expected = gradients(model)
            model.zero_grad()
            loss = shared.add((inputs, targets), scale=0.25)
            assert loss == pytest.approx(0.25 * expected_loss.item(), rel=1e-12)
            for found, wanted in zip(gradients(model), expected, strict=True):
                np.testing.assert_allclose(found, 0.25 * wanted, rtol=1e-10, atol=1e-12)
            for p in model.parameters():
                p.data += rng.normal(0, 0.1, p.shape)


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_batch_is_added(kind):
    model = perturbed()
    shared = ParallelBatch(model, TASK, 2, kind)
    with shared.working():
        shared.add(batch(5))
        once = gradients(model)
        shared.add(batch(5))
    for found, wanted in zip(gradients(model), once, strict=True):
        np.testing.assert_allclose(found, 2 * wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_same_bits_every_time(kind):
    model = perturbed("float32")
    shared = ParallelBatch(model, TASK, 3, kind)
    runs = []
    for _ in range(20):
        with shared.working():
            model.zero_grad()
            shared.add(batch(5))
            runs.append(gradients(model))
    for other in runs[1:]:
        for found, wanted in zip(other, runs[0], strict=True):
            np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_without_anything_to_guess_are_left_out(kind):
    """A mean over nothing is 0 / 0; and if one part is left, there is nothing to share."""
    model, (inputs, targets) = perturbed(), batch(5)
    task = LanguageModelling(np.arange(13), np.arange(13), batch_size=2, context=7)
    task.count = lambda inputs, targets: int((targets >= 0).sum())
    for rows in (slice(0, 2), slice(2, 4), slice(2, 5), slice(0, 5)):
        some = targets.copy()
        some[rows] = -100
        shared = ParallelBatch(model, task, 3, kind)
        model.zero_grad()
        wanted = model.loss(inputs, some)
        wanted.backward()
        expected = gradients(model)
        model.zero_grad()
        with shared.working():
            assert shared.add((inputs, some)) == pytest.approx(wanted.item(), rel=1e-12)
        for found, g in zip(gradients(model), expected, strict=True):
            np.testing.assert_allclose(found, g, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_that_are_frozen_get_no_gradient(kind):
    model = perturbed()
    model.token_embedding.weight.requires_grad = False
    shared = ParallelBatch(model, TASK, 2, kind)
    model.loss(*batch(5)).backward()
    expected = model.norm.weight.grad.data.copy()
    model.zero_grad()
    with shared.working():
        shared.add(batch(5))
    assert model.token_embedding.weight.grad is None
    np.testing.assert_allclose(model.norm.weight.grad.data, expected, rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_work_is_done_by_others_too_and_in_the_end_by_none(kind):
    model, seen, here = perturbed(), [], os.getpid()
    loss = model.loss

    def told(inputs, targets):
        if os.getpid() != here:  # what another process notes down stays there: an error comes back
            raise ArithmeticError(f"{os.getpid()} {len(inputs)}")
        seen.append(len(inputs))
        return loss(inputs, targets)

    shared = ParallelBatch(model, TASK, 2, kind)
    model.loss = told
    if kind == "threads":
        with shared.working():
            shared.add(batch(5))
        assert sorted(seen) == [2, 3]
    else:
        with shared.working(), pytest.raises(ArithmeticError) as error:
            shared.add(batch(5))
        process, rows = map(int, str(error.value).split())
        assert (seen, rows) == ([3], 2)
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)
    seen.clear()
    shared.add(batch(5))
    assert seen == [5]


def test_dropout_keeps_the_batch_whole():
    """Parts would draw from the model's generator in the order in which threads happen to run."""
    large = LanguageModelling(np.arange(13), np.arange(13), batch_size=10**7, context=7)
    assert fastest_kind(perturbed(), large) != "whole"
    assert fastest_kind(perturbed(dropout=0.3), large) == "whole"


@pytest.mark.parametrize("kind", KINDS)
def test_error_handling_of_the_caller_holds_in_all_parts(kind):
    """NumPy keeps it for each thread apart: without it an overflow would be a warning, here an error."""
    model = perturbed()
    model.token_embedding.weight.data[...] *= 1e200  # its square, in the layer norm, is too large
    shared = ParallelBatch(model, TASK, 2, kind)
    inputs, targets = batch(5)
    with shared.working():
        with np.errstate(all="ignore"):
            shared.add((inputs, targets))
        with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
            shared.add((inputs, targets))
        with np.errstate(all="ignore"):  # and the next is not mistaken for that one
            model.token_embedding.weight.data[...] /= 1e200
            model.zero_grad()
            loss = shared.add((inputs, targets))
    assert loss == pytest.approx(model.loss(inputs, targets).item(), rel=1e-12)


@forks
def test_error_handling_is_that_of_each_call():
    model, here = perturbed(), os.getpid()
    loss = model.loss

    def overflows_elsewhere(inputs, targets):
        if os.getpid() != here:
            np.float64(1e200) * np.float64(1e200)
        return loss(inputs, targets)

    model.loss = overflows_elsewhere
    shared = ParallelBatch(model, TASK, 2, "processes")
    with shared.working():
        with np.errstate(all="ignore"):  # copied with this
            shared.add(batch(5))
        with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
            shared.add(batch(5))


@forks
def test_an_error_in_another_process_is_told_here():
    model = perturbed()
    inputs, targets = batch(5)
    inputs = inputs.copy()
    inputs[-1, 2] = 13  # in the part of the other
    shared = ParallelBatch(model, TASK, 2, "processes")
    with shared.working():
        shared.add(batch(5))
        with pytest.raises(IndexError, match="13"):
            shared.add((inputs, targets))
        shared.add(batch(5))


@forks
def test_a_process_that_was_killed_is_told():
    shared = ParallelBatch(perturbed(), TASK, 2, "processes")
    with shared.working():
        shared.add(batch(5))
        os.kill(shared.others.ids[0], signal.SIGKILL)
        os.waitpid(shared.others.ids[0], 0)
        with pytest.raises(ChildProcessError, match=r"was ended.*--threads 1"):
            shared.add(batch(5))
        shared.add(batch(5))  # by a new one


@forks
def test_where_no_process_may_be_added_the_batch_stays_whole(monkeypatch):
    model = perturbed()
    shared = ParallelBatch(model, TASK, 3, "processes")
    forked, fork = [], os.fork

    def once():
        if forked:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        forked.append(fork())
        return forked[0]

    monkeypatch.setattr(os, "fork", once)
    with shared.working():
        loss = shared.add(batch(5))
    assert loss == pytest.approx(model.loss(*batch(5)).item(), rel=1e-12)
    with pytest.raises(ProcessLookupError):
        os.kill(forked[0], 0)


ORPHAN = """
import os, signal, sys
sys.path.insert(0, "tests")
from test_parallel import TASK, ParallelBatch, batch, perturbed
shared = ParallelBatch(perturbed(), TASK, 2, "processes")
with shared.working():
    shared.add(batch(5))
    print(shared.others.ids[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@forks
def test_a_process_ends_with_the_one_that_it_helps():
    root = os.path.dirname(os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN], cwd=root, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "")
    until = time.monotonic() + 20
    while os.path.exists(f"/proc/{int(done.stdout)}") and time.monotonic() < until:
        with open(f"/proc/{int(done.stdout)}/stat") as file:
            if file.read().split()[2] == "Z":  # ended, and nobody has asked how
                break
        time.sleep(0.01)
    assert time.monotonic() < until


@forks
def test_ctrl_c_is_for_the_first_process_to_decide():
    model = perturbed()
    shared = ParallelBatch(model, TASK, 2, "processes")
    with shared.working():
        shared.add(batch(5))
        os.kill(shared.others.ids[0], signal.SIGINT)
        time.sleep(0.05)
        model.zero_grad()
        assert shared.add(batch(5)) == pytest.approx(model.loss(*batch(5)).item(), rel=1e-12)
        process = shared.others.ids[0]
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_process_is_arranged_and_put_back(kind):
    from threadpoolctl import threadpool_info

    def blas():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = sys.getswitchinterval(), blas()
    with ParallelBatch(perturbed(), TASK, 2, kind).working():
        assert (sys.getswitchinterval() < before[0]) == (kind == "threads")
        assert set(blas()) <= {1}
    assert (sys.getswitchinterval(), blas()) == before
    with ParallelBatch(perturbed(), TASK, 1, kind).working():
        assert (sys.getswitchinterval(), blas()) == before


@pytest.mark.parametrize("can_fork", [False, True])
def test_a_batch_is_shared_only_where_it_pays(can_fork, monkeypatch):
    monkeypatch.setattr(parallel, "FORKS", can_fork)
    monkeypatch.delitem(sys.modules, "mpi4py.MPI", raising=False)
    tiny = perturbed()
    operations = 6 * TASK.tokens_per_batch * tiny.config.num_parameters
    name, kind = ("LEAST_FOR_PROCESSES", "processes") if can_fork else ("LEAST_FOR_THREADS", "threads")
    assert ParallelBatch(tiny, TASK, 3).kind == "whole"
    monkeypatch.setattr(parallel, name, operations)
    assert ParallelBatch(tiny, TASK, 3).kind == kind
    assert ParallelBatch(tiny, TASK, 1).kind == "whole"
    monkeypatch.setattr(parallel, name, operations + 1)
    assert ParallelBatch(tiny, TASK, 3).kind == "whole"


def test_on_a_gpu_the_batch_stays_whole(monkeypatch):
    monkeypatch.setattr(parallel, "LEAST_FOR_PROCESSES", 0)
    monkeypatch.setattr(parallel, "LEAST_FOR_THREADS", 0)
    for backend, kinds in (("numpy", {"threads", "processes"}), ("cupy", {"whole"})):
        p = SimpleNamespace(size=7, backend=backend)
        model = SimpleNamespace(parameters=lambda p=p: [p], modules=list)
        assert fastest_kind(model, TASK) in kinds


def test_processes_of_mpi_are_not_copied(monkeypatch):
    monkeypatch.setattr(parallel, "FORKS", True)
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", object())
    monkeypatch.setattr(parallel, "LEAST_FOR_PROCESSES", 0)
    assert fastest_kind(perturbed(), TASK) == "whole"
    monkeypatch.setattr(parallel, "LEAST_FOR_THREADS", 0)
    assert fastest_kind(perturbed(), TASK) == "threads"


@forks
def test_a_run_shared_by_processes_is_that_of_one(monkeypatch):
    """With clipping, accumulation and the optimizer between the steps."""
    runs = []
    for least in (0, np.inf):
        monkeypatch.setattr(parallel, "LEAST_FOR_PROCESSES", least)
        monkeypatch.setattr(parallel, "LEAST_FOR_THREADS", np.inf)
        tokens = np.random.default_rng(1).integers(0, 13, 200)
        task = LanguageModelling(tokens[:150], tokens[150:], batch_size=5, context=7)
        model = perturbed()
        settings = TrainingSettings(steps=7, warmup=2, accumulate=2, threads=2, learning_rate=0.01)
        trainer = Trainer(model, task, settings, None)
        assert trainer.gradients.kind == ("whole" if least else "processes")
        with trainer.gradients.working():
            losses = [trainer.train_step()["loss"] for _ in range(7)]
        runs.append((losses, [p.data.copy() for p in model.parameters()]))
    (losses, weights), (wanted, expected) = runs
    np.testing.assert_allclose(losses, wanted, rtol=1e-9)
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
