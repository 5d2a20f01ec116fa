"""One table of cases for all formulas: how to call each, with which inputs, and what it says in plain NumPy.

The right values are written from the equations, mostly as loops over single entries, without a look at the
library. They are computed in float64 and rounded to the dtype of the input.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import formula_cases_modern
import numpy as np
from cases import Case, Pick

import tinytransformer as tt

CASES: list[Case] = []


def case(
    name: str, inputs: Callable, oracle: Callable, about: str = "", function: Any = None, **more: Any
) -> None:
    CASES.append(Case(name, function or getattr(tt, name), inputs, oracle, about, **more))


def rounded(oracle: Callable) -> Callable:
    """Compute in float64, and return the dtype of the first floating argument."""

    def to_its_dtype(*arguments: Any) -> Any:
        floating = [isinstance(a, np.ndarray) and a.dtype.kind == "f" for a in arguments]
        dtype = arguments[floating.index(True)].dtype
        doubles = [a.astype(float) if f else a for a, f in zip(arguments, floating, strict=True)]
        return np.asarray(oracle(*doubles)).astype(dtype)

    return to_its_dtype


def rows(function: Callable, x: np.ndarray, *others: Any) -> np.ndarray:
    """Apply a function to every vector along the last axis."""
    out = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        out[place] = function(x[place], *[other[place] for other in others])
    return out


# --- softmax --------------------------------------------------------------------------------------------


def scores(pick: Pick, shape: tuple[int, ...]) -> np.ndarray:
    """Return scores: of everyday size, or such that float64 cannot hold their exponentials."""
    return pick.layout(pick.numbers(shape) + pick.of(0, 0, 800, -800))


def along_an_axis(pick: Pick) -> list[Any]:
    shape = list(pick.shape(special=()))
    axis = pick.integer(-len(shape), len(shape) - 1)
    others = [a for a in range(len(shape)) if a != axis % len(shape)]
    if others and pick.integer(0, 2) == 0:
        shape[pick.of(*others)] = pick.of(0, 1)
    return [scores(pick, tuple(shape)), axis]


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """Return log p_i = -log sum_j e^(x_j - x_i): no score is exponentiated alone."""
    log_p = rows(lambda row: -np.log(np.exp(row - row[:, None]).sum(axis=1)), np.moveaxis(x, axis, -1))
    return np.moveaxis(log_p, -1, axis)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    return np.exp(log_softmax(x, axis))


def partly_hidden(pick: Pick) -> list[Any]:
    """Scores, and where -inf hides them; at least one of each row stays."""
    hidden = pick.rng.random((2, 3, 5)) < 0.5
    hidden[..., 2] = False
    return [scores(pick, (2, 3, 5)), hidden]


def softmax_of_shown(x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    return masked_softmax(x, ~hidden)


case("softmax", along_an_axis, rounded(softmax))
case("softmax", lambda pick: [pick.numbers((2, 3, 5)) * 30, 1], rounded(softmax), "of very different scores")
case(
    "softmax",
    partly_hidden,
    rounded(softmax_of_shown),
    "with -inf",
    lambda x, hidden: tt.softmax(tt.where(hidden, -math.inf, x)),
)
case("log_softmax", along_an_axis, rounded(log_softmax))
case(
    "log_softmax",
    partly_hidden,
    rounded(softmax_of_shown),
    "with -inf",
    lambda x, hidden: tt.exp(tt.log_softmax(tt.where(hidden, -math.inf, x))),
)


def allowed_for(pick: Pick, shape: tuple[int, ...]) -> np.ndarray:
    """Return where attention is allowed, in one of the shapes a mask for (..., T_q, T_k) may have."""
    batch, T_q, T_k = shape[:-2], *shape[-2:]
    leading = [(), batch[:1], (*batch[:1], *batch[1:])][: len(batch) + 1]
    own = (*pick.of(*leading), pick.of(T_q, 1), T_k)
    own = tuple(pick.of(n, n, 1) if a < len(own) - 2 else n for a, n in enumerate(own))
    allowed = pick.rng.random(own) < pick.of(0.3, 0.7)
    if pick.integer(0, 2) == 0:
        allowed[..., 0, :] = False  # nothing to attend to
    return allowed


def axes_of(allowed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Broadcast a mask to scores: (batch, T_q, T_k) has no axis for the heads."""
    if allowed.ndim == 3 and len(shape) == 4:
        allowed = allowed[:, None]
    return np.broadcast_to(allowed, shape)


