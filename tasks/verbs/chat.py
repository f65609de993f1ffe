"""`doit chat`: ask a model, through a running server or one for this conversation."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tasks import doit_adapter
from tasks.catalogue.endpoints import ResolvedEndpoint, Servable
from tasks.console.reasoning import Reasoning
from tasks.console.text import PROSE
from tasks.context import Context
from tasks.engine.router_launch import member_error, one_model_error, recorded_chat
from tasks.errors import ServerError
from tasks.server.requests_by_kind import check_chats, kind_of
from tasks.server.server_record import Mode, ServerRecord
from tasks.server.session import check_start, pick_port, serving, specify

if TYPE_CHECKING:
    from tasks.network.sse import Delta

_HINT = "Ctrl-C stops an answer, Ctrl-D ends the conversation."


def check(context: Context, resolved: Servable) -> None:
    """Check that the model can be served and asked, before anything is downloaded.

    Raises:
        ServerError: it cannot, it is of another kind, or there is no question.
    """
    _check_model(context, resolved)
    cache = context.environment.cache
    check_start(cache, resolved, context.download_policy())
    _prompt(context.command_line.tasks[-1].extra)
    pick_port(cache, resolved.settings.host, resolved.port_to_try(any_free=True))


def run(context: Context, resolved: Servable) -> None:
    """Serve the model, answer or hold a conversation, and stop the server.

    Raises:
        ServerError: the model could not be served, or did not answer.
        SystemExit: a signal came (128 + signal); Ctrl-C in a conversation only stops
            an answer.
    """
    status = 0
    spec = specify(context.environment, context.catalogue, resolved)
    port = resolved.port_to_try(any_free=True)
    with serving(context.environment.cache, spec, Mode.CHAT, port) as (server, stop):
        if server is not None:
            record = server.record
            model = recorded_chat(record.spec, record.name, _as_word(context))
            status = talk(record, context.command_line.tasks[-1].extra, model)
    if server is None:
        status = 128 + stop[0]
    if status:
        raise SystemExit(status)


def run_with(context: Context, server: ServerRecord) -> None:
    """Talk to a running server.

    Raises:
        ServerError: it did not answer.
        SystemExit: as `run`.
    """
    model = recorded_chat(server.spec, server.name, _as_word(context))
    check_chats(server.name, kind_of(server))
    if status := talk(server, context.command_line.tasks[-1].extra, model):
        raise SystemExit(status)


def _as_word(context: Context) -> str:
    """Return the value of --as, or an empty text."""
    return str(context.command_line.tasks[-1].options.get("as", ""))


def _check_model(context: Context, resolved: Servable) -> None:
    """Check that the model that will answer is one that chats.

    Raises:
        UsageError: --as names no such model.
        ServerError: the model is of another kind.
    """
    word = _as_word(context)
    if not isinstance(resolved, ResolvedEndpoint):
        if word:
            raise one_model_error(resolved.name)
        check_chats(resolved.name, resolved.model.kind)
        return
    chats = [one.name for one in resolved.members if one.model.kind == "chat"]
    chosen = resolved.default
    if word:
        named = resolved.member(word)
        if named is None:
            raise member_error(resolved.name, word, "", chats)
        chosen = named
    if chosen.name not in chats:
        raise member_error(resolved.name, word, chosen.name, chats)


class _EndOfConversationError(BaseException):
    """A signal that asks the program to end."""


def talk(record: ServerRecord, words: tuple[str, ...], model: str = "") -> int:
    """Answer the words or stdin; without both, on a terminal, hold a conversation.

    Args:
        model: which of an endpoint's models answers; empty for a server of one.

    Returns:
        0, or 128 + the signal that ended it.
    """
    from tasks.system.signals import handle_signals

    try:
        with doit_adapter.ignore_broken_pipe(), handle_signals(_raise):
            if prompt := _prompt(words):
                _answer(record, [{"role": "user", "content": prompt}], model)
            else:
                _converse(record, model)
    except _EndOfConversationError as ended:
        print(flush=True)
        return 128 + int(ended.args[0])
    return 0


def _raise(number: int) -> None:
    raise _EndOfConversationError(number)


@functools.cache  # stdin can be read once
def _prompt(words: tuple[str, ...]) -> str:
    """Return the question, from the words or stdin; empty for a conversation.

    Raises:
        ServerError: there is none, and stdin is not a terminal.
    """
    prompt = " ".join(words)
    is_terminal = sys.stdin is not None and sys.stdin.isatty()
    if prompt.strip() or (is_terminal and not words):
        _check_text(prompt)
        return prompt
    if sys.stdin is not None and not words:
        prompt = _stdin_text().strip()
    if not prompt.strip():
        raise ServerError(
            "there is no question", fix='doit chat "What is a llamafile?"'
        )
    return prompt


def _stdin_text() -> str:
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError:
        raise _not_text_error() from None
    _check_text(text)
    return text


def _check_text(text: str) -> None:
    """Refuse bytes that are not UTF-8: Python keeps them as surrogates.

    Raises:
        ServerError: there are some; a model reads characters.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _not_text_error() from None


