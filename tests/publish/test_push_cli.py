"""`doit push` against a registry that misbehaves: what is published is right, or nothing is."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tasks.catalogue.artifact import Artifact
from tasks.errors import RecipeError
from tasks.publish import answers, push, records
from tasks.publish.client import Client
from tasks.publish.formats import About
from tasks.references import OciReference
from tasks.transfer.dependencies import Dependencies

from tests.fakes import llamafile
from tests.fakes.faults import Reply, plain
from tests.fakes.publisher import json_reply
from tests.fakes.registry import Registry, sha256
from tests.support.project import ENGINES, Project

DATA = llamafile.gguf(300_000)
HEX = sha256(DATA).removeprefix("sha256:")
EMBEDDED = {"embedded": ENGINES["embedded"]}
LOGIN = base64.b64encode(b"me:verySecretPassword").decode()
PIECE = 100_000
ABOUT = About("m", "A model", "MIT")


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as one:
        yield one


@pytest.fixture
def here(project: Project) -> Project:
    """A project with a model that is here, small pieces, and short waits."""
    file = project.path / "tiny.gguf"
    file.write_bytes(DATA)
    project.catalogue({"m": project.entry("./tiny.gguf", DATA, engine="embedded")}, EMBEDDED)
    assert project.doit("download:m").status == 0
    project.set_constant("tasks/publish/answers.py", "PIECE", PIECE)
    project.set_constant("tasks/publish/answers.py", "LEAST_PIECE", 10_000)
    project.set_constant("tasks/network/response.py", "BACKOFF_FIRST_S", 0.001)
    return project


def tag(registry: Registry) -> bytes | None:
    return registry.manifests.get(("team/m", "v1"))


def test_published_pinned_and_read_again(here: Project, registry: Registry) -> None:
    """Twice is one digest and no byte; what it prints can be pasted; another tag is one request more."""
    registry.locked = True
    first = here.doit("push", "m", f"oci://{registry.host}/team/m:v1")
    assert first.status == 0, first.err
    assert "tiny.gguf" in first.out
    line = first.out.splitlines()[-1]
    manifest = tag(registry)
    assert manifest
    assert line == f"url: oci://{registry.host}/team/m@{sha256(manifest)}"
    assert registry.received == len(DATA) + json.loads(manifest)["config"]["size"]
    assert set(registry.scopes) == {"repository:team/m:pull,push"}
    again = here.doit("push:m", f"oci://{registry.host}/team/m:v2", "--json")
    assert again.status == 0, again.err
    report = json.loads(again.out)
    assert (report["sent"], report["replaced"]) == (0, None)
    assert report["digest"] == sha256(manifest)
    assert not list((here.cache / "uploads").glob("*"))
    # another machine
    here.catalogue({"m": here.entry(line.removeprefix("url: "), engine="embedded")}, EMBEDDED)
    env = {"LLAMAFILE_CACHE": str(here.cache.with_name("other"))}
    assert here.doit("lock", env=env).status == 0
    assert here.doit("download:m", env=env).status == 0
    assert here.doit("audit", env=env).status == 0


UNKNOWN = json_reply(404, {"errors": [{"code": "BLOB_UPLOAD_UNKNOWN"}]})
DENIED = json_reply(403, {"errors": [{"code": "DENIED"}]})
UPLOAD = "/v2/team/m/blobs/uploads/upload-1"
WRONG = {"Docker-Content-Digest": "sha256:" + "0" * 64}
KEEPS_A_BYTE = [plain(202, b"", {"Range": f"0-{n}", "Location": UPLOAD}) for n in range(99)]
# request, answers to it, then: published or not, a part of the text
HOSTILE: list[tuple[str, list[Reply], bool, str]] = [
    ("POST", [DENIED], False, "does not let you push to team/m (HTTP 403 DENIED)"),
    ("POST", [plain(404, b"", {})], False, "create the repository team/m"),
    ("POST", [plain(307, b"", {"Location": "https://other.example/v2/"})], False, "a write to other.example"),
    ("POST", [plain(202, b"", {"Location": "http://10.0.0.1/x"})], False, "10.0.0.1/x is not https"),
    ("POST", [plain(202, b"", {})], False, "no Location"),
    ("POST", [plain(200, b"<html>", {})], False, "refuses an upload (HTTP 200)"),
    ("POST", [plain(429, b"", {"Retry-After": "0"}), plain(503, b"", {})], True, "published"),
    ("POST", [plain(429, b"", {"Retry-After": "9999"})], False, "HTTP 429"),
    ("POST", [plain(503, b"", {})] * 9, False, "tried 6 times"),
    ("POST", [Reply(0, {}, mute=True)], True, "published"),
    ("PATCH", [plain(500, b"", {}), plain(502, b"", {})], True, "published"),
    ("PATCH", [plain(416, b"", {})] * 9, False, "HTTP 416"),
    ("PATCH", [plain(413, b"", {})], True, "published"),
    ("PATCH", [plain(413, b"", {})] * 9, False, "client_max_body_size"),
    ("PATCH", [UNKNOWN], True, "published"),
    ("PATCH", [UNKNOWN] * 9, False, "has dropped the upload"),
    ("PATCH", [plain(405, b"", {})], False, "a mirror of another one?"),
    ("PATCH", [plain(202, b"", {"Range": "0-999999999", "Location": "/x"})], True, "published"),
    ("PATCH", [plain(202, b"", {"Range": "0-99", "Location": UPLOAD})] * 99, False, "bytes (tried 6 times)"),
    ("PATCH", KEEPS_A_BYTE, False, "bytes (tried 6 times)"),
    ("PATCH", [plain(202, b"x" * 5_000_000, {})], False, "longer than"),
    ("PUT", [plain(201, b"", WRONG)], False, "has stored other bytes"),
    ("PUT", [plain(500, b"", {})], True, "published"),
    ("PUT", [json_reply(400, {"errors": [{"code": "DIGEST_INVALID"}]})], True, "published"),
    ("PUT", [json_reply(400, {"errors": [{"code": "DIGEST_INVALID"}]})] * 9, False, "DIGEST_INVALID"),
    ("MANIFEST", [plain(201, b"", WRONG)], False, "has stored other bytes"),
    ("MANIFEST", [plain(500, b"", {})], True, "published"),
    ("MANIFEST", [plain(413, b"", {})], False, "refuses the manifest (HTTP 413)"),
]  # fmt: skip


def test_a_hostile_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tag is written or not, as the row says; a refusal says what to do."""
    monkeypatch.setattr(answers, "PIECE", PIECE)
    monkeypatch.setattr(answers, "LEAST_PIECE", 10_000)
    path = tmp_path / "tiny.gguf"
    path.write_bytes(DATA)
    file = push.File(Artifact("m", (), str(path), HEX, len(DATA)), path.name)
    wrong = []
    for name, replies, is_published, text in HOSTILE:
        with Registry() as registry:
            registry.scripted[name].extend(replies)
            target = OciReference(registry.host, "team/m", "v1")
            client = Client(target, (), Dependencies(sleep=lambda _: None))
            try:
                push.push(client, str(tmp_path), ABOUT, [file])
                got = (True, "published")
            except RecipeError as error:
                got = (False, str(error))
            client.close()
            if (got[0], tag(registry) is not None) != (is_published, is_published) or text not in got[1]:
                wrong.append((name, replies[0].status, len(replies), got))
    assert not wrong


