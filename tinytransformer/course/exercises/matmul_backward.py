"""The gradient of a product of matrices."""

import numpy as np

from ..exercise import Exercise, Say
from .unbroadcast import unbroadcast

exercise = Exercise(
    "matmul_backward",
    lesson=1,
    title=Say("The gradient of a matrix product", "矩阵乘积的梯度"),
    task=Say(
        """Take a gradient back through a @ b.

    g: the gradient of the loss with respect to a @ b
    a, b: matrices, (..., m, k) and (..., k, n); the axes before the last two broadcast; or vectors (k,)
    returns: the gradients of a and of b, each of the shape of its operand

    You may call unbroadcast(g, shape).""",
        """让梯度反向通过 a @ b。

    g：损失对 a @ b 的梯度
    a、b：矩阵，(..., m, k) 和 (..., k, n)；最后两个轴之前的轴会广播；也可以是向量 (k,)
    返回：a 的梯度和 b 的梯度，形状各与操作数相同

    可以调用 unbroadcast(g, shape)。""",
    ),
    uses=("unbroadcast",),
)


@exercise.answer
def matmul_backward(g, a, b):
    A = a[np.newaxis, :] if a.ndim == 1 else a
    B = b[:, np.newaxis] if b.ndim == 1 else b
    if b.ndim == 1:
        g = g[..., np.newaxis]
    if a.ndim == 1:
        g = g[..., np.newaxis, :]
    dA = unbroadcast(g @ np.swapaxes(B, -1, -2), A.shape)
    dB = unbroadcast(np.swapaxes(A, -1, -2) @ g, B.shape)
    return dA.reshape(a.shape), dB.reshape(b.shape)


@exercise.variant
def with_einsum(g, a, b):
    A, B = np.atleast_2d(a), b[:, None] if b.ndim == 1 else b
    G = np.reshape(g, (*np.broadcast_shapes(A.shape[:-2], B.shape[:-2]), A.shape[-2], B.shape[-1]))
    dA = np.einsum("...mn,...kn->...mk", G, B)
    dB = np.einsum("...mk,...mn->...kn", A, G)
    return unbroadcast(dA, A.shape).reshape(a.shape), unbroadcast(dB, B.shape).reshape(b.shape)


@exercise.variant
def case_by_case(g, a, b):
    if a.ndim == 1 and b.ndim == 1:
        return g * b, g * a
    if b.ndim == 1:
        return g[..., None] * b, (g[..., None] * a).reshape(-1, b.size).sum(0)
    if a.ndim == 1:
        db = a[:, None] * g[..., None, :]
        return (b * g[..., None, :]).sum(-1).reshape(-1, a.size).sum(0), db
    return unbroadcast(g @ b.mT, a.shape), unbroadcast(a.mT @ g, b.shape)


@exercise.variant
def product_by_product(g, a, b):
    A, B = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    batch = np.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    G = np.reshape(g, (*batch, A.shape[-2], B.shape[-1]))
    dA, dB = np.zeros((*batch, *A.shape[-2:])), np.zeros((*batch, *B.shape[-2:]))
    A_all, B_all = np.broadcast_to(A, dA.shape), np.broadcast_to(B, dB.shape)
    for place in np.ndindex(*batch):
        dA[place], dB[place] = G[place] @ B_all[place].T, A_all[place].T @ G[place]
    return unbroadcast(dA, A.shape).reshape(a.shape), unbroadcast(dB, B.shape).reshape(b.shape)


@exercise.shows("is right for two matrices", "两个矩阵时正确", points=2)
def matrices(rng):
    return [
        (rng.normal(size=(3, 7)), rng.normal(size=(3, 5)), rng.normal(size=(5, 7))),
        (rng.normal(size=(5, 5)), rng.normal(size=(5, 5)), rng.normal(size=(5, 5))),
    ]


@exercise.shows("is right for batches of matrices", "成批的矩阵时正确", points=1)
def batches(rng):
    return [(rng.normal(size=(2, 3, 7)), rng.normal(size=(2, 3, 5)), rng.normal(size=(2, 5, 7)))]


