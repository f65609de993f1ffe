"""What a user may type by mistake, and doit's own commands: clean words, the nearest spelling, status 3."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.engine.test_serve_cli import with_llamafile
from tests.support.project import Project, Result, interrupt

posix = pytest.mark.skipif(os.name == "nt", reason="needs a shell")


def three(project: Project) -> None:
    """A catalogue of three models, none of them here."""
    models = {
        name: project.entry(f"https://models.invalid/{name}.llamafile", name.encode(), aliases=[alias])
        for name, alias in (("mistral", "mistral-7b"), ("phi3-mini", "phi3"), ("tiny", "t"))
    }
    project.catalogue(models)


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that no test changes, so that its catalogue is compiled once."""
    project = Project(tmp_path_factory.mktemp("still"))
    three(project)
    return project


def refused(result: Result) -> str:
    """The message of a command line that cannot be meant: status 3, nothing on stdout."""
    assert (result.status, result.out) == (3, ""), result
    assert result.err.startswith("ERROR: ")
    return result.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param("sevre", "'sevre' is not a task\n  fix: did you mean serve?", id="a verb misspelt"),
        pytest.param("lsit", "did you mean list?", id="a command of doit's"),
        pytest.param("info sevre", "did you mean serve?", id="info of no task"),
        pytest.param("download --model phi4", "did you mean phi3", id="a model that is not there"),
        pytest.param("verify:nop*", "no model matches 'nop*'", id="a pattern"),
        pytest.param("download --modle x", "did you mean --model?", id="download"),
        pytest.param("serve:tiny -h", "fix: doit help serve", id="-h"),
        pytest.param(
            "serve --llamafile-url https://x.invalid/a.llamafile?download=true",
            "fix: --llamafile-url='https://x.invalid/a.llamafile?download=true'",
            id="doit takes a word with = for a variable",
        ),
    ],
)
def test_mistakes(still: Project, words: str, said: str) -> None:
    """R14, R28: what was typed, what is near it, status 3; nothing was begun."""
    assert said in refused(still.doit(*shlex.split(words)))
    assert not (still.cache / "models").exists()


def test_the_error_of_an_unknown_model(still: Project) -> None:
    """R37: the message names the file to look at, and models by name or alias."""
    assert refused(still.doit("serve", "--model", "mistrl")).splitlines() == [
        f"ERROR: there is no model 'mistrl' in {still.path / 'models.yaml'}",
        "  fix: did you mean mistral, mistral-7b?",
    ]


COMMANDS = ["", "list", "info serve:tiny", "serve:tiny"]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words or "doit alone")
def test_a_broken_catalogue(project: Project, words: str) -> None:
    """R37: whatever is typed, every error of models.yaml is told at once, each with its place."""
    project.catalogue(
        {
            "tiny": project.entry("ftp://x/tiny.llamafile", licence="MIT"),
            "big": {"title": 7, "url": "https://x.invalid/big.gguf", "license": "MIT", "size": -1},
        },
        default="tny",
        defaults={"port": 99999},
    )
    message = refused(project.doit(*words.split()))
    for said in (
        "models.tiny.url",
        "models.tiny.licence: unknown key; did you mean license",
        "models.big.title: expected text, got 7",
        "models.big.size: expected a whole number of bytes above 0, got -1",
        "defaults.port: expected a whole number from 0 to 65535, got 99999",
        "default: there is no model 'tny'",
        f"fix: edit {project.path / 'models.yaml'}",
    ):
        assert said in message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"models: [\n", "is not YAML: line 2", id="no YAML"),
        pytest.param(b"", "expected lines of `key: value`", id="empty"),
    ],
)
def test_a_catalogue_that_is_none(project: Project, content: bytes, said: str) -> None:
    """R37: told as what it is, whatever the file holds."""
    (project.path / "models.yaml").write_bytes(content)
    assert said in refused(project.doit())


