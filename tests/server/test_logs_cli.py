"""`doit logs`: a server's output, while it runs and afterwards."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from tasks.server.rotating_log import LIMIT

from tests.server.test_serve_cli import behave, with_llamafile
from tests.support.project import Project, wait_until
from tests.support.servers import failed, record, started, two_models

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

MANY = "".join(f"line {n}\n" for n in range(1, 31))


def with_log(project: Project) -> str:
    """Start a server with a long log; return its text."""
    with_llamafile(project, version="0.10.5")
    started(project, "--port", "0")
    log = Path(record(project)["log"])
    wait_until(lambda: "server is listening" in log.read_text())
    with log.open("a") as file:  # as if the engine had printed more
        file.write(MANY)
    return log.read_text()


def test_whole_and_last_lines(servers: Project) -> None:
    """Issue 4.3: all of it, or the last lines; on stdout, as it is, and nothing else."""
    text = with_log(servers)
    lines = text.splitlines(keepends=True)
    for words, expected in (
        ([], text),
        (["-n", "3"], "line 28\nline 29\nline 30\n"),
        (["-n1"], "line 30\n"),
        (["-n", "0"], ""),
        (["-n", "1000"], text),
        (["-n", str(len(lines) - 1)], "".join(lines[1:])),
    ):
        for named in ([], ["--model", "M"]):
            result = servers.doit("logs", *named, *words)
            assert (result.status, result.out, result.err) == (0, expected, "")
    assert servers.doit("logs:m", "-n", "1").out == "line 30\n"


def test_after_its_end(servers: Project) -> None:
    """Issue 4.3: the log of a server that was stopped is found by the model's name."""
    text = with_log(servers)
    assert servers.doit("stop").status == 0
    result = servers.doit("logs", "--model", "m")
    assert result.status == 0
    assert result.out.startswith(text)
    assert "nothing runs here" in failed(servers.doit("logs"))


def test_follow_until_it_ends(servers: Project) -> None:
    """Issue 4.3: what is printed is shown when it comes; the server's end is the end, status 0."""
    with_log(servers)
    log = Path(record(servers)["log"])
    with servers.start("logs", "-f", "-n", "2") as running:
        wait_until(lambda: running.out == "line 29\nline 30\n")
        with log.open("a") as file:
            file.write("more\n")
        wait_until(lambda: running.out.endswith("line 30\nmore\n"))
        assert servers.doit("stop").status == 0
        result = running.finish()
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith("line 29\nline 30\nmore\n")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_follow_until_it_is_enough(servers: Project, number: int, status: int) -> None:
    """Issue 4.3, R14: Ctrl-C ends the looking and not the server: 128 + the signal."""
    with_log(servers)
    with servers.start("logs", "-f", "--model", "m") as running:
        wait_until(lambda: running.out.endswith("line 30\n"))
        running.send(number)
        result = running.finish()
    assert (result.status, result.err) == (status, "")
    assert servers.doit("status").status == 0


def test_follow_until_it_crashes(servers: Project) -> None:
    """Issue 4.3: a server that ends by itself ends the looking as well."""
    with_log(servers)
    with servers.start("logs", "-f") as running:
        wait_until(lambda: running.out.endswith("line 30\n"))
        os.kill(record(servers)["engine"]["pid"], signal.SIGKILL)
        result = running.finish()
    assert (result.status, result.err) == (0, "")


def test_a_log_without_end(servers: Project) -> None:
    """Issue 4.3: a new file where one is full; the one before it is read as well, older ones are gone."""
    with_llamafile(servers, version="0.10.5")
    behave(servers, chatter_bytes=5 * LIMIT // 2)
    started(servers, "--port", "0")
    log = Path(record(servers)["log"])
    last = f"{5 * LIMIT // 2 // 100:010d} "
    wait_until(lambda: last in servers.doit("logs", "-n", "3").out)
    assert sorted(path.name for path in log.parent.glob("m-*")) == [
        f"{log.stem}.json", log.name, f"{log.name}.1",
    ]  # fmt: skip
    assert sum(path.stat().st_size for path in log.parent.glob("m-*.log*")) <= 2 * LIMIT
    shown = servers.doit("logs").out
    assert LIMIT < len(shown) <= 2 * LIMIT
    numbers = [int(line[:10]) for line in shown.splitlines() if line[:10].isdigit()]
    assert numbers == list(range(numbers[0], int(last) + 1))
    assert servers.doit("stop").status == 0


def size(path: Path) -> int:
    """Bytes of a file; 0 for an instant during a rotation, when there is no newest one."""
    with suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def test_followed_into_the_next_file(servers: Project) -> None:
    """Issue 4.3: `logs -f` goes on where the engine's log begins a new file; no line is lost."""
    with_llamafile(servers, version="0.10.5")
    behave(servers, chatter_bytes=LIMIT * 9 // 10, chatter=LIMIT / 10)
    started(servers, "--port", "0")
    log = Path(record(servers)["log"])
    earlier = log.with_name(f"{log.name}.1")
    with servers.start("logs", "-f") as running:
        wait_until(lambda: running.out and earlier.exists() and size(log) > 100_000)
        assert servers.doit("stop").status == 0
        result = running.finish()
    assert result.status == 0
    numbers = [int(line[:10]) for line in result.out.splitlines() if line[:10].isdigit()]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert len(numbers) > LIMIT // 100


def test_which_one(servers: Project) -> None:
    """Issue 4.3: where several run, one has to be named."""
    two_models(servers)
    for name in "ab":
        started(servers, "--model", name, "--port", "0")
    said = failed(servers.doit("logs"), 3)
    assert said.startswith("ERROR: `doit logs` is for one server, and 2 are running\n")
    assert "main: server is listening on" in servers.doit("logs", "--model", "b").out


def test_no_such_log(servers: Project) -> None:
    """Issue 4.3: a model that never ran here, and a count that is none."""
    with_llamafile(servers)
    said = failed(servers.doit("logs", "--model", "m"))
    assert said.startswith("ERROR: m has no log on this machine\n  fix: ")
    assert "there is no model 'nobody'" in failed(servers.doit("logs", "--model", "nobody"), 3)
    for count in ("-1", "x", "1.5"):
        result = servers.doit("logs", "-n", count)
        assert (result.status, result.out) == (3, "")
        assert f"-n: expected a number of lines, got '{count}'" in result.err
