"""Compare the time this library takes with that of PyTorch and JAX, on the same work, in one run.

``python tests/benchmarks/run.py [--quick] [--only NAME] [--json FILE] [--docs FOLDER]``

Each side works in a process of its own, with the same initial weights, data, float32, cores and threads.
First all sides must compute the same: the losses of the first steps, the tokens, the outputs. Then they take
turns, A B C A B C …, while the others are stopped. A side's figure is the median over its turns; the ratio is
our figure over that of the fastest peer; the spread is that of the ratios of turns side by side. The peers
come with ``pip install '.[bench]'``; one that is absent or fails is left out with a note.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import report
import sizes
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PEERS = {"torch": "torch", "torch.compile": "torch", "jax": "jax"}  # and the module that must be there
EXTRA = "extra/default-run"  # not among the names: a thousand steps from the command line, without peers
TOLERANCE = 2e-4  # relative, of what the sides compute first: float32 sums in different orders
NOTHING_TO_COMPILE = {"overhead/4x4": "compiles the chain into one operation", "import": "is import torch"}


class LeftOutError(Exception):
    """Why a side is left out."""


class Side:
    """A process that does one side's work, a turn at a time."""

    def __init__(self, side: str, name: str, threads: int, checks: int = 3):
        self.side = side
        limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
        paths = os.pathsep.join([str(ROOT), str(HERE)])
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the process
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "worker.py"), side, name, str(threads), str(checks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env={**os.environ, **dict.fromkeys(limits, str(threads)), "PYTHONPATH": paths},
        )
        try:
            hello = self._answer()
        except LeftOutError:
            self.close()
            raise
        self.check, self.units, self.seconds = hello["check"], hello["units"], hello["seconds"]
        self.stop()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            self.errors.seek(0)
            said = self.errors.read().strip().splitlines() or [f"ended with code {self.process.wait()}"]
            raise LeftOutError(f"failed: {said[-1]}")
        return json.loads(line)

    def turn(self, steps: int) -> dict[str, Any]:
        """Run some steps while the other sides stand still."""
        if hasattr(signal, "SIGCONT"):
            self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write(f"{steps}\n")  # type: ignore[union-attr]
        self.process.stdin.flush()  # type: ignore[union-attr]
        answer = self._answer()
        self.stop()
        return answer

    def stop(self) -> None:
        """Let the process stand still: its threads might wait in a loop for work."""
        if hasattr(signal, "SIGSTOP"):
            self.process.send_signal(signal.SIGSTOP)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def measured(name: str, peers: list[str], threads: int, quick: bool) -> dict[str, Any]:
    """Run one benchmark and return its entry of the results."""
    notes = {}
    sides = ["ours"]
    for peer in peers:
        if peer == "torch.compile" and name in NOTHING_TO_COMPILE:
            notes[peer] = NOTHING_TO_COMPILE[name]
        elif quick and peer != "torch":
            notes[peer] = "not in a quick run"
        elif importlib.util.find_spec(PEERS[peer]) is None:
            notes[peer] = "not installed: pip install '.[bench]'"
        else:
            sides.append(peer)
    if name == "import":
        turns = import_turns(sides, 2 if quick else 11)
    elif name.startswith("memory/"):
        turns = memory_turns(name, sides, threads, 1 if quick else 3, notes)
    else:
        turns = step_turns(name, sides, threads, quick, notes)
    return entry(name, turns, notes, "bytes" if name.startswith("memory/") else "seconds")


def step_turns(
    name: str, sides: list[str], threads: int, quick: bool, notes: dict[str, str]
) -> dict[str, list[float]]:
    """Let the sides take turns; return the seconds of a step, or of a part of it, in each turn."""
    length, least, most, budget = (0.2, 1, 3, 1.0) if quick else (0.5, 3, 15, 45.0)  # seconds, turns, seconds
    with ExitStack() as stack:
        working: list[Side] = []
        for side in sides:
            try:
                worker = Side(side, name, threads, checks=1 if quick else 3)
            except LeftOutError as reason:
                if side == "ours":
                    raise
                notes[side] = str(reason)
                continue
            stack.callback(worker.close)
            working.append(worker)
            compare(name, working[0], worker)
        warm = {w.side: w.seconds if quick else w.turn(1)["seconds"][0] for w in working}
        steps = {side: max(1, math.ceil(length / seconds)) for side, seconds in warm.items()}
        turns: dict[str, list[float]] = {w.side: [] for w in working}
        started = time.perf_counter()
        for turn in range(most):
            if turn >= least and time.perf_counter() - started > budget:
                break
            for w in working:
                # of several steps the first is not counted: the others' data are in the cache
                seconds = w.turn(steps[w.side] + (steps[w.side] > 1))["seconds"]
                turns[w.side].append(statistics.median(seconds[len(seconds) > 1 :]) / w.units)
    return turns


def compare(name: str, ours: Side, other: Side) -> None:
    """Refuse to compare the times of sides that compute different things."""
    pairs = list(zip(numbers(ours.check), numbers(other.check), strict=True))
    errors = [abs(a - b) / max(abs(a), abs(b), 1e-3) for a, b in pairs]
    if not all(error <= TOLERANCE for error in errors):  # a NaN is not
        raise SystemExit(
            f"{name}: {other.side} computes something else than ours, relative difference {max(errors):.1e}: "
            f"{other.check} and {ours.check}"
        )


