"""Scaled dot-product attention."""

import numpy as np

from ..exercise import Exercise, Say
from .softmax import softmax

exercise = Exercise(
    "attention",
    lesson=3,
    title=Say("Scaled dot-product attention", "缩放点积注意力"),
    task=Say(
        """Let each query take a weighted mean of the values.

    Q: queries, (..., T_q, d_k)
    K: keys, (..., T_k, d_k)
    V: values, (..., T_k, d_v)
    mask: None, or booleans that broadcast to (..., T_q, T_k): True where a query may attend
    returns: (..., T_q, d_v)

    The axes before the last two may be any number of batch axes. A query that may attend to nothing gets
    zeros. You may call softmax.""",
        """让每个查询对值取加权平均。

    Q：查询，(..., T_q, d_k)
    K：键，(..., T_k, d_k)
    V：值，(..., T_k, d_v)
    mask：None，或可广播到 (..., T_q, T_k) 的布尔数组：True 表示可以注意
    返回：(..., T_q, d_v)

    最后两个轴之前可以有任意多个批次轴。没有任何可注意位置的查询得到零向量。可以调用 softmax。""",
    ),
    uses=("softmax",),
)


@exercise.answer
def attention(Q, K, V, mask=None):
    d_k = Q.shape[-1]
    scores = Q @ np.swapaxes(K, -1, -2) / np.sqrt(d_k)
    if mask is None:
        return softmax(scores) @ V
    weights = softmax(np.where(mask, scores, -1e30))
    return np.where(mask, weights, 0) @ V


@exercise.variant
def with_einsum(Q, K, V, mask=None):
    scores = np.einsum("...qd,...kd->...qk", Q, K) * Q.shape[-1] ** -0.5
    allowed = np.ones(scores.shape, bool) if mask is None else np.broadcast_to(mask, scores.shape)
    powers = np.exp(scores - scores.max(-1, keepdims=True)) * allowed
    total = powers.sum(-1, keepdims=True)
    return np.einsum("...qk,...kd->...qd", powers / np.where(total == 0, 1, total), V)


@exercise.variant
def additive_mask(Q, K, V, mask=None):
    scores = (Q / np.sqrt(K.shape[-1])) @ K.mT
    if mask is not None:
        scores = scores + np.where(mask, 0.0, -np.inf)
    top = scores.max(axis=-1, keepdims=True)
    powers = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = powers.sum(axis=-1, keepdims=True)
    return powers @ V / np.maximum(total, 1e-300)


@exercise.variant
def query_by_query(Q, K, V, mask=None):
    batch = Q.shape[:-2]
    out = np.zeros((*batch, Q.shape[-2], V.shape[-1]))
    seen = np.broadcast_to(True if mask is None else mask, (*batch, Q.shape[-2], K.shape[-2]))
    for place in np.ndindex(*batch, Q.shape[-2]):
        which = seen[place]
        if which.any():
            s = K[place[:-1]][which] @ Q[place] / Q.shape[-1] ** 0.5
            w = np.exp(s - s.max())
            out[place] = (w / w.sum()) @ V[place[:-1]][which]
    return out


@exercise.shows("is right without a mask", "没有掩码时正确", points=2)
def plain(rng):
    Q, K, V = rng.normal(size=(5, 3)), rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    return [(2 * Q, K, V)]


@exercise.shows("takes any number of batch axes", "可以有任意多个批次轴", points=1)
def batched(rng):
    return [
        (rng.normal(size=(2, 5, 11)), rng.normal(size=(2, 7, 11)), rng.normal(size=(2, 7, 3))),
        (rng.normal(size=(2, 3, 5, 7)), rng.normal(size=(2, 3, 5, 7)), rng.normal(size=(2, 3, 5, 7))),
    ]


@exercise.shows("attends where the mask is True, and only there", "只注意 mask 为 True 的位置", points=1)
def masked(rng):
    Q, K, V = rng.normal(size=(2, 3, 5, 7)), rng.normal(size=(2, 3, 11, 7)), rng.normal(size=(2, 3, 11, 7))
    mask = rng.random((2, 1, 5, 11)) < 0.6
    mask[..., 4] = True
    last = mask[0, 0].copy()
    return [(3 * Q, K, V, mask), (Q[0, 0], K[0, 0], V[0, 0], last)]


@exercise.shows("gives zeros to a query that may attend to nothing", "没有可注意位置的查询得到零", points=1)
def nothing(rng):
    Q, K, V = rng.normal(size=(5, 3)), rng.normal(size=(7, 3)), rng.normal(size=(7, 2))
    mask = rng.random((5, 7)) < 0.7
    mask[:, 1] = True
    mask[2] = False
    return [(Q, K, V, mask)]


@exercise.shows("stays finite for large scores", "得分很大时仍有限", points=1)
def large(rng):
    return [(60 * rng.normal(size=(5, 3)), 60 * rng.normal(size=(7, 3)), rng.normal(size=(7, 2)))]


