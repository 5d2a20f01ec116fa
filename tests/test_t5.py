"""T5 against its equations, written again in NumPy with loops over heads, and against wrong ones."""

import math

import numpy as np
import pytest
from formula_cases_modern import relative_position_bucket as bucket_by_whole_numbers
from test_generation import rejected

import tinytransformer as tt
from tinytransformer.backend import move, to_numpy
from tinytransformer.generation import beam_search, generate
from tinytransformer.models import T5, T5Config

V, HEADS, D_KV = 13, 3, 5
VERSIONS = {"1.0": {}, "1.1": {"feed_forward": "gated-gelu", "tied_head": False}}


def t5(seed=2, dtype="float64", **options):
    """Return a model far from its initial values, with few buckets, so that distances of 5 share one."""
    sizes = {
        "d_model": 11,
        "d_kv": D_KV,
        "d_ff": 17,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": HEADS,
    }
    buckets = {"relative_buckets": 8, "relative_max_distance": 9}
    model = T5(T5Config(V, **{**sizes, **buckets, **options}), np.random.default_rng(0), dtype)
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        drawn = rng.normal(1 if p.ndim == 1 else 0, 0.4, p.shape)
        p.data[...] = move(drawn.astype(dtype), p.backend)
    return model.eval()


@pytest.fixture(params=VERSIONS)
def version(request):
    return VERSIONS[request.param]


def tokens(*shape, seed=1):
    return np.random.default_rng(seed).integers(2, V, size=shape)


def scores(model, *args, **kwargs):
    with tt.no_grad():
        return to_numpy(model(*args, **kwargs).data)


def test_the_first_values_are_those_that_the_class_describes(version):
    d, d_kv, d_ff, heads = 67, 13, 131, 7
    config = T5Config(211, d, d_kv, d_ff, num_layers=1, num_heads=heads, relative_buckets=96, **version)
    inputs = {"W_Q": d * d_kv, "W_O": heads * d_kv, "linear2": d_ff, "down": d_ff, "embedding": 1}
    for name, p in T5(config, np.random.default_rng(3)).named_parameters():
        if p.ndim == 1:
            assert (p.numpy() == 1).all(), name
        else:
            expected = inputs.get(name.split(".")[-2], d) ** -0.5
            assert p.numpy().std() == pytest.approx(expected, rel=0.1), name


# --- buckets ----------------------------------------------------------------------------------------------


def as_published(distance, bidirectional, buckets, max_distance):
    """The steps of the published code, one after the other, with a logarithm."""
    bucket, n = 0, -distance
    if bidirectional:
        buckets //= 2
        bucket += buckets * (n < 0)
        n = abs(n)
    else:
        n = max(n, 0)
    exact = buckets // 2
    if n < exact:
        return bucket + n
    far = exact + int(math.log(n / exact) / math.log(max_distance / exact) * (buckets - exact))
    return bucket + min(far, buckets - 1)


def each(scalar):
    return lambda distance, *rest: np.array([scalar(int(r), *rest) for r in distance])


def by_borders(distance, bidirectional, buckets, max_distance):
    """How many borders a distance has passed."""
    n = np.maximum(-distance, 0) if not bidirectional else abs(distance)
    buckets = buckets // 2 if bidirectional else buckets
    exact = buckets // 2
    ratio = (max_distance / exact) ** (np.arange(1, buckets - exact) / (buckets - exact))
    borders = [*range(1, exact + 1), *(exact * ratio - 1e-9)]
    return (n[:, None] >= np.array(borders)).sum(axis=1) + (buckets * (distance > 0) if bidirectional else 0)


RIGHT = {"library": tt.relative_position_bucket, "published": each(as_published), "borders": by_borders}


def sign_flipped(distance, *rest):
    return tt.relative_position_bucket(-np.asarray(distance), *rest)


