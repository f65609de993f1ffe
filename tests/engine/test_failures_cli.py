"""`doit serve` fails: a clear error in time, and no process is left."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.fakes import llamafile
from tests.fakes.llamafile import VARIABLE
from tests.server.test_client import by_me
from tests.server.test_serve_cli import arguments, ask, behave, runs, url_in, with_gguf, with_llamafile
from tests.support.ports import free_port
from tests.support.project import Project, Result, Running, interrupt

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")


def failure(result: Result) -> str:
    """The error of a failed run (R14): status 1, one ERROR, nothing on stdout."""
    assert (result.status, result.out) == (1, ""), result
    assert result.err.count("ERROR: ") == 1, result.err
    return result.err[result.err.index("ERROR: ") :]


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that no test changes, so that its catalogue is compiled once."""
    project = Project(tmp_path_factory.mktemp("still"))
    with_llamafile(project)
    return project


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(
            ["--port", "65536"], "--port: expected a whole number from 0 to 65535, got '65536'", id="65536"
        ),
        pytest.param(["--host=127.0.0.1/x"], "remove http:// and any path", id="a path in --host"),
        pytest.param(["--engine", "embeded"], "fix: did you mean embedded?", id="engine"),
        pytest.param(
            ["--llamafile", "x", "--model", "m"], "cannot be combined", id="--llamafile and --model"
        ),
    ],
)
def test_refused_before_anything_runs(still: Project, words: list[str], said: str) -> None:
    """R14, R23: an invalid value is named, with what is expected; status 3, no action."""
    result = still.doit("serve", *words)
    assert (result.status, result.out) == (3, "")
    assert result.err.startswith("ERROR: ")
    assert said in result.err
    assert not runs(still)
    assert not (still.cache / "models").exists()


def test_the_port_is_in_use(project: Project) -> None:
    """R23: the error names the program that has the port and the way out; nothing is started."""
    with_llamafile(project)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
        said = failure(project.doit("serve", "--port", str(port)))
    assert said.splitlines() == [
        f"ERROR: port {port} on 127.0.0.1 is in use{by_me()}",
        "  fix: --port 0 takes a free one",
    ]
    assert not (project.cache / "models").exists()  # nothing was fetched for a server that cannot be


def test_a_host_of_another_machine(project: Project) -> None:
    """R23: an address of another machine."""
    with_llamafile(project)
    said = failure(project.doit("serve", "--host", "192.0.2.1", "--port", "0"))
    assert "--host 192.0.2.1 is not an address of this machine" in said
    assert "fix: --host 127.0.0.1" in said


def test_it_dies_while_it_loads(project: Project) -> None:
    """R26, R28: reported at once, with command, status, last lines, log and remedy."""
    data = with_llamafile(project)
    text = "\n".join(["first words", *(f"line {n}" for n in range(40)), "error loading model: bad magic"])
    behave(project, crash={"text": text, "status": 7, "after": 0.3}, load_seconds=3600)
    said = failure(project.doit("serve", "--port", "0", "--timeout", "3600"))
    port = arguments(project)[arguments(project).index("--port") + 1]
    shown = said.splitlines()
    assert shown[0] == "ERROR: m ended before it was ready"
    command = (
        f"/bin/sh {project.target(data, 'm.llamafile')} --server --nobrowser --log-disable"
        f" --host 127.0.0.1 --port {port} --ctx-size 0 --n-predict 1024 --alias m"
    )
    assert shown[1] == f"  command: {command}"
    assert shown[2] == "  ended: exit status 7"
    assert shown[3:5] == ["  output:", "      line 26"]  # the last 15 lines
    assert shown[18] == "      error loading model: bad magic"
    log = project.run_folder / f"m-{port}.log"
    assert shown[19] == f"  log: {log}"
    assert shown[20].startswith("  fix: this engine does not read the file")
    assert "first words" in log.read_text()


@pytest.mark.parametrize(
    ("number", "said", "fix"),
    [
        pytest.param(signal.SIGKILL, "ended: signal 9 (SIGKILL)", "memory is short", id="killed"),
        pytest.param(signal.SIGBUS, "ended: signal 7 (SIGBUS)", "truncated", id="bus error"),
    ],
)
def test_a_signal_kills_it(project: Project, number: int, said: str, fix: str) -> None:
    """R28: the signal is named, with its most common cause."""
    with_llamafile(project)
    behave(project, crash={"signal": number})
    error = failure(project.doit("serve", "--port", "0"))
    assert said in error
    assert "output: (it printed nothing)" in error
    assert fix in error[error.index("  fix:") :]


