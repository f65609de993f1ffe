"""`doit deploy`: the files are those of models.yaml and models.lock, on every machine."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import platform
import re
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tasks.catalogue import load

from tests.fakes.llamafile import gguf
from tests.support.llama_server import use
from tests.support.project import ENGINES, REPO, Project
from tests.support.servers import started

pytestmark = pytest.mark.chain

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
TALK = [{"role": "user", "content": "Tell me a story"}]
STORY = json.dumps(
    {"model": "b", "messages": TALK, "stream": True, "max_tokens": 3000, "ignore_eos": True}
).encode()
KNOWN = {"sha256": hashlib.sha256(DEMO).hexdigest(), "size": len(DEMO)}
DATA, OTHER = gguf(5000), gguf(6000)
EMBEDDED = {"embedded": ENGINES["embedded"]}
URL = "https://example.org/"
FLEET = {
    "models": {"a": {"replicas": 2, "balance": 9000}, "b": {"port": 8090}},
    "image": "registry.example.org/recipe:1",
    "mirror": {"url": "http://mirror.lan:8080", "resolver": "192.0.2.53"},
}
KINDS = ["container", "kubernetes", "compose", "quadlet", "systemd", "mirror", "balancer", "prometheus"]


def write(project: Project, b: bytes = DATA, deploy: Mapping[str, Any] | None = FLEET) -> None:
    """A catalogue of two models whose digests are known, and its lock."""
    more = {"engine": "embedded", "serve": {"metrics": True}}
    models = {"a": project.entry(URL + "a.gguf", DATA, **more), "b": project.entry(URL + "b.gguf", b, **more)}
    top = {} if deploy is None else {"deploy": deploy}
    project.catalogue(models, EMBEDDED, **top)
    assert project.doit("lock", "--upgrade").status == 0


@pytest.fixture
def ours(project: Project) -> Project:
    write(project)
    return project


def contents(project: Project) -> dict[str, bytes]:
    folder = project.path / "deploy"
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def times(project: Project) -> dict[str, int]:
    """When each file was written."""
    return {str(path): path.stat().st_mtime_ns for path in (project.path / "deploy").rglob("*")}


def test_a_second_run_touches_nothing(ours: Project) -> None:
    """And each kind is a task of doit's that is up to date then."""
    first = ours.doit("deploy")
    assert first.status == 0, first.err
    written = times(ours)
    assert sorted(first.out.splitlines()) == sorted(
        f"{path}: new" for path in written if os.path.isfile(path)
    )
    second = ours.doit("deploy")
    assert (second.status, second.out, second.err.splitlines()) == (
        0,
        "",
        [f"-- deploy:{kind}" for kind in KINDS],
    )
    assert times(ours) == written
    assert ours.doit("deploy", "--check").out == "deploy/ is up to date: 19 files\n"


def test_the_same_bytes_on_every_machine(ours: Project, tmp_path: Path) -> None:
    """Whatever its directories, its environment and its cache are, and what it downloaded."""
    assert ours.doit("deploy").status == 0
    (tmp_path / "other").mkdir()
    other = Project(tmp_path / "other")
    for name in ("models.yaml", "models.lock"):
        (other.path / name).write_bytes((ours.path / name).read_bytes())
    machine = {
        "CI": "true",
        "HF_ENDPOINT": "http://hub.example",
        "LLAMAFILE_OFFLINE": "1",
        "TZ": "Asia/Tokyo",
    }
    assert other.doit("deploy", env=machine).status == 0
    assert contents(other) == contents(ours)
    every = b"".join(contents(ours).values())
    assert not [word for word in (str(tmp_path), "hub.example", platform.node()) if word.encode() in every]


def test_a_changed_digest_changes_what_names_the_model(ours: Project) -> None:
    """`--check` says which files; deploy writes those, and no other."""
    assert ours.doit("deploy").status == 0
    before, written = contents(ours), times(ours)
    write(ours, OTHER)
    named = {
        name
        for name, text in before.items()
        if b'model=b"' in text or b"b.gguf" in text or b"model: b\n" in text
    }
    check = ours.doit("deploy", "--check")
    assert (check.status, check.out) == (1, "")
    assert f"{ours.path}/deploy/systemd/b-8090.env: changed\n" in check.err
    assert check.err.endswith("  fix: `doit deploy`, and commit the files\n")
    assert times(ours) == written
    assert ours.doit("deploy").status == 0
    after = contents(ours)
    assert {name for name in before if before[name] != after[name]} == named
    assert {Path(path).relative_to(ours.path / "deploy").as_posix() for path, at in times(ours).items()
            if at != written[path] and os.path.isfile(path)} == named  # fmt: skip
    assert named == {
        "kubernetes.yaml", "compose.yaml", "systemd/b-8090.env", "quadlet/b-8090.container",
        "quadlet/b-verify.container", "prometheus/targets.yaml",
    }  # fmt: skip


