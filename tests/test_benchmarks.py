"""The benchmark command, without peers and without judging times: what it writes and how it compares."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
NAMES = ["train/micro", "train/nano", "train/small", "train/baby", "generate/batch1", "generate/batch8"]
NAMES += ["bert/forward", "overhead/4x4", "import", "memory/small"]


@pytest.fixture(scope="module")
def bench():
    """The command as a module, with those beside it, which have common names."""
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("benchmarks_run", FOLDER / "run.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))
        for name in ("sizes", "report"):
            sys.modules.pop(name, None)


def test_names_are_those_agreed_on_and_may_be_chosen_by_how_they_begin(bench):
    assert bench.chosen([]) == NAMES
    assert bench.chosen(["train", "import"]) == [*NAMES[:4], "import"]
    assert bench.chosen(["generate/batch1"]) == ["generate/batch1"]
    assert bench.chosen(["extra"]) == ["extra/default-run"]
    with pytest.raises(SystemExit, match=r"--only trian names no benchmark: there are train/micro, "):
        bench.chosen(["train", "trian"])


def test_the_ratio_is_that_of_medians_to_the_fastest_peer(bench):
    turns = {"ours": [2.0, 3.0, 10.0], "torch": [4.0, 2.0, 7.0], "jax": [5.0, 5.0, 1.0]}
    entry = bench.entry("train/micro", turns, {"torch.compile": "not installed"}, "seconds")
    assert entry["ours"] == 3.0
    assert entry["peers"] == {"torch": 4.0, "jax": 5.0}
    assert entry["fastest"] == "torch"
    assert entry["ratio"] == 3.0 / 4.0
    assert entry["spread"] == [0.5, 1.5]
    alone = bench.entry("train/micro", {"ours": [2.0]}, {}, "seconds")
    assert (alone["ours"], alone["peers"], alone["ratio"], alone["spread"]) == (2.0, {}, None, None)
    table = bench.table([entry, alone])
    assert "| train/micro | 3 s  | 4 s   | -             | 5 s | 0.75  | 0.50 to 1.50      |" in table
    assert len({len(line) for line in table.splitlines()}) == 1


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00345, "seconds", "3.45 ms"),
        (2.5, "seconds", "2.5 s"),
        (4.2e-6, "seconds", "4.2 µs"),
        (3e-7, "seconds", "0.3 µs"),
        (7.31e7, "bytes", "73.1 MB"),
        (None, "bytes", "-"),
    ],
)
def test_figures_are_written_with_a_unit_that_fits(bench, value, unit, text):
    assert bench.figure(value, unit) == text


class Answering:
    def __init__(self, side, check):
        self.side, self.check = side, check


def test_sides_that_compute_different_things_are_not_compared(bench):
    ours = Answering("ours", [4.17, 4.16])
    bench.compare("train/micro", ours, Answering("torch", [4.17002, 4.16001]))
    with pytest.raises(SystemExit, match="train/micro: jax computes something else than ours"):
        bench.compare("train/micro", ours, Answering("jax", [4.17, 4.18]))
    with pytest.raises(SystemExit, match="something else"):
        bench.compare("train/micro", ours, Answering("jax", [4.17, float("nan")]))
    with pytest.raises(SystemExit, match="something else"):
        bench.compare("generate/batch1", Answering("ours", [[5, 7]]), Answering("torch", [[5, 8]]))


@pytest.mark.parametrize("name", ["train/tiny", "overhead/4x4"])
def test_a_side_works_in_its_own_process(bench, name):
    side = bench.Side("ours", name, 1)
    try:
        assert bench.numbers(side.check)
        seconds = side.turn(2)["seconds"]
        assert len(seconds) == 2
        assert min(seconds) > 0
    finally:
        side.close()


def test_threads_that_share_a_batch_have_blas_at_one_thread():
    """As in `Trainer.run`: with more, they would wait for each other, and our side look slow."""
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import ours, threadpoolctl; side = ours.make('train/small', 2); side.step(); "
            "print({p['num_threads'] for p in threadpoolctl.threadpool_info() if p['user_api'] == 'blas'})",
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(FOLDER.parents[1]), str(FOLDER)])},
        capture_output=True,
        text=True,
    )
    assert said.stdout in ("{1}\n", "set()\n"), said.stderr  # none where BLAS cannot be asked


def test_memory_is_counted_beyond_the_imports(bench):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux counts a process's highest memory use anew")
    (found,) = bench.memory_turns("memory/tiny", ["ours"], 1, 1, {})["ours"]
    assert 1e4 < found < 1e8


def test_the_memory_of_a_process_that_helps_is_counted_too(bench):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux counts a process's highest memory use anew")
    ours, worker = importlib.import_module("ours"), importlib.import_module("worker")
    work = ours.make("train/nano", 2)
    try:
        work.step()
        (helper,) = work.processes()
        assert 1e7 < worker.private(helper) < 2e8  # what it computes and keeps: arrays of 1.5 MB by the dozen
    finally:
        work.working.__exit__(None, None, None)
    (alone,) = bench.memory_turns("memory/nano", ["ours"], 1, 1, {})["ours"]
    (both,) = bench.memory_turns("memory/nano", ["ours"], 2, 1, {})["ours"]
    assert both > 1.1 * alone  # each has half of the activations, and both have weights and gradients


def test_a_side_that_fails_says_why(bench):
    with pytest.raises(bench.LeftOutError, match="failed: KeyError: 'giant'"):
        bench.Side("ours", "train/giant", 1)


def test_the_command_writes_the_agreed_form(bench, tmp_path):
    """As a user calls it; where a peer is not installed, a note says so."""
    file = tmp_path / "results.json"
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--only", "overhead", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (entry,) = json.loads(file.read_text(encoding="utf-8"))
    assert entry["name"] == "overhead/4x4"
    assert 1e-7 < entry["ours"] < 1e-2  # seconds, not of the whole chain and not in ms
    installed = importlib.util.find_spec("torch") is not None
    assert ("torch" in entry["peers"]) == installed
    assert (entry["ratio"] is not None) == installed
    assert entry["notes"].get("torch") == (None if installed else "not installed: pip install '.[bench]'")
    assert "overhead/4x4" in done.stdout


def test_the_page_gets_table_and_chart(bench, tmp_path):
    import report

    page = tmp_path / "speed.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n", encoding="utf-8")
    results = [
        bench.entry(
            name, {"ours": [1.0], "torch": [2.0], "jax": [3.0]}, {"torch.compile": "absent"}, "seconds"
        )
        for name in NAMES
    ]
    report.write(tmp_path, results, bench.table(results), 2)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- results -->\n")
    assert text.endswith("<!-- end of results -->\nafter\n")
    assert "old" not in text
    assert "2 threads" in text
    assert "1\u00a0s" in text  # on a narrow page too a figure and its unit stay on one line
    assert "- import: without torch.compile, absent." in text
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert {report.target(name) for name in NAMES} == {0.8, 0.5, 0.9, 0.7, 0.1, 1.0}
    page.write_text("nothing", encoding="utf-8")
    with pytest.raises(SystemExit, match="has no place for the results"):
        report.write(tmp_path, results, "", 2)
