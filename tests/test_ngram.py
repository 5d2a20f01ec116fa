import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytransformer.models.ngram import NGram, interpolation_weights

V = 7


@st.composite
def texts(draw, min_size=2):
    # Drawn from few or many ids, so that contexts repeat in some texts and are new in others.
    largest = draw(st.integers(1, V - 1))
    return draw(st.lists(st.integers(0, largest), min_size=min_size, max_size=41))


contexts = st.lists(st.integers(0, V - 1), max_size=6)
orders = st.integers(1, 4)


def ngrams(tokens, k):
    return [tuple(tokens[i : i + k]) for i in range(len(tokens) - k + 1)]


def probability_by_hand(tokens, weights, context, token):
    """Return the interpolated probability straight from its definition, with Counters."""
    numerator, denominator = weights[0] / V, weights[0]
    for k in range(1, len(weights)):
        if len(context) < k - 1:
            break
        shortened = tuple(context[len(context) - k + 1 :])
        followers = Counter(gram[-1] for gram in ngrams(tokens, k) if gram[:-1] == shortened)
        if followers:
            numerator += weights[k] * followers[token] / followers.total()
            denominator += weights[k]
    return numerator / denominator


@given(texts(), orders, st.lists(st.integers(0, V - 1), min_size=1, max_size=4))
def test_counts_are_those_of_a_counter(tokens, order, other):
    model = NGram(order, V).fit(tokens)
    for k in range(1, order + 1):
        for gram, count in Counter(ngrams(tokens, k)).items():
            assert model.count(gram) == count
    other = other[:order]
    assert model.count(other) == ngrams(tokens, len(other)).count(tuple(other))


@given(texts(), orders, contexts)
def test_probabilities_are_those_of_the_definition(tokens, order, context):
    model = NGram(order, V).fit(tokens)
    for each in (context, tokens, tokens[:1]):
        expected = [probability_by_hand(tokens, model.weights, each, token) for token in range(V)]
        np.testing.assert_allclose(model.probabilities(each), expected, rtol=1e-12)


@given(texts(), orders, contexts)
def test_probabilities_are_positive_and_sum_to_one(tokens, order, context):
    model = NGram(order, V).fit(tokens)
    for each in (context, tokens, [V - 1, *tokens]):
        probabilities = model.probabilities(each)
        assert probabilities.shape == (V,)
        assert probabilities.min() > 0
        assert probabilities.sum() == pytest.approx(1, abs=1e-12)
    assert model.weights.shape == (order + 1,)
    assert model.weights.sum() == pytest.approx(1, abs=1e-12)


@given(texts(), orders, texts(min_size=1))
def test_every_token_is_scored_given_those_before_it(training, order, tokens):
    model = NGram(order, V).fit(training)
    expected = [np.log(model.probabilities(tokens[:t])[token]) for t, token in enumerate(tokens)]
    np.testing.assert_allclose(model.log_probabilities(tokens), expected, rtol=1e-12)
    assert model.cross_entropy(tokens) == pytest.approx(-np.mean(expected))
    assert model.perplexity(tokens) == pytest.approx(np.exp(-np.mean(expected)))


@given(texts(), orders, texts(), st.data())
def test_a_later_token_never_changes_an_earlier_probability(training, order, tokens, data):
    model = NGram(order, V).fit(training)
    t = data.draw(st.integers(1, len(tokens) - 1))
    changed = tokens[:t] + data.draw(st.lists(st.integers(0, V - 1), min_size=1, max_size=9))
    before, after = model.log_probabilities(tokens), model.log_probabilities(changed)
    np.testing.assert_allclose(before[:t], after[:t], rtol=1e-12)  # BLAS rounds by the length of the array


