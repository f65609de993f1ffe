"""What a user may type by mistake, and doit's own commands: clean words, the nearest spelling, status 3."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.server.test_serve_cli import with_llamafile
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
    project.cache.mkdir()
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
        pytest.param("sevre", "'sevre' is not a verb\n  fix: did you mean serve?", id="a verb misspelt"),
        pytest.param("lsit", "did you mean list?", id="a command of doit's"),
        pytest.param("info sevre", "did you mean serve?", id="info of no task"),
        pytest.param("download --model phi4", "did you mean phi3", id="a model that is not there"),
        pytest.param("verify:nop*", "no model matches 'nop*'", id="a pattern"),
        pytest.param("download --modle x", "did you mean --model?", id="download"),
        pytest.param("serve tiny nope", "expected one model, got tiny, nope", id="two models"),
        pytest.param("tiny", "tiny is a model, not a verb\n  fix: doit serve tiny\n", id="a model"),
        pytest.param("PHI3 x", "PHI3 is a model, not a verb\n  fix: doit serve PHI3\n", id="an alias"),
        pytest.param("'./my m.gguf'", "is not a verb\n  fix: doit serve './my m.gguf'\n", id="a file"),
        pytest.param("https://h/m.gguf", "fix: doit serve https://h/m.gguf\n", id="a URL"),
        pytest.param(
            "serve:", "expected a model's name after the colon\n  fix: doit serve:NAME", id="serve:"
        ),
        pytest.param("list serve:", "expected a model's name after the colon", id="list serve:"),
        pytest.param("info serve:", "expected a model's name after the colon", id="info serve:"),
        pytest.param("exe:", "`doit exe` takes no model: exe:\n  fix: doit exe\n", id="exe:"),
        pytest.param("info exe:x", "`doit exe` takes no model: exe:x\n", id="info exe:x"),
        pytest.param("stop all", "`all` is not a model\n  fix: doit stop --all", id="stop all"),
        # doit's options: a value, one that is not taken, a dodo.py that is not there
        pytest.param("-n x", "-n: expected a whole number, got 'x'\n  fix: doit VERB", id="-n x"),
        pytest.param("-n -1 status", "-n: expected 0 or a positive number, got -1\n", id="-n -1"),
        pytest.param("-P x status", "-P: expected process or thread, got 'x'\n", id="-P x"),
        pytest.param("-v x", "-v: expected a whole number, got 'x'\n", id="-v x"),
        pytest.param("list --sort x", "--sort: expected name or definition, got 'x'\n", id="list --sort x"),
        pytest.param("-r json status", "option -r not recognized\n  fix: LLAMAFILE_LOG=json", id="-r json"),
        pytest.param("--reporter bogus", "--reporter not recognized\n  fix: LLAMAFILE_LOG", id="--reporter"),
        pytest.param("--db-file x status", "fix: remove it: the recipe keeps no database", id="--db-file"),
        pytest.param("-o x status", "option -o not recognized\n  fix: redirect", id="-o"),
        pytest.param("-d /nope status", "option -d not recognized\n  fix: cd DIRECTORY", id="-d"),
        pytest.param("-f /nope", "-f /nope: there is no dodo.py\n  fix: -f DIRECTORY", id="-f"),
        pytest.param("-f models.yaml", "models.yaml is not a Python file\n  fix: -f DIR", id="-f of no code"),
        # doit's commands
        pytest.param("list nope", "'nope' is not a verb\n  fix: `doit help` lists the verbs\n", id="list"),
        pytest.param("info", "`info` expects one task, got 0\n  fix: doit info VERB", id="info of nothing"),
        pytest.param("info list", "'list' is not a verb\n  fix: `doit list` shows the verbs", id="info list"),
        pytest.param("info -- x", "'x' is not a verb\n  fix: `doit help` lists the verbs\n", id="info -- x"),
        pytest.param("clean", "has no effect here: nothing uses it\n  fix: `doit prune`", id="clean"),
        pytest.param("forget serve", "`doit forget` has no effect here", id="forget"),
        pytest.param("help forget", "`doit forget` has no effect here", id="help forget"),
        pytest.param("ignore", "`doit ignore` has no effect here", id="ignore"),
        pytest.param("reset-dep --help", "fix: `doit -a VERB` repeats its steps\n", id="reset-dep"),
        pytest.param("strace serve", "fix: strace -f doit VERB\n", id="strace"),
        pytest.param("dumpdb", "fix: `doit bom` lists what is here\n", id="dumpdb"),
    ],
)
def test_mistakes(still: Project, words: str, said: str) -> None:
    """R14, R28: what was typed, what is near it, status 3; nothing was begun."""
    assert said in refused(still.doit(*shlex.split(words)))
    assert not (still.cache / "models").exists()


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        ("--foo", True),
        ("list --foo", True),
        ("dumpdb", True),
        ("sevre", True),
        ("serve --foo", True),
        ("verify:nop*", True),
        ("chat tiny", True),
        ("with tiny -- nosuch", True),
        ("with tiny nosuch", True),
    ],
)
def test_an_error_for_programs(still: Project, words: str, fix: bool) -> None:
    """Issue 14.8: each line of stderr is an object, and the error has its fix in a field."""
    result = still.doit(*shlex.split(words), env={"LLAMAFILE_LOG": "json"})
    events = [json.loads(line) for line in result.err.splitlines()]
    [error] = [event for event in events if event["level"] == "error"]
    assert ("fix" in error) == fix, error
    assert not any(mark in error["message"] for mark in ("ERROR", "fix: "))
    assert not any(str(event.get("task", "")).startswith("_") for event in events)


@pytest.mark.parametrize(
    ("words", "name", "value", "said"),
    [
        ("plan", "LLAMAFILE_OFFLINE", "maybe", "expected 1, true, yes, on or 0, got 'maybe'\n  fix: "),
        (
            "plan",
            "DOIT_FILE",
            "/nope",
            "there is no dodo.py\n  fix: set DOIT_FILE to the directory of a clone",
        ),
        ("start tiny", "LLAMA_API_KEY", " ", "expected at least four visible ASCII"),
        (
            "with tiny -- x",
            "LLAMA_API_KEY",
            "a b",
            "commas\n  fix: set LLAMA_API_KEY to a key, or unset it\n",
        ),
    ],
)
def test_mistakes_in_the_environment(still: Project, words: str, name: str, value: str, said: str) -> None:
    """Issue 14.1: a variable that is read, with its name; before anything runs."""
    message = refused(still.doit(*words.split(), env={name: value}))
    assert re.match(rf"ERROR: {name}(: |={value}: )", message)
    assert said in message
    assert still.doit("cache-key", env={"LLAMA_API_KEY": " ", "LLAMAFILE_OFFLINE": "off"}).status == 0


def test_a_mistake_as_json(still: Project) -> None:
    """Issue 14.8: also where doit's own options are parsed, the line is an object with the fix."""
    result = still.doit("-r", "x", env={"LLAMAFILE_LOG": "json"})
    event = json.loads(result.err)
    fix = "LLAMAFILE_LOG=json logs JSON, VERB --json reports it"
    assert (result.status, event["message"], event["fix"]) == (3, "option -r not recognized", fix)


