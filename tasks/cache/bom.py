"""What is here, as a bill of materials: rows for people, CycloneDX 1.6 for programs. Pure.

Source: CycloneDX 1.6 (ECMA-424), https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from tasks.cache.inventory import Item
from tasks.catalogue.artifact import Stamp
from tasks.errors import RecipeError
from tasks.urls import is_local, url_problem

_OURS = "llamafile-recipe"  # also the namespace of our properties

# the SPDX identifiers in use among models and engines; any other licence is given by its name
_SPDX = (
    *("0BSD", "AFL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause"),
    *("BSD-3-Clause", "BSL-1.0", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0", "CC-BY-NC-ND-4.0"),
    *("CC-BY-NC-SA-4.0", "CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC0-1.0", "CDLA-Permissive-2.0"),
    *("ECL-2.0", "EPL-2.0", "EUPL-1.2", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only"),
    *("GPL-3.0-or-later", "ISC", "LGPL-2.1-only", "LGPL-3.0-only", "LGPL-3.0-or-later", "MIT", "MPL-2.0"),
    *("MS-PL", "NCSA", "OFL-1.1", "OSL-3.0", "PostgreSQL", "Unlicense", "WTFPL", "Zlib"),
)
_SPDX_OF = {name.lower(): name for name in _SPDX}


class Row(NamedTuple):
    """One thing that is here."""

    name: str
    title: str
    path: str  # from the cache, with `/`; a Python package has none
    size: int | None  # bytes
    license: str  # empty where nobody says
    sha256: str | None  # as it was proven here; None where nothing is proven of these bytes
    source: str  # where its bytes came from; the catalogue's, where that is this machine alone
    commit: str
    engines: Mapping[str, str]  # engine → version that was proven to work with it
    is_program: bool = False
    version: str = ""  # of a program


def row(item: Item, path: str, size: int, stamp: Stamp | None, root: str) -> Row:
    """What is known of a file.

    Args:
        stamp: what was proven of the bytes that are here; None where that is nothing.
        root: the catalogue's folder, in which a source is named as the catalogue names it.
    """
    artifact = item.artifact
    sources = [one for one in (stamp.source if stamp else "", *artifact.sources) if one]
    urls = [one for one in sources if not is_local(one)]
    source = (urls or [one.removeprefix(f"{root}/") for one in artifact.sources] or [""])[0]
    engines = stamp.engines if stamp else {}
    version = engines.get("llamafile", "") if item.is_program else ""
    sha256 = stamp.sha256 if stamp else None
    return Row(
        item.label, item.title, path, size, item.license, sha256, source, _commit(urls), engines,
        item.is_program, version,
    )  # fmt: skip


def package(name: str, version: str, title: str, license: str) -> Row:
    """The row of a Python package that serves models."""
    return Row(name, title, "", None, license, None, "", "", {}, is_program=True, version=version)


def _commit(urls: Iterable[str]) -> str:
    """The commit in an address of the Hub, where one is in it."""
    found = (re.search(r"/resolve/([0-9a-f]{40})/", url) for url in urls)
    return next((one[1] for one in found if one), "")


def timestamp(epoch: str | None, now: float) -> str:
    """The time of the document: SOURCE_DATE_EPOCH where it is set, else now.

    Source: https://reproducible-builds.org/specs/source-date-epoch/. Raises RecipeError: it is no time.
    """
    try:
        at = datetime.fromtimestamp(int(epoch) if epoch else int(now), timezone.utc)
    except (ValueError, OverflowError, OSError):
        what = f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {epoch!r}"
        raise RecipeError(what, fix="SOURCE_DATE_EPOCH=$(git log -1 --format=%ct), or unset it") from None
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def cyclonedx(rows: Iterable[Row], at: str, version: str) -> dict[str, Any]:
    """The document. Its serial number follows from what it lists, so that equal lists have equal ones.

    Args:
        at: see `timestamp`.
        version: of this recipe, empty where nobody knows.
    """
    recipe = {"type": "application", "bom-ref": _OURS, "name": _OURS, "version": version}
    components = [_component(one) for one in sorted(rows, key=lambda one: (one.path, one.name))]
    serial = uuid5(NAMESPACE_URL, json.dumps([version, components], sort_keys=True))
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"timestamp": at, "component": {**_said(recipe), "licenses": _licenses("Apache-2.0")}},
        "components": components,
        "dependencies": [{"ref": _OURS, "dependsOn": [one["bom-ref"] for one in components]}],
    }


def _component(one: Row) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": one.sha256}] if one.sha256 else []
    fits = one.source and not is_local(one.source) and not url_problem(one.source, pinned=True)
    properties = {
        "commit": one.commit,
        "source": "" if fits else one.source,
        "size": "" if one.size is None else str(one.size),
        "path": one.path,
        **{f"engine:{name}": version or "unknown" for name, version in sorted(one.engines.items())},
    }
    parts = {
        "type": "application" if one.is_program else "machine-learning-model",
        "bom-ref": one.path or f"pkg:pypi/{one.name}@{one.version}",
        "name": one.name,
        "version": one.version or one.commit,
        "description": one.title,
        "hashes": hashes,
        "licenses": _licenses(one.license),
        "purl": "" if one.path else f"pkg:pypi/{one.name}@{one.version}",
        "externalReferences": [_said({"type": "distribution", "url": one.source, "hashes": hashes})]
        if fits
        else [],
        "properties": [
            {"name": f"{_OURS}:{key}", "value": value} for key, value in properties.items() if value
        ],
    }
    return _said(parts)


def _said(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Without what nobody has said."""
    return {key: value for key, value in parts.items() if value}


def _licenses(name: str) -> list[dict[str, Any]]:
    if not name:
        return []
    known = _SPDX_OF.get(name.lower())
    return [{"license": {"id": known} if known else {"name": name}}]
