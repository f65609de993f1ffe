"""Resolve an endpoint: several models behind one llama-server. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from tasks.catalogue.artifact import Artifact
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import Resolution, ResolvedModel, _check_conflict, _job
from tasks.catalogue.server_options import api_key, drain_of, replicas_of
from tasks.catalogue.settings import ServeSettings, serve_settings, settings_of
from tasks.catalogue.types import Catalogue
from tasks.command_line import Kind, TaskRequest
from tasks.errors import UsageError

GB = 10**9
# options that a server of one model takes, and one of several cannot
_SETTINGS = ("ctx_size", "n_predict", "ngl", "gpu", "force_gpu", "threads")
_SOURCES = ("variant", "llamafile", "llamafile_url", "sha256")


class ResolvedEndpoint(NamedTuple):
    """An endpoint with everything that the command line and the catalogue decide."""

    name: str  # its name in tasks
    members: tuple[ResolvedModel, ...]  # its models, served by llama-server
    settings: ServeSettings  # of the one server
    keep: tuple[str, ...] = ()  # names of models that stay loaded
    memory: int | None = None  # bytes for its models; None: what the machine has
    idle: int | None = None  # seconds
    requested_port: int | None = None
    key: str = ""  # API key from the command line
    probe: bool = False  # ready only after a model has generated a token
    drain: int = 0  # most seconds for answers in progress at a stop
    replicas: int = 1  # how many servers

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its models."""
        return tuple(member.name for member in self.members)

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{len(self.members)} models: {', '.join(self.names)}"

    @property
    def default(self) -> ResolvedModel:
        """The model that `doit chat` and `doit with` use: the first one that chats."""
        chats = [one for one in self.members if one.model.kind == "chat"]
        return next(iter(chats), self.members[0])

    @property
    def program(self) -> Artifact | None:
        """llama-server; None if it is not here."""
        return self.members[0].program

    @property
    def is_own(self) -> bool:
        """Whether it is a file of the user's: never."""
        return False

    def port_to_try(self, *, any_free: bool) -> int:
        """Return the port to serve on; 0: any free one."""
        if self.requested_port is not None:
            return self.requested_port
        if any_free:
            return 0
        return self.settings.port

    def member(self, word: str) -> ResolvedModel | None:
        """Return the model of a name, alias or id, in any case; None for another."""
        for one in self.members:
            names = (one.name, *one.model.aliases, one.model.id or "")
            if word.lower() in (name.lower() for name in names):
                return one
        return None


Servable: TypeAlias = ResolvedModel | ResolvedEndpoint


def with_endpoints(
    resolution: Resolution, catalogue: Catalogue, environment: Environment
) -> tuple[Resolution, dict[str, ResolvedEndpoint]]:
    """Return a resolution with the models of the endpoints, and these by name.

    A verb that starts an endpoint decides its settings.

    Raises:
        UsageError: an option is for one model, or a model cannot be resolved.
    """
    known = catalogue.endpoint_names
    _check_endpoints_only(resolution, catalogue)
    found: dict[str, ResolvedEndpoint] = {}
    for request, names in resolution.requested:
        for name in names:
            if name in known and (name not in found or request.kind is Kind.SERVER):
                found[name] = _resolved(request, name, catalogue, environment)
    by_name = dict(resolution.by_name)
    for member in (one for endpoint in found.values() for one in endpoint.members):
        # another engine may serve it alone; its files are the same
        other = by_name.setdefault(member.name, member)
        _check_conflict(other._replace(engine=member.engine), member)
    return resolution._replace(by_name=by_name), found


def endpoint_entry(
    name: str, catalogue: Catalogue, environment: Environment
) -> ResolvedEndpoint:
    """Return an endpoint without any options.

    Raises:
        UsageError: a model of it cannot be resolved.
    """
    free = environment._replace(must_name_variant=False)
    return _resolved(TaskRequest("catalogue", name, {}), name, catalogue, free)


def all_jobs(
    resolution: Resolution, endpoints: Mapping[str, ResolvedEndpoint]
) -> tuple[ResolvedModel, ...]:
    """Return every job once; a model may be one alone and one behind an endpoint."""
    alone = tuple(resolution.by_name.values())
    members = (member for one in endpoints.values() for member in one.members)
    return (*alone, *(member for member in members if member not in alone))


