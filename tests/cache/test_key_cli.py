"""`doit cache-key`: a key a line, and what a workflow of GitHub's gets."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.llamafile import gguf
from tests.fakes.server import FileServer
from tests.support.project import Project, Result
from tests.support.servers import failed

A, B, PROGRAM = gguf(25), gguf(26), b"#!/bin/sh\n"


def pinned(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


ENGINES = {
    "llamafile": {
        "title": "l", "license": "MIT", "version": "0.10.5", "url": "https://example.org/l", **pinned(PROGRAM)
    },
    "embedded": {"title": "e", "license": "MIT"},
}  # fmt: skip


def write(project: Project, *names: str, engines: Any = ENGINES, **more: Any) -> None:
    """A catalogue of `own` (its own program), `emb` (embedded) and `gguf` (llamafile's program)."""
    models = {
        "own": project.entry("https://example.org/own.llamafile", A, aliases=["mine"]),
        "emb": project.entry("https://example.org/emb.gguf", B, engine="embedded"),
        "gguf": project.entry("https://example.org/emb.gguf", B),
    }
    project.catalogue({n: {**models[n], **more} for n in names or models}, engines, default="own")


def keys(result: Result) -> list[str]:
    assert (result.status, result.err) == (0, ""), result
    return result.out.splitlines()


def of(project: Project, *names: str, env: dict[str, str] | None = None) -> list[str]:
    """The keys of models."""
    return keys(project.doit("cache-key", *(word for name in names for word in ("--model", name)), env=env))


def outputs(path: Path) -> dict[str, str]:
    """The values in $GITHUB_OUTPUT or $GITHUB_ENV, as the runner reads them."""
    text, found = path.read_text("utf-8"), {}
    while text:
        head = re.match(r"([\w-]+)<<(\S+)\n", text)
        assert head, text
        value, _, text = text[head.end() :].partition(f"\n{head[2]}\n")
        found[head[1]] = value
    return found


def test_a_key_a_line(project: Project) -> None:
    """Issue 5.9: the default model's, several, by alias; the same bytes with a program are another key."""
    write(project)
    own, gguf, emb = of(project, "mine", "gguf", "emb", "own")
    assert keys(project.doit("cache-key")) == keys(project.doit("cache-key:own")) == [own]
    assert all(
        re.fullmatch(rf"llamafile-recipe-{name}-[0-9a-f]{{16}}", key)
        for name, key in (("own", own), ("gguf", gguf), ("emb", emb))
    )
    assert gguf[-16:] != emb[-16:]
    assert not project.cache.joinpath("models").exists()


def test_what_changes_a_key_and_what_does_not(project: Project, tmp_path: Path) -> None:
    """Issue 5.9: titles, settings, order and the cache's path do not; the bytes of a program do."""
    write(project)
    before = of(project, "own", "gguf")
    write(project, "gguf", "emb", "own", title="Another", serve={"ctx_size": 1}, license="Apache-2.0")
    env = {"LLAMAFILE_CACHE": str(tmp_path / "elsewhere")}
    assert of(project, "own", "gguf", env=env) == before
    other = {**ENGINES, "llamafile": {**ENGINES["llamafile"], **pinned(A)}}
    write(project, engines=other)
    own, gguf = of(project, "own", "gguf")
    assert own == before[0]
    assert gguf != before[1]


def test_windows_needs_more_for_a_llamafile(project: Project) -> None:
    """Issue 5.9, R9: the platform is in a key only where it changes what is fetched."""
    from tasks.cache.key import cache_key
    from tasks.catalogue.environment import Environment
    from tasks.catalogue.resolve import Resolution
    from tasks.command_line import CommandLine
    from tasks.context import Context
    from tasks.verbs.cache_key import _files

    from tests.support.catalogues import catalogue, edited

    text = edited("license: Apache-2.0\n", f"license: Apache-2.0\n    sha256: {'c' * 64}\n")
    text = edited("mirrors:", f"engine: embedded\n    sha256: {'d' * 64}\n    mirrors:", text)
    found: dict[str, list[str]] = {}
    for platform in ("linux", "darwin", "win32"):
        environment = Environment(platform, "/c", "/r", "/r")
        context = Context(catalogue(text), environment, CommandLine(), Resolution({}, (), {}))
        for name in ("tiny", "big"):
            found.setdefault(name, []).append(cache_key(name, _files(context, name)))
    linux, mac, windows = found["tiny"]
    assert linux == mac != windows
    assert len(set(found["big"])) == 1


def test_json(project: Project) -> None:
    """Issue 5.9: for programs: model, key, paths, bytes."""
    write(project)
    for words in (["cache-key", "--json", "--model", "gguf"], ["cache-key:gguf", "--json"]):
        [row] = json.loads(project.doit(*words).out)
        folder = project.target(B, "emb.gguf").parent
        program = project.program(PROGRAM, "llamafile-0.10.5").parent
        assert row == {
            "model": "gguf",
            "key": keys(project.doit("cache-key:gguf"))[0],
            "path": [str(folder), str(program)],
            "size": len(B) + len(PROGRAM),
        }


@pytest.mark.parametrize("what", ["model", "program"])
def test_what_nothing_pins(project: Project, what: str) -> None:
    """Issue 5.9: no stable key: status 1, and the command that pins it; GitHub gets nothing."""
    engine = {k: v for k, v in ENGINES["llamafile"].items() if k not in ("sha256", "size")}
    write(project, engines={**ENGINES, "llamafile": engine} if what == "program" else ENGINES)
    if what == "model":
        project.catalogue({"gguf": project.entry("https://example.org/x.gguf", engine="embedded")}, ENGINES)
    output = project.path / "output"
    error = failed(project.doit("cache-key", "--model", "gguf", env={"GITHUB_OUTPUT": str(output)}))
    assert f"{'llamafile 0.10.5' if what == 'program' else 'gguf'} has no digest" in error
    named = "llamafile" if what == "program" else "gguf"
    assert f"fix: `doit lock --model {named}`, and commit models.lock" in error
    assert not output.exists()


def test_the_lock_pins(project: Project) -> None:
    """Issue 5.9: with the digest in models.lock there is a key, the same as with it in models.yaml."""
    with FileServer() as server:
        server.files["/own.gguf"] = B
        entry = project.entry(server.url("/own.gguf"), engine="embedded")
        project.catalogue({"own": entry}, ENGINES)
        assert "fix: `doit lock --model own`, and commit models.lock" in failed(project.doit("cache-key"))
        locked = project.doit("lock", "--model", "own", "--download")
        assert locked.status == 0, locked.err
    key = keys(project.doit("cache-key"))
    project.catalogue({"own": {**entry, **pinned(B)}}, ENGINES)
    (project.path / "models.lock").unlink()
    assert keys(project.doit("cache-key")) == key


def test_an_unknown_model(project: Project) -> None:
    """R28: the nearest spelling, and status 3."""
    write(project)
    assert "did you mean gguf?" in failed(project.doit("cache-key", "--model", "guf"), 3)


def test_github(project: Project) -> None:
    """Issue 5.9: outputs of any number of lines, behind what is there; a cache under HOME is named by ~."""
    write(project)
    output, env = project.path / "output", project.path / "env"
    output.write_text("")
    more = {"GITHUB_OUTPUT": str(output), "GITHUB_ENV": str(env)}
    home = {"LLAMAFILE_CACHE": f"{project.env['HOME']}/.cache/l"}
    own, gguf = of(project, "own", "gguf", env={**more, **home})
    found = outputs(output)
    path_1 = f"~/.cache/l/models/{pinned(A)['sha256'][:16]}"
    path_2 = f"~/.cache/l/models/{pinned(B)['sha256'][:16]}"
    path_2 += f"\n~/.cache/l/engines/{pinned(PROGRAM)['sha256'][:16]}"
    assert re.fullmatch("llamafile-recipe-models-[0-9a-f]{16}", found.pop("key"))
    assert found == {
        "key-1": own, "path-1": path_1, "key-2": gguf, "path-2": path_2,
        "path": f"{path_1}\n{path_2}", "models": "own gguf",
    }  # fmt: skip
    assert outputs(env) == {"LLAMAFILE_CACHE": home["LLAMAFILE_CACHE"]}
    output.write_text("")
    keys(project.doit("cache-key:own", env=more))
    found = outputs(output)
    assert (found["key"], found["path"]) == (own, str(project.target(A, "own.llamafile").parent))


def test_more_than_github_keeps(project: Project) -> None:
    """Issue 5.9: 10 GB per repository: a warning, on stderr."""
    write(project, size=11 * 1024**3)
    result = project.doit("cache-key", env={"GITHUB_OUTPUT": str(project.path / "output")})
    assert result.status == 0
    assert result.err.startswith("warning: 11.8 GB in all, and GitHub keeps 10 GB of a repository's caches")
    assert keys(project.doit("cache-key"))
