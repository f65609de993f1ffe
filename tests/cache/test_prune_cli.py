"""`doit prune`: what nobody needs any more goes, and nothing else, whoever shares the cache."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tasks.system import process_identity

from tests.fakes import llamafile
from tests.fakes.llamafile import noise
from tests.fakes.server import FileServer
from tests.server.test_serve_cli import ask, behave, with_gguf
from tests.support.partials import leave_partial, wait_until
from tests.support.project import Project, Result
from tests.support.servers import started
from tests.support.terminal import Typing

DATA = {name: noise(name.encode(), 50_000) for name in "abc"}
BIG = noise(b"big", 20_000_000)
DAY = 86400.0
posix = pytest.mark.skipif(os.name != "posix", reason="the fake llamafile is a shell script")


def named(project: Project, names: str) -> None:
    """Write a catalogue of these models, whose files lie beside it."""
    for name in names:
        (project.path / f"{name}.llamafile").write_bytes(DATA[name])
    project.catalogue({name: project.entry(f"{name}.llamafile", DATA[name]) for name in names})


def fetched(project: Project, *args: str) -> None:
    result = project.doit("download", *args)
    assert result.status == 0, result.err


@pytest.fixture
def models(project: Project) -> Project:
    """A project with the models `a` and `b` here, of which the catalogue names `a` alone by now."""
    named(project, "ab")
    fetched(project, "--model", "a", "--model", "b")
    named(project, "a")
    return project


def second(project: Project, folder: Path) -> Project:
    """Another project on this machine, with the same cache."""
    folder.mkdir()
    other = Project(folder)
    other.cache = project.cache
    other.env["LLAMAFILE_CACHE"] = str(project.cache)
    return other


def target(project: Project, name: str) -> Path:
    return project.target(DATA[name], f"{name}.llamafile")


def at(project: Project, path: Path) -> str:
    """A path as the report has it."""
    return path.relative_to(project.cache).as_posix()


def good(result: Result) -> Result:
    assert (result.status, result.err) == (0, ""), result.err
    return result


def pruned(project: Project, *args: str) -> dict[str, Any]:
    """What `doit prune --json` says."""
    return dict(json.loads(good(project.doit("prune", "--json", *args)).out))


def paths(report: dict[str, Any], what: str = "removed") -> list[str]:
    return [row["path"] for row in report[what] if not row["path"].startswith("catalogue/")]


def age(path: Path, days: float) -> None:
    """Let a file look as if nobody had touched it for so long."""
    os.utime(path, (time.time() - days * DAY,) * 2)


def files(folder: Path) -> dict[str, int]:
    """Every file below a folder, with its size; locks are no files of anybody."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "locks")
    return {str(path): path.stat().st_size for path in found}


# What goes, and what is said


def test_a_model_that_left_the_catalogue(models: Project) -> None:
    """Issue 5.6: what is named stays; the rest goes with its folder, and the sizes are the real ones."""
    report = pruned(models)
    assert not target(models, "b").parent.exists()
    assert target(models, "a").read_bytes() == DATA["a"]
    path = at(models, target(models, "b"))
    assert paths(report) == [path, f"{path}.stamp.json"]
    assert report["removed"][-2]["why"] == "no catalogue names this file"
    assert report["catalogues"] == [str(models.path / "models.yaml")]
    assert (report["kept"], report["failed"], report["dry_run"]) == ([], [], False)
    of_ours = sum(size for name, size in files(models.cache).items() if Path(name).parent != models.cache)
    assert report["after"] == of_ours
    assert report["before"] == of_ours + sum(row["bytes"] for row in report["removed"]) > of_ours + 50_000
    assert models.doit("download:a").err == "-- download:a\n"
    again = good(models.doit("prune"))
    assert again.out.splitlines()[-1].endswith("nothing to remove")


