"""Download an artifact: from this machine, else from its sources in order.

A file gets its final name only after its size and SHA-256 are verified (R20, R21).
"""

from __future__ import annotations

import logging
import os
from typing import Any
from urllib.parse import urlsplit

from tasks import references
from tasks.catalogue.artifact import Artifact, Stamp
from tasks.console import formatting
from tasks.console.logs import log_event
from tasks.console.progress import Progress
from tasks.errors import IntegrityError, NoRoomError, TransferError
from tasks.network import huggingface, response
from tasks.network.failures import NO_NAME
from tasks.network.retry import SourceFailedError
from tasks.network.tokens import host_token
from tasks.system.file_stat import FileStat
from tasks.transfer import local_sources, verification
from tasks.transfer.dependencies import Dependencies
from tasks.transfer.disk_errors import disk_error
from tasks.transfer.journal import forget
from tasks.transfer.partial import Partial
from tasks.urls import host_of, is_local, lacks_scheme, url_error

_FIX_BY_FINAL = ("run it again", "fix the errors above, or use another URL")
_log = logging.getLogger("recipe")


def fetch(artifact: Artifact, dependencies: Dependencies | None = None) -> Stamp:
    """Create the target from a local copy, or from the first working source.

    Raises:
        IntegrityError: every source that responded sent wrong bytes.
        TransferError: no source responded; the partial is kept. Or a file of a
            registry is not pinned.
        RecipeError: the disk is full or cannot be written.
        OwnershipLostError: another process continues with the partial.
    """
    dependencies = dependencies or Dependencies()
    if any(map(huggingface.is_hub, artifact.sources)):
        check_endpoint(pinned=artifact.sha256 is not None)
    artifact = artifact._replace(sources=_request_urls(artifact))
    try:
        return (
            _adopted(artifact, dependencies)
            or _Transfer(artifact, dependencies).first_that_delivers()
        )
    except OSError as error:
        raise disk_error(artifact, error) from None


def _request_urls(artifact: Artifact) -> tuple[str, ...]:
    """Return the URLs to request, in order.

    Raises:
        TransferError: a file of a registry has no digest, by which it is requested.
    """
    urls: list[str] = []
    for source in artifact.sources:
        url = references.file_url(source, artifact.sha256, os.environ)
        if not url:
            what = f"{artifact.label}: the digest of {source} is not known"
            fix = "`doit lock` finds it; for a file without an entry: `doit add`"
            raise TransferError(what, fix=fix)
        urls.append(huggingface.rewrite_to_endpoint(url, os.environ))
    return tuple(dict.fromkeys(urls))


def check_endpoint(*, pinned: bool) -> None:
    """Check that HF_ENDPOINT may be used.

    Args:
        pinned: whether a digest is known, which would detect a forged response.

    Raises:
        TransferError: it is malformed, or its responses could be forged.
    """
    address = huggingface.endpoint(os.environ)
    problem = url_error(address, pinned=pinned)
    if lacks_scheme(address) or (not problem and is_local(address)):
        problem = f"expected https://HOST, got {address}"
    if address[:1] in ("'", '"'):
        problem += "; remove the quotes"
    if problem:
        raise TransferError(
            f"HF_ENDPOINT: {problem}", fix="set HF_ENDPOINT=https://HOST, or unset it"
        )


def _adopted(artifact: Artifact, dependencies: Dependencies) -> Stamp | None:
    """Copy the artifact from another program's cache, where it exists."""
    for path in local_sources.candidates(artifact):
        try:
            return _taken(artifact, path, dependencies)
        except local_sources.LocalFileRejectedError as reason:
            _log.warning(
                "%s: %s is not used: %s",
                artifact.label,
                path,
                str(reason).replace("\n", ", "),
            )
    return None


def _taken(
    artifact: Artifact,
    path: str,
    dependencies: Dependencies,
    where: str = "",
    partial: Partial | None = None,
) -> Stamp:
    """Create the target from a local file, and drop a partial.

    Raises:
        LocalFileRejectedError: the file is not the artifact.
        OSError: the target cannot be written.
    """
    start = dependencies.clock()
    with dependencies.show(artifact.label, 0) as bar:
        held, digest, shared = local_sources.copy_or_clone(path, artifact, bar)
    if partial is None:
        forget(artifact)
    else:
        partial.discard()
    if not where:
        where = f"shared with {path}" if shared else f"copied from {path}"
    return _done(artifact, path, held, digest, dependencies.clock() - start, where, 0)


