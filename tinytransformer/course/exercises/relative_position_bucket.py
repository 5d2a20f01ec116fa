"""T5's buckets of distances."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "relative_position_bucket",
    lesson=6,
    title=Say("Relative positions in buckets", "相对位置的分桶"),
    task=Say(
        """Sort distances into buckets as T5 does (Raffel et al., 2020, section 2.1).

    distance: key position - query position, integers of any shape
    bidirectional: True in an encoder. There half of the buckets is for keys after the query (distance > 0), the
        other half for those at or before it. In a decoder all buckets are for keys at or before it, and keys
        after it count as distance 0.
    num_buckets: number of buckets, a multiple of 4
    max_distance: all distances from here on share the last bucket
    returns: bucket numbers, integers of the same shape. With n buckets for one side: distances below n/2 have a
        bucket each; a longer distance m has n/2 + floor(log(m / (n/2)) / log(max_distance / (n/2)) · n/2), at
        most n - 1. The buckets of keys after the query follow those of keys before it: they begin at num_buckets / 2.""",
        """像 T5 那样把距离分到桶里（Raffel 等，2020，第 2.1 节）。

    distance：键的位置 - 查询的位置，任意形状的整数
    bidirectional：编码器中为 True。此时一半的桶给查询之后的键（distance > 0），另一半给查询处及之前的键。解码器中
        所有桶都给查询处及之前的键，之后的键按距离 0 算。
    num_buckets：桶的个数，4 的倍数
    max_distance：从这里起所有距离共用最后一个桶
    返回：桶的编号，形状相同的整数。若一侧有 n 个桶：小于 n/2 的距离各占一个桶；更长的距离 m 的编号为
        n/2 + floor(log(m / (n/2)) / log(max_distance / (n/2)) · n/2)，至多 n - 1。查询之后的键排在之前的键后面：
        它们的桶从 num_buckets / 2 开始。""",
    ),
)


@exercise.answer
def relative_position_bucket(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets // 2 if bidirectional else num_buckets
    start = np.where(distance > 0, n, 0) if bidirectional else 0
    m = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    exact = n // 2
    ratio = np.log(np.maximum(m, 1) / exact) / np.log(max_distance / exact)
    far = np.minimum(exact + np.floor(ratio * exact + 1e-9), n - 1)
    return (start + np.where(m < exact, m, far)).astype(int)


@exercise.variant
def distance_by_distance(distance, bidirectional, num_buckets, max_distance):
    import math

    def bucket(d):
        n, first = num_buckets, 0
        if bidirectional:
            n //= 2
            if d > 0:
                first = n
            m = abs(d)
        else:
            m = max(0, -d)
        if m < n // 2:
            return first + m
        step = math.log(m / (n // 2)) / math.log(max_distance / (n // 2)) * (n // 2)
        return first + min(n - 1, n // 2 + int(step + 1e-9))

    return np.array([bucket(int(d)) for d in distance.ravel()]).reshape(distance.shape)


@exercise.variant
def by_table(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets // (2 if bidirectional else 1)
    e = n // 2
    m = np.arange(max(int(np.abs(distance).max()), 1) + 1)
    table = np.where(m < e, m, 0)
    for k in range(e):
        table[m >= e * (max_distance / e) ** (k / e) - 1e-9] = e + k
    table[m < e] = m[m < e]
    if bidirectional:
        return table[np.abs(distance)] + n * (distance > 0)
    return table[np.where(distance < 0, -distance, 0)]


@exercise.variant
def by_searchsorted(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets // 2 if bidirectional else num_buckets
    e = n // 2
    borders = np.concatenate([np.arange(1, e), e * (max_distance / e) ** (np.arange(e) / e) - 1e-9])
    m = np.abs(distance) if bidirectional else np.clip(-distance, 0, None)
    return np.searchsorted(borders, m, side="right") + (n * (distance > 0) if bidirectional else 0)


@exercise.shows("gives short distances a bucket each", "短距离各占一个桶", points=1)
def short(rng):
    return [(rng.permutation(np.arange(-7, 8)), True, 32, 128), (-rng.permutation(16), False, 32, 128)]


@exercise.shows("is right for long distances in an encoder", "编码器中长距离正确", points=2)
def encoder(rng):
    far = np.concatenate([rng.integers(-200, 200, size=19), [-130, 130, -37, 41, 90, -90]])
    return [(far, True, 32, 128), (far.reshape(5, 5), True, 12, 70)]


@exercise.shows("is right for long distances in a decoder", "解码器中长距离正确", points=1)
def decoder(rng):
    far = np.concatenate([rng.integers(-200, 60, size=14), [-140, -35, -90, 3, 50, -60]])
    return [(far, False, 32, 128), (far.reshape(4, 5), False, 12, 70)]


@exercise.mistake(
    "The sign is turned around: distance is key minus query, so keys before the query have negative distances.",
    "符号反了：distance 是键减查询，因此查询之前的键距离为负。",
)
def sign_turned_around(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets // 2 if bidirectional else num_buckets
    start = np.where(distance < 0, n, 0) if bidirectional else 0
    m, e = (np.abs(distance) if bidirectional else np.maximum(distance, 0)), n // 2
    far = np.minimum(e + np.floor(np.log(np.maximum(m, 1) / e) / np.log(max_distance / e) * e + 1e-9), n - 1)
    return (start + np.where(m < e, m, far)).astype(int)


@exercise.mistake(
    "In an encoder each side has half of the buckets: without halving, left and right share numbers.",
    "编码器中每一侧只有一半的桶：不减半，左右两边就会共用编号。",
)
def buckets_not_halved(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets
    start = np.where(distance > 0, n // 2, 0) if bidirectional else 0
    m, e = (np.abs(distance) if bidirectional else np.maximum(-distance, 0)), n // 2
    far = np.minimum(e + np.floor(np.log(np.maximum(m, 1) / e) / np.log(max_distance / e) * e + 1e-9), n - 1)
    return (start + np.where(m < e, m, far)).astype(int)


@exercise.mistake(
    "The logarithm must reach from n/2 to max_distance: divide by log(max_distance / (n/2)). It shows at long "
    "distances only.",
    "对数应从 n/2 覆盖到 max_distance：要除以 log(max_distance / (n/2))。只有长距离才看得出来。",
)
def range_of_the_logarithm(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets // 2 if bidirectional else num_buckets
    start = np.where(distance > 0, n, 0) if bidirectional else 0
    m, e = (np.abs(distance) if bidirectional else np.maximum(-distance, 0)), n // 2
    far = np.minimum(e + np.floor(np.log(np.maximum(m, 1) / e) / np.log(max_distance) * e + 1e-9), n - 1)
    return (start + np.where(m < e, m, far)).astype(int)


@exercise.mistake(
    "Long distances have no end: from max_distance on all share the last bucket.",
    "长距离没有封顶：从 max_distance 起都共用最后一个桶。",
)
def last_bucket_not_shared(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets // 2 if bidirectional else num_buckets
    start = np.where(distance > 0, n, 0) if bidirectional else 0
    m, e = (np.abs(distance) if bidirectional else np.maximum(-distance, 0)), n // 2
    far = e + np.floor(np.log(np.maximum(m, 1) / e) / np.log(max_distance / e) * e + 1e-9)
    return (start + np.where(m < e, m, far)).astype(int)


@exercise.mistake(
    "In a decoder keys after the query count as distance 0: here they are taken for keys before it.",
    "解码器中查询之后的键按距离 0 算：你却把它们当成了之前的键。",
)
def future_for_past(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets // 2 if bidirectional else num_buckets
    start = np.where(distance > 0, n, 0) if bidirectional else 0
    m, e = np.abs(distance), n // 2
    far = np.minimum(e + np.floor(np.log(np.maximum(m, 1) / e) / np.log(max_distance / e) * e + 1e-9), n - 1)
    return (start + np.where(m < e, m, far)).astype(int)


@exercise.mistake(
    "Every distance has a bucket of its own up to the last: beyond n/2 they grow with the logarithm.",
    "直到最后一个桶，每个距离都各占一个：超过 n/2 后桶应按对数变宽。",
)
def one_bucket_each(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets // 2 if bidirectional else num_buckets
    start = np.where(distance > 0, n, 0) if bidirectional else 0
    m = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    return start + np.minimum(m, n - 1)


@exercise.mistake(
    "Both sides have the same buckets: those of keys after the query begin at num_buckets / 2.",
    "两侧用了相同的桶：查询之后的键应从 num_buckets / 2 开始。",
)
def sides_not_told_apart(distance, bidirectional, num_buckets, max_distance):
    n = num_buckets // 2 if bidirectional else num_buckets
    m, e = (np.abs(distance) if bidirectional else np.maximum(-distance, 0)), n // 2
    far = np.minimum(e + np.floor(np.log(np.maximum(m, 1) / e) / np.log(max_distance / e) * e + 1e-9), n - 1)
    return np.where(m < e, m, far).astype(int)
