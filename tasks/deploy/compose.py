"""compose.yaml: each model as a service that verifies, and one that serves. Pure."""

from __future__ import annotations

from typing import Any

from tasks.deploy import escape
from tasks.deploy.container import health_command
from tasks.deploy.fleet import (
    CACHE,
    HEADER,
    PORT,
    DeployedModel,
    Files,
    Fleet,
    dns_labels,
)

_JSON = dict[str, Any]


def files(fleet: Fleet) -> Files:
    """Return compose.yaml.

    Raises:
        UsageError: two models would have the same name there.
    """
    labels = dns_labels([model.name for model in fleet.models])
    services: _JSON = {}
    for model in fleet.models:
        label = labels[model.name]
        services[f"{label}-verify"] = _verifier(fleet, model)
        services[label] = _server(fleet, model, f"{label}-verify")
    project: _JSON = {
        "name": "llamafile-recipe",
        "services": escape.compose(services),
        "volumes": {"cache": {}},
    }
    return {"compose.yaml": escape.yaml_text(project, header=HEADER)}


def _container(fleet: Fleet, model: DeployedModel, mount: str) -> _JSON:
    return {
        "image": fleet.image,
        "labels": model.labels(),
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp"],
        "volumes": [mount],
    }


def _verifier(fleet: Fleet, model: DeployedModel) -> _JSON:
    service = _container(fleet, model, f"cache:{CACHE}")
    service["command"] = model.words("verify")
    # without a value: that of the shell, if it has one
    variables = {**fleet.endpoint, **dict.fromkeys(fleet.secrets)}
    if variables:
        service["environment"] = variables
    service["restart"] = "on-failure"
    return service


def _server(fleet: Fleet, model: DeployedModel, verifier: str) -> _JSON:
    """Return the service of a model; replicas take the ports of a range."""
    first, last = model.ports[0], model.ports[-1]
    published = str(first) if first == last else f"{first}-{last}"
    place = ["--host", "0.0.0.0", "--port", str(PORT)]
    drain = ["--drain", str(fleet.options.drain)]
    service = {
        **_container(fleet, model, f"cache:{CACHE}:ro"),
        "command": [*model.words("serve"), *place, *drain],
        # without a value: that of the shell, if it has one
        "environment": {"LLAMAFILE_OFFLINE": "1", "LLAMA_API_KEY": None},
        "ports": [f"127.0.0.1:{published}:{PORT}"],
        "healthcheck": {
            "test": ["CMD", *health_command()],
            "interval": "10s",
            "timeout": "5s",
            "start_period": f"{model.timeout}s",
        },
        "depends_on": {verifier: {"condition": "service_completed_successfully"}},
        "stop_grace_period": f"{fleet.grace}s",
        "restart": "on-failure",
    }
    deploy: _JSON = {}
    if model.replicas > 1:
        deploy["replicas"] = model.replicas
    if model.gpus:
        device = {"driver": "nvidia", "count": model.gpus, "capabilities": ["gpu"]}
        deploy["resources"] = {"reservations": {"devices": [device]}}
    if deploy:
        service["deploy"] = deploy
    return service