READS = ["", "list", "help", "help tiny", "plan tiny", "audit", "bom", "cache-key", "status", "logs", "stop",
         "idle", "info serve:tiny", "prune --dry-run", "lock --check", "doctor"]  # fmt: skip


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose cache does not exist."""
    project = Project(tmp_path_factory.mktemp("unused"))
    three(project)
    project.env |= {"LLAMAFILE_CACHE": "down/cache", "LLAMAFILE_OFFLINE": "1"}
    return project


@pytest.mark.parametrize("words", READS, ids=lambda words: words or "doit alone")
def test_what_only_reads_creates_nothing(unused: Project, words: str) -> None:
    """Issue 14.1: neither a cache, also one that is named by a relative path, nor another file."""
    before = sorted(unused.path.iterdir())
    unused.doit(*words.split())
    after = [path for path in unused.path.iterdir() if path.name != "__pycache__"]
    assert sorted(after) == [path for path in before if path.name != "__pycache__"]


def test_what_writes_remembers_the_catalogue(project: Project) -> None:
    """ADR 11: the first download of a cache that does not exist yet records its catalogue for `prune`."""
    (project.path / "m.gguf").write_bytes(b"GGUF\x03\0\0\0")
    project.catalogue({"m": project.entry("m.gguf", b"GGUF\x03\0\0\0", engine="embedded")})
    assert project.doit("download").status == 0
    assert len(list((project.cache / "roots").iterdir())) == 1


@pytest.mark.parametrize("words", ["status", "-n 2 status"])
def test_the_status_of_a_subprocess(still: Project, words: str) -> None:
    """Issue 14.1: `doit -n` has the same status and text, and prints no number."""
    result = still.process(*words.split())
    assert (result.status, result.err) == (1, "")
    assert result.out.startswith("nothing runs\n")


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
    assert {model["name"]: model["state"] for model in found["models"]}["tiny"] == "bundled"
    for gone in ("gone.yaml", str(folder)):
        message = refused(project.doit(cwd=folder, env={"LLAMAFILE_CATALOGUE": gone}))
        assert f"cannot read the catalogue {folder / gone}" in message
        assert "fix: set LLAMAFILE_CATALOGUE to a models.yaml; unset, it is" in message


def good(result: Result) -> str:
    """What a command of doit's says on stdout, when nothing is wrong."""
    assert (result.status, result.err) == (0, ""), result
    return result.out


