"""What a registry's answer means, as tables."""

from __future__ import annotations

import json

import pytest
from tasks.publish import answers
from tasks.publish.answers import Ask, Verdict

V = Verdict
BASE = "https://r.example/v2/team/m"
URL = f"{BASE}/blobs/uploads/"


@pytest.mark.parametrize(
    ("ask", "status", "code", "meaning"),
    [
        (Ask.FIND, 200, "", V.DONE),
        (Ask.FIND, 307, "", V.DONE),  # to the store that has it
        (Ask.FIND, 301, "", V.REFUSED),
        (Ask.FIND, 404, "BLOB_UNKNOWN", V.ABSENT),
        (Ask.FIND, 403, "DENIED", V.REFUSED),
        (Ask.TAG, 404, "MANIFEST_UNKNOWN", V.ABSENT),
        (Ask.START, 202, "", V.DONE),
        (Ask.START, 201, "", V.REFUSED),  # only a mount can be complete
        (Ask.START, 200, "", V.REFUSED),  # a login page
        (Ask.START, 404, "NAME_UNKNOWN", V.REFUSED),
        (Ask.START, 307, "", V.REFUSED),
        (Ask.MOUNT, 201, "", V.DONE),
        (Ask.MOUNT, 202, "", V.DONE),
        (Ask.MOUNT, 404, "", V.REFUSED),
        (Ask.PIECE, 202, "", V.DONE),
        (Ask.PIECE, 413, "", V.SMALLER),
        (Ask.PIECE, 416, "", V.UNSURE),
        (Ask.PIECE, 404, "BLOB_UPLOAD_UNKNOWN", V.LOST),
        (Ask.PIECE, 400, "BLOB_UPLOAD_INVALID", V.LOST),
        (Ask.PIECE, 405, "UNSUPPORTED", V.REFUSED),
        (Ask.PIECE, 507, "", V.REFUSED),
        (Ask.STATUS, 204, "", V.DONE),
        (Ask.STATUS, 404, "BLOB_UPLOAD_INVALID", V.LOST),
        (Ask.FINISH, 201, "", V.DONE),
        (Ask.FINISH, 200, "", V.REFUSED),
        (Ask.FINISH, 400, "DIGEST_INVALID", V.MISMATCH),
        (Ask.FINISH, 400, "BLOB_UPLOAD_INVALID", V.LOST),
        (Ask.FINISH, 404, "BLOB_UPLOAD_UNKNOWN", V.LOST),
        (Ask.MANIFEST, 201, "", V.DONE),
        (Ask.MANIFEST, 200, "", V.REFUSED),
        (Ask.MANIFEST, 400, "MANIFEST_BLOB_UNKNOWN", V.REFUSED),
        *((ask, status, "", V.RETRY) for ask in Ask for status in (408, 429, 500, 502, 503, 504)),
        *((ask, 401, "UNAUTHORIZED", V.REFUSED) for ask in Ask),
    ],
)
def test_verdict(ask: Ask, status: int, code: str, meaning: Verdict) -> None:
    assert answers.verdict(ask, status, code) is meaning


@pytest.mark.parametrize(
    ("ask", "status", "code", "what", "fix"),
    [
        (
            Ask.START,
            401,
            "",
            "r.example does not let you push to team/m (HTTP 401)",
            "docker login r.example",
        ),
        (Ask.START, 403, "DENIED", "push to team/m (HTTP 403 DENIED)", "as a user who may push"),
        (
            Ask.START,
            404,
            "NAME_UNKNOWN",
            "r.example refuses an upload (HTTP 404 NAME_UNKNOWN)",
            "create the rep",
        ),
        (Ask.PIECE, 405, "", "refuses a part of a file (HTTP 405)", "a mirror of another one?"),
        (Ask.PIECE, 413, "", "refuses a part of a file (HTTP 413)", "client_max_body_size"),
        (Ask.START, 307, "", "redirects a write to cdn.example (HTTP 307)", "name that host"),
        (Ask.START, 407, "", "the proxy wants a password", "HTTPS_PROXY"),
        (Ask.MANIFEST, 404, "MANIFEST_BLOB_UNKNOWN", "refuses the manifest", "push again"),
        (Ask.MANIFEST, 400, "MANIFEST_INVALID", "refuses the manifest (HTTP 400 MANIFEST_INVALID)", ""),
    ],
)
def test_refusal(ask: Ask, status: int, code: str, what: str, fix: str) -> None:
    got = answers.refusal(ask, status, code, "r.example", "team/m", "https://cdn.example/x")
    assert what in got.what
    assert fix in got.fix


