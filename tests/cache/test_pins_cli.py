"""A pin holds where bytes are used: whatever lies in the cache, only the file that git names is run."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tasks.catalogue import load
from tasks.catalogue.environment import Environment
from tasks.catalogue.model_files import llamafile_exe
from tasks.catalogue.resolve import resolve_entry
from tasks.errors import IntegrityError
from tasks.server.server_record import Mode
from tasks.server.session import ManagedServer, specify

from tests.cli.test_steps import good, steps
from tests.fakes import llamafile
from tests.fakes.server import FileServer
from tests.server.test_serve_cli import ask, serving, with_gguf, with_llamafile
from tests.support.project import Project, Result
from tests.support.stamps import as_older_version, restamp, stamp_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")
WAYS: pytest.MarkDecorator = pytest.mark.parametrize(
    ("words", "env"),
    [
        pytest.param([], {}, id="as usual"),
        pytest.param(["--frozen"], {}, id="--frozen"),
        pytest.param([], {"CI": "true"}, id="CI"),
    ],
)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """A file that is there once the evil program has run."""
    return tmp_path / "evil-ran"


def evil(ran: Path, size: int = 0) -> bytes:
    """A program that says what is expected of it, and has been run."""
    text = f"#!/bin/sh\ntouch '{ran}'\necho llamafile v0.10.5\nexit\n".encode()
    return text.ljust(size, b"#")


def replaced(target: Path, data: bytes) -> None:
    """Put another file in its place, of the same mode and time (`touch -r`)."""
    was = target.stat()
    other = target.with_name("other")
    other.write_bytes(data)
    other.chmod(stat.S_IMODE(was.st_mode))
    os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns))
    other.replace(target)


def said(result: Result, status: int = 0) -> str:
    assert result.status == status, result.err
    return result.err


# engines (finding 1)


@pytest.mark.parametrize("lies", ["unpinned", "under its digest", "as an older version keeps it"])
@WAYS
def test_the_same_version_with_another_digest(
    project: Project, ran: Path, words: list[str], env: dict[str, str], lies: str
) -> None:
    """Issue 11.2: a program of the same version that git does not name is never run."""
    model, exe = with_gguf(project)
    right = (project.path / "models.yaml").read_text("utf-8")
    program, name = (project.path / "llamafile-0.10.5").read_bytes(), "llamafile-0.10.5"
    (project.path / "evil").write_bytes(evil(ran))
    engine = {"title": "l", "license": "MIT", "version": "0.10.5", "url": "evil"}
    if lies != "unpinned":
        engine["sha256"] = hashlib.sha256(evil(ran)).hexdigest()
    data = (project.path / "g.gguf").read_bytes()
    project.catalogue({"g": project.entry("g.gguf", data)}, {"llamafile": engine})
    said(project.doit("exe"))
    ran.unlink()
    [found] = project.cache.glob(f"engines/*/{name}")
    if lies == "as an older version keeps it":
        restamp(found, sha256=hashlib.sha256(program).hexdigest())
        as_older_version(found)
        for path in (found, stamp_of(found)):
            path.rename(project.cache / "engines" / path.name)
    (project.path / "models.yaml").write_text(right, "utf-8")
    said(project.doit("exe", *words, env=env))
    if lies == "under its digest" or not (words or env):  # what is served is what `exe` has found
        with serving(project, "serve", *words, "--port", "0", env=env) as (_, url):
            assert ask(url, "Hello") == "Hello"
        assert model.exists()
    assert not ran.exists()
    assert exe.read_bytes() == program


def test_a_digest_that_moved_in_the_lock(project: Project, ran: Path) -> None:
    """Issue 11.2: a release is replaced, the lock follows it: the old program is not run any more."""
    with_gguf(project)
    model = (project.path / "g.gguf").read_bytes()
    engine = {"title": "l", "license": "MIT", "version": "0.10.5", "url": "program"}
    project.catalogue({"g": project.entry("g.gguf", model)}, {"llamafile": engine})
    program = project.path / "program"
    program.write_bytes(evil(ran))
    said(project.doit("lock"))
    said(project.doit("exe"))
    ran.unlink()
    new = llamafile.build_exe(program, version="0.10.5", pad=7).read_bytes()
    said(project.doit("lock", "--upgrade", "--model", "llamafile"))
    assert ".  exe" in steps(project.doit("exe"))
    assert good(project.doit("exe", "--frozen")) == ["-- exe"]
    assert project.program(new, "llamafile-0.10.5").read_bytes() == new
    assert not ran.exists()


def test_an_engine_of_an_older_version(project: Project) -> None:
    """Issue 11.2: it is read, and not downloaded again; `doit prune` keeps it until then, and no longer."""
    _, exe = with_gguf(project)
    good(project.doit("verify"))
    as_older_version(exe)
    old = project.cache / "engines" / exe.name
    for path in (exe, stamp_of(exe)):
        path.rename(old.with_name(path.name))
    exe.parent.rmdir()
    (project.path / "llamafile-0.10.5").unlink()
    assert old.name not in project.doit("prune").out
    result = project.doit("verify")
    assert ".  exe" in good(result)
    assert f" {old}, sha256 verified" in result.err
    assert "-- exe" in good(project.doit("verify", env={"CI": "true"}))
    assert f"engines/{old.name}" in project.doit("prune").out
    assert not old.exists()
    assert project.doit("audit").status == 0
    assert good(project.doit("exe")) == ["-- exe"]


def test_an_engine_that_is_not_named_any_more(project: Project) -> None:
    """Issue 11.2: `doit prune` removes it with its folder; audit and bom name the one that is there."""
    _, exe = with_gguf(project)
    said(project.doit("exe"))
    path = exe.relative_to(project.cache).as_posix()
    for verb in ("audit", "bom"):
        assert path in project.doit(verb, "--json").out
    engine = {"title": "l", "license": "MIT", "version": "0.10.6", "url": "llamafile-0.10.6"}
    data = (project.path / "g.gguf").read_bytes()
    project.catalogue({"g": project.entry("g.gguf", data)}, {"llamafile": engine})
    assert path in project.doit("prune").out
    assert not exe.parent.exists()


# stamps (findings 5, 11)


@WAYS
def test_a_file_with_the_size_and_the_time_of_the_right_one(
    project: Project, ran: Path, words: list[str], env: dict[str, str]
) -> None:
    """Issue 11.2: `touch -r` deceives nobody: the file is read, and fetched again."""
    data = with_llamafile(project)
    target = project.target(data, "m.llamafile")
    good(project.doit("verify"))
    replaced(target, evil(ran, len(data)))
    with serving(project, "serve", *words, "--port", "0", env=env) as (running, _):
        assert "m has changed on disk; downloading it again" in running.err
    assert target.read_bytes() == data
    assert not ran.exists()


def test_a_copied_cache_is_read_once(project: Project) -> None:
    """Issue 11.2: `cp -a`: read, not fetched, its engine not asked again; then remembered."""
    data = with_llamafile(project)
    good(project.doit("verify"))
    shutil.copytree(project.cache, project.cache.with_name("copy"))
    (project.path / "m.llamafile").unlink()
    env = {"LLAMAFILE_CACHE": str(project.cache.with_name("copy"))}
    result = project.doit("verify", env=env)
    assert good(result) == [".  download:m", "-- chmod:m", "-- verify:m"]
    assert "m: the digest is correct, nothing is downloaded" in result.err
    assert good(project.doit("verify", env=env)) == ["-- download:m", "-- chmod:m", "-- verify:m"]
    assert good(project.doit("verify")) == ["-- download:m", "-- chmod:m", "-- verify:m"]
    assert project.target(data, "m.llamafile").exists()


def test_a_stamp_of_an_older_version(project: Project) -> None:
    """Issue 11.2: read once; what was proven of the same bytes stays."""
    target = project.target(with_llamafile(project), "m.llamafile")
    good(project.doit("verify"))
    as_older_version(target)
    assert good(project.doit("verify")) == [".  download:m", "-- chmod:m", "-- verify:m"]
    assert good(project.doit("verify")) == ["-- download:m", "-- chmod:m", "-- verify:m"]
    stamp = json.loads(stamp_of(target).read_text("utf-8"))
    assert stamp["ino"] == target.stat().st_ino
    assert stamp["engines"] == {"self": "0.8.6"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
@WAYS
def test_a_stamp_that_another_user_wrote(
    project: Project, ran: Path, words: list[str], env: dict[str, str]
) -> None:
    """Issue 11.2: it proves nothing, however right it is."""
    data = with_llamafile(project)
    target = project.target(data, "m.llamafile")
    good(project.doit("verify"))
    replaced(target, evil(ran, len(data)))
    restamp(target)
    os.chown(stamp_of(target), 12345, 12345)
    said(project.doit("download", *words, env=env))
    said(project.doit("verify", env=env))
    assert target.read_bytes() == data
    assert not ran.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a file system")
@pytest.mark.parametrize("why", ["copied", "an older version's", "another user's"])
def test_a_cache_that_is_read_only(project: Project, mount: Callable[..., Path], why: str) -> None:
    """Issue 11.2: nothing can be remembered there, so every run reads the file; then it works."""
    data, place = with_llamafile(project), mount("mode=755")
    good(project.doit("verify"))
    cache = Path(shutil.copytree(project.cache, place / "cache"))
    target = cache / project.target(data, "m.llamafile").relative_to(project.cache)
    if why == "an older version's":
        as_older_version(target)
    elif why == "another user's":
        restamp(target)
        os.chown(stamp_of(target), 12345, 12345)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    (project.path / "m.llamafile").unlink()
    env, read = {"LLAMAFILE_CACHE": str(cache)}, "m: the digest is correct, nothing is downloaded"
    with serving(project, "serve", "--port", "0", env=env) as (running, url):
        assert read in running.err
        assert ask(url, "Hello") == "Hello"
    assert read in said(project.doit("verify", env=env))


@pytest.mark.parametrize("what", ["link", "folder", "pipe", "huge"])
def test_a_stamp_that_is_another_kind_of_file(project: Project, what: str) -> None:
    """Issue 11.2: the file is read once; nothing hangs. A folder in its place is an error with its name."""
    target = project.target(with_llamafile(project), "m.llamafile")
    good(project.doit("verify"))
    stamp = stamp_of(target)
    if what == "link":
        stamp.rename(stamp.with_name("elsewhere"))
        stamp.symlink_to("elsewhere")
    else:
        stamp.unlink()
    if what == "folder":
        stamp.mkdir()
        assert str(stamp) in said(project.doit("verify"), 1)
        return
    if what == "pipe":
        os.mkfifo(stamp)
    elif what == "huge":
        stamp.touch()
        os.truncate(stamp, 10**12)
    assert steps(project.doit("verify"))[0] == ".  download:m"
    assert stamp.is_file()
    assert not stamp.is_symlink()


def test_a_forged_stamp_is_found_by_the_audit(project: Project, ran: Path) -> None:
    """Issue 11.2: a stamp is no signature; the audit reads what is pinned, engines too, and mends it."""
    model, exe = with_gguf(project)
    good(project.doit("verify"))
    bytes_of = {path: path.read_bytes() for path in (model, exe)}
    for path, data in bytes_of.items():
        replaced(path, evil(ran, len(data)))
        restamp(path)
    ran.unlink(missing_ok=True)
    err = said(project.doit("audit"), 1)
    assert "2 files failed verification" in err
    assert "doit exe" in err
    assert "doit download:g" in err
    assert good(project.doit("verify"))
    assert {path: path.read_bytes() for path in bytes_of} == bytes_of
    assert not ran.exists()


def test_after_an_audit_nothing_is_read_again(project: Project) -> None:
    """Issue 11.2: what the audit has read and found right is proven, in a copied cache as well."""
    _, exe = with_gguf(project)
    good(project.doit("verify"))
    shutil.copytree(project.cache, project.cache.with_name("copy"))
    env = {"LLAMAFILE_CACHE": str(project.cache.with_name("copy"))}
    assert project.doit("audit", env=env).status == 0
    assert not [line for line in good(project.doit("verify", env=env)) if line.startswith(". ")]
    assert exe.exists()


# the compiled catalogue (finding 5)


def test_a_forged_compiled_catalogue(project: Project, ran: Path) -> None:
    """Issue 11.2: CI, --frozen, audit and lock --check read models.yaml itself."""
    with FileServer() as server:
        data = llamafile.build(project.path / "m.llamafile").read_bytes()
        server.files |= {"/m.llamafile": data, "/evil.llamafile": evil(ran)}
        project.catalogue({"m": project.entry(server.url("/m.llamafile"), data)})
        project.cache.mkdir()
        for locked in ("lock", "catalogue"):
            said(project.doit(locked))
        digest = hashlib.sha256(data).hexdigest()
        path = project.cache / load.compiled_path(str(project.path / "models.yaml"))
        text = path.read_text("utf-8").partition("\n")[2]
        text = text.replace(digest, hashlib.sha256(evil(ran)).hexdigest())
        text = text.replace(f'"size": {len(data)}', f'"size": {len(evil(ran))}')
        text = text.replace("/m.llamafile", "/evil.llamafile")

        def forge() -> None:
            path.write_text(f"{load._checksum(path.stem, text)}\n{text}", "utf-8")

        forge()
        assert "evil.llamafile" in project.doit("catalogue", "--json").out  # whoever trusts the cache
        for words, env in ((["verify"], {"CI": "true"}), (["download", "--frozen"], {})):
            forge()
            said(project.doit(*words, env=env))
            assert "evil.llamafile" not in project.doit("catalogue", "--json").out
        forge()
        [row] = json.loads(project.doit("audit", "--json").out)
        assert row["expected"] == f"sha256:{digest}"
        forge()
        [row] = json.loads(project.doit("audit:m", "--json").out)
        assert row["expected"] == f"sha256:{digest}"
        forge()
        assert project.doit("lock", "--check").status == 0
        assert server.asked("/evil.llamafile") == []
    assert not ran.exists()


# what was hashed is what is used (finding 12)


@pytest.mark.skipif(sys.platform != "linux", reason="uses a sparse file of a terabyte")
def test_a_file_that_is_replaced_while_it_is_read(project: Project, ran: Path) -> None:
    """Issue 11.2: the digest of the one says nothing about the other, which is not run."""
    data = llamafile.build(project.path / "m.llamafile").read_bytes()
    project.catalogue({"m": project.entry("m.llamafile")})
    said(project.doit("verify"))
    [target] = project.cache.glob("models/url-*/m.llamafile")
    stamp_of(target).unlink()
    os.truncate(target, 10**12)
    with target.open("r+b") as file, project.start("verify", env={"LLAMAFILE_LOG": "json"}) as running:
        running.wait_for('"progress"')
        replaced(target, evil(ran))
        file.truncate(len(data))  # so that it has been read to its end
        result = running.finish()
    assert result.status == 1
    assert "was changed or replaced while it was read" in result.err
    assert not ran.exists()


def test_a_program_that_replaces_itself(project: Project, ran: Path, tmp_path: Path) -> None:
    """Issue 11.2: what it said of itself is not kept for what lies there now."""
    other = tmp_path / "other"
    other.write_bytes(evil(ran))
    other.chmod(0o755)
    script = f"#!/bin/sh\nmv '{other}' \"$0\"\necho llamafile v0.10.5\nexit\n".encode()
    (project.path / "m.llamafile").write_bytes(script)
    project.catalogue({"m": project.entry("m.llamafile", script)})
    err = said(project.doit("serve", "--port", "0"), 1)
    assert "is not the file that was verified" in err
    assert "fix: run it again" in err
    assert not ran.exists()


@pytest.mark.parametrize("which", ["model", "program"])
def test_a_file_that_is_replaced_before_the_start(project: Project, ran: Path, which: str) -> None:
    """Issue 11.2: each file is compared with its pin once more right before the engine is started."""
    model, exe = with_gguf(project)
    good(project.doit("verify"))
    path = str(project.path / "models.yaml")
    catalogue = load.load(path, str(project.cache))
    environment = Environment(sys.platform, str(project.cache), str(project.path), str(project.path))
    resolved = resolve_entry("g", catalogue, environment)._replace(exe=llamafile_exe(catalogue, environment))
    replaced(exe if which == "program" else model, evil(ran))
    with pytest.raises(IntegrityError, match="is not the file that was verified"):
        ManagedServer(environment.cache, specify(environment, catalogue, resolved), Mode.SERVE, 1, [])
    assert not ran.exists()
    assert not list(project.run_folder.glob("*.json"))
    assert not list(project.run_folder.glob("*.key"))


# modes (finding 13, 4b)


def test_a_link_to_a_private_file(project: Project, tmp_path: Path) -> None:
    """Issue 11.2: no mode is changed through a link in the cache; the error says what to do."""
    data = with_llamafile(project)
    target = project.target(data, "m.llamafile")
    good(project.doit("download"))
    private = tmp_path / "private"
    private.write_bytes(data)
    private.chmod(0o600)
    target.unlink()
    target.symlink_to(private)
    err = said(project.doit("chmod"), 1)
    assert f"{target} is a link; the mode of its target was not changed" in err
    assert f"fix: delete {target} and run the command again" in err
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    target.unlink()
    assert good(project.doit("chmod")) == [".  download:m", ".  chmod:m"]


def test_a_mode_that_is_set_is_no_other_file(project: Project) -> None:
    """Issue 11.2: chmod changes the file's ctime, and its proof with it: nothing is read twice."""
    target = project.target(with_llamafile(project), "m.llamafile")
    assert good(project.doit("chmod")) == [".  download:m", ".  chmod:m"]
    assert good(project.doit("chmod")) == ["-- download:m", "-- chmod:m"]
    own = project.path / "own.llamafile"
    shutil.copy(target, own)
    own.chmod(0o600)
    digest = hashlib.sha256(own.read_bytes()).hexdigest()
    words = ["serve", "--llamafile", str(own), "--sha256", digest, "--port", "0"]
    for done in (". ", "--"):
        with serving(project, *words) as (running, _):
            lines = running.err.splitlines()
        mine = [line for line in lines if line.endswith((" download:own", " chmod:own"))]
        assert [line[:2] for line in mine] == [done, done]
    assert stat.S_IMODE(own.stat().st_mode) == 0o700


# what an interpreter imports


@pytest.mark.parametrize("words", [["verify"], ["start", "--port", "0"]], ids=["verify", "start"])
def test_a_module_in_the_cache(project: Project, ran: Path, words: list[str]) -> None:
    """`python -m` imports from its working directory first: that is no folder of the cache."""
    pytest.importorskip("xllamacpp")
    for folder in (project.cache / "run", project.run_folder):
        (folder / "tasks").mkdir(parents=True)
        for name in ("signal.py", "xllamacpp.py", "tasks/__init__.py", "tasks/embedded.py"):
            (folder / name).write_text(f"open({str(ran)!r}, 'w').close()\n")
    try:
        said(project.background(*words, "--model", "demo"))
    finally:
        said(project.doit("stop", "--all"))
    assert not ran.exists()
