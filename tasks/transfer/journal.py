"""The journals of a download: which bytes of the partial count, and who writes it.

One record, written over in place by a thread of its own: nothing is created, renamed or synced, so a note
costs microseconds, and where the file system makes it wait, no lane waits with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.system import own_files
from tasks.system.files import read_json
from tasks.system.process_id import Owner
from tasks.system.process_identity import is_alive, this_boot
from tasks.transfer.ranges import Span, count, parse_spans

EVERY_BYTES = 4 * 1024**2  # between two notes
MOST = 16 * 1024  # bytes of one record


class Live(threading.Thread):
    """Keeps the record at `path` up with what `state` says. Raises OSError: it cannot be written."""

    def __init__(self, path: str, state: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(name="live", daemon=True)
        self._path, self._state = path, state
        self._news = threading.Event()
        self._ending = False
        self._unnoted = 0
        # not `_handle`: Thread has one of its own from Python 3.13 on
        self._record = own_files.open_own(path)
        self._note()  # at once, and over the old record: there is no moment without one
        self.start()

    def moved(self, count: int) -> None:
        """So many bytes more were written."""
        self._unnoted += count  # a lost update between two lanes only delays a note
        if self._unnoted >= EVERY_BYTES:
            self._unnoted = 0
            self._news.set()

    def end(self, remove: bool = True) -> None:
        """Stop; the record goes unless it is the only claim there is."""
        if self._ending:
            return
        self._ending = True
        self._news.set()
        self.join()
        os.close(self._record)
        if remove:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def run(self) -> None:
        """Write a note whenever there is news."""
        while self._news.wait():
            self._news.clear()
            if self._ending:
                return
            with contextlib.suppress(OSError):  # a full disk is a lane's to report
                self._note()

    def _note(self) -> None:
        text = json.dumps(self._state()).encode()
        record = b"%08x %s\n" % (zlib.crc32(text), text)
        if len(record) <= MOST:
            os.lseek(self._record, 0, os.SEEK_SET)
            os.write(self._record, record)


def read_live(path: str) -> Any:
    """The last note; None where there is none, or half of one."""
    crc, _, text = (own_files.read_most(path, MOST) or b"").partition(b"\n")[0].partition(b" ")
    try:
        return json.loads(text) if int(crc, 16) == zlib.crc32(text) else None
    except (ValueError, RecursionError):
        return None


class Claim(NamedTuple):
    """What a journal says."""

    spans: tuple[Span, ...] = ()
    validator: str = ""  # what If-Range may carry for these bytes
    size: int | None = None  # bytes of the whole file, None where nobody has said
    owner: Owner | None = None  # who writes it, None where nobody does

    @property
    def done(self) -> int:
        """How many bytes count."""
        return count(self.spans)


def claimed(artifact: Artifact) -> Claim:
    """The bytes that count for an artifact; none for a journal of other bytes than the artifact's."""
    saved, live = _saved(artifact), _claim(artifact, read_live(artifact.live))
    is_live = live.owner is not None and live.owner.boot == this_boot()
    return live if is_live and live.done > saved.done else saved


def _saved(artifact: Artifact) -> Claim:
    """What the disk is known to have; also by a journal that a killed process was about to put in place."""
    claims = (_claim(artifact, read_json(path)) for path in (artifact.journal, *halves(artifact)))
    return max(claims, key=lambda claim: claim.done)


def _claim(artifact: Artifact, data: Any) -> Claim:
    try:
        owner = Owner.parse(data.get("owner"))
        spans = parse_spans(data["spans"], _length(artifact.partial))
        validator, size = str(data["validator"]), data["size"]
        same = data["sha256"] == artifact.sha256
        same = same and (size is None or (type(size) is int and spans[-1][1] <= size))
        # without a digest only a validator of the same source says that the rest will fit
        fits = artifact.sha256 or (validator and data["sources"] == list(artifact.sources))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return Claim()
    return Claim(spans, validator, size, owner) if same and fits else Claim(owner=owner)


def busy_elsewhere(artifact: Artifact) -> bool:
    """Whether somebody else is writing the partial, as far as the journal tells."""
    owner = _owner_in(artifact.journal)
    return owner is not None and is_alive(owner, artifact.journal)


def _owner_in(journal: str) -> Owner | None:
    data = read_json(journal)
    return Owner.parse(data.get("owner")) if isinstance(data, dict) else None


def forget(artifact: Artifact) -> None:
    """Remove a partial and what is known of it, as far as it is there. Raises OSError."""
    for path in (artifact.live, artifact.partial, artifact.journal, *halves(artifact)):
        unlink(path)


def halves(artifact: Artifact) -> list[str]:
    """Journals that a killed process had not finished writing."""
    return own_files.temporaries(artifact.journal, ".tmp")


def link(source: str, target: str) -> None:
    """Give a small file another name that must be free. Raises FileExistsError, OSError."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with open(source, "rb") as file, open(target, "xb") as copy:
            copy.write(file.read())


def unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _length(path: str) -> int:
    """Bytes of a partial; 0 for a link or another user's file, which is replaced."""
    return os.path.getsize(path) if own_files.is_own(path) else 0
