"""Run cases and print those that fail, each with the command that makes it again.

python -m tests.fuzz                    all cases of all kinds, which takes long
python -m tests.fuzz --short            a few of each kind
python -m tests.fuzz cache journal      all cases of two kinds
python -m tests.fuzz cache --seed 7 --first 12 --count 1
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from tests.fuzz import guards, kinds, regressions
from tests.fuzz.case import Case
from tests.fuzz.world import LIMIT_S, World, world

REGRESSIONS = "regressions"
SHOWN = 4000  # characters of a case
PROCESS_EVERY = 20  # one case of so many runs as real processes


def main() -> int:
    """Exit status: 1 where a case has failed."""
    options = _options()
    report = os.fdopen(os.dup(1), "w", buffering=1)
    faulthandler.enable(os.dup(2))
    guards.install()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name, world(Path(name).resolve()) as place:
        ends = [_run(kind, options, place, report) for kind in options.kinds]
    return int(not all(ends))


def _options() -> argparse.Namespace:
    known = (*kinds.KINDS, REGRESSIONS)
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Run cases.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(known))
    parser.add_argument("--short", action="store_true", help="a few cases of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--count", type=int, help="cases of each kind")
    options = parser.parse_args()
    options.kinds = options.kinds or known
    if unknown := [kind for kind in options.kinds if kind not in known]:
        parser.error(f"{unknown[0]} is not a kind; there are {', '.join(known)}")
    return options


def _run(kind: str, options: argparse.Namespace, place: World, report: TextIO) -> bool:
    """Run the cases of one kind; whether all have ended well."""
    start, cpu, failed = time.monotonic(), time.process_time(), []
    for again, number, case in _cases(kind, options, place):
        faulthandler.dump_traceback_later(LIMIT_S + 20, exit=True)
        print(again, file=sys.stderr, flush=True)  # the last one, if the process ends here
        problems = place.problems(case, as_process=is_process(case, number))
        failed.append(bool(problems))
        if problems:
            lines = ("", f"FAILED: {again}", repr(case)[:SHOWN], *problems, "")
            report.write("\n".join(lines))
    count, seconds = f"{len(failed)} cases, {sum(failed)} failed", time.monotonic() - start
    cpu = time.process_time() - cpu
    report.write(f"{kind}: {count}, seed {options.seed}, {seconds:.0f} s, {cpu:.0f} s of CPU\n")
    return not any(failed)


def _cases(kind: str, options: argparse.Namespace, place: World) -> Iterator[tuple[str, int, Case]]:
    """(what makes it again, its number, the case) of each."""
    if kind == REGRESSIONS:
        for number, (name, case) in enumerate(regressions.CASES.items(), 1):
            yield f"regressions.CASES[{name!r}]", number, case
        return
    numbers = kinds.KINDS[kind].short if options.short else kinds.KINDS[kind].long
    for number in range(options.first, options.first + (options.count or numbers)):
        again = f"python -m tests.fuzz {kind} --seed {options.seed} --first {number} --count 1"
        yield again, number, kinds.make(kind, options.seed, number, place)


def is_process(case: Case, number: int) -> bool:
    """Whether a case runs as real processes.

    Never one with a server's record: there nothing guards the processes of others.
    """
    return number % PROCESS_EVERY == 0 and not any("/run/" in name for name in case.files)


if __name__ == "__main__":
    sys.exit(main())
