"""``tinytransformer doctor``: each warning appears where its cause is, and only there."""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import tinytransformer as tt
from tinytransformer import cli
from tinytransformer.cli import doctor
from tinytransformer.cli.doctor import Work


def written(folder, **files):
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="ascii")
    return folder


def test_the_command_reports_every_part(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "matrix_rate", lambda: 2e11)  # the machine is shared: time says nothing
    monkeypatch.setattr(doctor, "copy_rate", lambda: 1.5e10)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", "--d-model", "96", "--layers", "3"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    parts = [line.split()[1] for line in lines if line.startswith(("ok", "warning"))]
    expected = {"software", "backend", "cores", "BLAS", "SIMD", "malloc", "runs", "downloads", "GPU"}
    assert expected | {"optional", "speed", "model", "step", "needs", "a"} <= set(parts)
    warned = [i for i, line in enumerate(lines) if line.startswith("warning")]
    assert all(lines[i + 1].lstrip().startswith("-> ") for i in warned)
    assert lines[-1].startswith(f"{len(warned) or 'no'} warning")
    assert any("200 GFLOP/s in products, 15 GB/s in copies" in line for line in lines)
    assert any("3 layers × 96" in line for line in lines)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu_DOT_max": "150000 100000\n"}, 1.5),
        ({"cpu_DOT_max": "max 100000\n"}, None),
        ({"cpu__cpu_DOT_cfs_quota_us": "300000\n", "cpu__cpu_DOT_cfs_period_us": "100000\n"}, 3.0),
        ({"cpu__cpu_DOT_cfs_quota_us": "-1\n", "cpu__cpu_DOT_cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_share_of_the_cores(tmp_path, files, cores):
    assert doctor.cpu_quota(written(tmp_path, **files)) == cores


def test_fewer_granted_than_usable_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "usable_cores", lambda: 8)
    for quota, advice in ((2.5, "--threads 2, and OMP_NUM_THREADS=2"), (8.0, ""), (None, "")):
        monkeypatch.setattr(doctor, "cpu_quota", lambda quota=quota: quota)
        (finding,) = doctor.cores()
        assert finding.advice.endswith(advice)
        assert bool(finding.advice) == bool(advice)


def test_memory_within_the_containers_limit(tmp_path):
    meminfo = written(tmp_path, meminfo="MemTotal:  9000 kB\nMemAvailable:   7000 kB\n") / "meminfo"
    assert doctor.available_memory(tmp_path, meminfo) == 7000 * 1024
    written(tmp_path, memory_DOT_max="5000000\n", memory_DOT_current="2000000\n")
    assert doctor.available_memory(tmp_path, meminfo) == 3_000_000
    written(tmp_path, memory_DOT_max="9000000000\n")  # more than the machine has
    assert doctor.available_memory(tmp_path, meminfo) == 7000 * 1024
    written(tmp_path, memory_DOT_max="max\n")
    assert doctor.available_memory(tmp_path, meminfo) == 7000 * 1024
    assert doctor.available_memory(tmp_path, tmp_path / "nothing") is None
    assert [f.advice for f in doctor.memory_finding(9e8)] == ["close other programs, or use small models"]
    assert [f.advice for f in doctor.memory_finding(2e9)] == [""]


@pytest.mark.parametrize(
    ("kernels", "threads", "wide", "variables", "advice"),
    [
        ("SkylakeX", 4, True, {}, ""),
        ("Haswell", 4, False, {}, ""),
        ("Haswell", 4, True, {}, "a newer NumPy may know it"),
        (
            "Haswell",
            4,
            True,
            {"OPENBLAS_CORETYPE": "Haswell"},
            "OPENBLAS_CORETYPE=Haswell keeps it from AVX-512",
        ),
        ("SkylakeX", 1, True, {"OMP_NUM_THREADS": "1"}, "OMP_NUM_THREADS=1 leaves 3 of 4 cores idle"),
        ("SkylakeX", 1, True, {}, ""),  # a BLAS made for one thread
        ("SkylakeX", 9, True, {"OPENBLAS_NUM_THREADS": "9"}, "instead of OPENBLAS_NUM_THREADS=9"),
    ],
)
def test_what_holds_blas_back(monkeypatch, kernels, threads, wide, variables, advice):
    for name in ("OPENBLAS_CORETYPE", *doctor.THREAD_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = doctor.blas_advice(kernels, threads, 4, wide)
    assert advice in said
    assert bool(said) == bool(advice)


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "not" / "yet"))
    assert [f.advice for f in doctor.folder()] == ["", ""]
    asked = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(path))
    runs, downloads = doctor.folder()
    assert runs.advice == "change to another folder, or give --out"
    assert downloads.advice.startswith("set HF_HOME")
    assert asked == [Path.cwd(), tmp_path]


