"""`auth:` in models.yaml: what a private registry and a private mirror get, and who else does not."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import llamafile
from tests.fakes.faults import Reply, Request, plain
from tests.fakes.registry import Registry
from tests.fakes.server import FileServer, Redirect
from tests.support.project import ENGINES, Project, Result

DATA = llamafile.gguf(300_000)
SECRET = "verySecretPassword"
LOGIN = base64.b64encode(f"bot:{SECRET}".encode()).decode()
USER = {"user": "bot", "password": "REGISTRY_PASSWORD"}
SET = {"REGISTRY_PASSWORD": SECRET}
EMBEDDED = {"embedded": ENGINES["embedded"]}


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as one:
        one.push("team/tiny", "v1", DATA, "tiny.gguf")
        yield one


def catalogue(project: Project, url: str, auth: dict[str, Any], **keys: Any) -> None:
    models = {"m": project.entry(url, engine="embedded", **keys)}
    project.catalogue(models, EMBEDDED, auth=auth)


def check_secret(project: Project, result: Result) -> None:
    """Neither an output nor a file has the secret."""
    kept = [path.read_bytes() for path in project.cache.rglob("*") if path.is_file()]
    lock = project.path / "models.lock"
    kept += [lock.read_bytes()] if lock.exists() else []
    texts = [(result.out + result.err).encode(), *kept]
    assert not [text for text in texts if SECRET.encode() in text or LOGIN.encode() in text]


def test_a_registry_that_exchanges_a_password(project: Project, registry: Registry) -> None:
    """The login goes to the realm, its token to the registry, nothing to the blobs' other host."""
    registry.locked = registry.redirects = True
    registry.login = LOGIN
    catalogue(project, f"oci://{registry.host}/team/tiny:v1", {registry.host: USER})
    without = project.doit("lock")
    assert without.status != 0
    assert (
        "set REGISTRY_PASSWORD, which auth: in models.yaml names for this host or docker login" in without.err
    )
    assert registry.host in without.err
    refused = project.doit("lock", env={"REGISTRY_PASSWORD": "wrong"})
    assert "set REGISTRY_PASSWORD (auth: in models.yaml) to one that is accepted" in refused.err
    for command in ("lock", "download:m"):
        done = project.doit(command, env={**SET, "LLAMAFILE_LOG": "json"})
        assert done.status == 0, done.err
        check_secret(project, done)
    assert project.target(DATA, "tiny.gguf").read_bytes() == DATA
    shown = [r.headers.get("Authorization") or "" for r in registry.origin.requests if r.path != "/token"]
    assert not [text for text in shown if text.startswith("Basic ")]
    assert registry.cdn.requests
    assert not [r for r in registry.cdn.requests if r.headers.get("Authorization")]


def test_a_registry_that_is_open_needs_no_variable(project: Project, registry: Registry) -> None:
    """A missing variable is an error only where the host asks."""
    catalogue(project, f"oci://{registry.host}/team/tiny:v1", {registry.host: USER})
    assert project.doit("lock").status == 0
    assert project.doit("download:m").status == 0


def private(expected: str) -> Any:
    """Answer 401 to a request with other credentials."""

    def guard(request: Request) -> Reply | None:
        if request.headers.get("Authorization") == expected:
            return None
        return plain(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})

    return guard


# entry, value of the variable, header that the mirror wants
MIRRORS = [
    ({"token": "MIRROR"}, SECRET, f"Bearer {SECRET}"),
    ({"user": "bot", "password": "MIRROR"}, SECRET, f"Basic {LOGIN}"),
]


@pytest.mark.parametrize(("entry", "value", "header"), MIRRORS)
def test_a_private_mirror(project: Project, entry: dict[str, str], value: str, header: str) -> None:
    """Its redirect to another host has no credentials."""
    with FileServer() as mirror, FileServer() as storage:
        storage.files["/tiny.gguf"] = DATA
        mirror.always("/tiny.gguf", Redirect(storage.url("/tiny.gguf", "localhost")))
        mirror.guard("/tiny.gguf", private(header))
        host = f"127.0.0.1:{mirror.port}"
        pins = project.entry("", DATA)
        catalogue(project, mirror.url("/tiny.gguf"), {host: entry}, sha256=pins["sha256"], size=pins["size"])
        without = project.doit("download:m")
        assert without.status != 0
        assert "set MIRROR, which auth: in models.yaml names for this host" in without.err
        refused = project.doit("download:m", env={"MIRROR": "wrong"})
        assert "set MIRROR (auth: in models.yaml) to one that is accepted" in refused.err
        done = project.doit("download:m", env={"MIRROR": value})
        assert done.status == 0, done.err
        check_secret(project, done)
        assert storage.requests
        assert not [r for r in storage.requests if r.headers.get("Authorization")]


# what models.yaml has in the place of a variable's name
BAD = [
    ({"token": SECRET}, "the name of an environment variable, in upper case"),
    (SECRET, "expected lines of `key: value`"),
    ({"user": "bot"}, "expected token, or user and password"),
    ({}, "expected token, or user and password"),
    ({"user": "bot", "password": "P", "token": "T"}, "expected token, or user and password"),
    ({"user": "a:b", "password": "P"}, "a name in ASCII without ':'"),
]


@pytest.mark.parametrize(("entry", "expected"), BAD)
def test_a_secret_in_models_yaml_is_not_shown(project: Project, entry: Any, expected: str) -> None:
    catalogue(project, "https://h.example/m.gguf", {"h.example": entry})
    result = project.doit("plan", "m")
    assert result.status != 0
    assert expected in result.err
    check_secret(project, result)


# what docker-credential-test prints, after the host on stdin
LOGIN_JSON = json.dumps({"ServerURL": "x", "Username": "bot", "Secret": SECRET})
ASKED = "import sys; assert sys.argv[1:] == ['get'] and sys.stdin.read() == HOST"
HELPERS = [
    (f"{ASKED}; print({LOGIN_JSON!r})", True),
    (f"print({LOGIN_JSON!r}); raise SystemExit(1)", False),
    ("print('credentials not found in native keychain')", False),
    ("while True: print('x' * 4096)", False),
    ("import time; time.sleep(600)", False),
]


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a script with #!")
@pytest.mark.parametrize(("code", "is_good"), HELPERS)
def test_a_credential_helper(project: Project, registry: Registry, code: str, is_good: bool) -> None:
    """Its login is used; a helper that never ends, or fails, is none."""
    registry.locked, registry.login = True, LOGIN
    if "while" in code or "sleep" in code:
        project.set_constant("tasks/network/docker_login.py", "_LIMIT_S", 0.3)
    folder = Path(project.env["HOME"]) / "bin"
    folder.mkdir()
    program = folder / "docker-credential-test"
    program.write_text(f"#!{sys.executable}\n{code.replace('HOST', repr(registry.host))}\n", "utf-8")
    program.chmod(0o755)
    config = Path(project.env["HOME"]) / "config.json"
    config.write_text(json.dumps({"credHelpers": {registry.host: "test"}}), "utf-8")
    project.env |= {"REGISTRY_AUTH_FILE": str(config), "PATH": f"{folder}{os.pathsep}{project.env['PATH']}"}
    catalogue(project, f"oci://{registry.host}/team/tiny:v1", {})
    result = project.doit("lock")
    assert (result.status == 0) is is_good, result.err
    assert is_good or f"docker login {registry.host}" in result.err
    check_secret(project, result)
