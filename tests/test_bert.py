"""BERT against its equations in NumPy; its heads, its losses, and what fine-tuning does to it."""

import dataclasses
import math

import numpy as np
import pytest
import test_nn
from test_nn import B, D, H, T, check_gradients, close, host, o_attention, o_linear, o_norm, shaken

import tinytransformer as tt
from tinytransformer.models import (
    BERT,
    BERTConfig,
    BERTForMaskedLM,
    BERTForNextSentence,
    BERTForPretraining,
    BERTForQuestionAnswering,
    BERTForSequenceClassification,
    BERTForTokenClassification,
)
from tinytransformer.optim import AdamW, WarmupLinear, layerwise_groups
from tinytransformer.text import mask_tokens

V, LABELS, LONGEST = 13, 17, 7
CONFIG = BERTConfig(
    V, LONGEST, D, 2, H, d_ff=11, dropout=0.3, layer_norm_eps=test_nn.EPS, pad_token_id=0, num_labels=LABELS
)
IDS = np.array([[2, 7, 12, 7, 3], [2, 5, 3, 0, 0]])
REAL = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
SEGMENTS = np.array([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0]])
HEADS = [
    BERTForMaskedLM,
    BERTForNextSentence,
    BERTForPretraining,
    BERTForSequenceClassification,
    BERTForTokenClassification,
    BERTForQuestionAnswering,
]
LABELS_OF = {
    BERTForMaskedLM: np.array([[-100, 9, -100, 7, -100], [-100, 5, -100, -100, -100]]),
    BERTForNextSentence: np.array([1, 0]),
    BERTForSequenceClassification: np.array([4, 1]),
    BERTForTokenClassification: np.array([[-100, 3, 0, 4, -100], [-100, 2, -100, -100, -100]]),
    BERTForQuestionAnswering: np.array([[1, 3], [0, 2]]),
}
LABELS_OF[BERTForPretraining] = (LABELS_OF[BERTForMaskedLM], LABELS_OF[BERTForNextSentence])
every_head = pytest.mark.parametrize("head", HEADS, ids=lambda head: head.__name__.removeprefix("BERTFor"))


@pytest.fixture
def rng():
    return np.random.default_rng(51)


def bert(cls=BERT, seed=52, **changes):
    """Return a model in evaluation mode, far from its initial values."""
    config = dataclasses.replace(CONFIG, **changes)
    return shaken(cls(config, np.random.default_rng(0), dtype="float64"), np.random.default_rng(seed)).eval()


def first(output):
    """Return the logits of what a model returned."""
    return output[0] if isinstance(output, tuple) else output


# --- the equations ---

PHI = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
}


def o_bert(model, ids, real, segments, positions=None):
    """Return the hidden states and the pooled output."""
    E, P, S = (
        host(table.weight)
        for table in (model.token_embedding, model.position_embedding, model.segment_embedding)
    )
    x = np.zeros((*ids.shape, D))
    for b, t in np.ndindex(ids.shape):
        x[b, t] = E[ids[b, t]] + P[t if positions is None else positions[b, t]] + S[segments[b, t]]
    x = o_norm(x, model.norm)
    for layer in model.layers:
        x = o_norm(x + o_attention(layer.self_attention, x, x, x, real[:, None, :] != 0), layer.norm1)
        inner = PHI[model.config.activation](o_linear(x, layer.feed_forward.linear1))
        x = o_norm(x + o_linear(inner, layer.feed_forward.linear2), layer.norm2)
    return x, np.tanh(o_linear(x[:, 0], model.pooler))


def o_masked_lm(model, hidden):
    head = model.masked_lm
    z = o_norm(PHI[model.config.activation](o_linear(hidden, head.dense)), head.norm)
    return z @ host(model.encoder.token_embedding.weight).T + host(head.bias)


def o_cross_entropy(logits, labels):
    """Mean over the labels that are not -100, one at a time."""
    losses = []
    for place in np.ndindex(labels.shape):
        if labels[place] != -100:
            p = np.exp(logits[place]) / np.exp(logits[place]).sum()
            losses.append(-math.log(p[labels[place]]))
    return np.array(sum(losses) / len(losses))


@pytest.mark.parametrize("activation", PHI)
def test_encoder(backend, activation):
    model = bert(activation=activation)
    hidden, pooled = o_bert(model, IDS, REAL, SEGMENTS)
    output = model(IDS, REAL, SEGMENTS)
    close(output.hidden, hidden)
    close(output.pooled, pooled)
    assert output._fields == ("hidden", "pooled")


