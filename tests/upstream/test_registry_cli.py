"""Models in registries, from `doit lock` to the verified file: a registry with tokens, and its faults."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import llamafile
from tests.fakes.faults import plain
from tests.fakes.publisher import json_reply
from tests.fakes.registry import OCI, RAW, Registry, sha256
from tests.fakes.server import FileServer
from tests.support.project import ENGINES, Project

DATA = llamafile.gguf(300_000)
OTHER = DATA + b"newer"
HEX = hashlib.sha256(DATA).hexdigest()
EMBEDDED = {"embedded": ENGINES["embedded"]}
LOGIN = base64.b64encode(b"me:verySecretPassword").decode()
SIZE = {"size": len(DATA)}
TEXT = "application/vnd.cncf.model.weight.config.v1.raw"


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as one:
        yield one


def catalogue(project: Project, url: str, **keys: Any) -> None:
    project.catalogue({"m": project.entry(url, engine="embedded", **keys)}, EMBEDDED)


def locked(project: Project) -> dict[str, Any]:
    rows = yaml.safe_load((project.path / "models.lock").read_text("utf-8"))["models"]["m"]
    assert isinstance(rows[0], dict)
    return rows[0]


def test_a_tag_is_locked_downloaded_and_upgraded(project: Project, registry: Registry) -> None:
    """models.lock has both digests; a tag that moves changes nothing before --upgrade."""
    registry.locked = registry.redirects = True
    tag = f"oci://{registry.host}/team/tiny:v1"
    first = registry.push("team/tiny", "v1", DATA, "tiny.gguf")
    catalogue(project, tag)
    unpinned = project.doit("download:m")
    assert unpinned.status != 0
    assert "the digest of" in unpinned.err
    assert "doit lock" in unpinned.err
    assert project.doit("lock").status == 0
    row = locked(project)
    assert (row["url"], row["sha256"], row["size"]) == (f"{first}/tiny.gguf", HEX, len(DATA))
    assert (row["source"], row["digest_from"]) == (tag, "the registry's manifest")
    assert project.doit("lock", "--check").status == 0

    second = registry.push("team/tiny", "v1", OTHER, "tiny.gguf")
    assert tag.removesuffix(":v1") in project.doit("plan", "m").out
    done = project.doit("download:m", "--frozen")
    assert done.status == 0
    assert "sha256 verified" in done.err
    assert project.target(DATA, "tiny.gguf").read_bytes() == DATA
    assert all(r.headers.get("Authorization") is None for r in registry.cdn.requests)
    assert set(registry.scopes) == {"repository:team/tiny:pull"}
    assert "/v2/team/tiny/blobs/sha256:" in project.doit("bom").out
    assert "sha256 verified" not in project.doit("download:m", env={"LLAMAFILE_OFFLINE": "1"}).err

    moved = project.doit("lock", "--upgrade")
    assert moved.status == 0
    assert "~ m: tiny.gguf" in moved.out
    assert locked(project)["url"] == f"{second}/tiny.gguf"


COMMIT = "9f2d7a4be31c05868e7d0ab1c2d3e4f5a6b7c8d9"
LIE = DATA[:-5] + b"wrong"


@contextmanager
def four_transports(project: Project) -> Iterator[dict[str, tuple[FileServer, str]]]:
    """The Hub, ModelScope, a registry and a mirror: server and path of the same file on each."""
    with ExitStack() as stack:
        names = ("hub", "ms", "registry", "lan")
        servers = {name: stack.enter_context(FileServer()) for name in names}
        at = {name: f"127.0.0.1:{server.port}" for name, server in servers.items()}
        project.env |= {"HF_ENDPOINT": f"http://{at['hub']}", "MODELSCOPE_DOMAIN": at["ms"]}
        hub = f"/o/r/resolve/{COMMIT}/tiny.gguf"
        mirrors = [
            "ms:o/r/tiny.gguf",
            f"oci://{at['registry']}/team/tiny:v1",
            servers["lan"].url("/tiny.gguf"),
        ]
        catalogue(project, f"https://huggingface.co{hub}", sha256=HEX, mirrors=mirrors, **SIZE)
        paths = (hub, "/o/r/resolve/master/tiny.gguf", f"/v2/team/tiny/blobs/sha256:{HEX}", "/tiny.gguf")
        yield {name: (servers[name], path) for name, path in zip(names, paths, strict=True)}


@pytest.mark.parametrize("alive", ["hub", "ms", "registry", "lan"])
def test_one_digest_from_every_transport(project: Project, alive: str) -> None:
    """Each in turn is the only one that has the file; a registry needs no manifest for that."""
    with four_transports(project) as transports:
        server, path = transports[alive]
        server.files[path] = DATA
        result = project.doit("download:m")
        assert server.asked(path)
    assert result.status == 0, result.err
    assert project.target(DATA, "tiny.gguf").read_bytes() == DATA


@pytest.mark.parametrize(("liar", "honest"), [("hub", "ms"), ("registry", "lan"), ("lan", "")])
def test_a_transport_with_other_bytes(project: Project, liar: str, honest: str) -> None:
    """Its address is named, and the next one is asked."""
    with four_transports(project) as transports:
        server, path = transports[liar]
        server.files[path] = LIE
        if honest:
            good, good_path = transports[honest]
            good.files[good_path] = DATA
        result = project.doit("download:m")
    said = result.err.partition(server.url(path).replace("%3A", ":"))[2].partition("http")[0]
    assert "wrong SHA-256" in said
    assert (result.status == 0) is bool(honest)
    if honest:
        assert project.target(DATA, "tiny.gguf").read_bytes() == DATA
    else:
        assert "no source sent the right bytes" in result.err
        assert not project.target(DATA, "tiny.gguf").exists()


def test_a_file_of_modelscope(project: Project) -> None:
    """Its API states the digest, and gets the token that `auth:` names."""
    with FileServer() as site:
        stated = {"Data": {"MetaContent": {"Sha256": HEX, "Size": len(DATA)}}}
        site.files["/api/v1/models/o/r/repo/raw"] = json.dumps(stated).encode()
        site.files["/o/r/resolve/master/tiny.gguf"] = DATA
        project.env["MODELSCOPE_DOMAIN"] = f"127.0.0.1:{site.port}"
        host = f"127.0.0.1:{site.port}"
        models = {"m": project.entry("ms:o/r/tiny.gguf", engine="embedded")}
        project.catalogue(models, EMBEDDED, auth={host: {"token": "MS_TOKEN"}})
        assert project.doit("lock", env={"MS_TOKEN": "abc"}).status == 0
        assert site.requests[0].headers.get("Authorization") == "Bearer abc"
        assert (locked(project)["sha256"], locked(project)["url"]) == (HEX, "ms:o/r/tiny.gguf")
        assert project.doit("download:m").status == 0
    assert project.target(DATA, "tiny.gguf").read_bytes() == DATA


def test_an_entry_is_added(project: Project, registry: Registry) -> None:
    """By the manifest's digest, with its licence; without a name, tag and repository are the name."""
    registry.push("team/tiny", "1b-q4", DATA)
    manifest = json.loads(registry.manifests["team/tiny", "1b-q4"])
    manifest["annotations"] = {"org.opencontainers.image.licenses": "Apache-2.0"}
    pinned = registry.put("team/tiny", "1b-q4", json.dumps(manifest).encode())
    result = project.doit("add", f"oci://{registry.host}/team/tiny:1b-q4")
    assert result.status == 0, result.err
    text = (project.path / "models.yaml").read_text("utf-8")
    assert f"{pinned}/tiny-1b-q4.gguf" in text
    assert HEX in text
    (name,) = (name for name in yaml.safe_load(text)["models"] if name.startswith("tiny-1b"))
    assert yaml.safe_load(text)["models"][name]["license"] == "Apache-2.0"
    assert project.doit("download", name).status == 0


