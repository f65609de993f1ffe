"""Read catalogue, directories and jobs of a command line, once per run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import doit

from tasks import ROOT, command_line
from tasks.cache import roots, stamps
from tasks.catalogue import load
from tasks.catalogue.environment import Place
from tasks.catalogue.resolve import Job, Jobs, plan
from tasks.catalogue.types import Catalogue
from tasks.command_line import Ask, Request, Verbs
from tasks.errors import UsageError
from tasks.network import huggingface
from tasks.system import files
from tasks.transfer.policy import DownloadPolicy, download_policy

if TYPE_CHECKING:
    from tasks.engine.server_record import Run as ServerRecord

# verbs that read the catalogue itself, never its compiled form in the cache
_TRUST_GIT = ("audit", "bom", "prune", "lock", "add")


class Recipe(NamedTuple):
    """Everything that task creators need."""

    catalogue: Catalogue
    place: Place
    request: Request
    jobs: Jobs
    frozen: bool = False  # nothing unpinned is fetched
    server: ServerRecord | None = None  # a running one, which `doit chat` talks to

    def options_of(self, job: Job) -> set[str]:
        """Return the options that any task on the command line gives for a model."""
        return {key for ask, names in self.jobs.asked if job.name in names for key in ask.options}

    def download_policy(self) -> DownloadPolicy:
        """Return which downloads this command line and the environment allow."""
        return download_policy(
            self.jobs.by_name.values(),
            self.catalogue.names,
            frozen=self.frozen,
            offline=huggingface.offline(os.environ),
        )

    @staticmethod
    def no_model(ask: Ask) -> None:
        """Refuse a model behind a verb that reports on the whole cache.

        Raises:
            UsageError: there is one.
        """
        if ask.model:
            what = f"`{ask.verb}` is about everything that is here"
            raise UsageError(what, fix=f"doit {ask.verb}")


def read(verbs: Verbs) -> Recipe:
    """Read the command line and the catalogue.

    Raises:
        UsageError: one of them has an error; no task can run until it is fixed.
    """
    request = command_line.parse(sys.argv[1:], verbs)
    cwd = doit.get_initial_workdir() or os.getcwd()
    setting = files.setting_path(os.environ, "LLAMAFILE_CATALOGUE", cwd)
    path = Path(setting or ROOT / "models.yaml")
    cache = stamps.cache_root(os.environ, cwd)
    place = Place(sys.platform, cache, str(path.parent), cwd, files.first_bytes)
    joined = not _writes_lock(request)
    frozen = _is_frozen(request)
    from_text = frozen or any(ask.verb in _TRUST_GIT for ask in request.asks)
    catalogue = load.load(str(path), cache, joined=joined, from_text=from_text)
    roots.remember(str(path), cache)
    server = _running_server(request, catalogue, cache)
    jobs = plan(request, catalogue, place, attached=server is not None)
    return Recipe(catalogue, place, request, jobs, frozen, server)


def _is_frozen(request: Request) -> bool:
    """Whether only pinned files may be fetched: in CI, and with --frozen."""
    if huggingface.is_on(os.environ.get("CI")):
        return True
    return any("frozen" in ask.options for ask in request.asks)


def _writes_lock(request: Request) -> bool:
    """Whether the verb updates models.lock, so that its pins are not used.

    Raises:
        UsageError: there are other tasks, which would run without the pins, too.
    """
    verb = next((ask.verb for ask in request.asks if ask.verb in ("lock", "add")), "")
    if verb and len(request.asks) > 1:
        what = f"`doit {verb}` cannot be combined with other tasks"
        raise UsageError(what, fix=f"doit {verb} && doit …")
    return bool(verb)


def names(found: Recipe, ask: Ask) -> list[str]:
    """Return the names of the models that a task on servers is asked for.

    Raises:
        UsageError: a name is neither in the catalogue nor that of a server on record.
    """
    cache = found.place.cache
    return [_name(found.catalogue, cache, word) for word in ask.models]


def _name(catalogue: Catalogue, cache: str, word: str) -> str:
    from tasks.engine import server_registry

    known = {run.name for run, _ in server_registry.found(cache)}
    if word in known or server_registry.logs(cache, word):
        return word
    return catalogue.name(word)


def _running_server(request: Request, catalogue: Catalogue, cache: str) -> ServerRecord | None:
    """Return the server that `doit chat` talks to: the named one, or the only one.

    Raises:
        UsageError: no name was given, and several servers run.
    """
    if not request.asks or request.asks[-1].verb != "chat":
        return None
    from tasks.engine import server_registry
    from tasks.engine.server_record import State

    ask = request.asks[-1]
    ready = [run for run in server_registry.running(cache) if run.state is State.READY]
    named = [_name(catalogue, cache, word) for word in ask.models]
    if named:
        ready = [run for run in ready if run.name in named]
    elif len({run.name for run in ready}) > 1:
        several = ", ".join(dict.fromkeys(run.name for run in ready))
        raise UsageError(f"several servers run: {several}", fix="doit chat --model NAME")
    return next(reversed(ready), None)
