"""A sitecustomize.py: a Python process that finds it on PYTHONPATH opens no socket, and tells if it tried.

NO_SOCKETS is the file that is told; ALLOW_LOOPBACK=1 lets this machine be reached.
Source: docs.python.org, audit events table.
"""

from __future__ import annotations

import os
import sys

_ASKING = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
_REACHING = ("socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg")
_HERE = ("127.", "::1", "localhost")


def _forbid(event: str, args: tuple[object, ...]) -> None:
    if event in _REACHING:
        where = args[1]
        host = where[0] if isinstance(where, tuple) else where
    elif event in _ASKING:
        host = args[0]
    else:
        return
    if os.environ.get("ALLOW_LOOPBACK") and str(host).startswith(_HERE):
        return
    with open(os.environ["NO_SOCKETS"], "a", encoding="utf-8") as file:
        file.write(f"{event} {host!r} by {sys.argv}\n")
    raise PermissionError(f"{event} {host!r} is forbidden")


if os.environ.get("NO_SOCKETS"):
    sys.addaudithook(_forbid)
