"""Read what is deployed: models.yaml, and the files that models.lock pins."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePath
from typing import Any

from tasks.catalogue import load, lockfile, schema
from tasks.catalogue.deploy_options import DeployedModel as Options
from tasks.catalogue.deploy_options import DeployOptions
from tasks.catalogue.endpoints import ResolvedEndpoint, endpoint_entry
from tasks.catalogue.engine_release import NAME as LLAMA_SERVER
from tasks.catalogue.environment import Environment
from tasks.catalogue.lockfile import LockFile
from tasks.catalogue.resolve import ResolvedModel, resolve_entry
from tasks.catalogue.scrape_target import Scraped
from tasks.catalogue.types import Catalogue
from tasks.deploy.fleet import DeployedModel, Fleet, PinnedFile
from tasks.errors import UsageError
from tasks.planning.estimate import locked_estimate
from tasks.transfer.local_sources import local_path
from tasks.urls import filename_of, is_local

_EMBEDDED = "embedded"
_EXAMPLE = "add `deploy: {models: {%s: {}}}` to it; its comments describe the keys"
_GB = 10**9


def read_fleet(catalogue: Catalogue, environment: Environment) -> Fleet:
    """Return what is deployed, which does not depend on this machine.

    Raises:
        UsageError: models.yaml has no `deploy:`, or models.lock lacks a model of it.
    """
    where = catalogue.where
    plain = schema.read_catalogue(load.decode_yaml(load.read(where), where), where)
    options = schema.deploy_options(plain)
    if options is None:
        what = f"{where} has no `deploy:`"
        raise UsageError(what, fix=_EXAMPLE % catalogue.default)
    elsewhere = Environment("linux", environment.cache, environment.root, "/")
    elsewhere = elsewhere._replace(first_bytes=environment.first_bytes)
    models: list[DeployedModel] = []
    jobs: list[ResolvedModel] = []
    for name, deployed in options.models.items():
        if name in catalogue.endpoint_names:
            endpoint = endpoint_entry(name, catalogue, elsewhere)
            version = _version(endpoint.default, catalogue)
            models.append(_deployed_endpoint(endpoint, deployed, elsewhere, version))
            jobs += endpoint.members
            continue
        job = resolve_entry(name, catalogue, elsewhere, deployed.variant or "")
        version = _version(job, catalogue)
        models.append(_deployed(job, deployed, elsewhere, version))
        jobs.append(job)
    for job in jobs:
        _check_reachable(job, environment.root)
    _check_locked(
        plain, where, {word for job in jobs for word in (job.name, job.engine)}
    )
    _check_memory(models, options)
    secrets = {
        entry.get("token") or entry.get("password") or ""
        for entry in catalogue.auth.values()
    }
    return Fleet(tuple(models), options, _programs(jobs), tuple(sorted(secrets)))


def _programs(jobs: Iterable[ResolvedModel]) -> tuple[str, ...]:
    """Return the engines that models.yaml does not pin."""
    lacking = (job for job in jobs if job.engine == LLAMA_SERVER and not job.program)
    return tuple(dict.fromkeys(job.engine for job in lacking))


def _version(job: ResolvedModel, catalogue: Catalogue) -> str:
    """Return the version of a model's engine; empty where the machine decides."""
    if job.engine == "self":
        return job.model.engine_version or ""
    if not (job.exe or job.program):
        return ""
    return (catalogue.engine(job.engine).version or "").removeprefix("b")


def _deployed(
    job: ResolvedModel, options: Options, environment: Environment, version: str
) -> DeployedModel:
    settings = job.settings
    if options.model_image:
        _check_engine(job)
        _check_names(job)
    return DeployedModel(
        job.name,
        job.model.title,
        job.model.license,
        _files([job], environment),
        variant=options.variant or "",
        replicas=options.replicas,
        max_replicas=options.max_replicas,
        port=options.port or settings.port or 8080,
        balance=options.balance,
        gpus=options.gpus,
        timeout=settings.timeout,
        parallel=settings.parallel or 1,
        memory=locked_estimate(job).needed,
        metrics=bool(settings.metrics),
        slow=options.slow,
        engine=job.engine,
        version=version,
        model_image=options.model_image or "",
    )


