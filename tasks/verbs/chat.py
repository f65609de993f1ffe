"""`doit chat`: ask a model, with a server that runs or with one that runs as long as the conversation."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys

from tasks import doit_adapter
from tasks.catalogue.resolve import Job
from tasks.console.text import PROSE
from tasks.context import Recipe
from tasks.engine.server_record import Mode, Run
from tasks.engine.session import check_start, pick_port, serving
from tasks.errors import ServerError

_HINT = "Ctrl-C stops an answer, Ctrl-D ends the conversation."


def check(recipe: Recipe, job: Job) -> None:
    """Before anything is downloaded for nothing. Raises ServerError: it could not be served, or asked."""
    check_start(recipe, job)
    _prompt(recipe.request.asks[-1].extra)
    pick_port(recipe, job, any_free=True)


def run(recipe: Recipe, job: Job) -> None:
    """Serve it, talk, and stop the server.

    Raises:
        ServerError: it could not be served, or did not answer.
        SystemExit: a signal came (128 + signal); Ctrl-C in a conversation only stops an answer.
    """
    status = 0
    with serving(recipe, job, Mode.CHAT, any_free=True) as (server, stop):
        status = 128 + stop[0] if server is None else talk(server.run, recipe.request.asks[-1].extra)
    if status:
        raise SystemExit(status)


def run_with(recipe: Recipe, server: Run) -> None:
    """Talk to a server that runs. Raises ServerError and SystemExit as `run`."""
    if status := talk(server, recipe.request.asks[-1].extra):
        raise SystemExit(status)


class _Ended(BaseException):
    """A signal that asks to end."""


def talk(run: Run, words: tuple[str, ...]) -> int:
    """One answer to the words, or to what stands in stdin; on a terminal a conversation.

    Returns:
        0, or 128 + the signal that ended it.
    """
    from tasks.system.signals import on_signals

    try:
        with doit_adapter.quiet_pipe(), on_signals(_raise):
            if prompt := _prompt(words):
                _answer(run, [{"role": "user", "content": prompt}])
            else:
                _converse(run)
    except _Ended as ended:
        print(flush=True)
        return 128 + int(ended.args[0])
    return 0


def _raise(number: int) -> None:
    raise _Ended(number)


@functools.cache  # stdin can be read once
def _prompt(words: tuple[str, ...]) -> str:
    """The question: the words, or what stands in stdin; nothing where somebody is there to type."""
    prompt = " ".join(words)
    if not prompt and not sys.stdin.isatty():
        prompt = sys.stdin.read().strip()
        if not prompt:
            raise ServerError("there is no question", fix='doit chat "What is a llamafile?"')
    return prompt


def _converse(run: Run) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # arrow keys and history, where there is such a thing
    doit_adapter.log().info("%s is listening. %s", run.name, _HINT)
    messages: list[dict[str, str]] = []
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print(flush=True)
            return
        except _Ended as ended:
            if ended.args[0] != signal.SIGINT:
                raise
            print(flush=True)
            continue
        if line:
            messages.append({"role": "user", "content": line})
            messages.append({"role": "assistant", "content": _answer(run, messages, interruptible=True)})


def _answer(run: Run, messages: list[dict[str, str]], interruptible: bool = False) -> str:
    """Write the answer to stdout as it comes; what came of it."""
    from tasks.engine.client import stream

    said = ""
    try:
        with contextlib.closing(stream(run, messages)) as pieces:
            for piece in doit_adapter.harmless(pieces, PROSE):
                said += piece
                print(piece, end="", flush=True)
    except _Ended as ended:
        if not interruptible or ended.args[0] != signal.SIGINT:
            raise
    print(flush=True)
    return said