def _resolved(
    request: TaskRequest, name: str, catalogue: Catalogue, environment: Environment
) -> ResolvedEndpoint:
    options = request.options
    _check_options(name, options, request.extra, request.verb)
    entry = catalogue.endpoint(name)
    requested = settings_of(options)
    own = entry.serve.over(catalogue.defaults)
    memory = None
    if entry.memory is not None:
        memory = round(entry.memory * GB)
    return ResolvedEndpoint(
        name=name,
        members=_members(request, name, catalogue, environment),
        settings=serve_settings(requested.over(own)),
        keep=entry.keep,
        memory=memory,
        idle=entry.idle,
        requested_port=_requested_port(requested.port, entry.serve.port),
        key=api_key(options),
        probe=bool(options.get("probe")),
        drain=drain_of(request),
        replicas=replicas_of(options, requested.port),
    )


def _members(
    request: TaskRequest, name: str, catalogue: Catalogue, environment: Environment
) -> tuple[ResolvedModel, ...]:
    """Return the models: llama-server serves them as their entries say.

    Raises:
        UsageError: one cannot be resolved.
    """
    entry = catalogue.endpoint(name)
    jobs = []
    for word in entry.models:
        variant = entry.variants.get(word, "")
        is_open = not variant and bool(catalogue.variants(word))
        if is_open and environment.must_name_variant and request.verb:
            what = f"{name}: {word} has variants, and in CI the machine does not choose"
            first = catalogue.variants(word)[0]
            fix = f"add `variants: {{{word}: {first}}}` to endpoints.{name}"
            raise UsageError(what, fix=f"{fix} in {catalogue.where}")
        options = {"engine": "llama-server"}
        if variant:
            options["variant"] = variant
        alone = request._replace(options=options, extra=())
        job = _job(alone, word, catalogue, environment)
        # after `--engine` comes which program: an archive, or `path:`
        reason = job.engine_reason.removeprefix("--engine")
        jobs.append(job._replace(engine_reason=f"endpoints.{name}{reason}"))
    return tuple(jobs)


def _check_endpoints_only(resolution: Resolution, catalogue: Catalogue) -> None:
    """Check that `doit preset` and `reload` name endpoints, and no model.

    Raises:
        UsageError: it names a model, or nothing.
    """
    for request, names in resolution.requested:
        others = [name for name in names if name not in catalogue.endpoint_names]
        if request.verb not in ("preset", "reload") or not others:
            continue
        what = f"`doit {request.verb}` is for an endpoint"
        if request.models:
            what += f", and {others[0]} is a model"
        known = catalogue.endpoint_names
        fix = f"{catalogue.where} has no `endpoints:`; docs/endpoints.md describes them"
        if known:
            fix = f"doit {request.verb} {known[0]}"
        raise UsageError(what, fix=fix)


def _requested_port(given: int | None, own: int | None) -> int | None:
    if given is not None:
        return given
    return own


def _check_options(
    name: str, options: Mapping[str, object], extra: Sequence[str], verb: str
) -> None:
    """Check that no option is a setting of one model.

    Raises:
        UsageError: one is.
    """
    if verb in ("bench", "check"):
        done = {"bench": "measures", "check": "checks"}[verb]
        what = f"`doit {verb}` {done} one model, and {name} is an endpoint"
        raise UsageError(what, fix="name one of its models")
    for key in (*_SETTINGS, *_SOURCES):
        if key in options:
            option = f"--{key.replace('_', '-')}"
            fix = f"remove {option}"
            if key in _SETTINGS:
                fix += ", and set it in `serve:` of a model in models.yaml"
            what = f"{option} is for one model, and {name} has several"
            raise UsageError(what, fix=fix)
    if options.get("engine", "llama-server") != "llama-server":
        what = f"--engine {options['engine']} cannot serve {name}: llama-server alone "
        raise UsageError(f"{what}serves several models", fix="remove --engine")
    if extra and verb in ("serve", "start", "restart", "reload"):
        what = f"{extra[0]}: arguments after -- are for one model, and {name} has "
        raise UsageError(f"{what}several", fix="set `args` of a model in models.yaml")
