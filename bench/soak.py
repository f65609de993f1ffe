"""Hundreds of random SIGKILLs: whatever they hit, nothing unverified is published and no claim is a lie.

    python bench/soak.py [--kills 300] [--size 256MiB] [--seed N] [--ours CHECKOUT]

A series is one file that is downloaded over one kind of path, killed after a random time and started
again, until a run comes to its end. After each kill the target must be missing or right, and every span
that the journal or the live note claims must hold the server's bytes. Exits with 1 on the first violation.
Linux only.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import tempfile
import time
import zlib
from pathlib import Path

from download import ROOT, parse_size
from origin import BLOCK, NAME, PORTS, Blob, Origin, make_blob, sha256_of
from peers import PEERS, Job, Running, make_project, start, wrong_bytes
from report import say

SHORTEST_S = 0.05  # a run is killed after this, before Python is up,
LONGEST_S = (
    0.4,
    0.8,
    1.6,
)  # or at most after one of these, so that some kills hit its end
MANY = 12  # kills of one series; then it is left alone, so that each comes to its end
LIMIT_S = 300.0  # which that may take


class Violation(Exception):
    """What must never be."""


def claims(journal: Path) -> list[tuple[int, int]]:
    """Half-open spans of bytes that a journal claims to be in the partial; none without a journal."""
    try:
        told = json.loads(journal.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise Violation(f"{journal.name} is no JSON: {error}") from None
    if "spans" in told or "written" in told:
        return [
            (first, end)
            for key in ("spans", "written")
            for first, end in told.get(key, [])
        ]
    return [(0, told["have"])]


def live_claims(note: Path) -> list[tuple[int, int]]:
    """The same of a live note: a checksum and a JSON object; half of one claims nothing."""
    line = note.read_bytes().partition(b"\n")[0]
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        return []
    return [(first, end) for first, end in json.loads(text)["spans"]]


def check(folder: Path, blob: Blob) -> int:
    """Look at what a killed run has left; how many bytes its live note claims. Raises Violation."""
    for target in folder.rglob(NAME):
        if target.stat().st_size != blob.size or sha256_of(target) != blob.sha256:
            raise Violation(f"{target} has its final name and other bytes")
    for journal in folder.rglob(f"{NAME}.partial.json"):
        check_spans(journal, claims(journal), blob)
    live = 0
    for note in folder.rglob(f"{NAME}.partial.live"):
        spans = live_claims(note)
        check_spans(note, spans, blob)
        live += sum(end - first for first, end in spans)
    return live


def check_spans(claim: Path, spans: list[tuple[int, int]], blob: Blob) -> None:
    """Whether the partial beside a claim has what it claims. Raises Violation."""
    partial = claim.with_suffix("")
    for first, end in spans:
        if not same_bytes(partial, blob.path, first, end):
            raise Violation(
                f"{claim.name} claims {first} to {end}: {partial.name} has other bytes there"
            )


def same_bytes(partial: Path, truth: Path, first: int, end: int) -> bool:
    """Whether a span of the partial holds the server's bytes, all of them."""
    if not partial.exists():
        return first == end
    with partial.open("rb") as ours, truth.open("rb") as theirs:
        ours.seek(first)
        theirs.seek(first)
        left = end - first
        while left > 0:
            block = theirs.read(min(BLOCK, left))
            if not block or ours.read(len(block)) != block:
                return False
            left -= len(block)
    return left == 0


def series(job: Job, chance: random.Random, most: int) -> tuple[int, int]:
    """One file, killed at most so many times; how many times it was, and how many bytes live notes have
    claimed in all. Raises Violation."""
    longest, live = chance.choice(LONGEST_S), 0
    for kills in range(most + 1):
        with start(PEERS["ours"], job) as running:
            last = kills == most
            if wait(running, LIMIT_S if last else chance.uniform(SHORTEST_S, longest)):
                problem = running.finish().problem or wrong_bytes(job)
                if problem:
                    raise Violation(f"a run that nobody killed failed: {problem}")
                return kills, live
            if last:
                raise Violation(
                    f"a run that nobody disturbed did not end in {LIMIT_S:.0f} s"
                )
            running.kill()
            running.finish()
        live += check(job.folder, job.blob)
    raise AssertionError("the last one is never killed")


def wait(running: Running, seconds: float) -> bool:
    """Whether it ends within that time."""
    deadline = time.monotonic() + seconds
    while not running.ended:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


def soak(options: argparse.Namespace, work: Path) -> str:
    """Series after series; the summary. Raises Violation."""
    chance = random.Random(options.seed)
    make_project(options.ours, work / "project")
    blob = make_blob(work / "blob", options.size)
    kills, count, live = 0, 0, 0
    with Origin(blob, work / "origin") as origin:
        while kills < options.kills:
            port = chance.choice(list(PORTS))
            job = Job(
                origin.base(port), origin.ca, blob, work / "run", work / "project"
            )
            before = origin.served()
            killed, noted = series(job, chance, min(MANY, options.kills - kills))
            kills, count, live = kills + killed, count + 1, live + noted
            share = (origin.served() - before) / blob.size
            say(
                f"series {count} ({port}): {killed} kills, {share:.2f} of the file from the server"
            )
            shutil.rmtree(job.folder)
        served = origin.served() / blob.size
    more = (served - count) / max(kills, 1) * blob.size / 1e6
    return (
        f"seed {options.seed}: {kills} kills in {count} series, all ended in the right bytes; the server "
        f"sent {served / count:.2f} x the size, {more:.0f} MB more per kill; live notes claimed "
        f"{live / max(kills, 1) / 1e6:.0f} MB per kill, all of them true"
    )


def main() -> int:
    """Kill until it is enough, or until something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--size", type=parse_size, default="256MiB")
    parser.add_argument(
        "--seed",
        type=int,
        default=random.randrange(10**6),
        help="of the times; default: any",
    )
    parser.add_argument(
        "--ours", type=Path, default=ROOT, help="the checkout that is tried"
    )
    parser.add_argument(
        "--work", type=Path, default=tempfile.gettempdir(), help="a folder on a disk"
    )
    options = parser.parse_args()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that the server is ended
    with tempfile.TemporaryDirectory(prefix="soak-", dir=options.work) as name:
        work = Path(name)
        work.chmod(0o755)  # nginx's workers are somebody else
        try:
            print(soak(options, work))
        except Violation as violation:
            print(f"seed {options.seed}: VIOLATION: {violation}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