def test_a_split_file(project: Project, registry: Registry) -> None:
    """Its first part is named; each part is a layer."""
    parts = {"x-00001-of-00002.gguf": DATA, "x-00002-of-00002.gguf": OTHER}
    layers = []
    for name, data in parts.items():
        registry.push("m", "1", data, name)
        layers += json.loads(registry.manifests["m", "1"])["layers"]
    pinned = registry.put("m", "1", json.dumps({"schemaVersion": 2, "layers": layers}).encode())
    catalogue(project, f"oci://{registry.host}/m:1/x-00001-of-00002.gguf")
    assert project.doit("lock").status == 0
    rows = yaml.safe_load((project.path / "models.lock").read_text("utf-8"))["models"]["m"]
    assert [row["url"] for row in rows] == [f"{pinned}/{name}" for name in parts]
    assert project.doit("download:m").status == 0
    assert [project.target(DATA, name).with_name(name).read_bytes() for name in parts] == [DATA, OTHER]


def test_a_projector_and_a_template_beside_the_model(project: Project, registry: Registry) -> None:
    """models.lock pins them, unless the entry names its own; `doit add` writes them into the entry."""
    files = {"x.gguf": (DATA, RAW), "mmproj-F16.gguf": (OTHER, RAW), "chat.jinja": (b"{{ messages }}", TEXT)}
    layers = []
    for name, (data, kind) in files.items():
        registry.push("m", "1", data, name, kind)
        layers += json.loads(registry.manifests["m", "1"])["layers"]
    pinned = registry.put("m", "1", json.dumps({"schemaVersion": 2, "layers": layers}).encode())
    tag = f"oci://{registry.host}/m:1"
    added = project.doit("add", tag, "--name", "vision", "--license", "MIT")
    assert added.status == 0, added.err
    entry = yaml.safe_load((project.path / "models.yaml").read_text("utf-8"))["models"]["vision"]
    assert entry["mmproj"]["url"] == f"{pinned}/mmproj-F16.gguf"
    assert entry["template"]["sha256"] == hashlib.sha256(files["chat.jinja"][0]).hexdigest()
    assert project.doit("download:vision").status == 0

    catalogue(project, tag)
    result = project.doit("lock")
    assert result.status == 0, result.err
    assert [line.split()[:3] for line in result.out.splitlines()[:3]] == [["+", "m:", name] for name in files]
    lock = (project.path / "models.lock").read_text("utf-8")
    rows = yaml.safe_load(lock)["models"]["m"]
    assert [(row["url"], row.get("role")) for row in rows] == [
        (f"{pinned}/{name}", role) for name, role in zip(files, (None, "mmproj", "template"), strict=True)
    ]
    assert project.doit("lock", "--check").status == 0
    project.doit("lock", "--upgrade")
    assert (project.path / "models.lock").read_text("utf-8") == lock
    assert project.doit("download:m").status == 0
    for name, (data, _) in files.items():
        assert project.target(data, name).read_bytes() == data
    planned = project.doit("plan", "m").out
    assert "mmproj-F16.gguf" in planned
    assert "chat.jinja" in planned

    mine = {"url": f"{tag}/chat.jinja"}
    catalogue(project, tag, template=mine, mmproj={"url": tag + "/mmproj-F16.gguf"})
    other = project.doit("lock", "--check")
    assert "names other files than models.yaml" in other.err
    assert project.doit("lock").status == 0
    rows = yaml.safe_load((project.path / "models.lock").read_text("utf-8"))["models"]["m"]
    assert [row.get("role") for row in rows] == [None, None, None]