def _deployed_endpoint(
    endpoint: ResolvedEndpoint, options: Options, environment: Environment, version: str
) -> DeployedModel:
    """Return an endpoint as a model; each of its models answers requests at once."""
    settings = endpoint.settings
    licenses = dict.fromkeys(one.model.license for one in endpoint.members)
    return DeployedModel(
        endpoint.name,
        endpoint.title,
        ", ".join(licenses),
        _files(endpoint.members, environment),
        replicas=options.replicas,
        port=options.port or settings.port or 8080,
        balance=options.balance,
        gpus=options.gpus,
        timeout=settings.timeout,
        parallel=sum(one.settings.parallel or 1 for one in endpoint.members),
        memory=endpoint.memory,
        metrics=bool(settings.metrics),
        slow=options.slow,
        engine=endpoint.default.engine,
        version=version,
        members=tuple(_member(one, endpoint.keep) for one in endpoint.members),
    )


def _member(job: ResolvedModel, keep: Collection[str]) -> Scraped:
    return Scraped(job.name, job.artifact.sha256 or "", job.name in keep)


def _files(
    jobs: Iterable[ResolvedModel], environment: Environment
) -> tuple[PinnedFile, ...]:
    """Return each file once: models may share a companion."""
    files = dict.fromkeys(file for job in jobs for file in job.files)
    start = f"{environment.cache}/"
    return tuple(
        PinnedFile(
            filename_of(file.sources[0]),
            file.sha256 or "",
            file.size,
            posixpath.dirname(file.target.removeprefix(start)),
        )
        for file in files
    )


def _check_engine(job: ResolvedModel) -> None:
    """Check that `image:` has the engine: a pod that mounts files downloads none.

    Raises:
        UsageError: the engine is downloaded, or is the model itself.
    """
    if job.engine == _EMBEDDED or (job.engine == LLAMA_SERVER and not job.program):
        return
    what = f"{job.name}: `model_image:` holds no engine, and {job.engine} is not in"
    fix = "`engine: embedded` in its entry, or remove `model_image:` from deploy"
    raise UsageError(f"{what} `image:` either", fix=fix)


def _check_names(job: ResolvedModel) -> None:
    """Check that no two files have one name: in an image, one of them has another.

    Raises:
        UsageError: two have.
    """
    names = [posixpath.basename(file.target).lower() for file in job.files]
    for name in names:
        if names.count(name) > 1:
            what = f"{job.name}: `model_image:` cannot hold two files named {name}"
            raise UsageError(what, fix="remove `model_image:` from deploy")


def _check_locked(plain: Mapping[str, Any], where: str, names: Collection[str]) -> None:
    """Check that models.lock pins the bytes of these models and engines.

    Raises:
        UsageError: it does not; the fix is the command that does.
    """
    place = load.lock_path(where)
    content = load.read_lock(where)
    lock = LockFile(1)
    if content is not None:
        lock = schema.read_lock(load.decode_yaml(content, place), place)
    errors = [row.partition(" ") for row in lockfile.coverage_errors(plain, lock)]
    lacking = {
        name: reason
        for entry, _, reason in errors
        if (name := entry.partition(".")[2]) in names
    }
    if not lacking:
        return
    what = f"{place} does not pin what is deployed"
    words = " ".join(f"--model {name}" for name in lacking)
    raise UsageError(what, list(lacking.items()), fix=f"doit lock {words}")


def _check_reachable(job: ResolvedModel, root: str) -> None:
    """Check that other machines can fetch each file, or have it in their clone.

    Raises:
        UsageError: a file is on this machine only.
    """
    folder = PurePath(root)
    for file in job.files:
        remote = (url for url in file.sources if not is_local(url))
        if next(remote, "") or folder in PurePath(local_path(file.sources[0])).parents:
            continue
        what = f"{job.name}: {file.sources[0]} is only on this machine"
        raise UsageError(what, fix="a URL, or a path inside the repository")


def _check_memory(models: list[DeployedModel], options: DeployOptions) -> None:
    """Check that the servers of one machine fit its memory.

    Raises:
        UsageError: they do not, as far as it is known.
    """
    if options.node_memory is None:
        return
    for model in models:
        if (model.memory or 0) > options.node_memory * _GB:
            needed = f"{(model.memory or 0) / _GB:.1f} GB"
            what = f"{model.name} needs {needed} of memory"
            facts = [("deploy.node_memory", f"{options.node_memory} GB")]
            fix = "a smaller model or ctx_size, or machines with more memory"
            raise UsageError(what, facts, fix=fix)