def not_halved(distance, bidirectional, buckets, max_distance):
    bucket = tt.relative_position_bucket(-abs(distance), False, buckets, max_distance)
    return bucket + (buckets // 2 * (distance > 0) if bidirectional else 0)


def range_of_the_logarithm_forgotten(distance, bidirectional, buckets, max_distance):
    right = tt.relative_position_bucket(distance, bidirectional, buckets, max_distance)
    half = buckets // 2 if bidirectional else buckets
    exact, n = half // 2, np.maximum(abs(distance), 1)
    far = exact + (np.log(n / exact) / np.log(max_distance) * (half - exact)).astype(int)
    first = half * (distance > 0) if bidirectional else 0
    return np.where(right - first < exact, right, first + np.minimum(far, half - 1))


def last_bucket_not_kept(distance, bidirectional, buckets, max_distance):
    return tt.relative_position_bucket(distance, bidirectional, buckets, 4 * max_distance)


def here_and_ahead_exchanged(distance, bidirectional, buckets, max_distance):
    bucket = tt.relative_position_bucket(distance, bidirectional, buckets, max_distance)
    return bucket + (buckets // 2 * (distance == 0) if bidirectional else 0)


WRONG = [
    sign_flipped,
    not_halved,
    range_of_the_logarithm_forgotten,
    last_bucket_not_kept,
    here_and_ahead_exchanged,
]


def check_buckets(function):
    distance = np.concatenate([np.arange(-200, 201), [-5000, 5000]])
    for bidirectional in (True, False):
        for buckets, max_distance in ((32, 128), (8, 9), (12, 97)):
            expected = [
                bucket_by_whole_numbers(int(r), bidirectional, buckets, max_distance) for r in distance
            ]
            np.testing.assert_array_equal(function(distance, bidirectional, buckets, max_distance), expected)


@pytest.mark.parametrize("right", RIGHT)
def test_buckets(right):
    check_buckets(RIGHT[right])


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_buckets_are_rejected(wrong):
    assert rejected(check_buckets, wrong)


@pytest.mark.parametrize(("buckets", "max_distance"), [(2, 128), (32, 8), (32, 5)])
def test_buckets_that_cannot_be_are_refused(buckets, max_distance):
    with pytest.raises(ValueError, match=f"{buckets} buckets do not cover distances up to {max_distance}"):
        tt.relative_position_bucket(3, True, buckets, max_distance)


def test_a_decoder_sees_all_that_is_ahead_as_here():
    assert not tt.relative_position_bucket(np.arange(9), bidirectional=False).any()


# --- the equations ----------------------------------------------------------------------------------------


def o_norm(x, layer, eps):
    return layer.weight.numpy() * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def o_attention(layer, x, memory, bias, allowed):
    """Head by head, with the features of each; scores are not scaled."""
    W_Q, W_K, W_V, W_O = (m.weight.numpy() for m in (layer.W_Q, layer.W_K, layer.W_V, layer.W_O))
    heads = []
    for h in range(HEADS):
        own = slice(h * D_KV, (h + 1) * D_KV)
        e = np.exp(x @ W_Q[:, own] @ (memory @ W_K[:, own]).T + bias[h]) * allowed
        heads.append(e / e.sum(-1, keepdims=True) @ memory @ W_V[:, own])
    return np.concatenate(heads, axis=-1) @ W_O


def o_feed_forward(x, layer):
    if hasattr(layer, "gate"):
        gate, up, down = (m.weight.numpy() for m in (layer.gate, layer.up, layer.down))
        z = x @ gate
        return (0.5 * z * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))) * (x @ up)) @ down
    return np.maximum(x @ layer.linear1.weight.numpy(), 0) @ layer.linear2.weight.numpy()


def o_stack(stack, x, allowed, memory=None, real=None):
    config, T = stack.config, len(x)
    distance = np.arange(T) - np.arange(T)[:, None]
    table = stack.relative_bias.weight.numpy()
    bucket = [
        [as_published(r, memory is None, config.relative_buckets, config.relative_max_distance) for r in row]
        for row in distance.tolist()
    ]
    bias, eps = table[np.array(bucket)].transpose(2, 0, 1), config.layer_norm_eps
    for layer in stack.layers:
        n = o_norm(x, layer.self_norm, eps)
        x = x + o_attention(layer.self_attention, n, n, bias, allowed)
        if memory is not None:
            n = o_norm(x, layer.cross_norm, eps)
            x = x + o_attention(layer.cross_attention, n, memory, np.zeros(HEADS), real)
        x = x + o_feed_forward(o_norm(x, layer.feed_forward_norm, eps), layer.feed_forward)
    return o_norm(x, stack.norm, eps)


def o_t5(model, source, target, real):
    """Logits of one target (T,), given one source (S,) of which some tokens are real."""
    E = model.embedding.weight.numpy()
    memory = o_stack(model.encoder, E[source], np.tile(real, (len(source), 1)))
    x = o_stack(model.decoder, E[target], np.tri(len(target)), memory, real)
    return x @ E.T / math.sqrt(E.shape[1]) if model.head is None else x @ model.head.weight.numpy()


