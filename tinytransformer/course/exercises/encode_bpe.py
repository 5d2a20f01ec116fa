"""Encode with the merges of byte-pair encoding."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "encode_bpe",
    lesson=8,
    title=Say("Byte-pair encoding: encoding a text", "字节对编码：编码文本"),
    task=Say(
        """Encode a text with learned merges.

    text: a string
    merges: pairs of ids in the order they were learned: merge number k makes the token 256 + k
    returns: a list of ids

    Each byte of the UTF-8 text is a token at first. Of the merges that can be made the one learned first is
    made first, wherever it can be, from left to right; then again, until none is left.""",
        """用学到的合并编码文本。

    text：字符串
    merges：按学习顺序排列的编号对：第 k 个合并生成词元 256 + k
    返回：编号的列表

    开始时 UTF-8 文本的每个字节是一个词元。在所有可做的合并中，先做最早学到的那个，从左到右处理它的每次出现；
    如此反复，直到没有可做的合并。""",
    ),
)


@exercise.answer
def encode_bpe(text, merges):
    rank = {tuple(pair): k for k, pair in enumerate(merges)}
    ids = list(text.encode("utf-8"))
    while True:
        pairs = set(zip(ids[:-1], ids[1:], strict=True)) & rank.keys()
        if not pairs:
            return ids
        first = min(pairs, key=rank.get)
        merged, i = [], 0
        while i < len(ids):
            if tuple(ids[i : i + 2]) == first:
                merged.append(256 + rank[first])
                i += 2
            else:
                merged.append(ids[i])
                i += 1
        ids = merged


@exercise.variant
def merge_by_merge(text, merges):
    ids = list(text.encode())
    for k, (a, b) in enumerate(merges):
        out = []
        for t in ids:
            if out and out[-1] == a and t == b:
                out[-1] = 256 + k
            else:
                out.append(t)
        ids = out
    return ids


@exercise.variant
def as_a_string(text, merges):
    s = text.encode("utf-8").decode("latin-1")
    for k, (a, b) in enumerate(merges):
        s = s.replace(chr(a) + chr(b), chr(256 + k))
    return [ord(c) for c in s]


@exercise.variant
def one_place_at_a_time(text, merges):
    table = {(int(a), int(b)): 256 + k for k, (a, b) in enumerate(merges)}
    ids = list(text.encode("utf-8"))
    while len(ids) > 1:
        best = min(range(len(ids) - 1), key=lambda i: table.get((ids[i], ids[i + 1]), 10**9))
        if (ids[best], ids[best + 1]) not in table:
            break
        ids[best : best + 2] = [table[ids[best], ids[best + 1]]]
    return np.array(ids)


@exercise.shows("is right with merges of bytes", "只合并字节时正确", points=1)
def bytes_alone(rng):
    text = " ".join(rng.choice(["low", "lower", "newest"], size=5))
    return [(text, [(101, 115), (108, 111)]), ("aaaaa" + text, [(97, 97)])]


@exercise.shows("makes merges in the order they were learned", "按学习的顺序合并", points=2)
def order(rng):
    e, s, t, w, n, space = b"estwn "
    text = " ".join(rng.choice(["newest", "west", "ester"], size=7))
    merges = [(s, t), (e, 256), (e, w), (n, 258), (w, 257), (space, 260), (e, s)]
    return [("west newest " + text, merges), ("abc" + text, [(98, 99), (97, 98)])]


@exercise.shows("works on the bytes of Chinese text", "能处理中文文本的字节", points=1)
def chinese(rng):
    a, b, c = "注".encode()
    text = "".join(rng.choice(["注意力", "注意", "关注", "x"], size=7))
    return [("注" + text, [(a, b), (256, c), (257, 230)])]


@exercise.shows("takes a text of no or one byte", "空文本或一个字节的文本", points=1)
def short(rng):
    return [("", [(97, 97)]), (str(rng.choice(list("abcd"))), [(97, 97)]), ("ab" * 3, [(97, 98), (256, 256)])]


def merged_in_order(ids, numbered):
    """Make merges one after the other: pairs with the ids of what they make."""
    for (a, b), new in numbered:
        out = []
        for t in ids:
            if out and out[-1] == a and t == b:
                out[-1] = new
            else:
                out.append(t)
        ids = out
    return ids


@exercise.mistake(
    "You make the longest token from the left: the order in which merges were learned decides, and gives other tokens.",
    "你从左边起取最长的词元：决定先后的是学习合并的顺序，结果会不同。",
)
def longest_from_the_left(text, merges):
    spelled = [bytes([i]) for i in range(256)]
    for a, b in merges:
        spelled.append(spelled[a] + spelled[b])
    data, ids = text.encode("utf-8"), []
    while data:
        best = max(
            (t for t in range(len(spelled)) if data.startswith(spelled[t])), key=lambda t: len(spelled[t])
        )
        ids.append(best)
        data = data[len(spelled[best]) :]
    return ids


@exercise.mistake(
    "The merges are made in the opposite order: the one learned first comes first.",
    "合并的顺序反了：最早学到的应最先做。",
)
def last_learned_first(text, merges):
    numbered = [(pair, 256 + k) for k, pair in enumerate(merges)]
    return merged_in_order(list(text.encode()), numbered[::-1])


@exercise.mistake(
    "Only one pass is made from left to right, with whatever merge fits: it stops too early, and in the wrong order.",
    "只从左到右扫了一遍，遇到能合并的就合并：停得太早，顺序也不对。",
)
def one_pass(text, merges):
    table = {tuple(pair): 256 + k for k, pair in enumerate(merges)}
    out = []
    for t in text.encode("utf-8"):
        if out and (out[-1], t) in table:
            out[-1] = table[out[-1], t]
        else:
            out.append(t)
    return out


@exercise.mistake(
    "These are code points of characters: encode the text as UTF-8 first.",
    "这是字符的码位：应先把文本编码为 UTF-8。",
)
def characters_for_bytes(text, merges):
    return merged_in_order([ord(c) for c in text], [(pair, 256 + k) for k, pair in enumerate(merges)])


@exercise.mistake(
    "The ids of merged tokens are off by one: merge number 0 makes token 256.",
    "合并得到的编号差了一：第 0 个合并生成词元 256。",
)
def ids_off_by_one(text, merges):
    return merged_in_order(list(text.encode()), [(pair, 257 + k) for k, pair in enumerate(merges)])


@exercise.mistake(
    "After a merge you go on by one: the second half of the pair stays.",
    "合并之后只前进了一格：后一半还留着。",
)
def goes_on_by_one(text, merges):
    ids = list(text.encode("utf-8"))
    for k, pair in enumerate(merges):
        ids = [256 + k if tuple(ids[i : i + 2]) == tuple(pair) else ids[i] for i in range(len(ids))]
    return ids
