"""Prometheus: what is scraped, and when to call someone. Pure.

The targets are those of systemd, quadlets and Compose; in a cluster, Prometheus finds
the pods. The recording rule is what the HorizontalPodAutoscaler of kubernetes.yaml
reads.
"""

from __future__ import annotations

from typing import Any

from tasks.deploy.balancer import METRICS_PORT, servers
from tasks.deploy.escape import yaml_text
from tasks.deploy.fleet import HEADER, Files, Fleet

_JSON = dict[str, Any]
_RULES: _JSON = {
    "groups": [
        {
            "name": "llamafile-recipe",
            "rules": [
                {
                    "record": "llamacpp_requests",
                    "expr": "llamacpp:requests_processing + llamacpp:requests_deferred",
                },
                {
                    "alert": "ModelServerDown",
                    "expr": 'up{job="llamafile-recipe"} == 0',
                    "for": "2m",
                    "annotations": {
                        "summary": "{{ $labels.model }} on {{ $labels.instance }} "
                        "does not answer"
                    },
                },
                {
                    "alert": "ModelRequestsWait",
                    "expr": "sum by (model) (llamacpp:requests_deferred) > 0",
                    "for": "10m",
                    "annotations": {
                        "summary": "requests to {{ $labels.model }} wait: it needs "
                        "more replicas"
                    },
                },
            ],
        }
    ]
}


def files(fleet: Fleet) -> Files:
    """Return the configuration, the targets and the rules."""
    config = {"rule_files": ["rules.yaml"], "scrape_configs": _jobs(fleet)}
    texts = {"prometheus": config, "targets": _targets(fleet), "rules": _RULES}
    return {
        f"prometheus/{name}.yaml": yaml_text(data, header=HEADER)
        for name, data in texts.items()
    }


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


def _targets(fleet: Fleet) -> list[_JSON]:
    return [
        {
            "targets": [address for _, address in servers(fleet, model)],
            "labels": {"model": model.name, "sha256": model.sha256},
        }
        for model in fleet.models
        if model.metrics
    ]
