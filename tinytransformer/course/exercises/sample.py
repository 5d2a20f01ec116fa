"""Draw the next token."""

import numpy as np

from ..exercise import Exercise, Say
from ..sandbox import Seed
from .softmax import softmax

exercise = Exercise(
    "sample",
    lesson=8,
    title=Say("Temperature, top-k and the next token", "温度、top-k 与下一个词元"),
    task=Say(
        """Draw the next token of each text.

    logits: (batch, T, V); the last position counts
    temperature: the logits are divided by it; 0 takes the likeliest token
    top_k: None, or k: draw only from the k likeliest tokens
    rng: a numpy Generator that draws
    returns: token ids, integers (batch,)

    You may call softmax.""",
        """为每段文本抽取下一个词元。

    logits：(batch, T, V)；只看最后一个位置
    temperature：logits 除以它；0 表示取可能性最大的词元
    top_k：None，或 k：只从可能性最大的 k 个词元中抽取
    rng：用来抽取的 numpy Generator
    返回：词元编号，整数 (batch,)

    可以调用 softmax。""",
    ),
    uses=("softmax",),
)


@exercise.driver
def drive(answer, logits, temperature, top_k, draws, rng):
    counts = np.zeros((logits.shape[0], logits.shape[-1]))
    for _ in range(draws):
        ids = np.asarray(answer(logits, temperature, top_k, rng))
        if ids.shape != (logits.shape[0],):
            raise ValueError(f"returns shape {ids.shape}, not {(logits.shape[0],)}")
        counts[np.arange(len(ids)), ids.astype(int)] += 1
    return counts / draws


@exercise.answer
def sample(logits, temperature, top_k, rng):
    z = logits[:, -1]
    if temperature == 0:
        return np.argmax(z, axis=-1)
    z = z / temperature
    if top_k is not None:
        kth = np.sort(z, axis=-1)[:, -top_k, None]
        z = np.where(z < kth, -np.inf, z)
    return np.array([rng.choice(len(p), p=p) for p in softmax(z)])


@exercise.variant
def by_gumbel_noise(logits, temperature, top_k, rng):
    z = logits[:, -1, :].copy()
    if temperature == 0:
        return z.argmax(1)
    if top_k is not None:
        lowest = np.argsort(z, axis=1)[:, : z.shape[1] - top_k]
        np.put_along_axis(z, lowest, -np.inf, axis=1)
    return np.argmax(z / temperature + rng.gumbel(size=z.shape), axis=1)


@exercise.variant
def by_cumulative_sum(logits, temperature, top_k, rng):
    last = logits[:, -1]
    if temperature <= 0:
        return np.array([int(row.argmax()) for row in last])
    found = []
    for row in last / temperature:
        order = np.argsort(-row)[: top_k or len(row)]
        e = np.exp(row[order] - row[order[0]])
        found.append(order[min(np.searchsorted(np.cumsum(e / e.sum()), rng.random()), len(order) - 1)])
    return np.array(found)


@exercise.variant
def by_multinomial(logits, temperature, top_k, rng):
    out = np.zeros(len(logits), int)
    for b in range(len(logits)):
        row = logits[b, -1]
        if temperature == 0:
            out[b] = np.flatnonzero(row == row.max())[0]
            continue
        p = np.exp((row - row.max()) / temperature)
        if top_k is not None:
            p[np.argpartition(row, -top_k)[:-top_k]] = 0
        out[b] = rng.multinomial(1, p / p.sum()).argmax()
    return out


def near(arguments, value, right):
    """Compare how often each token was drawn by two answers."""
    _, temperature, _, draws, _ = arguments
    if value.shape != right.shape:
        return Say(f"got ids beyond {right.shape[-1]}", f"得到的编号超出 {right.shape[-1]}")
    spread = 0 if temperature == 0 else 5 * np.sqrt((value * (1 - value) + right * (1 - right)) / draws)
    off = np.abs(value - right) > spread + 1e-9
    if not off.any():
        return None
    b, token = np.argwhere(off)[0]
    return Say(
        f"of {draws} draws {value[b, token]:.0%} were token {token}, and about {right[b, token]:.0%} were expected",
        f"{draws} 次抽取中词元 {token} 占 {value[b, token]:.0%}，应占约 {right[b, token]:.0%}",
    )


def drawn(rng, temperature, top_k, draws=600):
    logits = np.stack([rng.permutation(np.linspace(-2, 2.2, 5)) for _ in range(6)]).reshape(2, 3, 5)
    return (logits, temperature, top_k, draws, Seed(int(rng.integers(10**6))))


@exercise.shows(
    "takes the likeliest token at temperature 0", "温度为 0 时取可能性最大的词元", points=1, judge=near
)
def greedy(rng):
    return [drawn(rng, 0, None, 2), drawn(rng, 0, 3, 2)]


