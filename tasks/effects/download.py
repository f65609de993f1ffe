"""Fetching an artifact: the interface `fetch`, and behind it a single verified, resumable stream.

What answers mean and how long to wait is decided in `core.transfer`. Nothing gets its final name here
before size and SHA-256 are right (R20, R21).
"""

from __future__ import annotations

import errno
import logging
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tasks.core import report, transfer
from tasks.core.artifact import Artifact, Stamp
from tasks.core.errors import IntegrityError, RecipeError, TransferError
from tasks.core.transfer import Asked, Verdict, Word
from tasks.core.urls import host_of, is_local, url_problem
from tasks.effects import files
from tasks.effects.partial import Partial
from tasks.effects.progress import Progress, progress

SLOW_S = 30.0  # a connection that brings less than SLOW_BYTES in this time is replaced (R27)
SLOW_BYTES = 64 * 1024

_log = logging.getLogger("recipe")


@dataclass
class Tools:
    """What a transfer needs of the world; tests give others."""

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = random.random
    new_session: Callable[[], Any] | None = None
    show: Callable[[str, int], Progress] = field(default=progress)


class _GaveUp(Exception):
    """One source will not deliver; the reason is the text. `silent`: its host did not even answer;
    `final`: asking again would not help."""

    def __init__(self, reason: str, silent: bool = False, final: bool = False) -> None:
        super().__init__(reason)
        self.silent, self.final = silent, final


def fetch(artifact: Artifact, tools: Tools | None = None) -> Stamp:
    """Bring the artifact to its target, from the first source that delivers it.

    Raises:
        IntegrityError: every source that delivered sent other bytes.
        TransferError: no source delivered; the partial is kept.
    """
    tools = tools or Tools()
    start = tools.clock()
    try:
        with Partial(artifact, tools.clock) as partial, tools.show(artifact.label, partial.have) as bar:
            had = partial.have
            run = _Run(artifact, partial, bar, tools)
            _check_space(artifact, artifact.size, partial.have)
            source = run.first_that_delivers()
            digest, size = partial.sha256(), partial.have
            had = 0 if partial.restarts else had
            partial.publish()
    except OSError as error:
        raise _disk_error(artifact, error) from None
    elapsed = tools.clock() - start
    kept = f", {report.size(had)} was here already" if had else ""
    proof = "sha256 verified" if run.expected else f"nothing pins it; its sha256 is {digest}"
    _log.info(
        "%s: %s in %s (%s) from %s%s, %s", artifact.label, report.size(size), report.seconds(elapsed),
        report.rate(size - had, elapsed), host_of(source), kept, proof,
    )  # fmt: skip
    found = files.stat(artifact.target)
    return Stamp(size, found[1] if found else 0, digest, source, {})


