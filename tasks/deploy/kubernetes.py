"""kubernetes.yaml: each model as a Service and its pods. Pure.

An init container downloads and verifies; the server gets the verified files read-only.
The files lie in a volume of each pod (StatefulSet), or, with `node_cache:`, in a
directory of each node (Deployment), which a DaemonSet fills in advance. With
`model_image:`, the node's container engine fetches them as an image (Deployment), and
the server verifies them itself.

The probes run a command: for httpGet, podman needs curl in the image. preStop waits
until the Service sends no more requests, then until the answers have ended.
"""

from __future__ import annotations

import math
from typing import Any

from tasks.deploy.container import health_command
from tasks.deploy.escape import yaml_text
from tasks.deploy.fleet import (
    CACHE,
    CLONE,
    HEADER,
    PORT,
    SETTLE,
    USER,
    DeployedModel,
    Files,
    Fleet,
    dns_labels,
)
from tasks.errors import UsageError

_MIB = 1024**2
_GIB = 1024**3
# bytes beside the engine's: the recipe's own processes
_OWN_MEMORY = 128 * _MIB
_MOUNTED = "/mounted"  # not CACHE, a VOLUME, on which podman mounts no image
_PROBE_S = 2  # between two probes
_DOWNLOAD_SECRETS = "llamafile-recipe-auth"  # Secret with what `auth:` names
_NAME = "app.kubernetes.io/name"
_JSON = dict[str, Any]


def files(fleet: Fleet) -> Files:
    """Return kubernetes.yaml.

    Raises:
        UsageError: two models would have the same name there.
    """
    labels = dns_labels([model.name for model in fleet.models])
    documents = [
        document
        for model in fleet.models
        for document in _documents(fleet, model, labels[model.name])
    ]
    return {"kubernetes.yaml": yaml_text(*documents, header=HEADER)}


def _documents(fleet: Fleet, model: DeployedModel, label: str) -> list[_JSON]:
    documents = [_service(label)]
    kind = "StatefulSet"
    if model.model_image:
        kind = "Deployment"
        documents.append(_deployment(fleet, model, label, _image_volume(model)))
    elif fleet.options.node_cache:
        kind = "Deployment"
        documents.append(_deployment(fleet, model, label, _node_volume(fleet)))
        documents.append(_prefetch(fleet, model, f"{label}-prefetch"))
    else:
        documents.append(_headless(label))
        documents.append(_stateful_set(fleet, model, label))
    if model.max_replicas:
        documents.append(_autoscaler(model, label, kind))
    return documents


def _service(label: str) -> _JSON:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": label, "labels": {_NAME: label}},
        "spec": {
            "selector": {_NAME: label},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
        },
    }


def _headless(label: str) -> _JSON:
    """Return the Service that a StatefulSet needs for the names of its pods."""
    service = _service(label)
    service["metadata"]["name"] = f"{label}-pods"
    service["spec"]["clusterIP"] = "None"
    return service


def _deployment(fleet: Fleet, model: DeployedModel, label: str, volume: _JSON) -> _JSON:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": label, "labels": {_NAME: label}},
        "spec": {
            **_replicas(model),
            "minReadySeconds": 1,
            "selector": {"matchLabels": {_NAME: label}},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": _pod(fleet, model, label, [volume]),
        },
    }


def _stateful_set(fleet: Fleet, model: DeployedModel, label: str) -> _JSON:
    claim = {
        "metadata": {"name": "cache"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": _storage(model)}},
        },
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": label, "labels": {_NAME: label}},
        "spec": {
            **_replicas(model),
            "serviceName": f"{label}-pods",
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {_NAME: label}},
            "template": _pod(fleet, model, label, []),
            "volumeClaimTemplates": [claim],
        },
    }


def _replicas(model: DeployedModel) -> _JSON:
    """Return the number of pods; an autoscaler changes it, so it is not stated then."""
    if model.max_replicas:
        return {}
    return {"replicas": model.replicas}


def _pod(fleet: Fleet, model: DeployedModel, label: str, volumes: list[_JSON]) -> _JSON:
    first = {} if model.model_image else {"initContainers": [_verifier(fleet, model)]}
    return {
        "metadata": {"labels": {_NAME: label}, "annotations": _annotations(model)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": fleet.grace + SETTLE,
            "securityContext": _pod_security(),
            **first,
            "containers": [_server(fleet, model, label)],
            "volumes": [*volumes, {"name": "tmp", "emptyDir": {}}],
        },
    }


def _annotations(model: DeployedModel) -> dict[str, str]:
    """Return the facts on the bytes, and every file as sha256sum prints it."""
    lines = [f"{file.sha256}  {file.name}\n" for file in model.files]
    return {**model.labels(), "llamafile-recipe/files": "".join(lines)}


def _pod_security() -> _JSON:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _cache(*, read_only: bool) -> _JSON:
    mount: _JSON = {"name": "cache", "mountPath": CACHE}
    if read_only:
        mount["readOnly"] = True
    return mount


def _image_mounts(model: DeployedModel) -> list[_JSON]:
    """Return a mount of the image in each directory where a file is expected."""
    folders = dict.fromkeys(file.folder for file in model.files)
    return [
        {"name": "cache", "mountPath": f"{_MOUNTED}/{folder}", "readOnly": True}
        for folder in folders
    ]


