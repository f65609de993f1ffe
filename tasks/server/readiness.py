"""Decide whether a starting server is ready, and wait for it."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from tasks.console import formatting
from tasks.engine.gpu import cpu_fallback, reports_gpu
from tasks.errors import ServerError
from tasks.server import logfile
from tasks.server.client import POLL_S, QUICK_POLL_S, health
from tasks.server.rotating_log import LIMIT
from tasks.server.supervisor_client import SupervisorClient
from tasks.system.ports import listening_ports, port_owner_text
from tasks.system.process_identity import is_running

# a small model is ready within this time, so the server is polled more often
_QUICK_S = 5.0
_PORT_CHECK_S = 1.0  # between two checks of the ports that it listens on
_PROGRESS_S = 10.0  # between two log lines while the model loads
_GPU_LINES_S = 1.0  # until the engine's log has the lines about the GPU

_log = logging.getLogger("recipe")


class Readiness(Enum):
    """The state of a starting server."""

    WAIT = "wait"
    READY = "ready"
    DIED = "died"
    TIMED_OUT = "late"
    PORT_TAKEN = "stranger"  # another program answers on the port
    WRONG_PORT = "hopped"  # it listens on another port than requested


class StartupSample(NamedTuple):
    """A sample of a starting server."""

    exited: int | None  # exit status, negative for a signal; None while it runs
    health: int | None  # status of GET /health; None without a response
    port: int  # the requested port
    # ports that its process listens on; None: not checked, or not known
    ports: frozenset[int] | None
    elapsed_s: float  # since the start


def startup_state(look: StartupSample, timeout_s: float) -> Readiness:
    """Decide a server's state: it answers, its process ended, or time is up.

    A dead process is not waited for (llama-swap#100). A 200 from another process
    does not count: old versions take the next port without notice
    (mozilla-ai/llamafile#54).
    """
    elsewhere = look.ports is not None and look.port not in look.ports
    if look.exited is not None:
        return Readiness.DIED
    if look.health == 200:
        return Readiness.PORT_TAKEN if elsewhere else Readiness.READY
    if look.ports and elsewhere:
        return Readiness.WRONG_PORT
    if look.elapsed_s >= timeout_s:
        return Readiness.TIMED_OUT
    return Readiness.WAIT


def wait_ready(
    name: str,
    child: SupervisorClient,
    host: str,
    port: int,
    timeout_s: float,
    stopped: Callable[[], object],
) -> float | None:
    """Wait until a server accepts requests.

    Args:
        stopped: returns a true value when the user asked to stop.

    Returns:
        Seconds it took; None when the user asked to stop.

    Raises:
        ServerError: it ended, was too late, listens on another port, or another
            server uses its port. It may still run.
    """
    start = time.monotonic()
    reported = start
    checked = start
    while not stopped():
        exited = child.exited()
        status = None
        if exited is None:
            status = health(host, port)
        now = time.monotonic()
        ports = None
        if status == 200 or (exited is None and now - checked >= _PORT_CHECK_S):
            ports = listening_ports(child.pid, port)
            checked = now
        if ports == frozenset() and not is_running(child.pid):
            # it has ended; its supervisor will report that in a moment
            status = None
        state = startup_state(
            StartupSample(exited, status, port, ports, now - start), timeout_s
        )
        if state is Readiness.READY:
            return now - start
        if state is not Readiness.WAIT:
            raise _start_error(name, state, child, port, timeout_s)
        if now - reported >= _PROGRESS_S:
            reported = now
            elapsed = formatting.format_duration(now - start)
            _log.info("%s is loading, %s so far", name, elapsed)
        time.sleep(QUICK_POLL_S if now - start < _QUICK_S else POLL_S)
    return None


def _start_error(
    name: str, state: Readiness, child: SupervisorClient, port: int, timeout_s: float
) -> ServerError:
    from tasks.engine import failures

    ending = child.ending()
    if state is Readiness.DIED:
        if child.stopped_on_request:
            return ServerError(f"{name} was stopped before it was ready")
        what = f"{name} ended before it was ready"
        return failures.engine_error(what, ending, sys.platform)
    if state is Readiness.PORT_TAKEN:
        what = f"another program answers on port {port}{port_owner_text(port)}"
        return ServerError(what, fix="use --port 0 for a free one")
    if state is Readiness.WRONG_PORT:
        what = f"{name} listens on another port than {port}, which another program uses"
        what += port_owner_text(port)
        return ServerError(what, fix="use --port 0 for a free one")
    what = f"{name} was not ready after {formatting.format_duration(timeout_s)}"
    error = failures.engine_error(what, ending, sys.platform)
    fix = error.fix or "allow more time with --timeout SECONDS"
    return ServerError(error.what, error.facts, fix)


def wait_gpu(log: str) -> str:
    """Wait for the lines about the GPU in an engine's log.

    Returns:
        The line that reports the use of the CPU, or an empty string.
    """
    deadline = time.monotonic() + _GPU_LINES_S
    while True:
        output = logfile.tail(log, LIMIT).decode("utf-8", "replace")
        line = cpu_fallback(output)
        if line or reports_gpu(output) or time.monotonic() > deadline:
            return line
        time.sleep(POLL_S)


def check_gpu(name: str, log: str, *, keeps_log: bool) -> None:
    """Check that an engine uses the GPU, by its log.

    Args:
        keeps_log: the log outlives the engine, so that the error can name it.

    Raises:
        ServerError: it runs on the CPU.
    """
    line = wait_gpu(log)
    if not line:
        return
    shown = log if keeps_log else ""
    what = f"{name} was told to use the GPU, but runs on the CPU"
    fix = "fix the GPU's driver, or remove --force-gpu and --gpu"
    raise ServerError(what, [("output", line), ("log", shown)], fix=fix)
