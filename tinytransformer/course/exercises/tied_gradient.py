"""The gradient of an embedding that is also the output matrix."""

import numpy as np

from ..exercise import Exercise, Say
from .embedding_backward import embedding_backward

exercise = Exercise(
    "tied_gradient",
    lesson=8,
    title=Say("The gradient of tied weights", "绑定权重的梯度"),
    task=Say(
        """Find the gradient of a table E that is used twice: x = E[ids] at the input, logits = h Eᵀ at the output.

    d_x: the gradient of the loss with respect to x, (batch, T, d)
    ids: token ids, (batch, T)
    d_logits: the gradient of the loss with respect to the logits, (batch, T, V)
    h: what the output matrix was multiplied with, (batch, T, d)
    returns: the gradient of E, (V, d)

    You may call embedding_backward(g, ids, vocab_size).""",
        """求一张用了两次的表 E 的梯度：输入处 x = E[ids]，输出处 logits = h Eᵀ。

    d_x：损失对 x 的梯度，(batch, T, d)
    ids：词元编号，(batch, T)
    d_logits：损失对 logits 的梯度，(batch, T, V)
    h：与输出矩阵相乘的向量，(batch, T, d)
    返回：E 的梯度，(V, d)

    可以调用 embedding_backward(g, ids, vocab_size)。""",
    ),
    uses=("embedding_backward",),
)


@exercise.answer
def tied_gradient(d_x, ids, d_logits, h):
    V, d = d_logits.shape[-1], h.shape[-1]
    at_output = d_logits.reshape(-1, V).T @ h.reshape(-1, d)
    return at_output + embedding_backward(d_x, ids, V)


@exercise.variant
def with_einsum(d_x, ids, d_logits, h):
    one_hot = np.eye(d_logits.shape[-1])[ids]
    return np.einsum("btv,btd->vd", d_logits, h) + np.einsum("btv,btd->vd", one_hot, d_x)


@exercise.variant
def added_in_place(d_x, ids, d_logits, h):
    dE = np.tensordot(d_logits, h, axes=([0, 1], [0, 1]))
    np.add.at(dE, ids.ravel(), d_x.reshape(ids.size, -1))
    return dE


@exercise.variant
def position_by_position(d_x, ids, d_logits, h):
    dE = np.zeros((d_logits.shape[-1], h.shape[-1]))
    for place in np.ndindex(*ids.shape):
        dE += np.outer(d_logits[place], h[place])
        dE[ids[place]] += d_x[place]
    return dE


def setting(rng, batch, T, V, d):
    ids = rng.integers(V, size=(batch, T))
    ids[0, 0] = ids[-1, -1]
    return (
        rng.normal(size=(batch, T, d)),
        ids,
        rng.normal(size=(batch, T, V)),
        rng.normal(size=(batch, T, d)),
    )


@exercise.shows("adds up both uses", "两处使用的梯度相加", points=3)
def both(rng):
    return [setting(rng, 2, 5, 7, 3), setting(rng, 3, 2, 11, 5)]


@exercise.shows("is right where V equals d", "V 等于 d 时正确", points=1)
def square(rng):
    return [setting(rng, 2, 3, 5, 5)]


@exercise.mistake(
    "Only the output counts here: E is used at the input too, and the gradients of both uses add up.",
    "这里只算了输出处：E 在输入处也用到，两处的梯度要相加。",
)
def output_alone(d_x, ids, d_logits, h):
    return np.einsum("btv,btd->vd", d_logits, h)


@exercise.mistake(
    "Only the input counts here: the gradient of the output was overwritten or forgotten.",
    "这里只算了输入处：输出处的梯度被覆盖或忘掉了。",
)
def input_alone(d_x, ids, d_logits, h):
    return embedding_backward(d_x, ids, d_logits.shape[-1])


@exercise.mistake(
    "dE[ids] += d_x keeps only the last of equal ids.",
    "dE[ids] += d_x 对相同的编号只保留最后一个。",
)
def last_of_equal_ids(d_x, ids, d_logits, h):
    dE = np.einsum("btv,btd->vd", d_logits, h)
    dE[ids] += d_x
    return dE


@exercise.mistake(
    "The two are averaged: a weight that is used twice gets the sum.",
    "两者取了平均：用了两次的权重应得到它们的和。",
)
def mean_of_both(d_x, ids, d_logits, h):
    return (np.einsum("btv,btd->vd", d_logits, h) + embedding_backward(d_x, ids, d_logits.shape[-1])) / 2


@exercise.mistake(
    "The gradient of the output is transposed: E is (V, d), and where V equals d nothing complains.",
    "输出处的梯度转置了：E 是 (V, d)，当 V 等于 d 时不会报错。",
)
def output_transposed(d_x, ids, d_logits, h):
    return np.einsum("btv,btd->dv", d_logits, h) + embedding_backward(d_x, ids, d_logits.shape[-1])


@exercise.mistake(
    "Where the rows of the input are added, those of the output are lost: only rows of tokens that occur get it.",
    "加上输入处的行时，输出处的梯度丢了一部分：只有出现过的词元的行得到了它。",
)
def output_only_where_used(d_x, ids, d_logits, h):
    dE = np.zeros((d_logits.shape[-1], h.shape[-1]))
    at_output = np.einsum("btv,btd->vd", d_logits, h)
    dE[ids] = at_output[ids]
    return dE + embedding_backward(d_x, ids, d_logits.shape[-1])
