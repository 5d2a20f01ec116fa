"""A step of AdamW."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "adamw",
    lesson=8,
    title=Say("A step of AdamW", "AdamW 的一步"),
    task=Say(
        """Take one step of AdamW (Loshchilov & Hutter, 2019).

    p: parameters, any shape
    g: their gradient
    m, v: running means of the gradient and of its square before this step; zeros before the first
    t: number of this step, from 1
    lr, beta1, beta2, eps, weight_decay: η, β₁, β₂, ε, λ
    returns: the new p, m and v

    m ← β₁ m + (1 - β₁) g, v ← β₂ v + (1 - β₂) g². Correct both for having started at 0; p moves against
    m̂ / (√v̂ + ε), and beside that decays by the part η λ.""",
        """做一步 AdamW（Loshchilov 与 Hutter，2019）。

    p：参数，任意形状
    g：它们的梯度
    m、v：这一步之前梯度及其平方的滑动平均；第一步之前为零
    t：这是第几步，从 1 数起
    lr、beta1、beta2、eps、weight_decay：η、β₁、β₂、ε、λ
    返回：新的 p、m 和 v

    m ← β₁ m + (1 - β₁) g，v ← β₂ v + (1 - β₂) g²。两者都要修正从 0 开始造成的偏差；p 沿 m̂ / (√v̂ + ε) 的反方向移动，
    另外按比例 η λ 衰减。""",
    ),
)


@exercise.driver
def drive(answer, parameters, gradients, lr, beta1, beta2, eps, weight_decay):
    state = [(p.copy(), np.zeros_like(p), np.zeros_like(p)) for p in parameters]
    for t, of_step in enumerate(gradients, 1):
        state = [
            tuple(np.array(part) for part in answer(p, g, m, v, t, lr, beta1, beta2, eps, weight_decay))
            for (p, m, v), g in zip(state, of_step, strict=True)
        ]
    return [list(of_parameter) for of_parameter in state]


@exercise.answer
def adamw(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat = m / (1 - beta1**t)
    v_hat = v / (1 - beta2**t)
    return p - lr * weight_decay * p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


@exercise.variant
def by_moving_towards(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m = m + (g - m) * (1 - beta1)
    v = v + (g**2 - v) * (1 - beta2)
    step = lr * np.sqrt(1 - beta2**t) / (1 - beta1**t)
    return p * (1 - lr * weight_decay) - step * m / (np.sqrt(v) + eps * np.sqrt(1 - beta2**t)), m, v


@exercise.variant
def in_place_on_copies(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    p, m, v = p.copy(), m.copy(), v.copy()
    m *= beta1
    m += g * (1 - beta1)
    v *= beta2
    v += np.square(g) * (1 - beta2)
    direction = m / (1 - np.power(beta1, t)) / (np.sqrt(v / (1 - np.power(beta2, t))) + eps)
    p -= lr * (direction + weight_decay * p)
    return p, m, v


@exercise.variant
def entry_by_entry(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    out = [np.empty_like(p) for _ in range(3)]
    for i in range(p.size):
        a = beta1 * m.flat[i] + (1 - beta1) * g.flat[i]
        b = beta2 * v.flat[i] + (1 - beta2) * g.flat[i] ** 2
        step = a / (1 - beta1**t) / ((b / (1 - beta2**t)) ** 0.5 + eps)
        out[0].flat[i] = p.flat[i] - lr * (step + weight_decay * p.flat[i])
        out[1].flat[i], out[2].flat[i] = a, b
    return tuple(out)


def setting(rng, steps, size=1.0, lr=0.03, eps=1e-8, decay=0.2):
    shapes = [(3, 5), (7,)]
    gradients = [[size * rng.normal(size=s) for s in shapes] for _ in range(steps)]
    return ([2 * rng.normal(size=s) for s in shapes], gradients, lr, 0.8, 0.95, eps, decay)


@exercise.shows("is right for the first step", "第一步正确", points=1)
def first(rng):
    return [setting(rng, 1)]


@exercise.shows("is right after twelve steps", "十二步之后正确", points=2)
def many(rng):
    return [setting(rng, 12), setting(rng, 12, decay=0.0)]


@exercise.shows("is right for gradients near 1e-7", "梯度接近 1e-7 时正确", points=1)
def tiny(rng):
    return [setting(rng, 5, size=1e-7, eps=1e-8, lr=0.3)]


@exercise.mistake(
    "m is not corrected: it starts at 0, so the first steps are far too short.",
    "没有修正 m：它从 0 开始，最初几步会过短。",
)
def m_not_corrected(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p - lr * weight_decay * p - lr * m / (np.sqrt(v / (1 - beta2**t)) + eps), m, v


@exercise.mistake(
    "Neither mean is corrected: divide m by 1 - β₁ᵗ and v by 1 - β₂ᵗ.",
    "两个平均都没有修正：m 要除以 1 - β₁ᵗ，v 要除以 1 - β₂ᵗ。",
)
def neither_corrected(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p - lr * weight_decay * p - lr * m / (np.sqrt(v) + eps), m, v


@exercise.mistake(
    "You divide by 1 - β and not by 1 - βᵗ: right for one step, wrong from the second on.",
    "你除的是 1 - β 而不是 1 - βᵗ：第一步对，从第二步起就错。",
)
def corrected_as_in_the_first_step(
    p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01
):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p - lr * weight_decay * p - lr * m / (1 - beta1) / (np.sqrt(v / (1 - beta2)) + eps), m, v


@exercise.mistake(
    "ε stands under the root: it is added to √v̂. It shows for tiny gradients.",
    "ε 放在了根号里：它应加到 √v̂ 上。梯度很小时才看得出来。",
)
def eps_under_the_root(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    return p - lr * weight_decay * p - lr * m_hat / np.sqrt(v_hat + eps), m, v


@exercise.mistake(
    "The decay is added to the gradient: that is Adam with L2. In AdamW it stays out of m and v.",
    "衰减加进了梯度：那是带 L2 的 Adam。AdamW 中它不进入 m 和 v。",
)
def decay_in_the_gradient(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    g = g + weight_decay * p
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), m, v


@exercise.mistake(
    "The decay is not multiplied by the learning rate.",
    "衰减没有乘学习率。",
)
def decay_without_learning_rate(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p - weight_decay * p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), m, v


@exercise.mistake(
    "The decay is missing: this is Adam.",
    "没有衰减：这是 Adam。",
)
def without_decay(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p - lr * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps), m, v


@exercise.mistake(
    "The root is missing: divide by √v̂.",
    "漏了开方：应除以 √v̂。",
)
def root_missing(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    return p - lr * weight_decay * p - lr * (m / (1 - beta1**t)) / (v / (1 - beta2**t) + eps), m, v


@exercise.mistake(
    "β₁ and β₂ are exchanged.",
    "β₁ 和 β₂ 弄反了。",
)
def betas_exchanged(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = beta2 * m + (1 - beta2) * g, beta1 * v + (1 - beta1) * g * g
    return p - lr * weight_decay * p - lr * (m / (1 - beta2**t)) / (np.sqrt(v / (1 - beta1**t)) + eps), m, v


@exercise.mistake(
    "The corrected m and v are returned: the next step corrects them once more. Keep the running means themselves.",
    "返回的是修正后的 m 和 v：下一步会再修正一次。应保留滑动平均本身。",
)
def returns_the_corrected(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
    m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    m, v = m / (1 - beta1**t), v / (1 - beta2**t)
    return p - lr * weight_decay * p - lr * m / (np.sqrt(v) + eps), m, v