def test_list(still: Project) -> None:
    """R38: the verbs, a line each."""
    lines = dict(line.split(maxsplit=1) for line in good(still.doit("list")).splitlines())
    steps = ["catalogue", "download", "exe", "chmod", "verify", "preset"]
    servers = ["serve", "start", "with", "chat", "restart", "reload", "roll", "stop", "idle", "status"]
    servers += ["logs"]
    looks = ["check", "plan", "bench", "add", "lock", "doctor", "audit", "prune", "bom", "cache-key"]
    looks += ["deploy", "push", "image"]
    assert sorted(lines) == sorted([*steps, *servers, *looks])
    assert lines["serve"] == "serve a model in the foreground: the default one, or NAME"


def test_list_all(still: Project) -> None:
    """R38: the verbs, and one line for each model (not one for each step of each)."""
    lines = good(still.doit("list", "--all")).splitlines()
    models = [line.split()[0] for line in lines if ":" in line.split()[0]]
    assert models == ["serve:mistral", "serve:phi3-mini", "serve:tiny"]
    assert len(lines) == 30 + 3
    [line] = [line for line in lines if line.startswith("serve:tiny")]
    assert line.split(maxsplit=1)[1] == "A model, 4 B"


BALANCERS = ["--haproxy", "--nginx", "--nginx-pid"]
LIFE = ["restart", "roll", "idle", "start", "start:tiny", "with", "chat", "chat:t", "stop", "status",
        "status:tiny", "logs", "stop:tiny", "doctor", "doctor:t"]  # fmt: skip