def masked_scores(pick: Pick) -> list[Any]:
    shape = pick.of((3, 5), (2, 3, 5), (2, 7, 3, 5), (2, 3, 5, 1), (0, 3, 5), (2, 7, 1, 5))
    return [scores(pick, shape), allowed_for(pick, shape)]


def masked_softmax(x: np.ndarray, allowed: np.ndarray) -> np.ndarray:
    def of_row(row: np.ndarray, may: np.ndarray) -> np.ndarray:
        return np.array([1 / np.exp(row[may] - s).sum() if m else 0.0 for s, m in zip(row, may, strict=True)])

    return rows(of_row, x, axes_of(allowed, x.shape))


case(
    "masked_softmax",
    masked_scores,
    rounded(masked_softmax),
    function=lambda x, allowed: tt.masked_softmax(x, tt.Mask(allowed)),
)
case(
    "masked_softmax",
    partly_hidden,
    rounded(lambda x, hidden: masked_softmax(x, ~hidden & np.tri(3, 5, 2, dtype=bool))),
    "with -inf",
    lambda x, hidden: tt.masked_softmax(tt.where(hidden, -math.inf, x), tt.Mask.causal(3, 5)),
)


# --- activations ----------------------------------------------------------------------------------------


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.flat]).reshape(x.shape)


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


for _name, _oracle in (("gelu", gelu), ("gelu_tanh", gelu_tanh)):
    case(_name, lambda pick: [pick.layout(pick.numbers(pick.shape(0)) * pick.of(1, 2))], rounded(_oracle))
    case(_name, lambda pick: [np.append(pick.numbers((5,)), 0.0)], rounded(_oracle), "at 0")


case("silu", lambda pick: [pick.numbers(())], rounded(lambda x: x / (1 + np.exp(-x))), "of a number")


# --- layers ---------------------------------------------------------------------------------------------


def linear(x: np.ndarray, W: np.ndarray, b: Any = None) -> np.ndarray:
    y = np.zeros((*x.shape[:-1], W.shape[1]))
    for place in np.ndindex(y.shape):
        y[place] = sum(x[place[:-1]][k] * W[k, place[-1]] for k in range(W.shape[0]))
    return y if b is None else y + b


def mapped(pick: Pick) -> list[Any]:
    leading = pick.of((), (2,), (2, 7), (1,), (0,), (2, 0), (2, 1, 7))
    n_in, n_out = pick.of((3, 5), (1, 5), (3, 1))
    return [
        pick.numbers((*leading, n_in)),
        pick.numbers((n_in, n_out)),
        pick.of(pick.numbers((n_out,)), None),
    ]


def mapped_in_batches(pick: Pick) -> list[Any]:
    return [pick.numbers((2, 7, 3)), pick.numbers((3, 5))]


case("linear", mapped, rounded(linear))
case("linear", lambda pick: mapped(pick)[:2], rounded(linear), "without a bias")
case(
    "linear",
    lambda pick: [*mapped_in_batches(pick), pick.numbers(pick.of((1,), (7, 5), (2, 1, 1)))],
    rounded(linear),
    "with a bias that is broadcast",
)
case(
    "linear",
    lambda pick: [pick.numbers((2, 7, 3)), pick.numbers((2, 3, 5)), None],
    rounded(lambda x, W, b: np.stack([linear(x[0], W[0]), linear(x[1], W[1])])),
    "with a matrix for each item",
)


def two_maps(pick: Pick) -> list[Any]:
    biases = pick.of((pick.numbers((5,)), pick.numbers((2,))), (None, None), (pick.numbers((5,)), None))
    x = pick.numbers(pick.of((3,), (7, 3), (2, 7, 3), (0, 3)))
    return [x, pick.numbers((3, 5)), biases[0], pick.numbers((5, 2)), biases[1]]


def feed_forward(activation: Callable) -> Callable:
    return lambda x, W_1, b_1, W_2, b_2: linear(activation(linear(x, W_1, b_1)), W_2, b_2)


def away_from_the_kink(pick: Pick) -> list[Any]:
    """Whole numbers, and halves for the bias: nothing that goes into relu is near 0."""
    x, W_1, b_1, W_2, b_2 = (
        pick.rng.integers(-3, 4, s).astype(float) for s in ((7, 3), (3, 5), 5, (5, 2), 2)
    )
    return [x, W_1, b_1 + 0.5, W_2, b_2]


