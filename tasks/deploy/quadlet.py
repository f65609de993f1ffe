"""Quadlets: *.container and *.volume, of which podman 5 makes units. Pure.

A unit without a time limit downloads and verifies; the servers get the volume
read-only.
"""

from __future__ import annotations

import json

from tasks.deploy import escape
from tasks.deploy.container import health_command
from tasks.deploy.fleet import CACHE, HEADER, PORT, DeployedModel, Files, Fleet

_VOLUME = "llamafile-recipe.volume"
# name of a section → its lines
_Sections = dict[str, list[tuple[str, str]]]


def files(fleet: Fleet) -> Files:
    """Return the volume, and of each model what verifies it and its servers."""
    found = {f"quadlet/{_VOLUME}": _text({"Volume": []})}
    for model in fleet.models:
        found[f"quadlet/{model.name}-verify.container"] = _verifier(fleet, model)
        for server, port in zip(model.servers, model.ports, strict=True):
            found[f"quadlet/{server}.container"] = _server(fleet, model, port)
    return found


def _verifier(fleet: Fleet, model: DeployedModel) -> str:
    container = _container(fleet, model, "verify", f"{_VOLUME}:{CACHE}")
    container += [
        ("Environment", escape.systemd(f"{name}={value}"))
        for name, value in fleet.endpoint.items()
    ]
    service = [
        ("Type", "oneshot"),
        ("RemainAfterExit", "yes"),
        ("TimeoutStartSec", "infinity"),
    ]
    unit = [
        ("Description", f"Verify the language model {model.name}"),
        ("Wants", "network-online.target"),
        ("After", "network-online.target"),
    ]
    return _text({"Unit": unit, "Container": container, "Service": service})


def _server(fleet: Fleet, model: DeployedModel, port: int) -> str:
    verifier = f"{model.name}-verify.service"
    unit = [
        ("Description", f"Language model {model.name} on port {port}"),
        ("Requires", verifier),
        ("After", verifier),
    ]
    place = f"--host 0.0.0.0 --port {PORT} --drain {fleet.options.drain}"
    health = json.dumps(health_command())
    container = [
        *_container(fleet, model, f"serve {place}", f"{_VOLUME}:{CACHE}:ro"),
        ("Environment", "LLAMAFILE_OFFLINE=1"),
        ("PublishPort", f"{fleet.host}:{port}:{PORT}"),
        ("HealthCmd", health),
        ("HealthInterval", "10s"),
        ("HealthStartupCmd", health),
        ("HealthStartupInterval", "1s"),
        ("Notify", "healthy"),
        ("StopTimeout", str(fleet.grace)),
    ]
    service = [
        ("Restart", "on-failure"),
        ("RestartSec", "5"),
        ("TimeoutStartSec", str(model.timeout + 60)),
        ("TimeoutStopSec", str(fleet.grace + 10)),
    ]
    install = [("WantedBy", "default.target")]
    sections = {"Unit": unit, "Container": container, "Service": service}
    return _text({**sections, "Install": install})


def _container(
    fleet: Fleet, model: DeployedModel, command: str, volume: str
) -> list[tuple[str, str]]:
    verb, _, place = command.partition(" ")
    labels = [f"{key}={value}" for key, value in model.labels().items()]
    gpus = [("AddDevice", "nvidia.com/gpu=all")]
    return [
        ("Image", fleet.image),
        ("Exec", " ".join([*model.words(verb), place]).rstrip()),
        ("Volume", volume),
        *(("Label", escape.systemd(label)) for label in labels),
        *(gpus if model.gpus else ()),
        ("ReadOnly", "true"),
        ("Tmpfs", "/tmp"),
        ("DropCapability", "all"),
        ("NoNewPrivileges", "true"),
    ]


def _text(sections: _Sections) -> str:
    parts = [f"# {HEADER}\n"]
    for name, lines in sections.items():
        keys = "".join(f"{key}={value}\n" for key, value in lines)
        parts.append(f"[{name}]\n{keys}")
    return "\n".join(parts)
