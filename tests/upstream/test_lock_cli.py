"""`doit lock`: models.lock says exactly which bytes each entry of models.yaml means (issue 5.1)."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import llamafile
from tests.fakes.faults import Status
from tests.support.ports import closed_port
from tests.support.project import ENGINES, REPO, Project
from tests.support.publishers import HUB, World, entry, failed, sha256, worlds

OLD = llamafile.gguf(200_000)
NEW = OLD + b"newer"
EYES = llamafile.gguf(3000)
PLAIN = llamafile.gguf(5000)
DEMO = REPO / "demo" / "demo.gguf"
NAME = "m.gguf"
EMBEDDED = {"embedded": ENGINES["embedded"]}


@pytest.fixture
def world(project: Project) -> Iterator[World]:
    yield from worlds(project)


def hub_model(world: World, **keys: Any) -> str:
    """A catalogue with one model of the Hub's main; its commit."""
    commit = world.repo.push({NAME: OLD, "eyes.gguf": EYES})
    model = entry(hf="o/r", file=NAME, engine="embedded", **keys)
    world.project.catalogue({"m": model}, EMBEDDED)
    return commit


def program(world: World) -> bytes:
    """The engine that GitHub has."""
    return llamafile.build_exe(world.project.path / "exe").read_bytes()


def everything(world: World) -> str:
    """A catalogue with every kind of source; the commit of the Hub's main."""
    commit = world.repo.push({NAME: OLD, "eyes.gguf": EYES})
    project, exe = world.releases, program(world)
    project.release("0.10.5", {"llamafile-0.10.5": exe, "small.gguf": PLAIN})
    base = f"{world.github.endpoint}/gh/llamafile/releases/download"
    engine = {"title": "l", "license": "Apache-2.0", "version": "latest"}
    models = {
        "hub": entry(hf="o/r", file=NAME, mmproj={"file": "eyes.gguf"}),
        "main": entry(url=f"{HUB}/o/r/resolve/main/{NAME}", license="Apache-2.0"),
        "asset": entry(url=f"{base}/0.10.5/small.gguf"),
        "here": entry(url="demo/demo.gguf", engine="embedded"),
        "pinned": world.project.entry("https://example.org/x.gguf", PLAIN),
    }
    engines = {"llamafile": {**engine, "url": f"{base}/{{version}}/llamafile-{{version}}"}, **EMBEDDED}
    world.project.catalogue(models, engines, default="here")
    return commit


def rows(world: World) -> dict[str, list[dict[str, Any]]]:
    """The lock file's entries by name."""
    data = yaml.safe_load(world.lock.read_text("utf-8"))
    return {**data["engines"], **data["models"]}


def test_every_kind_of_source(world: World) -> None:
    """Issue 5.1: commit, URL, digest, size, licence, who says so; of a model only the head is fetched."""
    commit = everything(world)
    said = world.locked()
    found = rows(world)
    assert list(found) == ["llamafile", "hub", "main", "asset", "here", "pinned"]
    [exe], [hub, eyes], [main], [asset], [here], [pinned] = found.values()
    for row in (hub, main):
        assert (row["url"], row["commit"]) == (f"{HUB}/o/r/resolve/{commit}/{NAME}", commit)
        assert (row["sha256"], row["size"]) == (sha256(OLD), len(OLD))
        assert row["digest_from"] == "the Hub (X-Linked-Etag)"
    assert (main["source"], main["license"]) == (f"{HUB}/o/r/resolve/main/{NAME}", "Apache-2.0")
    assert hub["source"] == f"hf:o/r@main/{NAME}"
    assert (eyes["sha256"], eyes["source"]) == (sha256(EYES), "hf:o/r@main/eyes.gguf")
    assert (exe["version"], exe["sha256"]) == ("0.10.5", sha256(program(world)))
    assert exe["url"].endswith("/0.10.5/llamafile-0.10.5")
    assert (asset["sha256"], asset["digest_from"]) == (sha256(PLAIN), "GitHub (digest of the asset)")
    assert "source" not in asset
    assert (here["sha256"], here["digest_from"]) == (sha256(DEMO.read_bytes()), "this machine")
    assert (pinned["sha256"], pinned["digest_from"]) == (sha256(PLAIN), "models.yaml")
    for cdn in (world.hub.cdn, world.github.cdn):
        assert {request.range for request in cdn.requests} == {(0, 1024**2 - 1)}
    assert said.splitlines()[-1] == f"{world.lock}: 7 files of 5 models and 1 engine"
    assert f"+ hub: {NAME} 200.0 kB sha256:{sha256(OLD)} (the Hub (X-Linked-Etag))" in said


