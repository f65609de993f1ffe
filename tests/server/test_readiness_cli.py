"""Ready means ready: it lives and answers, the port is its own, and with --probe it has generated."""

from __future__ import annotations

import http.server
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from tests.server.test_serve_cli import ask, behave, serving, with_llamafile
from tests.support.ports import free_port
from tests.support.project import Project, wait_until
from tests.support.servers import engines, failed, records

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

LOAD_S = 1.5
WORDS = {"with": ["with", "--", "touch", "ran"], "chat": ["chat", "Hello"]}
NO_GPU = "warning: no usable GPU found, --gpu-layers option will be ignored"  # llama.cpp common/arg.cpp


def assert_clean(project: Project) -> None:
    """Check that no server runs or is recorded, and that no command has run."""
    assert not project.processes()
    assert not records(project)
    assert not (project.path / "ran").exists()


@pytest.mark.parametrize(
    "version", [pytest.param("0.10.5", id="503 at first"), pytest.param("0.8.6", id="refused at first")]
)
def test_it_takes_its_time_to_load(project: Project, version: str) -> None:
    """Issue 4.5: an engine may bind before it loads or after it; it is not ready before it can answer."""
    with_llamafile(project, version=version)
    behave(project, load_seconds=LOAD_S)
    with serving(project, "serve", "--port", "0", "--probe") as (running, url):
        found = re.search(r"is ready at \S+ after ([\d.]+) s", running.err)
        assert found
        assert float(found[1]) >= LOAD_S
        assert ask(url, "Hello") == "Hello"
    assert_clean(project)


def by_me() -> str:
    """How an error names this process, where the system tells who listens (macOS: only root)."""
    try:
        psutil.net_connections("tcp")
    except psutil.Error:
        return ""
    return f" by {psutil.Process().name()} (pid {os.getpid()})"


class _Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def stranger(port: int) -> Iterator[None]:
    """A server of this process that answers 200 to everything."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), _Stranger) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


@pytest.mark.parametrize("version", ["0.8.6", "0.9.3"])
def test_it_hops_to_the_next_port(project: Project, version: str) -> None:
    """Issue 4.5, R23: the port was taken after our look at it; the old ones take the next without a word."""
    with_llamafile(project, version=version)
    behave(project, load_seconds=3)
    port = free_port()
    with project.start("serve", "--port", str(port), "--timeout", "100") as running:
        running.wait_for("starting m", 60)
        with socket.create_server(("127.0.0.1", port), backlog=100):  # and it never answers
            said = failed(running.finish(90))
    assert f"ERROR: m listens on another port than {port}, which another program uses{by_me()}" in said
    assert "fix: use --port 0 for a free one" in said
    assert_clean(project)


def test_a_stranger_answers(project: Project) -> None:
    """Issue 4.5, R23: a 200 from another program on that port is not our engine's."""
    with_llamafile(project)
    behave(project, load_seconds=60)
    port = free_port()
    with project.start("serve", "--port", str(port), "--timeout", "100") as running:
        running.wait_for("starting m", 60)
        with stranger(port):
            said = failed(running.finish(90))
    assert f"another program answers on port {port}{by_me()}" in said
    assert "fix: use --port 0 for a free one" in said
    assert_clean(project)


@pytest.mark.parametrize("verb", WORDS)
def test_it_crashes_while_it_loads(project: Project, verb: str) -> None:
    """Issue 4.5, R26: what has died is not waited for; its last words and its status are shown."""
    with_llamafile(project)
    behave(project, crash={"text": "bad luck", "status": 7, "after": 0.3}, load_seconds=3600)
    said = failed(project.doit(*WORDS[verb]))  # the time limit is 300 s, and this run's 60
    assert said.startswith("ERROR: m ended before it was ready\n")
    assert "ended: exit status 7\n" in said
    assert "output: bad luck\n" in said
    assert_clean(project)


@pytest.mark.parametrize("verb", WORDS)
def test_it_is_silent_for_ever(project: Project, verb: str) -> None:
    """Issue 4.5: after the time limit it is given up."""
    with_llamafile(project)
    behave(project, silent=True)
    verb_word, *rest = WORDS[verb]
    said = failed(project.doit(verb_word, "--timeout", "2", *rest))
    assert said.startswith("ERROR: m was not ready after 2.0 s\n")
    assert "fix: allow more time with --timeout SECONDS" in said
    assert_clean(project)


