"""Manifests of models: which file they mean, and which are refused."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from tasks.errors import IntegrityError, TransferError
from tasks.references import parse_oci
from tasks.upstream.manifest import parse_manifest, parse_modelscope

OCI = "application/vnd.oci.image.manifest.v1+json"
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
RAW = "application/vnd.cncf.model.weight.v1.raw"
GGUF = "application/vnd.docker.ai.gguf.v3"
OLLAMA = "application/vnd.ollama.image.model"
PATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
A, B = "a" * 64, "b" * 64
REFERENCE = "oci://h/m:1"


def layer(kind: str, digest: str = A, size: object = 10, **names: str) -> dict[str, Any]:
    row: dict[str, Any] = {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}
    keys = {"path": PATH, "title": TITLE}
    return {**row, "annotations": {keys[key]: name for key, name in names.items()}}


def body(*layers: object, kind: str | None = OCI, **more: object) -> bytes:
    data = {"schemaVersion": 2, "layers": layers, **more}
    return json.dumps({**data, "mediaType": kind} if kind else data).encode()


def parse(content: bytes, text: str = REFERENCE, stated: str = "") -> Any:
    reference = parse_oci(text)
    assert reference
    return parse_manifest(content, hashlib.sha256(content).hexdigest(), reference, stated)


LICENCE = layer("application/vnd.docker.ai.license", B)
# manifest, reference, digest of the file, its name
GOOD = [
    (body(layer(RAW, path="x.gguf")), REFERENCE, A, "x.gguf"),
    (body(layer(RAW, path="models/x.gguf")), REFERENCE, A, "x.gguf"),
    (body(layer(RAW, path="README.md")), REFERENCE, A, "m-1.gguf"),
    (body(LICENCE, layer(GGUF)), REFERENCE, A, "m-1.gguf"),
    (body(layer(GGUF)), REFERENCE + "/mine.gguf", A, "mine.gguf"),
    (body(layer(OLLAMA), kind=DOCKER), "ollama:llama3.2:1b", A, "llama3.2-1b.gguf"),
    (body(layer("application/octet-stream", title="x.llamafile")), REFERENCE, A, "x.llamafile"),
    (body(layer(RAW, path="x.gguf"), layer(RAW, B, path="y.gguf")), REFERENCE + "/y.gguf", B, "y.gguf"),
    (body(layer(RAW, path="x.gguf"), kind=None), REFERENCE, A, "x.gguf"),
]


@pytest.mark.parametrize(("content", "text", "digest", "name"), GOOD)
def test_the_file_of_a_manifest(content: bytes, text: str, digest: str, name: str) -> None:
    reference = parse_oci(text)
    found = parse(content, text)
    manifest = hashlib.sha256(content).hexdigest()
    assert reference
    assert (found.sha256, found.size) == (digest, 10)
    assert found.url == f"oci://{reference.host}/{reference.repo}@sha256:{manifest}/{name}"


NOTE = "org.opencontainers.image.licenses"
# annotations of a manifest, licence
LICENCES = [
    ({NOTE: "Apache-2.0"}, "Apache-2.0"),
    ({NOTE: "MIT OR Apache-2.0"}, "MIT OR Apache-2.0"),
    ({}, ""),
    ({NOTE: ""}, ""),
    ({NOTE: ["MIT"]}, ""),
    ({NOTE: "MIT\x1b[2J"}, ""),
    (None, ""),
    (7, ""),
]


@pytest.mark.parametrize(("annotations", "licence"), LICENCES)
def test_the_licence_of_a_manifest(annotations: object, licence: str) -> None:
    assert parse(body(layer(GGUF), annotations=annotations)).license == licence


MMPROJ, JINJA = "application/vnd.docker.ai.mmproj", "application/vnd.docker.ai.chat.template.jinja"
TEXT = "application/vnd.cncf.model.weight.config.v1.raw"
PROJECTOR = "application/vnd.ollama.image.projector"
C, D = "c" * 64, "d" * 64
# manifest, reference, digest of the file, (role, name, digest) of the files beside it
BESIDE = [
    (body(layer(GGUF), layer(MMPROJ, B), layer(JINJA, C)), REFERENCE, A,
     [("mmproj", "mmproj.gguf", B), ("template", "chat-template.jinja", C)]),
    (body(layer(OLLAMA), layer(PROJECTOR, B), layer("application/vnd.ollama.image.template", C), kind=DOCKER),
     "ollama:llava", A, [("mmproj", "mmproj.gguf", B)]),
    (body(layer(RAW, path="x.gguf"), layer(RAW, B, path="mmproj-F16.gguf"), layer(TEXT, C, path="x.jinja")),
     REFERENCE, A, [("mmproj", "mmproj-F16.gguf", B), ("template", "x.jinja", C)]),
    (body(layer(RAW, path="x.gguf"), layer(TEXT, C, path="config.json")), REFERENCE, A, []),
    (body(layer(GGUF), layer(MMPROJ, B), layer(MMPROJ, C)), REFERENCE, A, []),
    (body(layer(GGUF), layer(MMPROJ, B), layer(MMPROJ, C), layer(JINJA, D)), REFERENCE, A,
     [("template", "chat-template.jinja", D)]),
    (body(layer(GGUF), layer(MMPROJ, B)), REFERENCE + "/mmproj.gguf", B, []),
    (body(layer(GGUF), layer(JINJA, B)), REFERENCE + "/chat-template.jinja", B, []),
    (body(layer(RAW, path="mmproj-F16.gguf")), REFERENCE, A, []),
    (body(layer(RAW, path="x.gguf"), layer(RAW, B, path="y.gguf"), layer(RAW, C, path="mmproj.gguf")),
     REFERENCE + "/y.gguf", B, [("mmproj", "mmproj.gguf", C)]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "text", "digest", "expected"), BESIDE)
def test_files_beside_the_model(
    content: bytes, text: str, digest: str, expected: list[tuple[str, str, str]]
) -> None:
    found = parse(content, text)
    assert found.sha256 == digest
    assert [(one.role, one.url.rpartition("/")[2], one.sha256) for one in found.beside] == expected


# manifest, reference, what the error says
BAD = [
    (b"<html>", REFERENCE, "not a manifest of version 2"),
    (b"[" * 100_000, REFERENCE, "not a manifest of version 2"),
    (json.dumps({"schemaVersion": 1}).encode(), REFERENCE, "not a manifest of version 2"),
    (body(kind="application/vnd.oci.image.index.v1+json"), REFERENCE, "is an index of several"),
    (body(kind=None, manifests=[]), REFERENCE, "is an index of several manifests"),
    (body(kind="text/x\n"), REFERENCE, "unknown kind of manifest: 'text/x\\n'"),
    (body(), REFERENCE, "the manifest has no weights"),
    (body(layer(JINJA)), REFERENCE, "the manifest has no weights"),
    (body(layer(GGUF), layer(JINJA, path="../x.jinja")), REFERENCE, "without .."),
    (body(LICENCE), REFERENCE, "layers: 'application/vnd.docker.ai.license'"),
    (body(layer("application/octet-stream", title="x.zip")), REFERENCE, "the manifest has no weights"),
    (body(layer("application/vnd.cncf.model.weight.v1.tar+gzip")), REFERENCE, "are an archive"),
    (body(layer(GGUF), layer(GGUF, B)), REFERENCE, "2 files of weights without names, which"),
    (body(layer(RAW, path="x.gguf"), layer(RAW, B, path="y.gguf")), REFERENCE, "fix: oci://h/m:1/x.gguf"),
    (body(layer(RAW, path="x.gguf")), REFERENCE + "/z.gguf", "has no file of this name"),
    (body(layer(RAW, "A" * 64)), REFERENCE, "no usable digest or size"),
    (body(layer(RAW, size=-1)), REFERENCE, "no usable digest or size"),
    (body(layer(RAW, size=1 << 60)), REFERENCE, "no usable digest or size"),
    (body(layer(RAW, size="10")), REFERENCE, "no usable digest or size"),
    (body("text"), REFERENCE, "is malformed"),
    (body(layer(RAW, path="../x.gguf")), REFERENCE, "without .."),
    (body(layer(RAW, path="/etc/x.gguf")), REFERENCE, "without .."),
    (body(layer(RAW, path="a\\x.gguf")), REFERENCE, "cannot be in the name"),
    (body(layer(RAW, path="\x1b[2Jx.gguf")), REFERENCE, "cannot be in the name"),
    (body(layer(RAW, path="con.gguf")), REFERENCE, "reserves this name"),
    (body(layer(RAW, path="-x.gguf")), REFERENCE, "cannot begin with"),
    (body(layer(RAW, path="x?.gguf")), REFERENCE, "cannot be in the name"),
    (body(layer(RAW, path="a b.gguf")), REFERENCE, "without blanks"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "text", "expected"), BAD)
def test_manifests_that_are_refused(content: bytes, text: str, expected: str) -> None:
    with pytest.raises(TransferError) as caught:
        parse(content, text)
    assert expected in str(caught.value)
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize(("text", "stated"), [(f"oci://h/m@sha256:{A}", ""), (REFERENCE, f"sha256:{A}")])
def test_a_manifest_with_another_digest(text: str, stated: str) -> None:
    with pytest.raises(IntegrityError, match="does not match its digest"):
        parse(body(layer(RAW)), text, stated)


# ModelScope's JSON, digest, size
MODELSCOPE = [
    ({"Data": {"MetaContent": {"Sha256": A, "Size": 7}}}, A, 7),
    ({"Data": {"MetaContent": {"Sha256": A}}}, A, None),
    ({"Data": {"MetaContent": {"Sha256": ""}}}, None, None),
    ({"Data": None}, None, None),
    ([], None, None),
]


@pytest.mark.parametrize(("data", "digest", "size"), MODELSCOPE)
def test_what_modelscope_states(data: object, digest: str | None, size: int | None) -> None:
    content = json.dumps(data).encode()
    if digest is None:
        with pytest.raises(TransferError, match="states no SHA-256"):
            parse_modelscope(content, "ms:o/r/x.gguf")
    else:
        found = parse_modelscope(content, "ms:o/r/x.gguf")
        assert (found.sha256, found.size) == (digest, size)
