"""One side of a benchmark in a process of its own: it answers lines on stdin with lines of JSON on stdout.

``python worker.py SIDE NAME THREADS CHECKS`` sets the work up and says what it computed in its first steps,
at most CHECKS of them, to be compared with the other sides, and the seconds of the last. Then each line ``n``
runs n steps and returns their seconds.
"""

import importlib
import json
import os
import sys
import time

MODULES = {"ours": "ours", "torch": "torch_peer", "torch.compile": "torch_peer", "jax": "jax_peer"}


def resident(field):
    """Bytes of this process in memory now (VmRSS) or at most since `forget_peak` (VmHWM)."""
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(field))


def private(process):
    """Bytes that another process has to itself; it keeps what its arrays free, so that is its most."""
    with open(f"/proc/{process}/smaps_rollup") as file:
        return sum(1024 * int(line.split()[1]) for line in file if line.startswith("Private_"))


def forget_peak():
    """Let the kernel count the highest memory use anew."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def main():
    """Set up, then work as told until stdin ends."""
    side, name, threads, checks = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr

    def answer(value):
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    module = importlib.import_module(MODULES[side])
    memory = name.startswith("memory/")
    empty = resident("VmRSS") if memory else 0
    work = module.make(name.replace("memory/", "train/"), threads, compiled=side == "torch.compile")
    check = []
    for _ in range(min(work.checks, checks)):
        start = time.perf_counter()
        check.append(work.step())
        last = time.perf_counter() - start
    answer({"check": check, "units": work.units, "seconds": last})
    for line in sys.stdin:
        if memory:
            forget_peak()
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            work.step()
            seconds.append(time.perf_counter() - start)
        found = None
        if memory:
            found = resident("VmHWM") - empty + sum(map(private, getattr(work, "processes", list)()))
        answer({"seconds": seconds, "bytes": found})


if __name__ == "__main__":
    main()
