"""Cases for the formulas of Llama and T5, in the form of ``formula_cases``, which adds them to its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from cases import Case, Pick

import tinytransformer as tt

CASES: list[Case] = []


def case(
    name: str, inputs: Callable, oracle: Callable, about: str = "", function: Any = None, **more: Any
) -> None:
    CASES.append(Case(name, function or getattr(tt, name), inputs, in_double(oracle), about, **more))


def in_double(oracle: Callable) -> Callable:
    """Compute in float64, and return the dtype of the first floating argument."""

    def to_its_dtype(*arguments: Any) -> Any:
        dtype = next(a.dtype for a in arguments if isinstance(a, np.ndarray) and a.dtype.kind == "f")
        doubles = [
            a.astype(float) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in arguments
        ]
        return np.asarray(oracle(*doubles)).astype(dtype)

    return to_its_dtype


# --- normalisation and activations ----------------------------------------------------------------------


def rms_norm(x: np.ndarray, gamma: np.ndarray, eps: float) -> np.ndarray:
    out = np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        squares = sum(v * v for v in x[place])
        out[place] = x[place] / math.sqrt(squares / x.shape[-1] + eps)
    return gamma * out


def rows_and_gain(pick: Pick) -> list[Any]:
    shape = (*pick.of((), (2,), (2, 7), (1,), (0,), (2, 1, 3)), pick.of(5, 3, 1))
    return [pick.numbers(shape) + pick.of(0, 0, 3), pick.numbers(shape[-1:])]


case(
    "rms_norm",
    rows_and_gain,
    lambda x, gamma: rms_norm(x, gamma, 0.01),
    function=lambda x, gamma: tt.rms_norm(x, gamma, 0.01),
)
case(
    "rms_norm",
    lambda pick: [pick.numbers((2, 7, 5)), pick.numbers((5,))],
    lambda x, gamma: rms_norm(x, gamma, 1e-6),
    "with the usual eps",
)
case(
    "rms_norm",
    lambda pick: [pick.numbers((2, 7, 5)), pick.numbers(pick.of((1,), (7, 5), ()))],
    lambda x, gamma: rms_norm(x, gamma, 1e-6),
    "with a gain that is broadcast",
)


def silu(x: np.ndarray) -> np.ndarray:
    return np.array([v / (1 + math.exp(-v)) for v in x.flat]).reshape(x.shape)


case("silu", lambda pick: [pick.numbers(pick.shape()) * pick.of(1, 3)], silu)
case("silu", lambda pick: [np.append(pick.numbers((5,)), [0.0, -200.0, 200.0])], silu, "at 0 and far from it")


# --- gated feed-forward ---------------------------------------------------------------------------------


def gated_feed_forward(activation: Callable) -> Callable:
    def entry_by_entry(x, W, V, W_2, b=0, c=0, b_2=0):
        gate, up = x @ W + b, x @ V + c
        hidden = np.zeros(gate.shape)
        for place in np.ndindex(gate.shape):
            hidden[place] = activation(gate[place]) * up[place]
        return hidden @ W_2 + b_2

    return entry_by_entry


def three_maps(pick: Pick) -> list[Any]:
    x = pick.numbers(pick.of((3,), (7, 3), (2, 7, 3), (0, 3)))
    return [x, pick.numbers((3, 5)), pick.numbers((3, 5)), pick.numbers((5, 2))]


case("gated_feed_forward", three_maps, gated_feed_forward(lambda v: v / (1 + math.exp(-v))))
case(
    "gated_feed_forward",
    lambda pick: [*three_maps(pick), *[pick.numbers((n,)) for n in (5, 5, 2)]],
    gated_feed_forward(lambda v: v / (1 + math.exp(-v))),
    "with biases",
)
case(
    "gated_feed_forward",
    three_maps,
    gated_feed_forward(lambda v: 0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))),
    "with gelu_tanh",
    lambda *arrays: tt.gated_feed_forward(*arrays, activation=tt.gelu_tanh),
)


# --- positions ------------------------------------------------------------------------------------------


def rotated(pick: Pick) -> list[Any]:
    """Queries of two sequences in three heads, and positions: for all, or of each sequence."""
    positions = pick.of(
        np.array([0, 1, 2, 3, 4]), np.array([7, 0, 100003, 5, 5]), pick.rng.integers(0, 99, (2, 5))
    )
    heads = np.ascontiguousarray(pick.numbers((2, 5, 3, pick.of(6, 2)))).swapaxes(1, 2)
    return [pick.of(heads, pick.numbers(heads.shape)), positions]


def rotary_positions(x: np.ndarray, positions: np.ndarray, theta: float) -> np.ndarray:
    """Each pair is a complex number, and a rotation is a product with one of length 1."""
    half = x.shape[-1] // 2
    out = np.zeros(x.shape)
    for *head, t in np.ndindex(x.shape[:-1]):
        p = positions[head[0], t] if positions.ndim == 2 else positions[t]
        for i in range(half):
            phi = p / theta ** (2 * i / x.shape[-1])
            z = complex(x[(*head, t, i)], x[(*head, t, i + half)]) * complex(math.cos(phi), math.sin(phi))
            out[(*head, t, i)], out[(*head, t, i + half)] = z.real, z.imag
    return out


case("rotary_positions", rotated, lambda x, p: rotary_positions(x, p, 10000.0))
case(
    "rotary_positions",
    lambda pick: [pick.numbers((*pick.of((), (3,), (0,)), 5, 2)), np.arange(3, 8)],
    lambda x, p: rotary_positions(x, p, 100.0),
    "with another base",
    lambda x, p: tt.rotary_positions(x, p, theta=100.0),
)


def relative_position_bucket(distance: int, bidirectional: bool, buckets: int, max_distance: int) -> int:
    """Return the bucket of one distance, found by comparing whole numbers: no logarithm is rounded."""
    if bidirectional:
        ahead = relative_position_bucket(-distance, False, buckets // 2, max_distance)
        behind = relative_position_bucket(distance, False, buckets // 2, max_distance)
        return buckets // 2 + ahead if distance > 0 else behind
    n = 0 if distance > 0 else -distance
    exact = buckets // 2
    if n < exact:
        return n
    k = 0  # (n / exact)^(buckets - exact) >= (max_distance / exact)^(k + 1), without fractions
    parts = buckets - exact
    while n**parts * exact ** (k + 1) >= max_distance ** (k + 1) * exact**parts:
        k += 1
    return min(exact + k, buckets - 1)


def table_and_distances(pick: Pick) -> list[Any]:
    """A table with a row for each bucket, and distances on both sides of every border there is."""
    buckets, max_distance = pick.of((32, 128), (8, 20), (12, 97))
    distances = np.concatenate([np.arange(-300, 301, 7), np.arange(-20, 21), [-128, -127, 127, 128, 1000]])
    distances = distances.astype(pick.of(np.int64, np.int32))
    return [pick.numbers((buckets, 2)), distances, str(max_distance), pick.of("both", "behind")]


case(
    "relative_position_bucket",
    table_and_distances,
    lambda W, distances, far, sides: np.array(
        [W[relative_position_bucket(int(r), sides == "both", len(W), int(far))] for r in distances]
    ),
    "of rows of a table",
    lambda W, distances, far, sides: tt.embedding(
        tt.relative_position_bucket(distances, sides == "both", W.shape[0], int(far)), W
    ),
)


# --- attention with a bias, another scale, shared heads -------------------------------------------------


def attention(Q, K, V, B=None, allowed=None, scale=None):
    """Query by query; head h of Q goes with head h // (heads of a group) of K and V."""
    batch, heads, T_q, d_k = Q.shape
    groups, T_k = K.shape[1:3]
    scale = d_k**-0.5 if scale is None else scale
    A = np.zeros((batch, heads, T_q, T_k))
    out = np.zeros((batch, heads, T_q, V.shape[-1]))
    B = np.broadcast_to(0.0 if B is None else B, A.shape)
    may = np.broadcast_to(True if allowed is None else allowed, A.shape)
    for b, h, i in np.ndindex(batch, heads, T_q):
        shared = h // (heads // groups)
        weights = [
            math.exp(scale * sum(Q[b, h, i] * K[b, shared, j]) + B[b, h, i, j]) * may[b, h, i, j]
            for j in range(T_k)
        ]
        A[b, h, i] = np.array(weights) / (sum(weights) or 1.0)
        out[b, h, i] = sum(A[b, h, i, j] * V[b, shared, j] for j in range(T_k))
    return out, A