class _Run:
    """One transfer: a partial, fed by one source after the other."""

    def __init__(self, artifact: Artifact, partial: Partial, bar: Progress, tools: Tools) -> None:
        self.artifact, self.partial, self.bar, self.tools = artifact, partial, bar, tools
        self.expected = artifact.sha256
        self.total = artifact.size
        self._session: Any = None
        self._answered = False  # whether the last attempt got an HTTP answer
        self._joined = partial.have > 0  # whether what is here came in several pieces

    def first_that_delivers(self) -> str:
        """Try the sources in order; the URL of the one that brought the last, right byte."""
        reasons: list[tuple[str, object]] = []
        wrong, final = False, True
        silent: set[str] = set()
        for url in self.artifact.sources:
            if not is_local(url) and urlsplit(url).netloc in silent:
                reasons.append((url, "the same host"))
                continue
            try:
                self._deliver(url)
                return url
            except _GaveUp as reason:
                reasons.append((url, reason))
                final = final and reason.final
                if reason.silent:
                    silent.add(urlsplit(url).netloc)
            except IntegrityError as error:
                reasons.append((url, error))
                wrong = True
        self.partial.save()
        kept = f"{report.size(self.partial.have)} are kept" if self.partial.have else ""
        if wrong:
            fix = "compare the digest with its publisher's; another source: mirrors in models.yaml"
            raise IntegrityError(f"{self.artifact.label}: no source sent the right bytes", reasons, fix)
        fix = f"run it again{', it goes on where it stopped' if kept else ''}"
        if final and not kept:
            fix = "mend what is said above, or name another URL"
        raise TransferError(
            f"{self.artifact.label} could not be downloaded", [*reasons, ("partial", kept)], fix
        )

    def _deliver(self, url: str) -> None:
        """All bytes from one source, and the right ones; what came in pieces gets one more chance from 0."""
        for again in (False, True):
            self._receive(url)
            try:
                self._check_digest()
                return
            except IntegrityError as error:
                self.partial.restart()
                if again or not self._joined:
                    raise
                _log.warning("%s; once more from the beginning", error.what)

    def _check_digest(self) -> None:
        got = self.partial.sha256()
        if self.artifact.size not in (None, self.partial.have):
            facts = [("expected", f"{self.artifact.size} bytes"), ("got", f"{self.partial.have} bytes")]
            raise IntegrityError(f"{self.artifact.label}: wrong size", facts)
        if self.expected not in (None, got):
            facts = [("expected", f"sha256:{self.expected}"), ("got", f"sha256:{got}")]
            raise IntegrityError(f"{self.artifact.label}: wrong SHA-256", facts)

    def _receive(self, url: str) -> None:
        """Ask until every byte is here. Raises _GaveUp."""
        failures, waited, restarts = 0, 0.0, self.partial.restarts
        self.total = self.artifact.size  # another source may have said something else
        while self.partial.have != self.artifact.size:
            before = self.partial.have
            verdict = self._attempt(url)
            if verdict.word is Word.DONE:
                return
            if verdict.word is Word.GIVE_UP:
                raise _GaveUp(_reason(verdict), final=True)
            failures = 1 if self.partial.have > before else failures + 1
            if verdict.word is Word.RESTART:
                self.partial.restart()
            wait = transfer.backoff_s(failures, verdict.wait_s, self.tools.jitter())
            if waited + wait > transfer.WAIT_TOTAL_S:
                raise _GaveUp(f"{_reason(verdict)} (it would take {report.seconds(wait)} more of waiting)")
            tries = max(failures, self.partial.restarts - restarts)  # the same bytes again are no progress
            if tries >= transfer.RETRIES:
                raise _GaveUp(f"{_reason(verdict)} (tried {tries} times)", verdict.silent)
            here = report.percent(self.partial.have, self.total) if self.partial.have else ""
            _log.warning(
                "%s: %s from %s; again in %s%s", self.artifact.label, verdict.why, host_of(url),
                report.seconds(wait), f", {here} is here" if here else "",
            )  # fmt: skip
            self.tools.sleep(wait)
            waited += wait

    def _attempt(self, url: str) -> Verdict:
        """One request and its body; DONE when the last byte is here."""
        self._answered = False
        try:
            with self._open(url) as (verdict, body):
                if verdict.word in (Word.BODY, Word.WHOLE):
                    if verdict.total is not None and self.artifact.size is None:
                        self.total = verdict.total
                    self._joined = self.partial.have > 0
                    _check_space(self.artifact, self.total, self.partial.have)
                    return self._take(body)
                return verdict
        except TransferError as error:
            from tasks.effects.http import FatalTransfer

            word = Word.GIVE_UP if isinstance(error, FatalTransfer) else Word.RETRY
            return Verdict(word, error.what, remedy=error.fix, silent=not self._answered)

    def _take(self, body: Iterator[bytes]) -> Verdict:
        """Append a body. Data beyond the known size is an error: it could go on for ever."""
        mark, mark_have = self.tools.clock(), self.partial.have
        for block in body:
            self.partial.write(block)
            self.bar.at(self.partial.have, self.total)
            if self.total is not None and self.partial.have > self.total:
                self.partial.restart()
                return Verdict(Word.RETRY, f"more than the {self.total} bytes it should have")
            now = self.tools.clock()
            if now - mark >= SLOW_S:
                if self.partial.have - mark_have < SLOW_BYTES:
                    return Verdict(Word.RETRY, f"a connection that brings almost nothing for {SLOW_S:.0f} s")
                mark, mark_have = now, self.partial.have
        if self.total is not None and self.partial.have < self.total:
            return Verdict(Word.RETRY, "the connection ended before the file did")
        return Verdict(Word.DONE)

    @contextmanager
    def _open(self, url: str) -> Iterator[tuple[Verdict, Iterator[bytes]]]:
        pinned, local = self.artifact.sha256 is not None, is_local(url)
        if self.partial.have and not pinned and (local or not self.partial.validator):
            self.partial.restart()  # nothing would tell whether the rest belongs to what is here
        if local:
            yield _open_file(url, self.partial.have, self.artifact.size)
            return
        from tasks.effects import http  # requests costs more than doit itself

        self._session = self._session or (self.tools.new_session or http.new_session)()
        asked = Asked(self.partial.have, self.artifact.size, self.partial.validator)
        headers = transfer.request_headers(asked)
        with http.get(self._session, url, headers, lambda to: url_problem(to, pinned=pinned)) as answer:
            self._answered = True
            verdict = transfer.judge(answer.status, answer.headers, asked, datetime.now(timezone.utc))
            if verdict.word is Word.WHOLE:
                self.partial.restart()
            if verdict.word in (Word.BODY, Word.WHOLE, Word.DONE) and not pinned:
                self._unpinned(answer)
            yield verdict, answer.body

    def _unpinned(self, answer: Any) -> None:
        """Without a digest of ours: the publisher's where it states one, and a validator to resume by."""
        stated = transfer.publisher_digest(answer.headers)
        if stated and stated != self.expected:
            self.expected = stated
            _log.warning("%s is not pinned; its publisher says --sha256 %s", self.artifact.label, stated)
        self.partial.validator = transfer.validator(answer.headers)


