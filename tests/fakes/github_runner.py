"""Run a job's steps as GitHub's runner does: a composite action, `run:` in bash, actions/cache by its rules.

Sources: GitHub's "Workflow syntax", "Metadata syntax" and "Workflow commands"; for the cache the README of
actions/cache (a hit is that of an exact key; what was missed is saved if the job succeeds; the paths' text
belongs to an entry) and its toolkit's tar.ts.
What an action needs that is not known here is an AssertionError.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from typing import Any

import psutil
import yaml

BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # what `shell: bash` means
MINE = "llamafile-recipe"
TOKEN = "ghs_of_this_job"
Outputs = dict[str, dict[str, str]]


@dataclass
class Job:
    """How a job went."""

    ok: bool = True
    log: str = ""  # of all steps, stdout and stderr in one, as the runner reads them
    env: dict[str, str] = field(default_factory=dict)  # what $GITHUB_ENV has set for later steps
    outputs: Outputs = field(default_factory=dict)  # by the id of a step


class Runner:
    """A machine and a repository's cache. Every job finds its home and temp empty.

    Args:
        action: the folder of the action that is tested.
        base: the environment that the machine has.
    """

    def __init__(self, folder: Path, action: Path, base: Mapping[str, str]) -> None:
        self.workspace, self.home, self._temp = folder / "work", folder / "runner", folder / "temp"
        self.workspace.mkdir()
        self._action, self._base, self._store = action, dict(base), folder / "caches"
        self._store.mkdir()
        self._artifacts = folder / "artifacts"  # of the workflow's run
        self.keys: list[str] = []  # of the entries that were saved

    def job(self, steps: Sequence[Mapping[str, Any]], **env: str) -> Job:
        """Run a job to its end: post steps, and the end of every process that it has left."""
        for folder in (self.home, self._temp):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        mark = f"github_{token_hex(8)}"
        job = Job(env={})
        self._env = {
            **self._base, "HOME": str(self.home), "CI": "true", "GITHUB_ACTIONS": "true",
            "GITHUB_WORKSPACE": str(self.workspace), "RUNNER_TEMP": str(self._temp), "RUNNER_OS": "Linux",
            "RUNNER_TRACKING_ID": mark, **env,
        }  # fmt: skip
        self._missed: list[tuple[str, str]] = []
        try:
            self._steps(steps, job, job.outputs, {})
            for key, path in self._missed if job.ok else ():
                self._save(key, path)
        finally:
            _end(mark)
        return job

    def _steps(
        self, steps: Sequence[Mapping[str, Any]], job: Job, outputs: Outputs, inputs: Mapping[str, str]
    ) -> None:
        for number, step in enumerate(steps):
            known = {"id", "name", "if", "shell", "env", "run", "uses", "with", "working-directory"}
            assert not set(step) - known, step
            scope = {"inputs": inputs, "steps": outputs, "env": {**self._env, **job.env}}
            scope["github"] = {"token": TOKEN}
            if not job.ok or ("if" in step and not value(step["if"], scope)):
                continue
            words = {k: fill(str(v), scope) for k, v in step.get("with", {}).items()}
            given = {k: fill(str(v), scope) for k, v in step.get("env", {}).items()}
            if "uses" in step:
                found = self._uses(step["uses"], words, job)
            else:
                found = self._run(fill(step["run"], scope), {**self._env, **job.env, **given}, job)
            outputs[step.get("id", f"__{number}")] = found

    def _run(self, script: str, env: dict[str, str], job: Job) -> dict[str, str]:
        files = {
            n: self._temp / n.lower()
            for n in ("GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
        }
        for path in files.values():
            path.write_text("")
        (self._temp / "step.sh").write_text(script)
        env = {
            **env,
            **{name: str(path) for name, path in files.items()},
            "GITHUB_ACTION_PATH": str(self._action),
        }
        log = self._temp / "log"
        with log.open("wb") as file:  # not a pipe: a server that stays would keep one open
            done = subprocess.run(
                [*BASH, str(self._temp / "step.sh")], cwd=self.workspace, env=env, timeout=300,
                stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False,
            )  # fmt: skip
        job.log += log.read_text("utf-8")
        job.ok = job.ok and done.returncode == 0
        assert "Traceback" not in job.log, job.log
        job.env |= parse(files["GITHUB_ENV"].read_text("utf-8"))
        self._env["PATH"] = ":".join(
            [*reversed(files["GITHUB_PATH"].read_text("utf-8").splitlines()), self._env["PATH"]]
        )
        return parse(files["GITHUB_OUTPUT"].read_text("utf-8"))

    def _uses(self, what: str, words: dict[str, str], job: Job) -> dict[str, str]:
        name, _, version = what.partition("@")
        if name in ("actions/checkout", "actions/setup-python"):
            return {}
        if name in ("actions/upload-artifact", "actions/download-artifact"):
            here = [self.workspace / words["path"], self._artifacts / words["name"]]
            source, target = here if "upload" in name else reversed(here)
            shutil.copytree(source, target)
            return {}
        if name == "actions/cache":
            assert re.fullmatch("[0-9a-f]{40}", version), what
            assert set(words) == {"key", "path"}
            return self._restore(words["key"], words["path"])
        assert name.endswith(MINE), what
        action = yaml.safe_load((self._action / "action.yml").read_text("utf-8"))
        assert not set(words) - set(action["inputs"]), words
        inputs = {
            name: words.get(name, str(one.get("default", ""))) for name, one in action["inputs"].items()
        }
        inner: Outputs = {}
        assert all("shell" in step for step in action["runs"]["steps"] if "run" in step)
        self._steps(action["runs"]["steps"], job, inner, inputs)
        scope = {"steps": inner}
        return {name: fill(one["value"], scope) for name, one in action["outputs"].items()}

    def _entry(self, key: str, path: str) -> Path:
        assert len(key) <= 512, key
        assert "," not in key, key
        return self._store / f"{key}-{abs(hash(path))}.tar"

    def entries(self) -> list[Path]:
        """The archives of the repository's cache."""
        return sorted(self._store.iterdir())

    def _restore(self, key: str, path: str) -> dict[str, str]:
        entry = self._entry(key, path)
        if not entry.exists():
            self._missed.append((key, path))
            return {"cache-hit": ""}  # as v5 has it: false is for a match of restore-keys
        subprocess.run(["tar", "-xf", entry, "-P", "-C", self.workspace], check=True)
        return {"cache-hit": "true"}

    def _save(self, key: str, path: str) -> None:
        paths = [re.sub(r"^~(?=/)", str(self.home), line) for line in path.splitlines()]
        there = [one for one in paths if Path(one).exists()]
        assert there == paths, "the action caches what is not there"
        into = ["-cf", str(self._entry(key, path)), "-P", "-C", str(self.workspace)]
        subprocess.run(["tar", "--format=pax", *into, *there], check=True)
        self.keys.append(key)