def test_defaults_are_all_real_one_segment_and_counted_positions():
    model = bert()
    everything, nothing = np.ones_like(IDS), np.zeros_like(IDS)
    close(model(IDS.tolist()).hidden, o_bert(model, IDS, everything, nothing)[0])
    positions = np.array([[3, 1, 4, 1, 5], [6, 2, 0, 0, 1]])
    close(model(IDS, positions=positions).hidden, o_bert(model, IDS, everything, nothing, positions)[0])


def test_heads_by_their_equations(backend):
    for head in HEADS:
        model = bert(head)
        pooling = head in (BERTForNextSentence, BERTForPretraining, BERTForSequenceClassification)
        assert (model.encoder.pooler is not None) == pooling
        model.encoder.pooler = model.encoder.pooler or tt.nn.Linear(D, D, dtype="float64")
        hidden, pooled = o_bert(model.encoder, IDS, REAL, SEGMENTS)
        output = model(IDS, REAL, SEGMENTS)
        if head is BERTForMaskedLM:
            close(output, o_masked_lm(model, hidden))
        elif head is BERTForNextSentence:
            close(output, o_linear(pooled, model.next_sentence))
        elif head is BERTForPretraining:
            close(output.logits, o_masked_lm(model, hidden))
            close(output.next_sentence_logits, o_linear(pooled, model.next_sentence))
        elif head is BERTForQuestionAnswering:
            close(output.start_logits, o_linear(hidden, model.span)[:, :, 0])
            close(output.end_logits, o_linear(hidden, model.span)[:, :, 1])
        else:
            x = pooled if head is BERTForSequenceClassification else hidden
            close(output, o_linear(x, model.classifier))


@every_head
def test_losses_by_their_equations(head):
    model, labels = bert(head), LABELS_OF[head]
    output = model(IDS, REAL, SEGMENTS)
    if head is BERTForPretraining:
        expected = sum(o_cross_entropy(host(z), y) for z, y in zip(output, labels, strict=True))
    elif head is BERTForQuestionAnswering:
        expected = sum(o_cross_entropy(host(z), y) for z, y in zip(output, labels.T, strict=True)) / 2
    else:
        expected = o_cross_entropy(host(output), labels)
    close(model.loss(IDS, labels, REAL, SEGMENTS), np.asarray(expected))


def test_the_masked_loss_computes_logits_of_the_chosen_alone_with_the_gradient_of_all():
    model, labels = bert(BERTForMaskedLM), LABELS_OF[BERTForMaskedLM]
    scored = []
    forward = model.masked_lm.forward
    model.masked_lm.forward = lambda hidden, E: scored.append(hidden.shape) or forward(hidden, E)
    gradients = []
    for loss in (model.loss(IDS, labels, REAL), tt.cross_entropy(model(IDS, REAL), labels)):
        model.zero_grad()
        loss.backward()
        gradients.append({name: host(p.grad) for name, p in model.named_parameters()})
    assert scored == [(3, D), (B, T, D)]
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradient, gradients[1][name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_a_batch_in_which_nothing_was_chosen_costs_nothing():
    model = bert(BERTForMaskedLM)
    loss = model.loss(IDS, np.full_like(IDS, -100))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not host(p.grad).any() for p in model.parameters())


# --- properties ---


@every_head
def test_a_padded_batch_equals_each_sequence_alone(head):
    model = bert(head)
    together = model(IDS, REAL, SEGMENTS)
    for b, n in enumerate(REAL.sum(axis=1)):
        alone = model(IDS[b : b + 1, :n], None, SEGMENTS[b : b + 1, :n])
        for z, z_alone in zip(*(o if isinstance(o, tuple) else [o] for o in (together, alone)), strict=True):
            of_tokens = z.shape[1] == T
            close(z_alone, host(z)[b : b + 1, :n] if of_tokens else host(z)[b : b + 1])


def test_the_layers_of_albert_are_one():
    """As many parameters for 2 layers as for 3, whose output differs; the gradient is the sum of theirs."""
    albert = {"embedding_size": 5, "shared_layers": True, "num_layers": 3, "dropout": 0.0}
    model = bert(BERTForMaskedLM, **albert)
    twice = bert(BERTForMaskedLM, **{**albert, "num_layers": 2})
    assert model.num_parameters() == twice.num_parameters()
    logits = host(model(IDS, REAL))
    assert abs(logits - host(twice(IDS, REAL)))[0].max() > 0.01
    close(model(IDS[1:, :3]), logits[1:, :3])  # alone or padded
    check_gradients(model, lambda model: model.loss(IDS, LABELS_OF[BERTForMaskedLM], REAL, SEGMENTS))


