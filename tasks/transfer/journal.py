"""What has been given to the kernel, noted often: true until the machine starts anew, whatever kills us.

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
from typing import Any

from tasks.system import own_files

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
