"""Products in float16 with float32 around them, and the loss scale that goes with them."""

import dataclasses
import math
import warnings
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer.backend import to_numpy, xp
from tinytransformer.formulas import linear, self_attention
from tinytransformer.kernels.precision import PRECISIONS, product_precision
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


def test_the_bias_is_added_in_float32():
    x, W, b = (np.random.default_rng(9).normal(size=s).astype("f4") for s in ((4, 13), (13, 7), (7,)))
    with product_precision("float16"):
        np.testing.assert_array_equal(linear(x, W, b), linear(x, W) + b)


def test_the_precision_ends_with_its_block():
    kernels = linear.fused, self_attention.fused
    assert None not in kernels  # as it would be if an earlier block had left something behind
    with product_precision("float16"):
        assert linear.fused is not kernels[0]
    assert (linear.fused, self_attention.fused) == kernels
    for ours, exact in zip(product("numpy", "tf32"), product("numpy", "float32"), strict=True):
        np.testing.assert_array_equal(ours, exact)  # NumPy has none
    with pytest.raises(ValueError, match="none of float32, tf32, float16"):
        product_precision("bfloat16")


@pytest.mark.parametrize(
    "arguments",
    [
        {"x": ("f8", (2, 3)), "W": ("f8", (3, 5))},
        {"x": ("f4", (2, 3)), "W": ("f8", (3, 5))},
        {"x": ("f4", (2, 3)), "W": ("f4", (3, 5)), "b": ("f8", (5,))},
        {"x": ("f4", (2, 3)), "W": ("f4", (3, 5)), "b": ("f4", (7, 1, 5))},
        {"x": ("f4", (7, 3)), "W": ("f4", (3, 2, 5))},
        {"x": ("f4", ()), "W": ("f4", (3, 5))},
        {"x": ("f4", (3, 2)), "W": ("f4", (3, 5))},
    ],
)
def test_other_dtypes_and_shapes_are_left_to_the_formula(arguments):
    rng = np.random.default_rng(4)
    arrays = [np.asarray(rng.normal(size=shape), dtype) for dtype, shape in arguments.values()]

    def result():
        try:
            return linear(*arrays)
        except ValueError as error:
            return str(error)

    with tt.formulas():
        expected = result()
    with product_precision("float16"):
        found = result()
    np.testing.assert_array_equal(found, expected)
    assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)


@pytest.mark.parametrize("part", range(3))
def test_each_gradient_is_there_without_the_others(part):
    rng = np.random.default_rng(6)
    arrays = [rng.normal(size=shape).astype("f4") for shape in ((2, 5, 13), (13, 7), (7,))]
    v = tt.Tensor(rng.normal(size=(2, 5, 7)).astype("f4"))
    with product_precision("float16"):
        all_of_them = [tt.Tensor(a, requires_grad=True) for a in arrays]
        expected = tt.grad(linear(*all_of_them), all_of_them, v)[part]
        alone = [tt.Tensor(a, requires_grad=i == part) for i, a in enumerate(arrays)]
        (found,) = tt.grad(linear(*alone), [alone[part]], v)
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_the_products_of_attention_are_rounded_too():
    rng = np.random.default_rng(7)
    sizes = (2, 5, 6), *[(6, 6)] * 4  # the kernel, which must not run, takes square matrices alone
    arrays = [rng.normal(size=s).astype("f4") for s in sizes]
    exact = self_attention(*arrays, heads=3)
    with product_precision("float16"):
        rounded = self_attention(*arrays, heads=3)
    np.testing.assert_array_equal(rounded, rounded.astype("f2"))  # the last one is a product
    np.testing.assert_allclose(rounded, exact, rtol=0, atol=5e-2)
    assert (rounded != exact).any()


def test_what_is_too_large_for_half_becomes_infinite_without_a_warning():
    x, W = np.float32([[1e6, 2.0, 3.0]]), np.float32([[0.5], [0.25], [0.125]])
    with product_precision("float16"), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert linear(x, W).tolist() == [[math.inf]]


