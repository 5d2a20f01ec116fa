"""The Transformer of 2017 against its equations in NumPy; its cache, its masks, its smoothed loss."""

import dataclasses
import math

import numpy as np
import pytest
import test_nn
from test_nn import D, H, check_gradients, close, host, o_decoder, o_encoder, o_linear, o_norm, shaken

import tinytransformer as tt
from tinytransformer.generation import beam_search, generate
from tinytransformer.models import Transformer, TransformerConfig
from tinytransformer.optim import AdamW, WarmupLinear

V_SOURCE, V = 11, 13
CONFIG = TransformerConfig(V_SOURCE, V, D, H, 2, 3, d_ff=17, dropout=0.3, max_length=19, label_smoothing=0.2)
SOURCE = np.array([[7, 3, 10, 3, 1, 5, 2], [4, 9, 2, 0, 0, 0, 0]])
REAL = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]])
TARGET = np.array([[1, 12, 5, 5, 8], [1, 6, 11, 0, 0]])
START, STOP = 1, 2
both_norms = pytest.mark.parametrize("norm_first", [False, True], ids=["post-norm", "pre-norm"])


@pytest.fixture
def rng():
    return np.random.default_rng(61)


@pytest.fixture(autouse=True)
def eps(monkeypatch):
    """The layer norms of the oracle get the eps of the model."""
    monkeypatch.setattr(test_nn, "EPS", 1e-5)


def transformer(seed=62, **changes):
    """Return a model in evaluation mode, far from its initial values."""
    config = dataclasses.replace(CONFIG, **changes)
    model = Transformer(config, np.random.default_rng(0), dtype="float64")
    return shaken(model, np.random.default_rng(seed)).eval()


def moved(after, before):
    """Return which positions have other logits, (batch, T)."""
    return np.abs(host(after) - host(before)).max(axis=2) > 1e-9


# --- the equations ---


