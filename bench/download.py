"""Compare a verified download to curl and other tools, against a local nginx.

    python bench/download.py [--size 2GiB] [--runs 5] [--only CASE]
                             [--ours CHECKOUT] [--write]

The programs alternate within each round, so that a change of the machine's speed
affects all of them; each is compared to curl in the same round. --write puts the table
and the plot into bench/. Linux only; only the long path needs root.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import counted
import psutil
import report
from origin import Blob, Origin, make_blob
from peers import Job, make_project
from report import Fact, Findings
from timed import TIMED, measure

ROOT = Path(__file__).resolve().parent.parent
UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
RSS_BOUND = 80e6  # bytes
CASES = (*(case.key for case in TIMED), "resume", "eight")


def everything(options: argparse.Namespace, work: Path) -> Findings:
    """Run the selected cases in order."""
    findings, asked = Findings(), {options.only} if options.only else set(CASES)
    findings.notes.append(
        f"Before it began, others used {psutil.cpu_percent(2):.0f} % of the cores."
    )
    project = work / "project"
    make_project(options.ours, project)
    blob = make_blob(work / "blob", options.size)
    for case in TIMED:
        if case.key in asked:
            served = make_blob(work / "slow", options.slow_size) if case.far else blob
            try:
                measure(case, served, work, project, options.runs, findings)
            except RuntimeError as error:  # not possible here: no long path, no nginx
                findings.facts.append(Fact(case.title, case.reach, str(error), False))
    if asked & {"resume", "eight"}:
        count(asked, blob, work, options.runs, findings)
    rss = f"{findings.rss / 1e6:.0f} MB"
    findings.facts.append(
        Fact(
            "peak RSS of ours, over all cases",
            "≤ 80 MB",
            rss,
            findings.rss <= RSS_BOUND,
        )
    )
    return findings


def count(
    asked: set[str], blob: Blob, work: Path, runs: int, findings: Findings
) -> None:
    """Run the cases that count bytes."""
    with Origin(blob, work / "counted") as origin:
        job = Job(origin.base("http"), origin.ca, blob, work / "run", work / "project")
        if "resume" in asked:
            counted.resume(job, origin, runs, findings)
        if "eight" in asked:
            counted.eight(job, origin, findings)


def notes(options: argparse.Namespace) -> list[str]:
    """Describe how it was measured."""
    size, slow = (f"{n / 1024**2:,.0f} MiB" for n in (options.size, options.slow_size))
    return [
        f"{size} of incompressible bytes ({slow} on the long path), from the server's "
        "page cache to disk. Whole processes, which alternate in "
        f"{options.runs} rounds after one curl that is not counted. Medians; ratios "
        "are to curl in the same round (on the long path curl runs once), with the "
        "lowest and the highest in parentheses.",
        "SIGKILL at 50 %: when the process has passed half of the file to write(2) and "
        "similar calls, as /proc/PID/io counts. Bytes from the server are those of "
        "nginx's access log. The MB/s of its limits are 1024 * 1024 bytes.",
    ]


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `2GiB`."""
    found = re.fullmatch(r"(\d+) ?(|[KMG]iB)", text)
    if not found:
        raise argparse.ArgumentTypeError(
            f"{text}: expected a size such as 256MiB or 2GiB"
        )
    return int(found.group(1)) * UNITS[found.group(2)]


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=parse_size, default="2GiB")
    parser.add_argument(
        "--slow-size", type=parse_size, default="1GiB", help="of the case `far`"
    )
    parser.add_argument("--runs", type=int, default=5, help="rounds of each case")
    parser.add_argument("--only", choices=CASES, default="", help="one case")
    parser.add_argument(
        "--ours", type=Path, default=ROOT, help="the checkout that is measured"
    )
    parser.add_argument(
        "--work", type=Path, default=tempfile.gettempdir(), help="a folder on a disk"
    )
    parser.add_argument(
        "--write", action="store_true", help="the table and the plot go into bench/"
    )
    options = parser.parse_args(argv)
    if options.write and options.only:
        parser.error("--write is for all cases")
    missing = [name for name in ("nginx", "curl", "openssl") if not shutil.which(name)]
    if missing:
        parser.error(f"it needs {', '.join(missing)}")
    if report.filesystem(options.work) in ("tmpfs", "ramfs"):
        parser.error(
            f"{options.work} is memory, not a disk: --work names another folder"
        )
    return options


def main() -> int:
    """Measure, print the table, and exit with 1 if a bound is exceeded."""
    options = parse()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that the servers are stopped
    with tempfile.TemporaryDirectory(prefix="bench-", dir=options.work) as name:
        work = Path(name)
        work.chmod(0o755)  # nginx's workers run as another user
        findings = everything(options, work)
    text = report.table(findings, [*report.machine(options.work), *notes(options)])
    print(text)
    if options.write:
        (ROOT / "bench" / "download.md").write_text(text + "\n", "utf-8")
        report.plot(findings.times, ROOT / "bench" / "download.svg")
    return 0 if all(fact.reached for fact in findings.facts) else 1


if __name__ == "__main__":
    sys.exit(main())
