"""`doit download` as people type it: what it reaches, what it asks, what it refuses, what it shows."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer, NoLength, Redirect
from tests.support.project import Project
from tests.support.terminal import ANSI, bars, on_terminal

DATA = noise(b"one", 300_000)
TWO = noise(b"two", 200_000)
THREE = noise(b"three", 100_000)
NAME = "m.llamafile"
URL_DIR = re.compile(r"url-[0-9a-f]{16}")

posix = pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as server:
        server.files |= {"/one.llamafile": DATA, "/two.llamafile": TWO, "/three.llamafile": THREE}
        yield server


@pytest.fixture
def catalogue(project: Project, server: FileServer) -> Project:
    """Three pinned models; `one` is the default."""
    files = {"one": DATA, "two": TWO, "three": THREE}
    aliases = {"one": ["first"], "two": ["Second", "zwei"], "three": []}
    project.catalogue(
        {
            name: project.entry(server.url(f"/{name}.llamafile"), data, aliases=aliases[name])
            for name, data in files.items()
        }
    )
    return project


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The directory of a user who is not in the project's."""
    path = tmp_path / "else where"
    path.mkdir()
    return path


def fetched(server: FileServer) -> list[str]:
    """What the server was asked for, in order."""
    return [request.path for request in server.requests]


def models(project: Project) -> dict[str, bytes]:
    """Every model file in the cache, by name; stamps left out."""
    found = sorted((project.cache / "models").rglob("*")) if project.cache.exists() else []
    return {path.name: path.read_bytes() for path in found if path.is_file() and path.suffix != ".json"}


# Which models


def test_download_means_the_default_model(catalogue: Project, server: FileServer) -> None:
    """R1, R25: the default alone, at its place in the cache, and stdout stays empty."""
    result = catalogue.doit("download")
    assert (result.status, result.out) == (0, "")
    assert fetched(server) == ["/one.llamafile"]
    assert catalogue.target(DATA, "one.llamafile").read_bytes() == DATA
    assert list(models(catalogue)) == ["one.llamafile"]
    lines = result.err.splitlines()
    assert lines[0] == ".  download:one"
    assert re.fullmatch(r"one: 300\.0 kB in .* from 127\.0\.0\.1, sha256 verified", lines[1])
    assert re.fullmatch(r"   download:one took .*s", lines[2])


@pytest.mark.parametrize(
    ("args", "names"),
    [
        pytest.param(["download:two"], ["two"], id="sub-task"),
        pytest.param(["download", "--model", "two"], ["two"], id="--model"),
        pytest.param(["download:ZWEI"], ["two"], id="alias in capitals"),
        pytest.param(["download", "--model", "secOND"], ["two"], id="--model alias in any case"),
        pytest.param(["download:Two"], ["two"], id="name in any case"),
        pytest.param(["download", "--model", "one", "--model", "three"], ["one", "three"], id="two models"),
        pytest.param(["download:two", "download:first"], ["two", "one"], id="two sub-tasks"),
        pytest.param(["download", "--model", "two", "--model", "Zwei"], ["two"], id="one model twice"),
        pytest.param(["download", "--model", "t*"], ["two", "three"], id="pattern"),
    ],
)
def test_only_what_is_named(
    catalogue: Project, server: FileServer, args: list[str], names: list[str]
) -> None:
    """R38: names and aliases, in any case; never the whole catalogue."""
    result = catalogue.doit(*args)
    assert result.status == 0
    assert fetched(server) == [f"/{name}.llamafile" for name in names]
    assert sorted(models(catalogue)) == sorted(f"{name}.llamafile" for name in names)
    assert [line for line in result.err.splitlines() if line.startswith(".  ")] == [
        f".  download:{name}" for name in names
    ]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        pytest.param(["download:thre"], "did you mean three?", id="sub-task"),
        pytest.param(["download", "--model", "secnod"], "did you mean second?", id="--model"),
        pytest.param(["download", "--model", "one", "--model", "xyz"], "`doit` shows the models", id="far"),
    ],
)
def test_an_unknown_model_is_a_clean_error(
    catalogue: Project, server: FileServer, args: list[str], says: str
) -> None:
    """R14: before anything is downloaded, with the nearest names."""
    result = catalogue.doit(*args)
    assert (result.status, result.out) == (3, "")
    assert "there is no model" in result.err
    assert says.lower() in result.err.lower()
    assert (fetched(server), models(catalogue)) == ([], {})


