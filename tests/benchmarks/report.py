"""Put results into the documentation: the table and the machine into speed.md, and the chart beside it.

``python tests/benchmarks/run.py --docs docs`` does it after a run. To put several runs together:
``python tests/benchmarks/report.py docs FILE.json …``; of two results with one name the later file's counts.
"""

import importlib.metadata
import json
import os
import platform
import re
import sys
from pathlib import Path

import numpy  # its BLAS is among what the machine is described by
import sizes

PLACE = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- end of results -->)", re.DOTALL)
# ratios that are aimed at, to the fastest peer; that of import to PyTorch
TARGETS = {"train": 0.80, "generate/batch1": 0.50, "generate/batch8": 0.90, "bert": 0.90, "overhead": 0.70}
TARGETS |= {"import": 0.10, "memory": 1.00}
COLOURS = {"ours": "#d95f02", "torch": "#7570b3", "torch.compile": "#b3b0d9", "jax": "#1b9e77"}


def target(name):
    """Return the ratio that a benchmark aims at; None for one without."""
    return next((value for start, value in TARGETS.items() if name.startswith(start)), None)


def machine(threads):
    """Say in a line what it was measured on."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"^model name\s*: (.*)$", text, re.MULTILINE):
            model = f"{found[1]}, {'with' if 'avx512f' in text else 'without'} AVX-512"
    versions = [f"Python {platform.python_version()}"]
    for name, package in (("NumPy", "numpy"), ("PyTorch", "torch"), ("JAX", "jax")):
        try:
            versions.append(f"{name} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"no {name}")
    from threadpoolctl import threadpool_info

    for pool in threadpool_info():  # which kernels it took, for an environment variable may hold it back
        if pool["user_api"] == "blas":
            versions.append(
                f"{pool['internal_api']} {pool['version']} ({pool.get('architecture', 'unknown')})"
            )
    return f"{model}, {os.cpu_count()} cores, {threads} threads, float32; {', '.join(versions)}."


def write(folder, results, table, threads):
    """Write the table into the page, between its marks, no figure apart from its unit, and draw the chart."""
    page = Path(folder, "speed.md")
    text = page.read_text(encoding="utf-8")
    if not PLACE.search(text):
        raise SystemExit(f"{page} has no place for the results: <!-- results --> and <!-- end of results -->")
    table = re.sub(r"(?<=\d) (?=[mµ]?s\b|MB)|(?<=\d) to (?=\d)", lambda m: m[0].replace(" ", "\u00a0"), table)
    notes = [f"- {r['name']}: without {peer}, {note}." for r in results for peer, note in r["notes"].items()]
    block = "\n\n".join(filter(None, [machine(threads), table, "\n".join(notes)])) + "\n"
    page.write_text(PLACE.sub(lambda _: block, text), encoding="utf-8")
    chart(Path(folder, "speed.png"), results)


def chart(path, results):
    """Draw the time of each side over that of the fastest peer, and the targets."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    compared = [r for r in results if r["ratio"] is not None]
    sides = [s for s in COLOURS if s == "ours" or any(s in r["peers"] for r in compared)]
    height = 0.8 / max(len(sides), 1)
    figure, axes = plt.subplots(figsize=(8, 0.62 * len(compared) + 1.2), layout="constrained")
    for i, side in enumerate(sides):
        found = [
            (row, (r["ours"] if side == "ours" else r["peers"][side]) / r["peers"][r["fastest"]])
            for row, r in enumerate(compared)
            if side == "ours" or side in r["peers"]
        ]
        places = [row + (i - (len(sides) - 1) / 2) * height for row, _ in found]
        values = [value for _, value in found]
        axes.barh(places, values, height, color=COLOURS[side], label=side)
        for place, value in zip(places, values, strict=True):
            where = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": 7}
            axes.annotate(f"{value:.2f}", (min(value, 3.0), place), **where)
    for row, r in enumerate(compared):
        if goal := target(r["name"]):
            if r["name"] == "import":
                goal *= r["peers"].get("torch", numpy.nan) / r["peers"][r["fastest"]]
            axes.plot([goal, goal], [row - 0.45, row + 0.45], color="black", linewidth=1.2)
    axes.plot([], [], color="black", linewidth=1.2, label="target")
    axes.set_yticks(range(len(compared)), [r["name"] for r in compared])
    axes.set_xlim(0, 3.2)
    axes.invert_yaxis()
    axes.set_xlabel("time (or memory) over that of the fastest peer; shorter is better, cut off at 3.2")
    axes.legend(loc="upper right", fontsize=8, ncols=len(sides) + 1, bbox_to_anchor=(1, 1.1), frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main():
    """Put the results of several files together."""
    from run import EXTRA, table

    folder, *files = sys.argv[1:]
    results = {r["name"]: r for file in files for r in json.loads(Path(file).read_text(encoding="utf-8"))}
    ordered = [results[name] for name in (*sizes.NAMES, EXTRA) if name in results]
    write(folder, ordered, table(ordered), threads=2)


if __name__ == "__main__":
    main()
