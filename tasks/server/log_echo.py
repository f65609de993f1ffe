"""Repeat an engine's output on stderr: `doit serve --log engine`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from tasks import doit_adapter
from tasks.server import logfile

LINE_BYTES = 4096  # a longer line becomes several
_LAST_LINES_S = 5.0  # to write what is left after the engine has ended


@contextmanager
def echo_log(name: str, path: str) -> Iterator[None]:
    """Log each line that is written to an engine's log, from its beginning.

    Args:
        name: of the model.
        path: of the log, which exists.
    """
    ended = Event()
    thread = Thread(target=_echo, args=(name, path, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(_LAST_LINES_S)


def _echo(name: str, path: str, ended: Event) -> None:
    with suppress(OSError):  # the log was removed
        start = logfile.LogPosition(os.stat(path).st_ino, 0)
        blocks = logfile.follow(path, start, lambda: not ended.is_set())
        for line in split_lines(blocks):
            doit_adapter.log_event("engine_output", "%s", line, model=name)


def split_lines(blocks: Iterable[bytes], limit: int = LINE_BYTES) -> Iterator[str]:
    """Yield the lines of a stream, each of at most `limit` bytes.

    A byte that is not UTF-8 becomes a surrogate, which the logger escapes.
    """
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            yield from _parts(line.removesuffix(b"\r"), limit)
        while len(rest) > limit:
            yield _decode(rest[:limit])
            rest = rest[limit:]
    if rest:
        yield from _parts(rest, limit)


def _parts(line: bytes, limit: int) -> Iterator[str]:
    for start in range(0, len(line) or 1, limit):
        yield _decode(line[start : start + limit])


def _decode(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape")
