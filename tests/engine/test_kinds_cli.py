"""Models of every kind and their companions, from models.yaml to real answers (issue 15.5)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tasks.catalogue.model_files import CompanionFile
from tasks.catalogue.serve_options import Sampling
from tasks.catalogue.settings import ServeSettings
from tasks.engine.feature_options import companion_options, feature_options
from tasks.server.client import health

from tests.fakes import llamafile
from tests.fakes.server import FileServer
from tests.server.test_serve_cli import arguments, behave, fetch
from tests.support.gguf_files import lora
from tests.support.ports import free_port
from tests.support.project import ENGINES, REPO, Project
from tests.support.publishers import sha256
from tests.support.servers import failed, started

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
EMBEDDED = {"embedded": ENGINES["embedded"]}
TEMPLATE = "{%- for m in messages -%}<|im_start|>{{ m.content }}<|im_end|>{%- endfor -%}\n"
QUESTION = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 8, "temperature": 0}
PLAIN = "I am the tiny demo model of llamafile"  # the answer of the demo
SETTINGS = {
    "ctx_size": 512, "threads": 1, "parallel": 2, "idle": 300, "metrics": True, "reasoning": "off",
    "sampling": {"temperature": 0.25, "top_k": 7, "seed": 5},
}  # fmt: skip


def companion(project: Project, name: str, data: bytes, **more: Any) -> dict[str, Any]:
    """Write a file beside models.yaml; return its entry, pinned."""
    (project.path / name).write_bytes(data)
    return {"url": name, "sha256": sha256(data), "size": len(data), **more}


def with_everything(project: Project, **changes: Any) -> dict[str, Any]:
    """A catalogue with the demo, a draft, an adapter and a template; the entry."""
    pytest.importorskip("xllamacpp")
    entry = project.entry(
        "demo/demo.gguf",
        DEMO,
        engine="embedded",
        draft=companion(project, "draft.gguf", DEMO),
        lora=[companion(project, "lo,ra.gguf", lora(project.path / "new.gguf"), scale=0.5)],
        template=companion(project, "chat.jinja", TEMPLATE.encode()),
        serve=SETTINGS,
    )
    entry |= changes
    project.catalogue({"m": entry}, EMBEDDED)
    return entry


def check_server(url: str) -> None:
    """The server has the adapter, the draft, the template and the settings of the tests."""
    [adapter] = fetch(f"{url}/lora-adapters")
    assert (Path(adapter["path"]).name, adapter["scale"]) == ("lo,ra.gguf", 0.5)
    props = fetch(f"{url}/props")
    assert props["chat_template"].strip() == TEMPLATE.strip()
    assert (props["total_slots"], props["endpoint_metrics"]) == (2, True)
    params = props["default_generation_settings"]["params"]
    assert (params["temperature"], params["top_k"], params["seed"]) == (0.25, 7, 5)
    answer = fetch(f"{url}/v1/chat/completions", QUESTION)
    assert answer["choices"][0]["message"]["content"] != PLAIN
    assert answer["timings"]["draft_n"] > 0


def test_companions_and_settings_reach_the_embedded_engine(servers: Project) -> None:
    """A LoRA changes the answer, a draft is used, the template and the settings are those of models.yaml."""
    entry = with_everything(servers)
    check_server(started(servers, "--port", "0"))
    [status] = json.loads(servers.doit("status", "--json").out)
    assert status["state"] == "ready"
    servers.catalogue({"m": {**entry, "lora": [{**entry["lora"][0], "scale": 2}]}}, EMBEDDED)
    said = failed(servers.background("start"))
    assert "(scale 0.5), requested " in said
    assert "lora: running " in said


def test_they_reach_llama_server(llama_server: Path, tmp_path: Path) -> None:
    """The same, with llama.cpp's own server."""
    files = {"draft": tmp_path / "draft.gguf", "template": tmp_path / "chat.jinja"}
    files["draft"].write_bytes(DEMO)
    files["template"].write_text(TEMPLATE)
    lora(tmp_path / "lo,ra.gguf")
    given = [CompanionFile("lora", str(tmp_path / "lo,ra.gguf"), 0.5)]
    given += [CompanionFile(role, str(path)) for role, path in files.items()]
    sampling = Sampling(**SETTINGS["sampling"])  # type: ignore[arg-type]
    settings = ServeSettings(**{**SETTINGS, "sampling": sampling})  # type: ignore[arg-type]
    words = companion_options("llama-server", given, (11669,), "linux")
    words += feature_options("llama-server", "chat", settings, (11669,))
    with llama_serving([str(llama_server), *words, "-c", "512", "-t", "1"]) as url:
        check_server(url)


