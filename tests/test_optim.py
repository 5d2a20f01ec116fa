"""Optimizers against their equations, number by number in float64; schedules and clipping at known points."""

import copy
import math
import pickle

import numpy as np
import pytest
from fake_cupy import count_syncs

import tinytransformer as tt
from tinytransformer import nn, optim
from tinytransformer.backend import backend_name, to_numpy, xp
from tinytransformer.optim import optimizers

SHAPES = [(2, 3), (5,), (7, 1)]
SCALES = [1.0, 1e-7, 3.0]  # the second has gradients as small as eps: it shows where eps stands
STEPS = 12
ABSENT = {(3, 0), (6, 2), (7, 2)}  # (step, parameter) without gradient


@pytest.fixture
def rng():
    return np.random.default_rng(30)


def host(tensor):
    return to_numpy(tensor.data)


def parameters(rng, dtype="float64"):
    return [nn.Parameter(xp.asarray(rng.normal(size=shape)), dtype) for shape in SHAPES]


def give_gradients(ps, step, absent=ABSENT, seed=31):
    """Set the gradients of one step, alike for every set of parameters that asks for them."""
    rng = np.random.default_rng([seed, step])
    for i, p in enumerate(ps):
        g = rng.normal(1.0, 1.0, SHAPES[i]) * SCALES[i]
        p.grad = None if (step, i) in absent else tt.Tensor(xp.asarray(g), p.dtype)


# --- the equations, one number at a time; each mistake is one that people make ---


class Textbook:
    """Adam, or with ``decoupled`` AdamW, as their papers write them, on arrays of float64."""

    def __init__(self, ps, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, decoupled=False, mistake=""):
        self.ps, self.lr, self.betas, self.eps = ps, lr, betas, eps
        self.weight_decay, self.decoupled, self.mistake = weight_decay, decoupled, mistake
        self.arrays = [p.data for p in ps]
        self.m = [[0.0] * p.size for p in ps]
        self.v = [[0.0] * p.size for p in ps]
        self.t = [int(mistake == "t starts at 1") for _ in ps]

    def step(self):
        beta1, beta2 = self.betas
        for i, p in enumerate(self.ps):
            if p.grad is None:
                continue
            for j in range(len(self.ps)) if self.mistake == "t counts parameters" else [i]:
                self.t[j] += 1
            t = self.t[i]
            theta, gradient = self.arrays[i].reshape(-1), p.grad.data.reshape(-1)
            if self.mistake == "rebinds":
                theta = theta.copy()
            for k in range(p.size):
                g, decay = float(gradient[k]), self.weight_decay * float(theta[k])
                if not self.decoupled or self.mistake == "decays twice":
                    g += decay
                self.m[i][k] = beta1 * self.m[i][k] + (1 - beta1) * g
                self.v[i][k] = beta2 * self.v[i][k] + (1 - beta2) * g**2
                m_hat = self.m[i][k] / (1 - beta1**t)
                v_hat = self.v[i][k] / (1 - beta2**t)
                if self.mistake == "m not corrected":
                    m_hat = self.m[i][k]
                if self.mistake == "m corrected as if t were 1":
                    m_hat = self.m[i][k] / (1 - beta1)
                change = m_hat / (math.sqrt(v_hat) + self.eps)
                if self.mistake == "eps inside the root":
                    change = m_hat / math.sqrt(v_hat + self.eps)
                if self.decoupled:
                    theta[k] -= decay if self.mistake == "decay without lr" else self.lr * decay
                theta[k] -= self.lr * change
            self.arrays[i] = theta.reshape(p.shape)


def differs(rng_seed, make, make_reference, dtype="float64", tolerance=1e-10):
    """Run two optimizers on the same parameters and gradients; say how the results differ, if they do."""
    ps, reference = (parameters(np.random.default_rng(rng_seed), d) for d in (dtype, "float64"))
    for p, q in zip(ps, reference, strict=True):
        q.data[...] = to_numpy(p.data)
    before = [q.data.copy() for q in reference]
    one, other = make(ps), make_reference(reference)
    held = [p.data for p in ps]
    for step in range(STEPS):
        for optimizer, group in ((one, ps), (other, reference)):
            give_gradients(group, step)
            optimizer.lr = 0.01 if step < 5 else 0.003
            optimizer.step()
    for i, (p, q) in enumerate(zip(ps, reference, strict=True)):
        if p.data is not held[i]:
            return f"parameter {i} has another array"
        moved, expected = host(p) - before[i], host(q) - before[i]
        if not np.allclose(moved, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max()):
            return f"parameter {i} moved by {moved} instead of {expected}"
    return ""


OPTIONS = {"betas": (0.8, 0.95), "eps": 1e-7, "weight_decay": 0.3}


@pytest.mark.parametrize("piece", [4, 65_536])  # 4 cuts parameters in two and joins parts of two
@pytest.mark.parametrize(("kind", "decoupled"), [(optim.Adam, False), (optim.AdamW, True)])
def test_adam_is_the_textbook(backend, monkeypatch, kind, decoupled, piece):
    monkeypatch.setattr(optimizers, "PIECE", piece)
    with tt.use_backend("numpy"):
        pass  # the reference below is made on the backend of the test and needs item assignment only
    if backend != "numpy":
        pytest.skip("the reference writes single numbers: test_optimizers_agree_on_every_backend compares")
    assert differs(1, lambda ps: kind(ps, **OPTIONS), lambda ps: Textbook(ps, **OPTIONS, decoupled=decoupled)) == ""
