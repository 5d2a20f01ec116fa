"""Kernels in CUDA for arrays on a GPU: same formulas, same signature, chosen by where the arrays live.

The ``.cu`` files hold what runs on the GPU, and the module of the same name launches it. CuPy compiles them
when one is first used. Matrix products are cuBLAS's; the kernels fuse what lies between them, since a GPU
waits for memory there. None of them makes the host wait.
"""

from . import activations, attention, embedding, losses, normalization, optimizer, softmax

__all__ = ["activations", "attention", "embedding", "losses", "normalization", "optimizer", "softmax"]
