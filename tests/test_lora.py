"""LoRA: nothing changes at first, only the corrections are trained, and merging keeps what was learned."""

import collections
import copy

import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer import nn
from tinytransformer.backend import move, to_numpy
from tinytransformer.models import GPT, GPTConfig
from tinytransformer.nn import lora

V = 13
TARGETS = ["W_Q", "W_V", "up", "blocks.1.*.W_O"]
PATHS = [f"blocks.{i}.{name}" for i in range(2) for name in ("self_attention.W_Q", "self_attention.W_V")]
PATHS = [
    *PATHS[:2],
    "blocks.0.feed_forward.up",
    *PATHS[2:],
    "blocks.1.self_attention.W_O",
    "blocks.1.feed_forward.up",
]


def llama(seed=0, dtype="float64"):
    sizes = {"context_length": 11, "d_model": 12, "num_heads": 6, "num_kv_heads": 2, "d_ff": 17}
    model = GPT(GPTConfig.llama(V, **sizes), np.random.default_rng(seed), dtype)
    rng = np.random.default_rng(seed + 50)
    for p in model.parameters():
        p.data += move(rng.normal(0, 0.3, p.shape).astype(dtype), p.backend)
    return model


def tokens(*shape, seed=1):
    return np.random.default_rng(seed).integers(V, size=shape)


def logits(model):
    with tt.no_grad():
        return to_numpy(model(tokens(2, 7)).data)


def trained(model, steps=7):
    optimizer = tt.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.3)
    for _ in range(steps):
        optimizer.zero_grad()
        model.loss(tokens(2, 7), tokens(2, 7, seed=2)).backward()
        optimizer.step()
    return model


def corrected(**options):
    model = llama(**options)
    lora.add(model, rank=3, alpha=5.0, targets=TARGETS, rng=4)
    return model


def test_nothing_changes_at_first(backend):
    model = llama()
    before = logits(model)
    assert sorted(lora.add(model, rank=3, alpha=5.0, targets=TARGETS, rng=4)) == sorted(PATHS)
    np.testing.assert_array_equal(logits(model), before)
    assert {p.backend for p in model.parameters()} == {model.norm.weight.backend}


def test_a_corrected_linear_is_its_equation(backend):
    rng = np.random.default_rng(6)
    for bias in (True, False):
        base = nn.Linear(5, 7, bias, dtype="float64")
        layer = lora.LoRALinear(base, rank=3, alpha=2.0)
        for p in layer.parameters():
            p.data[...] = move(rng.normal(size=p.shape), p.backend)
        W, A, B = (to_numpy(p.data) for p in (base.weight, layer.A, layer.B))
        b = to_numpy(base.bias.data) if bias else 0.0
        x = rng.normal(size=(2, 11, 5))
        expected = x @ W + b + x @ A @ B * 2 / 3
        given = tt.Tensor(move(x, base.weight.backend))
        np.testing.assert_allclose(to_numpy(layer(given).data), expected, rtol=1e-12)
        by_weight = tt.linear(given, layer.weight, layer.bias)  # as a formula sees it
        np.testing.assert_allclose(to_numpy(by_weight.data), expected, rtol=1e-12)


def test_only_the_corrections_are_trained():
    model = corrected()
    before = {name: p.numpy().copy() for name, p in model.named_parameters()}
    trained(model)
    changed = {name for name, p in model.named_parameters() if (p.numpy() != before[name]).any()}
    assert changed == {f"{path}.{name}" for path in PATHS for name in "AB"}
    assert all((p.grad is not None) == (name in changed) for name, p in model.named_parameters())


def test_training_a_correction_lowers_the_loss():
    model = corrected()
    before = float(model.loss(tokens(2, 7), tokens(2, 7, seed=2)))
    assert float(trained(model, 20).loss(tokens(2, 7), tokens(2, 7, seed=2))) < 0.7 * before


def test_merging_keeps_what_was_learned_and_gives_the_model_back(backend):
    model = corrected()
    names = [name for name, _ in llama().named_parameters()]
    trained(model)
    before = logits(model)
    lora.merge(model)
    np.testing.assert_allclose(logits(model), before, rtol=1e-10, atol=1e-10)
    assert [name for name, _ in model.named_parameters()] == names
    assert all(p.requires_grad for p in model.parameters())
    fresh = llama(seed=9)
    fresh.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(logits(fresh), logits(model))
    trained(model, 1)
    assert abs(logits(model) - before).max() > 1e-3


@pytest.mark.parametrize("change", [lora.merge, lambda m: lora.load_state_dict(m, lora.state_dict(m))])
def test_a_graph_from_before_a_change_is_refused(change):
    model = corrected()
    loss = model.loss(tokens(2, 7), tokens(2, 7, seed=2))
    change(model)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


