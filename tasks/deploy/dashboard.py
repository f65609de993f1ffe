"""The dashboard of Grafana for all servers. Pure.

It names no model: Grafana offers those that Prometheus has. Source: Grafana's JSON
model, schema version 39 (Grafana 11).
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tasks.deploy.fleet import HEADER

_JSON = dict[str, Any]
UID = "llamafile-recipe"
_SCHEMA = 39
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_CHOSEN = '{model=~"$model", instance=~"$instance"}'
_SERVERS = '{job="llamafile-recipe", model=~"$model", instance=~"$instance"}'
_WIDTH, _HEIGHT = 12, 8  # of a panel; a row has 24 columns


class Panel(NamedTuple):
    """One graph."""

    title: str
    about: str
    queries: tuple[tuple[str, str], ...]  # (words before the server's name, PromQL)
    unit: str = "short"


def _rate(name: str) -> str:
    """Return the growth per second of a counter of llama.cpp."""
    return f"rate(llamacpp:{name}{_CHOSEN}[$__rate_interval])"


def _gauge(name: str) -> str:
    return f"llamacpp:{name}{_CHOSEN}"


_CACHED, _NEW = _rate("prompt_tokens_cached_total"), _rate("prompt_tokens_total")
_ANSWERED = _rate("tokens_predicted_total")
_ANSWERING = _rate("tokens_predicted_seconds_total")
PANELS = (
    Panel(
        "Servers that answer",
        "1: answers; 0: does not, or is a model of an endpoint that is not loaded",
        (("", f"up{_SERVERS}"),),
    ),
    Panel(
        "Requests",
        "busy: being answered; waiting: all slots are busy",
        (
            ("busy", _gauge("requests_processing")),
            ("waiting", _gauge("requests_deferred")),
        ),
    ),
    Panel(
        "Tokens per second of all requests",
        "prompt: read, without those from the cache; generated: of answers",
        (("prompt", _NEW), ("generated", _ANSWERED)),
    ),
    Panel(
        "Tokens per second of one answer",
        "what a user sees; no value without answers",
        (("", f"{_ANSWERED} / ({_ANSWERING} > 0)"),),
    ),
    Panel(
        "KV cache: tokens of prompts that were in it",
        "the share of all tokens of prompts",
        (("", f"{_CACHED} / ({_CACHED} + {_NEW} > 0)"),),
        "percentunit",
    ),
    Panel(
        "KV cache: longest sequence",
        "tokens of the longest prompt with its answer since the server's start",
        (("", _gauge("n_tokens_max")),),
    ),
)


def text() -> str:
    """Return the dashboard; its first line has the header, as that of every file."""
    data = {
        "title": "Language models",
        "uid": UID,
        "schemaVersion": _SCHEMA,
        "tags": ["llamafile-recipe"],
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": [_panel(number, panel) for number, panel in enumerate(PANELS)],
    }
    lines = json.dumps(data, indent=1).removeprefix("{\n")
    return f'{{"description": {json.dumps(HEADER)},\n{lines}\n'


def _variables() -> list[_JSON]:
    source = {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
    }
    return [source, _variable("model"), _variable("instance")]


def _variable(label: str) -> _JSON:
    """Return a choice of values of a label; all of them at first."""
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": f'label_values(up{{job="llamafile-recipe"}}, {label})',
        "refresh": 2,  # whenever the time range changes
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panel(number: int, panel: Panel) -> _JSON:
    row, column = divmod(number, 2)
    server = "{{model}} {{instance}} {{engine}} {{version}}"
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "gridPos": {
            "x": column * _WIDTH,
            "y": row * _HEIGHT,
            "w": _WIDTH,
            "h": _HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": "AB"[index],
                "datasource": _SOURCE,
                "expr": expression,
                "legendFormat": f"{words} {server}".strip(),
            }
            for index, (words, expression) in enumerate(panel.queries)
        ],
    }
