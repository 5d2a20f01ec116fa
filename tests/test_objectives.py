"""Objectives: their statistics, what must hold for every draw, and the wrong maskings that students write."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinytransformer.text import corrupt_spans, mask_tokens, next_token, pad, sentence_pairs

V = 37
SPECIAL = [0, 1, 2, 3, 4]
PAD, CLS, SEP, MASK = 0, 2, 3, 4
quick = settings(deadline=None, max_examples=100)


def rejected(check, *arguments):
    """Return True if a check fails, be it by its assertion or because the wrong answer crashes."""
    try:
        check(*arguments)
    except Exception:
        return True
    return False


def chi_square(counts):
    """Return how far counts are from equal ones, in standard deviations of the statistic."""
    counts = np.asarray(counts)
    expected = counts.sum() / counts.size
    degrees = counts.size - 1
    return (((counts - expected) ** 2 / expected).sum() - degrees) / math.sqrt(2 * degrees)


def is_share(part, whole, p):
    """Return True if a count is what a probability gives, up to 5 standard deviations."""
    return abs(part - whole * p) < 5 * math.sqrt(whole * p * (1 - p))


# --- next token ---


def test_next_tokens():
    ids = np.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]], dtype=np.uint16)
    inputs, targets = next_token(ids)
    assert inputs.tolist() == [[3, 1, 4, 1], [9, 2, 6, 5]]
    assert targets.tolist() == [[1, 4, 1, 5], [2, 6, 5, 3]]
    assert inputs.dtype == targets.dtype == np.int64
    inputs[:] = 0
    assert targets[0, 0] == 1
    for bad in ([7], 7, np.zeros((3, 1), int)):
        with pytest.raises(ValueError, match="at least 2 tokens"):
            next_token(bad)
    with pytest.raises(ValueError, match="integer token ids, got float64"):
        next_token([1.0, 2.0])


# --- masked tokens ---

ROWS, WIDTH = 307, 211


def padded_batch(seed=0):
    """Return ids with [CLS] in front, [SEP] and padding at the end; read-only."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, V, size=(ROWS, WIDTH))
    ids[:, 0] = CLS
    ends = rng.integers(WIDTH // 2, WIDTH, size=ROWS)
    ids[np.arange(ROWS), ends] = SEP
    ids[np.arange(WIDTH) > ends[:, None]] = PAD
    ids.flags.writeable = False
    return ids


def check_masking(mask):
    """Check a masking function of the signature of `mask_tokens` against the paper."""
    ids, rng = padded_batch(), np.random.default_rng(7)
    inputs, labels = mask(ids, SPECIAL, MASK, V, rng)
    assert inputs.shape == labels.shape == ids.shape
    special, chosen = np.isin(ids, SPECIAL), labels != -100
    assert not (chosen & special).any()
    assert (inputs[special] == ids[special]).all()
    assert (labels[chosen] == ids[chosen]).all()
    assert (inputs[~chosen] == ids[~chosen]).all()
    assert is_share(chosen.sum(), (~special).sum(), 0.15)
    n = chosen.sum()
    masked, kept = chosen & (inputs == MASK), chosen & (inputs == ids)
    drawn = chosen & ~masked & ~kept
    ordinary = V - len(SPECIAL)
    assert is_share(masked.sum(), n, 0.8)
    assert is_share(kept.sum(), n, 0.1 + 0.1 / ordinary)
    assert is_share(drawn.sum(), n, 0.1 - 0.1 / ordinary)
    assert not np.isin(inputs[drawn], SPECIAL).any()
    shift = (inputs[drawn] - ids[drawn]) % ordinary  # of a uniform token: any but 0, as likely
    assert chi_square(np.bincount(shift, minlength=ordinary)[1:]) < 5
    assert chi_square(np.bincount(inputs[drawn] - 5, minlength=ordinary)) < 5
    assert chi_square(chosen[:, 1 : WIDTH // 2].sum(axis=0)) < 5  # every place
    assert chi_square(np.bincount(ids[chosen] - 5, minlength=ordinary)) < 5  # every token
    _, labels_2 = mask(ids, SPECIAL, MASK, V, rng)  # the next epoch
    both = (labels_2 != -100) & chosen
    assert is_share(both.sum(), n, 0.15)
    again, _ = mask(ids, SPECIAL, MASK, V, np.random.default_rng(7))
    assert (again == inputs).all()
    assert inputs.dtype == labels.dtype == np.int64


MASKING = {
    "": {},
    "loss on every token": {"ignore": False},
    "masks special tokens": {"spare": False},
    "always [MASK]": {"masked": 1.0},
    "always [MASK], then some overwritten": {"masked": 0.9},
    "one random id for all": {"one_draw": True},
    "fixed seed": {"static": True},
    "0.15 and 0.8 multiplied twice": {"p": 0.15 * 0.8},
    "draws special tokens": {"lowest": 0},
    "never as it is": {"masked": 0.8, "drawn": 0.2},
    "15 % of the padding too": {"p": 0.12},
    "labels what it reads": {"labels_of_inputs": True},
    "in place": {"in_place": True},
}


def textbook_masking(
    p=0.15, masked=0.8, drawn=0.1, ignore=True, spare=True, one_draw=False, static=False, lowest=5, **more
):
    def mask(ids, special, mask_id, vocab, rng):
        if static:
            rng = np.random.default_rng(0)
        chosen = rng.random(ids.shape) < p
        if spare:
            chosen &= ~np.isin(ids, special)
        lot = rng.random(ids.shape)
        out = ids if more.get("in_place") else ids.copy()
        out[chosen & (lot < masked)] = mask_id
        swap = chosen & (lot >= masked) & (lot < masked + drawn)
        out[swap] = rng.integers(lowest, vocab, size=() if one_draw else swap.sum())
        labels = (out if more.get("labels_of_inputs") else ids).copy()
        if ignore:
            labels[~chosen] = -100
        return out, labels

    return mask


def test_masking():
    check_masking(mask_tokens)
    check_masking(textbook_masking())


@pytest.mark.parametrize("mistake", [name for name in MASKING if name])
def test_wrong_maskings_are_rejected(mistake):
    assert rejected(check_masking, textbook_masking(**MASKING[mistake]))


def test_masking_any_shape_and_fraction():
    rng = np.random.default_rng(3)
    inputs, labels = mask_tokens([5, 6, 7, 2], SPECIAL, MASK, V, rng, fraction=1.0)
    assert labels.tolist() == [5, 6, 7, -100]
    _, labels = mask_tokens(rng.integers(5, V, size=(7, 5, 1009)), SPECIAL, MASK, V, rng, fraction=0.4)
    assert is_share((labels != -100).sum(), labels.size, 0.4)
    inputs, labels = mask_tokens([], SPECIAL, MASK, V, rng)
    assert inputs.shape == labels.shape == (0,)
    inputs, _ = mask_tokens(np.arange(5, V), SPECIAL, MASK, V, rng, fraction=1.0)
    assert inputs.max() < V


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": [5, V]}, "ids from 5 to 37 for vocab_size 37"),
        ({"ids": [-1, 5]}, "ids from -1 to 5"),
        ({"ids": [0.5]}, "integer token ids"),
        ({"fraction": 0.0}, "fraction must be above 0"),
        ({"fraction": 15}, "fraction must be above 0 and at most 1, got 15"),
        ({"special_ids": range(V)}, "all tokens of the vocabulary are special"),
    ],
)
def test_masking_refuses_what_cannot_be(changes, message):
    arguments = {"ids": [5, 6], "special_ids": SPECIAL, "mask_id": MASK, "vocab_size": V}
    with pytest.raises(ValueError, match=message):
        mask_tokens(**{**arguments, **changes}, rng=np.random.default_rng(0))


# --- pairs of sentences ---


def numbered_documents(rng, documents=41, most=11, longest=7):
    """Return documents in which every token is another number, and the place of each: (document, rank)."""
    texts, places, token = [], {}, 10
    for d in range(documents):
        text, rank = [], 0
        for _ in range(rng.integers(1, most)):
            sentence = list(range(token, token + rng.integers(1, longest)))
            for t in sentence:
                places[t] = (d, rank)
                rank += 1
            token += len(sentence)
            text.append(sentence)
        texts.append(text)
    return texts, places


def parts_of(pair):
    """Take a pair apart, and check its frame."""
    ids = pair.ids.tolist()
    assert ids[0] == CLS
    assert ids[-1] == SEP
    assert ids.count(SEP) == 2
    border = ids.index(SEP)
    assert pair.token_type_ids.tolist() == [0] * (border + 1) + [1] * (len(ids) - border - 1)
    a, b = ids[1:border], ids[border + 1 : -1]
    assert a
    assert b
    return a, b


def runs_on(places, tokens):
    """Return True if tokens stand one after the other in one document."""
    first_document, first_rank = places[tokens[0]]
    return [places[t] for t in tokens] == [(first_document, first_rank + i) for i in range(len(tokens))]


@given(seed=st.integers(0, 10**6), max_length=st.integers(5, 60))
@quick
def test_pairs_are_what_they_say(seed, max_length):
    rng = np.random.default_rng(seed)
    texts, places = numbered_documents(rng)
    for pair in sentence_pairs(texts, CLS, SEP, max_length, rng):
        assert len(pair.ids) <= max_length
        a, b = parts_of(pair)
        assert runs_on(places, a)
        assert runs_on(places, b)
        (document_a, end_a), (document_b, start_b) = places[a[-1]], places[b[0]]
        if pair.label == 0:
            assert document_a == document_b
            assert start_b > end_a
        else:
            assert document_a != document_b
        assert pair.ids.dtype == pair.token_type_ids.dtype == np.int64


def test_half_of_the_pairs_are_random_and_the_others_have_nothing_between():
    rng = np.random.default_rng(11)
    texts, places = numbered_documents(rng, documents=997)
    pairs = sentence_pairs(texts, CLS, SEP, 10**6, rng)  # long enough for nothing to be cut
    labels = np.array([pair.label for pair in pairs])
    assert len(pairs) > 900
    assert is_share(labels.sum(), len(labels), 0.5)
    borders, sources = [], []
    for pair in pairs:
        a, b = parts_of(pair)
        if pair.label == 0:
            assert runs_on(places, a + b)
        else:
            sources.append(places[b[0]])
        borders.append(a[-1])
    assert len({document for document, _ in sources}) > 250  # of 997, drawn about 500 times
    assert np.mean([rank > 0 for _, rank in sources]) > 0.5  # from a random sentence on
    ends = {text[i][-1] for text in texts for i in range(len(text) - 1)}
    assert set(borders) <= ends  # only whole sentences


def test_what_a_random_pair_leaves_is_used_again_and_nothing_twice():
    rng = np.random.default_rng(12)
    texts, places = numbered_documents(rng, documents=101)
    used = []
    for pair in sentence_pairs(texts, CLS, SEP, 10**6, rng):
        a, b = parts_of(pair)
        used += a + (b if pair.label == 0 else [])
    assert len(used) == len(set(used))
    left = {places[t][0]: 0 for t in places}
    for t in places.keys() - set(used):
        left[places[t][0]] += 1
    assert max(left.values()) <= 6  # no more than the last sentence of a document, which nothing follows


def test_pairs_fill_the_length_and_are_cut_at_both_ends():
    rng = np.random.default_rng(13)
    texts, _ = numbered_documents(rng, documents=7, most=400)
    pairs = sentence_pairs(texts, CLS, SEP, 23, rng)
    lengths = np.array([len(pair.ids) for pair in pairs])
    assert (lengths == 23).mean() > 0.9
    starts = {text[i][0] for text in texts for i in range(len(text))}
    ends = {text[i][-1] for text in texts for i in range(len(text))}
    cut_in_front = np.mean([parts_of(pair)[0][0] not in starts for pair in pairs])
    cut_at_the_end = np.mean([parts_of(pair)[1][-1] not in ends for pair in pairs])
    assert cut_in_front > 0.2
    assert cut_at_the_end > 0.2


def test_pairs_depend_on_the_generator_alone():
    texts, _ = numbered_documents(np.random.default_rng(14))
    draw = lambda rng: [pair.ids.tolist() for pair in sentence_pairs(texts, CLS, SEP, 19, rng)]  # noqa: E731
    rng = np.random.default_rng(5)
    first, second = draw(rng), draw(rng)
    assert first == draw(np.random.default_rng(5))
    assert first != second


def test_pairs_of_too_little_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="max_length=4 has no room"):
        sentence_pairs([[[5], [6]], [[7]]], CLS, SEP, 4, rng)
    with pytest.raises(ValueError, match="from another document; give at least 2"):
        sentence_pairs([[[5], [6]], [], [[]]], CLS, SEP, 9, rng)
    assert sentence_pairs([[[5], []], [[7]]], CLS, SEP, 9, rng) == []  # nothing follows a single sentence


