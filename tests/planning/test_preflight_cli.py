"""What cannot work is refused before the first byte; a large download is announced and asked for."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.llamafile import gguf
from tests.fakes.server import FileServer
from tests.server.test_serve_cli import with_gguf, with_llamafile
from tests.support.project import REPO, Project
from tests.support.servers import failed, two_models
from tests.support.terminal import Typing, on_terminal
from tests.support.users import AsUser

DATA = gguf(3_000_000)
DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
HUGE: dict[str, Any] = {"params": "900000B", "serve": {"ctx_size": 1_000_000}}
PREFLIGHT = "tasks/planning/preflight.py"

posix = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals and fake engines are POSIX")
installed = pytest.mark.skipif(sys.platform == "win32", reason="fake engines are POSIX")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files |= {f"/{name}.gguf": DATA for name in "mno"}
        yield server


def catalogue(project: Project, server: FileServer, names: str = "m", **more: Any) -> Project:
    """Write models of the file server; `m` is the default."""
    entries = {
        name: {**project.entry(server.url(f"/{name}.gguf"), DATA, engine="embedded"), **more}
        for name in names
    }
    project.catalogue(entries)
    return project


def untouched(project: Project, server: FileServer) -> bool:
    """Whether no byte came and none was asked for."""
    return not server.requests and not (project.cache / "models").exists()


# What cannot work


@pytest.mark.parametrize(
    "command", [["serve"], ["start"], ["with", "--", "true"], ["chat", "--model", "m", "Hello"]], ids=" ".join
)
def test_too_little_memory(project: Project, server: FileServer, command: list[str]) -> None:
    """Issue 14.2: every verb that serves says what `plan` says, and downloads nothing."""
    catalogue(project, server, **HUGE)
    said = failed(project.doit(*command))
    assert "cannot work: m needs " in said
    assert "  --force tries it nevertheless" in said
    [planned] = [line for line in project.doit("plan").out.splitlines() if "cannot work" in line]
    assert planned.strip() in said
    assert untouched(project, server)


def test_the_order_of_the_checks(project: Project, server: FileServer) -> None:
    """Issue 14.2: what cannot work at all, then what can be chosen, as the port; the question is last."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        catalogue(project, server, **HUGE)
        assert "cannot work: m needs " in failed(project.doit("serve", "--port", port))
        used = f"port {port} on 127.0.0.1 is in use"
        assert used in failed(project.doit("serve", "--port", port, "--force"))
        url = server.url("/else/m.gguf")
        other = project.doit("serve", "--port", port, "--force", "--llamafile-url", url)
        assert used in failed(other)
        asked = project.doit("serve", "--port", "0", "--force", "--llamafile-url", url)
        assert "pass --yes to confirm" in failed(asked)
    assert untouched(project, server)


def test_memory_is_for_servers(project: Project, server: FileServer) -> None:
    """Issue 14.2: another machine may serve what this one downloads."""
    catalogue(project, server, **HUGE)
    assert project.doit("download").status == 0


def test_a_context_that_does_not_fit(project: Project) -> None:
    """Issue 14.2: the metadata of a file on this machine decides."""
    said = failed(project.doit("serve", "--model", "demo", "--port", "0", "--ctx-size", "100000000"))
    assert "cannot work: demo needs " in said
    assert "a smaller --ctx-size" in said


@installed
def test_force_goes_on(project: Project) -> None:
    """Issue 14.2: the estimate may be wrong."""
    with_llamafile(project, ram=10**6)
    assert "cannot work: m needs 1000000.0 GB of memory" in failed(project.doit("with", "--", "true"))
    assert project.doit("with", "--force", "--", "true").status == 0


@pytest.mark.parametrize("command", [["download"], ["serve"], ["start"], ["verify"]], ids=" ".join)
def test_too_little_disk(project: Project, server: FileServer, command: list[str]) -> None:
    """Issue 14.2: all files together, before the first byte of any."""
    catalogue(project, server, size=10**16)
    port = ["--port", "0"] if command[0] in ("serve", "start") else []
    said = failed(project.doit(*command, *port))
    assert "cannot work: the disk has " in said
    assert " are missing for 10" in said
    assert untouched(project, server)


