"""`doit with … -- COMMAND`: a server for as long as a command runs."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tasks.system.process_id import MARK_VARIABLE

from tests.server.test_serve_cli import behave, with_llamafile
from tests.support.project import REPO, Project, lives, wait_until
from tests.support.servers import engines, failed, records
from tests.support.terminal import Typing, on_terminal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

WAITS = "echo up >&2; while [ ! -e go ]; do sleep 0.05; done"  # until the test lets it go
VARIABLES = (
    *("OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_API_BASE_URL", "OPENAI_API_KEY"),
    *("ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY", "ANTHROPIC_DEFAULT_OPUS_MODEL"),
    *("ANTHROPIC_DEFAULT_SONNET_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL", "CLAUDE_CODE_SUBAGENT_MODEL"),
    *("LLAMAFILE_URL", "LLAMAFILE_MODEL"),
)
ASKS = f"""
import json, os, urllib.request
found = {{name: os.environ[name] for name in {VARIABLES}}}
body = json.dumps({{"messages": [{{"role": "user", "content": "Hello"}}]}}).encode()
key = {{"Authorization": "Bearer " + found["OPENAI_API_KEY"], "Content-Type": "application/json"}}
request = urllib.request.Request(found["OPENAI_BASE_URL"] + "/chat/completions", body, key)
answer = json.load(urllib.request.urlopen(request, timeout=60))
print(json.dumps([found, answer["choices"][0]["message"]["content"]]))
"""


def kept(project: Project) -> list[psutil.Process]:
    """List supervisors, and engines with the processes that they started."""
    found = []
    for process in project.processes():
        with suppress(psutil.Error, OSError):
            if "tasks.server.supervisor" in process.cmdline() or MARK_VARIABLE in process.environ():
                found.append(process)
    return found


def assert_clean(project: Project) -> None:
    """Check that no server runs or is recorded."""
    assert not project.processes()
    assert not records(project)


def sh(code: str) -> list[str]:
    """Return a command for use after the `--`."""
    return ["--", "sh", "-c", code]


def test_events(project: Project) -> None:
    """Issue 4.11, R25: the command's status and a command that is not there are events, too."""
    with_llamafile(project)
    env = {"LLAMAFILE_LOG": "json"}
    found = {}
    for words in (["exit 3"], ["exit 0"]):
        result = project.doit("with", "--", "sh", "-c", *words, env=env)
        [event] = [e for e in map(json.loads, result.err.splitlines()) if e["event"] == "command_ended"]
        found[result.status] = event["status"]
    assert found == {3: 3, 0: 0}
    [event] = map(json.loads, project.doit("with", "--", "nosuch", env=env).err.splitlines())
    assert (event["event"], event["level"]) == ("error", "error")
    assert "there is no command nosuch" in event["message"]
    assert event["fix"] == "correct its name, or add its folder to PATH"


@pytest.mark.parametrize("key", ["", "a-key"])
def test_the_command_finds_the_server(project: Project, key: str) -> None:
    """Issue 4.4, 15.8, R15: variables with which clients reach a server that is ready."""
    with_llamafile(project, version="0.10.5")
    words = ["--api-key", key] if key else []
    result = project.doit("with", *words, "--", sys.executable, "-c", ASKS)
    assert result.status == 0, result.err
    found, answer = json.loads(result.out)
    url = found["LLAMAFILE_URL"]
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    assert found == {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_BASE": f"{url}/v1",
        "OPENAI_API_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": key or "none",
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_AUTH_TOKEN": key or "none",
        "ANTHROPIC_API_KEY": "",
        "ANTHROPIC_DEFAULT_OPUS_MODEL": "m",
        "ANTHROPIC_DEFAULT_SONNET_MODEL": "m",
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": "m",
        "CLAUDE_CODE_SUBAGENT_MODEL": "m",
        "LLAMAFILE_URL": url,
        "LLAMAFILE_MODEL": "m",
    }
    assert answer == "Hello"
    assert "m has stopped" in result.err
    assert_clean(project)


