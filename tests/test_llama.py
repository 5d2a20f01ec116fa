"""GPT with the switches of Llama, against the equations written again in NumPy, and against wrong ones."""

import dataclasses

import numpy as np
import pytest
from test_generation import CONTEXT, PROMPTS, PositionsOffByOne, PositionsRestart, V, check_logits, rejected

import tinytransformer as tt
from tinytransformer import nn
from tinytransformer.backend import move, to_numpy
from tinytransformer.models import GPT, GPTConfig

HEADS, GROUPS, D_K = 6, 2, 4
THETA = 50.0  # so that rotations of the few positions here differ in all features


def llama(cls=GPT, seed=3, dtype="float64", **options):
    """Return a model far from its initial values."""
    sizes = {
        "d_model": HEADS * D_K,
        "num_heads": HEADS,
        "num_kv_heads": GROUPS,
        "d_ff": 17,
        "rope_theta": THETA,
    }
    config = GPTConfig.llama(V, context_length=CONTEXT, **{**sizes, **options})
    model = cls(config, np.random.default_rng(0), dtype)
    rng = np.random.default_rng(seed)
    for p in model.parameters():
        p.data[...] = move(rng.normal(1 if p.ndim == 1 else 0, 0.4, p.shape).astype(dtype), p.backend)
    return model.eval()


def tokens(*shape, seed=1):
    return np.random.default_rng(seed).integers(V, size=shape)


# --- the equations ----------------------------------------------------------------------------------------


def o_norm(x, weight, eps):
    return weight * x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)


def o_rotated(x, positions):
    """Features i and i + d/2 of (T, d) are a complex number, which turns by p / theta^(2i/d)."""
    half = x.shape[-1] // 2
    z = (x[:, :half] + 1j * x[:, half:]) * np.exp(
        1j * np.outer(positions, THETA ** (-np.arange(half) / half))
    )
    return np.concatenate([z.real, z.imag], axis=-1)