def test_one_kind(ours: Project) -> None:
    """Only its files are written or checked."""
    assert ours.doit("deploy:systemd").status == 0
    assert set(contents(ours)) == {
        f"systemd/{name}" for name in ("llamafile-recipe@.service", "a-8080.env", "a-8081.env", "b-8090.env")
    }
    assert ours.doit("deploy:systemd", "--check").status == 0
    assert ours.doit("deploy:compose", "--check").status == 1
    assert "deploy:systemd" in ours.doit("info", "deploy:systemd").out


def test_what_is_not_deployed_any_more(ours: Project) -> None:
    """`--check` finds a file of a model that is not deployed any more; a file of the user's may stay."""
    assert ours.doit("deploy").status == 0
    (ours.path / "deploy" / "README.md").write_text("mine\n")
    write(ours, deploy={**FLEET, "models": {"a": {"replicas": 2, "balance": 9000}}})
    assert ours.doit("deploy").status == 0
    check = ours.doit("deploy", "--check")
    assert check.status == 1
    assert check.err.count("no model needs it any more: git rm it") == 3
    assert "fix: remove these files" in check.err
    for name in ("systemd/b-8090.env", "quadlet/b-8090.container", "quadlet/b-verify.container"):
        (ours.path / "deploy" / name).unlink()
    assert ours.doit("deploy", "--check").status == 0


def test_an_endpoint(project: Project, llama_server: Path) -> None:
    """Its files are those of all its models; the commands of its containers work with a real llama-server."""
    use(project, llama_server)
    demo = project.entry(
        "demo/demo.gguf", DEMO, engine="embedded", serve={"threads": 1, "ctx_size": 4096, "n_predict": 3000}
    )
    other = {**demo, "url": URL + "b.gguf", "sha256": hashlib.sha256(DATA).hexdigest(), "size": len(DATA)}
    office = {"models": ["a", "b"], "memory": 4}
    deploy = {**FLEET, "models": {"office": {"replicas": 2, "balance": 9000}, "a": {"port": 8090}}}
    project.catalogue({"a": demo, "b": other}, EMBEDDED, endpoints={"office": office}, deploy=deploy)
    assert project.doit("lock", "--model", "a").status == 0
    lacking = project.doit("deploy")
    assert "b: is not in models.lock\n  fix: doit lock --model b\n" in lacking.err
    assert project.doit("lock", "--upgrade").status == 0
    assert project.doit("deploy").status == 0
    written = contents(project)
    digests = [str(demo["sha256"]).encode(), str(other["sha256"]).encode()]
    named = {path for path, text in written.items() if all(one in text for one in digests)}
    assert named == {
        "kubernetes.yaml", "compose.yaml", "haproxy.cfg", "systemd/office-8080.env",
        "systemd/office-8081.env", "quadlet/office-verify.container", "quadlet/office-8080.container",
        "quadlet/office-8081.container",
    }  # fmt: skip
    assert b"&& command -v llama-server" in written["Containerfile"]
    services = yaml.safe_load(written["compose.yaml"])["services"]
    project.catalogue({"a": demo, "b": {**other, "url": "demo/demo.gguf", **KNOWN}}, EMBEDDED,
                      endpoints={"office": office})  # fmt: skip
    assert project.doit("lock", "--upgrade").status == 0
    verified = project.doit(*services["office-verify"]["command"])
    assert verified.status == 0, verified.err
    verb, *words = services["office"]["command"]
    assert verb == "serve"
    words[words.index("--port") + 1] = "0"
    url = started(project, *words)
    try:
        with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as answer:
            assert {row["id"] for row in json.load(answer)["data"]} == {"a", "b"}
        assert project.doit("idle", "--model", "office", "--timeout", "60").status == 0
        with urllib.request.urlopen(f"{url}/v1/chat/completions", STORY, timeout=120) as answer:
            begun = answer.readline()
            assert project.doit("idle", "--model", "office", "--timeout", "1").status == 1
            assert project.doit("stop", "office").status == 0
            assert (begun + answer.read()).endswith(b"data: [DONE]\n\n")
    finally:
        project.doit("stop", "--all")


