"""`doit bom`: what is here, where it came from, what it hashes to, and under which licence."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import llamafile
from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer
from tests.server.test_serve_cli import behave, with_gguf
from tests.support.project import ENGINES, Project

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PATH = f"/owner/repo/resolve/{COMMIT}/m.llamafile"
LLAMAFILE = {"llamafile": ENGINES["llamafile"]}
DATA = noise(b"m", 50_000)
IRI = re.compile(r"[a-z][a-z0-9+.-]*:(?:[^\s%<>\"{}|\\^`]|%[0-9A-Fa-f]{2})+")  # RFC 3987, roughly
posix = pytest.mark.skipif(os.name != "posix", reason="the fake llamafile is a shell script")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
def model(project: Project, server: FileServer, tmp_path: Path) -> bytes:
    """The bytes of the model `m`, a llamafile that ran here; the catalogue has no other engine."""
    data = llamafile.build(tmp_path / "m.llamafile", version="0.8.6").read_bytes()
    server.files[PATH] = data
    project.catalogue(
        {"m": project.entry(server.url(PATH), data, license="apache-2.0", title="Model M")}, LLAMAFILE
    )
    behave(project)
    result = project.doit("verify")
    assert result.status == 0, result.err
    return data


def bom(project: Project, **env: str) -> dict[str, Any]:
    """The document, held to the standard's own schema where its library is installed."""
    result = project.doit("bom", "--json", env=env)
    assert result.status == 0, result.err
    check(result.out)
    return dict(json.loads(result.out))


def check(text: str) -> None:
    """Raise where the text is no CycloneDX 1.6, or has anything that 1.6 does not know."""
    try:
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator
    except ImportError:
        return  # test_the_standard says so
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    urls = re.findall(r'"url": "(.*?)"', text)  # their format is an extra of the library, which loads slowly
    assert not [url for url in urls if not IRI.fullmatch(url)]


def component(document: dict[str, Any], name: str = "m") -> dict[str, Any]:
    [found] = [one for one in document["components"] if one["name"] == name]
    return dict(found)


def properties(one: dict[str, Any]) -> dict[str, str]:
    return {each["name"].removeprefix("llamafile-recipe:"): each["value"] for each in one["properties"]}


@posix
def test_one_model(project: Project, server: FileServer, model: bytes) -> None:
    """Issue 5.7: source, commit, sha256, size, licence by its SPDX identifier, engine version."""
    document = bom(project)
    one, digest = component(document), hashlib.sha256(model).hexdigest()
    path = project.target(model, "m.llamafile").relative_to(project.cache).as_posix()
    hashes = [{"alg": "SHA-256", "content": digest}]
    url = server.url(PATH)
    assert properties(one) == {
        "commit": COMMIT,
        "engine:self": "0.8.6",
        "path": path,
        "size": str(len(model)),
    }
    assert {**one, "properties": []} == {
        "type": "machine-learning-model", "bom-ref": path, "name": "m", "version": COMMIT,
        "description": "Model M", "hashes": hashes, "licenses": [{"license": {"id": "Apache-2.0"}}],
        "externalReferences": [{"type": "distribution", "url": url, "hashes": hashes}], "properties": [],
    }  # fmt: skip
    assert document["metadata"]["component"]["name"] == "llamafile-recipe"
    assert document["dependencies"] == [{"ref": "llamafile-recipe", "dependsOn": [path]}]


@posix
def test_for_people(project: Project, server: FileServer, model: bytes) -> None:
    """Issue 5.7: the same as a table."""
    result = project.doit("bom")
    assert (result.status, result.err) == (0, "")
    titles, line = result.out.splitlines()
    assert titles.split() == ["name", "size", "licence", "engine", "sha256", "commit", "source"]
    size, unit, licence, engine, said, digest, commit, source = line.split()[1:]
    assert (unit, licence, engine, said) == ("kB", "apache-2.0", "self", "0.8.6")
    assert float(size) == pytest.approx(len(model) / 1000, abs=0.1)
    assert (digest, commit) == (hashlib.sha256(model).hexdigest()[:12], COMMIT[:7])
    assert server.url(PATH).startswith(source.rstrip("…"))  # the last column gives way
    assert len(source) > 60


def test_an_endpoint(project: Project) -> None:
    """Issue 16.1: it is a service, which depends on the files of its models that are here."""
    (project.path / "c.gguf").write_bytes(b"GGUF" + DATA)
    models = {name: project.entry("demo/demo.gguf", engine="embedded") for name in ("a", "b")}
    models["c"] = project.entry("c.gguf", b"GGUF" + DATA, engine="embedded")
    office = {"models": ["a", "b"]}
    project.catalogue(models, endpoints={"office": office, "none": {"models": ["c"]}})
    assert project.doit("download", "a").status == 0
    document = bom(project)
    [service] = document["services"]
    assert service == {"bom-ref": "endpoint:office", "name": "office", "description": "an endpoint of a, b"}
    ours, needed = document["dependencies"]
    assert needed["ref"] == "endpoint:office"
    assert needed["dependsOn"]
    assert set(needed["dependsOn"]) <= set(ours["dependsOn"])