@contextmanager
def llama_serving(command: list[str]) -> Iterator[str]:
    """Run llama-server with the demo until it is ready; yield its URL."""
    port = free_port()
    model = ["-m", str(REPO / "demo" / "demo.gguf"), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([*command, *model], stdout=-1, stderr=subprocess.STDOUT) as process:
        try:
            deadline = time.monotonic() + 240
            while health("127.0.0.1", port) != 200:
                assert process.poll() is None, process.stdout and process.stdout.read()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGKILL)


def test_an_embedder_and_a_reranker(servers: Project) -> None:
    """/v1/embeddings and /v1/rerank answer; --probe asks there; `doit chat` says what to do instead."""
    pytest.importorskip("xllamacpp")
    entry = servers.entry("demo/demo.gguf", DEMO, engine="embedded", serve={"threads": 1})
    embedder = {**entry, "kind": "embedding", "serve": {"pooling": "mean", "ctx_size": 1024, "threads": 1}}
    servers.catalogue({"e": embedder, "r": {**entry, "kind": "rerank"}}, EMBEDDED)
    said = failed(servers.doit("chat", "--model", "e", "Hello"))
    assert "e does not chat: it is of kind: embedding" in said
    result = servers.background("start", "e", "r", "--probe", "--port", "0")
    assert result.status == 0, result.err
    urls = dict(zip("er", result.out.split(), strict=True))
    assert f"curl {urls['e']}/v1/embeddings " in result.err
    assert f"curl {urls['r']}/v1/rerank " in result.err
    long = "a long text " * 200  # more than one batch of 512 tokens
    [found] = fetch(f"{urls['e']}/v1/embeddings", {"input": long})["data"]
    assert len(found["embedding"]) == 192
    body = {"query": "Hello", "documents": ["Good morning", "A file"]}
    ranked = fetch(f"{urls['r']}/v1/rerank", body)["results"]
    assert sorted(row["index"] for row in ranked) == [0, 1]
    said = failed(servers.doit("bench", "--model", "e"))  # the server that runs
    assert "`bench` measures chat models, and e is of kind: embedding\n" in said
    said = failed(servers.doit("chat", "--model", "r", "Hello"))
    assert (
        'fix: doit start --model r, then POST {"query":"Hello","documents":["Good morning","A file"]}' in said
    )


def test_chat_does_not_choose_an_embedder(project: Project) -> None:
    """Of the models that are here, chat, bench, and the commands that are shown take only those that chat."""
    entry = project.entry("demo/demo.gguf", DEMO, engine="embedded", kind="embedding")
    absent = project.entry("https://example.org/absent.gguf", DEMO, engine="embedded")
    project.catalogue({"absent": absent, "e": entry}, EMBEDDED)
    assert project.doit("download", "e").status == 0
    said = failed(project.doit("chat", "Hello"))
    assert "no server runs, and the default model absent is not here" in said
    assert "doit chat" not in project.doit().out
    page = project.doit("help", "e").out
    assert "kind      embedding\n" in page
    assert "doit chat" not in page
    said = failed(project.doit("with", "e", "--", "npx", "--yes", "opencode"))
    assert "opencode needs a chat model, and e is of kind: embedding\n  fix: `doit catalogue --kind" in said
    said = failed(project.doit("bench", "e"))
    assert "`bench` measures chat models, and e is of kind: embedding\n" in said
    assert "fix: `doit catalogue --kind chat` lists the chat models" in said


