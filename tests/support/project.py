"""A temporary project in which tests run the real `doit`, as a user does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any
from uuid import uuid4

import psutil
from tasks.server import record_files

from tests.support import fork_server, in_process
from tests.support.shared_modules import mould

REPO = Path(__file__).resolve().parent.parent.parent
SCRIPTS = sysconfig.get_path("scripts")
DOIT = os.path.join(SCRIPTS, "doit")
ENGINES = {
    "llamafile": {"title": "llamafile", "license": "Apache-2.0"},
    "embedded": {"title": "e", "license": "MIT"},
}


_POPEN: dict[bool, type[subprocess.Popen[str]]] = {False: subprocess.Popen, True: fork_server.Forked}
# in the environment of a Running's command and of whatever that starts: engines get those of the locale
RUN_VARIABLE = "LC_RECIPE_TEST_RUN"


def link(source: str, target: str) -> None:
    """Link a file, or copy it where that is not possible."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _link_packages(source: Path, target: Path) -> None:
    """Make a package of links: its modules, and the folders of its subpackages."""
    target.mkdir()
    for entry in os.scandir(source):
        if entry.name == "__pycache__":  # a project may change these modules: it compiles for itself
            shutil.copytree(entry, target / entry.name, copy_function=link)
        elif entry.is_dir():
            link_folder(entry.path, str(target / entry.name))
        else:
            link(entry.path, str(target / entry.name))


def link_folder(source: str, target: str) -> None:
    """Link a folder, or make one of links where that is not possible."""
    try:
        os.symlink(source, target, target_is_directory=True)
    except OSError:
        shutil.copytree(source, target, copy_function=link)


@dataclass
class Result:
    """The result of a command."""

    status: int
    out: str
    err: str


