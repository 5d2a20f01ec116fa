"""A batch shared by threads gives the gradient of the whole batch, with the same bits every time."""

import sys

import numpy as np
import pytest

from tinytransformer.models import GPT, GPTConfig
from tinytransformer.tasks import LanguageModelling
from tinytransformer.training.threads import BatchThreads

TASK = LanguageModelling(
    np.arange(13), np.arange(13), batch_size=2, context=7
)  # its own batches are not asked
CONFIG = GPTConfig(vocab_size=13, context_length=7, d_model=12, num_heads=3)


def perturbed(dtype="float64", **changes):
    model = GPT(GPTConfig(**{**vars(CONFIG), **changes}), np.random.default_rng(3), dtype=dtype)
    rng = np.random.default_rng(5)
    for p in model.parameters():
        p.data[...] = rng.normal(0, 0.5, p.shape)
    return model


def batch(sequences):
    ids = np.random.default_rng(7).integers(0, 13, (sequences, 8))
    return ids[:, :-1], ids[:, 1:]


def gradients(model):
    return [p.grad.data.copy() for p in model.parameters()]


@pytest.mark.parametrize("threads", [2, 3, 11])
def test_equals_the_whole_batch(threads):
    model = perturbed()
    inputs, targets = batch(5)  # 5 sequences divide neither by 2 nor by 3, and are fewer than 11
    expected_loss = model.loss(inputs, targets)
    expected_loss.backward()
    expected = gradients(model)
    model.zero_grad()
    loss = BatchThreads(model, TASK, threads, least_work=0).add((inputs, targets), scale=0.25)
    assert loss == pytest.approx(0.25 * expected_loss.item(), rel=1e-12)
    for found, wanted in zip(gradients(model), expected, strict=True):
        np.testing.assert_allclose(found, 0.25 * wanted, rtol=1e-10, atol=1e-12)


def test_a_second_batch_is_added():
    model = perturbed()
    threads = BatchThreads(model, TASK, 2, least_work=0)
    threads.add(batch(5))
    once = gradients(model)
    threads.add(batch(5))
    for found, wanted in zip(gradients(model), once, strict=True):
        np.testing.assert_allclose(found, 2 * wanted, rtol=1e-10, atol=1e-12)


def test_same_bits_every_time():
    model = perturbed("float32")
    runs = []
    for _ in range(20):
        model.zero_grad()
        BatchThreads(model, TASK, 3, least_work=0).add(batch(5))
        runs.append(gradients(model))
    for other in runs[1:]:
        for found, wanted in zip(other, runs[0], strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_dropout_keeps_the_batch_whole():
    """Parts would draw from the model's generator in the order in which threads happen to run."""
    model = perturbed(dropout=0.3)
    state = model.rng.bit_generator.state
    BatchThreads(model, TASK, 3, least_work=0).add(batch(5))
    threaded = gradients(model)
    model.zero_grad()
    model.rng.bit_generator.state = state
    model.loss(*batch(5)).backward()
    for found, wanted in zip(threaded, gradients(model), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_error_handling_of_the_caller_holds_in_the_threads():
    """NumPy keeps it for each thread apart: without it an overflow would be a warning, here an error."""
    model = perturbed()
    model.token_embedding.weight.data[...] *= 1e200  # its square, in the layer norm, is too large
    threads = BatchThreads(model, TASK, 2, least_work=0)
    with np.errstate(all="ignore"):
        threads.add(batch(5))
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        threads.add(batch(5))


def test_the_process_is_arranged_for_threads_and_put_back():
    from threadpoolctl import threadpool_info

    def blas():
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = sys.getswitchinterval(), blas()
    with BatchThreads(perturbed(), TASK, 2, least_work=0).working():
        assert sys.getswitchinterval() < before[0]
        assert set(blas()) <= {1}
    assert (sys.getswitchinterval(), blas()) == before
    with BatchThreads(perturbed(), TASK, 1, least_work=0).working():
        assert (sys.getswitchinterval(), blas()) == before


def test_threads_share_a_batch_only_where_it_pays():
    tiny = perturbed()
    operations = 6 * TASK.tokens_per_batch * tiny.config.num_parameters
    assert BatchThreads(tiny, TASK, 3).threads == 1
    assert BatchThreads(tiny, TASK, 3, least_work=operations).threads == 3
    assert BatchThreads(tiny, TASK, 3, least_work=operations + 1).threads == 1
