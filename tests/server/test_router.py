"""A running router: states of its models, models that stay loaded, and a new preset file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tasks.console.report import Fact
from tasks.engine.router_preset import Member, render
from tasks.errors import ServerError
from tasks.server.client import health, send_request
from tasks.server.router import Router, keep_loaded, wait_kept
from tasks.server.router_reload import changed_models, needs_restart
from tasks.server.router_report import all_lines
from tasks.server.router_state import ModelState, RoutedModel, failed_output, parse_models, to_touch

from tests.support.project import REPO, wait_until
from tests.support.router import running

DEMO = str(REPO / "demo" / "demo.gguf")
UNLOADED, LOADING, LOADED, SLEEPING, FAILED = ModelState


def entry(name: str, **status: object) -> dict[str, object]:
    """One model as the router lists it."""
    return {"id": name, "aliases": ["z", "a"], "status": status}


@pytest.mark.once
@pytest.mark.parametrize(
    ("data", "models"),
    [
        ([], ()),
        ([entry("m", value="loaded")], (RoutedModel("m", LOADED, None, ("a", "z")),)),
        ([entry("m", value="sleeping")], (RoutedModel("m", SLEEPING, None, ("a", "z")),)),
        (
            [entry("m", value="unloaded", failed=True, exit_code=1)],
            (RoutedModel("m", FAILED, 1, ("a", "z")),),
        ),
        (
            [entry("m", value="loading", preset="[m]\nctx-size = 1\nload-on-startup = true\n\n")],
            (RoutedModel("m", LOADING, None, ("a", "z"), kept=True),),
        ),
        # evicted: its process ended well
        ([entry("m", value="unloaded", exit_code=0)], (RoutedModel("m", UNLOADED, None, ("a", "z")),)),
        ([{"id": "m", "status": {"value": "loaded"}}], (RoutedModel("m", LOADED),)),
        # another server's list of models, or a state that this version does not know
        ([{"id": "m", "object": "model"}], None),
        ([entry("m", value="dreaming")], None),
        ([entry("m", value="loaded"), 3], None),
        ({}, None),
    ],
)
def test_states(data: object, models: tuple[RoutedModel, ...] | None) -> None:
    """What is malformed, or not a router's, is no list."""
    assert parse_models(json.dumps({"data": data}).encode()) == models


