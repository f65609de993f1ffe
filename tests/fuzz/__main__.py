"""Run cases of one kind and print those that fail, with what makes them again.

python -m tests.fuzz cache                  1500 cases of a damaged cache
python -m tests.fuzz cache --count 40 --seed 7
python -m tests.fuzz cache --seed 7 --only 12
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

from tests.fuzz import guards, kinds, regressions
from tests.fuzz.case import Case
from tests.fuzz.world import LIMIT_S, World, world

SHOWN = 4000  # characters of a case
PROCESS_EVERY = 20  # one case of so many runs as real processes


def main() -> int:
    """Exit status: 1 where a case has failed."""
    options = _options()
    report = os.fdopen(os.dup(1), "w", buffering=1)
    faulthandler.enable(os.dup(2))
    guards.install()
    start = time.monotonic()
    failed: list[bool] = []
    with tempfile.TemporaryDirectory(prefix="recipe-fuzz-") as folder, world(Path(folder).resolve()) as place:
        for again, number, case in _cases(options, place):
            faulthandler.dump_traceback_later(LIMIT_S + 20, exit=True)
            print(again, file=sys.stderr, flush=True)  # the last one, if this is the end of the process
            problems = place.problems(case, as_process=is_process(case, number))
            failed.append(bool(problems))
            if problems:
                report.write("\n".join(("", f"FAILED: {again}", repr(case)[:SHOWN], *problems, "")))
    report.write(f"\n{options.kind}: {len(failed)} cases, {sum(failed)} failed, seed {options.seed}, ")
    report.write(f"{time.monotonic() - start:.0f} s, {time.process_time():.0f} s of CPU\n")
    return int(any(failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Run cases of one kind.")
    parser.add_argument("kind", choices=(*kinds.KINDS, "regressions"))
    parser.add_argument("--count", type=int, help="cases to run")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="the number of one case")
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    return parser.parse_args()


def _cases(options: argparse.Namespace, place: World) -> Iterator[tuple[str, int, Case]]:
    """(what makes it again, its number, the case) of each."""
    if options.kind == "regressions":
        for number, (name, case) in enumerate(regressions.CASES.items(), 1):
            yield f"regressions.CASES[{name!r}]", number, case
        return
    count = options.count or kinds.KINDS[options.kind].long
    numbers = range(options.first, options.first + count) if options.only is None else [options.only]
    for number in numbers:
        again = f"python -m tests.fuzz {options.kind} --seed {options.seed} --only {number}"
        yield again, number, kinds.make(options.kind, options.seed, number, place)


def is_process(case: Case, number: int) -> bool:
    """Whether a case runs as real processes.

    Never one with a server's record: there nothing guards the processes of others.
    """
    return number % PROCESS_EVERY == 0 and not any("/run/" in name for name in case.files)


if __name__ == "__main__":
    sys.exit(main())
