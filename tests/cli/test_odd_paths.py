"""Folders and files of any name, and settings of any text: it works or is a line of error (27, 29)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tasks.cache.stamps import cache_root
from tasks.errors import UsageError

from tests.fakes import llamafile
from tests.server.test_serve_cli import behave, with_gguf, with_llamafile
from tests.support.project import Project
from tests.support.users import AsUser

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names there are bytes, and ulimit -v works")

ODD = b"\xe9 \n\t\"'\xf0\x9f\x98\x80"
FLAGS = "--engine embedded --llamafile"


@pytest.fixture
def odd(project: Project, tmp_path: Path) -> Project:
    """A project whose folder and cache have a name that is not UTF-8, and all else that a name may have."""
    folder = tmp_path / os.fsdecode(b"clone" + ODD)
    shutil.move(project.path, folder)
    project.path, project.cache = folder, tmp_path / os.fsdecode(b"cache" + ODD)
    project.env["LLAMAFILE_CACHE"] = str(project.cache)
    return project


def test_every_verb(odd: Project) -> None:
    """Finding 27, F14: the catalogue's folder and the cache; what is printed is readable."""
    for words in (
        "catalogue", "plan --model demo", "verify:demo", "catalogue --json", "audit", "bom", "bom --json",
        "prune --dry-run", "cache-key --model demo", "lock --model demo", "lock --check", "list --all",
    ):  # fmt: skip
        result = odd.doit(*words.split(), env={"GITHUB_OUTPUT": os.devnull})
        assert result.status == (1 if words == "lock --check" else 0), (words, result)
        assert (result.out + result.err).isascii() or "\udce9" not in result.out + result.err
    assert rf"{os.sep}cache\xe9 " in odd.doit().out
    served = odd.doit("with", "--model", "demo", "--", "sh", "-c", "curl -s $LLAMAFILE_URL/v1/models")
    assert served.status == 0, served.err
    assert '"demo"' in served.out


EVERY = os.fsdecode(os.path.join(*(bytes(set(range(*ends)) - {ord("/")}) for ends in ((1, 128), (128, 256)))))


@pytest.mark.parametrize("part", ["clone", "cache", "file"])
def test_every_byte(project: Project, tmp_path: Path, part: str) -> None:
    """F14: all 254 bytes that a name may have, in the path of the clone, of the cache, or of a llamafile."""
    folder = tmp_path / part / EVERY
    folder.parent.mkdir(parents=True)
    with_llamafile(project)
    words = ["with", "--", "true"]
    if part == "clone":
        project.path = project.path.rename(folder)
        behave(project)
    elif part == "cache":
        project.cache = folder
        project.env["LLAMAFILE_CACHE"] = str(folder)
    else:
        folder = Path(str(folder).replace("=", ""))  # doit reads A=B as a variable, and says so
        folder.parent.mkdir(exist_ok=True)
        shutil.copy(project.path / "m.llamafile", folder)
        words = ["with", "--llamafile", str(folder), "--", "true"]
    for verb in ([], ["plan"], words, ["status", "--json"], ["audit"], ["bom"]):
        result = project.doit(*verb)
        assert result.status in (0, int(verb[:1] == ["status"])), (verb, result)


def test_servers_in_the_background(odd: Project) -> None:
    """F14: records, logs and keys in such a cache; every verb of servers."""
    try:
        start = odd.background("start", "--model", "demo", "--port", "0")
        assert start.status == 0, start.err
        url = start.out.strip()
        for words, said in (
            ("status --json", url), ("chat --model demo Hello", "\n"), ("logs --model demo", "\n"),
            ("doctor", "cache"), ("plan --model demo --json", "demo"), ("start --model demo --port 0", url),
        ):  # fmt: skip
            result = odd.doit(*words.split())
            assert (result.status, said in result.out) == (0, True), (words, result)
        assert odd.background("stop").status == 0
    finally:
        for process in odd.processes():
            process.kill()


@pytest.mark.parametrize("kind", [with_llamafile, with_gguf])
def test_a_llamafile(odd: Project, kind: Callable[[Project], object]) -> None:
    """F14: a program with such a path is downloaded, made executable, verified and served."""
    kind(odd)
    for words in (["verify"], ["with", "--", "true"], ["chat", "Hello"], ["audit"], ["bom", "--json"]):
        result = odd.doit(*words)
        assert result.status == 0, (words, result)


