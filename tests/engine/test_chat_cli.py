"""`doit chat`: one answer, or a conversation."""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from tests.engine.test_serve_cli import ask, behave, with_llamafile
from tests.support.project import Project, wait_until
from tests.support.servers import engines, failed, port_of, record, records, started, two_models
from tests.support.terminal import Typing

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

LONG = "".join(f"w{number}\n" for number in range(500))  # an answer that no test waits for
PACE = 0.1  # seconds for each of its words


def assert_clean(project: Project) -> None:
    """Check that no server runs or is recorded."""
    assert not project.processes()
    assert not records(project)


@pytest.mark.parametrize("version", ["0.8.6", "0.10.5"])
@pytest.mark.parametrize(
    ("words", "stdin", "answer"),
    [
        pytest.param(["How are you?"], None, "How are you?", id="an argument"),
        pytest.param(["how", "are", "you"], None, "how are you", id="words"),
        pytest.param([], " one\ntwo ☃ \n", "one\ntwo ☃", id="stdin"),
        pytest.param(["is 1+1=2?"], None, "is 1+1=2?", id="an equals sign"),
        pytest.param(["--", "--model", "is what?"], None, "--model is what?", id="after --"),
        pytest.param(["--timeout", "90", "Hello"], None, "Hello", id="after an option"),
        pytest.param(["Hello", "--model", "M", "again"], None, "Hello again", id="around an option"),
    ],
)
def test_one_answer(project: Project, version: str, words: list[str], stdin: str | None, answer: str) -> None:
    """Issue 4.6: stdout has only the answer; its server has been stopped."""
    with_llamafile(project, version=version)
    result = project.doit("chat", *words, stdin=stdin)
    assert (result.status, result.out) == (0, f"{answer}\n"), result.err
    assert "m has stopped" in result.err
    assert_clean(project)


def test_another_model(project: Project) -> None:
    """Issue 4.6: --model may be anywhere on the command line; `chat:MODEL` is equal."""
    two_models(project)
    for words in (["chat", "Hello", "--model", "b"], ["chat:b", "Hello"]):
        result = project.doit(*words)
        assert (result.status, result.out) == (0, "Hello\n"), result.err
        assert "b is ready at" in result.err
        assert "a is ready" not in result.err
    assert_clean(project)


@pytest.mark.parametrize("stdin", ["", " \n"])
def test_no_question(project: Project, stdin: str) -> None:
    """Issue 4.6: without a question, the error gives an example."""
    with_llamafile(project)
    said = failed(project.doit("chat", stdin=stdin))
    assert said.startswith('ERROR: there is no question\n  fix: doit chat "')
    assert not (project.cache / "models").exists()  # nothing was fetched for no question
    assert_clean(project)


def test_the_server_that_runs(servers: Project) -> None:
    """Issue 4.6: a running server is used, with its key; none is started or stopped."""
    with_llamafile(servers, version="0.10.5")
    url = started(servers, "--port", "0", "--api-key", "a-key")
    for words in (["chat", "Hello"], ["chat", "--model", "m", "Hello"]):
        result = servers.background(*words)
        assert (result.status, result.out) == (0, "Hello\n"), result.err
        assert "starting" not in result.err
    assert len(engines(servers)) == 1
    assert record(servers)["port"] == int(port_of(url))


def test_another_than_the_one_that_runs(servers: Project) -> None:
    """Issue 4.6: another model's server is started and stopped; the running one stays."""
    two_models(servers)
    url = started(servers, "--model", "a", "--port", "0")
    result = servers.doit("chat", "--model", "b", "Hello")
    assert (result.status, result.out) == (0, "Hello\n"), result.err
    assert "b is ready at" in result.err
    assert "b has stopped" in result.err
    assert ask(url, "still there") == "still there"


