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
from ..models import GPT

__all__ = ["BatchThreads"]

SWITCH_INTERVAL = 0.0005  # seconds; at Python's 0.005 a thread back from NumPy waits too long for its turn


class BatchThreads:
    """Threads that share a batch: each takes some of its sequences forward and back, on its own.

    NumPy works outside the interpreter's lock, so that all of it runs in parallel: not only the products of
    matrices, which BLAS could divide by itself, but what lies between them too. The gradients are added in a
    fixed order: the same number of threads gives the same bits.

    Parameters
    ----------
    model : GPT
    threads : int
        With 1, or on a model with dropout, whose parts would draw from one generator in no fixed order, the
        batch stays whole.

    Examples
    --------
    >>> from tinytransformer.models import GPTConfig
    >>> model = GPT(GPTConfig(vocab_size=11, context_length=5, d_model=8, num_heads=2))
    >>> ids = numpy.arange(24).reshape(4, 6) % 11
    >>> loss = BatchThreads(model, threads=2).add(ids[:, :-1], ids[:, 1:])
    >>> model.norm.weight.grad.shape
    (8,)
    """

    def __init__(self, model: GPT, threads: int):
        self.model = model
        self.threads = 1 if model.config.dropout else threads
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

    def add(self, inputs: Any, targets: Any, scale: float = 1.0) -> float:
        """Add the gradient of ``scale`` times the mean loss to each parameter's ``grad``.

        Parameters
        ----------
        inputs, targets : integer arrays, shape (batch, T)
        scale : float
            For example one over the number of batches that are added up.

        Returns
        -------
        float
            ``scale`` times the mean loss, in nats per token.
        """
        if self.threads == 1 or len(inputs) == 1:
            loss = self.model.loss(inputs, targets) * scale
            loss.backward()
            return loss.item()
        parameters = [p for p in self.model.parameters() if p.requires_grad]

        def part(rows: Any) -> tuple[float, Any]:
            share = scale * len(rows) / len(inputs)
            loss = self.model.loss(inputs[rows], targets[rows]) * share
            return loss.item(), grad(loss, parameters)

        total = 0.0
        parts = numpy.array_split(numpy.arange(len(inputs)), min(self.threads, len(inputs)))
        # NumPy's error handling is part of the context: each thread takes it over
        for done in [self.pool.submit(contextvars.copy_context().run, part, rows) for rows in parts]:
            part_loss, gradients = done.result()
            total += part_loss
            for p, g in zip(parameters, gradients, strict=True):
                accumulate(p, g)
        return total
