"""Products in float16 with float32 around them, and the loss scale that goes with them."""

import dataclasses
import math

import fake_cupy
import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer.backend import to_numpy, xp
from tinytransformer.formulas import linear
from tinytransformer.kernels.precision import product_precision
from tinytransformer.models import GPT, GPTConfig
from tinytransformer.tasks import LanguageModelling
from tinytransformer.text import ByteTokenizer
from tinytransformer.training import NonFiniteError, Trainer, TrainingSettings, load_checkpoint
from tinytransformer.training.precision import LossScale


def product(backend, precision, b=True):
    rng = np.random.default_rng(1)
    with tt.use_backend(backend), product_precision(precision):
        made = [xp.asarray(rng.normal(size=s).astype("f4")) for s in ((2, 5, 13), (13, 7), (7,))]
        tensors = [tt.Tensor(a, requires_grad=True) for a in made[: 2 + b]]
        y = linear(*tensors)
        v = tt.Tensor(xp.asarray(rng.normal(size=y.shape).astype("f4")))
        return [to_numpy(t.data) for t in (y, *tt.grad(y, tensors, v))]


@pytest.mark.parametrize("b", [True, False])
def test_products_are_rounded_to_half_and_nothing_else(backend, b):
    exact = product("numpy", "float32", b)
    for found, right in zip(product(backend, "float16", b), exact, strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, right, rtol=0, atol=2e-2)
    y, dx, dW, *db = product(backend, "float16", b)
    for rounded in (dx, dW) if b else (y, dx, dW):
        np.testing.assert_array_equal(rounded, rounded.astype("f2"))
    for found, right in zip(db, exact[3:], strict=True):  # a sum, no product
        np.testing.assert_allclose(found, right, rtol=1e-5)


def test_the_precision_ends_with_its_block():
    kernel = linear.fused
    with product_precision("float16"):
        assert linear.fused is not kernel
    assert linear.fused is kernel
    for ours, exact in zip(product("numpy", "tf32"), product("numpy", "float32"), strict=True):
        np.testing.assert_array_equal(ours, exact)  # NumPy has none
    with pytest.raises(ValueError, match="none of float32, tf32, float16"):
        product_precision("bfloat16")
    with product_precision("float16"):  # float64 is left to the formula
        assert linear(np.ones((2, 3)), np.full((3, 5), 1 / 3)).dtype == np.float64


def trainer(folder=None, steps=40, **settings):
    text = ByteTokenizer().encode("to be or not to be, that is the question; " * 30)
    model = GPT(GPTConfig(256, 11, 12, 1, 3), np.random.default_rng(2))
    task = LanguageModelling(text[:1000], text[1000:], batch_size=5, context=11, seed=3)
    chosen = TrainingSettings(steps=steps, warmup=5, learning_rate=0.01, checkpoint_every=7, **settings)
    return Trainer(model, task, chosen, ByteTokenizer(), folder)


def test_training_in_float16_learns_like_float32():
    half, full = trainer(precision="float16"), trainer()
    losses = [(half.train_step()["loss"], full.train_step()["loss"]) for _ in range(40)]
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=0.02)
    assert losses[-1][0] < losses[0][0] - 1
    assert {p.dtype.name for p in half.model.parameters()} == {"float32"}


def test_a_step_that_overflows_is_left_out_and_the_scale_halved():
    run = trainer(precision="float16")
    run.loss_scale = LossScale(2.0**40)  # times any gradient too much for float16
    before = [p.numpy().copy() for p in run.model.parameters()]
    row = run.train_step()
    assert (row["gradient_norm"], run.loss_scale.value, run.step) == (None, 2.0**39, 1)
    assert math.isfinite(row["loss"])
    for p, array in zip(run.model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.numpy(), array)
    while run.train_step()["gradient_norm"] is None:
        pass
    assert 1 < run.loss_scale.value < 2.0**30
    assert any((p.numpy() != array).any() for p, array in zip(run.model.parameters(), before, strict=True))


def test_what_no_scale_can_help_is_told():
    run = trainer(precision="float16")
    run.model.norm.weight.data[3] = math.inf
    run.loss_scale.value = 1.0
    with pytest.raises(NonFiniteError, match=r"first in parameter norm\.weight"):
        run.train_step()


def test_the_scale_doubles_after_its_patience():
    scale = LossScale(8.0, patience=3)
    values = []
    for overflowed in (False, False, True, False, False, False, False):
        scale.update(overflowed)
        values.append(scale.value)
    assert values == [8, 8, 4, 4, 4, 8, 8]


def test_a_run_that_goes_on_keeps_its_scale(tmp_path):
    run = trainer(tmp_path, steps=7, precision="float16")
    run.loss_scale = LossScale(128.0, patience=5)
    run.run(progress=False)
    again = trainer(tmp_path, steps=9, precision="float16")
    again.restore(load_checkpoint(tmp_path, "GPT"))
    assert dataclasses.asdict(again.loss_scale) == {"value": 256.0, "patience": 5, "good": 2}


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_step_of_the_trainer_waits_for_the_gpu_once(precision):
    with tt.use_backend("fake"):
        run = trainer(precision=precision, accumulate=3)
        run.model.to("fake")
        run.train_step()
        with fake_cupy.count_syncs() as syncs:
            row = run.train_step()
    assert syncs.count == 1  # for the loss and the norm that are logged, before the optimizer's step
    assert math.isfinite(row["loss"])
