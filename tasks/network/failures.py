"""Explain in plain words why a request got no response. Pure.

The errors are those of requests, urllib3, http.client and the system, known by the
names of their classes.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.network.access import Failure, tunnel_failure

# of OpenSSL, for a server that does not speak TLS
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")
NO_NAME = "check the network or the proxy: `doit doctor`"


class Limits(NamedTuple):
    """Seconds that were allowed: for the connection, for silence, in total or 0."""

    connect_s: float
    silence_s: float
    total_s: float


def explained(error: Exception, limits: Limits, host: str, variable: str) -> Failure:
    """Return what failed, from the innermost cause that has a text.

    Args:
        host: that was asked, with its port; "" if there was a response.
        variable: the environment variable that names the proxy.
    """
    chain = _causes(error)
    kinds = {type(cause).__name__ for cause in chain}
    reason = _reason(chain)
    text = str(error)
    failure = _setup_failure(error, kinds, reason, text)
    if failure:
        return failure
    if kinds & {"NameResolutionError", "gaierror"}:
        if "ProxyError" in kinds:
            return Failure("cannot resolve the name of the proxy", f"check {variable}")
        name = host.partition(":")[0] or "the host's name"
        return Failure(f"cannot resolve {name}", NO_NAME)
    if "ProxyError" in kinds:
        what = f"the proxy does not answer ({reason})"
        return tunnel_failure(reason, variable) or Failure(what, f"check {variable}")
    if kinds & {"BadStatusLine", "UnknownProtocol", "LineTooLong"}:
        return Failure("no HTTP answer", f"is {host or 'the host'} a web server?")
    if any(words in text for words in _NO_TLS):
        return Failure("no TLS answer", f"does {host or 'the host'} serve https?")
    if "InvalidHeader" in kinds:  # two values of Content-Length
        return Failure(text)
    if "IncompleteRead" in kinds:
        return Failure("the connection ended before the file did")
    if kinds & {"ConnectTimeout", "ConnectTimeoutError"}:  # before their TimeoutError
        return Failure(f"no connection within {limits.connect_s:.0f} s")
    if kinds & {"ReadTimeout", "ReadTimeoutError", "TimeoutError"}:
        if limits.total_s:
            return Failure(f"no complete answer within {limits.total_s:g} s")
        return Failure(f"no data for {limits.silence_s:.0f} s")
    return Failure(reason)


def _setup_failure(
    error: Exception, kinds: set[str], reason: str, text: str
) -> Failure | None:
    """Return a failure that only a change of this machine or of the URL can fix."""
    if "SSLCertVerificationError" in kinds:
        what = f"the certificate is not trusted ({reason})"
        fix = "behind a company's proxy: REQUESTS_CA_BUNDLE=/path/of/its/ca.pem"
        return Failure(what, fix, final=True)
    if "CA certificate bundle" in text or "NO_CERTIFICATE" in text:
        what = f"the certificates to trust cannot be read ({reason})"
        fix = (
            "REQUESTS_CA_BUNDLE=/path/of/a/file.pem that has certificates, or unset it"
        )
        return Failure(what, fix, final=True)
    if "InvalidProxyURL" in kinds:
        return Failure(text, "check HTTPS_PROXY and HTTP_PROXY", final=True)
    if "SOCKS support" in text:
        what = "a SOCKS proxy needs the package PySocks"
        return Failure(what, "pip install pysocks", final=True)
    if "InvalidHeader" in kinds:
        return None
    if isinstance(error, ValueError) or "TooManyRedirects" in kinds:
        # ValueError: the URL or the Location is not a URL
        return Failure(text, final=True)
    return None


def _causes(error: Exception) -> list[Any]:
    """Return an error and everything that it wraps, the innermost last."""
    chain: list[Any] = [error]
    for cause in chain:
        wrapped = [getattr(cause, "reason", None), cause.__cause__, *cause.args]
        errors = [item for item in wrapped if isinstance(item, BaseException)]
        chain.extend(item for item in errors if item not in chain)
    return chain


def _reason(chain: list[Any]) -> str:
    last = chain[-1]
    for cause in reversed(chain):
        if isinstance(cause, OSError) and cause.strerror:
            last = cause
            break
    return getattr(last, "strerror", None) or str(last) or type(last).__name__
