"""Report the download benchmark: Markdown tables, the machine, and the plot."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import psutil
from peers import PEERS, Outcome, versions


class Fact(NamedTuple):
    """A bound, and whether it was met."""

    title: str
    reach: str
    got: str
    reached: bool


@dataclass(frozen=True)
class Times:
    """The results of one timed case: one per program and round."""

    title: str
    bound: float
    rounds: dict[str, list[Outcome]]

    def problem(self, name: str) -> str:
        """Return why a program counts as failed; empty if it does not."""
        return next(
            (f"{name} failed: {o.problem}" for o in self.rounds[name] if o.problem), ""
        )

    def seconds(self, name: str) -> float:
        """Return the median of its times."""
        return statistics.median(o.seconds for o in self.rounds[name])

    def ratios(self, name: str) -> list[float]:
        """Return its time divided by curl's, for each round."""
        pairs = zip(self.rounds[name], self.rounds["curl"], strict=True)
        return [mine.seconds / curl.seconds for mine, curl in pairs]

    def ratio(self, name: str) -> float:
        """Return the median of the ratios."""
        return statistics.median(self.ratios(name))


@dataclass
class Findings:
    """The results of a run so far."""

    facts: list[Fact] = field(default_factory=list)
    times: dict[str, Times] = field(default_factory=dict)  # by key of the case
    notes: list[str] = field(default_factory=list)
    rss: int = 0  # bytes; the peak of all runs of the recipe

    def ours(self, outcome: Outcome) -> Outcome:
        """Record the memory of a run of the recipe."""
        self.rss = max(self.rss, outcome.rss)
        return outcome


def say(text: str) -> None:
    """Print progress."""
    print(text.strip(), file=sys.stderr, flush=True)


def table(findings: Findings, how: list[str]) -> str:
    """Return the bounds and results, then the times of every program."""
    lines = ["| case | reach | measured | |", "|---|---|---|---|"]
    words = {True: "reached", False: "**not reached**"}
    lines += [
        f"| {f.title} | {f.reach} | {f.got} | {words[f.reached]} |"
        for f in findings.facts
    ]
    times = list(findings.times.values())
    if times:
        names = [name for name in PEERS if any(name in t.rounds for t in times)]
        lines += [
            "",
            "Seconds, and in brackets the ratio to curl; — was not compared.",
            "",
        ]
        lines.append(f"| | {' | '.join(PEERS[name].name for name in names)} |")
        lines.append("|---" * (len(names) + 1) + "|")
        lines.append(
            f"| verifies | {' | '.join(PEERS[name].proof for name in names)} |"
        )
        lines += [
            f"| {t.title} | {' | '.join(_cell(t, name) for name in names)} |"
            for t in times
        ]
    failed = [
        f"{t.title}: {problem}"
        for t in times
        for name in t.rounds
        if (problem := t.problem(name))
    ]
    return "\n".join(
        [*lines, "", *(f"- {line}" for line in (*failed, *how, *findings.notes))]
    )


def _cell(times: Times, name: str) -> str:
    if name not in times.rounds:
        return "—"
    if times.problem(name):
        return "failed"
    ratio = "" if times.problem("curl") else f" ({times.ratio(name):.2f})"
    return f"{times.seconds(name):.2f}{ratio}"


def machine(work: Path) -> list[str]:
    """Return the facts of the machine, and the versions compared."""
    cpu = Path("/proc/cpuinfo").read_text("utf-8")
    model = next(
        (
            line.split(":")[1].strip()
            for line in cpu.splitlines()
            if line.startswith("model name")
        ),
        "?",
    )
    sha = "with" if "sha_ni" in cpu else "without"
    memory = psutil.virtual_memory().total / 1024**3
    congestion = (
        Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text("ascii").strip()
    )
    return [
        f"{os.cpu_count()} cores ({model}, {sha} SHA-NI), {memory:.0f} GiB RAM, "
        f"{platform.system()} {platform.release()}, {filesystem(work)}, "
        f"TCP {congestion}; server and client share the cores.",
        f"{versions()}.",
    ]


def filesystem(path: Path) -> str:
    """Return the type of the file system of a directory."""
    mounts = [
        p
        for p in psutil.disk_partitions(all=True)
        if path.resolve().is_relative_to(p.mountpoint)
    ]
    return max(mounts, key=lambda p: len(p.mountpoint)).fstype


def plot(times: dict[str, Times], path: Path) -> None:
    """Plot the ratio to curl, one panel per case, with its bound."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams |= {
        "svg.fonttype": "none",
        "svg.hashsalt": "bench",
        "font.sans-serif": ["sans-serif"],
    }
    patch = {
        "facecolor": "white",
        "edgecolor": "none",
        "pad": 1,
    }  # the number stays readable on the line
    shown = [t for t in times.values() if not t.problem("curl")]
    heights = [len(t.rounds) for t in shown]
    figure, panels = pyplot.subplots(
        len(shown), figsize=(7, 1.2 * len(shown) + 0.22 * sum(heights)),
        layout="constrained", sharex=True, height_ratios=heights, squeeze=False,
    )  # fmt: skip
    for axes, t in zip(panels[:, 0], shown, strict=True):
        names = [name for name in reversed(t.rounds) if not t.problem(name)]
        ratios = [t.ratio(name) for name in names]
        colours = ["tab:red" if name == "ours" else "tab:gray" for name in names]
        bars = axes.barh([PEERS[name].name for name in names], ratios, color=colours)
        axes.bar_label(
            bars, [f"{ratio:.2f}" for ratio in ratios], padding=3, bbox=patch
        )
        axes.axvline(t.bound, color="tab:blue", linestyle="--", linewidth=1)
        axes.set_title(t.title, loc="left")
        axes.set_xscale("log")
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    ticks = [0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10]
    panels[-1, 0].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panels[-1, 0].minorticks_off()
    panels[-1, 0].set_xlabel(
        "time / curl's time; dashed: what doit download has to reach"
    )
    figure.savefig(path, metadata={"Date": None})
