"""`doit plan`: what would be fetched, from where, what disk and memory that takes, whether it can work."""

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
from tasks.errors import RecipeError
from tasks.planning import estimate
from tasks.planning.estimate import Memory, Need, memory_of, need_of
from tasks.system import files, memory
from tasks.transfer.ensure import check_source
from tasks.urls import host_of


def run(recipe: Recipe, ask: Ask) -> None:
    """Print the report to stdout. Raises SystemExit: 1 if it cannot work."""
    names = next(names for one, names in recipe.jobs.asked if one is ask)
    jobs = [recipe.jobs.by_name[name] for name in names]
    wanted = dict.fromkeys([*(f for job in jobs for f in job.files), *(job.exe for job in jobs if job.exe)])
    needs = [need_of(recipe.place.cache, artifact, "no_adopt" not in ask.options) for artifact in wanted]
    takes = [memory_of(job, needs) for job in jobs]
    here, free = memory.total(), shutil.disk_usage(files.existing(recipe.place.cache)).free
    problems = estimate.problems(needs, free, takes, here)
    problems += dict.fromkeys(filter(None, (_refused(recipe, artifact) for artifact in wanted)))
    facts = {"free": free, "memory": here, "notes": _notes(recipe, jobs)}
    if ask.options.get("json"):
        doit_adapter.show_json(_data(jobs, needs, takes, facts, problems))
    else:
        doit_adapter.show(*_text(needs, takes, facts, problems))
    if problems:
        raise SystemExit(1)


def _refused(recipe: Recipe, artifact: Artifact) -> tuple[str, str] | None:
    """Why a file may not be fetched: nobody says where it is, --frozen, or no network."""
    try:
        check_source(recipe, artifact)
    except RecipeError as error:
        return error.what, error.fix
    return None


def _notes(recipe: Recipe, jobs: list[Job]) -> list[str]:
    """What is decided differently here than elsewhere (R9)."""
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
    fetch, all_known = estimate.total([need.to_fetch for need in needs])
    write, _ = estimate.total([need.to_write for need in needs])
    least = "" if all_known else "at least "
    lines: list[str] = [
        table(("file", "state", ">size", ">to fetch", "from"), rows),
        "",
        f"network  {least}{formatting.size(fetch)}" if fetch or all_known else "network  not known",
        f"disk     {formatting.size(facts['free'])} free, "
        f"{formatting.size(facts['free'] - write)} afterwards",
    ]
    lines += [f"memory   {_memory_line(one, facts['memory'])}" for one in takes]
    lines += [f"note     {note}" for note in facts["notes"]]
    for what, fix in problems:
        lines.append(f"cannot work: {what}")
        lines += [f"  fix: {line}" for line in fix.splitlines()]
    return lines


def _short(source: str) -> str:
    """Where a file comes from, for a line on a terminal; --json has the URL."""
    if file := hub_file(source):
        return f"{host_of(source)} {file.repo}@{file.revision[:8]}"
    found = release(source)
    return f"{host_of(source)} {found.repo} {found.tag}" if found else source


def _known(count: int | None) -> str:
    return estimate.UNKNOWN if count is None else formatting.size(count) if count else "-"


def _memory_line(one: Memory, here: int) -> str:
    about = "" if one.exact else "about "
    tokens = f"{one.context} tokens" if one.context else "as many tokens as it was trained for"
    if one.needed is None:
        return f"{one.model}: not known for {tokens}; {formatting.size(here)} are here"
    if one.needed == one.said:
        more = "" if one.context else f"; more for {tokens}"
        need = f"{one.model} needs about {formatting.size(one.said)} (models.yaml{more})"
        return f"{need}; {formatting.size(here)} are here"
    parts = f"weights {formatting.size(one.weights)}, {about}{formatting.size(one.cache)} for {tokens}"
    gpu = ", part of it on the GPU" if one.gpu else ""
    needs = f"{one.model} needs {about}{formatting.size(one.needed)} ({parts}){gpu}; "
    return f"{needs}{formatting.size(here)} are here"


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
