"""`doit add`: write an entry for a file into models.yaml, with digest and licence."""

from __future__ import annotations

import os
from collections.abc import Collection
from itertools import count
from typing import Any, NamedTuple

from tasks import doit_adapter, references
from tasks.catalogue import edit, edit_file, load
from tasks.catalogue.artifact import Artifact
from tasks.catalogue.constraints import name_problem
from tasks.catalogue.engine_choice import installed_engines, written_engine
from tasks.catalogue.engine_release import pinned_engines
from tasks.catalogue.file_specs import (
    file_specs,
    guess_model_info,
    parse_hub_reference,
    split_count,
)
from tasks.catalogue.lockfile import LockFile
from tasks.catalogue.model_files import parse_sha256
from tasks.catalogue.model_format import has_gguf_name
from tasks.command_line import TaskRequest
from tasks.console.text import WORD, visible
from tasks.context import Context
from tasks.errors import IntegrityError, RecipeError, TransferError, UsageError
from tasks.positional import quoted
from tasks.system import files
from tasks.transfer import contents
from tasks.transfer.local_sources import local_path
from tasks.upstream.metadata import RemoteFile
from tasks.upstream.resolver import OPEN_FIX, LockResolver
from tasks.urls import MODEL_ENDINGS, filename_of, is_local, url_error

UNKNOWN = "unknown"
_FIX = "doit add URL, hf:OWNER/REPO/FILE, oci://HOST/REPO:TAG, or ./FILE.gguf"
_HUB_FIX = "doit add hf:OWNER/REPO/FILE"