def test_the_catalogue_and_a_file_of_ones_own(project: Project, tmp_path: Path) -> None:
    """Finding 27, F14: their names, too; the embedded engine and models.yaml say what they cannot take."""
    catalogue = tmp_path / os.fsdecode(b"models" + ODD + b".yaml")
    shutil.copy(project.path / "models.yaml", catalogue)
    llamafile.build(tmp_path / os.fsdecode(b"own" + ODD + b".llamafile"))
    behave(project)
    own = tmp_path / os.fsdecode(b"own\xe9.gguf")
    shutil.copy(project.path / "demo" / "demo.gguf", own)
    project.env["LLAMAFILE_CATALOGUE"] = str(catalogue)
    assert project.doit().status == 0
    for words, status, said in (
        (["plan", *FLAGS.split(), str(own)], 0, ""),
        (["with", *FLAGS.split(), str(own), "--", "true"], 1, "is not UTF-8: rename the file"),
        (
            ["with", "--llamafile", str(tmp_path / os.fsdecode(b"own" + ODD + b".llamafile")), "--", "true"],
            0,
            "",
        ),
        (["add", str(own)], 3, "models.yaml cannot name the file "),
    ):
        result = project.doit(*words)
        assert (result.status, said in result.err) == (status, True), result


HUGE = "x" * 100_000
NOBODY = "~nobody-of-that-name/x"
NO_HOME = "cannot choose a cache directory: no home directory is known\n  fix: "
NO_PROXY = "is not the URL of a proxy\n  fix: HTTPS_PROXY="
ADD = "add hf:o/r/x.gguf"
SOME = ("CI", "HF_HOME", "NO_PROXY", "HF_TOKEN", "TMPDIR", "LANG")
FOLDERS = ("OLLAMA_MODELS", "HF_HUB_CACHE", "HF_HOME", "HF_TOKEN_PATH")
BYTES = os.fsdecode(b"a\xe9\x01\"'\n\xff")


@pytest.mark.parametrize(
    ("env", "words", "said"),
    [
        ({"LLAMAFILE_CACHE": NOBODY}, "", f"LLAMAFILE_CACHE={NOBODY}: there is"),
        ({"LLAMAFILE_CACHE": "~/x", "HOME": ""}, "", "LLAMAFILE_CACHE=~/x: there is no such home directory"),
        ({"LLAMAFILE_CACHE": "", "HOME": ""}, "", NO_HOME),
        ({"LLAMAFILE_CACHE": "", "HOME": "."}, "", NO_HOME),
        ({"LLAMAFILE_CACHE": HUGE}, "download:demo", "File name too long"),
        ({"LLAMAFILE_CACHE": "/dev/null"}, "download:demo", "/dev/null"),
        ({"LLAMAFILE_CATALOGUE": NOBODY}, "", f"LLAMAFILE_CATALOGUE={NOBODY}: "),
        ({"LLAMAFILE_CATALOGUE": HUGE}, "", "File name too long"),
        ({"LLAMAFILE_CATALOGUE": "/dev/zero"}, "", "it is not a regular file"),
        ({"LLAMAFILE_CATALOGUE": "."}, "", "it is not a regular file"),
        ({"HTTPS_PROXY": "http://user:secretpw@"}, ADD, NO_PROXY),
        ({"ALL_PROXY": "http://user:secretpw@h:x"}, ADD, NO_PROXY),
        ({"SOURCE_DATE_EPOCH": "9" * 30}, "bom --json", "SOURCE_DATE_EPOCH: expected seconds"),
        ({"COLUMNS": "²", "LINES": "²"}, "catalogue", ""),
        ({"COLUMNS": "9" * 20}, "catalogue", ""),
        (dict.fromkeys(SOME, BYTES), "", ""),
        ({"LLAMAFILE_LOG": BYTES}, "", "LLAMAFILE_LOG: expected json or text"),
        (dict.fromkeys(FOLDERS, BYTES), "download:demo", ""),
    ],
)  # fmt: skip
def test_settings(project: Project, env: Mapping[str, str], words: str, said: str) -> None:
    """Finding 29, F4: a line that names the setting, and the status; no password is shown."""
    result = project.doit(*words.split(), env=env)
    assert (result.status in (1, 3)) == bool(said), result
    assert said in result.err
    assert "secretpw" not in result.err
    assert len(result.err) < 1000 or HUGE in env.values()


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """F4: neither HOME nor an entry in the system's list of users."""

    def nobody(_: int) -> None:
        raise KeyError

    monkeypatch.setattr("pwd.getpwuid", nobody)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="cannot choose a cache directory: no home directory is known"):
        cache_root({}, "/")
    with pytest.raises(UsageError, match="LLAMAFILE_CACHE=~/x: there is no such home directory"):
        cache_root({"LLAMAFILE_CACHE": "~/x"}, "/")
    assert cache_root({"LLAMAFILE_CACHE": "x"}, "/a") == "/a/x"


