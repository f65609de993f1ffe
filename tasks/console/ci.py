"""What CI systems read: a cache's key, GitHub's workflow commands, folds of a log. Pure.

Source: actions/runner's ActionCommand.cs: a command is a line that begins with `::`, blanks apart, or has the
older `##[` anywhere. GitLab's "custom collapsible sections" for its folds.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tasks.catalogue.artifact import DIGEST_CHARS, Artifact
from tasks.console.text import digest
from tasks.errors import RecipeError

CACHE_LIMIT = 10 * 1024**3  # bytes that GitHub keeps of a repository's caches, the last used ones
_LAYOUT = "1"  # of the cache's folders: another one is another key


def cache_key(name: str, files: Iterable[Artifact]) -> str:
    """A key that changes with the bytes or the names of the files, and with nothing else.

    Raises RecipeError: nothing pins one of them.
    """
    lines = []
    for file in files:
        if file.sha256 is None:
            what = f"{file.label} has no digest, so that its bytes may change: it has no key"
            raise RecipeError(what, fix=f"doit lock --model {file.label.split()[0]}, and commit models.lock")
        lines.append(f"{file.sha256} {_filename(file)}\n")
    key = digest("".join([_LAYOUT, *sorted(lines)]))
    return f"llamafile-recipe-{name}-{key[:DIGEST_CHARS]}"


def _filename(file: Artifact) -> str:
    return re.split(r"[\\/]", file.target)[-1]


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
