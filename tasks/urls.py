"""URLs: which may be fetched, their file names, and server addresses. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

from tasks import references

MODEL_ENDINGS = (".llamafile", ".gguf")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
# a path that begins so lacks https://; a folder of that name is written ./NAME
_HOST = (
    r"(?i)(www\.[\w.-]+|localhost|\d+(\.\d+){3}|[\w-]+(\.[\w-]+)*\.(ai|cn|co|com|dev|io|net|org))"
    r"(:\d+)?(?=/|$)"
)
_HOST_AND_PORT = r"[\w.-]+:\d+(/|$)"
_CONTROL = r"[\x00-\x1f]"
_NOT_IN_NAMES = ':*?"<>|'  # reserved on Windows
# Web pages about a file, and the URLs of its bytes. /raw/ of the Hub sends the pointer
# of a large file; /raw/ of GitHub and GitLab sends the file
_HUB_PAGE = r"https?://(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com)"
_REPO = r"/(?:datasets/|spaces/)?[^/]+/[^/]+"
_PAGES = (
    (rf"({_HUB_PAGE}{_REPO})/(?:blob|blame|raw)/(.+)", r"\1/resolve/\2"),
    (r"(https?://(?:www\.)?github\.com/[^/]+/[^/]+)/(?:blob|blame)/(.+)", r"\1/raw/\2"),
    (r"(https?://[^/]+/.+?/-)/(?:blob|blame)/(.+)", r"\1/raw/\2"),
)


def is_local(url: str) -> bool:
    """Whether it is a path or a file:// URL, so that no network is used."""
    return _scheme(url) in ("", "file")


def _scheme(url: str) -> str:
    scheme = urlsplit(url).scheme
    if len(scheme) == 1:  # a drive letter of Windows
        return ""
    return scheme


def host_of(url: str) -> str:
    """Return the host for messages; `this machine` for files."""
    if is_local(url):
        return "this machine"
    if oci := references.parse_oci(url):
        return oci.host
    if references.scheme_of(url) == "ms":
        return references.MODELSCOPE
    return urlsplit(url).hostname or "?"


def filename_of(url: str) -> str:
    """Return the path's last segment, percent-decoded (R3); empty if there is none.

    Query and fragment are dropped, characters that a file name cannot have become `_`.
    """
    if references.scheme_of(url):
        return references.filename_of(url)
    parts = urlsplit(url)
    path = url
    if parts.scheme:
        path = unquote(parts.path)
    name = path.rstrip("/").rpartition("/")[2]
    # a decoded separator must not lead to another directory
    name = name.rpartition("/")[2].rpartition("\\")[2]
    if name in (".", ".."):
        return ""
    return "".join(c if _fits_names(c) else "_" for c in name)


def _fits_names(character: str) -> bool:
    return character.isprintable() and character not in _NOT_IN_NAMES


def file_of_page(url: str) -> str:
    """Return the URL of the file that a web page shows; "" for any other URL."""
    if "/blob/" not in url and "/blame/" not in url and "/raw/" not in url:
        return ""
    bare = re.split("[?#]", url, maxsplit=1)[0]
    for pattern, replacement in _PAGES:
        match = re.fullmatch(pattern, bare)
        if match:
            return match.expand(replacement)
    return ""


def is_proxy(text: str) -> bool:
    """Whether a proxy variable's value has a host and a valid port."""
    url = text
    if "://" not in text:
        url = f"http://{text}"
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def url_error(url: str, *, pinned: bool) -> str:
    """Return what is wrong with a URL, or an empty text (R22, R29).

    Args:
        pinned: whether a digest is known; only then plain http is allowed.
    """
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port  # both are parsed here, and may be invalid
    except ValueError as error:
        without_password = url.rpartition("@")[2]
        return f"{without_password} is not a URL: {error}"
    if not url.strip() or _has_bad_blank(url) or re.search(_CONTROL, url):
        return f"expected a URL, got {url!r}"
    if "@" in parts.netloc:
        place = f"{parts.scheme}://…@{parts.hostname}"
        return f"{place}: no user or password in a URL, it ends up in logs"
    if references.scheme_of(url):
        return references.problem_of(url)
    if lacks_scheme(url):
        return f"{url}: https:// is missing (a local path begins with ./ or /)"
    if is_local(url):
        return "" if parts.path else f"{url} has no file name"
    return _remote_problem(url, parts, pinned)


def lacks_scheme(url: str) -> bool:
    """Whether it begins with a host, so that https:// is missing.

    `localhost/x` and `data.org/x` may also be paths, but `./data.org/x` is only a path.
    """
    return bool(re.match(_HOST, url) or re.match(_HOST_AND_PORT, url))


def _has_bad_blank(url: str) -> bool:
    """Whether there is a blank where none may be; a local path may have one."""
    return url.split() != [url] and not is_local(url)


def _remote_problem(url: str, parts: SplitResult, pinned: bool) -> str:
    if parts.scheme not in ("https", "http"):
        expected = "expected https://, http://, oci://, file:// or a path"
        return f"{url}: {expected}, got {parts.scheme}:"
    if not parts.hostname:
        return f"{url} has no host"
    if parts.scheme == "http" and not pinned and parts.hostname not in LOOPBACK:
        return f"{url}: plain http is allowed only with a sha256, or from this machine"
    if file := file_of_page(url):
        return f"{url} is not the file itself: use {file}"
    return ""


def reachable(host: str) -> str:
    """Return the address for clients on this machine of a server bound to `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def base_url(host: str, port: int) -> str:
    """Return the server's URL for clients on this machine."""
    address = reachable(host)
    if ":" in address:
        address = f"[{address}]"
    return f"http://{address}:{port}"


def is_loopback(host: str) -> bool:
    """Whether a server bound to `host` is reachable from this machine only."""
    from ipaddress import ip_address  # 3 ms

    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.", "ip6-localhost")


def no_proxy(env: Mapping[str, str], host: str) -> dict[str, str]:
    """Return NO_PROXY and no_proxy for the clients of a server on this machine.

    What is in `env` is kept. Some clients read only one of the two variables, and one
    that is not set takes the value of the other. Empty if no proxy is set: then either
    variable would only disable the proxy of the system (macOS, Windows).

    Args:
        host: the address that the server is bound to.
    """
    if not any(value and name.lower() in _PROXIES for name, value in env.items()):
        return {}
    upper = env.get("NO_PROXY", env.get("no_proxy", ""))
    lower = env.get("no_proxy", upper)
    return {"NO_PROXY": _with_host(upper, host), "no_proxy": _with_host(lower, host)}


def needed_no_proxy(env: Mapping[str, str], host: str) -> str:
    """Return the NO_PROXY that a server's clients need; empty if they need no other."""
    hosts = _hosts(env.get("NO_PROXY", "")) + _hosts(env.get("no_proxy", ""))
    if "*" in hosts or reachable(host) in hosts:
        return ""
    return no_proxy(env, host).get("NO_PROXY", "")


def _with_host(text: str, host: str) -> str:
    """Add a host and the names of this machine to a list of hosts without proxy."""
    hosts = _hosts(text)
    if hosts == ["*"]:  # a client reads it as every host only where it is alone
        return "*"
    needed = (reachable(host), "127.0.0.1", "localhost")
    return ",".join(dict.fromkeys((*hosts, *needed)))


def _hosts(text: str) -> list[str]:
    return text.replace(",", " ").split()
