"""Kill downloads at random: no wrong target may appear, and no wrong journal entry.

    python bench/soak.py [--kills 300] [--size 256MiB] [--seed N] [--ours CHECKOUT]

A series is one download over one kind of path, killed after a random time and started
again until a run completes. After each kill the target must be missing or right, and
every span that a journal (.partial.json, .partial.live) lists must hold the server's
bytes. Exits with 1 on the first violation. Linux only.
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

SHORTEST_S = 0.05  # the earliest kill, before Python has started
LONGEST_S = (0.4, 0.8, 1.6)  # the latest kill of a series: some hit the end of a run
MANY = 12  # kills in one series; then it may complete
LIMIT_S = 300.0  # time limit for that


class ViolationError(Exception):
    """A guarantee that does not hold."""


def claims(journal: Path) -> list[tuple[int, int]]:
    """Return the half-open spans that a journal lists; none without a journal."""
    try:
        data = json.loads(journal.read_text("utf-8"))
    except FileNotFoundError:
        return []
    except ValueError as error:
        raise ViolationError(f"{journal.name} is no JSON: {error}") from None
    if "spans" in data or "written" in data:
        return [
            (first, end)
            for key in ("spans", "written")
            for first, end in data.get(key, [])
        ]
    return [(0, data["have"])]


def live_claims(note: Path) -> list[tuple[int, int]]:
    """Return the spans of a live journal; none if its checksum does not match."""
    line = note.read_bytes().partition(b"\n")[0]
    crc, _, text = line.partition(b" ")
    if crc != b"%08x" % zlib.crc32(text):
        return []
    return [(first, end) for first, end in json.loads(text)["spans"]]


def check(folder: Path, blob: Blob) -> int:
    """Check the files of a killed run; return the bytes that its live journal lists.

    Raises:
        ViolationError: a file or a span is wrong.
    """
    for target in folder.rglob(NAME):
        if target.stat().st_size != blob.size or sha256_of(target) != blob.sha256:
            raise ViolationError(f"{target} has its final name and other bytes")
    for journal in folder.rglob(f"{NAME}.partial.json"):
        check_spans(journal, claims(journal), blob)
    live = 0
    for note in folder.rglob(f"{NAME}.partial.live"):
        spans = live_claims(note)
        check_spans(note, spans, blob)
        live += sum(end - first for first, end in spans)
    return live


def check_spans(claim: Path, spans: list[tuple[int, int]], blob: Blob) -> None:
    """Raise ViolationError if the partial does not hold the spans of its journal."""
    partial = claim.with_suffix("")
    for first, end in spans:
        if not same_bytes(partial, blob.path, first, end):
            raise ViolationError(
                f"{claim.name} claims {first} to {end}: "
                f"{partial.name} has other bytes there"
            )


def same_bytes(partial: Path, truth: Path, first: int, end: int) -> bool:
    """Whether a span of the partial holds exactly the server's bytes."""
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
    """Download one file, killed at most `most` times.

    Returns:
        The number of kills, and the bytes that the live journals listed in all.

    Raises:
        ViolationError: a guarantee does not hold.
    """
    longest, live = chance.choice(LONGEST_S), 0
    for kills in range(most + 1):
        with start(PEERS["ours"], job) as running:
            last = kills == most
            if wait(running, LIMIT_S if last else chance.uniform(SHORTEST_S, longest)):
                problem = running.finish().problem or wrong_bytes(job)
                if problem:
                    raise ViolationError(f"a run that was not killed failed: {problem}")
                return kills, live
            if last:
                raise ViolationError(
                    f"a run that was not killed did not end in {LIMIT_S:.0f} s"
                )
            running.kill()
            running.finish()
        live += check(job.folder, job.blob)
    raise AssertionError("the last one is never killed")


def wait(running: Running, seconds: float) -> bool:
    """Whether the run ends within that time."""
    deadline = time.monotonic() + seconds
    while not running.ended:
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


def soak(options: argparse.Namespace, work: Path) -> str:
    """Run series until there are enough kills; return a summary."""
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
                f"series {count} ({port}): {killed} kills, "
                f"{share:.2f} of the file from the server"
            )
            shutil.rmtree(job.folder)
        served = origin.served() / blob.size
    more = (served - count) / max(kills, 1) * blob.size / 1e6
    return (
        f"seed {options.seed}: {kills} kills in {count} series, all completed with the "
        f"right bytes; the server sent {served / count:.2f} x the size, "
        f"{more:.0f} MB more per kill; live journals listed "
        f"{live / max(kills, 1) / 1e6:.0f} MB per kill, all of it right"
    )


def main() -> int:
    """Kill until there are enough kills or a violation."""
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
    )  # so that the server is stopped
    with tempfile.TemporaryDirectory(prefix="soak-", dir=options.work) as name:
        work = Path(name)
        work.chmod(0o755)  # nginx's workers run as another user
        try:
            print(soak(options, work))
        except ViolationError as violation:
            print(f"seed {options.seed}: VIOLATION: {violation}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
