"""GELU as GPT-2 has it, with its derivative."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "gelu",
    lesson=7,
    title=Say("GELU and its derivative", "GELU 及其导数"),
    task=Say(
        """The activation of GPT-2, x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³))), and its derivative.

    x: an array of any shape
    returns: two arrays of the shape of x: the values, and the derivatives at x""",
        """GPT-2 的激活函数 x/2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))，以及它的导数。

    x：任意形状的数组
    返回：两个与 x 形状相同的数组：函数值，以及在 x 处的导数""",
    ),
)


@exercise.answer
def gelu(x):
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x * x * x))
    inner = c * (1 + 3 * 0.044715 * x * x)
    return x / 2 * (1 + t), (1 + t) / 2 + x / 2 * (1 - t * t) * inner


@exercise.variant
def as_sigmoid(x):
    z = 2 * (2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)
    s = 1 / (1 + np.exp(-np.clip(z, -700, 700)))
    dz = 2 * (2 / np.pi) ** 0.5 * (1 + 0.134145 * x**2)
    return x * s, s + x * s * (1 - s) * dz


@exercise.variant
def entry_by_entry(x):
    import math

    c, out = math.sqrt(2 / math.pi), []
    for v in x.ravel().tolist():
        u = c * (v + 0.044715 * v**3)
        t = math.tanh(u)
        out.append((0.5 * v * (1 + t), 0.5 * (1 + t) + 0.5 * v * (1 - t**2) * c * (1 + 0.134145 * v**2)))
    return tuple(np.array(part).reshape(x.shape) for part in zip(*out, strict=True))


@exercise.variant
def by_complex_step(x):
    z = x + 1e-30j
    y = z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
    return y.real, y.imag / 1e-30


@exercise.driver
def drive(answer, which, x):
    return np.array(answer(x)[which])


@exercise.shows("has the right values", "函数值正确", points=2)
def values(rng):
    return [(0, 2 * rng.normal(size=(3, 5))), (0, rng.normal(size=7))]


@exercise.shows("has the right derivatives", "导数正确", points=2)
def slopes(rng):
    return [(1, 2 * rng.normal(size=(3, 5))), (1, rng.normal(size=7))]


@exercise.mistake(
    "This is x·sigmoid(1.702 x), another approximation: GPT-2 has the one with tanh.",
    "这是 x·sigmoid(1.702 x)，另一种近似：GPT-2 用的是 tanh 的那种。",
)
def sigmoid_approximation(x):
    s = 1 / (1 + np.exp(-1.702 * x))
    return x * s, s + 1.702 * x * s * (1 - s)


@exercise.mistake(
    "The inner derivative lacks the term of x³: 1 + 3 · 0.044715 x².",
    "内层导数缺少 x³ 那一项：应为 1 + 3 · 0.044715 x²。",
)
def inner_derivative_without_the_cube(x):
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return x / 2 * (1 + t), (1 + t) / 2 + x / 2 * (1 - t * t) * c


@exercise.mistake(
    "The derivative has only the first term of the product rule: tanh depends on x too.",
    "导数只有乘积法则的第一项：tanh 也依赖于 x。",
)
def half_of_the_product_rule(x):
    t = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    return x / 2 * (1 + t), (1 + t) / 2


@exercise.mistake(
    "The half in front is missing.",
    "前面的二分之一漏了。",
)
def half_missing(x):
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * (x + 0.044715 * x**3))
    return x * (1 + t), 1 + t + x * (1 - t * t) * c * (1 + 0.134145 * x * x)


@exercise.mistake(
    "The x³ is missing inside tanh.",
    "tanh 里面漏了 x³。",
)
def cube_missing(x):
    c = np.sqrt(2 / np.pi)
    t = np.tanh(c * x)
    return x / 2 * (1 + t), (1 + t) / 2 + x / 2 * (1 - t * t) * c


@exercise.mistake(
    "This is ReLU: GELU is smooth.",
    "这是 ReLU：GELU 是光滑的。",
)
def relu(x):
    return np.maximum(x, 0), (x > 0).astype(float)