def in_groups(pick: Pick) -> list[Any]:
    """Six heads of queries, and one, two or three of keys and values: as splitting leaves them, or not."""
    T_q, T_k, d_v = pick.of((5, 7, 2), (5, 5, 3), (1, 7, 3), (3, 5, 3))
    groups = pick.of(3, 2, 1)
    shapes = [(2, T_q, 6, 3), (2, T_k, groups, 3), (2, T_k, groups, d_v)]
    arrays = [np.ascontiguousarray(pick.numbers(s)).swapaxes(1, 2) for s in shapes]
    arrays[0] = arrays[0] * pick.of(1, 1, 6)
    return [*arrays] if pick.integer(0, 1) else [np.ascontiguousarray(a) for a in arrays]


def with_bias(pick: Pick) -> list[Any]:
    """The same with a bias for all sequences, or all heads, or for each."""
    Q, K, V = in_groups(pick)
    T_q, T_k = Q.shape[2], K.shape[2]
    B = pick.numbers(
        pick.of((1, 6, T_q, T_k), (2, 6, T_q, T_k), (2, 1, T_q, T_k), (1, 6, 1, T_k), (1, 1, 1, 1))
    )
    return [Q, K, V, B * pick.of(1, 1, 8)]


def causal(Q: np.ndarray, K: np.ndarray) -> np.ndarray:
    T_q, T_k = Q.shape[2], K.shape[2]
    return np.array([[j <= i + T_k - T_q for j in range(T_k)] for i in range(T_q)])