# A file of one's own


def test_a_url_alone_names_the_file(catalogue: Project, server: FileServer) -> None:
    """R3: the last segment of the path, decoded, without query and fragment."""
    server.files["/dir/my möd.llamafile"] = DATA
    option = f"--llamafile-url={server.url('/dir/my möd.llamafile')}?download=true#top"
    result = catalogue.doit("download", option)
    assert result.status == 0
    assert models(catalogue) == {"my möd.llamafile": DATA}
    folder = next((catalogue.cache / "models").iterdir())
    assert URL_DIR.fullmatch(folder.name)
    assert server.requests[0].query == "download=true"
    assert f"not pinned; its sha256 is {sha256(DATA)}" in result.err
    again = catalogue.doit("download", option)
    assert again.status == 0
    assert again.err.startswith("-- download:my-m")
    assert len(server.requests) == 1


def test_the_old_spelling(catalogue: Project, server: FileServer) -> None:
    """R2: --llamafile_url, as in the reference script."""
    server.files["/x.llamafile"] = DATA
    result = catalogue.doit("download", "--llamafile_url", server.url("/x.llamafile"))
    assert (result.status, models(catalogue)) == (0, {"x.llamafile": DATA})


@pytest.mark.parametrize(
    ("url", "says"),
    [
        pytest.param("https://h.example/model.bin", "--llamafile NAME.gguf (or NAME.llamafile)", id="ending"),
        pytest.param("https://h.example/", "expected one ending in .llamafile or .gguf", id="no name"),
        pytest.param("ftp://h.example/m.llamafile", "expected https://", id="ftp"),
        pytest.param("https:///m.llamafile", "has no host", id="no host"),
        pytest.param("https://me:pw@h.example/m.llamafile", "no user or password", id="password"),
        pytest.param("http://h.example/m.llamafile", "add --sha256 HEX", id="plain http"),
    ],
)
def test_a_url_is_checked_before_anything_is_asked(catalogue: Project, url: str, says: str) -> None:
    """R3, R22, R29: scheme, host, syntax and name; the remedy is said, and no password is repeated."""
    result = catalogue.doit("download", f"--llamafile-url={url}")
    assert (result.status, result.out) == (3, "")
    assert says in result.err
    assert "pw" not in result.err
    assert models(catalogue) == {}


def test_a_path_is_seen_from_where_the_user_is(
    catalogue: Project, server: FileServer, elsewhere: Path
) -> None:
    """R2, R6, R12: downloaded to PATH once, from any directory; a present file is not asked for again."""
    server.files["/anything"] = DATA
    args = ("download", "--llamafile", "sub/mine.llamafile", "--llamafile-url", server.url("/anything"))
    first = catalogue.doit(*args, cwd=elsewhere)
    assert (first.status, (elsewhere / "sub" / "mine.llamafile").read_bytes()) == (0, DATA)
    assert os.listdir(elsewhere / "sub") == ["mine.llamafile"]
    assert models(catalogue) == {}
    second = catalogue.doit(*args, cwd=elsewhere)
    assert (second.status, second.err) == (0, "-- download:mine\n")
    third = catalogue.doit("download", "--llamafile", str(elsewhere / "sub" / "mine.llamafile"))
    assert (third.status, third.err) == (0, "-- download:mine\n")
    assert fetched(server) == ["/anything"]


def test_a_missing_file_without_a_url(catalogue: Project, elsewhere: Path) -> None:
    """R5: the option to pass, and that it is needed once."""
    result = catalogue.doit("download", "--llamafile", "none.llamafile", cwd=elsewhere)
    assert result.status == 1
    assert f"no such file: {elsewhere / 'none.llamafile'}" in result.err
    assert "say where to download it from: --llamafile-url URL" in result.err
    assert os.listdir(elsewhere) == []


