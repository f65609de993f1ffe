"""Explain how a program failed: its likely cause, and a fix. Pure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

# `X as X` exports a name again: tasks/doctor uses these
from tasks.engine.causes import NO_AVX as NO_AVX
from tasks.engine.causes import NOEXEC as NOEXEC
from tasks.engine.causes import ROSETTA as ROSETTA
from tasks.engine.causes import WSL as WSL
from tasks.engine.known_failures import KNOWN_FAILURES, KnownFailure
from tasks.errors import ServerError
from tasks.system import exit_status
from tasks.system.exit_status import ProcessExit, status_text


def match_failure(ending: ProcessExit, platform: str) -> KnownFailure | None:
    """Return the first entry of the table that matches; None without one."""
    for entry in KNOWN_FAILURES:
        if _matches(entry, ending, platform):
            return entry
    return None


def _matches(entry: KnownFailure, ending: ProcessExit, platform: str) -> bool:
    if entry.platform not in ("", platform):
        return False
    if entry.engine and entry.engine not in _names(ending.command):
        return False
    if entry.status:
        if ending.status is None:
            return False
        # the table has Windows' statuses without a sign
        if not {ending.status, ending.status & 0xFFFFFFFF} & set(entry.status):
            return False
    flags = re.IGNORECASE | re.MULTILINE
    return re.search(entry.pattern, ending.output, flags) is not None


def _names(command: Sequence[str]) -> set[str]:
    """Return the words of a command, and the file names of those that are paths."""
    files = {re.split(r"[\\/]", word)[-1] for word in command}
    return {*command, *(name.removesuffix(".exe") for name in files)}


def with_alternatives(
    error: ServerError, ending: ProcessExit, platform: str, alternatives: str
) -> ServerError:
    """Add the other engines to the fix of a failed one, where they may help."""
    entry = match_failure(ending, platform)
    if not alternatives or (entry and not entry.other_engine):
        return error
    fix = "\n".join(filter(None, (error.fix, alternatives)))
    return ServerError(error.what, error.facts, fix)


def remedy(ending: ProcessExit, platform: str) -> str:
    """Return the most likely cause and its fix, or an empty string."""
    entry = match_failure(ending, platform)
    return entry.text if entry else ""


def launch_error(
    name: str, command: Sequence[str], error: OSError, platform: str
) -> ServerError:
    """Return the error for a program that the system refused to start.

    The output begins with the number, because the text is in the user's language:
    `[WinError 225] ...`, `[Errno 13] ...`.
    """
    code = ""
    if windows_error := getattr(error, "winerror", None):
        code = f"[WinError {windows_error}]"
    elif error.errno:
        code = f"[Errno {error.errno}]"
    output = f"{code} {error.strerror or error}".strip()
    ending = exit_status.ProcessExit(command, None, output)
    return engine_error(f"cannot start {name}", ending, platform)


def engine_error(what: str, ending: ProcessExit, platform: str) -> ServerError:
    """Return the error for a program that failed, with a likely fix (R26, R28)."""
    status = ""
    if ending.status is not None:
        status = status_text(ending.status, platform)
    facts = [
        ("command", shlex.join(ending.command)),
        ("ended", status),
        ("output", ending.output or "(it printed nothing)"),
        ("log", ending.log),
    ]
    return ServerError(what, facts, fix=remedy(ending, platform))