def test_a_login_of_docker(project: Project, registry: Registry) -> None:
    """It is sent to the registry's own realm only, and is in no output."""
    registry.locked, registry.login = True, LOGIN
    registry.push("team/tiny", "v1", DATA, "tiny.gguf")
    catalogue(project, f"oci://{registry.host}/team/tiny:v1")
    refused = project.doit("lock")
    assert refused.status != 0
    assert f"docker login {registry.host}" in refused.err
    config = Path(project.env["HOME"]) / "auth.json"
    config.write_text(json.dumps({"auths": {registry.host: {"auth": LOGIN}}}), "utf-8")
    project.env["REGISTRY_AUTH_FILE"] = str(config)
    assert project.doit("lock").status == 0
    done = project.doit("download:m")
    assert done.status == 0
    assert LOGIN not in done.out + done.err
    shown = [r.headers.get("Authorization") or "" for r in registry.origin.requests if r.path != "/token"]
    assert not [text for text in shown if text.startswith("Basic ")]


def test_a_token_that_ends_early(project: Project, registry: Registry) -> None:
    """The registry's answer is final, and names the login."""
    registry.locked, registry.uses = True, 0
    registry.push("team/tiny", "v1", DATA, "tiny.gguf")
    catalogue(project, f"oci://{registry.host}/team/tiny:v1", sha256=HEX, **SIZE)
    result = project.doit("download:m")
    assert result.status != 0
    assert "docker login" in result.err


