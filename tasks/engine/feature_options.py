"""Options of an engine for a model's kind, companions and settings. Pure.

The names are llama.cpp's. `capabilities` says which versions know them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tasks.catalogue.model_files import CompanionFile
from tasks.catalogue.settings import ServeSettings
from tasks.engine.capabilities import is_off

Version = tuple[int, ...]

_KINDS = {"embedding": "--embedding", "rerank": "--reranking"}
_PATHS = {"mmproj": "--mmproj", "draft": "--model-draft"}
_SAMPLING = {
    "temperature": "--temp",
    "top_k": "--top-k",
    "top_p": "--top-p",
    "min_p": "--min-p",
    "repeat_penalty": "--repeat-penalty",
    "presence_penalty": "--presence-penalty",
    "frequency_penalty": "--frequency-penalty",
    "seed": "--seed",
}
# the first build that expects --lora-scaled FILE:SCALE and splits the values at commas;
# Source: ggml-org/llama.cpp#18056, #24703; seen in 7482
_COMMA_SEPARATED_SINCE: Version = (7482,)
_LLAMAFILES = ("self", "llamafile")


def companion_options(
    engine: str,
    companions: Sequence[CompanionFile],
    known: Version | None,
    platform: str,
) -> list[str]:
    """Return the options for the files that are served with a model.

    Args:
        known: version of the engine; None where it is not known.
    """
    options: list[str] = []
    for companion in companions:
        if companion.role in _PATHS:
            options += [_PATHS[companion.role], companion.path]
        if companion.role == "draft" and engine not in _LLAMAFILES:
            # without it, the draft is loaded and not used
            options += ["--spec-type", "draft-simple"]
        if companion.role == "lora":
            options += _lora(engine, companion, known, platform)
        if companion.role == "template":
            # before the file: else only templates that llama.cpp knows are accepted
            options += ["--jinja", "--chat-template-file", companion.path]
    return options


def _lora(
    engine: str, lora: CompanionFile, known: Version | None, platform: str
) -> list[str]:
    path = lora.path
    scale = lora.scale
    if scale is None:
        scale = 1
    if engine == "llama-server" and known and known < _COMMA_SEPARATED_SINCE:
        return ["--lora-scaled", path, f"{scale:g}"]
    if scale == 1:
        return ["--lora", _quoted(path)]
    if platform == "win32" and path[1:2] == ":":
        # the value is split at each colon, and the engine runs on the cache's drive
        path = path[2:]
    return ["--lora-scaled", _quoted(f"{path}:{scale:g}")]


def _quoted(value: str) -> str:
    """Quote a value that is split at commas; Source: llama.cpp parse_csv_row."""
    if "," in value or '"' in value:
        return '"' + value.replace('"', '""') + '"'
    return value


def feature_options(
    engine: str, kind: str, settings: ServeSettings, known: Version | None
) -> list[str]:
    """Return the options for the kind of a model and for its settings."""
    return [*_options(engine, kind, settings, known)]


def _options(
    engine: str, kind: str, settings: ServeSettings, known: Version | None
) -> Iterator[str]:
    if kind in _KINDS:
        yield _KINDS[kind]
        is_first_server = engine in _LLAMAFILES and known and known < (0, 10)
        if settings.ctx_size and not is_first_server:
            # a text is not split: its tokens have to fit into one batch
            yield from ("--batch-size", str(settings.ctx_size))
            yield from ("--ubatch-size", str(settings.ctx_size))
    if kind == "embedding" and settings.pooling:
        yield from ("--pooling", settings.pooling)
    if kind == "chat":
        yield from _reasoning(engine, settings.reasoning)
    if kind == "chat" and settings.sampling:
        for key, value in settings.sampling.given().items():
            yield from (_SAMPLING[key], f"{value:.10g}")
    if settings.parallel is not None:
        yield from ("--parallel", str(settings.parallel))
    if settings.idle is not None:
        yield from ("--sleep-idle-seconds", str(settings.idle))
    if settings.metrics:
        yield "--metrics"


def _reasoning(engine: str, reasoning: bool | int | str | None) -> tuple[str, ...]:
    if is_off(reasoning):
        if engine in _LLAMAFILES:
            return ("--reasoning-budget", "0")
        return ("--reasoning", "off")
    if isinstance(reasoning, int):
        return ("--reasoning-budget", str(reasoning))
    return ()
