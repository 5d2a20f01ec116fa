"""Cross-entropy of logits, with tokens that do not count."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "cross_entropy",
    lesson=2,
    title=Say("Cross-entropy", "交叉熵"),
    task=Say(
        """Measure how far logits are from the right tokens.

    logits: scores, (N, V), as large as 1000
    targets: the right token of each row, integers, (N,); ignore_index where a row does not count
    ignore_index: stands for rows that do not count, such as padding
    returns: the mean of -log(probability of the right token), in nats, over the rows that count

    If no row counts it is 0.""",
        """衡量 logits 与正确词元相差多远。

    logits：得分，(N, V)，可大到 1000
    targets：每行正确的词元，整数，(N,)；不计入的行为 ignore_index
    ignore_index：表示不计入的行，例如填充
    返回：-log(正确词元的概率) 在计入的行上的平均值，单位为奈特

    若没有任何一行计入，则为 0。""",
    ),
)


@exercise.answer
def cross_entropy(logits, targets, ignore_index=-100):
    counted = targets != ignore_index
    logits, targets = logits[counted], targets[counted]
    if len(targets) == 0:
        return 0.0
    top = logits.max(axis=-1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(axis=-1)) + top[:, 0]
    return np.mean(log_sum - logits[np.arange(len(targets)), targets])


@exercise.variant
def by_mask(logits, targets, ignore_index=-100):
    keep = (targets != ignore_index).astype(float)
    safe = np.where(targets == ignore_index, 0, targets)
    z = logits - logits.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    picked = np.take_along_axis(log_p, safe[:, None], axis=-1)[:, 0]
    return -(picked * keep).sum() / max(keep.sum(), 1)


@exercise.variant
def row_by_row(logits, targets, ignore_index=-100):
    losses = []
    for row, t in zip(logits, targets, strict=True):
        if t != ignore_index:
            losses.append(np.log(np.sum(np.exp(row - row[t] - max(row - row[t])))) + max(row - row[t]))
    return sum(losses) / len(losses) if losses else 0.0


@exercise.variant
def with_logaddexp(logits, targets, ignore_index=-100):
    rows = np.flatnonzero(targets != ignore_index)
    if not rows.size:
        return 0.0
    total = np.logaddexp.reduce(logits[rows], axis=1) - logits[rows, targets[rows]]
    return total.sum() / rows.size


@exercise.shows("is right where all rows count", "所有行都计入时正确", points=2)
def all_rows(rng):
    return [(2 * rng.normal(size=(N, V)), rng.integers(V, size=N)) for N, V in [(7, 5), (3, 11), (1, 2)]]


@exercise.shows(
    "leaves out rows of ignore_index, whatever it is", "忽略 ignore_index 的行，无论它是几", points=2
)
def some_rows(rng):
    targets = rng.integers(5, size=11)
    targets[[1, 4, 5]] = -100
    zeros = rng.integers(1, 7, size=13)
    zeros[[0, 2, 9]] = 0
    many = rng.integers(200, size=5)
    many[3] = -100
    return [
        (rng.normal(size=(11, 5)), targets),
        (rng.normal(size=(13, 7)), zeros, 0),
        (rng.normal(size=(5, 200)), many),
    ]


@exercise.shows("stays finite for large logits", "logits 很大时仍有限", points=1)
def large(rng):
    return [(400 * rng.normal(size=(5, 7)) + 900, rng.integers(7, size=5))]


@exercise.shows("is 0 where no row counts", "没有任何一行计入时为 0", points=1)
def none(rng):
    return [(rng.normal(size=(3, 5)), np.full(3, -100)), (rng.normal(size=(3, 5)), np.array([2, 0, 4]))]


@exercise.mistake(
    "Softmax is applied twice: the loss then never falls below a floor, though the model still learns a little.",
    "softmax 做了两次：这样损失降不到某个下限以下，虽然模型还会学到一点。",
)
def softmax_twice(logits, targets, ignore_index=-100):
    counted = targets != ignore_index
    logits, targets = logits[counted], targets[counted]
    if len(targets) == 0:
        return 0.0
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    return np.mean(np.log(np.exp(p).sum(-1)) - p[np.arange(len(targets)), targets])


@exercise.mistake(
    "The mean is over all rows, those that do not count too: the more padding, the smaller the loss.",
    "你对所有行求平均，连不计入的行也算：填充越多，损失越小。",
)
def mean_over_padding_too(logits, targets, ignore_index=-100):
    keep = targets != ignore_index
    z = logits - logits.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -(log_p[np.arange(len(targets)), np.where(keep, targets, 0)] * keep).sum() / keep.size


@exercise.mistake(
    "The sign is lost: the loss is minus the log-probability, and never negative.",
    "符号丢了：损失是负的对数概率，永远不会是负数。",
)
def sign_lost(logits, targets, ignore_index=-100):
    counted = targets != ignore_index
    z = logits[counted] - logits[counted].max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return log_p[np.arange(counted.sum()), targets[counted]].sum() / max(counted.sum(), 1)


@exercise.mistake(
    "log_p[:, targets] is N by N: it picks every target from every row. Each row has its own target.",
    "log_p[:, targets] 是 N×N：它从每一行取出了所有目标。每一行只有自己的目标。",
)
def every_target_of_every_row(logits, targets, ignore_index=-100):
    counted = targets != ignore_index
    if not counted.any():
        return 0.0
    z = logits[counted] - logits[counted].max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -log_p[:, targets[counted]].mean()


@exercise.mistake(
    "The sum of exponentials runs over the whole batch: each row is a distribution of its own.",
    "指数之和遍及了整个批次：每一行各是一个分布。",
)
def normalises_the_whole_batch(logits, targets, ignore_index=-100):
    counted = targets != ignore_index
    if not counted.any():
        return 0.0
    z = logits[counted] - logits[counted].max()
    log_p = z - np.log(np.exp(z).sum())
    return -log_p[np.arange(len(z)), targets[counted]].mean()


@exercise.mistake(
    "exp of a logit of 1000 is inf: subtract the largest logit of the row first.",
    "exp(1000) 是 inf：先减去这一行最大的 logit。",
)
def no_maximum_subtracted(logits, targets, ignore_index=-100):
    counted = targets != ignore_index
    logits, targets = logits[counted], targets[counted]
    if len(targets) == 0:
        return 0.0
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.mean(np.log(p[np.arange(len(targets)), targets]))


@exercise.mistake(
    "This is the sum over the rows: the mean does not depend on how long a batch is.",
    "这是各行之和：平均值才与批次长短无关。",
)
def sum_for_mean(logits, targets, ignore_index=-100):
    counted = targets != ignore_index
    z = logits[counted] - logits[counted].max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -log_p[np.arange(counted.sum()), targets[counted]].sum() + 0.0


@exercise.mistake(
    "Rows that do not count are taken for token -100, counted from the end, or raise an IndexError: leave them "
    "out before you pick.",
    "不计入的行被当成倒数第 100 个词元，或引发 IndexError：取值之前先把它们去掉。",
)
def ignore_index_not_ignored(logits, targets, ignore_index=-100):
    z = logits - logits.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -log_p[np.arange(len(targets)), targets].mean()


@exercise.mistake(
    "Where no row counts the mean of nothing is NaN, and it would spread through all weights: give 0.",
    "没有任何一行计入时，空平均是 NaN，会传遍所有权重：应返回 0。",
)
def nan_where_nothing_counts(logits, targets, ignore_index=-100):
    counted = targets != ignore_index
    z = logits[counted] - logits[counted].max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -log_p[np.arange(counted.sum()), targets[counted]].sum() / np.float64(counted.sum())


@exercise.mistake(
    "ignore_index is taken for -100 whatever it is.",
    "无论 ignore_index 是几，都当成了 -100。",
)
def minus_100_whatever_is_asked(logits, targets, ignore_index=-100):
    counted = targets != -100
    logits, targets = logits[counted], targets[counted]
    if len(targets) == 0:
        return 0.0
    z = logits - logits.max(-1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -np.mean(log_p[np.arange(len(targets)), targets])
