"""Gradient checkpointing: the same gradients from less memory."""

import copy
import gc
import tracemalloc

import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer.nn import Dropout, Linear, Module, ModuleList, Sequential, gradient_checkpointing

CONFIG = tt.models.GPTConfig(
    vocab_size=11, context_length=7, d_model=6, num_layers=3, num_heads=3, dropout=0.2
)
IDS = np.random.default_rng(0).integers(0, 11, (2, 8))


class Feeding(Module):
    """A Module in a Module, with dropout in between."""

    def __init__(self, p=0.0, dtype="float64"):
        self.inner = Sequential(
            Linear(5, 7, rng=1, dtype=dtype), Dropout(p, rng=2), tt.tanh, Linear(7, 5, rng=3, dtype=dtype)
        )

    def forward(self, x, scale=1.0):
        return x + self.inner(x) * scale


def gradients(function, block, x, **kwargs):
    """Loss, gradient of x, and those of the parameters."""
    x = tt.tensor(x, requires_grad=True)
    block.zero_grad()
    h = x * 2.0
    y = function(block, h, **kwargs)
    loss = (y * y).sum()
    loss.backward()
    return [loss.data, x.grad.data, *(p.grad.data for p in block.parameters())]


def plainly(block, *args, **kwargs):
    return block(*args, **kwargs)


def equal(found, expected):
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("p", [0.0, 0.4])
@pytest.mark.parametrize("kernels", [True, False])
def test_gradients_are_the_same_bit_for_bit(p, kernels):
    x = np.random.default_rng(4).normal(size=(2, 3, 5))

    def run(function):
        block = Feeding(p)
        twice = [gradients(function, block, x, scale=0.7) for _ in range(2)]  # the generator goes on as well
        return twice[0] + twice[1]

    expected = run(plainly)
    assert equal(run(tt.checkpoint), expected)
    if not kernels:

        def forward_in_formulas(block, *args, **kwargs):
            with tt.formulas():
                return tt.checkpoint(block, *args, **kwargs)

        def plainly_in_formulas(block, *args, **kwargs):
            with tt.formulas():
                return block(*args, **kwargs)

        assert equal(run(forward_in_formulas), run(plainly_in_formulas))


@pytest.mark.parametrize("form", ["module", "method", "closure"])
def test_random_numbers_are_found_where_they_are_drawn(form):
    block = Feeding(0.5)
    calls = {"module": block, "method": block.forward, "closure": lambda x: block(x)}
    x = np.random.default_rng(5).normal(size=(2, 3, 5))
    expected = gradients(plainly, copy.deepcopy(block), x)

    assert equal(gradients(lambda _, x: tt.checkpoint(calls[form], x), block, x), expected)
    fresh = Feeding(0.5)
    assert equal(
        gradients(lambda b, x: tt.checkpoint(_drawing, x, fresh.inner[1].rng, b), fresh, x), expected
    )


def _drawing(x, rng, block):
    return block(x)


def test_a_block_whose_second_run_differs_is_refused():
    rng = np.random.default_rng(6)
    hidden = {"rng": rng}  # not where it could be found
    x = tt.ones((3, 5), requires_grad=True)
    y = tt.checkpoint(lambda x: x * hidden["rng"].normal(size=(3, 5)).astype("float32"), x)
    with pytest.raises(RuntimeError, match="returned other values the second time"):
        y.sum().backward()


def test_what_the_block_reaches_beside_its_arguments_gets_its_gradient():
    x, w = (tt.tensor(a, requires_grad=True) for a in np.random.default_rng(7).normal(size=(2, 3, 5)))
    h = tt.exp(w)  # inside the graph, and only in the closure
    (tt.checkpoint(lambda x: x * h * h, x) + h).sum().backward()
    np.testing.assert_allclose(w.grad.data, np.exp(w.data) + 2 * x.data * np.exp(2 * w.data), rtol=1e-12)
    np.testing.assert_allclose(x.grad.data, np.exp(2 * w.data), rtol=1e-12)


def test_an_input_made_from_another_is_counted_once():
    x = tt.tensor([0.5, -0.3], dtype="float64", requires_grad=True)
    h = tt.exp(x)
    tt.checkpoint(lambda a, b: a * b, x, h).sum().backward()
    np.testing.assert_allclose(x.grad.data, (1 + x.data) * np.exp(x.data), rtol=1e-12)


def test_the_backward_pass_leaves_the_switches_as_they_are():
    x = tt.ones(3, requires_grad=True)
    y = tt.checkpoint(lambda x: tt.softmax(x * x), x).sum()
    with tt.no_grad(), tt.formulas():
        y.backward()
        assert not (x * x).requires_grad
    with tt.formulas():
        y = tt.checkpoint(lambda x: tt.softmax(x * x), x).sum()
    y.backward()
    assert tt.softmax(x).node.operation.name == "softmax"


def test_gradients_that_are_returned_and_those_of_second_order():
    block = Feeding()
    x = tt.tensor(np.random.default_rng(8).normal(size=(2, 5)), requires_grad=True)
    leaves = [x, *block.parameters()]
    for create_graph in (False, True):
        found = tt.grad(tt.checkpoint(block, x).sum(), leaves, create_graph=create_graph)
        expected = tt.grad(block(x).sum(), leaves, create_graph=create_graph)
        assert equal([g.data for g in found], [g.data for g in expected])
    second, wanted = (tt.grad((g[0] * g[0]).sum(), leaves) for g in (found, expected))
    assert any(np.abs(g.data).max() > 1e-3 for g in wanted)
    for a, b in zip(second, wanted, strict=True):
        np.testing.assert_allclose(a.data, b.data, rtol=1e-12, atol=1e-14)


