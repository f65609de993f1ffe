"""Compare a model of an endpoint to the same model alone, and measure the memory.

    python bench/endpoint.py [--runs 40] [--requests 200] [--seed N] [--write]

Needs llama-server on PATH; Linux only. `doit start` starts the endpoint, and the model
alone. Requests for a first token alternate between them. The bound for a loaded model
is 1.10 times the model alone (issue 16). For the memory, requests go round four models
at random, of which two may be loaded: the proportional set size (Pss) of all processes
must stay below the budget. --write puts table and plot into bench/.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import office
import psutil

ROOT = Path(__file__).resolve().parent.parent
DOIT = os.path.join(sysconfig.get_path("scripts"), "doit")
BOUND = 1.10
CONTEXTS = {"large": 32768, "middle": 16384, "small": 8192, "least": 1024}
MEMORY = 0.35  # GB: the two largest fit, three may not
TOKENS = 500  # of the prompt
SAMPLE_S = 0.05
LIMIT_S = 120.0


class Sample(NamedTuple):
    """The memory at one moment."""

    seconds: float
    pss: int  # bytes of router and models
    models: int  # processes of models


class Bench:
    """A cache with the endpoint and its models, and doit to start them."""

    def __init__(self, work: Path) -> None:
        catalogue = office.write(work / "models.yaml", CONTEXTS, (), MEMORY)
        self._cache = work / "cache"
        self._env = {
            **os.environ,
            "LLAMAFILE_CACHE": str(self._cache),
            "LLAMAFILE_CATALOGUE": str(catalogue),
        }

    def doit(self, *words: str) -> str:
        """Run doit; return its output."""
        done = subprocess.run(
            [DOIT, *words], cwd=ROOT, env=self._env, check=True, capture_output=True
        )
        return done.stdout.decode()

    def start(self, name: str) -> tuple[int, int]:
        """Start a server in the background; return its port and its pid."""
        self.doit("start", "--model", name, "--port", "0")
        rows = json.loads(self.doit("status", "--model", name, "--json"))
        return int(rows[0]["url"].rpartition(":")[2]), int(rows[0]["pid"])

    def command(self, name: str) -> list[str]:
        """Return the command line of the only server of a model."""
        [path] = self._cache.glob(f"run/*/{name}-*.json")
        return list(json.loads(path.read_text("utf-8"))["command"])


def prompt(chance: random.Random) -> list[int]:
    """Return the tokens of a prompt that no cache knows."""
    return [chance.randrange(300, 1500) for _ in range(TOKENS)]


def first_token(port: int, name: str, tokens: list[int]) -> float:
    """Return the seconds from a request to the first event of its answer."""
    body = {"model": name, "prompt": tokens, "n_predict": 1}
    body |= {"stream": True, "cache_prompt": False}
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    start = time.perf_counter()
    try:
        link.request("POST", "/completion", json.dumps(body))
        response = link.getresponse()
        line = response.readline()
        took = time.perf_counter() - start
        if response.status != 200 or not line.startswith(b"data:"):
            raise RuntimeError(f"{name}: {response.status} {line!r}")
        response.read()
        return took
    finally:
        link.close()


def unload(port: int, name: str) -> None:
    """Unload a model of the endpoint, and wait until it has ended."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    link.request("POST", "/models/unload", json.dumps({"model": name}))
    link.getresponse().read()
    while True:
        link.request("GET", "/models")
        models = json.loads(link.getresponse().read())["data"]
        states = {model["id"]: model["status"]["value"] for model in models}
        if states[name] == "unloaded":
            break
        time.sleep(0.01)
    link.close()


def alone(command: list[str], port: int, tokens: list[int]) -> float:
    """Return the seconds from the start of llama-server to its first token."""
    quiet = subprocess.DEVNULL
    start = time.perf_counter()
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        while process.poll() is None:
            with suppress(OSError, RuntimeError, http.client.HTTPException):
                first_token(port, "least", tokens)
                return time.perf_counter() - start
            time.sleep(0.001)
        raise RuntimeError(f"{command[0]} ended with {process.returncode}")
    finally:
        process.kill()
        process.wait()


def loaded_times(bench: Bench, runs: int, chance: random.Random) -> list[list[float]]:
    """Return the seconds to the first token: through the router, and alone."""
    router, _ = bench.start("office")
    single, _ = bench.start("least")
    found: list[list[float]] = [[], []]
    for _ in range(runs + 1):
        tokens = prompt(chance)
        found[0].append(first_token(router, "least", tokens))
        found[1].append(first_token(single, "least", tokens))
    bench.doit("stop", "--all")
    return [times[1:] for times in found]  # the first round warms up