def test_dry_run(models: Project) -> None:
    """Issue 5.6: the same report, and nothing is touched."""
    good(models.doit("list"))
    before = files(models.cache)
    size = sum(n for path, n in before.items() if "b.llamafile" in path) / 1000
    dry = pruned(models, "--dry-run")
    text = good(models.doit("prune", "--dry-run")).out.splitlines()
    assert files(models.cache) == before
    assert text[0].split() == ["size", "why", "what"]
    line = next(line for line in text if "b.llamafile" in line)
    why = ["no", "catalogue", "names", "this", "file"]
    assert line.split() == [f"{size:.1f}", "kB", *why, at(models, target(models, "b"))]
    assert f"catalogue checked: {models.path / 'models.yaml'}" in text
    assert text[-1].startswith("cache: ")
    assert text[-1].endswith(" would be freed")
    real = pruned(models)
    assert dry.pop("dry_run") is True
    assert real.pop("dry_run") is False
    assert dry == real
    assert real["before"] - real["after"] == sum(row["bytes"] for row in real["removed"])


def test_many_small_files(models: Project) -> None:
    """Issue 14.9: a line for all of them; a total for each kind; no source that lies in the cache itself."""
    for number in range(7):
        old = models.cache / "catalogue" / f"{number:064x}.json"
        old.write_text("{}" * 50)
    stamp = target(models, "b").with_name("b.llamafile.stamp.json")
    elsewhere = models.cache / "models" / "url-0123456789abcdef" / "b.llamafile"
    stamp.write_text(json.dumps({**json.loads(stamp.read_text()), "source": str(elsewhere)}))
    result = good(models.doit("prune", "--dry-run"))
    [line] = [line for line in result.out.splitlines() if "catalogue/" in line]
    assert line.split()[2:] == ["stale", "compiled", "catalogue", "catalogue/", "(7", "files)"]
    assert re.search(r"^total: models 50\.\d kB, compiled catalogues 700 B$", result.out, re.MULTILINE)
    assert "to restore:" not in result.out
    assert all(line == line.rstrip() for line in result.out.splitlines())


@posix
@pytest.mark.parametrize(("answer", "status", "stays"), [("n", 1, True), ("", 1, True), ("y", 0, False)])
def test_a_terminal_is_asked(models: Project, answer: str, status: int, stays: bool) -> None:
    """Issue 14.9: the report comes first, then the question; only a yes removes anything."""
    with Typing(models, "prune") as typing:
        typing.wait_for("would be freed\nRemove ")
        typing.wait_for(" kB? [y/N] ")
        assert target(models, "b").exists()
        typing.type(f"{answer}\n")
        assert typing.finish() == status
    assert target(models, "b").exists() is stays
    assert ("cancelled: nothing was removed" in typing.shown) is stays
    assert (" kB freed" in typing.shown) is not stays


@posix
def test_a_terminal_that_is_not_asked(models: Project) -> None:
    """Issue 14.9: with --yes, and where there is nothing to remove."""
    for words in (["prune", "--yes"], ["prune"]):
        with Typing(models, *words) as typing:
            assert typing.finish() == 0
            assert "[y/N]" not in typing.shown
    assert not target(models, "b").exists()


def test_nothing_here(project: Project) -> None:
    """Issue 5.6: says so, and is no failure."""
    result = good(project.doit("prune"))
    assert result.out.splitlines()[-1].endswith("nothing to remove")


def test_what_came_without_a_catalogue(project: Project) -> None:
    """Issue 5.6: it goes, and the report says how to get it again."""
    named(project, "a")
    with FileServer() as server:
        server.files["/x.llamafile"] = DATA["b"]
        url, digest = server.url("/x.llamafile"), hashlib.sha256(DATA["b"]).hexdigest()
        command = ["download", "--llamafile-url", url, "--sha256", digest]
        good_download = project.doit(*command)
        assert good_download.status == 0, good_download.err
        again = f"doit {' '.join(command)}"
        assert f"to restore: {again}" in good(project.doit("prune", "--dry-run")).out.splitlines()
        [row] = [row for row in pruned(project)["removed"] if "again" in row]
        assert (row["source"], row["again"]) == (url, again)
        assert not list(project.cache.glob("models/*/x.llamafile"))
        assert project.doit(*command).status == 0
        assert [path.read_bytes() for path in project.cache.glob("models/*/x.llamafile")] == [DATA["b"]]


