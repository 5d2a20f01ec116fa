"""Gradients of a batch, computed in parts side by side: by processes, or where they cannot be, by threads."""

from __future__ import annotations

import contextvars
import mmap
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy

from ..autograd import accumulate, grad
from ..nn import Dropout
from .task import Batch, Task

__all__ = ["ParallelBatch"]

# Operations of a step, as 6 for each token and parameter. With fewer, to tell another process what to do
# takes as long as it saves, and threads wait for each other's turn in the interpreter, whose lock they share.
LEAST_FOR_PROCESSES, LEAST_FOR_THREADS = 1e8, 1e10
SWITCH_INTERVAL = 0.0005  # seconds; at Python's 0.005 a thread back from NumPy waits too long for its turn
FORKS = sys.platform == "linux"  # elsewhere libraries may not survive a fork

Found = tuple[float, list[Any]]  # a loss and the gradients of all parameters


class ParallelBatch:
    """Workers that share a batch: each takes some of its sequences forward and back, on its own.

    All of it runs in parallel: not only the products of matrices, which BLAS could divide by itself, but what
    lies between them too. The gradients are added in a fixed order: the same number of workers gives the same
    bits.

    Parameters
    ----------
    model : Module
    task : Task
        Its ``count`` says how much each part of a batch weighs.
    workers : int
        How many, with this process; with 1 the batch stays whole.
    kind : {"whole", "processes", "threads"}, optional
        By default what is fastest: copies of this process on Linux, threads elsewhere. The batch stays whole
        if a step takes too little to be shared, on a GPU, and for a model with dropout, whose parts would
        draw from one generator in no fixed order.

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> from tinytransformer.tasks import LanguageModelling
    >>> tokens = numpy.arange(60) % 11
    >>> task = LanguageModelling(tokens[:40], tokens[40:], batch_size=4, context=5)
    >>> model = GPT(GPTConfig(vocab_size=11, context_length=5, d_model=8, num_heads=2))
    >>> parallel = ParallelBatch(model, task, workers=2, kind="threads")
    >>> with parallel.working():
    ...     loss = parallel.add(task.batch(0))
    >>> model.norm.weight.grad.shape
    (8,)
    """

    def __init__(self, model: Any, task: Task, workers: int, kind: str | None = None):
        self.model = model
        self.task = task
        self.workers = workers
        self.kind = "whole" if workers == 1 else kind or fastest_kind(model, task)
        self.at_work = False
        self.others: _Threads | _Processes | None = None  # who computes, beside this process

    @contextmanager
    def working(self) -> Iterator[None]:
        """Let the workers work: outside of this block each batch stays whole."""
        if self.kind == "whole":
            yield
            return
        from threadpoolctl import threadpool_limits

        interval = sys.getswitchinterval()
        if self.kind == "threads":
            sys.setswitchinterval(SWITCH_INTERVAL)
        try:
            with threadpool_limits(1, user_api="blas"):  # BLAS must not divide products once more
                self.at_work = True
                yield
        finally:
            self.at_work = False
            self._dismiss()
            sys.setswitchinterval(interval)

    def _dismiss(self) -> None:
        if self.others is not None:
            self.others.close()
            self.others = None

    def add(self, batch: Batch, scale: float = 1.0) -> Any:
        """Add the gradient of ``scale`` times the mean loss to each parameter's ``grad``.

        Parameters
        ----------
        batch : tuple of array
            As `Task.batch` gives it.
        scale : float
            The part of all batches that are added up which this one is.

        Returns
        -------
        float
            ``scale`` times the mean loss, in nats; on a GPU an array without axes, so that nobody waits.

        Raises
        ------
        ChildProcessError
            If a process that shares the batch was killed.
        """
        jobs = self._parts(batch, scale) if self.at_work else []
        if len(jobs) < 2:
            loss = self.task.loss(self.model, *batch) * scale
            loss.backward()
            return loss.data if loss.backend != "numpy" else loss.item()
        if self.others is None:  # now, so that processes have all that the caller has arranged
            self.parameters = [p for p in self.model.parameters() if p.requires_grad]
            try:
                if self.kind == "threads":
                    self.others = _Threads(self.workers - 1, self._gradient)
                else:
                    self.others = _Processes(self.workers - 1, self._gradient, self.parameters)
            except OSError:  # the system allows no more processes
                self.at_work = False
                return self.add(batch, scale)
        try:
            awaited = self.others.start(jobs[1:])
            total, gradients = self._gradient(*jobs[0])
            for p, g in zip(self.parameters, gradients, strict=True):
                if p.grad is None:
                    p.grad = g  # an array of its own: no copy is needed
                else:
                    accumulate(p, g)
            for result in awaited:
                loss, gradients = result()
                total += loss
                for p, g in zip(self.parameters, gradients, strict=True):
                    accumulate(p, g)
        except BaseException:  # Ctrl-C among others: what is still awaited must not become the next result
            self._dismiss()
            raise
        return total

    def _parts(self, batch: Batch, scale: float) -> list[tuple[Batch, float]]:
        """Divide a batch: some sequences for each worker, and the share of their mean in that of all."""
        rows = numpy.array_split(numpy.arange(len(batch[0])), self.workers)
        parts = [tuple(array[r] for array in batch) for r in rows]
        counts = [self.task.count(*part) for part in parts]
        return [
            (part, scale * count / sum(counts))
            for part, count in zip(parts, counts, strict=True)
            if count  # a mean over nothing is no part of the whole
        ]

    def _gradient(self, part: Batch, share: float) -> Found:
        loss = self.task.loss(self.model, *part) * share
        return loss.item(), grad(loss, self.parameters)