def test_llamafile_gets_them(project: Project) -> None:
    """The flags of 0.10 for a llamafile: fetched, verified and passed."""
    data = llamafile.build(project.path / "m.llamafile", version="0.10.5").read_bytes()
    files: dict[str, Any] = {
        "draft": companion(project, "d.gguf", llamafile.gguf(3000)),
        "template": companion(project, "t.jinja", TEMPLATE.encode()),
    }
    project.catalogue({"m": project.entry("m.llamafile", data, serve=SETTINGS, **files)}, EMBEDDED)
    behave(project)
    result = project.doit("with", "--", "true")
    assert result.status == 0, result.err
    words = arguments(project)
    for name in ("d.gguf", "t.jinja"):
        content = (project.path / name).read_bytes()
        assert str(project.target(content, name)) in words
    assert words[words.index("--reasoning-budget") + 1] == "0"
    assert words[words.index("--temp") + 1] == "0.25"
    assert "--metrics" in words


def test_what_an_engine_cannot_do_is_refused_first(project: Project) -> None:
    """Before a byte is fetched, in the words of `doit plan`; a plain download is not refused."""
    data = llamafile.build(project.path / "m.llamafile", version="0.9.3").read_bytes()
    with FileServer() as server:
        server.files["/m.llamafile"] = data
        url = server.url("/m.llamafile")
        entry = project.entry(url, data, kind="embedding", engine_version="0.9.3")
        project.catalogue({"m": {**entry, "serve": {"idle": 60}}}, EMBEDDED)
        behave(project)
        said = failed(project.doit("serve"))
        assert not server.requests
        plan = project.doit("plan")
        assert plan.status == 1
        for what in (
            "m needs `kind: embedding`, which llamafile 0.9.3 does not have: "
            "expected 0.8.6 to before 0.8.14 and from 0.10",
            "m needs `idle`, which llamafile 0.9.3 does not have: expected from 0.10",
        ):
            assert f"cannot work: {what}\n" in plan.out
            assert what in said
        assert "use --engine llamafile (engines.llamafile, 0.10 or newer)\n" in said
        assert project.doit("download").status == 0


@pytest.mark.parametrize(
    ("key", "make", "said"),
    [
        ("lora", lambda path: lora(path, "gemma"), "got: one for gemma\n  expected: an adapter for llama"),
        ("lora", lambda _: DEMO, "got: a GGUF without general.type\n  expected: general.type is adapter"),
        ("draft", lora, "got: a LoRA adapter\n  expected: a model"),
        ("template", lambda _: DEMO, "got: it is not a text: it begins with"),
        ("template", lambda _: b"<html>Log in</html>", "got: it is a web page"),
        ("template", lambda _: b"{{ x }} caf\xe9 {{ y }}", "got: it is not a text: it begins with"),
        (
            "template",
            lambda _: b"x" * 600 + b"\xe9",
            "got: it is not UTF-8: unexpected end of data at byte 600",
        ),
    ],
)
def test_verify_refuses_a_file_of_another_kind(project: Project, key: str, make: Any, said: str) -> None:
    """Before an engine is started; the error names the key, what the file is, and what it has to be."""
    pytest.importorskip("xllamacpp")
    file = companion(project, "f.bin", make(project.path / "made.gguf"))
    value: Any = [file] if key == "lora" else file
    entry = project.entry("demo/demo.gguf", DEMO, engine="embedded", **{key: value})
    project.catalogue({"m": entry}, EMBEDDED)
    text = failed(project.doit("verify"))
    assert f"m {key} is not what `{key}:` needs" in text
    assert said in text
    assert f"fix: correct `{key}:` in models.yaml" in text


