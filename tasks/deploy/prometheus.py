"""Prometheus and Grafana: what is scraped, when to call someone, and graphs. Pure.

The targets are those of systemd, quadlets and Compose; in a cluster, Prometheus finds
the pods. The recording rule `llamacpp_requests` is what the HorizontalPodAutoscaler of
kubernetes.yaml reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.catalogue.scrape_target import ON_DEMAND, Scraped, scrape_targets
from tasks.deploy import dashboard
from tasks.deploy.balancer import METRICS_PORT, servers
from tasks.deploy.escape import yaml_text
from tasks.deploy.fleet import HEADER, DeployedModel, Files, Fleet

_JSON = dict[str, Any]
_SECONDS = "rate(llamacpp:tokens_predicted_seconds_total[5m])"
_RULES: list[_JSON] = [
    {
        "record": "llamacpp_requests",
        "expr": "llamacpp:requests_processing + llamacpp:requests_deferred",
    },
    {
        # without answers there is no value
        "record": "llamacpp_tokens_per_second",
        "expr": f"rate(llamacpp:tokens_predicted_total[5m]) / ({_SECONDS} > 0)",
    },
    {
        "alert": "ModelServerDown",
        "expr": f'up{{job="llamafile-recipe", loading!="{ON_DEMAND}"}} == 0',
        "for": "2m",
        "annotations": {
            "summary": "{{ $labels.model }} on {{ $labels.instance }} does not answer"
        },
    },
    {
        "alert": "ModelRequestsWait",
        "expr": "sum by (model) (llamacpp:requests_deferred) > 0",
        "for": "10m",
        "annotations": {
            "summary": "requests to {{ $labels.model }} wait: it needs more replicas"
        },
    },
]


def files(fleet: Fleet) -> Files:
    """Return the configuration, the targets, the rules and the dashboard."""
    config = {"rule_files": ["rules.yaml"], "scrape_configs": _jobs(fleet)}
    groups = [{"name": "llamafile-recipe", "rules": [*_RULES, _slow(fleet)]}]
    texts = {
        "prometheus": config,
        "targets": _targets(fleet),
        "rules": {"groups": groups},
    }
    found = {
        f"prometheus/{name}.yaml": yaml_text(data, header=HEADER)
        for name, data in texts.items()
    }
    return {**found, "prometheus/dashboard.json": dashboard.text()}


def _jobs(fleet: Fleet) -> list[_JSON]:
    jobs: list[_JSON] = [
        {
            "job_name": "llamafile-recipe",
            "file_sd_configs": [{"files": ["targets.yaml"]}],
        }
    ]
    if any(model.balance for model in fleet.models):
        targets = [{"targets": [f"127.0.0.1:{METRICS_PORT}"]}]
        jobs.append({"job_name": "haproxy", "static_configs": targets})
    return jobs


def _measured(fleet: Fleet) -> Iterator[DeployedModel]:
    return (model for model in fleet.models if model.metrics)


def _targets(fleet: Fleet) -> list[_JSON]:
    found = []
    for model in _measured(fleet):
        addresses = [address for _, address in servers(fleet, model)]
        labels = {
            "variant": model.variant,
            "engine": model.engine,
            "version": model.version,
        }
        if model.is_endpoint:
            found += scrape_targets(addresses, model.members, labels, model.name)
            continue
        alone = Scraped(model.name, model.sha256)
        found += scrape_targets(addresses, [alone], labels)
    return found


def _slow(fleet: Fleet) -> _JSON:
    """Return the alert, with the limit of each model."""
    speeds = []
    for model in _measured(fleet):
        labels = f'model="{model.name}", endpoint=""'
        if model.is_endpoint:
            labels = f'endpoint="{model.name}"'
        speed = f"avg by (model) (llamacpp_tokens_per_second{{{labels}}})"
        speeds.append(f"{speed} < {model.slow}")
    return {
        "alert": "ModelAnswersSlowly",
        "expr": " or ".join(speeds),
        "for": "10m",
        "annotations": {
            "summary": "{{ $labels.model }} generates {{ $value | humanize }} tokens "
            "per second for an answer, fewer than `slow:` in models.yaml"
        },
    }
