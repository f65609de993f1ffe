"""Fetching an artifact: from this machine, else from its sources in order, all held to one digest.

Nothing gets its final name here before size and SHA-256 are right (R20, R21).
"""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from tasks.cache import space
from tasks.catalogue.artifact import Artifact, Stamp
from tasks.console import formatting
from tasks.console.logs import say
from tasks.console.progress import Progress
from tasks.errors import IntegrityError, NoRoom, RecipeError, TransferError
from tasks.network import huggingface, response
from tasks.network.retry import GaveUp
from tasks.network.tokens import hub_token
from tasks.system import files
from tasks.system.file_stat import FileStat
from tasks.system.paths import ENDING_BYTES
from tasks.transfer import local_sources
from tasks.transfer.dependencies import Tools
from tasks.transfer.journal import claimed, forget
from tasks.transfer.partial import Partial
from tasks.urls import host_of, is_local, url_problem

_log = logging.getLogger("recipe")


def fetch(artifact: Artifact, tools: Tools | None = None) -> Stamp:
    """Bring the artifact to its target: adopt it, or download it from the first source that delivers it.

    Raises:
        IntegrityError: every source that delivered sent other bytes.
        TransferError: no source delivered; the partial is kept.
        RecipeError: the disk is full, or cannot be written.
        TakenOver: another process has gone on with the partial.
    """
    tools = tools or Tools()
    if any(map(huggingface.is_hub, artifact.sources)):
        check_endpoint(pinned=artifact.sha256 is not None)
    sources = tuple(huggingface.at_endpoint(url, os.environ) for url in artifact.sources)
    artifact = artifact._replace(sources=sources)
    try:
        return _adopted(artifact, tools) or _Run(artifact, tools).first_that_delivers()
    except OSError as error:
        raise _disk_error(artifact, error) from None


def check_endpoint(*, pinned: bool) -> None:
    """See that HF_ENDPOINT may be asked.

    Args:
        pinned: whether a digest is known, so that a forged answer would be noticed.

    Raises TransferError: it is malformed, or its answers could be forged.
    """
    address = huggingface.endpoint(os.environ)
    problem = url_problem(address, pinned=pinned)
    if not problem and is_local(address):
        problem = f"expected https://HOST, got {address}"
    if problem:
        raise TransferError(f"HF_ENDPOINT: {problem}", fix="HF_ENDPOINT=https://HOST, or unset it")


def _adopted(artifact: Artifact, tools: Tools) -> Stamp | None:
    """Take the artifact from another program's cache, where it is in one."""
    for path in local_sources.candidates(artifact):
        try:
            return _taken(artifact, path, tools)
        except local_sources.NotIt as reason:
            _log.warning("%s: %s is not used: %s", artifact.label, path, str(reason).replace("\n", ", "))
    return None


def _taken(
    artifact: Artifact, path: str, tools: Tools, where: str = "", partial: Partial | None = None
) -> Stamp:
    """Make the target out of a local file; a partial is of no use then. Raises NotIt, OSError."""
    start = tools.clock()
    with tools.show(artifact.label, 0) as bar:
        held, digest, shared = local_sources.take(path, artifact, bar)
    if partial is None:
        forget(artifact)
    else:
        partial.discard()
    where = where or f"{'shared with' if shared else 'copied from'} {path}"
    return _done(artifact, path, held, digest, tools.clock() - start, where, 0)


