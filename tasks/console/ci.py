"""Output that CI systems interpret: workflow commands, log groups, output files.

Source: actions/runner, ActionCommand.cs: a command is a line that begins with `::`,
after spaces, or has the older `##[` anywhere. GitLab, "Custom collapsible sections".
"""

from __future__ import annotations

import re
from collections.abc import Mapping


def workflow_command(name: str, text: str = "", title: str = "") -> str:
    """Return a workflow command of GitHub, one line."""
    if title:
        name = f"{name} title={title}".replace(":", "%3A")
    escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return f"::{name}::{escaped}\n"


def is_github(env: Mapping[str, str]) -> bool:
    """Return whether GitHub Actions reads the output."""
    return env.get("GITHUB_ACTIONS") == "true"


def escape_workflow_commands(text: str, env: Mapping[str, str]) -> str:
    """Disable GitHub's commands in text that an engine or a server may have sent."""
    if not is_github(env):
        return text
    text = re.sub(r"((?:^|[\r\n])\s*)(?=::)", r"\1|", text)
    return re.sub(r"##(?=\[)", "##|", text)


# the first and the last line of a group
# {id}: letters, digits and _.-; {at}: seconds since 1970
_GITHUB = ("::group::{name}\n", "::endgroup::\n")
_GITLAB = (
    "\x1b[0Ksection_start:{at}:{id}\r\x1b[0K{name}\n",
    "\x1b[0Ksection_end:{at}:{id}\r\x1b[0K\n",
)


def supports_groups(env: Mapping[str, str]) -> bool:
    """Return whether the CI system can group the lines of a log."""
    return is_github(env) or env.get("GITLAB_CI") == "true"


def group_marker(
    name: str, now: float, env: Mapping[str, str], *, end: bool = False
) -> str:
    """Return the line that begins, or ends, the group of a task's lines."""
    lines = _GITHUB if is_github(env) else _GITLAB
    identifier = re.sub(r"[^\w.-]", "-", name)
    return lines[end].format(name=name, id=identifier, at=int(now))


def append_env_file(path: str, values: Mapping[str, str]) -> None:
    """Append values, which may have several lines, to $GITHUB_OUTPUT or $GITHUB_ENV.

    Source: GitHub, "Workflow commands", "Multiline strings": a value must not contain
    the delimiter.

    Raises:
        OSError: the file cannot be written.
    """
    import secrets  # only on GitHub

    with open(
        path, "a", encoding="utf-8", errors="surrogateescape", newline="\n"
    ) as file:
        for name, value in values.items():
            delimiter = f"end_{secrets.token_hex(16)}"
            file.write(f"{name}<<{delimiter}\n{value}\n{delimiter}\n")
