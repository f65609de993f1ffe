"""Publish the files of a model: the files, the manifest, and last the tag."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from tasks.cache import stamps
from tasks.catalogue.artifact import Artifact, Stamp, TargetState
from tasks.console import formatting
from tasks.console.logs import log_event
from tasks.console.progress import progress
from tasks.errors import RecipeError
from tasks.publish import formats, records
from tasks.publish.answers import Ask, Verdict
from tasks.publish.client import Client
from tasks.publish.formats import About, Document, Layer, Package
from tasks.publish.sources import Source
from tasks.publish.upload import Blob, Upload, changed, check_digest
from tasks.references import OciReference, parse_oci
from tasks.system import files
from tasks.upstream.manifest import ACCEPT

Build = Callable[[About, Sequence[Layer]], Package]


class File(NamedTuple):
    """A file of the model, as it is here."""

    artifact: Artifact
    name: str  # in the manifest


class Sent(NamedTuple):
    """What became of one file."""

    name: str
    sha256: str
    size: int
    how: str  # sent, there already, or mounted from a repository
    fetched: int = 0  # bytes that went over the network


class Pushed(NamedTuple):
    """What is published."""

    digest: str  # of the manifest
    files: tuple[Sent, ...]
    replaced: str = ""  # the digest that the tag had


def named_files(
    artifacts: Sequence[Artifact], roles: Sequence[str], *, as_image: bool = False
) -> tuple[File, ...]:
    """Return the files with names that differ.

    Args:
        roles: of each file, such as mmproj; empty for the model itself.
        as_image: a pod finds each file by the name that it has in the cache.
    """
    found: list[File] = []
    for artifact, role in zip(artifacts, roles, strict=True):
        name = os.path.basename(artifact.target)
        is_taken = name.lower() in {file.name.lower() for file in found}
        # a reader of a ModelPack finds a projector by its name
        is_hidden = not as_image and role == "mmproj" and role not in name.lower()
        if is_taken or is_hidden:
            name = f"{role}-{name}"
        found.append(File(artifact, name))
    return tuple(found)


def check_here(cache: str, wanted: Sequence[File], fix: str) -> None:
    """Check that every file is here.

    Raises:
        RecipeError: one is not.
    """
    for file in wanted:
        if stamps.target_state(cache, file.artifact) is TargetState.MISSING:
            raise RecipeError(f"{file.artifact.label} is not here", fix=fix)


def push(
    client: Client,
    cache: str,
    about: About,
    wanted: Sequence[File],
    *,
    as_image: bool = False,
) -> Pushed:
    """Publish a model. The tag is written last, so it never names a part of it.

    Args:
        as_image: each layer is an archive with the file, for image volumes.

    Raises:
        TransferError: the registry does not take it.
        IntegrityError: a file has changed, or the registry has stored other bytes.
    """
    build: Build = formats.model_pack
    if as_image:
        build = formats.image
    with ExitStack() as stack:
        rows: list[Sent] = []
        layers: list[Layer] = []
        for file in wanted:
            blob = _blob(cache, client, file, as_image, stack)
            rows.append(_upload(client, cache, blob, file.name))
            size = blob.source.size
            layers.append(
                Layer(file.name, blob.sha256, size, is_text=file.artifact.is_text)
            )
        package = build(about, layers)
        for config in package.configs:
            sha256 = config.digest.removeprefix("sha256:")
            source = stack.enter_context(Source(config.data))
            blob = Blob(f"{about.name} config", sha256, source)
            Upload(client, blob, records.Record(), _Silent()).run()
    *others, last = package.manifests
    for manifest in others:
        _put_manifest(client, manifest, manifest.digest)
    replaced = _tagged(client)
    if replaced == last.digest:
        replaced = ""
    _put_manifest(client, last, client.target.tag)
    return Pushed(last.digest, tuple(rows), replaced)


class _Silent:
    """No progress, for a few hundred bytes."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def update(self, done: int, total: int | None, note: str = "") -> None:
        """Show nothing."""