@pytest.mark.once
@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense", b"[" * 100_000])
def test_it_is_no_list(body: bytes) -> None:
    """An untrusted body is an answer or nothing."""
    assert parse_models(body) is None


@pytest.mark.once
@pytest.mark.parametrize(
    ("states", "models_max", "touched"),
    [
        # `a` and `b` are kept; all fit, so that none is ever unloaded
        ("a loaded, b loaded, c loaded", 3, ""),
        # room is left: the next load unloads none
        ("a loaded, b loaded, c unloaded", 3, ""),
        ("a loaded, c unloaded, d unloaded", 2, ""),
        # the next load unloads one: not the kept ones
        ("a loaded, b loaded, c loaded, d unloaded", 3, "a b"),
        ("a loaded, c sleeping, d unloaded", 2, "a"),
        ("a loaded, c loading, d unloaded", 2, "a"),
        # it has been unloaded
        ("a unloaded, b loaded, c loaded, d loaded", 3, "a b"),
        ("a unloaded, c unloaded", 2, "a"),
        # it is on its way, or its failure would repeat
        ("a loading, b failed, c loaded", 2, ""),
    ],
)
def test_which_models_are_touched(states: str, models_max: int, touched: str) -> None:
    """Issue 16: `keep` holds although the router exempts no model."""
    words = [text.split() for text in states.split(", ")]
    models = [RoutedModel(name, ModelState(state), kept=name in "ab") for name, state in words]
    assert to_touch(models, models_max) == touched.split()


@pytest.mark.once
def test_the_output_of_a_failed_model() -> None:
    """Of its last process alone; a port of four digits is padded."""
    log = (
        "load: spawning server instance with name=m on port 40000\n[40000] earlier\n"
        "load: spawning server instance with name=m on port 4000\n"
        "load: spawning server instance with name=m2 on port 40000\n"
        "[ 4000] E no such file\n[40000] of m2\n[ 4000] bye\nrun: instance name=m exited with status 1\n"
    )
    assert failed_output(log, "m") == "E no such file\nbye"
    assert failed_output(log, "m2") == "of m2"
    assert failed_output(log, "other") == ""


def chat(router: Router, name: str) -> int | None:
    """Ask for one token; return the status."""
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    path = "/v1/chat/completions"
    response = send_request(router.host, router.port, path, body=body, key=router.key, timeout_s=60)
    return response and response[0]


def member(name: str, *options: str, keep: bool = False, idle: int | None = None) -> Member:
    """A copy of the demo model."""
    return Member(name, (), ("-m", DEMO, "--ctx-size", "256", *options), keep, idle)


def states(router: Router) -> dict[str, ModelState]:
    """The states by name."""
    return {model.name: model.state for model in router.models() or ()}


posix = pytest.mark.skipif(os.name == "nt", reason="the program of the tests is a shell script")


@posix
def test_a_kept_model_with_a_real_router(llama_server: Path, tmp_path: Path) -> None:
    """Issue 16: unloaded by the router as the least recently used, and loaded again; never with a request."""
    members = [member("kept", "--embedding", keep=True), member("chat"), member("other", idle=1)]
    members.append(member("rank", "--reranking"))
    options = ("--models-max", "2", "--cors-origins", "localhost", "--metrics")
    with running(llama_server, tmp_path, render(members), *options, key="a-key") as record:
        router = Router.of(record)
        assert wait_kept(record, ["kept"], 60, lambda: False)
        assert Router(record.host, record.port, "another").models() is None
        assert chat(router, "chat") == 200
        # chat was used last: the router unloads the kept model
        assert chat(router, "other") == 200
        assert states(router) == {"kept": UNLOADED, "chat": LOADED, "other": LOADED, "rank": UNLOADED}
        looks = iter([False, True])
        keep_loaded(router, 2, lambda _: next(looks))
        assert states(router)["kept"] is LOADED
        # now that it is touched, it is not the one that is unloaded
        assert chat(router, "chat") == 200
        assert states(router) == {"kept": LOADED, "chat": LOADED, "other": UNLOADED, "rank": UNLOADED}
        assert router.touch("rank")
        assert router.busy("rank") == 0
        assert router.busy("other") is None
        assert router.unload("rank")
        wait_until(lambda: states(router)["rank"] is UNLOADED)
        # to count its requests neither keeps it in memory nor loads it again
        assert router.touch("other")
        wait_until(lambda: router.busy("other") == 0 and states(router)["other"] is SLEEPING)
        assert (router.requests(), states(router)["other"]) == (0, SLEEPING)


@posix
def test_a_model_that_fails(llama_server: Path, tmp_path: Path) -> None:
    """Issue 16.3: /health is 200 at once; the failed model is named with its output, the others go on."""
    members = [Member("gone", (), ("-m", "/nowhere.gguf"), True), member("good")]
    with running(llama_server, tmp_path, render(members)) as record:
        router = Router.of(record)
        wait_until(lambda: health(record.host, record.port) == 200)
        with pytest.raises(ServerError) as failure:
            wait_kept(record, ["gone"], 60, lambda: False)
        with pytest.raises(ServerError, match="office was not ready in time\n  not loaded: unlisted"):
            wait_kept(record, ["unlisted"], 0, lambda: False)
        text = str(failure.value)
        assert text.startswith("gone of office failed to load\n  ended: exit status 1\n  output:\n")
        assert "failed to open GGUF file '/nowhere.gguf' (No such file or directory)" in text
        assert chat(router, "good") == 200
        assert chat(router, "gone") == 500
        assert states(router) == {"gone": FAILED, "good": LOADED}


@posix
def test_a_new_preset_file(llama_server: Path, tmp_path: Path) -> None:
    """Issue 16.5: a model whose section is the same goes on; a file that cannot be read changes nothing."""
    with running(llama_server, tmp_path, render([member("a"), member("b")])) as record:
        router = Router.of(record)
        assert router.touch("a")
        assert router.touch("b")
        path = tmp_path / "p.ini"
        path.write_text(render([member("a"), member("b", "--parallel", "1"), member("c")]))
        assert router.reload() == ""
        assert states(router) == {"a": LOADED, "b": UNLOADED, "c": UNLOADED}
        path.write_text(render([member("a", "--nonsense", "1")]))
        assert router.reload() == "option 'nonsense' not recognized in preset 'a'"
        assert states(router) == {"a": LOADED, "b": UNLOADED, "c": UNLOADED}


@pytest.mark.once
@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({"models.a": "-c 1"}, {"models.a": "-c 1"}, ""),
        ({"models.a": "-c 1"}, {"models.a": "-c 2"}, "a"),
        ({"models.a": "", "models.b": ""}, {"models.a": "", "models.c": ""}, "b c"),
        ({"models.a": "", "keep": "a"}, {"models.a": ""}, "a"),
        (
            {"models.a": "", "models.b": "", "keep": "a, b"},
            {"models.a": "", "models.b": "", "keep": "b"},
            "a",
        ),
        ({"models.a": "", "aliases": "x=a"}, {"models.a": "", "aliases": "x=a, y=a"}, "a"),
        # of the server, not of a model
        ({"models.a": "", "--models-max": "1"}, {"models.a": "", "--models-max": "2"}, ""),
    ],
)
def test_which_models_have_changed(before: dict[str, str], after: dict[str, str], changed: str) -> None:
    """Issue 16.5: `reload` waits for these."""
    assert sorted(changed_models(before, after)) == changed.split()


@pytest.mark.once
def test_what_needs_a_restart() -> None:
    """Issue 16.5: all but what is about models."""
    taken_over = ("model", "aliases", "keep", "chat models", "--alias", "models.a")
    assert needs_restart(taken_over) == []
    fixed = ["--models-max", "--engine", "--host", "--port", "cors", "env", "metrics", "--api-key"]
    assert needs_restart([*taken_over, *fixed]) == fixed


@pytest.mark.parametrize(
    ("ports", "labels"),
    [([8080], ["office  "]), ([8080, 8081], ["office at http://h:8080  ", "office at http://h:8081  "])],
)
def test_endpoints_of_one_name_are_told_apart(ports: list[int], labels: list[str]) -> None:
    """17.4: replicas of an endpoint, in `doit status`."""
    models = [{"model": "a", "state": "loaded", "kept": True}]
    rows = [{"model": "office", "url": f"http://h:{port}", "models": models} for port in ports]
    facts = list(all_lines([*rows, {"model": "alone"}]))
    assert facts == [Fact(label, "a loaded (kept)") for label in labels]