def o_embedded(ids, table):
    x = np.zeros((*ids.shape, D))
    for b, p in np.ndindex(ids.shape):
        for i in range(D // 2):
            angle = p / 10000 ** (2 * i / D)
            x[b, p, 2 * i : 2 * i + 2] = math.sin(angle), math.cos(angle)
        x[b, p] += math.sqrt(D) * host(table)[ids[b, p]]
    return x


def o_transformer(model, source, target, real):
    x = o_embedded(source, model.source_embedding.weight)
    for layer in model.encoder_layers:
        x = o_encoder(layer, x, real[:, None, :] != 0)
    memory = o_norm(x, model.encoder_norm) if model.config.norm_first else x
    y = o_embedded(target, model.target_embedding.weight)
    for layer in model.decoder_layers:
        lower = np.tril(np.ones((target.shape[1],) * 2, bool))
        y = o_decoder(layer, y, memory, lower, real[:, None, :] != 0)
    y = o_norm(y, model.decoder_norm) if model.config.norm_first else y
    if model.config.shared_embeddings:
        return y @ host(model.target_embedding.weight).T
    return o_linear(y, model.head)


@both_norms
def test_logits(backend, norm_first):
    model = transformer(norm_first=norm_first)
    close(model(SOURCE, TARGET, REAL), o_transformer(model, SOURCE, TARGET, REAL), 1e-10)


@pytest.mark.parametrize("vocabularies", [(V_SOURCE, V), (V, V)], ids=["two", "one"])
@pytest.mark.parametrize("shared", [True, False])
def test_which_matrices_are_shared(vocabularies, shared):
    model = transformer(source_vocab_size=vocabularies[0], target_vocab_size=V, shared_embeddings=shared)
    source, target = model.source_embedding.weight, model.target_embedding.weight
    assert (source is target) == (shared and vocabularies == (V, V))
    assert (model.head is None) == shared
    everything = np.ones_like(SOURCE)
    close(model(SOURCE.tolist(), TARGET.tolist()), o_transformer(model, SOURCE, TARGET, everything), 1e-10)


def test_shared_matrices_stay_one():
    model = transformer(source_vocab_size=V, dropout=0.0)
    optimizer = AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model.loss(SOURCE, REAL, TARGET, TARGET).backward()
        optimizer.step()
    assert model.source_embedding.weight is model.target_embedding.weight
    close(model(SOURCE, TARGET, REAL), o_transformer(model, SOURCE, TARGET, REAL), 1e-10)
    assert sum(V in shape for shape in (a.shape for a in model.state_dict().values())) == 1
    other = transformer(seed=63, source_vocab_size=V)
    other.load_state_dict(model.state_dict())
    close(other(SOURCE, TARGET), host(model(SOURCE, TARGET)))


def o_smoothed(logits, labels, smoothing):
    losses = []
    for place in np.ndindex(labels.shape):
        if labels[place] != -100:
            wanted = np.full(V, smoothing / V)
            wanted[labels[place]] += 1 - smoothing
            p = np.exp(logits[place]) / np.exp(logits[place]).sum()
            losses.append(-(wanted * np.log(p)).sum())
    return np.array(np.mean(losses))


def test_the_loss_is_smoothed_and_leaves_out_what_is_ignored():
    model = transformer()
    labels = np.array([[12, 5, 5, 8, 2], [6, 11, 2, -100, -100]])
    expected = o_smoothed(host(model(SOURCE, TARGET, REAL)), labels, 0.2)
    close(model.loss(SOURCE, REAL, TARGET, labels), expected)
    plain = transformer(label_smoothing=0.0)
    close(plain.loss(SOURCE, REAL, TARGET, labels), o_smoothed(host(plain(SOURCE, TARGET, REAL)), labels, 0))


# --- who sees what ---


@both_norms
def test_a_later_target_never_moves_an_earlier_score(norm_first):
    model = transformer(norm_first=norm_first)
    before = model(SOURCE, TARGET, REAL)
    for t in range(TARGET.shape[1]):
        changed = TARGET.copy()
        changed[:, t] = 9
        now = moved(model(SOURCE, changed, REAL), before)
        np.testing.assert_array_equal(now, np.broadcast_to(np.arange(5) >= t, now.shape))


def test_the_target_sees_every_source_token_but_the_padding():
    model = transformer()
    before = model(SOURCE, TARGET, REAL)
    for s in range(SOURCE.shape[1]):
        changed = SOURCE.copy()
        changed[:, s] = 8
        now = moved(model(changed, TARGET, REAL), before)
        np.testing.assert_array_equal(now, np.broadcast_to(REAL[:, s : s + 1] != 0, now.shape))


@both_norms
def test_a_padded_batch_equals_each_pair_alone(norm_first):
    model = transformer(norm_first=norm_first)
    together = host(model(SOURCE, TARGET, REAL))
    for b, (n_source, n) in enumerate([(7, 5), (3, 3)]):
        close(model(SOURCE[b : b + 1, :n_source], TARGET[b : b + 1, :n]), together[b : b + 1, :n], 1e-10)


def test_a_target_padded_in_front_is_scored_as_without():
    model = transformer()
    real = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    ids, positions = np.array([TARGET[0], [0, 0, 1, 6, 11]]), np.maximum(real.cumsum(axis=1) - 1, 0)
    z = model(SOURCE, ids, REAL, real, positions)
    expected = host(model(SOURCE, TARGET, REAL))
    close(z[:1], expected[:1])
    close(z[1:, 2:], expected[1:, :3])


def test_one_source_serves_many_targets():
    model = transformer()
    one, mask = SOURCE[1:], REAL[1:]
    close(
        model(one, TARGET, mask), host(model(np.repeat(one, 2, axis=0), TARGET, np.repeat(mask, 2, axis=0)))
    )


def test_sines_are_of_the_order_of_the_embeddings_from_the_start():
    """The scale of Vaswani et al. 3.4: an embedding of variance 1/d has size 1 after it."""
    model = Transformer(
        dataclasses.replace(CONFIG, d_model=96, source_vocab_size=997), np.random.default_rng(3)
    )
    embedded = []
    model.encoder_layers[0].forward = lambda x, mask: embedded.append(host(x)) or x
    model.eval().encode(np.arange(19)[None])
    sines = host(tt.tensor(tt.sinusoidal_positions(19, 96)))
    assert 0.8 < np.std(embedded[0][0] - sines) < 1.2


def test_embeddings_are_dropped_out_in_training():
    model, dropped = transformer().train(), []
    model.dropout.forward = lambda x: dropped.append(x.shape) or x
    model(SOURCE, TARGET)
    assert dropped == [(*SOURCE.shape, D), (*TARGET.shape, D)]
    assert {m.p for m in model.modules() if isinstance(m, tt.nn.Dropout)} == {0.3}
    assert np.abs(host(model(SOURCE, TARGET)) - host(model(SOURCE, TARGET))).max() > 1e-6


# --- the cache, and generation ---


@both_norms
@pytest.mark.parametrize("chunks", [[1] * 5, [5], [3, 1, 1], [1, 4]], ids=str)
def test_cached_equals_uncached(backend, chunks, norm_first):
    model = transformer(norm_first=norm_first)
    cache, scored, start = model.new_cache(), [], 0
    with tt.no_grad():
        for n in chunks:
            scored.append(host(model(SOURCE, TARGET[:, start : start + n], REAL, cache=cache)))
            start += n
    close(model(SOURCE, TARGET, REAL), np.concatenate(scored, axis=1), 1e-10)


def greedy_by_hand(model, source, count):
    target = [START]
    while len(target) <= count and target[-1] != STOP:
        target.append(int(host(model([source], [target]))[0, -1].argmax()))
    return target[1:]


def sources():
    """Return sources whose greedy targets differ, and of which one stops early."""
    rng = np.random.default_rng(66)
    return [rng.integers(3, V_SOURCE, size=n).tolist() for n in (7, 3, 5, 1)]


@pytest.fixture
def translator():
    """Return a model whose greedy targets are not one token for ever and end at different places."""
    config = dataclasses.replace(CONFIG, norm_first=True)
    model = Transformer(config, np.random.default_rng(0), dtype="float64").eval()
    rng = np.random.default_rng(167)
    for p in model.parameters():
        if p.ndim == 2:
            p.data[...] = rng.normal(0, 0.7, p.shape)
        else:
            p.data += rng.normal(0, 0.2, p.shape)
    targets = [greedy_by_hand(model, source, 9) for source in sources()]
    assert [len(target) for target in targets] == [1, 9, 7, 9]
    assert min(len(set(target)) for target in targets[1:]) > 2
    return model


def padded(rows):
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows])
    return ids, np.arange(width) < np.array([len(row) for row in rows])[:, None]


