"""Positions as sines and cosines."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "sinusoidal_positions",
    lesson=6,
    title=Say("Sinusoidal positions", "正弦位置编码"),
    task=Say(
        """Write positions as waves of many lengths (Vaswani et al., 2017, section 3.5):
    PE[p, 2i] = sin(p / 10000^(2i/d)) and PE[p, 2i+1] = cos(p / 10000^(2i/d)).

    T: number of positions, from 0
    d: number of features, even
    returns: PE, (T, d)""",
        """用许多不同波长的波表示位置（Vaswani 等，2017，第 3.5 节）：
    PE[p, 2i] = sin(p / 10000^(2i/d))，PE[p, 2i+1] = cos(p / 10000^(2i/d))。

    T：位置个数，从 0 开始
    d：特征个数，偶数
    返回：PE，(T, d)""",
    ),
)


@exercise.answer
def sinusoidal_positions(T, d):
    two_i = np.arange(0, d, 2)
    angles = np.arange(T)[:, None] / 10000 ** (two_i / d)
    PE = np.empty((T, d))
    PE[:, 0::2] = np.sin(angles)
    PE[:, 1::2] = np.cos(angles)
    return PE


@exercise.variant
def by_stacking(T, d):
    rates = np.exp(-np.log(10000) * np.arange(d // 2) * 2 / d)
    angles = np.outer(np.arange(T), rates)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(T, d)


@exercise.variant
def entry_by_entry(T, d):
    import math

    rows = []
    for p in range(T):
        waves = [p / 10000 ** (2 * (j // 2) / d) for j in range(d)]
        rows.append([math.cos(a) if j % 2 else math.sin(a) for j, a in enumerate(waves)])
    return np.array(rows)


@exercise.variant
def as_complex_numbers(T, d):
    turned = np.exp(1j * np.arange(T)[:, None] * 10000.0 ** (-np.arange(0, d, 2) / d))
    return np.where(np.arange(d) % 2 == 0, np.repeat(turned.imag, 2, 1), np.repeat(turned.real, 2, 1))


@exercise.shows("is right for few features", "特征不多时正确", points=2)
def few(rng):
    return [(int(rng.integers(5, 20)), 6), (int(rng.integers(3, 9)), 10)]


@exercise.shows("is right for many positions and features", "位置和特征很多时正确", points=1)
def many(rng):
    return [(int(rng.integers(300, 400)), 64)]


@exercise.shows("is right for two features", "只有两个特征时正确", points=1)
def two(rng):
    return [(int(rng.integers(5, 30)), 2), (int(rng.integers(5, 30)), 4)]


@exercise.mistake(
    "The 2i is applied twice: np.arange(0, d, 2) is 2i already.",
    "2i 用了两次：np.arange(0, d, 2) 已经是 2i。",
)
def two_i_twice(T, d):
    angles = np.arange(T)[:, None] / 10000 ** (2 * np.arange(0, d, 2) / d)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(T, d)


@exercise.mistake(
    "The 2 in 2i is missing: the waves reach only the square root of the longest length.",
    "漏了 2i 中的 2：最长的波只达到应有长度的平方根。",
)
def i_for_two_i(T, d):
    angles = np.arange(T)[:, None] / 10000 ** (np.arange(d // 2) / d)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(T, d)


@exercise.mistake(
    "All sines stand before all cosines: they take turns, sine at even and cosine at odd features.",
    "所有正弦排在所有余弦之前：它们应当交替，偶数特征是正弦，奇数特征是余弦。",
)
def halves_for_turns(T, d):
    angles = np.arange(T)[:, None] / 10000 ** (np.arange(0, d, 2) / d)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


@exercise.mistake(
    "Sine and cosine are exchanged.",
    "正弦和余弦弄反了。",
)
def sine_and_cosine_exchanged(T, d):
    angles = np.arange(T)[:, None] / 10000 ** (np.arange(0, d, 2) / d)
    return np.stack([np.cos(angles), np.sin(angles)], -1).reshape(T, d)


@exercise.mistake(
    "You multiply by 10000^(2i/d) where the equation divides.",
    "公式是除以 10000^(2i/d)，你却乘了它。",
)
def multiplied_for_divided(T, d):
    angles = np.arange(T)[:, None] * 10000 ** (np.arange(0, d, 2) / d)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(T, d)


@exercise.mistake(
    "The positions start at 1: the first position is 0.",
    "位置从 1 开始了：第一个位置是 0。",
)
def starts_at_one(T, d):
    angles = np.arange(1, T + 1)[:, None] / 10000 ** (np.arange(0, d, 2) / d)
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(T, d)


@exercise.mistake(
    "The cosines have lengths of their own: sine and cosine of a pair share 2i.",
    "余弦用了另外的波长：同一对的正弦与余弦共用 2i。",
)
def cosines_of_odd_index(T, d):
    angles = np.arange(T)[:, None] / 10000 ** (np.arange(d) / d)
    return np.where(np.arange(d) % 2 == 0, np.sin(angles), np.cos(angles))
