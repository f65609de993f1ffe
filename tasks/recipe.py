"""What this command line means on this machine: catalogue, directories, jobs. Read once per run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import doit

from tasks.core import options
from tasks.core.catalogue import Catalogue
from tasks.core.jobs import Jobs, Place, plan
from tasks.core.options import Request
from tasks.effects import compiled, files

ROOT = Path(__file__).resolve().parent.parent


class Recipe(NamedTuple):
    """Everything that task creators need."""

    catalogue: Catalogue
    place: Place
    request: Request
    jobs: Jobs


def recipe() -> Recipe:
    """Read the command line and the catalogue.

    Raises UsageError: for anything the user has to mend before a task can run.
    """
    request = options.parse(sys.argv[1:])
    cwd = doit.get_initial_workdir() or os.getcwd()
    path = Path(cwd, os.environ.get("LLAMAFILE_CATALOGUE") or ROOT / "models.yaml")
    cache = files.cache_root(os.environ, cwd)
    place = Place(sys.platform, cache, str(path.parent), cwd)
    catalogue = compiled.load(str(path), cache)
    return Recipe(catalogue, place, request, plan(request, catalogue, place))