def lower(Q: Any, K: Any) -> tt.Mask:
    return tt.Mask.causal(Q.shape[2], K.shape[2])


def queries_follow(inputs: Callable) -> Callable:
    """No fewer keys than queries, and a length of each sequence for the padding."""

    def chosen(pick: Pick) -> list[Any]:
        arrays = inputs(pick)
        T_k = arrays[1].shape[2]
        return [*arrays, pick.of((T_k, 2), (1, T_k))]

    return chosen


def padded(K: np.ndarray, lengths: Any) -> np.ndarray:
    return np.arange(K.shape[2]) < np.array(lengths)[:, None, None, None]


case("general_attention", in_groups, lambda Q, K, V: attention(Q, K, V)[0], "in groups")
case(
    "general_attention",
    in_groups,
    lambda Q, K, V: attention(Q, K, V, allowed=causal(Q, K))[0],
    "in groups, with a causal mask",
    lambda Q, K, V: tt.general_attention(Q, K, V, lower(Q, K)),
)
case(
    "general_attention",
    with_bias,
    lambda Q, K, V, B: attention(Q, K, V, B)[0],
    "with a bias",
    lambda Q, K, V, B: tt.general_attention(Q, K, V, bias=B),
)
case(
    "general_attention",
    queries_follow(with_bias),
    lambda Q, K, V, B, n: attention(Q, K, V, B, causal(Q, K) & padded(K, n), 0.7)[0],
    "with a bias, a scale, a causal and a padding mask",
    lambda Q, K, V, B, n: tt.general_attention(Q, K, V, lower(Q, K) & tt.Mask.padding(n, K.shape[2]), B, 0.7),
)
for _scale in (1.0, 2.0):  # by 1 nothing is multiplied
    case(
        "general_attention",
        in_groups,
        lambda Q, K, V, c=_scale: attention(Q, K, V, scale=c)[0],
        f"in groups, scaled by {_scale}",
        lambda Q, K, V, c=_scale: tt.general_attention(Q, K, V, scale=c),
    )
case(
    "general_attention",
    lambda pick: [
        pick.numbers((1, 3, 5, 2)),
        *(pick.numbers((1, 3, 7, 2)) for _ in "KV"),
        pick.numbers((2, 3, 1, 1)),
    ],
    lambda Q, K, V, B: attention(*(np.repeat(x, 2, 0) for x in (Q, K, V)), B)[0],
    "with a bias that has more sequences than the queries",
    lambda Q, K, V, B: tt.general_attention(Q, K, V, bias=B),
)
case(
    "general_attention_weights",
    lambda pick: [(arrays := queries_follow(with_bias)(pick))[0], arrays[1], *arrays[3:]],
    lambda Q, K, B, n: attention(Q, K, K, B, padded(K, n), 0.7)[1],
    "in groups, with a bias, a scale and a mask",
    lambda Q, K, B, n: tt.general_attention_weights(Q, K, tt.Mask.padding(n, K.shape[2]), B, 0.7),
)
