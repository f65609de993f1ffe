"""Run the programs that the download benchmark compares.

Each is a whole process that writes to disk, in an environment without the user's
settings. The result is always checked: a program whose file differs from the server's
has failed, however fast it was.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from origin import NAME, Blob, sha256_of

LIMIT_S = 1800.0  # a run that takes longer has failed
DOIT = os.path.join(sysconfig.get_path("scripts"), "doit")

HASH = """
import hashlib, sys
digest = hashlib.sha256()
with open(sys.argv[1], "rb", buffering=0) as file:
    while block := file.read(1024 * 1024):
        digest.update(block)
sys.exit(digest.hexdigest() != sys.argv[2])
"""
HUB = (
    "import sys, huggingface_hub as h; "
    "h.hf_hub_download('bench/model', sys.argv[1], cache_dir=sys.argv[2])"
)
POOCH = (
    "import sys, pooch; "
    "pooch.retrieve(sys.argv[1], sys.argv[2], fname=sys.argv[3], path=sys.argv[4])"
)


class Job(NamedTuple):
    """One download: its server, its new directory, and the expected file."""

    base: str  # scheme://host:port
    ca: Path
    blob: Blob
    folder: Path
    project: Path  # where `doit` runs

    @property
    def url(self) -> str:
        """Return the URL of the file."""
        return f"{self.base}/{NAME}"


class Outcome(NamedTuple):
    """The result of one run."""

    seconds: float
    rss: int = 0  # peak, in bytes
    problem: str = ""  # why it counts as failed


@dataclass(frozen=True)
class Peer:
    """A compared program."""

    name: str
    proof: str  # what it verifies
    command: Callable[[Job], list[str]]


def _curl(job: Job) -> list[str]:
    # -q: no ~/.curlrc
    return [
        "curl",
        "-q",
        "-sS",
        "--fail",
        "--cacert",
        str(job.ca),
        "-o",
        str(job.folder / NAME),
        job.url,
    ]


def _curl_sha256(job: Job) -> list[str]:
    check = shlex.join(
        [sys.executable, "-c", HASH, str(job.folder / NAME), job.blob.sha256]
    )
    return ["sh", "-c", f"{shlex.join(_curl(job))} && {check}"]


def _aria2(job: Job) -> list[str]:
    options = [
        "-x8",
        "-s8",
        "--no-conf",
        "--file-allocation=falloc",
        "--summary-interval=0",
        "--quiet",
    ]
    where = [f"--ca-certificate={job.ca}", f"--dir={job.folder}", f"--out={NAME}"]
    return [
        "aria2c",
        *options,
        *where,
        f"--checksum=sha-256={job.blob.sha256}",
        job.url,
    ]


def _hub(job: Job) -> list[str]:
    return [sys.executable, "-c", HUB, NAME, str(job.folder)]


def _pooch(job: Job) -> list[str]:
    return [
        sys.executable,
        "-c",
        POOCH,
        job.url,
        f"sha256:{job.blob.sha256}",
        NAME,
        str(job.folder),
    ]


def _ours(_: Job) -> list[str]:
    return [DOIT, "download:big"]


PEERS = {
    "curl": Peer("curl", "nothing", _curl),
    "curl+sha256": Peer("curl && sha256", "sha256, afterwards", _curl_sha256),
    "aria2": Peer("aria2 -x8", "sha256, afterwards", _aria2),
    "hub": Peer("huggingface_hub", "size only", _hub),
    "pooch": Peer("pooch", "sha256, afterwards", _pooch),
    "ours": Peer("doit download", "sha256, and fsync", _ours),
}
VERIFYING = ("curl+sha256", "aria2", "pooch")


def environment(job: Job) -> dict[str, str]:
    """Return the environment of every program.

    It has the CA and the job's directory, but no proxies and no settings of the user.
    """
    return {
        "PATH": f"{os.path.dirname(DOIT)}{os.pathsep}{os.environ['PATH']}",
        "LANG": "C.UTF-8",
        "HOME": str(job.folder),
        "REQUESTS_CA_BUNDLE": str(job.ca),
        "SSL_CERT_FILE": str(job.ca),  # huggingface_hub's httpx
        "HF_ENDPOINT": job.base,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "LLAMAFILE_CACHE": str(job.folder / "cache"),
    }


def make_project(checkout: Path, folder: Path) -> None:
    """Copy the recipe to the directory in which `doit` runs."""
    folder.mkdir()
    for name in ("dodo.py", "doit.cfg"):
        if (checkout / name).exists():  # an earlier version has no doit.cfg
            shutil.copy2(checkout / name, folder)
    for name in ("tasks", "demo"):
        shutil.copytree(
            checkout / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
        )


def write_catalogue(project: Path, url: str, blob: Blob) -> None:
    """Write models.yaml (JSON is YAML) with one model, `big`."""
    pin = {"url": url, "sha256": blob.sha256, "size": blob.size}
    model = {
        "title": "The benchmark's file",
        "license": "MIT",
        "engine": "embedded",
        **pin,
    }
    engines = {"embedded": {"title": "llama.cpp", "license": "MIT"}}
    catalogue = {
        "version": 1,
        "default": "big",
        "engines": engines,
        "models": {"big": model},
    }
    (project / "models.yaml").write_text(json.dumps(catalogue), "utf-8")


class Running:
    """A process in its own group; the whole group is killed at the end. Use `with`."""

    def __init__(
        self, command: list[str], cwd: Path, env: dict[str, str], log: Path
    ) -> None:
        self._log = log
        self._start = time.perf_counter()
        with log.open("wb") as out:
            self._popen = subprocess.Popen(
                command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=out,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.pid = self._popen.pid

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen.returncode is None:
            self.kill()
            self.finish()

    def kill(self) -> None:
        """Send SIGKILL to the whole group."""
        os.killpg(self.pid, signal.SIGKILL)

    @property
    def ended(self) -> bool:
        """Whether the process has ended; this does not reap it."""
        return (
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            is not None
        )

    def finish(self, limit_s: float = LIMIT_S) -> Outcome:
        """Wait until the process ends; return its result."""
        timer = threading.Timer(limit_s, self.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(self.pid, 0)
        finally:
            timer.cancel()
        seconds = time.perf_counter() - self._start
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        # the kernel's peak includes the memory of the parent at the fork: keep it small
        return Outcome(
            seconds, usage.ru_maxrss * 1024, self._problem(self._popen.returncode)
        )

    def _problem(self, status: int) -> str:
        if not status:
            return ""
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return f"status {status}: {lines[-1].strip() if lines else 'it said nothing'}"


def start(
    peer: Peer, job: Job, prefix: tuple[str, ...] = (), log: str = "log"
) -> Running:
    """Start the program; create the job's directory if it does not exist."""
    job.folder.mkdir(exist_ok=True)
    write_catalogue(job.project, job.url, job.blob)
    return Running(
        [*prefix, *peer.command(job)], job.project, environment(job), job.folder / log
    )