case("feed_forward", away_from_the_kink, rounded(feed_forward(lambda h: np.maximum(h, 0))))
for _name, _activation in (("gelu", gelu), ("gelu_tanh", gelu_tanh), ("tanh", np.tanh)):
    case(
        "feed_forward",
        two_maps,
        rounded(feed_forward(_activation)),
        f"with {_name}",
        partial(tt.feed_forward, activation=getattr(tt, _name)),
    )


def looked_up(pick: Pick) -> list[Any]:
    """Ids that repeat, and a table with a row nobody asks for."""
    ids = pick.rng.integers(0, 4, pick.of((), (11,), (2, 7), (0,), (2, 0)))
    ids = ids.astype(pick.of(np.int64, np.int32, np.uint8))
    return [pick.of(ids, ids.tolist()) if ids.size else ids, pick.numbers((5, pick.of(3, 1)))]


def embedding(ids: Any, W: np.ndarray) -> np.ndarray:
    ids = np.asarray(ids)
    out = np.zeros((*ids.shape, W.shape[1]))
    for place in np.ndindex(ids.shape):
        out[place] = W[ids[place]]
    return out


case("embedding", looked_up, rounded(embedding))
case(
    "embedding",
    lambda pick: [pick.rng.integers(0, 5, 7), pick.numbers(pick.of((5,), (5, 3, 2)))],
    rounded(lambda ids, W: np.array([W[i] for i in ids])),
    "in a table that is no matrix",
)
case(
    "embedding",
    lambda pick: [pick.rng.integers(0, 101, 7).astype(np.uint8), pick.numbers((101, 3))],
    rounded(embedding),
    "by ids of one byte, of which three times the largest is more than one",
)


def dropped(pick: Pick) -> list[Any]:
    x = pick.numbers(pick.shape(0))
    return [x, np.asarray(pick.rng.random(x.shape) < 0.7), pick.of("0", "0.3", "0.5")]


def dropout(x: np.ndarray, keep: np.ndarray, p: float) -> np.ndarray:
    return np.where(keep, x / (1 - p), 0)


# p and the like are given as text: a float would be taken for an input with a gradient
case(
    "dropout",
    dropped,
    rounded(lambda x, keep, p: dropout(x, keep, float(p))),
    function=lambda x, keep, p: tt.dropout(x, keep, float(p)),
)
case(
    "dropout",
    lambda pick: [pick.numbers((2, 3, 5)), pick.rng.random((3, 1)) < 0.5],
    rounded(lambda x, keep: dropout(x, keep, 0.3)),
    "of whole rows",
    lambda x, keep: tt.dropout(x, keep, 0.3),
)


# --- attention ------------------------------------------------------------------------------------------


def attention_weights(Q: np.ndarray, K: np.ndarray, allowed: Any = None) -> np.ndarray:
    batch = np.broadcast_shapes(Q.shape[:-2], K.shape[:-2])
    Q, K = np.broadcast_to(Q, batch + Q.shape[-2:]), np.broadcast_to(K, batch + K.shape[-2:])
    T_q, T_k, d_k = Q.shape[-2], K.shape[-2], Q.shape[-1]
    shape = (*batch, T_q, T_k)
    may = np.ones(shape, bool) if allowed is None else axes_of(allowed, shape)
    A = np.zeros(shape)
    for b in np.ndindex(batch):
        for i in range(T_q):
            fits = [sum(Q[b][i, c] * K[b][j, c] for c in range(d_k)) / math.sqrt(d_k) for j in range(T_k)]
            largest = max((fits[j] for j in range(T_k) if may[b][i, j]), default=0.0)
            total = sum(math.exp(fits[j] - largest) for j in range(T_k) if may[b][i, j])
            for j in range(T_k):
                A[b][i, j] = math.exp(fits[j] - largest) / total if may[b][i, j] else 0.0
    return A


def attention(Q: np.ndarray, K: np.ndarray, V: np.ndarray, allowed: Any = None) -> np.ndarray:
    A = attention_weights(Q, K, allowed)
    out = np.zeros(A.shape[:-1] + V.shape[-1:])
    for place in np.ndindex(A.shape[:-1]):
        for j in range(V.shape[-2]):
            out[place] += A[place][j] * np.broadcast_to(V, A.shape[:-2] + V.shape[-2:])[place[:-1]][j]
    return out


