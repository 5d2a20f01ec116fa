"""Layers against their equations, written here again in NumPy with loops over batch and heads."""

import copy
import pickle
import re

import numpy as np
import pytest
from fake_cupy import count_syncs

import tinytransformer as tt
from tinytransformer import nn
from tinytransformer.backend import move, to_numpy, xp

B, H, T, S, D, F = 2, 3, 5, 7, 6, 11  # batch, heads, positions, memory positions, features, inner features
EPS = 0.2  # so large that a layer norm which forgets it is seen


@pytest.fixture
def rng():
    return np.random.default_rng(20)


def shaken(module, rng):
    """Give every parameter a random value, so that no test rests on zeros and ones of the start."""
    for p in module.parameters():
        p.data[...] = move(rng.normal(size=p.shape).astype(p.dtype), p.backend)
    return module


def born(array):
    """Make a Tensor on the default backend."""
    return tt.Tensor(xp.asarray(array))


def host(tensor):
    return to_numpy(tensor.data)


def close(actual, expected, tolerance=1e-11):
    actual = host(actual)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# --- the equations ---


def o_linear(x, layer):
    y = np.einsum("...i,io->...o", x, host(layer.weight))
    return y if layer.bias is None else y + host(layer.bias)


def o_norm(x, layer):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        mu = sum(row) / len(row)
        variance = sum((row - mu) ** 2) / len(row)
        rows.append(host(layer.weight) * (row - mu) / np.sqrt(variance + EPS) + host(layer.bias))
    return np.stack(rows).reshape(x.shape)


def o_weights(q, k, allowed):
    """Attention weights of one head of one sequence."""
    scores = q @ k.T / np.sqrt(q.shape[1])
    weights = np.zeros_like(scores)
    for i, row in enumerate(scores):
        e = np.where(allowed[i], np.exp(row), 0)
        weights[i] = e / e.sum() if e.any() else 0
    return weights


def o_attention(layer, query, key, value, allowed=None):
    d = D // H
    if allowed is None:
        allowed = np.ones((query.shape[1], key.shape[1]), bool)
    allowed = np.broadcast_to(allowed, (query.shape[0], query.shape[1], key.shape[1]))
    joined = np.zeros((*query.shape[:2], D))
    for b in range(query.shape[0]):
        q, k, v = (o_linear(a[b], m) for a, m in ((query, layer.W_Q), (key, layer.W_K), (value, layer.W_V)))
        for h in range(H):
            part = slice(h * d, (h + 1) * d)
            joined[b, :, part] = o_weights(q[:, part], k[:, part], allowed[b]) @ v[:, part]
    return o_linear(joined, layer.W_O)


def o_feed_forward(x, layer):
    return o_linear(np.maximum(o_linear(x, layer.linear1), 0), layer.linear2)


def o_encoder(layer, x, allowed=None):
    if layer.norm_first:
        n = o_norm(x, layer.norm1)
        x = x + o_attention(layer.self_attention, n, n, n, allowed)
        return x + o_feed_forward(o_norm(x, layer.norm2), layer.feed_forward)
    x = o_norm(x + o_attention(layer.self_attention, x, x, x, allowed), layer.norm1)
    return o_norm(x + o_feed_forward(x, layer.feed_forward), layer.norm2)


def o_decoder(layer, x, memory, allowed=None, memory_allowed=None):
    if layer.norm_first:
        n = o_norm(x, layer.norm1)
        x = x + o_attention(layer.self_attention, n, n, n, allowed)
        x = x + o_attention(layer.cross_attention, o_norm(x, layer.norm2), memory, memory, memory_allowed)
        return x + o_feed_forward(o_norm(x, layer.norm3), layer.feed_forward)
    x = o_norm(x + o_attention(layer.self_attention, x, x, x, allowed), layer.norm1)
    x = o_norm(x + o_attention(layer.cross_attention, x, memory, memory, memory_allowed), layer.norm2)
    return o_norm(x + o_feed_forward(x, layer.feed_forward), layer.norm3)


LOWER = np.tril(np.ones((T, T), bool))
PADDED = np.arange(S) < np.array([S, 4])[:, None, None]  # (B, 1, S)


# --- values ---