@pytest.mark.parametrize("task", ["serve", "serve:tiny", "download", "verify:t", "exe", "catalogue", *LIFE])
def test_help(still: Project, task: str) -> None:
    """R10, R17: every option of a verb, with what it means."""
    text = good(still.doit("help", task))
    options = {line.split()[0] for line in text.splitlines() if line.startswith("  --")}
    source = {"--llamafile", "--llamafile-url", "--sha256", "--yes", "--force"}
    settings = {"--host", "--port", "--force-gpu", "--gpu", "--ngl", "--ctx-size", "--n-predict"}
    settings |= {"--threads", "--engine", "--timeout", "--api-key", "--probe"}
    expected = {
        "serve": {"--model", *source, *settings},
        "serve:tiny": source | settings,
        "download": {"--model", *source},
        "start": {"--model", *source, *settings},
        "start:tiny": source | settings,
        "with": {"--model", *source, *settings},
        "chat": {"--model", "--port", "--timeout", "--yes", "--force", "--no-adopt", "--variant"},
        "chat:t": {"--timeout"},
        "restart": {"--model", *source, *settings},
        "roll": {"--model", *BALANCERS, "--wait", "--drain", *source, *settings} - {"--port"},
        "idle": {"--model", "--port", "--timeout", "--json"},
        "stop": {"--model", "--port", "--drain", "--all"},
        "stop:tiny": {"--port"},
        "status": {"--model", "--json"},
        "status:tiny": {"--json"},
        "logs": {"--model", "--port"},
        "catalogue": {"--json"},
        "doctor": {"--model", "--json"},
        "doctor:t": {"--json"},
        "exe": {"--frozen"},
    }
    assert options >= expected.get(task, set())
    assert options != set()
    assert not [word for word in ("(config", "llamafile_url", "%(") if word in text]
    assert max(map(len, text.splitlines())) <= 80
    assert ("-f, --follow" in text) is ("-n, --lines N" in text) is (task == "logs")


def test_help_has_the_defaults(still: Project) -> None:
    """Issue 14.1: those of models.yaml where it has some, the built-in ones otherwise."""
    text = " ".join(good(still.doit("help", "serve")).split())
    for said in ("[default: 127.0.0.1]", "[default: 8080]", "[default: 600]"):
        assert said in text
    still.catalogue({"tiny": still.entry("https://models.invalid/t")}, defaults={"port": 9, "ctx_size": 4096})
    text = " ".join(good(still.doit("help", "serve")).split())
    three(still)
    assert "[default: 9]" in text
    assert "[default: 4096]" in text


@pytest.mark.parametrize(
    ("verb", "option", "default"),
    [
        ("serve", "--port", "8080"),
        ("start", "--port", "8080, or a free one if your own server has it"),
        ("with", "--port", "a free one"),
        ("restart", "--port", "that of the server"),
        ("chat", "--port", "the only one"),
        ("logs", "--port", "the only one"),
        ("stop", "--port", "the only one"),
        ("status", "--port", "every one"),
        ("chat", "--model", "the one that runs, else the catalogue's or the one here"),
        ("start", "--model", "the catalogue's"),
        ("serve", "--gpu", ""),
    ],
)
def test_help_has_the_defaults_of_the_verb(still: Project, verb: str, option: str, default: str) -> None:
    """Issue 14.1: what holds for this verb."""
    text = " ".join(good(still.doit("help", verb)).split())
    about = text.split(f" {option} ")[1].split(" -")[0]
    shown = about.partition(" [default: ")[2]
    assert shown == (f"{default}]" if default else "")


@pytest.mark.parametrize(
    "words", ["help", "--help", "-h", "help help", "run --help", "help run", "--help --version"]
)
def test_the_overview(still: Project, words: str) -> None:
    """Issue 14.1: each verb of the recipe with what it does, in groups, and no page of doit's."""
    text = good(still.doit(*words.split()))
    lines = text.splitlines()
    shown = {line.split()[0] for line in lines if line.startswith("  ")}
    assert shown >= {*_listed(still)} - {"doit"}
    groups = ["Run a model", "Models", "What is pinned", "Elsewhere", "Steps that the others run", "Help"]
    assert [line for line in lines[1:] if not line.startswith(" ")] == groups
    assert len(lines) <= 48
    assert max(map(len, lines)) <= 80
    assert "automation tool" not in text


def _listed(project: Project) -> list[str]:
    return good(project.doit("list", "--quiet")).split()


