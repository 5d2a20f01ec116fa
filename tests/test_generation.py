"""Generation against slow searches by hand, and against the wrong answers that students give."""

import itertools
import math
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinytransformer as tt
from tinytransformer.backend import to_numpy
from tinytransformer.generation import Hypothesis, beam_search, generate, next_token_probabilities, stream
from tinytransformer.generation.decoding import DecodingState
from tinytransformer.models import GPT, GPTConfig, gpt, inputs
from tinytransformer.nn import KeyValueCache, Module

V, CONTEXT = 13, 11
PROMPTS = [[7], [3, 1, 4, 1, 5], [2, 7, 1, 8, 2, 8, 12, 0, 4, 5, 9], [*range(12, -1, -1), 6, 1, 8, 0]]
NEW = 9  # of these prompts the first stays in the context, two cross its end, the last starts beyond it


# --- models -----------------------------------------------------------------------------------------------


def small_gpt(cls=GPT, seed=15, dtype="float64", **options):
    """Return a GPT far from its initial values, whose greedy text is not one token for ever."""
    config = GPTConfig(V, CONTEXT, d_model=10, num_layers=2, num_heads=2, d_ff=17, dropout=0.3, **options)
    model = cls(config, np.random.default_rng(0), dtype=dtype)
    rng = np.random.default_rng(seed)
    for parameter in model.parameters():
        if parameter.ndim == 2:
            parameter.data[...] = rng.normal(0, 0.7, parameter.shape)
        else:
            parameter.data += rng.normal(0, 0.2, parameter.shape).astype(dtype)
    return model


class Tokens:
    """The cache of a model that computes nothing: the tokens themselves."""

    def __init__(self):
        self.rows = []

    def append(self, ids):
        self.rows = [old + new for old, new in zip(self.rows or [[] for _ in ids], ids, strict=True)]
        return self.rows

    def select(self, rows):
        self.rows = [list(self.rows[row]) for row in rows]


class PrefixModel(Module):
    """A model made by hand: a function from all tokens so far to logits. What padding scores is NaN."""

    def __init__(self, logits_after, vocab_size=V, context_length=50):
        self.logits_after = logits_after
        self.config = types.SimpleNamespace(vocab_size=vocab_size, context_length=context_length)
        self.calls = []

    def new_cache(self):
        return [Tokens()]

    def forward(self, input_ids, attention_mask=None, positions=None, cache=None):
        self.calls.append(input_ids.shape)
        rows = cache[0].append(input_ids.tolist()) if cache else input_ids.tolist()
        B, T = input_ids.shape
        mask = np.ones((B, len(rows[0])), bool) if attention_mask is None else attention_mask
        logits = np.full((B, T, self.config.vocab_size), np.nan)
        for b, t in np.ndindex(B, T):
            end = len(rows[b]) - T + t + 1
            prefix = tuple(token for token, real in zip(rows[b][:end], mask[b], strict=False) if real)
            if prefix:
                logits[b, t] = self.logits_after(prefix)
        return logits


def random_model(seed, vocab_size=V, **options):
    """Every prefix has its own random distribution, so no history can be mistaken for another."""
    return PrefixModel(
        lambda prefix: np.random.default_rng([seed, *prefix]).normal(0, 2, vocab_size), vocab_size, **options
    )


PROMPT = (2, 3, 2)  # what the trees below continue


def tree_model(tree):
    """Probabilities by new tokens, from a dict; after any other prefix all four tokens are as likely."""

    def logits_after(prefix):
        p = tree.get(prefix[len(PROMPT) :], dict.fromkeys(range(4), 0.25))
        return np.array([math.log(p[token]) if token in p else -math.inf for token in range(4)]) + 1.5

    return PrefixModel(logits_after, vocab_size=4)


def reference_logits(model, tokens):
    """Scores of the token after these, in one call over the last ones that fit."""
    with tt.no_grad():
        logits = model(np.array([tokens[-min(model.config.context_length, len(tokens)) :]]))
    return to_numpy(logits.data if isinstance(logits, tt.Tensor) else logits)[0, -1]


def log_probabilities(model, tokens):
    z = reference_logits(model, tokens)
    return z - z.max() - math.log(np.exp(z - z.max()).sum())


def greedy_by_hand(model, prompt, count, stop=()):
    """Return the new tokens, each from a call over everything before it."""
    new = []
    while len(new) < count and not (new and new[-1] in stop):
        new.append(int(reference_logits(model, [*prompt, *new]).argmax()))
    return new


def rejected(check, *args):
    """Return True if a check fails, be it by its assertion or because the wrong answer crashes."""
    try:
        check(*args)
    except Exception:
        return True
    return False


# --- the cache and the batch ------------------------------------------------------------------------------


