"""Parse command lines with the options of the recipe's verbs."""

from __future__ import annotations

from collections.abc import Sequence

from dodo import recipe
from tasks import command_line
from tasks.command_line import CommandLine

VERBS = recipe.verbs


def parse(argv: Sequence[str]) -> CommandLine:
    """Read a command line as `doit` does."""
    return command_line.parse(argv, VERBS)
