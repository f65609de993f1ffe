"""Tell systemd the state of a service, if it asks for that: sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping

VARIABLE = "NOTIFY_SOCKET"
_EXTEND_S = 60  # a start or a stop may take so long from now on
_AGAIN_S = 20.0  # between two extensions


def message(fields: Mapping[str, object]) -> bytes:
    """Return the datagram: a line `NAME=VALUE` for each field."""
    lines = [f"{name}={' '.join(str(value).split())}" for name, value in fields.items()]
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def address(text: str) -> str:
    """Return the address of the socket that NOTIFY_SOCKET names; "" for none.

    @ begins an abstract one. Those of a virtual machine's host are not supported.
    """
    if text.startswith("@") and len(text) > 1:
        return "\0" + text[1:]
    if text.startswith("/"):
        return text
    return ""


def microseconds(seconds: float) -> int:
    """Return the value of EXTEND_TIMEOUT_USEC."""
    return round(seconds * 1_000_000)


def notify(environ: Mapping[str, str], **fields: object) -> None:
    """Send fields to systemd; without it, or if it does not listen, do nothing."""
    path = address(environ.get(VARIABLE, ""))
    family = getattr(socket, "AF_UNIX", None)
    if not path or family is None:
        return
    with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as link:
        link.connect(os.fsencode(path))
        link.send(message(fields))


@contextlib.contextmanager
def extending(environ: Mapping[str, str], status: str) -> Iterator[None]:
    """Extend the time limit of a start for as long as a block runs.

    Args:
        status: what the block does.
    """
    if not address(environ.get(VARIABLE, "")):
        yield
        return
    usec = microseconds(_EXTEND_S)
    notify(environ, STATUS=status, EXTEND_TIMEOUT_USEC=usec)
    ended = threading.Event()

    def extend() -> None:
        while not ended.wait(_AGAIN_S):
            notify(environ, EXTEND_TIMEOUT_USEC=usec)

    thread = threading.Thread(target=extend, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