@exercise.shows(
    "draws as softmax says at any temperature", "任意温度下都按 softmax 抽取", points=2, judge=near
)
def warm(rng):
    return [drawn(rng, 0.7, None), drawn(rng, 2.5, None)]


@exercise.shows("draws from the k likeliest alone", "只从最可能的 k 个中抽取", points=2, judge=near)
def top(rng):
    return [drawn(rng, 1.5, 2), drawn(rng, 2.0, 1), drawn(rng, 0.8, 4)]


@exercise.mistake(
    "You read the first position: the next token comes after the last one.",
    "你读的是第一个位置：下一个词元在最后一个位置之后。",
)
def first_position(logits, temperature, top_k, rng):
    z = logits[:, 0]
    if temperature == 0:
        return np.argmax(z, axis=-1)
    if top_k is not None:
        z = np.where(z < np.sort(z, axis=-1)[:, -top_k, None], -np.inf, z)
    return np.array([rng.choice(len(p), p=p) for p in softmax(z / temperature)])


@exercise.mistake(
    "Softmax is applied twice: probabilities lie between 0 and 1, and their softmax is nearly uniform.",
    "softmax 做了两次：概率在 0 与 1 之间，再做 softmax 就接近均匀分布。",
)
def softmax_twice(logits, temperature, top_k, rng):
    z = logits[:, -1]
    if temperature == 0:
        return np.argmax(z, axis=-1)
    if top_k is not None:
        z = np.where(z < np.sort(z, axis=-1)[:, -top_k, None], -np.inf, z)
    return np.array([rng.choice(len(p), p=p) for p in softmax(softmax(z / temperature))])


@exercise.mistake(
    "The k-th token is dropped too: compare with < and not with <=. With k = 1 nothing is left.",
    "第 k 个词元也被丢掉了：应当用 < 而不是 <= 比较。k = 1 时就什么也不剩。",
)
def kth_token_dropped(logits, temperature, top_k, rng):
    z = logits[:, -1]
    if temperature == 0:
        return np.argmax(z, axis=-1)
    if top_k is not None:
        z = np.where(z <= np.sort(z, axis=-1)[:, -top_k, None], -np.inf, z)
    return np.array([rng.choice(len(p), p=p) for p in softmax(z / temperature)])


@exercise.mistake(
    "You multiply by the temperature: a high one then makes the text timid, and a low one wild.",
    "你乘以了温度：这样温度高时文本反而保守，温度低时反而狂放。",
)
def multiplied_by_temperature(logits, temperature, top_k, rng):
    z = logits[:, -1]
    if temperature == 0:
        return np.argmax(z, axis=-1)
    if top_k is not None:
        z = np.where(z < np.sort(z, axis=-1)[:, -top_k, None], -np.inf, z)
    return np.array([rng.choice(len(p), p=p) for p in softmax(z * temperature)])


@exercise.mistake(
    "The likeliest token is always taken: draw from the probabilities.",
    "总是取可能性最大的词元：应当按概率抽取。",
)
def always_greedy(logits, temperature, top_k, rng):
    return np.argmax(logits[:, -1], axis=-1)


@exercise.mistake(
    "Tokens outside the top k get logit 0 and not probability 0: exp(0) is 1. Give them -inf.",
    "前 k 个之外的词元得到的是 logit 0，而不是概率 0：exp(0) = 1。应给它们 -inf。",
)
def logit_0_for_probability_0(logits, temperature, top_k, rng):
    z = logits[:, -1]
    if temperature == 0:
        return np.argmax(z, axis=-1)
    if top_k is not None:
        z = np.where(z < np.sort(z, axis=-1)[:, -top_k, None], 0, z)
    return np.array([rng.choice(len(p), p=p) for p in softmax(z / temperature)])


@exercise.mistake(
    "These are the k least likely tokens: sort ascends.",
    "这是可能性最小的 k 个词元：排序是升序的。",
)
def k_least_likely(logits, temperature, top_k, rng):
    z = logits[:, -1]
    if temperature == 0:
        return np.argmax(z, axis=-1)
    if top_k is not None:
        z = np.where(z > np.sort(z, axis=-1)[:, top_k - 1, None], -np.inf, z)
    return np.array([rng.choice(len(p), p=p) for p in softmax(z / temperature)])


@exercise.mistake(
    "top_k is ignored.",
    "没有使用 top_k。",
)
def top_k_ignored(logits, temperature, top_k, rng):
    z = logits[:, -1]
    if temperature == 0:
        return np.argmax(z, axis=-1)
    return np.array([rng.choice(len(p), p=p) for p in softmax(z / temperature)])
