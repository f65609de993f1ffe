"""The commands and the messages of doit, as this recipe has them (docs/adr/0014).

pip installs this module, as it installs llamafile_recipe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from doit.cmd_base import Command, DoitCmdBase, check_tasks_exist
from doit.cmd_help import Help as DoitHelp
from doit.cmd_info import Info as DoitInfo
from doit.cmd_list import List as DoitList
from doit.cmd_run import Run as DoitRun
from doit.cmdparse import CmdParseError
from doit.dependency import DbmDB, JsonDB, SqliteDB
from doit.exceptions import InvalidCommand
from doit.reporter import (
    ConsoleReporter,
    ErrorOnlyReporter,
    ExecutedOnlyReporter,
    JsonReporter,
    ZeroReporter,
)

# doit's options that the recipe keeps, by name
_KEPT = ("always", "continue", "verbosity", "num_process", "par_type")
_PARALLEL = ("process", "thread")
_KEPT_OF_LIST = ("subtasks", "quiet", "status", "list_deps", "sort")
# what to use in place of another option of doit
_INSTEAD = (
    (("-r", "--reporter"), "LLAMAFILE_LOG=json logs JSON, VERB --json reports it"),
    (("-o", "--output-file"), "redirect the output: VERB 2>FILE"),
    (("-d", "--dir"), "cd DIRECTORY, or -f DIRECTORY of the clone"),
    (("-s", "--single"), "remove it: a step needs those before it"),
    (("--db-file", "--backend"), "remove it: the recipe keeps no database"),
)
# what to type in place of a command of doit that has no effect
UNUSED = {
    "clean": "`{0} prune` frees space",
    "dumpdb": "`{0} bom` lists what is here",
    "forget": "`{0} -a VERB` repeats its steps",
    "ignore": "`{0} help` lists the verbs",
    "reset-dep": "`{0} -a VERB` repeats its steps",
    "strace": "strace -f {0} VERB",
}
# what doit has without plugins; a dodo.py of another project may name any of them
_BACKENDS = {"dbm": DbmDB, "json": JsonDB, "sqlite3": SqliteDB}
_REPORTERS = {
    "console": ConsoleReporter,
    "executed-only": ExecutedOnlyReporter,
    "json": JsonReporter,
    "zero": ZeroReporter,
    "error-only": ErrorOnlyReporter,
}
_FLAGS = {"num_process": "-n", "verbosity": "-v"}  # by the name of the option


class Help(DoitHelp):  # type: ignore[misc]
    """`doit help`: the verbs of the recipe, the options of one, or a model."""

    name = "help"

    def execute(self, params: dict[str, Any], args: Sequence[str]) -> Any:
        """Print the help."""
        self.loader.setup(params)
        recipe = self.loader.recipe()
        if recipe is None:
            return super().execute(params, args)
        if args and args[0] in UNUSED:
            return self.cmds[args[0]](bin_name=self.bin_name).parse_execute(args)
        commands = {
            name: (command.doc_purpose, command.doc_usage, command.cmd_options)
            for name, command in self.cmds.items()
            if name not in UNUSED
        }
        print(recipe.help(args, commands, self.bin_name), flush=True)
        return 0


class _WithoutDatabase(DoitCmdBase):  # type: ignore[misc]
    """A command of doit, without the options that the recipe does not take."""

    base_options = ()

    def get_backends(self) -> dict[str, Any]:
        """Return the databases, without a search for plugins: none can be chosen."""
        return dict(_BACKENDS)

    def execute(self, params: dict[str, Any], args: Sequence[str]) -> Any:
        """Run the command, with the defaults of the options that it does not take."""
        values = {one["name"]: one["default"] for one in _all_options(type(self))}
        for name in values.keys() - params.keys():
            params.set_default(name, values[name])  # type: ignore[attr-defined]
        return super().execute(params, args)


def _all_options(command: type[DoitCmdBase]) -> Iterator[dict[str, Any]]:
    """Yield the options of a command of doit's, also those that are not taken here."""
    for base in command.__mro__:
        yield from vars(base).get("cmd_options", ())
        yield from vars(base).get("base_options", ())


