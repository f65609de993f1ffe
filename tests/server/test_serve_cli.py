"""`doit serve` succeeds: from download to answers, and its command line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.fakes import llamafile
from tests.fakes.behaviour import Behaviour
from tests.fakes.llamafile import VARIABLE
from tests.fakes.server import FileServer
from tests.support.ports import free_port
from tests.support.project import Project, Running, interrupt

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

OLD = ["--nobrowser", "--log-disable"]  # what goes to 0.8 and 0.9 first
NAMED = ["--alias", "m"]  # what it gets last, before the arguments of the user
AS_BEFORE = {"ctx_size": 0, "n_predict": 1024}  # what the reference script passed (R11)


def behave(project: Project, **behaviour: Any) -> None:
    """Tell every fake engine how to behave; it always notes its runs."""
    mood: Behaviour = {"history": str(project.path / "history"), **behaviour}  # type: ignore[typeddict-item]
    project.env[VARIABLE] = json.dumps(mood)


def runs(project: Project) -> list[dict[str, Any]]:
    """Return each start of a fake engine: argv, pid, cwd."""
    path = project.path / "history"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def arguments(project: Project) -> list[str]:
    """Return the arguments of the last start of a fake engine."""
    return list(map(str, runs(project)[-1]["argv"]))


def with_llamafile(project: Project, *, version: str = "0.8.6", top: Any = None, **entry: Any) -> bytes:
    """Write a catalogue with the model `m`, a fake llamafile beside models.yaml; its bytes."""
    data = llamafile.build(project.path / "m.llamafile", version=version).read_bytes()
    project.catalogue(
        {"m": project.entry("m.llamafile", data, **{"serve": AS_BEFORE, **entry})}, **(top or {})
    )
    behave(project)
    return data


def with_gguf(project: Project, **entry: Any) -> tuple[Path, Path]:
    """Write a catalogue with the model `g`, a .gguf, and a fake engine for it; both targets."""
    model = llamafile.build_gguf(project.path / "g.gguf").read_bytes()
    exe = llamafile.build_exe(project.path / "llamafile-0.10.5").read_bytes()
    engine = {"title": "llamafile", "license": "Apache-2.0", "version": "0.10.5", "url": "llamafile-0.10.5"}
    pin = {"sha256": hashlib.sha256(exe).hexdigest(), "size": len(exe)}
    project.catalogue({"g": project.entry("g.gguf", model, **entry)}, {"llamafile": {**engine, **pin}})
    behave(project)
    return project.target(model, "g.gguf"), project.program(exe, "llamafile-0.10.5")


def url_in(text: str) -> str:
    """The address that the ready text names."""
    found = re.search(r"is ready at (http://\S+) after", text)
    assert found, text
    return found[1]


@contextmanager
def serving(
    project: Project, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Iterator[tuple[Running, str]]:
    """`doit ARGS` until it is ready; then Ctrl-C, which must end it with 0 and leave nothing."""
    with project.start(*args, env=env, cwd=cwd) as running:
        yield running, url_in(running.wait_for("stop     Ctrl-C"))
        interrupt(running)
        result = running.finish()
        assert (result.status, result.out) == (0, ""), result.err
        assert "has stopped" in result.err


def fetch(url: str, body: Any = None) -> Any:
    """The JSON at a URL; `body` is posted as JSON."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def ask(url: str, text: str) -> str:
    """The model's answer to one message."""
    message = {"role": "user", "content": text}
    chat = fetch(f"{url}/v1/chat/completions", {"messages": [message], "temperature": 0})
    return str(chat["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("version", "olds", "named"),
    [
        pytest.param("0.6.2", ["--nobrowser"], [], id="0.6.2 keeps no log of its own"),
        pytest.param("0.8.6", OLD, NAMED, id="0.8.6"),
        pytest.param("0.9.3", OLD, NAMED, id="0.9.3"),
        pytest.param("0.10.5", [], ["--offline", *NAMED], id="0.10.5 has no --nobrowser"),
    ],
)
def test_from_nothing_to_an_answer(project: Project, version: str, olds: list[str], named: list[str]) -> None:
    """R8, R11, R16, R21, R36: download, chmod, verify, serve; the flags are those of the version."""
    data = with_llamafile(project, version=version)
    target = project.target(data, "m.llamafile")
    with serving(project, "serve", "--port", "0") as (running, url):
        assert ask(url, "Hello") == "Hello"
        steps = [line for line in running.err.splitlines() if line.startswith((". ", "--"))]
        assert steps == [".  download:m", ".  chmod:m", ".  verify:m", ".  serve:m"]
    assert target.read_bytes() == data
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    asked, served = runs(project)
    assert asked["argv"] == ["--version"]
    port = url.rpartition(":")[2]
    endpoint = ["--host", "127.0.0.1", "--port", port]
    limits = ["--ctx-size", "0", "--n-predict", "1024"]
    assert served["argv"] == ["--server", *olds, *endpoint, *limits, *named]


def test_the_second_serve_only_serves(project: Project) -> None:
    """R6, R8, R36: nothing is fetched, made executable or asked for its version a second time."""
    with_llamafile(project)
    for _ in range(2):
        with serving(project, "serve", "--port", "0") as (running, _url):
            pass
    steps = [line for line in running.err.splitlines() if line.startswith((". ", "--"))]
    assert steps == ["-- download:m", "-- chmod:m", "-- verify:m", ".  serve:m"]
    assert [run["argv"][0] for run in runs(project)] == ["--version", "--server", "--server"]


def test_what_is_said_when_it_is_ready(project: Project) -> None:
    """R15, R25: where it is, what it is, how to call it, how to stop it; stdout stays empty."""
    with_llamafile(project, title="The Model 7B", license="CC0-1.0")
    with serving(project, "serve", "--port", "0") as (running, url):
        port = url.rpartition(":")[2]
        log = project.run_folder / f"m-{port}.log"
        text = running.err[running.err.index("m is ready at") :]
        assert re.sub(r"after \d\S* m?s\n", "after N\n", text) == (
            f"m is ready at {url} after N\n"
            "  model    The Model 7B, licence CC0-1.0\n"
            f"  try it   curl {url}/v1/chat/completions -H 'Content-Type: application/json' "
            """-d '{"messages":[{"role":"user","content":"Hello"}]}'\n"""
            f"  clients  OPENAI_BASE_URL={url}/v1  OPENAI_API_KEY=none\n"
            f"  log      {log}\n"
            "  stop     Ctrl-C\n"
        )
        assert f"starting m (llamafile 0.8.6, log {log})" in running.err
        assert f"llama server listening at {url}" in log.read_text()
        assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert running.err.splitlines()[-2] == "m has stopped"
    assert re.fullmatch(r" +serve:m took .*s", running.err.splitlines()[-1])


def test_the_engine_runs_in_the_cache(project: Project) -> None:
    """R12: an old engine writes llama.log into its directory, and that is not the user's."""
    with_llamafile(project)
    before = sorted(os.listdir(project.path))
    with serving(project, "serve", "--port", "0"):
        pass
    assert [run["cwd"] for run in runs(project)] == [str(project.cache / "run"), str(project.run_folder)]
    assert stat.S_IMODE(project.run_folder.stat().st_mode) == 0o700
    left = set(os.listdir(project.path)) - set(before)
    assert left <= {"history", "__pycache__"}


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["serve", "--model=M"], id="--model= in another case"),
        pytest.param(["serve", "--model", "theEMM"], id="alias in another case"),
        pytest.param(["serve:TheEmm"], id="serve:ALIAS"),
    ],
)
def test_ways_to_name_a_model(project: Project, words: list[str]) -> None:
    """R1, R38: the name, an alias, any case, or nothing for the default."""
    with_llamafile(project, aliases=["theemm"], top={"defaults": {"port": 0}})
    with serving(project, *words) as (running, url):
        assert "m is ready at" in running.err
        assert [model["id"] for model in fetch(f"{url}/v1/models")["data"]] == ["m"]


