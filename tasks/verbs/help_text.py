"""`doit help`: the verbs by what people do, the options of one, or a model."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tasks import context, positional
from tasks.catalogue.resolve import ResolvedModel, resolve_entry
from tasks.catalogue.settings import ServeSettings, serve_settings
from tasks.catalogue.types import Endpoint
from tasks.command_line import CommandLine, Verbs
from tasks.console import formatting
from tasks.console.program import as_typed
from tasks.console.text import visible
from tasks.errors import RecipeError, UsageError, did_you_mean
from tasks.options import Option
from tasks.planning.on_disk import OnDisk, on_disk

WIDTH = 80
_VERB_COLUMN = 13  # of what a verb does
_NO_BREAK = "\0"  # a space at which no line ends
_GROUPS = {
    "Run a model": ("serve start restart reload roll chat with status logs idle stop"),
    "Models": "catalogue plan download add bench check doctor prune",
    "What is pinned": "lock audit bom",
    "Elsewhere": "push image deploy cache-key",
    "Steps that the others run": "exe chmod verify preset",
}
# defaults that are those of the verb; {} is that of the catalogue
_DEFAULTS = {
    ("start", "model"): "the catalogue's",
    ("start", "port"): "{}, or a free one if your own server has it",
    ("with", "port"): "a free one",
    ("restart", "port"): "that of the server",
    ("reload", "port"): "that of the server",
    ("chat", "model"): "the one that runs, else the catalogue's or the one here",
    ("chat", "port"): "the only one",
    ("bench", "model"): "the one that runs, else the catalogue's",
    ("bench", "port"): "the only one",
    ("check", "model"): "the one that runs, else the catalogue's",
    ("check", "port"): "the only one",
    ("logs", "port"): "the only one",
    ("stop", "port"): "the only one",
    ("status", "port"): "every one",
    ("idle", "port"): "every one",
}
# what follows a verb, by the name of its `pos_arg`
_FURTHER_WORDS = {
    "engine_arguments": " [-- ENGINE-ARGUMENTS]",
    "command": " -- COMMAND",
    "prompt": " [QUESTION]",
    "source": " SOURCE",
    "reference": " oci://HOST/REPO:TAG",
}

# state of a model's files → what the page says
_HERE = {
    "complete": "yes, verified",
    "changed": "yes, to be verified before it is used",
    "bundled": "bundled: no download",
    "absent": "no",
}


class Table(NamedTuple):
    """Everything that has a page: verbs, doit's own commands; and the program."""

    verbs: Verbs
    commands: Mapping[str, tuple[str, str, Sequence[Option]]]
    program: str


def page(words: Sequence[str], table: Table) -> str:
    """Return the page that a user asks for; the overview without words.

    Raises:
        UsageError: there is no verb, command or model of that name.
    """
    known = [word for word in words if word.partition(":")[0] in table.verbs]
    others = [word for word in words if not word.startswith("-")]
    if known:
        return verb_page(known[0], table, _defaults())
    if not others or others[0] in ("help", "run"):
        return overview(table)
    if others[0] in table.commands:
        return command_page(others[0], table)
    return _model_page(others[0], table)


def overview(table: Table) -> str:
    """Return all verbs, grouped by what people do."""
    blocks = [f"usage: {table.program} [VERB [MODEL] [OPTIONS]]"]
    grouped = " ".join(_GROUPS.values()).split()
    others = " ".join(verb for verb in table.verbs if verb not in grouped)
    for title, names in {**_GROUPS, "More": others}.items():
        verbs = [verb for verb in names.split() if verb in table.verbs]
        rows = [(verb, table.verbs[verb].help) for verb in verbs]
        if rows:
            blocks.append(f"{title}\n{_rows(rows, _VERB_COLUMN)}")
    own = sorted(name for name in table.commands if name not in ("help", "run"))
    rows = [
        (f"{table.program} help VERB", "its options"),
        (f"{table.program} help MODEL", "what it is, where it is from, how to serve"),
        (
            f"{table.program} COMMAND",
            f"a command of doit (pydoit.org): {', '.join(own)}",
        ),
    ]
    return "\n".join([*blocks, "Help", _rows(rows)])