def test_again_on_another_day(world: World) -> None:
    """Issue 5.1: nothing is asked and no byte changes; --upgrade asks, and no byte changes either."""
    everything(world)
    world.locked()
    text = re.sub(r'since: "[-\d]+"', 'since: "2026-01-31"', world.lock.read_text("utf-8"))
    world.lock.write_text(text, "utf-8")
    os.utime(world.lock, (1, 1))
    asked = world.requests
    assert world.locked().endswith(", nothing changed\n")
    assert (world.lock.read_text("utf-8"), world.lock.stat().st_mtime, world.requests) == (text, 1, asked)
    assert world.locked("--upgrade").splitlines() == [
        f"{world.lock}: 7 files of 5 models and 1 engine, nothing changed"
    ]
    assert (world.lock.read_text("utf-8"), world.lock.stat().st_mtime) == (text, 1)
    assert world.requests > asked


def test_main_moves(world: World) -> None:
    """Issue 5.1: everybody still gets the bytes of the lock; --upgrade moves them, and says so."""
    first = hub_model(world)
    world.locked()
    second = world.repo.push({NAME: NEW})
    before = world.lock.read_text("utf-8")
    assert "nothing changed" in world.locked()
    result = world.project.doit("download")
    assert result.status == 0, result.err
    assert "not pinned" not in result.err
    assert world.project.target(OLD, NAME).read_bytes() == OLD
    said = world.locked("--upgrade").splitlines()
    assert said[0] == f"~ m: {NAME}"
    assert said[1].split() == ["old", first[:12], f"sha256:{sha256(OLD)}", "200.0", "kB"]
    assert said[2].split() == ["new", second[:12], f"sha256:{sha256(NEW)}", "200.0", "kB"]
    assert world.lock.read_text("utf-8") != before
    assert world.project.doit("download").status == 0
    assert world.project.target(NEW, NAME).read_bytes() == NEW


def test_main_moves_and_the_file_does_not(world: World) -> None:
    """Issue 5.1: --upgrade says so; digest, day and who said it stay."""
    hub_model(world)
    world.locked()
    [before] = rows(world)["m"]
    world.repo.push({"README.md": b"# Hello"})
    assert world.locked("--upgrade").splitlines()[0] == f"~ m: {NAME}, the same bytes"
    [after] = rows(world)["m"]
    assert {key for key in before if before[key] != after[key]} == {"url", "commit"}


def test_one_model_is_upgraded(world: World) -> None:
    """Issue 5.1: --upgrade --model moves that one alone; an engine can be named, too."""
    everything(world)
    world.locked()
    world.repo.push({NAME: NEW})
    world.releases.release("0.10.6", {"llamafile-0.10.6": b"newer"})
    before = rows(world)
    said = world.locked("--upgrade", "--model", "MAIN")
    assert [line for line in said.splitlines() if line[0] in "+-~"] == [f"~ main: {NAME}"]
    after = rows(world)
    assert {name for name in before if before[name] != after[name]} == {"main"}
    said = world.locked("--upgrade", "--model", "llamafile")
    assert "old 0.10.5 sha256:" in said
    assert "new 0.10.6 sha256:" in said
    assert {name for name in after if after[name] != rows(world)[name]} == {"llamafile"}
    assert list(rows(world)) == list(before)


def test_a_model_more_and_one_less(world: World) -> None:
    """Issue 5.1: the lock follows the catalogue, in its order; what is known is not asked again."""
    everything(world)
    world.locked()
    data = json.loads((world.project.path / "models.yaml").read_text("utf-8"))
    models = {"eyes": entry(hf="o/r", file="eyes.gguf"), **data["models"]}
    models.pop("asset")
    world.project.catalogue(models, data["engines"], default="here")
    asked = world.requests
    said = world.locked().splitlines()
    assert said[:-1] == [
        "- asset",
        f"+ eyes: eyes.gguf 3.00 kB sha256:{sha256(EYES)} (the Hub (X-Linked-Etag))",
    ]
    assert list(rows(world)) == ["llamafile", "eyes", "hub", "main", "here", "pinned"]
    assert world.requests == asked + 3  # what it is, and its head: the Hub redirects


