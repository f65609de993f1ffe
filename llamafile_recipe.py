"""Run doit with this recipe's command line (docs/adr/0014 and 0015).

Three ways lead here. doit.cfg names `Loader`, which `doit` creates before it reads the
command line. pip installs the command `llamafile-recipe`, which finds the clone from
any directory, and the entry points `run`, `help`, `list` and `info` of doit, which find
it where doit finds no dodo.py.

pip installs this module, llamafile_recipe_doit and llamafile_recipe_compose: doit's
command does not import from the current directory. They import nothing of the recipe,
because DOIT_FILE may name another copy of it.
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
from typing import Any, NoReturn

from doit import doit_cmd
from doit.cmd_base import DodoTaskLoader, opt_dodo, opt_seek_file
from doit.cmd_completion import TabCompletion
from doit.cmd_help import Help as DoitHelp
from doit.cmd_info import Info as DoitInfo
from doit.cmd_list import List as DoitList
from doit.cmd_run import Run as DoitRun
from doit.cmdparse import CmdOption, CmdParse, CmdParseError
from doit.exceptions import InvalidCommand, InvalidDodoFile, InvalidTask
from doit.plugin import PluginDict
from doit.version import VERSION

from llamafile_recipe_doit import (
    UNUSED,
    Help,
    Info,
    List,
    Run,
    Unused,
    command_error,
    error_line,
    no_file_error,
    parse_error,
    program_name,
    split_engine_words,
)

NAME = "llamafile-recipe"
_HELP = ("-h", "--help")
_USAGE_ERROR = 3  # exit status
_CODE = ("dodo.py", "doit.cfg", "tasks")
_MAX_CONFIG = 10_000  # characters of doit.cfg
_VARIABLE = re.compile(r"[A-Za-z_]\w*=")


class RecipeLoader(DodoTaskLoader):  # type: ignore[misc]  # doit has no types
    """Load dodo.py, and let the recipe say which tasks the command line asks for."""

    cmd_options = (opt_dodo, opt_seek_file)
    program = "doit"  # the command that the user typed

    def setup(self, opt_values: dict[str, Any]) -> None:
        """Load dodo.py; `-f` and DOIT_FILE may name its directory.

        Raises:
            InvalidDodoFile: there is none.
        """
        path = opt_values["dodoFile"]
        if os.path.isdir(path):
            path = os.path.join(path, "dodo.py")
        if not (opt_values["seek_file"] or os.path.isfile(path)):
            raise InvalidDodoFile(no_file_error(opt_values["dodoFile"], os.environ))
        if not path.endswith(".py"):
            what = f"{path} is not a Python file"
            fix = "-f DIRECTORY, which contains dodo.py"
            raise InvalidDodoFile(f"{what}\n  fix: {fix}")
        super().setup({**opt_values, "dodoFile": path, "cwdPath": None})
        recipe = self.recipe()
        if recipe:
            recipe.typed = self.program

    def load_tasks(self, cmd: Any, pos_args: Sequence[str]) -> Any:
        """Load the tasks.

        doit gets the names of tasks alone: the recipe parses their options itself.
        doit 0.37 reads the first character of each word; an empty word has none. It
        also parses the source of every creator to learn its line.
        """
        recipe = self.recipe()
        names = recipe.task_names(sys.argv[1:]) if recipe else []
        if names and isinstance(cmd, DoitRun):
            cmd.sel_tasks = names
        if hasattr(recipe, "load_tasks"):  # not in an earlier version's clone
            return recipe.load_tasks()
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
        main = Main(RecipeLoader(), config_filenames=["doit.cfg"])
        raise SystemExit(main.run(sys.argv[1:]))


class Main(doit_cmd.DoitMain):  # type: ignore[misc]
    """doit's command line, with this recipe's help, version and messages."""

    DOIT_CMDS = (
        *(Help, Run, List, Info, TabCompletion),
        *(type(name, (Unused,), {"name": name}) for name in UNUSED),
    )

    @property
    def program(self) -> str:
        """The command that the user typed."""
        return program_name(self.BIN_NAME)

    def get_cmds(self) -> Any:
        """Return the commands, which no plugin can replace.

        doit would search all installed packages for plugins, which takes longer than
        everything else that a command with nothing to do does.
        """
        return PluginDict({command.get_name(): command for command in self.DOIT_CMDS})

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
        except SystemExit as ended:
            raise SystemExit(_exit_status(ended)) from None
        except CmdParseError as error:
            text = parse_error(str(error), self.program)
        except InvalidDodoFile as error:
            text = str(error)
        except (InvalidCommand, InvalidTask) as error:
            text = command_error(error, self.program)
        except BrokenPipeError:  # as `doit help | head` ends
            _drop_stdout()
            return 0
        except OSError as error:  # a full disk behind stdout
            _drop_stdout()
            text = f"cannot write: {error.strerror or error}"
        except Exception:  # a defect: the traceback says where
            text = traceback.format_exc()
        if sys.stderr:
            sys.stderr.write(error_line(text, os.environ))
        return _USAGE_ERROR

    def _run(self, all_args: Sequence[str]) -> Any:
        words, engine_words = split_engine_words(all_args)
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
        self.task_loader.program = self.program
        command = commands.get_plugin(name)(
            task_loader=self.task_loader,
            config=self.config,
            bin_name=self.program,
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


def _exit_status(ended: SystemExit) -> Any:
    """Return a status as a number, which `doit -n` turns into text."""
    if isinstance(ended.code, str) and ended.code.isdigit():
        return int(ended.code)
    return ended.code


def _drop_stdout() -> None:
    """Discard what is left to write: Python flushes stdout again when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> NoReturn:
    """Run `llamafile-recipe`: the recipe's command line, from any directory."""
    if sys.argv[1:2] == ["compose"]:
        import llamafile_recipe_compose

        sys.exit(llamafile_recipe_compose.run(sys.argv[2:], _run_words))
    _run_words(sys.argv[1:])