def verb_page(word: str, table: Table, defaults: ServeSettings) -> str:
    """Return the options of VERB, or of VERB:MODEL."""
    name, _, model = word.partition(":")
    verb = table.verbs[name]
    colon = model and "model" in {one["name"] for one in verb.params}
    if not colon:
        word = name
    options = verb.model_params if colon else verb.params
    names = _words_of(options)
    if names and verb.pos_arg == "prompt":
        names = " [MODEL | FILE]"
    usage = f"usage: {table.program} {visible(word)}{names}"
    shown = [one for one in options if not one["name"].endswith("_old")]
    if shown:
        usage += " [OPTIONS]"
    usage += _FURTHER_WORDS.get(verb.pos_arg, "")
    parts = [usage, "", *_wrapped(verb.help, 0)]
    if shown:
        rows = [(_flags(one), _about(name, one, defaults)) for one in shown]
        parts += ["", _rows(rows)]
    if verb.names:
        kinds = ", ".join(verb.names)
        parts += ["", *_wrapped(f"KIND of {name}:KIND is one of {kinds}", 0)]
    return "\n".join(parts)


def command_page(name: str, table: Table) -> str:
    """Return the options of a command of doit's own."""
    purpose, usage, options = table.commands[name]
    shown = [one for one in options if one.get("short") or one.get("long")]
    parts = [f"usage: {table.program} {name} {usage}".rstrip(), ""]
    parts += [f"{purpose} (a command of doit: https://pydoit.org)"]
    if shown:
        rows = [(_flags(one), _plain(one)) for one in shown]
        parts += ["", _rows(rows)]
    return "\n".join(parts)


def _plain(option: Option) -> str:
    values = {"default": option["default"]}
    return " ".join((str(option.get("help", "")) % values).split())


def _words_of(options: Sequence[Option]) -> str:
    """Return the words that a verb takes in place of options."""
    names = {one["name"]: one["type"] for one in options}
    if "word" in names:
        return " [WORD ...]"
    if "model" not in names:
        return ""
    if "llamafile" in names:
        return " [MODEL | FILE | URL]"
    if names["model"] is list:
        return " [MODEL ...]"
    return " [MODEL]"


def _flags(option: Option) -> str:
    """Return how an option is typed: `-n, --lines N`."""
    flags = []
    if option.get("short"):
        flags.append(f"-{option['short']}")
    if option.get("long"):
        flags.append(f"--{option['long']}")
    value = "" if option.get("type") is bool else f" {option.get('metavar', 'ARG')}"
    return ", ".join(flags) + value


def _about(verb: str, option: Option, defaults: ServeSettings) -> str:
    """Return what an option of a verb does, with the default that applies here."""
    text, mark, own = str(option["help"]).partition(" [default: ")
    default = own.removesuffix("]")
    if not mark:
        default = getattr(defaults, option["name"], None) or ""
    default = _DEFAULTS.get((verb, option["name"]), "{}").format(default)
    if not default:
        return text
    return f"{text} [default:{_NO_BREAK}{default}]"


def _defaults() -> ServeSettings:
    """Return the settings of models.yaml; the built-in ones if it has errors."""
    try:
        read = context.read_catalogue(CommandLine(command="help"))
    except RecipeError:
        return ServeSettings()
    return serve_settings(read.catalogue.defaults)


def _rows(rows: Sequence[tuple[str, str]], column: int = 0) -> str:
    """Return a list of names, each with its text in a second column."""
    column = column or min(24, max(len(name) for name, _ in rows)) + 4
    lines: list[str] = []
    for name, text in rows:
        first, *more = _wrapped(text, column) or [""]
        if len(name) > column - 4:
            lines += [f"  {name}", first]
        else:
            lines.append(f"  {name}".ljust(column) + first.lstrip())
        lines += more
    return "\n".join(lines)


