"""``tinytransformer doctor``: what was found on this machine, what is wrong, and whether a GPU would pay."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from .. import __version__
from .app import app

CGROUP = Path("/sys/fs/cgroup")
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
NARROW = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen")  # OpenBLAS's kernels without AVX-512
LIBRARIES = {  # what each is for, by package
    "cupy-cuda12x": "the GPU, with CUDA 12",
    "cupy-cuda13x": "the GPU, with CUDA 13",
    "huggingface-hub": "published checkpoints by name",
    "gguf": "checkpoints in GGUF",
    "mpi4py": "training on several machines",
    "jupyterlab": "the course's notebooks",
}
SLOW = 10.0  # GFLOP/s in float32; a single core of ten years ago reaches more
STEP_EFFICIENCY = 0.4  # of a training step, of what products alone reach: measured at d_model 128 to 384
LAUNCHES = 100  # of GPU kernels for one layer in one step, forward and back: about what a layer's graph needs
LAUNCH_SECONDS = 10e-6  # that each takes from Python at least: a step with small arrays is no faster


class Finding(NamedTuple):
    """A line of the report; with advice it is a warning."""

    what: str
    found: str
    advice: str = ""


@app.command(
    epilog="""\b
    Examples:
      tinytransformer doctor
      tinytransformer doctor --d-model 768 --layers 12 --context 1024 --batch-size 8 --vocab-size 50257
    """
)
def doctor(
    d_model: Annotated[int, typer.Option(min=1, help="Of the model to judge the GPU by: features.")] = 128,
    layers: Annotated[int, typer.Option(min=1, help="Its blocks.")] = 2,
    context: Annotated[int, typer.Option(min=1, help="Its tokens at once.")] = 64,
    batch_size: Annotated[int, typer.Option(min=1, help="Sequences in a batch.")] = 8,
    vocab_size: Annotated[int, typer.Option(min=1, help="Its tokens in all.")] = 128,
) -> None:
    """Look at the machine: what was found, what is wrong and how to put it right, and if a GPU would pay.

    It takes a few seconds, changes nothing, and sends nothing.
    """
    memory = available_memory()
    checks: list[Callable[[], Iterator[Finding]]] = [
        software,
        cores,
        blas,
        simd,
        malloc,
        folder,
        gpu,
        libraries,
    ]
    findings = [finding for check in checks for finding in check()]
    rate, bandwidth = matrix_rate(), copy_rate()
    findings += [*memory_finding(memory), *speed(rate, bandwidth)]
    findings += [*worth(Work.of(d_model, layers, context, batch_size, vocab_size), rate, memory)]
    for what, found, advice in findings:
        typer.echo(f"{'warning' if advice else 'ok':<8} {what:<10} {found}")
        if advice:
            typer.echo(f"{'':<19} -> {advice}")
    warnings = sum(bool(finding.advice) for finding in findings)
    typer.echo(f"{warnings or 'no'} warning{'' if warnings == 1 else 's'}")


# --- what is there ---------------------------------------------------------------------------------------


def software() -> Iterator[Finding]:
    """Versions, and the backends that work."""
    import numpy

    from ..backend import available_backends, xp

    versions = f"tinytransformer {__version__}, Python {sys.version.split()[0]}, NumPy {numpy.__version__}"
    yield Finding("software", f"{versions}, {platform.system()} {platform.machine()}")
    backends = ", ".join(available_backends())
    yield Finding("backend", f"new arrays on {xp.module.__name__}; working: {backends}")


def usable_cores() -> int:
    """Cores that this process may run on: fewer than there are, where it was bound to some."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = CGROUP) -> float | None:
    """Cores' worth of time that a container grants its processes together; None without a limit."""
    quota, period = _numbers(root / "cpu.max")  # version 2: both in one file
    if quota is None:
        (quota, _), (period, _) = (_numbers(root / f"cpu/cpu.cfs_{name}_us") for name in ("quota", "period"))
    return quota / period if quota and period and quota > 0 else None