def test_an_image_of_a_model(project: Project) -> None:
    """A pod mounts it where the cache has the file; an engine that is downloaded would be missing."""
    deploy = {
        "image": "registry.example.org/recipe:1",
        "models": {"a": {"model_image": "registry.example.org/a:1"}},
    }
    entry = project.entry("demo/demo.gguf", DEMO)
    project.catalogue({"a": {**entry, "engine": "embedded"}}, EMBEDDED, deploy=deploy)
    for command in ("lock", "deploy:kubernetes", "download"):
        assert project.doit(command).status == 0
    text = contents(project)["kubernetes.yaml"].decode()
    [place] = re.findall("mountPath: /mounted/(.*)", text)
    assert (project.cache / place / "demo.gguf").read_bytes() == DEMO
    project.catalogue({"a": project.entry(URL + "a.llamafile", DATA)}, deploy=deploy)
    assert project.doit("lock", "--upgrade").status == 0
    result = project.doit("deploy:kubernetes")
    assert "a: `model_image:` holds no engine, and self is not in `image:` either\n" in result.err


def test_not_locked(ours: Project) -> None:
    """The command that pins is named, for these models only."""
    write(ours)
    data = json.loads((ours.path / "models.yaml").read_text())
    for name in "ab":
        data["models"][f"{name}2"] = data["models"][name]
    data["deploy"]["models"] = {"a": {}, "a2": {"port": 1}, "b2": {"port": 2}}
    (ours.path / "models.yaml").write_text(json.dumps(data))
    result = ours.doit("deploy")
    lock = ours.path / "models.lock"
    assert (result.status, result.out) == (3, "")
    assert result.err == (
        f"ERROR: {lock} does not pin what is deployed\n  a2: is not in models.lock\n"
        "  b2: is not in models.lock\n  fix: doit lock --model a2 --model b2\n"
    )
    assert ours.doit("lock", "--model", "a2", "--model", "b2").status == 0
    assert ours.doit("deploy").status == 0


ERRORS: list[tuple[Any, str, str | None]] = [  # the section, or nothing; the command; the message
    (None, "deploy",
     "{path}/models.yaml has no `deploy:`\n  fix: add `deploy: {{models: {{a: {{}}}}}}` to it; "
     "its comments describe the keys"),
    (FLEET, "deploy:helm",
     "`doit deploy` has no 'helm'\n  fix: doit deploy:NAME; NAME is one of " + ", ".join(KINDS)),
    (FLEET, "deploy:system", "`doit deploy` has no 'system'\n  fix: did you mean systemd?"),
    (FLEET, "deploy systemd", "'systemd' is not a verb\n  fix: doit deploy:systemd"),
    (FLEET, "deploy foo", "`doit deploy` takes no model: foo\n  fix: `doit help deploy` lists its options"),
    ({"models": {"a": {}}}, "deploy:compose",
     "`doit deploy:compose` needs `image:` in deploy\n  fix: add it to "
     "models.yaml, whose comments describe it"),
    ({"models": {"a": {}}, "node_memory": 1}, "deploy", None),
]  # fmt: skip


@pytest.mark.parametrize(("section", "command", "message"), ERRORS)
def test_errors(project: Project, section: Any, command: str, message: str | None) -> None:
    """Nothing is written; without an image, the other kinds are."""
    write(project, deploy=section)
    result = project.doit(*command.split())
    if message is None:
        assert result.status == 0
        assert set(contents(project)) == {
            "Containerfile", "systemd/llamafile-recipe@.service", "systemd/a-8080.env",
            "prometheus/prometheus.yaml", "prometheus/rules.yaml", "prometheus/targets.yaml",
            "prometheus/dashboard.json",
        }  # fmt: skip
        return
    assert (result.status, result.out) == (3, "")
    assert result.err == f"ERROR: {message.format(path=project.path)}\n" or message in result.err
    assert not (project.path / "deploy").exists()


