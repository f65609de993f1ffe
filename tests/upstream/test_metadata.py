"""What publishers state about a file, from their headers and their JSON (issue 5.1)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks.catalogue.file_specs import HubFile, Release
from tasks.errors import TransferError
from tasks.upstream.metadata import (
    RemoteFile,
    explain_hub_error,
    parse_hub_headers,
    parse_license,
    parse_release,
)

from tests.support.catalogues import A64

COMMIT = "9f2d7a4be31c05868e7d0ab1c2d3e4f5a6b7c8d9"
FILE = HubFile("o/r", "main", "q/m.gguf")
PINNED = f"https://huggingface.co/o/r/resolve/{COMMIT}/q/m.gguf"
NOT_THERE = "there is no repository o/r on the Hub, or it is private"
BY = "the Hub (X-Linked-Etag)"


@pytest.mark.parametrize(
    ("headers", "stated"),
    [
        pytest.param(
            {"x-repo-commit": COMMIT, "x-linked-etag": f'"{A64}"', "x-linked-size": "5",
             "content-length": "900", "location": "https://cdn"},
            RemoteFile(PINNED, A64, 5, COMMIT, by=BY),
            id="a large file: the redirect's own length is not the file's",
        ),
        pytest.param(
            {"x-repo-commit": COMMIT, "etag": f'"{COMMIT}"', "content-length": "5"},
            RemoteFile(PINNED, None, 5, COMMIT, by=BY),
            id="a small file, which has git's digest",
        ),
        pytest.param(
            {"x-repo-commit": COMMIT, "etag": f'"{COMMIT}"', "content-length": "280", "location": "/api/"},
            RemoteFile(PINNED, None, None, COMMIT, by=BY),
            id="a small file that is elsewhere",
        ),
        pytest.param({}, RemoteFile(FILE.url, None, None, None, by=BY), id="a mirror that states nothing"),
        pytest.param(
            {"x-repo-commit": COMMIT, "x-linked-etag": f'W/"{A64.upper()}"', "x-linked-size": "-5"},
            RemoteFile(PINNED, A64, None, COMMIT, by=BY),
            id="in another form, and a size that is none",
        ),
        *(
            pytest.param(
                {"x-repo-commit": COMMIT, "x-linked-size": size},
                RemoteFile(PINNED, None, None, COMMIT, by=BY),
                id=f"size {size[:20]}",
            )
            for size in ("²", "٣", "1e999", "0", "9" * 19, "9" * 5000, "0x10", " 5", "5.0", "NaN")
        ),
        *(
            pytest.param(
                {"x-repo-commit": commit}, RemoteFile(FILE.url, by=BY), id=f"commit {commit[:20]!r}"
            )
            for commit in ("main", "../../x", COMMIT.upper(), COMMIT[:-1], COMMIT + "0", "\x1b[2J", "٣" * 40)
        ),
        *(
            pytest.param({"x-linked-etag": etag}, RemoteFile(FILE.url, by=BY), id=f"etag {etag[:20]!r}")
            for etag in ("", "x", A64[:-1], A64 + "0", "sha256:" + A64, "٣" * 64, "G" * 64)
        ),
    ],
)  # fmt: skip
def test_hub(headers: dict[str, str], stated: RemoteFile) -> None:
    """Issue 5.1: X-Repo-Commit, X-Linked-Etag and X-Linked-Size."""
    assert parse_hub_headers(FILE, headers) == stated


@pytest.mark.parametrize(
    ("status", "code", "token", "what", "remedy"),
    [
        (404, "RepoNotFound", True, NOT_THERE, True),
        (401, "RepoNotFound", False, NOT_THERE, True),
        pytest.param(401, "", False, NOT_THERE, True, id="unsaid"),
        (404, "RevisionNotFound", False, "o/r has no revision main", False),
        (404, "EntryNotFound", False, "o/r has no file q/m.gguf at main", False),
        (401, "GatedRepo", False, "o/r is gated: accept its licence on its page", True),
        (403, "GatedRepo", True, "o/r is gated: accept its licence on its page", True),
        pytest.param(401, "", True, "the Hub does not accept the token", False, id="a wrong token"),
        (404, "", False, "", False),
        (500, "SomethingNew", False, "", False),
    ],
)  # fmt: skip
def test_refusals_of_the_hub(status: int, code: str, token: bool, what: str, remedy: bool) -> None:
    """Issue 5.1: what is missing in words; the remedy where a token would help."""
    said, fix = explain_hub_error(FILE, status, {"x-error-code": code} if code else {}, token)
    assert said == what
    assert ("set HF_TOKEN to a token" in fix) is remedy
    assert not (token and not code and status == 401) or "another HF_TOKEN" in fix


RELEASE = Release("https", "github.com", "o/r", "0.10.5", "llamafile-0.10.5")
URL = "https://github.com/o/r/releases/download/0.10.5/llamafile-0.10.5"


def github(tag: str = "0.10.5", **changes: Any) -> dict[str, Any]:
    asset = {"name": "llamafile-0.10.5", "size": 9, "digest": f"sha256:{A64}", "browser_download_url": URL}
    other = {**asset, "name": "other", "digest": None}
    return {"tag_name": tag, "assets": [other, {**asset, **changes}]}


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(github(), (A64, 9, "0.10.5"), id="a digest"),
        pytest.param(github(tag="v0.10.5"), (A64, 9, "0.10.5"), id="a tag with a v"),
        pytest.param(github(digest=None), (None, 9, "0.10.5"), id="from before June 2025: none"),
        pytest.param(github(digest=f"sha512:{A64 * 2}"), (None, 9, "0.10.5"), id="another algorithm"),
        pytest.param(github(name="x"), None, id="no such file"),
        pytest.param(github(size="many"), None, id="a size that is none"),
        # security 18: nothing is written that cannot be read again, and no path of this machine
        *(
            pytest.param(github(size=size), None, id=f"size {str(size)[:20]}")
            for size in (-5, 0, True, 1.5, float("inf"), float("nan"), 1 << 44, 10**400, None, [9])
        ),
        *(
            pytest.param(github(browser_download_url=url), None, id=f"url {url!r}")
            for url in (
                "",
                " ",
                "javascript:alert(1)",
                "/etc/shadow",
                "file:///etc/shadow",
                "shadow",
                "C:\\x",
                None,
                5,
                "https://",
                "https://h",
                "https://h/",
                "https://h/a b",
                "https://h/\ud800",
                "https://h/\x1b[2J",
                "https://u:p@h/x",
                "https://[::1/x",
                "ftp://h/x",
                "https://h:99999/x",
                "https://h/\u2028x",
            )
        ),
        pytest.param(
            github(browser_download_url="http://h/x", digest=None), None, id="in the clear, unpinned"
        ),
        pytest.param(github(tag=5), None, id="a tag that is a number"),  # type: ignore[arg-type]
        pytest.param({"tag_name": "0.10.5", "assets": {"name": "x"}}, None, id="assets that are no list"),
        pytest.param({"tag_name": "0.10.5", "assets": ["x", None, 5]}, None, id="assets of another kind"),
        pytest.param({"message": "Not Found"}, None, id="another answer"),
        pytest.param([1], None, id="a list"),
    ],
)
def test_github(data: Any, expected: tuple[str | None, int, str] | None) -> None:
    """Issue 5.1: the digest of a release's asset."""
    found = parse_release(RELEASE, data)
    assert (found and (found.sha256, found.size, found.version)) == expected
    assert found is None or found.url == URL


