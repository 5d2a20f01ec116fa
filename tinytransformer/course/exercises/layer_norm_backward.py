"""The gradient of layer normalisation."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "layer_norm_backward",
    lesson=7,
    title=Say("The gradient of layer normalisation", "层归一化的梯度"),
    task=Say(
        """Take a gradient back through γ (x - μ) / √(σ² + ε) + β.

    g: the gradient of the loss with respect to the output, (..., d)
    x: the input, (..., d)
    gamma: γ, (d,)
    eps: ε
    returns: the gradients of x (..., d), of γ (d,) and of β (d,)""",
        """让梯度反向通过 γ (x - μ) / √(σ² + ε) + β。

    g：损失对输出的梯度，(..., d)
    x：输入，(..., d)
    gamma：γ，(d,)
    eps：ε
    返回：x 的梯度 (..., d)、γ 的梯度 (d,) 和 β 的梯度 (d,)""",
    ),
)


@exercise.answer
def layer_norm_backward(g, x, gamma, eps=1e-5):
    rest = tuple(range(x.ndim - 1))
    inverse = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    normed = (x - x.mean(axis=-1, keepdims=True)) * inverse
    h = g * gamma
    along = np.mean(h * normed, axis=-1, keepdims=True)
    dx = inverse * (h - h.mean(axis=-1, keepdims=True) - normed * along)
    return dx, np.sum(g * normed, axis=rest), np.sum(g, axis=rest)


@exercise.variant
def step_by_step(g, x, gamma, eps=1e-5):
    d = x.shape[-1]
    c = x - x.mean(-1, keepdims=True)
    v = (c**2).mean(-1, keepdims=True) + eps
    n = c / v**0.5
    dn = g * gamma
    dv = (dn * c).sum(-1, keepdims=True) * -0.5 * v**-1.5
    dc = dn / v**0.5 + dv * 2 * c / d
    dx = dc - dc.sum(-1, keepdims=True) / d
    return dx, (g * n).reshape(-1, d).sum(0), g.reshape(-1, d).sum(0)


@exercise.variant
def by_projection(g, x, gamma, eps=1e-5):
    d = x.shape[-1]
    flat, G = x.reshape(-1, d), g.reshape(-1, d)
    centre = np.eye(d) - 1 / d
    c = flat @ centre
    s = np.sqrt((c * c).mean(1) + eps)[:, None]
    n = c / s
    h = (G * gamma) / s
    dx = (h - n * (h * n).sum(1, keepdims=True) / d) @ centre
    return dx.reshape(x.shape), (G * n).sum(0), G.sum(0)


@exercise.variant
def by_jacobian(g, x, gamma, eps=1e-5):
    d = x.shape[-1]
    dx, dgamma = np.zeros(x.shape), np.zeros(d)
    for place in np.ndindex(*x.shape[:-1]):
        row = x[place]
        s = np.sqrt(row.var() + eps)
        n = (row - row.mean()) / s
        J = (np.eye(d) - 1 / d - np.outer(n, n) / d) / s
        dx[place] = J @ (g[place] * gamma)
        dgamma += g[place] * n
    return dx, dgamma, g.reshape(-1, d).sum(axis=0)


@exercise.driver
def drive(answer, which, g, x, gamma, eps):
    return np.array(answer(g, x, gamma, eps)[which])


@exercise.shows("has the right gradient of x", "x 的梯度正确", points=3)
def of_x(rng):
    shapes = [(2, 3, 7), (5, 3), (11,)]
    return [
        (0, rng.normal(size=s), 2 * rng.normal(size=s) + 1, rng.normal(size=s[-1:]), 1e-5) for s in shapes
    ] + [(0, rng.normal(size=(3, 5)), rng.normal(size=(3, 5)), rng.normal(size=5), 0.3)]


@exercise.shows("has the right gradient of γ", "γ 的梯度正确", points=1)
def of_gamma(rng):
    return [
        (1, rng.normal(size=s), 2 * rng.normal(size=s) + 1, rng.normal(size=s[-1:]), 1e-5)
        for s in [(2, 3, 7), (5, 3)]
    ]


@exercise.shows("has the right gradient of β", "β 的梯度正确", points=1)
def of_beta(rng):
    return [
        (2, rng.normal(size=s), 2 * rng.normal(size=s) + 1, rng.normal(size=s[-1:]), 1e-5)
        for s in [(2, 3, 7), (5, 3)]
    ]


@exercise.mistake(
    "The variance depends on x too: the term with normed · mean(h · normed) is missing. A gradient of ones would not show it.",
    "方差也依赖于 x：缺少 normed · mean(h · normed) 这一项。用全一的梯度检查看不出来。",
)
def variance_taken_as_constant(g, x, gamma, eps=1e-5):
    rest = tuple(range(x.ndim - 1))
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    n, h = (x - x.mean(-1, keepdims=True)) * inverse, g * gamma
    return inverse * (h - h.mean(-1, keepdims=True)), (g * n).sum(rest), g.sum(rest)


@exercise.mistake(
    "The mean depends on x too: subtract the mean of the gradient.",
    "均值也依赖于 x：要减去梯度的均值。",
)
def mean_taken_as_constant(g, x, gamma, eps=1e-5):
    rest = tuple(range(x.ndim - 1))
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    n, h = (x - x.mean(-1, keepdims=True)) * inverse, g * gamma
    return inverse * (h - n * (h * n).mean(-1, keepdims=True)), (g * n).sum(rest), g.sum(rest)


@exercise.mistake(
    "Mean and variance are taken as constants: both depend on x.",
    "把均值和方差都当成了常数：它们都依赖于 x。",
)
def both_taken_as_constants(g, x, gamma, eps=1e-5):
    rest = tuple(range(x.ndim - 1))
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    n = (x - x.mean(-1, keepdims=True)) * inverse
    return inverse * g * gamma, (g * n).sum(rest), g.sum(rest)


@exercise.mistake(
    "γ is missing in the gradient of x: g must be multiplied by it first.",
    "x 的梯度里漏了 γ：要先用它乘 g。",
)
def gamma_missing(g, x, gamma, eps=1e-5):
    rest = tuple(range(x.ndim - 1))
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    n = (x - x.mean(-1, keepdims=True)) * inverse
    dx = inverse * (g - g.mean(-1, keepdims=True) - n * (g * n).mean(-1, keepdims=True))
    return dx, (g * n).sum(rest), g.sum(rest)


@exercise.mistake(
    "The gradients of γ and β are means over the positions: they are sums.",
    "γ 和 β 的梯度取了各位置的平均：应当求和。",
)
def means_for_the_parameters(g, x, gamma, eps=1e-5):
    rest = tuple(range(x.ndim - 1))
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    n, h = (x - x.mean(-1, keepdims=True)) * inverse, g * gamma
    dx = inverse * (h - h.mean(-1, keepdims=True) - n * (h * n).mean(-1, keepdims=True))
    return dx, (g * n).mean(rest), g.mean(rest)


@exercise.mistake(
    "The gradients of γ and β still have an entry for each position: all positions share γ and β, so add them up.",
    "γ 和 β 的梯度还保留着每个位置：所有位置共用 γ 和 β，应当加起来。",
)
def parameters_not_summed(g, x, gamma, eps=1e-5):
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    n, h = (x - x.mean(-1, keepdims=True)) * inverse, g * gamma
    dx = inverse * (h - h.mean(-1, keepdims=True) - n * (h * n).mean(-1, keepdims=True))
    return dx, g * n, g


@exercise.mistake(
    "The gradient of γ takes x as it came in: γ was multiplied by the normalised x.",
    "γ 的梯度用了原来的 x：γ 乘的是归一化之后的 x。",
)
def gamma_with_raw_x(g, x, gamma, eps=1e-5):
    rest = tuple(range(x.ndim - 1))
    inverse = 1 / np.sqrt(x.var(-1, keepdims=True) + eps)
    n, h = (x - x.mean(-1, keepdims=True)) * inverse, g * gamma
    dx = inverse * (h - h.mean(-1, keepdims=True) - n * (h * n).mean(-1, keepdims=True))
    return dx, (g * x).sum(rest), g.sum(rest)
