"""Serve a model for as long as it is asked: for `bench`, `check` and trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import ResolvedModel
from tasks.catalogue.types import Catalogue
from tasks.errors import ServerError
from tasks.server.load import StoppedError
from tasks.server.server_record import Mode, ServerRecord
from tasks.server.session import serving, specify

Answers = TypeVar("Answers")
# asks a server; the second argument returns a true value when it is to stop
Ask = Callable[[ServerRecord, Callable[[], object]], Answers]


def ask_served(
    environment: Environment,
    catalogue: Catalogue,
    resolved: ResolvedModel,
    port: int,
    ask: Ask[Answers],
) -> tuple[ServerRecord, Answers]:
    """Serve a model, ask it, and stop the server.

    Args:
        port: as of `session.pick_port`.

    Returns:
        The record of the server, and what `ask` returns.

    Raises:
        ServerError: it could not be served, ended by itself, or `ask` failed.
        SystemExit: a signal came (128 + signal).
    """
    spec = specify(environment, catalogue, resolved)
    found = None
    with serving(environment.cache, spec, Mode.WITH, port) as (server, stop):
        if server is not None:
            try:
                found = server.record, ask(server.record, lambda: stop)
                server.check_not_crashed()
            except StoppedError:
                found = None
            except ServerError:
                server.check_not_crashed()
                raise
    if found is None:
        raise SystemExit(128 + stop[0])
    return found
