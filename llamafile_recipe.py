"""Adapt doit to this recipe before it reads the command line (see doit.cfg).

pip installs this module: doit's command does not import from the current directory.
It imports nothing of the recipe, because DOIT_FILE may name another copy of it.
docs/adr/0014 says what it is for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dbm import whichdb
from typing import Any

from doit import doit_cmd
from doit.cmd_base import DodoTaskLoader
from doit.cmd_dumpdb import DumpDB as DoitDumpDB
from doit.exceptions import InvalidCommand

_CORRECTED = (0, 37)  # the version of doit whose `process_args` is replaced


def process_args(_: object, words: Sequence[str]) -> list[str]:
    """Take the variables (NAME=VALUE) out of a command line, as doit does.

    doit 0.37 reads the first character of each word; an empty word has none.

    Returns:
        The other words.
    """
    doit_cmd.reset_vars()
    others = []
    for word in words:
        name, equals, value = word.partition("=")
        if equals and not word.startswith("-"):
            doit_cmd.set_var(name, value)
        else:
            others.append(word)
    return others


class Loader(DodoTaskLoader):  # type: ignore[misc]  # doit has no types
    """Load dodo.py. doit creates it before it reads the command line."""

    def __init__(self) -> None:
        """Replace what fails on an empty argument."""
        super().__init__()
        if doit_cmd.VERSION[:2] == _CORRECTED:
            doit_cmd.DoitMain.process_args = process_args

    def load_tasks(self, cmd: Any, pos_args: Sequence[str]) -> Any:
        """Load the tasks.

        doit 0.37 reads the first character of each word here, too, to find the options
        of task creators. The recipe's creators have none.
        """
        return super().load_tasks(cmd, [word for word in pos_args if word])


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
