"""Softmax over any axis."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "softmax",
    lesson=2,
    title=Say("Softmax over any axis", "任意轴上的 softmax"),
    task=Say(
        """Turn scores into probabilities.

    x: scores, an array of any shape
    axis: the axis along which the result adds up to 1
    returns: an array of the shape of x

    Scores may be as large as 1000; a score of -inf gets probability 0.""",
        """把得分变成概率。

    x：得分，任意形状的数组
    axis：沿这个轴，结果之和为 1
    返回：与 x 形状相同的数组

    得分可能大到 1000；得分为 -inf 时概率为 0。""",
    ),
)


@exercise.answer
def softmax(x, axis=-1):
    shifted = x - np.max(x, axis=axis, keepdims=True)
    exponentials = np.exp(shifted)
    return exponentials / np.sum(exponentials, axis=axis, keepdims=True)


@exercise.variant
def through_logarithm(x, axis=-1):
    top = np.expand_dims(x.max(axis), axis)
    log_total = top + np.log(np.exp(x - top).sum(axis, keepdims=True))
    return np.exp(x - log_total)


@exercise.variant
def axis_moved_to_the_end(x, axis=-1):
    rows = np.moveaxis(np.asarray(x), axis, -1)
    powers = np.exp(rows - rows.max(-1)[..., None])
    return np.moveaxis(powers / powers.sum(-1)[..., None], -1, axis)


@exercise.variant
def vector_by_vector(x, axis=-1):
    def of_vector(v):
        e = np.exp(v - max(v))
        return e / e.sum()

    return np.apply_along_axis(of_vector, axis, x)


@exercise.shows("is right along the last axis", "沿最后一个轴正确", points=2)
def last_axis(rng):
    return [(rng.normal(size=(3, 5)) * 3,), (rng.normal(size=7),), (rng.normal(size=(2, 3, 5)),)]


@exercise.shows("takes any axis", "可以沿任意轴", points=1)
def any_axis(rng):
    return [(rng.normal(size=(3, 5)), 0), (rng.normal(size=(2, 3, 5)), 1), (rng.normal(size=(5, 2)), -2)]


@exercise.shows("stays finite for large scores", "得分很大时仍有限", points=1)
def large(rng):
    return [(rng.normal(size=(3, 5)) + 1000,), (rng.normal(size=(2, 7)) * 400 - 2000,)]


@exercise.shows("gives probability 0 to -inf", "得分为 -inf 时概率为 0", points=1)
def impossible(rng):
    x = rng.normal(size=(3, 5))
    x[0, 2] = x[2, :4] = -np.inf
    return [(x,)]


@exercise.mistake(
    "Your function overflows: exp of a score of 1000 is inf, and inf / inf is NaN. Subtract the largest "
    "score first; the result is the same.",
    "溢出了：exp(1000) 是 inf，而 inf / inf 是 NaN。先减去最大的得分，结果不变。",
)
def no_maximum_subtracted(x, axis=-1):
    e = np.exp(x)
    return e / np.sum(e, axis=axis, keepdims=True)


@exercise.mistake(
    "Your columns add up to 1 whatever the axis: look at the axis of the sum.",
    "无论 axis 是什么，都是各列之和为 1：请看求和用的轴。",
)
def sums_down_the_columns(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=0)


@exercise.mistake(
    "The sum has lost its axis, so it divides along the wrong one, or the shapes do not fit: keepdims=True.",
    "求和后丢了那个轴，于是除错了方向（或形状不合）：需要 keepdims=True。",
)
def keepdims_forgotten(x, axis=-1):
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis)


@exercise.mistake(
    "Your function writes into its argument, and the caller's scores are gone: compute a new array.",
    "你的函数改写了传入的数组，调用者的得分就丢了：请另算一个新数组。",
)
def writes_into_its_argument(x, axis=-1):
    x -= np.max(x, axis=axis, keepdims=True)
    e = np.exp(x)
    return e / np.sum(e, axis=axis, keepdims=True)


@exercise.mistake(
    "You always normalise along the last axis: use the argument axis.",
    "总是沿最后一个轴归一化：请使用参数 axis。",
)
def ignores_the_axis(x, axis=-1):
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


@exercise.mistake(
    "These are log-probabilities: take exp of the result.",
    "这是对数概率：结果还要取 exp。",
)
def logarithm(x, axis=-1):
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))