@pytest.mark.parametrize(
    ("header", "count", "by_status"),
    [
        ("0-99", 100, 100),
        ("bytes=0-99", 100, 100),
        ("0-0", 1, 0),  # docker-registry says this of an empty upload
        ("", None, None),
        ("5-99", None, None),
        ("0--1", None, None),
        (f"0-{10**30}", None, None),
    ],
)
def test_stored(header: str, count: int | None, by_status: int | None) -> None:
    headers = {"range": header}
    assert (answers.stored(headers), answers.stored_by_status(headers)) == (count, by_status)


@pytest.mark.parametrize(
    ("base", "location", "place", "problem"),
    [
        (BASE, f"{URL}1?state=x", f"{URL}1?state=x", ""),
        (BASE, "/v2/team/m/blobs/uploads/1", f"{URL}1", ""),
        (BASE, "https://store.example/put?sig=1", "https://store.example/put?sig=1", ""),
        (BASE, "http://r.example/v2/x", "https://r.example/v2/x", ""),  # behind a proxy that ends TLS
        (BASE, f"{URL}1?next=http://x", f"{URL}1?next=http://x", ""),
        (BASE, "http://s.example/v2/", "http://s.example/v2/", "is not https"),
        (BASE, "https://169.254.169.254/latest", "https://169.254.169.254/latest", "internal address"),
        (BASE, "https://localhost/x", "https://localhost/x", "internal address"),
        (BASE, "https://me:pw@r.example/x", "https://me:pw@r.example/x", "no user or password"),
        (BASE, "file:///etc/passwd", "file:///etc/passwd", "is not https"),
        (BASE, "https://[bad/x", "", "not a URL"),
        (BASE, "/" + "x" * 20_000, "", "exceeds"),
        (BASE, "", "", "no Location"),
        ("http://127.0.0.1:5/v2/m", "http://127.0.0.1:6/x", "http://127.0.0.1:6/x", ""),
        ("http://127.0.0.1:5/v2/m", "http://localhost:6/x", "http://localhost:6/x", "is not https"),
    ],
)
def test_next_place(base: str, location: str, place: str, problem: str) -> None:
    got, why = answers.next_place({"location": location}, f"{base}/blobs/uploads/", base)
    assert got == place
    assert bool(why) == bool(problem)
    assert problem in why


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"errors": [{"code": "DENIED", "message": "no"}]}, "DENIED"),
        ({"errors": []}, ""),
        ({"errors": [{"code": "\x1b[31m"}]}, ""),
        ([], ""),
        ("<html>", ""),
    ],
)
def test_error_code(body: object, code: str) -> None:
    assert answers.error_code(json.dumps(body).encode()) == code


def test_the_rest() -> None:
    """One row each."""
    assert "to another address" in answers.refusal(Ask.START, 307, "", "r", "m", "https://[x").what
    assert " to h.example " in answers.refusal(Ask.START, 307, "", "r", "m", "//me:pw@h.example/").what
    assert answers.least_piece({}) == 0
    assert answers.least_piece({"oci-chunk-min-length": "5242880"}) == 5_242_880
    assert answers.least_piece({"oci-chunk-min-length": str(10**15)}) == 0
    assert answers.with_digest("https://r/u?s=1", "sha256:x") == "https://r/u?s=1&digest=sha256:x"
    assert answers.with_digest("https://r/u", "sha256:x") == "https://r/u?digest=sha256:x"
    assert answers.wrong_digest({"docker-content-digest": "sha256:y"}, "sha256:x") == "sha256:y"
    assert answers.wrong_digest({"docker-content-digest": "sha512:y"}, "sha256:x") == ""
    assert answers.is_same_host("https://r/a", "https://r/b")
    assert not answers.is_same_host("https://r:444/a", "https://r/b")
    assert not answers.is_same_host("http://r/a", "https://r/b")
