"""Read parts of a file on a server as if it were open here, within limits.

The bytes are not verified: only a whole file has a digest.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from tasks.errors import TransferError
from tasks.network import http
from tasks.network.answers import file_size, whole_number

BLOCK = 1 << 20  # bytes of a request
MOST_BLOCKS = 4  # of a file
MOST_S = 60.0  # for a file
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(\d{1,19})")


class Part(NamedTuple):
    """Bytes of a file, and the size of the whole."""

    data: bytes
    size: int | None


# (first byte, byte after the last) → these bytes, fewer at the file's end
Fetch = Callable[[int, int], Part]


def parse_part(answer: http.Response, start: int, stop: int) -> Part:
    """Return the part that a response to a range request has.

    Raises:
        TransferError: it has another part, or none.
    """
    if answer.status == 200:  # the server sent the whole file, which is short
        return Part(answer.body[start:stop], len(answer.body))
    stated = _CONTENT_RANGE.match(answer.headers.get("content-range", ""))
    if answer.status != 206 or not stated or int(stated[1]) != start:
        raise TransferError(f"HTTP {answer.status}, not bytes {start} to {stop - 1}")
    return Part(answer.body[: stop - start], file_size(whole_number(stated[2])))


class RangedFile(io.RawIOBase):
    """A file whose bytes are requested in blocks, each once.

    Beyond the limits it ends, as a file that is cut off.
    """

    def __init__(
        self,
        fetch: Fetch,
        size: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._fetch = fetch
        self._blocks: dict[int, bytes] = {}
        self._clock = clock
        self._end = clock() + MOST_S
        self._at = 0
        self.size = size
        if size is None:
            self._block(0)

    def readable(self) -> bool:
        """Return True, for io's buffers."""
        return True

    def seekable(self) -> bool:
        """Return True, for io's buffers."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position; nothing is requested.

        Raises:
            ValueError: it is before the file's start.
        """
        base = 0
        if whence == io.SEEK_CUR:
            base = self._at
        elif whence == io.SEEK_END:
            base = self.size or 0
        if base + offset < 0:
            raise ValueError(f"there is no byte {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with the bytes of one block; return 0 at the end.

        Raises:
            TransferError: the server does not send them.
        """
        number = self._at // BLOCK
        data = self._block(number)[self._at - number * BLOCK :][: len(buffer)]
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def _block(self, number: int) -> bytes:
        if number in self._blocks:
            return self._blocks[number]
        if len(self._blocks) >= MOST_BLOCKS or self._clock() > self._end:
            return b""
        if self.size is not None and number * BLOCK >= self.size:
            return b""
        part = self._fetch(number * BLOCK, (number + 1) * BLOCK)
        if self.size is None:
            self.size = part.size
        self._blocks[number] = part.data
        return part.data
