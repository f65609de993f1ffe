"""`doit plan`: show downloads and their sources, and if disk and memory suffice."""

from __future__ import annotations

import os
import shutil
from typing import Any

from tasks import doit_adapter
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.file_specs import parse_hub_url, parse_release_url
from tasks.catalogue.model_files import WINDOWS_EXE_LIMIT
from tasks.catalogue.resolve import ResolvedModel
from tasks.catalogue.rule_of_thumb import RAM_CONTEXT
from tasks.catalogue.variants import Choice
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.console.report import Column, Fact, Report, Row
from tasks.context import Context
from tasks.engine.file_format import format_error
from tasks.engine.version import engine_version, router_problems
from tasks.errors import RecipeError
from tasks.network import huggingface
from tasks.planning import endpoint_plan, estimate, verdict
from tasks.planning.estimate import FilePlan, MemoryEstimate, estimate_memory, plan_file
from tasks.system import files, memory
from tasks.transfer.ensure import check_source
from tasks.transfer.local_sources import local_path
from tasks.transfer.policy import DownloadPolicy
from tasks.urls import host_of


def run(context: Context, request: TaskRequest) -> None:
    """Print the report to stdout.

    Raises:
        SystemExit: 1 if it cannot work.
    """
    cache = context.environment.cache
    names = next(
        names for asked, names in context.resolution.requested if asked is request
    )
    endpoints = [context.endpoints[name] for name in names if name in context.endpoints]
    alone = [
        context.resolution.by_name[name]
        for name in names
        if name not in context.endpoints
    ]
    members = [member for one in endpoints for member in one.members]
    jobs = [*alone, *(one for one in members if one not in alone)]
    artifacts = [file for resolved in jobs for file in resolved.files]
    artifacts += [resolved.exe for resolved in jobs if resolved.exe]
    wanted = dict.fromkeys(artifacts)
    adopts = "no_adopt" not in request.options
    needs = [plan_file(cache, artifact, adopts) for artifact in wanted]
    takes = [estimate_memory(resolved, needs) for resolved in jobs]
    here = memory.total()
    free = shutil.disk_usage(files.nearest_existing_dir(cache)).free
    problems = [
        *verdict.disk_problems(needs),
        *verdict.memory_problems(takes[: len(alone)], here),
        *verdict.engine_problems(alone),
        *context.lacking_features(jobs),
        *router_problems(cache, context.catalogue, endpoints),
        *verdict.write_problem(cache, needs),
    ]
    groups = [endpoint_plan.plan_endpoint(one, needs, here) for one in endpoints]
    for one, group in zip(endpoints, groups, strict=True):
        problems += [*group.problems, *endpoint_plan.engine_problem(one)]
    policy = context.download_policy()
    refused = [_refused(cache, artifact, policy) for artifact in wanted]
    refused += [_no_endpoint(*one) for one in zip(wanted, needs, strict=True)]
    problems += dict.fromkeys(filter(None, refused))
    problems += [_no_source(file_plan) for file_plan in needs if _is_nowhere(file_plan)]
    problems += [found for resolved in jobs if (found := _no_model(resolved, needs))]
    facts = {"free": free, "memory": here, "notes": _notes(context, jobs, needs)}
    facts["engines"] = [_engine(context, resolved) for resolved in jobs]
    facts["variants"] = {one.name: one.choice for one in jobs if one.choice}
    facts["endpoints"] = groups
    data = _data(jobs, needs, takes, facts, problems)
    rows = [estimate.as_json(file_plan) for file_plan in needs]
    report = Report(_COLUMNS, rows, _text(needs, takes, facts, problems), data=data)
    doit_adapter.show_report(report, bool(request.options.get("json")))
    if problems:
        raise SystemExit(1)


def _refused(
    cache: str, artifact: Artifact, policy: DownloadPolicy
) -> tuple[str, str] | None:
    """Return why a file may not be fetched, and the fix; None if it may."""
    try:
        check_source(cache, artifact, policy)
    except RecipeError as error:
        return error.what, error.fix
    return None


def _no_endpoint(artifact: Artifact, file_plan: FilePlan) -> tuple[str, str] | None:
    """Return why HF_ENDPOINT cannot be used, if a file comes from there alone."""
    if file_plan.state not in ("fetch", "resume"):
        return None
    if not all(huggingface.is_hub(url) for url in artifact.sources):
        return None
    from tasks.transfer.download import check_endpoint

    try:
        check_endpoint(pinned=artifact.sha256 is not None)
    except RecipeError as error:
        return error.what, error.fix
    return None


def _is_nowhere(file_plan: FilePlan) -> bool:
    """Whether the only source of a file is a local path that does not exist."""
    return file_plan.state == "nowhere" and bool(file_plan.source)


def _no_source(file_plan: FilePlan) -> tuple[str, str]:
    what = f"{file_plan.label}: no such file: {local_path(file_plan.source)}"
    return what, "copy the file there, or correct `url:`"


