"""`doit plan`: show downloads and their sources, and if disk and memory suffice."""

from __future__ import annotations

import shutil

from tasks import doit_adapter
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.model_files import WINDOWS_EXE_LIMIT
from tasks.catalogue.resolve import ResolvedModel
from tasks.command_line import TaskRequest
from tasks.context import Context
from tasks.engine.file_format import format_error
from tasks.engine.version import engine_version, router_problems
from tasks.errors import RecipeError
from tasks.network import huggingface
from tasks.planning import endpoint_plan, verdict
from tasks.planning.estimate import FilePlan, estimate_memory, plan_file
from tasks.planning.plan_report import plan_report
from tasks.system import files, memory
from tasks.transfer.local_sources import local_path
from tasks.transfer.permission import check_source
from tasks.transfer.policy import DownloadPolicy


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
    models = [resolved.name for resolved in jobs]
    report = plan_report(models, needs, takes, facts, problems)
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
