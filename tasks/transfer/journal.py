"""The journals of a download: the valid bytes of the partial, and its owner.

The journal (`.partial.json`) lists bytes that are on disk. The live record
(`.partial.live`) lists bytes that the kernel has: a thread overwrites it in place, so a
note costs microseconds and delays no connection.
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
from tasks.system.process_id import ProcessId
from tasks.system.process_identity import may_be_writing, this_boot
from tasks.transfer.ranges import Span, count, parse_spans

EVERY_BYTES = 4 * 1024**2  # bytes between two notes
MAX_RECORD = 16 * 1024  # bytes: the size limit of the record


class VolatileJournal(threading.Thread):
    """A thread that writes the live record.

    Args:
        path: the file of the record.
        state: returns what to record.

    Raises:
        OSError: the record cannot be written.
    """

    def __init__(self, path: str, state: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(name="live", daemon=True)
        self._path, self._state = path, state
        self._news = threading.Event()
        self._ending = False
        self._unnoted = 0
        # not `_handle`: Thread has that attribute since Python 3.13
        self._record = own_files.open_own(path)
        # overwrite the old record at once: a valid record exists at every moment
        self._note()
        self.start()

    def add_bytes(self, count: int) -> None:
        """Add to the bytes written since the last note."""
        # without a lock: a lost update only delays a note
        self._unnoted += count
        if self._unnoted >= EVERY_BYTES:
            self._unnoted = 0
            self._news.set()

    def end(self, remove: bool = True) -> None:
        """Stop the thread.

        Args:
            remove: also remove the record; false where no journal has its bytes.
        """
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
        """Write a note after every EVERY_BYTES, until `end` is called."""
        while self._news.wait():
            self._news.clear()
            if self._ending:
                return
            with contextlib.suppress(OSError):  # a connection reports a full disk
                self._note()

    def _note(self) -> None:
        text = json.dumps(self._state()).encode()
        record = b"%08x %s\n" % (zlib.crc32(text), text)
        if len(record) <= MAX_RECORD:
            os.lseek(self._record, 0, os.SEEK_SET)
            os.write(self._record, record)


def read_live(path: str) -> Any:
    """Return the last note, None where it is missing or incomplete."""
    crc, _, text = (
        (own_files.read_most(path, MAX_RECORD) or b"")
        .partition(b"\n")[0]
        .partition(b" ")
    )
    try:
        return json.loads(text) if int(crc, 16) == zlib.crc32(text) else None
    except (ValueError, RecursionError):
        return None


class SavedProgress(NamedTuple):
    """The content of a journal.

    Attributes:
        spans: the valid bytes.
        validator: the value of If-Range for these bytes.
        size: bytes of the whole file, None while it is unknown.
        owner: the process that writes the partial, None without one.
    """

    spans: tuple[Span, ...] = ()
    validator: str = ""
    size: int | None = None
    owner: ProcessId | None = None

    @property
    def done(self) -> int:
        """The number of valid bytes."""
        return count(self.spans)


def load_progress(artifact: Artifact) -> SavedProgress:
    """Return the progress of an artifact; none from a journal of another artifact."""
    saved = _saved(artifact)
    live = _claim(artifact, read_live(artifact.volatile_journal))
    # after a reboot the kernel no longer has the bytes of the live record
    is_live = live.owner is not None and live.owner.boot == this_boot()
    if is_live and live.done > saved.done:
        return live
    return saved


def _saved(artifact: Artifact) -> SavedProgress:
    """Return the progress that is on disk.

    A journal that a killed process has written but not renamed counts, too.
    """
    claims = (
        _claim(artifact, read_json(path))
        for path in (artifact.journal, *halves(artifact))
    )
    return max(claims, key=lambda saved: saved.done)


def _claim(artifact: Artifact, data: Any) -> SavedProgress:
    """Return what a journal says, an empty claim for another artifact or damage."""
    try:
        owner = ProcessId.parse_owner(data.get("owner"))
        spans = parse_spans(data["spans"], _length(artifact.partial))
        validator = str(data["validator"])
        size = data["size"]
        same = data["sha256"] == artifact.sha256
        same = same and (size is None or (type(size) is int and spans[-1][1] <= size))
        # without a digest, only a validator of the same source proves the rest fits
        fits = artifact.sha256 or (
            validator and data["sources"] == list(artifact.sources)
        )
    except (
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        OSError,
    ):
        return SavedProgress()
    if same and fits:
        return SavedProgress(spans, validator, size, owner)
    return SavedProgress(owner=owner)


def owned_by_other(artifact: Artifact) -> bool:
    """Return whether the journal names another process that writes the partial."""
    owner = _owner_in(artifact.journal)
    return owner is not None and may_be_writing(owner, artifact.journal)


def _owner_in(journal: str) -> ProcessId | None:
    data = read_json(journal)
    if isinstance(data, dict):
        return ProcessId.parse_owner(data.get("owner"))
    return None


def forget(artifact: Artifact) -> None:
    """Remove a partial and its journals, where they exist.

    Raises:
        OSError: one of them cannot be removed.
    """
    for path in (
        artifact.volatile_journal,
        artifact.partial,
        artifact.journal,
        *halves(artifact),
    ):
        unlink(path)


def halves(artifact: Artifact) -> list[str]:
    """Return temporary journals, which a killed process may have left."""
    return own_files.temporaries(artifact.journal, ".tmp")


def link(source: str, target: str) -> None:
    """Create a hard link, or a copy on a file system without hard links.

    Raises:
        FileExistsError: the target exists.
        OSError: it cannot be created.
    """
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        with open(source, "rb") as file, open(target, "xb") as copy:
            copy.write(file.read())


def unlink(path: str) -> None:
    """Remove a file where it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _length(path: str) -> int:
    """Return the bytes of a partial; 0 for a link or another user's file."""
    if own_files.is_own(path):
        return os.path.getsize(path)
    return 0