@posix
def test_old_programs(project: Project) -> None:
    """Issue 5.6: llamafile's own program of another version goes; that for Windows may be another's."""
    _, exe = with_gguf(project)
    assert project.doit("exe").status == 0
    old, windows = exe.with_name("llamafile-0.9.3"), exe.with_name("llamafile-0.10.5.exe")
    for path in (old, windows):
        shutil.copy2(exe, path)
        shutil.copy2(f"{exe}.stamp.json", f"{path}.stamp.json")
    report = pruned(project)
    assert paths(report) == [at(project, old), f"{at(project, old)}.stamp.json"]
    assert report["removed"][-1]["why"] == "no catalogue names this version"
    assert [exe.exists(), windows.exists(), old.exists()] == [True, True, False]
    assert project.doit("exe").err == "-- exe\n"


def test_a_download_that_was_abandoned(models: Project) -> None:
    """Issue 5.6: of a named model after 30 days, or what --older-than says; of another one at once."""
    named(models, "ac")
    for name in "bc":
        leave_partial(target(models, name), DATA[name], 20_000)
    partial = target(models, "c").with_name("c.llamafile.partial")
    assert paths(pruned(models, "--older-than", "1h")) == []
    assert len(paths(pruned(models))) == 2  # b and its stamp
    for path in target(models, "b").parent.iterdir():
        age(path, 8)
    assert len(paths(pruned(models))) == 2  # the partial of b with its journal
    assert partial.exists()
    for path in partial.parent.iterdir():
        age(path, 29)
    assert paths(pruned(models)) == []
    for path in partial.parent.iterdir():
        age(path, 31)
    assert paths(pruned(models, "--older-than", "5w")) == []
    report = pruned(models)
    assert paths(report) == [at(models, partial), f"{at(models, partial)}.json"]
    assert not partial.parent.exists()
    fetched(models, "--model", "c")


def test_older_than(models: Project) -> None:
    """Issue 5.6: a file that was changed, or read, since then stays."""
    path = target(models, "b")
    stamp = path.with_name(f"{path.name}.stamp.json")
    assert paths(pruned(models, "--older-than", "1h")) == []
    age(path, 40)
    assert paths(pruned(models, "--older-than", "30d")) == []  # the stamp is new: an engine ran
    age(stamp, 40)
    os.utime(path, (time.time() - 20 * DAY, time.time() - 40 * DAY))
    assert paths(pruned(models, "--older-than", "30d")) == []
    assert paths(pruned(models, "--older-than", "2w")) == [at(models, path), at(models, stamp)]


@pytest.mark.skipif(not hasattr(os, "O_NOATIME"), reason="only Linux reads a file without a trace")
def test_an_audit_is_no_use(models: Project) -> None:
    """Issue 5.6: `doit audit` every night does not keep what nobody uses."""
    for path in target(models, "b").parent.iterdir():
        age(path, 40)
    assert models.doit("audit").status == 0
    assert models.doit("bom").status == 0
    assert len(paths(pruned(models, "--older-than", "30d"))) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--older-than", "5"],
            "--older-than: expected a number and h, d or w, got '5'\n  fix: --older-than 30d",
        ),
        (["--oldr-than", "5d"], "did you mean --older-than"),
        (["--dry"], ""),  # as short as doit's own options may be
    ],
)
def test_options(models: Project, words: list[str], said: str) -> None:
    """R14: a wrong one is said before anything is removed."""
    result = models.doit("prune", *words)
    assert (result.status, said in result.err) == (3 if said else 0, True)
    assert target(models, "b").exists()


def test_it_is_not_about_one_model(models: Project) -> None:
    """R14: `doit prune:a` would promise what prune is not for."""
    result = models.doit("prune:b")
    assert (result.status, result.out) == (3, "")
    assert result.err == "ERROR: `doit prune` takes no model: prune:b\n  fix: doit prune\n"
    assert target(models, "b").exists()