def _open_file(url: str, have: int, expected: int | None) -> tuple[Verdict, Iterator[bytes]]:
    path = Path(url2pathname(urlsplit(url).path) if url.startswith("file:") else url)
    try:
        size = path.stat().st_size
        if expected not in (None, size):
            return Verdict(Word.GIVE_UP, f"wrong length: {size} bytes, expected {expected}"), iter(())
        file = path.open("rb", buffering=0)
        file.seek(min(have, size))
    except OSError as error:
        return Verdict(Word.GIVE_UP, error.strerror or str(error)), iter(())

    def blocks() -> Iterator[bytes]:
        with file:
            while block := file.read(files.BLOCK):
                yield block

    return Verdict(Word.BODY, total=size), blocks()


def _reason(verdict: Verdict) -> str:
    return f"{verdict.why}; {verdict.remedy}" if verdict.remedy else verdict.why


def _check_space(artifact: Artifact, size: int | None, have: int) -> None:
    folder = os.path.dirname(artifact.target)
    missing = transfer.space_missing(size, have, shutil.disk_usage(folder).free)
    if missing:
        raise RecipeError(
            f"{artifact.label} does not fit on the disk",
            [
                ("needs", report.size((size or 0) - have)),
                ("missing", report.size(missing)),
                ("kept free", report.size(transfer.SPACE_MARGIN)),
                ("in", folder),
            ],
            fix="free some space, or set LLAMAFILE_CACHE to another disk",
        )


def _disk_error(artifact: Artifact, error: OSError) -> RecipeError:
    """Disk full, quota, read-only, no permission: the partial stays (R19)."""
    full = error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))
    place = os.path.dirname(artifact.target)
    what = "the disk is full" if full else f"cannot write: {error.strerror or error}"
    fix = "free some space and run it again" if full else "set LLAMAFILE_CACHE to another directory"
    return RecipeError(f"{artifact.label}: {what}", [("in", place)], fix)
