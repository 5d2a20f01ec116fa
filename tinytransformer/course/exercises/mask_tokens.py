"""Masked language modelling."""

import numpy as np

from ..exercise import Exercise, Say
from ..sandbox import Seed

exercise = Exercise(
    "mask_tokens",
    lesson=9,
    title=Say("Hiding tokens for BERT", "为 BERT 遮住词元"),
    task=Say(
        """Choose tokens that BERT must guess, and hide them (Devlin et al., 2019, section 3.1).

    ids: token ids, (batch, T)
    special: ids that are never chosen, such as [CLS], [SEP] and [PAD]
    mask_id: the id of [MASK]
    vocab_size: V
    rng: a numpy Generator that draws
    returns: inputs and labels, both (batch, T)

    Each token that is not special is chosen with probability 0.15. Of the chosen, 80 % become [MASK], 10 % a
    random id of the vocabulary (any id, drawn anew for each), 10 % stay as they are. Labels are the original id
    where a token was chosen, and -100 elsewhere.""",
        """选出 BERT 要猜的词元并遮住它们（Devlin 等，2019，第 3.1 节）。

    ids：词元编号，(batch, T)
    special：从不被选中的编号，例如 [CLS]、[SEP] 和 [PAD]
    mask_id：[MASK] 的编号
    vocab_size：V
    rng：用来抽取的 numpy Generator
    返回：inputs 和 labels，都是 (batch, T)

    每个非特殊词元以概率 0.15 被选中。被选中的词元中，80 % 变成 [MASK]，10 % 变成词表中的随机编号（任意编号，每个位置
    各自抽取），10 % 保持原样。被选中处的标签是原来的编号，其余为 -100。""",
    ),
)


@exercise.driver
def drive(answer, ids, special, mask_id, vocab_size, rng):
    first = [np.array(part) for part in answer(ids, special, mask_id, vocab_size, rng)]
    second = np.array(answer(ids, special, mask_id, vocab_size, rng)[1])
    return first[0], first[1], second


@exercise.answer
def mask_tokens(ids, special, mask_id, vocab_size, rng):
    chosen = (rng.random(ids.shape) < 0.15) & ~np.isin(ids, special)
    lot = rng.random(ids.shape)
    inputs = np.where(chosen & (lot < 0.9), rng.integers(vocab_size, size=ids.shape), ids)
    inputs = np.where(chosen & (lot < 0.8), mask_id, inputs)
    return inputs, np.where(chosen, ids, -100)


@exercise.variant
def one_draw_for_all(ids, special, mask_id, vocab_size, rng):
    u = rng.random(ids.shape)
    u[np.isin(ids, special)] = 1
    labels = np.where(u < 0.15, ids, -100)
    inputs = ids.copy()
    inputs[u < 0.12] = mask_id
    swapped = (u >= 0.12) & (u < 0.135)
    inputs[swapped] = rng.integers(0, vocab_size, size=swapped.sum())
    return inputs, labels


@exercise.variant
def token_by_token(ids, special, mask_id, vocab_size, rng):
    forbidden, inputs, labels = {int(s) for s in special}, ids.copy(), np.full(ids.shape, -100)
    for place, token in np.ndenumerate(ids):
        if int(token) in forbidden or rng.random() >= 0.15:
            continue
        labels[place] = token
        lot = rng.random()
        if lot < 0.8:
            inputs[place] = mask_id
        elif lot < 0.9:
            inputs[place] = rng.integers(vocab_size)
    return inputs, labels


@exercise.variant
def by_choice_of_fates(ids, special, mask_id, vocab_size, rng):
    fate = rng.choice(4, size=ids.shape, p=[0.85, 0.12, 0.015, 0.015])
    fate = np.where((ids[..., None] == np.array(special)).any(-1), 0, fate)
    drawn = np.floor(rng.random(ids.shape) * vocab_size).astype(int)
    return np.choose(fate, [ids, mask_id, drawn, ids]), np.where(fate > 0, ids, -100)