def test_records_of_what_has_gone(models: Project, tmp_path: Path) -> None:
    """Issue 5.6: stamps of files of the user's, catalogues as they were, old logs, halves of files."""
    mine = tmp_path / "mine.llamafile"
    mine.write_bytes(DATA["c"])
    digest = hashlib.sha256(DATA["c"]).hexdigest()
    kept = Path(shutil.copy(mine, tmp_path / "kept.llamafile"))
    for path in (mine, kept):
        assert models.doit("download", "--llamafile", str(path), "--sha256", digest).status == 0
    assert len(list(models.cache.glob("stamps/*.json"))) == 2
    mine.unlink()
    models.run_folder.mkdir(parents=True)
    logs = [models.run_folder / name for name in ("x-1.log", "x-1.log.1", "y-2.log", "z-3.log")]
    for log in logs:
        log.write_text("…")
        age(log, 40)
    age(logs[2], 3)
    logs[3].with_suffix(".json").write_text("{}")
    half = models.cache / "catalogue" / ("a" * 64 + ".json.1-2.tmp")
    half.write_text("{")
    age(half, 1)
    report = pruned(models)
    whys = {row["path"]: row["why"] for row in report["removed"]}
    assert whys.pop(f"catalogue/{half.name}") == "left by a writer that was killed"
    assert "stale compiled catalogue" in whys.values()
    assert len(list(models.cache.glob("catalogue/*"))) == 1
    assert [log.exists() for log in logs] == [False, False, True, True]
    assert len(list(models.cache.glob("stamps/*.json"))) == 1
    assert models.doit("download", "--llamafile", str(kept), "--sha256", digest).err.startswith("-- ")


# Several projects


def test_two_projects_with_one_cache(models: Project, tmp_path: Path) -> None:
    """Issue 5.6: a model of another project stays as long as its catalogue is there."""
    other = second(models, tmp_path / "second")
    named(other, "b")
    assert other.doit("download:b").err == "-- download:b\n"
    report = pruned(models)
    assert paths(report) == []
    assert report["catalogues"] == [str(one.path / "models.yaml") for one in (models, other)]
    assert paths(pruned(other)) == []
    shutil.rmtree(other.path)
    report = pruned(models)
    assert at(models, target(models, "b")) in paths(report)
    assert "its catalogue does not exist" in [row["why"] for row in report["removed"]]
    assert len(list(models.cache.glob("roots/*"))) == 1


def test_two_checkouts_of_one_catalogue(project: Project, tmp_path: Path) -> None:
    """Issue 5.6: of two with equal content each counts, also if the first one moves on."""
    named(project, "ab")
    fetched(project, "--model", "b")
    other = second(project, tmp_path / "second")
    named(other, "ab")
    assert other.doit("download:b").err == "-- download:b\n"
    named(project, "a")
    assert paths(pruned(project)) == []
    named(other, "a")
    assert at(project, target(project, "b")) in paths(pruned(project))


def test_another_catalogue_that_is_broken(models: Project, tmp_path: Path) -> None:
    """Issue 5.6: its files are not known, so nothing is removed; the error says what to do."""
    other = second(models, tmp_path / "second")
    named(other, "b")
    assert other.doit("list").status == 0
    (other.path / "models.yaml").write_text("version: 1\nmodel: {}\n")
    result = models.doit("prune")
    assert (result.status, result.out) == (1, "")
    assert "a catalogue cannot be read: which files it needs is not known" in result.err
    assert str(other.path / "models.yaml") in result.err
    assert target(models, "b").exists()
    record = result.err.split("or delete ")[1].split(" if ")[0]
    Path(record).unlink()
    assert at(models, target(models, "b")) in paths(pruned(models))


def test_a_catalogue_of_another_machine(models: Project) -> None:
    """Issue 5.6: a container has the cache as a volume, and its catalogue where nobody here can see it."""
    record = models.cache / "roots" / ("0" * 16 + ".json")
    record.write_text(json.dumps({"path": "/app/models.yaml", "machine": "container"}))
    report = pruned(models)
    assert paths(report) == []
    assert report["not_asked"] == [f"/app/models.yaml of container (roots/{record.name})"]
    assert "catalogue not checked: /app/models.yaml of container" in models.doit("prune").out
    for path in target(models, "b").parent.iterdir():
        age(path, 40)
    assert at(models, target(models, "b")) in paths(pruned(models, "--older-than", "30d"))
    assert record.exists()


# What is in use


