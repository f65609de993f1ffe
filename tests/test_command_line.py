"""The command line, from words to what is asked for."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tasks import command_line
from tasks.command_line import CommandLine, Kind, TaskRequest
from tasks.errors import UsageError

from tests.support.command_lines import VERBS, parse

_WORDS = [
    *("serve", "serve:demo", "download", "list", "--port", "--", "-h", "--model=x", "x=1", "*", "8080"),
    *("with", "chat", "logs", "-f", "-n", "stop", "--all"),
]
NO_DASHES = "`doit with` needs `--` before its command"
PASSES = "`--` passes arguments to the engine, or to a command"


def one(word: str, *extra: str, **options: Any) -> list[TaskRequest]:
    verb, colon, model = word.partition(":")
    return [TaskRequest(verb, model if colon else None, options, extra, VERBS[verb].kind)]


@pytest.mark.parametrize(
    ("line", "asks"),
    [
        pytest.param("", [], id="nothing: doit's default task"),
        pytest.param("catalogue --json", one("catalogue", json=True), id="a flag"),
        pytest.param("serve", one("serve"), id="a verb"),
        pytest.param("download:mistral", one("download:mistral"), id="a verb and a model (R38)"),
        pytest.param("verify:tinyllama*", one("verify:tinyllama*"), id="a wildcard"),
        pytest.param("serve --model phi3", one("serve", model="phi3"), id="an option with a value"),
        pytest.param("serve --model=phi3", one("serve", model="phi3"), id="with an equals sign"),
        pytest.param("serve --mod phi3", one("serve", model="phi3"), id="shortened, as doit takes it"),
        pytest.param("serve --model=a=b", one("serve", model="a=b"), id="with another in the value"),
        pytest.param("serve --llamafile x", one("serve", llamafile="x"), id="not short for --llamafile-url"),
        pytest.param(
            "download --model a --model b",
            one("download", model=["a", "b"]),
            id="several times, where that is meant",
        ),
        # a word behind the verb
        pytest.param("serve demo", one("serve", model="demo"), id="a model"),
        pytest.param(
            "serve --port 9 demo --yes", one("serve", port="9", model="demo", yes=True), id="among options"
        ),
        pytest.param("start a b --port 0", one("start", model=["a", "b"], port="0"), id="several models"),
        pytest.param("start --model a b", one("start", model=["a", "b"]), id="by option and by word"),
        pytest.param(
            "start a status b", [*one("start", model=["a"]), *one("status", model=["b"])], id="of two verbs"
        ),
        pytest.param("logs demo -n 5", one("logs", model="demo", lines="5"), id="of logs"),
        pytest.param("stop a", one("stop", model=["a"]), id="of stop"),
        pytest.param("lock a", one("lock", model=["a"]), id="of lock"),
        pytest.param("plan 'tiny*'", one("plan", model=["tiny*"]), id="a pattern"),
        pytest.param("with demo -- ls x", one("with", "ls", "x", model="demo"), id="of with"),
        pytest.param(
            "serve demo -- --metrics", one("serve", "--metrics", model="demo"), id="and the engine's"
        ),
        pytest.param("serve ./x.llamafile", one("serve", llamafile="./x.llamafile"), id="a file"),
        pytest.param(
            "serve '/a/My Model.gguf'", one("serve", llamafile="/a/My Model.gguf"), id="a file, quoted"
        ),
        pytest.param("start x.GGUF", one("start", llamafile="x.GGUF"), id="a file by its suffix"),
        pytest.param(r"serve 'C:\x'", one("serve", llamafile="C:\\x"), id="a file of Windows"),
        pytest.param("serve https://x/a?b=c", one("serve", llamafile_url="https://x/a?b=c"), id="a URL"),
        pytest.param("stop ./x.gguf", one("stop", model=["./x.gguf"]), id="no file: stop takes models"),
        pytest.param(
            "serve --model a=b", one("serve", model="a=b"), id="with an equals sign, behind a blank"
        ),
        pytest.param("serve --llamafile-url U", one("serve", llamafile_url="U"), id="R2: --llamafile-url"),
        pytest.param("serve --llamafile_url U", one("serve", llamafile_url="U"), id="R2: the old spelling"),
        pytest.param(
            "serve --force-gpu --port 0 --host h", one("serve", force_gpu=True, port="0", host="h"), id="R10"
        ),
        pytest.param("serve --n-predict -1", one("serve", n_predict="-1"), id="a value that begins with -"),
        pytest.param("serve --host ''", one("serve", host=""), id="an empty value"),
        pytest.param(
            "serve:a --port 9 --yes", one("serve:a", port="9", yes=True), id="options of verb:model"
        ),
        pytest.param(
            "download:a chmod:b verify --model c exe",
            [*one("download:a"), *one("chmod:b"), *one("verify", model=["c"]), *one("exe")],
            id="several tasks, each with its options",
        ),
        pytest.param("download --no-adopt", one("download", no_adopt=True), id="--no-adopt"),
        pytest.param("download:a --no-adopt", one("download:a", no_adopt=True), id="--no-adopt of one model"),
        pytest.param(
            "serve:a --no-adopt -- x", one("serve:a", "x", no_adopt=True), id="--no-adopt where it downloads"
        ),
        pytest.param("download --no", one("download", no_adopt=True), id="--no-adopt, shortened"),
        pytest.param("download serve --port 9", [*one("download"), *one("serve", port="9")], id="serve last"),
        # doit's own flags stand before the first verb and are not ours
        pytest.param("-v0 --always-execute serve", one("serve"), id="doit's flags"),
        pytest.param("run serve", one("serve"), id="doit's run"),
        pytest.param("run -n 4 serve --port 9", one("serve", port="9"), id="doit's run with flags"),
        pytest.param("CI=1 serve", one("serve"), id="a variable of doit"),
        # what follows -- belongs to the engine
        pytest.param("serve --", one("serve"), id="-- and nothing"),
        pytest.param("serve -- --mlock", one("serve", "--mlock"), id="-- and a flag"),
        pytest.param("serve:a -- -c 9", one("serve:a", "-c", "9"), id="-- behind verb:model"),
        pytest.param(
            "serve --port 9 -- --port 8 a=b --x=y -- serve list '' 'a b'",
            one("serve", "--port", "8", "a=b", "--x=y", "--", "serve", "list", "", "a b", port="9"),
            id="-- and whatever: untouched",
        ),
        pytest.param("verify serve -- -t 2", [*one("verify"), *one("serve", "-t", "2")], id="-- is serve's"),
        # the server's whole life (issue 4)
        pytest.param(
            "start --model a --model b --probe --timeout 9",
            one("start", model=["a", "b"], probe=True, timeout="9"),
            id="start: several models",
        ),
        pytest.param("start:a -- -t 2", one("start:a", "-t", "2"), id="start: -- is the engine's"),
        pytest.param("serve --api-key K", one("serve", api_key="K"), id="R30: a key"),
        pytest.param(
            "start --model a status --json",
            [*one("start", model=["a"]), *one("status", json=True)],
            id="start ends, and something may follow",
        ),
        pytest.param("stop start", [*one("stop"), *one("start")], id="stop, then start"),
        pytest.param("stop --all", one("stop", all=True), id="stop: every one"),
        pytest.param(
            "stop --model a --model b stop:c",
            [*one("stop", model=["a", "b"]), *one("stop:c")],
            id="stop: several models",
        ),
        pytest.param(
            "status --model a --json", one("status", model=["a"], json=True), id="status: as JSON, of one"
        ),
        pytest.param("status:a --json", one("status:a", json=True), id="status:MODEL"),
        pytest.param("logs -f -n 5", one("logs", follow=True, lines="5"), id="logs: short flags"),
        pytest.param("logs -fn5", one("logs", follow=True, lines="5"), id="logs: short flags in one word"),
        pytest.param("logs:a -n 0", one("logs:a", lines="0"), id="logs:MODEL"),
        pytest.param(
            "logs --model a --follow --lines 5",
            one("logs", model="a", follow=True, lines="5"),
            id="logs: long flags",
        ),
        pytest.param(
            "run -n 2 logs -n 3", one("logs", lines="3"), id="logs: a -n that is doit's, one that is not"
        ),
        pytest.param(
            "with --model a --port 0 -- pytest -q --model b a=b -- x",
            one("with", "pytest", "-q", "--model", "b", "a=b", "--", "x", model="a", port="0"),
            id="with: the command is untouched",
        ),
        pytest.param("with:a -- env", one("with:a", "env"), id="with:MODEL"),
        pytest.param("with -- serve chat", one("with", "serve", "chat"), id="with: verbs are words there"),
        pytest.param("verify with -- x", [*one("verify"), *one("with", "x")], id="with behind another"),
        # the words of a question stand among the options
        pytest.param("chat", one("chat"), id="chat: no words"),
        pytest.param("chat Hello", one("chat", "Hello"), id="chat: a word"),
        pytest.param(
            "chat 'What is it?' --model a", one("chat", "What is it?", model="a"), id="chat: words before"
        ),
        pytest.param(
            "chat --model a 'What is it?'", one("chat", "What is it?", model="a"), id="chat: and behind"
        ),
        pytest.param(
            "chat one --model=a two --yes three",
            one("chat", "one", "two", "three", model="a", yes=True),
            id="chat: and between options",
        ),
        pytest.param("chat:a Hello --timeout 9", one("chat:a", "Hello", timeout="9"), id="chat:MODEL"),
        pytest.param("chat list serve", one("chat", "list", "serve"), id="chat: verbs are words there"),
        pytest.param("chat 'is 1+1=2?' x=y", one("chat", "is 1+1=2?", "x=y"), id="chat: words with ="),
        pytest.param("chat ''", one("chat", ""), id="chat: an empty word"),
        pytest.param(
            "chat a -- --b -- c",
            [one("chat", "a", "--b", "--", "c")[0]._replace(after_dashes=3)],
            id="chat: -- and words",
        ),
        pytest.param("verify chat Hello", [*one("verify"), *one("chat", "Hello")], id="chat behind another"),
    ],
)
def test_asks(line: str, asks: list[TaskRequest]) -> None:
    """Which tasks, of which model, with which options."""
    assert parse(shlex.split(line)) == CommandLine(tuple(asks))


@pytest.mark.parametrize(
    ("line", "command", "words"),
    [
        pytest.param("list", "list", [], id="list"),
        pytest.param("list --all", "list", ["--all"], id="list --all"),
        pytest.param("list --all exe verify", "list", ["--all", "exe", "verify"], id="list of a verb"),
        pytest.param("list --all serve:demo", "list", ["--all", "serve:demo"], id="list of one model"),
        pytest.param("help serve", "help", ["serve"], id="help serve is no serve"),
        pytest.param("info serve:demo", "info", ["serve:demo"], id="info"),
        pytest.param("clean --dry-run", "clean", ["--dry-run"], id="clean"),
        pytest.param("info serve -- x", "info", ["serve"], id="-- is none of ours there"),
    ],
)
def test_commands_of_doit(line: str, command: str, words: list[str]) -> None:
    """Commands that look at tasks ask for none."""
    assert parse(line.split()) == CommandLine((), command, tuple(words))


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        pytest.param("serve --prot 9", "doit serve: option --prot not", "did you mean --port", id="misspelt"),
        pytest.param("serve --ctx_size 9", "--ctx_size", "did you mean --ctx-size", id="with an underscore"),
        pytest.param(
            "serve:a --model b", "doit serve:a: option --model", "`doit help serve`", id="not there"
        ),
        pytest.param("serve --mlock", "--mlock", "engine arguments go after `--`", id="an engine's flag"),
        pytest.param("serve -c 9", "option -c", "did you mean --ctx-size", id="a short flag"),
        pytest.param("serve --llama x", "not a unique prefix", "--llamafile", id="short for two"),
        pytest.param("serve --port", "--port requires argument", "--port N", id="no value"),
        pytest.param("serve --yes=1", "--yes must not have", "--yes", id="a value for a flag"),
        pytest.param(
            "serve --no-adopt=1", "--no-adopt must not have", "--no-adopt", id="a value for --no-adopt"
        ),
        pytest.param(
            "download --no-adpot", "option --no-adpot", "did you mean --no-adopt", id="--no-adopt, misspelt"
        ),
        pytest.param(
            "download --no_adopt",
            "option --no_adopt",
            "did you mean --no-adopt",
            id="with an underscore, too",
        ),
        pytest.param("chmod --no-adopt", "--no-adopt", "`doit help chmod`", id="chmod downloads nothing"),
        pytest.param("exe --model a", "--model", "`doit help exe`", id="exe is of no model"),
        pytest.param("serve --help", "--help", "doit help serve", id="help, as other programs have it"),
        pytest.param(
            "serve --model a --model b", "one model, got a, b", "doit serve --model a", id="two models"
        ),
        pytest.param("serve a b", "expected one model, got a, b", "doit serve --model a", id="two words"),
        pytest.param(
            "with --model a b -- x", "one model, got a, b", "doit with --model a", id="option and word"
        ),
        pytest.param("logs a b", "expected one model", "doit logs --model a", id="logs of two"),
        pytest.param("start ./a ./b", "expected one file", "doit start --llamafile ./a", id="two files"),
        pytest.param(
            "serve /d/My Model.gguf",
            "got 2 words",
            "blanks: doit serve '/d/My Model.gguf'",
            id="an unquoted path",
        ),
        pytest.param(
            "start --llamafile /d/My Big Model.gguf",
            "got 3 words",
            "doit start --llamafile '/d/My Big Model.gguf'",
            id="an unquoted path of an option",
        ),
        pytest.param(
            "serve hf:o/r/m.gguf", "'hf:o/r/m.gguf' is not a model", "doit add hf:o/r/m.gguf", id="hf:"
        ),
        pytest.param("serv", "'serv' is not a verb", "did you mean serve", id="a misspelt verb alone"),
        pytest.param("version", "'version' is not a", "did you mean --version", id="a word for an option"),
        pytest.param(
            "run serv:demo", "'serv:demo' is not a verb", "did you mean serve", id="behind doit's run"
        ),
        pytest.param("info serv", "'serv' is not a verb", "did you mean serve", id="behind doit's info"),
        pytest.param("-a \x1b[2J exe", r"'\x1b[2J' is not a verb", "`doit list`", id="a control character"),
        pytest.param("forget \x9b2J", r"'\x9b2J' is not a verb", "`doit list`", id="for doit itself"),
        pytest.param("xyzzy", "'xyzzy' is not a verb", "`doit list`", id="a word that is near to no verb"),
        pytest.param("serve download", "nothing follows `serve`", "", id="a task behind serve"),
        pytest.param("serve:a serve:b", "nothing follows `serve`", "", id="two servers in the foreground"),
        pytest.param("download -- x", PASSES, "doit serve … -- ARG", id="-- without serve"),
        pytest.param("-- serve", PASSES, "doit with … -- COMMAND", id="-- and no verb before"),
        pytest.param("stop -- x", PASSES, "doit serve", id="-- behind stop"),
        pytest.param("status -- x", PASSES, "doit serve", id="-- behind status"),
        pytest.param("logs -f -- x", PASSES, "doit serve", id="-- behind logs"),
        pytest.param("start status -- x", PASSES, "doit serve", id="-- behind another than start"),
        pytest.param("with", "`doit with` needs a command", "doit with … -- COMMAND", id="with nothing"),
        pytest.param("with:a --", "`doit with` needs a command", "-- COMMAND", id="with -- and nothing"),
        pytest.param("with:a ls", NO_DASHES, "doit with:a -- ls", id="with a command, and no --"),
        pytest.param("with a echo hi", NO_DASHES, "doit with a -- echo hi", id="with a model and a command"),
        pytest.param("with a --yes ls -l", NO_DASHES, "doit with a --yes -- ls -l", id="with its options"),
        pytest.param("with --port 0 a serve", NO_DASHES, "--port 0 a -- serve", id="with a verb as command"),
        pytest.param("with --model a ls", NO_DASHES, "doit with --model a -- ls", id="with --model"),
        pytest.param(
            "with ls", "`doit with` needs a command", "-- COMMAND", id="with a model, and no command"
        ),
        pytest.param("with serve -- x", "nothing follows `with`", "", id="a task behind with"),
        pytest.param("with:a chat -- x", "nothing follows `with`", "", id="chat behind with"),
        pytest.param("serve status", "nothing follows `serve`", "", id="status behind serve"),
        pytest.param("chat Hi --modle a", "option --modle", "did you mean --model", id="chat, misspelt"),
        pytest.param("chat:a --model b", "option --model", "`doit help chat`", id="chat of two models"),
        pytest.param("chat --gpu x", "option --gpu", "`doit help chat`", id="chat takes no gpu"),
        pytest.param("logs -n", "option -n requires argument", " N", id="logs of no number"),
        pytest.param("logs -x", "option -x not", "`doit help logs`", id="a short flag that is not there"),
        pytest.param("stop:a --all", "option --all", "`doit help stop`", id="stop one, and all"),
        pytest.param("bom a", "`doit bom` takes no model: a", "`doit help bom` lists", id="bom of no model"),
        pytest.param("strat", "'strat' is not a verb", "did you mean start", id="start, misspelt"),
    ],
)
def test_refused(line: str, what: str, fix: str) -> None:
    """Before anything runs, with the nearest spelling or the command to type."""
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("line", "what", "fix"),
    [
        pytest.param("serve demo", "'demo' is not a verb", "doit serve --model=demo", id="a model"),
        pytest.param(
            "verify --yes start 'a b'", "'a b' is", "doit start --model='a b'", id="of the last verb"
        ),
        pytest.param("serve ./x y", "'./x' is not", "doit serve --llamafile=./x", id="a file"),
        pytest.param(
            "plan --model a=b", "takes a=b for a variable", "--model=a=b", id="doit drops the value"
        ),
    ],
)
def test_what_doit_itself_does_not_understand(line: str, what: str, fix: str) -> None:
    """ADR 15: where doit.cfg is not, the fix is the form that doit understands."""
    words = shlex.split(line)
    with pytest.raises(UsageError) as caught:
        command_line.parse(words, VERBS, plain_doit=True)
    assert what in caught.value.what
    assert caught.value.fix == fix
    pasted = shlex.split(fix.removeprefix("doit "))
    if pasted[0].startswith("-"):
        pasted.insert(0, words[0])
    assert command_line.parse(pasted, VERBS, plain_doit=True) == parse(pasted)


@pytest.mark.parametrize(
    ("task", "models"),
    [
        pytest.param(TaskRequest("serve", None, {}), (), id="none: the default"),
        pytest.param(TaskRequest("serve", "a", {}), ("a",), id="by the colon"),
        pytest.param(TaskRequest("serve", None, {"model": "a"}), ("a",), id="by option"),
        pytest.param(TaskRequest("download", None, {"model": ["a", "b"]}), ("a", "b"), id="by options"),
    ],
)
def test_models_of_a_task(task: TaskRequest, models: tuple[str, ...]) -> None:
    """A task names none, one or several models."""
    assert task.models == models


def test_every_option_is_explained() -> None:
    """`doit help VERB` shows what each option is for, and doit can parse it."""
    for verb in VERBS.values():
        for option in verb.params:
            assert option["help"]
            assert option["name"].isidentifier()
            assert option["type"] is bool or option["metavar"]
        assert len({o["long"] for o in verb.params}) == len(verb.params)
        shorts = [o["short"] for o in verb.params if o["short"]]
        assert len(set(shorts)) == len(shorts)


def test_the_kinds_of_verbs() -> None:
    """Steps and servers in the order of the chain; what a verb needs follows from its kind."""
    of = {kind: [verb for verb, one in VERBS.items() if one.kind is kind] for kind in Kind}
    assert of[Kind.STEP] == ["download", "chmod", "verify", "preset"]
    asking = ["chat", "bench", "check"]
    assert of[Kind.SERVER] == ["serve", "start", "with", *asking, "restart", "reload", "roll"]
    assert of[Kind.PROGRAM] == ["exe"]
    assert of[Kind.PLAN] == ["plan"]


@given(st.lists(st.sampled_from(_WORDS) | st.text(max_size=4), max_size=5), st.lists(st.text(max_size=4)))
def test_whatever_is_typed(words: list[str], extra: list[str]) -> None:
    """A request or a UsageError; behind `--` nothing is touched."""
    try:
        args = parse([*words, "--", *extra])
    except UsageError:
        return
    if not args.command and "--" not in words:
        handed = list(args.tasks[-1].extra) if extra else []
        assert handed[len(handed) - len(extra) :] == extra
        assert handed == extra or args.tasks[-1].verb == "chat"
