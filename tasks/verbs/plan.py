"""`doit plan`: show downloads and their sources, and if disk and memory suffice."""

from __future__ import annotations

import shutil
from typing import Any

from tasks import doit_adapter
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.file_specs import hub_file, release
from tasks.catalogue.model_files import WINDOWS_EXE_LIMIT
from tasks.catalogue.resolve import Job
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.context import Recipe
from tasks.engine.file_format import format_error
from tasks.errors import RecipeError
from tasks.planning import estimate
from tasks.planning.estimate import Memory, Need, memory_of, need_of
from tasks.system import files, memory
from tasks.transfer.ensure import check_source
from tasks.transfer.local_sources import path_of
from tasks.transfer.policy import DownloadPolicy
from tasks.urls import host_of


def run(recipe: Recipe, ask: Ask) -> None:
    """Print the report to stdout.

    Raises:
        SystemExit: 1 if it cannot work.
    """
    cache = recipe.place.cache
    names = next(names for asked, names in recipe.jobs.asked if asked is ask)
    jobs = [recipe.jobs.by_name[name] for name in names]
    artifacts = [file for job in jobs for file in job.files]
    artifacts += [job.exe for job in jobs if job.exe]
    wanted = dict.fromkeys(artifacts)
    adopts = "no_adopt" not in ask.options
    needs = [need_of(cache, artifact, adopts) for artifact in wanted]
    takes = [memory_of(job, needs) for job in jobs]
    here = memory.total()
    free = shutil.disk_usage(files.existing(cache)).free
    problems = estimate.problems(needs, free, takes, here)
    policy = recipe.download_policy()
    refused = (_refused(cache, artifact, policy) for artifact in wanted)
    problems += dict.fromkeys(filter(None, refused))
    problems += [_no_source(need) for need in needs if _is_nowhere(need)]
    problems += [found for job in jobs if (found := _no_model(job, needs))]
    facts = {"free": free, "memory": here, "notes": _notes(recipe, jobs)}
    if ask.options.get("json"):
        doit_adapter.show_json(_data(jobs, needs, takes, facts, problems))
    else:
        doit_adapter.show(*_text(needs, takes, facts, problems))
    if problems:
        raise SystemExit(1)


def _refused(cache: str, artifact: Artifact, policy: DownloadPolicy) -> tuple[str, str] | None:
    """Return why a file may not be fetched, and the fix; None if it may."""
    try:
        check_source(cache, artifact, policy)
    except RecipeError as error:
        return error.what, error.fix
    return None


def _is_nowhere(need: Need) -> bool:
    """Whether the only source of a file is a local path where there is no file."""
    return need.state == "nowhere" and bool(need.source)


def _no_source(need: Need) -> tuple[str, str]:
    what = f"{need.label}: there is no file {path_of(need.source)}"
    return what, "copy the file there, or correct `url:`"


def _no_model(job: Job, needs: list[Need]) -> tuple[str, str] | None:
    """Return why an engine cannot read a file that is on this machine, and the fix."""
    by_path = {need.path: need for need in needs}
    for artifact in job.files:
        need = by_path[artifact.target]
        engine = job.engine
        if artifact is not job.artifact:
            engine = "embedded"  # a GGUF, whatever the engine
        if need.state not in ("have", "copy", "adopt"):
            continue
        error = _format_error(need.source, engine, owned=artifact.owned)
        if error:
            reasons = [str(value) for name, value in error.facts if name == "got"]
            return ": ".join([error.what, *filter(None, reasons)]), error.fix
    return None


def _format_error(path: str, engine: str, *, owned: bool) -> RecipeError | None:
    try:
        return format_error(path, engine, owned=owned)
    except OSError as error:
        return RecipeError(f"cannot read {path}: {error.strerror or error}")


