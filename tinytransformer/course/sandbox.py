"""Run an answer in a process of its own: with limits, no network, and nothing in it that could be a score.

This file is also the program of that process, so it needs NumPy and nothing of the package. The parent sends
source and arguments and gets values back, both as ``.npy`` with pickle off. Which values are right is known
to the parent alone.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import math
import os
import signal
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy

__all__ = ["Failure", "Outcome", "Seed", "call", "pack", "run_apart", "unpack"]

SECONDS = 10.0
MEMORY = 2 << 30  # bytes
OUTPUT = 64 << 20  # bytes; more is no answer to any exercise
GRACE = 5.0  # seconds that the clock allows beyond, for a busy machine
# Python 3.11 mixes up two threads that make syntax trees at once, and raises SystemError. NumPy makes one of
# the head of each .npy, and who reads submissions makes many.
PARSING = threading.Lock()
FORKS = sys.platform == "linux"  # elsewhere libraries may not survive a fork


class Seed(NamedTuple):
    """An argument that arrives as a fresh ``numpy.random.Generator`` of this seed."""

    number: int


class Failure(NamedTuple):
    """A call that gave no value.

    Attributes
    ----------
    kind : str
        The exception's name; ``"Timeout"`` or ``"Died"`` where the process gave no word.
    text : str
        What it says, in a line.
    """

    kind: str
    text: str


Outcome = Any  # a value, or a Failure


# --- what crosses ---


def pack(value: Any) -> bytes:
    """Write arrays, numbers, strings, None, and lists, tuples and dicts of these as bytes.

    Raises
    ------
    TypeError
        If the value holds anything else.

    Examples
    --------
    >>> unpack(pack({"a": [numpy.arange(3), None], "b": (1.5, "x")}))
    {'a': [array([0, 1, 2]), None], 'b': (1.5, 'x')}
    """
    arrays: dict[str, numpy.ndarray] = {}

    def shape_of(item: Any) -> Any:
        if item is None or type(item) in (bool, int, float, str):
            return item
        if type(item) is Seed:
            return {"seed": item.number}
        if isinstance(item, dict):
            return {"dict": [[shape_of(k), shape_of(v)] for k, v in item.items()]}
        if isinstance(item, (list, tuple)):
            return {"tuple" if isinstance(item, tuple) else "list": [shape_of(i) for i in item]}
        if isinstance(item, (numpy.ndarray, numpy.generic)) and item.dtype.kind in "biufcSU":
            arrays[f"a{len(arrays)}"] = numpy.array(item, subok=False)
            return {"array": len(arrays) - 1}
        raise TypeError(f"returned {type(item).__name__}: return arrays, numbers, strings, lists or tuples")

    structure = json.dumps(shape_of(value)).encode()
    file = io.BytesIO()
    numpy.savez(file, structure=numpy.frombuffer(structure, numpy.uint8), **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def unpack(data: bytes) -> Any:
    """Read what `pack` wrote.

    Raises
    ------
    Exception
        Of many kinds, if it is anything else.

    Examples
    --------
    >>> unpack(pack([1, "a"]))
    [1, 'a']
    """
    with PARSING, numpy.load(io.BytesIO(data), allow_pickle=False) as file:

        def value_of(item: Any) -> Any:
            if not isinstance(item, dict):
                return item
            ((kind, content),) = item.items()
            if kind == "array":
                return file[f"a{content}"]
            if kind == "seed":
                return Seed(content)
            if kind == "dict":
                return {value_of(k): value_of(v) for k, v in content}
            return {"list": list, "tuple": tuple}[kind](value_of(i) for i in content)

        return value_of(json.loads(bytes(file["structure"])))


def call(function: Callable, arguments: Sequence[Any], drive: Callable | None = None) -> Outcome:
    """Call a function with fresh read-only copies of arguments, and return its value or how it failed.

    Parameters
    ----------
    function : function
    arguments : sequence
    drive : function, optional
        Called as ``drive(function, *arguments)`` instead.

    Returns
    -------
    value or Failure

    Examples
    --------
    >>> def double(x):
    ...     x *= 2
    ...     return x
    >>> call(double, [numpy.arange(3)])
    Failure(kind='ValueError', text='output array is read-only')
    """

    def fresh(item: Any) -> Any:
        if type(item) is Seed:
            return numpy.random.default_rng(item.number)
        if isinstance(item, (list, tuple)):
            return type(item)(fresh(i) for i in item)
        if isinstance(item, dict):
            return {k: fresh(v) for k, v in item.items()}
        if isinstance(item, numpy.ndarray):
            item = item.copy()
            item.flags.writeable = False
        return item

    own = [fresh(a) for a in arguments]
    try:
        with numpy.errstate(all="ignore"):
            value = function(*own) if drive is None else drive(function, *own)
        pack(value)
    except (Exception, SystemExit, GeneratorExit) as error:  # an answer may raise anything
        text = " ".join(str(error).split())[:300]
        return Failure("TooDeep" if isinstance(error, RecursionError) else type(error).__name__, text)
    return value


# --- the parent's side ---


def run_apart(
    source: str,
    name: str,
    calls: Sequence[Sequence[Any]],
    drive: str | None = None,
    seconds: float = SECONDS,
    memory: int = MEMORY,
) -> list[Outcome]:
    """Run a function given as source in a process of its own.

    Parameters
    ----------
    source : str
        Defines the function; ``np`` is there.
    name : str
        Of the function.
    calls : sequence of sequence
        The arguments of each call.
    drive : str, optional
        Source of a function ``drive(function, *arguments)`` that is called instead.
    seconds : float
        For all calls together.
    memory : int
        Bytes the process may take beyond what Python and NumPy need.

    Returns
    -------
    list of values or `Failure`
        One for each call. Where the process ended early, those it had done count.

    Examples
    --------
    >>> run_apart("def twice(x): return 2 * x", "twice", [[3], [numpy.array([1.5])]])
    [6, array([3.])]
    >>> run_apart("def leave(): import os; os._exit(0)", "leave", [[]])
    [Failure(kind='Died', text='the process ended without an answer')]
    """
    job = pack(
        {
            "source": source,
            "name": name,
            "calls": [list(c) for c in calls],
            "drive": drive,
            "seconds": seconds,
            "memory": memory,
        }
    )
    end = Failure("Died", "the process ended without an answer")
    with tempfile.TemporaryDirectory() as folder:
        paths = [os.path.join(folder, name) for name in ("input", "output")]
        with open(paths[0], "wb") as input_, open(paths[1], "w+b") as output:
            input_.write(job)
            input_.flush()
            code = (_by_starter if FORKS else _by_itself)(seconds, *paths)
            if code in (None, -getattr(signal, "SIGXCPU", 24)):
                end = Failure("Timeout", f"no answer within {seconds:g} s")
            outcomes = list(_frames(output.read(OUTPUT)))[: len(calls)]
    return outcomes + [end] * (len(calls) - len(outcomes))


def _process(*arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    """Start this file as a program, without the environment."""
    return subprocess.Popen(
        [sys.executable, "-I", "-B", __file__, *arguments],
        stderr=subprocess.DEVNULL,
        env={"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        | {k: os.environ[k] for k in ("SYSTEMROOT", "LD_LIBRARY_PATH") if k in os.environ},
        start_new_session=True,
        **streams,
    )


def _by_itself(seconds: float, input_: str, output: str) -> int | None:
    """Do a job in a process that is started for it; return its exit code, None if it took too long."""
    with open(input_, "rb") as given, open(output, "wb") as written:
        process = _process(stdin=given, stdout=written)
    try:
        return process.wait(seconds + GRACE)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what it may have started goes too
        process.kill()
        process.wait()


_idle: list[subprocess.Popen[bytes]] = []  # starters; as many as there were jobs at once


def _by_starter(seconds: float, *paths: str) -> int | None:
    """Do the same in a copy of a process that waits with NumPy in it, so that it need not be read again.

    The starter is told where the job lies, and never reads it: each copy begins without a trace of others.
    """
    try:
        starter = _idle.pop()
    except IndexError:
        starter = _process("start", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert starter.stdin
    assert starter.stdout
    try:
        starter.stdin.write(json.dumps([seconds, *paths]).encode() + b"\n")
        starter.stdin.flush()
        answer = starter.stdout.readline()
    except BrokenPipeError:
        answer = b""
    if not answer:  # it is gone; the next job gets another
        _end(starter)
        return -signal.SIGKILL
    _idle.append(starter)
    return json.loads(answer)


def _end(starter: subprocess.Popen[bytes]) -> None:
    for stream in (starter.stdin, starter.stdout):
        if stream:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
    starter.wait()


@atexit.register
def _end_all() -> None:
    while _idle:
        _end(_idle.pop())


def _frames(data: bytes) -> Any:
    """Yield the outcomes that were written whole; what an answer wrote among them ends the list."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 8], "little")
        frame = data[at + 8 : at + 8 + length]
        at += 8 + length
        try:
            kind, value = unpack(frame)
        except Exception:  # whatever lies here, it is no outcome
            return
        yield Failure(*map(str, value)) if kind == "failure" else value


