"""Describe a model for a registry: ModelPack, or an ordinary image. Pure.

The same files give the same bytes: no time, no machine, sorted keys.

Source: CNCF ModelPack docs/spec.md and config.md; OCI image-spec 1.1 (manifest.md,
config.md, image-index.md, annotations.md).
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_MODEL = "application/vnd.cncf.model.manifest.v1+json"
_MODEL_CONFIG = "application/vnd.cncf.model.config.v1+json"
_IMAGE_CONFIG = "application/vnd.oci.image.config.v1+json"
_WEIGHTS = "application/vnd.cncf.model.weight.v1.raw"
_TEXT = "application/vnd.cncf.model.weight.config.v1.raw"
_TAR = "application/vnd.oci.image.layer.v1.tar"
_FILE_PATH = "org.cncf.model.filepath"
_TITLE = "org.opencontainers.image.title"  # `oras pull` names the file by it
# a runtime refuses an image of another architecture, though a model has none
_ARCHITECTURES = ("amd64", "arm64")
_TAR_BLOCK = 512
_TAR_END = 1024  # bytes of zeros
_READ_ONLY = 0o444


class About(NamedTuple):
    """What is stated about a model; empty where it is not known."""

    name: str
    title: str
    license: str
    source: str = ""  # URL
    params: str = ""
    quant: str = ""
    architecture: str = ""
    format: str = "gguf"


class Layer(NamedTuple):
    """One file of the model, as the registry has it."""

    name: str  # of the file
    sha256: str  # of the layer
    size: int  # bytes of the layer
    is_text: bool = False


class Document(NamedTuple):
    """A small JSON text with its media type."""

    media_type: str
    data: bytes

    @property
    def digest(self) -> str:
        """Its digest, `sha256:…`."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"


class Package(NamedTuple):
    """What is written beside the files."""

    configs: tuple[Document, ...]
    manifests: tuple[Document, ...]  # in order; the last one gets the tag


def model_pack(about: About, layers: Sequence[Layer]) -> Package:
    """Return the ModelPack of a model: a layer is the file itself."""
    digests = [f"sha256:{layer.sha256}" for layer in layers]
    config = {
        "descriptor": _known(
            name=about.name,
            title=about.title,
            sourceURL=about.source,
            licenses=list(filter(None, [about.license])),
        ),
        "config": _known(
            architecture=about.architecture,
            format=about.format,
            paramSize=about.params,
            quantization=about.quant,
        ),
        "modelfs": {"type": "layers", "diffIds": digests},
    }
    document = _document(_MODEL_CONFIG, config)
    rows = []
    for layer in layers:
        kind = _WEIGHTS
        if layer.is_text:
            kind = _TEXT
        rows.append(_row(layer, kind, {_FILE_PATH: layer.name, _TITLE: layer.name}))
    manifest = _manifest(about, document, rows, artifactType=_MODEL)
    return Package((document,), (manifest,))


def image(about: About, layers: Sequence[Layer]) -> Package:
    """Return an image whose layers are archives, for every architecture."""
    configs = []
    manifests = []
    for architecture in _ARCHITECTURES:
        config = {
            "architecture": architecture,
            "os": "linux",
            "config": {"Labels": _annotations(about)},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{layer.sha256}" for layer in layers],
            },
        }
        document = _document(_IMAGE_CONFIG, config)
        rows = [_row(layer, _TAR, {_TITLE: f"{layer.name}.tar"}) for layer in layers]
        configs.append(document)
        manifests.append(_manifest(about, document, rows))
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            {**_descriptor(one), "platform": {"architecture": name, "os": "linux"}}
            for name, one in zip(_ARCHITECTURES, manifests, strict=True)
        ],
        "annotations": _annotations(about),
    }
    return Package(tuple(configs), (*manifests, _document(INDEX, index)))


def tar_ends(name: str, size: int) -> tuple[bytes, bytes]:
    """Return what precedes and what follows a file in an archive of this one file.

    Args:
        size: bytes of the file.
    """
    info = tarfile.TarInfo(name)
    info.size = size
    info.mode = _READ_ONLY
    head = info.tobuf(tarfile.PAX_FORMAT)
    return head, bytes(-size % _TAR_BLOCK + _TAR_END)


def _manifest(
    about: About, config: Document, layers: Sequence[Mapping[str, Any]], **more: str
) -> Document:
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        **more,
        "config": _descriptor(config),
        "layers": layers,
        "annotations": _annotations(about),
    }
    return _document(MANIFEST, manifest)


def _annotations(about: About) -> dict[str, str]:
    start = "org.opencontainers.image."
    facts = _known(title=about.title, licenses=about.license, source=about.source)
    return {f"{start}{key}": value for key, value in facts.items()}


def _known(**facts: Any) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value}


def _row(layer: Layer, kind: str, annotations: Mapping[str, str]) -> dict[str, Any]:
    return {
        "mediaType": kind,
        "digest": f"sha256:{layer.sha256}",
        "size": layer.size,
        "annotations": annotations,
    }


def _descriptor(document: Document) -> dict[str, Any]:
    return {
        "mediaType": document.media_type,
        "digest": document.digest,
        "size": len(document.data),
    }


def _document(media_type: str, content: object) -> Document:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return Document(media_type, text.encode())
