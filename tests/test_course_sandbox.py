"""What an answer may not do: each attempt costs its own exercise and nothing else."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import tinytransformer
from tinytransformer.course import find_exercise, mark, sandbox
from tinytransformer.course.exercise import source_of
from tinytransformer.course.sandbox import Failure, Seed, call, pack, run_apart, unpack

SOFTMAX = find_exercise("softmax")
ON_LINUX = sys.platform == "linux"


def run(body, calls=((),), **limits):
    """Run a function of this body, and return the outcome of each call."""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    return run_apart(f"def f(*given):\n{lines}\n", "f", calls, **limits)


def test_values_come_back_as_they_are():
    value = {"a": [np.arange(6.0).reshape(2, 3), None, True], "b": ("x", 1.5, -3), 7: np.array(["é", "中"])}
    (back,) = run("return given[0]", [(value,)])
    assert pack(back) == pack(value)
    assert type(back["b"]) is tuple


def test_a_seed_arrives_as_a_fresh_generator_each_time():
    drawn = run("return given[0].normal(size=3)", [(Seed(5),), (Seed(5),), (Seed(6),)])
    np.testing.assert_array_equal(drawn[0], np.random.default_rng(5).normal(size=3))
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).all()


def test_arguments_are_copies_that_cannot_be_written():
    x = np.arange(3.0)
    (outcome,) = run("given[0][:] = 7\nreturn 1", [(x,)])
    assert outcome == Failure("ValueError", "assignment destination is read-only")
    (outcome,) = run("given[0]['k'][0][:] = 7\nreturn 1", [({"k": [x]},)])
    assert outcome.kind == "ValueError"
    assert call(lambda a: a.flags.writeable, [x]) is False
    assert x.flags.writeable


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("import sys; sys.exit(0)", "SystemExit"),
        ("raise SystemExit", "SystemExit"),
        ("import os; os._exit(0)", "Died"),
        ("import os; os.abort()", "Died"),
        ("return f()", "TooDeep"),
        ("raise KeyboardInterrupt", "Died"),
        ("return object()", "TypeError"),
        ("return np.array([{}], dtype=object)", "TypeError"),
        ("import os; os.kill(os.getppid(), 9)", "PermissionError"),
        ("import os; os.fork()", "PermissionError"),
        ("import os\nwhile True: os.fork()", "PermissionError"),
        ("import os; os.system('true')", "PermissionError"),
        ("import os; os.execv('/bin/true', ['true'])", "PermissionError"),
        ("import subprocess; subprocess.run(['true'])", "PermissionError"),
        ("import multiprocessing", "ImportError"),
        ("import socket", "ImportError"),
        ("import urllib.request", "ImportError"),
        ("import ctypes; ctypes.CDLL(None)", "PermissionError"),
        ("import tinytransformer", "ImportError"),
        ("open('score.json', 'w')", "PermissionError"),
        ("open('/etc/hostname').read()", "PermissionError"),
        ("import pathlib; pathlib.Path('x').write_text('1')", "PermissionError"),
        ("import os; os.open('x', os.O_CREAT | os.O_RDWR)", "PermissionError"),
        ("import os; os.remove(np.__file__)", "PermissionError"),
        ("import os; os.rename('a', 'b')", "PermissionError"),
        ("np.save('x.npy', np.zeros(3))", "PermissionError"),
        ("np.fromfile('/etc/hostname')", "PermissionError"),
        ("import gc; gc.get_objects()", "PermissionError"),
    ],
)
def test_what_is_refused(body, kind):
    (outcome,) = run(body)
    assert type(outcome) is Failure
    assert outcome.kind == kind, outcome


def test_the_package_cannot_be_read(tmp_path):
    import tinytransformer.course.exercises.softmax as module

    for path in (module.__file__, f"{np.__file__}/../../{tmp_path}"):
        (outcome,) = run("return open(given[0]).read()", [(path,)])
        assert outcome.kind == "PermissionError", outcome
    root = str(Path(tinytransformer.__file__).parents[1])
    (outcome,) = run(f"import sys; sys.path.insert(0, {root!r}); import tinytransformer")
    assert outcome.kind == "ImportError"
    body = f"import importlib, sys; sys.path.insert(0, {root!r}); importlib.import_module('tinytransformer')"
    assert run(body)[0].kind == "PermissionError"


def test_a_loop_without_end_is_stopped():
    started = time.perf_counter()
    outcomes = run("while given[0]: pass\nreturn 3", [(0,), (1,), (0,)], seconds=1)
    assert outcomes[0] == 3  # what was done before counts
    assert [o.kind for o in outcomes[1:]] == ["Timeout", "Timeout"]
    outcomes = run("import time; time.sleep(60)", seconds=1)  # which takes no CPU time
    assert outcomes[0].kind == "Timeout"
    assert time.perf_counter() - started < 20


@pytest.mark.skipif(not ON_LINUX, reason="other systems do not bound the memory of a process")
def test_memory_is_bounded():
    bodies = ["return np.ones(50 * 10**9 // 8).sum()", "x = bytearray(50 * 10**9)"]
    bodies.append("x = []\nwhile True: x.append(np.ones(10**6))")
    for body in bodies:
        (outcome,) = run(body, memory=300 << 20)
        assert outcome.kind in ("MemoryError", "Died"), outcome


def test_what_it_prints_is_no_result():
    frame = pack(("value", 7))
    forged = len(frame).to_bytes(8, "little") + frame
    body = f"import os, sys\nprint({forged!r})\nsys.stdout.flush()\nos.write(1, {forged!r})\nreturn 3"
    assert run(body) == [3]


def test_a_result_of_its_own_making_is_only_a_value():
    """Forged frames stand for values, and the parent judges values: there is no score to write."""
    frame = pack(("value", np.full((3, 5), 0.2)))
    forged = (len(frame).to_bytes(8, "little") + frame) * 50
    lines = ["import os", "for number in range(3, 64):", "    try:", f"        os.write(number, {forged!r})"]
    lines += ["    except OSError:", "        pass", "os._exit(0)"]
    body = "\n".join(f"    {line}" for line in lines)
    result = mark(SOFTMAX, lambda calls: run_apart(f"def softmax(*given):\n{body}\n", "softmax", calls), 1)
    assert result.score == 0


def test_a_flood_of_output_ends_at_its_limit(tmp_path):
    lines = ["import os", "while True:", "    for number in range(3, 16):", "        try:"]
    lines += ["            os.write(number, b'x' * 10**6)", "        except OSError:", "            pass"]
    (outcome,) = run("\n".join(lines), seconds=2)
    assert type(outcome) is Failure


def test_patching_numpy_or_the_checker_changes_the_answer_alone():
    """The parent compares with its own NumPy."""
    body = """