def test_it_is_silent_for_ever(project: Project) -> None:
    """R27: a server that never answers is ended after --timeout."""
    with_llamafile(project)
    behave(project, silent=True)
    start = time.monotonic()
    said = failure(project.doit("serve", "--port", "0", "--timeout", "2"))
    assert time.monotonic() - start > 2
    assert "m was not ready after 2.0 s" in said
    assert "fix: allow more time with --timeout SECONDS" in said
    assert not psutil.pid_exists(runs(project)[-1]["pid"])


def test_health_never_says_yes(project: Project) -> None:
    """R27: a server that answers but is not ready is ended, too; its output is shown."""
    with_llamafile(project, version="0.10.5")
    behave(project, health_status=500)
    said = failure(project.doit("serve", "--port", "0", "--timeout", "1"))
    assert "m was not ready after 1.0 s" in said
    assert "main: server is listening on http://127.0.0.1:" in said


@pytest.mark.parametrize(
    ("number", "ended"),
    [
        pytest.param(signal.SIGKILL, "signal 9 (SIGKILL)", id="killed"),
        pytest.param(signal.SIGTERM, "exit status 0", id="status 0"),
    ],
)
def test_it_ends_after_it_was_ready(project: Project, number: int, ended: str) -> None:
    """R14, R26: a server that ends by itself is an error at any exit status."""
    with_llamafile(project, version="0.10.5")
    with project.start("serve", "--port", "0") as running:
        running.wait_for("stop     Ctrl-C")
        os.kill(runs(project)[-1]["pid"], number)
        said = failure(running.finish())
    assert "ERROR: m ended by itself\n" in said
    assert f"ended: {ended}\n" in said
    assert "output: main: server is listening on http://127.0.0.1:" in said
    assert ("fix: it was killed" in said) is (number == signal.SIGKILL)


def test_an_unknown_argument(project: Project) -> None:
    """R28: the engine's output, and that this version does not have the option."""
    with_llamafile(project, version="0.10.5")
    said = failure(project.doit("serve", "--port", "0", "--", "--nobrowser"))
    assert "output: error: unknown argument: --nobrowser" in said
    assert "fix: this version of the engine has no such option: remove it" in said


def test_a_gpu_this_version_does_not_know(project: Project) -> None:
    """R24: --gpu vulkan before 0.10 is rejected before the engine is started."""
    with_llamafile(project, version="0.9.3")
    said = failure(project.doit("serve", "--port", "0", "--gpu", "vulkan"))
    assert "llamafile 0.9.3 does not support --gpu vulkan" in said
    assert len(runs(project)) == 1


def test_an_at_sign_in_the_path(project: Project, tmp_path: Path) -> None:
    """R28: a path with @ is rejected; llamafile's own error would be misleading."""
    with_gguf(project)
    folder = tmp_path / "me@home"
    folder.mkdir()
    own = llamafile.build_gguf(folder / "own.gguf")
    words = ["--engine", "llamafile", "--llamafile", str(own)]
    said = failure(project.doit("serve", *words, "--port", "0"))
    assert f"llamafile cannot open {own}: it ends a path at the first @" in said


def test_another_server_answers(project: Project) -> None:
    """R23: another program takes the port after the check; its 200 does not count."""
    with_llamafile(project, version="0.8.6")
    port = free_port()
    behave(project, load_seconds=30)
    stranger = llamafile.build_exe(project.path / "stranger", version="0.10.5")
    model = llamafile.build_gguf(project.path / "stranger.gguf")
    with project.start("serve", "--port", str(port), "--timeout", "20") as running:
        running.wait_for("starting m")
        command = ["/bin/sh", str(stranger), "--server", "-m", str(model), "--port", str(port)]
        with psutil.Popen(command, env={"PATH": os.environ["PATH"], VARIABLE: "{}"}, stderr=-3) as other:
            try:
                said = failure(running.finish())
            finally:
                other.kill()
    whose = by_me().replace(str(os.getpid()), str(other.pid)).partition(" (")[2]
    assert f"another program answers on port {port}" in said
    assert whose in said
    assert "fix: use --port 0 for a free one" in said


def test_it_does_not_listen_to_signals(project: Project) -> None:
    """R27: an engine that ignores SIGINT and SIGTERM is killed; the second Ctrl-C saves the waiting."""
    with_llamafile(project)
    behave(project, ignore_sigint=True, ignore_sigterm=True)
    project.set_constant("tasks/system/processes.py", "INTERRUPT_S", 600.0)
    with project.start("serve", "--port", "0") as running:
        running.wait_for("stop     Ctrl-C")
        family = running.note_family()
        interrupt(running)
        time.sleep(0.4)  # it takes its time: the gentle steps are on
        assert [p for p in family if p.is_running()]
        interrupt(running)
        result = running.finish()
    assert (result.status, result.out) == (0, "")
    assert "m has stopped" in result.err