@pytest.mark.parametrize("bias", [True, False])
def test_linear(backend, rng, bias):
    layer = shaken(nn.Linear(D, F, bias, dtype="float64"), rng)
    x = rng.normal(size=(B, T, D))
    close(layer(born(x)), o_linear(x, layer))


def test_embedding(backend, rng):
    layer = shaken(nn.Embedding(F, D, dtype="float64"), rng)
    ids = [[1, 10, 1], [0, 7, 3]]
    close(layer(ids), np.stack([host(layer.weight)[row] for row in ids]))


def test_layer_norm(backend, rng):
    layer = shaken(nn.LayerNorm(D, eps=EPS, dtype="float64"), rng)
    x = rng.normal(3, 2, size=(B, T, D))
    close(layer(born(x)), o_norm(x, layer))


def test_feed_forward(backend, rng):
    layer = shaken(nn.FeedForward(D, F, dtype="float64"), rng)
    x = rng.normal(size=(B, T, D))
    close(layer(born(x)), o_feed_forward(x, layer))


def test_feed_forward_uses_its_activation(rng):
    layer = shaken(nn.FeedForward(D, F, activation=tt.tanh, bias=False, dtype="float64"), rng)
    x = rng.normal(size=(B, T, D))
    close(layer(born(x)), o_linear(np.tanh(o_linear(x, layer.linear1)), layer.linear2))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("path", ["formula", "with inactive dropout", "cache"])
def test_self_attention(backend, rng, bias, path):
    layer = shaken(nn.MultiHeadAttention(D, H, bias, dropout=0.5, dtype="float64"), rng)
    x = rng.normal(size=(B, T, D))
    layer.train(path == "formula")
    layer.dropout.p = 0.0 if path == "formula" else 0.5
    with tt.no_grad():
        y = layer(born(x), mask=tt.Mask(LOWER), cache=nn.KeyValueCache() if path == "cache" else None)
    close(y, o_attention(layer, x, x, x, LOWER))


def test_cross_attention(backend, rng):
    layer = shaken(nn.MultiHeadAttention(D, H, dtype="float64"), rng)
    x, key, value = (rng.normal(size=(B, n, D)) for n in (T, S, S))
    close(layer(born(x), born(key)), o_attention(layer, x, key, key))
    close(layer(born(x), born(key), born(value), tt.Mask(PADDED)), o_attention(layer, x, key, value, PADDED))
    close(layer(born(x)), o_attention(layer, x, x, x))


def test_cross_attention_with_a_cache_reads_the_memory_once(backend, rng):
    layer, cache = shaken(nn.MultiHeadAttention(D, H, dtype="float64"), rng), nn.KeyValueCache()
    x, key, value = (rng.normal(size=(B, n, D)) for n in (T, S, S))
    with tt.no_grad():
        first = layer(born(x), born(key), born(value), cache=cache)  # no mask: each query sees all keys
        later = layer(born(x[:, :3]), born(0 * key), cache=cache)
    expected = o_attention(layer, x, key, value)
    close(first, expected)
    close(later, expected[:, :3])
    assert cache.length == S


def test_attention_weights_are_those_the_layer_uses(rng):
    layer = shaken(nn.MultiHeadAttention(D, H, dtype="float64"), rng)
    x, key = rng.normal(size=(B, T, D)), rng.normal(size=(B, S, D))
    weights = layer.attention_weights(born(x), born(key), tt.Mask(PADDED))
    d, q, k = D // H, o_linear(x, layer.W_Q), o_linear(key, layer.W_K)
    allowed = np.broadcast_to(PADDED, (B, T, S))
    expected = np.zeros((B, H, T, S))
    for b in range(B):
        for h in range(H):
            part = slice(h * d, (h + 1) * d)
            expected[b, h] = o_weights(q[b][:, part], k[b][:, part], allowed[b])
    close(weights, expected)
    close(layer.attention_weights(born(x)), host(layer.attention_weights(born(x), born(x))))


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer(backend, rng, norm_first):
    layer = nn.TransformerEncoderLayer(D, H, F, norm_first=norm_first, layer_norm_eps=EPS, dtype="float64")
    shaken(layer, rng).eval()
    x = rng.normal(size=(B, T, D))
    close(layer(born(x)), o_encoder(layer, x))
    close(layer(born(x), tt.Mask.causal(T)), o_encoder(layer, x, LOWER))