def numbers(value: Any) -> list[float]:
    """Flatten nested lists."""
    return [n for item in value for n in numbers(item)] if isinstance(value, list) else [value]


def memory_turns(
    name: str, sides: list[str], threads: int, turns: int, notes: dict[str, str]
) -> dict[str, list[float]]:
    """Return the most memory that each side had in a training step, beyond that after its imports."""
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit(f"{name} needs Linux, which counts a process's highest memory use anew on demand")
    found: dict[str, list[float]] = {}
    for _ in range(turns):
        for side in sides:
            if side in notes:
                continue
            try:
                worker = Side(side, name, threads)
            except LeftOutError as reason:
                if side == "ours":
                    raise
                notes[side] = str(reason)
                continue
            found.setdefault(side, []).append(worker.turn(3)["bytes"])
            worker.close()
    return found


def import_turns(sides: list[str], turns: int) -> dict[str, list[float]]:
    """Return the seconds of each side's import in fresh processes; the first one only warms the files."""
    found: dict[str, list[float]] = {side: [] for side in sides}
    compiled = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}  # from compiled files, as they are installed
    for turn in range(turns + 1):
        for side in sides:
            module = "tinytransformer" if side == "ours" else PEERS[side]
            code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
            answer = subprocess.run(
                [sys.executable, "-c", code],
                cwd=ROOT,
                env=compiled,
                capture_output=True,
                text=True,
                check=True,
            )
            if turn:
                found[side].append(float(answer.stdout))
    return found


def entry(name: str, turns: dict[str, list[float]], notes: dict[str, str], unit: str) -> dict[str, Any]:
    """Make the figures of the turns one entry of the results."""
    medians = {side: statistics.median(values) for side, values in turns.items()}
    ours = medians.pop("ours")
    fastest = min(medians, key=medians.__getitem__, default=None)
    ratio = spread = None
    if fastest is not None:
        ratio = ours / medians[fastest]
        ratios = [a / b for a, b in zip(turns["ours"], turns[fastest], strict=True)]
        spread = [min(ratios), max(ratios)]
    return {
        "name": name,
        "ours": ours,
        "peers": medians,
        "ratio": ratio,
        "fastest": fastest,
        "spread": spread,
        "unit": unit,
        "notes": notes,
    }


def default_run() -> dict[str, Any]:
    """Time the command line: a thousand steps of its default model, data, evaluation and all."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["-m", "tinytransformer", "train", "--steps", "1000", "--out", str(Path(folder, "run"))]
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True)
        return entry(EXTRA, {"ours": [time.perf_counter() - started]}, {}, "seconds")


def figure(value: float | None, unit: str) -> str:
    """Write a figure with three digits and a unit that fits.

    >>> figure(0.00345, "seconds"), figure(7.3e7, "bytes"), figure(None, "seconds")
    ('3.45 ms', '73.0 MB', '-')
    """
    if value is None:
        return "-"
    if unit == "bytes":
        return f"{value / 1e6:.1f} MB"
    power, prefix = next((p, s) for p, s in ((0, "s"), (3, "ms"), (6, "µs")) if value * 10**p >= 1 or p == 6)
    return f"{value * 10**power:.3g} {prefix}" if value * 10**power < 1000 else f"{value:.0f} s"


def table(results: list[dict[str, Any]]) -> str:
    """Lay the results out as a table in Markdown, which reads well in a terminal too."""
    rows = [["", "ours", *PEERS, "ratio", "from turn to turn"]]
    for r in results:
        figures = [figure(v, r["unit"]) for v in (r["ours"], *map(r["peers"].get, PEERS))]
        ratio = "-" if r["ratio"] is None else f"{r['ratio']:.2f}"
        spread = "-" if r["spread"] is None else "{:.2f} to {:.2f}".format(*r["spread"])
        rows.append([r["name"], *figures, ratio, spread])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows
    )


def chosen(only: list[str]) -> list[str]:
    """Return the benchmarks to run: all, or those whose names begin as asked for."""
    if not only:
        return list(sizes.NAMES)
    known = [*sizes.NAMES, EXTRA]
    for beginning in only:
        if not any(name.startswith(beginning) for name in known):
            raise SystemExit(f"--only {beginning} names no benchmark: there are {', '.join(known)}")
    return [name for name in known if name.startswith(tuple(only))]


def arguments(given: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="few turns, PyTorch eager only")
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="a name or how names begin; repeatable"
    )
    parser.add_argument("--peer", action="append", choices=PEERS, help="compare with this one; repeatable")
    parser.add_argument("--threads", type=int, default=2, help="threads of each side (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results")
    parser.add_argument("--docs", type=Path, metavar="FOLDER", help="put table and chart into speed.md there")
    return parser.parse_args(given)


def main(given: list[str] | None = None) -> None:
    """Run what the command line asks for."""
    asked = arguments(given)
    results: list[dict[str, Any]] = []
    bar = tqdm(chosen(asked.only), desc="benchmarks", disable=None)
    for name in bar:
        bar.set_postfix_str(name)
        if name == EXTRA:
            result = default_run()
        else:
            result = measured(name, asked.peer or list(PEERS), asked.threads, asked.quick)
        results.append(result)
        if asked.json:  # after each: nothing is lost if a later one fails
            asked.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(report.machine(asked.threads))
    print(table(results))
    for r in results:
        for peer, note in r["notes"].items():
            print(f"{r['name']}: without {peer}, {note}")
    if asked.docs:
        report.write(asked.docs, results, table(results), asked.threads)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