def test_a_present_file_is_taken_as_it_is(catalogue: Project, server: FileServer, elsewhere: Path) -> None:
    """R6: read once, then not even that; its bytes, mode and time are never touched."""
    mine = elsewhere / "mine.llamafile"
    mine.write_bytes(DATA)
    before = mine.stat()
    args = ("download", "--llamafile", "mine.llamafile", "--llamafile-url", server.url("/one.llamafile"))
    for _ in range(2):
        result = catalogue.doit(*args, cwd=elsewhere)
        assert (result.status, result.err) == (0, "-- download:mine\n")
    after = mine.stat()
    for name in ("st_mtime_ns", "st_mode", "st_ino", "st_size"):
        assert getattr(after, name) == getattr(before, name)
    assert (fetched(server), os.listdir(elsewhere)) == ([], ["mine.llamafile"])


def test_a_present_file_with_its_digest_is_read_once(
    catalogue: Project, server: FileServer, elsewhere: Path
) -> None:
    """R6, R21: --sha256 is proven of what is there; then a stat call suffices, until it changes."""
    mine = elsewhere / "mine.llamafile"
    mine.write_bytes(DATA)
    args = ("download", "--llamafile", "mine.llamafile", "--sha256", sha256(DATA))
    first = catalogue.doit(*args, cwd=elsewhere)
    assert first.status == 0
    assert "mine: verifying the existing file" in first.err
    assert "mine: the digest is correct, nothing is downloaded" in first.err
    assert catalogue.doit(*args, cwd=elsewhere).err == "-- download:mine\n"
    mine.write_bytes(TWO)
    assert catalogue.doit(*args, cwd=elsewhere).status == 1
    assert (mine.read_bytes(), os.listdir(elsewhere)) == (TWO, ["mine.llamafile"])


def test_a_file_of_the_users_may_change(catalogue: Project, server: FileServer, elsewhere: Path) -> None:
    """R6: outside the cache, and pinned by nothing, it is the user's to change, downloaded once or not."""
    args = ("download", "--llamafile", "mine.llamafile", "--llamafile-url", server.url("/one.llamafile"))
    catalogue.doit(*args, cwd=elsewhere)
    (elsewhere / "mine.llamafile").write_bytes(TWO)
    result = catalogue.doit(*args, cwd=elsewhere)
    assert (result.status, result.err) == (0, "-- download:mine\n")
    assert (elsewhere / "mine.llamafile").read_bytes() == TWO
    assert len(server.requests) == 1


# --sha256


@pytest.mark.parametrize("spelling", ["{}", "sha256:{}", "upper"])
def test_the_right_digest(catalogue: Project, server: FileServer, spelling: str) -> None:
    """R21: as plain hexadecimal, in any case, or as digests are written elsewhere."""
    digest = sha256(DATA).upper() if spelling == "upper" else spelling.format(sha256(DATA))
    server.files["/x.llamafile"] = DATA
    result = catalogue.doit("download", "--llamafile-url", server.url("/x.llamafile"), "--sha256", digest)
    assert result.status == 0
    assert "sha256 verified" in result.err
    assert catalogue.target(DATA, "x.llamafile").read_bytes() == DATA


def test_the_wrong_digest(catalogue: Project, server: FileServer) -> None:
    """R21: expected and got are named, and nothing is kept."""
    server.files["/x.llamafile"] = DATA
    url = server.url("/x.llamafile")
    result = catalogue.doit("download", "--llamafile-url", url, "--sha256", sha256(TWO))
    assert result.status == 1
    assert f"expected: sha256:{sha256(TWO)}" in result.err
    assert f"got: sha256:{sha256(DATA)}" in result.err
    assert models(catalogue) == {}


@pytest.mark.parametrize("digest", ["", "g" * 64, "md5:" + "0" * 32])
def test_a_malformed_digest(catalogue: Project, server: FileServer, digest: str) -> None:
    """R21: what is expected is said before anything is asked for."""
    result = catalogue.doit("download", "--llamafile-url", server.url("/x.llamafile"), f"--sha256={digest}")
    assert result.status == 3
    assert "--sha256: expected 64 hexadecimal digits" in result.err
    assert fetched(server) == []