@pytest.mark.parametrize("norm_first", [False, True])
def test_decoder_layer(backend, rng, norm_first):
    layer = nn.TransformerDecoderLayer(D, H, F, norm_first=norm_first, layer_norm_eps=EPS, dtype="float64")
    shaken(layer, rng).eval()
    x, memory = rng.normal(size=(B, T, D)), rng.normal(size=(B, S, D))
    close(layer(born(x), born(memory)), o_decoder(layer, x, memory))
    masks = tt.Mask.causal(T), tt.Mask(PADDED)
    close(layer(born(x), born(memory), *masks), o_decoder(layer, x, memory, LOWER, PADDED))


def test_sequential_applies_modules_and_functions_in_order(rng):
    net = shaken(nn.Sequential(nn.Linear(D, F), tt.relu, nn.Linear(F, T)).to(dtype="float64"), rng)
    x = rng.normal(size=(B, D))
    close(net(born(x)), o_linear(np.maximum(o_linear(x, net[0]), 0), net[2]))
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "2.weight", "2.bias"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_layer_keeps_the_dtype(backend, dtype):
    x, memory = tt.ones((B, T, D), dtype), tt.ones((B, S, D), dtype)
    for layer, inputs in (
        (nn.Embedding(F, D, dtype=dtype), (np.ones((B, T), np.int32),)),
        (nn.TransformerEncoderLayer(D, H, F, dropout=0.3, dtype=dtype), (x,)),
        (nn.TransformerDecoderLayer(D, H, F, dropout=0.3, dtype=dtype), (x, memory)),
    ):
        y = layer(*inputs)
        assert y.dtype == dtype
        y.sum().backward()
        assert {p.grad.dtype.name for p in layer.parameters()} == {dtype}


# --- gradients ---


def check_gradients(module, call, *inputs):
    """Check the gradients of ``call(module, *inputs)`` for the inputs and for every parameter."""
    parameters = list(module.parameters())

    def function(*tensors):
        stand_ins = dict(zip(map(id, parameters), tensors[len(inputs) :], strict=True))
        places = [(m, n, v) for m in module.modules() for n, v in vars(m).items() if id(v) in stand_ins]
        assert len({id(v) for _, _, v in places}) == len(parameters)
        for m, name, parameter in places:
            setattr(m, name, stand_ins[id(parameter)])
        try:
            return call(module, *tensors[: len(inputs)])
        finally:
            for m, name, parameter in places:
                setattr(m, name, parameter)

    tt.gradcheck(function, [*inputs, *(p.data for p in parameters)])


def seeded(module):
    """Start all draws of the dropout layers again."""
    for m in module.modules():
        if isinstance(m, nn.Dropout):
            m.rng = np.random.default_rng(3)
    return module


@pytest.mark.parametrize("norm_first", [False, True])
def test_gradients_of_the_encoder_layer_in_training(rng, norm_first):
    layer = nn.TransformerEncoderLayer(D, H, F, 0.4, tt.gelu, norm_first=norm_first, dtype="float64")
    x = rng.normal(size=(B, T, D))
    check_gradients(shaken(layer, rng), lambda m, x: seeded(m)(x, tt.Mask.causal(T)), x)


@pytest.mark.parametrize("norm_first", [False, True])
def test_gradients_of_the_decoder_layer_in_evaluation(rng, norm_first):
    layer = nn.TransformerDecoderLayer(D, H, F, 0.4, tt.gelu, norm_first=norm_first, dtype="float64")
    x, memory, masks = rng.normal(size=(B, T, D)), rng.normal(size=(B, S, D)), (LOWER, PADDED)
    call = shaken(layer, rng).eval()
    check_gradients(call, lambda m, x, memory: m(x, memory, *map(tt.Mask, masks)), x, memory)


