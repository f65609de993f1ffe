"""The command line and the record of an endpoint's server: what they say, and what `doit chat --as` means."""

from __future__ import annotations

from typing import Any

import pytest
from tasks.catalogue.settings import ServeSettings
from tasks.engine.command import Launch
from tasks.engine.launch_spec import LaunchSpec
from tasks.engine.router_launch import Router, recorded_chat, recorded_context, recorded_names
from tasks.engine.router_preset import Member
from tasks.errors import UsageError

MEMBERS = (
    Member("a", ("b", "A-v1"), ("-m", "/my models/a.gguf", "--ctx-size", "4096"), keep=True, idle=9),
    Member("vec", (), ("-m", "/e.gguf", "--embedding"), idle=60),
    Member("c", (), ("-m", "/c.gguf", "--ctx-size", "0")),
)
ROUTER = Router("/run/office.ini", 2, MEMBERS, ("a", "c"))
LAUNCH = Launch("llama-server", "linux", "", "/bin/llama-server")


def spec(version: str = "11669", key: str = "", **settings: Any) -> LaunchSpec:
    given = ServeSettings(**settings)
    return LaunchSpec("office", LAUNCH, (), given, version, key, model_id="a", router=ROUTER)


RECORD = spec().record_spec(8080)


@pytest.mark.parametrize(
    ("settings", "key_file", "more"),
    [
        ({}, "", "--metrics --offline --cors-origins localhost"),
        ({"cors": "*", "metrics": True}, "", "--metrics --offline --cors-origins *"),
        ({}, "/k", "--api-key-file /k --metrics --offline --cors-origins localhost"),
        # of the models, so not of the router, whose options override theirs
        (
            {"ctx_size": 1, "n_predict": 2, "idle": 3, "args": ("--x",)},
            "",
            "--metrics --offline --cors-origins localhost",
        ),
    ],
)
def test_the_command_line(settings: dict[str, Any], key_file: str, more: str) -> None:
    """Issue 16: only what belongs to the one server."""
    expected = "/bin/llama-server --models-preset /run/office.ini --models-max 2 --host 127.0.0.1 --port 80"
    assert " ".join(spec(**settings).argv(80, key_file)) == f"{expected} {more}"


def test_the_record() -> None:
    """Each difference that `doit start` reports has the name of a model or a setting."""
    assert RECORD == {
        "--models-max": "2",
        "keep": "a",
        "chat models": "a, c",
        "aliases": "b=a, A-v1=a",
        "models.a": "-m '/my models/a.gguf' --ctx-size 4096",
        "models.vec": "-m /e.gguf --embedding, idle 60",
        "models.c": "-m /c.gguf --ctx-size 0",
        "--engine": "llama-server 11669",
        "--host": "127.0.0.1",
        "--port": "8080",
        "--alias": "a",
    }
    assert recorded_names(RECORD) == ["a", "vec", "c"]
    assert spec(key="k", metrics=True, env={"A": "b c"}).record_spec(None) == {
        **{name: value for name, value in RECORD.items() if name != "--port"},
        "--api-key": "given",
        "metrics": "true",
        "env": "'A=b c'",
    }


@pytest.mark.parametrize(("word", "expected"), [("", "a"), ("c", "c"), ("C", "c"), ("B", "a"), ("a-v1", "a")])
def test_which_model_answers(word: str, expected: str) -> None:
    """A name or an alias in any case; without one the first model that chats."""
    assert recorded_chat(RECORD, "office", word) == expected


@pytest.mark.parametrize(
    ("values", "word", "error"),
    [
        (RECORD, "vec", "vec does not chat\n  models that chat: a, c\n  fix: --as a"),
        (RECORD, "x", "office has no model 'x'\n  models that chat: a, c\n  fix: --as a"),
        ({"models.vec": ""}, "", "office does not chat\n  models that chat: none"),
        (
            {"model": "m"},
            "a",
            "--as chooses a model of an endpoint, and office is one model\n  fix: remove --as",
        ),
    ],
)
def test_no_model_answers(values: dict[str, str], word: str, error: str) -> None:
    """The models that can answer are named."""
    with pytest.raises(UsageError) as caught:
        recorded_chat(values, "office", word)
    assert str(caught.value) == error


@pytest.mark.parametrize(("alias", "expected"), [("a", 4096), ("vec", None), ("c", None), ("", None)])
def test_its_context(alias: str, expected: int | None) -> None:
    """For coding agents: of the model that they get; 0 is as trained, which is not known here."""
    assert recorded_context({**RECORD, "--alias": alias}) == expected


def test_one_model_has_none() -> None:
    """A record of a server of one model."""
    assert recorded_chat({"model": "m"}, "m", "") == ""
    assert recorded_context({"--alias": "m", "--ctx-size": "5"}) is None