@pytest.mark.parametrize("version", ["0.8.6", "0.10.5"])
def test_the_server_refuses(project: Project, version: str) -> None:
    """Issue 4.6: the server's error is shown, and the server is stopped."""
    with_llamafile(project, version=version)
    behave(project, chat_status=500)
    said = failed(project.doit("chat", "Hello"))
    assert said.startswith("ERROR: m at http://127.0.0.1:")
    assert "answered with an error\n  status: 500\n" in said
    assert "the test wants an error" in said
    assert_clean(project)


@pytest.mark.parametrize("version", ["0.8.6", "0.10.5"])
def test_the_server_dies(project: Project, version: str) -> None:
    """Issue 4.6: an incomplete answer is an error."""
    with_llamafile(project, version=version)
    behave(project, answer=LONG, token_seconds=PACE)
    with project.start("chat", "Hello") as running:
        wait_until(lambda: "w1\n" in running.out, 60)
        psutil.Process(engines(project)[-1]["pid"]).kill()
        result = running.finish()
    assert result.status == 1
    assert "did not complete its answer" in result.err
    assert "fix: doit logs --model m" in result.err
    assert_clean(project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_in_an_answer(project: Project, number: signal.Signals) -> None:
    """Issue 4.6, 4.10: what came so far was shown as it came; 128 + the signal, and nothing is left."""
    with_llamafile(project, version="0.10.5")
    behave(project, answer=LONG, token_seconds=PACE)
    with project.start("chat", "Hello") as running:
        wait_until(lambda: "w1\n" in running.out, 60)
        running.send(number)
        result = running.finish()
    assert result.status == 128 + number
    assert "w499" not in result.out
    assert "ERROR" not in result.err
    assert_clean(project)


def test_a_conversation(project: Project) -> None:
    """Issue 4.6: Ctrl-C stops an answer, or a line; Ctrl-D ends it with status 0."""
    with_llamafile(project, version="0.10.5")
    behave(project, answer=LONG, token_seconds=PACE)
    with Typing(project, "chat") as terminal:
        terminal.wait_for("m is listening. Ctrl-C stops an answer, Ctrl-D ends the conversation.\n")
        for _ in range(2):
            terminal.wait_for("> ")
            terminal.type("Hello\n")
            terminal.wait_for("w1\n")
            terminal.type("\x03")
        terminal.wait_for("> ")
        terminal.type("never mind\x03")
        terminal.wait_for("> ", again="\x03")
        terminal.type("\n")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.finish() == 0
        assert "w499" not in terminal.shown
        assert "m has stopped" in terminal.shown
    assert len(engines(project)) == 1
    assert_clean(project)


def test_a_conversation_with_the_server_that_runs(servers: Project) -> None:
    """Issue 4.6: a conversation leaves the running server as it was."""
    with_llamafile(servers)
    behave(servers, answer="I am well, thanks.")
    url = started(servers, "--port", "0")
    with Typing(servers, "chat") as terminal:
        terminal.wait_for("> ")
        terminal.type("Hello\n")
        terminal.wait_for("I am well, thanks.\n")
        terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.finish() == 0
    assert len(engines(servers)) == 1
    assert ask(url, "Hello") == "I am well, thanks."


def test_a_conversation_is_ended(project: Project) -> None:
    """Issue 4.10: `kill` ends it and its server, whatever it waits for."""
    with_llamafile(project)
    with Typing(project, "chat") as terminal:
        terminal.wait_for("> ")
        while terminal.doit.is_running() and terminal.doit.status() != psutil.STATUS_ZOMBIE:
            terminal.doit.send_signal(
                signal.SIGTERM
            )  # again where readline did not look for signals just then
            terminal.read(3)
        assert terminal.finish() == 143
    assert_clean(project)


def test_the_demo_is_asked(project: Project) -> None:
    """Issue 4.6: a real engine and a real model, in one command."""
    pytest.importorskip("xllamacpp")
    result = project.doit("chat", "--model", "demo", "What is a llamafile?", timeout=120)
    assert result.status == 0, result.err
    assert len(result.out.split()) > 3
    assert "llamafile" in result.out
    assert_clean(project)
