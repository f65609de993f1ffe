"""Count the requests that restarts of three servers lose, under load.

    python bench/roll.py [--requests 240] [--clients 16] [--seconds 12 | --tokens N]
        [--only WORD] [--write]

Needs haproxy, nginx and the embedded engine; Linux only. Each way to restart gets three
new servers of the demo behind a load balancer, and the same load: --clients, half of
their requests streams, until the restarts are over, and at least --requests times. Two
of the servers have a slot for every client. An answer has as many tokens as take
--seconds under this load, or --tokens. A request is lost if its answer is not whole.
Status 1 if `doit roll` loses one. --write adds the table to bench/roll.md; --only
measures the ways with that word.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support import haproxy, nginx  # noqa: E402
from tests.support.balanced_load import WHOLE, Answer, load  # noqa: E402

DOIT = os.path.join(sysconfig.get_path("scripts"), "doit")
DEMO = ROOT / "demo" / "demo.gguf"
REPLICAS = 3
CALIBRATION = 64  # tokens
SLOT_TOKENS = 2048
MOST_TOKENS = 1900  # of an answer
DRAIN_S = "120"
PAGE = Path(__file__).with_suffix(".md")


class Way(NamedTuple):
    """A way to restart three servers."""

    title: str
    balancer: ModuleType
    drain: str  # seconds
    may_lose: bool


WAYS = (
    Way("`doit roll --haproxy`", haproxy, DRAIN_S, may_lose=False),
    Way("`doit roll --nginx`", nginx, DRAIN_S, may_lose=False),
    Way("`doit restart` of each, behind haproxy", haproxy, DRAIN_S, may_lose=True),
    Way("the same with `--drain 0`", haproxy, "0", may_lose=True),
)


class Bench:
    """A cache, and doit to start servers of the demo.

    Args:
        clients: that ask at the same time.
    """

    def __init__(self, work: Path, clients: int) -> None:
        self.clients = clients
        self.slots = -(-clients // (REPLICAS - 1))
        catalogue = work / "models.yaml"
        catalogue.write_text(json.dumps(_catalogue(self.slots), indent=1), "utf-8")
        self._env = {
            **os.environ,
            "LLAMAFILE_CACHE": str(work / "cache"),
            "LLAMAFILE_CATALOGUE": str(catalogue),
        }

    def doit(self, *words: str) -> str:
        """Run doit; return its output."""
        command = [DOIT, *words]
        done = subprocess.run(command, cwd=ROOT, env=self._env, capture_output=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.decode()}")
        return done.stdout.decode()

    def start(self, drain: str) -> list[str]:
        """Start the servers; return their ports."""
        words = ["--replicas", str(REPLICAS), "--port", "0", "--drain", drain]
        urls = self.doit("start", *words).splitlines()
        return [url.rpartition(":")[2] for url in urls]

    def restart(self, way: Way, ports: list[str], roll: list[str]) -> None:
        """Restart all servers, one after the other."""
        if not way.may_lose:
            self.doit("roll", *roll)
            return
        for port in ports:
            self.doit("restart", "--port", port, "--drain", way.drain)


def _catalogue(slots: int) -> dict[str, object]:
    data = DEMO.read_bytes()
    model = {
        "title": "The demo",
        "url": str(DEMO),
        "license": "Apache-2.0",
        "sha256": hashlib.sha256(data).hexdigest(),
        "size": len(data),
        "engine": "embedded",
        "serve": {"parallel": slots, "ctx_size": slots * SLOT_TOKENS, "timeout": 300},
    }
    engines = {"embedded": {"title": "llama.cpp", "license": "MIT"}}
    return {
        "version": 1,
        "default": "demo",
        "engines": engines,
        "models": {"demo": model},
    }


def calibrate(bench: Bench, seconds: float) -> int:
    """Return how many tokens an answer has that takes `seconds` under load."""
    ports = bench.start("0")
    with (
        tempfile.TemporaryDirectory() as folder,
        haproxy.balancing(Path(folder), ports, bench.slots) as (url, _),
        load(url, 2 * bench.clients, CALIBRATION, bench.clients) as answers,
    ):
        pass
    bench.doit("stop", "--all")
    took = statistics.median(answer.seconds for answer in answers)
    return min(MOST_TOKENS, max(1, round(CALIBRATION * seconds / took)))


def measure(bench: Bench, way: Way, requests: int, tokens: int) -> list[Answer]:
    """Restart the servers under load; return how the requests ended."""
    ports = bench.start(way.drain)
    with (
        tempfile.TemporaryDirectory() as folder,
        way.balancer.balancing(Path(folder), ports, bench.slots) as (url, words),
        load(url, requests, tokens, bench.clients) as answers,
    ):
        bench.restart(way, ports, words)
    bench.doit("stop", "--all")
    return answers


def row(way: Way, answers: list[Answer]) -> str:
    """Return the row of the table."""
    ended = Counter(answer.how for answer in answers)
    lost = {how: count for how, count in ended.items() if how != WHOLE}
    how = ", ".join(f"{count} {text}" for text, count in sorted(lost.items()))
    whole = [answer.seconds for answer in answers if answer.how == WHOLE]
    cells = [way.title, len(answers), f"{statistics.median(whole):.1f} s"]
    return " | ".join(map(str, [*cells, sum(lost.values()), how or "—"]))


def main() -> int:
    """Measure; return 1 if `doit roll` loses a request."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=240)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--only", default="", metavar="WORD")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    # so that the servers are stopped
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="bench-roll-"))
    bench = Bench(work, options.clients)
    kept = True
    lines = ["| restart | requests | an answer takes (median) | lost | how |"]
    lines.append("|---|--:|--:|--:|---|")
    try:
        tokens = options.tokens or calibrate(bench, options.seconds)
        for way in (way for way in WAYS if options.only in way.title):
            answers = measure(bench, way, options.requests, tokens)
            lines.append(f"| {row(way, answers)} |")
            print(lines[-1], flush=True)
            kept &= way.may_lose or {answer.how for answer in answers} == {WHOLE}
    finally:
        with suppress(RuntimeError):
            bench.doit("stop", "--all", "--drain", "0")
        shutil.rmtree(work, ignore_errors=True)
    if options.write:
        machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
        busy = f"load average {os.getloadavg()[1]:.0f}"
        how = f"{options.requests} requests or more of {tokens} tokens, "
        how += f"{options.clients} clients; "
        how += f"{machine}, {busy}."
        with PAGE.open("a", encoding="utf-8") as file:
            file.write("\n".join(["", how, "", *lines, ""]))
    return int(not kept)


if __name__ == "__main__":
    sys.exit(main())