class Project:
    """dodo.py, doit.cfg, tasks/, demo/ and models.yaml as they are here, and a cache.

    doit.cfg names a module that pip installs: llamafile_recipe.py.

    Every run is checked for tracebacks and for processes it leaves behind.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "project"
        self.cache = folder / "cache"
        home = folder / "home"
        home.mkdir(exist_ok=True)
        self.path.mkdir()
        for name in ("dodo.py", "doit.cfg", "models.yaml"):
            shutil.copy2(REPO / name, self.path / name)
        shutil.copytree(mould() / "__pycache__", self.path / "__pycache__", copy_function=link)
        shutil.copytree(mould() / "demo", self.path / "demo", copy_function=link)
        _link_packages(mould() / "tasks", self.path / "tasks")
        self.env = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "SYSTEMROOT", "TMPDIR")}
        self.env |= {
            "PATH": f"{SCRIPTS}{os.pathsep}{self.env.get('PATH', '')}",
            "HOME": str(home),
            "LLAMAFILE_CACHE": str(self.cache),
        }
        self.doit_program = DOIT  # another one runs as a process
        self.forks = True  # `doit` as a process is a fork, if that gives the same one (see fork_server.py)

    def catalogue(
        self,
        models: Mapping[str, Mapping[str, Any]],
        engines: Mapping[str, Mapping[str, Any]] | None = None,
        **top: Any,
    ) -> None:
        """Write models.yaml (JSON is YAML); `default` is the first model if not given."""
        data = {
            "version": 1,
            "default": next(iter(models)),
            "engines": engines or ENGINES,
            **top,
            "models": models,
        }
        (self.path / "models.yaml").write_text(json.dumps(data, indent=1), "utf-8")

    def set_constant(self, module: str, name: str, value: float) -> None:
        """Change a number in this project's copy of a module, such as a time limit."""
        before = (self.path / module).read_text("utf-8")
        text, found = re.subn(rf"^{name} = .*$", f"{name} = {value}", before, flags=re.MULTILINE)
        assert found == 1, f"{module} has no {name}"
        self.replace_module(module, text)

    def replace_module(self, module: str, text: str) -> None:
        """Write a module of this project; the other projects link to the same file or folder."""
        path = self.path / module
        folder = path.parent
        if folder.is_symlink():
            source = folder.resolve()
            folder.unlink()
            shutil.copytree(source, folder, copy_function=link)
        path.unlink()
        path.write_text(text, "utf-8")

    @property
    def run_folder(self) -> Path:
        """The directory of this user's server records and logs on this machine."""
        return Path(record_files.machine_folder(str(self.cache)))

    @staticmethod
    def entry(url: str, data: bytes | None = None, **more: Any) -> dict[str, Any]:
        """Return a catalogue entry; with `data` it is pinned by digest and size."""
        pin = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} if data is not None else {}
        return {"title": "A model", "url": url, "license": "MIT", **pin, **more}

    def target(self, data: bytes, filename: str) -> Path:
        """Return the target of a pinned model."""
        return self.cache / "models" / hashlib.sha256(data).hexdigest()[:16] / filename

    def program(self, data: bytes, filename: str) -> Path:
        """Return the target of a pinned engine."""
        return self.cache / "engines" / hashlib.sha256(data).hexdigest()[:16] / filename

    def doit(
        self, *args: str, cwd: Path | None = None, timeout: float = 120, env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> Result:  # fmt: skip
        """Run `doit`, in this process if that gives the same result (see in_process.py).

        From another directory, DOIT_FILE names the project. Use `process` for tests of signals, terminals,
        pipes, kills, limits, or two runs at once.
        """
        if self.doit_program != DOIT or in_process.needs_process(env or {}):
            return self.process(*args, cwd=cwd, timeout=timeout, env=env, stdin=stdin)
        mark = uuid4().hex
        full = {**self._environment(cwd, env), RUN_VARIABLE: mark}
        older = set(psutil.pids())
        try:
            result = Result(*in_process.run(args, cwd or self.path, full, stdin, timeout))
        finally:
            survivors = marked(RUN_VARIABLE, mark, older)
            for process in survivors:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        assert "Traceback" not in result.out + result.err, result.err
        assert not survivors, survivors
        return result

    def process(
        self, *args: str, cwd: Path | None = None, timeout: float = 120, env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> Result:  # fmt: skip
        """Run `doit` in its own process. From another directory, DOIT_FILE names the project."""
        with self.start(*args, cwd=cwd, env=env, stdin=stdin) as running:
            return running.finish(timeout)

    def _environment(self, cwd: Path | None, env: Mapping[str, str] | None) -> dict[str, str]:
        full = {**self.env, **(env or {})}
        if cwd is not None:
            full["DOIT_FILE"] = str(self.path / "dodo.py")
        return full

    def background(self, *args: str, timeout: float = 90, env: Mapping[str, str] | None = None) -> Result:
        """Run `doit`; a background server that it starts may continue to run.

        The output is read until it is closed, as a shell does: a server that keeps a pipe open makes it fail.
        """
        command, env = [self.doit_program, *args], {**self.env, **(env or {})}
        with self.popen(command, env)(
            command, cwd=self.path, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL, text=True, encoding="utf-8", start_new_session=True,
        ) as process:  # fmt: skip
            try:
                out, err = process.communicate(timeout=timeout)
            except BaseException:
                process.kill()
                raise
        assert "Traceback" not in out + err, err
        return Result(process.returncode, out, err)

    def processes(self) -> list[psutil.Process]:
        """Return all processes of this project's cache: doit, supervisors, engines and their children."""
        return marked("HOME", self.env["HOME"])

    def start(
        self,
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> Running:
        """Start `doit`. Use `with`, which ends it and everything that it started."""
        command = [self.doit_program, *args]
        full = self._environment(cwd, env)
        return Running(command, cwd or self.path, full, stdin, forks=self._may_fork(command, full))

    def popen(self, command: list[str], env: Mapping[str, str]) -> type[subprocess.Popen[str]]:
        """Return what starts this command."""
        return _POPEN[self._may_fork(command, env)]

    def _may_fork(self, command: list[str], env: Mapping[str, str]) -> bool:
        return self.forks and self.doit_program == DOIT and fork_server.can_fork(command, env)


class Running:
    """A running command whose output can be waited for."""

    def __init__(
        self, command: list[str], cwd: Path, env: Mapping[str, str], stdin: str | None, forks: bool = False
    ) -> None:
        self._mark = uuid4().hex
        self._popen = _POPEN[forks](
            command, cwd=cwd, env={**env, RUN_VARIABLE: self._mark},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            text=True, encoding="utf-8", start_new_session=True,
        )  # fmt: skip
        self.pid = self._popen.pid
        if stdin is not None and self._popen.stdin:
            self._popen.stdin.write(stdin)
            self._popen.stdin.close()
        self._texts: dict[str, list[str]] = {"out": [], "err": []}
        self._family: set[psutil.Process] = set()
        self._threads = [
            threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._texts
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str) -> None:
        stream = self._popen.stdout if name == "out" else self._popen.stderr
        assert stream
        for line in stream:
            self._texts[name].append(line)

    @property
    def out(self) -> str:
        """The text on stdout so far."""
        return "".join(self._texts["out"])

    @property
    def err(self) -> str:
        """The text on stderr so far."""
        return "".join(self._texts["err"])

    def note_family(self) -> list[psutil.Process]:
        """Return the processes that it has started; `finish` fails if one survives."""
        try:
            found = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._family.update(found)
        return found

    def wait_for(self, text: str, timeout: float = 90) -> str:
        """Wait until stderr contains a text; return all of stderr."""
        deadline = time.monotonic() + timeout
        while text not in self.err:
            if self._popen.poll() is not None or time.monotonic() > deadline:
                time.sleep(0.2)  # the reader may be a moment behind
                assert text in self.err, f"{text!r} did not come; status {self._popen.poll()}\n{self.err}"
            time.sleep(0.02)
        self.note_family()
        return self.err

    def send(self, number: int) -> None:
        """Send a signal to doit alone, as `kill` does."""
        self._popen.send_signal(number)

    def finish(self, timeout: float = 120) -> Result:
        """Wait for the end; fail on a traceback or a process that is left."""
        self.note_family()  # where a system program hides its environment (macOS), this still sees it
        deadline = time.monotonic() + timeout
        while self._popen.poll() is None:
            assert time.monotonic() < deadline, f"still running after {timeout} s\n{self.err}"
            time.sleep(0.02)
        for thread in self._threads:
            thread.join(30)
        result = Result(self._popen.returncode, self.out, self.err)
        assert "Traceback" not in result.out + result.err, result.err
        survivors = [p for p in {*self._family, *marked(RUN_VARIABLE, self._mark)} if lives(p)]
        assert not survivors, survivors
        return result

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for process in {*self._family, *self.note_family(), *marked(RUN_VARIABLE, self._mark)}:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait(60)


def marked(variable: str, value: str, older: Collection[int] = ()) -> list[psutil.Process]:
    """Return the running processes, but for the older ones, whose environment has this variable and value."""
    found = []
    for pid in set(psutil.pids()).difference(older):
        with suppress(psutil.Error, OSError):
            if _has(pid, variable, value):
                found.append(psutil.Process(pid))
    return [process for process in found if lives(process)]


def _has(pid: int, variable: str, value: str) -> bool:
    forked = fork_server.environment_of(pid)
    if forked or sys.platform != "linux":
        return (forked or psutil.Process(pid).environ()).get(variable) == value
    # psutil parses all variables of all processes, which takes ten times as long
    with open(f"/proc/{pid}/environ", "rb") as file:
        return os.fsencode(f"\0{variable}={value}\0") in b"\0" + file.read()


def lives(process: psutil.Process) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_until(what: Callable[[], object], timeout: float = 90) -> None:
    """Wait until `what()` is true."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, f"did not come true within {timeout} s"
        time.sleep(0.02)


def interrupt(running: Running) -> None:
    """Send Ctrl-C, as a terminal does to the foreground process."""
    if sys.platform == "win32":
        running.send(signal.CTRL_BREAK_EVENT)
    else:
        running.send(signal.SIGINT)
