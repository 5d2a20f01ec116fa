"""Gradients of a batch, computed in parts on threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy

from ..autograd import accumulate, grad
from ..models import GPT

__all__ = ["BatchThreads"]


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
    >>> with BatchThreads(model, threads=2) as batch:
    ...     loss = batch.add_gradients(ids[:, :-1], ids[:, 1:])
    >>> model.norm.weight.grad.shape
    (8,)
    """

    def __init__(self, model: GPT, threads: int):
        self.model = model
        self.threads = 1 if model.config.dropout else threads

    def __enter__(self) -> BatchThreads:
        from threadpoolctl import threadpool_limits

        self.pool = ThreadPoolExecutor(self.threads)
        self.limits = threadpool_limits(1 if self.threads > 1 else None, user_api="blas")
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown()
        self.limits.restore_original_limits()

    def add_gradients(self, inputs: Any, targets: Any, scale: float = 1.0) -> float:
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

        rows = numpy.array_split(numpy.arange(len(inputs)), min(self.threads, len(inputs)))
        total = 0.0
        for loss, gradients in self.pool.map(part, rows):
            total += loss
            for p, g in zip(parameters, gradients, strict=True):
                accumulate(p, g)
        return total
