"""The catalogue, validated once per content: models.yaml and models.lock → plain JSON in the cache.

The JSON lies under the digest of their bytes and of the code that validates them, so that it can never be
stale, and carries a digest of its own, so that damage is found. That is no signature: where the cache is not
to be trusted (CI, --frozen, audit, lock), it is not read. A cache that cannot be written costs time, not
correctness. `roots/` says which catalogues have used the cache, by their paths: two checkouts may share a
compiled one.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from tasks.catalogue import types
from tasks.catalogue.compiled_form import is_catalogue
from tasks.catalogue.types import Catalogue
from tasks.errors import UsageError
from tasks.system import own_files
from tasks.system.files import write_atomic

MAX_BYTES = 16 * 1024 * 1024  # of models.yaml or models.lock; 10,000 entries take 2 to 5 MB
_MOST = 16 * 1024**2  # bytes of a compiled catalogue
_KEPT = 8  # compiled catalogues left in the cache: a few branches and projects


_FORM = b"2"  # of a compiled file: another one has another key
_RULES = (
    *("catalogue/types.py", "catalogue/schema.py", "catalogue/semantic_checks.py"),
    *("catalogue/engine_args.py", "catalogue/yaml_limits.py", "catalogue/file_specs.py"),
    *("catalogue/lockfile.py", "system/paths.py", "urls.py"),
)


def load(path: str, cache: str, *, joined: bool = True, from_text: bool = False) -> Catalogue:
    """The catalogue in the file at `path`.

    Args:
        joined: with what its lock file says.
        from_text: do not believe what lies compiled in the cache.

    Raises UsageError: there is no such file, or it has errors.
    """
    content, locked = read(path), read_lock(path) if joined else None
    key = _key(content, locked)
    folder = Path(cache) / "catalogue"
    plain = None if from_text else _kept(folder, key)
    if plain is None:  # not there yet, damaged, or not to be trusted
        plain = _compile(content, path, locked)
        _keep(folder, key, json.dumps(plain))
    return Catalogue(plain, path)


def compiled_name(path: str) -> str:
    """A catalogue's compiled form, from the cache. Raises UsageError like `load`."""
    return f"catalogue/{_key(read(path), read_lock(path))}.json"


def _key(content: bytes, locked: bytes | None) -> str:
    here = Path(types.__file__).parent.parent
    rules = b"".join((here / name).read_bytes() for name in _RULES)
    return hashlib.sha256(b"\0".join((_FORM, content, locked or b"", rules))).hexdigest()


def lock_path(path: str) -> str:
    """Where the lock file of a catalogue is: models.lock beside models.yaml."""
    return str(Path(path).with_suffix(".lock"))


def read(path: str) -> bytes:
    """The catalogue's bytes. Raises UsageError: there is no such file."""
    try:
        return _bounded(path)
    except (OSError, ValueError) as error:
        fix = "LLAMAFILE_CATALOGUE names the catalogue, if it is not models.yaml beside dodo.py"
        raise UsageError(f"cannot read the catalogue {path}: {_reason(error)}", fix=fix) from None


def read_lock(path: str) -> bytes | None:
    """The bytes of a catalogue's lock file; None where there is none. Raises UsageError: it is unreadable."""
    place = lock_path(path)
    try:
        return _bounded(place)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {place}: {_reason(error)}") from None


def _bounded(path: str) -> bytes:
    """Read a regular file of a sensible size. Raises OSError and ValueError."""
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would block, a device may have no end
        raise ValueError("it is not a regular file")
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return content


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def text_of(content: bytes, path: str) -> str:
    """Bytes of YAML as text. Raises UsageError: it is no UTF-8."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}", fix=f"save {path} as UTF-8") from None


def _compile(content: bytes, path: str, locked: bytes | None) -> dict[str, object]:
    from tasks.catalogue import schema

    place = lock_path(path)
    lock = None if locked is None else schema.read_lock(text_of(locked, place), place)
    return schema.compile_text(text_of(content, path), path, lock)


def _kept(folder: Path, key: str) -> dict[str, Any] | None:
    """The catalogue that was compiled under this key; None where it is not there whole."""
    data = own_files.read_most(str(folder / f"{key}.json"), _MOST)
    try:
        seal, _, text = (data or b"").decode().partition("\n")
        plain = json.loads(text) if seal == _seal(key, text) else None
    except (ValueError, RecursionError):
        return None
    return plain if is_catalogue(plain) else None


def _seal(key: str, text: str) -> str:
    """The first line of a compiled file: digest of the rest, bound to the file's name."""
    return hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()


def _keep(folder: Path, key: str, text: str) -> None:
    """Keep a compiled catalogue, in place of another one under the same key."""
    path, whole = folder / f"{key}.json", f"{_seal(key, text)}\n{text}"
    if own_files.link_inside(str(folder.parent), str(path)):
        return
    try:
        if own_files.read_most(str(path), _MOST) == whole.encode():
            return
        write_atomic(path, whole)
        old = sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)[_KEPT:]
        for path in old:
            path.unlink(missing_ok=True)
    except OSError:
        pass  # a read-only cache: the next run compiles again
