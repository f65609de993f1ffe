"""`doit add`: an entry for a file is written into models.yaml, pinned (issue 5.3)."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes.github import GitHub
from tests.fakes.hub_site import HubSite
from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer
from tests.support.project import REPO, Project, Result

DEMO = (REPO / "demo" / "demo.gguf").read_bytes()
DATA = noise(b"add", 100_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = "Tiny-1B-Chat.Q4_K_M.gguf"
TOKEN = "hf_aVerySecretTokenOfOurs"
CATALOGUE = """\
# Our models. This comment stays.
version: 1
default: old

models:

  old:
    title: Old 1B
    url: https://example.org/old.gguf
    license: MIT
    engine: embedded  # as does this one

engines:
  embedded: {title: llama.cpp, license: MIT}
"""


@pytest.fixture
def ours(project: Project) -> Project:
    """A project with a catalogue of its own, in the hand of a person."""
    (project.path / "models.yaml").write_text(CATALOGUE, "utf-8")
    return project


@pytest.fixture
def site(ours: Project) -> Iterator[HubSite]:
    """The Hub at HF_ENDPOINT."""
    with HubSite() as site:
        ours.env["HF_ENDPOINT"] = site.endpoint
        yield site


def text(project: Project) -> str:
    return (project.path / "models.yaml").read_text("utf-8")


def added(project: Project, result: Result, name: str) -> dict[str, Any]:
    """The new entry; everything else is as it was, byte for byte, and the report shows what was written."""
    assert result.status == 0, result.err
    new = text(project)
    entry: dict[str, Any] = yaml.safe_load(new)["models"][name]
    head, behind = CATALOGUE.split("\nengines:")
    assert new.startswith(f"{head}\n  {name}:\n")
    assert new.endswith(f"\nengines:{behind}")
    assert yaml.safe_load(result.out.partition("\n")[2])[name] == entry
    return entry


def refused(project: Project, *args: str, status: int = 0, **more: Any) -> str:
    """What is said about something that cannot be added; nothing is written.

    Args:
        status: 0: 1 or 3.
    """
    before = (project.path / "models.yaml").read_bytes()
    result = project.doit("add", *args, **more)
    assert result.out == ""
    assert result.status in ([status] if status else [1, 3]), result.err
    assert (project.path / "models.yaml").read_bytes() == before
    return result.err


# From the Hub


def test_a_file_of_the_hub(ours: Project, site: HubSite) -> None:
    """Issue 5.3: pinned to the commit, with digest, size and licence; then it can be had by its name."""
    repo = site.repo("o/r", licence="apache-2.0")
    commit = repo.push({f"q/{NAME}": DATA})
    result = ours.doit("add", f"hf:o/r/q/{NAME}")
    assert added(ours, result, "tiny-1b-chat") == {
        "title": "Tiny 1B Chat",
        "hf": "o/r",
        "file": f"q/{NAME}",
        "revision": commit,
        "sha256": SHA256,
        "size": len(DATA),
        "license": "Apache-2.0",
        "params": "1B",
        "quant": "Q4_K_M",
        "engine": "embedded",
    }
    assert "next: doit serve --model tiny-1b-chat" in result.err
    assert site.cdn.requests == []
    repo.push({f"q/{NAME}": DATA[::-1]})
    assert ours.doit("download:tiny-1b-chat").status == 0
    assert ours.target(DATA, NAME).read_bytes() == DATA


@pytest.mark.parametrize("form", ["blob/main", "resolve/main", "resolve/v1"])
def test_what_a_browser_shows(ours: Project, site: HubSite, form: str) -> None:
    """Issue 5.3: the address of the page, or of its download button, of a branch or a tag."""
    repo = site.repo("o/r", licence="mit")
    commit = repo.push({NAME: DATA})
    repo.tag("v1")
    result = ours.doit("add", f"https://huggingface.co/o/r/{form}/{NAME}?download=true", "--name", "mine")
    entry = added(ours, result, "mine")
    assert (entry["hf"], entry["revision"], entry["sha256"]) == ("o/r", commit, SHA256)


def test_a_split_file(ours: Project, site: HubSite) -> None:
    """Issue 5.3: each part with its digest; the lock covers it, and all of it comes."""
    parts = {f"big-70B-Q8_0-0000{n}-of-00003.gguf": DATA[: -n or None] for n in (1, 2, 3)}
    site.repo("o/r", licence="mit").push(dict(parts))
    result = ours.doit("add", "hf:o/r/big-70B-Q8_0-00001-of-00003.gguf")
    entry = added(ours, result, "big-70b")
    assert entry["parts"] == [
        {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for data in parts.values()
    ]
    assert "sha256" not in entry
    assert ours.doit("download:big-70b").status == 0
    folder = ours.cache / "models" / hashlib.sha256(next(iter(parts.values()))).hexdigest()[:16]
    assert {path.name: path.read_bytes() for path in folder.glob("*.gguf")} == parts


def test_a_gated_file(ours: Project, site: HubSite) -> None:
    """Issue 5.3: the remedy is a token, which is shown and written nowhere."""
    repo = site.repo("o/r", gated="manual", licence="llama3.2")
    repo.push({NAME: DATA})
    site.allow(TOKEN, repo)
    assert "HF_TOKEN" in refused(ours, f"hf:o/r/{NAME}")
    result = ours.doit("add", f"hf:o/r/{NAME}", env={"HF_TOKEN": TOKEN})
    assert added(ours, result, "tiny-1b-chat")["license"] == "llama3.2"
    assert TOKEN not in result.out + result.err + text(ours)


def test_what_the_hub_does_not_have(ours: Project, site: HubSite) -> None:
    """Issue 5.3: which of repository, revision and file is missing."""
    site.repo("o/r").push({NAME: DATA, "README.md": b"x"})
    assert "o/r has no file none.gguf at main" in refused(ours, "hf:o/r/none.gguf")
    assert "o/r has no revision v9" in refused(ours, f"hf:o/r@v9/{NAME}")
    assert "o/none" in refused(ours, f"hf:o/none/{NAME}")


# From elsewhere


def test_a_file_of_a_release(ours: Project) -> None:
    """Issue 5.3: GitHub states the digest; of old releases it does not."""
    with GitHub() as github:
        repo = github.repo("o/r", licence="MIT")
        repo.release("v1", {NAME: DATA})
        repo.release("v0", {"old.gguf": DATA}, digests=False)
        entry = added(ours, ours.doit("add", github.url("o/r", "v1", NAME)), "tiny-1b-chat")
        assert (entry["sha256"], entry["size"], entry["license"]) == (SHA256, len(DATA), "MIT")
        (ours.path / "models.yaml").write_text(CATALOGUE, "utf-8")
        err = refused(ours, github.url("o/r", "v0", "old.gguf"), "--name", "second")
        assert "127.0.0.1 states no SHA-256 of old.gguf" in err
        assert "--download, or --sha256 HEX" in err


def test_a_plain_server(ours: Project) -> None:
    """Issue 5.3: it states no digest, so a person or a download does."""
    with FileServer() as server:
        server.files[f"/{NAME}"] = DATA
        url = server.url(f"/{NAME}")
        assert "--download, or --sha256 HEX" in refused(ours, url)
        entry = added(ours, ours.doit("add", url, "--sha256", f"sha256:{SHA256.upper()}"), "tiny-1b-chat")
        assert (entry["url"], entry["sha256"], entry["size"]) == (url, SHA256, len(DATA))
        assert server.bytes_sent(f"/{NAME}") == 0
        (ours.path / "models.yaml").write_text(CATALOGUE, "utf-8")
        result = ours.doit("add", url, "--download", "--license", "CC0-1.0", "--name", "other")
        entry = added(ours, result, "other")
        assert (entry["sha256"], entry["size"], entry["license"]) == (SHA256, len(DATA), "CC0-1.0")
        sent = server.bytes_sent(f"/{NAME}")
        assert ours.doit("download:other").status == 0
        assert server.bytes_sent(f"/{NAME}") == sent == len(DATA)
        assert [path.parent.name for path in ours.cache.rglob(NAME)] == [SHA256[:16]]


def test_no_answer(ours: Project) -> None:
    """Issue 5.3: what could not be asked is not written; a given digest is enough, the size is left out."""
    with FileServer() as gone:
        url = gone.url(f"/{NAME}")
    env = {"LLAMAFILE_OFFLINE": "1"}
    said = refused(ours, url, env=env)
    assert "LLAMAFILE_OFFLINE forbids the network\n  fix: unset LLAMAFILE_OFFLINE\n" in said
    result = ours.doit("add", url, "--sha256", SHA256, env=env)
    assert "size" not in added(ours, result, "tiny-1b-chat")
    assert "its size is not known: 127.0.0.1: LLAMAFILE_OFFLINE forbids the network" in result.err


def test_a_file_of_your_own(ours: Project, tmp_path: Path) -> None:
    """Issue 5.3: hashed here; a path inside the project is relative to models.yaml. It is then served."""
    (ours.path / "demo" / "Own-2M.gguf").write_bytes(DEMO)
    result = ours.doit("add", "demo/Own-2M.gguf", "--license", "Apache-2.0")
    entry = added(ours, result, "own-2m")
    assert (entry["url"], entry["sha256"]) == ("demo/Own-2M.gguf", hashlib.sha256(DEMO).hexdigest())
    outside = tmp_path / "out side.gguf"
    outside.write_bytes(DEMO)
    assert ours.doit("add", str(outside)).status == 0
    assert yaml.safe_load(text(ours))["models"]["out-side"]["url"] == str(outside)
    served = ours.doit("with", "--model", "own-2m", "--", "sh", "-c", "curl -s $LLAMAFILE_URL/v1/models")
    assert served.status == 0, served.err
    assert '"own-2m"' in served.out


# Names and forms


def test_a_name_that_is_taken(ours: Project, site: HubSite) -> None:
    """Issue 5.3: first the quantisation is added, then it is the user's turn."""
    repo = site.repo("o/r", licence="mit")
    repo.push({"old.Q4_K_M.gguf": DATA, "old.gguf": DATA})
    assert "old-q4_k_m" in yaml.safe_load(ours.doit("add", "hf:o/r/old.Q4_K_M.gguf").out.partition("\n")[2])
    err = refused(ours, "hf:o/r/old.gguf")
    assert "there is a model 'old' in " in err
    assert "fix: doit add hf:o/r/old.gguf --name old-2\n" in err
    assert "there is a model 'OLD' in " in refused(ours, "hf:o/r/old.gguf", "--name", "OLD")
    err = refused(ours, "hf:o/r/old.gguf", "--name", "a b")
    assert "--name: expected a name of letters" in err
    assert "fix: doit add hf:o/r/old.gguf --name old-2\n" in err


