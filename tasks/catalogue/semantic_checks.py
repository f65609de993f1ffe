"""Checks of models.yaml across keys: names, URLs, files and engines that conflict.

Pure. Works on plain data that may be malformed: type errors are reported elsewhere.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from tasks.catalogue.check_options import check_errors
from tasks.catalogue.constraints import ENGINES, LATEST, is_sha256
from tasks.catalogue.deploy_checks import deploy_errors
from tasks.catalogue.engine_args import instead_of, instead_of_variable
from tasks.catalogue.engine_choice import GGUF_ONLY
from tasks.catalogue.file_specs import (
    companions,
    engine_files,
    file_location,
    split_count,
    split_error,
    variant_entry,
)
from tasks.catalogue.model_format import has_gguf_name, has_llamafile_name
from tasks.errors import did_you_mean
from tasks.system.paths import name_problem
from tasks.urls import filename_of, url_error

Path = tuple[str, ...]
Problem = tuple[Path, str]
_Entry = Mapping[str, Any]


def semantic_errors(plain: Mapping[str, Any]) -> list[Problem]:
    """Return all errors, each with the path of its key."""
    models = _entries(plain, "models")
    engines = _entries(plain, "engines")
    names: dict[str, str] = {}  # name or alias in lower case → name of its model
    problems: list[Problem] = []
    for name, entry in models.items():
        problems += _name_problems(name, entry, names)
    llamafile = engines.get("llamafile", {})
    server = engines.get("llama-server", {})
    pinned = []
    if llamafile.get("url") and llamafile.get("version"):
        pinned.append("llamafile")
    if server.get("archives") or server.get("path"):
        pinned.append("llama-server")
    for name, entry in models.items():
        problems += _below(("models", name), _model_problems(entry, pinned))
    problems += _below(("defaults",), _args_problems(plain.get("defaults")))
    for name, entry in engines.items():
        problems += _below(("engines", name), _url_problems(entry))
        problems += _below(("engines", name), _engine_entry_problems(name, entry))
    problems += deploy_errors(plain)
    default = plain.get("default")
    if isinstance(default, str) and default.lower() not in names:
        hint = did_you_mean(default, list(names))
        problems.append((("default",), f"there is no model {default!r}; {hint}"))
    return problems


def _entries(plain: Mapping[str, Any], table: str) -> dict[str, _Entry]:
    """Return the well-formed entries of a table."""
    entries = plain.get(table)
    if not isinstance(entries, dict):
        return {}
    return {
        str(key): value for key, value in entries.items() if isinstance(value, dict)
    }


def _list(entry: _Entry, key: str) -> list[Any]:
    """Return a list of an entry; empty if it is missing or malformed."""
    value = entry.get(key)
    return value if isinstance(value, list) else []


def _below(path: Path, problems: Iterable[Problem]) -> list[Problem]:
    """Prefix the paths of problems."""
    return [((*path, *rest), text) for rest, text in problems]


def _name_problems(
    name: str, entry: _Entry, names: dict[str, str]
) -> Iterator[Problem]:
    """Yield names that are in `names` already; adds this model's names."""
    paths: list[Path] = [("models", name)]
    aliases = _list(entry, "aliases")
    paths += [("models", name, "aliases", str(i)) for i in range(len(aliases))]
    for path, word in zip(paths, (name, *aliases), strict=True):
        if not isinstance(word, str):
            continue
        key = word.lower()
        if key in names:
            yield path, f"the name {word!r} is taken by models.{names[key]}"
        names.setdefault(key, name)


def _model_problems(entry: _Entry, pinned: Collection[str]) -> Iterator[Problem]:
    yield from _below(("serve",), _args_problems(entry.get("serve")))
    yield from check_errors(entry)
    if entry.get("variants") is not None:
        yield from _variant_problems(entry, pinned)
        return
    yield from _url_problems(entry)
    yield from _file_problems(entry)
    text = _engine_problem(entry, pinned)
    if text:
        yield ("engine",), text
    yield from _kind_problems(entry)


def _kind_problems(entry: _Entry) -> Iterator[Problem]:
    """Yield keys that only a model of another kind can have."""
    kind = entry.get("kind", "chat")
    if kind in ("embedding", "rerank"):
        for key in ("mmproj", "draft", "template"):
            if entry.get(key):
                yield (key,), f"only for kind: chat, and this is kind: {kind}"
    settings = entry.get("serve")
    if kind == "chat" and isinstance(settings, dict) and settings.get("pooling"):
        yield ("serve", "pooling"), "requires kind: embedding"