def _run_words(words: Sequence[str]) -> NoReturn:
    sys.argv[1:] = words
    folder = clone(os.environ, os.getcwd())
    fix = "set LLAMAFILE_RECIPE to the directory of your clone"
    variable = _variable(os.environ)
    if not folder:
        _refuse(f"{NAME}: no clone of the recipe is known", fix)
    if variable and not _is_clone(folder):
        got = f"{variable}={os.environ[variable]}"
        what = f"{got}: there is no clone of the recipe (dodo.py and doit.cfg)"
        _refuse(what, f"{fix}, or unset {variable}")
    Main.BIN_NAME = NAME
    _run_clone(folder)


def _refuse(what: str, fix: str) -> NoReturn:
    sys.stderr.write(error_line(f"{what}\n  fix: {fix}", os.environ))
    sys.exit(_USAGE_ERROR)


def _run_clone(folder: str) -> NoReturn:
    os.environ["DOIT_FILE"] = folder
    config = os.path.join(folder, "doit.cfg")
    sys.exit(Main(RecipeLoader(), config_filenames=[config]).run(sys.argv[1:]))


def clone(env: Mapping[str, str], cwd: str) -> str:
    """Return the directory of the clone to use; "" if there is none.

    LLAMAFILE_RECIPE and DOIT_FILE name it. Otherwise it is the current directory, one
    above it, or the directory that pip has installed this module from.
    """
    variable = _variable(env)
    if variable:
        return _folder(os.path.join(cwd, env[variable]))
    above = filter(_is_trusted, _upwards(os.path.dirname(cwd)))
    return next(filter(_is_clone, (cwd, *above, _installed_from())), "")


def _variable(env: Mapping[str, str]) -> str:
    """Return the name of the variable that names the clone; "" if none does."""
    names = ("LLAMAFILE_RECIPE", "DOIT_FILE")
    return next((name for name in names if env.get(name)), "")


def _folder(path: str) -> str:
    """Return the directory of dodo.py, which -f and DOIT_FILE may name instead."""
    if path.endswith(".py"):
        return os.path.dirname(path)
    return path


def where_doit_fails(path: str, cwd: str) -> str:
    """Return the clone to use in place of doit itself; "" if doit finds a dodo.py.

    Args:
        path: as -f or DOIT_FILE gives it; "" if there is neither.
    """
    if path:
        folder = _folder(os.path.join(cwd, path))
        return next(filter(_is_clone, [folder]), "")
    nearest = next(filter(_has_dodo, _upwards(cwd)), cwd)
    if nearest == cwd or not _is_trusted(nearest):
        return ""
    return next(filter(_is_clone, [nearest]), "")


def _has_dodo(folder: str) -> bool:
    return os.path.exists(os.path.join(folder, "dodo.py"))


class _Elsewhere:
    """A command of doit that runs the recipe where doit finds no dodo.py (ADR 15).

    pip registers it as an entry point. Any other project gets doit's own command.
    """

    def __init__(self, **kwargs: Any) -> None:
        options = kwargs.get("opt_vals") or {}
        path = options.get("dodoFile") or os.environ.get("DOIT_FILE", "")
        if type(kwargs.get("task_loader")) is DodoTaskLoader:
            folder = where_doit_fails(path, os.getcwd())
            if folder:
                _run_clone(folder)
        super().__init__(**kwargs)


class RunElsewhere(_Elsewhere, DoitRun):  # type: ignore[misc]
    """`doit VERB`."""

    name = "run"


class _HelpElsewhere(_Elsewhere, DoitHelp):  # type: ignore[misc]
    """`doit help`."""

    name = "help"


def __getattr__(name: str) -> Any:
    """Return the command `help`, whose entry point names it `HelpElsewhere`.

    `doit --help` creates no command: it loads all of them, to list them. Below the
    clone it prints the recipe's help instead, and exits (ADR 15).
    """
    if name != "HelpElsewhere":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if sys.argv[1:2] == ["--help"] and _is_doit(sys.argv[0]):
        folder = where_doit_fails(os.environ.get("DOIT_FILE", ""), os.getcwd())
        if folder:
            _run_clone(folder)
    return _HelpElsewhere


def _is_doit(path: str) -> bool:
    """Whether a program is doit itself, not one that builds on it."""
    folder, name = os.path.split(path)
    if name == "__main__.py":
        return os.path.basename(folder) == "doit"
    return program_name(name) == "doit"


class ListElsewhere(_Elsewhere, DoitList):  # type: ignore[misc]
    """`doit list`."""

    name = "list"


class InfoElsewhere(_Elsewhere, DoitInfo):  # type: ignore[misc]
    """`doit info`."""

    name = "info"


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