def test_hand_example():
    a, b, c = 0, 1, 2
    model = NGram(order=2, vocab_size=5).fit([a, b, a, b, a, c])
    model.weights = np.array([0.1, 0.3, 0.6])
    # a occurs 3 times in 6, and is followed by b, b and c.
    np.testing.assert_allclose(
        model.probabilities([a]),
        [
            0.1 / 5 + 0.3 * 3 / 6,
            0.1 / 5 + 0.3 * 2 / 6 + 0.6 * 2 / 3,
            0.1 / 5 + 0.3 * 1 / 6 + 0.6 * 1 / 3,
            0.1 / 5,
            0.1 / 5,
        ],
    )
    # Nothing was seen after c, so the other weights, 0.1 and 0.3, share its 0.6.
    np.testing.assert_allclose(
        model.probabilities([b, c]),
        np.array([0.1 / 5 + 0.3 * 3 / 6, 0.1 / 5 + 0.3 * 2 / 6, 0.1 / 5 + 0.3 * 1 / 6, 0.02, 0.02]) / 0.4,
    )
    # The first token is predicted from the empty context, the next from the bigram.
    first, second = (0.1 / 5 + 0.3 * 2 / 6) / 0.4, 0.1 / 5 + 0.3 * 3 / 6 + 0.6 * 2 / 2
    np.testing.assert_allclose(model.log_probabilities([b, a]), np.log([first, second]))


def test_order_one_is_the_unigram_model():
    rng = np.random.default_rng(2)
    training, tokens = rng.binomial(V - 1, 0.3, size=211), rng.binomial(V - 1, 0.4, size=97)
    model = NGram(1, V).fit(training)
    uniform, unigram = model.weights
    relative = np.array([Counter(training.tolist())[token] / 211 for token in range(V)])
    np.testing.assert_allclose(model.probabilities([3, 1]), uniform / V + unigram * relative)
    expected = -np.log(uniform / V + unigram * relative[tokens]).mean()
    assert model.cross_entropy(tokens) == pytest.approx(expected)


def test_perplexity_of_equally_likely_tokens_is_the_vocabulary_size():
    tokens = np.random.default_rng(3).permutation(53)
    assert NGram(1, 53).fit(tokens).perplexity(tokens) == pytest.approx(53, rel=1e-12)


def test_longer_contexts_predict_regular_text_better():
    training, tokens = np.tile([0, 1, 0, 2, 3, 0, 4], 67), np.tile([0, 1, 0, 2, 3, 0, 4], 5)
    losses = [NGram(order, V).fit(training).cross_entropy(tokens) for order in (1, 2, 3)]
    assert np.log(V) > losses[0] > losses[1] > losses[2]
    assert losses[2] < 0.2


# --- interpolation weights


def mixture_text(rng, size, weights, share_unseen):
    """Draw tokens from a known mixture; return each order's probability of each, and where it has one."""
    components = rng.dirichlet(np.full(V, 0.3), size=len(weights))  # (orders, V)
    seen = np.ones((len(weights), size), dtype=bool)
    seen[-1] = rng.random(size) >= share_unseen
    share = weights[:, None] * seen
    share /= share.sum(axis=0)  # (orders, N)
    order = (rng.random(size) > np.cumsum(share, axis=0)[:-1]).sum(axis=0)
    tokens = (rng.random(size)[:, None] > np.cumsum(components[order], axis=1)[:, :-1]).sum(axis=1)
    return components[:, tokens] * seen, seen


@pytest.mark.parametrize("share_unseen", [0, 0.6])
def test_em_finds_the_weights_of_a_known_mixture(share_unseen):
    weights = np.array([0.17, 0.3, 0.53])
    predictions, seen = mixture_text(np.random.default_rng(5), 60_000, weights, share_unseen)
    np.testing.assert_allclose(interpolation_weights(predictions, seen), weights, atol=0.02)


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_em_ends_at_a_maximum(seed):
    rng = np.random.default_rng(seed)
    predictions, seen = mixture_text(rng, 307, rng.dirichlet([2, 2, 2]), 0.3)

    def objective(weights):  # the likelihood, and one imaginary token per order
        return np.log(weights @ predictions / (weights @ seen)).sum() + np.log(weights).sum()

    weights = interpolation_weights(predictions, seen)
    best = objective(weights)
    assert best > objective(np.full(3, 1 / 3)) - 1e-9
    for scale in (0.3, 0.03):
        other = weights * np.exp(scale * rng.standard_normal(3))
        assert objective(other / other.sum()) < best + 1e-3


