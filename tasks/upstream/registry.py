"""Request manifests from registries, and what ModelScope states about a file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping

from tasks.errors import TransferError
from tasks.network import http, registry, registry_tokens
from tasks.network.tokens import host_token
from tasks.references import OciReference, parse_modelscope, parse_oci
from tasks.upstream import manifest
from tasks.upstream.metadata import RemoteFile

# method, URL, headers, token → response
Ask = Callable[[str, str, Mapping[str, str], str], http.Response]
_MAX_MANIFEST = 4 * 1024**2  # bytes; Source: distribution-spec, "Pushing manifests"


def fetch_file(text: str, ask: Ask) -> RemoteFile | None:
    """Return what a registry states about a reference's file.

    Returns:
        None for any other text.

    Raises:
        TransferError: there is no response, or it is not usable.
        IntegrityError: a manifest does not match its digest.
    """
    if oci := parse_oci(text):
        return _fetch_manifest(oci, ask)
    file = parse_modelscope(text)
    if file is None:
        return None
    url = file.api(os.environ)
    answer = ask("GET", url, {}, host_token(url))
    if answer.status != 200:
        what = f"{text}: HTTP {answer.status} from ModelScope's API"
        raise TransferError(what, fix="correct owner, repository and file")
    return manifest.parse_modelscope(answer.body, text)


def _fetch_manifest(reference: OciReference, ask: Ask) -> RemoteFile:
    url = f"{reference.base}/manifests/{reference.version}"
    authorization = registry_tokens.authorization(url)
    answer = ask("GET", url, {"Accept": manifest.ACCEPT}, authorization)
    if answer.status != 200:
        raise _refusal(reference, answer, bool(authorization))
    if len(answer.body) > _MAX_MANIFEST:
        raise TransferError(f"{reference}: the manifest exceeds {_MAX_MANIFEST} bytes")
    sha256 = hashlib.sha256(answer.body).hexdigest()
    stated = answer.headers.get("docker-content-digest", "")
    if not stated.startswith("sha256:"):
        stated = ""  # of another algorithm
    return manifest.parse_manifest(answer.body, sha256, reference, stated)


def _refusal(
    reference: OciReference, answer: http.Response, presented: bool
) -> TransferError:
    """Return the error for a status other than 200."""
    fix = registry_tokens.login_fix(reference.base, reference.host)
    as_reader = fix
    if fix.endswith(f"docker login {reference.host}"):
        as_reader = f"{fix}, as a user who may read it"
    header = answer.headers.get("www-authenticate", "")
    error = registry.parse_challenge(header).error
    if answer.status == 404:
        what = f"{reference}: the registry has no such manifest (HTTP 404)"
        return TransferError(what, fix="correct the repository and the tag")
    if error == "insufficient_scope":
        what = f"{reference}: the token does not allow reading (insufficient_scope)"
        return TransferError(what, fix=as_reader)
    if answer.status in (401, 403):
        what = f"{reference}: the registry refuses access (HTTP {answer.status})"
        if presented:
            fix = as_reader
        return TransferError(what, fix=fix)
    if answer.status == 429:
        what = f"{reference}: the registry limits requests (HTTP 429)"
        return TransferError(what, fix=f"{fix}, or try later")
    return TransferError(f"{reference}: HTTP {answer.status}")