def check_logits(model, prompts, use_cache, rtol=1e-9):
    """The logits of every step of a batch are those of each of its sequences alone, in one call."""
    model.eval()
    rng = np.random.default_rng(0)
    state = DecodingState(model, [np.array(prompt) for prompt in prompts], use_cache)
    rows = [list(prompt) for prompt in prompts]
    for _ in range(NEW):
        expected = np.array([reference_logits(model, row) for row in rows])
        np.testing.assert_allclose(state.logits(), expected, rtol=rtol, atol=rtol * abs(expected).max())
        kept = rng.permutation(len(rows))  # reordered, as beams are
        new = rng.integers(V, size=len(rows))
        state.extend(kept, new)
        rows = [[*rows[row], token] for row, token in zip(kept, new.tolist(), strict=True)]


def check_cache(model):
    for prompt in PROMPTS:
        check_logits(model, [prompt], use_cache=True)


def check_batch(model):
    check_logits(model, PROMPTS[:3], use_cache=True)  # leaves the context at once
    check_logits(model, PROMPTS[:2], use_cache=True)  # leaves it on the way
    check_logits(model, PROMPTS, use_cache=False)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
@pytest.mark.parametrize("tied_head", [True, False])
def test_cached_logits_are_those_of_one_call_before_and_after_the_end_of_the_context(positions, tied_head):
    check_cache(small_gpt(positions=positions, tied_head=tied_head))


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_logits_of_a_padded_and_reordered_batch_are_those_of_each_sequence_alone(positions):
    check_batch(small_gpt(positions=positions))


def test_float32_logits_agree_too():
    check_logits(small_gpt(dtype="float32"), PROMPTS[:2], use_cache=True, rtol=1e-4)


class PositionsRestart(GPT):
    def forward(self, input_ids, attention_mask=None, positions=None, cache=None):
        return super().forward(input_ids, attention_mask, np.arange(input_ids.shape[1]), cache)


class PositionsOffByOne(GPT):
    def forward(self, input_ids, attention_mask=None, positions=None, cache=None):
        past = cache[0].length if cache else 0
        positions = np.arange(past, past + input_ids.shape[1]) + (past > 1)
        return super().forward(input_ids, attention_mask, positions % CONTEXT, cache)


class PaddingAttended(GPT):
    def forward(self, input_ids, attention_mask=None, positions=None, cache=None):
        return super().forward(input_ids, None, positions, cache)


class PositionsOfPadding(GPT):
    def forward(self, input_ids, attention_mask=None, positions=None, cache=None):
        return super().forward(input_ids, attention_mask, None, cache)


class JoinedOnTheBatchAxis(KeyValueCache):
    def append(self, k, v):
        held = getattr(self, "held", None)
        self.held = [tt.concatenate([held[0], k], 0), tt.concatenate([held[1], v], 0)] if held else [k, v]
        self.length += k.shape[2]
        return self.held


class ValuesPrepended(KeyValueCache):
    def append(self, k, v):
        held = getattr(self, "held", None)
        self.held = [tt.concatenate([held[0], k], 2), tt.concatenate([v, held[1]], 2)] if held else [k, v]
        self.length += k.shape[2]
        return self.held


class NeverReordered(KeyValueCache):
    def select(self, rows):
        pass


def test_wrong_caches_are_rejected(monkeypatch):
    assert rejected(check_cache, small_gpt(PositionsRestart))
    assert rejected(check_cache, small_gpt(PositionsOffByOne))
    for wrong in (JoinedOnTheBatchAxis, ValuesPrepended):
        monkeypatch.setattr(gpt.nn, "KeyValueCache", wrong)
        assert rejected(check_cache, small_gpt())
    monkeypatch.undo()

    class TopLeft(tt.Mask):
        @classmethod
        def causal(cls, queries, keys=None):
            return tt.Mask(np.tril(np.ones((queries, keys or queries), bool)))

    monkeypatch.setattr(inputs, "Mask", TopLeft)
    assert rejected(check_cache, small_gpt())


def test_wrong_batches_are_rejected(monkeypatch):
    assert rejected(check_batch, small_gpt(PaddingAttended))
    assert rejected(check_batch, small_gpt(PositionsOfPadding))
    monkeypatch.setattr(gpt.nn, "KeyValueCache", NeverReordered)
    assert rejected(check_batch, small_gpt())


def test_greedy_tokens_with_and_without_cache_alone_and_in_a_batch():
    model = small_gpt()
    model.eval()
    expected = [greedy_by_hand(model, prompt, NEW) for prompt in PROMPTS]
    assert min(len(set(tokens)) for tokens in expected) >= 3  # else this would show little
    stop = (expected[0][3], expected[1][5])
    stopped = [greedy_by_hand(model, prompt, NEW, stop) for prompt in PROMPTS]
    assert len({len(tokens) for tokens in stopped}) >= 3
    for use_cache in (True, False):
        for stops, wanted in (((), expected), (stop, stopped)):
            options = {"temperature": 0, "stop_tokens": stops, "use_cache": use_cache}
            alone = [generate(model, prompt, NEW, **options) for prompt in PROMPTS]  # many prompts in a row
            assert [tokens.tolist() for tokens in alone] == wanted
            assert [tokens.tolist() for tokens in generate(model, PROMPTS, NEW, **options)] == wanted


