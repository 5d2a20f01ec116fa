"""CuPy's ``RawModule`` on the processor: the CUDA kernels of the package run where there is no GPU.

A C++ compiler makes the very source that a GPU would run into a library; ``cuda_on_cpu.h`` gives it threads,
barriers and warp shuffles. It is strict where CuPy is not: a scalar argument must be a NumPy scalar of the C
type, an array must lie without gaps and have the dtype of the pointer, and what lies around each array is
watched. It says nothing about speed, nor about what only a real GPU does.
"""

import ctypes
import itertools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

COMPILER = shutil.which("g++") or shutil.which("clang++")
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(([^)]*)\)')
DTYPES = {"float": "f4", "double": "f8", "int": "i4", "long long": "i8", "bool": "?"}
GUARD = 64  # entries around each array
downwards = itertools.cycle([False, True])  # whether the last threads of a block go first, for each launch
HEADER = Path(__file__).with_name("cuda_on_cpu.h")


class RawModule:
    """The kernels of one source, compiled with options such as ``-Dreal=float``."""

    def __init__(self, *, code, options=()):
        self.real = next(option.removeprefix("-Dreal=") for option in options if "real" in option)
        self.parameters = {name: self._parsed(given) for name, given in KERNEL.findall(code)}
        launchers = "\n".join(self._launcher(name) for name in self.parameters)
        source = f'#include "{HEADER}"\n#line 1 "kernels.cu"\n{code}\nstatic void** arguments;\n{launchers}\n'
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder, "kernels.so")
            command = [COMPILER, "-x", "c++", "-std=c++17", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
            command += ["-Wall", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function"]
            done = subprocess.run(
                [*command, *options, "-o", str(library), "-"],
                input=source,
                text=True,
                capture_output=True,
            )
            if done.returncode:
                raise ValueError(done.stderr)
            self.library = ctypes.CDLL(str(library))

    def _parsed(self, parameters):
        """Return (C type, whether it is a pointer, whether what it points to is constant) of each."""
        found = []
        for parameter in parameters.split(","):
            constant, kind, pointer = re.fullmatch(r"\s*(const )?([a-z ]+?)(\*?) \w+\s*", parameter).groups()
            found.append((self.real if kind == "real" else kind, bool(pointer), bool(constant)))
        return found

    def _launcher(self, name):
        values = ", ".join(
            f"*({'const ' if constant else ''}{kind}{'*' if pointer else ''}*)arguments[{i}]"
            for i, (kind, pointer, constant) in enumerate(self.parameters[name])
        )
        return (
            f"static void body_of_{name}() {{ {name}({values}); }}\n"
            f'extern "C" int launch_{name}(void** a, const unsigned* grid, unsigned block, bool down)\n'
            f"{{ arguments = a; return emulator::run(body_of_{name}, grid, block, down); }}"
        )

    def get_function(self, name):
        """Return a kernel as a function of grid, block and arguments."""
        parameters = self.parameters[name]
        function = getattr(self.library, f"launch_{name}")

        def launch(grid, block, args):
            assert len(block) == 1, "blocks have one axis here"
            assert block[0] % 32 == 0, "threads come in whole warps"
            assert 0 < block[0] <= 1024
            assert all(0 < n < limit for n, limit in zip(grid, (2**31, 2**16, 2**16), strict=False))
            assert len(args) == len(parameters), f"{name} takes {len(parameters)} arguments, not {len(args)}"
            slots = [_Slot(name, i, a, *p) for i, (a, p) in enumerate(zip(args, parameters, strict=True))]
            pointers = (ctypes.c_void_p * len(slots))(*(slot.address for slot in slots))
            size = (ctypes.c_uint * 3)(*grid, *[1] * (3 - len(grid)))
            if function(pointers, size, ctypes.c_uint(block[0]), ctypes.c_bool(next(downwards))):
                raise RuntimeError(f"{name}: some threads never reach a barrier at which others wait")
            for slot in slots:
                slot.finish()

        return launch


class _Slot:
    """One argument: where the kernel finds it, and what has to be looked at afterwards."""

    def __init__(self, name, i, given, kind, pointer, constant):
        self.what = f"argument {i} of {name}"
        self.array = self.room = None
        dtype = np.dtype(DTYPES[kind])
        if not pointer:
            if not isinstance(given, np.generic) or given.dtype != dtype:
                raise TypeError(f"{self.what} must be a NumPy scalar of {dtype}, not {given!r}")
            self.value = np.array(given)
            self.address = self.value.ctypes.data
            return
        array = getattr(given, "_array", None)
        if array is None or array.dtype != dtype or not array.flags.c_contiguous:
            raise TypeError(f"{self.what} must be an array of {dtype} without gaps, not {given!r}")
        fill = True if dtype.kind == "b" else np.array(-77, dtype) if dtype.kind == "i" else np.nan
        self.room = np.full(array.size + 2 * GUARD, fill, dtype)
        self.middle = self.room[GUARD : GUARD + array.size]
        self.middle[:] = array.reshape(-1)
        self.before = self.room.tobytes() if constant else None
        self.array = array
        self.value = np.array(self.middle.ctypes.data if array.size else self.room.ctypes.data, np.uintp)
        self.address = self.value.ctypes.data

    def finish(self):
        """Take what was written back, and see that nothing else was."""
        if self.room is None:
            return
        guard = self.room.copy()
        guard[GUARD : GUARD + self.array.size] = guard[:1]
        assert guard.tobytes() == guard[:1].tobytes() * guard.size, f"{self.what}: written out of bounds"
        if self.before is None:
            self.array[...] = self.middle.reshape(self.array.shape)