class _Transfer:
    """One transfer: a partial, filled from one source after the other."""

    def __init__(self, artifact: Artifact, dependencies: Dependencies) -> None:
        self.artifact = artifact
        self.dependencies = dependencies
        # without a pin, the digest that the publisher states: a check, but no proof
        self.expected = artifact.sha256
        self.start = dependencies.clock()
        self.reasons: list[tuple[str, object]] = []
        self.wrong = False  # whether a source sent wrong bytes
        self.final = True  # whether a retry is useless
        self.fixes: list[str] = []  # what the user can do, by source
        self.silent: dict[str, str] = {}  # host that does not respond → the fix

    def first_that_delivers(self) -> Stamp:
        """Try the sources in order until one has delivered the artifact."""
        remote: list[str] = []
        for url in self.artifact.sources:
            if remote or not is_local(url):
                remote.append(url)
            elif stamp := self._local(url):
                return stamp
        if remote:
            return self._download(remote)
        return self._fail(0)

    def _local(self, url: str, partial: Partial | None = None) -> Stamp | None:
        try:
            return _taken(
                self.artifact,
                local_sources.local_path(url),
                self.dependencies,
                f"from {host_of(url)}",
                partial,
            )
        except local_sources.LocalFileRejectedError as reason:
            self.reasons.append((url, reason))
            self.wrong = self.wrong or reason.wrong
            return None

    def _download(self, sources: list[str]) -> Stamp:
        with Partial(self.artifact, self.dependencies.clock) as partial:
            had = partial.done
            if self.artifact.size is not None:
                partial.set_size(self.artifact.size)
            with self.dependencies.show(self.artifact.label, had) as bar:
                for url in sources:
                    if is_local(url):
                        if stamp := self._local(url, partial):
                            return stamp
                    elif self._delivers(url, partial, bar):
                        had = 0 if partial.restarts else had
                        return self._publish(url, partial, had)
            return self._fail(partial.done)

    def _publish(self, url: str, partial: Partial, had: int) -> Stamp:
        digest = partial.hasher.hexdigest()
        held = partial.publish(partial.hasher.at)
        elapsed = self.dependencies.clock() - self.start
        return _done(
            self.artifact, url, held, digest, elapsed, f"from {host_of(url)}", had
        )

    def _delivers(self, url: str, partial: Partial, bar: Progress) -> bool:
        """Return whether a source delivers the missing bytes; if not, say why."""
        if variable := huggingface.offline(os.environ):
            self.reasons.append((url, f"{variable} forbids the network"))
            return False
        from tasks.network.http import (
            problem_of,  # requests costs more than doit itself
        )

        if problem := problem_of(url, pinned=self.artifact.sha256 is not None):
            self.reasons.append((url, problem))
            return False
        host = urlsplit(url).netloc
        if host in self.silent:
            self._skip_silent(url, self.silent[host])
            return False
        try:
            self._receive(url, partial, bar)
            return True
        except NoRoomError as error:
            if self.artifact.size is not None or len(self.artifact.sources) == 1:
                raise  # the size is pinned, or no other source states one
            self._passed_over(url, error)
        except SourceFailedError as reason:
            self._passed_over(url, reason)
            self.final = self.final and reason.final
            self.fixes.append(reason.fix)
            if reason.silent:
                self.silent[host] = reason.fix
        except IntegrityError as error:
            self._passed_over(url, error)
            self.wrong = True
        return False

    def _skip_silent(self, url: str, fix: str) -> None:
        """Record a source whose host has failed for another one."""
        reason = "same host, which does not respond"
        if fix == NO_NAME:
            reason = "same host, whose name cannot be resolved"
        self.reasons.append((url, reason))
        self.fixes.append(fix)

    def _passed_over(self, url: str, reason: Exception) -> None:
        """Record why a source failed, and log it if another source follows."""
        self.reasons.append((url, reason))
        if url != self.artifact.sources[-1]:
            label = self.artifact.label
            log_event("source_failed", "%s: %s: %s; trying the next source", label, url,
                reason, level=logging.WARNING, artifact=label, url=url,
                why=str(reason))  # fmt: skip

    def _receive(self, url: str, partial: Partial, bar: Progress) -> None:
        """Download and verify; retry wrong bytes once over a new connection.

        Pieces of several responses may not belong together. One response may be short
        without a sign of it (RFC 9112 §8), or a cache may have kept such a response.
        """
        from tasks.transfer.segmented import (
            SegmentedDownload,  # requests costs more than doit itself
        )

        def accept(answer: Any) -> None:
            if self.artifact.sha256 is None:
                self._unpinned(answer.headers, partial)

        for again in (False, True):
            with partial.changed:
                partial.tracker.size = (
                    self.artifact.size
                )  # another source may have stated another size
            token = host_token(url)
            source = SegmentedDownload(
                self.artifact,
                url,
                partial,
                bar,
                self.dependencies,
                single=again,
                token=token,
                accept=accept,
                fresh=again,
            )
            try:
                source.receive()
                verification.check_bytes(self.artifact, self.expected, partial, bar)
                return
            except IntegrityError as error:
                partial.restart()
                if again:
                    raise
                self._log_again(error)
            except SourceFailedError:
                if not verification.has_right_bytes(self.artifact, partial):
                    raise
                return

    def _log_again(self, error: IntegrityError) -> None:
        received = dict(error.facts).get("received", "")
        note = f" ({received})" if received else ""
        _log.warning("%s%s; downloading it again over one connection", error.what, note)

    def _unpinned(self, headers: Any, partial: Partial) -> None:
        """Read the digest and the validator that the publisher states."""
        stated = response.publisher_digest(headers)
        if stated and stated != self.expected:
            self.expected = stated
            _log.warning(
                "%s is not pinned; its publisher states --sha256 %s",
                self.artifact.label,
                stated,
            )
        partial.validator = response.validator(headers)

    def _fail(self, done: int) -> Stamp:
        """Raise the error that lists why each source failed."""
        what = f"{self.artifact.label} could not be downloaded"
        facts = list(self.reasons)
        resume: list[str] = []
        if done:
            facts.append(("partial", f"{formatting.format_size(done)} are kept"))
            resume = ["run it again to resume the download"]
        if self.wrong:
            what = f"{self.artifact.label}: no source sent the right bytes"
            compare = (
                "compare the digest with the publisher's, or add mirrors in models.yaml"
            )
            if self.expected is None:
                compare = (
                    "open the URL in a browser to see what it sends, or use another URL"
                )
            raise IntegrityError(what, facts, "\n".join([compare, *resume]))
        fixes = resume or [_FIX_BY_FINAL[self.final]]
        has_one_cause = len(set(self.fixes)) == 1
        if has_one_cause and len(self.fixes) == len(self.reasons) and self.fixes[0]:
            fixes = [self.fixes[0], *resume]
        raise TransferError(what, facts, "\n".join(fixes))


def _done(
    artifact: Artifact, source: str, held: FileStat, digest: str, elapsed: float,
    where: str, had: int,
) -> Stamp:  # fmt: skip
    """Log the size, rate and source of a download, and return its stamp.

    "Verified" requires a digest that was known before the download.

    Args:
        held: state of the hashed file, before the rename.
        had: bytes of an earlier run.
    """
    status = verification.target_stat(artifact, held, digest)
    size = held.size
    kept = f", {formatting.format_size(had)} was here already" if had else ""
    pinned = artifact.sha256 is not None
    proof = "sha256 verified" if pinned else f"not pinned; its sha256 is {digest}"
    rate = formatting.format_rate(size - had, elapsed)
    log_event("downloaded", "%s: %s in %s (%s) %s%s, %s", artifact.label,
        formatting.format_size(size), formatting.format_duration(elapsed), rate, where,
        kept, proof, artifact=artifact.label, bytes=size, fetched=size - had,
        seconds=round(elapsed, 3), source=source, sha256=digest,
        verified=pinned)  # fmt: skip
    return Stamp(status, digest, source, {})
