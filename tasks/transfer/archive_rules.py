"""Decide which members of an archive are unpacked, and where. Pure.

An archive is refused as a whole if any member could be written outside its folder, is
neither a file, a folder nor a link inside it, or cannot have its name on every system.
Links are created last, so that no file is written through one.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from tasks.cache.inventory import fold_path
from tasks.system.paths import name_problem

# bounds of one archive; a release of llama.cpp has about 80 files and at most 1.5 GB
MAX_MEMBERS = 10_000
MAX_BYTES = 8 * 1024**3
MAX_DEPTH = 12  # folders above a file
MAX_PATH = 400  # bytes of a path in the archive
MAX_LINKS = 40  # from a link to its file, as in Linux
_SHOWN = 80  # characters of a name in an error


class Kind(Enum):
    """What a member of an archive is."""

    FILE = "a file"
    FOLDER = "a folder"
    LINK = "a symbolic link"
    HARD_LINK = "a hard link"
    OTHER = "a device or a pipe"


class Member(NamedTuple):
    """One member of an archive, as the archive states it."""

    name: str
    kind: Kind = Kind.FILE
    size: int = 0  # bytes
    is_program: bool = False  # any user may execute it
    link: str = ""  # the target of a link


class Entry(NamedTuple):
    """A file or a link to create."""

    path: str  # relative to the folder of the archive's files, with `/`
    member: Member
    number: int  # of the member in the archive


class RefusedArchiveError(Exception):
    """The archive is not unpacked; the text says why."""


def entries_of(members: Iterable[Member], program: str) -> list[Entry]:
    """Return the files, then the links, of an archive.

    The folders that all members are in are removed from the paths: the program has to
    be at the top then.

    Args:
        members: read no further than to the first one that is refused.
        program: file name of the program; empty: any.

    Raises:
        RefusedArchiveError: a member breaks a rule, or the program is not there.
    """
    found: list[Entry] = []
    taken: dict[str, str] = {}  # folded path → path of a file or link
    folders: dict[str, str] = {}
    total = 0
    for number, member in enumerate(members):
        if number >= MAX_MEMBERS:
            raise RefusedArchiveError(f"it has more than {MAX_MEMBERS:,} members")
        total += member.size
        if member.size < 0 or total > MAX_BYTES:
            raise RefusedArchiveError(f"its files have more than {MAX_BYTES:,} bytes")
        path = _checked_path(member)
        _check_collision(path, member.kind, taken, folders)
        if member.kind is not Kind.FOLDER:
            found.append(Entry(path, member, number))
    found = _without_root(found)
    paths = {entry.path: entry for entry in found}
    if bytes_of(found, copies_links=True) > MAX_BYTES:
        what = "without links, its files have more than"
        raise RefusedArchiveError(f"{what} {MAX_BYTES:,} bytes")
    if program and (program not in paths or paths[program].member.kind != Kind.FILE):
        tops = sorted({entry.path.partition("/")[0] for entry in found})
        names = ", ".join(tops[:5]) or "nothing"
        what = f"it has no program {program} in its only folder"
        raise RefusedArchiveError(f"{what}; it begins with {names}")
    # stable: both keep their order
    return sorted(found, key=lambda entry: entry.member.kind is Kind.LINK)


def bytes_of(entries: Sequence[Entry], *, copies_links: bool) -> int:
    """Return how many bytes the files of an archive take on the disk.

    Args:
        copies_links: the system has no links, and gets a copy of the file for each.

    Raises:
        RefusedArchiveError: a link leads out of the folder, or to no file.
    """
    paths = {entry.path: entry for entry in entries}
    total = 0
    for entry in entries:
        file = final_target(entry, paths)
        if file is entry or copies_links:
            total += file.member.size
    return total


def _shown(name: str) -> str:
    """Return a name for an error: one line, and not of any length."""
    if len(name) > _SHOWN:
        return f"{name[:_SHOWN]!r}…"
    return repr(name)


def _checked_path(member: Member) -> str:
    """Return the path of a member in normal form."""
    if member.kind in (Kind.HARD_LINK, Kind.OTHER):
        raise RefusedArchiveError(f"{_shown(member.name)} is {member.kind.value}")
    name = member.name
    if member.kind is Kind.FOLDER:
        name = name.rstrip("/")
    if name.startswith("/"):
        raise RefusedArchiveError(f"{_shown(member.name)} is an absolute path")
    parts = [part for part in name.split("/") if part != "."]
    if not parts and member.kind is Kind.FOLDER:
        return ""
    for part in parts or [""]:
        # hidden files are no danger in a folder of their own
        problem = name_problem(part.lstrip("-.") or part)
        if problem:
            raise RefusedArchiveError(f"{_shown(member.name)}: {problem}")
    if len(parts) > MAX_DEPTH or len(name.encode("utf-8", "replace")) > MAX_PATH:
        raise RefusedArchiveError(f"{_shown(member.name)} is too deep or too long")
    return "/".join(parts)


def _check_collision(
    path: str, kind: Kind, taken: dict[str, str], folders: dict[str, str]
) -> None:
    """Check that two members do not get one path, on any file system.

    Args:
        taken: paths of files and links by their folded form; this one is added.
        folders: the same of folders.
    """
    parts = path.split("/")
    if kind is Kind.FOLDER:
        parts.append("")
    for count in range(1, len(parts)):
        folder = "/".join(parts[:count])
        key = fold_path(folder)
        if folders.setdefault(key, folder) != folder or key in taken:
            other = _other(key, taken, folders)
            raise RefusedArchiveError(f"{path!r} conflicts with {other!r}")
    if kind is Kind.FOLDER:
        return
    key = fold_path(path)
    if key in taken or key in folders:
        other = _other(key, taken, folders)
        raise RefusedArchiveError(f"{path!r} and {other!r} have one path")
    taken[key] = path


def _other(key: str, taken: dict[str, str], folders: dict[str, str]) -> str:
    return taken.get(key) or folders.get(key) or ""


def _without_root(found: Sequence[Entry]) -> list[Entry]:
    """Return the entries without the folders that all of them are in."""
    folders = [entry.path.split("/")[:-1] for entry in found]
    if not folders:
        return []
    depth = len(posixpath.commonprefix(folders))
    return [
        entry._replace(path="/".join(entry.path.split("/")[depth:])) for entry in found
    ]


def final_target(entry: Entry, paths: dict[str, Entry]) -> Entry:
    """Return the file that a link leads to, directly or through other links.

    Raises:
        RefusedArchiveError: it leads out of the folder, or to no file of the archive.
    """
    seen = {entry.path}
    now = entry
    while now.member.kind is Kind.LINK:
        target = posixpath.join(posixpath.dirname(now.path), now.member.link)
        path = posixpath.normpath(target)
        if now.member.link.startswith("/") or path.startswith(".."):
            raise RefusedArchiveError(
                f"the link {_shown(entry.member.name)} leads out of the folder: "
                f"{_shown(now.member.link)}"
            )
        if path in seen or path not in paths or len(seen) > MAX_LINKS:
            raise RefusedArchiveError(
                f"the link {_shown(entry.member.name)} leads to no file: "
                f"{_shown(now.member.link)}"
            )
        seen.add(path)
        now = paths[path]
    return now
