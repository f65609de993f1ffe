"""Run doit with this recipe's command line (docs/adr/0014 and 0015).

Two ways lead here. doit.cfg names `Loader`, which `doit` creates before it reads the
command line. pip installs the command `llamafile-recipe`, which finds the clone from
any directory.

pip installs this module: doit's command does not import from the current directory.
It imports nothing of the recipe, because DOIT_FILE may name another copy of it.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import stat
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from dbm import whichdb
from typing import Any, NoReturn

from doit import doit_cmd
from doit.cmd_base import DodoTaskLoader
from doit.cmd_dumpdb import DumpDB as DoitDumpDB
from doit.cmd_help import Help as DoitHelp
from doit.cmd_run import Run
from doit.cmdparse import CmdOption, CmdParse, CmdParseError
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask
from doit.version import VERSION

NAME = "llamafile-recipe"
_HELP = ("-h", "--help")
_USAGE_ERROR = 3  # exit status
_CODE = ("dodo.py", "doit.cfg", "tasks")
_MAX_CONFIG = 10_000  # characters of doit.cfg
_VARIABLE = re.compile(r"[A-Za-z_]\w*=")


class RecipeLoader(DodoTaskLoader):  # type: ignore[misc]  # doit has no types
    """Load dodo.py, and let the recipe say which tasks the command line asks for."""

    def setup(self, opt_values: dict[str, Any]) -> None:
        """Load dodo.py; `-f` and DOIT_FILE may name its directory."""
        path = opt_values["dodoFile"]
        if os.path.isdir(path):
            path = os.path.join(path, "dodo.py")
        super().setup({**opt_values, "dodoFile": path})

    def load_tasks(self, cmd: Any, pos_args: Sequence[str]) -> Any:
        """Load the tasks.

        doit gets the names of tasks alone: the recipe parses their options itself.
        doit 0.37 reads the first character of each word; an empty word has none.
        """
        recipe = self.recipe()
        names = recipe.task_names(sys.argv[1:]) if recipe else []
        if names and isinstance(cmd, Run):
            cmd.sel_tasks = names
        return super().load_tasks(cmd, [word for word in pos_args if word])

    def recipe(self) -> Any:
        """Return the recipe of dodo.py; None if dodo.py is that of another project."""
        found = self.namespace.get("recipe")
        if hasattr(found, "task_names"):
            return found
        return None


class Loader(RecipeLoader):
    """The loader that doit.cfg names: doit creates it before it reads the arguments."""

    def __init__(self) -> None:
        """Run the command line, instead of doit.

        Raises:
            SystemExit: always, with the exit status.
        """
        raise SystemExit(Main(task_loader=RecipeLoader()).run(sys.argv[1:]))


class Help(DoitHelp):  # type: ignore[misc]
    """`doit help`: the verbs of the recipe, the options of one, or a model."""

    name = "help"

    def execute(self, params: dict[str, Any], args: Sequence[str]) -> int:
        """Print the help."""
        self.loader.setup(params)
        recipe = self.loader.recipe()
        if recipe is None:
            return int(super().execute(params, args))
        commands = {
            name: (command.doc_purpose, command.doc_usage, command.cmd_options)
            for name, command in self.cmds.items()
        }
        print(recipe.help(args, commands, self.bin_name), flush=True)
        return 0


class DumpDB(DoitDumpDB):  # type: ignore[misc]
    """`doit dumpdb`, without a traceback where there is no database."""

    name = "dumpdb"

    def execute(self, opt_values: dict[str, Any], pos_args: Sequence[str]) -> None:
        """Print the database.

        Raises:
            InvalidCommand: there is none; the recipe does not use one (docs/adr/0001).
        """
        path = opt_values["dep_file"]
        if not whichdb(path):
            raise InvalidCommand(f"there is no database {path}: the recipe keeps none")
        super().execute(opt_values, pos_args)


class Main(doit_cmd.DoitMain):  # type: ignore[misc]
    """doit's command line, with this recipe's help, version and messages."""

    DOIT_CMDS = (*doit_cmd.DoitMain.DOIT_CMDS, Help, DumpDB)  # the last of a name holds

    def process_args(self, words: Sequence[str]) -> list[str]:
        """Take the variables (NAME=VALUE) out of a command line, as doit does.

        doit takes every word with = for one, also a URL, and fails on an empty word.

        Returns:
            The other words.
        """
        doit_cmd.reset_vars()
        others = []
        for word in words:
            if _VARIABLE.match(word):
                name, _, value = word.partition("=")
                doit_cmd.set_var(name, value)
            else:
                others.append(word)
        return others

    def run(self, all_args: Sequence[str]) -> int:
        """Run a command line; return the exit status."""
        try:
            status = int(self._run(all_args) or 0)
            if sys.stdout:
                sys.stdout.flush()
            return status
        except CmdParseError as error:
            text = _parse_error(str(error), self.BIN_NAME)
        except (InvalidDodoFile, InvalidCommand, InvalidTask) as error:
            text = str(error)
        except BrokenPipeError:  # as `doit help | head` ends
            _drop_stdout()
            return 0
        except OSError as error:  # a full disk behind stdout
            _drop_stdout()
            text = f"cannot write: {error.strerror or error}"
        except Exception:  # a defect: the traceback says where
            text = traceback.format_exc()
        if sys.stderr:
            sys.stderr.write(_error_line(text))
        return _USAGE_ERROR

    def _run(self, all_args: Sequence[str]) -> Any:
        words, engine_words = _split(all_args)
        asks_help = any(word in _HELP for word in words)
        if "--version" in words and not asks_help:
            self.print_version()
            return 0
        words = [word for word in words if word not in (*_HELP, "--version")]
        options, others = self._loader_options(words)
        commands = self.get_cmds()
        words = self.process_args(others)
        name = "run"
        if words and words[0] in commands:
            name = words.pop(0)
            if asks_help:
                words = [name]
        if asks_help:
            words = [word for word in words if not word.startswith("-")]
            name, engine_words = "help", []
        self.task_loader.cmd_names = sorted(commands)
        self.task_loader.config = self.config
        command = commands.get_plugin(name)(
            task_loader=self.task_loader,
            config=self.config,
            bin_name=self.BIN_NAME,
            cmds=commands,
            opt_vals=options,
        )
        return command.parse_execute([*words, *engine_words])

    def _loader_options(
        self, words: Sequence[str]
    ) -> tuple[dict[str, Any], Sequence[str]]:
        """Return the options that say where dodo.py is, and the remaining words."""
        options = [CmdOption(option) for option in self.task_loader.cmd_options]
        try:
            values, others = CmdParse(options).parse_only(words)
        except CmdParseError:  # an option of `run`, which takes these options, too
            return {}, words
        return values, others

    @staticmethod
    def print_version() -> None:
        """Print the version of the recipe, then that of doit."""
        try:
            version = importlib.metadata.version(NAME)
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed by pip)"
        print(NAME, version)
        print("doit", ".".join(map(str, VERSION)))


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words before `--`, and the others."""
    end = len(words)
    if "--" in words:
        end = words.index("--")
    return list(words[:end]), list(words[end:])


