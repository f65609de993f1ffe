"""Make sure that a file is here and is the right one: keep, read or download it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, Stamp, State
from tasks.console import formatting
from tasks.console.text import visible
from tasks.context import Recipe
from tasks.errors import IntegrityError, RecipeError, TransferError
from tasks.network import huggingface
from tasks.system import files
from tasks.urls import is_local


def bring(recipe: Recipe, wanted: Iterable[Artifact], question: str = "", yes: bool = False) -> None:
    """Make each target what it must be; what is, stays. Raises RecipeError like `converge`."""
    for artifact in wanted:
        if stamps.state(recipe.place.cache, artifact) is not State.FRESH:
            converge(recipe.place.cache, artifact, question, yes, lambda one: check_allowed(recipe, one))
            question = ""  # once for all files of a model


def converge(
    cache: str,
    artifact: Artifact,
    question: str = "",
    yes: bool = False,
    check: Callable[[Artifact], None] = lambda _: None,
    again: bool = False,
) -> None:
    """Make the target what it must be: nothing, a look at its bytes, or a download.

    Args:
        check: raises RecipeError where it may not be fetched.
        again: what is here may be something else by now at its source.

    Raises RecipeError: it cannot be had, or wrong bytes lie where they may not be replaced.
    """
    from tasks.transfer.locks import artifact_lock, wait_for_owner
    from tasks.transfer.partial import TakenOver

    if not (again or os.access(cache, os.W_OK)) and _is_right_there(cache, artifact):
        return
    try:
        stamps.make_cache(cache)
    except OSError as error:
        raise stamps.cannot_write(cache, error) from None
    check_place(cache, artifact)
    with artifact_lock(cache, artifact):
        while True:
            state = State.MISSING if again else stamps.state(cache, artifact)
            if state is State.MOVED and _same_bytes(cache, artifact):
                return
            if state is State.FRESH:
                doit_adapter.log().info("%s came while this waited", artifact.label)
                return
            try:
                check(artifact)
                _fetch(cache, artifact, question, yes)
                return
            except TakenOver:  # locks lie here, and another process goes on with our bytes
                again = False
                wait_for_owner(artifact)


def _same_bytes(cache: str, artifact: Artifact) -> bool:
    """Read a file that changed since it was proven; False when it has to be fetched again."""
    from tasks.console.progress import progress

    before, found = stamps.read_stamp(cache, artifact), files.stat(artifact.target)
    expected = artifact.sha256 or (before.sha256 if before else None)
    doit_adapter.log().info(
        "%s is here and has to be read once: it is new, or its size or time changed", artifact.label
    )
    size = found.size if found else None
    with progress(f"{artifact.label} sha256", 0) as bar:
        bar.at(0, size)
        got = files.sha256_file(artifact.target, lambda done: bar.at(done, size))
    if expected in (None, got.sha256):
        known = before or Stamp(got.stat, got.sha256, artifact.target, {})
        engines = known.engines if known.sha256 == got.sha256 else {}
        stamps.write_stamp(cache, artifact, Stamp(got.stat, got.sha256, known.source, engines))
        doit_adapter.log().info("%s: the bytes are right, nothing is downloaded", artifact.label)
        return True
    facts = [("file", artifact.target), ("expected", f"sha256:{expected}"), ("got", f"sha256:{got.sha256}")]
    if not artifact.owned:
        fix = "move it away to download it again, or give its own digest with --sha256"
        raise IntegrityError(f"{artifact.label} is not the file you asked for", facts, fix)
    doit_adapter.log().warning(
        "%s", IntegrityError(f"{artifact.label} has changed on disk; it is fetched again", facts)
    )
    return False


def check_source(recipe: Recipe, artifact: Artifact) -> None:
    """See that a file which is not here may be fetched, before anything else is.

    Raises TransferError: nobody says where to get it (R5), it is not pinned and has to be, or the network
        is forbidden.
    """
    if stamps.state(recipe.place.cache, artifact) is State.MISSING:
        check_allowed(recipe, artifact)


def check_allowed(recipe: Recipe, artifact: Artifact) -> None:
    """The same for a file that has to be fetched, whatever lies in its place."""
    if not artifact.sources:
        fix = "--llamafile-url URL says where to get it; that is needed once"
        raise TransferError(f"there is no file {artifact.target}", fix=fix)
    if recipe.frozen and artifact.sha256 is None:
        raise TransferError(
            f"{artifact.label} is not pinned, and with --frozen or CI=true nothing unpinned is fetched",
            [("url", artifact.sources[0])],
            fix=_pinning(recipe, artifact),
        )
    if (variable := huggingface.offline(os.environ)) and not _is_near(artifact):
        raise _offline(recipe, variable, artifact)


def _pinning(recipe: Recipe, artifact: Artifact) -> str:
    """The command that pins an artifact."""
    jobs = recipe.jobs.by_name.values()
    job = next((job for job in jobs if artifact.target in [one.target for one in job.files]), None)
    if job is None:
        return "doit lock --model llamafile, and commit models.lock"
    known = job.name in recipe.catalogue.names and job.artifact.owned and not job.question
    return f"doit lock --model {job.name}, and commit models.lock" if known else "--sha256 HEX"


def _is_near(artifact: Artifact) -> bool:
    """Whether the bytes may be had from this machine."""
    from tasks.transfer.local_sources import candidates

    return any(map(is_local, artifact.sources)) or next(candidates(artifact), None) is not None


def _offline(recipe: Recipe, variable: str, first: Artifact) -> TransferError:
    """The error that lists everything that this command line lacks.

    Args:
        first: what it noticed first; wrong bytes may lie in its place.
    """
    jobs = recipe.jobs.by_name.values()
    wanted = [*(file for job in jobs for file in job.files), *(job.exe for job in jobs if job.exe), first]
    missing = [
        one
        for target, one in {one.target: one for one in wanted}.items()
        if target == first.target
        or (stamps.state(recipe.place.cache, one) is State.MISSING and not _is_near(one))
    ]
    facts = [
        (one.label, f"{formatting.size(one.size)} from {one.sources[0]}") for one in missing if one.sources
    ]
    return TransferError(
        f"{variable} forbids the network, and this is not here",
        facts,
        fix=f"unset {variable}, or copy the cache of a machine that has it to {recipe.place.cache}",
    )


def _fetch(cache: str, artifact: Artifact, question: str, yes: bool) -> None:
    if question and not yes:
        confirm(question)
    from tasks.transfer.download import fetch

    stamps.write_stamp(cache, artifact, fetch(artifact))


def confirm(question: str) -> None:
    """Ask on the terminal; without one, fail and say what to pass (R4).

    Raises RecipeError: the answer is no, or nobody is there to give one.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise RecipeError(question.replace("\n", "\n  "), fix="there is no terminal to ask on: pass --yes")
    print(f"{visible(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RecipeError("you said no: nothing was downloaded")


def _is_right_there(cache: str, artifact: Artifact) -> bool:
    """Whether a read-only cache has the right bytes: nothing needs to be locked or fetched then."""
    return stamps.state(cache, artifact) is State.MOVED and _same_bytes(cache, artifact)


def check_place(cache: str, artifact: Artifact) -> None:
    """See that a file may be put at the target. Raises RecipeError: something else lies in the way."""
    from tasks.system import own_files

    if artifact.owned:
        own_files.check_inside(cache, artifact.target)
    elif os.path.lexists(artifact.target) and not os.path.isfile(os.path.realpath(artifact.target)):
        what = f"{artifact.target} is not a regular file, and is not replaced by a download"
        raise RecipeError(what, fix="--llamafile PATH of a file, or remove it")
