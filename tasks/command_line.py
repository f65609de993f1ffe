"""What may stand behind a verb on the command line, and reading it.

The tables are doit's own option dictionaries (doit parses and documents them); they are read here a
second time while tasks are loaded, because the command line shapes the graph (`--model`, `--engine`)
also for sub-tasks, which doit's @task_params does not reach. Pure.
"""

from __future__ import annotations

import getopt
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from tasks.errors import UsageError, did_you_mean
from tasks.options import Option

# doit's own commands: they look at tasks instead of running them
DOIT_COMMANDS = frozenset(
    ["clean", "dumpdb", "forget", "help", "ignore", "info", "list", "reset-dep", "strace", "tabcompletion"]
)


class Kind(Enum):
    """What a verb does, as far as the tasks that it needs depend on it."""

    STEP = "step"  # a step of the chain that each model passes through
    PROGRAM = "program"  # installs the engine's program
    SERVER = "server"  # starts a model's engine
    PLAN = "plan"  # reports on models as the command line resolves them
    REPORT = "report"  # needs no model's files


class Verb(NamedTuple):
    """One verb: its line in `doit list`, its options, and what may follow them."""

    kind: Kind
    about: str
    params: Sequence[Option]
    pos_arg: str = ""  # the name of further words, or of what follows `--`

    @property
    def model_params(self) -> list[Option]:
        """Return the options of VERB:MODEL."""
        return [option for option in self.params if option["long"] not in ("model", "all")]


Verbs = Mapping[str, Verb]


class Ask(NamedTuple):
    """One task as the command line asks for it."""

    verb: str
    model: str | None  # from `verb:model`
    options: Mapping[str, Any]
    extra: tuple[str, ...] = ()  # what stood after `--`
    kind: Kind = Kind.STEP

    @property
    def models(self) -> tuple[str, ...]:
        """The models named by this one task."""
        named = self.options.get("model") or ()
        return (self.model,) if self.model else (named,) if isinstance(named, str) else tuple(named)


class Request(NamedTuple):
    """The whole command line."""

    asks: tuple[Ask, ...] = ()  # the tasks to run, in order
    command: str = ""  # doit's command when it only looks at tasks (`list`, `info` …), else empty
    words: tuple[str, ...] = ()  # that command's arguments


def parse(argv: Sequence[str], verbs: Verbs) -> Request:
    """Read a command line (without the program's name).

    Raises UsageError: an option that does not exist, or a word where none is expected.
    """
    words = list(argv)
    extra: tuple[str, ...] = ()
    if "--" in words:
        cut = words.index("--")
        words, extra = words[:cut], tuple(words[cut + 1 :])
    start = next((i for i, w in enumerate(words) if _verb(w, verbs) or w in DOIT_COMMANDS), len(words))
    _check_controls(words[:start])
    if start < len(words) and words[start] in DOIT_COMMANDS:
        _check_controls(words[start:])
        if words[start] == "info":  # doit has only a traceback for a task that it does not know
            _check_first([word for word in words[start + 1 :] if not _verb(word, verbs)], verbs)
        return Request(command=words[start], words=tuple(words[start + 1 :]))
    if start == len(words):
        _check_first([word for word in words if word != "run"], verbs)
    asks: list[Ask] = []
    rest = words[start:]
    while rest and _verb(rest[0], verbs):
        if asks and asks[-1].verb in ("serve", "with", "chat"):
            raise UsageError(f"nothing follows `{asks[-1].verb}`, which runs until it ends: {rest[0]}")
        ask, rest = _one(rest[0], rest[1:], verbs)
        asks.append(ask)
    if rest and asks:
        raise UsageError(f"{rest[0]!r} is not a task", fix=_word_fix(asks[-1].verb, rest[0], verbs))
    if extra:
        last = asks[-1] if asks else None
        if last is None or not verbs[last.verb].pos_arg:
            fix = "doit serve … -- ARGUMENTS, doit with … -- COMMAND"
            raise UsageError("`--` hands on arguments to the engine, or to a command", fix=fix)
        asks[-1] = last._replace(extra=(*last.extra, *extra))
    if asks and asks[-1].verb == "with" and not asks[-1].extra:
        raise UsageError("`doit with` needs a command", fix="doit with … -- COMMAND")
    return Request(tuple(asks))