def test_it_does_not_listen_to_signals(project: Project) -> None:
    """Issue 4.5, 4.10: an engine that is given up and ignores SIGINT is ended none the less.

    The last step, SIGKILL, is in test_stop.py with the real limits, and in tests/system/test_processes.py.
    """
    with_llamafile(project)
    behave(project, silent=True, ignore_sigint=True)
    said = failed(project.doit("with", "--timeout", "1", *WORDS["with"][1:]))
    assert said.startswith("ERROR: m was not ready after 1.0 s\n")
    assert_clean(project)


@pytest.mark.parametrize("how", ["leave", "leave_session"])
@pytest.mark.parametrize("verb", ["serve", *WORDS])
def test_it_leaves_a_grandchild(project: Project, verb: str, how: str) -> None:
    """Issue 4.5: a server whose parent has gone cannot be watched: an error, and it is ended as well."""
    with_llamafile(project)
    behave(project, **{how: True}, load_seconds=1)
    said = failed(project.doit(*WORDS.get(verb, ["serve", "--port", "0"])))
    assert said.startswith("ERROR: m ended before it was ready\n")
    assert "ended: exit status 0\n" in said
    assert len(engines(project)) == 1
    assert_clean(project)


@pytest.mark.parametrize("verb", ["serve", "with"])
@pytest.mark.parametrize("version", ["0.8.6", "0.10.5"])
def test_the_probe_fails(project: Project, version: str, verb: str) -> None:
    """Issue 4.5: /health may say yes where generating fails; --probe tells, in the server's own words."""
    with_llamafile(project, version=version)
    behave(project, chat_status=500)
    said = failed(project.doit(verb, "--probe", "--port", "0", *WORDS.get(verb, [verb])[1:]))
    assert said.startswith("ERROR: m is running but answered a request with an error\n  status: 500\n")
    assert "the test wants an error" in said
    assert_clean(project)


def test_the_probe_hangs(project: Project) -> None:
    """Issue 4.5: what never answers is given up as what never loads."""
    with_llamafile(project, version="0.10.5")
    behave(project, chat_hang=True)
    said = failed(project.doit("with", "--probe", "--timeout", "4", *WORDS["with"][1:]))
    assert re.match(r"ERROR: m is running but did not answer a request within [\d.]+ m?s\n", said)
    assert "fix: allow more time with --timeout SECONDS" in said
    assert_clean(project)


def test_it_crashes_in_the_probe(project: Project) -> None:
    """Issue 4.5, R26: a driver that fails with the first token is told by the engine's last words."""
    with_llamafile(project, version="0.10.5")
    behave(project, chat_hang=True, crash={"text": "illegal memory access", "status": 7, "after": 4})
    said = failed(project.doit("with", "--probe", *WORDS["with"][1:]))
    assert re.match(r"ERROR: m ended (by itself|before it was ready)\n", said)
    assert "illegal memory access\n" in said
    assert "ended: exit status 7\n" in said
    assert_clean(project)


def test_without_a_probe(project: Project) -> None:
    """Issue 4.5: one that cannot generate is up all the same where nobody asked for a proof."""
    with_llamafile(project, version="0.10.5")
    behave(project, chat_status=500)
    assert project.doit("with", "--", "true").status == 0
    assert_clean(project)


def test_stopped_while_it_is_probed(project: Project) -> None:
    """Issue 4.10: Ctrl-C does not wait for a first token that may take minutes."""
    with_llamafile(project, version="0.10.5")
    behave(project, chat_hang=True)
    with project.start("serve", "--probe", "--port", "0", "--timeout", "3600") as running:
        running.wait_for("starting m", 60)
        log = re.search(r"log (\S+)\)", running.err)
        assert log
        wait_until(lambda: "server is listening" in Path(log[1]).read_text(), 60)
        time.sleep(1)  # into the request, at most; before it is as well
        running.send(signal.SIGINT)
        result = running.finish()
    assert (result.status, result.out) == (130, "")
    assert_clean(project)


@pytest.mark.parametrize("words", [["--force-gpu"], ["--gpu", "nvidia"]], ids=" ".join)
def test_the_gpu_is_meant(project: Project, words: list[str]) -> None:
    """Issue 4.8: an engine that falls back to the CPU is not what was asked for: an error with its line."""
    with_llamafile(project, version="0.10.5")
    behave(project, say=[NO_GPU])
    said = failed(project.doit("with", *words, *WORDS["with"][1:]))
    assert said.startswith("ERROR: m was told to use the GPU, but runs on the CPU\n")
    assert NO_GPU in said
    assert_clean(project)
    assert project.doit("with", "--", "true").status == 0  # nobody asked for one