def test_em_raises_the_likelihood_of_text_held_out():
    # A noisy Markov chain: mostly the successor of the last token, so the bigram deserves most weight.
    rng = np.random.default_rng(7)
    chain = np.cumsum(np.where(rng.random(3_011) < 0.8, 1, rng.integers(0, V, size=3_011))) % V
    training, unseen = chain[:2_000], chain[2_000:]
    model = NGram(3, V).fit(training)
    fitted = model.cross_entropy(unseen)
    for weights in ([0.25] * 4, [0.1, 0.1, 0.1, 0.7], [0.1, 0.7, 0.1, 0.1]):
        model.weights = np.array(weights)
        assert fitted < model.cross_entropy(unseen)


def test_weights_are_chosen_on_tokens_that_were_not_counted():
    # In random text no context helps. Counted on the very tokens it is judged on, the trigram seems to.
    tokens = np.random.default_rng(11).integers(0, 61, size=2_003)
    assert NGram(3, 61).fit(tokens).weights[2:].sum() < 0.3


def test_held_out_part_is_the_last():
    # The first 90 % alternate, the end does not: weights chosen on the end trust the bigram little.
    tokens = np.concatenate([np.tile([0, 1], 450), np.random.default_rng(13).integers(0, 2, size=100)])
    assert NGram(2, 2).fit(tokens, held_out_fraction=0.1).weights[2] < 0.3
    assert NGram(2, 2).fit(tokens[::-1], held_out_fraction=0.1).weights[2] > 0.7


# --- sampling


def assert_frequencies(counts, probabilities):
    expected = counts.sum() * probabilities
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < len(counts) + 5 * np.sqrt(2 * len(counts))  # mean and 5 standard deviations


def test_samples_have_the_probabilities_of_the_model():
    rng = np.random.default_rng(17)
    training = np.cumsum(rng.integers(1, 4, size=400)) % V
    model = NGram(2, V).fit(training)
    prompt = [5, 2]
    tokens = model.sample(6_000, rng, prompt)
    assert tokens.shape == (6_000,)
    previous = np.concatenate([[2], tokens[:-1]])
    for context in range(V):
        counts = np.bincount(tokens[previous == context], minlength=V)
        assert_frequencies(counts, model.probabilities([context]))


def test_samples_go_on_from_the_prompt():
    rng = np.random.default_rng(19)
    model = NGram(3, V).fit(np.tile([0, 1, 2, 0, 3, 4], 50))
    for prompt in ([1, 2], [4, 0, 3], [3]):
        draws = np.concatenate([model.sample(1, rng, prompt) for _ in range(1_500)])
        assert_frequencies(np.bincount(draws, minlength=V), model.probabilities(prompt))
    draws = np.concatenate([model.sample(1, rng) for _ in range(1_500)])
    assert_frequencies(np.bincount(draws, minlength=V), model.probabilities())


