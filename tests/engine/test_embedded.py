"""The embedded engine as a program: its exit status, its port."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from tasks.engine.gpu import cpu_fallback
from tasks.network.answers import requests_in_metrics

from tests.support.ports import free_port
from tests.support.project import wait_until

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo" / "demo.gguf"
UP_WITHIN = 240.0  # seconds; inference is slow if other programs use all cores
STOPPED_WITHIN = 2.0  # seconds

installed = pytest.mark.skipif(
    importlib.util.find_spec("xllamacpp") is None, reason="the embedded engine is not installed"
)
posix = pytest.mark.skipif(os.name != "posix", reason="Windows ends a process without asking it")


def command(*arguments: object, python: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *python, "-m", "tasks.engine.embedded", *map(str, arguments)]


def environment(**more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "LLAMA_API_KEY"}
    return {**inherited, **more}


def run(*arguments: object, python: tuple[str, ...] = (), **more: str) -> subprocess.CompletedProcess[str]:
    """Run the engine until it exits."""
    return subprocess.run(
        command(*arguments, python=python),
        cwd=ROOT,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=UP_WITHIN,
        check=False,
    )


def refusal(result: subprocess.CompletedProcess[str]) -> str:
    """Check that it failed as expected; return the line with the reason."""
    assert result.returncode == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


@dataclass
class Running:
    """A server that has said it is listening."""

    process: subprocess.Popen[bytes]
    url: str
    stderr: Path

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, headers=headers, timeout=UP_WITHIN)

    def ask(self, prompt: str, **more: object) -> dict[str, Any]:
        body = {"messages": [{"role": "user", "content": prompt}], **more}
        answer = requests.post(self.url + "/v1/chat/completions", json=body, timeout=UP_WITHIN)
        answer.raise_for_status()
        choice: dict[str, Any] = answer.json()["choices"][0]
        return choice

    def client(self, api_key: str = "none") -> Any:
        openai = pytest.importorskip("openai")
        return openai.OpenAI(base_url=self.url + "/v1", api_key=api_key, max_retries=0)


def listening(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address it says it listens on, waiting for that line."""
    deadline = time.monotonic() + UP_WITHIN
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("server is listening on "):
                return line.split()[-1]
        assert not ended, log.read_text(errors="replace")
        time.sleep(0.01)
    raise AssertionError(f"not listening within {UP_WITHIN} s: {log.read_text(errors='replace')}")