def attended(pick: Pick) -> list[Any]:
    """Queries, keys, values: 2 to 5 axes, other numbers of queries than of keys, other features in V."""
    batch = pick.of((), (2,), (2, 3), (3, 2), (1, 1), (0, 3), (2, 1, 3))
    T_q, T_k, d_k, d_v = pick.of(
        (5, 7, 2, 3), (5, 5, 3, 3), (1, 7, 3, 3), (5, 1, 2, 2), (3, 7, 5, 2), (7, 2, 1, 3)
    )
    return [pick.numbers((*batch, *last)) for last in ((T_q, d_k), (T_k, d_k), (T_k, d_v))]


def attended_by_long_vectors(pick: Pick) -> list[Any]:
    """Some query or key is so long that float64 cannot hold the exponential of its scores."""
    Q, K, V, allowed = attended_with_mask(pick)
    for x in pick.of((Q,), (K,), (Q, K)):
        x[..., pick.integer(0, x.shape[-2] - 1), :] *= pick.of(20, 2000)
    return [Q, K, V, allowed]


def attended_with_mask(pick: Pick) -> list[Any]:
    Q, K, V = attended(pick)
    while Q.ndim > 4:
        Q, K, V = attended(pick)
    return [Q, K, V, allowed_for(pick, (*Q.shape[:-1], K.shape[-2]))]


def attended_with_heads(pick: Pick) -> list[Any]:
    """Queries, keys, values as splitting heads leaves them: (batch, T, heads, d) with two axes swapped."""
    T_q, T_k = pick.of((5, 5), (3, 7), (1, 7))
    lengths = {"Q": T_q, "K": T_k, "V": T_k}
    return [np.ascontiguousarray(pick.numbers((2, T, 3, 2))).swapaxes(1, 2) for T in lengths.values()]


def broadcast_attended(pick: Pick) -> list[Any]:
    both = (2, 3)
    Q, K, V = pick.of((both, (3,), (3,)), ((2, 1), (1, 3), both), (both, both, ()), ((), both, both))
    return [pick.numbers((*Q, 5, 2)), pick.numbers((*K, 7, 2)), pick.numbers((*V, 7, 3))]


def causal(T_q: int, T_k: int) -> np.ndarray:
    """Query i stands at key i + T_k - T_q."""
    return np.array([[j <= i + T_k - T_q for j in range(T_k)] for i in range(T_q)])


def with_mask(function: Callable) -> Callable:
    return lambda *arguments: function(*arguments[:-1], tt.Mask(arguments[-1]))


case("attention_weights", lambda pick: attended(pick)[:2], rounded(attention_weights))
case(
    "attention_weights",
    lambda pick: [(inputs := attended_with_mask(pick))[0], inputs[1], inputs[3]],
    rounded(attention_weights),
    "with a mask",
    with_mask(tt.attention_weights),
)
case("attention", attended, rounded(attention))
case("attention", attended_with_mask, rounded(attention), "with a mask", with_mask(tt.attention))
case(
    "attention",
    attended_by_long_vectors,
    rounded(attention),
    "with long vectors and a mask",
    with_mask(tt.attention),
    order=0,  # too steep to measure
)
case("attention", broadcast_attended, rounded(attention), "with broadcasting")
case(
    "attention",
    attended_with_heads,
    rounded(lambda Q, K, V: attention(Q, K, V, causal(Q.shape[-2], K.shape[-2]))),
    "with a causal mask",
    lambda Q, K, V: tt.attention(Q, K, V, tt.Mask.causal(Q.shape[-2], K.shape[-2])),
)
case(
    "attention",
    lambda pick: [pick.numbers((2, 5, 3)), pick.numbers((2, 7, 3)), pick.numbers((2, 7, 2))],
    rounded(attention),
    "with the causal mask of one query for several",
    lambda Q, K, V: tt.attention(Q, K, V, tt.Mask.causal(1, 7)),
)
case(
    "attention",
    lambda pick: [*attended_with_heads(pick), pick.of((3, 1), (2, 7))],
    rounded(
        lambda Q, K, V, lengths: attention(
            Q,
            K,
            V,
            causal(Q.shape[-2], K.shape[-2])[None, None]
            & (np.arange(K.shape[-2]) < np.array(lengths)[:, None, None, None]),
        )
    ),
    "with a causal and a padding mask",
    lambda Q, K, V, lengths: tt.attention(
        Q, K, V, tt.Mask.causal(Q.shape[-2], K.shape[-2]) & tt.Mask.padding(lengths, K.shape[-2])
    ),
)
case(
    "attention",
    lambda pick: [pick.numbers((2, 3, 5, 2))],
    rounded(lambda x: attention(x, x, x)),
    "of a tensor to itself",
    lambda x: tt.attention(x, x, x),
)
case(
    "masked_attention",
    attended_with_heads,
    rounded(lambda Q, K, V: attention(Q, K, V, causal(Q.shape[-2], K.shape[-2]))),
)


