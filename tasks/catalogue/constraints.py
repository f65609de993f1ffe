"""What a value in models.yaml must be, beyond its type. Pure.

`Constraint` carries what a type cannot express (pattern, range, meaning); pydantic
reads it through its annotation protocol, so it also reaches models.schema.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

from tasks.system.paths import MAX_NAME

ENGINES = ("self", "llamafile", "embedded", "llama-server")


LATEST = "latest"  # as an engine's version


MOST = 999_999_999  # of a number that an engine gets


GPUS = ("auto", "disable", "amd", "apple", "nvidia", "vulkan")


# what a model is for
MODEL_KINDS = ("chat", "embedding", "rerank")


# how the vectors of a text's tokens become one; Source: llama.cpp --pooling
POOLINGS = ("none", "mean", "cls", "last", "rank")


class Constraint(NamedTuple):
    """A constraint and its meaning, beside a type: `Annotated[str, Rule(...)]`."""

    about: str  # the key's meaning, shown by editors
    expected: str = ""  # what a value must be, for the error message
    test: Callable[[Any], bool] | None = None
    schema: Mapping[str, Any] = {}  # the same constraint as JSON Schema keywords

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Run the type's own check, then `test` (pydantic's annotation protocol)."""
        from pydantic_core import PydanticCustomError, core_schema

        def check(value: Any) -> Any:
            if value is not None and self.test is not None and not self.test(value):
                context = {"expected": self.expected}
                raise PydanticCustomError("rule", "{expected}", context)
            return value

        return core_schema.no_info_after_validator_function(check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> Any:
        """Add description and keywords (pydantic's annotation protocol)."""
        out = handler(schema)
        branches = (b for b in out.get("anyOf", ()) if b.get("type") != "null")
        next(branches, out).update(self.schema)
        return {**out, "description": self.about}


def is_sha256(value: str) -> bool:
    """Whether it is a SHA-256 in lower-case hexadecimal."""
    return len(value) == 64 and set(value) <= set("0123456789abcdef")


def _has_only(value: str, allowed: str) -> bool:
    """Whether it has only ASCII letters, digits and the allowed characters."""
    return value.isascii() and all(c.isalnum() or c in allowed for c in value)


def _is_word(value: str) -> bool:
    return value[:1].isalnum() and _has_only(value, "._-")


def _is_name(value: str) -> bool:
    return _is_word(value) and len(value) <= MAX_NAME


def _is_host(value: str) -> bool:
    return 0 < len(value) < 254 and _has_only(value, ".:_%-")


def _is_version(value: str) -> bool:
    parts = value.split(".")
    numeric = value.isascii() and all(part.isdigit() for part in parts)
    return numeric and 2 <= len(parts) <= 3


def _is_build(value: str) -> bool:
    return value[:1] == "b" and value[1:].isascii() and value[1:].isdigit()


def _is_repo(value: str) -> bool:
    owner, slash, name = value.partition("/")
    return bool(slash) and _is_word(owner) and _is_word(name)


def _is_path_in_repo(value: str) -> bool:
    unsafe = {"", ".", ".."} & set(value.split("/"))
    return bool(value) and not unsafe and value.isprintable()


def _is_revision(value: str) -> bool:
    return bool(value) and _has_only(value, "._-/")


def _is_origin(value: str) -> bool:
    scheme, _, host = value.partition("://")
    return scheme in ("http", "https") and _is_host(host.strip("[]"))


def at_least(low: int, about: str) -> Constraint:
    """Return the constraint of a whole number with a minimum.

    Engines read 32 bits.
    """
    expected = f"a whole number from {low} to {MOST:,}"
    schema = {"minimum": low, "maximum": MOST}
    return Constraint(about, expected, lambda v: low <= v <= MOST, schema)


def between(low: float, high: float, about: str) -> Constraint:
    """Return the constraint of a number in a range."""
    expected = f"a number from {low:g} to {high:g}"
    bounds = {"minimum": low, "maximum": high}
    return Constraint(about, expected, lambda v: low <= v <= high, bounds)


def _is_reasoning(value: bool | int | str) -> bool:
    if isinstance(value, str):
        return value in ("auto", "off")
    return value is False or (value is not True and value >= 0)


def one_of(choices: tuple[str, ...], about: str) -> Constraint:
    """Return the constraint of a string that is one of the choices."""
    expected = "one of " + ", ".join(choices)
    return Constraint(about, expected, choices.__contains__, {"enum": list(choices)})


_NAME = Constraint(
    "short name",
    f"a name of letters, digits, '.', '_' and '-', {MAX_NAME} at most",
    _is_name,
    {"pattern": rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}$"},
)


def name_problem(name: str) -> str:
    """Return why a text cannot be the name of an entry, or ""."""
    if _is_name(name):
        return ""
    return f"expected {_NAME.expected}, got {name!r}"


_REPO = Constraint(
    "repository on the Hugging Face Hub, instead of url",
    "owner/repository",
    _is_repo,
    {"pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"},
)


_REPO_FILE = Constraint(
    "path of the file in that repository",
    "a path inside the repository",
    _is_path_in_repo,
    {"pattern": r"^[^/]"},
)


_REVISION = Constraint(
    "commit, tag or branch of that repository [main]",
    "a commit, tag or branch",
    _is_revision,
    {"pattern": r"^[A-Za-z0-9._/-]+$"},
)


_SHA256 = Constraint(
    "SHA-256 of the whole file, hexadecimal",
    "64 lower-case hexadecimal digits",
    is_sha256,
    {"pattern": "^[0-9a-f]{64}$"},
)


_SIZE = Constraint(
    "exact size in bytes",
    "a whole number of bytes above 0",
    lambda v: v > 0,
    {"minimum": 1},
)


_ENGINE_VERSION = Constraint(
    "version of llamafile, in quotes: flags depend on it",
    'a version in quotes, such as "0.9.3"',
    _is_version,
    {"pattern": r"^\d+\.\d+(\.\d+)?$"},
)


VERSION_OR_LATEST = Constraint(
    "version of the program, in quotes; latest: the version in models.lock",
    'a version in quotes, such as "0.9.3" or "b11669", or latest',
    lambda v: v == LATEST or _is_version(v) or _is_build(v),
    {"pattern": r"^(latest|b\d+|\d+\.\d+(\.\d+)?)$"},
)


# what an archive is for: the system, its CPU, and a kind of GPU; without one, any GPU
# that the program for the CPU knows (Metal on macOS)
SYSTEMS = ("linux", "macos", "windows")
CPUS = ("x64", "arm64")
ARCHIVE_GPUS = ("amd", "nvidia", "vulkan")
ARCHIVE_ENDINGS = (".tar.gz", ".tgz", ".zip")


def _is_place(value: str) -> bool:
    system, _, rest = value.partition("-")
    cpu, dash, gpu = rest.partition("-")
    if dash and gpu not in ARCHIVE_GPUS:
        return False
    return system in SYSTEMS and cpu in CPUS


def _is_archive(value: str) -> bool:
    is_one = any(
        value.endswith(ending) and value != ending for ending in ARCHIVE_ENDINGS
    )
    return is_one and _has_only(value, "._+-")


ARCHIVE_PLACE = Constraint(
    "system, CPU and kind of GPU that the archive is for",
    "SYSTEM-CPU or SYSTEM-CPU-GPU, such as linux-x64 or windows-x64-nvidia",
    _is_place,
    {"pattern": "^(linux|macos|windows)-(x64|arm64)(-(amd|nvidia|vulkan))?$"},
)


ARCHIVE_NAME = Constraint(
    "end of the archive's name, such as ubuntu-x64.tar.gz",
    "the end of the name of a .tar.gz or .zip",
    _is_archive,
    {"pattern": r"^[A-Za-z0-9._+-]+\.(tar\.gz|tgz|zip)$"},
)


HOST = Constraint(
    "address to listen on",
    "a host name or an address such as 127.0.0.1",
    _is_host,
    {"pattern": "^[A-Za-z0-9.:_%-]{1,253}$"},
)


PORT = Constraint(
    "TCP port; 0 selects a free port",
    "a whole number from 0 to 65535",
    lambda v: 0 <= v <= 65535,
    {"minimum": 0, "maximum": 65535},
)


CORS = Constraint(
    "web pages that may use the server: localhost, * for all, or origins such as "
    "https://example.org, separated by commas [localhost]",
    "localhost, * or origins such as https://example.org, separated by commas",
    lambda v: v in ("*", "localhost") or all(map(_is_origin, v.split(","))),
    {"pattern": r"^(\*|localhost|https?://[^\s,/]+(,https?://[^\s,/]+)*)$"},
)


MODEL_ID = Constraint(
    "name of the model in the server's API [its name here]",
    "letters, digits, '.', '_', '-' and '/'",
    lambda v: v[:1].isalnum() and _has_only(v, "._-/") and len(v) <= MAX_NAME,
    {"pattern": rf"^[A-Za-z0-9][A-Za-z0-9._/-]{{0,{MAX_NAME - 1}}}$"},
)


_ENV_NAME = Constraint(
    "name of a variable",
    "a name of letters, digits and '_'",
    lambda v: v.isascii() and v.isidentifier(),
    {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
)


_URL = Constraint(
    "https://…, oci://HOST/REPO:TAG, ollama:NAME:TAG, ms:OWNER/REPO/FILE, file:///…, "
    "or a path relative to this file; http:// needs sha256"
)


_MIRRORS = Constraint("more URLs of the same bytes, tried in order after url")


_ADOPT_FROM = Constraint(
    "folders that may already have the files:"
    " another cache of this recipe, the Hub's cache, Ollama's, or plain files"
)


_ENGINE = one_of(
    ENGINES,
    "program that serves the model; default: self for .llamafile, llamafile for .gguf",
)


# YAML reads an unquoted `off` as false
REASONING = Constraint(
    "reasoning before an answer: auto (as the model's template says), off, "
    "or a limit in tokens",
    "auto, off, or a whole number of tokens",
    _is_reasoning,
)


Name = Annotated[str, _NAME]


Title = Annotated[str, Constraint("full name, for people")]


Url = Annotated[str, _URL]


Repo = Annotated[str | None, _REPO]


RepoFile = Annotated[str | None, _REPO_FILE]


Revision = Annotated[str | None, _REVISION]


Mirrors = Annotated[tuple[str, ...], _MIRRORS]


AdoptFrom = Annotated[tuple[str, ...], _ADOPT_FROM]


Sha256 = Annotated[str | None, _SHA256]


Size = Annotated[int | None, _SIZE]


Licence = Annotated[
    str, Constraint("license of the file, an SPDX identifier if there is one")
]


EnvName = Annotated[str, _ENV_NAME]


EngineName = Annotated[str | None, _ENGINE]


EngineVersion = Annotated[str | None, _ENGINE_VERSION]