def test_a_cache_that_lives_on_between_prompts_is_seen():
    class Forgetful(GPT):
        def new_cache(self):
            self.cache = getattr(self, "cache", None) or super().new_cache()
            return self.cache

    def check(model):
        for _ in range(2):
            new = generate(model, PROMPTS[1], 5, temperature=0)
            assert new.tolist() == greedy_by_hand(model, PROMPTS[1], 5)

    check(small_gpt().eval())
    assert rejected(check, small_gpt(Forgetful).eval())


def test_each_token_is_computed_once_and_no_more_than_needed():
    model = random_model(1)
    generate(model, PROMPTS[1], 4, temperature=0)
    assert model.calls == [(1, 5), (1, 1), (1, 1), (1, 1)]
    model.calls.clear()
    generate(model, PROMPTS[1], 3, temperature=0, use_cache=False)
    assert model.calls == [(1, 5), (1, 6), (1, 7)]
    model.calls.clear()
    generate(model, PROMPTS[1], 0)
    assert model.calls == []
    windowed = random_model(1, context_length=6)
    generate(windowed, PROMPTS[1], 4, temperature=0)
    assert windowed.calls == [(1, 5), (1, 1), (1, 6), (1, 6)]


def test_of_a_prompt_only_the_last_logits_are_computed_where_the_model_can():
    """For a model with many tokens to choose from, the others take as long as all else."""

    class Watched(GPT):
        def forward(self, *args, last_only=False):
            scores = super().forward(*args, last_only=last_only)
            self.shapes.append(scores.shape)
            return scores

    class Whole(GPT):
        def forward(self, input_ids, attention_mask=None, positions=None, cache=None):
            return super().forward(input_ids, attention_mask, positions, cache)

    plain, watched, whole = (small_gpt(kind).eval() for kind in (GPT, Watched, Whole))
    watched.shapes = []
    for other in (watched, whole):
        for use_cache in (True, False):
            new = generate(other, PROMPTS[1], 3, temperature=0, use_cache=use_cache)
            np.testing.assert_array_equal(new, generate(plain, PROMPTS[1], 3, temperature=0))
    assert [shape[1] for shape in watched.shapes] == [1] * 6


def test_a_prompt_that_has_stopped_is_no_longer_computed():
    model = random_model(0)
    stop = greedy_by_hand(model, PROMPTS[0], 1)
    model.calls.clear()
    first, second = generate(model, PROMPTS[:2], 4, temperature=0, stop_tokens=stop)
    assert first.tolist() == stop
    assert second.tolist() == greedy_by_hand(model, PROMPTS[1], 4, stop)
    assert model.calls[:2] == [(2, 5), (1, 1)]


def test_a_model_on_another_backend_gives_the_same_tokens(backend):
    with tt.use_backend("numpy"):
        model, host = small_gpt(), small_gpt()
    model.to(backend)
    assert model.token_embedding.weight.backend == backend
    for options in ({"temperature": 0}, {"rng": np.random.default_rng(0), "top_p": 0.9}):
        state = options["rng"].bit_generator.state if "rng" in options else None
        new = generate(model, PROMPTS, NEW, **options)
        if state:
            options["rng"].bit_generator.state = state
        with tt.use_backend("numpy"):
            expected = generate(host, PROMPTS, NEW, **options)
        for a, b in zip(new, expected, strict=True):
            assert isinstance(a, np.ndarray)
            np.testing.assert_array_equal(a, b)
    a = beam_search(model, tt.tensor(PROMPTS[1]), 5, num_beams=3)
    with tt.use_backend("numpy"):
        b = beam_search(host, PROMPTS[1], 5, num_beams=3)
    np.testing.assert_array_equal(a.tokens, b.tokens)
    assert a.score == pytest.approx(b.score, rel=1e-9)


# --- from logits to a token -------------------------------------------------------------------------------


def check_probabilities(probabilities):
    """Check values by hand: temperature and k are not 1, the logits are no probabilities."""
    z = np.log([0.1, 0.4, 0.2, 0.2, 0.1]) + 3.0
    np.testing.assert_allclose(probabilities(z, 1.0, None), [0.1, 0.4, 0.2, 0.2, 0.1], rtol=1e-12)
    squares = np.array([1, 16, 4, 4, 1])
    np.testing.assert_allclose(probabilities(z, 0.5, None), squares / 26, rtol=1e-12)
    np.testing.assert_allclose(probabilities(z, 0.5, 1), [0, 1, 0, 0, 0])
    np.testing.assert_allclose(probabilities(z, 0.5, 3), np.array([0, 16, 4, 4, 0]) / 24, rtol=1e-12)
    z = np.array([3.0, -1.0, 2.0, 0.5])
    e = np.exp(z / 1.7)
    np.testing.assert_allclose(
        probabilities(z, 1.7, 2), np.array([e[0], 0, e[2], 0]) / (e[0] + e[2]), rtol=1e-12
    )
    rows = probabilities(np.stack([z, z[::-1]]), 1.7, 3)  # each row by itself
    np.testing.assert_array_equal(rows[0], rows[1][::-1])
    np.testing.assert_array_equal(rows[0] > 0, [True, False, True, True])