def test_a_mended_catalogue(project: Project) -> None:
    """R37: what was compiled of an older file is never taken for the new one."""
    three(project)
    assert project.doit("list").status == 0
    text = (project.path / "models.yaml").read_text()
    (project.path / "models.yaml").write_text(text.replace('"title"', '"titel"'))
    assert "titel: unknown key" in refused(project.doit("list"))
    (project.path / "models.yaml").write_text(text)
    assert project.doit("list").status == 0


def test_another_catalogue(project: Project, tmp_path: Path) -> None:
    """R12, R37: LLAMAFILE_CATALOGUE is seen from where the user is; the paths in it, from the file itself."""
    folder = tmp_path / "other"
    folder.mkdir()
    (folder / "own.llamafile").write_bytes(b"here")
    three(project)
    text = (project.path / "models.yaml").read_text()
    (folder / "own.yaml").write_text(text.replace("https://models.invalid/tiny.llamafile", "own.llamafile"))
    found = json.loads(
        project.doit("catalogue", "--json", cwd=folder, env={"LLAMAFILE_CATALOGUE": "own.yaml"}).out
    )
    assert {model["name"]: model["here"] for model in found["models"]}["tiny"] == "bundled"
    for gone in ("gone.yaml", str(folder)):
        message = refused(project.doit(cwd=folder, env={"LLAMAFILE_CATALOGUE": gone}))
        assert f"cannot read the catalogue {folder / gone}" in message
        assert "set LLAMAFILE_CATALOGUE" in message


def good(result: Result) -> str:
    """What a command of doit's says on stdout, when nothing is wrong."""
    assert (result.status, result.err) == (0, ""), result
    return result.out


def test_list(still: Project) -> None:
    """R38: the verbs, a line each."""
    lines = dict(line.split(maxsplit=1) for line in good(still.doit("list")).splitlines())
    steps = ["catalogue", "download", "exe", "chmod", "verify"]
    servers = ["serve", "start", "with", "chat", "stop", "status", "logs"]
    looks = ["plan", "add", "lock", "doctor", "audit", "prune", "bom", "cache-key"]
    assert sorted(lines) == sorted([*steps, *servers, *looks])
    assert lines["serve"] == "serve a model in the foreground: the default one, or --model NAME"


def test_list_all(still: Project) -> None:
    """R38: the verbs, and one line for each model (not one for each step of each)."""
    lines = good(still.doit("list", "--all")).splitlines()
    models = [line.split()[0] for line in lines if ":" in line.split()[0]]
    assert models == ["serve:mistral", "serve:phi3-mini", "serve:tiny"]
    assert len(lines) == 20 + 3
    [line] = [line for line in lines if line.startswith("serve:tiny")]
    assert line.split(maxsplit=1)[1] == "A model, 4 B"


LIFE = ["start", "start:tiny", "with", "chat", "chat:t", "stop", "status", "status:tiny", "logs", "stop:tiny",
        "doctor", "doctor:t"]  # fmt: skip


@pytest.mark.parametrize("task", ["serve", "serve:tiny", "download", "verify:t", "exe", "catalogue", *LIFE])
def test_help(still: Project, task: str) -> None:
    """R10, R17: every option of a verb, with what it means."""
    text = good(still.doit("help", task))
    options = {line.split("=")[0].split()[0] for line in text.splitlines() if line.startswith("  --")}
    source = {"--llamafile", "--llamafile-url", "--llamafile_url", "--sha256", "--yes", "--force"}
    settings = {"--host", "--port", "--force-gpu", "--gpu", "--ngl", "--ctx-size", "--n-predict"}
    settings |= {"--threads", "--engine", "--timeout", "--api-key", "--probe"}
    expected = {
        "serve": {"--model", *source, *settings},
        "serve:tiny": source | settings,
        "download": {"--model", *source},
        "start": {"--model", *source, *settings},
        "start:tiny": source | settings,
        "with": {"--model", *source, *settings},
        "chat": {"--model", "--timeout", "--yes", "--force", "--no-adopt"},
        "chat:t": {"--timeout"},
        "stop": {"--model", "--all"},
        "status": {"--model", "--json"},
        "status:tiny": {"--json"},
        "logs": {"--model"},
        "catalogue": {"--json"},
        "doctor": {"--model", "--json"},
        "doctor:t": {"--json"},
    }
    assert options >= expected.get(task, set())
    assert (options == set()) is (task in ("exe", "stop:tiny"))
    assert ("-f, --follow" in text) is ("-n N, --lines=N" in text) is (task == "logs")