def test_one_model_is_locked(world: World) -> None:
    """Issue 5.2: --model asks for one alone, as the error of --frozen says."""
    everything(world)
    world.locked("--model", "hub")
    assert list(rows(world)) == ["hub"]
    assert len(world.github.origin.requests) == 0


def test_the_licence_follows_the_catalogue(world: World) -> None:
    """Issue 5.1: without asking anybody."""
    hub_model(world)
    world.locked()
    hub_model(world, license="BSD-3-Clause")
    asked = world.requests
    assert world.locked().splitlines()[0] == "~ m: licence MIT → BSD-3-Clause"
    assert (rows(world)["m"][0]["license"], world.requests) == ("BSD-3-Clause", asked)


def plain_server(world: World) -> str:
    """A catalogue whose model is on a server that states no digest; its URL."""
    world.server.files["/m.gguf"] = PLAIN
    url = world.server.url("/m.gguf")
    world.project.catalogue({"m": entry(url=url, engine="embedded")}, EMBEDDED)
    return url


def test_a_plain_server(world: World) -> None:
    """Issue 5.1: nobody states the digest: an error that says how; only --download fetches the file."""
    url = plain_server(world)
    said = failed(world.project.doit("lock"))
    assert "m: 127.0.0.1 states no SHA-256 of m.gguf" in said
    assert "doit lock --download" in said
    assert not world.lock.exists()
    assert world.server.asked("/m.gguf") == []
    world.locked("--download")
    [row] = rows(world)["m"]
    assert (row["url"], row["sha256"], row["size"]) == (url, sha256(PLAIN), len(PLAIN))
    assert row["digest_from"] == "doit lock --download"
    assert len(world.server.asked("/m.gguf")) == 1
    assert "nothing changed" in world.locked("--download")


def test_what_came_before_it_was_pinned_is_taken(world: World) -> None:
    """Issue 5.1: the bytes that nothing pinned are hashed and copied, not fetched once more."""
    plain_server(world)
    first = world.project.doit("download")
    assert first.status == 0, first.err
    world.locked("--download")
    again = world.project.doit("download")
    assert again.status == 0, again.err
    assert "sha256 verified" in again.err
    assert world.project.target(PLAIN, "m.gguf").read_bytes() == PLAIN
    assert len(world.server.asked("/m.gguf")) == 1


def test_what_came_before_and_is_another_file(world: World) -> None:
    """Issue 5.1: what the lock does not mean is not taken, and stays where it lies."""
    hub_model(world)
    assert world.project.doit("download").status == 0
    [old] = world.project.cache.glob(f"models/url-*/{NAME}")
    world.repo.push({NAME: NEW})
    world.locked()
    result = world.project.doit("download")
    assert result.status == 0, result.err
    assert world.project.target(NEW, NAME).read_bytes() == NEW
    assert old.read_bytes() == OLD


def test_a_plain_server_has_a_new_file(world: World) -> None:
    """Issue 5.1: --upgrade --download fetches again what is here under that address."""
    plain_server(world)
    world.locked("--download")
    world.server.files["/m.gguf"] = NEW
    assert f"new {rows(world)['m'][0]['since']} sha256:{sha256(NEW)}" in world.locked(
        "--upgrade", "--download"
    )
    assert world.project.doit("download").status == 0
    assert world.project.target(NEW, "m.gguf").read_bytes() == NEW


def test_a_size_that_nobody_knew(world: World) -> None:
    """Issue 5.1: the catalogue's digest stays, the size is asked for; a refusal is but a warning."""
    world.server.files["/a.gguf"] = PLAIN
    pin = {"sha256": sha256(PLAIN), "engine": "embedded"}
    models = {
        "a": entry(url=world.server.url("/a.gguf"), **pin),
        "b": entry(url=world.server.url("/b.gguf"), **pin),
    }
    world.project.catalogue(models, EMBEDDED)
    result = world.project.doit("lock")
    assert result.status == 0, result.err
    assert "b: its size is not known: " in result.err
    assert "HTTP 404" in result.err
    [a], [b] = rows(world).values()
    assert (a["size"], a["digest_from"], "size" in b) == (len(PLAIN), "models.yaml", False)
    assert {request.method for request in world.server.requests} == {"HEAD", "GET"}


