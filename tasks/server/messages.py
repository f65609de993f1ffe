"""Messages about a running server."""

from __future__ import annotations

import os
from collections.abc import Container

from tasks.catalogue.endpoints import ResolvedEndpoint, Servable
from tasks.catalogue.types import Model
from tasks.engine.isolation import is_open_to_pages, open_pages
from tasks.engine.launch_spec import LaunchSpec
from tasks.server import target_file
from tasks.server.requests_by_kind import EXAMPLES, Example
from tasks.server.server_record import ServerRecord
from tasks.urls import is_loopback, needed_no_proxy


def ready_text(resolved: Servable, record: ServerRecord, stop: str) -> str:
    """Return the text for a ready server of a model or of an endpoint.

    Args:
        stop: how to stop it.
    """
    if isinstance(resolved, ResolvedEndpoint):
        return _endpoint_message(resolved, record, stop)
    return ready_message(resolved.model, record, stop)


def ready_message(model: Model, record: ServerRecord, stop: str) -> str:
    """Return the text for a ready server: what it is, how to call and stop it.

    Args:
        stop: how to stop it.
    """
    about = f"  model    {model.title}, licence {model.license}"
    return _usage(about, EXAMPLES[model.kind], record, stop)


def _endpoint_message(
    endpoint: ResolvedEndpoint, record: ServerRecord, stop: str
) -> str:
    """Return the text for a ready endpoint; a request names its model."""
    names = [_kept(name, endpoint.keep) for name in endpoint.names]
    loaded = record.spec.get("--models-max", "")
    about = f"  models   {', '.join(names)}"
    if len(names) > 1:
        about += f"; at most {loaded} loaded at once"
    example = EXAMPLES[endpoint.default.model.kind]
    body = {"model": endpoint.default.name, **example.body}
    return _usage(about, Example(example.path, body), record, stop)


def _kept(name: str, keep: Container[str]) -> str:
    if name in keep:
        return f"{name} (kept)"
    return name


def _usage(about: str, request: Example, record: ServerRecord, stop: str) -> str:
    header = ""
    client_key = "none"
    if record.key:
        header = " -H 'Authorization: Bearer '$LLAMA_API_KEY"
        client_key = "$LLAMA_API_KEY"
    proxy = ""
    if hosts := needed_no_proxy(os.environ, record.host):
        proxy = f"  proxy    NO_PROXY={hosts}  (else clients ask the proxy)\n"
    targets = ""
    if target_file.targets(record):
        targets = f"  targets  {target_file.target_path(record.path)}\n"
    return (
        f"{about}\n"
        f"  try it   curl {record.url}{request.path}"
        f" -H 'Content-Type: application/json'{header}"
        f" -d '{request.text}'\n"
        f"  clients  OPENAI_BASE_URL={record.url}/v1  OPENAI_API_KEY={client_key}\n"
        f"{proxy}"
        f"  log      {record.log}\n"
        f"{targets}"
        f"  stop     {stop}"
    )


def access_warnings(spec: LaunchSpec) -> list[str]:
    """Return the warnings about who can use a server, before it is started."""
    warnings = []
    host = spec.settings.host
    if not spec.key and not is_loopback(host):
        warnings.append(open_access_warning(spec.name, host))
    engine = spec.launch.engine
    if is_open_to_pages(engine, spec.version, spec.settings, spec.key):
        what, fix = open_pages(spec.name, engine, spec.version)
        warnings.append(f"warning: {what}\n  fix: {fix}")
    return warnings


def open_access_warning(name: str, host: str) -> str:
    """Return the warning about a server without a key on a public address (R30)."""
    return (
        f"warning: {name} listens on {host} without an API key: "
        "any user who can reach this machine can use it\n"
        "  fix: set LLAMA_API_KEY, or use --api-key KEY, or remove --host"
    )