def test_it_takes_time_to_stop(project: Project) -> None:
    """R14: an engine that needs a second to end (llamafile 0.10 does) gets it."""
    with_llamafile(project, version="0.10.5")
    behave(project, stop_seconds=1)
    with project.start("serve", "--port", "0") as running:
        running.wait_for("stop     Ctrl-C")
        start = time.monotonic()
        interrupt(running)
        assert running.finish().status == 0
    assert time.monotonic() - start >= 1


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGINT, 130, id="SIGINT"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
        pytest.param(signal.SIGHUP, 129, id="SIGHUP"),
    ],
)
def test_stopped_before_it_was_ready(project: Project, number: int, status: int) -> None:
    """R14: a signal while it loads: status 128 + the signal, no process, no error."""
    with_llamafile(project)
    behave(project, load_seconds=60)
    with project.start("serve", "--port", "0") as running:
        running.wait_for("starting m")
        running.send(number)
        result = running.finish()
    assert (result.status, result.out) == (status, "")
    assert "ERROR" not in result.err
    assert result.err.rstrip().endswith("m has stopped")


def test_the_run_directory_cannot_be_made(project: Project) -> None:
    """R12, R28: with a read-only cache, the engine runs and logs in another folder."""
    with_llamafile(project)
    assert project.doit("verify").status == 0
    run = project.cache / "run"
    for path in run.iterdir():
        path.unlink()
    run.rmdir()
    run.write_text("a file where a folder should be")
    with project.start("serve", "--port", "0") as running:
        running.wait_for("m is ready at")
        interrupt(running)
        assert running.finish().status == 0


@pytest.mark.parametrize("kind", ["process", "thread"])
def test_not_where_it_cannot_be_stopped(project: Project, kind: str) -> None:
    """R27: in doit's worker processes and threads Ctrl-C would leave the engine behind."""
    with_llamafile(project)
    said = failure(project.process("-n", "2", "-P", kind, "serve", "--port", "0"))
    assert "Ctrl-C does not reach tasks of `doit -n`\n  fix: remove -n" in said
    assert [run["argv"] for run in runs(project)] in ([], [["--version"]])


def test_there_is_no_such_file(project: Project) -> None:
    """R5: a missing file without a URL names the option to pass and says that it is needed once."""
    with_llamafile(project)
    said = failure(project.doit("serve", "--llamafile", "gone.llamafile", "--port", "0"))
    assert f"no such file: {project.path / 'gone.llamafile'}" in said
    _, exe = with_gguf(project)
    assert "no such file: " in failure(project.doit("serve", "--llamafile", "gone.gguf", "--port", "0"))
    assert not exe.exists()  # no engine was fetched for it
    assert "fix: check the path, or say where to download it from: --llamafile-url URL" in said


@pytest.mark.skipif(os.name == "nt", reason="a named pipe")
def test_a_file_that_is_not_regular(project: Project, tmp_path: Path) -> None:
    """F10: a named pipe or a directory is named as what it is, and is not waited for."""
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path / "pipe.gguf", tmp_path):
        said = failure(project.doit("serve", "--llamafile", str(path), "--port", "0"))
        assert f"{path} is not a regular file\n  fix: give the path of a file\n" in said


def test_the_log_is_for_its_owner_alone(project: Project) -> None:
    """R26, R30: prompts may end up in the log; a log of an earlier run does not keep its openness."""
    with_llamafile(project)
    port = str(free_port())
    log = project.run_folder / f"m-{port}.log"
    log.parent.mkdir(parents=True)
    log.write_text("an older run\n")
    log.chmod(0o644)
    with project.start("serve", "--port", port) as running:
        running.wait_for("stop     Ctrl-C")
        assert "an older run" not in log.read_text()
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
        interrupt(running)
        assert running.finish().status == 0


def test_nohup(project: Project) -> None:
    """R35: under nohup a closed terminal ends nothing; `kill` does."""
    with_llamafile(project)
    command = ["nohup", project.doit_program, "serve", "--port", "0"]
    with Running(command, project.path, project.env, None) as running:
        url = url_in(running.wait_for("stop     Ctrl-C"))
        running.send(signal.SIGHUP)
        time.sleep(0.5)
        assert ask(url, "still here") == "still here"
        running.send(signal.SIGTERM)
        assert running.finish().status == 0


ON_A_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_the_terminal_is_closed(project: Project) -> None:
    """R14: a terminal window that is closed takes the server with it."""
    with_llamafile(project)
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", ON_A_TERMINAL, project.doit_program, "serve", "--port", "0"]
    with psutil.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=project.path, env=project.env,
        start_new_session=True,
    ) as doit:  # fmt: skip
        os.close(theirs)
        shown = b""
        while b"stop     Ctrl-C" not in shown:
            assert select.select([ours], [], [], 60)[0], shown
            shown += os.read(ours, 4096)
        family = doit.children(recursive=True)
        assert family
        os.close(ours)
        doit.wait(60)
    psutil.wait_procs(family, timeout=60)
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
