"""One file that must come here (the artifact), where it lies, and whether what lies there is it.

Pure: paths are text, what was read from disk is an argument.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from tasks.console.text import digest
from tasks.system.file_stat import FileStat
from tasks.system.paths import inside

DIGEST_CHARS = 16  # of the digest, in a directory's name: enough to be unique, short enough for Windows


class Artifact(NamedTuple):
    """One file: what it is called in messages, where its bytes come from, what they must be."""

    label: str  # the model's or engine's name
    sources: tuple[str, ...]  # URLs in the order they are tried
    target: str  # the final path
    sha256: str | None = None  # hexadecimal digest; None where nothing pins it
    size: int | None = None  # bytes; None where nobody says
    owned: bool = True  # the file lies in our cache, so that wrong bytes may be replaced
    adopt_from: tuple[str, ...] | None = ()  # folders where it may lie already; None: take it from nowhere

    @property
    def partial(self) -> str:
        """Where bytes go until they are proven."""
        return self.target + ".partial"

    @property
    def journal(self) -> str:
        """What is known of the partial: which bytes are there, and who is writing it."""
        return self.target + ".partial.json"

    @property
    def live(self) -> str:
        """The same for bytes that the disk may not have yet: true as long as the machine is up."""
        return self.target + ".partial.live"


class Stamp(NamedTuple):
    """What was proven about a target, and the state of the file that it was proven for."""

    stat: FileStat
    sha256: str | None  # digest of these bytes; None for a file of the user's that nothing pins
    source: str  # where they came from
    engines: Mapping[str, str]  # engine → version that was proven to work with it

    def with_engine(self, engine: str, version: str) -> Stamp:
        """The same, with one more engine proven."""
        return self._replace(engines={**self.engines, engine: version})


class State(Enum):
    """What lies at a target."""

    MISSING = "missing"
    FRESH = "fresh"  # it is what was proven
    MOVED = "moved"  # it is there, and its bytes have to be read again


def judge_target(artifact: Artifact, stat: FileStat | None, stamp: Stamp | None) -> State:
    """Say what lies at the target.

    Args:
        stat: of the file, None where there is none.
    """
    if stat is None:
        return State.MISSING
    if stamp is not None and stat == stamp.stat:
        known = artifact.sha256 in (None, stamp.sha256)
        return State.FRESH if known else State.MOVED
    return State.MOVED if artifact.sha256 or artifact.owned else State.FRESH


_UNKNOWN = -1  # no file has this: what a stamp of an older version does not say
_STAT = FileStat._fields


def parse_stamp(data: Any) -> Stamp | None:
    """Read a stamp from its JSON; None for anything else (then the file is read again).

    A stamp of an older version has only size and mtime_ns. It fits no file, so that the file is
    read once; what it says of these bytes is kept when their digest is the same.
    """
    try:
        whole = _checksum(data) == data.get("checksum")
        if not (whole or _is_of_old_version(data)):
            return None
        stat = FileStat(*(int(data.get(key, _UNKNOWN)) for key in _STAT))
        engines = {str(k): str(v) for k, v in dict(data.get("engines", {})).items()}
        sha256 = None if data["sha256"] is None else str(data["sha256"])
        return Stamp(stat, sha256, str(data.get("source", "")), engines)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None


def _is_of_old_version(data: Mapping[str, Any]) -> bool:
    return {"size", "mtime_ns"} <= data.keys() and not {"dev", "ino", "ctime_ns", "checksum"} & data.keys()


def stamp_data(stamp: Stamp) -> dict[str, Any]:
    """A stamp as JSON, with the checksum of all the rest."""
    body = {
        **stamp.stat._asdict(),
        "sha256": stamp.sha256,
        "source": stamp.source,
        "engines": dict(stamp.engines),
    }
    return {**body, "checksum": _checksum(body)}


def _checksum(data: Mapping[str, Any]) -> str:
    """Digest of a stamp's canonical text, the file's own digest included.

    It finds damage and edits by hand. It is no signature: whoever can write a stamp can compute it.
    """
    body = {key: value for key, value in data.items() if key != "checksum"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def model_dir(cache: str, sha256: str | None, url: str) -> str:
    """The directory of one model's file: named by its digest, else by its URL's.

    Raises UsageError: the digest is not one.
    """
    return inside(f"{cache}/models", _key(sha256, url))


def engine_dir(cache: str, sha256: str | None, url: str) -> str:
    """The directory of one engine's program, named like a model's. Raises UsageError like `model_dir`."""
    return inside(f"{cache}/engines", _key(sha256, url))


def _key(sha256: str | None, url: str) -> str:
    if sha256:
        return sha256[:DIGEST_CHARS]
    return "url-" + digest(url)[:DIGEST_CHARS]


def stamp_path(cache: str, artifact: Artifact) -> str:
    """Beside the target in our cache; for a file of the user's, in the cache under its path's digest."""
    if artifact.owned:
        return artifact.target + ".stamp.json"
    key = digest(artifact.target)[:DIGEST_CHARS]
    return f"{cache}/stamps/{key}.json"


def engine_filename(version: str, platform: str) -> str:
    """llamafile's executable in the cache; Windows runs only what ends in .exe."""
    return f"llamafile-{version}" + (".exe" if platform == "win32" else "")


# Source: cosmopolitan ape/specification.md; and a script that starts one
PROGRAMS = (b"MZqFpD='", b"jartsr='", b"APEDBG='", b"#!")


def is_gguf(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a GGUF of a version in use."""
    return head[:4] == b"GGUF" and int.from_bytes(head[4:8], "little") in (2, 3)
