"""The bytes of a download so far, and the journal that says which of them are there.

`<target>.partial` holds bytes, `<target>.partial.json` says which spans of them count. Data goes to disk
before the claim about it, so that a loss of power costs a second of work; progress is never inferred from
the file's size. What the kernel has been given and the disk may not have yet stands in
`<target>.partial.live`: it counts while the machine is up, so that SIGKILL costs next to nothing.

The journal also says who is writing: where file locks lie, that is what keeps two processes apart, and the
digest and the rename are what keep the target right.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from tasks.catalogue.artifact import Artifact
from tasks.errors import NoRoom
from tasks.system import own_files
from tasks.system.file_stat import FileStat
from tasks.system.files import fsync_dir, is_full, stat_of, write_atomic, write_new
from tasks.system.process_id import Owner
from tasks.system.process_identity import is_alive, myself
from tasks.transfer.journal import Live, _owner_in, _saved, claimed, forget, halves, link, unlink
from tasks.transfer.random_access import open_file
from tasks.transfer.ranges import Plan, Span, count
from tasks.transfer.streaming_hash import Frontier

SAVE_BYTES = (
    128 * 1024**2
)  # work that a loss of power may cost: this much (and what comes while it is saved),
SAVE_S = 1.0  # or this many seconds of it, whichever is less
LOOK_S = 0.05  # between two looks whether it is time
BEAT_S = 5.0  # the journal is written at least so often: other machines see that we live


class TakenOver(Exception):
    """Another process writes this partial now: its journal has another owner."""


class Partial:
    """An open partial file. Use `with`: leaving it saves the claim.

    Args:
        clock: monotonic seconds.

    Attributes:
        plan: which bytes are here; hold `changed` to use it.
        changed: notified when a lane has something to say.
        frontier: the digest, following.
        validator: what If-Range may carry for the bytes that are here.
        answers: how many answers these bytes came from; those of more than one may not fit together.
        restarts: how often what was here had to be dropped.
    """

    def __init__(self, artifact: Artifact, clock: Callable[[], float] = time.monotonic) -> None:
        self._artifact, self._clock = artifact, clock
        claim = claimed(artifact)
        self.changed = threading.Condition()
        self.plan = Plan(artifact.size, claim.spans)
        self.validator = claim.validator
        self.answers = 2 if claim.spans else 0  # what an earlier run left counts as a second one
        self.restarts = 0
        self.error: Exception | None = None  # what saving met; the one who waits raises it
        self._owner = myself()
        self._claimed: tuple[Span, ...] = ()
        self._saved_at = clock()
        self._published = False
        os.makedirs(os.path.dirname(artifact.target), exist_ok=True)
        self._saving = threading.Lock()
        # first: the old claim may be of other bytes; and only for what the disk is known to have
        self._take_over(_saved(artifact).spans)
        self.file = open_file(artifact.partial)
        self._live = Live(artifact.live, self._state)
        self.frontier = self._follow()
        self._closing = threading.Event()
        self._saver = threading.Thread(target=self._keep_saving, name="journal", daemon=True)
        self._saver.start()

    def __enter__(self) -> Partial:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._still()
            if not self._published:
                self._give_back()
                if self.error is None:
                    self._release()
        finally:
            self._live.end(remove=False)  # where the claim could not be saved, this is all that is left
            self.file.close()

    @property
    def done(self) -> int:
        """How many bytes are here."""
        with self.changed:
            return self.plan.done

    @property
    def is_complete(self) -> bool:
        """Whether every byte is here."""
        with self.changed:
            return self.plan.is_complete

    def expect(self, size: int) -> None:
        """The whole file has so many bytes. Raises RecipeError, OSError: the disk has not."""
        with self.changed:
            self.plan.size = size
            taken = max(self.plan.done, self.file.taken())
        check_space(self._artifact, size, taken)
        if self._artifact.sha256 or self._artifact.size:  # else it is only what a server says
            self.file.reserve(size)

    def _edge(self, at: int) -> int:
        with self.changed:
            return self.plan.edge(at)

    def _follow(self) -> Frontier:
        frontier = Frontier(self._edge, self.file.read_into)
        frontier.start()
        return frontier

    def write(self, offset: int, data: memoryview) -> None:
        """Write bytes to their place. Raises OSError."""
        self.file.write(offset, data)
        self._live.moved(len(data))

    def restart(self) -> None:
        """Drop every byte; no lane may be writing. Raises OSError, TakenOver."""
        self.frontier.end()
        with self.changed:
            self.plan.reset(self._artifact.size)
        self.restarts += 1
        self.answers, self.validator = 0, ""
        self._live.end()  # first: what it says is of other bytes
        self._live = Live(self._artifact.live, self._state)
        self.save()
        self.frontier = self._follow()

    def _still(self) -> None:
        """From here on no other thread reads the file or writes a journal."""
        self._closing.set()
        self._saver.join()
        self.frontier.end()

    def discard(self) -> None:
        """Drop every byte for good: leaving removes the files."""
        with self.changed:
            self.plan.reset(None)

    def save(self, last: bool = False) -> None:
        """Claim what is here: first the data to disk, then the claim. Raises OSError, TakenOver.

        Args:
            last: nobody writes the partial any more.
        """
        with self._saving:
            with self.changed:
                spans = self.plan.spans()
            if spans != self._claimed:
                self.file.sync()
            self._check_owner()
            try:
                self._write_journal(spans, None if last else self._owner)
            except FileNotFoundError:  # another one has cleaned up what it took for a dead one's
                raise TakenOver(self._artifact.label) from None
            except OSError as error:
                if last or not is_full(error):
                    raise
                self._saved_at = self._clock()  # the bytes may have their room; the old claim still holds

    def _take_over(self, spans: tuple[Span, ...]) -> None:
        """Become the one who writes, also where file locks lie: renames and links are atomic there too.

        Raises TakenOver: another process was faster.
        """
        path = self._artifact.journal
        new, old = (own_files.temporary_path(path, ending) for ending in (".new.tmp", ".old.tmp"))
        try:
            write_new(new, json.dumps({**self._state(), "spans": spans}))
            with contextlib.suppress(FileNotFoundError):  # of those who find a dead owner's, one gets it
                os.rename(path, old)
            owner = _owner_in(old)
            if owner is not None and is_alive(owner, old):
                link(old, path)
                raise TakenOver(self._artifact.label)
            link(new, path)
        except (FileExistsError, FileNotFoundError):
            raise TakenOver(self._artifact.label) from None
        finally:
            unlink(new)
            unlink(old)
        for half in halves(self._artifact):  # another one's that is about to be linked: it was too slow
            unlink(half)
        self._claimed, self._saved_at = spans, self._clock()

    def _check_owner(self) -> None:
        if _owner_in(self._artifact.journal) != self._owner:
            raise TakenOver(self._artifact.label)

    def _write_journal(self, spans: tuple[Span, ...], owner: Owner | None) -> None:
        write_atomic(self._artifact.journal, json.dumps({**self._state(), "spans": spans, "owner": owner}))
        self._claimed, self._saved_at = spans, self._clock()

    def _state(self) -> dict[str, Any]:
        """Everything a claim says."""
        with self.changed:
            spans, size = self.plan.spans(), self.plan.size
        about = {"sha256": self._artifact.sha256, "size": size, "sources": self._artifact.sources}
        return {**about, "validator": self.validator, "spans": spans, "owner": self._owner}

    def _keep_saving(self) -> None:
        try:
            while not self._closing.wait(LOOK_S):
                idle_s, gained = self._clock() - self._saved_at, self.done - count(self._claimed)
                whole = gained and self.is_complete  # on its way to the disk while the digest is finished
                if whole or gained >= SAVE_BYTES or idle_s >= (SAVE_S if gained else BEAT_S):
                    self.save()
        except (OSError, TakenOver) as error:
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def _give_back(self) -> None:
        """Free what was reserved for bytes that did not come; the next run reserves it again."""
        with self.changed:
            spans = self.plan.spans()
        with contextlib.suppress(OSError, TakenOver):
            self._check_owner()
            self.file.keep_only(spans)

    def _release(self) -> None:
        """Leave a claim for the next run, or nothing where there is nothing to claim."""
        with self.changed:
            spans = self.plan.spans()
        if spans:
            self.save(last=True)
            self._live.end()
        else:
            self._check_owner()
            self._live.end()
            self.file.close()  # Windows removes no open file
            forget(self._artifact)

    def publish(self, size: int) -> FileStat:
        """Give the file its final name; only for bytes that are proven. Raises OSError, TakenOver.

        Returns:
            The state of the file that was hashed, just before it was renamed.
        """
        self._still()
        self.file.truncate(size)
        self.file.sync()
        self._check_owner()
        held = stat_of(self.file.stat())
        self.file.close()  # Windows renames no open file
        self._published = True
        try:
            os.replace(self._artifact.partial, self._artifact.target)
        except OSError:
            self._write_journal(((0, size),), None)
            raise
        fsync_dir(os.path.dirname(self._artifact.target))
        self._live.end()
        forget(self._artifact)
        return held


def check_space(artifact: Artifact, size: int | None, taken: int) -> None:
    """See that the disk has room for the rest of a file.

    Args:
        size: bytes of the whole, None where nobody says.
        taken: bytes that it has of the disk already.

    Raises NoRoom: it has not. OSError: its folder cannot be made.
    """
    import shutil  # these three are for downloads alone

    from tasks.cache.space import SPACE_MARGIN, space_missing
    from tasks.console import formatting

    folder = os.path.dirname(artifact.target)
    os.makedirs(folder, exist_ok=True)
    missing = space_missing(size, taken, shutil.disk_usage(folder).free)
    if missing:
        raise NoRoom(
            f"{artifact.label} does not fit on the disk",
            [
                ("needs", formatting.size((size or 0) - taken)),
                ("missing", formatting.size(missing)),
                ("kept free", formatting.size(SPACE_MARGIN)),
                ("in", folder),
            ],
            fix="free some space, or set LLAMAFILE_CACHE to another disk",
        )
