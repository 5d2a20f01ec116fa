"""Multi-head attention."""

import numpy as np

from ..exercise import Exercise, Say
from .attention import attention
from .merge_heads import merge_heads
from .split_heads import split_heads

exercise = Exercise(
    "multi_head_attention",
    lesson=4,
    title=Say("Multi-head attention", "多头注意力"),
    task=Say(
        """Attend with several heads at once: Concat(head_1, …, head_h) W_O.

    x: (batch, T, d_model): queries, keys and values all come from it
    W_Q, W_K, W_V, W_O: matrices (d_model, d_model), applied as x @ W
    heads: number of heads
    mask: None, or booleans that broadcast to (batch, heads, T, T): True where a query may attend
    returns: (batch, T, d_model)

    You may call attention(Q, K, V, mask), split_heads(x, heads) and merge_heads(x).""",
        """用多个头同时注意：Concat(head_1, …, head_h) W_O。

    x：(batch, T, d_model)：查询、键、值都由它得到
    W_Q、W_K、W_V、W_O：矩阵 (d_model, d_model)，用法为 x @ W
    heads：头数
    mask：None，或可广播到 (batch, heads, T, T) 的布尔数组：True 表示可以注意
    返回：(batch, T, d_model)

    可以调用 attention(Q, K, V, mask)、split_heads(x, heads) 和 merge_heads(x)。""",
    ),
    uses=("attention", "split_heads", "merge_heads"),
)


@exercise.answer
def multi_head_attention(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    Q, K, V = split_heads(x @ W_Q, heads), split_heads(x @ W_K, heads), split_heads(x @ W_V, heads)
    return merge_heads(attention(Q, K, V, mask)) @ W_O


@exercise.variant
def head_by_head(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    d = x.shape[-1] // heads
    found = []
    for h in range(heads):
        part = slice(h * d, (h + 1) * d)
        seen = None if mask is None else np.broadcast_to(mask, (len(x), heads, x.shape[1], x.shape[1]))[:, h]
        found.append(attention(x @ W_Q[:, part], x @ W_K[:, part], x @ W_V[:, part], seen))
    return np.concatenate(found, axis=-1) @ W_O


@exercise.variant
def sum_over_heads(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    Q, K, V = (split_heads(x @ W, heads) for W in (W_Q, W_K, W_V))
    rows = W_O.reshape(heads, -1, W_O.shape[-1])
    return np.einsum("bhtd,hdm->btm", attention(Q, K, V, mask), rows)


@exercise.variant
def one_product_for_all_three(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    batch, T, d_model = x.shape
    qkv = (x @ np.concatenate([W_Q, W_K, W_V], axis=1)).reshape(batch, T, 3, heads, d_model // heads)
    Q, K, V = qkv.transpose(2, 0, 3, 1, 4)
    scores = np.einsum("bhqd,bhkd->bhqk", Q, K) / (d_model // heads) ** 0.5
    if mask is not None:
        scores = np.where(mask, scores, -1e30)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bhkd->bqhd", e / e.sum(-1, keepdims=True), V).reshape(x.shape) @ W_O


@exercise.shows("is right without a mask", "没有掩码时正确", points=3)
def plain(rng):
    d = 12
    W = [rng.normal(size=(d, d)) / 2 for _ in range(4)]
    return [(rng.normal(size=(2, 5, d)), *W, 3), (rng.normal(size=(3, 2, d)), *W, 2)]


@exercise.shows("is right with one head", "只有一个头时正确", points=1)
def one_head(rng):
    W = [rng.normal(size=(7, 7)) / 2 for _ in range(4)]
    return [(rng.normal(size=(2, 3, 7)), *W, 1)]


@exercise.shows("lets the mask reach every head", "掩码对每个头都有效", points=1)
def masked(rng):
    W = [rng.normal(size=(10, 10)) / 2 for _ in range(4)]
    causal = np.tri(7, dtype=bool)[None, None]
    padded = np.arange(7) < np.array([7, 4])[:, None, None, None]
    return [(rng.normal(size=(2, 7, 10)), *W, 5, causal), (rng.normal(size=(2, 7, 10)), *W, 2, padded)]


@exercise.mistake(
    "The output projection is missing: W_O mixes what the heads have found.",
    "缺少输出投影：W_O 把各个头的结果混合起来。",
)
def no_output_projection(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    Q, K, V = (split_heads(x @ W, heads) for W in (W_Q, W_K, W_V))
    return merge_heads(attention(Q, K, V, mask))


@exercise.mistake(
    "Keys and values are exchanged.",
    "键和值弄反了。",
)
def keys_and_values_exchanged(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    Q, V, K = (split_heads(x @ W, heads) for W in (W_Q, W_K, W_V))
    return merge_heads(attention(Q, K, V, mask)) @ W_O


@exercise.mistake(
    "Queries and keys are exchanged: rows of the scores are queries.",
    "查询和键弄反了：得分的行是查询。",
)
def queries_and_keys_exchanged(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    K, Q, V = (split_heads(x @ W, heads) for W in (W_Q, W_K, W_V))
    return merge_heads(attention(Q, K, V, mask)) @ W_O


@exercise.mistake(
    "Batch and positions are exchanged: texts attend to one another, and not to themselves.",
    "批次和位置弄反了：不同的文本互相注意，而不是注意自身。",
)
def attends_across_the_batch(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    x = x.swapaxes(0, 1)
    Q, K, V = (split_heads(x @ W, heads) for W in (W_Q, W_K, W_V))
    return (merge_heads(attention(Q, K, V)) @ W_O).swapaxes(0, 1)


@exercise.mistake(
    "There is one head only: the features must be split before the scores are taken.",
    "只有一个头：要先把特征分开，再算得分。",
)
def one_head_for_all(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    seen = None if mask is None else np.broadcast_to(mask, (len(x), 1, x.shape[1], x.shape[1]))[:, 0]
    return attention(x @ W_Q, x @ W_K, x @ W_V, seen) @ W_O


@exercise.mistake(
    "The scores are divided by √d_model: each head has vectors of d_model / h entries, and divides by the root of that.",
    "得分除以了 √d_model：每个头的向量长为 d_model / h，应除以它的平方根。",
)
def scaled_by_d_model(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    Q, K, V = (split_heads(x @ W, heads) for W in (W_Q, W_K, W_V))
    return merge_heads(attention(Q / heads**0.5, K, V, mask)) @ W_O


@exercise.mistake(
    "The heads are cut out of memory in order, without moving the axis: positions are mixed.",
    "各个头是按内存顺序切出来的，没有移动轴：位置混在了一起。",
)
def heads_by_reshape_alone(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    batch, T, d_model = x.shape
    Q, K, V = ((x @ W).reshape(batch, heads, T, d_model // heads) for W in (W_Q, W_K, W_V))
    return attention(Q, K, V, mask).reshape(batch, T, d_model) @ W_O


@exercise.mistake(
    "The mask is not passed on.",
    "没有把掩码传下去。",
)
def mask_ignored(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    Q, K, V = (split_heads(x @ W, heads) for W in (W_Q, W_K, W_V))
    return merge_heads(attention(Q, K, V)) @ W_O


@exercise.mistake(
    "The matrices are transposed: they are applied as x @ W.",
    "矩阵转置了：用法是 x @ W。",
)
def matrices_transposed(x, W_Q, W_K, W_V, W_O, heads, mask=None):
    Q, K, V = (split_heads(x @ W.T, heads) for W in (W_Q, W_K, W_V))
    return merge_heads(attention(Q, K, V, mask)) @ W_O.T