@pytest.mark.parametrize(("tag", "version"), [("0.10.5", "0.10.5"), ("v0.10.5", "0.10.5")])
def test_the_latest(tag: str, version: str) -> None:
    """R16: the file of the newest release is named after its version."""
    wanted = RELEASE._replace(tag="{version}", asset="llamafile-{version}")
    found = parse_release(wanted, github(tag=tag))
    assert found is not None
    assert (found.version, found.sha256, found.url) == (version, A64, URL)


@pytest.mark.parametrize("tag", ["x/../../../victim/by_tag", "..", "", "-1", "1\\2", "1\n", "C:1"])
def test_a_tag_that_cannot_be_a_version(tag: str) -> None:
    """Finding 2: the tag of the latest release becomes a file's name; of a pinned release it does not."""
    wanted = RELEASE._replace(tag="{version}", asset="llamafile-{version}")
    with pytest.raises(TransferError, match=r"the latest release of o/r is tagged .*expected a version"):
        parse_release(wanted, github(tag=tag))
    assert parse_release(RELEASE, github(tag=tag)) is not None


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["tag_name", "assets", "name", "size"]), inner)
    ),
)


@given(anything, anything)
def test_whatever_github_says(data: Any, asset: Any) -> None:
    """Issue 5.1: an answer that nobody foresaw is none."""
    assert parse_release(RELEASE, data) is None
    parse_release(RELEASE, {"tag_name": "1", "assets": asset})


@pytest.mark.parametrize(
    "data",
    [
        None, [], "text", 5, {"tags": 5}, {"tags": "license:mit"}, {"tags": [5, None, ["license:x"]]},
        {"cardData": []}, {"cardData": {"license": 5, "license_name": ["x"]}}, {"license": {"spdx_id": 5}},
        {"license": {"spdx_id": "a\n::error::b"}}, {"tags": ["license:\x1b[2J"]},
        {"tags": ["license:\ud800"]},
        {"cardData": {"license": "x" * 201}},
    ],
)  # fmt: skip
def test_a_licence_that_is_none(data: Any) -> None:
    """Security 18, 26: of another type, of several lines, or much too long."""
    assert parse_license(data) == ""


@given(anything)
def test_whatever_names_a_licence(data: Any) -> None:
    """Security 26: never an exception, always one line."""
    assert "\n" not in parse_license({"tags": data, "cardData": data, "license": data})
