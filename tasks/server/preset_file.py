"""The preset file of an endpoint: what llama-server's router reads at its start."""

from __future__ import annotations

import os
from dataclasses import replace

from tasks.catalogue.endpoints import ResolvedEndpoint
from tasks.catalogue.environment import Environment
from tasks.catalogue.types import Catalogue
from tasks.console.text import digest
from tasks.engine.command import model_options
from tasks.engine.router_preset import Member, cannot_say, problem, render
from tasks.engine.version import engine_version, launch_of
from tasks.errors import ServerError, UsageError
from tasks.server import run_folder
from tasks.server.record_files import STATE_VARIABLE
from tasks.system import files, own_files

_MAX_BYTES = 16 * 1024 * 1024
_KEY_CHARS = 8  # of the digest of the catalogue's path


def filename(catalogue: Catalogue, name: str) -> str:
    """Return the file's name; two catalogues may share a cache and a name."""
    return f"{name}-{digest(catalogue.where)[:_KEY_CHARS]}.ini"


def expected_path(cache: str, catalogue: Catalogue, name: str) -> str:
    """Return the path of the file, which may not exist; "" where none can be written.

    Creates nothing.
    """
    folder = run_folder.expected(cache)
    return os.path.join(folder, filename(catalogue, name)) if folder else ""


def members_of(
    environment: Environment, catalogue: Catalogue, endpoint: ResolvedEndpoint
) -> tuple[Member, ...]:
    """Return the models as the preset file has them, once their engine was verified.

    Raises:
        UsageError: the file cannot express an option.
        ServerError: the engine does not support a setting.
    """
    found = []
    for one in endpoint.members:
        version = engine_version(environment.cache, catalogue, one)
        launch = launch_of(environment.platform, one)
        other_names = (one.model.id, *one.model.aliases)
        settings = replace(one.settings, idle=None)
        idle = one.model.serve.idle or endpoint.idle or one.settings.idle
        member = Member(
            name=one.name,
            aliases=tuple(name for name in other_names if name not in (None, one.name)),
            options=model_options(launch, settings, version),
            keep=one.name in endpoint.keep,
            idle=idle,
        )
        if text := problem(member):
            what = f"{endpoint.name}: {one.name} cannot be one of its models: {text}"
            fix = f"edit models.{one.name} in {catalogue.where}"
            if cannot_say(environment.cache):
                fix = "set LLAMAFILE_CACHE to a directory without ';' and '#'"
            raise UsageError(what, fix=fix)
        found.append(member)
    return tuple(found)


def is_current(path: str, members: tuple[Member, ...]) -> bool:
    """Whether the file has the content that it should have."""
    return own_files.read_most(path, _MAX_BYTES) == render(members).encode()


def write(cache: str, catalogue: Catalogue, name: str, text: str) -> str:
    """Write the file, unless it has this text already; return its path.

    Raises:
        ServerError: it cannot be written.
    """
    folder = run_folder.folder(cache)
    if folder is None:
        what = f"the preset file of {name} cannot be written"
        fix = f"set {STATE_VARIABLE} to a directory you can write to"
        raise ServerError(what, fix=fix)
    path = os.path.join(folder, filename(catalogue, name))
    if own_files.read_most(path, _MAX_BYTES) == text.encode():
        return path
    try:
        files.write_atomic(path, text, private=True)
    except OSError as error:
        reason = error.strerror or str(error)
        what = f"cannot write the preset file of {name}: {reason}"
        fix = f"set {STATE_VARIABLE} to a directory you can write to"
        if files.is_full(error):
            fix = f"free space there, or set {STATE_VARIABLE} to another disk"
        raise ServerError(what, [("file", path)], fix=fix) from None
    return path