# what is stored, or how tokens are given, and what the error says
INDEX = json.dumps({"schemaVersion": 2, "manifests": [{"digest": "sha256:00"}]}).encode()
LARGE = b'{"schemaVersion": 2, "x": "' + b"x" * 4_200_000 + b'"}'
HOSTILE = [
    ({"manifest": INDEX}, "an index of several manifests"),
    ({"manifest": LARGE}, "the answer is longer than 4194304 bytes"),
    ({"manifest": b"<html>"}, "not a manifest of version 2"),
    ({"missing": True}, "the registry has no such manifest"),
    ({"name": "../x.gguf"}, "without .."),
    ({"kind": "application/vnd.cncf.model.weight.v1.tar"}, "are an archive"),
    ({"realm": "http://169.254.169.254/token"}, "is not https"),
    ({"realm": "https://10.0.0.1/token"}, "is an internal address"),
    ({"realm": "file:///etc/passwd"}, "is not https"),
    ({"token": json_reply(200, {"token": "x" * 5_000_000})}, "the answer is longer than"),
    ({"token": json_reply(200, {"token": "x" * 20_000})}, "has no usable token"),
    ({"token": plain(302, b"", {"Location": "http://127.0.0.1:1/"})}, "gives no token"),
    ({"scope": True}, "insufficient_scope"),
    ({"redirect": True}, "a redirect to http://example.org/m: plain http is allowed only"),
]


@pytest.mark.parametrize(("case", "expected"), HOSTILE)
def test_hostile_registries(
    project: Project, registry: Registry, case: dict[str, Any], expected: str
) -> None:
    """Nothing is locked, and the error says what is wrong."""
    registry.push("m", "1", DATA, case.get("name", ""), case.get("kind", "application/vnd.docker.ai.gguf.v3"))
    if "manifest" in case:
        registry.put("m", "1", case["manifest"])
    registry.locked = "realm" in case or "token" in case
    registry.realm = case.get("realm", registry.realm)
    registry.token_reply = case.get("token")
    path = "/v2/m/manifests/1"
    if "scope" in case:
        bearer = 'Bearer realm="https://a.example/t",error="insufficient_scope"'
        registry.origin.guard(path, lambda request: plain(403, b"", {"WWW-Authenticate": bearer}))
    if "redirect" in case:
        away = plain(307, b"", {"Location": "http://example.org/m"})
        registry.origin.guard(path, lambda request: away)
    catalogue(project, f"oci://{registry.host}/m:{'2' if 'missing' in case else '1'}")
    result = project.doit("lock")
    assert result.status != 0
    assert expected in result.err
    assert not (project.path / "models.lock").exists()


def test_a_manifest_by_digest_that_is_another(project: Project, registry: Registry) -> None:
    """A registry, or a proxy, that sends another manifest than the one that is pinned."""
    pinned = registry.push("m", "1", DATA, "x.gguf")
    registry.push("m", "2", OTHER, "x.gguf")
    registry.manifests["m", pinned.partition("@")[2]] = registry.manifests["m", "2"]
    registry.origin.guard(
        f"/v2/m/manifests/{pinned.partition('@')[2]}",
        lambda request: plain(200, registry.manifests["m", "2"], {}, OCI),
    )
    catalogue(project, pinned)
    result = project.doit("lock")
    assert result.status != 0
    assert "does not match its digest" in result.err


def test_a_size_that_is_not_the_blobs(project: Project, registry: Registry) -> None:
    """The lock takes the manifest's word; the download does not."""
    registry.push("m", "1", DATA, "x.gguf", size=len(DATA) + 1)
    catalogue(project, f"oci://{registry.host}/m:1")
    assert project.doit("lock").status == 0
    registry.origin.always(f"/v2/m/blobs/{sha256(DATA)}", registry)
    result = project.doit("download:m")
    assert result.status != 0
    assert "wrong length" in result.err
    assert not project.target(DATA, "x.gguf").exists()