def test_the_same_seed_draws_the_same_tokens():
    model = NGram(2, V).fit(np.random.default_rng(23).integers(0, V, size=101))
    first, again, other = (model.sample(37, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert model.sample(0, np.random.default_rng(1)).shape == (0,)


# --- sizes and dtypes


def test_large_vocabularies_do_not_overflow():
    size = 2**31
    pool = size - 1 - np.array([0, 1, 2, 1_000_003, 2**30])
    tokens = pool[np.random.default_rng(29).integers(0, 5, size=601)]
    small = NGram(6, size).fit(tokens)
    counts = Counter(ngrams(tokens.tolist(), 6))
    assert all(small.count(gram) == count for gram, count in counts.items())
    assert np.isfinite(small.log_probabilities(tokens)).all()


def test_memory_does_not_grow_with_the_square_of_the_vocabulary():
    tokens = np.random.default_rng(31).zipf(1.3, size=20_011) % 50_000
    tracemalloc.start()
    model = NGram(3, 50_000).fit(tokens)
    probabilities = model.probabilities(tokens[:2])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert probabilities.sum() == pytest.approx(1)
    assert peak < 20e6  # a table of V × V counts would take 1e10


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint64"])
def test_integers_of_every_size_give_the_same_model(dtype):
    tokens = np.random.default_rng(37).integers(0, 113, size=1_009)
    expected = NGram(3, 113).fit(tokens).log_probabilities(tokens)
    narrow = tokens.astype(dtype)
    np.testing.assert_array_equal(NGram(3, 113).fit(narrow).log_probabilities(narrow), expected)


def test_text_shorter_than_the_order():
    model = NGram(5, V).fit([3, 4])
    assert model.probabilities([6, 3, 4]).sum() == pytest.approx(1)
    assert model.count([3, 4]) == 1
    assert model.count([3, 4, 3, 4, 3]) == 0
    model = NGram(11, V).fit([0, 1, 2, 3, 4])
    assert model.count([0, 1, 2, 3, 4]) == 1
    assert model.log_probabilities([0, 1, 2, 3, 4]).shape == (5,)


# --- errors


@pytest.mark.parametrize("order", [0, -1])
def test_order_below_one(order):
    with pytest.raises(ValueError, match="order must be at least 1"):
        NGram(order, V)


@pytest.mark.parametrize("size", [0, 2**31 + 1])
def test_impossible_vocabulary_size(size):
    with pytest.raises(ValueError, match="vocab_size must be between"):
        NGram(2, size)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([0, 1, V, 2], f"token id {V} is out of range for vocab_size {V}"),
        ([0, -1, 2], "token id -1 is out of range"),
        ([[0, 1], [2, 3]], r"1-D array, got shape \(2, 2\)"),
        ([0.0, 1.0], "must be integers, got float64"),
        ([True, False], "must be integers, got bool"),
    ],
)
def test_bad_tokens(tokens, message):
    model = NGram(2, V)
    with pytest.raises(ValueError, match=message):
        model.fit(tokens)
    model.fit([0, 1, 2, 3])
    calls = [
        model.log_probabilities,
        model.cross_entropy,
        model.perplexity,
        model.count,
        model.probabilities,
        lambda tokens: model.sample(1, np.random.default_rng(0), tokens),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call(tokens)


def test_too_few_tokens():
    model = NGram(2, V)
    for tokens in ([], [1]):
        with pytest.raises(ValueError, match=f"at least 2 tokens, got {len(tokens)}"):
            model.fit(tokens)
    model.fit([0, 1])
    with pytest.raises(ValueError, match="no tokens to predict"):
        model.cross_entropy([])


@pytest.mark.parametrize("fraction", [0, 1, -0.2, 1.5])
def test_impossible_held_out_fraction(fraction):
    with pytest.raises(ValueError, match="held_out_fraction must be above 0 and below 1"):
        NGram(2, V).fit([0, 1, 2], held_out_fraction=fraction)


def test_not_fitted():
    model = NGram(2, V)
    for call in (model.probabilities, model.log_probabilities, model.perplexity, model.count):
        with pytest.raises(RuntimeError, match=r"not fitted; call fit\(tokens\) first"):
            call([0, 1])
    with pytest.raises(RuntimeError, match="not fitted"):
        model.sample(3, np.random.default_rng(0))


def test_wrong_calls():
    model = NGram(2, V).fit([0, 1, 2])
    with pytest.raises(ValueError, match=r"give 1 to 2 tokens \(the order\), got 3"):
        model.count([0, 1, 2])
    with pytest.raises(ValueError, match="give 1 to 2 tokens"):
        model.count([])
    with pytest.raises(ValueError, match="length must not be negative"):
        model.sample(-1, np.random.default_rng(0))
