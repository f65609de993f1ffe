"""Refuse what cannot work, and ask before a large download, before the first byte.

The order of the checks of a verb that starts a server (`graph` calls them):

1. `refuse`: disk, engine and memory. Nothing that a user can end or choose helps.
2. the verb's own check: files without a source, its words, and the port.
3. `ask`: nothing is asked for a command that would then be refused.

A run with nothing to do loads this, so costly modules are imported in functions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, TargetState
from tasks.catalogue.resolve import ResolvedModel
from tasks.console import formatting
from tasks.errors import RecipeError
from tasks.network import huggingface
from tasks.system.packages import has_package
from tasks.transfer.question import confirm

if TYPE_CHECKING:
    from tasks.catalogue.endpoints import ResolvedEndpoint
    from tasks.planning.estimate import FilePlan

LARGE = 10**9  # bytes to download from which a terminal is asked


class Command(NamedTuple):
    """What a command line will do, as far as it has to be checked before."""

    cache: str
    jobs: tuple[ResolvedModel, ...]
    served: frozenset[str] = frozenset()  # names of those that get a server
    no_adopt: bool = False
    yes: bool = False
    force: bool = False  # try what cannot work
    offline: bool = False  # no byte may come, so there is nothing to ask
    chat: str = ""  # the word for the model of `doit chat`, which always asks
    implied: str = ""  # the model of a `doit chat` that names none
    # (what, fix) of the engines that lack what a served model needs
    lacking: tuple[tuple[str, str], ...] = ()
    endpoints: tuple[ResolvedEndpoint, ...] = ()  # those whose models are among `jobs`


class Needs(NamedTuple):
    """What a command line that can work needs."""

    missing: tuple[Artifact, ...] = ()  # files that are not here
    plans: tuple[FilePlan, ...] = ()  # of these, and of the servers' files


def refuse(command: Command) -> Needs:
    """Refuse a command line that cannot work, once for all of its models.

    Raises:
        RecipeError: it cannot.
    """
    missing = [one for one in _artifacts(command) if not _is_fresh(command.cache, one)]
    if not missing and not command.served:
        return Needs()
    plans = _plan(command, missing)
    if not command.force:
        _refuse(command, plans)
    return Needs(tuple(missing), tuple(plans))


def ask(command: Command, needs: Needs) -> None:
    """Say what a file of the user's needs, and ask before a download.

    Raises:
        RecipeError: the user does not want it, or a question needs a terminal.
    """
    _announce_engine(command, needs.plans)
    if needs.missing and not command.yes and not command.offline:
        _ask(command, needs.missing, needs.plans)


def _artifacts(command: Command) -> list[Artifact]:
    """Return each file of the command line once."""
    found: dict[Artifact, None] = {}
    for resolved in command.jobs:
        found.update(dict.fromkeys(resolved.files))
        if resolved.exe:
            found[resolved.exe] = None
    return list(found)


def _is_fresh(cache: str, artifact: Artifact) -> bool:
    return stamps.target_state(cache, artifact) is TargetState.FRESH


def _plan(command: Command, missing: Sequence[Artifact]) -> list[FilePlan]:
    """Return what has to be done for the missing files and those of the servers."""
    from tasks.planning.estimate import plan_file

    served = [one for one in command.jobs if one.name in command.served]
    served += [member for one in command.endpoints for member in one.members]
    wanted = dict.fromkeys([*missing, *(file for one in served for file in one.files)])
    return [plan_file(command.cache, one, not command.no_adopt) for one in wanted]


def _refuse(command: Command, needs: Sequence[FilePlan]) -> None:
    """Refuse what cannot work, in the words of `doit plan`.

    Raises:
        RecipeError: it cannot.
    """
    from tasks.planning import verdict

    # a copy may share its blocks with the original, so that it needs no space
    fetched = [need for need in needs if need.state in ("fetch", "resume")]
    served = [one for one in command.jobs if one.name in command.served]
    problems = [
        *verdict.disk_problems(fetched),
        *verdict.engine_problems(served),
        *command.lacking,
        *_memory_problems(served, needs),
        *_endpoint_problems(command, needs),
    ]
    if problems:
        what = "\ncannot work: ".join(what for what, _ in problems)
        fixes = dict.fromkeys(fix for _, fix in problems)
        fix = "\n".join([*fixes, "--force tries it nevertheless"])
        raise RecipeError(f"cannot work: {what}", fix=fix)


def _memory_problems(
    served: Sequence[ResolvedModel], needs: Sequence[FilePlan]
) -> list[tuple[str, str]]:
    if not served:
        return []
    from tasks.planning import estimate, verdict
    from tasks.system import memory

    here = memory.total()
    takes = [
        estimate.estimate_memory(one, list(needs))
        for one in served
        if not verdict.surely_fits(one, needs, here)
    ]
    return verdict.memory_problems(takes, here)


def _endpoint_problems(
    command: Command, needs: Sequence[FilePlan]
) -> list[tuple[str, str]]:
    """Return why an endpoint's models do not fit together, or its engine is missing."""
    if not command.endpoints:
        return []
    from tasks.planning import endpoint_plan
    from tasks.system import memory

    here = memory.total()
    problems: list[tuple[str, str]] = []
    for one in command.endpoints:
        problems += endpoint_plan.plan_endpoint(one, needs, here).problems
        if one.name in command.served:
            problems += endpoint_plan.engine_problem(one)
    return problems