def _not_text_error() -> ServerError:
    return ServerError(
        "the question is not text: it has bytes that are not UTF-8",
        fix="convert it to UTF-8, for example with iconv",
    )


def _converse(record: ServerRecord, model: str) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # arrow keys and history; not on Windows
    doit_adapter.log().info("%s is listening. %s", model or record.name, _HINT)
    messages: list[dict[str, str]] = []
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print(flush=True)
            return
        except _EndOfConversationError as ended:
            if ended.args[0] != signal.SIGINT:
                raise
            print(flush=True)
            continue
        except UnicodeDecodeError:
            doit_adapter.log().warning("warning: %s", _not_text_error())
            continue
        if line:
            messages.append({"role": "user", "content": line})
            answer = _answer(record, messages, model, interruptible=True)
            messages.append({"role": "assistant", "content": answer})


def _answer(
    record: ServerRecord,
    messages: list[dict[str, str]],
    model: str,
    interruptible: bool = False,
) -> str:
    """Print the answer as it arrives, and return it.

    Args:
        interruptible: Ctrl-C ends the answer; what came until then is returned.

    Raises:
        ServerError: the server did not answer; in a conversation, an answer without
            text is a warning.
    """
    from tasks.server.client import stream_chat

    more = f"`doit restart --model {record.name} --n-predict -1`, then ask again"
    if model:
        more = f"raise n_predict of models.{model} in models.yaml, then `doit restart "
        more += f"{record.name}`"
    answer = _Answer(model or record.name, more)
    try:
        with contextlib.closing(stream_chat(record, messages, model=model)) as deltas:
            for piece in doit_adapter.escape_stream(answer.texts(deltas), PROSE):
                print(piece, end="", flush=True)
    except _EndOfConversationError as ended:
        if not interruptible or ended.args[0] != signal.SIGINT:
            raise
        answer.is_interrupted = True
    finally:
        answer.reasoning.end()
    if answer.text or interruptible:
        print(flush=True)
    problem = answer.problem()
    if problem and not answer.text and not interruptible:
        raise problem
    if problem:
        doit_adapter.log().warning("warning: %s", problem)
    return answer.text


class _Answer:
    """One answer: its text so far, and how it ended."""

    def __init__(self, name: str, more: str) -> None:
        self._name = name
        self._more = more  # how to get longer answers
        self.text = ""
        self.reasoning = Reasoning(name)
        self.is_interrupted = False
        self._is_cut = False

    def texts(self, deltas: Iterable[Delta]) -> Iterator[str]:
        """Yield the text of the answer; show the reasoning."""
        for delta in deltas:
            self._is_cut = self._is_cut or delta.is_cut
            if delta.reasoning:
                self.reasoning.add(delta.reasoning)
            if delta.text:
                self.reasoning.end()
                self.text += delta.text
                yield delta.text

    def problem(self) -> ServerError | None:
        """Return what is wrong with the answer, or None."""
        if self.is_interrupted:
            return None
        what = "the answer is incomplete"
        if not self.text.strip():
            what = f"{self._name} did not answer"
        if self._is_cut:
            limit = "it reached the limit of tokens (--n-predict, --ctx-size)"
            return ServerError(f"{what}: {limit}", fix=self._more)
        if not self.text.strip():
            return ServerError(f"{what}: its answer is empty", fix="ask in other words")
        return None