def check_equations(model):
    source, target = tokens(2, 17), tokens(2, 19, seed=3)
    real = np.arange(17) < np.array([[17], [12]])
    found = scores(model, source, real, target)
    for b in range(2):
        expected = o_t5(model, source[b], target[b], real[b])
        np.testing.assert_allclose(found[b], expected, rtol=1e-9, atol=1e-9)


def test_the_model_is_its_equations(version):
    check_equations(t5(**version, layer_norm_eps=0.1))
    with tt.formulas():
        check_equations(t5(**version, layer_norm_eps=0.1))


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_buckets_are_rejected_in_the_model(wrong, monkeypatch):
    monkeypatch.setattr("tinytransformer.models.t5.relative_position_bucket", wrong)
    assert rejected(check_equations, t5())


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("self_attention", {"scale": None}),  # divided by sqrt(d_kv)
        ("cross_attention", {"scale": None}),
        ("self_norm", {"eps": 1e-6}),
    ],
)
def test_wrong_layers_are_rejected(part, change):
    model = t5(layer_norm_eps=0.1)
    for name, value in change.items():
        setattr(getattr(model.decoder.layers[1], part), name, value)
    assert rejected(check_equations, model)


def test_only_a_tied_output_is_scaled():
    model, untied = t5(), t5(tied_head=False)
    for p, q in zip(untied.parameters(), model.parameters(), strict=False):
        p.data[...] = q.data
    untied.head.weight.data[...] = model.embedding.weight.data.T
    z = scores(model, tokens(2, 5), None, tokens(2, 7))
    np.testing.assert_allclose(
        scores(untied, tokens(2, 5), None, tokens(2, 7)), z * math.sqrt(11), rtol=1e-10
    )


# --- what sees what ---------------------------------------------------------------------------------------


def moved(after, before):
    return abs(after - before).max(axis=(0, 2)) > 1e-9


def test_a_later_target_never_moves_an_earlier_score(version):
    model, source, target = t5(**version), tokens(2, 7), tokens(2, 11)
    before = scores(model, source, None, target)
    for t in (10, 4, 1):
        changed = target.copy()
        changed[:, t:] = (changed[:, t:] + 1) % V
        np.testing.assert_array_equal(moved(scores(model, source, None, changed), before), np.arange(11) >= t)


def test_the_encoder_sees_both_ways_and_the_target_all_of_it():
    model, source, target = t5(), tokens(2, 7), tokens(2, 5)
    before = scores(model, source, None, target)
    memory = model.encoder(model.embedding(source), None, None, None, None).numpy()
    for t in (0, 6):
        changed = source.copy()
        changed[:, t] = (changed[:, t] + 1) % V
        assert moved(scores(model, changed, None, target), before).all()
        after = model.encoder(model.embedding(changed), None, None, None, None).numpy()
        assert moved(after, memory).all()


def test_a_padded_batch_equals_each_pair_alone(version):
    model = t5(**version)
    sources, targets = [tokens(n, seed=n) for n in (7, 3, 1)], [tokens(n, seed=n + 50) for n in (5, 2, 3)]
    source, target = np.zeros((3, 7), int), np.zeros((3, 5), int)
    for b, (s, t) in enumerate(zip(sources, targets, strict=True)):
        source[b, : len(s)], target[b, : len(t)] = s, t
    lengths = np.array([[7], [3], [1]])
    found = scores(model, source, np.arange(7) < lengths, target)
    for b, (s, t) in enumerate(zip(sources, targets, strict=True)):
        np.testing.assert_allclose(
            found[b, : len(t)], scores(model, s[None], None, t[None])[0], rtol=1e-9, atol=1e-12
        )


