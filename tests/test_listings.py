"""The document's own listings: the calls as printed, and what the printed lines get wrong is right here."""

import inspect

import numpy as np
import pytest
from test_nn import host, shaken

import tinytransformer as tt
from tinytransformer import optim
from tinytransformer.models.listings import Bert, Gpt

V, E, D, H, CLASSES = 23, 6, 15, 3, 2
IDS = np.array([[7, 3, 10, 3, 1], [4, 9, 2, 0, 0]])
REAL = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def bert(**others):
    return Bert(V, E, D, 2, H, CLASSES, rng=3, **others)


def gpt(**others):
    return Gpt(V, E, 2, H, CLASSES, rng=3, **others)


both = pytest.mark.parametrize("make", [bert, gpt])


def far(make):
    """Return a model in evaluation mode, far from its initial values."""
    return shaken(make(dtype="float64"), np.random.default_rng(72)).eval()


def moved(after, before):
    """Return which tokens have other logits, (batch, T)."""
    return np.abs(host(after) - host(before)).max(axis=2) > 1e-9


def test_the_calls_are_those_of_the_document():
    sizes = {"num_layers": 6, "num_attention_heads": 8, "num_output_classes": 2}
    for model in (
        Bert(vocab_size=10000, embedding_size=128, hidden_size=512, **sizes),
        Gpt(vocab_size=10000, embedding_size=128, **sizes),
    ):
        optim.Adam(model.parameters())
        ids = np.random.default_rng(0).integers(0, 10000, (2, 5))
        with tt.no_grad():
            assert model(ids, attention_mask=REAL).shape == (2, 5, 2)
    for cls in (Bert, Gpt):
        printed = [p.name for p in inspect.signature(cls).parameters.values() if p.kind != p.KEYWORD_ONLY]
        hidden = ["hidden_size"] if cls is Bert else []
        assert printed == ["vocab_size", "embedding_size", *hidden, *sizes]
        assert list(inspect.signature(cls.forward).parameters) == ["self", "input_ids", "attention_mask"]


@both
def test_padding_and_the_other_texts_of_a_batch_change_nothing(backend, make):
    model = far(make)
    batch = host(model(IDS, REAL))
    np.testing.assert_allclose(batch[1, :3], host(model(IDS[1:, :3], REAL[1:, :3]))[0], atol=1e-12)
    np.testing.assert_allclose(batch[0], host(model(IDS[:1].tolist()))[0], atol=1e-12)


@both
def test_who_sees_whom(make):
    model = far(make)
    before = model(IDS, REAL)
    for t in range(5):
        changed = IDS.copy()
        changed[:, t] = 8
        now = moved(model(changed, REAL), before)
        sees = np.arange(5) >= t if make is gpt else np.full(5, True)
        np.testing.assert_array_equal(now[0], sees)
        if t < 3:
            np.testing.assert_array_equal(now[1, :3], sees[:3])
        else:
            assert not now[1, :3].any()  # what stands at padding is not looked at


@both
def test_the_order_of_the_tokens_counts(make):
    model = far(make)
    order = np.array([2, 0, 1])
    logits, other = host(model(IDS[1:, :3])), host(model(IDS[1:, order]))
    last = list(order).index(2)  # in a Gpt this token alone sees the same tokens in both
    assert np.abs(other[0, last] - logits[0, 2]).max() > 1e-3


@both
def test_gradients_reach_every_parameter(make):
    model = far(make).train()
    weight = np.random.default_rng(5).normal(size=(2, 5, CLASSES)) * REAL[:, :, None]
    (model(IDS, REAL) * weight).sum().backward()
    for name, p in model.named_parameters():
        size = np.abs(host(p.grad)).max()
        # the bias of keys moves all scores of a query alike, which softmax does not see
        assert size < 1e-9 if name.endswith("W_K.bias") else size > 1e-6, name


@both
@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_which_of_two_tokens_comes_first(make, seed):
    """As the document trains it, with Adam's defaults; order and content both count."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, V, (61, 7))
    labels = rng.integers(0, 2, 61)
    for row, label in zip(ids, labels, strict=True):
        first, second = np.sort(rng.choice(np.arange(1, 7), 2, replace=False))
        row[[first, second]] = (1, 2) if label else (2, 1)
    sizes = {"vocab_size": V, "embedding_size": 16, "num_layers": 2, "num_attention_heads": 2}
    sizes |= {"num_output_classes": 2, "rng": seed}
    model = Bert(hidden_size=32, **sizes) if make is bert else Gpt(**sizes)
    place = 0 if make is bert else -1
    optimizer = optim.Adam(model.parameters())
    for _ in range(120):
        optimizer.zero_grad()
        tt.cross_entropy(model(ids, np.ones_like(ids))[:, place], labels).backward()
        optimizer.step()
    chosen = host(model.eval()(ids, np.ones_like(ids)))[:, place].argmax(axis=1)
    assert (chosen == labels).mean() > 0.95


@both
def test_what_does_not_fit_is_refused_in_one_line(make):
    model = make()
    name = type(model).__name__
    with pytest.raises(ValueError, match=rf"{name}: input_ids must have shape \(batch, T\), not \(5,\)"):
        model(IDS[0], REAL)
    with pytest.raises(ValueError, match=rf"{name}: attention_mask of shape \(2, 3\) for input_ids of shape"):
        model(IDS, REAL[:, :3])
    with pytest.raises(IndexError):
        model([[V]], [[1]])
