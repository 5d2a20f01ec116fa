"""A language model by counting pairs."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "bigram_probabilities",
    lesson=0,
    title=Say("A language model by counting", "靠计数得到语言模型"),
    task=Say(
        """Estimate from a text how likely each token follows each other one.

    ids: the text, token ids, (T,)
    vocab_size: V, the number of different tokens
    k: added to the count of every pair, at least 0
    returns: P, (V, V): P[a, b] is the probability that b follows a: the number of times the pair (a, b) stands
        in the text, plus k, divided so that each row adds up to 1

    A row of nothing but zeros, of a token that nothing follows, is uniform.""",
        """由文本估计每个词元之后出现其他词元的可能性。

    ids：文本的词元编号，(T,)
    vocab_size：V，不同词元的个数
    k：加到每一对的计数上的数，不小于 0
    返回：P，(V, V)：P[a, b] 是 a 之后出现 b 的概率：文本中 (a, b) 相邻出现的次数加 k，再使每行之和为 1

    全为零的行（某词元之后从未有词元）取均匀分布。""",
    ),
)


@exercise.answer
def bigram_probabilities(ids, vocab_size, k=0.0):
    counts = np.full((vocab_size, vocab_size), float(k))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total == 0, 1 / vocab_size, counts / np.where(total == 0, 1, total))


@exercise.variant
def by_bincount(ids, vocab_size, k=0.0):
    pairs = np.asarray(ids[:-1]) * vocab_size + ids[1:]
    table = np.bincount(pairs, minlength=vocab_size**2).reshape(vocab_size, vocab_size) + k
    table[table.sum(1) == 0] = 1
    return table / table.sum(1)[:, None]


@exercise.variant
def by_dictionary(ids, vocab_size, k=0.0):
    from collections import Counter

    seen = Counter(zip(ids[:-1].tolist(), ids[1:].tolist(), strict=True))
    P = np.zeros((vocab_size, vocab_size))
    for a in range(vocab_size):
        row = np.array([seen[a, b] + k for b in range(vocab_size)])
        P[a] = row / row.sum() if row.sum() > 0 else 1 / vocab_size
    return P


@exercise.variant
def by_one_hot_product(ids, vocab_size, k=0.0):
    one_hot = np.eye(vocab_size)[ids]
    counts = one_hot[:-1].T @ one_hot[1:] + k
    counts += counts.sum(1, keepdims=True) == 0
    return counts / counts.sum(1, keepdims=True)


@exercise.shows("is right without smoothing", "不加平滑时正确", points=2)
def plain(rng):
    return [(np.concatenate([np.arange(V), rng.integers(V, size=40), [0]]), V) for V in (3, 5)]


@exercise.shows("adds k to every pair", "每一对都加上 k", points=1)
def smoothed(rng):
    return [(rng.integers(7, size=30), 7, 0.5), (rng.integers(5, size=11), 5, 2.0)]


@exercise.shows(
    "gives a uniform row to a token that nothing follows", "之后从未有词元的行取均匀分布", points=1
)
def unseen(rng):
    ids = rng.integers(4, size=17)
    return [(np.append(ids[ids != 2], 6), 7)]


@exercise.mistake(
    "Repeated pairs count once: counts[a, b] += 1 with arrays of indices keeps only the last of equal places. "
    "Look at np.add.at.",
    "重复的对只算了一次：用下标数组做 counts[a, b] += 1 时，相同位置只保留最后一次。请看 np.add.at。",
)
def repeated_pairs_count_once(ids, vocab_size, k=0.0):
    counts = np.full((vocab_size, vocab_size), float(k))
    counts[ids[:-1], ids[1:]] += 1
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total == 0, 1 / vocab_size, counts / np.where(total == 0, 1, total))


@exercise.mistake(
    "Rows and columns are exchanged: this is how likely a came before b.",
    "行列颠倒了：这是 b 之前出现 a 的可能性。",
)
def counts_backwards(ids, vocab_size, k=0.0):
    counts = np.full((vocab_size, vocab_size), float(k))
    np.add.at(counts, (ids[1:], ids[:-1]), 1)
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total == 0, 1 / vocab_size, counts / np.where(total == 0, 1, total))


@exercise.mistake(
    "All pairs together add up to 1: these are joint probabilities. What follows a must add up to 1 for each a.",
    "所有对之和为 1：这是联合概率。对每个 a，它之后各词元的概率之和才应为 1。",
)
def joint_for_conditional(ids, vocab_size, k=0.0):
    counts = np.full((vocab_size, vocab_size), float(k))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return counts / counts.sum()


@exercise.mistake(
    "The columns add up to 1 instead of the rows.",
    "各列之和为 1，而应当是各行之和为 1。",
)
def columns_add_up_to_one(ids, vocab_size, k=0.0):
    counts = np.full((vocab_size, vocab_size), float(k))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    total = counts.sum(axis=0, keepdims=True)
    return np.where(total == 0, 1 / vocab_size, counts / np.where(total == 0, 1, total))


@exercise.mistake(
    "Each count is divided by how often the token occurs, and its last occurrence, with nothing behind it, "
    "counts too: divide by the sum of the row.",
    "你除以了词元出现的次数，而它在文末的那一次之后并没有词元：应除以这一行的和。",
)
def divides_by_occurrences(ids, vocab_size, k=0.0):
    counts = np.full((vocab_size, vocab_size), float(k))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    total = np.bincount(ids, minlength=vocab_size)[:, None] + vocab_size * k
    return np.where(total == 0, 1 / vocab_size, counts / np.where(total == 0, 1, total))


@exercise.mistake(
    "A row without counts is 0/0 = NaN.",
    "没有计数的行得到 0/0 = NaN。",
)
def nan_for_unseen_tokens(ids, vocab_size, k=0.0):
    counts = np.full((vocab_size, vocab_size), float(k))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    return counts / counts.sum(axis=1, keepdims=True)


@exercise.mistake(
    "k is ignored.",
    "没有使用 k。",
)
def smoothing_ignored(ids, vocab_size, k=0.0):
    counts = np.zeros((vocab_size, vocab_size))
    np.add.at(counts, (ids[:-1], ids[1:]), 1)
    total = counts.sum(axis=1, keepdims=True)
    return np.where(total == 0, 1 / vocab_size, counts / np.where(total == 0, 1, total))
