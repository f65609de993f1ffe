"""Count bytes: a download that is killed half way, and eight downloads at once."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import peers
from origin import Origin
from peers import PEERS, Job
from report import Fact, Findings, say

PROCESSES = 8


def resume(job: Job, origin: Origin, runs: int, findings: Findings) -> None:
    """Kill a download at half of the file; count the bytes that the rerun fetches."""
    shares, killed, problem = [], [], ""
    for number in range(runs):
        written = _kill_half_way(job)
        before = origin.served()
        with peers.start(PEERS["ours"], job) as second:
            outcome = findings.ours(second.finish())
        if written < job.blob.size / 2:
            problem = f"it ended with {written} bytes, before it was seen at 50 %"
        problem = problem or outcome.problem or peers.wrong_bytes(job)
        shares.append((origin.served() - before) / job.blob.size)
        killed.append(written / job.blob.size)
        shutil.rmtree(job.folder)
        os.sync()
        say(
            f"resume {number + 1}: killed at {killed[-1]:.3f}, "
            f"fetched {shares[-1]:.3f} again {problem}"
        )
    share = statistics.median(shares)
    spread = f"{share:.3f} ({min(shares):.3f} to {max(shares):.3f})"
    got = f"{spread}, killed at {min(killed):.3f} to {max(killed):.3f}"
    title = "SIGKILL at 50 %, then again: share of the file that the server sends"
    findings.facts.append(
        Fact(title, "≤ 0.51", problem or got, share <= 0.51 and not problem)
    )


def _kill_half_way(job: Job) -> int:
    """Kill the download at half of the file; return the bytes written by then."""
    written = 0
    with peers.start(PEERS["ours"], job) as first:
        while written < job.blob.size / 2 and not first.ended:
            written = written_by(first.pid)
            time.sleep(0.0005)
        first.kill()
        first.finish()
    return written


def written_by(pid: int) -> int:
    """Return the bytes that a process has passed to write(2) and similar calls.

    The kernel counts them, so the progress does not depend on the process's own report.
    """
    try:
        found = re.search(r"wchar: (\d+)", Path(f"/proc/{pid}/io").read_text("ascii"))
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found.group(1)) if found else 0


def eight(job: Job, origin: Origin, findings: Findings) -> None:
    """Download one model with several processes at once."""
    before = origin.served()
    with ExitStack() as stack:
        logs = [f"log-{number}" for number in range(PROCESSES)]
        ours = PEERS["ours"]
        running = [stack.enter_context(peers.start(ours, job, log=log)) for log in logs]
        outcomes = [findings.ours(one.finish()) for one in running]
    problem = next((o.problem for o in outcomes if o.problem), "") or peers.wrong_bytes(
        job
    )
    share = (origin.served() - before) / job.blob.size
    shutil.rmtree(job.folder)
    say(f"eight: {share:.4f} of the file from the server {problem}")
    title = f"{PROCESSES} processes, one model: bytes from the server / size"
    reached = share == 1 and not problem
    findings.facts.append(
        Fact(title, "1.00, all succeed", problem or f"{share:.4f}", reached)
    )