# --- spans ---


@given(
    length=st.integers(2, 80),
    density=st.floats(0.01, 0.99),
    mean_length=st.floats(1, 9),
    seed=st.integers(0, 10**6),
)
@quick
def test_every_token_is_in_inputs_or_targets_once(length, density, mean_length, seed):
    ids = np.arange(100, 100 + length)
    sentinels = np.arange(99, -1, -1)
    inputs, targets = corrupt_spans(ids, sentinels, np.random.default_rng(seed), density, mean_length)
    marks = [t for t in inputs.tolist() if t < 100]
    spans, span = [], []
    for t in targets.tolist()[1:]:
        if t < 100:
            spans.append(span)
            span = []
        else:
            span.append(t)
    assert span == []  # the last sentinel ends the targets
    assert [t for t in targets.tolist() if t < 100] == sentinels[: len(marks) + 1].tolist()
    assert marks == sentinels[: len(marks)].tolist()
    assert all(spans)
    back = []
    for t in inputs.tolist():
        back += spans[marks.index(t)] if t < 100 else [t]
    assert back == ids.tolist()
    taken = min(max(round(length * density), 1), length - 1)
    assert sum(map(len, spans)) == taken
    assert len(spans) == min(max(round(taken / mean_length), 1), length - taken + 1)
    places = [i for i, t in enumerate(inputs.tolist()) if t < 100]
    assert (np.diff(places) > 1).all()  # spans do not touch
    assert inputs.dtype == targets.dtype == np.int64