HELPS = ["serve --help", "serve -h", "-v 0 serve --help", "serve --port x --help", "--help serve"]


@pytest.mark.parametrize("words", [*HELPS, "serve demo --help -- x"])
def test_help_behind_a_verb(still: Project, words: str) -> None:
    """Issue 14.1: `doit VERB --help` is `doit help VERB`."""
    assert good(still.doit(*words.split())) == good(still.doit("help", "serve"))


def test_help_after_two_dashes_is_the_commands(project: Project) -> None:
    """Issue 14.1: `--help` behind `--` is for the command, not for the recipe."""
    with_llamafile(project)
    result = project.doit("with", "m", "--", "echo", "--help", "-h")
    assert (result.status, result.out) == (0, "--help -h\n"), result.err


@pytest.mark.parametrize("words", ["help phi3", "help PHI3", "phi3 --help"])
def test_help_of_a_model(still: Project, words: str) -> None:
    """Issue 14.1: what the entry is, where it is from, its license and size, how it is served."""
    text = good(still.doit(*words.split()))
    assert text.startswith("phi3-mini: A model\n")
    for said in ("aliases   phi3", "license   MIT", "size      9 B", "from      https://models.invalid/phi3-mini",
                 "here      no", "doit serve phi3-mini ", "doit plan phi3-mini "):  # fmt: skip
        assert said in text
    assert 'doit chat phi3-mini "…"' in text


USAGES = [
    ("chat", "doit chat [MODEL | FILE] [OPTIONS] [QUESTION]"),
    ("chat:tiny", "doit chat:tiny [OPTIONS] [QUESTION]"),
    ("serve", "doit serve [MODEL | FILE | URL] [OPTIONS] [-- ENGINE-ARGUMENTS]"),
    ("add", "doit add [OPTIONS] SOURCE"),
    ("bench", "doit bench [MODEL] [OPTIONS]"),
    ("download", "doit download [MODEL | FILE | URL] [OPTIONS]"),
]


def test_the_usage_of_a_verb(still: Project) -> None:
    """The words that a verb takes, in their order."""
    for word, usage in USAGES:
        assert good(still.doit("help", word)).splitlines()[0] == f"usage: {usage}"


def test_help_of_nothing(still: Project) -> None:
    """Issue 14.1: a name that is neither a verb nor a model, with the nearest one."""
    message = refused(still.doit("help", "phi3-mni"))
    assert message == "ERROR: 'phi3-mni' is not a verb or a model\n  fix: did you mean phi3-mini, phi3?\n"


@pytest.mark.parametrize("command", ["list", "info", "tabcompletion"])
def test_help_of_a_command_of_doit(still: Project, command: str) -> None:
    """Issue 14.1: its own options alone."""
    text = good(still.doit("help", command))
    assert text.startswith(f"usage: doit {command}")
    assert "config:" not in text
    assert good(still.doit(command, "--help")) == text


def test_help_without_docstrings(still: Project) -> None:
    """Issue 14.1: PYTHONOPTIMIZE=2 removes them, and the help has the same text."""
    assert still.process("help", "stop", env={"PYTHONOPTIMIZE": "2"}) == still.doit("help", "stop")


def test_help_with_a_broken_catalogue(project: Project) -> None:
    """Issue 14.1: models.yaml is not needed to explain an option."""
    (project.path / "models.yaml").write_text("models: [")
    assert "--port N" in good(project.doit("help", "serve"))
    assert "Run a model" in good(project.doit("help"))
    assert "is not YAML" in refused(project.doit("help", "phi3"))


def test_version(still: Project) -> None:
    """Issue 14.1: the recipe's version, then doit's."""
    first, second = good(still.doit("--version")).splitlines()
    assert first.startswith("llamafile-recipe 0.")
    assert second.startswith("doit 0.")


