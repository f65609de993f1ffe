"""Choose the variant for a command line: the named one, or one that fits. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tasks.catalogue import variants
from tasks.catalogue.environment import Environment
from tasks.catalogue.model_files import memory_of
from tasks.catalogue.settings import ServeSettings, serve_settings, settings_of
from tasks.catalogue.types import Catalogue, FileSpec, Model
from tasks.catalogue.variants import Choice, VariantNeed
from tasks.command_line import TaskRequest


def variant_choice(
    request: TaskRequest, name: str, catalogue: Catalogue, environment: Environment
) -> Choice | None:
    """Return the variant that is named, or the one that fits; None without variants.

    Raises:
        UsageError: there is no such variant, or one has to be named.
    """
    names = catalogue.variants(name)
    word = request.options.get("variant")
    if word is not None:
        word = variants.named(word, name, names)
    if not names:
        return None
    if word is None and environment.must_name_variant and request.verb:
        raise variants.unnamed_error(name, names)
    needs = []
    for one in names:
        model = catalogue.model(name, one)
        settings = _settings(request, model, catalogue)
        engine = request.options.get("engine") or model.engine or "llamafile"
        size = _entry_size(model, catalogue.extra_files(name, one))
        metadata = memory_of(catalogue.memory(name, one))
        needed = variants.needed_bytes(model, size, metadata, settings, engine)
        needs.append(VariantNeed(one, size, needed))
    budget = variants.budget(memory_for(settings, environment))
    chosen, reason = variants.choose(needs, budget)
    if word is not None:
        chosen, reason = word, "named"
    return Choice(chosen, reason, budget, tuple(needs))


def memory_for(settings: ServeSettings, environment: Environment) -> int:
    """Return the bytes that may hold a model: of the GPU, if layers are put there."""
    memory = environment.memory()
    if settings.ngl and settings.gpu != "disable":
        return environment.gpu_memory() or memory
    return memory


def _settings(
    request: TaskRequest, model: Model, catalogue: Catalogue
) -> ServeSettings:
    """Return how a model would be served, with the words after `--` as `args`."""
    words = request.extra if request.verb in ("serve", "start") else ()
    asked = replace(settings_of(request.options), args=words)
    return serve_settings(asked.over(model.serve).over(catalogue.defaults))


def _entry_size(model: Model, files: Iterable[FileSpec]) -> int | None:
    """Return the bytes of all files of an entry; None if one is not known."""
    sizes = [model.size, *(file.size for file in files)]
    if None in sizes:
        return None
    return sum(size or 0 for size in sizes)