def _verb(word: str, verbs: Verbs) -> str:
    verb = word.partition(":")[0]
    return verb if verb in verbs else ""


def _check_first(words: Sequence[str], verbs: Verbs) -> None:
    """A first word that is no option of doit's was meant as a verb; doit's own message names none."""
    if words and not words[0].startswith("-") and "=" not in words[0]:
        near = did_you_mean(words[0].partition(":")[0], (*verbs, *DOIT_COMMANDS))
        fix = near or "`doit list` shows the verbs, `doit` the models"
        raise UsageError(f"{words[0]!r} is not a task", fix=fix)


def _check_controls(words: Sequence[str]) -> None:
    """Refuse control characters: doit shows a word that it does not know as it is."""
    for word in words:
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in word):
            raise UsageError(f"{word!r} is not a task", fix="`doit list` shows the verbs")


def _word_fix(verb: str, word: str, verbs: Verbs) -> str:
    near = did_you_mean(word, tuple(verbs)) if len(word) > 2 else ""  # a letter or two begin many verbs
    if near or verb == "with":
        return near or f"doit with … -- {word}"
    if not any(option["long"] == "model" for option in verbs[verb].params):
        return f"`doit help {verb}` lists its options"
    after = "    (and `--` before what is meant for the engine)" if verbs[verb].pos_arg else ""
    return f"doit {verb} --model {word}{after}" if verb == "lock" else f"doit {verb}:{word}{after}"


def _one(word: str, rest: list[str], verbs: Verbs) -> tuple[Ask, list[str]]:
    verb, colon, model = word.partition(":")
    table = verbs[verb].model_params if colon else verbs[verb].params
    longs = [o["long"] + ("" if o["type"] is bool else "=") for o in table]
    shorts = "".join(o["short"] + ("" if o["type"] is bool else ":") for o in table if o["short"])
    given, words = rest, verbs[verb].pos_arg in ("prompt", "source")
    try:
        pairs, rest = (getopt.gnu_getopt if words else getopt.getopt)(rest, shorts, longs)
    except getopt.GetoptError as error:
        raise UsageError(
            f"doit {word}: {error.msg}", fix=_option_fix(word, error.opt, table, verbs)
        ) from None
    for flag, value in pairs:
        if "=" in value and not value.startswith("-") and value in given:
            import shlex  # only on the way to an error

            what = f"doit {word}: doit takes {value} for a variable, because of its ="
            raise UsageError(what, fix=f"{flag}={shlex.quote(value)}")
    by_long = {"--" + o["long"]: o for o in table} | {"-" + o["short"]: o for o in table if o["short"]}
    options: dict[str, Any] = {}
    for flag, value in pairs:
        option = by_long[flag]
        name = "llamafile_url" if option["name"] == "llamafile_url_old" else option["name"]
        if option["type"] is list:
            options.setdefault(name, []).append(value)
        else:
            options[name] = True if option["type"] is bool else value
    extra = tuple(rest) if words else ()
    asked = Ask(verb, model if colon else None, options, extra, verbs[verb].kind)
    return asked, [] if words else rest


def _option_fix(word: str, given: str, table: Sequence[Option], verbs: Verbs) -> str:
    if given in ("help", "h"):
        return f"doit help {word.partition(':')[0]}"
    known = next((o for o in table if given and given in (o["long"], o["short"])), None)
    if known is not None:  # it lacks its value, or has one too many
        return f"{'--' if known['long'] == given else '-'}{given} {known.get('metavar', '')}".rstrip()
    near = did_you_mean("--" + given, ["--" + o["long"] for o in table])
    verb = word.partition(":")[0]
    after = "; engine arguments go after `--`" if verbs[verb].pos_arg == "engine_arguments" else ""
    return near or f"`doit help {verb}` lists the options{after}"
