"""Describe a server as a target of Prometheus, with its labels. Pure.

Source: Prometheus' configuration, <file_sd_config> and <relabel_config>: a label
`__param_NAME` is a parameter of the URL that is scraped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

ON_DEMAND = "on demand"  # value of `loading`: it may be unloaded


class Scraped(NamedTuple):
    """One model of a server that is scraped."""

    name: str
    sha256: str = ""
    kept: bool = False  # of an endpoint: it is always loaded


def scrape_targets(
    addresses: Sequence[str],
    models: Sequence[Scraped],
    labels: Mapping[str, str],
    endpoint: str = "",
) -> list[dict[str, object]]:
    """Return the targets of servers, in the format of file_sd.

    The router of an endpoint answers for one model at a time, so each is a target. The
    scrape does not load it.

    Args:
        labels: of all targets; empty ones are left out.
        endpoint: its name; empty for servers of one model.
    """
    found: list[dict[str, object]] = []
    for model in models:
        own = {"model": model.name, "sha256": model.sha256, **labels}
        if endpoint:
            own |= {"endpoint": endpoint, **_of_router(model)}
        given = {key: value for key, value in own.items() if value}
        found.append({"targets": list(addresses), "labels": given})
    return found


def _of_router(model: Scraped) -> dict[str, str]:
    parameters = {"__param_model": model.name, "__param_autoload": "false"}
    if model.kept:
        return parameters
    return {"loading": ON_DEMAND, **parameters}
