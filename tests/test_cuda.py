"""The CUDA kernels: compiled by NVIDIA's own compiler, and run on the processor against their formulas.

Nothing here needs a GPU, but for the tests marked ``gpu``. `test_kernels` runs the same kernels on small
inputs of every kind; here rows are wide enough for several warps, and mistakes are planted in the source.
"""

import ctypes
import importlib.util
import itertools
import re
from functools import partial
from pathlib import Path

import cuda_on_cpu
import fake_cupy
import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer.backend import running, to_numpy, use_backend, xp
from tinytransformer.kernels.cuda import device
from tinytransformer.models import GPT, GPTConfig

SOURCE = device.source()
KERNELS = {name for name, _ in cuda_on_cpu.KERNEL.findall(SOURCE)}

needs_compiler = pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="there is no C++ compiler")


# --- every kernel against its formula, on rows of several warps -----------------------------------------

IDS = np.random.default_rng(1).integers(0, 11, (3, 41))
LABELS = np.random.default_rng(2).integers(0, 401, (2, 5))
LABELS[1, 2] = -100
FEW = np.random.default_rng(3).random((2, 1, 3, 301)) < 0.1
FEW[0, 0, 1] = False

CASES = {
    "softmax": (tt.softmax, [(5, 701)]),
    "softmax, steep": (lambda x: tt.softmax(x * 3000.0), [(5, 701)]),
    "log_softmax": (tt.log_softmax, [(5, 701)]),
    "masked_softmax": (lambda x: tt.masked_softmax(x, tt.Mask(FEW)), [(2, 5, 3, 301)]),
    "attention": (tt.attention, [(2, 3, 5, 7), (2, 3, 401, 7), (2, 3, 401, 11)]),
    "attention, causal": (
        lambda *qkv: tt.attention(*qkv, mask=tt.Mask.causal(5, 401)),
        [(2, 3, 5, 7), (2, 3, 401, 7), (2, 3, 401, 11)],
    ),
    "attention, masked": (
        lambda *qkv: tt.attention(*qkv, mask=tt.Mask(FEW)),
        [(2, 5, 3, 7), (2, 5, 301, 7), (2, 5, 301, 2)],
    ),
    "general_attention": (
        lambda q, k, v, b: tt.general_attention(q, k, v, tt.Mask.causal(7, 131), b, 0.7),
        [(2, 6, 7, 5), (2, 3, 131, 5), (2, 3, 131, 11), (1, 6, 7, 131)],
    ),
    "general_attention, a bias for each sequence": (
        lambda q, k, v, b: tt.general_attention(q, k, v, None, b),
        [(2, 3, 7, 5), (2, 3, 131, 5), (2, 3, 131, 11), (2, 1, 7, 1)],
    ),
    "layer_norm": (tt.layer_norm, [(2, 47, 301), (301,), (301,)]),
    "rms_norm": (tt.rms_norm, [(2, 47, 301), (301,)]),
    "gelu": (tt.gelu, [(3, 701)]),
    "gelu_tanh": (tt.gelu_tanh, [(3, 701)]),
    "silu": (tt.silu, [(3, 701)]),
    "cross_entropy": (lambda z: tt.cross_entropy(z, LABELS), [(2, 5, 401)]),
    "cross_entropy, smoothed": (lambda z: tt.cross_entropy(z, LABELS, -100, 0.1, "none"), [(2, 5, 401)]),
    "embedding": (lambda W: tt.embedding(IDS, W), [(13, 301)]),
}


def outcome(name, dtype, backend):
    """Value and gradients for a random cotangent."""
    function, shapes = CASES[name]
    rng = np.random.default_rng(5)
    with use_backend(backend):
        tensors = [normal(rng, s, dtype).requires_grad_() for s in shapes]
        y = function(*tensors)
        gradients = tt.grad(y, tensors, normal(rng, y.shape, dtype))
    return [to_numpy(t.data) for t in (y, *gradients)]


def normal(rng, shape, dtype):
    return tt.Tensor(xp.asarray(3 * np.asarray(rng.normal(size=shape)).astype(dtype)))


