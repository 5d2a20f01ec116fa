"""From heads back to features."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "merge_heads",
    lesson=4,
    title=Say("Concatenating the heads", "拼接各个头"),
    task=Say(
        """Put the outputs of all heads beside one another: Concat(head_1, …, head_h).

    x: (batch, h, T, d)
    returns: (batch, T, h·d): for each position the d features of head 0, then those of head 1, …""",
        """把所有头的输出并排放好：Concat(head_1, …, head_h)。

    x：(batch, h, T, d)
    返回：(batch, T, h·d)：每个位置先是第 0 个头的 d 个特征，然后是第 1 个头的，依此类推""",
    ),
)


@exercise.answer
def merge_heads(x):
    batch, heads, T, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(batch, T, heads * d)


@exercise.variant
def by_concatenate(x):
    return np.concatenate([x[:, h] for h in range(x.shape[1])], axis=-1)


@exercise.variant
def by_moveaxis(x):
    return np.moveaxis(x, 1, 2).reshape(x.shape[0], x.shape[2], -1)


@exercise.variant
def by_slices(x):
    batch, heads, T, d = x.shape
    out = np.zeros((batch, T, heads * d))
    for h in range(heads):
        out[:, :, h * d : (h + 1) * d] = x[:, h]
    return out


@exercise.shows("is right for several texts", "多段文本时正确", points=2)
def several(rng):
    return [(rng.normal(size=(2, 3, 5, 7)),), (rng.normal(size=(3, 5, 2, 11)),)]


@exercise.shows(
    "is right for one text, one head, one position", "只有一段文本、一个头、一个位置时正确", points=1
)
def single(rng):
    return [
        (rng.normal(size=(1, 3, 5, 2)),),
        (rng.normal(size=(2, 1, 5, 3)),),
        (rng.normal(size=(2, 3, 1, 5)),),
    ]


@exercise.shows("is right where heads and positions are as many", "头数与位置数相等时正确", points=1)
def square(rng):
    return [(rng.normal(size=(2, 3, 3, 5)),), (rng.normal(size=(2, 5, 5, 5)),)]


@exercise.mistake(
    "Reshaped without moving the heads behind the positions: features of several positions are mixed.",
    "没有先把头移到位置之后就 reshape：几个位置的特征混在了一起。",
)
def reshaped_straight(x):
    return x.reshape(x.shape[0], x.shape[2], -1)


@exercise.mistake(
    "The heads are interleaved: feature 0 of each head, then feature 1 of each, … Each head's features belong together.",
    "各个头交错了：先是每个头的第 0 个特征，再是第 1 个……每个头的特征应放在一起。",
)
def interleaved(x):
    batch, heads, T, d = x.shape
    return x.transpose(0, 2, 3, 1).reshape(batch, T, heads * d)


@exercise.mistake(
    "Batch and positions are mixed up on the way: it is silent with one text and wrong with more.",
    "途中把批次和位置弄混了：只有一段文本时看不出来，多段就错。",
)
def batch_and_positions_mixed_up(x):
    batch, heads, T, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(T, batch, heads * d).transpose(1, 0, 2)


@exercise.mistake(
    "The heads are added up: they are to stand beside one another.",
    "把各个头加了起来：它们应当并排放置。",
)
def added_up(x):
    return x.sum(axis=1)


@exercise.mistake(
    "The heads stand in a second row of positions: concatenate along the features, not along the positions.",
    "各个头接在了位置之后：应沿特征拼接，而不是沿位置。",
)
def concatenated_along_positions(x):
    return np.concatenate([x[:, h] for h in range(x.shape[1])], axis=1)
