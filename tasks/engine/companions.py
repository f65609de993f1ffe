"""Check the files that are served with a model: are they what their key says?"""

from __future__ import annotations

from tasks.catalogue.artifact import DIGEST_CHARS, Artifact
from tasks.catalogue.model_files import TEMPLATE, CompanionFile
from tasks.catalogue.model_format import text_problem
from tasks.catalogue.model_metadata import ModelMetadata
from tasks.catalogue.resolve import ResolvedModel
from tasks.console.text import digest
from tasks.engine.file_format import check_format
from tasks.errors import IntegrityError
from tasks.planning.estimate import metadata

_TEMPLATE_BYTES = 1024 * 1024  # the largest template that is read
_ADAPTER = "adapter"  # general.type of a LoRA adapter


def artifacts(resolved: ResolvedModel) -> list[tuple[CompanionFile, Artifact]]:
    """Return each companion of a model with its artifact, which has its label."""
    count = len(resolved.companions)
    files = resolved.extra_files[len(resolved.extra_files) - count :]
    return list(zip(resolved.companions, files, strict=True))


def proof_name(resolved: ResolvedModel, companion: CompanionFile) -> str:
    """Return the name in a companion's stamp for the version that verified it.

    A check is for one role and one model: an adapter is not a draft, and fits only one
    architecture.
    """
    model = digest(resolved.artifact.target)[:DIGEST_CHARS]
    return f"{resolved.engine} {companion.role} of {model}"


def check_files(resolved: ResolvedModel) -> None:
    """Check the further files of a model.

    Raises:
        IntegrityError: one is not a GGUF, not a text, or not for this model.
    """
    count = len(resolved.companions)
    for part in resolved.extra_files[: len(resolved.extra_files) - count]:
        check_format(part, "embedded")  # a GGUF, whatever the engine
    for companion, file in artifacts(resolved):
        _check_companion(resolved, companion.role, file)


def _check_companion(resolved: ResolvedModel, role: str, file: Artifact) -> None:
    if role == TEMPLATE:
        _check_template(file)
        return
    check_format(file, "embedded")
    if role == "lora":
        _check_adapter(resolved, file)
    elif role == "draft" and _type_of(file) == _ADAPTER:
        raise _not_a(file, "draft", "a model", "a LoRA adapter")


def _check_template(file: Artifact) -> None:
    with open(file.target, "rb") as stream:
        content = stream.read(_TEMPLATE_BYTES + 1)
    problem = text_problem(content) or _encoding_problem(content)
    if not problem and len(content) > _TEMPLATE_BYTES:
        problem = f"it has more than {_TEMPLATE_BYTES} bytes"
    if problem:
        raise _not_a(file, TEMPLATE, "a text, the chat template in Jinja", problem)


def _encoding_problem(content: bytes) -> str:
    try:
        content[:_TEMPLATE_BYTES].decode()
    except UnicodeDecodeError as error:
        if error.end < _TEMPLATE_BYTES:
            return f"it is not UTF-8: {error.reason} at byte {error.start}"
    return ""


def _check_adapter(resolved: ResolvedModel, file: Artifact) -> None:
    """Check that a file is an adapter, for the architecture of the model.

    A model whose metadata cannot be read is left to the engine.
    """
    adapter = metadata(file.target)
    found = _type_of(file)
    if found != _ADAPTER:
        got = found or "a GGUF without general.type"
        raise _not_a(file, "lora", f"general.type is {_ADAPTER}", got)
    model = metadata(resolved.artifact.target)
    if model is None or adapter is None or None in _architectures(model, adapter):
        return
    if model.architecture != adapter.architecture:
        expected = f"an adapter for {model.architecture}, as {resolved.name} is"
        raise _not_a(file, "lora", expected, f"one for {adapter.architecture}")


def _architectures(*files: ModelMetadata) -> tuple[str | None, ...]:
    return tuple(file.architecture for file in files)


def _type_of(file: Artifact) -> str:
    found = metadata(file.target)
    if found is None:
        return ""
    return found.type or ""


def _not_a(file: Artifact, key: str, expected: str, got: str) -> IntegrityError:
    facts = [("file", file.target), ("got", got), ("expected", expected)]
    what = f"{file.label} is not what `{key}:` needs"
    return IntegrityError(what, facts, fix=f"correct `{key}:` in models.yaml")