def fastest_kind(model: Any, task: Task) -> str:
    """Return how to compute a batch: whole, by processes if this one may be copied, or by threads."""
    forks = FORKS and "mpi4py.MPI" not in sys.modules  # MPI does not like copies of its processes
    parameters = list(model.parameters())
    work = 6 * task.tokens_per_batch * sum(p.size for p in parameters)
    draws = any(isinstance(module, Dropout) and module.p for module in model.modules())
    least = LEAST_FOR_PROCESSES if forks else LEAST_FOR_THREADS
    if draws or work < least or parameters[0].backend != "numpy":
        return "whole"
    return "processes" if forks else "threads"


class _Threads:
    """Threads that compute gradients."""

    def __init__(self, number: int, gradient_of: Callable[..., Found]):
        self.gradient_of = gradient_of
        self.pool = ThreadPoolExecutor(number)

    def start(self, jobs: list[tuple[Batch, float]]) -> list[Callable[[], Found]]:
        """Begin to compute; each result is there when it is called for."""
        # NumPy's error handling is part of the context: each thread takes it over
        runs = [contextvars.copy_context().run for _ in jobs]
        return [
            self.pool.submit(run, self.gradient_of, part, share).result
            for run, (part, share) in zip(runs, jobs, strict=True)
        ]

    def close(self) -> None:
        """Let the threads end."""
        self.pool.shutdown()


class _Processes:
    """Copies of this process that compute gradients; weights and gradients lie in memory that all share."""

    def __init__(self, number: int, gradient_of: Callable[..., Found], parameters: list[Any]):
        self.parameters = parameters
        self.gradient_of = gradient_of
        self.weights = _in_shared_memory(parameters)
        self.gradients = [_in_shared_memory(parameters) for _ in range(number)]
        self.pipes: list[Any] = []
        self.ids: list[int] = []
        try:
            for i in range(number):
                self._fork(i)
        except OSError:
            self.close()
            raise

    def _fork(self, i: int) -> None:
        here, there = multiprocessing.Pipe()
        self.pipes.append(here)
        with warnings.catch_warnings():  # that other threads are not copied: none of them is needed
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if not child:
            self._serve(i, there)
        self.ids.append(child)
        there.close()

    def _serve(self, i: int, there: Any) -> None:
        """Compute what comes in until the other end is closed."""
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the first process decides
            for pipe in self.pipes:
                pipe.close()
            for p, w in zip(self.parameters, self.weights, strict=True):
                p.data = w
            while True:
                part, share, errors = there.recv()
                answer: float | Exception
                try:
                    with numpy.errstate(**errors):
                        answer, gradients = self.gradient_of(part, share)
                    for shared, g in zip(self.gradients[i], gradients, strict=True):
                        shared[...] = g.data
                except Exception as error:
                    answer = error
                there.send(answer)
        finally:  # at the end of what comes in, too
            os._exit(0)

    def start(self, jobs: list[tuple[Batch, float]]) -> list[Callable[[], Found]]:
        """Begin to compute; each result is there when it is called for."""
        for w, p in zip(self.weights, self.parameters, strict=True):
            w[...] = p.data
        for i, job in enumerate(jobs):
            self._with(i, self.pipes[i].send, (*job, numpy.geterr()))
        return [partial(self._result, i) for i in range(len(jobs))]

    def _result(self, i: int) -> Found:
        answer = self._with(i, self.pipes[i].recv)
        if isinstance(answer, Exception):
            raise answer
        return answer, self.gradients[i]

    def _with(self, i: int, call: Callable[..., Any], *args: Any) -> Any:
        """Send to a process, or receive from it; say so if it has ended."""
        with suppress(EOFError, OSError):
            return call(*args)
        raise ChildProcessError(
            f"process {self.ids[i]}, which shares the batch, was ended, as by a system short of memory: "
            "go on from the last checkpoint, with --threads 1 if it happens again"
        )

    def close(self) -> None:
        """End the processes: they have nothing to lose."""
        for child in self.ids:
            with suppress(ProcessLookupError, ChildProcessError):  # it is gone, or someone else took note
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        for pipe in self.pipes:
            pipe.close()


def _in_shared_memory(parameters: list[Any]) -> list[Any]:
    """Return an array for each parameter, in memory that this process shares with its copies."""
    sizes = [-(-p.data.nbytes // 64) * 64 for p in parameters]  # whole lines of the cache
    memory = mmap.mmap(-1, sum(sizes))
    starts = numpy.cumsum([0, *sizes])
    return [
        numpy.ndarray(p.shape, p.dtype, memory, int(start))
        for p, start in zip(parameters, starts, strict=False)
    ]