def _blob(
    cache: str, client: Client, file: File, as_image: bool, stack: ExitStack
) -> Blob:
    """Return the layer of a file, with its digest.

    Raises:
        IntegrityError: the file is not the one that was verified.
    """
    artifact = file.artifact
    status = files.stat(artifact.target)
    if status is None:
        raise RecipeError(f"{artifact.target} does not exist any more")
    stamp = stamps.proof(cache, artifact)
    if stamp is not None:
        status = stamp.stat
    size = status.size
    head, tail = b"", b""
    if as_image:
        head, tail = formats.tar_ends(file.name, size)
    sha256 = _known_digest(artifact, stamp)
    # a file that nothing proves is read first: the registry may have the blob already,
    # and its manifest would state the size of other bytes
    if as_image or stamp is None or not sha256:
        sha256 = _hashed(artifact, sha256, Source(head, artifact.target, size, tail))
    mounts: tuple[str, ...] = ()
    if not as_image:
        mounts = mounts_of(artifact.sources, client.target)
    source = stack.enter_context(Source(head, artifact.target, size, tail))
    return Blob(artifact.label, sha256, source, mounts)


def _known_digest(artifact: Artifact, stamp: Stamp | None) -> str:
    """Return the digest that a file must have; "" if nothing states one."""
    if artifact.sha256:
        return artifact.sha256
    if stamp is None or not stamp.sha256:
        return ""
    return stamp.sha256


def _hashed(artifact: Artifact, expected: str, source: Source) -> str:
    """Return the digest of a layer, which is read for it.

    Args:
        expected: of the file in it; empty if nothing states it.

    Raises:
        IntegrityError: the file has another one.
    """
    with source, progress(f"{artifact.label} sha256", 0) as bar:
        bar.update(0, source.size)
        sha256 = source.sha256(lambda done: bar.update(done, source.size))
    got = source.file_sha256()
    if expected and got != expected:
        raise changed(artifact.label, expected, got)
    return sha256


def mounts_of(sources: Sequence[str], target: OciReference) -> tuple[str, ...]:
    """Return the other repositories of the target's host that should have a file."""
    found = [reference for text in sources if (reference := parse_oci(text))]
    repos = [one.repo for one in found if one.base != target.base]
    here = [one.repo for one in found if _host(one) == _host(target)]
    return tuple(dict.fromkeys(repo for repo in repos if repo in here))


def _host(reference: OciReference) -> str:
    return reference.base.partition("/v2/")[0]


def _upload(client: Client, cache: str, blob: Blob, name: str) -> Sent:
    """Upload one file, show it, and log the result."""
    size = blob.source.size
    start = time.monotonic()
    show = client.dependencies.show
    with (
        records.record(cache, client.base, blob.sha256) as record,
        show(blob.label, 0) as bar,
    ):
        upload = Upload(client, blob, record, bar)
        how = upload.run()
    elapsed = time.monotonic() - start
    text = f"%s: %s {how}"
    if upload.sent:
        rate = formatting.format_rate(upload.sent, elapsed)
        text += f" in {formatting.format_duration(elapsed)} ({rate})"
    log_event("uploaded", text, blob.label, formatting.format_size(size),
        artifact=blob.label, bytes=size, sent=upload.sent, how=how,
        seconds=round(elapsed, 3), sha256=blob.sha256)  # fmt: skip
    return Sent(name, blob.sha256, size, how, upload.sent)


def _put_manifest(client: Client, manifest: Document, version: str) -> None:
    """Write a manifest under its digest, or under the tag.

    Raises:
        TransferError: the registry does not take it.
        IntegrityError: it has stored another one.
    """
    url = f"{client.base}/manifests/{version}"
    headers = {"Content-Type": manifest.media_type}
    _, answer = client.ask_again(
        Ask.MANIFEST, "PUT", url, headers, lambda: manifest.data
    )
    check_digest(client.target.host, answer, manifest.digest)


def _tagged(client: Client) -> str:
    """Return the digest that the tag has before; "" if there is none."""
    url = f"{client.base}/manifests/{client.target.tag}"
    meaning, answer = client.ask_again(Ask.TAG, "GET", url, {"Accept": ACCEPT})
    if meaning is not Verdict.DONE:
        return ""
    return f"sha256:{hashlib.sha256(answer.body).hexdigest()}"
