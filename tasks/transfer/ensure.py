"""Ensure that a file exists and is correct: keep, verify or download it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable

from tasks import doit_adapter
from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, Stamp, State
from tasks.catalogue.model_format import head_problem
from tasks.console import formatting
from tasks.console.text import visible
from tasks.context import Recipe
from tasks.errors import IntegrityError, RecipeError, TransferError
from tasks.network import huggingface
from tasks.system import files
from tasks.urls import is_local


def bring(recipe: Recipe, wanted: Iterable[Artifact], question: str = "", yes: bool = False) -> None:
    """Ensure that each target is correct.

    Args:
        question: asked before the first download, unless `yes`.

    Raises:
        RecipeError: as `converge`.
    """
    for artifact in wanted:
        if stamps.state(recipe.place.cache, artifact) is not State.FRESH:
            converge(recipe.place.cache, artifact, question, yes, lambda one: check_allowed(recipe, one))
            question = ""  # asked once for all files of a model


def converge(
    cache: str,
    artifact: Artifact,
    question: str = "",
    yes: bool = False,
    check: Callable[[Artifact], None] = lambda _: None,
    again: bool = False,
) -> None:
    """Ensure that the target is correct: keep it, verify its bytes, or download it.

    Args:
        check: raises RecipeError where a download is not allowed.
        again: download although the target exists: its source may have changed.

    Raises:
        RecipeError: it cannot be downloaded, or the target has wrong bytes and is not in
            the cache.
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
                doit_adapter.log().info("%s was downloaded by another process", artifact.label)
                return
            try:
                _warn_of_no_model(artifact)
                check(artifact)
                _fetch(cache, artifact, question, yes)
                return
            except TakenOver:  # locks do not work, and another process continues
                again = False
                wait_for_owner(artifact)


def _warn_of_no_model(artifact: Artifact) -> None:
    """Say why a file that is in the cache is downloaded again."""
    head = files.first_bytes(artifact.target)
    if artifact.sha256 is None and artifact.owned and files.stat(artifact.target):
        text = "%s: the file in the cache is replaced: %s"
        if problem := head_problem(head):
            doit_adapter.log().warning(text, artifact.label, problem)


def _same_bytes(cache: str, artifact: Artifact) -> bool:
    """Verify a changed file; return False where it must be downloaded again."""
    from tasks.console.progress import progress

    before = stamps.read_stamp(cache, artifact)
    status = files.stat(artifact.target)
    expected = artifact.sha256
    if expected is None and before is not None:
        expected = before.sha256
    doit_adapter.log().info("%s: verifying the existing file, which is new or has changed", artifact.label)
    size = status.size if status else None
    with progress(f"{artifact.label} sha256", 0) as bar:
        bar.at(0, size)
        got = files.sha256_file(artifact.target, lambda done: bar.at(done, size))
    if expected in (None, got.sha256):
        known = before or Stamp(got.stat, got.sha256, artifact.target, {})
        engines = known.engines if known.sha256 == got.sha256 else {}
        stamps.write_stamp(cache, artifact, Stamp(got.stat, got.sha256, known.source, engines))
        doit_adapter.log().info("%s: the digest is correct, nothing is downloaded", artifact.label)
        return True
    facts = [("file", artifact.target), ("expected", f"sha256:{expected}"), ("got", f"sha256:{got.sha256}")]
    if not artifact.owned:
        fix = "remove the file to download it again, or pass its digest with --sha256"
        raise IntegrityError(f"{artifact.label} is not the file you asked for", facts, fix)
    doit_adapter.log().warning(
        "%s", IntegrityError(f"{artifact.label} has changed on disk; downloading it again", facts)
    )
    return False


def check_source(recipe: Recipe, artifact: Artifact) -> None:
    """Check that a missing file may be downloaded, before any download starts.

    Raises:
        TransferError: as `check_allowed`.
    """
    if stamps.state(recipe.place.cache, artifact) is State.MISSING:
        check_allowed(recipe, artifact)