def test_a_digest_of_nothing(catalogue: Project, server: FileServer) -> None:
    """R21: a catalogued model has its own."""
    result = catalogue.doit("download", "--sha256", sha256(DATA))
    assert result.status == 3
    assert "--sha256 requires --llamafile or --llamafile-url" in result.err
    assert fetched(server) == []


@pytest.mark.parametrize("with_url", [False, True], ids=["no URL", "URL"])
def test_a_present_file_with_another_digest_is_refused_and_left_alone(
    catalogue: Project, server: FileServer, elsewhere: Path, with_url: bool
) -> None:
    """R6, R21: neither replaced nor accepted, in every run."""
    mine = elsewhere / "mine.llamafile"
    mine.write_bytes(TWO)
    before = mine.stat().st_mtime_ns
    url = ["--llamafile-url", server.url("/one.llamafile")] if with_url else []
    for _ in range(2):
        result = catalogue.doit("download", "--llamafile", str(mine), "--sha256", sha256(DATA), *url)
        assert result.status == 1
        assert "mine is not the file you asked for" in result.err
        assert f"expected: sha256:{sha256(DATA)}" in result.err
    assert (mine.read_bytes(), mine.stat().st_mtime_ns) == (TWO, before)
    assert (fetched(server), os.listdir(elsewhere)) == ([], ["mine.llamafile"])


# Another source for a catalogued model (R4)


@contextmanager
def other_source(data: bytes) -> Iterator[tuple[FileServer, str]]:
    """A second server that has `one`, or says so."""
    with FileServer() as other:
        other.files["/one.llamafile"] = data
        yield other, other.url("/one.llamafile")


def test_without_a_terminal_another_source_is_refused(catalogue: Project, server: FileServer) -> None:
    """R4: it does not hang; it names the model, both URLs and --yes, and changes nothing."""
    with other_source(DATA) as (other, url):
        result = catalogue.doit("download", "--llamafile-url", url, timeout=10)
        assert result.status == 1
        for part in ("the catalogue's URL of one is", server.url("/one.llamafile"), url, "pass --yes"):
            assert part in result.err
        assert (fetched(server), fetched(other), models(catalogue)) == ([], [], {})


@pytest.mark.parametrize(
    "args",
    [
        pytest.param(["download", "--yes"], id="by the file's name"),
        pytest.param(["download", "--model", "one", "--yes"], id="--model"),
        pytest.param(["download:first", "--yes"], id="sub-task"),
    ],
)
def test_yes_downloads_from_there(catalogue: Project, server: FileServer, args: list[str]) -> None:
    """R4: the same file at the same place, verified, and no source but that one."""
    with other_source(DATA) as (other, url):
        result = catalogue.doit(*args, "--llamafile-url", url)
        assert result.status == 0
        assert "sha256 verified" in result.err
        assert catalogue.target(DATA, "one.llamafile").read_bytes() == DATA
        assert (fetched(server), fetched(other)) == ([], ["/one.llamafile"])


def test_yes_does_not_mean_other_bytes(catalogue: Project, server: FileServer) -> None:
    """R4, R21: another source is held to the catalogue's digest."""
    with other_source(DATA[::-1]) as (_, url):
        result = catalogue.doit("download", "--llamafile-url", url, "--yes")
    assert result.status == 1
    assert f"expected: sha256:{sha256(DATA)}" in result.err
    assert (fetched(server), models(catalogue)) == ([], {})


def test_the_catalogues_own_url_asks_nothing(catalogue: Project, server: FileServer) -> None:
    """R4: there is nothing to confirm."""
    result = catalogue.doit("download", "--llamafile-url", server.url("/one.llamafile"))
    assert (result.status, fetched(server)) == (0, ["/one.llamafile"])


def test_a_present_model_asks_nothing(catalogue: Project) -> None:
    """R4, R6: nothing is downloaded, so from where does not matter."""
    catalogue.doit("download")
    with other_source(DATA) as (other, url):
        result = catalogue.doit("download", "--llamafile-url", url)
        assert (result.status, result.err) == (0, "-- download:one\n")
        assert fetched(other) == []