@pytest.mark.parametrize(
    "words",
    ["--json", "run --model demo", "list --json", "info --zz", "-v", "list --sort", "--\x1b[2J", "-f"],
)
def test_an_option_that_doit_lacks(still: Project, words: str) -> None:
    """Issue 14.1: a line for people, without doit's list of all the options that it knows."""
    lines = refused(still.doit(*words.split())).splitlines()
    assert len(lines) == 2
    assert "option -" in lines[0]
    assert "CmdOption" not in lines[0]
    assert lines[0].isprintable()
    assert lines[1] == "  fix: doit VERB [OPTIONS]; `doit help` lists the verbs"


def test_a_name_behind_the_verb(project: Project) -> None:
    """Issue 14.1: the same as --model NAME, through the life of a server."""
    with_llamafile(project)
    words = "download m start m --port 0 status m logs m -n 1 stop m"
    result = project.doit(*words.split())
    assert result.status == 0, result.err
    assert "m      ready" in result.out
    assert result.err.rstrip().endswith("m has stopped")


def test_one_file_of_two_models(project: Project) -> None:
    """Issue 14.1: doit accepts a target once; the second model finds the file of the first."""
    data = b"GGUF\x03\0\0\0"
    (project.path / "m.gguf").write_bytes(data)
    project.catalogue({name: project.entry("m.gguf", data, engine="embedded") for name in ("a", "b")})
    result = project.doit("download", "b", "a")
    assert result.status == 0, result.err
    assert [line for line in result.err.splitlines() if line[:2] in (". ", "--")] == [
        ".  download:b",
        "-- download:a",
    ]


def test_a_file_behind_the_verb(project: Project) -> None:
    """Issue 14.1: a path is a file of one's own, seen from where the user is."""
    with_llamafile(project)
    (folder := project.path / "down loads").mkdir()
    source = next(project.path.parent.rglob("*.llamafile"))
    (folder / "my model.llamafile").write_bytes(source.read_bytes())
    result = project.process("with", "down loads/my model.llamafile", "--", "echo", "ready")
    assert (result.status, result.out) == (0, "ready\n"), result.err
    fix = refused(project.doit("serve", "down", "loads/my", "model.llamafile")).splitlines()[-1]
    assert fix == "  fix: quote a path with blanks: doit serve 'down loads/my model.llamafile'"


def test_info(still: Project) -> None:
    """R36: a task's place in the graph; doit's status 1 says that it has something to do."""
    result = still.doit("info", "serve:tiny")
    assert (result.status, result.err) == (1, "")
    assert "status     : run" in result.out
    assert "- verify:tiny" in result.out
    step = still.doit("info", "download:tiny").out
    assert " * What is here is not yet what it must be.\n" in step
    assert not [word for word in ("params", "<class", "<function", "lambda") if word in result.out + step]


@pytest.mark.parametrize(
    "task", ["start:tiny", "with:tiny", "chat:tiny", "stop:tiny", "status:tiny", "logs:tiny"]
)
def test_info_of_every_kind(still: Project, task: str) -> None:
    """R28, R38: doit looks at every task that may be run, without a traceback."""
    result = still.doit("info", task)
    assert (result.status, result.err) == (1, "")
    assert task in result.out


@pytest.mark.parametrize("words", ["tabcompletion", "help", "list --deps --status"])
def test_other_commands_of_doit(still: Project, words: str) -> None:
    """R15, R36: they do what they do elsewhere, and leave the cache alone."""
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


@pytest.mark.skipif(os.name == "nt", reason="needs a shell and /dev/full")
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("help serve | true", 0, ""),
        ("--version | true", 0, ""),
        ("help > /dev/full", 3, "ERROR: cannot write: No space left on device\n"),
        ("--version > /dev/full", 3, "ERROR: cannot write: No space left on device\n"),
    ],
)
def test_stdout_that_cannot_be_written(still: Project, words: str, status: int, said: str) -> None:
    """A reader that stops early is not an error; a full disk is one line."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"'{still.doit_program}' {words}"],
        cwd=still.path, env=still.env, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (status, said)