def test_gradients_of_the_simple_layers(rng):
    x = rng.normal(size=(B, T, D))
    ids = np.array([[1, 4, 1], [0, 1, 4]])  # repeated: their gradients add up
    check_gradients(shaken(nn.Linear(D, F, dtype="float64"), rng), lambda m, x: m(x), x)
    check_gradients(shaken(nn.LayerNorm(D, dtype="float64"), rng), lambda m, x: m(x), x)
    check_gradients(shaken(nn.FeedForward(D, F, tt.tanh, dtype="float64"), rng), lambda m, x: m(x), x)
    check_gradients(shaken(nn.Embedding(T, D, dtype="float64"), rng), lambda m: m(ids))
    check_gradients(shaken(nn.MultiHeadAttention(D, H, dtype="float64"), rng), lambda m, x: m(x), x)


def test_gradient_of_a_tied_table_has_both_parts(rng):
    class Tied(nn.Module):
        def __init__(self):
            self.tokens = nn.Embedding(F, D, dtype="float64")
            self.head = nn.Linear(F, D, bias=False, dtype="float64")
            self.head.weight = self.tokens.weight

        def forward(self, ids):
            return tt.linear(tt.tanh(self.tokens(ids)), self.head.weight.mT)

    check_gradients(shaken(Tied(), rng), lambda m: m(np.array([[1, 4, 1], [0, 1, 10]])))


# --- dropout ---


@pytest.mark.parametrize("p", [0.1, 0.75])
def test_dropout_keeps_the_expectation(p):
    x = tt.full((401, 503), 3.0)
    y = host(nn.Dropout(p, rng=1)(x))
    assert abs((y == 0).mean() - p) < 5 * np.sqrt(p * (1 - p) / y.size)
    np.testing.assert_allclose(y[y != 0], 3 / (1 - p), rtol=1e-6)


def test_dropout_draws_anew_at_each_call_and_again_the_same_from_its_seed(backend):
    x = tt.ones((31, 37))
    layer = nn.Dropout(0.5, rng=1)
    first, second = host(layer(x)), host(layer(x))
    again = nn.Dropout(0.5, rng=np.random.default_rng(1))
    assert (first != second).any()
    np.testing.assert_array_equal(first, host(again(x)))
    np.testing.assert_array_equal(second, host(again(x)))


def test_dropout_does_nothing_in_evaluation_and_draws_nothing():
    layer = nn.Dropout(0.5, rng=1).eval()
    x = tt.ones((31, 37))
    assert layer(x) is x
    np.testing.assert_array_equal(host(layer.train()(x)), host(nn.Dropout(0.5, rng=1)(x)))


def test_dropout_drops_attention_weights_in_training_only(rng):
    layer = shaken(nn.MultiHeadAttention(D, H, dropout=0.6, rng=4, dtype="float64"), rng)
    x = rng.normal(size=(B, T, D))
    keep = copy.deepcopy(layer.dropout.rng).random((B, H, T, T), dtype=np.float32) >= 0.6
    d, q, k, v = D // H, *(o_linear(x, m) for m in (layer.W_Q, layer.W_K, layer.W_V))
    joined = np.zeros((B, T, D))
    for b in range(B):
        for h in range(H):
            part = slice(h * d, (h + 1) * d)
            weights = o_weights(q[b][:, part], k[b][:, part], LOWER) * keep[b, h] / 0.4
            joined[b, :, part] = weights @ v[b][:, part]
    close(layer(born(x), mask=tt.Mask.causal(T)), o_linear(joined, layer.W_O))
    close(layer.eval()(born(x), mask=tt.Mask.causal(T)), o_attention(layer, x, x, x, LOWER))


def test_without_dropout_and_cache_attention_is_one_call_of_its_formula(monkeypatch):
    layer, x = nn.MultiHeadAttention(D, H, dropout=0.6), tt.ones((B, T, D))
    for name in ("self_attention", "multi_head_attention"):
        monkeypatch.setattr(nn.attention, name, lambda *args, name=name, **kwargs: name)
    assert layer.eval()(x) == "self_attention"
    assert layer.eval()(x, tt.ones((B, S, D))) == "multi_head_attention"
    assert layer.eval()(x, x, tt.ones((B, T, D))) == "multi_head_attention"
    assert layer.train()(x).shape == (B, T, D)


