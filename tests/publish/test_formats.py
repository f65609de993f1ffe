"""What a manifest says: compared whole, because its digest is what users pin."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

import pytest
from tasks.publish import formats
from tasks.publish.formats import About, Layer

A, B = "a" * 64, "b" * 64
ABOUT = About("tiny", "Tiny model", "MIT", "https://example.org/tiny.gguf", "1.1B", "Q4_K_M", "llama")
LAYERS = [Layer("tiny.gguf", A, 5_000_000_000), Layer("chat.jinja", B, 700, is_text=True)]
NOTES = {
    "org.opencontainers.image.licenses": "MIT",
    "org.opencontainers.image.source": "https://example.org/tiny.gguf",
    "org.opencontainers.image.title": "Tiny model",
}


def layer(name: str, digest: str, size: int, kind: str) -> dict[str, Any]:
    """A layer of a ModelPack."""
    notes = {"org.cncf.model.filepath": name, "org.opencontainers.image.title": name}
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size, "annotations": notes}


def test_model_pack() -> None:
    """CNCF ModelPack: spec.md and config.md."""
    (config,), (manifest,) = formats.model_pack(ABOUT, LAYERS)
    assert config.media_type == "application/vnd.cncf.model.config.v1+json"
    assert json.loads(config.data) == {
        "descriptor": {"name": "tiny", "title": "Tiny model", "licenses": ["MIT"],
                       "sourceURL": "https://example.org/tiny.gguf"},
        "config": {"architecture": "llama", "format": "gguf", "paramSize": "1.1B", "quantization": "Q4_K_M"},
        "modelfs": {"type": "layers", "diffIds": [f"sha256:{A}", f"sha256:{B}"]},
    }  # fmt: skip
    assert json.loads(manifest.data) == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": {"mediaType": config.media_type, "digest": config.digest, "size": len(config.data)},
        "layers": [
            layer("tiny.gguf", A, 5_000_000_000, "application/vnd.cncf.model.weight.v1.raw"),
            layer("chat.jinja", B, 700, "application/vnd.cncf.model.weight.config.v1.raw"),
        ],
        "annotations": NOTES,
    }
    assert formats.model_pack(ABOUT, LAYERS) == formats.model_pack(ABOUT, LAYERS)


def test_image() -> None:
    """An index for both architectures, with the same layers."""
    configs, (*manifests, index) = formats.image(ABOUT, LAYERS[:1])
    rows = json.loads(index.data)["manifests"]
    assert [row["platform"]["architecture"] for row in rows] == ["amd64", "arm64"]
    assert [row["digest"] for row in rows] == [one.digest for one in manifests]
    for config, manifest in zip(configs, manifests, strict=True):
        data = json.loads(manifest.data)
        assert data["config"]["digest"] == config.digest
        assert [one["mediaType"] for one in data["layers"]] == ["application/vnd.oci.image.layer.v1.tar"]
        assert json.loads(config.data)["rootfs"] == {"type": "layers", "diff_ids": [f"sha256:{A}"]}
    assert json.loads(index.data)["annotations"] == NOTES


@pytest.mark.parametrize(("name", "size"), [("x.gguf", 1), ("x.gguf", 512), ("ü" * 60 + ".gguf", 1025)])
def test_an_archive_of_one_file(name: str, size: int) -> None:
    """Any tar reads it; nothing in it depends on the machine or the time."""
    head, tail = formats.tar_ends(name, size)
    with tarfile.open(fileobj=io.BytesIO(head + bytes(size) + tail)) as archive:
        (info,) = archive.getmembers()
    assert (info.name, info.size, info.mode, info.uid, info.mtime) == (name, size, 0o444, 0, 0)


def test_the_archive_is_always_the_same() -> None:
    """Its digest is a layer of images that are in use; above 8 GiB, PAX states the size."""
    head, tail = formats.tar_ends("m.gguf", 9 * 1024**3)
    assert b"size=9663676416\n" in head
    head, tail = formats.tar_ends("m.gguf", 1000)
    assert (
        hashlib.sha256(head + tail).hexdigest()
        == "1a45256c07e1aaa3177c6a0dfa68369a2e05d30d1b191efae9394876d97c8850"
    )