def _numbers(path: Path) -> tuple[int | None, int | None]:
    """Read one or two numbers; None for what is no number, such as ``max``, or not there."""
    try:
        words = [*path.read_text(encoding="ascii").split(), "", ""]
    except OSError:
        words = ["", ""]
    first, second = (int(word) if word.lstrip("-").isdigit() else None for word in words[:2])
    return first, second


def cores() -> Iterator[Finding]:
    """Cores, as many as this process may use."""
    usable, quota = usable_cores(), cpu_quota()
    found = f"{usable} of {os.cpu_count()} usable"
    if quota is not None and quota < usable:
        whole = max(1, int(quota))
        yield Finding(
            "cores",
            f"{found}, and the container grants the time of {quota:g}",
            f"more threads than that wait for each other: --threads {whole}, and OMP_NUM_THREADS={whole}",
        )
    else:
        yield Finding("cores", found)


def blas() -> Iterator[Finding]:
    """Which library multiplies matrices, with which kernels, on how many threads."""
    import numpy
    from threadpoolctl import threadpool_info

    numpy.ones((2, 2)) @ numpy.ones((2, 2))
    pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
    if not pools:
        yield Finding("BLAS", "none that is known", "a NumPy from pip or conda brings one along")
    for pool in pools:
        kernels = pool.get("architecture") or "unknown"
        name = f"{pool['internal_api']} {pool['version']}, {kernels} kernels, {pool['num_threads']} threads"
        yield Finding("BLAS", name, blas_advice(kernels, pool["num_threads"], usable_cores(), wide_vectors()))


def blas_advice(kernels: str, threads: int, usable: int, wide: bool) -> str:
    """Say what holds BLAS back, if anything does."""
    if kernels in NARROW and wide:
        chosen = os.environ.get("OPENBLAS_CORETYPE")
        if chosen:
            return (
                f"OPENBLAS_CORETYPE={chosen} keeps it from AVX-512, up to twice as fast: unset the variable"
            )
        return "this processor has AVX-512, up to twice as fast: a newer NumPy may know it"
    if threads == usable:
        return ""
    because = next((f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if os.environ.get(name)), "")
    if threads > usable:
        return f"more threads than the {usable} cores wait for each other: set OMP_NUM_THREADS={usable}" + (
            f" instead of {because}" if because else ""
        )
    if because:
        return f"{because} leaves {usable - threads} of {usable} cores idle in products: unset it"
    return ""


def wide_vectors() -> bool:
    """Return True if NumPy found AVX-512."""
    return any("AVX512" in name or name == "X86_V4" for name in simd_found())


def simd_found() -> list[str]:
    """Names of the vector instructions that NumPy uses here."""
    import numpy

    extensions = numpy.show_config(mode="dicts").get("SIMD Extensions", {})
    return [*extensions.get("baseline", []), *extensions.get("found", [])]


def simd() -> Iterator[Finding]:
    """Vector instructions that NumPy's element-wise functions use."""
    found = f"NumPy uses {', '.join(simd_found()) or 'none'}"
    disabled = os.environ.get("NPY_DISABLE_CPU_FEATURES")
    advice = f"NPY_DISABLE_CPU_FEATURES={disabled} switches some off: unset it" if disabled else ""
    yield Finding("SIMD", found, advice)


def malloc() -> Iterator[Finding]:
    """Whether memory that arrays free stays with the process."""
    from ..kernels import keep_freed_memory

    if keep_freed_memory():
        yield Finding("malloc", "keeps what arrays free for the next ones")
    elif os.environ.get("TINYTRANSFORMER_KEEP_MEMORY") == "0":
        advice = "it costs up to a fifth of a training step: unset TINYTRANSFORMER_KEEP_MEMORY"
        yield Finding("malloc", "gives freed memory back at once", advice)
    else:
        yield Finding("malloc", "the system's own way: there is no glibc to adjust")