def softmax_by_hand(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def textbook_probabilities(z, temperature, k, mistake=None):
    z = z / (1 if mistake == "temperature ignored" else temperature)
    if k is not None:
        kth = np.sort(z, axis=-1)[..., -k, None]
        if mistake == "drops the k-th too":
            z = np.where(z <= kth, -np.inf, z)
        elif mistake == "filters probabilities":
            z = np.where(z < kth, 0, z)
        else:
            z = np.where(z < kth, -np.inf, z)
    return softmax_by_hand(softmax_by_hand(z)) if mistake == "softmax twice" else softmax_by_hand(z)


def test_probabilities_by_hand():
    check_probabilities(next_token_probabilities)
    check_probabilities(textbook_probabilities)


@pytest.mark.parametrize(
    "mistake", ["drops the k-th too", "softmax twice", "temperature ignored", "filters probabilities"]
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_wrong_probabilities_are_rejected(mistake):
    assert rejected(check_probabilities, lambda z, t, k: textbook_probabilities(z, t, k, mistake))


def test_top_k_keeps_exactly_k_of_equals():
    z = np.array([1.0, 2.0, 2.0, 0.0, 2.0, 2.0])
    np.testing.assert_allclose(next_token_probabilities(z, top_k=3), [0, 1 / 3, 1 / 3, 0, 1 / 3, 0])
    np.testing.assert_allclose(next_token_probabilities(z, temperature=0), [0, 1, 0, 0, 0, 0])
    np.testing.assert_allclose(next_token_probabilities(z, top_k=99), softmax_by_hand(z), rtol=1e-12)


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (None, 0.5, [1]),  # reached exactly by the first
        (None, 0.51, [1, 3]),
        (None, 0.75, [1, 3]),
        (None, 0.76, [1, 2, 3]),  # of the two equals the lower id
        (None, 1e-9, [1]),  # always one
        (None, 1.0, [0, 1, 2, 3, 4]),
        (2, 0.7, [1, 3]),  # after top-k the first of them has 2/3, not 1/2
        (2, 0.6, [1]),  # so it alone holds 0.6
        (3, 0.8, [1, 3]),  # 6/7 of what top-k left; of everything it would take three
    ],
)
def test_top_p_keeps_the_fewest_tokens_that_hold_p(top_k, top_p, kept):
    p = np.array([0.0625, 0.5, 0.125, 0.25, 0.0625])
    result = next_token_probabilities(np.log2(p) * math.log(2) - 7, top_k=top_k, top_p=top_p)
    assert np.flatnonzero(result).tolist() == kept
    np.testing.assert_allclose(result[kept], p[kept] / p[kept].sum(), rtol=1e-12)


def test_top_p_drops_a_tail_however_thin():
    z = np.log([0.998, 0.0015, 0.0005])
    assert np.flatnonzero(next_token_probabilities(z, top_p=0.997)).tolist() == [0]
    assert np.flatnonzero(next_token_probabilities(z, top_p=0.999)).tolist() == [0, 1]


def test_top_p_among_equals_takes_lower_ids():
    result = next_token_probabilities(np.zeros(8), top_p=0.375)
    np.testing.assert_allclose(result, [1 / 3, 1 / 3, 1 / 3, 0, 0, 0, 0, 0])


@given(
    st.lists(st.integers(-4, 4), min_size=1, max_size=9),
    st.floats(0.1, 5),
    st.none() | st.integers(1, 10),
    st.none() | st.floats(0.01, 1),
)
def test_narrowed_sets_are_those_of_the_definition(scores, temperature, top_k, top_p):
    z = np.array(scores, dtype=float)
    p = softmax_by_hand(z / temperature)
    ranked = sorted(range(len(z)), key=lambda i: (-z[i], i))[:top_k]
    total = math.fsum(p[ranked])
    sizes = [n for n in range(1, len(ranked) + 1) if math.fsum(p[ranked[:n]]) >= (top_p or 1) * total - 1e-12]
    result = next_token_probabilities(z, temperature, top_k, top_p)
    kept = sorted(ranked[: sizes[0] if top_p else len(ranked)])
    borderline = top_p and any(abs(math.fsum(p[ranked[:n]]) - top_p * total) < 1e-9 for n in sizes)
    if not borderline:
        assert np.flatnonzero(result).tolist() == kept
        np.testing.assert_allclose(result[kept], p[kept] / p[kept].sum(), rtol=1e-9)


def test_probabilities_at_the_ends_of_floating_point():
    z = np.array([[1e4, 0.0, -1e4], [-np.inf, 5.0, -np.inf]])
    for temperature in (0, 1e-310, 1e-3, 1.0):
        np.testing.assert_array_equal(next_token_probabilities(z, temperature), [[1, 0, 0], [0, 1, 0]])
    assert z[0, 0] == 1e4  # the caller's logits are left alone
    narrow = next_token_probabilities(np.float32([0.0, 2.0]), 0.25)
    assert narrow.dtype == np.float64
    np.testing.assert_allclose(next_token_probabilities(z, 1e300)[0], 1 / 3)


