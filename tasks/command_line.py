"""What may stand behind a verb on the command line, and reading it.

The tables are doit's own option dictionaries (doit parses and documents them); they are read here a
second time while tasks are loaded, because the command line shapes the graph (`--model`, `--engine`)
also for sub-tasks, which doit's @task_params does not reach. Pure.
"""

from __future__ import annotations

import getopt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tasks.errors import UsageError, did_you_mean

Option = dict[str, Any]

# doit's own commands: they look at tasks instead of running them
DOIT_COMMANDS = frozenset(
    ["clean", "dumpdb", "forget", "help", "ignore", "info", "list", "reset-dep", "strace", "tabcompletion"]
)


def _option(long: str, metavar: str, about: str, kind: type = str, short: str = "") -> Option:
    default: Any = {list: [], bool: False}.get(kind)
    name = long.replace("-", "_")
    option = {"name": name, "long": long, "short": short, "type": kind, "default": default, "help": about}
    return option if kind is bool else {**option, "metavar": metavar}


_MODEL = _option("model", "NAME", "the model, by name or alias [default: the catalogue's]")
_MODELS = _option("model", "NAME", "a model; may be given several times", list)
_JSON = _option("json", "", "as JSON, for programs", bool)
_RUNNING = _option("model", "NAME", "a model; may be given several times [default: all that run]", list)
_STOPPED = _option("model", "NAME", "a model; may be given several times [default: the only one]", list)
_YES = _option("yes", "", "answer yes where a question would be asked", bool)
_NO_ADOPT = _option("no-adopt", "", "download it even if another program has it here already", bool)
_FROZEN = _option("frozen", "", "fetch nothing that no digest pins (CI=true means this, too)", bool)
_TIMEOUT = _option("timeout", "SECONDS", "time until it must be ready")
_KEY = _option("api-key", "KEY", "what clients must send; better in $LLAMA_API_KEY, which `ps` does not show")
_SOURCE = [
    _option("llamafile", "PATH", "a .llamafile or .gguf of your own, instead of a catalogued model"),
    _option("llamafile-url", "URL", "where to get it, if it is not there yet"),
    {**_option("llamafile_url", "URL", "the same, spelled as in older scripts"), "name": "llamafile_url_old"},
    _option("sha256", "HEX", "the digest that file must have"),
    _YES,
    _NO_ADOPT,
    _FROZEN,
]
_SERVE = [
    _option("host", "ADDR", "address to listen on"),
    _option("port", "N", "TCP port; 0 picks a free one"),
    _option("force-gpu", "", "put all layers on the GPU (-ngl 9999)", bool),
    _option("gpu", "KIND", "auto, disable, amd, apple, nvidia or vulkan"),
    _option("ngl", "N", "layers to put on the GPU"),
    _option("ctx-size", "N", "context in tokens; 0: as the model was trained"),
    _option("n-predict", "N", "tokens an answer may have; -1: no limit"),
    _option("threads", "N", "CPU threads"),
    _option("engine", "NAME", "self, llamafile or embedded"),
    _KEY,
    _option("probe", "", "ready means: it has generated a token", bool),
    _TIMEOUT,
]
_RAN = _option("model", "NAME", "a model [default: the only one that runs]")
_LOGS = [
    _option("follow", "", "go on until the server ends", bool, "f"),
    _option("lines", "N", "only the last N lines", str, "n"),
]
_PRUNE = [
    _option("dry-run", "", "only say what would be removed", bool),
    _option("older-than", "AGE", "keep what was used or changed since: 30d, 12h or 4w"),
]


class Verb(NamedTuple):
    """One verb: what it is for (a line of `doit list`), its options, and those of `verb:MODEL`."""

    about: str
    options: list[Option]
    one_options: list[Option]
    rest: str = ""  # what may stand behind: nothing, words of its own, or `--` and more