@posix
def test_it_can_be_made_again(project: Project, model: bytes) -> None:
    """Issue 5.7: what is the same has the same serial number; with SOURCE_DATE_EPOCH, the same bytes."""
    first, again = bom(project), bom(project, SOURCE_DATE_EPOCH="1700000000")
    assert first["serialNumber"] == again["serialNumber"]
    assert again["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"
    texts = [project.doit("bom", "--json", env={"SOURCE_DATE_EPOCH": "1700000000"}).out for _ in range(2)]
    assert texts[0] == texts[1]
    del first["metadata"]["timestamp"], again["metadata"]["timestamp"]
    assert first == again
    project.catalogue({"m": project.entry("https://h.example/x.llamafile", model)}, LLAMAFILE)
    assert bom(project)["serialNumber"] != first["serialNumber"]


@pytest.mark.parametrize("epoch", ["yesterday", "9" * 30, "1.5"])
def test_a_time_that_is_none(project: Project, epoch: str) -> None:
    """Issue 5.7: SOURCE_DATE_EPOCH is seconds since 1970."""
    result = project.doit("bom", "--json", env={"SOURCE_DATE_EPOCH": epoch})
    assert (result.status, result.out) == (1, "")
    assert f"ERROR: SOURCE_DATE_EPOCH: expected seconds since 1970, got {epoch!r}\n  fix: " in result.err


@posix
def test_llamafiles_program(project: Project) -> None:
    """Issue 5.7: it is an application, of the version that it said; the model has it as its engine."""
    model, exe = with_gguf(project, license="LFM1.0")
    assert project.doit("verify").status == 0
    document = bom(project)
    program = component(document, "llamafile 0.10.5")
    assert (program["type"], program["version"]) == ("application", "0.10.5")
    assert program["hashes"][0]["content"] == hashlib.sha256(exe.read_bytes()).hexdigest()
    assert "externalReferences" not in program  # it came from this machine: nobody else can fetch it there
    assert properties(program)["source"] == "llamafile-0.10.5"
    one = component(document, "g")
    assert properties(one)["engine:llamafile"] == "0.10.5"
    assert properties(one)["source"] == "g.gguf"
    assert one["licenses"] == [{"license": {"name": "LFM1.0"}}]
    assert one["hashes"][0]["content"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert str(project.path) not in json.dumps(document)


def test_the_embedded_engine(project: Project) -> None:
    """Issue 5.7: it is a Python package, of the version that is installed."""
    try:
        here = version("xllamacpp")
    except PackageNotFoundError:
        pytest.skip("the embedded engine is not installed")
    project.catalogue({"m": project.entry("https://h.example/m.llamafile")})
    one = component(bom(project), "xllamacpp")
    assert (one["type"], one["version"], one["purl"]) == ("application", here, f"pkg:pypi/xllamacpp@{here}")
    assert one["licenses"] == [{"license": {"id": "MIT"}}]
    assert "xllamacpp" in project.doit("bom").out


def test_nothing_here(project: Project) -> None:
    """Issue 5.7: then it is a document of nothing, and valid."""
    project.catalogue({"m": project.entry("https://h.example/m.llamafile")}, LLAMAFILE)
    assert bom(project)["components"] == []
    result = project.doit("bom")
    assert (result.status, result.out) == (0, f"nothing is here. Cache: {project.cache}\n")


def test_bytes_of_which_nothing_is_proven(project: Project) -> None:
    """Issue 5.7: a digest is only said of bytes that have not changed since they were read."""
    (project.path / "m.llamafile").write_bytes(DATA)
    project.catalogue({"m": project.entry("m.llamafile", DATA)}, LLAMAFILE)
    assert project.doit("download").status == 0
    os.utime(project.target(DATA, "m.llamafile"), (1, 1))
    result = project.doit("bom", "--json")
    assert "hashes" not in component(json.loads(result.out))
    assert "m.llamafile: its digest is not verified" in result.err
    assert " not verified " in project.doit("bom").out
    assert project.doit("download").status == 0
    assert component(bom(project))["hashes"][0]["content"] == hashlib.sha256(DATA).hexdigest()


def test_what_no_catalogue_names(project: Project, server: FileServer) -> None:
    """Issue 5.7: it is here, so it is listed, by what its stamp says; nobody says its licence."""
    server.files[PATH] = DATA
    project.catalogue({"o": project.entry("https://h.example/o.llamafile")}, LLAMAFILE)
    assert project.doit("download", "--llamafile-url", server.url(PATH)).status == 0
    one = component(bom(project), "m.llamafile")
    assert "licenses" not in one
    assert one["hashes"][0]["content"] == hashlib.sha256(DATA).hexdigest()
    assert one["externalReferences"][0]["url"] == server.url(PATH)
    assert properties(one)["commit"] == COMMIT


def test_the_standard() -> None:
    """Issue 5.7: the documents above were held to CycloneDX' own schema, which takes not anything."""
    validation = pytest.importorskip("cyclonedx.validation.json", reason="cyclonedx-python-lib is not here")
    pytest.importorskip("jsonschema")
    schema = pytest.importorskip("cyclonedx.schema")
    checker = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    good = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}
    assert checker.validate_str(json.dumps(good)) is None
    wrong = {
        "components": [{"type": "application", "name": "x", "licenses": [{"license": {"id": "LFM1.0"}}]}]
    }
    assert checker.validate_str(json.dumps(good | wrong)) is not None


def test_every_identifier_is_spdx() -> None:
    """Issue 5.7: what is given as an SPDX identifier is one."""
    spdx = pytest.importorskip("cyclonedx.spdx", reason="cyclonedx-python-lib is not here")
    from tasks.catalogue.spdx import _IDENTIFIERS

    assert [name for name in _IDENTIFIERS if not spdx.is_supported_id(name)] == []
