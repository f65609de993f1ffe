"""`doit doctor` on real machines: healthy ones, and ones that lack something."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.server import FileServer, Status
from tests.fakes.tls import self_signed
from tests.support.ports import closed_port, free_port
from tests.support.project import Project, Result, wait_until

linux = pytest.mark.skipif(sys.platform != "linux", reason="the mounts are Linux's")
CHECKS = [*("cache", "cpu", "gpu", "engine", "noexec", "loader", "locks"), *("disk", "memory", "port", "hub")]


@pytest.fixture
def hub() -> Iterator[FileServer]:
    """The Hub's front page."""
    with FileServer() as server:
        server.files["/"] = b"models"
        yield server


@pytest.fixture
def healthy(project: Project, hub: FileServer) -> Project:
    """A project on a machine on which nothing fails."""
    project.env |= {"HF_ENDPOINT": hub.url(""), "LC_ALL": "C.UTF-8"}
    model = project.entry("https://models.invalid/m.llamafile", b"model", ram=1)
    project.catalogue({"m": {**model, "serve": {"port": free_port(), "cors": "*"}}})
    return project


def rows(project: Project, status: int = 0, **env: str) -> dict[str, dict[str, Any]]:
    """What `doit doctor --json` says, by check."""
    result = project.doit("doctor", "--json", env=env)
    assert result.status == status, result
    found = json.loads(result.out)
    assert all(set(row) == {"check", "state", "found", "remedy"} for row in found)
    assert ("fail" in {row["state"] for row in found}) is (status == 1)
    assert all(bool(row["remedy"]) is (row["state"] != "ok") for row in found)
    return {row["check"]: row for row in found}


def verdict(found: Mapping[str, Mapping[str, Any]], check: str, state: str, text: str, fix: str = "") -> None:
    row = found[check]
    assert (row["state"], text in row["found"], fix in row["remedy"]) == (state, True, True), row


def others(found: Mapping[str, Mapping[str, Any]], *checks: str) -> dict[str, str]:
    """What is not well beside these; the tests' own machine may be short of memory."""
    return {n: r["found"] for n, r in found.items() if r["state"] != "ok" and n not in (*checks, "memory")}


@linux
def test_a_healthy_machine(healthy: Project, hub: FileServer) -> None:
    """Issue 5.8: each line ok; nothing of the checks is left, and the Hub was asked for its head alone."""
    found = rows(healthy)
    assert list(found) == CHECKS
    assert not others(found)
    verdict(found, "hub", "ok", f"{hub.url('')} answers")
    verdict(found, "disk", "ok", "m takes 5 B")
    assert [(r.method, r.headers["Authorization"]) for r in hub.requests] == [("HEAD", None)]
    left = [path.name for path in healthy.cache.rglob("*") if "doctor" in path.name]
    assert left == []


