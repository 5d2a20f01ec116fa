"""Beam search."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "beam_search",
    lesson=10,
    title=Say("Beam search", "束搜索"),
    task=Say(
        """Look for a text that is as likely as possible, with a number of beginnings side by side.

    log_probs: a function from a list of ids, which begins with start, to an array (V,): the log-probability of
        each next token
    start, end: the ids that begin and end a text
    width: how many unfinished texts to keep
    steps: the most tokens to write after start
    alpha: texts are compared by (sum of log-probabilities) / length ** alpha; the length counts the tokens after
        start, end included
    returns: the best text, a list of ids beginning with start

    In each step all unfinished texts are continued by every token. Of all continuations of all texts together the
    `width` likeliest, by their sums, are kept; those that end with `end` are finished and make no room for others.
    It stops when no text is unfinished, or after `steps` tokens; then the best of the finished texts and those
    still unfinished is returned. No two texts are equally likely.""",
        """同时保留若干个开头，寻找尽可能可能的文本。

    log_probs：函数，输入以 start 开头的编号列表，返回数组 (V,)：每个后续词元的对数概率
    start、end：文本开头和结尾的编号
    width：保留多少个未完成的文本
    steps：start 之后最多写多少个词元
    alpha：文本按 (对数概率之和) / 长度 ** alpha 比较；长度是 start 之后的词元数，含 end
    返回：最好的文本，以 start 开头的编号列表

    每一步，所有未完成的文本都用每个词元续写。在所有文本的所有续写中，按对数概率之和保留最可能的 width 个；其中以 end
    结尾的就完成了，不再为别的续写腾出位置。没有未完成的文本、或写满 steps 个词元时停止；然后在已完成和仍未完成的
    文本中返回最好的。没有两个文本同样可能。""",
    ),
)


@exercise.driver
def drive(answer, seed, V, width, steps, alpha, eagerness):
    def log_probs(ids):
        ids = [int(i) for i in ids]
        if ids[0] != 0 or 1 in ids:
            raise ValueError(
                f"log_probs was asked about {ids}: it begins with start, and finished texts are not continued"
            )
        rng = np.random.default_rng([seed, *ids])
        z = 2.0 * rng.normal(size=V)
        z[0] = -30
        z[1] += eagerness + 0.3 * len(ids)
        return z - np.log(np.exp(z).sum())

    return [int(i) for i in answer(log_probs, 0, 1, width, steps, alpha)]


@exercise.answer
def beam_search(log_probs, start, end, width, steps, alpha=0.0):
    beams, done = [([start], 0.0)], []
    for _ in range(steps):
        found = []
        for text, score in beams:
            found += [([*text, token], score + p) for token, p in enumerate(log_probs(text))]
        best = sorted(found, key=lambda beam: beam[1], reverse=True)[:width]
        done += [beam for beam in best if beam[0][-1] == end]
        beams = [beam for beam in best if beam[0][-1] != end]
        if not beams:
            break
    return max(done + beams, key=lambda beam: beam[1] / (len(beam[0]) - 1) ** alpha)[0]


@exercise.variant
def with_arrays(log_probs, start, end, width, steps, alpha=0.0):
    texts, scores, finished = [[start]], np.zeros(1), []
    for step in range(steps):
        table = scores[:, None] + np.stack([log_probs(t) for t in texts])
        order = np.argsort(-table, axis=None)[:width]
        rows, tokens = np.unravel_index(order, table.shape)
        new = [(texts[r] + [int(t)], table[r, t]) for r, t in zip(rows, tokens, strict=True)]
        finished += [(s / (step + 1) ** alpha, t) for t, s in new if t[-1] == end]
        texts = [t for t, _ in new if t[-1] != end]
        scores = np.array([s for t, s in new if t[-1] != end])
        if not texts:
            break
    finished += [(s / (len(t) - 1) ** alpha, t) for t, s in zip(texts, scores, strict=True)]
    return max(finished)[1]


@exercise.variant
def with_heap(log_probs, start, end, width, steps, alpha=0.0):
    import heapq

    open_, closed, n = {(start,): 0.0}, {}, 0
    while open_ and n < steps:
        n += 1
        every = ((s + float(p), (*t, k)) for t, s in open_.items() for k, p in enumerate(log_probs(list(t))))
        kept = heapq.nlargest(width, every)
        open_ = {t: s for s, t in kept if t[-1] != end}
        closed.update({t: s for s, t in kept if t[-1] == end})
    closed.update(open_)
    return list(max(closed, key=lambda t: closed[t] / (len(t) - 1) ** alpha))


@exercise.variant
def recursive(log_probs, start, end, width, steps, alpha=0.0):
    def go_on(beams, left):
        unfinished = [b for b in beams if b[1][-1] != end]
        if not unfinished or left == 0:
            return list(beams)
        following = [(s + p, [*t, k]) for s, t in unfinished for k, p in enumerate(log_probs(t))]
        following.sort(key=lambda b: -b[0])
        return [b for b in beams if b[1][-1] == end] + go_on(following[:width], left - 1)

    found = go_on([(0.0, [start])], steps)
    return max(found, key=lambda b: b[0] / max(len(b[1]) - 1, 1) ** alpha)[1]


def seeds(rng, n):
    return [int(s) for s in rng.integers(10**6, size=n)]


@exercise.shows("is greedy with a width of 1", "宽度为 1 时是贪心搜索", points=1)
def narrow(rng):
    return [(s, 7, 1, 9, 0.0, -1.0) for s in seeds(rng, 12)]


@exercise.shows("finds likelier texts with a larger width", "宽度更大时找到更可能的文本", points=2)
def wide(rng):
    return [(s, 7, w, 6, 0.0, -1.0) for s in seeds(rng, 25) for w in (2, 3)]


@exercise.shows("compares texts of different lengths by alpha", "用 alpha 比较不同长度的文本", points=2)
def lengths(rng):
    return [(s, 5, 3, 7, a, 0.5) for s in seeds(rng, 30) for a in (0.6, 1.5)]


@exercise.shows("stops after the most steps", "达到步数上限时停止", points=1)
def long(rng):
    return [(s, 5, 2, n, 1.0, -5.0) for s in seeds(rng, 12) for n in (2, 4)]


def searched(
    log_probs, start, end, width, steps, score=lambda s, p: s + p, kept=None, rank=None, of=None, last=None
):
    """Search, with what the mistakes below get wrong as arguments.

    score adds a step; kept takes the beams to continue; of chooses among continuations; rank compares texts;
    last takes finished and unfinished texts and returns those to choose from.
    """
    beams, done = [([start], 0.0)], []
    for step in range(steps):
        found = [
            [([*t, k], score(s, p)) for k, p in enumerate(log_probs(t))] for t, s in (kept or list)(beams)
        ]
        every = sorted((b for children in found for b in children), key=lambda b: -b[1])
        best = every[:width] if of is None else of(found, step)
        done += [b for b in best if b[0][-1] == end]
        beams = [b for b in best if b[0][-1] != end]
        if not beams:
            break
    return max(done + beams if last is None else last(done, beams), key=rank)[0]


def per_length(alpha):
    return lambda b: b[1] / max(len(b[0]) - 1, 1) ** alpha


@exercise.mistake(
    "Only the last step counts: the log-probabilities of all tokens of a text add up.",
    "只算了最后一步：一个文本所有词元的对数概率要相加。",
)
def last_step_alone(log_probs, start, end, width, steps, alpha=0.0):
    return searched(log_probs, start, end, width, steps, score=lambda s, p: p, rank=per_length(alpha))


@exercise.mistake(
    "You stop at the first text that ends: others that are still unfinished may become better.",
    "遇到第一个结束的文本就停了：还未完成的文本可能更好。",
)
def stops_at_the_first_end(log_probs, start, end, width, steps, alpha=0.0):
    beams = [([start], 0.0)]
    for _ in range(steps):
        found = [([*t, k], s + p) for t, s in beams for k, p in enumerate(log_probs(t))]
        best = sorted(found, key=lambda b: b[1], reverse=True)[:width]
        ended = [b for b in best if b[0][-1] == end]
        if ended:
            return ended[0][0]
        beams = best
    return max(beams, key=lambda b: b[1] / (len(b[0]) - 1) ** alpha)[0]


@exercise.mistake(
    "Each beginning keeps its own best continuation: the width likeliest of all continuations together are kept, so that a "
    "good beginning may fill several places.",
    "每个开头各留自己最好的续写：应在所有续写中一起取最可能的 width 个，好的开头可以占几个位置。",
)
def best_child_of_each(log_probs, start, end, width, steps, alpha=0.0):
    def of(found, step):
        ordered = [sorted(children, key=lambda b: -b[1]) for children in found]
        return [b for children in ordered for b in children[: width if step == 0 else 1]]

    return searched(log_probs, start, end, width, steps, of=of, rank=per_length(alpha))


@exercise.mistake(
    "The start counts in the length: only tokens after it do.",
    "start 也算进了长度：只有它之后的词元才算。",
)
def start_counts_in_the_length(log_probs, start, end, width, steps, alpha=0.0):
    return searched(log_probs, start, end, width, steps, rank=lambda b: b[1] / len(b[0]) ** alpha)


@exercise.mistake(
    "Only the best beginning is continued: this is greedy search in disguise.",
    "只续写了最好的开头：这是伪装的贪心搜索。",
)
def continues_the_best_alone(log_probs, start, end, width, steps, alpha=0.0):
    return searched(log_probs, start, end, width, steps, kept=lambda beams: beams[:1], rank=per_length(alpha))


@exercise.mistake(
    "The length is not taken into account: short texts win, because every token makes a text less likely.",
    "没有考虑长度：每多一个词元，文本就更不可能，所以短文本总是赢。",
)
def length_ignored(log_probs, start, end, width, steps, alpha=0.0):
    return searched(log_probs, start, end, width, steps, rank=lambda b: b[1])


@exercise.mistake(
    "Finished texts are continued: nothing comes after `end`.",
    "已完成的文本还在续写：end 之后什么也没有。",
)
def continues_finished_texts(log_probs, start, end, width, steps, alpha=0.0):
    beams = [([start], 0.0)]
    for _ in range(steps):
        found = [([*t, k], s + p) for t, s in beams for k, p in enumerate(log_probs(t))]
        beams = sorted(found, key=lambda b: b[1], reverse=True)[:width]
    return max(beams, key=lambda b: b[1] / (len(b[0]) - 1) ** alpha)[0]


@exercise.mistake(
    "Unfinished texts are left out at the end, though a finished one need not exist or be better.",
    "最后没有考虑未完成的文本，而已完成的可能没有，或并不更好。",
)
def finished_texts_alone(log_probs, start, end, width, steps, alpha=0.0):
    def last(done, beams):
        return done or [([start], 0.0)]

    return searched(log_probs, start, end, width, steps, rank=per_length(alpha), last=last)