def test_an_agent_is_told_of_a_small_context(project: Project) -> None:
    """Issue 15.8: once, with the command that gives it more; the context is what the engine has."""
    pytest.importorskip("xllamacpp")
    agent = project.path / "claude"
    agent.write_text('#!/bin/sh\necho "$CLAUDE_CODE_AUTO_COMPACT_WINDOW"\n')
    agent.chmod(0o755)
    result = project.doit("with", "demo", "--", "./claude")
    assert (result.status, result.out) == (0, "4096\n"), result.err
    assert result.err.count("claude needs a context of 32768 tokens, and demo has 4096\n") == 1
    assert "  fix: doit with --model demo --ctx-size 32768 -- ./claude\n" in result.err
    result = project.doit("with", "demo", "--ctx-size", "0", *sh("echo $CLAUDE_CODE_AUTO_COMPACT_WINDOW"))
    assert result.out == "4096\n"  # as trained
    assert "needs a context" not in result.err


@pytest.mark.parametrize(("proxy", "kept"), [("http://127.0.0.1:9", "a.example,"), ("", "")])
def test_the_command_goes_past_a_proxy(project: Project, proxy: str, kept: str) -> None:
    """F35: a proxy is not asked for this machine; what NO_PROXY had is kept."""
    with_llamafile(project, version="0.10.5")
    env = {"HTTP_PROXY": proxy, "http_proxy": proxy}
    if proxy:
        env["NO_PROXY"] = kept.rstrip(",")
    shows = "print([os.environ.get(name) for name in ('NO_PROXY', 'no_proxy')])"
    command = [sys.executable, "-c", ASKS + shows]
    result = project.process("with", "--", *command, env=env)
    assert result.status == 0, result.err
    hosts = f"{kept}127.0.0.1,localhost" if proxy else None
    assert result.out.splitlines()[1:] == [str([hosts, hosts])]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        pytest.param("exit 0", 0, id="success"),
        pytest.param("exit 7", 7, id="7"),
        pytest.param("kill -KILL $$", 137, id="SIGKILL"),
        pytest.param("kill -TERM $$", 143, id="SIGTERM"),
        pytest.param("kill -SEGV $$", 139, id="SIGSEGV"),
    ],
)
def test_the_status_is_the_commands(project: Project, code: str, status: int) -> None:
    """Issue 4.4: whatever it is, as a shell has it; the server is stopped, and no error is made of it."""
    with_llamafile(project)
    result = project.doit("with", *sh(code))
    assert (result.status, result.out) == (status, "")
    assert "ERROR" not in result.err
    assert "m has stopped" in result.err
    assert (f"sh failed with status {status}\n" in result.err) == bool(status)
    assert_clean(project)


@pytest.mark.parametrize(
    ("word", "status", "said"),
    [
        pytest.param("no-such-command", 127, "there is no command no-such-command", id="not found"),
        pytest.param("./gone", 127, "there is no command ./gone", id="no such path"),
        pytest.param("./models.yaml", 126, "this cannot be run: ./models.yaml", id="not executable"),
    ],
)
def test_no_such_command(project: Project, word: str, status: int, said: str) -> None:
    """Issue 4.4: known before anything is downloaded for it; the status is a shell's."""
    with_llamafile(project)
    result = project.doit("with", "--", word)
    assert (result.status, result.out) == (status, "")
    assert f"ERROR: {said}\n  fix: " in result.err
    assert not (project.cache / "models").exists()
    assert_clean(project)


def test_it_cannot_be_started(project: Project) -> None:
    """Issue 4.4: a program that the system refuses is told apart from a failure of the recipe."""
    with_llamafile(project)
    (project.path / "odd").write_bytes(b"\x00\x01\x02\x03")
    (project.path / "odd").chmod(0o755)
    result = project.doit("with", "--", "./odd")
    assert (result.status, result.out) == (126, "")
    assert "ERROR: cannot run ./odd: Exec format error\n" in result.err
    assert_clean(project)


@pytest.mark.parametrize("words", [["with"], ["with", "--"], ["with", "--model", "m"]], ids=" ".join)
def test_without_a_command(project: Project, words: list[str]) -> None:
    """Issue 4.4, R14: a wrong command line, with what to type."""
    with_llamafile(project)
    said = failed(project.doit(*words), 3)
    assert "`doit with` needs a command" in said
    assert "doit with … -- COMMAND" in said
    assert not engines(project)


def test_stdin_and_stdout_are_the_commands(project: Project) -> None:
    """Issue 4.4: a pipe goes through it as if it were not there; what we say is on stderr."""
    with_llamafile(project)
    result = project.doit("with", *sh("cat; echo words >&2"), stdin="one\ntwo ☃\n")
    assert (result.status, result.out) == (0, "one\ntwo ☃\n")
    assert "words\n" in result.err
    assert "m is ready at http://" in result.err