def _no_model(resolved: ResolvedModel, needs: list[FilePlan]) -> tuple[str, str] | None:
    """Return why an engine cannot read a file that is on this machine, and the fix."""
    by_path = {file_plan.path: file_plan for file_plan in needs}
    for artifact in resolved.files:
        file_plan = by_path[artifact.target]
        engine = resolved.engine
        if artifact.is_text:
            continue
        if artifact is not resolved.artifact:
            engine = "embedded"  # a GGUF, whatever the engine
        if file_plan.state not in ("have", "copy", "adopt"):
            continue
        error = _format_error(file_plan.source, engine, owned=artifact.in_cache)
        if error:
            reasons = [str(value) for name, value in error.facts if name == "got"]
            return ": ".join([error.what, *filter(None, reasons)]), error.fix
    return None


def _format_error(path: str, engine: str, *, owned: bool) -> RecipeError | None:
    try:
        return format_error(path, engine, owned=owned)
    except OSError as error:
        return RecipeError(f"cannot read {path}: {error.strerror or error}")


def _engine(context: Context, resolved: ResolvedModel) -> dict[str, str]:
    """Return which engine serves a model, its version as far as known, and why."""
    cache = context.environment.cache
    return {
        "model": resolved.name,
        "engine": resolved.engine,
        "version": engine_version(cache, context.catalogue, resolved),
        "reason": resolved.engine_reason,
    }


def _title(engine: dict[str, str]) -> str:
    """Return an engine and its version; a llamafile's own engine is `self`."""
    return f"{engine['engine']} {engine['version']}".strip()


def _notes(
    context: Context, jobs: list[ResolvedModel], needs: list[FilePlan]
) -> list[str]:
    """Return how to find unknown sizes, and what is different on this system (R9)."""
    notes = []
    if names := _unknown_sizes(jobs, needs):
        options = " ".join(f"--model {name}" for name in names)
        notes.append(f"?: `doit lock --upgrade {options}` asks publishers for the size")
    if context.environment.platform != "win32":
        return notes
    return notes + [
        f"{resolved.name} is over 4 GiB, more than Windows starts: "
        "llamafile.exe runs it with -m"
        for resolved in jobs
        if resolved.engine == "llamafile" and (resolved.size or 0) > WINDOWS_EXE_LIMIT
    ]


def _unknown_sizes(jobs: list[ResolvedModel], needs: list[FilePlan]) -> list[str]:
    """Return the names in models.yaml of what has files of unknown size."""
    unknown = {one.path for one in needs if one.to_fetch is None}
    names: dict[str, None] = {}
    for resolved in jobs:
        files_of = {artifact.target for artifact in resolved.files}
        if files_of & unknown and not resolved.is_own:
            names[resolved.name] = None
        if resolved.exe and resolved.exe.target in unknown:
            names[resolved.engine] = None
    return list(names)


def _text(
    needs: list[FilePlan],
    takes: list[MemoryEstimate],
    facts: dict[str, Any],
    problems: list[Any],
) -> list[Fact | str]:
    """Return what people read below the table of the files."""
    write, all_known = estimate.total([file_plan.to_write for file_plan in needs])
    free = facts["free"]
    disk = f"{formatting.format_size(free)} free, {_afterwards(free, write, all_known)}"
    lines: list[Fact | str] = [
        "",
        Fact("network  ", _fetched(needs)),
        Fact("disk     ", disk),
    ]
    lines += [
        Fact("engine   ", f"{one['model']}: {_title(one)} ({one['reason']})")
        for one in facts["engines"]
    ]
    lines += [Fact("memory   ", _memory_line(one, facts["memory"])) for one in takes]
    lines += [Fact("endpoint ", endpoint_plan.text(one)) for one in facts["endpoints"]]
    for name, choice in facts["variants"].items():
        lines += [Fact("variant  ", f"{name} {line}") for line in variant_lines(choice)]
    lines += [Fact("note     ", note) for note in facts["notes"]]
    for what, fix in problems:
        lines.append(Fact("cannot work: ", what))
        lines += [f"  fix: {line}" for line in fix.splitlines()]
    return lines


def state_text(row: Row) -> str:
    """Return the state; of a partial download also how much of it is here."""
    if row["state"] != "resume":
        return str(row["state"])
    here, size = row["here"], row["size"]
    done = formatting.format_percent(here, size) or formatting.format_size(here)
    return f"resume from {done}"


def _style(row: Row) -> str:
    colours = {"have": "green", "fetch": "yellow", "nowhere": "red"}
    return colours.get(row["state"], "")


def _short(source: str) -> str:
    """Return where a file comes from, in few words; --json has the URL."""
    if file := parse_hub_url(source):
        host = host_of(huggingface.rewrite_to_endpoint(source, os.environ))
        return f"{host} {file.repo}@{file.revision[:8]}"
    if asset := parse_release_url(source):
        return f"{host_of(source)} {asset.repo} {asset.tag}"
    return source