def _only(command: type[DoitCmdBase], names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(one for one in command.cmd_options if one["name"] in names)


class Run(_WithoutDatabase, DoitRun):  # type: ignore[misc]
    """`doit VERB`."""

    name = "run"
    cmd_options = _only(DoitRun, _KEPT)

    def get_reporters(self) -> dict[str, Any]:
        """Return the reporters, without a search for plugins: none can be chosen."""
        return dict(_REPORTERS)

    def execute(self, params: dict[str, Any], args: Sequence[str]) -> Any:
        """Run the tasks.

        Raises:
            CmdParseError: the number of processes is negative, or -P is not a kind.
        """
        number, kind = params["num_process"], params["par_type"]
        if number < 0:
            raise CmdParseError(f"-n: expected 0 or a positive number, got {number}")
        if kind not in _PARALLEL:
            raise CmdParseError(f"-P: expected process or thread, got {kind!r}")
        if number and not _can_fork():
            params["par_type"] = "thread"
        return super().execute(params, args)


def _can_fork() -> bool:
    """Return whether new processes have the tasks; elsewhere, doit would pickle them.

    macOS and Windows do not fork, nor does Linux since Python 3.14.
    """
    import multiprocessing

    return multiprocessing.get_start_method() == "fork"


class List(_WithoutDatabase, DoitList):  # type: ignore[misc]
    """`doit list`."""

    name = "list"
    doc_purpose = "list the verbs; --all also lists the models"
    cmd_options = _only(DoitList, _KEPT_OF_LIST)


class Info(_WithoutDatabase, DoitInfo):  # type: ignore[misc]
    """`doit info TASK`, without the Python objects of the task."""

    name = "info"
    doc_purpose = "show what a task needs, and whether it would run"

    def _execute(self, pos_args: Sequence[str], hide_status: bool = False) -> Any:
        if len(pos_args) != 1:
            what = f"`info` expects one task, got {len(pos_args)}"
            fix = f"{self.bin_name} info VERB, or VERB:MODEL"
            raise InvalidCommand(f"{what}\n  fix: {fix}")
        check_tasks_exist({task.name for task in self.task_list}, pos_args)
        for task in self.task_list:
            task.params, task.meta, task.verbosity = (), None, None
        return super()._execute(pos_args, hide_status)

    @staticmethod
    def get_reasons(reasons: dict[str, Any]) -> str:
        """Return why a task would run."""
        lines = []
        if reasons.pop("uptodate_false", None):
            lines.append(" * What is here is not yet what it must be.")
        lines.append(str(DoitInfo.get_reasons(reasons)))
        return "\n".join(filter(None, lines))


class Unused(Command):  # type: ignore[misc]
    """A command of doit that has no effect here: say what to type instead."""

    def parse_execute(self, in_args: Sequence[str]) -> None:
        """Refuse it.

        Raises:
            InvalidCommand: always.
        """
        what = f"`{self.bin_name} {self.name}` has no effect here: nothing uses it"
        fix = UNUSED[self.name].format(self.bin_name)
        raise InvalidCommand(f"{what}\n  fix: {fix}")


def parse_error(text: str, program: str) -> str:
    """Return doit's message without its dump of the options it knows."""
    fix = f"{program} VERB [OPTIONS]; `{program} help` lists the verbs"
    value = re.match(r"Error parsing parameter '(\w+)'(.*)", text, re.DOTALL)
    if value:
        flag = _FLAGS.get(value[1], f"--{value[1]}")
        text = f"{flag}: expected {_expected(value[2])}"
    option = re.search(r"option (\S+) not recognized", text)
    for flags, instead in _INSTEAD:
        if option and option[1] in flags:
            fix = instead
    text = re.sub(r"^Error parsing \w+: ", "", text.strip())
    text = re.sub(r" \(parsing options: .*", "", text, flags=re.DOTALL)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return f"{text}\n  fix: {fix}"


def _expected(text: str) -> str:
    """Return what doit expects of a value, and what it got."""
    choices = re.match(r"\. Provided (.*) but available choices are: (.*)\.", text)
    if choices:
        expected = choices[2].replace("'", "").replace(", ", " or ")
        return f"{expected}, got {choices[1]}"
    return f"a whole number, got {text.strip().rpartition(': ')[2]}"


def command_error(error: Exception, program: str) -> str:
    """Return doit's message about a command or a task, with a fix."""
    text = str(error).strip().replace("is not a task", "is not a verb")
    word = getattr(error, "not_found", None)
    if word is not None:
        text = f"{word!r} is not a verb"
    if "\n  fix: " in text:
        return text
    return f"{text.rstrip('.')}\n  fix: `{program} help` lists the verbs"


def program_name(name: str) -> str:
    """Return how to type the command whose program has this file name."""
    if name in ("-m", "__main__.py"):
        return "python -m doit"
    return re.sub(r"(-script\.pyw?|\.exe)$", "", name, flags=re.IGNORECASE)


def no_file_error(path: str, env: Mapping[str, str]) -> str:
    """Return the error for a dodo.py that does not exist."""
    given = f"-f {path}"
    fix = "-f DIRECTORY names a clone of the recipe"
    if path == env.get("DOIT_FILE"):
        given = f"DOIT_FILE={path}"
        fix = "set DOIT_FILE to the directory of a clone of the recipe, or unset it"
    what = f"{given}: there is no dodo.py"
    return f"{what}\n  fix: {fix}"


def split_engine_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words before `--`, and the others."""
    end = len(words)
    if "--" in words:
        end = words.index("--")
    return list(words[:end]), list(words[end:])


def error_line(text: str, env: Mapping[str, str]) -> str:
    """Return an error as it is logged: for people, or as JSON (LLAMAFILE_LOG=json)."""
    if env.get("LLAMAFILE_LOG", "").strip().lower() != "json":
        return f"ERROR: {text}\n"
    from datetime import datetime, timezone  # only for errors

    what, _, fix = text.partition("\n  fix: ")
    data = {
        "time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "level": "error",
        "event": "error",
        "message": what,
        "fix": fix,
    }
    return json.dumps({key: value for key, value in data.items() if value}) + "\n"
