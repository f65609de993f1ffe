"""`doit add`: an entry for a file, with its digest, size and licence, is written into models.yaml."""

from __future__ import annotations

import os
from typing import Any

from tasks import doit_adapter
from tasks.catalogue import edit, edit_file, load
from tasks.catalogue.file_specs import about, split_count, typed, wanted
from tasks.catalogue.lockfile import LockFile
from tasks.catalogue.model_files import digest_in
from tasks.command_line import Ask
from tasks.console.text import WORD, visible
from tasks.context import Recipe
from tasks.errors import RecipeError, TransferError, UsageError
from tasks.upstream.metadata import Stated
from tasks.upstream.resolver import OPEN_FIX, Locker
from tasks.urls import MODEL_ENDINGS, filename_of, is_local, url_problem

UNKNOWN = "unknown"


def run(recipe: Recipe, ask: Ask) -> None:
    """Write the entry, and print it.

    Raises:
        UsageError: it is no model, or its name is taken.
        TransferError: its publisher does not say what it is.
    """
    if len(ask.extra) != 1:
        raise UsageError("`doit add` takes one file", fix="doit add URL, or hf:OWNER/REPO/FILE")
    where = recipe.catalogue.where
    place, filename = _place(recipe, ask.extra[0])
    facts = about(filename)
    name = _name(recipe, ask.options.get("name"), facts)
    entry = _entry(recipe, ask, name, place, facts)
    with edit_file.editing(where, recipe.place.cache):
        _insert(where, name, entry)
    doit_adapter.show("\n".join([f"added to {where}:", *edit.block(name, entry, 2, 2)]))
    if load.read_lock(where) is not None:
        doit_adapter.log().info("next: doit lock --model %s", name)
    doit_adapter.log().info("next: doit serve --model %s", name)


def _place(recipe: Recipe, text: str) -> tuple[dict[str, Any], str]:
    """(the keys that say where the file is, its name). Raises UsageError: it is no model."""
    file = typed(text)
    if file:
        keys: dict[str, Any] = {"hf": file.repo, "file": file.path, "revision": file.revision}
        name = filename_of(file.url)
    elif text.startswith("hf:"):
        raise UsageError(f"expected hf:OWNER/REPO/FILE, got {text}")
    elif is_local(text):
        path, root = recipe.place.absolute(text, recipe.place.cwd), recipe.place.root
        inside = path.startswith(root + os.sep)
        if url_problem(path, pinned=True) or visible(path, WORD) != path:
            raise UsageError(f"models.yaml cannot name the file {path}", fix="rename it, or its folder")
        keys = {"url": os.path.relpath(path, root).replace(os.sep, "/") if inside else path}
        name = filename_of(path)
    else:
        if problem := url_problem(text, pinned=True):
            raise UsageError(problem)
        keys, name = {"url": text}, filename_of(text)
    if not name.endswith(MODEL_ENDINGS):
        raise UsageError(f"expected a file that ends in {' or '.join(MODEL_ENDINGS)}, got {name!r}")
    return keys, name


def _name(recipe: Recipe, given: str | None, facts: dict[str, str]) -> str:
    """What the entry will be called. Raises UsageError: it is taken."""
    taken = {word.lower() for word in recipe.catalogue.words}
    names = [given] if given else [facts["name"], f"{facts['name']}-{facts.get('quant', '').lower()}"]
    free = next((name for name in names if name.lower() not in taken and not name.endswith("-")), None)
    if free is None:
        raise UsageError(f"there is a model {names[0]!r} in {recipe.catalogue.where}", fix="--name ANOTHER")
    return free


def _entry(
    recipe: Recipe, ask: Ask, name: str, place: dict[str, Any], facts: dict[str, str]
) -> dict[str, Any]:
    """The keys of the entry, everything pinned. Raises RecipeError."""
    sha256 = digest_in(ask.options.get("sha256"))
    draft = {**place, "license": ask.options.get("license") or UNKNOWN}
    count = split_count(filename_of(place.get("file") or place["url"]))
    if sha256 and not count:
        draft["sha256"] = sha256
    locker = Locker(recipe.place, ask, {}, LockFile(1), recipe.catalogue.where)
    try:
        stated = [locker.stated(name, draft, want) for want in wanted(draft)]
    except TransferError:
        raise
    except RecipeError as error:
        fix = error.fix.replace(OPEN_FIX, "--download, or --sha256 HEX")
        raise TransferError(f"{name}: {error.what}", fix=fix) from None
    if stated[0].commit and "hf" in place:
        place = {**place, "revision": stated[0].commit}
    pins: dict[str, Any] = {"parts": [_pin(one) for one in stated]} if count else _pin(stated[0])
    licence = ask.options.get("license") or locker.licence(stated[0].url)
    if not licence:
        licence = UNKNOWN
        doit_adapter.log().warning("%s: its licence is not known; --license TEXT, or edit the entry", name)
    more: dict[str, Any] = {key: facts[key] for key in ("params", "quant") if key in facts}
    engine = {} if _is_served(recipe, filename_of(stated[0].url)) else {"engine": "embedded"}
    return {"title": facts["title"], **place, **pins, "license": licence, **more, **engine}


def _is_served(recipe: Recipe, filename: str) -> bool:
    """Whether the catalogue has what serves such a file when nothing else is said."""
    if not filename.endswith(".gguf"):
        return True
    try:
        return bool(recipe.catalogue.engine("llamafile").url)
    except UsageError:
        return False


def _pin(stated: Stated) -> dict[str, Any]:
    return {key: value for key, value in (("sha256", stated.sha256), ("size", stated.size)) if value}


def _insert(where: str, name: str, entry: dict[str, Any]) -> None:
    """Add the entry to the catalogue as it is now: finding the facts may have taken minutes.

    Raises:
        UsageError: the catalogue has errors, or its name was taken meanwhile.
        RecipeError: its form leaves no place for an entry.
    """
    from tasks.catalogue import schema

    content = load.read(where)
    text = load.text_of(content, where)
    plain = schema.read_catalogue(text, where)
    words = [*plain["models"]]
    words += [alias for one in plain["models"].values() for alias in one.get("aliases", ())]
    if name.lower() in map(str.lower, words):
        what = f"a model {name!r} was added to {where} meanwhile; nothing was written"
        raise UsageError(what, fix="--name ANOTHER")
    new = edit.insert(text, name, entry, where)
    if schema.read_catalogue(new, where) != {**plain, "models": {**plain["models"], name: entry}}:
        block = "\n".join(edit.block(name, entry, 2, 2))
        raise RecipeError(f"{where} has a form that this cannot add to", [("entry", block)], fix="paste it")
    mark = "\ufeff" if content.startswith(b"\xef\xbb\xbf") else ""
    edit_file.replace(where, mark + new)
