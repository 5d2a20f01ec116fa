"""Layer normalisation."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "layer_norm",
    lesson=7,
    title=Say("Layer normalisation", "层归一化"),
    task=Say(
        """Give the features of each position mean 0 and variance 1, then scale and shift them:
    γ (x - μ) / √(σ² + ε) + β.

    x: (..., d)
    gamma, beta: γ and β, (d,)
    eps: ε
    returns: (..., d); μ and σ² are mean and variance over the d features of one position""",
        """让每个位置的特征均值为 0、方差为 1，再缩放和平移：
    γ (x - μ) / √(σ² + ε) + β。

    x：(..., d)
    gamma、beta：γ 和 β，(d,)
    eps：ε
    返回：(..., d)；μ 和 σ² 是同一位置 d 个特征的均值和方差""",
    ),
)


@exercise.answer
def layer_norm(x, gamma, beta, eps=1e-5):
    mu = x.mean(axis=-1, keepdims=True)
    variance = x.var(axis=-1, keepdims=True)
    return gamma * (x - mu) / np.sqrt(variance + eps) + beta


@exercise.variant
def by_centred_squares(x, gamma, beta, eps=1e-5):
    d = x.shape[-1]
    centred = x - (x @ np.ones(d))[..., None] / d
    scale = ((centred * centred).sum(-1) / d + eps) ** -0.5
    return centred * scale[..., None] * gamma + beta


@exercise.variant
def with_einsum(x, gamma, beta, eps=1e-5):
    c = x - np.mean(x, -1)[..., np.newaxis]
    variance = np.einsum("...d,...d->...", c, c) / x.shape[-1]
    return np.einsum("...d,...,d->...d", c, 1 / np.sqrt(variance + eps), gamma) + beta


@exercise.variant
def position_by_position(x, gamma, beta, eps=1e-5):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        m = sum(row) / len(row)
        v = sum((row - m) ** 2) / len(row)
        rows.append((row - m) / (v + eps) ** 0.5 * gamma + beta)
    return np.array(rows).reshape(x.shape)


@exercise.shows("is right for many positions", "多个位置时正确", points=2)
def many(rng):
    return [
        (3 * rng.normal(size=(2, 3, 7)) + 1, rng.normal(size=7), rng.normal(size=7)),
        (rng.normal(size=(5, 5)) * 2, rng.normal(size=5), rng.normal(size=5)),
    ]


@exercise.shows("is right for one position", "只有一个位置时正确", points=1)
def one(rng):
    return [(rng.normal(size=5) - 2, rng.normal(size=5), rng.normal(size=5))]


@exercise.shows("is β where all features are equal", "所有特征相等时结果为 β", points=1)
def constant(rng):
    x = rng.normal(size=(3, 7))
    x[1] = 2.5
    return [(x, rng.normal(size=7), rng.normal(size=7))]


@exercise.shows("puts ε under the root, beside the variance", "ε 在根号内，与方差相加", points=1)
def small(rng):
    return [
        (1e-3 * rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=5), 1e-5),
        (rng.normal(size=(3, 5)), rng.normal(size=5), rng.normal(size=5), 0.5),
    ]


@exercise.mistake(
    "The variance is divided by d - 1: layer norm divides by d.",
    "方差除以了 d - 1：层归一化除以 d。",
)
def unbiased_variance(x, gamma, beta, eps=1e-5):
    mu, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True, ddof=1)
    return gamma * (x - mu) / np.sqrt(var + eps) + beta


@exercise.mistake(
    "The root is missing: divide by the standard deviation, not by the variance.",
    "漏了开方：应除以标准差，而不是方差。",
)
def root_forgotten(x, gamma, beta, eps=1e-5):
    mu, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return gamma * (x - mu) / (var + eps) + beta


@exercise.mistake(
    "Without ε a position whose features are all equal is 0/0 = NaN.",
    "没有 ε，特征全相等的位置会得到 0/0 = NaN。",
)
def without_eps(x, gamma, beta, eps=1e-5):
    mu, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return gamma * (x - mu) / np.sqrt(var) + beta


@exercise.mistake(
    "ε is added to the standard deviation: it belongs under the root.",
    "ε 加在了标准差上：它应在根号之内。",
)
def eps_outside_the_root(x, gamma, beta, eps=1e-5):
    mu, std = x.mean(-1, keepdims=True), x.std(-1, keepdims=True)
    return gamma * (x - mu) / (std + eps) + beta


@exercise.mistake(
    "You normalise over the positions: that is batch norm, and one text then depends on the others.",
    "你沿位置方向归一化：那是批归一化，一段文本会依赖于别的文本。",
)
def over_the_positions(x, gamma, beta, eps=1e-5):
    mu, var = x.mean(0, keepdims=True), x.var(0, keepdims=True)
    return gamma * (x - mu) / np.sqrt(var + eps) + beta


@exercise.mistake(
    "You normalise over the whole array: each position has a mean and a variance of its own.",
    "你对整个数组归一化：每个位置有自己的均值和方差。",
)
def over_everything(x, gamma, beta, eps=1e-5):
    return gamma * (x - x.mean()) / np.sqrt(x.var() + eps) + beta


@exercise.mistake(
    "The mean is not subtracted: that is RMS norm, which T5 and Llama use.",
    "没有减去均值：那是 RMS 归一化，T5 和 Llama 用的是它。",
)
def rms_norm(x, gamma, beta, eps=1e-5):
    return gamma * x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) + beta


@exercise.mistake(
    "β is divided by the standard deviation too: it is added at the end. With β = 0, as at the start of training, "
    "no one sees it.",
    "β 也被标准差除了：它应最后再加。训练开始时 β = 0，谁也看不出来。",
)
def beta_divided_too(x, gamma, beta, eps=1e-5):
    mu, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (gamma * (x - mu) + beta) / np.sqrt(var + eps)


@exercise.mistake(
    "γ and β are not used.",
    "没有使用 γ 和 β。",
)
def without_gamma_and_beta(x, gamma, beta, eps=1e-5):
    mu, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mu) / np.sqrt(var + eps)