@exercise.shows("is right where the batch axes broadcast", "批次轴广播时正确", points=1)
def broadcast(rng):
    return [
        (rng.normal(size=(2, 3, 7)), rng.normal(size=(2, 3, 5)), rng.normal(size=(5, 7))),
        (rng.normal(size=(2, 11, 3, 7)), rng.normal(size=(2, 1, 3, 5)), rng.normal(size=(11, 5, 7))),
    ]


@exercise.shows("is right for vectors", "向量时正确", points=1)
def vectors(rng):
    return [
        (rng.normal(size=3), rng.normal(size=(3, 5)), rng.normal(size=5)),
        (rng.normal(size=7), rng.normal(size=5), rng.normal(size=(5, 7))),
        (rng.normal(size=()), rng.normal(size=5), rng.normal(size=5)),
        (rng.normal(size=(2, 3)), rng.normal(size=(2, 3, 5)), rng.normal(size=5)),
    ]


@exercise.mistake(
    "b must be transposed in the gradient of a: without it the shapes fit only where b is square, and the values never.",
    "求 a 的梯度时 b 要转置：不转置，只有 b 是方阵时形状才合，而数值从来不对。",
)
def b_not_transposed(g, a, b):
    return unbroadcast(g @ b, a.shape), unbroadcast(np.swapaxes(a, -1, -2) @ g, b.shape)


@exercise.mistake(
    ".T turns all axes around: with a batch swap the last two only.",
    ".T 会把所有轴倒过来：有批次轴时只交换最后两个轴。",
)
def transposes_all_axes(g, a, b):
    return unbroadcast(g @ b.T, a.shape), unbroadcast(a.T @ g, b.shape)


@exercise.mistake(
    "The gradients still have the axes of the batch: an operand that was broadcast gets the sum over them.",
    "梯度还带着批次轴：被广播的操作数应得到沿这些轴的和。",
)
def broadcasting_not_undone(g, a, b):
    A, B = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    G = np.reshape(g, (*np.broadcast_shapes(A.shape[:-2], B.shape[:-2]), A.shape[-2], B.shape[-1]))
    dA, dB = G @ np.swapaxes(B, -1, -2), np.swapaxes(A, -1, -2) @ G
    return dA.reshape(a.shape) if dA.size == a.size else dA, dB.reshape(b.shape) if dB.size == b.size else dB


@exercise.mistake(
    "You take the mean over the batch where the sum is needed: the gradient is too small by its size.",
    "该沿批次求和的地方取了平均：梯度小了批次大小那么多倍。",
)
def mean_over_the_batch(g, a, b):
    A, B = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    G = np.reshape(g, (*np.broadcast_shapes(A.shape[:-2], B.shape[:-2]), A.shape[-2], B.shape[-1]))
    dA, dB = G @ np.swapaxes(B, -1, -2), np.swapaxes(A, -1, -2) @ G
    dA, dB = (unbroadcast(d, D.shape) * D.size / d.size for d, D in ((dA, A), (dB, B)))
    return dA.reshape(a.shape), dB.reshape(b.shape)


@exercise.mistake(
    "A vector is taken for a matrix: NumPy gives it an axis for the product and takes it away again, and the gradient "
    "must do the same.",
    "把向量当成了矩阵：NumPy 做乘积时给它补一个轴，之后再去掉，梯度也要照做。",
)
def vectors_taken_for_matrices(g, a, b):
    da = unbroadcast(g @ (b.T if b.ndim == 1 else np.swapaxes(b, -1, -2)), a.shape)
    db = unbroadcast((a.T if a.ndim == 1 else np.swapaxes(a, -1, -2)) @ g, b.shape)
    return da, db


@exercise.mistake(
    "The two gradients are in the wrong order: first that of a, then that of b.",
    "两个梯度的顺序反了：先是 a 的，再是 b 的。",
)
def in_the_wrong_order(g, a, b):
    A, B = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    G = np.reshape(g, (*np.broadcast_shapes(A.shape[:-2], B.shape[:-2]), A.shape[-2], B.shape[-1]))
    dA, dB = G @ np.swapaxes(B, -1, -2), np.swapaxes(A, -1, -2) @ G
    return unbroadcast(dB, B.shape).reshape(b.shape), unbroadcast(dA, A.shape).reshape(a.shape)
