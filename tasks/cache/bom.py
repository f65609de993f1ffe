"""Describe the files of the cache as a bill of materials, in CycloneDX 1.6. Pure.

Source: CycloneDX 1.6 (ECMA-424), https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple
from uuid import NAMESPACE_URL, uuid5

from tasks.cache.inventory import CachedFile
from tasks.catalogue.artifact import Stamp
from tasks.catalogue.spdx import spdx_id
from tasks.errors import RecipeError
from tasks.urls import is_local, url_error

_OURS = "llamafile-recipe"  # also the namespace of the properties


class BomEntry(NamedTuple):
    """One component."""

    name: str
    title: str
    path: str  # relative to the cache, with `/`; empty for a Python package
    size: int | None  # bytes
    license: str  # empty if unknown
    sha256: str | None  # as verified here; None if these bytes were not verified
    source: str  # the URL of its bytes, or a path as the catalogue names it
    commit: str
    engines: Mapping[str, str]  # engine → version that was verified to work with it
    is_program: bool = False
    version: str = ""  # of a program
    models: tuple[str, ...] = ()  # whose file it is


def file_entry(
    file: CachedFile, path: str, size: int, stamp: Stamp | None, root: str
) -> BomEntry:
    """Return the component of a file.

    Args:
        size: bytes.
        stamp: None if the bytes that are here were not verified.
        root: the catalogue's directory; sources in it are shown relative to it.
    """
    sources = file.artifact.sources
    urls = [source for source in sources if not is_local(source)]
    if stamp and stamp.source and not is_local(stamp.source):
        urls.insert(0, stamp.source)
    local = [source.removeprefix(f"{root}/") for source in sources]
    engines = {}
    if stamp:
        engines = _by_engine(stamp)
    return BomEntry(
        name=file.label,
        title=file.title,
        path=path,
        size=size,
        license=file.license,
        sha256=stamp.sha256 if stamp else None,
        source=next(iter([*urls, *local]), ""),
        commit=_commit(urls),
        engines=engines,
        is_program=file.is_program,
        version=_program_version(engines) if file.is_program else "",
        models=file.models,
    )


def _program_version(engines: Mapping[str, str]) -> str:
    return engines.get("llamafile") or engines.get("llama-server", "")


def _by_engine(stamp: Stamp) -> dict[str, str]:
    """Return engine → version, without the role and the model of a companion."""
    return {name.partition(" ")[0]: text for name, text in stamp.engines.items()}


def package_entry(name: str, version: str, title: str, license: str) -> BomEntry:
    """Return the component of a Python package that serves models."""
    return BomEntry(name, title, "", None, license, None, "", "", {}, True, version)


def _commit(urls: Iterable[str]) -> str:
    """Return the commit in a URL of the Hub, or nothing."""
    for url in urls:
        if match := re.search(r"/resolve/([0-9a-f]{40})/", url):
            return match[1]
    return ""


def timestamp(epoch: str | None, now: float) -> str:
    """Return the time of the document: SOURCE_DATE_EPOCH if it is set, else now.

    Source: https://reproducible-builds.org/specs/source-date-epoch/.

    Args:
        now: seconds since 1970.

    Raises:
        RecipeError: SOURCE_DATE_EPOCH is not a number of seconds.
    """
    try:
        at = datetime.fromtimestamp(int(epoch or now), timezone.utc)
    except (ValueError, OverflowError, OSError):
        what = f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {epoch!r}"
        fix = "SOURCE_DATE_EPOCH=$(git log -1 --format=%ct), or unset it"
        raise RecipeError(what, fix=fix) from None
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def cyclonedx(
    rows: Iterable[BomEntry],
    at: str,
    version: str,
    endpoints: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the document. Equal contents have equal serial numbers.

    An endpoint with a file here is a service that depends on the files of its models.

    Args:
        at: see `timestamp`.
        version: of this recipe; empty if unknown.
        endpoints: the models of each.
    """
    ordered = sorted(rows, key=lambda row: (row.path, row.name))
    components = [_component(row) for row in ordered]
    services = _services(ordered, endpoints)
    content = [version, components, *services]
    serial = uuid5(NAMESPACE_URL, json.dumps(content, sort_keys=True))
    recipe = {
        "type": "application",
        "bom-ref": _OURS,
        "name": _OURS,
        "version": version,
        "licenses": _licenses("Apache-2.0"),
    }
    references = [component["bom-ref"] for component in components]
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"timestamp": at, "component": _drop_empty(recipe)},
        "components": components,
        "services": [service for service, _ in services],
        "dependencies": [{"ref": _OURS, "dependsOn": references}],
    }
    for service, needs in services:
        needed = {"ref": service["bom-ref"], "dependsOn": needs}
        document["dependencies"].append(needed)
    if not services:
        del document["services"]
    return document


def _services(
    rows: Sequence[BomEntry], endpoints: Mapping[str, Sequence[str]]
) -> list[tuple[dict[str, str], list[str]]]:
    """Return each endpoint that has files here, with the references of these."""
    found = []
    for name, models in sorted(endpoints.items()):
        needs = [row.path for row in rows if set(models) & set(row.models)]
        about = f"an endpoint of {', '.join(models)}"
        service = {"bom-ref": f"endpoint:{name}", "name": name, "description": about}
        if needs:
            found.append((service, needs))
    return found


def _component(row: BomEntry) -> dict[str, Any]:
    hashes = [{"alg": "SHA-256", "content": row.sha256}] if row.sha256 else []
    purl = "" if row.path else f"pkg:pypi/{row.name}@{row.version}"
    is_url = _is_url(row.source)
    references = []
    if is_url:
        distribution = {"type": "distribution", "url": row.source, "hashes": hashes}
        references.append(_drop_empty(distribution))
    parts = {
        "type": "application" if row.is_program else "machine-learning-model",
        "bom-ref": row.path or purl,
        "name": row.name,
        "version": row.version or row.commit,
        "description": row.title,
        "hashes": hashes,
        "licenses": _licenses(row.license),
        "purl": purl,
        "externalReferences": references,
        "properties": _properties(row, "" if is_url else row.source),
    }
    return _drop_empty(parts)


def _is_url(source: str) -> bool:
    """Return whether a source can be an external reference."""
    if not source or is_local(source):
        return False
    return not url_error(source, pinned=True)


def _properties(row: BomEntry, source: str) -> list[dict[str, str]]:
    values = {
        "commit": row.commit,
        "source": source,
        "size": "" if row.size is None else str(row.size),
        "path": row.path,
    }
    for name, version in sorted(row.engines.items()):
        values[f"engine:{name}"] = version or "unknown"
    return [
        {"name": f"{_OURS}:{key}", "value": value}
        for key, value in values.items()
        if value
    ]


def _drop_empty(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in parts.items() if value}


def _licenses(name: str) -> list[dict[str, Any]]:
    if not name:
        return []
    known = spdx_id(name)
    if known:
        return [{"license": {"id": known}}]
    return [{"license": {"name": name}}]
