"""How good a language model is: the chain rule and perplexity."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "perplexity",
    lesson=0,
    title=Say("The probability of a text, and perplexity", "文本的概率与困惑度"),
    task=Say(
        """Measure how surprised a bigram model is by a text.

    P: probabilities (V, V): P[a, b] is the probability that b follows a
    ids: the text, token ids, (T,), T of at least 2
    returns: the perplexity: e to the mean negative log-probability of all tokens but the first

    A text may have thousands of tokens: its probability is then smaller than any float. A text with a pair of
    probability 0 has perplexity inf.""",
        """衡量二元语法模型对一段文本有多惊讶。

    P：概率，(V, V)：P[a, b] 是 a 之后出现 b 的概率
    ids：文本的词元编号，(T,)，T 不小于 2
    返回：困惑度：e 的幂，指数为除第一个词元外各词元负对数概率的平均值

    文本可能有几千个词元：它的概率会小于任何浮点数。若有一对词元的概率为 0，困惑度为 inf。""",
    ),
)


@exercise.answer
def perplexity(P, ids):
    of_each = P[ids[:-1], ids[1:]]
    return np.exp(-np.mean(np.log(of_each)))


@exercise.variant
def log_table_first(P, ids):
    L = np.log(P)
    total = sum(L[a, b] for a, b in zip(ids, ids[1:], strict=False))
    return np.exp(-total / (len(ids) - 1))


@exercise.variant
def geometric_mean(P, ids):
    p = np.take_along_axis(P[ids[:-1]], ids[1:, None], axis=1)[:, 0]
    return np.prod((1 / p) ** (1 / p.size))


@exercise.variant
def in_bits(P, ids):
    bits = [-np.log2(P[ids[t - 1], ids[t]]) for t in range(1, len(ids))]
    return 2.0 ** (np.sum(bits) / len(bits))


@exercise.shows("is right for a short text", "短文本时正确", points=2)
def short(rng):
    P = rng.dirichlet(np.full(7, 0.7), size=7) + 1e-3
    P /= P.sum(1, keepdims=True)
    return [(P, rng.integers(7, size=n)) for n in (2, 5, 11)]


@exercise.shows("stays finite for a text of thousands of tokens", "几千个词元的文本时仍有限", points=1)
def long(rng):
    P = rng.dirichlet(np.full(5, 0.7), size=5) + 1e-3
    return [(P / P.sum(1, keepdims=True), rng.integers(5, size=4001))]


@exercise.shows("is V for a model that knows nothing", "对一无所知的模型等于 V", points=1)
def uniform(rng):
    return [(np.full((V, V), 1 / V), rng.integers(V, size=13)) for V in (3, 11)]


@exercise.shows("is inf where the model rules out what came", "模型认为不可能的事发生时为 inf", points=1)
def impossible(rng):
    P = rng.dirichlet(np.full(5, 2.0), size=5)
    ids = rng.integers(5, size=7)
    P[ids[2], ids[3]] = 0
    return [(P / P.sum(1, keepdims=True), ids)]


@exercise.mistake(
    "You multiply the probabilities: of thousands of numbers below 1 the product is 0 in any float. Add their "
    "logarithms.",
    "你把概率连乘：几千个小于 1 的数相乘，任何浮点数都会变成 0。请改为对数相加。",
)
def multiplies_probabilities(P, ids):
    product = np.prod(P[ids[:-1], ids[1:]])
    return (1 / product) ** (1 / (len(ids) - 1))


@exercise.mistake(
    "You divide by the number of tokens, but the first one is not guessed: there is one fewer.",
    "你除以了词元总数，但第一个词元并没有被猜：应少一个。",
)
def divides_by_all_tokens(P, ids):
    return np.exp(-np.sum(np.log(P[ids[:-1], ids[1:]])) / len(ids))


@exercise.mistake(
    "Rows and columns are exchanged: P[a, b] is the probability that b follows a.",
    "行列颠倒了：P[a, b] 是 a 之后出现 b 的概率。",
)
def reads_backwards(P, ids):
    return np.exp(-np.mean(np.log(P[ids[1:], ids[:-1]])))


@exercise.mistake(
    "This is the mean of the negative log-probability, the cross-entropy: perplexity is e to that power.",
    "这是负对数概率的平均，即交叉熵：困惑度是以它为指数的 e 的幂。",
)
def cross_entropy_for_perplexity(P, ids):
    return -np.mean(np.log(P[ids[:-1], ids[1:]]))


@exercise.mistake(
    "Base and logarithm do not fit: with log2 the power must be of 2, with log of e.",
    "底数与对数不配：用 log2 就要算 2 的幂，用 log 就要算 e 的幂。",
)
def mixes_bases(P, ids):
    return np.exp(-np.mean(np.log2(P[ids[:-1], ids[1:]])))


@exercise.mistake(
    "The mean is taken of the probabilities and not of their logarithms: that hides the rare surprises.",
    "你对概率求平均，而不是对它们的对数：这会掩盖少见的意外。",
)
def mean_of_probabilities(P, ids):
    return 1 / np.mean(P[ids[:-1], ids[1:]])


@exercise.mistake(
    "A small number was added to the probabilities, and what the model rules out comes out as merely unlikely.",
    "你给概率加了一个小数，模型认为不可能的事就变成了只是少见。",
)
def hides_the_impossible(P, ids):
    return np.exp(-np.mean(np.log(P[ids[:-1], ids[1:]] + 1e-9)))
