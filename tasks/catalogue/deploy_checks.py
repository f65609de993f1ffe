"""Checks of `deploy:` across keys: names, variants and ports that conflict.

Pure. Works on plain data that may be malformed, as `semantic_checks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.errors import did_you_mean

_PORT = 8080  # without any `port:`

Problem = tuple[tuple[str, ...], str]


def deploy_errors(plain: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield all errors of `deploy:`, each with the path of its key."""
    deploy = _mapping(plain, "deploy")
    models = _mapping(plain, "models")
    endpoints = _mapping(plain, "endpoints")
    owners: dict[int, str] = {}  # port → the key that takes it
    for name in _mapping(deploy, "models"):
        deployed = _mapping(_mapping(deploy, "models"), name)
        path = ("deploy", "models", str(name))
        if name in endpoints:
            model = _mapping(endpoints, name)
            yield from _endpoint_errors(path, deployed, model, models)
        elif name in models:
            model = _mapping(models, name)
            yield from _variant_errors(path, deployed, model)
        else:
            known = [str(one) for one in (*models, *endpoints)]
            text = f"there is no model or endpoint {name!r}"
            yield path, f"{text}; {did_you_mean(str(name), known)}"
            continue
        least, most = deployed.get("replicas", 1), deployed.get("max_replicas")
        if _is_number(least) and _is_number(most) and most < least:
            yield (*path, "max_replicas"), f"expected {least} (replicas) or more"
        if most and not _setting(plain, model, "metrics"):
            text = "requires `metrics: true` in the model's serve: it scales by them"
            yield (*path, "max_replicas"), text
        if "slow" in deployed and not _setting(plain, model, "metrics"):
            yield (*path, "slow"), "requires `metrics: true` in the model's serve"
        for key, port in _ports(plain, deployed, model):
            if port in owners:
                text = f"{owners[port]} has port {port} already; give it another port"
                yield (*path, key), text
            owners[port] = ".".join(path)


def _endpoint_errors(
    path: tuple[str, ...],
    deployed: Mapping[str, Any],
    endpoint: Mapping[str, Any],
    models: Mapping[str, Any],
) -> Iterator[Problem]:
    """Yield what the machine would decide that serves the endpoint."""
    place = f"endpoints.{path[-1]}"
    for key in ("variant", "max_replicas", "model_image"):
        if deployed.get(key) is not None:
            yield (*path, key), f"{place} has several models: remove this key"
    if endpoint.get("memory") is None:
        yield path, f"requires `memory:` in {place}: another machine has other memory"
    members = endpoint.get("models")
    for member in members if isinstance(members, list) else ():
        if _mapping(models, str(member)).get("variants"):
            yield path, f"{member} of {place} has variants: name an entry without"


def _variant_errors(
    path: tuple[str, ...], deployed: Mapping[str, Any], model: Mapping[str, Any]
) -> Iterator[Problem]:
    variants = [str(name) for name in _mapping(model, "variants")]
    chosen = deployed.get("variant")
    if variants and chosen is None:
        yield (*path, "variant"), f"this key is required: {', '.join(variants)}"
    elif chosen is not None and str(chosen) not in variants:
        hint = did_you_mean(str(chosen), variants) or "the model has none"
        yield (*path, "variant"), f"there is no variant {chosen!r}; {hint}"


def _ports(
    plain: Mapping[str, Any], deployed: Mapping[str, Any], model: Mapping[str, Any]
) -> Iterator[tuple[str, int]]:
    """Yield (key, port) of the servers of one machine, then of its balancer."""
    first = deployed.get("port", _setting(plain, model, "port") or _PORT)
    replicas = deployed.get("replicas", 1)
    if _is_number(first) and _is_number(replicas):
        yield from (("port", first + number) for number in range(min(replicas, 100)))
    if _is_number(deployed.get("balance")):
        yield "balance", deployed["balance"]


def _setting(plain: Mapping[str, Any], model: Mapping[str, Any], key: str) -> Any:
    own = _mapping(model, "serve").get(key)
    if own is not None:
        return own
    return _mapping(plain, "defaults").get(key)


def _mapping(plain: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = plain.get(key)
    if isinstance(value, dict):
        return value
    return {}


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
