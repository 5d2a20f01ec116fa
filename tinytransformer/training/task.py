"""What a model is trained to do."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Batch", "Task"]

Batch = tuple[Any, ...]


class Task(Protocol):
    """What a model is asked to do, with which data: all that `Trainer` knows of it.

    A batch is a tuple of arrays, all with the sequences along their first axis: ``array[rows]`` of each is a
    smaller batch, which is how threads or processes share one.

    Attributes
    ----------
    tokens_per_batch : int
        Tokens that the model looks at in a batch, to tell how fast it goes.
    """

    tokens_per_batch: int

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: a pure function of it and the seed of the task, at any later time."""
        ...

    def loss(self, model: Any, *batch: Any) -> Any:
        """Return the mean loss over the targets of a batch, a Tensor with one number, in nats.

        It changes nothing but what it returns: a part of a batch may be computed in a copy of the process.
        """
        ...

    def count(self, *batch: Any) -> int:
        """Return how many targets the mean is over: so much a part of a batch weighs in the whole."""
        ...

    def validation_loss(self, model: Any) -> float:
        """Return the mean loss on held-out data, without dropout; it leaves the model's mode as it is."""
        ...
