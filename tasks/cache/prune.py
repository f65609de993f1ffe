"""Select the files of a cache that may be removed. Pure: all facts are arguments.

Several projects may share a cache: a file may be removed only if no catalogue that has
used the cache names it. Only files of this recipe, in the places where it writes them,
are ever selected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tasks.cache.inventory import classify_path, fold_path
from tasks.errors import UsageError
from tasks.system.paths import TEMPORARY

# an unfinished download of a file that a catalogue names
ABANDONED_S = 30 * 86400.0
# of any other file, a model of --llamafile-url without a digest, and a log
RECENT_S = 7 * 86400.0
# a writer needs a temporary file for milliseconds; hashing a copy may take minutes
WRITER_S = 3600.0
_UNITS = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}

# the places of the recipe's own files (docs/README.md); any other file is left alone
_KEY = "(?:url-)?[0-9a-f]{16}/"
# programs of earlier versions have no key
_TARGET = re.compile(rf"models/{_KEY}[^./][^/]*|engines/(?:{_KEY})?llamafile-[^/]+")
_RECORD = re.compile(
    r"catalogue/[0-9a-f]{64}\.json|(?:stamps|roots)/[0-9a-f]{16}\.json"
)
_LOG = re.compile(r"(run/[^/]+/[^/]+-\d+)\.log(?:\.[12]|\.before)?|(run/[^/]+)\.log")
_SERVER = re.compile(r"run/[^/]+/[^/]+-\d+\.json")
_PRESET = re.compile(r"(run/[^/]+/.+)-[0-9a-f]{8}\.ini")
OURS = ("models", "engines", "stamps", "catalogue", "roots", "run")
_TEMPORARY = re.compile(
    rf"(?:{'|'.join(OURS)})/(?:[^/]+/)?{TEMPORARY}(?:(?:\.new|\.old)?\.tmp|\.copy)"
    # of an earlier version
    r"|(?:catalogue|stamps|roots|run/[^/]+)/[^/]+\.json\.\d+-\d+\.tmp"
)


class CacheFile(NamedTuple):
    """One file of the cache."""

    path: str  # relative to the cache, with `/`
    size: int  # bytes
    changed: float  # modification time, in seconds since 1970
    read: float  # access time; file systems update it once a day, or never


class LiveSet(NamedTuple):
    """What must stay; paths are relative to the cache, with `/`."""

    named: frozenset[str] = frozenset()  # targets of all catalogues that used the cache
    compiled: frozenset[str] = frozenset()  # those catalogues in compiled form
    all_asked: bool = True  # False: a catalogue of another machine cannot be read here


class Candidate(NamedTuple):
    """A file that may be removed."""

    path: str  # relative to the cache, with `/`
    why: str
    size: int  # bytes
    target: str = ""  # the target whose lock must be free; empty: no lock


class _Rule(NamedTuple):
    """Why a file may be removed, and how long after its last use, in seconds."""

    why: str
    usual_s: float = 0.0
    least_s: float = 0.0  # also with --older-than


_TEMPORARY_RULE = _Rule("left by a writer that was killed", WRITER_S, WRITER_S)


def parse_age(text: str) -> float:
    """Parse `30d`, `12h` or `4w` into seconds.

    Raises:
        UsageError: it has another form.
    """
    match = re.fullmatch(r"([0-9]{1,6})([hdw])", text.strip().lower())
    if match is None:
        what = f"--older-than: expected a number and h, d or w, got {text!r}"
        raise UsageError(what, fix="--older-than 30d")
    return int(match[1]) * _UNITS[match[2]]


def select_removable(
    found: Sequence[CacheFile],
    needed: LiveSet,
    gone: Iterable[str],
    now: float,
    older_s: float | None,
) -> list[Candidate]:
    """Return the files that may be removed, in the order of `found`.

    Args:
        gone: stamps and roots whose files do not exist any more, and the records of
            servers that have ended.
        now: seconds since 1970.
        older_s: keep what was used or changed within this time; None: the usual times.
    """
    existing = {file.path for file in found}
    orphans = frozenset(gone)
    needed = needed._replace(named=frozenset(map(fold_path, needed.named)))
    last_use = _last_use(found)
    victims = []
    for file in found:
        is_target = bool(_TARGET.fullmatch(file.path))
        if is_target:
            rule = _target_rule(file.path, needed, existing)
        else:
            rule = _record_rule(file.path, needed, existing, orphans)
        if rule is None:
            continue
        limit_s = rule.usual_s if older_s is None else older_s
        if now - last_use[_group(file.path)] >= max(limit_s, rule.least_s):
            target = classify_path(file.path).target if is_target else ""
            victims.append(Candidate(file.path, rule.why, file.size, target))
    return victims


def _target_rule(path: str, needed: LiveSet, existing: set[str]) -> _Rule | None:
    target, kind = classify_path(path)
    named = fold_path(target) in needed.named
    usual_s = _usual_age(named, needed.all_asked)
    if kind == "temporary":
        return _TEMPORARY_RULE._replace(usual_s=min(usual_s, WRITER_S))
    if kind == "copy":
        why = "left by a copy that was interrupted"
        return _Rule(why, max(usual_s, WRITER_S), WRITER_S)
    if kind == "partial":
        return _Rule("a download that was abandoned", max(usual_s, RECENT_S))
    if named:
        if kind == "stamp" and target not in existing:
            return _Rule("its file does not exist")
        return None
    thing = "version" if target.startswith("engines/") else "file"
    if target.startswith("models/url-"):
        usual_s = max(usual_s, RECENT_S)  # served by its URL, which no record names
    return _Rule(f"no catalogue names this {thing}", usual_s)


def _usual_age(named: bool, all_asked: bool) -> float:
    """Return how many seconds what belongs to a target is kept after its last use."""
    if named:
        return ABANDONED_S
    if not all_asked:
        # A catalogue of another machine may name it: remove it with --older-than only.
        return float("inf")
    return 0.0


def _record_rule(
    path: str, needed: LiveSet, existing: set[str], orphans: frozenset[str]
) -> _Rule | None:
    if _TEMPORARY.fullmatch(path):
        return _TEMPORARY_RULE
    if log := _LOG.fullmatch(path):
        record = f"{log[1] or log[2]}.json"
        if record in existing and record not in orphans:
            return None
        return _Rule("the log of a stopped server", RECENT_S)
    if preset := _PRESET.fullmatch(path):
        servers = (one for one in existing - orphans if _SERVER.fullmatch(one))
        if preset[1] in {one.rpartition("-")[0] for one in servers}:
            return None
        return _Rule("the preset file of a stopped server", RECENT_S)
    if _SERVER.fullmatch(path) and path in orphans:
        return _Rule("the record of a stopped server", RECENT_S)
    if not _RECORD.fullmatch(path):
        return None
    if path.startswith("catalogue/"):
        if path in needed.compiled:
            return None
        return _Rule("stale compiled catalogue")
    if path not in orphans:
        return None
    if path.startswith("stamps/"):
        return _Rule("its file does not exist")
    return _Rule("its catalogue does not exist")


def _group(path: str) -> tuple[str, bool]:
    """Return the key of the files that age together.

    A target ages with its stamp; what is left of its downloads ages apart from it.
    """
    if not _TARGET.fullmatch(path):
        return path, False
    target, kind = classify_path(path)
    return target, kind not in ("whole", "stamp")


def _last_use(found: Iterable[CacheFile]) -> Mapping[tuple[str, bool], float]:
    """Return when each group was last used or changed.

    The access time counts for models and programs only: `doit` itself reads the files
    beside them.
    """
    last: dict[tuple[str, bool], float] = {}
    for file in found:
        used = file.changed
        if _TARGET.fullmatch(file.path) and classify_path(file.path).kind == "whole":
            used = max(file.changed, file.read)
        group = _group(file.path)
        last[group] = max(used, last.get(group, used))
    return last


def kind_of(path: str) -> str:
    """Return the kind of file under which a report adds it up."""
    folder = path.partition("/")[0]
    if folder in ("models", "engines"):
        if classify_path(path).kind in ("whole", "stamp"):
            return folder
        return "partial downloads"
    return _KINDS.get(folder, "records")


_KINDS = {"run": "logs", "catalogue": "compiled catalogues"}


def is_used(path: str, in_use: frozenset[str]) -> bool:
    """Return whether a server uses a file.

    A model's folder counts as a whole: all parts of a split model are in it.
    """
    target = classify_path(path).target
    return target in in_use or _folder(target) in in_use


def _folder(target: str) -> str:
    if target.startswith("models/"):
        return target.rpartition("/")[0] + "/"
    return target


def paths_in_use(commands: Iterable[Sequence[str]]) -> frozenset[str]:
    """Return the models' folders and the programs that servers' command lines name.

    Paths are relative to the cache. Only the end of an argument counts, since a server
    may see the cache at another mount point.
    """
    arguments = (word.replace("\\", "/") for words in commands for word in words)
    targets = (target for text in arguments for target in _TARGET.findall(text))
    return frozenset(map(_folder, targets))