# --- the child's side ---


def _start() -> None:
    """Fork a process for each job whose paths come in, and tell how it ended."""
    _read_all_of_numpy()
    for line in iter(sys.stdin.buffer.readline, b""):
        seconds, *paths = json.loads(line)
        child = os.fork()
        if not child:
            try:
                os.setsid()
                for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY)):
                    opened = os.open(paths[number], flags)
                    os.dup2(opened, number)
                    os.close(opened)
                numpy.random.seed()  # noqa: NPY002 - an answer may use it; copies must not share its state
                _main()
            finally:
                os._exit(0)
        end, pause = time.monotonic() + seconds + GRACE, 0.001
        while not (ended := os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            if time.monotonic() > end:
                break
            time.sleep(pause)
            pause = min(2 * pause, 0.01)
        for kill in (os.killpg, os.kill):  # what it may have started goes too
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(json.dumps(code if ended else None) + "\n")
        sys.stdout.flush()


def _main() -> None:
    with open(0, "rb", closefd=False) as file:
        job = unpack(file.read())
    with os.fdopen(os.dup(1), "wb") as output:
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):  # what an answer prints goes nowhere
            os.dup2(nothing, number)
        _limit(job["seconds"], job["memory"])
        _guard()
        space: dict[str, Any] = {"np": numpy, "numpy": numpy, "__name__": "answer"}
        drive: dict[str, Any] = {"np": numpy}
        broken = None
        try:
            if job["drive"]:
                exec(job["drive"], drive)
            exec(compile(job["source"], "<answer>", "exec"), space)
            function = space[job["name"]]
        except BaseException as error:
            broken = Failure(type(error).__name__, " ".join(str(error).split())[:300])
        for arguments in job["calls"]:
            outcome = broken or call(function, arguments, drive.get("drive"))
            failed = type(outcome) is Failure
            frame = pack(("failure", tuple(outcome)) if failed else ("value", outcome))
            output.write(len(frame).to_bytes(8, "little") + frame)
            output.flush()


