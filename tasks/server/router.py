"""Talk to a running router: states of its models, load, unload, reload."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote

from tasks.engine import failures
from tasks.engine.router_launch import recorded_names
from tasks.errors import ServerError
from tasks.network.answers import parse_json, requests_in_metrics
from tasks.server import logfile, router_state
from tasks.server.client import POLL_S, QUICK_POLL_S, send_request
from tasks.server.router_state import ModelState, RoutedModel
from tasks.server.server_record import ServerRecord
from tasks.system.exit_status import ProcessExit

LOG_BYTES = 256 * 1024  # of the router's log, in which a model's output is looked for
LOAD_S = 600.0  # the longest time in which a model is loaded
_ANSWER_S = 10.0
# between two looks at the models that are kept
KEEP_S = 5.0


class Router(NamedTuple):
    """The address of a router, and the key for it."""

    host: str
    port: int
    key: str = ""
    names: tuple[str, ...] = ()  # of its models; empty: whatever it lists

    @staticmethod
    def of(record: ServerRecord) -> Router:
        """Return the router of a server record, with the models of that record."""
        names = tuple(recorded_names(record.spec))
        return Router(record.host, record.port, record.key, names)

    def models(self) -> tuple[RoutedModel, ...] | None:
        """Return the models and their states; None without a valid response."""
        response = self._send("/models")
        if response is None or response[0] != 200:
            return None
        models = router_state.parse_models(response[1])
        if models is None or not self.names:
            return models
        listed = {model.name: model for model in models}
        return tuple(listed[name] for name in self.names if name in listed)

    def touch(self, name: str, timeout_s: float = LOAD_S) -> bool:
        """Load a model, and let the router count it as just used.

        A request waits until another model is idle and is unloaded. POST /models/load
        unloads one at once, even one that is answering.

        Returns:
            Whether it is loaded.
        """
        body = {"model": name, "content": ""}
        response = self._send("/tokenize", body, timeout_s)
        return response is not None and response[0] == 200

    def busy(self, name: str) -> int | None:
        """Count the requests that a model is processing.

        GET /slots would keep an idle model in memory, and load one that sleeps.

        Returns:
            1 for a model that is too busy to answer; None where it is not told.
        """
        query = f"model={quote(name, safe='')}&autoload=false"
        response = self._send(f"/metrics?{query}")
        if response is None:
            return 1
        if response[0] != 200:
            return None
        return requests_in_metrics(response[1])

    def requests(self) -> int | None:
        """Count the requests in progress; None without a valid response.

        A model that is being loaded counts as one, as a request may wait for it.
        """
        models = self.models()
        if models is None:
            return None
        loaded = [one.name for one in models if one.state is ModelState.LOADED]
        loading = [one.name for one in models if one.state is ModelState.LOADING]
        return len(loading) + sum(self.busy(name) or 0 for name in loaded)

    def unload(self, name: str) -> bool:
        """Unload a model; return whether the router accepts that."""
        response = self._send("/models/unload", {"model": name})
        return response is not None and response[0] == 200

    def reload(self) -> str:
        """Let the router read its preset file again.

        It ends the models whose sections have changed, without waiting for their
        answers. The other models go on.

        Returns:
            Why it rejects the file and keeps its settings; empty if it has read it.
        """
        response = self._send("/models?reload=1", timeout_s=LOAD_S)
        if response is None:
            return "it did not answer"
        if response[0] != 200:
            return _message(response[1])
        return ""

    def _send(
        self, path: str, body: object = None, timeout_s: float = _ANSWER_S
    ) -> tuple[int, bytes] | None:
        return send_request(
            self.host, self.port, path, body=body, key=self.key, timeout_s=timeout_s
        )


def wait_kept(
    record: ServerRecord,
    keep: Collection[str],
    timeout_s: float,
    stopped: Callable[[], object],
) -> bool:
    """Wait until every kept model of a router is loaded.

    A router reports that it is healthy even where every model fails.

    Args:
        keep: names of these models.
        stopped: returns a true value when the user asked to stop, or the router ended.

    Returns:
        False when `stopped` returned a true value.

    Raises:
        ServerError: one failed to load, or time is up.
    """
    router = Router.of(record)._replace(names=())
    start = time.monotonic()
    while not stopped():
        models = router.models()
        states = {model.name: model.state for model in models or ()}
        waiting = [name for name in keep if states.get(name) is not ModelState.LOADED]
        for model in models or ():
            if model.name in keep and model.state is ModelState.FAILED:
                raise load_error(record, model)
        if models is not None and not waiting:
            return True
        elapsed = time.monotonic() - start
        if elapsed >= timeout_s:
            what = f"{record.name} was not ready in time"
            facts = [("not loaded", ", ".join(waiting)), ("log", record.log)]
            raise ServerError(what, facts, "allow more time with --timeout SECONDS")
        time.sleep(QUICK_POLL_S if elapsed < 1 else POLL_S)
    return False


def load_error(record: ServerRecord, model: RoutedModel) -> ServerError:
    """Return the error for a model that failed to load, with its last output."""
    what = f"{model.name} of {record.name} failed to load"
    output = output_of(record, model.name)
    ending = ProcessExit([os.path.basename(record.command[0])], None, output)
    ended = ""
    if model.exit_code is not None:
        ended = f"exit status {model.exit_code}"
    facts = [("ended", ended), ("output", output), ("log", record.log)]
    return ServerError(what, facts, fix=failures.remedy(ending, sys.platform))


def output_of(record: ServerRecord, name: str) -> str:
    """Return the last lines that a model's process wrote to the router's log."""
    log = logfile.tail(record.log, LOG_BYTES).decode("utf-8", "replace")
    clean = "".join(c for c in log if c in "\n\t" or c.isprintable())
    return router_state.failed_output(clean, name)


def keep_loaded(
    router: Router, models_max: int, ended: Callable[[float], bool]
) -> None:
    """Keep the kept models loaded until the router has ended.

    Args:
        models_max: the most models that the router loads.
        ended: waits for that many seconds; returns whether the router has ended.
    """
    while not ended(KEEP_S):
        for name in router_state.to_touch(router.models() or (), models_max):
            router.touch(name)


def _message(body: bytes) -> str:
    """Return the message of an answer with an error."""
    with suppress(ValueError, KeyError, TypeError):
        return str(parse_json(body)["error"]["message"])
    return body.decode("utf-8", "replace")[:500]
