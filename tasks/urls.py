"""URLs: whether one may be fetched, what its file is called, what reaches a server. Pure."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

MODEL_ENDINGS = (".llamafile", ".gguf")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_NOT_IN_NAMES = ':*?"<>|'  # Windows takes these for something else


def is_local(url: str) -> bool:
    """A path, or file://: nothing goes over a network."""
    return _scheme(url) in ("", "file")


def _scheme(url: str) -> str:
    scheme = urlsplit(url).scheme
    return scheme if len(scheme) > 1 else ""  # one letter is a drive of Windows


def host_of(url: str) -> str:
    """The host, for messages; `this machine` for files."""
    return "this machine" if is_local(url) else (urlsplit(url).hostname or "?")


def filename_of(url: str) -> str:
    """The path's last segment, without query and fragment, percent-decoded (R3); nothing without one."""
    path = unquote(urlsplit(url).path) if urlsplit(url).scheme else url
    name = path.rstrip("/").rpartition("/")[2]
    name = name.rpartition("/")[2].rpartition("\\")[2]  # an encoded separator leads nowhere else
    name = "".join(c if c.isprintable() and c not in _NOT_IN_NAMES else "_" for c in name)
    return "" if name in (".", "..") else name


def is_proxy(text: str) -> bool:
    """Whether a proxy's variable names a host, and a port that there may be."""
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def url_problem(url: str, *, pinned: bool) -> str:
    """What is wrong with a URL, or nothing (R22, R29).

    Args:
        pinned: whether a digest is known, which is what makes plain http bearable.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"{url.rpartition('@')[2]} is not a URL: {error}"
    blank = any(c.isspace() for c in url) and not is_local(url)  # a folder's name may have one
    if not url.strip() or blank or any(ord(c) < 32 for c in url):
        return f"expected a URL, got {url!r}"
    if "@" in parts.netloc:
        return f"{parts.scheme}://…@{host}: no user or password in a URL, it ends up in logs"
    if is_local(url):
        return "" if parts.path else f"{url} names no file"
    if parts.scheme not in ("https", "http"):
        return f"{url}: expected https://, http://, file:// or a path, got {parts.scheme}:"
    if not host:
        return f"{url} names no host"
    if parts.scheme == "http" and not pinned and host not in _LOOPBACK:
        return f"{url}: plain http is only taken with a sha256, or from this machine"
    return ""


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def base_url(host: str, port: int) -> str:
    """Where a client on this machine reaches the server."""
    reach = reachable(host)
    return f"http://[{reach}]:{port}" if ":" in reach else f"http://{reach}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on `host`."""
    from ipaddress import ip_address  # 3 ms

    try:
        return ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.", "ip6-localhost")