def _wrapped(text: str, indent: int) -> list[str]:
    blank = " " * indent
    lines = textwrap.wrap(
        as_typed(text), WIDTH, initial_indent=blank, subsequent_indent=blank
    )
    return [line.replace(_NO_BREAK, " ") for line in lines]


def _model_page(word: str, table: Table) -> str:
    """Return what an entry of models.yaml is.

    Raises:
        UsageError: there is no such model.
    """
    read = context.read_catalogue(CommandLine(command="help"))
    catalogue = read.catalogue
    if endpoint := catalogue.endpoint_name(word):
        return _endpoint_page(endpoint, catalogue.endpoint(endpoint), table.program)
    if word.lower() not in catalogue.names_and_aliases:
        names = (*table.verbs, *table.commands, *catalogue.names_and_aliases)
        names += catalogue.endpoint_names
        fix = did_you_mean(word, names) or f"{table.program} help"
        raise UsageError(f"{word!r} is not a verb or a model", fix=fix)
    resolved = resolve_entry(catalogue.name(word), catalogue, read.environment)
    found = on_disk(read.environment.cache, resolved)
    facts = [*_facts(resolved, found), ("here", _here(found))]
    lines = [f"  {name:<9} {visible(str(value))}" for name, value in facts if value]
    lines = [as_typed(line) for line in lines]
    name = positional.quoted(resolved.name)
    steps = [
        (f"{table.program} serve {name}", "serves it"),
        (f"{table.program} plan {name}", "says what that would fetch and need"),
    ]
    if resolved.model.kind == "chat":
        steps.append((f'{table.program} chat {name} "…"', "asks it"))
    width = max(len(command) for command, _ in steps) + 2
    lines += ["", *(f"  {command:<{width}}{about}" for command, about in steps)]
    return "\n".join([f"{resolved.name}: {visible(resolved.model.title)}", *lines])


def _endpoint_page(name: str, entry: Endpoint, program: str) -> str:
    """Return what an endpoint of models.yaml is."""
    facts = [("models", ", ".join(entry.models)), ("keep", ", ".join(entry.keep))]
    memory = "7/8 of this machine's"
    if entry.memory is not None:
        memory = f"{entry.memory:g} GB"
    facts += [("memory", memory), ("idle", f"{entry.idle} s" if entry.idle else "")]
    chosen = [f"{model} {variant}" for model, variant in entry.variants.items()]
    facts.append(("variants", ", ".join(chosen)))
    lines = [f"  {key:<9} {value}" for key, value in facts if value]
    steps = [
        (f"{program} serve {name}", "serves its models on one port"),
        (f"{program} plan {name}", "says what that would fetch and need"),
        (f'{program} chat {name} --as {entry.models[0]} "…"', "asks one of them"),
    ]
    width = max(len(command) for command, _ in steps) + 2
    lines += ["", *(f"  {command:<{width}}{about}" for command, about in steps)]
    count = f"{len(entry.models)} models"
    if len(entry.models) == 1:
        count = "one model"
    return "\n".join([f"{name}: an endpoint of {count}", *lines])


def _facts(resolved: ResolvedModel, found: OnDisk) -> Iterator[tuple[str, object]]:
    model = resolved.model
    yield "aliases", ", ".join(model.aliases)
    if model.kind != "chat":
        yield "kind", model.kind
    yield "license", model.license
    yield "size", formatting.format_size(found.size)
    if found.memory:
        yield "memory", formatting.format_size(found.memory)
    yield "weights", ", ".join(filter(None, (model.params, model.quant)))
    if choice := resolved.choice:
        names = ", ".join(need.name for need in choice.needs)
        yield "variants", f"{names}; used here: {choice.name}"
    yield "engine", resolved.engine
    yield "from", model.url
    yield "sha256", model.sha256 or "not pinned; `doit lock` pins it"


def _here(found: OnDisk) -> str:
    if found.state != "partial":
        return _HERE[found.state]
    done = formatting.format_percent(found.downloaded, found.size)
    return f"{done or formatting.format_size(found.downloaded)} of it"
