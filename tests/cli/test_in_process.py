"""`Project.doit` runs in the process of the tests: with the result of a real process, and without a trace."""

from __future__ import annotations

import ast
import logging
import os
import re
import signal
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import pytest
import tasks.context

from tests.server.test_serve_cli import behave
from tests.support import fork_server, in_process, shared_modules
from tests.support.project import REPO, Project, Result

pytestmark = [pytest.mark.smoke, pytest.mark.once]  # the other Pythons start processes alone
GITHUB = {"GITHUB_ACTIONS": "true"}
JSON = {"LLAMAFILE_LOG": "json"}

# what is different in two runs of the same command: times, speeds, memory that is free now
_CHANGES = re.compile(r"\d[\d.,]* ?(ms|s|kB|MB|GB|[kMG]B/s)\b|\"seconds\": [\d.]+|\d{4}-\d\d-\d\dT[\d:.+]+")


def same(result: Result) -> tuple[int, str, str]:
    """A result without what changes from run to run."""
    out, err = (_CHANGES.sub("…", text) for text in (result.out, result.err))
    return result.status, out, err


@pytest.mark.parametrize(
    ("words", "stdin", "env"),
    [
        ([], None, {}),
        (["catalogue", "--json"], None, JSON),
        (["list", "--all"], None, {}),
        (["help", "serve"], None, {}),
        (["--version"], None, {}),
        (["nonsense"], None, {}),
        (["serve", "--port", "x"], None, JSON),
        (["download:gone"], None, GITHUB),
        (["download:demo", "chmod:demo"], None, GITHUB),
        (["download:demo"], None, JSON),
        (["chat", "--model", "demo"], "", {}),
        (["with", "--model", "gone", "--", "echo"], None, {}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_parity(project: Project, words: list[str], stdin: str | None, env: dict[str, str]) -> None:
    """The same command as a process of its own, forked, and in this process: the same status and texts."""
    demo = (project.path / "demo" / "demo.gguf").as_posix()
    project.catalogue(
        {
            "demo": project.entry(demo, engine="embedded"),
            "gone": project.entry("gone.gguf", engine="embedded"),
        }
    )
    results = []
    ways = ((project.process, False), (project.process, True), (project.doit, True))
    for number, (run, project.forks) in enumerate(ways):
        cache = project.cache.with_name(f"cache{number}")  # as long as the other's name
        result = run(*words, stdin=stdin, env={**env, "LLAMAFILE_CACHE": str(cache)})
        texts = (text.replace(str(cache), "CACHE") for text in (result.out, result.err))
        results.append(same(Result(result.status, *texts)))
    assert results[0] == results[1] == results[2]
    assert "".join(results[1][1:])


def write_task(project: Project, body: str) -> None:
    """Put code of the test's own in place of the verb `catalogue`."""
    text = "\n    ".join(body.splitlines())
    module = f"def arguments(*_):\n    return []\n\n\ndef run():\n    {text}\n"
    project.replace_module("tasks/verbs/catalogue.py", module)


def test_descriptors_are_those_of_the_run(project: Project) -> None:
    """What a run starts writes to its stdout and stderr, and reads its stdin."""
    write_task(project, "import os\nos.system('cat; echo said >&2')")
    result = project.doit(stdin="one\ntwo ☃\n")
    assert (result.status, result.out) == (0, "one\ntwo ☃\n")
    assert "said\n" in result.err


def test_the_code_is_the_projects(project: Project) -> None:
    """Its own tasks/ run, with its own root; the tests' modules are theirs again afterwards."""
    before, dodo = sys.modules["tasks.context"], sys.modules.get("dodo")
    write_task(project, "from tasks.context import ROOT\nprint(ROOT)")
    assert project.doit().out == f"{project.path}\n"
    assert sys.modules["tasks.context"] is before is tasks.context
    assert sys.modules.get("dodo") is dodo


def test_no_module_keeps_state() -> None:
    """All runs here share the modules of tasks/: what one of them kept, the next one would see."""
    kept = []
    for path in sorted((REPO / "tasks").rglob("*.py")):
        for node in ast.walk(tree := ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Global):
                kept.append((path.stem, node.names))
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        kept += [(path.stem, [name]) for name in names if name.strip("_").islower() and name != "_log"]
    # set by each run; a lock, and what ends with its run
    assert kept == [
        *[("program", ["_typed", "_commands"]), ("program", ["_typed"]), ("program", ["_commands"])],
        *[("probes", ["_starting"]), ("probes", ["_running"]), ("logins", ["_auth"])],
    ]


def test_unchanged_modules_are_shared(project: Project, tmp_path: Path) -> None:
    """A project with the same files gets the modules of an earlier run, with its own root."""
    (other := tmp_path / "other").mkdir()
    for one in (project, Project(other)):
        one.catalogue({"m": one.entry("gone.gguf", engine="embedded")})
        assert f"in {one.path / 'models.yaml'}" in one.doit("plan", "--model", "n").err
        assert shared_modules.has_the_same_files(one.path)
    write_task(project, "print('changed')")
    assert not shared_modules.has_the_same_files(project.path)
    assert project.doit().out == "changed\n"


def test_nothing_is_left(project: Project) -> None:
    """Whatever a run changes in this process is put back."""
    write_task(
        project,
        "import logging, os, signal, sys, tempfile, warnings\n"
        "os.environ['LEFT'] = '1'\nos.chdir('/')\nos.umask(0o77)\nsys.path.insert(0, 'left')\n"
        "sys.argv.append('left')\ntempfile.tempdir = 'left'\nwarnings.simplefilter('error')\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nlogging.getLogger('recipe').warning('a line')\n"
        "os.dup2(os.open(os.devnull, os.O_WRONLY), 1)",
    )

    def state() -> list[object]:
        umask = os.umask(0)
        os.umask(umask)
        return [
            *(dict(os.environ), os.getcwd(), umask, list(sys.path), list(sys.argv), tempfile.tempdir),
            *(list(warnings.filters), signal.getsignal(signal.SIGTERM), sys.stdin, sys.stdout, sys.stderr),
            *(os.fstat(1), os.fstat(2), list(logging.getLogger("recipe").handlers), threading.enumerate()),
        ]

    before = state()
    first, second = project.doit(), project.doit()
    assert state() == before
    assert first.status == second.status == 0, first.err
    assert first.err.count("a line\n") == second.err.count("a line\n") == 1


def test_a_thread_that_goes_on_is_an_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process would take it along; here it would meddle with the next test."""
    monkeypatch.setattr(in_process, "THREADS_END_S", 0.1)
    end = threading.Event()
    monkeypatch.setattr(threading, "the_end_of_the_test", end, raising=False)
    wait = "threading.Thread(target=threading.the_end_of_the_test.wait, daemon=True).start()"
    write_task(project, f"import threading\n{wait}")
    with pytest.raises(AssertionError, match=r"goes on after the run; use Project\.process"):
        project.doit()
    end.set()


def test_it_does_not_hang(project: Project) -> None:
    """A run that does not end is ended."""
    write_task(project, "import threading\nthreading.Event().wait()")
    with pytest.raises(in_process.TimedOut):
        project.doit(timeout=0.5)


@pytest.mark.parametrize("code", [None, 3, "a word"])
def test_the_status_of_an_exit(project: Project, code: object) -> None:
    """SystemExit ends it with the status that Python gives it."""
    write_task(project, f"raise SystemExit({code!r})")
    result = project.doit()
    assert result == project.process()
    assert result.status == {None: 0, "a word": 1}.get(code, code)  # type: ignore[call-overload]


def test_what_needs_a_process_gets_one(project: Project, tmp_path: Path) -> None:
    """Variables that only a new interpreter reads, other threads, another program."""
    write_task(project, "import os\nprint(os.getpid())")
    assert project.doit().out == f"{os.getpid()}\n"
    assert not fork_server.can_fork(["doit"], {**project.env, "LC_ALL": "C"})
    behave(project)  # a variable of a fake engine, which begins as those do
    assert fork_server.can_fork(["doit"], project.env) == (sys.platform == "linux")
    pids = [project.doit(env={"PYTHONUTF8": "1"}).out]
    thread = threading.Thread(target=lambda: pids.append(project.doit().out))
    thread.start()
    thread.join()
    program = tmp_path / "doit"
    program.symlink_to(project.doit_program)
    project.doit_program = str(program)
    pids.append(project.doit().out)
    assert len({*pids, f"{os.getpid()}\n"}) == 4
