"""Hash a file while it is downloaded, in a thread that follows its first gap.

Every byte is hashed once. Blocks that arrive in order are hashed from memory; bytes
from an earlier run or from another connection are read from the file.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from errno import EIO

# bytes: a block stays in the processor's cache from the socket to file and digest
BLOCK = 256 * 1024
# bytes: the most that wait in memory to be hashed
WINDOW = 4 * 1024**2
# bytes of one read from the file: larger, as each read waits for the interpreter lock
READ_BACK = 1024**2


class StreamingHasher(threading.Thread):
    """A thread that computes the digest of a growing file.

    Args:
        edge: returns the first missing byte from an offset on.
        read_into: fills a view from an offset of the file; returns the byte count.

    Attributes:
        at: the number of hashed bytes.
        error: the error that ended the thread, None without one.
    """

    def __init__(
        self, edge: Callable[[int], int], read_into: Callable[[int, memoryview], int]
    ) -> None:
        super().__init__(name="sha256", daemon=True)
        self.at = 0
        self.error: Exception | None = None
        self._edge, self._read_into = edge, read_into
        self._digest = hashlib.sha256()
        self._fresh: dict[int, memoryview] = {}
        # a stack: the buffer that was used last is still in the processor's cache
        self._spare: list[memoryview] = []
        self._back = memoryview(bytearray(READ_BACK))
        self._wake = threading.Condition()
        self._ending = False

    def buffer(self) -> memoryview:
        """Return a buffer of BLOCK bytes to fill; `offer` takes it back."""
        try:
            return self._spare.pop()
        except IndexError:
            return memoryview(bytearray(BLOCK))

    def submit(self, offset: int, buffer: memoryview, length: int) -> None:
        """Take bytes that have been written to the file, and own their buffer."""
        with self._wake:
            if (
                self.at <= offset < self.at + WINDOW
                and len(self._fresh) * BLOCK < WINDOW
            ):
                self._fresh[offset] = buffer[:length]
            else:
                self._spare.append(buffer)
            self._wake.notify()

    def wait(self, size: int, timeout_s: float) -> bool:
        """Return whether `size` bytes are hashed, after at most `timeout_s` seconds.

        Raises:
            Exception: the error that ended the thread.
        """
        with self._wake:
            self._wake.notify()
            self._wake.wait_for(lambda: self.at >= size or self.error, timeout_s)
        if self.error:
            raise self.error
        return self.at >= size

    def hexdigest(self) -> str:
        """Return the digest of the first `at` bytes."""
        return self._digest.hexdigest()

    def close(self) -> None:
        """Stop the thread, and wait until it no longer reads the file."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        self.join()

    def run(self) -> None:
        """Hash the next bytes until `end` is called."""
        try:
            while (block := self._next()) is not None:
                self._digest.update(block)
                with self._wake:
                    self.at += len(block)
                    if block.obj is not self._back.obj:
                        self._spare.append(memoryview(block.obj))
                    self._wake.notify_all()
        except Exception as error:  # `wait` raises it
            self.error = error
            with self._wake:
                self._wake.notify_all()

    def _next(self) -> memoryview | None:
        """Wait for the next bytes and return them; None after `end`."""
        with self._wake:
            while not self._ending:
                if self.at in self._fresh:
                    return self._fresh.pop(self.at)
                end = self._edge(self.at)
                if end > self.at:
                    break
                self._wake.wait(0.5)
            else:
                return None
            # these were read from the file meanwhile
            for offset in [o for o in self._fresh if o < self.at]:
                del self._fresh[offset]
            end = min([end, self.at + READ_BACK, *self._fresh])
        count = self._read_into(self.at, self._back[: end - self.at])
        if not count:
            raise OSError(EIO, f"the file ends at {self.at}, expected at least {end}")
        return self._back[:count]
