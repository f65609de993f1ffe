"""Choose the engine that serves a file, with the reason. Pure.

docs/engines.md has the rule as a table.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.constraints import ENGINES
from tasks.catalogue.environment import Environment
from tasks.catalogue.model_files import WINDOWS_EXE_LIMIT
from tasks.catalogue.model_format import has_model_name, holds_gguf, holds_program
from tasks.catalogue.types import Model
from tasks.errors import UsageError, did_you_mean

# they read a .gguf, in the order in which an installed one is preferred
GGUF_ENGINES = ("embedded", "llama-server", "llamafile")
# they read nothing else
GGUF_ONLY = {"embedded": "embedded engine", "llama-server": "engine llama-server"}
_INSTALLED = {
    "embedded": "the package xllamacpp is installed",
    "llama-server": "llama-server is on PATH",
}
LLAMA_SERVER_MISSING = "the engine llama-server is not on PATH"
LLAMA_SERVER_SOURCES = (
    "install llama-server: brew install llama.cpp, apt install llama.cpp, or winget "
    "install llama.cpp"
)


class Question(NamedTuple):
    """What the choice of an engine depends on."""

    requested: str | None  # --engine
    entry: str | None  # `engine:` of the entry
    is_gguf: bool
    is_own: bool  # no entry names the file
    on_windows: bool = False
    installed: Collection[str] = ()  # those of `_INSTALLED` that are on this machine
    pinned: Collection[str] = ("llamafile",)  # programs that models.yaml names


class EngineChoice(NamedTuple):
    """An engine, and why it was chosen."""

    engine: str
    reason: str


def choose_engine(question: Question) -> EngineChoice:
    """Return the engine of a file.

    The command line decides, then the entry. Without either, a llamafile serves itself,
    and a GGUF of an entry is served by the llamafile that models.yaml pins, or by
    llama-server if it pins only that: what is installed changes nothing. For a GGUF
    that no entry names, an installed engine comes before one that would be downloaded.
    """
    if question.requested:
        return EngineChoice(question.requested, "--engine")
    if question.entry == "self" and question.on_windows:
        return EngineChoice("llamafile", "Windows cannot start the .llamafile itself")
    if question.entry:
        return EngineChoice(question.entry, "`engine:` of the model")
    if not question.is_gguf:
        if question.on_windows:
            reason = "Windows cannot start the .llamafile itself"
            return EngineChoice("llamafile", reason)
        return EngineChoice("self", "a .llamafile contains its engine")
    if not question.is_own:
        engine = "llamafile"
        if "llama-server" in question.pinned and engine not in question.pinned:
            engine = "llama-server"
        reason = f"the model names no engine: models.yaml pins {engine}"
        return EngineChoice(engine, reason)
    for engine, reason in _INSTALLED.items():
        if engine in question.installed:
            return EngineChoice(engine, reason)
    if "llama-server" in question.pinned:
        reason = "no engine is installed, and models.yaml pins llama-server"
        return EngineChoice("llama-server", reason)
    return EngineChoice("llamafile", "no other engine is installed")


def written_engine(
    installed: Collection[str], *, has_pinned: bool, has_embedded: bool
) -> str:
    """Return the engine that a new entry of a GGUF names; "": none, so a pinned one.

    It is the engine that serves a file that no entry names.

    Args:
        installed: engines that are on this machine.
        has_pinned: models.yaml says where llamafile or llama-server is.
        has_embedded: models.yaml has the embedded engine.
    """
    if "embedded" in installed and has_embedded:
        return "embedded"
    if "llama-server" in installed:
        return "llama-server"
    if has_pinned:
        return ""
    return "embedded"


def install_llama_server(*, has_embedded: bool) -> str:
    """Return how to install llama-server, or which engine to name instead.

    Args:
        has_embedded: the embedded engine is installed, so nothing is downloaded.
    """
    other = "llamafile"
    if has_embedded:
        other = "embedded"
    return (
        f"{LLAMA_SERVER_SOURCES}\nor name another engine: --engine {other}, or "
        f"`engine: {other}` of the model in models.yaml"
    )


INSTALL_LLAMA_SERVER = install_llama_server(has_embedded=False)


def install_embedded(*, has_llama_server: bool) -> str:
    """Return how to install the embedded engine, or which engine to name instead.

    Args:
        has_llama_server: llama-server is on PATH, so nothing is downloaded.
    """
    other = "llamafile"
    if has_llama_server:
        other = "llama-server"
    return f"pip install '.[embedded]', or --engine {other}"


def alternatives(engine: str, installed: Collection[str], *, is_gguf: bool) -> str:
    """Return the options that select another engine for the file, or an empty text.

    Args:
        installed: engines that are on this machine; llamafile is downloaded if needed.
    """
    usable = {*installed, "llamafile"} - {engine}
    if not (is_gguf and usable):
        return ""
    others = [f"--engine {one}" for one in GGUF_ENGINES if one in usable]
    return f"or try another engine: {', '.join(others)}"


def engine_of(
    requested: str | None,
    model: Model,
    artifact: Artifact,
    environment: Environment,
    is_own: bool,
    pinned: Collection[str] = ("llamafile",),
) -> tuple[EngineChoice, bool]:
    """Return the engine, and whether the file is a GGUF.

    Args:
        is_own: no entry names the file.
        pinned: engines whose program models.yaml names.

    Raises:
        UsageError: the engine is unknown, or cannot serve the file.
    """
    if requested is not None and requested not in ENGINES:
        hint = did_you_mean(requested, ENGINES)
        raise UsageError(
            f"--engine: there is no engine {requested!r}",
            fix=hint or f"the engines are {', '.join(ENGINES)}",
        )
    head = b""
    if not (artifact.in_cache and has_model_name(artifact.target)):
        # a file in the cache is not verified yet, so its name decides, which is in git
        head = environment.first_bytes(artifact.target)
    is_gguf = holds_gguf(head, artifact.target)
    on_windows = environment.platform == "win32"
    choice = choose_engine(
        Question(
            requested,
            model.engine,
            is_gguf,
            is_own,
            on_windows,
            installed_engines(environment) if is_gguf and is_own else (),
            pinned,
        )
    )
    engine = choice.engine
    if (requested or model.engine) == "self" and is_gguf:
        what = f"{artifact.label} is a GGUF, which is not a program"
        raise UsageError(what, fix="--engine llamafile, or --engine embedded")
    if engine in GGUF_ONLY and holds_program(head, artifact.target):
        reason = f"a llamafile, but the {GGUF_ONLY[engine]} reads GGUF files"
        raise UsageError(f"{artifact.label} is {reason}", fix="remove --engine")
    if engine == "self" and on_windows:
        raise _windows_error(artifact)
    return choice, is_gguf


def installed_engines(
    environment: Environment, pinned: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the engines that are on this machine, or that models.yaml pins for it."""
    found = []
    if environment.has_package("xllamacpp"):
        found.append("embedded")
    if "llama-server" in pinned or environment.find_program("llama-server"):
        found.append("llama-server")
    return tuple(found)


def _windows_error(artifact: Artifact) -> UsageError:
    """Return the error for a .llamafile that Windows cannot start (R9)."""
    reason = "not an .exe, so Windows cannot start it"
    if (artifact.size or 0) > WINDOWS_EXE_LIMIT:
        reason = "over 4 GiB, the limit of Windows for a program"
    return UsageError(f"{artifact.label} is {reason}", fix="--engine llamafile")


def installed_program(engine: str, environment: Environment) -> Artifact | None:
    """Return the installed program of an engine that the recipe does not download."""
    if engine != "llama-server":
        return None
    path = environment.find_program(engine)
    if not path:
        return None
    return Artifact(engine, (), path, in_cache=False)
