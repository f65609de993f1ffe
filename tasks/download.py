"""`doit download`: the bytes come here and are proven to be the right ones."""

from __future__ import annotations

import sys

from doit.task import Task

from tasks import glue
from tasks.core import report
from tasks.core.artifact import Artifact, Stamp, State
from tasks.core.errors import IntegrityError, RecipeError, TransferError
from tasks.core.jobs import Job
from tasks.effects import files
from tasks.recipe import Recipe


def task(recipe: Recipe, job: Job) -> Task:
    """The task of one model."""
    cache, artifact, options = recipe.place.cache, job.artifact, _options(recipe, job)
    if "no_adopt" in options:
        artifact = artifact._replace(adopt_from=None)
    return glue.task(
        f"download:{job.name}",
        converge,
        [cache, artifact, job.question, "yes" in options],
        targets=[artifact.target],
        uptodate=[lambda: files.state(cache, artifact) is State.FRESH],
        doc=report.task_line(job.model),
    )


def _options(recipe: Recipe, job: Job) -> set[str]:
    """Options given for this model by any task."""
    return {key for ask, names in recipe.jobs.asked if job.name in names for key in ask.options}


def converge(cache: str, artifact: Artifact, question: str = "", yes: bool = False) -> None:
    """Make the target what it must be: nothing, a look at its bytes, or a download.

    Raises RecipeError: it cannot be had, or wrong bytes lie where they may not be replaced.
    """
    from tasks.effects.locks import artifact_lock, wait_for_owner
    from tasks.effects.partial import TakenOver

    try:
        files.make_cache(cache)
    except OSError as error:
        raise files.cannot_write(cache, error) from None
    with artifact_lock(cache, artifact):
        while True:
            state = files.state(cache, artifact)
            if state is State.MOVED and _same_bytes(cache, artifact):
                return
            if state is State.FRESH:
                glue.log().info("%s came while this waited", artifact.label)
                return
            try:
                _fetch(cache, artifact, question, yes)
                return
            except TakenOver:  # locks lie here, and another process goes on with our bytes
                wait_for_owner(artifact)


def _same_bytes(cache: str, artifact: Artifact) -> bool:
    """Read a file that changed since it was proven; False when it has to be fetched again."""
    from tasks.effects.progress import progress

    before, found = files.read_stamp(cache, artifact), files.stat(artifact.target)
    expected = artifact.sha256 or (before.sha256 if before else None)
    glue.log().info(
        "%s is here and has to be read once: it is new, or its size or time changed", artifact.label
    )
    with progress(f"{artifact.label} sha256", 0) as bar:
        bar.at(0, found[0] if found else None)
        got = files.sha256_file(artifact.target, lambda done: bar.at(done, found[0] if found else None))
    if found and expected in (None, got):
        known = before or Stamp(*found, got, artifact.target, {})
        engines = known.engines if known.sha256 == got else {}
        files.write_stamp(cache, artifact, Stamp(*found, got, known.source, engines))
        glue.log().info("%s: the bytes are right, nothing is downloaded", artifact.label)
        return True
    facts = [("file", artifact.target), ("expected", f"sha256:{expected}"), ("got", f"sha256:{got}")]
    if not artifact.owned:
        fix = "move it away to download it again, or give its own digest with --sha256"
        raise IntegrityError(f"{artifact.label} is not the file you asked for", facts, fix)
    glue.log().warning(
        "%s", IntegrityError(f"{artifact.label} has changed on disk; it is fetched again", facts)
    )
    return False


def check_source(artifact: Artifact) -> None:
    """Raise TransferError: a file of the user's that is not there, and nobody says where to get it (R5)."""
    if not artifact.sources and files.stat(artifact.target) is None:
        fix = "--llamafile-url URL says where to get it; that is needed once"
        raise TransferError(f"there is no file {artifact.target}", fix=fix)


def _fetch(cache: str, artifact: Artifact, question: str, yes: bool) -> None:
    check_source(artifact)
    if question and not yes:
        confirm(question)
    from tasks.effects.download import fetch

    files.write_stamp(cache, artifact, fetch(artifact))


def confirm(question: str) -> None:
    """Ask on the terminal; without one, fail and say what to pass (R4).

    Raises RecipeError: the answer is no, or nobody is there to give one.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise RecipeError(question.replace("\n", "\n  "), fix="there is no terminal to ask on: pass --yes")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RecipeError("you said no: nothing was downloaded")
