"""A Transformer block with the norm first."""

import numpy as np

from ..exercise import Exercise, Say
from .layer_norm import layer_norm

exercise = Exercise(
    "pre_norm_block",
    lesson=7,
    title=Say("Residuals around norms: a pre-norm block", "残差与归一化：前置归一化块"),
    task=Say(
        """Put the parts of a Transformer block together, as GPT-2 does: x + attention(norm(x)), and to the result
    h + feed_forward(norm(h)).

    x: (batch, T, d)
    attention, feed_forward: functions from (batch, T, d) to the same shape
    gamma_1, beta_1: of the norm before attention, (d,)
    gamma_2, beta_2: of the norm before the feed-forward network, (d,)
    returns: (batch, T, d)

    You may call layer_norm(x, gamma, beta).""",
        """像 GPT-2 那样组成一个 Transformer 块：先 x + attention(norm(x))，对结果 h 再做 h + feed_forward(norm(h))。

    x：(batch, T, d)
    attention、feed_forward：从 (batch, T, d) 到相同形状的函数
    gamma_1、beta_1：注意力之前的归一化的参数，(d,)
    gamma_2、beta_2：前馈网络之前的归一化的参数，(d,)
    返回：(batch, T, d)

    可以调用 layer_norm(x, gamma, beta)。""",
    ),
    uses=("layer_norm",),
)


@exercise.driver
def drive(answer, x, A, F, gamma_1, beta_1, gamma_2, beta_2):
    def attention(y):
        return np.tanh(A @ y)

    def feed_forward(y):
        return np.maximum(y @ F, 0) + 0.1

    return answer(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2)


@exercise.answer
def pre_norm_block(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    h = x + attention(layer_norm(x, gamma_1, beta_1))
    return h + feed_forward(layer_norm(h, gamma_2, beta_2))


@exercise.variant
def one_after_the_other(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    for part, gamma, beta in ((attention, gamma_1, beta_1), (feed_forward, gamma_2, beta_2)):
        x = x + part(layer_norm(x, gamma, beta))
    return x


@exercise.variant
def norm_of_its_own(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    def norm(y):
        c = y - y.mean(-1, keepdims=True)
        return c / np.sqrt((c * c).mean(-1, keepdims=True) + 1e-5)

    a = attention(norm(x) * gamma_1 + beta_1)
    f = feed_forward(norm(x + a) * gamma_2 + beta_2)
    return x + a + f


@exercise.variant
def sum_of_three(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    parts = [x]
    parts.append(attention(layer_norm(sum(parts), gamma_1, beta_1)))
    parts.append(feed_forward(layer_norm(sum(parts), gamma_2, beta_2)))
    return np.sum(parts, axis=0)


@exercise.shows("is right", "正确", points=3)
def whole(rng):
    d, T = 7, 5
    return [
        (
            2 * rng.normal(size=(2, T, d)) + 1,
            rng.normal(size=(T, T)) / 2,
            rng.normal(size=(d, d)) / 2,
            *rng.normal(size=(4, d)),
        )
    ]


@exercise.shows("passes x on where both parts give little", "两部分都很小时保留 x", points=1)
def residual(rng):
    d, T = 3, 11
    x = 30 * rng.normal(size=(2, T, d))
    return [(x, 1e-3 * rng.normal(size=(T, T)), 1e-3 * rng.normal(size=(d, d)), *rng.normal(size=(4, d)))]


@exercise.mistake(
    "The residual is taken from the normalised x: what passes by must be x itself.",
    "残差取自归一化后的 x：绕过去的应当是 x 本身。",
)
def residual_of_the_normalised(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    n = layer_norm(x, gamma_1, beta_1)
    h = n + attention(n)
    m = layer_norm(h, gamma_2, beta_2)
    return m + feed_forward(m)


@exercise.mistake(
    "Both residuals are forgotten: what a part gives is added to what went past it, to x and then to h. Without "
    "these sums gradients do not reach the first layers of a deep model.",
    "忘了两处残差：每个部分的输出都要加到绕过它的东西上，先加到 x，再加到 h。没有这些加法，深层模型的梯度到不了最前面的层。",
)
def residual_forgotten(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    h = attention(layer_norm(x, gamma_1, beta_1))
    return feed_forward(layer_norm(h, gamma_2, beta_2))


@exercise.mistake(
    "The residual around the feed-forward network is forgotten: what it gives is to be added to h.",
    "忘了前馈网络的残差：它的输出要加到 h 上。",
)
def second_residual_forgotten(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    h = x + attention(layer_norm(x, gamma_1, beta_1))
    return feed_forward(layer_norm(h, gamma_2, beta_2))


@exercise.mistake(
    "The norm comes after the sum: that is post-norm, as in the original Transformer and BERT.",
    "归一化放在了相加之后：那是后置归一化，原始 Transformer 和 BERT 的做法。",
)
def post_norm(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    h = layer_norm(x + attention(x), gamma_1, beta_1)
    return layer_norm(h + feed_forward(h), gamma_2, beta_2)


@exercise.mistake(
    "The second part adds to x and not to the result of the first: attention is lost from the residual.",
    "第二部分加到了 x 上，而不是第一部分的结果上：注意力的输出从残差中丢失了。",
)
def second_residual_from_x(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    h = x + attention(layer_norm(x, gamma_1, beta_1))
    return x + feed_forward(layer_norm(h, gamma_2, beta_2))


@exercise.mistake(
    "Both parts read x: the feed-forward network must read the result of attention. (GPT-J does it side by side, GPT-2 "
    "does not.)",
    "两部分都读了 x：前馈网络应当读注意力的结果。（GPT-J 是并行的，GPT-2 不是。）",
)
def side_by_side(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    a = attention(layer_norm(x, gamma_1, beta_1))
    return x + a + feed_forward(layer_norm(x, gamma_2, beta_2))


@exercise.mistake(
    "Both norms use the first γ and β.",
    "两处归一化都用了第一组 γ 和 β。",
)
def one_norm_for_both(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    h = x + attention(layer_norm(x, gamma_1, beta_1))
    return h + feed_forward(layer_norm(h, gamma_1, beta_1))


@exercise.mistake(
    "The norms are missing.",
    "漏了归一化。",
)
def without_norms(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    h = x + attention(x)
    return h + feed_forward(h)


@exercise.mistake(
    "The feed-forward network comes first: attention does.",
    "前馈网络放在了前面：应先做注意力。",
)
def feed_forward_first(x, attention, feed_forward, gamma_1, beta_1, gamma_2, beta_2):
    h = x + feed_forward(layer_norm(x, gamma_1, beta_1))
    return h + attention(layer_norm(h, gamma_2, beta_2))