def check_allowed(recipe: Recipe, artifact: Artifact) -> None:
    """Check that a file may be downloaded, whether or not the target exists.

    Raises:
        TransferError: it has no source (R5), it must be pinned and is not, or network
            access is disabled.
    """
    if not artifact.sources:
        fix = "pass --llamafile-url URL once"
        raise TransferError(f"there is no file {artifact.target}", fix=fix)
    if recipe.frozen and artifact.sha256 is None:
        raise TransferError(
            f"{artifact.label} is not pinned; --frozen and CI=true allow pinned files only",
            [("url", artifact.sources[0])],
            fix=_pinning(recipe, artifact),
        )
    if (variable := huggingface.offline(os.environ)) and not _is_near(artifact):
        raise _offline(recipe, variable, artifact)


def _pinning(recipe: Recipe, artifact: Artifact) -> str:
    """Return the command or option that pins an artifact."""
    jobs = recipe.jobs.by_name.values()
    job = next((job for job in jobs if _has_target(job.files, artifact.target)), None)
    if job is None:
        return "doit lock --model llamafile, and commit models.lock"
    known = job.name in recipe.catalogue.names and job.artifact.owned and not job.question
    if known:
        return f"doit lock --model {job.name}, and commit models.lock"
    return "--sha256 HEX"


def _has_target(artifacts: Iterable[Artifact], target: str) -> bool:
    return any(artifact.target == target for artifact in artifacts)


def _is_near(artifact: Artifact) -> bool:
    """Return whether this machine may have the bytes."""
    from tasks.transfer.local_sources import candidates

    return any(map(is_local, artifact.sources)) or next(candidates(artifact), None) is not None


def _offline(recipe: Recipe, variable: str, first: Artifact) -> TransferError:
    """Return the error that lists all missing files of the command line.

    Args:
        first: the file that was checked first; its target may have wrong bytes.
    """
    facts = [
        (artifact.label, f"{formatting.size(artifact.size)} from {artifact.sources[0]}")
        for artifact in _missing(recipe, first)
        if artifact.sources
    ]
    return TransferError(
        f"{variable} forbids the network, and these files are missing",
        facts,
        fix=f"unset {variable}, or copy the cache of another machine to {recipe.place.cache}",
    )


def _missing(recipe: Recipe, first: Artifact) -> list[Artifact]:
    """Return `first` and the files that would have to be downloaded."""
    jobs = recipe.jobs.by_name.values()
    artifacts = [file for job in jobs for file in job.files]
    artifacts += [job.exe for job in jobs if job.exe]
    artifacts.append(first)
    by_target = {artifact.target: artifact for artifact in artifacts}
    return [
        artifact
        for artifact in by_target.values()
        if artifact.target == first.target or _must_download(recipe.place.cache, artifact)
    ]


def _must_download(cache: str, artifact: Artifact) -> bool:
    return stamps.state(cache, artifact) is State.MISSING and not _is_near(artifact)


def _fetch(cache: str, artifact: Artifact, question: str, yes: bool) -> None:
    if question and not yes:
        confirm(question)
    from tasks.transfer.download import fetch

    stamps.write_stamp(cache, artifact, fetch(artifact))


def confirm(question: str) -> None:
    """Ask a question on the terminal (R4).

    Raises:
        RecipeError: the answer is no, or stdin is not a terminal.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise RecipeError(
            question.replace("\n", "\n  "), fix="stdin is not a terminal: pass --yes to confirm"
        )
    print(f"{visible(question)} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RecipeError("cancelled: nothing was downloaded")


def _is_right_there(cache: str, artifact: Artifact) -> bool:
    """Return whether a read-only cache has the right bytes, so needs no lock."""
    return stamps.state(cache, artifact) is State.MOVED and _same_bytes(cache, artifact)


def check_place(cache: str, artifact: Artifact) -> None:
    """Check that a file may be created at the target.

    Raises:
        RecipeError: the target is not a regular file, or leads out of the cache.
    """
    from tasks.system import own_files

    if artifact.owned:
        own_files.check_inside(cache, artifact.target)
    elif os.path.lexists(artifact.target) and not os.path.isfile(os.path.realpath(artifact.target)):
        what = f"{artifact.target} is not a regular file, and is not replaced by a download"
        raise RecipeError(what, fix="--llamafile PATH of a file, or remove it")