def _notes(recipe: Recipe, jobs: list[Job]) -> list[str]:
    """Return what is different on this system (R9)."""
    if recipe.place.platform != "win32":
        return []
    return [
        f"{job.name} is over 4 GiB, more than Windows starts: llamafile.exe runs it with -m"
        for job in jobs
        if job.exe and (job.size or 0) > WINDOWS_EXE_LIMIT
    ]


def _text(needs: list[Need], takes: list[Memory], facts: dict[str, Any], problems: list[Any]) -> list[str]:
    from rich.text import Text

    from tasks.console.tables import table

    colours = {"have": "green", "fetch": "yellow", "nowhere": "red"}
    rows = [
        [
            Text(need.label),
            Text(need.where(), colours.get(need.state, "")),
            Text(formatting.size(need.size)),
            Text(_known(need.to_fetch)),
            Text(_short(need.source)),
        ]
        for need in needs
    ]
    write, _ = estimate.total([need.to_write for need in needs])
    free = facts["free"]
    lines: list[str] = [
        table(("file", "state", ">size", ">to fetch", "from"), rows),
        "",
        f"network  {_fetched(needs)}",
        f"disk     {formatting.size(free)} free, {formatting.size(free - write)} afterwards",
    ]
    lines += [f"memory   {_memory_line(one, facts['memory'])}" for one in takes]
    lines += [f"note     {note}" for note in facts["notes"]]
    for what, fix in problems:
        lines.append(f"cannot work: {what}")
        lines += [f"  fix: {line}" for line in fix.splitlines()]
    return lines


def _short(source: str) -> str:
    """Return where a file comes from, in few words; --json has the URL."""
    if file := hub_file(source):
        return f"{host_of(source)} {file.repo}@{file.revision[:8]}"
    if asset := release(source):
        return f"{host_of(source)} {asset.repo} {asset.tag}"
    return source


def _fetched(needs: list[Need]) -> str:
    fetch, all_known = estimate.total([need.to_fetch for need in needs])
    if all_known:
        return formatting.size(fetch)
    if fetch:
        return f"at least {formatting.size(fetch)}"
    return "not known"


def _known(count: int | None) -> str:
    if count is None:
        return estimate.UNKNOWN
    if not count:
        return "-"
    return formatting.size(count)


def _memory_line(need: Memory, total: int) -> str:
    """Return what memory a model needs, and what this machine has."""
    here = f"{formatting.size(total)} are here"
    tokens = "as many tokens as it was trained for"
    if need.context:
        tokens = f"{need.context} tokens"
    if need.needed is None:
        return f"{need.model}: not known for {tokens}; {here}"
    if need.needed == need.said:
        source = "models.yaml"
        if not need.context:
            source += f"; more for {tokens}"
        return f"{need.model} needs about {formatting.size(need.said)} ({source}); {here}"
    about = "about "
    if need.exact:
        about = ""
    weights, cache = formatting.size(need.weights), formatting.size(need.cache)
    parts = f"(weights {weights}, {about}{cache} for {tokens})"
    if need.gpu:
        parts += ", part of it on the GPU"
    return f"{need.model} needs {about}{formatting.size(need.needed)} {parts}; {here}"


def _data(
    jobs: list[Job], needs: list[Need], takes: list[Memory], facts: dict[str, Any], problems: list[Any]
) -> dict[str, Any]:
    fetch, known = estimate.total([need.to_fetch for need in needs])
    write, _ = estimate.total([need.to_write for need in needs])
    return {
        "models": [job.name for job in jobs],
        "files": [estimate.as_json(need) for need in needs],
        "to_fetch": fetch,
        "to_fetch_is_exact": known,
        "disk": {"free": facts["free"], "afterwards": facts["free"] - write},
        "memory": {
            "here": facts["memory"],
            "models": [{**one._asdict(), "needed": one.needed} for one in takes],
        },
        "notes": facts["notes"],
        "problems": [{"what": what, "fix": fix} for what, fix in problems],
        "works": not problems,
    }