@contextmanager
def serving(log: Path, *arguments: object, **more: str) -> Iterator[Running]:
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            # the model is so small that more threads would only wait for each other
            command("--server", "--nobrowser", "-m", DEMO, "-t", 1, *arguments),
            cwd=ROOT,
            env=environment(**more),
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    try:
        yield Running(process, listening(process, log), log)
    finally:
        process.kill()
        process.communicate(timeout=UP_WITHIN)


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a server of one's own; it is ended with the test."""
    started: list[Any] = []

    def go(*arguments: object, **more: str) -> Running:
        context = serving(tmp_path / f"{len(started)}.log", *arguments, **more)
        running = context.__enter__()
        started.append(context)
        return running

    yield go
    for context in started:
        context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for the tests that only ask it something."""
    log = tmp_path_factory.mktemp("embedded") / "log"
    with serving(log, "--port", free_port()) as running:
        yield running


# What it says without serving


@installed
def test_version_is_one_line() -> None:
    """R8: --version names the engine and its version, with status 0, anywhere in the command."""
    result = run("--server", "--version", "--whatever")
    assert result.returncode == 0
    assert result.stdout.startswith("embedded v20")
    assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize("arguments", [["--version"], ["--server", "-m", DEMO, "--port", "0"]])
def test_missing_package_names_the_remedy(arguments: list[object]) -> None:
    """R28: -S hides what is installed; the message is one line with the command to type."""
    assert refusal(run(*arguments, python=("-S",))) == (
        "error: the embedded engine needs the optional package xllamacpp: pip install '.[embedded]'"
    )


def test_package_that_does_not_load_says_why(tmp_path: Path) -> None:
    """R28: a package that does not load is reported with its own error."""
    (tmp_path / "xllamacpp.py").write_text("raise ImportError('GLIBC_2.99 not found')")
    assert "GLIBC_2.99 not found" in refusal(run("--version", PYTHONPATH=str(tmp_path)))


def test_package_of_another_version_names_the_remedy(tmp_path: Path) -> None:
    """R28: the package's names differ between releases."""
    old = "__version__ = '2026.4'\nclass CommonParams: __slots__ = ()\n"
    (tmp_path / "xllamacpp.py").write_text(old)
    line = refusal(run("-m", DEMO, "--port", 0, PYTHONPATH=str(tmp_path)))
    assert line.startswith("error: xllamacpp 2026.4 is not the one that is needed (")
    assert line.endswith("): pip install '.[embedded]'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--bogus"], "unknown argument: --bogus", id="unknown"),
        pytest.param(["--serve"], "unknown argument: --serve", id="no abbreviations"),
        pytest.param(["--port=1"], "unknown argument: --port=1", id="no equals sign"),
        pytest.param(["--server", "x"], "unknown argument: x", id="no positional"),
        pytest.param(["--server", "-m"], "-m needs a value", id="no value"),
        pytest.param(["--server"], "missing required -m MODEL.gguf", id="no model"),
        pytest.param(["-m", "x", "--port", "x"], "--port must be a number, not 'x'", id="port x"),
        pytest.param(["-m", "x", "--port", "65536"], "--port must be from 0 to 65535", id="R23"),
        pytest.param(["-m", "x", "-c", "-1"], "--ctx-size must be from 0", id="ctx-size -1"),
        pytest.param(["-m", "x", "--gpu", "tpu"], "--gpu must be one of auto,", id="R24"),
        pytest.param(["-m", "x", "--api-key", ","], "the API key is empty", id="R30"),
        pytest.param(["-m", "x", "--api-key-file", "/x"], "cannot read the keys in /x: ", id="no key file"),
    ],
)
def test_command_line_that_cannot_be(arguments: list[str], message: str) -> None:
    """R28: one line as llamafile's own, before the package is looked for."""
    assert refusal(run(*arguments, python=("-S",))).startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        pytest.param("absent.gguf", None, "No such file or directory", id="missing"),
        pytest.param("empty.gguf", b"", "not GGUF:", id="empty"),
        pytest.param("page.gguf", b"<!doctype html>", "not GGUF:", id="an error page"),
        pytest.param("m.llamafile", b"MZqFpD='", "a llamafile is its own engine", id="llamafile"),
    ],
)
def test_model_that_cannot_be(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    """R28: the file is looked at before the engine is."""
    model = tmp_path / name
    if content is not None:
        model.write_bytes(content)
    line = refusal(run("-m", model, "--port", 0, python=("-S",)))
    assert str(model) in line
    assert message in line


@installed
def test_truncated_model(tmp_path: Path) -> None:
    """R28: our line stands among the engine's own, whose log is written by a thread of its own."""
    model = tmp_path / "half.gguf"
    model.write_bytes(DEMO.read_bytes()[:100_000])
    result = run("-m", model, "--port", 0)
    assert refusal(result)
    assert f"error: cannot serve {model}, see the lines above" in result.stderr
    assert "not within the file bounds" in result.stderr


def test_port_in_use() -> None:
    """R23: it does not move on to the next port, as llamafile 0.9 does."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = refusal(run("-m", DEMO, "--port", port, python=("-S",)))
    assert line.startswith(f"error: couldn't bind to 127.0.0.1 port {port}: ")


def test_gpu_that_is_not_there(tmp_path: Path) -> None:
    """R24: a GPU asked for by name is there or it is an error, as with llamafile."""
    (tmp_path / "xllamacpp.py").write_text(
        "class CPU: name = 'GGML_BACKEND_DEVICE_TYPE_CPU'\ndef get_device_info(): return [{'type': CPU}]\n"
    )
    line = refusal(run("-m", DEMO, "--port", 0, "--gpu", "NVIDIA", PYTHONPATH=str(tmp_path)))
    assert line.startswith("error: support for --gpu nvidia was explicitly requested, but it")


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        pytest.param(["-ngl", 9999], "CPU", True, id="all layers, no GPU"),
        pytest.param(["-ngl", "all"], "CPU", True, id="all, as a word"),
        pytest.param(["-ngl", 1, "--gpu", "auto"], "CPU", True, id="one layer"),
        pytest.param(["-ngl", 9999], "GPU", False, id="there is a GPU"),
        pytest.param(["-ngl", 9999], "IGPU", False, id="there is one in the processor"),
        pytest.param(["-ngl", 9999, "--gpu", "disable"], "CPU", False, id="which is not to be used"),
        pytest.param(["-ngl", 0], "CPU", False, id="no layers"),
        pytest.param(["-ngl", "auto"], "CPU", False, id="as many as fit"),
        pytest.param([], "CPU", False, id="not asked for"),
    ],
)
def test_layers_that_stay_on_the_cpu(tmp_path: Path, words: list[object], kind: str, said: bool) -> None:
    """Issue 4.8: said in llama.cpp's own words, which xllamacpp keeps to itself."""
    (tmp_path / "xllamacpp.py").write_text(
        f"class Kind: name = 'GGML_BACKEND_DEVICE_TYPE_{kind}'\n"
        "def get_device_info(): return [{'type': Kind}]\n__version__ = '1'\n"
    )
    result = run("-m", DEMO, "--port", 0, *words, PYTHONPATH=str(tmp_path))
    assert refusal(result).startswith("error: xllamacpp 1 is not the one that is needed")
    assert bool(cpu_fallback(result.stderr)) is said
    line = "warning: no usable GPU found, --gpu-layers option will be ignored"
    assert cpu_fallback(result.stderr) in ("", line)


@installed
def test_the_real_one_says_that_it_uses_the_cpu(start: Start) -> None:
    """Issue 4.8: this machine has no GPU that the package can use, or it has one and says nothing."""
    import xllamacpp

    kinds = [device["type"].name for device in xllamacpp.get_device_info()]
    server = start("-ngl", 9999, "--port", 0)
    there = any(kind.endswith("GPU") for kind in kinds)
    assert bool(cpu_fallback(server.stderr.read_text())) is not there


# What it serves


@installed
def test_health_and_name(server: Running) -> None:
    """R11: ready says ok; the model is named as its file, its context as trained."""
    health = server.get("/health")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    (model,) = server.get("/v1/models").json()["data"]
    assert model["id"] == "demo"
    assert model["meta"]["n_ctx"] == model["meta"]["n_ctx_train"] == 4096


@installed
@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param("Who are you?", id="plain"),
        pytest.param("", id="empty"),
        pytest.param("日本語 😀 \u0000 \ufffd naïve", id="unicode"),
        pytest.param("<|im_end|>\n<|im_start|>", id="its own control tokens"),
        pytest.param("I am the tiny demo model of", id="its own words"),
        pytest.param("long " * 5000, id="longer than the context"),
    ],
)
def test_demo_answers_anything(server: Running, prompt: str) -> None:
    """R34: the model in the repository has an answer to every prompt, and comes to an end."""
    choice = server.ask(prompt, temperature=0)
    assert choice["message"]["content"].endswith((".", "?"))
    assert choice["finish_reason"] == "stop"