def several_heads(pick: Pick) -> list[Any]:
    """Two sequences with 6 features, 3 heads; values have other features than keys."""
    T_q, T_k = pick.of((5, 5), (5, 7), (1, 7))
    x = [pick.numbers((2, T_q, 6)), pick.numbers((2, T_k, 6)), pick.numbers((2, T_k, 6))]
    W = [pick.numbers(shape) for shape in ((6, 6), (6, 6), (6, 3), (3, 6))]
    return [*x, *W]


def multi_head_attention(
    Q: np.ndarray, K: np.ndarray, V: np.ndarray, *parameters: Any, allowed: Any = None
) -> np.ndarray:
    """Head by head, each with its own columns of the matrices."""
    W_Q, W_K, W_V, W_O, *biases = parameters
    b_Q, b_K, b_V, b_O = biases or [np.zeros(W.shape[1]) for W in (W_Q, W_K, W_V, W_O)]
    h = 3
    outputs = []
    for head in range(h):

        def own(W: np.ndarray, head: int = head) -> Any:
            n = W.shape[-1] // h
            return W[..., head * n : (head + 1) * n]

        q, k, v = Q @ own(W_Q) + own(b_Q), K @ own(W_K) + own(b_K), V @ own(W_V) + own(b_V)
        outputs.append(attention(q, k, v, allowed))
    return np.concatenate(outputs, axis=-1) @ W_O + b_O


case(
    "multi_head_attention",
    several_heads,
    rounded(multi_head_attention),
    function=lambda *arrays: tt.multi_head_attention(*arrays, heads=3),
)
case(
    "multi_head_attention",
    lambda pick: [*several_heads(pick), *[pick.numbers((n,)) for n in (6, 6, 3, 6)]],
    rounded(multi_head_attention),
    "with biases",
    lambda *arrays: tt.multi_head_attention(*arrays, heads=3),
)
case(
    "multi_head_attention",
    lambda pick: [pick.numbers((2, 5, 6)), *several_heads(pick)[3:], pick.of((4, 1), (5, 2))],
    rounded(
        lambda x, W_Q, W_K, W_V, W_O, lengths: multi_head_attention(
            x, x, x, W_Q, W_K, W_V, W_O, allowed=np.arange(5) < np.array(lengths)[:, None, None]
        )
    ),
    "of a sequence to itself, with a mask",
    lambda x, *rest: tt.multi_head_attention(x, x, x, *rest[:4], heads=3, mask=tt.Mask.padding(rest[4], 5)),
)


def to_itself(pick: Pick) -> list[Any]:
    """A sequence with 6 features for 3 heads, matrices square or not, and all biases, none, or one."""
    x = pick.numbers(pick.of((2, 5, 6), (2, 5, 6), (1, 7, 6), (2, 1, 6)))
    n = pick.of(6, 6, 6, 3)
    W = [0.5 * pick.numbers(shape) for shape in ((6, 6), (6, 6), (6, n), (n, 6))]
    b_Q, b_K, b_V, b_O = (pick.numbers((m,)) for m in (6, 6, n, 6))
    return [x, *W, *pick.of((b_Q, b_K, b_V, b_O), (b_Q, b_K, b_V, b_O), (), (None, None, b_V, None))]


def self_attention(x: np.ndarray, *parameters: Any, allowed: Any = None) -> np.ndarray:
    zeros = [np.zeros(W.shape[1]) for W in parameters[:4]]
    given = [z if b is None else b for z, b in zip(zeros, parameters[4:] or zeros, strict=True)]
    return multi_head_attention(x, x, x, *parameters[:4], *given, allowed=allowed)


case(
    "self_attention",
    to_itself,
    rounded(self_attention),
    function=lambda *arrays: tt.self_attention(*arrays, heads=3),
)
case(
    "self_attention",
    to_itself,
    rounded(lambda x, *rest: self_attention(x, *rest, allowed=causal(x.shape[1], x.shape[1]))),
    "with a causal mask",
    lambda x, *rest: tt.self_attention(x, *rest, heads=3, mask=tt.Mask.causal(x.shape[1])),
)


# --- normalisation --------------------------------------------------------------------------------------