@pytest.mark.parametrize("use_cache", [True, False])
def test_generation_given_one_source(translator, use_cache):
    for source in sources():
        tokens = generate(
            translator.given([source]), [START], 9, temperature=0, stop_tokens=STOP, use_cache=use_cache
        )
        assert tokens.tolist() == greedy_by_hand(translator, source, 9)


def test_generation_given_a_batch_in_which_some_stop(translator):
    given = translator.given(*padded(sources()))
    batch = generate(given, [[START]] * 4, 9, temperature=0, stop_tokens=STOP)
    assert [tokens.tolist() for tokens in batch] == [greedy_by_hand(translator, s, 9) for s in sources()]


def beam_by_hand(model, source, count, beams):
    """Return the best target by a search that computes every score anew."""
    running, finished = [((START,), 0.0)], []
    for n in range(1, count + 1):
        candidates = []
        for target, total in running:
            z = host(model([source], [target]))[0, -1]
            log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
            candidates += [((*target, token), total + log_p[token]) for token in range(V)]
        candidates.sort(key=lambda candidate: -candidate[1])
        ended = [c for c in candidates[:beams] if c[0][-1] == STOP or n == count]
        finished += [(total / n, target[1:]) for target, total in ended]
        running = [c for c in candidates if c[0][-1] != STOP][:beams]
    return max(finished)


@pytest.mark.parametrize("use_cache", [True, False])
def test_beam_search_given_a_source(translator, use_cache):
    for source in sources()[:2]:
        best = beam_search(
            translator.given([source]), [START], 6, num_beams=3, stop_tokens=STOP, use_cache=use_cache
        )
        score, tokens = beam_by_hand(translator, source, 6, 3)
        assert best.tokens.tolist() == list(tokens)
        assert best.score == pytest.approx(score, rel=1e-9)


def test_beam_search_given_a_batch(translator):
    given = translator.given(*padded(sources()))
    batch = beam_search(given, [[START]] * 4, 6, num_beams=3, stop_tokens=STOP)
    for source, best in zip(sources(), batch, strict=True):
        assert best.tokens.tolist() == list(beam_by_hand(translator, source, 6, 3)[1])


