"""The gradient of an embedding table."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "embedding_backward",
    lesson=6,
    title=Say("The gradient of an embedding", "嵌入的梯度"),
    task=Say(
        """Take a gradient back through a lookup, E[ids].

    g: the gradient of the loss with respect to E[ids], (..., d)
    ids: token ids, (...)
    vocab_size: V
    returns: the gradient of E, (V, d)""",
        """让梯度反向通过查表 E[ids]。

    g：损失对 E[ids] 的梯度，(..., d)
    ids：词元编号，(...)
    vocab_size：V
    返回：E 的梯度，(V, d)""",
    ),
)


@exercise.answer
def embedding_backward(g, ids, vocab_size):
    dE = np.zeros((vocab_size, g.shape[-1]))
    np.add.at(dE, ids, g)
    return dE


@exercise.variant
def by_one_hot(g, ids, vocab_size):
    one_hot = (ids.reshape(-1, 1) == np.arange(vocab_size)).astype(float)
    return one_hot.T @ g.reshape(-1, g.shape[-1])


@exercise.variant
def by_loop(g, ids, vocab_size):
    dE = np.zeros((vocab_size, g.shape[-1]))
    for place, token in np.ndenumerate(ids):
        dE[token] += g[place]
    return dE


@exercise.variant
def by_sorting(g, ids, vocab_size):
    flat, order = ids.ravel(), np.argsort(ids.ravel(), kind="stable")
    dE = np.zeros((vocab_size, g.shape[-1]))
    used, starts = np.unique(flat[order], return_index=True)
    dE[used] = np.add.reduceat(g.reshape(flat.size, -1)[order], starts, axis=0)
    return dE


@exercise.variant
def by_bincount(g, ids, vocab_size):
    columns = g.reshape(ids.size, -1).T
    return np.stack([np.bincount(ids.ravel(), c, minlength=vocab_size) for c in columns], axis=1)


@exercise.shows("is right where no token repeats", "没有重复词元时正确", points=1)
def different(rng):
    return [(rng.normal(size=(5, 3)), np.append(rng.permutation(np.arange(1, 6))[:4], 0), 7)]


@exercise.shows("adds up where a token repeats", "词元重复时梯度相加", points=3)
def repeated(rng):
    return [
        (rng.normal(size=(11, 3)), np.append(rng.integers(5, size=9), [2, 2]), 5),
        (rng.normal(size=(2, 7, 5)), np.array([[1, 0, 2, 2, 1, 2, 0]] * 2), 11),
    ]


@exercise.shows("has a row for every token, used or not", "每个词元都有一行，无论用没用到", points=1)
def unused(rng):
    return [
        (rng.normal(size=(3, 2)), np.array([0, 1, 1]), 13),
        (rng.normal(size=(1, 3, 2)), np.array([[4, 0, 4]]), 7),
    ]


@exercise.mistake(
    "dE[ids] += g keeps only the last of equal ids: NumPy reads all places first and writes them afterwards. Look at "
    "np.add.at.",
    "dE[ids] += g 对相同的编号只留下最后一个：NumPy 先把所有位置读出来，再写回去。请看 np.add.at。",
)
def last_of_equal_ids(g, ids, vocab_size):
    dE = np.zeros((vocab_size, g.shape[-1]))
    dE[ids] += g
    return dE


@exercise.mistake(
    "You average over the uses of a token: gradients of all uses add up.",
    "你对一个词元的多次使用取了平均：各次的梯度应当相加。",
)
def mean_for_sum(g, ids, vocab_size):
    dE = np.zeros((vocab_size, g.shape[-1]))
    np.add.at(dE, ids, g)
    return dE / np.maximum(np.bincount(ids.ravel(), minlength=vocab_size), 1)[:, None]


@exercise.mistake(
    "You look g up: that is the way forward. The way back puts rows of g where they came from.",
    "你在对 g 查表：那是前向。反向要把 g 的各行放回它们来的地方。",
)
def looks_up_again(g, ids, vocab_size):
    return g.reshape(-1, g.shape[-1])[np.arange(vocab_size) % ids.size]


@exercise.mistake(
    "The table has rows up to the largest id used: it must have vocab_size of them.",
    "表的行数只到用过的最大编号：应当有 vocab_size 行。",
)
def rows_for_used_tokens_alone(g, ids, vocab_size):
    dE = np.zeros((ids.max() + 1, g.shape[-1]))
    np.add.at(dE, ids, g)
    return dE


@exercise.mistake(
    "The gradient is divided by the number of tokens: the loss has done that already, if it is a mean.",
    "梯度又除以了词元数：如果损失是平均值，那里已经除过了。",
)
def divided_by_all(g, ids, vocab_size):
    dE = np.zeros((vocab_size, g.shape[-1]))
    np.add.at(dE, ids, g)
    return dE / ids.size


@exercise.mistake(
    "Token 0 gets no gradient: only a padding token would be left out, and none is here.",
    "词元 0 没有梯度：只有填充词元才会被排除，而这里没有。",
)
def token_0_left_out(g, ids, vocab_size):
    dE = np.zeros((vocab_size, g.shape[-1]))
    np.add.at(dE, ids, g)
    dE[0] = 0
    return dE