def test_the_default_may_be_an_alias(project: Project) -> None:
    """R1, R37: `default:` of models.yaml takes any name that the command line takes."""
    with_llamafile(project, aliases=["emm"], top={"default": "Emm"})
    result = project.doit("download")
    assert result.status == 0
    assert ".  download:m\n" in result.err


OPTIONS = [
    pytest.param(
        [
            *("--gpu", "auto", "--ngl", "7", "--ctx-size", "11", "--n-predict", "22"),
            "--threads=3",
            "--engine=self",
            "--timeout=30",
        ],
        ["--ctx-size", "11", "--n-predict", "22", "-ngl", "7", "--gpu", "auto", "--threads", "3"],
        id="all at once",
    ),
    pytest.param(
        ["--force-gpu"], ["--ctx-size", "0", "--n-predict", "1024", "-ngl", "9999"], id="--force-gpu"
    ),
    pytest.param(
        ["--gpu", "NVidia", "--n-predict", "-1", "--ngl", "-1"],
        ["--ctx-size", "0", "--n-predict", "-1", "-ngl", "-1", "--gpu", "nvidia"],
        id="any case, -1",
    ),
    pytest.param(
        [
            *("--ngl", "1", "--", "-c", "5", "--fancy-test-flag", "--", "--fancy-test-flag", "serve"),
            *("--fancy-test-flag", "a=b c", "--fancy-test-flag", "* é $HOME", "--threads", "1"),
        ],
        [
            *("--ctx-size", "0", "--n-predict", "1024", "-ngl", "1", "-c", "5", "--fancy-test-flag", "--"),
            *("--fancy-test-flag", "serve", "--fancy-test-flag", "a=b c"),
            *("--fancy-test-flag", "* é $HOME", "--threads", "1"),
        ],
        id="after --, in order and untouched",
    ),
]


