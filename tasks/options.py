"""The options of the verbs, as doit's own option dictionaries. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.errors import UsageError, did_you_mean

Option = dict[str, Any]


def option(
    long: str, metavar: str, about: str, kind: type = str, short: str = ""
) -> Option:
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


MODEL = option(
    "model", "NAME", "the model, by name or alias [default: the catalogue's]"
)
MODELS = option("model", "NAME", "a model; may be repeated", list)
RUNNING_MODEL = option("model", "NAME", "a model [default: the only running one]")
RUNNING_MODELS = option(
    "model", "NAME", "a model; may be repeated [default: all that run]", list
)
STOPPED_MODELS = option(
    "model", "NAME", "a model; may be repeated [default: the only one]", list
)
LOCK_MODELS = option(
    "model", "NAME", "only this model or engine; may be repeated", list
)
JSON = option("json", "", "as JSON, for programs", bool)
YES = option("yes", "", "answer yes instead of asking", bool)
FORCE = option("force", "", "try what `doit plan` says cannot work", bool)
NO_ADOPT = option(
    "no-adopt", "", "download it even if another program has a copy", bool
)
FROZEN = option(
    "frozen", "", "fetch only files with a pinned digest (also if CI=true)", bool
)
TIMEOUT = option("timeout", "SECONDS", "time until it must be ready")
ALL = option("all", "", "every one", bool)
ALL_MODELS = option("all", "", "every model, not one screen", bool)
KIND = option("kind", "KIND", "only one kind: chat, vision, embedding or rerank")
FITS = option("fits", "", "only those that fit this machine's memory", bool)
WORD = option("word", "TEXT", "only those with this in name or title", list)
LEVELS = {
    **option("parallel", "N,…", "requests at once [default: 1,2,4]"),
    "name": "levels",  # `parallel` would be a setting of the server
}
REQUESTS = option("requests", "N", "requests, at least [default: 4]")
ANSWER = option("n-predict", "N", "tokens of an answer [default: 64]")
LIMIT = option("limit", "SECONDS", "most time for all of them [default: 300]")
COMPARE = option("compare", "FILE", "show the ratio to an earlier `doit bench --json`")
DRAIN = option(
    "drain", "SECONDS", "most time for answers in progress at a stop [default: 20]"
)
STOP_DRAIN = option(
    "drain", "SECONDS", "the same for this stop [default: as it was started]"
)
REPLICAS = option(
    "replicas", "N", "that many servers, on ports from --port on, or free ones"
)
FOR = option("for", "NAME", "who needs it, for `doit stop --for NAME`")
STOP_FOR = option("for", "NAME", "those of `start --for NAME` that no other needs")
HAPROXY = option("haproxy", "SOCKET", "haproxy's `stats socket`, of `level admin`")
NGINX = option("nginx", "FILE", "the file of nginx's configuration with the servers")
NGINX_PID = option(
    "nginx-pid", "FILE", "the `pid` of its configuration [default: /run/nginx.pid]"
)
WAIT = option("wait", "SECONDS", "most time for the requests of one [default: 300]")
ROLL = (HAPROXY, NGINX, NGINX_PID, WAIT)
IDLE_TIMEOUT = option("timeout", "SECONDS", "most time to wait [default: 300]")
LOG = option(
    "log", "KIND", "quiet or engine (its output) [default: engine without a terminal]"
)
SERVER_PORT = option("port", "N", "the server on this port")
FOLLOW = option("follow", "", "continue until the server ends", bool, "f")
LINES = option("lines", "N", "only the last N lines", str, "n")
DRY_RUN = option("dry-run", "", "only show what would be removed", bool)
OLDER_THAN = option(
    "older-than", "AGE", "keep what was used or changed since: 30d, 12h or 4w"
)
CHECK = option("check", "", "only check that it covers models.yaml; offline", bool)
CHECK_FILES = option(
    "check", "", "only check that the files are what models.yaml says", bool
)
DEPLOYED = (
    *("container", "kubernetes", "compose", "quadlet"),
    *("systemd", "mirror", "balancer", "prometheus"),
)
UPGRADE = option("upgrade", "", "update what models.yaml does not pin", bool)
CHECKED = option(
    "checked", "", "with --upgrade: only pins whose `checks:` pass, served here", bool
)
REPORT = option("report", "FILE", "write the report of --checked there, not to stdout")
HASH = option("download", "", "download and hash files without a stated digest", bool)
NAME = option("name", "NAME", "the model's name [default: from the file's name]")
SHA256 = option("sha256", "HEX", "its digest, if the publisher states none")
LICENSE = option("license", "TEXT", "its licence, if the publisher states none")

VARIANT = option(
    "variant", "NAME", "the variant [default: the largest that fits the memory]"
)
AS = option(
    "as", "MODEL", "which model of an endpoint answers [default: its first one]"
)
ENDPOINTS = option("model", "NAME", "an endpoint; may be repeated", list)
DOWNLOAD = [YES, FORCE, NO_ADOPT, FROZEN]
SOURCE = [
    option(
        "llamafile", "PATH", "a .llamafile or .gguf of your own, not a catalogued model"
    ),
    option("llamafile-url", "URL", "where to download it from"),
    {
        **option("llamafile_url", "URL", "as --llamafile-url"),
        "name": "llamafile_url_old",
    },
    option("sha256", "HEX", "the digest that file must have"),
    VARIANT,
    *DOWNLOAD,
]
ENGINE = option("engine", "NAME", "self, llamafile, embedded or llama-server")
SERVE = [
    option("host", "ADDR", "address to listen on"),
    option("port", "N", "TCP port; 0 picks a free one"),
    option("force-gpu", "", "put all layers on the GPU (-ngl 9999)", bool),
    option("gpu", "KIND", "auto, disable, amd, apple, nvidia or vulkan"),
    option("ngl", "N", "layers to put on the GPU"),
    option("ctx-size", "N", "context in tokens; 0: as the model was trained"),
    option("n-predict", "N", "most tokens of an answer; -1: no limit"),
    option("threads", "N", "CPU threads"),
    ENGINE,
    option("api-key", "KEY", "key of clients; $LLAMA_API_KEY is not shown by `ps`"),
    option("probe", "", "ready only after it has generated a token", bool),
    TIMEOUT,
]
# which server is asked, or how one is started for it
MEASURED = [SERVER_PORT, ENGINE, TIMEOUT, VARIANT, *DOWNLOAD]
CHAT = [MODEL, AS, SERVER_PORT, TIMEOUT, VARIANT, *DOWNLOAD]
PUSHED_VARIANT = option("variant", "NAME", "the variant, if the model has several")
PUSH = [MODEL, PUSHED_VARIANT, JSON]
BENCH = [MODEL, LEVELS, REQUESTS, ANSWER, LIMIT, COMPARE, JSON, *MEASURED]
LOCK = [LOCK_MODELS, CHECK, UPGRADE, CHECKED, REPORT, HASH, JSON]
_OF_A_MODEL = ("force-gpu", "gpu", "ngl", "ctx-size", "n-predict", "threads", "engine")
SERVE_ENDPOINT = [one for one in SERVE if one["long"] not in _OF_A_MODEL]
SERVE_ON_ANY_PORT = [one for one in SERVE if one["long"] != "port"]


def seconds(long: str, text: str) -> int:
    """Return the value of an option in seconds.

    Raises:
        UsageError: it is not a whole number from 0 to 999999.
    """
    if text.isascii() and text.isdigit() and len(text) <= 6:
        return int(text)
    what = f"--{long}: expected seconds, 0 or more, got {text!r}"
    raise UsageError(what, fix=f"--{long} 20")


def option_fix(word: str, given: str, table: Sequence[Option], pos_arg: str) -> str:
    """Return the fix for a wrong option: help, its right form, or a similar one."""
    verb = word.partition(":")[0]
    if given in ("help", "h"):
        return f"doit help {verb}"
    for one in table:
        # its value is missing, or it takes none
        if given and given == one["long"]:
            return f"--{given} {one.get('metavar', '')}".rstrip()
        if given and given == one["short"]:
            return f"-{given} {one.get('metavar', '')}".rstrip()
    # an option that overrides a check is never what a misspelt one means
    names = [one["long"] for one in table if one["long"] != "force"]
    near = did_you_mean("--" + given, ["--" + name for name in names])
    is_engine = pos_arg == "engine_arguments"
    if near and is_engine:
        return f"{near} (engine arguments go after `--`)"
    if near:
        return near
    fix = f"`doit help {verb}` lists the options"
    if is_engine:
        fix += "; engine arguments go after `--`"
    return fix
