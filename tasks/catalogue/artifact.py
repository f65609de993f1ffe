"""Artifacts (files to download), their cache paths, and their stamps.

Pure: paths are text, and what was read from disk is an argument.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Literal, NamedTuple

from tasks.console.text import digest
from tasks.system.file_stat import FileStat
from tasks.system.paths import inside

# digits of the digest in a directory's name: unique, and short enough for Windows
DIGEST_CHARS = 16


def total_size(sizes: Iterable[int | None]) -> int | None:
    """Return the bytes of all files; None if the size of any is unknown."""
    total = 0
    for size in sizes:
        if size is None:
            return None
        total += size
    return total


class Artifact(NamedTuple):
    """One file: its label, its sources, its target path and its pins."""

    label: str  # the model's or engine's name, for messages
    sources: tuple[str, ...]  # URLs in the order they are tried
    target: str  # the final path
    sha256: str | None = None  # hexadecimal digest; None: not pinned
    size: int | None = None  # bytes; None: unknown
    in_cache: bool = True  # it lies in the cache, so wrong bytes may be replaced
    # folders that may already have the file; None: adopt no file
    adopt_from: tuple[str, ...] | None = ()
    is_text: bool = False  # a text file, such as a chat template, not a model
    # of an archive: the folder beside it that has its files, see docs/adr/0018
    unpacked: str = ""

    @property
    def partial(self) -> str:
        """Path of the bytes until they are verified."""
        return self.target + ".partial"

    @property
    def journal(self) -> str:
        """Path of the partial's journal: the bytes that it has, and its writer."""
        return self.target + ".partial.json"

    @property
    def volatile_journal(self) -> str:
        """Path of the journal of bytes not yet on disk, valid until a reboot."""
        return self.target + ".partial.live"


class Stamp(NamedTuple):
    """What was verified about a target, and the file's stat at that time."""

    stat: FileStat
    sha256: str | None  # of these bytes; None for an unpinned file of the user's
    source: str  # URL or path of these bytes
    # engine → version that served the file; of a companion: `engine role of …`
    engines: Mapping[str, str]

    def with_engine(self, engine: str, version: str) -> Stamp:
        """Return the stamp with one more verified engine."""
        return self._replace(engines={**self.engines, engine: version})


class TargetState(Enum):
    """State of the file at a target path."""

    MISSING = "missing"
    FRESH = "fresh"  # it matches its stamp
    UNVERIFIED = "moved"  # it exists, and has to be read again


def compare_target(
    artifact: Artifact, stat: FileStat | None, stamp: Stamp | None
) -> TargetState:
    """Return the state of the target.

    Args:
        stat: of the file; None if there is none.
    """
    if stat is None:
        return TargetState.MISSING
    if stamp is not None and stat == stamp.stat:
        fresh = artifact.sha256 in (None, stamp.sha256)
    else:  # an unpinned file of the user's needs no verification
        fresh = not artifact.sha256 and not artifact.in_cache
    return TargetState.FRESH if fresh else TargetState.UNVERIFIED


# For fields that a stamp of an older version lacks; no file has this value, so the
# file is read once. The stamp's other data is kept if the digest is still the same.
_UNKNOWN = -1
_CORRUPT = (
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
    OverflowError,
    RecursionError,
)


def parse_stamp(data: Any) -> Stamp | None:
    """Parse a stamp's JSON; None if it is not a valid stamp."""
    try:
        intact = _checksum(data) == data.get("checksum")
        if not intact and not _is_of_old_version(data):
            return None
        stat = FileStat(*(int(data.get(key, _UNKNOWN)) for key in FileStat._fields))
        sha256 = data["sha256"]
        if sha256 is not None:
            sha256 = str(sha256)
        engines = {str(k): str(v) for k, v in dict(data.get("engines", {})).items()}
        return Stamp(stat, sha256, str(data.get("source", "")), engines)
    except _CORRUPT:
        return None


def _is_of_old_version(data: Mapping[str, Any]) -> bool:
    """Whether the stamp has only the size and mtime that older versions wrote."""
    newer = {"dev", "ino", "ctime_ns", "checksum"}
    return {"size", "mtime_ns"} <= data.keys() and not newer & data.keys()


def stamp_data(stamp: Stamp) -> dict[str, Any]:
    """Return a stamp's JSON, with a checksum."""
    body = {
        **stamp.stat._asdict(),
        "sha256": stamp.sha256,
        "source": stamp.source,
        "engines": dict(stamp.engines),
    }
    return {**body, "checksum": _checksum(body)}


def _checksum(data: Mapping[str, Any]) -> str:
    """Digest all fields but the checksum itself.

    This detects damage and manual edits. It is not a signature: any program that can
    write a stamp can compute it.
    """
    body = {key: value for key, value in data.items() if key != "checksum"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def model_dir(cache: str, sha256: str | None, url: str) -> str:
    """Return the directory of a model's file: named by its digest, or by its URL's.

    Raises:
        UsageError: `sha256` is not a digest.
    """
    return inside(f"{cache}/models", _key(sha256, url))


def engine_dir(cache: str, sha256: str | None, url: str) -> str:
    """Return the directory of an engine's executable, named like a model's.

    Raises:
        UsageError: `sha256` is not a digest.
    """
    return inside(f"{cache}/engines", _key(sha256, url))


def _key(sha256: str | None, url: str) -> str:
    if sha256:
        return sha256[:DIGEST_CHARS]
    return "url-" + digest(url)[:DIGEST_CHARS]


def stamp_path(cache: str, artifact: Artifact) -> str:
    """Return the stamp's path: beside a cached target, else in the cache."""
    if artifact.in_cache:
        return artifact.target + ".stamp.json"
    key = digest(artifact.target)[:DIGEST_CHARS]
    return f"{cache}/stamps/{key}.json"


def engine_filename(version: str, platform: str) -> str:
    """Return the file name of llamafile's executable; Windows needs `.exe`."""
    name = f"llamafile-{version}"
    return f"{name}.exe" if platform == "win32" else name


# Source: cosmopolitan ape/specification.md; and `#!` of a script that starts one
EXECUTABLE_MAGICS = (b"MZqFpD='", b"jartsr='", b"APEDBG='", b"#!")

# what `--assimilate` makes of a llamafile; Source: elf.h, mach-o/loader.h (64 bits)
_ELF = b"\x7fELF"
_MACH_O = b"\xcf\xfa\xed\xfe"
_ELF_CPUS = {62: "x86_64", 183: "aarch64"}
_MACH_O_CPUS = {0x01000007: "x86_64", 0x0100000C: "arm64"}
HEAD_BYTES = 20  # of a file, to tell its format and its CPU


def is_native(head: bytes) -> bool:
    """Whether the system itself starts a file that begins so, without a shell."""
    return head.startswith((_ELF, _MACH_O))


def native_format(head: bytes) -> str:
    """Return the format and the CPU of a native program; "" for any other file."""
    if head.startswith(_ELF):
        order: Literal["little", "big"] = "little"
        if head[5:6] == b"\2":
            order = "big"
        cpu = _ELF_CPUS.get(int.from_bytes(head[18:20], order), "another CPU")
        return f"an ELF program for {cpu}"
    if head.startswith(_MACH_O):
        cpu = _MACH_O_CPUS.get(int.from_bytes(head[4:8], "little"), "another CPU")
        return f"a Mach-O program for {cpu}, which macOS starts"
    return ""


def is_gguf(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a GGUF, version 2 or 3."""
    version = int.from_bytes(head[4:8], "little")
    return head[:4] == b"GGUF" and len(head) >= 8 and version in (2, 3)
