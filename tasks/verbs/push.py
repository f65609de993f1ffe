"""`doit push` and `doit image`: publish a model that is here to a registry."""

from __future__ import annotations

from typing import Any

from tasks import doit_adapter
from tasks.catalogue import variants
from tasks.catalogue.artifact import total_size
from tasks.catalogue.resolve import ResolvedModel, resolve_entry
from tasks.catalogue.spdx import spdx_id
from tasks.command_line import TaskRequest
from tasks.console import formatting
from tasks.console.report import Column, Report
from tasks.context import Context
from tasks.errors import UsageError
from tasks.positional import quoted
from tasks.references import OciReference, parse_oci
from tasks.urls import url_error

_TARGET = "oci://HOST/REPO:TAG"


def arguments(context: Context, request: TaskRequest) -> list[Any]:
    """Return the arguments of `run`.

    Raises:
        UsageError: there is no such model, or the target is not a tag of a registry.
    """
    words = list(request.extra)
    model = request.model or request.options.get("model")
    if model is None and words and not words[0].startswith("oci:"):
        model = words.pop(0)
    if len(words) != 1:
        fix = f"doit {request.verb} {quoted(model or 'NAME')} {_TARGET}"
        raise UsageError(f"`doit {request.verb}` takes one target", fix=fix)
    name = context.catalogue.name(model or context.catalogue.default)
    variant = request.options.get("variant", "")
    known = context.catalogue.variants(name)
    if variant:
        variant = variants.named(variant, name, known)
    elif known:
        what = f"{name} has variants: {', '.join(known)}"
        raise UsageError(what, fix=f"--variant {next(iter(known))}")
    target = _target(words[0])
    resolved = resolve_entry(name, context.catalogue, context.environment, variant)
    return [context, request, resolved, target]


def _target(text: str) -> OciReference:
    """Parse where a model is published.

    Raises:
        UsageError: it is not a tag of a registry.
    """
    reference = parse_oci(text)
    if reference is None or not text.startswith("oci://"):
        problem = ""
        if text.startswith("oci://"):
            problem = url_error(text, pinned=True)
        what = problem or f"expected {_TARGET}, got {text!r}"
        fix = _TARGET
        if parse_oci(f"oci://{text}"):
            fix = f"oci://{text}"
        raise UsageError(what, fix=fix)
    if reference.digest or reference.file:
        what = f"expected a tag, got {text}: a push makes the digest"
        fix = f"oci://{reference.host}/{reference.repo}:TAG"
        raise UsageError(what, fix=fix)
    return reference


def run(
    context: Context,
    request: TaskRequest,
    resolved: ResolvedModel,
    target: OciReference,
) -> None:
    """Publish the model, and print what models.yaml needs.

    Raises:
        RecipeError: a file of the model is not here.
        TransferError: the registry does not take it.
        IntegrityError: a file has changed, or the registry has stored other bytes.
    """
    from tasks.publish import push
    from tasks.publish.client import Client

    cache = context.environment.cache
    roles = {one.path: one.role for one in resolved.companions}
    artifacts = resolved.files
    as_image = request.verb == "image"
    named = [roles.get(file.target, "") for file in artifacts]
    wanted = push.named_files(artifacts, named, as_image=as_image)
    variant = ""
    if resolved.variant:
        variant = f" --variant {quoted(resolved.variant)}"
    push.check_here(cache, wanted, f"doit download {resolved.name}{variant}")
    repos: dict[str, None] = {}
    if not as_image:
        for file in artifacts:
            repos |= dict.fromkeys(push.mounts_of(file.sources, target))
    client = Client(target, tuple(repos))
    try:
        pushed = push.push(client, cache, _about(resolved), wanted, as_image=as_image)
    finally:
        client.close()
    _report(request, resolved, target, pushed)


def _about(resolved: ResolvedModel) -> Any:
    """Return what the registry is told about a model."""
    from tasks.publish.formats import About

    model = resolved.model
    source = resolved.artifact.sources[0].partition("?")[0]  # no signature
    if not source.startswith("https://"):
        source = ""
    architecture = ""
    if resolved.memory:
        architecture = resolved.memory.architecture or ""
    kind = "llamafile"
    if resolved.is_gguf:
        kind = "gguf"
    return About(
        resolved.name,
        model.title,
        spdx_id(model.license) or model.license,
        source,
        model.params or "",
        model.quant or "",
        architecture,
        kind,
    )


def _report(
    request: TaskRequest, resolved: ResolvedModel, target: OciReference, pushed: Any
) -> None:
    """Print the files, and last the reference by digest."""
    pinned = target._replace(tag="", digest=pushed.digest)
    lines: list[str] = []
    if pushed.replaced:
        lines.append(f"{target.tag} named {pushed.replaced} before")
    if request.verb == "image":
        lines.append(f"image: {str(pinned).removeprefix('oci://')}")
    else:
        weights = [file.name for file in pushed.files if file.name.endswith(".gguf")]
        if len(weights) > 1:
            pinned = pinned._replace(file=pushed.files[0].name)
        lines.append(f"{resolved.name} is at {target}; for models.yaml:")
        lines.append(f"url: {pinned}")
    data = {
        "model": resolved.name,
        "reference": str(target),
        "digest": pushed.digest,
        "pinned": str(pinned),
        "replaced": pushed.replaced or None,
        "size": total_size(file.size for file in pushed.files),
        "sent": sum(file.fetched for file in pushed.files),
        "files": [
            {
                "name": file.name,
                "sha256": file.sha256,
                "size": file.size,
                "sent": file.fetched,
                "how": file.how,
            }
            for file in pushed.files
        ],
    }
    report = Report(_COLUMNS, data["files"], lines, data=data)
    doit_adapter.show_report(report, bool(request.options.get("json")))


_COLUMNS = (
    Column("name", "file", least=12),
    Column("size", ">size", formatting.format_size),
    Column("how", "result"),
)
