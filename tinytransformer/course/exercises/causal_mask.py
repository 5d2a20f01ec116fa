"""The mask of a decoder: nothing that comes later."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "causal_mask",
    lesson=5,
    title=Say("The causal mask", "因果掩码"),
    task=Say(
        """Say which keys each query may attend to: its own position and all before it.

    T_q: number of queries; they are the last T_q positions of the text
    T_k: number of keys, at least T_q
    returns: booleans, (T_q, T_k), True where a query may attend

    With a cache there are more keys than queries: the last query sees all T_k keys.""",
        """说明每个查询可以注意哪些键：它自己的位置以及之前的全部位置。

    T_q：查询的个数；它们是文本的最后 T_q 个位置
    T_k：键的个数，不小于 T_q
    返回：布尔数组，(T_q, T_k)，True 表示可以注意

    使用缓存时键比查询多：最后一个查询可以看到全部 T_k 个键。""",
    ),
)


@exercise.answer
def causal_mask(T_q, T_k):
    query_positions = np.arange(T_k - T_q, T_k)
    return np.arange(T_k) <= query_positions[:, None]


@exercise.variant
def lower_triangle(T_q, T_k):
    return np.tri(T_q, T_k, T_k - T_q, dtype=bool)


@exercise.variant
def last_rows_of_a_square(T_q, T_k):
    return np.tril(np.ones((T_k, T_k)))[T_k - T_q :].astype(bool)


@exercise.variant
def place_by_place(T_q, T_k):
    return np.array([[k <= q + T_k - T_q for k in range(T_k)] for q in range(T_q)])


@exercise.shows("is right for as many keys as queries", "键与查询一样多时正确", points=2)
def square(rng):
    return [(int(n), int(n)) for n in rng.permutation([3, 4, 5, 6, 7])[:3]]


@exercise.shows("is right for more keys than queries", "键比查询多时正确", points=2)
def longer(rng):
    first, second = (int(n) for n in rng.permutation([2, 3, 4, 5])[:2])
    return [(first, first + 4), (1, 7), (second, second + 2)]


@exercise.mistake(
    "Off by one: each query sees one token of the future, which in training is the very token it must guess.",
    "差了一格：每个查询多看到一个未来的词元，而训练时那正是它要猜的词元。",
)
def sees_one_token_of_the_future(T_q, T_k):
    return np.tril(np.ones((T_q, T_k), dtype=bool), k=T_k - T_q + 1)


@exercise.mistake(
    "Off by one the other way: no query sees its own position, and the first sees nothing.",
    "反方向差了一格：查询看不到自己的位置，第一个查询什么也看不到。",
)
def does_not_see_itself(T_q, T_k):
    return np.tril(np.ones((T_q, T_k), dtype=bool), k=T_k - T_q - 1)


@exercise.mistake(
    "This is the upper triangle: each query sees itself and the future. Rows are queries, columns are keys.",
    "这是上三角：每个查询看到的是自己和未来。行是查询，列是键。",
)
def upper_triangle(T_q, T_k):
    return np.triu(np.ones((T_q, T_k), dtype=bool), k=T_k - T_q)


@exercise.mistake(
    "True stands where attention is forbidden: here True means that a query may attend.",
    "True 放在了禁止注意的地方：这里 True 表示可以注意。",
)
def true_means_forbidden(T_q, T_k):
    return ~np.tril(np.ones((T_q, T_k), dtype=bool), k=T_k - T_q)


@exercise.mistake(
    "The triangle starts at the top left: with a cache the queries are the last positions, and here a new "
    "token sees only the first keys.",
    "三角从左上角开始：有缓存时查询是最后几个位置，而这样新词元只看得到最前面的键。",
)
def starts_at_the_top_left(T_q, T_k):
    return np.tril(np.ones((T_q, T_k), dtype=bool))


@exercise.mistake(
    "These are numbers to be added to the scores (0 and -1 or -inf). Booleans are asked for: as booleans "
    "these mean the opposite.",
    "这是要加到得分上的数（0 与 -1 或 -inf）。题目要布尔值：把它们当布尔值，含义正好相反。",
)
def zeros_and_minus_ones(T_q, T_k):
    return np.tril(np.ones((T_q, T_k)), k=T_k - T_q) - 1.0
