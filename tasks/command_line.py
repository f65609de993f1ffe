"""Parse the command line: verbs, their options, and what follows them. Pure.

The options are doit's own dictionaries, which doit parses and documents. They are
parsed here, too, while tasks are loaded: the command line (`--model`, `--engine`)
decides which tasks exist, also sub-tasks, which doit's @task_params does not reach.
"""

from __future__ import annotations

import getopt
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NamedTuple

from tasks import positional
from tasks.errors import UsageError, did_you_mean
from tasks.options import Option, option_fix

# doit's own commands: they look at tasks instead of running them
DOIT_COMMANDS = frozenset(
    [
        *("clean", "dumpdb", "forget", "help", "ignore", "info", "list"),
        *("reset-dep", "strace", "tabcompletion"),
    ]
)
# those of them that have an effect here
USEFUL_COMMANDS = ("help", "info", "list")
# verbs that no other verb may follow
_LAST = ("serve", "with", "chat", "bench", "check")
_MODEL_FLAGS = ("--model", "--llamafile", "--llamafile-url", "--llamafile_url")
# `pos_arg` of verbs with words among their options
_WORD_VERBS = ("prompt", "source", "reference")


class Kind(Enum):
    """What a verb does, as far as the tasks that it needs depend on it."""

    STEP = "step"  # a step of the chain that each model passes through
    PROGRAM = "program"  # installs the engine's program
    SERVER = "server"  # starts a model's engine
    PLAN = "plan"  # reports on models as the command line resolves them
    REPORT = "report"  # needs no model's files


class UnknownWordError(UsageError):
    """The first word of a command line is not a verb."""

    def __init__(self, word: str, fix: str) -> None:
        self.word = word
        super().__init__(f"{word!r} is not a verb", fix=fix)


class Verb(NamedTuple):
    """One verb: its line in `doit list`, its options, and what may follow them."""

    kind: Kind
    help: str
    params: Sequence[Option]
    pos_arg: str = ""  # the name of further words, or of what follows `--`
    names: Sequence[str] = ()  # what follows its colon instead of a model

    @property
    def model_params(self) -> list[Option]:
        """Return the options of VERB:MODEL."""
        return [one for one in self.params if one["long"] not in ("model", "all")]


Verbs = Mapping[str, Verb]


class TaskRequest(NamedTuple):
    """One task as the command line asks for it."""

    verb: str
    model: str | None  # from `verb:model`
    options: Mapping[str, Any]
    extra: tuple[str, ...] = ()  # the words after `--`
    kind: Kind = Kind.STEP
    after_dashes: int = 0  # words of `extra` behind `--`, if others may precede it

    @property
    def models(self) -> tuple[str, ...]:
        """The models that this task names."""
        if self.model:
            return (self.model,)
        named = self.options.get("model") or ()
        if isinstance(named, str):
            return (named,)
        return tuple(named)

    @property
    def task_name(self) -> str:
        """The name of doit's task: `verb`, or `verb:model`."""
        if self.model is None:
            return self.verb
        return f"{self.verb}:{self.model}"


class CommandLine(NamedTuple):
    """The whole command line."""

    tasks: tuple[TaskRequest, ...] = ()  # the tasks to run, in order
    command: str = ""  # doit's own command (`list`, `info` …), empty when tasks run
    words: tuple[str, ...] = ()  # that command's arguments


def parse(
    argv: Sequence[str], verbs: Verbs, *, plain_doit: bool = False
) -> CommandLine:
    """Parse a command line (without the program's name).

    Args:
        plain_doit: doit parses these words, too (docs/adr/0015): a model needs
            `--model`, and a value must not look like a variable.

    Raises:
        UsageError: an option that does not exist, or an unexpected word.
    """
    words = list(argv)
    extra: tuple[str, ...] = ()
    if "--" in words:
        end = words.index("--")
        extra = tuple(words[end + 1 :])
        words = words[:end]
    known = (i for i, word in enumerate(words) if _is_known(word, verbs))
    start = next(known, len(words))
    _check_controls(words[:start])
    if start == len(words):
        others = [word for word in words if word != "run"]
        _check_first(others, verbs, (*verbs, *USEFUL_COMMANDS, "--version"))
    elif words[start] in DOIT_COMMANDS:
        return _doit_command(words[start], words[start + 1 :], verbs)
    if plain_doit and words[start:]:
        _check_plain(words[start:], verbs)
    if "--" not in argv:
        _check_dashes(words[start:], verbs)
    asks = _asks(words[start:], verbs)
    if extra:
        asks = _with_extra(asks, extra, verbs)
    if asks and asks[-1].verb == "with" and not asks[-1].extra:
        raise UsageError("`doit with` needs a command", fix="doit with … -- COMMAND")
    return CommandLine(tuple(asks))


