"""Dropout."""

import numpy as np

from ..exercise import Exercise, Say
from ..sandbox import Seed

exercise = Exercise(
    "dropout",
    lesson=7,
    title=Say("Dropout", "随机失活"),
    task=Say(
        """Drop each entry with probability p, and scale the others so that the mean stays as it was.

    x: an array of any shape
    p: probability of dropping, from 0 up to but not 1
    rng: a numpy Generator that draws
    training: False when the model is used and not trained: then nothing is dropped
    returns: an array of the shape of x""",
        """以概率 p 丢弃每个元素，并放大其余的，使平均值保持不变。

    x：任意形状的数组
    p：丢弃的概率，从 0 到 1，不含 1
    rng：用来抽取的 numpy Generator
    training：使用模型而不是训练它时为 False：这时什么也不丢
    返回：与 x 形状相同的数组""",
    ),
)


@exercise.driver
def drive(answer, x, p, rng, training):
    first = np.array(answer(x, p, rng, training))
    second = np.array(answer(x, p, rng, training))
    return first, second


@exercise.answer
def dropout(x, p, rng, training=True):
    if not training or p == 0:
        return x
    keep = rng.random(x.shape) >= p
    return x * keep / (1 - p)


@exercise.variant
def by_binomial(x, p, rng, training=True):
    return x * rng.binomial(1, 1 - p, size=x.shape) / (1 - p) if training else x.copy()


@exercise.variant
def by_where(x, p, rng, training=True):
    if not training:
        return x + 0.0
    return np.where(rng.uniform(size=x.shape) < p, 0.0, x / (1.0 - p))


@exercise.variant
def by_choice(x, p, rng, training=True):
    scale = rng.choice([0.0, 1 / (1 - p)], size=x.shape, p=[p, 1 - p])
    return x * (scale if training else 1)


def honest(arguments, value, right):
    """Compare what two answers dropped, and the scale of what they kept."""
    x, p = arguments[:2]
    (first, second), (other, other_second) = value, right
    if first.shape != x.shape:
        return Say(f"expected shape {x.shape}, got {first.shape}", f"形状应为 {x.shape}，得到 {first.shape}")
    if np.array_equal(first, x) != np.array_equal(other, x):
        return Say(
            "it should be the other way round: dropped in training, and only there",
            "应当反过来：训练时丢弃，且只在训练时",
        )
    kept, kept_by_other = first != 0, other != 0
    if abs(kept.mean() - kept_by_other.mean()) > 7 * np.sqrt(p * (1 - p) / x.size):
        return Say(
            f"{kept.mean():.0%} were kept, and {kept_by_other.mean():.0%} were expected",
            f"保留了 {kept.mean():.0%}，应保留 {kept_by_other.mean():.0%}",
        )
    factor = np.median(first[kept] / x[kept])
    expected = np.median(other[kept_by_other] / x[kept_by_other])
    if not np.allclose(first[kept], x[kept] * expected):
        return Say(
            f"what is kept was multiplied by {factor:.4g}, and {expected:.4g} was expected",
            f"保留的元素乘了 {factor:.4g}，应乘 {expected:.4g}",
        )
    if np.array_equal(first, second) != np.array_equal(other, other_second):
        return Say("two calls dropped the same entries", "两次调用丢弃了相同的元素")
    rows, rows_of_other = (k.reshape(-1, x.shape[-1]) for k in (kept, kept_by_other))
    if (rows == rows[:1]).all() != (rows_of_other == rows_of_other[:1]).all():
        return Say("every row lost the same entries", "每一行丢弃的都是相同的元素")
    return None


def given(rng, p, training, size):
    return (np.abs(rng.normal(size=size)) + 0.1, p, Seed(int(rng.integers(10**6))), training)


@exercise.shows(
    "drops a part of p, and scales the rest by 1/(1-p)",
    "丢弃比例为 p，其余乘以 1/(1-p)",
    points=3,
    judge=honest,
)
def trained(rng):
    return [given(rng, 0.2, True, (53, 71)), given(rng, 0.7, True, (31, 5, 17))]


@exercise.shows("drops nothing outside of training", "不在训练时什么也不丢", points=1, judge=honest)
def used(rng):
    return [given(rng, 0.3, False, (3, 5)), given(rng, 0.3, True, (53, 71))]


@exercise.mistake(
    "You divide by p: right for p = 0.5 alone. Kept entries are a part of 1 - p.",
    "你除以了 p：只有 p = 0.5 时才对。保留的比例是 1 - p。",
)
def divided_by_p(x, p, rng, training=True):
    return x * (rng.random(x.shape) >= p) / p if training else x


@exercise.mistake(
    "You keep with probability p: p is the probability of dropping.",
    "你以概率 p 保留：p 是丢弃的概率。",
)
def keeps_a_part_of_p(x, p, rng, training=True):
    return x * (rng.random(x.shape) < p) / (1 - p) if training else x


@exercise.mistake(
    "What is kept is not scaled up: in use, when nothing is dropped, all sums would be larger than in training.",
    "保留的元素没有放大：使用时什么也不丢，所有的和都会比训练时大。",
)
def not_scaled(x, p, rng, training=True):
    return x * (rng.random(x.shape) >= p) if training else x


@exercise.mistake(
    "The generator is made anew in each call: the same entries are dropped every time. Use rng.",
    "每次调用都重新造了一个生成器：每次丢的都是同样的元素。请使用 rng。",
)
def same_mask_in_each_call(x, p, rng, training=True):
    return x * (np.random.default_rng(0).random(x.shape) >= p) / (1 - p) if training else x


@exercise.mistake(
    "It drops outside of training too.",
    "不在训练时也丢弃了。",
)
def drops_in_use_too(x, p, rng, training=True):
    return x * (rng.random(x.shape) >= p) / (1 - p)


@exercise.mistake(
    "One row of the mask serves all rows: every position loses the same features.",
    "所有行共用一行掩码：每个位置丢掉的是同样的特征。",
)
def one_mask_for_all_rows(x, p, rng, training=True):
    return x * (rng.random(x.shape[-1]) >= p) / (1 - p) if training else x
