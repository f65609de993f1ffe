"""`doit deploy`: write the files from which engines serve the models elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tasks import doit_adapter
from tasks.catalogue import edit_file
from tasks.command_line import TaskRequest
from tasks.context import Context
from tasks.deploy.fleet import HEADER, Files
from tasks.deploy.kinds import KINDS, files_of, stale
from tasks.deploy.reader import read_fleet
from tasks.errors import RecipeError

_FOLDER = "deploy"  # beside models.yaml


def tasks(context: Context, requests: Sequence[TaskRequest]) -> dict[str, Any]:
    """Return doit's tasks by kind; one task without a name for all of a check.

    What is on disk says whether a task is up to date, not doit's memory of the files
    that it depends on (docs/adr/0001).

    Raises:
        UsageError: models.yaml has no `deploy:`, or models.lock lacks a model of it.
    """
    fleet = read_fleet(context.catalogue, context.environment)
    folder = os.path.join(context.environment.root, _FOLDER)
    found: dict[str, Any] = {}
    for request in requests:
        kinds = [request.model or ""]
        if "check" in request.options:
            texts = _paths(folder, files_of(fleet, kinds[0]))
            found[kinds[0]] = {
                "actions": [(check, [texts, "" if request.model else folder])]
            }
            continue
        if not request.model:
            kinds = [name for name, kind in KINDS.items() if kind.applies(fleet)]
        for kind in kinds:
            found[kind] = _task(_paths(folder, files_of(fleet, kind)))
    return found


def _task(texts: Files) -> dict[str, Any]:
    return {
        "actions": [(run, [texts])],
        "targets": list(texts),
        "uptodate": [not _different(texts)],
    }


def _paths(folder: str, found: Files) -> Files:
    return {
        os.path.join(folder, *path.split("/")): text for path, text in found.items()
    }


def run(texts: Files) -> None:
    """Write the files that differ.

    Raises:
        OSError: one cannot be written.
    """
    for path, state in _different(texts).items():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        edit_file.replace(path, texts[path])
        doit_adapter.print_report(f"{path}: {state}")


def check(texts: Files, folder: str) -> None:
    """Compare the files with what they would be.

    Args:
        folder: the directory that has no other files of this verb; "" to skip that.

    Raises:
        RecipeError: one differs.
    """
    facts = list(_different(texts).items())
    others: list[str] = []
    if folder:
        others = stale(texts, _first_lines(folder), HEADER)
        facts += [(path, "no model needs it any more: git rm it") for path in others]
    if facts:
        what = f"{_FOLDER}/ is not up to date"
        fix = "`doit deploy`, and commit the files"
        if len(facts) == len(others):
            fix = "remove these files, and commit that"  # `doit deploy` removes none
        raise RecipeError(what, facts, fix)
    doit_adapter.print_report(f"{_FOLDER}/ is up to date: {len(texts)} files")


def _different(texts: Files) -> dict[str, str]:
    """Return the files that are to be written: path → why.

    One that cannot be read is among them: writing it will say why it cannot be.
    """
    found = {}
    for path, text in texts.items():
        try:
            with open(path, "rb") as file:
                if file.read() != text.encode():
                    found[path] = "changed"
        except FileNotFoundError:
            found[path] = "new"
        except OSError as error:
            found[path] = f"cannot be read: {error.strerror}"
    return found


def _first_lines(folder: str) -> Mapping[str, str]:
    """Return the first line of each file in a directory."""
    lines = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            with open(path, encoding="utf-8", errors="replace") as file:
                lines[path] = file.readline().rstrip("\n")
    return lines