def test_padding_in_front_changes_nothing_for_only_distances_count(version):
    model, source, target = t5(**version), tokens(2, 7), tokens(2, 5)
    front_s = np.concatenate([np.full((2, 4), 3), source], axis=1)
    front_t = np.concatenate([np.full((2, 2), 9), target], axis=1)
    real_s, real_t = np.arange(11) >= 4, np.arange(7) >= 2
    found = scores(model, front_s, np.tile(real_s, (2, 1)), front_t, np.tile(real_t, (2, 1)))
    np.testing.assert_allclose(found[:, 2:], scores(model, source, None, target), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_the_bias_depends_on_the_distance_alone(stack):
    stack = getattr(t5(), stack)
    bias = stack.bias(23, 23).numpy()[0]  # (heads, T, T)
    for distance in range(-22, 23):
        diagonal = np.diagonal(bias, distance, axis1=1, axis2=2)
        assert (diagonal == diagonal[:, :1]).all()
    np.testing.assert_array_equal(stack.bias(4, 23).numpy()[0], bias[:, -4:])  # as with a cache
    assert (bias[:, 22, 10] == bias[:, 22, 0]).all()  # 12 and 22 are beyond the farthest distance
    assert (bias[:, 22, 21] != bias[:, 22, 20]).all()
    assert (bias[:, 3, 4] != bias[:, 4, 3]).all()


def test_one_source_serves_many_targets():
    model, target = t5(), tokens(3, 5)
    one, many = tokens(1, 7), np.repeat(tokens(1, 7), 3, axis=0)
    np.testing.assert_allclose(
        scores(model, one, None, target), scores(model, many, None, target), rtol=1e-10
    )
    with pytest.raises(ValueError, match="2 sources for 3 targets"):
        model(tokens(2, 7), decoder_input_ids=target)


# --- training ---------------------------------------------------------------------------------------------


def test_labels_are_read_one_place_later():
    model = t5(pad_token_id=4, decoder_start_token_id=3)
    source, labels = tokens(2, 7), np.array([[5, 6, 7, 8, 1], [9, 2, 1, -100, -100]])
    read = np.array([[3, 5, 6, 7, 8], [3, 9, 2, 1, 4]])
    real = np.arange(7) < np.array([[7], [2]])
    np.testing.assert_array_equal(
        scores(model, source, real, labels=labels), scores(model, source, real, read)
    )
    z = scores(model, source, real, read)
    losses = np.log(np.exp(z).sum(-1)) - np.take_along_axis(z, np.maximum(labels, 0)[..., None], -1)[..., 0]
    expected = losses[labels != -100].sum() / 8
    assert float(model.loss(source, labels, real)) == pytest.approx(expected)
    assert labels[1, 3] == -100  # what was given stays as it was


def test_a_tied_matrix_gets_the_gradient_of_all_its_uses(version):
    """Against differences along a random direction of all parameters at once."""
    model, rng = t5(**version), np.random.default_rng(4)
    source, labels = tokens(2, 7), tokens(2, 5, seed=9)
    model.loss(source, labels).backward()
    directions = [rng.normal(size=p.shape) for p in model.parameters()]
    analytic = sum((p.grad.numpy() * d).sum() for p, d in zip(model.parameters(), directions, strict=True))

    def at(step):
        for p, d in zip(model.parameters(), directions, strict=True):
            p.data += step * d
        loss = float(model.loss(source, labels))
        for p, d in zip(model.parameters(), directions, strict=True):
            p.data -= step * d
        return loss

    assert analytic == pytest.approx((at(1e-6) - at(-1e-6)) / 2e-6, rel=1e-5)


def test_one_batch_is_learned_by_heart(version):
    config = T5Config(V, 16, 4, 32, 1, num_heads=3, dropout=0.0, **version)
    model = T5(config, np.random.default_rng(1))
    source = tokens(5, 7)
    optimizer = tt.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(source, source[:, ::-1])  # backwards: what is copied lies at every distance
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2


class EverySecond:
    """Draws so that each second feature is dropped, from the first on."""

    def random(self, shape, dtype):
        return np.broadcast_to(np.arange(shape[-1]) % 2, shape).astype(dtype)


def test_dropout_inside_the_feed_forward(version):
    """As in the published code: after the activation, and after the gate."""
    layer = t5(dropout=0.25, **version).decoder.layers[0]
    layer.dropout.rng = EverySecond()
    x = np.random.default_rng(7).normal(size=(2, 5, layer.self_norm.weight.size))
    undropped = layer.feed_forward(x).numpy()
    np.testing.assert_allclose(undropped, o_feed_forward(x, layer.feed_forward), atol=1e-12)
    layer.train()
    found = layer.feed_forward(x).numpy()
    last = getattr(layer.feed_forward, "down", None) or layer.feed_forward.linear2
    keep = np.arange(last.weight.shape[0]) % 2
    last.weight.data[...] = last.weight.data * keep[:, None] / 0.75
    np.testing.assert_allclose(found, o_feed_forward(x, layer.feed_forward), atol=1e-12)


def test_dropout_only_while_training():
    model, source, target = t5(dropout=0.3), tokens(2, 7), tokens(2, 5)
    before = scores(model, source, None, target)
    model.train()
    dropped = scores(model, source, None, target), scores(model, source, None, target)
    assert not np.allclose(dropped[0], dropped[1])
    memory = model.encoder(model.embedding(tokens(7, 23)), None, None, None, None).numpy()
    assert (memory == 0).mean() == pytest.approx(0.3, abs=0.1)  # what leaves a stack is dropped too
    np.testing.assert_array_equal(scores(model.eval(), source, None, target), before)


# --- generation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [(1, 1, 5, 2), (4, 5), (8, 1)])
def test_cached_equals_uncached(chunks, backend, version):
    model, source, target = t5(**version), tokens(2, 7), tokens(2, 9)
    real = np.arange(7) < np.array([[7], [4]])
    cache, parts, start = model.new_cache(), [], 0
    for length in chunks:
        parts.append(scores(model, source, real, target[:, start : start + length], cache=cache))
        start += length
        source, real = source * 0, None  # it is not read again
    whole = scores(model, tokens(2, 7), np.arange(7) < np.array([[7], [4]]), target)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-10, atol=1e-10)