@pytest.mark.parametrize("layer", [nn.TransformerEncoderLayer, nn.TransformerDecoderLayer])
@pytest.mark.parametrize("norm_first", [False, True])
def test_every_sublayer_is_dropped_out(rng, layer, norm_first):
    """With all but a trace dropped only the residual is left, normalised once per sublayer in post-norm."""
    module = shaken(layer(D, H, F, 0.9999, tt.relu, EPS, norm_first, rng=0, dtype="float64"), rng)
    x, memory = rng.normal(size=(B, T, D)), rng.normal(size=(B, S, D))
    y = module(born(x), *([] if layer is nn.TransformerEncoderLayer else [born(memory)]))
    norms = [m for m in module.modules() if isinstance(m, nn.LayerNorm)]
    expected = x
    for norm in [] if norm_first else norms:
        expected = o_norm(expected, norm)
    close(y, expected)


def test_a_layer_draws_initial_values_and_dropout_from_one_generator():
    def run(seed):
        layer = nn.TransformerEncoderLayer(D, H, F, rng=seed)
        return layer.state_dict(), host(layer(tt.ones((B, T, D))))

    (first, y), (same, y_same), (other, y_other) = run(5), run(5), run(6)
    assert all((first[name] == same[name]).all() for name in first)
    assert (y == y_same).all()
    assert (y != y_other).any()
    random = [a for name, a in first.items() if "norm" not in name]
    for i, a in enumerate(random):  # a seed handed to each child would draw the same numbers for each
        assert all(a.shape != b.shape or (a != b).all() for b in random[:i])
    assert (first["feed_forward.linear1.weight"] != other["feed_forward.linear1.weight"]).any()


# --- properties of attention ---


@pytest.mark.parametrize("norm_first", [False, True])
def test_a_later_token_never_moves_an_earlier_output(rng, norm_first):
    layer = nn.TransformerEncoderLayer(D, H, F, norm_first=norm_first, dtype="float64")
    shaken(layer, rng).eval()
    x = rng.normal(size=(B, T, D))
    before = host(layer(born(x), tt.Mask.causal(T)))
    for t in range(T):
        changed = x.copy()
        changed[:, t] += rng.normal(size=(B, D))
        moved = np.abs(host(layer(born(changed), tt.Mask.causal(T))) - before).max(axis=(0, 2)) > 1e-12
        np.testing.assert_array_equal(moved, np.arange(T) >= t)


@pytest.mark.parametrize("norm_first", [False, True])
def test_sequences_of_a_batch_do_not_meet(rng, norm_first):
    layer = nn.TransformerDecoderLayer(D, H, F, norm_first=norm_first, dtype="float64")
    shaken(layer, rng).eval()
    x, memory = rng.normal(size=(B, T, D)), rng.normal(size=(B, S, D))
    together = host(layer(born(x), born(memory)))
    for b in range(B):
        alone = layer(born(x[b : b + 1]), born(memory[b : b + 1]))
        close(alone, together[b : b + 1])


def test_a_padded_batch_equals_each_sequence_alone(rng):
    layer = shaken(nn.TransformerEncoderLayer(D, H, F, dtype="float64"), rng).eval()
    x, lengths = rng.normal(size=(B, T, D)), [T, 3]
    y = host(layer(born(x), tt.Mask.causal(T) & tt.Mask.padding(lengths)))
    for b, n in enumerate(lengths):
        close(layer(born(x[b : b + 1, :n]), tt.Mask.causal(n)), y[b : b + 1, :n])


# --- cache ---

CHUNKS = [[1] * T, [T], [3, 1, 1], [1, 4], [2, 3]]


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_cached_equals_uncached(backend, rng, chunks, norm_first):
    options = {"norm_first": norm_first, "dtype": "float64"}
    encoder = shaken(nn.TransformerEncoderLayer(D, H, F, **options), rng).eval()
    decoder = shaken(nn.TransformerDecoderLayer(D, H, F, **options), rng).eval()
    x, memory = rng.normal(size=(B, T, D)), rng.normal(size=(B, S, D))
    caches = [nn.KeyValueCache() for _ in range(3)]
    encoded, decoded, start = [], [], 0
    with tt.no_grad():
        for n in chunks:
            part = born(x[:, start : start + n])
            encoded.append(host(encoder(part, cache=caches[0])))
            y = decoder(part, born(memory), None, tt.Mask(PADDED), caches[1], caches[2])
            decoded.append(host(y))
            start += n
    assert [cache.length for cache in caches] == [T, T, S]
    close(encoder(born(x), tt.Mask.causal(T)), np.concatenate(encoded, axis=1))
    close(decoder(born(x), born(memory), tt.Mask.causal(T), tt.Mask(PADDED)), np.concatenate(decoded, axis=1))


