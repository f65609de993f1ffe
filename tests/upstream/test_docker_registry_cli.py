"""Models in Debian's docker-registry, without and with Bearer tokens."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import llamafile
from tests.support.docker_registry import DockerRegistry, Tokens, needs_docker_registry
from tests.support.project import ENGINES, REPO, Project

pytestmark = [pytest.mark.fleet, needs_docker_registry]
DATA = llamafile.gguf(3_000_000)
EMBEDDED = {"embedded": ENGINES["embedded"]}
PAGE = (REPO / "docs" / "registries.md").read_text("utf-8")
EMPTY = "application/vnd.oci.empty.v1+json"
# media types of the layer and of the config, annotations
FORMATS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("modelpack", "application/vnd.cncf.model.weight.v1.raw", "application/vnd.cncf.model.config.v1+json",
     {"org.cncf.model.filepath": "tiny.gguf"}),
    ("docker", "application/vnd.docker.ai.gguf.v3", "application/vnd.docker.ai.model.config.v0.1+json", {}),
    ("ollama", "application/vnd.ollama.image.model", "application/vnd.docker.container.image.v1+json", {}),
    ("podman", "application/octet-stream", EMPTY, {"org.opencontainers.image.title": "tiny.gguf"}),
]  # fmt: skip


def blocks(kind: str, page: str) -> list[str]:
    """The fenced blocks of one kind in a page, in order."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def test_every_format_with_and_without_tokens(project: Project, tmp_path: Path) -> None:
    """Pushed without tokens; locked, and downloaded in ranges, with them."""
    digests = {}
    folder = tmp_path / "registry"
    with DockerRegistry(folder) as registry:
        for tag, kind, config, names in FORMATS:
            layer = {"mediaType": kind, "annotations": names}
            digests[tag] = registry.push("team/tiny", tag, DATA, layer, config)
        reference = f"oci://{registry.host}/team/tiny:docker"
        project.catalogue({"m": project.entry(reference, engine="embedded")}, EMBEDDED)
        assert project.doit("lock").status == 0
    with Tokens(tmp_path) as tokens, DockerRegistry(folder, tokens) as registry:
        base = f"oci://{registry.host}/team/tiny"
        models = {tag: project.entry(f"{base}:{tag}", engine="embedded") for tag in digests}
        project.catalogue(models, EMBEDDED)
        (project.path / "models.lock").unlink()
        result = project.doit("lock")
        assert result.status == 0, result.err
        rows = yaml.safe_load((project.path / "models.lock").read_text("utf-8"))["models"]
        for tag, digest in digests.items():
            (row,) = rows[tag]
            assert row["url"].startswith(f"{base}@{digest}/tiny")
            assert (row["sha256"], row["size"]) == (hashlib.sha256(DATA).hexdigest(), len(DATA))
        before = len(tokens.asked)
        result = project.doit("download", *digests)
        assert result.status == 0, result.err
        assert len(tokens.asked) <= before + 1  # one token for all files of the repository
    for tag, name in (("modelpack", "tiny.gguf"), ("docker", "tiny-docker.gguf")):
        assert project.target(DATA, name).read_bytes() == DATA, tag


def test_the_page_from_a_file_to_all_machines(project: Project, tmp_path: Path) -> None:
    """docs/registries.md as it stands, with a registry that wants a password; three machines pull."""
    auth, shared = (yaml.safe_load(block) for block in blocks("yaml", PAGE))
    publish, pin, pull = blocks("sh", PAGE)
    demo = yaml.safe_load((project.path / "models.yaml").read_text("utf-8"))["models"]["demo"]
    with Tokens(tmp_path) as tokens, DockerRegistry(tmp_path / "registry", tokens) as registry:
        tokens.login = base64.b64encode(b"robot:a secret").decode()

        def sh(block: str, machine: str) -> None:
            env = {"REGISTRY_PASSWORD": "a secret", "LLAMAFILE_CACHE": str(tmp_path / machine)}
            for line in block.replace("registry.example.org", registry.host).splitlines():
                result = project.doit(*shlex.split(line)[1:], env=env)
                assert result.status == 0, result.err

        def catalogue(models: dict[str, Any]) -> None:
            text = json.dumps({"models": {"demo": demo, **models}, "engines": EMBEDDED, **auth})
            project.catalogue(**json.loads(text.replace("registry.example.org", registry.host)))

        catalogue({})
        sh(publish, "first")
        catalogue(shared["models"])
        sh(pin, "first")
        for machine in ("first", "second", "third"):
            sh(pull, machine)
    found = [path.read_bytes() for path in tmp_path.glob("*/models/*/demo.gguf")]
    assert found == [(project.path / "demo/demo.gguf").read_bytes()] * 3