def _container(fleet: Fleet, name: str, mounts: list[_JSON]) -> _JSON:
    return {
        "name": name,
        "image": fleet.image,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [*mounts, {"name": "tmp", "mountPath": "/tmp"}],
    }


def _verifier(fleet: Fleet, model: DeployedModel) -> _JSON:
    """Return the container that downloads and verifies, then ends."""
    container = _container(fleet, "verify", [_cache(read_only=False)])
    container["args"] = model.words("verify")
    env = [*_variables(fleet.endpoint), *map(_download_secret, fleet.secrets)]
    if env:
        container["env"] = env
    return container


def _server(fleet: Fleet, model: DeployedModel, label: str) -> _JSON:
    wait = f"{CLONE}/.venv/bin/doit idle --model {model.name}"
    stop = f"sleep {SETTLE}; exec {wait} --timeout {fleet.options.drain}"
    starts = math.ceil(model.timeout / _PROBE_S)
    mounts = [_cache(read_only=True)]
    variables = {"LLAMAFILE_OFFLINE": "1"}
    if model.model_image:
        mounts = _image_mounts(model)
        variables["LLAMAFILE_CACHE"] = _MOUNTED
    return {
        **_container(fleet, "server", mounts),
        "args": _serve(fleet, model),
        "env": [*_variables(variables), _key(label)],
        "ports": [{"name": "http", "containerPort": PORT}],
        "resources": _resources(model),
        "startupProbe": _probe(starts),
        "readinessProbe": _probe(3),
        "livenessProbe": {**_probe(6), "periodSeconds": 10},
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", stop]}}},
    }


def _serve(fleet: Fleet, model: DeployedModel) -> list[str]:
    place = ["--host", "0.0.0.0", "--port", str(PORT)]
    return [*model.words("serve"), *place, "--drain", str(fleet.options.drain)]


def _probe(failures: int) -> _JSON:
    return {
        "exec": {"command": health_command()},
        "periodSeconds": _PROBE_S,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _variables(values: dict[str, str]) -> list[_JSON]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _key(label: str) -> _JSON:
    """Return the API key of clients, from a Secret if there is one."""
    return _secret(f"{label}-key", "LLAMA_API_KEY")


def _download_secret(variable: str) -> _JSON:
    """Return a variable that `auth:` names, from a Secret if there is one."""
    return _secret(_DOWNLOAD_SECRETS, variable)


def _secret(name: str, variable: str) -> _JSON:
    reference = {"name": name, "key": variable, "optional": True}
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def _resources(model: DeployedModel) -> _JSON:
    """Return the memory that the engine takes, as far as it is known, and the GPUs.

    No limit of memory: an engine's prompt cache grows with use.
    """
    resources: _JSON = {}
    if model.memory is not None:
        needed = math.ceil((model.memory + _OWN_MEMORY) / _MIB)
        resources["requests"] = {"memory": f"{needed}Mi"}
    if model.gpus:
        resources["limits"] = {"nvidia.com/gpu": model.gpus}
    return resources


def _storage(model: DeployedModel) -> str:
    """Return the size of a pod's volume: the files, and a tenth for the file system.

    A file of unknown size needs less than the memory that serves it.

    Raises:
        UsageError: neither is known.
    """
    size = model.size or model.memory
    if size is None:
        what = f"the size of {model.name} is not known, which its volume needs"
        fix = f"doit lock --upgrade --model {model.name}, or `node_cache:` in deploy"
        raise UsageError(what, fix=fix)
    return f"{math.ceil(size * 1.1 / _GIB) + 1}Gi"


def _node_volume(fleet: Fleet) -> _JSON:
    """Return the directory of a node; one that is missing is an event of the pod."""
    path = {"path": fleet.options.node_cache, "type": "Directory"}
    return {"name": "cache", "hostPath": path}


def _image_volume(model: DeployedModel) -> _JSON:
    """Return the image that `doit image` makes, with the files at its top."""
    image = {"reference": model.model_image, "pullPolicy": "IfNotPresent"}
    return {"name": "cache", "image": image}


def _prefetch(fleet: Fleet, model: DeployedModel, label: str) -> _JSON:
    """Return the DaemonSet that fills the directory of each node."""
    pod = _pod(fleet, model, label, [_node_volume(fleet)])
    pod["spec"]["terminationGracePeriodSeconds"] = 0
    pause = _container(fleet, "pause", [_cache(read_only=True)])
    pause["command"] = ["sleep", "infinity"]
    pod["spec"]["containers"] = [pause]
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": label, "labels": {_NAME: label}},
        "spec": {"selector": {"matchLabels": {_NAME: label}}, "template": pod},
    }


def _autoscaler(model: DeployedModel, label: str, kind: str) -> _JSON:
    """Return what adds pods while more requests run than a server answers at once."""
    metric = {
        "type": "Pods",
        "pods": {
            "metric": {"name": "llamacpp_requests"},
            "target": {"type": "AverageValue", "averageValue": str(model.parallel)},
        },
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": label, "labels": {_NAME: label}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": label},
            "minReplicas": model.replicas,
            "maxReplicas": model.max_replicas,
            "metrics": [metric],
        },
    }