def test_everything_that_cannot_be_found_out(world: World) -> None:
    """Issue 5.1: nothing is written, every failure is listed, with its remedies."""
    world.hub.repo("o/gated", gated="manual").push({NAME: OLD})
    world.repo.push({NAME: OLD})
    world.server.always("/refused.gguf", Status(403))
    with closed_port() as port:
        models = {
            "good": entry(hf="o/r", file=NAME),
            "gated": entry(hf="o/gated", file=NAME),
            "gone": entry(hf="o/r", file="gone.gguf"),
            "branch": entry(hf="o/r", file=NAME, revision="v9"),
            "plain": entry(url=world.server.url("/refused.gguf")),
            "silent": entry(url=f"http://127.0.0.1:{port}/m.gguf"),
            "nowhere": entry(url="not/there.gguf"),
            "there": entry(url="not/there.gguf"),
            **{f"m{number}": entry(hf="o/gated", file=NAME) for number in range(4)},
        }
        models = {name: {**one, "engine": "embedded"} for name, one in models.items()}
        world.project.catalogue(models, EMBEDDED)
        said = failed(world.project.doit("lock"))
    assert not world.lock.exists()
    assert said.splitlines()[0].endswith(
        "nothing was written: some files of models.yaml could not be resolved"
    )
    assert "  gated, m0, m1 and 2 more: o/gated is gated: accept its licence on its page\n" in said
    assert "  gone: o/r has no file gone.gguf at main\n" in said
    assert "  branch: o/r has no revision v9\n" in said
    assert "  plain: 127.0.0.1 states no SHA-256 of refused.gguf\n" in said
    assert re.search(r"  silent: 127\.0\.0\.1: .*refused.*\(tried 3 times\)\n", said)
    assert f"  nowhere, there: no such file: {world.project.path}/not/there.gguf\n" in said
    assert "good" not in said
    assert "set HF_TOKEN to a token that may read it" in said
    assert "doit lock --download" in said


def test_an_old_lock_survives_a_failure(world: World) -> None:
    """Issue 5.1: an unreachable publisher leaves the file as it is."""
    hub_model(world)
    world.locked()
    before = world.lock.read_bytes()
    world.hub.origin.always(f"/o/r/resolve/main/{NAME}", Status(404, {"X-Error-Code": "RevisionNotFound"}))
    assert "o/r has no revision main" in failed(world.project.doit("lock", "--upgrade"))
    assert world.lock.read_bytes() == before


def test_check_of_a_changed_digest(world: World) -> None:
    """Issue 14.2: the command that it names works, where `doit lock` refuses."""
    project = world.project
    url = "https://example.org/m.gguf"
    project.catalogue({"m": project.entry(url, OLD, engine="embedded")}, EMBEDDED)
    assert project.doit("lock").status == 0
    models = {name: project.entry(url, NEW, engine="embedded") for name in ("m", "new")}
    project.catalogue(models, EMBEDDED)
    assert "models.new" in failed(project.doit("lock", "--check"))
    said = failed(project.doit("lock", "--check", "--model", "m"))
    assert "models.new" not in said
    assert said.splitlines()[-1] == (
        "  fix: edit the catalogue, or if it is right: `doit lock --upgrade --model m`, and commit it"
    ), said
    assert world.project.doit("lock", "--upgrade", "--model", "m").status == 0
    assert world.project.doit("lock", "--check", "--model", "m").out == f"{world.lock} covers m\n"


def test_check(world: World) -> None:
    """Issue 5.1: 0 or 1, with what lacks; nobody is asked, and it works without a network."""
    env = {"LLAMAFILE_OFFLINE": "1"}
    hub_model(world)
    assert f"there is no {world.lock}" in failed(world.project.doit("lock", "--check"))
    world.locked()
    asked = world.requests
    good = world.project.doit("lock", "--check", env=env)
    assert (good.status, good.out, good.err) == (
        0, f"{world.lock} covers the catalogue: 1 file of 1 model and 0 engines\n", "",
    )  # fmt: skip
    both = world.project.doit("lock", "--check", "--upgrade", env=env)
    assert (both.status, "--check only compares: --upgrade would change the file" in both.err) == (3, True)
    models = {"m": entry(hf="o/r", file="other.gguf"), "n": entry(hf="o/r", file=NAME)}
    world.project.catalogue({name: {**one, "engine": "embedded"} for name, one in models.items()}, EMBEDDED)
    bad = world.project.doit("lock", "--check", env=env)
    said = failed(bad)
    assert bad.out == ""
    shown = world.project.doit("lock", "--check", "--json", env=env)
    assert (shown.status, shown.err) == (1, bad.err)
    assert json.loads(shown.out) == {
        "lock": str(world.lock), "exists": True, "covers": False,
        "errors": ["models.m names other files than models.yaml", "models.n is not in models.lock"],
    }  # fmt: skip
    assert "fix: doit lock --check --json" in world.project.doit("lock", "--json").err
    assert said.splitlines() == [
        f"ERROR: {world.lock} does not cover the catalogue",
        "  models.m: names other files than models.yaml",
        "  models.n: is not in models.lock",
        "  fix: `doit lock`, and commit it",
    ]
    assert world.requests == asked