def test_a_directory_in_the_way(ours: Project) -> None:
    """It is not removed, and the other kinds can be written."""
    (ours.path / "deploy" / "compose.yaml" / "mine").mkdir(parents=True)
    path = ours.path / "deploy" / "compose.yaml"
    assert f"{path}: cannot be read: Is a directory\n" in ours.doit("deploy", "--check").err
    result = ours.doit("deploy:compose")
    assert (result.status, result.err.splitlines()[-1]) == (1, f"ERROR: {path}: Is a directory")
    assert ours.doit("deploy:kubernetes").status == 0
    assert (path / "mine").is_dir()


def test_a_forged_compiled_catalogue(ours: Project) -> None:
    """What is in the cache decides nothing that goes to other machines."""
    assert ours.doit("deploy").status == 0
    written = contents(ours)
    assert ours.doit("catalogue").status == 0
    place = ours.cache / load.compiled_path(str(ours.path / "models.yaml"))
    forged = place.read_text().partition("\n")[2].replace(hashlib.sha256(DATA).hexdigest(), "0" * 64)
    place.write_text(f"{load._checksum(place.stem, forged)}\n{forged}")
    assert ours.doit("deploy", "--check").status == 0
    assert contents(ours) == written


def test_a_file_of_this_machine(project: Project, tmp_path: Path) -> None:
    """Another one could not get it; a file in the repository is in every clone."""
    own = tmp_path / "own.gguf"
    own.write_bytes(DATA)
    entry = project.entry(own.as_uri(), DATA, engine="embedded")
    project.catalogue({"a": entry}, EMBEDDED, deploy={"models": {"a": {}}})
    assert project.doit("lock").status == 0
    result = project.doit("deploy")
    assert result.status == 3
    assert (
        f"a: {own.as_uri()} is only on this machine\n  fix: a URL, or a path inside the repository"
        in result.err
    )
    (project.path / "own.gguf").write_bytes(DATA)
    project.catalogue({"a": {**entry, "url": "own.gguf"}}, EMBEDDED, deploy={"models": {"a": {}}})
    assert project.doit("lock").status == 0
    assert project.doit("deploy:systemd").status == 0


def test_more_memory_than_a_machine_has(project: Project) -> None:
    """Before a pod waits for a node that does not exist."""
    entry = project.entry(URL + "a.gguf", DATA, engine="embedded", ram=12)
    project.catalogue({"a": entry}, EMBEDDED, deploy={"models": {"a": {}}, "node_memory": 8})
    assert project.doit("lock", "--upgrade").status == 0
    result = project.doit("deploy")
    assert result.status == 3
    assert "a needs 12.0 GB of memory\n  deploy.node_memory: 8 GB\n" in result.err


def test_the_page_on_fleets(project: Project) -> None:
    """Its section and its commands, with models.yaml and models.lock of the recipe."""
    page = (REPO / "docs" / "fleet.md").read_text("utf-8")
    [section] = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    [commands] = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    path = project.path / "models.yaml"
    path.write_text(path.read_text("utf-8") + section, "utf-8")
    (project.path / "models.lock").write_bytes((REPO / "models.lock").read_bytes())
    for command in commands.strip().split(" && "):
        result = project.doit(*command.split()[1:])
        assert result.status == 0, result.err
    written = contents(project)
    for kind, pattern in re.findall(r"^\| `(\w+)` \| `([^`]+)`", page, re.MULTILINE):
        assert fnmatch.filter(written, pattern) or kind == "prometheus"
    assert "systemd/demo-8082.env" in written
    assert b"server 127.0.0.1-8080 127.0.0.1:8080" in written["haproxy.cfg"]


def test_variables_of_auth_are_named(project: Project) -> None:
    """Pods that download get them from a Secret."""
    auth = {"h.example": {"token": "A_TOKEN"}, "r.example": {"user": "bot", "password": "B_PASSWORD"}}
    model = project.entry(URL + "a.gguf", DATA, engine="embedded")
    project.catalogue(
        {"a": model}, EMBEDDED, auth=auth, deploy={"models": {"a": {}}, "image": "r.example/i:1"}
    )
    assert project.doit("lock").status == 0
    result = project.doit("deploy:kubernetes")
    assert result.status == 0, result.err
    text = (project.path / "deploy" / "kubernetes.yaml").read_text("utf-8")
    assert re.findall(r"key: ([A-Z]_\w+)", text) == ["A_TOKEN", "B_PASSWORD"]
