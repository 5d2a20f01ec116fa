"""Learn the merges of byte-pair encoding."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "train_bpe",
    lesson=8,
    title=Say("Byte-pair encoding: learning the merges", "字节对编码：学习合并"),
    task=Say(
        """Learn which pairs of tokens to merge, on the UTF-8 bytes of a text.

    text: a string
    merges: how many merges to learn; fewer if no pair is left
    returns: a list of pairs of ids, in the order they were learned

    At first each byte is a token, its id the byte's value. Again and again the most frequent pair of neighbours
    becomes a new token, with the next free id (256, 257, …), and is replaced wherever it stands, from left to right.
    Of pairs equally frequent the one with the smaller first id is taken, then that with the smaller second id.
    Pairs are counted at every place, also where they overlap, as in aaa: twice (a, a).""",
        """在文本的 UTF-8 字节上学习应当合并哪些词元对。

    text：字符串
    merges：要学几次合并；若已没有词元对，可以少于此数
    返回：词元编号对的列表，按学到的顺序

    开始时每个字节是一个词元，编号就是字节的值。每一轮，出现最多的相邻对成为新词元，取下一个空闲编号（256、257……），
    并从左到右替换它的每次出现。次数相同时取第一个编号较小的对，再取第二个编号较小的。计数时每个位置都算，
    重叠的也算：aaa 中 (a, a) 出现两次。""",
    ),
)


@exercise.answer
def train_bpe(text, merges):
    from collections import Counter

    ids, learned = list(text.encode("utf-8")), []
    for new in range(256, 256 + merges):
        counts = Counter(zip(ids[:-1], ids[1:], strict=True))
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        learned.append(best)
        merged, i = [], 0
        while i < len(ids):
            if tuple(ids[i : i + 2]) == best:
                merged.append(new)
                i += 2
            else:
                merged.append(ids[i])
                i += 1
        ids = merged
    return learned


@exercise.variant
def with_a_dictionary_and_sorting(text, merges):
    tokens, table = [*text.encode()], []
    while len(table) < merges and len(tokens) > 1:
        seen = {}
        for a, b in zip(tokens, tokens[1:], strict=False):
            seen[a, b] = seen.get((a, b), 0) + 1
        a, b = sorted(seen, key=lambda p: (-seen[p], p[0], p[1]))[0]
        out = []
        for t in tokens:
            if out and out[-1] == a and t == b:
                out[-1] = 256 + len(table)
            else:
                out.append(t)
        tokens = out
        table.append((a, b))
    return table


@exercise.variant
def with_numpy(text, merges):
    ids, found = np.frombuffer(text.encode("utf-8"), np.uint8).astype(int), []
    for k in range(merges):
        if len(ids) < 2:
            break
        codes, counts = np.unique(ids[:-1] * 100000 + ids[1:], return_counts=True)
        best = int(codes[np.argmax(counts)])
        a, b = divmod(best, 100000)
        places, last = [], -2
        for i in np.flatnonzero((ids[:-1] == a) & (ids[1:] == b)):
            if i > last + 1:
                places.append(i)
                last = i
        ids = ids.copy()
        ids[places] = 256 + k
        ids = np.delete(ids, np.array(places, int) + 1)
        found.append((a, b))
    return found


@exercise.variant
def as_a_string(text, merges):
    s, pairs = text.encode("utf-8").decode("latin-1"), []
    for k in range(merges):
        counts = {}
        for i in range(len(s) - 1):
            counts[s[i : i + 2]] = counts.get(s[i : i + 2], 0) + 1
        if not counts:
            break
        top = max(counts.values())
        best = min(p for p, n in counts.items() if n == top)
        s = s.replace(best, chr(256 + k))
        pairs.append((ord(best[0]), ord(best[1])))
    return pairs


def words(rng, names, n):
    return " ".join(rng.choice(names, size=n))


@exercise.shows("learns the most frequent pair first", "先学出现最多的对", points=1)
def first(rng):
    return [
        (words(rng, ["low", "lower", "newest", "widest"], 17), 1),
        (words(rng, ["banana", "bandana"], 11), 2),
    ]


@exercise.shows("merges merged tokens on", "在已合并的词元上继续合并", points=1)
def on(rng):
    return [
        (words(rng, ["low", "lower", "newest", "widest"], 23), 9),
        (words(rng, ["aaa", "aaaaa", "ab"], 13), 5),
    ]


@exercise.shows("works on the bytes of Chinese text", "能处理中文文本的字节", points=1)
def chinese(rng):
    return [(words(rng, ["注意力", "注意", "语言模型", "大语言模型"], 13), 7)]


@exercise.shows("decides between equally frequent pairs as told", "次数相同时按规定取舍", points=1)
def ties(rng):
    letters = "".join(rng.permutation(list("zyxwv")))
    return [(letters, 3), (letters * 2 + "!", 4), ("ba" + "ab" + "cb", 2)]


@exercise.shows("stops when no pair is left", "没有词元对时停止", points=1)
def stops(rng):
    letter = str(rng.choice(list("abcxyz")))
    return [(letter * 4, 9), (letter, 3), (letter * 3, 5)]


def learned(ids, merges, choose, first=256, step=2):
    """Learn merges, with what the mistakes below get wrong as arguments: the choice, the first id, the step."""
    from collections import Counter

    pairs = []
    for new in range(first, first + merges):
        counts = Counter(zip(ids[:-1], ids[1:], strict=True))
        if not counts:
            break
        best = choose(counts)
        pairs.append(best)
        merged, i = [], 0
        while i < len(ids):
            hit = tuple(ids[i : i + 2]) == best
            merged.append(new if hit else ids[i])
            i += step if hit else 1
        ids = merged
    return pairs


def most_frequent(counts):
    return min(counts, key=lambda pair: (-counts[pair], pair))


@exercise.mistake(
    "After a merge you go on by one: the second half of the pair stays in the text. Go on by two.",
    "合并之后只前进了一格：词元对的后一半还留在文本里。应前进两格。",
)
def goes_on_by_one(text, merges):
    return learned(list(text.encode()), merges, most_frequent, step=1)


@exercise.mistake(
    "Of pairs equally frequent you take the one met first: it then depends on the order of the text. Compare the ids.",
    "次数相同时你取了最先遇到的：结果取决于文本的顺序。应比较编号。",
)
def first_met_of_equals(text, merges):
    return learned(list(text.encode()), merges, lambda counts: max(counts, key=counts.get))


@exercise.mistake(
    "Of pairs equally frequent you take the one with the larger ids: the smaller ones come first.",
    "次数相同时你取了编号较大的对：应取较小的。",
)
def largest_of_equals(text, merges):
    return learned(
        list(text.encode()), merges, lambda counts: max(counts, key=lambda pair: (counts[pair], pair))
    )


@exercise.mistake(
    "These are code points of characters and not bytes: Chinese then needs thousands of tokens, whose ids collide with those "
    "of merges.",
    "这是字符的码位而不是字节：中文就需要上千个词元，编号还会与合并的编号相撞。",
)
def characters_for_bytes(text, merges):
    return learned([ord(c) for c in text], merges, most_frequent)


@exercise.mistake(
    "This takes the rarest pair.",
    "这取的是最少见的对。",
)
def rarest_pair(text, merges):
    return learned(
        list(text.encode()), merges, lambda counts: min(counts, key=lambda pair: (counts[pair], pair))
    )


@exercise.mistake(
    "New ids begin at 257: the first free one after the bytes 0 to 255 is 256.",
    "新编号从 257 开始了：字节 0 到 255 之后第一个空闲的是 256。",
)
def ids_off_by_one(text, merges):
    return learned(list(text.encode()), merges, most_frequent, first=257)


@exercise.mistake(
    "The pairs are counted once, at the beginning: after each merge the text has other pairs.",
    "词元对只在开始时数了一次：每次合并之后，文本中的对都变了。",
)
def counted_once(text, merges):
    from collections import Counter

    ids = list(text.encode("utf-8"))
    counts = Counter(zip(ids[:-1], ids[1:], strict=True))
    return sorted(counts, key=lambda pair: (-counts[pair], pair))[:merges]
