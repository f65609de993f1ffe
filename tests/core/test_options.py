"""The command line, from words to what is asked for."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.errors import UsageError
from tasks.core.options import CHAIN, VERBS, Ask, Request, parse

_WORDS = ["serve", "serve:demo", "download", "list", "--port", "--", "-h", "--model=x", "x=1", "*", "8080"]


def one(word: str, *extra: str, **options: Any) -> list[Ask]:
    verb, colon, model = word.partition(":")
    return [Ask(verb, model if colon else None, options, extra)]


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
        pytest.param(
            "serve --model a --model b", one("serve", model="b"), id="several times: the last holds"
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
        # what stands behind -- belongs to the engine
        pytest.param("serve --", one("serve"), id="-- and nothing"),
        pytest.param("serve -- --mlock", one("serve", "--mlock"), id="-- and a flag"),
        pytest.param("serve:a -- -c 9", one("serve:a", "-c", "9"), id="-- behind verb:model"),
        pytest.param(
            "serve --port 9 -- --port 8 a=b --x=y -- serve list '' 'a b'",
            one("serve", "--port", "8", "a=b", "--x=y", "--", "serve", "list", "", "a b", port="9"),
            id="-- and whatever: untouched",
        ),
        pytest.param("verify serve -- -t 2", [*one("verify"), *one("serve", "-t", "2")], id="-- is serve's"),
    ],
)
def test_asks(line: str, asks: list[Ask]) -> None:
    """Which tasks, of which model, with which options."""
    assert parse(shlex.split(line)) == Request(tuple(asks))


@pytest.mark.parametrize(
    ("line", "command", "words", "listing"),
    [
        pytest.param("list", "list", [], True, id="list"),
        pytest.param("list --all", "list", ["--all"], True, id="list --all"),
        pytest.param("list --all serve:demo", "list", ["--all", "serve:demo"], False, id="list of one model"),
        pytest.param("help serve", "help", ["serve"], False, id="help serve is no serve"),
        pytest.param("info serve:demo", "info", ["serve:demo"], False, id="info"),
        pytest.param("clean --dry-run", "clean", ["--dry-run"], False, id="clean"),
        pytest.param("info serve -- x", "info", ["serve"], False, id="-- is none of ours there"),
    ],
)
def test_commands_of_doit(line: str, command: str, words: list[str], listing: bool) -> None:
    """Commands that look at tasks ask for none."""
    request = parse(line.split())
    assert request == Request((), command, tuple(words))
    assert request.listing is listing
    assert all(request.reaches(verb) for verb in CHAIN)


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
        pytest.param("verify --no-adopt", "--no-adopt", "`doit help verify`", id="verify downloads nothing"),
        pytest.param("exe --model a", "--model", "`doit help exe`", id="exe is of no model"),
        pytest.param("serve --help", "--help", "doit help serve", id="help, as other programs have it"),
        pytest.param(
            "serve --model a=b", "takes a=b for a variable", "--model=a=b", id="doit would drop the value"
        ),
        pytest.param("serv", "'serv' is not a task", "did you mean serve", id="a misspelt verb alone"),
        pytest.param(
            "run serv:demo", "'serv:demo' is not a task", "did you mean serve", id="behind doit's run"
        ),
        pytest.param("info serv", "'serv' is not a task", "did you mean serve", id="behind doit's info"),
        pytest.param("xyzzy", "'xyzzy' is not a task", "`doit list`", id="a word that is near to no verb"),
        pytest.param("serve demo", "'demo' is not a task", "doit serve:demo", id="a model behind a blank"),
        pytest.param("download verfy", "'verfy' is not a task", "did you mean verify?", id="a misspelt verb"),
        pytest.param("serve 8080", "'8080' is not a task", "`--`", id="a word for the engine"),
        pytest.param("serve download", "nothing follows `serve`", "", id="a task behind serve"),
        pytest.param("serve:a serve:b", "nothing follows `serve`", "", id="two servers in the foreground"),
        pytest.param(
            "download -- x", "`--` hands arguments to the engine", "doit serve", id="-- without serve"
        ),
        pytest.param(
            "-- serve", "`--` hands arguments to the engine", "doit serve", id="-- and no verb before"
        ),
    ],
)
def test_refused(line: str, what: str, fix: str) -> None:
    """Before anything runs, with the nearest spelling or the command to type."""
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert what in caught.value.what
    assert fix in caught.value.fix


@pytest.mark.parametrize(
    ("line", "reached"),
    [
        pytest.param("", "", id="nothing asked"),
        pytest.param("catalogue", "", id="the catalogue alone"),
        pytest.param("exe", "", id="the engine alone"),
        pytest.param("download", "download", id="the first link"),
        pytest.param("chmod:a", "download chmod", id="needs what comes before"),
        pytest.param("serve", "download chmod verify serve", id="needs everything"),
        pytest.param("chmod download", "download chmod", id="two links"),
    ],
)
def test_tasks_that_have_to_exist(line: str, reached: str) -> None:
    """Only what the command line can reach is created."""
    assert [verb for verb in CHAIN if parse(line.split()).reaches(verb)] == reached.split()


@pytest.mark.parametrize(
    ("ask", "models"),
    [
        pytest.param(Ask("serve", None, {}), (), id="none: the default"),
        pytest.param(Ask("serve", "a", {}), ("a",), id="by the colon"),
        pytest.param(Ask("serve", None, {"model": "a"}), ("a",), id="by option"),
        pytest.param(Ask("download", None, {"model": ["a", "b"]}), ("a", "b"), id="by options"),
    ],
)
def test_models_of_a_task(ask: Ask, models: tuple[str, ...]) -> None:
    """A task names none, one or several models."""
    assert ask.models == models


def test_every_option_is_explained() -> None:
    """`doit help VERB` shows what each option is for, and doit can parse it."""
    for verb in VERBS.values():
        for option in (*verb.options, *verb.one_options):
            assert option["help"]
            assert option["name"].isidentifier()
            assert option["type"] is bool or option["metavar"]
        assert len({o["long"] for o in verb.options}) == len(verb.options)


@given(st.lists(st.sampled_from(_WORDS) | st.text(max_size=4), max_size=5), st.lists(st.text(max_size=4)))
def test_whatever_is_typed(words: list[str], extra: list[str]) -> None:
    """A request or a UsageError; behind `--` nothing is touched."""
    try:
        request = parse([*words, "--", *extra])
    except UsageError:
        return
    if not request.command and "--" not in words:
        assert not extra or list(request.asks[-1].extra) == extra