@pytest.mark.parametrize(("words", "expected"), OPTIONS)
def test_options_reach_the_engine(project: Project, words: list[str], expected: list[str]) -> None:
    """R10, R17, R24: every setting is on the command line, and in the engine's argv."""
    with_llamafile(project)
    with serving(project, "serve:m", "--host", "127.0.0.1", "--port", "0", *words) as (_, url):
        port = url.rpartition(":")[2]
    head = ["--server", *OLD, "--host", "127.0.0.1", "--port", port]
    got = arguments(project)
    at = got.index("--alias")
    assert got[at : at + 2] == NAMED
    assert [*got[:at], *got[at + 2 :]] == [*head, *expected]


def test_precedence(project: Project) -> None:
    """R17: command line, then the model's `serve:`, then `defaults:`; lists of arguments add up."""
    with_llamafile(
        project,
        top={
            "defaults": {
                "port": 0,
                "ctx_size": 1,
                "n_predict": 2,
                "threads": 3,
                "ngl": 4,
                "gpu": "amd",
                "args": ["--fancy-test-flag", "defaults"],
            }
        },
        serve={"ctx_size": 10, "n_predict": 20, "threads": 30, "args": ["--fancy-test-flag", "serve"]},
    )
    with serving(project, "serve", "--ctx-size", "100", "--", "--fancy-test-flag", "here") as (_, url):
        pass
    assert arguments(project) == [
        *("--server", *OLD, "--host", "127.0.0.1", "--port", url.rpartition(":")[2]),
        *("--ctx-size", "100", "--n-predict", "20", "-ngl", "4", "--gpu", "amd", "--threads", "30"),
        *NAMED,
        *("--fancy-test-flag", "defaults", "--fancy-test-flag", "serve", "--fancy-test-flag", "here"),
    ]


def test_every_address(project: Project) -> None:
    """R10, R17, R27: 0.0.0.0 goes to the engine, with no setting that nobody made; what is said is where
    this machine reaches it, and is looked at past any proxy."""
    with_llamafile(project, serve={})
    proxy = f"http://127.0.0.1:{free_port()}"
    env = {"HTTP_PROXY": proxy, "http_proxy": proxy, "ALL_PROXY": proxy}
    with serving(project, "serve", "--host", "0.0.0.0", "--port", "0", env=env) as (_, url):
        assert url.startswith("http://127.0.0.1:")
        assert ask(url, "all of them") == "all of them"
    port = url.rpartition(":")[2]
    assert arguments(project) == ["--server", *OLD, "--host", "0.0.0.0", "--port", port, *NAMED]


def test_the_engine_knows_its_version_better(project: Project) -> None:
    """R11, R16: what --version says decides about flags; that models.yaml says otherwise is told."""
    with_llamafile(project, version="0.10.5", engine_version="0.9.3")
    with serving(project, "serve", "--port", "0") as (running, _):
        where = project.path / "models.yaml"
        assert f"m says llamafile 0.10.5; {where} says 0.9.3" in running.err
    assert "--nobrowser" not in arguments(project)


FOLDER = "Meine Modelle ☃"


def test_own_file(project: Project, tmp_path: Path) -> None:
    """R2, R6, R8, R12: a file of the user's, seen from their directory, is served where it lies."""
    folder = tmp_path / "elsewhere" / FOLDER
    folder.mkdir(parents=True)
    file = llamafile.build(folder / "Own Model (v1).llamafile", version="0.9.3")
    file.chmod(0o644)
    before = file.read_bytes()
    behave(project)
    own = f"{FOLDER}/Own Model (v1).llamafile"
    with serving(project, "serve", "--llamafile", own, "--port", "0", cwd=folder.parent) as (running, url):
        assert "Own-Model-v1 is ready at" in running.err
        assert ask(url, "mine") == "mine"
    assert file.read_bytes() == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o755
    assert os.listdir(folder) == [file.name]
    assert not (project.cache / "models").exists()
    assert arguments(project)[:3] == ["--server", *OLD]
    with serving(project, "serve", "--llamafile", str(file), "--port", "0") as (running, _):
        assert "-- verify:Own-Model-v1" in running.err


def test_the_catalogue_from_another_directory(project: Project, tmp_path: Path) -> None:
    """R12: models.yaml's relative paths are seen from models.yaml, wherever the user is."""
    data = with_llamafile(project)
    there = tmp_path / "there"
    there.mkdir()
    with serving(project, "serve", "--port", "0", cwd=there):
        pass
    assert project.target(data, "m.llamafile").exists()
    assert os.listdir(there) == []