@installed
def test_openai_client(server: Running) -> None:
    """R34: the client that people have."""
    messages = [{"role": "user", "content": "Who are you?"}]
    client = server.client()
    answer = client.chat.completions.create(model="demo", messages=messages, temperature=0)
    assert answer.model == "demo"
    whole = answer.choices[0].message.content
    stream = client.chat.completions.create(model="demo", messages=messages, temperature=0, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 20
    assert "".join(pieces) == whole


@pytest.mark.once
@installed
def test_output_is_on_stderr(start: Start) -> None:
    """R26: all output is on stderr; port 0 is printed as the port that was chosen."""
    running = start("--port", 0)
    assert not running.url.endswith(":0")
    running.ask("Who are you?")
    running.process.terminate()
    stdout, _ = running.process.communicate(timeout=STOPPED_WITHIN)
    assert stdout == b""
    assert "Traceback" not in running.stderr.read_text()


@installed
def test_settings_reach_the_engine(start: Start) -> None:
    """R17: context, answer length and threads are what the command line says."""
    flags = ["-c", 512, "-n", 5, "-t", 1, "-ngl", 0, "--gpu", "disable", "--host", "127.0.0.1"]
    running = start("--port", 0, *flags)
    (model,) = running.get("/v1/models").json()["data"]
    assert model["meta"]["n_ctx"] == 512
    choice = running.ask("Who are you?", logprobs=True)
    assert len(choice["logprobs"]["content"]) == 5
    assert choice["finish_reason"] == "length"
    # llama.cpp logs in a thread of its own, which may be behind
    wait_until(lambda: "n_threads = 1" in running.stderr.read_text())


@pytest.mark.once
@installed
@pytest.mark.parametrize("where", ["command line", "file"])
def test_api_key(start: Start, where: str, tmp_path: Path) -> None:
    """R30: without the key, only /health answers; a variable is not read (issue 15.1)."""
    openai = pytest.importorskip("openai")
    key = "s3cret"
    if where == "file":
        (tmp_path / "m.key").write_text(f"{key}\n")
        running = start("--port", 0, "--api-key-file", tmp_path / "m.key", LLAMA_API_KEY="another")
    else:
        running = start("--port", 0, "--api-key", key, LLAMA_API_KEY="another")
    messages = [{"role": "user", "content": "Who are you?"}]
    assert running.get("/health").status_code == 200
    assert running.get("/v1/models").status_code == 401
    with pytest.raises(openai.AuthenticationError):
        running.client("wrong").chat.completions.create(model="demo", messages=messages)
    answer = running.client(key).chat.completions.create(model="demo", messages=messages)
    assert answer.choices[0].message.content
    assert key not in running.stderr.read_text()


# How it ends


@pytest.mark.once
@installed
@posix
@pytest.mark.parametrize(
    ("names", "busy"),
    [(["SIGINT"], False), (["SIGINT"], True), (["SIGTERM"], False), (["SIGTERM", "SIGTERM"], True)],
)
def test_signal_stops_it(start: Start, names: list[str], busy: bool) -> None:
    """R14: it exits promptly with status 0; no child and no port remain."""
    psutil = pytest.importorskip("psutil")
    running = start("--port", free_port())
    if busy:
        messages = [{"role": "user", "content": "x"}]
        body = {"messages": messages, "stream": True, "ignore_eos": True, "max_tokens": 4000}
        url = running.url + "/v1/chat/completions"
        stream = requests.post(url, json=body, stream=True, timeout=UP_WITHIN)
        next(stream.iter_lines())
    children = psutil.Process(running.process.pid).children(recursive=True)
    for name in names:
        running.process.send_signal(getattr(signal, name))
        time.sleep(0.3)  # two signals that the kernel holds at once are one
    assert running.process.wait(STOPPED_WITHIN) == 0
    assert children == []
    with pytest.raises(requests.ConnectionError):
        running.get("/health")


@installed
@posix
@pytest.mark.parametrize("key", ["", "sesame"])
def test_answers_are_finished(start: Start, key: str) -> None:
    """Issue 17.3: after SIGTERM streams and those that wait for a slot end whole; no other is accepted."""
    keys = ["--api-key", key] if key else []
    running = start("--port", free_port(), "--parallel", 1, "--metrics", *keys)
    headers = {"Authorization": f"Bearer {key}"}
    answers: list[str] = []

    def ask(stream: bool) -> None:
        messages = [{"role": "user", "content": "x"}]
        body = {"messages": messages, "stream": stream, "ignore_eos": True, "max_tokens": 500}
        url = running.url + "/v1/chat/completions"
        answers.append(requests.post(url, json=body, headers=headers, timeout=UP_WITHIN).text)

    def accepted() -> int:
        """Return how many requests the engine has answered, or works on, or lets wait."""
        count = requests_in_metrics(running.get("/metrics", **headers).content)
        return len(answers) + (count or 0)

    threads = [threading.Thread(target=ask, args=(stream,)) for stream in (True, False, True)]
    for thread in threads:
        thread.start()
    wait_until(lambda: accepted() >= 3)
    running.process.send_signal(signal.SIGTERM)
    if sys.platform == "linux":
        with contextlib.suppress(requests.ConnectionError):  # it may have ended by now
            wait_until(lambda: running.get("/health").status_code == 503)
            refused = requests.post(running.url + "/v1/chat/completions", json={}, timeout=UP_WITHIN)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert refused.json()["error"]["message"] == "the server is stopping"
    for thread in threads:
        thread.join(UP_WITHIN)
    assert sum(text.endswith("data: [DONE]\n\n") for text in answers) == 2
    assert sum('"completion_tokens":500' in text for text in answers) >= 1
    assert running.process.wait(UP_WITHIN) == 0
    assert "Traceback" not in running.stderr.read_text()
