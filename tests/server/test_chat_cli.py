"""`doit chat`: one answer, or a conversation."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import psutil
import pytest

from tests.fakes.engine_chat import ILL, WELL
from tests.server.test_serve_cli import ask, behave, with_llamafile
from tests.support.project import Project, wait_until
from tests.support.servers import engines, failed, port_of, record, records, started, two_models
from tests.support.terminal import Typing, on_terminal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

LONG = "".join(f"w{number}\n" for number in range(500))  # an answer that no test waits for
PACE = 0.1  # seconds for each of its words


def assert_clean(project: Project) -> None:
    """Check that no server runs or is recorded."""
    assert not project.processes()
    assert not records(project)


@pytest.mark.parametrize("version", ["0.8.6", "0.10.5"])
def test_one_answer(project: Project, version: str) -> None:
    """Issue 4.6: stdout has only the answer; its server has been stopped."""
    with_llamafile(project, version=version)
    result = project.doit("chat", "--timeout", "90", "How are you?")
    assert (result.status, result.out) == (0, "How are you?\n"), result.err
    assert "m has stopped" in result.err
    assert_clean(project)


def test_the_words_of_a_question(servers: Project) -> None:
    """Issue 4.6: words are joined, those around options and after -- too; else stdin is the question."""
    with_llamafile(servers)
    started(servers, "--port", "0")
    for words, stdin, answer in (
        (["how", "are", "you"], None, "how are you"),
        ([], " one\ntwo ☃ \n", "one\ntwo ☃"),
        (["is 1+1=2?"], None, "is 1+1=2?"),
        (["--", "--model", "is what?"], None, "--model is what?"),
        (["--timeout", "90", "Hello"], None, "Hello"),
        (["Hello", "--model", "M", "again"], None, "Hello again"),
    ):
        result = servers.doit("chat", *words, stdin=stdin)
        assert (result.status, result.out) == (0, f"{answer}\n"), (words, result.err)


def test_a_question_that_is_not_text(project: Project) -> None:
    """Issue 14.1: bytes of another encoding are named before anything is fetched or started."""
    with_llamafile(project)
    for words in ([b"\xff".decode("utf-8", "surrogateescape")], ["m", "a\udcffb"]):
        said = failed(project.doit("chat", *words))
        assert said.startswith("ERROR: the question is not text: it has bytes that are not UTF-8\n  fix: ")
    assert not (project.cache / "models").exists()


def test_another_model(project: Project) -> None:
    """Issue 4.6: --model may be anywhere on the command line; `chat:MODEL` is equal."""
    two_models(project)
    for words in (["chat", "Hello", "--model", "b"], ["chat:b", "Hello"]):
        result = project.doit(*words)
        assert (result.status, result.out) == (0, "Hello\n"), result.err
        assert "b is ready at" in result.err
        assert "a is ready" not in result.err
    assert_clean(project)


def test_the_first_word_is_the_model(project: Project) -> None:
    """Issue 14.1: a model's name, a server's, or a file; behind `--`, it is a word of the question."""
    two_models(project)
    for words, name, answer in (
        (["b", "Hello"], "b", "Hello"),
        (["b", "Hello", "b"], "b", "Hello b"),
        (["b.llamafile", "Hello"], "b", "Hello"),
        (["--", "b"], "a", "b"),
        (["no.llamafile", "?"], "a", "no.llamafile ?"),
    ):
        result = project.doit("chat", *words)
        assert (result.status, result.out) == (0, f"{answer}\n"), result.err
        assert f"{name} is ready at" in result.err
    assert project.doit("chat", "b", stdin="from stdin").out == "from stdin\n"
    assert_clean(project)


@pytest.mark.parametrize(
    ("words", "stdin"), [([], ""), ([], " \n"), ([" "], "from stdin"), (["--", " ", "\t"], "from stdin")]
)
def test_no_question(project: Project, words: list[str], stdin: str) -> None:
    """Issue 4.6: without a question, or with a blank one, the error gives an example."""
    with_llamafile(project)
    said = failed(project.doit("chat", *words, stdin=stdin))
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


@pytest.mark.parametrize("name", WELL)
def test_a_stream_that_the_standard_allows(project: Project, name: str) -> None:
    """F11: empty events, comments, fields, several data lines, any line end, 200 kB."""
    with_llamafile(project, version="0.10.5")
    behave(project, stream=name)
    result = project.doit("chat", "Hello to you")
    assert (result.status, result.out) == (0, "Hello to you\n"), result.err


CLOSED = "did not complete its answer (the connection was closed)\n  fix: doit logs"
BROKEN = {
    "cuthalf": CLOSED,
    "noblank": CLOSED,
    "notjson": "the server sent an event that is not JSON",
    "list": "the server sent an event that is not a JSON object\n  event: '[1]'",
    "null": "the server sent an event that is not a JSON object\n  event: 'null'",
    "errstr": "the server cannot answer\n  answer: the test wants an error",
    "errevent": "the server cannot answer\n  answer: the test wants an error",
}


@pytest.mark.parametrize("name", ILL)
def test_a_stream_that_is_broken(project: Project, name: str) -> None:
    """F11: what is wrong is named, also where the connection ends with the stream."""
    with_llamafile(project, version="0.10.5")
    behave(project, stream=name)
    assert BROKEN[name] in failed(project.doit("chat", "Hello"))
    assert_clean(project)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_a_model_that_thinks(project: Project, field: str) -> None:
    """F12: its reasoning goes to stderr, the answer alone to stdout."""
    with_llamafile(project, version="0.10.5", serve={"cors": "*"})
    behave(project, reasoning="Let me see \x1b[2J", reasoning_field=field, answer="Blue.")
    result = project.doit("chat", "What colour is the sky?")
    assert (result.status, result.out) == (0, "Blue.\n"), result.err
    assert "m is thinking:\nLet me see \\x1b[2J\n" in result.err
    assert "warning" not in result.err
    result = project.doit("chat", "What colour is the sky?", env={"LLAMAFILE_LOG": "json"})
    [event] = [e for e in map(json.loads, result.err.splitlines()) if e["event"] == "reasoning"]
    assert (result.out, event["model"]) == ("Blue.\n", "m")


@pytest.mark.parametrize(
    ("env", "shown"),
    [
        ({}, "\x1b[2mLet\x1b[0m\x1b[2m me\x1b[0m\x1b[2m see\x1b[0m"),
        ({"NO_COLOR": ""}, "\x1b[2mLet\x1b[0m\x1b[2m me\x1b[0m\x1b[2m see\x1b[0m"),
        ({"NO_COLOR": "1"}, "m is thinking:\nLet me see\n\n"),
        ({"TERM": "dumb"}, "m is thinking:\nLet me see\n\n"),
    ],
)
def test_reasoning_on_a_terminal(project: Project, env: dict[str, str], shown: str) -> None:
    """F12: it is dimmed, unless the terminal or its user wants no styles."""
    with_llamafile(project, version="0.10.5")
    behave(project, reasoning="Let me see", answer="Blue.")
    result = on_terminal(project, "chat", "What colour is the sky?", env=env)
    assert (result.status, result.out) == (0, "Blue.\n"), result.err
    assert shown in result.err


LIMIT = "it reached the limit of tokens (--n-predict, --ctx-size)\n  fix: `doit restart --m"
CUT = "warning: the answer is incomplete"
NONE = "ERROR: m did not answer"


@pytest.mark.parametrize(
    ("n_predict", "mood", "out", "status", "said"),
    [
        (-1, {"answer": "one two three"}, "one two three\n", 0, ""),
        (2, {"answer": "one two three"}, "one two\n", 0, f"{CUT}: {LIMIT}"),
        (2, {"reasoning": "a b", "answer": "c"}, "", 1, f"{NONE}: {LIMIT}"),
        (2, {"reasoning": "a", "answer": "b c"}, "b\n", 0, f"{CUT}: {LIMIT}"),
        (-1, {"reasoning": "a", "answer": ""}, "", 1, f"{NONE}: its answer is empty\n  fix:"),
        (-1, {"answer": ""}, "", 1, f"{NONE}: its answer is empty\n  fix:"),
    ],
)
def test_how_an_answer_ended(
    project: Project, n_predict: int, mood: dict[str, Any], out: str, status: int, said: str
) -> None:
    """F12: a limit that cut the answer, or no text, is named, with what helps."""
    with_llamafile(project, version="0.10.5", serve={"n_predict": n_predict})
    behave(project, **mood)
    result = project.doit("chat", "Hello")
    assert (result.status, result.out) == (status, out), result.err
    assert said in result.err
    assert ("did not answer" in result.err) == (not out)
    assert ("limit of tokens" in result.err) == ("limit" in said)


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