@posix
@pytest.mark.parametrize("answer", ["y", "YES"])
def test_on_a_terminal_the_answer_yes(catalogue: Project, server: FileServer, answer: str) -> None:
    """R4: asked once, with the model and both URLs; then downloaded from there."""
    with other_source(DATA) as (other, url):
        result = on_terminal(catalogue, "download", "--llamafile-url", url, typed=f"{answer}\n")
        assert (result.status, result.out) == (0, "")
        assert result.err.count("Download from the requested URL? [y/N]") == 1
        assert server.url("/one.llamafile") in result.err
        assert (fetched(server), fetched(other)) == ([], ["/one.llamafile"])
    assert catalogue.target(DATA, "one.llamafile").read_bytes() == DATA


@posix
@pytest.mark.parametrize("answer", ["n\n", "\n", "\x04"], ids=["n", "nothing", "end of file"])
def test_on_a_terminal_the_answer_no(catalogue: Project, server: FileServer, answer: str) -> None:
    """R4: ends without a change."""
    with other_source(DATA) as (other, url):
        result = on_terminal(catalogue, "download", "--llamafile-url", url, typed=answer)
        assert result.status == 1
        assert "cancelled: nothing was downloaded" in result.err
        assert (fetched(server), fetched(other), models(catalogue)) == ([], [], {})


# Plain http (R29)


@contextmanager
def second_address(data: bytes) -> Iterator[tuple[str, list[str]]]:
    """An http server that is not on one of the three names of this machine; its URL, and what was asked."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    try:
        httpd = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler)
    except OSError:
        pytest.skip("this system has one loopback address")
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.2:{httpd.server_address[1]}/x.llamafile", asked
    finally:
        httpd.shutdown()
        httpd.server_close()


def test_plain_http_needs_a_digest(catalogue: Project) -> None:
    """R29: refused before a request; with a digest it is as good as any."""
    with second_address(DATA) as (url, asked):
        refused = catalogue.doit("download", "--llamafile-url", url)
        assert (refused.status, asked) == (3, [])
        assert "plain http is allowed only with a sha256" in refused.err
        assert "add --sha256 HEX" in refused.err
        result = catalogue.doit("download", "--llamafile-url", url, "--sha256", sha256(DATA))
        assert (result.status, models(catalogue)) == (0, {"x.llamafile": DATA})


def test_plain_http_behind_a_redirect_needs_a_digest(catalogue: Project, server: FileServer) -> None:
    """R29: the redirect is not followed: that host gets no request."""
    with second_address(DATA) as (url, asked):
        server.always("/x.llamafile", Redirect(url))
        args = ("download", "--llamafile-url", server.url("/x.llamafile"))
        refused = catalogue.doit(*args)
        assert (refused.status, asked, models(catalogue)) == (1, [], {})
        assert f"a redirect to {url}: plain http is allowed only with a sha256" in refused.err
        assert catalogue.doit(*args, "--sha256", sha256(DATA)).status == 0
        assert len(asked) == 1


def test_localhost_is_this_machine(catalogue: Project, server: FileServer) -> None:
    """R29: loopback is excepted, by each of its names."""
    server.files["/x.llamafile"] = DATA
    with FileServer() as front:
        front.always("/x.llamafile", Redirect(server.url("/x.llamafile", host="localhost")))
        result = catalogue.doit("download", "--llamafile-url", front.url("/x.llamafile"))
    assert (result.status, models(catalogue)) == (0, {"x.llamafile": DATA})


# Files of this machine


@pytest.mark.parametrize("form", ["relative path", "absolute path", "file URL"])
def test_a_local_source(project: Project, elsewhere: Path, form: str) -> None:
    """R12, R21, R37: a relative path is seen from models.yaml, whatever the user's directory."""
    source = project.path / "models" / NAME
    source.parent.mkdir()
    source.write_bytes(DATA)
    urls = {"relative path": f"models/{NAME}", "absolute path": str(source), "file URL": source.as_uri()}
    project.catalogue({"m": project.entry(urls[form], DATA)})
    result = project.doit("download", cwd=elsewhere)
    assert result.status == 0, result.err
    taken = r"m: 300\.0 kB in .* from this machine, sha256 verified"
    assert re.search(taken, result.err), result.err
    assert project.target(DATA, NAME).read_bytes() == DATA
    assert project.doit("download").err == "-- download:m\n"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        pytest.param(None, "No such file or directory", id="missing"),
        pytest.param(DATA[::-1], "wrong SHA-256", id="other bytes"),
        pytest.param(DATA[:-1], "wrong length: 299999 bytes, expected 300000", id="too short"),
    ],
)
def test_a_local_source_that_is_not_it(project: Project, data: bytes | None, says: str) -> None:
    """R19, R21: named with its path, at once."""
    if data is not None:
        (project.path / NAME).write_bytes(data)
    project.catalogue({"m": project.entry(NAME, DATA)})
    result = project.doit("download", timeout=10)
    assert result.status == 1
    assert says in result.err
    assert str(project.path / NAME) in result.err
    assert models(project) == {}


