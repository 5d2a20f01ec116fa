"""Several processes train one model together, each on batches of its own (data parallelism)."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterable
from typing import Any

from ..backend import BackendError, backend_name
from ..optim import flatten_gradients
from ..tensor import Tensor

__all__ = ["Communicator", "communicator", "cores_for_each", "processes"]

COMMAND = "mpiexec -n {size} python -m mpi4py -m tinytransformer"


class Communicator:
    """What a process of a job needs of the others; this one is alone, and so has it already.

    All processes of a job call the same methods in the same order.

    Attributes
    ----------
    rank : int
        Number of this process, from 0. Process 0 alone writes and prints.
    size : int
        Number of processes.

    Examples
    --------
    >>> alone = Communicator()
    >>> alone.rank, alone.size, alone.sum(3.5), alone.gather("a")
    (0, 1, 3.5, ['a'])
    """

    rank = 0
    size = 1

    def sum(self, value: Any) -> Any:
        """Return the sum of the numbers that the processes give."""
        return value

    def broadcast(self, value: Any) -> Any:
        """Return what process 0 gives; the others wait for it."""
        return value

    def gather(self, value: Any) -> list[Any]:
        """Return what each process gives, in the order of their ranks."""
        return [value]

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes, in place."""

    def check_equal(self, parameters: Iterable[Tensor]) -> None:
        """See that the parameters are the same on all processes, bit by bit.

        Raises
        ------
        RuntimeError
            If they are not.
        """


class MPICommunicator(Communicator):
    """The processes that ``mpiexec`` started.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
    """

    def __init__(self, comm: Any):
        from threadpoolctl import threadpool_limits

        self.comm = comm
        self.rank, self.size = comm.rank, comm.size
        threadpool_limits(cores_for_each(), user_api="blas")  # each would take all cores of the machine

    def sum(self, value: Any) -> Any:
        return self.comm.allreduce(value)

    def broadcast(self, value: Any) -> Any:
        return self.comm.bcast(value)

    def gather(self, value: Any) -> list[Any]:
        return self.comm.allgather(value)

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Lay the gradients side by side, and add them up with one all-reduce."""
        from mpi4py import MPI

        flat = flatten_gradients(parameters)
        if backend_name(flat) != "numpy":
            raise BackendError("several processes train on NumPy only: leave out --backend, or mpiexec")
        self.comm.Allreduce(MPI.IN_PLACE, flat)

    def check_equal(self, parameters: Iterable[Tensor]) -> None:
        digest = hashlib.sha256()
        for p in parameters:
            digest.update(p.numpy().tobytes())
        if len(set(self.gather(digest.hexdigest()))) > 1:
            raise RuntimeError(
                "the processes no longer have the same weights: go on from the last checkpoint, and give all "
                "of them the same versions of the software"
            )


def communicator() -> Communicator:
    """Return the communicator of the job that this process belongs to.

    Raises
    ------
    ValueError
        If ``mpiexec`` started the process without ``-m mpi4py``: should one of them fail, the others would
        wait for it forever.

    Examples
    --------
    >>> communicator().size  # not started by mpiexec
    1
    """
    if processes() == 1:
        return Communicator()
    if "mpi4py" not in sys.modules:
        raise ValueError(f"several processes are started with: {COMMAND.format(size=processes())} train")
    from mpi4py import MPI

    return MPICommunicator(MPI.COMM_WORLD)


def processes() -> int:
    """Return how many processes ``mpiexec`` started with this one.

    Examples
    --------
    >>> processes()  # not started by mpiexec
    1
    """
    return _started("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")


def cores_for_each() -> int:
    """Return how many cores of this machine there are for each process of the job on it.

    Examples
    --------
    >>> cores_for_each() >= 1
    True
    """
    return max(1, (os.cpu_count() or 1) // _started("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE"))


def _started(*names: str) -> int:
    """Return a number of processes that mpiexec tells in one of these variables; 1 without it."""
    return int(next((os.environ[name] for name in names if name in os.environ), "1"))
