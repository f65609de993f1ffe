"""What reaches the engine cannot open what the recipe's own options and keys say."""

from __future__ import annotations

import json

import pytest
from tasks.catalogue.engine_args import instead_of
from tasks.catalogue.environment import Environment
from tasks.catalogue.resolve import resolve
from tasks.catalogue.schema import compile_catalogue
from tasks.errors import UsageError

from tests.support.catalogues import catalogue
from tests.support.command_lines import parse

GUARDED = [
    *(("--host", "--host"), ("--host=0.0.0.0", "--host"), ("--hos", "--host"), ("--ho=::", "--host")),
    *(("--port", "--port"), ("--port=1", "--port"), ("--po", "--port"), ("--PORT", "--port")),
    *(("--api-key", "--api-key"), ("--api_key", "--api-key"), ("--api-key=x", "--api-key")),
    *(("--api", "--api-key"), ("--api-key-file", "--api-key-file"), ("--api_key_file=k", "--api-key-file")),
    *(("-m", "-m"), ("--model", "--model"), ("--model=/m", "--model"), ("-mu", "-mu"), ("-m=/m", "-m")),
    *(("--model-url", "--model-url"), ("--mmproj", "--mmproj"), ("-hf", "-hf"), ("--hf-repo", "--hf-repo")),
    *(("--hf-token", "--hf-token"), ("--listen", "--listen"), ("-l", "-l")),
]


@pytest.mark.parametrize(("word", "flag"), GUARDED)
def test_what_the_recipe_has_to_know(word: str, flag: str) -> None:
    """Finding 9: long and short, with `=`, with `_`, and abbreviated."""
    found = instead_of(word)
    assert found is not None
    assert found[0] == flag


@pytest.mark.parametrize(
    "word",
    [
        *("", "-", "--", "--parallel", "-np", "-mg", "--mlock", "--models-max", "--hostile", "--portable"),
        *("-ngl", "--ctx-size", "-c", "0.0.0.0", "host", "a=--host", "--threads-http", "--path", "--slots"),
        *("--flash-attn", "-fa", "--logit-bias", "--log-disable", "--alias", "--no-webui", "--embeddings"),
    ],
)
def test_what_goes_to_the_engine(word: str) -> None:
    """R10: everything else, as it is."""
    assert instead_of(word) is None


PLACE = Environment("linux", "/cache", "/root", "/cwd")


@pytest.mark.parametrize(("word", "flag"), GUARDED)
@pytest.mark.parametrize("verb", ["serve", "start"])
def test_after_the_dashes(verb: str, word: str, flag: str) -> None:
    """Finding 9: the command line says what to use in its place."""
    with pytest.raises(UsageError) as caught:
        resolve(parse([verb, "--", "--parallel", "2", word]), catalogue(), PLACE)
    assert caught.value.what == f"{flag} cannot be passed to the engine directly"
    assert f"got: {word} after --" in str(caught.value)
    assert "fix: set it before the --: " in str(caught.value)


TEXT = """\
version: 1
default: m
engines:
  llamafile: {{title: l, license: MIT}}
defaults:
  args: [--mlock, {0}]
models:
  m:
    title: M
    license: MIT
    url: https://example.org/m.llamafile
    serve:
      args:
        - --mlock
        - {1}
"""


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("--host", "`host:`"),
        ("--host=0.0.0.0", "`host:`"),
        ("--port", "`port:`"),
        ("--api-key", "LLAMA_API_KEY"),
        ("-m", "`url:`"),
        ("--mmproj", "`mmproj:`"),
    ],
)
def test_in_models_yaml(word: str, key: str) -> None:
    """Finding 9: in `defaults` and in a model, with the line and the key in its place."""
    flag = word.partition("=")[0]
    for text, place in (
        (TEXT.format(f"'{word}'", "--x"), "models.yaml:6: defaults.args.1: "),
        (TEXT.format("--x", f"'{word}'"), "models.yaml:15: models.m.serve.args.1: "),
    ):
        with pytest.raises(UsageError) as caught:
            compile_catalogue(text, "models.yaml")
        assert f"{place}{flag} is not allowed in args; use {key}" in str(caught.value)
    assert compile_catalogue(TEXT.format("--x", "--y"), "models.yaml")["defaults"] == {
        "args": ["--mlock", "--x"]
    }


@pytest.mark.parametrize("word", ["\0", "--x\0y"])
def test_a_nul(word: str) -> None:
    """The system would refuse to start the engine."""
    with pytest.raises(UsageError) as caught:
        compile_catalogue(TEXT.format("--x", json.dumps(word)), "models.yaml")
    assert "models.m.serve.args.1: an argument cannot have a NUL character" in str(caught.value)
