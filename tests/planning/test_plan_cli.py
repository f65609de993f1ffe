"""`doit plan`: what is known before anything is done (issue 5.5)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.llamafile import gguf
from tests.fakes.server import FileServer
from tests.support.project import REPO, Project, Result, interrupt

DATA = gguf(3_000_000)
DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
URL = "https://example.org/m.gguf"


@pytest.fixture
def planned(project: Project) -> Project:
    """A catalogue with a file that nobody can be asked for: a plan asks nobody."""
    entry = project.entry(URL, DATA, engine="embedded", params="7B", serve={"ctx_size": 4096})
    project.catalogue({"m": entry})
    return project


def as_json(result: Result) -> Any:
    assert result.err == ""
    return json.loads(result.out)


def files(result: Result) -> list[tuple[str, str, int | None]]:
    """(state, source, bytes to fetch) of each file."""
    return [(one["state"], one["source"], one["to_fetch"]) for one in as_json(result)["files"]]


def test_a_file_that_would_come(planned: Project) -> None:
    """Issue 5.5: from where, how many bytes, disk and memory; nothing is asked and nothing written."""
    shown = planned.doit("plan")
    assert (shown.status, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[1].split() == ["m", "fetch", "3.00", "MB", "3.00", "MB", URL]
    assert "network  3.00 MB" in lines
    assert "memory   m needs about 834.8 MB (weights 3.00 MB, about 531.8 MB for 4096 tokens); " in shown.out
    result = planned.doit("plan", "--json")
    assert files(result) == [("fetch", URL, 3_000_000)]
    data = as_json(result)
    assert (data["to_fetch"], data["to_fetch_is_exact"], data["works"]) == (3_000_000, True, True)
    assert data["disk"]["free"] - data["disk"]["afterwards"] == 3_000_000
    assert not (planned.cache / "models").exists()


def test_a_file_of_the_hub(project: Project) -> None:
    """Issue 17.9: table, JSON and the question before a download name the mirror that is asked."""
    path = f"/o/r/resolve/{'1' * 40}/m.gguf"
    project.catalogue({"m": project.entry(f"https://huggingface.co{path}", DATA, engine="embedded")})
    for env, host, hub in (
        ({}, "huggingface.co", "https://huggingface.co"),
        ({"HF_ENDPOINT": "https://mirror.invalid/hf"}, "mirror.invalid", "https://mirror.invalid/hf"),
    ):
        result = project.doit("plan", env=env)
        assert result.out.splitlines()[1].endswith(f" {host} o/r@11111111")
        assert files(project.doit("plan", "--json", env=env)) == [("fetch", f"{hub}{path}", 3_000_000)]


def test_a_file_that_is_here(planned: Project, tmp_path: Path) -> None:
    """Issue 5.5: have; and after an edit of the disk, changed."""
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "m.gguf").write_bytes(DATA)
    planned.catalogue({"m": planned.entry(URL, DATA, engine="embedded")}, adopt_from=[str(tmp_path / "nas")])
    assert files(planned.doit("plan", "--json")) == [("adopt", str(tmp_path / "nas" / "m.gguf"), 0)]
    assert files(planned.doit("plan", "--json", "--no-adopt")) == [("fetch", URL, 3_000_000)]
    assert planned.doit("download").status == 0
    target = planned.target(DATA, "m.gguf")
    assert files(planned.doit("plan", "--json")) == [("have", str(target), 0)]
    target.write_bytes(DATA[:-1])
    assert files(planned.doit("plan:m", "--json")) == [("changed", str(target), 0)]


def test_a_download_that_was_interrupted(project: Project) -> None:
    """Issue 5.5: it goes on where it stopped."""
    with FileServer() as server:
        server.files["/m.gguf"] = DATA
        server.set_rate("/m.gguf", 1_000_000)
        project.catalogue({"m": project.entry(server.url("/m.gguf"), DATA, engine="embedded")})
        with project.start("download") as running:
            server.wait_sent("/m.gguf", 2_000_000)
            interrupt(running)
            assert running.finish().status == 130
    [(state, _, rest)] = files(project.doit("plan", "--json"))
    assert state == "resume"
    assert rest is not None
    assert 0 < rest < len(DATA)
    assert "resume from" in project.doit("plan").out


def test_the_demo_is_copied_and_its_memory_is_known(project: Project) -> None:
    """Issue 5.5: weights plus the KV cache for the asked context, from the file's own metadata."""
    result = project.doit("plan", "--model", "demo", "--ctx-size", "1000", "--json")
    [memory] = as_json(result)["memory"]["models"]
    assert files(result) == [("copy", str(project.path / "demo" / "demo.gguf"), 0)]
    assert (memory["exact"], memory["context"], memory["weights"]) == (True, 1000, len(DEMO))
    twice = as_json(project.doit("plan", "--model", "demo", "--ctx-size", "2000", "--json"))
    assert twice["memory"]["models"][0]["cache"] == 2 * memory["cache"] > 0


