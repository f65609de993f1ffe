"""Load the catalogue: models.yaml and models.lock, compiled to JSON in the cache.

The compiled file is named by the digest of both files and of the code that validates
them, so it is never stale. Its first line is a digest of the rest, to detect damage.
That is not a signature: where the cache is not trusted (CI, --frozen, audit, lock), the
compiled file is not read. If the cache is not writable, each run compiles again. Two
checkouts may share a compiled file.
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

# bytes of models.yaml or models.lock; 10,000 entries have 2 to 5 MB
MAX_BYTES = 16 * 1024 * 1024
_MAX_COMPILED = 16 * 1024**2  # bytes of a compiled catalogue
_KEPT = 8  # compiled catalogues in the cache: a few branches and projects

_FORMAT = b"2"  # of a compiled file, and part of its key
# the code that validates; part of the key, too
_VALIDATORS = (
    "catalogue/serve_options.py",
    "catalogue/types.py",
    "catalogue/constraints.py",
    "catalogue/check_options.py",
    "catalogue/auth_options.py",
    "catalogue/schema.py",
    "catalogue/semantic_checks.py",
    "catalogue/endpoint_checks.py",
    "catalogue/deploy_options.py",
    "catalogue/deploy_checks.py",
    "catalogue/engine_args.py",
    "catalogue/yaml_limits.py",
    "catalogue/file_specs.py",
    "catalogue/model_format.py",
    "catalogue/lockfile.py",
    "catalogue/locked_memory.py",
    "catalogue/compiled_form.py",
    "system/paths.py",
    "urls.py",
)


def load(
    path: str,
    cache: str,
    *,
    joined: bool = True,
    from_text: bool = False,
    keep: bool = True,
) -> Catalogue:
    """Load the catalogue at `path`.

    Args:
        joined: apply models.lock.
        from_text: do not read the compiled file from the cache.
        keep: write the compiled file to the cache.

    Raises:
        UsageError: the file is missing, or has errors.
    """
    content = read(path)
    locked = read_lock(path) if joined else None
    key = _key(content, locked)
    folder = Path(cache) / "catalogue"
    plain = None
    if not from_text:
        plain = _read_compiled(folder, key)
    if plain is None:
        plain = _compile(content, path, locked)
        if keep:
            _write_compiled(folder, key, json.dumps(plain))
    return Catalogue(plain, path)


def compiled_path(path: str) -> str:
    """Return the path of a catalogue's compiled file, relative to the cache.

    Raises:
        UsageError: models.yaml is missing, or a file cannot be read.
    """
    return f"catalogue/{_key(read(path), read_lock(path))}.json"


def _key(content: bytes, locked: bytes | None) -> str:
    root = Path(types.__file__).parent.parent
    code = b"".join((root / name).read_bytes() for name in _VALIDATORS)
    parts = (_FORMAT, content, locked or b"", code)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def lock_path(path: str) -> str:
    """Return the path of the lock file: models.lock beside models.yaml."""
    return str(Path(path).with_suffix(".lock"))


def read(path: str) -> bytes:
    """Return the catalogue's bytes.

    Raises:
        UsageError: the file is missing, or cannot be read.
    """
    try:
        return _read_limited(path)
    except (OSError, ValueError) as error:
        what = f"cannot read the catalogue {path}: {_reason(error)}"
        fix = "set LLAMAFILE_CATALOGUE to a models.yaml; unset, it is the recipe's"
        raise UsageError(what, fix=fix) from None


def read_lock(path: str) -> bytes | None:
    """Return the bytes of the catalogue's lock file; None if there is none.

    Raises:
        UsageError: it cannot be read.
    """
    lock_file = lock_path(path)
    try:
        return _read_limited(lock_file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {lock_file}: {_reason(error)}") from None


def _read_limited(path: str) -> bytes:
    """Read a regular file of at most MAX_BYTES.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, or not a regular file.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe blocks, a device may not end
        raise ValueError("it is not a regular file")
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    return content


def _reason(error: OSError | ValueError) -> str:
    return getattr(error, "strerror", None) or str(error)


def decode_yaml(content: bytes, path: str) -> str:
    """Decode a YAML file.

    Raises:
        UsageError: it is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        what = f"{path} is not UTF-8 text: {error}"
        raise UsageError(what, fix=f"save {path} as UTF-8") from None


def _compile(content: bytes, path: str, locked: bytes | None) -> dict[str, object]:
    from tasks.catalogue import schema

    lock = None
    if locked is not None:
        lock_file = lock_path(path)
        lock = schema.read_lock(decode_yaml(locked, lock_file), lock_file)
    return schema.compile_catalogue(decode_yaml(content, path), path, lock)


def _read_compiled(folder: Path, key: str) -> dict[str, Any] | None:
    """Return the compiled catalogue; None if it is missing or damaged."""
    data = own_files.read_most(str(folder / f"{key}.json"), _MAX_COMPILED)
    try:
        checksum, _, text = (data or b"").decode().partition("\n")
        if checksum != _checksum(key, text):
            return None
        plain = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return plain if is_catalogue(plain) else None


def _checksum(key: str, text: str) -> str:
    """Return the first line of a compiled file: covers its content and its name."""
    return hashlib.sha256(f"{key}\n{text}".encode()).hexdigest()


def _write_compiled(folder: Path, key: str, text: str) -> None:
    """Write a compiled catalogue, unless it is there unchanged; remove old ones."""
    path = folder / f"{key}.json"
    content = f"{_checksum(key, text)}\n{text}"
    if own_files.link_inside(str(folder.parent), str(path)):
        return
    try:
        if own_files.read_most(str(path), _MAX_COMPILED) == content.encode():
            return
        write_atomic(path, content)
        _remove_old(folder)
    except OSError:
        pass  # the cache is not writable: the next run compiles again


def _remove_old(folder: Path) -> None:
    """Keep the `_KEPT` newest compiled catalogues.

    Raises:
        OSError: one cannot be removed.
    """
    files = sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)
    for path in files[_KEPT:]:
        path.unlink(missing_ok=True)
