"""Let a running router serve other models, without cutting an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from tasks.console import formatting
from tasks.engine.router_launch import ALIAS_KEY, CHAT_KEY, KEEP_KEY, MODEL_KEY
from tasks.engine.router_preset import Member
from tasks.errors import ServerError
from tasks.server import router_state
from tasks.server.client import POLL_S
from tasks.server.router import Router, wait_kept
from tasks.server.router_state import ModelState
from tasks.server.server_record import ServerRecord

# settings of a record that the router takes over; for others it has to be restarted
_TAKEN_OVER = ("model", ALIAS_KEY, CHAT_KEY, KEEP_KEY, "--alias")


def needs_restart(names: Collection[str]) -> list[str]:
    """Return the settings that a running router cannot take over."""
    return [
        name
        for name in names
        if name not in _TAKEN_OVER and not name.startswith(MODEL_KEY)
    ]


def changed_models(before: Mapping[str, str], after: Mapping[str, str]) -> set[str]:
    """Return the models whose sections differ, or that are new or removed.

    Args:
        before: settings of the record; `after`: those of now.
    """
    keys = {key for key in {**before, **after} if key.startswith(MODEL_KEY)}
    changed = {
        key.removeprefix(MODEL_KEY) for key in keys if before.get(key) != after.get(key)
    }
    changed |= _words(before, KEEP_KEY) ^ _words(after, KEEP_KEY)
    pairs = _words(before, ALIAS_KEY) ^ _words(after, ALIAS_KEY)
    return changed | {pair.partition("=")[2] for pair in pairs}


def _words(spec: Mapping[str, str], key: str) -> set[str]:
    return {word for word in spec.get(key, "").split(", ") if word}


def reload(
    record: ServerRecord,
    members: Collection[Member],
    changed: Collection[str],
    timeout_s: float,
    stopped: Callable[[], object],
) -> bool:
    """Let a router read its preset file again, once the changed models are idle.

    The router ends a changed model at once, also in the middle of an answer. A request
    that arrives between the last look and that end can be lost.

    Args:
        members: all models, as they are in the file.
        changed: names of those that are not as the router has them.
        timeout_s: for the answers in progress, and again for loading.
        stopped: returns a true value when the user asked to stop.

    Returns:
        False when the user asked to stop.

    Raises:
        ServerError: a model is still answering, or the router does not accept the file.
    """
    # it may have other models afterwards
    router = Router.of(record)._replace(names=())
    if not _wait_idle(record, changed, timeout_s, stopped):
        return False
    _read_file(record, router)
    # it does not read other names of a model that runs
    renamed = router_state.renamed(router.models() or (), members)
    if not _wait_idle(record, renamed, timeout_s, stopped):
        return False
    for name in renamed:
        router.unload(name)
        _wait_unloaded(router, name, timeout_s)
    if renamed:
        _read_file(record, router)
    for model in router.models() or ():
        if model.kept and model.state is ModelState.UNLOADED:
            router.touch(model.name, timeout_s)
    keep = [member.name for member in members if member.keep]
    return wait_kept(record, keep, timeout_s, stopped)


def _read_file(record: ServerRecord, router: Router) -> None:
    if reason := router.reload():
        what = f"{record.name} goes on as before: llama-server does not accept its"
        what += " preset file"
        raise ServerError(what, [("answer", reason), ("log", record.log)])


def _wait_idle(
    record: ServerRecord,
    names: Collection[str],
    timeout_s: float,
    stopped: Callable[[], object],
) -> bool:
    router = Router.of(record)._replace(names=())
    deadline = time.monotonic() + timeout_s
    while not stopped():
        busy = router_state.busy_models(router.models() or (), names, router.busy)
        if not busy:
            return True
        if time.monotonic() >= deadline:
            limit = formatting.format_duration(timeout_s)
            what = f"{record.name} goes on as before: {', '.join(busy)} still answers"
            fix = "allow more time with --timeout SECONDS"
            raise ServerError(f"{what} after {limit}", fix=fix)
        time.sleep(POLL_S)
    return False


def _wait_unloaded(router: Router, name: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        models = router.models() or ()
        states = {model.name: model.state for model in models}
        if states.get(name, ModelState.UNLOADED) in router_state.ENDED:
            return
        time.sleep(POLL_S)