def _variant_problems(entry: _Entry, pinned: Collection[str]) -> Iterator[Problem]:
    """Yield what is wrong with the variants, and keys that belong to one of them."""
    for key in ("url", "file", "mirrors", "sha256", "size", "parts", "quant"):
        if entry.get(key):
            yield (key,), "cannot be combined with variants: each has its own"
    yield from _companion_problems(entry)
    if entry.get("variants") == {}:
        yield ("variants",), "expected at least one variant"
    sources: dict[str, str] = {}
    names: dict[str, str] = {}
    for name, own in _entries(entry, "variants").items():
        path = ("variants", name)
        merged = variant_entry(entry, own)
        yield from _below(path, _url_problems(merged))
        yield from _below(path, _file_problems(merged))
        if text := _engine_problem(merged, pinned):
            yield path, text
        same = sources.setdefault(_url(merged), name)
        if same != name and _url(merged):
            yield path, f"has the file of variants.{same}"
        same = names.setdefault(name.lower(), name)
        if same != name:
            yield path, f"the name is taken by variants.{same}"


def _args_problems(settings: Any) -> Iterator[Problem]:
    """Yield arguments that other keys set, or that no program can receive."""
    if not isinstance(settings, dict):
        return
    yield from _env_problems(settings.get("env"))
    for index, word in enumerate(_list(settings, "args")):
        if not isinstance(word, str):
            continue
        path = ("args", str(index))
        match = instead_of(word)
        if match:
            flag, instead = match
            yield path, f"{flag} is not allowed in args; use {instead.key}"
        elif "\0" in word:
            yield path, "an argument cannot have a NUL character"


def _env_problems(variables: Any) -> Iterator[Problem]:
    """Yield variables that other keys set, or that hold a credential."""
    if not isinstance(variables, dict):
        return
    for name, value in variables.items():
        if not isinstance(name, str):
            continue
        path = ("env", name)
        match = instead_of_variable(name)
        if match:
            yield path, f"{name} is not allowed in env; use {match.key}"
        elif isinstance(value, str) and "\0" in value:
            yield path, "a variable cannot have a NUL character"


def _engine_problem(entry: _Entry, pinned: Collection[str]) -> str:
    """Return why the model's engine cannot serve its file, or an empty text."""
    url = _url(entry)
    if not url or url_error(url, pinned=True):
        return ""
    filename = filename_of(url)
    is_gguf = has_gguf_name(filename)
    engine = entry.get("engine") or ("llamafile" if is_gguf else "self")
    if engine == "self" and is_gguf:
        return "a .gguf is not a program: expected llamafile or embedded"
    if engine in GGUF_ONLY and has_llamafile_name(filename):
        title = GGUF_ONLY[engine]
        return f"the {title} reads .gguf files: expected self or llamafile"
    if not entry.get("engine") and "llama-server" in pinned:
        return ""
    if engine == "llamafile" and "llamafile" not in pinned:
        needed = "engines.llamafile needs url and version"
        return f"llamafile serves it, so {needed} (or: engine: embedded)"
    return ""


def _engine_entry_problems(name: str, entry: _Entry) -> Iterator[Problem]:
    url = entry.get("url")
    has_placeholder = isinstance(url, str) and "{version}" in url
    if entry.get("archives") and not url:
        has_placeholder = True  # in the default
    if entry.get("version") == LATEST and not has_placeholder:
        yield ("version",), "latest needs {version} in its url"
    if name not in ENGINES:
        hint = did_you_mean(name, ENGINES) or f"the engines are {', '.join(ENGINES)}"
        yield (), f"unknown engine; {hint}"
    elif name == "llama-server":
        yield from _release_problems(entry)
    else:
        for key in ("archives", "gpu", "path"):
            if entry.get(key):
                yield (key,), "only for the engine llama-server"


def _release_problems(entry: _Entry) -> Iterator[Problem]:
    """Yield conflicts between the keys that say where llama-server is."""
    for key in ("sha256", "size"):
        if entry.get(key):
            text = "each archive has its own, which `doit lock` writes to models.lock"
            yield (key,), text
    archives = entry.get("archives")
    if not archives:
        for key in ("url", "version", "mirrors", "gpu"):
            if entry.get(key):
                yield (key,), "requires archives"
    elif entry.get("path"):
        yield ("path",), "cannot be combined with archives: remove one of them"
    elif not entry.get("version"):
        yield ("version",), "this key is required: the release that has the archives"
    elif isinstance(archives, dict) and all(map(_is_text, archives.items())):
        yield from _archive_problems(entry)


