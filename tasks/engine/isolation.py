"""Options that isolate a server: no network, which web pages, which name. Pure.

Each engine gets only what its version knows, since an unknown option ends it.
"""

from __future__ import annotations

from collections.abc import Iterable

from tasks.catalogue.settings import ServeSettings
from tasks.engine.command import Version, version_tuple
from tasks.errors import ServerError

LOCAL_PAGES = "localhost"  # pages of this machine
ALL_PAGES = "*"
# the first versions that have an option; None: no version is known to have it
_SINCE: dict[str, dict[str, Version | None]] = {
    # Source: server.cpp of llamafile 0.8.6; llama.cpp has had it since 2023
    "--alias": {"llamafile": (0, 8, 6), "llama-server": (0,)},
    # several names; a build is the first in which the flags of a later change were seen
    # Source: llama.cpp PR 19926, and PR 20297, which followed it
    "--alias A,B": {"llamafile": None, "llama-server": (8783,)},
    # Source: llama.cpp PR 13804; docs/cli_arguments.md of llamafile 0.10
    "--offline": {"llamafile": (0, 10), "llama-server": (5600,)},
    # Source: llama.cpp PR 25655, release b10010
    "--cors-origins": {"llamafile": None, "llama-server": (10010,)},
}
# the embedded engine never uses the network
_EMBEDDED = ("--alias", "--alias A,B", "--cors-origins")


def knows(option: str, engine: str, version: str | None) -> bool:
    """Return whether an engine of this version is known to have an option."""
    if engine == "embedded":
        return option in _EMBEDDED
    family = engine
    if engine == "self":
        family = "llamafile"
    since = _SINCE[option][family]
    numbers = version_tuple(version)
    return since is not None and numbers is not None and numbers >= since


def isolation_options(
    engine: str,
    version: str | None,
    settings: ServeSettings,
    model_id: str,
    aliases: Iterable[str] = (),
) -> list[str]:
    """Return the options that isolate a server and name its model.

    Args:
        model_id: the name of the model in the API; empty: the engine's own.
        aliases: its other names.

    Raises:
        ServerError: `cors:` asks for what this version cannot do.
    """
    options = []
    if knows("--offline", engine, version):
        options.append("--offline")
    origins = settings.cors or LOCAL_PAGES
    if knows("--cors-origins", engine, version):
        options += ["--cors-origins", origins]
    elif settings.cors not in (None, ALL_PAGES):
        title = " ".join(filter(None, (_title(engine), version)))
        raise ServerError(
            f"{title} cannot restrict which web pages use the server (CORS)",
            [("cors", origins)],
            fix=f"set `cors: '{ALL_PAGES}'`, or use --engine embedded with a .gguf",
        )
    if model_id and knows("--alias", engine, version):
        names = [model_id]
        if knows("--alias A,B", engine, version):
            names = listed_names(model_id, aliases)
        options += ["--alias", ",".join(names)]
    return options


def listed_names(model_id: str, aliases: Iterable[str]) -> list[str]:
    """Return the names that a server can list without a change of the model's id.

    llama.cpp sorts the names by their bytes, and the first one is the id.
    """
    return sorted({model_id, *(name for name in aliases if name > model_id)})


def is_open_to_pages(
    engine: str, version: str | None, settings: ServeSettings, key: str
) -> bool:
    """Return whether any web page can use the server, although not asked to.

    A page that is open in a browser on this machine reaches a server on this machine.
    """
    if key or settings.cors == ALL_PAGES:
        return False
    return not knows("--cors-origins", engine, version)


def open_pages(name: str, engine: str, version: str | None) -> tuple[str, str]:
    """Return what any web page can do with such a server, and the fix."""
    title = " ".join(filter(None, (_title(engine), version)))
    what = f"{title} answers every web page that is open in a browser (CORS), not only "
    what += "those of this machine"
    fix = "set LLAMA_API_KEY, or serve a .gguf with --engine embedded or llama-server, "
    fix += f"or accept it: `cors: '{ALL_PAGES}'` in models.yaml"
    return f"{name}: {what}", fix


def _title(engine: str) -> str:
    if engine == "self":
        return "llamafile"
    return engine
