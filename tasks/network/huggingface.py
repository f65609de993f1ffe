"""Where other programs of the field keep and look for models: the Hub's address, its token, the caches of
huggingface_hub and Ollama. Pure: the environment is an argument, and patterns are not looked up.

Source: huggingface_hub constants.py (HF_HOME, HF_HUB_CACHE, HF_TOKEN_PATH, HF_ENDPOINT), Ollama docs/faq.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Template
from urllib.parse import urlsplit

HUB = "https://huggingface.co"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_on(value: str | None) -> bool:
    """Whether a variable says yes, as the Hub's client reads its own."""
    return (value or "").strip().upper() in ("1", "ON", "YES", "TRUE")


def offline(env: Mapping[str, str]) -> str:
    """The variable that forbids the network, or nothing."""
    return next((name for name in ("LLAMAFILE_OFFLINE", "HF_HUB_OFFLINE") if is_on(env.get(name))), "")


def endpoint(env: Mapping[str, str]) -> str:
    """The Hub's address: HF_ENDPOINT, else its own."""
    return (env.get("HF_ENDPOINT") or HUB).rstrip("/")


def is_hub(url: str) -> bool:
    """Whether a URL is one of the Hub, for which HF_ENDPOINT stands in."""
    return url.startswith(HUB + "/")


def at_endpoint(url: str, env: Mapping[str, str]) -> str:
    """A URL of the Hub as the company's mirror has it; any other one as it is."""
    return endpoint(env) + url[len(HUB) :] if is_hub(url) else url


def takes_token(url: str, env: Mapping[str, str]) -> bool:
    """Whether the Hub's token may go to this URL: to the endpoint's own host and port, not in the clear."""
    try:
        here, there = urlsplit(endpoint(env)), urlsplit(url)
    except ValueError:  # it is no URL; whoever asks for it says so
        return False
    safe = there.scheme == "https" or there.hostname in _LOOPBACK
    return safe and (here.scheme, here.netloc) == (there.scheme, there.netloc)


def token_path(env: Mapping[str, str], home: str) -> str:
    """The file in which `hf auth login` leaves the token."""
    given = env.get("HF_TOKEN_PATH")
    return _expanded(given, env, home) if given else f"{_hf_home(env, home)}/token"


def token(env: Mapping[str, str], saved: str) -> str:
    """HF_TOKEN, else the saved one; none where HF_HUB_DISABLE_IMPLICIT_TOKEN says that none is sent."""
    if is_on(env.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
        return ""
    given = (env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN") or "").strip()
    return sendable(given or saved.strip())


def sendable(token: str) -> str:
    """The token; nothing where a header cannot carry it, which an error would show."""
    return token if token.isascii() and token.isprintable() else ""


def _hf_home(env: Mapping[str, str], home: str) -> str:
    base = env.get("XDG_CACHE_HOME") or f"{home}/.cache"
    return _expanded(env.get("HF_HOME") or f"{base}/huggingface", env, home)


def _expanded(path: str, env: Mapping[str, str], home: str) -> str:
    """A path without ~ and $VARIABLE, as huggingface_hub reads its own settings."""
    path = Template(path).safe_substitute(env)
    return home + path[1:] if path == "~" or path.startswith(("~/", "~\\")) else path


def places(
    sha256: str, filename: str, folders: Sequence[str], env: Mapping[str, str], home: str
) -> list[str]:
    """Glob patterns of files that may be the artifact, the likeliest first.

    Args:
        folders: directories that models.yaml names (`adopt_from`).
    """
    given = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE") or f"{_hf_home(env, home)}/hub"
    hub = _plain(_expanded(given, env, home))
    own = _plain(_expanded(env.get("OLLAMA_MODELS") or "~/.ollama/models", env, home))
    name, found = _plain(filename), [f"{hub}/models--*/blobs/{sha256}"]
    found += [f"{ollama}/blobs/sha256-{sha256}" for ollama in (own, "/usr/share/ollama/.ollama/models")]
    for folder in (_plain(_expanded(f, {}, home)) for f in folders):
        found += [f"{folder}/{name}", f"{folder}/models/{sha256[:16]}/{name}"]
        found += [f"{folder}/engines/{sha256[:16]}/{name}", f"{folder}/engines/{name}"]
        found += [f"{folder}/models--*/blobs/{sha256}", f"{folder}/blobs/sha256-{sha256}"]
    return found


def earlier_places(folder: str, filename: str) -> list[str]:
    """The same for files of our own cache that came before anything pinned them.

    Args:
        folder: `models` or `engines` of the cache. Engines of older versions lie there directly.
    """
    return [f"{_plain(folder)}/url-*/{_plain(filename)}", f"{_plain(folder)}/{_plain(filename)}"]


def _plain(path: str) -> str:
    """A path in which glob's own signs stand for themselves."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path.rstrip("/"))