def o_llama(model, ids, positions=None):
    """Logits of one sequence (T,), head by head."""
    w = {name: p.numpy() for name, p in model.named_parameters()}
    eps, T = model.config.layer_norm_eps, len(ids)
    positions = np.arange(T) if positions is None else positions
    x = w["token_embedding.weight"][ids]
    for i in range(model.config.num_layers):
        W = {name: w[f"blocks.{i}.self_attention.W_{name}.weight"] for name in "QKVO"}
        n = o_norm(x, w[f"blocks.{i}.norm1.weight"], eps)
        heads = []
        for h in range(HEADS):
            own, shared = slice(h * D_K, (h + 1) * D_K), slice(h // 3 * D_K, (h // 3 + 1) * D_K)
            q, k = o_rotated(n @ W["Q"][:, own], positions), o_rotated(n @ W["K"][:, shared], positions)
            e = np.tril(np.exp(q @ k.T / np.sqrt(D_K)))
            heads.append(e / e.sum(-1, keepdims=True) @ n @ W["V"][:, shared])
        x = x + np.concatenate(heads, axis=-1) @ W["O"]
        n = o_norm(x, w[f"blocks.{i}.norm2.weight"], eps)
        gate, up, down = (w[f"blocks.{i}.feed_forward.{name}.weight"] for name in ("gate", "up", "down"))
        x = x + (n @ gate / (1 + np.exp(-(n @ gate))) * (n @ up)) @ down
    x = o_norm(x, w["norm.weight"], eps)
    return x @ (w["token_embedding.weight"].T if model.config.tied_head else w["head.weight"])


def check_equations(model):
    ids = tokens(2, 7)
    positions = np.array([[0, 1, 2, 3, 4, 5, 6], [3, 4, 5, 9, 10, 11, 23]])
    for given in (None, positions):
        found = model(ids, positions=given).numpy()
        for b in range(2):
            expected = o_llama(model, ids[b], None if given is None else given[b])
            np.testing.assert_allclose(found[b], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tied_head", [True, False])
def test_the_model_is_its_equations(tied_head):
    check_equations(llama(tied_head=tied_head, layer_norm_eps=0.1))
    with tt.formulas():
        check_equations(llama(tied_head=tied_head, layer_norm_eps=0.1))


def test_the_usual_switches_give_the_layers_of_gpt_2():
    """A block of the default configuration is a pre-norm encoder layer, parameter by parameter."""
    model = llama(
        positions="learned", normalization="layer", feed_forward="gelu", bias=True, num_kv_heads=HEADS
    )
    block, x = model.blocks[1], np.random.default_rng(2).normal(size=(2, 7, HEADS * D_K))
    layer = nn.TransformerEncoderLayer(
        HEADS * D_K, HEADS, 17, activation=tt.gelu_tanh, norm_first=True, dtype="float64"
    ).eval()
    layer.load_state_dict(block.state_dict())
    mask = tt.Mask.causal(7)
    np.testing.assert_array_equal(
        block(tt.Tensor(x), mask, None, None).numpy(), layer(tt.Tensor(x), mask).numpy()
    )


def neighbours(x, positions, theta):
    """The pairs of the paper: features 2i and 2i + 1."""
    order = np.concatenate([np.arange(0, x.shape[-1], 2), np.arange(1, x.shape[-1], 2)])
    return tt.rotary_positions(x[..., order], positions, theta)[..., np.argsort(order)]


WRONG_ROTATIONS = {
    "backwards": lambda x, p, theta: tt.rotary_positions(x, -np.asarray(p), theta),
    "neighbours": neighbours,
    "another base": lambda x, p, theta: tt.rotary_positions(x, p, 10000.0),
    "queries only": lambda x, p, theta: x if x.shape[1] == GROUPS else tt.rotary_positions(x, p, theta),
    "positions forgotten": lambda x, p, theta: tt.rotary_positions(x, np.arange(x.shape[2]), theta),
}


@pytest.mark.parametrize("wrong", WRONG_ROTATIONS)
def test_wrong_rotations_are_rejected(wrong, monkeypatch):
    monkeypatch.setattr(nn.attention, "rotary_positions", WRONG_ROTATIONS[wrong])
    assert rejected(check_equations, llama())


def test_shared_heads_in_another_order_are_rejected(monkeypatch):
    """Heads 0, 1, 2 share keys and values, not heads 0, 2, 4: the same shapes, other numbers."""

    def in_turn(Q, K, V, mask, bias, scale):
        return tt.general_attention(Q, tt.tile(K, (1, 3, 1, 1)), tt.tile(V, (1, 3, 1, 1)), mask, bias, scale)

    monkeypatch.setattr(nn.attention, "general_attention", in_turn)
    assert rejected(check_equations, llama())


# --- positions --------------------------------------------------------------------------------------------


def test_scores_depend_on_the_distance_alone():
    ids = tokens(2, 7)
    here, elsewhere = (llama()(ids, positions=np.arange(7) + shift).numpy() for shift in (0, 1000))
    np.testing.assert_allclose(here, elsewhere, rtol=1e-9, atol=1e-9)
    stretched = llama()(ids, positions=2 * np.arange(7)).numpy()
    assert abs(stretched - here).max(axis=(0, 2))[1:].min() > 1e-3


def test_a_rotation_keeps_the_length_and_position_0_the_direction():
    x = np.random.default_rng(5).normal(size=(2, 3, 7, 6))
    y = tt.rotary_positions(x, np.arange(7))
    np.testing.assert_allclose((y**2).sum(-1), (x**2).sum(-1))
    np.testing.assert_array_equal(y[:, :, 0], x[:, :, 0])


def test_an_odd_number_of_features_cannot_be_rotated():
    with pytest.raises(ValueError, match="must be even, not 5"):
        tt.rotary_positions(np.ones((3, 5)), np.arange(3))


# --- the cache --------------------------------------------------------------------------------------------


def check_cache(model):
    check_logits(model, PROMPTS[1:2], use_cache=True)  # leaves the context on the way


def test_cached_logits_are_those_of_one_call():
    check_cache(llama())


def test_logits_of_a_padded_and_reordered_batch_are_those_of_each_sequence_alone():
    check_logits(llama(), PROMPTS[:2], use_cache=True)
    check_logits(llama(), PROMPTS[:3], use_cache=False)


@pytest.mark.parametrize("wrong", [PositionsRestart, PositionsOffByOne])
def test_wrong_positions_of_new_tokens_are_rejected(wrong):
    assert rejected(check_cache, llama(wrong))


@pytest.mark.parametrize("chunks", [(1, 1, 5, 2), (4, 5), (8, 1)])
def test_a_prompt_may_come_in_chunks(chunks, backend):
    model, ids = llama(), tokens(2, 9)
    cache, parts, start = model.new_cache(), [], 0
    with tt.no_grad():
        for length in chunks:
            parts.append(to_numpy(model(ids[:, start : start + length], cache=cache).data))
            start += length
        whole = to_numpy(model(ids).data)
    np.testing.assert_allclose(np.concatenate(parts, axis=1), whole, rtol=1e-10, atol=1e-10)
    assert cache[0].keys.shape == cache[1].values.shape == (2, GROUPS, 9, D_K)  # not one for each query head


# --- the layer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"rope_theta": THETA}, {"scale": 0.7}, {"head_dim": 5}, {"bias": False}])
def test_all_paths_through_the_layer_agree(options):
    """Dropout of almost nothing, a cache, and positions counted by the layer itself: the same numbers."""
    options = {"bias": True, **options}
    layer = nn.MultiHeadAttention(12, 6, dropout=1e-9, num_kv_heads=2, rng=7, dtype="float64", **options)
    x, mask = np.random.default_rng(6).normal(size=(2, 7, 12)), tt.Mask.causal(7)
    bias = np.random.default_rng(7).normal(size=(1, 6, 7, 7))
    for b in (None, bias):
        dropping = layer(x, mask=mask, bias=b).numpy()
        layer.eval()
        plain = layer(x, mask=mask, bias=b).numpy()
        weights = layer.attention_weights(x, mask=mask, bias=b)
        values = tt.split_heads(layer.W_V(x), 2)
        layer.train()
        collected = tt.merge_heads(weights @ tt.repeat_heads(values, weights))
        np.testing.assert_allclose(dropping, plain, atol=1e-8)
        np.testing.assert_allclose(layer.W_O(collected).numpy(), plain, rtol=1e-10, atol=1e-12)
    cache = nn.KeyValueCache()
    with tt.no_grad():
        layer.eval()
        parts = [layer(x[:, s], cache=cache).numpy() for s in (slice(0, 3), slice(3, 4), slice(4, 7))]
        expected = layer(x, mask=mask).numpy()
    np.testing.assert_allclose(np.concatenate(parts, axis=1), expected, rtol=1e-10, atol=1e-12)


def test_the_gated_layer_uses_its_biases_and_its_activation():
    layer, x = (
        nn.GatedFeedForward(5, 7, tt.tanh, bias=True, rng=8, dtype="float64"),
        np.arange(15.0).reshape(3, 5),
    )
    gate, up, down = ([m.weight.numpy(), m.bias.numpy()] for m in (layer.gate, layer.up, layer.down))
    inner = np.tanh(x @ gate[0] + gate[1]) * (x @ up[0] + up[1])
    np.testing.assert_allclose(layer(x).numpy(), inner @ down[0] + down[1], rtol=1e-12)


def test_the_last_matrix_of_each_branch_starts_smaller():
    model = GPT(GPTConfig.llama(V, d_model=96, num_layers=8), np.random.default_rng(0))
    for name, p in model.blocks[3].named_parameters():
        if p.ndim == 2:
            expected = 0.02 / 4 if name.endswith(("W_O.weight", "down.weight")) else 0.02
            assert p.numpy().std() == pytest.approx(expected, rel=0.1), name


def test_heads_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="6 heads do not divide into 4 groups"):
        nn.MultiHeadAttention(12, 6, num_kv_heads=4)
    with pytest.raises(ValueError, match="6 heads of queries do not divide into 4 groups"):
        tt.general_attention(np.ones((2, 6, 5, 3)), np.ones((2, 4, 5, 3)), np.ones((2, 4, 5, 3)))


# --- the configuration ------------------------------------------------------------------------------------


def test_a_configuration_saved_before_there_were_switches_still_loads():
    before = {
        "vocab_size": V,
        "context_length": 7,
        "d_model": 12,
        "num_layers": 1,
        "num_heads": 3,
        "d_ff": 17,
    }
    before |= {"dropout": 0.0, "positions": "learned", "tied_head": True, "layer_norm_eps": 1e-5}
    config = GPTConfig(**before)
    assert config.num_parameters == GPT(config).num_parameters()
    assert {name: getattr(config, name) for name in before} == before
    assert GPT(config).blocks[0].self_attention.W_K.bias is not None


def test_what_is_said_goes_before_what_llama_has():
    config = GPTConfig.llama(V, num_heads=2, d_model=8, bias=True, positions="sinusoidal")
    assert (config.bias, config.positions, config.normalization) == (True, "sinusoidal", "rms")
    assert GPTConfig(**dataclasses.asdict(config)) == config