@posix
def test_a_model_that_is_served(servers: Project, tmp_path: Path) -> None:
    """Issue 5.6: a file that no catalogue names, and a server uses, stays until that has ended."""
    named(servers, "a")
    behave(servers)
    served = tmp_path / "served.llamafile"
    llamafile.build(served, version="0.8.6")
    with FileServer() as server:
        server.files["/s.llamafile"] = served.read_bytes()
        url = server.url("/s.llamafile")
        base = started(servers, "--llamafile-url", url, "--port", "0")
        [path] = servers.cache.glob("models/*/s.llamafile")
        report = json.loads(servers.doit("prune", "--older-than", "0d", "--json").out)
        assert paths(report) == []
        assert {row["kept"] for row in report["kept"]} == {"a server uses it"}
        assert "kept: a server uses it" in servers.doit("prune", "--older-than", "0d").out
        assert path.exists()
        assert ask(base, "still there") == "still there"
        assert servers.doit("stop").status == 0
        assert paths(pruned(servers)) == []  # served lately
        report = pruned(servers, "--older-than", "0d")
        assert at(servers, path) in paths(report)
        assert not path.exists()


@posix
def test_a_server_that_is_starting(servers: Project, tmp_path: Path) -> None:
    """Issue 5.6: an engine that loads its model has it open, too."""
    named(servers, "a")
    behave(servers, load_seconds=3)
    served = tmp_path / "served.llamafile"
    llamafile.build(served, version="0.8.6")
    words = [servers.doit_program, "start", "--llamafile-url", str(served), "--port", "0"]
    with subprocess.Popen(words, cwd=servers.path, env=servers.env, stdout=subprocess.DEVNULL) as start:
        wait_until(lambda: list(servers.cache.glob("run/*/served-*.json")), "a record", 60)
        report = json.loads(servers.doit("prune", "--older-than", "0d", "--json").out)
        assert paths(report) == []
        assert len(report["kept"]) == 2
        assert start.wait(60) == 0


@pytest.mark.parametrize("machine", ["here", "elsewhere"])
def test_a_record_of_a_server(models: Project, machine: str) -> None:
    """Issue 5.6: one of this machine that nothing stands behind keeps nothing; another machine's does."""
    folder = models.run_folder if machine == "here" else models.cache / "run" / "elsewhere"
    folder.mkdir(parents=True)
    engine = {**process_identity.process(os.getpid()).as_record(), "pid": 2**22 + 1, "boot": "before"}
    record = folder / "b-1.json"
    record.write_text(json.dumps({
        "name": "b", "mode": "start", "host": "127.0.0.1", "port": 1, "spec": {}, "mark": "0" * 16,
        "command": ["/bin/sh", f"/volume/{at(models, target(models, 'b'))}"],
        "log": "/b-1.log", "state": "ready", "engine": engine, "keeper": engine,
    }))  # fmt: skip
    report = pruned(models)
    assert target(models, "b").exists() is (machine == "elsewhere")
    assert len(paths(report, "kept")) == (2 if machine == "elsewhere" else 0)
    assert record.exists()


@pytest.mark.parametrize("is_named", [True, False])
def test_a_download_that_is_going_on(project: Project, is_named: bool) -> None:
    """Issue 5.6: what is being written stays, whatever --older-than says, and comes to its end."""
    named(project, "a")
    with FileServer() as server:
        server.files["/x.llamafile"] = BIG
        server.set_rate("/x.llamafile", 4_000_000)
        url, digest = server.url("/x.llamafile"), hashlib.sha256(BIG).hexdigest()
        if is_named:
            project.catalogue({"a": project.entry(url, BIG)})
        words = ["download"] if is_named else ["download", "--llamafile-url", url, "--sha256", digest]
        with project.start(*words) as running:
            wait_until(lambda: list(project.cache.glob("models/*/x.llamafile.partial.json")), "a partial")
            report = pruned(project, "--older-than", "0d")
            assert paths(report) == []
            assert {row["kept"] for row in report["kept"]} == {"another process uses it"}
            server.set_rate("/x.llamafile", 1e9)
            assert running.finish().status == 0
        assert project.target(BIG, "x.llamafile").read_bytes() == BIG