def test_what_is_given_a_source_writes_with_the_targets_vocabulary(translator):
    assert translator.given(SOURCE).config.vocab_size == V != V_SOURCE


def test_the_source_is_encoded_once_with_a_cache(translator):
    encoded = []
    encode = translator.encode
    translator.encode = lambda *arguments: encoded.append(arguments) or encode(*arguments)
    generate(translator.given([sources()[0]]), [START], 5, temperature=0)
    assert len(encoded) == 1


def test_without_a_cache_rows_of_several_sources_cannot_be_followed(translator):
    given = translator.given(*padded(sources()))
    with pytest.raises(ValueError, match=r"4 sources for [123] targets: give one for all, or"):
        generate(given, [[START]] * 4, 9, temperature=0, stop_tokens=STOP, use_cache=False)


def test_prompts_of_different_length_each_with_its_source(translator):
    prompts = [[START], [START, 5, 6], [START, 7], [START, 4, 4, 4]]
    together = generate(translator.given(*padded(sources())), prompts, 4, temperature=0)
    for source, prompt, tokens in zip(sources(), prompts, together, strict=True):
        alone = generate(translator.given([source]), prompt, 4, temperature=0)
        assert tokens.tolist() == alone.tolist()


# --- gradients and training ---


@both_norms
def test_gradients(norm_first):
    model = transformer(norm_first=norm_first, num_encoder_layers=1, num_decoder_layers=1, d_ff=2)
    labels = np.array([[12, 5, -100, 8, 2], [6, 11, 2, -100, -100]])
    check_gradients(model, lambda m: m.loss(SOURCE, REAL, TARGET, labels))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_is_kept(dtype):
    model = Transformer(CONFIG, np.random.default_rng(1), dtype=dtype)
    loss = model.loss(SOURCE, REAL, TARGET, TARGET)
    loss.backward()
    assert {loss.dtype.name, *(p.grad.dtype.name for p in model.parameters())} == {dtype}


@both_norms
def test_copying_backwards_is_learnt(rng, norm_first):
    """The target is the source from its end: no position can do without the attention to the source."""
    config = TransformerConfig(
        11, 11, 32, 4, 1, 1, d_ff=64, dropout=0.0, norm_first=norm_first, label_smoothing=0.0
    )
    model, learning_rate = Transformer(config, rng), WarmupLinear(5e-3, warmup=40, total=400)
    optimizer = AdamW(model.parameters())
    for step in range(400):
        source = rng.integers(3, 11, size=(32, 5))
        target = np.concatenate([np.full((32, 1), START), source[:, ::-1], np.full((32, 1), STOP)], axis=1)
        loss = model.loss(source, None, target[:, :-1], target[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = learning_rate(step)
        optimizer.step()
    assert loss.item() < 0.1
    source = rng.integers(3, 11, size=(7, 5))
    tokens = generate(model.given(source), [[START]] * 7, 9, temperature=0, stop_tokens=STOP)
    right = [t.tolist() == [*s[::-1].tolist(), STOP] for t, s in zip(tokens, source, strict=True)]
    assert sum(right) >= 6


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_vocab_size": 0}, "source_vocab_size must be a positive integer"),
        ({"num_decoder_layers": True}, "num_decoder_layers must be a positive integer"),
        ({"norm_first": 1}, "norm_first must be True or False"),
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\)"),
        ({"num_heads": 4}, "num_heads=4 does not divide d_model=6"),
        ({"d_model": 9}, "sines need an even d_model, not 9"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"TransformerConfig: {message}"):
        dataclasses.replace(CONFIG, **changes)


def test_inputs_that_cannot_work_are_refused():
    model = transformer()
    with pytest.raises(ValueError, match=r"ids must have shape \(batch, T\), not \(3,\)"):
        model([[1, 2]], np.array([1, 2, 3]))
    with pytest.raises(ValueError, match="20 tokens are more than max_length=19"):
        model(np.ones((1, 20), int), TARGET[:1])
    with pytest.raises(ValueError, match="20 tokens are more than max_length=19"):
        generate(model.given([[3]]), [START], 20, temperature=0)
    with pytest.raises(IndexError, match=r"id 11 is outside \[0, 11\)"):
        model([[V_SOURCE]], TARGET[:1])
    with pytest.raises(ValueError, match="3 sources for 2 targets"):
        model(np.repeat(SOURCE[:1], 3, axis=0), TARGET)