ADD = "\n  fix: doit add URL, hf:OWNER/REPO/FILE, oci://HOST/REPO:TAG, or ./FILE.gguf\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        pytest.param([], ADD, id="nothing"),
        pytest.param(["a.gguf", "b.gguf"], "`doit add` takes one file", id="two"),
        pytest.param(["hf:o/m.gguf"], "expected hf:OWNER/REPO/FILE, got hf:o/m.gguf", id="no repository"),
        pytest.param(["hf:foo"], "got hf:foo\n  fix: doit add hf:OWNER/REPO/FILE\n", id="no file"),
        pytest.param(["none.gguf"], f"none.gguf{ADD}", id="no such file"),
        pytest.param(["http://example.org/m.gguf?token=a b"], ADD, id="URL"),
        pytest.param(["demo/demo.gguf", "--name", "Bad Name"], "--name: expected a name", id="name"),
        pytest.param(["https://h/m.zip"], "expected a file that ends in .llamafile or .gguf", id="zip"),
        pytest.param(["ftp://example.org/m.gguf"], "expected https://", id="scheme"),
        pytest.param(["https://u:p@example.org/m.gguf"], "no user or password in a URL", id="password"),
        pytest.param(["demo/demo.gguf", "--sha256", "abc"], "expected 64 hexadecimal digits", id="digest"),
        pytest.param(["--nmae", "x", "m.gguf"], "did you mean --name?", id="option"),
    ],
)
def test_what_cannot_be_meant(ours: Project, args: list[str], said: str) -> None:
    """Issue 5.3: said with the remedy, before anything is asked; status 3."""
    assert said in refused(ours, *args, status=3)