def test_a_partial_whose_owner_lives(models: Project) -> None:
    """Issue 5.6: where file locks lie, the journal says who is at it."""
    leave_partial(target(models, "b"), DATA["b"], 20_000)
    journal = target(models, "b").with_name("b.llamafile.partial.json")
    data = json.loads(journal.read_text())
    journal.write_text(json.dumps({**data, "owner": process_identity.current().as_owner()}))
    report = json.loads(
        good(models.process("prune", "--json", "--older-than", "0d")).out
    )  # for which this process is another one
    assert paths(report) == []
    assert len(paths(report, "kept")) == 4


# What is not ours


def test_links_lead_nowhere(models: Project, tmp_path: Path) -> None:
    """Issue 5.6: a link to a file goes as a link; what lies behind a link to a folder is not even seen."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "x.llamafile").write_bytes(DATA["c"])
    folder = models.cache / "models" / ("c" * 16)
    folder.mkdir()
    (folder / "x.llamafile").symlink_to(precious / "x.llamafile")
    (models.cache / "models" / ("d" * 16)).symlink_to(precious)
    shutil.rmtree(models.cache / "stamps", ignore_errors=True)
    (models.cache / "stamps").symlink_to(precious)
    report = pruned(models)
    assert at(models, folder / "x.llamafile") in paths(report)
    assert not folder.exists()
    assert (models.cache / "models" / ("d" * 16)).is_symlink()
    assert list(precious.iterdir()) == [precious / "x.llamafile"]
    assert (precious / "x.llamafile").read_bytes() == DATA["c"]


def test_models_on_another_disk(models: Project, tmp_path: Path) -> None:
    """Issue 5.6: where `models` itself is a link out of the cache, nothing behind it goes."""
    elsewhere = (models.cache / "models").rename(tmp_path / "elsewhere")
    (models.cache / "models").symlink_to(elsewhere)
    assert paths(pruned(models)) == []
    assert target(models, "b").exists()


def test_files_of_the_users_in_the_cache(models: Project) -> None:
    """Issue 5.6: only what the recipe makes, where it makes it."""
    mine = [
        models.cache / name for name in ("notes.txt", "models/mine/x.gguf", "engines/mine", "run/mine.txt")
    ]
    for path in mine:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        age(path, 1000)
    pruned(models)
    assert all(path.read_text() == "mine" for path in mine)


def test_a_directory_that_is_no_cache(models: Project, tmp_path: Path) -> None:
    """Issue 5.6: LLAMAFILE_CACHE=$HOME; nothing is removed where our tag is not."""
    home = tmp_path / "someones"
    shutil.copytree(models.cache, home)
    (home / "CACHEDIR.TAG").write_text("Signature: another\n")
    before = files(home / "models")
    result = models.doit("prune", env={"LLAMAFILE_CACHE": str(home)})
    assert (result.status, result.out) == (1, "")
    assert f"{home} is not marked as a cache of this recipe: nothing is removed there" in result.err
    assert "fix: LLAMAFILE_CACHE=" in result.err
    assert files(home / "models") == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows removes no read-only file")
def test_a_read_only_file(models: Project) -> None:
    """Issue 5.6: its mode is no reason to keep it."""
    target(models, "b").chmod(0o444)
    assert at(models, target(models, "b")) in paths(pruned(models))
    assert not target(models, "b").exists()


def test_a_folder_that_cannot_be_written(models: Project) -> None:
    """Issue 5.6: what cannot be removed is reported, status 1, and the rest goes on."""
    named(models, "abc")
    fetched(models, "--model", "c")
    named(models, "a")
    folder = target(models, "b").parent
    folder.chmod(0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write to any folder")
    try:
        result = models.doit("prune", "--json")
    finally:
        folder.chmod(0o755)
    report = json.loads(result.out)
    assert result.status == 1
    assert len(paths(report, "failed")) == 2
    assert at(models, target(models, "c")) in paths(report)
    assert "not everything could be removed" in result.err
    assert not target(models, "c").exists()


def test_a_cache_whose_locks_cannot_be_taken(models: Project) -> None:
    """Issue 5.6: then nobody knows who is at it: it stays, and status 1 says so."""
    shutil.rmtree(models.cache / "locks")
    (models.cache / "locks").write_text("")
    result = models.doit("prune", "--json")
    assert result.status == 1
    assert len(paths(json.loads(result.out), "failed")) == 2
    assert "cannot write to the cache" in result.err
    assert target(models, "b").exists()
