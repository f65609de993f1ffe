"""The section `deploy:` of models.yaml: where the models are served. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

from tasks.catalogue.constraints import Constraint, Name, at_least, between
from tasks.catalogue.serve_options import Strict

_HOST = r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9A-Fa-f:]*:[0-9A-Fa-f:]+"


def _matching(pattern: str, about: str, expected: str) -> Constraint:
    """Return the constraint of a text that matches a pattern as a whole."""

    def test(value: Any) -> bool:
        return re.fullmatch(pattern, value, re.ASCII) is not None

    return Constraint(about, expected, test, {"pattern": f"^({pattern})$"})


_MIRROR_URL = _matching(
    r"http://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*)(:[0-9]{1,5})?",
    "address of the mirror, which is the HF_ENDPOINT of every machine",
    "http:// and a host, such as http://mirror.lan:8080",
)
_MIRROR_RESOLVER = _matching(
    r"([0-9.]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?",
    "address of the DNS server that the mirror asks",
    "an IP address, such as 192.0.2.53",
)
_IMAGE_PATTERN = r"[a-z0-9][A-Za-z0-9._:/@-]*"
_IMAGE = _matching(
    _IMAGE_PATTERN,
    "container image, with its registry and its tag or digest",
    "an image, such as registry.example.org/llamafile-recipe:2026.11",
)
_MODEL_IMAGE = _matching(
    _IMAGE_PATTERN,
    "image with the model's files, which pods mount; Kubernetes 1.35 [a download]",
    "an image, such as registry.example.org/models/chat:1",
)
_NODE_CACHE = _matching(
    r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+",
    "directory of each Kubernetes node that its pods share [a volume for each pod]",
    "an absolute path of letters, digits, '.', '_' and '-'",
)
_MACHINE = _matching(_HOST, "a machine", "a host name or an IP address")
_MODELS = Constraint(
    "the models that are served", "one model or more", bool, {"minProperties": 1}
)


@dataclass(eq=False, repr=False)
class DeployedModel(Strict):
    """One entry of `deploy.models`."""

    replicas: Annotated[
        int, between(1, 100, "pods of a cluster, or servers on each machine [1]")
    ] = 1
    max_replicas: Annotated[
        int | None, between(1, 100, "most pods, of a HorizontalPodAutoscaler")
    ] = None
    port: Annotated[
        int | None,
        between(1, 65535, "port of the first server of a machine [that of serve]"),
    ] = None
    balance: Annotated[
        int | None, between(1, 65535, "port on which haproxy serves the model")
    ] = None
    gpus: Annotated[int | None, at_least(1, "NVIDIA GPUs of a pod")] = None
    variant: Annotated[str | None, Constraint("the variant, if it has several")] = None
    slow: Annotated[
        int, at_least(1, "tokens per second of an answer; Prometheus reports fewer [5]")
    ] = 5
    model_image: Annotated[str | None, _MODEL_IMAGE] = None


@dataclass(eq=False, repr=False)
class Mirror(Strict):
    """`deploy.mirror`: a cache of the Hub in the local network."""

    url: Annotated[str, _MIRROR_URL]
    resolver: Annotated[str, _MIRROR_RESOLVER]
    size: Annotated[int, at_least(1, "GB of the mirror's disk [500]")] = 500


@dataclass(eq=False, repr=False)
class DeployOptions(Strict):
    """`deploy:` as a whole."""

    models: Annotated[dict[Name, DeployedModel], _MODELS]
    image: Annotated[str | None, _IMAGE] = None
    hosts: Annotated[
        tuple[Annotated[str, _MACHINE], ...],
        Constraint("machines whose systemd serves the models [127.0.0.1]"),
    ] = ("127.0.0.1",)
    drain: Annotated[
        int, at_least(1, "seconds that a server may take to end its answers [120]")
    ] = 120
    node_cache: Annotated[str | None, _NODE_CACHE] = None
    node_memory: Annotated[int | None, at_least(1, "GB of memory of a machine")] = None
    mirror: Annotated[Mirror | None, Constraint("a cache of the Hub")] = None