def run(peer: Peer, job: Job, prefix: tuple[str, ...] = ()) -> Outcome:
    """Run once in a new directory, check the file outside of the timing, clean up."""
    os.sync()  # no run pays for another's dirty pages
    try:
        with start(peer, job, prefix) as running:
            outcome = running.finish()
    except FileNotFoundError as error:
        outcome = Outcome(0, 0, f"{error.filename} is not installed")
    problem = outcome.problem or wrong_bytes(job)
    shutil.rmtree(job.folder)
    return outcome._replace(problem=problem)


def wrong_bytes(job: Job) -> str:
    """Return what is wrong with the downloaded file; empty if nothing."""
    found = [path for path in job.folder.rglob(NAME) if path.is_file()]
    if len(found) != 1:
        return f"it left {len(found)} files named {NAME}"
    if found[0].stat().st_size != job.blob.size:
        return f"it left {found[0].stat().st_size} bytes of {job.blob.size}"
    return "" if sha256_of(found[0]) == job.blob.sha256 else "it left wrong bytes"


def versions() -> str:
    """Return the versions of the compared programs, in one line."""
    found = {name: _version(name) for name in ("curl", "aria2c", "nginx")}
    found["Python"] = platform.python_version()
    for name in ("requests", "huggingface_hub", "pooch"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _version(program: str) -> str:
    if not shutil.which(program):
        return "not installed"
    flag = "-v" if program == "nginx" else "--version"
    answer = subprocess.run([program, flag], capture_output=True, text=True)
    words = (answer.stdout + answer.stderr).replace("/", " ").split()
    return next(word for word in words if word[0].isdigit())