import builtins
np.allclose = np.isclose = lambda *a, **k: True
np.testing_assert = None
builtins.isinstance = lambda *a: True
import __main__
__main__.pack = lambda value: b""
return x
"""
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    source = f"def softmax(x, axis=-1):\n{lines}\n"
    assert mark(SOFTMAX, lambda calls: run_apart(source, "softmax", calls), 1).score == 0


def test_nothing_written_by_an_attempt_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("import os\nfor path in ('a', '/tmp/a'):\n    os.mkdir(path)")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("forks", sorted({False, sandbox.FORKS}))
def test_a_process_of_its_own_or_a_copy_of_one_that_waits(forks, monkeypatch):
    monkeypatch.setattr(sandbox, "FORKS", forks)
    first, second = (
        run("np.left_behind = 1\nreturn np.random.rand(), np.random.rand()")[0] for _ in range(2)
    )
    assert first != second  # NumPy's own generator is not the same in each copy
    body = "import os, sys\nreturn hasattr(np, 'left_behind'), os.getsid(0) == os.getpid(), dict(os.environ)"
    (outcome,) = run(body + ", sorted(os.listdir('/proc/self/fd'))" * ON_LINUX)
    assert outcome[:2] == (False, True)
    assert "PATH" not in outcome[2]
    if ON_LINUX:
        # nothing, four times, and what comes back; the last is the list of these
        assert outcome[3] == ["0", "1", "2", "3", "4", "5"]
    assert run("import os; os._exit(3)")[0].kind == "Died"
    outcomes = run("while given[0]: pass\nreturn 3", [(0,), (1,)], seconds=0.2)
    assert outcomes == [3, Failure("Timeout", "no answer within 0.2 s")]


@pytest.mark.skipif(not sandbox.FORKS, reason="elsewhere each job starts Python")
def test_a_starter_that_is_gone_costs_one_job_and_gets_a_successor():
    sandbox._end_all()
    assert run("return 1") == [1]
    (starter,) = sandbox._idle
    starter.kill()
    starter.wait()
    (outcome,) = run("return 2")
    assert outcome.kind == "Died"
    assert run("return 3") == [3]
    assert sandbox._idle != [starter]


def test_a_starter_serves_many_at_once():
    sandbox._end_all()
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda n: run("return given[0]", [(n,), (-n,)]), range(7)))
    assert found == [[n, -n] for n in range(7)]
    assert len(sandbox._idle) <= 3


def test_a_right_answer_scores_the_same_apart_and_at_once():
    source = source_of(SOFTMAX.reference)
    apart = mark(SOFTMAX, lambda calls: run_apart(source, "softmax", calls), 4)
    assert apart.score == SOFTMAX.points
    mistake = SOFTMAX.mistakes[1]
    source = f"{source_of(mistake.function)}\nsoftmax = {mistake.name}\n"
    apart = mark(SOFTMAX, lambda calls: run_apart(source, "softmax", calls), 4)
    assert apart.misconception == mistake.name


@pytest.mark.parametrize("data", [b"", b"PK", pack(3)[:50], b"\0" * 400])
def test_damaged_values_are_refused(data):
    with pytest.raises(Exception):  # noqa: B017, PT011 - of many kinds
        unpack(data)