def fake_cupy(monkeypatch, driver=12040, runtime=12060, available=True):
    calls = types.SimpleNamespace(
        runtimeGetVersion=lambda: runtime,
        driverGetVersion=lambda: driver,
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda i: {"name": b"Big GPU", "totalGlobalMem": 24_000_000_000},
    )
    cuda = types.SimpleNamespace(is_available=lambda: available, runtime=calls)
    monkeypatch.setitem(sys.modules, "cupy", types.SimpleNamespace(cuda=cuda, __version__="14.2.0"))
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())


def test_a_gpu_and_its_driver(monkeypatch):
    fake_cupy(monkeypatch)
    device, cuda = doctor.gpu()
    assert device.found == "Big GPU, 24 GB"
    assert (cuda.found, cuda.advice) == ("CuPy 14.2.0 for 12.6, a driver for 12.4", "")
    fake_cupy(monkeypatch, runtime=13000)
    _, cuda = doctor.gpu()
    assert cuda.advice == "update the driver, or install tinytransformer[cuda12]"
    fake_cupy(monkeypatch, available=False)
    (finding,) = doctor.gpu()
    assert finding.found == "CuPy 14.2.0, but no device"
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    (finding,) = doctor.gpu()
    assert finding.found.endswith("no CuPy")


def test_a_broken_cupy_is_told_of(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text("raise ImportError('libnvrtc.so.12: no such file\\nmore')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    (finding,) = doctor.gpu()
    assert finding.found == "CuPy fails to import: libnvrtc.so.12: no such file"
    assert "pip install" in finding.advice


def test_rates_are_the_work_over_the_time(monkeypatch):
    def two_seconds(call):
        call()
        return 2.0

    monkeypatch.setattr(doctor, "_seconds", two_seconds)
    assert doctor.matrix_rate(8) == 8**3
    assert doctor.copy_rate(64) == 4 * 64
    monkeypatch.undo()
    calls = []
    assert 0 < doctor._seconds(lambda: calls.append(1), times=3) < 1
    assert len(calls) == 4  # the first is not counted


def test_the_work_of_a_step_is_counted_as_the_model_has_it():
    """Parameters exactly; FLOPs against the products in the model's own graph."""
    sizes = {"d_model": 12, "layers": 3, "context": 7, "batch_size": 2, "vocab_size": 11}
    work = Work.of(**sizes)
    config = tt.models.GPTConfig(vocab_size=11, context_length=7, d_model=12, num_layers=3, num_heads=3)
    model = tt.models.GPT(config)
    assert work.parameters == model.num_parameters() == config.num_parameters
    ids = np.arange(14).reshape(2, 7) % 11
    with tt.formulas():
        loss = model.loss(ids, ids)
    flops = 0
    for t in tt.autograd.ordered([loss]):
        if t.node is not None and t.node.operation.name == "matmul":
            flops += 3 * 2 * t.size * t.node.arrays[0].shape[-1]
    attention = 3 * 2 * 2 * (2 * 7) * 12 * 7 * 3  # of it causality needs half
    assert work.flops == flops - attention / 2


def test_the_verdict_on_a_gpu_follows_the_estimate():
    def verdict(**sizes):
        return list(doctor.worth(Work.of(**sizes), 2e11, 8e9))[-1].found

    small = {"d_model": 64, "layers": 2, "context": 32, "batch_size": 8, "vocab_size": 65}
    large = {"d_model": 768, "layers": 12, "context": 1024, "batch_size": 8, "vocab_size": 50257}
    assert verdict(**small).startswith("not worth it: ")
    assert verdict(**{**small, "d_model": 128, "context": 64}).startswith("worth little: ")
    assert verdict(**large).startswith("worth it if it keeps up 0.8 TFLOP/s")
    needs = {f.what: f.advice for f in doctor.worth(Work.of(**large), 2e11, 8e9)}["needs"]
    assert "--gradient-checkpointing" in needs
    assert not any(f.advice for f in doctor.worth(Work.of(**large), 2e11, 64e9))
