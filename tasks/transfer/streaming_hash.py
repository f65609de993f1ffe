"""SHA-256 of a file while it arrives: a thread that follows the lowest byte that is not here yet.

Every byte is hashed once. Blocks that arrive at the frontier are hashed from memory, what lies there
already (after a resume, or from other lanes) is read back.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from errno import EIO

BLOCK = 256 * 1024  # bytes: stays in the processor's cache between the socket, the file and the digest
WINDOW = 4 * 1024**2  # bytes that wait in memory to be hashed, at most
READ_BACK = 1024**2  # bytes read back at once: more, because each turn waits for the interpreter's lock


class Frontier(threading.Thread):
    """The digest so far.

    Args:
        edge: the first byte from an offset on that is not in the file.
        read_into: fill a view from an offset of the file; how many bytes there were.

    Attributes:
        at: bytes hashed.
        error: what ended it, if something did.
    """

    def __init__(self, edge: Callable[[int], int], read_into: Callable[[int, memoryview], int]) -> None:
        super().__init__(name="sha256", daemon=True)
        self.at = 0
        self.error: Exception | None = None
        self._edge, self._read_into = edge, read_into
        self._digest = hashlib.sha256()
        self._fresh: dict[int, memoryview] = {}
        self._spare: list[memoryview] = []  # used as a stack: the buffer used last is still in the cache
        self._back = memoryview(bytearray(READ_BACK))
        self._wake = threading.Condition()
        self._ending = False

    def buffer(self) -> memoryview:
        """A buffer of BLOCK bytes to fill; `offer` takes it back."""
        try:
            return self._spare.pop()
        except IndexError:
            return memoryview(bytearray(BLOCK))

    def offer(self, offset: int, buffer: memoryview, length: int) -> None:
        """The file has these bytes now, and the buffer is no longer the caller's."""
        with self._wake:
            if self.at <= offset < self.at + WINDOW and len(self._fresh) * BLOCK < WINDOW:
                self._fresh[offset] = buffer[:length]
            else:
                self._spare.append(buffer)
            self._wake.notify()

    def wait(self, size: int, timeout_s: float) -> bool:
        """Whether `size` bytes are hashed; waits at most so long. Raises what ended the thread."""
        with self._wake:
            self._wake.notify()
            self._wake.wait_for(lambda: self.at >= size or self.error, timeout_s)
        if self.error:
            raise self.error
        return self.at >= size

    def hexdigest(self) -> str:
        """The digest of the first `at` bytes."""
        return self._digest.hexdigest()

    def end(self) -> None:
        """Stop, and wait until the file is no longer read."""
        with self._wake:
            self._ending = True
            self._wake.notify()
        self.join()

    def run(self) -> None:
        """Follow the frontier until told to end."""
        try:
            while (block := self._next()) is not None:
                self._digest.update(block)
                with self._wake:
                    self.at += len(block)
                    if block.obj is not self._back.obj:
                        self._spare.append(memoryview(block.obj))
                    self._wake.notify_all()
        except Exception as error:  # handed to whoever waits
            self.error = error
            with self._wake:
                self._wake.notify_all()

    def _next(self) -> memoryview | None:
        """The next bytes, as soon as there are any; None at the end."""
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
            for offset in [o for o in self._fresh if o < self.at]:  # passed while reading back
                del self._fresh[offset]
            end = min([end, self.at + READ_BACK, *self._fresh])
        count = self._read_into(self.at, self._back[: end - self.at])
        if not count:
            raise OSError(EIO, f"the file ends at {self.at}, expected at least {end}")
        return self._back[:count]
