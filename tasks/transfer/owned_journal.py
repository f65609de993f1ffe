"""The journal of a partial while this process owns it.

Where file locks do not work, the owner in the journal keeps two processes apart. The
journal changes owner by renames and links, which are atomic there, too.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from tasks.catalogue.artifact import Artifact
from tasks.system import own_files
from tasks.system.files import write_atomic, write_new
from tasks.system.process_identity import current, may_be_writing
from tasks.transfer.journal import _owner_in, halves, link, unlink
from tasks.transfer.ranges import Span


class OwnershipLostError(Exception):
    """The journal has another owner: another process writes this partial now."""


class OwnedJournal:
    """The journal of one partial, which lists the bytes that are on disk.

    Args:
        clock: returns monotonic seconds.

    Attributes:
        owner: this process, as in the journal.
        spans: the bytes that the journal lists.
        saved_at: the clock's time of the last attempt to write it.
    """

    def __init__(self, artifact: Artifact, clock: Callable[[], float]) -> None:
        self._artifact = artifact
        self._clock = clock
        self._process = current()
        self.owner = self._process.as_owner()
        self.spans: tuple[Span, ...] = ()
        self.saved_at = clock()

    def take_over(self, state: dict[str, Any], spans: tuple[Span, ...]) -> None:
        """Become the owner of the journal.

        By renames and links, which are atomic also where file locks do not work.

        Args:
            state: the content of the journal, but for the spans.

        Raises:
            OwnershipLostError: another process was faster.
        """
        path = self._artifact.journal
        new = own_files.temporary_path(path, ".new.tmp")
        old = own_files.temporary_path(path, ".old.tmp")
        try:
            write_new(new, json.dumps({**state, "spans": spans}))
            # of several processes that find the journal of a dead owner, one renames it
            with contextlib.suppress(FileNotFoundError):
                os.rename(path, old)
            owner = _owner_in(old)
            if owner is not None and may_be_writing(owner, old):
                link(old, path)
                raise OwnershipLostError(self._artifact.label)
            link(new, path)
        except (FileExistsError, FileNotFoundError):
            raise OwnershipLostError(self._artifact.label) from None
        finally:
            unlink(new)
            unlink(old)
        # a slower process may be about to link one of these
        for half in halves(self._artifact):
            unlink(half)
        self._saved(spans)

    def check_owner(self) -> None:
        """Check that this process owns the journal.

        Raises:
            OwnershipLostError: another process writes the partial.
        """
        if _owner_in(self._artifact.journal) != self._process:
            raise OwnershipLostError(self._artifact.label)

    def write(
        self, state: dict[str, Any], spans: tuple[Span, ...], *, is_last: bool
    ) -> None:
        """Replace the journal.

        Args:
            state: its content, but for the spans.
            is_last: whether this process stops writing the partial.

        Raises:
            OSError: it cannot be written.
        """
        content = {**state, "spans": spans}
        if is_last:
            content["owner"] = None
        write_atomic(self._artifact.journal, json.dumps(content))
        self._saved(spans)

    def postpone(self) -> None:
        """Count as saved, so that the next attempt is later; the old one is valid."""
        self.saved_at = self._clock()

    def _saved(self, spans: tuple[Span, ...]) -> None:
        self.spans = spans
        self.saved_at = self._clock()
