"""`doit catalogue`, the default verb: show one screen of models, or a choice."""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks import doit_adapter
from tasks.catalogue import screen
from tasks.catalogue.resolve import ResolvedModel, resolve_entry
from tasks.catalogue.variant_choice import memory_for
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.console.report import Column, Report, Row
from tasks.context import Context
from tasks.errors import RecipeError, UsageError, did_you_mean
from tasks.planning import verdict
from tasks.planning.on_disk import on_disk
from tasks.positional import quoted
from tasks.system import memory

_WIDTH = 80
_HERE = ("complete", "changed", "bundled")  # states that need no download
_NAMES = 5  # of models, in an error
_WORDS = {"complete": "yes", "absent": "no"}


class Filter(NamedTuple):
    """Which models to show; nothing is set: one screen."""

    kind: str = ""
    fits: bool = False
    words: tuple[str, ...] = ()
    all: bool = False

    def matches(self, row: dict[str, Any]) -> bool:
        """Whether a model has the kind, the memory and all words."""
        names = (row["name"], *row["aliases"], row["title"])
        text = "\n".join(names).lower()
        if not all(word.lower() in text for word in self.words):
            return False
        if self.fits and not row["fits"]:
            return False
        return self.kind in ("", row["kind"])


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: `--kind` is not a kind.
    """
    options = request.options
    kind = str(options.get("kind") or "")
    if kind not in ("", *screen.KINDS):
        what = f"--kind: expected {', '.join(screen.KINDS)}, got {kind!r}"
        raise UsageError(what, fix="doit catalogue --kind chat")
    chosen = Filter(
        kind=kind,
        fits=bool(options.get("fits")),
        words=tuple(options.get("word") or ()),
        all=bool(options.get("all")),
    )
    return [context, chosen, bool(options.get("json"))]


def run(context: Context, chosen: Filter, as_json: bool) -> None:
    """Print the report to stdout.

    Raises:
        RecipeError: no model matches.
    """
    here = memory.total()
    rows = [_row(context, name) for name in context.catalogue.names]
    default = context.catalogue.default
    matching = [row for row in rows if chosen.matches(row)]
    data = {"default": default, "memory": here, "models": matching}
    data["endpoints"] = _endpoints(context)
    if as_json:
        _show(default, matching, "", data, as_json)
        return
    if not matching:
        raise _no_match(context, chosen, rows, here)
    if chosen != Filter():
        footer = _with_size_hint(matching, _count(matching, rows, here))
        _show(default, matching, footer, data, as_json)
        return
    names = screen.choose([_candidate(row, default) for row in rows], here)
    by_name = {row["name"]: row for row in rows}
    shown = [by_name[name] for name in names]
    footer = _next(rows, context)
    if len(shown) < len(rows):
        footer = f"{_rest(shown, rows, here)}\n{footer}"
    _show(default, shown, footer, data, as_json)


def _endpoints(context: Context) -> list[dict[str, Any]]:
    """Return the facts about the endpoints, as JSON has them."""
    catalogue = context.catalogue
    entries = {name: catalogue.endpoint(name) for name in catalogue.endpoint_names}
    return [
        {
            "name": name,
            "models": list(entry.models),
            "keep": list(entry.keep),
            "memory_gb": entry.memory,
            "idle_s": entry.idle,
        }
        for name, entry in entries.items()
    ]


def _with_size_hint(rows: list[dict[str, Any]], footer: str) -> str:
    """Return the text below the table; it explains a `?`."""
    unknown = [row["name"] for row in rows if row["size"] is None]
    if not unknown:
        return footer
    command = f"doit lock --upgrade --model {unknown[0]}"
    return f"? not in models.lock: `{command}` asks its publisher\n{footer}"


def _show(
    default: str, rows: list[dict[str, Any]], footer: str, data: Any, as_json: bool
) -> None:
    report = Report(_columns(default), rows, ("", footer), data=data)
    doit_adapter.show_report(report, as_json)


def _no_match(
    context: Context, chosen: Filter, rows: list[dict[str, Any]], here: int
) -> RecipeError:
    """Return the error that says which filter leaves no model."""
    of_any_size = chosen._replace(fits=False)
    found = [row["name"] for row in rows if of_any_size.matches(row)]
    if found:
        size = formatting.format_size(here)
        what = f"no model that matches is known to fit the {size} of memory here"
        names = ", ".join(found[:_NAMES])
        if len(found) > _NAMES:
            names += f" and {len(found) - _NAMES} more"
        facts = [("matches without --fits", names)]
        return RecipeError(what, facts, _command(of_any_size))
    of_any_kind = of_any_size._replace(kind="")
    if chosen.words and any(of_any_kind.matches(row) for row in rows):
        what = f"no {chosen.kind} model of the catalogue matches"
        return RecipeError(what, fix=_command(of_any_kind))
    found_words = _words_that_match(chosen, rows)
    if found_words:
        others = [word for word in chosen.words if word not in found_words]
        what = f"no model of the catalogue matches {', '.join(others)}"
        return RecipeError(what, fix=_command(Filter(words=found_words)))
    near = did_you_mean(" ".join(chosen.words), context.catalogue.names_and_aliases)
    fix = near or "`doit catalogue --all` shows every model"
    return RecipeError("no model of the catalogue matches", fix=fix)


def _words_that_match(chosen: Filter, rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the first words that some model matches, if a later one matches none."""
    kept: tuple[str, ...] = ()
    for word in chosen.words:
        longer = Filter(words=(*kept, word))
        if any(longer.matches(row) for row in rows):
            kept = longer.words
    return kept