VERBS: Mapping[str, Verb] = {
    "catalogue": Verb("show the models: name, size, licence, memory, what is here", [_JSON], []),
    "download": Verb(
        "download a model, verified: the default one, or --model NAME", [_MODELS, *_SOURCE], _SOURCE
    ),
    "exe": Verb("download llamafile's own program, for Windows and .gguf files", [_FROZEN], []),
    "chmod": Verb("make a downloaded llamafile executable", [_MODELS], []),
    "verify": Verb("prove that a model's program runs here (--version)", [_MODELS], []),
    "serve": Verb(
        "serve a model in the foreground: the default one, or --model NAME",
        [_MODEL, *_SERVE, *_SOURCE],
        [*_SERVE, *_SOURCE],
        "engine_arguments",
    ),
    "start": Verb(
        "serve it in the background; returns when it is ready",
        [_MODELS, *_SERVE, *_SOURCE],
        [*_SERVE, *_SOURCE],
        "engine_arguments",
    ),
    "with": Verb(
        "serve it while a command runs: doit with --model NAME -- COMMAND",
        [_MODEL, *_SERVE, *_SOURCE],
        [*_SERVE, *_SOURCE],
        "command",
    ),
    "chat": Verb(
        'ask it: doit chat "What is a llamafile?"',
        [_MODEL, _TIMEOUT, _YES, _NO_ADOPT, _FROZEN],
        [_TIMEOUT, _YES, _NO_ADOPT, _FROZEN],
        "prompt",
    ),
    "stop": Verb(
        "end a server that runs in the background, or in another terminal",
        [_STOPPED, _option("all", "", "every one", bool)],
        [],
    ),
    "plan": Verb(
        "show what would be fetched, from where, and whether disk and memory suffice",
        [_MODELS, *_SERVE, *_SOURCE, _JSON],
        [*_SERVE, *_SOURCE, _JSON],
    ),
    "add": Verb(
        "write an entry into models.yaml: doit add URL, or hf:OWNER/REPO/FILE",
        [
            _option("name", "NAME", "what it is to be called [default: from the file's name]"),
            _option("sha256", "HEX", "its digest, where the publisher states none"),
            _option("license", "TEXT", "its licence, where the publisher states none"),
            _option("download", "", "download and hash it, where the publisher states no digest", bool),
        ],
        [],
        "source",
    ),
    "lock": Verb(
        "write models.lock: exactly which bytes each entry of models.yaml means",
        [
            _option("model", "NAME", "only this model, or engine; may be given several times", list),
            _option("check", "", "only say whether it covers models.yaml; needs no network", bool),
            _option("upgrade", "", "move what models.yaml leaves open to what its publisher has now", bool),
            _option("download", "", "download and hash what no publisher states the digest of", bool),
        ],
        [],
    ),
    "status": Verb("show the servers: state, endpoint, memory, requests", [_RUNNING, _JSON], [_JSON]),
    "doctor": Verb("look for what would fail here, and say what mends it", [_MODEL, _JSON], [_JSON]),
    "logs": Verb("show what a server has printed", [_RAN, *_LOGS], _LOGS),
    "audit": Verb(
        "read every file that is here again: is it what the catalogue says?", [_MODELS, _JSON], [_JSON]
    ),
    "prune": Verb("free space: remove what no catalogue names, and what was abandoned", [*_PRUNE, _JSON], []),
    "bom": Verb("list what is here: source, commit, digest, licence, engine", [_JSON], []),
    "cache-key": Verb("under which key a CI system keeps a model's files", [_MODELS, _JSON], [_JSON]),
}

# each verb of a model needs those before it; the last four all start its engine
STEPS = ("download", "chmod", "verify")
STARTS = ("serve", "start", "with", "chat")
# these look at what runs, at the catalogue, or at what is here as a whole; they need no model's files
LOOKS = ("stop", "status", "logs", "doctor", "lock", "add", "audit", "prune", "bom", "cache-key")
# these look at what a model would need
FORESEES = ("plan",)


class Ask(NamedTuple):
    """One task as the command line asks for it."""

    verb: str
    model: str | None  # from `verb:model`
    options: Mapping[str, Any]
    extra: tuple[str, ...] = ()  # what stood after `--`

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

    def reaches(self, verb: str) -> bool:
        """Whether tasks of a verb of the chain have to exist: it is asked for, or something behind it."""
        asked = {ask.verb for ask in self.asks}
        after = {verb} if verb in STARTS else {*STEPS[STEPS.index(verb) :], *STARTS}
        return bool(self.command or asked & after)

    def shows(self, verb: str) -> bool:
        """Whether models' tasks of a verb have to exist: `doit list` wants those of the verbs that it names.

        Without a name it wants one line per model, not one per step of each.
        """
        named = [word for word in self.words if _verb(word)] or ["serve"]
        return self.command != "list" or verb in named or any(":" in word for word in named)


