"""Check and build names and paths from untrusted parts. Pure: no disk access.

Such parts come from URLs of a catalogue, lock files, upstream servers and records. A
cache may move to another operating system, so one rule holds on all of them: a name
that one system reads as that of another file is refused everywhere.

Source: Microsoft, "Naming Files, Paths, and Namespaces" (reserved names, trailing dots
and spaces).
"""

from __future__ import annotations

import hashlib
import re

from tasks.errors import UsageError

NAME_BYTES = 255  # of a file name: ext4, xfs, btrfs, APFS, NTFS
ENDING_BYTES = 13  # of `.partial.json`, the longest suffix of a file beside a target
MAX_BYTES = NAME_BYTES - ENDING_BYTES
MAX_NAME = 100  # bytes of a model's name, which is a part of file names
_KEY_CHARS = 8  # of a digest, in temporary names

_DEVICES = r"con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]"
# texts: every run loads this module, and few need one of them compiled
_RESERVED = rf"(?i)(?:{_DEVICES})\s*(?:\..*)?"
_FORBIDDEN = '/\\:*?"<>|'  # separators, streams of NTFS, and what Windows refuses
_VERSION = r"[0-9A-Za-z][0-9A-Za-z._+-]{0,63}"
TEMPORARY = r"\.[0-9a-f]{8}-\d+-[0-9a-f]{8}"  # of `temporary_name`, without suffix


def is_version(text: str) -> bool:
    """Return whether a text is safe as an engine version in a URL and a file name."""
    return re.fullmatch(_VERSION, text) is not None


def name_problem(name: str) -> str:
    """Return why a text cannot be the name of a file in a folder; "" if it can."""
    if name in ("", ".", ".."):
        return "expected the name of a file"
    bad = next((c for c in name if c in _FORBIDDEN or not c.isprintable()), "")
    if bad:
        return f"{bad!r} cannot be in the name of a file"
    if name[0] in "-.":  # an option of a command, a hidden file, or a temporary file
        return f"the name of a file cannot begin with {name[0]!r}"
    if name[-1] in ". ":
        return f"the name of a file cannot end with {name[-1]!r}"
    if re.fullmatch(_RESERVED, name):
        return "Windows reserves this name for a device"
    length = len(name.encode())
    if length > MAX_BYTES:
        return f"the name has {length} bytes, expected {MAX_BYTES} at most"
    return ""


def inside(folder: str, name: str) -> str:
    """Return the path of a file in a folder.

    Raises:
        UsageError: the name could lead to another folder, or is not portable.
    """
    problem = name_problem(name)
    if problem:
        raise UsageError(f"{name!r} cannot be a file in {folder}: {problem}")
    return f"{folder}/{name}"


def short_name(name: str) -> str:
    """Truncate a model's name for the names of its records, logs and locks."""
    return name.encode()[:MAX_NAME].decode(errors="ignore")


def is_path(value: object) -> bool:
    """Return whether a value is a text that every system call accepts as a path."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def temporary_key(name: str) -> str:
    """Return the prefix, of fixed length, of a file's temporary files."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f".{digest[:_KEY_CHARS]}-"


def temporary_name(name: str, pid: int, salt: str, ending: str) -> str:
    """Return the name of a temporary file beside another file.

    Args:
        salt: eight random hexadecimal digits.
    """
    return f"{temporary_key(name)}{pid}-{salt}{ending}"


def shared_mode(cache: int, is_same_group: bool) -> int:
    """Return the permissions that a folder of the cache takes over from it.

    Args:
        cache: the mode of the cache.
        is_same_group: whether both have the same group; if not, the permissions of the
            cache's group are not for the group of the folder.
    """
    if is_same_group:
        return cache & 0o7777
    others = cache & 0o007
    return cache & 0o1700 | others << 3 | others
