"""The catalogue, validated once per content: models.yaml → plain JSON in the cache.

The JSON lies under the digest of models.yaml's bytes and of the code that validates them, so that it can
never be stale. A cache that cannot be written costs time, not correctness.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tasks.core import catalogue as types
from tasks.core.catalogue import Catalogue
from tasks.core.errors import UsageError
from tasks.effects.files import read_json, write_atomic

_KEPT = 8  # compiled catalogues left in the cache: a few branches and projects


def load(path: str, cache: str) -> Catalogue:
    """The catalogue in the file at `path`. Raises UsageError: there is no such file, or it has errors."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        fix = "LLAMAFILE_CATALOGUE names the catalogue, if it is not models.yaml beside dodo.py"
        raise UsageError(f"cannot read the catalogue {path}: {error.strerror}", fix=fix) from None
    here = Path(types.__file__)
    rules = b"".join(here.with_name(name).read_bytes() for name in ("catalogue.py", "schema.py", "urls.py"))
    key = hashlib.sha256(content + b"\0" + rules).hexdigest()
    folder = Path(cache) / "catalogue"
    plain = read_json(folder / f"{key}.json")
    if not (isinstance(plain, dict) and plain.get("models")):  # not there yet, or damaged
        plain = _compile(content, path)
        _keep(folder, key, json.dumps(plain))
    return Catalogue(plain, path)


def _compile(content: bytes, path: str) -> dict[str, object]:
    from tasks.core.schema import compile_text

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: {error}", fix=f"save {path} as UTF-8") from None
    return compile_text(text, path)


def _keep(folder: Path, key: str, text: str) -> None:
    try:
        write_atomic(folder / f"{key}.json", text)
        old = sorted(folder.glob("*.json"), key=lambda p: p.stat().st_mtime, reverse=True)[_KEPT:]
        for path in old:
            path.unlink(missing_ok=True)
    except OSError:
        pass  # a read-only cache: the next run compiles again
