"""GPT: causal, the same in a batch as alone and with a cache as without, and its gradients are right."""

import dataclasses
import gc
import math
import tracemalloc

import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer.backend import move, to_numpy
from tinytransformer.models import GPT, GPTConfig
from tinytransformer.optim import AdamW

CONFIG = GPTConfig(vocab_size=13, context_length=11, d_model=6, num_layers=2, num_heads=3, d_ff=17)
VARIANTS = {
    "learned, tied": {},
    "sinusoidal, untied": {"positions": "sinusoidal", "tied_head": False},
    "as Llama": {
        "positions": "rotary",
        "normalization": "rms",
        "feed_forward": "swiglu",
        "bias": False,
        "num_kv_heads": 1,
    },
}


@pytest.fixture(params=VARIANTS)
def config(request):
    return dataclasses.replace(CONFIG, **VARIANTS[request.param])


def perturbed(config, dtype="float64", seed=0):
    """A model with parameters of size 1: at its first values attention is uniform and hides mistakes."""
    rng = np.random.default_rng(seed)
    model = GPT(config, rng, dtype)
    for p in model.parameters():
        drawn = rng.normal(0, 0.5, p.shape).astype(p.dtype)
        p.data += move(drawn, p.backend)
    return model


def tokens(*shape, seed=1, size=13):
    return np.random.default_rng(seed).integers(size, size=shape)


def logits(model, *args, **kwargs):
    with tt.no_grad():
        return to_numpy(model(*args, **kwargs).data)


# --- at the start ---


@pytest.mark.parametrize("vocab_size", [65, 512, 10007])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("tied_head", [True, False])
def test_the_loss_at_the_start_is_that_of_guessing(vocab_size, positions, tied_head):
    model = GPT(
        GPTConfig(vocab_size, 31, 128, 2, 4, positions=positions, tied_head=tied_head),
        np.random.default_rng(3),
    )
    ids = tokens(5, 32, size=vocab_size)
    loss = model.loss(ids[:, :-1], ids[:, 1:]).item()
    assert loss == pytest.approx(math.log(vocab_size), rel=0.05)
    repeated = np.full((2, 31), 7)  # tied, the token itself looks likely: that must not be too much
    assert model.loss(repeated, repeated).item() > 0.5 * math.log(vocab_size)


@pytest.mark.parametrize("feed_forward", ["gelu", "swiglu"])
def test_the_first_values_are_those_of_gpt_2(feed_forward):
    model = GPT(GPTConfig(211, 31, 96, 5, 4, feed_forward=feed_forward), np.random.default_rng(3))
    for name, p in model.named_parameters():
        if "norm" in name:
            assert (p.numpy() == ("weight" in name)).all(), name
        elif name.endswith("bias"):
            assert (p.numpy() == 0).all(), name
        else:
            last = name.endswith(("W_O.weight", "linear2.weight", "down.weight"))
            expected = 0.02 / math.sqrt(10) if last else 0.02
            assert p.numpy().std() == pytest.approx(expected, rel=0.05), name
            assert abs(p.numpy().mean()) < 0.1 * expected, name


@pytest.mark.parametrize("tied_head", [True, False])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_configuration_knows_how_many_parameters_there_are(config, tied_head, num_layers):
    config = dataclasses.replace(config, tied_head=tied_head, num_layers=num_layers)
    assert (
        config.num_parameters == GPT(config).num_parameters() == sum(p.size for p in GPT(config).parameters())
    )


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"vocab_size": 0}, "vocab_size must be .*, not 0"),
        ({"num_layers": True}, "num_layers must be .*, not True"),
        ({"d_model": 6.0}, "d_model must be .*, not 6.0"),
        ({"d_ff": -1}, "d_ff must be .*, not -1"),
        ({"num_heads": 4}, "num_heads=4 does not divide d_model=6"),
        ({"num_kv_heads": 2}, "num_kv_heads=2 does not divide num_heads=3"),
        ({"positions": "random"}, "positions must be .*'sinusoidal'.*, not 'random'"),
        ({"normalization": None}, "normalization must be .*'rms'.*, not None"),
        (
            {"positions": "sinusoidal", "d_model": 9},
            "sinusoidal positions need an even number of features, not 9",
        ),
        ({"positions": "rotary", "d_model": 9}, "rotary positions need an even number of features, not 3"),
        ({"tied_head": "yes"}, "tied_head must be True or False, not 'yes'"),
        ({"dropout": 1}, "dropout must be .*, not 1"),
        ({"dropout": math.nan}, "dropout must be .*, not nan"),
        ({"dropout": "0.1"}, "dropout must be .*, not '0.1'"),
        ({"layer_norm_eps": -1e-5}, "layer_norm_eps must be .*, not -1e-05"),
        ({"rope_theta": math.inf}, "rope_theta must be .*, not inf"),
    ],
)
def test_configurations_that_cannot_be(change, match):
    with pytest.raises(ValueError, match=match):
        dataclasses.replace(CONFIG, **change)


