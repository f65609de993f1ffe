"""Resolve the files of models.lock: ask the publisher, hash, or download."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue import lockfile
from tasks.catalogue.constraints import LATEST
from tasks.catalogue.engine_release import UNPACKED
from tasks.catalogue.environment import Environment
from tasks.catalogue.file_specs import is_head, parse_hub_url, split_count
from tasks.catalogue.lockfile import FROM_CATALOGUE, LockedFile, LockFile
from tasks.catalogue.types import FileSpec
from tasks.command_line import TaskRequest
from tasks.errors import RecipeError, TransferError
from tasks.network import huggingface
from tasks.system import files
from tasks.system.paths import inside
from tasks.upstream.metadata import FileBeside, RemoteFile
from tasks.urls import filename_of, host_of, is_local

HERE = "this machine"
DOWNLOADED = "doit lock --download"
_NAMES = 3  # of one cause, in an error
OPEN_FIX = f"run {DOWNLOADED} to hash it, or add its sha256 to models.yaml"


def _by_cause(failed: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the causes, each with the names of what failed because of it."""
    names: dict[str, list[str]] = {}
    for name, cause in failed:
        names.setdefault(cause, []).append(name)
    return [(_few(those), cause) for cause, those in names.items()]


def _few(names: list[str]) -> str:
    if len(names) <= _NAMES:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMES])} and {len(names) - _NAMES} more"