def test_plans_numbers_of_a_short_disk(project: Project, server: FileServer) -> None:
    """Issue 14.2: no negative number of bytes."""
    catalogue(project, server, size=10**16)
    shown = project.doit("plan")
    assert shown.status == 1
    [disk] = [line for line in shown.out.splitlines() if line.startswith("disk ")]
    assert " free, too little for 10" in disk
    assert json.loads(project.doit("plan", "--json").out)["disk"]["afterwards"] == 0


def test_plan_of_a_cache_that_cannot_be_written(shared: Project, user: AsUser, server: FileServer) -> None:
    """Issue 14.2: a file that is not here cannot be put there."""
    shared.cache.mkdir(mode=0o755)
    catalogue(shared, server)
    shown = user(0).doit("plan")
    assert shown.status == 1
    assert f"cannot work: cannot write to the cache {shared.cache}: Permission denied" in shown.out


# The question


def ask_above(project: Project, count: int) -> None:
    project.set_constant(PREFLIGHT, "LARGE", count)


@posix
@pytest.mark.parametrize("command", [["download"], ["serve", "--port", "0"]], ids=" ".join)
def test_no_downloads_nothing(project: Project, server: FileServer, command: list[str]) -> None:
    """Issue 14.2: size and disk are shown, and nothing is asked of the server before the answer."""
    ask_above(catalogue(project, server), 1_000_000)
    result = on_terminal(project, *command, typed="n\n")
    assert result.status == 1
    assert "m: 3.00 MB from 127.0.0.1" in result.err
    assert "to download: 3.00 MB; " in result.err
    assert result.err.count("Download? [y/N]") == 1
    assert "cancelled: nothing was downloaded" in result.err
    assert untouched(project, server)


@posix
def test_ctrl_c_at_the_question(project: Project, server: FileServer) -> None:
    """Issue 14.2: one word on a line of its own, and nothing was begun that could be resumed."""
    ask_above(catalogue(project, server), 1_000_000)
    with Typing(project, "download") as terminal:
        terminal.wait_for("Download? [y/N] ")
        terminal.type("\x03")
        assert terminal.finish() == 130
        assert terminal.shown.splitlines()[-1:] == ["Interrupted."]
    assert untouched(project, server)


@posix
def test_one_question_for_all_files(project: Project, server: FileServer) -> None:
    """Issue 14.2: and the next one knows how fast the last download was."""
    ask_above(catalogue(project, server, "mno"), 1_000_000)
    project.set_constant("tasks/cache/rate.py", "MIN_BYTES", 1_000_000)
    result = on_terminal(project, "download", "--model", "m", "--model", "n", typed="y\n")
    assert result.status == 0, result.err
    assert result.err.count("[y/N]") == 1
    assert "to download: 6.00 MB; " in result.err
    assert json.loads((project.cache / "rate.json").read_text())["bytes_per_s"] > 0
    (project.cache / "rate.json").write_text('{"bytes_per_s": 1000000}')
    again = on_terminal(project, "download:o", typed="n\n")
    assert "to download: 3.00 MB, about 3.0 s at the rate of the last download; " in again.err


@posix
@pytest.mark.parametrize(("words", "env"), [(["--yes"], {}), ([], {"CI": "true"})], ids=["--yes", "CI"])
def test_not_asked(project: Project, server: FileServer, words: list[str], env: dict[str, str]) -> None:
    """Issue 14.2: nobody is there to answer, or the answer is known."""
    ask_above(catalogue(project, server), 1_000_000)
    result = on_terminal(project, "download", *words, env=env)
    assert result.status == 0, result.err
    assert "[y/N]" not in result.err


def test_not_asked_without_a_terminal(project: Project, server: FileServer) -> None:
    """Issue 14.2: a script goes on."""
    ask_above(catalogue(project, server), 1_000_000)
    assert project.doit("download").status == 0


