"""The preset file of llama.cpp's router: what can be said in it, held against the real router."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from tasks.engine.router_preset import Member, problem, render
from tasks.network.answers import parse_json
from tasks.server.client import send_request

from tests.support.router import running

pytestmark = pytest.mark.once

# options of a model, and the keys of its section
SAID = [
    ("-m /a/m.gguf --ctx-size 4096", "model = /a/m.gguf|ctx-size = 4096"),
    ("--embedding --pooling mean", "embedding = true|pooling = mean"),
    ("--reranking", "reranking = true"),
    ("-ngl 99 --device none", "n-gpu-layers = 99|device = none"),
    ("--n-predict -1 --temp 0.7", "n-predict = -1|temp = 0.7"),
    ("--lora /a,b.gguf --lora /c.gguf", "lora = /a,b.gguf,/c.gguf"),
    ("--lora-scaled /a.gguf:0.5 --lora-scaled /b.gguf:2", "lora-scaled = /a.gguf:0.5,/b.gguf:2"),
    ("--jinja --chat-template-file /t.jinja", "jinja = true|chat-template-file = /t.jinja"),
    ("--no-warmup", "no-warmup = true"),
    # the command line's last one wins, whatever its name
    ("--ctx-size 4096 -c 512", "ctx-size = 512"),
    ("--threads 2 --ctx-size 1 -t 4", "threads = 4|ctx-size = 1"),
    ("--jinja --no-jinja", "no-jinja = true"),
    ("--no-jinja --jinja", "jinja = true"),
    # a value with spaces, quotes, an equals sign or a bracket
    ('--chat-template-kwargs {"a":[1,\u00a02]}', 'chat-template-kwargs = {"a":[1,\u00a02]}'),
    ("--override-kv a=int:1", "override-kv = a=int:1"),
]


@pytest.mark.parametrize(("options", "keys"), SAID)
def test_a_section(options: str, keys: str) -> None:
    """A flag is a key; one without a value is `true`."""
    member = Member("m", (), tuple(options.split(" ")))
    assert problem(member) == ""
    assert render([member]) == "version = 1\n\n[m]\n" + "".join(f"{key}\n" for key in keys.split("|"))


@pytest.mark.parametrize(
    ("member", "keys"),
    [
        (Member("m", ("a", "b"), ()), "alias = a,b\n"),
        (Member("m", (), (), keep=True), "load-on-startup = true\n"),
        (Member("m", (), (), idle=600), "sleep-idle-seconds = 600\n"),
        (Member("m", (), (), keep=True, idle=600), "load-on-startup = true\n"),
        # the model's own `idle` precedes the endpoint's, but for a model that is kept
        (Member("m", (), ("--sleep-idle-seconds", "5"), idle=600), "sleep-idle-seconds = 5\n"),
        (Member("m", (), ("--sleep-idle-seconds", "5"), keep=True), "load-on-startup = true\n"),
    ],
)
def test_keep_idle_and_names(member: Member, keys: str) -> None:
    """Keys that the endpoint adds."""
    assert render([member]) == f"version = 1\n\n[m]\n{keys}"


UNSAID = [
    (("m", "-m", "/a;b.gguf"), "the value of -m contains ';': '/a;b.gguf'"),
    (("m", "-m", "/a #1.gguf"), "the value of -m contains '#': '/a #1.gguf'"),
    (("m", "--samplers", "a;b"), "the value of --samplers contains ';': 'a;b'"),
    (("m", "--chat-template", "a\nb"), "the value of --chat-template contains '\\n': 'a\\nb'"),
    (("m", "--chat-template", " a"), "the value of --chat-template begins or ends with a space: ' a'"),
    (("m", "--chat-template", ""), "the value of --chat-template is empty"),
    (("m", "--control-vector-layer-range", "1", "2"), "--control-vector-layer-range has 2 values"),
    (("m", "--lora-scaled", "/a.gguf", "0.5"), "--lora-scaled has 2 values"),
    (("m", "--override-kv", "a=int:1", "--override-kv", "b=int:1"), "--override-kv is given twice"),
    (("m", "stray", "--jinja"), "'stray' is not a flag"),
    (("m", "--host", "0.0.0.0"), "--host applies to the whole endpoint"),
    (("m", "--api-key", "k"), "--api-key applies to the whole endpoint"),
    (("m", "-a", "x"), "-a applies to the whole endpoint"),
    (("a:b",), "the name a:b contains ':'"),
    (("a]b",), "the name a]b contains ']'"),
]


@pytest.mark.parametrize(("words", "text"), UNSAID)
def test_what_cannot_be_said(words: tuple[str, ...], text: str) -> None:
    """Issue 16.6: an error of the catalogue, not a file that means something else."""
    assert problem(Member(words[0], (), words[1:])) == text


def test_aliases_are_names() -> None:
    """The router splits them at commas."""
    assert problem(Member("m", ("a,b",), ())) == "the name a,b contains ','"


# how the real router reads a raw section, as words of the child's command line
READ = [
    ("model = /a;b.gguf", "--model /a"),
    ("model = /a #1.gguf", "--model /a"),
    ("samplers = a;b", "--samplers a"),
    ("ctx-size = 1\nc = 2", "--ctx-size 1"),
    ("c = 2\nctx-size = 1", "--ctx-size 1"),
    ("jinja = true\nno-jinja = true", "--no-jinja"),
    ("no-jinja = true\njinja = true", "--no-jinja"),
    ("override-kv = a=int:1\noverride-kv = b=int:1", "--override-kv b=int:1"),
]

# of an option with several names, a child gets the last one
LAST_NAMES = {"embedding": "embeddings", "temp": "temperature"}


@pytest.mark.skipif(os.name == "nt", reason="the program of the tests is a shell script")
def test_the_real_router_reads_it(llama_server: Path, tmp_path: Path) -> None:
    """Each row of SAID reaches the child; what problem() refuses would have meant something else."""
    said = [Member(f"s{n:02}", (), tuple(words.split(" "))) for n, (words, _) in enumerate(SAID)]
    text = render(said) + "".join(f"\n[t{n:02}]\n{raw}\n" for n, (raw, _) in enumerate(READ))
    with running(llama_server, tmp_path, text) as record:
        response = send_request(record.host, record.port, "/models")
        assert response is not None, Path(record.log).read_text()
    models = sorted(parse_json(response[1])["data"], key=lambda one: str(one["id"]))
    lines = [" ".join(model["status"]["args"]) for model in models]
    assert len(lines) == len(SAID) + len(READ)
    for (options, keys), line in zip(SAID, lines, strict=False):
        for key in keys.split("|"):
            name, value = key.split(" = ", 1)
            words = f" --{LAST_NAMES.get(name, name)} {value}".removesuffix(" true")
            assert f"{words} -" in f"{line} -", options
    for (raw, words), line in zip(READ, lines[len(SAID) :], strict=True):
        assert f" {words} -" in f"{line} -", raw