# --- what sees what ---


def test_logits_have_a_row_for_each_token(backend, config):
    model = GPT(config)
    y = model(tokens(2, 5))
    assert y.shape == (2, 5, 13)
    assert y.dtype == "float32"
    assert y.backend == backend


def test_no_token_sees_a_later_one(backend, config):
    model = perturbed(config)
    ids = tokens(2, 7)
    before = logits(model, ids)
    for t in range(7):
        changed = ids.copy()
        changed[:, t:] = (changed[:, t:] + 1 + np.arange(7 - t)) % 13
        after = logits(model, changed)
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert (after[:, t] != before[:, t]).any(axis=-1).all()


def test_every_earlier_token_matters(config):
    """Or a model that sees nothing would pass for one that looks ahead nowhere."""
    model = perturbed(config)
    ids = tokens(2, 7)
    before = logits(model, ids)
    for t in range(7):
        changed = ids.copy()
        changed[:, t] = (changed[:, t] + 1) % 13
        assert (logits(model, changed)[:, -1] != before[:, -1]).any(axis=-1).all()


def test_the_order_of_earlier_tokens_matters(config):
    model = perturbed(config)
    ids = np.array([[3, 5, 7, 2, 11]])
    assert abs(logits(model, ids)[0, -1] - logits(model, ids[:, [1, 0, 2, 3, 4]])[0, -1]).max() > 1e-3