class _Run:
    """One transfer: a partial, fed by one source after the other."""

    def __init__(self, artifact: Artifact, tools: Tools) -> None:
        self.artifact, self.tools = artifact, tools
        self.expected = artifact.sha256  # else what the publisher states: a check, and no proof
        self.start = tools.clock()
        self.reasons: list[tuple[str, object]] = []
        self.wrong, self.final = False, True
        self.silent: set[str] = set()  # hosts that do not answer

    def first_that_delivers(self) -> Stamp:
        """Try the sources in order until one has brought the last, right byte."""
        remote: list[str] = []
        for url in self.artifact.sources:
            if remote or not is_local(url):
                remote.append(url)
            elif stamp := self._local(url):
                return stamp
        return self._download(remote) if remote else self._fail(0)

    def _local(self, url: str, partial: Partial | None = None) -> Stamp | None:
        try:
            return _taken(
                self.artifact, local_sources.path_of(url), self.tools, f"from {host_of(url)}", partial
            )
        except local_sources.NotIt as reason:
            self.reasons.append((url, reason))
            self.wrong = self.wrong or reason.wrong
            return None

    def _download(self, sources: list[str]) -> Stamp:
        with Partial(self.artifact, self.tools.clock) as partial:
            had = partial.done
            if self.artifact.size is not None:
                partial.expect(self.artifact.size)
            with self.tools.show(self.artifact.label, had) as bar:
                for url in sources:
                    if is_local(url):
                        if stamp := self._local(url, partial):
                            return stamp
                    elif self._delivers(url, partial, bar):
                        had = 0 if partial.restarts else had
                        return self._publish(url, partial, had)
            return self._fail(partial.done)

    def _publish(self, url: str, partial: Partial, had: int) -> Stamp:
        digest = partial.frontier.hexdigest()
        held = partial.publish(partial.frontier.at)
        elapsed = self.tools.clock() - self.start
        return _done(self.artifact, url, held, digest, elapsed, f"from {host_of(url)}", had)

    def _delivers(self, url: str, partial: Partial, bar: Progress) -> bool:
        """Whether one source brings the rest, and the right one; says why not in `reasons`."""
        if variable := huggingface.offline(os.environ):
            self.reasons.append((url, f"{variable} forbids the network"))
            return False
        from tasks.network.http import problem_of  # requests costs more than doit itself

        if problem := problem_of(url, pinned=self.artifact.sha256 is not None):
            self.reasons.append((url, problem))
            return False
        if urlsplit(url).netloc in self.silent:
            self.reasons.append((url, "the same host"))
            return False
        try:
            self._receive(url, partial, bar)
            return True
        except NoRoom as error:
            if self.artifact.size is not None or len(self.artifact.sources) == 1:
                raise  # it is the file's own size, or the only one that anybody states
            self._passed_over(url, error)
        except GaveUp as reason:
            self._passed_over(url, reason)
            self.final = self.final and reason.final
            if reason.silent:
                self.silent.add(urlsplit(url).netloc)
        except IntegrityError as error:
            self._passed_over(url, error)
            self.wrong = True
        return False

    def _passed_over(self, url: str, reason: Exception) -> None:
        """Keep the reason for the end; say it now if another source follows."""
        self.reasons.append((url, reason))
        if url != self.artifact.sources[-1]:
            label = self.artifact.label
            say("source_failed", "%s: %s: %s; trying the next source", label, url, reason,
                level=logging.WARNING, artifact=label, url=url, why=str(reason))  # fmt: skip

    def _receive(self, url: str, partial: Partial, bar: Progress) -> None:
        """All bytes, and the right ones; what came in pieces gets one more chance, in one piece."""
        from tasks.transfer.segmented import Source  # requests costs more than doit itself

        def accept(answer: Any) -> None:
            if self.artifact.sha256 is None:
                self._unpinned(answer.headers, partial)

        for again in (False, True):
            with partial.changed:
                partial.plan.size = self.artifact.size  # another source may have said something else
            token = hub_token(url)
            Source(
                self.artifact, url, partial, bar, self.tools, single=again, token=token, accept=accept
            ).receive()
            try:
                self._check_digest(partial, bar)
                return
            except IntegrityError as error:
                joined = partial.answers > 1
                partial.restart()
                if again or not joined:
                    raise
                _log.warning("%s; once more from the beginning, over one connection", error.what)

    def _check_digest(self, partial: Partial, bar: Progress) -> None:
        size = partial.plan.size or 0
        while not partial.frontier.wait(size, 0.1):
            bar.at(size, size, "verifying")
        bar.at(size, size)
        if self.artifact.size not in (None, size):
            facts = [("expected", f"{self.artifact.size} bytes"), ("got", f"{size} bytes")]
            raise IntegrityError(f"{self.artifact.label}: wrong size", facts)
        got = partial.frontier.hexdigest()
        if self.expected not in (None, got):
            facts = [("expected", f"sha256:{self.expected}"), ("got", f"sha256:{got}")]
            raise IntegrityError(f"{self.artifact.label}: wrong SHA-256", facts)

    def _unpinned(self, headers: Any, partial: Partial) -> None:
        """Without a digest of ours: the publisher's where it states one, and a validator to resume by."""
        stated = response.publisher_digest(headers)
        if stated and stated != self.expected:
            self.expected = stated
            _log.warning("%s is not pinned; its publisher says --sha256 %s", self.artifact.label, stated)
        partial.validator = response.validator(headers)

    def _fail(self, done: int) -> Stamp:
        label, kept = self.artifact.label, f"{formatting.size(done)} are kept" if done else ""
        facts = [*self.reasons, *([("partial", kept)] if kept else [])]
        again = "run it again, it goes on where it stopped" if kept else ""
        if self.wrong:
            fix = "compare the digest with its publisher's; another source: mirrors in models.yaml"
            what = f"{label}: no source sent the right bytes"
            raise IntegrityError(what, facts, f"{fix}\n{again}" if again else fix)
        fix = again or ("mend what is said above, or name another URL" if self.final else "run it again")
        raise TransferError(f"{label} could not be downloaded", facts, fix)


