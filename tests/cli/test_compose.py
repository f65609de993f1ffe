"""Docker Compose starts servers of the recipe (docs/compose.md): its protocol, message by message.

tests/deploy/by_hand/provider.sh does the same with a real Compose and a real Docker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from llamafile_recipe_compose import (
    Call,
    CallError,
    container_url,
    in_words_of_file,
    message_of,
    parse,
    recipe_words,
)

from tests.server.test_serve_cli import with_llamafile
from tests.support.project import REPO, Project
from tests.support.servers import rows
from tests.test_readme import blocks

SCRIPT = "import llamafile_recipe; llamafile_recipe.main()"
UP = Call("shop", "up", "llm")
START = ["start", "--json", "--for=shop/llm"]
BRIDGE = "172.17.0.1"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--project-name=shop up llm", UP),
        ("--project-name shop up llm", UP),
        ("--project-name=shop up --model=m llm", UP._replace(options=(("model", "m"),))),
        ("--project-name=shop up --a=1 --a=2=3 llm", UP._replace(options=(("a", "1"), ("a", "2=3")))),
        ("--project-name=shop down llm", Call("shop", "down", "llm")),
        ("--project-name=shop stop --model=m llm", Call("shop", "stop", "llm", (("model", "m"),))),
        ("up llm", None),
        ("--project-name=shop", None),
        ("--project-name=shop pause llm", None),
        ("--project-name=shop up", None),
        ("--project-name=shop up llm more", None),
    ],
)
def test_a_call_by_compose(words: str, expected: Call | None) -> None:
    """Compose writes `--project-name=P`; its documentation also has it as two words."""
    if expected is None:
        with pytest.raises(CallError, match="is called by Docker Compose\n  fix: "):
            parse(words.split())
    else:
        assert parse(words.split()) == expected


@pytest.mark.parametrize(
    ("call", "bridge", "expected"),
    [
        (UP, "", START),
        (
            UP._replace(options=(("model", "m"), ("ctx-size", "512"))),
            "",
            [*START, "--model=m", "--ctx-size=512"],
        ),
        (UP._replace(options=(("yes", "true"), ("frozen", "false"))), "", [*START, "--yes"]),
        (UP, BRIDGE, [*START, f"--host={BRIDGE}"]),
        (UP._replace(options=(("host", "0.0.0.0"),)), BRIDGE, [*START, "--host=0.0.0.0"]),
        (UP._replace(options=(("url-host", "127.0.0.1"),)), BRIDGE, START),
        (Call("shop", "down", "llm", (("model", "m"),)), BRIDGE, ["stop", "--for=shop/llm"]),
        (Call("shop", "stop", "llm"), BRIDGE, ["stop", "--for=shop/llm"]),
        (UP._replace(options=(("json", "true"),)), "", "llm.provider.options: json is not for a provider"),
        (UP._replace(options=(("for", "x"),)), "", "llm.provider.options: for is not for a provider"),
        (UP._replace(options=(("repl", "2"),)), "", "llm.provider.options: repl is not for a provider"),
        (UP._replace(options=(("", "true"),)), "", "llm.provider.options:  is not for a provider"),
        (UP._replace(options=(("help", "true"),)), "", "llm.provider.options: help is not for a provider"),
        (UP._replace(options=(("model", "a"), ("model", "b"))), "", "options.model: expected one value"),
    ],
)
def test_what_compose_asks_for(call: Call, bridge: str, expected: list[str] | str) -> None:
    """The options are those of `start`, which refuses what it does not know."""
    if isinstance(expected, str):
        with pytest.raises(CallError) as raised:
            recipe_words(call, bridge)
        assert expected in str(raised.value)
        assert "\n  fix: " in str(raised.value)
    else:
        assert recipe_words(call, bridge) == expected


@pytest.mark.parametrize(
    ("url", "host", "expected"),
    [
        ("http://127.0.0.1:8080", "", "http://host.docker.internal:8080"),
        ("http://localhost:8080", "", "http://host.docker.internal:8080"),
        ("http://[::1]:8080", "", "http://host.docker.internal:8080"),
        ("http://172.17.0.1:8080", "", "http://172.17.0.1:8080"),
        ("http://[fd00::2]:8080", "", "http://[fd00::2]:8080"),
        ("http://127.0.0.1:8080", "127.0.0.1", "http://127.0.0.1:8080"),
        ("http://172.17.0.1:8080", "gateway", "http://gateway:8080"),
    ],
)
def test_the_url_for_containers(url: str, host: str, expected: str) -> None:
    """127.0.0.1 of a container is the container itself."""
    assert container_url(url, host) == expected


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"event": "progress", "level": "info", "message": "m: 10 %"}, ("info", "m: 10 %")),
        ({"event": "message", "level": "warning", "message": "one\ntwo"}, ("info", "one")),
        ({"event": "task_done", "level": "info", "message": "x took 1 s"}, ("debug", "x took 1 s")),
        ({"event": "error", "level": "error", "message": "no"}, ("error", "no")),
        (
            {"level": "error", "message": "no", "facts": {"log": "/l"}, "fix": "doit stop"},
            ("error", "no\n  log: /l\n  fix: doit stop"),
        ),
        ({"event": "x", "message": "no level"}, None),
        ({"level": "error", "message": "no", "facts": ["x"]}, None),
        (["no", "object"], None),
        (7, None),
    ],
)
def test_messages_of_the_log(event: object, expected: tuple[str, str] | None) -> None:
    line = json.dumps(event)
    assert message_of(line) == (expected or ("", line))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            "option --modle not recognized\n  fix: did you mean --model? (engine arguments go after `--`)",
            "there is no modle\n  fix: did you mean model?",
        ),
        (
            "option --x not recognized\n  fix: `llamafile-recipe help start` lists the options; engine …",
            "there is no x\n  fix: `llamafile-recipe help start` lists the options",
        ),
        ("option --yes must not have an argument\n  fix: --yes", ".yes: expected true or false"),
        ("option --model requires argument\n  fix: --model NAME", ".model: expected a value"),
    ],
)
def test_options_in_the_words_of_the_file(said: str, expected: str) -> None:
    text = in_words_of_file(UP, f"llamafile-recipe start: {said}")
    separator = "" if expected[0] == "." else ": "
    assert text == f"services.llm.provider.options{separator}{expected}"


def compose(project: Project, folder: Path, *words: str, **env: str) -> tuple[int, list[tuple[str, str]]]:
    """Run the program as Compose does, in the directory of another project; status and messages."""
    folder.mkdir(exist_ok=True)
    full = {**project.env, "PYTHONPATH": str(REPO), "LLAMAFILE_RECIPE": str(project.path), **env}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "compose", *words], cwd=folder, env=full,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stdout + done.stderr
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, [(one["type"], one["message"]) for one in messages]


@pytest.mark.skipif(os.name == "nt", reason="the fake llamafile is a shell script")
def test_up_and_down(servers: Project, tmp_path: Path) -> None:
    """Issue 18.4: `up` starts the server and hands its URL on; `down` ends it."""
    with_llamafile(servers)
    options = ["--model=m", "--port=0", "--url-host=127.0.0.1", "--api-key=sesame"]
    words = ["--project-name=shop", "up", *options, "llm"]
    status, said = compose(servers, tmp_path / "shop", *words)
    assert status == 0, said
    [row] = rows(servers)
    assert ("info", f"m is ready at {row['url']}") in [(kind, text.split(" after")[0]) for kind, text in said]
    assert said[-4:] == [
        ("setenv", f"URL={row['url']}"),
        ("setenv", f"OPENAI_BASE_URL={row['url']}/v1"),
        ("setenv", "MODEL=m"),
        ("setenv", "API_KEY=sesame"),
    ]
    assert {kind for kind, _ in said} == {"info", "debug", "setenv"}
    again = compose(servers, tmp_path / "shop", *words)[1]
    assert again[-4:] == said[-4:]
    assert ("info", f"m is already running at {row['url']}") in again
    status, said = compose(servers, tmp_path / "shop", "--project-name=shop", "down", "--model=m", "llm")
    assert (status, rows(servers)) == (0, [])
    assert said[1:] == [("info", f"stopping m at {row['url']}"), ("info", "m has stopped")]


@pytest.mark.skipif(os.name == "nt", reason="as a shell script")
def test_the_blocks_of_the_docs(servers: Project, tmp_path: Path) -> None:
    """docs/compose.md: its compose.yaml, as Compose calls the provider, and its program in Python."""
    [file], [program] = (blocks(kind, "docs/compose.md") for kind in ("yaml", "python"))
    provider = yaml.safe_load(file)["services"]["llm"]["provider"]
    assert provider["type"] == "llamafile-recipe"
    options = [f"--{name}={value}" for name, value in provider["options"].items()]
    # the test's container is this machine
    call = ["--project-name=shop", "up", *options, "--url-host=127.0.0.1", "--port=0", "llm"]
    status, said = compose(servers, tmp_path / "shop", *call)
    assert status == 0, said
    given = dict(text.split("=", 1) for kind, text in said if kind == "setenv")
    env = {"PATH": os.environ["PATH"], **{f"LLM_{name}": value for name, value in given.items()}}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "llamafile" in done.stdout


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        ("--modle=m", {}, "services.llm.provider.options: there is no modle\n  fix: did you mean model?"),
        ("--model=nope", {}, "there is no model 'nope' in "),
        ("--model=m --port=x", {}, "--port: expected a whole number"),
        ("--model=m", {"LLAMAFILE_RECIPE": "/nope"}, "LLAMAFILE_RECIPE=/nope: there is no clone of"),
        ("--model=m", {"LLAMAFILE_CACHE": "/dev/null/x"}, "/dev/null"),
    ],
)
def test_errors(servers: Project, tmp_path: Path, words: str, env: dict[str, str], said: str) -> None:
    """Compose shows `error` messages and discards stderr; it kills the command at the first one."""
    with_llamafile(servers)
    call = ["--project-name=shop", "up", *words.split(), "llm"]
    status, messages = compose(servers, tmp_path / "shop", *call, **env)
    assert status in (1, 3)
    assert [kind for kind, _ in messages if kind != "debug"] == ["error"]
    assert said in messages[-1][1]


def test_metadata(project: Project, tmp_path: Path) -> None:
    """Compose calls `stop` only for it; with parameters it would drop unknown options without a word."""
    command = [sys.executable, "-c", SCRIPT, "compose", "metadata"]
    env = {**project.env, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"stop": {"parameters": []}})