@exercise.mistake(
    "This equals attention without 1/√d_k: the scores of long vectors grow, and the softmax becomes hard.",
    "这等于没有除以 √d_k 的注意力：向量越长得分越大，softmax 会变得过于尖锐。",
)
def not_scaled(Q, K, V, mask=None):
    scores = Q @ np.swapaxes(K, -1, -2)
    if mask is None:
        return softmax(scores) @ V
    return np.where(mask, softmax(np.where(mask, scores, -1e30)), 0) @ V


@exercise.mistake(
    "You multiply by √d_k where the equation divides.",
    "公式是除以 √d_k，你却乘了它。",
)
def multiplied_by_the_scale(Q, K, V, mask=None):
    scores = Q @ np.swapaxes(K, -1, -2) * np.sqrt(Q.shape[-1])
    if mask is None:
        return softmax(scores) @ V
    return np.where(mask, softmax(np.where(mask, scores, -1e30)), 0) @ V


@exercise.mistake(
    "You divide by d_k itself: its square root is asked for.",
    "除以的是 d_k 本身：公式要的是它的平方根。",
)
def divided_by_d_k(Q, K, V, mask=None):
    scores = Q @ np.swapaxes(K, -1, -2) / Q.shape[-1]
    if mask is None:
        return softmax(scores) @ V
    return np.where(mask, softmax(np.where(mask, scores, -1e30)), 0) @ V


@exercise.mistake(
    ".T turns all axes around: it is right for two axes and not with a batch. Swap the last two only.",
    ".T 会把所有轴倒过来：只有两个轴时才对，有批次轴就错。只交换最后两个轴。",
)
def transposes_all_axes(Q, K, V, mask=None):
    scores = Q @ K.T / np.sqrt(Q.shape[-1])
    if mask is None:
        return softmax(scores) @ V
    return np.where(mask, softmax(np.where(mask, scores, -1e30)), 0) @ V


@exercise.mistake(
    "Your softmax adds up to 1 over the queries: each query must share its attention among the keys. "
    "What is masked for one query then changes the others, and the future leaks.",
    "你的 softmax 沿查询方向归一化：应当是每个查询把注意力分给各个键。否则一个查询的掩码会影响别的查询，"
    "未来也会泄漏。",
)
def softmax_over_queries(Q, K, V, mask=None):
    scores = Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1])
    if mask is None:
        return softmax(scores, axis=-2) @ V
    return np.where(mask, softmax(np.where(mask, scores, -1e30), axis=-2), 0) @ V


@exercise.mistake(
    "The mask is the wrong way round: True means that a query may attend.",
    "掩码弄反了：True 表示可以注意。",
)
def mask_inverted(Q, K, V, mask=None):
    scores = Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1])
    if mask is None:
        return softmax(scores) @ V
    return np.where(mask, 0, softmax(np.where(mask, -1e30, scores))) @ V


@exercise.mistake(
    "You multiply the scores by the mask: a masked score becomes 0, and exp(0) is 1, so it still gets a "
    "share. Make it -inf before the softmax.",
    "你把得分乘以掩码：被遮住的得分变成 0，而 exp(0) = 1，它仍分得注意力。应在 softmax 之前设为 -inf。",
)
def scores_times_mask(Q, K, V, mask=None):
    scores = Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1])
    return softmax(scores if mask is None else scores * mask) @ V


@exercise.mistake(
    "The mask is applied after the softmax: the rest of a row no longer adds up to 1.",
    "掩码用在 softmax 之后：一行中剩下的权重之和不再是 1。",
)
def masked_after_the_softmax(Q, K, V, mask=None):
    weights = softmax(Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1]))
    return (weights if mask is None else weights * mask) @ V


@exercise.mistake(
    "A row in which all is masked is 0/0 = NaN here, and NaN spreads through the whole model: give it zeros.",
    "整行都被遮住时得到 0/0 = NaN，而 NaN 会传遍整个模型：这一行应为零。",
)
def nan_where_all_is_masked(Q, K, V, mask=None):
    scores = Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1])
    return softmax(scores if mask is None else np.where(mask, scores, -np.inf)) @ V


@exercise.mistake(
    "A row in which all is masked attends to everything alike, because all its scores are the same large "
    "negative number: give it zeros.",
    "整行都被遮住时，它对所有位置一视同仁，因为得分都是同一个很小的数：这一行应为零。",
)
def uniform_where_all_is_masked(Q, K, V, mask=None):
    scores = Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1])
    return softmax(scores if mask is None else np.where(mask, scores, -1e30)) @ V


@exercise.mistake(
    "The mask is ignored.",
    "没有使用掩码。",
)
def mask_ignored(Q, K, V, mask=None):
    return softmax(Q @ np.swapaxes(K, -1, -2) / np.sqrt(Q.shape[-1])) @ V