class NewFile(NamedTuple):
    """The file of the new entry, and what its name says about it."""

    keys: dict[str, Any]  # of the entry: where the file is
    facts: dict[str, str]
    name: str  # of the entry
    path: str = ""  # of a file on this machine


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: the command line names no file that can be added, or several; its
            name is taken, or its digest not a digest.
    """
    if len(request.extra) != 1:
        raise UsageError("`doit add` takes one file", fix=_FIX)
    keys, path, filename = _place(context, request.extra[0])
    facts = guess_model_info(filename)
    parse_sha256(request.options.get("sha256"))  # refused before anything is read
    name = _name(context, request, facts)
    return [context, request, NewFile(keys, facts, name, path)]


def run(context: Context, request: TaskRequest, new: NewFile) -> None:
    """Write the entry, and print it.

    Raises:
        IntegrityError: the file on this machine is not a model.
        UsageError: the name was taken meanwhile.
        TransferError: the publisher states neither digest nor size.
    """
    where = context.catalogue.where
    name = new.name
    if new.path:
        _check_model(new)
    entry = _entry(context, request, name, new.keys, new.facts)
    with edit_file.editing(where, context.environment.cache):
        _insert(where, name, entry)
    doit_adapter.print_report(
        "\n".join([f"added to {where}:", *edit.render_entry(name, entry, 2, 2)])
    )
    if load.read_lock(where) is not None:
        doit_adapter.log().info("next: doit lock --model %s", name)
    doit_adapter.log().info("next: doit serve --model %s", name)


def _check_model(new: NewFile) -> None:
    """Check a file on this machine as a download without a digest is checked.

    Raises:
        IntegrityError: it is not a model.
    """
    artifact = Artifact(new.path, (), new.path, in_cache=False)
    if problem := contents.problem(artifact, new.path, os.path.getsize(new.path)):
        error = contents.wrong_file(artifact, problem)
        fix = "name another file, or download this one again"
        raise IntegrityError(error.what, error.facts, fix)


def _place(context: Context, text: str) -> tuple[dict[str, Any], str, str]:
    """Return the keys that say where the file is, its path if local, and its name.

    Raises:
        UsageError: it does not exist, or cannot be a model.
    """
    keys: dict[str, Any]
    path = ""
    file = parse_hub_reference(text)
    if file:
        keys = {"hf": file.repo, "file": file.path, "revision": file.revision}
        name = filename_of(file.url)
    elif text.startswith("hf:"):
        raise UsageError(f"expected hf:OWNER/REPO/FILE, got {text}", fix=_HUB_FIX)
    elif is_local(text):
        path = context.environment.absolute(local_path(text), context.environment.cwd)
        keys = {"url": _local_url(path, context.environment.root)}
        name = filename_of(path)
    elif problem := url_error(text, pinned=True):
        raise UsageError(problem, fix=_FIX)
    else:
        keys = {"url": text}
        name = filename_of(text)
    if not name.lower().endswith(MODEL_ENDINGS):
        endings = " or ".join(MODEL_ENDINGS)
        what = f"expected a file that ends in {endings}, got {name!r}"
        raise UsageError(what, fix=_FIX)
    if path and files.stat(path) is None:
        raise UsageError(f"no such file: {path}", fix=_FIX)
    return keys, path, name


def _local_url(path: str, root: str) -> str:
    """Return the `url:` of a local file: relative if it is beside models.yaml.

    Raises:
        UsageError: its path has characters that models.yaml cannot have.
    """
    if url_error(path, pinned=True) or visible(path, WORD) != path:
        what = f"models.yaml cannot name the file {path}"
        raise UsageError(what, fix="rename it, or its folder")
    if path.startswith(root + os.sep):
        return os.path.relpath(path, root).replace(os.sep, "/")
    return path


def _name(context: Context, request: TaskRequest, facts: dict[str, str]) -> str:
    """Return the name of the entry.

    Raises:
        UsageError: it is taken, or not a name; the fix has one that is free.
    """
    given = request.options.get("name")
    catalogue = context.catalogue
    names_here = (*catalogue.names_and_aliases, *catalogue.endpoint_names)
    taken = {word.lower() for word in names_here}
    if given and (problem := name_problem(given)):
        fix = _command(request, _free(facts["name"], taken))
        raise UsageError(f"--name: {problem}", fix=fix)
    names = [facts["name"]]
    if given:
        names = [given]
    elif facts.get("quant"):
        names.append(f"{facts['name']}-{facts['quant'].lower()}")
    for name in names:
        if name.lower() not in taken and not name.endswith("-"):
            return name
    what = f"there is a model {names[0]!r} in {context.catalogue.where}"
    raise UsageError(what, fix=_command(request, _free(names[-1], taken)))


def _free(name: str, taken: Collection[str]) -> str:
    """Return a name that is not taken: this one, or this one with a number."""
    if name.lower() not in taken:
        return name
    numbered = (f"{name}-{number}" for number in count(2))
    return next(one for one in numbered if one.lower() not in taken)


def _command(request: TaskRequest, name: str) -> str:
    """Return the command that adds the file under another name."""
    return " ".join(map(quoted, ["doit", "add", request.extra[0], "--name", name]))


def _entry(
    context: Context,
    request: TaskRequest,
    name: str,
    place: dict[str, Any],
    facts: dict[str, str],
) -> dict[str, Any]:
    """Return the keys of the entry, with everything pinned.

    Raises:
        TransferError: the publisher states neither digest nor size.
    """
    sha256 = parse_sha256(request.options.get("sha256"))
    draft = {**place, "license": request.options.get("license") or UNKNOWN}
    parts = split_count(filename_of(place.get("file") or place["url"]))
    if sha256 and not parts:
        draft["sha256"] = sha256
    locker = LockResolver(
        context.environment, request, {}, LockFile(1), context.catalogue.where
    )
    try:
        stated = [locker.resolve_file(name, draft, want) for want in file_specs(draft)]
    except TransferError:
        raise
    except RecipeError as error:
        fix = error.fix.replace(OPEN_FIX, "--download, or --sha256 HEX")
        raise TransferError(f"{name}: {error.what}", fix=fix) from None
    if references.parse_oci(stated[0].url):
        place = {**place, "url": stated[0].url}  # by the manifest's digest
    if stated[0].commit and "hf" in place:
        place = {**place, "revision": stated[0].commit}
    pins = _pin(stated[0])
    if parts:
        pins = {"parts": [_pin(part) for part in stated]}
    licence = request.options.get("license") or locker.fetch_license(stated[0].url)
    if not licence:
        licence = UNKNOWN
        text = "%s: its licence is not known; --license TEXT, or edit the entry"
        doit_adapter.log().warning(text, name)
    more: dict[str, Any] = {
        key: facts[key] for key in ("params", "quant") if key in facts
    }
    for beside in stated[0].beside:
        pin = {"sha256": beside.sha256, "size": beside.size}
        more[beside.role] = {"url": beside.url, **pin}
    engine = _engine(context, filename_of(stated[0].url))
    if engine:
        more["engine"] = engine
    return {"title": facts["title"], **place, **pins, "license": licence, **more}


def _engine(context: Context, filename: str) -> str:
    """Return the engine that the entry names, or ""."""
    if not has_gguf_name(filename):
        return ""
    catalogue = context.catalogue
    return written_engine(
        installed_engines(context.environment),
        has_pinned=bool(pinned_engines(catalogue, context.environment)),
        has_embedded=catalogue.has_engine("embedded"),
    )


def _pin(stated: RemoteFile) -> dict[str, Any]:
    pins = {"sha256": stated.sha256, "size": stated.size}
    return {key: value for key, value in pins.items() if value}


def _insert(where: str, name: str, entry: dict[str, Any]) -> None:
    """Add the entry to the catalogue, which is read again.

    Reading a file to hash it may have taken minutes.

    Raises:
        UsageError: the catalogue has errors, or the name was taken meanwhile.
        RecipeError: an entry cannot be added to a catalogue of this form.
    """
    from tasks.catalogue import schema

    content = load.read(where)
    text = load.decode_yaml(content, where)
    plain = schema.read_catalogue(text, where)
    models = plain["models"]
    taken = [*models]
    taken += [alias for model in models.values() for alias in model.get("aliases", ())]
    if name.lower() in map(str.lower, taken):
        what = f"a model {name!r} was added to {where} meanwhile; nothing was written"
        raise UsageError(what, fix="--name ANOTHER")
    new = edit.insert_entry(text, name, entry, where)
    if schema.read_catalogue(new, where) != {
        **plain,
        "models": {**models, name: entry},
    }:
        block = "\n".join(edit.render_entry(name, entry, 2, 2))
        what = f"{where} has a form that this cannot add to"
        raise RecipeError(what, [("entry", block)], fix="paste it")
    if content.startswith(b"\xef\xbb\xbf"):
        new = f"\ufeff{new}"
    edit_file.replace(where, new)
