"""`doit plan`: what would be fetched, from where, what disk and memory that takes, whether it can work."""

from __future__ import annotations

import os
import shutil
from typing import Any

from doit.task import Task

from tasks import doit_adapter
from tasks.catalogue.artifact import Artifact, State
from tasks.catalogue.file_specs import hub_file, release
from tasks.catalogue.resolve import WINDOWS_EXE_LIMIT, Job
from tasks.command_line import Ask
from tasks.console import formatting
from tasks.context import Recipe
from tasks.errors import RecipeError
from tasks.planning import estimate, gguf
from tasks.planning.estimate import Memory, Need
from tasks.system import files, memory
from tasks.urls import host_of, is_local
from tasks.verbs.download import check_source


def task(recipe: Recipe, ask: Ask) -> Task:
    """The task of one word on the command line."""
    name = f"plan:{ask.model}" if ask.model else "plan"
    return doit_adapter.task(name, run, [recipe, ask], meta={"report": True})


def run(recipe: Recipe, ask: Ask) -> None:
    """Print the report to stdout. Raises SystemExit: 1 if it cannot work."""
    names = next(names for one, names in recipe.jobs.asked if one is ask)
    jobs = [recipe.jobs.by_name[name] for name in names]
    wanted = dict.fromkeys([*(f for job in jobs for f in job.files), *(job.exe for job in jobs if job.exe)])
    needs = [need_of(recipe, artifact, ask) for artifact in wanted]
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


def need_of(recipe: Recipe, artifact: Artifact, ask: Ask) -> Need:
    """What is to be done for one file."""
    from tasks.transfer.partial import claimed

    label, path, state = artifact.label, artifact.target, files.state(recipe.place.cache, artifact)
    if state is not State.MISSING:
        word = "have" if state is State.FRESH else "changed"
        return Need(label, path, word, path, artifact.size or _size(path))
    near, local = _near(artifact, adopt="no_adopt" not in ask.options)
    if near or local:
        return Need(
            label, path, "adopt" if near else "copy", near or local, artifact.size or _size(near or local)
        )
    claim = claimed(artifact)
    word = "resume" if claim.done else "fetch" if artifact.sources else "nowhere"
    source = next((u for u in artifact.sources if not is_local(u)), next(iter(artifact.sources), ""))
    return Need(label, path, word, source, artifact.size or claim.size, claim.done)


def _near(artifact: Artifact, adopt: bool) -> tuple[str, str]:
    """(file of another program's, file of the user's) that has the bytes, empty where there is none."""
    from tasks.transfer.local_sources import candidates, path_of

    local = (path_of(url) for url in artifact.sources if is_local(url))
    near = next(candidates(artifact), "") if adopt else ""
    return near, next(filter(os.path.exists, local), "")


def _size(path: str) -> int | None:
    found = files.stat(path)
    return found.size if found else None


def _refused(recipe: Recipe, artifact: Artifact) -> tuple[str, str] | None:
    """Why a file may not be fetched: nobody says where it is, --frozen, or no network."""
    try:
        check_source(recipe, artifact)
    except RecipeError as error:
        return error.what, error.fix
    return None


def memory_of(job: Job, needs: list[Need]) -> Memory:
    """What serving takes: from the file where it is on this machine, else by a rule of thumb."""
    settings, context = job.settings, job.settings.ctx_size or 0
    mine = [need for need in needs if need.path in {one.target for one in job.files}]
    meta = memory.metadata(mine[0].source)
    cache = gguf.kv_bytes(meta, context) if meta else None
    exact, sizes = cache is not None, [need.size for need in mine]
    if cache is None:
        cache = gguf.kv_estimate(job.model.params, context)
    weights = None if None in sizes else estimate.total(sizes)[0]
    gpu = bool(settings.ngl) and settings.gpu != "disable"
    said = job.model.ram * 10**9 if job.model.ram else None
    return Memory(job.name, weights, cache, context, exact, gpu, said)


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
        f"disk     {formatting.size(facts['free'])} free, {formatting.size(facts['free'] - write)} afterwards",
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
    return f"{one.model} needs {about}{formatting.size(one.needed)} ({parts}){gpu}; {formatting.size(here)} are here"


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
