"""What models.lock says of each file: asked, hashed or downloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue import lockfile
from tasks.catalogue.environment import Place
from tasks.catalogue.file_specs import Wanted, hub_file
from tasks.catalogue.lockfile import FROM_CATALOGUE, Locked, LockFile
from tasks.catalogue.types import LATEST
from tasks.command_line import Ask
from tasks.errors import RecipeError, TransferError
from tasks.network import huggingface
from tasks.system import files
from tasks.system.paths import inside
from tasks.upstream.metadata import Stated
from tasks.urls import filename_of, host_of, is_local

HERE = "this machine"
DOWNLOADED = "doit lock --download"
OPEN_FIX = f"{DOWNLOADED} fetches and hashes it; or write its sha256 into models.yaml"


class Locker:
    """One run of `doit lock`."""

    def __init__(self, place: Place, ask: Ask, plain: Mapping[str, Any], old: LockFile, where: str) -> None:
        self._place, self._plain, self.old = place, plain, old
        self._upgrade, self._download = "upgrade" in ask.options, "download" in ask.options
        self._known: Any = None
        self._failed: list[tuple[str, str]] = []
        self._fixes: dict[str, None] = {}
        self.where, self.cache = where, place.cache

    def locked(self, chosen: set[str]) -> LockFile:
        """The new lock; entries that were not chosen stay as they are. Raises TransferError."""
        new = LockFile(1)
        for table, name, entry, wanted in lockfile.entries(self._plain):
            if chosen and name not in chosen:
                rows = getattr(self.old, table).get(name)
            else:
                rows = tuple(filter(None, (self._row(table, name, entry, want) for want in wanted)))
            if rows:
                getattr(new, table)[name] = rows
        if self._failed:
            what = "nothing was written: what models.yaml leaves open could not be found out"
            raise TransferError(what, self._failed, fix="\n".join(self._fixes))
        return new

    def _row(self, table: str, name: str, entry: Mapping[str, Any], want: Wanted) -> Locked | None:
        old = lockfile.found(self.old, table, name, want)
        if old and not self._upgrade:
            return replace(old, license=entry["license"], size=old.size or want.size)
        try:
            stated = self.stated(name, entry, want)
        except RecipeError as error:
            self._failed.append((name, error.what))
            self._fixes |= dict.fromkeys(filter(None, [error.fix]))
            return None
        by, since = stated.by, date.today().isoformat()
        if old and old.sha256 == stated.sha256:
            by, since = old.digest_from, old.since
        return Locked(
            stated.url, stated.sha256 or "", entry["license"], by, since,
            want.source if want.source != stated.url else None,
            stated.size or want.size, stated.commit, stated.version if entry.get("version") else None,
        )  # fmt: skip

    def stated(self, name: str, entry: Mapping[str, Any], want: Wanted) -> Stated:
        """What is known of one file: from the catalogue, its publisher, or a download. Raises RecipeError."""
        file, version = hub_file(want.url), str(entry.get("version") or "")
        fixed = version != LATEST and (file is None or file.is_pinned)
        commit = file.revision if file and file.is_pinned else None
        own = Stated(want.url, want.sha256, want.size, commit, version or None, FROM_CATALOGUE)
        if want.sha256 and want.size and fixed:
            return own
        if is_local(want.url):
            return self._hashed(want, own)
        try:
            stated = self._ask(want.url, version, pinned=bool(want.sha256))
            if version != LATEST:
                stated = stated._replace(version=own.version)
        except TransferError as error:
            if want.sha256 and fixed:
                doit_adapter.log().warning("%s: its size is not known: %s", name, error.what)
                return own
            raise
        if want.sha256:
            if stated.sha256 not in (None, want.sha256):
                what = f"sha256 is {want.sha256} in models.yaml, and {stated.by} says {stated.sha256}"
                raise RecipeError(what, fix=f"edit {name} in models.yaml: another revision, or that digest")
            return stated._replace(sha256=want.sha256, size=want.size or stated.size, by=FROM_CATALOGUE)
        if stated.sha256:
            return stated
        if not self._download:
            what = f"{host_of(stated.url)} states no SHA-256 of {filename_of(stated.url)}"
            raise RecipeError(what, fix=OPEN_FIX)
        return self._downloaded(name, stated)

    def _ask(self, url: str, version: str, pinned: bool) -> Stated:
        stated: Stated = self._publishers(url).state(url, version, pinned)
        return stated

    def licence(self, url: str) -> str:
        """The licence that a file's publisher names, or nothing."""
        if is_local(url):
            return ""
        try:
            found: str = self._publishers(url).licence(url)
        except TransferError:
            return ""
        return found

    def _publishers(self, url: str) -> Any:
        """Whom to ask. Raises TransferError: nobody may be, and importing requests opens a socket."""
        if variable := huggingface.offline(os.environ):
            raise TransferError(f"{host_of(url)}: {variable} forbids the network")
        if self._known is None:
            from tasks.upstream.client import Publishers  # requests costs more than doit itself

            self._known = Publishers()
        return self._known

    def _hashed(self, want: Wanted, own: Stated) -> Stated:
        from tasks.transfer.local_sources import path_of

        path = self._place.absolute(path_of(want.url), self._place.root)
        if files.stat(path) is None:
            raise RecipeError(f"there is no file {path}")
        digest, found = files.sha256_file(path)
        if want.sha256 not in (None, digest):
            raise RecipeError(f"sha256 is {want.sha256} in models.yaml, and {digest} is that of {path}")
        return own._replace(sha256=digest, size=found.size, by=FROM_CATALOGUE if want.sha256 else HERE)

    def _downloaded(self, name: str, stated: Stated) -> Stated:
        from tasks.catalogue.artifact import Artifact, model_dir
        from tasks.transfer.ensure import converge

        cache = self._place.cache
        target = inside(model_dir(cache, None, stated.url), filename_of(stated.url))
        artifact = Artifact(name, (stated.url,), target, None, stated.size)
        converge(cache, artifact, again=self._upgrade)
        stamp = stamps.read_stamp(cache, artifact)
        if stamp is None or stamp.sha256 is None:
            raise RecipeError(f"{target} could not be hashed")
        return stated._replace(sha256=stamp.sha256, size=stamp.stat.size, by=DOWNLOADED)
