"""A training step of a GPT of GPT-2's small shape on a GPU, beside PyTorch's in eager mode.

``python tests/benchmarks/gpu.py [--precision tf32] [--batch 8] [--steps 20]``

Both get the same weights and tokens. First the losses of three steps must agree; then the two take turns, a
step each, timed from one synchronisation with the device to the next. It prints the medians and their ratio.
Needs CuPy, a CUDA build of PyTorch and a GPU; it ends with a line that says what is missing.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import sizes

import tinytransformer as tt
from tinytransformer.kernels.precision import product_precision
from tinytransformer.models import GPT, GPTConfig

SHAPE = {"vocab_size": 50257, "context_length": 1024, "d_model": 768, "num_layers": 12, "num_heads": 12}
WARM_UP = 3


class Ours:
    """This library, with CuPy."""

    def __init__(self, size):
        self.model = GPT(GPTConfig(**SHAPE), np.random.default_rng(0))
        self.model.load_state_dict(sizes.gpt_weights(size))
        self.model.to("cupy")
        self.optimizer = tt.optim.AdamW(
            tt.optim.decay_groups(self.model, sizes.WEIGHT_DECAY), lr=sizes.LEARNING_RATE, betas=sizes.BETAS
        )

    def step(self, inputs, targets):
        """Take a step; the loss stays where it is."""
        self.optimizer.zero_grad()
        loss = self.model.loss(inputs, targets)
        loss.backward()
        tt.optim.clip_grad_norm(self.model.parameters(), sizes.CLIP)
        self.optimizer.step()
        return loss

    def wait(self):
        """Wait until the GPU has done all."""
        import cupy

        cupy.cuda.Device().synchronize()


class Theirs:
    """PyTorch's eager mode, with its fused attention and optimizer."""

    def __init__(self, size, precision):
        import torch
        import torch_peer

        torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
        self.torch = torch
        self.model = torch_peer.GPT(size).cuda()
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": sizes.WEIGHT_DECAY},
                {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=sizes.LEARNING_RATE,
            betas=sizes.BETAS,
            fused=True,
        )

    def step(self, inputs, targets):
        """Take a step; the loss stays where it is."""
        torch = self.torch
        self.optimizer.zero_grad()
        x, y = (torch.from_numpy(a).cuda(non_blocking=True) for a in (inputs, targets))
        loss = self.model.loss(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), sizes.CLIP)
        self.optimizer.step()
        return loss

    def wait(self):
        """Wait until the GPU has done all."""
        self.torch.cuda.synchronize()


def missing():
    """Say what is not there, or None."""
    if "cupy" not in tt.available_backends():
        return "CuPy and a GPU"
    if importlib.util.find_spec("torch") is None:
        return "PyTorch"
    import torch

    return None if torch.cuda.is_available() else "a CUDA build of PyTorch"


def main():
    """Compare, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--precision", choices=["float32", "tf32"], default="tf32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    if what := missing():
        sys.exit(f"this benchmark needs {what}: nothing was measured")
    size = sizes.Size(**SHAPE, batch_size=options.batch, d_ff=4 * SHAPE["d_model"])
    rng = np.random.default_rng(2)
    ids = rng.integers(0, SHAPE["vocab_size"], (options.batch, SHAPE["context_length"] + 1))
    batch = ids[:, :-1].copy(), ids[:, 1:].copy()
    times = {"ours": [], "torch": []}
    with tt.use_backend("cupy"), product_precision(options.precision):
        sides = {"ours": Ours(size), "torch": Theirs(size, options.precision)}
        for _ in range(WARM_UP):
            ours, theirs = (float(side.step(*batch)) for side in sides.values())
            assert abs(ours - theirs) < 1e-2, f"the losses differ: {ours} and {theirs}"
        for _ in range(options.steps):
            for name, side in sides.items():
                side.wait()
                start = time.perf_counter()
                side.step(*batch)
                side.wait()
                times[name].append(time.perf_counter() - start)
    ours, theirs = (statistics.median(t) for t in times.values())
    print(
        f"{options.precision}, batch {options.batch} x {SHAPE['context_length']}: ours {1000 * ours:.1f} ms, "
        f"torch eager {1000 * theirs:.1f} ms, ratio {ours / theirs:.2f}"
    )


if __name__ == "__main__":
    main()