@posix
def test_a_small_download_is_not_asked_for(project: Project, server: FileServer) -> None:
    """Issue 14.2: 3 MB are no surprise."""
    result = on_terminal(catalogue(project, server), "download")
    assert (result.status, "[y/N]" in result.err) == (0, False)


@posix
@pytest.mark.parametrize("command", [["download"], ["chat", "m", "Hello"]], ids=" ".join)
def test_an_unknown_size_is_asked_for(project: Project, server: FileServer, command: list[str]) -> None:
    """Issue 14.2: it may be large; most entries of the catalogue state no size."""
    pinned = project.entry(server.url("/m.gguf"), DATA, engine="embedded")
    project.catalogue({"m": {key: value for key, value in pinned.items() if key != "size"}})
    result = on_terminal(project, *command, typed="n\n")
    assert result.status == 1
    assert "m: unknown size from 127.0.0.1" in result.err
    assert "to download: unknown size; " in result.err
    assert result.err.count("Download? [y/N]") == 1
    assert untouched(project, server)


@posix
def test_another_url_and_the_size_are_one_question(project: Project, server: FileServer) -> None:
    """Issue 14.2, R4: both are said, and one answer is enough."""
    ask_above(catalogue(project, server), 1_000_000)
    server.files["/else/m.gguf"] = DATA
    url = server.url("/else/m.gguf")
    result = on_terminal(project, "download", "--llamafile-url", url, typed="y\n")
    assert result.status == 0, result.err
    assert "to download: 3.00 MB; " in result.err
    assert result.err.count("[y/N]") == 1
    assert "Download from the requested URL? [y/N]" in result.err


# `doit chat` without a name


def test_chat_does_not_download_by_surprise(project: Project, server: FileServer) -> None:
    """Issue 14.2: the error names both ways on."""
    catalogue(project, server)
    said = failed(project.doit("chat", "Hello"))
    why = "is not here (3.00 MB); `doit chat` downloads it only with --yes\n  fix: doit download m\n"
    assert f"no server runs, and the default model m {why}" in said
    for words in (["--model", "m", "Hello"], ["m", "Hello"]):
        assert failed(project.doit("chat", *words)) == f"ERROR: m {why}"
    assert untouched(project, server)
    project.doit("chat", "m", "--yes", "Hello")
    assert server.asked("/m.gguf")


@posix
def test_chat_asks_on_a_terminal(project: Project, server: FileServer) -> None:
    """Issue 14.2: whatever the size."""
    result = on_terminal(catalogue(project, server), "chat", "m", "Hello", typed="n\n")
    assert result.status == 1
    assert "to download: 3.00 MB; " in result.err
    assert untouched(project, server)


@installed
def test_chat_takes_the_model_that_is_here(project: Project, server: FileServer) -> None:
    """Issue 14.2: it says so; of several it takes none."""
    two_models(project)
    models = json.loads((project.path / "models.yaml").read_text())["models"]
    models["m"] = project.entry(server.url("/m.gguf"), DATA, engine="embedded")
    project.catalogue(models, default="m")
    assert project.doit("download:b").status == 0
    result = project.doit("chat", "Hello")
    assert (result.status, result.out) == (0, "Hello\n"), result.err
    assert "b answers: it is here, and the default model m is not" in result.err
    assert project.doit("download:a").status == 0
    said = failed(project.doit("chat", "Hello"), 3)
    assert "the default model m is not here, and several others are: a, b" in said
    assert said.endswith("  fix: doit chat a\n")
    assert not server.requests


# The engine for a file of one's own


class Absent(MetaPathFinder):
    """Finds no xllamacpp, wherever it is installed."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "xllamacpp":
            raise ModuleNotFoundError(name)


@pytest.fixture
def without_xllamacpp(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A Python in which the package is not installed."""
    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    (project.path / "own.gguf").write_bytes(DEMO)
    return project


def test_what_is_installed_serves_it(project: Project) -> None:
    """Issue 14.3: no second engine is downloaded."""
    pytest.importorskip("xllamacpp")
    (project.path / "own.gguf").write_bytes(DEMO)
    result = project.doit("verify", "--llamafile", "own.gguf", env={"LLAMAFILE_OFFLINE": "1"})
    assert result.status == 0, result.err
    assert "own: engine OK, embedded" in result.err


