"""Names and paths that are made of parts from outside. Pure: no file system is asked.

Outside: catalogues' URLs, lock files, publishers' answers, records. A cache may move to another system, so
one rule holds on all of them: what one system reads as another file is refused everywhere.

Source: Microsoft, "Naming Files, Paths, and Namespaces" (reserved names, trailing dots and spaces).
"""

from __future__ import annotations

import hashlib
import re

from tasks.errors import UsageError

NAME_BYTES = 255  # of a file name: ext4, xfs, btrfs, APFS, NTFS
ENDING_BYTES = 13  # of the longest ending that a file beside a target has: .partial.json
MOST_BYTES = NAME_BYTES - ENDING_BYTES
MOST_NAME = 100  # bytes of a model's name: it is a part of names
_KEY_CHARS = 8  # of a digest, in temporary names

_RESERVED = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\..*)?", re.I)
_FORBIDDEN = '/\\:*?"<>|'  # separators, streams of NTFS, and what Windows refuses
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,63}")
TEMPORARY = r"\.[0-9a-f]{8}-\d+-[0-9a-f]{8}"  # what `temporary_name` makes, without its ending


def is_version(text: str) -> bool:
    """Whether a text can be the version of an engine: it becomes part of a URL and of a file's name."""
    return _VERSION.fullmatch(text) is not None


def name_problem(name: str) -> str:
    """Why a text cannot be the name of a file in a folder, or nothing."""
    if name in ("", ".", ".."):
        return "expected the name of a file"
    if bad := next((c for c in name if c in _FORBIDDEN or not c.isprintable()), ""):
        return f"{bad!r} cannot be in the name of a file"
    if name[0] in "-.":  # a hidden file, an option of a command, or one of our temporary files
        return f"the name of a file cannot begin with {name[0]!r}"
    if name[-1] in ". ":
        return f"the name of a file cannot end with {name[-1]!r}"
    if _RESERVED.fullmatch(name):
        return "Windows keeps this name for a device"
    length = len(name.encode())
    if length > MOST_BYTES:
        return f"the name has {length} bytes, expected {MOST_BYTES} at most"
    return ""


def inside(folder: str, name: str) -> str:
    """The path of a file in a folder. Raises UsageError: the name would lead elsewhere."""
    if problem := name_problem(name):
        raise UsageError(f"{name!r} cannot be a file in {folder}: {problem}")
    return f"{folder}/{name}"


def short_name(name: str) -> str:
    """A model's name, cut so that the names of its records, logs and locks are not too long."""
    return name.encode()[:MOST_NAME].decode(errors="ignore")


def is_path(value: object) -> bool:
    """Whether a value from a file can be a path: a text that every system call takes."""
    if not isinstance(value, str) or not value or "\0" in value:
        return False
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def temporary_key(name: str) -> str:
    """What the names of a file's temporary files begin with: short, however long its own name is."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f".{digest[:_KEY_CHARS]}-"


def temporary_name(name: str, pid: int, salt: str, ending: str) -> str:
    """The name of a temporary file beside another file.

    Args:
        salt: eight hexadecimal digits, other ones each time.
    """
    return f"{temporary_key(name)}{pid}-{salt}{ending}"