def unloaded_times(bench: Bench, runs: int, chance: random.Random) -> list[list[float]]:
    """Return the seconds to the first token of a model that has to be loaded."""
    single, _ = bench.start("least")
    command = bench.command("least")
    bench.doit("stop", "--all")
    router, _ = bench.start("office")
    found: list[list[float]] = [[], []]
    for _ in range(runs + 1):
        tokens = prompt(chance)
        found[0].append(first_token(router, "least", tokens))
        unload(router, "least")
        found[1].append(alone(command, single, tokens))
    bench.doit("stop", "--all")
    return [times[1:] for times in found]


class Sampler:
    """Reads the memory of a router and its models while a block runs."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._start = time.monotonic()
        self._done = threading.Event()
        self.samples: list[Sample] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(SAMPLE_S):
            children = self._root.children()
            total = sum(pss(process.pid) for process in (self._root, *children))
            elapsed = time.monotonic() - self._start
            self.samples.append(Sample(elapsed, total, len(children)))


def pss(pid: int) -> int:
    """Return the proportional set size of a process; 0 if it has ended."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
        line = next(line for line in lines if line.startswith("Pss:"))
        return int(line.split()[1]) * 1024
    return 0


def memory(bench: Bench, requests: int, chance: random.Random) -> list[Sample]:
    """Ask all models at random; return the memory over time."""
    port, pid = bench.start("office")
    with Sampler(pid) as sampler:
        for _ in range(requests):
            first_token(port, chance.choice([*CONTEXTS]), prompt(chance))
    bench.doit("stop", "--all")
    return sampler.samples


def table(
    loaded: list[list[float]], unloaded: list[list[float]], samples: list[Sample]
) -> tuple[str, bool]:
    """Return the results as Markdown, and whether all bounds are kept."""
    pairs = zip(*loaded, strict=True)
    ratio = statistics.median(router / single for router, single in pairs)
    more = zip(*unloaded, strict=True)
    added = statistics.median(router - single for router, single in more)
    peak = max(sample.pss for sample in samples)
    most = max(sample.models for sample in samples)
    rows = [
        ("a loaded model", *loaded, f"ratio {ratio:.2f}, bound {BOUND:.2f}"),
        ("a model that is loaded for it", *unloaded, f"{added * 1000:+.0f} ms"),
    ]
    lines = [
        "| time to the first token of | through the endpoint | alone | difference |",
        "|---|--:|--:|---|",
    ]
    for title, router, single, text in rows:
        cells = [
            f"{statistics.median(times) * 1000:.0f} ms" for times in (router, single)
        ]
        lines.append(f"| {title} | {cells[0]} | {cells[1]} | {text} |")
    lines += [
        "",
        f"The memory stayed below {peak / 1e6:.0f} MB of {MEMORY * 1000:.0f} MB",
    ]
    lines[-1] += f", with at most {most} models at once."
    return "\n".join(lines), ratio <= BOUND and peak <= MEMORY * 1e9


def plot(samples: list[Sample], path: Path) -> None:
    """Plot the memory over time, with the budget."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams |= {
        "svg.fonttype": "none",
        "svg.hashsalt": "bench",
        "font.sans-serif": ["sans-serif"],
    }
    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    seconds = [sample.seconds for sample in samples]
    megabytes = [sample.pss / 1e6 for sample in samples]
    axes.plot(seconds, megabytes, color="tab:red", linewidth=0.8)
    axes.axhline(MEMORY * 1000, color="tab:blue", linestyle="--", linewidth=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds; dashed: the budget of the endpoint")
    axes.set_ylabel("MB (Pss)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> int:
    """Measure; return 1 if a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    chance = random.Random(options.seed)
    # so that the servers are stopped
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="bench-endpoint-"))
    bench = Bench(work)
    try:
        loaded = loaded_times(bench, options.runs, chance)
        unloaded = unloaded_times(bench, options.runs, chance)
        samples = memory(bench, options.requests, chance)
    finally:
        with suppress(subprocess.CalledProcessError):
            bench.doit("stop", "--all")
        shutil.rmtree(work, ignore_errors=True)
    text, kept = table(loaded, unloaded, samples)
    print(text)
    if options.write:
        words = f"--runs {options.runs} --requests {options.requests}"
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        how = f"llama-server, demo model, a prompt of {TOKENS} tokens; {machine}."
        page = f"# An endpoint, beside one model alone\n\n{text}\n\n"
        page += "![Memory over time](endpoint.svg)\n\n"
        page += f"{how} Command: `python bench/endpoint.py {words}`\n"
        Path(__file__).with_suffix(".md").write_text(page, "utf-8")
        plot(samples, Path(__file__).with_suffix(".svg"))
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