def test_a_graph_is_walked_twice_only_if_it_is_kept():
    x = tt.tensor([2.0, 3.0], requires_grad=True)
    y = tt.checkpoint(lambda x: x * x, x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.tolist() == [8.0, 12.0]
    with pytest.raises(RuntimeError, match="freed"):
        y.backward()


def test_a_parameter_changed_before_the_backward_pass_is_refused():
    block = Feeding()
    y = tt.checkpoint(block, tt.ones((2, 5), dtype="float64"))
    block.inner[0].weight.data += 1
    block.inner[0].weight.mark_changed()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.sum().backward()


def test_without_a_graph_there_is_nothing_to_keep():
    block = Feeding()
    with tt.no_grad():
        assert not tt.checkpoint(block, tt.ones((2, 5), dtype="float64")).requires_grad
    x = tt.ones((2, 5), requires_grad=True)
    assert tt.checkpoint(lambda x: x, x) is x
    assert isinstance(tt.checkpoint(lambda x: x + 1, np.ones(3)), np.ndarray)
    with pytest.raises(TypeError, match="<lambda> returned a tuple, and one Tensor is needed"):
        tt.checkpoint(lambda x: (x, x), x)


def gpt_step(checkpointed):
    model = tt.models.GPT(CONFIG, np.random.default_rng(9))
    if checkpointed:
        gradient_checkpointing(model)
    losses = []
    for _ in range(2):
        loss = model.loss(IDS[:, :-1], IDS[:, 1:])
        loss.backward()
        losses.append(loss.item())
    return model, losses


def test_a_whole_model_with_dropout_has_the_same_gradients():
    model, losses = gpt_step(checkpointed=True)
    expected, expected_losses = gpt_step(checkpointed=False)
    assert losses == expected_losses
    for (name, p), q in zip(model.named_parameters(), expected.parameters(), strict=True):
        assert np.array_equal(p.grad.data, q.grad.data), name
    assert model.rng.random() == expected.rng.random()


def test_a_model_is_switched_back_and_generates():
    model, _ = gpt_step(checkpointed=True)
    operations = {t.node.operation.name for t in graph(model)}
    assert "checkpoint" in operations
    assert len(tt.generation.generate(model, [3, 1], 5, temperature=0)) == 5
    gradient_checkpointing(model, on=False)
    assert "checkpoint" not in {t.node.operation.name for t in graph(model)}
    with pytest.raises(ValueError, match="Linear has no layers in a ModuleList"):
        gradient_checkpointing(Linear(2, 3))


def trained(**settings):
    tokens = np.random.default_rng(12).integers(0, 11, 200)
    config = tt.models.GPTConfig(vocab_size=11, context_length=7, d_model=6, num_layers=3, num_heads=3)
    model = tt.models.GPT(config, np.random.default_rng(13))
    task = tt.tasks.LanguageModelling(tokens[:150], tokens[150:], batch_size=5, context=7)
    settings = tt.training.TrainingSettings(steps=3, warmup=0, **settings)
    trainer = tt.training.Trainer(model, task, settings, tt.text.ByteTokenizer())
    trainer.run(progress=False)
    return model


@pytest.mark.parametrize("threads", [1, 2])
def test_a_trainer_that_checkpoints_takes_the_same_steps(threads):
    model = trained(threads=threads, gradient_checkpointing=True)
    assert all(block.checkpointed for block in model.blocks)
    for a, b in zip(model.parameters(), trained(threads=threads).parameters(), strict=True):
        assert np.array_equal(a.data, b.data)
    with pytest.raises(ValueError, match="gradient_checkpointing must be True or False, not 'yes'"):
        tt.training.TrainingSettings(gradient_checkpointing="yes")


def graph(model):
    return [t for t in tt.autograd.ordered([model.loss(IDS[:, :-1], IDS[:, 1:])]) if t.node is not None]


def test_layers_inside_layers_are_computed_twice_and_no_more():
    calls = []

    class Counting(Module):
        def forward(self, x):
            calls.append(1)
            return x * 2.0

    class Outer(Module):
        def __init__(self):
            self.parts = ModuleList([Counting(), Counting()])

        def forward(self, x):
            return self.parts[1](self.parts[0](x))

    model = Sequential(ModuleList([Outer()])[0])
    model.stack = ModuleList([model[0]])
    gradient_checkpointing(ModuleList([model[0]]))
    model[0](tt.ones(3, requires_grad=True)).sum().backward()
    assert len(calls) == 4


def peak(checkpointed):
    """Most bytes in a step, beyond those before it."""
    config = tt.models.GPTConfig(vocab_size=11, context_length=32, d_model=32, num_layers=8, num_heads=2)
    model = tt.models.GPT(config, np.random.default_rng(10))
    gradient_checkpointing(model, checkpointed)
    ids = np.random.default_rng(11).integers(0, 11, (13, 33))
    model.loss(ids[:, :-1], ids[:, 1:]).backward()  # gradients are there from now on
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    most = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    return most


def test_a_deep_model_needs_less_than_half_the_memory():
    assert peak(True) < 0.5 * peak(False)
