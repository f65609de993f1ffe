"""Serve models for Docker Compose: `provider: {type: llamafile-recipe}`.

Compose runs `llamafile-recipe compose --project-name=P up --KEY=VALUE … SERVICE`, and
the same with `down` and `stop`. It reads JSON messages from stdout, one a line, and
discards stderr. Source: docker/compose, docs/extension.md.

pip installs this module, as it installs llamafile_recipe.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_USAGE_ERROR = 3  # exit status
_ACTIONS = ("up", "down", "stop")
# Compose calls `stop` only if it is here. With a description or with parameters, it
# would drop every option that is not among them: a misspelt one must be an error.
_METADATA: dict[str, Any] = {"stop": {"parameters": []}}
# options of `start` that the provider sets itself, or that start nothing
_OWN = ("for", "json", "replicas", "help", "version")
# events of the log that say nothing about the model
_DEBUG = ("task_started", "task_done", "task_up_to_date")
_BRIDGE = "docker0"
_DOCKER_DESKTOP = "host.docker.internal"  # containers reach 127.0.0.1 of the host there


class CallError(Exception):
    """The words or the options are wrong; the text is the whole message."""


class Call(NamedTuple):
    """One call by Compose."""

    project: str
    action: str
    service: str
    options: tuple[tuple[str, str], ...] = ()  # a list of the file is repeated

    @property
    def user(self) -> str:
        """Who needs the server, for `start --for`."""
        return f"{self.project}/{self.service}"

    def value(self, name: str) -> str:
        """Return the value of an option; "" without one."""
        return dict(self.options).get(name, "")


def parse(words: Sequence[str]) -> Call:
    """Parse the words behind `compose`. Pure.

    Raises:
        CallError: they are not a call by Compose.
    """
    left = list(words)
    project = ""
    options: list[tuple[str, str]] = []
    others = []
    while left:
        word = left.pop(0)
        name, is_set, value = word.removeprefix("--").partition("=")
        if not word.startswith("--"):
            others.append(word)
        elif name == "project-name":
            if not is_set and left:
                value = left.pop(0)
            project = value
        else:
            options.append((name, value))
    if len(others) != 2 or others[0] not in _ACTIONS or not project:
        what = "`llamafile-recipe compose` is called by Docker Compose"
        raise CallError(f"{what}\n  fix: docs/compose.md shows a compose.yaml")
    action, service = others
    return Call(project, action, service, tuple(options))


def recipe_words(call: Call, bridge: str) -> list[str]:
    """Return the words behind `llamafile-recipe` that do what Compose asks for. Pure.

    Args:
        bridge: the address of this machine that containers reach, if it is known.

    Raises:
        CallError: an option is not for the provider, or is given twice.
    """
    if call.action != "up":
        return ["stop", f"--for={call.user}"]
    words = ["start", "--json", f"--for={call.user}"]
    names = [name for name, _ in call.options]
    where = f"services.{call.service}.provider.options"
    for name, value in call.options:
        # doit takes the beginning of a name for the name; an empty one ends the options
        if any(own.startswith(name) for own in _OWN):
            raise CallError(f"{where}: {name} is not for a provider\n  fix: remove it")
        if names.count(name) > 1:
            fix = "one service for each model, or an endpoint of models.yaml"
            raise CallError(f"{where}.{name}: expected one value\n  fix: {fix}")
        if value == "true":
            words.append(f"--{name}")
        elif value != "false" and name != "url-host":
            words.append(f"--{name}={value}")
    if bridge and not {"host", "url-host"} & set(names):
        words.append(f"--host={bridge}")
    return words


def container_url(url: str, host: str) -> str:
    """Return the URL of a server for containers of this machine. Pure.

    Args:
        url: for clients on this machine.
        host: `url-host` of the options; "" without it.
    """
    parts = urlsplit(url)
    if not host and not _is_loopback(parts.hostname or ""):
        return url
    return f"{parts.scheme}://{host or _DOCKER_DESKTOP}:{parts.port}"


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ip_address(host).is_loopback
    return host == "localhost"


def variables(call: Call, row: Mapping[str, str], key: str) -> dict[str, str]:
    """Return what Compose sets in dependent services, each with SERVICE_ before. Pure.

    Args:
        row: what `start --json` has printed.
        key: of the server; "" without one.
    """
    url = container_url(row["url"], call.value("url-host"))
    return {
        "URL": url,
        "OPENAI_BASE_URL": f"{url}/v1",
        "MODEL": row["id"],
        "API_KEY": key or "none",  # clients refuse an empty one
    }


def message_of(line: str) -> tuple[str, str]:
    """Return the type and the text of a message for a line of the log. Pure.

    Returns:
        ("", the line) if it is not an event of the log.
    """
    try:
        event = dict(json.loads(line))
        text = str(event["message"])
        level = event["level"]
        facts = {**(event.get("facts") or {}), "fix": event.get("fix")}
    except (ValueError, TypeError, KeyError):
        return "", line
    if level != "error":
        kind = "debug" if event.get("event") in _DEBUG else "info"
        return kind, text.partition("\n")[0]
    given = [f"  {name}: {value}" for name, value in facts.items() if value]
    return "error", "\n".join([text, *given])


def in_words_of_file(call: Call, text: str) -> str:
    """Return an error about an option in the words of compose.yaml. Pure."""
    option = re.match(r"llamafile-recipe start: option --(\S+) ", text)
    if not option:
        return text
    where = f"services.{call.service}.provider.options"
    near = re.search(r"did you mean --([\w-]+)", text)
    fix = "`llamafile-recipe help start` lists the options"
    if near:
        fix = f"did you mean {near[1]}?"
    if "requires argument" in text:
        return f"{where}.{option[1]}: expected a value"
    if "must not have" in text:
        return f"{where}.{option[1]}: expected true or false"
    return f"{where}: there is no {option[1]}\n  fix: {fix}"


class Messages(io.TextIOBase):
    """Messages to Compose; as a stream, it takes the log as JSON (LLAMAFILE_LOG=json).

    Compose kills the command at the first error, so errors wait until it has ended.
    """

    def __init__(self, out: io.TextIOBase) -> None:
        self._out = out
        self._rest = ""
        self._errors: list[str] = []
        self._others: list[str] = []

    def write(self, text: str) -> int:
        """Take a part of the log."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            kind, said = message_of(line)
            if kind == "error":
                self._errors.append(said)
            elif kind:
                self.send(kind, said)
            else:
                self._others.append(said)
        return len(text)

    def send(self, kind: str, text: str) -> None:
        """Send a message; without a reader, the command goes on."""
        with suppress(OSError):
            self._out.write(json.dumps({"type": kind, "message": text}) + "\n")
            self._out.flush()

    def error(self, status: int) -> str:
        """Return why the command has failed."""
        said = self._errors or self._others or [f"it failed with status {status}"]
        return "\n".join(said)


