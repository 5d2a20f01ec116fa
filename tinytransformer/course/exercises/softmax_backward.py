"""The gradient of softmax."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "softmax_backward",
    lesson=2,
    title=Say("The gradient of softmax", "softmax 的梯度"),
    task=Say(
        """Take a gradient back through softmax.

    g: the gradient of the loss with respect to the probabilities, an array of any shape
    s: the probabilities, the output of softmax, of the same shape
    axis: the axis along which s adds up to 1
    returns: the gradient of the loss with respect to the scores, of the same shape

    Build no matrix of derivatives: its size is the square of that of a row.""",
        """让梯度反向通过 softmax。

    g：损失对概率的梯度，任意形状的数组
    s：概率，即 softmax 的输出，形状相同
    axis：s 沿这个轴之和为 1
    返回：损失对得分的梯度，形状相同

    不要构造导数矩阵：它的大小是一行长度的平方。""",
    ),
)


@exercise.answer
def softmax_backward(g, s, axis=-1):
    along = np.sum(g * s, axis=axis, keepdims=True)
    return s * (g - along)


@exercise.variant
def with_jacobian(g, s, axis=-1):
    rows, g_rows = np.moveaxis(s, axis, -1), np.moveaxis(g, axis, -1)
    J = rows[..., :, None] * np.eye(rows.shape[-1]) - rows[..., :, None] * rows[..., None, :]
    return np.moveaxis((J @ g_rows[..., None])[..., 0], -1, axis)


@exercise.variant
def product_first(g, s, axis=-1):
    product = g * s
    return product - s * np.expand_dims(product.sum(axis), axis)


@exercise.variant
def row_by_row(g, s, axis=-1):
    both = np.stack([g, s])
    place = axis if axis < 0 else axis + 1
    rows = np.moveaxis(both, place, -1)
    out = np.empty_like(rows[0])
    for index in np.ndindex(*out.shape[:-1]):
        g_row, s_row = rows[0][index], rows[1][index]
        out[index] = s_row * (g_row - g_row @ s_row)
    return np.moveaxis(out, -1, axis)


@exercise.shows("is right for one row", "只有一行时正确", points=1)
def row(rng):
    return [(rng.normal(size=7), rng.dirichlet(np.full(7, 0.8)))]


@exercise.shows("is right for many rows", "多行时正确", points=2)
def rows(rng):
    return [(rng.normal(size=(2, 3, 5)), rng.dirichlet(np.full(5, 0.8), size=(2, 3)))]


@exercise.shows("takes any axis", "可以沿任意轴", points=1)
def any_axis(rng):
    s = np.moveaxis(rng.dirichlet(np.full(3, 0.8), size=(2, 5)), -1, 1)
    return [(rng.normal(size=(2, 3, 5)), s, 1), (rng.normal(size=(3, 7)), rng.dirichlet(np.ones(3), 7).T, 0)]


@exercise.shows("is zero for a gradient that is the same everywhere", "梯度处处相同时结果为零", points=1)
def constant(rng):
    s = rng.dirichlet(np.full(5, 0.8), size=3)
    return [(np.full((3, 5), rng.normal()), s), (rng.normal(size=(3, 5)), s)]


@exercise.mistake(
    "This is the diagonal of the derivative alone, as for a sigmoid: each probability also depends on all other "
    "scores of its row.",
    "这只是导数矩阵的对角线，像 sigmoid 那样：每个概率还依赖于同一行的所有其他得分。",
)
def diagonal_alone(g, s, axis=-1):
    return g * s * (1 - s)


@exercise.mistake(
    "You subtract the mean of g·s where its sum is needed.",
    "减去的是 g·s 的平均值，应当是它的和。",
)
def mean_for_sum(g, s, axis=-1):
    return s * (g - np.mean(g * s, axis=axis, keepdims=True))


@exercise.mistake(
    "You subtract the sum of g: it must be weighted with the probabilities.",
    "减去的是 g 的和：应当用概率加权。",
)
def sum_not_weighted(g, s, axis=-1):
    return s * (g - np.sum(g, axis=axis, keepdims=True))


@exercise.mistake(
    "The factor s in front is missing.",
    "前面少乘了 s。",
)
def factor_missing(g, s, axis=-1):
    return g - np.sum(g * s, axis=axis, keepdims=True)


@exercise.mistake(
    "The sum runs along the last axis whatever the argument axis.",
    "无论参数 axis 是什么，求和总沿最后一个轴。",
)
def ignores_the_axis(g, s, axis=-1):
    return s * (g - np.sum(g * s, axis=-1, keepdims=True))


@exercise.mistake(
    "The sum runs over everything: rows have nothing to do with one another.",
    "求和遍及了整个数组：各行之间互不相关。",
)
def sums_over_all(g, s, axis=-1):
    return s * (g - np.sum(g * s))


@exercise.mistake(
    "This is the gradient through log-softmax: softmax was not followed by a logarithm.",
    "这是通过 log-softmax 的梯度：这里的 softmax 之后并没有取对数。",
)
def of_log_softmax(g, s, axis=-1):
    return g - s * np.sum(g, axis=axis, keepdims=True)