def test_arguments_are_the_commands(project: Project) -> None:
    """Issue 4.4, R10: what follows `--` is not looked at, whatever it looks like."""
    with_llamafile(project)
    words = ["--model", "x", "--", "a=b c", "* é $HOME", "serve"]
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    result = project.doit("with", "--", sys.executable, "-c", code, *words)
    assert json.loads(result.out) == words
    assert engines(project)[-1]["argv"][-2:] == ["--alias", "m"]  # and none of them is the engine's


def test_the_directory_is_the_users(project: Project, tmp_path: Path) -> None:
    """Issue 4.4, R12: with DOIT_FILE, doit works in its own directory, and the command in the user's."""
    with_llamafile(project)
    there = tmp_path / "there"
    there.mkdir()
    (there / "own").write_text("#!/bin/sh\npwd\n")
    (there / "own").chmod(0o755)
    result = project.process("with", "--", "./own", cwd=there)
    assert (result.status, result.out) == (0, f"{there}\n"), result.err
    assert os.listdir(there) == ["own"]


def test_the_terminal_is_the_commands(project: Project) -> None:
    """Issue 4.4: it can ask its user; what was typed ahead is for it."""
    with_llamafile(project)
    code = "test -t 0 && test -t 2 && read line && echo got $line"
    result = on_terminal(project, "with", *sh(code), typed="typed\n")
    assert (result.status, result.out) == (0, "got typed\n"), result.err


def test_ctrl_c_is_for_the_command(project: Project) -> None:
    """Issue 4.4: on a terminal it gets one Ctrl-C, and what it makes of it counts; the server lives on."""
    with_llamafile(project)
    ask = "import os, urllib.request as r; r.urlopen(os.environ['LLAMAFILE_URL'] + '/health')"
    code = f"""
import signal, time
count = 0
def note(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, note)
print("up", flush=True)
while not count:
    time.sleep(0.05)
time.sleep(0.5)
{ask}
print(count, "interrupt", flush=True)
raise SystemExit(4)
"""
    with Typing(project, "with", "--", sys.executable, "-c", code) as terminal:
        terminal.wait_for("up\n")
        terminal.type("\x03")
        terminal.wait_for("1 interrupt\n")
        assert terminal.finish() == 4
        assert "m has stopped" in terminal.shown
    assert_clean(project)