def test_the_corrections_are_saved_alone_and_loaded_into_the_same_model(tmp_path):
    model = trained(corrected())
    state = lora.state_dict(model)
    assert list(state) == [f"{path}.{name}" for path in lora_paths(model) for name in "AB"]
    assert sum(a.size for a in state.values()) < 0.8 * llama().num_parameters()
    again = corrected()
    lora.load_state_dict(again, state)
    np.testing.assert_array_equal(logits(again), logits(model))
    state["blocks.0.self_attention.W_Q.B"][...] = 7  # copies: the model is not touched
    np.testing.assert_array_equal(logits(again), logits(model))
    lora.save(model, tmp_path / "correction.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["correction.safetensors"]
    third = llama()
    assert lora.load(third, tmp_path / "correction.safetensors") == lora_paths(model)
    np.testing.assert_array_equal(logits(third), logits(model))
    trained(third, 1)
    base = third.blocks[0].self_attention.W_Q.base.weight
    np.testing.assert_array_equal(base.numpy(), llama().blocks[0].self_attention.W_Q.weight.numpy())


def lora_paths(model):
    return [name for name, module in model.named_modules() if isinstance(module, lora.LoRALinear)]


def test_dtypes_are_kept():
    model = trained(corrected(dtype="float32"))
    assert {p.dtype for p in model.parameters()} == {np.dtype("float32")}
    assert logits(model).dtype == np.float32


def test_every_place_a_linear_can_be_held_in():
    Pair = collections.namedtuple("Pair", "first second")

    class Holder(nn.Module):
        def __init__(self):
            self.one = nn.Linear(3, 3, rng=0)
            self.several = [nn.Linear(3, 3, rng=1), (nn.Linear(3, 3, rng=2), 5)]
            self.named = {"x": nn.Linear(3, 3, rng=3)}
            self.pair = Pair(nn.Linear(3, 3, rng=4), "text")
            self.modules_ = nn.Sequential(nn.Linear(3, 3, rng=5), tt.relu)
            self.again = self.one

        def forward(self, x):
            for layer in (self.one, self.several[0], self.several[1][0], self.named["x"], self.pair.first):
                x = layer(x)
            return self.again(self.modules_(x))

    holder, x = Holder(), tt.tensor(np.random.default_rng(0).normal(size=(5, 3)))
    before = copy.deepcopy(holder)
    assert len(lora.add(holder, rank=2, alpha=1.0, targets="*")) == 6
    assert holder.one is holder.again  # tied they were, and tied they are
    assert type(holder.pair) is Pair
    np.testing.assert_array_equal(holder(x).numpy(), before(x).numpy())
    holder(x).sum().backward()
    assert sum(p.grad is not None for p in holder.parameters()) == 12
    lora.merge(holder)
    assert holder.one is holder.again
    assert list(holder.state_dict()) == list(before.state_dict())
    np.testing.assert_array_equal(holder(x).numpy(), before(x).numpy())


def test_a_model_with_a_correction_can_be_copied_and_moved():
    model = trained(corrected())
    again = copy.deepcopy(model).to(dtype="float32")
    np.testing.assert_allclose(logits(again), logits(model), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m, path: lora.add(m, 0, 1.0), "rank must be a positive integer, not 0"),
        (
            lambda m, path: lora.add(m, 2, 1.0, ["W_Q", "query"]),
            "no Linear is named 'query'; there are W_K, W_O",
        ),
        (lambda m, path: lora.add(corrected(), 2, 1.0), r"already: merge\(model\) first"),
        (lambda m, path: lora.merge(m), "no corrections: lora.add"),
        (lambda m, path: lora.state_dict(m), "no corrections: lora.add"),
        (lambda m, path: lora.save(m, path), "no corrections: lora.add"),
        (lambda m, path: lora.load(m, written(path, b"abc")), "damaged"),
        (
            lambda m, path: lora.load_state_dict(corrected(), {"x": np.ones(3)}),
            "missing .*W_Q.A.*; unexpected x",
        ),
    ],
)
def test_mistakes_are_refused(call, message, tmp_path):
    model = llama()
    before = model.state_dict()
    with pytest.raises(ValueError, match=message):
        call(model, tmp_path / "file")
    assert list(model.state_dict()) == list(before)
    assert all(p.requires_grad for p in model.parameters())


def written(path, data):
    path.write_bytes(data)
    return path


def test_a_correction_of_another_model_is_refused_and_leaves_no_trace(tmp_path):
    from safetensors.numpy import save_file

    small = nn.MultiHeadAttention(6, 3)
    lora.add(small, 2, 1.0)
    lora.save(small, tmp_path / "small")
    large = nn.MultiHeadAttention(9, 3)
    before = large.state_dict()
    with pytest.raises(ValueError, match=r"W_Q.A has shape \(6, 2\) instead of \(9, 2\)"):
        lora.load(large, tmp_path / "small")
    assert all((large.state_dict()[name] == a).all() for name, a in before.items())
    with pytest.raises(ValueError, match="no Linear is named 'W_Q'"):
        lora.load(nn.FeedForward(6, 9), tmp_path / "small")
    save_file({"W_Q.A": np.ones((6, 2))}, tmp_path / "other")
    with pytest.raises(ValueError, match=r"was not written by lora\.save"):
        lora.load(large, tmp_path / "other")