def test_a_mask_given_with_a_cache_covers_the_cached_keys(rng):
    layer = shaken(nn.MultiHeadAttention(D, H, dtype="float64"), rng)
    x = rng.normal(size=(B, T, D))
    real = tt.Mask(np.array([[True] * T, [False, False, True, True, True]])[:, None, :])  # padded in front
    cache = nn.KeyValueCache()
    with tt.no_grad():
        layer(born(x[:, :3]), mask=tt.Mask(real.array[:, :, :3]) & tt.Mask.causal(3), cache=cache)
        last = layer(born(x[:, 3:]), mask=tt.Mask.causal(2, T) & real, cache=cache)
    close(last, o_attention(layer, x, x, x, LOWER & real.array)[:, 3:])


def test_self_attention_with_a_cache_when_key_and_value_are_named(rng):
    layer = shaken(nn.MultiHeadAttention(D, H, dtype="float64"), rng)
    x, cache = rng.normal(size=(B, T, D)), nn.KeyValueCache()
    with tt.no_grad():
        for n in (3, 2):
            part = born(x[:, cache.length : cache.length + n])
            y = layer(part, part, part, cache=cache)
    close(y, o_attention(layer, x, x, x, LOWER)[:, 3:])


def test_cache_holds_what_was_appended_while_it_grows(backend, rng):
    cache = nn.KeyValueCache()
    k, v = rng.normal(size=(B, H, 13, 2)), rng.normal(size=(B, H, 13, 3))
    with count_syncs() as syncs:
        for start, stop in ((0, 2), (2, 3), (3, 8), (8, 9), (9, 13)):
            keys, values = cache.append(born(k[:, :, start:stop]), born(v[:, :, start:stop]))
            assert cache.length == keys.shape[2] == stop
    assert syncs.count == 0
    close(keys, k)
    close(values, v)


def test_cache_grows_by_doubling():
    cache, rooms = nn.KeyValueCache(), set()
    for _ in range(100):
        keys, _ = cache.append(tt.ones((1, 1, 1, 2)), tt.ones((1, 1, 1, 2)))
        rooms.add(keys.data.base.shape[2])
    assert rooms == {1, 2, 4, 8, 16, 32, 64, 128}


def test_cache_selects_rows(backend, rng):
    cache = nn.KeyValueCache()
    cache.select([0])  # nothing is held yet
    k, v = rng.normal(size=(B, H, T, 2)), rng.normal(size=(B, H, T, 2))
    cache.append(born(k), born(v))
    cache.select([1, 1, 0])
    new = rng.normal(size=(3, H, 1, 2))
    keys, values = cache.append(born(new), born(-new))
    close(keys, np.concatenate([k[[1, 1, 0]], new], axis=2))
    close(values, np.concatenate([v[[1, 1, 0]], -new], axis=2))
    for rows in ([0, 3], [-1]):
        with pytest.raises(IndexError, match="batch of 3"):
            cache.select(rows)


def test_cache_refuses_gradients_and_strangers(rng):
    layer, cache = nn.MultiHeadAttention(D, H), nn.KeyValueCache()
    with pytest.raises(RuntimeError, match="no_grad"):
        layer(tt.ones((B, T, D)), cache=cache)
    assert cache.length == 0
    cache.append(tt.ones((B, H, T, 2)), tt.ones((B, H, T, 2)))
    for k, v in (((B, H, 1, 3), (B, H, 1, 2)), ((B, H, 1, 2), (B, H, 2, 2)), ((1, H, 1, 2), (1, H, 1, 2))):
        with pytest.raises(ValueError, match=r"KeyValueCache.append: (keys|values) of shape"):
            cache.append(tt.ones(k), tt.ones(v))
    assert cache.length == T
    with tt.no_grad(), pytest.raises(ValueError, match="holds 5 keys, not 7"):
        layer(tt.ones((B, 1, D)), tt.ones((B, S, D)), cache=cache)


# --- the tree ---


