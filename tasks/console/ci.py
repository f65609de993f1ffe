"""What CI systems read: GitHub's workflow commands, folds of a log, GitHub's files.

Source: actions/runner's ActionCommand.cs: a command is a line that begins with `::`, blanks apart, or has the
older `##[` anywhere. GitLab's "custom collapsible sections" for its folds.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping


def command(name: str, text: str = "", title: str = "") -> str:
    """A workflow command of GitHub's, a line."""
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{name}{f' title={title}'.replace(':', '%3A') if title else ''}::{escaped}\n"


def is_github(env: Mapping[str, str]) -> bool:
    """Whether GitHub's runner reads what we print."""
    return env.get("GITHUB_ACTIONS") == "true"


def neutral(text: str, env: Mapping[str, str]) -> str:
    """The same text without commands for GitHub: what an engine or a server said must not speak for us."""
    if not is_github(env):
        return text
    return re.sub(r"##(?=\[)", "##|", re.sub(r"((?:^|[\r\n])\s*)(?=::)", r"\1|", text))


# how a task's lines are folded, first and last; {id}: of letters, digits and _.-; {at}: seconds since 1970
_GITHUB = ("::group::{name}\n", "::endgroup::\n")
_GITLAB = ("\x1b[0Ksection_start:{at}:{id}\r\x1b[0K{name}\n", "\x1b[0Ksection_end:{at}:{id}\r\x1b[0K\n")


def folds(env: Mapping[str, str]) -> bool:
    """Whether whoever reads the log can fold it."""
    return is_github(env) or env.get("GITLAB_CI") == "true"


def fold(name: str, now: float, env: Mapping[str, str], *, end: bool = False) -> str:
    """The line with which a task's lines begin, or end, to be folded."""
    line = (_GITHUB if is_github(env) else _GITLAB)[end]
    return line.format(name=name, id=re.sub(r"[^\w.-]", "-", name), at=int(now))


def append(path: str, values: Mapping[str, str]) -> None:
    """Add values of any number of lines to $GITHUB_OUTPUT or $GITHUB_ENV. Raises OSError.

    Source: GitHub's "Workflow commands", "Multiline strings": a value may not have the delimiter in it.
    """
    with open(path, "a", encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for name, value in values.items():
            end = f"end_{secrets.token_hex(16)}"
            file.write(f"{name}<<{end}\n{value}\n{end}\n")
