"""T5's span corruption."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "corrupt_spans",
    lesson=10,
    title=Say("Span corruption for T5", "T5 的片段遮盖"),
    task=Say(
        """Take spans out of a text, to be written by a decoder (Raffel et al., 2020, section 3.1.4).

    ids: a text, token ids (T,)
    spans: pairs (start, end) of places, start < end, in order, that do not touch; each is taken out, end not
        included
    sentinels: ids that stand for spans, in order of use; one more than there are spans
    returns: inputs, the text with each span replaced by its sentinel, and targets: each sentinel followed by its
        span, and at the end one more sentinel; two lists or arrays of ids""",
        """从文本中取出片段，由解码器写出（Raffel 等，2020，第 3.1.4 节）。

    ids：文本，词元编号 (T,)
    spans：位置对 (start, end) 的序列，start < end，按顺序排列且互不相接；每段都取出，不含 end
    sentinels：代表片段的哨兵编号，按使用顺序；比片段多一个
    返回：inputs，即每个片段换成其哨兵的文本；targets：每个哨兵后跟它的片段，最后再加一个哨兵；两个编号的列表或数组""",
    ),
)


@exercise.driver
def drive(answer, ids, spans, sentinels):
    return [[int(t) for t in part] for part in answer(ids, spans, sentinels)]


@exercise.answer
def corrupt_spans(ids, spans, sentinels):
    inputs, targets, at = [], [], 0
    for (start, end), sentinel in zip(spans, sentinels, strict=False):
        inputs += [*ids[at:start], sentinel]
        targets += [sentinel, *ids[start:end]]
        at = end
    return inputs + list(ids[at:]), [*targets, sentinels[len(spans)]]


@exercise.variant
def by_walking_the_tokens(ids, spans, sentinels):
    inside = {p: k for k, (a, b) in enumerate(spans) for p in range(a, b)}
    inputs, targets, last = [], [], None
    for p, token in enumerate(ids):
        k = inside.get(p)
        if k is None:
            inputs.append(token)
        else:
            if k != last:
                inputs.append(sentinels[k])
                targets.append(sentinels[k])
            targets.append(token)
        last = k
    return inputs, [*targets, sentinels[len(spans)]]


@exercise.variant
def with_numpy(ids, spans, sentinels):
    ids = np.asarray(ids)
    if not len(spans):
        return ids, np.array(sentinels[:1])
    borders = np.array(spans).ravel()
    pieces = np.split(ids, borders)
    inputs = np.concatenate(
        [x for k, kept in enumerate(pieces[::2]) for x in (kept, sentinels[k : k + 1])][:-1]
    )
    taken = [x for k, span in enumerate(pieces[1::2]) for x in (sentinels[k : k + 1], span)]
    return inputs, np.concatenate([*taken, sentinels[len(spans) : len(spans) + 1]])


@exercise.variant
def from_the_end(ids, spans, sentinels):
    inputs, targets = list(ids), [sentinels[len(spans)]]
    for k in reversed(range(len(spans))):
        a, b = spans[k]
        targets = [sentinels[k], *inputs[a:b], *targets]
        inputs[a:b] = [sentinels[k]]
    return inputs, targets


def text(rng, T):
    return rng.permutation(np.arange(10, 10 + T))


@exercise.shows("is right for spans inside the text", "片段在文本中间时正确", points=2)
def inside(rng):
    return [
        (text(rng, 13), [[2, 4], [6, 9]], [99, 98, 97]),
        (text(rng, 17), [[1, 2], [4, 7], [11, 13]], [50, 51, 52, 53]),
    ]


@exercise.shows("is right for spans at either end", "片段在两端时正确", points=1)
def ends(rng):
    return [(text(rng, 11), [[0, 3], [8, 11]], [99, 98, 97]), (text(rng, 5), [[0, 5]], [99, 98])]


@exercise.shows("is right for one span, and for none", "只有一个片段或没有时正确", points=1)
def few(rng):
    return [
        (text(rng, 7), [[3, 5]], [60, 61]),
        (text(rng, 5), [], [60]),
        (text(rng, 11), [[1, 4], [6, 7]], [60, 61, 62]),
    ]


@exercise.mistake(
    "The last sentinel is missing in the targets: it tells the decoder that all spans are written.",
    "targets 末尾少了一个哨兵：它告诉解码器所有片段都写完了。",
)
def no_last_sentinel(ids, spans, sentinels):
    inputs, targets, at = [], [], 0
    for (start, end), sentinel in zip(spans, sentinels, strict=False):
        inputs += [*ids[at:start], sentinel]
        targets += [sentinel, *ids[start:end]]
        at = end
    return inputs + list(ids[at:]), targets


@exercise.mistake(
    "Every token of a span has a sentinel in the inputs: a span has one, however long, so that its length is to be guessed too.",
    "片段中的每个词元都换成了哨兵：无论多长，一个片段只有一个哨兵，这样长度也要猜。",
)
def a_sentinel_for_each_token(ids, spans, sentinels):
    inputs, targets, at = [], [], 0
    for (start, end), sentinel in zip(spans, sentinels, strict=False):
        inputs += [*ids[at:start], *[sentinel] * (end - start)]
        targets += [sentinel, *ids[start:end]]
        at = end
    return inputs + list(ids[at:]), [*targets, sentinels[len(spans)]]


@exercise.mistake(
    "All spans have the same sentinel: the decoder cannot tell which one to write.",
    "所有片段用了同一个哨兵：解码器分不清该写哪一段。",
)
def one_sentinel_for_all(ids, spans, sentinels):
    inputs, targets, at = [], [], 0
    for start, end in spans:
        inputs += [*ids[at:start], sentinels[0]]
        targets += [sentinels[0], *ids[start:end]]
        at = end
    return inputs + list(ids[at:]), [*targets, sentinels[0]]


@exercise.mistake(
    "The sentinel follows its span in the targets: it comes first, so that the decoder knows what it is to write.",
    "targets 中哨兵放在了片段之后：它应在前面，解码器才知道接下来写哪一段。",
)
def sentinel_after_its_span(ids, spans, sentinels):
    inputs, targets, at = [], [], 0
    for (start, end), sentinel in zip(spans, sentinels, strict=False):
        inputs += [*ids[at:start], sentinel]
        targets += [*ids[start:end], sentinel]
        at = end
    return inputs + list(ids[at:]), [*targets, sentinels[len(spans)]]


@exercise.mistake(
    "The end of a span is taken along: it is not included.",
    "把片段的 end 也取走了：end 不包含在内。",
)
def end_included(ids, spans, sentinels):
    inputs, targets, at = [], [], 0
    for (start, end), sentinel in zip(spans, sentinels, strict=False):
        inputs += [*ids[at:start], sentinel]
        targets += [sentinel, *ids[start : end + 1]]
        at = end + 1
    return inputs + list(ids[at:]), [*targets, sentinels[len(spans)]]


@exercise.mistake(
    "What comes after the last span is missing in the inputs.",
    "inputs 里少了最后一个片段之后的文本。",
)
def tail_missing(ids, spans, sentinels):
    inputs, targets, at = [], [], 0
    for (start, end), sentinel in zip(spans, sentinels, strict=False):
        inputs += [*ids[at:start], sentinel]
        targets += [sentinel, *ids[start:end]]
        at = end
    return inputs, [*targets, sentinels[len(spans)]]


@exercise.mistake(
    "The targets hold the whole text: only what was taken out is to be written.",
    "targets 里是整段文本：只需写出被取走的部分。",
)
def whole_text_as_target(ids, spans, sentinels):
    inputs, at = [], 0
    for (start, end), sentinel in zip(spans, sentinels, strict=False):
        inputs += [*ids[at:start], sentinel]
        at = end
    return inputs + list(ids[at:]), list(ids)
