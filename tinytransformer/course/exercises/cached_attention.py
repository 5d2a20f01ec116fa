"""Attention with a cache of keys and values."""

import numpy as np

from ..exercise import Exercise, Say
from .attention import attention
from .causal_mask import causal_mask

exercise = Exercise(
    "cached_attention",
    lesson=8,
    title=Say("Attention with a cache", "带缓存的注意力"),
    task=Say(
        """Attend from new positions to all positions so far, without computing old keys and values again.

    q, k, v: queries, keys and values of the new positions, (batch, heads, n, d)
    cache: None, or what the last call returned: a pair of keys and values (batch, heads, past, d)
    returns: the output (batch, heads, n, d), and the new cache

    Fed piece by piece, a text must get the same output as fed at once under a causal mask. The caller's cache
    must stay as it is: two continuations of one text may start from it. You may call attention(Q, K, V, mask)
    and causal_mask(T_q, T_k).""",
        """让新位置注意到目前为止的所有位置，而不重新计算旧的键和值。

    q、k、v：新位置的查询、键、值，(batch, heads, n, d)
    cache：None，或上次调用的返回值：键和值的一对，(batch, heads, past, d)
    返回：输出 (batch, heads, n, d)，以及新的缓存

    一段文本逐段输入时，输出必须与在因果掩码下一次输入相同。调用者的缓存不能被改动：同一段文本的两个续写可能
    都从它开始。可以调用 attention(Q, K, V, mask) 和 causal_mask(T_q, T_k)。""",
    ),
    uses=("attention", "causal_mask"),
)


@exercise.driver
def drive(answer, Q, K, V, borders):
    outputs, cache, start = [], None, 0
    for end in borders:
        o, cache = answer(Q[:, :, start:end], K[:, :, start:end], V[:, :, start:end], cache)
        outputs.append(np.array(o))
        start = end
    return np.concatenate(outputs, axis=2)


@exercise.answer
def cached_attention(q, k, v, cache=None):
    if cache is not None:
        k = np.concatenate([cache[0], k], axis=-2)
        v = np.concatenate([cache[1], v], axis=-2)
    mask = causal_mask(q.shape[-2], k.shape[-2])
    return attention(q, k, v, mask), (k, v)


@exercise.variant
def with_positions(q, k, v, cache=None):
    past = 0 if cache is None else cache[0].shape[2]
    K = k if cache is None else np.concatenate((cache[0], k), 2)
    V = v if cache is None else np.concatenate((cache[1], v), 2)
    positions = past + np.arange(q.shape[2])
    return attention(q, K, V, positions[:, None] >= np.arange(K.shape[2])), (K, V)


@exercise.variant
def one_position_at_a_time(q, k, v, cache=None):
    keys, values = ([], []) if cache is None else (list(np.moveaxis(c, 2, 0)) for c in cache)
    outputs = []
    for t in range(q.shape[2]):
        keys.append(k[:, :, t])
        values.append(v[:, :, t])
        outputs.append(attention(q[:, :, t : t + 1], np.stack(keys, 2), np.stack(values, 2)))
    return np.concatenate(outputs, axis=2), (np.stack(keys, 2), np.stack(values, 2))


@exercise.variant
def as_a_dictionary(q, k, v, cache=None):
    if cache:
        k, v = np.append(cache["k"], k, axis=2), np.append(cache["v"], v, axis=2)
    n, total = q.shape[2], k.shape[2]
    scores = np.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[-1] ** 0.5
    scores = np.where(np.tri(total, dtype=bool)[total - n :], scores, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)) @ v, {"k": k, "v": v}


def text(rng, T):
    return tuple(rng.normal(size=(2, 3, T, 5)) for _ in range(3))


@exercise.shows("is causal where all comes at once", "一次全部输入时满足因果", points=1)
def at_once(rng):
    return [(*text(rng, 7), [7])]


@exercise.shows("is the same token by token", "逐个词元输入时结果相同", points=2)
def token_by_token(rng):
    return [(*text(rng, 5), [1, 2, 3, 4, 5])]


@exercise.shows("is the same in pieces of any length", "任意分段输入时结果相同", points=2)
def pieces(rng):
    return [(*text(rng, 11), [4, 5, 8, 11]), (*text(rng, 7), [1, 7])]


@exercise.mistake(
    "The triangle starts at the top left: a new token then sees the first key alone. Queries are the last positions.",
    "三角从左上角开始：新词元只看得到第一个键。查询是最后几个位置。",
)
def mask_from_the_top_left(q, k, v, cache=None):
    if cache is not None:
        k, v = np.concatenate([cache[0], k], -2), np.concatenate([cache[1], v], -2)
    return attention(q, k, v, np.tri(q.shape[-2], k.shape[-2], dtype=bool)), (k, v)


@exercise.mistake(
    "There is no mask: token by token that is right, but in a longer piece each token sees those after it.",
    "没有掩码：逐个输入时没错，但在较长的一段里，每个词元会看到它后面的词元。",
)
def no_mask(q, k, v, cache=None):
    if cache is not None:
        k, v = np.concatenate([cache[0], k], -2), np.concatenate([cache[1], v], -2)
    return attention(q, k, v), (k, v)


@exercise.mistake(
    "New keys and values are put before the old ones: positions run backwards.",
    "新的键和值放到了旧的之前：位置顺序反了。",
)
def new_before_old(q, k, v, cache=None):
    if cache is not None:
        k, v = np.concatenate([k, cache[0]], -2), np.concatenate([v, cache[1]], -2)
    return attention(q, k, v, causal_mask(q.shape[-2], k.shape[-2])), (k, v)


@exercise.mistake(
    "Keys are appended and values prepended: each key gets the value of another position.",
    "键接在后面，值却接在前面：每个键对应了别的位置的值。",
)
def values_before_keys_after(q, k, v, cache=None):
    if cache is not None:
        k, v = np.concatenate([cache[0], k], -2), np.concatenate([v, cache[1]], -2)
    return attention(q, k, v, causal_mask(q.shape[-2], k.shape[-2])), (k, v)


@exercise.mistake(
    "The cache is not used: each piece sees itself alone.",
    "没有使用缓存：每一段只看得到自己。",
)
def cache_ignored(q, k, v, cache=None):
    return attention(q, k, v, causal_mask(q.shape[-2], k.shape[-2])), (k, v)


@exercise.mistake(
    "The new piece is not kept: the cache must hold all positions so far, not the old ones alone.",
    "没有保存新的一段：缓存应包含到目前为止的全部位置，而不只是旧的。",
)
def new_piece_not_kept(q, k, v, cache=None):
    if cache is None:
        return attention(q, k, v, causal_mask(q.shape[-2], k.shape[-2])), (k, v)
    K, V = np.concatenate([cache[0], k], -2), np.concatenate([cache[1], v], -2)
    return attention(q, K, V, causal_mask(q.shape[-2], K.shape[-2])), cache


@exercise.mistake(
    "Concatenated along the axis of the batch: positions are the axis before the last.",
    "沿批次轴拼接了：位置是倒数第二个轴。",
)
def along_the_batch(q, k, v, cache=None):
    if cache is not None:
        k, v = np.concatenate([cache[0], k], 0), np.concatenate([cache[1], v], 0)
    return attention(q, k, v, causal_mask(q.shape[-2], k.shape[-2])), (k, v)
