"""Parse what a registry states about a model: its manifest. Pure.

Source: OCI image-spec 1.1, manifest.md; CNCF ModelPack spec.md; docker/model-spec
config.md; Ollama's manifests; podman artifact (a file with a title).
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from tasks.errors import IntegrityError, TransferError
from tasks.network.answers import file_size, parse_json
from tasks.references import OciReference
from tasks.system.paths import name_problem
from tasks.upstream.metadata import FileBeside, RemoteFile, parse_oci_license
from tasks.urls import MODEL_ENDINGS

MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
# without Accept, a registry answers 404 for a manifest of OCI; an index is requested as
# well, because the error for one should say what it is
ACCEPT = ", ".join((*MANIFESTS, *INDEXES))
# the layer is the file itself
_WEIGHTS = (
    "application/vnd.cncf.model.weight.v1.raw",
    "application/vnd.cncf.model.weight.v1.gguf",
    "application/vnd.cnai.model.weight.v1.raw",
    "application/vnd.docker.ai.gguf.v3",
    "application/vnd.ollama.image.model",
)
# the layer is an archive with the file: its digest is another one
_ARCHIVES = r"application/vnd\.(?:cncf|cnai)\.model\.weight\.v1\.tar(?:\+\w+)?"
_PLAIN = "application/octet-stream"  # a file, if its title ends as a model's does
# files that are served with the weights. A projector may also be weights whose name has
# `mmproj` in it, as llama.cpp's own downloads find one. Ollama's templates are written
# in Go's language, and no engine here reads them
_PROJECTORS = (
    "application/vnd.docker.ai.mmproj",
    "application/vnd.docker.ai.gguf.v3.mmproj",
    "application/vnd.ollama.image.projector",
)
_TEMPLATES = ("application/vnd.docker.ai.chat.template.jinja",)
_TEXTS = (
    "application/vnd.cncf.model.weight.config.v1.raw",
    "application/vnd.cnai.model.weight.config.v1.raw",
    _PLAIN,
)
_TEMPLATE_ENDING = ".jinja"
# of a file that the manifest does not name
_NAMES = {"mmproj": "mmproj.gguf", "template": "chat-template.jinja"}
_TITLES = (
    "org.cncf.model.filepath",
    "org.cnai.model.filepath",
    "org.opencontainers.image.title",
)
_DIGEST = r"sha256:([0-9a-f]{64})"
_SHOWN = 5  # files that a message names
BY = "the registry's manifest"


class Layer(NamedTuple):
    """A file of a manifest."""

    sha256: str
    size: int
    name: str  # empty if the manifest does not name it
    role: str = ""  # mmproj or template; empty for weights


def parse_manifest(
    body: bytes, sha256: str, reference: OciReference, stated: str
) -> RemoteFile:
    """Return the file that a reference means.

    Args:
        sha256: of the body.
        stated: the digest in the registry's header; empty if it sent none.

    Raises:
        IntegrityError: the body is not what its digest says.
        TransferError: it is not a manifest, or not of one usable file.
    """
    digest = f"sha256:{sha256}"
    for expected in filter(None, (reference.digest, stated)):
        if expected != digest:
            what = f"{reference}: the manifest does not match its digest"
            raise IntegrityError(what, [("expected", expected), ("got", digest)])
    manifest = _manifest(body, reference)
    layers = _layers(manifest, reference)
    layer = _chosen(layers, reference)
    file = reference.file or layer.name or reference.filename
    pinned = reference._replace(tag="", digest=digest, file=file)
    beside = []
    for role in _NAMES:
        found = [one for one in layers if one.role == role]
        if len(found) == 1 and not layer.role:
            url = str(pinned._replace(file=found[0].name))
            beside.append(FileBeside(role, url, found[0].sha256, found[0].size))
    return RemoteFile(
        str(pinned),
        layer.sha256,
        layer.size,
        by=BY,
        beside=tuple(beside),
        license=parse_oci_license(manifest),
    )


def _manifest(body: bytes, reference: OciReference) -> dict[str, Any]:
    """Return the JSON of a manifest. Raises TransferError: it is something else."""
    try:
        data = parse_json(body)
    except ValueError:
        data = None
    if not isinstance(data, dict) or data.get("schemaVersion") != 2:
        raise TransferError(f"{reference}: the response is not a manifest of version 2")
    kind = data.get("mediaType")
    if kind in INDEXES or "manifests" in data:
        what = f"{reference} is an index of several manifests, not a model's manifest"
        fix = (
            "name the manifest of a model; `doit push` publishes one, `doit image` none"
        )
        raise TransferError(what, fix=fix)
    if kind is not None and kind not in MANIFESTS:
        raise TransferError(f"{reference}: unknown kind of manifest: {_short(kind)}")
    return data


def _layers(manifest: dict[str, Any], reference: OciReference) -> list[Layer]:
    """Return the files of a model. Raises TransferError: there is none."""
    found: list[Layer] = []
    kinds: list[str] = []
    layers = manifest.get("layers")
    if not isinstance(layers, list):
        layers = []
    for row in layers:
        if not isinstance(row, dict):
            raise TransferError(f"{reference}: a layer of the manifest is malformed")
        kind = str(row.get("mediaType"))
        kinds.append(_short(kind))
        if re.fullmatch(_ARCHIVES, kind):
            what = f"{reference}: its weights are an archive ({kind}), not a file"
            fix = "push the file itself: application/vnd.cncf.model.weight.v1.raw"
            raise TransferError(what, fix=fix)
        role = _role(kind, _title(row).rpartition("/")[2].lower())
        if role is not None:
            found.append(_layer(row, role, reference))
    if not any(layer.role != "template" for layer in found):
        facts = [("layers", ", ".join(dict.fromkeys(kinds)) or "none")]
        fix = "name a manifest of `doit push`, not an image"
        raise TransferError(f"{reference}: the manifest has no weights", facts, fix)
    return found


def _role(kind: str, name: str) -> str | None:
    """Return what a layer is for, "" for weights; None for any other layer.

    Args:
        name: of the file, in lower case; empty if the manifest does not name it.
    """
    if kind in _PROJECTORS:
        return "mmproj"
    is_text = kind in _TEXTS and name.endswith(_TEMPLATE_ENDING)
    if kind in _TEMPLATES or is_text:
        return "template"
    if kind in _WEIGHTS or (kind == _PLAIN and name):
        return "mmproj" if "mmproj" in name else ""
    return None


def _title(row: dict[str, Any]) -> str:
    """Return the name that a layer states, if it ends as that of a model."""
    annotations = row.get("annotations")
    if not isinstance(annotations, dict):
        return ""
    titles = [annotations.get(key) for key in _TITLES]
    title = next((one for one in titles if isinstance(one, str)), "")
    if not title.lower().endswith((*MODEL_ENDINGS, _TEMPLATE_ENDING)):
        return ""
    return title


def _layer(row: dict[str, Any], role: str, reference: OciReference) -> Layer:
    """Return a layer whose digest, size and name are usable. Raises TransferError."""
    match = re.fullmatch(_DIGEST, str(row.get("digest")))
    size = file_size(row.get("size"))
    if not match or size is None:
        what = f"{reference}: a layer states no usable digest or size"
        got = f"{_short(row.get('digest'))}, {_short(row.get('size'))}"
        raise TransferError(what, [("got", got)])
    *folders, name = (_title(row) or "").split("/")
    if name and (problem := _problem(folders, name)):
        what = f"{reference}: the manifest names a file {_short(_title(row))}"
        raise TransferError(f"{what}: {problem}")
    return Layer(match[1], size, name or _NAMES.get(role, ""), role)


def _problem(folders: list[str], name: str) -> str:
    """Return why a path in a manifest cannot name a file; "" if it can."""
    if {"", ".", ".."} & set(folders):
        return "expected a relative path, without .."
    if not re.fullmatch(r"[^#\s%]+", name):
        return "expected a name without blanks, # and %"
    return name_problem(name)


def _chosen(layers: list[Layer], reference: OciReference) -> Layer:
    """Return the file that is meant. Raises TransferError: none, or several."""
    named = [layer for layer in layers if layer.name == reference.file]
    if reference.file and named:
        return named[0]
    # a projector alone may be in a repository of its own
    layers = [layer for layer in layers if not layer.role] or layers
    if len(layers) == 1 and (not reference.file or not layers[0].name):
        return layers[0]
    names = [layer.name for layer in layers if layer.name]
    if not names:
        what = f"{reference} has {len(layers)} files of weights without names"
        raise TransferError(f"{what}, which is not supported")
    facts = [("files", ", ".join(names[:_SHOWN]))]
    what = f"{reference} has {len(layers)} files of weights, and one is expected"
    if reference.file:
        what = f"{reference}: the manifest has no file of this name"
    raise TransferError(what, facts, f"{reference._replace(file=names[0])}")


def _short(value: object) -> str:
    return ascii(value)[:100]


def parse_modelscope(body: bytes, reference: str) -> RemoteFile:
    """Parse what ModelScope states about a file.

    Raises:
        TransferError: it states no digest.
    """
    try:
        content = parse_json(body)["Data"]["MetaContent"]
        sha256 = str(content["Sha256"])
        size = file_size(content.get("Size"))
    except (ValueError, KeyError, TypeError, AttributeError):
        sha256, size = "", None
    if not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise TransferError(f"{reference}: ModelScope states no SHA-256 of the file")
    return RemoteFile(reference, sha256, size, by="ModelScope (Sha256)")
