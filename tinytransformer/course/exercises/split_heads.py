"""From features to heads."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "split_heads",
    lesson=4,
    title=Say("Splitting features into heads", "把特征分成多个头"),
    task=Say(
        """Divide the features of each position among the heads.

    x: (batch, T, d_model)
    heads: number of heads h; d_model is a multiple of it
    returns: (batch, h, T, d_model / h): head 0 gets the first d_model / h features, head 1 the next, …""",
        """把每个位置的特征分给各个头。

    x：(batch, T, d_model)
    heads：头数 h；d_model 是它的倍数
    返回：(batch, h, T, d_model / h)：第 0 个头得到最前面的 d_model / h 个特征，第 1 个头得到接下来的，依此类推""",
    ),
)


@exercise.answer
def split_heads(x, heads):
    batch, T, d_model = x.shape
    return x.reshape(batch, T, heads, d_model // heads).transpose(0, 2, 1, 3)


@exercise.variant
def by_np_split(x, heads):
    return np.stack(np.split(x, heads, axis=-1), axis=1)


@exercise.variant
def by_slices(x, heads):
    d = x.shape[-1] // heads
    out = np.empty((x.shape[0], heads, x.shape[1], d))
    for h in range(heads):
        out[:, h] = x[..., h * d : (h + 1) * d]
    return out


@exercise.variant
def by_swapaxes(x, heads):
    return np.swapaxes(x.reshape(*x.shape[:2], heads, -1), -3, -2)


@exercise.shows("is right for several texts", "多段文本时正确", points=2)
def several(rng):
    return [(rng.normal(size=(2, 5, 21)), 3), (rng.normal(size=(3, 7, 10)), 5)]


@exercise.shows(
    "is right for one text, one head, one position", "只有一段文本、一个头、一个位置时正确", points=1
)
def single(rng):
    return [(rng.normal(size=(1, 5, 6)), 2), (rng.normal(size=(2, 3, 5)), 1), (rng.normal(size=(2, 1, 6)), 3)]


@exercise.shows("is right where heads and positions are as many", "头数与位置数相等时正确", points=1)
def square(rng):
    return [(rng.normal(size=(2, 3, 12)), 3)]


@exercise.mistake(
    "Reshaped straight to (batch, h, T, d): that cuts the memory in order, so a head gets pieces of several "
    "positions, and the future leaks. First (batch, T, h, d), then swap.",
    "直接 reshape 成 (batch, h, T, d)：这是按内存顺序切开，一个头会得到几个位置的碎片，未来也会泄漏。应先变成 "
    "(batch, T, h, d)，再交换轴。",
)
def reshaped_straight(x, heads):
    return x.reshape(x.shape[0], heads, x.shape[1], -1)


@exercise.mistake(
    "The heads are interleaved: head 0 gets features 0, h, 2h, … It trains, but no checkpoint of others fits.",
    "各个头交错了：第 0 个头得到特征 0、h、2h……能训练，但别人的检查点都对不上。",
)
def interleaved(x, heads):
    return x.reshape(*x.shape[:2], -1, heads).transpose(0, 3, 1, 2)


@exercise.mistake(
    "The axes are still (batch, T, h, d): heads must stand before positions.",
    "轴的顺序仍是 (batch, T, h, d)：头应在位置之前。",
)
def not_transposed(x, heads):
    return x.reshape(*x.shape[:2], heads, -1)


@exercise.mistake(
    "Batch and heads are exchanged.",
    "批次和头交换了。",
)
def heads_before_batch(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).transpose(2, 0, 1, 3)


@exercise.mistake(
    "The last two axes are exchanged: positions come before features, (batch, h, T, d).",
    "最后两个轴弄反了：位置在特征之前，应为 (batch, h, T, d)。",
)
def features_before_positions(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 3, 1)
