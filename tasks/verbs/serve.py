"""`doit serve`: run an OpenAI-compatible server in the foreground, until Ctrl-C."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from tasks import doit_adapter
from tasks.catalogue.endpoints import Servable
from tasks.context import Context
from tasks.errors import UsageError, did_you_mean
from tasks.server import messages
from tasks.server.server_record import Mode
from tasks.server.session import check_start, pick_port, serving, specify
from tasks.system import sd_notify

_LOGS = ("quiet", "engine")  # values of --log
_WATCH_S = 0.2  # between two checks of a running engine
_STOP_S = 20  # the steps of a stop, after the last answer


def shows_engine(context: Context) -> bool:
    """Return whether the engine's output is shown: --log, else without a terminal.

    Raises:
        UsageError: --log has another value.
    """
    options: Mapping[str, Any] = {}
    if context.command_line.tasks:
        options = context.command_line.tasks[-1].options
    log = options.get("log")
    if log is None:
        return not (sys.stderr and sys.stderr.isatty())
    if log not in _LOGS:
        what = f"--log: expected {' or '.join(_LOGS)}, got {log!r}"
        raise UsageError(what, fix=did_you_mean(log, _LOGS) or "--log engine")
    return bool(log == "engine")


def _notify(**fields: object) -> None:
    """Tell systemd, where `doit serve` is a service of the type `notify`."""
    sd_notify.notify(os.environ, **fields)


def check(context: Context, resolved: Servable) -> None:
    """Check that the model can be served, before anything is downloaded.

    Raises:
        ServerError: it cannot.
    """
    cache = context.environment.cache
    check_start(cache, resolved, context.download_policy())
    pick_port(cache, resolved.settings.host, resolved.port_to_try(any_free=False))


def run(context: Context, resolved: Servable, echo: bool) -> None:
    """Start the engine, report when it is ready, and stop it when asked to.

    Args:
        echo: show the engine's output.

    Raises:
        ServerError: it could not be started, was not ready in time, or ended by itself.
        SystemExit: it was stopped before it was ready (128 + signal).
    """
    spec = specify(context.environment, context.catalogue, resolved)
    port = resolved.port_to_try(any_free=False)
    cache = context.environment.cache
    loading = sd_notify.microseconds(spec.settings.timeout)
    _notify(STATUS=f"loading {spec.name}", EXTEND_TIMEOUT_USEC=loading)
    with serving(cache, spec, Mode.SERVE, port, echo=echo) as (server, stop):
        if server is not None:
            usage = messages.ready_text(resolved, server.record, "Ctrl-C")
            doit_adapter.log_for_people(usage)
            _notify(READY=1, STATUS=f"{spec.name} is ready at {server.record.url}")
            while not stop and not server.ended_by_stop():
                server.check_alive()
                time.sleep(_WATCH_S)
        stopping = sd_notify.microseconds(spec.drain + _STOP_S)
        _notify(
            STOPPING=1, STATUS=f"stopping {spec.name}", EXTEND_TIMEOUT_USEC=stopping
        )
    if server is None:
        raise SystemExit(128 + stop[0])
