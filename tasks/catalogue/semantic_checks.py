"""What the types of models.yaml cannot say: names that clash, URLs, engines and files that do not fit.

Pure, on plain data that may be malformed: what is, the types have reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.catalogue.engine_args import instead_of
from tasks.catalogue.file_specs import located, projector, split_count, split_problem
from tasks.catalogue.types import ENGINES, LATEST, hex64
from tasks.errors import did_you_mean
from tasks.system.paths import name_problem
from tasks.urls import filename_of, url_problem

Path = tuple[str, ...]
Problem = tuple[Path, str]


def _entries(plain: Mapping[str, Any], key: str) -> dict[str, Mapping[str, Any]]:
    """The well-formed entries of one table; the malformed are reported by type."""
    table = plain.get(key)
    if not isinstance(table, dict):
        return {}
    return {str(name): entry for name, entry in table.items() if isinstance(entry, dict)}


def sense_problems(plain: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong, each with the path of its key."""
    models, engines = _entries(plain, "models"), _entries(plain, "engines")
    taken: dict[str, str] = {}
    problems = [p for name, entry in models.items() for p in _name_problems(name, entry, taken)]
    for table, entries in (("models", models), ("engines", engines)):
        for name, entry in entries.items():
            problems += [((table, name, *at), text) for at, text in _url_problems(entry)]
    for name, entry in models.items():
        problems += [(("models", name, *at), text) for at, text in _file_problems(entry)]
        problems += [
            (("models", name, "serve", *at), text) for at, text in _args_problems(entry.get("serve"))
        ]
    problems += [(("defaults", *at), text) for at, text in _args_problems(plain.get("defaults"))]
    program = engines.get("llamafile", {})
    for name, entry in models.items():
        text = _engine_problem(entry, bool(program.get("url") and program.get("version")))
        if text:
            problems.append((("models", name, "engine"), text))
    for name, engine in engines.items():
        latest, url = engine.get("version") == LATEST, engine.get("url")
        if latest and not (isinstance(url, str) and "{version}" in url):
            problems.append((("engines", name, "version"), "latest needs {version} in its url"))
        if name not in ENGINES:
            hint = did_you_mean(name, ENGINES) or f"the engines are {', '.join(ENGINES)}"
            problems.append((("engines", name), f"unknown engine; {hint}"))
    default = plain.get("default")
    if isinstance(default, str) and default.lower() not in taken:
        near = did_you_mean(default, list(taken))
        problems.append((("default",), f"there is no model {default!r}; {near}"))
    return problems


def _name_problems(name: str, entry: Mapping[str, Any], taken: dict[str, str]) -> Iterator[Problem]:
    aliases = entry.get("aliases")
    listed = aliases if isinstance(aliases, list) else []
    for index, word in enumerate((name, *listed)):
        path = ("models", name) if index == 0 else ("models", name, "aliases", str(index - 1))
        if not isinstance(word, str):
            continue
        if word.lower() in taken:
            yield path, f"the name {word!r} is taken by models.{taken[word.lower()]}"
        taken.setdefault(word.lower(), name)


def _args_problems(settings: Any) -> Iterator[Problem]:
    """The arguments that open or change what other keys say, or that no engine can be given."""
    args = settings.get("args") if isinstance(settings, dict) else None
    for index, word in enumerate(args if isinstance(args, list) else ()):
        found = instead_of(word) if isinstance(word, str) else None
        if found:
            yield ("args", str(index)), f"{found[0]} is not an argument for args; use {found[1].key}"
        elif isinstance(word, str) and "\0" in word:
            yield ("args", str(index)), "no program can be given an argument with a NUL in it"


def _engine_problem(entry: Mapping[str, Any], has_program: bool) -> str:
    """Why a model's engine cannot serve its file."""
    url = _url(entry)
    gguf = url.endswith(".gguf")
    engine = entry.get("engine") or ("llamafile" if gguf else "self")
    if engine == "self" and gguf:
        return "a .gguf is no program: expected llamafile or embedded"
    if engine == "embedded" and url.endswith(".llamafile"):
        return "the embedded engine reads .gguf files: expected self or llamafile"
    if engine == "llamafile" and not has_program:
        return "llamafile serves it, so engines.llamafile needs url and version (or: engine: embedded)"
    return ""


def _url_problems(entry: Mapping[str, Any]) -> Iterator[Problem]:
    parts = entry.get("parts")
    split = isinstance(parts, list) and parts and all(isinstance(p, dict) and p.get("sha256") for p in parts)
    pinned = bool(entry.get("sha256") or split)
    mirrors = entry.get("mirrors")
    listed = list(enumerate(mirrors)) if isinstance(mirrors, list) else []
    places = [(("url",), entry.get("url")), *((("mirrors", str(i)), m) for i, m in listed)]
    for path, url in places:
        problem = url_problem(url, pinned=pinned) if isinstance(url, str) else ""
        if problem:
            yield path, problem
    url, key = _url(entry), "url" if entry.get("url") else "file"
    if url and not url_problem(url, pinned=True):
        if not filename_of(url):
            yield (key,), f"{url} has no file name"
        elif problem := name_problem(filename_of(url)):
            yield (key,), f"{url}: {problem}"


def _url(entry: Mapping[str, Any]) -> str:
    """Where a file is; nothing where that is malformed or not said."""
    words = [entry.get(key) for key in ("url", "hf", "file", "revision")]
    return located(entry)[1] if all(isinstance(word, (str, type(None))) for word in words) else ""


def _file_problems(entry: Mapping[str, Any]) -> Iterator[Problem]:
    """What does not fit together in the keys that say where a model's files are."""
    yield from _place_problems(entry)
    own = entry.get("mmproj")
    if isinstance(own, dict):
        eyes = projector(entry)
        yield from ((("mmproj", *at), text) for at, text in (*_place_problems(eyes), *_url_problems(eyes)))
    url, parts = _url(entry), entry.get("parts")
    count = split_count(url)
    if problem := split_problem(url):
        yield ("url",) if entry.get("url") else ("file",), problem
    if isinstance(parts, list) and parts and len(parts) != count:
        yield (
            ("parts",),
            f"expected one for each of the {count} parts, got {len(parts)}"
            if count
            else ("these are for a split GGUF, whose first file is called NAME-00001-of-00002.gguf"),
        )
    yield from _part_problems(parts)
    for key in ("sha256", "size"):
        if count and entry.get(key):
            yield (key,), f"a split GGUF has one for each of its {count} files, under `parts:`"


def _part_problems(parts: object) -> Iterator[Problem]:
    """Parts without a digest beside parts that have one: what is not pinned could be anything."""
    listed = parts if isinstance(parts, list) else []
    digests = [part.get("sha256") for part in listed if isinstance(part, dict)]
    if any(isinstance(digest, str) and hex64(digest) for digest in digests):
        for index, digest in enumerate(digests):
            if not digest:
                yield ("parts", str(index), "sha256"), "this key is needed, for the other parts have it"


def _place_problems(entry: Mapping[str, Any]) -> Iterator[Problem]:
    """Either `url`, or `hf` and `file`."""
    url, hub = entry.get("url") is not None, entry.get("hf")
    if url and hub:
        yield ("hf",), "url says already where the file is: leave one of the two away"
    elif hub and not entry.get("file"):
        yield ("file",), "this key is needed: the file in that repository"
    elif not url and not hub:
        yield ("url",), "this key is needed (or in its place: hf and file)"
    for key in ("file", "revision"):
        if entry.get(key) and not hub:
            yield (key,), "belongs to hf, and there is none"