def facts(arguments, value):
    """Measure what an answer did, as rates and their spreads."""
    ids, special, mask_id = arguments[:3]
    inputs, labels, second = value
    ordinary = ~np.isin(ids, special)
    chosen = labels != -100
    n, m = ordinary.sum(), max((chosen & ordinary).sum(), 1)
    masked = chosen & (inputs == mask_id)
    swapped = chosen & (inputs != mask_id) & (inputs != ids)
    few = swapped.any() and len(np.unique(inputs[swapped])) <= max(2, swapped.sum() // 40)

    def both(part, of):
        return part, 5.5 * np.sqrt(max(part * (1 - part), 1e-4) / of) * np.sqrt(2)

    return [
        ("ordinary tokens chosen", "普通词元被选中的比例", *both((chosen & ordinary).sum() / n, n)),
        ("special tokens chosen", "特殊词元被选中的比例", *both((chosen & ~ordinary).mean(), ids.size)),
        ("chosen tokens that became [MASK]", "被选中者变成 [MASK] 的比例", *both(masked.sum() / m, m)),
        ("chosen tokens that became another one", "被选中者变成别的词元的比例", *both(swapped.sum() / m, m)),
        (
            "tokens not chosen, yet changed",
            "未被选中却变了的比例",
            *both((~chosen & (inputs != ids)).mean(), ids.size),
        ),
        (
            "labels that are the original",
            "标签等于原词元的比例",
            *both((labels[chosen] == ids[chosen]).sum() / m, m),
        ),
        (
            "calls that chose as the one before",
            "与上一次选择相同的调用",
            float(np.array_equal(labels, second)),
            0.5,
        ),
        ("random ids that are all the same", "随机编号全都相同", float(few), 0.5),
    ]


def honest(arguments, value, right):
    """Compare what two answers did."""
    if value[0].shape != arguments[0].shape or value[1].shape != arguments[0].shape:
        return Say("inputs and labels must have the shape of ids", "inputs 和 labels 的形状必须与 ids 相同")
    for (en, zh, got, spread), (_, _, expected, other) in zip(
        facts(arguments, value), facts(arguments, right), strict=True
    ):
        if abs(got - expected) > max(spread, other):
            return Say(
                f"{en}: {got:.1%}, and about {expected:.1%} were expected",
                f"{zh}：{got:.1%}，应约为 {expected:.1%}",
            )
    return None


def given(rng, size, vocab_size=97, special=(0, 2, 3)):
    ids = rng.integers(5, vocab_size, size=size)
    ids[:, 0], ids[:, -1] = special[1], special[2]
    ids[::2, -7:] = special[0]
    return (ids, list(special), 4, vocab_size, Seed(int(rng.integers(10**6))))


@exercise.shows("hides and labels as BERT does", "按 BERT 的方式遮住并标注", points=3, judge=honest)
def large(rng):
    return [given(rng, (211, 307))]


@exercise.shows("knows special tokens by the argument", "由参数得知特殊词元", points=1, judge=honest)
def other(rng):
    return [given(rng, (307, 149), 211, (6, 1, 9))]


@exercise.mistake(
    "The labels hold every token: the loss then counts tokens the model can see, and it learns to copy.",
    "标签里有所有词元：损失会把模型看得见的词元也算进去，于是它学会抄写。",
)
def labels_everywhere(ids, special, mask_id, vocab_size, rng):
    chosen = (rng.random(ids.shape) < 0.15) & ~np.isin(ids, special)
    lot = rng.random(ids.shape)
    inputs = np.where(chosen & (lot < 0.9), rng.integers(vocab_size, size=ids.shape), ids)
    return np.where(chosen & (lot < 0.8), mask_id, inputs), ids.copy()


@exercise.mistake(
    "Special tokens are chosen too: there is nothing to guess about [CLS] or padding.",
    "特殊词元也会被选中：[CLS] 或填充没有什么可猜的。",
)
def special_tokens_too(ids, special, mask_id, vocab_size, rng):
    chosen = rng.random(ids.shape) < 0.15
    lot = rng.random(ids.shape)
    inputs = np.where(chosen & (lot < 0.9), rng.integers(vocab_size, size=ids.shape), ids)
    return np.where(chosen & (lot < 0.8), mask_id, inputs), np.where(chosen, ids, -100)


@exercise.mistake(
    "All chosen tokens become [MASK]: the model will never meet [MASK] in use. Leave 10 % as they are and exchange 10 %.",
    "被选中的全都变成了 [MASK]：使用时模型不会再遇到 [MASK]。应留 10 % 不变，换掉 10 %。",
)
def always_mask(ids, special, mask_id, vocab_size, rng):
    chosen = (rng.random(ids.shape) < 0.15) & ~np.isin(ids, special)
    return np.where(chosen, mask_id, ids), np.where(chosen, ids, -100)


@exercise.mistake(
    "One random id serves for all places: draw one for each.",
    "所有位置用的是同一个随机编号：应为每个位置各抽一个。",
)
def one_random_id_for_all(ids, special, mask_id, vocab_size, rng):
    chosen = (rng.random(ids.shape) < 0.15) & ~np.isin(ids, special)
    lot = rng.random(ids.shape)
    inputs = np.where(chosen & (lot < 0.9), rng.integers(vocab_size), ids)
    return np.where(chosen & (lot < 0.8), mask_id, inputs), np.where(chosen, ids, -100)


@exercise.mistake(
    "The generator is made anew in each call: the same places are hidden in every epoch. Use rng.",
    "每次调用都重新造了生成器：每一轮遮住的都是同样的位置。请使用 rng。",
)
def same_places_in_each_call(ids, special, mask_id, vocab_size, rng):
    rng = np.random.default_rng(0)
    chosen = (rng.random(ids.shape) < 0.15) & ~np.isin(ids, special)
    lot = rng.random(ids.shape)
    inputs = np.where(chosen & (lot < 0.9), rng.integers(vocab_size, size=ids.shape), ids)
    return np.where(chosen & (lot < 0.8), mask_id, inputs), np.where(chosen, ids, -100)


@exercise.mistake(
    "12 % are chosen: 0.15 · 0.8 is the part that becomes [MASK]; 15 % are to be guessed.",
    "只选中了 12 %：0.15 · 0.8 是变成 [MASK] 的比例；要猜的是 15 %。",
)
def twelve_percent(ids, special, mask_id, vocab_size, rng):
    chosen = (rng.random(ids.shape) < 0.15 * 0.8) & ~np.isin(ids, special)
    lot = rng.random(ids.shape)
    inputs = np.where(chosen & (lot < 0.9), rng.integers(vocab_size, size=ids.shape), ids)
    return np.where(chosen & (lot < 0.8), mask_id, inputs), np.where(chosen, ids, -100)


@exercise.mistake(
    "The labels are what the model reads, [MASK] and random ids among them: they must be what was there before.",
    "标签取成了模型读到的内容，其中有 [MASK] 和随机编号：应是遮住之前的词元。",
)
def labels_after_masking(ids, special, mask_id, vocab_size, rng):
    chosen = (rng.random(ids.shape) < 0.15) & ~np.isin(ids, special)
    lot = rng.random(ids.shape)
    inputs = np.where(chosen & (lot < 0.9), rng.integers(vocab_size, size=ids.shape), ids)
    inputs = np.where(chosen & (lot < 0.8), mask_id, inputs)
    return inputs, np.where(chosen, inputs, -100)


@exercise.mistake(
    "20 % are exchanged and none stay: 10 % of the chosen stay as they are, and must be guessed all the same.",
    "换掉了 20 %，没有一个保持原样：被选中者有 10 % 不变，但同样要猜。",
)
def none_stay(ids, special, mask_id, vocab_size, rng):
    chosen = (rng.random(ids.shape) < 0.15) & ~np.isin(ids, special)
    lot = rng.random(ids.shape)
    inputs = np.where(chosen, rng.integers(vocab_size, size=ids.shape), ids)
    return np.where(chosen & (lot < 0.8), mask_id, inputs), np.where(chosen, ids, -100)