def test_several_models_and_the_program_they_need(project: Project) -> None:
    """Issue 5.5: each file once, llamafile's own program too."""
    program = {"version": "0.10.5", "url": "https://example.org/llamafile", "size": 7}
    engines = {"llamafile": {"title": "l", "license": "MIT", **program}}
    entries = {name: project.entry(f"https://example.org/{name}.gguf", name.encode()) for name in ("a", "b")}
    project.catalogue(entries, engines)
    result = project.doit("plan", "--model", "a", "--model", "b", "--json")
    assert [one["file"] for one in as_json(result)["files"]] == ["a", "b", "llamafile 0.10.5"]
    assert as_json(result)["to_fetch"] == 1 + 1 + 7


def test_an_unknown_size(project: Project) -> None:
    """Issue 5.5: what nobody says is not invented."""
    project.catalogue({"m": {**project.entry(URL), "engine": "embedded"}})
    result = project.doit("plan")
    assert result.status == 0
    assert "network  not known" in result.out
    assert " free, not known afterwards" in result.out
    assert "note     ?: `doit lock --upgrade --model m` asks publishers for the size\n" in result.out
    assert as_json(project.doit("plan", "--json"))["to_fetch_is_exact"] is False


@pytest.mark.parametrize(
    ("params", "ctx", "expected"),
    [
        ("1B", "4096", "needs about 7.00 GB (models.yaml); "),
        ("1B", "512", "needs about 7.00 GB (models.yaml); "),
        ("1B", "1000000", "needs about 64.1 GB (7.00 GB in models.yaml, about 57.1 GB beyond 4096 tokens); "),
        ("big", "1000000", "needs about 7.00 GB (models.yaml; more at 1000000 tokens); "),
        ("1B", "0", "needs about 7.00 GB (models.yaml; more at the model's full context); "),
    ],
)
def test_the_context_of_an_unknown_size(project: Project, params: str, ctx: str, expected: str) -> None:
    """Issue 14.2: `ram:` includes 4096 tokens; those beyond take more."""
    project.catalogue({"m": project.entry(URL, engine="embedded", ram=7, params=params)})
    assert f"memory   m {expected}" in project.doit("plan", "--ctx-size", ctx).out