def table_model(seed=5):
    """Logits by the last token alone, on arrays: fast enough to draw thousands of tokens."""
    table = np.random.default_rng(seed).normal(0, 1.5, (V, V))
    model = PrefixModel(None)
    model.forward = lambda input_ids, attention_mask=None, positions=None, cache=None: table[input_ids]
    return model, table


def chi_square(counts, p):
    expected = counts.sum() * p[p > 0]
    return ((counts[p > 0] - expected) ** 2 / expected).sum()


def test_frequencies_of_sampled_tokens_are_the_probabilities():
    model, table = table_model()
    model.new_cache = list
    p = textbook_probabilities(table[5], 0.7, 6)
    prompts = np.full((20011, 1), 5)
    new = generate(model, prompts, 2, temperature=0.7, top_k=6, rng=np.random.default_rng(0))
    first, second = np.array(new).T
    counts = np.bincount(first, minlength=V)
    assert not counts[p == 0].any()
    limit = 20.5  # chi-square with 5 degrees of freedom exceeds it once in 1,000 times
    assert chi_square(counts, p) < limit
    assert chi_square(counts, textbook_probabilities(table[5], 0.75, 6)) > limit  # a near miss is seen
    common = counts.argmax()  # the second token follows the first, and not its random number
    p = textbook_probabilities(table[common], 0.7, 6)
    assert chi_square(np.bincount(second[first == common], minlength=V), p) < limit


def test_sampled_tokens_depend_on_the_generator_alone():
    model = small_gpt()

    def draw(seed, prompts=PROMPTS, **options):
        new = generate(model, prompts, NEW, temperature=1.3, rng=np.random.default_rng(seed), **options)
        return [tokens.tolist() for tokens in new]

    new = draw(0)
    assert new == draw(0) == draw(0, use_cache=False)
    assert new != draw(1)
    assert (
        list(stream(model, PROMPTS[1], NEW, rng=np.random.default_rng(2)))
        == generate(model, PROMPTS[1], NEW, rng=np.random.default_rng(2)).tolist()
    )
    stopped = draw(0, stop_tokens=new[0][0])  # one that stops does not change what the others draw
    assert stopped[0] == new[0][:1]
    for a, b in zip(stopped, new, strict=True):
        assert a == b[: len(a)]
        assert a == b or a[-1] == new[0][0]


def test_greedy_takes_the_last_position_and_the_lower_of_equals():
    def first_position(model, prompt, count):
        logits = model(np.array([prompt]))
        return [int(logits[0, 0].argmax()), *greedy_by_hand(model, prompt, count)[1:]]

    def check(decode):
        model = random_model(4, context_length=math.inf)
        assert decode(model, PROMPTS[1], 5) == greedy_by_hand(model, PROMPTS[1], 5)

    check(lambda model, prompt, count: generate(model, prompt, count, temperature=0).tolist())
    assert rejected(check, first_position)
    equals = PrefixModel(lambda prefix: np.where(np.arange(V) % 4 == 3, 1.0, 0.0))
    assert generate(equals, [5], 3, temperature=0).tolist() == [3, 3, 3]


# --- modes and streams ------------------------------------------------------------------------------------


def recording():
    x = tt.ones((1,), dtype="float64").requires_grad_()
    return (x * x).requires_grad


def mixed_modes(model):
    model.train()
    model.blocks[1].eval()
    return [module.training for module in model.modules()]


def test_every_module_returns_to_its_own_mode():
    model = small_gpt()
    modes = mixed_modes(model)
    assert len(set(modes)) == 2
    seen = []

    class Watched(GPT):
        def forward(self, *args, **kwargs):
            seen.append((recording(), any(module.training for module in self.modules())))
            if len(seen) == 6:
                raise ArithmeticError
            return super().forward(*args, **kwargs)

    model.__class__ = Watched
    generate(model, PROMPTS[1], 3)
    beam_search(model, PROMPTS[1], 2)
    with pytest.raises(ArithmeticError):
        generate(model, PROMPTS[1], 3)
    assert seen == [(False, False)] * 6
    assert [module.training for module in model.modules()] == modes
    assert recording()


def test_between_two_tokens_of_a_stream_the_caller_may_train():
    model = small_gpt()
    modes = mixed_modes(model)
    tokens = stream(model, PROMPTS[1], NEW, temperature=0)
    new = []
    for _ in range(3):
        new.append(next(tokens))
        assert recording()
        assert [module.training for module in model.modules()] == modes
    tokens.close()  # early
    assert recording()
    assert [module.training for module in model.modules()] == modes
    assert all(type(token) is int for token in new)
    assert new == generate(model, PROMPTS[1], 3, temperature=0).tolist()
    assert list(stream(model, PROMPTS[1], NEW, temperature=0, stop_tokens=[new[2]])) == new


