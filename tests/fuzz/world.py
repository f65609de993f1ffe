"""A project, its warm cache and a server, made once; each case begins with a copy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fakes import llamafile
from tests.fakes.hostile import HostileServer, Row
from tests.fakes.server import FileServer
from tests.fuzz import guards, mutate
from tests.fuzz.case import FIFO, FOLDER, GONE, LINK, Case, Content
from tests.support import in_process
from tests.support.partials import leave_partial

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT_S = 60.0  # of one run; doctor's own limit is 25 s, and the machine may be busy
WARM = ("download:tool", "download:plain", "download:split", "exe")
REMOTE = "/half.llamafile"
_NOT_TARGETS = (".partial", ".partial.json", ".partial.live", ".stamp.json", ".tmp", ".key", ".lock")
_CONTROLS = {chr(code) for code in range(32)} - {"\n", "\t", "\r"} | {chr(code) for code in range(0x7F, 0xA0)}


class World:
    """One folder with `project`, `cache`, `home` and `victim`, which nothing may touch.

    Args:
        folder: an empty one; `template` lies beside the world.
    """

    def __init__(self, folder: Path, server: FileServer) -> None:
        self.path, self.template = folder / "world", folder / "template"
        self.server = server
        self._words = {"@PORT@": str(server.port), "@WORLD@": str(self.path)}
        self.files: dict[str, bytes] = {}  # what each model's file must be, by its name
        self._build()
        shutil.copytree(self.path, self.template, symlinks=True)

    @property
    def project(self) -> Path:
        """Where models.yaml is."""
        return self.path / "project"

    @property
    def cache(self) -> Path:
        """The cache."""
        return self.path / "cache"

    def env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The variables of a run."""
        return {
            "PATH": f"{sysconfig.get_path('scripts')}:{os.environ.get('PATH', '')}",
            "HOME": str(self.path / "home"),
            "DOIT_FILE": str(ROOT / "dodo.py"),
            "LLAMAFILE_CATALOGUE": str(self.project / "models.yaml"),
            "LLAMAFILE_CACHE": str(self.cache),
            "LLAMAFILE_OFFLINE": "1",
            **{name: self._filled(value) for name, value in (more or {}).items()},
        }

    def _filled(self, text: str) -> str:
        for word, meant in self._words.items():
            text = text.replace(word, meant)
        return text

    # ---- making it

    def _build(self) -> None:
        for name in ("project/files", "home", "victim"):
            (self.path / name).mkdir(parents=True)
        shutil.copy2(ROOT / "doit.cfg", self.project)
        (self.path / "victim" / "precious").write_text("precious\n")
        folder = self.project / "files"
        llamafile.build(folder / "tool.llamafile", pad=5000)
        llamafile.build_exe(folder / "llamafile-0.10.5")
        llamafile.build_gguf(folder / "plain.gguf")
        llamafile.build_gguf(folder / "own.gguf", size=5000)
        for number in (1, 2):
            llamafile.build_gguf(folder / f"split-0000{number}-of-00002.gguf", size=4096 + number)
        half = llamafile.build(self.path / "half.llamafile", pad=300_000)
        self.files = {path.name: path.read_bytes() for path in (*folder.iterdir(), half)}
        half.unlink()
        self.server.files[REMOTE] = self.files["half.llamafile"]
        (self.project / "models.yaml").write_text(json.dumps(self.catalogue(), indent=1))
        self._run_all("lock", "verify:tool", "verify:plain", "download:split", "verify:own")
        self._leave_half()
        self._leave_record()

    def catalogue(self) -> dict[str, Any]:
        """models.yaml as plain data."""
        split = [{"sha256": self._sha256(f"split-0000{number}-of-00002.gguf")} for number in (1, 2)]
        return {
            "version": 1,
            "default": "tool",
            "defaults": {"ctx_size": 512},
            "engines": {
                "llamafile": {
                    "title": "llamafile",
                    "license": "Apache-2.0",
                    "version": "0.10.5",
                    "url": "files/llamafile-{version}",
                    "sha256": self._sha256("llamafile-0.10.5"),
                },
                "embedded": {"title": "llama.cpp in this Python", "license": "MIT"},
            },
            "models": {
                "tool": self._entry("tool.llamafile", aliases=["t"], params="7.24B", ram=7),
                "plain": self._entry("plain.gguf", quant="Q5_K_M", serve={"ctx_size": 64, "args": ["-fa"]}),
                "split": {**self._entry("split-00001-of-00002.gguf", parts=split), "sha256": None},
                "own": {**self._entry("own.gguf", engine="embedded"), "sha256": None},
                "half": self._entry(
                    f"http://127.0.0.1:{self.server.port}{REMOTE}", size=len(self.files["half.llamafile"])
                ),
            },
        }

    def _entry(self, url: str, **more: Any) -> dict[str, Any]:
        name = url.rpartition("/")[2]
        url = url if "/" in url else f"files/{url}"
        return {"title": f"The {name}", "url": url, "sha256": self._sha256(name), "license": "MIT", **more}

    def _sha256(self, name: str) -> str:
        return hashlib.sha256(self.files[name]).hexdigest()

    def _run_all(self, *words: str) -> None:
        for word in words:
            done = self.run((word,), {})
            assert done[0] == 0, (word, done)

    def _leave_half(self) -> None:
        target = self.target("half.llamafile")
        target.parent.mkdir(parents=True)
        leave_partial(target, self.files["half.llamafile"], 200_000)

    def target(self, name: str) -> Path:
        """Where a pinned model's file lies in the cache."""
        return self.cache / "models" / self._sha256(name)[:16] / name

    def _leave_record(self) -> None:
        """A server's record and log, as they are while it runs; the server is gone."""
        env = {**self.env(), "PYTHONPATH": str(ROOT)}
        self._process(["start", "--model", "tool", "--port", "0"], env)
        kept = {path: path.read_bytes() for path in self.cache.glob("run/*/*")}
        self._process(["stop", "--all"], env)
        for path, data in kept.items():
            path.write_bytes(data)
            path.chmod(0o600)

    # ---- using it

    def restore(self, warm: bool) -> None:
        """Make it as it was."""
        shutil.rmtree(self.path)
        shutil.copytree(self.template, self.path, symlinks=True)
        self.server.requests.clear()
        if not warm:
            shutil.rmtree(self.cache)
            shutil.rmtree(self.project / "files")

    def apply(self, case: Case) -> list[str]:
        """Write a case's files; their paths, from the world."""
        written = []
        for pattern, what in case.files.items():
            found = sorted(self.path.glob(pattern)) or [self.path / pattern]
            for path in found:
                _remove(path)
                self._put(path, what)
                written.append(str(path.relative_to(self.path)))
        return written

    def _put(self, path: Path, what: Content) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(what, bytes):
            path.write_bytes(self._filled_bytes(what))
            old = time.time() - 3600  # the owner of a fresh journal is waited for
            os.utime(path, (old, old))
        elif what == FIFO:
            os.mkfifo(path)
        elif what == FOLDER:
            (path / "inside").mkdir(parents=True)
        elif what.startswith(LINK):
            end = self._filled(what.removeprefix(LINK)).replace("@SELF@", path.name)
            path.symlink_to(end)
        else:
            assert what == GONE, what

    def _filled_bytes(self, data: bytes) -> bytes:
        data = mutate.filled(data)
        for word, meant in self._words.items():
            data = data.replace(word.encode(), os.fsencode(meant))
        return data

    def run(self, args: Sequence[str], env: Mapping[str, str]) -> tuple[int, str, str]:
        """Run doit in this process."""
        return in_process.run(args, self.project, self.env(env), None, LIMIT_S, errors="replace")

    def _process(self, args: Sequence[str], env: Mapping[str, str]) -> tuple[int, str, str]:
        done = subprocess.run(
            [os.path.join(sysconfig.get_path("scripts"), "doit"), *args], cwd=self.project, env=env,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

    # ---- judging

    def problems(self, case: Case, as_process: bool = False) -> list[str]:
        """Run a case; what it has shown, nothing if all is well."""
        with HostileServer(Row("", self._filled_bytes(case.answer))) as hostile:
            self._words["@HOSTILE@"] = str(hostile.port)
            return self._problems(case, as_process)

    def _problems(self, case: Case, as_process: bool) -> list[str]:
        self.restore(case.warm)
        if case.reread:
            self.run(WARM, {})
        written = self.apply(case)
        before = self._outside()
        found: list[str] = []
        for words in case.runs:
            args = [self._filled(word) for word in words]
            guards.begin()
            try:
                run = self._process if as_process else self.run
                status, out, err = run(args, self.env(case.env) if as_process else case.env)
            except (in_process.TimedOut, subprocess.TimeoutExpired):
                return [*found, f"{args}: no end within {LIMIT_S} s"]
            except (AssertionError, UnicodeDecodeError) as error:  # of the runner
                return [*found, f"{args}: {error}"]
            found += [f"{args}: {text}" for text in guards.violations]
            found += [f"{args}: {text}" for text in said(args, status, out, err, case.statuses)]
            found += [f"{args}: {text}" for text in self._wrong_files(written, args, status)]
        if self._outside() != before:
            found.append(f"outside the cache: {before} became {self._outside()}")
        return found

    def _outside(self) -> dict[str, str]:
        """What no run may touch, and whatever has come to lie beside the cache."""
        beside = [path for path in self.path.iterdir() if path.name != "cache"]
        return {str(path): _look(path) for path in (*beside, *(self.path / "victim").rglob("*"))}

    def _wrong_files(self, written: Sequence[str], args: Sequence[str], status: int) -> Iterator[str]:
        """Files with other bytes than their name promises.

        What the case has put there counts only after a verb that proves it.
        """
        proven = proves(args) if status == 0 else ()
        for path in (*self.cache.glob("models/*/*"), *self.cache.glob("engines/*/*")):
            is_target = not path.name.endswith(_NOT_TARGETS) and path.is_file()
            counts = str(path.relative_to(self.path)) not in written or path.name.startswith(proven)
            if is_target and counts and (digest := self._wrong_digest(path)):
                yield f"{path} is {digest}"

    def _wrong_digest(self, path: Path) -> str:
        """The digest of a file, if it is not what the folder or the catalogue says."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        fits = digest.startswith(path.parent.name) or path.read_bytes() == self.files.get(path.name)
        return "" if fits or path.parent.name.startswith("url-") else digest


def proves(args: Sequence[str]) -> tuple[str, ...]:
    """How the names of the files begin that a command has proven if it went well."""
    verb, _, name = args[0].partition(":")
    if verb == "audit":
        return ("",)
    if verb == "exe":
        return ("llamafile-",)
    engine = ("llamafile-",) if args[0] == "verify:plain" else ()
    return (name or args[-1], *engine) if verb in ("download", "verify") else ()


def said(args: Sequence[str], status: int, out: str, err: str, statuses: Sequence[int]) -> Iterator[str]:
    """What is wrong with the end of a run."""
    if "Traceback" in out + err:
        yield f"a traceback: …{(out + err)[-1500:]}"
    if status not in statuses:
        yield f"status {status}, expected one of {statuses}: {err[-500:]}"
    # what an engine has said goes to a pipe as it is, and only to a terminal through the filter
    shown = err if args[0].partition(":")[0] in ("logs", "chat") else out + err
    if bad := sorted(_CONTROLS & set(shown)):
        line = next(line for line in shown.split("\n") if set(line) & _CONTROLS)
        yield f"control characters {bad!r} reach the terminal: {line[:300]!r}"


def _remove(path: Path) -> None:
    """Remove what the case has put there before, too."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _look(path: Path) -> str:
    return f"{path.stat().st_mode:o} {path.read_bytes()!r}" if path.is_file() else "a folder"


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A world with its server."""
    with FileServer() as server:
        yield World(folder, server)