def test_a_batch_gives_what_each_sequence_gives_alone(backend, config):
    model = perturbed(config)
    ids = tokens(3, 5)
    for row, alone in zip(logits(model, ids), ids, strict=True):
        np.testing.assert_allclose(row, logits(model, alone[None])[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", [bool, int, float])
def test_padding_on_the_right_changes_nothing(backend, config, kind):
    model = perturbed(config)
    ids, lengths = tokens(3, 7), [7, 2, 5]
    mask = np.arange(7) < np.array(lengths)[:, None]
    padded = logits(model, np.where(mask, ids, 12), mask.astype(kind))
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(
            padded[row, :n], logits(model, ids[row, None, :n])[0], rtol=1e-10, atol=1e-12
        )
    assert np.isfinite(padded).all()


def test_padding_on_the_left_changes_nothing_with_positions(backend, config):
    """As generation pads prompts; the first columns of a row see nothing at all, and must not be NaN."""
    model = perturbed(config)
    ids, lengths = tokens(3, 7), np.array([7, 2, 5])
    real = np.arange(7) >= 7 - lengths[:, None]
    positions = np.maximum(np.arange(7) - (7 - lengths[:, None]), 0)
    padded = logits(model, np.where(real, ids, 12), real, positions)
    assert np.isfinite(padded).all()
    for row, n in enumerate(lengths):
        alone = logits(model, ids[row, None, 7 - n :])[0]
        np.testing.assert_allclose(padded[row, 7 - n :], alone, rtol=1e-10, atol=1e-12)


def test_a_mask_may_be_a_list(config):
    model = perturbed(config)
    ids = tokens(2, 3)
    mask = [[1, 1, 0], [1, 1, 1]]
    np.testing.assert_array_equal(logits(model, ids.tolist(), mask), logits(model, ids, np.array(mask)))


@pytest.mark.parametrize("cut", [[7], [1] * 7, [2, 1, 4], [4, 3]])
def test_a_cache_changes_nothing(backend, config, cut):
    model = perturbed(config)
    ids = tokens(2, 7)
    cache, parts, start = model.new_cache(), [], 0
    for length in cut:
        parts.append(logits(model, ids[:, start : start + length], cache=cache))
        start += length
    np.testing.assert_allclose(np.concatenate(parts, axis=1), logits(model, ids), rtol=1e-10, atol=1e-12)
    assert [layer.length for layer in cache] == [7, 7]


def test_the_logits_of_the_last_position_alone(backend, config):
    model, ids = perturbed(config), tokens(2, 7)
    cache = model.new_cache()
    first = logits(model, ids[:, :4], cache=cache, last_only=True)
    second = logits(model, ids[:, 4:], cache=cache, last_only=True)
    assert first.shape == second.shape == (2, 1, config.vocab_size)
    both = np.concatenate([first, second], axis=1)
    np.testing.assert_allclose(both, logits(model, ids)[:, [3, 6]], rtol=1e-10, atol=1e-12)


def test_a_cache_with_a_mask_and_positions_changes_nothing(backend, config):
    model = perturbed(config)
    ids, lengths = tokens(3, 7), np.array([7, 2, 5])
    real = np.arange(7) >= 7 - lengths[:, None]
    positions = np.maximum(np.arange(7) - (7 - lengths[:, None]), 0)
    whole = logits(model, ids, real, positions)
    cache = model.new_cache()
    first = logits(model, ids[:, :4], real[:, :4], positions[:, :4], cache)
    second = logits(model, ids[:, 4:], real, positions[:, 4:], cache)
    both = np.concatenate([first, second], axis=1)
    for row, n in enumerate(lengths):
        np.testing.assert_allclose(both[row, 7 - n :], whole[row, 7 - n :], rtol=1e-10, atol=1e-12)


def test_default_positions_count_from_zero_and_from_the_end_of_the_cache(config):
    model = perturbed(config)
    ids = tokens(2, 5)
    whole = logits(model, ids)
    np.testing.assert_array_equal(logits(model, ids, positions=np.tile(np.arange(5), (2, 1))), whole)
    np.testing.assert_array_equal(logits(model, ids, positions=np.arange(5)), whole)
    moved = logits(model, ids, positions=np.arange(1, 6))
    if config.positions == "rotary":  # the distance between two tokens is all that matters
        np.testing.assert_allclose(moved, whole, rtol=1e-10, atol=1e-12)
        moved = logits(model, ids, positions=3 * np.arange(5))
    assert abs(moved - whole).max() > 1e-3


def test_arrays_may_lie_elsewhere_than_the_default_backend(config):
    """A model on a GPU, with ids and masks from the host, while the host is the default; and the reverse."""
    model = perturbed(config)
    ids, mask = tokens(2, 5), np.arange(5) < np.array([[5], [3]])
    whole = logits(model, ids, mask)
    model.to("fake")
    np.testing.assert_allclose(logits(model, ids, mask, np.arange(5)), whole, rtol=1e-12)
    with tt.use_backend("fake"):
        there = [move(array, "fake") for array in (ids, mask)]
        np.testing.assert_allclose(logits(model, *there), whole, rtol=1e-12)
        model.to("numpy")
        np.testing.assert_allclose(logits(model, ids, mask), whole, rtol=1e-12)


# --- mistakes ---


def test_too_many_tokens_are_refused(config):
    model = GPT(config)
    match = "12 tokens are more than the context length 11; keep only the last ones, or train with a longer"
    with pytest.raises(ValueError, match=match):
        model(tokens(2, 12))
    cache = model.new_cache()
    with tt.no_grad():
        model(tokens(2, 9), cache=cache)
        with pytest.raises(ValueError, match=match):
            model(tokens(2, 3), cache=cache)
        model(tokens(2, 2), cache=cache)


@pytest.mark.parametrize("bad", [13, -1])
def test_ids_outside_the_vocabulary_are_refused(config, bad):
    ids = tokens(2, 5)
    ids[1, 3] = bad
    with pytest.raises(IndexError, match=rf"id {bad} is outside \[0, 13\)"):
        GPT(config)(ids)
    with pytest.raises(IndexError, match=rf"id {bad} is outside \[0, 13\)"):
        GPT(config).loss(tokens(2, 5), ids)


def test_ids_of_another_shape_or_kind_are_refused(config):
    for shape in ((5,), (2, 5, 3), ()):
        with pytest.raises(ValueError, match=r"input_ids must have shape \(batch, T\), not"):
            GPT(config)(tokens(*shape))
    with pytest.raises(TypeError, match="ids must be integers, not float64"):
        GPT(config)(np.ones((2, 5)))
    with pytest.raises(ValueError, match=r"targets of shape \(2, 4\) for logits of shape \(2, 5, 13\)"):
        GPT(config).loss(tokens(2, 5), tokens(2, 4))


# --- training ---


def test_dropout_only_while_training(config):
    model = GPT(dataclasses.replace(config, dropout=0.4), np.random.default_rng(0))
    ids = tokens(2, 5)
    assert (logits(model, ids) != logits(model, ids)).any()
    model.eval()
    np.testing.assert_array_equal(logits(model, ids), logits(model, ids))
    state = model.rng.bit_generator.state
    logits(model, ids)
    assert model.rng.bit_generator.state == state
    plain = GPT(config)
    plain.load_state_dict(model.state_dict())
    np.testing.assert_allclose(logits(plain, ids), logits(model, ids), rtol=1e-5, atol=1e-6)


def without_blocks(model):
    """Let each block add nothing, so that what comes in at the bottom goes out at the top."""
    for name, p in model.named_parameters():
        if any(part in name for part in ("W_O", "linear2", "down")):
            p.data[...] = 0
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_goes_in_and_what_comes_out(config, dtype):
    """Embedding, position and head by hand, with blocks that add nothing."""
    model = without_blocks(perturbed(config, dtype))
    state = model.state_dict()
    ids = tokens(2, 5)
    x = state["token_embedding.weight"][ids].astype(float)
    if config.positions == "learned":
        x = x + state["position_embedding.weight"][:5]
    elif config.positions == "sinusoidal":
        angle = np.arange(5)[:, None] / 10000 ** (np.arange(0, 6, 2) / 6)
        x = math.sqrt(6) * x + np.stack([np.sin(angle), np.cos(angle)], axis=-1).reshape(5, 6)
    if config.normalization == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.layer_norm_eps) * state["norm.weight"]
    x = x + state.get("norm.bias", 0)
    expected = x @ (state["token_embedding.weight"].T if config.tied_head else state["head.weight"])
    y = logits(model, ids)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, expected, rtol=1e-4 if dtype == "float32" else 1e-10, atol=1e-5)