def _check_dashes(words: Sequence[str], verbs: Verbs) -> None:
    """Refuse the command of `doit with` where no `--` precedes it.

    Raises:
        UsageError: the fix is the whole command line, with `--`.
    """
    word, *rest = words or [""]
    verb, colon, _ = word.partition(":")
    if verb != "with" or verb not in verbs:
        return
    table = verbs[verb].params
    if colon:
        table = verbs[verb].model_params
    pairs, command = _parse_options(word, rest, table, verbs)
    has_model = colon or any(flag in _MODEL_FLAGS for flag, _ in pairs)
    if command and not has_model:  # the model, then further options
        _, command = _parse_options(word, command[1:], table, verbs)
    if command:
        typed = list(words[: len(words) - len(command)])
        fix = " ".join(map(positional.quoted, ["doit", *typed, "--", *command]))
        raise UsageError("`doit with` needs `--` before its command", fix=fix)


def _is_known(word: str, verbs: Verbs) -> bool:
    return _is_task(word, verbs) or word in DOIT_COMMANDS


def _is_task(word: str, verbs: Verbs) -> bool:
    return word.partition(":")[0] in verbs


def _doit_command(command: str, words: Sequence[str], verbs: Verbs) -> CommandLine:
    """Return the request of one of doit's own commands."""
    _check_controls(words)
    for word in words:
        _check_colon(word, verbs)
    if command == "info":  # doit prints a traceback for a task that does not exist
        others = [word for word in words if not _is_task(word, verbs)]
        _check_first(others, verbs, tuple(verbs))
    return CommandLine(command=command, words=tuple(words))


def _asks(words: list[str], verbs: Verbs) -> list[TaskRequest]:
    """Parse the verbs with their options.

    Raises:
        UsageError: a word or an option is wrong.
    """
    asks: list[TaskRequest] = []
    while words and _is_task(words[0], verbs):
        if asks and asks[-1].verb in _LAST:
            verb = asks[-1].verb
            what = f"nothing follows `{verb}`, which runs until it ends: {words[0]}"
            raise UsageError(what)
        request, words = _parse_verb(words[0], words[1:], verbs)
        asks.append(request)
    if words and asks:
        raise _word_error(asks[-1].verb, words[0], verbs)
    return asks


def _check_colon(word: str, verbs: Verbs) -> None:
    """Refuse `VERB:` without a model, and `VERB:MODEL` of a verb that takes none.

    Raises:
        UsageError: the word is one of them, or VERB has no such NAME.
    """
    verb, colon, model = word.partition(":")
    if verb not in verbs or not colon:
        return
    if names := verbs[verb].names:
        positional.check_name(verb, model, names)
        return
    if not any(option["long"] == "model" for option in verbs[verb].params):
        raise UsageError(f"`doit {verb}` takes no model: {word}", fix=f"doit {verb}")
    if not model.strip():
        what = f"doit {word} expected a model's name after the colon"
        raise UsageError(what, fix=f"doit {verb}:NAME, or doit {verb}")


def _with_extra(
    asks: list[TaskRequest], extra: tuple[str, ...], verbs: Verbs
) -> list[TaskRequest]:
    """Add the words after `--` to the last verb.

    Raises:
        UsageError: it takes none.
    """
    if not asks or not verbs[asks[-1].verb].pos_arg:
        what = "`--` passes arguments to the engine, or to a command"
        raise UsageError(what, fix="doit serve … -- ARGUMENTS, doit with … -- COMMAND")
    last = asks[-1]
    words = (*last.extra, *extra)
    count = 0
    if verbs[last.verb].pos_arg in _WORD_VERBS:
        count = len(extra)
    return [*asks[:-1], last._replace(extra=words, after_dashes=count)]


def _check_plain(words: Sequence[str], verbs: Verbs) -> None:
    """Refuse what doit itself would not understand, where it parses the words, too.

    Raises:
        UsageError: the fix is the form that doit understands.
    """
    word = words[0]
    verb, colon, _ = word.partition(":")
    if verbs[verb].pos_arg in _WORD_VERBS:
        return
    table = verbs[verb].model_params if colon else verbs[verb].params
    pairs, rest = _parse_options(word, list(words[1:]), table, verbs)
    for flag, value in pairs:
        if "=" in value and not value.startswith("-") and value in words:
            what = f"doit {word}: doit takes {value} for a variable, because of its ="
            raise UsageError(what, fix=f"{flag}={positional.quoted(value)}")
    if not rest:
        return
    if _is_task(rest[0], verbs):
        _check_plain(rest, verbs)
        return
    name = positional.option_of(rest[0], table)
    if name:
        option = f"--{name.replace('_', '-')}={positional.quoted(rest[0])}"
        raise UsageError(f"{rest[0]!r} is not a verb", fix=f"doit {word} {option}")


