"""The kinds of files that `doit deploy` writes, and what each one needs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from tasks.deploy import (
    balancer,
    compose,
    container,
    kubernetes,
    mirror,
    prometheus,
    quadlet,
    systemd,
)
from tasks.deploy.fleet import Files, Fleet
from tasks.errors import UsageError


def _always(_: Fleet) -> bool:
    return True


def _has_image(fleet: Fleet) -> bool:
    return bool(fleet.image)


def _has_mirror(fleet: Fleet) -> bool:
    return fleet.options.mirror is not None


def _is_balanced(fleet: Fleet) -> bool:
    return any(model.balance for model in fleet.models)


def _is_measured(fleet: Fleet) -> bool:
    return any(model.metrics for model in fleet.models)


class FileKind(NamedTuple):
    """One kind of files."""

    files: Callable[[Fleet], Files]
    applies: Callable[[Fleet], bool] = _always
    needs: str = ""  # what models.yaml lacks if it does not apply


_NEEDS_IMAGE = "`image:` in deploy"

KINDS: Mapping[str, FileKind] = {
    "container": FileKind(container.files),
    "kubernetes": FileKind(kubernetes.files, _has_image, _NEEDS_IMAGE),
    "compose": FileKind(compose.files, _has_image, _NEEDS_IMAGE),
    "quadlet": FileKind(quadlet.files, _has_image, _NEEDS_IMAGE),
    "systemd": FileKind(systemd.files),
    "mirror": FileKind(mirror.files, _has_mirror, "`mirror:` in deploy"),
    "balancer": FileKind(
        balancer.files, _is_balanced, "`balance:` of a model in deploy"
    ),
    "prometheus": FileKind(
        prometheus.files, _is_measured, "`metrics: true` of a model that is deployed"
    ),
}


def files_of(fleet: Fleet, kind: str = "") -> Files:
    """Return the files of a kind; of all that apply without one.

    Raises:
        UsageError: models.yaml lacks what the kind needs.
    """
    if not kind:
        applied = (one for one in KINDS.values() if one.applies(fleet))
        return {
            path: text for one in applied for path, text in one.files(fleet).items()
        }
    if not KINDS[kind].applies(fleet):
        what = f"`doit deploy:{kind}` needs {KINDS[kind].needs}"
        raise UsageError(what, fix="add it to models.yaml, whose comments describe it")
    return KINDS[kind].files(fleet)


def stale(texts: Mapping[str, str], found: Mapping[str, str], header: str) -> list[str]:
    """Return the files that `doit deploy` wrote once and that nothing needs any more.

    Args:
        texts: what it writes now.
        found: path → first line of the files that are in its directories.
    """
    written = (path for path, line in found.items() if header in line)
    return sorted(path for path in written if path not in texts)