# --- beam search ------------------------------------------------------------------------------------------


def score_by_hand(model, prompt, new, alpha):
    total = sum(log_probabilities(model, [*prompt, *new[:i]])[token] for i, token in enumerate(new))
    return total / len(new) ** alpha


def exhaustive(model, prompt, count, alpha, stop):
    """Return the best of all continuations: those that end in a stop token, and those that are full."""
    vocabulary = range(model.config.vocab_size)
    going = [token for token in vocabulary if token not in stop]
    finished = list(itertools.product(going, repeat=count))
    for n in range(1, count + 1):
        finished += [(*new, end) for new in itertools.product(going, repeat=n - 1) for end in stop]
    return max((score_by_hand(model, prompt, new, alpha), new) for new in finished)


def textbook_beam_search(model, prompt, count, num_beams, alpha, stop, mistake=None):
    """Beam search in lists, without a rule to stop early; with one of the mistakes students make."""
    beams, done = [((), 0.0)], []

    def score(candidate):
        length = len(candidate[0]) + (len(prompt) if mistake == "prompt counted in the length" else 0)
        return candidate[1] / length**alpha

    for n in range(1, count + 1):
        candidates = []
        for new, total in beams[:1] if mistake == "expands only the best beam" else beams:
            log_p = log_probabilities(model, [*prompt, *new])
            children = [
                ((*new, t), log_p[t] + (0 if mistake == "only the last step's score" else total))
                for t in range(model.config.vocab_size)
                if log_p[t] > -math.inf
            ]
            if mistake == "best child of each beam" and n > 1:
                children = [max(children, key=lambda c: c[1])]
            candidates += children
        candidates.sort(key=lambda c: -c[1])  # stable: equals stay in order of beam, then token
        ended = [c for c in candidates[:num_beams] if c[0][-1] in stop or n == count]
        done += ended
        if ended and mistake == "stops at the first stop token":
            break
        beams = [c for c in candidates if c[0][-1] not in stop][:num_beams]
        if not beams or (num_beams == 1 and ended):
            break
    best = max(done, key=score)
    return best[0], score(best)


def our_beam_search(model, prompt, count, num_beams, alpha, stop):
    tokens, score = beam_search(
        model, list(prompt), count, num_beams=num_beams, length_penalty=alpha, stop_tokens=stop
    )
    return tuple(tokens.tolist()), score


def check_garden_path(search):
    """The likelier first token leads to nothing; the sum over both steps decides."""
    model = tree_model({(): {1: 0.6, 2: 0.4}, (1,): {1: 0.4, 2: 0.3, 3: 0.3}, (2,): {3: 0.9, 1: 0.1}})
    new, score = search(model, PROMPT, 2, 2, 1.0, ())
    assert new == (2, 3)
    assert score == pytest.approx(math.log(0.4 * 0.9) / 2, rel=1e-12)


def check_siblings(search):
    """The two best continuations share their first token: both must survive."""
    model = tree_model(
        {
            (): {1: 0.7, 2: 0.3},
            (1,): {1: 0.45, 2: 0.55},
            (2,): {1: 0.9, 3: 0.1},
            (1, 1): {3: 1.0},
            (1, 2): {1: 0.5, 2: 0.5},
            (2, 1): {1: 0.5, 2: 0.5},
        }
    )
    new, score = search(model, PROMPT, 3, 2, 1.0, ())
    assert new == (1, 1, 3)
    assert score == pytest.approx(math.log(0.7 * 0.45) / 3, rel=1e-12)


STOPS_LATER = {(): {0: 0.6, 1: 0.4}, (1,): {2: 1.0}, (1, 2): {0: 1.0}}


def check_later_stop(search):
    """A longer hypothesis beats one that stopped before it: 0.4 ** (1/3) > 0.6."""
    new, score = search(tree_model(STOPS_LATER), PROMPT, 5, 2, 1.0, (0,))
    assert new == (1, 2, 0)
    assert score == pytest.approx(math.log(0.4) / 3, rel=1e-12)


def check_length_penalty(search):
    """The penalty decides between the same two hypotheses; the prompt would tip it to the short one."""
    model = tree_model(STOPS_LATER)
    for alpha, winner, total, n in (
        (0.0, (0,), 0.6, 1),
        (0.5, (0,), 0.6, 1),
        (0.6, (1, 2, 0), 0.4, 3),
        (1.0, (1, 2, 0), 0.4, 3),
        (2.0, (1, 2, 0), 0.4, 3),
    ):
        new, score = search(model, PROMPT, 3, 2, alpha, (0,))
        assert new == winner
        assert score == pytest.approx(math.log(total) / n**alpha, rel=1e-12)


CHECKS = [check_garden_path, check_siblings, check_later_stop, check_length_penalty]


@pytest.mark.parametrize("check", CHECKS)
def test_beam_search_on_trees_made_by_hand(check):
    check(our_beam_search)
    check(textbook_beam_search)


