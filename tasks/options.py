"""The options of the verbs, as doit's own option dictionaries. Pure."""

from __future__ import annotations

from typing import Any

Option = dict[str, Any]


def option(long: str, metavar: str, about: str, kind: type = str, short: str = "") -> Option:
    """Return one option for doit's `params`; a flag has no metavar."""
    default: Any = {list: [], bool: False}.get(kind)
    made = {
        "name": long.replace("-", "_"),
        "long": long,
        "short": short,
        "type": kind,
        "default": default,
        "help": about,
    }
    if kind is not bool:
        made["metavar"] = metavar
    return made


MODEL = option("model", "NAME", "the model, by name or alias [default: the catalogue's]")
MODELS = option("model", "NAME", "a model; may be given several times", list)
RUNNING_MODEL = option("model", "NAME", "a model [default: the only one that runs]")
RUNNING_MODELS = option("model", "NAME", "a model; may be given several times [default: all that run]", list)
STOPPED_MODELS = option("model", "NAME", "a model; may be given several times [default: the only one]", list)
LOCK_MODELS = option("model", "NAME", "only this model, or engine; may be given several times", list)
JSON = option("json", "", "as JSON, for programs", bool)
YES = option("yes", "", "answer yes where a question would be asked", bool)
NO_ADOPT = option("no-adopt", "", "download it even if another program has it here already", bool)
FROZEN = option("frozen", "", "fetch nothing that no digest pins (CI=true means this, too)", bool)
TIMEOUT = option("timeout", "SECONDS", "time until it must be ready")
ALL = option("all", "", "every one", bool)
FOLLOW = option("follow", "", "go on until the server ends", bool, "f")
LINES = option("lines", "N", "only the last N lines", str, "n")
DRY_RUN = option("dry-run", "", "only say what would be removed", bool)
OLDER_THAN = option("older-than", "AGE", "keep what was used or changed since: 30d, 12h or 4w")
CHECK = option("check", "", "only say whether it covers models.yaml; needs no network", bool)
UPGRADE = option("upgrade", "", "move what models.yaml leaves open to what its publisher has now", bool)
HASH = option("download", "", "download and hash it where no publisher states the digest", bool)
NAME = option("name", "NAME", "what it is to be called [default: from the file's name]")
SHA256 = option("sha256", "HEX", "its digest, where the publisher states none")
LICENSE = option("license", "TEXT", "its licence, where the publisher states none")

SOURCE = [
    option("llamafile", "PATH", "a .llamafile or .gguf of your own, not a catalogued model"),
    option("llamafile-url", "URL", "where to get it, if it is not there yet"),
    {**option("llamafile_url", "URL", "the same, spelled as in older scripts"), "name": "llamafile_url_old"},
    option("sha256", "HEX", "the digest that file must have"),
    YES,
    NO_ADOPT,
    FROZEN,
]
SERVE = [
    option("host", "ADDR", "address to listen on"),
    option("port", "N", "TCP port; 0 picks a free one"),
    option("force-gpu", "", "put all layers on the GPU (-ngl 9999)", bool),
    option("gpu", "KIND", "auto, disable, amd, apple, nvidia or vulkan"),
    option("ngl", "N", "layers to put on the GPU"),
    option("ctx-size", "N", "context in tokens; 0: as the model was trained"),
    option("n-predict", "N", "tokens an answer may have; -1: no limit"),
    option("threads", "N", "CPU threads"),
    option("engine", "NAME", "self, llamafile or embedded"),
    option("api-key", "KEY", "what clients must send; better in $LLAMA_API_KEY, which `ps` does not show"),
    option("probe", "", "ready means: it has generated a token", bool),
    TIMEOUT,
]
