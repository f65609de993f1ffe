"""The fake llamafile is a file, a command line and a process as the real one is."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.fakes.behaviour import Behaviour, Crash
from tests.fakes.engine_args import Refused, is_server, parse, with_stored
from tests.fakes.llamafile import MAGIC, VARIABLE, build, build_exe, build_gguf, gguf
from tests.support.fake_engines import Start, health, kill_group, posix, ready, until
from tests.support.ports import free_port

pytestmark = pytest.mark.once


# The llamafile: a file


def sh(path: Path, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    shell = sys.executable if os.name == "nt" else "/bin/sh"
    kwargs = {"capture_output": True, "text": True, "timeout": 20, "cwd": path.parent, **kwargs}
    return subprocess.run([shell, str(path), *args], check=False, **kwargs)


@posix
@pytest.mark.parametrize("make", [build, build_exe])
def test_kernel_refuses_it_even_when_executable(make: Callable[[Path], Path], odd: Path) -> None:
    path = make(odd / "m.llamafile")
    path.chmod(0o755)
    with pytest.raises(OSError, match="Exec format error") as caught:
        subprocess.run([str(path), "--version"], check=False)
    assert caught.value.errno == 8
    assert path.read_bytes().startswith(MAGIC + b"\n")


@posix
@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "busybox", "zsh", "ksh"])
def test_shells_run_it(shell: str, odd: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    path = build(odd / "m x.llamafile")
    command = [shell, *(["sh"] if shell == "busybox" else []), str(path), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == ("llamafile v0.8.6\n", "")


@posix
def test_name_without_slash_is_not_found(odd: Path) -> None:
    build(odd / "m")
    done = subprocess.run(["sh", "m"], cwd=odd, capture_output=True, text=True, check=False)
    assert done.returncode == 127
    assert "ape error" in done.stderr


def test_python_runs_it_without_a_shell(odd: Path) -> None:
    path = build(odd / "m.exe", version="0.9.3")
    command = [sys.executable, str(path), "--version"]
    assert subprocess.check_output(command, text=True).strip() == "llamafile v0.9.3"


def test_it_is_a_zip_with_a_stored_aligned_model(tmp_path: Path) -> None:
    path = build(tmp_path / "m", args=["-c", "99"], pad=1000)
    assert zipfile.is_zipfile(path)
    with zipfile.ZipFile(path) as box:
        assert box.testzip() is None
        assert box.read(".args") == b"-m\nmodel.gguf\n-c\n99\n...\n"
        info = box.getinfo("model.gguf")
    assert (info.compress_type, info.file_size) == (zipfile.ZIP_STORED, 1024)
    start = info.header_offset + 30 + len("model.gguf")
    assert start % 65536 == 0
    magic, version, tensors, keys = struct.unpack("<4sIQQ", path.read_bytes()[start : start + 24])
    assert (magic, version, tensors, keys) == (b"GGUF", 3, 0, 0)


def test_same_arguments_build_the_same_bytes_and_pad_grows_them(tmp_path: Path) -> None:
    one, two = build(tmp_path / "1", pad=5000), build(tmp_path / "2", pad=5000)
    assert one.read_bytes() == two.read_bytes()
    assert build(tmp_path / "3").stat().st_size == one.stat().st_size - 5000
    with zipfile.ZipFile(build_exe(tmp_path / "4", pad=9)) as box:
        assert not [name for name in box.namelist() if name.endswith(".gguf")]


def test_gguf_has_the_size_asked_for(tmp_path: Path) -> None:
    data = build_gguf(tmp_path / "m.gguf", size=5000).read_bytes()
    assert (len(data), data[:4]) == (5000, b"GGUF")


# The llamafile: a command line


def test_arguments_follow_the_version() -> None:
    assert parse(["-c", "1", "-c", "2", "--nobrowser"], "0.9.3")["--ctx-size"] == "2"
    assert parse(["-ngl", "all", "--gpu", "vulkan"], "0.10.0")["--gpu-layers"] == "all"
    for argv, version in [
        (["--nobrowser"], "0.10.0"),
        (["--port=1"], "0.8.6"),
        (["--port", "x"], "0.8.6"),
        (["--port"], "0.8.6"),
        (["-ngl", "all"], "0.9.3"),
        (["--gpu", "vulkan"], "0.9.3"),
    ]:
        with pytest.raises(Refused, match=r"^error: "):
            parse(argv, version)


def test_stored_arguments_come_where_the_dots_say() -> None:
    assert with_stored(["a", "...", "b"], ["x", "y"]) == ["a", "x", "y", "b"]
    assert with_stored(["a"], ["x"]) == ["a", "x"]


@pytest.mark.parametrize(
    ("version", "user", "stored", "serves"),
    [
        ("0.8.6", [], [], True),
        ("0.8.14", [], [], False),
        ("0.8.14", [], ["--server"], True),
        ("0.9.3", [], ["--server"], False),
        ("0.9.3", ["--server"], [], True),
        ("0.10.0", [], ["--server"], True),
        ("0.10.0", [], [], False),
    ],
)
def test_server_mode_follows_the_version(
    version: str, user: list[str], stored: list[str], serves: bool
) -> None:
    assert is_server(version, user, with_stored(stored, user)) is serves


def test_terminal_chat_ends_with_its_input(tmp_path: Path) -> None:
    assert sh(build(tmp_path / "m", version="0.9.3"), stdin=subprocess.DEVNULL).returncode == 0


@pytest.mark.parametrize(
    ("behaviour", "status", "out", "err"),
    [
        ({}, 0, "llamafile v0.10.5\n", ""),
        ({"version": "0.10.6"}, 0, "llamafile v0.10.6\n", ""),
        ({"version_status": 3, "version_text": "no AVX"}, 3, "", "no AVX\n"),
        pytest.param({"version_status": -4}, -4, "", "", marks=posix),
    ],
)
def test_version(tmp_path: Path, behaviour: Behaviour, status: int, out: str, err: str) -> None:
    done = sh(build_exe(tmp_path / "exe", behaviour=behaviour), "--version")
    assert (done.returncode, done.stdout, done.stderr) == (status, out, err)


def test_environment_overrides_the_stored_behaviour(tmp_path: Path) -> None:
    path = build(tmp_path / "m", behaviour={"version_status": 3})
    env = {**os.environ, VARIABLE: '{"version_status": 0, "version": "0.9.1"}'}
    assert sh(path, "--version", env=env).stdout == "llamafile v0.9.1\n"


def test_unknown_behaviour_is_an_error_of_the_test(tmp_path: Path) -> None:
    misspelt: Any = {"crash": {"exit": 1}}
    with pytest.raises(ValueError, match="exit"):
        build(tmp_path / "m", behaviour=misspelt)


def test_version_can_hang(tmp_path: Path) -> None:
    path = build(tmp_path / "m", behaviour={"version_hang": True, "version_text": "hanging"})
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([sys.executable, str(path), "--version"], stderr=log)
    try:
        until((tmp_path / "log").read_text, "a sign of life")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    finally:
        process.kill()
        process.wait()


def test_each_run_is_written_down(tmp_path: Path) -> None:
    record, history = tmp_path / "record", tmp_path / "history"
    path = build(tmp_path / "m", behaviour={"record": str(record), "history": str(history)})
    noted = {"LLAMA_API_KEY": "k", "LLAMAFILE_RECIPE_RUN": "r 1"}
    sh(path, "--version", "a b", env={**os.environ, **noted, "OTHER": "x"})
    sh(path, "--version", "ü", env={k: v for k, v in os.environ.items() if k not in noted})
    assert json.loads(record.read_text()) == ["--version", "ü"]
    runs = [json.loads(line) for line in history.read_text().splitlines()]
    assert [run["argv"] for run in runs] == [["--version", "a b"], ["--version", "ü"]]
    assert runs[0]["cwd"] == str(tmp_path)
    assert [run["env"] for run in runs] == [noted, {}]


@pytest.mark.parametrize(
    ("version", "args", "text"),
    [
        ("0.10.5", ["--nobrowser"], "error: unknown argument: --nobrowser"),
        ("0.10.5", ["--server"], "error: missing required -m MODEL.gguf"),
        ("0.9.3", ["--server"], "error: unable to load model"),
        ("0.9.3", ["--server", "-m", "none.gguf"], "No such file or directory"),
        ("0.9.3", ["--server", "-m", "text"], "not a gguf or zip file"),
        ("0.9.3", ["--server", "-m", "a@b/m.gguf"], "failed to load model"),
        ("0.9.3", ["--server", "-m", "two.zip"], "multiple .gguf files found"),
        ("0.8.6", ["--api-key-file", "none"], "error: failed to open file 'none'"),
        ("0.10.5", ["--server", "--api-key-file", "none"], "error: failed to open file 'none'"),
    ],
)
def test_exe_refuses(tmp_path: Path, version: str, args: list[str], text: str) -> None:
    (tmp_path / "a@b").mkdir()
    build_gguf(tmp_path / "a@b" / "m.gguf")
    (tmp_path / "text").write_text("<html>")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as box:
        box.writestr("a.gguf", gguf())
        box.writestr("b.gguf", gguf())
    done = sh(build_exe(tmp_path / "exe", version=version), *args)
    assert (done.returncode, done.stdout) == (1, "")
    assert text in done.stderr
    assert "Traceback" not in done.stderr


# The llamafile: a process


@posix
def test_the_shell_becomes_the_engine_without_a_new_process(start: Start, odd: Path) -> None:
    history = odd / "history"
    process, url, _ = start(build(odd / "m", behaviour={"history": str(history)}))
    ready(url)
    assert json.loads(history.read_text())["pid"] == process.pid


def test_old_engine_refuses_connections_while_it_loads(start: Start, odd: Path) -> None:
    record = odd / "record"
    mood: Behaviour = {"load_seconds": 0.5, "record": str(record)}
    _, url, log = start(build(odd / "m", version="0.9.3", behaviour=mood), "--nobrowser")
    until(record.exists, "the record")
    assert health(url) == (0, None)
    ready(url)
    assert health(url)[1] == {"status": "ok", "slots_idle": 1, "slots_processing": 0}
    until(lambda: f"llama server listening at {url}\n" in log.read_text(), "the line")
    assert url in (odd / "llama.log").read_text()
    assert json.loads(record.read_text())[:2] == ["--server", "--port"]


def test_new_engine_answers_503_while_it_loads(start: Start, odd: Path) -> None:
    path = build(odd / "m", version="0.10.5", behaviour={"load_seconds": 3.0})
    _, url, log = start(path)
    status, body = until(lambda: (h := health(url))[0] and h, "any answer")
    assert (status, body["error"]["message"]) == (503, "Loading model")
    assert requests.get(f"{url}/v1/models", timeout=60).status_code == 200
    assert requests.post(f"{url}/v1/chat/completions", timeout=60).status_code == 503
    ready(url)
    assert health(url)[1] == {"status": "ok"}
    until(lambda: f"server is listening on {url} " in log.read_text(), "the line")


def test_it_chats_and_checks_the_key(start: Start, odd: Path) -> None:
    exe, model = build_exe(odd / "exe"), build_gguf(odd / "small.gguf")
    _, url, _ = start(exe, "-m", str(model), "--api-key", "k", "--fancy-test-flag", "v")
    ready(url)
    assert requests.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"] == "small.gguf"
    body = {"messages": [{"role": "user", "content": "hello"}]}
    key = {"Authorization": "Bearer k"}
    chat = f"{url}/v1/chat/completions"
    assert requests.post(chat, json=body, timeout=60).status_code == 401
    answer = requests.post(chat, json=body, headers=key, timeout=60).json()
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "hello"}
    assert requests.post(chat, data="{", headers=key, timeout=60).status_code == 400


def test_exe_serves_the_model_inside_another_llamafile(start: Start, odd: Path) -> None:
    inside = build(odd / "m.llamafile", args=["--port", "1"])  # its .args do not count
    _, url, _ = start(build_exe(odd / "exe"), "-m", str(inside))
    ready(url)
    assert requests.get(f"{url}/v1/models", timeout=60).json()["data"][0]["id"] == "model.gguf"


@posix
@pytest.mark.parametrize(
    ("version", "number", "status"),
    [("0.9.3", 2, 0), ("0.9.3", 15, -15), ("0.10.5", 2, 0), ("0.10.5", 15, 0)],
)
def test_signals(start: Start, odd: Path, version: str, number: int, status: int) -> None:
    process, url, _ = start(build(odd / "m", version=version))
    ready(url)
    process.send_signal(number)
    assert process.wait(60) == status


@posix
def test_old_engine_has_no_handler_while_it_loads(start: Start, odd: Path) -> None:
    record = odd / "record"
    mood: Behaviour = {"load_seconds": 60, "record": str(record)}
    process, _, _ = start(build(odd / "m", behaviour=mood))
    until(record.exists, "the record")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == -signal.SIGINT


@posix
def test_stopping_can_take_time(start: Start, odd: Path) -> None:
    path = build(odd / "m", version="0.10.5", behaviour={"stop_seconds": 0.3})
    process, url, _ = start(path)
    ready(url)
    started = time.monotonic()
    process.terminate()
    assert process.wait(60) == 0
    assert time.monotonic() - started > 0.25


@posix
def test_signals_can_be_ignored(start: Start, odd: Path) -> None:
    mood: Behaviour = {"ignore_sigint": True, "ignore_sigterm": True}
    process, url, _ = start(build(odd / "m", version="0.10.5", behaviour=mood))
    ready(url)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    assert health(url)[0] == 200


@posix
@pytest.mark.parametrize(
    ("crash", "status"), [({"status": 7}, 7), ({"signal": 11}, -11), ({"after": 0.2}, 1)], ids=repr
)
def test_crash(start: Start, odd: Path, crash: Crash, status: int) -> None:
    mood: Behaviour = {"crash": {"text": "out of memory", **crash}}
    process, _, log = start(build(odd / "m", behaviour=mood))
    assert process.wait(60) == status
    assert "out of memory" in log.read_text()


@posix
def test_forked_child_outlives_its_parent_unless_the_group_is_stopped(start: Start, odd: Path) -> None:
    process, url, _ = start(build(odd / "m", behaviour={"fork": True}))
    try:
        ready(url)
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
        assert health(url)[0] == 200
    finally:
        kill_group(process.pid)
    until(lambda: health(url)[0] == 0, "the end of the group")


def server_behind(path: Path, gone: int) -> psutil.Process | None:
    """The process that runs this file, but for the one that left."""
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != gone and str(path) in (process.info["cmdline"] or []):
            return process
    return None


@posix
@pytest.mark.parametrize("key", ["leave", "leave_session"])
def test_starter_leaves_and_its_child_serves(start: Start, odd: Path, key: str) -> None:
    mood: Any = {key: True, "load_seconds": 0.1}
    path = build(odd / "m", behaviour=mood)
    process, url, _ = start(path)
    child = None
    try:
        assert process.wait(60) == 0
        ready(url)
        child = server_behind(path, process.pid)
        assert child is not None
        groups = (os.getpgid(child.pid), os.getsid(child.pid))
        assert groups == ((child.pid,) * 2 if key == "leave_session" else (process.pid,) * 2)
    finally:
        if child:
            child.kill()
        else:
            kill_group(process.pid)
    until(lambda: health(url)[0] == 0, "the end of the child")


@pytest.mark.parametrize(("version", "hops"), [("0.9.3", True), ("0.10.5", False)])
def test_busy_port(start: Start, odd: Path, version: str, hops: bool) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port: int = busy.getsockname()[1]
        process, _, log = start(build(odd / "m", version=version), port=port)
        if hops:
            until(lambda: "listening at http://127.0.0.1:" in log.read_text(), "the line")
            url = log.read_text().split("listening at ")[1].split()[0]
            assert port < int(url.rpartition(":")[2]) <= port + 10
            assert health(url)[0] == 200
        else:
            assert process.wait(60) == 1
            assert "couldn't bind HTTP server socket" in log.read_text()


@pytest.mark.parametrize(
    ("version", "behaviour", "status"),
    [
        ("0.9.3", {"silent": True}, 0),
        ("0.10.5", {"silent": True}, 503),
        ("0.10.5", {"health_status": 500}, 500),
    ],
)
def test_it_may_never_become_ready(
    start: Start, odd: Path, version: str, behaviour: Behaviour, status: int
) -> None:
    record = odd / "record"
    process, url, _ = start(build(odd / "m", version=version, behaviour={**behaviour, "record": str(record)}))
    until(record.exists, "the record")
    until(lambda: health(url)[0] == status, f"{status} from /health")
    assert process.poll() is None


def test_old_engine_gives_up_after_ten_hops(start: Start, odd: Path) -> None:
    path = build(odd / "m", version="0.9.3")
    with contextlib.ExitStack() as stack:
        port = busy_row(stack, 11)
        process, _, log = start(path, port=port)
        assert process.wait(60) == 1
        assert f"couldn't bind to server socket: hostname=127.0.0.1 port={port + 10}\n" in log.read_text()
    with contextlib.ExitStack() as stack:
        port = busy_row(stack, 10)
        _, _, log = start(path, port=port)
        until(
            lambda: f"llama server listening at http://127.0.0.1:{port + 10}\n" in log.read_text(), "the line"
        )
        ready(f"http://127.0.0.1:{port + 10}")


def busy_row(stack: contextlib.ExitStack, count: int) -> int:
    """Take so many ports in a row, with one free behind them; the first."""
    for _ in range(100):
        first = free_port()
        with contextlib.ExitStack() as row, contextlib.suppress(OSError):
            for port in range(first, first + count):
                listener = row.enter_context(socket.socket())
                listener.bind(("127.0.0.1", port))
                listener.listen()
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", first + count))
            stack.enter_context(row.pop_all())
            return first
    raise AssertionError("no ports in a row")


@pytest.mark.parametrize("version", ["0.9.3", "0.10.5"])
def test_it_says_what_it_is_told_while_it_loads(start: Start, odd: Path, version: str) -> None:
    lines = ["llm_load_tensors: offloaded 0/33 layers to GPU", "ünï"]
    mood: Behaviour = {"say": lines, "silent": True}
    _, _, log = start(build(odd / "m", version=version, behaviour=mood))
    until(lambda: log.read_text() == "".join(f"{line}\n" for line in lines), "the lines")


def test_chatter_at_once_is_whole_and_quick(start: Start, odd: Path) -> None:
    size = 30_000_050
    _, url, log = start(build(odd / "m", version="0.10.5", behaviour={"chatter_bytes": size}))
    ready(url)
    until(lambda: log.stat().st_size > size, "the bytes")
    time.sleep(0.1)
    head, _, rest = log.read_bytes().partition(b"loop\n")
    assert b"server is listening" in head
    assert len(rest) == size
    lines = rest.splitlines()
    assert [int(line[:10]) for line in lines[:-1]] == list(range(1, len(lines)))
    assert {len(line) for line in lines[:-1]} == {99}
    assert health(url)[0] == 200


def test_chatter_goes_on(start: Start, odd: Path) -> None:
    _, url, log = start(build(odd / "m", version="0.10.5", behaviour={"chatter": 2_000_000}))
    ready(url)
    until(lambda: log.stat().st_size > 100_000, "some chatter")
    began, before = time.monotonic(), log.stat().st_size
    time.sleep(0.5)
    rate = (log.stat().st_size - before) / (time.monotonic() - began)
    assert 500_000 < rate < 8_000_000


@posix
def test_chatter_that_nobody_reads_kills_nobody(odd: Path) -> None:
    port = free_port()
    mood: Behaviour = {"chatter": 100_000}
    command = [
        "/bin/sh",
        str(build(odd / "m", version="0.10.5", behaviour=mood)),
        "--server",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(command, cwd=odd, stderr=subprocess.PIPE)
    try:
        ready(f"http://127.0.0.1:{port}")
        assert process.stderr
        process.stderr.close()
        time.sleep(0.2)
        assert health(f"http://127.0.0.1:{port}")[0] == 200
    finally:
        process.kill()
        process.wait(60)