def test_verify_checks_a_file_in_each_role(project: Project) -> None:
    """A file that was verified as a model or as a draft is not verified as an adapter; nor the reverse."""
    pytest.importorskip("xllamacpp")
    blob = companion(project, "blob", DEMO)
    adapter = companion(project, "adapter", lora(project.path / "new.gguf"))
    entry = project.entry("demo/demo.gguf", DEMO, engine="embedded")
    roles: dict[str, Any] = {
        "d": {"draft": blob},
        "a": {"lora": [adapter]},
        "lora": {"lora": [blob]},
        "draft": {"draft": adapter},
        "both": {"draft": blob, "lora": [blob]},
    }
    project.catalogue({name: {**entry, **files} for name, files in roles.items()}, EMBEDDED)
    assert project.doit("verify", "d", "a").status == 0
    assert "lora is not what `lora:` needs" in failed(project.doit("verify", "lora"))
    assert "draft is not what `draft:` needs" in failed(project.doit("verify", "draft"))
    assert "both lora is not what `lora:` needs" in failed(project.doit("verify", "both"))
    again = project.doit("verify", "d", "a")
    assert (again.status, again.err.count("-- verify:")) == (0, 2), again
    bom = json.loads(project.doit("bom", "--json").out)
    names = {one["name"] for row in bom["components"] for one in row.get("properties", ())}
    assert {name for name in names if ":engine:" in name} == {"llamafile-recipe:engine:embedded"}


@pytest.mark.parametrize("text", ["{% for m in messages %}", "A text", "[1]"])
def test_a_template_without_a_digest_is_downloaded_once(project: Project, text: str) -> None:
    """It is up to date, plan and an offline run have it; what is no text is replaced."""
    with FileServer() as server:
        server.files["/t.jinja"] = text.encode()
        entry = project.entry("demo/demo.gguf", DEMO, engine="embedded")
        entry["template"] = {"url": server.url("/t.jinja")}
        project.catalogue({"m": entry}, EMBEDDED)
        assert project.doit("download").status == 0
        count = len(server.requests)
        again = project.doit("download")
        assert (again.status, "replaced" in again.err, len(server.requests)) == (0, False, count), again.err
        offline = {"LLAMAFILE_OFFLINE": "1"}
        assert project.doit("download", env=offline).status == 0
        files = json.loads(project.doit("plan", "--json", env=offline).out)["files"]
        assert {row["state"] for row in files} == {"have"}
        [cached] = project.cache.rglob("t.jinja")
        cached.write_bytes(b"<html>Log in</html>")
        repaired = project.doit("download")
        assert "m template: the file in the cache is replaced: it is a web page" in repaired.err
        assert cached.read_text("utf-8") == text


def test_companions_are_pinned_and_kept_like_the_model(project: Project) -> None:
    """lock, frozen download, verify, bom, audit, prune, plan and cache-key know each file."""
    entry = with_everything(project)
    pins = ("sha256", "size")
    open_entry = {key: value for key, value in entry.items() if key not in pins}
    for key in ("draft", "template"):
        open_entry[key] = {"url": entry[key]["url"]}
    open_entry["lora"] = [{"url": "lo,ra.gguf", "scale": 0.5}]
    project.catalogue({"m": open_entry}, EMBEDDED)
    assert project.doit("cache-key").status == 1
    assert project.doit("lock").status == 0
    locked = (project.path / "models.lock").read_text("utf-8")
    for key in ("draft", "template"):
        assert entry[key]["sha256"] in locked
    assert entry["lora"][0]["sha256"] in locked
    assert project.doit("lock", "--check").status == 0
    result = project.doit("verify", "--frozen")
    assert result.status == 0, result.err
    names = {"demo.gguf", "draft.gguf", "lo,ra.gguf", "chat.jinja"}
    plan = json.loads(project.doit("plan", "--json").out)
    assert {Path(row["path"]).name for row in plan["files"] if row["state"] == "have"} == names
    assert plan["works"] is True
    bom = json.loads(project.doit("bom", "--json").out)
    assert len(bom["components"]) >= len(names)
    audit = project.doit("audit", "--json")
    assert audit.status == 0, audit.out
    before = sorted(project.cache.glob("models/*/*"))
    assert project.doit("prune", "--yes").status == 0
    assert sorted(project.cache.glob("models/*/*")) == before
    key = project.doit("cache-key").out
    changed = companion(project, "chat.jinja", TEMPLATE.upper().encode())
    project.catalogue({"m": {**entry, "template": changed}}, EMBEDDED)
    (project.path / "models.lock").unlink()
    assert project.doit("cache-key").out != key