class LockResolver:
    """One run of `doit lock`."""

    def __init__(
        self,
        environment: Environment,
        request: TaskRequest,
        plain: Mapping[str, Any],
        old: LockFile,
        where: str,
    ) -> None:
        self.old = old
        self.where = where
        self.cache = environment.cache
        self._place = environment
        self._plain = plain
        self._upgrade = "upgrade" in request.options
        self._download = "download" in request.options
        self._client: Any = None
        self._failed: list[tuple[str, str]] = []
        self._fixes: dict[str, None] = {}
        self._fresh: set[tuple[str, str]] = set()  # (entry, source) of new rows
        self._beside: dict[str, tuple[FileBeside, ...]] = {}  # by the model's source

    def resolve(self, chosen: set[str]) -> LockFile:
        """Return the new lock; entries that were not chosen stay unchanged.

        Raises:
            TransferError: a file could not be resolved.
        """
        new = LockFile(1)
        for table, name, entry, wanted in lockfile.entries(self._plain):
            rows = getattr(self.old, table).get(name)
            if not chosen or name in chosen:
                rows = self._rows(table, name, entry, wanted)
            if rows:
                getattr(new, table)[name] = rows
        if self._failed:
            what = (
                "nothing was written: some files of models.yaml could not be resolved"
            )
            facts = _by_cause(self._failed)
            raise TransferError(what, facts, fix="\n".join(self._fixes))
        self._add_memory(new)
        return new

    def _add_memory(self, new: LockFile) -> None:
        """Read what the memory of the new files depends on; a failure is a warning."""
        if not self._fresh:
            return
        from tasks.upstream import model_head

        problems: list[str] = []
        for name, rows in new.models.items():
            for row in rows:
                if (name, row.source or row.url) not in self._fresh:
                    continue
                if not is_local(row.url) and huggingface.offline(os.environ):
                    continue
                try:
                    memory = model_head.read_memory(row, self._place, self._fetch_part)
                except (RecipeError, OSError) as error:
                    problems.append(f"{name}: {error}")
                else:
                    row.memory = memory
        if problems:
            text = (
                "warning: models.lock says nothing about the memory of %s of them: %s"
            )
            doit_adapter.log().warning(text, len(problems), problems[0])

    def _fetch_part(self, url: str, start: int, stop: int) -> Any:
        return self._publishers(url).fetch_part(url, start, stop)

    def _rows(
        self,
        table: str,
        name: str,
        entry: Mapping[str, Any],
        wanted: Iterable[FileSpec],
    ) -> tuple[LockedFile, ...]:
        wanted = tuple(wanted)
        known = [lockfile.locked_file(self.old, table, name, want) for want in wanted]
        keeps = not self._upgrade
        if entry.get("version") == LATEST and not _of_one_release(known):
            keeps = False
        rows = []
        for want, old in zip(wanted, known, strict=True):
            if old and keeps:
                size = old.size or want.size
                rows.append(replace(old, license=entry["license"], size=size))
            elif row := self._row(table, name, entry, want, old):
                rows.append(row)
        if table == "models" and rows:
            rows += self._rows_beside(name, entry, wanted[0], rows[0])
        return tuple(rows)

    def _rows_beside(
        self, name: str, entry: Mapping[str, Any], head: FileSpec, row: LockedFile
    ) -> list[LockedFile]:
        """Return the files that the model's manifest adds to its entry."""
        licence = entry["license"]
        known = lockfile.rows_beside(self.old, name, entry, row)
        if head.source not in self._beside:  # the manifest was not read
            return [replace(one, license=licence) for one in known]
        roles = lockfile.open_roles(entry)
        days = {old.sha256: old.since for old in self.old.models.get(name, ())}
        today = date.today().isoformat()
        return [
            LockedFile(
                url=one.url,
                sha256=one.sha256,
                license=licence,
                digest_from=row.digest_from,
                since=days.get(one.sha256, today),
                size=one.size,
                role=one.role,
            )
            for one in self._beside[head.source]
            if one.role in roles
        ]

    def _row(
        self,
        table: str,
        name: str,
        entry: Mapping[str, Any],
        want: FileSpec,
        old: LockedFile | None,
    ) -> LockedFile | None:
        try:
            stated = self.resolve_file(name, entry, want)
        except RecipeError as error:
            self._failed.append((name, error.what))
            self._fixes |= dict.fromkeys(filter(None, [error.fix]))
            return None
        digest_from = stated.by
        since = date.today().isoformat()
        memory = None
        if old and old.sha256 == stated.sha256:
            digest_from = old.digest_from
            since = old.since
            memory = old.memory
        if table == "models" and is_head(want):
            self._fresh.add((name, want.source))
            self._beside[want.source] = stated.beside
        return LockedFile(
            url=stated.url,
            sha256=stated.sha256 or "",
            license=entry["license"],
            digest_from=digest_from,
            since=since,
            source=want.source if want.source != stated.url else None,
            size=stated.size or want.size,
            commit=stated.commit,
            version=stated.version if entry.get("version") else None,
            memory=memory,
        )

    def resolve_file(
        self, name: str, entry: Mapping[str, Any], want: FileSpec
    ) -> RemoteFile:
        """Return what is known of one file.

        From the catalogue, its publisher, or a download.

        Raises:
            RecipeError: it could not be resolved, or the sources contradict each other.
        """
        file = parse_hub_url(want.url)
        version = str(entry.get("version") or "")
        commit = file.revision if file and file.is_pinned else None
        is_fixed = version != LATEST and (file is None or file.is_pinned)
        own = RemoteFile(
            want.url, want.sha256, want.size, commit, version or None, FROM_CATALOGUE
        )
        if want.sha256 and want.size and is_fixed:
            return own
        if is_local(want.url):
            return self._hashed(want, own)
        try:
            stated = self._ask(want.url, version, pinned=bool(want.sha256))
        except TransferError as error:
            is_forbidden = huggingface.offline(os.environ) and version != LATEST
            if not want.sha256 or not (is_fixed or is_forbidden):
                raise
            text = "%s: its commit and size are not known: %s"
            if is_fixed:
                text = "%s: its size is not known: %s"
            doit_adapter.log().warning(text, name, error.what)
            return own
        if version != LATEST:
            stated = stated._replace(version=own.version)
        if want.sha256:
            return _checked(name, want, stated)
        if stated.sha256:
            return stated
        if not self._download:
            filename = filename_of(stated.url)
            what = f"{host_of(stated.url)} states no SHA-256 of {filename}"
            fix = OPEN_FIX
            if entry.get("archives"):  # which have no sha256 in models.yaml
                fix = f"run {DOWNLOADED} to hash it"
            raise RecipeError(what, fix=fix)
        return self._downloaded(name, stated, is_archive=bool(entry.get("archives")))

    def _ask(self, url: str, version: str, pinned: bool) -> RemoteFile:
        stated: RemoteFile = self._publishers(url).fetch_metadata(url, version, pinned)
        return stated

    def fetch_license(self, url: str) -> str:
        """Return the license that a file's publisher states, or nothing."""
        if is_local(url):
            return ""
        try:
            found: str = self._publishers(url).fetch_license(url)
        except TransferError:
            return ""
        return found

    def _publishers(self, url: str) -> Any:
        """Return the client, which is imported on first use.

        Raises:
            TransferError: the network is forbidden; importing requests opens a socket.
        """
        if variable := huggingface.offline(os.environ):
            what = f"{host_of(url)}: {variable} forbids the network"
            raise TransferError(what, fix=f"unset {variable}")
        if self._client is None:
            from tasks.upstream.client import UpstreamClient

            self._client = UpstreamClient()
        return self._client

    def _hashed(self, want: FileSpec, own: RemoteFile) -> RemoteFile:
        from tasks.transfer.local_sources import local_path

        path = self._place.absolute(local_path(want.url), self._place.root)
        if files.stat(path) is None:
            raise RecipeError(f"no such file: {path}")
        digest, status = files.sha256_file(path)
        if want.sha256 not in (None, digest):
            what = f"sha256 is {want.sha256} in models.yaml, and {path} has {digest}"
            raise RecipeError(what)
        origin = FROM_CATALOGUE if want.sha256 else HERE
        return own._replace(sha256=digest, size=status.size, by=origin)

    def _downloaded(
        self, name: str, stated: RemoteFile, *, is_archive: bool
    ) -> RemoteFile:
        from tasks.catalogue.artifact import Artifact, engine_dir, model_dir
        from tasks.transfer.ensure import ensure_file, move_to_pinned

        cache = self._place.cache
        folder_of = model_dir
        if is_archive:
            folder_of = engine_dir
        target = inside(folder_of(cache, None, stated.url), filename_of(stated.url))
        artifact = Artifact(name, (stated.url,), target, None, stated.size)
        if is_archive:
            artifact = artifact._replace(unpacked=f"{target}{UNPACKED}")
        is_new = files.stat(target) is None
        ensure_file(cache, artifact, again=self._upgrade)
        stamp = stamps.read_stamp(cache, artifact)
        if stamp is None or stamp.sha256 is None:
            raise RecipeError(f"{target} could not be hashed")
        # another catalogue may use what was here before
        if is_new and not split_count(target):
            folder = folder_of(cache, stamp.sha256, stated.url)
            move_to_pinned(cache, artifact, stamp, folder)
        return stated._replace(sha256=stamp.sha256, size=stamp.stat.size, by=DOWNLOADED)


def _of_one_release(rows: Sequence[LockedFile | None]) -> bool:
    """Return whether the lock has every file, all of them of one known version."""
    versions = {row.version if row else None for row in rows}
    return len(versions) == 1 and not versions & {None, LATEST}


def _checked(name: str, want: FileSpec, stated: RemoteFile) -> RemoteFile:
    """Complete a pinned file by what its publisher states.

    Raises:
        RecipeError: the publisher states another digest.
    """
    if stated.sha256 not in (None, want.sha256):
        raise RecipeError(
            f"sha256 is {want.sha256} in models.yaml, "
            f"and {stated.by} says {stated.sha256}",
            fix=f"edit {name} in models.yaml: another revision, or that digest",
        )
    size = want.size or stated.size
    return stated._replace(sha256=want.sha256, size=size, by=FROM_CATALOGUE)