def _done(
    artifact: Artifact, source: str, held: FileStat, digest: str, elapsed: float, where: str, had: int
) -> Stamp:  # fmt: skip
    """Say what came, how fast and from where; the stamp of it.

    "Verified" is only what a digest that was known before the download has verified.

    Args:
        held: state of the file that has the digest, before it was renamed.
    """
    found, size = _settled(artifact, held, digest), held.size
    kept = f", {formatting.size(had)} was here already" if had else ""
    pinned = artifact.sha256 is not None
    proof = "sha256 verified" if pinned else f"nothing pins it; its sha256 is {digest}"
    rate = formatting.rate(size - had, elapsed)
    say("downloaded", "%s: %s in %s (%s) %s%s, %s", artifact.label, formatting.size(size),
        formatting.seconds(elapsed), rate, where, kept, proof, artifact=artifact.label, bytes=size,
        fetched=size - had, seconds=round(elapsed, 3), source=source, sha256=digest,
        verified=pinned)  # fmt: skip
    return Stamp(found, digest, source, {})


def _settled(artifact: Artifact, held: FileStat, digest: str) -> FileStat:
    """The state of the target, which must be the file that was hashed.

    Where it is not (replaced meanwhile, or a file system that sets times late) it is read.
    Raises IntegrityError: it has other bytes.
    """
    found = files.stat(artifact.target)
    if found is not None and found.is_same_but_renamed(held):
        return found
    hashed = files.sha256_file(artifact.target)
    if hashed.sha256 != digest:
        facts = [("expected", f"sha256:{digest}"), ("got", f"sha256:{hashed.sha256}")]
        what = f"{artifact.target} was replaced as soon as it was there"
        raise IntegrityError(what, facts, fix="see who else writes to the cache, and run it again")
    return hashed.stat


def _disk_error(artifact: Artifact, error: OSError) -> RecipeError:
    """Disk full, quota, read-only, no permission: the partial stays (R19)."""
    place = os.path.dirname(artifact.target)
    if error.errno == errno.ENAMETOOLONG:
        return _name_too_long(artifact, place)
    if not files.is_full(error):
        what = f"{artifact.label}: cannot write: {error.strerror or error}"
        return RecipeError(what, [("in", place)], "set LLAMAFILE_CACHE to another directory")
    claim = claimed(artifact)
    size, taken = artifact.size or claim.size, max(claim.done, _taken_on_disk(artifact.partial))
    facts = [
        ("missing", formatting.size(max(0, size - taken) + space.SPACE_MARGIN) if size else ""),
        ("kept", f"{formatting.size(claim.done)}, the next run goes on with them" if claim.done else ""),
        ("in", place),
    ]
    quota = "" if error.errno == errno.ENOSPC else " (the quota is used up)"
    fix = "free some space and run it again"
    return RecipeError(f"{artifact.label}: the disk is full{quota}", facts, fix)


def _name_too_long(artifact: Artifact, folder: str) -> RecipeError:
    length = len(os.fsencode(os.path.basename(artifact.target)))
    most: object = ""
    with suppress(OSError, ValueError, AttributeError):  # Windows has no such call
        most = f"{os.pathconf(files.existing(folder), 'PC_NAME_MAX') - ENDING_BYTES} bytes here"
    facts = [("length", f"{length} bytes"), ("limit", most), ("in", folder)]
    fix = "--llamafile SHORTER_NAME --llamafile-url URL, or set LLAMAFILE_CACHE to another file system"
    return RecipeError(f"{artifact.label}: the name of its file, or its path, is too long", facts, fix)


def _taken_on_disk(path: str) -> int:
    """Bytes of the disk that a file has, 0 where nobody says."""
    try:
        return getattr(os.stat(path), "st_blocks", 0) * 512
    except OSError:
        return 0
