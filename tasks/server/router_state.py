"""The states of a router's models, and what follows from them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.network.answers import parse_json

if TYPE_CHECKING:
    from tasks.engine.router_preset import Member

FAILURE_LINES = 8  # of a model's output, in messages


class ModelState(str, Enum):
    """The state of one model of a router."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    SLEEPING = "sleeping"  # its memory is freed until the next request
    FAILED = "failed"  # its process ended with an error; the next request tries again


_RUNNING = (ModelState.LOADING, ModelState.LOADED, ModelState.SLEEPING)
ENDED = (ModelState.UNLOADED, ModelState.FAILED)


class RoutedModel(NamedTuple):
    """One model of a router."""

    name: str
    state: ModelState
    exit_code: int | None = None  # of the process of a failed model
    aliases: tuple[str, ...] = ()
    kept: bool = False  # its section has load-on-startup


def parse_models(body: bytes) -> tuple[RoutedModel, ...] | None:
    """Read the JSON of GET /models; None where it is not that of a router."""
    try:
        data = parse_json(body)
    except ValueError:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        return None
    models = [_model(entry) for entry in data["data"]]
    found = tuple(model for model in models if model)
    if len(found) < len(models):
        return None
    return found


def _model(entry: Any) -> RoutedModel | None:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return None
    status = entry.get("status")
    if not isinstance(status, dict):
        return None
    aliases = entry.get("aliases")
    if not isinstance(aliases, list):
        aliases = []
    names = tuple(sorted(alias for alias in aliases if isinstance(alias, str)))
    model = RoutedModel(entry["id"], ModelState.FAILED, None, names, _is_kept(status))
    if status.get("failed") is True:
        code = status.get("exit_code")
        return model._replace(exit_code=code if type(code) is int else None)
    try:
        return model._replace(state=ModelState(status.get("value")))
    except ValueError:
        return None


def _is_kept(status: Mapping[str, Any]) -> bool:
    """Whether the section of a model, which the router repeats, loads it at once."""
    preset = status.get("preset")
    return isinstance(preset, str) and "load-on-startup = true" in preset.splitlines()


def to_touch(models: Sequence[RoutedModel], models_max: int) -> list[str]:
    """Return the kept models that need a request now, so that they stay loaded.

    The router has unloaded one, or could choose it next: it unloads the model that was
    used least recently once `models_max` are loaded. A failed one is not tried again.
    """
    running = [model for model in models if model.state in _RUNNING]
    may_unload = models_max <= len(running) and models_max < len(models)
    found = []
    for model in models:
        unloaded = model.state is ModelState.UNLOADED
        may_be_next = model.state is ModelState.LOADED and may_unload
        if model.kept and (unloaded or may_be_next):
            found.append(model.name)
    return found


def busy_models(
    models: Sequence[RoutedModel],
    names: Collection[str],
    busy: Callable[[str], int | None],
) -> list[str]:
    """Return the models of these names that process requests, or are being loaded.

    Args:
        busy: returns the number of requests of a loaded model; None where it is not
            told.
    """
    found = []
    for model in models:
        if model.name not in names:
            continue
        loading = model.state is ModelState.LOADING
        if loading or (model.state is ModelState.LOADED and busy(model.name)):
            found.append(model.name)
    return found


def renamed(models: Sequence[RoutedModel], members: Iterable[Member]) -> list[str]:
    """Return the models in memory that have other aliases than their sections."""
    aliases = {member.name: set(member.aliases) for member in members}
    return [
        model.name
        for model in models
        if model.state in (ModelState.LOADED, ModelState.SLEEPING)
        and aliases.get(model.name, set()) != set(model.aliases)
    ]


def failed_output(log: str, name: str) -> str:
    """Return the last lines of a model's process, from the log of its router.

    The router begins each of them with the port of the process: `[44461] ...`.
    """
    spawned = re.compile(rf"name={re.escape(name)} on port (\d+)$", re.MULTILINE)
    starts = list(spawned.finditer(log))
    if not starts:
        return ""
    last = starts[-1]
    prefix = f"[{last[1]:>5}] "
    lines = [
        line.removeprefix(prefix)
        for line in log[last.end() :].splitlines()
        if line.startswith(prefix)
    ]
    return "\n".join(lines[-FAILURE_LINES:])
