"""Softmax where not all may be chosen."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "masked_softmax",
    lesson=5,
    title=Say("Softmax under a mask", "带掩码的 softmax"),
    task=Say(
        """Turn scores into probabilities of what the mask allows.

    scores: (..., T_q, T_k)
    mask: booleans that broadcast to the shape of scores: True where a query may attend
    returns: (..., T_q, T_k): each row adds up to 1 over what is allowed, and is 0 elsewhere

    A row in which nothing is allowed is zeros. Forbidden scores may be anything, even inf or NaN, and change
    nothing.""",
        """把得分变成掩码所允许的位置上的概率。

    scores：(..., T_q, T_k)
    mask：可广播到 scores 形状的布尔数组：True 表示可以注意
    返回：(..., T_q, T_k)：每行在允许的位置上之和为 1，其余位置为 0

    没有任何允许位置的行全为零。被禁止的得分可以是任何数，甚至 inf 或 NaN，都不影响结果。""",
    ),
)


@exercise.answer
def masked_softmax(scores, mask):
    scores = np.where(mask, scores, -np.inf)
    top = np.max(scores, axis=-1, keepdims=True)
    powers = np.exp(scores - np.where(top == -np.inf, 0, top))
    total = np.sum(powers, axis=-1, keepdims=True)
    return powers / np.where(total == 0, 1, total)


@exercise.variant
def with_a_large_negative_number(scores, mask):
    kept = np.where(mask, scores, -1e300)
    e = np.exp(kept - kept.max(-1, keepdims=True)) * mask
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300)


@exercise.variant
def row_by_row(scores, mask):
    allowed = np.broadcast_to(mask, scores.shape)
    out = np.zeros_like(scores)
    for place in np.ndindex(*scores.shape[:-1]):
        which = np.flatnonzero(allowed[place])
        if len(which):
            e = np.exp(scores[place][which] - scores[place][which].max())
            out[place][which] = e / e.sum()
    return out


@exercise.variant
def with_where_in_the_reductions(scores, mask):
    mask = np.broadcast_to(mask, scores.shape)
    top = np.max(scores, axis=-1, keepdims=True, initial=-1e300, where=mask)
    e = np.zeros(scores.shape)
    np.exp(scores - top, out=e, where=mask)
    total = e.sum(-1, keepdims=True)
    return np.divide(e, total, out=np.zeros(scores.shape), where=total > 0)


@exercise.shows("is right where each row allows something", "每行都有允许位置时正确", points=2)
def some(rng):
    mask = rng.random((5, 7)) < 0.6
    mask[:, 3] = True
    mask[2, 5] = False
    return [(3 * rng.normal(size=(5, 7)), mask), (rng.normal(size=(2, 3, 5, 7)) + 2, mask[None])]


@exercise.shows("gives zeros where a row allows nothing", "没有允许位置的行为零", points=1)
def empty(rng):
    mask = rng.random((3, 5)) < 0.7
    mask[0, 2] = True
    mask[1] = False
    return [(rng.normal(size=(3, 5)), mask)]


@exercise.shows("lets forbidden scores change nothing", "被禁止的得分不影响结果", points=1)
def forbidden(rng):
    mask = rng.random((3, 7)) < 0.6
    mask[:, 4], mask[:, 1] = True, False
    large = rng.normal(size=(3, 7))
    large[:, 1] = 5000
    strange = rng.normal(size=(3, 7))
    strange[:, 1] = np.inf, np.nan, 700
    return [(large, mask), (strange, mask)]


@exercise.shows("stays finite for large scores", "得分很大时仍有限", points=1)
def high(rng):
    mask = rng.random((3, 5)) < 0.6
    mask[:, 2] = True
    return [(rng.normal(size=(3, 5)) + 900, mask)]


@exercise.mistake(
    "You multiply the scores by the mask: a forbidden score becomes 0, and exp(0) is 1, so it still gets a share.",
    "你把得分乘以掩码：被禁止的得分变成 0，而 exp(0) = 1，它仍分得概率。",
)
def scores_times_mask(scores, mask):
    z = scores * mask
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@exercise.mistake(
    "The mask is the wrong way round: True means allowed.",
    "掩码弄反了：True 表示允许。",
)
def mask_inverted(scores, mask):
    z = np.where(mask, -1e300, scores)
    e = np.exp(z - z.max(-1, keepdims=True)) * ~mask
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300)


@exercise.mistake(
    "The mask comes after the softmax: what is left of a row no longer adds up to 1.",
    "掩码用在 softmax 之后：一行中剩下的概率之和不再是 1。",
)
def masked_afterwards(scores, mask):
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) * mask


@exercise.mistake(
    "Where nothing is allowed this is 0/0 = NaN.",
    "没有任何允许位置时得到 0/0 = NaN。",
)
def nan_where_nothing_is_allowed(scores, mask):
    z = np.where(mask, scores, -np.inf)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@exercise.mistake(
    "Where nothing is allowed all get the same share: all scores of the row are the same large negative number.",
    "没有任何允许位置时，大家分得一样多：这一行的得分全是同一个很小的数。",
)
def uniform_where_nothing_is_allowed(scores, mask):
    z = np.where(mask, scores, -1e9)
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@exercise.mistake(
    "The maximum is taken over forbidden scores too: if one of them is large, all that is allowed underflows to 0.",
    "求最大值时把被禁止的得分也算进去了：若其中有一个很大，允许的位置都会下溢成 0。",
)
def maximum_of_forbidden_scores(scores, mask):
    e = np.where(mask, np.exp(scores - scores.max(-1, keepdims=True)), 0)
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300)


@exercise.mistake(
    "exp of a large score is inf: subtract the largest allowed score of the row first.",
    "很大的得分取 exp 会得到 inf：先减去这一行允许的最大得分。",
)
def no_maximum_subtracted(scores, mask):
    e = np.where(mask, np.exp(scores), 0)
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300)


@exercise.mistake(
    "-1e9 is added to forbidden scores: inf and NaN stay what they are. Put -inf in their place.",
    "你给被禁止的得分加上 -1e9：inf 和 NaN 加了也还是原样。应当用 -inf 代替它们。",
)
def added_for_replaced(scores, mask):
    z = scores + np.where(mask, 0.0, -1e9)
    e = np.exp(z - z.max(-1, keepdims=True)) * mask
    return e / np.maximum(e.sum(-1, keepdims=True), 1e-300)