def test_what_people_read(healthy: Project) -> None:
    """Issue 5.8: a table in plain words where there is no terminal, then what to do, then the count."""
    with closed_port() as port:
        result = healthy.doit("doctor", env={"HF_ENDPOINT": f"http://127.0.0.1:{port}", "CI": "true"})
    assert (result.status, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[0].split() == ["check", "state", "found"]
    assert [line.split()[0] for line in lines[1 : len(CHECKS) + 1]] == CHECKS
    assert "\x1b" not in result.out
    at = lines.index(f"hub: http://127.0.0.1:{port}: Connection refused")
    assert lines[at + 1].startswith("  fix: check the network, HTTPS_PROXY and HF_ENDPOINT; what is in the ")
    assert lines[-1] in (f"{len(CHECKS) - 1} ok, 1 warn, 0 fail", f"{len(CHECKS) - 2} ok, 2 warn, 0 fail")


def test_a_model_that_fits_is_named(project: Project) -> None:
    """Issue 14: no context helps where the weights alone are too large; then a model that fits does."""
    sizes = {"big": 10**15, "tiny": 10**6, "small": 2 * 10**6, "other": 3 * 10**6}
    models: dict[str, Any] = {}
    for name, size in sizes.items():
        entry = project.entry(f"https://models.invalid/{name}.llamafile", b"", size=size, params="1B")
        models[name] = {**entry, "serve": {"ctx_size": 512}}
    models["other"]["kind"] = "embedding"
    project.catalogue(models)
    found = rows(project, HF_HUB_OFFLINE="1")
    fix = "a smaller model, such as small (`doit catalogue --fits` shows them)"
    verdict(found, "memory", "warn", "big needs about 1000", fix)
    assert "--ctx-size" not in found["memory"]["remedy"]


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals")
def test_colours_on_a_terminal(healthy: Project) -> None:
    """Issue 5.8: and none with NO_COLOR."""
    import pty

    for more, colour in (({}, True), ({"NO_COLOR": "1"}, False)):
        ours, theirs = pty.openpty()
        environment = {**healthy.env, "TERM": "xterm-256color", **more}
        command = [healthy.doit_program, "doctor"]
        with healthy.popen(command, environment)(
            command, cwd=healthy.path, env=environment, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs
        ) as running:
            os.close(theirs)
            shown = b""
            while True:
                try:
                    shown += (block := os.read(ours, 65536))
                except OSError:  # Linux says EIO where the other side has closed
                    break
                if not block:
                    break
        os.close(ours)
        assert running.returncode == 0
        assert (b"\x1b[32mok" in shown) is colour, shown


def test_another_model_than_the_default(project: Project) -> None:
    """Issue 5.8: `doit doctor:NAME` looks with its needs; a name that is none is said at once."""
    one = project.entry("https://models.invalid/m.llamafile", b"m", ram=1)
    project.catalogue({"m": one, "big": {**one, "size": 10**15, "ram": 10**6, "aliases": ["b"]}})
    for words in (["doctor:b"], ["doctor", "--model", "big"]):
        result = project.doit(*words, env={"LLAMAFILE_OFFLINE": "1"})
        assert "big takes 1000000.0 GB" in result.out
        assert "big needs about 1000000.0 GB\n  fix: a smaller model" in result.out
    result = project.doit("doctor:bgi")
    assert (result.status, result.out) == (3, "")
    assert "did you mean b" in result.err


def test_the_embedded_engine_is_looked_for_where_it_is_needed(project: Project) -> None:
    """Issue 5.8: the demo needs the optional package."""
    shown = project.doit("doctor:demo", "--json", env={"LLAMAFILE_OFFLINE": "1"}).out
    row = next(row for row in json.loads(shown) if row["check"] == "embedded")
    here = find_spec("xllamacpp") is not None
    assert (row["state"], row["remedy"]) == (("ok", "") if here else ("fail", "pip install '.[embedded]'"))


@pytest.mark.parametrize("name", ["LLAMAFILE_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(healthy: Project, hub: FileServer, name: str) -> None:
    """Issue 5.4, 5.8: as asked, and no socket is opened to the Hub."""
    found = rows(healthy, 0, **{name: "1"})
    verdict(found, "hub", "ok", f"offline, as {name} asks")
    assert hub.requests == []


def test_a_hub_that_is_ill(healthy: Project, hub: FileServer) -> None:
    """Issue 5.8: it answers, but not as it should."""
    hub.always("/", Status(503))
    verdict(rows(healthy), "hub", "warn", "answers 503", "what is in the cache is served without it")


def test_what_hangs_is_left_behind(healthy: Project, tmp_path: Path) -> None:
    """Issue 5.8, R27: a Hub that says nothing and an nvidia-smi that does not end cost seconds."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\nexec sleep 600\n")
    (tools / "nvidia-smi").chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = rows(
            healthy, HF_ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}",
            PATH=f"{tools}{os.pathsep}{healthy.env['PATH']}",
        )  # fmt: skip
    verdict(found, "hub", "warn", "no complete answer within 5 s")
    if not Path("/proc/driver/nvidia").exists():
        verdict(found, "gpu", "ok", "none seen: the CPU is used")


@pytest.mark.skipif(sys.platform == "win32", reason="shell scripts and signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_at_once(healthy: Project, tmp_path: Path, number: int) -> None:
    """Issue 5.8: with what it has started (`finish` looks for survivors), and without a traceback."""
    tool, seen = tmp_path / "tools" / "nvidia-smi", tmp_path / "seen"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho >{seen}\nexec sleep 600\n")
    tool.chmod(0o755)
    env = {"PATH": f"{tool.parent}{os.pathsep}{healthy.env['PATH']}"}
    with healthy.start("doctor", env=env) as running:
        wait_until(seen.exists)
        running.note_family()
        running.send(number)
        result = running.finish()  # less than the sleep
    assert (result.status, result.out) == (128 + number, "")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_a_gpu_is_seen(healthy: Project, tmp_path: Path) -> None:
    """Issue 5.8: as nvidia-smi lists it."""
    tool = tmp_path / "tools" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4 (UUID: GPU-0123)'\n")
    tool.chmod(0o755)
    found = rows(healthy, PATH=f"{tool.parent}{os.pathsep}{healthy.env['PATH']}")
    if not Path("/proc/driver/nvidia").exists():
        verdict(found, "gpu", "ok", "GPU 0: NVIDIA L4")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificates(healthy: Project, tmp_path: Path) -> None:
    """Issue 5.8, R29: not trusted fails; with the company's file all is well; a missing file fails."""
    certificate, key = self_signed(tmp_path)
    with FileServer(tls=(certificate, key)) as secure:
        secure.files["/"] = b""
        endpoint = secure.url("")
        found = rows(healthy, 1, HF_ENDPOINT=endpoint)
        verdict(found, "hub", "fail", "the certificate is not trusted", "REQUESTS_CA_BUNDLE=")
        found = rows(healthy, HF_ENDPOINT=endpoint, REQUESTS_CA_BUNDLE=str(certificate))
        verdict(found, "hub", "ok", "answers")
        missing = str(tmp_path / "none.pem")
        found = rows(healthy, 1, HF_ENDPOINT=endpoint, REQUESTS_CA_BUNDLE=missing)
        verdict(found, "hub", "fail", "certificates to trust cannot be read", "REQUESTS_CA_BUNDLE=")


def test_a_proxy_that_is_closed(healthy: Project) -> None:
    """Issue 5.8: its password is shown nowhere."""
    with closed_port() as port:
        proxy = f"http://user:secret@127.0.0.1:{port}"
        result = healthy.doit("doctor", env={"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy})
        found = rows(healthy, HTTP_PROXY=proxy)
    assert "secret" not in result.out + result.err
    assert "proxy" not in rows(healthy)
    verdict(found, "hub", "warn", "the proxy does not answer", "check HTTP_PROXY")
    verdict(found, "proxy", "warn", "clients ask it", "NO_PROXY=127.0.0.1,localhost;")


def test_an_endpoint_that_is_none(healthy: Project) -> None:
    """Issue 5.8: a word in HF_ENDPOINT is a failure with its remedy, not a traceback."""
    verdict(rows(healthy, 1, HF_ENDPOINT="mirror"), "hub", "fail", "mirror", "HF_ENDPOINT")


def test_a_port_that_is_taken(healthy: Project, hub: FileServer) -> None:
    """Issue 5.8: and by whom."""
    model = healthy.entry("https://models.invalid/m.llamafile", b"model", serve={"port": hub.port})
    healthy.catalogue({"m": model})
    verdict(rows(healthy), "port", "warn", f"is in use by python (pid {os.getpid()})", "--port 0")


def test_a_cache_that_cannot_be_written(healthy: Project, tmp_path: Path) -> None:
    """Issue 5.8: what does not need it is looked at all the same."""
    (tmp_path / "file").write_text("")
    found = rows(healthy, 1, LLAMAFILE_CACHE=str(tmp_path / "file" / "cache"))
    verdict(found, "cache", "fail", "Not a directory", "set LLAMAFILE_CACHE to a directory you can write to")
    assert list(others(found)) == ["cache"]
    assert {"hub", "disk", "port"} <= set(found)


def moved(project: Project, folder: Path) -> None:
    project.cache = folder
    project.env["LLAMAFILE_CACHE"] = str(folder)


@linux
def test_a_read_only_cache(healthy: Project, mount: Callable[..., Path]) -> None:
    """Issue 5.8, 14.6: also for root; where models are, they can be served."""
    moved(healthy, mount("rw"))
    remount = ["mount", "-o", "remount,ro", str(healthy.cache)]
    (healthy.cache / "models").mkdir()
    subprocess.run(remount, check=True, timeout=30)
    found = rows(healthy)
    verdict(
        found, "cache", "warn", "Read-only file system; servers are recorded in ", "to download models, set "
    )
    assert healthy.env["HOME"] in found["cache"]["found"]
    subprocess.run(["mount", "-o", "remount,rw", str(healthy.cache)], check=True, timeout=30)
    (healthy.cache / "models").rmdir()
    subprocess.run(remount, check=True, timeout=30)
    verdict(rows(healthy, 1), "cache", "fail", "Read-only file system", "LLAMAFILE_CACHE")


@linux
def test_a_noexec_cache_and_tmpdir(healthy: Project, mount: Callable[..., Path]) -> None:
    """Issue 5.8: the shell reads a script there, but the kernel maps no program from there."""
    healthy.set_constant("tasks/doctor/probes.py", "LOOK_S", 60.0)  # the machine may be busy
    disk = mount("noexec")
    moved(healthy, disk / "cache")
    found = rows(healthy, 1)
    fix = "set LLAMAFILE_CACHE to another disk, or mount -o remount,exec"
    verdict(found, "noexec", "fail", f"{disk}/cache may not hold programs", fix)
    verdict(found, "engine", "ok", "/bin/sh runs")
    assert list(others(found, "disk")) == ["noexec"]
    found = rows(healthy, 1, TMPDIR=str(disk))
    verdict(found, "loader", "fail", f"{disk} may not hold programs", "export TMPDIR=")


@linux
def test_a_disk_that_is_small_or_full(healthy: Project, mount: Callable[..., Path]) -> None:
    """Issue 5.8: too small for the default model is a warning; no room for any is a failure."""
    model = healthy.entry("https://models.invalid/m.llamafile", b"m")
    healthy.catalogue({"m": {**model, "size": 10**9, "serve": {"port": free_port()}}})
    disk = mount("rw")
    moved(healthy, disk / "cache")
    verdict(rows(healthy), "disk", "warn", "m takes 1.00 GB", "free some space")
    with open(disk / "hog", "wb") as hog:
        hog.truncate(120_000_000)
        os.posix_fallocate(hog.fileno(), 0, 120_000_000)
    verdict(rows(healthy, 1), "disk", "fail", "MB free", "free some space")


@linux
@pytest.mark.skipif(shutil.which("cc") is None, reason="cc makes the library")
def test_locks_that_are_not_honest(healthy: Project, tmp_path: Path) -> None:
    """Issue 5.8: a file system on which two processes get one lock (here: a C library that says so)."""
    source, library = tmp_path / "flock.c", tmp_path / "flock.so"
    source.write_text("int flock(int file, int how) { return 0; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60)
    found = rows(healthy, LD_PRELOAD=str(library))
    verdict(found, "locks", "warn", "two processes hold one lock at once", "LLAMAFILE_CACHE to a local disk")


def test_two_doctors_at_once(healthy: Project) -> None:
    """Issue 5.8: they wait for each other's lock and see nothing wrong."""
    with healthy.start("doctor") as one, healthy.start("doctor") as two:
        ended: list[Result] = [one.finish(), two.finish()]
    assert [result.status for result in ended] == [0, 0]
    assert all("file locking works" in result.out for result in ended)


def test_a_catalogue_with_errors_is_said_first(healthy: Project) -> None:
    """Issue 5.8, 14.4: a warning on stderr; the machine is checked all the same."""
    (healthy.path / "models.yaml").write_text("models: 3\n")
    result = healthy.doit("doctor")
    assert "check " in result.out
