"""`doit lock`: pin the exact bytes of each entry of models.yaml in models.lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tasks import doit_adapter
from tasks.catalogue import edit_file, load, lockfile
from tasks.catalogue.lockfile import LockedFile, LockFile
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.context import Context
from tasks.errors import RecipeError, TransferError, UsageError
from tasks.system import files
from tasks.upgrade import report
from tasks.upgrade.gate import Gate
from tasks.upgrade.trial import Steps
from tasks.upstream.resolver import LockResolver
from tasks.urls import filename_of


def action(
    context: Context, request: TaskRequest, steps: Steps
) -> tuple[Callable[..., None], list[Any]]:
    """Return the task's action: function and arguments.

    Args:
        steps: make a model ready to be served, for --checked.

    Raises:
        UsageError: models.lock is damaged, or contradicts models.yaml.
    """
    from tasks.catalogue import schema

    where = context.catalogue.where
    text = load.decode_yaml(load.read(where), where)
    place = load.lock_path(where)
    content = load.read_lock(where)
    old = None
    if content is not None:
        old = schema.read_lock(load.decode_yaml(content, place), place)
    plain = schema.read_catalogue(text, where)
    engines = {word for word in request.models if word in plain["engines"]}
    models = {
        context.catalogue.name(word) for word in request.models if word not in engines
    }
    chosen = engines | models
    if "check" in request.options:
        changing = [
            f"--{name}" for name in ("upgrade", "download") if name in request.options
        ]
        if changing:
            what = (
                f"--check only compares: {' and '.join(changing)} would change the file"
            )
            raise UsageError(what)
        return check, [plain, old, place, chosen, "json" in request.options]
    if "json" in request.options:
        raise UsageError("--json is only for --check", fix="doit lock --check --json")
    _check_options(request)
    moving: set[str] = set()
    if "upgrade" in request.options:
        moving = chosen or {*plain["engines"], *plain["models"]}
    schema.compile_catalogue(text, where, lockfile.drop_entries(old, moving))
    locker = LockResolver(
        context.environment, request, plain, old or LockFile(1), where
    )
    if "checked" not in request.options:
        return run, [locker, chosen, place]
    path = _report_path(context, request)
    return run_checked, [locker, chosen, place, Gate(context, plain, steps), path]


def _check_options(request: TaskRequest) -> None:
    """Check that --checked and --report have what they need.

    Raises:
        UsageError: they have not.
    """
    if "checked" in request.options and "upgrade" not in request.options:
        what = "--checked is only for --upgrade"
        raise UsageError(what, fix="doit lock --upgrade --checked")
    if "report" in request.options and "checked" not in request.options:
        what = "--report is only for --checked"
        raise UsageError(what, fix="doit lock --upgrade --checked --report FILE")


def _report_path(context: Context, request: TaskRequest) -> str:
    """Return the path of --report; empty without it.

    Raises:
        UsageError: its directory does not exist, which a long run would find last.
    """
    name = request.options.get("report", "")
    if not name:
        return ""
    path = context.environment.absolute(name, context.environment.cwd)
    folder = os.path.dirname(path)
    if os.path.isdir(path) or not os.path.isdir(folder):
        raise UsageError(f"--report: expected a file in a directory, got {name}")
    return path


def run(locker: LockResolver, chosen: set[str], place: str) -> None:
    """Write models.lock.

    Raises:
        TransferError: a publisher does not state a digest; nothing is written.
        RecipeError: another process changed the same entries; nothing is written.
    """
    resolved = locker.resolve(chosen)
    for line in _write(locker, resolved, place):
        doit_adapter.print_report(line)


def run_checked(
    locker: LockResolver, chosen: set[str], place: str, gate: Gate, path: str
) -> None:
    """Write models.lock with the pins whose checks pass, and a report.

    Args:
        path: of the report; empty for stdout.

    Raises:
        RecipeError: as `run`; or the report could not be written.
    """
    resolved = gate.accepted(locker.old, locker.resolve(chosen))
    lines = _write(locker, resolved, place)
    text = report.render(gate.decisions)
    if not path:
        doit_adapter.log().info("%s", lines[-1])
        doit_adapter.print_report(text.rstrip("\n"))
        return
    for line in lines:
        doit_adapter.print_report(line)
    try:
        files.write_atomic(path, text)
    except OSError as error:
        what = f"models.lock is written, but not the report: {path}"
        raise RecipeError(f"{what}: {error.strerror or error}") from None


def _write(locker: LockResolver, resolved: LockFile, place: str) -> list[str]:
    """Write models.lock; return what has changed, a line each, and its size.

    Raises:
        TransferError: a publisher states values that models.lock cannot have.
        RecipeError: another process changed the same entries; nothing is written.
    """
    summary = ""
    with edit_file.editing(place, locker.cache):
        now = load.read_lock(locker.where)
        new = _joined(locker, resolved, place, now)
        text = lockfile.render(new)
        if now is not None and text == load.decode_yaml(now, place):
            summary = ", nothing changed"
        else:
            edit_file.replace(place, text)
    return [*changes(locker.old, resolved), f"{place}: {_count(new)}{summary}"]


def _joined(
    locker: LockResolver, resolved: LockFile, place: str, now: bytes | None
) -> LockFile:
    """Merge the resolved entries into models.lock, both files as they are now.

    Raises:
        UsageError: one of them has errors now.
        TransferError: a publisher states values that models.lock cannot have.
        RecipeError: another process changed the same entries.
    """
    from tasks.catalogue import schema

    current = LockFile(1)
    if now is not None:
        current = schema.read_lock(load.decode_yaml(now, place), place)
    catalogue = load.decode_yaml(load.read(locker.where), locker.where)
    plain = schema.read_catalogue(catalogue, locker.where)
    merged = lockfile.merged(locker.old, resolved, current, place)
    new = lockfile.ordered(merged, plain)
    _check_readable(lockfile.render(new), place, catalogue, locker.where)
    return new


def _check_readable(text: str, place: str, catalogue: str, where: str) -> None:
    """Check that a new models.lock is valid, before it is written.

    Raises:
        TransferError: it is not, because of the values that a publisher states.
    """
    from tasks.catalogue import schema

    try:
        schema.compile_catalogue(catalogue, where, schema.read_lock(text, place))
    except UsageError as error:
        what = "nothing was written: the values that publishers state are not valid"
        fix = "pin it in models.yaml: sha256, size"
        raise TransferError(what, [("why", error.what)], fix) from None


def check(
    plain: Mapping[str, Any],
    old: LockFile | None,
    place: str,
    chosen: Collection[str],
    as_json: bool,
) -> None:
    """Check that the lock covers the catalogue.

    Args:
        chosen: only these entries; empty: all.

    Raises:
        RecipeError: it does not.
    """
    lacking = lockfile.coverage_errors(plain, old or LockFile(1))
    if chosen:
        lacking = [row for row in lacking if _entry_of(row) in chosen]
    if as_json:
        covers = old is not None and not lacking
        doit_adapter.print_json(
            {
                "lock": place,
                "exists": old is not None,
                "covers": covers,
                "errors": lacking,
            }
        )
    if old is None:
        raise RecipeError(f"there is no {place}", fix="`doit lock`, and commit it")
    if lacking:
        facts = [(row.partition(" ")[0], row.partition(" ")[2]) for row in lacking]
        what = f"{place} does not cover the catalogue"
        raise RecipeError(what, facts, fix=_check_fix(plain, old, chosen))
    if not as_json:
        what = f"the catalogue: {_count(old)}"
        if chosen:
            what = ", ".join(sorted(chosen))
        doit_adapter.print_report(f"{place} covers {what}")


def _entry_of(error: str) -> str:
    """Return the name of the entry in "models.NAME is not in models.lock"."""
    return error.partition(" ")[0].partition(".")[2]


def _check_fix(plain: Mapping[str, Any], old: LockFile, chosen: Collection[str]) -> str:
    """Return the command that makes a lock cover the catalogue.

    `doit lock` refuses an entry that contradicts its pin; --upgrade replaces the pin.
    """
    wrong = lockfile.contradicted(plain, old)
    names = [f"--model {name}" for name in wrong if not chosen or name in chosen]
    if not names:
        return "`doit lock`, and commit it"
    command = f"`doit lock --upgrade {' '.join(names)}`, and commit it"
    return f"edit the catalogue, or if it is right: {command}"


def _count(lock: LockFile) -> str:
    tables = (lock.engines, lock.models)
    count = sum(len(rows) for table in tables for rows in table.values())
    models = _number(len(lock.models), "model")
    engines = _number(len(lock.engines), "engine")
    return f"{_number(count, 'file')} of {models} and {engines}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def changes(old: LockFile, new: LockFile) -> list[str]:
    """Return the differences, a line each: + added, - removed, ~ changed."""
    lines = []
    for table in ("engines", "models"):
        before, after = getattr(old, table), getattr(new, table)
        lines += [f"- {name}" for name in before if name not in after]
        for name, rows in after.items():
            known = {row.source or row.url: row for row in before.get(name, ())}
            for row in rows:
                lines += _change(name, known.get(row.source or row.url), row)
    return lines


def _change(name: str, old: LockedFile | None, new: LockedFile) -> list[str]:
    """Return the lines for one file; none if it is unchanged."""
    file = filename_of(new.url)
    if old is None:
        size = formatting.format_size(new.size)
        facts = f"{size} sha256:{new.sha256} ({new.digest_from})"
        return [f"+ {name}: {file} {facts}"]
    if (old.sha256, old.url) != (new.sha256, new.url):
        first = f"~ {name}: {file}"
        if old.sha256 == new.sha256:
            first += ", the same bytes"
        return [first, f"    old {_version(old)}", f"    new {_version(new)}"]
    if old.license != new.license:
        return [f"~ {name}: licence {old.license} → {new.license}"]
    if old.memory != new.memory:
        return [f"~ {name}: {file}, what its memory depends on"]
    return []


def _version(row: LockedFile) -> str:
    version = row.version or (row.commit or "")[:12] or row.since
    return f"{version} sha256:{row.sha256} {formatting.format_size(row.size)}"