def test_embeddings_and_both_branches_are_dropped_from():
    """Each alone: with all other dropout switched off the numbers still vary."""
    ids = tokens(2, 5)
    for place in ("dropout", "blocks.1.dropout", "blocks.0.self_attention.dropout"):
        model = perturbed(CONFIG)
        dropouts = dict(model.named_modules())
        dropouts[place].p = 0.4
        assert (logits(model, ids) != logits(model, ids)).any(), place


def test_all_dropout_comes_from_one_generator():
    model = GPT(dataclasses.replace(CONFIG, dropout=0.4), np.random.default_rng(0))
    assert {id(m.rng) for m in model.modules() if isinstance(m, tt.nn.Dropout)} == {id(model.rng)}


@pytest.mark.parametrize("tied_head", [True, False])
def test_tied_weights_are_one_and_stay_one(tied_head):
    model = perturbed(dataclasses.replace(CONFIG, tied_head=tied_head))
    names = [name for name, _ in model.named_parameters()]
    assert ("head.weight" in names) == (not tied_head)
    optimizer = AdamW(model.parameters(), lr=0.1)
    ids = tokens(3, 6)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
    # x E^T by hand, from the state that would be saved
    state = model.state_dict()
    again = GPT(model.config, dtype="float64")
    again.load_state_dict(state)
    x = []
    forward = again.norm.forward
    again.norm.forward = lambda h: (x.append(forward(h)), x[-1])[1]
    y = logits(again, ids)
    matrix = state["token_embedding.weight"].T if tied_head else state["head.weight"]
    np.testing.assert_allclose(y, to_numpy(x[0].data) @ matrix, rtol=1e-10)
    np.testing.assert_allclose(y, logits(model, ids), rtol=1e-10)


def test_both_uses_of_a_tied_matrix_add_to_its_gradient():
    """A token that is never read has a gradient from the output alone, one never right from both."""
    model = perturbed(CONFIG)
    untied = perturbed(dataclasses.replace(CONFIG, tied_head=False))
    state = model.state_dict()
    untied.load_state_dict({**state, "head.weight": state["token_embedding.weight"].T})
    ids = tokens(3, 6)
    for m in (model, untied):
        m.loss(ids[:, :-1], ids[:, 1:]).backward()
    np.testing.assert_allclose(
        model.token_embedding.weight.grad.numpy(),
        untied.token_embedding.weight.grad.numpy() + untied.head.weight.grad.numpy().T,
        rtol=1e-10,
        atol=1e-14,
    )