@pytest.mark.parametrize(
    ("mistake", "check"),
    [
        ("only the last step's score", check_garden_path),
        ("expands only the best beam", check_garden_path),
        ("best child of each beam", check_siblings),
        ("stops at the first stop token", check_later_stop),
        ("prompt counted in the length", check_length_penalty),
    ],
)
def test_wrong_beam_searches_are_rejected(mistake, check):
    assert rejected(check, lambda *args: textbook_beam_search(*args, mistake=mistake))


@pytest.mark.parametrize("alpha", [-0.7, 0.0, 0.6, 1.0, 2.3])
def test_a_wide_beam_search_is_exhaustive(alpha):
    lengths = set()
    for seed, stop in ((0, (0,)), (1, (0,)), (2, (2, 0)), (3, ())):
        model = random_model(seed, vocab_size=3)
        score, new = exhaustive(model, (1, 2), 5, alpha, stop)
        found = our_beam_search(model, (1, 2), 5, 3**5, alpha, stop)
        assert found[0] == new
        assert found[1] == pytest.approx(score, rel=1e-12)
        lengths.add(len(new))
    assert len(lengths) > 1  # some stop before they are full


@pytest.mark.parametrize("num_beams", [1, 2, 3, 7])
@pytest.mark.parametrize("alpha", [-0.7, 0.0, 1.0, 1.9])
def test_beam_search_is_the_textbook_search_without_its_needless_steps(num_beams, alpha):
    saved = 0
    for seed in range(5):
        model = random_model(seed, vocab_size=5)
        found = our_beam_search(model, (4, 2, 3), 7, num_beams, alpha, (0, 3))
        calls = len(model.calls)
        expected = textbook_beam_search(model, (4, 2, 3), 7, num_beams, alpha, (0, 3))
        assert found[0] == expected[0]
        assert found[1] == pytest.approx(expected[1], rel=1e-12)
        saved += 7 - calls
    assert saved > 0  # the search ends once nothing that runs can win


@pytest.mark.parametrize(
    ("alpha", "stopped", "running", "goes_on"),
    [
        (0.0, 0.4, 0.399, False),
        (0.0, 0.4, 0.401, True),
        (1.0, 0.5, 0.5**5 - 1e-6, False),  # at best it keeps this until it is 5 long: the fifth root
        (1.0, 0.5, 0.5**5 + 1e-6, True),
        (-1.0, 0.3, 0.3**0.5 - 1e-3, False),  # at best it keeps this and stops next: the square
        (-1.0, 0.3, 0.3**0.5 + 1e-3, True),
    ],
)
def test_the_search_ends_exactly_when_nothing_that_runs_can_win(alpha, stopped, running, goes_on):
    model = tree_model({(): {0: stopped, 1: running, 2: 1 - stopped - running}})
    our_beam_search(model, PROMPT, 5, 2, alpha, (0, 2))
    assert (len(model.calls) > 1) == goes_on


def test_one_beam_is_greedy():
    model = small_gpt()
    stop = greedy_by_hand(model.eval(), PROMPTS[0], NEW)[4]
    for stop_tokens in ((), (stop,)):
        new = generate(model, PROMPTS, NEW, temperature=0, stop_tokens=stop_tokens)
        best = beam_search(model, PROMPTS, NEW, num_beams=1, length_penalty=1.7, stop_tokens=stop_tokens)
        assert [b.tokens.tolist() for b in best] == [tokens.tolist() for tokens in new]


@pytest.mark.parametrize("use_cache", [True, False])
def test_beams_of_a_batch_are_those_of_each_prompt_alone(use_cache):
    model = small_gpt()
    model.eval()
    greedy = [greedy_by_hand(model, prompt, NEW) for prompt in PROMPTS]
    stop = {greedy[1][4], greedy[3][2]}
    expected = [textbook_beam_search(model, prompt, NEW, 3, 1.0, stop) for prompt in PROMPTS]
    assert len({len(new) for new, _ in expected}) > 1
    options = {"num_beams": 3, "stop_tokens": stop, "use_cache": use_cache}
    alone = [beam_search(model, prompt, NEW, **options) for prompt in PROMPTS]
    together = beam_search(model, PROMPTS, NEW, **options)
    for found in (alone, together):
        for hypothesis, (new, score) in zip(found, expected, strict=True):
            assert tuple(hypothesis.tokens.tolist()) == new
            assert hypothesis.score == pytest.approx(score, rel=1e-9)


def test_ties_go_to_the_better_beam_then_to_the_lower_id():
    uniform = PrefixModel(lambda prefix: np.zeros(4), vocab_size=4)
    new, score = our_beam_search(uniform, (1,), 3, 3, 1.0, ())
    assert new == (0, 0, 0)
    assert score == pytest.approx(-math.log(4))
    # All continuations have the same mean, so the first to be finished stays.
    assert our_beam_search(uniform, (1,), 3, 3, 1.0, (2,))[0] == (2,)


