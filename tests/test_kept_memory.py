"""What arrays free stays with the process, unless the user says otherwise."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tinytransformer.kernels import memory

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")

COUNT_FAULTS = """
import resource, threading
import numpy
import tinytransformer

def work():
    [numpy.full(2**18, 1.0) for _ in range(13)]  # 2 MiB each, which die together

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


def faults(**environment):
    clean = {name: value for name, value in os.environ.items() if name != "TINYTRANSFORMER_KEEP_MEMORY"}
    done = subprocess.run(
        [sys.executable, "-c", COUNT_FAULTS],
        cwd=Path(__file__).parents[1],
        env={**clean, **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@glibc
def test_an_array_finds_the_memory_that_another_freed_in_any_thread():
    assert faults() < 100
    assert faults(TINYTRANSFORMER_KEEP_MEMORY="0") > 100


@pytest.mark.parametrize(("platform_", "variable"), [("win32", ""), ("darwin", ""), ("linux", "0")])
def test_elsewhere_or_switched_off_nothing_is_done(monkeypatch, platform_, variable):
    monkeypatch.setattr(sys, "platform", platform_)
    monkeypatch.setenv("TINYTRANSFORMER_KEEP_MEMORY", variable)
    monkeypatch.setattr(memory.ctypes, "CDLL", None)  # not even looked for
    assert memory.keep_freed_memory() is False


def test_another_c_library_is_left_alone(monkeypatch):
    class Musl:
        """It has no ``gnu_get_libc_version``."""

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("TINYTRANSFORMER_KEEP_MEMORY", raising=False)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: Musl())
    assert memory.keep_freed_memory() is False