def _command(chosen: Filter) -> str:
    """Return the command that shows these models."""
    words = [quoted(word) for word in chosen.words]
    if chosen.kind:
        words += ["--kind", chosen.kind]
    return " ".join(["doit catalogue", *(words or ["--all"])])


def _count(shown: list[dict[str, Any]], rows: list[dict[str, Any]], here: int) -> str:
    size = formatting.format_size(here)
    return f"{len(shown)} of {len(rows)} models; this machine has {size} of memory"


def _rest(shown: list[dict[str, Any]], rows: list[dict[str, Any]], here: int) -> str:
    """Return what the screen shows, and how to see the rest."""
    return (
        f"{_count(shown, rows, here)}.\n"
        "More: doit catalogue --all, --fits, --kind embedding, or a word: qwen"
    )


def _candidate(row: dict[str, Any], default: str) -> screen.Candidate:
    kept = row["name"] == default or row["state"] != "absent"
    return screen.Candidate(row["name"], row["kind"], _gigabytes(row["memory"]), kept)


def _gigabytes(size: int | None) -> float | None:
    return size and size / 10**9


def _label(resolved: ResolvedModel) -> str:
    """Return what a model is for: its kind, or vision."""
    if any(one.role == "mmproj" for one in resolved.companions):
        return "vision"
    return resolved.model.kind


def _row(context: Context, name: str) -> dict[str, Any]:
    resolved = resolve_entry(name, context.catalogue, context.environment)
    model = resolved.model
    found = on_disk(context.environment.cache, resolved)
    available = memory_for(resolved.settings, context.environment)
    return {
        "name": name,
        "aliases": list(model.aliases),
        "title": model.title,
        "kind": _label(resolved),
        "size": found.size,
        "license": model.license,
        "params": model.params,
        "quant": model.quant,
        "ram_gb": model.ram,
        "memory": found.memory,
        "fits": screen.fits(_gigabytes(found.memory), available),
        "sha256": model.sha256,
        "url": model.url,
        "path": resolved.artifact.target,
        "here": found.state in _HERE,
        "state": found.state,
        "downloaded": found.downloaded,
    }


def _word(row: Row) -> str:
    """Return the state as the table shows it: `yes`, `no`, `43 %`, `bundled`."""
    if row["state"] == "partial":
        size = row["downloaded"]
        return formatting.format_percent(size, row["size"]) or formatting.format_size(
            size
        )
    return _WORDS.get(row["state"], str(row["state"]))


def _columns(default: str) -> tuple[Column, ...]:
    def name(row: Row) -> str:
        mark = ""
        if row["name"] == default:
            mark = " *"
        return f"{row['name']}{mark}"

    return (
        Column("name", "model", describe=name, least=30),
        Column("size", ">size", _size, unknown="?"),
        Column("memory", ">RAM", formatting.format_size, unknown="?"),
        Column("license", "licence", least=10),
        Column("state", "here", describe=_word, style=_style),
        Column("title", "what it is", describe=_title, least=10),
    )


def _size(count: int) -> str:
    return formatting.format_size(count or None)


def _style(row: Row) -> str:
    colours = {"complete": "green", "bundled": "green", "absent": "dim"}
    return colours.get(row["state"], "yellow")


def _ready_name(
    rows: list[dict[str, Any]], default: dict[str, Any], context: Context
) -> str:
    """Return the chat model to try: the default one if here, a bundled one, or any.

    A model whose engine is not installed is not one.
    """
    states = ("bundled", "complete")
    chats = [row for row in rows if row["kind"] in ("chat", "vision")]
    here = [row for row in chats if row["state"] in states]
    here.sort(key=lambda row: (row is not default, states.index(row["state"])))
    names = (str(row["name"]) for row in here)
    return next((name for name in names if _has_engine(context, name)), "")


def _has_engine(context: Context, name: str) -> bool:
    resolved = resolve_entry(name, context.catalogue, context.environment)
    return not verdict.engine_problems([resolved])


def _title(row: Row) -> str:
    if row["kind"] == "chat":
        return str(row["title"])
    return f"{row['kind']}: {row['title']}"


def _next(rows: list[dict[str, Any]], context: Context) -> str:
    """Return the commands that a user may want to type next."""
    default = next(row for row in rows if row["name"] == context.catalogue.default)
    serve = f"serves {default['name']}"
    if default["state"] not in ("complete", "bundled"):
        serve = f"downloads {formatting.format_size(default['size'])}, then {serve}"
    steps = [
        ("doit serve", serve),
        ("doit status", "what runs"),
        ("doit list", "every verb (options: doit help serve)"),
    ]
    name = _ready_name(rows, default, context)
    if name:
        command = f'doit chat {name} "What are you?"'
        steps.insert(0, (command, "answers at once, without a download"))
    lines = [f"* the default. Cache: {context.environment.cache}"]
    for one in _endpoints(context):
        lines.append(f"Endpoint {one['name']}: {', '.join(one['models'])}")
    lines.append("Next:")
    for command, about in steps:
        line = f"  {command:<39} {about}"
        if len(line) > _WIDTH:
            line = f"  {command}"
        lines.append(line)
    return "\n".join(lines)