def test_two_at_once(project: Project) -> None:
    """Issue 4.4: test suites side by side do not get in each other's way."""
    with_llamafile(project)
    assert project.doit("verify").status == 0
    command = sh(f"echo $LLAMAFILE_URL; {WAITS}")
    with project.start("with", *command) as one, project.start("with", *command) as two:
        one.wait_for("up\n", 60)
        two.wait_for("up\n", 60)
        (project.path / "go").touch()
        results = [one.finish(), two.finish()]
    assert [result.status for result in results] == [0, 0]
    assert len({result.out for result in results}) == 2
    assert_clean(project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_ends_both(project: Project, number: signal.Signals) -> None:
    """Issue 4.4, 4.10: `kill` of doit reaches the command, then the server is stopped; 128 + the signal."""
    with_llamafile(project)
    with project.start("with", *sh("echo up >&2; exec sleep 600")) as running:
        running.wait_for("up\n", 60)
        running.send(number)
        result = running.finish()
    assert (result.status, result.out) == (128 + number, "")
    assert result.err.rstrip().endswith("m has stopped")
    assert_clean(project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_command_that_handles_the_signal(project: Project, number: signal.Signals) -> None:
    """Issue 4.4, 4.10: it has time to tidy up, with its server, and decides the status."""
    with_llamafile(project)
    code = f"""
import os, signal, sys, time, urllib.request
def tidy(number, _):
    urllib.request.urlopen(os.environ["LLAMAFILE_URL"] + "/health", timeout=60)
    print("tidied", flush=True)
    sys.exit(5)
signal.signal({int(number)}, tidy)
print("up", file=sys.stderr, flush=True)
time.sleep(600)
"""
    with project.start("with", "--", sys.executable, "-c", code) as running:
        running.wait_for("up\n", 60)
        running.send(number)
        result = running.finish()
    assert (result.status, result.out) == (5, "tidied\n")
    assert_clean(project)


def test_a_command_that_does_not_end(project: Project) -> None:
    """Issue 4.10: a command that ignores SIGTERM is killed after the time limit."""
    with_llamafile(project)
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"
    code += "; print('up', file=sys.stderr, flush=True); time.sleep(600)"
    with project.start("with", "--", sys.executable, "-c", code) as running:
        running.wait_for("up\n", 60)
        running.send(signal.SIGTERM)
        assert running.finish().status == 137
    assert_clean(project)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_while_it_loads(project: Project, number: signal.Signals) -> None:
    """Issue 4.10: the command has not run, and never does."""
    with_llamafile(project)
    behave(project, load_seconds=600)
    with project.start("with", *sh("touch ran")) as running:
        running.wait_for("starting m", 60)
        running.send(number)
        result = running.finish()
    assert (result.status, result.out) == (128 + number, "")
    assert "ERROR" not in result.err
    assert not (project.path / "ran").exists()
    assert_clean(project)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the next run cleans up")
@pytest.mark.parametrize("loading", [False, True], ids=["in use", "loading"])
def test_doit_is_killed(project: Project, loading: bool) -> None:
    """Issue 4.4, 4.10: SIGKILL leaves doit no word, and yet the server goes with it."""
    with_llamafile(project)
    if loading:
        behave(project, load_seconds=600)
    with project.start("with", *sh("echo up >&2; exec sleep 600")) as running:
        running.wait_for("starting m" if loading else "up\n", 60)
        assert len(kept(project)) >= 2
        running.send(signal.SIGKILL)
        wait_until(lambda: not kept(project), 60)
        wait_until(lambda: not records(project))
    wait_until(lambda: not project.processes())


def test_the_server_dies(project: Project) -> None:
    """Issue 4.4, R26: a command that fails for want of its server is not left to wonder why."""
    with_llamafile(project)
    with project.start("with", *sh(f"{WAITS}; exit 3")) as running:
        running.wait_for("up\n", 60)
        engine = psutil.Process(engines(project)[-1]["pid"])
        engine.kill()
        wait_until(lambda: not lives(engine))
        (project.path / "go").touch()
        result = running.finish()
    assert (result.status, result.out) == (3, "")
    assert "warning: the server ended before the command: m ended by itself" in result.err
    assert "signal 9 (SIGKILL)" in result.err
    assert_clean(project)


def test_the_server_does_not_start(project: Project) -> None:
    """Issue 4.4, R26: a failure of the server is status 1 with its reason; the command has not run."""
    with_llamafile(project)
    behave(project, crash={"text": "error loading model: bad magic", "status": 7})
    said = failed(project.doit("with", *sh("touch ran")))
    assert said.startswith("ERROR: m ended before it was ready\n")
    assert "error loading model: bad magic" in said
    assert not (project.path / "ran").exists()
    assert_clean(project)


STREAMS = """

def test_it_streams():
    question = [{"role": "user", "content": "Hello"}]
    asked = {"model": os.environ["LLAMAFILE_MODEL"], "messages": question, "temperature": 0}
    whole = OpenAI().chat.completions.create(**asked).choices[0].message.content
    pieces = [p.choices[0].delta.content for p in OpenAI().chat.completions.create(**asked, stream=True)
              if p.choices]
    assert "".join(piece or "" for piece in pieces) == whole
    assert len([piece for piece in pieces if piece]) > 3
"""


def test_a_test_suite_with_a_model(project: Project) -> None:
    """Issue 4.4: the example of the docs, with the real engine, the demo model and OpenAI's client."""
    pytest.importorskip("xllamacpp")
    pytest.importorskip("openai")
    page = (REPO / "docs" / "testing.md").read_text("utf-8")
    [example] = re.findall(r"```python\n(import os\n.*?)```", page, re.DOTALL)
    bad = "\n\ndef test_broken():\n    assert not os.environ['LLAMAFILE_MODEL']\n"
    (project.path / "test_answers.py").write_text(example + STREAMS + bad)
    command = "doit with --model demo -- python -m pytest test_answers.py"
    assert f"{command}\n" in page
    words = [
        "with",
        "--model",
        "demo",
        "--probe",
        "--",
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
    ]
    result = project.doit(*words, "test_answers.py", timeout=180)
    assert result.status == 1, result.out
    assert "1 failed, 2 passed" in result.out
    assert "demo has stopped" in result.err
    assert_clean(project)