def _check_first(words: Sequence[str], verbs: Verbs, names: Sequence[str]) -> None:
    """Refuse a first word that is not an option: doit's own message names no verb.

    Args:
        names: what it may be meant to be.
    """
    if words and not words[0].startswith("-") and "=" not in words[0]:
        near = did_you_mean(words[0].partition(":")[0], names)
        fix = near or "`doit list` shows the verbs, `doit` the models"
        raise UnknownWordError(words[0], _serve_fix(words[0], verbs) or fix)


def _serve_fix(word: str, verbs: Verbs) -> str:
    """Return the command that serves a file or a URL; "" for any other word."""
    if positional.option_of(word, verbs["serve"].params) in ("", "model"):
        return ""
    return f"doit serve {positional.quoted(word)}"


def _check_controls(words: Sequence[str]) -> None:
    """Refuse control characters: doit prints an unknown word without escaping it."""
    for word in words:
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in word):
            what = f"{word!r} is not a verb"
            raise UsageError(what, fix="`doit list` shows the verbs")


def _word_error(verb: str, word: str, verbs: Verbs) -> UsageError:
    """Return the error for a word behind a verb that is not a verb."""
    what = f"{word!r} is not a verb"
    fix = f"doit {verb} {positional.quoted(word)}"
    if not word.strip():
        fix = "name a model (`doit` lists them); is a variable unset?"
    # one or two letters are near to many verbs
    elif len(word) > 2 and (near := did_you_mean(word, tuple(verbs))):
        fix = near
    elif verb == "with":
        fix = f"doit with … -- {word}"
    elif word in verbs[verb].names:
        fix = f"doit {verb}:{word}"
    elif not any(option["long"] == "model" for option in verbs[verb].params):
        what = f"`doit {verb}` takes no model: {word}"
        fix = f"`doit help {verb}` lists its options"
    return UsageError(what, fix=fix)


def _parse_verb(
    word: str, rest: list[str], verbs: Verbs
) -> tuple[TaskRequest, list[str]]:
    """Parse one verb's options; return it and the remaining words."""
    verb, colon, model = word.partition(":")
    _check_colon(word, verbs)
    table = verbs[verb].params
    if colon:
        table = verbs[verb].model_params
    pairs, words = _parse_options(word, rest, table, verbs)
    names: list[str] = []
    while words and not _is_task(words[0], verbs):
        if verbs[verb].pos_arg in _WORD_VERBS or not positional.option_of(
            words[0], table
        ):
            break
        names.append(words[0])
        more, words = _parse_options(word, words[1:], table, verbs)
        pairs += more
    options = _values(word, pairs, table)
    positional.add_words(word, names, options, table)
    request = TaskRequest(verb, None, options, kind=verbs[verb].kind)
    if colon:
        request = request._replace(model=model)
    if verbs[verb].pos_arg in _WORD_VERBS:
        return request._replace(extra=tuple(words)), []
    return request, words


def _parse_options(
    word: str, rest: list[str], table: Sequence[Option], verbs: Verbs
) -> tuple[list[tuple[str, str]], list[str]]:
    """Return (flag, value) pairs and the words that are not options.

    Raises:
        UsageError: an option does not exist, or its value is empty.
    """
    longs = [one["long"] + _mark(one, "=") for one in table]
    shorts = "".join(one["short"] + _mark(one, ":") for one in table if one["short"])
    verb = word.partition(":")[0]
    try:
        if verbs[verb].pos_arg in _WORD_VERBS:
            pairs, words = getopt.gnu_getopt(rest, shorts, longs)
        else:
            pairs, words = getopt.getopt(rest, shorts, longs)
    except getopt.GetoptError as error:
        fix = option_fix(word, error.opt, table, verbs[verb].pos_arg)
        raise UsageError(f"doit {word}: {error.msg}", fix=fix) from None
    for flag, value in pairs:
        if flag == "--model" and not value.strip():
            what = f"doit {word}: --model: expected a name, got {value!r}"
            raise UsageError(what, fix="`doit` shows the models")
    return pairs, words


def _mark(option: Option, mark: str) -> str:
    """Return getopt's mark for an option that has a value."""
    if option["type"] is bool:
        return ""
    return mark


def _values(
    word: str, pairs: Sequence[tuple[str, str]], table: Sequence[Option]
) -> dict[str, Any]:
    """Return the options' values by name.

    Raises:
        UsageError: several models, files or URLs where one is meant.
    """
    by_flag = {"--" + one["long"]: one for one in table}
    by_flag |= {"-" + one["short"]: one for one in table if one["short"]}
    values: dict[str, Any] = {}
    for flag, value in pairs:
        option = by_flag[flag]
        name = option["name"].removesuffix("_old")
        if option["type"] is list:
            values.setdefault(name, []).append(value)
        elif option["type"] is bool:
            values[name] = True
        else:
            positional.check_single(word, name, value, values)
            values[name] = value
    return values