def test_a_file_that_is_no_model(ours: Project) -> None:
    """What `serve` would refuse is not written: a text, an empty file, a part of a model."""
    for data, said in (
        (b"text\n", "it is text: text"),
        (b"", "it is empty (0 bytes)"),
        (DEMO[:100_000], "it is a part of a GGUF: 100000 bytes"),
    ):
        (ours.path / "bad.gguf").write_bytes(data)
        err = refused(ours, "bad.gguf", "--license", "MIT", status=1)
        assert "bad.gguf: not a model\n  got: " + said in err
        assert "  fix: name another file, or download this one again\n" in err


def test_the_wrong_digest(ours: Project) -> None:
    """Issue 5.3: one that is given is held against the file."""
    err = refused(ours, "demo/demo.gguf", "--sha256", "a" * 64)
    assert hashlib.sha256(DEMO).hexdigest() in err


def test_a_catalogue_in_braces(ours: Project) -> None:
    """Issue 5.3: the entry to paste is shown."""
    ours.catalogue({"old": ours.entry("https://example.org/old.gguf", engine="embedded")})
    err = refused(ours, "demo/demo.gguf")
    assert "is written with braces" in err
    assert f"sha256: {hashlib.sha256(DEMO).hexdigest()}" in err


def test_the_file_stays_what_it_is(ours: Project, tmp_path: Path) -> None:
    """Issue 5.3: a link, its mode, its line ends and its mark; LLAMAFILE_CATALOGUE names another one."""
    real = tmp_path / "real.yaml"
    real.write_bytes(b"\xef\xbb\xbf" + CATALOGUE.replace("\n", "\r\n").encode())
    real.chmod(0o640)
    link = tmp_path / "models.yaml"
    link.symlink_to(real)
    (tmp_path / "own.gguf").write_bytes(DEMO)
    before = (ours.path / "models.yaml").read_bytes()
    result = ours.doit("add", str(tmp_path / "own.gguf"), env={"LLAMAFILE_CATALOGUE": str(link)})
    assert result.status == 0, result.err
    assert link.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    data = real.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf# Our models.")
    assert data.count(b"\n") == data.count(b"\r\n")
    assert yaml.safe_load(data)["models"]["own"]["url"] == "own.gguf"
    assert (ours.path / "models.yaml").read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_catalogue_that_cannot_be_written(ours: Project) -> None:
    """Issue 5.3: said in a line."""
    ours.path.chmod(0o555)
    try:
        assert "Permission denied" in refused(ours, "demo/demo.gguf")
    finally:
        ours.path.chmod(0o755)


def test_a_lock_file_has_to_follow(ours: Project) -> None:
    """Issue 5.1: only `doit lock` writes it; the hint says so, and then it covers the entry."""
    first = ours.path / "models.yaml"
    first.write_text(CATALOGUE.replace("https://example.org/old.gguf", "demo/demo.gguf"), "utf-8")
    assert ours.doit("lock").status == 0
    (ours.path / "demo" / "own.gguf").write_bytes(DEMO)
    result = ours.doit("add", "demo/own.gguf")
    assert "next: doit lock --model own" in result.err
    assert ours.doit("lock", "--check").status == 1
    assert ours.doit("lock", "--model", "own").status == 0
    assert ours.doit("lock", "--check").status == 0
