"""Gradients of a batch, computed in parts on threads."""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy

from ..autograd import accumulate, grad
from ..nn import Dropout
from .task import Batch, Task

__all__ = ["BatchThreads"]

LEAST_WORK = 1e10  # operations of a step; with fewer the interpreter, whose lock threads share, takes longer
SWITCH_INTERVAL = 0.0005  # seconds; at Python's 0.005 a thread back from NumPy waits too long for its turn


class BatchThreads:
    """Threads that share a batch: each takes some of its sequences forward and back, on its own.

    NumPy works outside the interpreter's lock, so that all of it runs in parallel: not only the products of
    matrices, which BLAS could divide by itself, but what lies between them too. The gradients are added in a
    fixed order: the same number of threads gives the same bits.

    Parameters
    ----------
    model : Module
    task : Task
        Its ``count`` says how much each part of a batch weighs.
    threads : int
        With 1, or on a model with dropout, whose parts would draw from one generator in no fixed order, the
        batch stays whole.
    least_work : float
        The batch stays whole too if a step takes fewer operations, as 6 for each token and parameter: then
        threads would wait for each other's turn in the interpreter.

    Examples
    --------
    >>> from tinytransformer.models import GPT, GPTConfig
    >>> from tinytransformer.tasks import LanguageModelling
    >>> tokens = numpy.arange(60) % 11
    >>> task = LanguageModelling(tokens[:40], tokens[40:], batch_size=4, context=5)
    >>> model = GPT(GPTConfig(vocab_size=11, context_length=5, d_model=8, num_heads=2))
    >>> loss = BatchThreads(model, task, threads=2, least_work=0).add(task.batch(0))
    >>> model.norm.weight.grad.shape
    (8,)
    """

    def __init__(self, model: Any, task: Task, threads: int, least_work: float = LEAST_WORK):
        self.model = model
        self.task = task
        draws = any(isinstance(module, Dropout) and module.p for module in model.modules())
        work = 6 * task.tokens_per_batch * sum(p.size for p in model.parameters())
        self.threads = 1 if draws or work < least_work else threads
        self.pool = ThreadPoolExecutor(self.threads)  # its threads start when they are first needed

    @contextmanager
    def working(self) -> Iterator[None]:
        """Arrange the process for several threads at work: BLAS must not divide products once more."""
        if self.threads == 1:
            yield
            return
        from threadpoolctl import threadpool_limits

        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        try:
            with threadpool_limits(1, user_api="blas"):
                yield
        finally:
            sys.setswitchinterval(interval)

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
        """
        sequences = len(batch[0])
        if self.threads == 1 or sequences == 1:
            loss = self.task.loss(self.model, *batch) * scale
            loss.backward()
            return loss.data if loss.backend != "numpy" else loss.item()
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        rows = numpy.array_split(numpy.arange(sequences), min(self.threads, sequences))
        parts = [tuple(array[r] for array in batch) for r in rows]
        counts = [self.task.count(*part) for part in parts]

        def gradient_of(part: Batch, share: float) -> tuple[float, Any]:
            loss = self.task.loss(self.model, *part) * share
            return loss.item(), grad(loss, parameters)

        total = 0.0
        # NumPy's error handling is part of the context: each thread takes it over
        working = [
            self.pool.submit(contextvars.copy_context().run, gradient_of, part, scale * count / sum(counts))
            for part, count in zip(parts, counts, strict=True)
            if count  # a mean over nothing is no part of the whole
        ]
        for done in working:
            part_loss, gradients = done.result()
            total += part_loss
            for p, g in zip(parameters, gradients, strict=True):
                if p.grad is None:
                    p.grad = g  # an array of its own: no copy is needed
                else:
                    accumulate(p, g)
        return total
