"""Which files of a cache may go, and which are in use. Pure: what is there, what is named and what runs are
arguments.

A cache may belong to several projects, so a file goes only if no catalogue that has used the cache names it.
Nothing but files that this recipe makes, in the places where it makes them, is ever chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tasks.cache.inventory import part, same_name
from tasks.errors import UsageError
from tasks.system.paths import TEMPORARY

ABANDONED_S = 30 * 86400.0  # a download of the catalogue's that nobody has gone on with, and an old log
WRITER_S = 3600.0  # a temporary file lives for milliseconds, a copy is being hashed for minutes
_UNITS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}

# the places of the recipe's own files (docs/README.md); a file elsewhere is somebody else's
_KEY = "(?:url-)?[0-9a-f]{16}/"
# programs of earlier versions have no key
_TARGET = re.compile(rf"models/{_KEY}[^./][^/]*|engines/(?:{_KEY})?llamafile-[^/]+")
_RECORD = re.compile(r"catalogue/[0-9a-f]{64}\.json|(?:stamps|roots)/[0-9a-f]{16}\.json")
_LOG = re.compile(r"(run/[^/]+/[^/]+-\d+)\.log(?:\.1|\.before)?|(run/[^/]+)\.log")
OURS = ("models", "engines", "stamps", "catalogue", "roots", "run")
_TEMPORARY = re.compile(
    rf"(?:{'|'.join(OURS)})/(?:[^/]+/)?{TEMPORARY}(?:(?:\.new|\.old)?\.tmp|\.copy)"
    r"|(?:catalogue|stamps|roots|run/[^/]+)/[^/]+\.json\.\d+-\d+\.tmp"  # of an earlier version
)


class Found(NamedTuple):
    """One file of the cache."""

    path: str  # from the cache, with `/`
    size: int  # bytes
    changed: float  # seconds since 1970
    read: float  # the same; file systems note it once a day, or never


class Needed(NamedTuple):
    """What has to stay; paths are from the cache, with `/`."""

    named: frozenset[str] = frozenset()  # targets of every catalogue that has used the cache
    compiled: frozenset[str] = frozenset()  # those catalogues, compiled
    all_asked: bool = True  # False: a catalogue of another machine cannot be read here


class Victim(NamedTuple):
    """A file that may go."""

    path: str  # from the cache, with `/`
    why: str
    size: int  # bytes
    target: str = ""  # whose lock must be free; none for a file without one


def age(text: str) -> float:
    """`30d`, `12h`, `4w` in seconds. Raises UsageError."""
    found = re.fullmatch(r"([0-9]{1,6})([hdw])", text.strip().lower())
    if found is None:
        what = f"--older-than: expected a number and h, d or w, got {text!r}"
        raise UsageError(what, fix="--older-than 30d")
    return int(found[1]) * _UNITS[found[2]]


def choose(
    found: Sequence[Found], needed: Needed, gone: Iterable[str], now: float, older_s: float | None
) -> list[Victim]:
    """The files that may go, in the order of `found`.

    Args:
        gone: stamps and roots whose files are no more.
        now: seconds since 1970.
        older_s: keep whatever was used or changed within so many seconds; None: the usual times.
    """
    there, ended = {one.path for one in found}, frozenset(gone)
    needed = needed._replace(named=frozenset(map(same_name, needed.named)))
    last = _last_use(found)
    victims = []
    for one in found:
        if _TARGET.fullmatch(one.path):
            reason = _of_target(one, needed, there)
        else:
            reason = _of_record(one.path, needed, there, ended)
        if reason is None:
            continue
        why, usual_s, least_s = reason
        if now - last[_group(one.path)] >= max(usual_s if older_s is None else older_s, least_s):
            target = part(one.path).target if _TARGET.fullmatch(one.path) else ""
            victims.append(Victim(one.path, why, one.size, target))
    return victims


_Reason = tuple[str, float, float]  # why it may go; after how many seconds, usually and at least


def _of_target(one: Found, needed: Needed, there: set[str]) -> _Reason | None:
    target, kind = part(one.path)
    named = same_name(target) in needed.named
    unknown = not named and not needed.all_asked  # it may be another machine's: only its age can tell
    usual_s = float("inf") if unknown else ABANDONED_S if named else 0.0
    if kind == "temporary":
        return "left by a writer that was killed", min(usual_s, WRITER_S), WRITER_S
    if kind == "copy":
        return "left by a copy that was interrupted", max(usual_s, WRITER_S), WRITER_S
    if kind == "partial":
        return "a download that was abandoned", usual_s, 0.0
    if named:
        return ("its file has gone", 0.0, 0.0) if kind == "stamp" and target not in there else None
    thing = "version" if target.startswith("engines/") else "file"
    return f"no catalogue names this {thing}", usual_s, 0.0


def _of_record(path: str, needed: Needed, there: set[str], gone: frozenset[str]) -> _Reason | None:
    if _TEMPORARY.fullmatch(path):
        return "left by a writer that was killed", WRITER_S, WRITER_S
    if log := _LOG.fullmatch(path):
        over = f"{log[1] or log[2]}.json" not in there
        return ("the log of a server that is over", ABANDONED_S, 0.0) if over else None
    if not _RECORD.fullmatch(path):
        return None
    if path.startswith("catalogue/"):
        old = path not in needed.compiled
        return ("compiled from a catalogue that has changed", 0.0, 0.0) if old else None
    if path not in gone:
        return None
    return ("its file has gone" if path.startswith("stamps/") else "its catalogue has gone"), 0.0, 0.0


def _group(path: str) -> tuple[str, bool]:
    """What ages together: a target with its stamp, and apart from it what is left of downloads."""
    if not _TARGET.fullmatch(path):
        return path, False
    target, kind = part(path)
    return target, kind not in ("whole", "stamp")


def _last_use(found: Iterable[Found]) -> Mapping[tuple[str, bool], float]:
    """When each group was last used or changed.

    That a file was read counts for a model or a program alone: `doit` itself reads what lies beside it.
    """
    last: dict[tuple[str, bool], float] = {}
    for one in found:
        whole = bool(_TARGET.fullmatch(one.path)) and part(one.path).kind == "whole"
        used = max(one.changed, one.read) if whole else one.changed
        last[_group(one.path)] = max(used, last.get(_group(one.path), used))
    return last


def is_used(path: str, in_use: frozenset[str]) -> bool:
    """Whether a server uses it: a model's folder as a whole, for the parts of a split one lie together."""
    target = part(path).target
    return target in in_use or _folder(target) in in_use


def _folder(target: str) -> str:
    return target.rpartition("/")[0] + "/" if target.startswith("models/") else target


def used_by(commands: Iterable[Sequence[str]]) -> frozenset[str]:
    """What command lines of servers use: folders of models and programs, from the cache.

    Wherever the cache is mounted for them: only the end of a path counts.
    """
    found: set[str] = set()
    for word in (word.replace("\\", "/") for words in commands for word in words):
        found |= {_folder(match) for match in _TARGET.findall(word)}
    return frozenset(found)