def test_every_token_is_as_likely_to_be_taken_and_every_length_to_occur():
    rng = np.random.default_rng(21)
    taken, lengths = np.zeros(29, int), np.zeros(9, int)
    for _ in range(4000):
        _, targets = corrupt_spans(np.arange(100, 129), range(50), rng, density=0.21, mean_length=3)
        taken[targets[targets >= 100] - 100] += 1
        lengths[len(targets) - 1 - np.flatnonzero(targets == 1)[0]] += 1
    assert taken.sum() == 4000 * 6
    inner = taken[3:-3]
    assert chi_square(inner) < 5
    assert taken.min() > 0.3 * taken.mean()  # the ends too, which fewer spans can reach
    assert chi_square(lengths[2:7]) < 5  # the second of two spans has 1 to 5 tokens, and a sentinel after it


def test_spans_depend_on_the_generator_alone():
    ids, sentinels = np.arange(100, 150), range(20)
    rng = np.random.default_rng(3)
    first, second = corrupt_spans(ids, sentinels, rng)[0], corrupt_spans(ids, sentinels, rng)[0]
    assert first.tolist() == corrupt_spans(ids, sentinels, np.random.default_rng(3))[0].tolist()
    assert first.tolist() != second.tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": [5]}, "at least 2 tokens"),
        ({"ids": np.ones((2, 3), int)}, r"1-D array of at least 2 tokens, got shape \(2, 3\)"),
        ({"density": 1.0}, "density must be between 0 and 1"),
        ({"mean_length": 0.5}, "mean_length at least 1"),
        ({"sentinels": [9, 8]}, "2 spans need 3 sentinels, got 2"),
    ],
)
def test_spans_refuse_what_cannot_be(changes, message):
    arguments = {"ids": np.arange(20), "sentinels": [99, 98, 97], "density": 0.3, "mean_length": 3}
    with pytest.raises(ValueError, match=message):
        corrupt_spans(**{**arguments, **changes}, rng=np.random.default_rng(0))


# --- batches ---


def test_padding():
    ids, mask = pad([[3, 1, 4], np.array([], int), [1, 5, 9, 2, 6], [5]], pad_id=7)
    assert ids.tolist() == [[3, 1, 4, 7, 7], [7] * 5, [1, 5, 9, 2, 6], [5, 7, 7, 7, 7]]
    assert mask.tolist() == [
        [True, True, True, False, False],
        [False] * 5,
        [True] * 5,
        [True, False, False, False, False],
    ]
    assert ids.dtype == np.int64
    assert mask.dtype == bool
    assert pad([[1], [2, 3]], -100)[0].tolist() == [[1, -100], [2, 3]]
    for bad in ([], [[[1, 2]]], [3]):
        with pytest.raises(ValueError, match="pad takes 1-D sequences"):
            pad(bad, 0)