def folder() -> Iterator[Finding]:
    """Whether runs can be written here, and downloads to their cache."""
    cache = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    for what, place, advice in (
        ("runs", Path.cwd(), "change to another folder, or give --out"),
        ("downloads", cache, "set HF_HOME to a folder that can be written"),
    ):
        nearest = next(p for p in (place, *place.parents) if p.exists())
        writable = os.access(nearest, os.W_OK)
        yield Finding(
            what, f"{place} {'can' if writable else 'cannot'} be written", "" if writable else advice
        )


def gpu() -> Iterator[Finding]:
    """CuPy, the driver, and the devices."""
    driver = Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidiactl").exists()
    if importlib.util.find_spec("cupy") is None:
        advice = "install CuPy: pip install 'tinytransformer[cuda12]' (or [cuda13])" if driver else ""
        yield Finding("GPU", f"{'a driver of NVIDIA, but' if driver else 'none found, and'} no CuPy", advice)
        return
    try:
        import cupy
    except Exception as error:  # broken libraries raise anything; the first line says which
        advice = "install one CuPy that fits: pip install 'tinytransformer[cuda12]' (or [cuda13])"
        yield Finding("GPU", f"CuPy fails to import: {str(error).strip().splitlines()[0]}", advice)
        return
    if not cupy.cuda.is_available():
        advice = "CUDA_VISIBLE_DEVICES hides it, or the container was started without it" if driver else ""
        yield Finding("GPU", f"CuPy {cupy.__version__}, but no device", advice)
        return
    runtime, newest = cupy.cuda.runtime.runtimeGetVersion(), cupy.cuda.runtime.driverGetVersion()
    for i in range(cupy.cuda.runtime.getDeviceCount()):
        facts = cupy.cuda.runtime.getDeviceProperties(i)
        name = facts["name"].decode() if isinstance(facts["name"], bytes) else facts["name"]
        yield Finding("GPU", f"{name}, {facts['totalGlobalMem'] / 1e9:.0f} GB")
    too_old = runtime // 1000 > newest // 1000
    yield Finding(
        "CUDA",
        f"CuPy {cupy.__version__} for {runtime // 1000}.{runtime % 1000 // 10}, "
        f"a driver for {newest // 1000}.{newest % 1000 // 10}",
        f"update the driver, or install tinytransformer[cuda{newest // 1000}]" if too_old else "",
    )


def libraries() -> Iterator[Finding]:
    """Which of the optional libraries are there."""
    there = []
    for package in LIBRARIES:
        try:
            there.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    missing = ", ".join(f"{p} ({use})" for p, use in LIBRARIES.items() if not any(p in t for t in there))
    yield Finding(
        "optional", f"{', '.join(there) or 'none'}; without {missing}" if missing else ", ".join(there)
    )


# --- how fast it is --------------------------------------------------------------------------------------


def available_memory(root: Path = CGROUP, meminfo: Path = Path("/proc/meminfo")) -> float | None:
    """Bytes that can still be had, within what a container grants; None where that cannot be told."""
    try:
        lines = dict(line.split(":") for line in meminfo.read_text(encoding="ascii").splitlines())
        free: float = 1024 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError):
        return None
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        (most, _), (now, _) = _numbers(root / limit), _numbers(root / used)
        if most is not None and now is not None:
            free = min(free, most - now)
    return free


def memory_finding(free: float | None) -> Iterator[Finding]:
    """Memory, if it can be told."""
    if free is not None:
        advice = "close other programs, or use small models" if free < 1e9 else ""
        yield Finding("memory", f"{free / 1e9:.1f} GB available", advice)