def _fetched(needs: list[FilePlan]) -> str:
    fetch, all_known = estimate.total([file_plan.to_fetch for file_plan in needs])
    if all_known:
        return formatting.format_size(fetch)
    if fetch:
        return f"at least {formatting.format_size(fetch)}"
    return "not known"


def _afterwards(free: int, write: int, all_known: bool) -> str:
    """Return what a disk has after `write` bytes, or that these do not fit.

    Args:
        all_known: whether the size of every file is known.
    """
    if write > free:
        return f"too little for {formatting.format_size(write)}"
    if not all_known:
        return "not known afterwards"
    return f"{formatting.format_size(free - write)} afterwards"


def _amount(count: int) -> str:
    if not count:
        return "-"
    return formatting.format_size(count)


def _memory_line(need: MemoryEstimate, total: int) -> str:
    """Return what memory a model needs, and what this machine has."""
    here = f"{formatting.format_size(total)} installed"
    tokens = "the model's full context"
    if need.context:
        tokens = f"{need.context} tokens"
    if need.needed is None:
        return f"{need.model}: not known for {tokens}; {here}"
    if need.is_declared:
        needed = formatting.format_size(need.needed)
        source = _declared_source(need, tokens)
        return f"{need.model} needs about {needed} ({source}); {here}"
    about = "about "
    if need.exact:
        about = ""
    weights, cache = (
        formatting.format_size(need.weights),
        formatting.format_size(need.cache),
    )
    parts = f"(weights {weights}, {about}{cache} for {tokens})"
    if need.source == estimate.LOCK:
        parts = f"{parts[:-1]}; from {need.source})"
    if need.gpu:
        parts += ", part of it on the GPU"
    needed = formatting.format_size(need.needed)
    return f"{need.model} needs {about}{needed} {parts}; {here}"


def _declared_source(need: MemoryEstimate, tokens: str) -> str:
    """Return what the memory of models.yaml includes."""
    if need.beyond:
        ram, beyond = map(formatting.format_size, (need.declared, need.beyond))
        return f"{ram} in models.yaml, about {beyond} beyond {RAM_CONTEXT} tokens"
    if 0 < need.context <= RAM_CONTEXT:
        return "models.yaml"
    return f"models.yaml; more at {tokens}"


def variant_lines(choice: Choice) -> list[str]:
    """Return a line for each variant: what it takes, and why it is used or not."""
    lines = []
    limit = formatting.format_size(choice.budget)
    for need in choice.needs:
        line = f"{need.name} needs {formatting.format_size(need.needed)} of memory"
        if need.needed is None:
            line = f"{need.name} has no memory stated in models.yaml or models.lock"
        elif choice.fits(need):
            line += f", fits in {limit}"
        else:
            line += f", does not fit in {limit}"
        if need.name == choice.name:
            line += f": used, {choice.reason}"
        lines.append(line)
    return lines


def _choice(choice: Choice) -> dict[str, Any]:
    rows = [{**need._asdict(), "fits": choice.fits(need)} for need in choice.needs]
    return {
        "used": choice.name,
        "reason": choice.reason,
        "budget": choice.budget,
        "all": rows,
    }


def _as_json(file_plan: FilePlan) -> dict[str, Any]:
    """Return a file's row, with the URL that is asked: that of HF_ENDPOINT."""
    source = huggingface.rewrite_to_endpoint(file_plan.source, os.environ)
    return estimate.as_json(file_plan._replace(source=source))


def _data(
    jobs: list[ResolvedModel],
    needs: list[FilePlan],
    takes: list[MemoryEstimate],
    facts: dict[str, Any],
    problems: list[Any],
) -> dict[str, Any]:
    fetch, known = estimate.total([file_plan.to_fetch for file_plan in needs])
    write, _ = estimate.total([file_plan.to_write for file_plan in needs])
    return {
        "models": [resolved.name for resolved in jobs],
        "files": [_as_json(file_plan) for file_plan in needs],
        "to_fetch": fetch,
        "to_fetch_is_exact": known,
        "disk": {"free": facts["free"], "afterwards": max(0, facts["free"] - write)},
        "memory": {
            "here": facts["memory"],
            "models": [{**one._asdict(), "needed": one.needed} for one in takes],
        },
        "engines": facts["engines"],
        "endpoints": [one._asdict() for one in facts["endpoints"]],
        "variants": {name: _choice(one) for name, one in facts["variants"].items()},
        "notes": facts["notes"],
        "problems": [{"what": what, "fix": fix} for what, fix in problems],
        "works": not problems,
    }


_COLUMNS = (
    Column("file", "file", least=12),
    Column("state", "state", describe=state_text, style=_style),
    Column("size", ">size", formatting.format_size, unknown=estimate.UNKNOWN),
    Column("to_fetch", ">to fetch", _amount, unknown=estimate.UNKNOWN),
    Column("source", "from", _short, least=10),
)
