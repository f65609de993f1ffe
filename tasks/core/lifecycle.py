"""A server's life as decisions: is it ready, how is it stopped, what does its failure mean. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from tasks.core.errors import ServerError
from tasks.core.explain import remedy

# The stop's three steps with the seconds each may take; llamafile 0.10 sleeps 1 s in its own handler
INTERRUPT_S = 5.0
TERMINATE_S = 5.0
KILL_S = 5.0

POLL_S = 0.05  # between two looks at a starting server
QUICK_POLL_S = 0.01  # the same, at first
VERSION_S = 120.0  # `--version` of a first run unpacks a loader, and a virus scanner reads the whole file
TAIL_LINES = 15  # of the engine's output, shown when it fails


class Readiness(Enum):
    """What a look at a starting server says."""

    WAIT = "wait"
    READY = "ready"
    DIED = "died"
    LATE = "late"
    STRANGER = "stranger"  # another program answers on the port
    HOPPED = "hopped"  # it has taken another port than it was told to


class Look(NamedTuple):
    """One look at a starting server."""

    exited: int | None  # exit status, negative for a signal; None while it lives
    health: int | None  # status of GET /health; None where nothing answered
    port: int  # the one it was told to take
    ports: frozenset[int] | None  # on which our process listens; None where nobody has looked, or can
    elapsed_s: float  # since the start


def judge_start(look: Look, timeout_s: float) -> Readiness:
    """The race of three: the endpoint says yes, the process is gone, the deadline has passed.

    A dead child is never waited for (llama-swap#100), and a 200 from another process is not ours
    (mozilla-ai/llamafile#54: old versions hop to the next port without a word).
    """
    elsewhere = look.ports is not None and look.port not in look.ports
    if look.exited is not None:
        return Readiness.DIED
    if look.health == 200 and elsewhere:
        return Readiness.STRANGER
    if look.health == 200:
        return Readiness.READY
    if look.ports and elsewhere:
        return Readiness.HOPPED
    return Readiness.LATE if look.elapsed_s >= timeout_s else Readiness.WAIT


class Ending(NamedTuple):
    """How a program ended: what explains it to its user."""

    command: Sequence[str]
    status: int | None  # exit status, negative for a signal; None where it was still running
    output: str  # the last lines it printed
    log: str = ""


def status_text(status: int | None) -> str:
    """`exit status 1`, `signal 9 (SIGKILL)`; Windows' own as the hexadecimal by which they are known."""
    if status is None:
        return "still running"
    if status >= 0:
        return f"exit status {status}" if status < 0xC0000000 else f"status 0x{status:08X}"
    names = {2: "SIGINT", 4: "SIGILL", 6: "SIGABRT", 7: "SIGBUS", 9: "SIGKILL", 11: "SIGSEGV", 15: "SIGTERM"}
    return f"signal {-status}" + (f" ({names[-status]})" if -status in names else "")


def failure(what: str, ending: Ending, platform: str) -> ServerError:
    """The error for a program that failed: command, status, last lines, likely remedy (R26, R28)."""
    facts = [
        ("command", shlex.join(ending.command)),
        ("ended", status_text(ending.status) if ending.status is not None else ""),
        ("output", ending.output or "(it printed nothing)"),
        ("log", ending.log),
    ]
    return ServerError(what, facts, fix=remedy(ending.status, ending.output, platform))
