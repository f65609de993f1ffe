"""`endpoints:` of models.yaml: its errors with their lines, and what a command line makes of it."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from tasks.catalogue.compiled_form import is_catalogue
from tasks.catalogue.endpoints import ResolvedEndpoint, with_endpoints
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import resolve
from tasks.catalogue.schema import compile_catalogue
from tasks.errors import UsageError

from tests.catalogue.test_schema import problems
from tests.support.catalogues import VALID, catalogue
from tests.support.command_lines import parse

FILES = "{a: {url: https://example.org/a.gguf}, b: {url: https://example.org/b.gguf}}"
TEXT = f"""{VALID}\
  emb: {{title: E, url: https://example.org/e.gguf, license: MIT, kind: embedding, aliases: [vec]}}
  named: {{title: N, url: https://example.org/n.gguf, license: MIT, id: vec}}
  own-env: {{title: O, url: https://example.org/o.gguf, license: MIT, serve: {{env: {{X: "1"}}}}}}
  two: {{title: T, license: MIT, variants: {FILES}}}
  args: {{title: A, url: https://example.org/a.gguf, license: MIT, serve: {{args: [--samplers, a;b]}}}}
"""
LINE = TEXT.count("\n") + 2  # the entry's
ENV = Environment("linux", "/cache", "/recipe", "/home/me", find_program=lambda name: f"/bin/{name}")
OFFICE = "{models: [BIG, vec], keep: [vec], memory: 24, idle: 600, serve: {port: 9000, cors: '*'}}"


def with_endpoint(entry: str, name: str = "office") -> str:
    return f"{TEXT}endpoints:\n  {name}: {entry}\n"


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("{models: []}", ["models: expected at least one model, got []"]),
        ("{keep: []}", ["models: this key is required"]),
        ("{models: [bug]}", ["models.0: there is no model 'bug'; did you mean big?"]),
        ("{models: [big, Big]}", ["models.1: big is named twice"]),
        ("{models: [big], keep: [emb]}", ["keep.0: emb is not one of this endpoint's models"]),
        ("{models: [big], keep: [x]}", ["keep.0: there is no model 'x'"]),
        ("{models: [tiny]}", ["models.0: tiny.llamafile is a llamafile, and llama-server reads .gguf files"]),
        ("{models: [emb, named]}", ["models.1: its `id: vec` is also a name of emb"]),
        (
            "{models: [own-env]}",
            [
                "models.0: the model has `serve.env`, and one server has one environment: "
                "set it in `serve.env` of the endpoint"
            ],
        ),
        ("{models: [big], memory: 0}", ["memory: expected a number from 0.001 to 100000, got 0"]),
        ("{models: [big], idle: 0}", ["idle: expected a whole number from 1 to 999,999,999, got 0"]),
        ("{models: [big], variants: {x: a}}", ["variants.x: there is no model 'x'"]),
        ("{models: [big], variants: {emb: a}}", ["variants.emb: emb is not one of this endpoint's models"]),
        ("{models: [big], variants: {BIG: a}}", ["variants.BIG: big has no variants"]),
        ("{models: [two], variants: {two: c}}", ["variants.two: two has no variant 'c'; expected a, b"]),
        ("{models: [two], variants: {two: a, Two: b}}", ["variants.Two: two is named twice"]),
        (
            "{models: [big], serve: {ctx_size: 1}}",
            ["serve.ctx_size: unknown key; the keys here are host, port, timeout, cors, env, metrics"],
        ),
        (
            "{models: [big], serve: {env: {LLAMA_ARG_PORT: '1'}}}",
            ["serve.env.LLAMA_ARG_PORT: LLAMA_ARG_PORT is not allowed in env; use `port:`"],
        ),
        (
            "{models: [big], ram: 1}",
            ["ram: unknown key; the keys here are models, memory, keep, idle, variants, serve"],
        ),
    ],
)
def test_what_is_wrong(entry: str, expected: list[str]) -> None:
    """Each error has the line and the path of its key."""
    assert problems(with_endpoint(entry)) == [f"{LINE}: endpoints.office.{one}" for one in expected]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("big", "the name 'big' is taken by models.big"),
        ("SMALL", "the name 'SMALL' is taken by models.tiny"),
        ("a:b", "expected a name of letters, digits, '.', '_' and '-', 100 at most, got \"a:b\""),
    ],
)
def test_its_name(name: str, expected: str) -> None:
    """A word on a command line is a model or an endpoint, never both."""
    assert problems(with_endpoint("{models: [big]}", name)) == [f"{LINE}: endpoints.{name}: {expected}"]


def test_what_a_preset_cannot_say() -> None:
    """Issue 16.6: `;` and `#` end a value, in arguments of a model and in those of all models."""
    [line] = problems(with_endpoint("{models: [args]}"))
    assert line.endswith(
        "models.args.serve.args.1: the model is behind an endpoint, and there ';' ends a value: got 'a;b'"
    )
    text = with_endpoint("{models: [big]}").replace("{ctx_size: 4096}", "{args: ['--x=#1']}")
    assert [one.partition(": ")[2] for one in problems(text)] == [
        "defaults.args.0: the model is behind an endpoint, and there '#' ends a value: got '--x=#1'"
    ]
    assert compile_catalogue(TEXT, "m.yaml")["endpoints"] == {}  # and alone it is right


def test_the_compiled_form() -> None:
    """Names instead of aliases; it survives JSON, and damage is noticed."""
    plain = json.loads(json.dumps(compile_catalogue(with_endpoint(OFFICE), "m.yaml")))
    assert is_catalogue(plain)
    office = plain["endpoints"]["office"]
    assert (office["models"], office["keep"]) == (["big", "emb"], ["emb"])
    damage: list[dict[str, Any]] = [
        {"models": ["gone"]}, {"keep": [1]}, {"memory": "1"}, {"idle": []}, {"serve": {"args": []}}, {"x": 1},
        {"variants": {"big": "a"}}, {"variants": {"gone": "a"}}, {"variants": []},
    ]  # fmt: skip
    for change in damage:
        plain["endpoints"]["office"] = {**office, **change}
        assert not is_catalogue(plain), change


def office(line: str) -> ResolvedEndpoint:
    found = catalogue(with_endpoint(OFFICE))
    resolution, endpoints = with_endpoints(resolve(parse(shlex.split(line)), found, ENV), found, ENV)
    [endpoint] = endpoints.values()
    assert set(resolution.by_name) >= set(endpoint.names)  # their files are downloaded
    return endpoint


def test_what_a_command_line_makes_of_it() -> None:
    """llama-server serves each model as its entry says, whatever serves it alone."""
    found = office("serve OFFICE --api-key abcd --probe")
    assert [(one.name, one.engine, one.program and one.program.target) for one in found.members] == [
        ("big", "llama-server", "/bin/llama-server"),
        ("emb", "llama-server", "/bin/llama-server"),
    ]
    assert (found.settings.port, found.requested_port, found.settings.cors) == (9000, 9000, "*")
    assert (found.memory, found.keep, found.idle) == (24 * 10**9, ("emb",), 600)
    assert (found.key, found.probe, found.default.name) == ("abcd", True, "big")
    assert found.member("VEC") is found.members[1]
    assert office("start:office --port 0 --host ::1").settings.host == "::1"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("serve office --ctx-size 1", "--ctx-size is for one model, and office has several"),
        ("start office --force-gpu", "--force-gpu is for one model, and office has several"),
        ("serve office --engine embedded", "--engine embedded cannot serve office: llama-server alone"),
        ("serve office -- --foo", "--foo: arguments after -- are for one model, and office has several"),
        ("download office --variant q4", "--variant is for one model, and office has several"),
        ("bench office", "`doit bench` measures one model, and office is an endpoint"),
        ("check office", "`doit check` checks one model, and office is an endpoint"),
        ("serve office --api-key abc", "--api-key: expected at least four visible ASCII characters"),
        ("preset big", "`doit preset` is for an endpoint, and big is a model"),
        ("preset", "`doit preset` is for an endpoint"),
        ("serve offices", "there is no model 'offices' in m.yaml\n  fix: did you mean office?"),
        (
            "download office --llamafile-url https://x.org/y.gguf",
            "--llamafile-url is for one model, and office",
        ),
    ],
)
def test_what_is_refused(line: str, error: str) -> None:
    """An option of one model is refused, not ignored."""
    with pytest.raises(UsageError) as caught:
        office(line)
    assert str(caught.value).startswith(error)


def test_a_model_with_variants() -> None:
    """The memory of the machine chooses one; CI has to name an entry."""
    found = catalogue(f"{TEXT}endpoints: {{e: {{models: [two]}}}}\n")
    asked = resolve(parse(["serve", "e"]), found, ENV)
    [group] = with_endpoints(asked, found, ENV)[1].values()
    assert group.members[0].variant == "a"
    named = catalogue(f"{TEXT}endpoints: {{e: {{models: [two], variants: {{Two: B}}}}}}\n")
    [group] = with_endpoints(asked, named, ENV._replace(must_name_variant=True))[1].values()
    assert group.members[0].variant == "b"
    with pytest.raises(UsageError) as caught:
        with_endpoints(asked, found, ENV._replace(must_name_variant=True))
    assert str(caught.value) == (
        "e: two has variants, and in CI the machine does not choose\n"
        "  fix: add `variants: {two: a}` to endpoints.e in m.yaml"
    )