def _is_text(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _archive_problems(entry: _Entry) -> Iterator[Problem]:
    """Yield archives whose URL has no name of a file, or of two of them the same."""
    urls = [entry.get("url") or "", *_list(entry, "mirrors")]
    if not _is_text(urls):
        return
    for index, url in enumerate(urls):
        key: Path = ("mirrors", str(index - 1)) if index else ("url",)
        if url and "{archive}" not in url:
            yield key, "needs {archive}, which an archive's name replaces"
    for file in engine_files(entry):
        problem = name_problem(filename_of(file.url))
        if problem:
            yield ("archives", file.variant), f"{file.url}: {problem}"


def _url_problems(entry: _Entry) -> Iterator[Problem]:
    pinned = bool(entry.get("sha256")) or _has_pinned_parts(entry)
    urls: list[tuple[Path, Any]] = [(("url",), entry.get("url"))]
    urls += [(("mirrors", str(i)), m) for i, m in enumerate(_list(entry, "mirrors"))]
    for path, url in urls:
        problem = url_error(url, pinned=pinned) if isinstance(url, str) else ""
        if problem:
            yield path, problem
    url = _url(entry)
    if not url or url_error(url, pinned=True):
        return
    filename = filename_of(url)
    if not filename:
        yield _url_key(entry), f"{url} has no file name"
    elif problem := name_problem(filename):
        yield _url_key(entry), f"{url}: {problem}"


def _has_pinned_parts(entry: _Entry) -> bool:
    parts = _list(entry, "parts")
    return bool(parts) and all(isinstance(p, dict) and p.get("sha256") for p in parts)


def _url(entry: _Entry) -> str:
    """Return an entry's URL; empty if it is malformed or missing."""
    values = [entry.get(key) for key in ("url", "hf", "file", "revision")]
    if not all(isinstance(value, (str, type(None))) for value in values):
        return ""
    return file_location(entry)[1]


def _url_key(entry: _Entry) -> Path:
    """Return the key that the entry's URL comes from."""
    return ("url",) if entry.get("url") else ("file",)


def _file_problems(entry: _Entry) -> Iterator[Problem]:
    """Yield conflicts between the keys that locate and pin a model's files."""
    yield from _location_problems(entry)
    yield from _companion_problems(entry)
    url = _url(entry)
    problem = split_error(url)
    if problem:
        yield _url_key(entry), problem
    yield from _part_problems(_list(entry, "parts"), split_count(url))
    yield from _whole_file_pins(entry, split_count(url))


def _companion_problems(entry: _Entry) -> Iterator[Problem]:
    for path, own in companions(entry):
        yield from _below(path, _location_problems(own))
        yield from _below(path, _url_problems(own))


def _part_problems(parts: list[Any], count: int) -> Iterator[Problem]:
    """Yield a wrong number of parts, and unpinned parts beside pinned ones."""
    if parts and not count:
        example = "NAME-00001-of-00002.gguf"
        yield ("parts",), f"only for a split GGUF, whose first file is named {example}"
    elif parts and len(parts) != count:
        yield (
            ("parts",),
            f"expected one for each of the {count} parts, got {len(parts)}",
        )
    digests = [part.get("sha256") for part in parts if isinstance(part, dict)]
    if not any(isinstance(digest, str) and is_sha256(digest) for digest in digests):
        return
    for index, digest in enumerate(digests):
        if not digest:
            path = ("parts", str(index), "sha256")
            yield path, "this key is required, because other parts have it"


def _whole_file_pins(entry: _Entry, count: int) -> Iterator[Problem]:
    """Yield a digest and a size that a split GGUF cannot have."""
    for key in ("sha256", "size"):
        if count and entry.get(key):
            text = f"a split GGUF has one for each of its {count} files"
            yield (key,), f"{text}, under `parts:`"


def _location_problems(entry: _Entry) -> Iterator[Problem]:
    """Yield violations of: either `url`, or `hf` and `file`."""
    has_url = entry.get("url") is not None
    repo = entry.get("hf")
    if has_url and repo:
        yield ("hf",), "cannot be combined with url: remove one of them"
    elif repo and not entry.get("file"):
        yield ("file",), "this key is required: the file in that repository"
    elif not has_url and not repo:
        yield ("url",), "this key is required (or hf and file instead)"
    for key in ("file", "revision"):
        if entry.get(key) and not repo:
            yield (key,), "requires hf"