def test_a_contradiction(world: World) -> None:
    """Issue 5.1: every verb names line and both digests, and what to edit; --upgrade puts it right."""
    hub_model(world)
    world.locked()
    before = world.lock.read_bytes()
    hub_model(world, sha256=sha256(NEW))
    where = world.project.path / "models.yaml"
    for words in (["list"], ["download"], ["serve:m"], ["lock"], ["catalogue"], ["plan"]):
        said = failed(world.project.doit(*words), 3)
        assert f"models.m: sha256 is {sha256(NEW)} in models.yaml and {sha256(OLD)} in models.lock" in said
        assert f"fix: edit {where}, or if it is right: `doit lock --upgrade --model m`" in said
    assert "models.m: sha256 is" in failed(world.project.doit("lock", "--check"))
    said = failed(world.project.doit("lock", "--upgrade", "--model", "m"))
    assert (
        f"m: sha256 is {sha256(NEW)} in models.yaml, and the Hub (X-Linked-Etag) says {sha256(OLD)}" in said
    )
    assert world.lock.read_bytes() == before
    world.repo.push({NAME: NEW})
    world.locked("--upgrade", "--model", "m")
    [row] = rows(world)["m"]
    assert (row["sha256"], row["size"], row["digest_from"]) == (sha256(NEW), len(NEW), "models.yaml")
    assert world.project.doit("download").status == 0


DAMAGE = [
    pytest.param("<<<<<<< HEAD\n", "", ":1: a merge conflict is not resolved", id="a merge that was left"),
    pytest.param(
        'sha256: "', 'sha256: "0', "models.m.0.sha256: expected 64 lower-case", id="a digit too many"
    ),
    pytest.param("    size: ", "    sise: ", "models.m.0.sise: unknown key; did you mean size", id="a key"),
    pytest.param("version: 1", "version: 2", "version: expected 1, got 2", id="a later format"),
]


@pytest.mark.parametrize(("old", "new", "said"), DAMAGE)
def test_a_damaged_lock(world: World, old: str, new: str, said: str) -> None:
    """Issue 5.1: status 3, the line, and how to get a good one; for every verb, `doit lock` as well."""
    hub_model(world)
    world.locked()
    text = world.lock.read_text("utf-8")
    world.lock.write_text(text.replace(old, new, 1) if new else old + text, "utf-8")
    for words in (["lock"], ["lock", "--check"], ["download"], []):
        error = failed(world.project.doit(*words), 3)
        assert str(world.lock) in error
        assert said in error
        assert "fix: " in error


def test_an_edited_digest(world: World) -> None:
    """Issue 5.1: bytes that are not the lock's never get their name."""
    hub_model(world)
    world.locked()
    text = world.lock.read_text("utf-8").replace(sha256(OLD), sha256(NEW))
    world.lock.write_text(text, "utf-8")
    said = failed(world.project.doit("download"))
    assert f"expected: sha256:{sha256(NEW)}" in said
    assert not list(world.project.cache.rglob(NAME))


def test_a_lock_that_cannot_be_read(world: World) -> None:
    """Issue 5.1: a folder in its place."""
    hub_model(world)
    world.lock.mkdir()
    assert f"cannot read {world.lock}" in failed(world.project.doit("download"), 3)


@pytest.mark.skipif(os.name == "nt", reason="mount")
def test_a_read_only_folder(world: World, mount: Callable[..., Path]) -> None:
    """Issue 5.1: nothing can be written: the path and why, no traceback."""
    folder = mount("rw")
    hub_model(world)
    (folder / "my.yaml").write_text((world.project.path / "models.yaml").read_text("utf-8"))
    os.system(f"mount -o remount,ro {folder}")
    said = failed(world.project.doit("lock", env={"LLAMAFILE_CATALOGUE": str(folder / "my.yaml")}))
    assert "Read-only file system" in said
    assert str(folder / "my.lock") in said


