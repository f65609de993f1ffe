"""The partial file of a download, and the journal of its valid bytes.

`<target>.partial` has the bytes, `<target>.partial.json` lists the valid spans. Data is
synced to disk before the journal lists it, so a power failure costs a second of work;
progress is never inferred from the file's size. `<target>.partial.live` lists bytes
that the kernel has, but perhaps not the disk: it is valid until the machine reboots, so
SIGKILL costs almost nothing.

The journal also names the process that writes. Where file locks do not work, this keeps
two processes apart, and the digest and the rename keep the target correct.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from tasks.catalogue.artifact import Artifact
from tasks.system.file_stat import FileStat
from tasks.system.files import fsync_dir, is_full, stat_of
from tasks.transfer.disk_errors import check_space
from tasks.transfer.journal import VolatileJournal, _saved, forget, load_progress
from tasks.transfer.owned_journal import OwnedJournal, OwnershipLostError
from tasks.transfer.random_access import open_file
from tasks.transfer.ranges import RangeTracker, count
from tasks.transfer.streaming_hash import StreamingHasher

# the journal is saved after SAVE_BYTES bytes or SAVE_S seconds with new bytes,
# whichever comes first: a power failure costs that much
SAVE_BYTES = 128 * 1024**2
SAVE_S = 1.0
# between two checks whether the journal must be saved
LOOK_S = 0.05
# the journal is saved at least this often: other machines see that the process runs
BEAT_S = 5.0


class Partial:
    """An open partial file; leaving its `with` block saves the journal.

    Args:
        clock: returns monotonic seconds.

    Attributes:
        plan: which bytes exist; guarded by `changed`.
        changed: notified when a connection ends or an error occurs.
        hasher: the thread that hashes the bytes.
        validator: the value of If-Range for the existing bytes.
        answers: the number of responses that the bytes came from; bytes of several
            responses may not belong together.
        restarts: how often all bytes were dropped.
        error: the error of the thread that saves the journal, None without one.
    """

    def __init__(
        self, artifact: Artifact, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._artifact = artifact
        self._clock = clock
        saved = load_progress(artifact)
        self.changed = threading.Condition()
        self.tracker = RangeTracker(artifact.size, saved.spans)
        self.validator = saved.validator
        # the bytes of an earlier run count as a second response
        self.answers = 2 if saved.spans else 0
        self.restarts = 0
        self.error: Exception | None = None
        self._journal = OwnedJournal(artifact, clock)
        self._published = False
        os.makedirs(os.path.dirname(artifact.target), exist_ok=True)
        self._saving = threading.Lock()
        # before the file is opened: the old journal may be of another artifact; and
        # only with the bytes that are on disk
        self._journal.take_over(self._state(), _saved(artifact).spans)
        self.file = open_file(artifact.partial)
        self._volatile = VolatileJournal(artifact.volatile_journal, self._state)
        self.hasher = self._follow()
        self._closing = threading.Event()
        self._saver = threading.Thread(
            target=self._keep_saving, name="journal", daemon=True
        )
        self._saver.start()

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop_threads()
            if not self._published:
                self._give_back()
                if self.error is None:
                    self._release()
        finally:
            # where the journal could not be saved, this is the only record
            self._volatile.end(remove=False)
            self.file.close()

    @property
    def done(self) -> int:
        """The number of existing bytes."""
        with self.changed:
            return self.tracker.done

    @property
    def is_complete(self) -> bool:
        """Whether every byte exists."""
        with self.changed:
            return self.tracker.is_complete

    def set_size(self, size: int) -> None:
        """Set the size of the whole file, and allocate disk space.

        Raises:
            NoRoomError: the disk has not enough space.
            OSError: the space cannot be allocated.
        """
        with self.changed:
            self.tracker.size = size
            taken = max(self.tracker.done, self.file.allocated_bytes())
        check_space(self._artifact, size, taken)
        # not for a size that only a server states
        if self._artifact.sha256 or self._artifact.size:
            self.file.preallocate(size)

    def _edge(self, at: int) -> int:
        with self.changed:
            return self.tracker.contiguous_end(at)

    def _follow(self) -> StreamingHasher:
        hasher = StreamingHasher(self._edge, self.file.read_into)
        hasher.start()
        return hasher

    def write(self, offset: int, data: memoryview) -> None:
        """Write bytes at an offset.

        Raises:
            OSError: the disk is full or failed.
        """
        self.file.write(offset, data)
        self._volatile.add_bytes(len(data))

    def restart(self) -> None:
        """Drop every byte. No connection may write meanwhile.

        Raises:
            OSError: the journal cannot be saved.
            OwnershipLostError: another process writes the partial.
        """
        self.hasher.close()
        with self.changed:
            self.tracker.reset(self._artifact.size)
        self.restarts += 1
        self.answers = 0
        self.validator = ""
        # before the journal is saved: the record lists the dropped bytes
        self._volatile.end()
        self._volatile = VolatileJournal(self._artifact.volatile_journal, self._state)
        self.save()
        self.hasher = self._follow()

    def _stop_threads(self) -> None:
        """Stop the threads that read the file and write the journals."""
        self._closing.set()
        self._saver.join()
        self.hasher.close()

    def discard(self) -> None:
        """Drop every byte; leaving the `with` block removes the files."""
        with self.changed:
            self.tracker.reset(None)

    def save(self, last: bool = False) -> None:
        """Sync the data to disk, then save the journal.

        Args:
            last: whether this process stops writing the partial.

        Raises:
            OSError: the data or the journal cannot be written.
            OwnershipLostError: another process writes the partial.
        """
        with self._saving:
            with self.changed:
                spans = self.tracker.spans()
            if spans != self._journal.spans:
                self.file.sync()
            self._journal.check_owner()
            try:
                self._journal.write(self._state(), spans, is_last=last)
            except FileNotFoundError:  # another process took over and removed it
                raise OwnershipLostError(self._artifact.label) from None
            except OSError as error:
                if last or not is_full(error):
                    raise
                # the bytes may still fit; the old journal remains valid
                self._journal.postpone()

    def _state(self) -> dict[str, Any]:
        """Return the content of a journal."""
        with self.changed:
            spans = self.tracker.spans()
            size = self.tracker.size
        return {
            "sha256": self._artifact.sha256,
            "size": size,
            "sources": self._artifact.sources,
            "validator": self.validator,
            "spans": spans,
            "owner": self._journal.owner,
        }

    def _keep_saving(self) -> None:
        try:
            while not self._closing.wait(LOOK_S):
                if self._must_save():
                    self.save()
        except (OSError, MemoryError, OwnershipLostError) as error:
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def _must_save(self) -> bool:
        """Return whether there are enough new bytes, or the last save was long ago."""
        age_s = self._clock() - self._journal.saved_at
        gained = self.done - count(self._journal.spans)
        if not gained:
            return age_s >= BEAT_S
        # a complete file is synced while its digest is finished
        return self.is_complete or gained >= SAVE_BYTES or age_s >= SAVE_S

    def _give_back(self) -> None:
        """Free the disk space of missing bytes; the next run allocates it again."""
        with self.changed:
            spans = self.tracker.spans()
        with contextlib.suppress(OSError, OwnershipLostError):
            self._journal.check_owner()
            self.file.keep_only(spans)

    def _release(self) -> None:
        """Leave a journal for the next run, or remove the files of an empty partial."""
        with self.changed:
            spans = self.tracker.spans()
        if spans:
            self.save(last=True)
            self._volatile.end()
        else:
            self._journal.check_owner()
            self._volatile.end()
            self.file.close()  # Windows cannot remove an open file
            forget(self._artifact)

    def publish(self, size: int) -> FileStat:
        """Rename the verified file to its target.

        Returns:
            The state of the hashed file, just before the rename.

        Raises:
            OSError: the file cannot be synced or renamed.
            OwnershipLostError: another process writes the partial.
        """
        self._stop_threads()
        self.file.truncate(size)
        self.file.sync()
        self._journal.check_owner()
        held = stat_of(self.file.stat())
        self.file.close()  # Windows cannot rename an open file
        self._published = True
        try:
            os.replace(self._artifact.partial, self._artifact.target)
        except OSError:
            self._journal.write(self._state(), ((0, size),), is_last=True)
            raise
        fsync_dir(os.path.dirname(self._artifact.target))
        self._volatile.end()
        forget(self._artifact)
        return held
