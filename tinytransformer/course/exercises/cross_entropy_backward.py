"""The gradient of cross-entropy."""

import numpy as np

from ..exercise import Exercise, Say
from .softmax import softmax

exercise = Exercise(
    "cross_entropy_backward",
    lesson=2,
    title=Say("The gradient of cross-entropy", "交叉熵的梯度"),
    task=Say(
        """Find the gradient of the mean cross-entropy with respect to the logits.

    logits: scores, (N, V)
    targets: the right token of each row, integers, (N,); -100 where a row does not count
    returns: the gradient of the mean loss over the rows that count, (N, V); zero in rows that do not count

    You may call softmax.""",
        """求平均交叉熵对 logits 的梯度。

    logits：得分，(N, V)
    targets：每行正确的词元，整数，(N,)；不计入的行为 -100
    返回：在计入的行上的平均损失的梯度，(N, V)；不计入的行梯度为零

    可以调用 softmax。""",
    ),
    uses=("softmax",),
)


@exercise.answer
def cross_entropy_backward(logits, targets):
    counted = np.flatnonzero(targets != -100)
    gradient = np.zeros(logits.shape)
    gradient[counted] = softmax(logits[counted])
    gradient[counted, targets[counted]] -= 1
    return gradient / max(len(counted), 1)


@exercise.variant
def with_one_hot(logits, targets):
    keep = targets != -100
    p = np.exp(logits - logits.max(1, keepdims=True))
    p = p / p.sum(1, keepdims=True)
    right = np.arange(logits.shape[1]) == targets[:, None]
    return (p - right) * keep[:, None] / max(keep.sum(), 1)


@exercise.variant
def row_by_row(logits, targets):
    rows = []
    number = np.count_nonzero(targets != -100)
    for z, t in zip(logits, targets, strict=True):
        e = np.exp(z - z.max())
        row = e / e.sum()
        if t >= 0:
            row[t] -= 1
        rows.append(row / number if t >= 0 else 0 * row)
    return np.array(rows)


@exercise.variant
def through_log_softmax(logits, targets):
    keep = targets != -100
    g = np.zeros_like(logits)
    g[keep, targets[keep]] = -1 / max(1, keep.sum())
    log_total = np.logaddexp.reduce(logits, axis=-1)[:, None]
    return g - np.exp(logits - log_total) * g.sum(-1, keepdims=True)


@exercise.shows("is right where all rows count", "所有行都计入时正确", points=2)
def all_rows(rng):
    return [(2 * rng.normal(size=(N, V)), rng.integers(V, size=N)) for N, V in [(7, 5), (3, 11)]]


@exercise.shows(
    "is zero in rows that do not count, and divides by those that do",
    "不计入的行为零，且只除以计入的行数",
    points=2,
)
def some_rows(rng):
    targets = rng.integers(5, size=11)
    targets[[1, 4, 5]] = -100
    wide = rng.integers(200, size=5)
    wide[2] = -100
    return [(rng.normal(size=(11, 5)), targets), (rng.normal(size=(5, 200)), wide)]


@exercise.shows("stays finite where no row counts", "没有任何一行计入时仍有限", points=1)
def none(rng):
    return [(rng.normal(size=(3, 5)), np.full(3, -100)), (rng.normal(size=(3, 5)), np.array([2, 0, 4]))]


@exercise.mistake(
    "You divide by N·V: the mean is over rows, not over all entries.",
    "你除以了 N·V：平均是对行，而不是对所有元素。",
)
def divided_by_all_entries(logits, targets):
    keep = targets != -100
    gradient = softmax(logits)
    gradient[np.arange(len(targets)), np.where(keep, targets, 0)] -= 1
    return gradient * keep[:, None] / logits.size


@exercise.mistake(
    "You divide by N: rows that do not count are no part of the mean.",
    "你除以了 N：不计入的行不参与平均。",
)
def divided_by_all_rows(logits, targets):
    keep = targets != -100
    gradient = softmax(logits)
    gradient[np.arange(len(targets)), np.where(keep, targets, 0)] -= 1
    return gradient * keep[:, None] / len(targets)


@exercise.mistake(
    "This is the gradient of the sum: the loss is a mean, so divide by the number of rows that count.",
    "这是损失之和的梯度：损失是平均值，要除以计入的行数。",
)
def not_divided(logits, targets):
    keep = targets != -100
    gradient = softmax(logits)
    gradient[np.arange(len(targets)), np.where(keep, targets, 0)] -= 1
    return gradient * keep[:, None]


@exercise.mistake(
    "The sign is turned around: a step against this gradient makes the right token less likely.",
    "符号反了：沿这个梯度的反方向走，正确词元会更不可能。",
)
def sign_turned_around(logits, targets):
    keep = targets != -100
    gradient = -softmax(logits)
    gradient[np.arange(len(targets)), np.where(keep, targets, 0)] += 1
    return gradient * keep[:, None] / max(keep.sum(), 1)


@exercise.mistake(
    "Rows that do not count still pull all their logits down: their gradient is zero.",
    "不计入的行仍在改变它们的 logits：它们的梯度应为零。",
)
def padding_has_a_gradient(logits, targets):
    keep = targets != -100
    gradient = softmax(logits)
    gradient[keep, targets[keep]] -= 1
    return gradient / max(keep.sum(), 1)


@exercise.mistake(
    "Only the right token has a gradient here: the others are pushed down by their probability.",
    "这里只有正确词元有梯度：其他词元也要按各自的概率被压低。",
)
def right_token_alone(logits, targets):
    keep = targets != -100
    p = softmax(logits)
    right = (np.arange(logits.shape[1]) == targets[:, None]) & keep[:, None]
    return np.where(right, p - 1, 0) / max(keep.sum(), 1)


@exercise.mistake(
    "This subtracts 1 in every column of a target, in every row: index row and column together.",
    "这样每一行都在所有目标列上减了 1：应同时给出行号和列号。",
)
def subtracts_in_every_row(logits, targets):
    keep = targets != -100
    gradient = softmax(logits)
    gradient[:, targets[keep]] -= 1
    return gradient * keep[:, None] / max(keep.sum(), 1)
