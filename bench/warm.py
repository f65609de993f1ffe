"""Compare a run with nothing to do to a `doit` with an empty dodo.py.

    python bench/warm.py [--runs 15] [--write]

Budgets (design): 1.35 x at 30 catalogue entries, 1.6 x at 1,000; the catalogue has a
lock file. The commands alternate, so that a change of the machine's speed affects both.
Each is measured with bytecode, and without it (PYTHONDONTWRITEBYTECODE=1, as in
containers).
--write puts the table and the plot into bench/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOIT = os.path.join(sysconfig.get_path("scripts"), "doit")
BUDGETS = {30: 1.35, 1_000: 1.6}


def project(folder: Path, entries: int) -> dict[str, str]:
    """Copy the recipe, with that many models, one of them local; return its env."""
    folder.mkdir()
    for name in ("tasks", "demo"):
        shutil.copytree(
            ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("dodo.py", "doit.cfg"):
        shutil.copy2(ROOT / name, folder)
    demo = (ROOT / "demo" / "demo.gguf").read_bytes()
    entry = {
        "title": "A model",
        "license": "MIT",
        "quant": "Q4_K_M",
        "ram": 7,
        "engine": "embedded",
    }
    models = {
        f"model-{i}": {
            **entry,
            "url": f"https://example.org/resolve/{i:040x}/model-{i}.gguf",
            "sha256": hashlib.sha256(str(i).encode()).hexdigest(),
            "size": 5_000_000_000 + i,
        }
        for i in range(entries - 1)
    }
    models["demo"] = {
        **entry,
        "url": "demo/demo.gguf",
        "sha256": hashlib.sha256(demo).hexdigest(),
    }
    engines = {"embedded": {"title": "llama.cpp", "license": "MIT"}}
    catalogue = {"version": 1, "default": "demo", "engines": engines, "models": models}
    (folder / "models.yaml").write_text(json.dumps(catalogue, indent=1), "utf-8")
    return {**os.environ, "LLAMAFILE_CACHE": str(folder / "cache")}


def seconds(command: list[str], cwd: Path, env: dict[str, str]) -> float:
    """Return the wall time of one whole process, in seconds."""
    start = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=env, check=True, capture_output=True)
    return time.perf_counter() - start


def compare(
    entries: int, bytecode: bool, runs: int, work: Path
) -> tuple[float, float, float]:
    """Compare the empty doit to the warm run.

    Args:
        bytecode: Python may write the bytecode of the recipe, which the first run does.

    Returns:
        The median seconds of each, and the median of the ratios of all pairs.
    """
    empty = work / f"empty-{entries}-{bytecode}"
    empty.mkdir()
    (empty / "dodo.py").write_text(
        "def task_nothing():\n    return {'actions': None}\n", "utf-8"
    )
    folder = work / f"recipe-{entries}-{bytecode}"
    env = project(folder, entries)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if not bytecode:
        env["PYTHONDONTWRITEBYTECODE"] = "1"
    warm = [DOIT, "download:demo"]
    seconds([DOIT, "lock"], folder, env)  # as in a team's checkout
    seconds(warm, folder, env)  # compiles the catalogue and copies the file
    pairs = []
    for _ in range(runs + 1):
        pairs.append((seconds([DOIT], empty, env), seconds(warm, folder, env)))
    pairs = pairs[1:]
    ratio = statistics.median(b / a for a, b in pairs)
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        ratio,
    )


def plot(rows: list[tuple[int, bool, float, float, float]], path: Path) -> None:
    """Plot the ratio against the number of entries, with the budget."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.2), layout="constrained")
    axes.plot([str(r[0]) for r in rows], [r[-1] for r in rows], "o-", label="measured")
    axes.plot(
        [str(r[0]) for r in rows],
        [BUDGETS[r[0]] for r in rows],
        "--",
        color="grey",
        label="budget",
    )
    axes.set(
        xlabel="catalogue entries", ylabel="ratio to an empty doit", ylim=(0.9, None)
    )
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Measure, print the table, and exit with 1 if a budget is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = [
            (n, bytecode, *compare(n, bytecode, options.runs, Path(work)))
            for bytecode in (True, False)
            for n in BUDGETS
        ]
    lines = [
        "| entries | bytecode | empty doit | `doit download:demo` | ratio | budget |",
        "|---|---|---|---|---|---|",
    ]
    for n, bytecode, empty, warm, ratio in rows:
        times = f"{empty * 1000:.0f} ms | {warm * 1000:.0f} ms"
        cached = "yes" if bytecode else "no"
        lines.append(f"| {n:,} | {cached} | {times} | {ratio:.2f} | {BUDGETS[n]:.2f} |")
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    how = f"medians of {options.runs} pairs, the two commands in turn"
    text = "\n".join(
        (*lines, "", f"{machine}, Python {platform.python_version()}; {how}.")
    )
    print(text)
    if options.write:
        (ROOT / "bench" / "warm.md").write_text(text + "\n", "utf-8")
        plot([row for row in rows if row[1]], ROOT / "bench" / "warm.svg")
    return 0 if all(row[-1] <= BUDGETS[row[0]] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