def run(words: Sequence[str], call_recipe: Callable[[list[str]], object]) -> int:
    """Answer a call by Compose; return the exit status.

    Args:
        words: those behind `compose`.
        call_recipe: runs `llamafile-recipe WORDS`.
    """
    # nothing but messages reaches Compose, whatever prints or keeps stdout open
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if list(words) == ["metadata"]:
        with suppress(OSError):  # nothing reads it
            os.write(out.fileno(), f"{json.dumps(_METADATA)}\n".encode())
        return 0
    messages = Messages(out)
    try:
        call = parse(words)
        asked = recipe_words(call, _bridge(call))
    except CallError as error:
        messages.send("error", str(error))
        return _USAGE_ERROR
    os.environ["LLAMAFILE_LOG"] = "json"
    report = io.StringIO()
    sys.stdout, sys.stderr = report, messages
    status = _status(call_recipe, asked)
    if status:
        messages.send("error", in_words_of_file(call, messages.error(status)))
    elif call.action == "up":
        key = call.value("api-key") or os.environ.get("LLAMA_API_KEY", "")
        for name, value in variables(call, json.loads(report.getvalue()), key).items():
            messages.send("setenv", f"{name}={value}")
    return status


def _status(call_recipe: Callable[[list[str]], object], words: list[str]) -> int:
    try:
        call_recipe(words)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def _bridge(call: Call) -> str:
    """Return the address of Docker's bridge, where this machine has one (Linux)."""
    if call.action != "up":
        return ""
    import psutil

    found: Iterable[Any] = psutil.net_if_addrs().get(_BRIDGE, ())
    addresses = [one.address for one in found if one.family.name == "AF_INET"]
    return addresses[0] if addresses else ""