def parse(argv: Sequence[str]) -> Request:
    """Read a command line (without the program's name).

    Raises UsageError: an option that does not exist, or a word where none is expected.
    """
    words = list(argv)
    extra: tuple[str, ...] = ()
    if "--" in words:
        cut = words.index("--")
        words, extra = words[:cut], tuple(words[cut + 1 :])
    start = next((i for i, w in enumerate(words) if _verb(w) or w in DOIT_COMMANDS), len(words))
    _check_controls(words[:start])
    if start < len(words) and words[start] in DOIT_COMMANDS:
        _check_controls(words[start:])
        if words[start] == "info":  # doit has only a traceback for a task that it does not know
            _check_first([word for word in words[start + 1 :] if not _verb(word)])
        return Request(command=words[start], words=tuple(words[start + 1 :]))
    if start == len(words):
        _check_first([word for word in words if word != "run"])
    asks: list[Ask] = []
    rest = words[start:]
    while rest and _verb(rest[0]):
        if asks and asks[-1].verb in ("serve", "with", "chat"):
            raise UsageError(f"nothing follows `{asks[-1].verb}`, which runs until it ends: {rest[0]}")
        ask, rest = _one(rest[0], rest[1:])
        asks.append(ask)
    if rest and asks:
        raise UsageError(f"{rest[0]!r} is not a task", fix=_word_fix(asks[-1].verb, rest[0]))
    if extra:
        last = asks[-1] if asks else None
        if last is None or not VERBS[last.verb].rest:
            fix = "doit serve … -- ARGUMENTS, doit with … -- COMMAND"
            raise UsageError("`--` hands on arguments to the engine, or to a command", fix=fix)
        asks[-1] = last._replace(extra=(*last.extra, *extra))
    if asks and asks[-1].verb == "with" and not asks[-1].extra:
        raise UsageError("`doit with` needs a command", fix="doit with … -- COMMAND")
    return Request(tuple(asks))


def _verb(word: str) -> str:
    verb = word.partition(":")[0]
    return verb if verb in VERBS else ""


def _check_first(words: Sequence[str]) -> None:
    """A first word that is no option of doit's was meant as a verb; doit's own message names none."""
    if words and not words[0].startswith("-") and "=" not in words[0]:
        near = did_you_mean(words[0].partition(":")[0], (*VERBS, *DOIT_COMMANDS))
        fix = near or "`doit list` shows the verbs, `doit` the models"
        raise UsageError(f"{words[0]!r} is not a task", fix=fix)


def _check_controls(words: Sequence[str]) -> None:
    """Refuse control characters: doit shows a word that it does not know as it is."""
    for word in words:
        if any(ord(c) < 32 or 127 <= ord(c) < 160 for c in word):
            raise UsageError(f"{word!r} is not a task", fix="`doit list` shows the verbs")


def _word_fix(verb: str, word: str) -> str:
    near = did_you_mean(word, tuple(VERBS)) if len(word) > 2 else ""  # a letter or two begin many verbs
    if near or verb == "with":
        return near or f"doit with … -- {word}"
    if not any(option["long"] == "model" for option in VERBS[verb].options):
        return f"`doit help {verb}` lists its options"
    after = "    (and `--` before what is meant for the engine)" if VERBS[verb].rest else ""
    return f"doit {verb} --model {word}{after}" if verb == "lock" else f"doit {verb}:{word}{after}"


def _one(word: str, rest: list[str]) -> tuple[Ask, list[str]]:
    verb, colon, model = word.partition(":")
    table = VERBS[verb].one_options if colon else VERBS[verb].options
    longs = [o["long"] + ("" if o["type"] is bool else "=") for o in table]
    shorts = "".join(o["short"] + ("" if o["type"] is bool else ":") for o in table if o["short"])
    given, words = rest, VERBS[verb].rest in ("prompt", "source")
    try:
        pairs, rest = (getopt.gnu_getopt if words else getopt.getopt)(rest, shorts, longs)
    except getopt.GetoptError as error:
        raise UsageError(f"doit {word}: {error.msg}", fix=_option_fix(word, error.opt, table)) from None
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
    return Ask(verb, model if colon else None, options, tuple(rest) if words else ()), [] if words else rest


def _option_fix(word: str, given: str, table: Sequence[Option]) -> str:
    if given in ("help", "h"):
        return f"doit help {word.partition(':')[0]}"
    known = next((o for o in table if given and given in (o["long"], o["short"])), None)
    if known is not None:  # it lacks its value, or has one too many
        return f"{'--' if known['long'] == given else '-'}{given} {known.get('metavar', '')}".rstrip()
    near = did_you_mean("--" + given, ["--" + o["long"] for o in table])
    verb = word.partition(":")[0]
    after = "; engine arguments go after `--`" if VERBS[verb].rest == "engine_arguments" else ""
    return near or f"`doit help {verb}` lists the options{after}"
