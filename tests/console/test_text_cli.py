"""Untrusted text is escaped for terminals and workflows (findings 21 and 24)."""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tasks.console.progress import TerminalProgress

from tests.console.test_ci import runner_sees
from tests.server.test_serve_cli import behave, with_llamafile
from tests.support.project import Project
from tests.support.servers import process, record, started
from tests.support.terminal import Typing

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

BAD = "\x1b]52;c;eA==\x07 \x9b31m \u202eabc\u200b"
SHOWN = r"\x1b]52;c;eA==\x07 \x9b31m \u202eabc\u200b"
GITHUB = {"CI": "true", "GITHUB_ACTIONS": "true"}
HOSTILE = f"T {BAD}\n::set-output name=x::y\n  ::error::no\nx ##[add-path]/tmp"


def raw(text: str) -> list[str]:
    """The characters in it that a terminal obeys, or that hide something."""
    return re.findall(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text
    )


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that gives these bytes to whatever is asked; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(65536)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_reports(project: Project) -> None:
    """Finding 21, 24: titles, licences and names of the catalogue; JSON keeps them as they are."""
    entry: dict[str, Any] = {"title": HOSTILE, "license": HOSTILE, "params": HOSTILE, "engine": "embedded"}
    project.catalogue({"m": {**project.entry("demo/demo.gguf"), **entry}})
    assert project.doit("download:m").status == 0
    for words in (["catalogue"], ["bom"], ["plan"], ["list", "--all"], ["audit"], ["lock"], ["prune", "-n"]):
        for env in ({}, GITHUB):
            result = project.doit(*words, env=env)
            text = result.out + result.err
            assert not raw(text), (words, text)
            assert not env or not runner_sees(result.out), (words, text)
            if words[0] in ("catalogue", "bom", "list"):
                assert r"\x1b]52;c;eA==" in text, words
    for words in (["catalogue", "--json"], ["bom", "--json"]):
        out = project.doit(*words, env=GITHUB).out
        assert not runner_sees(out)
        assert not raw(out)
        data = json.loads(out)
        assert words[0] == "bom" or data["models"][0]["title"] == HOSTILE


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(f"{BAD} 200 OK\r\n\r\n", id="no HTTP"),
        pytest.param(f"HTTP/1.1 2{BAD} OK\r\n\r\n", id="status line"),
        pytest.param(f"HTTP/1.1 418 {BAD}\r\nContent-Length: 0\r\n\r\n", id="reason"),
        pytest.param(
            f"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Encoding: {BAD}\r\n\r\n123456789", id="encoding"
        ),
        pytest.param(f"HTTP/1.1 302 Found\r\nLocation: ftp://{BAD}/\r\n\r\n", id="location"),
        pytest.param(
            f"HTTP/1.1 200 OK\r\nX-Repo-Commit: {BAD}\r\nX-Linked-Etag: \"{'ab' * 32}\"\r\n"
            "X-Linked-Size: 9\r\nContent-Length: 9\r\n\r\n", id="commit",
        ),
    ],
)  # fmt: skip
def test_what_a_server_says(project: Project, answer: str) -> None:
    """Finding 21: its status line, its headers, the places it sends to, in a download and in a lock."""
    with answering(answer.encode()) as port:
        entry = {"title": "T", "license": "MIT", "engine": "embedded"}
        url = f"http://127.0.0.1:{port}/x.gguf"
        project.catalogue({"m": {**entry, "url": url}, "h": {**entry, "hf": "o/r", "file": "x.gguf"}})
        env = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "LLAMAFILE_LOG": "text"}
        result = project.doit("lock", "--upgrade", "--model", "h", env=env, timeout=120)
        assert not raw(result.out + result.err), result
        if "418" in answer or "302" in answer:
            result = project.doit("download:m", env=env, timeout=120)
            assert not raw(result.out + result.err), result
            assert result.status == 1


def test_what_an_engine_prints(servers: Project) -> None:
    """Finding 21: its version, its last words, its log and its answers; a pipe gets these two unchanged."""
    with_llamafile(servers, version="0.10.5")
    behave(servers, version_status=3, version_text=BAD)
    result = servers.doit("verify")
    assert result.status == 1
    assert not raw(result.err)
    behave(servers, version_text=f"llamafile v0.10.5 {BAD}", answer=f"👩\u200d🚀 {BAD}")
    result = servers.doit("verify")
    assert "m: engine OK, llamafile v0.10.5 " in result.err
    assert not raw(result.err)
    started(servers, "--port", "0")
    with Path(record(servers)["log"]).open("a") as log:
        log.write(f"{BAD}\n")
    assert servers.doit("logs", "-n", "1").out == f"{BAD}\n"
    assert BAD in servers.doit("chat", "hi").out
    for words, shown in ((["logs", "-n", "1"], SHOWN), (["chat", "hi"], f"👩\u200d🚀 {SHOWN}")):
        with Typing(servers, *words) as typing:
            status = typing.finish()
        assert status == 0
        assert shown in typing.shown
        assert not raw(typing.shown.replace("\u200d", "").replace("\r", "")), words


def test_the_name_of_a_file_of_ones_own(project: Project) -> None:
    """Finding 21: in the table of `doit plan`, in errors, and as an event."""
    path = project.path / f"a{BAD}.gguf"
    path.write_bytes((project.path / "demo" / "demo.gguf").read_bytes())
    for words in (
        ["plan", "--engine", "embedded"],
        ["serve", "--engine", "llamafile"],
        ["verify", "--engine", "self"],
    ):
        result = project.doit(*words, "--llamafile", str(path))
        assert not raw(result.out + result.err), result
    result = project.doit("serve", "--llamafile", f"{path}x", env={"LLAMAFILE_LOG": "json"})
    assert all(json.loads(line) for line in result.err.splitlines())


@pytest.mark.skipif(sys.platform != "linux", reason="a process names itself by /proc")
def test_the_name_of_a_strangers_process(servers: Project) -> None:
    """Finding 21: the error names the process that has the port."""
    with_llamafile(servers, version="0.10.5")
    code = (
        "import socket; open('/proc/self/comm', 'w').write('\\x1b]52;x\\x07'); "
        "s = socket.create_server(('127.0.0.1', 0)); print(); print(s.getsockname()[1], flush=True)"
    )
    with process(code) as other:
        assert other.stdout
        port = int(other.stdout.readline())
        result = servers.background("start", "--port", str(port))
    assert result.status == 1
    assert not raw(result.err)
    assert r"\x1b]52;x\x07" in result.err


def test_the_bar() -> None:
    """Finding 21: a label and a note stay on their line, and are no markup."""
    bar = TerminalProgress(f"[red]{BAD}\n", 0)
    bar.update(1, 2, f"{BAD}\n")
    [task] = bar._bar.tasks
    assert (task.description, task.fields["note"]) == (f"[red]{SHOWN}\\x0a", f"{SHOWN}\\x0a")
