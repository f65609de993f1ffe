"""`doit with … -- COMMAND`: a server for as long as a command runs, which finds it in its environment."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time

from tasks import doit_adapter
from tasks.catalogue.resolve import Job
from tasks.context import Recipe
from tasks.engine.server_record import Mode, Run
from tasks.engine.session import Server, check_start, pick_port, serving
from tasks.errors import ServerError
from tasks.system.processes import TERMINATE_S

_POLL_S = 0.02


def check(recipe: Recipe, job: Job) -> None:
    """Before anything is downloaded for nothing.

    Raises:
        ServerError: it could not be served.
        SystemExit: 127, there is no such command, or 126, it is no program, as a shell says it.
    """
    check_start(recipe, job)
    word = recipe.request.asks[-1].extra[0]
    path = _path(word, recipe.place.cwd)
    if shutil.which(path) is None:
        there = os.path.exists(path) and bool(os.path.dirname(word))
        what = f"this cannot be run: {word}" if there else f"there is no command {word}"
        doit_adapter.say("error", "ERROR: %s", what, level=doit_adapter.ERROR)
        raise SystemExit(126 if there else 127)
    pick_port(recipe, job, any_free=True)


def _path(word: str, cwd: str) -> str:
    """A command as the user means it, in whose directory doit does not stay."""
    return os.path.join(cwd, word) if os.path.dirname(word) else word


def environment(run: Run) -> dict[str, str]:
    """What the command finds: the names that OpenAI's clients read, and two of our own."""
    return {
        "OPENAI_BASE_URL": f"{run.url}/v1",
        "OPENAI_API_KEY": run.key or "none",
        "LLAMAFILE_URL": run.url,
        "LLAMAFILE_MODEL": run.name,
    }


def run(recipe: Recipe, job: Job) -> None:
    """Serve, run the command with the terminal as it is, stop the server whatever happens.

    Raises:
        ServerError: the server could not be started or was not ready in time; the command has not run.
        SystemExit: the command's status, 128 + signal if one ended it.
    """
    words = recipe.request.asks[-1].extra
    with serving(recipe, job, Mode.WITH, any_free=True) as (server, stop):
        status = 128 + stop[0] if server is None else _command(server, words, recipe.place.cwd, stop)
        if doit_adapter.is_json(os.environ):  # people see it in their shell
            doit_adapter.say(
                "command_ended", "%s: status %s", words[0], status, model=job.name, status=status
            )
    if status:
        raise SystemExit(status)


def _command(server: Server, words: tuple[str, ...], cwd: str, stop: list[int]) -> int:
    """The command's status. A signal that asks us to end is handed on to it, and then it has some time."""
    env = {**os.environ, **environment(server.run)}
    try:
        child = subprocess.Popen((_path(words[0], cwd), *words[1:]), env=env, cwd=cwd)
    except OSError as error:
        text = error.strerror or str(error)
        doit_adapter.say("error", "ERROR: cannot run %s: %s", words[0], text, level=doit_adapter.ERROR)
        return 126
    told, deadline = 0, float("inf")
    while child.poll() is None:
        if len(stop) > told:
            _hand_on(child, stop[told])
            told += 1
            deadline = time.monotonic() + TERMINATE_S if stop[told - 1] != signal.SIGINT else deadline
        if time.monotonic() > deadline:
            child.kill()
        time.sleep(_POLL_S)
    try:
        server.check_lived()
    except ServerError as error:
        doit_adapter.log().warning("warning: the command was left without its server: %s", error)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _hand_on(child: subprocess.Popen[bytes], number: int) -> None:
    """Ctrl-C has reached the command already, from the terminal; one that another process sent has not."""
    if number != signal.SIGINT or not _has_terminal():
        child.send_signal(number)


def _has_terminal() -> bool:
    try:
        with open(os.ctermid(), "rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except (OSError, AttributeError):
        return False
