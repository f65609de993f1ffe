"""Report the models of a running endpoint, for `doit status`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tasks.console.report import Fact
from tasks.server.router_state import ModelState, RoutedModel
from tasks.server.server_record import ServerRecord, ServerState

ModelRow = dict[str, Any]


def is_router(record: ServerRecord) -> bool:
    """Whether a server serves an endpoint."""
    return "--models-max" in record.spec


def model_rows(record: ServerRecord) -> list[ModelRow] | None:
    """Return the facts about each model, as JSON has them; None without an answer."""
    from tasks.server.router import Router

    router = Router.of(record)
    models = router.models()
    if models is None:
        return None
    return [_row(record, model, router.busy) for model in models]


def _row(
    record: ServerRecord, model: RoutedModel, busy: Callable[[str], int | None]
) -> ModelRow:
    from tasks.server.router import output_of

    row: ModelRow = {"model": model.name, "state": model.state.value}
    row |= {"kept": model.kept, "requests": 0}
    if model.state is ModelState.LOADED:
        row["requests"] = busy(model.name)
    if model.state is ModelState.FAILED:
        row["ended"] = model.exit_code
        row["output"] = output_of(record, model.name)
    return row


def state_and_requests(
    models: Sequence[ModelRow] | None,
) -> tuple[ServerState, int | None]:
    """Return the state of an endpoint that answers, and its requests in progress.

    A model that fails makes it unhealthy if it is one that stays loaded. The others
    are tried again with each request.
    """
    if models is None:
        return ServerState.UNHEALTHY, None
    failed = [row for row in models if row["state"] == ModelState.FAILED.value]
    if any(row["kept"] for row in failed):
        return ServerState.UNHEALTHY, None
    return ServerState.READY, sum(row["requests"] or 0 for row in models)


def all_lines(rows: Sequence[Mapping[str, Any]]) -> Iterator[Fact | str]:
    """Yield the lines about the models of each endpoint; several may have one name."""
    routers = [row for row in rows if row.get("models")]
    names = [row["model"] for row in routers]
    for row in routers:
        label = str(row["model"])
        if names.count(label) > 1:
            label = f"{label} at {row['url']}"
        yield from _lines(label, row["models"])


def _lines(label: str, models: Sequence[ModelRow]) -> Iterator[Fact | str]:
    states = ", ".join(f"{one['model']} {_state(one)}" for one in models)
    yield Fact(f"{label}  ", states)
    for one in models:
        if one.get("output"):
            text = one["output"].replace("\n", "\n      ")
            yield f"  {one['model']} failed; its last output:\n      {text}"


def _state(row: ModelRow) -> str:
    text = str(row["state"])
    if row["kept"]:
        text += " (kept)"
    if row.get("ended") is not None:
        text += f" (exit status {row['ended']})"
    return text