@pytest.mark.parametrize(
    ("change", "env", "what", "fix"),
    [
        pytest.param(
            {"size": 10**16}, {}, "cannot work: the disk has ", "LLAMAFILE_CACHE on another disk", id="disk"
        ),
        pytest.param(
            {"params": "900000B", "serve": {"ctx_size": 1_000_000}}, {},
            " of memory, and ", "a smaller --ctx-size, or a smaller model", id="memory",
        ),
        pytest.param(
            {"sha256": None}, {"CI": "true"}, "m is not pinned; --frozen and CI=true allow pinned files only",
            "`doit lock --model m`, and commit models.lock", id="frozen",
        ),
        pytest.param(
            {}, {"LLAMAFILE_OFFLINE": "1"}, "LLAMAFILE_OFFLINE forbids the network",
            "unset LLAMAFILE_OFFLINE", id="offline",
        ),
        pytest.param(
            {"url": "https://huggingface.co/o/r/resolve/main/m.gguf"}, {"HF_ENDPOINT": "hf-mirror.com"},
            "HF_ENDPOINT: expected https://HOST, got hf-mirror.com", "set HF_ENDPOINT=https://HOST",
            id="an endpoint that is no URL",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work(
    project: Project, change: dict[str, Any], env: dict[str, str], what: str, fix: str
) -> None:
    """Issue 5.5: status 1, the reason and the remedy."""
    entry = {**project.entry(URL, DATA, engine="embedded"), **change}
    project.catalogue({"m": {key: value for key, value in entry.items() if value is not None}})
    result = project.doit("plan", env=env)
    assert (result.status, result.err) == (1, "")
    assert what in result.out
    assert fix in result.out
    data = as_json(project.doit("plan", "--json", env=env))
    assert (data["works"], len(data["problems"])) == (False, 1)


def test_a_file_of_your_own(project: Project, tmp_path: Path) -> None:
    """Issue 5.5: --llamafile and the options of serve mean the same here."""
    (tmp_path / "own.gguf").write_bytes(DEMO)
    command = ("plan", "--llamafile", str(tmp_path / "own.gguf"), "--engine", "embedded", "--json")
    assert files(project.doit(*command)) == [("have", str(tmp_path / "own.gguf"), 0)]
    missing = project.doit("plan", "--llamafile", str(tmp_path / "none.gguf"), "--engine", "embedded")
    assert missing.status == 1
    assert "no such file: " in missing.out
    assert "fix: check the path, or say where to download it from" in missing.out


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is not a GGUF file: it is empty (0 bytes)"),
        (DEMO[:100_000], "is not a complete GGUF file: it is a part of a GGUF: 100000 bytes"),
        (b"GGUF\1\0\0\0", "is not a GGUF file: it is a GGUF of version 1"),
        (b"GGUF\0\0\0\3", "is not a GGUF file: it is a big-endian GGUF"),
        (b"Entry not found", "is not a GGUF file: it is text: Entry not found"),
    ],
    ids=["empty", "a part", "version 1", "big-endian", "a text"],
)
@pytest.mark.parametrize("where", ["--llamafile", "url:"])
def test_a_file_that_cannot_work(project: Project, where: str, data: bytes, what: str) -> None:
    """F17: a plan reads the header of what is on this machine."""
    (project.path / "own.gguf").write_bytes(data)
    words = ["--engine", "embedded", "--llamafile", "own.gguf"]
    if where == "url:":
        project.catalogue({"m": project.entry("own.gguf", engine="embedded")})
        words = []
    result = project.doit("plan", *words)
    assert result.status == 1
    assert f"cannot work: {project.path / 'own.gguf'} {what}" in result.out


@pytest.mark.parametrize("env", [{}, {"LLAMAFILE_OFFLINE": "1"}], ids=["", "offline"])
@pytest.mark.parametrize("url", ["nothere/x.gguf", "file:///nothere/x.gguf"])
def test_a_path_where_nothing_is(project: Project, url: str, env: dict[str, str]) -> None:
    """F17: the state is `nowhere`, with and without a network; a mirror may have the file."""
    project.catalogue({"m": project.entry(url, engine="embedded")})
    result = project.doit("plan", env=env)
    assert result.status == 1
    assert result.out.splitlines()[1].split()[:2] == ["m", "nowhere"]
    assert "cannot work: m: no such file: /" in result.out
    project.catalogue({"m": project.entry(url, engine="embedded", mirrors=[URL])})
    assert files(project.doit("plan", "--json")) == [("fetch", URL, None)]