VERBS = [
    *(
        "catalogue",
        "exe",
        "download",
        "chmod",
        "verify",
        "serve",
        "start",
        "with -- true",
        "chat hello",
        "stop",
    ),
    *("status", "logs", "doctor", "lock", "add hf:o/r/x.gguf", "audit", "prune", "bom", "cache-key", "plan"),
]


def test_every_verb_without_a_home(project: Project) -> None:
    """F4: a usage error that names the variable to set, whatever is asked for."""
    for env in ({"HOME": ""}, {"HOME": "."}, {"LLAMAFILE_CACHE": "~/x", "HOME": ""}):
        for words in VERBS:
            result = project.doit(*words.split(), env={"LLAMAFILE_CACHE": "", **env})
            assert (result.status, "LLAMAFILE_CACHE" in result.err) == (3, True), (words, result)
    assert not (project.path / "~").exists()
    assert not (project.path / ".cache").exists()


def test_a_user_without_an_entry(shared: Project, user: AsUser) -> None:
    """F4: neither HOME nor a line of passwd; with a cache everything works, `~` aside."""
    homeless = user(0)
    for name in ("HOME", "LLAMAFILE_CACHE"):
        del homeless.env[name]
    for words, env in ((["download", "--model", "demo"], {}), ([], {"LLAMAFILE_CACHE": "~/x"})):
        result = homeless.doit(*words, env=env)
        assert (result.status, "LLAMAFILE_CACHE" in result.err) == (3, True), (words, result)
    catalogue = homeless.doit(env={"LLAMAFILE_CACHE": "/tmp/x", "LLAMAFILE_CATALOGUE": "~/m.yaml"})
    assert (catalogue.status, "LLAMAFILE_CATALOGUE=~/m.yaml: " in catalogue.err) == (3, True), catalogue
    cache = {"LLAMAFILE_CACHE": homeless.env["TMPDIR"]}
    for words in (["download", "--model", "demo"], ["with", "--model", "demo", "--", "true"], ["doctor"], []):
        result = homeless.doit(*words, env=cache)
        assert result.status in (0, int(words == ["doctor"])), (words, result)


def test_a_catalogue_in_the_home(project: Project) -> None:
    """F26: the shell does not expand a ~ in quotes."""
    home = Path(project.env["HOME"])
    shutil.copy(project.path / "models.yaml", home / "m.yaml")
    assert project.doit(env={"LLAMAFILE_CATALOGUE": "~/m.yaml"}).status == 0


@pytest.mark.parametrize("megabytes", [60, 100])
def test_too_little_memory(project: Project, megabytes: int) -> None:
    """Finding 29: it works, or a line says that there is too little."""
    for words in ("lock --check", "download --no-adopt --llamafile-url http://127.0.0.1:1/x.gguf"):
        script = f"ulimit -v {megabytes * 1000} && exec {project.doit_program} {words}"
        # else the address space that glibc reserves depends on how its threads meet
        env = {**project.env, "MALLOC_ARENA_MAX": "1"}
        done = subprocess.run(
            ["sh", "-c", script], cwd=project.path, env=env, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip
        if "dodo.py" not in done.stderr and "tasks/" not in done.stderr:
            continue  # Python or doit themselves had no room for a start
        assert "Traceback" not in done.stderr
        assert done.returncode in (0, 1, 3)
