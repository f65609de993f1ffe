"""Tell Prometheus about a server, in a file beside its record that file_sd reads.

It is there as long as the record: also for a server that ended by itself, so that
Prometheus reports it, until the next command starts or stops the model. The key is not
in it.
"""

from __future__ import annotations

import contextlib
import json
import os

from tasks.catalogue.scrape_target import Scraped, scrape_targets
from tasks.engine.router_launch import KEEP_KEY, recorded_names
from tasks.server.server_record import ServerRecord
from tasks.system import files


def targets(record: ServerRecord) -> list[dict[str, object]]:
    """Return the targets of a server; none unless models.yaml says `metrics: true`."""
    if record.spec.get("metrics") != "true":
        return []
    engine, _, version = record.spec.get("--engine", "").partition(" ")
    variant = record.spec.get("--variant", "")
    labels = {"variant": variant, "engine": engine, "version": version}
    address = record.url.removeprefix("http://")
    names = recorded_names(record.spec)
    if not names:
        return scrape_targets([address], [Scraped(record.name)], labels)
    keep = record.spec.get(KEEP_KEY, "").split(", ")
    models = [Scraped(name, kept=name in keep) for name in names]
    return scrape_targets([address], models, labels, record.name)


def write(record: ServerRecord) -> None:
    """Write the file of a server, if it is to be scraped.

    Raises:
        OSError: it cannot be written.
    """
    if found := targets(record):
        text = json.dumps(found, indent=1)
        files.write_atomic(target_path(record.path), f"{text}\n", private=True)


def forget(path: str) -> None:
    """Delete the file.

    Args:
        path: of the record.
    """
    with contextlib.suppress(OSError):
        os.unlink(target_path(path))


def target_path(path: str) -> str:
    """Return the path of the file: JSON, which is YAML; records alone are `*.json`.

    Args:
        path: of the record.
    """
    return f"{path.removesuffix('.json')}.targets.yaml"