def test_a_gpu_rounds_to_tf32_inside_of_the_block_alone(monkeypatch):
    kinds = {}
    products = SimpleNamespace(
        COMPUTE_TYPE_TF32="TF32", COMPUTE_TYPE_DEFAULT="full", set_compute_type=kinds.__setitem__
    )
    cupy = SimpleNamespace(__name__="cupy", _core=SimpleNamespace(_routines_linalg=products))
    monkeypatch.setattr("tinytransformer.kernels.precision.xp", SimpleNamespace(module=cupy))
    for name, inside in {"float32": "full", "tf32": "TF32", "float16": "TF32"}.items():
        with product_precision(name):
            assert kinds == {np.float32: inside}
            for other in ("float32", "tf32"):
                with product_precision(other):
                    pass
                assert kinds == {np.float32: inside}
        assert kinds == {np.float32: "full"}


def test_of_blocks_within_each_other_the_innermost_counts():
    x, W = np.float32([[1.0]]), np.float32([[1 / 3]])
    half, full = float(np.float16(1 / 3)), float(np.float32(1 / 3))
    block = product_precision("float16")
    kernels = linear.fused, self_attention.fused
    with block:
        for inner, value in (("float32", full), ("tf32", full), ("float16", half)):
            with product_precision(inner):
                assert float(linear(x, W)[0, 0]) == value
                assert (self_attention.fused is None) == (inner == "float16")
                with block:
                    assert float(linear(x, W)[0, 0]) == half
                assert float(linear(x, W)[0, 0]) == value
            assert float(linear(x, W)[0, 0]) == half
    assert (linear.fused, self_attention.fused) == kernels


def trainer(folder=None, steps=40, **settings):
    text = ByteTokenizer().encode("to be or not to be, that is the question; " * 30)
    model = GPT(GPTConfig(256, 11, 12, 1, 3), np.random.default_rng(2))
    task = LanguageModelling(text[:1000], text[1000:], batch_size=5, context=11, seed=3)
    chosen = TrainingSettings(steps=steps, warmup=5, learning_rate=0.01, checkpoint_every=7, **settings)
    return Trainer(model, task, chosen, ByteTokenizer(), folder)


def test_training_in_float16_learns_like_float32():
    half, full = trainer(precision="float16"), trainer()
    rows = [(half.train_step(), full.train_step()) for _ in range(40)]
    for name, rtol in (("loss", 0.02), ("gradient_norm", 0.1)):
        found, right = zip(*((a[name], b[name]) for a, b in rows), strict=True)
        np.testing.assert_allclose(found, right, rtol=rtol, err_msg=name)
    assert rows[-1][0]["loss"] < rows[0][0]["loss"] - 1
    assert {p.dtype.name for p in half.model.parameters()} == {"float32"}


def test_a_step_that_overflows_is_left_out_and_the_scale_halved():
    run = trainer(precision="float16")
    run.loss_scale = LossScale(2.0**40)  # times any gradient too much for float16
    before = [p.numpy().copy() for p in run.model.parameters()]
    row = run.train_step()
    assert (row["gradient_norm"], run.loss_scale.value, run.step) == (None, 2.0**39, 1)
    assert row["loss"] == pytest.approx(trainer().train_step()["loss"], rel=0.02)
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


def test_a_step_is_left_out_until_the_scale_would_be_below_one():
    scale = LossScale(4.0, patience=3)
    assert [scale.update(overflowed=True) for _ in range(3)] == [True, True, False]


def test_only_float16_has_a_scale_that_grows_and_steps_that_are_left_out():
    for precision in PRECISIONS:
        scale = LossScale.of(precision)
        before = scale.value
        for _ in range(3000):
            scale.update(overflowed=False)
        assert (scale.value > before) == (precision == "float16")
        assert scale.update(overflowed=True) == (precision == "float16")
        assert (scale.value == 1) == (precision != "float16")


def test_the_scale_is_divided_out_of_every_gradient_to_the_last_bit():
    rng = np.random.default_rng(8)
    ps = [tt.nn.Parameter(np.zeros(shape, "f4")) for shape in ((2, 3), (5,), (7,))]
    gradients = [rng.normal(size=p.shape).astype("f4") * np.float32(1e-7) for p in ps]
    for i in (0, 2):  # the one between has none
        ps[i].grad = tt.tensor(gradients[i])
    earlier = tt.Tensor(gradients[0], requires_grad=True) * ps[0].grad
    LossScale(1024.0).divide_out(ps)
    for i in (0, 2):
        np.testing.assert_array_equal(ps[i].grad.numpy(), gradients[i] / 1024)
    assert ps[1].grad is None
    with pytest.raises(RuntimeError, match="changed"):  # it would be wrong by the scale
        (earlier * gradients[0]).sum().backward()


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