def test_a_path_as_llamafile_url(catalogue: Project, tmp_path: Path) -> None:
    """R2, R12: seen from where the user is."""
    (tmp_path / "mine.llamafile").write_bytes(DATA)
    result = catalogue.doit("download", "--llamafile-url", "mine.llamafile", cwd=tmp_path)
    assert (result.status, models(catalogue)) == (0, {"mine.llamafile": DATA})


# What is shown (R7)


@posix
def test_a_terminal_gets_a_bar(project: Project, server: FileServer) -> None:
    """R7: percent, done/total, rate and time left; it grows, and ends at 100 %."""
    data = noise(b"bar", 2_000_000)
    server.files["/bar.llamafile"] = data
    server.set_rate("/bar.llamafile", 1_500_000)
    project.catalogue({"m": project.entry(server.url("/bar.llamafile"), data)})
    result = on_terminal(project, "download")
    assert result.status == 0
    states = bars(result.err)
    full = re.compile(r"m .* (\d+) % ([\d.]+/2\.0 MB|[\d.]+/2,000\.0 kB) [\d.]+ [kM]B/s 00:0\d$")
    assert any(full.match(state) for state in states), states
    percents = [int(found[1]) for state in states if (found := re.search(r"(\d+) %", state))]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    assert len(set(percents)) > 3
    assert "2.00 MB in " in ANSI.sub("", result.err)


@posix
def test_a_bar_of_unknown_size(project: Project, server: FileServer) -> None:
    """R7: bytes and rate; no percent is made up."""
    data = noise(b"bar", 1_500_000)
    server.files["/bar.llamafile"] = data
    server.always("/bar.llamafile", NoLength())
    server.set_rate("/bar.llamafile", 1_500_000)
    project.catalogue({"m": project.entry(server.url("/bar.llamafile"))})
    result = on_terminal(project, "download", "--yes")
    assert result.status == 0
    states = bars(result.err)
    assert any(re.search(r"[\d.]+/\? [kM]B [\d.]+ [kM]B/s", state) for state in states), states
    assert not any("%" in state for state in states if "/?" in state)
    assert not any(re.search(r"\b\d?\d %", state) for state in states)  # at the end it is 100 %


def test_a_pipe_gets_lines(catalogue: Project) -> None:
    """R35: no control characters, no carriage returns."""
    result = catalogue.doit("download")
    assert not set(result.err) & {"\x1b", "\r"}


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for doit")
def test_a_full_quota_is_said_and_survived(catalogue: Project, server: FileServer, tmp_path: Path) -> None:
    """R19: a limit of the system, in its words, with the remedy; then the same command goes on."""
    real = catalogue.doit_program
    limited = tmp_path / "doit-limited"
    limited.write_text(f'#!/bin/sh\nulimit -f 256\nexec "{real}" "$@"\n')  # blocks of 512 bytes
    limited.chmod(0o755)
    catalogue.doit_program = str(limited)
    result = catalogue.doit("download")
    assert result.status == 1
    assert "one: cannot write: File too large" in result.err
    assert "LLAMAFILE_CACHE" in result.err
    assert not catalogue.target(DATA, "one.llamafile").exists()
    catalogue.doit_program = real
    assert catalogue.doit("download").status == 0
    start = server.requests[-1].range
    assert start
    assert 0 < start[0] <= 256 * 1024