def _end(mark: str) -> None:
    """What the runner does with orphans: it knows them by a variable."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get("RUNNER_TRACKING_ID") == mark:
                process.send_signal(signal.SIGKILL)


def fill(text: str, scope: Mapping[str, Any]) -> str:
    """A text with its `${{ }}` evaluated."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: str(value(found[1], scope)), text)


def value(expression: str, scope: Mapping[str, Any]) -> Any:
    """What an expression means: names, strings, `||`, `==` and `!=` are known here."""
    text = expression.strip()
    if "||" in text:
        return next((v for v in (value(part, scope) for part in text.split("||")) if v), "")
    if found := re.fullmatch(r"(.+?)\s*(==|!=)\s*(.+)", text):
        return (value(found[1], scope) == value(found[3], scope)) is (found[2] == "==")
    if found := re.fullmatch(r"'([^']*)'", text):
        return found[1]
    assert re.fullmatch(r"[\w-]+(\.[\w-]+)+", text), f"unknown expression {text}"
    first, *path = text.split(".")
    here = scope[first]
    if first in ("env", "inputs", "github"):
        return here.get(path[0], "") if first == "env" else here[path[0]]
    assert (first, path[1]) == ("steps", "outputs"), text
    return here.get(path[0], {}).get(path[2], "")


def parse(text: str) -> dict[str, str]:
    """The values in $GITHUB_OUTPUT or $GITHUB_ENV: a line each, or between delimiters."""
    found = {}
    while text:
        head = re.match(r"(?P<name>[\w-]+)(?:=(?P<value>.*)|<<(?P<end>\S+))\n", text)
        assert head, text
        text = text[head.end() :]
        if head["end"]:
            found[head["name"]], mark, text = text.partition(f"\n{head['end']}\n")
            assert mark, text
        else:
            found[head["name"]] = head["value"]
    return found
