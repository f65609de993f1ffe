"""The Hub's address and token, and the model caches of other programs. Pure.

The environment is an argument, and glob patterns are returned, not looked up.

Source: huggingface_hub constants.py (HF_HOME, HF_HUB_CACHE, HF_TOKEN_PATH,
HF_ENDPOINT), Ollama docs/faq.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template
from urllib.parse import urlsplit

from tasks.errors import UsageError
from tasks.urls import LOOPBACK

HUB = "https://huggingface.co"
_OFFLINE = ("LLAMAFILE_OFFLINE", "HF_HUB_OFFLINE")
_FALSE = ("", "0", "OFF", "NO", "FALSE")
_SYSTEM_OLLAMA = "/usr/share/ollama/.ollama/models"


def check_offline(env: Mapping[str, str]) -> None:
    """Check that LLAMAFILE_OFFLINE is true or false.

    Raises:
        UsageError: it is neither.
    """
    given = env.get("LLAMAFILE_OFFLINE", "")
    if env_flag(given) or given.strip().upper() in _FALSE:
        return
    what = f"LLAMAFILE_OFFLINE: expected 1, true, yes, on or 0, got {given!r}"
    raise UsageError(what, fix="LLAMAFILE_OFFLINE=1, or unset it")


def env_flag(value: str | None) -> bool:
    """Return whether a variable is true, as huggingface_hub reads it."""
    return (value or "").strip().upper() in ("1", "ON", "YES", "TRUE")


def offline(env: Mapping[str, str]) -> str:
    """Return the name of the variable that forbids network access; "" if none does."""
    return next((name for name in _OFFLINE if env_flag(env.get(name))), "")


def endpoint(env: Mapping[str, str]) -> str:
    """Return the Hub's address: HF_ENDPOINT or the public one."""
    return (env.get("HF_ENDPOINT") or HUB).rstrip("/")


def is_hub(url: str) -> bool:
    """Return whether a URL is on the public Hub, which HF_ENDPOINT replaces."""
    return url.startswith(HUB + "/")


def rewrite_to_endpoint(url: str, env: Mapping[str, str]) -> str:
    """Rewrite a URL of the public Hub to HF_ENDPOINT; return any other unchanged."""
    if not is_hub(url):
        return url
    return endpoint(env) + url[len(HUB) :]


def may_send_token(url: str, env: Mapping[str, str]) -> bool:
    """Return whether the Hub's token may be sent to a URL.

    Only to the endpoint's own host and port, and over https or to this machine.
    """
    try:
        hub = urlsplit(endpoint(env))
        target = urlsplit(url)
    except ValueError:  # not a URL; the request itself reports that
        return False
    is_private = target.scheme == "https" or target.hostname in LOOPBACK
    return is_private and (hub.scheme, hub.netloc) == (target.scheme, target.netloc)


def token_path(env: Mapping[str, str], home: str) -> str:
    """Return the file in which `hf auth login` saves the token."""
    path = env.get("HF_TOKEN_PATH")
    if path:
        return _expanded(path, env, home)
    return f"{_hf_home(env, home)}/token"


def token(env: Mapping[str, str], saved: str) -> str:
    """Return HF_TOKEN, else the saved token.

    Returns:
        "" if there is none, or HF_HUB_DISABLE_IMPLICIT_TOKEN is set.
    """
    if env_flag(env.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
        return ""
    given = (env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN") or "").strip()
    return sendable(given or saved.strip())


def sendable(token: str) -> str:
    """Return a token that a header can carry; "" for any other.

    An error about the header would show the token.
    """
    return token if token.isascii() and token.isprintable() else ""


def _hf_home(env: Mapping[str, str], home: str) -> str:
    base = env.get("XDG_CACHE_HOME") or f"{home}/.cache"
    return _expanded(env.get("HF_HOME") or f"{base}/huggingface", env, home)


def _expanded(path: str, env: Mapping[str, str], home: str) -> str:
    """Expand ~ and $VARIABLE, as huggingface_hub does."""
    path = Template(path).safe_substitute(env)
    if path == "~" or path.startswith(("~/", "~\\")):
        return home + path[1:]
    return path


def cache_globs(
    sha256: str,
    filename: str,
    folders: Sequence[str],
    env: Mapping[str, str],
    home: str,
) -> list[str]:
    """Return glob patterns of local files that may have a digest, the likeliest first.

    Args:
        folders: directories that models.yaml names (`adopt_from`).
    """
    name = _escaped(filename)
    hub = _escaped(_hub_cache(env, home))
    ollama = _expanded(env.get("OLLAMA_MODELS") or "~/.ollama/models", env, home)
    patterns = [
        f"{hub}/models--*/blobs/{sha256}",
        f"{_escaped(ollama)}/blobs/sha256-{sha256}",
        f"{_SYSTEM_OLLAMA}/blobs/sha256-{sha256}",
    ]
    for path in folders:
        folder = _escaped(_expanded(path, {}, home))
        patterns += [
            f"{folder}/{name}",
            f"{folder}/models/{sha256[:16]}/{name}",
            f"{folder}/engines/{sha256[:16]}/{name}",
            f"{folder}/engines/{name}",
            f"{folder}/models--*/blobs/{sha256}",
            f"{folder}/blobs/sha256-{sha256}",
        ]
    return patterns


def _hub_cache(env: Mapping[str, str], home: str) -> str:
    path = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    return _expanded(path or f"{_hf_home(env, home)}/hub", env, home)


def unpinned_globs(folder: str, filename: str) -> list[str]:
    """Return the same for files that the cache had before the catalogue pinned them.

    Args:
        folder: `models` or `engines` of the cache. Older versions of the recipe kept
            engines directly in it.
    """
    folder, name = _escaped(folder), _escaped(filename)
    return [f"{folder}/url-*/{name}", f"{folder}/{name}"]


def _escaped(path: str) -> str:
    """Escape the special characters of glob; drop slashes at the end."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path.rstrip("/"))