def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> np.ndarray:
    def of_row(row: np.ndarray) -> np.ndarray:
        mu = sum(row) / len(row)
        sigma2 = sum((v - mu) ** 2 for v in row) / len(row)
        return (row - mu) / math.sqrt(sigma2 + eps)

    return gamma * rows(of_row, x) + beta


def normalised(pick: Pick) -> list[Any]:
    shape = (*pick.of((), (2,), (2, 7), (1,), (0,), (2, 1, 3)), pick.of(5, 3, 1))
    return [pick.numbers(shape) + pick.of(0, 0, 20), pick.numbers(shape[-1:]), pick.numbers(shape[-1:])]


case(
    "layer_norm",
    normalised,
    rounded(lambda x, gamma, beta: layer_norm(x, gamma, beta, 0.01)),
    function=lambda x, gamma, beta: tt.layer_norm(x, gamma, beta, 0.01),
)
case(
    "layer_norm",
    lambda pick: [pick.numbers((2, 7, 5)), pick.numbers((5,)), pick.numbers((5,))],
    rounded(lambda x, gamma, beta: layer_norm(x, gamma, beta, 1e-5)),
    "with the usual eps",
)
case(
    "layer_norm",
    lambda pick: [pick.numbers((2, 7, 5)), pick.numbers(pick.of((1,), (7, 5), ())), pick.numbers((5,))],
    rounded(lambda x, gamma, beta: layer_norm(x, gamma, beta, 1e-5)),
    "with a gain that is broadcast",
)


# --- losses ---------------------------------------------------------------------------------------------


def labelled(pick: Pick) -> list[Any]:
    """Logits of 5 classes, targets some of which are to be ignored, and the options as text."""
    shape = pick.of((), (7,), (2, 3), (2, 7, 3), (1,), (0,))
    ignored = pick.of(-100, 0, 4, 255)
    targets = np.asarray(pick.rng.integers(0, 5, shape))
    if ignored in (-100, 255) and pick.integer(0, 2):
        targets = np.where(pick.rng.random(shape) < pick.of(0.3, 1.0), ignored, targets)
    targets = targets.astype(pick.of(np.int64, np.int16))
    if targets.size:
        targets = pick.of(targets, targets.tolist())
    return [scores(pick, (*shape, 5)), targets, ignored, pick.of("0", "0.1"), pick.of("mean", "sum", "none")]


def cross_entropy(z: np.ndarray, y: Any, ignored: int, smoothing: str, reduction: str) -> np.ndarray:
    y, eps, V = np.asarray(y), float(smoothing), z.shape[-1]
    losses = np.zeros(y.shape)
    for n in np.ndindex(y.shape):
        log_p = [-math.log(sum(math.exp(z[n][u] - z[n][v]) for u in range(V))) for v in range(V)]
        if y[n] != ignored:
            losses[n] = -(1 - eps) * log_p[int(y[n])] - eps / V * sum(log_p)
    if reduction == "none":
        return losses
    return losses.sum() / (max(1, (y != ignored).sum()) if reduction == "mean" else 1)


case(
    "cross_entropy",
    labelled,
    rounded(cross_entropy),
    function=lambda z, y, ignored, eps, reduction: tt.cross_entropy(z, y, ignored, float(eps), reduction),
)


# --- positions ------------------------------------------------------------------------------------------


def positions_added(pick: Pick) -> list[Any]:
    positions = pick.of(5, np.array([3, 0, 1000]), np.arange(6).reshape(2, 3), np.array(7))
    leading = (positions,) if isinstance(positions, int) else positions.shape
    return [pick.numbers((*leading, pick.of(2, 6))), positions]


def sinusoidal_positions(positions: Any, d: int) -> np.ndarray:
    p = np.arange(positions) if isinstance(positions, int) else positions
    out = np.zeros((*p.shape, d))
    for place in np.ndindex(p.shape):
        for i in range(d // 2):
            angle = p[place] / 10000 ** (2 * i / d)
            out[place][2 * i], out[place][2 * i + 1] = math.sin(angle), math.cos(angle)
    return out


case(
    "sinusoidal_positions",
    positions_added,
    rounded(lambda x, positions: x + sinusoidal_positions(positions, x.shape[-1])),
    "added to features",
    lambda x, positions: x + tt.sinusoidal_positions(positions, x.shape[-1], x.dtype),
)


# --- Llama and T5 ---------------------------------------------------------------------------------------

CASES += formula_cases_modern.CASES
