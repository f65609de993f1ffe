"""Let the embedded engine finish its answers: accept no further request, and wait.

xllamacpp has no call for this, and its HTTP server cuts streams once its listening
socket is closed or shut down. So the descriptor that it listens on becomes a private
socket, and what arrives at the old one is answered with 503. Only Linux: elsewhere an
accept(2) in progress may fail, so the engine accepts requests until it ends.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

_POLL_S = 0.1
_IDLE_POLLS = 2  # between two requests that wait for a slot, none may be busy
_ANSWER_S = 2.0  # for /slots
_WAKES = 5
_WAKE_S = 0.2
_REFUSE_S = 2.0  # for a client to send its request
_BLOCK = 64 * 1024
_BODY = json.dumps(
    {
        "error": {
            "code": 503,
            "message": "the server is stopping",
            "type": "unavailable_error",
        }
    }
)
_REFUSAL = (
    "HTTP/1.1 503 Service Unavailable\r\n"
    "Content-Type: application/json\r\n"
    f"Content-Length: {len(_BODY)}\r\n"
    "Retry-After: 1\r\n"
    "Connection: close\r\n"
    f"\r\n{_BODY}"
).encode()


def catch(signals: Iterable[int]) -> list[int]:
    """Note SIGTERM; any other signal, and a second one, ends the process at once.

    Not through the engine's destructor, which may block forever.

    Returns:
        The signals that were received, also later.
    """
    received: list[int] = []

    def receive(number: int, _: object) -> None:
        received.append(number)
        if number != signal.SIGTERM or len(received) > 1:
            os._exit(0)

    for one in signals:
        signal.signal(one, receive)
    return received


def wait_for(received: Sequence[int]) -> None:
    """Wait for the first signal."""
    while not received:
        # short, because a signal does not end the sleep
        time.sleep(_POLL_S)


def finish_answers(host: str, port: int, keys: Sequence[str]) -> None:
    """Return when the engine of this process works on no request.

    An engine that does not serve /slots is not waited for.
    """
    private = None
    with suppress(OSError):
        private = take_port(port)
    if private is None:
        private = (host, port)
    idle = 0
    while idle < _IDLE_POLLS:
        idle += 1
        if _is_busy(private, keys):
            idle = 0
        time.sleep(_POLL_S)


def take_port(port: int, platform: str = sys.platform) -> tuple[str, int] | None:
    """Answer on the engine's port in its place, from now on with 503.

    Returns:
        The private address of the engine; None where this is not possible.
    """
    if platform != "linux":
        return None
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        listener = _listener(number, port)
        if listener is None:
            continue
        address: tuple[str, int]
        with socket.create_server(("127.0.0.1", 0), backlog=128) as private:
            address = private.getsockname()
            os.dup2(private.fileno(), number)
        _wake(listener, address)
        threading.Thread(target=_refuse_all, args=(listener,), daemon=True).start()
        return address
    return None


def _wake(listener: socket.socket, private: tuple[str, int]) -> None:
    """Let the engine's thread accept one more connection from its old socket.

    It takes the next one from its private socket, which proves that it has the old one
    no longer. An engine with much work may answer late, so the proof has a time limit.
    """
    for _ in range(_WAKES):
        with suppress(OSError):
            socket.create_connection(listener.getsockname()[:2], _WAKE_S).close()
        with suppress(OSError, http.client.HTTPException):
            link = http.client.HTTPConnection(*private, timeout=_WAKE_S)
            link.request("GET", "/health")
            link.getresponse()
            link.close()
            return


def _listener(number: int, port: int) -> socket.socket | None:
    """Return a copy of a descriptor that listens on a port; None for any other."""
    try:
        copy = socket.socket(fileno=os.dup(number))
    except OSError:  # it is not a socket, or was closed meanwhile
        return None
    if copy.family in (socket.AF_INET, socket.AF_INET6):
        listens = copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if listens and copy.getsockname()[1] == port:
            return copy
    copy.close()
    return None


def _refuse_all(listener: socket.socket) -> None:
    while True:
        with suppress(OSError):
            link, _ = listener.accept()
            threading.Thread(target=_refuse, args=(link,), daemon=True).start()


def _refuse(link: socket.socket) -> None:
    with link, suppress(OSError):
        link.settimeout(_REFUSE_S)
        link.recv(_BLOCK)
        link.sendall(_REFUSAL)
        link.shutdown(socket.SHUT_WR)
        # to close with unread data would reset the connection before the 503 is read
        while link.recv(_BLOCK):
            pass


def _is_busy(address: tuple[str, int], keys: Sequence[str]) -> bool:
    """Return whether a slot is busy, or the engine is too busy to answer."""
    link = http.client.HTTPConnection(*address, timeout=_ANSWER_S)
    headers = {}
    if keys:
        headers["Authorization"] = f"Bearer {keys[0]}"
    try:
        link.request("GET", "/slots", headers=headers)
        response = link.getresponse()
        if response.status != 200:
            return False
        return any(slot["is_processing"] for slot in json.loads(response.read()))
    except TimeoutError:
        return True
    except (OSError, ValueError, LookupError, TypeError, http.client.HTTPException):
        return False
    finally:
        link.close()
