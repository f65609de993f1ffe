"""Measure the time of downloads, as a ratio to curl's in the same round."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import peers
from delay import HERE, PEER, Far
from origin import Blob, Origin
from peers import PEERS, Job, Outcome
from report import Fact, Findings, Times, say


@dataclass(frozen=True)
class Timed:
    """A case: a port of the server, the programs compared, and the recipe's bound."""

    key: str
    title: str
    bound: float
    port: str = "http"
    compared: tuple[str, ...] = tuple(PEERS)
    ahead: bool = False  # must be faster than every peer that verifies
    far: bool = False  # over the long path
    prefix: tuple[str, ...] = ()  # start of the command lines of server and clients

    @property
    def reach(self) -> str:
        """Return the bound in words."""
        text = f"≤ {self.bound:.2f} x curl"
        if self.ahead:
            text += ", ahead of every verifying peer"
        return text


TIMED = (
    Timed("http", "uncapped http", 1.10, ahead=True),
    Timed("tls", "uncapped TLS", 1.15, "tls"),
    Timed("capped", "150 MB/s per connection", 0.25, "150"),
    Timed(
        "far",
        "60 ms round trip, 20 MB/s per connection",
        0.15,
        "20",
        ("curl", "aria2", "ours"),
        far=True,
    ),
    Timed(
        "core",
        "one core for server and client",
        1.5,
        compared=("curl", "ours"),
        prefix=("taskset", "-c", "0"),
    ),
)


def measure(
    case: Timed, blob: Blob, work: Path, project: Path, runs: int, findings: Findings
) -> None:
    """Run all rounds of one case."""
    with ExitStack() as stack:
        prefix, folder = case.prefix, work / case.key
        if case.far:
            far = stack.enter_context(Far())
            prefix = far.prefix
            origin = stack.enter_context(Origin(blob, folder, prefix, HERE, PEER))
            findings.notes.append(
                far.carries(f"{origin.base('http')}/{blob.path.name}")
            )
        else:
            origin = stack.enter_context(Origin(blob, folder, prefix))
        job = Job(origin.base(case.port), origin.ca, blob, work / "run", project)
        times = findings.times[case.key] = _rounds(case, job, runs, prefix)
    for outcome in times.rounds["ours"]:
        findings.ours(outcome)
    findings.facts.append(judge(case, times))


def _rounds(case: Timed, job: Job, runs: int, prefix: tuple[str, ...]) -> Times:
    if not case.far:  # the first run pays for the disk blocks and memory of the host
        peers.run(PEERS["curl"], job, prefix)
    rounds: dict[str, list[Outcome]] = {name: [] for name in case.compared}
    for number in range(runs):
        for name, before in rounds.items():
            # it takes a minute, and the time depends on the server's limit only
            if case.far and name == "curl" and before:
                before.append(before[0])
                continue
            outcome = peers.run(PEERS[name], job, prefix)
            before.append(outcome)
            say(
                f"{case.key} {number + 1}: {name} {outcome.seconds:.2f} s "
                f"{outcome.problem}"
            )
    return Times(case.title, case.bound, rounds)


def judge(case: Timed, times: Times) -> Fact:
    """Compare the recipe's time to the bound of the case."""
    problem = times.problem("ours") or times.problem("curl")
    if problem:
        return Fact(case.title, case.reach, problem, False)
    ratios = times.ratios("ours")
    reached = times.ratio("ours") <= case.bound
    got = f"{times.ratio('ours'):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    if case.ahead:
        rivals = [name for name in peers.VERIFYING if not times.problem(name)]
        slower = [
            name for name in rivals if times.seconds("ours") >= times.seconds(name)
        ]
        got += (
            f", behind {', '.join(PEERS[name].name for name in slower)}"
            if slower
            else ""
        )
        reached = reached and not slower
    return Fact(case.title, case.reach, got, reached)