def test_a_catalogued_gguf_is_as_in_git(project: Project) -> None:
    """Issue 14.3: what is installed does not change the graph of a catalogue."""
    with_gguf(project)
    labels = [row["file"] for row in json.loads(project.doit("plan", "--json").out)["files"]]
    assert labels == ["g", "llamafile 0.10.5"]


def test_what_would_be_fetched_is_said(without_xllamacpp: Project, server: FileServer) -> None:
    """Issue 14.3: before it is fetched, and in each error."""
    project = without_xllamacpp
    engine = {"title": "llamafile", "license": "Apache-2.0", "version": "0.10.5"}
    pin = {"url": server.url("/llamafile"), "sha256": "0" * 64, "size": 351_000_000}
    entry = project.entry(server.url("/m.gguf"), DATA)
    project.catalogue({"m": entry}, {"llamafile": {**engine, **pin}})
    said = project.doit("verify", "--llamafile", "own.gguf").err
    needs = "own needs the llamafile engine (351.0 MB), or pip install '.[embedded]'"
    assert said.index(needs) < said.index("ERROR: ")
    fix = "--engine embedded serves a .gguf without it (pip install '.[embedded]')"
    assert fix in said
    offline = project.doit("serve", "--llamafile", "own.gguf", env={"LLAMAFILE_OFFLINE": "1"})
    assert fix in failed(offline)


def test_add_writes_what_is_installed(without_xllamacpp: Project, tmp_path: Path) -> None:
    """No xllamacpp, llama-server on PATH: no llamafile is downloaded, and `demo` cannot answer."""
    project = without_xllamacpp
    program = tmp_path / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    project.env["PATH"] = f"{tmp_path}{os.pathsep}{project.env['PATH']}"
    assert "fix: pip install '.[embedded]', or --engine llama-server\n" in project.doit("plan", "demo").out
    assert "answers at once" not in project.doit().out
    added = project.doit("add", "own.gguf", "--license", "MIT")
    assert "    engine: llama-server\n" in added.out
    files = json.loads(project.doit("plan", "own", "--json").out)["files"]
    assert [row["file"] for row in files] == ["own"]
    assert re.search('doit chat own "What are you.".* answers at once', project.doit().out)


def test_an_engine_that_is_not_installed(without_xllamacpp: Project, server: FileServer) -> None:
    """Issue 14.2: `plan` says so, and `serve` before it downloads."""
    project = catalogue(without_xllamacpp, server)
    shown = project.doit("plan")
    what = "cannot work: m: the embedded engine needs the package xllamacpp"
    assert (shown.status, what in shown.out) == (1, True)
    assert what in failed(project.doit("serve"))
    assert untouched(project, server)


# Remedies


def test_a_path_that_does_not_exist(project: Project) -> None:
    """Issue 14.2: most often it is misspelt."""
    said = failed(project.doit("serve", "--llamafile", "nothere.gguf"))
    assert "fix: check the path, or say where to download it from: --llamafile-url URL" in said


def test_a_name_that_cannot_be_resolved(project: Project) -> None:
    """Issue 14.2: the network or the proxy is the cause, and `doit doctor` finds which."""
    project.set_constant("tasks/network/response.py", "RETRIES", 1)
    project.catalogue({"m": project.entry("https://models.invalid/m.gguf", DATA, engine="embedded")})
    said = failed(project.doit("download"))
    assert "cannot resolve models.invalid; check the network or the proxy: `doit doctor`" in said
    assert "  fix: check the network or the proxy: `doit doctor`" in said


def test_a_file_that_is_gone(project: Project, server: FileServer) -> None:
    """Issue 14.2: the URL is what can be corrected."""
    catalogue(project, server)
    server.files.clear()
    said = failed(project.doit("download"))
    assert "  fix: the file is gone, or the URL is misspelt: correct it, or add a mirror" in said