def assert_equals_formula(name, dtype, backend):
    with tt.formulas():
        expected = outcome(name, "f8", "numpy")
    found = outcome(name, dtype, backend)
    tolerance = {"f8": 1e-12, "f4": 1e-5}[dtype]
    scale = max(1, *(abs(b).max() for b in expected))  # some gradients are 0 as a sum of large terms
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels that were launched."""
    names = set()
    function = device._function
    monkeypatch.setattr(device, "_function", lambda m, kind, name: names.add(name) or function(m, kind, name))
    return names


@needs_compiler
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_formula(name, dtype, launched):
    assert_equals_formula(name, dtype, "fake")
    assert launched


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize("name", CASES)
def test_kernel_equals_formula_on_a_gpu(name, dtype, launched):
    assert_equals_formula(name, dtype, "cupy")
    assert launched


def adam_on(backend, optimizer, dtype="f8"):
    rng = np.random.default_rng(7)
    with use_backend(backend):
        w = tt.nn.Parameter(normal(rng, (3, 701), dtype).data)
        made = optimizer([w])
        for _ in range(3):
            w.grad = normal(rng, w.shape, dtype)
            made.step()
    return to_numpy(w.data)


OPTIMIZERS = [
    partial(tt.optim.AdamW, lr=0.01, betas=(0.8, 0.95), weight_decay=0.3),
    partial(tt.optim.Adam, lr=0.01, eps=0.1, weight_decay=0.3),
]


@needs_compiler
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("f8", 1e-14), ("f4", 2e-6)])
def test_adam_is_that_of_the_host(optimizer, dtype, tolerance, launched):
    host = adam_on("numpy", optimizer)
    np.testing.assert_allclose(adam_on("fake", optimizer, dtype), host, rtol=0, atol=tolerance)
    assert launched == {"adam"}


@pytest.mark.gpu
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_adam_is_that_of_the_host_on_a_gpu(optimizer):
    np.testing.assert_allclose(adam_on("cupy", optimizer), adam_on("numpy", optimizer), rtol=0, atol=1e-14)


@needs_compiler
def test_every_kernel_runs_in_a_case(launched):
    for name in CASES:
        outcome(name, "f8", "fake")
    adam_on("fake", OPTIMIZERS[0])
    assert launched == KERNELS


# --- mistakes planted in the source ---------------------------------------------------------------------

MISTAKES = {
    "softmax": [
        ("of_warp[threadIdx.x / 32] = value;\n    __syncthreads();", "of_warp[threadIdx.x / 32] = value;"),
        ("distance = 16;", "distance = 8;"),
        ("int warp = 1;", "int warp = 2;"),
        ("y[i] * (g[i] - mean)", "y[i] * (g[i] + mean)"),
        ("    y += (long long)blockIdx.x * width;\n    real m = largest", "    real m = largest"),
    ],
    "softmax, steep": [("m = Largest::of(m, x[i])", "m = x[i]")],
    "log_softmax": [("exp(y[i]) * total", "y[i] * total"), ("total)) + m;\n    FOR", "total));\n    FOR")],
    "attention": [("m + log(sum)", "log(sum)"), ("- D[blockIdx.x]", "- D[0]")],
    "attention, causal": [
        ("place.query + 1 + keys - queries", "place.query + keys - queries"),
        ("j < seen ? exp", "true ? exp"),
        ("query = blockIdx.x % queries", "query = blockIdx.x % heads"),
    ],
    "attention, masked": [
        ("sum = sum == 0 ? 1 : sum;", ""),
        ("m = m == -INFINITE ? 0 : m;", ""),
        ("batch * of_batch +", ""),
        ("query * of_query", "query"),
    ],
    "general_attention": [("head * of_head +", ""), ("c * s[j] + (biased ? bias", "s[j] + (biased ? bias")],
    "general_attention, a bias for each sequence": [("(long long)j * bias_key", "j")],
    "layer_norm": [
        ("- (x[i] - mean) * scale * h_n", "- (x[i] - mean) * h_n"),
        ("h = centred ? over_block<Sum>(h) / width : 0", "h = 0"),
        ("(centred ? beta[i] : 0)", "0"),
        ("row += gridDim.y * warps", "row += warps"),
        ("    of_warp[1][warp][lane] = g_1;\n    __syncthreads();", "    of_warp[1][warp][lane] = g_1;"),
        ("    __syncthreads();  // all have read what the call before left here\n", ""),
    ],
    "rms_norm": [("if (centred) {", "{"), ("centred ? over_block<Sum>(h) / width : 0", "h")],
    "gelu": [("x * density", "density"), ("exp(x * x / -2)", "exp(x / -2)")],
    "gelu_tanh": [("+ 3 * (real)0.0356", "+ (real)0.0356"), ("(1 - t(x)) * x * u", "(1 - t(x)) * u")],
    "silu": [("1 + x * (1 - s(x))", "1 - x * s(x)")],
    "cross_entropy": [("v == targets[blockIdx.x]", "v == targets[0]")],
    "cross_entropy, smoothed": [
        ("y == ignored ? 0 : total", "total"),
        ("eps / V * sum", "eps * sum"),
        (" + eps / V;", ";"),
    ],
    "embedding": [
        ("order[n] * width", "n * width"),
        ("starts[blockIdx.x + 1]; n++", "starts[0]; n++"),
    ],
}


@needs_compiler
def test_every_planted_mistake_is_found(monkeypatch):
    survivors = []
    for name, mistakes in MISTAKES.items():
        assert_equals_formula(name, "f8", "fake")
        for right, wrong in mistakes:
            assert SOURCE.count(right) >= 1, right
            broken = cuda_on_cpu.RawModule(
                code=SOURCE.replace(right, wrong), options=("-Dreal=double", "-O0", "-w")
            )
            with monkeypatch.context() as patch:
                patch.setattr(device, "_function", lambda _, kind, kernel, b=broken: b.get_function(kernel))
                try:
                    for last_first in (False, True):
                        patch.setattr(cuda_on_cpu, "downwards", itertools.repeat(last_first))
                        assert_equals_formula(name, "f8", "fake")
                except (AssertionError, RuntimeError):
                    continue
            survivors.append((name, right))
    assert not survivors, "\n".join(map(str, survivors))


# --- the compiler for GPUs, which needs none ------------------------------------------------------------


class NVRTC:
    """NVIDIA's runtime compiler, from its package."""

    def __init__(self):
        folders = importlib.util.find_spec("nvidia.cuda_nvrtc").submodule_search_locations
        names = (p for folder in folders for p in Path(folder).glob("*/*nvrtc*") if "builtins" not in p.name)
        self.library = ctypes.CDLL(str(next(p for p in names if ".alt" not in p.name)))

    def compile(self, code, *options):
        """Return whether it went well, the compiler's log and the PTX."""
        lib, program = self.library, ctypes.c_void_p()
        assert lib.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"kernels.cu", 0, None, None) == 0
        given = (ctypes.c_char_p * len(options))(*map(str.encode, options))
        failed = lib.nvrtcCompileProgram(program, len(options), given)
        log = self._text(program, "ProgramLog")
        return not failed, log, "" if failed else self._text(program, "PTX")

    def _text(self, program, what):
        size = ctypes.c_size_t()
        getattr(self.library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(self.library, f"nvrtcGet{what}")(program, text)
        return text.value.decode()


@pytest.fixture(scope="module")
def nvrtc():
    try:
        found = importlib.util.find_spec("nvidia.cuda_nvrtc")
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip("NVRTC is not installed: pip install 'tinytransformer[nvrtc]'")
    return NVRTC()


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("architecture", ["compute_75", "compute_90"])
def test_source_compiles_for_a_gpu(nvrtc, real, architecture):
    fine, log, ptx = nvrtc.compile(
        SOURCE, f"-Dreal={real}", "-std=c++17", f"--gpu-architecture={architecture}"
    )
    assert fine, log
    assert log.strip("\0\n ") == ""
    assert set(re.findall(r"\.entry (\w+)\(", ptx)) == KERNELS


def test_a_typo_gives_the_log_of_the_compiler(nvrtc):
    fine, log, _ = nvrtc.compile(SOURCE.replace("real m = -INFINITE;", "real m = -INFINTE;"), "-Dreal=float")
    assert not fine
    assert 'identifier "INFINTE" is undefined' in log


# --- what the host does ---------------------------------------------------------------------------------


def gpt_step(backend, dropout=0.0):
    """One step of training, and the waits for the device in it."""
    rng = np.random.default_rng(8)
    with use_backend(backend):
        model = GPT(GPTConfig(11, 7, 12, 2, 3, dropout=dropout), np.random.default_rng(9)).to(backend)
        optimizer = tt.optim.AdamW(tt.optim.decay_groups(model, 0.1))
        for _ in range(2):
            inputs, targets = rng.integers(0, 11, (2, 5, 7))
            with fake_cupy.count_syncs() as syncs:
                optimizer.zero_grad()
                loss = model.loss(inputs, targets)
                loss.backward()
                norm = tt.optim.clip_grad_norm(model.parameters(), 0.01)
                optimizer.step()
    return model, float(loss), float(norm), syncs.count


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_no_step_of_training_makes_the_host_wait(dropout):
    model, loss, norm, syncs = gpt_step("fake", dropout)
    assert syncs == 0
    expected, expected_loss, expected_norm, _ = gpt_step("numpy", dropout)
    np.testing.assert_allclose([loss, norm], [expected_loss, expected_norm], rtol=1e-5)
    for (name, p), q in zip(model.named_parameters(), expected.parameters(), strict=True):
        np.testing.assert_allclose(to_numpy(p.data), q.numpy(), rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.gpu
def test_step_on_a_gpu_is_that_of_the_host():
    model, loss, _, _ = gpt_step("cupy")
    expected, expected_loss, _, _ = gpt_step("numpy")
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    for p, q in zip(model.parameters(), expected.parameters(), strict=True):
        np.testing.assert_allclose(to_numpy(p.data), q.numpy(), rtol=0, atol=1e-4)


@needs_compiler
class TestEmulator:
    """The GPU on the processor refuses what a GPU would not see."""

    CODE = """
    extern "C" __global__ void half_barrier(real* x, int n) { if (threadIdx.x < 7) __syncthreads(); }
    extern "C" __global__ void beyond(real* x, int n) { if (threadIdx.x == 0) x[n] = 1; }
    extern "C" __global__ void before(real* x, int n) { if (threadIdx.x == 0) x[-1] = 1; }
    extern "C" __global__ void ids(real* x, int n) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < n) x[i] = 1000 * blockIdx.y + i;
    }
    """

    @pytest.fixture
    def module(self):
        return cuda_on_cpu.RawModule(code=self.CODE, options=("-Dreal=float",))

    def test_threads_and_blocks(self, module):
        x = fake_cupy.zeros(70, np.float32)
        module.get_function("ids")((2, 3), (64,), (x, np.int32(70)))
        np.testing.assert_array_equal(x.get(), 2000 + np.arange(70))

    @pytest.mark.parametrize("name", ["beyond", "before"])
    def test_writing_out_of_bounds(self, module, name):
        with pytest.raises(AssertionError, match="out of bounds"):
            module.get_function(name)((1,), (32,), (fake_cupy.zeros(5, np.float32), np.int32(5)))

    def test_a_barrier_that_some_never_reach(self, module):
        with pytest.raises(RuntimeError, match="some threads never reach a barrier"):
            module.get_function("half_barrier")((1,), (32,), (fake_cupy.zeros(5, np.float32), np.int32(5)))

    @pytest.mark.parametrize(
        "arguments",
        [
            lambda x: (x, 5),
            lambda x: (x, np.int64(5)),
            lambda x: (x.astype(np.float64), np.int32(5)),
            lambda x: (x[::2], np.int32(2)),
            lambda x: (x.get(), np.int32(5)),
        ],
    )
    def test_arguments_of_another_type(self, module, arguments):
        with pytest.raises(TypeError, match=r"argument . of ids must be"):
            module.get_function("ids")((1,), (32,), arguments(fake_cupy.zeros(5, np.float32)))


def test_nothing_is_launched_for_nothing():
    with running(fake_cupy):
        device.launch_rows("no such kernel", 0, 7, xp.zeros((0, 7)))