@pytest.mark.parametrize(("keeps", "most"), [(True, 1.01), (False, 1.99)])
def test_a_dropped_connection(here: Project, registry: Registry, keeps: bool, most: float) -> None:
    """It goes on where the registry says; one that has dropped the upload gets it again."""
    registry.keeps_cut = keeps
    registry.origin.cuts.append(50_000)
    result = here.doit("push", "m", f"oci://{registry.host}/team/m:v1")
    assert result.status == 0, result.err
    assert f"{registry.host}/team/m:v1: " in result.err
    assert "; retrying in " in result.err
    assert registry.blobs[sha256(DATA)] == DATA
    assert len(DATA) <= registry.received <= len(DATA) * most


def test_the_next_command_goes_on(here: Project, registry: Registry) -> None:
    """Where the first one ended; the place, which may have a secret, is for this user only."""
    registry.scripted["PATCH"].append(plain(405, b"", {}))
    registry.origin.cuts.append(60_000)
    assert here.doit("push", "m", f"oci://{registry.host}/team/m:v1").status != 0
    assert tag(registry) is None
    (record,) = (here.cache / "uploads").iterdir()
    if os.name == "posix":
        assert record.stat().st_mode & 0o077 == 0
    result = here.doit("push", "m", f"oci://{registry.host}/team/m:v1")
    assert result.status == 0, result.err
    assert registry.blobs[sha256(DATA)] == DATA
    assert registry.received < len(DATA) * 1.01
    assert not record.exists()


def test_credentials_stay_with_their_host(here: Project, registry: Registry) -> None:
    """An upload that continues on another host gets the bytes, and no login."""
    registry.locked, registry.login = True, LOGIN
    config = Path(here.env["HOME"]) / "auth.json"
    config.write_text(json.dumps({"auths": {registry.host: {"auth": LOGIN}}}), "utf-8")
    here.env["REGISTRY_AUTH_FILE"] = str(config)
    registry.upload_host = registry.cdn.url("")
    registry.cdn.otherwise = registry
    result = here.doit("push", "m", f"oci://{registry.host}/team/m:v1")
    assert result.status == 0, result.err
    assert registry.blobs[sha256(DATA)] == DATA
    assert registry.cdn.requests
    assert all(request.headers.get("Authorization") is None for request in registry.cdn.requests)
    assert LOGIN not in result.out + result.err


