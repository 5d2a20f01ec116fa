"""What a language model is to guess."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "shift_labels",
    lesson=8,
    title=Say("Which token each position must guess", "每个位置要猜哪个词元"),
    task=Say(
        """Bring the logits of a language model and the tokens they must guess together.

    logits: (batch, T, V): what the model says at each position, having read the tokens up to and with it
    ids: the tokens it has read, (batch, T)
    returns: logits (batch · (T - 1), V), and targets (batch · (T - 1),): row by row what was said and what came
        next in the same text; positions that have no next token are left out""",
        """把语言模型的 logits 与它们应猜的词元对应起来。

    logits：(batch, T, V)：模型在每个位置、读完该位置及之前的词元后给出的得分
    ids：它读到的词元，(batch, T)
    返回：logits (batch · (T - 1), V) 和目标 (batch · (T - 1),)：逐行对应，给出的得分与同一段文本中的下一个词元；
        没有下一个词元的位置去掉""",
    ),
)


@exercise.answer
def shift_labels(logits, ids):
    said, came_next = logits[:, :-1], ids[:, 1:]
    return said.reshape(-1, logits.shape[-1]), came_next.reshape(-1)


@exercise.variant
def by_concatenation(logits, ids):
    rows = [text[: len(text) - 1] for text in logits]
    return np.concatenate(rows), np.concatenate([text[1:] for text in ids])


@exercise.variant
def by_mask(logits, ids):
    has_next = np.ones(ids.shape, bool)
    has_next[:, -1] = False
    return logits[has_next], np.roll(ids, -1, axis=1)[has_next]


@exercise.variant
def place_by_place(logits, ids):
    places = [(b, t) for b in range(ids.shape[0]) for t in range(ids.shape[1] - 1)]
    return np.array([logits[b, t] for b, t in places]), np.array([ids[b, t + 1] for b, t in places])


@exercise.shows("is right for one text", "只有一段文本时正确", points=2)
def one(rng):
    return [
        (rng.normal(size=(1, 7, 5)), rng.permutation(7)[None] % 5),
        (rng.normal(size=(1, 2, 3)), np.array([[2, 1]])),
    ]


@exercise.shows("is right for several texts", "多段文本时正确", points=2)
def several(rng):
    return [(rng.normal(size=(3, 5, 11)), rng.permutation(15).reshape(3, 5) % 11)]


@exercise.mistake(
    "There is no shift: the model learns to copy the token it has just read, and the loss goes to 0.",
    "没有移位：模型学会的是抄写刚读到的词元，损失会降到 0。",
)
def not_shifted(logits, ids):
    return logits.reshape(-1, logits.shape[-1]), ids.reshape(-1)


@exercise.mistake(
    "Shifted the wrong way: this asks for the previous token, which the model has seen.",
    "移位方向反了：这样要猜的是前一个词元，而模型已经看到了它。",
)
def shifted_the_wrong_way(logits, ids):
    return logits[:, 1:].reshape(-1, logits.shape[-1]), ids[:, :-1].reshape(-1)


@exercise.mistake(
    "Flattened before it was shifted: the end of one text must guess the beginning of the next.",
    "先展平再移位：一段文本的结尾要去猜下一段的开头。",
)
def across_texts(logits, ids):
    return logits.reshape(-1, logits.shape[-1])[:-1], ids.reshape(-1)[1:]


@exercise.mistake(
    "The ids are rolled around: the last position must guess the first token of its text. Leave it out.",
    "编号是循环移动的：最后一个位置要猜这段文本的第一个词元。应去掉它。",
)
def rolled_around(logits, ids):
    return logits.reshape(-1, logits.shape[-1]), np.roll(ids, -1, axis=1).reshape(-1)


@exercise.mistake(
    "Both are shifted alike: positions and tokens still stand as they did.",
    "两者移动得一样：位置与词元的对应关系没有变。",
)
def both_shifted(logits, ids):
    return logits[:, 1:].reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1)


@exercise.mistake(
    "The shift is of two tokens.",
    "移动了两个词元。",
)
def shifted_by_two(logits, ids):
    return logits[:, :-2].reshape(-1, logits.shape[-1]), ids[:, 2:].reshape(-1)