def test_own_url(project: Project) -> None:
    """R2, R3, R6: a URL is enough; the file's name is the last part of its path, fetched once."""
    data = llamafile.build(project.path / "x", version="0.9.3").read_bytes()
    behave(project)
    with FileServer() as server:
        server.files["/a/My Own.llamafile"] = data
        url = server.url("/a/My Own.llamafile") + "?download=true#top"
        assert "My%20Own" in url
        for word in (f"--llamafile-url={url}", f"--llamafile_url={url}"):
            with serving(project, "serve", word, "--port", "0") as (running, _):
                assert "My-Own is ready at" in running.err
        assert len(server.asked("/a/My Own.llamafile")) == 1
    [found] = project.cache.glob("models/*/My Own.llamafile")
    assert found.read_bytes() == data


def test_gguf(project: Project) -> None:
    """R9: a .gguf is data; llamafile's own program is fetched, proven and run with -m."""
    model, exe = with_gguf(project, serve=AS_BEFORE)
    with serving(project, "serve", "--port", "0") as (running, url):
        assert ask(url, "Hello") == "Hello"
        steps = [line for line in running.err.splitlines() if line.startswith((". ", "--"))]
        assert sorted(steps) == sorted(
            [
                *(".  exe", ".  download:g", "-- chmod:g  (skipped: not an executable)"),
                *(".  verify:g", ".  serve:g"),
            ]
        )
        assert "starting g (llamafile 0.10.5, log " in running.err
    assert stat.S_IMODE(exe.stat().st_mode) == 0o755
    assert stat.S_IMODE(model.stat().st_mode) & 0o111 == 0
    asked, served = runs(project)
    assert asked["argv"] == ["--version"]
    endpoint = ["--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    limits = ["--ctx-size", "0", "--n-predict", "1024"]
    isolated = ["--offline", "--alias", "g"]
    assert served["argv"] == ["--server", "-m", str(model), *endpoint, *limits, *isolated]
    with serving(project, "serve", "--port", "0") as (running, _):
        done = [line for line in running.err.splitlines() if line.startswith(". ")]
        assert done == [".  serve:g"]


def test_llamafile_with_another_engine(project: Project) -> None:
    """R9, R16: --engine llamafile runs an old llamafile's model with the newer program."""
    with_gguf(project)
    own = llamafile.build(project.path / "old.llamafile", version="0.8.6")
    with serving(project, "serve", "--llamafile", str(own), "--engine=llamafile", "--port", "0"):
        pass
    words = arguments(project)
    assert words[:3] == ["--server", "-m", str(own)]
    assert [run["argv"] for run in runs(project)][:-1] == [["--version"]]


def stream(url: str, text: str) -> list[str]:
    """The pieces of a streamed answer, as the openai client gets them."""
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        message = {"role": "user", "content": text}
        asked = {"model": "demo", "messages": [message], "temperature": 0}
        whole = client.chat.completions.create(**asked)
        pieces = client.chat.completions.create(**asked, stream=True)
        parts = [p.choices[0].delta.content for p in pieces if p.choices]
    assert whole.choices[0].message.content == "".join(part or "" for part in parts)
    return [part for part in parts if part]


def test_the_demo_answers(project: Project) -> None:
    """R2, R11: a real engine and a real model, in one command, through the usual client."""
    pytest.importorskip("xllamacpp")
    with serving(project, "serve", "--model", "demo", "--port", "0") as (running, url):
        pieces = stream(url, "Who are you?")
        assert len(pieces) > 3
        assert re.search(r"starting demo \(embedded \d[\d.]+, log ", running.err)
        assert "demo: engine OK, embedded v" in running.err
    own = ["--llamafile", "demo/demo.gguf", "--engine", "embedded"]
    with serving(project, "serve", *own, "--port", "0", "--ctx-size", "512", "--threads", "1") as (_, url):
        assert ask(url, "Who are you?") == "".join(pieces)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_every_signal_stops_it(project: Project, number: signal.Signals) -> None:
    """R14: like Ctrl-C, `kill` and a closed terminal end a ready server in order: status 0."""
    with_llamafile(project)
    with project.start("serve", "--port", "0") as running:
        running.wait_for("stop     Ctrl-C")
        running.send(number)
        result = running.finish()
    assert (result.status, result.out) == (0, "")
    assert "m has stopped" in result.err


def test_a_group_is_stopped_as_a_whole(project: Project) -> None:
    """R28: an engine that forks (an APE's shell, a GPU helper) leaves no child behind."""
    with_llamafile(project)
    behave(project, fork=True)
    with serving(project, "serve", "--port", "0") as (running, _):
        family = running.note_family()
        assert len(family) >= 2, family
    assert not [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