def _limit(seconds: float, memory: int) -> None:
    """Bound time, memory, files and processes, where the system can."""
    try:
        import resource
    except ImportError:  # not on Windows; there the parent's clock remains
        return
    with open("/proc/self/statm") if os.path.exists("/proc/self/statm") else io.StringIO("0") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    cpu = math.ceil(seconds) + 1
    for name, most in [
        ("RLIMIT_AS", used + memory),
        ("RLIMIT_CPU", cpu),
        ("RLIMIT_FSIZE", OUTPUT),
        ("RLIMIT_CORE", 0),
        ("RLIMIT_NPROC", 0),
    ]:
        with contextlib.suppress(ValueError, OSError):  # a stricter limit stands already
            resource.setrlimit(getattr(resource, name), (most, most + 1))


def _read_all_of_numpy() -> None:
    """Import what NumPy itself imports when it is first used."""
    for module in ("linalg", "fft", "random", "polynomial"):
        getattr(numpy, module)


def _guard() -> None:
    """Refuse files, processes, network, memory by address, and packages besides NumPy.

    An audit hook sees these whatever way they are asked for, and cannot be taken out again. All it needs is
    bound here: an answer may rebind names of modules.
    """
    _read_all_of_numpy()
    inside = tuple(
        os.path.join(p, "") for p in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
    )
    home = os.path.dirname(numpy.__file__)
    own = (os.path.join(home, ""), os.path.join(home + ".libs", ""))
    packages = {*sys.stdlib_module_names, "numpy"} - {"ctypes", "_ctypes", "subprocess", "socket", "_socket"}
    packages -= {"multiprocessing", "_multiprocessing", "_posixsubprocess", "mmap"}
    harmless = {"os.listdir", "os.scandir", "os.walk", "os.fwalk", "sys._getframe", "sys.excepthook"}
    guarded = {"os", "subprocess", "socket", "ctypes", "shutil", "pty", "signal", "mmap", "fcntl", "tempfile"}
    guarded |= {
        "sqlite3",
        "winreg",
        "_winapi",
        "msvcrt",
        "gc",
        "resource",
        "urllib",
        "http",
        "ftplib",
        "_thread",
    }
    guarded |= {"syslog", "webbrowser"}
    is_a, text, letters, refuse, missing = isinstance, str, bytes, PermissionError, ImportError

    def guard(event: str, details: tuple) -> None:
        if event == "open":
            path = details[0]
            if is_a(path, letters):
                path = path.decode("utf-8", "replace")
            if is_a(path, text):
                writes = details[1] is not None and any(c in details[1] for c in "wax+")
                known = path.startswith(own) or (path.startswith(inside) and "-packages" not in path)
                if writes or not known or ".." in path:
                    raise refuse("an answer may not open files")
        elif event == "import":
            if details[0].partition(".")[0] not in packages:
                raise missing(f"an answer may import NumPy and Python's own library, not {details[0]}")
        elif event not in harmless and event.partition(".")[0] in guarded:
            raise refuse(f"an answer may not use {event}")

    sys.addaudithook(guard)


if __name__ == "__main__":
    _start() if "start" in sys.argv[1:] else _main()