def test_what_stands_in_the_padding_does_not_matter():
    model = bert()
    other = np.where(REAL, IDS, 9)
    for x, y in zip(model(IDS, REAL), model(other, REAL), strict=True):
        np.testing.assert_allclose(
            host(x)[1, :3] if x.ndim == 3 else host(x), host(y)[1, :3] if x.ndim == 3 else host(y), atol=1e-12
        )


def test_every_token_sees_every_other_on_both_sides():
    model = bert()
    before = host(model(IDS).hidden)
    for t in range(T):
        changed = IDS.copy()
        changed[:, t] = 11
        moved = np.abs(host(model(changed).hidden) - before).max(axis=2)
        assert (moved > 1e-6).all()


def test_segments_and_places_matter():
    model = bert()
    pair = np.array([[2, 7, 3, 7, 3]])
    one, two = host(model(pair).hidden), host(model(pair, None, [[0, 0, 0, 1, 1]]).hidden)
    assert np.abs(one - two).max() > 1e-3
    assert np.abs(one[0, 1] - one[0, 3]).max() > 1e-3  # the same token at two places


def test_the_output_matrix_is_the_embedding_and_stays_it(tmp_path):
    model = bert(BERTForMaskedLM, dropout=0.0)
    table = model.encoder.token_embedding.weight
    assert [name for name, p in model.named_parameters() if V in p.shape] == [
        "encoder.token_embedding.weight",
        "masked_lm.bias",
    ]
    optimizer = AdamW(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(IDS, LABELS_OF[BERTForMaskedLM]).backward()
        optimizer.step()
    hidden = host(model.encoder(IDS).hidden)
    close(model(IDS), o_masked_lm(model, hidden), 1e-10)
    other = bert(BERTForMaskedLM, seed=99)
    other.load_state_dict(model.state_dict())
    close(other(IDS), host(model(IDS)))
    assert model.to(dtype="float32").encoder.token_embedding.weight is table


@every_head
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_dtype_is_kept(head, dtype):
    model = head(CONFIG, np.random.default_rng(1), dtype=dtype)
    loss = model.loss(IDS, LABELS_OF[head], REAL)
    loss.backward()
    assert {loss.dtype.name, *(p.grad.dtype.name for p in model.parameters())} == {dtype}


@every_head
def test_gradients(head):
    model = bert(head, num_layers=1, vocab_size=13, d_ff=2, activation="gelu")
    check_gradients(model, lambda m: m.loss(IDS, LABELS_OF[head], REAL, SEGMENTS))


def test_dropout_is_of_training_and_comes_from_the_generator():
    def trained(seed):
        model = BERTForSequenceClassification(CONFIG, np.random.default_rng(seed), dtype="float64")
        return [host(model(IDS, REAL)) for _ in range(2)]

    same, again, other = trained(5), trained(5), trained(6)
    np.testing.assert_array_equal(same, again)
    assert np.abs(same[0] - same[1]).max() > 1e-6
    assert np.abs(same[0] - other[0]).max() > 1e-6
    model = bert()
    np.testing.assert_array_equal(host(model(IDS).hidden), host(model(IDS).hidden))


@pytest.mark.parametrize(
    ("head", "shape"), [(BERTForSequenceClassification, (B, D)), (BERTForTokenClassification, (B, T, D))]
)
def test_embeddings_and_the_input_of_classifiers_are_dropped_out(head, shape):
    model = bert(head).train()
    dropped = []
    for dropout in (model.encoder.dropout, model.dropout):
        assert dropout.p == CONFIG.dropout
        dropout.forward = lambda x: dropped.append(x.shape) or x
    model(IDS)
    assert dropped == [(B, T, D), shape]


# --- training and fine-tuning ---


def test_masked_tokens_are_learnt(rng):
    """Each sequence counts on from a random token, so what is masked follows from its neighbours."""
    config = BERTConfig(16, 8, d_model=48, num_layers=2, num_heads=3, d_ff=96, dropout=0.0)
    model, learning_rate = BERTForMaskedLM(config, rng), WarmupLinear(4e-3, warmup=50, total=600)
    optimizer = AdamW(model.parameters(), betas=(0.9, 0.99))
    losses = []
    for step in range(600):
        ids = 5 + (rng.integers(11, size=(16, 1)) + np.arange(8)) % 11
        inputs, labels = mask_tokens(ids, range(5), 4, 16, rng, fraction=0.3)
        loss = model.loss(inputs, labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.lr = learning_rate(step)
        optimizer.step()
    assert np.mean(losses[:5]) > 2.3  # of log 11 = 2.4
    assert np.mean(losses[-50:]) < 0.3  # and not 0: what is masked may have no neighbour left that is right


def test_a_frozen_encoder_stays_as_it_is_while_the_head_learns():
    model = BERTForSequenceClassification(CONFIG, np.random.default_rng(2), dtype="float64")
    assert model.encoder.requires_grad_(False) is model.encoder
    before = model.state_dict()
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    model.loss(IDS, LABELS_OF[BERTForSequenceClassification]).backward()
    optimizer.step()
    for name, p in model.named_parameters():
        frozen = name.startswith("encoder.")
        assert frozen == (not p.requires_grad) == (p.grad is None)
        assert frozen == np.array_equal(host(p), before[name])
    assert not model.encoder(IDS).hidden.requires_grad
    assert model.encoder.requires_grad_().token_embedding.weight.requires_grad


def test_layers_learn_the_more_slowly_the_lower_they_are():
    model = BERTForPretraining(CONFIG, np.random.default_rng(2))
    groups = layerwise_groups(model, decay=0.5, weight_decay=0.3)
    names = {id(p): name for name, p in model.named_parameters()}
    seen = {}
    for group in groups:
        for p in group["params"]:
            assert names[id(p)] not in seen
            assert group["weight_decay"] == (0.3 if p.ndim == 2 else 0.0)
            seen[names[id(p)]] = group["lr_scale"]
    assert seen.keys() == set(names.values())
    for name, scale in seen.items():
        expected = 1.0  # heads and pooler
        if name.startswith("encoder.layers."):
            expected = {"0": 0.25, "1": 0.5}[name.split(".")[2]]
        elif name.startswith("encoder.") and "pooler" not in name:
            expected = 0.125
        assert scale == pytest.approx(expected), name
    AdamW(groups)
    with pytest.raises(ValueError, match="has no layers"):
        layerwise_groups(tt.nn.Linear(2, 3), 0.5)
    with pytest.raises(ValueError, match="decay must be"):
        layerwise_groups(model, 1.5)


def test_an_encoder_goes_on_with_another_head():
    pretrained = bert(BERTForPretraining)
    config = dataclasses.replace(CONFIG, num_labels=3)
    before = pretrained.encoder.state_dict()
    model = BERTForTokenClassification(config, encoder=pretrained.encoder)
    assert model.encoder is pretrained.encoder
    assert model.rng is pretrained.rng
    assert all(np.array_equal(host(p), before[name]) for name, p in model.encoder.named_parameters())
    assert model(IDS).shape == (B, T, 3)
    assert model.classifier.weight.dtype == np.float64
    with pytest.raises(ValueError, match="pooler=True"):
        BERTForSequenceClassification(CONFIG, encoder=BERT(CONFIG, pooler=False))
    with pytest.raises(ValueError, match="the encoder is that of"):
        BERTForMaskedLM(dataclasses.replace(CONFIG, d_ff=13), encoder=pretrained.encoder)


def test_without_a_pooler_there_is_no_pooled_output():
    model = BERT(CONFIG, pooler=False)
    assert model(IDS).pooled is None
    assert not any("pooler" in name for name in model.state_dict())


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size must be a positive integer"),
        ({"num_labels": True}, "num_labels must be a positive integer"),
        ({"type_vocab_size": 2.0}, "type_vocab_size must be a positive integer"),
        ({"num_heads": 4}, "num_heads=4 does not divide d_model=6"),
        ({"activation": "swish"}, "activation must be 'gelu' or 'gelu_tanh' or 'relu'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"layer_norm_eps": 1.0}, r"layer_norm_eps must be in \[0, 1\)"),
        ({"pad_token_id": 13}, "pad_token_id=13 is outside the vocabulary of 13"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, message):
    with pytest.raises(ValueError, match=f"BERTConfig: {message}"):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([2, 3],), ValueError, r"input_ids must have shape \(batch, T\), not \(2,\)"),
        ((np.zeros((1, LONGEST + 1), int),), ValueError, "8 tokens are more than max_positions=7"),
        ((IDS, REAL[:, :3]), ValueError, r"attention_mask of shape \(2, 3\) for ids of shape \(2, 5\)"),
        (([[V]],), IndexError, r"id 13 is outside \[0, 13\)"),
        ((IDS, None, SEGMENTS + 1), IndexError, r"id 2 is outside \[0, 2\)"),
    ],
)
def test_inputs_that_cannot_work_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        bert()(*arguments)


def test_labels_that_do_not_fit_are_refused():
    model = bert(BERTForMaskedLM)
    with pytest.raises(ValueError, match=r"labels of shape \(2, 3\) for tokens of shape \(2, 5\)"):
        model.loss(IDS, IDS[:, :3])
    with pytest.raises(IndexError, match=r"id 13 is outside"):
        model.loss(IDS, np.full_like(IDS, V))
