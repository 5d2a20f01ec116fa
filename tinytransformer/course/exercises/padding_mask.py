"""The mask over padding."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "padding_mask",
    lesson=5,
    title=Say("The padding mask", "填充掩码"),
    task=Say(
        """Let no query attend to padding.

    ids: token ids, (batch, T)
    pad_id: the id that fills up short texts; it may be any
    returns: booleans that broadcast to (batch, heads, T, T), of shape (batch, 1, 1, T): True where a key is
        no padding""",
        """让任何查询都不注意填充。

    ids：词元编号，(batch, T)
    pad_id：用来补齐短文本的编号；可以是任意编号
    返回：可广播到 (batch, heads, T, T) 的布尔数组，形状 (batch, 1, 1, T)：键不是填充时为 True""",
    ),
)


@exercise.answer
def padding_mask(ids, pad_id):
    return (ids != pad_id)[:, np.newaxis, np.newaxis, :]


@exercise.variant
def by_reshape(ids, pad_id):
    batch, T = ids.shape
    return np.not_equal(ids, pad_id).reshape(batch, 1, 1, T)


@exercise.variant
def by_expand_dims(ids, pad_id):
    return np.expand_dims(np.where(ids == pad_id, False, True), (1, 2))


@exercise.variant
def text_by_text(ids, pad_id):
    return np.array([[[[token != pad_id for token in text]]] for text in ids])


@exercise.shows("is right for padding of 0", "填充编号为 0 时正确", points=2)
def zero(rng):
    ids = rng.integers(1, 9, size=(3, 5))
    ids[0, 3:] = ids[2, 1:] = 0
    return [(ids, 0)]


@exercise.shows("is right for any padding", "任意填充编号时正确", points=2)
def other(rng):
    ids = rng.integers(0, 7, size=(2, 7))
    ids[0, 1], ids[1, 0] = 0, 0
    ids[0, 4:] = 9
    square = rng.integers(0, 7, size=(5, 5))
    square[1, 2:] = square[4, 4:] = 8
    square[0, 0] = 0
    return [(ids, 9), (square, 8)]


@exercise.mistake(
    "The mask is the wrong way round: it lets queries attend to padding and to nothing else.",
    "掩码弄反了：这样查询只注意填充，别的什么也不看。",
)
def inverted(ids, pad_id):
    return (ids == pad_id)[:, None, None, :]


@exercise.mistake(
    "You compare with 0 whatever pad_id is: other tokenizers pad with other ids, and 0 may be a real token.",
    "无论 pad_id 是几，你都与 0 比较：别的分词器用别的编号填充，而 0 可能是真正的词元。",
)
def pad_id_of_zero(ids, pad_id):
    return (ids != 0)[:, None, None, :]


@exercise.mistake(
    "(batch, T) would be taken for (T_q, T_k): where batch equals T nothing complains, and the texts are mixed up. "
    "Put in an axis for the heads and one for the queries.",
    "(batch, T) 会被当成 (T_q, T_k)：当 batch 恰好等于 T 时不会报错，文本却混在了一起。请为头和查询各加一个轴。",
)
def without_axes_for_heads_and_queries(ids, pad_id):
    return ids != pad_id


@exercise.mistake(
    "You mask queries that are padding too: their rows are empty then, and a softmax makes NaN of them. Keys alone "
    "are masked; what padding puts out is not looked at.",
    "你把作为查询的填充也遮住了：这些行就空了，softmax 会得到 NaN。只需遮住键；填充位置的输出没有人看。",
)
def queries_masked_too(ids, pad_id):
    kept = ids != pad_id
    return kept[:, None, :, None] & kept[:, None, None, :]


@exercise.mistake(
    "The axis of the keys must be the last: this masks the queries.",
    "键的轴必须在最后：这样遮住的是查询。",
)
def masks_the_queries(ids, pad_id):
    return (ids != pad_id)[:, None, :, None]


@exercise.mistake(
    "There is an axis too few: with (batch, 1, T) the batch would stand where the heads are.",
    "少了一个轴：(batch, 1, T) 会让批次落在头的位置上。",
)
def without_an_axis_for_heads(ids, pad_id):
    return (ids != pad_id)[:, None, :]
