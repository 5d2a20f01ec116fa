"""What the decoder of an encoder-decoder reads."""

import numpy as np

from ..exercise import Exercise, Say

exercise = Exercise(
    "shift_right",
    lesson=10,
    title=Say("What the decoder reads", "解码器读什么"),
    task=Say(
        """Make the inputs of a decoder from the labels it must guess: each position reads the label before it.

    labels: token ids, (batch, T); -100 where a position does not count
    start_id: what the first position reads
    pad_id: what is read in the place of -100
    returns: token ids, (batch, T)""",
        """由解码器要猜的标签得到它的输入：每个位置读它前面的那个标签。

    labels：词元编号，(batch, T)；不计入的位置为 -100
    start_id：第一个位置读到的编号
    pad_id：代替 -100 被读到的编号
    返回：词元编号，(batch, T)""",
    ),
)


@exercise.answer
def shift_right(labels, start_id, pad_id):
    inputs = np.full(labels.shape, start_id)
    inputs[:, 1:] = labels[:, :-1]
    return np.where(inputs == -100, pad_id, inputs)


@exercise.variant
def by_concatenation(labels, start_id, pad_id):
    first = np.full((len(labels), 1), start_id)
    return np.concatenate([first, np.where(labels < 0, pad_id, labels)[:, :-1]], axis=1)


@exercise.variant
def by_rolling(labels, start_id, pad_id):
    moved = np.roll(labels, 1, axis=-1)
    moved[:, 0] = start_id
    moved[moved == -100] = pad_id
    return moved


@exercise.variant
def text_by_text(labels, start_id, pad_id):
    return [[start_id, *(pad_id if t == -100 else int(t) for t in row[:-1])] for row in labels]


@exercise.shows("shifts by one", "移动一格", points=2)
def plain(rng):
    return [(rng.permutation(np.arange(3, 18)).reshape(3, 5), 1, 0), (rng.integers(3, 9, size=(2, 7)), 2, 0)]


@exercise.shows("reads padding where labels do not count", "标签不计入处读填充", points=2)
def padded(rng):
    labels = rng.integers(3, 50, size=(3, 7))
    labels[0, 4:], labels[2, 1:] = -100, -100
    return [(labels, 1, 2), (labels, 0, 0), (labels + 3 * (labels == 5), 49, 51)]


@exercise.mistake(
    "Not shifted: each position reads the very token it must guess, and the loss goes to 0.",
    "没有移位：每个位置读到的正是它要猜的词元，损失会降到 0。",
)
def not_shifted(labels, start_id, pad_id):
    return np.where(labels == -100, pad_id, labels)


@exercise.mistake(
    "Shifted the wrong way: a position reads the label after the one it must guess.",
    "移位方向反了：位置读到了它要猜的标签之后的那个。",
)
def shifted_left(labels, start_id, pad_id):
    inputs = np.full(labels.shape, start_id)
    inputs[:, :-1] = labels[:, 1:]
    return np.where(inputs == -100, pad_id, inputs)


@exercise.mistake(
    "-100 is left in: no table has such a row, and where indices wrap around it is a wrong one.",
    "-100 还在里面：表里没有这一行，若下标会回绕，就取到了错误的行。",
)
def minus_100_left_in(labels, start_id, pad_id):
    inputs = np.full(labels.shape, start_id)
    inputs[:, 1:] = labels[:, :-1]
    return inputs


@exercise.mistake(
    "Rolled around: the first position reads the last label.",
    "循环移动了：第一个位置读到了最后一个标签。",
)
def rolled_around(labels, start_id, pad_id):
    moved = np.roll(labels, 1, axis=1)
    return np.where(moved == -100, pad_id, moved)


@exercise.mistake(
    "Flattened before it was shifted: a text begins with the end of the one before.",
    "先展平再移位：一段文本以上一段的结尾开头。",
)
def across_texts(labels, start_id, pad_id):
    flat = np.concatenate([[start_id], labels.reshape(-1)[:-1]]).reshape(labels.shape)
    return np.where(flat == -100, pad_id, flat)


@exercise.mistake(
    "The start is put in front and nothing is taken off the end: inputs are longer than labels.",
    "前面加了起始词元，末尾却没有去掉一个：输入比标签长。",
)
def one_too_long(labels, start_id, pad_id):
    first = np.full((len(labels), 1), start_id)
    return np.concatenate([first, np.where(labels == -100, pad_id, labels)], axis=1)


@exercise.mistake(
    "The first position reads padding: it reads start_id.",
    "第一个位置读了填充：应读 start_id。",
)
def starts_with_padding(labels, start_id, pad_id):
    inputs = np.full(labels.shape, pad_id)
    inputs[:, 1:] = labels[:, :-1]
    return np.where(inputs == -100, pad_id, inputs)