def test_one_batch_is_learned_by_heart():
    model = GPT(dataclasses.replace(CONFIG, d_model=24, d_ff=48), np.random.default_rng(0))
    ids = np.array([[1, 5, 2, 8, 3, 12], [4, 4, 7, 0, 9, 6]])
    optimizer = AdamW(model.parameters(), lr=0.02, weight_decay=0.0)
    for _ in range(80):
        optimizer.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02
    np.testing.assert_array_equal(logits(model, ids[:, :-1]).argmax(-1), ids[:, 1:])


def test_targets_that_do_not_count(config):
    model = perturbed(config)
    ids, targets = tokens(2, 5), tokens(2, 5, seed=2)
    targets[0, 3:] = -100
    p = np.exp(logits(model, ids))
    p /= p.sum(-1, keepdims=True)
    losses = [-math.log(p[b, t, targets[b, t]]) for b in range(2) for t in range(5) if targets[b, t] >= 0]
    assert len(losses) == 8
    assert model.loss(ids, targets).item() == pytest.approx(np.mean(losses), rel=1e-10)


# --- gradients ---


def as_function(model, ids, targets):
    """The loss as a function of all parameters."""
    parameters = list(model.parameters())

    def loss(*values):
        owners = [
            (m, k) for m in model.modules() for k, v in vars(m).items() if isinstance(v, tt.nn.Parameter)
        ]
        places = {id(getattr(m, k)): [] for m, k in owners}
        for m, k in owners:
            places[id(getattr(m, k))].append((m, k))
        try:
            for p, value in zip(parameters, values, strict=True):
                for m, k in places[id(p)]:
                    setattr(m, k, value)
            return model.loss(ids, targets)
        finally:
            for p in parameters:
                for m, k in places[id(p)]:
                    setattr(m, k, p)

    return loss, [p.numpy().copy() for p in parameters]


@pytest.mark.parametrize("written_out", [False, True])
def test_the_gradients_of_the_whole_model(config, written_out):
    model = perturbed(
        dataclasses.replace(config, num_layers=1, d_model=6, d_ff=5, vocab_size=7, context_length=5)
    )
    ids, targets = tokens(2, 5, size=7), tokens(2, 5, size=7, seed=2)
    loss, values = as_function(model, ids, targets)
    if written_out:
        with tt.formulas():
            tt.gradcheck(loss, values)
    else:
        tt.gradcheck(loss, values)


def test_kernels_and_formulas_agree_on_the_whole_model(backend, config):
    model = perturbed(config)
    ids, targets = tokens(3, 7), tokens(3, 7, seed=2)
    mask = np.arange(7) < np.array([7, 2, 5])[:, None]
    found = []
    for switch in (tt.formulas(), tt.use_backend(backend)):
        model.zero_grad()
        with switch:
            y = model(ids, mask)
            loss = tt.cross_entropy(y, np.where(mask, targets, -100))
            loss.backward()
        found.append([to_numpy(y.data), *(to_numpy(p.grad.data) for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


def test_kernels_are_used_and_formulas_are_not_when_switched_off():
    model = GPT(CONFIG)

    def operations(y):
        names, seen, todo = set(), set(), [y]
        while todo:
            t = todo.pop()
            if id(t) in seen or t.node is None:
                continue
            seen.add(id(t))
            names.add(repr(t.node.operation))
            todo += t.node.parents
        return names

    fused = operations(model(tokens(2, 5)))
    with tt.formulas():
        written = operations(model(tokens(2, 5)))
    assert any("kernel" in name for name in fused)
    assert not any("kernel" in name for name in written)


def test_gradients_keep_the_dtype_of_the_parameters(config):
    for dtype in ("float32", "float64"):
        model = GPT(config, dtype=dtype)
        loss = model.loss(tokens(2, 5), tokens(2, 5, seed=2))
        assert loss.dtype == dtype
        loss.backward()
        assert {str(p.grad.dtype) for p in model.parameters()} == {dtype}


def test_no_memory_is_kept_from_step_to_step():
    """Without the garbage collector: the graph of a step must leave no cycles behind."""
    model = GPT(CONFIG)
    optimizer = AdamW(model.parameters(), lr=1e-3)
    ids = tokens(5, 8)

    def steps(n):
        for _ in range(n):
            optimizer.zero_grad()
            model.loss(ids[:, :-1], ids[:, 1:]).backward()
            optimizer.step()
        return tracemalloc.get_traced_memory()[0]

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        first = steps(20)
        assert steps(60) - first < 20_000  # bytes; the graph of one step is several hundred thousand
    finally:
        tracemalloc.stop()
        gc.enable()