def _seconds(call: Callable[[], Any], times: int = 5) -> float:
    """Median time of a call, after one that warms up."""
    call()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def matrix_rate(n: int = 1024) -> float:
    """FLOP/s of a float32 product of n × n matrices, on all threads of BLAS."""
    import numpy

    a = numpy.random.default_rng(0).random((n, n), dtype=numpy.float32)
    out = numpy.empty_like(a)
    return 2 * n**3 / _seconds(lambda: numpy.matmul(a, a, out=out))


def copy_rate(n: int = 2**24) -> float:
    """Bytes a second of a copy that no cache holds, read and written, on one thread."""
    import numpy

    a = numpy.ones(n, numpy.float32)
    out = numpy.empty_like(a)
    return 2 * a.nbytes / _seconds(lambda: numpy.copyto(out, a))


def speed(rate: float, bandwidth: float) -> Iterator[Finding]:
    """Say what was measured."""
    advice = (
        "" if rate > SLOW * 1e9 else "slow: without BLAS, in a browser, or other programs use the processor"
    )
    yield Finding(
        "speed",
        f"{rate / 1e9:.3g} GFLOP/s in products, {bandwidth / 1e9:.3g} GB/s in copies, float32",
        advice,
    )


# --- whether a GPU would pay -----------------------------------------------------------------------------


class Work(NamedTuple):
    """What a training step of a GPT takes."""

    title: str
    parameters: int
    flops: float
    bytes: float
    launches: int

    @classmethod
    def of(cls, d_model: int, layers: int, context: int, batch_size: int, vocab_size: int) -> Work:
        """Count it: 6 FLOPs for each parameter in a product and token, and 6 T d for attention in each layer.

        Forward takes 2 and backward 4. Causal attention has two products of T / 2 rows for each token, on
        average: 2 · 2 · d · T / 2 forward. Memory holds parameters, gradients and two moments, and of each
        token about 16 d floats in a layer, and 3 V for the logits.
        """
        matrices = layers * 12 * d_model**2 + vocab_size * d_model
        parameters = matrices + context * d_model + layers * 13 * d_model + 2 * d_model
        tokens = batch_size * context
        return cls(
            f"{layers} layers × {d_model}, {batch_size} × {context} tokens, {parameters / 1e6:.3g} M weights",
            parameters,
            tokens * (6.0 * matrices + 6.0 * layers * context * d_model),
            4.0 * (4 * parameters + tokens * (16 * layers * d_model + 3 * vocab_size)),
            LAUNCHES * (layers + 1),
        )


def worth(work: Work, rate: float, memory: float | None) -> Iterator[Finding]:
    """Estimate a training step here and the least that any GPU would take, and say what follows."""
    step = work.flops / (STEP_EFFICIENCY * rate)
    launching = work.launches * LAUNCH_SECONDS
    yield Finding("model", work.title)
    yield Finding(
        "step",
        f"{work.flops / 1e9:,.3f} GFLOP: about {_duration(step)} here, if a step reaches "
        f"{STEP_EFFICIENCY:.0%} of what products do (estimated)",
    )
    advice = ""
    if memory is not None and work.bytes > memory:
        advice = "a smaller --batch-size with --accumulate, or --gradient-checkpointing"
    yield Finding("needs", f"about {work.bytes / 1e9:.3g} GB (estimated)", advice)
    floor = f"starting about {work.launches:,} small programs alone takes it {_duration(launching)}"
    if step < 2 * launching:
        verdict = f"not worth it: {floor}"
    elif step < 10 * launching:
        verdict = f"worth little: at most {step / launching:.0f} times as fast, as {floor}"
    else:
        needed = 10 * work.flops / step / 1e12
        verdict = f"worth it if it keeps up {needed:.2g} TFLOP/s in float32: a step is then ten times as fast"
    yield Finding("a GPU", verdict + " (reckoned, not measured)")


def _duration(seconds: float) -> str:
    return (
        f"{seconds:,.0f} s"
        if seconds >= 10
        else f"{seconds:.2g} s"
        if seconds >= 1
        else f"{1e3 * seconds:.2g} ms"
    )