def test_basic_authentication(here: Project, registry: Registry) -> None:
    """With docker's login, or with the password of .netrc."""
    registry.basic = LOGIN
    refused = here.doit("push", "m", f"oci://{registry.host}/team/m:v1")
    assert refused.status != 0
    assert f"fix: docker login {registry.host}" in refused.err
    home = Path(here.env["HOME"])
    for number, path in enumerate((home / ".docker/config.json", home / ".netrc")):
        path.parent.mkdir(exist_ok=True)
        netrc = "machine 127.0.0.1 login me password verySecretPassword\n"
        text = [json.dumps({"auths": {registry.host: {"auth": LOGIN}}}), netrc][number]
        path.write_text(text, "utf-8")
        path.chmod(0o600)
        result = here.doit("push", "m", f"oci://{registry.host}/team/m:v{number}")
        assert result.status == 0, result.err
        path.unlink()


def test_a_record_of_another_upload(here: Project, registry: Registry) -> None:
    """Who can write to the cache may rename one: the file would go to the other repository."""
    with records.record(str(here.cache), f"http://{registry.host}/v2/public/x", HEX) as other:
        other.save(f"http://{registry.host}/v2/public/x/blobs/uploads/1")
    (file,) = (here.cache / "uploads").iterdir()
    with records.record(str(here.cache), f"http://{registry.host}/v2/team/m", HEX) as own:
        own.save("https://r.example/1")
        (path,) = (one for one in (here.cache / "uploads").iterdir() if one != file)
    file.replace(path)
    assert here.doit("push", "m", f"oci://{registry.host}/team/m:v1").status == 0
    assert not [request for request in registry.origin.requests if "public/x" in request.path]


def test_two_pushes_at_once(here: Project, registry: Registry) -> None:
    """The second one has an upload of its own, which is not remembered."""
    base = f"http://{registry.host}/v2/team/m"
    with records.record(str(here.cache), base, HEX) as first:
        first.save(f"{base}/blobs/uploads/of-the-first")
        result = here.doit("push", "m", f"oci://{registry.host}/team/m:v1")
        assert result.status == 0, result.err
        assert first.load() == f"{base}/blobs/uploads/of-the-first"
    assert registry.blobs[sha256(DATA)] == DATA


def test_wrong_bytes_are_not_published(here: Project, registry: Registry) -> None:
    """A file that changed after it was verified, with the size and times of before."""
    target = here.target(DATA, "tiny.gguf")
    status = target.stat()
    with target.open("r+b") as file:
        file.seek(200_000)
        file.write(b"wrong")
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
    for verb in ("push", "image"):
        result = here.doit(verb, "m", f"oci://{registry.host}/team/m:v1")
        assert result.status != 0
        assert "m has changed on disk" in result.err
        assert f"expected: {sha256(DATA)}" in result.err
    target.write_bytes(DATA[:-1])
    assert "has changed on disk" in here.doit("push", "m", f"oci://{registry.host}/team/m:v1").err
    assert not registry.manifests
    assert sha256(DATA) not in registry.blobs
    # the registry has the file, and does not tell its size
    registry.redirects = True
    registry.blobs[sha256(DATA)] = DATA
    assert "has changed on disk" in here.doit("push", "m", f"oci://{registry.host}/team/m:v1").err
    assert not registry.manifests


REFUSED = [
    ("push m", "takes one target"),
    ("push m ollama:x", "expected oci://HOST/REPO:TAG"),
    ("push m example.org/m:v1", "fix: oci://example.org/m:v1"),
    ("push m oci://h/Upper:v1", "lower case"),
    (f"push m oci://h/m@sha256:{'0' * 64}", "a push makes the digest"),
    ("push m oci://h/m:v1/x.gguf", "expected a tag"),
    ("push nope oci://h/m:v1", "nope"),
    ("push v oci://h/m:v1", "v has variants: q4, q8"),
    ("image v oci://h/m:v1 --variant q9", "q9"),
    ("push absent oci://h/m:v1", "fix: doit download absent"),
]


def test_what_cannot_be_pushed(project: Project) -> None:
    """Before any request."""
    entry = project.entry("https://example.org/tiny.gguf", DATA, engine="embedded")
    links = {name: {"url": f"https://example.org/{name}.gguf"} for name in ("q4", "q8")}
    several = {"title": "V", "license": "MIT", "engine": "embedded", "variants": links}
    project.catalogue({"m": entry, "absent": entry, "v": several}, EMBEDDED)
    for line, text in REFUSED:
        result = project.doit(*line.split())
        assert result.status != 0
        assert text in result.err, line


def test_names_in_the_manifest() -> None:
    """They differ, and a projector is known by its name."""
    paths = {
        "/c/a/x.gguf": "",
        "/c/b/X.gguf": "draft",
        "/c/c/vision.gguf": "mmproj",
        "/c/d/mmproj-q8.gguf": "mmproj",
    }
    files = push.named_files([Artifact("m", (), path) for path in paths], list(paths.values()))
    assert [file.name for file in files] == ["x.gguf", "draft-X.gguf", "mmproj-vision.gguf", "mmproj-q8.gguf"]
    files = push.named_files([Artifact("m", (), path) for path in paths], list(paths.values()), as_image=True)
    assert [file.name for file in files] == ["x.gguf", "draft-X.gguf", "vision.gguf", "mmproj-q8.gguf"]
