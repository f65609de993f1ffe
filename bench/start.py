"""Compare the time until a server is ready to the start of the engine alone.

    python bench/start.py [--runs 15] [--write]

Budget (issue 4): 250 ms. The engine alone is started with the recipe's command, and
/health is polled every millisecond; `doit start` and `doit with … -- true` are whole
processes. They alternate, so that a change of the machine's speed affects all of them.
--write puts the table into bench/.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOIT = os.path.join(sysconfig.get_path("scripts"), "doit")
MODEL = ROOT / "demo" / "demo.gguf"
BUDGET_MS = 250


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ready(port: int) -> bool:
    """Whether /health answers 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def engine_alone(env: dict[str, str]) -> float:
    """Return the seconds from the start of the engine until it is ready."""
    port = free_port()
    words = [
        "-m",
        "tasks.engine.embedded",
        "--server",
        "-m",
        str(MODEL),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    quiet = subprocess.DEVNULL
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=env, stdout=quiet, stderr=quiet
    ) as engine:
        while not ready(port):
            time.sleep(0.001)
        took = time.perf_counter() - start
        engine.terminate()
    return took


def doit(env: dict[str, str], *words: str) -> float:
    """Return the seconds of a whole doit."""
    start = time.perf_counter()
    subprocess.run([DOIT, *words], cwd=ROOT, env=env, check=True, capture_output=True)
    return time.perf_counter() - start


def start(env: dict[str, str]) -> float:
    """Return the seconds of `doit start`; its server is stopped outside of the time."""
    took = doit(env, "start", "--model", "demo", "--port", "0")
    doit(env, "stop", "--all")
    return took


def run(runs: int) -> dict[str, list[float]]:
    """Return the seconds of each command, for each round."""
    work = tempfile.mkdtemp(prefix="bench-start-")
    empty = Path(work, "empty")
    empty.mkdir()
    (empty / "dodo.py").write_text(
        "def task_nothing():\n    return {'actions': None}\n", "utf-8"
    )
    env = {
        **os.environ,
        "LLAMAFILE_CACHE": str(Path(work, "cache")),
        "PYTHONPATH": str(ROOT),
    }
    doit(env, "verify", "--model", "demo")
    cases: dict[str, Callable[[], float]] = {
        "engine alone": lambda: engine_alone(env),
        "an empty doit": lambda: doit(
            {**env, "DOIT_FILE": str(empty / "dodo.py")}, "nothing"
        ),
        "doit start": lambda: start(env),
        "doit with -- true": lambda: doit(env, "with", "--model", "demo", "--", "true"),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    try:
        for _ in range(runs + 1):
            for name, case in cases.items():
                found[name].append(case())
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        name: times[1:] for name, times in found.items()
    }  # the first round warms up


def table(found: dict[str, list[float]]) -> str:
    """Return the medians as Markdown."""
    alone = found["engine alone"]
    lines = ["| | median | over the engine alone, round by round |", "|---|---|---|"]
    for name, times in found.items():
        over = statistics.median(
            (b - a) * 1000 for a, b in zip(alone, times, strict=True)
        )
        lines.append(
            f"| {name} | {statistics.median(times) * 1000:.0f} ms | {over:+.0f} ms |"
        )
    over = statistics.median(
        (b - a) * 1000 for a, b in zip(alone, found["doit start"], strict=True)
    )
    result = "kept" if over <= BUDGET_MS else "MISSED"
    lines += ["", f"`doit start` has a budget of {BUDGET_MS} ms: {result}."]
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table; write it with --write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = table(run(options.runs))
    text += (
        f"\n\n{options.runs} rounds, embedded engine, demo model; "
        f"Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores. "
        f"Command: `python bench/start.py --runs {options.runs}`\n"
    )
    print(text)
    if options.write:
        (ROOT / "bench" / "start.md").write_text(
            f"# A ready server, beside its engine alone\n\n{text}", "utf-8"
        )


if __name__ == "__main__":
    main()