class Zoo(nn.Module):
    """Parameters in every place where they are found, and one that is tied."""

    def __init__(self):
        self.zeta = nn.Parameter(np.arange(3.0))
        self.alpha = [nn.Linear(2, 3), {"b": nn.Parameter(np.ones(5)), "a": (nn.LayerNorm(7),)}]
        self.act = tt.relu
        self.again = self.zeta
        self.layers = nn.ModuleList([nn.Linear(2, 5, bias=False)])
        self.layers.append(nn.Linear(5, 2, bias=False))
        self.layers[1].weight = self.alpha[0].weight
        self.shared = self.alpha[0]


NAMES = ["zeta", "alpha.0.weight", "alpha.0.bias", "alpha.1.b"]
NAMES += ["alpha.1.a.0.weight", "alpha.1.a.0.bias", "layers.0.weight"]


def test_parameters_are_found_in_definition_order_and_tied_ones_once():
    zoo = Zoo()
    assert [name for name, _ in zoo.named_parameters()] == NAMES == list(zoo.state_dict())
    assert len(list(zoo.parameters())) == len(NAMES)
    assert zoo.num_parameters() == 3 + 6 + 3 + 5 + 7 + 7 + 10
    found = ["", "alpha.0", "alpha.1.a.0", "layers", "layers.0", "layers.1"]
    assert [name for name, _ in zoo.named_modules()] == found
    assert list(zoo.layers) == [zoo.layers[0], zoo.layers[1]]
    assert len(zoo.layers) == 2


def test_a_module_that_knows_its_parent_does_not_send_the_walk_in_circles():
    parent = nn.Sequential(nn.Linear(2, 3))
    parent[0].parent = parent
    assert [name for name, _ in parent.named_parameters()] == ["0.weight", "0.bias"]
    assert "Linear(2, 3)" in repr(parent)


def test_two_parameters_of_one_name_are_refused():
    module = nn.Module()
    module.layers = {"1": nn.Linear(2, 3), 1: nn.Linear(2, 3)}
    with pytest.raises(ValueError, match=re.escape("two parameters have the name 'layers.1.weight'")):
        module.state_dict()


def test_train_and_eval_reach_every_module():
    zoo = Zoo()
    assert zoo.eval() is zoo
    assert not any(m.training for m in zoo.modules())
    assert zoo.train() is zoo
    assert all(m.training for m in zoo.modules())


def test_zero_grad_forgets_every_gradient():
    layer = nn.Linear(2, 3)
    layer(tt.ones((5, 2))).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    layer.zero_grad()
    assert all(p.grad is None for p in layer.parameters())


def test_repr_is_a_tree_with_counts():
    assert repr(Zoo()) == "\n".join(
        [
            "Zoo, 41 parameters",
            "  zeta: Parameter(3,)",
            "  alpha.0: Linear(2, 3), 9 parameters",
            "  alpha.1.b: Parameter(5,)",
            "  alpha.1.a.0: LayerNorm(7, eps=1e-05), 14 parameters",
            "  again: Parameter(3,), tied to zeta",
            "  layers: ModuleList, 16 parameters",
            "    0: Linear(2, 5, bias=False), 10 parameters",
            "    1: Linear(2, 3, bias=False), 6 parameters, weight tied to alpha.0.weight",
            "  shared: Linear(2, 3), 9 parameters, weight tied to alpha.0.weight, bias tied to alpha.0.bias",
        ]
    )


def test_repr_draws_equal_neighbours_once():
    blocks = nn.ModuleList([nn.TransformerEncoderLayer(D, H, F, norm_first=i > 2) for i in range(4)])
    lines = repr(blocks).splitlines()
    assert lines[0] == f"ModuleList, {4 * blocks[0].num_parameters():,} parameters"
    assert (
        lines[1]
        == f"  0 to 2: 3 × TransformerEncoderLayer(post-norm), {blocks[0].num_parameters()} parameters"
    )
    assert sum("TransformerEncoderLayer" in line for line in lines) == 2
    assert "      W_Q to W_O: 4 × Linear(6, 6), 42 parameters" in lines
    assert "    dropout: Dropout(0.1)" in lines


# --- state ---