def continued(model, source, prompt, count, stop):
    """Return the most probable tokens one by one, each from a call with everything before it."""
    new = []
    while len(new) < count and not (new and new[-1] == stop):
        new.append(int(scores(model, [source], None, [[*prompt, *new]])[0, -1].argmax()))
    return new


def test_generation_given_sources_of_different_length(version):
    model, stop = t5(seed=5, **version), 4
    sources = [[5, 3, 8, 11, 2], [7, 7, 9], [12]]
    padded = np.array([[*s, *[0] * (5 - len(s))] for s in sources])
    expected = [continued(model, s, [0], 11, stop) for s in sources]
    assert len({tuple(e) for e in expected}) == 3
    found = generate(model.given(padded, padded > 0), [[0]] * 3, 11, temperature=0, stop_tokens=stop)
    assert [f.tolist() for f in found] == expected
    for source, right in zip(sources, expected, strict=True):
        for use_cache in (True, False):
            options = {"temperature": 0, "stop_tokens": stop, "use_cache": use_cache}
            assert generate(model.given([source]), [0], 11, **options).tolist() == right
            best = beam_search(
                model.given([source]), [0], 11, num_beams=1, stop_tokens=stop, use_cache=use_cache
            )
            assert best.tokens.tolist() == right


def test_beams_of_several_sources_are_those_of_each_alone():
    model, stop = t5(seed=5), 4
    sources = [[5, 3, 8, 11, 2], [7, 7, 9], [12]]
    padded = np.array([[*s, *[0] * (5 - len(s))] for s in sources])
    options = {"num_beams": 3, "stop_tokens": stop, "length_penalty": 0.7}
    together = beam_search(model.given(padded, padded > 0), [[0]] * 3, 7, **options)
    for source, found in zip(sources, together, strict=True):
        for use_cache in (True, False):
            alone = beam_search(model.given([source]), [0], 7, use_cache=use_cache, **options)
            assert alone.tokens.tolist() == found.tokens.tolist()
            assert alone.score == pytest.approx(found.score)
        z = scores(model, [source], None, [[0, *found.tokens[:-1].tolist()]])[0]  # (n, V)
        log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
        total = sum(row[token] for row, token in zip(log_p, found.tokens, strict=True))
        assert found.score == pytest.approx(total / len(found.tokens) ** 0.7)


def test_prompts_of_different_length():
    model = t5(seed=5)
    given = model.given([[5, 3, 8]])
    together = generate(given, [[0], [0, 6, 2]], 7, temperature=0)
    assert [t.tolist() for t in together] == [
        generate(given, p, 7, temperature=0).tolist() for p in ([0], [0, 6, 2])
    ]


# --- what cannot be ---------------------------------------------------------------------------------------


def test_mistakes_are_refused():
    model = t5()
    with pytest.raises(ValueError, match="give decoder_input_ids"):
        model([[1, 2]])
    with pytest.raises(ValueError, match=r"must have shape \(batch, T\), not \(2,\)"):
        model([1, 2], decoder_input_ids=[[0]])
    with pytest.raises(IndexError, match="outside"):
        model([[V]], decoder_input_ids=[[0]])
    with pytest.raises(ValueError, match="feed_forward must be 'relu' or 'gated-gelu', not 'gelu'"):
        T5Config(V, feed_forward="gelu")
    with pytest.raises(ValueError, match="d_kv must be a positive integer, not 0"):
        T5Config(V, d_kv=0)
    with pytest.raises(ValueError, match="pad_token_id must be an integer of at least 0, not -1"):
        T5Config(V, pad_token_id=-1)
