"""Models published to Debian's docker-registry, without and with Bearer tokens, and read again."""

from __future__ import annotations

import io
import json
import signal
import sys
import tarfile
import urllib.request
from pathlib import Path

import pytest
from tasks.publish import formats

from tests.fakes import llamafile
from tests.fakes.registry import sha256
from tests.support.docker_registry import DockerRegistry, Tokens, needs_docker_registry
from tests.support.project import ENGINES, Project, wait_until

pytestmark = [pytest.mark.fleet, needs_docker_registry]
DATA = llamafile.gguf(3_000_000)
TEMPLATE = b"{{ messages }}"
EMBEDDED = {"embedded": ENGINES["embedded"]}


def read(registry: DockerRegistry, path: str) -> bytes:
    """Read a manifest or a blob of a repository, as any client does."""
    request = urllib.request.Request(f"http://{registry.host}/v2/{path}")
    request.add_header("Accept", f"{formats.MANIFEST}, {formats.INDEX}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bytes(answer.read())


def test_pushed_with_tokens_and_read_without(project: Project, tmp_path: Path) -> None:
    """Twice, mounted into another repository, as an image; downloaded on another machine."""
    files = {"tiny.gguf": DATA, "chat.jinja": TEMPLATE}
    for name, data in files.items():
        (project.path / name).write_bytes(data)
    template = {"url": "./chat.jinja", "sha256": sha256(TEMPLATE).removeprefix("sha256:")}
    keys = {"engine": "embedded", "template": template}
    project.catalogue({"m": project.entry("./tiny.gguf", DATA, **keys)}, EMBEDDED)
    assert project.doit("download:m").status == 0
    folder = tmp_path / "registry"
    with Tokens(tmp_path) as tokens, DockerRegistry(folder, tokens) as registry:
        reports = []
        for verb, tag in (("push", "v1"), ("push", "v2"), ("image", "i1"), ("image", "i2")):
            result = project.doit(verb, "m", f"oci://{registry.host}/team/tiny:{tag}", "--json")
            assert result.status == 0, result.err
            reports.append(json.loads(result.out))
        sizes = [report["sent"] for report in reports]
        assert sizes[0] == len(DATA) + len(TEMPLATE)
        assert (sizes[1], sizes[3]) == (0, 0)
        digests = [report["digest"] for report in reports]
        assert (digests[0], digests[2]) == (digests[1], digests[3])
        source = f"oci://{registry.host}/team/tiny:v1"
        project.catalogue({"m": project.entry("./tiny.gguf", DATA, mirrors=[source], **keys)}, EMBEDDED)
        mounted = project.doit("push", "m", f"oci://{registry.host}/other/tiny:v1", "--json")
        assert mounted.status == 0, mounted.err
        report = json.loads(mounted.out)
        assert [file["how"] for file in report["files"]] == ["mounted from team/tiny", "sent"]
        assert (report["digest"], report["sent"]) == (digests[0], len(TEMPLATE))
    with DockerRegistry(folder) as registry:
        layers = json.loads(read(registry, "team/tiny/manifests/v1"))["layers"]
        assert [read(registry, f"team/tiny/blobs/{row['digest']}") for row in layers] == list(files.values())
        (image, _) = json.loads(read(registry, "team/tiny/manifests/i1"))["manifests"]
        rows = json.loads(read(registry, f"team/tiny/manifests/{image['digest']}"))["layers"]
        for (name, data), row in zip(files.items(), rows, strict=True):
            with tarfile.open(
                fileobj=io.BytesIO(read(registry, f"team/tiny/blobs/{row['digest']}"))
            ) as archive:
                file = archive.extractfile(name)
                assert file
                assert file.read() == data
        project.catalogue({"m": project.entry(f"oci://{registry.host}/other/tiny:v1", engine="embedded")})
        env = {"LLAMAFILE_CACHE": str(tmp_path / "another machine")}
        for command in ("lock", "download", "audit"):
            result = project.doit(command, "--model", "m", env=env)
            assert result.status == 0, result.err


def size_of(folder: Path) -> int:
    """Bytes of the uploads in a registry's storage."""
    return sum(file.stat().st_size for file in folder.glob("*/data"))


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_in_the_middle(project: Project, tmp_path: Path) -> None:
    """Doit, then the registry: no tag before the end, and the next command publishes the same bytes."""
    (project.path / "tiny.gguf").write_bytes(DATA)
    project.catalogue({"m": project.entry("./tiny.gguf", DATA, engine="embedded")}, EMBEDDED)
    assert project.doit("download:m").status == 0
    project.set_constant("tasks/publish/answers.py", "PIECE", 10_000)
    project.set_constant("tasks/network/response.py", "BACKOFF_FIRST_S", 0.01)
    folder = tmp_path / "registry"
    target = "oci://{}/team/tiny:v1"
    record = project.cache / "uploads"
    repository = folder / "data/docker/registry/v2/repositories/team/tiny"
    for victim in ("doit", "registry"):  # each of 300 pieces is a request: there is time
        with DockerRegistry(folder) as registry:
            with project.start("push", "m", target.format(registry.host)) as running:
                wait_until(lambda: size_of(repository / "_uploads") > 100_000)
                if victim == "doit":
                    running.send(signal.SIGKILL)
                else:
                    registry.kill()
                assert running.finish().status != 0
            assert not (repository / "_manifests").exists(), victim
            assert list(record.iterdir())
    with DockerRegistry(folder) as registry:
        result = project.doit("push", "m", target.format(registry.host))
        assert result.status == 0, result.err
        (row,) = json.loads(read(registry, "team/tiny/manifests/v1"))["layers"]
        assert read(registry, f"team/tiny/blobs/{row['digest']}") == DATA