def _parse_error(text: str, program: str) -> str:
    """Return doit's message without its dump of the options it knows."""
    text = re.sub(r"^Error parsing \w+: ", "", text.strip())
    text = re.sub(r" \(parsing options: .*", "", text, flags=re.DOTALL)
    text = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    return f"{text}\n  fix: {program} VERB [OPTIONS]; `{program} help` lists the verbs"


def _error_line(text: str) -> str:
    """Return an error as the log has it: a line of text, or JSON (LLAMAFILE_LOG)."""
    if os.environ.get("LLAMAFILE_LOG", "").strip().lower() != "json":
        return f"ERROR: {text}\n"
    message, _, fix = text.strip().partition("\n  fix: ")
    time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    event = {"time": time, "level": "error", "event": "error", "message": message}
    if fix:
        event["fix"] = fix
    return json.dumps(event, ensure_ascii=False) + "\n"


def _drop_stdout() -> None:
    """Discard what is left to write: Python flushes stdout again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """Run `llamafile-recipe`: the recipe's command line, from any directory."""
    folder = clone(os.environ, os.getcwd())
    if not folder:
        sys.stderr.write(
            f"ERROR: {NAME}: no clone of the recipe is known\n"
            "  fix: set LLAMAFILE_RECIPE to the directory of your clone\n"
        )
        sys.exit(_USAGE_ERROR)
    os.environ["DOIT_FILE"] = folder
    Main.BIN_NAME = NAME
    config = os.path.join(folder, "doit.cfg")
    sys.exit(Main(RecipeLoader(), config_filenames=[config]).run(sys.argv[1:]))


def clone(env: Mapping[str, str], cwd: str) -> str:
    """Return the directory of the clone to use; "" if there is none.

    LLAMAFILE_RECIPE and DOIT_FILE name it. Otherwise it is the current directory, one
    above it, or the directory that pip has installed this module from.
    """
    for variable in ("LLAMAFILE_RECIPE", "DOIT_FILE"):
        path = os.path.join(cwd, env.get(variable) or "")
        if env.get(variable):
            return path if os.path.isdir(path) else os.path.dirname(path)
    above = filter(_is_trusted, _upwards(os.path.dirname(cwd)))
    return next(filter(_is_clone, (cwd, *above, _installed_from())), "")


def _upwards(folder: str) -> Iterator[str]:
    yield folder
    while folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        yield folder


def _is_trusted(folder: str) -> bool:
    """Whether a directory above the current one, and its code, belong to this user.

    The code is run. In a directory that other users can write to, such as /tmp, another
    user can have put it there.
    """
    if os.name == "nt":
        return True
    try:
        paths = (folder, *(os.path.join(folder, name) for name in _CODE))
        found = [os.stat(path) for path in paths]
    except OSError:
        return False
    users = (0, os.geteuid())
    return all(one.st_uid in users and not one.st_mode & stat.S_IWOTH for one in found)


def _installed_from() -> str:
    """Return the directory that pip has recorded (PEP 610), or ""."""
    # their import takes a tenth of the time of a command
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    try:
        text = importlib.metadata.distribution(NAME).read_text("direct_url.json")
        url = urlparse(json.loads(text or "{}").get("url", ""))
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return ""
    return url2pathname(url.path) if url.scheme == "file" else ""


def _is_clone(folder: str) -> bool:
    """Whether a directory has a dodo.py, and a doit.cfg that names this module."""
    try:
        with open(os.path.join(folder, "doit.cfg"), encoding="utf-8") as file:
            named = "llamafile_recipe" in file.read(_MAX_CONFIG)
    except (OSError, ValueError):
        return False
    return named and os.path.isfile(os.path.join(folder, "dodo.py"))