def test_info(still: Project) -> None:
    """R36: a task's place in the graph; doit's status 1 says that it has something to do."""
    result = still.doit("info", "serve:tiny")
    assert (result.status, result.err) == (1, "")
    assert "status     : run" in result.out
    assert "- verify:tiny" in result.out


@pytest.mark.parametrize(
    "task", ["start:tiny", "with:tiny", "chat:tiny", "stop:tiny", "status:tiny", "logs:tiny"]
)
def test_info_of_every_kind(still: Project, task: str) -> None:
    """R28, R38: doit looks at every task that may be run, without a traceback."""
    result = still.doit("info", task)
    assert (result.status, result.err) == (1, "")
    assert task in result.out


@pytest.mark.parametrize(
    "words",
    ["clean", "forget serve", "ignore verify", "reset-dep", "tabcompletion", "help", "list --deps --status"],
)
def test_other_commands_of_doit(still: Project, words: str) -> None:
    """R15, R36: they do what they can do without doit's memory, and leave the cache alone."""
    good(still.doit(*words.split()))
    assert not (still.cache / "models").exists()


@posix
def test_offers_of_tab_completion(still: Project) -> None:
    """R38: the shell completes verbs and doit's commands."""
    script = good(still.doit("tabcompletion", "--hardcode-tasks"))
    assert "serve" in script


def test_arguments_nobody_foresaw(still: Project) -> None:
    """R15: long, strange and foreign words are words."""
    for word in ("serve:" + "x" * 5000, "serve:../é€%s%d{0}[a"):
        assert "there is no model" in refused(still.doit(word))


@posix
def test_something_may_follow_start(project: Project) -> None:
    """Issue 4: what follows is run, too; doit itself takes it for arguments of a task that may have some."""
    with_llamafile(project)
    both = project.doit("start:m", "--port", "0", "stop:m")
    assert both.status == 0
    assert both.err.rstrip().endswith("m has stopped")


@posix
def test_chat_by_colon_with_a_server_that_runs(project: Project) -> None:
    """Issue 4: `chat:MODEL` means the same as `chat --model MODEL`, whether its server runs or not."""
    with_llamafile(project)
    with project.start("serve", "--port", "0") as running:
        running.wait_for("stop     Ctrl-C")
        asked = project.doit("chat", "Hello", "--model", "m")
        by_colon = project.doit("chat:m", "Hello")
        interrupt(running)
        running.finish()
    assert "Invalid parameter" not in asked.err + by_colon.err
    assert by_colon == asked


@pytest.mark.skipif(os.name == "nt", reason="closes descriptors with a POSIX shell")
@pytest.mark.parametrize(("closed", "status"), [("<&-", 1), ("2>&-", 0)])
def test_closed_descriptors(project: Project, closed: str, status: int) -> None:
    """R4, R35: a service without stdin gets the refusal of a question, one without stderr its work done."""
    source = project.path / "m.gguf"
    source.write_bytes(b"GGUF\x03\0\0\0")
    project.catalogue({"m": project.entry("m.gguf", source.read_bytes(), engine="embedded")})
    other = project.path / "other" / "m.gguf"
    other.parent.mkdir()
    other.write_bytes(source.read_bytes())
    words = f"exec {project.doit_program} download"
    words += f" --llamafile-url {other}" if status else ""
    done = subprocess.run(
        ["sh", "-c", f"{words} {closed}"], cwd=project.path, env=project.env, capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert ("pass --yes" in done.stderr) is bool(status)
    assert project.target(source.read_bytes(), "m.gguf").exists() is not bool(status)