def test_another_catalogue_has_its_own_lock(world: World, tmp_path: Path) -> None:
    """Issue 5.1: it lies beside it, and is named after it; relative files are its own."""
    hub_model(world)
    world.locked()
    world.hub.repo("o/two").push({NAME: NEW})
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "near.gguf").write_bytes(PLAIN)
    models = {
        "two": entry(hf="o/two", file=NAME, engine="embedded"),
        "near": entry(url="near.gguf", engine="embedded"),
    }
    data = {"version": 1, "default": "two", "engines": EMBEDDED, "models": models}
    (folder / "team.yaml").write_text(json.dumps(data))
    env = {"LLAMAFILE_CATALOGUE": str(folder / "team.yaml")}
    before = world.lock.read_bytes()
    result = world.project.doit("lock", env=env)
    assert result.status == 0, result.err
    assert result.out.splitlines()[-1].startswith(f"{folder / 'team.lock'}: 2 files")
    assert sha256(NEW) in (folder / "team.lock").read_text("utf-8")
    assert sha256(PLAIN) in (folder / "team.lock").read_text("utf-8")
    assert world.lock.read_bytes() == before
    frozen = world.project.doit("download", "--frozen", "--model", "two", "--model", "near", env=env)
    assert frozen.status == 0, frozen.err


def test_the_address_of_the_catalogue_stays_a_mirror(world: World) -> None:
    """Issue 5.1: where the commit can no longer be had, main is tried, held to the same digest."""
    commit = hub_model(world)
    world.locked()
    world.hub.origin.always(f"/o/r/resolve/{commit}/{NAME}", Status(404))
    result = world.project.doit("download")
    assert result.status == 0, result.err
    assert world.project.target(OLD, NAME).read_bytes() == OLD
    assert world.hub.origin.asked(f"/o/r/resolve/main/{NAME}")


def test_the_latest_engine(world: World) -> None:
    """R16, issue 5.1: before it is locked nobody knows which; then every machine has that one."""
    everything(world)
    said = failed(world.project.doit("exe"), 3)
    assert "models.lock has no version of llamafile for `latest`" in said
    assert "fix: doit lock" in said
    world.locked()
    world.releases.release("0.10.6", {"llamafile-0.10.6": b"x"})
    result = world.project.doit("exe", "--frozen")
    assert result.status == 0, result.err
    exe = program(world)
    assert world.project.program(exe, "llamafile-0.10.5").read_bytes() == exe


def test_a_branch_without_network(world: World) -> None:
    """Issue 15.7: a digest in models.yaml pins the bytes; commit and size are asked for by --upgrade."""
    commit = hub_model(world, sha256=sha256(OLD))
    result = world.project.doit("lock", env={"LLAMAFILE_OFFLINE": "1"})
    assert result.status == 0, result.err
    assert "m: its commit and size are not known: " in result.err
    [row] = rows(world)["m"]
    assert (row["url"], row["sha256"]) == (f"{HUB}/o/r/resolve/main/{NAME}", sha256(OLD))
    assert not {"commit", "size"} & row.keys()
    assert world.requests == 0
    assert "covers the catalogue" in world.project.doit("lock", "--check").out
    world.locked("--upgrade")
    [row] = rows(world)["m"]
    assert (row["commit"], row["size"]) == (commit, len(OLD))


def test_it_cannot_be_combined_with_other_tasks(world: World) -> None:
    """Issue 5.1: what follows would not see the new lock."""
    hub_model(world)
    said = failed(world.project.doit("lock", "download"), 3)
    assert "`doit lock` cannot be combined with other tasks" in said
    assert world.requests == 0


def test_the_shipped_catalogue(project: Project) -> None:
    """Issue 5.1: the demo's pin needs nobody; the others' sizes are asked for, or warned about."""
    result = project.doit("lock", "--model", "demo", env={"LLAMAFILE_OFFLINE": "1"})
    assert result.status == 0, result.err
    assert project.doit("download:demo", "--frozen").status == 0
    assert "models.mistral: is not in models.lock" in failed(project.doit("lock", "--check"))
