"""`doit with … -- COMMAND`: run a server for as long as a command runs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from tasks import doit_adapter, urls
from tasks.catalogue.endpoints import ResolvedEndpoint, Servable
from tasks.console.log_format import is_json
from tasks.context import Context
from tasks.engine.router_launch import recorded_context, recorded_names
from tasks.errors import ServerError
from tasks.positional import quoted
from tasks.server.client import served_context
from tasks.server.client_environment import AGENT_CONTEXT, agent_of, client_variables
from tasks.server.server_record import Mode, ServerRecord
from tasks.server.session import ManagedServer, check_start, pick_port, serving, specify
from tasks.system.processes import TERMINATE_S

_POLL_S = 0.02


def check(context: Context, resolved: Servable) -> None:
    """Check that server and command can run, before anything is downloaded.

    Raises:
        ServerError: the model cannot be served, or the command is an agent and the
            model does not chat.
        SystemExit: as a shell's: 127, there is no such command, or 126, it is not a
            program.
    """
    cache = context.environment.cache
    _check_agent(context.command_line.tasks[-1].extra, resolved)
    check_start(cache, resolved, context.download_policy())
    word = context.command_line.tasks[-1].extra[0]
    path = _path(word, context.environment.cwd)
    if shutil.which(path) is None:
        status = 127
        what = f"there is no command {word or repr(word)}"
        fix = "correct its name, or add its folder to PATH"
        if os.path.dirname(word) and os.path.exists(path):
            status = 126
            what = f"this cannot be run: {word}"
            fix = f"chmod +x {quoted(word)}, or put its interpreter before it"
        error = ServerError(what, fix=fix)
        doit_adapter.log_event("error", "ERROR: %s", error, level=doit_adapter.ERROR)
        raise SystemExit(status)
    pick_port(cache, resolved.settings.host, resolved.port_to_try(any_free=True))


def _check_agent(words: Sequence[str], resolved: Servable) -> None:
    """Check that a coding agent gets a model that chats.

    Raises:
        ServerError: it is of another kind.
    """
    agent = agent_of(words)
    if isinstance(resolved, ResolvedEndpoint):
        resolved = resolved.default
    kind = resolved.model.kind
    if agent and kind != "chat":
        what = f"{agent} needs a chat model, and {resolved.name} is of kind: {kind}"
        fix = "`doit catalogue --kind chat` lists the chat models"
        raise ServerError(what, fix=fix)


def _path(word: str, cwd: str) -> str:
    """Return a command's path from the user's directory: doit changes its own."""
    if os.path.dirname(word):
        return os.path.join(cwd, word)
    return word


def environment(record: ServerRecord, context: int | None) -> dict[str, str]:
    """Return the variables with which the command finds the server.

    Args:
        context: tokens; None if unknown.
    """
    model = record.spec.get("--alias", record.name)
    return client_variables(record.url, record.key, model, context)


def _warn_of_context(
    record: ServerRecord, words: Sequence[str], context: int | None
) -> None:
    """Warn of a context that is too small for a coding agent."""
    agent = agent_of(words)
    if not agent or context is None or context >= AGENT_CONTEXT:
        return
    name = record.name
    what = (
        f"{agent} needs a context of {AGENT_CONTEXT} tokens, and {name} has {context}"
    )
    command = " ".join(map(quoted, words))
    fix = f"doit with --model {name} --ctx-size {AGENT_CONTEXT} -- {command}"
    if recorded_names(record.spec):
        model = record.spec.get("--alias", name)
        fix = f"set ctx_size: {AGENT_CONTEXT} in `serve:` of models.{model}"
    doit_adapter.log().warning("warning: %s\n  fix: %s", what, fix)


def run(context: Context, resolved: Servable) -> None:
    """Serve the model, run the command in this terminal, and stop the server.

    Raises:
        ServerError: the server could not be started or was not ready in time; the
            command has not run.
        SystemExit: the command's status; 128 + signal if a signal ended it.
    """
    words = context.command_line.tasks[-1].extra
    spec = specify(context.environment, context.catalogue, resolved)
    port = resolved.port_to_try(any_free=True)
    with serving(context.environment.cache, spec, Mode.WITH, port) as (server, stop):
        status = _status(server, words, context.environment.cwd, stop)
        if is_json(os.environ):
            text = "%s: status %s"
            about: dict[str, Any] = {"model": resolved.name, "status": status}
            doit_adapter.log_event("command_ended", text, words[0], status, **about)
    if status:
        if not (stop or is_json(os.environ)):
            doit_adapter.log().error("%s failed with status %s", words[0], status)
        raise SystemExit(status)


def _status(
    server: ManagedServer | None, words: tuple[str, ...], cwd: str, stop: list[int]
) -> int:
    """Run the command, unless a signal came before the server was ready."""
    if server is None:
        return 128 + stop[0]
    return _command(server, words, cwd, stop)


def _command(
    server: ManagedServer, words: tuple[str, ...], cwd: str, stop: list[int]
) -> int:
    """Run the command and return its status.

    Signals are forwarded to it. After one that asks to end it has TERMINATE_S seconds.
    """
    record = server.record
    proxy = urls.no_proxy(os.environ, record.host)
    context = recorded_context(record.spec) or served_context(record)
    _warn_of_context(record, words, context)
    env = {**os.environ, **proxy, **environment(record, context)}
    try:
        child = subprocess.Popen((_path(words[0], cwd), *words[1:]), env=env, cwd=cwd)
    except OSError as error:
        what = f"cannot run {words[0]}: {error.strerror or error}"
        doit_adapter.log_event("error", "ERROR: %s", what, level=doit_adapter.ERROR)
        return 126
    forwarded = 0
    deadline = float("inf")
    while child.poll() is None:
        if len(stop) > forwarded:
            _forward(child, stop[forwarded])
            if stop[forwarded] != signal.SIGINT:
                deadline = time.monotonic() + TERMINATE_S
            forwarded += 1
        if time.monotonic() > deadline:
            child.kill()
        time.sleep(_POLL_S)
    try:
        server.check_not_crashed()
    except ServerError as error:
        text = "warning: the server ended before the command: %s"
        doit_adapter.log().warning(text, error)
    if child.returncode < 0:
        return 128 - child.returncode
    return child.returncode


def _forward(child: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the command, unless the terminal has sent it Ctrl-C."""
    if number != signal.SIGINT or not _has_terminal():
        child.send_signal(number)


def _has_terminal() -> bool:
    try:
        with open(os.ctermid(), "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except (OSError, AttributeError):
        return False