def test_state_is_a_copy_on_the_host_that_loads_again(backend, rng):
    a, b = shaken(Zoo(), rng), Zoo()
    state = a.state_dict()
    assert all(type(array) is np.ndarray for array in state.values())
    b.load_state_dict(state)
    a.zeta.data *= 0
    assert state["zeta"].all()
    assert all((array == state[name]).all() for name, array in b.state_dict().items())
    assert b.again is b.zeta
    assert b.layers[1].weight is b.alpha[0].weight


def test_load_lists_everything_that_is_wrong_and_changes_nothing(rng):
    zoo = Zoo()
    before = zoo.state_dict()
    state = {name: rng.normal(size=array.shape) for name, array in before.items()}
    del state["zeta"], state["alpha.1.b"]
    state |= {"alpha.0.bias": rng.normal(size=(1, 3)), "layers.0.weight": rng.normal(size=(5, 2))}
    state |= {"alpha.0.weight": np.full((2, 3), "x"), "gain": np.ones(1), "lm_head": np.ones(2)}
    with pytest.raises(ValueError, match="Zoo: missing") as raised:
        zoo.load_state_dict(state)
    assert str(raised.value) == (
        "Zoo: missing zeta, alpha.1.b; unexpected gain, lm_head; "
        "alpha.0.weight holds <U1 instead of numbers; alpha.0.bias has shape (1, 3) instead of (3,); "
        "layers.0.weight has shape (5, 2) instead of (2, 5)"
    )
    with pytest.raises(ValueError, match="instead of"):
        zoo.load_state_dict(state, strict=False)
    assert all((array == before[name]).all() for name, array in zoo.state_dict().items())
    zoo.load_state_dict({"alpha.0.bias": [1, 2, 3], "gain": np.ones(1)}, strict=False)
    assert zoo.alpha[0].bias.tolist() == [1, 2, 3]


def test_load_keeps_dtype_and_array_and_marks_the_change(backend):
    layer = nn.Linear(2, 3)
    array = layer.weight.data
    y = (layer.weight * layer.weight).sum()
    layer.load_state_dict({"weight": np.ones((2, 3)), "bias": tt.ones((3,), "float64")})
    assert layer.weight.data is array
    assert layer.bias.dtype == np.float32
    assert layer.weight.tolist() == [[1] * 3] * 2
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()


def test_to_moves_parameters_and_gradients_and_keeps_ties(rng):
    zoo = shaken(Zoo(), rng)
    before = zoo.state_dict()
    (zoo.zeta * zoo.zeta).sum().backward()
    parameters = list(zoo.parameters())
    assert zoo.to("fake", "float32") is zoo
    assert list(map(id, zoo.parameters())) == list(map(id, parameters))
    assert {(p.backend, p.dtype.name, p.requires_grad) for p in parameters} == {("fake", "float32", True)}
    assert (zoo.zeta.grad.backend, zoo.zeta.grad.dtype) == ("fake", np.float32)
    close(zoo.zeta.grad, (2 * before["zeta"]).astype("float32"), 1e-6)
    zoo.to("numpy")
    assert zoo.again is zoo.zeta
    assert zoo.layers[1].weight is zoo.alpha[0].weight
    for name, array in zoo.state_dict().items():
        np.testing.assert_array_equal(array, before[name].astype("float32"))
    with pytest.raises(TypeError, match="dtype must be floating, not int64"):
        zoo.to(dtype="int64")


def test_copies_are_independent_and_keep_ties(rng):
    zoo = shaken(Zoo(), rng)
    for twin in (copy.deepcopy(zoo), pickle.loads(pickle.dumps(zoo))):
        assert isinstance(twin.zeta, nn.Parameter)
        assert twin.zeta.requires_grad
        assert twin.again is twin.zeta
        assert twin.layers[1].weight is twin.alpha[0].weight
        assert repr(twin) == repr(zoo)
        assert twin.act is tt.relu
        twin.zeta.data += 1
        assert (twin.zeta.data != zoo.zeta.data).all()


def test_arguments_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="7 features do not divide into 3 heads"):
        nn.MultiHeadAttention(7, 3)
    for p in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match=r"p must be in \[0, 1\)"):
            nn.Dropout(p)
    with pytest.raises(TypeError, match="normalized_shape must be the length of the last axis"):
        nn.LayerNorm((2, 3))
    with pytest.raises(TypeError, match="floating"):
        nn.Parameter([1, 2])
