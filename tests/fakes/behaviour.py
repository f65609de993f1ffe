"""How the fake engine is told to behave. Standard library only."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, TypedDict, cast

if TYPE_CHECKING:
    from tests.fakes.engine_args import Box

VARIABLE = (
    "LC_FAKE_LLAMAFILE"  # JSON; engines get the variables of the locale; its keys override behaviour.json's
)
NOTED = ("LLAMA_API_KEY", "LLAMAFILE_RECIPE_RUN")  # variables that `history` shows


class Crash(TypedDict, total=False):
    text: str  # on stderr
    status: int  # 1 unless given
    signal: int  # instead of an exit status
    after: float  # seconds from the start of the server


class Behaviour(TypedDict, total=False):
    """How the engine behaves; seconds where it says seconds."""

    version: str
    record: str  # path: this run's arguments, a JSON list (the last run wins)
    history: str  # path: one JSON line {"argv", "pid", "cwd", "env"} for each run; env: those of NOTED
    load_seconds: float
    silent: bool  # never becomes ready
    health_status: int  # of /health once loaded
    answer: str  # what it generates; the last user message or the prompt unless given
    token_seconds: float  # before each token of an answer; a token is a word
    reasoning: str  # generated before the answer; the limit of tokens counts both
    reasoning_field: str  # of its deltas; reasoning_content unless given
    stream: str  # how a streamed answer is written: a name of ODD in engine_chat.py
    chat_status: int  # of both POST routes, with an error; /health stays well
    no_slots: bool  # /slots is refused, as with llama-server's --no-slots
    chat_hang: bool  # both POST routes take a slot and never answer
    say: list[str]  # lines on stderr while it loads
    chatter_bytes: int  # of log lines on stderr, at once, as soon as it is ready
    chatter: float  # bytes of log lines per second on stderr, then for ever
    crash: Crash  # of the server, not of --version
    version_text: str  # --version: on stderr, first
    version_hang: bool  # --version: never ends
    version_status: int  # --version: says no version, exits so; -N is death by signal N
    ignore_sigterm: bool
    ignore_sigint: bool
    stop_seconds: float  # between a handled signal and the exit
    fork: bool  # a child (same process group) serves, the parent waits
    leave: bool  # a child (same process group) serves, the parent exits with 0 at once
    leave_session: bool  # the same, and the child has a session of its own
    hop: bool  # a busy port means the next one, ten times; the default before 0.10


def load(box: Box | None) -> Behaviour:
    """Merge behaviour.json and the environment; a misspelt key is an error of the test."""
    merged: dict[str, Any] = {"version": "0.8.6"}
    merged.update(json.loads(box.read("behaviour.json")) if box else {})
    merged.update(json.loads(os.environ.get(VARIABLE, "{}")))
    check_keys(merged)
    return cast(Behaviour, merged)


def check_keys(values: dict[str, Any]) -> None:
    """Raise ValueError for a key that Behaviour lacks."""
    unknown = set(values) - set(Behaviour.__annotations__)
    unknown |= set(values.get("crash", {})) - set(Crash.__annotations__)
    if unknown:
        raise ValueError(f"no such behaviour of the fake llamafile: {sorted(unknown)}")