def _announce_engine(command: Command, needs: Sequence[FilePlan]) -> None:
    """Say that a file of the user's needs an engine which is downloaded."""
    fetched = {need.path: need for need in needs if need.to_fetch != 0}
    for resolved in command.jobs:
        if not (resolved.exe and resolved.is_own_gguf):
            continue
        need = fetched.get(resolved.exe.target)
        if need and not has_package("xllamacpp"):
            text = "%s needs the %s engine (%s), or pip install '.[embedded]'"
            size = formatting.format_size(need.size)
            doit_adapter.log().info(text, resolved.name, resolved.engine, size)


def _ask(
    command: Command, missing: Sequence[Artifact], needs: Sequence[FilePlan]
) -> None:
    """Ask the one question of a command line: about other URLs, and about the size.

    Raises:
        RecipeError: the answer is no, or a question needs a terminal.
    """
    absent = set(missing)
    urls = [
        resolved.confirmation
        for resolved in command.jobs
        if resolved.confirmation and absent & set(resolved.files)
    ]
    fetched = [need for need in needs if need.to_fetch != 0]
    count = sum(need.to_fetch or 0 for need in fetched)
    is_chat = bool(command.chat and fetched)
    if is_chat and not can_ask(os.environ):
        raise _not_here(command, fetched)
    # a file of unknown size may be large
    may_be_large = count > LARGE or any(need.to_fetch is None for need in fetched)
    asks_size = (may_be_large or is_chat) and can_ask(os.environ)
    if asks_size:
        lines = size_lines(fetched, _free(command.cache), _rate(command.cache))
        confirm("\n".join([*lines, *(urls or ["Download?"])]))
    elif urls:
        confirm("\n".join(urls))


def can_ask(env: Mapping[str, str]) -> bool:
    """Whether a user can see a question and answer it."""
    if huggingface.env_flag(env.get("CI")) or sys.stdin is None:
        return False
    streams = (sys.stdin, sys.stderr)  # one that was closed is None
    return all(stream is not None and stream.isatty() for stream in streams)


def _not_here(command: Command, fetched: Sequence[FilePlan]) -> RecipeError:
    from tasks.planning.estimate import total

    count, all_known = total([need.to_fetch for need in fetched])
    size = formatting.format_size(count)
    if not all_known:
        size = "of unknown size"
    labels = ", ".join(need.label for need in fetched)
    what = f"{labels} is not here"
    if command.implied:
        what = f"no server runs, and the default model {command.implied} is not here"
    what = f"{what} ({size}); `doit chat` downloads it only with --yes"
    verb = "download"
    programs = {resolved.exe.label for resolved in command.jobs if resolved.exe}
    if programs & {need.label for need in fetched}:
        verb = "verify"  # which also installs the engine's program
    return RecipeError(what, fix=f"doit {verb} {command.chat}")


def _free(cache: str) -> int:
    import shutil

    from tasks.system import files

    return shutil.disk_usage(files.nearest_existing_dir(cache)).free


def _rate(cache: str) -> int | None:
    from tasks.cache.rate import last_rate

    return last_rate(cache)


def size_lines(needs: Iterable[FilePlan], free: int, rate: int | None) -> list[str]:
    """Return what a download takes: bytes of each file, time, and disk afterwards.

    The sum of files of which some have an unknown size is a lower bound.

    Args:
        free: bytes of the disk.
        rate: bytes a second of the last download; None if unknown.
    """
    from tasks.urls import host_of

    lines = []
    count = 0
    all_known = True
    for need in needs:
        size = "unknown size"
        if need.to_fetch is not None:
            size = formatting.format_size(need.to_fetch)
        all_known = all_known and need.to_fetch is not None
        count += need.to_fetch or 0
        source = huggingface.rewrite_to_endpoint(need.source, os.environ)
        lines.append(f"{need.label}: {size} from {host_of(source)}")
    after = formatting.format_size(max(0, free - count))
    if not count and not all_known:
        return [*lines, f"to download: unknown size; {after} of the disk are free"]
    total = formatting.format_size(count)
    if not all_known:
        text = f"to download: at least {total}; at most {after} of the disk stay free"
        return [*lines, text]
    total = f"to download: {total}"
    if rate:
        time = formatting.format_duration(count / rate)
        total += f", about {time} at the rate of the last download"
    return [*lines, f"{total}; {after} of the disk stay free"]