def test_impossible_tokens_are_never_chosen():
    model = tree_model({(): {1: 1.0}, (1,): {2: 1.0}, (1, 2): {0: 1.0}})  # a single continuation exists
    assert our_beam_search(model, PROMPT, 7, 5, 1.0, (0,)) == ((1, 2, 0), pytest.approx(0.0, abs=1e-12))


# --- what goes in and comes out ---------------------------------------------------------------------------


def test_what_comes_out_has_the_form_of_what_goes_in():
    model = small_gpt()
    single = generate(model, np.array([3, 1]), 2)
    assert isinstance(single, np.ndarray)
    assert (single.shape, single.dtype) == ((2,), np.int64)
    for prompts in (
        [[3, 1]],
        np.array([[3, 1]]),
        (np.array([3, 1]),),
        tt.tensor([[3, 1]]),
        [tt.tensor([3, 1])],
    ):
        new = generate(model, prompts, 2)
        assert isinstance(new, list)
        assert [tokens.shape for tokens in new] == [(2,)]
    assert [tokens.shape for tokens in generate(model, [[3, 1], [2]], 0)] == [(0,), (0,)]
    best = beam_search(model, [3, 1], 2)
    assert isinstance(best, Hypothesis)
    assert type(best.score) is float
    assert (best.tokens.shape, best.tokens.dtype) == ((2,), np.int64)
    assert [b.tokens.shape for b in beam_search(model, [[3, 1], [2]], 2)] == [(2,), (2,)]
    empty = beam_search(model, [3, 1], 0)
    assert (empty.tokens.shape, empty.score) == ((0,), 0.0)


def test_progress_shows_a_bar(capsys):
    model = small_gpt()
    generate(model, [3], 5, progress=True)
    assert "5/5" in capsys.readouterr().err
    beam_search(model, [3], 3, progress=True)
    assert "3/3" in capsys.readouterr().err
    generate(model, [3], 5)
    beam_search(model, [3], 3)
    assert capsys.readouterr().err == ""


GOOD = {"prompts": [3, 1], "max_new_tokens": 2}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompts": []}, "prompt is empty"),
        ({"prompts": [[3], []]}, "prompt 1 is empty"),
        ({"prompts": np.zeros((2, 0), int)}, "prompt 0 is empty"),
        ({"prompts": [3, V]}, f"the id {V}, outside the vocabulary of {V}"),
        ({"prompts": [[2], [3, -1]]}, "prompt 1 holds the id -1"),
        ({"prompts": [1.5, 2.0]}, "1-D array of integers, not float64"),
        ({"prompts": "text"}, "encode text"),
        ({"prompts": ["text"]}, "encode text"),
        ({"prompts": 3}, "1-D array of token ids"),
        ({"prompts": np.zeros((1, 2, 3), int)}, r"of shape \(2, 3\)"),
        ({"max_new_tokens": -1}, "max_new_tokens must be an integer of at least 0, not -1"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be an integer"),
        ({"stop_tokens": V}, f"stop token {V} is outside"),
        ({"stop_tokens": [1, -1]}, "stop token -1 is outside"),
    ],
)
def test_bad_prompts_are_refused_in_one_line(changed, message):
    model = small_gpt()
    for function in (generate, beam_search):
        with pytest.raises(ValueError, match=message) as error:
            function(model, **{**GOOD, **changed})
        assert "\n" not in str(error.value)
    if "prompts" not in changed:
        with pytest.raises(ValueError, match=message):  # at the call, not at the first token
            stream(model, GOOD["prompts"], **{"max_new_tokens": 2, **changed})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0 .greedy. or a positive number, not -0.1"),
        ({"temperature": math.nan}, "temperature"),
        ({"temperature": math.inf}, "temperature"),
        ({"top_k": 0}, "top_k must be an integer of at least 1, not 0"),
        ({"top_k": 1.5}, "top_k"),
        ({"top_p": 0}, "top_p must be above 0 and at most 1, not 0"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
    ],
)
def test_bad_sampling_is_refused_before_the_model_runs(changed, message):
    model = random_model(0)
    with pytest.raises(ValueError, match=message):
        generate(model, **GOOD, **changed)
    with pytest.raises(ValueError, match=message):
        stream(model, [3, 1], 2, **changed)
    with pytest.raises(ValueError, match=message):
        next_token_probabilities(np.zeros(V), **changed)
    assert model.calls == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_beams": 0}, "num_beams must be an integer of at least 1, not 0"),
        ({"length_penalty": math.nan}, "length_penalty must be a finite number"),
    ],
)
def test_bad_beams_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        beam_search(small_gpt(), **GOOD, **changed)


def test_a_stream_is_of_one_prompt():
    with pytest.raises(ValueError, match="stream takes one prompt"):
        stream(small_gpt(), [[3, 1]], 2)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_model_that_has_diverged_is_named(bad):
    model = PrefixModel(lambda prefix: np.full(V, bad))
    for decode in (generate, beam_search):
        with pytest.raises(ValueError, match="largest logit of a row is"):
            decode(model, [3], 2)
